//! Who is behind an address that is nobody's own: a Service's, or a node's at a node port or host port.
//!
//! Where policies judge a packet before its destination is translated, its egress is that to the address and its ingress that to
//! the backend, at the backend's port. Nobody looks at the pair of the two. Where they judge it afterwards, it is a packet to the
//! backend like any other.

use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster, Pod, Service, ServicePort, TargetPort};
use crate::evaluate::{ClassId, Endpoint, EndpointId, Evaluation, Explanation, Verdict, differ};
use crate::profile::{Answer, Fact, Profile};
use crate::sets::{PortSet, Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything that is behind something.
pub(super) struct Behind<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    evaluation: &'a Evaluation<'a>,
    /// Of each Service, its ports with the backends of each.
    services: Vec<Vec<Port<'a>>>,
    /// Pods with host ports.
    host_ports: Vec<usize>,
}

/// A port of a Service, with its backends.
type Port<'a> = (&'a ServicePort, Vec<Backend>);

/// Somebody who answers for a Service's port.
struct Backend {
    endpoint: EndpointId,
    target: Traffic,
    /// Whether it does.
    is: Truth,
    node: Option<Arc<str>>,
}

/// What kind of address somebody is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A Service's own.
    Cluster(IpAddr),
    /// An external one of a Service.
    External(IpAddr),
    /// A node's.
    Node,
}

/// A way to a backend through an address.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) source: EndpointId,
    pub(super) door: Door,
    /// The Service, by its index; none of a host port.
    pub(super) service: Option<usize>,
    /// The address as an endpoint; none where no policy ever sees it.
    pub(super) front: Option<EndpointId>,
    /// What is sent to it.
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// The address for the reader, such as `10.96.0.5` or `node n2`.
    pub(super) address: String,
    /// What it is of, such as `Service shop/web` or `a host port`.
    pub(super) of: String,
    /// Whether the source's policies see the address.
    pub(super) sees: Answer,
    pub(super) backend: EndpointId,
    /// What the backend gets.
    pub(super) target: Traffic,
    /// Whether it is the backend's.
    is: Truth,
    is_not_known: Vec<Doubt>,
    /// Whom the backend's policies may see as the sender: on some ways a node's address takes the sender's place.
    pub(super) senders: Vec<EndpointId>,
}

/// What comes out of a way.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    /// Whether a packet gets through, where policies see the address.
    pub(super) passes: Truth,
    /// What arrives, surely if it passes for sure, else possibly.
    pub(super) traffic: Traffic,
}

/// A node as a source sees it.
struct NodeFront {
    id: EndpointId,
    name: Option<Arc<str>>,
    is_own: bool,
}

impl<'a> Behind<'a> {
    pub(super) fn new(cluster: &'a Cluster, profile: Profile, evaluation: &'a Evaluation<'a>) -> Self {
        let mut own = Self { cluster, profile, evaluation, services: Vec::new(), host_ports: Vec::new() };
        for service in &cluster.services {
            let ports = service.ports.iter().map(|port| (port, own.backends(service, port))).collect();
            own.services.push(ports);
        }
        let has_one = |pod: &Pod| pod.ports.iter().any(|port| port.host_port.is_some());
        let pods = cluster.pods.iter().enumerate();
        own.host_ports = pods
            .filter(|(_, pod)| !pod.host_network && !pod.finished && has_one(pod))
            .map(|(i, _)| i)
            .collect();
        own
    }

    /// Who answers for a Service's port: the pods that its selector selects, and whatever its EndpointSlices list besides.
    fn backends(&self, service: &Service, port: &ServicePort) -> Vec<Backend> {
        let mut found: Vec<Backend> = Vec::new();
        let mut add = |backend: Backend| {
            let is_known = |own: &Backend| own.endpoint == backend.endpoint && own.target == backend.target;
            if !backend.target.is_none() && !found.iter().any(is_known) {
                found.push(backend);
            }
        };
        for (i, pod) in self.cluster.pods.iter().enumerate() {
            let is = selected(service, pod);
            if let Some(endpoint) = self.evaluation.pod(i).filter(|_| is.may()) {
                let target = match &port.target {
                    TargetPort::Number(number) => PortSet::one(*number),
                    TargetPort::Name(name) => PortSet::of(
                        pod.ports
                            .iter()
                            .filter(|own| own.name.as_ref() == Some(name) && own.protocol == port.protocol)
                            .map(|own| (own.port, own.port)),
                    ),
                };
                let target = Traffic::to(port.protocol, target);
                add(Backend { endpoint, target, is, node: pod.node.clone() });
            }
        }
        let of_service = self.cluster.endpoints.iter().filter(|endpoints| {
            endpoints.namespace == service.namespace && endpoints.service == service.object.name
        });
        for endpoints in of_service {
            let is_port = |own: &&crate::cluster::ContainerPort| {
                let same = own.name.is_none() || port.name.is_none() || own.name == port.name;
                same && own.protocol == port.protocol
            };
            let ports = endpoints.ports.iter().filter(is_port).map(|own| (own.port, own.port));
            let target = Traffic::to(port.protocol, PortSet::of(ports));
            for (address, name) in &endpoints.addresses {
                let by_name = || {
                    let is = |pod: &Pod| {
                        pod.namespace == endpoints.namespace && Some(&pod.object.name) == name.as_ref()
                    };
                    self.cluster.pods.iter().position(is).and_then(|pod| self.evaluation.pod(pod))
                };
                let at = self.evaluation.address(*address);
                let is_outside =
                    |id: &EndpointId| matches!(self.evaluation.endpoint(*id), Some(Endpoint::External(_)));
                // What is at no pod's address may be that of a pod whose address the input does not say.
                let endpoint = at.filter(|id| !is_outside(id)).or_else(by_name).or(at);
                let Some(endpoint) = endpoint else { continue };
                let node = self.pod(endpoint).and_then(|pod| pod.node.clone());
                add(Backend { endpoint, target: target.clone(), is: Truth::Yes, node });
            }
        }
        found
    }

    /// The backends of a Service's port.
    pub(super) fn backends_of(&self, service: usize, port: &ServicePort) -> Vec<(EndpointId, Traffic)> {
        let ports = self.services.get(service).into_iter().flatten();
        let ports = ports.filter(|(own, _)| std::ptr::eq(*own, port));
        ports.flat_map(|(_, backends)| backends).map(|own| (own.endpoint, own.target.clone())).collect()
    }

    /// Ways from a source. Without `every`, those alone that the source's policies may see and may let out, and of nodes that
    /// nothing tells apart one.
    pub(super) fn each(&self, source: EndpointId, every: bool, mut take: impl FnMut(Way)) {
        let mut out: HashMap<EndpointId, Verdict> = HashMap::new();
        let mut lets_out = |front: EndpointId, protocol: Protocol, port: u16| {
            let verdict = out.entry(front).or_insert_with(|| self.evaluation.verdict(source, front));
            every || !verdict.denied.contains(protocol, port)
        };
        let own_node = self.pod(source).and_then(|pod| pod.node.clone());
        let own_nodes = self.nodes_called(own_node.as_ref());
        let nodes = self.node_fronts(source, own_node.as_ref());
        let mut kinds: BTreeMap<ClassId, usize> = BTreeMap::new();
        for (at, node) in nodes.iter().enumerate() {
            kinds.entry(self.evaluation.class(node.id)).or_insert(at);
        }
        let is_first = |at: usize| every || kinds.values().any(|first| *first == at);
        for (index, (service, ports)) in self.cluster.services.iter().zip(&self.services).enumerate() {
            let addresses = service.cluster_ips.iter().map(|ip| Door::Cluster(*ip));
            let addresses = addresses.chain(service.external_ips.iter().map(|ip| Door::External(*ip)));
            for door in addresses {
                let (sees, fronts) = self.address(source, service, door);
                if !every && !sees.truth.may() {
                    continue;
                }
                for front in fronts {
                    for (port, backends) in ports {
                        if front.is_some_and(|front| !lets_out(front, port.protocol, port.port)) {
                            continue;
                        }
                        for backend in backends.iter().filter(|backend| backend.endpoint != source || every) {
                            let (is, is_not_known) =
                                self.at_address(service, door, own_node.as_ref(), backend);
                            if !is.may() {
                                continue;
                            }
                            let mut senders = vec![source];
                            if matches!(door, Door::External(_)) {
                                senders.extend(own_nodes.iter().copied());
                            }
                            let address = match door {
                                Door::Cluster(ip) | Door::External(ip) => ip.to_string(),
                                Door::Node => String::new(),
                            };
                            take(Way {
                                source,
                                door,
                                service: Some(index),
                                front,
                                protocol: port.protocol,
                                port: port.port,
                                address,
                                of: service.object.to_string(),
                                sees,
                                backend: backend.endpoint,
                                target: backend.target.clone(),
                                is,
                                is_not_known,
                                senders: self.seen_by(backend.endpoint, &senders),
                            });
                        }
                    }
                }
            }
            for (port, backends) in ports {
                let Some(number) = port.node_port else { continue };
                for backend in backends.iter().filter(|backend| backend.endpoint != source || every) {
                    for (at, node) in nodes.iter().enumerate() {
                        let holds_it = node.name.is_some() && node.name == backend.node;
                        let sees = self.sees_node(node);
                        if !(is_first(at) || holds_it)
                            || !(every || sees.truth.may())
                            || !lets_out(node.id, port.protocol, number)
                        {
                            continue;
                        }
                        let (mut is, mut is_not_known) = self.is_backend(service, backend);
                        if service.external_local && !holds_it {
                            is = is.and(Truth::Unknown);
                            is_not_known.push(Doubt::at(
                                format!(
                                    "{} has externalTrafficPolicy: Local: whether a node hands a packet on to a backend of \
                                     another node is not known",
                                    service.object
                                ),
                                &service.at,
                            ));
                        }
                        take(self.through_node(
                            (source, node, &own_nodes),
                            (port.protocol, number, &service.object.to_string()),
                            (Some(index), sees),
                            (backend.endpoint, backend.target.clone()),
                            (is, is_not_known),
                        ));
                    }
                }
            }
        }
        for index in &self.host_ports {
            let Some(pod) = self.cluster.pods.get(*index) else { continue };
            let Some(backend) = self.evaluation.pod(*index).filter(|id| *id != source || every) else {
                continue;
            };
            for (port, number) in pod.ports.iter().filter_map(|port| Some((port, port.host_port?))) {
                for (at, node) in nodes.iter().enumerate() {
                    let sees = self.sees_node(node);
                    let is = match (&pod.node, &node.name) {
                        (Some(own), Some(other)) => Truth::from(own == other),
                        _ => Truth::Unknown,
                    };
                    if !is.may()
                        || !(is == Truth::Yes || is_first(at))
                        || !(every || sees.truth.may())
                        || !lets_out(node.id, port.protocol, number)
                    {
                        continue;
                    }
                    let mut doubts = Vec::new();
                    if is == Truth::Unknown {
                        let what = format!("on which node {} runs is not known", pod.object);
                        doubts.push(Doubt::at(what, &pod.at));
                    }
                    take(self.through_node(
                        (source, node, &own_nodes),
                        (port.protocol, number, "a host port"),
                        (None, sees),
                        (backend, Traffic::to(port.protocol, PortSet::one(port.port))),
                        (is, doubts),
                    ));
                }
            }
        }
    }

    fn through_node(
        &self,
        (source, node, own_nodes): (EndpointId, &NodeFront, &[EndpointId]),
        (protocol, port, of): (Protocol, u16, &str),
        (service, sees): (Option<usize>, Answer),
        (backend, target): (EndpointId, Traffic),
        (is, is_not_known): (Truth, Vec<Doubt>),
    ) -> Way {
        let mut senders = vec![source];
        if node.is_own {
            senders.extend_from_slice(own_nodes)
        } else {
            senders.push(node.id)
        }
        Way {
            source,
            door: Door::Node,
            service,
            front: Some(node.id),
            protocol,
            port,
            address: self.evaluation.name(node.id),
            of: of.to_owned(),
            sees,
            backend,
            target,
            is,
            is_not_known,
            senders: self.seen_by(backend, &senders),
        }
    }

    fn pod(&self, endpoint: EndpointId) -> Option<&'a Pod> {
        match self.evaluation.endpoint(endpoint) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => self.cluster.pods.get(*i),
            _ => None,
        }
    }

    /// Nodes as endpoints: the one that is called so, or all where the input does not say which.
    fn nodes_called(&self, name: Option<&Arc<str>>) -> Vec<EndpointId> {
        if let Some(node) = name.and_then(|name| self.evaluation.node(name)) {
            return vec![node];
        }
        let all = self.evaluation.endpoints();
        all.filter(|(_, endpoint)| matches!(endpoint, Endpoint::Node(_) | Endpoint::AnyNode))
            .map(|(id, _)| id)
            .collect()
    }

    fn node_fronts(&self, source: EndpointId, own: Option<&Arc<str>>) -> Vec<NodeFront> {
        let fronts = self.evaluation.destinations(source).filter_map(|(id, endpoint)| match endpoint {
            Endpoint::LocalNode => Some(NodeFront { id, name: own.cloned(), is_own: true }),
            Endpoint::Node(i) => {
                let name = self.cluster.nodes.get(*i).map(|node| node.name.clone());
                Some(NodeFront { id, name, is_own: false })
            }
            Endpoint::AnyNode => Some(NodeFront { id, name: None, is_own: false }),
            _ => None,
        });
        fronts.collect()
    }

    fn sees_node(&self, node: &NodeFront) -> Answer {
        self.profile.fact(if node.is_own { Fact::SeesOwnNodePort } else { Fact::SeesNodePort })
    }

    /// A Service's address as its sender's policies see it, and whether they do.
    fn address(
        &self,
        source: EndpointId,
        service: &Service,
        door: Door,
    ) -> (Answer, Vec<Option<EndpointId>>) {
        let (ip, sees) = match door {
            Door::Cluster(ip) => (ip, self.profile.fact(Fact::SeesClusterIp)),
            Door::External(ip) if service.proxied_ips.contains(&ip) => {
                let why = "the Service says ipMode: Proxy: a packet to this address leaves the cluster for the load balancer";
                (ip, Answer { truth: Truth::Yes, why })
            }
            Door::External(ip) => (ip, self.profile.fact(Fact::SeesExternalAddress)),
            Door::Node => return (self.profile.fact(Fact::SeesNodePort), Vec::new()),
        };
        let fronts = match self.evaluation.address(ip) {
            Some(endpoint) => self.evaluation.seen_from(source, endpoint).into_iter().map(Some).collect(),
            None => vec![None],
        };
        (sees, fronts)
    }

    /// Whether somebody answers for a Service at one of its addresses.
    fn at_address(
        &self,
        service: &Service,
        door: Door,
        own_node: Option<&Arc<str>>,
        backend: &Backend,
    ) -> (Truth, Vec<Doubt>) {
        let (mut is, mut doubts) = self.is_backend(service, backend);
        match door {
            Door::Cluster(_) if service.internal_local => match (own_node, &backend.node) {
                (Some(own), Some(node)) => is = is.and(Truth::from(own == node)),
                _ => {
                    is = is.and(Truth::Unknown);
                    let what = format!(
                        "{} has internalTrafficPolicy: Local, and whether {} is on the sender's node is not known",
                        service.object,
                        self.evaluation.name(backend.endpoint)
                    );
                    doubts.push(Doubt::at(what, &service.at));
                }
            },
            Door::External(ip) if service.proxied_ips.contains(&ip) => {
                is = is.and(Truth::Unknown);
                let what = format!("whom the load balancer at {ip} hands packets on to is not known");
                doubts.push(Doubt::at(what, &service.at));
            }
            _ => {}
        }
        (is, doubts)
    }

    fn is_backend(&self, service: &Service, backend: &Backend) -> (Truth, Vec<Doubt>) {
        let mut doubts = Vec::new();
        if backend.is == Truth::Unknown {
            let what = format!(
                "whether {} is a backend of {} is not known: the labels that its controller adds are not in the input",
                self.evaluation.name(backend.endpoint),
                service.object
            );
            doubts.push(Doubt::at(what, &service.at));
        }
        (backend.is, doubts)
    }

    /// Senders as a backend's policies see them, each kind once.
    fn seen_by(&self, backend: EndpointId, senders: &[EndpointId]) -> Vec<EndpointId> {
        let mut kinds = BTreeMap::new();
        for (at, sender) in senders.iter().enumerate() {
            // A sender is itself: only the nodes that stand in for it are seen from where the backend runs.
            let seen = if at == 0 { vec![*sender] } else { self.evaluation.seen_from(backend, *sender) };
            for one in seen {
                kinds.entry(self.evaluation.class(one)).or_insert((at, one));
            }
        }
        let mut seen: Vec<_> = kinds.into_values().collect();
        seen.sort_unstable();
        seen.into_iter().map(|(_, one)| one).collect()
    }

    /// Whether a packet gets through where policies see the address, and what arrives.
    pub(super) fn passage(&self, way: &Way) -> Passage {
        let out = match way.front {
            Some(front) => self.evaluation.verdict(way.source, front),
            None => return Passage { passes: Truth::No, traffic: Traffic::none() },
        };
        let out = match () {
            () if out.allowed.contains(way.protocol, way.port) => Truth::Yes,
            () if out.denied.contains(way.protocol, way.port) => Truth::No,
            () => Truth::Unknown,
        };
        let (mut surely, mut possibly) = (way.target.clone(), Traffic::none());
        for sender in &way.senders {
            let verdict = self.evaluation.ingress(*sender, way.backend);
            surely = surely.intersection(&verdict.allowed);
            possibly = possibly.union(&verdict.allowed.union(&verdict.unknown).intersection(&way.target));
        }
        let into = match (surely.is_none(), possibly.is_none()) {
            (false, _) => Truth::Yes,
            (true, false) => Truth::Unknown,
            (true, true) => Truth::No,
        };
        let passes = out.and(into).and(way.is);
        Passage { passes, traffic: if passes.must() { surely } else { possibly } }
    }

    /// How it came about: the source's side is of the packet to the address, the destination's of that to the backend. The
    /// verdict is that of the destination's side.
    pub(super) fn explain(&self, way: &Way) -> Explanation {
        let mut explanations =
            way.senders.iter().map(|sender| self.evaluation.explain_ingress(*sender, way.backend));
        let Some(mut found) = explanations.next() else {
            return self.evaluation.explain_ingress(way.source, way.backend);
        };
        let mut disagree = false;
        for other in explanations {
            let part = |verdict: &Verdict| verdict.allowed.intersection(&way.target);
            disagree |= part(&found.verdict) != part(&other.verdict);
            for doubt in other.doubts {
                if !found.doubts.contains(&doubt) {
                    found.doubts.push(doubt);
                }
            }
        }
        if disagree {
            found.doubts.push(Doubt::new(format!(
                "whether {} sees the sender's address or a node's is not known: a packet through {} may carry either",
                self.evaluation.name(way.backend),
                way.text()
            )));
        }
        if let Some(front) = way.front {
            let out = self.evaluation.explain(way.source, front);
            found.egress = out.egress;
            found.exempt = out.exempt.or(found.exempt);
            found.doubts.splice(0..0, out.doubts);
        }
        if way.sees.truth == Truth::Unknown {
            found.doubts.push(differ(self.profile, &way.sees));
        }
        found.doubts.extend(way.is_not_known.iter().cloned());
        let mut seen = Vec::new();
        found.doubts.retain(|doubt| {
            let is_new = !seen.contains(doubt);
            seen.push(doubt.clone());
            is_new
        });
        found
    }
}

impl Way {
    /// What is sent to the address.
    pub(super) fn at(&self) -> Traffic {
        Traffic::to(self.protocol, PortSet::one(self.port))
    }

    /// The address and port for the reader, such as `10.96.0.5 port 443 (Service shop/web)`.
    pub(super) fn text(&self) -> String {
        let Self { address, port, of, protocol, .. } = self;
        match protocol {
            Protocol::Tcp => format!("{address} port {port} ({of})"),
            _ => format!("{address} port {port}/{protocol} ({of})"),
        }
    }
}

/// Whether a Service's selector selects a pod. What a controller adds to a template's labels is not known.
fn selected(service: &Service, pod: &Pod) -> Truth {
    let Some(selector) = &service.selector else { return Truth::No };
    if pod.namespace != service.namespace {
        return Truth::No;
    }
    selector.iter().fold(Truth::Yes, |all, (key, value)| {
        let has = match pod.labels.get(key) {
            Some(own) => Truth::from(own == value),
            None if pod.is_template && ADDED_BY_CONTROLLERS.contains(&&**key) => Truth::Unknown,
            None => Truth::No,
        };
        all.and(has)
    })
}
