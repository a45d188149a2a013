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
#[path = "support/long_job.rs"]
mod long_job;
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
use mpegflow_broker::model::{Clock, SystemClock, Time};
use mpegflow_broker::store::sqlite::SqliteStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that stands until it is moved.
struct Moved(AtomicI64);

impl Clock for Moved {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_four_hours_of_one_task_nobody_doubles_it_the_dead_are_replaced_in_time_and_sleepers_are_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("broker.db")).await.unwrap());
    let clock = Arc::new(Moved(AtomicI64::new(SystemClock.now().0)));
    let engine = long_job::engine(store, clock.clone(), dir.path()).await;
    let pass = async |ms: u64| {
        clock.0.fetch_add(i64::try_from(ms).unwrap(), Ordering::Relaxed);
    };
    long_job::one_task_of_four_hours(&engine, pass).await;
}
