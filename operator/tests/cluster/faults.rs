//! What goes wrong around a pool: it waits or says why, and the others do not notice.

use crate::support::{condition, turn};
use kube::api::{DeleteParams, Patch, PatchParams};
use mpegflow_operator::crd::Dialect;
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A definition of a kind that a cluster may not know, without its schema.
pub(crate) fn definition(group: &str, version: &str, kind: &str, plural: &str) -> String {
    let singular = kind.to_lowercase();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": singular, "listKind": format!("{kind}List") },
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pool_says_what_is_wrong_with_it_and_holds_up_nobody() {
    let turn = turn().await;
    let shared = turn.shared;
    // A well-formed text that is no address, a dialect that the cluster does not know, a name that is taken, an image pull
    // policy of the API server's own: what a schema cannot see.
    let bad = json!({ "storage": { "access": "Presigned", "endpoints": ["999.0.2.1:443"] } });
    shared.pool("bad-endpoint", bad).await;
    let metadata = json!({ "storage": { "access": "Presigned", "endpoints": ["169.254.0.0/16:80"] } });
    shared.pool("bad-block", metadata).await;
    shared.pool("bad-dialect", json!({ "isolation": { "dialects": ["Calico"] } })).await;
    let taken = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken-worker, namespace: media}\ndata: {mine: 'yes'}\n";
    shared.cluster.apply(taken).await;
    shared.pool("taken", json!({})).await;
    shared.pool("bad-affinity", json!({ "affinity": { "nodeAffinity": "none" } })).await;
    shared.pool("good", json!({})).await;

    for (name, reason, says) in [
        ("bad-endpoint", "BadStorageEndpoint", "\"999.0.2.1:443\""),
        ("bad-block", "NoPolicy", "metadata service"),
        ("bad-dialect", "UnknownDialect", "Calico"),
        ("taken", "NameTaken", "ConfigMap taken-worker is there already"),
        ("bad-affinity", "Refused", "affinity"),
    ] {
        let pool = shared.until_reason(name, reason).await;
        let stalled = condition(&pool, "Stalled").unwrap();
        assert!(stalled.0 && stalled.2.contains(says), "{name}: {stalled:?}");
        assert!(
            shared.get(Kind::Deployment, "media", &format!("{name}-worker")).await.is_none(),
            "{name} runs"
        );
    }
    shared.until_reason("good", "ScaledToZero").await;
    let kept = shared.get(Kind::ConfigMap, "media", "taken-worker").await.unwrap();
    assert_eq!(kept["data"], json!({ "mine": "yes" }), "what is not ours is not touched");

    // Mended, it goes on.
    shared
        .patch_pool("bad-endpoint", json!({ "spec": { "storage": { "endpoints": ["192.0.2.1:443"] } } }))
        .await;
    shared.until_reason("bad-endpoint", "ScaledToZero").await;
    let policy = shared.get(Kind::NetworkPolicy, "media", "bad-endpoint-worker").await.unwrap();
    assert!(policy.to_string().contains("192.0.2.1/32"), "{policy}");
    for name in ["bad-endpoint", "bad-block", "bad-dialect", "taken", "bad-affinity", "good"] {
        shared.delete_pool(name).await;
    }
    assert!(
        shared.get(Kind::ConfigMap, "media", "taken-worker").await.is_some(),
        "not even when the pool goes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_a_tenant_needs_the_tenant_and_its_leave() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("owned", json!({ "tenant": "acme" })).await;
    shared.until_reason("owned", "NoTenant").await;
    let tenant = |pools: &[&str]| -> kube::api::DynamicObject {
        let change = json!({ "metadata": { "name": "acme" }, "spec": { "allowedPools": pools } });
        serde_json::from_value(crate::rules::object("Tenant", &change)).unwrap()
    };
    shared.cluster.try_apply(&tenant(&["media/another"])).await.unwrap();
    shared.until_reason("owned", "NotAllowed").await;
    assert!(
        shared.get(Kind::Deployment, "media", "owned-worker").await.is_none(),
        "not before the tenant says so"
    );
    shared.cluster.try_apply(&tenant(&["media/owned"])).await.unwrap();
    shared.until_reason("owned", "ScaledToZero").await;
    let deployment = shared.get(Kind::Deployment, "media", "owned-worker").await.unwrap();
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["mpegflow.io/tenant"], "acme");
    until("the tenant counts it", || async {
        let status = shared.tenants().get("acme").await.ok()?.status?;
        (status.pools == 1 && status.refused_pools == 0).then_some(())
    })
    .await;
    shared.delete_pool("owned").await;
    shared.tenants().delete("acme", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_and_scalers_follow_the_kinds_that_the_cluster_comes_to_know() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("dialects", json!({ "paused": true, "scale": { "fallback": { "replicas": 2 } } })).await;
    let pool = shared.until_reason("dialects", "ScaledToZero").await;
    let status = pool.status.unwrap();
    assert_eq!((status.policies, status.autoscaled), (vec![Dialect::NetworkPolicy], false));

    shared
        .cluster
        .apply(&definition("cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies"))
        .await;
    shared.cluster.apply(&definition("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")).await;
    let pools = shared.pools("media");
    let until_kinds = async |policies: Vec<Dialect>, autoscaled: bool| {
        until(&format!("{policies:?}, autoscaled {autoscaled}"), || async {
            let status = pools.get("dialects").await.ok()?.status?;
            (status.policies == policies && status.autoscaled == autoscaled).then_some(())
        })
        .await;
    };
    until_kinds(vec![Dialect::NetworkPolicy, Dialect::Cilium], true).await;
    let policy = shared.get(Kind::CiliumNetworkPolicy, "media", "dialects-worker").await.unwrap();
    assert_eq!(policy["metadata"]["ownerReferences"][0]["kind"], "WorkerPool");
    let scaler = shared.get(Kind::ScaledObject, "media", "dialects-worker").await.unwrap();
    assert_eq!(scaler["metadata"]["annotations"]["autoscaling.keda.sh/paused"], "true");
    assert_eq!(
        scaler["spec"]["scaleTargetRef"],
        json!({ "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool", "name": "dialects" })
    );
    assert_eq!(scaler["spec"]["triggers"][0]["metadata"]["listName"], "{mpegflow:dialects}:depth");
    assert_eq!(scaler["spec"]["fallback"]["behavior"], "currentReplicasIfHigher");

    // A rule beside ours, under a key that we do not set: a hole that an apply would leave.
    let hole = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "dialects-worker" },
        "specs": [{ "endpointSelector": {}, "egress": [{ "toEntities": ["all"] }] }],
    });
    let api = shared.objects(Kind::CiliumNetworkPolicy, "media");
    api.patch("dialects-worker", &PatchParams::apply("mallory").force(), &Patch::Apply(hole)).await.unwrap();
    until("the hole is closed", || async {
        let object: Value = shared.get(Kind::CiliumNetworkPolicy, "media", "dialects-worker").await?;
        (object.get("specs").is_none() && object["spec"] == policy["spec"]).then_some(())
    })
    .await;

    // No longer paused, no longer Cilium.
    let change = json!({ "spec": { "paused": false, "isolation": { "dialects": ["NetworkPolicy"] } } });
    shared.patch_pool("dialects", change).await;
    until_kinds(vec![Dialect::NetworkPolicy], true).await;
    until("the policy is taken away", || async {
        shared.get(Kind::CiliumNetworkPolicy, "media", "dialects-worker").await.is_none().then_some(())
    })
    .await;
    until("KEDA may scale", || async {
        let object = shared.get(Kind::ScaledObject, "media", "dialects-worker").await?;
        object["metadata"]["annotations"].get("autoscaling.keda.sh/paused").is_none().then_some(())
    })
    .await;

    // KEDA goes.
    let definitions: kube::Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = kube::Api::all(shared.cluster.client());
    for name in ["scaledobjects.keda.sh", "ciliumnetworkpolicies.cilium.io"] {
        definitions.delete(name, &DeleteParams::default()).await.unwrap();
    }
    until_kinds(vec![Dialect::NetworkPolicy], false).await;
    shared.delete_pool("dialects").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_moves_rolls_its_workers_and_one_that_is_gone_is_waited_for() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("moves", json!({})).await;
    shared.until_reason("moves", "ScaledToZero").await;
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(shared.cluster.client(), "mpegflow");
    let service = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: mpegflow-broker, namespace: mpegflow}}\nspec:\n  clusterIP: {ip}\n  \
             selector: {{app.kubernetes.io/name: mpegflow-broker}}\n  ports: [{{name: worker-api, port: 8443, targetPort: 8443}}]\n"
        )
    };
    services.delete("mpegflow-broker", &DeleteParams::default()).await.unwrap();
    let pool = shared.until_reason("moves", "NoBroker").await;
    assert!(condition(&pool, "Ready").unwrap().2.contains("there is no Service mpegflow/mpegflow-broker"));
    assert!(shared.get(Kind::NetworkPolicy, "media", "moves-worker").await.is_some(), "what locks stays");
    for ip in ["10.96.7.8", "10.96.7.7"] {
        let _ = services.delete("mpegflow-broker", &DeleteParams::default()).await;
        shared.cluster.apply(&service(ip)).await;
        until(&format!("workers know {ip}"), || async {
            let deployment = shared.get(Kind::Deployment, "media", "moves-worker").await?;
            let policy = shared.get(Kind::NetworkPolicy, "media", "moves-worker").await?;
            let alias = &deployment["spec"]["template"]["spec"]["hostAliases"][0]["ip"];
            (alias == ip && policy.to_string().contains(&format!("{ip}/32"))).then_some(())
        })
        .await;
    }
    shared.until_reason("moves", "ScaledToZero").await;
    shared.delete_pool("moves").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_restarts_and_a_namespace_that_goes_are_got_over() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("survives", json!({ "scale": { "replicas": 1 } })).await;
    shared.until_reason("survives", "WorkersStarting").await;
    shared.cluster.restart_api_server().await;
    // Deleted while watches may still be down.
    let budgets = shared.objects(Kind::PodDisruptionBudget, "media");
    budgets.delete("survives-worker", &DeleteParams::default()).await.unwrap();
    until("the budget is back", || async { budgets.get_opt("survives-worker").await.ok()?.map(|_| ()) })
        .await;
    shared.delete_pool("survives").await;

    shared.cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: brief}\n").await;
    let brief = json!({ "metadata": { "name": "brief", "namespace": "brief" }, "spec": { "scale": { "replicas": 2 } } });
    let object = serde_json::from_value(crate::rules::object("WorkerPool", &brief)).unwrap();
    shared.cluster.try_apply(&object).await.unwrap();
    until("it runs", || async { shared.get(Kind::Deployment, "brief", "brief-worker").await.map(|_| ()) })
        .await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(shared.cluster.client());
    namespaces.delete("brief", &DeleteParams::default()).await.unwrap();
    until("the namespace is gone", || async {
        namespaces.get_opt("brief").await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_writes_into_a_policy_ends_in_order_is_not_written_down_and_holds_up_nobody() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("stormed", json!({})).await;
    shared.until_reason("stormed", "ScaledToZero").await;
    let policy = shared.get(Kind::NetworkPolicy, "media", "stormed-worker").await.unwrap();
    let before = shared.write_count();

    // Rivals who write into the policy without a pause: whatever anybody has read of it is old before it can be written, and there is
    // no moment of quiet. The operator tries all the same; whether one of its patches gets through among eight rivals is chance
    // (the API server tries a patch five times).
    let storm = Arc::new(AtomicBool::new(true));
    let rivals: Vec<_> = (0..8)
        .map(|rival| {
            let (policies, storm) = (shared.objects(Kind::NetworkPolicy, "media"), Arc::clone(&storm));
            tokio::spawn(async move {
                let params =
                    PatchParams { field_manager: Some(format!("rival-{rival}")), ..PatchParams::default() };
                for n in (0..256).cycle().take_while(|_| storm.load(Ordering::Relaxed)) {
                    let from = json!([{ "ipBlock": { "cidr": format!("10.{rival}.{n}.0/24") } }]);
                    let patch = Patch::Merge(json!({ "spec": { "ingress": [{ "from": from }] } }));
                    match policies.patch("stormed-worker", &params, &patch).await {
                        // They are in each other's way, too.
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        done => drop(done.unwrap()),
                    }
                }
            })
        })
        .collect();
    shared.pool("beside", json!({})).await;
    shared.until_reason("beside", "ScaledToZero").await;
    until("the operator tried three times in the middle of it", || async {
        let writes = shared.writes_since(before);
        let tried = writes.iter().filter(|w| w.name == "stormed-worker" && w.resource == "networkpolicies");
        (tried.count() >= 3).then_some(())
    })
    .await;
    storm.store(false, Ordering::Relaxed);
    for rival in rivals {
        rival.await.unwrap();
    }
    until("the policy is what it was", || async {
        let now = shared.get(Kind::NetworkPolicy, "media", "stormed-worker").await?;
        (now["spec"] == policy["spec"]).then_some(())
    })
    .await;
    let writes = shared.writes_since(before);
    let told = writes.iter().filter(|w| w.name == "stormed" && w.resource == "workerpools/status").count();
    assert_eq!(told, 0, "what is over when it is tried again is no news");
    for name in ["stormed", "beside"] {
        shared.delete_pool(name).await;
    }
}
