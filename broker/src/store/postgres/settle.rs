//! The end of an attempt: what the decision needs is read without a lock, and one statement applies it if the job is still at
//! the version that was read and the lease is still as it has to be.

use super::{PostgresStore, jobs, sql};
use crate::model::{Claim, ManifestEntry, ReadyTask, TaskRecord, Time, Tries};
use crate::queue::RunningTask;
use crate::state::{self, Decision, JobMove, Snapshot, TaskMove};
use crate::store::row::{self, Cells, json, ordinal, plan_json, signed, word};
use crate::store::{Decide, LeaseIs, Outcome, Settled, StoreError};
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::ids::{PoolName, TaskId};

/// Moves of the same job that may come in between. Each try that fails is a move of another attempt that succeeded, so this
/// bounds the work, not the luck.
const TRIES: u32 = 64;

/// One job was moved by others more often than anything explains.
#[derive(Debug, thiserror::Error)]
#[error("the job was moved {TRIES} times while an attempt at it was to end")]
struct Contended;

pub(super) async fn settle(
    store: &PostgresStore,
    claim: &Claim,
    evidence: Option<&Evidence>,
    lease: LeaseIs,
    now: Time,
    next_task: TaskId,
    decide: Decide<'_>,
) -> Result<Settled, StoreError> {
    for _ in 0..TRIES {
        let Some(read) = read(store, claim).await? else { return Ok(Settled::Stale) };
        let decision = decide(&read.snapshot);
        let move_ = Move { claim, evidence, lease, now, next_task, read: &read, decision: &decision };
        match apply(store, &move_).await? {
            Applied::Done => {
                let Read { snapshot, pool, .. } = read;
                let (job, tenant) = (snapshot.job.id, snapshot.job.tenant);
                let ready = match (&decision.job, &decision.task) {
                    (JobMove::Next { .. }, _) => Some((next_task, now)),
                    (_, TaskMove::Retry { not_before, .. }) => Some((snapshot.task.id, *not_before)),
                    _ => None,
                };
                let priority = snapshot.job.spec.priority.0;
                let ended = RunningTask { task: snapshot.task.id, tenant, pool: pool.clone() };
                let ready =
                    ready.map(|(task, not_before)| ReadyTask { task, tenant, pool, priority, not_before });
                let state = decision.job_state(snapshot.job.state);
                return Ok(Settled::Done(Box::new(Outcome { ended, job, tenant, state, ready, decision })));
            }
            Applied::Stale => return Ok(Settled::Stale),
            Applied::Moved => {}
        }
    }
    Err(StoreError::Database(Box::new(Contended)))
}

/// What was read, at one version of the job.
struct Read {
    snapshot: Snapshot,
    version: u64,
    pool: PoolName,
}

async fn read(store: &PostgresStore, claim: &Claim) -> Result<Option<Read>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store
        .sql(sql::SETTLING)
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let cells = Cells::of("jobs", &row);
    let job = row::job(&row)?;
    let task_id: TaskId = cells.id("task")?;
    // Later than the job: if it has moved in between, its version has too, and what is decided here is thrown away.
    let tasks = jobs::tasks_of(store, &mut conn, &[job.id]).await?;
    conn.done().await?;
    let tasks: Vec<TaskRecord> = tasks.into_iter().map(|(_, task)| task).collect();
    let task = tasks.iter().find(|t| t.id == task_id).cloned();
    let task = task.ok_or_else(|| StoreError::Row { table: "tasks", reason: "missing".into() })?;
    Ok(Some(Read {
        version: cells.number("version")?,
        pool: cells.pool("pool")?,
        snapshot: Snapshot { job, tasks, task, attempt: claim.attempt },
    }))
}

enum Applied {
    Done,
    /// The lease is over, or not as it has to be.
    Stale,
    /// The job has moved since it was read.
    Moved,
}

struct Move<'a> {
    claim: &'a Claim,
    evidence: Option<&'a Evidence>,
    lease: LeaseIs,
    now: Time,
    next_task: TaskId,
    read: &'a Read,
    decision: &'a Decision,
}

async fn apply(store: &PostgresStore, m: &Move<'_>) -> Result<Applied, StoreError> {
    let (decision, snapshot, now) = (m.decision, &m.read.snapshot, m.now);
    let before = snapshot.job.state;
    let after = decision.job_state(before);
    let failure = decision.failure.as_ref().map(json);
    let task = TaskColumns::of(&decision.task);
    let (mut job_failure, mut quarantined, mut media, mut next, mut manifest) =
        (None, false, None, None, [].as_slice());
    match &decision.job {
        JobMove::Stay | JobMove::Cancel => {}
        JobMove::Next { task, media: found } => {
            next = Some(task);
            media = found.as_ref().map(json);
        }
        JobMove::Commit(entries) => manifest = entries.as_slice(),
        JobMove::Probed(found) => media = Some(json(found)),
        JobMove::Fail { failure, quarantine } => {
            job_failure = Some(json(failure));
            quarantined = *quarantine;
        }
    }
    let (kinds, states, failures) = told(decision, before, after);
    let entry = |f: fn(&ManifestEntry) -> String| manifest.iter().map(f).collect::<Vec<_>>();
    let number = |f: fn(&ManifestEntry) -> i64| manifest.iter().map(f).collect::<Vec<_>>();

    let mut conn = store.conn().await?;
    let row = store
        .sql(sql::SETTLE)
        .bind(snapshot.job.id.to_string())
        .bind(signed(m.read.version))
        .bind(m.claim.attempt.to_string())
        .bind(m.claim.worker.to_string())
        .bind(signed(m.claim.epoch))
        .bind(store.at(now))
        .bind(m.lease == LeaseIs::RunOut)
        .bind(decision.attempt_state().as_str())
        .bind(now.0)
        .bind(&failure)
        .bind(m.evidence.map(json))
        .bind(task.state)
        .bind(task.not_before)
        .bind(task.memory_class)
        .bind(task.tries)
        .bind(if matches!(decision.task, TaskMove::Succeed { .. }) { None } else { failure.as_ref() })
        .bind(task.result)
        .bind(task.digests)
        .bind(task.evidence)
        .bind(after.as_str())
        .bind(job_failure)
        .bind(after.is_final().then_some(now.0))
        .bind(media)
        .bind(json(&state::stage(&after_move(snapshot, decision))))
        .bind(quarantined)
        .bind(next.map(|_| m.next_task.to_string()))
        .bind(next.map(|t| t.kind.as_str()))
        .bind(next.map(|t| ordinal(t.kind)))
        .bind(next.map(|t| plan_json(t)))
        .bind(next.map(|t| signed(t.wall_ms)))
        .bind(json(&Tries::default()))
        .bind(entry(|e| e.name.clone()))
        .bind(entry(|e| e.attempt.to_string()))
        .bind(number(|e| i64::from(e.output)))
        .bind(number(|e| signed(e.size)))
        .bind(number(|e| i64::from(e.parts)))
        .bind(entry(|e| e.digest.clone()))
        .bind(entry(|e| e.content_type.clone()))
        .bind(kinds)
        .bind(states)
        .bind(failures)
        .bind(i64::from(snapshot.job.spec.priority.0))
        .fetch_one(&mut *conn)
        .await?;
    conn.done().await?;
    let cells = Cells::of("jobs", &row);
    Ok(match (cells.number("current")?, cells.number("fenced")?) {
        (0, _) => Applied::Moved,
        (_, 0) => Applied::Stale,
        _ => Applied::Done,
    })
}

/// The columns of a task that a move sets; what is `None` stays.
#[derive(Default)]
struct TaskColumns {
    state: &'static str,
    not_before: Option<i64>,
    memory_class: Option<i64>,
    tries: Option<String>,
    result: Option<String>,
    digests: Option<String>,
    evidence: Option<String>,
}

impl TaskColumns {
    fn of(task: &TaskMove) -> Self {
        match task {
            TaskMove::Succeed { result, outputs, evidence } => Self {
                state: "succeeded",
                result: Some(json(result)),
                digests: Some(json(outputs)),
                evidence: Some(json(evidence)),
                ..Self::default()
            },
            TaskMove::Retry { not_before, memory_class, tries } => Self {
                state: "ready",
                not_before: Some(not_before.0),
                memory_class: Some(i64::from(*memory_class)),
                tries: Some(json(tries)),
                ..Self::default()
            },
            TaskMove::Fail => Self { state: "failed", ..Self::default() },
            TaskMove::Cancel => Self { state: "canceled", ..Self::default() },
        }
    }
}

/// The events of a decision as columns: kinds, the job's states after them, failures.
fn told(
    decision: &Decision,
    before: JobState,
    after: JobState,
) -> (Vec<String>, Vec<&'static str>, Vec<Option<String>>) {
    let (mut kinds, mut states, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, failure) in decision.events() {
        kinds.push(word(&kind));
        states.push(if kind == EventKind::Finished { after.as_str() } else { before.as_str() });
        failures.push(failure.as_ref().map(json));
    }
    (kinds, states, failures)
}

/// The tasks as the decision leaves them, as far as a stage looks at them.
fn after_move(snapshot: &Snapshot, decision: &Decision) -> Vec<TaskRecord> {
    let mut tasks = snapshot.tasks.clone();
    if let TaskMove::Succeed { result, .. } = &decision.task
        && let Some(task) = tasks.iter_mut().find(|t| t.id == snapshot.task.id)
    {
        task.state = TaskState::Succeeded;
        task.result = Some((**result).clone());
    }
    tasks
}
