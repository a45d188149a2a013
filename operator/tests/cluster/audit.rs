//! `mpegflow audit` of what the operator applied.

use crate::faults::definition;
use crate::support::{Shared, condition, turn};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_operator::crd::Dialect;
use mpegflow_operator::desired::Kind;
use mpegflow_policies::audit::{self, Request, intent};
use mpegflow_policies::profile::{Cni, Profile};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::truth::Truth;
use mpegflow_test_cluster::until;
use serde_json::{Value, json};

/// Everything that an audit reads of a cluster.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "v1", "Namespace"),
    ("", "v1", "Node"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "ServiceAccount"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("mpegflow.io", "v1alpha1", "WorkerPool"),
];

async fn read_cluster(shared: &Shared, kinds: &[(&str, &str, &str)]) -> mpegflow_policies::cluster::Cluster {
    let mut input = Input::new(Limits::default());
    for (group, version, kind) in kinds {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(shared.cluster.client(), &resource);
        let items: Vec<Value> = api
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|mut object| {
                object.types = Some(kube::core::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                object.metadata.managed_fields = None;
                serde_json::to_value(object).unwrap()
            })
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        input.add(&format!("cluster/{kind}"), list.to_string()).unwrap();
    }
    read::cluster(&input, &ReadOptions::default()).unwrap().cluster
}

fn prove(cluster: &mpegflow_policies::cluster::Cluster, cni: Cni) -> audit::Outcome {
    audit::run(&Request {
        cluster,
        profile: Profile::newest(cni),
        complete: true,
        intents: intent::worker_pools(cluster),
        pod_cidrs: None,
        baseline: None,
        today: jiff::civil::date(2026, 1, 1),
        flows: &[],
    })
    .unwrap()
}

/// Proved, and by what the operator made around the pods: without that the same cluster is not.
fn is_proved(cluster: &mpegflow_policies::cluster::Cluster, cni: Cni) {
    let outcome = prove(cluster, cni);
    let found: Vec<_> =
        outcome.findings.iter().map(|found| (found.id, &found.object, &found.reason)).collect();
    assert_eq!(
        outcome.proved,
        Truth::Yes,
        "{cni:?}: {}\n{:#?}\n{found:#?}",
        outcome.sentence,
        outcome.intents
    );
    assert!(outcome.intents[0].pods >= 2, "{:?}", outcome.intents);
    let mut without = cluster.clone();
    without.policies.clear();
    assert_eq!(prove(&without, cni).proved, Truth::No, "{cni:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_becomes_objects_that_the_audit_proves() {
    let turn = turn().await;
    let shared = turn.shared;
    let before = shared.write_count();
    shared.pool("proved", json!({ "scale": { "replicas": 2, "max": 5 } })).await;
    let pool = shared.until_reason("proved", "WorkersStarting").await;
    let pods = shared.objects(Kind::Deployment, "media");
    until("two pods", || async {
        let status = pods.get("proved-worker").await.ok()?;
        (status.data["status"]["replicas"] == 2).then_some(())
    })
    .await;

    let uid = pool.metadata.uid.clone().unwrap();
    let kinds = [
        Kind::NetworkPolicy,
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::PodDisruptionBudget,
        Kind::Deployment,
    ];
    for kind in kinds {
        let object =
            shared.get(kind, "media", "proved-worker").await.unwrap_or_else(|| panic!("no {kind:?}"));
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], json!(uid), "{kind:?}");
    }
    let pod = shared.get(Kind::Deployment, "media", "proved-worker").await.unwrap();
    let pod = &pod["spec"]["template"]["spec"];
    assert_eq!(pod["hostAliases"], json!([{ "ip": "10.96.7.7", "hostnames": ["mpegflow-broker"] }]));
    assert_eq!(pod["dnsPolicy"], "None");
    let status = pool.status.clone().unwrap();
    assert_eq!(status.selector.as_deref(), Some("mpegflow.io/pool=proved"));
    assert_eq!(condition(&pool, "Stalled").map(|c| c.0), Some(false));
    assert_eq!(condition(&pool, "Reconciling").map(|c| c.0), Some(true));

    // Where a node is, is a part of the proof: a service address must not be one of a node.
    shared.cluster.apply("apiVersion: v1\nkind: Node\nmetadata: {name: worker-1}\n").await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(shared.cluster.client());
    let addresses = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "10.200.0.2" }] } });
    nodes.patch_status("worker-1", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();

    // NetworkPolicy alone, on a CNI that does with it what the specification says.
    let cluster = read_cluster(shared, KINDS).await;
    is_proved(&cluster, Cni::Calico);
    // A CNI that nobody names may let traffic to a pod's own node pass; nothing else is open.
    let unnamed = prove(&cluster, Cni::Generic);
    assert_eq!(unnamed.proved, Truth::Unknown);
    assert!(unnamed.sentence.contains("a pod's own node"), "{}", unnamed.sentence);

    // And with Cilium's own kind beside it.
    shared
        .cluster
        .apply(&definition("cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies"))
        .await;
    until("Cilium's policy is there", || async {
        shared
            .pools("media")
            .get("proved")
            .await
            .ok()?
            .status?
            .policies
            .contains(&Dialect::Cilium)
            .then_some(())
    })
    .await;
    let kinds = [KINDS, &[("cilium.io", "v2", "CiliumNetworkPolicy")]].concat();
    is_proved(&read_cluster(shared, &kinds).await, Cni::Cilium);
    nodes.delete("worker-1", &DeleteParams::default()).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(shared.cluster.client());
    definitions.delete("ciliumnetworkpolicies.cilium.io", &DeleteParams::default()).await.unwrap();

    let writes = shared.writes_since(before);
    let of_pool: Vec<_> = writes.iter().filter(|w| w.namespace == "media").collect();
    assert!(of_pool.len() <= 15, "{} writes: {of_pool:#?}", of_pool.len());
    shared.delete_pool("proved").await;
}
