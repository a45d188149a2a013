//! The store on SQLite: one writer, several readers, write-ahead log, every commit on disk before it is told.

mod dispatch;
mod identity;
mod intake;
mod jobs;
mod operations;
mod retention;
mod settle;
mod storage;
mod sweep;
mod tenants;
mod uploads;
mod webhooks;

use crate::model::{
    Claim, JobView, LiveAttempt, Part, ReadyTask, StoredEvent, Time, UploadRecord, WorkerRecord,
};
use crate::queue::RunningTask;
use crate::store::{
    Announced, ApiKeyRecord, Canceled, Decide, Deleted, End, Expired, Garbage, Idempotency, Leased, NewJob,
    NewLease, NewUpload, Once, Recorded, Settled, Store, StoreError, Submitted,
};
use async_trait::async_trait;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{AttemptId, JobId, KeyId, PoolName, TenantId, UploadId, WorkerId};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::path::Path;
use std::time::Duration;

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(10);

/// A later version of the program has used the file. Nobody else is on it, so that there is no other version to get along with.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file has version {found} of the schema, which this program does not know: use the program that wrote it, or a later one"
)]
struct Newer {
    found: i64,
}

/// A store in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

type Tx = Transaction<'static, Sqlite>;

/// SQLite makes its files as the umask says, and gives the log and the index beside a database the rights of the database.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

impl SqliteStore {
    /// Opens the file, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, or it has a schema from a later version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|e| StoreError::Database(Box::new(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A job that was told to be accepted survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        // SQLite has one writer anyway; waiting in the pool's fair queue beats waiting in its busy loop.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!("./migrations").run(&writer).await.map_err(|e| match e {
            MigrateError::VersionMissing(found) => StoreError::Migrate(Box::new(Newer { found })),
            e => StoreError::Migrate(Box::new(e)),
        })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY)
            .connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers })
    }

    async fn write(&self) -> Result<Tx, StoreError> {
        // IMMEDIATE: a deferred transaction that reads first could lose its upgrade to another process.
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ensure_tenant(&self, name: &str, id: TenantId, now: Time) -> Result<TenantId, StoreError> {
        tenants::ensure(self, name, id, now).await
    }

    async fn add_api_key(
        &self,
        id: KeyId,
        key: &ApiKeyRecord,
        label: &str,
        now: Time,
    ) -> Result<(), StoreError> {
        tenants::add_key(self, id, key, label, now).await
    }

    async fn api_key(&self, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        tenants::key(self, id).await
    }

    async fn revoke_api_key(&self, id: KeyId, now: Time) -> Result<bool, StoreError> {
        tenants::revoke_key(self, id, now).await
    }

    async fn set_tenant_weight(&self, name: &str, weight: u32) -> Result<bool, StoreError> {
        tenants::set_weight(self, name, weight).await
    }

    async fn tenant_weights(&self) -> Result<Vec<(TenantId, u32)>, StoreError> {
        tenants::weights(self).await
    }

    async fn add_join_token(&self, sha256: [u8; 32], pool: &PoolName, now: Time) -> Result<(), StoreError> {
        tenants::add_join_token(self, sha256, pool, now).await
    }

    async fn join_token(&self, sha256: [u8; 32]) -> Result<Option<PoolName>, StoreError> {
        tenants::join_token(self, sha256).await
    }

    async fn has_join_token(&self, pool: &PoolName) -> Result<bool, StoreError> {
        tenants::has_join_token(self, pool).await
    }

    async fn revoke_join_tokens(&self, pool: &PoolName, now: Time) -> Result<u64, StoreError> {
        tenants::revoke_join_tokens(self, pool, now).await
    }

    async fn add_worker(
        &self,
        id: WorkerId,
        pool: &PoolName,
        expires: Time,
        now: Time,
    ) -> Result<(), StoreError> {
        tenants::add_worker(self, id, pool, expires, now).await
    }

    async fn worker(&self, id: WorkerId) -> Result<Option<WorkerRecord>, StoreError> {
        tenants::worker(self, id).await
    }

    async fn renew_worker(&self, id: WorkerId, expires: Time) -> Result<(), StoreError> {
        tenants::renew_worker(self, id, expires).await
    }

    async fn create_upload(
        &self,
        new: &NewUpload,
        once: Option<&Idempotency>,
    ) -> Result<Once<Announced>, StoreError> {
        uploads::create(self, new, once).await
    }

    async fn upload(&self, tenant: TenantId, id: UploadId) -> Result<Option<UploadRecord>, StoreError> {
        uploads::get(self, tenant, id).await
    }

    async fn advance_upload(&self, id: UploadId, from: u64, to: u64, now: Time) -> Result<bool, StoreError> {
        uploads::advance(self, id, from, to, now).await
    }

    async fn delete_upload(&self, tenant: TenantId, id: UploadId) -> Result<Deleted, StoreError> {
        uploads::delete(self, tenant, id).await
    }

    async fn idle_uploads(&self, before: Time) -> Result<Vec<(TenantId, UploadId)>, StoreError> {
        uploads::idle(self, before).await
    }

    async fn delete_idle_upload(&self, id: UploadId, before: Time) -> Result<bool, StoreError> {
        uploads::delete_idle(self, id, before).await
    }

    async fn submit(
        &self,
        new: &NewJob,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<Submitted>, StoreError> {
        jobs::submit(self, new, once, now).await
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<JobView>, StoreError> {
        jobs::get(self, tenant, id).await
    }

    async fn job_at(&self, tenant: TenantId, path: &str) -> Result<Option<JobId>, StoreError> {
        jobs::at(self, tenant, path).await
    }

    async fn jobs(
        &self,
        tenant: TenantId,
        state: Option<JobState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobView>, StoreError> {
        jobs::list(self, tenant, state, after, limit).await
    }

    async fn cancel(
        &self,
        tenant: TenantId,
        id: JobId,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<Canceled>, StoreError> {
        jobs::cancel(self, tenant, id, once, now).await
    }

    async fn events(
        &self,
        tenant: TenantId,
        job: Option<JobId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        jobs::events(self, tenant, job, after, limit).await
    }

    async fn last_event(&self, tenant: TenantId) -> Result<u64, StoreError> {
        jobs::last_event(self, tenant).await
    }

    async fn ready_tasks(&self) -> Result<Vec<ReadyTask>, StoreError> {
        dispatch::ready(self).await
    }

    async fn running_tasks(&self) -> Result<Vec<RunningTask>, StoreError> {
        dispatch::running(self).await
    }

    async fn ready_for(
        &self,
        pool: &PoolName,
        tenant: Option<TenantId>,
        now: Time,
        limit: u32,
    ) -> Result<Vec<ReadyTask>, StoreError> {
        dispatch::ready_for(self, pool, tenant, now, limit).await
    }

    async fn lease(&self, new: &NewLease) -> Result<Leased, StoreError> {
        dispatch::lease(self, new).await
    }

    async fn live_attempt(&self, claim: &Claim) -> Result<Option<LiveAttempt>, StoreError> {
        dispatch::live(self, claim).await
    }

    async fn live_of_worker(&self, worker: WorkerId) -> Result<u32, StoreError> {
        dispatch::live_of_worker(self, worker).await
    }

    async fn renew_lease(
        &self,
        claim: &Claim,
        now: Time,
        lease_ms: u64,
    ) -> Result<Option<(JobState, Time)>, StoreError> {
        dispatch::renew(self, claim, now, lease_ms).await
    }

    async fn expired(&self, now: Time) -> Result<Vec<Expired>, StoreError> {
        dispatch::expired(self, now).await
    }

    async fn record_part(
        &self,
        claim: &Claim,
        output: u32,
        part: &Part,
        now: Time,
    ) -> Result<Recorded, StoreError> {
        dispatch::record_part(self, claim, output, part, now).await
    }

    async fn parts(&self, attempt: AttemptId, output: u32) -> Result<Vec<Part>, StoreError> {
        dispatch::parts(self, attempt, output).await
    }

    async fn settle(&self, end: End<'_>, decide: Decide<'_>) -> Result<Settled, StoreError> {
        settle::settle(self, end, decide).await
    }

    async fn garbage(&self, without: &[TenantId], limit: u32) -> Result<Vec<Garbage>, StoreError> {
        sweep::garbage(self, without, limit).await
    }

    async fn swept(&self, attempt: AttemptId) -> Result<(), StoreError> {
        sweep::swept(self, attempt).await
    }

    async fn unsweep(&self, attempt: AttemptId) -> Result<(), StoreError> {
        sweep::unsweep(self, attempt).await
    }

    async fn keeps_files(&self, attempt: AttemptId) -> Result<bool, StoreError> {
        sweep::keeps_files(self, attempt).await
    }

    async fn forget_idempotency(&self, before: Time) -> Result<u64, StoreError> {
        sweep::forget_idempotency(self, before).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    async fn count_jobs(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        jobs::count(self).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
