//! Objects that the API server takes and these types do not: of another version's definition, or an edited one's.

use crate::rules;
use crate::support::{condition, turn};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_operator::crd;
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};

/// The definitions as a later version might have them: a dialect and weights that this one does not know.
fn later() -> [Value; 2] {
    crd::definitions().map(|(_, definition)| {
        let mut definition = serde_json::to_value(definition).unwrap();
        let spec = definition
            .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
            .unwrap();
        match spec.pointer_mut("/isolation/properties/dialects/items/enum") {
            Some(dialects) => dialects.as_array_mut().unwrap().push(json!("Antrea")),
            None => spec["weight"]["maximum"] = json!(100_000),
        }
        definition
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_cannot_be_read_says_so_and_holds_up_no_other() {
    let turn = turn().await;
    let shared = turn.shared;
    for definition in later() {
        shared.cluster.apply(&definition.to_string()).await;
    }
    let odd = |dialects: Value| json!({ "isolation": { "dialects": dialects }, "scale": { "replicas": 1 } });
    let amounts = json!({ "cpu": 1, "memory": 4_294_967_296_i64, "scratch": 3_000_000_000_i64 });
    shared.pool("amounts", json!({ "resources": amounts, "scale": { "replicas": 1 } })).await;
    shared.until_reason("amounts", "WorkersStarting").await;
    shared.pool("turns-odd", odd(json!(["Auto"]))).await;
    shared.until_reason("turns-odd", "WorkersStarting").await;
    shared.patch_pool("turns-odd", json!({ "spec": { "isolation": { "dialects": ["Antrea"] } } })).await;
    let pool = shared.until_reason("turns-odd", "Unreadable").await;
    let (stalled, _, message) = condition(&pool, "Stalled").unwrap();
    assert!(stalled && message.contains("spec.isolation.dialects[0]: unknown variant `Antrea`"), "{message}");

    let tenant = |name: &str, weight: u32| -> DynamicObject {
        let change = json!({ "metadata": { "name": name }, "spec": { "weight": weight } });
        serde_json::from_value(rules::object("Tenant", &change)).unwrap()
    };
    shared.cluster.try_apply(&tenant("heavy", 70_000)).await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mpegflow.io", "v1alpha1", "Tenant"));
    let raw: Api<DynamicObject> = Api::all_with(shared.cluster.client(), &resource);
    let stalled = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "Stalled" && c["status"] == "True")
    };
    let told = async || {
        let stalled = stalled(&raw.get("heavy").await.ok()?.data)?;
        stalled["message"].as_str().is_some_and(|m| m.contains("spec.weight: invalid value")).then_some(())
    };
    until("the tenant says so", told).await;

    // While the operator is not there, others open and delete. It comes back, and lists the odd ones among all.
    shared.stop_operator();
    let policies = shared.objects(Kind::NetworkPolicy, "media");
    let open = json!({ "spec": { "egress": [{}], "ingress": [{}] } });
    for name in ["amounts-worker", "turns-odd-worker"] {
        policies.patch(name, &PatchParams::default(), &Patch::Merge(&open)).await.unwrap();
    }
    shared
        .objects(Kind::Deployment, "media")
        .delete("amounts-worker", &DeleteParams::background())
        .await
        .unwrap();
    shared.start_operator().await;
    shared.pool("later", json!({})).await;
    shared.until_reason("later", "ScaledToZero").await;
    for name in ["amounts-worker", "turns-odd-worker"] {
        until(&format!("the policy {name} is closed again"), || async {
            let policy = shared.get(Kind::NetworkPolicy, "media", name).await?;
            let rules = |way: &str| policy["spec"][way].as_array().cloned().unwrap_or_default();
            (!rules("egress").contains(&json!({})) && rules("ingress").is_empty()).then_some(())
        })
        .await;
    }
    let limits = until("the Deployment is there again", || async {
        let deployment = shared.get(Kind::Deployment, "media", "amounts-worker").await?;
        Some(deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].clone())
    })
    .await;
    assert_eq!(limits, json!({ "cpu": "1", "memory": "4294967296" }));
    assert!(
        shared.get(Kind::Deployment, "media", "turns-odd-worker").await.is_some(),
        "what runs stays as it is"
    );
    let log = shared.operator_log();
    assert!(!log.contains("registry.example.com/mpegflow/worker"), "no list of pools is in the log: {log}");

    // It can be deleted as it is, and be mended.
    shared.pool("stays-odd", odd(json!(["Antrea"]))).await;
    shared.until_reason("stays-odd", "Unreadable").await;
    shared.delete_pool("stays-odd").await;
    shared.patch_pool("turns-odd", json!({ "spec": { "isolation": { "dialects": ["Auto"] } } })).await;
    shared.until_reason("turns-odd", "WorkersStarting").await;
    for name in ["amounts", "turns-odd", "later"] {
        shared.delete_pool(name).await;
    }
    raw.delete("heavy", &DeleteParams::default()).await.unwrap();
    until("the tenant is gone", || async { raw.get_opt("heavy").await.ok()?.is_none().then_some(()) }).await;
    for (_, definition) in crd::definitions() {
        shared.cluster.apply(&crd::to_yaml(&definition)).await;
    }
}
