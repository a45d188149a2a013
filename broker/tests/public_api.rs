//! The public API against tenants that make mistakes, and tenants that want each other's work.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;

use common::*;
use http_body_util::BodyExt as _;
use mpegflow_protocol::api::{Event, EventKind, Job, JobPage, JobState, Upload};
use std::collections::HashSet;
use std::time::Duration;

#[tokio::test]
async fn what_is_another_tenants_looks_exactly_like_what_is_not_there() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let job = submit(&a, b"secret").await;
    assert_eq!(world.worker().await.run().await, 4);
    let Job { outputs, .. } = show(&a, &job).await;
    let input = upload(&a, b"secret").await;
    let nothing = "0".repeat(32);

    for (method, own, none) in [
        ("GET", format!("/v1/uploads/{}", input.id), format!("/v1/uploads/upl_{nothing}")),
        ("PUT", format!("/v1/uploads/{}?offset=0", input.id), format!("/v1/uploads/upl_{nothing}?offset=0")),
        ("DELETE", format!("/v1/uploads/{}", input.id), format!("/v1/uploads/upl_{nothing}")),
        ("GET", format!("/v1/jobs/{}", job.id), format!("/v1/jobs/job_{nothing}")),
        ("POST", format!("/v1/jobs/{}/cancel", job.id), format!("/v1/jobs/job_{nothing}/cancel")),
        ("GET", format!("/v1/jobs/{}/events", job.id), format!("/v1/jobs/job_{nothing}/events")),
        ("GET", format!("/v1/events?job={}", job.id), format!("/v1/events?job=job_{nothing}")),
        ("GET", outputs[0].url.clone(), format!("/v1/objects/job_{nothing}/master.m3u8")),
        ("HEAD", outputs[0].url.clone(), format!("/v1/objects/job_{nothing}/master.m3u8")),
        ("GET", format!("/v1/objects/{}/none", job.id), "/v1/objects/x/y".into()),
    ] {
        let (theirs, missing) = (b.call(method, &own, "").await, b.call(method, &none, "").await);
        assert_eq!(theirs.status, 404, "{method} {own}");
        assert_eq!(theirs.body, missing.body, "{method} {own}");
        let shape = |answer: &Answer| {
            let mut names: Vec<_> = answer
                .headers
                .iter()
                .filter(|(n, _)| *n != "date")
                .map(|(n, v)| (n.to_string(), v.clone()))
                .collect();
            names.sort_by(|a, b| a.0.cmp(&b.0));
            names
        };
        assert_eq!(shape(&theirs), shape(&missing), "{method} {own}");
    }
    // An upload of another tenant cannot be a job's input either, and says the same as one that is not there.
    let theirs = b.call("POST", "/v1/jobs", spec(&input)).await;
    let missing = b
        .call("POST", "/v1/jobs", spec(&input).replace(&input.id.to_string(), &format!("upl_{nothing}")))
        .await;
    assert_eq!((theirs.status.as_u16(), &theirs.body), (422, &missing.body));
    assert_eq!(b.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 0);
    assert_eq!(a.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 1);
}

#[tokio::test]
async fn every_route_but_the_open_ones_needs_a_key() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let key = tenant.headers[0].1.clone();
    let mut other_secret = key.clone();
    other_secret.pop();
    other_secret.push(if key.ends_with('0') { '1' } else { '0' });
    let unknown = format!("Bearer mf_{}_{}", "0".repeat(32), "0".repeat(64));
    let anonymous = world.anonymous();
    let routes = mpegflow_broker::http::public::ROUTES
        .iter()
        .chain(mpegflow_broker::http::webhooks::ROUTES)
        .chain(mpegflow_broker::http::intake::ROUTES)
        .chain(mpegflow_broker::http::tus::ROUTES);
    for (method, path) in routes {
        let open = ["/healthz", "/readyz", "/openapi.json"].contains(path);
        let path = path
            .replace("{id}", &format!("job_{}", "0".repeat(32)))
            .replace("{job}", "x")
            .replace("{name}", "y")
            .replace("{path}", "x/y");
        let mut bodies = HashSet::new();
        for client in [
            anonymous.clone(),
            anonymous.with("authorization", other_secret.clone()),
            anonymous.with("authorization", unknown.clone()),
            anonymous.with("authorization", "Basic eDp5"),
            anonymous.with("authorization", "Bearer "),
        ] {
            let client = if *method == "PATCH" { client.with("upload-offset", "0") } else { client };
            let answer = client.call(method, &path, "").await;
            assert_eq!(
                answer.status.as_u16(),
                if open { 200 } else { 401 },
                "{method} {path}: {}",
                answer.text()
            );
            bodies.insert(answer.body);
        }
        assert_eq!(bodies.len(), 1, "{method} {path}");
    }
    assert_eq!(anonymous.get("/v1/nothing").await.problem(), "not_found");
    assert_eq!(tenant.call("DELETE", "/v1/jobs", "").await.problem(), "method_not_allowed");
}

#[tokio::test]
async fn a_wrong_job_names_its_field() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let unfinished: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":5}"#).await.json();
    let good = spec(&input);
    for (body, status, problem, field) in [
        (good.replace("web", "no"), 422, "unknown_preset", "preset"),
        (good.replace("\"version\":1", "\"version\":2"), 422, "invalid_field", "version"),
        (good.replace('}', r#","x":1}"#).replacen(r#","x":1}"#, "}", 1), 422, "invalid_field", "x"),
        (
            good.replace("\"web\"", "\"web\",\"video\":{\"max_height\":9999}"),
            422,
            "invalid_field",
            "video.max_height",
        ),
        (good.replace("upl_", "job_"), 422, "invalid_field", "input.upload"),
        (spec(&unfinished), 409, "upload_unfinished", "input.upload"),
        ("{".into(), 422, "invalid_field", "?"),
    ] {
        let answer = tenant.call("POST", "/v1/jobs", body.clone()).await;
        let document: serde_json::Value = answer.json();
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, problem),
            "{body}: {document}"
        );
        assert_eq!(document["field"], field, "{body}: {document}");
    }
    assert_eq!(tenant.call("POST", "/v1/jobs", vec![b' '; 70_000]).await.problem(), "too_large");
    assert_eq!(tenant.get("/v1/jobs?limit=0").await.problem(), "invalid_field");
    assert_eq!(tenant.get("/v1/jobs?sate=failed").await.problem(), "invalid_field");
    assert_eq!(
        tenant.call("POST", "/v1/uploads", r#"{"size":99999999999999}"#).await.problem(),
        "invalid_field"
    );
    assert_eq!(tenant.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_from_where_it_got_to() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let created = tenant.call("POST", "/v1/uploads", r#"{"size":10,"name":"a/b ü.mov"}"#).await;
    let input: Upload = created.json();
    let path = format!("/v1/uploads/{}", input.id);
    assert_eq!(created.headers["location"], path);
    assert_eq!(input.name.as_deref(), Some("a/b ü.mov"));
    assert_eq!(tenant.call("PUT", &format!("{path}?offset=0"), "0123").await.json::<Upload>().offset, 4);
    let elsewhere = tenant.call("PUT", &format!("{path}?offset=0"), "0123").await;
    assert_eq!(
        (elsewhere.problem().as_str(), &elsewhere.headers["upload-offset"]),
        ("offset_mismatch", &"4".parse().unwrap())
    );
    assert_eq!(tenant.call("PUT", &format!("{path}?offset=4"), "4567890").await.problem(), "too_large");
    let head = tenant.call("HEAD", &path, "").await;
    assert_eq!(
        (&head.headers["upload-offset"], &head.headers["upload-length"]),
        (&"4".parse().unwrap(), &"10".parse().unwrap())
    );
    let patched = tenant.with("upload-offset", "4").call("PATCH", &path, "456789").await;
    assert_eq!(patched.json::<Upload>().offset, 10);
    let worker = world.worker().await;
    tenant.call("POST", "/v1/jobs", spec(&input)).await;
    assert_eq!(tenant.call("DELETE", &path, "").await.problem(), "upload_in_use");
    let lease = worker.lease().await;
    assert_eq!(&worker.read(&lease, 0).await[..], b"0123456789");
    worker.finish(&lease).await;
    assert_eq!(worker.run().await, 3);
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 204);
    assert_eq!(tenant.call("DELETE", &path, "").await.status, 404);
}

#[tokio::test]
async fn a_broken_upload_keeps_what_came_and_two_writers_do_not_mix() {
    use tokio::io::AsyncWriteExt as _;
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input: Upload = tenant.call("POST", "/v1/uploads", r#"{"size":10}"#).await.json();
    let path = format!("/v1/uploads/{}", input.id);
    let mut socket = tokio::net::TcpStream::connect(world.broker().public_addr()).await.unwrap();
    let key = &tenant.headers[0].1;
    let head = format!(
        "PUT {path}?offset=0 HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 10\r\n\r\n0123"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // Asking by writing would race with the first writer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tenant.call("PUT", &format!("{path}?offset=0"), "x").await.problem(), "upload_busy");
    assert_eq!(tenant.call("DELETE", &path, "").await.problem(), "upload_busy");
    drop(socket);
    eventually("what came is kept", async || tenant.get(&path).await.json::<Upload>().offset == 4).await;
    assert_eq!(tenant.call("PUT", &format!("{path}?offset=4"), "456789").await.json::<Upload>().offset, 10);
}

#[tokio::test]
async fn one_idempotency_key_makes_one_job_however_often_it_is_sent() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let keyed = tenant.with("idempotency-key", "once");
    let calls = (0..100).map(|_| keyed.call("POST", "/v1/jobs", spec(&input)));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|a| a.status == 201));
    assert_eq!(answers.iter().map(|a| a.body.clone()).collect::<HashSet<_>>().len(), 1);
    assert_eq!(tenant.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 1);
    let other =
        spec(&input).replace('}', r#"},"labels":{"a":"b"}"#).replacen(r#","labels":{"a":"b"}"#, "", 1);
    let mismatch = keyed.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    assert_eq!(mismatch.problem(), "idempotency_mismatch", "{other}");
    // Another tenant's key of the same name is another key.
    let b = world.tenant("b").await;
    assert_eq!(
        b.with("idempotency-key", "once").call("POST", "/v1/uploads", r#"{"size":1}"#).await.status,
        201
    );
    let job = &answers[0].json::<Job>();
    let cancel = format!("/v1/jobs/{}/cancel", job.id);
    let keyed = tenant.with("idempotency-key", "cancel");
    assert_eq!(keyed.call("POST", &cancel, "").await.status, 200);
    assert_eq!(keyed.call("POST", &cancel, "").await.status, 200);
    assert_eq!(tenant.call("POST", &cancel, "").await.status, 409);
}

#[tokio::test]
async fn quotas_are_told_and_kept() {
    let world = world_with(|c| {
        c.quotas.unfinished_jobs = 2;
        c.quotas.unfinished_uploads = 2;
        c.quotas.upload_bytes = 100;
    })
    .await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    for _ in 0..2 {
        assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.status, 201);
    }
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&input)).await.problem(), "quota_exceeded");
    assert_eq!(tenant.call("POST", "/v1/uploads", r#"{"size":100}"#).await.problem(), "storage_quota");
    for _ in 0..2 {
        assert_eq!(tenant.call("POST", "/v1/uploads", r#"{"size":1}"#).await.status, 201);
    }
    let full = tenant.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    assert_eq!((full.status.as_u16(), full.problem().as_str()), (429, "quota_exceeded"));
    let other = world.tenant("b").await;
    assert_eq!(other.call("POST", "/v1/uploads", r#"{"size":1}"#).await.status, 201);
}

#[tokio::test]
async fn objects_are_served_by_range_and_condition() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    assert_eq!(world.worker().await.run().await, 4);
    let outputs = show(&tenant, &job).await.outputs;
    let object = outputs.iter().find(|o| o.name == "video-720p.mp4").unwrap();
    let playlist = tenant.get(&outputs[0].url).await;
    assert_eq!(playlist.headers["content-type"], "application/vnd.apple.mpegurl");
    let whole = tenant.get(&object.url).await;
    assert_eq!(whole.headers["content-type"], "video/mp4");
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", object.digest));
    let head = tenant.call("HEAD", &object.url, "").await;
    assert_eq!(
        (head.headers["content-length"].to_str().unwrap(), head.body.len()),
        (object.size.to_string().as_str(), 0)
    );
    assert_eq!(tenant.with("if-none-match", etag.clone()).get(&object.url).await.status, 304);
    let ranged = tenant.with("range", "bytes=2-5");
    let part = ranged.get(&object.url).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &whole.body[2..6]));
    assert_eq!(part.headers["content-range"], format!("bytes 2-5/{}", object.size));
    assert_eq!(ranged.with("if-range", etag).get(&object.url).await.status, 206);
    assert_eq!(ranged.with("if-range", "\"other\"").get(&object.url).await.status, 200);
    let beyond = tenant.with("range", "bytes=999999-").get(&object.url).await;
    assert_eq!((beyond.status.as_u16(), beyond.problem().as_str()), (416, "range_not_satisfiable"));
    for name in ["..%2f..%2fbroker.db", "%2e%2e", "master.m3u8%00", "MASTER.M3U8", "master.m3u8%2f"] {
        assert_eq!(tenant.get(&format!("/v1/objects/{}/{name}", job.id)).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn jobs_come_in_pages_newest_first() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let input = upload(&tenant, b"x").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(tenant.call("POST", "/v1/jobs", spec(&input)).await.json::<Job>().id);
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/jobs?limit=2".to_owned();
    loop {
        let page: JobPage = tenant.get(&path).await.json();
        seen.extend(page.jobs.iter().map(|j| j.id));
        let Some(next) = page.next else { break };
        path = format!("/v1/jobs?limit=2&after={next}");
    }
    assert_eq!(seen, ids);
    assert_eq!(tenant.get("/v1/jobs?state=failed").await.json::<JobPage>().jobs.len(), 0);
    assert_eq!(tenant.get("/v1/jobs?state=queued").await.json::<JobPage>().jobs.len(), 5);
}

async fn read_events(
    response: hyper::Response<hyper::body::Incoming>,
    until: impl Fn(&Event) -> bool,
) -> Vec<(Option<u64>, Event)> {
    let mut body = response.into_body();
    let (mut text, mut events) = (String::new(), Vec::new());
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
                if let Some(data) = field("data: ") {
                    events.push((
                        field("id: ").map(|id| id.parse().unwrap()),
                        serde_json::from_str(&data).unwrap(),
                    ));
                }
                text = rest.to_owned();
            }
            if events.last().is_some_and(|(_, e)| until(e)) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    events
}

#[tokio::test]
async fn events_are_replayed_gapless_from_any_point_over_a_restart() {
    let mut world = world().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let worker = world.worker().await;
    let path = format!("/v1/jobs/{}/events", job.id);
    let stream = tenant.open("GET", &path, "").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let live = tokio::spawn(read_events(stream, |e| e.kind == EventKind::Finished));
    let lease = worker.lease().await;
    let progress = mpegflow_protocol::worker::TaskProgress { frames: 1, ..Default::default() };
    // The stream has to be listening by then to see it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.beat(&lease, progress).await;
    worker.finish(&lease).await;
    worker.run().await;
    let live = live.await.unwrap();
    assert!(live.iter().any(|(id, e)| e.kind == EventKind::Progress && id.is_none()), "{live:?}");
    let stored: Vec<_> = live.into_iter().filter(|(id, _)| id.is_some()).collect();
    let kinds: Vec<_> = stored.iter().map(|(_, e)| e.kind).collect();
    use EventKind::{Created, Finished, TaskStarted, TaskSucceeded};
    assert_eq!(
        kinds,
        [
            Created,
            TaskStarted,
            TaskSucceeded,
            TaskStarted,
            TaskSucceeded,
            TaskStarted,
            TaskSucceeded,
            TaskStarted,
            TaskSucceeded,
            Finished
        ]
    );
    assert_eq!(stored.iter().map(|(id, _)| id.unwrap()).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(stored.last().unwrap().1.state, JobState::Succeeded);

    let headers = tenant.headers.clone();
    world.crash_and_restart().await;
    let mut tenant = world.anonymous();
    tenant.headers = headers;
    for after in [0_u64, 4, 9] {
        for path in [path.clone(), "/v1/events".into(), format!("/v1/events?job={}", job.id)] {
            let stream = tenant.with("last-event-id", after.to_string()).open("GET", &path, "").await;
            let events = read_events(stream, |e| e.kind == Finished).await;
            assert_eq!(events, stored[after as usize..], "{path} after {after}");
        }
    }
    // Nothing comes after the last event of a job that has ended, so the stream of that job ends too.
    for after in ["10", "11"] {
        let stream = tenant.with("last-event-id", after).open("GET", &path, "").await;
        let rest = http_body_util::BodyExt::collect(stream.into_body());
        let rest =
            tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the stream ends").unwrap();
        assert_eq!(rest.to_bytes(), "retry: 1000\n\n", "after {after}");
    }
    assert_eq!(tenant.with("last-event-id", "x").get(&path).await.status, 422);
}

#[tokio::test]
async fn metrics_have_a_port_of_their_own() {
    let world = world_with(|c| c.metrics = Some(([127, 0, 0, 1], 0).into())).await;
    let tenant = world.tenant("a").await;
    submit(&tenant, b"x").await;
    let metrics = Client::new(format!("http://{}", world.broker().metrics_addr().unwrap()), None, None);
    let text = metrics.get("/metrics").await.text();
    for line in [
        "mpegflow_queue_depth{pool=\"default\"} 1",
        "mpegflow_jobs{state=\"queued\"} 1",
        "mpegflow_bytes_uploaded_total 1",
        "mpegflow_http_requests_total{route=\"/v1/jobs\",status=\"2xx\"} 1",
        "mpegflow_storage_seconds_count{operation=\"append\",result=\"ok\"} 1",
        "mpegflow_webhook_attempts_total{outcome=\"delivered\"} 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(tenant.get("/metrics").await.status, 404);
    // What a tenant or a worker chose is in no label, and whatever they do makes no more series of what is measured.
    let job = submit(&tenant, b"x").await;
    assert_eq!(world.worker().await.run().await, 8);
    let before = metrics.get("/metrics").await.text();
    for line in [
        "mpegflow_attempts_total{task=\"encode\",outcome=\"succeeded\"} 2",
        "mpegflow_lease_wait_seconds_count 8",
    ] {
        assert!(before.contains(line), "{line}: {before}");
    }
    for n in 0..50 {
        tenant.get(&format!("/v1/jobs/{}", job.id)).await;
        tenant.get(&format!("/nothing/{n}")).await;
        tenant.get(&format!("/v1/objects/{}/{n}", job.id)).await;
    }
    tenant.get(&format!("/v1/jobs/{}", job.id)).await;
    let after = metrics.get("/metrics").await.text();
    for text in [&before, &after] {
        for secret in [job.id.to_string().as_str(), "tnt_", "wrk_", "att_", "/nothing/"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
    assert!(after.lines().count() < 600, "{}", after.lines().count());
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_the_others_go_on() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = world().await;
    let router = axum::Router::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits =
        mpegflow_broker::http::serve::Limits { head: Duration::from_millis(300), ..Default::default() };
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(mpegflow_broker::http::serve::run(listener, None, router, limits, Default::default(), stop));
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(world.anonymous().get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_let_go_with_what_it_read_from() {
    /// Says that a body has been dropped.
    struct Told(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let (told, dropped) = tokio::sync::oneshot::channel();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Some(Told(Some(told)))));
    let endless = move || {
        let held = told.lock().unwrap().take();
        let chunk = bytes::Bytes::from(vec![7; 64 << 10]);
        let chunks = futures_util::stream::repeat_with(move || {
            let _ = &held;
            Ok::<_, std::io::Error>(chunk.clone())
        });
        std::future::ready(axum::body::Body::from_stream(chunks))
    };
    let router = axum::Router::new().route("/", axum::routing::get(endless));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = mpegflow_broker::http::serve::Limits {
        write_stall: Duration::from_millis(300),
        ..Default::default()
    };
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(mpegflow_broker::http::serve::run(listener, None, router, limits, Default::default(), stop));
    let answer = Client::new(format!("http://{address}"), None, None).open("GET", "/", "").await;
    // It has read the head, and takes nothing more.
    assert_eq!(answer.status(), 200);
    tokio::time::timeout(Duration::from_secs(30), dropped).await.expect("it is let go").unwrap();
    drop(answer);
    let limits = mpegflow_broker::http::serve::Limits::default();
    assert!(limits.head.max(limits.write_stall) <= Duration::from_secs(35));
}

#[tokio::test]
async fn extra_routes_lie_beside_the_api() {
    let page = axum::Router::new().route("/", axum::routing::get(async || "the page"));
    let world = world_with(|c| c.extra_routes = Some(page)).await;
    assert_eq!(world.anonymous().get("/").await.text(), "the page");
    assert_eq!(world.anonymous().get("/nothing").await.problem(), "not_found");
}

#[tokio::test]
async fn two_brokers_do_not_share_a_folder() {
    let world = world().await;
    let second = mpegflow_broker::embedded::start(world.config.clone()).await;
    assert!(matches!(second, Err(mpegflow_broker::embedded::StartError::InUse(_))));
}

#[tokio::test]
async fn an_output_is_found_under_the_path_that_was_asked_for_and_by_its_tenant_alone() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let input = upload(&a, b"x").await;
    let asks = |path: &str, id: &str| {
        let more = format!(r#"{{"external_id":"{id}","output":{{"path":"{path}"}},"#);
        spec(&input).replacen('{', &more, 1)
    };
    let made = a.call("POST", "/v1/jobs", asks("films/{external_id}/{preset}/{name}", "a-7")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let job: Job = made.json();
    assert_eq!(
        a.get("/v1/files/films/a-7/web/master.m3u8").await.status,
        404,
        "nothing is there before it is whole"
    );
    assert_eq!(world.worker().await.run().await, 4);
    let job = show(&a, &job).await;
    let master = job.outputs.iter().find(|o| o.name == "master.m3u8").unwrap();
    assert_eq!(master.url, "/v1/files/films/a-7/web/master.m3u8");
    let by_path = a.get(&master.url).await;
    let by_job = a.get(&format!("/v1/objects/{}/master.m3u8", job.id)).await;
    assert_eq!((by_path.status.as_u16(), &by_path.body), (200, &by_job.body));
    assert_eq!(b.get(&master.url).await.status, 404);
    // The path is taken, and says by whom; for another tenant it is not.
    let again = a.call("POST", "/v1/jobs", asks("films/{external_id}/{preset}/{name}", "a-7")).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "path_taken"));
    assert!(again.text().contains(&job.id.to_string()), "{}", again.text());
    let theirs = upload(&b, b"x").await;
    let same = asks("films/{external_id}/{preset}/{name}", "a-7")
        .replace(&input.id.to_string(), &theirs.id.to_string());
    let same: Job = b.call("POST", "/v1/jobs", same).await.json();
    assert_eq!(b.call("POST", &format!("/v1/jobs/{}/cancel", same.id), "").await.status, 200);
    // No spelling leads elsewhere, on the way in or out.
    for path in ["../{name}", "films/{name}.mp4", "a//{name}", "{tenant}/{name}", "{external_id}/x"] {
        let refused = a.call("POST", "/v1/jobs", asks(path, "a-7")).await;
        let document: serde_json::Value = refused.json();
        assert_eq!(
            (refused.status.as_u16(), document["field"].as_str()),
            (422, Some("output.path")),
            "{path}: {document}"
        );
    }
    for path in [
        "films/a-7/web/../web/master.m3u8",
        "films/a-7/web/%2e%2e/web/master.m3u8",
        "films//a-7/web/master.m3u8",
        "films/a-7/web/",
        "films/a-7/web/nothing.mp4",
        "films/a-7/master.m3u8",
    ] {
        let status = a.get(&format!("/v1/files/{path}")).await.status;
        assert_eq!(status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_object_of_the_tenants_own_can_be_the_input_of_another_job_and_nobody_elses_can() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let input = upload(&a, b"x").await;
    let first = spec(&input).replacen('{', r#"{"output":{"path":"films/a/{name}"},"#, 1);
    let job: Job = a.call("POST", "/v1/jobs", first).await.json();
    let worker = world.worker().await;
    assert_eq!(worker.run().await, 4);
    let of = |object: &str| {
        let upload = format!(r#""upload":"{}""#, input.id);
        spec(&input).replace(&upload, &format!(r#""object":"{object}""#))
    };
    let bytes = a.get("/v1/files/films/a/master.m3u8").await.body;
    for path in ["films/a/master.m3u8".to_owned(), format!("{}/master.m3u8", job.id)] {
        let made = a.call("POST", "/v1/jobs", of(&path)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let second: Job = made.json();
        // Read whole by the probe, and again by the encode.
        for _ in 0..2 {
            let lease = worker.lease().await;
            assert_eq!(worker.read(&lease, 0).await, bytes);
            worker.finish(&lease).await;
        }
        assert_eq!(worker.run().await, 2);
        assert_eq!(show(&a, &second).await.state, JobState::Succeeded);
        // For another tenant it is not there.
        let theirs = b.call("POST", "/v1/jobs", of(&path)).await;
        assert_eq!((theirs.status.as_u16(), theirs.problem().as_str()), (422, "unknown_object"));
    }
    let none = a.call("POST", "/v1/jobs", of("films/a/nothing.mp4")).await;
    let theirs = b.call("POST", "/v1/jobs", of("films/a/master.m3u8")).await;
    assert_eq!(none.body, theirs.body, "it looks like one that is not there");
    for path in [
        "../a",
        "films/../films/a/master.m3u8",
        "films/a/%2e%2e",
        "/etc/passwd",
        "films//a",
        "a",
        "",
        "films/a/.x",
    ] {
        let refused = a.call("POST", "/v1/jobs", of(path)).await;
        let document: serde_json::Value = refused.json();
        assert_eq!(
            (refused.status.as_u16(), document["field"].as_str()),
            (422, Some("input.object")),
            "{path}: {document}"
        );
    }
}
