//! Rules that decide nothing, since others have decided all that they match. Told from the expressions alone: whatever is not
//! plainly a part of something else counts as new.

use super::{Lint, Written, section};
use crate::audit::{Finding, catalog};
use crate::matching::{Match, Test, TrafficMatch};
use crate::policy::{Action, Place, Policy, Rule};
use crate::sets::{PortSet, Traffic};
use crate::truth::Truth;

/// Policies of one place that are compared with each other; of more, each is looked at alone.
const MOST_COMPARED: usize = 300;

impl<'a> Lint<'a> {
    /// Rules that others cover. What was read as several must be covered in every reading.
    pub(super) fn shadowed(&self, found: &mut Vec<Finding>) {
        for rule in self.written() {
            let mut by: Option<(&Policy, &Rule)> = None;
            let all = rule.readings.iter().all(|(policy, reading)| {
                let cover = self.cover(policy, reading, &rule);
                by = by.or(cover);
                cover.is_some()
            });
            let Some((policy, other)) = by.filter(|_| all) else { continue };
            let whose =
                if policy.object == *rule.object { String::new() } else { format!(" of {}", policy.object) };
            let reason = format!(
                "{} of {} decides nothing: {}{whose} ({}) has decided all that it matches",
                rule.path, rule.object, other.path, other.at
            );
            let at = Some(rule.at.clone());
            found.push(Finding::certain(&catalog::SHADOWED, rule.object.clone(), at, reason));
        }
    }

    /// A rule that with others decides all that a rule matches.
    fn cover(
        &self,
        policy: &'a Policy,
        rule: &'a Rule,
        written: &Written<'a>,
    ) -> Option<(&'a Policy, &'a Rule)> {
        if self.select.whoever(&rule.peer) == Truth::No || !policy.doubts.is_empty() || rule.note.is_some() {
            return None;
        }
        let mut left = exact(&rule.traffic);
        let mut by = None;
        for (other, earlier) in self.deciders(policy, rule, written) {
            if earlier.action == Action::Unknown
                || earlier.note.is_some()
                || !covers(&earlier.peer, &rule.peer)
            {
                continue;
            }
            if earlier.traffic == TrafficMatch::Anything
                || (earlier.traffic == rule.traffic && is_sure(&rule.traffic))
            {
                return Some((other, earlier));
            }
            // Several allows beside each other may cover each other in a ring; just one must do it alone.
            let is_beside = is_unordered(policy) && earlier.action == Action::Allow;
            if let (Some(rest), Some(decided)) = (&mut left, exact(&earlier.traffic))
                && rest.intersects(&decided)
                && (!is_beside || rest.is_subset(&decided))
            {
                by = by.or(Some((other, earlier)));
                *rest = rest.difference(&decided);
                if rest.is_none() {
                    return by;
                }
            }
        }
        None
    }

    /// Rules that surely decide before a rule does, or with the same outcome beside it.
    fn deciders(
        &self,
        policy: &'a Policy,
        rule: &'a Rule,
        written: &Written<'a>,
    ) -> Vec<(&'a Policy, &'a Rule)> {
        let direction = written.direction;
        let own = section(policy, direction).map(|section| section.rules.as_slice()).unwrap_or_default();
        let is_self = |other: &Rule| other.path == rule.path && other.at == rule.at;
        let index = own.iter().position(|other| std::ptr::eq(other, rule)).unwrap_or_default();
        let mut deciders: Vec<(&Policy, &Rule)> = match policy.place {
            // In an order, only what comes before counts.
            Place::Calico { .. } | Place::Cluster { .. } => {
                own.iter().take(index).map(|r| (policy, r)).collect()
            }
            // Without one, a denial counts wherever it is, and of two allows that say the same the later one is too much.
            Place::Kubernetes | Place::Cilium => {
                let beside = own.iter().enumerate().filter(|(other, decider)| match decider.action {
                    Action::Deny => rule.action == Action::Allow || *other < index,
                    Action::Allow => {
                        rule.action == Action::Allow && (*other < index || !within(decider, rule))
                    }
                    _ => false,
                });
                beside.map(|(_, decider)| (policy, decider)).collect()
            }
        };
        deciders.retain(|(_, decider)| !is_self(decider));
        if self.live.len() > MOST_COMPARED {
            return deciders;
        }
        let before = |other: &&&'a Policy| {
            other.object != policy.object
                && other.dialect == policy.dialect
                && other.doubts.is_empty()
                && covers(&other.subject, &policy.subject)
        };
        for other in self.live.iter().filter(before) {
            let rules = section(other, direction).into_iter().flat_map(|section| &section.rules);
            let counts: fn(&Rule) -> bool = match (&policy.place, &other.place) {
                (Place::Calico { tier, order }, Place::Calico { tier: other_tier, order: other_order }) => {
                    let key = |order: &Option<f64>| order.unwrap_or(f64::INFINITY);
                    if tier != other_tier || key(other_order) >= key(order) {
                        continue;
                    }
                    |_| true
                }
                (
                    Place::Cluster { tier, priority },
                    Place::Cluster { tier: other_tier, priority: other_priority },
                ) => {
                    if tier != other_tier || other_priority >= priority {
                        continue;
                    }
                    |_| true
                }
                (Place::Cilium, Place::Cilium) if rule.action == Action::Allow => {
                    |r| r.action == Action::Deny
                }
                _ => continue,
            };
            deciders.extend(rules.filter(|rule| counts(rule)).map(|rule| (*other, rule)));
        }
        deciders
    }
}

fn is_unordered(policy: &Policy) -> bool {
    matches!(policy.place, Place::Kubernetes | Place::Cilium)
}

/// Whether a rule matches nothing that another does not.
fn within(inner: &Rule, outer: &Rule) -> bool {
    let traffic = match (exact(&inner.traffic), exact(&outer.traffic)) {
        (Some(inner), Some(outer)) => inner.is_subset(&outer),
        _ => inner.traffic == outer.traffic || outer.traffic == TrafficMatch::Anything,
    };
    traffic && covers(&outer.peer, &inner.peer)
}

/// Just the packets that an expression matches, to whomever; `None` where that depends on the destination or is not known.
/// Source ports and names are such.
fn exact(what: &TrafficMatch) -> Option<Traffic> {
    Some(match what {
        TrafficMatch::Anything => Traffic::all(),
        TrafficMatch::Nothing => Traffic::none(),
        TrafficMatch::All(parts) => {
            parts.iter().try_fold(Traffic::all(), |all, part| Some(all.intersection(&exact(part)?)))?
        }
        TrafficMatch::OneOf(parts) => {
            parts.iter().try_fold(Traffic::none(), |any, part| Some(any.union(&exact(part)?)))?
        }
        TrafficMatch::Not(inner) => exact(inner)?.complement(),
        TrafficMatch::Protocol(protocol) => protocol.traffic(),
        TrafficMatch::Ports(protocol, ports) => Traffic::to(*protocol, PortSet::clone(ports)),
        TrafficMatch::NamedPort(..) | TrafficMatch::SourcePorts(..) | TrafficMatch::Doubt(_) => return None,
    })
}

fn is_sure(what: &TrafficMatch) -> bool {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => parts.iter().all(is_sure),
        TrafficMatch::Not(inner) => is_sure(inner),
        TrafficMatch::Doubt(_) => false,
        _ => true,
    }
}

/// Whether everybody whom `inner` matches, `outer` surely matches, too; both of one dialect.
fn covers(outer: &Match, inner: &Match) -> bool {
    match (outer, inner) {
        (Match::Anything, _) | (_, Match::Nothing) => true,
        (Match::Doubt(_), _) => false,
        // With a doubt in it, nothing says that it comes out the same for two policies.
        (outer, inner) if outer == inner && !has_doubt(outer) => true,
        (_, Match::OneOf(parts)) => parts.iter().all(|part| covers(outer, part)),
        (Match::All(parts), _) => parts.iter().all(|part| covers(part, inner)),
        (Match::OneOf(parts), _) if parts.iter().any(|part| covers(part, inner)) => true,
        (_, Match::All(parts)) => parts.iter().any(|part| covers(outer, part)),
        (Match::Not(outer), Match::Not(inner)) => covers(inner, outer),
        (
            Match::Label { owner, key, test },
            Match::Label { owner: inner_owner, key: inner_key, test: inner_test },
        ) => owner == inner_owner && key == inner_key && test_covers(test, inner_test),
        (Match::Namespace(outer), Match::Namespace(inner))
        | (Match::ServiceAccount(outer), Match::ServiceAccount(inner))
        | (Match::Name(outer), Match::Name(inner)) => test_covers(outer, inner),
        (Match::Cidr(outer), Match::Cidr(inner))
        | (Match::Address(outer), Match::Address(inner) | Match::Cidr(inner)) => inner.is_subset(outer),
        _ => false,
    }
}

fn has_doubt(what: &Match) -> bool {
    match what {
        Match::All(parts) | Match::OneOf(parts) => parts.iter().any(has_doubt),
        Match::Not(inner) => has_doubt(inner),
        Match::Doubt(_) => true,
        _ => false,
    }
}

fn test_covers(outer: &Test, inner: &Test) -> bool {
    match (outer, inner) {
        (Test::Exists, _) => true,
        (outer, Test::Is(value)) => outer.passes(value),
        (outer, Test::In(values)) => values.iter().all(|value| outer.passes(value)),
        (Test::StartsWith(outer), Test::StartsWith(inner)) => inner.starts_with(&**outer),
        (Test::EndsWith(outer), Test::EndsWith(inner)) => inner.ends_with(&**outer),
        (Test::Contains(outer), Test::Contains(inner)) => inner.contains(&**outer),
        _ => false,
    }
}
