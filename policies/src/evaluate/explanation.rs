//! How a verdict on a pair came about: what each step decided, and what is not known.

use super::endpoints::{Item, Shape};
use super::evaluation::Evaluation;
use super::side::verdict;
use super::traffic_table::{NONE, TrafficId, TrafficTable};
use super::{Effect, EndpointId, Explanation, Step};
use crate::cluster::ContainerPort;
use crate::matching::{Match, TrafficMatch};
use crate::policy::{Action, Dialect, Direction};
use crate::profile::Fact;
use crate::sets::{Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// What a run did, for an explanation.
#[derive(Default)]
pub(super) struct Recorder {
    steps: Vec<RawStep>,
    /// Policies, and rules of them, whose say is not known.
    pub(super) doubted: Vec<(usize, Option<usize>)>,
    /// Policies without an order among them that say different things.
    pub(super) ties: Vec<Vec<usize>>,
    /// Traffic that isolation may stop, and may not.
    pub(super) half_stopped: Vec<TrafficId>,
}

/// Which packets are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Those of a pair.
    Pair,
    /// Those that a pod sends to itself through a Service.
    Hairpin,
    /// Those that come to the destination, whatever let them out.
    Ingress,
}

struct RawStep {
    stage: Option<usize>,
    policy: Option<usize>,
    rule: Option<usize>,
    effect: Effect,
    traffic: TrafficId,
}

impl Evaluation<'_> {
    /// The verdict on a pair, and how it came about.
    pub fn explain(&self, source: EndpointId, destination: EndpointId) -> Explanation {
        self.explained(source, destination, Asked::Pair)
    }

    /// The verdict on what a pod sends to itself and that comes back through a Service, where policies judge it.
    pub fn explain_hairpin(&self, pod: EndpointId) -> Explanation {
        self.explained(pod, pod, Asked::Hairpin)
    }

    /// The verdict of the destination's side alone, and how it came about: of a packet whose destination was translated after the
    /// source's side had judged it.
    pub fn explain_ingress(&self, source: EndpointId, destination: EndpointId) -> Explanation {
        self.explained(source, destination, Asked::Ingress)
    }

    fn explained(&self, source: EndpointId, destination: EndpointId, asked: Asked) -> Explanation {
        let mut sides = self.sides();
        let (from, to) = (source.index(), destination.index());
        let outcome = match asked {
            Asked::Pair => self.core.pair(&mut sides, from, to),
            Asked::Hairpin => self.core.judged(&mut sides, from, to),
            Asked::Ingress => self.core.ingress(&mut sides, from, to),
        };
        let verdict = verdict(&sides.traffic, sides.outcome(outcome));
        let exempt = if asked == Asked::Hairpin { None } else { self.core.exempt(from, to) };
        let mut explanation = Explanation {
            verdict,
            exempt: exempt.map(Arc::from),
            egress: Vec::new(),
            ingress: Vec::new(),
            doubts: Vec::new(),
        };
        if from == to && asked == Asked::Pair {
            return explanation;
        }
        let directions: &[Direction] = match asked {
            Asked::Ingress => &[Direction::Ingress],
            _ => &[Direction::Egress, Direction::Ingress],
        };
        for direction in directions.iter().copied() {
            let mut recorder = Recorder::default();
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
                let half_stopped = recorder
                    .half_stopped
                    .iter()
                    .fold(Traffic::none(), |all, id| all.union(&sides.traffic.get(*id)));
                self.doubts(
                    &recorder,
                    &half_stopped,
                    direction,
                    (EndpointId::at(subject), EndpointId::at(peer)),
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

    /// Why an expression of an intent is unknown of an endpoint.
    pub fn why_unknown(&self, what: &Match, endpoint: EndpointId) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        if let Some(item) = self.item(endpoint) {
            self.one().doubts(what, &item, None, &self.name(endpoint), &mut doubts);
        }
        doubts
    }

    fn doubts(
        &self,
        recorder: &Recorder,
        half_stopped: &Traffic,
        direction: Direction,
        (subject, peer): (EndpointId, EndpointId),
        into: &mut Vec<Doubt>,
    ) {
        let doubted = &recorder.doubted;
        let (Some(own), Some(other)) = (self.item(subject), self.item(peer)) else { return };
        let one = self.one();
        let (own_name, other_name) = (self.name(subject), self.name(peer));
        for (policy, rule) in doubted {
            let Some(policy) = self.cluster.policies.get(*policy) else { continue };
            let enforced = self.profile.enforces(policy);
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
            one.doubts(&policy.subject, &own, dialect, &own_name, into);
            let section = match direction {
                Direction::Ingress => policy.ingress.as_ref(),
                Direction::Egress => policy.egress.as_ref(),
            };
            let rules = section.map(|section| section.rules.as_slice()).unwrap_or_default();
            for rule in
                rules.iter().enumerate().filter(|(i, _)| rule.is_none_or(|rule| rule == *i)).map(|(_, r)| r)
            {
                one.doubts(&rule.peer, &other, dialect, &other_name, into);
                let (destination, name) = match direction {
                    Direction::Egress => (&other, &other_name),
                    Direction::Ingress => (&own, &own_name),
                };
                self.traffic_doubts(&rule.traffic, policy.dialect, destination, name, into);
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
        for tie in &recorder.ties {
            let mut policies = tie.iter().filter_map(|policy| self.cluster.policies.get(*policy));
            let (Some(first), Some(second)) = (policies.next(), policies.next()) else { continue };
            let what = format!(
                "{} and {} have the same priority and say different things: which comes first is not defined",
                first.object, second.object
            );
            add(Doubt::at(what, &second.at), into);
        }
        let sctp = Protocol::Sctp.traffic();
        let ported =
            [Protocol::Tcp, Protocol::Udp].iter().fold(sctp.clone(), |all, p| all.union(&p.traffic()));
        if half_stopped.intersects(&sctp) {
            self.differs(Fact::IsolationStopsSctp, into);
        }
        if !half_stopped.is_subset(&ported) {
            self.differs(Fact::PolicesOtherProtocols, into);
        }
        self.exemption_doubts(direction, (&own, &own_name), (&other, &other_name), (subject, peer), into);
    }

    /// Why it is not known whether the profile lets a packet through whatever policies say.
    fn exemption_doubts(
        &self,
        direction: Direction,
        (own, own_name): (&Item<'_>, &str),
        (other, other_name): (&Item<'_>, &str),
        (subject, peer): (EndpointId, EndpointId),
        into: &mut Vec<Doubt>,
    ) {
        let is_node = matches!(own.shape, Shape::HostPod | Shape::LocalNode | Shape::RemoteNode);
        if own.shape == Shape::HostPod && self.profile.fact(Fact::HostNetworkIsSubject).truth.may() {
            self.differs(Fact::HostNetworkIsSubject, into);
        } else if is_node && self.core.node_subjects.may() {
            let what = format!(
                "policies may apply to nodes here, and so to {own_name}, which is not modelled (host endpoints, or a policy \
                 that selects nodes)"
            );
            add(Doubt::new(what), into);
        }
        let fact = match direction {
            Direction::Ingress => Fact::OwnNodeIsLetIn,
            Direction::Egress => Fact::OwnNodeIsLetOut,
        };
        if self.core.let_through(direction, subject.index(), peer.index()) == Truth::Unknown {
            self.differs(fact, into);
            if other.shape == Shape::HostPod {
                let what = format!(
                    "whether {other_name} runs on the node of {own_name}, which is let through, is not known"
                );
                add(Doubt::new(what), into);
            }
        }
        if direction == Direction::Egress && other.shape == Shape::ServiceAddress {
            self.differs(Fact::SeesClusterIp, into);
        }
    }

    /// A fact that the profile does not know, as a doubt.
    fn differs(&self, fact: Fact<'_>, into: &mut Vec<Doubt>) {
        let answer = self.profile.fact(fact);
        if answer.truth == Truth::Unknown {
            add(super::differ(self.profile, &answer), into);
        }
    }

    /// Why it is not known which traffic a rule is about.
    fn traffic_doubts(
        &self,
        what: &TrafficMatch,
        dialect: Dialect,
        destination: &Item<'_>,
        name: &str,
        into: &mut Vec<Doubt>,
    ) {
        let mut sctp = |protocol: Protocol| {
            if protocol == Protocol::Sctp {
                self.differs(Fact::Sctp, into);
            }
        };
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| self.traffic_doubts(part, dialect, destination, name, into));
            }
            TrafficMatch::Not(inner) => self.traffic_doubts(inner, dialect, destination, name, into),
            TrafficMatch::Doubt(doubt) => add(doubt.clone(), into),
            TrafficMatch::Protocol(protocol) => sctp(*protocol),
            TrafficMatch::Ports(protocol, ports) => {
                sctp(*protocol);
                if dialect == Dialect::NetworkPolicy && ports.iter().any(|(first, last)| first != last) {
                    self.differs(Fact::EndPort, into);
                }
            }
            TrafficMatch::NamedPort(protocol, port) => {
                sctp(*protocol);
                let has_name = |own: &&ContainerPort| own.name.as_ref() == Some(port);
                let known = destination.ports.iter().filter(has_name).count();
                if destination.is_imagined || known > 1 {
                    add(Doubt::new(format!("which port of {name} is called {port} is not known")), into);
                }
            }
            TrafficMatch::SourcePorts(_, ports) if !ports.is_full() => {
                add(Doubt::new("from which port a packet is sent is not known"), into);
            }
            _ => {}
        }
    }
}

fn add(doubt: Doubt, into: &mut Vec<Doubt>) {
    if !into.contains(&doubt) {
        into.push(doubt);
    }
}

impl Recorder {
    pub(super) fn note(
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
