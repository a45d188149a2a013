//! Bodies: bounded, and never waited for without end.

use super::problem::{Kind, Problem};
use crate::objects::{self, BodyError};
use axum::body::{Body, HttpBody as _};
use axum::http::{Response, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use mpegflow_protocol::limits::MAX_WORKER_BODY;
use mpegflow_protocol::{from_json, to_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A body that brings nothing for this long is given up: hyper itself waits for ever.
pub const IDLE: Duration = Duration::from_secs(30);
/// A small body is here whole within this time, however it trickles.
const SMALL: Duration = Duration::from_secs(30);

/// A request's body as a stream that fails when nothing comes.
pub fn stream(body: Body) -> objects::Body {
    let chunks = body.into_data_stream();
    Box::pin(futures_util::stream::unfold(Some(chunks), |chunks| async move {
        let mut chunks = chunks?;
        match tokio::time::timeout(IDLE, chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(chunks))),
            Ok(Some(Err(e))) => Some((Err(BodyError::Broken(e.into())), None)),
            Err(_) => Some((Err(BodyError::Idle), None)),
        }
    }))
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
