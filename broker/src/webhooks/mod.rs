//! Webhooks after the Standard Webhooks specification 1.0 (github.com/standard-webhooks/standard-webhooks).
//!
//! | module | holds |
//! |---|---|
//! | [`url`] | where a webhook may be: the shape of its URL |
//! | [`address`] | which addresses and ports may be connected to |
//! | [`secret`] | the signing secrets, and signatures |
//! | [`message`] | what a message says |
//! | [`schedule`] | when a failed delivery is tried again, and when it is given up |
//! | [`post`] | one attempt: resolve, check, connect to what was checked, send, read the status |
//! | [`sender`] | the loop that makes messages of events and sends what is due |
//!
//! **No event is lost.** An event is written in the transaction that moves its job. A webhook has a cursor into its tenant's
//! events; messages are made, and the cursor moved, in one transaction. **At least once:** a message is claimed by moving its next
//! attempt into the future; whoever ends the attempt has to have the claim's number. Two senders at once send a message twice
//! at most where one of them is slower than the claim lasts.

pub mod address;
pub mod message;
pub mod post;
pub mod schedule;
pub mod secret;
pub mod sender;
pub mod url;

use address::Ports;
use ipnet::IpNet;
use std::path::PathBuf;

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Networks that may be connected to although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Ports that may be connected to.
    pub ports: Ports,
    /// Whether `http` URLs are taken.
    pub allow_http: bool,
    /// PEM file with the only certificate authorities to trust; the system's where there is none.
    pub ca_file: Option<PathBuf>,
}
