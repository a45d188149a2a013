//! Positive controls: whether somebody answers where no worker may. The operator asks itself, before a canary begins and after it has
//! ended, and only where an administrator or the operator's own work lets it ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Whoever answers does so within this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// A look is good for the beginning of a canary for so long.
const FRESH: Duration = Duration::from_secs(15);

/// What the operator's own looks have found.
#[derive(Debug, Default)]
pub(super) struct Controls {
    addresses: BTreeMap<SocketAddr, Streak>,
    looked: Option<Instant>,
}

/// Looks that were answered, one after another.
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Controls {
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let addresses = addresses.into_iter().map(|address| (address, Streak::default())).collect();
        Self { addresses, looked: None }
    }

    /// What came of a look that began at a time, at all of the addresses.
    pub(super) fn looked(&mut self, began: Instant, answered: &[SocketAddr]) {
        for (address, streak) in &mut self.addresses {
            if answered.contains(address) {
                *streak = Streak { since: streak.since.or(Some(began)), last: Some(began) };
            } else {
                *streak = Streak::default();
            }
        }
        self.looked = Some(began);
    }

    /// Whether a canary may begin: who answers is known.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now.saturating_duration_since(looked) <= FRESH)
    }

    /// Whether a look began after a time.
    pub(super) fn has_looked_since(&self, time: Instant) -> bool {
        self.looked.is_some_and(|looked| looked >= time)
    }

    /// Whether somebody answered there before a time and after another, and at every look in between.
    pub(super) fn is_tested(&self, address: SocketAddr, begun: Instant, ended: Instant) -> bool {
        let Some(streak) = self.addresses.get(&address) else { return false };
        streak.since.is_some_and(|since| since <= begun) && streak.last.is_some_and(|last| last >= ended)
    }
}

/// Which of some addresses answer.
pub(super) async fn look(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let looks = addresses.into_iter().map(async |address| {
        let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await;
        matches!(connected, Ok(Ok(_))).then_some(address)
    });
    futures_util::future::join_all(looks).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_tested_only_if_it_answered_before_and_after_and_all_the_while() {
        let (here, there): (SocketAddr, SocketAddr) =
            ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut controls = Controls::new([here, there]);
        assert!(!controls.is_fresh(at(0)) && !controls.has_looked_since(at(0)));
        assert!(!controls.is_tested(here, at(0), at(0)));
        controls.looked(at(1), &[here]);
        assert!(controls.is_fresh(at(16)) && !controls.is_fresh(at(17)));
        assert!(!controls.is_tested(here, at(2), at(5)), "not yet after the end");
        controls.looked(at(5), &[here, there]);
        assert!(controls.is_tested(here, at(2), at(5)));
        assert!(!controls.is_tested(there, at(2), at(5)), "it came up only while the canary ran");
        assert!(!controls.is_tested(here, at(0), at(5)), "before it nobody had asked");
        controls.looked(at(6), &[there]);
        controls.looked(at(7), &[here, there]);
        assert!(!controls.is_tested(here, at(2), at(7)), "it was away in between");
        assert!(controls.is_tested(there, at(5), at(7)));
        assert!(!controls.is_tested("192.0.2.3:3".parse().unwrap(), at(5), at(7)), "nobody asks there");
    }
}
