//! A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager, and on request
//! kube-scheduler, from the pins in `modules/`, on private ports of loopback and in a temporary folder.
//!
//! ```no_run
//! # async fn test() {
//! let cluster = mpegflow_test_cluster::Cluster::start(Default::default()).await;
//! let client = cluster.client();
//! cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: media}\n").await;
//! // For programs: `--kubeconfig`, or KUBECONFIG.
//! let file = cluster.kubeconfig();
//! # }
//! ```
//!
//! There is no node: pods stay pending, and what a kubelet would say of them a test writes into their status, or kwok does where it
//! is started. Everything else is the real thing: admission, defaulting, CEL, server-side apply, RBAC, garbage collection, ReplicaSets, HPAs.
//!
//! Nothing outlives the test process, not even one that is killed: each program has a guard that waits on a pipe whose
//! other end only the test process holds.
//!
//! Servers are built once by `tools/cluster-programs` into a cache outside the clone.

mod audit;
mod cluster;
mod keda;
mod kwok;
mod objects;
mod pki;
mod process;
mod programs;

pub use audit::{Request, Write};
pub use cluster::{Cluster, Options};
pub use objects::{documents, until};
pub use process::Process;
pub use programs::program;
