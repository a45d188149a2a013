//! Following a job to its end over the event stream.

use super::sse::SseParser;
use super::{Client, ClientError, backoff};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mpegflow_protocol::api::{Event, EventKind, Job};
use mpegflow_protocol::ids::JobId;
use std::time::Duration;
use tokio::time::timeout;

/// A stream that is silent for longer is looked at by asking for the job: a proxy may hold a dead connection open.
const SILENCE: Duration = Duration::from_secs(10);
/// Tries to reach the broker in a row before giving up: about a minute.
const TRIES: u32 = 12;

impl Client {
    /// Follows a job until it has ended; `on_change` sees it at once and after each change.
    ///
    /// A broken stream is opened again; what happened meanwhile is read from the job itself, so nothing is missed.
    pub(crate) async fn follow(
        &self,
        id: JobId,
        on_change: &mut (dyn FnMut(&Job) + Send),
    ) -> Result<Job, ClientError> {
        let mut failures = 0_u32;
        loop {
            match self.follow_once(id, &mut failures, on_change).await {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => failures = failures.saturating_add(1),
                Err(e) if e.is_transient() && failures < TRIES => failures = failures.saturating_add(1),
                Err(e) => return Err(e),
            }
            if failures > TRIES {
                return Err(self.unreachable("the event stream ends again and again"));
            }
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// Follows over one stream; `None` when that ended before the job did.
    async fn follow_once(
        &self,
        id: JobId,
        failures: &mut u32,
        on_change: &mut (dyn FnMut(&Job) + Send),
    ) -> Result<Option<Job>, ClientError> {
        // First the stream, then the job: what changes between the two is then seen twice rather than never.
        let mut stream = self.events(id).await?.into_body();
        let mut job = self.job(id).await?;
        *failures = 0;
        let mut parser = SseParser::default();
        loop {
            on_change(&job);
            if job.state.is_final() {
                return Ok(Some(job));
            }
            match self.next_change(&mut stream, &mut parser, &mut job).await? {
                Change::Progress => {}
                Change::Job => job = self.job(id).await?,
                Change::StreamEnded => return Ok(None),
            }
        }
    }

    async fn next_change(
        &self,
        stream: &mut Incoming,
        parser: &mut SseParser,
        job: &mut Job,
    ) -> Result<Change, ClientError> {
        loop {
            let chunk = match timeout(SILENCE, stream.frame()).await {
                Err(_) => return Ok(Change::Job),
                Ok(None | Some(Err(_))) => return Ok(Change::StreamEnded),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            let mut events = Vec::new();
            parser
                .push(&chunk, &mut events)
                .map_err(|e| ClientError::Answer { call: "GET /v1/events".into(), reason: e.to_string() })?;
            let mut change = None;
            for event in events {
                // An event of a kind that is not known here still says that something changed.
                let Ok(event) = serde_json::from_str::<Event>(&event.data) else {
                    change = Some(Change::Job);
                    continue;
                };
                if event.job != job.id {
                    continue;
                }
                if event.kind == EventKind::Progress {
                    job.progress = event.progress;
                    change = change.or(Some(Change::Progress));
                } else {
                    change = Some(Change::Job);
                }
            }
            if let Some(change) = change {
                return Ok(change);
            }
        }
    }
}

enum Change {
    /// Only the job's progress moved, and it is already in the job.
    Progress,
    /// The job has to be read again.
    Job,
    /// The stream is over.
    StreamEnded,
}
