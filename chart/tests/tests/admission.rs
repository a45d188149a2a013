//! What the chart's admission policy refuses in the operator's worker namespaces, said by a real API server to users who hold every
//! right that RBAC can give.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use mpegflow_chart_tests::{Helm, values_file};
use mpegflow_test_cluster::{Cluster, Options, until};
use serde_json::{Value, json};

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Namespace
metadata: {name: media, labels: {mpegflow.io/workers: 'true'}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: mpegflow-operator, namespace: mpegflow}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: mpegflow}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: transcode-worker, namespace: media}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everything}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: ServiceAccount, name: stranger, namespace: mpegflow}
- {kind: ServiceAccount, name: mpegflow-operator, namespace: mpegflow}
";

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "transcode-worker" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "mpegflow.io/pool": "transcode" } },
            "template": {
                "metadata": { "labels": { "mpegflow.io/pool": "transcode" } },
                "spec": { "serviceAccountName": "transcode-worker", "containers": [{ "name": "worker", "image": "x" }] },
            },
        },
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "stranger", "labels": { "mpegflow.io/pool": "transcode" } },
        "spec": { "serviceAccountName": "transcode-worker", "containers": [{ "name": "c", "image": "x" }] },
    })
}

/// A kind of KEDA's, without its schema.
fn definition(kind: &str, plural: &str) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.keda.sh") },
        "spec": {
            "group": "keda.sh", "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
    .to_string()
}

/// A canary as the operator makes it, with a change.
fn canary(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "mpegflow.io/pool": "transcode", "mpegflow.io/canary": "0123456789" },
            "ownerReferences": [{ "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool", "name": "transcode", "uid": "u" }],
        },
        "spec": {
            "serviceAccountName": "transcode-worker", "automountServiceAccountToken": false, "nodeName": "n1",
            "restartPolicy": "Never", "activeDeadlineSeconds": 120,
            "containers": [{
                "name": "canary", "image": "x", "args": ["--canary", "/dev/termination-log"],
                "env": [{ "name": "NODE_ADDRESS", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }],
            }],
            "volumes": [{ "name": "join", "configMap": { "name": "transcode-worker" } }],
        },
    });
    change(&mut pod);
    pod
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "open" },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] },
    })
}

async fn create(client: &Client, object: Value) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let version = kube::core::GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let resource = kube::core::ApiResource::from_gvk(&version);
    Api::namespaced_with(client.clone(), "media", &resource).create(&PostParams::default(), &object).await
}

fn refused<T>(what: &str, words: &str, answer: kube::Result<T>) {
    match answer {
        Ok(_) => panic!("{what} was not refused"),
        Err(e) => assert!(
            words.split('|').any(|words| e.to_string().contains(words)),
            "{what}: {words:?} is not in {e}"
        ),
    }
}

async fn token(client: &Client) -> kube::Result<TokenRequest> {
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec!["mpegflow".into()], ..Default::default() },
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "media");
    accounts.create_token_request("transcode-worker", &PostParams::default(), &request).await
}

/// Somebody else, as the administrator may be.
async fn impersonating(cluster: &Cluster, user: &str, groups: &[&str]) -> Client {
    let file = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    config.auth_info.impersonate = Some(user.into());
    config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_worker_namespace_pods_tokens_and_policies_are_the_operators_alone() {
    nobody_else_makes_anything(true).await;
}

/// As Kubernetes does by itself, `--use-service-account-credentials=false`: who makes a pod does not say for whom.
#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_share_one_account_make_no_pods_for_strangers() {
    nobody_else_makes_anything(false).await;
}

/// What makes pods of a template with the labels and the account of a pool's workers, and KEDA's kinds.
fn makers() -> Vec<Value> {
    let labels = json!({ "mpegflow.io/pool": "transcode" });
    let template = |restart: &str| {
        json!({
            "metadata": { "labels": labels },
            "spec": {
                "serviceAccountName": "transcode-worker", "restartPolicy": restart, "containers": [{ "name": "c", "image": "x" }],
            },
        })
    };
    let object = |version: &str, kind: &str, spec: Value| {
        let name = format!("stranger-{}", kind.to_lowercase());
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec })
    };
    let always = template("Always");
    let selector = json!({ "matchLabels": labels });
    let job = json!({ "template": template("Never") });
    let trigger = json!({ "type": "redis", "metadata": { "passwordFromEnv": "PASSWORD" } });
    vec![
        object("batch/v1", "Job", job.clone()),
        object("batch/v1", "CronJob", json!({ "schedule": "* * * * *", "jobTemplate": { "spec": job } })),
        object("apps/v1", "ReplicaSet", json!({ "selector": selector, "template": always })),
        object("apps/v1", "DaemonSet", json!({ "selector": selector, "template": always })),
        object(
            "apps/v1",
            "StatefulSet",
            json!({ "serviceName": "s", "selector": selector, "template": always }),
        ),
        object("v1", "ReplicationController", json!({ "selector": labels, "template": always })),
        object(
            "keda.sh/v1alpha1",
            "ScaledObject",
            json!({ "scaleTargetRef": { "name": "x" }, "triggers": [trigger] }),
        ),
        object("keda.sh/v1alpha1", "ScaledJob", json!({ "jobTargetRef": job, "triggers": [trigger] })),
        object("keda.sh/v1alpha1", "TriggerAuthentication", json!({ "secretTargetRef": [] })),
    ]
}

async fn nobody_else_makes_anything(controller_accounts: bool) {
    let cluster = Cluster::start(Options { controller_accounts, ..Options::default() }).await;
    for (kind, plural) in [
        ("ScaledObject", "scaledobjects"),
        ("ScaledJob", "scaledjobs"),
        ("TriggerAuthentication", "triggerauthentications"),
    ] {
        cluster.apply(&definition(kind, plural)).await;
        let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "keda.sh", "v1alpha1", kind,
        ));
        let api: Api<DynamicObject> = Api::all_with(cluster.client(), &resource);
        until("KEDA's kinds are served", || async { api.list(&ListParams::default()).await.ok() }).await;
    }
    cluster.apply(NAMESPACES).await;
    let rendered = Helm::V4.install(&values_file("operator"));
    let mut applied = 0;
    for object in &rendered.objects {
        if object["kind"].as_str().unwrap().starts_with("ValidatingAdmissionPolicy") {
            let made = cluster.try_apply(&serde_json::from_value(object.clone()).unwrap()).await;
            made.unwrap_or_else(|e| panic!("{}: {e}", object["kind"]));
            applied += 1;
        }
    }
    assert_eq!(applied, 4);
    let stranger = cluster.client_of("mpegflow", "stranger").await;
    let operator = cluster.client_of("mpegflow", "mpegflow-operator").await;
    // The API server takes a moment to enforce a new policy.
    until("the policy is enforced", || async {
        let mut trial = pod();
        trial["metadata"]["name"] = json!(format!("trial-{}", std::process::id()));
        match create(&stranger, trial).await {
            Err(_) => Some(()),
            Ok(made) => {
                let pods: Api<Pod> = Api::namespaced(cluster.client(), "media");
                let now = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
                pods.delete(&made.metadata.name.unwrap(), &now).await.unwrap();
                None
            }
        }
    })
    .await;

    refused("a pod", "made from WorkerPools alone", create(&stranger, pod()).await);
    refused("a pod, even by the operator", "made from WorkerPools alone", create(&operator, pod()).await);
    refused("a Deployment", "made from WorkerPools alone", create(&stranger, deployment()).await);
    refused("a policy", "policies of this namespace", create(&stranger, policy()).await);
    for maker in makers() {
        let kind = maker["kind"].as_str().unwrap().to_owned();
        refused(&kind, "from WorkerPools alone|of WorkerPools alone", create(&stranger, maker).await);
    }
    // The operator makes none of them but scalers.
    for maker in makers().into_iter().filter(|maker| maker["kind"] != "ScaledObject") {
        let kind = maker["kind"].as_str().unwrap().to_owned();
        refused(&kind, "from WorkerPools alone|of WorkerPools alone", create(&operator, maker).await);
    }
    refused("a token", "go to kubelets alone", token(&stranger).await);
    refused("a token, even by the operator", "go to kubelets alone", token(&operator).await);

    // What the operator makes becomes a pod, and that pod stays as it is.
    create(&operator, deployment()).await.unwrap();
    create(&operator, policy()).await.unwrap();
    let scaled = makers().into_iter().find(|maker| maker["kind"] == "ScaledObject").unwrap();
    let scaled_object = create(&operator, scaled).await.unwrap();
    // KEDA and people mark it; what it says is the operator's.
    let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
        "keda.sh",
        "v1alpha1",
        "ScaledObject",
    ));
    let scalers: Api<DynamicObject> = Api::namespaced_with(stranger.clone(), "media", &resource);
    let name = scaled_object.metadata.name.unwrap();
    let paused = json!({ "metadata": { "annotations": { "autoscaling.keda.sh/paused": "true" } } });
    scalers.patch(&name, &PatchParams::default(), &Patch::Merge(&paused)).await.expect("a pause");
    let elsewhere = json!({ "spec": { "scaleTargetRef": { "name": "y" } } });
    let turned = scalers.patch(&name, &PatchParams::default(), &Patch::Merge(&elsewhere)).await;
    refused("another target", "scalers of this namespace", turned);
    let pods: Api<Pod> = Api::namespaced(stranger.clone(), "media");
    let name = until("the controllers make a pod", || async {
        let list = pods.list(&ListParams::default().labels("mpegflow.io/pool=transcode")).await.unwrap();
        list.items.into_iter().find_map(|pod| pod.metadata.name)
    })
    .await;
    let relabel = json!({ "metadata": { "labels": { "mpegflow.io/pool": "another" } } });
    let merged = pods.patch(&name, &PatchParams::default(), &Patch::Merge(&relabel)).await;
    refused("another label", "labels of a worker stay", merged);
    let annotate =
        json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "1" } } });
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&annotate))
        .await
        .expect("annotations may change");
    let image = json!({ "spec": { "containers": [{ "name": "worker", "image": "evil.example.com/x" }] } });
    let swapped = pods.patch(&name, &PatchParams::default(), &Patch::Strategic(&image)).await;
    refused("another image", "the image of a worker stays", swapped);
    let debug = json!({ "spec": { "ephemeralContainers": [{ "name": "d", "image": "x" }] } });
    let debugged =
        pods.patch_ephemeral_containers(&name, &PatchParams::default(), &Patch::Strategic(&debug)).await;
    refused("an ephemeral container", "nobody enters a worker", debugged);
    let exec =
        hyper::Request::post(format!("/api/v1/namespaces/media/pods/{name}/exec?command=sh&stdout=true"));
    let entered = stranger.request_text(exec.body(Vec::new()).unwrap()).await;
    refused("exec", "nobody enters a worker", entered);
    let scaled = json!({ "spec": { "template": { "spec": { "hostNetwork": true } } } });
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(stranger.clone(), "media");
    let patched =
        deployments.patch("transcode-worker", &PatchParams::default(), &Patch::Merge(&scaled)).await;
    refused("another template", "made from WorkerPools alone", patched);
    let policies: Api<k8s_openapi::api::networking::v1::NetworkPolicy> =
        Api::namespaced(stranger.clone(), "media");
    refused(
        "the end of a policy",
        "policies of this namespace",
        policies.delete("open", &Default::default()).await,
    );

    // Controllers that act for a stranger, or whose account a stranger has got: a pod of another owner than a pool's own, or of none.
    let controllers = match controller_accounts {
        true => "system:serviceaccount:kube-system:replicaset-controller",
        false => "system:kube-controller-manager",
    };
    let controllers = impersonating(&cluster, controllers, &["system:masters"]).await;
    let owned = |kind: &str, name: &str| {
        let mut pod = pod();
        let api = if kind == "ReplicaSet" { "apps/v1" } else { "batch/v1" };
        pod["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": api, "kind": kind, "name": name, "uid": "u" }]);
        pod
    };
    for (what, pod) in [
        ("a pod of a Job", owned("Job", "transcode-worker-1")),
        ("a pod of another ReplicaSet", owned("ReplicaSet", "stranger-1")),
        ("a pod of nobody", pod()),
    ] {
        refused(what, "made from WorkerPools alone", create(&controllers, pod).await);
    }
    let orphan = makers().into_iter().find(|maker| maker["kind"] == "ReplicaSet").unwrap();
    refused("a ReplicaSet of nobody", "of WorkerPools alone", create(&controllers, orphan).await);

    // The operator makes canaries, which can be nothing else; nobody else makes even those.
    create(&operator, canary("good", |_| {})).await.unwrap();
    refused(
        "a canary of others",
        "made from WorkerPools alone",
        create(&stranger, canary("theirs", |_| {})).await,
    );
    let token = json!({ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } });
    let set = |path: &'static str, value: Value| {
        move |pod: &mut Value| {
            let (parent, last) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[last] = value;
        }
    };
    type Change = Box<dyn FnOnce(&mut Value)>;
    let changes: Vec<(&str, Change)> = vec![
        (
            "no label of a canary",
            Box::new(set("/metadata/labels", json!({ "mpegflow.io/pool": "transcode" }))),
        ),
        ("no owner", Box::new(set("/metadata/ownerReferences", json!([])))),
        ("another pool's account", Box::new(set("/spec/serviceAccountName", json!("other-worker")))),
        ("a token", Box::new(set("/spec/automountServiceAccountToken", json!(true)))),
        ("a token of its own", Box::new(set("/spec/volumes", json!([token])))),
        (
            "a Secret",
            Box::new(set("/spec/volumes", json!([{ "name": "s", "secret": { "secretName": "s" } }]))),
        ),
        (
            "a folder of the node",
            Box::new(set("/spec/volumes", json!([{ "name": "h", "hostPath": { "path": "/" } }]))),
        ),
        ("the node's network", Box::new(set("/spec/hostNetwork", json!(true)))),
        ("the node's processes", Box::new(set("/spec/hostPID", json!(true)))),
        ("another program", Box::new(set("/spec/containers/0/command", json!(["sh"])))),
        ("a worker", Box::new(set("/spec/containers/0/args", json!(["--join", "x"])))),
        (
            "a second container",
            Box::new(|pod| {
                let more = json!({ "name": "more", "image": "x", "args": ["--canary"] });
                pod["spec"]["containers"].as_array_mut().unwrap().push(more);
            }),
        ),
        (
            "a container before it",
            Box::new(set("/spec/initContainers", json!([{ "name": "i", "image": "x" }]))),
        ),
        (
            "a Secret's value",
            Box::new(|pod| {
                let value = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
                pod["spec"]["containers"][0]["env"][0] = json!({ "name": "S", "valueFrom": value });
            }),
        ),
        (
            "for ever",
            Box::new(|pod| drop(pod["spec"].as_object_mut().unwrap().remove("activeDeadlineSeconds"))),
        ),
        ("again and again", Box::new(set("/spec/restartPolicy", json!("Always")))),
    ];
    create(
        &stranger,
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "other-worker" } }),
    )
    .await
    .unwrap();
    for (what, change) in changes {
        refused(what, "made from WorkerPools alone", create(&operator, canary("bad", change)).await);
    }
    // What it says, nobody says for it; what controllers write beside that, they may.
    let says = json!({ "status": { "phase": "Succeeded", "containerStatuses": [{
        "name": "canary", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 0, "message": "all is well" } },
    }] } });
    let said = pods.patch_status("good", &PatchParams::default(), &Patch::Merge(&says)).await;
    refused("a word of others", "comes from kubelets alone", said);
    let placed = json!({ "status": { "conditions": [{ "type": "DisruptionTarget", "status": "True" }] } });
    pods.patch_status("good", &PatchParams::default(), &Patch::Merge(&placed)).await.expect("another status");
    let node = impersonating(&cluster, "system:node:n1", &["system:nodes", "system:masters"]).await;
    let of_node: Api<Pod> = Api::namespaced(node, "media");
    of_node
        .patch_status("good", &PatchParams::default(), &Patch::Merge(&says))
        .await
        .expect("its kubelet's word");

    // And no pod at all elsewhere.
    let mut free = pod();
    free["spec"]["serviceAccountName"] = json!("stranger");
    let elsewhere: Api<Pod> = Api::namespaced(operator, "mpegflow");
    let made = elsewhere.create(&PostParams::default(), &serde_json::from_value(free).unwrap()).await;
    refused("a pod of the operator elsewhere", "only in namespaces with the label", made);

    // Elsewhere nothing is refused to others.
    let elsewhere: Api<Pod> = Api::namespaced(stranger, "mpegflow");
    let mut free = pod();
    free["spec"]["serviceAccountName"] = json!("stranger");
    elsewhere.create(&PostParams::default(), &serde_json::from_value(free).unwrap()).await.unwrap();

    // A namespace can still be deleted with all that is in it.
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    namespaces.delete("media", &Default::default()).await.unwrap();
    until("what was in it goes", || async {
        let left: Api<k8s_openapi::api::networking::v1::NetworkPolicy> =
            Api::namespaced(cluster.client(), "media");
        left.get_opt("open").await.unwrap().is_none().then_some(())
    })
    .await;
}
