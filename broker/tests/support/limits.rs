//! What a tenant may do and have. Over whichever store the file that takes this in makes its worlds with.

use super::common::*;
use super::{world, world_with};
use mpegflow_broker::engine::Rate;
use mpegflow_broker::model::TenantLimits;
use mpegflow_protocol::api::{Job, WaitingReason};
use mpegflow_protocol::worker::LeaseReply;

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_allowed_are_refused_with_a_time_and_other_tenants_are_not() {
    let world = world_with(|c| c.rate = Rate { per_second: 1, burst: 5 }).await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    let calls = (0..50).map(|_| tenant.get("/v1/presets"));
    let answers = futures_util::future::join_all(calls).await;
    let refused: Vec<_> = answers.iter().filter(|a| a.status == 429).collect();
    // A slow machine may take seconds over it, and each gives one more.
    assert!(refused.len() >= 30, "{}", refused.len());
    for answer in refused {
        assert_eq!(answer.problem(), "rate_limited");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!(other.get("/v1/presets").await.status, 200);
    // Who has no key has no bucket.
    assert_eq!(world.anonymous().get("/v1/presets").await.status, 401);
    assert_eq!(world.anonymous().get("/healthz").await.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_eq!(tenant.get("/v1/presets").await.status, 200);
}

async fn limit(world: &World, name: &str, limits: TenantLimits) {
    let id = world.broker().ensure_tenant(name).await.unwrap();
    assert!(world.broker().engine().store().set_tenant_limits(id, &limits).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_limits_hold_soon_and_for_it_alone() {
    let world = world().await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    let input = upload(&tenant, b"x").await;
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.status, 201);
    limit(
        &world,
        "a",
        TenantLimits { unfinished_jobs: Some(2), upload_bytes: Some(3), ..TenantLimits::default() },
    )
    .await;
    eventually("the quota of uploads holds", async || {
        tenant.call("POST", "/v1/uploads", r#"{"size":3}"#).await.status == 413
    })
    .await;
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.status, 201);
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.problem(), "quota_exceeded");
    assert_eq!(other.call("POST", "/v1/uploads", r#"{"size":3}"#).await.status, 201);
    limit(
        &world,
        "a",
        TenantLimits { requests_per_second: Some(1), burst: Some(1), ..TenantLimits::default() },
    )
    .await;
    eventually("the rate holds", async || tenant.get("/v1/presets").await.status == 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_tasks_run_than_a_tenant_may_have_and_the_others_say_why_they_wait() {
    let world = world_with(|c| c.quotas.running_tasks = Some(2)).await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    let mut jobs: Vec<Job> = Vec::new();
    for _ in 0..5 {
        jobs.push(submit(&tenant, b"x").await);
    }
    let mut workers = Vec::new();
    for _ in 0..6 {
        workers.push(world.worker().await);
    }
    let replies = futures_util::future::join_all(workers.iter().map(|w| w.ask(1_500))).await;
    let leased = replies.iter().filter(|r| matches!(r, LeaseReply::Lease(_))).count();
    assert_eq!(leased, 2, "of six at once");
    let reasons = async || {
        let mut found = Vec::new();
        for job in &jobs {
            found.extend(show(&tenant, job).await.waiting.map(|w| w.reason));
        }
        found
    };
    eventually("the others say why", async || reasons().await == [WaitingReason::Quota; 3]).await;
    // Another tenant's task is not behind them.
    let theirs = submit(&other, b"x").await;
    let free = world.worker().await;
    let lease = free.lease().await;
    assert_eq!(free.finish(&lease).await.status, 204);
    assert_eq!(show(&other, &theirs).await.tasks.len(), 2);
    // When one ends there is room for one. Who holds a lease is bound to this tenant, and gets no other's.
    let mut holding = workers.iter().zip(replies).filter_map(|(worker, reply)| match reply {
        LeaseReply::Lease(lease) => Some((worker, lease)),
        _ => None,
    });
    let ((worker, lease), (full, _)) = (holding.next().unwrap(), holding.next().unwrap());
    assert_eq!(worker.finish(&lease).await.status, 204);
    worker.lease().await;
    assert!(matches!(full.ask(1_500).await, LeaseReply::Idle {}));
}
