//! Where a sender finds what is open: the addresses of a Service, and the nodes at a node port or host port.

use super::opening::{Backend, Opening, What, pod_of};
use super::{Behind, Door};
use crate::cluster::{NodePort, Service, UnknownBalancer};
use crate::evaluate::{ClassId, Endpoint, EndpointId, Verdict};
use crate::places;
use crate::profile::{Answer, Fact};
use crate::sets::{PortSet, Protocol, Traffic};
use crate::source::ObjectRef;
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Ports that the API server chooses node ports from, unless it is told others (`--service-node-port-range`).
const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// Somebody who sends.
pub(super) struct Sender {
    pub(super) id: EndpointId,
    /// Whether it is a pod: it then has a node of its own, though perhaps not one that the input names.
    pub(super) is_pod: bool,
    pub(super) node: Option<Arc<str>>,
    nodes: Vec<Node>,
    /// What its policies let out to each front that was asked about.
    out: HashMap<EndpointId, Verdict>,
}

/// A node as a sender sees it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    id: EndpointId,
    name: Option<Arc<str>>,
    is_own: bool,
    /// Whether it stands for the node of whoever answers, whichever that is: who is no pod may send to any.
    is_backends: bool,
    /// Whether it is the first of its class.
    is_first: bool,
}

/// An address that something is open at, as a sender sees it.
pub(super) struct Front {
    pub(super) door: Door,
    /// The address as an endpoint; none where no policy ever sees it.
    pub(super) id: Option<EndpointId>,
    /// The node that it is one of.
    pub(super) node: Option<Node>,
    pub(super) port: u16,
    /// Whether the sender's policies see the address.
    pub(super) sees: Answer,
    /// Whether they surely do not let anything out to it.
    pub(super) is_denied: bool,
    /// What is not known of it: then whether anybody answers there is not, either.
    pub(super) doubts: Vec<Doubt>,
}

impl Front {
    /// The node that translates what is sent to it: the one whose address it is, else the sender's own, which of who is outside
    /// may be any.
    pub(super) fn translator<'f>(&'f self, sender: &'f Sender, backend: &Backend) -> Translator<'f> {
        match &self.node {
            Some(node) => Translator { name: node.name.as_ref(), runs: node.runs(backend, sender) },
            None => {
                let both = sender.node.as_ref().zip(backend.node.as_ref());
                let runs = both.map_or(Truth::Unknown, |(own, other)| Truth::from(own == other));
                Translator { name: sender.node.as_ref(), runs }
            }
        }
    }

    /// Whether a Service's backends surely get what is sent to it with the sender's own address.
    pub(super) fn keeps_sender(&self, service: &Service, sender: &Sender) -> bool {
        match self.door {
            Door::Cluster(_) => true,
            Door::Node => service.external_local,
            // The API of Services: from within the cluster these "always get Cluster semantics".
            Door::External(_) | Door::Balancer => {
                service.external_local && !sender.is_pod && !self.is_out_to_balancer(service)
            }
        }
    }

    /// Whether it is a node's, and not the sender's own.
    pub(super) fn is_of_another_node(&self, opening: &Opening<'_>) -> bool {
        match &self.node {
            Some(node) => !node.is_own,
            None => matches!(opening.what, What::HostPort { .. }),
        }
    }

    /// Whether it is a load balancer's that packets go out to.
    pub(super) fn is_out_to_balancer(&self, service: &Service) -> bool {
        match self.door {
            Door::External(ip) => service.proxied_ips.contains(&ip),
            door => door == Door::Balancer,
        }
    }

    fn new(door: Door, id: Option<EndpointId>, port: u16, sees: Answer) -> Self {
        Self { door, id, node: None, port, sees, is_denied: false, doubts: Vec::new() }
    }
}

/// To who is no pod no policy says what it may send.
const NO_POD: Answer = Answer { truth: Truth::Yes, why: "the sender is no pod" };

impl Sender {
    /// What its policies let out to an address.
    fn out(&mut self, behind: &Behind<'_>, to: EndpointId) -> &Verdict {
        let id = self.id;
        self.out.entry(to).or_insert_with(|| behind.evaluation.verdict(id, to))
    }

    /// A packet to one of some ports that they let out, surely or possibly, and whether all of them surely are.
    fn lets_out(
        &mut self,
        behind: &Behind<'_>,
        to: EndpointId,
        protocol: Protocol,
        ports: PortSet,
    ) -> Option<(u16, bool)> {
        let wanted = Traffic::to(protocol, ports);
        let verdict = self.out(behind, to);
        let (_, port) = wanted.difference(&verdict.denied).example()?;
        Some((port, wanted.is_subset(&verdict.allowed)))
    }
}

/// The node that translates a packet's destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Translator<'a> {
    /// Its name, where it is known.
    pub(super) name: Option<&'a Arc<str>>,
    /// Whether the backend runs on it.
    pub(super) runs: Truth,
}

impl Node {
    /// Whether a backend runs on it.
    fn runs(&self, backend: &Backend, sender: &Sender) -> Truth {
        match (&self.name, &backend.node) {
            _ if self.is_backends => Truth::Yes,
            (Some(own), Some(other)) => Truth::from(own == other),
            // Who may choose the node has chosen the backend's as another way.
            _ if !sender.is_pod => Truth::No,
            _ => Truth::Unknown,
        }
    }

    /// Whether another node has its way: nothing tells it from that one, or who is no pod has the backend's own node already.
    pub(super) fn is_another(&self, runs: Truth, sender: &Sender) -> bool {
        match runs {
            Truth::Yes => !sender.is_pod && !self.is_backends,
            Truth::Unknown | Truth::No => !self.is_first,
        }
    }
}

impl Behind<'_> {
    pub(super) fn sender(&self, id: EndpointId) -> Sender {
        let is_pod = matches!(
            self.evaluation.endpoint(id),
            Some(Endpoint::Pod(_) | Endpoint::Sibling(_) | Endpoint::Imagined(_))
        );
        let node = pod_of(self.cluster, self.evaluation, id).and_then(|pod| pod.node.clone());
        let own = self.evaluation.local_node().map(|id| Node {
            id,
            name: node.clone(),
            is_own: is_pod,
            is_backends: !is_pod,
            is_first: true,
        });
        let mut classes: BTreeSet<ClassId> = BTreeSet::new();
        let others = self.nodes.iter().filter(|(_, name)| name.is_none() || *name != node);
        let others = others.map(|(id, name)| Node {
            id: *id,
            name: name.clone(),
            is_own: false,
            is_backends: false,
            is_first: classes.insert(self.evaluation.class(*id)),
        });
        let nodes = own.into_iter().chain(others).collect();
        Sender { id, is_pod, node, nodes, out: HashMap::new() }
    }

    /// Where a sender finds what is open.
    pub(super) fn fronts(&self, opening: &Opening<'_>, sender: &mut Sender) -> Vec<Front> {
        let mut found = Vec::new();
        match opening.what {
            What::Service { service, port, .. } => {
                for ip in &service.cluster_ips {
                    found.extend(self.at_address(Door::Cluster(*ip), service, port.port, sender));
                }
                for ip in &service.external_ips {
                    found.extend(self.at_address(Door::External(*ip), service, port.port, sender));
                }
                if let Some(unknown) = service.unknown_balancer {
                    found.extend(self.at_balancer(unknown, service, (port.protocol, port.port), sender));
                }
                let ports = match port.node_port {
                    Some(NodePort::Number(number)) => Some((number, number)),
                    Some(NodePort::Unassigned) => Some(NODE_PORTS),
                    None => None,
                };
                if let Some(ports) = ports {
                    found.extend(self.at_nodes(opening.protocol, ports, &service.object, sender));
                }
            }
            What::HostPort { pod, port, address } => {
                let nodes = self.at_nodes(opening.protocol, (port, port), &pod.object, sender);
                found.extend(match address {
                    None => nodes,
                    Some(address) => self.at_one_address(address, port, nodes, sender),
                });
            }
        }
        for front in &mut found {
            front.is_denied =
                front.id.is_some_and(|id| sender.out(self, id).denied.contains(opening.protocol, front.port));
        }
        found
    }

    /// Of the nodes at a host port those that have the one address that it is open at, or may; beside them the address itself where
    /// it is no node's of the input.
    fn at_one_address(&self, address: IpAddr, port: u16, nodes: Vec<Front>, sender: &Sender) -> Vec<Front> {
        let at = self.evaluation.address(address);
        let seen = at.map(|at| self.evaluation.seen_from(sender.id, at)).unwrap_or_default();
        let is_of_node = at.is_some_and(|at| matches!(self.evaluation.endpoint(at), Some(Endpoint::Node(_))));
        let has_it = |front: &Front| match (is_of_node, &front.node) {
            (true, Some(node)) => {
                Truth::from(node.is_backends || front.id.is_some_and(|id| seen.contains(&id)))
            }
            (false, Some(node)) if self.are_addresses_known(node) => Truth::No,
            _ => Truth::Unknown,
        };
        let mut found = Vec::new();
        for mut front in nodes {
            let has_it = has_it(&front);
            if has_it == Truth::Unknown {
                let name = front.id.map(|id| self.evaluation.name(id)).unwrap_or_default();
                front
                    .doubts
                    .push(Doubt::new(format!("whether {name} has the address {address} is not known")));
            }
            if has_it.may() {
                found.push(front);
            }
        }
        if !is_of_node {
            let sees = if sender.is_pod { self.profile.fact(Fact::SeesNodePort) } else { NO_POD };
            found
                .extend(seen.into_iter().map(|id| Front::new(Door::External(address), Some(id), port, sees)));
        }
        found
    }

    fn are_addresses_known(&self, node: &Node) -> bool {
        let found =
            node.name.as_ref().and_then(|name| self.cluster.nodes.iter().find(|own| own.name == *name));
        found.is_some_and(|node| !node.addresses.is_empty())
    }

    /// A Service's address as its sender's policies see it, and whether they do.
    fn at_address(&self, door: Door, service: &Service, port: u16, sender: &Sender) -> Vec<Front> {
        let (ip, sees) = match door {
            Door::Cluster(ip) => (ip, self.profile.fact(Fact::SeesClusterIp)),
            Door::External(ip) if service.proxied_ips.contains(&ip) => (ip, OUT_TO_BALANCER),
            Door::External(ip) => (ip, self.profile.fact(Fact::SeesExternalAddress)),
            Door::Balancer | Door::Node => return Vec::new(),
        };
        let sees = if sender.is_pod { sees } else { NO_POD };
        let ids = match self.evaluation.address(ip) {
            Some(at) => self.evaluation.seen_from(sender.id, at).into_iter().map(Some).collect(),
            None => vec![None],
        };
        ids.into_iter().map(|id| Front::new(door, id, port, sees)).collect()
    }

    /// A load balancer whose address is not known may have any address outside. Who is outside has no need of it: it hands packets
    /// on to nodes.
    fn at_balancer(
        &self,
        unknown: UnknownBalancer,
        service: &Service,
        (protocol, port): (Protocol, u16),
        sender: &mut Sender,
    ) -> Option<Front> {
        if !sender.is_pod {
            return None;
        }
        let (sees, what) = match unknown {
            UnknownBalancer::ByName => (OUT_TO_BALANCER, "is told by name alone"),
            UnknownBalancer::Unassigned => {
                (self.profile.fact(Fact::SeesExternalAddress), "is not assigned yet")
            }
        };
        let is_open = |id: &&EndpointId| sender.lets_out(self, **id, protocol, PortSet::one(port)).is_some();
        let id = self.outside.iter().find(is_open).copied()?;
        let what = format!("the address of the load balancer of {} {what}: it may be any", service.object);
        let doubts = vec![Doubt::at(what, &service.at)];
        Some(Front { doubts, ..Front::new(Door::Balancer, Some(id), port, sees) })
    }

    /// Each node at a port, or at one of a range of which it is not known which.
    fn at_nodes(
        &self,
        protocol: Protocol,
        (first, last): (u16, u16),
        of: &ObjectRef,
        sender: &mut Sender,
    ) -> Vec<Front> {
        let mut found = Vec::new();
        for node in sender.nodes.clone() {
            let sees = match () {
                () if !sender.is_pod => NO_POD,
                () if node.is_own => self.profile.fact(Fact::SeesOwnNodePort),
                () => self.profile.fact(Fact::SeesNodePort),
            };
            let mut front = Front::new(Door::Node, Some(node.id), first, sees);
            let ports = PortSet::range(first, last);
            if first < last
                && let Some((port, false)) = sender.lets_out(self, node.id, protocol, ports)
            {
                front.port = port;
                front.doubts.push(Doubt::new(format!(
                    "the node port of {of} is not in the input: the API server chooses one of {first} to {last}"
                )));
            }
            found.push(Front { node: Some(node), ..front });
        }
        found
    }

    /// Addresses outside that are nobody's in the input and no metadata service's.
    pub(super) fn outside(&self) -> Vec<EndpointId> {
        let taken = places::service_addresses(self.cluster).union(&places::metadata_addresses());
        let all = self.evaluation.endpoints();
        all.filter(|(_, endpoint)| matches!(endpoint, Endpoint::External(set) if !set.is_subset(&taken)))
            .map(|(id, _)| id)
            .collect()
    }
}

const OUT_TO_BALANCER: Answer = Answer {
    truth: Truth::Yes,
    why: "a packet to this load balancer leaves the cluster for it, since nodes do not translate its address",
};
