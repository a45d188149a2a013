//! Cilium's policies among the rest of the cluster: CIDR groups, Services, and the DNS rules that names depend on.

use super::super::selector::all;
use super::labels::pods_labelled;
use super::rules::{Empty, Peer, Raw, Which};
use super::{Block, Group, Parsed, Side, differs, fact};
use crate::cluster::{Cluster, Service};
use crate::matching::{Match, TrafficMatch};
use crate::policy::{Dialect, Place, Policy, Rule, Section};
use crate::profile::{CiliumChange, Fact};
use crate::sets::{AddressSet, Cidr, Protocol};
use crate::source::At;
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// The policies. One document may give several: a block that versions read differently stands once for each reading.
pub(in crate::read) fn link(parsed: Vec<Parsed>, cluster: &Cluster) -> Vec<Policy> {
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    for one in parsed {
        match one {
            Parsed::Group(group) => groups.push(group),
            Parsed::Policy(several) => blocks.extend(several),
        }
    }
    let seen: Vec<Match> = blocks
        .iter()
        .filter(|block| block.dns && block.inert.is_none())
        .map(|block| block.subject.clone())
        .collect();
    let linker = Linker { groups: &groups, cluster };
    blocks.iter().flat_map(|block| linker.block(block, &seen)).collect()
}

struct Linker<'l> {
    groups: &'l [Group],
    cluster: &'l Cluster,
}

/// Whether the names of a block's rules have addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// A DNS rule shows them to the agent.
    Seen,
    /// No rule in the input does.
    Unseen,
}

impl Linker<'_> {
    fn block(&self, block: &Block, seen: &[Match]) -> Vec<Policy> {
        let named = block.egress.rules.iter().flat_map(|rule| rule.peers.iter().flatten());
        let mut readings = if block.dns || !named.clone().any(|peer| matches!(peer, Peer::Domain(_))) {
            vec![(None, Names::Seen)]
        } else {
            // Which of these pods another policy's DNS rule selects decides.
            let watched = Match::OneOf(seen.to_vec());
            let mut readings = vec![(Some(watched.clone().negate()), Names::Unseen)];
            if !seen.is_empty() {
                readings.push((Some(watched), Names::Seen));
            }
            readings
        };
        let known = fact(CiliumChange::DefaultDenyField);
        let fields = if differs(&block.ingress) || differs(&block.egress) {
            vec![(Some(known.clone()), true), (Some(known.negate()), false)]
        } else {
            vec![(None, true)]
        };
        let mut policies = Vec::new();
        for (watched, names) in readings.drain(..) {
            for (known, field) in &fields {
                let guards = watched.iter().chain(known.iter()).cloned();
                let subject = all(std::iter::once(block.subject.clone()).chain(guards).collect());
                policies.push(Policy {
                    object: block.object.clone(),
                    at: block.at.clone(),
                    dialect: Dialect::Cilium,
                    place: Place::Cilium,
                    subject,
                    ingress: self.side(&block.ingress, names, *field),
                    egress: self.side(&block.egress, names, *field),
                    doubts: block.doubts.clone(),
                    inert: block.inert.clone(),
                    inert_rules: Vec::new(),
                });
            }
        }
        policies
    }

    /// A section isolates if it has rules, unless `enableDefaultDeny` says no; without rules it says nothing, whatever
    /// `enableDefaultDeny` says (computePolicyEnforcementAndRules, pkg/policy/repository.go).
    fn side(&self, side: &Side, names: Names, field_known: bool) -> Option<Section> {
        if side.rules.is_empty() {
            return None;
        }
        let isolates = Truth::from(!field_known || side.default_deny.unwrap_or(true));
        Some(Section { isolates, rules: side.rules.iter().flat_map(|raw| self.rule(raw, names)).collect() })
    }

    fn rule(&self, raw: &Raw, names: Names) -> Vec<Rule> {
        let mut parts = vec![self.peers(raw, names)];
        parts.extend(raw.doubts.iter().cloned().map(Match::Doubt));
        let peer = all(parts);
        let rule = |peer, traffic| Rule {
            path: Arc::clone(&raw.path),
            at: raw.at.clone(),
            action: raw.action,
            peer,
            traffic,
            note: raw.ports.note.clone(),
        };
        let readings = match &raw.ports.without_end {
            None => vec![(peer, raw.ports.traffic.clone())],
            Some(older) => {
                let ends = Match::Fact(Fact::EndPort);
                vec![
                    (Match::All(vec![ends.clone(), peer.clone()]), raw.ports.traffic.clone()),
                    (Match::All(vec![ends.negate(), peer]), older.clone()),
                ]
            }
        };
        readings
            .into_iter()
            .flat_map(|(peer, traffic)| {
                // SCTP is known to the data plane only if it is switched on.
                let (other, sctp) = split_sctp(traffic);
                let guarded = Match::All(vec![Match::Fact(Fact::Sctp), peer.clone()]);
                [other.map(|traffic| (peer, traffic)), sctp.map(|traffic| (guarded, traffic))]
            })
            .flatten()
            .map(|(peer, traffic)| rule(peer, traffic))
            .collect()
    }

    /// A rule without peers means any peer if it names ports, and nobody if it does not; so `- {}` is nobody
    /// (mergeL4Filter, pkg/policy/rule.go).
    fn peers(&self, raw: &Raw, names: Names) -> Match {
        let named = raw.ports.named;
        match (&raw.peers, raw.empty) {
            (None, Empty::No) if named => Match::Anything,
            (None, Empty::Nobody) if named => fact(CiliumChange::EmptyListIsNobody).negate(),
            (None, _) => Match::Nothing,
            (Some(peers), empty) => {
                let each: Vec<Match> = peers.iter().map(|peer| self.peer(peer, named, names)).collect();
                let known = if each.len() == 1 { all(each) } else { Match::OneOf(each) };
                // An empty list beside another one takes the rule down with it.
                match empty {
                    Empty::No => known,
                    Empty::Nobody => Match::All(vec![fact(CiliumChange::EmptyListIsNobody).negate(), known]),
                }
            }
        }
    }

    fn peer(&self, peer: &Peer, ports: bool, names: Names) -> Match {
        match peer {
            Peer::Known(known) => known.clone(),
            Peer::Domain(domain) if names == Names::Seen => domain.clone(),
            Peer::Domain(domain) => {
                let what = "no policy in the input has a DNS rule for these pods, by which the agent learns a name's addresses";
                Match::All(vec![domain.clone(), Match::Doubt(Doubt::new(what))])
            }
            Peer::Groups(which, at) => self.groups(which, at),
            Peer::Services(which, namespace, at) => self.services(which, namespace.as_ref(), ports, at),
        }
    }

    fn groups(&self, which: &Which, at: &At) -> Match {
        let chosen: Vec<&Group> = match which {
            Which::Named(name) => self.groups.iter().filter(|group| group.name == *name).collect(),
            Which::Selected(selector) => {
                self.groups.iter().filter(|group| selector.matches(&group.labels)).collect()
            }
        };
        if chosen.is_empty() {
            return Match::Doubt(Doubt::at("the CiliumCIDRGroup that this names is not in the input", at));
        }
        let set = chosen.iter().fold(AddressSet::empty(), |set, group| set.union(&group.addresses));
        let mut known = vec![Match::Cidr(set)];
        known.extend(chosen.iter().flat_map(|group| &group.doubts).cloned().map(Match::Doubt));
        // Before 1.17 groups are known in some directions only, and not by label.
        Match::All(vec![fact(CiliumChange::CidrGroups), all(known)])
    }

    /// Backends of Services: by selector since 1.17, by address where the Service has no selector
    /// (processRule, pkg/policy/k8s/service.go).
    fn services(&self, which: &Which, namespace: Option<&Arc<str>>, ports: bool, at: &At) -> Match {
        let chosen: Vec<&Service> = self
            .cluster
            .services
            .iter()
            .filter(|service| namespace.is_none_or(|namespace| *namespace == service.namespace))
            .filter(|service| match which {
                Which::Named(name) => *name == service.object.name,
                Which::Selected(selector) => selector.matches(&service.labels),
            })
            .collect();
        if chosen.is_empty() {
            let what = if ports {
                "no Service of the input is meant; beside toPorts, Cilium then lets every peer in (its issue 20067)"
            } else {
                "no Service of the input is meant"
            };
            return Match::Doubt(Doubt::at(what, at));
        }
        let mut each = Vec::new();
        let mut by_selector = false;
        for service in chosen {
            match service.selector.as_ref().filter(|selector| !selector.is_empty()) {
                Some(selector) => {
                    by_selector = true;
                    let pods = pods_labelled(&service.namespace, selector);
                    each.push(Match::All(vec![fact(CiliumChange::ServicesBySelector), pods]));
                }
                None => each.push(self.backends(service, at)),
            }
        }
        if ports && by_selector {
            // 1.13 takes the rule, finds no address to put in its place, and lets every peer in on the port.
            let what = "beside toPorts, Cilium 1.13 lets every peer in where a Service has a selector (its issue 20067)";
            let older = fact(CiliumChange::ServicesBySelector).negate();
            each.push(Match::All(vec![older, Match::Doubt(Doubt::at(what, at))]));
        }
        if each.len() == 1 { all(each) } else { Match::OneOf(each) }
    }

    fn backends(&self, service: &Service, at: &At) -> Match {
        let mut found = self
            .cluster
            .endpoints
            .iter()
            .filter(|endpoints| {
                endpoints.namespace == service.namespace && endpoints.service == service.object.name
            })
            .peekable();
        if found.peek().is_none() {
            let what = format!("the endpoints of {} are not in the input", service.object);
            return Match::Doubt(Doubt::at(what, at));
        }
        let addresses = found.flat_map(|endpoints| &endpoints.addresses);
        Match::Cidr(AddressSet::blocks(addresses.map(|(address, _)| Cidr::host(*address))))
    }
}

/// What a rule says of other protocols, and what it says of SCTP by name.
fn split_sctp(traffic: TrafficMatch) -> (Option<TrafficMatch>, Option<TrafficMatch>) {
    let TrafficMatch::OneOf(parts) = traffic else { return (Some(traffic), None) };
    let (sctp, other): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_sctp);
    let sctp = (!sctp.is_empty()).then_some(TrafficMatch::OneOf(sctp));
    let other = (!other.is_empty() || sctp.is_none()).then_some(TrafficMatch::OneOf(other));
    (other, sctp)
}

fn is_sctp(part: &TrafficMatch) -> bool {
    match part {
        TrafficMatch::Protocol(protocol)
        | TrafficMatch::Ports(protocol, _)
        | TrafficMatch::NamedPort(protocol, _) => *protocol == Protocol::Sctp,
        TrafficMatch::All(parts) => parts.iter().any(is_sctp),
        _ => false,
    }
}
