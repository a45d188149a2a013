//! Leases, those that are asked for at about the same time in one statement and one commit.

use super::conn::Connector;
use super::sql;
use super::together::Statement;
use crate::model::{Claim, LiveAttempt, WorkerRecord};
use crate::store::row::{self, Cells, signed};
use crate::store::{Leased, NewLease, StoreError};
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::ids::{AttemptId, TenantId, WorkerId};
use sqlx::postgres::PgRow;
use std::collections::HashMap;
use std::sync::Arc;

/// Who asks for work, and how much it has.
#[derive(Debug)]
pub(super) struct Asking;

impl Statement for Asking {
    type Ask = WorkerId;
    type Answer = Option<(WorkerRecord, u32)>;

    fn keys(_: &WorkerId) -> impl IntoIterator<Item = u128> {
        []
    }

    async fn at_once(
        connector: &Arc<Connector>,
        asks: &[WorkerId],
    ) -> Result<Vec<Result<Self::Answer, StoreError>>, StoreError> {
        let mut conn = connector.conn().await?;
        let ids: Vec<String> = asks.iter().map(WorkerId::to_string).collect();
        let rows = connector.sql(sql::WORKERS).bind(ids).fetch_all(&mut conn).await?;
        conn.done().await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let record = row::worker(row)?;
            found.insert(record.id, (record, Cells::of("workers", row).small("live")?));
        }
        Ok(asks.iter().map(|id| Ok(found.get(id).cloned())).collect())
    }
}

/// A lease that is asked for, and the time that it lives on in place of the database's.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseAsk {
    pub(super) new: NewLease,
    pub(super) at: Option<i64>,
}

/// Leases.
#[derive(Debug)]
pub(super) struct Leases;

impl Statement for Leases {
    type Ask = LeaseAsk;
    type Answer = Leased;

    fn keys(ask: &LeaseAsk) -> impl IntoIterator<Item = u128> {
        [ask.new.task.as_u128(), ask.new.worker.as_u128()]
    }

    async fn at_once(
        connector: &Arc<Connector>,
        asks: &[LeaseAsk],
    ) -> Result<Vec<Result<Leased, StoreError>>, StoreError> {
        fn of<T>(asks: &[LeaseAsk], f: impl Fn(&LeaseAsk) -> T) -> Vec<T> {
            asks.iter().map(f).collect()
        }
        let mut conn = connector.conn().await?;
        let rows = connector
            .sql(sql::LEASE)
            .bind(of(asks, |a| a.new.task.to_string()))
            .bind(of(asks, |a| a.new.worker.to_string()))
            .bind(of(asks, |a| a.new.attempt.to_string()))
            .bind(of(asks, |a| a.at))
            .bind(of(asks, |a| signed(a.new.lease_ms)))
            .bind(of(asks, |a| i64::from(a.new.most)))
            .bind(of(asks, |a| a.new.now.0))
            .fetch_all(&mut conn)
            .await?;
        conn.done().await?;
        let mut found: HashMap<AttemptId, &PgRow> = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert(Cells::of("tasks", row).id("asked")?, row);
        }
        let answer = |ask: &LeaseAsk| {
            found.get(&ask.new.attempt).map_or(Ok(Leased::Gone), |row| leased(&ask.new, row))
        };
        Ok(asks.iter().map(answer).collect())
    }
}

fn leased(new: &NewLease, row: &PgRow) -> Result<Leased, StoreError> {
    let cells = Cells::of("tasks", row);
    if cells.text_or_null("id")?.is_none() {
        // As the row stood when the statement began: who loses a race may hear the other reason, which changes nothing.
        let bound: Option<TenantId> = cells.id_or_null("worker_tenant")?;
        let other = bound.is_some_and(|bound| cells.id("task_tenant").ok() != Some(bound));
        return Ok(if other { Leased::OtherTenant } else { Leased::TooMany });
    }
    let task = row::task(row)?;
    Ok(Leased::Granted(Box::new(LiveAttempt {
        claim: Claim { attempt: new.attempt, worker: new.worker, epoch: task.epoch },
        tenant: cells.id("tenant")?,
        job: cells.id("job")?,
        job_state: JobState::Running,
        pool: cells.pool("pool")?,
        trace: cells.trace("trace")?,
        task,
        deadline: cells.time("deadline")?,
        hard_deadline: cells.time("hard_deadline")?,
    })))
}
