//! The store on PostgreSQL, version 14 and later: many brokers on one database.
//!
//! - A state move is one statement: compare, set, event and outbox row together, or nothing. What a decision needs is read
//!   before it without a lock, and the statement applies it only at the version that was read.
//! - Leases and ends that are asked for at about the same time are one statement and one commit ([`together`]); each still stands
//!   for itself, and is answered when all are on disk.
//! - Leases live and end on the database's clock. The caller's time decides nothing but when a retry may start.
//! - Whoever deletes the row of a lease ends the attempt; an epoch that is not the lease's deletes nothing.
//! - Events are written to a journal and chained afterwards ([`chain`]).
//! - Nothing is kept in a session, so that a pooler in transaction mode may be in between.

mod chain;
mod clock;
mod closing;
mod conn;
mod dispatch;
mod identity;
mod intake;
mod jobs;
mod lease;
mod migrate;
mod operations;
mod partitions;
mod query;
mod renew;
mod replicas;
mod retention;
mod settle;
mod sql;
mod storage;
mod sweep;
mod tenants;
mod together;
mod uploads;
mod url;
mod webhooks;

pub use clock::DatabaseClock;
pub use conn::{DatabaseConfig, UrlSource};
pub use migrate::BESIDE;
pub use partitions::DropError;
pub use url::{DatabaseUrl, UrlError};

use crate::audit::checkpoint::{Checkpoint, Purpose, SignedCheckpoint};
use crate::audit::verify::{Finding, Verified, Verifier};
use crate::batch::Batcher;
use crate::model::{
    Claim, JobView, LiveAttempt, Part, ReadyTask, StoredEvent, Time, UploadRecord, WorkerRecord,
};
use crate::queue::RunningTask;
use crate::store::row::Cells;
use crate::store::{
    Announced, ApiKeyRecord, Canceled, Closing, Decide, Deleted, End, Expired, Garbage, Idempotency, Leased,
    NewJob, NewLease, NewUpload, Note, Once, Recorded, Settled, Store, StoreError, Submitted,
};
use async_trait::async_trait;
use closing::Closings;
use conn::{Conn, Connector};
use lease::{Asking, LeaseAsk, Leases};
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{AttemptId, JobId, KeyId, PoolName, TenantId, UploadId, WorkerId};
use query::Query;
use renew::Renewals;
use settle::Ends;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use together::Together;

/// Batches of moves that are under way at once: while one waits for the disk, the next is worked out.
const MOVES: usize = 2;
/// Batches of reads that are under way at once.
const READS: usize = 1;
/// Entries that are verified, and held in memory, at once.
const AUDIT_PAGE: u32 = 5_000;

/// A store in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    connector: Arc<Connector>,
    renewals: Renewals,
    asking: Batcher<Together<Asking>>,
    leases: Batcher<Together<Leases>>,
    closings: Batcher<Together<Closings>>,
    ends: Batcher<Together<Ends>>,
    counted: jobs::Counted,
    clock: DatabaseClock,
    callers_time: bool,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// The database cannot be reached or does not let us in, or its schema is of a much later version.
    pub async fn open(config: DatabaseConfig) -> Result<Self, StoreError> {
        let most = config.together;
        let later = config.later.clone();
        let connector = Connector::connect(config).await?;
        migrate::run(&connector, later.as_deref()).await?;
        let store = Self::over(connector, most).await?;
        partitions::prepare(&store).await?;
        Ok(store)
    }

    /// Connects to a database that is read and left as it is: for verifiers, who may do no more.
    ///
    /// # Errors
    /// The database cannot be reached or does not let us in.
    pub async fn open_as_it_is(config: DatabaseConfig) -> Result<Self, StoreError> {
        let most = config.together;
        Self::over(Connector::connect(config).await?, most).await
    }

    async fn over(connector: Arc<Connector>, most: usize) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let clock = DatabaseClock::new(asked, time(&connector).await?);
        Ok(Self {
            renewals: Renewals::start(Arc::clone(&connector)),
            asking: Together::start(&connector, READS, most),
            leases: Together::start(&connector, MOVES, most),
            closings: Together::start(&connector, READS, most),
            ends: Together::start(&connector, MOVES, most),
            counted: jobs::Counted::default(),
            connector,
            clock,
            callers_time: false,
        })
    }

    /// Leases then live on the time that callers give. For tests alone: a broker whose clock is wrong would end the leases of
    /// others.
    #[must_use]
    pub fn trusting_callers_time(mut self) -> Self {
        self.callers_time = true;
        self
    }

    /// The database's clock, for whoever compares a lease's deadline with now.
    pub fn clock(&self) -> DatabaseClock {
        self.clock.clone()
    }

    /// The database's time, asked for now.
    ///
    /// # Errors
    /// The database failed.
    pub async fn database_time(&self) -> Result<Time, StoreError> {
        let asked = Instant::now();
        let told = time(&self.connector).await?;
        self.clock.set(asked, told);
        Ok(told)
    }

    /// The heads of all chains, to be signed and kept outside the database.
    ///
    /// # Errors
    /// The database failed.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        while chain::step(self, None).await? > 0 {}
        let at = self.database_time().await?.0;
        Ok(Checkpoint { purpose: Purpose::Head, at, heads: chain::heads(self).await? })
    }

    /// Verifies every chain that the database or a checkpoint knows of, against checkpoints whose signatures were checked.
    ///
    /// # Errors
    /// The database failed. What is wrong with a chain is no error but the answer.
    pub async fn audit(
        &self,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<(TenantId, Result<Verified, Finding>)>, StoreError> {
        let mut tenants: BTreeSet<TenantId> =
            chain::heads(self).await?.into_iter().map(|head| head.tenant).collect();
        tenants.extend(checkpoints.iter().flat_map(|c| &c.heads).map(|head| head.tenant));
        let mut answers = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            answers.push((tenant, self.audit_tenant(tenant, checkpoints).await?));
        }
        Ok(answers)
    }

    async fn audit_tenant(
        &self,
        tenant: TenantId,
        checkpoints: &[Checkpoint],
    ) -> Result<Result<Verified, Finding>, StoreError> {
        let mut page = chain::entries(self, tenant, 0, AUDIT_PAGE).await?;
        let mut verifier = match Verifier::of(tenant, page.first().map(|entry| entry.seq), checkpoints) {
            Ok(verifier) => verifier,
            Err(finding) => return Ok(Err(finding)),
        };
        while let Some(last) = page.last() {
            let last = last.seq;
            if let Err(finding) = verifier.page(&page) {
                return Ok(Err(finding));
            }
            page = chain::entries(self, tenant, last, AUDIT_PAGE).await?;
        }
        Ok(verifier.finish())
    }

    /// Erases what the tenant's events say; the chain stays, with a record of it. How many entries were erased.
    ///
    /// # Errors
    /// The database failed.
    pub async fn erase_events(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let at = self.database_time().await?.0;
        chain::erase(self, tenant, at).await
    }

    /// The partitions of `events`, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn event_partitions(&self) -> Result<Vec<String>, StoreError> {
        partitions::names(self).await
    }

    /// Whether the partition may be dropped at all: to be asked before an anchor is signed.
    ///
    /// # Errors
    /// It is not the oldest, its month is not over, there is none of that name, or the database failed.
    pub async fn may_drop_events(&self, partition: &str) -> Result<(), DropError> {
        partitions::may_drop(self, partition).await
    }

    /// What has to be signed and kept before the partition may be dropped.
    ///
    /// # Errors
    /// There is no such partition, or the database failed.
    pub async fn anchor_of(&self, partition: &str) -> Result<Checkpoint, DropError> {
        partitions::anchor(self, partition).await
    }

    /// Drops the oldest partition of `events`, against its signed anchor.
    ///
    /// # Errors
    /// It is not the oldest, its month is not over, or the anchor is not signed or not the partition's.
    pub async fn drop_events(
        &self,
        partition: &str,
        anchor: &SignedCheckpoint,
        public_key: &[u8],
    ) -> Result<(), DropError> {
        partitions::drop(self, partition, anchor, public_key).await
    }

    /// Has the server parse and plan every statement against the schema as it is: a wrong column or type shows here, before the
    /// code that uses it runs. How many columns each of them gives, by its name.
    ///
    /// # Errors
    /// The server refuses one.
    pub async fn check_statements(&self) -> Result<Vec<(&'static str, usize)>, StoreError> {
        let mut conn = self.begin().await?;
        let mut checked = Vec::with_capacity(sql::ALL.len());
        for (name, statement) in sql::ALL {
            let statement = sqlx::SqlSafeStr::into_sql_str(*statement);
            let prepared = sqlx::Executor::prepare(&mut *conn, statement)
                .await
                .map_err(|e| StoreError::Row { table: "statements", reason: format!("{name}: {e}") })?;
            checked.push((*name, sqlx::Statement::columns(&prepared).len()));
        }
        Ok(checked)
    }

    fn sql<'a>(&self, sql: &'static str) -> Query<'a> {
        self.connector.sql(sql)
    }

    async fn conn(&self) -> Result<Conn, StoreError> {
        self.connector.conn().await
    }

    async fn begin(&self) -> Result<Conn, StoreError> {
        self.connector.begin().await
    }

    async fn snapshot(&self) -> Result<Conn, StoreError> {
        self.connector.snapshot().await
    }

    /// Runs one statement; how many rows it changed.
    async fn change(&self, query: Query<'_>) -> Result<u64, StoreError> {
        let mut conn = self.conn().await?;
        let done = query.execute(&mut conn).await?;
        conn.done().await?;
        Ok(done.rows_affected())
    }

    /// The time that a statement is to use in place of the database's.
    const fn at(&self, now: Time) -> Option<i64> {
        if self.callers_time { Some(now.0) } else { None }
    }
}

async fn time(connector: &Arc<Connector>) -> Result<Time, StoreError> {
    let mut conn = connector.conn().await?;
    let row = connector.sql(sql::TIME).fetch_one(&mut conn).await?;
    conn.done().await?;
    Cells::of("clock", &row).time("now")
}

#[async_trait]
impl Store for PostgresStore {
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
        together::ask(&self.leases, LeaseAsk { new: *new, at: self.at(new.now) }).await
    }

    async fn asking(&self, id: WorkerId) -> Result<Option<(WorkerRecord, u32)>, StoreError> {
        together::ask(&self.asking, id).await
    }

    async fn closing(&self, claim: &Claim) -> Result<Option<Closing>, StoreError> {
        together::ask(&self.closings, *claim).await
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
        self.renewals.renew(*claim, self.at(now), lease_ms).await
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
        sweep::swept(self, attempt, true).await
    }

    async fn unsweep(&self, attempt: AttemptId) -> Result<(), StoreError> {
        sweep::swept(self, attempt, false).await
    }

    async fn keeps_files(&self, attempt: AttemptId) -> Result<bool, StoreError> {
        sweep::keeps_files(self, attempt).await
    }

    async fn forget_idempotency(&self, before: Time) -> Result<u64, StoreError> {
        sweep::forget_idempotency(self, before).await
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<Note>, StoreError> {
        sweep::outbox(self, limit).await
    }

    async fn relayed(&self, ids: &[u64]) -> Result<(), StoreError> {
        sweep::relayed(self, ids).await
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        chain::step(self, None).await
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        partitions::prepare(self).await
    }

    async fn lead(&self, duty: &str, holder: &str, ttl_ms: u64) -> Result<Option<u64>, StoreError> {
        replicas::lead(self, duty, holder, ttl_ms).await
    }

    async fn leads(&self, duty: &str, epoch: u64) -> Result<bool, StoreError> {
        replicas::leads(self, duty, epoch).await
    }

    async fn resign(&self, duty: &str, holder: &str) -> Result<(), StoreError> {
        replicas::resign(self, duty, holder).await
    }

    async fn write_upload(&self, id: UploadId, holder: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        replicas::write_upload(self, id, holder, ttl_ms).await
    }

    async fn ask_for_upload(&self, id: UploadId) -> Result<(), StoreError> {
        replicas::ask_for_upload(self, id).await
    }

    async fn is_asked_for(&self, id: UploadId, holder: &str) -> Result<bool, StoreError> {
        replicas::is_asked_for(self, id, holder).await
    }

    async fn wrote_upload(&self, id: UploadId, holder: &str) -> Result<(), StoreError> {
        replicas::wrote_upload(self, id, holder).await
    }

    async fn ended(&self, claims: &[Claim]) -> Result<Vec<AttemptId>, StoreError> {
        replicas::ended(self, claims).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.database_time().await.map(drop)
    }

    async fn count_jobs(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        jobs::count(self).await
    }

    async fn close(&self) {
        self.connector.close().await;
    }
}
