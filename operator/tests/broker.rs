//! The operator between a real API server and a real broker: pools and tenants are pushed, pods enrol by their own tokens, and who is
//! at work is never scaled away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "../../broker/tests/common/mod.rs"]
mod common;
#[path = "../../broker/tests/support/pods.rs"]
mod pods;
#[path = "support/rules.rs"]
mod rules;

use common::{Worker, World, submit, world_with};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use mpegflow_operator::crd::{self, Tenant, WorkerPool};
use mpegflow_protocol::worker::{Enrolled, LeaseReply};
use mpegflow_test_cluster::{Process, until};
use pods::{AUDIENCE, Turn, enrol, turn};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: mpegflow-broker, namespace: mpegflow}
spec:
  clusterIP: 10.96.7.7
  selector: {app.kubernetes.io/name: mpegflow-broker}
  ports: [{name: worker-api, port: 8443, targetPort: 8443}]
";

struct Installed {
    turn: Turn,
    world: World,
    operator: Process,
}

/// A broker and an operator that found each other.
async fn installed() -> Installed {
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
    let operator = Process::start("operator", dir, &command);
    Installed { turn, world, operator }
}

impl Installed {
    fn pools(&self) -> Api<WorkerPool> {
        Api::namespaced(self.turn.cluster.client(), "media")
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.turn.cluster.client(), "media")
    }

    async fn apply(&self, kind: &str, change: Value) {
        let object = serde_json::from_value(rules::object(kind, &change)).unwrap();
        self.turn.cluster.try_apply(&object).await.unwrap();
    }

    async fn scale(&self, replicas: i32) {
        let scale = json!({ "spec": { "replicas": replicas } });
        self.pools().patch_scale("default", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    }

    /// Waits until a pool is as it should be.
    async fn until_pool(&self, what: &str, is: impl Fn(&WorkerPool) -> bool) -> WorkerPool {
        until(&format!("{what}; {}", self.operator.log_tail()), || async {
            let pool = self.pools().get_opt("default").await.ok()??;
            is(&pool).then_some(pool)
        })
        .await
    }

    async fn live(&self) -> Vec<Pod> {
        let list = self.pods().list(&ListParams::default().labels("mpegflow.io/pool=default")).await.unwrap();
        list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    async fn until_live(&self, count: usize) -> Vec<Pod> {
        until(&format!("{count} pods; {}", self.operator.log_tail()), || async {
            let pods = self.live().await;
            (pods.len() == count).then_some(pods)
        })
        .await
    }

    /// What a kubelet and the worker in the pod do: it runs, and enrols by its own token.
    async fn start(&self, pod: &Pod) -> Worker {
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

    async fn annotations(&self, pod: &Pod) -> Vec<String> {
        let pod = self.pods().get(pod.metadata.name.as_deref().unwrap()).await.unwrap();
        pod.metadata.annotations.unwrap_or_default().into_keys().collect()
    }
}

fn condition(pool: &WorkerPool, kind: &str) -> Option<(bool, String)> {
    let status = pool.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((found.status == crd::ConditionStatus::True, found.reason.clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_shrinks_by_who_is_idle_and_never_below_who_is_busy() {
    let it = installed().await;
    let name = |name: &str| json!({ "metadata": { "name": name, "namespace": "media" } });
    let mut pool = name("default");
    pool["spec"] = json!({ "scale": { "replicas": 3, "max": 4 } });
    it.apply("WorkerPool", pool).await;
    let pods = it.until_live(3).await;
    let (busy, idle, other) = (it.start(&pods[0]).await, it.start(&pods[1]).await, it.start(&pods[2]).await);
    let tenant = it.world.tenant("a").await;
    submit(&tenant, b"x").await;
    let lease = busy.lease().await;
    it.until_pool("one is busy", |pool| {
        pool.status.as_ref().is_some_and(|s| s.busy == 1 && s.ready_replicas == 3)
    })
    .await;
    let kept = "cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned();
    until("it is to be left alone", || async {
        it.annotations(&pods[0]).await.contains(&kept).then_some(())
    })
    .await;
    let annotations = it.annotations(&pods[0]).await;
    assert!(annotations.contains(&"karpenter.sh/do-not-disrupt".to_owned()), "{annotations:?}");
    assert!(!it.annotations(&pods[1]).await.contains(&kept), "an idle one may be moved");

    // As KEDA does when it reads a flushed Redis: a valid 0.
    it.scale(0).await;
    let left = it.until_live(1).await;
    assert_eq!(left[0].metadata.uid, pods[0].metadata.uid, "another than the one at work");
    it.until_pool("it says so", |pool| {
        condition(pool, "ScaleInHeld").is_some_and(|c| c.0)
            && pool.status.as_ref().is_some_and(|s| s.replicas == 1)
    })
    .await;
    for gone in [&idle, &other] {
        assert!(matches!(gone.ask(0).await, LeaseReply::Idle {}), "who is to go gets nothing more");
    }
    // It goes on as if nothing was.
    assert_eq!(busy.finish(&lease).await.status, 204);
    it.until_live(0).await;
    // What follows waits, and the pool says why.
    let waits = it
        .until_pool("why it waits", |pool| {
            let status = pool.status.as_ref();
            status.is_some_and(|s| s.queued == 1 && s.waiting.is_some() && s.replicas == 0)
        })
        .await;
    let status = waits.status.unwrap();
    assert!(status.waiting_message.unwrap().contains("default"));
    assert_eq!((status.busy, status.replicas), (0, 0));

    // And it grows again: whoever is new has work.
    it.scale(1).await;
    let new = it.until_live(1).await;
    let worker = it.start(&new[0]).await;
    let lease = worker.lease().await;
    assert_eq!(worker.end(&lease, "release", vec![]).await.status, 204);
    it.pools().delete("default", &DeleteParams::default()).await.unwrap();
    let none = async || it.pools().get_opt("default").await.ok()?.is_none().then_some(());
    until("the pool is gone", none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pool_begins_nothing_and_lets_what_runs_end_before_its_pods_go() {
    let it = installed().await;
    let mut tenant = json!({ "metadata": { "name": "acme" } });
    let id = format!("tnt_{}", "a".repeat(32));
    tenant["spec"] =
        json!({ "id": id, "weight": 3, "allowedPools": ["media/default"], "quotas": { "running": 5 } });
    it.apply("Tenant", tenant).await;
    let mut pool = json!({ "metadata": { "name": "default", "namespace": "media" } });
    pool["spec"] = json!({ "tenant": "acme", "scale": { "replicas": 1 }, "drainGraceSeconds": 600 });
    it.apply("WorkerPool", pool).await;
    let pods = it.until_live(1).await;
    let worker = it.start(&pods[0]).await;
    // Tenant and pool are the broker's now.
    let store = it.world.broker().engine().store();
    let found = store.tenant_named("acme").await.unwrap().unwrap();
    assert_eq!(found.to_string(), id);
    assert!(store.tenant_weights().await.unwrap().contains(&(found, 300)));
    assert_eq!(store.tenant_limits(found).await.unwrap().unwrap().running_tasks, Some(5));
    assert_eq!(store.worker(worker.id).await.unwrap().unwrap().tenant, Some(found));
    let tenants: Api<Tenant> = Api::all(it.turn.cluster.client());
    until("the tenant is accepted", || async {
        let status = tenants.get("acme").await.ok()?.status?;
        status.conditions.iter().any(|c| c.kind == "Ready" && c.reason == "Accepted").then_some(())
    })
    .await;

    let client = it.world.tenant("acme").await;
    submit(&client, b"x").await;
    let lease = worker.lease().await;
    it.pools().delete("default", &DeleteParams::default()).await.unwrap();
    it.until_pool("it drains", |pool| condition(pool, "Ready").is_some_and(|c| c.1 == "Draining")).await;
    let deployments: Api<Deployment> = Api::namespaced(it.turn.cluster.client(), "media");
    assert!(deployments.get_opt("default-worker").await.unwrap().is_some(), "its pod is at work");
    submit(&client, b"y").await;
    assert!(matches!(worker.ask(300).await, LeaseReply::Idle {}), "nothing new begins");
    assert_eq!(worker.finish(&lease).await.status, 204);
    let none = async || it.pools().get_opt("default").await.ok()?.is_none().then_some(());
    until("the pool is gone", none).await;
    assert!(store.pools().await.unwrap().is_empty(), "and the broker knows nothing of it");
    assert_eq!(worker.beat(&lease, Default::default()).await.status, 409);
    tenants.delete("acme", &DeleteParams::default()).await.unwrap();
}
