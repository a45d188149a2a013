//! What KEDA's polling period costs: how long a spike waits for its first worker and for all of them, against what is asked of Redis and of the
//! API server while nothing happens. Real KEDA, its metrics adapter, a real HPA, a real Redis, a WorkerPool and the operator.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_test_cluster::{Cluster, Process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PERIODS: [u32; 3] = [2, 10, 30];
const SPIKES: u32 = 8;
const WORKERS: i64 = 5;
const DEPTH: &str = "{mpegflow:spike}:depth";
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
";

#[tokio::main]
async fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cluster = Cluster::start(Default::default()).await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let _redis = Process::start("redis", cluster.dir(), &server);
    cluster.start_keda().await;
    cluster.apply(SURROUNDINGS).await;
    for definition in ["tenants.yaml", "workerpools.yaml"] {
        let path = root.join("chart/mpegflow-crds/templates").join(definition);
        cluster.apply(&std::fs::read_to_string(path).unwrap()).await;
    }
    cluster.apply(&std::fs::read_to_string(root.join("operator/rbac.yaml")).unwrap()).await;
    let operator = start(&cluster, port).await;

    let mut rows = Vec::new();
    for period in PERIODS {
        let row = measure(&cluster, &operator, port, period).await;
        println!(
            "keda       polling {period:>2} s: first worker after {:>5.1} s (worst {:>5.1}), {WORKERS} after {:>5.1} s (worst {:>5.1}); \
             idle: {:>5.1} Redis calls and {:>5.1} API requests a minute and pool",
            row.first.0, row.first.1, row.all.0, row.all.1, row.redis, row.api
        );
        rows.push(json!({
            "pollingSeconds": period, "spikes": SPIKES,
            "firstWorkerSeconds": { "median": row.first.0, "worst": row.first.1 },
            "allWorkersSeconds": { "median": row.all.0, "worst": row.all.1 },
            "redisCallsAMinute": row.redis, "apiRequestsAMinute": row.api,
        }));
    }
    let file = std::env::current_exe().unwrap().with_file_name("bench-keda.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&json!({ "name": "keda", "rows": rows })).unwrap())
        .unwrap();
    println!("\nas JSON: {}", file.display());
}

struct Row {
    first: (f64, f64),
    all: (f64, f64),
    redis: f64,
    api: f64,
}

async fn measure(cluster: &Cluster, operator: &Process, port: u16, period: u32) -> Row {
    let pools: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        "media",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("mpegflow.io", "v1alpha1", "WorkerPool")),
    );
    // What the API server is asked for while there is no pool is not the pool's.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = (requests(cluster).await, Instant::now());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let without = (requests(cluster).await - before.0) / before.1.elapsed().as_secs_f64() * 60.0;

    pools.patch("spike", &PatchParams::apply("bench"), &Patch::Apply(pool(period))).await.unwrap();
    let replicas = async || {
        let pool = pools.get("spike").await.ok()?;
        Some((
            pool.data["status"]["autoscaled"] == true,
            pool.data["spec"]["scale"]["replicas"].as_i64().unwrap_or(0),
        ))
    };
    until(operator, async || replicas().await == Some((true, 0))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (api, redis, begun) = (requests(cluster).await, calls(port), Instant::now());
    tokio::time::sleep(Duration::from_secs(120)).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let (api, redis) = ((requests(cluster).await - api) / minutes - without, (calls(port) - redis) / minutes);

    let (mut first, mut all) = (Vec::new(), Vec::new());
    for spike in 0..SPIKES {
        // Anywhere in the period, each time elsewhere.
        let phase = f64::from(period) * f64::from(spike) / f64::from(SPIKES);
        tokio::time::sleep(Duration::from_secs_f64(phase)).await;
        let begun = Instant::now();
        for task in 0..WORKERS {
            redis_says(port, &["HSET", DEPTH, &task.to_string(), "1"]);
        }
        until(operator, async || replicas().await.is_some_and(|(_, count)| count >= 1)).await;
        first.push(begun.elapsed().as_secs_f64());
        until(operator, async || replicas().await.is_some_and(|(_, count)| count >= WORKERS)).await;
        all.push(begun.elapsed().as_secs_f64());
        redis_says(port, &["DEL", DEPTH]);
        until(operator, async || replicas().await == Some((true, 0))).await;
    }
    pools.delete("spike", &DeleteParams::default()).await.unwrap();
    until(operator, async || pools.get_opt("spike").await.is_ok_and(|pool| pool.is_none())).await;
    Row { first: middle_and_worst(first), all: middle_and_worst(all), redis, api }
}

fn middle_and_worst(mut seconds: Vec<f64>) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    (seconds[seconds.len() / 2], seconds[seconds.len() - 1])
}

fn pool(period: u32) -> Value {
    json!({
        "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool", "metadata": { "name": "spike" },
        "spec": {
            "class": "cpu",
            "image": format!("registry.example.com/mpegflow/worker@sha256:{}", "a".repeat(64)),
            "resources": { "cpu": 2, "memory": "3Gi" },
            "scale": { "max": WORKERS, "pollingSeconds": period, "cooldownSeconds": 1 },
        },
    })
}

async fn start(cluster: &Cluster, port: u16) -> Process {
    let ca = cluster.dir().join("broker-ca.crt");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n").unwrap();
    let program = std::env::current_exe().unwrap().with_file_name("mpegflow-operator");
    let mut command = Command::new(program);
    command.env("KUBECONFIG", cluster.kubeconfig_of("mpegflow", "mpegflow-operator").await);
    command.arg("run").arg("--broker-ca").arg(ca).args(["--redis", &format!("127.0.0.1:{port}")]);
    Process::start("operator", cluster.dir(), &command)
}

async fn until(operator: &Process, ask: impl AsyncFn() -> bool) {
    for _ in 0..12_000 {
        if ask().await {
            return;
        }
        assert!(!operator.has_ended(), "{}", operator.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in ten minutes: {}", operator.log_tail());
}

/// Requests that the API server has answered, but for watches that ended and our own looks at pools.
async fn requests(cluster: &Cluster) -> f64 {
    let request = hyper::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = cluster.client().request_text(request).await.unwrap();
    let counted = text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && !line.contains("verb=\"WATCH\""));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Scripts that Redis has run: one for each poll.
fn calls(port: u16) -> f64 {
    let text = redis_says(port, &["INFO", "commandstats"]);
    let scripts = text.lines().filter(|line| line.starts_with("cmdstat_eval"));
    let count = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<f64>().ok();
    scripts.filter_map(count).sum()
}

fn redis_says(port: u16, command: &[&str]) -> String {
    for _ in 0..100 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut text = format!("*{}\r\n", command.len());
        for part in command {
            text += &format!("${}\r\n{part}\r\n", part.len());
        }
        stream.write_all(text.as_bytes()).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 16_384]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..read]);
            // A number; the long answer ends when nothing more comes.
            if answer.starts_with(b":") {
                break;
            }
        }
        return String::from_utf8_lossy(&answer).into_owned();
    }
    panic!("Redis does not answer");
}
