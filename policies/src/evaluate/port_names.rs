//! Which endpoints name their ports alike.

use super::endpoints::Item;
use super::stages::Expressions;
use crate::cluster::ContainerPort;
use crate::matching::TrafficMatch;
use crate::sets::Protocol;
use std::collections::{HashMap, HashSet};

/// For each endpoint the number of its table of port names, as far as rules ask for them; and the tables.
pub(super) fn port_names(
    expressions: &Expressions,
    items: &[Item<'_>],
) -> (Vec<u32>, Vec<Option<Vec<ContainerPort>>>) {
    fn walk<'m>(what: &'m TrafficMatch, names: &mut HashSet<(&'m str, Protocol)>) {
        match what {
            TrafficMatch::All(parts) | TrafficMatch::OneOf(parts) => {
                parts.iter().for_each(|part| walk(part, names))
            }
            TrafficMatch::Not(inner) => walk(inner, names),
            TrafficMatch::NamedPort(protocol, name) => {
                names.insert((name, *protocol));
            }
            _ => {}
        }
    }
    let mut names = HashSet::new();
    expressions.all.iter().for_each(|(what, _)| walk(what, &mut names));
    let mut tables: Vec<Option<Vec<ContainerPort>>> = vec![Some(Vec::new()), None];
    let mut known: HashMap<Vec<ContainerPort>, u32> = [(Vec::new(), 0)].into();
    let numbers = items
        .iter()
        .map(|item| {
            if item.is_imagined {
                return 1;
            }
            let asked = |port: &&ContainerPort| {
                port.name.as_ref().is_some_and(|name| names.contains(&(&**name, port.protocol)))
            };
            let mut own: Vec<_> = item.ports.iter().filter(asked).cloned().collect();
            for port in &mut own {
                port.host_port = None;
                port.host_ip = None;
            }
            own.sort_unstable();
            own.dedup();
            *known.entry(own).or_insert_with_key(|own| {
                tables.push(Some(own.clone()));
                u32::try_from(tables.len().saturating_sub(1)).unwrap_or(u32::MAX)
            })
        })
        .collect();
    (numbers, tables)
}
