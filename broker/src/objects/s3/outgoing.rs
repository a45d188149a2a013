//! A part on its way from a worker to storage, compared with what was announced before storage has all of it.

use super::limits::IDLE;
use crate::objects::{Body, BodyError, ObjectError, PartHead};
use crate::secret;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a part was cut off; the request that carried it only knows that it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<ObjectError>>>);

impl Verdict {
    /// What was found wrong, if anything.
    pub(super) fn take(&self) -> Option<ObjectError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn refuse<T>(&self, why: ObjectError) -> Result<T, BodyError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Err(BodyError::Broken("the part is not what was announced".into()))
    }
}

struct Checking {
    body: Body,
    left: u64,
    want: [u8; 32],
    /// None where storage compares it.
    digest: Option<Context>,
    held: Option<Bytes>,
    verdict: Verdict,
}

/// The body's bytes, the last chunk only when length and digest are those announced: storage keeps nothing of a request that
/// is shorter than its `Content-Length`. The digest is left to storage that compares it: that is a fifth of all that a part costs.
pub(super) fn checked(
    body: Body,
    head: &PartHead,
    storage_compares: bool,
    verdict: Verdict,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    let state = Checking {
        body,
        left: head.size,
        want: head.sha256,
        digest: (!storage_compares).then(|| Context::new(&SHA256)),
        held: None,
        verdict,
    };
    futures_util::stream::try_unfold(Some(state), async |state| {
        let Some(mut state) = state else { return Ok(None) };
        match state.next().await? {
            Some(chunk) => Ok(Some((chunk, Some(state)))),
            None => Ok(state.held.map(|last| (last, None))),
        }
    })
}

impl Checking {
    /// The next chunk but the last; `None` when all of them came and are right.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let chunk = match tokio::time::timeout(IDLE, self.body.next()).await {
                Err(_) => return self.verdict.refuse(ObjectError::Body(BodyError::Idle)),
                Ok(Some(Err(e))) => return self.verdict.refuse(ObjectError::Body(e)),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) if self.left > 0 => return self.verdict.refuse(ObjectError::Length),
                Ok(None) => {
                    let Some(digest) = self.digest.take() else { return Ok(None) };
                    let mut found = [0; 32];
                    found.copy_from_slice(digest.finish().as_ref());
                    if !secret::same(&found, &self.want) {
                        return self.verdict.refuse(ObjectError::Digest);
                    }
                    return Ok(None);
                }
            };
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let Some(left) = self.left.checked_sub(len) else {
                return self.verdict.refuse(ObjectError::Length);
            };
            self.left = left;
            if let Some(digest) = &mut self.digest {
                digest.update(&chunk);
            }
            if !chunk.is_empty()
                && let Some(before) = self.held.replace(chunk)
            {
                return Ok(Some(before));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::objects::{body, broken, head};

    /// What reaches storage of a body, and the verdict.
    async fn sent(body: Body, head: &PartHead) -> (Vec<u8>, bool, Option<ObjectError>) {
        passed(body, head, false).await
    }

    async fn passed(
        body: Body,
        head: &PartHead,
        storage_compares: bool,
    ) -> (Vec<u8>, bool, Option<ObjectError>) {
        let verdict = Verdict::default();
        let mut stream = Box::pin(checked(body, head, storage_compares, verdict.clone()));
        let (mut bytes, mut whole) = (Vec::new(), true);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => whole = false,
            }
        }
        (bytes, whole, verdict.take())
    }

    #[tokio::test]
    async fn storage_never_gets_the_last_bytes_of_a_part_that_is_not_what_was_announced() {
        let want = head(0, b"abcdef");
        let good = sent(body(&[b"ab", b"", b"cdef", b""]), &want).await;
        assert!(matches!(good, (bytes, true, None) if bytes == b"abcdef"));
        let empty = sent(body(&[]), &head(0, b"")).await;
        assert!(matches!(empty, (bytes, true, None) if bytes.is_empty()));
        let (bytes, whole, verdict) = sent(body(&[b"abc", b"deX"]), &want).await;
        assert!(bytes.len() < 6 && !whole && matches!(verdict, Some(ObjectError::Digest)));
        for bad in [body(&[b"abc", b"de"]), body(&[b"abc", b"defg"]), body(&[b"abcdef", b"g"]), body(&[])] {
            let (bytes, whole, verdict) = sent(bad, &want).await;
            assert!(bytes.len() < 6 && !whole && matches!(verdict, Some(ObjectError::Length)), "{verdict:?}");
        }
        let (bytes, whole, verdict) = sent(broken(b"abcdef"), &want).await;
        assert!(bytes.len() < 6 && !whole && matches!(verdict, Some(ObjectError::Body(_))), "{verdict:?}");
    }
    #[tokio::test]
    async fn storage_that_compares_digests_never_gets_the_last_bytes_of_a_part_of_another_length() {
        let want = head(0, b"abcdef");
        let other = passed(body(&[b"abc", b"deX"]), &want, true).await;
        assert!(matches!(other, (bytes, true, None) if bytes == b"abcdeX"));
        for bad in [body(&[b"abc", b"de"]), body(&[b"abc", b"defg"]), broken(b"abcdef")] {
            let (bytes, whole, verdict) = passed(bad, &want, true).await;
            assert!(bytes.len() < 6 && !whole && verdict.is_some(), "{verdict:?}");
        }
    }
}
