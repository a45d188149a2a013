//! KEDA in a cluster without pods: its operator and its metrics adapter as processes, with the certificates that it would
//! else make for itself and then restart for.

use crate::programs::{directory, program};
use crate::{Cluster, until};
use kube::api::Api;
use std::fs;
use std::process::Command;

/// The adapter is found through a Service without a cluster address: the API server then dials its external name.
const REGISTRATION: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: keda}
---
apiVersion: v1
kind: Service
metadata: {name: keda-metrics-apiserver, namespace: keda}
spec: {type: ExternalName, externalName: localhost, ports: [{port: PORT}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: keda-metrics-apiserver, namespace: keda, port: PORT}
";

impl Cluster {
    /// Installs KEDA's definitions without KEDA: ScaledObjects can then be made, and nobody acts on them.
    pub async fn install_keda_definitions(&self) {
        let mut definitions: Vec<_> =
            fs::read_dir(directory("keda", "keda-crds")).expect("definitions").flatten().collect();
        definitions.sort_by_key(|entry| entry.file_name());
        for entry in definitions {
            self.apply(&fs::read_to_string(entry.path()).expect("a definition")).await;
        }
    }

    /// Installs KEDA and waits until its adapter answers.
    ///
    /// # Panics
    /// It does not come up.
    pub async fn start_keda(&self) {
        self.install_keda_definitions().await;
        let [metrics, probe, service, adapter, adapter_metrics] =
            [(); 5].map(|()| mpegflow_test_ports::port());
        self.apply(&REGISTRATION.replace("PORT", &adapter.to_string())).await;

        let certs = self.dir().join("keda-certs");
        self.issue(&certs, &["keda-operator", "localhost"]);
        let certs = certs.display().to_string();
        let kubeconfig = self.kubeconfig();
        let mut operator = Command::new(program("keda", "keda-operator"));
        operator.env("KUBECONFIG", &kubeconfig).env("POD_NAMESPACE", "keda").env("POD_NAME", "keda-operator");
        operator.env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda").env("WATCH_NAMESPACE", "");
        operator.args(["--leader-elect=false", "--enable-cert-rotation=false", "--zap-log-level=info"]);
        operator.args(["--cert-dir", &certs, "--ca-dir", &certs]);
        operator.arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"));
        operator.arg(format!("--health-probe-bind-address=127.0.0.1:{probe}"));
        operator.arg(format!("--metrics-service-bind-address=127.0.0.1:{service}"));
        self.run("keda-operator", &operator);

        let mut server = Command::new(program("keda", "keda-adapter"));
        server.env("KUBECONFIG", &kubeconfig).env("POD_NAMESPACE", "keda").env("POD_NAME", "keda-adapter");
        server.env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda").env("WATCH_NAMESPACE", "");
        let kubeconfig = kubeconfig.display().to_string();
        for flag in ["--lister-kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            server.args([flag, &kubeconfig]);
        }
        server.args([
            "--cert-dir",
            &certs,
            "--bind-address",
            "127.0.0.1",
            "--secure-port",
            &adapter.to_string(),
        ]);
        server.args(["--tls-cert-file", &format!("{certs}/tls.crt")]);
        server.args(["--tls-private-key-file", &format!("{certs}/tls.key")]);
        server.args(["--port", &adapter_metrics.to_string()]);
        server.args(["--metrics-service-address", &format!("localhost:{service}")]);
        server.args(["--metrics-service-grpc-authority", "keda-operator"]);
        self.run("keda-adapter", &server);

        let services: Api<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService> =
            Api::all(self.client());
        until("KEDA's adapter serves metrics", || async {
            let service = services.get("v1beta1.external.metrics.k8s.io").await.ok()?;
            let conditions = service.status?.conditions?;
            conditions.iter().any(|c| c.type_ == "Available" && c.status == "True").then_some(())
        })
        .await;
    }
}
