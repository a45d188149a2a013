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

/// What `kubectl get` shows: names of the columns, and the cells of one row.
async fn table(shared: &Shared, path: &str) -> (Vec<String>, Vec<Value>) {
    let request = hyper::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let text = shared.cluster.client().request_text(request).await.unwrap();
    let table: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(table["kind"], "Table", "{table}");
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    // The others are for `-o wide`.
    let shown: Vec<bool> = columns.clone().map(|column| column["priority"] == 0).collect();
    let names = columns.map(|column| column["name"].as_str().unwrap().to_owned());
    let cells = table["rows"][0]["cells"].as_array().unwrap().iter().cloned();
    let of = |n: usize| shown[n];
    (
        names.enumerate().filter(|(n, _)| of(*n)).map(|(_, name)| name).collect(),
        cells.enumerate().filter(|(n, _)| of(*n)).map(|(_, cell)| cell).collect(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_whether_a_pool_is_well_who_works_and_why_tasks_wait() {
    let turn = turn().await;
    let shared = turn.shared;
    shared.pool("shown", json!({ "scale": { "replicas": 2 } })).await;
    let pools = shared.pools("media");
    until("its pods are there", || async {
        (pools.get("shown").await.ok()?.status?.replicas == 2).then_some(())
    })
    .await;
    // What the broker would have said.
    let told = json!({ "status": { "busy": 1, "idle": 1, "queued": 7, "waiting": "no_worker" } });
    pools.patch_status("shown", &PatchParams::default(), &Patch::Merge(told)).await.unwrap();
    let (columns, cells) =
        table(shared, "/apis/mpegflow.io/v1alpha1/namespaces/media/workerpools/shown").await;
    let expected = [
        ("Name", json!("shown")),
        ("Ready", json!("False")),
        ("Isolation", json!("Unknown")),
        ("Class", json!("cpu")),
        ("Tenant", Value::Null),
        ("Desired", json!(2)),
        ("Current", json!(2)),
        ("Running", json!(0)),
        ("Busy", json!(1)),
        ("Queued", json!(7)),
        ("Waiting", json!("no_worker")),
        ("Reason", json!("WorkersStarting")),
    ];
    let shown: Vec<(&str, Value)> = columns.iter().map(String::as_str).zip(cells).collect();
    assert_eq!(shown.split_last().map(|(age, rest)| (age.0, rest)), Some(("Age", &expected[..])));
    shared.delete_pool("shown").await;
}
