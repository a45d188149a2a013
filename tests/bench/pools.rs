//! What the benches over a real control plane share: what is around an operator, the operator, and a pool.

use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_test_cluster::{Cluster, Process};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const BROKER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Service
metadata: {name: mpegflow-broker, namespace: mpegflow}
spec:
  selector: {app.kubernetes.io/name: mpegflow-broker}
  ports: [{name: worker-api, port: 8443, targetPort: 8443}]
";
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// The broker's Service, our definitions, and the operator's rights.
pub(crate) async fn surround(cluster: &Cluster) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    cluster.apply(BROKER).await;
    for definition in ["tenants.yaml", "workerpools.yaml"] {
        let path = root.join("chart/mpegflow-crds/templates").join(definition);
        cluster.apply(&std::fs::read_to_string(path).unwrap()).await;
    }
    cluster.apply(&std::fs::read_to_string(root.join("operator/rbac.yaml")).unwrap()).await;
}

pub(crate) fn pool(name: &str, scale: Value) -> Value {
    json!({
        "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool", "metadata": { "name": name },
        "spec": {
            "class": "cpu",
            "image": format!("registry.example.com/mpegflow/worker@sha256:{}", "a".repeat(64)),
            "resources": { "cpu": 2, "memory": "3Gi" },
            "scale": scale,
        },
    })
}

pub(crate) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The operator beside this program, with the rights of rbac.yaml.
pub(crate) async fn start(cluster: &Cluster, redis: &str) -> Process {
    let ca = cluster.dir().join("broker-ca.crt");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n").unwrap();
    let program = std::env::current_exe().unwrap().with_file_name("mpegflow-operator");
    let mut command = Command::new(program);
    command.env("KUBECONFIG", cluster.kubeconfig_of("mpegflow", "mpegflow-operator").await);
    command.arg("run").arg("--broker-ca").arg(ca).args(["--redis", redis]);
    Process::start("operator", cluster.dir(), &command)
}

/// Asks so often until it is so.
pub(crate) async fn until(operator: &Process, every: Duration, mut ask: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if ask().await {
            return;
        }
        assert!(!operator.has_ended(), "{}", operator.log_tail());
        tokio::time::sleep(every).await;
    }
    panic!("not in ten minutes: {}", operator.log_tail());
}

/// Writes what was measured beside this program, and says where.
pub(crate) fn report(name: &str, measured: &Value) {
    let file = std::env::current_exe().unwrap().with_file_name(format!("bench-{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(measured).unwrap()).unwrap();
    println!("\nas JSON: {}", file.display());
}
