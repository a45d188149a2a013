//! Whole jobs over SQLite, why they wait, and what webhooks hear of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/early.rs"]
mod early;
#[path = "support/jobs.rs"]
mod jobs;
#[path = "support/keys.rs"]
mod keys;
#[path = "support/limits.rs"]
mod limits;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/retention.rs"]
mod retention;
#[path = "support/spend.rs"]
mod spend;
#[path = "support/waiting.rs"]
mod waiting;
#[path = "support/webhooks.rs"]
mod webhooks;

use common::{world, world_with};
