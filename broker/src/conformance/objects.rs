//! What every [`Objects`] promises.

use crate::objects::{Body, BodyError, Cursor, Key, ObjectError, Objects, Owner, PartHead};
use crate::secret::sha256;
use bytes::Bytes;
use futures_util::StreamExt as _;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::PART_SIZE;
use std::collections::BTreeSet;

const TENANT: TenantId = TenantId::from_u128(1);
const JOB: JobId = JobId::from_u128(3);

/// Bytes that differ wherever a mistake could shift, repeat or leave out some.
pub fn pattern(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|at| (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(131)) as u8).collect()
}

/// A body of these chunks.
pub fn body(chunks: &[&[u8]]) -> Body {
    let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    Box::pin(futures_util::stream::iter(chunks))
}

/// A body as a connection brings it.
pub fn chunked(bytes: &[u8]) -> Body {
    body(&bytes.chunks(300_001).collect::<Vec<_>>())
}

/// A body that breaks off after these bytes.
pub fn broken(first: &[u8]) -> Body {
    let first = Bytes::copy_from_slice(first);
    Box::pin(futures_util::stream::iter([Ok(first), Err(BodyError::Idle)]))
}

/// What is announced of a part.
pub fn head(offset: u64, bytes: &[u8]) -> PartHead {
    PartHead { offset, size: bytes.len() as u64, sha256: sha256(bytes) }
}

/// A range, whole.
pub async fn read(objects: &dyn Objects, key: &Key, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut stream = objects.read(key, range).await.unwrap();
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        whole.extend_from_slice(&chunk.unwrap());
    }
    whole
}

/// Everybody who has something, in order, listed by so many names at once.
pub async fn owners(objects: &dyn Objects, most: u32) -> Vec<Owner> {
    let (mut found, mut from) = (BTreeSet::new(), Cursor::default());
    loop {
        let part = objects.owners(&from, most).await.unwrap();
        found.extend(part.owners);
        match part.next {
            Some(next) => from = next,
            None => return found.into_iter().collect(),
        }
    }
}

/// Every promise, on empty storage. `one` and `other` are two brokers' views of it: neither may rely on what it remembers.
pub async fn all(one: &dyn Objects, other: &dyn Objects) {
    one.ping().await.unwrap();
    small_upload(one, other).await;
    lost_calls(one, other).await;
    odd_offsets(one, other).await;
    many_small_appends(one, other).await;
    small_parts(one, other).await;
    large_parts(one, other).await;
    removal(one, other).await;
}

async fn small_upload(one: &dyn Objects, other: &dyn Objects) {
    let upload = UploadId::from_u128(2);
    let key = Key::Upload(TENANT, upload);
    assert!(matches!(one.read(&key, 0..1).await, Err(ObjectError::Missing)));
    one.finish_upload(TENANT, UploadId::from_u128(99), 0).await.unwrap();
    let missing = one.finish_upload(TENANT, upload, 12).await;
    assert!(matches!(missing, Err(ObjectError::Missing | ObjectError::Length)), "{missing:?}");

    let mut chunks = body(&[b"abc", b"def", b"ghi"]);
    let first = one.append(&key, 0, &mut chunks, 5, 12).await.unwrap();
    assert!(!first.ended && first.len == 6, "about as much as was asked for: {first:?}");
    let rest = one.append(&key, 6, &mut chunks, 5, 6).await.unwrap();
    assert!(rest.ended && rest.len == 3 && rest.error.is_none(), "{rest:?}");
    assert_eq!(owners(one, 1).await, [Owner::Upload(TENANT, upload)], "it has bytes");
    let early = one.finish_upload(TENANT, upload, 12).await;
    assert!(
        matches!(early, Err(ObjectError::Missing | ObjectError::Length)),
        "it lacks three bytes: {early:?}"
    );

    // What came before a break is kept.
    let half = other.append(&key, 9, &mut broken(b"jk"), 100, 3).await.unwrap();
    assert!(half.len == 2 && matches!(half.error, Some(ObjectError::Body(_))), "{half:?}");
    // It was not counted: the same offset again, and whatever was there is overwritten, whole or not.
    let whole = other.append(&key, 9, &mut body(&[b"xyz"]), 100, 3).await.unwrap();
    assert!(whole.ended && whole.len == 3, "{whole:?}");
    let over = one.append(&key, 9, &mut body(&[b"JK", b"LM"]), 100, 3).await.unwrap();
    assert!(
        over.len == 2 && matches!(over.error, Some(ObjectError::Length)),
        "never more than allowed: {over:?}"
    );
    let last = other.append(&key, 11, &mut body(&[b"L"]), 100, 1).await.unwrap();
    assert!(last.ended && last.len == 1 && last.error.is_none(), "{last:?}");
    // A call that brings nothing changes nothing.
    let none = one.append(&key, 12, &mut body(&[]), 100, 0).await.unwrap();
    assert!(none.ended && none.len == 0 && none.error.is_none(), "{none:?}");

    one.finish_upload(TENANT, upload, 12).await.unwrap();
    other.finish_upload(TENANT, upload, 12).await.unwrap();
    assert_eq!(read(one, &key, 0..12).await, b"abcdefghiJKL");
    assert_eq!(read(other, &key, 2..5).await, b"cde");
    assert_eq!(read(one, &key, 3..3).await, b"");
    assert!(matches!(one.read(&key, 0..13).await, Err(ObjectError::Length)), "shorter than asked for");
    assert!(matches!(one.read(&key, 12..13).await, Err(ObjectError::Length)), "shorter than asked for");

    assert_eq!(owners(one, 1).await, [Owner::Upload(TENANT, upload)]);
    other.remove_upload(TENANT, upload).await.unwrap();
    one.remove_upload(TENANT, upload).await.unwrap();
    assert!(owners(one, 1).await.is_empty());
    assert!(matches!(one.read(&key, 0..1).await, Err(ObjectError::Missing)));
}

/// What a call wrote that was never counted is never part of the object, even where later calls stop at the same places.
async fn lost_calls(one: &dyn Objects, other: &dyn Objects) {
    let upload = UploadId::from_u128(8);
    let key = Key::Upload(TENANT, upload);
    let calls: [(u64, &[u8], bool); 7] = [
        (0, b"XXXXXXXXX", false),
        (0, b"abcde", true),
        (5, b"YYYYYYYYYYYYYY", false),
        (5, b"fghi", true),
        (9, b"ZZZZZZZZZZZ", false),
        (9, b"jklmnopqrs", true),
        (19, b"t", true),
    ];
    for (n, (at, bytes, counted)) in calls.into_iter().enumerate() {
        let objects = if n % 2 == 0 { one } else { other };
        let done = objects.append(&key, at, &mut body(&[bytes]), 100, 20 - at).await.unwrap();
        assert!(done.len == bytes.len() as u64 && done.error.is_none(), "{at} {counted}: {done:?}");
    }
    other.finish_upload(TENANT, upload, 20).await.unwrap();
    assert_eq!(read(one, &key, 0..20).await, b"abcdefghijklmnopqrst");
    one.remove_upload(TENANT, upload).await.unwrap();
    assert!(owners(other, 1).await.is_empty());
}

/// Calls that start and end anywhere, above all around the borders of whatever storage cuts an object into.
async fn odd_offsets(one: &dyn Objects, other: &dyn Objects) {
    let upload = UploadId::from_u128(6);
    let key = Key::Upload(TENANT, upload);
    let size = 2 * PART_SIZE + 1_000;
    let content = pattern(0, size);
    let stops = [1, 7, PART_SIZE - 3, PART_SIZE, PART_SIZE + 5, 2 * PART_SIZE - 1, 2 * PART_SIZE + 999, size];
    let mut at = 0;
    for (n, stop) in stops.into_iter().enumerate() {
        let objects = if n % 2 == 0 { one } else { other };
        // First a call that cannot be recorded, of other bytes and another length.
        let lost = vec![0xEE; (stop - at + 10).min(size - at) as usize];
        objects.append(&key, at, &mut chunked(&lost), u64::MAX, size - at).await.unwrap();
        let bytes = &content[at as usize..stop as usize];
        let done = objects.append(&key, at, &mut chunked(bytes), u64::MAX, size - at).await.unwrap();
        assert!(done.ended && done.len == stop - at && done.error.is_none(), "to {stop}: {done:?}");
        at = stop;
    }
    one.finish_upload(TENANT, upload, size).await.unwrap();
    other.finish_upload(TENANT, upload, size).await.unwrap();
    assert!(read(other, &key, 0..size).await == content, "every byte where it belongs");
    // Any range is the same bytes.
    let mut seed = 1_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let ranges = (0..60).map(|_| {
        let start = next(size);
        start..(start + 1 + next(40_000)).min(size)
    });
    for range in ranges.chain([PART_SIZE - 10..PART_SIZE + 10, 0..1, size - 1..size]) {
        let expected = &content[range.start as usize..range.end as usize];
        assert!(read(one, &key, range.clone()).await == expected, "{range:?}");
    }
    one.remove_upload(TENANT, upload).await.unwrap();
    assert!(owners(one, 1).await.is_empty());
}

async fn many_small_appends(one: &dyn Objects, other: &dyn Objects) {
    let upload = UploadId::from_u128(7);
    let key = Key::Upload(TENANT, upload);
    let content = pattern(0, 75);
    for (at, byte) in content.iter().enumerate() {
        let objects = if at % 3 == 0 { one } else { other };
        let done = objects.append(&key, at as u64, &mut body(&[&[*byte]]), 1, 75 - at as u64).await.unwrap();
        assert_eq!(done.len, 1, "{done:?}");
    }
    one.finish_upload(TENANT, upload, 75).await.unwrap();
    assert_eq!(read(one, &key, 0..75).await, content);
    one.remove_upload(TENANT, upload).await.unwrap();
    assert!(owners(one, 1).await.is_empty());
}

async fn small_parts(one: &dyn Objects, other: &dyn Objects) {
    let attempt = AttemptId::from_u128(4);
    let key = Key::Output(TENANT, JOB, attempt, 0);
    let only = head(0, b"second");
    // Short, long, another digest, broken off: nothing of it is kept.
    bad_parts(one, &key, &only).await;
    assert!(one.read(&key, 0..1).await.is_err(), "nothing of a bad part is kept");
    assert!(one.finish(&key, &[only]).await.is_err());
    one.put_part(&key, &only, body(&[b"sec", b"ond"])).await.unwrap();
    other.put_part(&key, &only, body(&[b"second"])).await.unwrap();
    one.finish(&key, &[only]).await.unwrap();
    other.finish(&key, &[only]).await.unwrap();
    assert_eq!(read(other, &key, 0..6).await, b"second");
    assert!(one.read(&key, 0..7).await.is_err());

    let empty = Key::Output(TENANT, JOB, attempt, 1);
    one.finish(&empty, &[]).await.unwrap();
    assert_eq!(read(one, &empty, 0..0).await, b"");
    one.remove_attempt(TENANT, JOB, attempt).await.unwrap();
    assert!(owners(one, 1).await.is_empty());
}

async fn bad_parts(objects: &dyn Objects, key: &Key, second: &PartHead) {
    for (bad, what) in [
        (body(&[b"secon"]), "short"),
        (body(&[]), "empty"),
        (body(&[b"second", b"!"]), "long"),
        (body(&[b"second!"]), "long in one chunk"),
    ] {
        let refused = objects.put_part(key, second, bad).await;
        assert!(matches!(refused, Err(ObjectError::Length)), "{what}: {refused:?}");
    }
    let refused = objects.put_part(key, second, body(&[b"sekond"])).await;
    assert!(matches!(refused, Err(ObjectError::Digest)), "{refused:?}");
    let refused = objects.put_part(key, second, broken(b"sec")).await;
    assert!(matches!(refused, Err(ObjectError::Body(_))), "{refused:?}");
}

async fn large_parts(one: &dyn Objects, other: &dyn Objects) {
    let attempt = AttemptId::from_u128(4);
    let key = Key::Output(TENANT, JOB, attempt, 2);
    let bytes = pattern(0, PART_SIZE);
    let (first, second) = (head(0, &bytes), head(PART_SIZE, b"second"));
    let third = head(2 * PART_SIZE, b"third");
    one.put_part(&key, &first, chunked(&bytes)).await.unwrap();
    assert_eq!(owners(one, 1).await, [Owner::Attempt(TENANT, JOB, attempt)], "it has written something");
    bad_parts(other, &key, &second).await;
    assert!(one.finish(&key, &[first, second]).await.is_err(), "it is not that long");
    other.put_part(&key, &second, body(&[b"second"])).await.unwrap();
    one.put_part(&key, &second, body(&[b"second"])).await.unwrap();
    // Never asked for again: it is not part of the object.
    other.put_part(&key, &third, body(&[b"third"])).await.unwrap();
    one.finish(&key, &[first, second]).await.unwrap();
    other.finish(&key, &[first, second]).await.unwrap();
    let size = PART_SIZE + 6;
    let whole = read(other, &key, 0..size).await;
    assert!(whole.starts_with(&bytes) && whole.ends_with(b"second") && whole.len() as u64 == size);
    assert_eq!(
        read(one, &key, PART_SIZE - 1..PART_SIZE + 3).await,
        [&bytes[bytes.len() - 1..], b"sec"].concat()
    );
    assert!(one.read(&key, 0..size + 1).await.is_err(), "nothing beyond the end is seen");

    // At once and in any order.
    let key = Key::Output(TENANT, JOB, attempt, 3);
    let (a, b, c) = tokio::join!(
        one.put_part(&key, &second, body(&[b"second"])),
        other.put_part(&key, &first, chunked(&bytes)),
        one.put_part(&key, &first, chunked(&bytes)),
    );
    for put in [a, b, c] {
        put.unwrap();
    }
    one.remove_attempt(TENANT, JOB, attempt).await.unwrap();
    assert!(owners(other, 1).await.is_empty(), "neither finished nor unfinished outputs are left");
}

async fn removal(one: &dyn Objects, other: &dyn Objects) {
    let (first, second) = (AttemptId::from_u128(4), AttemptId::from_u128(5));
    for attempt in [first, second] {
        let key = Key::Output(TENANT, JOB, attempt, 0);
        one.put_part(&key, &head(0, b"other"), body(&[b"other"])).await.unwrap();
        one.finish(&key, &[head(0, b"other")]).await.unwrap();
    }
    // Whoever lists them gets all of them, in parts of whatever length, and of every tenant.
    let (theirs, upload) = (TenantId::from_u128(8), UploadId::from_u128(9));
    one.append(&Key::Upload(theirs, upload), 0, &mut body(&[b"theirs"]), 6, 6).await.unwrap();
    let all = [
        Owner::Upload(theirs, upload),
        Owner::Attempt(TENANT, JOB, first),
        Owner::Attempt(TENANT, JOB, second),
    ];
    for most in [1, 2, 1_000] {
        assert_eq!(owners(other, most).await, all, "{most}");
    }
    other.remove_upload(theirs, upload).await.unwrap();
    one.remove_attempt(TENANT, JOB, second).await.unwrap();
    other.remove_attempt(TENANT, JOB, second).await.unwrap();
    // Another attempt is another place.
    assert_eq!(read(one, &Key::Output(TENANT, JOB, first, 0), 0..5).await, b"other");
    one.remove_attempt(TENANT, JOB, first).await.unwrap();
    assert!(owners(one, 1).await.is_empty());
}
