//! A second evaluator, as plain as can be: one pair at a time, straight from the documentation of the model, without
//! interning, bitsets or classes. The fast one has to agree with it everywhere.
//!
//! It leaves out what it has no need of to be an oracle: explanations, imagined pods, Services.

use mpegflow_policies::cluster::{Cluster, Pod};
use mpegflow_policies::matching::{DomainPattern, Kind, LabelOwner, Match, TrafficMatch};
use mpegflow_policies::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy, Section};
use mpegflow_policies::profile::{Fact, Pipeline, Profile};
use mpegflow_policies::sets::{AddressSet, Cidr, Lane, PortSet, Protocol, Traffic};
use mpegflow_policies::truth::Truth;
use std::net::IpAddr;

/// Who may talk, as far as this evaluator goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Index into the cluster's pods.
    Pod(usize),
    /// An address outside the cluster.
    Outside(IpAddr),
}

/// What passes, does not, and may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allowed: Traffic,
    pub(crate) denied: Traffic,
    pub(crate) unknown: Traffic,
}

/// Possible outcomes of each packet.
#[derive(Debug, Clone)]
struct State {
    allowed: Traffic,
    denied: Traffic,
    passed: Traffic,
    open: Traffic,
}

/// A cluster under a profile.
pub(crate) struct Reference<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) profile: Profile,
}

impl Reference<'_> {
    /// The verdict on a pair of different ends.
    pub(crate) fn verdict(&self, source: &End, destination: &End) -> Answer {
        let egress = self.side(Direction::Egress, source, destination);
        let ingress = self.side(Direction::Ingress, destination, source);
        let can_pass = egress.allowed.intersection(&ingress.allowed);
        let can_fail = egress.denied.union(&ingress.denied);
        Answer {
            allowed: can_pass.difference(&can_fail),
            denied: can_pass.complement(),
            unknown: can_pass.intersection(&can_fail),
        }
    }

    fn fact(&self, fact: Fact<'_>) -> Truth {
        self.profile.fact(fact).truth
    }

    /// One side: `allowed` is what can pass, `denied` what can fail.
    fn side(&self, direction: Direction, subject: &End, peer: &End) -> State {
        let mut state = State {
            allowed: Traffic::none(),
            denied: Traffic::none(),
            passed: Traffic::none(),
            open: Traffic::all(),
        };
        let End::Pod(pod) = subject else {
            return State { allowed: Traffic::all(), open: Traffic::none(), ..state };
        };
        assert!(!self.cluster.pods[*pod].host_network, "host-network pods are not modelled here");
        for stage in self.stages() {
            self.stage(&stage, direction, subject, peer, &mut state);
        }
        state.allowed = state.allowed.union(&state.open);
        state
    }

    /// The stages in order: each a list of bands, each a list of policies that are equal in order.
    fn stages(&self) -> Vec<Stage<'_>> {
        let enforced: Vec<&Policy> = self
            .cluster
            .policies
            .iter()
            .filter(|policy| policy.inert.is_none() && self.profile.enforces(policy).truth.may())
            .collect();
        let cluster_tier = |tier: ClusterTier| {
            let mut bands: std::collections::BTreeMap<u16, Vec<&Policy>> = Default::default();
            for policy in &enforced {
                if let Place::Cluster { tier: t, priority } = &policy.place
                    && *t == tier
                {
                    bands.entry(*priority).or_default().push(policy);
                }
            }
            Stage::Ordered { bands: bands.into_values().collect(), end: None }
        };
        match self.profile.pipeline() {
            Pipeline::Standard => {
                let normal = enforced
                    .iter()
                    .copied()
                    .filter(|p| matches!(p.place, Place::Kubernetes | Place::Cilium))
                    .collect();
                vec![
                    cluster_tier(ClusterTier::Admin),
                    Stage::Additive(normal),
                    cluster_tier(ClusterTier::Baseline),
                ]
            }
            Pipeline::CalicoTiers => {
                // (order, name) → policies with (order, kind, namespace, name)
                #[allow(clippy::type_complexity, reason = "one place, and sorted right away")]
                let mut tiers: Vec<(f64, String, bool, Vec<(f64, &Policy)>)> = Vec::new();
                for policy in &enforced {
                    let (tier, order) = match &policy.place {
                        Place::Calico { tier, order } => (tier.to_string(), order.unwrap_or(f64::INFINITY)),
                        Place::Kubernetes => ("default".into(), 1000.0),
                        Place::Cluster { tier, priority } => {
                            let start =
                                if policy.dialect == Dialect::AdminNetworkPolicy { "anp" } else { "kube" };
                            (format!("{start}-{tier:?}"), f64::from(*priority))
                        }
                        Place::Cilium => continue,
                    };
                    let known = self.cluster.tiers.get(tier.as_str());
                    let own = match &*tier {
                        "default" => 1e6,
                        "kube-Admin" | "anp-Admin" => 1e3,
                        "kube-Baseline" | "anp-Baseline" => 1e7,
                        _ => f64::INFINITY,
                    };
                    let tier_order = known.map_or(own, |known| known.order.unwrap_or(f64::INFINITY));
                    let pass = known.map_or(own == 1e3 || own == 1e7, |known| known.default_pass);
                    match tiers.iter_mut().find(|(_, name, _, _)| *name == tier) {
                        Some((_, _, _, list)) => list.push((order, policy)),
                        None => tiers.push((tier_order, tier, pass, vec![(order, policy)])),
                    }
                }
                tiers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                tiers
                    .into_iter()
                    .map(|(_, _, pass, mut list)| {
                        list.sort_by(|a, b| {
                            let key = |p: &Policy| {
                                let prefix = if p.dialect == Dialect::Calico { "" } else { "Kubernetes" };
                                let namespace = p.object.namespace.as_deref().unwrap_or("");
                                format!("{}/{namespace}/{prefix}{}", p.object.name, p.object.kind)
                            };
                            a.0.total_cmp(&b.0).then(key(a.1).cmp(&key(b.1)))
                        });
                        Stage::Ordered {
                            bands: list.into_iter().map(|(_, p)| vec![p]).collect(),
                            end: Some(pass),
                        }
                    })
                    .collect()
            }
        }
    }

    fn stage(&self, stage: &Stage<'_>, direction: Direction, subject: &End, peer: &End, state: &mut State) {
        match stage {
            Stage::Additive(policies) => {
                for wanted in [Action::Deny, Action::Allow] {
                    for policy in policies {
                        let (section, selects) = self.selected(policy, direction, subject);
                        if wanted == Action::Deny && !policy.doubts.is_empty() && selects.may() {
                            apply(state, Action::Unknown, &Traffic::none(), &Traffic::all());
                        }
                        for rule in section.iter().flat_map(|section| &section.rules) {
                            if rule.action == wanted
                                || (wanted == Action::Deny && rule.action == Action::Unknown)
                            {
                                self.rule(policy, rule, selects, direction, subject, peer, state);
                            }
                        }
                    }
                }
                for policy in policies {
                    let (section, selects) = self.selected(policy, direction, subject);
                    let isolates = section.map_or(Truth::No, |section| section.isolates.and(selects));
                    let (_, possibly) = self.policed(policy.dialect);
                    if isolates.may() {
                        state.denied = state.denied.union(&state.open.intersection(&possibly));
                    }
                }
                for policy in policies {
                    let (section, selects) = self.selected(policy, direction, subject);
                    let isolates = section.map_or(Truth::No, |section| section.isolates.and(selects));
                    if isolates.must() {
                        state.open = state.open.difference(&self.policed(policy.dialect).0);
                    }
                }
            }
            Stage::Ordered { bands, end: default } => {
                let mut applies: Vec<(Truth, Dialect)> = Vec::new();
                for band in bands {
                    let before = state.open.clone();
                    let mut still_open = before.clone();
                    for policy in band {
                        let mut own = State { open: before.clone(), ..state.clone() };
                        let (section, selects) = self.selected(policy, direction, subject);
                        if !policy.doubts.is_empty() && selects.may() {
                            apply(&mut own, Action::Unknown, &Traffic::none(), &Traffic::all());
                        }
                        if let Some(section) = section {
                            applies.push((selects, policy.dialect));
                            for rule in &section.rules {
                                self.rule(policy, rule, selects, direction, subject, peer, &mut own);
                            }
                        }
                        still_open = still_open.intersection(&own.open);
                        *state = State { open: before.clone(), ..own };
                    }
                    state.open = still_open;
                }
                if *default == Some(false) {
                    let stops = |sure: bool| {
                        applies
                            .iter()
                            .filter(|(truth, _)| if sure { truth.must() } else { truth.may() })
                            .fold(Traffic::none(), |all, (_, dialect)| {
                                let (lo, hi) = self.policed(*dialect);
                                all.union(if sure { &lo } else { &hi })
                            })
                    };
                    state.denied = state.denied.union(&state.open.intersection(&stops(false)));
                    state.open = state.open.difference(&stops(true));
                }
            }
        }
        state.open = state.open.union(&state.passed);
        state.passed = Traffic::none();
    }

    /// Traffic that being isolated by a policy of a dialect surely and possibly stops.
    fn policed(&self, dialect: Dialect) -> (Traffic, Traffic) {
        if dialect != Dialect::NetworkPolicy {
            return (Traffic::all(), Traffic::all());
        }
        let ports = PORT_LANES
            .iter()
            .fold(Traffic::none(), |all, lane| all.union(&Traffic::on(*lane, PortSet::full())));
        let (surely, possibly) = match self.fact(Fact::PolicesOtherProtocols) {
            Truth::Yes => (Traffic::all(), Traffic::all()),
            Truth::Unknown => (ports, Traffic::all()),
            Truth::No => (ports.clone(), ports),
        };
        let sctp = if self.fact(Fact::IsolationStopsSctp).must() {
            Traffic::none()
        } else {
            Protocol::Sctp.traffic()
        };
        (surely.difference(&sctp), possibly)
    }

    /// The section of a policy for a direction, and whether the policy selects the subject (and is enforced).
    fn selected<'p>(
        &self,
        policy: &'p Policy,
        direction: Direction,
        subject: &End,
    ) -> (Option<&'p Section>, Truth) {
        let section = match direction {
            Direction::Ingress => policy.ingress.as_ref(),
            Direction::Egress => policy.egress.as_ref(),
        };
        let enforced = self.profile.enforces(policy).truth;
        (section, enforced.and(self.truth(&policy.subject, subject, policy.dialect)))
    }

    #[allow(clippy::too_many_arguments, reason = "all that a rule depends on")]
    fn rule(
        &self,
        policy: &Policy,
        rule: &mpegflow_policies::policy::Rule,
        selects: Truth,
        direction: Direction,
        subject: &End,
        peer: &End,
        state: &mut State,
    ) {
        let truth = selects.and(self.truth(&rule.peer, peer, policy.dialect));
        let destination = if direction == Direction::Egress { peer } else { subject };
        let (surely, possibly) = self.traffic(&rule.traffic, destination, policy.dialect);
        let lo = if truth.must() { surely } else { Traffic::none() };
        let hi = if truth.may() { possibly } else { Traffic::none() };
        apply(state, rule.action, &lo, &hi);
    }

    fn pod(&self, index: usize) -> &Pod {
        &self.cluster.pods[index]
    }

    /// Whether an expression matches an end.
    pub(crate) fn truth(&self, what: &Match, end: &End, dialect: Dialect) -> Truth {
        match what {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => {
                parts.iter().fold(Truth::Yes, |all, part| all.and(self.truth(part, end, dialect)))
            }
            Match::OneOf(parts) => {
                parts.iter().fold(Truth::No, |any, part| any.or(self.truth(part, end, dialect)))
            }
            Match::Not(inner) => !self.truth(inner, end, dialect),
            Match::Kind(kind) => match end {
                End::Pod(_) => (*kind == Kind::Pod).into(),
                End::Outside(_) => (*kind == Kind::External).into(),
            },
            Match::Label { owner, key, test } => {
                let End::Pod(pod) = end else { return Truth::No };
                let pod = self.pod(*pod);
                let labels = match owner {
                    LabelOwner::Endpoint => {
                        let dropped = self.fact(Fact::DropsLabel(key));
                        let has = pod.labels.get(key).is_some_and(|value| test.passes(value));
                        return Truth::from(has).and(!dropped);
                    }
                    LabelOwner::Namespace => {
                        if **key == *"kubernetes.io/metadata.name" {
                            return test.passes(&pod.namespace).into();
                        }
                        self.cluster.namespaces.get(&pod.namespace).map(|namespace| &namespace.labels)
                    }
                    LabelOwner::ServiceAccount => self
                        .cluster
                        .service_accounts
                        .get(&(pod.namespace.clone(), pod.service_account.clone()))
                        .map(|account| &account.labels),
                };
                match labels {
                    None => Truth::Unknown,
                    Some(labels) => labels.get(key).is_some_and(|value| test.passes(value)).into(),
                }
            }
            Match::Namespace(test) => match end {
                End::Pod(pod) => test.passes(&self.pod(*pod).namespace).into(),
                End::Outside(_) => Truth::No,
            },
            Match::ServiceAccount(test) => match end {
                End::Pod(pod) => test.passes(&self.pod(*pod).service_account).into(),
                End::Outside(_) => Truth::No,
            },
            Match::Name(test) => match end {
                End::Pod(pod) => test.passes(&self.pod(*pod).object.name).into(),
                End::Outside(_) => Truth::No,
            },
            Match::Cidr(set) => match end {
                End::Pod(_) => self.fact(Fact::CidrMatchesPods(dialect)).and(self.within(set, end)),
                End::Outside(_) => self.within(set, end),
            },
            Match::Address(set) => self.within(set, end),
            Match::Domain(DomainPattern::Name(_) | DomainPattern::Labels(_) | DomainPattern::Under(_)) => {
                match end {
                    End::Pod(_) => Truth::No,
                    End::Outside(_) => Truth::Unknown,
                }
            }
            Match::KubeApiServer => Truth::No,
            Match::Fact(fact) => self.fact(*fact),
            Match::Doubt(_) => Truth::Unknown,
        }
    }

    /// Whether an end's address is in a set; of a pod with one address, or several on which the set agrees.
    fn within(&self, set: &AddressSet, end: &End) -> Truth {
        match end {
            End::Outside(address) => set.contains(*address).into(),
            End::Pod(pod) => {
                let addresses = &self.pod(*pod).addresses;
                if addresses.is_empty() {
                    let anywhere = AddressSet::full();
                    return if anywhere.is_subset(set) {
                        Truth::Yes
                    } else if set.is_empty() {
                        Truth::No
                    } else {
                        Truth::Unknown
                    };
                }
                let inside = AddressSet::blocks(addresses.iter().map(|ip| Cidr::host(*ip)));
                match (inside.is_subset(set), inside.intersects(set)) {
                    (true, _) => Truth::Yes,
                    (false, false) => Truth::No,
                    (false, true) => Truth::Unknown,
                }
            }
        }
    }

    /// Traffic to a destination that an expression surely and possibly matches.
    fn traffic(&self, what: &TrafficMatch, destination: &End, dialect: Dialect) -> (Traffic, Traffic) {
        let exact = |traffic: Traffic| (traffic.clone(), traffic);
        match what {
            TrafficMatch::Anything => exact(Traffic::all()),
            TrafficMatch::Nothing => exact(Traffic::none()),
            TrafficMatch::All(parts) => parts.iter().fold(exact(Traffic::all()), |(lo, hi), part| {
                let (a, b) = self.traffic(part, destination, dialect);
                (lo.intersection(&a), hi.intersection(&b))
            }),
            TrafficMatch::OneOf(parts) => parts.iter().fold(exact(Traffic::none()), |(lo, hi), part| {
                let (a, b) = self.traffic(part, destination, dialect);
                (lo.union(&a), hi.union(&b))
            }),
            TrafficMatch::Not(inner) => {
                let (lo, hi) = self.traffic(inner, destination, dialect);
                (hi.complement(), lo.complement())
            }
            TrafficMatch::Protocol(protocol) => self.sure_of(*protocol, protocol.traffic()),
            TrafficMatch::Ports(protocol, ports) => {
                let (lo, hi) = self.sure_of(*protocol, Traffic::to(*protocol, ports.clone()));
                if dialect != Dialect::NetworkPolicy || self.fact(Fact::EndPort).must() {
                    return (lo, hi);
                }
                let firsts = PortSet::of(ports.iter().map(|(first, _)| (first, first)));
                (lo.intersection(&Traffic::to(*protocol, firsts)), hi)
            }
            TrafficMatch::NamedPort(protocol, name) => {
                let End::Pod(pod) = destination else { return exact(Traffic::none()) };
                let ports = self.pod(*pod).ports.iter();
                let ports = ports.filter(|p| p.protocol == *protocol && p.name.as_ref() == Some(name));
                let mut numbers: Vec<u16> = ports.map(|p| p.port).collect();
                numbers.dedup();
                let traffic = Traffic::to(*protocol, PortSet::of(numbers.iter().map(|p| (*p, *p))));
                if numbers.len() > 1 { (Traffic::none(), traffic) } else { self.sure_of(*protocol, traffic) }
            }
            TrafficMatch::SourcePorts(..) => panic!("source ports are not modelled here"),
            TrafficMatch::Doubt(_) => (Traffic::none(), Traffic::all()),
        }
    }

    /// SCTP is sure only where it is honoured.
    fn sure_of(&self, protocol: Protocol, traffic: Traffic) -> (Traffic, Traffic) {
        let sure = protocol != Protocol::Sctp || self.fact(Fact::Sctp).must();
        (if sure { traffic.clone() } else { Traffic::none() }, traffic)
    }
}

enum Stage<'a> {
    /// Denies, then allows, then isolation.
    Additive(Vec<&'a Policy>),
    /// Bands in order; at the end, `Some(pass)` decides what is open where a policy applied.
    Ordered { bands: Vec<Vec<&'a Policy>>, end: Option<bool> },
}

fn apply(state: &mut State, action: Action, lo: &Traffic, hi: &Traffic) {
    let hit = state.open.intersection(hi);
    match action {
        Action::Allow => state.allowed = state.allowed.union(&hit),
        Action::Deny => state.denied = state.denied.union(&hit),
        Action::Pass => state.passed = state.passed.union(&hit),
        Action::Unknown => {
            state.allowed = state.allowed.union(&hit);
            state.denied = state.denied.union(&hit);
            state.passed = state.passed.union(&hit);
            return;
        }
    }
    state.open = state.open.difference(lo);
}

/// Lanes on which ports mean ports.
pub(crate) const PORT_LANES: [Lane; 3] = [Lane::Tcp, Lane::Udp, Lane::Sctp];

/// A single packet, for comparison with engines that answer one at a time.
pub(crate) fn passes(answer: &Answer, protocol: Protocol, port: u16) -> Option<bool> {
    match (answer.allowed.contains(protocol, port), answer.denied.contains(protocol, port)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}
