//! A canary: a pod that is to policies what a worker of the pool is, on a node where workers are, and that cannot be one. It looks
//! around as a worker does before it enrols, says what it saw in its termination message, and ends. It has no token.

use super::deployment::{JOIN, hardened, locked};
use super::{Child, Kind, World, labels, name, owner};
use crate::crd::WorkerPool;
use crate::settings::Settings;
use aws_lc_rs::digest::{Context, SHA256};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Label of a canary; its value is drawn anew for each.
pub const CANARY_LABEL: &str = "mpegflow.io/canary";
/// A canary that hangs is ended by its kubelet after so many seconds.
const LONGEST: u32 = 120;

/// An address that no worker may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What is there.
    pub name: String,
    /// Where.
    pub address: SocketAddr,
    /// Whether the operator itself may ask there, so that silence can be told from nobody being there.
    pub asked: bool,
}

/// What no worker may reach: it enrols once none of these answers, and the broker does. Each address once.
pub fn targets(settings: &Settings) -> Vec<Target> {
    let asked =
        |name: &str, address: &SocketAddr| Target { name: name.to_owned(), address: *address, asked: true };
    let named = settings.unreachable.iter().map(|(name, address)| asked(name, address));
    let control = settings.control.iter().map(|control| asked("the broker's control API", &control.address));
    // Whether anybody is there, the operator has no right to know: what answers there hands out the node's own credentials.
    let metadata = [
        ("metadata service", SocketAddr::from(([169, 254, 169, 254], 80))),
        ("metadata service of tasks", SocketAddr::from(([169, 254, 170, 2], 80))),
        ("metadata service", SocketAddr::from(([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 80))),
    ];
    let metadata = metadata.map(|(name, address)| Target { name: name.to_owned(), address, asked: false });
    let mut targets: Vec<Target> = Vec::new();
    for target in named.chain(control).chain(metadata) {
        if !targets.iter().any(|other| other.address == target.address) {
            targets.push(target);
        }
    }
    targets
}

/// A pool's canary, but for its name and its node.
pub fn canary(pool: &WorkerPool, settings: &Settings, world: &World) -> Value {
    let mut spec = hardened(pool, settings, world);
    let own = json!({
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LONGEST,
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "canary",
            "image": pool.spec.image,
            "args": [
                "--join", format!("{JOIN}/join.json"), "--canary", "/dev/termination-log", "--node", "$(NODE_ADDRESS)",
                "--log", "json",
            ],
            "env": [{ "name": "NODE_ADDRESS", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }],
            // It is to fit beside workers that take all of a node.
            "resources": {
                "requests": { "cpu": "1m", "memory": "1Mi" },
                "limits": { "cpu": "200m", "memory": "64Mi" },
            },
            "securityContext": locked(),
            "terminationMessagePolicy": "File",
            "volumeMounts": [{ "name": "join", "mountPath": JOIN, "readOnly": true }],
        }],
        "volumes": [{
            "name": "join",
            "configMap": {
                "name": name(pool), "defaultMode": 288, "items": [{ "key": "join.json", "path": "join.json" }],
            },
        }],
    });
    spec.extend(own.as_object().cloned().unwrap_or_default());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": pool.namespace(), "labels": labels(pool), "ownerReferences": [owner(pool)] },
        "spec": spec,
    })
}

/// The canary of one run. It is put on its node past the scheduler, as a DaemonSet's pods once were: it has to stand where workers are,
/// however full or tainted that is.
pub fn canary_on(template: &Value, name: &str, run: &str, node: &str) -> Value {
    let mut pod = template.clone();
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".into(), json!(name));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.insert(CANARY_LABEL.into(), json!(run));
        }
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".into(), json!(node));
    }
    pod
}

/// Digest of all that a verdict on a pool is about: its policies, the kinds of policies that the cluster knows, what its pods are like
/// and what they are told to look at. A change of any of it needs another verdict.
pub fn policy_digest(children: &[Child], world: &World) -> String {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        context.update(text.as_bytes());
        context.update(&[0]);
    };
    for kind in world.kinds.iter().filter(|kind| kind.is_policy()) {
        add(&format!("{kind:?}"));
    }
    for child in children {
        let part = match child.kind {
            Kind::Deployment => child.object.pointer("/spec/template"),
            Kind::ConfigMap => child.object.get("data"),
            kind if kind.is_policy() => Some(&child.object),
            _ => None,
        };
        if let Some(part) = part {
            add(&format!("{:?}", child.kind));
            add(&part.to_string());
        }
    }
    let mut text = String::new();
    for byte in context.finish().as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
