//! Every field at its limit: the pool converges, or a condition says what is wrong.

use crate::support::{condition, turn};
use kube::api::{DeleteParams, DynamicObject};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::{Map, Value, json};

/// A label's key at its longest.
fn key(n: usize) -> String {
    format!("{}b.io/{}{n:02}", "a.".repeat(124), "b".repeat(61))
}

fn name() -> String {
    format!("l{}", "m".repeat(39))
}

fn tenant() -> Value {
    let name = "t".repeat(63);
    let mut pools: Vec<String> =
        (0..63).map(|n| format!("{}/{}{n:02}", "n".repeat(63), "p".repeat(61))).collect();
    pools.push(format!("media/{}", self::name()));
    let webhooks: Vec<Value> = (0..8)
        .map(|n| {
            json!({
                "name": format!("{}{n}", "w".repeat(62)),
                "url": format!("https://hooks.example.com:65535/{}", "u".repeat(2048 - 32)),
                "types": ["job.created", "job.succeeded", "job.failed", "job.canceled"],
            })
        })
        .collect();
    let rules: Vec<Value> = (0..8)
        .map(|n| {
            json!({
                "name": format!("{}{n}", "i".repeat(62)),
                "prefix": "p".repeat(690),
                "suffix": "s".repeat(64),
                "pollSeconds": 86_400,
                "existing": true,
                "job": { "version": 1, "preset": "web", "labels": { "k": "v".repeat(60_000) } },
            })
        })
        .collect();
    json!({
        "metadata": { "name": name },
        "spec": {
            "displayName": "\u{1F600}".repeat(253),
            "weight": 100,
            "quotas": { "running": 1_000_000, "queued": 10_000_000, "bytes": i64::MAX, "minutesPerDay": 10_000_000 },
            "storage": {
                "bucket": "b".repeat(63),
                "prefix": format!("{}/", "p".repeat(199)),
                "endpoint": format!("https://{}:65535", "e".repeat(245)),
                "region": "r".repeat(63),
                "pathStyle": true,
                "roleArn": format!("arn:aws:iam::123456789012:role/{}", "x".repeat(2048 - 31)),
            },
            "allowedPools": pools,
            "webhooks": webhooks,
            "intake": rules,
        },
    })
}

fn pool() -> Value {
    let selector: Map<String, Value> = (0..16).map(|n| (key(n), json!("v".repeat(63)))).collect();
    let tolerations: Vec<Value> = (0..16)
        .map(|n| {
            json!({
                "key": key(n), "operator": "Equal", "value": "v".repeat(63), "effect": "NoExecute",
                "tolerationSeconds": i64::MAX,
            })
        })
        .collect();
    let spread: Vec<Value> = (0..8)
        .map(|n| json!({ "topologyKey": key(n), "maxSkew": 100, "whenUnsatisfiable": "DoNotSchedule" }))
        .collect();
    let endpoints: Vec<String> =
        (0..16).map(|n| format!("[2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff/128]:65535")).collect();
    let terms: Vec<Value> = (0..50)
        .map(|n| {
            let matches = json!([{ "key": key(n), "operator": "In", "values": ["v".repeat(63)] }]);
            json!({ "weight": 100, "preference": { "matchExpressions": matches } })
        })
        .collect();
    json!({
        "metadata": { "name": name(), "namespace": "media" },
        "spec": {
            "tenant": "t".repeat(63),
            "image": format!("r{}@sha256:{}", "e".repeat(512 - 73), "f".repeat(64)),
            "resources": { "cpu": 1_000_000, "memory": "1000000Ti", "scratch": "1000000Ti" },
            "nodeSelector": selector,
            "tolerations": tolerations,
            "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": terms } },
            "topologySpread": spread,
            "runtimeClassName": "k".repeat(63),
            "priorityClassName": "p".repeat(63),
            "scale": {
                "replicas": 10_000, "min": 10_000, "max": 10_000, "targetPerWorker": 1000, "pollingSeconds": 3600,
                "cooldownSeconds": 86_400,
                "fallback": { "failureThreshold": 100, "replicas": 10_000, "behavior": "static" },
            },
            "storage": { "access": "Presigned", "endpoints": endpoints },
            "isolation": { "level": "Sandboxed", "dialects": ["NetworkPolicy"], "canaryPeriodSeconds": 86_400 },
            "drainGraceSeconds": 3600,
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_and_a_tenant_with_every_field_at_its_limit_say_what_keeps_them() {
    let turn = turn().await;
    let shared = turn.shared;
    let tenant: DynamicObject = serde_json::from_value(crate::rules::object("Tenant", &tenant())).unwrap();
    shared.cluster.try_apply(&tenant).await.unwrap();
    let pool: DynamicObject = serde_json::from_value(crate::rules::object("WorkerPool", &pool())).unwrap();
    shared.cluster.try_apply(&pool).await.unwrap();

    // All its objects are there; what nobody has made, the classes of its pods, it names.
    let found = shared.until_reason(&name(), "WorkersRefused").await;
    let ready = condition(&found, "Ready").unwrap();
    assert!(
        !ready.0 && ready.2.starts_with("0 of 10000 workers are ready; a pod of it is forbidden:"),
        "{ready:?}"
    );
    let [priority, runtime] = ["p", "k"].map(|letter| ready.2.contains(&letter.repeat(63)));
    assert!(priority || runtime, "{ready:?}");
    let deployment = shared.get(Kind::Deployment, "media", &format!("{}-worker", name())).await.unwrap();
    assert_eq!(deployment["spec"]["replicas"], 10_000);
    for kind in [Kind::ServiceAccount, Kind::ConfigMap, Kind::PodDisruptionBudget, Kind::NetworkPolicy] {
        let child = shared.get(kind, "media", &format!("{}-worker", name())).await;
        assert!(child.is_some(), "{kind:?}");
    }
    until("the tenant counts it", || async {
        let status = shared.tenants().get(&"t".repeat(63)).await.ok()?.status?;
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready")?;
        // This operator has no broker to tell.
        (status.pools == 1 && ready.reason == "NoControl").then_some(())
    })
    .await;
    // It is tried again and again, and each time with other names: none of that is news.
    let before = shared.write_count();
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    assert_eq!(shared.writes_since(before), []);

    // A resource that the definition takes and Kubernetes does not.
    let resource = format!("{}.io/{}", "v".repeat(60), "r".repeat(189));
    let gpu = json!({ "class": "gpu", "gpu": { "resource": resource, "count": 16 } });
    shared.pool("limit-gpu", gpu).await;
    let refused = shared.until_reason("limit-gpu", "Refused").await;
    let stalled = condition(&refused, "Stalled").unwrap();
    assert!(stalled.0 && stalled.2.contains("resources.limits"), "{stalled:?}");
    for pool in ["limit-gpu", &name()] {
        shared.delete_pool(pool).await;
    }
    shared.tenants().delete(&"t".repeat(63), &DeleteParams::default()).await.unwrap();
}
