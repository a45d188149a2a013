//! The control API: who may use it, and what what is pushed does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/vouched.rs"]
mod vouched;

use common::{show, submit};
use mpegflow_broker::http::control::ROUTES;
use mpegflow_protocol::api::WaitingReason;
use mpegflow_protocol::control::{Cordon, Enroll, Forget, Rule, Storage, Tenant, Verdict, Webhook};
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::intake::Rule as ShownRule;
use mpegflow_protocol::webhook::{MessageType, Webhook as Shown};
use mpegflow_protocol::worker::LeaseReply;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;
use vouched::{control, control_as, csr, operator, pod, pool, put, status, token, world};

const POOL: &str = "/control/v1/pools/default";
const ACCOUNT: &str = "media/default-worker";

#[tokio::test]
async fn nobody_but_the_operator_gets_an_answer_from_any_route() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    assert_eq!(put(&operator, POOL, &pool()).await.0, 204);
    let of_pod = pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    let joined = world.worker().await;
    let tenants = world.tenant("a").await;
    let key = tenants.headers[0].1.clone();
    let path = |route: &str| {
        let id = TenantId::from_u128(1).to_string();
        route.replace("{id}", &id).replace("{pool}", "default").replace("{node}", "n1")
    };
    for (method, route) in ROUTES.iter().filter(|(_, route)| !route.ends_with("/enroll")) {
        let path = path(route);
        let nobody = control(&world).await;
        assert_eq!(nobody.call(method, &path, "{}").await.status, 401, "{method} {path}");
        let with_key = nobody.with("authorization", key.clone());
        assert_eq!(with_key.call(method, &path, "{}").await.status, 401, "a tenant's key: {method} {path}");
        for (worker, name) in [(&of_pod, "a pod's"), (&joined, "a join token's")] {
            let client = control_as(&world, &worker.certificate, &worker.key).await;
            assert_eq!(
                client.call(method, &path, "{}").await.status,
                403,
                "{name} certificate: {method} {path}"
            );
        }
        assert_ne!(operator.call(method, &path, "{}").await.status, 403, "{method} {path}");
        // And none of it is served where workers and tenants are.
        assert_eq!(of_pod.client.call(method, &path, "{}").await.status, 404, "{method} {path}");
        assert_eq!(tenants.call(method, &path, "{}").await.status, 404, "{method} {path}");
    }
    // The certificate itself is for pods of its account alone.
    let key = rcgen::KeyPair::generate().unwrap();
    for account in [ACCOUNT, "media/mpegflow-operator", "mpegflow/mpegflow-operator-2"] {
        let enroll = Enroll { token: token(account, Uuid::new_v4(), "n1"), csr: csr(&key) };
        let body = serde_json::to_vec(&enroll).unwrap();
        let answer = control(&world).await.call("POST", "/control/v1/enroll", body).await;
        assert_eq!(answer.status, 403, "{account}: {}", answer.text());
    }
    // And the operator is nobody's worker.
    assert_eq!(pod(&world, vouched::OPERATOR, Uuid::new_v4(), "n1").await.err().unwrap().0, 403);
    let mut own = pool();
    (own.namespace, own.account) = ("mpegflow".into(), "mpegflow-operator".into());
    assert_eq!(put(&operator, "/control/v1/pools/sly", &own).await.0, 409);
}

#[tokio::test]
async fn what_is_pushed_may_be_pushed_again_and_an_older_generation_changes_nothing() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let mut two = pool();
    two.observed_generation = 2;
    for _ in 0..2 {
        assert_eq!(put(&operator, POOL, &two).await.0, 204);
    }
    let (status, text) = put(&operator, POOL, &pool()).await;
    assert!(status == 409 && text.contains("generation 2"), "{text}");
    let mut other = pool();
    other.namespace = "elsewhere".into();
    let (status, text) = put(&operator, POOL, &other).await;
    assert!(status == 409 && text.contains("media/default-worker"), "{text}");

    let tenant = Tenant { uid: "t".into(), weight: 200, unfinished_jobs: Some(1), ..copy("acme", 3) };
    let id = TenantId::from_u128(7);
    let path = format!("/control/v1/tenants/{id}");
    let mut owned = two.clone();
    (owned.observed_generation, owned.tenant) = (3, Some(id));
    let (status, text) = put(&operator, POOL, &owned).await;
    assert!(status == 422 && text.contains("tenant"), "before its tenant: {text}");
    assert_eq!(put(&operator, &path, &tenant).await.0, 204);
    assert_eq!(put(&operator, &path, &Tenant { observed_generation: 2, ..tenant.clone() }).await.0, 409);
    assert_eq!(put(&operator, &path, &Tenant { weight: 0, ..tenant.clone() }).await.0, 422);
    assert_eq!(put(&operator, POOL, &owned).await.0, 204);
    // Its limits are the tenant's from now on.
    let client = world.tenant("acme").await;
    assert_eq!(world.broker().ensure_tenant("acme").await.unwrap(), id);
    submit(&client, b"x").await;
    let input = common::upload(&client, b"x").await;
    assert_eq!(client.call("POST", "/v1/jobs", common::spec(&input)).await.status, 429);
    // A tenant's own pool works for nobody else, from the first lease on.
    let worker = pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    let stranger = world.tenant("stranger").await;
    submit(&stranger, b"x").await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let record = world.broker().engine().store().worker(worker.id).await.unwrap().unwrap();
    assert_eq!(record.tenant, Some(id));

    let seen = status_of(&operator).await;
    assert_eq!((seen.uid.as_str(), seen.observed_generation), ("uid-1", 3));
    for _ in 0..2 {
        let body = serde_json::to_vec(&Forget { uid: "uid-1".into() }).unwrap();
        assert_eq!(operator.call("DELETE", POOL, body).await.status, 204);
    }
    assert_eq!(pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.err().unwrap().0, 403, "its pool is gone");
}

/// A tenant's resource at that generation that asks for nothing.
fn copy(name: &str, generation: u64) -> Tenant {
    Tenant {
        name: name.into(),
        uid: name.into(),
        observed_generation: generation,
        weight: 100,
        unfinished_jobs: None,
        running_tasks: None,
        upload_bytes: None,
        minutes_per_day: None,
        storage: None,
        webhooks: Vec::new(),
        intake: Vec::new(),
    }
}

/// A place in a tenant's own storage.
fn storage(prefix: &str, secret: &str) -> Storage {
    Storage {
        bucket: "films".into(),
        prefix: prefix.into(),
        endpoint: Some("https://s3.example".into()),
        region: None,
        path_style: true,
        role_arn: None,
        secret: Some(secret.into()),
    }
}

async fn status_of(operator: &common::Client) -> mpegflow_protocol::control::PoolStatus {
    status(operator).await.pools.remove(0)
}

#[tokio::test]
async fn a_pool_has_no_more_workers_than_it_may() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let mut small = pool();
    small.max_workers = 2;
    assert_eq!(put(&operator, POOL, &small).await.0, 204);
    for _ in 0..2 {
        pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    }
    let (status, text) = pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.err().unwrap();
    assert!(status == 429 && text.contains("as many workers"), "{status} {text}");
}

#[tokio::test]
async fn whoever_is_idle_is_cordoned_and_whoever_is_busy_goes_on() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    put(&operator, POOL, &pool()).await;
    let uids = [Uuid::new_v4(), Uuid::new_v4()];
    let busy = pod(&world, ACCOUNT, uids[0], "n1").await.unwrap();
    let idle = pod(&world, ACCOUNT, uids[1], "n1").await.unwrap();
    let tenant = world.tenant("a").await;
    submit(&tenant, b"x").await;
    let lease = busy.lease().await;
    let cordon = Cordon { pods: uids.iter().map(ToString::to_string).collect() };
    let answer = operator.call("POST", &format!("{POOL}/cordon"), serde_json::to_vec(&cordon).unwrap()).await;
    assert_eq!(answer.json::<Cordon>().pods, [uids[1].to_string()]);
    let seen = status_of(&operator).await;
    let find = |uid: Uuid| {
        let worker = seen.workers.iter().find(|worker| worker.pod == uid.to_string()).unwrap();
        (worker.busy, worker.cordoned)
    };
    assert_eq!((find(uids[0]), find(uids[1])), ((true, false), (false, true)));
    assert_eq!(busy.finish(&lease).await.status, 204);
    // What follows is ready; the cordoned one gets nothing of it.
    assert!(matches!(idle.ask(300).await, LeaseReply::Idle {}));
    let lease = busy.lease().await;
    assert_eq!(busy.end(&lease, "release", vec![]).await.status, 204);
    assert_eq!(operator.call("POST", &format!("{POOL}/uncordon"), "").await.status, 204);
    assert!(matches!(idle.ask(5_000).await, LeaseReply::Lease(_)));
    // A pool that is deleted lets what runs end and begins nothing.
    let mut closed = pool();
    (closed.observed_generation, closed.closed) = (2, true);
    assert_eq!(put(&operator, POOL, &closed).await.0, 204);
    submit(&tenant, b"x").await;
    assert!(matches!(busy.ask(300).await, LeaseReply::Idle {}));
}

#[tokio::test]
async fn a_gated_pool_gets_work_only_while_a_verdict_on_its_policies_and_node_is_fresh() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let mut gated = pool();
    gated.policy = Some("policies-1".into());
    assert_eq!(put(&operator, POOL, &gated).await.0, 204);
    let worker = pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    let joined = world.worker().await;
    let tenant = world.tenant("a").await;
    let job = submit(&tenant, b"x").await;
    let verdict = async |node: &str, policy: &str, verified: bool, expires_in_s: u32| {
        let body = Verdict {
            policy: policy.into(),
            verified,
            reason: "the API server answers".into(),
            expires_in_s,
        };
        assert_eq!(put(&operator, &format!("{POOL}/verdicts/{node}"), &body).await.0, 204);
    };
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "without a verdict");
    assert!(matches!(joined.ask(300).await, LeaseReply::Idle {}), "a join token is no way around it");
    let waits = async |part: &str| {
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let waiting = show(&tenant, &job).await.waiting;
            if waiting.as_ref().is_some_and(|w| w.reason == WaitingReason::Gate && w.message.contains(part)) {
                let Some(waiting) = status_of(&operator).await.waiting else { continue };
                assert_eq!(waiting.reason, WaitingReason::Gate);
                return;
            }
        }
        panic!("{:?}", show(&tenant, &job).await.waiting);
    };
    waits("no fresh verdict").await;
    verdict("n1", "policies-0", true, 60).await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "about other policies");
    verdict("n1", "policies-1", false, 60).await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "that they do not hold");
    waits("the API server answers").await;
    verdict("n2", "policies-1", true, 60).await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "of another node");
    verdict("n1", "policies-1", true, 0).await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "an old one");
    verdict("n1", "policies-1", true, 60).await;
    let lease = worker.lease().await;
    // It fails later: what runs ends, nothing new begins.
    verdict("n1", "policies-1", false, 60).await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}));
}

#[tokio::test]
async fn a_pod_whose_tenant_has_nothing_while_others_do_is_to_be_replaced_and_never_works_again() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    put(&operator, POOL, &pool()).await;
    let uid = Uuid::new_v4();
    let worker = pod(&world, ACCOUNT, uid, "n1").await.unwrap();
    let (one, other) = (world.tenant("one").await, world.tenant("other").await);
    submit(&one, b"x").await;
    assert!(worker.run().await > 0);
    assert!(!status_of(&operator).await.workers[0].retired);
    submit(&other, b"x").await;
    assert!(matches!(worker.ask(5_000).await, LeaseReply::Retire {}));
    assert!(status_of(&operator).await.workers[0].retired);
    // However often its container starts: the pod is who it was.
    submit(&one, b"x").await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Retire {}));
    let fresh = pod(&world, ACCOUNT, Uuid::new_v4(), "n1").await.unwrap();
    fresh.lease().await;
}

#[tokio::test]
async fn a_tenants_storage_is_what_its_resource_says_and_never_another_ones() {
    let world = world(|config| config.tenant_storage.secrets = Some(config.data_dir.clone())).await;
    let operator = operator(&world).await;
    let storage = |prefix: &str| storage(prefix, "acme");
    let tenant =
        |name: &str, generation: u64, storage: Option<Storage>| Tenant { storage, ..copy(name, generation) };
    let path = |n: u128| format!("/control/v1/tenants/{}", TenantId::from_u128(n));
    let store = world.broker().engine().store();
    let here = async |n: u128| store.storage_of(TenantId::from_u128(n)).await.unwrap().map(|s| s.raw());
    assert_eq!(put(&operator, &path(1), &tenant("acme", 1, Some(storage("acme/")))).await.0, 204);
    let expected = Storage { region: Some("us-east-1".into()), ..storage("acme/") };
    assert_eq!(here(1).await, Some(expected.clone()));
    let arn = "arn:aws:iam::123456789012:role/r";
    for (bad, part) in [
        (Storage { secret: Some("../acme".into()), ..storage("b/") }, "secret's name"),
        (Storage { secret: None, ..storage("b/") }, "exactly one"),
        (Storage { role_arn: Some(arn.into()), ..storage("b/") }, "exactly one"),
        (Storage { role_arn: Some(arn.into()), secret: None, ..storage("b/") }, "tenant_storage.credentials"),
        (Storage { endpoint: Some("http://s3.example".into()), ..storage("b/") }, "https://"),
        (Storage { endpoint: Some("https://u@s3.example/x".into()), ..storage("b/") }, "endpoint"),
        (storage("b"), "prefix"),
        (storage("../b/"), "prefix"),
        (Storage { bucket: "a/b".into(), ..storage("b/") }, "bucket"),
    ] {
        let (status, text) = put(&operator, &path(2), &tenant("other", 1, Some(bad.clone()))).await;
        assert!(status == 422 && text.contains("\"storage\"") && text.contains(part), "{bad:?}: {text}");
    }
    for theirs in ["", "acme/", "acme/deep/"] {
        let (status, text) = put(&operator, &path(2), &tenant("other", 1, Some(storage(theirs)))).await;
        assert!(status == 409 && text.contains("acme"), "{theirs}: {text}");
        assert!(store.tenant_named("other").await.unwrap().is_none(), "nothing of it is there");
    }
    assert_eq!(put(&operator, &path(2), &tenant("other", 1, Some(storage("other/")))).await.0, 204);
    // What lies there does not move; how the broker gets in may change, and what has nothing may go.
    let client = world.tenant("acme").await;
    let announced = client.call("POST", "/v1/uploads", r#"{"size":1}"#).await;
    assert_eq!(announced.status, 201, "{}", announced.text());
    for elsewhere in [None, Some(storage("acme/deep/"))] {
        let (status, text) = put(&operator, &path(1), &tenant("acme", 2, elsewhere)).await;
        assert!(status == 409 && text.contains("uploads or jobs"), "{text}");
        assert_eq!(here(1).await, Some(expected.clone()));
    }
    let rotated = Storage { secret: Some("acme-2".into()), ..storage("acme/") };
    assert_eq!(put(&operator, &path(1), &tenant("acme", 2, Some(rotated))).await.0, 204);
    assert_eq!(here(1).await.unwrap().secret.as_deref(), Some("acme-2"));
    assert_eq!(put(&operator, &path(2), &tenant("other", 2, None)).await.0, 204);
    assert_eq!(here(2).await, None);
}

#[tokio::test]
async fn a_job_goes_to_its_tenants_own_pool_or_to_a_shared_one_that_it_names_and_to_no_other_tenants() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let id = TenantId::from_u128(7);
    let tenant = Tenant { uid: "t".into(), ..copy("acme", 1) };
    assert_eq!(put(&operator, &format!("/control/v1/tenants/{id}"), &tenant).await.0, 204);
    let push = async |name: &str, owner: Option<TenantId>, closed: bool| {
        let mut pool = pool();
        (pool.account, pool.uid) = (format!("{name}-worker"), format!("uid-{name}"));
        (pool.tenant, pool.closed) = (owner, closed);
        pool.observed_generation = if closed { 2 } else { 1 };
        let (status, text) = put(&operator, &format!("/control/v1/pools/{name}"), &pool).await;
        assert_eq!(status, 204, "{text}");
    };
    push("default", None, false).await;
    push("acme-own", Some(id), false).await;
    push("gpu-t4", None, false).await;
    let (acme, stranger) = (world.tenant("acme").await, world.tenant("stranger").await);
    let submit_to = async |client: &common::Client, pool: Option<&str>| {
        let upload = common::upload(client, b"x").await;
        let mut spec: serde_json::Value = serde_json::from_str(&common::spec(&upload)).unwrap();
        if let Some(pool) = pool {
            spec["pool"] = pool.into();
        }
        client.call("POST", "/v1/jobs", spec.to_string()).await
    };
    // A tenant names its own, a shared one, and one whose workers join by tokens.
    world.join_file().await;
    for pool in ["acme-own", "gpu-t4", "default"] {
        let answer = submit_to(&acme, Some(pool)).await;
        assert_eq!(answer.status, 201, "{pool}: {}", answer.text());
    }
    // What is another's is told as what is not there.
    for pool in ["acme-own", "nowhere"] {
        let answer = submit_to(&stranger, Some(pool)).await;
        assert_eq!(answer.status, 422, "{pool}: {}", answer.text());
        assert!(
            answer.problem() == "invalid_field" && answer.text().contains(r#""field":"pool""#),
            "{}",
            answer.text()
        );
    }
    let refused = |answer: common::Answer| answer.text().replace("acme-own", "nowhere");
    assert_eq!(
        refused(submit_to(&stranger, Some("acme-own")).await),
        refused(submit_to(&stranger, Some("nowhere")).await)
    );
    for pool in ["", "Acme", "a/b", "../x"] {
        assert_ne!(submit_to(&acme, Some(pool)).await.status, 201, "{pool:?}");
    }

    // Left out, it is the own pool, which is known a second after it was pushed at the latest; for others `default`.
    let worker = pod(&world, "media/acme-own-worker", Uuid::new_v4(), "n1").await.unwrap();
    assert!(matches!(worker.ask(5_000).await, LeaseReply::Lease(_)), "the one that was named");
    common::eventually("the own pool is known", async || {
        assert_eq!(submit_to(&acme, None).await.status, 201);
        matches!(worker.ask(0).await, LeaseReply::Lease(_))
    })
    .await;
    let gpu = pod(&world, "media/gpu-t4-worker", Uuid::new_v4(), "n3").await.unwrap();
    assert!(matches!(gpu.ask(5_000).await, LeaseReply::Lease(_)), "the one that was named");
    assert!(!matches!(gpu.ask(0).await, LeaseReply::Lease(_)), "and nothing else");
    let shared = pod(&world, ACCOUNT, Uuid::new_v4(), "n2").await.unwrap();
    while let LeaseReply::Lease(_) = shared.ask(0).await {}
    assert_eq!(submit_to(&stranger, None).await.status, 201);
    let fresh = pod(&world, ACCOUNT, Uuid::new_v4(), "n2").await.unwrap();
    assert!(matches!(fresh.ask(5_000).await, LeaseReply::Lease(_)), "the stranger's, from `default`");

    // A pool that is being deleted takes no more.
    push("gpu-t4", None, true).await;
    common::eventually("nobody can name it", async || submit_to(&acme, Some("gpu-t4")).await.status == 422)
        .await;
}

#[tokio::test]
async fn a_pools_storage_is_what_its_resource_says_at_that_generation() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let store = world.broker().engine().store();
    let here = async || store.pools().await.unwrap().remove(0).storage;
    let mut presigned = pool();
    presigned.storage = vec!["192.0.2.0/24:443".parse().unwrap()];
    assert_eq!(put(&operator, POOL, &presigned).await.0, 204);
    assert_eq!(here().await, presigned.storage);
    for bad in ["s3.example.com:443", "192.0.2.1", "192.0.2.1/33:443", ""] {
        let mut body = serde_json::to_value(pool()).unwrap();
        body["storage"] = serde_json::json!([bad]);
        assert_eq!(put(&operator, POOL, &body).await.0, 422, "{bad}");
    }
    let mut many = presigned.clone();
    many.storage = vec![presigned.storage[0]; 17];
    assert_eq!(put(&operator, POOL, &many).await.0, 422);
    assert_eq!(here().await, presigned.storage);
    // A later copy by a broker of the version before, which knows no such column: whatever was there does not count.
    let db = sqlx::SqlitePool::connect(&format!("sqlite:{}/broker.db", world.config.data_dir.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE pools SET generation = 2").execute(&db).await.unwrap();
    assert_eq!(here().await, []);
    sqlx::query("UPDATE pools SET generation = 1, uid = 'another'").execute(&db).await.unwrap();
    assert_eq!(here().await, []);
}

#[tokio::test]
async fn the_webhooks_of_a_tenants_resource_are_kept_as_it_says_and_the_tenants_own_are_not_touched() {
    let world = world(|_| {}).await;
    let operator = operator(&world).await;
    let hook = |name: &str, url: &str| Webhook {
        name: name.into(),
        url: url.into(),
        types: vec![MessageType::Failed, MessageType::Succeeded, MessageType::Failed],
    };
    let tenant = |name: &str, generation: u64, webhooks: Vec<Webhook>| Tenant {
        weight: 200,
        webhooks,
        ..copy(name, generation)
    };
    let path = |n: u128| format!("/control/v1/tenants/{}", TenantId::from_u128(n));
    let (ops, audit) = (hook("ops", "https://a.example/in"), hook("audit", "https://b.example/in"));
    for _ in 0..2 {
        let pushed = put(&operator, &path(1), &tenant("acme", 1, vec![ops.clone(), audit.clone()])).await;
        assert_eq!(pushed.0, 204, "{}", pushed.1);
    }
    assert_eq!(put(&operator, &path(2), &tenant("other", 1, vec![ops.clone()])).await.0, 204);
    let (acme, other) = (world.tenant("acme").await, world.tenant("other").await);
    let list = async |client: &common::Client| client.get("/v1/webhooks").await.json::<Vec<Shown>>();
    let managed =
        |all: &[Shown]| all.iter().map(|w| (w.managed.clone(), w.url.clone())).collect::<BTreeSet<_>>();
    let expected = |hooks: &[&Webhook]| {
        hooks.iter().map(|hook| (Some(hook.name.clone()), hook.url.clone())).collect::<BTreeSet<_>>()
    };
    let first = list(&acme).await;
    assert_eq!(managed(&first), expected(&[&ops, &audit]));
    for webhook in &first {
        assert_eq!(webhook.types, [MessageType::Succeeded, MessageType::Failed]);
        assert_eq!((webhook.enabled, webhook.secrets, &webhook.secret), (true, 1, &None));
    }
    let theirs = list(&other).await;

    // The tenant sees it, gets its secret, and has its own beside it; it is not the tenant's to delete.
    let made = acme.call("POST", "/v1/webhooks", r#"{"url":"https://own.example/"}"#).await;
    let own = Shown { secret: None, ..made.json::<Shown>() };
    assert_eq!((made.status.as_u16(), &own.managed), (201, &None));
    let of_ops = first.iter().find(|w| w.managed.as_deref() == Some("ops")).unwrap();
    let at = format!("/v1/webhooks/{}", of_ops.id);
    let refused = acme.call("DELETE", &at, "").await;
    assert_eq!((refused.status.as_u16(), &*refused.problem()), (409, "managed"));
    assert!(refused.text().contains("`ops` in spec.webhooks"), "{}", refused.text());
    assert_eq!(other.call("DELETE", &at, "").await.status, 404, "another tenant learns nothing of it");
    let rotated: Shown = acme.call("POST", &format!("{at}/rotate"), "").await.json();
    assert!(rotated.secret.unwrap().starts_with("whsec_") && rotated.secrets == 2);
    assert_eq!(acme.call("POST", &format!("{at}/enable"), "").await.status, 200);
    assert_eq!(put(&operator, &path(1), &tenant("acme", 2, vec![audit.clone(), ops.clone()])).await.0, 204);
    let with_own = list(&acme).await;
    assert_eq!(with_own.len(), 3);
    for webhook in &with_own {
        let secrets = if webhook.id == of_ops.id { 2 } else { 1 };
        let before = first.iter().chain([&own]).find(|w| w.id == webhook.id).unwrap();
        assert_eq!(*webhook, Shown { secrets, ..before.clone() }, "a push leaves it as it is");
    }

    // What cannot be one is refused by its field, and nothing of that copy is taken.
    let many = (0..9).map(|n| hook(&format!("ops-{n}"), "https://a.example/")).collect();
    for (bad, field, part) in [
        (vec![hook("ops", "http://a.example/")], "webhooks[ops].url", "https://"),
        (vec![audit.clone(), hook("ops", "https://a.example:8443/")], "webhooks[ops].url", "port"),
        (vec![hook("ops", "https://localhost/")], "webhooks[ops].url", "host"),
        (vec![hook("ops", "https://u:p@a.example/")], "webhooks[ops].url", "password"),
        (vec![Webhook { types: vec![], ..ops.clone() }], "webhooks[ops].types", "one at least"),
        (vec![ops.clone(), ops.clone()], "webhooks[ops].name", "already"),
        (vec![hook("", "https://a.example/")], "webhooks", "63"),
        (many, "webhooks", "at most 8"),
    ] {
        let copy = Tenant { weight: 700, ..tenant("acme", 3, bad) };
        let (status, text) = put(&operator, &path(1), &copy).await;
        let named = text.contains(&format!(r#""field":"{field}""#));
        assert!(status == 422 && named && text.contains(part), "{field}, {part}: {text}");
        assert!(!text.contains("a.example"), "a URL may hold a token: {text}");
        assert_eq!(list(&acme).await, with_own);
    }
    let weights = world.broker().engine().store().tenant_weights().await.unwrap();
    assert!(weights.contains(&(TenantId::from_u128(1), 200)), "{weights:?}");

    // Another address, and one that is named no more.
    let moved = hook("ops", "https://c.example/in");
    assert_eq!(put(&operator, &path(1), &tenant("acme", 3, vec![moved.clone()])).await.0, 204);
    let mut now = list(&acme).await;
    now.sort_by_key(|webhook| webhook.id);
    assert_eq!(now.iter().map(|w| w.id).collect::<Vec<_>>(), [of_ops.id, own.id]);
    assert_eq!(
        (now[0].url.as_str(), now[0].secrets),
        ("https://c.example/in", 2),
        "with the secrets that it has"
    );
    assert_eq!(put(&operator, &path(1), &tenant("acme", 4, vec![])).await.0, 204);
    assert_eq!(list(&acme).await, std::slice::from_ref(&own));
    assert_eq!(list(&other).await, theirs, "another tenant's, of the same name");
    assert_eq!(acme.call("DELETE", &format!("/v1/webhooks/{}", own.id), "").await.status, 204);
}

#[tokio::test]
async fn the_intake_of_a_tenants_resource_is_kept_as_it_says_and_the_tenants_own_rules_are_not_touched() {
    let world = world(|config| config.tenant_storage.secrets = Some(config.data_dir.clone())).await;
    let operator = operator(&world).await;
    let rule = |name: &str, says: serde_json::Value| Rule {
        name: name.into(),
        rule: serde_json::from_value(says).unwrap(),
    };
    let job = || serde_json::json!({ "version": 1, "preset": "web", "external_id": "{stem}" });
    let storage = |name: &str| storage(&format!("{name}/"), name);
    let tenant = |name: &str, generation: u64, intake: Vec<Rule>| Tenant {
        storage: Some(storage(name)),
        intake,
        ..copy(name, generation)
    };
    let path = |n: u128| format!("/control/v1/tenants/{}", TenantId::from_u128(n));
    let movies = rule("movies", serde_json::json!({ "prefix": "in/", "suffix": ".mov", "job": job() }));
    let rest = rule("rest", serde_json::json!({ "prefix": "rest/", "existing": true, "job": job() }));
    for _ in 0..2 {
        let pushed = put(&operator, &path(1), &tenant("acme", 1, vec![movies.clone(), rest.clone()])).await;
        assert_eq!(pushed.0, 204, "{}", pushed.1);
    }
    let acme = world.tenant("acme").await;
    let list = async || {
        let mut all = acme.get("/v1/intake/rules").await.json::<Vec<ShownRule>>();
        all.sort_by(|a, b| a.managed.cmp(&b.managed));
        all
    };
    let first = list().await;
    let names: Vec<_> =
        first.iter().map(|rule| (rule.managed.as_deref(), &*rule.prefix, rule.existing)).collect();
    assert_eq!(names, [(Some("movies"), "in/", false), (Some("rest"), "rest/", true)]);

    let own = serde_json::json!({ "prefix": "own/", "job": job() }).to_string();
    let own: ShownRule = acme.call("POST", "/v1/intake/rules", own).await.json();
    let at = format!("/v1/intake/rules/{}", first[0].id);
    let refused = acme.call("DELETE", &at, "").await;
    assert_eq!((refused.status.as_u16(), &*refused.problem()), (409, "managed"));
    assert!(refused.text().contains("`movies` in spec.intake"), "{}", refused.text());
    assert_eq!(acme.call("POST", &format!("{at}/look"), "").await.status, 202);
    let with_own = list().await;
    assert_eq!(put(&operator, &path(1), &tenant("acme", 2, vec![rest.clone(), movies.clone()])).await.0, 204);
    assert_eq!(list().await, with_own, "a push leaves all as it is");

    // What cannot be one is refused by its field, and nothing of that copy is taken.
    let odd = |says: serde_json::Value| vec![rest.clone(), rule("odd", says)];
    let of = |job: serde_json::Value| serde_json::json!({ "job": job });
    let long = "v".repeat(70_000);
    for (bad, status, field) in [
        (odd(serde_json::json!({ "prefix": "../", "job": job() })), 422, "intake[odd].prefix"),
        (odd(serde_json::json!({ "suffix": "/", "job": job() })), 422, "intake[odd].suffix"),
        (odd(serde_json::json!({ "poll_seconds": 9, "job": job() })), 422, "intake[odd].poll_seconds"),
        (odd(of(serde_json::json!({ "version": 1, "preset": "none" }))), 422, "intake[odd].job.preset"),
        (
            odd(of(serde_json::json!({ "version": 1, "preset": "web", "input": {} }))),
            422,
            "intake[odd].job.input",
        ),
        (
            odd(of(serde_json::json!({ "version": 1, "preset": "web", "labels": { "k": long } }))),
            413,
            "intake[odd]",
        ),
        (vec![rest.clone(), rest.clone()], 422, "intake[rest].name"),
        ((0..9).map(|n| Rule { name: format!("r-{n}"), ..rest.clone() }).collect(), 422, "intake"),
    ] {
        let answer = put(&operator, &path(1), &tenant("acme", 3, bad)).await;
        assert!(
            answer.0 == status && answer.1.contains(&format!(r#""field":"{field}""#)),
            "{field}: {}",
            answer.1
        );
        assert_eq!(list().await, with_own);
    }
    let nowhere = Tenant { storage: None, ..tenant("other", 1, vec![movies.clone()]) };
    let (status, text) = put(&operator, &path(2), &nowhere).await;
    assert!(status == 422 && text.contains(r#""field":"intake""#) && text.contains("storage"), "{text}");

    // Another job, and one that is named no more.
    let changed = serde_json::json!({ "prefix": "in/", "suffix": ".mov", "poll_seconds": 60, "job": { "version": 1, "preset": "mp4" } });
    assert_eq!(put(&operator, &path(1), &tenant("acme", 3, vec![rule("movies", changed)])).await.0, 204);
    let now = list().await;
    assert_eq!(now.iter().map(|rule| rule.id).collect::<Vec<_>>(), [own.id, first[0].id]);
    assert_eq!((now[1].poll_seconds, &now[1].created_at), (Some(60), &first[0].created_at));
    assert_eq!(put(&operator, &path(1), &tenant("acme", 4, vec![])).await.0, 204);
    assert_eq!(list().await, std::slice::from_ref(&own));
    assert_eq!(acme.call("DELETE", &format!("/v1/intake/rules/{}", own.id), "").await.status, 204);
}
