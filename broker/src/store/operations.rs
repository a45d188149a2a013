//! What the store keeps for those who run a broker and those who watch it: workers seen, attempts' logs. None of it decides
//! about a job.

use super::StoreError;
use crate::audit::checkpoint::Checkpoint;
use crate::model::{AttemptState, Claim, Part, TaskKind, TenantLimits, Time};
use crate::plan::bans::Ban;
use crate::scopes::Scopes;
use async_trait::async_trait;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{AttemptId, JobId, KeyId, PoolName, TenantId, UploadId};
use mpegflow_protocol::media::MediaInfo;

/// Workers of a pool, as one broker or all of them see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSeen {
    /// The pool.
    pub pool: PoolName,
    /// Connections of workers that said something lately.
    pub workers: u64,
    /// Workers that ask for a task now.
    pub idle: u64,
}

/// What the codecs of an attempt wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptLog {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it was at.
    pub kind: TaskKind,
    /// Which attempt at its task, from 1.
    pub number: u64,
    /// How it stands.
    pub state: AttemptState,
    /// When it started.
    pub started_at: Time,
    /// The lines, each with its end.
    pub text: String,
    /// Whether more came than is kept.
    pub cut: bool,
}

/// An API key, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyShown {
    /// Its public part.
    pub id: KeyId,
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Time,
    /// Until when it is valid; for ever where there is none.
    pub expires_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
}

/// A job that has ended, for those who run a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedJob {
    /// The job.
    pub id: JobId,
    /// Its tenant's name.
    pub tenant: String,
    /// How it ended.
    pub state: JobState,
    /// When.
    pub finished_at: Option<Time>,
    /// What its input was, where that was found out.
    pub media: Option<MediaInfo>,
}

/// Records beside the truth about jobs.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Says which workers this broker has, for the other brokers on the same store. Nothing where there are no others.
    async fn tell_pools(&self, broker: &str, seen: &[PoolSeen], now: Time) -> Result<(), StoreError> {
        let _ = (broker, seen, now);
        Ok(())
    }
    /// What other brokers than `broker` have told since `since`, summed up by pool.
    async fn pools_of_others(&self, broker: &str, since: Time) -> Result<Vec<PoolSeen>, StoreError> {
        let _ = (broker, since);
        Ok(Vec::new())
    }

    /// The heads of all chains, to be signed and kept outside; none where events are not chained.
    async fn heads_to_sign(&self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(None)
    }

    /// The API keys of a tenant, oldest first.
    async fn api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyShown>, StoreError>;
    /// Ends an API key at `at`, unless it ends before; whether there is one that was not revoked.
    async fn expire_api_key(&self, id: KeyId, at: Time) -> Result<bool, StoreError>;
    /// What a tenant may have instead of what all may.
    async fn tenant_limits(&self, tenant: TenantId) -> Result<Option<TenantLimits>, StoreError>;
    /// Sets that; whether there is such a tenant.
    async fn set_tenant_limits(&self, tenant: TenantId, limits: &TenantLimits) -> Result<bool, StoreError>;
    /// The tenant of that name.
    async fn tenant_named(&self, name: &str) -> Result<Option<TenantId>, StoreError>;
    /// What an upload of the tenant is, where one of its jobs has found out.
    async fn media_of_upload(
        &self,
        tenant: TenantId,
        upload: UploadId,
    ) -> Result<Option<MediaInfo>, StoreError>;
    /// Takes a job's milliseconds of input from the day's `most` of its tenant, unless they were taken before; whether there were
    /// as many. What a job took that failed or was canceled is there again.
    async fn reserve_minutes(
        &self,
        tenant: TenantId,
        job: JobId,
        day: u64,
        ms: u64,
        most: u64,
    ) -> Result<bool, StoreError>;
    /// Milliseconds of input that the tenant's jobs have taken of a day.
    async fn minutes_taken(&self, tenant: TenantId, day: u64) -> Result<u64, StoreError>;
    /// The version of an input that a live attempt reads: this one where none was pinned yet; `None` where the claim is not live.
    async fn pin_input(&self, claim: &Claim, input: u32, version: &str)
    -> Result<Option<String>, StoreError>;
    /// What a part of an output of a live attempt is to be: this where nothing was announced yet; `None` where the claim is not live.
    async fn announce_part(
        &self,
        claim: &Claim,
        output: u32,
        part: &Part,
    ) -> Result<Option<Part>, StoreError>;
    /// Tasks of the tenant that run now.
    async fn running_of_tenant(&self, tenant: TenantId) -> Result<u64, StoreError>;

    /// Adds lines to the log of a live attempt, which keeps at most `most` characters; nothing where the claim is not live.
    async fn append_log(&self, claim: &Claim, lines: &str, most: u32, now: Time) -> Result<(), StoreError>;
    /// The logs of a job of the tenant, latest attempts first; none where it is not the tenant's.
    async fn logs(&self, tenant: TenantId, job: JobId, limit: u32) -> Result<Vec<AttemptLog>, StoreError>;
    /// The bans on decoders and demuxers.
    async fn bans(&self) -> Result<Vec<Ban>, StoreError>;
    /// Bans one, or gives its ban another reason.
    async fn ban(&self, ban: &Ban) -> Result<(), StoreError>;
    /// Lifts a ban; whether there was one.
    async fn lift_ban(&self, name: &str) -> Result<bool, StoreError>;
    /// Jobs that have ended, in the order of their ids after `after`, with what their inputs were.
    async fn ended_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<EndedJob>, StoreError>;

    /// Forgets logs that nothing was added to since `before`; how many.
    async fn forget_logs(&self, before: Time) -> Result<u64, StoreError>;
}
