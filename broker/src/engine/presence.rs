//! Which workers are here: connections that said something lately, and those that ask for a task now. In memory, and told to
//! the other brokers through the store.

use crate::store::operations::PoolSeen;
use mpegflow_protocol::ids::PoolName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A long poll is silent for 30 s; what is silent for longer may be a connection whose other end is gone.
const SILENT: Duration = Duration::from_secs(40);
/// Pools that are watched; an operator has far fewer.
const MAX_POOLS: usize = 4_096;

/// Workers of this broker, by pool.
#[derive(Debug, Default)]
pub struct Presence(Mutex<BTreeMap<PoolName, Pool>>);

#[derive(Debug)]
struct Pool {
    connections: u64,
    asking: u64,
    last: Instant,
}

/// A connection of a worker; no longer counted when this is dropped.
#[derive(Debug)]
pub struct Connected(Arc<Presence>, PoolName);

/// A worker that asks for a task; no longer counted when this is dropped.
#[derive(Debug)]
pub(super) struct Asking<'a>(&'a Presence, PoolName);

impl Presence {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<PoolName, Pool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, pool: &PoolName, change: impl FnOnce(&mut Pool)) {
        let mut pools = self.pools();
        if pools.len() >= MAX_POOLS && !pools.contains_key(pool) {
            return;
        }
        change(pools.entry(pool.clone()).or_insert(Pool { connections: 0, asking: 0, last: Instant::now() }));
    }

    /// Counts a connection from its first call on.
    pub fn connect(self: &Arc<Self>, pool: &PoolName) -> Connected {
        self.change(pool, |p| p.connections = p.connections.saturating_add(1));
        Connected(Arc::clone(self), pool.clone())
    }

    /// A worker of the pool said something.
    pub fn heard(&self, pool: &PoolName) {
        self.change(pool, |p| p.last = Instant::now());
    }

    pub(super) fn ask(&self, pool: &PoolName) -> Asking<'_> {
        self.change(pool, |p| p.asking = p.asking.saturating_add(1));
        Asking(self, pool.clone())
    }

    /// Pools with workers.
    pub(super) fn seen(&self) -> Vec<PoolSeen> {
        let mut pools = self.pools();
        pools.retain(|_, p| p.connections > 0 || p.asking > 0);
        pools
            .iter()
            .filter(|(_, p)| p.last.elapsed() < SILENT)
            .map(|(pool, p)| PoolSeen { pool: pool.clone(), workers: p.connections, idle: p.asking })
            .collect()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.change(&self.1, |p| p.connections = p.connections.saturating_sub(1));
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.change(&self.1, |p| p.asking = p.asking.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_is_gone_at_once() {
        let presence = Arc::new(Presence::default());
        let pool = PoolName::default();
        let connection = presence.connect(&pool);
        let asking = presence.ask(&pool);
        presence.heard(&pool);
        assert_eq!(presence.seen(), [PoolSeen { pool: pool.clone(), workers: 1, idle: 1 }]);
        drop(asking);
        assert_eq!(presence.seen(), [PoolSeen { pool, workers: 1, idle: 0 }]);
        drop(connection);
        assert_eq!(presence.seen(), []);
    }

    #[test]
    fn pools_are_bounded() {
        let presence = Presence::default();
        for n in 0..MAX_POOLS.saturating_add(10) {
            std::mem::forget(presence.ask(&format!("p{n}").parse().unwrap()));
        }
        assert_eq!(presence.seen().len(), MAX_POOLS);
    }
}
