//! Which endpoints an expression matches, for all of them at once: an index of labels, namespaces and addresses, and algebra
//! on bits.

use super::bits::{Bits, Tri};
use super::endpoints::{Addresses, Item, Shape};
use super::one::One;
use crate::cluster::{ADDED_BY_CONTROLLERS, Labels};
use crate::matching::{LabelOwner, Match, Test};
use crate::policy::Dialect;
use crate::profile::Fact;
use crate::sets::AddressSet;
use crate::truth::Truth;
use std::collections::HashMap;
use std::net::IpAddr;

/// Postings of one label key: value → endpoints, ascending.
type Postings<'a> = HashMap<&'a str, Vec<u32>>;
/// What was computed for each expression of a dialect.
type Known<T> = HashMap<Option<Dialect>, HashMap<Match, T>>;

/// Answers which endpoints match.
pub(super) struct Select<'a> {
    one: One<'a>,
    items: &'a [Item<'a>],
    labels: HashMap<&'a str, Postings<'a>>,
    /// Endpoints by namespace; imagined namespaces may share names and have labels of their own.
    namespaces: HashMap<(&'a str, Option<&'a Labels>), Vec<u32>>,
    templates: Vec<u32>,
    host_pods: Vec<u32>,
    /// Every address of the endpoints that have nothing but single, known ones; sorted.
    hosts: Vec<(IpAddr, u32)>,
    /// How many of those each endpoint has; 0 for the others.
    host_counts: Vec<u32>,
    /// The endpoints whose addresses are something else.
    spread: Vec<u32>,
    numbers: Known<u32>,
    /// Expressions that are not put together from others: many rules share them.
    leaves: Known<Tri>,
    results: Vec<Tri>,
}

impl<'a> Select<'a> {
    pub(super) fn new(one: One<'a>, items: &'a [Item<'a>]) -> Self {
        let mut select = Self {
            one,
            items,
            labels: HashMap::new(),
            namespaces: HashMap::new(),
            templates: Vec::new(),
            host_pods: Vec::new(),
            hosts: Vec::new(),
            host_counts: Vec::with_capacity(items.len()),
            spread: Vec::new(),
            numbers: HashMap::new(),
            leaves: HashMap::new(),
            results: Vec::new(),
        };
        for (i, item) in items.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            for (key, value) in item.labels.into_iter().flatten() {
                select.labels.entry(key).or_default().entry(value).or_default().push(i);
            }
            if let Some(namespace) = item.namespace {
                select.namespaces.entry((namespace, item.namespace_labels)).or_default().push(i);
            }
            if item.is_template {
                select.templates.push(i);
            }
            if item.shape == Shape::HostPod {
                select.host_pods.push(i);
            }
            let hosts = item.addresses.hosts();
            select.host_counts.push(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
            if hosts.is_empty() && item.addresses != Addresses::None {
                select.spread.push(i);
            }
            select.hosts.extend(hosts.into_iter().map(|host| (host, i)));
        }
        select.hosts.sort_unstable();
        select
    }

    /// The number of a result, computed once for each expression and dialect.
    pub(super) fn number(&mut self, what: &Match, dialect: Option<Dialect>) -> u32 {
        if let Some(number) = self.numbers.get(&dialect).and_then(|known| known.get(what)) {
            return *number;
        }
        let tri = self.all(what, dialect);
        let number = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        self.results.push(tri);
        self.numbers.entry(dialect).or_default().insert(what.clone(), number);
        number
    }

    /// Everything that was asked for, by number.
    pub(super) fn into_results(self) -> Vec<Tri> {
        self.results
    }

    /// Which endpoints match: of each the same as [`One::matches`] says.
    fn all(&mut self, what: &Match, dialect: Option<Dialect>) -> Tri {
        let len = self.items.len();
        match what {
            Match::Anything => Tri::all(len),
            Match::Nothing => Tri::none(len),
            Match::All(parts) => {
                let mut all = Tri::all(len);
                for part in parts {
                    all.and(&self.all(part, dialect));
                }
                all
            }
            Match::OneOf(parts) => {
                let mut any = Tri::none(len);
                for part in parts {
                    any.or(&self.all(part, dialect));
                }
                any
            }
            Match::Not(inner) => self.all(inner, dialect).negate(),
            leaf => {
                if let Some(known) = self.leaves.get(&dialect).and_then(|known| known.get(leaf)) {
                    return known.clone();
                }
                let tri = self.leaf(leaf, dialect);
                self.leaves.entry(dialect).or_default().insert(leaf.clone(), tri.clone());
                tri
            }
        }
    }

    fn leaf(&self, what: &Match, dialect: Option<Dialect>) -> Tri {
        let len = self.items.len();
        match what {
            Match::Label { owner: LabelOwner::Endpoint, key, test } => self.own_label(key, test, dialect),
            Match::Label { owner: LabelOwner::Namespace, .. } | Match::Namespace(_) => {
                let mut tri = Tri::none(len);
                for members in self.namespaces.values() {
                    // What is asked of a namespace has one answer for all who are in it.
                    let Some(first) = members.first().and_then(|i| self.item(*i)) else { continue };
                    let truth = self.one.matches(what, first, dialect);
                    if truth.may() {
                        members.iter().for_each(|member| tri.set(index(*member), truth));
                    }
                }
                tri
            }
            Match::Cidr(set) | Match::Address(set) => self.block(what, set, dialect),
            Match::Fact(fact) => match self.one.profile.fact(*fact).truth {
                Truth::Yes => Tri::all(len),
                Truth::Unknown => Tri::unknown(len),
                Truth::No => Tri::none(len),
            },
            Match::Doubt(_) => Tri::unknown(len),
            _ => {
                let mut tri = Tri::none(len);
                for (i, item) in self.items.iter().enumerate() {
                    tri.set(i, self.one.matches(what, item, dialect));
                }
                tri
            }
        }
    }

    fn item(&self, i: u32) -> Option<&Item<'a>> {
        self.items.get(index(i))
    }

    /// Endpoints with an address in a block: those of single addresses through the index, the others one by one.
    fn block(&self, what: &Match, set: &AddressSet, dialect: Option<Dialect>) -> Tri {
        let mut tri = Tri::none(self.items.len());
        let mut hit: Vec<u32> = Vec::new();
        for (first, last) in set.ranges() {
            let start = self.hosts.partition_point(|(address, _)| *address < first);
            let inside = self.hosts.get(start..).unwrap_or_default();
            hit.extend(inside.iter().take_while(|(address, _)| *address <= last).map(|(_, i)| *i));
        }
        hit.sort_unstable();
        for members in hit.chunk_by(|a, b| a == b) {
            let Some((first, item)) = members.first().and_then(|i| Some((*i, self.item(*i)?))) else {
                continue;
            };
            let all = self.host_counts.get(index(first)).copied() == u32::try_from(members.len()).ok();
            // One that is in the block with some of its addresses only may be met by another.
            let within = if all { Truth::Yes } else { Truth::Unknown };
            let counts = if matches!(what, Match::Cidr(_)) {
                self.one.block_counts(item, dialect)
            } else {
                Truth::Yes
            };
            tri.set(index(first), within.and(counts));
        }
        for i in &self.spread {
            if let Some(item) = self.item(*i) {
                tri.set(index(*i), self.one.matches(what, item, dialect));
            }
        }
        tri
    }

    fn own_label(&self, key: &str, test: &Test, dialect: Option<Dialect>) -> Tri {
        let len = self.items.len();
        let mut found = Bits::empty(len);
        if let Some(postings) = self.labels.get(key) {
            let mut add = |members: &Vec<u32>| {
                for member in members {
                    found.set(index(*member));
                }
            };
            match test {
                Test::Is(value) => postings.get(&**value).into_iter().for_each(add),
                Test::In(values) => values.iter().filter_map(|v| postings.get(&**v)).for_each(add),
                _ => postings.iter().filter(|(value, _)| test.passes(value)).for_each(|(_, m)| add(m)),
            }
        }
        let mut tri = Tri { must: found.clone(), may: found };
        if dialect.is_none() {
            return tri;
        }
        if ADDED_BY_CONTROLLERS.contains(&key) {
            for template in &self.templates {
                tri.may.set(index(*template));
            }
        }
        // A dropped label is on nobody; a node's labels are not a pod's and are not dropped, but no policy of a dialect with
        // dropped labels selects nodes by them.
        match self.one.profile.fact(Fact::DropsLabel(key)).truth {
            Truth::Yes => return Tri::none(len),
            Truth::Unknown => tri.must = Bits::empty(len),
            Truth::No => {}
        }
        let hidden = self.one.host_pods_hidden(dialect);
        if hidden.may() {
            for host_pod in self.host_pods.iter().map(|i| index(*i)) {
                let truth = tri.get(host_pod).and(!hidden);
                let mut only = Bits::empty(len);
                only.set(host_pod);
                let rest = only.complement();
                tri.must.and(&rest);
                tri.may.and(&rest);
                tri.set(host_pod, truth);
            }
        }
        tri
    }
}

fn index(i: u32) -> usize {
    usize::try_from(i).unwrap_or(usize::MAX)
}
