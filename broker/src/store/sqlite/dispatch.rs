//! Leases and parts.

use super::{SqliteStore, jobs};
use crate::model::{Claim, LiveAttempt, Part, ReadyTask, Time, Tries};
use crate::queue::RunningTask;
use crate::state;
use crate::store::row::{self, Cells, LIVE, json, signed};
use crate::store::{Expired, Leased, NewLease, Recorded, StoreError};
use mpegflow_protocol::api::{EventKind, JobState};
use mpegflow_protocol::ids::{AttemptId, JobId, PoolName, TenantId, WorkerId};
use sqlx::sqlite::SqliteRow;

pub(super) async fn ready(store: &SqliteStore) -> Result<Vec<ReadyTask>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, tenant, pool, priority, not_before FROM tasks WHERE state = 'ready' ORDER BY not_before, id",
    )
    .fetch_all(&store.readers)
    .await?;
    rows.iter().map(ready_task).collect()
}

fn ready_task(row: &SqliteRow) -> Result<ReadyTask, StoreError> {
    let cells = Cells::of("tasks", row);
    let priority = cells.number("priority")?;
    Ok(ReadyTask {
        task: cells.id("id")?,
        tenant: cells.id("tenant")?,
        pool: cells.pool("pool")?,
        priority: u8::try_from(priority)
            .map_err(|_| StoreError::Row { table: "tasks", reason: format!("priority {priority}") })?,
        not_before: cells.time("not_before")?,
    })
}

pub(super) async fn ready_for(
    store: &SqliteStore,
    pool: &PoolName,
    tenant: Option<TenantId>,
    now: Time,
    limit: u32,
) -> Result<Vec<ReadyTask>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, tenant, pool, priority, not_before FROM tasks
         WHERE state = 'ready' AND pool = ?1 AND (?2 IS NULL OR tenant = ?2) AND not_before <= ?3
         ORDER BY not_before, id LIMIT ?4",
    )
    .bind(pool.as_str())
    .bind(tenant.map(|tenant| tenant.to_string()))
    .bind(now.0)
    .bind(limit)
    .fetch_all(&store.readers)
    .await?;
    rows.iter().map(ready_task).collect()
}

pub(super) async fn running(store: &SqliteStore) -> Result<Vec<RunningTask>, StoreError> {
    let rows = sqlx::query("SELECT id, tenant, pool FROM tasks WHERE state = 'running'")
        .fetch_all(&store.readers)
        .await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("tasks", row);
            Ok(RunningTask { task: cells.id("id")?, tenant: cells.id("tenant")?, pool: cells.pool("pool")? })
        })
        .collect()
}

pub(super) async fn lease(store: &SqliteStore, new: &NewLease) -> Result<Leased, StoreError> {
    let mut tx = store.write().await?;
    let row = sqlx::query(
        "SELECT t.*, j.trace FROM tasks t JOIN jobs j ON j.id = t.job JOIN workers w ON w.id = ?2 AND w.pool = t.pool
         WHERE t.id = ?1 AND t.state = 'ready' AND t.not_before <= ?3 AND j.state IN ('queued', 'running')",
    )
    .bind(new.task.to_string())
    .bind(new.worker.to_string())
    .bind(new.now.0)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Leased::Gone) };
    let cells = Cells::of("tasks", &row);
    let (job, tenant): (JobId, TenantId) = (cells.id("job")?, cells.id("tenant")?);
    let mut task = row::task(&row)?;
    // The binding is for good: the first lease makes it.
    let bound =
        sqlx::query(
            "UPDATE workers SET tenant = ?1 WHERE id = ?2 AND (tenant IS NULL OR tenant = ?1) AND cordoned_at IS NULL
                 AND revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM pools p WHERE p.name = workers.pool AND p.closed)",
        )
            .bind(tenant.to_string())
            .bind(new.worker.to_string())
            .execute(&mut *tx)
            .await?;
    if bound.rows_affected() != 1 {
        return Ok(Leased::OtherTenant);
    }
    let held = sqlx::query("SELECT count(*) AS n FROM attempts WHERE worker = ? AND state = 'live'")
        .bind(new.worker.to_string())
        .fetch_one(&mut *tx)
        .await?;
    if Cells::of("attempts", &held).small("n")? >= new.most {
        return Ok(Leased::TooMany);
    }
    task.epoch = task.epoch.saturating_add(1);
    task.tries = Tries { attempts: task.tries.attempts.saturating_add(1), ..task.tries };
    task.state = mpegflow_protocol::api::TaskState::Running;
    let claim = Claim { attempt: new.attempt, worker: new.worker, epoch: task.epoch };
    let hard_deadline = new.now.plus_ms(task.plan.wall_ms);
    let deadline = new.now.plus_ms(new.lease_ms).min(hard_deadline);
    sqlx::query("UPDATE tasks SET state = 'running', epoch = ?, tries = ? WHERE id = ?")
        .bind(signed(task.epoch))
        .bind(json(&task.tries))
        .bind(new.task.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO attempts (id, task, job, tenant, worker, epoch, state, started_at, hard_deadline)
         VALUES (?, ?, ?, ?, ?, ?, 'live', ?, ?)",
    )
    .bind(new.attempt.to_string())
    .bind(new.task.to_string())
    .bind(job.to_string())
    .bind(tenant.to_string())
    .bind(new.worker.to_string())
    .bind(signed(task.epoch))
    .bind(new.now.0)
    .bind(hard_deadline.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO leases (attempt, deadline) VALUES (?, ?)")
        .bind(new.attempt.to_string())
        .bind(deadline.0)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE jobs SET state = 'running' WHERE id = ? AND state = 'queued'")
        .bind(job.to_string())
        .execute(&mut *tx)
        .await?;
    let stage = state::stage(&jobs::tasks_of(&mut tx, job).await?);
    jobs::add_event(&mut tx, tenant, job, EventKind::TaskStarted, JobState::Running, stage, None, new.now)
        .await?;
    tx.commit().await?;
    Ok(Leased::Granted(Box::new(LiveAttempt {
        claim,
        tenant,
        job,
        job_state: JobState::Running,
        pool: cells.pool("pool")?,
        trace: cells.trace("trace")?,
        task,
        deadline,
        hard_deadline,
    })))
}

pub(super) async fn live(store: &SqliteStore, claim: &Claim) -> Result<Option<LiveAttempt>, StoreError> {
    let row = sqlx::query(
        "SELECT t.*, j.state AS job_state, j.trace, a.job AS a_job, a.hard_deadline, l.deadline
         FROM attempts a JOIN leases l ON l.attempt = a.id JOIN tasks t ON t.id = a.task JOIN jobs j ON j.id = a.job
         WHERE a.id = ? AND a.worker = ? AND a.epoch = ? AND a.state = ?",
    )
    .bind(claim.attempt.to_string())
    .bind(claim.worker.to_string())
    .bind(signed(claim.epoch))
    .bind(LIVE)
    .fetch_optional(&store.readers)
    .await?;
    row.map(|row| {
        let cells = Cells::of("attempts", &row);
        Ok(LiveAttempt {
            claim: *claim,
            tenant: cells.id("tenant")?,
            job: cells.id("a_job")?,
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

pub(super) async fn live_of_worker(store: &SqliteStore, worker: WorkerId) -> Result<u32, StoreError> {
    let row = sqlx::query("SELECT count(*) AS n FROM attempts WHERE worker = ? AND state = 'live'")
        .bind(worker.to_string())
        .fetch_one(&store.readers)
        .await?;
    Cells::of("attempts", &row).small("n")
}

pub(super) async fn renew(
    store: &SqliteStore,
    claim: &Claim,
    now: Time,
    lease_ms: u64,
) -> Result<Option<(JobState, Time)>, StoreError> {
    // A lease that has run out is not renewed, even before the ticker has seen it: another may be about to get the task.
    let row = sqlx::query(
        "UPDATE leases SET deadline = min(?1, (SELECT hard_deadline FROM attempts WHERE id = ?2))
         WHERE attempt = ?2 AND deadline > ?3
           AND EXISTS (SELECT 1 FROM attempts WHERE id = ?2 AND worker = ?4 AND epoch = ?5 AND state = 'live')
         RETURNING deadline, (SELECT j.state FROM attempts a JOIN jobs j ON j.id = a.job WHERE a.id = ?2) AS job_state",
    )
    .bind(now.plus_ms(lease_ms).0)
    .bind(claim.attempt.to_string())
    .bind(now.0)
    .bind(claim.worker.to_string())
    .bind(signed(claim.epoch))
    .fetch_optional(&store.writer)
    .await?;
    row.map(|row| {
        let cells = Cells::of("leases", &row);
        Ok((cells.word("job_state")?, cells.time("deadline")?))
    })
    .transpose()
}

pub(super) async fn expired(store: &SqliteStore, now: Time) -> Result<Vec<Expired>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id, a.worker, a.epoch, a.hard_deadline FROM leases l JOIN attempts a ON a.id = l.attempt
         WHERE l.deadline <= ? AND a.state = 'live'",
    )
    .bind(now.0)
    .fetch_all(&store.readers)
    .await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("attempts", row);
            Ok(Expired {
                claim: Claim {
                    attempt: cells.id("id")?,
                    worker: cells.id("worker")?,
                    epoch: cells.number("epoch")?,
                },
                overdue: cells.time("hard_deadline")? <= now,
            })
        })
        .collect()
}

pub(super) async fn record_part(
    store: &SqliteStore,
    claim: &Claim,
    output: u32,
    part: &Part,
    now: Time,
) -> Result<Recorded, StoreError> {
    let mut tx = store.write().await?;
    let live = sqlx::query(
        "SELECT 1 FROM attempts a JOIN leases l ON l.attempt = a.id
         WHERE a.id = ? AND a.worker = ? AND a.epoch = ? AND a.state = 'live' AND l.deadline > ?",
    )
    .bind(claim.attempt.to_string())
    .bind(claim.worker.to_string())
    .bind(signed(claim.epoch))
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?;
    if live.is_none() {
        return Ok(Recorded::Stale);
    }
    // A URL for it is about, and writes something else.
    let other = sqlx::query(
        "SELECT 1 FROM announced WHERE attempt = ? AND output = ? AND part = ? AND (size <> ? OR sha256 <> ?)",
    )
    .bind(claim.attempt.to_string())
    .bind(output)
    .bind(part.part)
    .bind(signed(part.size))
    .bind(part.sha256.as_slice())
    .fetch_optional(&mut *tx)
    .await?;
    if other.is_some() {
        return Ok(Recorded::Conflict);
    }
    let added = sqlx::query(
        "INSERT INTO parts (attempt, output, part, size, sha256) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(claim.attempt.to_string())
    .bind(output)
    .bind(part.part)
    .bind(signed(part.size))
    .bind(part.sha256.as_slice())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(if added.rows_affected() == 1 { Recorded::Done } else { Recorded::Conflict })
}

pub(super) async fn parts(
    store: &SqliteStore,
    attempt: AttemptId,
    output: u32,
) -> Result<Vec<Part>, StoreError> {
    let rows =
        sqlx::query("SELECT part, size, sha256 FROM parts WHERE attempt = ? AND output = ? ORDER BY part")
            .bind(attempt.to_string())
            .bind(output)
            .fetch_all(&store.readers)
            .await?;
    rows.iter().map(row::part).collect()
}
