//! Bodies of the public API.

use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::ids::{AttemptId, JobId, UploadId};
use crate::job::JobSpec;
use crate::media::MediaInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Not started.
    Queued,
    /// At least one task has started.
    Running,
    /// Cancel was asked for; it may still succeed.
    Canceling,
    /// Its output is committed.
    Succeeded,
    /// It will not succeed.
    Failed,
    /// It was canceled.
    Canceled,
}

impl JobState {
    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The state as the API and the database spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// State of a task of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for another task.
    Waiting,
    /// Ready for a worker.
    Ready,
    /// A worker has it.
    Running,
    /// Done.
    Succeeded,
    /// Will not be tried again.
    Failed,
    /// Canceled.
    Canceled,
}

impl TaskState {
    /// The state as the API and the database spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// A job as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// What was asked for.
    pub spec: JobSpec,
    /// How far it is.
    pub progress: JobProgress,
    /// Why it waits, where it waits for a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What the input is, once it was probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaInfo>,
    /// What it costs, estimated once its input is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// What of the input was lost on the way, where anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
    /// Whether it plays before it has ended, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<Early>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Its committed output; empty until it succeeded.
    pub outputs: Vec<Output>,
    /// RFC 3339 time of creation.
    pub created_at: String,
    /// RFC 3339 time of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
}

/// What a job costs, estimated from what its input is and what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// Minutes of input: what counts against a tenant's minutes of the day.
    pub input_minutes: f64,
    /// Minutes of output: those of each rendition of the picture, or of the sound where there is no picture.
    pub output_minutes: f64,
    /// Seconds of one CPU core.
    pub core_seconds: f64,
}

/// What of an input was lost: the output is made of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Damage {
    /// So much is missing that the job would have failed, had `allow_partial` not let it pass.
    pub partial: bool,
    /// Milliseconds from the start that came out.
    pub good_ms: u64,
    /// Milliseconds that the input says it lasts, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_ms: Option<u64>,
    /// Packets and frames that could not be decoded and were skipped or painted over.
    pub decode_errors: u64,
}

/// Whether a job of `output.early` plays before it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Early {
    /// Where it plays, relative to the broker: the multivariant playlist, which stays there when the job has succeeded. Not there
    /// before the first segments were checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Milliseconds of the film that can be played.
    pub playable_ms: u64,
    /// Why the input is encoded as a whole and plays when the job has succeeded, where it cannot be cut into chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_because: Option<String>,
}

/// Why a job waits for a worker: the first of these reasons that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// The reason.
    pub reason: WaitingReason,
    /// The same for people, with what would end it.
    pub message: String,
    /// RFC 3339 time before which it will not start, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident $text:literal;)*) => {
        /// Why a job waits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum WaitingReason { $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)* }

        impl WaitingReason {
            /// Every reason, in the order in which they are looked at.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason as the API spells it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// The attempt before failed or was given back, and the next one may not start yet.
    RetryLater "retry_later";
    /// The queue does not answer.
    DispatchDown "dispatch_down";
    /// Storage does not answer.
    StorageDown "storage_down";
    /// The tenant has as many tasks running as it may.
    Quota "quota";
    /// Nobody says that the pool's network policies hold.
    Gate "gate";
    /// No worker of the pool is connected.
    NoWorker "no_worker";
    /// Every worker of the pool is busy; other tasks are before it.
    OthersFirst "others_first";
    /// A worker is free and about to take it.
    Starting "starting";
}

/// What the codecs of a job's attempts wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobLogs {
    /// The job.
    pub job: JobId,
    /// Attempts that wrote something, latest first; at most 16.
    pub attempts: Vec<AttemptLog>,
}

/// What the codec of one attempt wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptLog {
    /// The attempt.
    pub attempt: AttemptId,
    /// `probe`, `encode`, `package` or `check`.
    pub task: String,
    /// Which attempt at the task, from 1.
    pub number: u64,
    /// `live`, `succeeded`, `failed`, `lost`, `released` or `canceled`.
    pub state: String,
    /// RFC 3339 time of its start.
    pub started_at: String,
    /// The lines as the codec wrote them, made fit for a terminal. Untrusted.
    pub lines: Vec<String>,
    /// Whether it wrote more than is kept (65,536 characters).
    pub cut: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// 0 to 100.
    pub percent: f64,
    /// Frames encoded.
    pub frames: u64,
    /// Media time over wall time of the running encode; 1.0 is real time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Seconds left, estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<u64>,
}

/// A task as the job's tenant sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// `probe`, `encode`, `package` or `check`.
    pub kind: String,
    /// Its state.
    pub state: TaskState,
    /// Attempts so far.
    pub attempts: u32,
    /// Which locks the attempt that succeeded ran under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
}

/// One object of a job's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Output {
    /// Its name within the job, such as `master.m3u8`.
    pub name: String,
    /// Where to get it, relative to the broker.
    pub url: String,
    /// Length in bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// Digest, as in [`crate::worker::OutputDigest::digest`]; also its ETag.
    pub digest: String,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Give this as `after` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Announces an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUpload {
    /// Its length in bytes, 0 to 64 GiB.
    pub size: u64,
    /// The tenant's name for it, 1 to 255 characters; never part of a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes received; send the rest from here. The upload is finished when this is `size`.
    pub offset: u64,
    /// The tenant's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// RFC 3339 time of creation.
    pub created_at: String,
}

/// A preset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// What it makes.
    pub description: String,
}

/// Something that happened to a job, as the event stream sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The job.
    pub job: JobId,
    /// What happened.
    pub kind: EventKind,
    /// The job's state after it.
    pub state: JobState,
    /// How far it is.
    pub progress: JobProgress,
    /// RFC 3339 time.
    pub at: String,
    /// Why, where something failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What an [`Event`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The job was created.
    Created,
    /// A task started.
    TaskStarted,
    /// A task succeeded.
    TaskSucceeded,
    /// An attempt failed or was lost; the task may be tried again.
    AttemptFailed,
    /// Not stored: how far the job is.
    Progress,
    /// Cancel was asked for.
    Canceling,
    /// The job ended; see its state.
    Finished,
}

/// An error: RFC 9457, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable URI reference that names the kind of problem: `/problems/` and a code.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The field at fault, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}
