//! A broker on free ports, clients of both its APIs over real sockets, and a worker that makes results up.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mpegflow_broker::embedded::{self, Config, Running};
use mpegflow_protocol::api::{Job, Upload};
use mpegflow_protocol::evidence::{Evidence, Observed, SelfReport};
use mpegflow_protocol::ids::{PoolName, WorkerId};
use mpegflow_protocol::media::{AudioInfo, MediaInfo, Ratio, StreamInfo, StreamKind, VideoInfo};
use mpegflow_protocol::task::*;
use mpegflow_protocol::telemetry::{Counts, WorkerSpans};
use mpegflow_protocol::worker::*;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const DURATION_MS: u64 = 10_000;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn problem(&self) -> String {
        assert_eq!(
            self.headers["content-type"],
            "application/problem+json",
            "{} {}",
            self.status,
            self.text()
        );
        let value: serde_json::Value = self.json();
        assert_eq!(value["status"], self.status.as_u16());
        value["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned()
    }
}

#[derive(Clone)]
pub struct Client {
    http: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    pub headers: Vec<(String, String)>,
}

pub fn tls(ca: Option<&str>, identity: Option<(&str, &[u8])>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::try_from(key.to_vec()).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

impl Client {
    pub fn new(base: String, ca: Option<&str>, identity: Option<(&str, &[u8])>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(ca, identity))
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Hyper::builder(TokioExecutor::new()).build(https);
        Self { http, base, headers: Vec::new() }
    }

    pub fn with(&self, name: &str, value: impl Into<String>) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(n, _)| n != name);
        other.headers.push((name.into(), value.into()));
        other
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Response<hyper::body::Incoming> {
        self.try_open(method, path, body).await.unwrap()
    }

    pub async fn try_open(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, hyper_util::client::legacy::Error> {
        self.http.request(self.request(method, path, body)).await
    }

    fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body.into())).unwrap()
    }

    /// The same where the way there or the server may fail: the answer, if a whole one came within the time.
    pub async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Option<Answer> {
        let request = self.http.request(self.request(method, path, body));
        let answer = async {
            let (head, body) = request.await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(within, answer).await.ok()?
    }

    pub async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let response = self.open(method, path, body).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub broker: Option<Running>,
    pub config: Config,
    /// What has to live as long: a server.
    pub kept: Option<Box<dyn std::any::Any + Send>>,
}

pub async fn world() -> World {
    world_with(|_| {}).await
}

pub async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
    }
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("data"));
    change(&mut config);
    let broker = embedded::start(config.clone()).await.unwrap();
    World { dir, broker: Some(broker), config, kept: None }
}

impl World {
    pub fn broker(&self) -> &Running {
        self.broker.as_ref().unwrap()
    }

    /// As a crash would: nothing is drained or closed.
    pub async fn crash_and_restart(&mut self) {
        drop(self.broker.take());
        self.broker = Some(embedded::start(self.config.clone()).await.unwrap());
    }

    pub fn anonymous(&self) -> Client {
        Client::new(format!("http://{}", self.broker().public_addr()), None, None)
    }

    pub async fn tenant(&self, name: &str) -> Client {
        let tenant = self.broker().ensure_tenant(name).await.unwrap();
        let key = self.broker().create_api_key(tenant, "test").await.unwrap();
        self.anonymous().with("authorization", format!("Bearer {key}"))
    }

    pub async fn join_file(&self) -> JoinFile {
        let path = self.dir.path().join("join.json");
        self.broker().write_join_file(&PoolName::default(), &path).await.unwrap();
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    }

    pub async fn worker(&self) -> Worker {
        Worker::enroll(&self.join_file().await, self.broker().worker_addr()).await
    }
}

pub async fn upload(client: &Client, bytes: &[u8]) -> Upload {
    let created = client.call("POST", "/v1/uploads", format!(r#"{{"size":{}}}"#, bytes.len())).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let upload: Upload = created.json();
    if bytes.is_empty() {
        return upload;
    }
    let sent = client.call("PUT", &format!("/v1/uploads/{}?offset=0", upload.id), bytes.to_vec()).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    sent.json()
}

pub fn spec(upload: &Upload) -> String {
    format!(r#"{{"version":1,"input":{{"upload":"{}"}},"preset":"web"}}"#, upload.id)
}

pub async fn submit(client: &Client, bytes: &[u8]) -> Job {
    let upload = upload(client, bytes).await;
    let answer = client.call("POST", "/v1/jobs", spec(&upload)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

pub async fn show(client: &Client, job: &Job) -> Job {
    client.get(&format!("/v1/jobs/{}", job.id)).await.json()
}

pub struct Worker {
    pub id: WorkerId,
    pub client: Client,
    pub certificate: String,
    pub key: Vec<u8>,
}

impl Worker {
    pub async fn enroll(join: &JoinFile, address: SocketAddr) -> Self {
        let base = format!("https://{address}");
        let anonymous = Client::new(base.clone(), Some(&join.ca), None);
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let enroll =
            Enroll { token: join.token.clone(), csr, pool: join.pool.clone(), version: "test".into() };
        let answer = anonymous.call("POST", "/worker/v1/enroll", serde_json::to_vec(&enroll).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let enrolled: Enrolled = answer.json();
        let key = key.serialize_der();
        let client = Client::new(base, Some(&join.ca), Some((&enrolled.certificate, &key)));
        Self { id: enrolled.worker, client, certificate: enrolled.certificate, key }
    }

    pub async fn ask(&self, wait_ms: u32) -> LeaseReply {
        let body = serde_json::to_vec(&LeaseRequest { wait_ms }).unwrap();
        let answer = self.client.call("POST", "/worker/v1/lease", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub async fn lease(&self) -> Lease {
        match self.ask(5_000).await {
            LeaseReply::Lease(lease) => *lease,
            other => panic!("no lease: {other:?}"),
        }
    }

    pub fn granted(&self, lease: &Lease) -> Client {
        self.client.with("authorization", format!("Bearer {}", lease.capability))
    }

    pub async fn read(&self, lease: &Lease, input: usize) -> Bytes {
        let answer =
            self.granted(lease).get(&format!("/worker/v1/attempts/{}/inputs/{input}", lease.attempt)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body
    }

    pub async fn put(&self, lease: &Lease, output: usize, part: u32, bytes: &[u8]) -> Answer {
        let path = format!("/worker/v1/attempts/{}/outputs/{output}/parts/{part}", lease.attempt);
        self.granted(lease)
            .with(PART_DIGEST_HEADER, hex(&sha256(bytes)))
            .call("PUT", &path, bytes.to_vec())
            .await
    }

    pub async fn end(&self, lease: &Lease, how: &str, body: Vec<u8>) -> Answer {
        self.granted(lease).call("POST", &format!("/worker/v1/attempts/{}/{how}", lease.attempt), body).await
    }

    pub async fn beat(&self, lease: &Lease, progress: TaskProgress) -> Answer {
        let log = vec!["a line\u{1b}[31m".into()];
        let beat = Heartbeat { progress, log, spans: WorkerSpans::default(), counts: Counts::default() };
        self.end(lease, "heartbeat", serde_json::to_vec(&beat).unwrap()).await
    }

    /// Sends made-up outputs and says what completes the task.
    pub async fn work(&self, lease: &Lease) -> Complete {
        let mut outputs = Vec::new();
        for n in 0..lease.outputs.len() {
            let bytes = output_bytes(lease, n);
            let answer = self.put(lease, n, 0, &bytes).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
            outputs.push(output_digest(&[&bytes]));
        }
        Complete { result: result_for(lease, &outputs), outputs, evidence: evidence() }
    }

    pub async fn finish(&self, lease: &Lease) -> Answer {
        let complete = self.work(lease).await;
        self.end(lease, "complete", serde_json::to_vec(&complete).unwrap()).await
    }

    /// Does tasks until there is none.
    pub async fn run(&self) -> u32 {
        let mut done = 0;
        while let LeaseReply::Lease(lease) = self.ask(300).await {
            let answer = self.finish(&lease).await;
            assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
            done += 1;
        }
        done
    }
}

/// What a made-up output holds: the packager writes the same sound whenever it is asked to, everything else is one of a kind.
pub fn output_bytes(lease: &Lease, output: usize) -> Vec<u8> {
    if let TaskSpec::Package(task) = &lease.task
        && let Some(track) = task.tracks.iter().find(|t| t.media_output as usize == output)
        && matches!(track.expect, ExpectTrack::Audio { .. })
    {
        return format!("the packaged sound of {}, again and again", track.media_uri).into_bytes();
    }
    format!("{} output {n} of {}", lease.task.name(), lease.attempt, n = output).into_bytes()
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn output_digest(parts: &[&[u8]]) -> OutputDigest {
    let all: Vec<u8> = parts.iter().flat_map(|p| sha256(p)).collect();
    OutputDigest {
        size: parts.iter().map(|p| p.len() as u64).sum(),
        parts: parts.len() as u32,
        digest: hex(&sha256(&all)),
    }
}

pub fn evidence() -> Evidence {
    Evidence {
        profile: "strict".into(),
        policy_digest: "0".repeat(64),
        observed: Observed {
            seccomp_mode: 2,
            seccomp_filters: 2,
            no_new_privs: true,
            uid: 1,
            gid: 1,
            capabilities: 0,
            threads: 1,
        },
        self_reported: SelfReport::default(),
        usage: None,
    }
}

pub fn media(size: u64) -> MediaInfo {
    let stream = |index, codec: &str, kind| StreamInfo {
        index,
        codec: codec.into(),
        profile: None,
        codec_tag: None,
        time_base: Ratio { num: 1, den: 90_000 },
        start_us: 0,
        duration_ms: Some(DURATION_MS),
        frames: None,
        bit_rate: None,
        language: Some("eng".into()),
        default: true,
        attached_picture: false,
        decodable: true,
        kind,
        tags: Default::default(),
    };
    let video = VideoInfo {
        width: 1280,
        height: 720,
        sample_aspect: Ratio { num: 1, den: 1 },
        rotation: 0,
        mirrored: false,
        pixel_format: None,
        frame_rate: Some(Ratio { num: 30, den: 1 }),
        real_frame_rate: None,
        color_range: None,
        color_space: None,
        color_transfer: None,
        color_primaries: None,
        field_order: None,
        level: None,
    };
    let audio = AudioInfo { sample_rate: 44_100, channels: 6, channel_layout: None, sample_format: None };
    MediaInfo {
        format: "mov,mp4,m4a,3gp,3g2,mj2".into(),
        size,
        duration_ms: Some(DURATION_MS),
        start_us: 0,
        bit_rate: None,
        streams: vec![
            stream(0, "h264", StreamKind::Video(video)),
            stream(1, "aac", StreamKind::Audio(audio)),
        ],
        tags: Default::default(),
    }
}

pub fn result_for(lease: &Lease, outputs: &[OutputDigest]) -> TaskResult {
    match &lease.task {
        TaskSpec::Probe(_) => TaskResult::Probe(ProbeResult { media: media(lease.inputs[0].size) }),
        TaskSpec::Encode(task) => {
            let chunk = task.chunk.map(|chunk| made_chunk(task, &chunk));
            let (frames, duration_ms) = match chunk {
                Some(made) => ((made.end - made.start) as u64 / 3_000, (made.end - made.start) as u64 / 90),
                None => (300, DURATION_MS),
            };
            let rungs = task.video.iter().flat_map(|v| &v.rungs).map(move |r| (r.output, frames));
            let audio = task.audio.iter().map(|a| (a.output, 441_000));
            let stills = task.video.iter().flat_map(|v| {
                v.poster.iter().map(|p| (p.output, 1)).chain(v.sprites.iter().map(|s| (s.output, 2)))
            });
            let tracks = rungs
                .chain(audio)
                .chain(stills)
                .map(|(output, units)| EncodedTrack {
                    output,
                    units,
                    duration_ms,
                    bytes: outputs[output as usize].size,
                    copied: false,
                })
                .collect();
            TaskResult::Encode(EncodeResult {
                tracks,
                frames_decoded: 300,
                frames_dropped: 0,
                decode_errors: 0,
                chunk,
                ..EncodeResult::default()
            })
        }
        TaskSpec::Package(task) => {
            let track = |t: &PackageTrack| PackagedTrack {
                segments: 3,
                duration_ms: t.expect.duration_ms(),
                bytes: outputs[t.media_output as usize].size,
                codecs: if matches!(t.expect, ExpectTrack::Video { .. }) {
                    "avc1.64001f"
                } else {
                    "mp4a.40.2"
                }
                .into(),
                peak_bit_rate: 1,
                average_bit_rate: 1,
            };
            TaskResult::Package(PackageResult {
                tracks: task.tracks.iter().map(track).collect(),
                file: task.file.as_ref().map(|f| mpegflow_protocol::task::PackagedFile {
                    bytes: outputs[f.output as usize].size,
                    duration_ms: DURATION_MS,
                }),
            })
        }
        TaskSpec::Check(task) => {
            let mut tracks: Vec<CheckedTrack> = task
                .expected()
                .map(|(_, expect)| CheckedTrack {
                    packets: if let ExpectTrack::Video { frames, .. } = expect { *frames } else { 300 },
                    frames_decoded: 10,
                    duration_ms: expect.duration_ms(),
                    listed: None,
                })
                .collect();
            for (track, checked) in task.tracks.iter().zip(&mut tracks).filter(|_| task.list) {
                checked.listed = Some(listed(lease, task, track));
            }
            TaskResult::Check(CheckResult { problems: Vec::new(), tracks })
        }
    }
}

/// A chunk of a film of 30 frames a second that lasts [`DURATION_MS`].
fn made_chunk(task: &EncodeTask, chunk: &Chunk) -> MadeChunk {
    let film = DURATION_MS as i64 * 90;
    let start = chunk.from.map_or(0, |cut| cut.time);
    let end = chunk.until_ms.map_or(film, |ms| ms as i64 * 90).min(film);
    let segment = (end - 3_000) / (i64::from(task.segment_ms) * 90);
    let cut = Cut { time: end, last: end - 3_000, last_length: 3_000, due: end, offset: 0, segment };
    MadeChunk { start, end, lead: 6_000, next: (end < film).then_some(cut) }
}

/// What the playlist of a made-up track lists: segments of equal size on the grid.
fn listed(lease: &Lease, task: &CheckTask, track: &CheckTrack) -> ListedTrack {
    let (start, end) = match track.chunk {
        Some(chunk) => (chunk.start as u64 / 90, chunk.end as u64 / 90),
        None => (0, track.expect.duration_ms()),
    };
    let (mut at, mut lasts) = (start, Vec::new());
    while at < end {
        let next = (at / u64::from(task.segment_ms) + 1) * u64::from(task.segment_ms);
        lasts.push(next.min(end) - at);
        at = next;
    }
    let size = lease.inputs[track.media_input as usize].size;
    let (first, count) = (9, lasts.len() as u64);
    let each = (size - first) / count;
    let bytes = |n: u64| if n + 1 == count { size - first - each * n } else { each };
    let segments = lasts.iter().zip(0..).map(|(ms, n)| ListedSegment { micros: ms * 1_000, bytes: bytes(n) });
    let codecs = if matches!(track.expect, ExpectTrack::Video { .. }) { "avc1.64001f" } else { "mp4a.40.2" };
    ListedTrack { header: 7, first, codecs: codecs.into(), segments: segments.collect() }
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 60 s: {what}");
}

/// Files under a folder.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}
