//! The queue: an index of what is ready and what runs, so that dispatch need not ask the store. It holds no truth: the store's
//! compare-and-set decides who gets a task, and a lost or stale index is made again from the store.
//!
//! Who is next is decided by [`fair`]: tenants share a pool by slot-seconds and weight; within a tenant the higher priority
//! goes first, and among equals the older task.

mod fair;
mod memory;
pub mod redis;

pub use memory::MemoryQueue;

use crate::model::{ReadyTask, Time};
use async_trait::async_trait;
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use tokio::sync::watch;

/// A tenant's share of a pool unless it was given another: twice this is twice the slot-seconds.
pub const DEFAULT_WEIGHT: u32 = 100;
/// The largest weight; the smallest is 1.
pub const MAX_WEIGHT: u32 = 10_000;

/// What [`Queue::take`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// A task; from now on the index has it as running.
    Task(ReadyTask),
    /// Nothing of the tenant, now or later, but something of another.
    OtherTenant,
    /// Nothing; something may become ready then.
    Empty(Option<Time>),
}

/// A task that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// The task.
    pub task: TaskId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which pool does it.
    pub pool: PoolName,
}

/// A task that the index has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Which pool does it.
    pub pool: PoolName,
    /// The task.
    pub task: TaskId,
    /// When it was taken; it waits where it was not.
    pub taken: Option<Time>,
}

/// The index cannot be asked or told anything now. The store still can: see [`crate::store::Store::ready_for`].
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It was found unreachable just now; nothing was tried.
    #[error("the dispatch index does not answer; it is tried again shortly")]
    Down,
    /// How to reach it could not be read.
    #[error("the dispatch index's address cannot be used")]
    Address(#[source] redis::RedisUrlError),
    /// It did not answer, or answered with an error.
    #[error("the dispatch index failed: {0}")]
    Failed(String),
}

/// The index of tasks that wait or run.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds tasks that wait. One that waits already moves to its new place; one that ran is not charged for that.
    async fn offer(&self, tasks: &[ReadyTask], now: Time) -> Result<(), QueueError>;
    /// Takes a task of the pool that may start by `now`: of the tenant, or of the one whose turn it is.
    async fn take(&self, pool: &PoolName, tenant: Option<TenantId>, now: Time) -> Result<Take, QueueError>;
    /// The attempt at a task ended: its time is charged to its tenant. What follows, the task itself or another one, waits.
    async fn settled(
        &self,
        ended: &RunningTask,
        next: Option<&ReadyTask>,
        now: Time,
    ) -> Result<(), QueueError>;
    /// Removes tasks, waiting or running, from the pool or from whichever has them.
    async fn remove(&self, pool: Option<&PoolName>, tasks: &[TaskId]) -> Result<(), QueueError>;
    /// Every task in the index.
    async fn tasks(&self) -> Result<Vec<Indexed>, QueueError>;
    /// Adds what is not there; what is stays as it is. After the last call of a repair, [`Self::mark_whole`].
    async fn restore(
        &self,
        waiting: &[ReadyTask],
        running: &[RunningTask],
        now: Time,
    ) -> Result<(), QueueError>;
    /// Sets the weights of tenants, 1 to [`MAX_WEIGHT`], in the pool; who is not named has [`DEFAULT_WEIGHT`].
    async fn weigh(&self, pool: &PoolName, weights: &[(TenantId, u32)]) -> Result<(), QueueError>;
    /// Whether the index still has what was put in: `false` from its total loss until [`Self::mark_whole`].
    async fn is_whole(&self) -> Result<bool, QueueError>;
    /// Notes that everything the store knows was put in.
    async fn mark_whole(&self) -> Result<(), QueueError>;
    /// Tasks that wait or run, by pool.
    async fn depth(&self) -> Result<Vec<(PoolName, u64)>, QueueError>;
    /// Whether it does its work now.
    async fn answers(&self) -> bool {
        self.is_whole().await.is_ok()
    }
    /// Changes whenever something is offered, here or by another broker.
    fn watch(&self) -> watch::Receiver<u64>;
}
