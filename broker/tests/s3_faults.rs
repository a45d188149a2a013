//! What the S3 adapter does when storage, the way to it or its credentials fail.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, missing_docs, reason = "tests")]

#[path = "support/s3_front.rs"]
mod front;
#[path = "support/s3.rs"]
mod s3;

use bytes::Bytes;
use front::{Fault, Front, Seen};
use futures_util::StreamExt as _;
use mpegflow_broker::conformance;
use mpegflow_broker::conformance::objects::{body, chunked, head, owners, pattern, read};
use mpegflow_broker::objects::s3::{Encryption, S3Config, S3Objects};
use mpegflow_broker::objects::{Body, BodyError, Key, ObjectError, Objects as _, PartHead};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use s3::{Kind, Server};
use std::time::{Duration, Instant};

const TENANT: TenantId = TenantId::from_u128(1);
const UPLOAD: UploadId = UploadId::from_u128(2);

const fn output(n: u32) -> Key {
    Key::Output(TENANT, JobId::from_u128(3), AttemptId::from_u128(4), n)
}

/// An adapter that reaches the server through a proxy.
async fn through(server: &Server, change: impl FnOnce(&mut S3Config)) -> (Front, S3Objects) {
    let front = Front::before(server.address).await;
    let mut config = S3Config { endpoint: Some(front.endpoint()), ..server.config() };
    change(&mut config);
    (front, S3Objects::open(&config).unwrap())
}

fn put(seen: &Seen) -> bool {
    seen.method == "PUT" && seen.presigned() && !seen.path.ends_with(".open")
}

fn get(seen: &Seen) -> bool {
    seen.method == "GET" && seen.presigned()
}

/// A body of which more comes when it is sent.
fn fed() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    let (feed, chunks) = tokio::sync::mpsc::channel::<Bytes>(1);
    let chunks =
        futures_util::stream::unfold(chunks, async |mut chunks| Some((Ok(chunks.recv().await?), chunks)));
    (feed, Box::pin(chunks))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presigned_request_carries_our_checksum_and_nothing_of_the_sdk() {
    let server = Server::start(Kind::Versitygw);
    let (front, objects) = through(&server, |_| {}).await;
    let bytes = pattern(0, PART_SIZE);
    objects.put_part(&output(0), &head(0, b"one"), body(&[b"one"])).await.unwrap();
    objects.put_part(&output(1), &head(0, &bytes), chunked(&bytes)).await.unwrap();
    objects.finish(&output(0), &[head(0, b"one")]).await.unwrap();
    assert_eq!(read(&objects, &output(0), 1..3).await, b"ne");
    let seen: Vec<Seen> = front.seen().into_iter().filter(|seen| put(seen) || get(seen)).collect();
    let place = format!("/media/mpegflow/{TENANT}/jobs/{}/{}", JobId::from_u128(3), AttemptId::from_u128(4));
    // Before the first part it is tried once whether storage compares digests.
    let probe = |path: &str| path.rsplit_once('/').filter(|(dir, _)| dir.ends_with("/probe")).is_some();
    let name = |path: &String| if probe(path) { "a probe".to_owned() } else { path.clone() };
    let whole = seen.iter().map(|seen| (seen.method.as_str(), name(&seen.path))).collect::<Vec<_>>();
    let expected = [
        ("PUT", format!("{place}/0")),
        ("PUT", "a probe".into()),
        ("PUT", format!("{place}/1")),
        ("GET", format!("{place}/0")),
    ];
    assert_eq!(whole, expected);
    for seen in &seen {
        let query = |name: &str| {
            let found = seen.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            found.unwrap_or_default().to_owned()
        };
        let mut names: Vec<_> = seen.query.split('&').map(|pair| pair.split('=').next().unwrap()).collect();
        names.sort_unstable();
        names.retain(|name| !matches!(*name, "uploadId" | "partNumber"));
        let signature = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-Expires",
            "X-Amz-Signature",
            "X-Amz-SignedHeaders",
            "x-id",
        ];
        assert_eq!(names, signature);
        assert!(query("X-Amz-Expires").parse::<u32>().unwrap() <= 300);
        let (signed, sent): (&str, &[&str]) = if put(seen) {
            (
                "content-length%3Bhost%3Bx-amz-checksum-sha256",
                &["content-length", "host", "x-amz-checksum-sha256"],
            )
        } else {
            // The version that was finished, and nothing else.
            ("host%3Bif-match%3Brange", &["host", "if-match", "range"])
        };
        assert_eq!(query("X-Amz-SignedHeaders"), signed);
        let mut headers: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        headers.sort_unstable();
        assert_eq!(headers, sent, "no checksum of the SDK's, no framing of its own");
    }
}

#[tokio::test]
async fn whether_storage_compares_digests_is_not_asked_for_each_part_while_it_does_not_answer() {
    let server = Server::start(Kind::Versitygw);
    let (front, objects) = through(&server, |_| {}).await;
    let is_try = |seen: &Seen| seen.path.contains("/probe/");
    let tries = || front.seen().iter().filter(|seen| is_try(seen)).count();
    let part = async |n: u64| {
        objects.put_part(&output(0), &head(n * PART_SIZE, b"part"), body(&[b"part"])).await.unwrap();
    };
    front.fault(u32::MAX, Fault::Answer(503, "SlowDown"), is_try);
    part(1).await;
    assert!(tries() > 0, "the first part asks");
    for n in 2..5 {
        part(n).await;
    }
    assert_eq!(tries(), 0, "and the next ones do without, whom storage does take");
    // After a pause it is asked again, and when it has answered never more.
    front.heal();
    let healed = Instant::now();
    part(5).await;
    while tries() == 0 {
        assert!(healed.elapsed() < Duration::from_secs(60), "it is never asked again");
        tokio::time::sleep(Duration::from_millis(100)).await;
        part(5).await;
    }
    part(6).await;
    assert_eq!(tries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_changes_on_the_way_never_commits() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, objects) = through(&server, |_| {}).await;
        let part = head(0, b"abcdef");
        front.fault(1, Fault::FlipRequest, put);
        let refused = objects.put_part(&output(0), &part, body(&[b"abc", b"def"])).await;
        assert!(matches!(refused, Err(ObjectError::Digest)), "{kind:?}: {refused:?}");
        assert!(matches!(objects.finish(&output(0), &[part]).await, Err(ObjectError::Missing)), "{kind:?}");
        // An upload's bytes are still here, and are sent again.
        front.fault(1, Fault::FlipRequest, put);
        let key = Key::Upload(TENANT, UPLOAD);
        let done = objects.append(&key, 0, &mut body(&[b"abcdef"]), 100, 6).await.unwrap();
        assert!(done.len == 6 && done.error.is_none(), "{kind:?}: {done:?}");
        objects.finish_upload(TENANT, UPLOAD, 6).await.unwrap();
        assert_eq!(read(&objects, &key, 0..6).await, b"abcdef", "{kind:?}");
        assert_eq!(front.unmet(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_and_what_is_stored_have_to_agree() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, objects) = through(&server, |_| {}).await;
        let bytes = pattern(0, PART_SIZE);
        let (first, last) = (head(0, &bytes), head(PART_SIZE, b"last"));
        objects.put_part(&output(0), &first, chunked(&bytes)).await.unwrap();
        objects.put_part(&output(0), &last, body(&[b"last"])).await.unwrap();
        let other = PartHead { sha256: [7; 32], ..last };
        let refused = objects.finish(&output(0), &[first, other]).await;
        assert!(matches!(refused, Err(ObjectError::Digest)), "{kind:?}: {refused:?}");
        let short = PartHead { size: 3, ..last };
        let refused = objects.finish(&output(0), &[first, short]).await;
        assert!(matches!(refused, Err(ObjectError::Length)), "{kind:?}: {refused:?}");
        objects.finish(&output(0), &[first, last]).await.unwrap();
        // Afterwards too: it is compared with what there is.
        let refused = objects.finish(&output(0), &[first, other]).await;
        assert!(matches!(refused, Err(ObjectError::Digest)), "{kind:?}: {refused:?}");

        objects.put_part(&output(1), &head(0, b"only"), body(&[b"only"])).await.unwrap();
        let refused = objects.finish(&output(1), &[PartHead { sha256: [7; 32], ..head(0, b"only") }]).await;
        assert!(matches!(refused, Err(ObjectError::Digest)), "{kind:?}: {refused:?}");
        // Storage that does not say what it holds is not believed.
        front.fault(1, Fault::NoHeader("x-amz-checksum-sha256"), |seen| seen.method == "HEAD");
        let refused = objects.finish(&output(1), &[head(0, b"only")]).await;
        assert!(matches!(refused, Err(ObjectError::Io { .. })), "{kind:?}: {refused:?}");
        objects.finish(&output(1), &[head(0, b"only")]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_gone_on_with_and_never_taken_for_whole() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, objects) = through(&server, |_| {}).await;
        let bytes = pattern(0, PART_SIZE);
        objects.put_part(&output(0), &head(0, &bytes), chunked(&bytes)).await.unwrap();
        objects.finish(&output(0), &[head(0, &bytes)]).await.unwrap();
        front.fault(2, Fault::CutAnswer(1_000_000), get);
        front.fault(1, Fault::CutAnswer(0), get);
        assert!(read(&objects, &output(0), 5..PART_SIZE).await == bytes[5..], "{kind:?}");
        assert_eq!(front.unmet(), 0);

        front.fault(100, Fault::CutAnswer(1_000), get);
        let mut stream = objects.read(&output(0), 0..PART_SIZE).await.unwrap();
        let mut came = 0;
        let end = loop {
            match stream.next().await {
                Some(Ok(chunk)) => came += chunk.len(),
                end => break end,
            }
        };
        assert!(
            matches!(end, Some(Err(_))) && came > 1_000 && came < bytes.len(),
            "{kind:?}: {came} {end:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_coming_is_given_up_and_gone_on_with() {
    let server = Server::start(Kind::Minio);
    let (front, objects) = through(&server, |_| {}).await;
    objects
        .put_part(&output(0), &head(0, &pattern(0, 900_000)), chunked(&pattern(0, 900_000)))
        .await
        .unwrap();
    objects.finish(&output(0), &[head(0, &pattern(0, 900_000))]).await.unwrap();
    front.fault(1, Fault::StallAnswer(10_000), get);
    let asked = Instant::now();
    assert!(read(&objects, &output(0), 0..900_000).await == pattern(0, 900_000));
    let took = asked.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(30)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_sending_is_given_up_before_storage_gives_up() {
    let server = Server::start(Kind::Versitygw);
    let objects = server.objects();
    let (feed, silent) = fed();
    feed.send(Bytes::from_static(b"abc")).await.unwrap();
    let asked = Instant::now();
    let refused = objects.put_part(&output(0), &head(0, b"abcdef"), silent).await;
    assert!(matches!(refused, Err(ObjectError::Body(BodyError::Idle))), "{refused:?}");
    let took = asked.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_asks_for_patience_gets_it() {
    let server = Server::start(Kind::Versitygw);
    let (front, objects) = through(&server, |_| {}).await;
    let content = pattern(0, PART_SIZE + 100);
    let key = Key::Upload(TENANT, UPLOAD);
    // Every kind of request of an upload's way: its parts, the calls around them, and reading it.
    front.fault(2, Fault::Answer(503, "SlowDown"), put);
    front.fault(2, Fault::Answer(503, "SlowDown"), |seen| {
        !seen.presigned() && seen.query.starts_with("uploads")
    });
    front.fault(2, Fault::Answer(500, "InternalError"), |seen| {
        seen.method == "POST" && seen.query.contains("uploadId")
    });
    front.fault(2, Fault::Answer(503, "ServiceUnavailable"), get);
    let done = objects.append(&key, 0, &mut chunked(&content), u64::MAX, content.len() as u64).await.unwrap();
    assert!(done.ended && done.len == content.len() as u64 && done.error.is_none(), "{done:?}");
    objects.finish_upload(TENANT, UPLOAD, done.len).await.unwrap();
    assert!(read(&objects, &key, 0..done.len).await == content);
    assert_eq!(front.unmet(), 0, "each of them was met");

    // A worker's part went through, and only the worker has it: it is told, and sends it again.
    front.fault(1, Fault::Answer(503, "SlowDown"), put);
    let refused = objects.put_part(&output(0), &head(0, b"x"), body(&[b"x"])).await;
    assert!(matches!(refused, Err(ObjectError::Io { .. })), "{refused:?}");
    objects.put_part(&output(0), &head(0, b"x"), body(&[b"x"])).await.unwrap();
    // Without end it ends in an error, and soon.
    front.fault(1_000, Fault::Answer(503, "SlowDown"), |_| true);
    let asked = Instant::now();
    let done =
        objects.append(&Key::Upload(TENANT, UploadId::from_u128(9)), 0, &mut body(&[b"x"]), 1, 1).await;
    assert!(matches!(done, Err(ObjectError::Io { .. })), "{done:?}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    // A full bucket is full, not broken.
    front.heal();
    front.fault(1_000, Fault::Answer(507, "XMinioStorageFull"), put);
    let done = objects
        .append(&Key::Upload(TENANT, UploadId::from_u128(9)), 0, &mut body(&[b"x"]), 1, 1)
        .await
        .unwrap();
    assert!(matches!(done.error, Some(ObjectError::Full)) && done.len == 0, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_the_object_was_joined_changes_nothing() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, objects) = through(&server, |_| {}).await;
        let bytes = pattern(0, PART_SIZE);
        let parts = [head(0, &bytes), head(PART_SIZE, b"last")];
        objects.put_part(&output(0), &parts[0], chunked(&bytes)).await.unwrap();
        objects.put_part(&output(0), &parts[1], body(&[b"last"])).await.unwrap();
        front.fault(1, Fault::CutAnswer(0), |seen| seen.method == "POST" && seen.query.contains("uploadId"));
        objects.finish(&output(0), &parts).await.unwrap();
        assert_eq!(front.unmet(), 0);
        assert!(read(&objects, &output(0), 0..PART_SIZE + 4).await.ends_with(b"last"), "{kind:?}");

        let size = PART_SIZE + 4;
        let key = Key::Upload(TENANT, UPLOAD);
        objects.append(&key, 0, &mut chunked(&[&bytes[..], b"last"].concat()), u64::MAX, size).await.unwrap();
        front.fault(1, Fault::CutAnswer(0), |seen| seen.method == "POST" && seen.query.contains("uploadId"));
        objects.finish_upload(TENANT, UPLOAD, size).await.unwrap();
        assert_eq!(front.unmet(), 0);
        assert!(read(&objects, &key, 0..size).await.ends_with(b"last"), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_rotated_without_a_restart() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (front, objects) = through(&server, |_| {}).await;
        objects.put_part(&output(0), &head(0, b"one"), body(&[b"one"])).await.unwrap();
        server.credentials("another-access-key", "another-secret-key");
        assert!(objects.ping().await.is_err(), "{kind:?}: they are used at once");
        assert!(objects.put_part(&output(1), &head(0, b"two"), body(&[b"two"])).await.is_err());
        assert!(objects.read(&output(0), 0..3).await.is_err());
        server.good_credentials();
        objects.ping().await.unwrap();
        assert_eq!(read(&objects, &output(0), 0..3).await, b"one");
        // They expire just before the file is replaced.
        front.fault(1, Fault::Answer(403, "ExpiredToken"), get);
        front.fault(1, Fault::Answer(400, "ExpiredToken"), |seen| seen.query.contains("list-type"));
        assert_eq!(read(&objects, &output(0), 0..3).await, b"one");
        assert_eq!(owners(&objects, 1_000).await.len(), 1);
        assert_eq!(front.unmet(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_object_is_not_read_on() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let (objects, intruder) = (server.objects(), server.objects());
        objects.put_part(&output(0), &head(0, b"true"), body(&[b"true"])).await.unwrap();
        objects.finish(&output(0), &[head(0, b"true")]).await.unwrap();
        assert_eq!(read(&objects, &output(0), 0..4).await, b"true");
        intruder.put_part(&output(0), &head(0, b"fake"), body(&[b"fake"])).await.unwrap();
        let refused = objects.read(&output(0), 0..4).await.map(drop);
        assert!(matches!(refused, Err(ObjectError::Changed)), "{kind:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_within_a_part_costs_that_part() {
    for kind in Kind::ALL {
        let mut server = Server::start(kind);
        let objects = server.objects();
        let bytes = pattern(0, PART_SIZE);
        let (first, last) = (head(0, &bytes), head(PART_SIZE, b"last"));
        objects.put_part(&output(0), &first, chunked(&bytes)).await.unwrap();
        let (feed, slow) = fed();
        let part = head(PART_SIZE, &bytes);
        let sending = {
            let objects = objects.clone();
            tokio::spawn(async move { objects.put_part(&output(0), &part, slow).await })
        };
        for chunk in bytes[..4 << 20].chunks(1 << 20) {
            feed.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        server.kill();
        // The rest of the body comes; nobody is there.
        for chunk in bytes[4 << 20..].chunks(1 << 20) {
            let _ = feed.send(Bytes::copy_from_slice(chunk)).await;
        }
        drop(feed);
        let broken = sending.await.unwrap();
        assert!(matches!(broken, Err(ObjectError::Io { .. })), "{kind:?}: {broken:?}");
        assert!(objects.ping().await.is_err(), "{kind:?}");
        server.restart();
        assert!(objects.finish(&output(0), &[first, part]).await.is_err(), "{kind:?}: nothing of it is kept");
        objects.put_part(&output(0), &last, body(&[b"last"])).await.unwrap();
        objects.finish(&output(0), &[first, last]).await.unwrap();
        let whole = read(&objects, &output(0), 0..PART_SIZE + 4).await;
        assert!(whole == [&bytes[..], b"last"].concat(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_from_what_was_safe_when_the_server_was_killed() {
    for kind in Kind::ALL {
        let mut server = Server::start(kind);
        let objects = server.objects();
        let content = pattern(0, 4 * PART_SIZE + 7);
        let size = content.len() as u64;
        let key = Key::Upload(TENANT, UPLOAD);
        let (feed, mut slow) = fed();
        let sending = {
            let (objects, key) = (objects.clone(), key.clone());
            tokio::spawn(async move { objects.append(&key, 0, &mut slow, u64::MAX, size).await })
        };
        let mut chunks = content.chunks(1 << 20);
        for chunk in chunks.by_ref().take(22) {
            feed.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        server.kill();
        for chunk in chunks {
            // It stops taking bytes when it finds storage gone.
            if feed.send(Bytes::copy_from_slice(chunk)).await.is_err() {
                break;
            }
        }
        drop(feed);
        let done = sending.await.unwrap().unwrap();
        assert!(matches!(done.error, Some(ObjectError::Io { .. })) && !done.ended, "{kind:?}: {done:?}");
        assert!(done.len < size && done.len % PART_SIZE == 0, "{kind:?}: {done:?}");
        server.restart();
        let rest = &content[usize::try_from(done.len).unwrap()..];
        let more =
            objects.append(&key, done.len, &mut chunked(rest), u64::MAX, size - done.len).await.unwrap();
        assert!(more.ended && more.len == rest.len() as u64, "{kind:?}: {more:?}");
        objects.finish_upload(TENANT, UPLOAD, size).await.unwrap();
        assert!(read(&objects, &key, 0..size).await == content, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_leaves_nothing_that_can_be_seen() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let objects = server.objects();
        let (feed, slow) = fed();
        let part = head(0, b"abcdef");
        let sending = {
            let objects = objects.clone();
            tokio::spawn(async move { objects.put_part(&output(0), &part, slow).await })
        };
        feed.send(Bytes::from_static(b"abc")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
        let given_up = Instant::now();
        feed.closed().await;
        assert!(given_up.elapsed() < Duration::from_secs(1), "{kind:?}: the worker's side is let go");
        assert!(matches!(objects.finish(&output(0), &[part]).await, Err(ObjectError::Missing)), "{kind:?}");
        assert!(owners(&objects, 1_000).await.is_empty(), "{kind:?}");
        // The next one does not get the connection that was broken off.
        objects.put_part(&output(0), &part, body(&[b"abcdef"])).await.unwrap();
        objects.finish(&output(0), &[part]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_told_to_encrypt() {
    let server = Server::start(Kind::Minio);
    for (encryption, name, key) in [
        (Encryption::S3, "AES256", None),
        (Encryption::Kms(None), "aws:kms", None),
        (Encryption::Kms(Some("test-key".into())), "aws:kms", Some("test-key")),
    ] {
        let (front, objects) = through(&server, |c| c.encryption = encryption.clone()).await;
        conformance::objects::all(&objects, &objects).await;
        let seen = front.seen();
        let writes = |seen: &&Seen| {
            (seen.method == "PUT" && !seen.query.contains("partNumber"))
                || (seen.method == "POST" && seen.query.starts_with("uploads"))
        };
        assert!(seen.iter().filter(writes).count() > 10);
        for write in seen.iter().filter(writes) {
            assert_eq!(write.header("x-amz-server-side-encryption"), Some(name), "{write:?}");
            assert_eq!(write.header("x-amz-server-side-encryption-aws-kms-key-id"), key, "{write:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_not_trusted() {
    let server = Server::start_tls(Kind::Versitygw);
    server.objects().ping().await.unwrap();
    let objects = S3Objects::open(&S3Config { ca_file: None, ..server.config() }).unwrap();
    let refused = objects.ping().await.unwrap_err();
    let mut chain = refused.to_string();
    let mut source = std::error::Error::source(&refused);
    while let Some(inner) = source {
        chain = format!("{chain}: {inner}");
        source = inner.source();
    }
    assert!(chain.contains("UnknownIssuer"), "{chain}");
    let other = Server::start_tls(Kind::Versitygw);
    let objects = S3Objects::open(&S3Config { ca_file: other.ca.clone(), ..server.config() }).unwrap();
    assert!(objects.ping().await.is_err());
}
