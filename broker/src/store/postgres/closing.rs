//! What the ends of attempts are decided from, for those that end at about the same time in two reads.

use super::conn::Connector;
use super::together::Statement;
use super::{jobs, sql};
use crate::model::{Claim, LiveAttempt, Part, TaskRecord};
use crate::state::Snapshot;
use crate::store::row::{self, Cells, signed};
use crate::store::{Closing, Known, StoreError};
use mpegflow_protocol::ids::{AttemptId, JobId, TaskId};
use sqlx::postgres::PgRow;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads before the ends of attempts.
#[derive(Debug)]
pub(super) struct Closings;

impl Statement for Closings {
    type Ask = Claim;
    type Answer = Option<Closing>;

    fn keys(ask: &Claim) -> impl IntoIterator<Item = u128> {
        [ask.attempt.as_u128()]
    }

    async fn at_once(
        connector: &Arc<Connector>,
        asks: &[Claim],
    ) -> Result<Vec<Result<Option<Closing>, StoreError>>, StoreError> {
        let mut conn = connector.conn().await?;
        let rows = connector
            .sql(sql::SETTLING)
            .bind(asks.iter().map(|claim| claim.attempt.to_string()).collect::<Vec<_>>())
            .bind(asks.iter().map(|claim| claim.worker.to_string()).collect::<Vec<_>>())
            .bind(asks.iter().map(|claim| signed(claim.epoch)).collect::<Vec<_>>())
            .fetch_all(&mut conn)
            .await?;
        let (mut live, mut ids, mut parted) = (HashMap::new(), Vec::new(), Vec::new());
        for row in &rows {
            let cells = Cells::of("leases", row);
            let attempt: AttemptId = cells.id("attempt")?;
            ids.push(cells.id("id")?);
            if cells.flag("parted")? {
                parted.push(attempt.to_string());
            }
            live.insert(attempt, row);
        }
        // Later than the jobs: if one has moved in between, its version has too, and what is decided here is thrown away.
        let mut tasks: HashMap<JobId, Vec<TaskRecord>> = HashMap::new();
        if !ids.is_empty() {
            for (job, task) in jobs::tasks_of(connector, &mut conn, &ids).await? {
                tasks.entry(job).or_default().push(task);
            }
        }
        let mut parts: HashMap<AttemptId, Vec<(u32, Part)>> = HashMap::new();
        if !parted.is_empty() {
            for row in &connector.sql(sql::PARTS_OF).bind(parted).fetch_all(&mut conn).await? {
                let cells = Cells::of("parts", row);
                parts
                    .entry(cells.id("attempt")?)
                    .or_default()
                    .push((cells.small("output")?, row::part(row)?));
            }
        }
        conn.done().await?;
        let mut answer = |claim: &Claim| {
            let Some(row) = live.get(&claim.attempt) else { return Ok(None) };
            let parts = parts.remove(&claim.attempt).unwrap_or_default();
            closing(claim, row, &tasks, parts).map(Some)
        };
        Ok(asks.iter().map(&mut answer).collect())
    }
}

fn closing(
    claim: &Claim,
    row: &PgRow,
    tasks: &HashMap<JobId, Vec<TaskRecord>>,
    parts: Vec<(u32, Part)>,
) -> Result<Closing, StoreError> {
    let cells = Cells::of("jobs", row);
    let job = row::job(row)?;
    let id: TaskId = cells.id("task")?;
    let tasks = tasks.get(&job.id).cloned().unwrap_or_default();
    let task = tasks.iter().find(|task| task.id == id).cloned();
    let task = task.ok_or_else(|| StoreError::Row { table: "tasks", reason: "missing".into() })?;
    Ok(Closing {
        attempt: LiveAttempt {
            claim: *claim,
            tenant: job.tenant,
            job: job.id,
            job_state: job.state,
            pool: job.pool.clone(),
            trace: job.trace,
            task: task.clone(),
            deadline: cells.time("deadline")?,
            hard_deadline: cells.time("hard_deadline")?,
        },
        parts,
        known: Some(Box::new(Known {
            version: cells.number("version")?,
            snapshot: Snapshot { job, tasks, task, attempt: claim.attempt },
        })),
    })
}
