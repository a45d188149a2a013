//! Several brokers on one database: whatever races, exactly one wins and nothing is counted twice.
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
use mpegflow_broker::conformance::store::{Made, end, lease_of, make, new_job, settle, submit};
use mpegflow_broker::model::{Claim, Clock as _, Part, Time};
use mpegflow_broker::plan::Settings;
use mpegflow_broker::secret::fresh_id;
use mpegflow_broker::state::{self, Ending, Snapshot};
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_broker::store::webhooks::{AttemptEnd, Webhooks as _};
use mpegflow_broker::store::{
    Canceled, Idempotency, LeaseIs, Leased, NewLease, Note, Once, Recorded, Settled, Store, Submitted,
};
use mpegflow_protocol::api::{EventKind, JobState};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{JobId, MessageId, PoolName, TaskId, WebhookId, WorkerId};
use mpegflow_protocol::webhook::DeliveryState;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Two brokers, each with a pool of its own.
async fn two() -> (postgres::Database, [Arc<PostgresStore>; 2]) {
    let database = postgres::database().await;
    let stores = [Arc::new(database.store().await), Arc::new(database.store().await)];
    (database, stores)
}

/// Calls `f` that often at once, on either broker in turn.
async fn race<T, F>(
    stores: &[Arc<PostgresStore>; 2],
    n: usize,
    f: impl Fn(Arc<PostgresStore>, usize) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let calls = (0..n).map(|i| tokio::spawn(f(Arc::clone(&stores[i % 2]), i)));
    join_all(calls).await.into_iter().map(|done| done.unwrap()).collect()
}

fn count<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter().filter(|t| *t == one).count()
}

fn failed() -> Ending {
    Ending::Failed { failure: Failure::new(FailureCode::InputCorrupt, "x"), evidence: None }
}

fn asked(store: &PostgresStore, task: TaskId, worker: WorkerId) -> NewLease {
    lease_of(task, worker, store.clock().now())
}

async fn leased(store: &PostgresStore, task: TaskId, worker: WorkerId) -> Claim {
    match store.lease(&asked(store, task, worker)).await.unwrap() {
        Leased::Granted(attempt) => attempt.claim,
        other => panic!("not granted: {other:?}"),
    }
}

async fn workers(store: &PostgresStore, n: usize) -> Vec<WorkerId> {
    let workers: Vec<WorkerId> = (0..n).map(|_| fresh_id()).collect();
    for worker in &workers {
        store.add_worker(*worker, &PoolName::default(), Time(1), Time(0)).await.unwrap();
    }
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_tasks_is_leased_once_whoever_asks() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(submit(&*stores[0], &made).await.1);
    }
    let workers = workers(&stores[0], 64).await;
    let granted = race(&stores, 64, |store, i| {
        let new = asked(&store, tasks[i % 8], workers[i]);
        async move { matches!(store.lease(&new).await.unwrap(), Leased::Granted(_)).then_some(new.task) }
    })
    .await;
    for task in &tasks {
        assert_eq!(count(&granted, &Some(*task)), 1, "{granted:?}");
    }
    let events = stores[1].events(made.tenant, None, 0, 100).await.unwrap();
    assert_eq!(events.iter().filter(|e| e.kind == EventKind::TaskStarted).count(), 8);
    assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq), "gapless: {events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_no_more_than_it_may_hold_and_one_tenants_alone() {
    let (_database, stores) = two().await;
    let (a, b) = (make(&*stores[0], "a").await, make(&*stores[0], "b").await);
    let mut tasks = Vec::new();
    for i in 0..24 {
        tasks.push(submit(&*stores[0], if i % 2 == 0 { &a } else { &b }).await.1);
    }
    let answers = race(&stores, 24, |store, i| {
        let new = NewLease { most: 3, ..asked(&store, tasks[i], a.worker) };
        async move { store.lease(&new).await.unwrap() }
    })
    .await;
    let tenants: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Leased::Granted(attempt) => Some(attempt.tenant),
            _ => None,
        })
        .collect();
    assert_eq!(tenants.len(), 3, "{tenants:?}");
    assert!(tenants.windows(2).all(|pair| pair[0] == pair[1]), "{tenants:?}");
    assert_eq!(stores[1].live_of_worker(a.worker).await.unwrap(), 3);
    assert_eq!(stores[1].worker(a.worker).await.unwrap().unwrap().tenant, Some(tenants[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_ends_once_whether_completed_failed_released_or_canceled() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    for round in 0..10 {
        let (job, task) = submit(&*stores[0], &made).await;
        let claim = leased(&stores[0], task, made.worker).await;
        // One in eight cancels the job, the others end the attempt.
        let ended = race(&stores, 32, |store, i| async move {
            let now = store.clock().now();
            if i % 8 == round % 8 {
                store.cancel(made.tenant, job, None, now).await.unwrap();
                return false;
            }
            let ending = if i % 3 == 0 { failed() } else { Ending::Released };
            matches!(settle(&*store, &claim, LeaseIs::Held, now, &ending).await, Settled::Done(_))
        })
        .await;
        assert_eq!(count(&ended, &true), 1, "round {round}");
        let view = stores[1].job(made.tenant, job).await.unwrap().unwrap();
        assert!(
            matches!(view.job.state, JobState::Failed | JobState::Canceled),
            "nothing is left over: {:?}",
            view.job.state
        );
        let events = stores[1].events(made.tenant, Some(job), 0, 100).await.unwrap();
        assert_eq!(events.iter().filter(|e| e.kind == EventKind::Finished).count(), 1, "{events:?}");
        assert_eq!(events.last().unwrap().state, view.job.state);
        assert_eq!(stores[0].live_of_worker(made.worker).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_lease_never_leave_a_canceled_job_at_work() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    for round in 0..20 {
        let (job, task) = submit(&*stores[0], &made).await;
        let worker = workers(&stores[0], 1).await[0];
        let answers = race(&stores, 2, |store, i| async move {
            let now = store.clock().now();
            if (i + round) % 2 == 0 {
                matches!(store.lease(&lease_of(task, worker, now)).await.unwrap(), Leased::Granted(_))
            } else {
                store.cancel(made.tenant, job, None, now).await.unwrap() == Once::Done(Canceled::Soon)
            }
        })
        .await;
        let state = stores[0].job(made.tenant, job).await.unwrap().unwrap().job.state;
        let live = stores[0].live_of_worker(worker).await.unwrap();
        match answers.as_slice() {
            [true, true] => assert_eq!((state, live), (JobState::Canceling, 1), "leased first"),
            [false, false] => assert_eq!((state, live), (JobState::Canceled, 0), "canceled first"),
            other => panic!("{other:?} {state:?} {live}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_a_hundred_times_at_once_makes_one_job() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    let answers = race(&stores, 100, |store, _| async move {
        let once = Idempotency { key: "k".into(), request: [1; 32] };
        store.submit(&new_job(&made), Some(&once), store.clock().now()).await.unwrap()
    })
    .await;
    assert_eq!(count(&answers, &Once::Done(Submitted::Created)), 1);
    assert_eq!(count(&answers, &Once::Replay(b"the job".to_vec())), 99);
    assert_eq!(stores[0].jobs(made.tenant, None, None, 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_against_everyone_at_once() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    let answers = race(&stores, 40, |store, _| async move {
        let mut job = new_job(&made);
        job.max_unfinished = 5;
        store.submit(&job, None, store.clock().now()).await.unwrap()
    })
    .await;
    assert_eq!(count(&answers, &Once::Done(Submitted::Created)), 5);
    assert_eq!(count(&answers, &Once::Done(Submitted::TooMany)), 35);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_recorded_once_and_never_after_the_end() {
    let (database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    for _ in 0..10 {
        let (_, task) = submit(&*stores[0], &made).await;
        let claim = leased(&stores[0], task, made.worker).await;
        let recorded = race(&stores, 9, |store, i| async move {
            let now = store.clock().now();
            if i == 8 {
                settle(&*store, &claim, LeaseIs::Held, now, &failed()).await;
                return None;
            }
            let part = Part { part: 0, size: 1, sha256: [0; 32] };
            Some(store.record_part(&claim, 0, &part, now).await.unwrap())
        })
        .await;
        assert!(count(&recorded, &Some(Recorded::Done)) <= 1, "{recorded:?}");
    }
    stores[0].garbage(&[], 1).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM parts")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(rows, 0, "none outlives its attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_the_part_that_is_being_recorded() {
    let (database, [store, other]) = two().await;
    let made = make(&*store, "a").await;
    let (_, task) = submit(&*store, &made).await;
    let claim = leased(&store, task, made.worker).await;
    // Somebody has inserted the same part and not committed: recording it has to wait, half-way.
    let mut conn = database.connect().await;
    let blocker = format!("BEGIN; INSERT INTO parts VALUES ('{}', 0, 0, 1, '')", claim.attempt);
    sqlx::Executor::execute(&mut conn, sqlx::AssertSqlSafe(blocker)).await.unwrap();
    let recording = tokio::spawn(async move {
        let part = Part { part: 0, size: 1, sha256: [0; 32] };
        other.record_part(&claim, 0, &part, Time(0)).await.unwrap()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ender = Arc::clone(&store);
    let ending =
        tokio::spawn(
            async move { settle(&*ender, &claim, LeaseIs::Held, ender.clock().now(), &failed()).await },
        );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ending.is_finished(), "the attempt does not end under the part");
    sqlx::Executor::execute(&mut conn, "ROLLBACK").await.unwrap();
    assert_eq!(recording.await.unwrap(), Recorded::Done);
    assert!(matches!(ending.await.unwrap(), Settled::Done(_)));
    // The statement that ended it began before the part was there; the sweep sees it.
    store.garbage(&[], 1).await.unwrap();
    assert_eq!(store.parts(claim.attempt, 0).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_a_delivery_and_the_deletion_of_its_webhook_do_not_wait_for_each_other() {
    let (database, [store, _]) = two().await;
    let made = make(&*store, "a").await;
    let (webhook, delivery): (WebhookId, MessageId) = (fresh_id(), fresh_id());
    let job: JobId = fresh_id();
    let mut conn = database.connect().await;
    let rows = format!(
        "INSERT INTO webhooks (id, tenant, url, types, cursor, secrets, created_at)
            VALUES ('{webhook}', '{}', 'https://a.example/', '', 0, '[]', 0);
         INSERT INTO deliveries (id, webhook, type, job, body, state, attempts, next_at, created_at)
            VALUES ('{delivery}', '{webhook}', 'job.created', '{}', '{{}}', 'pending', 1, 0, 0)",
        made.tenant, job
    );
    sqlx::Executor::execute(&mut conn, sqlx::AssertSqlSafe(rows)).await.unwrap();
    // Whoever deletes it has the webhook, and does not have its messages yet; if the two waited for each other, this one would
    // notice first.
    let lock = format!(
        "SET deadlock_timeout = '10ms'; BEGIN; SELECT id FROM webhooks WHERE id = '{webhook}' FOR UPDATE"
    );
    sqlx::Executor::execute(&mut conn, sqlx::AssertSqlSafe(lock)).await.unwrap();
    let ender = Arc::clone(&store);
    let ending = tokio::spawn(async move {
        let end = AttemptEnd {
            state: DeliveryState::Delivered,
            next_at: Time(0),
            status: Some(200),
            error: None,
            disable: None,
        };
        ender.end_attempt(delivery, 1, &end, Time(1)).await.unwrap()
    });
    let mut watching = database.connect().await;
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut watching).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let delete = format!(
        "DELETE FROM deliveries WHERE webhook = '{webhook}'; DELETE FROM webhooks WHERE id = '{webhook}'; COMMIT"
    );
    sqlx::Executor::execute(&mut conn, sqlx::AssertSqlSafe(delete)).await.unwrap();
    assert!(!ending.await.unwrap(), "there is none any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_on_what_has_changed_since_is_made_again() {
    let (_database, [store, other]) = two().await;
    let made = make(&*store, "a").await;
    let (job, task) = submit(&*store, &made).await;
    let claim = leased(&store, task, made.worker).await;
    let now = store.clock().now();
    let seen = std::sync::Mutex::new(Vec::new());
    let decide = |snapshot: &Snapshot| {
        seen.lock().unwrap().push(snapshot.job.state);
        if snapshot.job.state == JobState::Running {
            // Between what was read and what is to be written the job is canceled.
            tokio::task::block_in_place(|| {
                let cancel = other.cancel(made.tenant, job, None, now);
                let canceled = tokio::runtime::Handle::current().block_on(cancel).unwrap();
                assert_eq!(canceled, Once::Done(Canceled::Soon));
            });
        }
        state::decide(snapshot, &Ending::Released, now, Settings::default())
    };
    let settled = store.settle(end(&claim, LeaseIs::Held, now), &decide).await.unwrap();
    let Settled::Done(outcome) = settled else { panic!("{settled:?}") };
    assert_eq!(*seen.lock().unwrap(), [JobState::Running, JobState::Canceling]);
    assert_eq!((outcome.state, outcome.ready), (JobState::Canceled, None));
    assert_eq!(store.job(made.tenant, job).await.unwrap().unwrap().job.state, JobState::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_at_once_are_answered_each_with_its_own() {
    let (_database, stores) = two().await;
    let made = make(&*stores[0], "a").await;
    let workers = workers(&stores[0], 50).await;
    let mut claims = Vec::new();
    for worker in &workers {
        let (_, task) = submit(&*stores[0], &made).await;
        claims.push(leased(&stores[0], task, *worker).await);
    }
    let answers = race(&stores, 200, |store, i| {
        let claim = claims[i % 50];
        // Every fourth is a forgery: another epoch.
        let claim = if i % 4 == 3 { Claim { epoch: claim.epoch + 1, ..claim } } else { claim };
        async move { (i, store.renew_lease(&claim, Time(0), 60_000).await.unwrap()) }
    })
    .await;
    let now = stores[0].database_time().await.unwrap();
    for (i, answer) in answers {
        match answer {
            None => assert_eq!(i % 4, 3, "{i}"),
            Some((state, deadline)) => {
                assert_eq!((i % 4 == 3, state), (false, JobState::Running), "{i}");
                assert!((50_000..=60_000).contains(&now.until_ms(deadline)), "{i}: {deadline:?} at {now:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_live_on_the_databases_time_whatever_a_brokers_clock_says() {
    let (_database, [right, wrong]) = two().await;
    let made: Made = make(&*right, "a").await;
    let hour = 3_600_000;
    let (_, task) = submit(&*right, &made).await;
    // The second broker is an hour ahead, then an hour behind; its leases are as long as anybody's.
    let ahead = right.clock().now().plus_ms(hour);
    let behind = right.clock().now().minus_ms(hour);
    let new = NewLease { lease_ms: 1_500, ..lease_of(task, made.worker, ahead) };
    let Leased::Granted(attempt) = wrong.lease(&new).await.unwrap() else { panic!("not granted") };
    let left = right.database_time().await.unwrap().until_ms(attempt.deadline);
    assert!((500..=1_500).contains(&left), "{left}");
    let claim = attempt.claim;
    for now in [ahead, behind] {
        assert_eq!(wrong.expired(now).await.unwrap(), []);
        let lost = Ending::Lost { overdue: false };
        assert_eq!(settle(&*wrong, &claim, LeaseIs::RunOut, now, &lost).await, Settled::Stale);
        assert!(wrong.renew_lease(&claim, now, 1_500).await.unwrap().is_some());
    }
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    for now in [ahead, behind] {
        assert!(wrong.renew_lease(&claim, now, 1_500).await.unwrap().is_none(), "run out");
        assert_eq!(settle(&*wrong, &claim, LeaseIs::Held, now, &failed()).await, Settled::Stale);
        let part = Part { part: 0, size: 1, sha256: [0; 32] };
        assert_eq!(wrong.record_part(&claim, 0, &part, now).await.unwrap(), Recorded::Stale);
        assert_eq!(wrong.expired(now).await.unwrap().iter().map(|e| e.claim).collect::<Vec<_>>(), [claim]);
    }
    let lost = Ending::Lost { overdue: false };
    let now = right.clock().now();
    assert!(matches!(settle(&*right, &claim, LeaseIs::RunOut, now, &lost).await, Settled::Done(_)));
    // The paused worker wakes: a later epoch is at work, and the old one changes nothing.
    let again = leased(&right, task, made.worker).await;
    assert!(again.epoch > claim.epoch);
    assert_eq!(settle(&*wrong, &claim, LeaseIs::Held, ahead, &failed()).await, Settled::Stale);
    assert!(right.live_attempt(&again).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_holds_each_task_that_became_ready_until_it_is_told() {
    let (_database, [store, other]) = two().await;
    let made = make(&*store, "a").await;
    let (_, task) = submit(&*store, &made).await;
    let claim = leased(&store, task, made.worker).await;
    assert!(matches!(
        settle(&*store, &claim, LeaseIs::Held, store.clock().now(), &Ending::Released).await,
        Settled::Done(_)
    ));
    let noted = other.outbox(10).await.unwrap();
    let tasks: Vec<_> = noted.iter().map(|note| note.ready.as_ref().map(|ready| ready.task)).collect();
    assert_eq!(tasks, [Some(task), Some(task)], "submitted, and given back");
    other.relayed(&[noted[0].id]).await.unwrap();
    assert_eq!(store.outbox(10).await.unwrap(), noted[1..]);
    leased(&store, task, made.worker).await;
    let stale = Note { ready: None, ..noted[1].clone() };
    assert_eq!(store.outbox(10).await.unwrap(), [stale], "what is not ready any more is not told");
}
