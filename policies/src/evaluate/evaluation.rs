//! One pair at a time: the verdict, and how it came about.

use super::bits::Tri;
use super::endpoints::{Item, Shape, imagined, items};
use super::select::Select;
use super::side::{ALLOWED, Change, Join, Outcome, OutcomeId, START, Sides, StateId, UNKNOWN};
use super::stages::{CompiledRule, End, Expressions, Stage, Step as Compiled, side, stages};
use super::traffic_table::{ALL, NONE, TrafficId, TrafficTable};
use super::{ClassId, Effect, Endpoint, EndpointId, EvaluateError, Explanation, Options, Step, Verdict};
use crate::cluster::Cluster;
use crate::matching::{Match, TrafficMatch};
use crate::policy::{Action, Dialect, Direction};
use crate::profile::{Fact, Profile};
use crate::sets::{Lane, PortSet, Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sets of source ports that are told apart; each multiplies the work of every pair.
const MOST_SOURCE_ATOMS: usize = 64;

/// A cluster under a profile, ready to be asked.
pub struct Evaluation<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) profile: Profile,
    pub(super) core: Core,
    endpoints: Vec<Endpoint>,
    options: Options,
    imagined: Vec<Endpoint>,
}

/// What does not borrow: everything that a verdict is computed from.
pub(super) struct Core {
    pub(super) stages: Vec<Stage>,
    pub(super) selections: Vec<Tri>,
    /// For each traffic expression and port names of the destination, what it surely and possibly matches, for each group
    /// of source ports.
    pub(super) lowered: Vec<Vec<Vec<(TrafficId, TrafficId)>>>,
    pub(super) shapes: Vec<Shape>,
    /// For each endpoint, the number of its table of port names; 0 is for who has none, 1 for whose are not known.
    pub(super) port_names: Vec<u32>,
    /// Groups of source ports that some rule tells apart; one where none does.
    pub(super) source_groups: usize,
    pub(super) classes: Vec<ClassId>,
    pub(super) class_members: Vec<Vec<EndpointId>>,
    /// Protocols that NetworkPolicies apply to, surely and possibly.
    network_policy_lanes: (TrafficId, TrafficId),
    is_network_policy: Vec<bool>,
    own_node_in: Truth,
    own_node_out: Truth,
    host_network_subject: Truth,
    sees_service_address: Truth,
    /// Endpoints that policies may apply to although they are nodes.
    node_subjects: Truth,
    /// The numbers that the rest of this speaks in, and what single pairs have added to them.
    sides: Mutex<Sides>,
}

impl<'a> Evaluation<'a> {
    /// Makes a cluster ready.
    ///
    /// # Errors
    /// There are more endpoints than can be numbered.
    pub fn new(cluster: &'a Cluster, profile: Profile, options: Options) -> Result<Self, EvaluateError> {
        let made = imagined(cluster, &options);
        let (core, endpoints) = {
            let items = items(cluster, profile, &options, &made)?;
            let core = Core::new(cluster, profile, &options, &items);
            (core, items.into_iter().map(|item| item.endpoint).collect())
        };
        Ok(Self { cluster, profile, core, endpoints, options, imagined: made })
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = (EndpointId, &Endpoint)> {
        self.endpoints.iter().enumerate().map(|(i, endpoint)| (EndpointId::at(i), endpoint))
    }

    /// One endpoint.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id.index())
    }

    /// Endpoints that nothing tells apart have the same class.
    pub fn class(&self, id: EndpointId) -> ClassId {
        self.core.classes.get(id.index()).copied().unwrap_or(ClassId(u32::MAX))
    }

    /// Where this one may send, and would look different: not itself, and of nodes its own as [`Endpoint::LocalNode`].
    pub fn destinations(&self, source: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        self.others(source)
            .filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Pod(i) if self.is_finished(*i)))
    }

    /// Who may send to this one.
    pub fn sources(&self, destination: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        self.others(destination).filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Domain(_)))
    }

    fn others(&self, own: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        let own_node = match self.endpoint(own) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => {
                self.cluster.pods.get(*i).and_then(|pod| pod.node.clone())
            }
            _ => None,
        };
        let own_pod = match self.endpoint(own) {
            Some(Endpoint::Pod(i)) => Some(*i),
            _ => None,
        };
        self.endpoints().filter(move |(id, endpoint)| match endpoint {
            _ if *id == own => false,
            // A sibling is another pod of one's own template, and of no other's.
            Endpoint::Sibling(i) => own_pod == Some(*i),
            Endpoint::Node(i) => {
                own_node.is_none() || self.cluster.nodes.get(*i).map(|node| &node.name) != own_node.as_ref()
            }
            _ => true,
        })
    }

    fn is_finished(&self, pod: usize) -> bool {
        self.cluster.pods.get(pod).is_some_and(|pod| pod.finished)
    }

    /// The endpoint of a pod, by its index in the cluster.
    pub fn pod(&self, index: usize) -> Option<EndpointId> {
        self.endpoints().find(|(_, endpoint)| **endpoint == Endpoint::Pod(index)).map(|(id, _)| id)
    }

    /// The endpoint of a node, by its name.
    pub fn node(&self, name: &str) -> Option<EndpointId> {
        let index = self.cluster.nodes.iter().position(|node| *node.name == *name)?;
        self.endpoints().find(|(_, endpoint)| **endpoint == Endpoint::Node(index)).map(|(id, _)| id)
    }

    /// The endpoint of a name that was asked for in the options.
    pub fn domain(&self, name: &str) -> Option<EndpointId> {
        self.endpoints().find(|(_, e)| matches!(e, Endpoint::Domain(own) if **own == *name)).map(|(id, _)| id)
    }

    /// The endpoint that has an address: a pod, a node, or what is outside.
    pub fn address(&self, address: IpAddr) -> Option<EndpointId> {
        let pod = self.cluster.pods.iter().position(|pod| !pod.finished && pod.addresses.contains(&address));
        let node = || self.cluster.nodes.iter().position(|node| node.addresses.contains(&address));
        let wanted = match (pod, node()) {
            (Some(i), None) => Some(Endpoint::Pod(i)),
            // A host-network pod has its node's address.
            (_, Some(i)) => Some(Endpoint::Node(i)),
            (None, None) => None,
        };
        self.endpoints()
            .find(|(_, endpoint)| match (&wanted, endpoint) {
                (Some(wanted), _) => *endpoint == wanted,
                (None, Endpoint::External(set)) => set.contains(address),
                _ => false,
            })
            .map(|(id, _)| id)
    }

    /// What an endpoint is called.
    pub fn name(&self, id: EndpointId) -> String {
        let pod = |i: usize| self.cluster.pods.get(i).map(|pod| pod.object.to_string()).unwrap_or_default();
        match self.endpoint(id) {
            Some(Endpoint::Pod(i)) => pod(*i),
            Some(Endpoint::Sibling(i)) => format!("another pod of {}", pod(*i)),
            Some(Endpoint::LocalNode) => "the pod's own node".into(),
            Some(Endpoint::Node(i)) => {
                format!("node {}", self.cluster.nodes.get(*i).map(|node| &*node.name).unwrap_or_default())
            }
            Some(Endpoint::AnyNode) => "any other node".into(),
            Some(Endpoint::External(set)) => match (crate::places::what(set), set.example()) {
                (Some(what), Some(address)) => format!("{address} ({what})"),
                // What is left of the world between the blocks that somebody names is a list that no one reads.
                (None, Some(address)) if set.ranges().take(4).count() > 3 => {
                    format!("outside addresses such as {address}")
                }
                _ => set.to_string(),
            },
            Some(Endpoint::Domain(name)) => name.to_string(),
            Some(Endpoint::Imagined(pod)) => {
                format!("{} ({}, in namespace {})", pod.because, labels(&pod.labels), pod.namespace)
            }
            None => "nobody".into(),
        }
    }

    /// One of its members, for a packet: the first address of an address set.
    pub fn example(&self, id: EndpointId) -> String {
        match self.endpoint(id) {
            Some(Endpoint::External(set)) => match set.example() {
                Some(address) => match crate::places::what(set) {
                    Some(what) => format!("{address} ({what})"),
                    None => address.to_string(),
                },
                None => set.to_string(),
            },
            _ => self.name(id),
        }
    }

    /// Whether an intent's expression is about an endpoint.
    pub fn matches(&self, what: &Match, id: EndpointId) -> Truth {
        self.with_item(id, |select, item| select.one(what, item, None)).unwrap_or(Truth::No)
    }

    /// What an intent's traffic surely and possibly is, towards a destination.
    pub fn traffic(&self, what: &TrafficMatch, destination: EndpointId) -> (Traffic, Traffic) {
        let ports = match self.endpoint(destination) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => {
                self.cluster.pods.get(*i).map(|pod| pod.ports.as_slice())
            }
            Some(Endpoint::Imagined(_)) => None,
            _ => Some([].as_slice()),
        };
        lower(what, ports, &[], 0, None)
    }

    fn with_item<T>(&self, id: EndpointId, run: impl FnOnce(&Select<'_>, &Item<'_>) -> T) -> Option<T> {
        let item = self.item(id)?;
        let select = Select::new(self.cluster, self.profile, &self.options.trusted_domains, &[]);
        Some(run(&select, &item))
    }

    /// An endpoint with what selectors look at.
    fn item(&self, id: EndpointId) -> Option<Item<'_>> {
        let shape = self.core.shapes.get(id.index()).copied()?;
        let endpoint = self.endpoint(id)?;
        Some(super::endpoints::item(self.cluster, &self.options, &self.imagined, endpoint, shape))
    }

    fn sides(&self) -> MutexGuard<'_, Sides> {
        // Interned values stay valid whatever panicked while they were added to.
        self.core.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on a pair.
    pub fn verdict(&self, source: EndpointId, destination: EndpointId) -> Verdict {
        let mut sides = self.sides();
        let outcome = self.core.pair(&mut sides, source.index(), destination.index());
        verdict(&sides.traffic, sides.outcome(outcome))
    }

    /// The verdict on a pair, and how it came about.
    pub fn explain(&self, source: EndpointId, destination: EndpointId) -> Explanation {
        let mut sides = self.sides();
        let (from, to) = (source.index(), destination.index());
        let outcome = self.core.pair(&mut sides, from, to);
        let verdict = verdict(&sides.traffic, sides.outcome(outcome));
        let exempt = self.core.exempt(from, to);
        let mut explanation = Explanation {
            verdict,
            exempt: exempt.map(Arc::from),
            egress: Vec::new(),
            ingress: Vec::new(),
            doubts: Vec::new(),
        };
        if from == to {
            return explanation;
        }
        for direction in [Direction::Egress, Direction::Ingress] {
            let mut recorder = Recorder { steps: Vec::new(), doubted: Vec::new() };
            let (subject, peer) = match direction {
                Direction::Egress => (from, to),
                Direction::Ingress => (to, from),
            };
            if self.core.is_subject(subject) {
                for group in 0..self.core.source_groups {
                    self.core.run(&mut sides, direction, subject, peer, group, &mut Some(&mut recorder));
                }
            }
            let steps = recorder.steps.iter().map(|raw| self.step(&sides.traffic, direction, raw)).fold(
                Vec::<Step>::new(),
                |mut all, step| {
                    // The groups of source ports mostly agree; what they agree on is said once.
                    let twin = all.iter_mut().find(|other| {
                        (&other.policy, &other.rule, other.effect, &other.stage)
                            == (&step.policy, &step.rule, step.effect, &step.stage)
                    });
                    match twin {
                        Some(twin) => twin.traffic = twin.traffic.union(&step.traffic),
                        None => all.push(step),
                    }
                    all
                },
            );
            match direction {
                Direction::Egress => explanation.egress = steps,
                Direction::Ingress => explanation.ingress = steps,
            }
            if !explanation.verdict.unknown.is_none() {
                self.doubts(
                    &recorder.doubted,
                    direction,
                    EndpointId::at(subject),
                    EndpointId::at(peer),
                    &mut explanation.doubts,
                );
            }
        }
        explanation
    }

    fn step(&self, table: &TrafficTable, direction: Direction, raw: &RawStep) -> Step {
        let stage = raw.stage.and_then(|stage| self.core.stages.get(stage)).map(|stage| stage.name.clone());
        let policy = raw.policy.and_then(|policy| self.cluster.policies.get(policy));
        let rule = policy.zip(raw.rule).and_then(|(policy, rule)| {
            let section = match direction {
                Direction::Ingress => policy.ingress.as_ref(),
                Direction::Egress => policy.egress.as_ref(),
            };
            section?.rules.get(rule)
        });
        Step {
            direction,
            stage: stage.unwrap_or_else(|| "after all policies".into()),
            policy: policy.map(|policy| policy.object.clone()),
            rule: rule.map(|rule| rule.path.clone()),
            at: rule.map(|rule| rule.at.clone()).or_else(|| policy.map(|policy| policy.at.clone())),
            effect: raw.effect,
            traffic: table.get(raw.traffic),
            note: rule.and_then(|rule| rule.note.clone()),
        }
    }

    fn doubts(
        &self,
        doubted: &[(usize, Option<usize>)],
        direction: Direction,
        subject: EndpointId,
        peer: EndpointId,
        into: &mut Vec<Doubt>,
    ) {
        let (Some(own), Some(other)) = (self.item(subject), self.item(peer)) else { return };
        let select = Select::new(self.cluster, self.profile, &self.options.trusted_domains, &[]);
        let (own_name, other_name) = (self.name(subject), self.name(peer));
        for (policy, rule) in doubted {
            let Some(policy) = self.cluster.policies.get(*policy) else { continue };
            let enforced = self.profile.fact(Fact::Enforces(policy.dialect));
            let mut push = |doubt: Doubt| {
                if !into.contains(&doubt) {
                    into.push(doubt);
                }
            };
            if enforced.truth == Truth::Unknown {
                let what = format!(
                    "whether {} is enforced is not known: {}; name the CNI with --cni",
                    policy.object, enforced.why
                );
                push(Doubt::at(what, &policy.at));
            }
            policy.doubts.iter().cloned().for_each(&mut push);
            let dialect = Some(policy.dialect);
            select.doubts(&policy.subject, &own, dialect, &own_name, into);
            let section = match direction {
                Direction::Ingress => policy.ingress.as_ref(),
                Direction::Egress => policy.egress.as_ref(),
            };
            let rules = section.map(|section| section.rules.as_slice()).unwrap_or_default();
            for rule in
                rules.iter().enumerate().filter(|(i, _)| rule.is_none_or(|rule| rule == *i)).map(|(_, r)| r)
            {
                select.doubts(&rule.peer, &other, dialect, &other_name, into);
                traffic_doubts(&rule.traffic, into);
                if rule.action == Action::Unknown {
                    let doubt = Doubt::at(
                        format!("what {} {} does is not known", policy.object, rule.path),
                        &rule.at,
                    );
                    if !into.contains(&doubt) {
                        into.push(doubt);
                    }
                }
            }
        }
        if into.is_empty() {
            let facts = [
                Fact::OwnNodeIsLetIn,
                Fact::OwnNodeIsLetOut,
                Fact::PolicesOtherProtocols,
                Fact::SeesClusterIp,
            ];
            for answer in
                facts.map(|fact| self.profile.fact(fact)).iter().filter(|a| a.truth == Truth::Unknown)
            {
                into.push(Doubt::new(format!("implementations differ: {}; name one with --cni", answer.why)));
            }
        }
    }
}

fn traffic_doubts(what: &TrafficMatch, into: &mut Vec<Doubt>) {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
            parts.iter().for_each(|part| traffic_doubts(part, into))
        }
        TrafficMatch::Not(inner) => traffic_doubts(inner, into),
        TrafficMatch::Doubt(doubt) if !into.contains(doubt) => into.push(doubt.clone()),
        _ => {}
    }
}

fn labels(labels: &crate::cluster::Labels) -> String {
    if labels.is_empty() {
        return "without labels".into();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(super) fn verdict(table: &TrafficTable, outcome: Outcome) -> Verdict {
    Verdict {
        allowed: table.get(outcome.allowed),
        denied: table.get(outcome.denied),
        unknown: table.get(outcome.unknown),
    }
}

/// What a run did, for an explanation.
pub(super) struct Recorder {
    steps: Vec<RawStep>,
    /// Policies, and rules of them, whose say is not known.
    doubted: Vec<(usize, Option<usize>)>,
}

struct RawStep {
    stage: Option<usize>,
    policy: Option<usize>,
    rule: Option<usize>,
    effect: Effect,
    traffic: TrafficId,
}

impl Core {
    fn new(cluster: &Cluster, profile: Profile, options: &Options, items: &[Item<'_>]) -> Self {
        let mut sides = Sides::new();
        let mut select = Select::new(cluster, profile, &options.trusted_domains, items);
        let mut expressions = Expressions::default();
        let stages = stages(cluster, profile, &mut select, &mut expressions);
        let selections = select.into_results();
        let shapes: Vec<Shape> = items.iter().map(|item| item.shape).collect();

        let atoms = source_atoms(&expressions);
        let (port_names, name_tables) = port_names(&expressions, items);
        let lowered = expressions
            .all
            .iter()
            .map(|(what, dialect)| {
                name_tables
                    .iter()
                    .map(|ports| {
                        (0..atoms.len())
                            .map(|group| {
                                let (lo, hi) =
                                    lower(what, ports.as_deref(), &atoms, group, Some((*dialect, profile)));
                                (sides.traffic.id(lo), sides.traffic.id(hi))
                            })
                            .collect()
                    })
                    .collect()
            })
            .collect();
        let port_lanes = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .iter()
            .fold(Traffic::none(), |all, protocol| all.union(&protocol.traffic()));
        let port_lanes = sides.traffic.id(port_lanes);
        // Where SCTP is not filtered for sure, being isolated does not stop it for sure.
        let sctp_lane = sides.traffic.id(Protocol::Sctp.traffic());
        let without_sctp = |table: &mut TrafficTable, id| match profile.fact(Fact::Sctp).truth {
            Truth::Yes => id,
            Truth::Unknown | Truth::No => table.difference(id, sctp_lane),
        };
        let (surely, possibly) = match profile.fact(Fact::PolicesOtherProtocols).truth {
            Truth::Yes => (ALL, ALL),
            Truth::Unknown => (port_lanes, ALL),
            Truth::No => (port_lanes, port_lanes),
        };
        let network_policy_lanes = (without_sctp(&mut sides.traffic, surely), possibly);
        // Policies for nodes (Calico's host endpoints, Cilium's host firewall) are not modelled: what they may select is open.
        let selects_nodes = stages.iter().flat_map(|stage| stage.bands.iter().flatten()).any(|step| {
            let subject = usize::try_from(step.subject).ok().and_then(|i| selections.get(i));
            subject.is_some_and(|tri| {
                shapes.iter().enumerate().any(|(i, shape)| {
                    matches!(shape, Shape::LocalNode | Shape::RemoteNode) && tri.get(i).may()
                })
            })
        });
        let node_subjects =
            if selects_nodes || !cluster.host_endpoints.is_empty() { Truth::Unknown } else { Truth::No };
        let truth = |fact| profile.fact(fact).truth;
        let mut core = Self {
            stages,
            selections,
            lowered,
            shapes,
            port_names,
            source_groups: atoms.len(),
            classes: Vec::new(),
            class_members: Vec::new(),
            network_policy_lanes,
            is_network_policy: cluster.policies.iter().map(|p| p.dialect == Dialect::NetworkPolicy).collect(),
            own_node_in: truth(Fact::OwnNodeIsLetIn),
            own_node_out: truth(Fact::OwnNodeIsLetOut),
            host_network_subject: truth(Fact::HostNetworkIsSubject),
            sees_service_address: truth(Fact::SeesClusterIp),
            node_subjects,
            sides: Mutex::new(sides),
        };
        core.classify(items);
        core
    }

    /// Puts endpoints that no selection, shape or port name tells apart into one class.
    fn classify(&mut self, items: &[Item<'_>]) {
        let mut ids: HashMap<(Shape, u32, bool), u32> = HashMap::new();
        let mut class: Vec<u32> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let names = self.port_names.get(i).copied().unwrap_or_default();
            let next = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            // A template's pod has siblings, another pod has none: kept apart for those who count pairs.
            class.push(*ids.entry((item.shape, names, item.is_template)).or_insert(next));
        }
        let mut count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        // Refined selection by selection; only members move.
        for tri in &self.selections {
            let mut split: HashMap<(u32, bool), u32> = HashMap::new();
            for member in tri.may.iter() {
                let Some(slot) = class.get_mut(member) else { continue };
                let key = (*slot, tri.must.has(member));
                let to = *split.entry(key).or_insert_with(|| {
                    let next = count;
                    count = count.saturating_add(1);
                    next
                });
                *slot = to;
            }
        }
        // Numbered anew in the order of their first members, without the gaps that whole moves leave.
        let mut dense: HashMap<u32, u32> = HashMap::new();
        for (i, slot) in class.iter_mut().enumerate() {
            let next = u32::try_from(dense.len()).unwrap_or(u32::MAX);
            *slot = *dense.entry(*slot).or_insert(next);
            let at = usize::try_from(*slot).unwrap_or(usize::MAX);
            if at == self.class_members.len() {
                self.class_members.push(Vec::new());
            }
            if let Some(members) = self.class_members.get_mut(at) {
                members.push(EndpointId::at(i));
            }
        }
        self.classes = class.into_iter().map(ClassId).collect();
    }

    /// The numbers, for one who goes on counting on its own.
    pub(super) fn sides(&self) -> Sides {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_subject(&self, endpoint: usize) -> bool {
        matches!(self.shapes.get(endpoint), Some(Shape::Pod))
    }

    /// Why a pair passes without any policy's say.
    fn exempt(&self, from: usize, to: usize) -> Option<&'static str> {
        let shape = |i: usize| self.shapes.get(i);
        if from == to {
            Some("traffic of a pod to itself is never filtered")
        } else if shape(from) == Some(&Shape::HostPod) {
            Some("the source is on its node's network, outside every policy for pods")
        } else if shape(from) == Some(&Shape::LocalNode) && self.own_node_in.must() {
            Some("a pod's own node always reaches it")
        } else {
            None
        }
    }

    /// The outcome of a pair.
    pub(super) fn pair(&self, sides: &mut Sides, from: usize, to: usize) -> OutcomeId {
        if from == to {
            return ALLOWED;
        }
        let mut joined = None;
        for group in 0..self.source_groups {
            let egress = self.side(sides, Direction::Egress, from, to, group);
            let ingress = self.side(sides, Direction::Ingress, to, from, group);
            let both = sides.join(Join::Both, egress, ingress);
            joined = Some(match joined {
                None => both,
                Some(before) => sides.join(Join::Pick, before, both),
            });
        }
        joined.unwrap_or(UNKNOWN)
    }

    /// The outcome of one side of a pair.
    pub(super) fn side(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        group: usize,
    ) -> OutcomeId {
        let outcome = match self.shapes.get(subject) {
            Some(Shape::Pod) => {
                let state = self.run(sides, direction, subject, peer, group, &mut None);
                sides.end(state)
            }
            Some(Shape::HostPod) if self.host_network_subject != Truth::No => UNKNOWN,
            Some(Shape::HostPod | Shape::LocalNode | Shape::RemoteNode) if self.node_subjects.may() => {
                UNKNOWN
            }
            _ => ALLOWED,
        };
        self.exempted(sides, direction, subject, peer, outcome)
    }

    /// What a profile lets through, or may, whatever policies say.
    pub(super) fn exempted(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        outcome: OutcomeId,
    ) -> OutcomeId {
        let shape = |i: usize| self.shapes.get(i).copied();
        let let_through = match (direction, shape(peer)) {
            _ if shape(subject) != Some(Shape::Pod) => Truth::No,
            (Direction::Ingress, Some(Shape::LocalNode)) => self.own_node_in,
            (Direction::Egress, Some(Shape::LocalNode)) => self.own_node_out,
            // It may run on the same node, and then counts as that.
            (Direction::Ingress, Some(Shape::HostPod)) => self.own_node_in.and(Truth::Unknown),
            (Direction::Egress, Some(Shape::HostPod)) => self.own_node_out.and(Truth::Unknown),
            _ => Truth::No,
        };
        let outcome = match let_through {
            Truth::Yes => ALLOWED,
            Truth::Unknown => sides.join(Join::Either, outcome, ALLOWED),
            Truth::No => outcome,
        };
        // Where it is not known whether policies see a Service's own address, a packet to it may also stand for one to a
        // backend, whose verdict is its own.
        let service = direction == Direction::Egress && shape(peer) == Some(Shape::ServiceAddress);
        if service && self.sees_service_address == Truth::Unknown {
            let denied = sides.outcome_id(Outcome { allowed: NONE, denied: ALL, unknown: NONE });
            return sides.join(Join::Either, outcome, denied);
        }
        outcome
    }

    pub(super) fn selected(&self, selection: u32, endpoint: usize) -> Truth {
        let index = usize::try_from(selection).unwrap_or(usize::MAX);
        self.selections.get(index).map_or(Truth::No, |tri| tri.get(endpoint))
    }

    /// What a rule surely and possibly matches of traffic to a destination.
    pub(super) fn lowered(
        &self,
        rule: &CompiledRule,
        destination: usize,
        group: usize,
    ) -> (TrafficId, TrafficId) {
        let names = self.port_names.get(destination).copied().unwrap_or_default();
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        self.lowered
            .get(at(rule.traffic))
            .and_then(|tables| tables.get(at(names)))
            .and_then(|groups| groups.get(group))
            .copied()
            .unwrap_or((NONE, ALL))
    }

    /// The end of a stage for a subject: certain and possible denials of what is undecided.
    pub(super) fn stage_end(
        &self,
        stage: &Stage,
        side: usize,
        selects: &mut impl FnMut(&Compiled) -> Truth,
        table: &mut TrafficTable,
    ) -> Change {
        let (mut must, mut may) = (NONE, NONE);
        for step in stage.bands.iter().flatten() {
            let applies = match stage.end {
                End::Next => Truth::No,
                End::Isolation => step.isolates.get(side).copied().unwrap_or(Truth::No),
                End::DenyWhereApplied => Truth::from(step.has_section.get(side) == Some(&true)),
            };
            if applies == Truth::No {
                continue;
            }
            let applies = applies.and(selects(step));
            let is_network_policy = self.is_network_policy.get(step.policy) == Some(&true);
            let (surely, possibly) = if is_network_policy { self.network_policy_lanes } else { (ALL, ALL) };
            if applies.must() {
                must = table.union(must, surely);
            }
            if applies.may() {
                may = table.union(may, possibly);
            }
        }
        Change::End { must, may }
    }

    /// Runs all stages for one subject and peer.
    pub(super) fn run(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        group: usize,
        recorder: &mut Option<&mut Recorder>,
    ) -> StateId {
        let at = side(direction);
        let destination = if direction == Direction::Egress { peer } else { subject };
        let mut state = START;
        for (number, stage) in self.stages.iter().enumerate() {
            for band in &stage.bands {
                let start = state;
                let mut united = None;
                for step in band {
                    let selects = step.enforced.and(self.selected(step.subject, subject));
                    let mut own = start;
                    if selects.may() {
                        if step.opaque {
                            let change = Change::Rule { action: Action::Unknown, must: NONE, may: ALL };
                            own = self.take(sides, own, change, recorder, (number, step.policy, None));
                        }
                        for rule in step.rules.get(at).into_iter().flatten() {
                            let matches = selects.and(self.selected(rule.peer, peer));
                            if !matches.may() {
                                continue;
                            }
                            let (surely, possibly) = self.lowered(rule, destination, group);
                            let must = if matches.must() { surely } else { NONE };
                            let change = Change::Rule { action: rule.action, must, may: possibly };
                            own = self.take(
                                sides,
                                own,
                                change,
                                recorder,
                                (number, step.policy, Some(rule.index)),
                            );
                        }
                    }
                    united = Some(match united {
                        None => own,
                        Some(before) => sides.unite(before, own),
                    });
                }
                state = united.unwrap_or(start);
            }
            let mut isolating: Vec<usize> = Vec::new();
            let mut doubtful = Vec::new();
            let mut selects = |step: &Compiled| {
                let truth = step.enforced.and(self.selected(step.subject, subject));
                if truth.must() {
                    isolating.push(step.policy);
                } else if truth.may() {
                    doubtful.push(step.policy);
                }
                truth
            };
            let end = self.stage_end(stage, at, &mut selects, &mut sides.traffic);
            if let (Some(recorder), Change::End { must, may }) = (recorder.as_deref_mut(), end) {
                let rest = sides.state(state).rest;
                let surely = sides.traffic.intersection(rest, must);
                let possibly = sides.traffic.intersection(rest, may);
                let unsure = sides.traffic.difference(possibly, surely);
                for policy in &isolating {
                    recorder.note(Some(number), Some(*policy), None, Effect::DeniesByDefault, surely);
                }
                let first = doubtful.first().or(isolating.first()).copied();
                recorder.note(Some(number), first, None, Effect::Unsure, unsure);
                if unsure != NONE {
                    recorder.doubted.extend(doubtful.into_iter().map(|policy| (policy, None)));
                }
            }
            state = sides.step(state, end);
        }
        if let Some(recorder) = recorder.as_deref_mut() {
            let rest = sides.state(state).rest;
            recorder.note(None, None, None, Effect::AllowsByDefault, rest);
        }
        sides.step(state, Change::Finish)
    }

    fn take(
        &self,
        sides: &mut Sides,
        state: StateId,
        change: Change,
        recorder: &mut Option<&mut Recorder>,
        (stage, policy, rule): (usize, usize, Option<usize>),
    ) -> StateId {
        if let (Some(recorder), Change::Rule { action, must, may }) = (recorder.as_deref_mut(), change) {
            let rest = sides.state(state).rest;
            let surely = sides.traffic.intersection(rest, must);
            let possibly = sides.traffic.intersection(rest, may);
            let unsure = sides.traffic.difference(possibly, surely);
            let effect = match action {
                Action::Allow => Effect::Allows,
                Action::Deny => Effect::Denies,
                Action::Pass => Effect::Passes,
                Action::Unknown => Effect::Unsure,
            };
            recorder.note(Some(stage), Some(policy), rule, effect, surely);
            recorder.note(Some(stage), Some(policy), rule, Effect::Unsure, unsure);
            if unsure != NONE || action == Action::Unknown {
                recorder.doubted.push((policy, rule));
            }
        }
        sides.step(state, change)
    }
}

impl Recorder {
    fn note(
        &mut self,
        stage: Option<usize>,
        policy: Option<usize>,
        rule: Option<usize>,
        effect: Effect,
        traffic: TrafficId,
    ) {
        if traffic != NONE {
            self.steps.push(RawStep { stage, policy, rule, effect, traffic });
        }
    }
}

/// What a traffic expression surely and possibly matches towards a destination with these ports, for one group of source
/// ports. Without a dialect it is an intent's.
fn lower(
    what: &TrafficMatch,
    ports: Option<&[crate::cluster::ContainerPort]>,
    atoms: &[PortSet],
    group: usize,
    of: Option<(Dialect, Profile)>,
) -> (Traffic, Traffic) {
    let exact = |traffic: Traffic| (traffic.clone(), traffic);
    match what {
        TrafficMatch::Anything => exact(Traffic::all()),
        TrafficMatch::Nothing => exact(Traffic::none()),
        TrafficMatch::All(parts) => parts.iter().fold(exact(Traffic::all()), |(lo, hi), part| {
            let (a, b) = lower(part, ports, atoms, group, of);
            (lo.intersection(&a), hi.intersection(&b))
        }),
        TrafficMatch::OneOf(parts) => parts.iter().fold(exact(Traffic::none()), |(lo, hi), part| {
            let (a, b) = lower(part, ports, atoms, group, of);
            (lo.union(&a), hi.union(&b))
        }),
        TrafficMatch::Not(inner) => {
            let (lo, hi) = lower(inner, ports, atoms, group, of);
            (hi.complement(), lo.complement())
        }
        TrafficMatch::Protocol(protocol) => sctp(*protocol, protocol.traffic(), of),
        TrafficMatch::Ports(protocol, set) => {
            let (lo, hi) = sctp(*protocol, Traffic::to(*protocol, set.clone()), of);
            let Some((Dialect::NetworkPolicy, profile)) = of else { return (lo, hi) };
            // Only `endPort` makes a range of more than one port there.
            let firsts = Traffic::to(*protocol, PortSet::of(set.iter().map(|(first, _)| (first, first))));
            match profile.fact(Fact::EndPort).truth {
                Truth::Yes => (lo, hi),
                // Ports of several entries that touch are one interval, too: what lies in it is not surely left out.
                Truth::Unknown | Truth::No => (lo.intersection(&firsts), hi),
            }
        }
        TrafficMatch::NamedPort(protocol, name) => {
            let Some(ports) = ports else { return (Traffic::none(), protocol.traffic()) };
            let named = ports.iter().filter(|p| p.protocol == *protocol && p.name.as_ref() == Some(name));
            let set = PortSet::of(named.map(|p| (p.port, p.port)));
            // A name that one pod uses for several ports stands for one of them; which one differs.
            let is_one = set.iter().len() <= 1 && set.iter().all(|(first, last)| first == last);
            let (lo, hi) = sctp(*protocol, Traffic::to(*protocol, set), of);
            if is_one { (lo, hi) } else { (Traffic::none(), hi) }
        }
        TrafficMatch::SourcePorts(protocol, set) => {
            let atom = atoms.get(group);
            let all = atom.is_none_or(|atom| atom.is_subset(set));
            let some = atom.is_none_or(|atom| atom.intersects(set));
            let traffic = |is: bool| if is { protocol.traffic() } else { Traffic::none() };
            (traffic(all), traffic(some))
        }
        TrafficMatch::Doubt(_) => (Traffic::none(), Traffic::all()),
    }
}

/// A rule about SCTP is only sure where the implementation has SCTP.
fn sctp(protocol: Protocol, traffic: Traffic, of: Option<(Dialect, Profile)>) -> (Traffic, Traffic) {
    let honoured = match of {
        Some((_, profile)) if protocol == Protocol::Sctp => profile.fact(Fact::Sctp).truth,
        _ => Truth::Yes,
    };
    let lo = if honoured.must() { traffic.clone() } else { Traffic::none() };
    (lo, traffic)
}

/// The largest sets of source ports that no rule divides; one of all where none asks for source ports.
fn source_atoms(expressions: &Expressions) -> Vec<PortSet> {
    fn walk(what: &TrafficMatch, atoms: &mut Vec<PortSet>) {
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| walk(part, atoms))
            }
            TrafficMatch::Not(inner) => walk(inner, atoms),
            // Beyond the cap the atoms stay coarse, and a rule that divides one is unknown on it.
            TrafficMatch::SourcePorts(_, set) if atoms.len() < MOST_SOURCE_ATOMS => {
                *atoms = atoms
                    .iter()
                    .flat_map(|atom| [atom.intersection(set), atom.difference(set)])
                    .filter(|atom| !atom.is_empty())
                    .collect();
            }
            _ => {}
        }
    }
    let mut atoms = vec![Lane::Tcp.ports()];
    expressions.all.iter().for_each(|(what, _)| walk(what, &mut atoms));
    atoms
}

/// For each endpoint the number of its table of port names, as far as rules ask for them; and the tables.
fn port_names(
    expressions: &Expressions,
    items: &[Item<'_>],
) -> (Vec<u32>, Vec<Option<Vec<crate::cluster::ContainerPort>>>) {
    fn walk<'m>(what: &'m TrafficMatch, names: &mut std::collections::HashSet<(&'m str, Protocol)>) {
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| walk(part, names))
            }
            TrafficMatch::Not(inner) => walk(inner, names),
            TrafficMatch::NamedPort(protocol, name) => {
                names.insert((name, *protocol));
            }
            _ => {}
        }
    }
    let mut names = std::collections::HashSet::new();
    expressions.all.iter().for_each(|(what, _)| walk(what, &mut names));
    let mut tables: Vec<Option<Vec<crate::cluster::ContainerPort>>> = vec![Some(Vec::new()), None];
    let mut known: HashMap<Vec<crate::cluster::ContainerPort>, u32> = [(Vec::new(), 0)].into();
    let numbers = items
        .iter()
        .map(|item| {
            if item.is_imagined {
                return 1;
            }
            let asked = |port: &&crate::cluster::ContainerPort| {
                port.name.as_ref().is_some_and(|name| names.contains(&(&**name, port.protocol)))
            };
            let mut own: Vec<_> = item.ports.iter().filter(asked).cloned().collect();
            for port in &mut own {
                port.host_port = None;
            }
            own.sort_unstable();
            own.dedup();
            *known.entry(own).or_insert_with_key(|own| {
                tables.push(Some(own.clone()));
                u32::try_from(tables.len().saturating_sub(1)).unwrap_or(u32::MAX)
            })
        })
        .collect();
    (numbers, tables)
}
