//! How many workers a pool has. Growing is always right; shrinking is only right where nobody is at work.
//!
//! A pool shrinks by the pods that have not started (they hold no task), and then by those that the broker confirms to be idle and
//! to get nothing more. It keeps all others, whatever KEDA says: a flushed Redis reads as a valid 0. A pod that runs goes besides
//! when its pool is deleted, its template changes, or somebody deletes it; each time it is told to drain.

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
    /// Pods that have started, and that nobody confirmed to be idle.
    pub started: i32,
}

/// What is asked for: the `/scale` field within its bounds.
pub fn wanted(scale: &Scale) -> i32 {
    i32::from(scale.replicas.min(scale.max).max(scale.min))
}

impl Replicas {
    /// From how many there are, how many are wanted, how many pods have started, and how many of these the broker has confirmed to be
    /// idle for good. The last two are only needed where `wanted` is less than `current`.
    pub fn decide(current: i32, wanted: i32, started: i32, confirmed: i32) -> Self {
        if wanted >= current {
            return Self { count: wanted, held: None };
        }
        let staying = started.min(current).saturating_sub(confirmed.max(0));
        let count = wanted.max(staying);
        let held = (count > wanted).then_some(Held { wanted, started: staying });
        Self { count, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_grows_at_once_and_shrinks_by_what_has_not_started() {
        let cases = [
            // current, wanted, started, confirmed → count, held
            ((0, 5, 0, 0), (5, false)),
            ((5, 5, 5, 0), (5, false)),
            ((5, 0, 0, 0), (0, false)),
            ((5, 2, 0, 0), (2, false)),
            ((5, 2, 2, 0), (2, false)),
            ((5, 2, 4, 0), (4, true)),
            ((5, 0, 5, 0), (5, true)),
            ((5, 0, 5, 5), (0, false)),
            ((5, 0, 5, 2), (3, true)),
            ((5, 2, 4, 2), (2, false)),
            ((5, 2, 4, 1), (3, true)),
            // More pods than replicas, in the middle of a roll-out: never a reason to grow.
            ((5, 0, 7, 0), (5, true)),
            ((5, 0, 7, 7), (0, false)),
        ];
        for ((current, wanted, started, confirmed), (count, held)) in cases {
            let decided = Replicas::decide(current, wanted, started, confirmed);
            assert_eq!(
                (decided.count, decided.held.is_some()),
                (count, held),
                "{current} {wanted} {started} {confirmed}"
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
