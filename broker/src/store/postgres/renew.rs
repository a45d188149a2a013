//! Renewals in batches: whatever is asked for while one statement is under way goes into the next one, so that a thousand
//! workers' heartbeats cost a few statements a second and none of them waits for a timer.

use super::conn::Connector;
use super::sql;
use crate::model::{Claim, Time};
use crate::store::StoreError;
use crate::store::row::{Cells, signed};
use mpegflow_protocol::api::JobState;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Renewals in one statement.
const BATCH: usize = 512;

/// The job's state and the new deadline; `None` where the lease is over.
pub(super) type Renewed = Option<(JobState, Time)>;

#[derive(Debug)]
struct Ask {
    claim: Claim,
    lease_ms: u64,
    at: Option<i64>,
    answer: oneshot::Sender<Result<Renewed, StoreError>>,
}

/// Where renewals are handed in. The task behind it ends with the last clone of this.
#[derive(Debug, Clone)]
pub(super) struct Renewals(mpsc::Sender<Ask>);

impl Renewals {
    pub(super) fn start(connector: Arc<Connector>) -> Self {
        let (asks, mut asked) = mpsc::channel::<Ask>(BATCH);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while asked.recv_many(&mut batch, BATCH).await > 0 {
                answer(&connector, std::mem::take(&mut batch)).await;
            }
        });
        Self(asks)
    }

    pub(super) async fn renew(
        &self,
        claim: Claim,
        at: Option<i64>,
        lease_ms: u64,
    ) -> Result<Renewed, StoreError> {
        let gone = || StoreError::Database(Box::new(sqlx::Error::PoolClosed));
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { claim, lease_ms, at, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn answer(connector: &Arc<Connector>, batch: Vec<Ask>) {
    // The same claim twice in one batch is one renewal with two answers.
    let mut wanted: HashMap<Claim, (u64, Option<i64>, Vec<oneshot::Sender<_>>)> = HashMap::new();
    for ask in batch {
        let entry = wanted.entry(ask.claim).or_insert((0, None, Vec::new()));
        entry.0 = entry.0.max(ask.lease_ms);
        entry.1 = entry.1.max(ask.at);
        entry.2.push(ask.answer);
    }
    let renewed = run(connector, &wanted).await.map_err(Arc::new);
    for (claim, (_, _, answers)) in wanted {
        for answer in answers {
            let told = match &renewed {
                Ok(renewed) => Ok(renewed.get(&claim).copied()),
                Err(e) => Err(StoreError::Database(Box::new(Arc::clone(e)))),
            };
            // Who asked may have gone.
            let _ = answer.send(told);
        }
    }
}

async fn run<T>(
    connector: &Arc<Connector>,
    wanted: &HashMap<Claim, (u64, Option<i64>, T)>,
) -> Result<HashMap<Claim, (JobState, Time)>, StoreError> {
    let asked = || wanted.iter();
    let mut conn = connector.conn().await?;
    let rows = connector
        .sql(sql::RENEW)
        .bind(asked().map(|(claim, _)| claim.attempt.to_string()).collect::<Vec<_>>())
        .bind(asked().map(|(claim, _)| claim.worker.to_string()).collect::<Vec<_>>())
        .bind(asked().map(|(claim, _)| signed(claim.epoch)).collect::<Vec<_>>())
        .bind(asked().map(|(_, (lease_ms, _, _))| signed(*lease_ms)).collect::<Vec<_>>())
        .bind(asked().map(|(_, (_, at, _))| *at).collect::<Vec<_>>())
        .fetch_all(&mut conn)
        .await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("leases", row);
            let claim = Claim {
                attempt: cells.id("attempt")?,
                worker: cells.id("worker")?,
                epoch: cells.number("epoch")?,
            };
            Ok((claim, (cells.word("job_state")?, cells.time("deadline")?)))
        })
        .collect()
}
