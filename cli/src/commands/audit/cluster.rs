//! A live cluster, read with GET requests alone, page by page. What may not be read is an error, never an absence.

use crate::exit::{Exit, Failed};
use http_body_util::BodyExt as _;
use kube::client::Body;
use mpegflow_policies::read::{Input, Limits, concerns_policies};
use serde_json::Value;

/// Objects asked for at once; the API server's own clients use this number.
const PAGE: usize = 500;
/// Bytes of one answer.
const MOST_BYTES: usize = 256 << 20;
/// Pages of one kind: 5 million objects.
const MOST_PAGES: usize = 10_000;

/// Kinds that say who is in the cluster: path of the group, resource, kind.
const CORE: &[(&str, &str, &str)] = &[
    ("api/v1", "namespaces", "Namespace"),
    ("api/v1", "nodes", "Node"),
    ("api/v1", "pods", "Pod"),
    ("api/v1", "services", "Service"),
    ("api/v1", "serviceaccounts", "ServiceAccount"),
    ("apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
    ("apis/apps/v1", "deployments", "Deployment"),
    ("apis/apps/v1", "statefulsets", "StatefulSet"),
    ("apis/apps/v1", "daemonsets", "DaemonSet"),
    ("apis/apps/v1", "replicasets", "ReplicaSet"),
    ("apis/batch/v1", "jobs", "Job"),
    ("apis/batch/v1", "cronjobs", "CronJob"),
    ("apis/rbac.authorization.k8s.io/v1", "roles", "Role"),
    ("apis/rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole"),
    ("apis/rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding"),
];

/// Reads the cluster that the kubeconfig's context, or the named one, points at.
pub(super) async fn gather(
    context: Option<&str>,
    kubeconfig: Option<&std::path::Path>,
) -> Result<Input, Failed> {
    let client = client(context, kubeconfig).await?;
    let mut input = Input::new(Limits::default());
    for (group, resource, kind) in CORE {
        list(&client, &mut input, group, resource, kind).await?;
    }
    let groups = get(&client, "/apis").await?;
    for group in array(&groups, "groups") {
        let name = group.get("name").and_then(Value::as_str).unwrap_or_default();
        if !mpegflow_policies::read::is_policy_group(name) && name != "mpegflow.io" {
            continue;
        }
        // The preferred version is one that the server serves every object of the group in.
        let version =
            group.pointer("/preferredVersion/groupVersion").and_then(Value::as_str).unwrap_or_default();
        let resources = get(&client, &format!("/apis/{version}")).await?;
        for resource in array(&resources, "resources") {
            let text = |key| resource.get(key).and_then(Value::as_str).unwrap_or_default();
            let (plural, kind) = (text("name"), text("kind"));
            let lists = array(resource, "verbs").iter().any(|verb| verb.as_str() == Some("list"));
            if lists && !plural.contains('/') && concerns_policies(name, kind) {
                list(&client, &mut input, &format!("apis/{version}"), plural, kind).await?;
            }
        }
    }
    Ok(input)
}

/// A client of the cluster that the kubeconfig's context, or the named one, points at.
pub(in crate::commands) async fn client(
    context: Option<&str>,
    kubeconfig: Option<&std::path::Path>,
) -> Result<kube::Client, Failed> {
    let failed = |what: String| {
        Failed::new(Exit::BadInput, "no_cluster", what)
            .help("check it with `kubectl cluster-info`; choose with --context or --kubeconfig")
    };
    let options =
        kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let config = match kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| failed(e.to_string()))?
        }
        None if context.is_some() => {
            kube::Config::from_kubeconfig(&options).await.map_err(|e| failed(e.to_string()))?
        }
        None => kube::Config::infer().await.map_err(|e| failed(format!("no cluster is configured: {e}")))?,
    };
    kube::Client::try_from(config).map_err(|e| failed(e.to_string()))
}

async fn list(
    client: &kube::Client,
    input: &mut Input,
    group: &str,
    resource: &str,
    kind: &str,
) -> Result<(), Failed> {
    let version = group.strip_prefix("apis/").or_else(|| group.strip_prefix("api/")).unwrap_or(group);
    let mut next = String::new();
    for _ in 0..MOST_PAGES {
        let mut page = get(client, &format!("/{group}/{resource}?limit={PAGE}{next}")).await?;
        let token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
        let items =
            page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        let mut text = String::from("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
        for (i, mut item) in items.into_iter().enumerate() {
            if let Some(object) = item.as_object_mut() {
                object.insert("apiVersion".into(), version.into());
                object.insert("kind".into(), kind.into());
            }
            // Half of a small object's bytes, and nobody's concern here.
            if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            text.push_str(if i == 0 { "\n" } else { ",\n" });
            text.push_str(&item.to_string());
        }
        text.push_str("]}");
        input
            .add(&format!("cluster/{resource}"), text)
            .map_err(|e| Failed::new(Exit::BadInput, "cluster_too_large", e.to_string()))?;
        if token.is_empty() {
            return Ok(());
        }
        next = format!("&continue={}", percent(&token));
    }
    Err(Failed::new(Exit::BadInput, "cluster_too_large", format!("the cluster has too many {resource}")))
}

async fn get(client: &kube::Client, path: &str) -> Result<Value, Failed> {
    let failed = |what: String| Failed::new(Exit::BadInput, "cluster_unreadable", what);
    let request = hyper::Request::get(path)
        .header("accept", "application/json")
        .body(Body::empty())
        .map_err(|e| failed(format!("cannot ask for {path}: {e}")))?;
    let answer = client.send(request).await.map_err(|e| {
        failed(format!("the API server does not answer: {e}")).help("check it with `kubectl cluster-info`")
    })?;
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), MOST_BYTES);
    let body = body.collect().await.map_err(|e| failed(format!("cannot read {path}: {e}")))?.to_bytes();
    if status.as_u16() == 401 || status.as_u16() == 403 {
        let resource = path.split(['?']).next().unwrap_or(path);
        return Err(failed(format!("{resource} may not be read ({status})")).help(
            "give yourself get and list on it for all namespaces (ClusterRole `view` and nodes, RBAC and policies); \
             an audit that may not see a kind proves nothing",
        ));
    }
    if !status.is_success() {
        return Err(failed(format!("the API server answers {status} to {path}")));
    }
    serde_json::from_slice(&body).map_err(|e| failed(format!("the answer to {path} is not JSON: {e}")))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
