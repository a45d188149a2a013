//! KEDA's ScaledObject. It scales the WorkerPool, never the Deployment: what of that is safe, the operator decides.

use super::{Child, Kind, metadata};
use crate::crd::WorkerPool;
use crate::settings::Depth;
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// KEDA's own switch. A person's on the ScaledObject is left alone.
const PAUSED: &str = "autoscaling.keda.sh/paused";

pub(super) fn scaled_object(pool: &WorkerPool, depth: &Depth) -> Child {
    let scale = &pool.spec.scale;
    let mut trigger = json!({
        "type": "redis",
        "metadata": {
            "address": depth.address,
            "listName": depth.key.replace("{pool}", &pool.name_any()),
            "listLength": scale.target_per_worker.to_string(),
            "enableTLS": depth.tls.to_string(),
        },
    });
    if let (Some(name), Some(trigger)) = (&depth.authentication, trigger.as_object_mut()) {
        trigger.insert(
            "authenticationRef".into(),
            json!({ "name": name.replace("{pool}", &pool.name_any()), "kind": "ClusterTriggerAuthentication" }),
        );
    }
    let mut spec = json!({
        "scaleTargetRef": {
            "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool", "name": pool.name_any(),
        },
        "pollingInterval": scale.polling_seconds,
        "cooldownPeriod": scale.cooldown_seconds,
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "triggers": [trigger],
    });
    if let (Some(fallback), Some(spec)) = (&scale.fallback, spec.as_object_mut()) {
        spec.insert(
            "fallback".into(),
            json!({
                "failureThreshold": fallback.failure_threshold,
                "replicas": fallback.replicas,
                "behavior": fallback.behavior,
            }),
        );
    }
    let child = Child::new(Kind::ScaledObject, json!({ "metadata": metadata(pool), "spec": spec }));
    if pool.spec.paused { paused(child) } else { child }
}

fn paused(mut child: Child) -> Child {
    let annotations = child.object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        let digest = format!(
            "{}-paused",
            annotations.get(super::child::APPLIED).and_then(Value::as_str).unwrap_or("")
        );
        annotations.insert(super::child::APPLIED.into(), json!(digest));
        annotations.insert(PAUSED.into(), json!("true"));
    }
    child
}
