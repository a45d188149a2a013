//! What every store promises about pools of a cluster, pods and verdicts.

use super::store::{lease_of, make, settle, submit};
use crate::enrol::Account;
use crate::model::{TenantLimits, Time};
use crate::secret::fresh_id;
use crate::state::Ending;
use crate::store::identity::{PodAdded, PodWorker, PoolRecord, Pushed, PushedTenant, Verdict};
use crate::store::webhooks::{AttemptEnd, Disabled, ManagedWebhook, NewDelivery, Salt, WebhookRecord};
use crate::store::{LeaseIs, Leased, Once, Store};
use mpegflow_protocol::ids::{PoolName, WorkerId};
use mpegflow_protocol::webhook::{DeliveryState, MessageType};
use std::sync::Arc;

const T0: Time = Time(1_700_000_000_000);
const T1: Time = Time(1_700_000_001_000);

/// Every promise, on a store that the suite of stores has used.
pub async fn all(store: Arc<dyn Store>) {
    pools(&*store).await;
    tenants(&*store).await;
    managed_webhooks(&store).await;
    pods(&*store).await;
    cordons(&store).await;
    verdicts(&*store).await;
}

fn pool(name: &str, account: &str, uid: &str, generation: u64) -> PoolRecord {
    PoolRecord {
        name: name.parse().unwrap(),
        account: Account { namespace: "media".into(), name: account.into() },
        uid: uid.into(),
        generation,
        tenant: None,
        max_workers: 2,
        closed: false,
        policy: None,
        storage: Vec::new(),
    }
}

fn pod(pool: &PoolName, n: u8) -> PodWorker {
    PodWorker {
        id: fresh_id(),
        pool: pool.clone(),
        tenant: None,
        pod: format!("media/p-{n}"),
        node: Some("n1".into()),
        key: [n; 32],
    }
}

async fn pools(store: &dyn Store) {
    let first = pool("cpu", "cpu-worker", "u1", 2);
    assert_eq!(store.put_pool(&first).await.unwrap(), Pushed::Done);
    assert_eq!(store.put_pool(&first).await.unwrap(), Pushed::Done, "again");
    assert_eq!(store.pool_of(&first.account).await.unwrap(), Some(first.clone()));
    assert_eq!(store.put_pool(&pool("cpu", "cpu-worker", "u1", 1)).await.unwrap(), Pushed::Stale(2));
    let storage = vec!["192.0.2.0/24:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
    let later =
        PoolRecord { policy: Some("p".into()), closed: true, storage, ..pool("cpu", "cpu-worker", "u1", 3) };
    assert_eq!(store.put_pool(&later).await.unwrap(), Pushed::Done);
    assert_eq!(store.pools().await.unwrap(), std::slice::from_ref(&later));
    // The name from another namespace, and the account for another name.
    let mut elsewhere = pool("cpu", "cpu-worker", "u2", 9);
    elsewhere.account.namespace = "other".into();
    assert!(matches!(store.put_pool(&elsewhere).await.unwrap(), Pushed::Taken(_)));
    assert!(matches!(store.put_pool(&pool("gpu", "cpu-worker", "u2", 9)).await.unwrap(), Pushed::Taken(_)));
    let nobody = PoolRecord { tenant: Some(fresh_id()), ..pool("gpu", "gpu-worker", "u3", 1) };
    assert_eq!(store.put_pool(&nobody).await.unwrap(), Pushed::Missing("tenant"));
    assert_eq!(store.pools().await.unwrap(), [later]);
    // Made anew under its old name: its generation begins again.
    let anew = pool("cpu", "cpu-worker", "u4", 1);
    assert_eq!(store.put_pool(&anew).await.unwrap(), Pushed::Done);
    assert!(!store.delete_pool(&anew.name, "u1").await.unwrap(), "another's UID");
    assert!(store.delete_pool(&anew.name, "u4").await.unwrap());
    assert!(!store.delete_pool(&anew.name, "u4").await.unwrap());
    assert_eq!(store.pool_of(&anew.account).await.unwrap(), None);
}

async fn tenants(store: &dyn Store) {
    let tenant = PushedTenant {
        id: fresh_id(),
        name: "pushed".into(),
        uid: "t1".into(),
        generation: 2,
        weight: 300,
        limits: TenantLimits { running_tasks: Some(2), ..TenantLimits::default() },
        storage: None,
        webhooks: Vec::new(),
        rules: Vec::new(),
    };
    assert_eq!(store.put_tenant(&tenant, T0).await.unwrap(), Pushed::Done);
    assert_eq!(store.put_tenant(&tenant, T0).await.unwrap(), Pushed::Done, "again");
    assert_eq!(store.tenant_named("pushed").await.unwrap(), Some(tenant.id));
    assert_eq!(store.tenant_limits(tenant.id).await.unwrap(), Some(tenant.limits));
    assert!(store.tenant_weights().await.unwrap().contains(&(tenant.id, 300)));
    // What no resource can say is set here and stays; what it can, goes when it says so no more.
    let set = TenantLimits {
        retention_days: Some(30),
        job_core_seconds: Some(9),
        burst: Some(7),
        copy: Some(true),
        unfinished_uploads: Some(4),
        ..tenant.limits
    };
    assert!(store.set_tenant_limits(tenant.id, &set).await.unwrap());
    let limits = TenantLimits { minutes_per_day: Some(60), ..TenantLimits::default() };
    let tenant = PushedTenant { generation: 2, limits, ..tenant };
    assert_eq!(store.put_tenant(&tenant, T0).await.unwrap(), Pushed::Done);
    let both = TenantLimits { running_tasks: None, minutes_per_day: Some(60), ..set };
    assert_eq!(store.tenant_limits(tenant.id).await.unwrap(), Some(both));
    let older = PushedTenant { generation: 1, weight: 1, ..tenant.clone() };
    assert_eq!(store.put_tenant(&older, T0).await.unwrap(), Pushed::Stale(2));
    // A name stays with its id, whoever made it.
    let other = PushedTenant { id: fresh_id(), ..tenant.clone() };
    assert!(matches!(store.put_tenant(&other, T0).await.unwrap(), Pushed::Taken(_)));
    let renamed = PushedTenant { name: "renamed".into(), generation: 3, ..tenant.clone() };
    assert!(matches!(store.put_tenant(&renamed, T0).await.unwrap(), Pushed::Taken(_)));
    assert_eq!(make(store, "pushed").await.tenant, tenant.id);
}

/// A webhook as a resource names it, with what it gets where it is not there yet: something else each time.
fn managed(name: &str, url: &str) -> ManagedWebhook {
    let id = fresh_id();
    let salt = Salt { salt: format!("{:032x}", id.as_u128()), until: None };
    ManagedWebhook { name: name.into(), url: url.into(), types: vec![MessageType::Failed], id, salt }
}

async fn managed_webhooks(store: &Arc<dyn Store>) {
    let (made, other) =
        (make(&**store, "managed webhooks").await, make(&**store, "other managed webhooks").await);
    let push = async |generation: u64, wanted: &[(&str, &str)]| {
        let tenant = PushedTenant {
            id: made.tenant,
            name: "managed webhooks".into(),
            uid: "t3".into(),
            generation,
            weight: 100,
            limits: TenantLimits::default(),
            storage: None,
            webhooks: wanted.iter().map(|(name, url)| managed(name, url)).collect(),
            rules: Vec::new(),
        };
        store.put_tenant(&tenant, T1).await.unwrap()
    };
    let own = async |tenant| WebhookRecord {
        id: fresh_id(),
        tenant,
        url: "https://own.example/".into(),
        types: vec![MessageType::Created],
        description: None,
        managed: None,
        disabled: None,
        cursor: store.last_event(tenant).await.unwrap(),
        salts: vec![Salt { salt: "00".into(), until: None }],
        created_at: T0,
        succeeded_at: None,
    };
    let (mine, theirs) = (own(made.tenant).await, own(other.tenant).await);
    for webhook in [&mine, &theirs] {
        assert_eq!(store.add_webhook(webhook, 1, None, b"").await.unwrap(), Once::Done(true));
    }
    let here = async || -> Vec<WebhookRecord> {
        let mut all = store.webhooks(made.tenant).await.unwrap();
        assert_eq!(store.webhooks(other.tenant).await.unwrap(), std::slice::from_ref(&theirs));
        assert!(all.contains(&mine), "the tenant's own is as it was: {all:?}");
        all.retain(|webhook| webhook.id != mine.id);
        all.sort_by(|a, b| a.managed.cmp(&b.managed));
        all
    };
    let (a, b) = (("a", "https://a.example/"), ("b", "https://b.example/"));
    assert_eq!(push(2, &[a, b]).await, Pushed::Done);
    let first = here().await;
    let told: Vec<_> =
        first.iter().map(|w| (w.managed.as_deref(), &*w.url, &*w.types, w.created_at)).collect();
    let types = [MessageType::Failed];
    assert_eq!(told, [(Some(a.0), a.1, &types[..], T1), (Some(b.0), b.1, &types[..], T1)]);
    // Again, an older copy, and sixteen at once: ids and salts are what they were.
    assert_eq!(push(2, &[b, a]).await, Pushed::Done);
    assert_eq!(push(1, &[]).await, Pushed::Stale(2));
    let both = [a, b];
    let pushes = futures_util::future::join_all((0..16).map(|_| push(2, &both))).await;
    assert_eq!(pushes, [const { Pushed::Done }; 16]);
    assert_eq!(here().await, first);
    // They take none of what the tenant may make itself.
    let full = store.add_webhook(&own(made.tenant).await, 1, None, b"").await.unwrap();
    assert_eq!(full, Once::Done(false));
    let second = own(made.tenant).await;
    assert_eq!(store.add_webhook(&second, 2, None, b"").await.unwrap(), Once::Done(true));
    assert!(store.delete_webhook(made.tenant, second.id).await.unwrap());

    // One that was disabled stays so while nothing of it changes; another address is a new beginning, with the secrets that it has.
    let (job, _) = submit(&**store, &made).await;
    let head = store.last_event(made.tenant).await.unwrap();
    let message =
        |body: &str| NewDelivery { id: fresh_id(), kind: MessageType::Failed, job, body: body.into() };
    for webhook in &first {
        assert!(store.fan_out(webhook.id, webhook.cursor, head, &[message("{}")], T0).await.unwrap());
    }
    let claimed = store.claim_deliveries(T0, T1, 1_000, 1_000, &[]).await.unwrap();
    let (delivery, _) = claimed.into_iter().find(|(d, _)| d.webhook == first[0].id).unwrap();
    let gone = AttemptEnd {
        state: DeliveryState::Failed,
        next_at: T1,
        status: Some(410),
        error: Some("gone".into()),
        disable: Some(Disabled::Gone),
    };
    assert!(store.end_attempt(delivery.id, delivery.attempts, &gone, T0).await.unwrap());
    assert_eq!(push(3, &[a, b]).await, Pushed::Done);
    let disabled = here().await.remove(0);
    assert_eq!((disabled.disabled, disabled.cursor), (Some(Disabled::Gone), head));
    submit(&**store, &made).await;
    let head = store.last_event(made.tenant).await.unwrap();
    assert_eq!(push(4, &[("a", "https://new.example/"), b]).await, Pushed::Done);
    let moved = WebhookRecord {
        url: "https://new.example/".into(),
        disabled: None,
        cursor: head,
        ..first[0].clone()
    };
    assert_eq!(here().await[0], moved);

    // What somebody edited or deleted is there again; what the resource names no more goes, with its messages.
    assert!(store.delete_webhook(made.tenant, moved.id).await.unwrap());
    assert_eq!(push(4, &[("a", "https://new.example/")]).await, Pushed::Done);
    let again = here().await;
    assert_eq!(again.iter().map(|w| w.managed.as_deref()).collect::<Vec<_>>(), [Some("a")]);
    assert_ne!((again[0].id, &again[0].salts), (moved.id, &moved.salts), "with a secret of its own");
    assert_eq!(store.deliveries(made.tenant, first[1].id, None, 10).await.unwrap(), []);
    assert_eq!(push(5, &[]).await, Pushed::Done);
    assert_eq!(here().await, []);
}

async fn pods(store: &dyn Store) {
    let pool = pool("pods", "pods-worker", "u5", 1);
    store.put_pool(&pool).await.unwrap();
    let one = pod(&pool.name, 1);
    let expires = T1.plus_ms(1);
    assert_eq!(store.add_pod(&one, 2, T1, T0).await.unwrap(), PodAdded::Done);
    assert_eq!(store.add_pod(&one, 2, expires, T0).await.unwrap(), PodAdded::Done, "its own key again");
    let thief = PodWorker { key: [9; 32], ..one.clone() };
    assert_eq!(store.add_pod(&thief, 2, expires, T0).await.unwrap(), PodAdded::Other);
    let moved = PodWorker { pool: "default".parse().unwrap(), ..one.clone() };
    assert_eq!(store.add_pod(&moved, 2, expires, T0).await.unwrap(), PodAdded::Other);
    let record = store.worker(one.id).await.unwrap().unwrap();
    assert_eq!((record.pod.as_deref(), record.node.as_deref()), (Some("media/p-1"), Some("n1")));
    assert!(!record.cordoned && !record.revoked);
    // As many as the pool may have; one whose certificate has expired does not count.
    let (two, three) = (pod(&pool.name, 2), pod(&pool.name, 3));
    assert_eq!(store.add_pod(&two, 2, expires, T0).await.unwrap(), PodAdded::Done);
    assert_eq!(store.add_pod(&three, 2, expires, T0).await.unwrap(), PodAdded::TooMany);
    assert_eq!(store.add_pod(&one, 2, expires, T0).await.unwrap(), PodAdded::Done, "one that counts already");
    assert_eq!(store.workers(T0).await.unwrap().len(), 2);
    assert_eq!(store.workers(expires).await.unwrap(), []);
    assert_eq!(store.add_pod(&three, 2, expires.plus_ms(9), expires).await.unwrap(), PodAdded::Done);
    assert!(store.revoke_worker(one.id, T1).await.unwrap());
    assert!(!store.revoke_worker(fresh_id(), T1).await.unwrap());
    assert_eq!(store.add_pod(&one, 9, expires, T0).await.unwrap(), PodAdded::Revoked);
    assert!(store.worker(one.id).await.unwrap().unwrap().revoked);
    assert_eq!(store.revoked(T1).await.unwrap(), [one.id]);
    assert_eq!(store.revoked(T1.plus_ms(1)).await.unwrap(), []);
    store.delete_pool(&pool.name, "u5").await.unwrap();
}

async fn cordons(store: &Arc<dyn Store>) {
    let made = make(&**store, "cordons").await;
    let default: PoolName = PoolName::default();
    let record = PoolRecord { name: default.clone(), max_workers: 9, ..pool("x", "default-worker", "u6", 1) };
    store.put_pool(&record).await.unwrap();
    let (busy, idle, later) = (pod(&default, 1), pod(&default, 2), pod(&default, 3));
    for pod in [&busy, &idle] {
        store.add_pod(pod, 9, T1, T0).await.unwrap();
    }
    let (_, task) = submit(&**store, &made).await;
    let Leased::Granted(live) = store.lease(&lease_of(task, busy.id, T0)).await.unwrap() else { panic!() };
    let seen = |id: WorkerId| {
        let store = Arc::clone(store);
        async move {
            let all = store.workers(T0).await.unwrap();
            all.into_iter().find(|(_, w)| w.id == id).map(|(_, w)| (w.busy, w.cordoned))
        }
    };
    assert_eq!(seen(busy.id).await, Some((true, false)));
    // Whoever is at work stays as it is; who is not, and who has not come yet, gets nothing more.
    let mut done = store.cordon(&default, &[busy.id, idle.id, later.id], T0).await.unwrap();
    done.sort();
    let mut expected = vec![idle.id, later.id];
    expected.sort();
    assert_eq!(done, expected);
    assert_eq!(seen(busy.id).await, Some((true, false)));
    assert_eq!(seen(idle.id).await, Some((false, true)));
    assert_eq!(store.cordon(&default, &[idle.id], T0).await.unwrap(), [idle.id], "again");
    assert_eq!(store.cordon(&"gpu".parse().unwrap(), &[idle.id], T0).await.unwrap(), [], "of another pool");
    assert_eq!(seen(later.id).await, None, "it is no worker yet");
    assert_eq!(store.add_pod(&later, 9, T1, T0).await.unwrap(), PodAdded::Done);
    let (_, task) = submit(&**store, &made).await;
    for cordoned in [idle.id, later.id] {
        let leased = store.lease(&lease_of(task, cordoned, T0)).await.unwrap();
        assert!(!matches!(leased, Leased::Granted(_)), "a cordoned worker got a lease");
    }
    assert_eq!(store.uncordon(&default).await.unwrap(), 2);
    // A pool that is closed gives nothing either, nor does a worker that was revoked get anything.
    let closed = PoolRecord { closed: true, generation: 2, ..record.clone() };
    store.put_pool(&closed).await.unwrap();
    assert!(!matches!(store.lease(&lease_of(task, idle.id, T0)).await.unwrap(), Leased::Granted(_)));
    store.put_pool(&PoolRecord { closed: false, generation: 3, ..closed }).await.unwrap();
    store.revoke_worker(later.id, T0).await.unwrap();
    assert!(!matches!(store.lease(&lease_of(task, later.id, T0)).await.unwrap(), Leased::Granted(_)));
    // A lease and a cordon at once: one of them is first, never both.
    settle(&**store, &live.claim, LeaseIs::Held, T0, &Ending::Released).await;
    for _ in 0..8 {
        let (lease, cordon) = {
            let (one, two) = (Arc::clone(store), Arc::clone(store));
            let (id, pool) = (idle.id, default.clone());
            tokio::join!(
                tokio::spawn(async move { one.lease(&lease_of(task, id, T0)).await.unwrap() }),
                tokio::spawn(async move { two.cordon(&pool, &[id], T0).await.unwrap() }),
            )
        };
        match (lease.unwrap(), cordon.unwrap().is_empty()) {
            (Leased::Granted(live), true) => {
                settle(&**store, &live.claim, LeaseIs::Held, T0, &Ending::Released).await;
            }
            (Leased::Granted(_), false) => panic!("cordoned, and at work"),
            (_, cordoned) => assert!(!cordoned, "neither"),
        }
        store.uncordon(&default).await.unwrap();
    }
    store.delete_pool(&default, "u6").await.unwrap();
}

async fn verdicts(store: &dyn Store) {
    let pool = pool("gated", "gated-worker", "u7", 1);
    store.put_pool(&pool).await.unwrap();
    let verdict = |node: &str, verified, expires| Verdict {
        pool: pool.name.clone(),
        policy: "p".into(),
        node: node.into(),
        verified,
        reason: "r".into(),
        expires,
    };
    let put = async |verdict: &Verdict, now| store.put_verdict(verdict, now).await.unwrap();
    assert!(put(&verdict("n1", true, T1), T0).await);
    assert!(put(&verdict("n2", true, T0.plus_ms(1)), T0).await);
    assert!(put(&verdict("n1", false, T1.plus_ms(1)), T0).await);
    let second = verdict("n2", true, T0.plus_ms(1));
    assert_eq!(store.verdicts(T0).await.unwrap(), [verdict("n1", false, T1.plus_ms(1)), second]);
    assert_eq!(store.verdicts(T0.plus_ms(1)).await.unwrap(), [verdict("n1", false, T1.plus_ms(1))]);
    // What has expired does not pile up, whatever policies it was about; its place can be taken again.
    assert!(put(&Verdict { policy: "q".into(), ..verdict("n1", true, T1) }, T0.plus_ms(1)).await);
    assert_eq!(store.verdicts(T0).await.unwrap().len(), 2);
    assert!(put(&verdict("n1", true, T1.plus_ms(5)), T1.plus_ms(2)).await);
    assert_eq!(store.verdicts(T0).await.unwrap(), [verdict("n1", true, T1.plus_ms(5))]);
    let nobodys = Verdict { pool: "nobodys".parse().unwrap(), ..verdict("n1", true, T1) };
    assert!(!put(&nobodys, T0).await, "of a pool that was not pushed");
    store.delete_pool(&pool.name, "u7").await.unwrap();
    assert_eq!(store.verdicts(T0).await.unwrap(), [], "they go with their pool");
}
