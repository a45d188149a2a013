//! Values that cannot be meant are refused before anything is installed, by a message that names them.

use mpegflow_chart_tests::{Helm, chart_folder, values_file};

/// Settings over the evaluation's values, and words of the refusal.
const BAD: &[(&str, &[&str])] = &[
    // The schema: unknown names, types, shapes, ranges.
    ("brokr={}", &["brokr"]),
    ("broker.replicas=0", &["replicas"]),
    ("broker.autoscaling={\"enabled\":true,\"minReplicas\":1}", &["minReplicas"]),
    ("dispatch.url=\"redis://u:secret@r.example:6379\"", &["url"]),
    ("broker.leaseSeconds=1", &["leaseSeconds"]),
    ("broker.leaseSeconds=\"15\"", &["leaseSeconds"]),
    ("broker.listen=\"127.0.0.1\"", &["listen"]),
    ("broker.service.clusterIP=\"broker.example\"", &["clusterIP"]),
    ("images.broker.digest=\"sha256:short\"", &["digest"]),
    ("images.broker.repository=\"Upper/Case\"", &["repository"]),
    ("pools=[{\"name\":\"default\"}]", &["resources"]),
    (
        "pools=[{\"name\":\"Upper\",\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["name"],
    ),
    (
        "pools=[{\"name\":\"a\",\"resources\":{\"cpu\":1,\"memory\":\"lots\",\"scratch\":\"1Gi\"}}]",
        &["memory"],
    ),
    (
        "pools=[{\"name\":\"a\",\"hostNetwork\":true,\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["hostNetwork"],
    ),
    ("networkPolicy.dialects=[\"weave\"]", &["dialects"]),
    ("networkPolicy.publicFrom=[{}]", &["publicFrom"]),
    ("database.addresses=[{\"cidr\":\"0.0.0.0/0\",\"port\":5432}]", &["addresses"]),
    ("database.addresses=[{\"cidr\":\"10.0.0.0/8\"}]", &["port"]),
    ("database.url=\"postgres://u:secret@db.example/d\"", &["url"]),
    ("database.connections=0", &["connections"]),
    ("postgresql.existingSecret=\"UPPER\"", &["existingSecret"]),
    // Values that need each other.
    ("postgresql.existingSecret=\"\"", &["postgresql.existingSecret is empty", "makes no passwords"]),
    ("postgresql.enabled=false", &["database.url is empty", "postgres://USER@HOST"]),
    ("database={\"url\":\"postgres://u@db.example/d\"}", &["postgresql.enabled and database.url"]),
    ("broker.service.clusterIP=\"\"", &["broker.service.clusterIP is empty", "no DNS"]),
    ("objects.s3.bucket=\"media\"", &["objects.s3.existingSecret is empty"]),
    ("objects.s3={\"bucket\":\"media\",\"existingSecret\":\"s\"}", &["objects.s3.addresses is empty"]),
    ("tracing.existingSecret=\"s\"", &["tracing.endpoint is empty"]),
    ("tracing.endpoint=\"http://collector.monitoring:4318\"", &["tracing.to is empty"]),
    (
        "tracing={\"endpoint\":\"http://c:4318\",\"existingSecret\":\"s\",\"to\":[{\"podSelector\":{\"matchLabels\":{\"a\":\"b\"}}}]}",
        &["tracing.existingSecret needs a tracing.endpoint of https://"],
    ),
    ("tracing.endpoint=\"https://u:secret@c.example\"", &["endpoint"]),
    ("tracing.sample=\"101%\"", &["sample"]),
    ("tracing.traceparent=\"trust\"", &["traceparent"]),
    ("objects.s3.kmsKey=\"k\"", &["objects.s3.kmsKey needs objects.s3.encryption: kms"]),
    ("broker.replicas=2", &["without objects.s3.bucket"]),
    ("broker.autoscaling.enabled=true", &["without objects.s3.bucket"]),
    (
        "broker={\"replicas\":2,\"service\":{\"clusterIP\":\"10.96.40.10\"}},objects={\"s3\":{\"bucket\":\"media\",\"existingSecret\":\"s\",\"addresses\":[{\"cidr\":\"10.1.0.0/16\",\"port\":443}]}},redis={\"enabled\":false}",
        &["without dispatch.url"],
    ),
    ("broker.graceSeconds=60", &["broker.graceSeconds is not below"]),
    ("dispatch.existingSecret=\"r\",redis={\"enabled\":false}", &["dispatch.url is empty"]),
    ("dispatch.url=\"redis://u@r.example:6379\",redis={\"enabled\":false}", &["dispatch.addresses is empty"]),
    ("redis.existingSecret=\"\"", &["redis.existingSecret is empty", "redis-acl --file"]),
    (
        "redis={\"enabled\":true,\"existingSecret\":\"r\"},dispatch={\"url\":\"redis://u@r.example:6379\"}",
        &["redis.enabled and dispatch.url"],
    ),
    ("firstStart.enabled=false", &["broker.identity.existingSecret is empty"]),
    ("operator.replicas=0", &["replicas"]),
    (
        "operator={\"enabled\":true},broker={\"service\":{\"clusterIP\":\"\"}},pools=[]",
        &["operator.enabled is true", "no DNS"],
    ),
    // Pools as they were without the operator, and fields that are its alone.
    ("operator={\"enabled\":true}", &["operator.workers.namespace is empty", "pools has default"]),
    (
        "operator={\"enabled\":true,\"workers\":{\"namespace\":\"media\"}}",
        &["pools.default.replicas", "{min: 1, max: 10}"],
    ),
    (
        "operator={\"enabled\":true,\"workers\":{\"namespace\":\"media\"}},pools=[{\"name\":\"a\",\"existingSecret\":\"s\",\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["pools.a.existingSecret", "join-token revoke"],
    ),
    (
        "operator={\"enabled\":true,\"workers\":{\"namespace\":\"media\"}},pools=[{\"name\":\"a\",\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["pools.a has an image without a digest", "images.worker.digest"],
    ),
    (
        "operator={\"enabled\":true,\"workers\":{\"namespace\":\"mpegflow\"}},pools=[]",
        &["operator.workers.namespace is mpegflow, where the broker is"],
    ),
    ("operator.workers.namespace=\"Media\"", &["namespace"]),
    (
        "pools=[{\"name\":\"a\",\"scale\":{\"max\":3},\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["pools.a.scale needs operator.enabled: true"],
    ),
    (
        "pools=[{\"name\":\"a\",\"scale\":{\"replicas\":3},\"resources\":{\"cpu\":1,\"memory\":\"1Gi\",\"scratch\":\"1Gi\"}}]",
        &["scale"],
    ),
    ("operator.depth.tls=true", &["operator.depth.redis is empty"]),
    ("operator.depth.existingSecret=\"s\"", &["operator.depth.redis is empty"]),
    ("operator.depth.existingSecret=\"UPPER\"", &["existingSecret"]),
    (
        "operator.depth={\"redis\":\"r.example:6379\",\"existingSecret\":\"s\",\"authentication\":\"a\"}",
        &["operator.depth.authentication and operator.depth.existingSecret are both set"],
    ),
    ("ingress.enabled=true", &["ingress.host is empty"]),
    ("ingress={\"enabled\":true,\"host\":\"h.example\"}", &["ingress.tlsSecret is empty"]),
    (
        "ingress={\"enabled\":true,\"host\":\"h.example\",\"tlsSecret\":\"t\"}",
        &["networkPolicy.publicFrom is empty"],
    ),
    ("gateway.enabled=true", &["gateway.parentRefs is empty"]),
    ("metrics.serviceMonitor.enabled=true", &["networkPolicy.metricsFrom is empty"]),
];

#[test]
fn each_bad_value_is_refused_by_name() {
    let chart = chart_folder().join("mpegflow");
    for helm in Helm::ALL {
        for (setting, words) in BAD {
            let error = helm.template(&chart, &[&values_file("evaluation")], &[setting]).expect_err(setting);
            for word in *words {
                assert!(error.contains(word), "{helm:?} {setting}: {word:?} is not in\n{error}");
            }
            assert!(!error.contains("nil pointer"), "{helm:?} {setting}: {error}");
        }
    }
}

#[test]
fn a_pool_of_a_name_twice_is_refused() {
    let pool = r#"{"name":"default","resources":{"cpu":1,"memory":"1Gi","scratch":"1Gi"}}"#;
    let chart = chart_folder().join("mpegflow");
    let error =
        Helm::V4.template(&chart, &[&values_file("evaluation")], &[&format!("pools=[{pool},{pool}]")]);
    assert!(error.unwrap_err().contains("pools has default twice"));
}
