//! A range on its way from storage to a reader. When the connection breaks, the rest is asked for again, of the same version.

use super::bucket::{Bucket, again};
use super::fault::Fault;
use super::limits::{IDLE, TRIES, allowance};
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// A range that is being read.
pub(super) struct Reading {
    bucket: Arc<Bucket>,
    object: String,
    /// What is still to come.
    range: Range<u64>,
    /// The version that is read.
    tag: String,
    body: Incoming,
    deadline: Instant,
    tries: u32,
}

impl Reading {
    /// Opens a range that is not empty; of this version, where `tag` is given.
    pub(super) async fn open(
        bucket: &Arc<Bucket>,
        object: String,
        range: Range<u64>,
        tag: Option<&str>,
    ) -> Result<Self, Fault> {
        let deadline = Instant::now().checked_add(allowance(range.end.saturating_sub(range.start)));
        let (answer, tag) = again(|| bucket.get(&object, &range, tag)).await?;
        Ok(Self {
            bucket: Arc::clone(bucket),
            object,
            range,
            tag,
            body: answer.into_body(),
            deadline: deadline.ok_or(Fault::Timeout)?,
            tries: TRIES,
        })
    }

    /// The version that is read.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// The bytes: all of them, or an error at the end.
    pub(super) fn bytes(self) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        futures_util::stream::try_unfold(self, async |mut reading| {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        while self.range.start < self.range.end {
            let fault = match self.frame().await {
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Ok(None) => continue,
                Err(fault) => fault,
            };
            self.tries = self.tries.saturating_sub(1);
            if self.tries == 0 || Instant::now() >= self.deadline {
                return Err(fault);
            }
            tracing::debug!(error = %fault, "the rest of a range is asked for again");
            let reopened = again(|| self.bucket.get(&self.object, &self.range, Some(&self.tag))).await?;
            self.body = reopened.0.into_body();
        }
        Ok(None)
    }

    /// The next bytes; `None` for a frame without any.
    async fn frame(&mut self) -> Result<Option<Bytes>, Fault> {
        let patience = Instant::now().checked_add(IDLE).unwrap_or(self.deadline).min(self.deadline);
        let frame = match timeout_at(patience, self.body.frame()).await {
            Err(_) => return Err(Fault::Timeout),
            Ok(None) => return Err(Fault::Length),
            Ok(Some(frame)) => frame.map_err(|e| Fault::Connection(e.into()))?,
        };
        let Ok(chunk) = frame.into_data() else { return Ok(None) };
        let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let next = self.range.start.saturating_add(len);
        if next > self.range.end {
            return Err(Fault::Strange("more than was asked for"));
        }
        self.range.start = next;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}
