//! The end of an attempt: what the decision needs is read without a lock, and one statement applies it if the job is still at
//! the version that was read and the lease is still as it has to be. Ends that come at about the same time are one statement.

use super::conn::Connector;
use super::together::{self, Statement};
use super::{PostgresStore, sql};
use crate::model::{Claim, ManifestEntry, ReadyTask, TaskRecord, Tries};
use crate::queue::RunningTask;
use crate::state::{self, Decision, JobMove, Snapshot, TaskMove};
use crate::store::row::{Cells, json, kind, ordinal, plan_json, signed, word};
use crate::store::{Decide, End, Known, LeaseIs, Outcome, Settled, StoreError};
use mpegflow_protocol::api::{EventKind, JobState, TaskState};
use mpegflow_protocol::ids::AttemptId;
use std::collections::HashMap;
use std::sync::Arc;

/// Moves of the same job that may come in between. Each try that fails is a move of another attempt that succeeded, so this
/// bounds the work, not the luck.
const TRIES: u32 = 64;

/// One job was moved by others more often than anything explains.
#[derive(Debug, thiserror::Error)]
#[error("the job was moved {TRIES} times while an attempt at it was to end")]
struct Contended;

pub(super) async fn settle(
    store: &PostgresStore,
    mut end: End<'_>,
    decide: Decide<'_>,
) -> Result<Settled, StoreError> {
    for _ in 0..TRIES {
        let known = match end.known.take() {
            Some(known) => known,
            None => match together::ask(&store.closings, *end.claim).await?.and_then(|closing| closing.known)
            {
                Some(known) => known,
                None => return Ok(Settled::Stale),
            },
        };
        let decision = decide(&known.snapshot);
        match together::ask(&store.ends, change(store, &end, &known, &decision)).await? {
            Applied::Done => return Ok(Settled::Done(Box::new(outcome(&end, &known.snapshot, decision)))),
            Applied::Stale => return Ok(Settled::Stale),
            Applied::Moved => {}
        }
    }
    Err(StoreError::Database(Box::new(Contended)))
}

fn outcome(end: &End<'_>, snapshot: &Snapshot, decision: Decision) -> Outcome {
    let (job, tenant, pool) = (snapshot.job.id, snapshot.job.tenant, snapshot.job.pool.clone());
    let ready = match (&decision.job, &decision.task) {
        (JobMove::Next { task, .. }, _) => Some((end.next_task, end.now, &**task)),
        (_, TaskMove::Retry { not_before, .. }) => Some((snapshot.task.id, *not_before, &snapshot.task.plan)),
        _ => None,
    };
    let ended = RunningTask { task: snapshot.task.id, tenant, pool: pool.clone() };
    let ready = ready.map(|(task, not_before, plan)| {
        let priority = plan.priority(snapshot.job.spec.priority).0;
        ReadyTask { task, tenant, pool, priority, not_before }
    });
    let state = decision.job_state(snapshot.job.state);
    Outcome { ended, job, tenant, state, ready, decision }
}

/// What became of one end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Applied {
    Done,
    /// The lease is over, or not as it has to be.
    Stale,
    /// The job has moved since it was read.
    Moved,
}

/// The row of one end, as [`sql::SETTLE`] takes it.
#[derive(Debug)]
pub(super) struct Change {
    claim: Claim,
    job: mpegflow_protocol::ids::JobId,
    version: i64,
    at: Option<i64>,
    run_out: bool,
    attempt_state: &'static str,
    now: i64,
    failure: Option<String>,
    evidence: Option<String>,
    task: TaskColumns,
    last_failure: Option<String>,
    job_state: &'static str,
    job_failure: Option<String>,
    finished_at: Option<i64>,
    media: Option<String>,
    planned: Option<String>,
    stage: String,
    quarantined: bool,
    next: Option<Next>,
    priority: i64,
    manifest: Vec<ManifestEntry>,
    events: Vec<Told>,
}

#[derive(Debug)]
struct Next {
    id: String,
    kind: String,
    ordinal: i64,
    plan: String,
    wall_ms: i64,
}

/// An event: its kind, the job's state after it, and a failure.
type Told = (String, &'static str, Option<String>);

fn change(store: &PostgresStore, end: &End<'_>, known: &Known, decision: &Decision) -> Change {
    let (snapshot, now) = (&known.snapshot, end.now);
    let before = snapshot.job.state;
    let after = decision.job_state(before);
    let failure = decision.failure.as_ref().map(json);
    let (mut job_failure, mut quarantined, mut probed, mut next, mut manifest) =
        (None, false, None, None, [].as_slice());
    match &decision.job {
        JobMove::Stay | JobMove::Cancel => {}
        JobMove::Next { task, probed: found } => {
            next = Some(task);
            probed = found.as_ref();
        }
        JobMove::Commit(entries) => manifest = entries.as_slice(),
        JobMove::Probed(found) => probed = Some(found),
        JobMove::Fail { failure, quarantine } => {
            job_failure = Some(json(failure));
            quarantined = *quarantine;
        }
    }
    Change {
        claim: *end.claim,
        job: snapshot.job.id,
        version: signed(known.version),
        at: store.at(now),
        run_out: end.lease == LeaseIs::RunOut,
        attempt_state: decision.attempt_state().as_str(),
        now: now.0,
        evidence: end.evidence.map(json),
        task: TaskColumns::of(&decision.task),
        last_failure: if matches!(decision.task, TaskMove::Succeed { .. }) { None } else { failure.clone() },
        failure,
        job_state: after.as_str(),
        job_failure,
        finished_at: after.is_final().then_some(now.0),
        media: probed.map(|found| json(&found.media)),
        planned: probed.map(|found| json(&found.planned)),
        stage: json(&state::stage(&after_move(snapshot, decision))),
        quarantined,
        next: next.map(|task| Next {
            id: end.next_task.to_string(),
            kind: kind(task),
            ordinal: ordinal(task),
            plan: plan_json(task),
            wall_ms: signed(task.wall_ms),
        }),
        priority: i64::from(
            next.map_or(snapshot.job.spec.priority, |n| n.priority(snapshot.job.spec.priority)).0,
        ),
        manifest: manifest.to_vec(),
        events: told(decision, before, after),
    }
}

/// Ends of attempts.
#[derive(Debug)]
pub(super) struct Ends;

impl Statement for Ends {
    type Ask = Change;
    type Answer = Applied;

    fn keys(ask: &Change) -> impl IntoIterator<Item = u128> {
        [ask.job.as_u128(), ask.claim.worker.as_u128()]
    }

    async fn at_once(
        connector: &Arc<Connector>,
        asks: &[Change],
    ) -> Result<Vec<Result<Applied, StoreError>>, StoreError> {
        fn of<'a, T>(asks: &'a [Change], f: impl Fn(&'a Change) -> T) -> Vec<T> {
            asks.iter().map(f).collect()
        }
        fn flat<'a, E: 'a, T>(
            asks: &'a [Change],
            each: impl Fn(&'a Change) -> &'a [E],
            f: impl Fn(&'a Change, usize, &'a E) -> T,
        ) -> Vec<T> {
            let rows =
                asks.iter().flat_map(|ask| each(ask).iter().enumerate().map(move |(n, e)| (ask, n, e)));
            rows.map(|(ask, n, e)| f(ask, n, e)).collect()
        }
        fn next<'a, T>(asks: &'a [Change], f: impl Fn(&'a Next) -> T) -> Vec<Option<T>> {
            asks.iter().map(|a| a.next.as_ref().map(&f)).collect()
        }
        let by = |ask: &Change| ask.claim.attempt.to_string();
        let tries = json(&Tries::default());
        let mut conn = connector.conn().await?;
        let rows = connector
            .sql(sql::SETTLE)
            .bind(of(asks, |a| a.job.to_string()))
            .bind(of(asks, |a| a.version))
            .bind(of(asks, |a| a.claim.attempt.to_string()))
            .bind(of(asks, |a| a.claim.worker.to_string()))
            .bind(of(asks, |a| signed(a.claim.epoch)))
            .bind(of(asks, |a| a.at))
            .bind(of(asks, |a| a.run_out))
            .bind(of(asks, |a| a.attempt_state))
            .bind(of(asks, |a| a.now))
            .bind(of(asks, |a| a.failure.as_deref()))
            .bind(of(asks, |a| a.evidence.as_deref()))
            .bind(of(asks, |a| a.task.state))
            .bind(of(asks, |a| a.task.not_before))
            .bind(of(asks, |a| a.task.memory_class))
            .bind(of(asks, |a| a.task.tries.as_deref()))
            .bind(of(asks, |a| a.last_failure.as_deref()))
            .bind(of(asks, |a| a.task.result.as_deref()))
            .bind(of(asks, |a| a.task.digests.as_deref()))
            .bind(of(asks, |a| a.task.evidence.as_deref()))
            .bind(of(asks, |a| a.job_state))
            .bind(of(asks, |a| a.job_failure.as_deref()))
            .bind(of(asks, |a| a.finished_at))
            .bind(of(asks, |a| a.media.as_deref()))
            .bind(of(asks, |a| a.stage.as_str()))
            .bind(of(asks, |a| a.quarantined))
            .bind(next(asks, |n| n.id.as_str()))
            .bind(next(asks, |n| n.kind.as_str()))
            .bind(next(asks, |n| n.ordinal))
            .bind(next(asks, |n| n.plan.as_str()))
            .bind(next(asks, |n| n.wall_ms))
            .bind(next(asks, |_| tries.as_str()))
            .bind(of(asks, |a| a.priority))
            .bind(flat(asks, |a| &a.manifest, |a, _, _| by(a)))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| e.name.as_str()))
            .bind(flat(asks, |a| &a.manifest, |_, n, _| i64::try_from(n).unwrap_or(i64::MAX)))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| e.attempt.to_string()))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| i64::from(e.output)))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| signed(e.size)))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| i64::from(e.parts)))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| e.digest.as_str()))
            .bind(flat(asks, |a| &a.manifest, |_, _, e| e.content_type.as_str()))
            .bind(flat(asks, |a| &a.events, |a, _, _| by(a)))
            .bind(flat(asks, |a| &a.events, |_, _, (kind, ..)| kind.as_str()))
            .bind(flat(asks, |a| &a.events, |_, _, (_, state, _)| *state))
            .bind(flat(asks, |a| &a.events, |_, _, (.., failure)| failure.as_deref()))
            .bind(of(asks, |a| a.planned.as_deref()))
            .fetch_all(&mut conn)
            .await?;
        conn.done().await?;
        let mut current: HashMap<AttemptId, bool> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let cells = Cells::of("jobs", row);
            current.insert(cells.id("attempt")?, cells.flag("fenced")?);
        }
        let answer = |ask: &Change| match current.get(&ask.claim.attempt) {
            None => Applied::Moved,
            Some(false) => Applied::Stale,
            Some(true) => Applied::Done,
        };
        Ok(asks.iter().map(|ask| Ok(answer(ask))).collect())
    }
}

/// The columns of a task that a move sets; what is `None` stays.
#[derive(Debug, Default)]
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

/// The events of a decision.
fn told(decision: &Decision, before: JobState, after: JobState) -> Vec<Told> {
    let state =
        |kind: &EventKind| if *kind == EventKind::Finished { after.as_str() } else { before.as_str() };
    let events = decision.events().into_iter();
    events.map(|(kind, failure)| (word(&kind), state(&kind), failure.as_ref().map(json))).collect()
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
