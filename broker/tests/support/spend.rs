//! What jobs cost, and what they may cost. Over whichever store the file that takes this in makes its worlds with.

use super::common::*;
use super::{world, world_with};
use mpegflow_broker::model::TenantLimits;
use mpegflow_protocol::api::{Job, JobPage, JobState, Upload};
use mpegflow_protocol::encoder::EncoderSpeed;
use mpegflow_protocol::failure::FailureCode;
use serde_json::{Value, json};

/// A spec with more fields. The made-up worker finds ten seconds of 720p and a sound track in everything: four rungs.
fn wanted(upload: &Upload, more: Value) -> String {
    let mut spec: Value = serde_json::from_str(&spec(upload)).unwrap();
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec.to_string()
}

pub(super) async fn post(tenant: &Client, upload: &Upload, more: Value) -> Answer {
    tenant.call("POST", "/v1/jobs", wanted(upload, more)).await
}

/// A look at an input that is to play early and cannot: segments of six seconds are too long for it.
pub(super) fn not_early() -> Value {
    json!({"dry_run": true, "output": {"early": true}, "video": {"segment_seconds": 6}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_job_would_cost_and_encodes_nothing() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    let job: Job = post(&tenant, &input, json!({"dry_run": true})).await.json();
    assert_eq!(worker.run().await, 1, "the probe alone");
    let job = show(&tenant, &job).await;
    assert_eq!((job.state, job.outputs.len(), job.progress.percent), (JobState::Succeeded, 0, 100.0));
    let estimate = job.estimate.unwrap();
    // Ten seconds, and four times ten.
    assert_eq!((estimate.input_minutes, estimate.output_minutes), (0.2, 0.7));
    assert!((1.0..60.0).contains(&estimate.core_seconds), "{estimate:?}");
    // A job that is encoded says the same.
    let real = submit(&tenant, b"x").await;
    assert_eq!(real.estimate, None, "nobody has looked at it yet");
    assert_eq!(worker.run().await, 4);
    assert_eq!(show(&tenant, &real).await.estimate, Some(estimate));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_costs_what_was_planned_for_it_whatever_brokers_are_told_later() {
    let mut world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    let job: Job = post(&tenant, &input, not_early()).await.json();
    assert_eq!(worker.run().await, 1);
    let before = show(&tenant, &job).await;
    assert!(
        before.estimate.is_some() && before.early.as_ref().unwrap().whole_because.is_some(),
        "{before:?}"
    );
    world.config.x264 = EncoderSpeed::Slow;
    world.crash_and_restart().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    assert_eq!(show(&tenant, &job).await, before);
    let listed: JobPage = tenant.get("/v1/jobs").await.json();
    assert_eq!(listed.jobs, std::slice::from_ref(&before));
    let next: Job = post(&tenant, &input, not_early()).await.json();
    assert_eq!(worker.run().await, 1);
    let (next, before) = (show(&tenant, &next).await.estimate.unwrap(), before.estimate.unwrap());
    assert!(next.core_seconds > before.core_seconds, "{next:?} {before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_would_cost_more_than_its_cap_is_refused_by_field_before_anything_is_encoded() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    // Nobody knows the input yet: it is looked at, and then nothing more is done.
    let job: Job = post(&tenant, &input, json!({"max_spend": {"core_seconds": 1}})).await.json();
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 422);
    assert_eq!(worker.run().await, 0);
    let failed = show(&tenant, &job).await;
    let failure = failed.failure.unwrap();
    assert_eq!((failed.state, failure.code), (JobState::Failed, FailureCode::SpendExceeded));
    assert!(failure.message.contains("`max_spend.core_seconds` allows 1 core-seconds"), "{failure}");
    // A dry run has the same cap, and tells what the input is.
    assert_eq!(post(&tenant, &input, json!({"dry_run": true})).await.status, 201);
    assert_eq!(worker.run().await, 1);
    // Now it is known: refused at once, and no job is made.
    let refused = post(&tenant, &input, json!({"max_spend": {"core_seconds": 1}})).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (422, "spend_exceeded"));
    assert_eq!(refused.json::<Value>()["field"], "max_spend.core_seconds");
    assert_eq!(worker.run().await, 0);
    let jobs: Value = tenant.get("/v1/jobs").await.json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2);
    // What another tenant knows of its own upload says nothing here.
    let other = world.tenant("b").await;
    let theirs = upload(&other, b"x").await;
    assert_eq!(post(&other, &theirs, json!({"max_spend": {"core_seconds": 1}})).await.status, 201);
    // A cap that is not reached lets it go on, and the answer has the estimate.
    let allowed = post(&tenant, &input, json!({"max_spend": {"output_minutes": 1}})).await;
    assert_eq!(allowed.status, 201);
    assert!(allowed.json::<Job>().estimate.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_cap_holds_for_each_of_its_jobs_whatever_they_say() {
    let world = world_with(|c| c.quotas.caps.core_seconds = Some(1)).await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    let job: Job = post(&tenant, &input, json!({"max_spend": {"core_seconds": 1_000_000}})).await.json();
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 422);
    let failure = show(&tenant, &job).await.failure.unwrap();
    assert!(failure.message.contains("`job_core_seconds` allows 1 core-seconds"), "{failure}");
    // The tenant's own limit stands in place of everybody's.
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let limits = TenantLimits { job_core_seconds: Some(10_000), ..TenantLimits::default() };
    assert!(world.broker().engine().store().set_tenant_limits(id, &limits).await.unwrap());
    eventually("it holds", async || {
        assert_eq!(post(&tenant, &input, json!({})).await.status, 201);
        worker.finish(&worker.lease().await).await.status == 204
    })
    .await;
    assert!(worker.run().await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minutes_of_a_day_are_shared_by_a_tenants_jobs_and_one_that_fails_gives_its_own_back() {
    // Six jobs of ten seconds.
    let world = world_with(|c| c.quotas.minutes_per_day = Some(1)).await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let input = upload(&tenant, b"x").await;
    let mut jobs: Vec<Job> = Vec::new();
    for _ in 0..8 {
        // Nobody knows how long it is yet: they are let in.
        jobs.push(post(&tenant, &input, json!({})).await.json());
    }
    // All are probed at once.
    let mut workers = Vec::new();
    for _ in 0..8 {
        workers.push(world.worker().await);
    }
    let probes = workers.iter().map(|w| async {
        let lease = w.lease().await;
        assert_eq!(lease.task.name(), "probe");
        w.finish(&lease).await.status.as_u16()
    });
    let mut statuses = futures_util::future::join_all(probes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 204, 204, 204, 204, 204, 422, 422], "no more than fit, however they race");
    let mut failed = 0;
    for job in &jobs {
        if let Some(failure) = show(&tenant, job).await.failure {
            assert_eq!(failure.code, FailureCode::MinutesExhausted);
            assert!(failure.message.contains("`minutes_per_day` allows 1 minutes"), "{failure}");
            failed += 1;
        }
    }
    assert_eq!(failed, 2);
    let refused = post(&tenant, &input, json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (429, "quota_exceeded"));
    assert_eq!(refused.json::<Value>()["field"], "minutes_per_day");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "until midnight: {wait}");
    // A dry run takes none, and another tenant has its own.
    assert_eq!(post(&tenant, &input, json!({"dry_run": true})).await.status, 201);
    let other = world.tenant("b").await;
    let theirs = upload(&other, b"x").await;
    assert_eq!(post(&other, &theirs, json!({})).await.status, 201);
    // A canceled job's are there again.
    let running = {
        let mut found = None;
        for job in &jobs {
            if !show(&tenant, job).await.state.is_final() {
                found = Some(job.id);
            }
        }
        found.unwrap()
    };
    assert_eq!(tenant.call("POST", &format!("/v1/jobs/{running}/cancel"), "").await.status, 200);
    eventually("it fits", async || post(&tenant, &input, json!({})).await.status == 201).await;
    drop(worker);
}
