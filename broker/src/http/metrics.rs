//! Metrics, on a port of their own: they say how busy tenants are.

use crate::engine::Engine;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mpegflow_protocol::telemetry::Counts;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `GET /metrics`.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(engine)
}

async fn metrics(State(engine): State<Arc<Engine>>) -> Response {
    let mut text = String::new();
    match registry(&engine).await {
        Ok(registry) if encode(&mut text, &registry).is_ok() => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Ok(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(e) => {
            tracing::error!(error = %e, "cannot count for the metrics");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

async fn registry(engine: &Engine) -> Result<Registry, crate::store::StoreError> {
    let mut registry = Registry::with_prefix("mpegflow");
    let counters = engine.counters();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("attempts_started", "Attempts started", load(&counters.attempts_started)),
        ("attempts_succeeded", "Attempts that succeeded", load(&counters.attempts_succeeded)),
        ("attempts_failed", "Attempts that failed", load(&counters.attempts_failed)),
        ("attempts_lost", "Attempts whose worker was lost", load(&counters.attempts_lost)),
        ("bytes_to_workers", "Bytes that workers asked for", load(&counters.bytes_to_workers)),
        ("bytes_from_workers", "Bytes that workers sent", load(&counters.bytes_from_workers)),
        ("bytes_uploaded", "Bytes that tenants uploaded", load(&counters.bytes_uploaded)),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    engine.meters().register(&mut registry);
    let webhooks = engine.webhook_counts();
    for (outcome, count) in
        [("delivered", &webhooks.delivered), ("retried", &webhooks.retried), ("failed", &webhooks.failed)]
    {
        let labels = [("outcome".into(), outcome.into())].into_iter();
        registry.sub_registry_with_labels(labels).register(
            "webhook_attempts",
            "Attempts to send messages to webhooks",
            ConstCounter::new(load(count)),
        );
    }
    let gauge = |n: u64| ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX));
    registry.register(
        "leases",
        "Live leases",
        gauge(u64::try_from(engine.live_leases()).unwrap_or(u64::MAX)),
    );
    // An index that does not answer says nothing; the rest is still told.
    for (pool, depth) in engine.queue().depth().await.unwrap_or_default() {
        let labels = [("pool".to_owned().into(), pool.to_string().into())].into_iter();
        registry.sub_registry_with_labels(labels).register(
            "queue_depth",
            "Tasks that wait for a worker or run",
            gauge(depth),
        );
    }
    let work = engine.meters().work();
    for (n, (name, help)) in Counts::NAMES.into_iter().enumerate() {
        for (pool, counts) in &work {
            let count = counts.all().get(n).copied().unwrap_or(0);
            let labels = [("pool".to_owned().into(), pool.to_string().into())].into_iter();
            registry.sub_registry_with_labels(labels).register(
                format!("worker_{name}"),
                format!("{} As workers say.", help.trim()),
                ConstCounter::new(count),
            );
        }
    }
    if let Some(counts) = engine.span_counts() {
        for (outcome, count) in counts.all() {
            let labels = [("outcome".into(), outcome.into())].into_iter();
            registry.sub_registry_with_labels(labels).register(
                "otlp_spans",
                "Spans by what became of them: sent, dropped for want of room, or lost with a collector that did not take them",
                ConstCounter::new(count),
            );
        }
    }
    for (pool, verified, refused) in engine.isolation() {
        for (verdict, nodes) in [("verified", verified), ("refused", refused)] {
            let labels = [("pool", pool.to_string()), ("verdict", verdict.to_owned())];
            let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into()));
            registry.sub_registry_with_labels(labels).register(
                "isolation_nodes",
                "Nodes with a fresh verdict on a pool's isolation, by what it says",
                gauge(nodes),
            );
        }
    }
    for (state, jobs) in engine.store().count_jobs().await? {
        let labels = [("state".to_owned().into(), state.as_str().to_owned().into())].into_iter();
        registry.sub_registry_with_labels(labels).register("jobs", "Jobs, by state", gauge(jobs));
    }
    Ok(registry)
}
