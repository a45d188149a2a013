//! A cluster as far as policies care: who is in it, with which labels and addresses, and which policies apply.

use crate::matching::Test;
use crate::policy::Policy;
use crate::sets::{AddressSet, Protocol};
use crate::source::{At, ObjectRef};
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use crate::hardening::PodSecurity;
pub use crate::rbac::Rbac;

/// Labels of an object.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Labels that controllers add to the pods they make; a template does not have them yet.
pub(crate) const ADDED_BY_CONTROLLERS: &[&str] = &[
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// A cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Namespaces by name. A namespace that only a pod mentions is not here; its labels are unknown but for
    /// `kubernetes.io/metadata.name`.
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Pods, and one for each workload's template where the workload's own pods are not in the input.
    pub pods: Vec<Pod>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Services.
    pub services: Vec<Service>,
    /// Endpoints and EndpointSlices, by the Service they belong to.
    pub endpoints: Vec<Endpoints>,
    /// Service accounts.
    pub service_accounts: BTreeMap<(Arc<str>, Arc<str>), ServiceAccount>,
    /// Calico tiers by name.
    pub tiers: BTreeMap<Arc<str>, Tier>,
    /// Calico host endpoints; policies may then apply to nodes, which is not modelled: verdicts on nodes become unknown.
    pub host_endpoints: Vec<ObjectRef>,
    /// Policies of every dialect.
    pub policies: Vec<Policy>,
    /// Who may do what.
    pub rbac: Rbac,
    /// WorkerPools of mpegflow.
    pub worker_pools: Vec<WorkerPool>,
    /// Objects that were read and are of no concern here, by kind.
    pub unrelated: BTreeMap<Arc<str>, u32>,
    /// Pods that Cilium manages, by namespace and name: those with a CiliumEndpoint. Empty where the input has none.
    pub cilium_endpoints: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Settings of agents that enforce policies.
    pub settings: Vec<Setting>,
    /// What the input should hold and does not, since whoever gathered it may not read it. Policies that may not be read are among
    /// the policies instead, as ones that may say anything.
    pub missing_rights: Vec<MissingRight>,
}

impl Cluster {
    /// Whether a namespace has a label, and its value passes.
    pub(crate) fn namespace_label(&self, namespace: &str, key: &str, test: &Test) -> Truth {
        match self.namespaces.get(namespace) {
            Some(known) => test.holds(&known.labels, key).into(),
            None if key == "kubernetes.io/metadata.name" => test.passes(namespace).into(),
            None => Truth::Unknown,
        }
    }

    /// Whether a service account has a label, and its value passes.
    pub(crate) fn account_label(
        &self,
        namespace: &Arc<str>,
        account: &Arc<str>,
        key: &str,
        test: &Test,
    ) -> Truth {
        let known = self.service_accounts.get(&(namespace.clone(), account.clone()));
        known.map_or(Truth::Unknown, |known| test.holds(&known.labels, key).into())
    }
}

/// A setting of an agent, in its ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The ConfigMap.
    pub object: ObjectRef,
    /// Where the setting stands.
    pub at: At,
    /// Its key.
    pub key: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
}

/// Something that may not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    /// What it is, and how to come by it.
    pub doubt: Doubt,
    /// Whether it says who may do what, rather than who is in the cluster.
    pub about_rights: bool,
}

/// A namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its place.
    pub at: At,
    /// Its labels, with `kubernetes.io/metadata.name`.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
}

/// A pod, or the template of a workload's pods.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The pod, or the workload it is the template of.
    pub object: ObjectRef,
    /// Its place.
    pub at: At,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels. Labels that the workload's controller adds are not known for templates (see [`Pod::is_template`]).
    pub labels: Labels,
    /// Whether this is a workload's template: it stands for any number of pods with generated names.
    pub is_template: bool,
    /// The object that made it (`metadata.ownerReferences`, controller), if the input says.
    pub owner: Option<ObjectRef>,
    /// Its addresses; empty where the input has none.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares its node's network.
    pub host_network: bool,
    /// The node it runs on, if the input says.
    pub node: Option<Arc<str>>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Ports that its containers name or declare.
    pub ports: Vec<ContainerPort>,
    /// Whether it has finished (`status.phase` Succeeded or Failed): it then has no network.
    pub finished: bool,
    /// Why its traffic may pass where no policy sees it: a network beside the cluster's own.
    pub networks: Option<Doubt>,
    /// What its security settings say.
    pub security: PodSecurity,
}

/// A port that a container declares.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Its name, if any.
    pub name: Option<Arc<str>>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Port on the node, if it has one.
    pub host_port: Option<u16>,
    /// The one address of the node that the port on it is open at (`hostIP`); `None` where it is open at all.
    pub host_ip: Option<IpAddr>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its place.
    pub at: At,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, internal and external.
    pub addresses: Vec<IpAddr>,
    /// Blocks that its pods get addresses from.
    pub pod_cidrs: AddressSet,
}

/// A Service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its object.
    pub object: ObjectRef,
    /// Its place.
    pub at: At,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub kind: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Labels of its backends; `None` where its endpoints are kept by hand.
    pub selector: Option<Labels>,
    /// Cluster addresses; none for a headless one or where the input does not say.
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses: `spec.externalIPs` and those of its load balancer.
    pub external_ips: Vec<IpAddr>,
    /// Those of them that are a load balancer's which packets go out to, also from within the cluster (`ipMode: Proxy`).
    pub proxied_ips: Vec<IpAddr>,
    /// Whether it has a load balancer whose address the input does not say: it is not assigned yet, or is told by a name.
    pub unknown_balancer: Option<UnknownBalancer>,
    /// Whether only backends on the sender's own node get what is sent to a cluster address (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// Whether only backends on the node that a packet came to get it (`externalTrafficPolicy: Local`).
    pub external_local: bool,
    /// The name it stands for, of an `ExternalName`.
    pub external_name: Option<Arc<str>>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone)]
pub struct ServicePort {
    /// Its name, if any.
    pub name: Option<Arc<str>>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service.
    pub port: u16,
    /// Port of its backends.
    pub target: TargetPort,
    /// Port on each node, if any.
    pub node_port: Option<NodePort>,
}

/// Port of a Service on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePort {
    /// This one.
    Number(u16),
    /// One that the API server chooses: a manifest seldom says which.
    Unassigned,
}

/// A load balancer whose address the input does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownBalancer {
    /// It has none yet: a manifest has no status.
    Unassigned,
    /// It is known by a name alone, as those of AWS are. Nodes do not know its addresses either: packets go out to it.
    ByName,
}

/// Port of a Service's backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The port that each backend names so.
    Name(Arc<str>),
}

/// The backends of a Service.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub service: Arc<str>,
    /// Its place.
    pub at: At,
    /// Addresses, with the pod behind each where the input says.
    pub addresses: Vec<(IpAddr, Option<Arc<str>>)>,
    /// Ports: name, protocol, number.
    pub ports: Vec<ContainerPort>,
}

/// A service account.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    /// Its place.
    pub at: At,
    /// Its labels.
    pub labels: Labels,
    /// `automountServiceAccountToken`, if set.
    pub automount_token: Option<bool>,
}

/// A tier of Calico.
#[derive(Debug, Clone)]
pub struct Tier {
    /// Its place.
    pub at: At,
    /// Lower comes first; `None` comes last.
    pub order: Option<f64>,
    /// Whether what no rule of it decides is passed on rather than denied.
    pub default_pass: bool,
}

/// A WorkerPool of mpegflow, as far as the audit needs it.
#[derive(Debug, Clone)]
pub struct WorkerPool {
    /// Its object.
    pub object: ObjectRef,
    /// Its place.
    pub at: At,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The tenant it works for; `None` for a shared one.
    pub tenant: Option<Arc<str>>,
    /// Storage endpoints of a presigned pool, as written; empty for a brokered one.
    pub storage_endpoints: Vec<Arc<str>>,
}
