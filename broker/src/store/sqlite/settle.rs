//! The end of an attempt: one compare-and-set, and everything that follows from it.

use super::{SqliteStore, Tx, jobs};
use crate::model::{Claim, ManifestEntry, ReadyTask, Time};
use crate::queue::RunningTask;
use crate::state::{self, Decision, JobMove, ProbedInput, Snapshot, TaskMove};
use crate::store::row::{Cells, json, signed};
use crate::store::{Decide, End, LeaseIs, Outcome, Settled, StoreError};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::ids::{JobId, PoolName, TaskId, TenantId};

pub(super) async fn settle(
    store: &SqliteStore,
    end: End<'_>,
    decide: Decide<'_>,
) -> Result<Settled, StoreError> {
    // What was known before is read again: this transaction alone writes, so nothing it reads can change.
    let End { claim, evidence, lease, now, next_task, known: _ } = end;
    let mut tx = store.write().await?;
    let row = sqlx::query(
        "SELECT a.task, a.job, a.tenant, t.pool, l.deadline
         FROM attempts a JOIN leases l ON l.attempt = a.id JOIN tasks t ON t.id = a.task AND t.epoch = a.epoch
         WHERE a.id = ? AND a.worker = ? AND a.epoch = ? AND a.state = 'live' AND t.state = 'running'",
    )
    .bind(claim.attempt.to_string())
    .bind(claim.worker.to_string())
    .bind(signed(claim.epoch))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Settled::Stale) };
    let cells = Cells::of("attempts", &row);
    let run_out = cells.time("deadline")? <= now;
    if run_out != (lease == LeaseIs::RunOut) {
        return Ok(Settled::Stale);
    }
    let (task_id, job_id, tenant): (TaskId, JobId, TenantId) =
        (cells.id("task")?, cells.id("job")?, cells.id("tenant")?);
    let pool = cells.pool("pool")?;
    let missing = |table| StoreError::Row { table, reason: "missing".into() };
    let job = jobs::job_of(&mut tx, job_id).await?.ok_or_else(|| missing("jobs"))?;
    let tasks = jobs::tasks_of(&mut tx, job_id).await?;
    let task = tasks.iter().find(|t| t.id == task_id).cloned().ok_or_else(|| missing("tasks"))?;
    let snapshot = Snapshot { job, tasks, task, attempt: claim.attempt };
    let decision = decide(&snapshot);

    let ended = RunningTask { task: task_id, tenant, pool: pool.clone() };
    end_attempt(&mut tx, claim, evidence, &decision, now).await?;
    let mut ready = move_task(
        &mut tx,
        &ended,
        snapshot.task.plan.priority(snapshot.job.spec.priority).0,
        claim,
        &decision,
    )
    .await?;
    if let Some(next) = move_job(&mut tx, &snapshot, &decision, &pool, next_task, now).await? {
        ready = Some(next);
    }
    let state = decision.job_state(snapshot.job.state);
    let stage = state::stage(&jobs::tasks_of(&mut tx, job_id).await?);
    for (kind, failure) in decision.events() {
        let ended = kind == mpegflow_protocol::api::EventKind::Finished;
        let told = if ended { state } else { snapshot.job.state };
        jobs::add_event(&mut tx, tenant, job_id, kind, told, stage, failure.as_ref(), now).await?;
    }
    tx.commit().await?;
    Ok(Settled::Done(Box::new(Outcome { ended, job: job_id, tenant, state, ready, decision })))
}

async fn end_attempt(
    tx: &mut Tx,
    claim: &Claim,
    evidence: Option<&Evidence>,
    decision: &Decision,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET state = ?, ended_at = ?, failure = ?, evidence = ? WHERE id = ? AND state = 'live'")
        .bind(decision.attempt_state().as_str())
        .bind(now.0)
        .bind(decision.failure.as_ref().map(json))
        .bind(evidence.map(json))
        .bind(claim.attempt.to_string())
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM leases WHERE attempt = ?")
        .bind(claim.attempt.to_string())
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM parts WHERE attempt = ?")
        .bind(claim.attempt.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn move_task(
    tx: &mut Tx,
    ended: &RunningTask,
    priority: u8,
    claim: &Claim,
    decision: &Decision,
) -> Result<Option<ReadyTask>, StoreError> {
    let task = ended.task;
    let failure = decision.failure.as_ref().map(json);
    match &decision.task {
        TaskMove::Succeed { result, outputs, evidence } => {
            sqlx::query(
                "UPDATE tasks SET state = 'succeeded', done_by = ?, result = ?, digests = ?, evidence = ? WHERE id = ?",
            )
            .bind(claim.attempt.to_string())
            .bind(json(result))
            .bind(json(outputs))
            .bind(json(evidence))
            .bind(task.to_string())
            .execute(&mut **tx)
            .await?;
            Ok(None)
        }
        TaskMove::Retry { not_before, memory_class, tries } => {
            sqlx::query(
                "UPDATE tasks SET state = 'ready', not_before = ?, memory_class = ?, tries = ?,
                 last_failure = coalesce(?, last_failure) WHERE id = ?",
            )
            .bind(not_before.0)
            .bind(memory_class)
            .bind(json(tries))
            .bind(failure)
            .bind(task.to_string())
            .execute(&mut **tx)
            .await?;
            let RunningTask { task, tenant, pool } = ended.clone();
            Ok(Some(ReadyTask { task, tenant, pool, priority, not_before: *not_before }))
        }
        TaskMove::Fail | TaskMove::Cancel => {
            let state = if matches!(decision.task, TaskMove::Fail) { "failed" } else { "canceled" };
            sqlx::query("UPDATE tasks SET state = ?, last_failure = coalesce(?, last_failure) WHERE id = ?")
                .bind(state)
                .bind(failure)
                .bind(task.to_string())
                .execute(&mut **tx)
                .await?;
            Ok(None)
        }
    }
}

async fn move_job(
    tx: &mut Tx,
    snapshot: &Snapshot,
    decision: &Decision,
    pool: &PoolName,
    next_task: TaskId,
    now: Time,
) -> Result<Option<ReadyTask>, StoreError> {
    let job = &snapshot.job;
    let mut ready = None;
    match &decision.job {
        JobMove::Stay => return Ok(None),
        JobMove::Next { task, probed } => {
            if let Some(probed) = probed {
                set_probed(tx, job.id, probed).await?;
            }
            let priority = task.priority(job.spec.priority);
            jobs::add_task(tx, next_task, job.id, job.tenant, pool, task, priority, now).await?;
            ready = Some(ReadyTask {
                task: next_task,
                tenant: job.tenant,
                pool: pool.clone(),
                priority: priority.0,
                not_before: now,
            });
            return Ok(ready);
        }
        JobMove::Commit(entries) => {
            for (position, entry) in (0_i64..).zip(entries) {
                add_object(tx, job.id, position, entry).await?;
            }
        }
        JobMove::Probed(probed) => set_probed(tx, job.id, probed).await?,
        JobMove::Fail { quarantine, .. } => {
            if *quarantine {
                let upload = sqlx::query("UPDATE uploads SET quarantined = 1 WHERE id = ?")
                    .bind(job.upload.to_string())
                    .execute(&mut **tx)
                    .await?;
                if upload.rows_affected() == 0 {
                    sqlx::query("INSERT INTO quarantined_inputs (input, tenant, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                        .bind(job.upload.to_string())
                        .bind(job.tenant.to_string())
                        .bind(now.0)
                        .execute(&mut **tx)
                        .await?;
                }
            }
        }
        JobMove::Cancel => {}
    }
    let failure = match &decision.job {
        JobMove::Fail { failure, .. } => Some(json(failure)),
        _ => None,
    };
    sqlx::query("UPDATE jobs SET state = ?, failure = ?, finished_at = ? WHERE id = ? AND state = ?")
        .bind(decision.job_state(job.state).as_str())
        .bind(failure)
        .bind(now.0)
        .bind(job.id.to_string())
        .bind(job.state.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(ready)
}

async fn set_probed(tx: &mut Tx, job: JobId, probed: &ProbedInput) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET media = ?, planned = ? WHERE id = ?")
        .bind(json(&probed.media))
        .bind(json(&probed.planned))
        .bind(job.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn add_object(tx: &mut Tx, job: JobId, position: i64, entry: &ManifestEntry) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO objects (job, name, position, attempt, output, size, parts, digest, content_type)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.to_string())
    .bind(&entry.name)
    .bind(position)
    .bind(entry.attempt.to_string())
    .bind(entry.output)
    .bind(signed(entry.size))
    .bind(entry.parts)
    .bind(&entry.digest)
    .bind(&entry.content_type)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
