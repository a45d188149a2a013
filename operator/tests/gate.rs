//! The isolation gate between a real API server and a real broker: no verdict, no work; and who may say what a canary saw.
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
use installed::{Canaries, Installed, condition, end, installed, installed_with};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use mpegflow_operator::crd::WorkerPool;
use mpegflow_operator::desired::{CANARY_LABEL, Kind};
use mpegflow_protocol::worker::LeaseReply;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

fn message(pool: &WorkerPool) -> String {
    let conditions = &pool.status.as_ref().unwrap().conditions;
    conditions.iter().find(|condition| condition.kind == "IsolationVerified").unwrap().message.clone()
}

async fn events(it: &Installed, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(it.turn.cluster.client(), "media");
    let list = events.list(&ListParams::default()).await.unwrap();
    let of = list.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of.filter_map(|event| event.note).collect()
}

/// What somebody does who may: the policy is opened. The operator closes it, and has canaries try it again.
async fn touch_policy(it: &Installed) {
    let policies: Api<DynamicObject> =
        Api::namespaced_with(it.turn.cluster.client(), "media", &Kind::NetworkPolicy.resource());
    let open = json!({ "spec": { "egress": [{}], "policyTypes": ["Egress"] } });
    policies.patch("default-worker", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    until("the policy is mended", || async {
        let policy = policies.get_opt("default-worker").await.ok()??;
        (policy.data["spec"]["egress"] != json!([{}])).then_some(())
    })
    .await;
}

fn api_server(it: &Installed) -> SocketAddr {
    it.turn.cluster.url().trim_start_matches("https://").parse().unwrap()
}

/// What the broker has of the pool: node, whether it is verified, and why.
async fn verdicts(it: &Installed) -> Vec<(String, bool, String)> {
    let store = it.world.broker().engine().store();
    let pool = store.pools().await.unwrap().into_iter().find(|pool| pool.name.as_str() == "default");
    let policy = pool.and_then(|pool| pool.policy);
    let all = store.verdicts(mpegflow_broker::model::Time(0)).await.unwrap();
    all.into_iter()
        .filter(|v| Some(&v.policy) == policy.as_ref())
        .map(|v| (v.node, v.verified, v.reason))
        .collect()
}

async fn until_verdict(it: &Installed, verified: bool) {
    until(&format!("a verdict, {verified}; {}", it.log_tail()), || async {
        verdicts(it).await.iter().any(|(node, is, _)| node == "node-1" && *is == verified).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_works_only_while_canaries_prove_its_isolation() {
    let it = installed().await;
    it.canaries_will(Canaries::Hang);
    let pods = it.pool(1).await;
    let worker = it.start(&pods[0]).await;
    let tenant = it.world.tenant("a").await;
    submit(&tenant, b"x").await;

    // To policies a canary is a worker, and it can be nothing else.
    let canary = it.until_canary().await;
    let (own, workers) = (canary.spec.clone().unwrap(), pods[0].spec.clone().unwrap());
    assert_eq!(own.node_name.as_deref(), Some("node-1"));
    assert_eq!(own.service_account_name, workers.service_account_name);
    assert_eq!(own.host_aliases, workers.host_aliases);
    assert_eq!(own.security_context, workers.security_context);
    assert_eq!(own.containers[0].image, workers.containers[0].image);
    assert_eq!(own.containers[0].security_context, workers.containers[0].security_context);
    let mut labels = canary.labels().clone();
    assert!(labels.remove(CANARY_LABEL).is_some());
    let mut worker_labels = pods[0].labels().clone();
    worker_labels.remove("pod-template-hash");
    assert_eq!(labels, worker_labels);
    assert!(own.volumes.unwrap().iter().all(|volume| volume.config_map.is_some()), "a token");
    assert_eq!(own.automount_service_account_token, Some(false));

    let pool = it.until_isolation("Pending").await;
    assert!(!condition(&pool, "IsolationVerified").unwrap().0);
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "nobody has said that it is isolated");
    it.until_pool("why it waits", |pool| {
        pool.status.as_ref().is_some_and(|status| status.waiting.as_deref() == Some("gate"))
    })
    .await;

    it.canaries_will(Canaries::SeeNothing);
    let pool = it.until_isolation("Verified").await;
    assert!(condition(&pool, "IsolationVerified").unwrap().0);
    let says = message(&pool);
    assert!(
        says.contains("API server")
            && says.contains("control API")
            && says.contains("perhaps not there: metadata"),
        "{says}"
    );
    let lease = worker.lease().await;
    it.until_no_canary().await;
    it.until_pool("it is busy", |pool| pool.status.as_ref().is_some_and(|status| status.busy == 1)).await;

    // It fails later. What runs ends, nothing begins, and all else stays as it is.
    it.canaries_will(Canaries::See(vec![api_server(&it)]));
    touch_policy(&it).await;
    let failed = it.until_isolation("Reachable").await;
    let says = message(&failed);
    assert!(says.contains("node-1") && says.contains("API server") && says.contains("answers"), "{says}");
    assert_eq!(failed.status.as_ref().unwrap().busy, 1);
    assert!(condition(&failed, "Ready").unwrap().0, "its objects are in place");
    until_verdict(&it, false).await;
    until("an event", || async { events(&it, "IsolationFailed").await.pop() }).await;
    let metrics = format!("http://{}", it.world.broker().metrics_addr().unwrap());
    let metrics = common::Client::new(metrics, None, None).get("/metrics").await.text();
    assert!(metrics.contains(r#"mpegflow_isolation_nodes{pool="default",verdict="refused"} 1"#), "{metrics}");
    submit(&tenant, b"y").await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}));
    assert_eq!(it.until_live(1).await[0].uid().unwrap(), pod_uid(&pods[0]));

    // And is mended.
    it.canaries_will(Canaries::SeeNothing);
    touch_policy(&it).await;
    it.until_isolation("Verified").await;
    until_verdict(&it, true).await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    let notes = events(&it, "IsolationFailed").await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    it.end_pool().await;
    it.until_no_canary().await;
}

fn pod_uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_somebody_else_wrote_is_not_read() {
    let it = installed().await;
    it.canaries_will(Canaries::Hang);
    it.pool(1).await;
    let canary = it.until_canary().await;
    // Somebody who may make pods: one as like a canary as can be, with what a canary would say.
    let mut forged = canary.clone();
    forged.metadata.name = Some("default-canary-forged".into());
    (forged.metadata.uid, forged.metadata.resource_version) = (None, None);
    forged.status = None;
    let mut another = forged.clone();
    another.metadata.name = Some("default-canary-another".into());
    another.metadata.labels.as_mut().unwrap().insert(CANARY_LABEL.into(), "0123456789".into());
    let honest = json!({ "exitCode": 0, "message": json!({ "broker": true, "node": "silent", "looks": [] }).to_string() });
    for pod in [forged, another] {
        let name = pod.name_any();
        it.pods().create(&PostParams::default(), &pod).await.unwrap();
        end(&it.pods(), &name, honest.clone()).await;
        until(&format!("{name} is gone; {}", it.log_tail()), || async {
            it.pods().get_opt(&name).await.ok()?.is_none().then_some(())
        })
        .await;
    }
    assert_eq!(verdicts(&it).await, []);
    assert_eq!(
        it.live_canaries().await.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(),
        [canary.name_any()]
    );

    // Its own canary says what is no report: too much, too little, something else.
    for (says, reason) in [
        (Canaries::Say("x".repeat(20_000)), "BadReport"),
        (Canaries::Say(r#"{"verified":true}"#.into()), "BadReport"),
        (Canaries::Say(r#"{"broker":true,"node":"silent","looks":[]}"#.into()), "BadReport"),
        // One that failed has said nothing, whatever its message is.
        (Canaries::Fail(2), "CanaryFailed"),
    ] {
        it.canaries_will(says.clone());
        it.until_no_canary().await;
        let was = it.until_isolation(reason).await;
        assert!(!condition(&was, "IsolationVerified").unwrap().0, "{says:?}");
        assert!(verdicts(&it).await.iter().all(|(_, verified, _)| !verified), "{says:?}");
        it.canaries_will(Canaries::Hang);
        touch_policy(&it).await;
        it.until_canary().await;
    }
    // Somebody deletes it.
    let canary = it.until_canary().await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    it.pods().delete(&canary.name_any(), &now).await.unwrap();
    it.until_isolation("CanaryGone").await;
    assert!(verdicts(&it).await.iter().all(|(_, verified, _)| !verified));
    it.end_pool().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_canary_saw_of_other_policies_opens_nothing() {
    let it = installed().await;
    it.canaries_will(Canaries::Hang);
    it.pool(1).await;
    let first = it.until_canary().await;
    let digest = |pool: &WorkerPool| pool.status.as_ref().and_then(|status| status.policy_digest.clone());
    let before = digest(&it.until_isolation("Pending").await);
    assert!(before.is_some());
    // Another template while it runs: what it would say is about what is no more.
    let change = json!({ "spec": { "storage": { "access": "Presigned", "endpoints": ["192.0.2.1:443"] } } });
    it.pools().patch("default", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let after = digest(&it.until_pool("another digest", |pool| digest(pool) != before).await);
    until("another canary", || async {
        let canaries = it.live_canaries().await;
        (canaries.len() == 1 && canaries[0].uid() != first.uid()).then_some(())
    })
    .await;
    assert_eq!(verdicts(&it).await, []);
    it.canaries_will(Canaries::SeeNothing);
    it.until_isolation("Verified").await;
    until_verdict(&it, true).await;
    // The broker's copy asks for verdicts on exactly what is there now.
    let store = it.world.broker().engine().store();
    assert_eq!(store.pools().await.unwrap()[0].policy, after);
    it.end_pool().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_where_nobody_is_proves_nothing() {
    // A port that nobody has, until the test takes it.
    let free = mpegflow_test_ports::address();
    let it = installed_with(&["--unreachable", &format!("somebody={free}")]).await;
    let pods = it.pool(1).await;
    let worker = it.start(&pods[0]).await;
    let pool = it.until_isolation("Untested").await;
    assert!(message(&pool).contains(&format!("somebody ({free})")), "{}", message(&pool));
    let tenant = it.world.tenant("a").await;
    submit(&tenant, b"x").await;
    until_verdict(&it, false).await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}));
    // Somebody is there now, and canaries do not reach them.
    let somebody = TcpListener::bind(free).unwrap();
    touch_policy(&it).await;
    it.until_isolation("Verified").await;
    until_verdict(&it, true).await;
    let lease = worker.lease().await;
    assert_eq!(worker.finish(&lease).await.status, 204);
    drop(somebody);
    it.end_pool().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_starts_again_sweeps_what_is_left_and_tries_nothing_twice() {
    let it = installed().await;
    it.pool(1).await;
    it.until_isolation("Verified").await;
    until_verdict(&it, true).await;
    it.until_no_canary().await;
    let of_canaries = |from: usize| -> Vec<String> {
        let writes = it.turn.cluster.writes_after(from);
        let ours =
            writes.into_iter().filter(|w| w.user.ends_with(":mpegflow-operator") && w.resource != "leases");
        ours.map(|w| format!("{} {} {}", w.verb, w.resource, w.name)).collect()
    };
    // What the last look at the pool has written is there.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = it.turn.cluster.write_count();
    it.stop_operator();
    it.start_operator();
    until("it leads", || async {
        let writes = it.turn.cluster.writes_after(before);
        (writes.iter().filter(|w| w.resource == "leases").count() >= 3).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(of_canaries(before), [""; 0], "what is proved is proved");
    let is = it.pools().get("default").await.unwrap();
    assert_eq!(condition(&is, "IsolationVerified").unwrap(), (true, "Verified".into()));

    // It ends while a canary runs.
    it.canaries_will(Canaries::Hang);
    touch_policy(&it).await;
    let left = it.until_canary().await;
    it.stop_operator();
    it.start_operator();
    until(&format!("it is swept; {}", it.log_tail()), || async {
        it.pods().get_opt(&left.name_any()).await.ok()?.is_none().then_some(())
    })
    .await;
    it.end_pool().await;
    it.until_no_canary().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_may_not_be_made_is_told_and_costs_only_its_pool_the_work() {
    let it = installed().await;
    // Somebody's own rule of the cluster.
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none, namespace: media}\nspec: {hard: {count/pods: '1'}}\n";
    it.turn.cluster.apply(quota).await;
    let quotas: Api<DynamicObject> = Api::namespaced_with(
        it.turn.cluster.client(),
        "media",
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("", "v1", "ResourceQuota")),
    );
    until("it counts", || async {
        let quota = quotas.get("none").await.ok()?;
        quota.data.pointer("/status/hard").is_some_and(|hard| *hard != Value::Null).then_some(())
    })
    .await;
    it.pool(1).await;
    let pool = it.until_isolation("CanaryRefused").await;
    let says = message(&pool);
    assert!(says.contains("exceeded quota") && says.contains("the canary"), "{says}");
    until("an event", || async { events(&it, "IsolationUnknown").await.pop() }).await;
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    touch_policy(&it).await;
    it.until_isolation("Verified").await;
    it.end_pool().await;
}
