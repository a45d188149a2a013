//! How a verdict on a pair came about: what each step decided, and what is not known.

use super::evaluation::Evaluation;
use super::side::verdict;
use super::traffic_table::{NONE, TrafficId, TrafficTable};
use super::{Effect, EndpointId, Explanation, Step};
use crate::matching::TrafficMatch;
use crate::policy::{Action, Direction};
use crate::profile::Fact;
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// What a run did, for an explanation.
#[derive(Default)]
pub(super) struct Recorder {
    steps: Vec<RawStep>,
    /// Policies, and rules of them, whose say is not known.
    pub(super) doubted: Vec<(usize, Option<usize>)>,
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
        self.explained(source, destination, false)
    }

    /// The verdict on what a pod sends to itself and that comes back through a Service, where policies judge it.
    pub fn explain_hairpin(&self, pod: EndpointId) -> Explanation {
        self.explained(pod, pod, true)
    }

    fn explained(&self, source: EndpointId, destination: EndpointId, hairpin: bool) -> Explanation {
        let mut sides = self.sides();
        let (from, to) = (source.index(), destination.index());
        let outcome = if hairpin {
            self.core.judged(&mut sides, from, to)
        } else {
            self.core.pair(&mut sides, from, to)
        };
        let verdict = verdict(&sides.traffic, sides.outcome(outcome));
        let exempt = if hairpin { None } else { self.core.exempt(from, to) };
        let mut explanation = Explanation {
            verdict,
            exempt: exempt.map(Arc::from),
            egress: Vec::new(),
            ingress: Vec::new(),
            doubts: Vec::new(),
        };
        if from == to && !hairpin {
            return explanation;
        }
        for direction in [Direction::Egress, Direction::Ingress] {
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
