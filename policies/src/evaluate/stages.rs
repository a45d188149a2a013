//! Policies in the order in which a profile asks them, ready to be run: what each selects as bits, what each rule matches as
//! numbers.

use super::select::Select;
use crate::cluster::Cluster;
use crate::matching::TrafficMatch;
use crate::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy};
use crate::profile::{Pipeline, Profile, Standing};
use crate::truth::Truth;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A stage: policies in bands; those of one band have no order among them.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: Arc<str>,
    pub(super) bands: Vec<Vec<Step>>,
    pub(super) end: End,
}

/// What becomes of what a stage leaves undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Denied to whom an isolating section selects.
    Isolation,
    /// Denied to whom any policy of the stage with a section for the direction selects.
    DenyWhereApplied,
    /// Handed on.
    Next,
}

/// A policy, or those of its rules that have one action, as a part of a band.
#[derive(Debug)]
pub(super) struct Step {
    /// Index into the cluster's policies.
    pub(super) policy: usize,
    /// Whether it is enforced.
    pub(super) enforced: Truth,
    /// Number of the subject's selection.
    pub(super) subject: u32,
    /// Whether nothing is known of what it does.
    pub(super) opaque: bool,
    /// Rules by direction: ingress, egress.
    pub(super) rules: [Vec<CompiledRule>; 2],
    /// Whether it has a section, by direction.
    pub(super) has_section: [bool; 2],
    /// Whether that isolates, by direction.
    pub(super) isolates: [Truth; 2],
}

/// A rule.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// Index into the section's rules.
    pub(super) index: usize,
    pub(super) action: Action,
    /// Number of the peer's selection.
    pub(super) peer: u32,
    /// Number of the traffic expression.
    pub(super) traffic: u32,
}

/// Traffic expressions of all rules, each once.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    pub(super) all: Vec<(TrafficMatch, Dialect)>,
    known: HashMap<Dialect, HashMap<TrafficMatch, u32>>,
}

impl Expressions {
    pub(super) fn number(&mut self, what: &TrafficMatch, dialect: Dialect) -> u32 {
        if let Some(number) = self.known.get(&dialect).and_then(|known| known.get(what)) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push((what.clone(), dialect));
        self.known.entry(dialect).or_default().insert(what.clone(), number);
        number
    }
}

/// Index of a direction in a [`Step`]'s pairs.
pub(super) fn side(direction: Direction) -> usize {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    }
}

/// All stages of a profile.
pub(super) fn stages(
    cluster: &Cluster,
    profile: Profile,
    select: &mut Select<'_>,
    expressions: &mut Expressions,
) -> Vec<Stage> {
    let enforced: Vec<(usize, &Policy, Truth)> = cluster
        .policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| policy.inert.is_none())
        .map(|(i, policy)| (i, policy, profile.enforces(policy).truth))
        .filter(|(_, _, truth)| truth.may())
        .collect();
    let mut step = |entry: &(usize, &Policy, Truth), only: Option<Action>| {
        step(entry.0, entry.1, entry.2, only, select, expressions)
    };
    match profile.pipeline() {
        Pipeline::Standard => {
            let mut stages = strangers(&enforced, &mut step);
            stages.push(cluster_tier(ClusterTier::Admin, "Admin tier", &enforced, &mut step));
            let normal =
                || enforced.iter().filter(|(_, p, _)| matches!(p.place, Place::Kubernetes | Place::Cilium));
            // A deny beats an allow, whoever writes it; among equals the order makes no difference.
            let mut bands = Vec::new();
            for action in [Action::Unknown, Action::Deny, Action::Allow] {
                bands.extend(normal().map(|entry| vec![step(entry, Some(action))]));
            }
            let has_cilium = normal().any(|(_, policy, _)| policy.place == Place::Cilium);
            let name = if has_cilium { "NetworkPolicy and Cilium policy" } else { "NetworkPolicy" };
            stages.push(Stage { name: name.into(), bands, end: End::Isolation });
            stages.push(cluster_tier(ClusterTier::Baseline, "Baseline tier", &enforced, &mut step));
            stages
        }
        Pipeline::CalicoTiers => calico_tiers(cluster, profile, &enforced, &mut step),
    }
}

type Entry<'a> = (usize, &'a Policy, Truth);

fn cluster_tier(
    wanted: ClusterTier,
    name: &str,
    enforced: &[Entry<'_>],
    step: &mut impl FnMut(&Entry<'_>, Option<Action>) -> Step,
) -> Stage {
    let mut bands: BTreeMap<u16, Vec<Step>> = BTreeMap::new();
    for entry in enforced {
        if let Place::Cluster { tier, priority } = entry.1.place
            && tier == wanted
        {
            bands.entry(priority).or_default().push(step(entry, None));
        }
    }
    Stage { name: name.into(), bands: bands.into_values().collect(), end: End::Next }
}

fn calico_tiers(
    cluster: &Cluster,
    profile: Profile,
    enforced: &[Entry<'_>],
    step: &mut impl FnMut(&Entry<'_>, Option<Action>) -> Step,
) -> Vec<Stage> {
    let mut standing: Vec<(Standing, &Entry<'_>)> = enforced
        .iter()
        .filter_map(|entry| Some((Standing::of(profile, &cluster.tiers, entry.1)?, entry)))
        .collect();
    // Stable: a policy that was split into several keeps the order of its rules.
    standing.sort_by(|(a, _), (b, _)| a.compare(b));
    let mut stages: Vec<(Arc<str>, Stage)> = Vec::new();
    for (standing, entry) in standing {
        if stages.last().is_none_or(|(tier, _)| *tier != standing.tier) {
            let end = if standing.default_pass { End::Next } else { End::DenyWhereApplied };
            let name = format!("Calico tier {}", standing.tier).into();
            stages.push((standing.tier.clone(), Stage { name, bands: Vec::new(), end }));
        }
        if let Some((_, stage)) = stages.last_mut() {
            stage.bands.push(vec![step(entry, None)]);
        }
    }
    stages.into_iter().map(|(_, stage)| stage).collect()
}

/// Policies of a kind that stands nowhere in a profile's order, and is perhaps enforced: whatever they say may be so.
fn strangers(
    enforced: &[Entry<'_>],
    step: &mut impl FnMut(&Entry<'_>, Option<Action>) -> Step,
) -> Vec<Stage> {
    let bands: Vec<Vec<Step>> = enforced
        .iter()
        .filter(|(_, policy, _)| matches!(policy.place, Place::Calico { .. }))
        .map(|entry| vec![Step { opaque: true, ..step(entry, None) }])
        .collect();
    if bands.is_empty() {
        return Vec::new();
    }
    vec![Stage { name: "Calico policy".into(), bands, end: End::Next }]
}

fn step(
    index: usize,
    policy: &Policy,
    enforced: Truth,
    only: Option<Action>,
    select: &mut Select<'_>,
    expressions: &mut Expressions,
) -> Step {
    let sections = [policy.ingress.as_ref(), policy.egress.as_ref()];
    let mut rules = |section: Option<&crate::policy::Section>| {
        section
            .iter()
            .flat_map(|section| section.rules.iter().enumerate())
            .filter(|(_, rule)| only.is_none_or(|only| rule.action == only))
            .map(|(i, rule)| CompiledRule {
                index: i,
                action: rule.action,
                peer: select.number(&rule.peer, Some(policy.dialect)),
                traffic: expressions.number(&rule.traffic, policy.dialect),
            })
            .collect::<Vec<_>>()
    };
    let [ingress, egress] = sections;
    let rules = [rules(ingress), rules(egress)];
    // Where rules are split by action, isolation and doubts are said once.
    let first = only.is_none_or(|only| only == Action::Unknown);
    Step {
        policy: index,
        enforced,
        subject: select.number(&policy.subject, Some(policy.dialect)),
        opaque: first && !policy.doubts.is_empty(),
        rules,
        has_section: sections.map(|section| first && section.is_some()),
        isolates: sections
            .map(|section| section.filter(|_| first).map_or(Truth::No, |section| section.isolates)),
    }
}
