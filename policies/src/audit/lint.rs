//! Findings about policies themselves, told from the model and from whom each selects. Silent wherever it is not sure.

use super::{Finding, catalog};
use crate::cluster::Cluster;
use crate::evaluate::Evaluation;
use crate::matching::{LabelOwner, Match, TrafficMatch};
use crate::policy::{Action, Policy, Rule};
use crate::profile::{Fact, Profile};
use crate::truth::{Doubt, Truth};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Findings about the cluster's policies.
pub(super) fn findings(cluster: &Cluster, profile: Profile, evaluation: &Evaluation<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    // A policy that is read as several, each with a part of the subject, selects nobody only if none of them does.
    let selecting: BTreeSet<_> = cluster
        .policies
        .iter()
        .enumerate()
        .filter(|(i, _)| evaluation.selects(*i) != Some(Truth::No))
        .map(|(_, policy)| &policy.object)
        .collect();
    for policy in &cluster.policies {
        let mut add = |kind: &'static catalog::Kind, at: &crate::source::At, reason: String| {
            found.push(Finding::certain(kind, policy.object.clone(), Some(at.clone()), reason));
        };
        if let Some(why) = &policy.inert {
            let kind = if why.contains("staged") { &catalog::STAGED } else { &catalog::INVALID };
            add(kind, &policy.at, format!("it has no effect: {why}"));
            continue;
        }
        let enforced = profile.fact(Fact::Enforces(policy.dialect));
        if enforced.truth == Truth::No {
            add(
                &catalog::NOT_ENFORCED,
                &policy.at,
                format!("{profile} does not enforce it: {}", enforced.why),
            );
            continue;
        }
        if !cluster.pods.is_empty() && !selecting.contains(&policy.object) {
            add(&catalog::SELECTS_NOBODY, &policy.at, "no pod of the input matches its selector".into());
        }
        let mut dropped = BTreeSet::new();
        own_labels(&policy.subject, &mut dropped);
        for rule in rules(policy) {
            own_labels(&rule.peer, &mut dropped);
            let everything = rule.action == Action::Allow
                && matches!(rule.peer, Match::Anything)
                && matches!(rule.traffic, TrafficMatch::Anything);
            if everything {
                add(
                    &catalog::ALLOWS_ALL,
                    &rule.at,
                    format!("{} allows all traffic with everybody", rule.path),
                );
            }
        }
        for key in dropped {
            let answer = profile.fact(Fact::DropsLabel(&key));
            if answer.truth == Truth::Yes {
                let reason =
                    format!("it selects by the label {key}, which {profile} does not see: {}", answer.why);
                add(&catalog::DROPPED_LABEL, &policy.at, reason);
            }
        }
        for doubt in doubts(policy) {
            let at = doubt.at.clone().unwrap_or_else(|| policy.at.clone());
            add(&catalog::NOT_UNDERSTOOD, &at, doubt.what.to_string());
        }
    }
    found
}

fn rules(policy: &Policy) -> impl Iterator<Item = &Rule> {
    policy.ingress.iter().chain(&policy.egress).flat_map(|section| &section.rules)
}

/// Keys of pods' own labels that an expression asks for.
fn own_labels(what: &Match, keys: &mut BTreeSet<Arc<str>>) {
    match what {
        Match::All(parts) | Match::OneOf(parts) => parts.iter().for_each(|part| own_labels(part, keys)),
        Match::Not(inner) => own_labels(inner, keys),
        Match::Label { owner: LabelOwner::Endpoint, key, .. } => {
            keys.insert(key.clone());
        }
        _ => {}
    }
}

/// All that is not understood of a policy, each once.
fn doubts(policy: &Policy) -> BTreeSet<Doubt> {
    fn peer(what: &Match, into: &mut BTreeSet<Doubt>) {
        match what {
            Match::All(parts) | Match::OneOf(parts) => parts.iter().for_each(|part| peer(part, into)),
            Match::Not(inner) => peer(inner, into),
            Match::Doubt(doubt) => {
                into.insert(doubt.clone());
            }
            _ => {}
        }
    }
    fn traffic(what: &TrafficMatch, into: &mut BTreeSet<Doubt>) {
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| traffic(part, into))
            }
            TrafficMatch::Not(inner) => traffic(inner, into),
            TrafficMatch::Doubt(doubt) => {
                into.insert(doubt.clone());
            }
            _ => {}
        }
    }
    let mut all: BTreeSet<Doubt> = policy.doubts.iter().cloned().collect();
    peer(&policy.subject, &mut all);
    for rule in rules(policy) {
        peer(&rule.peer, &mut all);
        traffic(&rule.traffic, &mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::evaluate::Options;
    use crate::read::{Input, Limits, ReadOptions};

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, labels: {app: x}}\nspec: {containers: [{name: c, image: i}]}\n---\n";

    fn found(policy: &str, profile: &str) -> Vec<(&'static str, u32)> {
        let mut input = Input::new(Limits::default());
        input.add("in.yaml", format!("{POD}{policy}")).unwrap();
        let cluster = crate::read::cluster(&input, &ReadOptions::default()).unwrap().cluster;
        let profile = profile.parse().unwrap();
        let evaluation = Evaluation::new(&cluster, profile, Options::default()).unwrap();
        let all = findings(&cluster, profile, &evaluation);
        all.into_iter().map(|finding| (finding.id, finding.at.unwrap().line)).collect()
    }

    fn policy(kind: &str, spec: &str) -> String {
        format!("apiVersion: {kind}\nmetadata: {{name: this, namespace: a}}\nspec: {spec}\n")
    }

    #[test]
    fn each_defect_is_found_at_its_line_and_a_good_policy_has_none() {
        let kubernetes = "networking.k8s.io/v1\nkind: NetworkPolicy";
        let cilium = "cilium.io/v2\nkind: CiliumNetworkPolicy";
        let good = "{podSelector: {matchLabels: {app: x}}, policyTypes: [Ingress]}";
        let cases = [
            (kubernetes, good, "generic", vec![]),
            (kubernetes, "{podSelector: {matchLabels: {app: y1}}}", "generic", vec![("MF201", 6)]),
            (kubernetes, "{podSelector: {}, ingress: [{}]}", "generic", vec![("MF210", 9)]),
            (kubernetes, "{podSelector: {}, later: 1}", "generic", vec![("MF214", 9)]),
            (cilium, "{endpointSelector: {}, ingress: [{}]}", "calico", vec![("MF206", 9)]),
            (
                cilium,
                "{endpointSelector: {matchLabels: {pod-template-hash: x}}, ingress: [{}]}",
                "cilium",
                vec![("MF201", 9), ("MF203", 9)],
            ),
            (
                "projectcalico.org/v3\nkind: StagedNetworkPolicy",
                "{selector: all(), types: [Ingress]}",
                "calico",
                vec![("MF207", 6)],
            ),
        ];
        for (kind, spec, profile, expected) in cases {
            assert_eq!(found(&policy(kind, spec), profile), expected, "{spec}");
        }
    }
}
