//! A queue in a real Redis, read by a real KEDA, through its metrics adapter and a real HPA, onto a WorkerPool, our Deployment and pods
//! on nodes of kwok: 0 → N → 0, the fallback while Redis is away, and workers that have started.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "support/rules.rs"]
mod rules;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use mpegflow_operator::crd::{self, WorkerPool};
use mpegflow_test_cluster::{Cluster, Options, Process, until};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
  selector: {app.kubernetes.io/name: mpegflow-broker}
  ports: [{name: worker-api, port: 8443, targetPort: 8443}]
---
apiVersion: v1
kind: Secret
metadata: {name: depth, namespace: keda}
stringData: {username: depth, password: only-the-length}
---
apiVersion: keda.sh/v1alpha1
kind: ClusterTriggerAuthentication
metadata: {name: mpegflow-depth}
spec:
  secretTargetRef:
  - {parameter: username, name: depth, key: username}
  - {parameter: password, name: depth, key: password}
";

/// One command of the protocol; the answer's first line.
fn redis(port: u16, command: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = format!("*{}\r\n", command.len());
    for part in command {
        text += &format!("${}\r\n{part}\r\n", part.len());
    }
    stream.write_all(text.as_bytes())?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned())
}

fn start_redis(dir: &Path, port: u16) -> Process {
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let process = Process::start("redis", dir, &server);
    for _ in 0..600 {
        if redis(port, &["PING"]).is_ok_and(|answer| answer == "+PONG") {
            // What KEDA signs in with may ask how deep the queues are, and nothing else: no command that changes anything.
            // The right to only read a key (%R~) is not enough for a script, whatever the script does (Redis 7.0).
            let acl = ["ACL", "SETUSER", "depth", "on", ">only-the-length", "resetkeys", "~{mpegflow:*"];
            let may =
                ["-@all", "+eval", "+type", "+hlen", "+llen", "+ping", "+hello", "+auth", "+client|setname"];
            assert_eq!(redis(port, &[&acl[..], &may[..]].concat()).unwrap(), "+OK");
            return process;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("Redis does not answer: {}", process.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_queue_drives_a_pool_from_nothing_to_many_and_back() {
    let cluster = Cluster::start(Options { scheduler: true, ..Options::default() }).await;
    let port = mpegflow_test_ports::port();
    let mut redis_server = start_redis(cluster.dir(), port);
    cluster.start_keda().await;
    cluster.apply(SURROUNDINGS).await;
    for (_, definition) in crd::definitions() {
        cluster.apply(&crd::to_yaml(&definition)).await;
    }
    cluster.apply(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/rbac.yaml")).unwrap()).await;
    let ca = cluster.dir().join("ca.crt");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n").unwrap();
    let mut operator = Command::new(env!("CARGO_BIN_EXE_mpegflow-operator"));
    operator.env("KUBECONFIG", cluster.kubeconfig_of("mpegflow", "mpegflow-operator").await);
    operator.args([
        "run",
        "--discover-every",
        "1",
        // It outlives a busy machine; nobody else wants it.
        "--lease-seconds",
        "60",
        "--redis-authentication",
        "mpegflow-depth",
        "--broker-ca",
    ]);
    operator.arg(&ca).args(["--redis", &format!("127.0.0.1:{port}")]);
    let operator = Process::start("operator", cluster.dir(), &operator);

    let scale = json!({
        "max": 10, "targetPerWorker": 10, "pollingSeconds": 1, "cooldownSeconds": 5,
        "fallback": { "failureThreshold": 2, "replicas": 3 },
    });
    let change = json!({ "metadata": { "name": "queue", "namespace": "media" }, "spec": { "scale": scale } });
    let pool = serde_json::from_value(rules::object("WorkerPool", &change)).unwrap();
    cluster.try_apply(&pool).await.unwrap();
    let pools: Api<WorkerPool> = Api::namespaced(cluster.client(), "media");
    let until_workers = async |count: i32| {
        let what = format!("{count} workers");
        let found = tokio::time::timeout(
            Duration::from_secs(170),
            until(&what, || async {
                let status = pools.get("queue").await.ok()?.status?;
                (status.autoscaled && status.replicas == count).then_some(())
            }),
        );
        if found.await.is_err() {
            panic!(
                "not {what}: {:#?}\noperator: {}\nKEDA: {}\nadapter: {}",
                pools.get("queue").await.map(|pool| (pool.spec.scale, pool.status)),
                operator.log_tail(),
                cluster.log("keda-operator"),
                cluster.log("keda-adapter"),
            );
        }
    };
    until_workers(0).await;
    for i in 0..50 {
        redis(port, &["HSET", "{mpegflow:queue}:depth", &i.to_string(), "1"]).unwrap();
    }
    until_workers(5).await;
    redis(port, &["DEL", "{mpegflow:queue}:depth"]).unwrap();
    until_workers(0).await;

    // Redis goes while there is a little work, and refuses whoever comes. KEDA 2.20 drops its scaler at the first failed poll and cannot
    // make another, so that it counts one failure and no more; the operator goes on from there.
    for i in 0..5 {
        redis(port, &["HSET", "{mpegflow:queue}:depth", &i.to_string(), "1"]).unwrap();
    }
    until_workers(1).await;
    let scaled: Api<kube::api::DynamicObject> = Api::namespaced_with(
        cluster.client(),
        "media",
        &mpegflow_operator::desired::Kind::ScaledObject.resource(),
    );
    redis_server.stop();
    until_workers(3).await;
    // It stays so for as long as that takes, whatever KEDA and the autoscaler make of it.
    tokio::time::sleep(Duration::from_secs(30)).await;
    until_workers(3).await;

    // A person's pause, on KEDA's own object.
    let paused = json!({ "metadata": { "annotations": { "autoscaling.keda.sh/paused": "true" } } });
    scaled.patch("queue-worker", &PatchParams::default(), &Patch::Merge(paused)).await.unwrap();
    // Not before KEDA has seen it: a poll between would find the queue empty, and what is paused stays as it is then.
    // It says that it pauses before it takes away the autoscaler, and that one may be at work on what it saw last.
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client(), "media");
    until("KEDA pauses", || async {
        let object = scaled.get("queue-worker").await.ok()?;
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        let says = conditions.iter().any(|c| c["type"] == "Paused" && c["status"] == "True");
        let left = autoscalers.list(&ListParams::default()).await.ok()?.items;
        (says && left.is_empty()).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _redis_server = start_redis(cluster.dir(), port);
    tokio::time::sleep(Duration::from_secs(15)).await;
    until_workers(3).await;
    let object = scaled.get("queue-worker").await.unwrap();
    assert_eq!(
        object.metadata.annotations.unwrap()["autoscaling.keda.sh/paused"],
        "true",
        "the operator leaves it"
    );
    let resumed = json!({ "metadata": { "annotations": { "autoscaling.keda.sh/paused": null } } });
    scaled.patch("queue-worker", &PatchParams::default(), &Patch::Merge(resumed)).await.unwrap();
    until_workers(0).await;

    // Until now no pod has ever started. On nodes they do, and then an empty queue alone takes none of them away: a Redis that was wiped
    // reads the same, and nobody says here that they are idle.
    cluster.start_kwok(2).await;
    for i in 0..30 {
        redis(port, &["HSET", "{mpegflow:queue}:depth", &i.to_string(), "1"]).unwrap();
    }
    until_workers(3).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "media");
    let until_pods = async |count: usize| {
        until(&format!("{count} pods run on nodes"), || async {
            let found = pods.list(&ListParams::default()).await.ok()?.items;
            let runs = |pod: &&Pod| {
                let status = pod.status.as_ref();
                let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
                pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
                    && status.is_some_and(|status| status.phase.as_deref() == Some("Running"))
                    && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
            };
            (found.len() == count && found.iter().filter(runs).count() == count).then_some(())
        })
        .await;
    };
    until_pods(3).await;
    redis(port, &["DEL", "{mpegflow:queue}:depth"]).unwrap();
    until("scale-in is held", || async {
        let pool = pools.get("queue").await.ok()?;
        let held = |c: &crd::Condition| c.kind == "ScaleInHeld" && c.reason == "WorkersHaveStarted";
        (pool.spec.scale.replicas == 0 && pool.status?.conditions.iter().any(held)).then_some(())
    })
    .await;
    until_pods(3).await;

    // KEDA marks its own object; the operator takes that for what it is, and does not write back and forth.
    let writes = cluster.writes();
    let ours = writes.iter().filter(|write| write.user.ends_with(":mpegflow-operator"));
    let scaled_objects = ours.filter(|write| write.resource == "scaledobjects").count();
    assert!(scaled_objects <= 2, "{scaled_objects} writes");
}
