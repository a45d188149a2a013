//! An object of a pool, and the kinds there are.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Annotation with a digest of what was applied: what a later version no longer wants is seen by it.
pub(super) const APPLIED: &str = "mpegflow.io/applied";

/// Kinds of objects that a pool owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `cilium.io/v2`.
    CiliumNetworkPolicy,
    /// `projectcalico.org/v3`.
    CalicoNetworkPolicy,
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    ConfigMap,
    /// `policy/v1`.
    PodDisruptionBudget,
    /// `apps/v1`.
    Deployment,
    /// `keda.sh/v1alpha1`.
    ScaledObject,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CalicoNetworkPolicy,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::PodDisruptionBudget,
        Self::Deployment,
        Self::ScaledObject,
    ];

    /// Whether a cluster may not know it.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::CiliumNetworkPolicy | Self::CalicoNetworkPolicy | Self::ScaledObject)
    }

    /// Whether it stands around pods: nothing runs before it.
    pub fn is_policy(self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::CiliumNetworkPolicy | Self::CalicoNetworkPolicy)
    }

    /// Group, version, kind and plural name.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::CiliumNetworkPolicy => ("cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies"),
            Self::CalicoNetworkPolicy => ("projectcalico.org", "v3", "NetworkPolicy", "networkpolicies"),
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::ScaledObject => ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// An object that a pool needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Its name, a DNS label.
    pub name: String,
    /// The object with all that the operator owns of it, and the annotation [`APPLIED`].
    pub object: Value,
}

impl Child {
    /// An object of a kind, with header and digest added.
    pub(super) fn new(kind: Kind, mut object: Value) -> Self {
        let resource = kind.resource();
        if let Some(map) = object.as_object_mut() {
            map.insert("apiVersion".into(), json!(resource.api_version));
            map.insert("kind".into(), json!(resource.kind));
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut child = Self { kind, name, object };
        child.stamp();
        child
    }

    /// The digest of what is wanted.
    pub fn digest(&self) -> &str {
        applied(&self.object)
    }

    /// The same with so many replicas. How many there are is not part of the digest: it changes all the time.
    pub fn with_replicas(mut self, replicas: i32) -> Self {
        if let Some(spec) = self.object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("replicas".into(), json!(replicas));
        }
        self
    }

    fn stamp(&mut self) {
        let digest = format!("{:016x}", fnv(self.object.to_string().as_bytes()));
        if let Some(metadata) = self.object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("annotations".into(), json!({ APPLIED: digest }));
        }
    }
}

/// The digest in an object's annotation; empty if it has none.
pub(crate) fn applied(object: &Value) -> &str {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|a| a.get(APPLIED)).and_then(Value::as_str).unwrap_or_default()
}

/// FNV-1a. It tells versions of our own text apart and keeps nobody out; std's hasher may change with the compiler, and then
/// every upgrade would write every object.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
