//! From what a worker pool may reach to policies in each dialect. The operator and the chart apply what comes out of here and
//! nothing else; a property test evaluates each of them and finds the intent proved.
//!
//! Every dialect says the same: the pool's pods may open connections to the broker's pods on one port, to the storage
//! endpoints of a presigned pool, and to the cluster's DNS servers if the pool asked for DNS; nothing else, and nobody may
//! connect to them. Where a dialect can deny explicitly, it does, so that a policy added later cannot undo it.
//!
//! ```
//! use mpegflow_policies::cluster::Labels;
//! use mpegflow_policies::emit::{BrokerPeer, PoolIntent, to_yaml};
//! use mpegflow_policies::policy::Dialect;
//!
//! let label = |key: &str, value: &str| Labels::from([(key.into(), value.into())]);
//! let pool = PoolIntent {
//!     name: "fast".into(),
//!     namespace: "media".into(),
//!     pods: label("mpegflow.io/pool", "fast"),
//!     labels: Labels::new(),
//!     broker: BrokerPeer {
//!         namespace: "mpegflow".into(),
//!         pods: label("app.kubernetes.io/name", "mpegflow-broker"),
//!         port: 8443,
//!         service: None,
//!     },
//!     storage: Vec::new(),
//!     dns: None,
//! };
//! for dialect in [Dialect::NetworkPolicy, Dialect::Cilium, Dialect::Calico, Dialect::ClusterNetworkPolicy] {
//!     for policy in pool.policies(dialect)? {
//!         println!("---\n{}", to_yaml(&policy));
//!         assert!(policy["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty()));
//!     }
//! }
//! # Ok::<(), mpegflow_policies::emit::EmitError>(())
//! ```

mod calico;
mod cilium;
mod cluster_network_policy;
mod network_policy;
mod yaml;

use crate::cluster::Labels;
use crate::policy::Dialect;
use crate::sets::{AddressSet, Cidr, Family, Protocol};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;

pub use yaml::to_yaml;

/// What the pods of a pool may reach. All else is denied, and nobody may connect to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIntent {
    /// Name of the policies that are made, a DNS label.
    pub name: Arc<str>,
    /// Namespace of the pool's pods.
    pub namespace: Arc<str>,
    /// Labels that select them; keys that every CNI keeps.
    pub pods: Labels,
    /// Labels for the policies themselves.
    pub labels: Labels,
    /// The broker.
    pub broker: BrokerPeer,
    /// Storage endpoints that a presigned pool may reach besides; empty for a brokered one.
    pub storage: Vec<StoragePeer>,
    /// The cluster's DNS servers, where the pool asked for DNS.
    pub dns: Option<DnsPeer>,
}

/// The broker's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerPeer {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Labels that select them.
    pub pods: Labels,
    /// TCP port of the worker API on the pods (after DNAT: the target port).
    pub port: u16,
    /// Addresses of the broker's Service and its port there, for implementations that see them before DNAT.
    pub service: Option<(Vec<IpAddr>, u16)>,
}

/// A storage endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePeer {
    /// Its addresses. Every dialect admits these.
    pub blocks: Vec<Cidr>,
    /// Its name, admitted besides where the dialect has rules for names and the pool has DNS.
    pub domain: Option<Arc<str>>,
    /// TCP port.
    pub port: u16,
}

/// DNS servers in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsPeer {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Labels that select them.
    pub pods: Labels,
    /// Port on the pods, for UDP and TCP; often 53, on OpenShift 5353.
    pub port: u16,
}

/// Why no policy is made of an intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// A selector without labels selects every pod.
    #[error("{0} has no labels: it would select every pod of its namespace")]
    SelectsAll(&'static str),
    /// A label key that some CNI does not keep.
    #[error(
        "the label {0:?} is not kept by every CNI as part of a pod's identity; use a key of your own domain"
    )]
    DroppedLabel(Arc<str>),
    /// A storage block that holds addresses no worker may reach.
    #[error("the storage block {block} contains {what}; name the endpoint's own addresses")]
    Forbidden {
        /// The block.
        block: Cidr,
        /// What it contains.
        what: &'static str,
    },
    /// A storage endpoint without an address that this dialect could admit.
    #[error(
        "storage endpoint {0} has no addresses; only dialects with rules for names can admit it, and only with DNS"
    )]
    NoAddress(Arc<str>),
    /// A port of zero.
    #[error("port 0 is not a port")]
    Port,
}

/// Protocols that DNS uses.
pub const DNS_PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// Addresses that no worker has business with, wherever the cluster runs: loopback, link-local (with the metadata services of
/// AWS, Google Cloud and Azure on 169.254.0.0/16), the metadata services outside it, multicast.
const FORBIDDEN: &[(&str, &str)] = &[
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "link-local addresses, the cloud's metadata service among them"),
    ("100.100.100.200/32", "Alibaba Cloud's metadata service"),
    ("168.63.129.16/32", "Azure's wire server"),
    ("192.0.0.192/32", "Oracle Cloud's metadata service"),
    ("224.0.0.0/4", "multicast addresses"),
    ("::1/128", "the loopback address"),
    ("fd00:ec2::254/128", "the metadata service of AWS"),
    ("fd20:ce::254/128", "the metadata service of Google Cloud"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
];

impl PoolIntent {
    /// The policies of one dialect that make this intent true, as objects of the API server.
    pub fn policies(&self, dialect: Dialect) -> Result<Vec<Value>, EmitError> {
        self.check()?;
        match dialect {
            Dialect::NetworkPolicy => network_policy::policies(self),
            Dialect::ClusterNetworkPolicy => cluster_network_policy::policies(self),
            Dialect::Cilium => Ok(cilium::policies(self)),
            Dialect::Calico => calico::policies(self),
            // Superseded by ClusterNetworkPolicy; nothing emits them.
            Dialect::AdminNetworkPolicy => Ok(Vec::new()),
        }
    }

    fn check(&self) -> Result<(), EmitError> {
        let selectors = [("the pool", Some(&self.pods)), ("the broker", Some(&self.broker.pods))];
        let dns = [("the DNS servers", self.dns.as_ref().map(|dns| &dns.pods))];
        for (whose, labels) in selectors.into_iter().chain(dns) {
            let Some(labels) = labels else { continue };
            if labels.is_empty() {
                return Err(EmitError::SelectsAll(whose));
            }
            // The DNS servers' labels are the cluster's, and k8s-app is kept by all.
            if let Some(key) = labels.keys().find(|key| is_dropped(key)) {
                return Err(EmitError::DroppedLabel(key.clone()));
            }
        }
        let ports = [self.broker.port].into_iter().chain(self.broker.service.as_ref().map(|(_, port)| *port));
        let ports =
            ports.chain(self.storage.iter().map(|s| s.port)).chain(self.dns.as_ref().map(|dns| dns.port));
        if ports.into_iter().any(|port| port == 0) {
            return Err(EmitError::Port);
        }
        for block in self.storage.iter().flat_map(|storage| &storage.blocks) {
            for (forbidden, what) in FORBIDDEN {
                let Ok(forbidden) = forbidden.parse() else { continue };
                if AddressSet::block(*block).intersects(&AddressSet::block(forbidden)) {
                    return Err(EmitError::Forbidden { block: *block, what });
                }
            }
        }
        Ok(())
    }

    /// Storage endpoints of a dialect without rules for names: each needs addresses.
    fn storage_blocks(&self) -> Result<Vec<(&StoragePeer, Vec<Cidr>)>, EmitError> {
        self.storage
            .iter()
            .map(|storage| match (storage.blocks.is_empty(), &storage.domain) {
                (true, Some(domain)) => Err(EmitError::NoAddress(domain.clone())),
                (true, None) => Err(EmitError::NoAddress("without a name".into())),
                _ => Ok((storage, storage.blocks.clone())),
            })
            .collect()
    }

    /// `metadata` of a namespaced policy.
    fn metadata(&self) -> Value {
        let mut metadata = json!({ "name": &*self.name, "namespace": &*self.namespace });
        add_labels(&mut metadata, &self.labels);
        metadata
    }

    /// `metadata` of a cluster-wide policy: its name holds the namespace, so that pools of one name do not collide.
    fn cluster_metadata(&self) -> Value {
        let mut metadata = json!({ "name": format!("{}-{}", self.namespace, self.name) });
        add_labels(&mut metadata, &self.labels);
        metadata
    }
}

/// Whether some CNI does not see a pod's label. Cilium's default filter leaves out `kubernetes.io`, `k8s.io` and their
/// subdomains but `app.kubernetes.io` and `io.kubernetes…` (pkg/labelsfilter/filter.go), and labels that controllers
/// change with each revision.
fn is_dropped(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return matches!(key, "pod-template-hash" | "controller-revision-hash" | "pod-template-generation");
    };
    domain != "app.kubernetes.io"
        && ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|end| domain == *end || domain.ends_with(&format!(".{end}")))
        || domain.starts_with("io.kubernetes")
}

fn add_labels(metadata: &mut Value, labels: &Labels) {
    if let (Some(metadata), false) = (metadata.as_object_mut(), labels.is_empty()) {
        metadata.insert("labels".into(), labels_value(labels));
    }
}

fn labels_value(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect::<Map<_, _>>())
}

/// The namespace's selector by the label that the API server itself sets.
fn namespace_selector(namespace: &str) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } })
}

/// The family's whole space as a block.
fn everywhere(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    }
}
