//! The records that the domain and its adapters share. No HTTP, no SQL.

use crate::plan::planned::Planned;
use crate::trace::JobTrace;
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::ids::{AttemptId, JobId, PoolName, TaskId, TenantId, UploadId, WorkerId};
use mpegflow_protocol::job::{JobSpec, Priority};
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::path::StoredKey;
use mpegflow_protocol::task::{TaskResult, TaskSpec};
use mpegflow_protocol::worker::{OutputDigest, OutputSlot};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// That many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// That many milliseconds earlier.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Milliseconds from `self` to `later`; 0 where that is not later.
    pub fn until_ms(self, later: Self) -> u64 {
        u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0)
    }

    /// RFC 3339, as the API writes times.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or_default().to_string()
    }
}

/// Where times come from.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Time;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time(jiff::Timestamp::now().as_millisecond())
    }
}

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Describe the input.
    Probe,
    /// Make the tracks.
    Encode,
    /// Make the objects.
    Package,
    /// Read them back.
    Check,
}

impl TaskKind {
    /// Every kind, in the order of a job.
    pub const ALL: [Self; 4] = [Self::Probe, Self::Encode, Self::Package, Self::Check];

    /// The name in the API, metrics and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Encode => "encode",
            Self::Package => "package",
            Self::Check => "check",
        }
    }
}

/// Which part of its job's graph a task belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// All there is, of a job that makes all tracks at once.
    #[default]
    Whole,
    /// The sound of a job that plays early.
    Sound,
    /// A chunk of its lowest rung, from 0.
    Chunk(u32),
    /// The other rungs, and the output as a whole.
    Rest,
}

impl Step {
    /// Whether the task is of a job that makes all tracks at once.
    pub const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// What lies behind an input's position. Never leaves the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputSource {
    /// An upload of the tenant.
    Upload {
        /// The upload.
        upload: UploadId,
        /// Its length in bytes.
        size: u64,
    },
    /// What another job of the same tenant made.
    Object {
        /// That job.
        job: JobId,
        /// The attempt.
        attempt: AttemptId,
        /// The position of the output.
        output: u32,
        /// Its length in bytes.
        size: u64,
    },
    /// An object of the tenant's own storage, as it was when the job came.
    Stored {
        /// Its key below the tenant's prefix.
        key: StoredKey,
        /// What tells it from any other that may come to have the key.
        version: String,
        /// Its length in bytes.
        size: u64,
    },
    /// What an earlier attempt of the same job made.
    Output {
        /// The attempt.
        attempt: AttemptId,
        /// The position of the output.
        output: u32,
        /// Its length in bytes.
        size: u64,
    },
}

impl InputSource {
    /// Length in bytes.
    pub const fn size(&self) -> u64 {
        match self {
            Self::Upload { size, .. }
            | Self::Object { size, .. }
            | Self::Stored { size, .. }
            | Self::Output { size, .. } => *size,
        }
    }
}

/// A task as it was planned.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// What it is for.
    pub kind: TaskKind,
    /// Where in the graph.
    pub step: Step,
    /// What the codec is told.
    pub spec: TaskSpec,
    /// Inputs by position.
    pub inputs: Vec<InputSource>,
    /// Outputs by position.
    pub outputs: Vec<OutputSlot>,
    /// Limits in the first memory class.
    pub limits: ProcessLimits,
    /// Wall time of one attempt in milliseconds.
    pub wall_ms: u64,
    /// Threads.
    pub threads: u32,
}

impl NewTask {
    /// Its place among its tenant's, of a job that has `priority`: who watches a film that is still made is not to wait for others
    /// that nobody can watch yet.
    pub const fn priority(&self, priority: Priority) -> Priority {
        match self.step {
            Step::Whole | Step::Rest => priority,
            Step::Sound | Step::Chunk(_) => Priority::HIGHEST,
        }
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// The plan.
    pub plan: NewTask,
    /// Its state.
    pub state: TaskState,
    /// Fencing epoch: one higher with each lease.
    pub epoch: u64,
    /// How its attempts ended so far.
    pub tries: Tries,
    /// The memory class of the next attempt.
    pub memory_class: u32,
    /// The next attempt may not start before.
    pub not_before: Time,
    /// The attempt that succeeded.
    pub done_by: Option<AttemptId>,
    /// What it found or made.
    pub result: Option<TaskResult>,
    /// Its outputs, as they were received.
    pub digests: Vec<OutputDigest>,
    /// Locks of the attempt that succeeded.
    pub evidence: Option<Evidence>,
    /// Why the last attempt failed.
    pub last_failure: Option<Failure>,
}

/// How the attempts at a task ended so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Attempts in all.
    pub attempts: u32,
    /// Failures of class `worker`.
    pub worker: u32,
    /// Failures of class `storage` or `broker`.
    pub backoff: u32,
    /// Failures with [`mpegflow_protocol::failure::FailureCode::CodecCrashed`].
    pub crashed: u32,
    /// Attempts given back uncounted.
    pub released: u32,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its input; of an object, an id that no upload has.
    pub upload: UploadId,
    /// The input's length in bytes.
    pub input_size: u64,
    /// What was asked for.
    pub spec: JobSpec,
    /// The pool that does it.
    pub pool: PoolName,
    /// Its state.
    pub state: JobState,
    /// What the input is, once it was probed.
    pub media: Option<MediaInfo>,
    /// What was planned for it then; none where a broker of the release before did that.
    pub planned: Option<Planned>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Where its spans belong.
    pub trace: Option<JobTrace>,
}

/// A job with all that its tenant may see of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The job.
    pub job: JobRecord,
    /// Its tasks, in order.
    pub tasks: Vec<TaskRecord>,
    /// Its committed output.
    pub objects: Vec<ManifestEntry>,
}

/// One committed object of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Its name within the job.
    pub name: String,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The position of the output.
    pub output: u32,
    /// Length in bytes.
    pub size: u64,
    /// Parts it was sent in.
    pub parts: u32,
    /// Digest over the parts' digests.
    pub digest: String,
    /// Media type.
    pub content_type: String,
}

/// How an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// Its worker holds the lease.
    Live,
    /// Its result counts.
    Succeeded,
    /// Its worker reported a failure, or its result was refused.
    Failed,
    /// Its worker was lost.
    Lost,
    /// Its worker gave it back.
    Released,
    /// Its job was canceled.
    Canceled,
}

impl AttemptState {
    /// As the database spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::Canceled => "canceled",
        }
    }

    /// The state that the database spells so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Succeeded, Self::Failed, Self::Lost, Self::Released, Self::Canceled]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// Who may act on an attempt: all three have to match at the moment of each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker it was leased to.
    pub worker: WorkerId,
    /// The epoch of that lease.
    pub epoch: u64,
}

/// A live attempt and what it works on.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveAttempt {
    /// Who holds it.
    pub claim: Claim,
    /// The tenant.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The job's state.
    pub job_state: JobState,
    /// The pool that does it.
    pub pool: PoolName,
    /// Where its spans belong.
    pub trace: Option<JobTrace>,
    /// The task.
    pub task: TaskRecord,
    /// When the lease is lost.
    pub deadline: Time,
    /// When the attempt ends whatever is renewed.
    pub hard_deadline: Time,
}

impl LiveAttempt {
    /// When it began.
    pub fn started_at(&self) -> Time {
        self.hard_deadline.minus_ms(self.task.plan.wall_ms)
    }
}

/// A part of an output as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Position in the output.
    pub part: u32,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// A task that a worker may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyTask {
    /// The task.
    pub task: TaskId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which pool does it.
    pub pool: PoolName,
    /// Its place among its tenant's, 0 to 9; 9 goes first.
    pub priority: u8,
    /// Not before.
    pub not_before: Time,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Position in the tenant's sequence, from 1.
    pub seq: u64,
    /// The job.
    pub job: JobId,
    /// What happened.
    pub kind: EventKind,
    /// The job's state after it.
    pub state: JobState,
    /// How many of the job's tasks were done after it, and which one is at hand.
    pub stage: Stage,
    /// When.
    pub at: Time,
    /// Why, where something failed.
    pub failure: Option<Failure>,
}

/// Where a job is in its graph; enough to say how far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Tasks done.
    pub done: u32,
    /// Frames encoded.
    pub frames: u64,
    /// How far it is in thousandths, where the tasks done do not say that: of a job that plays early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permille: Option<u32>,
}

/// What one tenant may do and have instead of what all may; what is left out is as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimits {
    /// Jobs that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_jobs: Option<u32>,
    /// Tasks that run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_tasks: Option<u32>,
    /// Uploads that are not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_uploads: Option<u32>,
    /// Bytes of all uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes: Option<u64>,
    /// Minutes of output that one job may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_output_minutes: Option<u32>,
    /// Core-seconds that one job may take, as estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_core_seconds: Option<u32>,
    /// Minutes of input of all jobs of a calendar day, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes_per_day: Option<u32>,
    /// Days that its jobs are kept after they have ended, and its uploads after their last byte; 0 is not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Requests a second over time, at each broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Whether a rung may be the source's own pictures; no where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<bool>,
}

impl TenantLimits {
    /// What a resource says of a tenant, and beside it, of what no resource can say, what is here.
    pub fn pushed_onto(self, here: Self) -> Self {
        Self {
            unfinished_jobs: self.unfinished_jobs,
            running_tasks: self.running_tasks,
            upload_bytes: self.upload_bytes,
            minutes_per_day: self.minutes_per_day,
            ..here
        }
    }
}

/// A worker's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// Its pool.
    pub pool: PoolName,
    /// The tenant of its first lease.
    pub tenant: Option<TenantId>,
    /// `namespace/name` of its pod, where it is one.
    pub pod: Option<String>,
    /// The pod's node.
    pub node: Option<String>,
    /// It gets no more leases: its operator is about to end it.
    pub cordoned: bool,
    /// It is nobody any more.
    pub revoked: bool,
    /// Another pod is to take its place.
    pub retired: bool,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Its id.
    pub id: UploadId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its announced length in bytes.
    pub size: u64,
    /// Bytes that are safely stored.
    pub received: u64,
    /// The tenant's name for it.
    pub name: Option<String>,
    /// What a tus client said of it.
    pub metadata: Option<String>,
    /// Whether a task on it broke a lock or the protocol.
    pub quarantined: bool,
    /// When it was created.
    pub created_at: Time,
    /// When bytes came last.
    pub touched_at: Time,
}

impl UploadRecord {
    /// Whether all of it is there.
    pub const fn is_finished(&self) -> bool {
        self.received == self.size
    }
}
