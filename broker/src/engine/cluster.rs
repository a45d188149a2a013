//! Pools of a cluster, their workers, and whether they may have work. What decides is looked at once a second for all workers
//! together; what must not be late by a second (a cordon, a closed pool) is asked again by the lease itself.

use super::intake::managed_rules;
use super::{CallError, Engine, IntakeError, SubmitError};
use crate::enrol::{self, Account, Pod};
use crate::model::{Time, WorkerRecord};
use crate::objects::own::BadStorage;
use crate::store::StoreError;
use crate::store::identity::{PodAdded, PodWorker, PoolRecord, Pushed, PushedTenant, Verdict};
use mpegflow_protocol::control;
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::ids::{PoolName, TenantId, WorkerId};
use mpegflow_protocol::text;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Certificates live this long, and so does what is known of one that was revoked.
const CERTIFICATE_MS: u64 = 3_600_000 + 600_000;
/// A worker whose pool nobody pushed: the configuration names its account.
const MOST_CONFIGURED: u64 = 10_000;

/// What was seen last of pools and verdicts.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<Arc<Known>>>);

#[derive(Debug, Default)]
struct Known {
    pools: BTreeMap<PoolName, PoolRecord>,
    verdicts: BTreeMap<PoolName, Vec<Verdict>>,
    revoked: HashSet<WorkerId>,
}

impl Known {
    /// Why a worker of the pool gets nothing on a node, or on every node.
    fn gate(&self, pool: &PoolName, node: Option<&str>, now: Time) -> Result<(), String> {
        let Some(policy) = self.pools.get(pool).and_then(|pool| pool.policy.as_deref()) else {
            return Ok(());
        };
        let of_policy = || {
            let all = self.verdicts.get(pool).into_iter().flatten();
            all.filter(move |v| v.policy == policy && v.expires > now)
        };
        // A worker whose node nobody knows needs one on every node that was looked at.
        let (mut any, mut failed) = (false, None);
        for verdict in of_policy().filter(|v| node.is_none_or(|node| node == v.node)) {
            any = true;
            if !verdict.verified {
                failed = Some(verdict);
            }
        }
        match (any, failed) {
            (true, None) => Ok(()),
            (_, Some(verdict)) => Err(format!("on node {}: {}", verdict.node, verdict.reason)),
            (false, None) => {
                let place = node.map_or_else(|| "any node".to_owned(), |node| format!("node {node}"));
                Err(format!("there is no fresh verdict on its network policies from {place}"))
            }
        }
    }

    /// The fresh verdicts on a pool's policies.
    fn verdicts_on(&self, pool: &PoolRecord, now: Time) -> Vec<control::NodeVerdict> {
        let all = self.verdicts.get(&pool.name).into_iter().flatten();
        let fresh = all.filter(|v| Some(&v.policy) == pool.policy.as_ref() && v.expires > now);
        let left = |v: &Verdict| v.expires.0.saturating_sub(now.0).max(0).unsigned_abs() / 1000;
        fresh
            .map(|v| control::NodeVerdict {
                node: v.node.clone(),
                verified: v.verified,
                reason: v.reason.clone(),
                expires_in_s: u32::try_from(left(v)).unwrap_or(u32::MAX),
            })
            .collect()
    }

    /// Whether any node has passed: what a job is told to wait for.
    fn is_open_somewhere(&self, pool: &PoolName, now: Time) -> Result<(), String> {
        let Some(policy) = self.pools.get(pool).and_then(|pool| pool.policy.as_deref()) else {
            return Ok(());
        };
        let mut all = self.verdicts.get(pool).into_iter().flatten();
        if all.any(|v| v.policy == policy && v.expires > now && v.verified) {
            return Ok(());
        }
        self.gate(pool, None, now)
    }
}

/// Why a pod gets no identity.
#[derive(Debug, thiserror::Error)]
pub enum PodRefused {
    /// Its account is no pool's.
    #[error("no pool is registered for the service account {0}")]
    NoPool(Account),
    /// It has enrolled with another key, or for another pool.
    #[error(
        "this pod has enrolled with another key or for another pool; delete it, so that another takes its place"
    )]
    Other,
    /// Its identity was revoked.
    #[error("the identity of this pod was revoked")]
    Revoked,
    /// The pool has as many workers as it may.
    #[error("the pool has as many workers as it may")]
    TooMany,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Why a tenant that is pushed is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A field is wrong.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field, such as `webhooks[ops].url`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A rule of the intake cannot be.
    #[error("the rule {name} of the intake cannot be")]
    Rule {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        error: IntakeError,
    },
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<BadStorage> for PushError {
    fn from(error: BadStorage) -> Self {
        Self::Field { field: "storage".into(), reason: error.to_string() }
    }
}

/// Checks the names of what a resource manages: each is one, there is one of each, and there are no more than `most`.
pub(super) fn named<'a>(
    list: &str,
    count: usize,
    most: usize,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), PushError> {
    let wrong = |field: String, reason: String| Err(PushError::Field { field, reason });
    if count > most {
        return wrong(list.into(), format!("there are {count}; at most {most}"));
    }
    let mut seen = HashSet::new();
    for name in names {
        if !text::is_label(name, 63) {
            return wrong(list.into(), "a name has 1 to 63 printable characters".into());
        }
        if !seen.insert(name) {
            return wrong(format!("{list}[{name}].name"), "another one has it already".into());
        }
    }
    Ok(())
}

/// Of the pools that were pushed, the one that a tenant's job goes to; pools come in the order of their names.
fn choose<'a>(
    pools: impl IntoIterator<Item = &'a PoolRecord>,
    tenant: TenantId,
    wanted: Option<&PoolName>,
) -> Option<PoolName> {
    let mut open = pools.into_iter().filter(|pool| !pool.closed);
    let chosen = match wanted {
        Some(name) => open.find(|pool| pool.name == *name && pool.tenant.is_none_or(|owner| owner == tenant)),
        None => open.find(|pool| pool.tenant == Some(tenant)),
    };
    chosen.map(|pool| pool.name.clone())
}

impl Engine {
    /// Looks at pools, verdicts and revocations: once a second.
    ///
    /// # Errors
    /// The store failed; what was seen before stays.
    pub async fn look_at_cluster(&self) -> Result<(), StoreError> {
        let now = self.now();
        let pools = self.store.pools().await?;
        let mut known = Known {
            pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            revoked: self.store.revoked(now.minus_ms(CERTIFICATE_MS)).await?.into_iter().collect(),
            ..Known::default()
        };
        if known.pools.values().any(|pool| pool.policy.is_some()) {
            for verdict in self.store.verdicts(now).await? {
                known.verdicts.entry(verdict.pool.clone()).or_default().push(verdict);
            }
        }
        *self.cluster.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(known));
        Ok(())
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.cluster.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a worker's identity was taken away.
    pub fn is_revoked(&self, worker: WorkerId) -> bool {
        self.known().is_some_and(|known| known.revoked.contains(&worker))
    }

    /// Storage that a pool's workers fetch from themselves: none but what its operator has pushed, and none before the first look.
    pub(super) fn storage_of_pool(&self, pool: &PoolName) -> Vec<StorageEndpoint> {
        let known = self.known();
        let pool = known.as_ref().and_then(|known| known.pools.get(pool));
        pool.map(|pool| pool.storage.clone()).unwrap_or_default()
    }

    /// Whether a worker gets nothing now, whatever there is to do.
    pub(super) fn is_held(&self, worker: &WorkerRecord) -> bool {
        if worker.cordoned {
            return true;
        }
        // Before the first look nobody knows whether a pod's pool needs a verdict.
        let Some(known) = self.known() else { return worker.pod.is_some() };
        let closed = known.pools.get(&worker.pool).is_some_and(|pool| pool.closed);
        closed || known.gate(&worker.pool, worker.node.as_deref(), self.now()).is_err()
    }

    /// A process that exits is a fresh worker only where its identity goes with it. A pod's does not: it stays who it is however often
    /// its container starts, and so bound to its tenant. Its operator is told, and puts another pod in its place.
    pub(super) async fn retire(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let is_pushed = self.known().is_some_and(|known| known.pools.contains_key(&worker.pool));
        if worker.pod.is_some() && is_pushed {
            self.store.retire_worker(worker.id, self.now()).await?;
        }
        Ok(())
    }

    /// The pool that does a tenant's job: the one that it names, where it is the tenant's own or shared; else its own, else `default`.
    ///
    /// # Errors
    /// It names one that is not there, is another tenant's, or is being deleted: to a tenant these are the same.
    pub(super) async fn pool_for(
        &self,
        tenant: TenantId,
        wanted: Option<&PoolName>,
    ) -> Result<PoolName, SubmitError> {
        let seen = self.known();
        if let Some(pool) = seen.as_ref().and_then(|known| choose(known.pools.values(), tenant, wanted)) {
            return Ok(pool);
        }
        if seen.is_some() && wanted.is_none() {
            return Ok(PoolName::default());
        }
        // What was pushed within the last second has not been looked at yet.
        let pushed = self.store.pools().await?;
        if let Some(pool) = choose(&pushed, tenant, wanted) {
            return Ok(pool);
        }
        let Some(name) = wanted else { return Ok(PoolName::default()) };
        // Nobody pushes the pools of workers that join by tokens, or whose accounts the configuration names.
        let is_there = pushed.iter().all(|pool| pool.name != *name)
            && (*name == PoolName::default()
                || self.lookout.around().has_workers(name)
                || self.store.has_join_token(name).await?);
        if is_there { Ok(name.clone()) } else { Err(SubmitError::NoPool(name.clone())) }
    }

    /// Why nobody of the pool gets anything, where that is so.
    pub(super) fn gate(&self, pool: &PoolName) -> Option<String> {
        self.known()?.is_open_somewhere(pool, self.now()).err()
    }

    /// On how many nodes the policies of a pool that needs verdicts hold, and on how many they do not, as fresh verdicts say.
    pub fn isolation(&self) -> Vec<(PoolName, u64, u64)> {
        let (Some(known), now) = (self.known(), self.now()) else { return Vec::new() };
        let gated = known.pools.values().filter(|pool| pool.policy.is_some());
        gated
            .map(|pool| {
                let verdicts = known.verdicts_on(pool, now);
                let count = |verified| verdicts.iter().filter(|v| v.verified == verified).count();
                let count = |verified| u64::try_from(count(verified)).unwrap_or(u64::MAX);
                (pool.name.clone(), count(true), count(false))
            })
            .collect()
    }

    /// Gives a pod the identity that is its own, for a signing request's key.
    ///
    /// # Errors
    /// It gets none.
    pub async fn enrol_pod(
        &self,
        pod: &Pod,
        configured: Option<&PoolName>,
        key: [u8; 32],
        expires: Time,
    ) -> Result<(WorkerId, PoolName), PodRefused> {
        let (pool, tenant, most) = match configured {
            Some(pool) => (pool.clone(), None, MOST_CONFIGURED),
            None => {
                let pool = self.store.pool_of(&pod.account).await?;
                let pool = pool.ok_or_else(|| PodRefused::NoPool(pod.account.clone()))?;
                (pool.name, pool.tenant, pool.max_workers)
            }
        };
        let worker = PodWorker {
            id: enrol::worker_of(pod),
            pool: pool.clone(),
            tenant,
            pod: format!("{}/{}", pod.account.namespace, pod.name),
            node: pod.node.clone(),
            key,
        };
        match self.store.add_pod(&worker, most, expires, self.now()).await? {
            PodAdded::Done => Ok((worker.id, pool)),
            PodAdded::Other => Err(PodRefused::Other),
            PodAdded::Revoked => Err(PodRefused::Revoked),
            PodAdded::TooMany => Err(PodRefused::TooMany),
        }
    }

    /// Makes a tenant the copy of its resource.
    ///
    /// # Errors
    /// Its storage, a webhook or a rule of the intake cannot be that, or the store failed. Nothing of it is taken then.
    pub async fn push_tenant(&self, id: TenantId, mut tenant: control::Tenant) -> Result<Pushed, PushError> {
        let storage = tenant.storage.take().map(|raw| self.checked_storage(raw)).transpose()?;
        let webhooks = self.managed_webhooks(std::mem::take(&mut tenant.webhooks))?;
        let rules = managed_rules(std::mem::take(&mut tenant.intake), storage.is_some())?;
        let pushed = PushedTenant { storage, webhooks, rules, ..pushed_tenant(id, tenant) };
        Ok(self.store.put_tenant(&pushed, self.now()).await?)
    }

    /// What is seen of every pool that was pushed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn cluster_status(&self) -> Result<control::Status, StoreError> {
        let now = self.now();
        let mut workers: BTreeMap<PoolName, Vec<control::Worker>> = BTreeMap::new();
        for (pool, seen) in self.store.workers(now).await? {
            let pod = uuid::Uuid::from_u128(seen.id.as_u128()).to_string();
            let worker =
                control::Worker { pod, busy: seen.busy, cordoned: seen.cordoned, retired: seen.retired };
            workers.entry(pool).or_default().push(worker);
        }
        let around = self.lookout.around();
        let known = self.known();
        let mut status = control::Status::default();
        for pool in self.store.pools().await? {
            let workers = workers.remove(&pool.name).unwrap_or_default();
            let busy = workers.iter().filter(|worker| worker.busy).count();
            let queued = around.depth_of(&pool.name).saturating_sub(u64::try_from(busy).unwrap_or(u64::MAX));
            let waiting = (queued > 0).then(|| {
                let waiting = super::waiting::why_pool(&pool.name, &around, self.gate(&pool.name).as_deref());
                control::Waiting { reason: waiting.reason, message: waiting.message }
            });
            let verdicts = known.as_ref().map(|known| known.verdicts_on(&pool, now)).unwrap_or_default();
            status.pools.push(control::PoolStatus {
                uid: pool.uid,
                observed_generation: pool.generation,
                queued,
                idle: around.idle_of(&pool.name),
                waiting,
                workers,
                verdicts,
                policy: pool.policy,
                pool: pool.name,
            });
        }
        Ok(status)
    }

    /// Checks that an identity is one still, for whoever comes with its certificate.
    ///
    /// # Errors
    /// It is not known, or was revoked.
    pub async fn identity(&self, worker: WorkerId, pool: &PoolName) -> Result<WorkerRecord, CallError> {
        let record = self.store.worker(worker).await?.filter(|w| w.pool == *pool && !w.revoked);
        record.ok_or(CallError::UnknownWorker)
    }
}

/// What needs no check of a tenant that is pushed.
fn pushed_tenant(id: TenantId, tenant: control::Tenant) -> PushedTenant {
    let limits = crate::model::TenantLimits {
        unfinished_jobs: tenant.unfinished_jobs,
        running_tasks: tenant.running_tasks,
        upload_bytes: tenant.upload_bytes,
        minutes_per_day: tenant.minutes_per_day,
        ..crate::model::TenantLimits::default()
    };
    PushedTenant {
        id,
        name: tenant.name,
        uid: tenant.uid,
        generation: tenant.observed_generation,
        weight: tenant.weight,
        limits,
        storage: None,
        webhooks: Vec::new(),
        rules: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(verdicts: &[(&str, &str, bool, i64)]) -> Known {
        let name: PoolName = "cpu".parse().unwrap();
        let pool = PoolRecord {
            name: name.clone(),
            account: Account { namespace: "media".into(), name: "cpu-worker".into() },
            uid: "u".into(),
            generation: 1,
            tenant: None,
            max_workers: 1,
            closed: false,
            policy: Some("p1".into()),
            storage: Vec::new(),
        };
        let verdict = |(policy, node, verified, expires): &(&str, &str, bool, i64)| Verdict {
            pool: name.clone(),
            policy: (*policy).to_owned(),
            node: (*node).to_owned(),
            verified: *verified,
            reason: "the API server answers".into(),
            expires: Time(*expires),
        };
        Known {
            pools: BTreeMap::from([(name.clone(), pool)]),
            verdicts: BTreeMap::from([(name.clone(), verdicts.iter().map(verdict).collect())]),
            revoked: HashSet::new(),
        }
    }

    #[test]
    fn a_gate_opens_only_for_a_fresh_verdict_on_these_policies_from_this_node() {
        let pool: PoolName = "cpu".parse().unwrap();
        let now = Time(100);
        let open =
            |verdicts: &[(&str, &str, bool, i64)], node| known(verdicts).gate(&pool, node, now).is_ok();
        assert!(open(&[("p1", "n1", true, 101)], Some("n1")));
        assert!(!open(&[], Some("n1")), "no verdict");
        assert!(!open(&[("p1", "n1", true, 100)], Some("n1")), "an old one");
        assert!(!open(&[("p0", "n1", true, 101)], Some("n1")), "about other policies");
        assert!(!open(&[("p1", "n2", true, 101)], Some("n1")), "of another node");
        assert!(!open(&[("p1", "n1", false, 101)], Some("n1")), "that they do not hold");
        assert!(
            !open(&[("p1", "n1", true, 101), ("p1", "n2", false, 101)], None),
            "a node that nobody knows"
        );
        let other: PoolName = "other".parse().unwrap();
        assert!(known(&[]).gate(&other, None, now).is_ok(), "a pool that needs none");
    }
}
