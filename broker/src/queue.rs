//! The queue: an index of what is ready, so that dispatch need not ask the store. It holds no truth: the store's
//! compare-and-set decides who gets a task, and a lost or stale index is made again from the store.

use crate::model::{ReadyTask, Time};
use async_trait::async_trait;
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What [`Queue::take`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// A task; it is no longer in the index.
    Task(ReadyTask),
    /// Nothing of the tenant, but something of another.
    OtherTenant,
    /// Nothing; something may become ready then.
    Empty(Option<Time>),
}

/// The index of ready tasks.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds a task; one that is there moves to its new time.
    async fn offer(&self, task: ReadyTask);
    /// Takes a task of the pool that may start by `now`: of the tenant, or of the one served least recently.
    async fn take(&self, pool: &PoolName, tenant: Option<TenantId>, now: Time) -> Take;
    /// Removes a task.
    async fn remove(&self, task: TaskId);
    /// Tasks in the index, by pool.
    async fn depth(&self) -> Vec<(PoolName, u64)>;
    /// Whether the queue can do its work now.
    async fn answers(&self) -> bool {
        true
    }
    /// Changes whenever something is offered.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// A queue in this process.
#[derive(Debug)]
pub struct MemoryQueue {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<PoolName, BTreeMap<TenantId, Line>>,
    places: HashMap<TaskId, (PoolName, TenantId, Place)>,
    next: u64,
}

type Place = (Time, u64);

#[derive(Debug, Default)]
struct Line {
    tasks: BTreeMap<Place, ReadyTask>,
    /// The turn in which it was served last.
    served: u64,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self { state: Mutex::default(), version: watch::channel(0).0 }
    }
}

impl MemoryQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        // The index holds no truth; whatever a panic left of it is repaired from the store.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }

    fn remove(&mut self, task: TaskId) {
        if let Some((pool, tenant, place)) = self.places.remove(&task)
            && let Some(line) = self.lines.get_mut(&pool).and_then(|lines| lines.get_mut(&tenant))
        {
            line.tasks.remove(&place);
        }
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn offer(&self, task: ReadyTask) {
        {
            let mut state = self.state();
            if state.places.get(&task.task).is_some_and(|(_, _, (time, _))| *time == task.not_before) {
                return;
            }
            state.remove(task.task);
            let place = (task.not_before, state.turn());
            state.places.insert(task.task, (task.pool.clone(), task.tenant, place));
            let line = state.lines.entry(task.pool.clone()).or_default().entry(task.tenant).or_default();
            line.tasks.insert(place, task);
        }
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    async fn take(&self, pool: &PoolName, tenant: Option<TenantId>, now: Time) -> Take {
        let mut guard = self.state();
        let state = &mut *guard;
        let turn = state.turn();
        let Some(lines) = state.lines.get_mut(pool) else { return Take::Empty(None) };
        lines.retain(|id, line| {
            !line.tasks.is_empty() || Some(*id) == tenant || turn.saturating_sub(line.served) < 10_000
        });
        let is_ready = |line: &Line| line.tasks.first_key_value().is_some_and(|((time, _), _)| *time <= now);
        let chosen = lines
            .iter_mut()
            .filter(|(id, line)| tenant.is_none_or(|t| t == **id) && is_ready(line))
            .min_by_key(|(_, line)| line.served);
        if let Some((_, line)) = chosen
            && let Some((_, task)) = line.tasks.pop_first()
        {
            line.served = turn;
            state.places.remove(&task.task);
            return Take::Task(task);
        }
        if tenant.is_some() && lines.values().any(is_ready) {
            let own_waits = tenant.and_then(|t| lines.get(&t)).is_some_and(|line| !line.tasks.is_empty());
            if !own_waits {
                return Take::OtherTenant;
            }
        }
        Take::Empty(
            lines.values().filter_map(|line| line.tasks.first_key_value()).map(|((time, _), _)| *time).min(),
        )
    }

    async fn remove(&self, task: TaskId) {
        self.state().remove(task);
    }

    async fn depth(&self) -> Vec<(PoolName, u64)> {
        let count =
            |lines: &BTreeMap<TenantId, Line>| lines.values().map(|line| line.tasks.len()).sum::<usize>();
        let state = self.state();
        state
            .lines
            .iter()
            .map(|(pool, lines)| (pool.clone(), u64::try_from(count(lines)).unwrap_or(u64::MAX)))
            .collect()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
