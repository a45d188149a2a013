//! Whole jobs over real sockets: what becomes of them in good times, crashes, races and cancels. Over whichever store the file
//! that takes this in makes its worlds with.

use super::common::*;
use super::{world, world_with};
use mpegflow_protocol::api::{JobState, TaskState};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{CheckResult, TaskResult};
use mpegflow_protocol::worker::{Fail, HeartbeatReply, LeaseReply, TaskProgress};
use std::time::Duration;

fn names(job: &mpegflow_protocol::api::Job) -> Vec<&str> {
    job.outputs.iter().map(|o| o.name.as_str()).collect()
}

#[tokio::test]
async fn a_job_goes_from_upload_to_objects() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let input = b"the media".to_vec();
    let job = submit(&tenant, &input).await;
    assert_eq!(job.state, JobState::Queued);

    let lease = worker.lease().await;
    assert_eq!(lease.task.name(), "probe");
    assert_eq!(worker.read(&lease, 0).await, input);
    let part = worker
        .granted(&lease)
        .with("range", "bytes=4-8")
        .get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt))
        .await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &b"media"[..]));
    assert_eq!(part.headers["content-range"], "bytes 4-8/9");
    assert_eq!(worker.finish(&lease).await.status, 204);

    let lease = worker.lease().await;
    assert_eq!(lease.task.name(), "encode");
    let progress =
        TaskProgress { frames: 150, time_ms: 5_000, speed_milli: 2_000, ..TaskProgress::default() };
    assert_eq!(worker.beat(&lease, progress).await.status, 200);
    let running = show(&tenant, &job).await;
    assert_eq!(running.state, JobState::Running);
    assert_eq!(
        (running.progress.percent, running.progress.speed, running.progress.eta_s),
        (46.0, Some(2.0), Some(2))
    );
    assert_eq!(worker.finish(&lease).await.status, 204);

    assert_eq!(worker.run().await, 2);
    let job = show(&tenant, &job).await;
    assert_eq!((job.state, job.progress.percent, job.progress.frames), (JobState::Succeeded, 100.0, 300));
    assert_eq!(
        names(&job),
        [
            "master.m3u8",
            "manifest.mpd",
            "video-720p.m3u8",
            "video-720p.mp4",
            "video-480p.m3u8",
            "video-480p.mp4",
            "video-360p.m3u8",
            "video-360p.mp4",
            "video-240p.m3u8",
            "video-240p.mp4",
            "audio.m3u8",
            "audio.mp4",
            "poster.jpg",
            "sprites.jpg",
            "sprites.vtt",
        ]
    );
    assert!(
        job.tasks.iter().all(|t| t.state == TaskState::Succeeded && t.evidence.is_some() && t.attempts == 1)
    );
    for output in &job.outputs {
        let got = tenant.get(&output.url).await;
        assert_eq!(got.status, 200);
        assert_eq!(output_digest(&[&got.body]).digest, output.digest);
    }
    // What is in no manifest goes; what is, stays.
    let objects = world.dir.path().join("data/objects");
    eventually("the encoded tracks are swept", async || {
        let _ = world.broker().engine().sweep().await.unwrap();
        files(&objects).len() == 15 + 1
    })
    .await;
    assert_eq!(tenant.get(&job.outputs[0].url).await.status, 200);
}

#[tokio::test]
async fn thirty_two_racing_completes_have_one_winner() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let job = submit(&tenant, b"x").await;
    let lease = worker.lease().await;
    let body = serde_json::to_vec(&worker.work(&lease).await).unwrap();
    let calls = (0..32).map(|_| worker.end(&lease, "complete", body.clone()));
    let statuses: Vec<u16> =
        futures_util::future::join_all(calls).await.iter().map(|a| a.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 204).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 31, "{statuses:?}");
    assert_eq!(show(&tenant, &job).await.tasks.len(), 2);
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_the_job_finishes_once() {
    let mut world = world().await;
    let tenant_key = world.tenant("a").await.headers;
    let join = world.join_file().await;
    let client = |world: &World| {
        let mut client = world.anonymous();
        client.headers = tenant_key.clone();
        client
    };
    let job = submit(&client(&world), b"x").await;
    for kind in ["probe", "encode", "package", "check"] {
        // Queued only: the index was in memory.
        world.crash_and_restart().await;
        let worker = Worker::enroll(&join, world.broker().worker_addr()).await;
        let mut lease = worker.lease().await;
        assert_eq!(lease.task.name(), kind);
        let body = serde_json::to_vec(&worker.work(&lease).await).unwrap();
        // Leased, with outputs sent: the lease goes on over the restart.
        world.crash_and_restart().await;
        let again = Worker {
            client: Client::new(
                format!("https://{}", world.broker().worker_addr()),
                Some(&join.ca),
                Some((&worker.certificate, &worker.key)),
            ),
            ..worker
        };
        assert_eq!(again.beat(&lease, TaskProgress::default()).await.status, 200);
        assert_eq!(again.end(&lease, "complete", body.clone()).await.status, 204);
        assert_eq!(again.end(&lease, "complete", body).await.status, 409);
        lease.capability.push('x');
    }
    let job = show(&client(&world), &job).await;
    assert_eq!((job.state, job.outputs.len()), (JobState::Succeeded, 15));
    assert!(job.tasks.iter().all(|t| t.attempts == 1));
}

#[tokio::test]
async fn a_lost_worker_is_fenced_and_another_finishes() {
    let world = world_with(|c| c.lease = Duration::from_secs(2)).await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let (lost, other) = (world.worker().await, world.worker().await);
    let stale = lost.lease().await;
    let lease = other.lease().await;
    assert_eq!(lease.task, stale.task);
    assert_ne!(lease.attempt, stale.attempt);

    // Whatever the stale one tries, nothing changes.
    let before = serde_json::to_value(show(&tenant, &job).await).unwrap();
    let complete = serde_json::to_vec(&mpegflow_protocol::worker::Complete {
        result: result_for(&stale, &[]),
        outputs: vec![],
        evidence: evidence(),
    })
    .unwrap();
    let fail = Fail { failure: Failure::new(FailureCode::InputCorrupt, "x"), evidence: None };
    assert_eq!(lost.beat(&stale, TaskProgress::default()).await.status, 409);
    assert_eq!(lost.put(&stale, 0, 0, b"late").await.status, 409);
    assert_eq!(lost.end(&stale, "complete", complete).await.status, 409);
    assert_eq!(lost.end(&stale, "fail", serde_json::to_vec(&fail).unwrap()).await.status, 409);
    assert_eq!(lost.end(&stale, "release", vec![]).await.status, 409);
    let input = format!("/worker/v1/attempts/{}/inputs/0", stale.attempt);
    assert_eq!(lost.granted(&stale).get(&input).await.status, 409);
    assert_eq!(serde_json::to_value(show(&tenant, &job).await).unwrap(), before);

    assert_eq!(other.finish(&lease).await.status, 204);
    assert_eq!(other.run().await, 3);
    let job = show(&tenant, &job).await;
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(job.tasks[0].attempts, 2);
    assert_eq!(job.tasks[0].last_failure.as_ref().unwrap().code, FailureCode::WorkerLost);
}

#[tokio::test]
async fn three_lost_workers_fail_the_job() {
    let world = world_with(|c| c.lease = Duration::from_millis(300)).await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    for _ in 0..3 {
        world.worker().await.lease().await;
    }
    eventually("the job has failed", async || show(&tenant, &job).await.state == JobState::Failed).await;
    let job = show(&tenant, &job).await;
    assert_eq!(job.failure.unwrap().code, FailureCode::WorkerLost);
}

#[tokio::test]
async fn out_of_memory_is_tried_once_more_with_more_memory() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let job = submit(&tenant, b"x").await;
    let fail =
        serde_json::to_vec(&Fail { failure: Failure::new(FailureCode::OutOfMemory, "oom"), evidence: None })
            .unwrap();
    let small = worker.lease().await;
    assert_eq!(worker.end(&small, "fail", fail.clone()).await.status, 204);
    let large = worker.lease().await;
    assert_eq!(large.limits.address_space, 2 * small.limits.address_space);
    assert_eq!(worker.end(&large, "fail", fail).await.status, 204);
    assert_eq!(show(&tenant, &job).await.failure.unwrap().code, FailureCode::OutOfMemory);
}

#[tokio::test]
async fn bad_media_fails_at_once_and_a_broken_lock_quarantines_the_input() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    for (code, again) in [(FailureCode::InputCorrupt, 201), (FailureCode::LockViolation, 409)] {
        let input = upload(&tenant, b"x").await;
        let job = tenant.call("POST", "/v1/jobs", spec(&input)).await.json();
        let lease = worker.lease().await;
        let failure = Failure::new(code, "it said \u{1b}[31mthis");
        let fail = Fail { failure, evidence: Some(evidence()) };
        assert_eq!(worker.end(&lease, "fail", serde_json::to_vec(&fail).unwrap()).await.status, 204);
        let job = show(&tenant, &job).await;
        let failure = job.failure.unwrap();
        assert_eq!(
            (job.state, failure.code, failure.message.as_str()),
            (JobState::Failed, code, "it said  [31mthis")
        );
        let submitted = tenant.call("POST", "/v1/jobs", spec(&input)).await;
        assert_eq!(submitted.status, again, "{}", submitted.text());
        if again == 201 {
            let job: mpegflow_protocol::api::Job = submitted.json();
            tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
        }
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_true_is_refused_and_nothing_is_committed() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;

    let job = submit(&tenant, b"x").await;
    for _ in 0..3 {
        let lease = worker.lease().await;
        assert_eq!(worker.finish(&lease).await.status, 204);
    }
    let lease = worker.lease().await;
    let mut complete = worker.work(&lease).await;
    let TaskResult::Check(CheckResult { problems, .. }) = &mut complete.result else { panic!() };
    problems.push("segment 2 does not decode".into());
    let answer = worker.end(&lease, "complete", serde_json::to_vec(&complete).unwrap()).await;
    assert_eq!(answer.status, 422);
    let shown = show(&tenant, &job).await;
    assert_eq!((shown.state, shown.outputs.len()), (JobState::Failed, 0));
    let failure = shown.failure.unwrap();
    assert_eq!(failure.code, FailureCode::OutputRejected);
    assert!(failure.message.contains("segment 2 does not decode"));

    let job = submit(&tenant, b"x").await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let lease = worker.lease().await;
    let mut complete = worker.work(&lease).await;
    let TaskResult::Encode(encode) = &mut complete.result else { panic!() };
    encode.tracks[1].units = 299;
    assert_eq!(worker.end(&lease, "complete", serde_json::to_vec(&complete).unwrap()).await.status, 422);
    assert_eq!(show(&tenant, &job).await.failure.unwrap().code, FailureCode::OutputRejected);

    let job = submit(&tenant, b"x").await;
    let lease = worker.lease().await;
    let mut complete = worker.work(&lease).await;
    complete.result = TaskResult::Check(CheckResult { problems: vec![], tracks: vec![] });
    assert_eq!(worker.end(&lease, "complete", serde_json::to_vec(&complete).unwrap()).await.status, 422);
    assert_eq!(show(&tenant, &job).await.failure.unwrap().code, FailureCode::ProtocolViolation);
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_and_ends_the_job() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;

    let queued = submit(&tenant, b"x").await;
    let answer = tenant.call("POST", &format!("/v1/jobs/{}/cancel", queued.id), "").await;
    assert_eq!(answer.json::<mpegflow_protocol::api::Job>().state, JobState::Canceled);
    assert!(matches!(worker.ask(100).await, LeaseReply::Idle {}));
    let again = tenant.call("POST", &format!("/v1/jobs/{}/cancel", queued.id), "").await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "job_final"));

    let running = submit(&tenant, b"x").await;
    let lease = worker.lease().await;
    let answer = tenant.call("POST", &format!("/v1/jobs/{}/cancel", running.id), "").await;
    assert_eq!(answer.json::<mpegflow_protocol::api::Job>().state, JobState::Canceling);
    let beat: HeartbeatReply = worker.beat(&lease, TaskProgress::default()).await.json();
    assert!(beat.cancel);
    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    assert_eq!(show(&tenant, &running).await.state, JobState::Canceled);
}

#[tokio::test]
async fn a_release_is_not_counted() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let job = submit(&tenant, b"x").await;
    for _ in 0..3 {
        let lease = worker.lease().await;
        assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    }
    let shown = show(&tenant, &job).await;
    assert_eq!((shown.tasks[0].attempts, shown.tasks[0].state), (0, TaskState::Ready));
    assert_eq!(worker.run().await, 4);
}

#[tokio::test]
async fn a_worker_stays_with_the_tenant_of_its_first_lease() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let worker = world.worker().await;
    let first = submit(&a, b"x").await;
    assert_eq!(worker.run().await, 4);
    assert_eq!(show(&a, &first).await.state, JobState::Succeeded);

    let second = submit(&b, b"x").await;
    assert!(matches!(worker.ask(2_000).await, LeaseReply::Retire {}));
    assert_eq!(world.worker().await.run().await, 4);
    assert_eq!(show(&b, &second).await.state, JobState::Succeeded);
}
