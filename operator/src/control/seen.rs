//! What the broker told last of every pool.

use super::{Control, ControlError};
use mpegflow_protocol::control::PoolStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(5);

/// What the broker told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pools: BTreeMap<String, Arc<Pool>>,
}

/// What the broker told of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// UID of its resource.
    pub uid: String,
    /// The generation that the broker has.
    pub generation: u64,
    /// Tasks that wait.
    pub queued: u64,
    /// Workers that ask for a task.
    pub idle: u64,
    /// Why tasks wait: reason and sentence.
    pub waiting: Option<(String, String)>,
    /// UIDs of pods that hold a lease.
    pub busy: BTreeSet<String>,
    /// UIDs of pods that get no more.
    pub cordoned: BTreeSet<String>,
    /// UIDs of pods in whose place another is to come.
    pub retired: BTreeSet<String>,
}

impl Seen {
    /// What is known of a pool.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name).map(|pool| &**pool)
    }

    fn of(pools: Vec<PoolStatus>) -> Self {
        let pools = pools.into_iter().map(|status| {
            let busy = status.workers.iter().filter(|worker| worker.busy).map(|worker| worker.pod.clone());
            let cordoned =
                status.workers.iter().filter(|worker| worker.cordoned).map(|worker| worker.pod.clone());
            let retired =
                status.workers.iter().filter(|worker| worker.retired).map(|worker| worker.pod.clone());
            let pool = Pool {
                uid: status.uid,
                generation: status.observed_generation,
                queued: status.queued,
                idle: status.idle,
                waiting: status.waiting.map(|w| (w.reason.as_str().to_owned(), w.message)),
                busy: busy.collect(),
                cordoned: cordoned.collect(),
                retired: retired.collect(),
            };
            (status.pool.to_string(), Arc::new(pool))
        });
        Self { pools: pools.collect() }
    }

    /// Names of pools that are not as they were.
    fn changed(&self, before: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.pools.keys().chain(before.pools.keys()).collect();
        names.into_iter().filter(|name| self.pools.get(*name) != before.pools.get(*name)).cloned().collect()
    }
}

/// Asks again and again, and says which pools are not as they were. What was told last stays while the broker is away.
pub async fn keep(control: Arc<Control>, seen: watch::Sender<Seen>, changed: impl Fn(&str)) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        ticks.tick().await;
        match control.status().await {
            Ok(status) => {
                let now = Seen::of(status.pools);
                let names = now.changed(&seen.borrow());
                if !names.is_empty() {
                    seen.send_replace(now);
                    names.iter().for_each(|name| changed(name));
                }
                away = false;
            }
            Err(error) => {
                if !away {
                    let error: &ControlError = &error;
                    tracing::warn!(%error, "nobody can say which workers are busy; no pool shrinks");
                }
                away = true;
            }
        }
    }
}
