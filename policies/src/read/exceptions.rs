//! `except` beyond its own block. By the specification an exception takes addresses out of its own block only, and another rule
//! may allow them; an implementation with one table of prefixes for a pod keeps them out of every wider block
//! ([`Fact::ExceptionHolds`]). Which blocks that concerns shows only when all policies of a namespace are read.

use super::node::Node;
use super::{Document, core};
use crate::matching::Match;
use crate::policy::{Dialect, Direction, Policy, Section};
use crate::profile::Fact;
use crate::sets::{AddressSet, Cidr};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Exceptions of a namespace's policies, by direction.
pub(super) type Exceptions = BTreeMap<(Arc<str>, Direction), AddressSet>;

/// Marks, in the NetworkPolicies, the parts of blocks that another rule of the namespace makes an exception of.
pub(super) fn link(all: &Exceptions, policies: &mut [Policy]) {
    if all.is_empty() {
        return;
    }
    for policy in policies.iter_mut().filter(|policy| policy.dialect == Dialect::NetworkPolicy) {
        let Some(namespace) = policy.object.namespace.clone() else { continue };
        for (direction, section) in
            [(Direction::Ingress, &mut policy.ingress), (Direction::Egress, &mut policy.egress)]
        {
            let (Some(section), Some(out)) = (section, all.get(&(namespace.clone(), direction))) else {
                continue;
            };
            mark(section, out);
        }
    }
}

/// Adds the exceptions of a document, where it is a NetworkPolicy.
pub(super) fn gather(document: &Document, all: &mut Exceptions) {
    if document.group() != "networking.k8s.io" || &*document.kind != "NetworkPolicy" {
        return;
    }
    for (direction, rules, peers) in
        [(Direction::Ingress, "ingress", "from"), (Direction::Egress, "egress", "to")]
    {
        let rules = document.root.get("spec").and_then(|spec| spec.get(rules)).map_or(&[][..], Node::items);
        let peers = rules.iter().flat_map(|rule| rule.get(peers).map_or(&[][..], Node::items));
        let blocks = peers.filter_map(|peer| peer.get("ipBlock")?.get("except"));
        let texts = blocks.flat_map(Node::items).filter_map(Node::as_str);
        for block in texts.filter_map(|text| Cidr::parse_loose(text).ok()) {
            let key = (core::namespace_of(document), direction);
            let out = all.entry(key).or_insert_with(AddressSet::empty);
            *out = out.union(&AddressSet::block(block));
        }
    }
}

fn mark(section: &mut Section, out: &AddressSet) {
    for rule in &mut section.rules {
        let peer = std::mem::replace(&mut rule.peer, Match::Nothing);
        rule.peer = marked(peer, out);
    }
}

fn marked(peer: Match, out: &AddressSet) -> Match {
    match peer {
        Match::OneOf(parts) => Match::OneOf(parts.into_iter().map(|part| marked(part, out)).collect()),
        // A block that lies within the exception is the more specific entry, and counts.
        Match::Cidr(set) if set.intersects(out) && !set.is_subset(out) => {
            let held =
                Match::All(vec![Match::Fact(Fact::ExceptionHolds), Match::Cidr(set.intersection(out))]);
            Match::All(vec![Match::Cidr(set), held.negate()])
        }
        other => other,
    }
}
