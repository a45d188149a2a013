//! The store: the truth about tenants, jobs, leases and objects. An adapter keeps every method's promise in one
//! transaction; [`crate::conformance::store`] holds each adapter to it.

pub mod identity;
pub mod intake;
mod managed;
pub mod operations;
pub mod postgres;
pub mod retention;
mod row;
pub mod sqlite;
pub mod storage;
pub mod webhooks;

use crate::model::{
    Claim, JobView, LiveAttempt, NewTask, Part, ReadyTask, StoredEvent, Time, UploadRecord, WorkerRecord,
};
use crate::queue::RunningTask;
use crate::scopes::Scopes;
use crate::state::{Decision, Snapshot};
use crate::trace::JobTrace;
use async_trait::async_trait;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::ids::{AttemptId, JobId, KeyId, PoolName, TaskId, TenantId, UploadId, WorkerId};
use mpegflow_protocol::job::JobSpec;

/// The store could not answer. The text is for the operator's log, never for a tenant or a worker.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Migrate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    Full,
    /// A row holds what no version of this program wrote.
    #[error("a row of {table} cannot be read: {reason}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// What makes a repeated call the same call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key.
    pub key: String,
    /// SHA-256 over the method, the path and the body.
    pub request: [u8; 32],
}

/// What became of a call that may be a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once<T> {
    /// It was done now.
    Done(T),
    /// It had been done: the answer of then.
    Replay(Vec<u8>),
    /// The key was used for another request.
    Mismatch,
}

/// A new upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// The row.
    pub upload: UploadRecord,
    /// Most unfinished uploads of the tenant.
    pub max_unfinished: u32,
    /// Most bytes of all the tenant's uploads.
    pub max_bytes: u64,
    /// The answer, kept for a repetition.
    pub answer: Vec<u8>,
}

/// What became of an announced upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It is there.
    Created,
    /// The tenant has too many unfinished ones.
    TooMany,
    /// The tenant has too many bytes.
    TooLarge,
}

/// A new job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What was asked for.
    pub spec: JobSpec,
    /// The folder that its output is to be found in.
    pub path: Option<String>,
    /// Its input.
    pub upload: UploadId,
    /// The length of its input where that is no upload.
    pub object_size: Option<u64>,
    /// The id of its first task.
    pub task_id: TaskId,
    /// Its first task.
    pub task: NewTask,
    /// The pool that does it.
    pub pool: PoolName,
    /// Most unfinished jobs of the tenant.
    pub max_unfinished: u32,
    /// The object that it comes of, where a rule of the intake makes it.
    pub arrival: Option<intake::Arrival>,
    /// The answer, kept for a repetition.
    pub answer: Vec<u8>,
    /// Where its spans belong.
    pub trace: Option<JobTrace>,
}

/// What became of a submitted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// The intake knows the object as it is, or a newer one.
    Known,
    /// The rule of the intake is gone.
    NoRule,
    /// It is there, with its first task ready.
    Created,
    /// The tenant has no such upload.
    NoUpload,
    /// The upload is not finished.
    Unfinished,
    /// The upload is quarantined.
    Quarantined,
    /// The tenant has too many unfinished jobs.
    TooMany,
    /// Another job has the path.
    PathTaken(JobId),
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canceled {
    /// The job is canceled.
    Now,
    /// A worker still has it; it will be canceled.
    Soon,
    /// It had ended.
    AlreadyFinal(JobState),
    /// The tenant has no such job.
    NotFound,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Done,
    /// A job that has not ended needs it.
    InUse,
    /// The tenant has no such thing.
    NotFound,
}

/// What became of a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum Leased {
    /// It is the worker's.
    Granted(Box<LiveAttempt>),
    /// The task is not ready (any more).
    Gone,
    /// The worker is bound to another tenant.
    OtherTenant,
    /// The worker holds as many attempts as it may.
    TooMany,
}

/// A lease that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLease {
    /// The task.
    pub task: TaskId,
    /// The worker.
    pub worker: WorkerId,
    /// The id of the attempt.
    pub attempt: AttemptId,
    /// Now.
    pub now: Time,
    /// Until when, in milliseconds from now.
    pub lease_ms: u64,
    /// Attempts that the worker may hold at once.
    pub most: u32,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It counts.
    Done,
    /// The attempt is not live, or not this worker's in this epoch.
    Stale,
    /// It is there already, or something else was announced.
    Conflict,
}

/// What became of the end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// The attempt ended so, and this is the job after it.
    Done(Box<Outcome>),
    /// The attempt had ended before, or is not this worker's in this epoch: nothing changed.
    Stale,
}

/// What the end of an attempt changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The task whose attempt it was.
    pub ended: RunningTask,
    /// The job.
    pub job: JobId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its state.
    pub state: JobState,
    /// A task that has become ready.
    pub ready: Option<ReadyTask>,
    /// The decision that was applied.
    pub decision: Decision,
}

/// What has to hold of a lease for its attempt to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseIs {
    /// It has not run out: its worker ends the attempt.
    Held,
    /// It has run out: the broker ends the attempt. A renewal in between wins.
    RunOut,
}

/// The end of an attempt that is asked for.
#[derive(Debug)]
pub struct End<'a> {
    /// The attempt, and whose it is.
    pub claim: &'a Claim,
    /// Which locks held.
    pub evidence: Option<&'a Evidence>,
    /// What has to hold of its lease.
    pub lease: LeaseIs,
    /// Now.
    pub now: Time,
    /// The id of the task that may follow.
    pub next_task: TaskId,
    /// What was read already; what has changed since is read again.
    pub known: Option<Box<Known>>,
}

/// A job as it was at one of its versions, for a decision that holds as long as the version does.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The version.
    pub version: u64,
    /// What a decision sees.
    pub snapshot: Snapshot,
}

/// A live attempt that is about to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Closing {
    /// The attempt.
    pub attempt: LiveAttempt,
    /// The parts that were received of each output, in order.
    pub parts: Vec<(u32, Part)>,
    /// What its end is decided from, where the store can say so ahead of it.
    pub known: Option<Box<Known>>,
}

/// A lease that has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The attempt.
    pub claim: Claim,
    /// Whether the attempt's own time is up.
    pub overdue: bool,
}

/// A note that a task has become ready, written with the move that made it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its number.
    pub id: u64,
    /// The task, if it still is.
    pub ready: Option<ReadyTask>,
}

/// What a tenant's key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// Until when; for ever where there is none.
    pub expires_at: Option<Time>,
}

/// Files that nothing needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage {
    /// The tenant.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
}

/// Decides in the transaction, from what it reads there.
pub type Decide<'a> = &'a (dyn Fn(&Snapshot) -> Decision + Send + Sync);

/// The truth. Every method is one transaction; every change of a job writes its event in the same one.
#[async_trait]
pub trait Store:
    identity::Identities
    + intake::Intake
    + operations::Operations
    + retention::Retention
    + storage::Storages
    + webhooks::Webhooks
    + Send
    + Sync
    + 'static
{
    // --- tenants and keys

    /// The tenant of that name; made with `id` where there is none.
    async fn ensure_tenant(&self, name: &str, id: TenantId, now: Time) -> Result<TenantId, StoreError>;
    /// Adds an API key.
    async fn add_api_key(
        &self,
        id: KeyId,
        key: &ApiKeyRecord,
        label: &str,
        now: Time,
    ) -> Result<(), StoreError>;
    /// The key of that id, unless it was revoked.
    async fn api_key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError>;
    /// Revokes a key; whether there was one.
    async fn revoke_api_key(&self, id: KeyId, now: Time) -> Result<bool, StoreError>;

    /// Sets a tenant's share of every pool; whether there is such a tenant.
    async fn set_tenant_weight(&self, name: &str, weight: u32) -> Result<bool, StoreError>;
    /// The weights of tenants that have another than [`crate::queue::DEFAULT_WEIGHT`].
    async fn tenant_weights(&self) -> Result<Vec<(TenantId, u32)>, StoreError>;

    // --- workers

    /// Adds a join token by its SHA-256.
    async fn add_join_token(&self, sha256: [u8; 32], pool: &PoolName, now: Time) -> Result<(), StoreError>;
    /// The pool a join token is for, unless it was revoked.
    async fn join_token(&self, sha256: [u8; 32]) -> Result<Option<PoolName>, StoreError>;
    /// Whether a pool has a join token that was not revoked.
    async fn has_join_token(&self, pool: &PoolName) -> Result<bool, StoreError>;
    /// Revokes every join token of a pool; how many there were.
    async fn revoke_join_tokens(&self, pool: &PoolName, now: Time) -> Result<u64, StoreError>;
    /// Adds a worker, bound to no tenant.
    async fn add_worker(
        &self,
        id: WorkerId,
        pool: &PoolName,
        expires: Time,
        now: Time,
    ) -> Result<(), StoreError>;
    /// A worker.
    async fn worker(&self, id: WorkerId) -> Result<Option<WorkerRecord>, StoreError>;
    /// Notes that a worker's certificate was renewed.
    async fn renew_worker(&self, id: WorkerId, expires: Time) -> Result<(), StoreError>;

    // --- uploads

    /// Announces an upload, within the tenant's quotas.
    async fn create_upload(
        &self,
        new: &NewUpload,
        once: Option<&Idempotency>,
    ) -> Result<Once<Announced>, StoreError>;
    /// An upload of the tenant.
    async fn upload(&self, tenant: TenantId, id: UploadId) -> Result<Option<UploadRecord>, StoreError>;
    /// Moves the count of safely stored bytes from `from` to `to`; whether it was `from`.
    async fn advance_upload(&self, id: UploadId, from: u64, to: u64, now: Time) -> Result<bool, StoreError>;
    /// Deletes an upload unless a job that has not ended needs it.
    async fn delete_upload(&self, tenant: TenantId, id: UploadId) -> Result<Deleted, StoreError>;
    /// Unfinished uploads that nothing was added to since `before`.
    async fn idle_uploads(&self, before: Time) -> Result<Vec<(TenantId, UploadId)>, StoreError>;
    /// Deletes an upload that is still as [`Self::idle_uploads`] found it; whether it was.
    async fn delete_idle_upload(&self, id: UploadId, before: Time) -> Result<bool, StoreError>;

    // --- jobs

    /// Creates a job with its first task ready, and its event.
    async fn submit(
        &self,
        new: &NewJob,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<Submitted>, StoreError>;
    /// A job of the tenant.
    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<JobView>, StoreError>;
    /// The job of the tenant that has a path; one that failed or was canceled has none.
    async fn job_at(&self, tenant: TenantId, path: &str) -> Result<Option<JobId>, StoreError>;
    /// Jobs of the tenant, newest first, after `after`.
    async fn jobs(
        &self,
        tenant: TenantId,
        state: Option<JobState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobView>, StoreError>;
    /// Cancels a job: at once where no worker has it, else soon.
    async fn cancel(
        &self,
        tenant: TenantId,
        id: JobId,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<Canceled>, StoreError>;
    /// Events of the tenant after `after` in order, of one job or of all.
    async fn events(
        &self,
        tenant: TenantId,
        job: Option<JobId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;
    /// The number of the tenant's last event.
    async fn last_event(&self, tenant: TenantId) -> Result<u64, StoreError>;

    // --- dispatch

    /// Every ready task: the queue is made from this.
    async fn ready_tasks(&self) -> Result<Vec<ReadyTask>, StoreError>;
    /// Every task that a worker has.
    async fn running_tasks(&self) -> Result<Vec<RunningTask>, StoreError>;
    /// Ready tasks of a pool that may start by `now`, of the tenant or of all, oldest first: for dispatch without an index.
    async fn ready_for(
        &self,
        pool: &PoolName,
        tenant: Option<TenantId>,
        now: Time,
        limit: u32,
    ) -> Result<Vec<ReadyTask>, StoreError>;
    /// Leases a ready task to a worker: a new epoch, a live attempt, the worker bound to the tenant.
    async fn lease(&self, new: &NewLease) -> Result<Leased, StoreError>;
    /// A live attempt, if the claim is its own.
    async fn live_attempt(&self, claim: &Claim) -> Result<Option<LiveAttempt>, StoreError>;
    /// How many live attempts a worker has.
    async fn live_of_worker(&self, worker: WorkerId) -> Result<u32, StoreError>;
    /// A worker that asks for work, and how many live attempts it has.
    async fn asking(&self, id: WorkerId) -> Result<Option<(WorkerRecord, u32)>, StoreError> {
        match self.worker(id).await? {
            Some(record) => Ok(Some((record, self.live_of_worker(id).await?))),
            None => Ok(None),
        }
    }
    /// Renews a lease that has not run out; the job's state and the new deadline, or `None`.
    async fn renew_lease(
        &self,
        claim: &Claim,
        now: Time,
        lease_ms: u64,
    ) -> Result<Option<(JobState, Time)>, StoreError>;
    /// Live attempts whose lease or time has run out.
    async fn expired(&self, now: Time) -> Result<Vec<Expired>, StoreError>;
    /// Notes that a part was received whole, if the claim is live and it is the first to say so of that part.
    async fn record_part(
        &self,
        claim: &Claim,
        output: u32,
        part: &Part,
        now: Time,
    ) -> Result<Recorded, StoreError>;
    /// The parts of an output, in order.
    async fn parts(&self, attempt: AttemptId, output: u32) -> Result<Vec<Part>, StoreError>;
    /// A live attempt with all that its end needs, if the claim is its own.
    async fn closing(&self, claim: &Claim) -> Result<Option<Closing>, StoreError> {
        let Some(attempt) = self.live_attempt(claim).await? else { return Ok(None) };
        let mut parts = Vec::new();
        for (output, _) in (0_u32..).zip(&attempt.task.plan.outputs) {
            parts.extend(self.parts(claim.attempt, output).await?.into_iter().map(|part| (output, part)));
        }
        Ok(Some(Closing { attempt, parts, known: None }))
    }
    /// Ends a live attempt as `decide` says, if its lease is as it has to be.
    async fn settle(&self, end: End<'_>, decide: Decide<'_>) -> Result<Settled, StoreError>;

    // --- housekeeping

    /// Attempts whose files nothing needs: their job ended and they are not in its manifest, or they failed. None of the
    /// tenants in `without`.
    async fn garbage(&self, without: &[TenantId], limit: u32) -> Result<Vec<Garbage>, StoreError>;
    /// Notes that an attempt's files are gone.
    async fn swept(&self, attempt: AttemptId) -> Result<(), StoreError>;
    /// Notes that an attempt that has ended may have files again: a write was under way while they were swept.
    async fn unsweep(&self, attempt: AttemptId) -> Result<(), StoreError>;
    /// Whether an attempt is known and its files are not swept.
    async fn keeps_files(&self, attempt: AttemptId) -> Result<bool, StoreError>;
    /// Forgets idempotency keys from before `before`.
    async fn forget_idempotency(&self, before: Time) -> Result<u64, StoreError>;
    /// Notes of tasks that moves have made ready and that were not relayed yet, oldest first. None where dispatch is rebuilt from
    /// [`Self::ready_tasks`] alone.
    async fn outbox(&self, limit: u32) -> Result<Vec<Note>, StoreError> {
        let _ = limit;
        Ok(Vec::new())
    }
    /// Notes of the outbox that the dispatch index has.
    async fn relayed(&self, ids: &[u64]) -> Result<(), StoreError> {
        let _ = ids;
        Ok(())
    }
    /// Gives a batch of events their place in their tenants' chains, where the moves that write them do not; how many.
    async fn sequence(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
    /// Makes room ahead of time for what will be written.
    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }
    // --- many brokers on one store; with one alone it always leads and always writes

    /// Takes or keeps a duty for `ttl_ms`: its epoch, one higher with every change of hands, or `None` while another has it.
    async fn lead(&self, duty: &str, holder: &str, ttl_ms: u64) -> Result<Option<u64>, StoreError> {
        let _ = (duty, holder, ttl_ms);
        Ok(Some(1))
    }
    /// Whether nobody has taken the duty since it was taken with that epoch.
    async fn leads(&self, duty: &str, epoch: u64) -> Result<bool, StoreError> {
        let _ = (duty, epoch);
        Ok(true)
    }
    /// Gives a duty back, so that the next one need not wait until it ends.
    async fn resign(&self, duty: &str, holder: &str) -> Result<(), StoreError> {
        let _ = (duty, holder);
        Ok(())
    }
    /// Takes or keeps the right to write an upload for `ttl_ms`; whether nobody else has it.
    async fn write_upload(&self, id: UploadId, holder: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let _ = (id, holder, ttl_ms);
        Ok(true)
    }
    /// Asks whoever has the right to write an upload to give it back.
    async fn ask_for_upload(&self, id: UploadId) -> Result<(), StoreError> {
        let _ = id;
        Ok(())
    }
    /// Whether somebody asks the holder for that right.
    async fn is_asked_for(&self, id: UploadId, holder: &str) -> Result<bool, StoreError> {
        let _ = (id, holder);
        Ok(false)
    }
    /// Gives the right to write an upload back.
    async fn wrote_upload(&self, id: UploadId, holder: &str) -> Result<(), StoreError> {
        let _ = (id, holder);
        Ok(())
    }
    /// Those of the claims whose attempts have ended, here or by another broker.
    async fn ended(&self, claims: &[Claim]) -> Result<Vec<AttemptId>, StoreError> {
        let mut ended = Vec::new();
        for claim in claims {
            if self.live_attempt(claim).await?.is_none() {
                ended.push(claim.attempt);
            }
        }
        Ok(ended)
    }

    /// Answers at all.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Jobs by state, for the metrics.
    async fn count_jobs(&self) -> Result<Vec<(JobState, u64)>, StoreError>;
    /// Finishes what is written and closes.
    async fn close(&self);
}
