//! How many workers a pool has. Growing is always right; shrinking is only right where nobody is at work.
//!
//! Which workers are idle the broker knows, and this version cannot ask it. So a pool shrinks by the pods that have not
//! started (they hold no task), and keeps the ones that have, whatever KEDA says: a flushed Redis reads as a valid 0. A pod
//! that runs goes when its pool is deleted, its template changes, or somebody deletes it; each time it is told to drain.

use crate::crd::Scale;

/// How many replicas the Deployment is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// That many.
    pub count: i32,
    /// Where that is more than was asked for.
    pub held: Option<Held>,
}

/// Why a pool is larger than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What was asked for.
    pub wanted: i32,
    /// Pods that have started.
    pub started: i32,
}

/// What is asked for: the `/scale` field within its bounds.
pub fn wanted(scale: &Scale) -> i32 {
    i32::from(scale.replicas.min(scale.max).max(scale.min))
}

impl Replicas {
    /// From how many there are, how many are wanted, and how many pods have started. `started` is only needed where
    /// `wanted` is less than `current`.
    pub fn decide(current: i32, wanted: i32, started: i32) -> Self {
        if wanted >= current {
            return Self { count: wanted, held: None };
        }
        let count = wanted.max(started.min(current));
        let held = (count > wanted).then_some(Held { wanted, started });
        Self { count, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_grows_at_once_and_shrinks_by_what_has_not_started() {
        let cases = [
            // current, wanted, started → count, held
            ((0, 5, 0), (5, false)),
            ((5, 5, 5), (5, false)),
            ((5, 0, 0), (0, false)),
            ((5, 2, 0), (2, false)),
            ((5, 2, 2), (2, false)),
            ((5, 2, 4), (4, true)),
            ((5, 0, 5), (5, true)),
            // More pods than replicas, in the middle of a roll-out: never a reason to grow.
            ((5, 0, 7), (5, true)),
        ];
        for ((current, wanted, started), (count, held)) in cases {
            let decided = Replicas::decide(current, wanted, started);
            assert_eq!(
                (decided.count, decided.held.is_some()),
                (count, held),
                "{current} {wanted} {started}"
            );
        }
    }

    #[test]
    fn what_is_asked_for_stays_within_its_bounds() {
        let scale = |replicas, min, max| Scale { replicas, min, max, ..Scale::default() };
        assert_eq!(wanted(&scale(0, 2, 5)), 2);
        assert_eq!(wanted(&scale(9, 2, 5)), 5);
        assert_eq!(wanted(&scale(3, 2, 5)), 3);
    }
}
