//! A real API server takes what the chart renders, in a namespace that enforces the *restricted* standard, and the first start
//! makes its Secrets there with the rights of its own account and no others.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery;
use mpegflow_chart_tests::{Helm, chart_folder, images, pods, values_file};
use mpegflow_test_cluster::{Cluster, Options, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: mpegflow
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: v1.35
";

/// Kinds of other projects, whose definitions a plain API server does not have.
fn is_foreign(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().unwrap().split('/').next().unwrap();
    ["cilium.io", "projectcalico.org", "monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh"]
        .contains(&group)
}

async fn dry_run(cluster: &Cluster, object: &Value) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let version = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let (resource, capabilities) = discovery::pinned_kind(&cluster.client(), &version).await.unwrap();
    let namespace = object.metadata.namespace.as_deref().unwrap_or("mpegflow");
    let api: Api<DynamicObject> = match capabilities.scope {
        discovery::Scope::Namespaced => Api::namespaced_with(cluster.client(), namespace, &resource),
        discovery::Scope::Cluster => Api::all_with(cluster.client(), &resource),
    };
    let mut how = PatchParams::apply("helm").force();
    how.dry_run = true;
    // Strict: a field that the server does not know is an error, as with helm 4.
    how.field_validation = Some(kube::api::ValidationDirective::Strict);
    api.patch(object.metadata.name.as_deref().unwrap(), &how, &Patch::Apply(&object)).await
}

/// Tenant and WorkerPool.
async fn install_definitions(cluster: &Cluster) {
    for file in ["tenants.yaml", "workerpools.yaml"] {
        let definition = chart_folder().join("mpegflow-crds/templates").join(file);
        cluster.apply(&std::fs::read_to_string(definition).unwrap()).await;
    }
}

/// What the tests render and what the recipes are: a name, and a file of values.
fn all_values() -> Vec<(String, tempfile::NamedTempFile)> {
    let examples = chart_folder().join("examples");
    let read = |path: PathBuf| -> Value {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_saphyr::from_str(text.rsplit("\n---\n").next().unwrap()).unwrap()
    };
    let mut all: Vec<(String, Value)> = Vec::new();
    for name in ["evaluation", "production", "dedicated", "operator"] {
        all.push((name.into(), read(values_file(name))));
    }
    for name in ["clouds/aws", "clouds/gcp", "clouds/azure", "hybrid-gpu/values"] {
        all.push((name.into(), read(examples.join(format!("{name}.yaml")))));
    }
    let argo = read(examples.join("argocd/application.yaml"));
    all.push(("argocd".into(), argo["spec"]["sources"][1]["helm"]["valuesObject"].clone()));
    all.push(("flux".into(), read(examples.join("flux/release.yaml"))["spec"]["values"].clone()));
    let written = all.into_iter().map(|(name, mut values)| {
        // Of the block that Services have here.
        values["broker"]["service"]["clusterIP"] = json!("10.96.40.10");
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), values.to_string()).unwrap();
        (name, file)
    });
    written.collect()
}

/// Runs `mpegflow first-start` with the arguments that the chart gives it, but for the database: there is none here, so it is a
/// file in its own folder.
fn first_start(kubeconfig: &PathBuf, args: &[String], data: &std::path::Path) -> Output {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join("mpegflow");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    let args = args.iter().filter(|arg| !arg.starts_with("--database-") && !arg.starts_with("--data="));
    Command::new(program)
        .args(args)
        .arg(format!("--data={}", data.display()))
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_admits_the_chart_and_the_first_start_makes_its_secrets_once() {
    let cluster = Cluster::start(Options::default()).await;
    cluster.apply(NAMESPACE).await;
    install_definitions(&cluster).await;

    for (name, values) in all_values() {
        let rendered = Helm::V4.install(values.path());
        // A pod is refused while its account is not there, and anything while its namespace is not, also in a dry run.
        for object in
            rendered.objects.iter().filter(|o| o["kind"] == "ServiceAccount" || o["kind"] == "Namespace")
        {
            cluster.try_apply(&serde_json::from_value(object.clone()).unwrap()).await.unwrap();
        }
        for object in rendered.objects.iter().filter(|object| !is_foreign(object)) {
            let what = format!("{name}: {} {}", object["kind"], object["metadata"]["name"]);
            dry_run(&cluster, object).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        // A Deployment is admitted whatever its pods are like; a pod is not.
        for (whose, mut pod) in pods(&rendered.objects) {
            // The classes of pods are another admission's; here there are none.
            for key in ["priorityClassName", "runtimeClassName"] {
                pod.as_object_mut().unwrap().remove(key);
            }
            if whose.starts_with("StatefulSet") {
                // Its controller adds the volume of its claim.
                let claim = json!({ "name": "data", "persistentVolumeClaim": { "claimName": "data" } });
                pod["volumes"].as_array_mut().unwrap().push(claim);
            }
            let mut object =
                json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": pod });
            dry_run(&cluster, &object).await.unwrap_or_else(|e| panic!("{name}: {whose}: {e}"));
            object["spec"]["securityContext"]["seccompProfile"] = json!({ "type": "Unconfined" });
            let refused = dry_run(&cluster, &object).await.unwrap_err().to_string();
            assert!(refused.contains("PodSecurity"), "{name}: {whose}, softened: {refused}");
        }
    }

    // The account, its Role and its Role's binding as they are rendered, and nothing of the administrator's.
    let rendered = Helm::V4.install(&values_file("evaluation"));
    for object in &rendered.objects {
        let is_its = object["metadata"]["name"] == "mpegflow-first-start";
        if is_its && ["ServiceAccount", "Role", "RoleBinding"].contains(&object["kind"].as_str().unwrap()) {
            cluster.try_apply(&serde_json::from_value(object.clone()).unwrap()).await.unwrap();
        }
    }
    let kubeconfig = cluster.kubeconfig_of("mpegflow", "mpegflow-first-start").await;
    let pods = pods(&rendered.objects);
    let job = &pods.iter().find(|(whose, _)| whose.starts_with("Job mpegflow-first-start")).unwrap().1;
    let args = images(job).remove(0).1;

    let folders: Vec<tempfile::TempDir> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "mpegflow");
    let ran = first_start(&kubeconfig, &args, folders[0].path());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let data = |secret: &Secret, key: &str| secret.data.as_ref().unwrap()[key].0.clone();
    let identity = secrets.get("mpegflow-identity").await.unwrap();
    let (ca, key) = (data(&identity, "ca.pem"), data(&identity, "capability.key"));
    assert!(
        String::from_utf8(ca.clone()).unwrap().starts_with("-----BEGIN CERTIFICATE-----") && key.len() == 32
    );
    let join: Value =
        serde_json::from_slice(&data(&secrets.get("mpegflow-join-default").await.unwrap(), "join.json"))
            .unwrap();
    assert_eq!(join["broker"], "mpegflow-broker:8443");
    assert_eq!(join["ca"].as_str().unwrap().as_bytes(), ca, "workers trust the broker's own authority");
    let first_key = data(&secrets.get("mpegflow-api-key").await.unwrap(), "api-key");

    // Again: nothing changes, not even the version of an object.
    let before = secrets.list(&ListParams::default()).await.unwrap();
    let ran = first_start(&kubeconfig, &args, folders[1].path());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let after = secrets.list(&ListParams::default()).await.unwrap();
    let versions = |list: &kube::core::ObjectList<Secret>| -> Vec<_> {
        list.items.iter().map(|s| (s.metadata.name.clone(), s.metadata.resource_version.clone())).collect()
    };
    assert_eq!(versions(&before), versions(&after));

    // Broken off after the identity: the rest is made for that identity.
    for name in ["mpegflow-join-default", "mpegflow-api-key"] {
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let ran = first_start(&kubeconfig, &args, folders[2].path());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let join: Value =
        serde_json::from_slice(&data(&secrets.get("mpegflow-join-default").await.unwrap(), "join.json"))
            .unwrap();
    assert_eq!(join["ca"].as_str().unwrap().as_bytes(), ca);
    assert_ne!(data(&secrets.get("mpegflow-api-key").await.unwrap(), "api-key"), first_key);
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(!said.contains("PRIVATE KEY") && !said.contains(join["token"].as_str().unwrap()), "{said}");

    // An identity that is none is refused by its key's name, and stays.
    secrets.delete("mpegflow-identity", &DeleteParams::default()).await.unwrap();
    let mut bad = Secret::default();
    bad.metadata.name = Some("mpegflow-identity".into());
    secrets.create(&PostParams::default(), &bad).await.unwrap();
    let ran = first_start(&kubeconfig, &args, folders[3].path());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && said.contains("ca.key") && said.contains("mpegflow-identity"), "{said}");

    // Its account may make these three and read no other.
    let own = cluster.client_of("mpegflow", "mpegflow-first-start").await;
    let theirs: Api<Secret> = Api::namespaced(own, "mpegflow");
    let mut other = Secret::default();
    other.metadata.name = Some("another".into());
    secrets.create(&PostParams::default(), &other).await.unwrap();
    let forbidden = |e: kube::Error| matches!(e, kube::Error::Api(status) if status.code == 403);
    assert!(forbidden(theirs.get("another").await.unwrap_err()));
    assert!(forbidden(theirs.list(&ListParams::default()).await.unwrap_err()));
    assert!(forbidden(
        theirs.patch("another", &PatchParams::apply("x"), &Patch::Apply(&other)).await.unwrap_err()
    ));
    other.metadata.name = Some("new".into());
    assert!(forbidden(
        theirs.patch("new", &PatchParams::apply("x"), &Patch::Apply(&other)).await.unwrap_err()
    ));
    assert!(forbidden(theirs.create(&PostParams::default(), &other).await.unwrap_err()));
    assert!(forbidden(theirs.delete("mpegflow-api-key", &DeleteParams::default()).await.unwrap_err()));
}

/// Kind and uid of every object of the release, but for Jobs, which are other ones in each version.
async fn uids(cluster: &Cluster, rendered: &[Value]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for object in rendered {
        let is_hook = !object["metadata"]["annotations"]["helm.sh/hook"].is_null();
        if is_hook || object["kind"] == "Job" {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let version = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let (resource, _) = discovery::pinned_kind(&cluster.client(), &version).await.unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "mpegflow", &resource);
        let name = object.metadata.name.unwrap();
        let there = api.get(&name).await.unwrap_or_else(|e| panic!("{} {name}: {e}", version.kind));
        found.push((format!("{} {name}", version.kind), there.metadata.uid.unwrap()));
    }
    found
}

async fn broker_image(cluster: &Cluster) -> String {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "mpegflow");
    let broker = deployments.get("mpegflow-broker").await.unwrap();
    let pod = broker.spec.unwrap().template.spec.unwrap();
    pod.containers.first().and_then(|container| container.image.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_and_rolls_back_on_a_real_api_server_and_recreates_nothing() {
    let cluster = Cluster::start(Options::default()).await;
    let kubeconfig = cluster.kubeconfig();
    let values = values_file("evaluation").display().to_string();
    // No Cilium here, and nobody who would run a Job to its end.
    let always = ["-f", &values, "--set-json", "networkPolicy.dialects=[]", "--no-hooks"];
    let chart = chart_folder().join("mpegflow");
    let rendered = Helm::V4
        .template(&chart, &[&values_file("evaluation")], &["networkPolicy.dialects=[]"])
        .unwrap()
        .objects;
    for helm in Helm::ALL {
        cluster.apply(NAMESPACE).await;
        helm.on(&kubeconfig, &[&["install", "mpegflow", "mpegflow"], &always[..]].concat());
        let installed = uids(&cluster, &rendered).await;
        assert!(installed.len() > 15, "{installed:?}");
        assert_eq!(broker_image(&cluster).await, "mpegflow/broker:0.1.0");

        let newer = [
            "--set",
            "images.broker.tag=0.2.0",
            "--set",
            "images.worker.tag=0.2.0",
            "--set",
            "images.cli.tag=0.2.0",
        ];
        helm.on(&kubeconfig, &[&["upgrade", "mpegflow", "mpegflow"], &always[..], &newer[..]].concat());
        assert_eq!(broker_image(&cluster).await, "mpegflow/broker:0.2.0", "{helm:?}");
        assert_eq!(uids(&cluster, &rendered).await, installed, "{helm:?}: an upgrade keeps every object");

        helm.on(&kubeconfig, &["rollback", "mpegflow", "1", "--no-hooks"]);
        assert_eq!(broker_image(&cluster).await, "mpegflow/broker:0.1.0", "{helm:?}");
        assert_eq!(uids(&cluster, &rendered).await, installed, "{helm:?}: a rollback, too");

        helm.on(&kubeconfig, &["uninstall", "mpegflow", "--no-hooks", "--cascade", "background"]);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), "mpegflow");
        assert!(
            claims.get("mpegflow-broker").await.is_ok(),
            "uploads and results outlive a slip of the hand"
        );
        // The next version of helm would not take over what another release has left.
        claims.delete("mpegflow-broker", &DeleteParams::default()).await.unwrap();
        let claim = json!({ "metadata": { "finalizers": null } });
        let _ = claims.patch("mpegflow-broker", &PatchParams::default(), &Patch::Merge(&claim)).await;
        until("the claim is gone", || async {
            claims.get_opt("mpegflow-broker").await.unwrap().is_none().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_become_workerpools_when_the_operator_comes_and_deployments_when_it_goes() {
    let cluster = Cluster::start(Options::default()).await;
    cluster.apply(NAMESPACE).await;
    install_definitions(&cluster).await;
    let kubeconfig = cluster.kubeconfig();
    let (before, after) =
        (values_file("evaluation").display().to_string(), values_file("operator").display().to_string());
    // Neither a CNI's kinds nor KEDA's here.
    let plain = [
        "--set-json",
        "networkPolicy.dialects=[]",
        "--set-json",
        "operator.depth={\"redis\":\"\"}",
        "--no-hooks",
    ];
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "mpegflow");
    let pools: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        "media",
        &kube::core::ApiResource::from_gvk(&GroupVersionKind::gvk("mpegflow.io", "v1alpha1", "WorkerPool")),
    );
    for helm in Helm::ALL {
        helm.on(
            &kubeconfig,
            &[&["upgrade", "--install", "mpegflow", "mpegflow", "-f", &before], &plain[..]].concat(),
        );
        assert!(deployments.get("mpegflow-worker-default").await.is_ok(), "{helm:?}");
        helm.on(&kubeconfig, &[&["upgrade", "mpegflow", "mpegflow", "-f", &after], &plain[..]].concat());
        until("the Deployment with the join token is gone", || async {
            deployments.get_opt("mpegflow-worker-default").await.unwrap().is_none().then_some(())
        })
        .await;
        let pool = pools.get("default").await.unwrap();
        assert_eq!(pool.data["spec"]["scale"]["fallback"]["replicas"], 2, "{helm:?}");

        // Somebody scales, and the next upgrade does not set it back.
        let scaled = json!({ "spec": { "scale": { "replicas": 7 } } });
        pools.patch("default", &PatchParams::default(), &Patch::Merge(scaled)).await.unwrap();
        let newer = ["--set", "images.broker.tag=0.2.0"];
        helm.on(
            &kubeconfig,
            &[&["upgrade", "mpegflow", "mpegflow", "-f", &after], &plain[..], &newer[..]].concat(),
        );
        let upgraded = pools.get("default").await.unwrap();
        assert_eq!(upgraded.data["spec"]["scale"]["replicas"], 7, "{helm:?}");
        assert_eq!(upgraded.metadata.uid, pool.metadata.uid, "{helm:?}: an upgrade keeps the pool");

        helm.on(&kubeconfig, &["rollback", "mpegflow", "1", "--no-hooks"]);
        assert!(deployments.get("mpegflow-worker-default").await.is_ok(), "{helm:?}");
        until("the pools are gone", || async {
            pools.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        })
        .await;
        helm.on(&kubeconfig, &["uninstall", "mpegflow", "--no-hooks", "--cascade", "background"]);
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
        assert!(namespaces.get("media").await.is_ok(), "{helm:?}: the namespace outlives a slip of the hand");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), "mpegflow");
        claims.delete("mpegflow-broker", &DeleteParams::default()).await.unwrap();
        let free = json!({ "metadata": { "finalizers": null } });
        let _ = claims.patch("mpegflow-broker", &PatchParams::default(), &Patch::Merge(&free)).await;
    }
}
