//! Where workers are, as a watch over pods tells. Nothing but names is kept of them.

use super::Key;
use std::collections::{BTreeSet, HashMap};

/// Most pods that are kept. On a node where only pods beyond it are, nobody gets work.
const MOST: usize = 200_000;

/// Nodes of pods, by pool.
#[derive(Debug, Default)]
pub(super) struct Workers {
    pools: HashMap<Key, HashMap<String, Worker>>,
    count: usize,
    /// Goes up with each list that a watch begins with.
    list: u64,
    is_known: bool,
}

#[derive(Debug)]
struct Worker {
    node: String,
    list: u64,
}

impl Workers {
    /// A pod of a pool is on a node.
    pub(super) fn are(&mut self, key: &Key, pod: &str, node: &str) {
        let list = self.list;
        let pods = self.pools.entry(key.clone()).or_default();
        if let Some(worker) = pods.get_mut(pod) {
            worker.list = list;
            if worker.node != node {
                node.clone_into(&mut worker.node);
            }
        } else if self.count < MOST {
            pods.insert(pod.to_owned(), Worker { node: node.to_owned(), list });
            self.count = self.count.saturating_add(1);
        }
    }

    /// A pod is gone, or works no more.
    pub(super) fn left(&mut self, key: &Key, pod: &str) {
        let Some(pods) = self.pools.get_mut(key) else { return };
        if pods.remove(pod).is_some() {
            self.count = self.count.saturating_sub(1);
        }
        if pods.is_empty() {
            self.pools.remove(key);
        }
    }

    /// All pods are told anew from here.
    pub(super) fn list_begins(&mut self) {
        self.list = self.list.saturating_add(1);
    }

    /// They were all told: who was not is gone.
    pub(super) fn list_ends(&mut self) {
        let list = self.list;
        self.pools.retain(|_, pods| {
            pods.retain(|_, worker| worker.list == list);
            !pods.is_empty()
        });
        self.count = self.pools.values().map(HashMap::len).sum();
        self.is_known = true;
    }

    /// Whether all pods were told of once: who is not here is nowhere.
    pub(super) fn are_known(&self) -> bool {
        self.is_known
    }

    /// Nodes with pods of a pool.
    pub(super) fn nodes(&self, key: &Key) -> BTreeSet<&str> {
        let pods = self.pools.get(key).into_iter().flat_map(HashMap::values);
        pods.map(|worker| worker.node.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_told_of_again_is_gone() {
        let key: Key = ("media".into(), "cpu".into());
        let mut workers = Workers::default();
        workers.are(&key, "a", "n1");
        workers.are(&key, "b", "n2");
        assert_eq!(workers.nodes(&key), BTreeSet::from(["n1", "n2"]));
        workers.left(&key, "a");
        workers.left(&key, "a");
        assert_eq!(workers.nodes(&key), BTreeSet::from(["n2"]));
        assert!(!workers.are_known());
        workers.list_begins();
        workers.are(&key, "c", "n3");
        workers.list_ends();
        assert_eq!((workers.nodes(&key), workers.count), (BTreeSet::from(["n3"]), 1));
        assert!(workers.are_known());
    }
}
