//! The Deployment of a pool's workers: as `mpegflow audit` demands it.

use super::{Child, Kind, World, labels, metadata, name, selector, storage};
use crate::crd::{Class, Gpu, WorkerPool};
use crate::settings::Settings;
use serde_json::{Map, Value, json};

/// Neither root nor anybody whom an image or a node may know.
const USER: u32 = 65_532;
/// Folder of the join file and the token.
pub(super) const JOIN: &str = "/run/mpegflow";
/// Folder of the pod's key, in memory: a container that starts again has to show the same one.
const IDENTITY: &str = "/run/identity";
/// Folder of unlinked files.
const SCRATCH: &str = "/scratch";
/// Annotation of a worker's pod: the storage that it may reach.
const STORAGE: &str = "mpegflow.io/storage";
/// Seconds after the drain for what a process does at its end.
const AFTER_DRAIN: u32 = 10;
/// Seconds that a worker's token lasts; the kubelet renews it. The shortest that Kubernetes gives.
const TOKEN_SECONDS: u32 = 600;

pub(super) fn deployment(pool: &WorkerPool, settings: &Settings, world: &World) -> Child {
    // A GPU that is in use cannot be had twice, so nothing new comes before something old has gone.
    let (surge, unavailable) = match pool.spec.class {
        Class::Cpu => (json!("25%"), json!("25%")),
        Class::Gpu => (json!(0), json!(1)),
    };
    let spec = json!({
        "selector": { "matchLabels": selector(pool) },
        "revisionHistoryLimit": 3,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable },
        },
        "template": { "metadata": template(pool), "spec": pod(pool, settings, world) },
    });
    Child::new(Kind::Deployment, json!({ "metadata": metadata(pool), "spec": spec }))
}

/// `metadata` of a worker. It reads its join file once, so that other storage takes other pods.
fn template(pool: &WorkerPool) -> Value {
    let storage: Vec<String> = storage(pool).iter().map(ToString::to_string).collect();
    if storage.is_empty() {
        return json!({ "labels": labels(pool) });
    }
    json!({ "labels": labels(pool), "annotations": { STORAGE: storage.join(" ") } })
}

/// What every pod of a pool is like, a worker's and a canary's: what network policies and the kernel see of it.
pub(super) fn hardened(pool: &WorkerPool, settings: &Settings, world: &World) -> Map<String, Value> {
    let aliases: Vec<Value> = world
        .broker
        .addresses
        .iter()
        .map(|ip| json!({ "ip": ip.to_string(), "hostnames": [settings.broker.server_name] }))
        .collect();
    let pod = json!({
        "serviceAccountName": name(pool),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "hostAliases": aliases,
        // Kubernetes wants a server where there is no DNS; on a pod's own loopback nobody answers.
        "dnsPolicy": "None",
        "dnsConfig": { "nameservers": ["127.0.0.1"] },
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    let mut pod = pod.as_object().cloned().unwrap_or_default();
    let spec = &pool.spec;
    for (key, value) in
        [("runtimeClassName", &spec.runtime_class_name), ("priorityClassName", &spec.priority_class_name)]
    {
        if let Some(value) = value {
            pod.insert(key.into(), json!(value));
        }
    }
    if !spec.tolerations.is_empty() {
        pod.insert("tolerations".into(), json!(spec.tolerations));
    }
    pod
}

/// What a container of it may.
pub(super) fn locked() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

fn pod(pool: &WorkerPool, settings: &Settings, world: &World) -> Value {
    let spec = &pool.spec;
    let own = json!({
        "terminationGracePeriodSeconds": spec.drain_grace_seconds.saturating_add(AFTER_DRAIN),
        "containers": [container(pool)],
        "volumes": [
            {
                "name": "join",
                "projected": {
                    // 0440: the owner is root, the group is the pod's.
                    "defaultMode": 288,
                    "sources": [
                        { "configMap": { "name": name(pool), "items": [{ "key": "join.json", "path": "join.json" }] } },
                        { "serviceAccountToken": {
                            "audience": settings.broker.audience,
                            "expirationSeconds": TOKEN_SECONDS,
                            "path": "token",
                        } },
                    ],
                },
            },
            { "name": "identity", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "scratch", "emptyDir": { "sizeLimit": spec.resources.scratch.to_string() } },
        ],
    });
    let mut pod = hardened(pool, settings, world);
    pod.extend(own.as_object().cloned().unwrap_or_default());
    placement(pool, &mut pod);
    Value::Object(pod)
}

fn container(pool: &WorkerPool) -> Value {
    let spec = &pool.spec;
    let mut resources = Map::new();
    resources.insert("cpu".into(), json!(spec.resources.cpu.to_string()));
    resources.insert("memory".into(), json!(spec.resources.memory.to_string()));
    if let Some(gpu) = &spec.gpu {
        resources.insert(device(gpu), json!(gpu.count.to_string()));
    }
    let mut container = json!({
        "name": "worker",
        "image": spec.image,
        "args": [
            "--join", format!("{JOIN}/join.json"), "--identity", IDENTITY, "--scratch", SCRATCH,
            "--grace", spec.drain_grace_seconds.to_string(), "--log", "json",
        ],
        "resources": { "requests": resources, "limits": resources },
        "securityContext": locked(),
        "volumeMounts": [
            { "name": "join", "mountPath": JOIN, "readOnly": true },
            { "name": "identity", "mountPath": IDENTITY },
            { "name": "scratch", "mountPath": SCRATCH },
        ],
    });
    if let (Some(_), Some(container)) = (&spec.gpu, container.as_object_mut()) {
        // Without `video` the driver's encoder and decoder libraries are not there.
        container.insert(
            "env".into(),
            json!([{ "name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,video,utility" }]),
        );
    }
    container
}

/// The resource that a GPU, or a slice of one, is counted as under the device plugin's *mixed* strategy.
fn device(gpu: &Gpu) -> String {
    match (&gpu.mig_profile, gpu.resource.split_once('/')) {
        // `+` cannot stand in the name of a resource; the device plugin writes a dot.
        (Some(profile), Some((vendor, _))) => format!("{vendor}/mig-{}", profile.replace('+', ".")),
        _ => gpu.resource.clone(),
    }
}

fn placement(pool: &WorkerPool, pod: &mut Map<String, Value>) {
    let spec = &pool.spec;
    if !spec.node_selector.is_empty() {
        pod.insert("nodeSelector".into(), json!(spec.node_selector));
    }
    if let Some(affinity) = &spec.affinity {
        pod.insert("affinity".into(), affinity.clone());
    }
    if !spec.topology_spread.is_empty() {
        let spread: Vec<Value> = spec
            .topology_spread
            .iter()
            .map(|spread| {
                json!({
                    "topologyKey": spread.topology_key,
                    "maxSkew": spread.max_skew,
                    "whenUnsatisfiable": spread.when_unsatisfiable,
                    "labelSelector": { "matchLabels": selector(pool) },
                })
            })
            .collect();
        pod.insert("topologySpreadConstraints".into(), json!(spread));
    }
}
