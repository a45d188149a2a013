//! Whole jobs over SQLite.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;
#[path = "support/jobs.rs"]
mod jobs;

use common::{world, world_with};
