//! What becomes of leases and calls while PostgreSQL is away, or gone without a word.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/link.rs"]
mod link;
#[path = "support/postgres.rs"]
mod postgres;

use common::{eventually, show, submit};
use futures_util::future::join_all;
use mpegflow_broker::conformance::{
    self,
    store::{lease_of, make},
};
use mpegflow_broker::model::Clock as _;
use mpegflow_broker::store::postgres::{DatabaseConfig, DatabaseUrl, PostgresStore, UrlSource};
use mpegflow_broker::store::{Leased, NewLease, Store as _};
use mpegflow_protocol::api::TaskState;
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::worker::{LeaseReply, TaskProgress};
use postgres::PASSWORD;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_is_given_up_and_asked_again_over_new_connections() {
    let database = postgres::database().await;
    let there = ([127, 0, 0, 1], database.server.port()).into();
    let link = link::Link::to(vec![there]).await;
    let password = database.server.put("password", PASSWORD.as_bytes());
    let url = format!("postgres://mpegflow@127.0.0.1:{}/{}?sslmode=disable", link.port, database.name);
    let mut config = DatabaseConfig::new(UrlSource::Plain(DatabaseUrl::parse(&url).unwrap()));
    config.password_file = Some(password);
    config.connections = 4;
    let store = PostgresStore::open(config).await.unwrap();
    let made = make(&store, "a").await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        let (_, task) = conformance::store::submit(&store, &made).await;
        let new = NewLease { lease_ms: 600_000, ..lease_of(task, made.worker, store.clock().now()) };
        leases.push(new);
    }
    let Leased::Granted(attempt) = store.lease(&leases[0]).await.unwrap() else { panic!("not granted") };
    // As many connections as it may have.
    join_all((0..8).map(|_| store.ping())).await;
    link.strand();
    // Each of these stands before a silent connection of its own, and nobody else's call stands behind it for ever.
    let soon = Duration::from_secs(90);
    let store = &store;
    let one = async || while store.renew_lease(&attempt.claim, attempt.deadline, 600_000).await.is_err() {};
    let two = async || while store.lease(&leases[1]).await.is_err() {};
    let three =
        async || while store.ensure_tenant("b", TenantId::from_u128(7), attempt.deadline).await.is_err() {};
    let all = async { tokio::join!(one(), two(), three()) };
    tokio::time::timeout(soon, all).await.expect("the kernel gives such a connection up after 15 minutes");
    // Those that nobody has tried meanwhile are met once. Then all are gone, and their places with them.
    let healed = async { while !join_all((0..8).map(|_| store.ping())).await.iter().all(Result::is_ok) {} };
    tokio::time::timeout(soon, healed).await.expect("a place in the pool is not lost with its connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_is_not_blamed_on_workers_and_fails_no_job() {
    let server = Arc::new(postgres::Server::start(&["-c", "fsync=off"]));
    let database = postgres::database_on(Arc::clone(&server)).await;
    let world = common::world_with(|config| {
        config.database = Some(database.config());
        config.lease = Duration::from_secs(3);
    })
    .await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let job = submit(&tenant, b"x").await;
    let lease = async || {
        for _ in 0..60 {
            if let LeaseReply::Lease(lease) = worker.ask(1_000).await {
                return *lease;
            }
        }
        panic!("no lease");
    };
    // As often as a task may lose its worker.
    for _ in 0..3 {
        let held = lease().await;
        server.signal("STOP");
        tokio::time::sleep(Duration::from_secs(7)).await;
        server.signal("CONT");
        eventually("the lease has run out", async || {
            worker.beat(&held, TaskProgress::default()).await.status == 409
        })
        .await;
    }
    assert_eq!(worker.finish(&lease().await).await.status, 204);
    let shown = show(&tenant, &job).await;
    assert_eq!(shown.tasks[0].state, TaskState::Succeeded);
    assert_eq!(shown.tasks[0].attempts, 4, "{:?}", shown.tasks[0]);
    // A worker that is lost while we are there is its own fault still.
    let lost = lease().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let again = lease().await;
    assert_ne!(again.attempt, lost.attempt);
    let shown = show(&tenant, &job).await;
    let failure = shown.tasks[1].last_failure.as_ref().unwrap().code;
    assert_eq!(failure, FailureCode::WorkerLost);
}
