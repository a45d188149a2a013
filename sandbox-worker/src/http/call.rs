//! One HTTP call: a request, a time limit for its answer, and what its status means.

use crate::broker::{Body, CallError, Chunks};
use crate::http::tls::Client;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, ETAG};
use hyper::{Request, Response, StatusCode};
use mpegflow_protocol::api::Problem;
use mpegflow_protocol::limits::{MAX_API_BODY, MAX_WORKER_BODY};
use mpegflow_protocol::{from_json, text};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a body may pause.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(
    client: &Client,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Response<Incoming>, CallError> {
    match timeout(within, client.request(request)).await {
        Ok(Ok(response)) => judged(response).await,
        Ok(Err(error)) => Err(CallError::Unavailable(chain(&error))),
        Err(_) => Err(CallError::Unavailable(format!("no answer within {} s", within.as_secs()))),
    }
}

/// Reads an answer's JSON body.
pub(super) async fn json<T: DeserializeOwned>(
    what: &'static str,
    response: Response<Incoming>,
) -> Result<T, CallError> {
    let bytes = collected(response.into_body(), MAX_WORKER_BODY).await?;
    from_json(what, &bytes, MAX_WORKER_BODY).map_err(|e| CallError::Malformed(e.to_string()))
}

/// Reads a body that says nothing, so that its connection can be used again.
pub(super) async fn drained(response: Response<Incoming>) -> Result<(), CallError> {
    collected(response.into_body(), MAX_API_BODY).await.map(|_| ())
}

pub(super) async fn collected(body: Incoming, most: usize) -> Result<Bytes, CallError> {
    match timeout(PAUSE, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(CallError::Unavailable(chain(&*error))),
        Err(_) => Err(CallError::Unavailable("the answer stopped in the middle".into())),
    }
}

/// The one place where statuses become errors.
async fn judged(response: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let detail = match collected(response.into_body(), MAX_API_BODY).await {
        Ok(bytes) => match from_json::<Problem>("problem", &bytes, MAX_API_BODY) {
            Ok(problem) => text::clean(&problem.detail.unwrap_or(problem.title), 256),
            Err(_) => String::new(),
        },
        Err(_) => String::new(),
    };
    let told = || if detail.is_empty() { status.to_string() } else { format!("{status}: {detail}") };
    Err(match status {
        StatusCode::UNAUTHORIZED => CallError::UnknownIdentity,
        StatusCode::CONFLICT => CallError::LeaseLost,
        StatusCode::INSUFFICIENT_STORAGE => CallError::StorageFull,
        StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE => CallError::Changed(told()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => CallError::Unavailable(told()),
        status if status.is_server_error() => CallError::Unavailable(told()),
        status => CallError::Refused { status: status.as_u16(), detail },
    })
}

/// An error and its causes. None of them holds a header, so none holds a secret.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    text::clean(&text::chain(error), 512)
}

/// A range's bytes as hyper gives them.
#[derive(Debug)]
pub struct BodyChunks {
    body: Incoming,
    left: u64,
    /// How long may be waited for all of it. Whoever takes the bytes may be slower.
    patience: Duration,
}

/// A body that comes more slowly than this on the whole is given up, in bytes a second.
const SLOWEST: u64 = 32 << 10;

impl BodyChunks {
    pub(super) const fn new(body: Incoming, len: u64) -> Self {
        Self { body, left: len, patience: Duration::from_secs(60_u64.saturating_add(len / SLOWEST)) }
    }
}

/// A range that is answered as it was asked for.
pub(super) fn ranged(
    response: Response<Incoming>,
    range: &Range<u64>,
) -> Result<Body<BodyChunks>, CallError> {
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Err(CallError::Malformed(format!("{} for a range, not 206", response.status())));
    }
    let Some((start, end, total)) = header(CONTENT_RANGE).and_then(content_range) else {
        return Err(CallError::Malformed("a range without a Content-Range".into()));
    };
    if start != range.start || end > range.end || (end < range.end && end != total) {
        return Err(CallError::Malformed("another range than was asked for".into()));
    }
    let version = header(ETAG).map(str::to_owned);
    let len = end.saturating_sub(start);
    Ok(Body { total, version, chunks: BodyChunks::new(response.into_body(), len) })
}

impl Chunks for BodyChunks {
    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            let (asked, within) = (Instant::now(), PAUSE.min(self.patience));
            let frame = timeout(within, self.body.frame()).await;
            self.patience = self.patience.saturating_sub(asked.elapsed());
            let frame = match frame {
                Ok(None) if self.left == 0 => return None,
                Ok(None) => return Some(Err(CallError::Unavailable("the body ended early".into()))),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Some(Err(CallError::Unavailable(chain(&error)))),
                Err(_) => return Some(Err(CallError::Unavailable("the body stopped in the middle".into()))),
            };
            // Trailers say nothing here.
            let Ok(bytes) = frame.into_data() else { continue };
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let Some(left) = self.left.checked_sub(len) else {
                return Some(Err(CallError::Malformed("a body longer than its range".into())));
            };
            self.left = left;
            return Some(Ok(bytes));
        }
    }
}

/// Start, end (exclusive) and total of a `Content-Range: bytes a-b/c`.
fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let last: u64 = number(last)?;
    Some((number(first)?, last.checked_add(1)?, number(total)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_has_one_form() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 10, 100)));
        for bad in ["", "bytes", "bytes */100", "bytes 0-9/*", "bytes 0-/1", "bytes +0-9/9", "items 0-9/100"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(content_range(&format!("bytes 0-{}/9", u64::MAX)), None);
    }
}
