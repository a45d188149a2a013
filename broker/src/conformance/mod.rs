//! The suite that every adapter passes, written against the traits. An adapter's tests call it with something that makes
//! fresh, empty instances; it panics where a promise is broken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "a test suite: a panic is the report"
)]

pub mod identity;
pub mod intake;
pub mod objects;
pub mod operations;
pub mod queue;
pub mod store;
