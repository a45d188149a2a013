//! A hostile tenant: it has a key, and wants what others have, or their broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;

use common::*;
use mpegflow_protocol::api::{Job, JobPage, Upload};

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
