//! Jobs and events.

use super::conn::{Conn, Connector};
use super::{PostgresStore, chain, intake, sql, uploads};
use crate::model::{JobRecord, JobView, ManifestEntry, Stage, StoredEvent, TaskRecord, Time, Tries};
use crate::store::row::{self, Cells, json, kind, ordinal, plan_json, signed, word};
use crate::store::{Canceled, Idempotency, NewJob, Once, StoreError, Submitted};
use mpegflow_protocol::api::{EventKind, JobState};
use mpegflow_protocol::ids::{JobId, TenantId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sorts after every job's id.
const AFTER_ALL: &str = "job_~";

pub(super) async fn submit(
    store: &PostgresStore,
    new: &NewJob,
    once: Option<&Idempotency>,
    now: Time,
) -> Result<Once<Submitted>, StoreError> {
    // The tenant's lock makes the quota exact and lets a repetition wait for the first.
    let mut conn = uploads::lock_tenant(store, new.tenant).await?;
    if let Some(seen) = uploads::seen(store, &mut conn, new.tenant, once).await? {
        return Ok(seen);
    }
    if let Some(arrival) = &new.arrival {
        match intake::is_new(store, &mut conn, new.tenant, arrival).await? {
            None => return Ok(Once::Done(Submitted::NoRule)),
            Some(false) => return Ok(Once::Done(Submitted::Known)),
            Some(true) => {}
        }
    }
    let size = match new.object_size {
        Some(size) => {
            let query = store.sql(sql::QUARANTINED_INPUT).bind(new.upload.to_string());
            if query.fetch_optional(&mut conn).await?.is_some() {
                return Ok(Once::Done(Submitted::Quarantined));
            }
            size
        }
        None => {
            let query = store.sql(sql::UPLOAD).bind(new.tenant.to_string()).bind(new.upload.to_string());
            let upload = query.fetch_optional(&mut conn).await?;
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
    let most = i64::from(new.max_unfinished);
    let unfinished =
        store.sql(sql::UNFINISHED).bind(new.tenant.to_string()).bind(most).fetch_one(&mut conn).await?;
    if Cells::of("jobs", &unfinished).number("n")? >= u64::from(new.max_unfinished) {
        return Ok(Once::Done(Submitted::TooMany));
    }
    if let Some(path) = &new.path {
        let query = store.sql(sql::JOB_AT).bind(new.tenant.to_string()).bind(path);
        if let Some(other) = query.fetch_optional(&mut conn).await? {
            return Ok(Once::Done(Submitted::PathTaken(Cells::of("jobs", &other).id("id")?)));
        }
    }
    store
        .sql(sql::SUBMIT)
        .bind(new.id.to_string())
        .bind(new.tenant.to_string())
        .bind(new.upload.to_string())
        .bind(signed(size))
        .bind(json(&new.spec))
        .bind(new.pool.as_str())
        .bind(now.0)
        .bind(json(&Stage::default()))
        .bind(new.task_id.to_string())
        .bind(kind(&new.task))
        .bind(ordinal(&new.task))
        .bind(plan_json(&new.task))
        .bind(signed(new.task.wall_ms))
        .bind(json(&Tries::default()))
        .bind(i64::from(new.spec.priority.0))
        .bind(new.path.as_deref())
        .bind(new.trace.map(|trace| trace.to_string()))
        .execute(&mut conn)
        .await?;
    if let Some(arrival) = &new.arrival {
        intake::keep(store, &mut conn, arrival, Some(new.id), now).await?;
    }
    uploads::keep(store, &mut conn, new.tenant, once, &new.answer, now).await?;
    conn.done().await?;
    Ok(Once::Done(Submitted::Created))
}

pub(super) async fn at(
    store: &PostgresStore,
    tenant: TenantId,
    path: &str,
) -> Result<Option<JobId>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::JOB_AT).bind(tenant.to_string()).bind(path).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.map(|row| Cells::of("jobs", &row).id("id")).transpose()
}

/// Tasks of the jobs, each job's in order.
pub(super) async fn tasks_of(
    connector: &Connector,
    conn: &mut Conn,
    jobs: &[JobId],
) -> Result<Vec<(JobId, TaskRecord)>, StoreError> {
    let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
    let rows = connector.sql(sql::TASKS).bind(ids).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((Cells::of("tasks", row).id("job")?, row::task(row)?))).collect()
}

async fn views(
    store: &PostgresStore,
    conn: &mut Conn,
    jobs: Vec<JobRecord>,
) -> Result<Vec<JobView>, StoreError> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let mut tasks: HashMap<JobId, Vec<TaskRecord>> = HashMap::new();
    for (job, task) in tasks_of(&store.connector, conn, &ids).await? {
        tasks.entry(job).or_default().push(task);
    }
    let mut objects: HashMap<JobId, Vec<ManifestEntry>> = HashMap::new();
    let ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
    for row in &store.sql(sql::OBJECTS).bind(ids).fetch_all(conn).await? {
        objects.entry(Cells::of("objects", row).id("job")?).or_default().push(row::object(row)?);
    }
    let view = |job: JobRecord| JobView {
        tasks: tasks.remove(&job.id).unwrap_or_default(),
        objects: objects.remove(&job.id).unwrap_or_default(),
        job,
    };
    Ok(jobs.into_iter().map(view).collect())
}

pub(super) async fn get(
    store: &PostgresStore,
    tenant: TenantId,
    id: JobId,
) -> Result<Option<JobView>, StoreError> {
    // The job, its tasks and its objects are of one moment.
    let mut conn = store.snapshot().await?;
    let query = store.sql(sql::JOB).bind(tenant.to_string()).bind(id.to_string());
    let job = query.fetch_optional(&mut conn).await?.as_ref().map(row::job).transpose()?;
    let view = views(store, &mut conn, job.into_iter().collect()).await?.pop();
    conn.done().await?;
    Ok(view)
}

pub(super) async fn list(
    store: &PostgresStore,
    tenant: TenantId,
    state: Option<JobState>,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobView>, StoreError> {
    let mut conn = store.snapshot().await?;
    let before = after.map_or_else(|| AFTER_ALL.to_owned(), |id| id.to_string());
    let statement = if state.is_some() { sql::JOBS_IN_STATE } else { sql::JOBS };
    let mut query = store.sql(statement).bind(tenant.to_string()).bind(before).bind(i64::from(limit));
    if let Some(state) = state {
        query = query.bind(state.as_str());
    }
    let rows = query.fetch_all(&mut conn).await?;
    let jobs = rows.iter().map(row::job).collect::<Result<_, _>>()?;
    let views = views(store, &mut conn, jobs).await?;
    conn.done().await?;
    Ok(views)
}

pub(super) async fn cancel(
    store: &PostgresStore,
    tenant: TenantId,
    id: JobId,
    once: Option<&Idempotency>,
    now: Time,
) -> Result<Once<Canceled>, StoreError> {
    let mut conn = uploads::lock_tenant(store, tenant).await?;
    if let Some(seen) = uploads::seen(store, &mut conn, tenant, once).await? {
        return Ok(seen);
    }
    let query = store.sql(sql::LOCK_JOB).bind(tenant.to_string()).bind(id.to_string());
    let Some(job) = query.fetch_optional(&mut conn).await?.as_ref().map(row::job).transpose()? else {
        return Ok(Once::Done(Canceled::NotFound));
    };
    if job.state.is_final() {
        return Ok(Once::Done(Canceled::AlreadyFinal(job.state)));
    }
    // After the lock, which every lease of this job's tasks takes too.
    let count = store.sql(sql::RUNNING).bind(id.to_string()).fetch_one(&mut conn).await?;
    let running = Cells::of("tasks", &count).number("n")? > 0;
    let (state, kind) = if running {
        (JobState::Canceling, EventKind::Canceling)
    } else {
        (JobState::Canceled, EventKind::Finished)
    };
    if job.state != state {
        store
            .sql(sql::CANCEL)
            .bind(id.to_string())
            .bind(state.as_str())
            .bind((!running).then_some(now.0))
            .bind(word(&kind))
            .bind(now.0)
            .execute(&mut conn)
            .await?;
    }
    uploads::keep(store, &mut conn, tenant, once, b"", now).await?;
    conn.done().await?;
    Ok(Once::Done(if running { Canceled::Soon } else { Canceled::Now }))
}

pub(super) async fn events(
    store: &PostgresStore,
    tenant: TenantId,
    job: Option<JobId>,
    after: u64,
    limit: u32,
) -> Result<Vec<StoredEvent>, StoreError> {
    chain::catch_up(store, tenant).await?;
    let statement = if job.is_some() { sql::EVENTS_OF_JOB } else { sql::EVENTS };
    let mut query = store.sql(statement).bind(tenant.to_string()).bind(signed(after)).bind(i64::from(limit));
    if let Some(job) = job {
        query = query.bind(job.to_string());
    }
    let mut conn = store.conn().await?;
    let rows = query.fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(row::event).collect()
}

pub(super) async fn last_event(store: &PostgresStore, tenant: TenantId) -> Result<u64, StoreError> {
    chain::catch_up(store, tenant).await?;
    let mut conn = store.conn().await?;
    let row = store.sql(sql::LAST_EVENT).bind(tenant.to_string()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.map_or(Ok(0), |row| Cells::of("chains", &row).number("seq"))
}

/// A count of all jobs reads all of them. One that took long holds for twenty times as long, so that it costs a twentieth of one
/// connection's time at most, however often metrics are asked for and however many jobs there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted(Arc<tokio::sync::Mutex<Option<(Instant, Counts)>>>);

/// How many jobs are in each state.
type Counts = Vec<(JobState, u64)>;

/// A count that is faster than this is made each time.
const QUICK: Duration = Duration::from_millis(50);

pub(super) async fn count(store: &PostgresStore) -> Result<Vec<(JobState, u64)>, StoreError> {
    // Who asks while a count is under way gets that one.
    let mut counted = store.counted.0.lock().await;
    let began = Instant::now();
    if let Some((until, jobs)) = &*counted
        && *until > began
    {
        return Ok(jobs.clone());
    }
    let jobs = count_now(store).await?;
    let took = began.elapsed();
    let until = if took < QUICK { None } else { began.checked_add(took.saturating_mul(20)) };
    *counted = until.map(|until| (until, jobs.clone()));
    Ok(jobs)
}

async fn count_now(store: &PostgresStore) -> Result<Vec<(JobState, u64)>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::COUNT_JOBS).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("jobs", row);
            Ok((cells.word("state")?, cells.number("n")?))
        })
        .collect()
}
