//! A URL, an object's name or a secret never gets into a log or an error: every operation fails in every way there is, with the
//! most talkative log there is, of every crate.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/s3_front.rs"]
mod front;
#[path = "support/log.rs"]
mod log;
#[path = "support/s3.rs"]
mod s3;

use front::{Fault, Front};
use futures_util::StreamExt as _;
use log::Log;
use mpegflow_broker::conformance::objects::{broken, chunked, head, pattern};
use mpegflow_broker::objects::s3::{S3Config, S3Objects};
use mpegflow_broker::objects::{Cursor, Key, ObjectError, Objects as _};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use s3::{BUCKET, Kind, Server};

const TENANT: TenantId = TenantId::from_u128(0x5ec2e7);
const JOB: JobId = JobId::from_u128(3);

/// Everything the trait can do; what came of it, as far as it is an error.
async fn everything(objects: &S3Objects, round: u128) -> Vec<ObjectError> {
    let upload = UploadId::from_u128(round);
    let attempt = AttemptId::from_u128(round);
    let (input, output) = (Key::Upload(TENANT, upload), Key::Output(TENANT, JOB, attempt, 0));
    let content = pattern(0, PART_SIZE + 10);
    let size = content.len() as u64;
    let mut errors = Vec::new();
    match objects.append(&input, 0, &mut chunked(&content[..100]), u64::MAX, size).await {
        Ok(done) => errors.extend(done.error),
        Err(e) => errors.push(e),
    }
    match objects.append(&input, 100, &mut chunked(&content[100..]), u64::MAX, size - 100).await {
        Ok(done) => errors.extend(done.error),
        Err(e) => errors.push(e),
    }
    errors.extend(objects.finish_upload(TENANT, upload, size).await.err());
    let (first, last) = (head(0, &content[..PART_SIZE as usize]), head(PART_SIZE, b"last"));
    errors.extend(objects.put_part(&output, &first, chunked(&content[..PART_SIZE as usize])).await.err());
    errors.extend(objects.put_part(&output, &last, broken(b"la")).await.err());
    errors.extend(objects.put_part(&output, &last, chunked(b"lest")).await.err());
    errors.extend(objects.put_part(&output, &last, chunked(b"last")).await.err());
    errors.extend(objects.finish(&output, &[first, last]).await.err());
    errors.extend(objects.finish(&Key::Output(TENANT, JOB, attempt, 1), &[]).await.err());
    for key in [input, output] {
        match objects.read(&key, 0..PART_SIZE + 4).await {
            Err(e) => errors.push(e),
            Ok(mut stream) => {
                while let Some(chunk) = stream.next().await {
                    errors.extend(chunk.err().map(|source| ObjectError::Io { step: "read", source }));
                }
            }
        }
    }
    errors.extend(objects.owners(&Cursor::default(), 1_000).await.err());
    errors.extend(objects.remove_upload(TENANT, upload).await.err());
    errors.extend(objects.remove_attempt(TENANT, JOB, attempt).await.err());
    errors.extend(objects.ping().await.err());
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn no_url_name_or_secret_gets_into_an_error_or_a_log() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let server = Server::start(Kind::Versitygw);
    let address = server.address;
    let front = Front::before(address).await;
    // The proxy is in this process and would be heard too; what it says is hyper's, of the same connections.
    let config = S3Config { endpoint: Some(front.endpoint()), ..server.config() };
    let objects = S3Objects::open(&config).unwrap();

    let mut errors = everything(&objects, 1).await;
    assert!(errors.len() < 4, "nearly all of it works: {errors:?}");
    let faults = [
        Fault::Answer(403, "SignatureDoesNotMatch"),
        Fault::Answer(404, "NoSuchBucket"),
        Fault::Answer(409, "OperationAborted"),
        Fault::Answer(500, "InternalError"),
        Fault::Answer(200, "InternalError"),
        Fault::CutAnswer(3),
        Fault::NoHeader("etag"),
        Fault::Header("content-range", "bytes 0-1/2"),
        Fault::Header("x-amz-checksum-sha256", "bm90IGl0"),
        Fault::FlipRequest,
    ];
    // At once: most of the time is waiting between tries.
    let rounds = (2..).zip(faults).map(async |(round, fault)| {
        let front = Front::before(address).await;
        front.fault(100_000, fault.clone(), |_| true);
        let objects =
            S3Objects::open(&S3Config { endpoint: Some(front.endpoint()), ..config.clone() }).unwrap();
        let found = everything(&objects, round).await;
        assert!(found.len() > 2, "{fault:?}: {found:?}");
        found
    });
    let nobody = mpegflow_test_ports::address();
    let nobody = S3Config { endpoint: Some(format!("http://{nobody}")), ..server.config() };
    let without_server = S3Objects::open(&nobody).unwrap();
    let rounds = futures_util::future::join_all(rounds);
    let (rounds, unanswered) = tokio::join!(rounds, everything(&without_server, 100));
    errors.extend(rounds.into_iter().flatten().chain(unanswered));
    // The credentials are gone before they were ever read by this one, or are nonsense.
    std::fs::remove_file(&config.credentials_file).unwrap();
    let no_file = S3Objects::open(&config).unwrap_err();

    let mut said: Vec<String> = errors
        .iter()
        .map(|error| {
            let mut chain = format!("{error} {error:?}");
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                chain = format!("{chain}: {inner} {inner:?}");
                source = inner.source();
            }
            chain
        })
        .collect();
    said.push(format!("{no_file} {no_file:?} {objects:?} {without_server:?}"));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("storage is asked again"), "the log is on");
    assert!(log.lines().count() > 200, "and talkative");
    let secrets = [
        TENANT.to_string(),
        JOB.to_string(),
        "X-Amz-".into(),
        "Signature=".into(),
        server.password.clone(),
        server.user.clone(),
        format!("/{BUCKET}"),
        "uploadId".into(),
        "mpegflow/tnt".into(),
    ];
    for secret in secrets {
        for text in said.iter().map(String::as_str).chain(log.lines()) {
            assert!(!text.contains(&secret), "`{secret}` in: {text}");
        }
    }
}
