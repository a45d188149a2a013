//! The small objects of a pool: account, join file, disruption budget.

use super::{CANARY_LABEL, Child, Kind, World, metadata, selector, storage, targets};
use crate::crd::WorkerPool;
use crate::settings::Settings;
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// An account that nothing is bound to and whose token nobody mounts. Its projected, audience-bound token says which pod
/// somebody is, and to the broker alone.
pub(super) fn service_account(pool: &WorkerPool) -> Child {
    Child::new(
        Kind::ServiceAccount,
        json!({ "metadata": metadata(pool), "automountServiceAccountToken": false }),
    )
}

/// What a worker must know to enrol, without a secret in it: the token lies beside it as a file of the kubelet's.
pub(super) fn join_file(pool: &WorkerPool, settings: &Settings, world: &World) -> Child {
    let broker = &settings.broker;
    let unreachable: Vec<Value> = targets(settings)
        .into_iter()
        .map(|target| json!({ "name": target.name, "address": target.address.to_string() }))
        .collect();
    let mut file = json!({
        "broker": format!("{}:{}", broker.server_name, world.broker.port),
        "server_name": broker.server_name,
        "ca": broker.ca,
        "pool": pool.name_any(),
        "token_file": "token",
        "unreachable": unreachable,
    });
    let storage = storage(pool);
    if let Some(file) = file.as_object_mut().filter(|_| !storage.is_empty()) {
        file.insert("storage".into(), json!(storage));
    }
    Child::new(
        Kind::ConfigMap,
        json!({ "metadata": metadata(pool), "data": { "join.json": file.to_string() } }),
    )
}

/// A quarter of the workers at a time. Never none: a node could not be drained then. Canaries are none of them.
pub(super) fn disruption_budget(pool: &WorkerPool) -> Child {
    Child::new(
        Kind::PodDisruptionBudget,
        json!({
            "metadata": metadata(pool),
            "spec": {
                "maxUnavailable": "25%",
                "selector": {
                    "matchLabels": selector(pool),
                    "matchExpressions": [{ "key": CANARY_LABEL, "operator": "DoesNotExist" }],
                },
            },
        }),
    )
}
