//! Scaling and the end of a pool.

use crate::support::{condition, turn};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mpegflow_operator::desired::Kind;
use mpegflow_test_cluster::until;
use serde_json::json;

async fn pods(api: &Api<Pod>, pool: &str) -> Vec<Pod> {
    let list = api.list(&ListParams::default().labels(&format!("mpegflow.io/pool={pool}"))).await.unwrap();
    list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

async fn until_pods(api: &Api<Pod>, pool: &str, count: usize) -> Vec<Pod> {
    until(&format!("{count} pods of {pool}"), || async {
        let pods = pods(api, pool).await;
        (pods.len() == count).then_some(pods)
    })
    .await
}

/// What a kubelet would say.
async fn start(api: &Api<Pod>, pod: &Pod) {
    let status = json!({ "status": { "phase": "Running", "conditions": [
        { "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" },
    ] } });
    let name = pod.metadata.name.as_deref().unwrap();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_follows_its_scale_but_keeps_workers_that_have_started() {
    let turn = turn().await;
    let shared = turn.shared;
    let api: Api<Pod> = Api::namespaced(shared.cluster.client(), "media");
    shared.pool("scales", json!({ "scale": { "max": 4 } })).await;
    shared.until_reason("scales", "ScaledToZero").await;

    // As KEDA and `kubectl scale` do it.
    let scale = |count: i32| json!({ "spec": { "replicas": count } });
    let pools = shared.pools("media");
    let set = async |count| {
        pools.patch_scale("scales", &PatchParams::default(), &Patch::Merge(scale(count))).await.unwrap();
    };
    set(9).await;
    until_pods(&api, "scales", 4).await;
    set(3).await;
    let three = until_pods(&api, "scales", 3).await;

    // Two of them start; whatever the scaler says, they stay.
    start(&api, &three[0]).await;
    start(&api, &three[1]).await;
    until("the two are ready", || async {
        (pools.get("scales").await.ok()?.status?.ready_replicas == 2).then_some(())
    })
    .await;
    set(0).await;
    let two = until_pods(&api, "scales", 2).await;
    let pool = until("the pool says so", || async {
        let pool = pools.get("scales").await.ok()?;
        let is_held = condition(&pool, "ScaleInHeld").is_some_and(|held| held.0);
        (is_held && pool.status.as_ref()?.replicas == 2).then_some(pool)
    })
    .await;
    let mut kept: Vec<_> = two.iter().map(|pod| pod.metadata.uid.clone()).collect();
    let mut started: Vec<_> = three[..2].iter().map(|pod| pod.metadata.uid.clone()).collect();
    kept.sort();
    started.sort();
    assert_eq!(kept, started, "not the ones that had started");
    let status = pool.status.clone().unwrap();
    assert_eq!((status.replicas, status.last_scale.unwrap().to), (2, 2));
    assert_eq!(
        pools.get_scale("scales").await.unwrap().status.unwrap().replicas,
        2,
        "/scale shows what there is"
    );

    // Somebody lets one drain: it is not made anew.
    for pod in &two {
        api.delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    }
    until_pods(&api, "scales", 0).await;
    shared.until_reason("scales", "ScaledToZero").await;
    shared.delete_pool("scales").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_stay_until_the_last_pod_of_a_deleted_pool_has_gone() {
    let turn = turn().await;
    let shared = turn.shared;
    let api: Api<Pod> = Api::namespaced(shared.cluster.client(), "media");
    shared.pool("ends", json!({ "scale": { "replicas": 1 } })).await;
    let pod = until_pods(&api, "ends", 1).await.remove(0);
    let name = pod.metadata.name.clone().unwrap();
    // A pod that takes its time to go.
    let hold = json!({ "metadata": { "finalizers": ["example.com/busy"] } });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(hold)).await.unwrap();

    let pools = shared.pools("media");
    pools.delete("ends", &DeleteParams::default()).await.unwrap();
    until("the pod is told to go", || async {
        api.get(&name).await.ok()?.metadata.deletion_timestamp.is_some().then_some(())
    })
    .await;
    shared.until_reason("ends", "Draining").await;
    assert!(shared.get(Kind::NetworkPolicy, "media", "ends-worker").await.is_some());
    assert!(shared.get(Kind::Deployment, "media", "ends-worker").await.is_none());

    let done = json!({ "metadata": { "finalizers": null } });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    until("the pool is gone", || async { pools.get_opt("ends").await.ok()?.is_none().then_some(()) }).await;
    until("its objects are collected", || async {
        let policy = shared.get(Kind::NetworkPolicy, "media", "ends-worker").await;
        let account = shared.get(Kind::ServiceAccount, "media", "ends-worker").await;
        (policy.is_none() && account.is_none()).then_some(())
    })
    .await;
}
