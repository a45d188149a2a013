//! Bodies: bounded, and never waited for without end.

use super::problem::{Kind, Problem};
use crate::objects::{self, BodyError};
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::http::{Response, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use mpegflow_protocol::limits::MAX_WORKER_BODY;
use mpegflow_protocol::{from_json, to_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// What a body is held to: hyper itself waits for ever.
#[derive(Clone, Copy)]
struct Pace {
    /// One that brings nothing for this long is given up.
    idle: Duration,
    /// Bytes a second that it has to bring in the long run.
    slowest: u64,
    /// Before that counts, it has this long.
    start: Duration,
}

/// A modem's.
const PACE: Pace = Pace { idle: Duration::from_secs(30), slowest: 4 << 10, start: Duration::from_secs(60) };
/// A small body is here whole within this time, however it trickles.
const SMALL: Duration = Duration::from_secs(30);

/// A request's body as a stream that fails when nothing comes, and when too little does: bytes that trickle would otherwise hold a
/// connection, and a tenant's upload, for ever. Only what is spent on waiting for the peer counts.
pub fn stream(body: Body) -> objects::Body {
    at_pace(body, PACE)
}

fn at_pace(body: Body, pace: Pace) -> objects::Body {
    let waiting = Waiting { chunks: body.into_data_stream(), pace, waited: Duration::ZERO, came: 0 };
    Box::pin(futures_util::stream::unfold(Some(waiting), |waiting| async move {
        let mut waiting = waiting?;
        match waiting.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(waiting))),
            Err(e) => Some((Err(e), None)),
        }
    }))
}

struct Waiting {
    chunks: BodyDataStream,
    pace: Pace,
    waited: Duration,
    came: u64,
}

impl Waiting {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let began = Instant::now();
        let Pace { idle, slowest, start } = self.pace;
        let earned = Duration::from_secs(self.came).checked_div(u32::try_from(slowest).unwrap_or(u32::MAX));
        let left = start.saturating_add(earned.unwrap_or_default()).saturating_sub(self.waited);
        let next = tokio::time::timeout(left.min(idle), self.chunks.next()).await;
        self.waited = self.waited.saturating_add(began.elapsed());
        match next {
            Ok(Some(Ok(bytes))) => {
                self.came = self.came.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                Some(Ok(bytes))
            }
            Ok(Some(Err(e))) => Some(Err(BodyError::Broken(e.into()))),
            Ok(None) => None,
            Err(_) if left < idle => Some(Err(BodyError::Slow)),
            Err(_) => Some(Err(BodyError::Idle)),
        }
    }
}

/// Reads a small body whole.
///
/// # Errors
/// It is longer than `max`, does not come, or breaks off.
pub async fn read(body: Body, max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(Kind::TooLarge)
            .detail(format!("The body is too long; at most {max} bytes are accepted."))
    };
    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let read = async {
        let mut whole = bytes::BytesMut::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::new(Kind::BodyTimeout).detail("The body broke off."))?;
            if whole.len().saturating_add(chunk.len()) > max {
                return Err(too_large());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(SMALL, read).await.unwrap_or_else(|_| Err(Problem::new(Kind::BodyTimeout)))
}

/// Reads what a worker or the operator sends, as JSON; `what` names it in the refusal.
///
/// # Errors
/// As of [`read`], or it is not what it should be.
pub async fn parse<T: DeserializeOwned>(what: &'static str, body: Body) -> Result<T, Problem> {
    let bytes = read(body, MAX_WORKER_BODY).await?;
    Ok(from_json(what, &bytes, MAX_WORKER_BODY)?)
}

/// An answer to a worker or the operator.
pub fn json<T: Serialize>(value: &T) -> Response<Body> {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], to_json(value))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that brings so many bytes each time that so much has passed.
    fn trickling(bytes: usize, each: Duration) -> Body {
        Body::from_stream(futures_util::stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(each).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![7; bytes]))
        }))
    }

    const QUICK: Pace =
        Pace { idle: Duration::from_millis(600), slowest: 4 << 10, start: Duration::from_millis(1_000) };

    async fn outcome(body: Body, most: usize) -> (usize, Option<BodyError>) {
        let mut stream = at_pace(body, QUICK);
        let mut chunks = 0;
        while chunks < most {
            match stream.next().await {
                Some(Ok(_)) => chunks = chunks.saturating_add(1),
                Some(Err(e)) => return (chunks, Some(e)),
                None => break,
            }
        }
        (chunks, None)
    }

    #[tokio::test]
    async fn a_byte_now_and_then_does_not_keep_a_body_alive() {
        let (chunks, error) = outcome(trickling(1, Duration::from_millis(200)), 1_000).await;
        assert!(matches!(error, Some(BodyError::Slow)), "{error:?}");
        assert!(chunks <= 5, "{chunks}");
        let (chunks, error) = outcome(trickling(1, Duration::from_secs(60)), 1_000).await;
        assert!(chunks == 0 && matches!(error, Some(BodyError::Idle)), "{chunks} {error:?}");
    }

    #[tokio::test]
    async fn a_slow_line_has_the_time_that_it_needs() {
        // Longer than the start, and fast enough.
        let (chunks, error) = outcome(trickling(64 << 10, Duration::from_millis(50)), 40).await;
        assert!(chunks == 40 && error.is_none(), "{chunks} {error:?}");
    }

    #[tokio::test]
    async fn only_what_is_waited_for_the_peer_counts() {
        let mut stream = at_pace(
            Body::from_stream(futures_util::stream::repeat_with(|| {
                Ok::<_, std::io::Error>(Bytes::from_static(b"7"))
            })),
            QUICK,
        );
        for _ in 0..8 {
            assert!(stream.next().await.unwrap().is_ok());
            // Storage takes its time.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
