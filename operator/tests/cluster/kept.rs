//! Policies are kept in place whatever else is wrong: a pool's pods may run from before it went wrong.

use crate::support::{Shared, turn};
use kube::api::{DeleteParams, Patch, PatchParams};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::{Process, until};
use serde_json::{Value, json};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: mpegflow-broker, namespace: mpegflow}\nspec:\n  clusterIP: 10.96.7.7\n  \
     selector: {app.kubernetes.io/name: mpegflow-broker}\n  ports: [{name: worker-api, port: 8443, targetPort: 8443}]\n";

/// Somebody opens a policy and then deletes it; each time it is closed again.
async fn opens_and_deletes(shared: &Shared, pool: &str, when: &str) -> Value {
    let name = format!("{pool}-worker");
    let policies = shared.objects(Kind::NetworkPolicy, "media");
    let open = json!({ "spec": { "egress": [{}], "ingress": [{}] } });
    policies.patch(&name, &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    let closed = async |what: &str, uid: &Value| {
        until(&format!("{pool} is closed, {when}, after {what}"), || async {
            let policy = shared.get(Kind::NetworkPolicy, "media", &name).await?;
            let egress = policy["spec"]["egress"].as_array().cloned().unwrap_or_default();
            let ingress = policy["spec"]["ingress"].as_array().cloned().unwrap_or_default();
            let both = policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]);
            let is_closed = both && ingress.is_empty() && !egress.contains(&json!({}));
            (is_closed && policy["metadata"]["uid"] != *uid).then_some(policy)
        })
        .await
    };
    let policy = closed("it was opened", &Value::Null).await;
    policies.delete(&name, &DeleteParams::background()).await.unwrap();
    closed("it was deleted", &policy["metadata"]["uid"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_policy_is_closed_while_a_pool_is_stalled_or_its_broker_is_away() {
    let turn = turn().await;
    let shared = turn.shared;
    let tenant = |pools: &[&str]| -> kube::api::DynamicObject {
        let change = json!({ "metadata": { "name": "lender" }, "spec": { "allowedPools": pools } });
        serde_json::from_value(crate::rules::object("Tenant", &change)).unwrap()
    };
    shared.cluster.try_apply(&tenant(&["media/lent"])).await.unwrap();
    shared.pool("lent", json!({ "tenant": "lender" })).await;
    shared
        .pool("edited", json!({ "storage": { "access": "Presigned", "endpoints": ["192.0.2.1:443"] } }))
        .await;
    for pool in ["lent", "edited"] {
        shared.until_reason(pool, "ScaledToZero").await;
    }

    // The tenant's leave is withdrawn.
    shared.cluster.try_apply(&tenant(&["media/another"])).await.unwrap();
    shared.until_reason("lent", "NotAllowed").await;
    opens_and_deletes(shared, "lent", "without its tenant's leave").await;

    // The pool is edited to what no policy can be made of. What stands is left alone until somebody else writes into it.
    let bad = json!({ "spec": { "storage": { "endpoints": ["999.0.2.1:443"] } } });
    shared.patch_pool("edited", bad).await;
    shared.until_reason("edited", "BadStorageEndpoint").await;
    let policy = shared.get(Kind::NetworkPolicy, "media", "edited-worker").await.unwrap();
    assert!(policy.to_string().contains("192.0.2.1/32"), "what runs goes on: {policy}");
    let policy = opens_and_deletes(shared, "edited", "with a bad endpoint").await;
    assert!(
        !policy.to_string().contains("192.0.2.1/32") && policy.to_string().contains("10.96.7.7/32"),
        "{policy}"
    );
    shared.patch_pool("edited", json!({ "spec": { "storage": { "endpoints": ["192.0.2.1:443"] } } })).await;
    shared.until_reason("edited", "ScaledToZero").await;

    // The broker goes: first it is known where it was, and after a restart not even that.
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(shared.cluster.client(), "mpegflow");
    services.delete("mpegflow-broker", &DeleteParams::default()).await.unwrap();
    shared.until_reason("edited", "NoBroker").await;
    let policy = opens_and_deletes(shared, "edited", "without a broker").await;
    assert!(
        policy.to_string().contains("192.0.2.1/32") && policy.to_string().contains("10.96.7.7/32"),
        "{policy}"
    );
    shared.stop_operator();
    shared.start_operator().await;
    opens_and_deletes(shared, "edited", "without a broker, by an operator that never saw one").await;
    shared.cluster.apply(SERVICE).await;
    shared.until_reason("edited", "ScaledToZero").await;
    let policy = shared.get(Kind::NetworkPolicy, "media", "edited-worker").await.unwrap();
    assert!(
        policy.to_string().contains("192.0.2.1/32") && policy.to_string().contains("10.96.7.7/32"),
        "{policy}"
    );

    // The broker's control API is away, and the operator new.
    shared.stop_operator();
    let mut away = shared.operator("mpegflow-operator").await;
    let token = shared.cluster.dir().join("no-token");
    std::fs::write(&token, "none").unwrap();
    away.args(["--control", "127.0.0.1:1", "--broker-token"]).arg(&token);
    let away = Process::start("operator-without-broker", shared.cluster.dir(), &away);
    until("it knows that", || async {
        away.log().contains("nobody can say which workers are busy").then_some(())
    })
    .await;
    opens_and_deletes(shared, "edited", "while the broker is away").await;
    opens_and_deletes(shared, "lent", "without leave, while the broker is away").await;
    drop(away);
    shared.start_operator().await;
    for pool in ["lent", "edited"] {
        shared.delete_pool(pool).await;
    }
    shared.tenants().delete("lender", &DeleteParams::default()).await.unwrap();
    until("the tenant is gone", || async {
        shared.tenants().get_opt("lender").await.ok()?.is_none().then_some(())
    })
    .await;
}
