//! Whole jobs over PostgreSQL and Redis: the same ones as over every store; and what becomes of them when Redis loses everything,
//! hangs, dies, or comes back with another password.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/jobs.rs"]
mod jobs;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis_server;

use common::{Client, Worker, World, eventually, output_digest, show, spec, submit, upload};
use mpegflow_broker::embedded::Config;
use mpegflow_broker::model::TenantLimits;
use mpegflow_broker::queue::Take;
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_protocol::api::{Job, JobState};
use mpegflow_protocol::worker::LeaseReply;
use mpegflow_protocol::worker::TaskProgress;
use redis_server::Server;
use std::sync::Arc;
use std::time::Duration;

async fn world() -> World {
    world_with(|_| {}).await
}

async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let (world, server) = world_and_server(Server::start(&[]), change).await;
    let mut world = world;
    let database = world.kept.take();
    world.kept = Some(Box::new((database, server)));
    world
}

async fn world_and_server(server: Server, change: impl FnOnce(&mut Config)) -> (World, Server) {
    let database = postgres::database().await;
    let mut world = common::world_with(|config| {
        config.database = Some(database.config());
        config.redis = Some(server.config());
        change(config);
    })
    .await;
    world.kept = Some(Box::new(database));
    (world, server)
}

/// Depth of the pool as KEDA would read it.
fn depth(server: &Server) -> u64 {
    server.cli(&["hlen", "{mpegflow:default}:depth"]).parse().unwrap_or(u64::MAX)
}

/// Workers that do whatever there is until they are told that it is enough.
fn crew(workers: Vec<Worker>) -> (Arc<std::sync::atomic::AtomicBool>, Vec<tokio::task::JoinHandle<u32>>) {
    let enough = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let crew = workers.into_iter().map(|worker| {
        let enough = Arc::clone(&enough);
        tokio::spawn(async move {
            let mut done = 0;
            while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                if let LeaseReply::Lease(lease) = worker.ask(500).await {
                    let answer = worker.finish(&lease).await;
                    assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
                    done += 1;
                }
            }
            done
        })
    });
    let crew = crew.collect();
    (enough, crew)
}

async fn many_jobs(tenant: &Client, count: usize) -> Vec<Job> {
    let input = upload(tenant, b"x").await;
    let mut jobs = Vec::new();
    for _ in 0..count {
        let answer = tenant.call("POST", "/v1/jobs", spec(&input)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        jobs.push(answer.json());
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_loses_everything_under_load_and_no_job_is_lost_or_done_twice() {
    const JOBS: usize = 200;
    let (world, server) =
        world_and_server(Server::start(&[]), |config| config.lease = Duration::from_secs(60)).await;
    let tenant = world.tenant("a").await;
    let mut workers = Vec::new();
    for _ in 0..6 {
        workers.push(world.worker().await);
    }
    let jobs = many_jobs(&tenant, JOBS).await;
    assert_eq!(depth(&server), JOBS as u64);
    let (enough, crew) = crew(workers);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(server.cli(&["flushall"]), "OK");
        let lost = std::time::Instant::now();
        // Again whole, and long before a scaler that asks every 30 s and waits 300 s takes the pool down.
        eventually("the index is whole again", async || {
            server.cli(&["hget", "{mpegflow:default}:meta", "whole"]) == "1"
        })
        .await;
        assert!(lost.elapsed() < Duration::from_secs(30), "{:?}", lost.elapsed());
    }
    let mut left = JOBS;
    for _ in 0..600 {
        left = 0;
        for job in &jobs {
            left += usize::from(show(&tenant, job).await.state != JobState::Succeeded);
        }
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(left, 0, "jobs are lost");
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut done = 0;
    for worker in crew {
        done += worker.await.unwrap();
    }
    assert_eq!(done as usize, JOBS * 4, "each task succeeded once");
    for job in &jobs {
        let job = show(&tenant, job).await;
        assert!(job.tasks.iter().all(|task| task.attempts == 1), "{:?}", job.tasks);
    }
    eventually("nothing is left in the index", async || depth(&server) == 0).await;
    let store = PostgresStore::open(world.config.database.clone().unwrap()).await.unwrap();
    let answers = store.audit(&[store.checkpoint().await.unwrap()]).await.unwrap();
    // Created, four times started and succeeded, finished: and not once more.
    assert!(matches!(answers.as_slice(), [(_, Ok(v))] if v.head.seq == 10 * JOBS as u64), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_hangs_leasing_asks_the_database_and_everything_else_goes_on() {
    let (world, server) =
        world_and_server(Server::start(&[]), |config| config.lease = Duration::from_secs(60)).await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let running = submit(&tenant, b"the first").await;
    let held = worker.lease().await;
    server.signal("STOP");

    // What runs renews, reads and writes; uploads and reads go on; so does leasing.
    assert_eq!(worker.beat(&held, TaskProgress::default()).await.status, 200);
    assert_eq!(worker.read(&held, 0).await, &b"the first"[..]);
    assert_eq!(worker.finish(&held).await.status, 204);
    let second = submit(&tenant, b"the second").await;
    let mut done = 0;
    for _ in 0..100 {
        if let LeaseReply::Lease(lease) = worker.ask(1_000).await {
            assert_eq!(worker.beat(&lease, TaskProgress::default()).await.status, 200);
            assert_eq!(worker.finish(&lease).await.status, 204);
            done += 1;
        }
        if done == 7 {
            break;
        }
    }
    assert_eq!(done, 7);
    for job in [&running, &second] {
        let job = show(&tenant, job).await;
        assert_eq!(job.state, JobState::Succeeded);
        for output in &job.outputs {
            assert_eq!(output_digest(&[&tenant.get(&output.url).await.body]).digest, output.digest);
        }
    }
    // A job that comes while Redis is away is in the index once it is back, and what ended meanwhile is not.
    let third = submit(&tenant, b"the third").await;
    server.signal("CONT");
    eventually_long("the index is what the store says", async || depth(&server) == 1).await;
    assert_eq!(worker.run().await, 4);
    assert_eq!(show(&tenant, &third).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_dies_and_comes_back_empty_with_another_password() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "one").unwrap();
    let file = password.clone();
    let (world, mut server) = world_and_server(Server::start(&["--requirepass", "one"]), |config| {
        config.redis.as_mut().unwrap().password_file = Some(file);
    })
    .await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let jobs = many_jobs(&tenant, 3).await;
    let held = worker.lease().await;
    server.kill();
    assert_eq!(worker.finish(&held).await.status, 204);
    assert_eq!(worker.finish(&worker.lease().await).await.status, 204);

    server.restart_with(&["--requirepass", "two"]);
    // It answers, but not to us.
    assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
    std::fs::write(&password, "two\n").unwrap();
    let count = || {
        let said = server.cli(&["-a", "two", "--no-auth-warning", "hlen", "{mpegflow:default}:depth"]);
        said.parse::<u64>().unwrap_or(u64::MAX)
    };
    eventually_long("the index is made again", async || count() == 3).await;
    assert_eq!(worker.run().await, 9);
    for job in &jobs {
        assert_eq!(show(&tenant, job).await.state, JobState::Succeeded);
    }
    eventually_long("nothing is left in the index", async || count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_leaves_the_depth_at_once() {
    let (world, server) = world_and_server(Server::start(&[]), |_| {}).await;
    let tenant = world.tenant("a").await;
    let jobs = many_jobs(&tenant, 2).await;
    assert_eq!(depth(&server), 2);
    let answer = tenant.call("POST", &format!("/v1/jobs/{}/cancel", jobs[0].id), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(depth(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_priority_and_a_tenants_weight_reach_the_index() {
    let (world, _server) = world_and_server(Server::start(&[]), |_| {}).await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let with =
        |priority: u8| spec(&input).replace("\"preset\"", &format!("\"priority\":{priority},\"preset\""));
    let mut ids = Vec::new();
    for priority in [0, 5, 9] {
        ids.push(tenant.call("POST", "/v1/jobs", with(priority)).await.json::<Job>());
    }
    let refused = tenant.call("POST", "/v1/jobs", with(10)).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let worker = world.worker().await;
    for job in ids.iter().rev() {
        for _ in 0..4 {
            assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
        }
        assert_eq!(show(&tenant, job).await.state, JobState::Succeeded);
    }
    let store = world.broker().engine().store();
    assert!(store.set_tenant_weight("a", 300).await.unwrap());
    assert!(!store.set_tenant_weight("nobody", 300).await.unwrap());
    assert_eq!(store.tenant_weights().await.unwrap().len(), 1);
    submit(&tenant, b"x").await;
    eventually_long("the index knows", async || {
        _server.cli(&["hvals", "{mpegflow:default}:weights"]) == "300"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_broker_died_between_taking_and_leasing_it_is_offered_again() {
    let (world, server) = world_and_server(Server::start(&[]), |_| {}).await;
    let tenant = world.tenant("a").await;
    submit(&tenant, b"x").await;
    let engine = Arc::clone(world.broker().engine());
    let worker = world.worker().await;
    let taken = engine.queue().take(&"default".parse().unwrap(), None, engine.now()).await.unwrap();
    assert!(matches!(taken, Take::Task(_)), "{taken:?}");
    // Just now: whoever took it may still be about to lease it.
    assert_eq!(engine.reconcile().await.unwrap().added, 0);
    assert!(matches!(worker.ask(100).await, LeaseReply::Idle {}), "the index has it as running");
    // The same, long ago.
    let task = server.cli(&["hkeys", "{mpegflow:default}:depth"]);
    let record = server.cli(&["hget", "{mpegflow:default}:depth", &task]);
    let mut parts: Vec<&str> = record.split('|').collect();
    let long_ago = (engine.now().0 - 120_000).to_string();
    parts[2] = &long_ago;
    server.cli(&["hset", "{mpegflow:default}:depth", &task, &parts.join("|")]);
    engine.reconcile().await.unwrap();
    assert!(matches!(worker.ask(2_000).await, LeaseReply::Lease(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_its_limit_costs_few_queries_while_redis_is_down() {
    let (world, mut server) =
        world_and_server(Server::start(&[]), |config| config.lease = Duration::from_secs(60)).await;
    let tenant = world.tenant("a").await;
    let jobs = many_jobs(&tenant, 3).await;
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let limits = TenantLimits { running_tasks: Some(1), ..TenantLimits::default() };
    assert!(world.broker().engine().store().set_tenant_limits(id, &limits).await.unwrap());
    // Until the limit is known everywhere.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let worker = world.worker().await;
    let held = worker.lease().await;
    server.kill();
    let database = world.kept.as_ref().unwrap().downcast_ref::<postgres::Database>().unwrap();
    let mut conn = database.connect().await;
    let mut queries = async || {
        let query = "SELECT pg_stat_clear_snapshot(), (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())";
        let row = sqlx::Executor::fetch_one(&mut conn, query).await.unwrap();
        sqlx::Row::get::<i64, _>(&row, 1)
    };
    // The first poll may find out that Redis is gone.
    assert!(matches!(worker.ask(1_000).await, LeaseReply::Idle {}));
    let before = queries().await;
    assert!(matches!(worker.ask(4_000).await, LeaseReply::Idle {}), "it has as many running as it may");
    // A poll that asked again and again would make thousands; the rest is what the broker does by itself.
    let made = queries().await - before;
    assert!(made < 400, "{made} transactions in 4 s");
    assert_eq!(worker.finish(&held).await.status, 204);
    assert!(matches!(worker.ask(5_000).await, LeaseReply::Lease(_)));
    assert_eq!(jobs.len(), 3);
}

async fn eventually_long(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 60 s: {what}");
}
