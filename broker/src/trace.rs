//! Traces of jobs: what a span is of, where it belongs, and who takes it. Knows neither OpenTelemetry nor HTTP nor SQL.
//!
//! All that a span can say is in the lists here: words of this program, ids and numbers. There is no way for a URL, an object's key,
//! a file's name, a tag or a token to become part of one.

use crate::model::TaskKind;
use crate::secret;
use mpegflow_protocol::ids::{AttemptId, JobId, PoolName, TaskId, TenantId};
use mpegflow_protocol::telemetry::SpanName;
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A trace: all that happens for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// As it goes over the wire.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// As it goes over the wire.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A random trace and span; none where the system has no randomness, which is then the trace's loss alone.
pub fn fresh() -> Option<(TraceId, SpanId)> {
    let random = secret::random().ok()?;
    let (trace, rest) = random.split_first_chunk::<16>()?;
    let span = rest.first_chunk::<8>()?;
    let trace = NonZeroU128::new(u128::from_be_bytes(*trace))?;
    Some((TraceId(trace), SpanId(NonZeroU64::new(u64::from_be_bytes(*span))?)))
}

/// Where a caller says that its own span is: the header `traceparent` of W3C Trace Context, level 1. Hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Its trace.
    pub trace: TraceId,
    /// Its span.
    pub span: SpanId,
    /// Whether it records.
    pub sampled: bool,
}

/// A text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct NotRemote;

impl FromStr for Remote {
    type Err = NotRemote;

    /// Of version 00 alone, and as the specification writes it: what another version means cannot be known here.
    fn from_str(text: &str) -> Result<Self, NotRemote> {
        let mut fields = text.split('-');
        let mut hex = |len: usize| {
            let field = fields.next().filter(|field| field.len() == len).ok_or(NotRemote)?;
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if !field.bytes().all(lower) {
                return Err(NotRemote);
            }
            u128::from_str_radix(field, 16).map_err(|_| NotRemote)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        if version != 0 || fields.next().is_some() {
            return Err(NotRemote);
        }
        let span = u64::try_from(span).ok().and_then(NonZeroU64::new).ok_or(NotRemote)?;
        Ok(Self {
            trace: TraceId(NonZeroU128::new(trace).ok_or(NotRemote)?),
            span: SpanId(span),
            sampled: flags & 1 == 1,
        })
    }
}

/// Where a job's spans belong. It is kept with the job, so that any broker adds to the same trace, however much later. A job
/// without one is not traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobTrace {
    /// The trace.
    pub trace: TraceId,
    /// The job's own span.
    pub job: SpanId,
    /// The span of the request that made it.
    pub request: SpanId,
    /// When that began, in microseconds since 1970.
    pub since_us: i64,
}

impl JobTrace {
    /// The span of an attempt. It follows from what it is of, as all below it do: who tells of one twice tells of the same.
    pub fn attempt(&self, attempt: AttemptId) -> SpanId {
        self.derived(attempt, "")
    }

    /// The span of something within an attempt.
    pub fn within(&self, attempt: AttemptId, name: Name) -> SpanId {
        self.derived(attempt, name.as_str())
    }

    fn derived(&self, attempt: AttemptId, name: &str) -> SpanId {
        let digest = secret::sha256(format!("{} {attempt} {name}", self.trace).as_bytes());
        let id = digest.first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes));
        SpanId(NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for JobTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.trace, self.job, self.request, self.since_us)
    }
}

impl FromStr for JobTrace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not where a job's spans belong";
        let mut fields = text.splitn(4, '-');
        let mut next = || fields.next().ok_or(wrong);
        let span = |text: &str| u64::from_str_radix(text, 16).ok().and_then(NonZeroU64::new).ok_or(wrong);
        let trace = u128::from_str_radix(next()?, 16).ok().and_then(NonZeroU128::new).ok_or(wrong)?;
        let (job, request) = (span(next()?)?, span(next()?)?);
        let since_us = next()?.parse().map_err(|_| wrong)?;
        Ok(Self { trace: TraceId(trace), job: SpanId(job), request: SpanId(request), since_us })
    }
}

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// The request that makes a job.
    Submit,
    /// A job, from that request to its end.
    Job,
    /// An attempt at a task, from its lease to its end.
    Attempt(TaskKind),
    /// A task waited for a worker, or for its next try.
    Queue,
    /// A worker was given the task.
    Lease,
    /// What a worker made was looked at, and its attempt ended.
    Settle,
    /// The end of an attempt, with all that follows from it, was made durable.
    Commit,
    /// What a worker tells of.
    Worker(SpanName),
}

impl Name {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "POST /v1/jobs",
            Self::Job => "job",
            Self::Attempt(TaskKind::Probe) => "process probe",
            Self::Attempt(TaskKind::Encode) => "process encode",
            Self::Attempt(TaskKind::Package) => "process package",
            Self::Attempt(TaskKind::Check) => "process check",
            Self::Queue => "queue",
            Self::Lease => "lease",
            Self::Settle => "settle",
            Self::Commit => "commit",
            Self::Worker(name) => name.as_str(),
        }
    }
}

/// What can be said of a span. Names follow OpenTelemetry's semantic conventions where those have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is what its name below says")]
pub enum Attribute {
    HttpMethod,
    HttpRoute,
    HttpStatus,
    ErrorType,
    MessagingSystem,
    MessagingOperation,
    MessagingDestination,
    MessagingMessage,
    Tenant,
    Pool,
    Job,
    JobState,
    Task,
    TaskKind,
    Attempt,
    AttemptState,
    Epoch,
    Bytes,
    Parts,
}

impl Attribute {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HttpMethod => "http.request.method",
            Self::HttpRoute => "http.route",
            Self::HttpStatus => "http.response.status_code",
            Self::ErrorType => "error.type",
            Self::MessagingSystem => "messaging.system",
            Self::MessagingOperation => "messaging.operation.type",
            Self::MessagingDestination => "messaging.destination.name",
            Self::MessagingMessage => "messaging.message.id",
            Self::Tenant => "mpegflow.tenant.id",
            Self::Pool => "mpegflow.pool",
            Self::Job => "mpegflow.job.id",
            Self::JobState => "mpegflow.job.state",
            Self::Task => "mpegflow.task.id",
            Self::TaskKind => "mpegflow.task.kind",
            Self::Attempt => "mpegflow.attempt.id",
            Self::AttemptState => "mpegflow.attempt.state",
            Self::Epoch => "mpegflow.attempt.epoch",
            Self::Bytes => "mpegflow.bytes",
            Self::Parts => "mpegflow.parts",
        }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word of this program.
    Word(&'static str),
    /// A number.
    Number(i64),
    /// A tenant, by its id.
    Tenant(TenantId),
    /// A pool.
    Pool(PoolName),
    /// A job.
    Job(JobId),
    /// A task.
    Task(TaskId),
    /// An attempt.
    Attempt(AttemptId),
}

impl Value {
    /// A number that has no sign.
    pub fn number(n: u64) -> Self {
        Self::Number(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

/// A span that is over. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// The one that it is a part of.
    pub parent: Option<SpanId>,
    /// Whether that is a caller's.
    pub parent_is_remote: bool,
    /// A caller's span that it belongs to without being a part of it.
    pub link: Option<Remote>,
    /// What it is of.
    pub name: Name,
    /// When it began.
    pub start_us: i64,
    /// When it ended.
    pub end_us: i64,
    /// What is said of it.
    pub attributes: Vec<(Attribute, Value)>,
    /// What went wrong, by its documented code.
    pub error: Option<&'static str>,
}

impl Span {
    /// Of what took from one time to the other; to the earlier one where they are the wrong way round.
    pub fn new(
        name: Name,
        trace: TraceId,
        id: SpanId,
        parent: Option<SpanId>,
        start_us: i64,
        end_us: i64,
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            parent_is_remote: false,
            link: None,
            name,
            start_us,
            end_us: end_us.max(start_us),
            attributes: Vec::new(),
            error: None,
        }
    }

    /// The same, with more said of it.
    #[must_use]
    pub fn with(mut self, attributes: impl IntoIterator<Item = (Attribute, Value)>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// The same, gone wrong.
    #[must_use]
    pub fn failed(mut self, error: Option<&'static str>) -> Self {
        if let Some(code) = error {
            self.attributes.push((Attribute::ErrorType, Value::Word(code)));
        }
        self.error = error;
        self
    }
}

/// Takes spans. It neither waits nor fails: what there is no room for is dropped.
pub trait Spans: Send + Sync + 'static {
    /// Takes one.
    fn record(&self, span: Span);
    /// What became of those before.
    fn counts(&self) -> &SpanCounts;
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Somebody has them.
    pub sent: AtomicU64,
    /// There was no room for them.
    pub dropped: AtomicU64,
    /// Nobody took them.
    pub lost: AtomicU64,
}

impl SpanCounts {
    /// Each with its name.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("sent", load(&self.sent)), ("dropped", load(&self.dropped)), ("lost", load(&self.lost))]
    }
}

/// What is done with a caller's `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Incoming {
    /// Nothing: it is not read.
    #[default]
    Ignored,
    /// The job's trace is its own, with a link to the caller's span.
    Linked,
    /// The job's trace is the caller's.
    Parent,
}

/// So many of a million jobs are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

const MILLION: u32 = 1_000_000;

impl Share {
    /// All of them.
    pub const ALL: Self = Self(MILLION);

    /// So many of a million; `None` where that are more.
    pub const fn of_million(n: u32) -> Option<Self> {
        if n <= MILLION { Some(Self(n)) } else { None }
    }

    /// How many of a million.
    pub const fn per_million(self) -> u32 {
        self.0
    }

    /// Whether a trace is one of them. The id is random, and so is this.
    pub fn takes(self, trace: TraceId) -> bool {
        let bits = u64::try_from(trace.0.get() & u128::from(u64::MAX)).unwrap_or(0);
        bits.checked_rem(u64::from(MILLION)).is_some_and(|n| n < u64::from(self.0))
    }
}

/// Microseconds of a span of time.
pub fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_as_the_specification_writes_it_and_not_otherwise() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let remote: Remote = good.parse().unwrap();
        assert_eq!(remote.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(remote.span.to_string(), "b7ad6b7169203331");
        assert!(remote.sampled);
        let not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse::<Remote>().unwrap();
        assert!(!not.sampled);
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(bad.parse::<Remote>(), Err(NotRemote), "{bad}");
        }
        assert!("0".repeat(100_000).parse::<Remote>().is_err());
    }

    #[test]
    fn where_a_jobs_spans_belong_is_written_and_read_as_the_same() {
        let ((trace, job), (_, request)) = (fresh().unwrap(), fresh().unwrap());
        for since_us in [0, 1_700_000_000_000_000, -1] {
            let kept = JobTrace { trace, job, request, since_us };
            assert_eq!(kept.to_string().parse(), Ok(kept));
        }
        for bad in ["", "0-1-1-1", "1-0-1-1", "1-1-1", "1-1-1-x", "g-1-1-1"] {
            assert!(bad.parse::<JobTrace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_of_an_attempt_differ_by_name_and_by_attempt_and_follow_from_both() {
        let (trace, job) = fresh().unwrap();
        let kept = JobTrace { trace, job, request: job, since_us: 0 };
        let mut seen = std::collections::BTreeSet::new();
        for attempt in [AttemptId::from_u128(1), AttemptId::from_u128(2)] {
            assert!(seen.insert(kept.attempt(attempt).bytes()));
            let worker = SpanName::ALL.map(Name::Worker);
            for name in [Name::Queue, Name::Lease, Name::Settle, Name::Commit].into_iter().chain(worker) {
                assert!(seen.insert(kept.within(attempt, name).bytes()), "{name:?}");
                assert_eq!(kept.within(attempt, name), kept.within(attempt, name));
            }
        }
    }

    #[test]
    fn a_share_of_the_traces_is_taken() {
        let taken = |n| {
            let share = Share::of_million(n).unwrap();
            (0..20_000).filter(|_| share.takes(fresh().unwrap().0)).count()
        };
        assert_eq!((taken(0), taken(MILLION)), (0, 20_000));
        assert!((1_000..3_000).contains(&taken(100_000)), "a tenth");
        assert_eq!(Share::of_million(MILLION + 1), None);
    }
}
