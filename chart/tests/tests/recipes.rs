//! The recipes below `chart/examples` render, and what they render is proved.

use mpegflow_chart_tests::{Helm, Rendered, chart_folder, health, pods, violations};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(chart_folder().join("examples").join(file)).unwrap();
    text.split("\n---\n")
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{file}: {e}")))
        .collect()
}

/// The values that a document gives to the chart, rendered in both versions of helm.
fn renders(values: &Value) -> Rendered {
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    file.write_all(values.to_string().as_bytes()).unwrap();
    let [v3, v4] = Helm::ALL.map(|helm| helm.install(file.path()));
    assert_eq!(v3.text, v4.text);
    for (whose, pod) in pods(&v4.objects) {
        assert_eq!(violations(&pod), [""; 0], "{whose}");
    }
    v4
}

/// The same, and proved.
fn renders_and_is_proved(values: &Value) {
    let v4 = renders(values);
    let exe = std::env::current_exe().unwrap();
    let program: PathBuf = exe.parent().unwrap().parent().unwrap().join("mpegflow");
    let mut child = Command::new(program)
        .args(["audit", "-", "--assume-complete", "--cni", "cilium"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(v4.text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_recipe_for_argo_cd_comes_in_waves_and_leaves_numbers_of_replicas_alone() {
    let application = documents("argocd/application.yaml").remove(0);
    let spec = &application["spec"];
    let [definitions, chart] = &spec["sources"].as_array().unwrap()[..] else { panic!("{spec}") };
    assert_eq!(definitions["path"], "chart/mpegflow-crds");
    assert_eq!(chart["path"], "chart/mpegflow");
    assert_eq!(chart["targetRevision"], definitions["targetRevision"], "one version of both");
    let rendered = renders(&chart["helm"]["valuesObject"]);
    // A hook of helm is a PreSync of Argo CD, also before the first installation.
    assert!(
        !rendered.text.contains("helm.sh/hook: pre-upgrade"),
        "the migrations would wait for an account that is not there"
    );
    let mut waves: Vec<(&str, i32)> = Vec::new();
    for object in &rendered.objects {
        let wave = object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str();
        waves.push((object["kind"].as_str().unwrap(), wave.map_or(0, |wave| wave.parse().unwrap())));
    }
    assert_eq!(waves.iter().filter(|(kind, wave)| *kind == "WorkerPool" && *wave == 1).count(), 1);
    assert!(waves.iter().all(|(kind, wave)| *kind == "WorkerPool" || *wave == 0), "{waves:?}");
    // Nothing that is ignored is rendered, so that it is nobody's of those who apply.
    let pool = rendered.objects.iter().find(|object| object["kind"] == "WorkerPool").unwrap();
    assert_eq!(pool.pointer("/spec/scale/replicas"), None);
    let ignored = spec["ignoreDifferences"].as_array().unwrap();
    let ignores = |group: &str, kind: &str, pointer: &str| {
        ignored
            .iter()
            .any(|i| i["group"] == group && i["kind"] == kind && i["jsonPointers"] == json!([pointer]))
    };
    assert!(ignores("mpegflow.io", "WorkerPool", "/spec/scale/replicas"));
    assert!(ignores("apps", "Deployment", "/spec/replicas"));
}

#[test]
fn argo_cd_is_told_whether_pools_and_tenants_are_well() {
    let condition = |kind: &str, status: &str, reason: &str| json!({ "type": kind, "status": status, "reason": reason, "message": "why" });
    let ready = |status: &str| condition("Ready", status, "WorkersReady");
    let isolation = |status: &str| condition("IsolationVerified", status, "Reachable");
    let stalled = condition("Stalled", "True", "NotAllowed");
    for kind in ["WorkerPool", "Tenant"] {
        for (status, expected) in [
            (Value::Null, ("Progressing", "the operator has not seen this generation yet")),
            (
                json!({ "observedGeneration": 1, "conditions": [ready("True")] }),
                ("Progressing", "the operator has not seen this generation yet"),
            ),
            (json!({ "observedGeneration": 2 }), ("Progressing", "the operator says nothing of it yet")),
            (json!({ "observedGeneration": 2, "conditions": [ready("False")] }), ("Progressing", "why")),
            (json!({ "observedGeneration": 2, "conditions": [ready("True")] }), ("Healthy", "why")),
            (
                json!({ "observedGeneration": 2, "conditions": [ready("True"), isolation("Unknown")] }),
                ("Healthy", "why"),
            ),
            (
                json!({ "observedGeneration": 2, "conditions": [ready("True"), isolation("False")] }),
                ("Degraded", "Reachable: why"),
            ),
            (
                json!({ "observedGeneration": 2, "conditions": [ready("False"), stalled] }),
                ("Degraded", "NotAllowed: why"),
            ),
        ] {
            let object = json!({ "kind": kind, "metadata": { "generation": 2 }, "status": status });
            let (said, message) = health(&object);
            assert_eq!((&*said, &*message), expected, "{object}");
        }
    }
}

#[test]
fn the_recipe_for_flux_renders_and_is_proved() {
    let documents = documents("flux/release.yaml");
    let of_kind =
        |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let release = of_kind("HelmRelease");
    assert_eq!(
        release["spec"]["chart"]["spec"]["sourceRef"]["name"],
        of_kind("GitRepository")["metadata"]["name"]
    );
    assert_eq!(release["metadata"]["namespace"], of_kind("Namespace")["metadata"]["name"]);
    renders_and_is_proved(&release["spec"]["values"]);
}

#[test]
fn the_guides_least_values_render_and_are_proved() {
    let guide = chart_folder().parent().unwrap().join("docs/install.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let block = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let values: Value = serde_saphyr::from_str(&block.replace("sha256:\u{2026}", &digest)).unwrap();
    renders_and_is_proved(&values);
}

#[test]
fn the_recipes_for_clouds_render_and_open_the_ports_that_their_urls_name() {
    for cloud in ["aws", "gcp", "azure"] {
        let values = documents(&format!("clouds/{cloud}.yaml")).remove(0);
        renders(&values);
        let port = |url: &str| -> u64 {
            let host = url.split("://").nth(1).unwrap().split('/').next().unwrap();
            host.rsplit_once(':').unwrap().1.parse().unwrap()
        };
        for part in ["database", "dispatch"] {
            let url = values[part]["url"].as_str().unwrap();
            let addresses = values[part]["addresses"].as_array().unwrap();
            assert!(addresses.iter().all(|open| open["port"] == port(url)), "{cloud}: {part}");
        }
        let dispatch = values["dispatch"]["url"].as_str().unwrap();
        let redis = values["operator"]["depth"]["redis"].as_str().unwrap();
        assert!(
            dispatch.starts_with("rediss://") && dispatch.ends_with(redis),
            "{cloud}: KEDA asks the broker's Redis"
        );
        assert_eq!(values["operator"]["depth"]["tls"], true, "{cloud}");
        // The certificate is checked, by name where it has the server's.
        let database = values["database"]["url"].as_str().unwrap();
        assert!(
            database.contains("sslmode=verify-")
                && database.contains("sslrootcert=/etc/mpegflow/database/ca.pem"),
            "{cloud}"
        );
    }
}
