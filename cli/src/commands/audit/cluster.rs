//! A live cluster, read with GET requests alone, page by page. A kind that the account may not list is no error and no absence:
//! it comes back as unread, so that what depends on it is unknown and the report names the missing right. The rights that are
//! needed are in docs/audit.md.

use crate::api_server::{self, Unanswered};
use crate::exit::{Exit, Failed};
use crate::ui::Ui;
use mpegflow_policies::read::{Input, Limits, Unread, concerns_policies, is_group_of_concern};
use serde_json::Value;

/// Objects asked for at once; the API server's own clients use this number.
const PAGE: usize = 500;
/// Bytes of one answer.
const MOST_BYTES: usize = 256 << 20;
/// Pages of one kind: 5 million objects.
const MOST_PAGES: usize = 10_000;
/// Times that a list is begun anew because its rest was no longer kept.
const MOST_RESTARTS: u32 = 3;

/// Kinds that say who is in the cluster: path of the group, resource, kind.
const CORE: &[(&str, &str, &str)] = &[
    ("api/v1", "namespaces", "Namespace"),
    ("api/v1", "nodes", "Node"),
    ("api/v1", "pods", "Pod"),
    ("api/v1", "replicationcontrollers", "ReplicationController"),
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

/// Settings of agents that decide whether policies are enforced: namespace and name of ConfigMaps.
const SETTINGS: &[(&str, &str)] = &[("kube-system", "cilium-config"), ("kube-system", "amazon-vpc-cni")];

/// What of a group is looked at.
struct Kind<'a> {
    /// Path of the group with its version: `api/v1`, `apis/apps/v1`.
    path: &'a str,
    resource: &'a str,
    kind: &'a str,
}

/// Reads the cluster that the kubeconfig's context, or the named one, points at.
pub(super) async fn gather(
    context: Option<&str>,
    kubeconfig: Option<&std::path::Path>,
    ui: Ui,
) -> Result<(Input, Vec<Unread>), Failed> {
    let client = api_server::client(context, kubeconfig).await?;
    let mut input = Input::new(Limits::default());
    let mut unread = Vec::new();
    for (path, resource, kind) in CORE {
        list(&client, &mut input, &mut unread, &Kind { path, resource, kind }).await?;
    }
    for (namespace, name) in SETTINGS {
        config_map(&client, &mut input, ui, namespace, name).await?;
    }
    let groups = discovered(&client, "/apis").await?;
    let name_of = |group: &Value| group.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let has_calico = array(&groups, "groups").iter().any(|group| name_of(group) == "projectcalico.org");
    for group in array(&groups, "groups") {
        let name = name_of(group);
        let name = name.as_str();
        // Calico's API server shows under its own name what is stored under this one.
        let is_stored_form = name == "crd.projectcalico.org" && has_calico;
        if !is_group_of_concern(name) || is_stored_form {
            continue;
        }
        // Preferred first. A kind may be served in another version only: ClusterNetworkPolicy and AdminNetworkPolicy have none
        // in common, nor had CiliumNetworkPolicy and CiliumCIDRGroup for long.
        let version = |value: &Value| value.get("groupVersion").and_then(Value::as_str).map(str::to_owned);
        let preferred = group.get("preferredVersion").and_then(version);
        let others = array(group, "versions").iter().filter_map(version);
        let mut versions: Vec<String> = preferred.into_iter().collect();
        for other in others {
            if !versions.contains(&other) {
                versions.push(other);
            }
        }
        let mut seen: Vec<String> = Vec::new();
        for version in versions {
            let path = format!("apis/{version}");
            let resources = discovered(&client, &format!("/{path}")).await?;
            for resource in array(&resources, "resources") {
                let text = |key| resource.get(key).and_then(Value::as_str).unwrap_or_default();
                let (plural, kind) = (text("name"), text("kind"));
                let lists = array(resource, "verbs").iter().any(|verb| verb.as_str() == Some("list"));
                if lists
                    && !plural.contains('/')
                    && concerns_policies(name, kind)
                    && !seen.iter().any(|other| other == kind)
                {
                    seen.push(kind.to_owned());
                    let kind = Kind { path: &path, resource: plural, kind };
                    list(&client, &mut input, &mut unread, &kind).await?;
                }
            }
        }
    }
    Ok((input, unread))
}

/// What came of a request.
enum Got {
    Value(Value),
    /// 403: RBAC does not let this account.
    Forbidden,
    /// 404.
    Absent,
    /// 410: the rest of a list is no longer kept; it has to be begun anew.
    Expired,
}

async fn list(
    client: &kube::Client,
    input: &mut Input,
    unread: &mut Vec<Unread>,
    kind: &Kind<'_>,
) -> Result<(), Failed> {
    let Kind { path, resource, .. } = kind;
    let too_large = |what: String| Failed::new(Exit::BadInput, "cluster_too_large", what);
    let mut pages: Vec<String> = Vec::new();
    let (mut next, mut restarts, mut many) = (String::new(), 0, 0);
    while many < MOST_PAGES {
        many = many.saturating_add(1);
        let page = match get(client, &format!("/{path}/{resource}?limit={PAGE}{next}")).await? {
            Got::Value(page) => page,
            Got::Forbidden => {
                unread.push(missing(kind));
                return Ok(());
            }
            // Served a moment ago: its definition has just been removed, and with it every object.
            Got::Absent => return Ok(()),
            Got::Expired if restarts < MOST_RESTARTS => {
                pages.clear();
                next.clear();
                restarts = restarts.saturating_add(1);
                continue;
            }
            Got::Expired => {
                let what = format!("{resource} change faster than they can be listed");
                return Err(Failed::new(Exit::BadInput, "cluster_unreadable", what).help("try again"));
            }
        };
        let token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
        pages.push(manifests(kind, page));
        if token.is_empty() {
            for page in pages {
                input.add(&format!("cluster/{resource}"), page).map_err(|e| too_large(e.to_string()))?;
            }
            return Ok(());
        }
        next = format!("&continue={}", percent(&token));
    }
    Err(too_large(format!("the cluster has too many {resource}")))
}

/// A page of a list as a manifest: its items do not say their kind themselves.
fn manifests(kind: &Kind<'_>, mut page: Value) -> String {
    let version = kind.path.strip_prefix("apis/").or_else(|| kind.path.strip_prefix("api/"));
    let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut text = String::from("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
    for (i, mut item) in items.into_iter().enumerate() {
        if let Some(object) = item.as_object_mut() {
            object.insert("apiVersion".into(), version.unwrap_or(kind.path).into());
            object.insert("kind".into(), kind.kind.into());
        }
        // Half of a small object's bytes, and nobody's concern here.
        if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        text.push_str(if i == 0 { "\n" } else { ",\n" });
        text.push_str(&item.to_string());
    }
    text.push_str("]}");
    text
}

/// One ConfigMap by its name: to list them all would be to read what is none of an audit's business.
async fn config_map(
    client: &kube::Client,
    input: &mut Input,
    ui: Ui,
    namespace: &str,
    name: &str,
) -> Result<(), Failed> {
    let kind = Kind { path: "api/v1", resource: "configmaps", kind: "ConfigMap" };
    match get(client, &format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await? {
        Got::Value(value) => {
            let page = manifests(&kind, serde_json::json!({ "items": [value] }));
            input
                .add(&format!("cluster/configmaps/{name}"), page)
                .map_err(|e| Failed::new(Exit::BadInput, "cluster_too_large", e.to_string()))
        }
        Got::Forbidden => {
            // That policies are enforced is then assumed, as it is of manifests, and the report says so.
            ui.note(format!(
                "note: the ConfigMap {namespace}/{name} may not be read: that its agent enforces is assumed"
            ));
            Ok(())
        }
        Got::Absent | Got::Expired => Ok(()),
    }
}

fn missing(kind: &Kind<'_>) -> Unread {
    let group =
        kind.path.strip_prefix("apis/").and_then(|path| path.split_once('/')).map_or("", |(group, _)| group);
    Unread {
        group: group.into(),
        kind: kind.kind.into(),
        resource: kind.resource.into(),
        verb: "list",
        source: format!("cluster/{}", kind.resource).into(),
    }
}

/// What the API server says of itself, which every account may ask by default.
async fn discovered(client: &kube::Client, path: &str) -> Result<Value, Failed> {
    match get(client, path).await? {
        Got::Value(value) => Ok(value),
        Got::Forbidden => {
            let what = format!("{path} may not be read: which kinds of policy there are is not known");
            Err(Failed::new(Exit::BadInput, "cluster_unreadable", what)
                .help("bind the ClusterRole system:discovery to this account, as Kubernetes does by default"))
        }
        Got::Absent | Got::Expired => {
            let what = format!("the API server has no {path}");
            Err(Failed::new(Exit::BadInput, "cluster_unreadable", what))
        }
    }
}

async fn get(client: &kube::Client, path: &str) -> Result<Got, Failed> {
    let failed = |what: String| Failed::new(Exit::BadInput, "cluster_unreadable", what);
    let (status, value) = api_server::get(client, path, MOST_BYTES).await.map_err(|e| {
        let failed = failed(e.to_string());
        if matches!(e, Unanswered::Silent(_)) {
            failed.help("check it with `kubectl cluster-info`")
        } else {
            failed
        }
    })?;
    match status.as_u16() {
        401 => {
            let what = "the API server does not know this account (401): its token or certificate is wrong or has expired";
            Err(failed(what.into()).help("check it with `kubectl auth whoami`"))
        }
        403 => Ok(Got::Forbidden),
        404 => Ok(Got::Absent),
        410 => Ok(Got::Expired),
        _ if !status.is_success() => Err(failed(format!("the API server answers {status} to {path}"))),
        _ => Ok(Got::Value(value)),
    }
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
