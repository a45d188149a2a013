//! The audit log, as far as it is arithmetic: how events are chained, what a checkpoint says and who signed it, and what a
//! changed log gives away. No SQL, no files, no clock.

pub mod chain;
pub mod checkpoint;
pub mod keep;
pub mod verify;
