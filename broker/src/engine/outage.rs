//! Whose fault it is that a lease ran out: the worker's, that did not renew it, or ours, who were not there to be told.
//!
//! While the database or every broker is away nobody can renew, and all leases run out. A worker that is lost counts against its task,
//! which has three of them; a failover that takes longer than a lease must not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whoever leads looks several times a second. One that could not for so long was away, unless a lease is much longer.
const AWAY: Duration = Duration::from_secs(5);
/// What a look and a call may come late by.
const LATE: Duration = Duration::from_secs(1);

/// When leases were looked at, one time after the other.
#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<Option<Steady>>);

/// A time without an outage.
#[derive(Debug, Clone, Copy)]
struct Steady {
    since: Instant,
    last: Instant,
}

impl Outages {
    /// Leases were looked at just now. Whether those that have run out may have done so because nobody could renew them.
    pub(super) fn looked(&self, now: Instant, lease: Duration) -> bool {
        let mut steady = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = AWAY.max(lease.mul_f64(0.66));
        let since = match *steady {
            Some(Steady { since, last }) if now.saturating_duration_since(last) <= gap => since,
            // This broker's first look says nothing of what was before: another led, or none.
            _ => now,
        };
        *steady = Some(Steady { since, last: now });
        now.saturating_duration_since(since).saturating_add(LATE) < lease
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_began_after_the_last_outage_is_its_workers() {
        let (outages, start) = (Outages::default(), Instant::now());
        let lease = Duration::from_secs(15);
        let at = |seconds: u64| outages.looked(start + Duration::from_secs(seconds), lease);
        // Who has just come to lead knows nothing of the time before.
        assert!(at(0) && at(5) && at(13));
        assert!(!at(14) && !at(20) && !at(29));
        // Away for longer than a worker takes to renew.
        assert!(at(45) && at(50) && at(58));
        assert!(!at(60));
        // A lease that is shorter than what we may come late by is never ours.
        assert!(!Outages::default().looked(start, Duration::from_millis(300)));
    }
}
