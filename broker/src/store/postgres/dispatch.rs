//! Leases and parts.

use super::{PostgresStore, sql};
use crate::model::Time;
use crate::model::{Claim, LiveAttempt, Part, ReadyTask};
use crate::queue::RunningTask;
use crate::store::row::{self, Cells, signed};
use crate::store::{Expired, Recorded, StoreError};
use mpegflow_protocol::ids::{AttemptId, PoolName, TenantId, WorkerId};
use sqlx::postgres::PgRow;

/// Ready tasks that are read at once: far more than a queue index holds.
const MOST_READY: i64 = 1_000_000;
/// Leases that are ended in one round of the ticker; the next round takes the rest.
const MOST_EXPIRED: i64 = 1_000;

pub(super) async fn ready(store: &PostgresStore) -> Result<Vec<ReadyTask>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::READY).bind(MOST_READY).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(|row| ready_task(row, "id")).collect()
}

pub(super) fn ready_task(row: &PgRow, task: &str) -> Result<ReadyTask, StoreError> {
    let cells = Cells::of("tasks", row);
    Ok(ReadyTask {
        task: cells.id(task)?,
        tenant: cells.id("tenant")?,
        pool: cells.pool("pool")?,
        priority: priority(&cells)?,
        not_before: cells.time("not_before")?,
    })
}

fn priority(cells: &Cells<'_, PgRow>) -> Result<u8, StoreError> {
    let found = cells.number("priority")?;
    u8::try_from(found).map_err(|_| StoreError::Row { table: "tasks", reason: format!("priority {found}") })
}

pub(super) async fn ready_for(
    store: &PostgresStore,
    pool: &PoolName,
    tenant: Option<TenantId>,
    now: Time,
    limit: u32,
) -> Result<Vec<ReadyTask>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store
        .sql(sql::READY_FOR)
        .bind(pool.as_str())
        .bind(tenant.map(|tenant| tenant.to_string()))
        .bind(now.0)
        .bind(i64::from(limit))
        .fetch_all(&mut conn)
        .await?;
    conn.done().await?;
    rows.iter().map(|row| ready_task(row, "id")).collect()
}

pub(super) async fn running(store: &PostgresStore) -> Result<Vec<RunningTask>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::RUNNING_TASKS).bind(MOST_READY).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("tasks", row);
            Ok(RunningTask { task: cells.id("id")?, tenant: cells.id("tenant")?, pool: cells.pool("pool")? })
        })
        .collect()
}

pub(super) async fn live(store: &PostgresStore, claim: &Claim) -> Result<Option<LiveAttempt>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store
        .sql(sql::LIVE)
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .fetch_optional(&mut conn)
        .await?;
    conn.done().await?;
    row.map(|row| {
        let cells = Cells::of("leases", &row);
        Ok(LiveAttempt {
            claim: *claim,
            tenant: cells.id("tenant")?,
            job: cells.id("job")?,
            job_state: cells.word("job_state")?,
            pool: cells.pool("pool")?,
            trace: cells.trace("trace")?,
            task: row::task(&row)?,
            deadline: cells.time("deadline")?,
            hard_deadline: cells.time("hard_deadline")?,
        })
    })
    .transpose()
}

pub(super) async fn live_of_worker(store: &PostgresStore, worker: WorkerId) -> Result<u32, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::LIVE_OF_WORKER).bind(worker.to_string()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.map_or(Ok(0), |row| Cells::of("workers", &row).small("live"))
}

pub(super) async fn expired(store: &PostgresStore, now: Time) -> Result<Vec<Expired>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::EXPIRED).bind(store.at(now)).bind(MOST_EXPIRED).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("leases", row);
            Ok(Expired {
                claim: Claim {
                    attempt: cells.id("attempt")?,
                    worker: cells.id("worker")?,
                    epoch: cells.number("epoch")?,
                },
                overdue: cells.flag("overdue")?,
            })
        })
        .collect()
}

pub(super) async fn record_part(
    store: &PostgresStore,
    claim: &Claim,
    output: u32,
    part: &Part,
    now: Time,
) -> Result<Recorded, StoreError> {
    let mut conn = store.conn().await?;
    let row = store
        .sql(sql::RECORD_PART)
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(store.at(now))
        .bind(i64::from(output))
        .bind(i64::from(part.part))
        .bind(signed(part.size))
        .bind(part.sha256.as_slice())
        .fetch_one(&mut conn)
        .await?;
    conn.done().await?;
    let cells = Cells::of("parts", &row);
    Ok(match (cells.number("live")?, cells.number("added")?) {
        (0, _) => Recorded::Stale,
        (_, 0) => Recorded::Conflict,
        _ => Recorded::Done,
    })
}

pub(super) async fn parts(
    store: &PostgresStore,
    attempt: AttemptId,
    output: u32,
) -> Result<Vec<Part>, StoreError> {
    let mut conn = store.conn().await?;
    let query = store.sql(sql::PARTS).bind(attempt.to_string()).bind(i64::from(output));
    let rows = query.fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(row::part).collect()
}
