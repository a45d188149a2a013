//! The real binary, as whoever shares its machine sees it, and under kill -9.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;

use common::*;
use mpegflow_protocol::api::{Job, JobState};
use mpegflow_protocol::worker::{JoinFile, LeaseReply, LeaseRequest};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BROKER: &str = env!("CARGO_BIN_EXE_mpegflow-broker");

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn admin(data: &Path, args: &[&str]) {
    let done =
        Command::new(BROKER).arg("--data").arg(data).args(args).stderr(Stdio::null()).status().unwrap();
    assert!(done.success(), "{args:?}");
}

async fn serve(data: &Path, public: SocketAddr, worker: SocketAddr, log: &Path) -> Killed {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let child = Command::new(BROKER)
        .arg("--data")
        .arg(data)
        .args([
            "serve",
            "--lease",
            "2",
            "--listen",
            &public.to_string(),
            "--worker-listen",
            &worker.to_string(),
        ])
        .env("RUST_LOG", "trace")
        .env("NO_COLOR", "1")
        .stderr(log)
        .spawn()
        .unwrap();
    let child = Killed(child);
    eventually("it serves", async || tokio::net::TcpStream::connect(public).await.is_ok()).await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_broker_commits_once_keeps_no_orphan_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let (public, worker_at) = (mpegflow_test_ports::address(), mpegflow_test_ports::address());
    let (key_file, join_file) = (dir.path().join("key"), dir.path().join("join"));
    admin(&data, &["api-key", "create", "--tenant", "a", "--out", key_file.to_str().unwrap()]);
    let broker = worker_at.to_string();
    admin(&data, &["join-token", "create", "--broker", &broker, "--out", join_file.to_str().unwrap()]);
    let key = std::fs::read_to_string(&key_file).unwrap().trim().to_owned();
    let join: JoinFile = serde_json::from_slice(&std::fs::read(&join_file).unwrap()).unwrap();

    let mut running = serve(&data, public, worker_at, &log).await;
    let pid = running.0.id();
    for seen in ["cmdline", "environ"] {
        let text =
            String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{seen}")).unwrap()).into_owned();
        assert!(!text.contains(&key) && !text.contains(&join.token), "{seen}");
    }
    let tenant =
        Client::new(format!("http://{public}"), None, None).with("authorization", format!("Bearer {key}"));
    let worker = Worker::enroll(&join, worker_at).await;
    let mut jobs: Vec<Job> = Vec::new();
    for _ in 0..4 {
        jobs.push(submit(&tenant, b"x").await);
    }
    let mut capabilities = Vec::new();
    for round in 0..6_u64 {
        // Work goes on in the middle of which the broker dies.
        let moment = Duration::from_millis(15 + round * 37);
        let work = async {
            let body = serde_json::to_vec(&LeaseRequest { wait_ms: 200 }).unwrap();
            loop {
                let answer = worker.client.call("POST", "/worker/v1/lease", body.clone()).await;
                let LeaseReply::Lease(lease) = answer.json() else { continue };
                capabilities.push(lease.capability.clone());
                worker.finish(&lease).await;
            }
        };
        let _ = tokio::time::timeout(moment, work).await;
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        running = serve(&data, public, worker_at, &log).await;
    }
    let mut patience = 0;
    while patience < 40 {
        patience += 1;
        if let LeaseReply::Lease(lease) = worker.ask(1_000).await {
            capabilities.push(lease.capability.clone());
            assert_eq!(worker.finish(&lease).await.status, 204);
            continue;
        }
        let mut done = 0;
        for job in &jobs {
            done += usize::from(show(&tenant, job).await.state == JobState::Succeeded);
        }
        if done == jobs.len() {
            break;
        }
    }
    for job in &jobs {
        let job = show(&tenant, job).await;
        assert_eq!(job.state, JobState::Succeeded, "{:?}", job.failure);
        for output in &job.outputs {
            assert_eq!(tenant.get(&output.url).await.body.len() as u64, output.size, "{}", output.name);
        }
        // One commit: what is left after the sweep are the files of the one attempt that the manifest names.
        let folder = format!("/{}/", job.id);
        let attempts = || {
            files(&data.join("objects"))
                .into_iter()
                .filter_map(|f| {
                    f.split_once(&folder).map(|(_, rest)| rest.split('/').next().unwrap().to_owned())
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let mut left = attempts().len();
        for _ in 0..80 {
            if left == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            left = attempts().len();
        }
        assert_eq!(left, 1, "{folder}");
    }
    drop(running);
    let log = std::fs::read_to_string(&log).unwrap();
    let ca_key = std::fs::read_to_string(data.join("ca/ca.key")).unwrap();
    let ca_line = ca_key.lines().nth(1).unwrap();
    assert!(log.contains("leased"), "it was looked at");
    for secret in capabilities.iter().map(String::as_str).chain([key.as_str(), join.token.as_str(), ca_line])
    {
        let tail = &secret[secret.len() - 24..];
        assert!(!log.contains(secret) && !log.contains(tail), "a secret is in the log: {:.8}…", secret);
    }
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    for file in files(&data) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        let name = file.rsplit('/').next().unwrap();
        assert!(mode == 0o600, "{name} has mode {mode:o}");
    }
}
