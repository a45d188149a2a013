//! A thousand WorkerPools in a real control plane: how long until policies and ScaledObjects are in place, what it takes of
//! the operator's memory and of the API server's writes, and what a restart costs.

mod pools;

use futures_util::{StreamExt as _, stream};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_test_cluster::{Cluster, Process};
use pools::{pool, resource, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POOLS: usize = 1000;
const NAMESPACES: usize = 10;
const USER: &str = "system:serviceaccount:mpegflow:mpegflow-operator";
/// Where nobody is: no pool scales here.
const REDIS: &str = "redis.example.com:6379";
/// How often it is looked whether all are there.
const LOOK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() {
    let cluster = Cluster::start(Default::default()).await;
    pools::surround(&cluster).await;
    cluster.install_keda_definitions().await;
    for i in 0..NAMESPACES {
        cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: media-{i}}}\n")).await;
    }
    let mut operator = pools::start(&cluster, REDIS).await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let started = Instant::now();
    let kind = resource("mpegflow.io", "v1alpha1", "WorkerPool");
    let creates = stream::iter(0..POOLS).map(|i| {
        let api: Api<DynamicObject> =
            Api::namespaced_with(cluster.client(), &format!("media-{}", i % NAMESPACES), &kind);
        async move {
            let name = format!("pool-{i}");
            api.patch(
                &name,
                &PatchParams::apply("bench"),
                &Patch::Apply(pool(&name, json!({ "max": 20, "fallback": { "replicas": 2 } }))),
            )
            .await
            .unwrap();
        }
    });
    creates.buffer_unordered(8).collect::<Vec<()>>().await;
    let created = started.elapsed();
    until_in_place(&cluster, &operator).await;
    let in_place = started.elapsed();
    until_ready(&cluster, &operator).await;
    let ready = started.elapsed();
    quiet(&cluster, 0).await;
    let writes = writes(&cluster, 0);
    let (resident, peak) = memory(&operator);

    let before = cluster.write_count();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let steady = self::writes(&cluster, before);

    operator.stop();
    drop(operator);
    let before = cluster.write_count();
    let operator = pools::start(&cluster, REDIS).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    quiet(&cluster, before).await;
    let restart = self::writes(&cluster, before);
    let (_, peak_restart) = memory(&operator);

    let per_pool = writes as f64 / POOLS as f64;
    let rows = [
        ("s, 1,000 WorkerPools made by 8 writers", "", created.as_secs_f64()),
        ("s, from the first until every policy and ScaledObject is there", "< 60", in_place.as_secs_f64()),
        ("s, from the first until every pool says Ready", "", ready.as_secs_f64()),
        ("API writes a pool", "<= 15", per_pool),
        ("MiB resident, operator", "< 64", resident),
        ("MiB resident at most, operator", "< 64", peak),
        ("MiB resident at most, operator after a restart", "< 64", peak_restart),
        ("writes in a steady minute", "0", steady as f64),
        ("writes after a restart", "0", restart as f64),
    ];
    for (what, goal, value) in rows {
        println!("{:<10} {what:<64} {value:>9.2}  {goal}", "operator");
    }
    let metrics: Vec<Value> =
        rows.iter().map(|(what, goal, value)| json!({ "what": what, "goal": goal, "ours": value })).collect();
    pools::report("operator", &json!({ "name": "operator", "pools": POOLS, "metrics": metrics }));
}

async fn count(cluster: &Cluster, resource: &ApiResource, counts: impl Fn(&DynamicObject) -> bool) -> usize {
    let api: Api<DynamicObject> = Api::all_with(cluster.client(), resource);
    let list = api.list(&ListParams::default().match_any()).await;
    list.map(|list| list.items.iter().filter(|object| counts(object)).count()).unwrap_or_default()
}

async fn until_in_place(cluster: &Cluster, operator: &Process) {
    let kinds = [
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("networking.k8s.io", "v1", "NetworkPolicy"),
            "networkpolicies",
        ),
        resource("keda.sh", "v1alpha1", "ScaledObject"),
    ];
    for kind in kinds {
        until(operator, LOOK, async || count(cluster, &kind, |_| true).await == POOLS).await;
    }
}

async fn until_ready(cluster: &Cluster, operator: &Process) {
    let pools = resource("mpegflow.io", "v1alpha1", "WorkerPool");
    let is_ready = |object: &DynamicObject| object.data["status"]["conditions"][0]["status"] == "True";
    until(operator, LOOK, async || count(cluster, &pools, is_ready).await == POOLS).await;
}

fn writes(cluster: &Cluster, since: usize) -> usize {
    let all = cluster.writes_after(since);
    all.iter().filter(|write| write.user == USER && write.resource != "leases").count()
}

async fn quiet(cluster: &Cluster, since: usize) {
    let mut last = writes(cluster, since);
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = writes(cluster, since);
        if now == last {
            return;
        }
        last = now;
    }
}

/// Resident now, and at most so far, in MiB.
fn memory(process: &Process) -> (f64, f64) {
    let status = process.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let status = status.unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    (kib("VmRSS:") / 1024.0, kib("VmHWM:") / 1024.0)
}
