//! The operator between a real API server and a real broker: pools, tenants and what these manage are pushed, pods enrol by their own tokens, and who is
//! at work is never scaled away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "../../broker/tests/common/mod.rs"]
mod common;
#[path = "support/installed.rs"]
mod installed;
#[path = "../../broker/tests/support/pods.rs"]
mod pods;
#[path = "support/rules.rs"]
mod rules;

use common::submit;
use installed::{condition, installed};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use mpegflow_broker::model::TenantLimits;
use mpegflow_broker::store::webhooks::WebhookRecord;
use mpegflow_operator::crd::{Condition, Tenant};
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::webhook::{MessageType, Webhook};
use mpegflow_protocol::worker::{JoinFile, LeaseReply};
use mpegflow_test_cluster::until;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_shrinks_by_who_is_idle_and_never_below_who_is_busy() {
    let it = installed().await;
    let name = |name: &str| json!({ "metadata": { "name": name, "namespace": "media" } });
    let mut pool = name("default");
    pool["spec"] = json!({ "scale": { "replicas": 3, "max": 4 } });
    it.apply("WorkerPool", pool).await;
    let pods = it.until_live(3).await;
    let (busy, idle, other) = (it.start(&pods[0]).await, it.start(&pods[1]).await, it.start(&pods[2]).await);
    it.until_isolation("Verified").await;
    let tenant = it.world.tenant("a").await;
    submit(&tenant, b"x").await;
    let lease = busy.lease().await;
    it.until_pool("one is busy", |pool| {
        pool.status.as_ref().is_some_and(|s| s.busy == 1 && s.ready_replicas == 3)
    })
    .await;
    let kept = "cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned();
    until("it is to be left alone", || async {
        it.annotations(&pods[0]).await.contains(&kept).then_some(())
    })
    .await;
    let annotations = it.annotations(&pods[0]).await;
    assert!(annotations.contains(&"karpenter.sh/do-not-disrupt".to_owned()), "{annotations:?}");
    assert!(!it.annotations(&pods[1]).await.contains(&kept), "an idle one may be moved");

    // As KEDA does when it reads a flushed Redis: a valid 0.
    it.scale(0).await;
    let left = it.until_live(1).await;
    assert_eq!(left[0].metadata.uid, pods[0].metadata.uid, "another than the one at work");
    it.until_pool("it says so", |pool| {
        condition(pool, "ScaleInHeld").is_some_and(|c| c.0)
            && pool.status.as_ref().is_some_and(|s| s.replicas == 1)
    })
    .await;
    for gone in [&idle, &other] {
        assert!(matches!(gone.ask(0).await, LeaseReply::Idle {}), "who is to go gets nothing more");
    }
    // It goes on as if nothing was.
    assert_eq!(busy.finish(&lease).await.status, 204);
    it.until_live(0).await;
    // What follows waits, and the pool says why.
    let waits = it
        .until_pool("why it waits", |pool| {
            let status = pool.status.as_ref();
            status.is_some_and(|s| s.queued == 1 && s.waiting.is_some() && s.replicas == 0)
        })
        .await;
    let status = waits.status.unwrap();
    assert!(status.waiting_message.unwrap().contains("default"));
    assert_eq!((status.busy, status.replicas), (0, 0));

    // And it grows again: whoever is new has work.
    it.scale(1).await;
    let new = it.until_live(1).await;
    let worker = it.start(&new[0]).await;
    let lease = worker.lease().await;
    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    it.pools().delete("default", &DeleteParams::default()).await.unwrap();
    let none = async || it.pools().get_opt("default").await.ok()?.is_none().then_some(());
    until("the pool is gone", none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pool_begins_nothing_and_lets_what_runs_end_before_its_pods_go() {
    let it = installed().await;
    let mut tenant = json!({ "metadata": { "name": "acme" } });
    let id = format!("tnt_{}", "a".repeat(32));
    tenant["spec"] =
        json!({ "id": id, "weight": 3, "allowedPools": ["media/default"], "quotas": { "running": 5 } });
    it.apply("Tenant", tenant).await;
    let mut pool = json!({ "metadata": { "name": "default", "namespace": "media" } });
    pool["spec"] = json!({ "tenant": "acme", "scale": { "replicas": 1 }, "drainGraceSeconds": 600 });
    it.apply("WorkerPool", pool).await;
    let pods = it.until_live(1).await;
    let worker = it.start(&pods[0]).await;
    it.until_isolation("Verified").await;
    // Tenant and pool are the broker's now.
    let store = it.world.broker().engine().store();
    let found = store.tenant_named("acme").await.unwrap().unwrap();
    assert_eq!(found.to_string(), id);
    assert!(store.tenant_weights().await.unwrap().contains(&(found, 300)));
    assert_eq!(store.tenant_limits(found).await.unwrap().unwrap().running_tasks, Some(5));
    assert_eq!(store.worker(worker.id).await.unwrap().unwrap().tenant, Some(found));
    let tenants: Api<Tenant> = Api::all(it.turn.cluster.client());
    until("the tenant is accepted", || async {
        let status = tenants.get("acme").await.ok()?.status?;
        status.conditions.iter().any(|c| c.kind == "Ready" && c.reason == "Accepted").then_some(())
    })
    .await;

    let client = it.world.tenant("acme").await;
    submit(&client, b"x").await;
    let lease = worker.lease().await;
    it.pools().delete("default", &DeleteParams::default()).await.unwrap();
    it.until_pool("it drains", |pool| condition(pool, "Ready").is_some_and(|c| c.1 == "Draining")).await;
    let deployments: Api<Deployment> = Api::namespaced(it.turn.cluster.client(), "media");
    assert!(deployments.get_opt("default-worker").await.unwrap().is_some(), "its pod is at work");
    submit(&client, b"y").await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "nothing new begins");
    assert_eq!(worker.finish(&lease).await.status, 204);
    let none = async || it.pools().get_opt("default").await.ok()?.is_none().then_some(());
    until("the pool is gone", none).await;
    assert!(store.pools().await.unwrap().is_empty(), "and the broker knows nothing of it");
    assert_eq!(worker.beat(&lease, Default::default()).await.status, 409);
    tenants.delete("acme", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presigned_pool_is_pushed_with_its_storage_and_its_workers_are_told() {
    let it = installed().await;
    let mut pool = json!({ "metadata": { "name": "default", "namespace": "media" } });
    let endpoints = ["192.0.2.10:443", "198.51.100.0/24:9000", "[2001:db8::/64]:443"];
    pool["spec"] =
        json!({ "scale": { "replicas": 1 }, "storage": { "access": "Presigned", "endpoints": endpoints } });
    it.apply("WorkerPool", pool).await;
    it.until_live(1).await;
    let (store, client) = (it.world.broker().engine().store(), it.turn.cluster.client());
    let (files, deployments): (Api<ConfigMap>, Api<Deployment>) =
        (Api::namespaced(client.clone(), "media"), Api::namespaced(client, "media"));
    // The broker's copy, the join file, and the pods' template.
    let told = async || {
        let here = store.pools().await.unwrap().remove(0).storage;
        let file = files.get("default-worker").await.unwrap().data.unwrap();
        let join: JoinFile = serde_json::from_str(&file["join.json"]).unwrap();
        let template =
            deployments.get("default-worker").await.unwrap().spec.unwrap().template.metadata.unwrap();
        let annotation = template.annotations.unwrap_or_default().remove("mpegflow.io/storage");
        let text =
            |storage: Vec<StorageEndpoint>| storage.iter().map(ToString::to_string).collect::<Vec<_>>();
        (text(here), text(join.storage), annotation.unwrap_or_default())
    };
    let expected = endpoints.map(str::to_owned).to_vec();
    assert_eq!(told().await, (expected.clone(), expected, endpoints.join(" ")));
    let change = json!({ "spec": { "storage": { "access": "Brokered", "endpoints": null } } });
    it.pools().patch("default", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    until("nobody reaches storage any more", || async {
        (told().await == (vec![], vec![], String::new())).then_some(())
    })
    .await;
    it.pools().delete("default", &DeleteParams::default()).await.unwrap();
    let none = async || it.pools().get_opt("default").await.ok()?.is_none().then_some(());
    until("the pool is gone", none).await;
}

#[tokio::test]
async fn a_tenant_that_withdraws_its_leave_or_is_deleted_has_no_more_work_begun_and_keeps_its_data() {
    let it = installed().await;
    let id = format!("tnt_{}", "b".repeat(32));
    let tenant = |pools: &[&str]| {
        json!({
            "metadata": { "name": "acme" },
            "spec": { "id": id, "allowedPools": pools, "quotas": { "minutesPerDay": 60 } },
        })
    };
    it.apply("Tenant", tenant(&["media/default"])).await;
    let mut pool = json!({ "metadata": { "name": "default", "namespace": "media" } });
    pool["spec"] = json!({ "tenant": "acme", "scale": { "replicas": 1 } });
    it.apply("WorkerPool", pool).await;
    let pods = it.until_live(1).await;
    let worker = it.start(&pods[0]).await;
    it.until_isolation("Verified").await;
    let store = it.world.broker().engine().store();
    let acme = store.tenant_named("acme").await.unwrap().unwrap();
    let limits = async || store.tenant_limits(acme).await.unwrap().unwrap();
    assert_eq!(limits().await.minutes_per_day, Some(60), "what it may is what its resource says");
    // What no resource says is set at the broker, and stays whatever is pushed.
    let kept = TenantLimits { retention_days: Some(30), burst: Some(50), ..limits().await };
    assert!(store.set_tenant_limits(acme, &kept).await.unwrap());
    let client = it.world.tenant("acme").await;
    let first = submit(&client, b"x").await;
    let lease = worker.lease().await;

    // Its leave is withdrawn: what runs goes on, nothing begins.
    it.apply("Tenant", tenant(&[])).await;
    let closed = async |is: bool| {
        until(&format!("the broker's copy is closed: {is}; {}", it.log_tail()), || async {
            let pools = store.pools().await.ok()?;
            pools.iter().any(|pool| pool.closed == is && pool.tenant == Some(acme)).then_some(())
        })
        .await;
    };
    closed(true).await;
    it.until_pool("why", |pool| {
        condition(pool, "Ready").is_some_and(|c| c.1 == "NotAllowed")
            && condition(pool, "Stalled").is_some_and(|c| c.0)
    })
    .await;
    submit(&client, b"y").await;
    assert_eq!(worker.finish(&lease).await.status, 204, "what runs goes on");
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "nothing begins");
    assert_eq!(limits().await, kept, "the next push of the tenant leaves it");

    // Given again, and proved again, it goes on.
    it.apply("Tenant", tenant(&["media/*"])).await;
    closed(false).await;
    let lease = until("work again", || async {
        match worker.ask(300).await {
            LeaseReply::Lease(lease) => Some(*lease),
            _ => None,
        }
    })
    .await;
    assert_eq!(worker.finish(&lease).await.status, 204);

    // The tenant is deleted. The broker is away at first: nobody forgets to tell it.
    let tenants: Api<Tenant> = Api::all(it.turn.cluster.client());
    it.stop_operator();
    tenants.delete("acme", &DeleteParams::default()).await.unwrap();
    assert!(tenants.get_opt("acme").await.unwrap().is_some(), "it waits for the operator");
    it.start_operator();
    until(&format!("the tenant is gone; {}", it.log_tail()), || async {
        tenants.get_opt("acme").await.ok()?.is_none().then_some(())
    })
    .await;
    let suspended = TenantLimits {
        unfinished_jobs: Some(0),
        running_tasks: Some(0),
        upload_bytes: Some(0),
        minutes_per_day: Some(0),
        ..kept
    };
    assert_eq!(limits().await, suspended);
    assert!(store.pools().await.unwrap().iter().all(|pool| pool.closed), "before the tenant goes");
    until("the pool says why", || async {
        let pool = it.pools().get_opt("default").await.ok()??;
        condition(&pool, "Ready").filter(|c| c.1 == "NoTenant" || c.1 == "TenantDeleted").map(drop)
    })
    .await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "nothing begins");
    let read = client.get(&format!("/v1/jobs/{}", first.id)).await;
    assert_eq!(read.status, 200, "what it has stays, and can be read: {}", read.text());
    it.end_pool().await;
}

#[tokio::test]
async fn a_tenants_webhooks_and_rules_are_those_of_its_resource_beside_those_that_it_makes_itself() {
    let it = installed().await;
    let (id, name) = (format!("tnt_{}", "c".repeat(32)), "hooked");
    let apply = async |webhooks: Value| {
        let spec = json!({ "id": id, "webhooks": webhooks });
        it.apply("Tenant", json!({ "metadata": { "name": name }, "spec": spec })).await;
    };
    let at = |name: &str, url: &str| {
        let mut webhook = rules::webhook(name);
        webhook["url"] = url.into();
        webhook
    };
    let store = it.world.broker().engine().store();
    let tenant: TenantId = id.parse().unwrap();
    let managed = async || -> Vec<WebhookRecord> {
        let mut all = store.webhooks(tenant).await.unwrap();
        all.retain(|webhook| webhook.managed.is_some());
        all.sort_by(|a, b| a.managed.cmp(&b.managed));
        all
    };
    let until_managed = async |wanted: &[(&str, &str)]| {
        until(&format!("{wanted:?}; {}", it.log_tail()), || async {
            let here = managed().await;
            let told: Vec<_> = here.iter().map(|w| (w.managed.as_deref().unwrap(), &*w.url)).collect();
            (told == wanted).then_some(here)
        })
        .await
    };
    let tenants: Api<Tenant> = Api::all(it.turn.cluster.client());
    let until_reason = async |reason: &str| {
        until(&format!("{reason}; {}", it.log_tail()), || async {
            let tenant = tenants.get(name).await.ok()?;
            let generation = tenant.metadata.generation?;
            let is = |c: &&Condition| {
                c.kind == "Stalled" && c.reason == reason && c.observed_generation == generation
            };
            tenant.status?.conditions.iter().find(is).cloned()
        })
        .await
    };
    let (audit, ops) = (("audit", "https://audit.example.com/in"), ("ops", "https://ops.example.com/in"));
    apply(json!([at(ops.0, ops.1), at(audit.0, audit.1)])).await;
    let first = until_managed(&[audit, ops]).await;
    assert_eq!(first[0].types, [MessageType::Succeeded, MessageType::Failed]);
    until_reason("Accepted").await;
    let client = it.world.tenant(name).await;
    let own: Webhook =
        client.call("POST", "/v1/webhooks", r#"{"url":"https://own.example.com/"}"#).await.json();

    // What the broker does not take is told by its field, and leaves what is there.
    apply(json!([at("ops", "https://ops.example.com:8443/in")])).await;
    let stalled = until_reason("BrokerRefuses").await;
    assert!(stalled.message.contains("webhooks[ops].url: its port"), "{}", stalled.message);
    assert_eq!(managed().await, first);
    let moved = ("ops", "https://new.example.com/in");
    apply(json!([at(moved.0, moved.1)])).await;
    let now = until_managed(&[moved]).await;
    assert_eq!((now[0].id, &now[0].salts), (first[1].id, &first[1].salts), "the same, at another address");
    until_reason("Accepted").await;

    // A restart finds nothing to do, or what somebody took away.
    it.stop_operator();
    assert!(store.delete_webhook(tenant, now[0].id).await.unwrap());
    it.start_operator();
    let again = until_managed(&[moved]).await;
    it.stop_operator();
    let before = tenants.get(name).await.unwrap();
    it.start_operator();
    apply(json!([at(moved.0, moved.1), at(audit.0, audit.1)])).await;
    let both = until_managed(&[audit, moved]).await;
    assert_eq!(both[1], again[0]);
    until_reason("Accepted").await;
    let times = |tenant: &Tenant| {
        let status = tenant.status.clone().unwrap();
        status.conditions.into_iter().map(|c| c.last_transition_time).collect::<Vec<_>>()
    };
    assert_eq!(times(&tenants.get(name).await.unwrap()), times(&before));

    // Rules of the intake are the same, and need storage.
    let with_rules = json!({
        "id": id, "storage": { "bucket": "films", "prefix": "hooked/", "secret": { "name": "hooked" } },
        "intake": [rules::intake("movies")],
    });
    it.apply("Tenant", json!({ "metadata": { "name": name }, "spec": with_rules })).await;
    let told = until(&format!("the rule; {}", it.log_tail()), || async {
        let all = store.rules(tenant).await.ok()?;
        all.into_iter().map(|rule| (rule.managed, rule.prefix, rule.suffix, rule.poll_seconds)).next()
    })
    .await;
    assert_eq!(told, (Some("movies".into()), "incoming/".into(), ".mov".into(), Some(60)));
    assert_eq!(managed().await, [], "no webhook is named any more");

    // The resource goes, and what it manages with it.
    tenants.delete(name, &DeleteParams::default()).await.unwrap();
    until(&format!("the tenant is gone; {}", it.log_tail()), || async {
        tenants.get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
    let left = store.webhooks(tenant).await.unwrap();
    assert_eq!(left.iter().map(|w| (w.id, w.managed.clone())).collect::<Vec<_>>(), [(own.id, None)]);
    assert_eq!(store.rules(tenant).await.unwrap(), []);
}
