//! What every [`Objects`] promises.

use crate::objects::{Body, BodyError, Key, ObjectError, Objects, PartHead};
use crate::secret::sha256;
use bytes::Bytes;
use futures_util::StreamExt as _;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};

fn body(chunks: &[&'static [u8]]) -> Body {
    let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
    Box::pin(futures_util::stream::iter(chunks))
}

fn broken(first: &'static [u8]) -> Body {
    Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(first)), Err(BodyError::Idle)]))
}

async fn read(objects: &dyn Objects, key: &Key, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut stream = objects.read(key, range).await.unwrap();
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        whole.extend_from_slice(&chunk.unwrap());
    }
    whole
}

/// Every promise, on empty storage.
pub async fn all(objects: &dyn Objects) {
    objects.ping().await.unwrap();
    uploads(objects).await;
    parts(objects).await;
}

async fn uploads(objects: &dyn Objects) {
    let (tenant, upload) = (TenantId::from_u128(1), UploadId::from_u128(2));
    let key = Key::Upload(tenant, upload);
    assert!(matches!(objects.read(&key, 0..1).await, Err(ObjectError::Missing)));

    let mut chunks = body(&[b"abc", b"def", b"ghi"]);
    let first = objects.append(&key, 0, &mut chunks, 5, 100).await.unwrap();
    assert!(!first.ended && first.len == 6, "about as much as was asked for: {first:?}");
    let rest = objects.append(&key, 6, &mut chunks, 5, 100).await.unwrap();
    assert!(rest.ended && rest.len == 3 && rest.error.is_none(), "{rest:?}");
    assert_eq!(read(objects, &key, 0..9).await, b"abcdefghi");
    assert_eq!(read(objects, &key, 2..5).await, b"cde");
    assert!(matches!(objects.read(&key, 0..10).await, Err(ObjectError::Length)), "shorter than asked for");

    // What came before a break counts; what is not counted is overwritten.
    let half = objects.append(&key, 9, &mut broken(b"jkl"), 100, 100).await.unwrap();
    assert!(half.len == 3 && matches!(half.error, Some(ObjectError::Body(_))), "{half:?}");
    let over = objects.append(&key, 12, &mut body(&[b"mn", b"opq"]), 100, 4).await.unwrap();
    assert!(
        over.len == 2 && matches!(over.error, Some(ObjectError::Length)),
        "never more than allowed: {over:?}"
    );
    objects.append(&key, 9, &mut body(&[b"JKL"]), 100, 100).await.unwrap();
    assert_eq!(read(objects, &key, 6..12).await, b"ghiJKL");

    assert_eq!(objects.uploads().await.unwrap(), [(tenant, upload)]);
    objects.remove_upload(tenant, upload).await.unwrap();
    objects.remove_upload(tenant, upload).await.unwrap();
    assert!(objects.uploads().await.unwrap().is_empty());
}

async fn parts(objects: &dyn Objects) {
    let (tenant, job) = (TenantId::from_u128(1), JobId::from_u128(3));
    let (one, two) = (AttemptId::from_u128(4), AttemptId::from_u128(5));
    let key = Key::Output(tenant, job, one, 0);
    let head = |offset, bytes: &[u8]| PartHead { offset, size: bytes.len() as u64, sha256: sha256(bytes) };
    objects.put_part(&key, &head(0, b"first"), body(&[b"fi", b"rst"])).await.unwrap();

    // Short, long, another digest, broken off: nothing of it is kept.
    let second = head(5, b"second");
    for (bad, what) in [(body(&[b"secon"]), "short"), (body(&[b"second", b"!"]), "long")] {
        assert!(matches!(objects.put_part(&key, &second, bad).await, Err(ObjectError::Length)), "{what}");
    }
    assert!(matches!(objects.put_part(&key, &second, body(&[b"sekond"])).await, Err(ObjectError::Digest)));
    assert!(matches!(objects.put_part(&key, &second, broken(b"sec")).await, Err(ObjectError::Body(_))));
    assert!(objects.read(&key, 0..6).await.is_err(), "nothing of a bad part is kept");
    assert!(matches!(objects.finish(&key, 11).await, Err(ObjectError::Length)), "it is not that long");
    objects.put_part(&key, &second, body(&[b"second"])).await.unwrap();
    objects.finish(&key, 11).await.unwrap();
    assert_eq!(read(objects, &key, 0..11).await, b"firstsecond");

    // Nothing that was written beyond the end is seen.
    objects.put_part(&key, &head(11, b"extra"), body(&[b"extra"])).await.unwrap();
    objects.finish(&key, 11).await.unwrap();
    assert!(objects.read(&key, 0..12).await.is_err());
    let empty = Key::Output(tenant, job, one, 1);
    objects.finish(&empty, 0).await.unwrap();

    // Another attempt is another place.
    let other = Key::Output(tenant, job, two, 0);
    objects.put_part(&other, &head(0, b"other"), body(&[b"other"])).await.unwrap();
    let mut attempts = objects.attempts().await.unwrap();
    attempts.sort_unstable();
    assert_eq!(attempts, [(tenant, job, one), (tenant, job, two)]);
    objects.remove_attempt(tenant, job, two).await.unwrap();
    objects.remove_attempt(tenant, job, two).await.unwrap();
    assert_eq!(read(objects, &key, 0..5).await, b"first");
    objects.remove_attempt(tenant, job, one).await.unwrap();
    assert!(objects.attempts().await.unwrap().is_empty());
}
