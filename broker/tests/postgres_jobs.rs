//! Whole jobs over PostgreSQL: the same ones, and what only several brokers on one database can do.
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
#[path = "support/postgres.rs"]
mod postgres;
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

use common::{Client, Worker, World, show, submit};
use mpegflow_broker::embedded::{self, Config};
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_protocol::api::JobState;
use std::sync::Arc;

async fn world() -> World {
    world_with(|_| {}).await
}

async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let database = postgres::database().await;
    let mut world = common::world_with(|config| {
        config.database = Some(database.config());
        change(config);
    })
    .await;
    world.kept = Some(Box::new(database));
    world
}

/// A second broker: a data folder of its own with what replicas share, which are the authority, the capabilities' key, the
/// objects and the database.
async fn replica_of(world: &World) -> embedded::Running {
    let mut config = world.config.clone();
    config.data_dir = world.dir.path().join("replica");
    std::fs::create_dir_all(&config.data_dir).unwrap();
    for name in ["ca", "capability.key"] {
        let from = world.config.data_dir.join(name);
        let copied =
            std::process::Command::new("cp").arg("-r").arg(from).arg(&config.data_dir).status().unwrap();
        assert!(copied.success());
    }
    let objects = LocalObjects::open(world.config.data_dir.join("objects")).await.unwrap();
    config.objects = Some(Arc::new(objects));
    embedded::start(config).await.unwrap()
}

#[tokio::test]
async fn two_brokers_do_one_job_between_them() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let other = replica_of(&world).await;
    let mut elsewhere = Client::new(format!("http://{}", other.public_addr()), None, None);
    elsewhere.headers.clone_from(&tenant.headers);
    let join = world.join_file().await;
    let there = Worker::enroll(&join, other.worker_addr()).await;

    // Submitted here, leased there as soon as that one's relay or reconciler has heard of it.
    let job = submit(&tenant, b"x").await;
    let mut lease = None;
    for _ in 0..4 {
        if let mpegflow_protocol::worker::LeaseReply::Lease(found) = there.ask(5_000).await {
            lease = Some(*found);
            break;
        }
    }
    let lease = lease.unwrap();
    assert_eq!(there.finish(&lease).await.status, 204);
    // The next task is ready there; its lease goes on here.
    let lease = there.lease().await;
    assert_eq!(lease.task.name(), "encode");
    let here = Worker {
        client: Client::new(
            format!("https://{}", world.broker().worker_addr()),
            Some(&join.ca),
            Some((&there.certificate, &there.key)),
        ),
        ..there
    };
    assert_eq!(here.finish(&lease).await.status, 204);
    assert_eq!(here.run().await, 2);
    let shown = show(&elsewhere, &job).await;
    assert_eq!((shown.state, shown.outputs.len()), (JobState::Succeeded, 15));
    assert_eq!(elsewhere.get(&shown.outputs[0].url).await.status, 200);

    other.shutdown().await;
    let store = PostgresStore::open(world.config.database.clone().unwrap()).await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap();
    let answers = store.audit(&[checkpoint]).await.unwrap();
    // Created, four times started and succeeded, finished.
    assert!(matches!(answers.as_slice(), [(_, Ok(verified))] if verified.head.seq == 10), "{answers:?}");
}

/// A second broker on the same database knows of the first one's workers.
#[tokio::test]
async fn a_worker_of_one_broker_is_seen_by_the_other() {
    use mpegflow_broker::model::{Clock as _, SystemClock};
    use mpegflow_broker::store::operations::{Operations as _, PoolSeen};
    use mpegflow_protocol::ids::PoolName;
    let database = postgres::database().await;
    let (one, other) = (database.store().await, database.store().await);
    let now = SystemClock.now();
    let seen = |workers, idle| PoolSeen { pool: PoolName::default(), workers, idle };
    one.tell_pools("one", &[seen(2, 1)], now).await.unwrap();
    other.tell_pools("other", &[seen(1, 0)], now).await.unwrap();
    assert_eq!(one.pools_of_others("one", now.minus_ms(1)).await.unwrap(), [seen(1, 0)]);
    assert_eq!(one.pools_of_others("third", now.minus_ms(1)).await.unwrap(), [seen(3, 1)]);
    assert_eq!(one.pools_of_others("third", now.plus_ms(1)).await.unwrap(), [], "told too long ago");
    other.tell_pools("other", &[], now).await.unwrap();
    assert_eq!(one.pools_of_others("one", now.minus_ms(1)).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_send_each_message_once() {
    let receiver = receiver::Receiver::start().await;
    let world = world_with(|config| {
        config.webhooks.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.webhooks.ports = mpegflow_broker::webhooks::address::Ports::new(vec![1..=65_535]);
        config.webhooks.allow_http = true;
    })
    .await;
    let tenant = world.tenant("a").await;
    let other = replica_of(&world).await;
    let wanted = serde_json::json!({ "url": receiver.url(), "types": ["job.created"] }).to_string();
    assert_eq!(tenant.call("POST", "/v1/webhooks", wanted).await.status, 201);
    for _ in 0..20 {
        submit(&tenant, b"x").await;
    }
    common::eventually("all arrived", async || receiver.got().len() >= 20).await;
    // Time for what would come twice.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let ids: std::collections::BTreeSet<String> = receiver.got().iter().map(|g| g.id().to_owned()).collect();
    assert_eq!((ids.len(), receiver.got().len()), (20, 20));
    other.shutdown().await;
}

/// Puts a function of the same name before the server's own clock: all that the store asks the database for the time is answered by one
/// that can be moved.
const MOVED_CLOCK: &str = "
    CREATE SCHEMA moved;
    CREATE TABLE moved.by (ms bigint NOT NULL);
    INSERT INTO moved.by VALUES (0);
    CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS $$ SELECT pg_catalog.clock_timestamp() + (SELECT ms FROM moved.by) * interval '1 millisecond' $$;";

#[tokio::test(flavor = "multi_thread")]
async fn four_hours_of_one_task_on_the_databases_time_are_as_they_are_elsewhere() {
    let (dir, database) = (tempfile::tempdir().unwrap(), postgres::database().await);
    database.execute(MOVED_CLOCK).await;
    for set in ["search_path = moved, pg_catalog, public", "synchronous_commit = off"] {
        // Some ten thousand small writes, of which none has to survive anything.
        database.execute(&format!("ALTER DATABASE {} SET {set}", database.name)).await;
    }
    let store = Arc::new(database.store().await);
    let engine = long_job::engine(store.clone(), Arc::new(store.clock()), dir.path()).await;
    let mut conn = database.connect().await;
    let pass = async |ms: u64| {
        let sql = "UPDATE moved.by SET ms = ms + $1";
        sqlx::query(sql).bind(i64::try_from(ms).unwrap()).execute(&mut conn).await.unwrap();
        store.database_time().await.unwrap();
    };
    long_job::one_task_of_four_hours(&engine, pass).await;
}
