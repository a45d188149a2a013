//! Leases and ends of attempts that come at the same time are one statement; each of them still stands for itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/postgres.rs"]
mod postgres;

use futures_util::future::join_all;
use mpegflow_broker::conformance::store::{end, lease_of, make, submit};
use mpegflow_broker::model::{Claim, Clock as _, Time};
use mpegflow_broker::plan::Settings;
use mpegflow_broker::secret::fresh_id;
use mpegflow_broker::state::{self, Ending, Snapshot};
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_broker::store::{LeaseIs, Leased, Settled, Store, StoreError};
use mpegflow_protocol::api::EventKind;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{PoolName, TaskId, WorkerId};

const MANY: usize = 40;

async fn workers(store: &PostgresStore, n: usize) -> Vec<WorkerId> {
    let workers: Vec<WorkerId> = (0..n).map(|_| fresh_id()).collect();
    for worker in &workers {
        store.add_worker(*worker, &PoolName::default(), Time(1), Time(0)).await.unwrap();
    }
    workers
}

async fn fail(store: &PostgresStore, claim: &Claim) -> Result<Settled, StoreError> {
    let now = store.clock().now();
    let ending = Ending::Failed { failure: Failure::new(FailureCode::InputCorrupt, "x"), evidence: None };
    let decide = |snapshot: &Snapshot| state::decide(snapshot, &ending, now, Settings::default());
    store.settle(end(claim, LeaseIs::Held, now), &decide).await
}

async fn count(database: &postgres::Database, what: &str) -> i64 {
    let mut conn = database.connect().await;
    let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {what}"));
    sqlx::Row::get(&sqlx::Executor::fetch_one(&mut conn, query).await.unwrap(), 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_spoils_neither_the_leases_nor_the_ends_beside_it() {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    let workers = workers(&store, MANY).await;
    let mut tasks = Vec::new();
    for _ in 0..MANY {
        tasks.push(submit(&store, &made).await.1);
    }
    // The statement that moves this task fails, and with it everything that is in the same statement.
    database.execute(&format!("UPDATE tasks SET tries = 'no JSON' WHERE id = '{}'", tasks[7])).await;
    let now = store.clock().now();
    let leases = tasks.iter().zip(&workers).map(|(task, worker)| {
        let new = lease_of(*task, *worker, now);
        let store = &store;
        async move { store.lease(&new).await }
    });
    let mut claims = Vec::new();
    for (n, leased) in join_all(leases).await.into_iter().enumerate() {
        match leased {
            Ok(Leased::Granted(attempt)) if n != 7 => {
                assert_eq!((attempt.task.id, attempt.claim.worker), (tasks[n], workers[n]), "its own answer");
                claims.push(attempt.claim);
            }
            Err(StoreError::Database(_)) if n == 7 => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(claims.len(), MANY - 1);
    assert_eq!(count(&database, "leases").await, MANY as i64 - 1);
    assert_eq!(count(&database, "workers WHERE live = 1").await, MANY as i64 - 1);

    // A worker whose count is wrong cannot be freed: the check on the column refuses that one end.
    database.execute(&format!("UPDATE workers SET live = 0 WHERE id = '{}'", claims[3].worker)).await;
    let ends = join_all(claims.iter().map(|claim| fail(&store, claim))).await;
    for (n, ended) in ends.into_iter().enumerate() {
        match ended {
            Ok(Settled::Done(_)) if n != 3 => {}
            Err(StoreError::Database(_)) if n == 3 => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(count(&database, "leases").await, 1);
    let events = store.events(made.tenant, None, 0, 1_000).await.unwrap();
    let of = |kind: EventKind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((of(EventKind::TaskStarted), of(EventKind::Finished)), (MANY - 1, MANY - 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_a_forged_and_a_true_end_at_once_are_each_told_apart() {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    let workers = workers(&store, MANY).await;
    let mut claims = Vec::new();
    for worker in &workers {
        let task: TaskId = submit(&store, &made).await.1;
        let Leased::Granted(attempt) =
            store.lease(&lease_of(task, *worker, store.clock().now())).await.unwrap()
        else {
            panic!("not granted")
        };
        claims.push(attempt.claim);
    }
    // Every third attempt has a forged epoch, every fourth somebody else's worker.
    let claims: Vec<Claim> = claims
        .iter()
        .enumerate()
        .map(|(n, claim)| match n {
            n if n % 3 == 0 => Claim { epoch: claim.epoch + 1, ..*claim },
            n if n % 4 == 1 => Claim { worker: workers[(n + 1) % MANY], ..*claim },
            _ => *claim,
        })
        .collect();
    let ended = join_all(claims.iter().map(|claim| fail(&store, claim))).await;
    let mut done = 0;
    for (n, ended) in ended.into_iter().enumerate() {
        let is_true = n % 3 != 0 && n % 4 != 1;
        assert_eq!(matches!(ended.unwrap(), Settled::Done(_)), is_true, "{n}");
        done += i64::from(is_true);
    }
    assert_eq!(count(&database, "leases").await, MANY as i64 - done);
    assert_eq!(count(&database, "jobs WHERE state = 'failed'").await, done);
    assert_eq!(
        count(&database, "workers WHERE live = 0").await,
        done + 1,
        "and the one that nothing was leased to"
    );
    // Again: what has ended stays ended.
    for ended in join_all(claims.iter().map(|claim| fail(&store, claim))).await {
        assert_eq!(ended.unwrap(), Settled::Stale);
    }
}
