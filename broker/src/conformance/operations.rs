//! What every store promises to those who run a broker: attempts' logs, webhooks and the messages to them.

use super::store::{Made, lease_of, make, new_job, settle, submit};
use crate::model::{AttemptState, Claim, Part, TenantLimits, Time};
use crate::objects::own::{Access, OwnStorage};
use crate::plan::bans::Ban;
use crate::secret::fresh_id;
use crate::state::Ending;
use crate::store::storage::StorageRefused;
use crate::store::webhooks::{
    AttemptEnd, DeliveryRecord, Disabled, NewDelivery, Rotation, Salt, WebhookRecord,
};
use crate::store::{Idempotency, LeaseIs, Leased, NewJob, Once, Recorded, Store, Submitted};
use mpegflow_protocol::control;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{JobId, MessageId, UploadId};
use mpegflow_protocol::webhook::{DeliveryState, MessageType};
use std::collections::BTreeSet;
use std::sync::Arc;

const T0: Time = Time(1_700_000_000_000);

/// Every promise, on a store that the suite of stores has used.
pub async fn all(store: Arc<dyn Store>) {
    limits(&*store).await;
    minutes(&store).await;
    pins(&store).await;
    announcements(&store).await;
    bans(&*store).await;
    paths(&*store).await;
    logs(&*store).await;
    webhooks(&*store).await;
    fan_out(&store).await;
    claims(&store).await;
    attempts(&*store).await;
    own_storage(&store).await;
    quarantined_inputs(&*store).await;
}

/// A place of that prefix in one bucket.
fn place(prefix: &str) -> OwnStorage {
    OwnStorage::new(control::Storage {
        bucket: "films".into(),
        prefix: prefix.into(),
        endpoint: None,
        region: None,
        path_style: false,
        role_arn: None,
        secret: Some("name".into()),
    })
    .unwrap()
}

async fn own_storage(store: &Arc<dyn Store>) {
    let empty = store.ensure_tenant("own storage", fresh_id(), T0).await.unwrap();
    let other = store.ensure_tenant("other own storage", fresh_id(), T0).await.unwrap();
    let used = make(&**store, "own storage in use").await.tenant;
    let set =
        async |tenant, storage: Option<&OwnStorage>| store.set_storage(tenant, storage, false).await.unwrap();
    assert_eq!(store.storage_of(empty).await.unwrap(), None);
    assert_eq!(set(empty, Some(&place("a/"))).await, Ok(()));
    assert_eq!(store.storage_of(empty).await.unwrap(), Some(place("a/")));
    assert_eq!(store.storages().await.unwrap(), [(empty, place("a/"))]);
    assert_eq!(set(fresh_id(), Some(&place("b/"))).await, Err(StorageRefused::NoTenant));
    for theirs in ["", "a/", "a/b/"] {
        let no = StorageRefused::Overlaps("own storage".into());
        assert_eq!(set(other, Some(&place(theirs))).await, Err(no), "{theirs}");
    }
    assert_eq!(set(empty, Some(&place("c/"))).await, Ok(()), "there is nothing in the old place");
    // What has objects keeps them where they are, and may be reached another way.
    assert_eq!(set(used, Some(&place("a/"))).await, Err(StorageRefused::InUse));
    assert_eq!(set(used, None).await, Ok(()), "it stays where it is");
    assert_eq!(store.set_storage(used, Some(&place("a/")), true).await.unwrap(), Ok(()));
    assert_eq!(set(used, None).await, Err(StorageRefused::InUse));
    let role = Access::Role("arn:aws:iam::123456789012:role/r".into());
    let rotated = OwnStorage { access: role, region: "eu-west-1".into(), ..place("a/") };
    assert_eq!(set(used, Some(&rotated)).await, Ok(()));
    assert_eq!(store.storage_of(used).await.unwrap(), Some(rotated));
    // Of two that want the same place at once, one has it.
    let mut wants = Vec::new();
    for n in 0..8 {
        let tenant = store.ensure_tenant(&format!("wants a place {n}"), fresh_id(), T0).await.unwrap();
        let store = Arc::clone(store);
        wants.push(tokio::spawn(async move {
            store.set_storage(tenant, Some(&place("d/")), false).await.unwrap()
        }));
    }
    let wants = futures_util::future::join_all(wants).await;
    assert_eq!(wants.into_iter().filter(|set| set.as_ref().unwrap().is_ok()).count(), 1);
    // A deleted tenant's stays until nothing is left there.
    assert_eq!(store.delete_tenant("own storage", T0).await.unwrap(), Some(empty));
    assert_eq!(store.storage_of(empty).await.unwrap(), Some(place("c/")));
    assert!(store.finish_tenant(empty, T0).await.unwrap());
    assert_eq!(store.storage_of(empty).await.unwrap(), None);
    assert_eq!(set(other, Some(&place("c/"))).await, Ok(()), "the place is free");
}

async fn quarantined_inputs(store: &dyn Store) {
    let made = make(store, "quarantined inputs").await;
    let input = |version: u128| {
        let upload = UploadId::from_u128(version);
        NewJob { upload, object_size: Some(7), ..new_job(&made) }
    };
    let job = input(1);
    assert_eq!(store.submit(&job, None, T0).await.unwrap(), Once::Done(Submitted::Created));
    let Leased::Granted(live) = store.lease(&lease_of(job.task_id, made.worker, T0)).await.unwrap() else {
        panic!()
    };
    let failure = Failure::new(FailureCode::LockViolation, "x");
    settle(store, &live.claim, LeaseIs::Held, T0, &Ending::Failed { failure, evidence: None }).await;
    assert_eq!(store.submit(&input(1), None, T0).await.unwrap(), Once::Done(Submitted::Quarantined));
    assert_eq!(store.submit(&input(2), None, T0).await.unwrap(), Once::Done(Submitted::Created));
}

async fn limits(store: &dyn Store) {
    let made = make(store, "limits").await;
    assert_eq!(store.tenant_named("limits").await.unwrap(), Some(made.tenant));
    assert_eq!(store.tenant_named("nobody of that name").await.unwrap(), None);
    assert_eq!(store.tenant_limits(made.tenant).await.unwrap(), None);
    let own = TenantLimits { running_tasks: Some(2), burst: Some(0), ..TenantLimits::default() };
    assert!(store.set_tenant_limits(made.tenant, &own).await.unwrap());
    assert!(!store.set_tenant_limits(fresh_id(), &own).await.unwrap());
    assert_eq!(store.tenant_limits(made.tenant).await.unwrap(), Some(own));
    assert_eq!(store.running_of_tenant(made.tenant).await.unwrap(), 0);
    let (_, task) = submit(store, &made).await;
    let Leased::Granted(live) = store.lease(&lease_of(task, made.worker, T0)).await.unwrap() else {
        panic!()
    };
    assert_eq!(store.running_of_tenant(made.tenant).await.unwrap(), 1);
    settle(store, &live.claim, LeaseIs::Held, T0, &Ending::Released).await;
    assert_eq!(store.running_of_tenant(made.tenant).await.unwrap(), 0);
}

async fn minutes(store: &Arc<dyn Store>) {
    let (made, other) = (make(&**store, "minutes").await, make(&**store, "other minutes").await);
    assert_eq!(store.media_of_upload(made.tenant, made.upload).await.unwrap(), None);
    let (first, _) = submit(&**store, &made).await;
    assert!(store.reserve_minutes(made.tenant, first, 1, 400, 1_000).await.unwrap());
    assert!(
        store.reserve_minutes(made.tenant, first, 1, 400, 0).await.unwrap(),
        "taken once, and then there"
    );
    assert_eq!(store.minutes_taken(made.tenant, 1).await.unwrap(), 400);
    assert_eq!(store.minutes_taken(made.tenant, 2).await.unwrap(), 0, "of another day");
    assert_eq!(store.minutes_taken(other.tenant, 1).await.unwrap(), 0, "of another tenant");
    let calls = (0..16).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(
            async move { store.reserve_minutes(made.tenant, fresh_id(), 1, 200, 1_000).await.unwrap() },
        )
    });
    let taken = futures_util::future::join_all(calls).await;
    assert_eq!(taken.into_iter().filter(|t| *t.as_ref().unwrap()).count(), 3, "no more than there are");
    store.cancel(made.tenant, first, None, T0).await.unwrap();
    assert_eq!(store.minutes_taken(made.tenant, 1).await.unwrap(), 600, "a canceled job's are there again");
}

async fn pins(store: &Arc<dyn Store>) {
    let made = make(&**store, "pins").await;
    let (_, task) = submit(&**store, &made).await;
    let Leased::Granted(live) = store.lease(&lease_of(task, made.worker, T0)).await.unwrap() else {
        panic!()
    };
    let claim = live.claim;
    let calls = (0..16).map(|n| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.pin_input(&claim, 0, &format!("v{n}")).await.unwrap().unwrap() })
    });
    let found: BTreeSet<String> =
        futures_util::future::join_all(calls).await.into_iter().map(|pin| pin.unwrap()).collect();
    assert_eq!(found.len(), 1, "one version for all: {found:?}");
    let pinned = found.into_iter().next();
    assert_eq!(store.pin_input(&claim, 0, "another").await.unwrap(), pinned);
    assert_eq!(
        store.pin_input(&claim, 1, "of another input").await.unwrap().as_deref(),
        Some("of another input")
    );
    store.garbage(&[], 1_000).await.unwrap();
    assert_eq!(store.pin_input(&claim, 0, "another").await.unwrap(), pinned, "kept while the attempt lives");
    for forged in [Claim { epoch: claim.epoch + 1, ..claim }, Claim { worker: fresh_id(), ..claim }] {
        assert_eq!(store.pin_input(&forged, 0, "forged").await.unwrap(), None);
    }
    settle(&**store, &claim, LeaseIs::Held, T0, &Ending::Released).await;
    assert_eq!(store.pin_input(&claim, 0, "late").await.unwrap(), None);
}

async fn announcements(store: &Arc<dyn Store>) {
    let made = make(&**store, "announcements").await;
    let (_, task) = submit(&**store, &made).await;
    let Leased::Granted(live) = store.lease(&lease_of(task, made.worker, T0)).await.unwrap() else {
        panic!()
    };
    let claim = live.claim;
    let part = |n: u8| Part { part: 0, size: u64::from(n), sha256: [n; 32] };
    let calls = (1..17).map(|n| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.announce_part(&claim, 0, &part(n)).await.unwrap().unwrap() })
    });
    let mut found: Vec<Part> =
        futures_util::future::join_all(calls).await.into_iter().map(|part| part.unwrap()).collect();
    found.dedup();
    let [announced] = found.as_slice() else { panic!("one content for all: {found:?}") };
    assert_eq!(store.announce_part(&claim, 0, &part(99)).await.unwrap().as_ref(), Some(announced));
    let second = Part { part: 1, ..part(50) };
    assert_eq!(store.announce_part(&claim, 0, &second).await.unwrap(), Some(second));
    assert_eq!(store.announce_part(&claim, 1, &part(51)).await.unwrap(), Some(part(51)));
    store.garbage(&[], 1_000).await.unwrap();
    for forged in [Claim { epoch: claim.epoch + 1, ..claim }, Claim { worker: fresh_id(), ..claim }] {
        assert_eq!(store.announce_part(&forged, 0, &part(52)).await.unwrap(), None);
    }
    // Whatever else is said of the part does not count, whichever way it came.
    for other in
        [part(99), Part { size: 98, ..announced.clone() }, Part { sha256: [98; 32], ..announced.clone() }]
    {
        assert_eq!(store.record_part(&claim, 0, &other, T0).await.unwrap(), Recorded::Conflict, "{other:?}");
    }
    assert_eq!(store.record_part(&claim, 0, announced, T0).await.unwrap(), Recorded::Done);
    // What nobody announced may be anything.
    assert_eq!(store.record_part(&claim, 2, &part(3), T0).await.unwrap(), Recorded::Done);
    settle(&**store, &claim, LeaseIs::Held, T0, &Ending::Released).await;
    assert_eq!(store.announce_part(&claim, 3, &part(1)).await.unwrap(), None);
}

async fn bans(store: &dyn Store) {
    let ban = |name: &str, reason: &str| Ban { name: name.into(), reason: reason.into(), at: T0 };
    for (name, reason) in [("mov", "CVE-1"), ("h264", "CVE-2"), ("h264", "CVE-3")] {
        store.ban(&ban(name, reason)).await.unwrap();
    }
    assert_eq!(store.bans().await.unwrap(), [ban("h264", "CVE-3"), ban("mov", "CVE-1")]);
    assert!(store.lift_ban("mov").await.unwrap() && store.lift_ban("h264").await.unwrap());
    assert!(!store.lift_ban("h264").await.unwrap());
    assert_eq!(store.bans().await.unwrap(), []);
    // Jobs that have ended are listed in the order of their ids, and no others.
    let made = make(store, "bans").await;
    let ((ended, _), (runs, _)) = (submit(store, &made).await, submit(store, &made).await);
    store.cancel(made.tenant, ended, None, T0).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.ended_jobs(after, 1).await.unwrap();
        let Some(job) = page.first() else { break };
        assert!(after < Some(job.id));
        after = Some(job.id);
        seen.push((job.id, job.tenant.clone()));
    }
    assert!(seen.contains(&(ended, "bans".into())) && seen.iter().all(|(id, _)| *id != runs));
}

async fn paths(store: &dyn Store) {
    let (made, other) = (make(store, "paths").await, make(store, "other paths").await);
    let at = |made: &Made| NewJob { path: Some("films/a".into()), ..new_job(made) };
    let first = at(&made);
    assert_eq!(store.submit(&first, None, T0).await.unwrap(), Once::Done(Submitted::Created));
    let taken = Once::Done(Submitted::PathTaken(first.id));
    assert_eq!(store.submit(&at(&made), None, T0).await.unwrap(), taken);
    assert_eq!(store.submit(&at(&other), None, T0).await.unwrap(), Once::Done(Submitted::Created));
    assert_eq!(store.job_at(made.tenant, "films/a").await.unwrap(), Some(first.id));
    assert_eq!(store.job_at(made.tenant, "films").await.unwrap(), None);
    store.cancel(made.tenant, first.id, None, T0).await.unwrap();
    assert_eq!(
        store.job_at(made.tenant, "films/a").await.unwrap(),
        None,
        "a job that was canceled has no path"
    );
    assert_eq!(store.submit(&at(&made), None, T0).await.unwrap(), Once::Done(Submitted::Created));
}

async fn logs(store: &dyn Store) {
    let (made, other) = (make(store, "logs").await, make(store, "no logs").await);
    let (job, task) = submit(store, &made).await;
    let Leased::Granted(live) = store.lease(&lease_of(task, made.worker, T0)).await.unwrap() else {
        panic!()
    };
    let claim = live.claim;
    assert_eq!(store.logs(made.tenant, job, 10).await.unwrap(), []);
    store.append_log(&claim, "one\n", 10, T0).await.unwrap();
    store.append_log(&claim, "two\n", 10, T0).await.unwrap();
    for forged in [Claim { epoch: claim.epoch + 1, ..claim }, Claim { worker: fresh_id(), ..claim }] {
        store.append_log(&forged, "forged\n", 10, T0).await.unwrap();
    }
    let log = store.logs(made.tenant, job, 10).await.unwrap().remove(0);
    assert_eq!((log.text.as_str(), log.cut, log.state), ("one\ntwo\n", false, AttemptState::Live));
    assert_eq!((log.attempt, log.number, log.started_at), (claim.attempt, claim.epoch, T0));
    store.append_log(&claim, "three\n", 10, T0).await.unwrap();
    store.append_log(&claim, "four\n", 10, T0).await.unwrap();
    settle(store, &claim, LeaseIs::Held, T0, &Ending::Released).await;
    store.append_log(&claim, "late\n", 10, T0).await.unwrap();
    let log = store.logs(made.tenant, job, 10).await.unwrap().remove(0);
    assert_eq!(
        (log.text.as_str(), log.cut, log.state),
        ("one\ntwo\nth", true, AttemptState::Released),
        "no more than asked for"
    );
    assert_eq!(store.logs(other.tenant, job, 10).await.unwrap(), [], "another tenant's");
    assert_eq!(store.forget_logs(T0).await.unwrap(), 0);
    assert_eq!(store.forget_logs(T0.plus_ms(1)).await.unwrap(), 1);
    assert_eq!(store.logs(made.tenant, job, 10).await.unwrap(), []);
}

async fn hook(store: &dyn Store, made: &Made) -> WebhookRecord {
    WebhookRecord {
        id: fresh_id(),
        tenant: made.tenant,
        url: "https://example.com/".into(),
        types: vec![MessageType::Succeeded],
        description: Some("x".into()),
        managed: None,
        disabled: None,
        cursor: store.last_event(made.tenant).await.unwrap(),
        salts: vec![Salt { salt: "00".into(), until: None }],
        created_at: T0,
        succeeded_at: None,
    }
}

async fn webhooks(store: &dyn Store) {
    let (made, other) = (make(store, "webhooks").await, make(store, "no webhooks").await);
    let (first, second) = (hook(store, &made).await, hook(store, &made).await);
    assert_eq!(store.add_webhook(&first, 2, None, b"").await.unwrap(), Once::Done(true));
    assert_eq!(store.add_webhook(&second, 2, None, b"").await.unwrap(), Once::Done(true));
    let more = hook(store, &made).await;
    assert_eq!(
        store.add_webhook(&more, 2, None, b"").await.unwrap(),
        Once::Done(false),
        "no more than allowed"
    );
    assert_eq!(store.webhooks(made.tenant).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.webhook(made.tenant, first.id).await.unwrap(), Some(first.clone()));
    // Another tenant has nothing of them.
    assert_eq!(store.webhooks(other.tenant).await.unwrap(), []);
    assert_eq!(store.webhook(other.tenant, first.id).await.unwrap(), None);
    let enable = async |tenant, id| store.enable_webhook(tenant, id, 0, None, T0).await.unwrap();
    assert_eq!(enable(other.tenant, first.id).await, Once::Done(false));
    // A repetition is the first call, whichever webhook it makes up.
    let once = Idempotency { key: "webhook".into(), request: [1; 32] };
    assert_eq!(
        store.enable_webhook(made.tenant, first.id, 0, Some(&once), T0).await.unwrap(),
        Once::Done(true)
    );
    assert_eq!(
        store.enable_webhook(made.tenant, first.id, 0, Some(&once), T0).await.unwrap(),
        Once::Replay(Vec::new())
    );
    assert_eq!(
        store.add_webhook(&more, 9, Some(&once), b"").await.unwrap(),
        Once::Replay(Vec::new()),
        "a key is one for all calls"
    );
    let reused = Idempotency { request: [2; 32], ..once.clone() };
    assert_eq!(store.add_webhook(&more, 9, Some(&reused), b"").await.unwrap(), Once::Mismatch);
    assert!(!store.delete_webhook(other.tenant, first.id).await.unwrap());
    let new = vec![Salt { salt: "01".into(), until: None }, Salt { salt: "00".into(), until: Some(5) }];
    let rotation = Rotation { old: &first.salts, new: &new, answer: b"rotated", now: T0 };
    let rotate = async |tenant, once: Option<&Idempotency>| {
        store.set_salts(tenant, first.id, &rotation, once).await.unwrap()
    };
    let once = Idempotency { key: "rotation".into(), request: [1; 32] };
    assert_eq!(rotate(other.tenant, Some(&once)).await, Once::Done(false));
    assert_eq!(rotate(made.tenant, Some(&once)).await, Once::Done(true));
    assert_eq!(rotate(made.tenant, Some(&once)).await, Once::Replay(b"rotated".to_vec()));
    assert_eq!(rotate(made.tenant, None).await, Once::Done(false), "they have changed");
    assert_eq!(store.webhook(made.tenant, first.id).await.unwrap().unwrap().salts, new);
    assert!(store.delete_webhook(made.tenant, first.id).await.unwrap());
    assert!(!store.delete_webhook(made.tenant, first.id).await.unwrap());
}

fn message(job: JobId) -> NewDelivery {
    NewDelivery { id: fresh_id(), kind: MessageType::Created, job, body: "{}".into() }
}

async fn fan_out(store: &Arc<dyn Store>) {
    let made = make(&**store, "fan out").await;
    let webhook = hook(&**store, &made).await;
    assert_eq!(store.add_webhook(&webhook, 9, None, b"").await.unwrap(), Once::Done(true));
    let behind = async |most| {
        let found = store.webhooks_behind(1_000, most).await.unwrap();
        found.into_iter().find(|w| w.id == webhook.id)
    };
    assert_eq!(behind(9).await, None);
    let (job, _) = submit(&**store, &made).await;
    let head = store.last_event(made.tenant).await.unwrap();
    assert_eq!(behind(9).await.map(|w| w.cursor), Some(webhook.cursor));
    let calls = (0..16).map(|_| {
        let (store, from) = (Arc::clone(store), webhook.cursor);
        let id = webhook.id;
        tokio::spawn(async move {
            store.fan_out(id, from, head, &[message(job), message(job)], T0).await.unwrap()
        })
    });
    let made_by = futures_util::future::join_all(calls).await;
    assert_eq!(made_by.into_iter().filter(|m| *m.as_ref().unwrap()).count(), 1, "one of 16 makes them");
    assert_eq!(behind(9).await, None);
    let page = store.deliveries(made.tenant, webhook.id, None, 10).await.unwrap();
    assert_eq!(page.len(), 2);
    assert_eq!(store.deliveries(made.tenant, webhook.id, Some(page[0].id), 10).await.unwrap(), page[1..]);
    submit(&**store, &made).await;
    store.last_event(made.tenant).await.unwrap();
    assert!(behind(3).await.is_some());
    assert_eq!(behind(2).await, None, "no more are made while so many wait");
    assert!(store.delete_webhook(made.tenant, webhook.id).await.unwrap(), "with its messages");
    assert!(!store.fan_out(webhook.id, head, head + 1, &[message(job)], T0).await.unwrap());
}

/// A webhook with that many messages.
async fn with_messages(store: &dyn Store, name: &str, messages: usize) -> (Made, WebhookRecord) {
    let made = make(store, name).await;
    let webhook = hook(store, &made).await;
    assert_eq!(store.add_webhook(&webhook, 9, None, b"").await.unwrap(), Once::Done(true));
    let new: Vec<NewDelivery> = (0..messages).map(|_| message(fresh_id())).collect();
    assert!(store.fan_out(webhook.id, webhook.cursor, webhook.cursor, &new, T0).await.unwrap());
    (made, webhook)
}

async fn claims(store: &Arc<dyn Store>) {
    let (_, one) = with_messages(&**store, "claims", 40).await;
    let (_, two) = with_messages(&**store, "other claims", 1).await;
    let until = T0.plus_ms(60_000);
    let calls = (0..8).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.claim_deliveries(T0, until, 100, 5, &[]).await.unwrap() })
    });
    let mut ids: Vec<MessageId> = Vec::new();
    for claimed in futures_util::future::join_all(calls).await {
        let claimed = claimed.unwrap();
        assert!(
            claimed.iter().filter(|(d, _)| d.webhook == one.id).count() <= 5,
            "no more of one than asked for"
        );
        assert!(claimed.iter().all(|(d, w)| d.webhook == w.id && d.attempts == 1 && d.next_at == until));
        ids.extend(claimed.iter().map(|(d, _)| d.id));
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "none is claimed twice");
    assert!(ids.len() >= 6, "one round of one sender at least");
    let rest = store.claim_deliveries(T0, until, 100, 100, &[one.id]).await.unwrap();
    assert!(rest.iter().all(|(d, _)| d.webhook != one.id), "none of who is busy");
    store.claim_deliveries(T0, until, 100, 100, &[]).await.unwrap();
    assert_eq!(store.claim_deliveries(T0, until, 100, 100, &[]).await.unwrap(), [], "claimed is not due");
    // A sender that died: its claims run out.
    let again = store.claim_deliveries(until, until.plus_ms(60_000), 100, 100, &[]).await.unwrap();
    assert_eq!(again.iter().filter(|(d, _)| d.webhook == one.id && d.attempts == 2).count(), 40);
    assert_eq!(again.iter().filter(|(d, _)| d.webhook == two.id).count(), 1);
}

async fn attempts(store: &dyn Store) {
    let (made, webhook) = with_messages(store, "attempts", 1).await;
    let other = make(store, "no attempts").await;
    let claim = async |now: Time| -> Option<DeliveryRecord> {
        let claimed = store.claim_deliveries(now, now.plus_ms(60_000), 1_000, 1_000, &[]).await.unwrap();
        claimed.into_iter().map(|(d, _)| d).find(|d| d.webhook == webhook.id)
    };
    let failed = |next_at, state, disable| AttemptEnd {
        state,
        next_at,
        status: Some(500),
        error: Some("x".into()),
        disable,
    };
    let first = claim(T0).await.unwrap();
    let later = T0.plus_ms(100_000);
    let end = failed(later, DeliveryState::Pending, None);
    assert!(!store.end_attempt(first.id, 7, &end, T0).await.unwrap(), "not of another number");
    assert!(store.end_attempt(first.id, first.attempts, &end, T0).await.unwrap());
    assert_eq!(claim(later.minus_ms(1)).await, None, "not before it is due");
    let second = claim(later).await.unwrap();
    assert_eq!(
        (second.attempts, second.last_status, second.last_error.as_deref()),
        (2, Some(500), Some("x"))
    );
    // The first attempt was slower than its claim: what it says now changes nothing.
    let delivered = AttemptEnd {
        state: DeliveryState::Delivered,
        next_at: later,
        status: Some(200),
        error: None,
        disable: None,
    };
    assert!(!store.end_attempt(second.id, 1, &delivered, later).await.unwrap());
    let give_up = failed(later, DeliveryState::Failed, Some(Disabled::Failing));
    assert!(store.end_attempt(second.id, 2, &give_up, later).await.unwrap());
    assert!(!store.end_attempt(second.id, 2, &delivered, later).await.unwrap(), "it has ended");
    let disabled = async || store.webhook(made.tenant, webhook.id).await.unwrap().unwrap().disabled;
    assert_eq!(disabled().await, Some(Disabled::Failing));
    // Sent again: not while the webhook is disabled.
    let redeliver =
        async |tenant, id, once| match store.redeliver(tenant, webhook.id, id, once, later).await.unwrap() {
            Once::Done(again) => Ok(again),
            other => Err(other),
        };
    assert_eq!(redeliver(other.tenant, second.id, None).await, Ok(None));
    let once = Idempotency { key: "again".into(), request: [1; 32] };
    let tell = |again: &DeliveryRecord| again.body.clone().into_bytes();
    let again = redeliver(made.tenant, second.id, Some((&once, &tell))).await.unwrap().unwrap();
    let repeated = redeliver(made.tenant, second.id, Some((&once, &tell))).await;
    assert_eq!(repeated, Err(Once::Replay(tell(&again))));
    assert_eq!((again.state, again.attempts, again.ended_at), (DeliveryState::Pending, 0, None));
    assert_eq!(claim(later).await, None);
    let cursor = webhook.cursor + 3;
    let enabled = store.enable_webhook(made.tenant, webhook.id, cursor, None, later).await.unwrap();
    assert_eq!(enabled, Once::Done(true));
    assert_eq!(store.webhook(made.tenant, webhook.id).await.unwrap().unwrap().cursor, webhook.cursor + 3);
    let third = claim(later).await.unwrap();
    assert_eq!((third.attempts, third.body.as_str()), (1, "{}"));
    assert!(store.end_attempt(third.id, 1, &delivered, later).await.unwrap());
    let shown = store.deliveries(made.tenant, webhook.id, None, 10).await.unwrap().remove(0);
    assert_eq!(
        (shown.state, shown.last_status, shown.ended_at),
        (DeliveryState::Delivered, Some(200), Some(later))
    );
    assert_eq!(store.webhook(made.tenant, webhook.id).await.unwrap().unwrap().succeeded_at, Some(later));
    // It took this one after the next was made, so giving that up disables nothing; being gone does.
    redeliver(made.tenant, third.id, None).await.unwrap().unwrap();
    let fourth = claim(later).await.unwrap();
    assert!(store.end_attempt(fourth.id, 1, &give_up, later).await.unwrap());
    assert_eq!(disabled().await, None);
    redeliver(made.tenant, third.id, None).await.unwrap().unwrap();
    let fifth = claim(later).await.unwrap();
    let gone = failed(later, DeliveryState::Failed, Some(Disabled::Gone));
    assert!(store.end_attempt(fifth.id, 1, &gone, later).await.unwrap());
    assert_eq!(disabled().await, Some(Disabled::Gone));
    assert_eq!(store.deliveries(other.tenant, webhook.id, None, 10).await.unwrap(), []);
    assert_eq!(store.forget_deliveries(later).await.unwrap(), 0);
    assert_eq!(store.forget_deliveries(later.plus_ms(1)).await.unwrap(), 1);
}
