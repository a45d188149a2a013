//! What there is to know of a cluster before anything is installed, by GET alone and, for rights, by reviews that store nothing.

use crate::api_server;
use crate::exit::{Exit, Failed};
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one answer: some thousand nodes.
const MOST_BYTES: usize = 64 << 20;

/// Something that was asked for: or why it could not be had.
pub(super) type Known<T> = Result<T, String>;

/// A node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) kernel: String,
    pub(super) architecture: String,
    pub(super) runtime: String,
    /// Resources of GPUs, such as `nvidia.com/gpu`, and how many.
    pub(super) gpus: BTreeMap<String, String>,
}

/// A DaemonSet or Deployment that says what the cluster runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) images: Vec<String>,
    /// Words of all containers' arguments, and their variables as `NAME=VALUE`.
    pub(super) words: BTreeSet<String>,
    /// Whether as many of its pods are ready as should be.
    pub(super) ready: bool,
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Such as `(1, 35)`, with the whole text.
    pub(super) version: (u32, u32, String),
    /// `GROUP/VERSION` of everything that is served.
    pub(super) versions: BTreeSet<String>,
    pub(super) nodes: Known<Vec<Node>>,
    pub(super) daemon_sets: Known<Vec<Workload>>,
    pub(super) deployments: Known<Vec<Workload>>,
    /// The agents' configuration, where there is Cilium.
    pub(super) cilium: Known<Option<BTreeMap<String, String>>>,
    pub(super) namespace: String,
    /// Labels of the namespace; `None` where it is not there yet.
    pub(super) labels: Known<Option<BTreeMap<String, String>>>,
    /// Whether aggregated APIs that autoscaling rests on are available.
    pub(super) aggregated: BTreeMap<&'static str, Known<bool>>,
    /// Rights that an installation needs and the caller does not have.
    pub(super) lacking: Known<Vec<String>>,
}

/// What an installation makes: group, resource, whether it is in the namespace.
const MADE: &[(&str, &str, bool)] = &[
    ("apps", "deployments", true),
    ("", "services", true),
    ("", "serviceaccounts", true),
    ("batch", "jobs", true),
    ("networking.k8s.io", "networkpolicies", true),
    ("policy", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", false),
];

/// Looks at the cluster.
pub(super) async fn gather(client: &kube::Client, namespace: &str) -> Result<Facts, Failed> {
    let failed = |what: String| {
        Failed::new(Exit::Unreachable, "cluster_unreadable", what)
            .help("check it with `kubectl cluster-info`")
    };
    let version = get(client, "/version").await.map_err(failed)?;
    let number = |key: &str| {
        let text = version.get(key).and_then(Value::as_str).unwrap_or_default();
        text.trim_end_matches('+').parse::<u32>().unwrap_or(0)
    };
    let text = version.get("gitVersion").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let groups = get(client, "/apis").await.map_err(failed)?;
    let versions = array(&groups, "/groups")
        .iter()
        .flat_map(|group| array(group, "/versions"))
        .filter_map(|version| version.get("groupVersion").and_then(Value::as_str))
        .map(str::to_owned)
        .collect();
    let mut aggregated = BTreeMap::new();
    for name in ["v1beta1.external.metrics.k8s.io", "v1beta1.metrics.k8s.io"] {
        aggregated.insert(name, available(client, name).await);
    }
    Ok(Facts {
        version: (number("major"), number("minor"), text),
        versions,
        nodes: items(client, "/api/v1/nodes").await.map(|items| items.iter().map(node).collect()),
        daemon_sets: workloads(client, "daemonsets", "numberReady", "desiredNumberScheduled").await,
        deployments: workloads(client, "deployments", "readyReplicas", "replicas").await,
        cilium: cilium(client).await,
        namespace: namespace.to_owned(),
        labels: found(client, &format!("/api/v1/namespaces/{namespace}"))
            .await
            .map(|object| object.map(|object| strings(&object, "/metadata/labels"))),
        aggregated,
        lacking: lacking(client, namespace).await,
    })
}

async fn available(client: &kube::Client, name: &str) -> Known<bool> {
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
    let Some(service) = found(client, &path).await? else { return Ok(false) };
    let is_available = |condition: &Value| {
        condition.get("type").and_then(Value::as_str) == Some("Available")
            && condition.get("status").and_then(Value::as_str) == Some("True")
    };
    Ok(array(&service, "/status/conditions").iter().any(is_available))
}

async fn cilium(client: &kube::Client) -> Known<Option<BTreeMap<String, String>>> {
    let path = "/api/v1/namespaces/kube-system/configmaps/cilium-config";
    Ok(found(client, path).await?.map(|object| strings(&object, "/data")))
}

async fn lacking(client: &kube::Client, namespace: &str) -> Known<Vec<String>> {
    let mut lacking = Vec::new();
    for (group, resource, namespaced) in MADE {
        let mut attributes = json!({ "group": group, "resource": resource, "verb": "create" });
        if let (true, Some(object)) = (*namespaced, attributes.as_object_mut()) {
            object.insert("namespace".into(), namespace.into());
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let request = hyper::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("content-type", "application/json")
            .body(Body::from(review.to_string().into_bytes()))
            .map_err(|e| e.to_string())?;
        let answer = api_server::ask(client, request, MOST_BYTES).await;
        let (status, answer) = answer.map_err(|e| e.to_string())?;
        let status = status.as_u16();
        if status != 201 {
            return Err(format!("the API server answers {status} to a review of one's own rights"));
        }
        if answer.pointer("/status/allowed") != Some(&Value::Bool(true)) {
            lacking.push(if group.is_empty() {
                (*resource).to_owned()
            } else {
                format!("{resource}.{group}")
            });
        }
    }
    Ok(lacking)
}

async fn workloads(client: &kube::Client, resource: &str, ready: &str, wanted: &str) -> Known<Vec<Workload>> {
    let items = items(client, &format!("/apis/apps/v1/{resource}")).await?;
    let number = |item: &Value, key: &str| item.pointer(&format!("/status/{key}")).and_then(Value::as_u64);
    let workload = |item: &Value| {
        let containers = array(item, "/spec/template/spec/containers");
        let text = |key: &str| item.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut words = BTreeSet::new();
        for container in containers {
            for key in ["/args", "/command"] {
                words.extend(array(container, key).iter().filter_map(Value::as_str).map(str::to_owned));
            }
            for variable in array(container, "/env") {
                let part = |key| variable.get(key).and_then(Value::as_str).unwrap_or_default();
                words.insert(format!("{}={}", part("name"), part("value")));
            }
        }
        Workload {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            images: containers
                .iter()
                .filter_map(|container| container.get("image").and_then(Value::as_str).map(str::to_owned))
                .collect(),
            words,
            ready: number(item, ready).unwrap_or(0) >= number(item, wanted).unwrap_or(0),
        }
    };
    Ok(items.iter().map(workload).collect())
}

fn node(item: &Value) -> Node {
    let text = |key: &str| item.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_gpu = |name: &str| name.starts_with("nvidia.com/gpu") || name.starts_with("nvidia.com/mig-");
    Node {
        name: text("/metadata/name"),
        kernel: text("/status/nodeInfo/kernelVersion"),
        architecture: text("/status/nodeInfo/architecture"),
        runtime: text("/status/nodeInfo/containerRuntimeVersion"),
        gpus: strings(item, "/status/allocatable")
            .into_iter()
            .filter(|(name, count)| is_gpu(name) && count != "0")
            .collect(),
    }
}

fn strings(object: &Value, path: &str) -> BTreeMap<String, String> {
    let map = object.pointer(path).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn array<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

async fn items(client: &kube::Client, path: &str) -> Known<Vec<Value>> {
    Ok(array(&get(client, path).await?, "/items").to_vec())
}

async fn get(client: &kube::Client, path: &str) -> Known<Value> {
    found(client, path).await?.ok_or_else(|| format!("the API server knows no {path}"))
}

/// What is at a path; `None` where nothing is.
async fn found(client: &kube::Client, path: &str) -> Known<Option<Value>> {
    let (status, value) = api_server::get(client, path, MOST_BYTES).await.map_err(|e| e.to_string())?;
    match status.as_u16() {
        200 => Ok(Some(value)),
        404 => Ok(None),
        401 | 403 => Err(format!("you may not read {path}")),
        status => Err(format!("the API server answers {status} to {path}")),
    }
}
