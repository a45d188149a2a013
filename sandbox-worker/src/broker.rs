//! The broker as the domain sees it: a trait without HTTP, so that attempts can be tested against a broker in memory.

use crate::secret::Secret;
use bytes::Bytes;
use mpegflow_protocol::ids::AttemptId;
use mpegflow_protocol::worker::{Complete, Fail, Heartbeat, HeartbeatReply, LeaseReply};
use std::ops::Range;
use std::time::Duration;

/// What every call for an attempt carries.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its capability.
    pub capability: Secret,
}

/// Why a call to the broker did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The lease is over (409): nothing of this attempt counts any more.
    #[error("the lease is lost")]
    LeaseLost,
    /// The broker does not know this identity (401), or it has expired.
    #[error("the broker does not know this worker")]
    UnknownIdentity,
    /// The thing is not there, or is not what the lease said (404, 410, 412, 416, or a length that changed).
    #[error("not what the lease says: {0}")]
    Changed(String),
    /// Storage is full (507).
    #[error("storage is full")]
    StorageFull,
    /// The broker refuses, and asking again will not help.
    #[error("the broker refuses with {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said, cleaned.
        detail: String,
    },
    /// No answer, or one that says to come back (5xx, 429): worth another try.
    #[error("the broker cannot be used now: {0}")]
    Unavailable(String),
    /// It answered something outside its own protocol.
    #[error("the broker answered something unexpected: {0}")]
    Malformed(String),
}

impl CallError {
    /// Whether the same call may work later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A range of an input on its way here.
#[derive(Debug)]
pub struct Body<C> {
    /// Length of the whole input, as the broker says now.
    pub total: u64,
    /// What tells this version of the input from another, where the broker says it (its ETag).
    pub version: Option<String>,
    /// The bytes: exactly the range's length, or an error.
    pub chunks: C,
}

/// Bytes as they come.
pub trait Chunks: Send + 'static {
    /// The next bytes; `None` at the end of the range.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, CallError>>> + Send;
}

/// The worker API. No call retries by itself; each has its own time limit.
pub trait Broker: Send + Sync + 'static {
    /// The bytes of a range.
    type Chunks: Chunks;

    /// Asks for work; the broker may hold the call for `wait`.
    fn lease(&self, wait: Duration) -> impl Future<Output = Result<LeaseReply, CallError>> + Send;

    /// Asks for a range of an input.
    fn read(
        &self,
        grant: &Grant,
        input: u32,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Body<Self::Chunks>, CallError>> + Send;

    /// Sends one part of an output. `digest` is its SHA-256 in hexadecimal.
    fn put_part(
        &self,
        grant: &Grant,
        output: u32,
        part: u32,
        bytes: Bytes,
        digest: &str,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Says that the attempt is alive.
    fn heartbeat(
        &self,
        grant: &Grant,
        beat: &Heartbeat,
    ) -> impl Future<Output = Result<HeartbeatReply, CallError>> + Send;

    /// The task is done.
    fn complete(
        &self,
        grant: &Grant,
        complete: &Complete,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// The task failed.
    fn fail(&self, grant: &Grant, fail: &Fail) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Gives the task back, uncounted.
    fn release(&self, grant: &Grant) -> impl Future<Output = Result<(), CallError>> + Send;
}
