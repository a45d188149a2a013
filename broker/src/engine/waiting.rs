//! Why a job waits. What decides it is looked at once a second for all jobs together, so that a job's answer costs nothing.

use super::Engine;
use crate::model::{JobView, TaskRecord, Time};
use crate::store::StoreError;
use crate::store::operations::PoolSeen;
use mpegflow_protocol::api::{JobState, TaskState, Waiting, WaitingReason};
use mpegflow_protocol::ids::PoolName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What another broker has told counts for this long: three times its interval.
const TOLD: u64 = 6_000;
/// Storage that does not answer within this time does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of the world around the jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Around {
    pools: BTreeMap<PoolName, PoolSeen>,
    /// Tasks that wait for a worker, by pool.
    depth: BTreeMap<PoolName, u64>,
    storage: bool,
    dispatch: bool,
}

impl Around {
    /// Tasks of the pool that wait or run.
    pub(super) fn depth_of(&self, pool: &PoolName) -> u64 {
        self.depth.get(pool).copied().unwrap_or(0)
    }

    /// Whether any broker has seen a worker of the pool lately.
    pub(super) fn has_workers(&self, pool: &PoolName) -> bool {
        self.pools.contains_key(pool)
    }

    /// Workers of the pool that ask for a task now.
    pub(super) fn idle_of(&self, pool: &PoolName) -> u64 {
        self.pools.get(pool).map_or(0, |seen| seen.idle)
    }
}

impl Default for Around {
    /// Before the first look nothing is known to be broken.
    fn default() -> Self {
        Self { pools: BTreeMap::new(), depth: BTreeMap::new(), storage: true, dispatch: true }
    }
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    around: Mutex<Arc<Around>>,
    /// Whether the other brokers were told of pools that may be gone now.
    told: std::sync::atomic::AtomicBool,
}

impl Lookout {
    pub(super) fn around(&self) -> Arc<Around> {
        Arc::clone(&self.around.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Around)) {
        let mut around = self.around.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut around));
    }
}

impl Engine {
    /// Looks at workers and the queue: once a second is enough. Tells the other brokers which workers are here, where `tell`.
    ///
    /// # Errors
    /// The store failed; what was seen before stays.
    pub async fn look_around(&self, tell: bool) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::Relaxed;
        let now = self.now();
        let own = self.presence.seen();
        if tell && (!own.is_empty() || self.lookout.told.load(Relaxed)) {
            self.store.tell_pools(&self.name, &own, now).await?;
            self.lookout.told.store(!own.is_empty(), Relaxed);
        }
        let others = self.store.pools_of_others(&self.name, now.minus_ms(TOLD)).await?;
        let depth = self.queue.depth().await.unwrap_or_default();
        let dispatch = tokio::time::timeout(PATIENCE, self.queue.answers()).await.unwrap_or(false);
        let mut pools: BTreeMap<PoolName, PoolSeen> = BTreeMap::new();
        for seen in own.into_iter().chain(others) {
            let sum =
                pools.entry(seen.pool.clone()).or_insert(PoolSeen { workers: 0, idle: 0, ..seen.clone() });
            sum.workers = sum.workers.saturating_add(seen.workers);
            sum.idle = sum.idle.saturating_add(seen.idle);
        }
        self.lookout.change(|around| {
            around.pools = pools;
            around.depth = depth.into_iter().collect();
            around.dispatch = dispatch;
        });
        Ok(())
    }

    /// Looks whether storage answers: a request, so every few seconds is enough.
    pub async fn look_at_storage(&self) {
        let ping = tokio::time::timeout(PATIENCE, self.objects.ping());
        let (answers, ()) = tokio::join!(ping, self.objects.look_at_trouble());
        self.lookout.change(|around| around.storage = matches!(answers, Ok(Ok(()))));
    }

    /// Why the job waits, where it does.
    pub(super) fn waiting(&self, view: &JobView, full: bool) -> Option<Waiting> {
        if !matches!(view.job.state, JobState::Queued | JobState::Running)
            || view.tasks.iter().any(|task| task.state == TaskState::Running)
        {
            return None;
        }
        let task = view.tasks.iter().find(|task| task.state == TaskState::Ready)?;
        let gate = self.gate(&view.job.pool);
        let own = self.objects.trouble(view.job.tenant);
        let of_tenant = OfTenant { full, trouble: own.as_deref() };
        Some(why(task, (&view.job.pool, gate.as_deref()), of_tenant, &self.lookout.around(), self.now()))
    }
}

/// What a job may wait for because it is its tenant's.
#[derive(Clone, Copy)]
struct OfTenant<'a> {
    /// It has as many tasks running as it may.
    full: bool,
    /// Its own storage does not do its part.
    trouble: Option<&'a str>,
}

/// The first reason that holds.
fn why(
    task: &TaskRecord,
    (pool, gate): (&PoolName, Option<&str>),
    of_tenant: OfTenant<'_>,
    around: &Around,
    now: Time,
) -> Waiting {
    if task.not_before > now {
        let why = task
            .last_failure
            .as_ref()
            .map_or_else(String::new, |f| format!(" The last attempt failed with {}.", f.code));
        let until = task.not_before.rfc3339();
        let message = format!("It is tried again at {until}, not before.{why}");
        return Waiting { until: Some(until), ..waiting(WaitingReason::RetryLater, message) };
    }
    let quota = || {
        let message = "The tenant has as many tasks running as it may. It starts when one of them has ended.";
        waiting(WaitingReason::Quota, message.into())
    };
    let own = || {
        let message = of_tenant.trouble.map(|trouble| {
            format!("Storage does not do its part: {trouble}. The broker's operator has to look. The job is tried all the same.")
        });
        message.map(|message| waiting(WaitingReason::StorageDown, message))
    };
    broken(around)
        .or_else(own)
        .or_else(|| of_tenant.full.then(quota))
        .unwrap_or_else(|| of_pool(pool, around, gate))
}

fn waiting(reason: WaitingReason, message: String) -> Waiting {
    Waiting { reason, message, until: None }
}

/// Why tasks of a pool wait, whosever they are.
pub(super) fn why_pool(pool: &PoolName, around: &Around, gate: Option<&str>) -> Waiting {
    broken(around).unwrap_or_else(|| of_pool(pool, around, gate))
}

fn broken(around: &Around) -> Option<Waiting> {
    if !around.dispatch {
        let message = "The dispatch index does not answer; until it does, work is taken from the database, without fairness and \
                       priorities. The broker's operator has to look.";
        return Some(waiting(WaitingReason::DispatchDown, message.into()));
    }
    let message = "Storage does not answer; the broker's operator has to look. The job goes on by itself.";
    (!around.storage).then(|| waiting(WaitingReason::StorageDown, message.into()))
}

fn of_pool(pool: &PoolName, around: &Around, gate: Option<&str>) -> Waiting {
    if let Some(gate) = gate {
        let message = format!("Pool `{pool}` gets no work until its isolation is verified: {gate}.");
        return waiting(WaitingReason::Gate, message);
    }
    match around.pools.get(pool) {
        None => waiting(
            WaitingReason::NoWorker,
            format!("No worker of pool `{pool}` is connected. It starts when one is."),
        ),
        Some(seen) if seen.idle == 0 => {
            // The index' count holds this one, too, and what runs.
            let before = around.depth.get(pool).copied().unwrap_or(0).saturating_sub(1);
            let workers = if seen.workers == 1 { "The worker" } else { "Every worker" };
            let message = format!("{workers} of pool `{pool}` is busy; {before} other tasks wait or run.");
            waiting(WaitingReason::OthersFirst, message)
        }
        Some(_) => waiting(
            WaitingReason::Starting,
            format!("A worker of pool `{pool}` is free and about to take it."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tries;
    use crate::plan::{Settings, graph};
    use mpegflow_protocol::failure::{Failure, FailureCode};
    use mpegflow_protocol::ids::{TaskId, UploadId};
    use mpegflow_protocol::job::JobSpec;

    const NOW: Time = Time(1_700_000_000_000);

    fn task(not_before: Time) -> TaskRecord {
        let upload = UploadId::from_u128(1);
        let spec = format!(r#"{{"version":1,"input":{{"upload":"{upload}"}},"preset":"web"}}"#);
        let spec = JobSpec::parse(spec.as_bytes()).unwrap();
        TaskRecord {
            id: TaskId::from_u128(1),
            plan: graph::probe(&spec, upload, 10, Settings::default()),
            state: TaskState::Ready,
            epoch: 1,
            tries: Tries::default(),
            memory_class: 0,
            not_before,
            done_by: None,
            result: None,
            digests: Vec::new(),
            evidence: None,
            last_failure: Some(Failure::new(FailureCode::StorageError, "x")),
        }
    }

    #[test]
    fn the_first_reason_of_the_closed_list_that_holds_is_told() {
        let pool = PoolName::default();
        let seen = |idle| {
            let seen = PoolSeen { pool: PoolName::default(), workers: 2, idle };
            BTreeMap::from([(seen.pool.clone(), seen)])
        };
        let depth = BTreeMap::from([(pool.clone(), 8)]);
        let well = Around { pools: seen(1), depth, ..Around::default() };
        let broken = Around { dispatch: false, storage: false, ..Around::default() };
        let late = NOW.plus_ms(1);
        for (task, around, expected, part) in [
            (task(NOW), Around::default(), WaitingReason::Quota, "as many tasks"),
            (task(late), broken.clone(), WaitingReason::RetryLater, "storage_error"),
            (task(NOW), broken.clone(), WaitingReason::DispatchDown, "index"),
            (task(NOW), Around { dispatch: true, ..broken }, WaitingReason::StorageDown, "Storage"),
            (task(NOW), well.clone(), WaitingReason::Gate, "the API server answers"),
            (task(NOW), Around::default(), WaitingReason::NoWorker, "`default`"),
            (
                task(NOW),
                Around { pools: seen(0), ..well.clone() },
                WaitingReason::OthersFirst,
                "7 other tasks",
            ),
            (task(NOW), well, WaitingReason::Starting, "free"),
        ] {
            let gate = (expected == WaitingReason::Gate).then_some("on node n1: the API server answers");
            let of_tenant = OfTenant { full: expected == WaitingReason::Quota, trouble: None };
            let waiting = why(&task, (&pool, gate), of_tenant, &around, NOW);
            assert_eq!(waiting.reason, expected);
            assert!(waiting.message.contains(part), "{}", waiting.message);
            assert_eq!(waiting.until.is_some(), expected == WaitingReason::RetryLater);
        }
        let own = OfTenant { full: true, trouble: Some("the tenant's own bucket `films` is not there") };
        let waiting = why(&task(NOW), (&pool, None), own, &Around::default(), NOW);
        assert_eq!(waiting.reason, WaitingReason::StorageDown);
        assert!(waiting.message.contains("`films`"), "{}", waiting.message);
    }
}
