//! Cuts the addresses outside the cluster into atoms: the largest sets that none of the given sets divides.

use crate::sets::{AddressSet, Family};
use std::collections::HashMap;
use std::net::IpAddr;

/// Cuts `space` by each of `sets`. The order is that of each atom's first address, IPv4 first.
pub(super) fn atoms(space: &AddressSet, sets: &[&AddressSet]) -> Vec<AddressSet> {
    let mut keys: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut parts: Vec<[Vec<(u128, u128)>; 2]> = Vec::new();
    for family in [Family::V4, Family::V6] {
        // A sweep over the places where membership changes; the set of members is the signature of what lies between.
        let mut events: Vec<(u128, u32, bool)> = Vec::new();
        let numbered = std::iter::once(space).chain(sets.iter().copied());
        for (set, id) in numbered.zip(0u32..) {
            for (first, last) in set.ranges() {
                if Family::of(first) == family {
                    events.push((number(first), id, true));
                    if let Some(after) = number(last).checked_add(1) {
                        events.push((after, id, false));
                    }
                }
            }
        }
        events.sort_unstable();
        let end = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        let mut members = std::collections::BTreeSet::new();
        let mut rest = events.as_slice();
        while let Some((from, _, _)) = rest.first().copied() {
            while let Some(((_, id, enters), more)) = rest.split_first().filter(|((at, _, _), _)| *at == from)
            {
                if *enters {
                    members.insert(*id);
                } else {
                    members.remove(id);
                }
                rest = more;
            }
            let to = rest.first().map_or(end, |(next, _, _)| next.saturating_sub(1));
            if from > end || !members.contains(&0) {
                continue;
            }
            let next = parts.len();
            let at = *keys.entry(members.iter().copied().collect()).or_insert(next);
            if at == next {
                parts.push([Vec::new(), Vec::new()]);
            }
            if let Some([v4, v6]) = parts.get_mut(at) {
                if family == Family::V4 { v4.push((from, to)) } else { v6.push((from, to)) }
            }
        }
    }
    parts.into_iter().map(|[v4, v6]| AddressSet::of_numbers(v4, v6)).collect()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::sets::Cidr;

    fn block(text: &str) -> AddressSet {
        AddressSet::block(text.parse::<Cidr>().unwrap())
    }

    #[test]
    fn overlapping_blocks_are_cut_where_they_differ() {
        let (a, b) = (block("10.0.0.0/8"), block("10.1.0.0/16"));
        let space = AddressSet::full().difference(&block("10.1.2.0/24"));
        let cut = atoms(&space, &[&a, &b]);
        let expected =
            [AddressSet::full().difference(&a), a.difference(&b), b.difference(&block("10.1.2.0/24"))];
        assert_eq!(cut, expected);
    }

    #[test]
    fn the_same_set_twice_cuts_once_and_the_last_address_is_not_lost() {
        let a = block("255.255.255.255/32").union(&block("ffff::/16"));
        let cut = atoms(&AddressSet::full(), &[&a, &a]);
        assert_eq!(cut, [a.complement(), a]);
    }
}
