//! What every [`Queue`] promises.

use crate::model::{ReadyTask, Time};
use crate::queue::{Queue, Take};
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};

fn ready(task: u128, tenant: u128, at: i64) -> ReadyTask {
    ReadyTask {
        task: TaskId::from_u128(task),
        tenant: TenantId::from_u128(tenant),
        pool: PoolName::default(),
        not_before: Time(at),
    }
}

/// Every promise, on an empty queue.
pub async fn all(queue: &dyn Queue) {
    let pool = PoolName::default();
    let now = Time(1_000);
    assert_eq!(queue.take(&pool, None, now).await, Take::Empty(None), "empty");

    // Offering wakes, offering twice is offering once, and who takes has it alone.
    let mut changes = queue.watch();
    changes.mark_unchanged();
    queue.offer(ready(1, 1, 0)).await;
    assert!(changes.has_changed().unwrap(), "an offer is heard of");
    queue.offer(ready(1, 1, 0)).await;
    assert_eq!(queue.depth().await, vec![(pool.clone(), 1)]);
    assert_eq!(queue.take(&pool, None, now).await, Take::Task(ready(1, 1, 0)));
    assert_eq!(queue.take(&pool, None, now).await, Take::Empty(None), "taken once");

    // Not before its time; moved by another offer; removed.
    queue.offer(ready(2, 1, 5_000)).await;
    assert_eq!(queue.take(&pool, None, now).await, Take::Empty(Some(Time(5_000))));
    queue.offer(ready(2, 1, 3_000)).await;
    assert_eq!(queue.take(&pool, None, now).await, Take::Empty(Some(Time(3_000))));
    assert_eq!(queue.take(&pool, None, Time(3_000)).await, Take::Task(ready(2, 1, 3_000)));
    queue.offer(ready(3, 1, 0)).await;
    queue.remove(TaskId::from_u128(3)).await;
    assert_eq!(queue.take(&pool, None, now).await, Take::Empty(None), "removed");

    // Another pool sees nothing.
    queue.offer(ready(4, 1, 0)).await;
    assert_eq!(queue.take(&"gpu".parse().unwrap(), None, now).await, Take::Empty(None));

    // A bound worker gets its tenant's only, and learns that others wait.
    assert_eq!(queue.take(&pool, Some(TenantId::from_u128(2)), now).await, Take::OtherTenant);
    // While its own tenant has something for later it stays.
    queue.offer(ready(5, 2, 9_000)).await;
    assert_eq!(queue.take(&pool, Some(TenantId::from_u128(2)), now).await, Take::Empty(Some(Time(0))));
    assert_eq!(queue.take(&pool, Some(TenantId::from_u128(1)), now).await, Take::Task(ready(4, 1, 0)));
    queue.remove(TaskId::from_u128(5)).await;

    // A tenant with many tasks does not keep another waiting.
    for n in 0..10 {
        queue.offer(ready(100 + n, 1, 0)).await;
    }
    queue.offer(ready(200, 2, 0)).await;
    queue.offer(ready(201, 2, 0)).await;
    let mut served = Vec::new();
    for _ in 0..4 {
        let Take::Task(task) = queue.take(&pool, None, now).await else { panic!("tasks were there") };
        served.push(task.tenant.as_u128());
    }
    served.sort_unstable();
    assert_eq!(served, [1, 1, 2, 2], "in turn");
}
