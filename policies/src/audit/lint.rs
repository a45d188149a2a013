//! Findings about policies themselves: those that do nothing, less than they seem to, or more than is meant.
//!
//! | module | says |
//! |---|---|
//! | [`effect`] | whether a policy has an effect at all, and on whom |
//! | [`rules`] | what a single rule says: its labels, peers, ports, and what of it is not understood |
//! | [`order`] | what policies do to each other: undone isolation, ties |
//! | [`cover`] | rules that others have decided |
//! | [`crowd`] | whom they are asked of |
//!
//! None of these is a guess: what the input does not tell for sure is left out.

mod cover;
mod crowd;
mod effect;
mod order;
mod rules;

use super::Finding;
use super::select::{Party, Select};
use crate::cluster::{Cluster, Pod};
use crate::matching::Match;
use crate::policy::{Dialect, Direction, Policy, Rule, Section};
use crate::profile::Profile;
use crate::source::{At, ObjectRef};
use crate::truth::Truth;
use crowd::Crowd;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Findings about the cluster's policies.
pub(super) fn findings(cluster: &Cluster, profile: Profile) -> Vec<Finding> {
    let lint = Lint::new(cluster, profile);
    let mut found = Vec::new();
    lint.without_effect(&mut found);
    lint.selecting_nobody(&mut found);
    lint.about_rules(&mut found);
    lint.ambiguous(&mut found);
    lint.undone(&mut found);
    lint.shadowed(&mut found);
    found
}

/// Directions of pods (indices into the cluster's) in which nothing isolates them.
pub(super) fn not_isolated(cluster: &Cluster, profile: Profile, pods: &BTreeSet<usize>) -> Vec<Finding> {
    let lint = Lint::new(cluster, profile);
    pods.iter().filter_map(|pod| cluster.pods.get(*pod)).flat_map(|pod| lint.open_directions(pod)).collect()
}

struct Lint<'a> {
    select: Select<'a>,
    cluster: &'a Cluster,
    /// Policies that have an effect, as far as is known: neither inert nor surely not enforced.
    live: Vec<&'a Policy>,
    /// The pods whom a peer may be.
    crowd: Crowd<'a>,
    /// Everybody else whom one may be.
    others: Vec<Party<'a>>,
}

/// A rule as it was written, with what it became: one rule may have several readings, for parts of the subject or of the peers.
struct Written<'a> {
    object: &'a ObjectRef,
    direction: Direction,
    path: &'a Arc<str>,
    at: &'a At,
    /// Readings that may have an effect in this version, each with the policy it is in.
    readings: Vec<(&'a Policy, &'a Rule)>,
}

impl<'a> Lint<'a> {
    fn new(cluster: &'a Cluster, profile: Profile) -> Self {
        let select = Select::new(cluster, profile);
        let live = cluster
            .policies
            .iter()
            .filter(|policy| policy.inert.is_none() && profile.enforces(policy).truth.may());
        let workers = cluster.worker_pools.iter().map(|pool| Party::Worker(&pool.namespace));
        let mut others: Vec<Party<'a>> = workers.collect();
        // An input with the namespace that every cluster has shows them all; any other one may leave out whom a peer means.
        if !cluster.namespaces.contains_key("kube-system") {
            others.push(Party::Stranger);
        }
        others.extend(cluster.nodes.iter().map(Party::Node));
        if cluster.nodes.is_empty() {
            others.push(Party::SomeNode);
        }
        others.push(Party::Outside(None));
        Self { select, cluster, live: live.collect(), crowd: Crowd::new(cluster), others }
    }

    /// Pods that a policy may select, among others perhaps: a namespaced one selects in its own namespace only.
    fn near(&self, policy: &'a Policy) -> impl Iterator<Item = &'a Pod> {
        let namespace = policy.object.namespace.as_ref();
        let pods = self.crowd.perhaps(&self.select, &policy.subject, namespace.map(|namespace| &**namespace));
        pods.filter(move |pod| namespace.is_none_or(|namespace| *namespace == pod.namespace))
    }

    /// Pods that an expression of a policy may mean.
    fn peers(&self, peer: &'a Match, dialect: Dialect) -> impl Iterator<Item = &'a Pod> {
        let pods = self.crowd.perhaps(&self.select, peer, None);
        pods.filter(move |pod| self.select.truth(peer, Party::Pod(pod), dialect).may())
    }

    fn selects(&self, policy: &'a Policy, pod: &'a Pod) -> Truth {
        let is_near = policy.object.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace);
        if is_near { self.select.selects(&policy.subject, pod, policy.dialect) } else { Truth::No }
    }

    /// Rules of the policies that have an effect, each with its readings.
    fn written(&self) -> Vec<Written<'a>> {
        type Key<'a> = (&'a ObjectRef, Direction, &'a At, &'a Arc<str>);
        let mut written: BTreeMap<Key<'a>, Vec<(&'a Policy, &'a Rule)>> = BTreeMap::new();
        for policy in self.live.iter().filter(|policy| self.select.whoever(&policy.subject).may()) {
            for (direction, section) in sections(policy) {
                for rule in section.rules.iter().filter(|rule| self.select.whoever(&rule.peer).may()) {
                    let key = (&policy.object, direction, &rule.at, &rule.path);
                    written.entry(key).or_default().push((policy, rule));
                }
            }
        }
        let written = written.into_iter();
        written
            .map(|((object, direction, at, path), readings)| Written {
                object,
                direction,
                path,
                at,
                readings,
            })
            .collect()
    }
}

/// What a policy says, by direction.
fn sections(policy: &Policy) -> impl Iterator<Item = (Direction, &Section)> {
    let both = [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)];
    both.into_iter().filter_map(|(direction, section)| Some((direction, section.as_ref()?)))
}

/// What a policy says of a direction.
fn section(policy: &Policy, direction: Direction) -> Option<&Section> {
    match direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    }
}

#[cfg(test)]
mod tests;
