//! Who is behind an address that is nobody's own: a Service's, or a node's at a node port or host port.
//!
//! Where policies judge a packet before its destination is translated, its egress is that to the address and its ingress that to
//! the backend, at the backend's port; where they judge it afterwards, both are to the backend. On some ways a node's address
//! takes the sender's place, which makes the ingress that of a node: nobody looks at the pair of the two.
//!
//! | module | says |
//! |---|---|
//! | [`opening`] | what is open, and who answers there |
//! | [`front`] | at which addresses a sender finds it |

mod front;
mod opening;

use crate::cluster::{Cluster, ServicePort};
use crate::evaluate::{Endpoint, EndpointId, Evaluation, Explanation, Verdict, differ};
use crate::profile::{Answer, Fact, Profile};
use crate::sets::{PortSet, Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use front::{Front, Node, Sender, Translator};
use opening::{Backend, Opening, What};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything that is behind something.
pub(super) struct Behind<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    evaluation: &'a Evaluation<'a>,
    openings: Vec<Opening<'a>>,
    /// By who answers, the indices of what it answers at.
    answered: HashMap<EndpointId, Vec<usize>>,
    /// By the template of pods, another pod of it: what one of them sends to an address that all of them are behind, that one gets.
    siblings: HashMap<EndpointId, EndpointId>,
    /// Nodes, each with its name where it has one.
    nodes: Vec<(EndpointId, Option<Arc<str>>)>,
    /// Addresses that a load balancer may have.
    outside: Vec<EndpointId>,
}

/// Which ways are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All, whatever policies say.
    Every,
    /// Those on which a packet may be judged otherwise than one that is sent to the backend itself, and of nodes that nothing
    /// tells apart one.
    Judged,
    /// Those of them that end at somebody.
    To(EndpointId),
}

/// What kind of address somebody is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A Service's own.
    Cluster(IpAddr),
    /// An external one of a Service, or the one address of a node that a host port is open at.
    External(IpAddr),
    /// That of a Service's load balancer, which the input does not say.
    Balancer,
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
    /// What surely arrives.
    pub(super) surely: Traffic,
    /// What may arrive, with what surely does.
    pub(super) possibly: Traffic,
}

impl<'a> Behind<'a> {
    pub(super) fn new(cluster: &'a Cluster, profile: Profile, evaluation: &'a Evaluation<'a>) -> Self {
        let openings = opening::openings(cluster, evaluation);
        let mut answered: HashMap<EndpointId, Vec<usize>> = HashMap::new();
        for (at, opening) in openings.iter().enumerate() {
            for backend in opening.backends.iter().map(|backend| backend.endpoint).collect::<BTreeSet<_>>() {
                answered.entry(backend).or_default().push(at);
            }
        }
        let nodes = evaluation.endpoints().filter_map(|(id, endpoint)| match endpoint {
            Endpoint::Node(i) => Some((id, cluster.nodes.get(*i).map(|node| node.name.clone()))),
            Endpoint::AnyNode => Some((id, None)),
            _ => None,
        });
        let nodes = nodes.collect();
        let siblings = evaluation.endpoints().filter_map(|(id, endpoint)| match endpoint {
            Endpoint::Sibling(i) => Some((evaluation.pod(*i)?, id)),
            _ => None,
        });
        let siblings = siblings.collect();
        let outside = Vec::new();
        let mut own = Self { cluster, profile, evaluation, openings, answered, siblings, nodes, outside };
        own.outside = own.outside();
        own
    }

    /// Whether nobody is behind anything.
    pub(super) fn is_empty(&self) -> bool {
        self.openings.is_empty()
    }

    /// The backends of a Service's port.
    pub(super) fn backends_of(&self, service: &ServicePort) -> Vec<(EndpointId, Traffic)> {
        let is_it = |opening: &&Opening<'_>| matches!(opening.what, What::Service { port, .. } if std::ptr::eq(port, service));
        let backends = self.openings.iter().filter(is_it).flat_map(|opening| &opening.backends);
        backends.map(|own| (own.endpoint, own.target.clone())).collect()
    }

    /// What somebody answers at, as numbers: who answers at the same is behind the same addresses.
    pub(super) fn answers_at(&self, endpoint: EndpointId) -> &[usize] {
        self.answered.get(&endpoint).map(Vec::as_slice).unwrap_or_default()
    }

    /// Ways from a source; to itself only where all are asked for.
    pub(super) fn each(&self, source: EndpointId, scope: Scope, mut take: impl FnMut(Way)) {
        let openings: Vec<&Opening<'_>> = match scope {
            Scope::To(backend) => {
                self.answers_at(backend).iter().filter_map(|at| self.openings.get(*at)).collect()
            }
            Scope::Every | Scope::Judged => self.openings.iter().collect(),
        };
        if openings.is_empty() {
            return;
        }
        let mut sender = self.sender(source);
        for opening in openings {
            for front in self.fronts(opening, &mut sender) {
                for backend in opening.backends.iter().filter(|own| scope.ends_at(own.endpoint)) {
                    let end = match self.siblings.get(&source) {
                        _ if backend.endpoint != source || scope == Scope::Every => backend.endpoint,
                        Some(sibling) => *sibling,
                        None => continue,
                    };
                    if let Some(way) = self.way(opening, &front, &sender, backend, scope) {
                        take(Way { backend: end, ..way });
                    }
                }
            }
        }
    }

    fn way(
        &self,
        opening: &Opening<'_>,
        front: &Front,
        sender: &Sender,
        backend: &Backend,
        scope: Scope,
    ) -> Option<Way> {
        let by = front.translator(sender, backend);
        let senders = self.senders(opening, front, sender, backend, by);
        if scope != Scope::Every {
            let is_direct = senders == [sender.id];
            let is_judged = match front.sees.truth {
                Truth::Yes => !front.is_denied,
                Truth::Unknown => !(is_direct && front.is_denied),
                Truth::No => !is_direct,
            };
            let is_another = |node: &Node| node.is_another(by.runs, sender);
            if !is_judged || front.node.as_ref().is_some_and(is_another) {
                return None;
            }
        }
        let (is, is_not_known) = self.answers(opening, front, sender, backend, by.runs);
        if !is.may() {
            return None;
        }
        let (service, of) = match opening.what {
            What::Service { index, service, .. } => (Some(index), service.object.to_string()),
            What::HostPort { .. } => (None, "a host port".to_owned()),
        };
        let address = match (front.door, front.id) {
            (Door::Cluster(ip) | Door::External(ip), _) => ip.to_string(),
            (Door::Balancer, _) => "its load balancer".to_owned(),
            (Door::Node, id) => id.map(|id| self.evaluation.name(id)).unwrap_or_default(),
        };
        Some(Way {
            source: sender.id,
            door: front.door,
            service,
            front: front.id,
            protocol: opening.protocol,
            port: front.port,
            address,
            of,
            sees: front.sees,
            backend: backend.endpoint,
            target: backend.target.clone(),
            is,
            is_not_known,
            senders,
        })
    }

    /// Whether somebody answers at an address, and what is not known of it. `runs` is whether it runs on the node that has it.
    fn answers(
        &self,
        opening: &Opening<'_>,
        front: &Front,
        sender: &Sender,
        backend: &Backend,
        runs: Truth,
    ) -> (Truth, Vec<Doubt>) {
        let mut is = backend.is;
        let mut doubts = front.doubts.clone();
        if !doubts.is_empty() {
            is = is.and(Truth::Unknown);
        }
        let name = || self.evaluation.name(backend.endpoint);
        let service = match opening.what {
            What::Service { service, .. } => service,
            What::HostPort { pod, .. } => {
                // At an address that is no node's in the input it is open wherever it runs.
                let here = if front.node.is_some() { runs } else { Truth::Yes };
                if here == Truth::Unknown {
                    let what = format!("on which node {} runs is not known", pod.object);
                    doubts.push(Doubt::at(what, &pod.at));
                }
                return (is.and(here), doubts);
            }
        };
        if backend.is == Truth::Unknown {
            let what = format!(
                "whether {} is a backend of {} is not known: the labels that its controller adds are not in the input",
                name(),
                service.object
            );
            doubts.push(Doubt::at(what, &service.at));
        }
        match front.door {
            Door::Cluster(_) if service.internal_local => match (&sender.node, &backend.node) {
                (Some(own), Some(node)) => is = is.and(Truth::from(own == node)),
                _ => {
                    is = is.and(Truth::Unknown);
                    let what = format!(
                        "{} has internalTrafficPolicy: Local, and whether {} is on the sender's node is not known",
                        service.object,
                        name()
                    );
                    doubts.push(Doubt::at(what, &service.at));
                }
            },
            Door::External(ip) if service.proxied_ips.contains(&ip) => {
                is = is.and(Truth::Unknown);
                let what = format!("whom the load balancer at {ip} hands packets on to is not known");
                doubts.push(Doubt::at(what, &service.at));
            }
            // A node drops what comes from outside for another node's backend; of what comes from a pod that is not known.
            Door::Node if service.external_local && runs == Truth::No && !sender.is_pod => is = Truth::No,
            Door::Node if service.external_local && runs != Truth::Yes => {
                is = is.and(Truth::Unknown);
                let what = format!(
                    "{} has externalTrafficPolicy: Local: whether a node hands a packet on to a backend of another node is not \
                     known",
                    service.object
                );
                doubts.push(Doubt::at(what, &service.at));
            }
            _ => {}
        }
        (is, doubts)
    }

    /// Whom a backend's policies may see as the sender: itself, or the node that has translated the packet and put its own address
    /// in the sender's place.
    fn senders(
        &self,
        opening: &Opening<'_>,
        front: &Front,
        sender: &Sender,
        backend: &Backend,
        by: Translator<'_>,
    ) -> Vec<EndpointId> {
        let own_node = || self.evaluation.local_node().into_iter().collect::<Vec<_>>();
        let pick = |itself: &[EndpointId], fact, nodes: Vec<EndpointId>| -> Vec<EndpointId> {
            match self.profile.fact(fact).truth {
                Truth::Yes => nodes,
                Truth::Unknown => [itself, &nodes].concat(),
                Truth::No => itself.to_vec(),
            }
        };
        // What a pod sends to another node may have its own node's address before it comes there; that node is not the backend's.
        let itself = if sender.is_pod && front.is_of_another_node(opening) {
            let nodes = self.other_nodes(sender.node.as_ref(), backend);
            pick(&[sender.id], Fact::SeesClientsNodeAsSender, nodes)
        } else {
            vec![sender.id]
        };
        let one_of = |fact, nodes| pick(&itself, fact, nodes);
        let mut seen = Vec::new();
        match opening.what {
            // Whose policies do not look at senders.
            _ if !matches!(self.evaluation.endpoint(backend.endpoint), Some(Endpoint::Pod(_))) => {
                seen.push(sender.id);
            }
            What::HostPort { .. } => seen.extend(one_of(Fact::SeesHostPortNodeAsSender, own_node())),
            What::Service { service, .. } if front.keeps_sender(service, sender) => seen.extend(&itself),
            What::Service { service, .. } => {
                let is_out = front.is_out_to_balancer(service);
                if is_out {
                    // It sends from its own address, or from its client's, and to any node.
                    seen.push(sender.id);
                    seen.extend(front.id);
                }
                if is_out || by.runs.may() {
                    seen.extend(one_of(Fact::SeesOwnNodeAsSender, own_node()));
                }
                if is_out || !by.runs.must() {
                    let others = self.other_nodes(by.name.filter(|_| !is_out), backend);
                    seen.extend(one_of(Fact::SeesOtherNodeAsSender, others));
                }
            }
        }
        let mut classes = BTreeSet::new();
        seen.retain(|one| classes.insert(self.evaluation.class(*one)));
        seen
    }

    /// The node that is called so, or all where the name is not known; never the backend's own.
    fn other_nodes(&self, name: Option<&Arc<str>>, backend: &Backend) -> Vec<EndpointId> {
        let is_it = |own: &Option<Arc<str>>| match (own, name) {
            (Some(own), Some(name)) => own == name,
            (own, _) => own.is_none() || *own != backend.node,
        };
        self.nodes.iter().filter(|(_, own)| is_it(own)).map(|(id, _)| *id).collect()
    }

    /// Whether a packet gets through, and what arrives, where policies see the address or not as they are said to.
    pub(super) fn passage(&self, way: &Way, sees: Truth) -> Passage {
        let parts = |verdict: &Verdict| {
            let surely = verdict.allowed.intersection(&way.target);
            (surely, verdict.allowed.union(&verdict.unknown).intersection(&way.target))
        };
        let at_front = || match way.front.map(|front| self.evaluation.verdict(way.source, front)) {
            Some(out) if out.allowed.contains(way.protocol, way.port) => {
                (way.target.clone(), way.target.clone())
            }
            Some(out) if !out.denied.contains(way.protocol, way.port) => {
                (Traffic::none(), way.target.clone())
            }
            _ => (Traffic::none(), Traffic::none()),
        };
        let at_backend = || parts(&self.evaluation.egress(way.source, way.backend));
        let (mut surely, mut possibly) = match sees {
            Truth::Yes => at_front(),
            Truth::No => at_backend(),
            Truth::Unknown => {
                let (front, backend) = (at_front(), at_backend());
                (front.0.intersection(&backend.0), front.1.union(&backend.1))
            }
        };
        let mut let_in = Traffic::none();
        for sender in &way.senders {
            let (own, may) = parts(&self.evaluation.ingress(*sender, way.backend));
            surely = surely.intersection(&own);
            let_in = let_in.union(&may);
        }
        possibly = possibly.intersection(&let_in);
        match way.is {
            Truth::Yes => Passage { surely, possibly },
            Truth::Unknown => Passage { surely: Traffic::none(), possibly },
            Truth::No => Passage { surely: Traffic::none(), possibly: Traffic::none() },
        }
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
            let sees = self.profile.fact(Fact::SeesOwnNodeAsSender);
            if sees.truth == Truth::Unknown {
                found.doubts.push(differ(self.profile, &sees));
            }
        }
        if let Some(judged) = if way.sees.truth == Truth::No { Some(way.backend) } else { way.front } {
            let out = self.evaluation.explain(way.source, judged);
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

impl Passage {
    /// Whether a packet gets through.
    pub(super) fn passes(&self) -> Truth {
        match (self.surely.is_none(), self.possibly.is_none()) {
            (false, _) => Truth::Yes,
            (true, false) => Truth::Unknown,
            (true, true) => Truth::No,
        }
    }

    /// What arrives, by how sure that is.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Traffic, Truth)> {
        let parts =
            [(self.surely.clone(), Truth::Yes), (self.possibly.difference(&self.surely), Truth::Unknown)];
        parts.into_iter().filter(|(traffic, _)| !traffic.is_none())
    }
}

impl Scope {
    /// Whether a way to somebody is asked for.
    fn ends_at(self, backend: EndpointId) -> bool {
        match self {
            Self::Every | Self::Judged => true,
            Self::To(wanted) => backend == wanted,
        }
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
