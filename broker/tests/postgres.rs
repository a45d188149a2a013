//! The PostgreSQL store on a real server: the suite of every store, and what only several brokers on one database can show.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::conformance;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_a_store() {
    let database = postgres::database().await;
    conformance::store::all(Arc::new(database.store().await.trusting_callers_time())).await;
}

#[tokio::test]
async fn the_server_takes_every_statement() {
    let database = postgres::database().await;
    let checked = database.store().await.check_statements().await.unwrap();
    assert!(checked > 50, "{checked}");
}
