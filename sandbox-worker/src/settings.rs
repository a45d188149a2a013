//! What may be set about a supervisor, with the values that hold where nothing is said.

use std::path::PathBuf;
use std::time::Duration;

/// Times and places of a supervisor.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The codec binary.
    pub codec: PathBuf,
    /// A private folder for unlinked files of seekable outputs.
    pub scratch: PathBuf,
    /// How long the broker may hold a lease call.
    pub lease_wait: Duration,
    /// How long a codec process may take from exec to its locks.
    pub lock_within: Duration,
    /// How long it may take to exit after its last frame.
    pub exit_within: Duration,
    /// How long an attempt may go without progress, a read or output.
    pub stalled_after: Duration,
    /// The longest time between two heartbeats; a short lease makes it shorter.
    pub heartbeat_every: Duration,
    /// How long a transfer is tried again before it fails the attempt. The lease ends it earlier where it cannot be renewed.
    pub retry_for: Duration,
}

impl Settings {
    /// The defaults, for a codec binary and a scratch folder.
    pub fn new(codec: PathBuf, scratch: PathBuf) -> Self {
        Self {
            codec,
            scratch,
            lease_wait: Duration::from_secs(25),
            lock_within: Duration::from_secs(10),
            exit_within: Duration::from_secs(10),
            stalled_after: Duration::from_secs(300),
            // A person watches the progress; a third of a minute, as long leases would give, looks like a hang.
            heartbeat_every: Duration::from_secs(2),
            retry_for: Duration::from_secs(120),
        }
    }
}
