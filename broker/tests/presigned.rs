//! Presigned pools, with a worker that is hostile: what a URL is good for, who gets one, how long it holds, and that nothing counts but
//! what storage itself says it holds. On both servers, over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/minio_user.rs"]
mod minio_user;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/signed.rs"]
mod signed;
#[path = "support/vouched.rs"]
mod vouched;

use bytes::Bytes;
use common::{
    Answer, Client, Worker, World, eventually, evidence, hex, output_digest, result_for, sha256, show,
};
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, StatusCode};
use mpegflow_broker::conformance::objects::{chunked, pattern, read};
use mpegflow_broker::embedded::Config;
use mpegflow_broker::objects::{Key, Objects as _};
use mpegflow_protocol::api::{Job, JobState};
use mpegflow_protocol::control::{Pool, Storage};
use mpegflow_protocol::ids::{AttemptId, JobId, UploadId};
use mpegflow_protocol::limits::{PART_SIZE, PARTS_AT_ONCE, PRESIGNED_LEAST};
use mpegflow_protocol::worker::{
    Complete, Lease, LeaseReply, OutputDigest, PartUrl, ReadUrl, Signed, UrlReply,
};
use s3::{BUCKET, Kind, OWN, Server};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use uuid::Uuid;

const POOL: &str = "/control/v1/pools/default";
const ACCOUNT: &str = "media/default-worker";
/// What stands for storage that has hung up on a request that it refuses.
const HUNG_UP: StatusCode = StatusCode::BAD_REQUEST;

// === the log, which is as talkative as can be in every test here

/// What of a signed URL may be in no log.
const SECRETS: [&str; 3] = ["X-Amz-", "Signature=", "uploadId="];
static LINES: AtomicUsize = AtomicUsize::new(0);
static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listening;

impl Write for Listening {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        let line = String::from_utf8_lossy(bytes);
        if SECRETS.iter().any(|secret| line.contains(secret)) {
            LEAKS.lock().unwrap().push(line.into_owned());
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| Listening)
            .init();
    });
}

fn nothing_leaked() {
    assert!(LINES.load(Ordering::Relaxed) > 100, "the log is on");
    assert_eq!(*LEAKS.lock().unwrap(), Vec::<String>::new());
}

// === a broker, a presigned pool on a server, and a worker of it

struct Case {
    kind: Kind,
    server: Server,
    world: World,
    operator: Client,
    tenant: Client,
    worker: Worker,
    storage: Client,
}

fn presigned(server: &Server, generation: u64) -> Pool {
    let storage = vec![server.address.to_string().parse().unwrap()];
    Pool { observed_generation: generation, storage, ..vouched::pool() }
}

async fn case(kind: Kind, change: impl FnOnce(&mut Config)) -> Case {
    listen();
    let server = Server::start_tls(kind);
    let objects = Arc::new(server.objects());
    let world = vouched::world(|config| {
        config.objects = Some(objects);
        // No test here is about a worker that is slow.
        config.lease = Duration::from_secs(300);
        change(config);
    })
    .await;
    let operator = vouched::operator(&world).await;
    assert_eq!(vouched::put(&operator, POOL, &presigned(&server, 1)).await.0, 204);
    let worker = vouched::pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    let tenant = world.tenant("a").await;
    let ca = std::fs::read_to_string(server.ca.as_ref().unwrap()).unwrap();
    let storage = Client::new(server.endpoint(), Some(&ca), None);
    Case { kind, server, world, operator, tenant, worker, storage }
}

impl Case {
    async fn submit(&self, content: &[u8]) -> (Job, UploadId) {
        let upload = common::upload(&self.tenant, content).await;
        let answer = self.tenant.call("POST", "/v1/jobs", common::spec(&upload)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        (answer.json(), upload.id)
    }

    /// A job whose probe is done: the lease of what has outputs.
    async fn encode(&self) -> Lease {
        self.submit(&pattern(0, 400_000)).await;
        let probe = self.worker.lease().await;
        assert_eq!(self.worker.finish(&probe).await.status, 204);
        let lease = self.worker.lease().await;
        assert!(!lease.outputs.is_empty());
        lease
    }

    async fn only_job(&self) -> JobId {
        let jobs: serde_json::Value = self.tenant.get("/v1/jobs").await.json();
        jobs["jobs"][0]["id"].as_str().unwrap().parse().unwrap()
    }

    async fn ask(&self, lease: &Lease, path: &str, body: &impl serde::Serialize) -> Answer {
        let answer = self.worker.end(lease, path, serde_json::to_vec(body).unwrap()).await;
        if !answer.status.is_success() {
            assert!(SECRETS.iter().all(|secret| !answer.text().contains(secret)), "{}", answer.text());
        }
        answer
    }

    async fn ask_to_read(&self, lease: &Lease, start: u64, end: u64) -> Answer {
        self.ask(lease, "inputs/0/url", &ReadUrl { start, end }).await
    }

    async fn ask_to_write(&self, lease: &Lease, output: usize, part: u32, bytes: &[u8]) -> Answer {
        self.ask(lease, &format!("outputs/{output}/parts/{part}/url"), &said(bytes)).await
    }

    async fn say_stored(&self, lease: &Lease, output: usize, part: u32, bytes: &[u8]) -> Answer {
        self.ask(lease, &format!("outputs/{output}/parts/{part}/stored"), &said(bytes)).await
    }

    async fn read_url(&self, lease: &Lease, start: u64, end: u64) -> Signed {
        signed(&self.ask_to_read(lease, start, end).await)
    }

    async fn part_url(&self, lease: &Lease, output: usize, part: u32, bytes: &[u8]) -> Signed {
        signed(&self.ask_to_write(lease, output, part, bytes).await)
    }

    /// Sends what was signed, with whatever changes.
    async fn send(&self, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Answer {
        let mut client = self.storage.clone();
        for (name, value) in headers.iter().filter(|(name, _)| name != "host" && name != "content-length") {
            client = client.with(name, value);
        }
        match client.try_open(method, path, body.to_vec()).await {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                Answer { status: head.status, headers: head.headers, body }
            }
            // A server that refuses need not hear the body out, and its answer may be lost with the connection.
            Err(_) => Answer { status: HUNG_UP, headers: HeaderMap::new(), body: Bytes::new() },
        }
    }

    fn path<'a>(&self, signed: &'a Signed) -> &'a str {
        signed.url.expose().strip_prefix(&self.server.endpoint()).unwrap()
    }

    async fn get(&self, signed: &Signed) -> Answer {
        self.send("GET", self.path(signed), &signed.headers, b"").await
    }

    async fn put(&self, signed: &Signed, bytes: &[u8]) -> Answer {
        self.send("PUT", self.path(signed), &signed.headers, bytes).await
    }

    /// Sends outputs of these parts, each by a URL, and says so.
    async fn write(&self, lease: &Lease, output: usize, parts: &[Vec<u8>]) -> (OutputDigest, Vec<Signed>) {
        let mut urls = Vec::new();
        for (n, bytes) in (0..).zip(parts) {
            let signed = self.part_url(lease, output, n, bytes).await;
            let answer = self.put(&signed, bytes).await;
            assert_eq!(answer.status, 200, "{:?}: {}", self.kind, answer.text());
            let counted = self.say_stored(lease, output, n, bytes).await;
            assert_eq!(counted.status, 204, "{:?}: {}", self.kind, counted.text());
            urls.push(signed);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        (output_digest(&parts), urls)
    }

    async fn complete(&self, lease: &Lease, outputs: Vec<OutputDigest>) -> Answer {
        let complete = Complete { result: result_for(lease, &outputs), outputs, evidence: evidence() };
        self.worker.end(lease, "complete", serde_json::to_vec(&complete).unwrap()).await
    }
}

async fn until_done(worker: &Worker, tenant: &Client, job: &Job) {
    eventually("the job is done", async || {
        worker.run().await;
        show(tenant, job).await.state == JobState::Succeeded
    })
    .await;
}

fn said(bytes: &[u8]) -> PartUrl {
    PartUrl { size: bytes.len() as u64, sha256: hex(&sha256(bytes)) }
}

fn signed(answer: &Answer) -> Signed {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["cache-control"], "no-store");
    match answer.json() {
        UrlReply::Signed(signed) => *signed,
        other => panic!("no URL: {other:?}"),
    }
}

fn is_brokered(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    matches!(answer.json(), UrlReply::Brokered {})
}

fn query(signed: &Signed, name: &str) -> String {
    let (_, query) = signed.url.expose().split_once('?').unwrap();
    let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    found.unwrap_or_default().to_owned()
}

/// The same headers with another value for one, or without it.
fn with(signed: &Signed, name: &str, value: Option<&str>) -> Vec<(String, String)> {
    let mut headers: Vec<_> = signed.headers.iter().filter(|(n, _)| n != name).cloned().collect();
    headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    assert!(headers != signed.headers, "{name} is signed");
    headers
}

// === what a URL is good for

#[tokio::test(flavor = "multi_thread")]
async fn a_url_reads_one_range_of_one_object_as_it_was_and_does_nothing_else() {
    for kind in Kind::ALL {
        let case = case(kind, |_| {}).await;
        let content = pattern(0, 600_000);
        let other = common::upload(&case.tenant, &pattern(7, 600_007)).await;
        let (_, upload) = case.submit(&content).await;
        let lease = case.worker.lease().await;
        let url = case.read_url(&lease, 1_000, 400_000).await;
        assert_eq!(url.addresses, [case.server.address]);
        assert!(query(&url, "X-Amz-Expires").parse::<u64>().unwrap() <= 60);
        assert_eq!(query(&url, "X-Amz-SignedHeaders"), "host%3Bif-match%3Brange");
        assert!(url.ca.contains("BEGIN CERTIFICATE") && !url.ca.contains("PRIVATE"));
        let answer = case.get(&url).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &content[1_000..400_000]), "{kind:?}");

        let path = case.path(&url);
        for method in ["PUT", "DELETE", "HEAD", "POST"] {
            let answer = case.send(method, path, &url.headers, b"").await;
            assert!(answer.status.is_client_error(), "{kind:?} {method}: {}", answer.status);
        }
        for elsewhere in [
            path.replace(&upload.to_string(), &other.id.to_string()),
            path.replace(BUCKET, OWN),
            path.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
            path.replace("x-id=GetObject", "x-id=GetObject&versionId=null"),
        ] {
            assert_ne!(elsewhere, path);
            let answer = case.send("GET", &elsewhere, &url.headers, b"").await;
            assert_eq!(answer.status, 403, "{kind:?}: {elsewhere}");
        }
        for headers in [
            with(&url, "range", Some("bytes=0-599999")),
            with(&url, "range", None),
            with(&url, "if-match", None),
            with(&url, "if-match", Some("*")),
        ] {
            let answer = case.send("GET", path, &headers, b"").await;
            assert!([400, 403].contains(&answer.status.as_u16()), "{kind:?}: {headers:?}: {}", answer.status);
        }
        // Another object at its name, as long: it is not read, by this URL or by a new one.
        let (objects, tenant) =
            (case.server.objects(), case.world.broker().ensure_tenant("a").await.unwrap());
        objects.remove_upload(tenant, upload).await.unwrap();
        let key = Key::Upload(tenant, upload);
        objects.append(&key, 0, &mut chunked(&pattern(9, 600_009)), 600_000, 600_000).await.unwrap();
        objects.finish_upload(tenant, upload, 600_000).await.unwrap();
        assert_eq!(case.get(&url).await.status, 412, "{kind:?}");
        assert_eq!(case.get(&case.read_url(&lease, 1_000, 400_000).await).await.status, 412, "{kind:?}");

        // What is short goes through the broker, and so does nothing at all; what is not there is told.
        assert!(is_brokered(&case.ask_to_read(&lease, 0, PRESIGNED_LEAST - 1).await));
        assert!(is_brokered(&case.ask_to_read(&lease, 5, 5).await));
        assert_eq!(case.ask_to_read(&lease, 0, 600_001).await.status, 416);
        assert_eq!(case.ask_to_read(&lease, 600_000, 300_000).await.status, 416);
        assert_eq!(case.ask(&lease, "inputs/1/url", &ReadUrl { start: 0, end: 1 }).await.status, 404);
        nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_writes_the_bytes_that_were_announced_and_no_others() {
    for kind in Kind::ALL {
        let case = case(kind, |_| {}).await;
        let lease = case.encode().await;
        let (part, altered) = (pattern(0, PART_SIZE), pattern(1, PART_SIZE + 1));
        let url = case.part_url(&lease, 0, 0, &part).await;
        assert_eq!(query(&url, "X-Amz-SignedHeaders"), "content-length%3Bhost%3Bx-amz-checksum-sha256");
        let path = case.path(&url);
        for (what, bytes) in [("altered", &altered[..]), ("short", &part[..part.len() - 1]), ("none", b"")] {
            let answer = case.put(&url, bytes).await;
            assert!(answer.status.is_client_error(), "{kind:?} {what}: {} {}", answer.status, answer.text());
        }
        // With the digest of what is sent, which is not the one that was signed.
        let digest = {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(sha256(&altered))
        };
        for headers in
            [with(&url, "x-amz-checksum-sha256", Some(&digest)), with(&url, "x-amz-checksum-sha256", None)]
        {
            let answer = case.send("PUT", path, &headers, &altered).await;
            assert!([400, 403].contains(&answer.status.as_u16()), "{kind:?}: {}", answer.text());
        }
        for method in ["GET", "DELETE", "HEAD", "POST"] {
            let answer = case.send(method, path, &url.headers, b"").await;
            assert!(answer.status.is_client_error(), "{kind:?} {method}: {}", answer.status);
        }
        for elsewhere in [
            path.replace("partNumber=1", "partNumber=2"),
            path.replace(&format!("{}/0?", lease.attempt), &format!("{}/1?", lease.attempt)),
            path.replace(BUCKET, OWN),
        ] {
            assert_ne!(elsewhere, path);
            let answer = case.send("PUT", &elsewhere, &url.headers, &part).await;
            assert!([400, 403].contains(&answer.status.as_u16()), "{kind:?}: {elsewhere}: {}", answer.status);
        }
        // Nothing of that is there.
        assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 422, "{kind:?}");
        // Another content of the part is never signed, nor taken by the other way, nor counted.
        assert_eq!(case.ask_to_write(&lease, 0, 0, &altered[1..]).await.status, 409, "{kind:?}");
        assert_eq!(case.worker.put(&lease, 0, 0, &altered[1..]).await.status, 409, "{kind:?}");
        assert_eq!(case.say_stored(&lease, 0, 0, &altered[1..]).await.status, 409, "{kind:?}");
        // The announced one is: by the URL that there is, or by a new one.
        assert_eq!(case.put(&url, &part).await.status, 200, "{kind:?}");
        assert_eq!(case.put(&case.part_url(&lease, 0, 0, &part).await, &part).await.status, 200, "{kind:?}");
        // Out of turn, before and after it counts.
        assert_eq!(case.ask_to_write(&lease, 0, 1, &part).await.status, 409, "{kind:?}");
        for _ in 0..2 {
            assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 204, "{kind:?}");
        }
        let again = case.ask_to_write(&lease, 0, 0, &part).await;
        assert!(matches!(again.json(), UrlReply::Stored {}), "{}", again.text());
        for (output, part, bytes, status) in [
            (0, 0, &altered[1..], 409),
            (0, 1 + PARTS_AT_ONCE, &part[..], 409),
            (0, 1, &[][..], 409),
            (99, 0, &part[..], 404),
        ] {
            assert_eq!(
                case.ask_to_write(&lease, output, part, bytes).await.status,
                status,
                "{output} {part}"
            );
            assert_eq!(case.say_stored(&lease, output, part, bytes).await.status, status, "{output} {part}");
        }
        let long = PartUrl { size: PART_SIZE + 1, sha256: hex(&[1; 32]) };
        assert_eq!(case.ask(&lease, "outputs/0/parts/1/url", &long).await.status, 409);
        let no_digest = PartUrl { size: PART_SIZE, sha256: hex(&[1; 32]).to_uppercase().replace('0', "G") };
        assert_eq!(case.ask(&lease, "outputs/0/parts/1/url", &no_digest).await.status, 422);
        assert!(is_brokered(&case.ask_to_write(&lease, 0, 1, b"short").await));
        nothing_leaked();
    }
}

// === what counts

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lies_about_what_it_wrote_commits_nothing() {
    for kind in Kind::ALL {
        let case = case(kind, |_| {}).await;
        let lease = case.encode().await;
        let (part, short) = (pattern(0, PART_SIZE), pattern(3, 300_003));
        // It has a URL and writes nothing.
        case.part_url(&lease, 0, 0, &part).await;
        assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 422, "{kind:?}");
        // It says that without having asked for one.
        assert_eq!(case.say_stored(&lease, 1, 0, &short).await.status, 422, "{kind:?}");
        let mut outputs: Vec<OutputDigest> = (0..lease.outputs.len()).map(|_| output_digest(&[])).collect();
        outputs[0] = output_digest(&[&part]);
        assert_eq!(case.complete(&lease, outputs.clone()).await.status, 422, "{kind:?}");

        // It writes, is counted, and says another digest at the end.
        let mut honest = Vec::new();
        for n in 0..lease.outputs.len() {
            let parts = if n == 0 { vec![part.clone(), short.clone()] } else { vec![short.clone()] };
            honest.push(case.write(&lease, n, &parts).await.0);
        }
        for lie in [
            OutputDigest { digest: output_digest(&[&short]).digest, ..honest[0].clone() },
            OutputDigest { size: honest[0].size + 1, ..honest[0].clone() },
            OutputDigest { parts: 1, ..honest[0].clone() },
        ] {
            let mut outputs = honest.clone();
            outputs[0] = lie;
            assert_eq!(case.complete(&lease, outputs).await.status, 422, "{kind:?}");
        }
        // What was counted is gone from storage: the truth of then is a lie of now.
        let objects = case.server.objects();
        let tenant = case.world.broker().ensure_tenant("a").await.unwrap();
        let job = case.only_job().await;
        objects.remove_attempt(tenant, job, lease.attempt).await.unwrap();
        let refused = case.complete(&lease, honest).await;
        assert!(!refused.status.is_success(), "{kind:?}: {}", refused.text());
        let shown: Job = case.tenant.get(&format!("/v1/jobs/{job}")).await.json();
        assert_eq!((shown.state, shown.outputs.len()), (JobState::Running, 0), "{kind:?}");
        nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_url_changes_anything_once_its_object_is_complete() {
    for kind in Kind::ALL {
        let case = case(kind, |_| {}).await;
        let content = pattern(0, 500_000);
        let (job, _) = case.submit(&content).await;
        let mut urls: Vec<(Signed, Vec<u8>)> = Vec::new();
        let mut seed = 10;
        while show(&case.tenant, &job).await.state != JobState::Succeeded {
            let LeaseReply::Lease(lease) = case.worker.ask(5_000).await else { continue };
            let first = case.get(&case.read_url(&lease, 0, PRESIGNED_LEAST).await).await;
            assert_eq!(first.status, 206, "{kind:?}");
            let mut outputs = Vec::new();
            for n in 0..lease.outputs.len() {
                // One short part, one that is full, and more than one.
                seed += 1;
                let full = pattern(seed, seed + PART_SIZE);
                let short = pattern(seed, seed + 300_000);
                let parts = match n % 3 {
                    0 => vec![short],
                    1 => vec![full],
                    _ => vec![full, short],
                };
                let (digest, written) = case.write(&lease, n, &parts).await;
                outputs.push(digest);
                urls.extend(written.into_iter().zip(parts));
            }
            let answer = case.complete(&lease, outputs).await;
            assert_eq!(answer.status, 204, "{kind:?} {}: {}", lease.task.name(), answer.text());
            // Again, as after an answer that was lost: nothing more.
            for (url, bytes) in &urls {
                let late = case.put(url, bytes).await;
                assert!(late.status.is_client_error(), "{kind:?}: {} {}", late.status, late.text());
            }
        }
        let done = show(&case.tenant, &job).await;
        assert_eq!(done.state, JobState::Succeeded, "{kind:?}");
        assert!(urls.len() > 4 && !done.outputs.is_empty());
        for output in &done.outputs {
            let whole = case.tenant.get(&output.url).await;
            assert_eq!((whole.status.as_u16(), whole.body.len() as u64), (200, output.size), "{kind:?}");
            let written = urls.iter().any(|(_, bytes)| whole.body.starts_with(bytes));
            assert!(written, "{kind:?}: {} is what was written", output.name);
        }
        // No multipart upload is left, and no URL anywhere on the broker's disk.
        let marks: Vec<_> =
            case.server.kept().into_iter().filter(|path| path.to_string_lossy().contains(".open")).collect();
        assert_eq!(marks, Vec::<std::path::PathBuf>::new(), "{kind:?}");
        for file in common::files(&case.world.config.data_dir) {
            let bytes = std::fs::read(case.world.config.data_dir.join(&file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "a URL is in {file}");
        }
        let events = case.tenant.get(&format!("/v1/jobs/{}", job.id)).await.text();
        assert!(SECRETS.iter().all(|secret| !events.contains(secret)), "{events}");
        nothing_leaked();
    }
}

// === who gets one

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_holder_of_a_live_lease_of_a_presigned_pool_gets_a_url() {
    for kind in Kind::ALL {
        let case = case(kind, |_| {}).await;
        let lease = case.encode().await;
        let bytes = pattern(0, 300_000);
        let statuses = async || {
            let read = case.ask_to_read(&lease, 0, 300_000).await;
            (read.status.as_u16(), case.ask_to_write(&lease, 0, 0, &bytes).await.status.as_u16())
        };
        assert_eq!(statuses().await, (200, 200), "{kind:?}");
        // Another worker of the pool, with the capability of this one, and this one without.
        let other = vouched::pod(&case.world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
        let body = serde_json::to_vec(&ReadUrl { start: 0, end: 300_000 }).unwrap();
        assert_eq!(other.end(&lease, "inputs/0/url", body.clone()).await.status, 403, "{kind:?}");
        let mut wrong = lease.clone();
        wrong.attempt = AttemptId::from_u128(1);
        assert_eq!(case.worker.end(&wrong, "inputs/0/url", body.clone()).await.status, 403);
        let path = format!("/worker/v1/attempts/{}/inputs/0/url", lease.attempt);
        assert_eq!(case.worker.client.call("POST", &path, body).await.status, 401);

        // The pool as its resource says it, one generation after the other.
        let push = async |generation: u64, storage: &[&str]| {
            let storage = storage.iter().map(|text| text.parse().unwrap()).collect();
            let pool = Pool { observed_generation: generation, storage, ..vouched::pool() };
            assert_eq!(vouched::put(&case.operator, POOL, &pool).await.0, 204);
        };
        push(2, &[]).await;
        assert_eq!(statuses().await, (403, 403), "{kind:?}: it is brokered now");
        // Elsewhere than storage is: through the broker, and no address beyond the pool's own is ever named.
        for elsewhere in [vec!["192.0.2.1:443"], vec!["127.0.0.1:1"], vec!["[::1]:443", "10.0.0.0/8:443"]] {
            push(3, &elsewhere).await;
            assert!(is_brokered(&case.ask_to_read(&lease, 0, 300_000).await), "{kind:?} {elsewhere:?}");
            assert!(is_brokered(&case.ask_to_write(&lease, 0, 0, &bytes).await), "{kind:?} {elsewhere:?}");
        }
        let block = format!("127.0.0.0/8:{}", case.server.address.port());
        push(4, &["192.0.2.1:443", &block]).await;
        assert_eq!(case.read_url(&lease, 0, 300_000).await.addresses, [case.server.address], "{kind:?}");
        assert_eq!(statuses().await, (200, 200), "{kind:?}");

        // A job that is being canceled.
        let (job, _) = case.submit(&pattern(0, 400_000)).await;
        let canceled = vouched::pod(&case.world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
        let of_canceled = canceled.lease().await;
        let ask = ReadUrl { start: 0, end: 300_000 };
        let body = serde_json::to_vec(&ask).unwrap();
        assert_eq!(canceled.end(&of_canceled, "inputs/0/url", body.clone()).await.status, 200);
        let cancel = case.tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
        assert!(cancel.status.is_success(), "{}", cancel.text());
        assert_eq!(canceled.end(&of_canceled, "inputs/0/url", body.clone()).await.status, 403, "{kind:?}");
        assert_eq!(canceled.end(&of_canceled, "release", vec![]).await.status, 204);
        assert_eq!(canceled.end(&of_canceled, "inputs/0/url", body).await.status, 409, "{kind:?}");
        nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_attempt_gets_no_url_and_what_it_writes_by_an_old_one_counts_for_nothing() {
    for kind in Kind::ALL {
        let case = case(kind, |config| config.lease = Duration::from_secs(20)).await;
        let lease = case.encode().await;
        let part = pattern(0, PART_SIZE);
        let url = case.part_url(&lease, 0, 0, &part).await;
        let engine = case.world.broker().engine();
        eventually("the lease runs out", async || case.ask_to_read(&lease, 0, 300_000).await.status == 409)
            .await;
        assert_eq!(case.ask_to_write(&lease, 0, 0, &part).await.status, 409, "{kind:?}");
        // Storage knows nothing of leases, and takes it for as long as the multipart upload is open.
        let late = case.put(&url, &part).await;
        assert!([200, 400, 404].contains(&late.status.as_u16()), "{kind:?}: {}", late.status);
        assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 409, "{kind:?}");
        let outputs = lease.outputs.iter().map(|_| output_digest(&[&part])).collect();
        assert_eq!(case.complete(&lease, outputs).await.status, 409, "{kind:?}");
        // Another has the task. The sweep takes all of the fenced one's, and then storage refuses the URL as well.
        let other = vouched::pod(&case.world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
        let next = other.lease().await;
        assert_ne!(next.attempt, lease.attempt);
        eventually("the fenced one's objects are swept", async || {
            engine.sweep().await.unwrap();
            !case.server.kept().iter().any(|path| path.to_string_lossy().contains(&lease.attempt.to_string()))
        })
        .await;
        let after = case.put(&url, &part).await;
        assert!(after.status.is_client_error(), "{kind:?}: {}", after.status);
        nothing_leaked();
    }
}

// === how long

#[tokio::test(flavor = "multi_thread")]
async fn a_url_runs_out_and_a_long_attempt_goes_on_with_new_ones() {
    for kind in Kind::ALL {
        let case = case(kind, |config| config.url_life = Duration::from_secs(1)).await;
        let content = pattern(0, 400_000);
        let (job, _) = case.submit(&content).await;
        assert_eq!(case.worker.finish(&case.worker.lease().await).await.status, 204);
        let lease = case.worker.lease().await;
        // The attempt outlives each of its URLs, several times over.
        let mut outputs = Vec::new();
        for n in 0..lease.outputs.len() {
            let part = pattern(n as u64, n as u64 + 300_000);
            let (read, write) =
                (case.read_url(&lease, 0, 300_000).await, case.part_url(&lease, n, 0, &part).await);
            assert_eq!(query(&read, "X-Amz-Expires"), "1");
            eventually("the URL to read runs out", async || case.get(&read).await.status == 403).await;
            eventually("the URL to write runs out", async || case.put(&write, &part).await.status == 403)
                .await;
            // For as long as the lease is renewed there is another.
            assert_eq!(case.worker.beat(&lease, Default::default()).await.status, 200);
            eventually("another URL reads", async || {
                let answer = case.get(&case.read_url(&lease, 0, 300_000).await).await;
                answer.status == 206 && answer.body[..] == content[..300_000]
            })
            .await;
            eventually("another URL writes", async || {
                case.put(&case.part_url(&lease, n, 0, &part).await, &part).await.status == 200
            })
            .await;
            assert_eq!(case.say_stored(&lease, n, 0, &part).await.status, 204, "{kind:?}");
            outputs.push(output_digest(&[&part]));
        }
        assert_eq!(case.complete(&lease, outputs).await.status, 204, "{kind:?}");
        assert_eq!(show(&case.tenant, &job).await.state, JobState::Running);
        nothing_leaked();
    }
}

// === where not

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_storage_without_tls_are_brokered_whatever_the_pool_may() {
    listen();
    let server = Server::start(Kind::Versitygw);
    for objects in [None, Some(Arc::new(server.objects()) as Arc<dyn mpegflow_broker::objects::Objects>)] {
        let world = vouched::world(|config| config.objects = objects).await;
        let operator = vouched::operator(&world).await;
        assert_eq!(vouched::put(&operator, POOL, &presigned(&server, 1)).await.0, 204);
        let worker = vouched::pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
        let tenant = world.tenant("a").await;
        let job = common::submit(&tenant, &pattern(0, 400_000)).await;
        assert_eq!(worker.finish(&worker.lease().await).await.status, 204);
        let lease = worker.lease().await;
        let bytes = pattern(0, 300_000);
        let ask = serde_json::to_vec(&ReadUrl { start: 0, end: 300_000 }).unwrap();
        assert!(is_brokered(&worker.end(&lease, "inputs/0/url", ask).await));
        let ask = serde_json::to_vec(&said(&bytes)).unwrap();
        assert!(is_brokered(&worker.end(&lease, "outputs/0/parts/0/url", ask.clone()).await));
        assert_eq!(worker.end(&lease, "outputs/0/parts/0/stored", ask).await.status, 422);
        // And so it goes on: what was announced may be sent, and is all that may.
        assert_eq!(worker.put(&lease, 0, 0, &bytes).await.status, 204);
        assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
        until_done(&worker, &tenant, &job).await;
    }
    nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_storage_is_presigned_where_the_pool_reaches_it_and_brokered_elsewhere() {
    for kind in Kind::ALL {
        let elsewhere = Server::start_tls(kind);
        let case = case(kind, |_| {}).await;
        // Its own bucket on the server that the pool reaches, and on one that it does not.
        for (server, name, expected) in [(&case.server, "near", true), (&elsewhere, "far", false)] {
            let objects = Arc::new(case.server.objects());
            let (dir, ca) = (server.dir.path().to_owned(), server.ca.clone());
            let world = vouched::world(|config| {
                config.objects = Some(objects);
                let setup = &mut config.tenant_storage;
                (setup.secrets, setup.ca_file) = (Some(dir), ca);
                setup.shared = Some((BUCKET.into(), "mpegflow/".into()));
            })
            .await;
            let operator = vouched::operator(&world).await;
            assert_eq!(vouched::put(&operator, POOL, &presigned(&case.server, 1)).await.0, 204);
            let storage = Storage {
                bucket: OWN.into(),
                prefix: "in/".into(),
                endpoint: Some(server.endpoint()),
                region: None,
                path_style: true,
                role_arn: None,
                secret: Some("credentials".into()),
            };
            let id = world.broker().ensure_tenant(name).await.unwrap();
            world.broker().engine().set_storage(id, Some(storage), false).await.unwrap();
            let tenant = world.tenant(name).await;
            let content = pattern(0, 400_000);
            let job = common::submit(&tenant, &content).await;
            let worker = vouched::pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
            let lease = worker.lease().await;
            let ask = serde_json::to_vec(&ReadUrl { start: 0, end: 300_000 }).unwrap();
            let reply: UrlReply = worker.end(&lease, "inputs/0/url", ask).await.json();
            let UrlReply::Signed(url) = reply else {
                assert!(!expected && matches!(reply, UrlReply::Brokered {}), "{kind:?} {name}");
                assert_eq!(worker.finish(&lease).await.status, 204);
                until_done(&worker, &tenant, &job).await;
                continue;
            };
            assert!(expected, "{kind:?} {name}: {url:?}");
            let path = url.url.expose().strip_prefix(&server.endpoint()).unwrap();
            assert!(path.starts_with(&format!("/{OWN}/in/{id}/uploads/")), "{path}");
            let ca = std::fs::read_to_string(server.ca.as_ref().unwrap()).unwrap();
            let mut client = Client::new(server.endpoint(), Some(&ca), None);
            for (name, value) in &url.headers {
                client = client.with(name, value);
            }
            let answer = client.get(path).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &content[..300_000]), "{kind:?}");
        }
        nothing_leaked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_at_a_tenants_own_storage_is_signed_by_a_session_of_its_role() {
    listen();
    // versitygw has no STS.
    let (kind, server) = (Kind::Minio, Server::start_tls(Kind::Minio));
    let all = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:*"], "Resource": [format!("arn:aws:s3:::{OWN}"), format!("arn:aws:s3:::{OWN}/*")] },
    ] });
    let (user, secret) = ("role-user", "role-secret-1");
    minio_user::add(&server, user, secret, &all.to_string()).await;
    let credentials = server.dir.path().join("role-credentials");
    let text = format!("[default]\naws_access_key_id = {user}\naws_secret_access_key = {secret}\n");
    std::fs::write(&credentials, text).unwrap();
    let (objects, authorities) = (Arc::new(server.objects()), server.ca.clone());
    let world = vouched::world(|config| {
        config.objects = Some(objects);
        config.lease = Duration::from_secs(300);
        let setup = &mut config.tenant_storage;
        (setup.credentials_file, setup.ca_file) = (Some(credentials), authorities);
        setup.shared = Some((BUCKET.into(), "mpegflow/".into()));
    })
    .await;
    let operator = vouched::operator(&world).await;
    assert_eq!(vouched::put(&operator, POOL, &presigned(&server, 1)).await.0, 204);
    let storage = Storage {
        bucket: OWN.into(),
        prefix: "in/".into(),
        endpoint: Some(server.endpoint()),
        region: None,
        path_style: true,
        role_arn: Some("arn:aws:iam::123456789012:role/films".into()),
        secret: None,
    };
    let id = world.broker().ensure_tenant("own").await.unwrap();
    world.broker().engine().set_storage(id, Some(storage), false).await.unwrap();
    let (tenant, worker) =
        (world.tenant("own").await, vouched::pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap());
    let ca = std::fs::read_to_string(server.ca.as_ref().unwrap()).unwrap();
    let storage = Client::new(server.endpoint(), Some(&ca), None);
    let case = Case { kind, server, world, operator, tenant, worker, storage };

    let content = pattern(0, 400_000);
    let (job, upload) = case.submit(&content).await;
    let probe = case.worker.lease().await;
    let read = case.read_url(&probe, 0, 300_000).await;
    assert!(case.path(&read).starts_with(&format!("/{OWN}/in/{id}/uploads/{upload}?")));
    let answer = case.get(&read).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &content[..300_000]));
    assert_eq!(case.worker.finish(&probe).await.status, 204);
    let lease = case.worker.lease().await;
    let part = pattern(3, PART_SIZE + 3);
    let write = case.part_url(&lease, 0, 0, &part).await;
    assert!(case.path(&write).starts_with(&format!("/{OWN}/in/{id}/jobs/{}/{}/0?", job.id, lease.attempt)));
    for url in [&read, &write] {
        // A session's key, and no one's that holds for longer; the URL itself for no longer than any other.
        let by = query(url, "X-Amz-Credential");
        assert!(!by.starts_with(user) && !by.starts_with(&case.server.user), "{by}");
        assert!(!query(url, "X-Amz-Security-Token").is_empty());
        assert!(query(url, "X-Amz-Expires").parse::<u64>().unwrap() <= 60);
    }
    assert_eq!(case.put(&write, &part).await.status, 200);
    assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 204);
    let mut outputs = vec![output_digest(&[&part])];
    for n in 1..lease.outputs.len() {
        outputs.push(case.write(&lease, n, &[pattern(n as u64, n as u64 + 300_000)]).await.0);
    }
    assert_eq!(case.complete(&lease, outputs).await.status, 204);
    until_done(&case.worker, &case.tenant, &job).await;
    assert_eq!(
        case.server.kept(),
        Vec::<std::path::PathBuf>::new(),
        "nothing of it lies where all tenants' is"
    );
    nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_gone_costs_a_call_and_says_nothing_of_the_lease() {
    for kind in Kind::ALL {
        let mut case = case(kind, |_| {}).await;
        let lease = case.encode().await;
        let part = pattern(0, PART_SIZE);
        let url = case.part_url(&lease, 0, 0, &part).await;
        assert_eq!(case.put(&url, &part).await.status, 200, "{kind:?}");
        case.server.kill();
        // Whether the part is there cannot be asked; it is not believed, and the worker may come back.
        assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 503, "{kind:?}");
        case.server.restart();
        assert_eq!(case.say_stored(&lease, 0, 0, &part).await.status, 204, "{kind:?}");
        let tenant = case.world.broker().ensure_tenant("a").await.unwrap();
        let mut outputs = vec![output_digest(&[&part])];
        for n in 1..lease.outputs.len() {
            outputs.push(case.write(&lease, n, &[pattern(n as u64, n as u64 + 300_000)]).await.0);
        }
        assert_eq!(case.complete(&lease, outputs).await.status, 204, "{kind:?}");
        let key = Key::Output(tenant, case.only_job().await, lease.attempt, 0);
        assert!(read(&case.server.objects(), &key, 0..PART_SIZE).await == part, "{kind:?}");
        nothing_leaked();
    }
}
