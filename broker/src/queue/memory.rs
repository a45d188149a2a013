//! The index in this process.

use super::fair::Ledger;
use super::{Indexed, Queue, QueueError, RunningTask, Take};
use crate::model::{ReadyTask, Time};
use async_trait::async_trait;
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A queue in this process.
#[derive(Debug)]
pub struct MemoryQueue {
    pools: Mutex<HashMap<PoolName, Pool>>,
    version: watch::Sender<u64>,
}

/// Ready tasks in the order in which a tenant's are taken.
type Place = (TenantId, Reverse<u8>, TaskId);

#[derive(Debug, Default)]
struct Pool {
    tasks: HashMap<TaskId, Entry>,
    ready: BTreeSet<Place>,
    later: BTreeSet<(Time, TaskId)>,
    /// The same by tenant.
    later_of: BTreeSet<(TenantId, Time, TaskId)>,
    ledger: Ledger,
}

#[derive(Debug)]
enum Entry {
    Waiting(ReadyTask),
    Running { tenant: TenantId, since: Time, charged_ms: u64 },
}

const FIRST: TaskId = TaskId::from_u128(0);

const fn place(task: &ReadyTask) -> Place {
    (task.tenant, Reverse(task.priority), task.task)
}

impl Pool {
    fn first_of(&self, tenant: TenantId) -> Option<Place> {
        let from = (tenant, Reverse(u8::MAX), FIRST);
        self.ready.range(from..).next().copied().filter(|(whose, ..)| *whose == tenant)
    }

    fn later_of(&self, tenant: TenantId) -> Option<Time> {
        let from = (tenant, Time(i64::MIN), FIRST);
        self.later_of.range(from..).next().filter(|(whose, ..)| *whose == tenant).map(|(_, time, _)| *time)
    }

    /// Whether anything has changed.
    fn offer(&mut self, task: &ReadyTask, now: Time) -> bool {
        match self.tasks.get(&task.task) {
            Some(Entry::Waiting(known)) if known == task => return false,
            Some(Entry::Running { tenant, charged_ms, .. }) => self.ledger.refund(*tenant, *charged_ms),
            _ => {}
        }
        self.remove(task.task);
        if task.not_before <= now {
            self.make_ready(task);
        } else {
            self.later.insert((task.not_before, task.task));
            self.later_of.insert((task.tenant, task.not_before, task.task));
        }
        self.tasks.insert(task.task, Entry::Waiting(task.clone()));
        true
    }

    fn make_ready(&mut self, task: &ReadyTask) {
        self.ready.insert(place(task));
        self.ledger.arrive(task.tenant);
    }

    fn remove(&mut self, task: TaskId) {
        if let Some(Entry::Waiting(known)) = self.tasks.remove(&task) {
            self.later.remove(&(known.not_before, task));
            self.later_of.remove(&(known.tenant, known.not_before, task));
            if self.ready.remove(&place(&known)) && self.first_of(known.tenant).is_none() {
                self.ledger.leave(known.tenant);
            }
        }
    }

    fn promote(&mut self, now: Time) {
        while let Some((time, task)) = self.later.first().copied().filter(|(time, _)| *time <= now) {
            self.later.remove(&(time, task));
            if let Some(Entry::Waiting(known)) = self.tasks.get(&task) {
                let known = known.clone();
                self.later_of.remove(&(known.tenant, time, task));
                self.make_ready(&known);
            }
        }
    }

    fn take(&mut self, tenant: Option<TenantId>, now: Time) -> Take {
        self.promote(now);
        let found = tenant.or_else(|| self.ledger.first()).and_then(|whose| self.first_of(whose));
        if let Some((whose, _, id)) = found
            && let Some(Entry::Waiting(task)) = self.tasks.get(&id)
        {
            let task = task.clone();
            let charged_ms = self.ledger.start(whose);
            self.remove(id);
            self.tasks.insert(id, Entry::Running { tenant: whose, since: now, charged_ms });
            return Take::Task(task);
        }
        match tenant {
            None => Take::Empty(self.later.first().map(|(time, _)| *time)),
            Some(tenant) => match self.later_of(tenant) {
                None if !self.ready.is_empty() => Take::OtherTenant,
                later => Take::Empty(later),
            },
        }
    }

    fn settled(&mut self, ended: &RunningTask, now: Time) {
        if let Some(Entry::Running { tenant, since, charged_ms }) = self.tasks.get(&ended.task) {
            let (tenant, took_ms, charged_ms) = (*tenant, since.until_ms(now), *charged_ms);
            self.tasks.remove(&ended.task);
            self.ledger.end(tenant, charged_ms, took_ms);
        } else {
            self.remove(ended.task);
        }
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self { pools: Mutex::default(), version: watch::channel(0).0 }
    }
}

impl MemoryQueue {
    fn pools(&self) -> MutexGuard<'_, HashMap<PoolName, Pool>> {
        // The index holds no truth; whatever a panic left of it is repaired from the store.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn offer(&self, tasks: &[ReadyTask], now: Time) -> Result<(), QueueError> {
        let changed = {
            let mut pools = self.pools();
            let mut changed = false;
            for task in tasks {
                changed |= pools.entry(task.pool.clone()).or_default().offer(task, now);
            }
            changed
        };
        if changed {
            self.tell();
        }
        Ok(())
    }

    async fn take(&self, pool: &PoolName, tenant: Option<TenantId>, now: Time) -> Result<Take, QueueError> {
        Ok(self.pools().get_mut(pool).map_or(Take::Empty(None), |pool| pool.take(tenant, now)))
    }

    async fn settled(
        &self,
        ended: &RunningTask,
        next: Option<&ReadyTask>,
        now: Time,
    ) -> Result<(), QueueError> {
        {
            let mut pools = self.pools();
            pools.entry(ended.pool.clone()).or_default().settled(ended, now);
            if let Some(next) = next {
                pools.entry(next.pool.clone()).or_default().offer(next, now);
            }
        }
        if next.is_some() {
            self.tell();
        }
        Ok(())
    }

    async fn remove(&self, pool: Option<&PoolName>, tasks: &[TaskId]) -> Result<(), QueueError> {
        for (name, found) in self.pools().iter_mut() {
            if pool.is_none_or(|pool| pool == name) {
                tasks.iter().for_each(|task| found.remove(*task));
            }
        }
        Ok(())
    }

    async fn tasks(&self) -> Result<Vec<Indexed>, QueueError> {
        let pools = self.pools();
        let all = pools.iter().flat_map(|(name, pool)| pool.tasks.iter().map(move |task| (name, task)));
        let indexed = |(pool, (task, entry)): (&PoolName, (&TaskId, &Entry))| Indexed {
            pool: pool.clone(),
            task: *task,
            taken: match entry {
                Entry::Running { since, .. } => Some(*since),
                Entry::Waiting(_) => None,
            },
        };
        Ok(all.map(indexed).collect())
    }

    async fn restore(
        &self,
        waiting: &[ReadyTask],
        running: &[RunningTask],
        now: Time,
    ) -> Result<(), QueueError> {
        let mut changed = false;
        {
            let mut pools = self.pools();
            for task in waiting {
                let pool = pools.entry(task.pool.clone()).or_default();
                if !pool.tasks.contains_key(&task.task) {
                    changed |= pool.offer(task, now);
                }
            }
            for task in running {
                let pool = pools.entry(task.pool.clone()).or_default();
                let entry = Entry::Running { tenant: task.tenant, since: now, charged_ms: 0 };
                pool.tasks.entry(task.task).or_insert(entry);
            }
        }
        if changed {
            self.tell();
        }
        Ok(())
    }

    async fn weigh(&self, pool: &PoolName, weights: &[(TenantId, u32)]) -> Result<(), QueueError> {
        self.pools().entry(pool.clone()).or_default().ledger.weigh(weights);
        Ok(())
    }

    async fn is_whole(&self) -> Result<bool, QueueError> {
        // It is lost with the process and with nothing less.
        Ok(true)
    }

    async fn mark_whole(&self) -> Result<(), QueueError> {
        Ok(())
    }

    async fn depth(&self) -> Result<Vec<(PoolName, u64)>, QueueError> {
        let pools = self.pools();
        let count = |pool: &Pool| u64::try_from(pool.tasks.len()).unwrap_or(u64::MAX);
        Ok(pools.iter().map(|(name, pool)| (name.clone(), count(pool))).collect())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
