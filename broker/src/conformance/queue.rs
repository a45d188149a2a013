//! What every [`Queue`] promises.

use crate::model::{ReadyTask, Time};
use crate::queue::{Indexed, Queue, RunningTask, Take};
use mpegflow_protocol::ids::{PoolName, TaskId, TenantId};
use std::collections::BTreeMap;
use std::time::Duration;

fn ready(task: u128, tenant: u128, at: i64) -> ReadyTask {
    ReadyTask {
        task: TaskId::from_u128(task),
        tenant: TenantId::from_u128(tenant),
        pool: PoolName::default(),
        priority: 5,
        not_before: Time(at),
    }
}

fn running(task: u128, tenant: u128) -> RunningTask {
    RunningTask {
        task: TaskId::from_u128(task),
        tenant: TenantId::from_u128(tenant),
        pool: PoolName::default(),
    }
}

async fn offer(queue: &dyn Queue, task: ReadyTask) {
    queue.offer(&[task], Time(1_000)).await.unwrap();
}

async fn take(queue: &dyn Queue, tenant: Option<u128>) -> Take {
    queue.take(&PoolName::default(), tenant.map(TenantId::from_u128), Time(1_000)).await.unwrap()
}

async fn depth(queue: &dyn Queue) -> u64 {
    queue.depth().await.unwrap().into_iter().find(|(pool, _)| *pool == PoolName::default()).map_or(0, |d| d.1)
}

/// Every promise, on an empty queue.
pub async fn all(queue: &dyn Queue) {
    one_taker(queue).await;
    times(queue).await;
    tenants(queue).await;
    priorities(queue).await;
    shares(queue).await;
    at_once(queue).await;
    repair(queue).await;
}

/// Many at once are each answered as if they came alone.
async fn at_once(queue: &dyn Queue) {
    let tasks: Vec<_> = (1..=40).map(|n| ready(n, 51 + n % 2, 0)).collect();
    queue.offer(&tasks, Time(1_000)).await.unwrap();
    // Every fourth asks for one of a tenant that has nothing.
    let takes = (0..48_u128).map(|n| take(queue, [None, Some(51), None, Some(59)][(n % 4) as usize]));
    let taken = futures_util::future::join_all(takes).await;
    let mut got: Vec<u128> = Vec::new();
    for (n, taken) in taken.iter().enumerate() {
        match (n % 4, taken) {
            (3, taken) => assert_eq!(*taken, Take::OtherTenant),
            (1, Take::Task(task)) => {
                assert_eq!(task.tenant.as_u128(), 51);
                got.push(task.task.as_u128());
            }
            (_, Take::Task(task)) => got.push(task.task.as_u128()),
            // The tenant of this one had no more.
            (1, Take::OtherTenant) => {}
            (_, taken) => panic!("{n}: {taken:?}"),
        }
    }
    let count = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!((got.len(), count >= 32), (count, true), "each is taken once: {got:?}");
    let ended: Vec<_> = got.iter().map(|n| running(*n, 51 + n % 2)).collect();
    let next: Vec<_> = got.iter().map(|n| ready(n + 100, 51 + n % 2, 0)).collect();
    let settled = ended.iter().zip(&next).map(|(ended, next)| queue.settled(ended, Some(next), Time(2_000)));
    for settled in futures_util::future::join_all(settled).await {
        settled.unwrap();
    }
    assert_eq!(depth(queue).await, 40, "each end and what follows it");
    clear(queue).await;
}

async fn one_taker(queue: &dyn Queue) {
    assert_eq!(take(queue, None).await, Take::Empty(None), "empty");
    // Offering wakes, offering twice is offering once, and who takes has it alone.
    let mut changes = queue.watch();
    // Whatever was published before is heard before.
    while tokio::time::timeout(Duration::from_millis(500), changes.changed()).await.is_ok() {}
    offer(queue, ready(1, 1, 0)).await;
    tokio::time::timeout(Duration::from_secs(10), changes.changed())
        .await
        .expect("an offer is heard of")
        .unwrap();
    offer(queue, ready(1, 1, 0)).await;
    assert_eq!(depth(queue).await, 1);
    assert_eq!(take(queue, None).await, Take::Task(ready(1, 1, 0)));
    assert_eq!(take(queue, None).await, Take::Empty(None), "taken once");
    // It counts until it has ended.
    assert_eq!(depth(queue).await, 1);
    queue.settled(&running(1, 1), Some(&ready(2, 1, 0)), Time(2_000)).await.unwrap();
    assert_eq!(depth(queue).await, 1, "one ended, one follows");
    assert_eq!(take(queue, None).await, Take::Task(ready(2, 1, 0)));
    // Given back, it waits again.
    offer(queue, ready(2, 1, 0)).await;
    assert_eq!(take(queue, None).await, Take::Task(ready(2, 1, 0)));
    queue.settled(&running(2, 1), Some(&ready(2, 1, 0)), Time(2_000)).await.unwrap();
    assert_eq!(take(queue, None).await, Take::Task(ready(2, 1, 0)), "tried again");
    queue.settled(&running(2, 1), None, Time(3_000)).await.unwrap();
    queue.settled(&running(2, 1), None, Time(3_000)).await.unwrap();
    assert_eq!((depth(queue).await, take(queue, None).await), (0, Take::Empty(None)));
    // What ended is not what waits elsewhere.
    let gpu: PoolName = "gpu".parse().unwrap();
    let elsewhere = ReadyTask { pool: gpu.clone(), ..ready(3, 1, 0) };
    offer(queue, ready(4, 1, 0)).await;
    assert_eq!(take(queue, None).await, Take::Task(ready(4, 1, 0)));
    queue.settled(&running(4, 1), Some(&elsewhere), Time(2_000)).await.unwrap();
    assert_eq!(take(queue, None).await, Take::Empty(None), "another pool's");
    assert_eq!(queue.take(&gpu, None, Time(1_000)).await.unwrap(), Take::Task(elsewhere));
    queue.remove(None, &[TaskId::from_u128(3)]).await.unwrap();
    assert!(queue.depth().await.unwrap().iter().all(|(_, depth)| *depth == 0));
}

async fn times(queue: &dyn Queue) {
    let pool = PoolName::default();
    // Not before its time; moved by another offer; removed.
    offer(queue, ready(2, 1, 5_000)).await;
    assert_eq!(take(queue, None).await, Take::Empty(Some(Time(5_000))));
    offer(queue, ready(2, 1, 3_000)).await;
    assert_eq!(take(queue, None).await, Take::Empty(Some(Time(3_000))));
    assert_eq!(queue.take(&pool, None, Time(3_000)).await.unwrap(), Take::Task(ready(2, 1, 3_000)));
    queue.remove(Some(&pool), &[TaskId::from_u128(2)]).await.unwrap();
    offer(queue, ready(3, 1, 0)).await;
    offer(queue, ready(4, 1, 7_000)).await;
    queue.remove(Some(&pool), &[TaskId::from_u128(3), TaskId::from_u128(4)]).await.unwrap();
    assert_eq!(take(queue, None).await, Take::Empty(None), "removed");
    assert_eq!(depth(queue).await, 0);
}

async fn tenants(queue: &dyn Queue) {
    let pool = PoolName::default();
    // A bound worker gets its tenant's only, and learns that others wait.
    offer(queue, ready(4, 1, 0)).await;
    assert_eq!(take(queue, Some(2)).await, Take::OtherTenant);
    // While its own tenant has something for later it stays.
    offer(queue, ready(5, 2, 9_000)).await;
    assert_eq!(take(queue, Some(2)).await, Take::Empty(Some(Time(9_000))));
    assert_eq!(take(queue, Some(1)).await, Take::Task(ready(4, 1, 0)));
    assert_eq!(take(queue, Some(1)).await, Take::Empty(None), "nobody has anything now");
    queue.remove(Some(&pool), &[TaskId::from_u128(4), TaskId::from_u128(5)]).await.unwrap();

    // A tenant with many tasks does not keep another waiting.
    for n in 0..10 {
        offer(queue, ready(100 + n, 11, 0)).await;
    }
    offer(queue, ready(200, 12, 0)).await;
    offer(queue, ready(201, 12, 0)).await;
    let mut served = Vec::new();
    for _ in 0..4 {
        let Take::Task(task) = take(queue, None).await else { panic!("tasks were there") };
        served.push(task.tenant.as_u128());
    }
    served.sort_unstable();
    assert_eq!(served, [11, 11, 12, 12], "in turn");
    clear(queue).await;
}

async fn priorities(queue: &dyn Queue) {
    // 9 first; among equals the older one; a higher priority of one tenant takes nothing from another.
    for (task, tenant, priority) in [(1, 21, 5), (2, 21, 0), (3, 21, 9), (4, 21, 5), (5, 22, 0)] {
        offer(queue, ReadyTask { priority, ..ready(task, tenant, 0) }).await;
    }
    let mut order: BTreeMap<u128, Vec<u128>> = BTreeMap::new();
    let mut turns = Vec::new();
    while let Take::Task(task) = take(queue, None).await {
        turns.push(task.tenant.as_u128());
        order.entry(task.tenant.as_u128()).or_default().push(task.task.as_u128());
    }
    assert_eq!(order[&21], [3, 1, 4, 2]);
    assert!(turns[..2].contains(&22), "{turns:?}");
    // A changed priority is a changed place.
    clear(queue).await;
    offer(queue, ready(1, 21, 0)).await;
    offer(queue, ready(2, 21, 0)).await;
    offer(queue, ReadyTask { priority: 6, ..ready(2, 21, 0) }).await;
    assert_eq!(depth(queue).await, 2);
    assert_eq!(take(queue, None).await, Take::Task(ReadyTask { priority: 6, ..ready(2, 21, 0) }));
    clear(queue).await;
}

/// Three tenants of weights 3:2:1 whose tasks take differently long, on eight slots that always have work.
async fn shares(queue: &dyn Queue) {
    let pool = PoolName::default();
    let tenants = [(31_u128, 300_u32, 4_000_i64), (32, 200, 500), (33, 100, 1_500)];
    let weights: Vec<_> = tenants.iter().map(|(t, weight, _)| (TenantId::from_u128(*t), *weight)).collect();
    queue.weigh(&pool, &weights).await.unwrap();
    let mut next = 1_000_u128;
    for (tenant, ..) in tenants {
        let tasks: Vec<_> = (0..16).map(|n| ready(next + n, tenant, 0)).collect();
        queue.offer(&tasks, Time(1_000)).await.unwrap();
        next += 16;
    }
    let mut had: BTreeMap<u128, i64> = BTreeMap::new();
    let mut running: Vec<(i64, ReadyTask)> = Vec::new();
    let mut now = 10_000_i64;
    for _ in 0..600 {
        while running.len() < 8 {
            let Take::Task(task) = queue.take(&pool, None, Time(now)).await.unwrap() else { panic!("empty") };
            let took = tenants.iter().find(|t| t.0 == task.tenant.as_u128()).unwrap().2;
            *had.entry(task.tenant.as_u128()).or_default() += took;
            running.push((now + took, task));
        }
        running.sort_by_key(|(end, task)| (*end, task.task));
        let (end, task) = running.remove(0);
        now = end;
        next += 1;
        let ended = RunningTask { task: task.task, tenant: task.tenant, pool: pool.clone() };
        queue.settled(&ended, Some(&ready(next, task.tenant.as_u128(), 0)), Time(now)).await.unwrap();
    }
    let whole: i64 = had.values().sum();
    for (tenant, weight, _) in tenants {
        let share = whole * i64::from(weight) / 600;
        assert!(
            (had[&tenant] - share).abs() * 10 <= share,
            "{tenant}: {} is not {share} of {had:?}",
            had[&tenant]
        );
    }
    queue.weigh(&pool, &[]).await.unwrap();
    clear(queue).await;
}

async fn repair(queue: &dyn Queue) {
    let pool = PoolName::default();
    queue.mark_whole().await.unwrap();
    assert!(queue.is_whole().await.unwrap());
    // What is there stays as it is, waiting or running; what is not is added.
    offer(queue, ready(1, 41, 0)).await;
    assert_eq!(take(queue, None).await, Take::Task(ready(1, 41, 0)));
    let many: Vec<_> = (1..=1_000).map(|n| ready(n, 41, 0)).collect();
    queue.restore(&many, &[running(2_000, 41), running(1, 41)], Time(1_000)).await.unwrap();
    assert_eq!(depth(queue).await, 1_001);
    let tasks = queue.tasks().await.unwrap();
    assert_eq!(tasks.len(), 1_001);
    let indexed = |task: u128, taken| Indexed { pool: pool.clone(), task: TaskId::from_u128(task), taken };
    assert!(tasks.contains(&indexed(2_000, Some(Time(1_000)))));
    assert!(tasks.contains(&indexed(1, Some(Time(1_000)))) && tasks.contains(&indexed(2, None)));
    assert_eq!(take(queue, None).await, Take::Task(ready(2, 41, 0)), "1 runs");
    queue.settled(&running(2_000, 41), None, Time(1_000)).await.unwrap();
    clear(queue).await;
    assert_eq!(depth(queue).await, 0);
}

/// Removes everything.
async fn clear(queue: &dyn Queue) {
    for Indexed { pool, task, .. } in queue.tasks().await.unwrap() {
        queue.remove(Some(&pool), &[task]).await.unwrap();
    }
}
