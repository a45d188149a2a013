//! The committed JSON schema of a job spec is the one that the types have.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use mpegflow_protocol::job::JobSpec;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

fn schema() -> Value {
    let mut parts = Vec::new();
    JobSpec::schemas(&mut parts);
    let defs: Map<String, Value> =
        parts.into_iter().map(|(name, part)| (name, serde_json::to_value(part).unwrap())).collect();
    let mut root = serde_json::to_value(JobSpec::schema()).unwrap();
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mpegflow job spec, version 1",
        "$defs": defs,
    });
    for (key, value) in head.as_object().unwrap() {
        root[key] = value.clone();
    }
    // utoipa writes references for OpenAPI.
    let text = serde_json::to_string(&root).unwrap().replace("#/components/schemas/", "#/$defs/");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_committed_schema_of_a_job_spec_is_that_of_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/job-v1.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("MPEGFLOW_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == now, "run MPEGFLOW_WRITE_SCHEMA=1 cargo test -p mpegflow-protocol --test schema");
    for field in ["max_height", "bit_rate_kbps", "poster_seconds", "allow_partial"] {
        assert!(now.contains(&format!("\"{field}\"")), "{field}");
    }
}
