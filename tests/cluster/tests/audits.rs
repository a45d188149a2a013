//! `mpegflow audit --cluster` against a real API server: what it reads, page by page, with which rights, and what comes of a right
//! that is missing.

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, Patch, PatchParams, PostParams};
use mpegflow_test_cluster::{Cluster, until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// More policies than a page holds stand before the pool's own, in the order in which the API server lists them.
const BEFORE: usize = 520;

/// A pool in the last namespace and what isolates it, a broker, the accounts that audit.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: watched}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: auditor, namespace: watched}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: blind, namespace: watched}
---
apiVersion: v1
kind: Namespace
metadata: {name: before}
---
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Namespace
metadata: {name: workers}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: workers}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: broker, namespace: mpegflow}
spec:
  replicas: 0
  selector: {matchLabels: {app.kubernetes.io/name: mpegflow-broker}}
  template:
    metadata: {labels: {app.kubernetes.io/name: mpegflow-broker}}
    spec: {containers: [{name: broker, image: example.com/i, ports: [{name: worker-api, containerPort: 8443}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fast, namespace: workers}
spec:
  replicas: 1
  selector: {matchLabels: {mpegflow.io/pool: fast}}
  template:
    metadata: {labels: {mpegflow.io/pool: fast}}
    spec:
      serviceAccountName: worker
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: worker
        image: example.com/i
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: fast, namespace: workers}
spec:
  podSelector: {matchLabels: {mpegflow.io/pool: fast}}
  policyTypes: [Ingress, Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: mpegflow}}, podSelector: {matchLabels: {app.kubernetes.io/name: mpegflow-broker}}}]
    ports: [{port: 8443}]
---
apiVersion: v1
kind: Node
metadata: {name: n1}
";

/// The program, which `cargo build -p mpegflow` puts beside the tests.
fn mpegflow() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(Path::parent).unwrap().join("mpegflow");
    assert!(program.exists(), "{} is not built: cargo build -p mpegflow", program.display());
    program
}

/// The ClusterRole as the documentation prints it.
fn role() -> String {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks
        .into_iter()
        .find(|block| block.contains("kind: ClusterRole\n"))
        .expect("the page has the role")
        .to_owned()
}

fn bound(role: &str, account: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {account}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}\n\
         subjects: [{{kind: ServiceAccount, name: {account}, namespace: watched}}]\n"
    )
}

/// Runs the audit: its exit code, its report, what it said on the side.
fn audit(kubeconfig: &Path, cni: &str) -> (i32, Value, String) {
    let mut command = Command::new(mpegflow());
    command.args(["audit", "--cluster", "--format", "json", "--cni", cni, "--kubeconfig"]).arg(kubeconfig);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.code().unwrap(), report, said)
}

fn definition(version: &str, kind: &str, plural: &str) -> String {
    let group = "policy.networking.k8s.io";
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api" },
        },
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {
                "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List"),
            },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_cluster_is_read_whole_with_get_and_list_alone_and_a_missing_right_is_named() {
    let cluster = Cluster::start(Default::default()).await;
    cluster.apply(OBJECTS).await;
    cluster.apply(&role()).await;
    cluster.apply(&bound("mpegflow-audit", "auditor")).await;
    // The same role but for policies and bindings.
    let blind = role()
        .replace("name: mpegflow-audit", "name: blind")
        .replace("resources: [networkpolicies]", "resources: [ingresses]")
        .replace("rolebindings, clusterrolebindings", "rolebindings");
    assert_ne!(blind, role().replace("name: mpegflow-audit", "name: blind"));
    cluster.apply(&blind).await;
    cluster.apply(&bound("blind", "blind")).await;
    let nodes: Api<Node> = Api::all(cluster.client());
    let addresses = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "10.200.0.2" }] } });
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();
    let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client(), "before");
    let made = stream::iter(0..BEFORE).map(|n| {
        let policies = policies.clone();
        async move {
            let policy = json!({ "metadata": { "name": format!("p-{n}") }, "spec": { "podSelector": {} } });
            policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
        }
    });
    made.buffer_unordered(16).collect::<Vec<_>>().await;
    let auditor = cluster.kubeconfig_of("watched", "auditor").await;

    // No definitions of policies are there, and none are missed. The pool's own policy is on the second page.
    let (code, report, said) = audit(&auditor, "calico@3.31");
    assert_eq!((code, &report["verdict"]), (0, &json!("proved")), "{report:#}\n{said}");
    assert_eq!(report["input"]["policies"], json!(BEFORE + 1));
    assert_eq!(report["input"]["complete"], json!(true));

    let requests = cluster.requests_of("auditor");
    let verbs: Vec<&str> =
        requests.iter().map(|request| &*request.verb).filter(|v| !["get", "list"].contains(v)).collect();
    assert_eq!(verbs, [""; 0], "{requests:#?}");
    let listed = |resource: &str, more: &str| {
        let start = format!("/{resource}?limit=500{more}");
        requests.iter().any(|r| r.verb == "list" && r.uri.contains(&start) && r.code == 200)
    };
    for resource in [
        "namespaces",
        "nodes",
        "pods",
        "replicationcontrollers",
        "services",
        "serviceaccounts",
        "endpointslices",
        "deployments",
        "statefulsets",
        "daemonsets",
        "replicasets",
        "jobs",
        "cronjobs",
        "roles",
        "clusterroles",
        "rolebindings",
        "clusterrolebindings",
        "networkpolicies",
    ] {
        assert!(listed(resource, ""), "{resource} was not listed: {requests:#?}");
    }
    assert!(listed("networkpolicies", "&continue="), "{requests:#?}");
    assert!(!requests.iter().any(|request| request.uri.contains("secrets")), "{requests:#?}");
    assert!(!cluster.writes().iter().any(|write| write.user.starts_with("system:serviceaccount:watched:")));

    // What may not be listed is unknown, and the right that is missing is named with verb, resource and group.
    let blind = cluster.kubeconfig_of("watched", "blind").await;
    let (code, report, said) = audit(&blind, "calico@3.31");
    assert_eq!((code, &report["verdict"]), (2, &json!("unknown")), "{report:#}");
    let doubts = report["intents"][0]["doubts"].to_string();
    for right in [
        "--verb=list --resource=networkpolicies.networking.k8s.io`",
        "--verb=list --resource=clusterrolebindings.rbac.authorization.k8s.io`",
    ] {
        assert!(doubts.contains(right), "{right}: {doubts}");
    }
    assert!(said.contains("networkpolicies may not be read"), "{said}");

    // Kinds of one group that have no version in common are all read.
    cluster.apply(&definition("v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies")).await;
    cluster.apply(&definition("v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies")).await;
    let policy = |version: &str, kind: &str, tier: &str, action: &str, peer: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: open}}\nspec: {{{tier}priority: 5, subject: {{namespaces: {{}}}}, egress: [{{action: {action}, to: [{{{peer}}}]}}]}}\n"
        )
    };
    let peer = "networks: [192.0.2.0/24]";
    cluster.apply(&policy("v1alpha1", "AdminNetworkPolicy", "", "Allow", peer)).await;
    let reaches = |cni: &'static str| {
        let (code, report, _) = audit(&auditor, cni);
        (code, report["findings"].to_string().contains("\"id\":\"MF108\""))
    };
    until("both kinds are discovered", || async { (reaches("calico@3.31") == (1, true)).then_some(()) })
        .await;
    cluster.apply(&policy("v1alpha2", "ClusterNetworkPolicy", "tier: Admin, ", "Accept", peer)).await;
    assert_eq!(reaches("calico@3.32"), (1, true));
    // Of a kind that the plugin does not enforce nothing depends: it is said to have no effect, and decides nothing.
    let (_, report, _) = audit(&auditor, "cilium@1.18");
    let said = |id: &str, words: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["id"] == id).any(|finding| finding.to_string().contains(words))
    };
    assert!(said("MF206", "AdminNetworkPolicy open") && said("MF206", "ClusterNetworkPolicy open"));
    assert!(!said("MF108", "NetworkPolicy open"), "{report:#}");

    let nobody = cluster.dir().join("nobody");
    let text = std::fs::read_to_string(&auditor).unwrap();
    let token = text.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    std::fs::write(&nobody, text.replace(token, "wrong")).unwrap();
    let output =
        Command::new(mpegflow()).args(["audit", "--cluster", "--kubeconfig"]).arg(&nobody).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("does not know this account") && said.contains("kubectl auth whoami"), "{said}");
}
