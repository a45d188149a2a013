//! The broker's control API, as its operator: pushes what the resources say, asks what workers do.
//!
//! No secret is kept for it. The operator's pod shows its own token, made for the broker's audience, and gets a certificate of an
//! hour for a key that was made here; at half of that hour it does so again.

mod client;
mod seen;

pub use client::{Control, ControlError, Settings};
pub use seen::{Pool, Seen, SeenVerdict, keep};
