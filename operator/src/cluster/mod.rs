//! What is read of and written to the API server.

mod broker;
mod kinds;
mod objects;
mod seen;

pub use broker::{BrokerError, broker, read};
pub use kinds::known;
pub use objects::{ApplyError, Objects, StartedPod, Written};
pub(crate) use objects::{DELETION_COST, KEPT};
pub use seen::{Seen, Versions};
