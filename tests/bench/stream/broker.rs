//! `mpegflow-broker` over the S3 server, and a worker of it whose certificate the client uses.

use super::common::{self, Client as Http, Worker, hex};
use super::curl::{Client, Transfer};
use super::proxy::{Proxy, until_it_listens};
use super::s3::Server;
use mpegflow_protocol::api::{Job, Upload};
use mpegflow_protocol::limits::PART_SIZE;
use mpegflow_protocol::task::TaskResult;
use mpegflow_protocol::worker::{Complete, JoinFile, Lease, LeaseReply, PART_DIGEST_HEADER};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the media that is written lasts: enough for the sizes of its parts.
const MEDIA_MS: u64 = 3 * 3_600_000;

pub(crate) struct Broker {
    child: Child,
    port: u16,
    dir: PathBuf,
    tenant: Http,
    join: JoinFile,
    /// The task whose input is read.
    reading: Lease,
    /// Its worker.
    client: Client,
    authority: PathBuf,
}

impl Broker {
    /// Starts it, uploads the file, and takes a task that reads it.
    pub(crate) async fn start(dir: &Path, server: &Server, input: &Path) -> Self {
        let (public, port) = (mpegflow_test_ports::port(), mpegflow_test_ports::port());
        let data = dir.join("broker");
        let settings = |command: &mut Command| {
            command.arg("--data").arg(&data).args(["--lease", "10m"]);
            command.args(["--listen", &format!("127.0.0.1:{public}")]);
            command.args(["--worker-listen", &format!("127.0.0.1:{port}")]);
            command.args(["--s3-bucket", super::s3::BUCKET, "--s3-path-style", "--s3-prefix", "mpegflow/"]);
            command.args(["--s3-endpoint", &server.endpoint()]);
            command.arg("--s3-credentials").arg(server.dir.path().join("credentials"));
            command.arg("--s3-ca").arg(server.ca.as_ref().unwrap());
            command.env_clear().env("RUST_LOG", "error").stdin(Stdio::null());
        };
        let program = mpegflow_tests::program("mpegflow-broker");
        let ask = |words: &[&str]| {
            let mut command = Command::new(&program);
            command.args(words);
            settings(&mut command);
            let out = command.output().unwrap();
            assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let mut command = Command::new(&program);
        command.arg("serve");
        settings(&mut command);
        let child = command.spawn().unwrap();
        until_it_listens(public);
        let key = ask(&["api-key", "create", "--tenant", "bench"]);
        let join = dir.join("join.json");
        ask(&[
            "join-token",
            "create",
            "--broker",
            &format!("127.0.0.1:{port}"),
            "--out",
            &join.display().to_string(),
        ]);
        let join: JoinFile = serde_json::from_slice(&std::fs::read(join).unwrap()).unwrap();
        let tenant = Http::new(format!("http://127.0.0.1:{public}"), None, None)
            .with("authorization", format!("Bearer {}", key.trim()));
        let dir = dir.to_owned();
        let authority = dir.join("authority.pem");
        std::fs::write(&authority, &join.ca).unwrap();
        std::fs::write(dir.join("trusted.pem"), &join.ca).unwrap();
        let (worker, client) = enroll(&dir, &join, port).await;
        let reading = Self::job(&tenant, &worker, std::fs::read(input).unwrap()).await;
        Self { child, port, dir, tenant, join, reading, client, authority }
    }

    /// A job over these bytes, and its first task.
    async fn job(tenant: &Http, worker: &Worker, bytes: Vec<u8>) -> Lease {
        let created = tenant.call("POST", "/v1/uploads", format!(r#"{{"size":{}}}"#, bytes.len())).await;
        let upload: Upload = created.json();
        let sent = tenant.call("PUT", &format!("/v1/uploads/{}?offset=0", upload.id), bytes).await;
        assert_eq!(sent.status, 200, "{}", sent.text());
        let job: Job = tenant.call("POST", "/v1/jobs", common::spec(&upload)).await.json();
        let lease = worker.lease().await;
        assert_eq!(lease.task.name(), "probe", "of {}", job.id);
        lease
    }

    /// Authority of its clients' certificates, as PEM.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// Has the client trust another server too.
    pub(crate) fn trust(&self, certificate: &Path) {
        let both = [&self.client.trusted, certificate].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&self.client.trusted, both.concat()).unwrap();
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Reading the input.
    pub(crate) fn input(&self) -> Transfer {
        let lease = &self.reading;
        Transfer::get(&format!("/worker/v1/attempts/{}/inputs/0", lease.attempt)).header(&bearer(lease))
    }

    /// Key of the input in its bucket: of all that lies there, the largest.
    pub(crate) fn object(&self, server: &Server) -> String {
        let bucket = server.dir.path().join("data").join(super::s3::BUCKET);
        let largest = server.kept().into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
        largest.strip_prefix(bucket).unwrap().display().to_string()
    }

    /// Writing so many parts of tasks that are fresh, so many of each output: those of one output come one after another. A worker
    /// has no more than a few tasks at once, so they are of as many as it takes.
    pub(crate) async fn parts(
        &self,
        parts: usize,
        of_each: u64,
        file: &Path,
        digest: &[u8; 32],
    ) -> Vec<Transfer> {
        let mut transfers = Vec::with_capacity(parts);
        while transfers.len() < parts {
            let (worker, client) = enroll(&self.dir, &self.join, self.port).await;
            let probe = Self::job(&self.tenant, &worker, vec![7]).await;
            let TaskResult::Probe(mut result) = common::result_for(&probe, &[]) else {
                panic!("not a probe")
            };
            result.media.duration_ms = Some(MEDIA_MS);
            for stream in &mut result.media.streams {
                stream.duration_ms = Some(MEDIA_MS);
            }
            let complete = Complete {
                result: TaskResult::Probe(result),
                outputs: Vec::new(),
                evidence: common::evidence(),
            };
            let answer = worker.end(&probe, "complete", serde_json::to_vec(&complete).unwrap()).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
            while let LeaseReply::Lease(lease) = worker.ask(0).await {
                for (output, slot) in lease.outputs.iter().enumerate() {
                    let room = slot.max_bytes / PART_SIZE;
                    // All of `of_each`, or none.
                    let some = if room < of_each && of_each < u64::MAX { 0 } else { room.min(of_each) };
                    for part in 0..some {
                        let path =
                            format!("/worker/v1/attempts/{}/outputs/{output}/parts/{part}", lease.attempt);
                        let digest = format!("{PART_DIGEST_HEADER}: {}", hex(digest));
                        let put = Transfer::put(&path, file).header(&bearer(&lease)).header(&digest);
                        transfers.push(put.by(&client));
                    }
                }
            }
        }
        transfers.truncate(parts);
        transfers
    }
}

impl Proxy for Broker {
    fn pids(&self) -> Vec<u32> {
        vec![self.child.id()]
    }

    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker, and how the client is taken for it.
async fn enroll(dir: &Path, join: &JoinFile, port: u16) -> (Worker, Client) {
    let worker = Worker::enroll(join, ([127, 0, 0, 1], port).into()).await;
    let client = Client {
        certificate: dir.join(format!("{}.pem", worker.id)),
        key: dir.join(format!("{}.key", worker.id)),
        trusted: dir.join("trusted.pem"),
    };
    std::fs::write(&client.certificate, &worker.certificate).unwrap();
    std::fs::write(&client.key, key_pem(&worker.key)).unwrap();
    (worker, client)
}

fn bearer(lease: &Lease) -> String {
    format!("Authorization: Bearer {}", lease.capability)
}

/// PKCS #8 as PEM.
fn key_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}
