//! Nodes without machines: kwok says of each node that it is ready, and of each pod on it that it runs, until it is deleted.

use crate::Cluster;
use crate::objects::until;
use crate::programs::{directory, program};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use std::process::Command;

const NODE: &str = "
apiVersion: v1
kind: Node
metadata:
  name: NAME
  labels: {kubernetes.io/hostname: NAME, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
status:
  capacity: {cpu: '64', memory: 256Gi, ephemeral-storage: 1Ti, pods: '110'}
  allocatable: {cpu: '64', memory: 256Gi, ephemeral-storage: 1Ti, pods: '110'}
";

impl Cluster {
    /// Makes so many nodes and waits until they are ready. Nothing is placed on them without [`Options::scheduler`](crate::Options).
    ///
    /// # Panics
    /// They do not become ready.
    pub async fn start_kwok(&self, nodes: usize) {
        for number in 0..nodes {
            self.apply(&NODE.replace("NAME", &format!("node-{number}"))).await;
        }
        let mut kwok = Command::new(program("kwok", "kwok"));
        kwok.arg("--kubeconfig").arg(self.kubeconfig()).arg("--manage-all-nodes");
        kwok.arg("--config").arg(directory("kwok", "kwok-stages"));
        self.run("kwok", &kwok);
        let api: Api<Node> = Api::all(self.client());
        until("the nodes are ready", || async {
            let list = api.list(&Default::default()).await.ok()?;
            let is_ready = |node: &&Node| {
                let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
                conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
            };
            (list.items.iter().filter(is_ready).count() == nodes).then_some(())
        })
        .await;
    }
}
