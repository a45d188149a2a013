//! Jobs and events.

use super::{SqliteStore, Tx, intake, uploads};
use crate::model::{JobRecord, JobView, NewTask, Stage, StoredEvent, TaskRecord, Time, Tries};
use crate::state;
use crate::store::row::{self, Cells, json, kind, ordinal, plan_json, signed, word};
use crate::store::{Canceled, Idempotency, NewJob, Once, StoreError, Submitted};
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::ids::{JobId, PoolName, TaskId, TenantId};
use mpegflow_protocol::job::Priority;

const UNFINISHED: &str =
    "SELECT count(*) AS n FROM jobs WHERE tenant = ? AND state IN ('queued', 'running', 'canceling')";

const AT: &str = "SELECT id FROM jobs WHERE tenant = ? AND path = ? AND state NOT IN ('failed', 'canceled')";

pub(super) async fn at(
    store: &SqliteStore,
    tenant: TenantId,
    path: &str,
) -> Result<Option<JobId>, StoreError> {
    let row = sqlx::query(AT).bind(tenant.to_string()).bind(path).fetch_optional(&store.readers).await?;
    row.map(|row| Cells::of("jobs", &row).id("id")).transpose()
}

pub(super) async fn submit(
    store: &SqliteStore,
    new: &NewJob,
    once: Option<&Idempotency>,
    now: Time,
) -> Result<Once<Submitted>, StoreError> {
    let mut tx = store.write().await?;
    if let Some(seen) = uploads::seen(&mut tx, new.tenant, once).await? {
        return Ok(seen);
    }
    if let Some(arrival) = &new.arrival {
        match intake::is_new(&mut tx, new.tenant, arrival).await? {
            None => return Ok(Once::Done(Submitted::NoRule)),
            Some(false) => return Ok(Once::Done(Submitted::Known)),
            Some(true) => {}
        }
    }
    let size = match new.object_size {
        Some(size) => {
            let quarantined = sqlx::query("SELECT 1 FROM quarantined_inputs WHERE input = ?")
                .bind(new.upload.to_string())
                .fetch_optional(&mut *tx)
                .await?;
            if quarantined.is_some() {
                return Ok(Once::Done(Submitted::Quarantined));
            }
            size
        }
        None => {
            let upload = sqlx::query("SELECT * FROM uploads WHERE id = ? AND tenant = ?")
                .bind(new.upload.to_string())
                .bind(new.tenant.to_string())
                .fetch_optional(&mut *tx)
                .await?;
            let Some(upload) = upload.as_ref().map(row::upload).transpose()? else {
                return Ok(Once::Done(Submitted::NoUpload));
            };
            if !upload.is_finished() {
                return Ok(Once::Done(Submitted::Unfinished));
            }
            if upload.quarantined {
                return Ok(Once::Done(Submitted::Quarantined));
            }
            upload.size
        }
    };
    let unfinished = sqlx::query(UNFINISHED).bind(new.tenant.to_string()).fetch_one(&mut *tx).await?;
    if Cells::of("jobs", &unfinished).number("n")? >= u64::from(new.max_unfinished) {
        return Ok(Once::Done(Submitted::TooMany));
    }
    if let Some(path) = &new.path
        && let Some(other) =
            sqlx::query(AT).bind(new.tenant.to_string()).bind(path).fetch_optional(&mut *tx).await?
    {
        return Ok(Once::Done(Submitted::PathTaken(Cells::of("jobs", &other).id("id")?)));
    }
    sqlx::query(
        "INSERT INTO jobs (id, tenant, upload, input_size, spec, pool, state, created_at, path, trace)
         VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
    )
    .bind(new.id.to_string())
    .bind(new.tenant.to_string())
    .bind(new.upload.to_string())
    .bind(signed(size))
    .bind(json(&new.spec))
    .bind(new.pool.as_str())
    .bind(now.0)
    .bind(new.path.as_deref())
    .bind(new.trace.map(|trace| trace.to_string()))
    .execute(&mut *tx)
    .await?;
    add_task(&mut tx, new.task_id, new.id, new.tenant, &new.pool, &new.task, new.spec.priority, now).await?;
    add_event(&mut tx, new.tenant, new.id, EventKind::Created, JobState::Queued, Stage::default(), None, now)
        .await?;
    if let Some(arrival) = &new.arrival {
        intake::keep(&mut tx, arrival, Some(new.id), now).await?;
    }
    uploads::keep(&mut tx, new.tenant, once, &new.answer, now).await?;
    tx.commit().await?;
    Ok(Once::Done(Submitted::Created))
}

#[expect(clippy::too_many_arguments, reason = "one argument for each column")]
pub(super) async fn add_task(
    tx: &mut Tx,
    id: TaskId,
    job: JobId,
    tenant: TenantId,
    pool: &PoolName,
    task: &NewTask,
    priority: Priority,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tasks (id, job, tenant, pool, kind, ordinal, plan, state, tries, not_before, priority)
         VALUES (?, ?, ?, ?, ?, ?, ?, 'ready', ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(job.to_string())
    .bind(tenant.to_string())
    .bind(pool.as_str())
    .bind(kind(task))
    .bind(ordinal(task))
    .bind(plan_json(task))
    .bind(json(&Tries::default()))
    .bind(now.0)
    .bind(priority.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one argument for each column")]
pub(super) async fn add_event(
    tx: &mut Tx,
    tenant: TenantId,
    job: JobId,
    kind: EventKind,
    state: JobState,
    stage: Stage,
    failure: Option<&Failure>,
    now: Time,
) -> Result<(), StoreError> {
    let row = sqlx::query("UPDATE tenants SET event_seq = event_seq + 1 WHERE id = ? RETURNING event_seq")
        .bind(tenant.to_string())
        .fetch_one(&mut **tx)
        .await?;
    sqlx::query("INSERT INTO events (tenant, seq, job, kind, state, stage, failure, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(tenant.to_string())
        .bind(signed(Cells::of("tenants", &row).number("event_seq")?))
        .bind(job.to_string())
        .bind(word(&kind))
        .bind(state.as_str())
        .bind(json(&stage))
        .bind(failure.map(json))
        .bind(now.0)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn tasks_of(
    tx: &mut sqlx::SqliteConnection,
    job: JobId,
) -> Result<Vec<TaskRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM tasks WHERE job = ? ORDER BY ordinal")
        .bind(job.to_string())
        .fetch_all(tx)
        .await?;
    rows.iter().map(row::task).collect()
}

pub(super) async fn job_of(
    tx: &mut sqlx::SqliteConnection,
    job: JobId,
) -> Result<Option<JobRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ? AND deleted_at IS NULL")
        .bind(job.to_string())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(row::job).transpose()
}

async fn view(tx: &mut sqlx::SqliteConnection, job: JobRecord) -> Result<JobView, StoreError> {
    let tasks = tasks_of(tx, job.id).await?;
    let rows = sqlx::query("SELECT * FROM objects WHERE job = ? ORDER BY position")
        .bind(job.id.to_string())
        .fetch_all(tx)
        .await?;
    let objects = rows.iter().map(row::object).collect::<Result<_, _>>()?;
    Ok(JobView { job, tasks, objects })
}

pub(super) async fn get(
    store: &SqliteStore,
    tenant: TenantId,
    id: JobId,
) -> Result<Option<JobView>, StoreError> {
    // A transaction, so that the job, its tasks and its objects are of one moment.
    let mut tx = store.readers.begin().await?;
    match job_of(&mut tx, id).await? {
        Some(job) if job.tenant == tenant => Ok(Some(view(&mut tx, job).await?)),
        _ => Ok(None),
    }
}

pub(super) async fn list(
    store: &SqliteStore,
    tenant: TenantId,
    state: Option<JobState>,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobView>, StoreError> {
    let mut tx = store.readers.begin().await?;
    let rows = sqlx::query(
        "SELECT * FROM jobs WHERE tenant = ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR id < ?3) AND deleted_at IS NULL
         ORDER BY id DESC LIMIT ?4",
    )
    .bind(tenant.to_string())
    .bind(state.map(JobState::as_str))
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in &rows {
        views.push(view(&mut tx, row::job(row)?).await?);
    }
    Ok(views)
}

pub(super) async fn cancel(
    store: &SqliteStore,
    tenant: TenantId,
    id: JobId,
    once: Option<&Idempotency>,
    now: Time,
) -> Result<Once<Canceled>, StoreError> {
    let mut tx = store.write().await?;
    if let Some(seen) = uploads::seen(&mut tx, tenant, once).await? {
        return Ok(seen);
    }
    let job = match job_of(&mut tx, id).await? {
        Some(job) if job.tenant == tenant => job,
        _ => return Ok(Once::Done(Canceled::NotFound)),
    };
    if job.state.is_final() {
        return Ok(Once::Done(Canceled::AlreadyFinal(job.state)));
    }
    let tasks = tasks_of(&mut tx, id).await?;
    let running = tasks.iter().any(|t| t.state == TaskState::Running);
    let (state, kind) = if running {
        (JobState::Canceling, EventKind::Canceling)
    } else {
        (JobState::Canceled, EventKind::Finished)
    };
    if job.state != state {
        sqlx::query("UPDATE jobs SET state = ?, finished_at = ? WHERE id = ? AND state = ?")
            .bind(state.as_str())
            .bind((!running).then_some(now.0))
            .bind(id.to_string())
            .bind(job.state.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE tasks SET state = 'canceled' WHERE job = ? AND state IN ('ready', 'waiting')")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        add_event(&mut tx, tenant, id, kind, state, state::stage(&tasks), None, now).await?;
    }
    uploads::keep(&mut tx, tenant, once, b"", now).await?;
    tx.commit().await?;
    Ok(Once::Done(if running { Canceled::Soon } else { Canceled::Now }))
}

pub(super) async fn events(
    store: &SqliteStore,
    tenant: TenantId,
    job: Option<JobId>,
    after: u64,
    limit: u32,
) -> Result<Vec<StoredEvent>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM events WHERE tenant = ?1 AND seq > ?2 AND (?3 IS NULL OR job = ?3) ORDER BY seq LIMIT ?4",
    )
    .bind(tenant.to_string())
    .bind(signed(after))
    .bind(job.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(&store.readers)
    .await?;
    rows.iter().map(row::event).collect()
}

pub(super) async fn last_event(store: &SqliteStore, tenant: TenantId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT event_seq FROM tenants WHERE id = ?")
        .bind(tenant.to_string())
        .fetch_optional(&store.readers)
        .await?;
    row.map_or(Ok(0), |row| Cells::of("tenants", &row).number("event_seq"))
}

pub(super) async fn count(store: &SqliteStore) -> Result<Vec<(JobState, u64)>, StoreError> {
    let rows = sqlx::query("SELECT state, count(*) AS n FROM jobs WHERE deleted_at IS NULL GROUP BY state")
        .fetch_all(&store.readers)
        .await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("jobs", row);
            Ok((cells.word("state")?, cells.number("n")?))
        })
        .collect()
}
