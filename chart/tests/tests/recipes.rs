//! The recipes below `chart/examples` render, and what they render is proved.

use mpegflow_chart_tests::{Helm, chart_folder, pods, violations};
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(chart_folder().join("examples").join(file)).unwrap();
    text.split("\n---\n")
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{file}: {e}")))
        .collect()
}

/// The values that a document gives to the chart, rendered in both versions of helm, and proved.
fn renders_and_is_proved(values: &Value) -> String {
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    file.write_all(values.to_string().as_bytes()).unwrap();
    let [v3, v4] = Helm::ALL.map(|helm| helm.install(file.path()));
    assert_eq!(v3.text, v4.text);
    for (whose, pod) in pods(&v4.objects) {
        assert_eq!(violations(&pod), [""; 0], "{whose}");
    }
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
    v4.text
}

#[test]
fn the_recipe_for_argo_cd_renders_and_is_proved() {
    let application = documents("argocd/application.yaml").remove(0);
    let spec = &application["spec"];
    assert_eq!(spec["source"]["path"], "chart/mpegflow");
    let text = renders_and_is_proved(&spec["source"]["helm"]["valuesObject"]);
    // A hook of helm is a PreSync of Argo CD, also before the first installation.
    assert!(
        !text.contains("helm.sh/hook: pre-upgrade"),
        "the migrations would wait for an account that is not there"
    );
    assert!(
        !text.lines().any(|line| line == "  replicas: 0"),
        "somebody else says how many workers there are"
    );
    assert_eq!(spec["ignoreDifferences"][0]["jsonPointers"][0], "/spec/replicas");
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
