//! What every [`Store`] promises.

use crate::model::{Claim, Part, Time, UploadRecord};
use crate::plan::{Settings, graph};
use crate::scopes::Scopes;
use crate::secret::fresh_id;
use crate::state::{Ending, Snapshot, decide};
use crate::store::{
    Announced, ApiKeyRecord, Canceled, Deleted, End, Idempotency, LeaseIs, Leased, NewJob, NewLease,
    NewUpload, Once, Recorded, Settled, Store, Submitted,
};
use crate::trace::JobTrace;
use mpegflow_protocol::api::{EventKind, JobState};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{JobId, KeyId, PoolName, TaskId, TenantId, UploadId, WorkerId};
use mpegflow_protocol::job::JobSpec;
use std::sync::Arc;

const T0: Time = Time(1_700_000_000_000);
const LEASE_MS: u64 = 10_000;

/// A tenant with a finished upload, and a worker that nothing has bound yet.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// The tenant.
    pub tenant: TenantId,
    /// The worker.
    pub worker: WorkerId,
    /// The upload.
    pub upload: UploadId,
}

/// Makes a tenant of that name with what a job needs.
pub async fn make(store: &dyn Store, name: &str) -> Made {
    let tenant = store.ensure_tenant(name, fresh_id(), T0).await.unwrap();
    let worker = fresh_id();
    store.add_worker(worker, &PoolName::default(), T0.plus_ms(1), T0).await.unwrap();
    let upload = new_upload(tenant, 3);
    let id = upload.upload.id;
    assert_eq!(store.create_upload(&upload, None).await.unwrap(), Once::Done(Announced::Created));
    assert!(store.advance_upload(id, 0, 3, T0).await.unwrap());
    Made { tenant, worker, upload: id }
}

fn new_upload(tenant: TenantId, size: u64) -> NewUpload {
    let upload = UploadRecord {
        id: fresh_id(),
        tenant,
        size,
        received: 0,
        name: None,
        metadata: Some("filename YS5tcDQ=".into()),
        quarantined: false,
        created_at: T0,
        touched_at: T0,
    };
    NewUpload { upload, max_unfinished: 2, max_bytes: 100, answer: b"the answer".to_vec() }
}

/// A job on the upload, not submitted yet.
pub fn new_job(made: &Made) -> NewJob {
    let spec = format!(r#"{{"version":1,"input":{{"upload":"{}"}},"preset":"web"}}"#, made.upload);
    let spec = JobSpec::parse(spec.as_bytes()).unwrap();
    NewJob {
        id: fresh_id(),
        tenant: made.tenant,
        task: graph::probe(&spec, made.upload, 3, Settings::default()),
        spec,
        path: None,
        upload: made.upload,
        object_size: None,
        task_id: fresh_id(),
        pool: PoolName::default(),
        max_unfinished: 100,
        arrival: None,
        answer: b"the job".to_vec(),
        trace: None,
    }
}

/// Submits a job; its id and its first task's.
pub async fn submit(store: &dyn Store, made: &Made) -> (JobId, TaskId) {
    let job = new_job(made);
    assert_eq!(store.submit(&job, None, T0).await.unwrap(), Once::Done(Submitted::Created));
    (job.id, job.task_id)
}

/// A lease of 10 s that is asked for.
pub fn lease_of(task: TaskId, worker: WorkerId, now: Time) -> NewLease {
    NewLease { task, worker, attempt: fresh_id(), now, lease_ms: LEASE_MS, most: 8 }
}

async fn lease(store: &dyn Store, task: TaskId, worker: WorkerId) -> Claim {
    lease_at(store, task, worker, T0).await
}

async fn lease_at(store: &dyn Store, task: TaskId, worker: WorkerId, now: Time) -> Claim {
    match store.lease(&lease_of(task, worker, now)).await.unwrap() {
        Leased::Granted(attempt) => attempt.claim,
        other => panic!("not granted: {other:?}"),
    }
}

/// The end of an attempt that is asked for, with nothing known before.
pub fn end(claim: &Claim, lease: LeaseIs, now: Time) -> End<'_> {
    End { claim, evidence: None, lease, now, next_task: fresh_id(), known: None }
}

/// Ends an attempt as the state machine decides.
pub async fn settle(store: &dyn Store, claim: &Claim, lease: LeaseIs, now: Time, ending: &Ending) -> Settled {
    let decide = |snapshot: &Snapshot| decide(snapshot, ending, now, Settings::default());
    store.settle(end(claim, lease, now), &decide).await.unwrap()
}

fn failed(code: FailureCode) -> Ending {
    Ending::Failed { failure: Failure::new(code, "x"), evidence: None }
}

/// Every promise, on an empty store.
pub async fn all(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
    tenants(&*store).await;
    uploads(&*store).await;
    repeated_calls(&*store).await;
    isolation(&*store).await;
    one_lease(&store).await;
    fencing(&*store).await;
    expiry(&*store).await;
    one_end(&store).await;
    parts(&*store).await;
    cancels(&*store).await;
    housekeeping(&*store).await;
    traces(&*store).await;
    super::operations::all(Arc::clone(&store)).await;
    super::intake::all(Arc::clone(&store)).await;
    super::identity::all(store).await;
}

async fn tenants(store: &dyn Store) {
    let one = store.ensure_tenant("one", fresh_id(), T0).await.unwrap();
    assert_eq!(store.ensure_tenant("one", fresh_id(), T0).await.unwrap(), one, "one name, one tenant");
    assert_ne!(store.ensure_tenant("two", fresh_id(), T0).await.unwrap(), one);
    let key: KeyId = fresh_id();
    let scopes = Scopes::read("read,submit");
    let mut record = ApiKeyRecord { tenant: one, secret_sha256: [7; 32], scopes, expires_at: None };
    store.add_api_key(key, &record, "label", T0).await.unwrap();
    assert_eq!(store.api_key(key).await.unwrap(), Some(record.clone()));
    for (at, expected) in [(900, 900), (1_000, 900), (500, 500)] {
        assert!(store.expire_api_key(key, Time(at)).await.unwrap());
        record.expires_at = Some(Time(expected));
        assert_eq!(store.api_key(key).await.unwrap(), Some(record.clone()), "never later");
    }
    let shown = store.api_keys(one).await.unwrap().remove(0);
    assert_eq!((shown.id, shown.label.as_str(), shown.scopes, shown.created_at), (key, "label", scopes, T0));
    assert!(!store.expire_api_key(fresh_id(), T0).await.unwrap());
    assert!(store.revoke_api_key(key, T0).await.unwrap());
    assert!(!store.revoke_api_key(key, T0).await.unwrap());
    assert_eq!(store.api_key(key).await.unwrap(), None, "revoked");
    let pool = PoolName::default();
    store.add_join_token([1; 32], &pool, T0).await.unwrap();
    assert_eq!(store.join_token([1; 32]).await.unwrap(), Some(pool.clone()));
    assert_eq!(store.join_token([2; 32]).await.unwrap(), None);
    let other: PoolName = "other".parse().unwrap();
    assert!(store.has_join_token(&pool).await.unwrap() && !store.has_join_token(&other).await.unwrap());
    assert_eq!(store.revoke_join_tokens(&pool, T0).await.unwrap(), 1);
    assert_eq!(store.join_token([1; 32]).await.unwrap(), None);
    assert!(!store.has_join_token(&pool).await.unwrap());
}

async fn traces(store: &dyn Store) {
    let ((trace, job), (_, request)) = (crate::trace::fresh().unwrap(), crate::trace::fresh().unwrap());
    for kept in [None, Some(JobTrace { trace, job, request, since_us: 1_700_000_000_000_123 })] {
        let made = make(store, &format!("traces {}", kept.is_some())).await;
        let new = NewJob { trace: kept, ..new_job(&made) };
        assert_eq!(store.submit(&new, None, T0).await.unwrap(), Once::Done(Submitted::Created));
        assert_eq!(store.job(made.tenant, new.id).await.unwrap().unwrap().job.trace, kept);
        let leased = store.lease(&lease_of(new.task_id, made.worker, T0)).await.unwrap();
        let Leased::Granted(granted) = leased else { panic!("not granted: {leased:?}") };
        let live = store.live_attempt(&granted.claim).await.unwrap().unwrap();
        let closing = store.closing(&granted.claim).await.unwrap().unwrap().attempt;
        for attempt in [*granted, live, closing] {
            assert_eq!((attempt.trace, &attempt.pool, attempt.started_at()), (kept, &new.pool, T0));
        }
    }
}

async fn uploads(store: &dyn Store) {
    let tenant = store.ensure_tenant("uploads", fresh_id(), T0).await.unwrap();
    let first = new_upload(tenant, 60);
    let id = first.upload.id;
    assert_eq!(store.create_upload(&first, None).await.unwrap(), Once::Done(Announced::Created));
    assert_eq!(
        store.create_upload(&new_upload(tenant, 60), None).await.unwrap(),
        Once::Done(Announced::TooLarge)
    );
    assert_eq!(
        store.create_upload(&new_upload(tenant, 1), None).await.unwrap(),
        Once::Done(Announced::Created)
    );
    assert_eq!(
        store.create_upload(&new_upload(tenant, 1), None).await.unwrap(),
        Once::Done(Announced::TooMany)
    );
    assert!(store.advance_upload(id, 0, 10, T0).await.unwrap());
    assert!(!store.advance_upload(id, 0, 20, T0).await.unwrap(), "not from where it is not");
    assert!(store.advance_upload(id, 10, 61, T0).await.is_err(), "not beyond its length");
    assert_eq!(store.idle_uploads(T0).await.unwrap(), [], "touched just now");
    assert_eq!(store.idle_uploads(T0.plus_ms(1)).await.unwrap().len(), 2);
    assert_eq!(store.delete_upload(tenant, id).await.unwrap(), Deleted::Done);
    assert_eq!(store.delete_upload(tenant, id).await.unwrap(), Deleted::NotFound);
}

async fn repeated_calls(store: &dyn Store) {
    let made = make(store, "repeated").await;
    let once = Idempotency { key: "k".into(), request: [1; 32] };
    let other = Idempotency { key: "k".into(), request: [2; 32] };
    assert_eq!(store.submit(&new_job(&made), Some(&once), T0).await.unwrap(), Once::Done(Submitted::Created));
    let replay = store.submit(&new_job(&made), Some(&once), T0).await.unwrap();
    assert_eq!(replay, Once::Replay(b"the job".to_vec()));
    assert_eq!(store.submit(&new_job(&made), Some(&other), T0).await.unwrap(), Once::Mismatch);
    assert_eq!(store.jobs(made.tenant, None, None, 10).await.unwrap().len(), 1);
    // What was refused is not kept: it may be right later.
    let mut refused = new_job(&made);
    refused.upload = fresh_id();
    let once = Idempotency { key: "refused".into(), request: [1; 32] };
    assert_eq!(store.submit(&refused, Some(&once), T0).await.unwrap(), Once::Done(Submitted::NoUpload));
    assert_eq!(store.submit(&new_job(&made), Some(&once), T0).await.unwrap(), Once::Done(Submitted::Created));
    assert_eq!(store.forget_idempotency(T0.plus_ms(1)).await.unwrap(), 2);
}

async fn isolation(store: &dyn Store) {
    let (a, b) = (make(store, "a").await, make(store, "b").await);
    let (job, task) = submit(store, &a).await;
    assert!(store.job(a.tenant, job).await.unwrap().is_some());
    assert!(store.job(b.tenant, job).await.unwrap().is_none());
    assert!(store.jobs(b.tenant, None, None, 10).await.unwrap().is_empty());
    assert!(store.events(b.tenant, Some(job), 0, 10).await.unwrap().is_empty());
    assert!(store.upload(b.tenant, a.upload).await.unwrap().is_none());
    assert_eq!(store.delete_upload(b.tenant, a.upload).await.unwrap(), Deleted::NotFound);
    assert_eq!(store.cancel(b.tenant, job, None, T0).await.unwrap(), Once::Done(Canceled::NotFound));
    let stolen = NewJob { tenant: b.tenant, ..new_job(&a) };
    assert_eq!(store.submit(&stolen, None, T0).await.unwrap(), Once::Done(Submitted::NoUpload));
    // A worker that has served one tenant never gets another's task.
    lease(store, task, a.worker).await;
    let (_, other) = submit(store, &b).await;
    assert_eq!(store.lease(&lease_of(other, a.worker, T0)).await.unwrap(), Leased::OtherTenant);
    lease(store, other, b.worker).await;
}

async fn one_lease(store: &Arc<dyn Store>) {
    let made = make(&**store, "one lease").await;
    let (_, task) = submit(&**store, &made).await;
    let calls = (0..32).map(|_| {
        let store = Arc::clone(store);
        let new = lease_of(task, made.worker, T0);
        tokio::spawn(async move { matches!(store.lease(&new).await.unwrap(), Leased::Granted(_)) })
    });
    let granted = futures_util::future::join_all(calls).await;
    assert_eq!(granted.into_iter().filter(|g| *g.as_ref().unwrap()).count(), 1, "one of 32 gets it");
    assert_eq!(store.live_of_worker(made.worker).await.unwrap(), 1);
}

async fn fencing(store: &dyn Store) {
    let made = make(store, "fencing").await;
    let (job, task) = submit(store, &made).await;
    let old = lease(store, task, made.worker).await;
    assert!(matches!(settle(store, &old, LeaseIs::Held, T0, &Ending::Released).await, Settled::Done(_)));
    let new = lease(store, task, made.worker).await;
    assert!(new.epoch > old.epoch);
    let forged = [
        Claim { epoch: old.epoch, ..new },
        Claim { worker: fresh_id(), ..new },
        Claim { epoch: new.epoch, ..old },
    ];
    let before = store.job(made.tenant, job).await.unwrap();
    for claim in [old].into_iter().chain(forged) {
        assert!(store.live_attempt(&claim).await.unwrap().is_none());
        assert!(store.renew_lease(&claim, T0, LEASE_MS).await.unwrap().is_none());
        let part = Part { part: 0, size: 1, sha256: [0; 32] };
        assert_eq!(store.record_part(&claim, 0, &part, T0).await.unwrap(), Recorded::Stale);
        let settled = settle(store, &claim, LeaseIs::Held, T0, &failed(FailureCode::InputCorrupt)).await;
        assert_eq!(settled, Settled::Stale);
    }
    assert_eq!(store.job(made.tenant, job).await.unwrap(), before, "a stale attempt changes nothing");
    assert!(store.live_attempt(&new).await.unwrap().is_some());
}

async fn expiry(store: &dyn Store) {
    let made = make(store, "expiry").await;
    let (_, task) = submit(store, &made).await;
    let claim = lease(store, task, made.worker).await;
    let end = T0.plus_ms(LEASE_MS);
    let mine = async |now| store.expired(now).await.unwrap().into_iter().any(|e| e.claim == claim);
    assert!(!mine(end.minus_ms(1)).await);
    let renewed = store.renew_lease(&claim, T0.plus_ms(5_000), LEASE_MS).await.unwrap();
    assert_eq!(renewed, Some((JobState::Running, T0.plus_ms(15_000))));
    assert!(!mine(end).await, "renewed");
    let lost = Ending::Lost { overdue: false };
    assert_eq!(settle(store, &claim, LeaseIs::RunOut, end, &lost).await, Settled::Stale, "a renewal wins");
    let end = T0.plus_ms(15_000);
    assert!(mine(end).await);
    assert!(store.renew_lease(&claim, end, LEASE_MS).await.unwrap().is_none(), "too late");
    assert_eq!(
        settle(store, &claim, LeaseIs::Held, end, &Ending::Released).await,
        Settled::Stale,
        "too late"
    );
    let part = Part { part: 0, size: 1, sha256: [0; 32] };
    assert_eq!(store.record_part(&claim, 0, &part, end).await.unwrap(), Recorded::Stale, "too late");
    let Settled::Done(outcome) = settle(store, &claim, LeaseIs::RunOut, end, &lost).await else {
        panic!("not ended")
    };
    assert_eq!(outcome.ready.map(|r| r.task), Some(task), "tried again");
    assert!(store.ready_tasks().await.unwrap().iter().any(|r| r.task == task));
    // The attempt's own time cannot be renewed away.
    let claim = lease_at(store, task, made.worker, end).await;
    let hard = store.live_attempt(&claim).await.unwrap().unwrap().hard_deadline;
    let mut now = end;
    while now.plus_ms(LEASE_MS) < hard {
        now = store.renew_lease(&claim, now.plus_ms(LEASE_MS - 1), LEASE_MS * 100).await.unwrap().unwrap().1;
        now = now.minus_ms(LEASE_MS);
    }
    assert!(store.expired(hard).await.unwrap().iter().any(|e| e.claim == claim && e.overdue));
}

async fn one_end(store: &Arc<dyn Store>) {
    let made = make(&**store, "one end").await;
    let (job, task) = submit(&**store, &made).await;
    let claim = lease(&**store, task, made.worker).await;
    let calls = (0..32).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let ending = failed(FailureCode::InputCorrupt);
            matches!(settle(&*store, &claim, LeaseIs::Held, T0, &ending).await, Settled::Done(_))
        })
    });
    let ended = futures_util::future::join_all(calls).await;
    assert_eq!(ended.into_iter().filter(|e| *e.as_ref().unwrap()).count(), 1, "one of 32 ends it");
    let view = store.job(made.tenant, job).await.unwrap().unwrap();
    assert_eq!(
        (view.job.state, view.job.failure.map(|f| f.code)),
        (JobState::Failed, Some(FailureCode::InputCorrupt))
    );
    let events = store.events(made.tenant, Some(job), 0, 100).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [EventKind::Created, EventKind::TaskStarted, EventKind::AttemptFailed, EventKind::Finished]
    );
    assert!(events.windows(2).all(|w| w[0].seq + 1 == w[1].seq), "gapless");
    assert_eq!(store.last_event(made.tenant).await.unwrap(), events.last().unwrap().seq);
    assert_eq!(store.events(made.tenant, None, events[1].seq, 1).await.unwrap(), events[2..3]);
}

async fn parts(store: &dyn Store) {
    let made = make(store, "parts").await;
    let (_, task) = submit(store, &made).await;
    let claim = lease(store, task, made.worker).await;
    let part = |n| Part { part: n, size: 1, sha256: [9; 32] };
    assert_eq!(store.record_part(&claim, 0, &part(1), T0).await.unwrap(), Recorded::Done);
    assert_eq!(store.record_part(&claim, 0, &part(0), T0).await.unwrap(), Recorded::Done);
    let other = Part { sha256: [8; 32], ..part(1) };
    for again in [part(0), part(1), other] {
        assert_eq!(store.record_part(&claim, 0, &again, T0).await.unwrap(), Recorded::Conflict);
    }
    assert_eq!(store.parts(claim.attempt, 0).await.unwrap(), [part(0), part(1)]);
    assert_eq!(store.parts(claim.attempt, 1).await.unwrap(), []);
}

async fn cancels(store: &dyn Store) {
    let made = make(store, "cancels").await;
    let (job, task) = submit(store, &made).await;
    assert_eq!(store.delete_upload(made.tenant, made.upload).await.unwrap(), Deleted::InUse);
    assert_eq!(store.cancel(made.tenant, job, None, T0).await.unwrap(), Once::Done(Canceled::Now));
    let again = store.cancel(made.tenant, job, None, T0).await.unwrap();
    assert_eq!(again, Once::Done(Canceled::AlreadyFinal(JobState::Canceled)));
    assert_eq!(store.lease(&lease_of(task, made.worker, T0)).await.unwrap(), Leased::Gone);
    let (job, task) = submit(store, &made).await;
    let claim = lease(store, task, made.worker).await;
    assert_eq!(store.cancel(made.tenant, job, None, T0).await.unwrap(), Once::Done(Canceled::Soon));
    let told = store.renew_lease(&claim, T0, LEASE_MS).await.unwrap();
    assert_eq!(told.map(|(state, _)| state), Some(JobState::Canceling));
    assert!(matches!(settle(store, &claim, LeaseIs::Held, T0, &Ending::Released).await, Settled::Done(_)));
    assert_eq!(store.job(made.tenant, job).await.unwrap().unwrap().job.state, JobState::Canceled);
}

async fn housekeeping(store: &dyn Store) {
    let made = make(store, "housekeeping").await;
    let (_, task) = submit(store, &made).await;
    let claim = lease(store, task, made.worker).await;
    let listed = async || store.garbage(&[], 1_000).await.unwrap().iter().any(|g| g.attempt == claim.attempt);
    assert!(!listed().await, "a live attempt keeps its files");
    assert!(store.keeps_files(claim.attempt).await.unwrap());
    settle(store, &claim, LeaseIs::Held, T0, &failed(FailureCode::InputCorrupt)).await;
    assert!(listed().await, "a failed one does not");
    store.swept(claim.attempt).await.unwrap();
    assert!(!listed().await);
    assert!(!store.keeps_files(claim.attempt).await.unwrap());
    assert!(!store.keeps_files(fresh_id()).await.unwrap(), "one that is not known does not");
    assert!(store.count_jobs().await.unwrap().iter().any(|(state, n)| *state == JobState::Failed && *n > 0));
}
