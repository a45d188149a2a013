//! The shared cluster with the operator in it.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use mpegflow_operator::crd::{self, Read, Tenant, WorkerPool};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::{Cluster, Process, Write, until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The user that the operator is to the API server.
pub(crate) const OPERATOR: &str = "system:serviceaccount:mpegflow:mpegflow-operator";

/// What surrounds the operator: its namespace, the broker, one namespace of workers.
const SURROUNDINGS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Namespace
metadata: {name: media}
---
apiVersion: v1
kind: Service
metadata: {name: mpegflow-broker, namespace: mpegflow}
spec:
  clusterIP: 10.96.7.7
  selector: {app.kubernetes.io/name: mpegflow-broker}
  ports: [{name: worker-api, port: 8443, targetPort: 8443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mpegflow-broker, namespace: mpegflow}
spec:
  replicas: 1
  selector: {matchLabels: {app.kubernetes.io/name: mpegflow-broker}}
  template:
    metadata: {labels: {app.kubernetes.io/name: mpegflow-broker}}
    spec:
      containers:
      - name: broker
        image: registry.example.com/mpegflow/broker
        ports: [{name: worker-api, containerPort: 8443}]
";

pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    operator: std::sync::Mutex<Option<Process>>,
}

/// The cluster, for one test at a time.
pub(crate) struct Turn {
    pub(crate) shared: &'static Shared,
    _turn: MutexGuard<'static, ()>,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for this test's turn.
pub(crate) async fn turn() -> Turn {
    let turn = TURN.lock().await;
    let shared = SHARED
        .get_or_init(|| async {
            let cluster = Cluster::start(Default::default()).await;
            cluster.apply(SURROUNDINGS).await;
            for (_, definition) in crd::definitions() {
                cluster.apply(&crd::to_yaml(&definition)).await;
            }
            let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("rbac.yaml");
            cluster.apply(&std::fs::read_to_string(rbac).unwrap()).await;
            std::fs::write(cluster.dir().join("broker-ca.crt"), CA).unwrap();
            let shared = Shared { cluster, operator: std::sync::Mutex::default() };
            shared.start_operator().await;
            shared
        })
        .await;
    Turn { shared, _turn: turn }
}

/// Nobody checks it here; it only has to look like one.
const CA: &str = "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n";

impl Shared {
    /// The command of an operator with the rights of a service account, whose lease outlives a busy machine.
    pub(crate) async fn operator(&self, account: &str) -> Command {
        let mut command = self.operator_with_lease_of(account, 60).await;
        command.args(["--redis", "redis.mpegflow.svc:6379"]);
        command
    }

    /// The same without a Redis, and with a lease of so many seconds.
    pub(crate) async fn operator_with_lease_of(&self, account: &str, seconds: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mpegflow-operator"));
        command.env("KUBECONFIG", self.cluster.kubeconfig_of("mpegflow", account).await);
        command.args([
            "run",
            "--discover-every",
            "1",
            "--lease-seconds",
            &seconds.to_string(),
            "--broker-ca",
        ]);
        command.arg(self.cluster.dir().join("broker-ca.crt"));
        command
    }

    pub(crate) async fn start_operator(&self) {
        let command = self.operator("mpegflow-operator").await;
        let process = Process::start("operator", self.cluster.dir(), &command);
        *self.operator.lock().unwrap() = Some(process);
    }

    pub(crate) fn stop_operator(&self) {
        drop(self.operator.lock().unwrap().take());
    }

    pub(crate) fn operator_has_ended(&self) -> bool {
        self.operator.lock().unwrap().as_ref().is_some_and(Process::has_ended)
    }

    pub(crate) fn operator_log(&self) -> String {
        self.operator.lock().unwrap().as_ref().map(Process::log).unwrap_or_default()
    }

    /// What an operator wrote but to its Lease, since a number of writes.
    pub(crate) fn writes_since(&self, count: usize) -> Vec<Write> {
        let all = self.cluster.writes_after(count);
        all.into_iter().filter(|write| write.user == OPERATOR && write.resource != "leases").collect()
    }

    pub(crate) fn write_count(&self) -> usize {
        self.cluster.write_count()
    }

    pub(crate) fn pools(&self, namespace: &str) -> Api<WorkerPool> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    pub(crate) fn tenants(&self) -> Api<Tenant> {
        Api::all(self.cluster.client())
    }

    pub(crate) fn objects(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client(), namespace, &kind.resource())
    }

    pub(crate) async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let object = self.objects(kind, namespace).get_opt(name).await.unwrap();
        object.map(|object| serde_json::to_value(object).unwrap())
    }

    /// Applies a pool of the smallest spec with a change.
    pub(crate) async fn pool(&self, name: &str, spec: Value) {
        let object = crate::rules::object(
            "WorkerPool",
            &json!({ "metadata": { "name": name, "namespace": "media" }, "spec": spec }),
        );
        let object = serde_json::from_value(object).unwrap();
        self.cluster.try_apply(&object).await.unwrap();
    }

    /// Changes a pool by a merge patch, also to what cannot be read.
    pub(crate) async fn patch_pool(&self, name: &str, patch: Value) {
        let pools: Api<PartialObjectMeta<WorkerPool>> = Api::namespaced(self.cluster.client(), "media");
        pools.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until `Ready` of a pool has a reason at the pool's present generation.
    pub(crate) async fn until_reason(&self, name: &str, reason: &str) -> WorkerPool {
        let pools: Api<Read<WorkerPool>> = Api::namespaced(self.cluster.client(), "media");
        until(&format!("{name} is {reason}; {}", self.operator_log_tail()), || async {
            let pool = WorkerPool::clone(&*pools.get_opt(name).await.ok()??);
            let status = pool.status.clone()?;
            let ready = status.conditions.iter().find(|c| c.kind == "Ready")?;
            (ready.reason == reason && ready.observed_generation == pool.metadata.generation?).then_some(pool)
        })
        .await
    }

    fn operator_log_tail(&self) -> String {
        self.operator.lock().unwrap().as_ref().map(Process::log_tail).unwrap_or_default()
    }

    /// Deletes a pool and waits until it is gone.
    pub(crate) async fn delete_pool(&self, name: &str) {
        let pools = self.pools("media");
        let _ = pools.delete(name, &DeleteParams::default()).await;
        until(&format!("{name} is gone"), || async {
            pools.get_opt(name).await.is_ok_and(|pool| pool.is_none()).then_some(())
        })
        .await;
    }
}

/// Whether a condition holds, and why.
pub(crate) fn condition(pool: &WorkerPool, kind: &str) -> Option<(bool, String, String)> {
    let status = pool.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((found.status == crd::ConditionStatus::True, found.reason.clone(), found.message.clone()))
}
