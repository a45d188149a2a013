//! Bytes stream through: what a transfer takes of memory does not grow with what it carries.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, missing_docs, reason = "tests")]

#[path = "support/s3.rs"]
mod s3;

use bytes::Bytes;
use futures_util::StreamExt as _;
use mpegflow_broker::objects::{Body, Key, Objects as _, PartHead};
use mpegflow_broker::secret::sha256;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use s3::{Kind, Server};
use std::time::Duration;

const STREAMS: u32 = 48;
const CHUNK: usize = 64 << 10;

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A body whose bytes are not copied, and come slowly enough for all bodies to be under way at once.
fn body(part: &Bytes) -> Body {
    let part = part.clone();
    let chunks = (0..part.len()).step_by(CHUNK).map(move |at| part.slice(at..at + CHUNK));
    Box::pin(futures_util::stream::iter(chunks).then(async |chunk| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(chunk)
    }))
}

/// The most that memory grew by while this ran, in KiB for each stream.
async fn growth(what: impl Future<Output = ()>) -> u64 {
    let before = resident();
    let mut most = before;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            () = &mut what => return (most - before) / u64::from(STREAMS),
            _ = tick.tick() => most = most.max(resident()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_ranges_of_eight_mebibytes_take_a_fraction_of_that_in_memory() {
    let server = Server::start(Kind::Versitygw);
    let objects = server.objects();
    let part = Bytes::from(vec![7; usize::try_from(PART_SIZE).unwrap()]);
    let head = PartHead { offset: 0, size: PART_SIZE, sha256: sha256(&part) };
    let key = |n| Key::Output(TenantId::from_u128(1), JobId::from_u128(2), AttemptId::from_u128(3), n);
    let each = |n: u32| {
        let (objects, part) = (objects.clone(), part.clone());
        async move { objects.put_part(&key(n), &head, body(&part)).await.unwrap() }
    };
    // Connections, TLS tables and the like: once.
    each(1_000).await;
    let written = growth(async {
        futures_util::future::join_all((0..STREAMS).map(each)).await;
    })
    .await;
    for n in 0..STREAMS {
        objects.finish(&key(n), &[head]).await.unwrap();
    }
    let read = growth(async {
        let each = |n| {
            let objects = objects.clone();
            async move {
                let mut left = PART_SIZE;
                let mut stream = objects.read(&key(n), 0..PART_SIZE).await.unwrap();
                while let Some(chunk) = stream.next().await {
                    left -= chunk.unwrap().len() as u64;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                assert_eq!(left, 0);
            }
        };
        futures_util::future::join_all((0..STREAMS).map(each)).await;
    })
    .await;
    let uploaded = growth(async {
        let each = |n: u32| {
            let (objects, part) = (objects.clone(), part.clone());
            async move {
                let key = Key::Upload(TenantId::from_u128(1), UploadId::from_u128(u128::from(n)));
                let done = objects.append(&key, 0, &mut body(&part), u64::MAX, 2 * PART_SIZE).await.unwrap();
                assert!(done.len == PART_SIZE && done.error.is_none(), "{done:?}");
            }
        };
        futures_util::future::join_all((0..STREAMS).map(each)).await;
    })
    .await;
    eprintln!("KiB for each stream: {written} written, {read} read, {uploaded} uploaded");
    assert!(written <= 256 && read <= 256 && uploaded <= 256, "{written} {read} {uploaded}");
}
