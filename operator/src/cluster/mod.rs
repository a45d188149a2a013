//! What is read of and written to the API server.

mod broker;
mod kinds;
mod objects;
mod seen;

pub use broker::{BrokerError, broker, read};
pub use kinds::known;
pub(crate) use objects::{DELETION_COST, KEPT};
pub use objects::{ApplyError, Objects, StartedPod, Written};
pub use seen::{Seen, Versions};
