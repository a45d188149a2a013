//! The event stream: server-sent events whose id is the event's number in the tenant's sequence. Whoever reconnects with
//! `Last-Event-ID` misses nothing; progress is told live, without an id, and never again.

use super::problem::{Kind, Problem};
use crate::engine::{Engine, Notice, Subscription};
use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use mpegflow_protocol::api::{Event, EventKind};
use mpegflow_protocol::ids::{JobId, TenantId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// A comment this often keeps proxies from closing a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Streams that one tenant may have open: each holds a connection, and all tenants share those.
const MAX_STREAMS: usize = 64;

/// The event streams that are open.
#[derive(Clone, Default)]
pub(super) struct Open(Arc<Mutex<HashMap<TenantId, usize>>>);

/// One place among a tenant's streams; free again when this is dropped.
struct Place(Open, TenantId);

impl Open {
    fn take(&self, tenant: TenantId) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(tenant).or_default();
        *count = count.checked_add(1).filter(|n| *n <= MAX_STREAMS)?;
        Some(Place(self.clone(), tenant))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

struct Stream {
    _place: Place,
    engine: Arc<Engine>,
    tenant: TenantId,
    job: Option<JobId>,
    after: u64,
    notices: Subscription,
    waiting: VecDeque<String>,
    finished: bool,
    stop: CancellationToken,
}

/// Streams the events of a tenant after `after`, of one job (and then until it ends) or of all.
pub(super) fn stream(
    engine: Arc<Engine>,
    tenant: TenantId,
    job: Option<JobId>,
    after: u64,
    stop: CancellationToken,
    open: &Open,
) -> Result<Response<Body>, Problem> {
    let place = open.take(tenant).ok_or_else(|| {
        Problem::new(Kind::QuotaExceeded)
            .detail(format!("There are {MAX_STREAMS} open event streams, the most allowed. Close some."))
            .header(header::RETRY_AFTER, "30")
    })?;
    // Subscribed before the first look into the store, so that nothing falls between the two.
    let notices = engine.subscribe();
    let waiting = VecDeque::from(["retry: 1000\n\n".to_owned()]);
    let state = Stream { _place: place, engine, tenant, job, after, notices, waiting, finished: false, stop };
    let body = futures_util::stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), state))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    // nginx buffers a response otherwise.
    headers.insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

impl Stream {
    async fn next(&mut self) -> Option<String> {
        let mut look = true;
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Some(text);
            }
            if self.finished || self.stop.is_cancelled() {
                return None;
            }
            if look {
                self.fetch().await?;
                look = false;
                continue;
            }
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    Ok(Notice::Stored(tenant)) => look = tenant == self.tenant,
                    Ok(Notice::Progress(tenant, event)) => {
                        if tenant == self.tenant && self.job.is_none_or(|job| job == event.job) {
                            self.waiting.push_back(text(None, &event));
                        }
                    }
                    // What was missed is in the store, or was only progress.
                    Err(RecvError::Lagged(_)) => look = true,
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(":\n\n".into()),
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Reads what is new; `None` where the store failed, and the client has to come again.
    async fn fetch(&mut self) -> Option<()> {
        let mut ended = false;
        loop {
            let events = match self.engine.events(self.tenant, self.job, self.after).await {
                Ok(events) => events,
                Err(e) => {
                    tracing::error!(error = %e, "cannot read events");
                    return None;
                }
            };
            let Some(last) = events.last() else {
                // Whoever comes back after the last event of a job that has ended would wait for nothing.
                if let Some(job) = self.job
                    && !self.finished
                {
                    if ended {
                        self.finished = true;
                    } else if self.engine.job(self.tenant, job).await.is_ok_and(|job| job.state.is_final()) {
                        // It may have ended after the look at its events: its last ones are looked for once more.
                        ended = true;
                        continue;
                    }
                }
                return Some(());
            };
            self.after = last.seq;
            for event in &events {
                self.waiting.push_back(text(Some(event.seq), &event.render()));
                self.finished |= self.job.is_some() && event.kind == EventKind::Finished;
            }
            if self.waiting.len() >= 256 {
                return Some(());
            }
        }
    }
}

fn text(id: Option<u64>, event: &Event) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    let kind =
        serde_json::to_value(event.kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    match id {
        Some(id) => format!("id: {id}\nevent: {kind}\ndata: {data}\n\n"),
        None => format!("event: {kind}\ndata: {data}\n\n"),
    }
}
