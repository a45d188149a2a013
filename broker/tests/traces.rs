//! Traces of jobs, as a collector gets them: whole, bounded, without secrets, and never in anybody's way.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/collector.rs"]
mod collector;
mod common;
#[path = "support/log.rs"]
mod log;

use collector::{Collector, Mood, Seen};
use common::*;
use log::Log;
use mpegflow_broker::model::TaskKind;
use mpegflow_broker::otlp::{OtlpConfig, Sender, queue};
use mpegflow_broker::trace::{self, Incoming, Name, Share, Span, Spans as _};
use mpegflow_protocol::api::{Job, JobState, Upload};
use mpegflow_protocol::telemetry::{Counts, SpanName, WorkerSpan, WorkerSpans};
use mpegflow_protocol::worker::{Heartbeat, Lease, TaskProgress};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn config(endpoint: &str) -> OtlpConfig {
    OtlpConfig {
        endpoint: endpoint.parse().unwrap(),
        headers_file: None,
        ca_file: None,
        share: Share::ALL,
        incoming: Incoming::Ignored,
    }
}

async fn traced(collector: &Collector) -> World {
    let otlp = config(&collector.endpoint());
    world_with(|c| c.otlp = Some(otlp)).await
}

fn span(name: SpanName, start_us: u64, duration_us: u64) -> WorkerSpan {
    WorkerSpan { name, start_us, duration_us, bytes: None, parts: None }
}

async fn tell(worker: &Worker, lease: &Lease, spans: WorkerSpans, counts: Counts) -> Answer {
    let beat = Heartbeat { progress: TaskProgress::default(), log: vec![], spans, counts };
    worker.end(lease, "heartbeat", serde_json::to_vec(&beat).unwrap()).await
}

fn named<'a>(spans: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    spans.iter().filter(|s| s.name == name).collect()
}

fn one<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

fn inside(inner: &Seen, outer: &Seen) -> bool {
    outer.start <= inner.start && inner.start <= inner.end && inner.end <= outer.end
}

/// Waiting for a collector is no business of the runtime's threads.
async fn of_job(collector: &Collector, job: &Job) -> Vec<Seen> {
    let id = job.id.to_string();
    tokio::task::block_in_place(|| collector.of_job(&id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_one_trace_with_every_span_in_its_place_and_no_secret_in_it() {
    let collector = Collector::start();
    let mut world = traced(&collector).await;
    let tenant = world.tenant("acme-secret-name").await;
    let body = r#"{"size":9,"name":"secret-film.mp4"}"#;
    let made: Upload = tenant.call("POST", "/v1/uploads", body).await.json();
    tenant.call("PUT", &format!("/v1/uploads/{}?offset=0", made.id), "the-bytes").await;
    let spec = format!(
        r#"{{"version":1,"input":{{"upload":"{}"}},"preset":"web","output":{{"path":"secret-folder/{{name}}"}}}}"#,
        made.id
    );
    let answer = tenant.with("idempotency-key", "secret-key").call("POST", "/v1/jobs", spec).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let job: Job = answer.json();
    let worker = world.worker().await;
    let mut capabilities = Vec::new();
    for _ in 0..4 {
        let lease = worker.lease().await;
        assert!(lease.traced);
        let spans = [
            span(SpanName::Launch, 0, 10),
            span(SpanName::Codec, 10, 500),
            span(SpanName::Open, 20, 5),
            WorkerSpan { bytes: Some(7), parts: Some(1), ..span(SpanName::Upload, 30, 40) },
        ];
        let told = tell(&worker, &lease, WorkerSpans::new(spans), Counts::default()).await;
        assert_eq!(told.status, 200, "{}", told.text());
        assert_eq!(worker.finish(&lease).await.status, 204);
        capabilities.push(lease.capability);
    }
    assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
    let spans = of_job(&collector, &job).await;

    // One trace, with one beginning.
    assert_eq!(spans.iter().map(|s| &s.id).collect::<BTreeSet<_>>().len(), spans.len(), "no id twice");
    let roots: Vec<_> = spans.iter().filter(|s| s.parent.is_empty()).collect();
    assert_eq!(roots.len(), 1);
    let root = roots[0];
    assert_eq!((root.name.as_str(), root.kind), ("POST /v1/jobs", 2));
    assert_eq!(root.attributes["http.request.method"], "POST");
    assert_eq!(root.attributes["http.route"], "/v1/jobs");
    assert_eq!(root.attributes["http.response.status_code"], "201");
    let whole = one(&spans, "job");
    assert_eq!((&whole.parent, whole.start), (&root.id, root.start));
    assert_eq!(whole.attributes["mpegflow.job.state"], "succeeded");
    for said in [root, whole] {
        assert_eq!(said.attributes["mpegflow.job.id"], job.id.to_string());
        assert!(said.attributes["mpegflow.tenant.id"].starts_with("tnt_"), "{said:?}");
    }

    // Four attempts, each with the same parts, and each part inside it.
    let mut attempts = BTreeSet::new();
    for kind in TaskKind::ALL.map(TaskKind::as_str) {
        let attempt = one(&spans, &format!("process {kind}"));
        assert_eq!((&attempt.parent, attempt.kind), (&whole.id, 5));
        let said = &attempt.attributes;
        assert_eq!(said["mpegflow.attempt.state"], "succeeded");
        assert_eq!(
            (said["messaging.system"].as_str(), said["messaging.operation.type"].as_str()),
            ("mpegflow", "process")
        );
        assert_eq!(
            (said["messaging.destination.name"].as_str(), &said["messaging.message.id"]),
            ("default", &said["mpegflow.task.id"])
        );
        assert!(attempts.insert(said["mpegflow.attempt.id"].clone()));
        let parts: Vec<_> = spans.iter().filter(|s| s.parent == attempt.id).collect();
        let names: BTreeSet<_> = parts.iter().map(|s| s.name.as_str()).collect();
        let expected = ["queue", "lease", "settle", "commit", "launch", "codec", "upload"];
        assert_eq!(names, BTreeSet::from(expected), "{kind}");
        for part in &parts {
            for key in ["tenant.id", "pool", "job.id", "task.id", "task.kind", "attempt.id", "attempt.epoch"]
            {
                let key = format!("mpegflow.{key}");
                assert_eq!(part.attributes[&key], said[&key], "{}: {key}", part.name);
            }
            match part.name.as_str() {
                "queue" => assert_eq!(part.end, attempt.start),
                _ => assert!(inside(part, attempt), "{part:#?} {attempt:#?}"),
            }
        }
        let codec = parts.iter().find(|s| s.name == "codec").unwrap();
        let below: Vec<_> = spans.iter().filter(|s| s.parent == codec.id).collect();
        assert_eq!(below.len(), 1);
        assert!(below[0].name == "open" && inside(below[0], codec), "{below:?}");
        let upload = parts.iter().find(|s| s.name == "upload").unwrap();
        assert_eq!(
            (&*upload.attributes["mpegflow.bytes"], &*upload.attributes["mpegflow.parts"]),
            ("7", "1")
        );
    }
    assert_eq!(spans.len(), 2 + 4 * (1 + 8), "and nothing else: {spans:#?}");

    // Nothing that is secret, or that a tenant wrote.
    world.broker.take().unwrap().shutdown().await;
    let raw = String::from_utf8_lossy(&collector.state().raw).into_owned();
    let key = &tenant.headers[0].1["Bearer ".len()..];
    for secret in ["secret", "the-bytes", key, "mfj_", "?offset", "http://", &*made.id.to_string()] {
        assert!(!raw.contains(secret), "{secret}");
    }
    assert!(capabilities.iter().all(|capability| !raw.contains(capability.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_context_is_ignored_linked_or_its_parent_as_configured_and_garbage_is_neither() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let good = format!("00-{trace}-{span}-01");
    for incoming in [Incoming::Ignored, Incoming::Linked, Incoming::Parent] {
        let collector = Collector::start();
        let otlp = OtlpConfig { incoming, ..config(&collector.endpoint()) };
        let world = world_with(|c| c.otlp = Some(otlp)).await;
        let tenant = world.tenant("acme").await;
        let uploaded = upload(&tenant, b"x").await;
        let submit = async |headers: &[&str]| -> Job {
            let mut client = tenant.with("tracestate", "secret=state").with("baggage", "secret=baggage");
            client.headers.extend(headers.iter().map(|h| ("traceparent".to_owned(), (*h).to_owned())));
            client.call("POST", "/v1/jobs", spec(&uploaded)).await.json()
        };
        let job = submit(&[&good]).await;
        tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
        let spans = of_job(&collector, &job).await;
        let root = one(&spans, "POST /v1/jobs");
        let link = (trace.to_owned(), span.to_owned());
        match incoming {
            Incoming::Ignored => {
                assert_ne!(root.trace, trace);
                assert!(root.parent.is_empty() && root.links.is_empty());
            }
            Incoming::Linked => {
                assert_ne!(root.trace, trace);
                assert_eq!((root.parent.as_str(), &root.links), ("", &vec![link]));
            }
            Incoming::Parent => {
                assert_eq!((root.trace.as_str(), root.parent.as_str()), (trace, span));
                assert!(root.links.is_empty() && root.flags & 0x200 != 0, "its parent is remote");
            }
        }
        assert_eq!(one(&spans, "job").attributes["mpegflow.job.state"], "canceled");

        // What is no context, or two of them, is as if there was none.
        let upper = good.to_uppercase();
        for bad in [vec!["garbage"], vec![upper.as_str()], vec![&good, &good], vec!["00-0-0-01"]] {
            let job = submit(&bad).await;
            tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
            let root = one(&of_job(&collector, &job).await, "POST /v1/jobs").clone();
            assert!(
                root.trace != trace && root.parent.is_empty() && root.links.is_empty(),
                "{bad:?}: {root:?}"
            );
        }
        assert!(!String::from_utf8_lossy(&collector.state().raw).contains("secret"));
        // Nothing is told of a stranger, and a request that makes no job names none.
        let stranger = world.anonymous().with("traceparent", good.as_str());
        assert_eq!(stranger.call("POST", "/v1/jobs", spec(&uploaded)).await.status, 401);
        assert_eq!(tenant.call("POST", "/v1/jobs", "{}").await.status, 422);
        let refused = |status: &str| {
            let spans = collector.spans().into_iter();
            spans
                .filter(|s| s.attributes.get("http.response.status_code").is_some_and(|s| s == status))
                .collect::<Vec<_>>()
        };
        eventually("what was refused is told", async || !refused("422").is_empty()).await;
        assert!(refused("401").is_empty());
        assert!(!refused("422")[0].attributes.contains_key("mpegflow.job.id"));
        // A caller may ask for less than is configured.
        let not = submit(&[&format!("00-{trace}-{span}-00")]).await;
        let worker = world.worker().await;
        assert_eq!(worker.lease().await.traced, incoming != Incoming::Parent, "{}", not.id);
    }
}

/// The attacks of a worker that was taken over: it may spoil what its own attempt's spans say, within that attempt, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_worker_tells_of_its_own_attempt_within_its_time_and_each_name_once() {
    let collector = Collector::start();
    let world = world_with(|c| {
        c.otlp = Some(config(&collector.endpoint()));
        c.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let tenant = world.tenant("acme").await;
    let job = submit(&tenant, b"one").await;
    let other = submit(&tenant, b"two").await;
    let worker = world.worker().await;
    let (lease, foreign) = (worker.lease().await, worker.lease().await);

    // What the schema has no word for is refused as a whole.
    let beat = |spans: &str| {
        let progress = serde_json::to_string(&TaskProgress::default()).unwrap();
        format!(r#"{{"progress":{progress},"log":[],"spans":{spans}}}"#)
    };
    let long = format!(r#"[{{"name":"{}","start_us":0,"duration_us":0}}]"#, "x".repeat(1 << 20));
    let flood = format!("[{}]", vec![r#"{"name":"lock","start_us":0,"duration_us":0}"#; 10_000].join(","));
    for bad in [
        r#"[{"name":"evil","start_us":0,"duration_us":0}]"#,
        r#"[{"name":"lock","start_us":-5,"duration_us":0}]"#,
        r#"[{"name":"lock","start_us":NaN,"duration_us":0}]"#,
        r#"[{"name":"lock","start_us":0.5,"duration_us":1e300}]"#,
        r#"[{"name":"lock","start_us":0,"duration_us":0,"trace_id":"0af7651916cd43dd8448eb211c80319c"}]"#,
        r#"[{"name":"lock","start_us":0,"duration_us":0,"span_id":"b7ad6b7169203331"}]"#,
        r#"[{"name":"lock","start_us":0,"duration_us":0,"attributes":{"mpegflow.tenant.id":"x"}}]"#,
        r#"[{"name":"lock","start_us":0,"duration_us":0,"tenant":"tnt_0192f0c1a2b37c4d8e9f001122334455"}]"#,
        &long,
        &flood,
    ] {
        let answer = worker.end(&lease, "heartbeat", beat(bad).into_bytes()).await;
        assert!(answer.status.is_client_error(), "{}: {}", answer.status, &bad[..bad.len().min(90)]);
        assert!(answer.body.len() < 4_096, "what was sent is not sent back");
    }
    // The capability of one attempt tells nothing of another.
    let path = format!("/worker/v1/attempts/{}/heartbeat", foreign.attempt);
    let good = r#"[{"name":"check","start_us":0,"duration_us":0}]"#;
    assert_eq!(worker.granted(&lease).call("POST", &path, beat(good)).await.status, 403);

    // Times of another age, and every name again and again.
    let all = |start, duration| {
        WorkerSpans::new(
            SpanName::ALL.map(|name| WorkerSpan { bytes: Some(u64::MAX), ..span(name, start, duration) }),
        )
    };
    let hostile = Counts { frames: u64::MAX, codec_starts: u64::MAX, ..Counts::default() };
    for spans in [all(u64::MAX, u64::MAX), all(0, u64::MAX), all(0, 0)] {
        assert_eq!(tell(&worker, &lease, spans, hostile).await.status, 200);
    }
    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    // After its end nothing is heard of it any more.
    assert_eq!(tell(&worker, &lease, all(0, 0), hostile).await.status, 409);

    tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
    let spans = of_job(&collector, &job).await;
    let attempt = one(&spans, "process probe");
    assert_eq!(attempt.attributes["mpegflow.attempt.state"], "released");
    let told: Vec<_> =
        spans.iter().filter(|s| SpanName::ALL.iter().any(|name| name.as_str() == s.name)).collect();
    assert_eq!(told.len(), SpanName::ALL.len(), "each name once: {told:#?}");
    for span in told {
        assert!(inside(span, attempt), "{span:#?} in {attempt:#?}");
        for key in ["mpegflow.tenant.id", "mpegflow.attempt.id", "mpegflow.job.id", "mpegflow.pool"] {
            assert_eq!(span.attributes[key], attempt.attributes[key]);
        }
        assert_eq!(span.attributes["mpegflow.bytes"], i64::MAX.to_string());
    }
    // Nothing of it is in the other job's trace.
    assert!(
        collector
            .spans()
            .iter()
            .all(|s| s.trace == attempt.trace || !SpanName::ALL.iter().any(|name| name.as_str() == s.name))
    );
    assert_eq!(show(&tenant, &other).await.state, JobState::Running);

    // Counts are the pool's, and no heartbeat adds more than one can be true to.
    let metrics = Client::new(format!("http://{}", world.broker().metrics_addr().unwrap()), None, None);
    let text = metrics.get("/metrics").await.text();
    for line in [
        r#"mpegflow_worker_frames_total{pool="default"} 3000000000"#,
        r#"mpegflow_worker_codec_starts_total{pool="default"} 3"#,
        r#"mpegflow_otlp_spans_total{outcome="lost"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_dead_slow_broken_or_silent_stands_in_no_jobs_way() {
    let dead = mpegflow_test_ports::address();
    let collector = Collector::start();
    for (mood, endpoint) in [
        (None, format!("http://{dead}")),
        (Some(Mood::Answers(500)), collector.endpoint()),
        (Some(Mood::Answers(503)), collector.endpoint()),
        (Some(Mood::Answers(302)), collector.endpoint()),
        (Some(Mood::Silent), collector.endpoint()),
    ] {
        if let Some(mood) = mood {
            collector.set(mood);
        }
        let mut world = world_with(|c| c.otlp = Some(config(&endpoint))).await;
        let tenant = world.tenant("acme").await;
        let job = submit(&tenant, b"x").await;
        assert_eq!(world.worker().await.run().await, 4, "{mood:?}");
        assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
        // It ends, too.
        let ends = world.broker.take().unwrap().shutdown();
        tokio::time::timeout(Duration::from_secs(60), ends).await.unwrap();
    }
    assert_eq!(collector.spans().len(), 0);
}

fn any_span() -> Span {
    let (trace, id) = trace::fresh().unwrap();
    Span::new(Name::Job, trace, id, None, 0, 1)
}

fn sent(queue: &queue::Queue) -> [u64; 3] {
    queue.counts().all().map(|(_, n)| n)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_nobody_takes_are_bounded_and_the_end_is_too() {
    const MANY: u64 = 20_000;
    let collector = Collector::start();
    collector.set(Mood::Silent);
    let (queue, waiting) = queue::new();
    let stop = CancellationToken::new();
    let sender = Sender::new(&config(&collector.endpoint())).unwrap();
    let running = tokio::spawn(queue::run(queue.clone(), waiting, sender, "i".into(), stop.clone()));
    for _ in 0..MANY {
        queue.record(any_span());
    }
    let room = queue::ROOM as u64;
    let [sent_now, dropped, _] = sent(&queue);
    // What is on its way beside what waits is a batch.
    assert!(sent_now == 0 && dropped >= MANY - 2 * room, "{dropped}");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    let [sent_now, dropped, lost] = sent(&queue);
    assert_eq!(sent_now, 0);
    assert_eq!(dropped + lost, MANY, "each is accounted for");
}

#[tokio::test]
async fn a_collector_that_fails_is_told_of_once_and_gets_everything_when_it_is_back() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let collector = Collector::start();
    collector.set(Mood::Answers(503));
    let dir = tempfile::tempdir().unwrap();
    let headers_file = dir.path().join("headers");
    std::fs::write(&headers_file, "Authorization: Bearer swordfish\n").unwrap();
    let otlp = OtlpConfig { headers_file: Some(headers_file.clone()), ..config(&collector.endpoint()) };
    let (queue, waiting) = queue::new();
    let stop = CancellationToken::new();
    let sender = Sender::new(&otlp).unwrap();
    let running = tokio::spawn(queue::run(queue.clone(), waiting, sender, "i".into(), stop.clone()));
    for _ in 0..10 {
        queue.record(any_span());
    }
    eventually("it was asked again", async || collector.state().requests.len() >= 2).await;
    // Renewed between two requests, the next one has the new one.
    std::fs::write(&headers_file, "Authorization: Bearer sailfish\n").unwrap();
    collector.set(Mood::Takes);
    eventually("it has them", async || collector.spans().len() == 10).await;
    eventually("they are counted", async || sent(&queue) == [10, 0, 0]).await;
    queue.record(any_span());
    stop.cancel();
    running.await.unwrap();
    assert_eq!(sent(&queue), [11, 0, 0], "what is left is sent at the end");
    let requests = collector.state().requests.clone();
    assert_eq!(requests[0]["authorization"], "Bearer swordfish");
    assert_eq!(requests.last().unwrap()["authorization"], "Bearer sailfish");
    assert_eq!(requests[0]["(target)"], "POST /v1/traces");
    assert_eq!(requests[0]["content-type"], "application/x-protobuf");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("takes no spans").count(), 1, "{text}");
    assert_eq!(text.matches("takes spans again").count(), 1, "{text}");
    assert!(text.contains("503") && !text.contains("fish"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_trusted_by_its_authority_alone() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let behind = collector.address;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    for (ca_file, expected) in [(Some(ca_file), [1, 0, 0]), (None, [0, 0, 1])] {
        let sender = Sender::new(&OtlpConfig { ca_file, ..config(&endpoint) }).unwrap();
        let (queue, waiting) = queue::new();
        queue.record(any_span());
        let stop = CancellationToken::new();
        stop.cancel();
        queue::run(queue.clone(), waiting, sender, "i".into(), stop).await;
        assert_eq!(sent(&queue), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_traced_and_nothing_connects_where_no_collector_is_configured_or_no_job_is_to_be() {
    let collector = Collector::start();
    let none = OtlpConfig { share: Share::of_million(0).unwrap(), ..config(&collector.endpoint()) };
    for otlp in [None, Some(none)] {
        let mut world = world_with(|c| c.otlp = otlp.clone()).await;
        let tenant = world.tenant("acme").await;
        let tenant = tenant.with("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let job = submit(&tenant, b"x").await;
        let worker = world.worker().await;
        let lease = worker.lease().await;
        assert!(!lease.traced);
        // A worker that tells all the same is heard as a worker, and that is all.
        let spans = WorkerSpans::new([span(SpanName::Lock, 0, 1)]);
        assert_eq!(tell(&worker, &lease, spans, Counts::default()).await.status, 200);
        assert_eq!(worker.finish(&lease).await.status, 204);
        worker.run().await;
        assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
        let began = Instant::now();
        world.broker.take().unwrap().shutdown().await;
        assert!(began.elapsed() < Duration::from_secs(30));
        let state = collector.state();
        assert_eq!((state.connections, state.requests.len()), (0, 0));
    }
}
