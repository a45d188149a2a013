//! Who is whose own node. A node is an endpoint by itself, seen from pods that run elsewhere; to its own pods it is
//! [`Endpoint::LocalNode`]. A host-network pod is its node wherever policies see it so.

use super::evaluation::Evaluation;
use super::{Endpoint, EndpointId};
use crate::policy::Dialect;
use crate::profile::Fact;
use crate::truth::Truth;
use std::sync::Arc;

impl Evaluation<'_> {
    /// What an endpoint may be to another one, whose policies judge it: itself; of a node, or of a host-network pod that policies
    /// see as its node, the own node or that other one, and each that is possible where the input does not say who runs where.
    pub fn seen_from(&self, subject: EndpointId, other: EndpointId) -> Vec<EndpointId> {
        let Some(node) = self.node_behind(other) else { return vec![other] };
        let own = match self.endpoint(subject) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) if self.core.is_subject(subject.index()) => {
                self.cluster.pods.get(*i).and_then(|pod| pod.node.as_ref())
            }
            // To a node, or to the outside, no node is its own.
            _ => return self.node_named(node.as_ref()),
        };
        match (own, &node) {
            (Some(own), Some(node)) if own == node => self.local_node().into_iter().collect(),
            (Some(_), Some(_)) => self.node_named(node.as_ref()),
            // A single node of the input, or a template's pod, may run anywhere.
            _ => self.local_node().into_iter().chain(self.node_named(node.as_ref())).collect(),
        }
    }

    /// Whether an endpoint is a host-network pod that policies see as its node, and that node is an endpoint, too: what holds of
    /// the node, seen from its own pods and from others, holds of the pod.
    pub fn is_its_node(&self, endpoint: EndpointId) -> bool {
        matches!(self.endpoint(endpoint), Some(Endpoint::Pod(_)))
            && self
                .node_behind(endpoint)
                .flatten()
                .is_some_and(|name| self.cluster.nodes.iter().any(|node| node.name == name))
    }

    /// The name of the node that an endpoint is, as far as the input has it; `None` if it is no node.
    fn node_behind(&self, endpoint: EndpointId) -> Option<Option<Arc<str>>> {
        match self.endpoint(endpoint)? {
            Endpoint::Node(i) => Some(self.cluster.nodes.get(*i).map(|node| node.name.clone())),
            Endpoint::Pod(i) => {
                let pod = self.cluster.pods.get(*i).filter(|pod| pod.host_network)?;
                self.host_pods_are_nodes().then(|| pod.node.clone())
            }
            _ => None,
        }
    }

    fn host_pods_are_nodes(&self) -> bool {
        let truth = |fact| self.profile.fact(fact).truth;
        truth(Fact::HostNetworkIsSubject) == Truth::No
            && Dialect::ALL
                .into_iter()
                .filter(|dialect| truth(Fact::Enforces(*dialect)).may())
                .all(|dialect| truth(Fact::HostNetworkIsPeer(dialect)) == Truth::No)
    }

    /// The endpoint that stands for the other end's own node.
    pub(crate) fn local_node(&self) -> Option<EndpointId> {
        self.endpoints().find(|(_, endpoint)| **endpoint == Endpoint::LocalNode).map(|(id, _)| id)
    }

    /// The endpoint of a node; of one without a name in the input, every other node.
    fn node_named(&self, name: Option<&Arc<str>>) -> Vec<EndpointId> {
        let one = name.and_then(|name| self.node(name));
        match one {
            Some(node) => vec![node],
            None => {
                let is_node = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Node(_) | Endpoint::AnyNode);
                self.endpoints().filter(|(_, endpoint)| is_node(endpoint)).map(|(id, _)| id).collect()
            }
        }
    }
}
