//! The small objects of a pool: account, join file, disruption budget.

use super::{Child, Kind, World, metadata, selector};
use crate::crd::WorkerPool;
use crate::settings::Settings;
use kube::ResourceExt as _;
use serde_json::json;

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
    let file = json!({
        "broker": format!("{}:{}", broker.server_name, world.broker.port),
        "server_name": broker.server_name,
        "ca": broker.ca,
        "pool": pool.name_any(),
        "token_file": "token",
        "unreachable": unreachable(settings),
    });
    Child::new(
        Kind::ConfigMap,
        json!({ "metadata": metadata(pool), "data": { "join.json": file.to_string() } }),
    )
}

/// What no worker may reach: it enrols once none of these answers, and the broker does.
fn unreachable(settings: &Settings) -> Vec<serde_json::Value> {
    let metadata = [
        ("metadata service", "169.254.169.254:80"),
        ("metadata service of tasks", "169.254.170.2:80"),
        ("metadata service", "[fd00:ec2::254]:80"),
    ];
    let metadata = metadata.map(|(name, address)| (name.to_owned(), address.to_owned()));
    let named = settings.unreachable.iter().map(|(name, address)| (name.clone(), address.to_string()));
    named.chain(metadata).map(|(name, address)| json!({ "name": name, "address": address })).collect()
}

/// A quarter of the workers at a time. Never none: a node could not be drained then.
pub(super) fn disruption_budget(pool: &WorkerPool) -> Child {
    Child::new(
        Kind::PodDisruptionBudget,
        json!({
            "metadata": metadata(pool),
            "spec": { "maxUnavailable": "25%", "selector": { "matchLabels": selector(pool) } },
        }),
    )
}
