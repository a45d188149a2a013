//! What others change of a pool's objects does not stay.

use crate::support::{Shared, turn};
use kube::api::{DeleteParams, Patch, PatchParams};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};

async fn until_object(shared: &Shared, kind: Kind, what: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    until(what, || async {
        let object = shared.get(kind, "media", "drifts-worker").await?;
        is_right(&object).then_some(object)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_edit_add_or_delete_is_mended() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("drifts", json!({ "scale": { "replicas": 1 } })).await;
    shared.until_reason("drifts", "WorkersStarting").await;
    let mallory = PatchParams::apply("mallory").force();

    // An edit of a field of ours.
    let policies = shared.objects(Kind::NetworkPolicy, "media");
    let spec = policies.get("drifts-worker").await.unwrap().data["spec"].clone();
    let open = json!({ "spec": { "egress": [{}], "ingress": [{}] } });
    policies.patch("drifts-worker", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    until_object(shared, Kind::NetworkPolicy, "the policy is as before", |o| o["spec"] == spec).await;

    // Things beside ours, which an apply alone would leave: another container, another volume, another field.
    let deployments = shared.objects(Kind::Deployment, "media");
    let sidecar = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "drifts-worker" },
        "spec": {
            "selector": { "matchLabels": { "mpegflow.io/pool": "drifts" } },
            "template": { "spec": {
                "hostNetwork": true,
                "containers": [{ "name": "sidecar", "image": "evil.example.com/x" }],
            } },
        },
    });
    deployments.patch("drifts-worker", &mallory, &Patch::Apply(sidecar)).await.unwrap();
    until_object(shared, Kind::Deployment, "the sidecar is gone", |object| {
        let pod = &object["spec"]["template"]["spec"];
        pod["containers"].as_array().is_some_and(|list| list.len() == 1 && list[0]["name"] == "worker")
            && pod.get("hostNetwork").is_none()
    })
    .await;

    // Scaled behind the pool's back.
    let scale = json!({ "spec": { "replicas": 7 } });
    deployments.patch_scale("drifts-worker", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    until_object(shared, Kind::Deployment, "one replica", |object| object["spec"]["replicas"] == 1).await;

    // A label by which the operator watches.
    let budget = shared.objects(Kind::PodDisruptionBudget, "media");
    let unlabel = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } });
    budget.patch("drifts-worker", &PatchParams::default(), &Patch::Merge(unlabel)).await.unwrap();
    until_object(shared, Kind::PodDisruptionBudget, "labelled again", |object| {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "mpegflow-operator"
    })
    .await;

    // Deleted objects.
    for kind in [
        Kind::NetworkPolicy,
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::PodDisruptionBudget,
        Kind::Deployment,
    ] {
        let api = shared.objects(kind, "media");
        let uid = api.get("drifts-worker").await.unwrap().metadata.uid;
        api.delete("drifts-worker", &DeleteParams::background()).await.unwrap();
        until(&format!("another {kind:?}"), || async {
            let object = api.get_opt("drifts-worker").await.ok()??;
            (object.metadata.uid != uid).then_some(())
        })
        .await;
    }

    // Metadata that is not ours stays: it is how other tools mark what they have seen.
    let note = json!({ "metadata": { "annotations": { "example.com/note": "seen" } } });
    deployments.patch("drifts-worker", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    shared.patch_pool("drifts", json!({ "spec": { "drainGraceSeconds": 61 } })).await;
    let object = until_object(shared, Kind::Deployment, "the new grace", |object| {
        object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 71
    })
    .await;
    assert_eq!(object["metadata"]["annotations"]["example.com/note"], "seen");
    shared.delete_pool("drifts").await;
}
