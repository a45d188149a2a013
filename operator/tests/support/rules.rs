//! Every CEL rule of the definitions, with an object that it lets through and one that it refuses.
#![allow(dead_code, unreachable_pub, reason = "each test takes its part of it")]

use serde_json::{Map, Value, json};

/// A rule, by its message.
pub struct Case {
    /// The kind it is in.
    pub kind: &'static str,
    /// The rule's message.
    pub message: &'static str,
    /// What is stored, where the rule compares; as a change to the kind's base.
    pub old: Option<Value>,
    /// A change to the base that is let through.
    pub good: Value,
    /// A change to the base that is refused.
    pub bad: Value,
}

fn case(kind: &'static str, message: &'static str, good: Value, bad: Value) -> Case {
    Case { kind, message, old: None, good, bad }
}

fn change(kind: &'static str, message: &'static str, old: Value, good: Value, bad: Value) -> Case {
    Case { kind, message, old: Some(old), good, bad }
}

/// All cases; a rule may have several.
pub fn cases() -> Vec<Case> {
    let gpu = || json!({ "class": "gpu", "gpu": {} });
    let spec = |spec: Value| json!({ "spec": spec });
    let name = |name: &str| json!({ "metadata": { "name": name } });
    let pool_name =
        "the name becomes labels and names: at most 40 of a-z, 0-9 and -, with a letter first and no - last";
    let tenant_name = "the name becomes a label: at most 63 of a-z, 0-9 and -, without a - at either end";
    let same_tenant = "tenant is immutable: make another WorkerPool";
    let gpu_rule = "gpu belongs to class gpu, and class gpu needs it";
    let sandbox =
        "isolation.level Sandboxed needs the runtimeClassName of the sandbox, and Standard has none";
    let gvisor = "gVisor has no Landlock, without which no worker of this version runs: name a sandbox with a kernel of its own, such as Kata";
    let locks = "workers of this version run under nothing less than Full: leave lockProfile out, and use nodes whose kernel has Landlock";
    let encoders = "nothing of this version goes by gpu.encoders: leave it out, and give each model of GPU a pool of its own";
    let sandboxed =
        |class: &str| spec(json!({ "isolation": { "level": "Sandboxed" }, "runtimeClassName": class }));
    let presigned = "endpoints belong to access Presigned, and Presigned needs at least one";
    let sign_in = "exactly one of roleArn and secret says how the broker signs in";
    let role = "arn:aws:iam::123456789012:role/mpegflow";
    vec![
        case("WorkerPool", pool_name, name(&"a".repeat(40)), name(&"a".repeat(41))),
        case("WorkerPool", pool_name, name("a-1"), name("a.b")),
        case("WorkerPool", pool_name, name("a"), name("1a")),
        change(
            "WorkerPool",
            same_tenant,
            spec(json!({ "tenant": "acme" })),
            spec(json!({ "tenant": "acme", "paused": true })),
            spec(json!({ "tenant": "other" })),
        ),
        change(
            "WorkerPool",
            same_tenant,
            json!({}),
            spec(json!({ "paused": true })),
            spec(json!({ "tenant": "acme" })),
        ),
        change(
            "WorkerPool",
            same_tenant,
            spec(json!({ "tenant": "acme" })),
            spec(json!({ "tenant": "acme" })),
            json!({}),
        ),
        change(
            "WorkerPool",
            "class is immutable: make another WorkerPool",
            json!({}),
            json!({}),
            spec(gpu()),
        ),
        change(
            "WorkerPool",
            "isolation.level is immutable: make another WorkerPool",
            json!({}),
            spec(json!({ "isolation": { "level": "Standard" } })),
            spec(json!({ "isolation": { "level": "Sandboxed" }, "runtimeClassName": "kata" })),
        ),
        case("WorkerPool", gpu_rule, spec(gpu()), spec(json!({ "class": "gpu" }))),
        case("WorkerPool", gpu_rule, json!({}), spec(json!({ "gpu": {} }))),
        case(
            "WorkerPool",
            sandbox,
            spec(json!({ "isolation": { "level": "Sandboxed" }, "runtimeClassName": "kata" })),
            spec(json!({ "isolation": { "level": "Sandboxed" } })),
        ),
        case("WorkerPool", sandbox, json!({}), spec(json!({ "runtimeClassName": "kata" }))),
        case(
            "WorkerPool",
            "a sandbox does not show MIG devices: use a whole GPU, or isolation.level Standard",
            spec(json!({ "class": "gpu", "gpu": { "migProfile": "1g.10gb" } })),
            spec(json!({
                "class": "gpu", "gpu": { "migProfile": "1g.10gb" },
                "isolation": { "level": "Sandboxed" }, "runtimeClassName": "kata",
            })),
        ),
        case("WorkerPool", gvisor, sandboxed("kata-qemu"), sandboxed("gvisor")),
        case("WorkerPool", gvisor, json!({}), sandboxed("runsc-kvm")),
        case(
            "WorkerPool",
            locks,
            spec(json!({ "isolation": { "lockProfile": "Full" } })),
            spec(json!({ "isolation": { "lockProfile": "NoLandlock" } })),
        ),
        case(
            "WorkerPool",
            encoders,
            spec(json!({ "class": "gpu", "gpu": { "encoders": [] } })),
            spec(json!({ "class": "gpu", "gpu": { "encoders": ["h264"] } })),
        ),
        case(
            "WorkerPool",
            "min is at most max",
            spec(json!({ "scale": { "min": 3, "max": 3 } })),
            spec(json!({ "scale": { "min": 4, "max": 3 } })),
        ),
        case(
            "WorkerPool",
            "fallback.replicas is at most max",
            spec(json!({ "scale": { "max": 3, "fallback": { "replicas": 3 } } })),
            spec(json!({ "scale": { "max": 3, "fallback": { "replicas": 4 } } })),
        ),
        case(
            "WorkerPool",
            presigned,
            spec(json!({ "storage": { "access": "Presigned", "endpoints": ["192.0.2.10:443"] } })),
            spec(json!({ "storage": { "access": "Presigned" } })),
        ),
        case(
            "WorkerPool",
            presigned,
            json!({}),
            spec(json!({ "storage": { "endpoints": ["192.0.2.10:443"] } })),
        ),
        case(
            "WorkerPool",
            "Auto stands alone",
            spec(json!({ "isolation": { "dialects": ["NetworkPolicy", "Cilium"] } })),
            spec(json!({ "isolation": { "dialects": ["Auto", "Cilium"] } })),
        ),
        case(
            "WorkerPool",
            "a worker gets one MIG device",
            spec(json!({ "class": "gpu", "gpu": { "migProfile": "1g.10gb+me", "count": 1 } })),
            spec(json!({ "class": "gpu", "gpu": { "migProfile": "1g.10gb", "count": 2 } })),
        ),
        case("Tenant", tenant_name, name(&"a".repeat(63)), name(&"a".repeat(64))),
        case("Tenant", tenant_name, name("1-a"), name("a.b")),
        change(
            "Tenant",
            "id is immutable: make another Tenant",
            json!({}),
            spec(json!({ "weight": 2 })),
            spec(json!({ "id": format!("tnt_{}", "1".repeat(32)) })),
        ),
        case(
            "Tenant",
            sign_in,
            spec(json!({ "storage": { "bucket": "media", "roleArn": role } })),
            spec(json!({ "storage": { "bucket": "media" } })),
        ),
        case(
            "Tenant",
            sign_in,
            spec(json!({ "storage": { "bucket": "media", "secret": { "name": "s" } } })),
            spec(json!({ "storage": { "bucket": "media", "roleArn": role, "secret": { "name": "s" } } })),
        ),
        case(
            "Tenant",
            "intake takes objects of the tenant's own storage: say in storage where that is",
            spec(json!({ "intake": [intake("in")], "storage": { "bucket": "media", "roleArn": role } })),
            spec(json!({ "intake": [intake("in")] })),
        ),
        case(
            "Tenant",
            "prefix ends with a /, so that it is no other prefix's beginning",
            spec(json!({ "storage": { "bucket": "media", "roleArn": role, "prefix": "acme/" } })),
            spec(json!({ "storage": { "bucket": "media", "roleArn": role, "prefix": "acme" } })),
        ),
    ]
}

/// Objects that the bounds of the schema refuse.
pub fn out_of_bounds() -> Vec<(&'static str, Value)> {
    let spec = |spec: Value| json!({ "spec": spec });
    let digest = "a".repeat(64);
    let many = |n: usize| (0..n).map(|i| format!("192.0.2.{i}:443")).collect::<Vec<_>>();
    let hook = |change: Value| {
        let mut hook = webhook("ops");
        merge(&mut hook, &change);
        ("Tenant", json!({ "spec": { "webhooks": [hook] } }))
    };
    let rule = |change: Value| {
        let mut rule = intake("in");
        merge(&mut rule, &change);
        let storage = json!({ "bucket": "media", "secret": { "name": "s" } });
        ("Tenant", json!({ "spec": { "intake": [rule], "storage": storage } }))
    };
    let hooks = |names: Vec<String>| {
        let hooks: Vec<Value> = names.iter().map(|name| webhook(name)).collect();
        ("Tenant", json!({ "spec": { "webhooks": hooks } }))
    };
    vec![
        ("WorkerPool", spec(json!({ "image": "registry.example.com/worker:latest" }))),
        (
            "WorkerPool",
            spec(json!({ "image": format!("registry.example.com/{}@sha256:{digest}", "a".repeat(512)) })),
        ),
        ("WorkerPool", spec(json!({ "class": "tpu" }))),
        ("WorkerPool", spec(json!({ "resources": { "cpu": "two" } }))),
        ("WorkerPool", spec(json!({ "resources": { "memory": null } }))),
        ("WorkerPool", spec(json!({ "scale": { "max": 10_001 } }))),
        ("WorkerPool", spec(json!({ "scale": { "pollingSeconds": 0 } }))),
        ("WorkerPool", spec(json!({ "drainGraceSeconds": 3601 }))),
        ("WorkerPool", spec(json!({ "storage": { "access": "Presigned", "endpoints": many(17) } }))),
        (
            "WorkerPool",
            spec(json!({ "storage": { "access": "Presigned", "endpoints": ["s3.example.com:443"] } })),
        ),
        ("WorkerPool", spec(json!({ "isolation": { "dialects": ["Antrea"] } }))),
        ("WorkerPool", spec(json!({ "isolation": { "dialects": ["Cilium", "Cilium"] } }))),
        ("WorkerPool", spec(json!({ "class": "gpu", "gpu": { "resource": "gpu" } }))),
        ("Tenant", spec(json!({ "id": "tnt_1" }))),
        ("Tenant", spec(json!({ "weight": 0 }))),
        ("Tenant", spec(json!({ "allowedPools": ["*"] }))),
        ("Tenant", spec(json!({ "allowedPools": ["*/*"] }))),
        hooks((0..9).map(|n| format!("ops-{n}")).collect()),
        hooks(vec!["ops".into(), "ops".into()]),
        hook(json!({ "name": "" })),
        hook(json!({ "name": "Ops" })),
        hook(json!({ "name": "a".repeat(64) })),
        hook(json!({ "name": null })),
        hook(json!({ "url": "http://a.example/" })),
        hook(json!({ "url": "https://" })),
        hook(json!({ "url": "https://user@a.example/" })),
        hook(json!({ "url": "https://user:pw@a.example/" })),
        hook(json!({ "url": "https://a.example/#x" })),
        hook(json!({ "url": "https://a.example\\@b.example/" })),
        hook(json!({ "url": "https://a.example/a b" })),
        hook(json!({ "url": format!("https://a.example/{}", "a".repeat(2_048)) })),
        hook(json!({ "url": null })),
        hook(json!({ "types": [] })),
        hook(json!({ "types": ["job.failed", "job.failed"] })),
        hook(json!({ "types": ["job.started"] })),
        hook(json!({ "types": null })),
        rule(json!({ "name": "In" })),
        rule(json!({ "name": null })),
        rule(json!({ "prefix": "p".repeat(691) })),
        rule(json!({ "suffix": "s".repeat(65) })),
        rule(json!({ "pollSeconds": 9 })),
        rule(json!({ "pollSeconds": 86_401 })),
        rule(json!({ "job": "web" })),
        rule(json!({ "job": null })),
        (
            "Tenant",
            spec(json!({ "storage": { "bucket": "m", "roleArn": "arn:aws:iam::123456789012:role/x" } })),
        ),
    ]
}

/// A webhook of a tenant.
pub fn webhook(name: &str) -> Value {
    json!({ "name": name, "url": "https://hooks.example.com/in?token=a%20b", "types": ["job.succeeded", "job.failed"] })
}

/// A rule of a tenant's intake.
pub fn intake(name: &str) -> Value {
    json!({ "name": name, "prefix": "incoming/", "suffix": ".mov", "pollSeconds": 60, "job": { "version": 1, "preset": "web" } })
}

/// What the API server takes at a place of a pool, though it is none of what people write there.
pub fn taken() -> Vec<(&'static str, Value)> {
    vec![
        ("/spec/resources/memory", json!(4_294_967_296_i64)),
        ("/spec/resources/memory", json!(i64::MAX)),
        ("/spec/resources/cpu", json!(-1)),
        ("/spec/resources/scratch", json!(5_000_000_000_i64)),
        ("/spec/resources/scratch", Value::Null),
        ("/spec/tenant", Value::Null),
        ("/spec/gpu", Value::Null),
        ("/spec/scale/fallback", Value::Null),
        ("/spec/tolerations", json!([{ "key": null, "operator": "Exists", "tolerationSeconds": i64::MAX }])),
    ]
}

/// The smallest object of a kind, with a change.
pub fn object(kind: &str, change: &Value) -> Value {
    let spec = match kind {
        "Tenant" => json!({ "id": format!("tnt_{}", "0".repeat(32)) }),
        _ => json!({
            "class": "cpu",
            "image": format!("registry.example.com/mpegflow/worker@sha256:{}", "a".repeat(64)),
            "resources": { "cpu": 2, "memory": "3Gi" },
        }),
    };
    let mut object = json!({
        "apiVersion": "mpegflow.io/v1alpha1", "kind": kind, "metadata": { "name": "it" }, "spec": spec,
    });
    if kind == "WorkerPool" {
        object["metadata"]["namespace"] = json!("default");
    }
    merge(&mut object, change);
    object
}

/// RFC 7386.
pub fn merge(into: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let into = into.as_object_mut().expect("an object");
    for (key, value) in change {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Messages of all rules in a schema.
pub fn messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                found.push(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            map.values().for_each(|value| messages(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}
