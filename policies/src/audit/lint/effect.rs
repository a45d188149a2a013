//! Whether a policy has an effect at all, and on whom.

use super::{Lint, section};
use crate::audit::select::{Party, Select};
use crate::audit::{Finding, catalog};
use crate::cluster::Pod;
use crate::matching::Match;
use crate::policy::{Action, Dialect, Direction, Policy};
use crate::profile::{CiliumChange, Fact};
use crate::source::{At, ObjectRef};
use crate::truth::Truth;
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Lint<'a> {
    /// Policies that are staged, refused, or of a kind that is not enforced, and rules of undeclared directions.
    pub(super) fn without_effect(&self, found: &mut Vec<Finding>) {
        let mut seen: BTreeSet<(&ObjectRef, &At)> = BTreeSet::new();
        for policy in &self.cluster.policies {
            if !seen.insert((&policy.object, &policy.at)) {
                continue;
            }
            let mut add = |kind: &'static catalog::Kind, at: &At, reason: String| {
                found.push(Finding::certain(kind, policy.object.clone(), Some(at.clone()), reason));
            };
            let enforced = self.select.profile.enforces(policy);
            if let (true, Some(why)) = (enforced.truth.may(), self.refused(policy)) {
                let what = format!("{} has no effect under {}: {why}", policy.object, self.select.profile);
                add(&catalog::INVALID, &policy.at, what);
                continue;
            }
            let says_nothing =
                policy.ingress.is_none() && policy.egress.is_none() && policy.doubts.is_empty();
            if policy.dialect == Dialect::Cilium
                && says_nothing
                && policy.inert.is_none()
                && enforced.truth.may()
            {
                let what = format!(
                    "{} has no effect: its sections are empty, which isolates nobody; to deny all of a direction, give it one \
                     empty rule: [{{}}]",
                    policy.object
                );
                add(&catalog::INVALID, &policy.at, what);
                continue;
            }
            if enforced.truth == Truth::No {
                let what = format!(
                    "{} has no effect under {}: {}",
                    policy.object, self.select.profile, enforced.why
                );
                add(&catalog::NOT_ENFORCED, &policy.at, what);
                continue;
            }
            match &policy.inert {
                Some(_) if policy.object.kind.starts_with("Staged") => {
                    add(
                        &catalog::STAGED,
                        &policy.at,
                        format!("{} is staged and enforces nothing", policy.object),
                    );
                }
                // What else is inert of Calico's speaks of host endpoints: it is valid, and no concern of pods.
                Some(_) if policy.dialect == Dialect::Calico => {}
                Some(why) => {
                    add(&catalog::INVALID, &policy.at, format!("{} has no effect: {why}", policy.object))
                }
                None => {
                    let counts = self.select.profile.fact(Fact::UndeclaredRulesCount);
                    let but = match counts.truth {
                        Truth::Yes => format!(", and it counts all the same: {}", counts.why),
                        Truth::Unknown | Truth::No => String::new(),
                    };
                    for at in &policy.inert_rules {
                        let what =
                            format!("{} does not declare the direction of this rule{but}", policy.object);
                        add(&catalog::INERT_RULES, at, what);
                    }
                }
            }
        }
    }

    /// Policies that select no pod of the input; of one that is read as several, none may.
    pub(super) fn selecting_nobody(&self, found: &mut Vec<Finding>) {
        if self.cluster.pods.is_empty() {
            return;
        }
        let mut policies: BTreeMap<(&ObjectRef, &At), Vec<&'a Policy>> = BTreeMap::new();
        for policy in &self.live {
            policies.entry((&policy.object, &policy.at)).or_default().push(policy);
        }
        for ((object, at), readings) in policies {
            // That the agent refuses it is what is wrong then.
            if readings.iter().all(|policy| self.refused(policy).is_some()) {
                continue;
            }
            // A label that the CNI drops is what is wrong then.
            let may = readings
                .iter()
                .any(|policy| self.may_select(policy) || self.relies_on_dropped(&policy.subject));
            if !may {
                let near = self.crowd.count(object.namespace.as_deref());
                let reason = match &object.namespace {
                    Some(namespace) if near == 0 => {
                        format!("{object}: there is no pod in the namespace {namespace}")
                    }
                    Some(namespace) => {
                        format!("{object} selects none of the {near} pods in the namespace {namespace}")
                    }
                    None => format!("{object} selects none of the {near} pods"),
                };
                let reason = match self.on_its_node(&readings) {
                    Some(pod) => format!(
                        "{reason}: {} is one by its labels, and is on its node's network, where no policy for pods has a say",
                        pod.object
                    ),
                    None => reason,
                };
                found.push(Finding::certain(
                    &catalog::SELECTS_NOBODY,
                    object.clone(),
                    Some(at.clone()),
                    reason,
                ));
            }
        }
    }

    /// A host-network pod that a policy would select if it had a network of its own.
    fn on_its_node(&self, readings: &[&'a Policy]) -> Option<&'a Pod> {
        let is_meant = |policy: &Policy, pod: &Pod| {
            let own = Pod { host_network: false, ..pod.clone() };
            let select = Select::new(self.cluster, self.select.profile);
            select.selects(&policy.subject, &own, policy.dialect) == Truth::Yes
        };
        readings
            .iter()
            .find_map(|policy| self.near(policy).find(|pod| pod.host_network && is_meant(policy, pod)))
    }

    /// Why agents of this version refuse a policy that those of others take: what the parser has put beside its subject.
    fn refused(&self, policy: &Policy) -> Option<&'static str> {
        let Match::All(conditions) = &policy.subject else { return None };
        if policy.dialect != Dialect::Cilium {
            return None;
        }
        conditions.iter().find_map(|condition| {
            let (change, wanted) = match condition {
                Match::Fact(Fact::Cilium(change)) => (change, Truth::Yes),
                Match::Not(inner) => match &**inner {
                    Match::Fact(Fact::Cilium(change)) => (change, Truth::No),
                    _ => return None,
                },
                _ => return None,
            };
            // Whether a field is known makes two readings of a policy, of which one holds.
            let answer = self.select.profile.fact(Fact::Cilium(*change));
            let refuses = *change != CiliumChange::DefaultDenyField && answer.truth == !wanted;
            refuses.then_some(answer.why)
        })
    }

    fn may_select(&self, policy: &'a Policy) -> bool {
        let pods = self.near(policy).any(|pod| self.selects(policy, pod).may());
        let mut others = self.others.iter().filter(|party| !matches!(party, Party::Stranger));
        pods || others.any(|party| self.select.truth(&policy.subject, *party, policy.dialect).may())
    }

    /// Directions of a pod in which no policy isolates it.
    pub(super) fn open_directions(&self, pod: &'a Pod) -> Vec<Finding> {
        // What is wrong with a host-network pod is that no policy is about it.
        if pod.host_network || pod.finished {
            return Vec::new();
        }
        let mut found = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let restricts = |policy: &&&'a Policy| {
                let says = section(policy, direction).is_some_and(|section| {
                    section.isolates.may() || section.rules.iter().any(|rule| rule.action != Action::Allow)
                });
                (says || !policy.doubts.is_empty()) && self.selects(policy, pod).may()
            };
            if self.live.iter().find(restricts).is_none() {
                let reason = format!("no policy isolates {} for {direction}", pod.object);
                let at = Some(pod.at.clone());
                found.push(
                    Finding::certain(&catalog::NOT_ISOLATED, pod.object.clone(), at, reason).of_pod(pod),
                );
            }
        }
        found
    }
}
