//! `mpegflow preflight` asked of a real API server: what it says there, with few rights, and that it leaves nothing behind.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use mpegflow_chart_tests::chart_folder;
use mpegflow_test_cluster::{Cluster, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody, namespace: mpegflow}
---
apiVersion: v1
kind: Node
metadata: {name: old}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: cilium}}
  template:
    metadata: {labels: {k8s-app: cilium}}
    spec: {nodeSelector: {nowhere: 'true'}, containers: [{name: agent, image: cilium}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {policy-audit-mode: 'true'}
";

/// Exit code, and the outcome of each check by its name.
fn preflight(kubeconfig: &Path) -> (i32, BTreeMap<String, String>) {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join("mpegflow");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    let output = Command::new(program)
        .args(["preflight", "--operator", "--output", "json", "--kubeconfig"])
        .arg(kubeconfig)
        .output()
        .unwrap();
    let checks: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let outcomes =
        checks.as_array().unwrap().iter().map(|check| (text(check, "name"), text(check, "outcome")));
    (output.status.code().unwrap(), outcomes.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_says_what_a_real_cluster_lacks_and_writes_nothing() {
    // With accounts of their own controllers cannot be taken for whoever runs the command.
    let cluster = Cluster::start(Options { controller_accounts: true, ..Options::default() }).await;
    cluster.apply(OBJECTS).await;
    let nodes: Api<Node> = Api::all(cluster.client());
    let info = json!({ "status": { "nodeInfo": {
        "kernelVersion": "5.10.0-28-amd64", "architecture": "amd64", "containerRuntimeVersion": "containerd://1.7.0",
        "bootID": "b", "kubeProxyVersion": "", "kubeletVersion": "v1.35.4", "machineID": "m", "operatingSystem": "linux",
        "osImage": "Debian", "systemUUID": "u",
    } } });
    nodes.patch_status("old", &PatchParams::default(), &Patch::Merge(&info)).await.unwrap();

    // Asking for its token is a write of the test's own.
    let nobody = cluster.kubeconfig_of("mpegflow", "nobody").await;
    let before = cluster.write_count();
    let (code, outcomes) = preflight(&cluster.kubeconfig());
    assert_eq!(code, 1);
    let expected = [
        ("Cilium's agents", "failed"),
        ("KEDA", "warning"),
        ("KEDA's metrics", "warning"),
        ("Landlock", "failed"),
        ("Lease API", "ok"),
        ("admission policies", "ok"),
        ("architecture", "ok"),
        ("definitions", "failed"),
        ("dialects", "warning"),
        ("enforcement", "ok"),
        ("pod security", "ok"),
        ("resource metrics", "warning"),
        ("version", "ok"),
        ("your rights", "ok"),
    ];
    assert_eq!(outcomes, expected.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).into());

    // With no rights: what may not be read is unknown, never fine.
    let (code, outcomes) = preflight(&nobody);
    assert_eq!(code, 1);
    for name in ["any", "enforcement", "pod security", "resource metrics"] {
        assert_eq!(outcomes[name], "unknown", "{name}: {outcomes:?}");
    }
    assert_eq!(outcomes["your rights"], "failed", "{outcomes:?}");

    let is_ours = |user: &str| user.ends_with(":nobody") || !user.starts_with("system:");
    let written: Vec<_> = cluster
        .writes_after(before)
        .into_iter()
        .filter(|write| is_ours(&write.user) && write.resource != "selfsubjectaccessreviews")
        .collect();
    assert_eq!(written, []);
}

/// The recipe's script, with helm, kubectl and our program on its path: whether it found that everything holds, and what it said.
fn dedicated(kubeconfig: &Path, values: Option<&Path>) -> (Option<i32>, String) {
    let programs =
        Command::new(chart_folder().parent().unwrap().join("tools/chart-programs")).output().unwrap();
    let programs = String::from_utf8(programs.stdout).unwrap();
    let folder = |key: &str| {
        let path = programs.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        Path::new(path).parent().unwrap().display().to_string()
    };
    let exe = std::env::current_exe().unwrap();
    let ours = exe.parent().unwrap().parent().unwrap().display().to_string();
    let path = [ours, folder("helm4="), folder("kubectl="), std::env::var("PATH").unwrap()].join(":");
    let mut script = Command::new(chart_folder().join("examples/dedicated/preflight"));
    script.args(values).env("KUBECONFIG", kubeconfig).env("PATH", path);
    let output = script.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dedicated_recipes_script_says_what_is_not_inside_and_what_the_cluster_lacks() {
    let cluster = Cluster::start(Options { controller_accounts: true, ..Options::default() }).await;
    let nodes = std::fs::read_to_string(chart_folder().join("examples/dedicated/nodes.yaml")).unwrap();
    cluster.apply(&nodes).await;
    let node: Value = serde_saphyr::from_str(&nodes).unwrap();
    let api: Api<Node> = Api::all(cluster.client());
    let status = json!({ "status": node["status"] });
    api.patch_status("worker-1", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();

    // Nobody enforces policies here, so that it is no cluster to install into; the installation itself would be right.
    let (code, said) = dedicated(&cluster.kubeconfig(), None);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "× the cluster can run it",
        "√ the chart renders",
        "√ every address that a policy names is inside\n",
        "√ every pod reaches",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }

    // A database elsewhere, and intents that know nothing of it.
    let values = std::fs::read_to_string(chart_folder().join("examples/dedicated/values.yaml")).unwrap();
    let elsewhere = values.replace("{cidr: 10.20.0.5/32, port: 5432}", "{cidr: 203.0.113.5/32, port: 5432}");
    assert_ne!(values, elsewhere);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), elsewhere).unwrap();
    let (code, said) = dedicated(&cluster.kubeconfig(), Some(file.path()));
    assert_eq!(code, Some(1), "{said}");
    for line in
        ["× every address that a policy names is inside, but for 203.0.113.5/32", "× every pod reaches"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
}
