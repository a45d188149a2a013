//! The dispatch index beside the store: told of every move, asked for work, repaired from the store, and done without while it
//! does not answer.

use super::Engine;
use crate::model::{ReadyTask, WorkerRecord};
use crate::queue::{Indexed, QueueError, Take};
use crate::store::StoreError;
use mpegflow_protocol::ids::{PoolName, TaskId};
use std::collections::{BTreeMap, HashSet};

/// Ready tasks of which one is chosen where the index does not answer: brokers that all took the first would wait for each other.
const CHOICE: u32 = 32;

/// A claim takes no longer than this, in milliseconds.
const STALE: u64 = 60_000;

/// What a repair of the index changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Tasks that were missing, or for which nobody was waiting any more.
    pub added: u64,
    /// Tasks that had ended.
    pub removed: u64,
}

impl Engine {
    /// Whoever tells the index something goes on without it: what it misses, the next repair finds.
    pub(super) fn told(&self, result: Result<(), QueueError>) {
        match result {
            Ok(()) | Err(QueueError::Down) => {}
            Err(e) => tracing::debug!(error = %e, "the dispatch index was not told"),
        }
    }

    pub(super) async fn offer(&self, tasks: &[ReadyTask]) {
        self.told(self.queue.offer(tasks, self.now()).await);
    }

    /// Something for the worker to do: from the index, or from the database where that does not answer.
    pub(super) async fn next_for(&self, worker: &WorkerRecord) -> Result<Take, StoreError> {
        let now = self.now();
        match self.queue.take(&worker.pool, worker.tenant, now).await {
            Ok(take) => Ok(take),
            Err(e) => {
                self.told(Err(e));
                self.next_without_index(worker).await
            }
        }
    }

    /// Fairness and priorities wait until the index answers again; work does not.
    async fn next_without_index(&self, worker: &WorkerRecord) -> Result<Take, StoreError> {
        let now = self.now();
        let soon = Some(now.plus_ms(500));
        let mut found = self.store.ready_for(&worker.pool, worker.tenant, now, CHOICE).await?;
        if found.is_empty() {
            let others = worker.tenant.is_some()
                && !self.store.ready_for(&worker.pool, None, now, 1).await?.is_empty();
            return Ok(if others { Take::OtherTenant } else { Take::Empty(soon) });
        }
        let any = usize::from(uuid::Uuid::new_v4().as_bytes()[0]).checked_rem(found.len()).unwrap_or(0);
        Ok(Take::Task(found.swap_remove(any)))
    }

    /// Makes the index what the store says: at the start, after its loss, and against whatever it has missed.
    ///
    /// What is in the index before the store is read and then not in the store has ended for good, so it goes. What the store
    /// has and the index has not is added, and so is what waits though the index has had it as running for a while.
    ///
    /// # Errors
    /// The store failed. An index that does not answer is repaired once it does.
    pub async fn reconcile(&self) -> Result<Repaired, StoreError> {
        let Some(before) = self.listening(self.queue.tasks().await) else { return Ok(Repaired::default()) };
        let waiting = self.store.ready_tasks().await?;
        let running = self.store.running_tasks().await?;
        let weights = self.store.tenant_weights().await?;
        // Taken long ago, and it still waits: whoever took it ended before it could lease it.
        let long_ago = self.now().minus_ms(STALE);
        let stale = |task: &Indexed| task.taken.is_some_and(|taken| taken <= long_ago);
        let stale: HashSet<TaskId> = before.iter().filter(|task| stale(task)).map(|task| task.task).collect();
        let known: HashSet<TaskId> = before.iter().map(|task| task.task).collect();
        let unfinished: HashSet<TaskId> =
            waiting.iter().map(|task| task.task).chain(running.iter().map(|task| task.task)).collect();
        let mut ended: BTreeMap<&PoolName, Vec<TaskId>> = BTreeMap::new();
        for Indexed { pool, task, .. } in before.iter().filter(|task| !unfinished.contains(&task.task)) {
            ended.entry(pool).or_default().push(*task);
        }
        let lost: Vec<_> = waiting.iter().filter(|task| stale.contains(&task.task)).cloned().collect();
        let waiting: Vec<_> = waiting.into_iter().filter(|task| !known.contains(&task.task)).collect();
        let running: Vec<_> = running.into_iter().filter(|task| !known.contains(&task.task)).collect();
        let pools: HashSet<&PoolName> = before
            .iter()
            .map(|task| &task.pool)
            .chain(waiting.iter().map(|task| &task.pool))
            .chain(running.iter().map(|task| &task.pool))
            .collect();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let repaired = Repaired {
            added: count(waiting.len().saturating_add(running.len()).saturating_add(lost.len())),
            removed: count(ended.values().map(Vec::len).sum()),
        };
        let repair = async {
            for (pool, tasks) in &ended {
                self.queue.remove(Some(pool), tasks).await?;
            }
            for pool in pools {
                self.queue.weigh(pool, &weights).await?;
            }
            self.queue.restore(&waiting, &running, self.now()).await?;
            self.queue.offer(&lost, self.now()).await?;
            self.queue.mark_whole().await
        };
        Ok(self.listening(repair.await).map_or(Repaired::default(), |()| repaired))
    }

    /// Repairs the index if it has lost everything.
    ///
    /// # Errors
    /// The store failed.
    pub async fn reconcile_if_lost(&self) -> Result<(), StoreError> {
        if self.listening(self.queue.is_whole().await) == Some(false) {
            let repaired = self.reconcile().await?;
            tracing::warn!(?repaired, "the dispatch index was lost; it was made again");
        }
        Ok(())
    }

    fn listening<T>(&self, result: Result<T, QueueError>) -> Option<T> {
        result.map_err(|e| self.told(Err(e))).ok()
    }
}
