//! helm as a process, in the versions that the charts promise to work with.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A version of helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helm {
    /// Version 3.
    V3,
    /// Version 4.
    V4,
}

/// What helm made of a chart.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The manifests, as helm wrote them.
    pub text: String,
    /// The same, read; hooks are among them.
    pub objects: Vec<Value>,
}

/// The folder `chart/`.
pub fn chart_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").into()
}

/// A file of values below `chart/tests/values`.
pub fn values_file(name: &str) -> PathBuf {
    chart_folder().join("tests/values").join(format!("{name}.yaml"))
}

impl Helm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V3, Self::V4];

    fn program(self) -> &'static Path {
        static FOUND: OnceLock<[PathBuf; 2]> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let script = chart_folder().parent().expect("the repository").join("tools/chart-programs");
            let output = Command::new(&script).output().expect("tools/chart-programs runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("text");
            ["helm3=", "helm4="].map(|key| {
                text.lines().find_map(|line| line.strip_prefix(key)).expect("a line for each program").into()
            })
        });
        &found[if self == Self::V3 { 0 } else { 1 }]
    }

    /// Runs it, away from the configuration of whoever runs the tests.
    pub fn run(self, args: &[&str]) -> Output {
        let nowhere = std::env::temp_dir().join("mpegflow-chart-tests-no-helm-home");
        let mut command = Command::new(self.program());
        command.current_dir(chart_folder()).args(args).env_clear();
        for key in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
            command.env(key, &nowhere);
        }
        command.output().expect("helm runs")
    }

    /// Runs it against a cluster, which must work.
    ///
    /// # Panics
    /// It fails.
    pub fn on(self, kubeconfig: &Path, args: &[&str]) {
        let kubeconfig = kubeconfig.display().to_string();
        let output = self.run(&[args, &["-n", "mpegflow", "--kubeconfig", &kubeconfig]].concat());
        assert!(output.status.success(), "{self:?} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `helm template mpegflow CHART -n mpegflow -f FILE…`, and the settings after it.
    ///
    /// # Errors
    /// What helm says.
    pub fn template(self, chart: &Path, values: &[&Path], settings: &[&str]) -> Result<Rendered, String> {
        let chart = chart.display().to_string();
        let mut args = vec![
            "template".to_owned(),
            "mpegflow".into(),
            chart,
            "-n".into(),
            "mpegflow".into(),
            "--kube-version".into(),
            "1.35.0".into(),
        ];
        for file in values {
            args.extend(["-f".to_owned(), file.display().to_string()]);
        }
        for setting in settings {
            args.extend(["--set-json".to_owned(), (*setting).to_owned()]);
        }
        let output = self.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).expect("text");
        let objects = text
            .split("\n---")
            .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with(['#', '-'])))
            .map(|part| {
                serde_saphyr::from_str(part.trim_start_matches("---"))
                    .unwrap_or_else(|e| panic!("{e} in\n{part}"))
            })
            .collect();
        Ok(Rendered { text, objects })
    }

    /// The chart `mpegflow` with a file of values, which must render.
    ///
    /// # Panics
    /// helm refuses it.
    pub fn install(self, values: &Path) -> Rendered {
        self.template(&chart_folder().join("mpegflow"), &[values], &[])
            .unwrap_or_else(|e| panic!("{self:?} {}: {e}", values.display()))
    }
}

/// Every pod among objects: of whom, and its `spec`.
pub fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let pod = |object: &Value| {
        let path = match object["kind"].as_str()? {
            "Pod" => "/spec",
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template/spec",
            "CronJob" => "/spec/jobTemplate/spec/template/spec",
            _ => return None,
        };
        let name = format!("{} {}", object["kind"].as_str()?, object["metadata"]["name"].as_str()?);
        Some((name, object.pointer(path).unwrap_or_else(|| panic!("{object} has no pod")).clone()))
    };
    objects.iter().filter_map(pod).collect()
}

/// Containers of a pod with their images and arguments.
pub fn images(pod: &Value) -> Vec<(String, Vec<String>)> {
    let containers =
        ["initContainers", "containers"].into_iter().filter_map(|key| pod[key].as_array()).flatten();
    let strings = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    containers.map(|c| (c["image"].as_str().expect("an image").to_owned(), strings(&c["args"]))).collect()
}
