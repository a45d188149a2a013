//! What the store keeps of a cluster's pools, pods and verdicts. The resources are the truth; this is the copy that the broker
//! decides by.

use super::StoreError;
use super::intake::ManagedRule;
use super::storage::StorageRefused;
use super::webhooks::ManagedWebhook;
use crate::enrol::Account;
use crate::model::{TenantLimits, Time};
use crate::objects::own::OwnStorage;
use async_trait::async_trait;
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::ids::{PoolName, TenantId, WorkerId};

/// A pool as its operator pushed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRecord {
    /// Its name.
    pub name: PoolName,
    /// The account whose pods are its workers.
    pub account: Account,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the resource that this is a copy of.
    pub generation: u64,
    /// Whose own it is; a shared pool has none.
    pub tenant: Option<TenantId>,
    /// Most workers with a certificate at once.
    pub max_workers: u64,
    /// It gives no more leases: it drains.
    pub closed: bool,
    /// Digest of the policies that verdicts have to be about; without one it needs no verdict.
    pub policy: Option<String>,
    /// Storage that its workers fetch from themselves; none where everything goes through the broker.
    pub storage: Vec<StorageEndpoint>,
}

impl PoolRecord {
    /// Why this cannot be the copy beside what is here, where it cannot. A resource that was made anew under its old name has another
    /// UID and takes the old one's place: of two in one namespace only one can be.
    pub fn conflicts(&self, here: &Self) -> Option<Pushed> {
        if here.name != self.name || here.account.namespace != self.account.namespace {
            let Account { namespace, name } = &here.account;
            return Some(Pushed::Taken(format!("the pool {} of the account {namespace}/{name}", here.name)));
        }
        (here.uid == self.uid && here.generation > self.generation).then_some(Pushed::Stale(here.generation))
    }
}

/// What became of something that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It is the copy now, or was.
    Done,
    /// A later generation is here.
    Stale(u64),
    /// The name, or the account, is another's.
    Taken(String),
    /// What it refers to is not here.
    Missing(&'static str),
    /// Its storage cannot be that.
    Storage(StorageRefused),
}

/// A tenant as the operator pushes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedTenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the resource.
    pub generation: u64,
    /// Its share.
    pub weight: u32,
    /// What it may have, of what a resource can say; the rest stays as it is.
    pub limits: TenantLimits,
    /// Where its objects lie; with those of all where there is none.
    pub storage: Option<OwnStorage>,
    /// Webhooks that the resource manages.
    pub webhooks: Vec<ManagedWebhook>,
    /// Rules of the intake that it manages.
    pub rules: Vec<ManagedRule>,
}

/// A pod that asks for an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodWorker {
    /// Its UID's bits.
    pub id: WorkerId,
    /// The pool of its account.
    pub pool: PoolName,
    /// The tenant that it is bound to from the start; a shared pool's is bound by its first lease.
    pub tenant: Option<TenantId>,
    /// `namespace/name`.
    pub pod: String,
    /// Its node, where that is known.
    pub node: Option<String>,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
}

/// What became of a pod that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodAdded {
    /// It is a worker, with this key, or was.
    Done,
    /// It is one with another key, or of another pool.
    Other,
    /// Its identity was revoked.
    Revoked,
    /// The pool has as many workers as it may.
    TooMany,
}

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its id.
    pub id: WorkerId,
    /// `namespace/name` of its pod.
    pub pod: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Whether it holds a lease.
    pub busy: bool,
    /// Whether it gets no more.
    pub cordoned: bool,
    /// Whether another is to take its place.
    pub retired: bool,
}

/// Whether a pool's policies hold on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The pool.
    pub pool: PoolName,
    /// Digest of the policies.
    pub policy: String,
    /// The node.
    pub node: String,
    /// Whether they do.
    pub verified: bool,
    /// What was found.
    pub reason: String,
    /// Until when it counts.
    pub expires: Time,
}

/// Identities and their pools.
#[async_trait]
pub trait Identities: Send + Sync + 'static {
    /// Makes a pool the copy of its resource, at its generation or a later one.
    async fn put_pool(&self, pool: &PoolRecord) -> Result<Pushed, StoreError>;
    /// Forgets a pool and its verdicts, if it is that resource's; whether it was there.
    async fn delete_pool(&self, name: &PoolName, uid: &str) -> Result<bool, StoreError>;
    /// Every pool that was pushed.
    async fn pools(&self) -> Result<Vec<PoolRecord>, StoreError>;
    /// The pool of an account.
    async fn pool_of(&self, account: &Account) -> Result<Option<PoolRecord>, StoreError>;
    /// Makes a tenant the copy of its resource, what it manages too: all of it, or nothing. A webhook or a rule that is as it
    /// should be is not written.
    async fn put_tenant(&self, tenant: &PushedTenant, now: Time) -> Result<Pushed, StoreError>;

    /// Gives a pod an identity, or the one that it has a longer life.
    async fn add_pod(
        &self,
        worker: &PodWorker,
        most: u64,
        expires: Time,
        now: Time,
    ) -> Result<PodAdded, StoreError>;
    /// Workers of pools that were pushed, and whose certificates have not expired.
    async fn workers(&self, now: Time) -> Result<Vec<(PoolName, WorkerSeen)>, StoreError>;
    /// Those of the workers that hold no lease get none from now on; which they are. Whoever holds one is left as it is. A pod that
    /// has not enrolled yet gets none when it does.
    async fn cordon(&self, pool: &PoolName, ids: &[WorkerId], now: Time)
    -> Result<Vec<WorkerId>, StoreError>;
    /// Workers of the pool get leases again.
    async fn uncordon(&self, pool: &PoolName) -> Result<u64, StoreError>;

    /// Notes that another pod is to take a worker's place.
    async fn retire_worker(&self, id: WorkerId, now: Time) -> Result<(), StoreError>;
    /// Takes an identity away for good; whether there was one.
    async fn revoke_worker(&self, id: WorkerId, now: Time) -> Result<bool, StoreError>;
    /// Workers that were revoked since `since`.
    async fn revoked(&self, since: Time) -> Result<Vec<WorkerId>, StoreError>;

    /// Sets a verdict, and forgets those of its pool that have expired; whether there is that pool.
    async fn put_verdict(&self, verdict: &Verdict, now: Time) -> Result<bool, StoreError>;
    /// Verdicts that have not expired.
    async fn verdicts(&self, now: Time) -> Result<Vec<Verdict>, StoreError>;
}
