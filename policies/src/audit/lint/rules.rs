//! What a single rule says.

use super::{Lint, Written};
use crate::audit::select::Party;
use crate::audit::{Finding, catalog};
use crate::matching::{Kind, LabelOwner, Match, TrafficMatch};
use crate::policy::{Action, Direction, Place, Policy, Rule};
use crate::profile::Fact;
use crate::sets::Protocol;
use crate::source::At;
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl<'a> Lint<'a> {
    /// Findings about rules one by one, and about what policies say as a whole.
    pub(super) fn about_rules(&self, found: &mut Vec<Finding>) {
        for policy in &self.live {
            for key in self.dropped(&policy.subject) {
                let reason = format!(
                    "{} selects by the label {key}: {}",
                    policy.object,
                    self.select.profile.fact(Fact::DropsLabel(&key)).why
                );
                add(found, &catalog::DROPPED_LABEL, policy, &policy.at, reason);
            }
            self.not_understood(policy, found);
        }
        for rule in self.written() {
            let dropped: BTreeSet<Arc<str>> =
                rule.readings.iter().flat_map(|(_, reading)| self.dropped(&reading.peer)).collect();
            for key in &dropped {
                let why = self.select.profile.fact(Fact::DropsLabel(key)).why;
                rule.add(
                    found,
                    &catalog::DROPPED_LABEL,
                    format!("{} selects by the label {key}: {why}", rule.path),
                );
            }
            let is_for_nobody = dropped.is_empty() && self.has_no_peer(&rule);
            if is_for_nobody {
                let whom = if rule.direction == Direction::Ingress { "from" } else { "to" };
                let reason = format!("nobody in the input is who {} speaks of traffic {whom}", rule.path);
                rule.add(found, &catalog::PEER_MATCHES_NOBODY, reason);
            } else {
                self.unknown_port_names(&rule, found);
            }
            if rule.readings.iter().any(|(policy, reading)| allows_all(policy, rule.direction, reading)) {
                let what = match rule.direction {
                    Direction::Ingress => "lets everybody reach whom it selects, on all ports",
                    Direction::Egress => "lets whom it selects reach everybody, on all ports",
                };
                let reason = format!("{} of {} {what}", rule.path, rule.object);
                rule.add(found, &catalog::ALLOWS_ALL, reason);
            }
        }
    }

    /// Whether nobody, in no reading of the rule, can be its peer.
    fn has_no_peer(&self, rule: &Written<'a>) -> bool {
        rule.readings.iter().all(|(policy, reading)| {
            let who = &reading.peer;
            !self.others.iter().any(|party| self.select.truth(who, *party, policy.dialect).may())
                && self.peers(who, policy.dialect).next().is_none()
        })
    }

    /// Port names that no pod at the rule's destination has.
    fn unknown_port_names(&self, rule: &Written<'a>, found: &mut Vec<Finding>) {
        let mut names: BTreeMap<&Arc<str>, BTreeSet<Protocol>> = BTreeMap::new();
        for (_, reading) in &rule.readings {
            port_names(&reading.traffic, &mut |protocol, name| {
                names.entry(name).or_default().insert(protocol);
            });
        }
        for (name, protocols) in names {
            let mut pods: usize = 0;
            let mut may = false;
            for (policy, reading) in &rule.readings {
                match rule.direction {
                    Direction::Ingress => {
                        for pod in self.near(policy).filter(|pod| self.selects(policy, pod).may()) {
                            pods = pods.saturating_add(1);
                            may |= has_port(pod, name, &protocols);
                        }
                        let mut workers =
                            self.others.iter().filter(|party| matches!(party, Party::Worker(_)));
                        may |= workers.any(|w| self.select.truth(&policy.subject, *w, policy.dialect).may());
                    }
                    Direction::Egress => {
                        for pod in self.peers(&reading.peer, policy.dialect) {
                            pods = pods.saturating_add(1);
                            may |= has_port(pod, name, &protocols);
                        }
                        let mut makers = self
                            .others
                            .iter()
                            .filter(|party| matches!(party, Party::Worker(_) | Party::Stranger));
                        may |= makers.any(|m| self.select.truth(&reading.peer, *m, policy.dialect).may());
                    }
                }
            }
            if pods > 0 && !may {
                let protocols: Vec<String> = protocols.iter().map(ToString::to_string).collect();
                let reason = format!(
                    "none of the {pods} pods at the end of {} names a {} port {name:?}",
                    rule.path,
                    protocols.join(" or ")
                );
                rule.add(found, &catalog::UNKNOWN_PORT_NAME, reason);
            }
        }
    }

    /// Keys of labels in an expression that the CNI surely does not count as part of a pod's identity.
    fn dropped(&self, what: &Match) -> BTreeSet<Arc<str>> {
        let mut keys = BTreeSet::new();
        pod_labels(what, &mut |key| {
            if self.select.fact(Fact::DropsLabel(key)) == Truth::Yes {
                keys.insert(key.clone());
            }
        });
        keys
    }

    pub(super) fn relies_on_dropped(&self, what: &Match) -> bool {
        !self.dropped(what).is_empty()
    }

    /// One finding for each doubt of a policy.
    fn not_understood(&self, policy: &'a Policy, found: &mut Vec<Finding>) {
        let mut doubts: BTreeSet<&Doubt> = policy.doubts.iter().collect();
        match_doubts(&policy.subject, &mut doubts);
        for (_, section) in super::sections(policy) {
            for rule in &section.rules {
                match_doubts(&rule.peer, &mut doubts);
                traffic_doubts(&rule.traffic, &mut doubts);
            }
        }
        for doubt in doubts {
            let at = doubt.at.as_ref().unwrap_or(&policy.at);
            add(found, &catalog::NOT_UNDERSTOOD, policy, at, doubt.what.to_string());
        }
    }
}

impl Written<'_> {
    fn add(&self, found: &mut Vec<Finding>, kind: &'static catalog::Kind, reason: String) {
        found.push(Finding::certain(kind, self.object.clone(), Some(self.at.clone()), reason));
    }
}

/// Adds a finding unless it is there: a policy may have been read as several.
fn add(found: &mut Vec<Finding>, kind: &'static catalog::Kind, policy: &Policy, at: &At, reason: String) {
    let finding = Finding::certain(kind, policy.object.clone(), Some(at.clone()), reason);
    let is_there = |other: &Finding| {
        (other.id, &other.object, &other.at, &other.reason)
            == (finding.id, &finding.object, &finding.at, &finding.reason)
    };
    if !found.iter().rev().take(64).any(is_there) {
        found.push(finding);
    }
}

/// Whether a rule lets everything through. One with more to say than packets does not, nor does the end of a list of denials.
fn allows_all(policy: &Policy, direction: Direction, rule: &Rule) -> bool {
    let is_ordered = !matches!(policy.place, Place::Kubernetes);
    let others = super::section(policy, direction).into_iter().flat_map(|section| &section.rules);
    rule.action == Action::Allow
        && rule.peer == Match::Anything
        && rule.traffic == TrafficMatch::Anything
        && rule.note.is_none()
        && policy.doubts.is_empty()
        && !(is_ordered && others.into_iter().any(|other| other.action != Action::Allow))
}

fn has_port(pod: &crate::cluster::Pod, name: &Arc<str>, protocols: &BTreeSet<Protocol>) -> bool {
    pod.ports.iter().any(|port| port.name.as_ref() == Some(name) && protocols.contains(&port.protocol))
}

/// Port names that an expression asks for; not those that it leaves out.
fn port_names<'t>(what: &'t TrafficMatch, visit: &mut impl FnMut(Protocol, &'t Arc<str>)) {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
            for part in parts {
                port_names(part, visit);
            }
        }
        TrafficMatch::NamedPort(protocol, name) => visit(*protocol, name),
        _ => {}
    }
}

/// Labels of pods that an expression asks for; those of nodes are not dropped.
fn pod_labels(what: &Match, visit: &mut impl FnMut(&Arc<str>)) {
    match what {
        Match::All(parts) if parts.iter().any(is_of_nodes) => {}
        Match::All(parts) | Match::OneOf(parts) => {
            for part in parts {
                pod_labels(part, visit);
            }
        }
        Match::Not(inner) => pod_labels(inner, visit),
        Match::Label { owner: LabelOwner::Endpoint, key, .. } => visit(key),
        _ => {}
    }
}

fn is_of_nodes(what: &Match) -> bool {
    match what {
        Match::Kind(kind) => matches!(kind, Kind::LocalNode | Kind::RemoteNode),
        Match::OneOf(parts) => !parts.is_empty() && parts.iter().all(is_of_nodes),
        _ => false,
    }
}

fn match_doubts<'m>(what: &'m Match, doubts: &mut BTreeSet<&'m Doubt>) {
    match what {
        Match::All(parts) | Match::OneOf(parts) => parts.iter().for_each(|part| match_doubts(part, doubts)),
        Match::Not(inner) => match_doubts(inner, doubts),
        Match::Doubt(doubt) => {
            doubts.insert(doubt);
        }
        _ => {}
    }
}

fn traffic_doubts<'t>(what: &'t TrafficMatch, doubts: &mut BTreeSet<&'t Doubt>) {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
            parts.iter().for_each(|part| traffic_doubts(part, doubts));
        }
        TrafficMatch::Not(inner) => traffic_doubts(inner, doubts),
        TrafficMatch::Doubt(doubt) => {
            doubts.insert(doubt);
        }
        _ => {}
    }
}
