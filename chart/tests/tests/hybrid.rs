//! The recipe for processors beside GPUs: the chart renders, a real API server takes the pools, and the operator makes of each what its nodes
//! need.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use mpegflow_chart_tests::{Helm, chart_folder, health, pods, violations};
use mpegflow_test_cluster::{Cluster, Options, Process, documents, until};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_gpus_becomes_pods_that_only_their_nodes_take() {
    let folder = chart_folder().join("examples/hybrid-gpu");
    let [v3, v4] = Helm::ALL.map(|helm| helm.install(&folder.join("values.yaml")));
    assert_eq!(v3.text, v4.text);
    for (whose, pod) in pods(&v4.objects) {
        assert_eq!(violations(&pod), [""; 0], "{whose}");
    }
    // The operator may ask where the values say that somebody is, and nowhere else besides.
    assert!(v4.text.contains("--unreachable=DNS=10.96.0.10:53"), "{}", v4.text);
    let policy = v4
        .objects
        .iter()
        .find(|o| o["kind"] == "NetworkPolicy" && o["metadata"]["name"] == "mpegflow-operator")
        .unwrap();
    let egress = policy["spec"]["egress"].as_array().unwrap();
    let dns = egress.iter().find(|rule| rule["ports"][0]["port"] == 53).unwrap();
    assert_eq!(dns["to"][0]["podSelector"]["matchLabels"]["k8s-app"], "kube-dns", "{policy}");
    let outside = r#"operator.unreachable=[{"name":"a host outside","address":"192.0.2.7","port":443}]"#;
    let chart = chart_folder().join("mpegflow");
    let outside = Helm::V4.template(&chart, &[&folder.join("values.yaml")], &[outside]).unwrap().text;
    assert!(
        outside.contains("cidr: 192.0.2.7/32") && outside.contains("toCIDR: [192.0.2.7/32]"),
        "{outside}"
    );

    let cluster = Cluster::start(Options::default()).await;
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: mpegflow}\n").await;
    let definitions = chart_folder().join("mpegflow-crds/templates");
    for file in ["tenants.yaml", "workerpools.yaml"] {
        cluster.apply(&std::fs::read_to_string(definitions.join(file)).unwrap()).await;
    }
    let broker = "apiVersion: v1\nkind: Service\nmetadata: {name: mpegflow-broker, namespace: mpegflow}\nspec:\n  selector: {app: broker}\n  \
                  ports: [{name: worker-api, port: 8443, targetPort: 8443}]\n";
    cluster.apply(broker).await;
    let text = std::fs::read_to_string(folder.join("pools.yaml")).unwrap();
    cluster.apply(&text).await;

    let rules = chart_folder().parent().unwrap().join("operator/rbac.yaml");
    cluster.apply(&std::fs::read_to_string(rules).unwrap()).await;
    let ca = cluster.dir().join("ca.pem");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n").unwrap();
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join("mpegflow-operator");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    let mut command = Command::new(program);
    command.env("KUBECONFIG", cluster.kubeconfig_of("mpegflow", "mpegflow-operator").await);
    command.arg("run").arg("--broker-ca").arg(&ca);
    let operator = Process::start("operator", cluster.dir(), &command);

    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "media");
    let pools: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        "media",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("mpegflow.io", "v1alpha1", "WorkerPool")),
    );
    let mut seen = 0;
    for pool in documents(&text)
        .into_iter()
        .filter(|object| object.types.as_ref().is_some_and(|t| t.kind == "WorkerPool"))
    {
        let name = pool.metadata.name.clone().unwrap();
        until(&format!("{name} is Ready; {}", operator.log_tail()), || async {
            let pool = pools.get(&name).await.ok()?;
            let conditions = pool.data["status"]["conditions"].as_array()?.clone();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        })
        .await;
        // As the operator writes it, Argo CD finds it well; without what it wrote, it waits.
        let live = serde_json::to_value(pools.get(&name).await.unwrap()).unwrap();
        let mut fresh = live.clone();
        fresh.as_object_mut().unwrap().remove("status");
        assert_eq!([health(&live).0, health(&fresh).0], ["Healthy", "Progressing"], "{live}");
        let deployment = deployments.get(&format!("{name}-worker")).await.unwrap();
        let deployment: Value = serde_json::to_value(deployment).unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"], pool.data["spec"]["nodeSelector"], "{name}");
        assert_eq!(pod["tolerations"], pool.data["spec"]["tolerations"], "{name}");
        let limits = &pod["containers"][0]["resources"]["limits"];
        let is_gpu = pool.data["spec"]["class"] == "gpu";
        assert_eq!(limits["nvidia.com/gpu"], if is_gpu { json!("1") } else { Value::Null }, "{name}");
        assert_eq!(pod["containers"][0]["env"].is_array(), is_gpu, "{name}: the driver's libraries");
        // A GPU that is in use cannot be had twice.
        let surge = &deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"];
        assert_eq!(*surge, if is_gpu { json!(0) } else { json!("25%") }, "{name}");
        assert_eq!(violations(pod), [""; 0], "{name}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
