//! Why jobs wait, and what their codecs wrote. Over whichever store the file that takes this in makes its worlds with.

use super::common::*;
use super::{world, world_with};
use mpegflow_protocol::api::{Job, JobLogs, JobPage, WaitingReason};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::telemetry::{Counts, WorkerSpans};
use mpegflow_protocol::worker::{Fail, Heartbeat, TaskProgress};
use std::time::Duration;

async fn reason(tenant: &Client, job: &Job) -> Option<WaitingReason> {
    show(tenant, job).await.waiting.map(|w| w.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_queued_job_says_why_it_waits() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (first, second) = (submit(&tenant, b"x").await, submit(&tenant, b"x").await);
    eventually("nobody is there", async || reason(&tenant, &first).await == Some(WaitingReason::NoWorker))
        .await;
    let listed: JobPage = tenant.get("/v1/jobs").await.json();
    assert!(
        listed.jobs.iter().all(|job| job.waiting.as_ref().is_some_and(|w| w.message.contains("`default`")))
    );

    let worker = world.worker().await;
    let _lease = worker.lease().await;
    assert_eq!(reason(&tenant, &first).await, None, "it is running");
    eventually("its worker is busy", async || {
        reason(&tenant, &second).await == Some(WaitingReason::OthersFirst)
    })
    .await;

    // It hangs up: within moments there is none.
    drop(worker);
    eventually("it is gone", async || reason(&tenant, &second).await == Some(WaitingReason::NoWorker)).await;
    let canceled = tenant.call("POST", &format!("/v1/jobs/{}/cancel", second.id), "").await;
    assert_eq!(canceled.json::<Job>().waiting, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_tried_again_later_says_when_and_why() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let worker = world.worker().await;
    let fail = Fail { failure: Failure::new(FailureCode::StorageError, "x"), evidence: None };
    // The pauses are 1, 2, 4 and 8 seconds: on a slow machine the first may be over before anybody looks.
    for _ in 0..4 {
        let lease = worker.lease().await;
        worker.end(&lease, "fail", serde_json::to_vec(&fail).unwrap()).await;
        let waiting = show(&tenant, &job).await.waiting;
        if let Some(waiting) = waiting.filter(|w| w.reason == WaitingReason::RetryLater) {
            assert!(waiting.until.is_some() && waiting.message.contains("storage_error"), "{waiting:?}");
            return;
        }
    }
    panic!("it never said so");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_gone_is_a_reason() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let objects = world.dir.path().join("data/objects");
    std::fs::rename(&objects, world.dir.path().join("away")).unwrap();
    eventually("storage is down", async || reason(&tenant, &job).await == Some(WaitingReason::StorageDown))
        .await;
    std::fs::rename(world.dir.path().join("away"), &objects).unwrap();
    eventually("it is back", async || reason(&tenant, &job).await == Some(WaitingReason::NoWorker)).await;
}

#[tokio::test]
async fn what_a_codec_wrote_is_kept_bounded_and_shown_to_its_tenant_alone() {
    let world = world_with(|c| c.lease = Duration::from_secs(60)).await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    let job = submit(&tenant, b"x").await;
    let path = format!("/v1/jobs/{}/logs", job.id);
    assert_eq!(tenant.get(&path).await.json::<JobLogs>().attempts, []);
    let worker = world.worker().await;
    let lease = worker.lease().await;
    let beat = async |lines: Vec<String>| {
        let beat = Heartbeat {
            progress: TaskProgress::default(),
            log: lines,
            spans: WorkerSpans::default(),
            counts: Counts::default(),
        };
        let answer = worker.end(&lease, "heartbeat", serde_json::to_vec(&beat).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    beat(vec!["moov not \u{1b}[31mfound".into(), "a\nb".into()]).await;
    let fail = Fail { failure: Failure::new(FailureCode::InputCorrupt, "x"), evidence: None };
    // Far more than is kept: every beat as large as it may be.
    for _ in 0..5 {
        beat(vec!["y".repeat(10_000); 100]).await;
    }
    worker.end(&lease, "fail", serde_json::to_vec(&fail).unwrap()).await;
    let logs: JobLogs = tenant.get(&path).await.json();
    let log = &logs.attempts[0];
    assert_eq!(
        (logs.attempts.len(), log.task.as_str(), log.number, log.state.as_str()),
        (1, "probe", 1, "failed")
    );
    assert_eq!(log.lines[..2], ["moov not  [31mfound", "a b"]);
    assert!(log.cut && log.lines.iter().map(|l| l.chars().count() + 1).sum::<usize>() <= 65_537);
    assert_eq!(other.get(&path).await.status, 404);
    assert_eq!(world.anonymous().get(&path).await.status, 401);
}
