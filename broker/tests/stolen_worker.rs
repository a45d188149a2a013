//! A taken-over supervisor: it has the key, the certificate and a live lease, and speaks TLS by hand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;

use common::*;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::media::Ratio;
use mpegflow_protocol::task::TaskResult;
use mpegflow_protocol::worker::{Lease, LeaseReply, PART_DIGEST_HEADER, TaskProgress};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Tls = TlsStream<TcpStream>;

async fn dial(world: &World, identity: Option<(&str, &[u8])>) -> std::io::Result<Tls> {
    let join = world.join_file().await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(Some(&join.ca), identity)));
    let socket = TcpStream::connect(world.broker().worker_addr()).await?;
    connector.connect(ServerName::try_from("mpegflow-broker").unwrap(), socket).await
}

/// What comes back until the peer closes, or is silent for a while.
async fn hear(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(700), stream.read(&mut some)).await {
        if n == 0 {
            break;
        }
        all.extend_from_slice(&some[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn at_encode(world: &World, tenant: &Client) -> (Worker, Lease) {
    let worker = world.worker().await;
    submit(tenant, b"x").await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let lease = worker.lease().await;
    (worker, lease)
}

fn part_head(lease: &Lease, length: &str, bytes: &[u8]) -> String {
    format!(
        "PUT /worker/v1/attempts/{}/outputs/0/parts/0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{PART_DIGEST_HEADER}: {}\r\n{length}\r\n",
        lease.attempt,
        lease.capability,
        hex(&sha256(bytes))
    )
}

fn kept(world: &World, lease: &Lease) -> Vec<String> {
    let attempt = lease.attempt.to_string();
    files(&world.dir.path().join("data/objects")).into_iter().filter(|f| f.contains(&attempt)).collect()
}

#[tokio::test]
async fn parallel_polls_of_one_identity_get_no_more_than_its_share() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    for _ in 0..20 {
        assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.status, 201);
    }
    let worker = world.worker().await;
    let replies = futures_util::future::join_all((0..40).map(|_| worker.ask(0))).await;
    let leases = replies.iter().filter(|r| matches!(r, LeaseReply::Lease(_))).count();
    assert_eq!(leases, 8, "a stolen key must not empty its tenant's queue");
}

#[tokio::test]
async fn a_request_with_two_framings_smuggles_nothing() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let hidden = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = format!("content-length: {}\r\n", hidden.len() + 5);
    let chunked = "transfer-encoding: chunked\r\n";
    let framings = [
        format!("{length}{chunked}"),
        format!("{chunked}{length}"),
        format!("content-length: 5\r\n{length}"),
        format!("{length}transfer-encoding: identity\r\n"),
        format!("{length}transfer-encoding:\r\n chunked\r\n"),
        format!("{length}transfer-encoding : chunked\r\n"),
        "content-length: +5\r\n".into(),
        "content-length: 5, 5, 6\r\n".into(),
        "content-length: 0x5\r\n".into(),
        "transfer-encoding: chunked, identity\r\n".into(),
    ];
    let digest = b"0\r\n\r\n";
    for framing in &framings {
        let request = format!("{}0\r\n\r\n{hidden}", part_head(&lease, framing, digest));
        let mut stream = dial(&world, Some((&worker.certificate, &worker.key))).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = hear(&mut stream).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing:?}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{framing:?}: {answer}");

        let request = format!("POST /v1/uploads HTTP/1.1\r\nhost: x\r\n{framing}\r\n0\r\n\r\n{hidden}");
        let mut stream = TcpStream::connect(world.broker().public_addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = hear(&mut stream).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing:?}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{framing:?}: {answer}");
    }
    assert!(kept(&world, &lease).iter().all(|f| std::fs::metadata(f).unwrap().len() == 0));
    assert_eq!(worker.finish(&lease).await.status, 204, "and the lease is as it was");
}

#[tokio::test]
async fn a_part_that_ends_early_or_comes_without_a_length_leaves_nothing() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let mut stream = dial(&world, Some((&worker.certificate, &worker.key))).await.unwrap();
    let head = part_head(&lease, "content-length: 100\r\n", b"0123456789");
    stream.write_all(format!("{head}0123456789").as_bytes()).await.unwrap();
    drop(stream);
    let mut stream = dial(&world, Some((&worker.certificate, &worker.key))).await.unwrap();
    let head = part_head(&lease, "transfer-encoding: chunked\r\n", b"abc");
    stream.write_all(format!("{head}3\r\nabc\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let answer = hear(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 411"), "{answer}");
    for part in ["4294967295", "4294967296", "-1", "10000", "00000000000000000000000000000001x"] {
        let path = format!("/worker/v1/attempts/{}/outputs/0/parts/{part}", lease.attempt);
        let granted = worker.granted(&lease).with(PART_DIGEST_HEADER, hex(&sha256(b"x")));
        let status = granted.call("PUT", &path, "x").await.status;
        assert!(status == 404 || status == 409, "{part}: {status}");
    }
    eventually("the cut part is gone", async || {
        kept(&world, &lease).iter().all(|f| std::fs::metadata(f).unwrap().len() == 0)
    })
    .await;
    assert_eq!(worker.finish(&lease).await.status, 204);
}

#[tokio::test]
async fn a_part_that_is_being_sent_when_its_attempt_ends_leaves_no_file() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let (worker, lease) = at_encode(&world, &tenant).await;
    let bytes = vec![7_u8; 1 << 20];
    let head = part_head(&lease, &format!("content-length: {}\r\n", bytes.len()), &bytes);
    let mut stream = dial(&world, Some((&worker.certificate, &worker.key))).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..1 << 19]).await.unwrap();
    stream.flush().await.unwrap();
    eventually("it is being written", async || !kept(&world, &lease).is_empty()).await;
    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    world.broker().engine().sweep().await.unwrap();
    // The folder is swept; what comes now must not make it again.
    let _ = stream.write_all(&bytes[1 << 19..]).await;
    let answer = hear(&mut stream).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    world.broker().engine().sweep().await.unwrap();
    assert_eq!(kept(&world, &lease), Vec::<String>::new());
    // A whole part after the sweep: refused, and no folder either.
    assert_eq!(worker.put(&lease, 0, 0, b"late").await.status, 409);
    assert_eq!(kept(&world, &lease), Vec::<String>::new());
    assert_eq!(world.broker().engine().live_leases(), 0, "nothing of it is remembered");
}

#[tokio::test]
async fn after_the_lease_has_run_out_no_call_changes_anything() {
    let world = world_with(|c| c.lease = Duration::from_millis(600)).await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let worker = world.worker().await;
    let old = worker.lease().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for how in ["complete", "fail", "release", "heartbeat"] {
        let body = match how {
            "complete" => serde_json::to_vec(&mpegflow_protocol::worker::Complete {
                result: result_for(&old, &[]),
                outputs: vec![],
                evidence: evidence(),
            })
            .unwrap(),
            "fail" => br#"{"failure":{"code":"lock_violation","message":"x"},"evidence":null}"#.to_vec(),
            "heartbeat" => serde_json::to_vec(&mpegflow_protocol::worker::Heartbeat {
                progress: TaskProgress::default(),
                log: vec![],
                spans: mpegflow_protocol::telemetry::WorkerSpans::default(),
                counts: mpegflow_protocol::telemetry::Counts::default(),
            })
            .unwrap(),
            _ => vec![],
        };
        let answer = worker.end(&old, how, body).await;
        assert_eq!(answer.status, 409, "{how}: {}", answer.text());
    }
    let path = format!("/worker/v1/attempts/{}/inputs/0", old.attempt);
    assert_eq!(worker.granted(&old).get(&path).await.status, 409);
    let shown = show(&tenant, &job).await;
    assert!(matches!(shown.state, JobState::Running | JobState::Queued), "{:?}", shown.state);
    assert!(shown.failure.is_none());
}

#[tokio::test]
async fn a_forged_description_is_refused_or_bounded_and_never_breaks_the_broker() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    type Forge = fn(&mut mpegflow_protocol::media::MediaInfo);
    let video = |media: &mut mpegflow_protocol::media::MediaInfo,
                 change: fn(&mut mpegflow_protocol::media::VideoInfo)| {
        if let mpegflow_protocol::media::StreamKind::Video(v) = &mut media.streams[0].kind {
            change(v);
        }
    };
    let _ = video;
    let forgeries: [Forge; 9] = [
        |m| m.duration_ms = Some(u64::MAX),
        |m| m.duration_ms = Some(0),
        |m| m.start_us = i64::MIN,
        |m| m.size = u64::MAX,
        |m| m.streams[0].time_base = Ratio { num: 0, den: 0 },
        |m| m.streams[0].index = u32::MAX,
        |m| m.streams = vec![m.streams[1].clone(); 2_000],
        |m| m.format = "\u{1b}]0;owned\u{7}".repeat(1_000),
        |m| {
            m.streams[0].tags =
                (0..2_000).map(|n| (format!("\u{202e}{n}"), "\u{1b}[2J".repeat(100))).collect();
        },
    ];
    for (n, forge) in forgeries.iter().enumerate() {
        let job = submit(&tenant, b"x").await;
        let lease = worker.lease().await;
        let mut complete = worker.work(&lease).await;
        let TaskResult::Probe(probe) = &mut complete.result else { panic!() };
        forge(&mut probe.media);
        let answer = worker.end(&lease, "complete", serde_json::to_vec(&complete).unwrap()).await;
        assert!(
            [204, 413, 422].contains(&answer.status.as_u16()),
            "{n}: {} {}",
            answer.status,
            answer.text()
        );
        let shown = tenant.get(&format!("/v1/jobs/{}", job.id)).await;
        assert_eq!(shown.status, 200, "{n}");
        assert!(shown.body.len() < 200_000, "{n}: {} bytes", shown.body.len());
        let text = shown.text();
        assert!(!text.contains("\\u001b") && !text.contains('\u{202e}'), "{n}: {text}");
        if answer.status == 413 {
            assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
        }
        tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
    }
}

#[tokio::test]
async fn only_a_certificate_that_names_one_worker_and_has_not_expired_is_an_identity() {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
    let world = world().await;
    let worker = world.worker().await;
    let join = world.join_file().await;
    let ca = world.dir.path().join("data/ca");
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(ca.join("ca.key")).unwrap()).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&std::fs::read_to_string(ca.join("ca.pem")).unwrap(), ca_key).unwrap();
    let spiffe = format!("spiffe://mpegflow/pool/{}/worker/{}", join.pool, worker.id);
    let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let cases: Vec<(&str, Vec<SanType>, ExtendedKeyUsagePurpose, std::time::SystemTime, bool)> = vec![
        ("good", vec![uri(&spiffe)], ExtendedKeyUsagePurpose::ClientAuth, now + hour, true),
        ("no name", vec![], ExtendedKeyUsagePurpose::ClientAuth, now + hour, false),
        (
            "two names",
            vec![uri(&spiffe), uri("spiffe://x/y")],
            ExtendedKeyUsagePurpose::ClientAuth,
            now + hour,
            false,
        ),
        (
            "another trust domain",
            vec![uri(&spiffe.replace("mpegflow", "evil"))],
            ExtendedKeyUsagePurpose::ClientAuth,
            now + hour,
            false,
        ),
        (
            "a worker that is not known",
            vec![uri(&spiffe.replace(&worker.id.to_string(), &format!("wrk_{}", "0".repeat(32))))],
            ExtendedKeyUsagePurpose::ClientAuth,
            now + hour,
            false,
        ),
        ("a server's", vec![uri(&spiffe)], ExtendedKeyUsagePurpose::ServerAuth, now + hour, false),
        (
            "expired",
            vec![uri(&spiffe)],
            ExtendedKeyUsagePurpose::ClientAuth,
            now - Duration::from_secs(2),
            false,
        ),
    ];
    for (what, names, usage, until, good) in cases {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.not_before = (now - hour).into();
        params.not_after = until.into();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let key = key.serialize_der();
        let answer = match dial(&world, Some((&certificate, &key))).await {
            Ok(mut stream) => {
                let body = r#"{"wait_ms":0}"#;
                let request = format!(
                    "POST /worker/v1/lease HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(request.as_bytes()).await;
                hear(&mut stream).await
            }
            Err(_) => String::new(),
        };
        assert_eq!(answer.starts_with("HTTP/1.1 200"), good, "{what}: {answer}");
        assert!(good || answer.is_empty() || answer.starts_with("HTTP/1.1 401"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn neither_port_answers_for_the_other() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    let job = submit(&tenant, b"x").await;
    let as_tenant = worker.client.with("authorization", tenant.headers[0].1.clone());
    for path in
        ["/v1/jobs".to_owned(), format!("/v1/jobs/{}", job.id), "/openapi.json".into(), "/metrics".into()]
    {
        assert_eq!(as_tenant.get(&path).await.status, 404, "{path}");
    }
    for path in ["/worker/v1/lease", "/worker/v1/enroll", "/worker/v1/renew"] {
        assert_eq!(tenant.call("POST", path, r#"{"wait_ms":0}"#).await.status, 404, "{path}");
    }
    assert_eq!(tenant.get("/metrics").await.status, 404);
}
