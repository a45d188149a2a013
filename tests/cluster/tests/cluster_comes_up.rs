//! The control plane that other tests stand on is a real one, and nothing of it stays behind.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use mpegflow_test_cluster::{Cluster, documents, until};
use std::path::PathBuf;

const DEPLOYMENT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: media}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: media}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: example.com/i}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody, namespace: media}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_runs_controllers_checks_rights_records_writes_and_leaves_nothing_behind() {
    let cluster = Cluster::start(Default::default()).await;
    let client = cluster.client();
    cluster.apply(DEPLOYMENT).await;

    let pods: Api<Pod> = Api::namespaced(client.clone(), "media");
    let list = until("two pods of the deployment", || async {
        let list = pods.list(&ListParams::default().labels("app=web")).await.ok()?;
        (list.items.len() == 2).then_some(list.items)
    })
    .await;
    assert!(list.iter().all(|pod| pod.metadata.owner_references.is_some()), "made by a controller");

    let nobody = cluster.client_of("media", "nobody").await;
    let refused = Api::<ConfigMap>::namespaced(nobody, "media").list(&ListParams::default()).await;
    assert!(refused.unwrap_err().to_string().contains("is forbidden"), "RBAC is in force");

    let made = cluster.writes().into_iter().filter(|w| w.resource == "deployments" && w.user == "admin");
    let made: Vec<_> = made.filter(|w| w.verb == "patch" && w.name == "web").collect();
    assert_eq!(made.len(), 1, "the one that this test made: {made:?}");

    let broken =
        documents("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x, namespace: media}\nspec: {}\n");
    assert!(cluster.try_apply(&broken[0]).await.is_err(), "objects are validated");

    cluster.restart_api_server().await;
    Api::<Deployment>::namespaced(client.clone(), "media")
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    let sets: Api<ReplicaSet> = Api::namespaced(client, "media");
    until("garbage is collected", || async {
        sets.list(&ListParams::default()).await.is_ok_and(|list| list.items.is_empty()).then_some(())
    })
    .await;

    let dir = cluster.dir().to_owned();
    assert!(running_in(&dir).len() >= 3, "etcd, API server, controller manager");
    drop(cluster);
    assert_eq!(running_in(&dir), [] as [PathBuf; 0]);
    assert!(!dir.exists());
}

/// Programs with the folder in their command lines.
fn running_in(dir: &std::path::Path) -> Vec<PathBuf> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|entry| entry.path().join("cmdline"))
        .filter(|path| {
            std::fs::read(path).is_ok_and(|line| line.windows(needle.len()).any(|part| part == needle))
        })
        .collect()
}
