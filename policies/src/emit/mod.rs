//! From what a worker pool may reach to policies in each dialect. The operator and the chart apply what comes out of here and
//! nothing else; a property test evaluates each of them and finds the intent proved.

use crate::cluster::Labels;
use crate::sets::{Cidr, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// What the pods of a pool may reach. All else is denied, and nobody may connect to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIntent {
    /// Name of the policies that are made, a DNS label.
    pub name: Arc<str>,
    /// Namespace of the pool's pods.
    pub namespace: Arc<str>,
    /// Labels that select them: keys that every CNI keeps.
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
    /// Addresses of the broker's Service, for implementations that see them before DNAT; with its Service port.
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

/// Protocols that DNS uses.
pub const DNS_PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];
