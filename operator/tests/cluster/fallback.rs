//! A depth that KEDA cannot read: KEDA's part is played here, as KEDA 2.20 plays it while Redis lets nobody in.

use crate::faults::definition;
use crate::support::turn;
use kube::api::{DeleteParams, Patch, PatchParams};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_depth_nobody_reads_is_scaled_as_its_fallback_says_and_never_down() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.cluster.apply(&definition("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")).await;
    let fallback = json!({ "failureThreshold": 2, "replicas": 3 });
    for (name, fallback) in [("empty", &fallback), ("larger", &fallback), ("without", &Value::Null)] {
        let replicas = if name == "larger" { 4 } else { 0 };
        let scale = json!({ "replicas": replicas, "pollingSeconds": 1, "fallback": fallback });
        shared.pool(name, json!({ "scale": scale })).await;
    }
    shared
        .pool("held", json!({ "paused": true, "scale": { "pollingSeconds": 1, "fallback": fallback } }))
        .await;
    let names = ["empty", "larger", "without", "held"];
    let scaled = shared.objects(Kind::ScaledObject, "media");
    let keda_says = async |trigger: &str, failures: u32| {
        for name in names {
            let paused = if name == "held" { "True" } else { "False" };
            let status = json!({
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Paused", "status": paused }],
                "health": { "s0-redis": { "numberOfFailures": failures, "status": trigger } },
            });
            let patch = Patch::Merge(json!({ "status": status }));
            let name = format!("{name}-worker");
            until("KEDA has an object to speak of", || async {
                scaled.patch_status(&name, &PatchParams::default(), &patch).await.ok()
            })
            .await;
        }
    };
    let asked = async || {
        let mut asked = Vec::new();
        for name in names {
            asked.push(shared.pools("media").get(name).await.unwrap().spec.scale.replicas);
        }
        asked
    };
    keda_says("Happy", 0).await;
    let before = shared.write_count();
    keda_says("Failing", 1).await;
    until("the pool that had nobody has three", || async { (asked().await[0] == 3).then_some(()) }).await;
    shared.until_reason("empty", "WorkersStarting").await;
    let deployment = shared.get(Kind::Deployment, "media", "empty-worker").await.unwrap();
    assert_eq!(deployment["spec"]["replicas"], 3);
    // Every one of them is looked at once more by now, two seconds and more after the first failure.
    keda_says("Failing", 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    keda_says("Happy", 0).await;
    shared.pool("after", json!({})).await;
    shared.until_reason("after", "ScaledToZero").await;
    assert_eq!(asked().await, [3, 4, 0, 0], "more than the fallback, none and paused: these stay");
    let writes = shared.writes_since(before);
    let scaled: Vec<_> = writes.iter().filter(|w| w.resource == "workerpools" && w.name != "after").collect();
    assert_eq!(scaled.len(), 1, "one pool was scaled, once: {scaled:?}");

    let definitions: kube::Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = kube::Api::all(shared.cluster.client());
    definitions.delete("scaledobjects.keda.sh", &DeleteParams::default()).await.unwrap();
    for name in names.into_iter().chain(["after"]) {
        shared.delete_pool(name).await;
    }
}
