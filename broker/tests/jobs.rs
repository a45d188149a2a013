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

use common::{show, upload, world, world_with};
use mpegflow_broker::model::{Clock, SystemClock, Time};
use mpegflow_broker::store::sqlite::SqliteStore;
use mpegflow_protocol::api::Job;
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
async fn a_job_that_a_broker_of_the_release_before_has_probed_is_told_of_as_if_it_had_kept_the_plan() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    let job: Job = spend::post(&tenant, &input, spend::not_early()).await.json();
    assert_eq!(worker.run().await, 1);
    let kept = show(&tenant, &job).await;
    assert!(kept.estimate.is_some() && kept.early.as_ref().unwrap().whole_because.is_some(), "{kept:?}");
    let url = format!("sqlite:{}/broker.db", world.config.data_dir.display());
    let db = sqlx::SqlitePool::connect(&url).await.unwrap();
    assert_eq!(sqlx::query("UPDATE jobs SET planned = NULL").execute(&db).await.unwrap().rows_affected(), 1);
    assert_eq!(show(&tenant, &job).await, kept);
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
