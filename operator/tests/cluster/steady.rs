//! Who has nothing to do writes nothing.

use crate::support::{Shared, turn};
use serde_json::json;
use std::time::Duration;

/// Waits until the operator has not written for five seconds.
async fn quiet(shared: &Shared) {
    let mut before = shared.write_count();
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if shared.writes_since(before).is_empty() {
            return;
        }
        before = shared.write_count();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_cluster_and_a_restart_see_no_write() {
    let turn = turn().await;
    let shared = turn.shared;
    // Values that the API server writes in another way than they came.
    shared
        .pool("steady-a", json!({ "resources": { "cpu": "0.5", "memory": "1536Mi", "scratch": "2048Mi" } }))
        .await;
    shared.pool("steady-b", json!({ "scale": { "replicas": 2 }, "affinity": { "nodeAffinity": {} } })).await;
    shared.until_reason("steady-a", "ScaledToZero").await;
    shared.until_reason("steady-b", "WorkersStarting").await;
    quiet(shared).await;

    let before = shared.write_count();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(shared.writes_since(before), [], "in half a steady minute");

    let leases =
        |count: usize| shared.cluster.writes_after(count).iter().filter(|w| w.resource == "leases").count();
    let told = shared.operator_log().len();
    shared.stop_operator();
    let before = shared.write_count();
    shared.start_operator().await;
    mpegflow_test_cluster::until("it leads", || async { (leases(before) >= 2).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shared.writes_since(before), [], "after a restart");
    // It is awake, and this is not silence of another kind.
    shared.patch_pool("steady-a", json!({ "spec": { "drainGraceSeconds": 31 } })).await;
    mpegflow_test_cluster::until("a write", || async {
        (!shared.writes_since(before).is_empty()).then_some(())
    })
    .await;
    for name in ["steady-a", "steady-b"] {
        shared.delete_pool(name).await;
    }
    let log = shared.operator_log().split_off(told);
    assert!(
        log.contains("leading") && !log.contains("forbidden"),
        "the rights of rbac.yaml are enough: {log}"
    );
}
