//! The whole broker with its objects in S3: uploads that break off, jobs, outputs of many parts, storage that is killed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/s3_front.rs"]
mod front;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/signed.rs"]
mod signed;

use common::*;
use front::{Fault, Front, Seen};
use http_body_util::BodyExt as _;
use mpegflow_broker::conformance::objects::{chunked, head, owners, pattern};
use mpegflow_broker::embedded::Config;
use mpegflow_broker::engine::{Rate, Swept};
use mpegflow_broker::objects::s3::{S3Config, S3Objects};
use mpegflow_broker::objects::{Key, Objects as _, Owner};
use mpegflow_protocol::api::{Job, JobState, Output, Upload};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::{Complete, Lease, LeaseReply};
use s3::{BUCKET, Kind, Server};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// These workers send no heartbeats, and a machine may be slow.
const LONG_LEASE: Duration = Duration::from_secs(300);

async fn world_on(server: &Server) -> World {
    let objects = Arc::new(server.objects());
    world_with(|config| {
        config.objects = Some(objects);
        config.lease = LONG_LEASE;
    })
    .await
}

/// The same through a proxy.
async fn world_through(server: &Server, change: impl FnOnce(&mut Config)) -> (Front, World) {
    let front = Front::before(server.address).await;
    let config = S3Config { endpoint: Some(front.endpoint()), ..server.config() };
    let objects = Arc::new(S3Objects::open(&config).unwrap());
    let world = world_with(|config| {
        config.objects = Some(objects);
        config.lease = LONG_LEASE;
        change(config);
    });
    (front, world.await)
}

/// Sends an upload in goes of these lengths, and another time what was refused.
async fn upload_in_goes(tenant: &Client, content: &[u8], goes: &[usize]) -> Upload {
    let created = tenant.call("POST", "/v1/uploads", format!(r#"{{"size":{}}}"#, content.len())).await;
    let mut upload: Upload = created.json();
    let mut at = 0;
    for go in goes {
        let bytes = content[at..at + go].to_vec();
        let answer = tenant.call("PUT", &format!("/v1/uploads/{}?offset={at}", upload.id), bytes).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        upload = answer.json();
        at += go;
        assert_eq!(upload.offset, at as u64);
    }
    assert_eq!(at, content.len());
    upload
}

/// Sends outputs, the first so many of more than one part, and says what completes the task.
async fn send_outputs(worker: &Worker, lease: &Lease, large: usize) -> Complete {
    let mut outputs = Vec::new();
    for n in 0..lease.outputs.len() {
        let small = format!("{} output {n} of {}", lease.task.name(), lease.attempt).into_bytes();
        let mut parts = vec![small];
        if n < large {
            parts.insert(0, pattern(n as u64, n as u64 + PART_SIZE));
        }
        for (part, bytes) in (0..).zip(&parts) {
            let answer = worker.put(lease, n, part, bytes).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
        outputs.push(output_digest(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    }
    Complete { result: result_for(lease, &outputs), outputs, evidence: evidence() }
}

async fn complete(worker: &Worker, lease: &Lease, complete: &Complete) -> Answer {
    worker.end(lease, "complete", serde_json::to_vec(complete).unwrap()).await
}

/// Does a task with outputs of more than one part.
async fn finish_with_large_outputs(worker: &Worker, lease: &Lease) {
    finish_with(worker, lease, usize::MAX).await;
}

/// The same, with so many of them.
async fn finish_with(worker: &Worker, lease: &Lease, large: usize) {
    let answer = complete(worker, lease, &send_outputs(worker, lease, large).await).await;
    assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
}

/// A job that has ended, and its output of more than one part.
async fn job_with_a_large_output(tenant: &Client, worker: &Worker) -> (Job, Output) {
    let job = submit(tenant, b"x").await;
    while let LeaseReply::Lease(lease) = worker.ask(300).await {
        finish_with(worker, &lease, 1).await;
    }
    let job = show(tenant, &job).await;
    assert_eq!(job.state, JobState::Succeeded);
    let large = job.outputs.iter().find(|output| output.size > PART_SIZE).unwrap().clone();
    (job, large)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_s3_from_an_upload_in_goes_to_outputs_of_many_parts() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let content = pattern(0, 2 * PART_SIZE + 12_345);
        let goes = [1, 999_999, 10_000_000, 5, content.len() - 11_000_005];
        let upload = upload_in_goes(&tenant, &content, &goes).await;
        let job: Job = tenant.call("POST", "/v1/jobs", spec(&upload)).await.json();

        let mut tasks = 0;
        while let LeaseReply::Lease(lease) = worker.ask(300).await {
            if lease.task.name() == "probe" {
                assert!(worker.read(&lease, 0).await == content, "{kind:?}: the input is what was uploaded");
            }
            finish_with_large_outputs(&worker, &lease).await;
            tasks += 1;
        }
        assert_eq!(tasks, 4, "{kind:?}");
        let done = show(&tenant, &job).await;
        assert_eq!(done.state, JobState::Succeeded, "{kind:?}");
        let outputs = done.outputs;
        assert!(!outputs.is_empty());
        for output in &outputs {
            let whole = tenant.get(&output.url).await;
            assert_eq!((whole.status.as_u16(), whole.body.len() as u64), (200, output.size), "{kind:?}");
            let border = format!("bytes={}-{}", PART_SIZE - 2, PART_SIZE + 1);
            if output.size > PART_SIZE {
                let part = tenant.with("range", border).get(&output.url).await;
                assert_eq!(part.status, 206);
                assert_eq!(
                    part.body[..],
                    whole.body[PART_SIZE as usize - 2..PART_SIZE as usize + 2],
                    "{kind:?}"
                );
            }
        }
        // What no manifest names goes, and the upload with its tenant's wish; what the manifest names stays.
        let swept = world.broker().engine().sweep().await.unwrap();
        assert!(swept.attempts > 0, "{kind:?}: {swept:?}");
        let gone = tenant.call("DELETE", &format!("/v1/uploads/{}", upload.id), "").await;
        assert_eq!(gone.status, 204, "{}", gone.text());
        assert_eq!(world.broker().engine().sweep_orphans(None).await.unwrap(), Swept::default(), "{kind:?}");
        for output in &outputs {
            assert_eq!(tenant.get(&output.url).await.status, 200, "{kind:?}");
        }
    }
}

/// Puts other bytes of the same length at an upload's name.
async fn swap(server: &Server, tenant: TenantId, upload: UploadId, content: &[u8]) {
    let objects = server.objects();
    objects.remove_upload(tenant, upload).await.unwrap();
    let mut body = chunked(content);
    let size = content.len() as u64;
    let appended = objects.append(&Key::Upload(tenant, upload), 0, &mut body, size, size).await.unwrap();
    assert_eq!(appended.len, size);
    objects.finish_upload(tenant, upload, size).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_swapped_within_an_attempt_is_refused_by_any_broker() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let mut world = world_on(&server).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let id = world.broker().ensure_tenant("a").await.unwrap();
        let content = pattern(0, 300_000);
        let upload = upload_in_goes(&tenant, &content, &[content.len()]).await;
        tenant.call("POST", "/v1/jobs", spec(&upload)).await;
        let lease = worker.lease().await;
        let read = async |worker: &Worker| {
            let granted = worker.granted(&lease).with("range", "bytes=0-9");
            granted.get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).await
        };
        let first = read(&worker).await;
        assert_eq!((first.status.as_u16(), &first.body[..]), (206, &content[..10]), "{kind:?}");
        swap(&server, id, upload.id, &pattern(77, 300_077)).await;
        let refused = read(&worker).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (412, "input_changed"), "{kind:?}");
        // A broker that never saw the first one, and remembers nothing.
        world.config.objects = Some(Arc::new(server.objects()));
        world.crash_and_restart().await;
        let join = world.join_file().await;
        let address = format!("https://{}", world.broker().worker_addr());
        let client = Client::new(address, Some(&join.ca), Some((&worker.certificate, &worker.key)));
        let again = Worker { client, ..worker };
        let refused = read(&again).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (412, "input_changed"), "{kind:?}");
        // The same bytes again, as a restore from a backup would put them: for this attempt it is the version that it began with.
        swap(&server, id, upload.id, &content).await;
        let restored = read(&again).await;
        assert!(restored.status == 206 || restored.status == 412, "{kind:?}: {}", restored.status);
        assert!(restored.status != 206 || restored.body[..] == content[..10]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_killed_within_a_job_costs_a_call_and_no_byte() {
    for kind in Kind::ALL {
        let mut server = Server::start(kind);
        let mut world = world_on(&server).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let content = pattern(0, PART_SIZE + 5);
        let created = tenant.call("POST", "/v1/uploads", format!(r#"{{"size":{}}}"#, content.len())).await;
        let input: Upload = created.json();
        let path = |at: u64| format!("/v1/uploads/{}?offset={at}", input.id);
        server.kill();
        let refused = tenant.call("PUT", &path(0), content.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem().as_str()),
            (503, "not_ready"),
            "{}",
            refused.text()
        );
        assert_eq!(tenant.get("/readyz").await.status, 503, "{kind:?}");
        server.restart();
        assert_eq!(tenant.get("/readyz").await.status, 200, "{kind:?}");
        assert_eq!(tenant.call("PUT", &path(0), content[..100].to_vec()).await.status, 200);
        // The broker dies too, and another goes on.
        world.crash_and_restart().await;
        let tenant = world.tenant("a").await;
        let rest = tenant.call("PUT", &path(100), content[100..].to_vec()).await;
        assert_eq!(rest.status, 200, "{}", rest.text());
        let upload: Upload = rest.json();
        let job: Job = tenant.call("POST", "/v1/jobs", spec(&upload)).await.json();
        drop(worker);
        let worker = world.worker().await;
        let lease = worker.lease().await;
        assert!(worker.read(&lease, 0).await == content, "{kind:?}");
        finish_with_large_outputs(&worker, &lease).await;
        let lease = worker.lease().await;
        let large = pattern(0, PART_SIZE);
        assert_eq!(worker.put(&lease, 0, 0, &large).await.status, 204);
        server.restart();
        // The part that was taken is there; it is not sent again.
        finish_with_large_outputs(&worker, &lease).await;
        while let LeaseReply::Lease(lease) = worker.ask(300).await {
            finish_with_large_outputs(&worker, &lease).await;
        }
        assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_dies_leaves_nothing_behind() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        submit(&tenant, b"x").await;
        assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
        let before = server.kept().len();
        let lease = worker.lease().await;
        assert_eq!(worker.put(&lease, 0, 0, &pattern(0, PART_SIZE)).await.status, 204);
        assert_eq!(worker.put(&lease, 1, 0, b"small").await.status, 204);
        assert!(server.kept().len() > before, "{kind:?}");
        assert_eq!(worker.end(&lease, "release", Vec::new()).await.status, 204);
        world.broker().engine().sweep().await.unwrap();
        assert_eq!(
            server.kept().len(),
            before,
            "{kind:?}: its open multipart upload too: {:?}",
            server.kept()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_row_knows_is_swept_at_the_start_and_ever_again_beside_what_is_under_way() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let part = pattern(0, PART_SIZE);
        // A broker was killed before it had a row for these: an output and an upload, neither finished.
        leave_orphans(&server, &part).await;
        assert!(server.kept().len() >= 4, "{kind:?}: {:?}", server.kept());
        let (front, mut world) =
            world_through(&server, |config| config.orphans = Duration::from_secs(1)).await;
        // Whoever leads does it, right after it has come to lead.
        eventually("what was left over is gone", async || server.kept().is_empty()).await;

        // An attempt and an upload are under way, with multipart uploads that are open.
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        submit(&tenant, b"x").await;
        assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
        let lease = worker.lease().await;
        assert_eq!(worker.put(&lease, 0, 0, &part).await.status, 204);
        let begun = format!(r#"{{"size":{}}}"#, PART_SIZE + 8);
        let begun: Upload = tenant.call("POST", "/v1/uploads", begun).await.json();
        let send = async |at: u64, bytes: &[u8]| {
            let path = format!("/v1/uploads/{}?offset={at}", begun.id);
            tenant.call("PUT", &path, bytes.to_vec()).await.json::<Upload>()
        };
        assert_eq!(send(0, &part).await.offset, PART_SIZE);
        let kept = || server.kept().into_iter().collect::<BTreeSet<_>>();
        let under_way = kept();
        // And again something is left over, while the same broker leads.
        leave_orphans(&server, &part).await;
        assert!(kept().len() >= under_way.len() + 4, "{kind:?}: {:?}", kept());
        eventually("what was left over is gone again", async || kept() == under_way).await;
        front.seen();
        let mut searches = 0;
        eventually("storage is searched some more", async || {
            searches += front.seen().iter().filter(|seen| seen.query.contains("max-keys=1000")).count();
            searches >= 2
        })
        .await;
        assert_eq!(kept(), under_way, "{kind:?}");
        assert_eq!(send(PART_SIZE, b"the rest").await.offset, PART_SIZE + 8, "{kind:?}");
        finish_with(&worker, &lease, 1).await;

        // Whoever is killed within a search leaves it to the next.
        let before = kept();
        let gate = Arc::new(Semaphore::new(0));
        front.fault(1, Fault::Hold(gate), |seen| seen.query.contains("max-keys=1000"));
        eventually("a search is under way", async || front.unmet() == 0).await;
        leave_orphans(&server, &part).await;
        world.crash_and_restart().await;
        eventually("what was left over is gone", async || kept() == before).await;
    }
}

/// Leaves over what no row knows: a part of an output, and the beginning of an upload.
async fn leave_orphans(server: &Server, part: &[u8]) {
    let (objects, tenant) = (server.objects(), TenantId::from_u128(1));
    let output = Key::Output(tenant, JobId::from_u128(2), AttemptId::from_u128(3), 0);
    objects.put_part(&output, &head(0, part), chunked(part)).await.unwrap();
    let upload = Key::Upload(tenant, UploadId::from_u128(4));
    let more = [part, b"piece"].concat();
    objects.append(&upload, 0, &mut chunked(&more), u64::MAX, 2 * PART_SIZE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_keeps_objects_in_the_bucket_that_its_options_name() {
    let server = Server::start_tls(Kind::Versitygw);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (public, worker) = (mpegflow_test_ports::address(), mpegflow_test_ports::address());
    let program = env!("CARGO_BIN_EXE_mpegflow-broker");
    let mut child = Command::new(program)
        .arg("--data")
        .arg(&data)
        .args(["serve", "--listen", &public.to_string(), "--worker-listen", &worker.to_string()])
        .args([
            "--s3-bucket",
            BUCKET,
            "--s3-endpoint",
            &server.endpoint(),
            "--s3-path-style",
            "--s3-prefix",
            "p/q/",
        ])
        .arg("--s3-credentials")
        .arg(server.dir.path().join("credentials"))
        .arg("--s3-ca")
        .arg(server.ca.as_ref().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it serves", async || tokio::net::TcpStream::connect(public).await.is_ok()).await;
    let key =
        Command::new(program).arg("--data").arg(&data).args(["api-key", "create", "--tenant", "a"]).output();
    let key = String::from_utf8(key.unwrap().stdout).unwrap();
    let tenant = Client::new(format!("http://{public}"), None, None)
        .with("authorization", format!("Bearer {}", key.trim()));
    assert_eq!(tenant.get("/readyz").await.status, 200);
    upload(&tenant, b"kept").await;
    child.kill().unwrap();
    child.wait().unwrap();
    let kept: Vec<_> = server.kept().iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(kept, [b"kept"]);
    let path = server.kept()[0].clone();
    assert!(path.starts_with(server.dir.path().join("data").join(BUCKET).join("p/q")), "{path:?}");
    assert!(!Path::new(&data).join("objects").join("p").exists() && files(&data.join("spool")).is_empty());

    let refused = Command::new(program).args(["serve", "--s3-bucket", BUCKET]).output().unwrap();
    assert!(!refused.status.success(), "a bucket needs credentials");
    let refused = Command::new(program)
        .arg("--data")
        .arg(&data)
        .args(["serve", "--s3-bucket", "No Bucket", "--s3-credentials"])
        .arg(server.dir.path().join("credentials"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bucket's name"), "{refused:?}");
}

// === who commits

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_racing_commits_have_one_winner_and_what_the_losers_wrote_is_collected() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let world = world_on(&server).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let job = submit(&tenant, b"x").await;
        let (mut losers, mut tasks) = (Vec::new(), 0);
        'tasks: loop {
            // Some whose epoch is over after they had written everything, and the one that holds the lease.
            let mut racing = Vec::new();
            for n in 0..4 {
                // What was given back is handed out again after a moment.
                let wait = if n == 0 { 300 } else { 10_000 };
                let LeaseReply::Lease(lease) = worker.ask(wait).await else { break 'tasks };
                let body = serde_json::to_vec(&send_outputs(&worker, &lease, 1).await).unwrap();
                if n < 3 {
                    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
                    losers.push(lease.attempt);
                }
                racing.push((lease, body));
            }
            let (holder, body) = racing.pop().unwrap();
            let stale = racing.iter().map(|(lease, body)| worker.end(lease, "complete", body.clone()));
            let held = (0..29).map(|_| worker.end(&holder, "complete", body.clone()));
            let (stale, held) =
                tokio::join!(futures_util::future::join_all(stale), futures_util::future::join_all(held));
            let status = |answers: &[Answer]| answers.iter().map(|a| a.status.as_u16()).collect::<Vec<_>>();
            assert_eq!(status(&stale), [409; 3], "{kind:?} {}", holder.task.name());
            let (won, lost): (Vec<u16>, Vec<u16>) = status(&held).into_iter().partition(|s| *s == 204);
            assert_eq!(won, [204], "{kind:?} {}: {lost:?}", holder.task.name());
            assert_eq!(lost, [409; 28], "{kind:?} {}", holder.task.name());
            // Whoever asks once more, as after an answer that was lost, hears that it is over.
            assert_eq!(worker.end(&holder, "complete", body).await.status, 409);
            tasks += 1;
        }
        let done = show(&tenant, &job).await;
        assert_eq!((tasks, done.state), (4, JobState::Succeeded), "{kind:?}");
        assert!(done.tasks.iter().all(|task| task.attempts == 1), "{kind:?}: {:?}", done.tasks);
        world.broker().engine().sweep().await.unwrap();
        let owners = owners(&server.objects(), 1_000).await;
        let attempts: Vec<_> = owners.iter().filter(|owner| matches!(owner, Owner::Attempt(..))).collect();
        assert_eq!(attempts.len(), 1, "{kind:?}: the package's alone: {attempts:?}");
        for path in server.kept() {
            let path = path.to_string_lossy().into_owned();
            let of_loser = losers.iter().any(|attempt| path.contains(&attempt.to_string()));
            assert!(
                !of_loser && !path.ends_with(".open") && !path.contains("/multipart/"),
                "{kind:?}: {path}"
            );
        }
        for output in &done.outputs {
            let whole = tenant.get(&output.url).await.body;
            let parts: Vec<&[u8]> = whole.chunks(PART_SIZE as usize).collect();
            assert_eq!(output_digest(&parts).digest, output.digest, "{kind:?}: {}", output.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_together_after_the_sweep_of_its_attempt_is_collected_by_the_next() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, world) = world_through(&server, |config| config.lease = Duration::from_secs(5)).await;
        let engine = world.broker().engine();
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        submit(&tenant, b"x").await;
        assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
        let lease = worker.lease().await;
        // It says that it wrote nothing: the broker itself makes the empty objects, and storage takes its time with the first.
        let gate = Arc::new(Semaphore::new(0));
        front.fault(1, Fault::Hold(Arc::clone(&gate)), |seen| seen.method == "PUT");
        let outputs: Vec<_> = lease.outputs.iter().map(|_| output_digest(&[])).collect();
        let claim = Complete { result: result_for(&lease, &outputs), outputs, evidence: evidence() };
        let late = async {
            eventually("the lease runs out and its attempt is swept", async || {
                engine.sweep().await.unwrap();
                !engine.store().keeps_files(lease.attempt).await.unwrap()
            })
            .await;
            gate.add_permits(1);
        };
        let (answer, ()) = tokio::join!(complete(&worker, &lease, &claim), late);
        assert_eq!((answer.status.as_u16(), front.unmet()), (409, 0), "{kind:?}: {}", answer.text());
        let left = || server.kept().iter().any(|p| p.to_string_lossy().contains(&lease.attempt.to_string()));
        assert!(left(), "{kind:?}: the race was run");
        engine.sweep().await.unwrap();
        assert!(!left(), "{kind:?}: {:?}", server.kept());
    }
}

// === reading

fn get(seen: &Seen) -> bool {
    seen.method == "GET" && seen.presigned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_one_end_goes_away_ends_at_the_other_and_its_connection_is_not_used_again() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, world) = world_through(&server, |_| {}).await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let (_, output) = job_with_a_large_output(&tenant, &worker).await;
        let object = tenant.get(&output.url).await.body;
        let input = pattern(0, 3_000_000);
        submit(&tenant, &input).await;
        let lease = worker.lease().await;
        let read_input = format!("/worker/v1/attempts/{}/inputs/0", lease.attempt);
        for (reader, path, whole) in
            [(tenant.clone(), output.url, object), (worker.granted(&lease), read_input, input.into())]
        {
            // Storage has stopped sending when the reader goes: nothing that is written would tell the broker.
            front.seen();
            front.fault(1, Fault::StallAnswer(100_000), get);
            let answer = reader.open("GET", &path, "").await;
            let mut body = answer.into_body();
            let mut came = 0;
            while came < 100_000 {
                came += body.frame().await.unwrap().unwrap().data_ref().unwrap().len();
            }
            let taken = front.seen().into_iter().find(get).unwrap().connection;
            assert!(front.is_open(taken));
            let left = Instant::now();
            drop(body);
            eventually("the way to storage is closed", async || !front.is_open(taken)).await;
            let took = left.elapsed();
            println!("{kind:?}: {took:?} after its reader, the way to storage was closed");
            assert!(took < Duration::from_secs(10), "its silence alone would have ended it: {took:?}");
            assert!(reader.get(&path).await.body == whole, "{kind:?}: others read on");
            assert!(front.seen().iter().all(|seen| seen.connection != taken));

            // Storage breaks off, and whenever it is asked for the rest.
            front.fault(1_000, Fault::CutAnswer(100_000), get);
            let answer = reader.open("GET", &path, "").await;
            assert_eq!(answer.headers()["content-length"], whole.len().to_string());
            let mut body = answer.into_body();
            let mut came = 0;
            let end = loop {
                match body.frame().await {
                    Some(Ok(frame)) => came += frame.data_ref().map_or(0, |data| data.len()),
                    end => break end,
                }
            };
            assert!(
                matches!(end, Some(Err(_))),
                "{kind:?}: a body of {came} bytes passed for one of {}",
                whole.len()
            );
            assert!((100_000..whole.len()).contains(&came), "{kind:?}: {came}");
            front.heal();
            assert!(reader.get(&path).await.body == whole, "{kind:?}");
        }
    }
}

/// A range as somebody may ask for it, and what of so many bytes is the answer: nothing, where none of them is.
fn some_range(next: &mut impl FnMut(u64) -> u64, size: u64) -> (String, Option<Range<u64>>) {
    // Around the ends and where parts meet, and anywhere.
    let start = match next(4) {
        0 => (PART_SIZE - 3 + next(6)).min(size - 1),
        1 => next(4),
        2 => size - 1 - next(4),
        _ => next(size),
    };
    let most = if next(100) == 0 { size } else { 20_000 };
    let len = 1 + next(most);
    match next(8) {
        0 => {
            let from = size - len.min(size);
            (format!("bytes={from}-"), Some(from..size))
        }
        1 => (format!("bytes=-{len}"), Some(size - len.min(size)..size)),
        2 => (format!("bytes={}-{}", size + next(3), size + 3 + len), None),
        3 => (format!("bytes={}-", size + next(3)), None),
        _ => (format!("bytes={start}-{}", start + len - 1), Some(start..(start + len).min(size))),
    }
}

/// Asks a reader, and storage itself where there is some, for many ranges of these bytes.
async fn same_ranges(
    many: usize,
    (reader, path): (&Client, &str),
    storage: Option<(Client, String)>,
    whole: &[u8],
) {
    let size = whole.len() as u64;
    let mut seed = 1_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut unsatisfiable = 0;
    for _ in 0..many {
        let (range, wanted) = some_range(&mut next, size);
        let ours = reader.with("range", &range).get(path).await;
        let theirs = match &storage {
            Some((storage, path)) => Some(storage.with("range", &range).get(path).await),
            None => None,
        };
        let Some(wanted) = wanted else {
            assert_eq!(
                (ours.status.as_u16(), ours.problem().as_str()),
                (416, "range_not_satisfiable"),
                "{range}"
            );
            assert_eq!(ours.headers["content-range"], format!("bytes */{size}"), "{range}");
            assert!(theirs.is_none_or(|theirs| theirs.status == 416), "{range}");
            unsatisfiable += 1;
            continue;
        };
        let said = format!("bytes {}-{}/{size}", wanted.start, wanted.end - 1);
        for (who, answer) in [("broker", Some(ours)), ("storage", theirs)] {
            let Some(answer) = answer else { continue };
            assert_eq!(answer.status, 206, "{who}: {range}: {}", answer.text());
            assert_eq!(answer.headers["content-range"], said, "{who}: {range}");
            assert_eq!(answer.headers["content-length"], (wanted.end - wanted.start).to_string(), "{who}");
            assert!(
                answer.body[..] == whole[wanted.start as usize..wanted.end as usize],
                "{who}: other bytes for {range}"
            );
        }
    }
    assert!(unsatisfiable > many / 20, "{unsatisfiable} of {many}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_ranges_are_what_storage_itself_answers_and_one_is_served_at_a_time() {
    for kind in [None, Some(Kind::Versitygw), Some(Kind::Minio)] {
        let server = kind.map(Server::start);
        let objects = server
            .as_ref()
            .map(|server| Arc::new(server.objects()) as Arc<dyn mpegflow_broker::objects::Objects>);
        let world = world_with(|config| {
            config.objects = objects;
            config.rate = Rate { per_second: 1_000_000, burst: 1_000_000 };
            config.lease = LONG_LEASE;
        })
        .await;
        let (tenant, worker) = (world.tenant("a").await, world.worker().await);
        let id = world.broker().ensure_tenant("a").await.unwrap();
        let direct = |key: Key| {
            let server = server.as_ref()?;
            let wire = signed::path(BUCKET, &format!("mpegflow/{}", key.path().display()));
            Some((signed::signing(server, &signed::root(server), "GET", &wire, b""), wire))
        };
        let (job, output) = job_with_a_large_output(&tenant, &worker).await;
        let whole = tenant.get(&output.url).await.body;
        // It says itself which attempt made it.
        let (_, attempt) =
            std::str::from_utf8(&whole[PART_SIZE as usize..]).unwrap().split_once(" of ").unwrap();
        let key = Key::Output(id, job.id, attempt.parse().unwrap(), 0);
        same_ranges(1_000, (&tenant, &output.url), direct(key), &whole).await;

        let input = pattern(5, PART_SIZE + 5_005);
        let uploaded = upload(&tenant, &input).await;
        tenant.call("POST", "/v1/jobs", spec(&uploaded)).await;
        let lease = worker.lease().await;
        let granted = worker.granted(&lease);
        let path = format!("/worker/v1/attempts/{}/inputs/0", lease.attempt);
        same_ranges(300, (&granted, &path), direct(Key::Upload(id, uploaded.id)), &input).await;

        // Of several ranges at once, and of a range of another version, there is the whole (RFC 9110, 14.2 and 13.1.5).
        let etag = tenant.call("HEAD", &output.url, "").await.headers["etag"].to_str().unwrap().to_owned();
        let date = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
        for (range, condition, status) in [
            ("bytes=0-1,4-5", None, 200),
            ("bytes=0-1,4-", None, 200),
            ("bytes=5-4", None, 200),
            ("bytes=-0", None, 416),
            ("bytes=4-5", Some(etag.clone()), 206),
            ("bytes=4-5", Some(format!("W/{etag}")), 200),
            ("bytes=4-5", Some("\"another\"".into()), 200),
            ("bytes=4-5", Some(date.clone()), 200),
        ] {
            let mut client = tenant.with("range", range);
            if let Some(condition) = &condition {
                client = client.with("if-range", condition);
            }
            let answer = client.get(&output.url).await;
            assert_eq!(answer.status, status, "{kind:?} {range} {condition:?}");
            assert!(status != 200 || answer.body == whole, "{kind:?} {range} {condition:?}");
        }
        for condition in [etag, date] {
            let answer = granted.with("range", "bytes=4-5").with("if-range", condition).get(&path).await;
            assert!(
                answer.status == 200 && answer.body[..] == input[..],
                "{kind:?}: no version of an input is told"
            );
        }
    }
}
