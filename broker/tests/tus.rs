//! tus 1.0.0 as its text demands, and against those who want more than it gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod common;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::*;
use mpegflow_broker::http::cors::{Origin, Origins};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const TUS: &str = "/v1/uploads/tus";

fn tus(client: &Client) -> Client {
    client.with("tus-resumable", "1.0.0")
}

fn chunk(client: &Client, offset: u64) -> Client {
    tus(client)
        .with("content-type", "application/offset+octet-stream")
        .with("upload-offset", offset.to_string())
}

/// The path of an upload that was just announced.
async fn announce(client: &Client, size: u64) -> String {
    let answer = tus(client).with("upload-length", size.to_string()).call("POST", TUS, "").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    place(&answer)
}

/// Where an answer says that the upload is, as a client resolves it.
fn place(answer: &Answer) -> String {
    format!("/v1/uploads/{}", answer.headers["location"].to_str().unwrap())
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.headers[header].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_upload_by_tus_is_announced_sent_in_pieces_and_used() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let options = world.anonymous().call("OPTIONS", TUS, "").await;
    assert_eq!(options.status, 204);
    assert_eq!(
        (&options.headers["tus-version"], &options.headers["tus-resumable"]),
        (&"1.0.0".parse().unwrap(), &"1.0.0".parse().unwrap())
    );
    assert_eq!(
        options.headers["tus-extension"],
        "creation,creation-with-upload,termination,expiration,checksum"
    );
    assert_eq!(options.headers["tus-checksum-algorithm"], "sha256,sha1");
    assert_eq!(number(&options, "tus-max-size"), mpegflow_protocol::limits::MAX_UPLOAD);

    let metadata = "filename aG9saWRheS5tb3Y=,is_confidential";
    let created = tus(&tenant)
        .with("upload-length", "10")
        .with("upload-metadata", metadata)
        .call("POST", TUS, "")
        .await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert!(created.headers["upload-expires"].to_str().unwrap().ends_with(" GMT"));
    let path = place(&created);
    let first = chunk(&tenant, 0).call("PATCH", &path, "0123").await;
    assert_eq!((first.status.as_u16(), number(&first, "upload-offset")), (204, 4), "{}", first.text());
    assert!(first.headers.contains_key("upload-expires") && first.body.is_empty());
    let head = tus(&tenant).call("HEAD", &path, "").await;
    assert_eq!((number(&head, "upload-offset"), number(&head, "upload-length")), (4, 10));
    assert_eq!(
        (&head.headers["cache-control"], &head.headers["upload-metadata"]),
        (&"no-store".parse().unwrap(), &metadata.parse().unwrap())
    );
    // A client that can only POST.
    let rest = chunk(&tenant, 4).with("x-http-method-override", "PATCH").call("POST", &path, "456789").await;
    assert_eq!((rest.status.as_u16(), number(&rest, "upload-offset")), (204, 10), "{}", rest.text());
    assert!(!rest.headers.contains_key("upload-expires"), "a finished upload does not expire by itself");
    // It is an upload like any other, with the name that was given.
    let id = path.rsplit('/').next().unwrap();
    let upload: mpegflow_protocol::api::Upload = tenant.get(&format!("/v1/uploads/{id}")).await.json();
    assert_eq!((upload.offset, upload.name.as_deref()), (10, Some("holiday.mov")));
    let worker = world.worker().await;
    assert_eq!(tenant.call("POST", "/v1/jobs", spec(&upload)).await.status, 201);
    let lease = worker.lease().await;
    assert_eq!(&worker.read(&lease, 0).await[..], b"0123456789");
}

#[tokio::test]
async fn the_first_bytes_may_come_with_the_announcement_and_the_place_is_right_by_either_spelling() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let with = chunk(&tenant, 0).with("upload-length", "10").call("POST", TUS, "0123").await;
    assert_eq!((with.status.as_u16(), number(&with, "upload-offset")), (201, 4), "{}", with.text());
    assert_eq!(number(&tus(&tenant).call("HEAD", &place(&with), "").await, "upload-offset"), 4);
    let slash = tus(&tenant).with("upload-length", "10").call("POST", "/v1/uploads/tus/", "").await;
    let at = format!("/v1/uploads/tus/{}", slash.headers["location"].to_str().unwrap());
    assert_eq!(tus(&tenant).call("HEAD", &at, "").await.status, 200);
    let nothing = announce(&tenant, 0).await;
    assert_eq!(number(&tus(&tenant).call("HEAD", &nothing, "").await, "upload-length"), 0);
}

#[tokio::test]
async fn what_the_protocol_does_not_allow_is_refused_with_its_status() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let path = announce(&tenant, 10).await;
    chunk(&tenant, 0).call("PATCH", &path, "0123").await;
    let too_large = (mpegflow_protocol::limits::MAX_UPLOAD + 1).to_string();
    for (what, client, method, path, body, status, problem) in [
        ("no version", tenant.with("upload-length", "1"), "POST", TUS, "", 412, "protocol_version"),
        ("another version", tenant.with("tus-resumable", "0.2.2"), "HEAD", &path, "", 412, ""),
        ("another offset", chunk(&tenant, 0), "PATCH", &path, "0123", 409, "offset_mismatch"),
        ("an offset beyond", chunk(&tenant, 5), "PATCH", &path, "5", 409, "offset_mismatch"),
        ("more than announced", chunk(&tenant, 4), "PATCH", &path, "4567890", 413, "too_large"),
        ("another type", tus(&tenant).with("upload-offset", "4"), "PATCH", &path, "4", 415, "media_type"),
        (
            "no offset",
            chunk(&tenant, 4).with("upload-offset", "x"),
            "PATCH",
            &path,
            "4",
            422,
            "invalid_field",
        ),
        (
            "a negative offset",
            chunk(&tenant, 4).with("upload-offset", "-4"),
            "PATCH",
            &path,
            "4",
            422,
            "invalid_field",
        ),
        ("no length", tus(&tenant), "POST", TUS, "", 422, "invalid_field"),
        (
            "a length to come",
            tus(&tenant).with("upload-defer-length", "1"),
            "POST",
            TUS,
            "",
            422,
            "invalid_field",
        ),
        (
            "a length too large",
            tus(&tenant).with("upload-length", &too_large),
            "POST",
            TUS,
            "",
            413,
            "too_large",
        ),
        (
            "a length of no number",
            tus(&tenant).with("upload-length", "99999999999999999999999"),
            "POST",
            TUS,
            "",
            422,
            "invalid_field",
        ),
        (
            "bad metadata",
            tus(&tenant).with("upload-length", "1").with("upload-metadata", "filename ***"),
            "POST",
            TUS,
            "",
            422,
            "invalid_field",
        ),
        (
            "a body longer than announced",
            chunk(&tenant, 0).with("upload-length", "2"),
            "POST",
            TUS,
            "0123",
            413,
            "too_large",
        ),
        (
            "an unknown digest",
            chunk(&tenant, 4).with("upload-checksum", "md5 AAAA"),
            "PATCH",
            &path,
            "4",
            422,
            "invalid_field",
        ),
        ("a method that is none", tus(&tenant), "POST", &path, "", 405, "method_not_allowed"),
    ] {
        let answer = client.call(method, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        assert_eq!(answer.headers["tus-resumable"], "1.0.0", "{what}");
        assert!(problem.is_empty() || answer.problem() == problem, "{what}: {}", answer.text());
    }
    let old = tenant.with("tus-resumable", "0.2.2").call("HEAD", &path, "").await;
    assert_eq!(old.headers["tus-version"], "1.0.0");
    assert_eq!(number(&tus(&tenant).call("HEAD", &path, "").await, "upload-offset"), 4, "none of it counted");
}

#[tokio::test]
async fn bytes_that_do_not_have_their_checksum_do_not_count() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let path = announce(&tenant, 8).await;
    let sha = |algorithm: &'static aws_lc_rs::digest::Algorithm, text: &str| {
        BASE64_STANDARD.encode(digest(algorithm, text.as_bytes()))
    };
    let sum = |name: &str, of: &str| {
        format!(
            "{name} {}",
            if name == "sha1" { sha(&SHA1_FOR_LEGACY_USE_ONLY, of) } else { sha(&SHA256, of) }
        )
    };
    for name in ["sha1", "sha256"] {
        let wrong =
            chunk(&tenant, 0).with("upload-checksum", sum(name, "0124")).call("PATCH", &path, "0123").await;
        assert_eq!((wrong.status.as_u16(), wrong.problem().as_str()), (460, "checksum_mismatch"));
        assert_eq!(number(&tus(&tenant).call("HEAD", &path, "").await, "upload-offset"), 0);
    }
    let right =
        chunk(&tenant, 0).with("upload-checksum", sum("sha1", "0123")).call("PATCH", &path, "0123").await;
    assert_eq!(number(&right, "upload-offset"), 4, "{}", right.text());
    // Also where the wrong bytes would have been the last ones.
    let wrong =
        chunk(&tenant, 4).with("upload-checksum", sum("sha256", "xxxx")).call("PATCH", &path, "4567").await;
    assert_eq!(wrong.status.as_u16(), 460);
    let right =
        chunk(&tenant, 4).with("upload-checksum", sum("sha256", "4567")).call("PATCH", &path, "4567").await;
    assert_eq!(number(&right, "upload-offset"), 8, "{}", right.text());
}

#[tokio::test]
async fn a_new_patch_takes_the_place_of_a_dead_one_and_nothing_mixes() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let path = announce(&tenant, 12).await;
    let key = &tenant.headers[0].1;
    let mut dead = tokio::net::TcpStream::connect(world.broker().public_addr()).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
         content-type: application/offset+octet-stream\r\ncontent-length: 12\r\n\r\n0123"
    );
    dead.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The connection stands, and nothing comes over it any more. What it had brought is kept, as a client finds by asking again.
    let first = chunk(&tenant, 0).call("PATCH", &path, "0123").await;
    assert_eq!((first.status.as_u16(), number(&first, "upload-offset")), (409, 4), "{}", first.text());
    let rest = chunk(&tenant, 4).call("PATCH", &path, "45678901").await;
    assert_eq!((rest.status.as_u16(), number(&rest, "upload-offset")), (204, 12), "{}", rest.text());
    // What the dead one sends now is nobody's.
    let _ = dead.write_all(b"xxxxxxxx").await;
    let id = path.rsplit('/').next().unwrap();
    let upload: mpegflow_protocol::api::Upload = tenant.get(&format!("/v1/uploads/{id}")).await.json();
    let worker = world.worker().await;
    tenant.call("POST", "/v1/jobs", spec(&upload)).await;
    let lease = worker.lease().await;
    assert_eq!(&worker.read(&lease, 0).await[..], b"012345678901");
}

#[tokio::test]
async fn another_tenants_upload_looks_like_one_that_is_not_there() {
    let world = world().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let path = announce(&a, 10).await;
    let none = format!("{TUS}/upl_{}", "0".repeat(32));
    for method in ["HEAD", "PATCH", "DELETE"] {
        let (theirs, missing) =
            (chunk(&b, 0).call(method, &path, "").await, chunk(&b, 0).call(method, &none, "").await);
        assert_eq!((theirs.status.as_u16(), &theirs.body), (404, &missing.body), "{method}");
    }
    assert_eq!(
        chunk(&a, 0).call("PATCH", &path, "0123").await.status,
        204,
        "it is still there for its owner"
    );
    assert_eq!(tus(&a).call("DELETE", &path, "").await.status, 204);
    assert_eq!(tus(&a).call("HEAD", &path, "").await.status, 404);
    // Without a key there is nothing at all.
    assert_eq!(tus(&world.anonymous()).call("HEAD", &path, "").await.status, 401);
}

#[tokio::test]
async fn pages_of_other_origins_are_told_nothing_unless_theirs_was_named() {
    let preflight = |client: &Client, origin: &str| {
        client
            .with("origin", origin)
            .with("access-control-request-method", "POST")
            .with("access-control-request-headers", "tus-resumable")
    };
    let app = "https://app.example.com";
    let deny = world().await;
    let answer = preflight(&deny.anonymous(), app).call("OPTIONS", TUS, "").await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));

    let world = world_with(|config| config.origins = Origins([Origin::parse(app).unwrap()].into())).await;
    let tenant = world.tenant("a").await;
    for path in [TUS, "/v1/jobs", "/v1/uploads/tus/x"] {
        let answer = preflight(&world.anonymous(), app).call("OPTIONS", path, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["access-control-allow-origin"]),
            (204, &app.parse().unwrap()),
            "{path}"
        );
        let headers = answer.headers["access-control-allow-headers"].to_str().unwrap().to_lowercase();
        assert!(
            ["authorization", "tus-resumable", "upload-offset"].iter().all(|h| headers.contains(h)),
            "{headers}"
        );
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        let other = preflight(&world.anonymous(), "https://evil.example").call("OPTIONS", path, "").await;
        assert!(!other.headers.contains_key("access-control-allow-origin"), "{path}");
        assert_eq!(other.headers["vary"], "origin", "{path}");
    }
    let made = tus(&tenant).with("origin", app).with("upload-length", "1").call("POST", TUS, "").await;
    assert_eq!(made.headers["access-control-allow-origin"], app);
    assert!(made.headers["access-control-expose-headers"].to_str().unwrap().contains("Location"));
    // The rest of the server stays its own.
    let page = world.anonymous().with("origin", app).get("/healthz").await;
    assert!(!page.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn one_key_announces_one_upload_however_often_it_is_sent_and_its_bytes_go_on_where_they_were() {
    let world = world().await;
    let tenant = world.tenant("a").await;
    let keyed = tus(&tenant).with("idempotency-key", "one").with("upload-length", "10");
    let calls = (0..100).map(|_| keyed.call("POST", TUS, ""));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|a| a.status == 201 && place(a) == place(&answers[0])));
    let path = place(&answers[0]);
    assert_eq!(chunk(&tenant, 0).call("PATCH", &path, "0123").await.status, 204);
    // With its first bytes again: they are there, and the answer says how far it has come.
    let again = keyed.with("content-type", "application/offset+octet-stream").call("POST", TUS, "012").await;
    assert_eq!((again.status.as_u16(), number(&again, "upload-offset")), (201, 4), "{}", again.text());
    let other = keyed.with("upload-length", "11").call("POST", TUS, "").await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "idempotency_mismatch"));
}
