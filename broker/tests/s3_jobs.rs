//! The whole broker with its objects in S3: uploads that break off, jobs, outputs of many parts, storage that is killed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/s3.rs"]
mod s3;

use common::*;
use mpegflow_broker::conformance::objects::{chunked, head, pattern};
use mpegflow_broker::engine::Swept;
use mpegflow_broker::objects::{Key, Objects as _};
use mpegflow_protocol::api::{Job, JobState, Upload};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::worker::{Complete, Lease, LeaseReply};
use s3::{BUCKET, Kind, Server};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

async fn world_on(server: &Server) -> World {
    let objects = Arc::new(server.objects());
    world_with(|config| config.objects = Some(objects)).await
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

/// Does a task with outputs of more than one part.
async fn finish_with_large_outputs(worker: &Worker, lease: &Lease) {
    let mut outputs = Vec::new();
    for n in 0..lease.outputs.len() {
        let large = pattern(n as u64, n as u64 + PART_SIZE);
        let small = format!("{} output {n} of {}", lease.task.name(), lease.attempt).into_bytes();
        for (part, bytes) in [&large, &small].into_iter().enumerate() {
            let answer = worker.put(lease, n, part as u32, bytes).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
        outputs.push(output_digest(&[&large, &small]));
    }
    let complete = Complete { result: result_for(lease, &outputs), outputs, evidence: evidence() };
    let answer = worker.end(lease, "complete", serde_json::to_vec(&complete).unwrap()).await;
    assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
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
        assert_eq!(world.broker().engine().sweep_orphans().await.unwrap(), Swept::default(), "{kind:?}");
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
async fn what_no_row_knows_is_swept_at_the_start() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let objects = server.objects();
        let (tenant, part) = (TenantId::from_u128(1), pattern(0, PART_SIZE));
        // A broker died before it had a row for these: an output and an upload, neither finished.
        let output = Key::Output(tenant, JobId::from_u128(2), AttemptId::from_u128(3), 0);
        objects.put_part(&output, &head(0, &part), chunked(&part)).await.unwrap();
        let upload = Key::Upload(tenant, UploadId::from_u128(4));
        let size = 2 * PART_SIZE;
        objects
            .append(&upload, 0, &mut chunked(&[&part[..], b"piece"].concat()), u64::MAX, size)
            .await
            .unwrap();
        assert!(server.kept().len() >= 4, "{kind:?}: {:?}", server.kept());
        let _world = world_on(&server).await;
        // Whoever leads does it, right after it has come to lead.
        for _ in 0..600 {
            if server.kept().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(server.kept(), Vec::<std::path::PathBuf>::new(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_keeps_objects_in_the_bucket_that_its_options_name() {
    let server = Server::start_tls(Kind::Versitygw);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let public = free();
    let program = env!("CARGO_BIN_EXE_mpegflow-broker");
    let mut child = Command::new(program)
        .arg("--data")
        .arg(&data)
        .args(["serve", "--listen", &public.to_string(), "--worker-listen", &free().to_string()])
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
