//! A hostile tenant: it has a key, and wants what others have, or their broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;

use common::*;
use http_body_util::BodyExt as _;
use mpegflow_protocol::api::{Job, JobPage, Upload};
use mpegflow_protocol::worker::LeaseReply;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_tenant_cannot_take_every_connection_with_event_streams() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let mut open = Vec::new();
    let mut refused = None;
    for _ in 0..80 {
        let response = a.open("GET", "/v1/events", "").await;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let refused = refused.expect("there is a bound");
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(b.open("GET", "/v1/events", "").await.status(), 200, "it is each tenant's own");
    assert_eq!(a.get("/v1/jobs").await.status, 200);
    drop(open);
    eventually("they are given back", async || a.open("GET", "/v1/events", "").await.status() == 200).await;
}

#[tokio::test]
async fn tricks_in_the_path_of_an_object_find_nothing() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let job = submit(&a, b"x").await;
    assert_eq!(world.worker().await.run().await, 4);
    let long = "a".repeat(30_000);
    let names = [
        "..",
        "%2e%2e",
        "%252e%252e",
        "..%2f..%2fbroker.db",
        "%00",
        "master.m3u8%00",
        "master.m3u8%2500",
        "%ff%fe",
        "./master.m3u8",
        "master.m3u8/",
        "%2fetc%2fpasswd",
        "0",
        "out-0",
        "master.m3u8;x",
        "%0d%0aset-cookie:x",
        &long,
    ];
    let nothing = a.get(&format!("/v1/objects/{}/none", job.id)).await;
    for tenant in [&a, &b] {
        for name in names {
            for job in [job.id.to_string(), "..".into(), "%2e%2e".into(), job.id.to_string().to_uppercase()] {
                let answer = tenant.get(&format!("/v1/objects/{job}/{name}")).await;
                let status = answer.status.as_u16();
                assert!([404, 414, 400].contains(&status), "{job}/{name:.40}: {status} {}", answer.text());
                assert!(!answer.headers.contains_key("set-cookie"));
                if status == 404 {
                    assert_eq!(answer.body, nothing.body, "{job}/{name:.40}");
                }
            }
        }
    }
}

#[tokio::test]
async fn bombs_are_refused_and_the_broker_goes_on() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let mut headers = tenant.clone();
    for n in 0..100 {
        headers = headers.with(&format!("x-{n}"), "y");
    }
    assert_eq!(headers.get("/v1/jobs").await.status, 431);
    assert_eq!(tenant.with("x-long", "y".repeat(200_000)).get("/v1/jobs").await.status, 431);
    let deep = "[".repeat(60_000);
    assert_eq!(tenant.call("POST", "/v1/jobs", deep).await.problem(), "invalid_field");
    let deep = format!("{}1{}", r#"{"labels":"#.repeat(5_000), "}".repeat(5_000));
    assert_eq!(tenant.call("POST", "/v1/jobs", deep).await.problem(), "invalid_field");
    for key in ["x".repeat(129), "\u{1b}[31m".into(), String::new()] {
        let Ok(_) = hyper::header::HeaderValue::try_from(&key) else { continue };
        let answer = tenant.with("idempotency-key", key).call("POST", "/v1/uploads", r#"{"size":1}"#).await;
        assert_eq!(answer.problem(), "invalid_field");
    }
    for name in ["\\u001b[31m", "a\\nb", "\\u202egpj.exe", ""] {
        let body = format!(r#"{{"size":1,"name":"{name}"}}"#);
        assert_eq!(tenant.call("POST", "/v1/uploads", body).await.problem(), "invalid_field", "{name}");
    }
    let input = upload(&tenant, b"x").await;
    for label in ["\\u001b[31m", "\\u0000"] {
        let body = spec(&input).replacen("\"web\"", &format!(r#""web","labels":{{"a":"{label}"}}"#), 1);
        assert_eq!(tenant.call("POST", "/v1/jobs", body).await.problem(), "invalid_field");
    }
    assert_eq!(tenant.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 0);
}

#[tokio::test]
async fn parallel_calls_do_not_get_past_a_quota() {
    let world = world_with(|c| {
        c.quotas.unfinished_jobs = 3;
        c.quotas.unfinished_uploads = 4;
        c.quotas.upload_bytes = 10;
    })
    .await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let jobs =
        futures_util::future::join_all((0..30).map(|_| tenant.call("POST", "/v1/jobs", spec(&input)))).await;
    assert_eq!(jobs.iter().filter(|a| a.status == 201).count(), 3);
    let uploads =
        futures_util::future::join_all((0..30).map(|_| tenant.call("POST", "/v1/uploads", r#"{"size":3}"#)))
            .await;
    assert_eq!(uploads.iter().filter(|a| a.status == 201).count(), 3, "1 + 3 x 3 bytes of 10");
}

#[tokio::test]
async fn racing_writers_of_one_upload_make_exactly_what_one_of_them_sent() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":100000}"#).await.json();
    let path = format!("/v1/uploads/{}?offset=0", input.id);
    let calls = (0..8_u8).map(|n| tenant.call("PUT", &path, vec![n; 100_000]));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    let job: Job = tenant.call("POST", "/v1/jobs", spec(&input)).await.json();
    let worker = world.worker().await;
    let lease = worker.lease().await;
    // Deleted under the job that reads it: refused, and the reader has it whole.
    let deleted = tenant.call("DELETE", &format!("/v1/uploads/{}", input.id), "").await;
    assert_eq!(deleted.problem(), "upload_in_use", "{}", job.id);
    let bytes = worker.read(&lease, 0).await;
    assert!(bytes.len() == 100_000 && bytes.iter().all(|b| *b == bytes[0]), "they were mixed");
}

#[tokio::test]
async fn a_preset_that_there_is_not_is_named_with_those_that_there_are() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let answer = tenant.call("POST", "/v1/jobs", spec(&input).replace("web", "4k-ultra")).await;
    let document: serde_json::Value = answer.json();
    let detail = document["detail"].as_str().unwrap();
    assert!(detail.contains("4k-ultra") && detail.contains("web"), "{detail}");
}

#[tokio::test]
async fn progress_counts_the_frames_of_the_video_and_not_the_samples_of_the_sound() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    assert_eq!(world.worker().await.run().await, 4);
    // The sound has 441,000 units.
    assert_eq!(show(&tenant, &job).await.progress.frames, 300);
}

/// Connections at a time, and in all: many times what a port takes.
const SILENT: usize = 1_500;

/// Opens connections that never say a word.
async fn silence(address: std::net::SocketAddr, sockets: &mut Vec<tokio::net::TcpStream>) {
    for _ in 0..SILENT {
        let connect = tokio::net::TcpStream::connect(address);
        sockets.push(tokio::time::timeout(Duration::from_secs(20), connect).await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_silent_connections_keep_nobody_out() {
    // Both ends of each are this process's.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    let world = world().await;
    let tenant = world.tenant("a").await;
    let worker = world.worker().await;
    // What is under way stays, however long it takes: a poll and an open event stream.
    let events = tenant.open("GET", "/v1/events", "").await;
    assert_eq!(events.status(), 200);
    let mut polling = Box::pin(worker.ask(15_000));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut polling).await.is_err());

    let mut sockets = Vec::new();
    let (public, workers) = (world.broker().public_addr(), world.broker().worker_addr());
    for _ in 0..2 {
        silence(public, &mut sockets).await;
        silence(workers, &mut sockets).await;
        // Each by a connection of its own.
        for _ in 0..20 {
            let fresh =
                tokio::time::timeout(Duration::from_secs(20), world.anonymous().get("/healthz")).await;
            assert_eq!(fresh.expect("a health check is answered").status, 200);
        }
        let fresh = tokio::time::timeout(Duration::from_secs(20), world.worker()).await;
        fresh.expect("a worker can join");
    }
    submit(&tenant, b"a clip").await;
    let polled = tokio::time::timeout(Duration::from_secs(20), polling).await.expect("the poll is answered");
    assert!(matches!(polled, LeaseReply::Lease(_)), "{polled:?}");
    let mut events = events.into_body();
    let said =
        tokio::time::timeout(Duration::from_secs(20), events.frame()).await.expect("the stream goes on");
    assert!(said.unwrap().is_ok());
}

/// A connection of a worker with a request under way: its head was read, and its body is waited for.
async fn asking(world: &World, worker: &Worker, ca: &str) -> impl Sized {
    let config = tls(Some(ca), Some((&worker.certificate, &worker.key)));
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let socket = tokio::net::TcpStream::connect(world.broker().worker_addr()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("mpegflow-broker").unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let head =
        "POST /worker/v1/lease HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn each_port_takes_the_connections_that_it_was_given_and_the_next_waits_for_one_that_ends() {
    let world = world_with(|c| (c.public_connections, c.worker_connections) = (2, 2)).await;
    let (tenant, worker, join) = (world.tenant("a").await, world.worker().await, world.join_file().await);
    let streams = [tenant.open("GET", "/v1/events", "").await, tenant.open("GET", "/v1/events", "").await];
    let polls = [asking(&world, &worker, &join.ca).await, asking(&world, &worker, &join.ca).await];
    let anonymous = world.anonymous();
    let mut health = Box::pin(anonymous.get("/healthz"));
    let mut enrolment = Box::pin(Worker::enroll(&join, world.broker().worker_addr()));
    let waits = Duration::from_millis(500);
    assert!(tokio::time::timeout(waits, &mut health).await.is_err(), "a third was let in");
    assert!(tokio::time::timeout(waits, &mut enrolment).await.is_err(), "a third was let in");
    drop((streams, polls));
    let answer = tokio::time::timeout(Duration::from_secs(20), health).await;
    assert_eq!(answer.expect("there is room").status, 200);
    tokio::time::timeout(Duration::from_secs(20), enrolment).await.expect("there is room");
}

/// A client's first bytes of HTTP/2 (RFC 9113, 3.4): the preface and an empty SETTINGS frame, and then streams that are opened and
/// reset as fast as they can be (CVE-2023-44487).
fn rapid_reset() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2_000u32).step_by(2) {
        // HEADERS with END_STREAM and END_HEADERS: GET / by the static table of HPACK. Then RST_STREAM, CANCEL.
        bytes.extend_from_slice(&[0, 0, 3, 1, 5]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[0x82, 0x84, 0x86, 0, 0, 4, 3, 0]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&8u32.to_be_bytes());
    }
    bytes
}

#[tokio::test]
async fn nobody_speaks_http_2_here_so_there_are_no_resets_to_flood() {
    let world = world().await;
    let mut socket = tokio::net::TcpStream::connect(world.broker().public_addr()).await.unwrap();
    // The port may close before all is sent.
    let _ = socket.write_all(&rapid_reset()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");

    // Over TLS it is not even agreed upon.
    let join = world.join_file().await;
    let mut config = tls(Some(&join.ca), None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = tokio::net::TcpStream::connect(world.broker().worker_addr()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    if let Ok(mut stream) = connector.connect(name, socket).await {
        assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let _ = stream.write_all(&rapid_reset()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection is closed");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    assert_eq!(world.anonymous().get("/healthz").await.status, 200);
}
