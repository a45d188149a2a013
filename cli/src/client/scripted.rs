//! The client against a broker that misbehaves on purpose.

use super::*;
use crate::digest::PartsDigest;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::{get, patch};
use mpegflow_protocol::api::{JobState, Output, Upload};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const JOB: &str = "job_00000000000000000000000000000abc";
const UPLOAD: &str = "upl_00000000000000000000000000000abc";

async fn broker(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Client::local(address, "mfk_test").unwrap()
}

fn upload_json(size: usize, offset: usize) -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "id": UPLOAD, "size": size, "offset": offset, "created_at": "" }))
}

#[tokio::test]
async fn an_upload_whose_connection_breaks_goes_on_where_the_broker_has_got_to() {
    #[derive(Clone, Default)]
    struct Store(Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>);
    let size = 3_000_000;
    // Takes at most a million bytes of each request, then breaks off.
    async fn take(State(store): State<Store>, headers: HeaderMap, body: Body) -> axum::response::Response {
        use futures_util::StreamExt as _;
        assert_eq!(headers["authorization"], "Bearer mfk_test");
        let offset: usize = headers["upload-offset"].to_str().unwrap().parse().unwrap();
        assert_eq!(offset, store.0.lock().unwrap().len(), "resumed at the right place");
        store.1.fetch_add(1, Ordering::Relaxed);
        let mut stream = body.into_data_stream();
        let mut got = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            got += chunk.len();
            store.0.lock().unwrap().extend_from_slice(&chunk);
            if got > 1_000_000 {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        }
        let len = store.0.lock().unwrap().len();
        upload_json(3_000_000, len).into_response()
    }
    let store = Store::default();
    let routes = Router::new()
        .route(
            "/v1/uploads/{id}",
            patch(take).get(|State(store): State<Store>| async move {
                upload_json(3_000_000, store.0.lock().unwrap().len())
            }),
        )
        .with_state(store.clone());
    let client = broker(routes).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.mp4");
    let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let source = UploadSource::open(&path).unwrap();
    let upload: Upload = serde_json::from_value(upload_json(size, 0).0).unwrap();
    let at = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&at);
    let done = client
        .upload_file(&source, upload, Arc::new(move |n| seen.store(n, Ordering::Relaxed)))
        .await
        .unwrap();
    assert_eq!((done.offset, at.load(Ordering::Relaxed)), (3_000_000, 3_000_000));
    assert!(*store.0.lock().unwrap() == bytes && store.1.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn another_file_does_not_continue_an_upload() {
    let client = broker(Router::new()).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in.mp4"), "12345").unwrap();
    let source = UploadSource::open(&dir.path().join("in.mp4")).unwrap();
    let upload: Upload = serde_json::from_value(upload_json(6, 3).0).unwrap();
    let error = client.upload_file(&source, upload, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(&error, ClientError::Usage(text) if text.contains("another file")), "{error}");
}

#[tokio::test]
async fn a_download_that_is_not_what_was_committed_is_refused() {
    let routes = Router::new().route("/v1/objects/{job}/{name}", get(|| async { "content" }));
    let client = broker(routes).await;
    let dir = tempfile::tempdir().unwrap();
    let mut digest = PartsDigest::new();
    digest.update(b"content");
    let good = Output {
        name: "a.mp4".into(),
        url: format!("/v1/objects/{JOB}/a.mp4"),
        size: 7,
        content_type: "video/mp4".into(),
        digest: digest.finish(),
    };
    client.download(&good, dir.path(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("a.mp4")).unwrap(), b"content");
    let elsewhere = [
        format!("http://evil.example/{JOB}"),
        "//evil.example/a".into(),
        "@evil.example/v1/objects/a".into(),
    ];
    for (bad, reason) in [
        (Output { size: 6, ..good.clone() }, "more bytes"),
        (Output { size: 8, ..good.clone() }, "fewer bytes"),
        (Output { digest: "0".repeat(64), ..good.clone() }, "another digest"),
        (Output { name: "../../a".into(), ..good.clone() }, "is named"),
        (Output { url: elsewhere[0].clone(), ..good.clone() }, "not an object"),
        (Output { url: elsewhere[1].clone(), ..good.clone() }, "not an object"),
        (Output { url: elsewhere[2].clone(), ..good.clone() }, "not an object"),
    ] {
        let error = client.download(&bad, dir.path(), &|_| {}).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

fn job_json(state: &str, percent: f64) -> serde_json::Value {
    serde_json::json!({
        "id": JOB, "state": state, "created_at": "", "tasks": [], "outputs": [],
        "spec": { "version": 1, "input": { "upload": UPLOAD }, "preset": "web" },
        "progress": { "percent": percent, "frames": 1 },
    })
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_although_the_stream_breaks() {
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let event = |kind: &str, job: &str, percent: f64| {
        let event = serde_json::json!({ "job": job, "kind": kind, "state": "running", "at": "",
            "progress": { "percent": percent, "frames": 7 } });
        format!("id: 1\nevent: job\ndata: {event}\n\n")
    };
    let other = JOB.replace("abc", "def");
    let stream = format!("{}{}: ping\n\n", event("progress", JOB, 40.0), event("progress", &other, 99.0));
    let routes = Router::new()
        // Ends after two events, each time it is opened.
        .route("/v1/events", get(move || async move { ([("content-type", "text/event-stream")], stream) }))
        .route(
            "/v1/jobs/{id}",
            get(move || async move {
                let read = count.fetch_add(1, Ordering::Relaxed);
                axum::Json(if read < 2 { job_json("running", 10.0) } else { job_json("succeeded", 100.0) })
            }),
        );
    let client = broker(routes).await;
    let mut seen = Vec::new();
    let job = client.follow(JOB.parse().unwrap(), &mut |job| seen.push(job.progress.percent)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(seen, [10.0, 40.0, 10.0, 40.0, 100.0]);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_brokers_words_and_a_proxys_by_its_status() {
    let problem = r#"{"type":"/problems/no_such_job","title":"there is no such job","status":404,"detail":"it\u001b[2J"}"#;
    let routes = Router::new()
        .route("/v1/presets", get(|| async { (StatusCode::BAD_GATEWAY, "<html>") }))
        .route("/v1/jobs/{id}", get(move || async move { (StatusCode::NOT_FOUND, problem) }));
    let client = broker(routes).await;
    let error = client.job(JOB.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "the broker refused with 404, there is no such job: it [2J");
    assert!(is_missing(&error) && !error.is_transient());
    assert!(client.presets().await.unwrap_err().is_transient());
}
