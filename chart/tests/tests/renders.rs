//! What helm makes of the chart: the same in both versions, as reviewed, and in terms that the programs know.

use mpegflow_chart_tests::{Helm, chart_folder, images, pods, readme, values_file, violations};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

const VALUES: [&str; 4] = ["evaluation", "production", "dedicated", "operator"];

#[test]
fn both_versions_of_helm_render_what_was_reviewed() {
    for name in VALUES {
        let [v3, v4] = Helm::ALL.map(|helm| helm.install(&values_file(name)).text);
        assert!(v3 == v4, "helm 3 and helm 4 differ for {name}");
        insta::assert_snapshot!(name, v4);
    }
}

#[test]
fn both_versions_of_helm_find_nothing_to_lint() {
    for helm in Helm::ALL {
        for name in VALUES {
            let file = values_file(name).display().to_string();
            let output = helm.run(&["lint", "--strict", "mpegflow", "-f", &file]);
            assert!(output.status.success(), "{helm:?} {name}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

#[test]
fn rendering_twice_gives_the_same_and_asks_no_cluster() {
    let once = Helm::V4.install(&values_file("evaluation")).text;
    assert_eq!(once, Helm::V4.install(&values_file("evaluation")).text);
    for entry in std::fs::read_dir(chart_folder().join("mpegflow/templates")).unwrap().flatten() {
        if entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            for word in [
                "lookup ",
                "randAlpha",
                "randNumeric",
                "randBytes",
                "genCA",
                "genPrivateKey",
                "uuidv4",
                "now |",
            ] {
                assert!(!text.contains(word), "{:?} uses {word}", entry.file_name());
            }
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    for name in VALUES {
        let pods = pods(&Helm::V4.install(&values_file(name)).objects);
        assert!(pods.len() >= 4, "{name} has {} pods", pods.len());
        for (whose, pod) in pods {
            assert_eq!(violations(&pod), [""; 0], "{name}: {whose}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}: {whose}");
            for container in pod["containers"].as_array().unwrap() {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}: {whose}");
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{name}: {whose} has no memory limit"
                );
            }
        }
    }
}

#[test]
fn the_credentials_of_tenants_storage_are_mounted_into_the_broker_and_their_addresses_admitted() {
    let tenants = r#"objects.tenants={"secrets":["acme","news.room"],"caConfigMap":"ca","addresses":[{"cidr":"10.9.0.0/16","port":443}]}"#;
    for helm in Helm::ALL {
        let chart = chart_folder().join("mpegflow");
        let rendered = helm.template(&chart, &[&values_file("production")], &[tenants]).unwrap();
        let broker = |(_, pod): &(String, Value)| {
            let container = &pod["containers"][0];
            let args = container["args"].to_string();
            args.contains("--tenant-storage-secrets=/run/secrets/tenants")
                && args.contains("--tenant-storage-ca=/etc/mpegflow/tenants/ca.pem")
                && ["acme", "news.room"].iter().all(|name| {
                    let mounts = container["volumeMounts"].as_array().unwrap();
                    let volumes = pod["volumes"].as_array().unwrap();
                    let path = format!("/run/secrets/tenants/{name}");
                    let mount =
                        mounts.iter().find(|m| m["mountPath"] == path.as_str() && m["readOnly"] == true);
                    mount.is_some_and(|m| {
                        volumes.iter().any(|v| v["name"] == m["name"] && v["secret"]["secretName"] == *name)
                    })
                })
        };
        assert_eq!(pods(&rendered.objects).iter().filter(|pod| broker(pod)).count(), 1, "{helm:?}");
        assert_eq!(rendered.text.matches("10.9.0.0/16").count(), 1, "{helm:?}: of the broker alone");
        for elsewhere in [r#"["../x"]"#, r#"["a/b"]"#, r#"["a","a"]"#] {
            let bad = format!(r#"objects.tenants={{"secrets":{elsewhere}}}"#);
            assert!(helm.template(&chart, &[&values_file("production")], &[&bad]).is_err(), "{elsewhere}");
        }
    }
}

#[test]
fn the_broker_alone_reaches_the_collector_of_traces_and_its_token_is_a_file() {
    let tracing = r#"tracing={"endpoint":"https://collector.example:4318","existingSecret":"token","caConfigMap":"ca","sample":"2.5%","to":[{"ipBlock":{"cidr":"10.77.0.0/16"}}]}"#;
    for helm in Helm::ALL {
        let chart = chart_folder().join("mpegflow");
        let rendered = helm.template(&chart, &[&values_file("production")], &[tracing]).unwrap();
        let broker = |(_, pod): &(String, Value)| {
            let container = &pod["containers"][0];
            let args = container["args"].to_string();
            let volumes = pod["volumes"].as_array().unwrap();
            let secret = volumes.iter().find(|v| v["name"] == "otlp").map(|v| &v["secret"]);
            ["endpoint=https://collector.example:4318", "sample=2.5%", "traceparent=ignore"]
                .iter()
                .chain(&["headers-file=/run/secrets/otlp/headers", "ca=/etc/mpegflow/otlp/ca.pem"])
                .all(|flag| args.contains(&format!("--otlp-{flag}")))
                && secret.is_some_and(|s| s["secretName"] == "token" && s["items"][0]["path"] == "headers")
        };
        assert_eq!(pods(&rendered.objects).iter().filter(|pod| broker(pod)).count(), 1, "{helm:?}");
        assert_eq!(rendered.text.matches("10.77.0.0/16").count(), 1, "{helm:?}: of the broker alone");
        let without = helm.template(&chart, &[&values_file("production")], &[]).unwrap();
        assert!(!without.text.contains("otlp"), "{helm:?}");
    }
}

#[test]
fn no_secret_is_rendered_and_none_is_an_argument_or_a_variable() {
    for name in VALUES {
        let rendered = Helm::V4.install(&values_file(name));
        for object in &rendered.objects {
            assert_ne!(object["kind"], "Secret", "{name}");
        }
        for (whose, pod) in pods(&rendered.objects) {
            for container in pod["containers"].as_array().unwrap() {
                for variable in container["env"].as_array().into_iter().flatten() {
                    assert!(variable["valueFrom"].is_null(), "{name}: {whose} has {variable}");
                }
                assert!(container["envFrom"].is_null(), "{name}: {whose}");
            }
        }
    }
}

/// The words after `--` in a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect()
}

/// What a program of ours says of a command.
fn help(program: &str, command: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let program: PathBuf = exe.parent().unwrap().parent().unwrap().join(program);
    assert!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    let mut call = Command::new(program);
    if !command.is_empty() {
        call.arg(command);
    }
    let output = call.arg("--help").output().unwrap();
    assert!(output.status.success(), "{command} is no command");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_argument_is_one_that_the_program_knows() {
    let mut seen = 0;
    for name in VALUES {
        for (whose, pod) in pods(&Helm::V4.install(&values_file(name)).objects) {
            for (image, args) in images(&pod) {
                let program = match image.split(['@', ':']).next().unwrap().rsplit('/').next().unwrap() {
                    "broker" => "mpegflow-broker",
                    "worker" => "mpegflow-worker",
                    "cli" => "mpegflow",
                    "operator" => "mpegflow-operator",
                    _ => continue,
                };
                let command = args.first().filter(|arg| !arg.starts_with('-')).map_or("", String::as_str);
                let known = flags(&help(program, command));
                for arg in args.iter().filter_map(|arg| arg.strip_prefix("--")) {
                    let flag = arg.split('=').next().unwrap();
                    assert!(known.contains(flag), "{name}: {whose}: `{program} {command}` has no --{flag}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} arguments were looked at");
}

#[test]
fn alerts_and_dashboard_use_metrics_that_the_broker_has() {
    let source = chart_folder().parent().unwrap().join("broker/src/http/metrics.rs");
    let source = std::fs::read_to_string(source).unwrap();
    // A registered name is a literal of its own; a counter's is written with `_total`.
    let literals: BTreeSet<&str> = source.split('"').skip(1).step_by(2).collect();
    let is_counter = |name: &str| {
        source.lines().any(|line| line.contains(&format!("\"{name}\"")) && line.contains("load(&counters."))
    };
    let rendered = Helm::V4.install(&values_file("production")).text;
    let words = rendered.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let used: BTreeSet<&str> = words.filter_map(|word| word.strip_prefix("mpegflow_")).collect();
    assert!(used.len() >= 10, "{used:?}");
    for name in used {
        let base = name.strip_suffix("_total").unwrap_or(name);
        assert!(literals.contains(base), "no metric mpegflow_{name}");
        assert_eq!(
            is_counter(base),
            name.ends_with("_total"),
            "mpegflow_{name}: counters end in _total, gauges do not"
        );
    }
}

#[test]
fn the_readme_has_every_value_as_it_is() {
    let written = std::fs::read_to_string(chart_folder().join("mpegflow/README.md")).unwrap();
    assert!(written == readme(), "chart/mpegflow/README.md is not up to date: run tools/chart-readme");
}

#[test]
fn the_operator_has_the_rights_that_its_own_tests_run_it_with() {
    let committed = chart_folder().parent().unwrap().join("operator/rbac.yaml");
    let committed = std::fs::read_to_string(committed).unwrap();
    let copy = std::fs::read_to_string(chart_folder().join("mpegflow/files/operator-rules.yaml")).unwrap();
    assert!(
        committed.contains(&copy),
        "files/operator-rules.yaml is not the rules of operator/rbac.yaml: copy them"
    );
    let committed: Vec<Value> =
        committed.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    let rendered = Helm::V4.install(&values_file("operator")).objects;
    for (kind, name) in [("ClusterRole", "mpegflow-mpegflow-operator"), ("Role", "mpegflow-operator")] {
        let theirs = committed.iter().find(|object| object["kind"] == kind).unwrap();
        let ours = rendered
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap();
        assert_eq!(ours["rules"], theirs["rules"], "{kind}");
    }
}

#[test]
fn with_the_operator_a_pool_of_the_values_is_the_workerpool_that_it_describes() {
    let chart = chart_folder().join("mpegflow");
    let digest = r#"images.worker={"repository":"w","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222"}"#;
    let mut seen = 0;
    for file in ["examples/workerpool-full.yaml", "examples/hybrid-gpu/pools.yaml"] {
        let text = std::fs::read_to_string(chart_folder().join(file)).unwrap();
        for document in text.split("\n---\n") {
            let pool: Value = serde_saphyr::from_str(document).unwrap();
            if pool["kind"] != "WorkerPool" {
                continue;
            }
            // The same fields by the same names, but for the one that has had another in the values from the first.
            let mut values = pool["spec"].as_object().unwrap().clone();
            values.insert("name".into(), pool["metadata"]["name"].clone());
            values.insert("graceSeconds".into(), values["drainGraceSeconds"].clone());
            values.remove("drainGraceSeconds");
            let values = format!("pools={}", Value::from(vec![Value::from(values)]));
            for helm in Helm::ALL {
                let settings = [digest, &values, r#"operator.workers={"namespace":"media"}"#];
                let rendered = helm.template(&chart, &[&values_file("operator")], &settings).unwrap();
                let mut made = rendered.objects.iter().filter(|object| object["kind"] == "WorkerPool");
                let (made, more) = (made.next().unwrap(), made.count());
                let mut wanted = pool["spec"].clone();
                // What is false anyway.
                wanted.as_object_mut().unwrap().remove("paused");
                assert_eq!(made["spec"], wanted, "{helm:?}");
                assert_eq!((&made["metadata"]["namespace"], more), (&Value::from("media"), 0));
                assert!(!rendered.text.contains("--join="), "{helm:?}: nobody needs a join token");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_namespace_of_workers_is_the_charts_to_make_or_somebody_elses() {
    let chart = chart_folder().join("mpegflow");
    for helm in Helm::ALL {
        let namespaces = |settings: &[&str]| -> Vec<Value> {
            let objects = helm.template(&chart, &[&values_file("operator")], settings).unwrap().objects;
            objects.into_iter().filter(|object| object["kind"] == "Namespace").collect()
        };
        let [made] = &namespaces(&[])[..] else { panic!("{helm:?}") };
        assert_eq!(made["metadata"]["labels"]["mpegflow.io/workers"], "true");
        assert_eq!(made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        assert_eq!(made["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(namespaces(&["operator.workers.create=false"]), [Value::Null; 0]);
    }
}

#[test]
fn the_broker_may_ask_whose_a_token_is_and_nothing_else() {
    let committed = chart_folder().parent().unwrap().join("broker/rbac.yaml");
    let committed = std::fs::read_to_string(committed).unwrap();
    let committed: Vec<Value> =
        committed.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    let theirs = committed.iter().find(|object| object["kind"] == "ClusterRole").unwrap();
    let rendered = Helm::V4.install(&values_file("operator")).objects;
    let of_broker = |kind: &str| -> Vec<&Value> {
        let name = "mpegflow-mpegflow-broker";
        rendered.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name).collect()
    };
    let [ours] = of_broker("ClusterRole")[..] else { panic!() };
    assert_eq!(ours["rules"], theirs["rules"]);
    let [binding] = of_broker("ClusterRoleBinding")[..] else { panic!() };
    assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
    // Without the operator it has no business there.
    let without = Helm::V4.install(&values_file("evaluation")).objects;
    assert!(
        !without
            .iter()
            .any(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == ours["metadata"]["name"])
    );
}
