//! The operator in a real control plane, with exactly the rights of rbac.yaml. One cluster for all of these tests, and one
//! test at a time, because each counts what is written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "../support/rules.rs"]
mod rules;

mod audit;
mod definitions;
mod drift;
mod expiry;
mod fallback;
mod faults;
mod kept;
mod lease;
mod lifecycle;
mod limits;
mod steady;
mod support;
mod unreadable;
