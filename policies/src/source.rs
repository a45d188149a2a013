//! Where something was said: a place in a source, an object.

use std::fmt;
use std::sync::Arc;

pub use crate::read::node::At;

/// Names an object of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// API group, empty for the core group. The version is left out: the same object may be read in several.
    pub group: Arc<str>,
    /// Kind, such as `NetworkPolicy`.
    pub kind: Arc<str>,
    /// Namespace; `None` for what has none.
    pub namespace: Option<Arc<str>>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    /// `NetworkPolicy prod/deny-all`; kinds that exist in several groups carry theirs: `NetworkPolicy.projectcalico.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ambiguous =
            matches!(&*self.kind, "NetworkPolicy" | "ClusterNetworkPolicy" | "AdminNetworkPolicy");
        f.write_str(&self.kind)?;
        if ambiguous && !matches!(&*self.group, "networking.k8s.io" | "policy.networking.k8s.io") {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.name),
            None => write!(f, " {}", self.name),
        }
    }
}
