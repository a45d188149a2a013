//! The rendered chart, judged by our own audit as a user would run it.

use mpegflow_chart_tests::{Helm, chart_folder, values_file};
use mpegflow_policies::emit::{BrokerPeer, PoolIntent};
use mpegflow_policies::policy::Dialect;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `mpegflow audit - MORE…` over manifests: its exit code, and its report.
fn audit(manifests: &str, more: &[&str]) -> (i32, Value) {
    let exe = std::env::current_exe().unwrap();
    let program: PathBuf = exe.parent().unwrap().parent().unwrap().join("mpegflow");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    let mut child = Command::new(program)
        .args(["audit", "-", "--assume-complete", "--format", "json"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Every intent is proved, of at least one pod each.
fn proved(name: &str, (code, report): &(i32, Value), intents: usize) {
    assert_eq!(*code, 0, "{name}: {}", report["sentence"]);
    let results = report["intents"].as_array().unwrap();
    assert_eq!(results.len(), intents, "{name}");
    for result in results {
        assert_eq!(result["verdict"], "proved", "{name}: {result}");
        assert!(result["pods"].as_u64().unwrap() > 0, "{name}: {} is about nobody", result["name"]);
    }
}

/// The evaluation's manifests with the policies of one dialect.
fn evaluation(dialects: &str) -> String {
    let setting = format!("networkPolicy.dialects={dialects}");
    let chart = chart_folder().join("mpegflow");
    Helm::V4.template(&chart, &[&values_file("evaluation")], &[&setting]).unwrap().text
}

#[test]
fn workers_reach_only_the_broker_under_cilium_and_calico() {
    for (cni, dialects) in [("cilium", r#"["cilium"]"#), ("calico", r#"["calico"]"#), ("calico", "[]")] {
        proved(cni, &audit(&evaluation(dialects), &["--cni", cni]), 1);
    }
    for (values, cni) in [("production", "cilium"), ("dedicated", "calico")] {
        proved(values, &audit(&Helm::V4.install(&values_file(values)).text, &["--cni", cni]), 1);
    }
}

#[test]
fn every_other_pod_is_locked_down_too_as_the_charts_intents_say() {
    let intents = chart_folder().join("mpegflow/intents.yaml").display().to_string();
    for (cni, dialects) in [("cilium", r#"["cilium"]"#), ("calico", r#"["calico"]"#)] {
        proved(cni, &audit(&evaluation(dialects), &["--cni", cni, "--intents", &intents]), 6);
    }
}

#[test]
fn in_a_dedicated_cluster_nothing_reaches_an_address_outside() {
    let folder = chart_folder().join("examples/dedicated");
    let intents = folder.join("intents.yaml").display().to_string();
    let nodes = std::fs::read_to_string(folder.join("nodes.yaml")).unwrap();
    let manifests = format!("{}\n---\n{nodes}", Helm::V4.install(&folder.join("values.yaml")).text);
    proved("dedicated", &audit(&manifests, &["--cni", "calico", "--intents", &intents]), 5);
}

#[test]
fn without_its_policies_the_chart_is_violated() {
    let chart = chart_folder().join("mpegflow");
    let open =
        Helm::V4.template(&chart, &[&values_file("evaluation")], &["networkPolicy.enabled=false"]).unwrap();
    assert_eq!(audit(&open.text, &["--cni", "cilium"]).0, 1);
}

#[test]
fn a_policy_added_later_opens_no_worker_where_the_cni_denies() {
    let added = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: added-later, namespace: mpegflow}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]
";
    for (cni, dialects, code) in
        [("cilium", r#"["cilium"]"#, 0), ("calico", r#"["calico"]"#, 0), ("calico", "[]", 1)]
    {
        let manifests = format!("{}{added}", evaluation(dialects));
        assert_eq!(audit(&manifests, &["--cni", cni]).0, code, "{cni} {dialects}");
    }
}

/// A pool's policy of a kind among rendered objects.
fn of_kind(objects: &[Value], api: &str, kind: &str) -> Value {
    let is_it = |object: &&Value| {
        object["apiVersion"] == api
            && object["kind"] == kind
            && object["metadata"]["name"] == "mpegflow-worker-default"
    };
    objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind}")).clone()
}

#[test]
fn the_policies_of_pools_are_the_ones_that_the_emitters_make() {
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let own: &[(&str, &str)] = &[("app.kubernetes.io/instance", "mpegflow"), ("mpegflow.io/pool", "default")];
    for with_service in [false, true] {
        let intent = PoolIntent {
            name: "mpegflow-worker-default".into(),
            namespace: "mpegflow".into(),
            pods: labels(own),
            labels: labels(own),
            broker: BrokerPeer {
                namespace: "mpegflow".into(),
                pods: labels(&[
                    ("app.kubernetes.io/name", "mpegflow-broker"),
                    ("app.kubernetes.io/instance", "mpegflow"),
                ]),
                port: 8443,
                service: with_service.then(|| (vec!["10.96.40.10".parse().unwrap()], 8443)),
            },
            storage: Vec::new(),
            dns: None,
        };
        let settings = [
            r#"networkPolicy.dialects=["cilium","calico"]"#.to_owned(),
            format!("networkPolicy.serviceAddress={with_service}"),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let chart = chart_folder().join("mpegflow");
        let rendered = Helm::V4.template(&chart, &[&values_file("evaluation")], &settings).unwrap();
        for (dialect, api, kind) in [
            (Dialect::NetworkPolicy, "networking.k8s.io/v1", "NetworkPolicy"),
            (Dialect::Cilium, "cilium.io/v2", "CiliumNetworkPolicy"),
            (Dialect::Calico, "projectcalico.org/v3", "NetworkPolicy"),
        ] {
            let made = intent.policies(dialect).unwrap();
            assert_eq!(vec![of_kind(&rendered.objects, api, kind)], made, "{kind} of {api}");
        }
    }
}

#[test]
fn the_pods_of_pools_are_those_that_the_audit_means() {
    let intents = mpegflow_policies::audit::intent::POOL_LABEL;
    for object in Helm::V4.install(Path::new(&values_file("evaluation"))).objects {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        if labels["app.kubernetes.io/name"] == "mpegflow-worker" {
            assert_eq!(labels[intents], "default");
            return;
        }
    }
    panic!("no worker");
}

#[test]
fn the_operator_reaches_the_api_server_and_the_control_api_and_nothing_else() {
    let intents = values_file("operator-intents").display().to_string();
    let nodes = std::fs::read_to_string(chart_folder().join("examples/dedicated/nodes.yaml")).unwrap();
    let manifests = format!("{}\n---\n{nodes}", Helm::V4.install(&values_file("operator")).text);
    proved("operator", &audit(&manifests, &["--cni", "calico", "--intents", &intents]), 1);
}
