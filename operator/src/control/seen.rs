//! What the broker told last of every pool.

use super::{Control, ControlError};
use mpegflow_protocol::control::{MAX_VERDICT_S, NodeVerdict, PoolStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(5);

/// What the broker told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it answered when it was asked last.
    answers: bool,
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
    /// The digest that verdicts have to be about.
    pub policy: Option<String>,
    /// Fresh verdicts on it, by node.
    pub verdicts: BTreeMap<String, SeenVerdict>,
}

/// A verdict that the broker has.
#[derive(Debug, Clone)]
pub struct SeenVerdict {
    /// Whether the policies hold there.
    pub verified: bool,
    /// What was found.
    pub reason: String,
    /// When it expires.
    pub until: Instant,
}

/// When it expires is told a little differently each time, and is no news.
impl PartialEq for SeenVerdict {
    fn eq(&self, other: &Self) -> bool {
        (self.verified, &self.reason) == (other.verified, &other.reason)
    }
}

impl Eq for SeenVerdict {}

impl Seen {
    /// What is known of a pool.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name).map(|pool| &**pool)
    }

    /// Whether the broker answered when it was asked last.
    pub fn answers(&self) -> bool {
        self.answers
    }

    /// What a status says that came now.
    pub fn of(pools: Vec<PoolStatus>, now: Instant) -> Self {
        let verdict = |verdict: NodeVerdict| {
            let left = Duration::from_secs(verdict.expires_in_s.min(MAX_VERDICT_S).into());
            let until = now.checked_add(left).unwrap_or(now);
            (verdict.node, SeenVerdict { verified: verdict.verified, reason: verdict.reason, until })
        };
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
                policy: status.policy,
                verdicts: status.verdicts.into_iter().map(verdict).collect(),
            };
            (status.pool.to_string(), Arc::new(pool))
        });
        Self { answers: true, pools: pools.collect() }
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
                let now = Seen::of(status.pools, Instant::now());
                let names = now.changed(&seen.borrow());
                if !names.is_empty() || !seen.borrow().answers {
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
                seen.send_if_modified(|seen| std::mem::take(&mut seen.answers));
            }
        }
    }
}
