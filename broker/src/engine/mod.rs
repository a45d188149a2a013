//! What the broker does for tenants and for workers, over the traits. Knows neither HTTP nor SQL.

mod attempts;
mod bans;
pub mod cluster;
mod dispatch;
mod housekeeping;
mod intake;
mod jobs;
mod keys;
mod leader;
mod limits;
mod live;
mod logs;
mod meters;
mod outage;
mod pins;
mod presence;
mod presign;
mod rate;
mod render;
mod retention;
mod settle;
mod spend;
mod storage;
mod traces;
mod uploads;
mod waiting;
mod webhooks;
mod writing;

pub use attempts::{CallError, Granted, InputRange, LeaseAnswer};
pub use bans::Used;
pub use cluster::{PodRefused, PushError};
pub use dispatch::Repaired;
pub use housekeeping::{OrphansError, Swept, expires};
pub use intake::IntakeError;
pub use jobs::{JobError, Served, SubmitError};
pub use keys::{Caller, CallerError, NewKey, RotateError, TokenError, Tokens};
pub use leader::{Fence, Leadership};
pub use limits::Limits;
pub use live::{Notice, Subscription};
pub use meters::Meters;
pub use presence::{Connected, Presence};
pub use presign::URL_LIFE;
pub use rate::{Rate, Throttle};
pub use retention::Retained;
pub use storage::StorageError;
pub use traces::{Request, Tracing};
pub use uploads::{Checksum, ChecksumAlgorithm, UploadError, Writes};
pub use webhooks::WebhookError;

use crate::capability::Capabilities;
use crate::model::{Clock, StoredEvent, Time};
use crate::objects::Objects;
use crate::objects::own::Setup;
use crate::plan::Settings;
use crate::plan::estimate::Caps;
use crate::queue::Queue;
use crate::scopes::Scopes;
use crate::store::{Store, StoreError};
use live::LiveMap;
use mpegflow_protocol::ids::{PoolName, TenantId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a tenant may have at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Jobs that have not ended.
    pub unfinished_jobs: u32,
    /// Tasks that run at once; any number where there is none.
    pub running_tasks: Option<u32>,
    /// Uploads that are not finished.
    pub unfinished_uploads: u32,
    /// Bytes of all uploads.
    pub upload_bytes: u64,
    /// What one job may cost.
    pub caps: Caps,
    /// Minutes of input of all jobs of a calendar day, UTC; any number where there is none.
    pub minutes_per_day: Option<u32>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            unfinished_jobs: 1_000,
            running_tasks: None,
            unfinished_uploads: 64,
            upload_bytes: 4 << 40,
            caps: Caps::default(),
            minutes_per_day: None,
        }
    }
}

/// What an engine is made of.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The dispatch index.
    pub queue: Arc<dyn Queue>,
    /// The bytes.
    pub objects: Arc<dyn Objects>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The capabilities' key.
    pub capabilities: Capabilities,
    /// What every plan follows.
    pub settings: Settings,
    /// How long a lease lives without a heartbeat.
    pub lease: Duration,
    /// What a tenant may have.
    pub quotas: Quotas,
    /// What is measured.
    pub meters: Arc<Meters>,
    /// How many requests a tenant may make.
    pub rate: Rate,
    /// What webhooks' secrets are derived from.
    pub webhook_secrets: crate::webhooks::secret::Secrets,
    /// Where webhooks may be.
    pub webhook_policy: crate::webhooks::Policy,
    /// What tenants' own storage may be.
    pub storage: Arc<Setup>,
    /// How long a URL for a worker of a presigned pool holds.
    pub url_life: Duration,
}

/// Counters for the metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes that workers read.
    pub bytes_to_workers: AtomicU64,
    /// Bytes that workers wrote.
    pub bytes_from_workers: AtomicU64,
    /// Bytes that tenants uploaded.
    pub bytes_uploaded: AtomicU64,
    /// Attempts started.
    pub attempts_started: AtomicU64,
    /// Attempts that succeeded.
    pub attempts_succeeded: AtomicU64,
    /// Attempts that failed.
    pub attempts_failed: AtomicU64,
    /// Attempts whose worker was lost.
    pub attempts_lost: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// The broker.
pub struct Engine {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    objects: Arc<dyn Objects>,
    clock: Arc<dyn Clock>,
    capabilities: Capabilities,
    settings: Settings,
    lease_ms: u64,
    quotas: Quotas,
    live: LiveMap,
    outages: outage::Outages,
    writing: writing::Writing,
    bans: bans::Known,
    draining: CancellationToken,
    counters: Counters,
    /// Tells this broker from others on the same store; new with each start.
    name: String,
    presence: Arc<Presence>,
    lookout: waiting::Lookout,
    cluster: cluster::Seen,
    meters: Arc<Meters>,
    rate: Rate,
    buckets: rate::Buckets,
    tenants: limits::Tenants,
    webhook_secrets: crate::webhooks::secret::Secrets,
    webhook_policy: crate::webhooks::Policy,
    webhook_counts: crate::webhooks::sender::Counts,
    storage: Arc<Setup>,
    url_life: Duration,
    /// What verifies tokens, and what each of them may do.
    tokens: Option<(Arc<dyn Tokens>, Scopes)>,
    /// Who hears of what is done for traced jobs.
    tracing: Option<Tracing>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine(…)")
    }
}

impl Engine {
    /// From its parts. The queue is empty until [`Self::reconcile`].
    pub fn new(parts: Parts) -> Self {
        Self {
            store: parts.store,
            queue: parts.queue,
            objects: parts.objects,
            clock: parts.clock,
            capabilities: parts.capabilities,
            settings: parts.settings,
            lease_ms: u64::try_from(parts.lease.as_millis()).unwrap_or(u64::MAX),
            quotas: parts.quotas,
            live: LiveMap::default(),
            outages: outage::Outages::default(),
            bans: bans::Known::default(),
            writing: writing::Writing::default(),
            draining: CancellationToken::new(),
            counters: Counters::default(),
            name: uuid::Uuid::new_v4().simple().to_string(),
            presence: Arc::default(),
            lookout: waiting::Lookout::default(),
            cluster: cluster::Seen::default(),
            meters: parts.meters,
            rate: parts.rate,
            buckets: rate::Buckets::default(),
            tenants: limits::Tenants::default(),
            webhook_secrets: parts.webhook_secrets,
            webhook_policy: parts.webhook_policy,
            webhook_counts: crate::webhooks::sender::Counts::default(),
            storage: parts.storage,
            url_life: parts.url_life,
            tokens: None,
            tracing: None,
        }
    }

    /// The same, taking tokens beside API keys; each of them may do what `scopes` say.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<dyn Tokens>, scopes: Scopes) -> Self {
        self.tokens = Some((tokens, scopes));
        self
    }

    /// What tells this broker from others on the same store; new with each start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The truth.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The dispatch index.
    pub fn queue(&self) -> &dyn Queue {
        &*self.queue
    }

    /// How messages to webhooks ended.
    pub const fn webhook_counts(&self) -> &crate::webhooks::sender::Counts {
        &self.webhook_counts
    }

    /// The workers that are connected to this broker.
    pub const fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The counters.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Leases that this process knows to be live.
    pub fn live_leases(&self) -> usize {
        self.live.len()
    }

    /// What is measured.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Whether it is about to end: it is not ready then, and connections are not kept.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Gives no more leases and ends the polls that wait for one; heartbeats answer that workers are to drain.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Makes a join token; this is the only time it is seen.
    ///
    /// # Errors
    /// No randomness, or the store could not take it.
    pub async fn create_join_token(&self, pool: &PoolName) -> Result<String, SecretError> {
        let secret = crate::secret::hex(&crate::secret::random().map_err(|_| SecretError::Randomness)?);
        let token = format!("mfj_{secret}");
        self.store.add_join_token(crate::secret::sha256(token.as_bytes()), pool, self.now()).await?;
        Ok(token)
    }

    /// The tenant of that name, made where there is none.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn ensure_tenant(&self, name: &str) -> Result<TenantId, StoreError> {
        self.store.ensure_tenant(name, crate::secret::fresh_id(), self.now()).await
    }

    /// Events of a tenant after `after`, of one job or of all.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn events(
        &self,
        tenant: TenantId,
        job: Option<mpegflow_protocol::ids::JobId>,
        after: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(tenant, job, after, 256).await
    }

    /// Hears of every event and of progress from now on.
    pub fn subscribe(&self) -> Subscription {
        self.live.subscribe()
    }
}

/// Why a secret was not made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// The store could not take it.
    #[error("the store could not take it")]
    Store(#[from] StoreError),
}
