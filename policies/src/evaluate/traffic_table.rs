//! Traffic by number: each set is kept once, and what two of them give is computed once.

use crate::sets::Traffic;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;

/// The number of a set of traffic.
pub(super) type TrafficId = u32;

/// No traffic.
pub(super) const NONE: TrafficId = 0;
/// All traffic.
pub(super) const ALL: TrafficId = 1;

/// Sets of traffic by number.
#[derive(Debug, Clone)]
pub(super) struct TrafficTable {
    sets: Vec<Arc<Traffic>>,
    ids: HashMap<Arc<Traffic>, TrafficId>,
    known: FxHashMap<(Op, TrafficId, TrafficId), TrafficId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Union,
    Intersection,
    Difference,
}

impl TrafficTable {
    pub(super) fn new() -> Self {
        let mut table = Self { sets: Vec::new(), ids: HashMap::new(), known: FxHashMap::default() };
        table.id(Traffic::none());
        table.id(Traffic::all());
        table
    }

    /// The number of a set.
    pub(super) fn id(&mut self, traffic: Traffic) -> TrafficId {
        if let Some(id) = self.ids.get(&traffic) {
            return *id;
        }
        let id = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let traffic = Arc::new(traffic);
        self.sets.push(Arc::clone(&traffic));
        self.ids.insert(traffic, id);
        id
    }

    /// The set of a number.
    pub(super) fn get(&self, id: TrafficId) -> Traffic {
        self.set(id).map(|set| Traffic::clone(set)).unwrap_or_default()
    }

    fn set(&self, id: TrafficId) -> Option<&Arc<Traffic>> {
        self.sets.get(usize::try_from(id).unwrap_or(usize::MAX))
    }

    pub(super) fn union(&mut self, a: TrafficId, b: TrafficId) -> TrafficId {
        match (a, b) {
            (NONE, x) | (x, NONE) => x,
            (ALL, _) | (_, ALL) => ALL,
            (a, b) if a == b => a,
            (a, b) => self.memo(Op::Union, a.min(b), a.max(b)),
        }
    }

    pub(super) fn intersection(&mut self, a: TrafficId, b: TrafficId) -> TrafficId {
        match (a, b) {
            (NONE, _) | (_, NONE) => NONE,
            (ALL, x) | (x, ALL) => x,
            (a, b) if a == b => a,
            (a, b) => self.memo(Op::Intersection, a.min(b), a.max(b)),
        }
    }

    pub(super) fn difference(&mut self, a: TrafficId, b: TrafficId) -> TrafficId {
        match (a, b) {
            (NONE, _) | (_, ALL) => NONE,
            (a, NONE) => a,
            (a, b) if a == b => NONE,
            (a, b) => self.memo(Op::Difference, a, b),
        }
    }

    /// Whether two sets share a packet. Remembers nothing: to ask costs no memory.
    pub(super) fn intersects(&self, a: TrafficId, b: TrafficId) -> bool {
        match (a, b) {
            (NONE, _) | (_, NONE) => false,
            (ALL, _) | (_, ALL) => true,
            (a, b) => a == b || self.set(a).zip(self.set(b)).is_some_and(|(a, b)| a.intersects(b)),
        }
    }

    fn memo(&mut self, op: Op, a: TrafficId, b: TrafficId) -> TrafficId {
        if let Some(id) = self.known.get(&(op, a, b)) {
            return *id;
        }
        let (Some(left), Some(right)) = (self.set(a), self.set(b)) else { return NONE };
        let set = match op {
            Op::Union => left.union(right),
            Op::Intersection => left.intersection(right),
            Op::Difference => left.difference(right),
        };
        let id = self.id(set);
        self.known.insert((op, a, b), id);
        id
    }
}
