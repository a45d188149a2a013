//! A map that forgets its oldest entries: everything in it can be found out again.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// At most `cap` entries.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    cap: usize,
    entries: HashMap<K, V>,
    /// Keys by age. May hold keys that were removed, and those that were put in again twice.
    order: VecDeque<K>,
}

impl<K: Eq + Hash + Clone, V: Clone> Bounded<K, V> {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, entries: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).cloned()
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.entries.len() > self.cap || self.order.len() > self.cap.saturating_mul(2) {
            match self.order.pop_front() {
                Some(oldest) => drop(self.entries.remove(&oldest)),
                None => break,
            }
        }
    }

    pub(super) fn remove_where(&mut self, matches: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| !matches(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_grows_beyond_its_cap() {
        let mut map = Bounded::new(3);
        for n in 0..1_000 {
            map.put(n % 7, n);
            map.remove_where(|k| *k == n % 5);
            assert!(map.entries.len() <= 3 && map.order.len() <= 6, "{map:?}");
        }
        let mut map = Bounded::new(2);
        for n in [1, 2, 3] {
            map.put(n, n);
        }
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (None, Some(2), Some(3)));
    }
}
