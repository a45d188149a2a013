//! Spans of what is done for jobs: the request, the job, each attempt and what is within it. Nothing here can fail a call or make it
//! wait: spans that nobody takes are dropped.
//!
//! Each span is told by whichever broker sees its end, from what is stored with the job and the attempt; so a trace is one, however
//! many brokers served it and however long it took.

use super::Engine;
use super::live::Live;
use crate::model::{Claim, JobRecord, LiveAttempt, Time};
use crate::state::Decision;
use crate::store::Outcome;
use crate::trace::{
    Attribute as A, Incoming, JobTrace, Name, Remote, Share, Span, SpanCounts, SpanId, Spans, TraceId, Value,
    fresh, micros,
};
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{AttemptId, JobId, PoolName, TaskId, TenantId};
use mpegflow_protocol::telemetry::WorkerSpans;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Who takes spans, and of which jobs.
#[derive(Clone)]
pub struct Tracing {
    /// Who takes them.
    pub spans: Arc<dyn Spans>,
    /// How many jobs are traced.
    pub share: Share,
    /// What is done with a caller's context.
    pub incoming: Incoming,
}

/// When something began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    at: Time,
    clock: Instant,
}

impl Began {
    fn start_us(self) -> i64 {
        self.at.0.saturating_mul(1_000)
    }

    fn end_us(self) -> i64 {
        self.start_us().saturating_add(micros(self.clock.elapsed()))
    }
}

/// A request that may make a job, and its trace.
#[derive(Debug)]
pub struct Request {
    trace: TraceId,
    span: SpanId,
    parent: Option<Remote>,
    link: Option<Remote>,
    began: Began,
    tenant: OnceLock<TenantId>,
    job: OnceLock<JobId>,
}

impl Request {
    /// Whose it is, once that is known.
    pub fn of(&self, tenant: TenantId) {
        let _ = self.tenant.set(tenant);
    }

    /// The job that it has made.
    pub(super) fn made(&self, job: JobId) {
        let _ = self.job.set(job);
    }

    /// Where a job of it belongs.
    pub(super) fn job(&self) -> Option<JobTrace> {
        let (_, span) = fresh()?;
        Some(JobTrace { trace: self.trace, job: span, request: self.span, since_us: self.began.start_us() })
    }
}

/// What of an attempt its spans say.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    trace: JobTrace,
    attempt: AttemptId,
    epoch: u64,
    tenant: TenantId,
    job: JobId,
    task: TaskId,
    kind: crate::model::TaskKind,
    pool: PoolName,
    ready_at: Time,
    started_at: Time,
}

impl Traced {
    pub(super) fn new(attempt: &LiveAttempt) -> Option<Self> {
        Some(Self {
            trace: attempt.trace?,
            attempt: attempt.claim.attempt,
            epoch: attempt.claim.epoch,
            tenant: attempt.tenant,
            job: attempt.job,
            task: attempt.task.id,
            kind: attempt.task.plan.kind,
            pool: attempt.pool.clone(),
            ready_at: attempt.task.not_before,
            started_at: attempt.started_at(),
        })
    }

    /// What is said of every span of the attempt. Whatever a worker tells, this is the broker's own.
    fn who(&self) -> [(A, Value); 7] {
        [
            (A::Tenant, Value::Tenant(self.tenant)),
            (A::Pool, Value::Pool(self.pool.clone())),
            (A::Job, Value::Job(self.job)),
            (A::Task, Value::Task(self.task)),
            (A::TaskKind, Value::Word(self.kind.as_str())),
            (A::Attempt, Value::Attempt(self.attempt)),
            (A::Epoch, Value::number(self.epoch)),
        ]
    }

    fn part(&self, name: Name, start_us: i64, end_us: i64) -> Span {
        let id = self.trace.within(self.attempt, name);
        let parent = Some(self.trace.attempt(self.attempt));
        Span::new(name, self.trace.trace, id, parent, start_us, end_us).with(self.who())
    }

    fn messaging(&self) -> [(A, Value); 4] {
        [
            (A::MessagingSystem, Value::Word("mpegflow")),
            (A::MessagingOperation, Value::Word("process")),
            (A::MessagingDestination, Value::Pool(self.pool.clone())),
            (A::MessagingMessage, Value::Task(self.task)),
        ]
    }
}

fn us(time: Time) -> i64 {
    time.0.saturating_mul(1_000)
}

impl Engine {
    /// The same, telling what it does of traced jobs.
    #[must_use]
    pub fn with_tracing(mut self, tracing: Tracing) -> Self {
        self.tracing = Some(tracing);
        self
    }

    /// What became of spans, where there are any.
    pub fn span_counts(&self) -> Option<&SpanCounts> {
        self.tracing.as_ref().map(|tracing| tracing.spans.counts())
    }

    /// Whether a caller's context is looked at.
    pub fn reads_context(&self) -> bool {
        self.tracing.as_ref().is_some_and(|tracing| tracing.incoming != Incoming::Ignored)
    }

    pub(super) fn begin(&self) -> Began {
        Began { at: self.now(), clock: Instant::now() }
    }

    /// A request that may make a job begins; `None` where it is not traced. `remote` is what its caller says of itself: that may
    /// lead to less than this broker would trace, and never to more.
    pub fn begin_request(&self, remote: Option<Remote>) -> Option<Request> {
        let tracing = self.tracing.as_ref()?;
        let (own, span) = fresh()?;
        if !tracing.share.takes(own) {
            return None;
        }
        let (parent, link) = match tracing.incoming {
            Incoming::Ignored => (None, None),
            Incoming::Linked => (None, remote),
            Incoming::Parent => (remote, None),
        };
        if parent.is_some_and(|parent| !parent.sampled) {
            return None;
        }
        let trace = parent.map_or(own, |parent| parent.trace);
        let began = self.begin();
        Some(Request { trace, span, parent, link, began, tenant: OnceLock::new(), job: OnceLock::new() })
    }

    /// A request has been answered. Nothing is told of a stranger's, of which there may be any number.
    pub fn end_request(&self, request: &Request, status: u16) {
        let (Some(tracing), Some(tenant)) = (&self.tracing, request.tenant.get()) else { return };
        let parent = request.parent.map(|parent| parent.span);
        let (start, end) = (request.began.start_us(), request.began.end_us());
        let mut span = Span::new(Name::Submit, request.trace, request.span, parent, start, end)
            .with([
                (A::HttpMethod, Value::Word("POST")),
                (A::HttpRoute, Value::Word("/v1/jobs")),
                (A::HttpStatus, Value::Number(i64::from(status))),
                (A::Tenant, Value::Tenant(*tenant)),
            ])
            .with(request.job.get().map(|job| (A::Job, Value::Job(*job))))
            // Of a server's span, what the caller did wrong is no error.
            .failed(match status {
                ..500 => None,
                500 => Some("500"),
                503 => Some("503"),
                507 => Some("507"),
                _ => Some("_OTHER"),
            });
        span.parent_is_remote = parent.is_some();
        span.link = request.link;
        tracing.spans.record(span);
    }

    /// A worker has been given a task, which waited until the lease; answering took from there, or from `asked`, until now.
    pub(super) fn trace_lease(&self, traced: &Traced, asked: Began) {
        let Some(tracing) = &self.tracing else { return };
        let leased = us(traced.started_at);
        tracing.spans.record(traced.part(Name::Queue, us(traced.ready_at).min(leased), leased));
        tracing.spans.record(traced.part(Name::Lease, asked.start_us().max(leased), asked.end_us()));
    }

    /// Takes a worker's spans. Their times are held to the attempt's own, their names to once each, and everything else about them is
    /// the broker's to say.
    pub(super) fn trace_worker(&self, live: &Live, spans: &WorkerSpans, now: Time) {
        let (Some(tracing), Some(traced)) = (&self.tracing, &live.traced) else { return };
        let (first, last) = (us(traced.started_at), us(now).max(us(traced.started_at)));
        for told in spans.as_slice().iter().filter(|told| live.first_told(told.name)) {
            let later =
                |from: i64, by: u64| from.saturating_add(i64::try_from(by).unwrap_or(i64::MAX)).min(last);
            let start = later(first, told.start_us);
            let name = Name::Worker(told.name);
            let mut span = traced.part(name, start, later(start, told.duration_us));
            if let Some(parent) = told.name.parent() {
                span.parent = Some(traced.trace.within(traced.attempt, Name::Worker(parent)));
            }
            let said = [(A::Bytes, told.bytes), (A::Parts, told.parts)];
            let said = said.into_iter().filter_map(|(key, n)| Some((key, Value::number(n?))));
            tracing.spans.record(span.with(said));
        }
    }

    /// What the spans of an attempt say, also where this broker has not seen it before.
    pub(super) async fn traced(&self, claim: &Claim) -> Option<Traced> {
        self.tracing.as_ref()?;
        match self.live.get(claim) {
            Some(live) => live.traced.clone(),
            // One that cannot be asked now has no span: its end matters more.
            None => Traced::new(&self.store.live_attempt(claim).await.ok()??),
        }
    }

    /// An attempt has ended, and maybe its job.
    pub(super) fn trace_end(&self, traced: &Traced, outcome: &Outcome, settled: Began, committed: Began) {
        let Some(tracing) = &self.tracing else { return };
        let decision = &outcome.decision;
        let end = committed.end_us();
        let failure = decision.failure.as_ref().map(|failure| failure.code.as_str());
        tracing.spans.record(traced.part(Name::Commit, committed.start_us(), end));
        tracing.spans.record(traced.part(Name::Settle, settled.start_us(), end));
        let id = traced.trace.attempt(traced.attempt);
        let name = Name::Attempt(traced.kind);
        let start = us(traced.started_at);
        let span = Span::new(name, traced.trace.trace, id, Some(traced.trace.job), start, end)
            .with(traced.who())
            .with(traced.messaging())
            .with([(A::AttemptState, Value::Word(decision.attempt_state().as_str()))])
            .failed(failure);
        tracing.spans.record(span);
        if ends_job(decision) {
            let (tenant, pool) = (traced.tenant, &traced.pool);
            let state = outcome.state;
            let failure = failure.filter(|_| state == JobState::Failed);
            tracing.spans.record(job(traced.trace, (tenant, traced.job, pool), state, failure, end));
        }
    }

    /// A job has ended without an attempt.
    pub(super) fn trace_job(&self, record: &JobRecord) {
        let (Some(tracing), Some(trace)) = (&self.tracing, record.trace) else { return };
        let end = us(record.finished_at.unwrap_or_else(|| self.now()));
        let failure = record.failure.as_ref().map(|failure| failure.code.as_str());
        let whose = (record.tenant, record.id, &record.pool);
        tracing.spans.record(job(trace, whose, record.state, failure, end));
    }
}

fn ends_job(decision: &Decision) -> bool {
    // From a state that is not final: the move that ends a job is one, whatever of it ends later.
    !matches!(decision.job_state(JobState::Running), JobState::Running)
}

fn job(
    trace: JobTrace,
    (tenant, job, pool): (TenantId, JobId, &PoolName),
    state: JobState,
    failure: Option<&'static str>,
    end_us: i64,
) -> Span {
    Span::new(Name::Job, trace.trace, trace.job, Some(trace.request), trace.since_us, end_us)
        .with([
            (A::Tenant, Value::Tenant(tenant)),
            (A::Pool, Value::Pool(pool.clone())),
            (A::Job, Value::Job(job)),
            (A::JobState, Value::Word(state.as_str())),
        ])
        .failed(failure)
}
