//! An operator between a real API server and a real broker, and what stands in for kubelets: pods are put on nodes, and canaries say what
//! the test wants them to have seen.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use crate::common::{self, Worker, World, world_with};
use crate::pods::{AUDIENCE, Turn, enrol, turn};
use crate::rules;
use k8s_openapi::api::core::v1::{Binding, ConfigMap, ObjectReference, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use mpegflow_operator::crd::{self, WorkerPool};
use mpegflow_operator::desired::CANARY_LABEL;
use mpegflow_protocol::canary::{Look, Outcome, Report};
use mpegflow_protocol::worker::{Enrolled, JoinFile};
use mpegflow_test_cluster::{Process, until};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: mpegflow-broker, namespace: mpegflow}
spec:
  clusterIP: 10.96.7.7
  selector: {app.kubernetes.io/name: mpegflow-broker}
  ports: [{name: worker-api, port: 8443, targetPort: 8443}]
";

/// What canaries do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canaries {
    /// They see the broker and nothing else.
    SeeNothing,
    /// They see these answer besides.
    See(Vec<SocketAddr>),
    /// They say something else.
    Say(String),
    /// They end with a code.
    Fail(i32),
    /// They run.
    Hang,
}

pub struct Installed {
    pub turn: Turn,
    pub world: World,
    operator: Mutex<Option<Process>>,
    command: Command,
    /// What canaries do that end from now on.
    pub canaries: Arc<Mutex<Canaries>>,
    kubelet: tokio::task::JoinHandle<()>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

/// A broker and an operator that found each other.
pub async fn installed() -> Installed {
    installed_with(&[]).await
}

/// The same with arguments of the operator.
pub async fn installed_with(args: &[&str]) -> Installed {
    let turn = turn().await;
    let cluster = turn.cluster;
    cluster.apply(SERVICE).await;
    for (_, definition) in crd::definitions() {
        cluster.apply(&crd::to_yaml(&definition)).await;
    }
    let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("rbac.yaml");
    cluster.apply(&std::fs::read_to_string(rbac).unwrap()).await;
    let mut tokens = turn.tokens().await;
    tokens.accounts.clear();
    let world = world_with(|config| {
        config.pods = Some(tokens);
        config.control = Some(([127, 0, 0, 1], 0).into());
        config.metrics = Some(([127, 0, 0, 1], 0).into());
        config.tenant_storage.secrets = Some(config.data_dir.clone());
    })
    .await;
    let dir = world.dir.path();
    std::fs::write(dir.join("ca.pem"), world.join_file().await.ca).unwrap();
    let own = turn.pod("mpegflow", "mpegflow-operator").await;
    std::fs::write(dir.join("token"), turn.token(&own, AUDIENCE).await).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpegflow-operator"));
    command.env("KUBECONFIG", cluster.kubeconfig_of("mpegflow", "mpegflow-operator").await);
    command.args(["run", "--discover-every", "1", "--lease-seconds", "3", "--broker-ca"]);
    command.arg(dir.join("ca.pem")).arg("--broker-token").arg(dir.join("token"));
    command.args(["--control", &world.broker().control_addr().unwrap().to_string()]);
    // As in a pod.
    let (host, port) = cluster
        .url()
        .trim_start_matches("https://")
        .split_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .unwrap();
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    command.args(args);
    let operator = Mutex::new(Some(Process::start("operator", dir, &command)));
    let canaries = Arc::new(Mutex::new(Canaries::SeeNothing));
    let kubelet = tokio::spawn(kubelet(cluster.client(), Arc::clone(&canaries)));
    Installed { turn, world, operator, command, canaries, kubelet }
}

/// Puts every pod of pools on a node, and ends canaries.
async fn kubelet(client: kube::Client, canaries: Arc<Mutex<Canaries>>) {
    let api: Api<Pod> = Api::namespaced(client.clone(), "media");
    let of_pools = ListParams::default().labels("mpegflow.io/pool");
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(list) = api.list(&of_pools).await else { continue };
        for pod in list.items {
            let name = pod.name_any();
            let ended = pod
                .status
                .as_ref()
                .and_then(|s| s.phase.as_deref())
                .is_some_and(|p| p != "Pending" && p != "Running");
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = api.delete(&name, &now).await;
            } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
                bind(&api, &name, "node-1").await;
            } else if pod.labels().contains_key(CANARY_LABEL) && !ended {
                let now = canaries.lock().unwrap().clone();
                let terminated = match now {
                    Canaries::Hang => continue,
                    Canaries::Fail(code) => {
                        json!({ "exitCode": code, "reason": "Error", "message": "all is well" })
                    }
                    Canaries::Say(message) => json!({ "exitCode": 0, "message": message }),
                    Canaries::See(open) => {
                        json!({ "exitCode": 0, "message": report(&client, &pod, &open).await })
                    }
                    Canaries::SeeNothing => {
                        json!({ "exitCode": 0, "message": report(&client, &pod, &[]).await })
                    }
                };
                end(&api, &name, terminated).await;
            }
        }
    }
}

async fn bind(api: &Api<Pod>, name: &str, node: &str) {
    let target = ObjectReference { kind: Some("Node".into()), name: Some(node.into()), ..Default::default() };
    let binding =
        Binding { metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() }, target };
    // It may be gone, or bound already.
    let _: kube::Result<Value> =
        api.create_subresource("binding", name, &PostParams::default(), &binding).await;
}

/// What a kubelet writes of a pod whose only container has ended.
pub async fn end(api: &Api<Pod>, name: &str, terminated: Value) {
    let phase = if terminated["exitCode"] == 0 { "Succeeded" } else { "Failed" };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "canary", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": terminated },
    }] } });
    let _ = api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
}

/// What a canary reports that looks at what its pool's join file says.
async fn report(client: &kube::Client, canary: &Pod, open: &[SocketAddr]) -> String {
    let files: Api<ConfigMap> = Api::namespaced(client.clone(), "media");
    let file = files.get(&format!("{}-worker", canary.labels()["mpegflow.io/pool"])).await.unwrap();
    let join: JoinFile = serde_json::from_str(&file.data.unwrap()["join.json"]).unwrap();
    let is = |at| if open.contains(&at) { Outcome::Answered } else { Outcome::Silent };
    let looks =
        join.unreachable.iter().map(|target| Look { at: target.address, is: is(target.address) }).collect();
    let report = Report { broker: true, node: Outcome::Silent, looks };
    String::from_utf8(mpegflow_protocol::to_json(&report)).unwrap()
}

impl Installed {
    pub fn canaries_will(&self, will: Canaries) {
        *self.canaries.lock().unwrap() = will;
    }

    pub fn stop_operator(&self) {
        drop(self.operator.lock().unwrap().take());
    }

    pub fn start_operator(&self) {
        *self.operator.lock().unwrap() =
            Some(Process::start("operator", self.world.dir.path(), &self.command));
    }

    pub fn log_tail(&self) -> String {
        self.operator.lock().unwrap().as_ref().map(Process::log_tail).unwrap_or_default()
    }

    pub fn pools(&self) -> Api<WorkerPool> {
        Api::namespaced(self.turn.cluster.client(), "media")
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.turn.cluster.client(), "media")
    }

    pub async fn apply(&self, kind: &str, change: Value) {
        let object = serde_json::from_value(rules::object(kind, &change)).unwrap();
        self.turn.cluster.try_apply(&object).await.unwrap();
    }

    pub async fn scale(&self, replicas: i32) {
        let scale = json!({ "spec": { "replicas": replicas } });
        self.pools().patch_scale("default", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    }

    /// Waits until a pool is as it should be.
    pub async fn until_pool(&self, what: &str, is: impl Fn(&WorkerPool) -> bool) -> WorkerPool {
        until(&format!("{what}; {}", self.log_tail()), || async {
            let pool = self.pools().get_opt("default").await.ok()??;
            is(&pool).then_some(pool)
        })
        .await
    }

    /// The pool `default`, with so many workers that have a node.
    pub async fn pool(&self, workers: usize) -> Vec<Pod> {
        let mut pool = json!({ "metadata": { "name": "default", "namespace": "media" } });
        pool["spec"] = json!({ "scale": { "replicas": workers, "max": 4 } });
        self.apply("WorkerPool", pool).await;
        until(&format!("{workers} workers have nodes; {}", self.log_tail()), || async {
            let pods = self.live().await;
            let placed = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            (pods.len() == workers && pods.iter().all(placed)).then_some(pods)
        })
        .await
    }

    /// Deletes the pool `default` and waits until it is gone.
    pub async fn end_pool(&self) {
        self.pools().delete("default", &DeleteParams::default()).await.unwrap();
        let none = async || self.pools().get_opt("default").await.ok()?.is_none().then_some(());
        until(&format!("the pool is gone; {}", self.log_tail()), none).await;
    }

    /// Canaries that there are.
    pub async fn live_canaries(&self) -> Vec<Pod> {
        let list = self.pods().list(&ListParams::default().labels(CANARY_LABEL)).await.unwrap();
        list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Waits for a canary.
    pub async fn until_canary(&self) -> Pod {
        until(&format!("a canary; {}", self.log_tail()), || async { self.live_canaries().await.pop() }).await
    }

    /// Waits until there is no canary.
    pub async fn until_no_canary(&self) {
        until(&format!("no canary; {}", self.log_tail()), || async {
            self.live_canaries().await.is_empty().then_some(())
        })
        .await;
    }

    pub async fn live(&self) -> Vec<Pod> {
        let list = self
            .pods()
            .list(&ListParams::default().labels("mpegflow.io/pool=default,!mpegflow.io/canary"))
            .await
            .unwrap();
        list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    pub async fn until_live(&self, count: usize) -> Vec<Pod> {
        until(&format!("{count} pods; {}", self.log_tail()), || async {
            let pods = self.live().await;
            (pods.len() == count).then_some(pods)
        })
        .await
    }

    /// What a kubelet and the worker in the pod do: it runs, and enrols by its own token.
    pub async fn start(&self, pod: &Pod) -> Worker {
        let status = json!({ "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" },
        ] } });
        let name = pod.metadata.name.as_deref().unwrap();
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let ca = self.world.join_file().await.ca;
        let base = format!("https://{}", self.world.broker().worker_addr());
        let anonymous = common::Client::new(base.clone(), Some(&ca), None);
        let key = rcgen::KeyPair::generate().unwrap();
        let token = self.turn.token(pod, AUDIENCE).await;
        let (status, text) = enrol(&anonymous, &token, &key).await;
        assert_eq!(status, 200, "{text}");
        let enrolled: Enrolled = serde_json::from_str(&text).unwrap();
        let key = key.serialize_der();
        let client = common::Client::new(base, Some(&ca), Some((&enrolled.certificate, &key)));
        Worker { id: enrolled.worker, client, certificate: enrolled.certificate, key }
    }

    /// Waits until the isolation of the pool is known for a reason.
    pub async fn until_isolation(&self, reason: &str) -> WorkerPool {
        self.until_pool(&format!("isolation is {reason}"), |pool| {
            condition(pool, "IsolationVerified").is_some_and(|c| c.1 == reason)
        })
        .await
    }

    pub async fn annotations(&self, pod: &Pod) -> Vec<String> {
        let pod = self.pods().get(pod.metadata.name.as_deref().unwrap()).await.unwrap();
        pod.metadata.annotations.unwrap_or_default().into_keys().collect()
    }
}

pub fn condition(pool: &WorkerPool, kind: &str) -> Option<(bool, String)> {
    let status = pool.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((found.status == crd::ConditionStatus::True, found.reason.clone()))
}
