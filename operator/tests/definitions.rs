//! The definitions: committed, bounded, and each rule lets through and refuses what it should. The API server's own answer to
//! the same cases is in `cluster/definitions.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "support/rules.rs"]
mod rules;

use kube_cel::Validator;
use mpegflow_operator::crd::{self, WorkerPool};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use serde_json::{Value, json};
use std::path::Path;

fn schema(kind: &str) -> Value {
    let definitions = crd::definitions().map(|(_, crd)| serde_json::to_value(crd).unwrap());
    let crd = definitions.iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chart/mpegflow-crds/templates");
    for (name, definition) in crd::definitions() {
        let committed = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(
            committed == crd::to_yaml(&definition),
            "{name} is not what the types say; run `cargo run -p mpegflow-operator -- crds --out chart/mpegflow-crds/templates`"
        );
    }
}

#[test]
fn every_rule_has_cases_and_every_case_has_a_rule() {
    for kind in ["Tenant", "WorkerPool"] {
        let mut rules = Vec::new();
        rules::messages(&schema(kind), &mut rules);
        let cases = rules::cases();
        let mut tested: Vec<&str> = cases.iter().filter(|c| c.kind == kind).map(|c| c.message).collect();
        tested.sort_unstable();
        tested.dedup();
        rules.sort_unstable();
        assert_eq!(rules, tested, "{kind}");
    }
}

#[test]
fn each_rule_lets_through_and_refuses_what_it_should() {
    for case in rules::cases() {
        let schema = schema(case.kind);
        let old = case.old.as_ref().map(|change| rules::object(case.kind, change));
        let check = |change: &Value| {
            let object = rules::object(case.kind, change);
            Validator::new().validate_with_defaults(&schema, &object, old.as_ref())
        };
        if let Err(errors) = check(&case.good) {
            panic!("{}: {} is refused: {errors}", case.message, case.good);
        }
        let errors = check(&case.bad).expect_err(&format!("{}: {} is let through", case.message, case.bad));
        let messages: Vec<&str> = errors.as_slice().iter().map(|error| error.message.as_str()).collect();
        assert!(messages.contains(&case.message), "{}: another rule refused: {messages:?}", case.message);
    }
}

/// The API server charges a rule for the longest list and text that a schema lets through; without a bound it refuses the
/// definition, or the rule refuses objects later.
#[test]
fn every_list_map_and_text_that_may_be_written_is_bounded() {
    fn check(path: &str, schema: &Value, loose: &mut Vec<String>) {
        let has = |key: &str| schema.get(key).is_some();
        match schema["type"].as_str() {
            Some("array") if !has("maxItems") => loose.push(format!("{path}[]")),
            Some("string") if !has("maxLength") && !has("enum") => loose.push(path.into()),
            Some("object") if has("additionalProperties") && !has("maxProperties") => {
                loose.push(format!("{path}{{}}"))
            }
            _ => {}
        }
        if has("items") {
            check(&format!("{path}[]"), &schema["items"], loose);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{path}.{name}"), property, loose);
        }
    }
    for kind in ["Tenant", "WorkerPool"] {
        let mut loose = Vec::new();
        for part in ["spec", "status"] {
            check(part, &schema(kind)["properties"][part], &mut loose);
        }
        assert_eq!(loose, [""; 0], "{kind}");
    }
}

#[test]
fn every_field_is_documented() {
    fn check(path: &str, schema: &Value, silent: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            check(&path, property, silent);
            check(&path, &property["items"], silent);
        }
    }
    for kind in ["Tenant", "WorkerPool"] {
        let mut silent = Vec::new();
        check("spec", &schema(kind)["properties"]["spec"], &mut silent);
        assert_eq!(silent, [""; 0], "{kind}");
    }
}

#[test]
fn the_audit_and_the_operator_read_one_pool_alike() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../chart/examples/workerpool-full.yaml"),
    )
    .unwrap();
    let pool: WorkerPool = serde_saphyr::from_str(&text).unwrap();
    let mut input = Input::new(Limits::default());
    input.add("pool.yaml", text.clone()).unwrap();
    let reading = read::cluster(&input, &ReadOptions::default()).unwrap();
    let read = reading.cluster.worker_pools.first().expect("the audit reads a pool");
    assert_eq!(Some(&*read.namespace), pool.metadata.namespace.as_deref());
    assert_eq!(Some(&*read.object.name), pool.metadata.name.as_deref());
    assert_eq!(read.tenant.as_deref(), pool.spec.tenant.as_deref());
    let endpoints: Vec<&str> = read.storage_endpoints.iter().map(|e| &**e).collect();
    assert_eq!(endpoints, pool.spec.storage.endpoints);
    assert!(!endpoints.is_empty() && read.tenant.is_some(), "the example has both");
    // What the types do not know would have been dropped in silence; nothing of the example may be.
    let again = serde_json::to_value(&pool).unwrap();
    let written: Value = serde_saphyr::from_str(&text).unwrap();
    assert!(contains(&again, &written), "{again} lacks something of {written}");
}

fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(key, value)| all.get(key).is_some_and(|other| contains(other, value)))
        }
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(a, b)| contains(a, b))
        }
        (a, b) => a == b || *a == json!(null),
    }
}
