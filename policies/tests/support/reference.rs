//! A second evaluator, as plain as can be: one packet at a time, straight from the words of the specifications. It knows
//! NetworkPolicy and the cluster-wide kinds. What it and the evaluator of the library say of a packet must be the same.

use mpegflow_policies::cluster::{Cluster, Node, Pod};
use mpegflow_policies::matching::{Kind, LabelOwner, Match, Test, TrafficMatch};
use mpegflow_policies::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy, Section};
use mpegflow_policies::profile::{Fact, Pipeline, Profile};
use mpegflow_policies::sets::{AddressSet, Protocol};
use mpegflow_policies::truth::Truth;
use std::cell::RefCell;
use std::net::IpAddr;

type Packet = (Protocol, u16);

/// Whether the packet passes, and what is not known.
pub(crate) fn judge(
    cluster: &Cluster,
    profile: Profile,
    source: &str,
    destination: &str,
    packet: Packet,
) -> (Truth, Vec<String>) {
    let judge = Judge { cluster, profile, unknown: RefCell::default() };
    let (from, to) = (judge.end(source), judge.end(destination));
    // Within one network namespace nothing is policed.
    let truth = if source == destination && matches!(from, End::Pod(_)) {
        Truth::Yes
    } else {
        let egress = judge.side(Direction::Egress, &from, &to, &to, packet);
        let ingress = judge.side(Direction::Ingress, &to, &from, &to, packet);
        egress.and(ingress)
    };
    let mut reasons = judge.unknown.into_inner();
    reasons.sort();
    reasons.dedup();
    (truth, if truth == Truth::Unknown { reasons } else { Vec::new() })
}

enum End<'a> {
    Pod(&'a Pod),
    LocalNode,
    Node(&'a Node),
    External(IpAddr),
}

/// What may have become of a packet.
#[derive(Clone, Copy, Default, PartialEq)]
struct Fates {
    allowed: bool,
    denied: bool,
    passed: bool,
    undecided: bool,
}

impl Fates {
    fn or(self, other: Self) -> Self {
        Self {
            allowed: self.allowed || other.allowed,
            denied: self.denied || other.denied,
            passed: self.passed || other.passed,
            undecided: self.undecided || other.undecided,
        }
    }

    /// What is undecided so far meets this next.
    fn then(self, next: Self) -> Self {
        if self.undecided { Self { undecided: false, ..self }.or(next) } else { self }
    }
}

struct Judge<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    unknown: RefCell<Vec<String>>,
}

impl<'a> Judge<'a> {
    fn end(&self, who: &str) -> End<'a> {
        if who == "local-node" {
            return End::LocalNode;
        }
        if let Some(name) = who.strip_prefix("node:") {
            return End::Node(self.cluster.nodes.iter().find(|node| &*node.name == name).unwrap());
        }
        if let Ok(address) = who.parse() {
            return End::External(address);
        }
        let (namespace, name) = who.split_once('/').unwrap();
        let is = |pod: &&Pod| &*pod.namespace == namespace && &*pod.object.name == name;
        End::Pod(self.cluster.pods.iter().find(is).unwrap_or_else(|| panic!("no pod {who}")))
    }

    fn ask(&self, fact: Fact<'_>) -> Truth {
        let answer = self.profile.fact(fact);
        if answer.truth == Truth::Unknown {
            self.unknown.borrow_mut().push(answer.why.to_owned());
        }
        answer.truth
    }

    fn side(
        &self,
        direction: Direction,
        subject: &End<'_>,
        peer: &End<'_>,
        destination: &End<'_>,
        packet: Packet,
    ) -> Truth {
        let End::Pod(pod) = subject else { return Truth::Yes };
        let policed = if pod.host_network { self.ask(Fact::HostNetworkIsSubject) } else { Truth::Yes };
        let exempt = match (peer, direction) {
            (End::LocalNode, Direction::Ingress) => self.ask(Fact::OwnNodeIsLetIn),
            (End::LocalNode, Direction::Egress) => self.ask(Fact::OwnNodeIsLetOut),
            _ => Truth::No,
        };
        let by_policy = self.stages(direction, subject, peer, destination, packet);
        // Where policies may not apply, the packet may pass all the same.
        (!policed).or(exempt).or(by_policy)
    }

    fn stages(
        &self,
        direction: Direction,
        subject: &End<'_>,
        peer: &End<'_>,
        destination: &End<'_>,
        packet: Packet,
    ) -> Truth {
        let view = View { direction, subject, peer, destination, packet };
        let tier = |tier| self.tier(tier, &view);
        let start = Fates { undecided: true, ..Fates::default() };
        let admin = start.then(tier(ClusterTier::Admin));
        // Passing skips the rest of a tier, and so does having reached its end.
        let left =
            |fates: Fates| Fates { undecided: fates.undecided || fates.passed, passed: false, ..fates };
        let own = left(admin).then(self.network_policies(&view));
        let end = left(left(own).then(tier(ClusterTier::Baseline)));
        match (end.allowed || end.undecided, end.denied) {
            (true, false) => Truth::Yes,
            (false, true) => Truth::No,
            _ => Truth::Unknown,
        }
    }

    /// Whether a policy has a say of the subject, with the section that has it.
    fn selected<'p>(&self, policy: &'p Policy, view: &View<'_>) -> (Truth, Option<&'p Section>) {
        let section = if view.direction == Direction::Ingress { &policy.ingress } else { &policy.egress };
        // Whether host-network pods are subjects at all is asked elsewhere.
        let selects = self.matches_as(&policy.subject, view.subject, true, policy.dialect);
        let doubted = if policy.doubts.is_empty() || !selects.may() {
            Truth::Yes
        } else {
            self.unknown.borrow_mut().extend(policy.doubts.iter().map(|doubt| doubt.to_string()));
            Truth::Unknown
        };
        let enforced = if selects.may() { self.ask(Fact::Enforces(policy.dialect)) } else { Truth::No };
        (selects.and(doubted).and(enforced), section.as_ref())
    }

    fn network_policies(&self, view: &View<'_>) -> Fates {
        // Of each policy that may select the subject: whether it does, and whether its rules then allow the packet.
        let mut say: Vec<(Truth, Truth)> = Vec::new();
        for policy in self.cluster.policies.iter().filter(|policy| policy.dialect == Dialect::NetworkPolicy) {
            let (selected, Some(section)) = self.selected(policy, view) else { continue };
            if !selected.may() {
                continue;
            }
            let mut allows = Truth::No;
            for rule in &section.rules {
                let peer = self.matches(&rule.peer, view.peer, policy.dialect);
                let traffic =
                    if peer.may() { self.carries(&rule.traffic, view, policy.dialect) } else { Truth::No };
                allows = allows.or(peer.and(traffic));
            }
            // A field of the policy as a whole that is not understood may take its rules back, too.
            let allows = if policy.doubts.is_empty() { allows } else { Truth::Unknown };
            say.push((selected, allows));
        }
        let transport = matches!(view.packet.0, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
        let certainly = say.iter().any(|(selected, allows)| selected.must() && allows.must());
        let mut fates = Fates {
            allowed: say.iter().any(|(_, allows)| allows.may()),
            denied: !certainly && say.iter().any(|(_, allows)| !allows.must()),
            passed: false,
            undecided: !say.iter().any(|(selected, _)| selected.must()),
        };
        if fates.denied && !transport {
            let policed = self.ask(Fact::PolicesOtherProtocols);
            fates.undecided |= !policed.must();
            fates.denied = policed.may();
        }
        fates
    }

    /// All that a cluster-wide tier may do: policies by priority, those of equal priority in any order.
    fn tier(&self, which: ClusterTier, view: &View<'_>) -> Fates {
        // "There is no way for the user to reliably determine" which of equal priority is applied, but Calico sorts by name.
        let by_name = self.profile.pipeline() == Pipeline::CalicoTiers;
        let mut policies: Vec<((u16, Option<&str>), Fates)> = Vec::new();
        for policy in &self.cluster.policies {
            match policy.place {
                Place::Cluster { tier, priority } if tier == which => {
                    let name = by_name.then_some(&*policy.object.name);
                    policies.push(((priority, name), self.cluster_policy(policy, view)));
                }
                _ => {}
            }
        }
        policies.sort_by_key(|(place, _)| *place);
        let groups = policies.chunk_by(|a, b| a.0 == b.0);
        let start = Fates { undecided: true, ..Fates::default() };
        groups.fold(start, |fates, group| {
            let each: Vec<Fates> = group.iter().map(|(_, fates)| *fates).collect();
            fates.then(any_order(&each))
        })
    }

    fn cluster_policy(&self, policy: &Policy, view: &View<'_>) -> Fates {
        let mut fates = Fates { undecided: true, ..Fates::default() };
        let (selected, Some(section)) = self.selected(policy, view) else { return fates };
        for rule in section.rules.iter().filter(|_| selected.may()) {
            let peer = self.matches(&rule.peer, view.peer, policy.dialect);
            let traffic =
                if peer.may() { self.carries(&rule.traffic, view, policy.dialect) } else { Truth::No };
            let matches = selected.and(peer).and(traffic);
            let mut one = Fates { undecided: matches != Truth::Yes, ..Fates::default() };
            if matches.may() {
                one.allowed = matches!(rule.action, Action::Allow | Action::Unknown);
                one.denied = matches!(rule.action, Action::Deny | Action::Unknown);
                one.passed = matches!(rule.action, Action::Pass | Action::Unknown);
            }
            fates = fates.then(one);
        }
        fates
    }

    fn matches(&self, which: &Match, end: &End<'_>, dialect: Dialect) -> Truth {
        let End::Pod(pod) = end else { return self.matches_as(which, end, false, dialect) };
        if !pod.host_network {
            return self.matches_as(which, end, true, dialect);
        }
        let (as_pod, as_node) =
            (self.matches_as(which, end, true, dialect), self.matches_as(which, end, false, dialect));
        match (as_pod == as_node, self.ask(Fact::HostNetworkIsPeer(dialect))) {
            (true, _) => as_pod,
            (_, Truth::Yes) => as_pod,
            (_, Truth::No) => as_node,
            _ => Truth::Unknown,
        }
    }

    /// `pod` tells whether a host-network pod is looked at as a pod or as its node.
    fn matches_as(&self, which: &Match, end: &End<'_>, pod: bool, dialect: Dialect) -> Truth {
        let again = |inner: &Match| self.matches_as(inner, end, pod, dialect);
        match which {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => parts.iter().map(again).fold(Truth::Yes, Truth::and),
            Match::OneOf(parts) => parts.iter().map(again).fold(Truth::No, Truth::or),
            Match::Not(inner) => !again(inner),
            Match::Kind(kind) => Truth::from(match end {
                End::Pod(_) if pod => *kind == Kind::Pod,
                End::Pod(_) | End::Node(_) => *kind == Kind::RemoteNode,
                End::LocalNode => *kind == Kind::LocalNode,
                End::External(_) => *kind == Kind::External,
            }),
            Match::Label { owner, key, test } => self.label(*owner, key, test, end, pod),
            Match::Namespace(test) => match end {
                End::Pod(it) => Truth::from(pod && test.passes(&it.namespace)),
                _ => Truth::No,
            },
            Match::Cidr(set) | Match::Address(set) => {
                let (inside, fact) = match end {
                    End::External(address) => return Truth::from(set.contains(*address)),
                    End::Pod(it) => {
                        let fact = if pod {
                            Fact::CidrMatchesPods(dialect)
                        } else {
                            Fact::CidrMatchesNodes(dialect)
                        };
                        (within(set, &it.addresses), fact)
                    }
                    End::Node(it) => (within(set, &it.addresses), Fact::CidrMatchesNodes(dialect)),
                    End::LocalNode => (within(set, &[]), Fact::CidrMatchesNodes(dialect)),
                };
                if inside == Truth::Unknown {
                    self.unknown.borrow_mut().push("its address is not known".into());
                }
                if inside.may() { inside.and(self.ask(fact)) } else { inside }
            }
            Match::Domain(_) if matches!(end, End::External(_)) => self.doubt("which address a name has"),
            Match::Domain(_) => Truth::No,
            Match::Doubt(doubt) => self.doubt(&doubt.to_string()),
            other => panic!("no Kubernetes dialect says {other:?}"),
        }
    }

    fn label(&self, owner: LabelOwner, key: &str, test: &Test, end: &End<'_>, as_pod: bool) -> Truth {
        let holds = |labels: &mpegflow_policies::cluster::Labels| {
            labels.get(key).is_some_and(|value| test.passes(value))
        };
        match (owner, end) {
            (LabelOwner::Endpoint, End::Pod(pod)) if as_pod => {
                let found = Truth::from(holds(&pod.labels));
                if found.may() { found.and(!self.ask(Fact::DropsLabel(key))) } else { found }
            }
            (LabelOwner::Endpoint, End::Node(node)) => Truth::from(holds(&node.labels)),
            (LabelOwner::Endpoint, End::LocalNode) => self.doubt("which node it is"),
            (LabelOwner::Namespace, End::Pod(pod)) if as_pod => {
                match self.cluster.namespaces.get(&pod.namespace) {
                    Some(namespace) => Truth::from(holds(&namespace.labels)),
                    None if key == "kubernetes.io/metadata.name" => Truth::from(test.passes(&pod.namespace)),
                    None => self.doubt("the namespace is not in the input"),
                }
            }
            _ => Truth::No,
        }
    }

    fn carries(&self, which: &TrafficMatch, view: &View<'_>, dialect: Dialect) -> Truth {
        let again = |inner: &TrafficMatch| self.carries(inner, view, dialect);
        let (protocol, port) = view.packet;
        let own = dialect == Dialect::NetworkPolicy;
        let honoured = |asked: &Protocol| {
            if own && *asked == Protocol::Sctp { self.ask(Fact::Sctp) } else { Truth::Yes }
        };
        match which {
            TrafficMatch::Anything => Truth::Yes,
            TrafficMatch::Nothing => Truth::No,
            TrafficMatch::All(parts) => parts.iter().map(again).fold(Truth::Yes, Truth::and),
            TrafficMatch::OneOf(parts) => parts.iter().map(again).fold(Truth::No, Truth::or),
            TrafficMatch::Not(inner) => !again(inner),
            TrafficMatch::Protocol(asked) if *asked == protocol => honoured(asked),
            TrafficMatch::Ports(asked, ports) if *asked == protocol && ports.contains(port) => {
                let range =
                    if own && ports.first() != Some(port) { self.ask(Fact::EndPort) } else { Truth::Yes };
                honoured(asked).and(range)
            }
            TrafficMatch::NamedPort(asked, name) if *asked == protocol => match view.destination {
                End::Pod(pod) => {
                    let mut named = pod.ports.iter().filter(|it| it.name.as_ref() == Some(name));
                    Truth::from(named.any(|it| it.protocol == protocol && it.port == port))
                        .and(honoured(asked))
                }
                _ => Truth::No,
            },
            TrafficMatch::Doubt(doubt) => self.doubt(&doubt.to_string()),
            _ => Truth::No,
        }
    }

    fn doubt(&self, what: &str) -> Truth {
        self.unknown.borrow_mut().push(what.to_owned());
        Truth::Unknown
    }
}

/// A packet from one side.
struct View<'a> {
    direction: Direction,
    subject: &'a End<'a>,
    peer: &'a End<'a>,
    destination: &'a End<'a>,
    packet: Packet,
}

fn within(set: &AddressSet, addresses: &[IpAddr]) -> Truth {
    match addresses {
        [] if set.is_empty() => Truth::No,
        [] => Truth::Unknown,
        all => Truth::from(all.iter().any(|address| set.contains(*address))),
    }
}

/// All that may come of policies of equal priority.
fn any_order(each: &[Fates]) -> Fates {
    let Some((last, rest)) = each.split_last() else { return Fates { undecided: true, ..Fates::default() } };
    if rest.is_empty() {
        return *last;
    }
    (0..each.len())
        .map(|first| {
            let mut others = each.to_vec();
            let fates = others.remove(first);
            fates.then(any_order(&others))
        })
        .fold(Fates::default(), Fates::or)
}
