//! The real codec binary under its real locks, fed by a supervisor that is played here.

#![allow(unreachable_pub, reason = "the modules of one test binary share their helpers")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic in a test's helper is the report"
)]

mod media;
mod plans;
mod supervisor;

mod bans;
mod chunks;
mod copies;
mod damage;
mod encodes;
mod forms;
mod hostile;
mod inputs;
mod probes;
mod whole;
