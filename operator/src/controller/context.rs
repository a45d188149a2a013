//! What the reconcilers share.

use super::world::Known;
use crate::cluster::{Objects, Versions};
use crate::control::{Control, Seen};
use crate::crd::{Read, Tenant, WorkerPool};
use crate::gate::Gate;
use crate::settings::Settings;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));
/// Objects whose failures are counted; beyond it a failure waits the longest.
const MOST_FAILING: usize = 50_000;

/// What the reconcilers share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) objects: Objects,
    pub(super) versions: Arc<Versions>,
    pub(super) settings: Settings,
    /// The cluster around the pools, or why it cannot be used.
    pub(super) world: watch::Receiver<Known>,
    pub(super) pools: Store<Read<WorkerPool>>,
    pub(super) tenants: Store<Read<Tenant>>,
    pub(super) recorder: Recorder,
    /// The broker; without it nobody is told anything.
    pub(super) control: Option<Arc<Control>>,
    /// What the broker told last.
    pub(super) seen: watch::Receiver<Seen>,
    /// Whether pools are isolated; without a broker nobody asks.
    pub(super) gate: Option<Arc<Gate>>,
    pushed: Mutex<HashMap<(String, String), mpegflow_protocol::control::Pool>>,
    failures: Mutex<HashMap<(String, String), u32>>,
    /// Since when KEDA cannot read the depth of a pool's queue.
    blind: Mutex<HashMap<(String, String), Instant>>,
}

impl Context {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        world: watch::Receiver<Known>,
        (pools, tenants): (Store<Read<WorkerPool>>, Store<Read<Tenant>>),
        (control, seen, gate): (Option<Arc<Control>>, watch::Receiver<Seen>, Option<Arc<Gate>>),
        instance: &str,
    ) -> Self {
        let versions = Arc::new(Versions::default());
        let reporter =
            Reporter { controller: crate::settings::MANAGER.into(), instance: Some(instance.to_owned()) };
        Self {
            objects: Objects::new(client.clone(), Arc::clone(&versions)),
            recorder: Recorder::new(client.clone(), reporter),
            client,
            versions,
            settings,
            world,
            pools,
            tenants,
            control,
            seen,
            gate,
            pushed: Mutex::default(),
            failures: Mutex::default(),
            blind: Mutex::default(),
        }
    }

    /// Whether the broker was given exactly this of a pool before.
    pub(super) fn was_pushed(&self, name: &str, pool: &mpegflow_protocol::control::Pool) -> bool {
        let pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.get(&(pool.namespace.clone(), name.to_owned())) == Some(pool)
    }

    /// Whether the broker was given anything of a pool before.
    pub(super) fn has_pushed(&self, namespace: &str, name: &str) -> bool {
        let pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// The broker has this of a pool; with nothing, it has nothing.
    pub(super) fn is_pushed(
        &self,
        namespace: &str,
        name: &str,
        pool: Option<mpegflow_protocol::control::Pool>,
    ) {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        match pool {
            // Beyond the bound a pool is pushed each time.
            Some(pool) if pushed.len() < MOST_FAILING || pushed.contains_key(&key) => {
                drop(pushed.insert(key, pool))
            }
            Some(_) => {}
            None => drop(pushed.remove(&key)),
        }
    }

    /// How long to wait after one more failure of an object: twice as long each time.
    pub(super) fn failed(&self, namespace: &str, name: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if failures.len() >= MOST_FAILING && !failures.contains_key(&key) {
            return BACKOFF.1;
        }
        let count = failures.entry(key).or_default();
        let wait = BACKOFF.0.saturating_mul(1_u32.checked_shl(*count).unwrap_or(u32::MAX)).min(BACKOFF.1);
        *count = count.saturating_add(1).min(16);
        wait
    }

    /// An object is well, or gone.
    pub(super) fn succeeded(&self, namespace: &str, name: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// KEDA cannot read the depth of a pool's queue: for how long that has been so. Beyond the bound it has only begun, and
    /// pools stay as they are.
    pub(super) fn depth_is_unread(&self, namespace: &str, name: &str, now: Instant) -> Duration {
        let mut blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if blind.len() >= MOST_FAILING && !blind.contains_key(&key) {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*blind.entry(key).or_insert(now))
    }

    /// KEDA reads it, or nobody asks any more.
    pub(super) fn depth_is_read(&self, namespace: &str, name: &str) {
        let mut blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        blind.remove(&(namespace.to_owned(), name.to_owned()));
    }
}
