//! What a traffic expression matches, as sets of packets.

use super::stages::Expressions;
use crate::cluster::ContainerPort;
use crate::matching::TrafficMatch;
use crate::policy::Dialect;
use crate::profile::{Fact, Profile};
use crate::sets::{Lane, PortSet, Protocol, Traffic};
use crate::truth::Truth;

/// Sets of source ports that are told apart; each multiplies the work of every pair.
const MOST_SOURCE_ATOMS: usize = 64;

/// What a traffic expression surely and possibly matches towards a destination with these ports, for one group of source
/// ports. Without a dialect it is an intent's.
pub(crate) fn lower(
    what: &TrafficMatch,
    ports: Option<&[ContainerPort]>,
    atoms: &[PortSet],
    group: usize,
    of: Option<(Dialect, Profile)>,
) -> (Traffic, Traffic) {
    let exact = |traffic: Traffic| (traffic.clone(), traffic);
    match what {
        TrafficMatch::Anything => exact(Traffic::all()),
        TrafficMatch::Nothing => exact(Traffic::none()),
        TrafficMatch::All(parts) => parts.iter().fold(exact(Traffic::all()), |(lo, hi), part| {
            let (a, b) = lower(part, ports, atoms, group, of);
            (lo.intersection(&a), hi.intersection(&b))
        }),
        TrafficMatch::OneOf(parts) => parts.iter().fold(exact(Traffic::none()), |(lo, hi), part| {
            let (a, b) = lower(part, ports, atoms, group, of);
            (lo.union(&a), hi.union(&b))
        }),
        TrafficMatch::Not(inner) => {
            let (lo, hi) = lower(inner, ports, atoms, group, of);
            (hi.complement(), lo.complement())
        }
        TrafficMatch::Protocol(protocol) => sctp(*protocol, protocol.traffic(), of),
        TrafficMatch::Ports(protocol, set) => {
            let (lo, hi) = sctp(*protocol, Traffic::to(*protocol, set.clone()), of);
            let Some((Dialect::NetworkPolicy, profile)) = of else { return (lo, hi) };
            // Only `endPort` makes a range of more than one port there.
            let firsts = Traffic::to(*protocol, PortSet::of(set.iter().map(|(first, _)| (first, first))));
            match profile.fact(Fact::EndPort).truth {
                Truth::Yes => (lo, hi),
                // Ports of several entries that touch are one interval, too: what lies in it is not surely left out.
                Truth::Unknown | Truth::No => (lo.intersection(&firsts), hi),
            }
        }
        TrafficMatch::NamedPort(protocol, name) => {
            let Some(ports) = ports else { return (Traffic::none(), protocol.traffic()) };
            let named = ports.iter().filter(|p| p.protocol == *protocol && p.name.as_ref() == Some(name));
            let set = PortSet::of(named.map(|p| (p.port, p.port)));
            // A name that one pod uses for several ports stands for one of them; which one differs.
            let is_one = set.iter().len() <= 1 && set.iter().all(|(first, last)| first == last);
            let (lo, hi) = sctp(*protocol, Traffic::to(*protocol, set), of);
            if is_one { (lo, hi) } else { (Traffic::none(), hi) }
        }
        TrafficMatch::SourcePorts(protocol, set) => {
            let atom = atoms.get(group);
            let all = atom.is_none_or(|atom| atom.is_subset(set));
            let some = atom.is_none_or(|atom| atom.intersects(set));
            let traffic = |is: bool| if is { protocol.traffic() } else { Traffic::none() };
            (traffic(all), traffic(some))
        }
        TrafficMatch::Doubt(_) => (Traffic::none(), Traffic::all()),
    }
}

/// A rule about SCTP is only sure where the implementation has SCTP.
fn sctp(protocol: Protocol, traffic: Traffic, of: Option<(Dialect, Profile)>) -> (Traffic, Traffic) {
    let honoured = match of {
        Some((_, profile)) if protocol == Protocol::Sctp => profile.fact(Fact::Sctp).truth,
        _ => Truth::Yes,
    };
    let lo = if honoured.must() { traffic.clone() } else { Traffic::none() };
    (lo, traffic)
}

/// The largest sets of source ports that no rule divides; one of all where none asks for source ports.
pub(super) fn source_atoms(expressions: &Expressions) -> Vec<PortSet> {
    fn walk(what: &TrafficMatch, atoms: &mut Vec<PortSet>) {
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| walk(part, atoms))
            }
            TrafficMatch::Not(inner) => walk(inner, atoms),
            // Beyond the cap the atoms stay coarse, and a rule that divides one is unknown on it.
            TrafficMatch::SourcePorts(_, set) if atoms.len() < MOST_SOURCE_ATOMS => {
                *atoms = atoms
                    .iter()
                    .flat_map(|atom| [atom.intersection(set), atom.difference(set)])
                    .filter(|atom| !atom.is_empty())
                    .collect();
            }
            _ => {}
        }
    }
    let mut atoms = vec![Lane::Tcp.ports()];
    expressions.all.iter().for_each(|(what, _)| walk(what, &mut atoms));
    atoms
}

/// Whether what an expression matches depends on how the destination names its ports.
pub(super) fn asks_for_names(what: &TrafficMatch) -> bool {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => parts.iter().any(asks_for_names),
        TrafficMatch::Not(inner) => asks_for_names(inner),
        TrafficMatch::NamedPort(..) => true,
        _ => false,
    }
}

/// The names that an expression asks for.
pub(super) fn names_asked(what: &TrafficMatch) -> Vec<(&str, Protocol)> {
    match what {
        TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => parts.iter().flat_map(names_asked).collect(),
        TrafficMatch::Not(inner) => names_asked(inner),
        TrafficMatch::NamedPort(protocol, name) => vec![(name, *protocol)],
        _ => Vec::new(),
    }
}
