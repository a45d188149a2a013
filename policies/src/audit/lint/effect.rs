//! Whether a policy has an effect at all, and on whom.

use super::{Lint, section};
use crate::audit::select::Party;
use crate::audit::{Finding, catalog};
use crate::cluster::Pod;
use crate::policy::{Action, Dialect, Direction, Policy};
use crate::profile::Fact;
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
            let enforced = self.select.profile.fact(Fact::Enforces(policy.dialect));
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
                    for at in &policy.inert_rules {
                        let what = format!("{} does not declare the direction of this rule", policy.object);
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
            // A label that the CNI drops is what is wrong then.
            let may = readings
                .iter()
                .any(|policy| self.may_select(policy) || self.relies_on_dropped(&policy.subject));
            if !may {
                let near = readings.first().map_or(0, |policy| self.pods_near(policy).count());
                let reason = match &object.namespace {
                    Some(namespace) if near == 0 => {
                        format!("{object}: there is no pod in the namespace {namespace}")
                    }
                    Some(namespace) => {
                        format!("{object} selects none of the {near} pods in the namespace {namespace}")
                    }
                    None => format!("{object} selects none of the {near} pods"),
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

    fn may_select(&self, policy: &'a Policy) -> bool {
        let pods = self.pods_near(policy).any(|pod| self.selects(policy, pod).may());
        let mut others =
            self.parties.iter().filter(|party| !matches!(party, Party::Pod(_) | Party::Stranger));
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
                found.push(Finding::certain(&catalog::NOT_ISOLATED, pod.object.clone(), at, reason));
            }
        }
        found
    }
}
