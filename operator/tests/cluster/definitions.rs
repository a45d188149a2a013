//! What the API server says to the definitions.

use crate::rules;
use crate::support::{Shared, turn};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_operator::crd::{Read, WorkerPool};
use mpegflow_test_cluster::until;
use serde_json::{Value, json};

fn api(shared: &Shared, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mpegflow.io", "v1alpha1", kind));
    match kind {
        "Tenant" => Api::all_with(shared.cluster.client(), &resource),
        _ => Api::namespaced_with(shared.cluster.client(), "default", &resource),
    }
}

async fn apply(shared: &Shared, object: &Value, dry_run: bool) -> Result<(), String> {
    let mut params = PatchParams::apply("rules").force();
    params.dry_run = dry_run;
    let name = object["metadata"]["name"].as_str().unwrap();
    let api = api(shared, object["kind"].as_str().unwrap());
    api.patch(name, &params, &Patch::Apply(object)).await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_enforces_every_rule_and_every_bound() {
    let turn = turn().await;
    let shared = turn.shared;
    for case in rules::cases() {
        if let Some(old) = &case.old {
            apply(shared, &rules::object(case.kind, old), false).await.unwrap();
        }
        let good = apply(shared, &rules::object(case.kind, &case.good), true).await;
        assert_eq!(good, Ok(()), "{} refuses {}", case.message, case.good);
        let bad = apply(shared, &rules::object(case.kind, &case.bad), true).await;
        assert!(
            bad.as_ref().is_err_and(|e| e.contains(case.message)),
            "{} {}: {bad:?}",
            case.message,
            case.bad
        );
        if case.old.is_some() {
            let api = api(shared, case.kind);
            api.delete("it", &DeleteParams::default()).await.unwrap();
            until("it is gone", || async { api.get_opt("it").await.ok()?.is_none().then_some(()) }).await;
        }
    }
    for (kind, change) in rules::out_of_bounds() {
        let answer = apply(shared, &rules::object(kind, &change), true).await;
        assert!(answer.is_err(), "{kind} {change} is let through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_server_takes_the_operator_reads() {
    let turn = turn().await;
    let api = api(turn.shared, "WorkerPool");
    for (place, value) in rules::taken() {
        let mut object = rules::object("WorkerPool", &json!({ "spec": { "scale": {} } }));
        let (parent, field) = place.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value.clone();
        let mut params = PatchParams::apply("rules").force();
        params.dry_run = true;
        let stored = match api.patch("it", &params, &Patch::Apply(&object)).await {
            Ok(stored) => serde_json::to_value(stored).unwrap(),
            Err(error) => panic!("{place}: {value} is refused, and needs no test: {error}"),
        };
        let read: Read<WorkerPool> = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(read.unread(), None, "{place}: {value} is stored as {stored}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_every_field_is_taken_as_it_is() {
    let turn = turn().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../chart/examples/workerpool-full.yaml");
    let mut written: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    written["metadata"]["namespace"] = json!("default");
    let mut params = PatchParams::apply("rules").force();
    params.dry_run = true;
    // A field that the definition does not know would be pruned in silence.
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let answer =
        api(turn.shared, "WorkerPool").patch("acme-cpu", &params, &Patch::Apply(&written)).await.unwrap();
    assert_eq!(answer.data["spec"]["affinity"], written["spec"]["affinity"]);
    assert_eq!(answer.data["spec"]["storage"], written["spec"]["storage"]);
}
