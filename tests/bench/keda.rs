//! What KEDA's polling period costs: how long a spike waits for its first worker and for all of them, against what is asked of Redis and of the
//! API server while nothing happens. Real KEDA, its metrics adapter, a real HPA, a real Redis, a WorkerPool and the operator.

mod pools;

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use mpegflow_test_cluster::{Cluster, Process};
use pools::{pool, resource, until};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const PERIODS: [u32; 3] = [2, 10, 30];
const SPIKES: u32 = 8;
const WORKERS: i64 = 5;
/// How often it is looked whether something has come about.
const OFTEN: Duration = Duration::from_millis(50);
const DEPTH: &str = "{mpegflow:spike}:depth";
const MEDIA: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: media}\n";

#[tokio::main]
async fn main() {
    let cluster = Cluster::start(Default::default()).await;
    let port = mpegflow_test_ports::port();
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let _redis = Process::start("redis", cluster.dir(), &server);
    cluster.start_keda().await;
    pools::surround(&cluster).await;
    cluster.apply(MEDIA).await;
    let operator = pools::start(&cluster, &format!("127.0.0.1:{port}")).await;

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
    pools::report("keda", &json!({ "name": "keda", "rows": rows }));
}

struct Row {
    first: (f64, f64),
    all: (f64, f64),
    redis: f64,
    api: f64,
}

async fn measure(cluster: &Cluster, operator: &Process, port: u16, period: u32) -> Row {
    let pools: Api<DynamicObject> =
        Api::namespaced_with(cluster.client(), "media", &resource("mpegflow.io", "v1alpha1", "WorkerPool"));
    // What the API server is asked for while there is no pool is not the pool's.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = (requests(cluster).await, Instant::now());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let without = (requests(cluster).await - before.0) / before.1.elapsed().as_secs_f64() * 60.0;

    let spike = pool("spike", json!({ "max": WORKERS, "pollingSeconds": period, "cooldownSeconds": 1 }));
    pools.patch("spike", &PatchParams::apply("bench"), &Patch::Apply(spike)).await.unwrap();
    let replicas = async || {
        let pool = pools.get("spike").await.ok()?;
        Some((
            pool.data["status"]["autoscaled"] == true,
            pool.data["spec"]["scale"]["replicas"].as_i64().unwrap_or(0),
        ))
    };
    until(operator, OFTEN, async || replicas().await == Some((true, 0))).await;
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
        until(operator, OFTEN, async || replicas().await.is_some_and(|(_, count)| count >= 1)).await;
        first.push(begun.elapsed().as_secs_f64());
        until(operator, OFTEN, async || replicas().await.is_some_and(|(_, count)| count >= WORKERS)).await;
        all.push(begun.elapsed().as_secs_f64());
        redis_says(port, &["DEL", DEPTH]);
        until(operator, OFTEN, async || replicas().await == Some((true, 0))).await;
    }
    pools.delete("spike", &DeleteParams::default()).await.unwrap();
    until(operator, OFTEN, async || pools.get_opt("spike").await.is_ok_and(|pool| pool.is_none())).await;
    Row { first: middle_and_worst(first), all: middle_and_worst(all), redis, api }
}

fn middle_and_worst(mut seconds: Vec<f64>) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    (seconds[seconds.len() / 2], seconds[seconds.len() - 1])
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
    let answer = Command::new("redis-cli").args(["-p", &port.to_string()]).args(command).output().unwrap();
    assert!(answer.status.success(), "redis-cli: {}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8_lossy(&answer.stdout).into_owned()
}
