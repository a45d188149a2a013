//! How many workers a pool has. Growing is always right; shrinking is only right where nobody is at work.
//!
//! A pool shrinks by the pods that have not started (they hold no task), and then by those that the broker confirms to be idle and
//! to get nothing more. It keeps all others, whatever KEDA says: a flushed Redis reads as a valid 0. A pod that runs goes besides
//! when its pool is deleted, its template changes, or somebody deletes it; each time it is told to drain.

use crate::crd::{FallbackBehavior, Scale};
use serde_json::Value;
use std::time::Duration;

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

/// What `scale.fallback` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: there is none, the pool is as large already.
    Not,
    /// Nothing yet; again after this.
    In(Duration),
    /// `/scale` is to say this.
    To(u16),
}

/// Whether a ScaledObject says that KEDA does not know the depth: a trigger's last poll failed, or KEDA cannot begin. What is paused is not
/// polled, and what it said before is old.
pub fn is_blind(scaled_object: &Value) -> bool {
    let conditions = scaled_object.pointer("/status/conditions").and_then(Value::as_array);
    let says = |kind: &str, status: &str| {
        let mut all = conditions.into_iter().flatten();
        all.any(|condition| {
            condition.get("type").and_then(Value::as_str) == Some(kind)
                && condition.get("status").and_then(Value::as_str) == Some(status)
        })
    };
    let health = scaled_object.pointer("/status/health").and_then(Value::as_object);
    let fails = |trigger: &Value| trigger.get("status").and_then(Value::as_str) == Some("Failing");
    !says("Paused", "True")
        && (says("Ready", "False") || health.into_iter().flatten().any(|(_, trigger)| fails(trigger)))
}

/// What a pool is to be scaled to whose depth could not be read for so long: KEDA's own rule, by the time that more polls than
/// `failureThreshold` take.
pub fn fallback(scale: &Scale, blind: Duration) -> Fallback {
    let Some(fallback) = &scale.fallback else { return Fallback::Not };
    let polls = u32::from(fallback.failure_threshold);
    let patience = Duration::from_secs(scale.polling_seconds.into()).saturating_mul(polls);
    if let Some(wait) = patience.checked_sub(blind).filter(|wait| !wait.is_zero()) {
        return Fallback::In(wait);
    }
    let replicas = match fallback.behavior {
        FallbackBehavior::CurrentReplicasIfHigher => fallback.replicas.max(scale.replicas),
        FallbackBehavior::Static => fallback.replicas,
    };
    let replicas = replicas.min(scale.max).max(scale.min);
    if replicas == scale.replicas { Fallback::Not } else { Fallback::To(replicas) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    #[test]
    fn a_depth_that_nobody_reads_is_waited_for_and_then_the_fallback_counts() {
        let scale = |replicas, min, fallback: Value| Scale {
            replicas,
            min,
            max: 5,
            polling_seconds: 10,
            fallback: serde_json::from_value(fallback).unwrap_or_default(),
            ..Scale::default()
        };
        let higher = json!({ "failureThreshold": 3, "replicas": 2 });
        let fixed = json!({ "failureThreshold": 3, "replicas": 2, "behavior": "static" });
        let cases = [
            (scale(0, 0, Value::Null), 3600, Fallback::Not),
            (scale(0, 0, higher.clone()), 0, Fallback::In(Duration::from_secs(30))),
            (scale(0, 0, higher.clone()), 29, Fallback::In(Duration::from_secs(1))),
            (scale(0, 0, higher.clone()), 30, Fallback::To(2)),
            (scale(2, 0, higher.clone()), 30, Fallback::Not),
            // An outage never shrinks a pool, unless it is asked to.
            (scale(4, 0, higher.clone()), 30, Fallback::Not),
            (scale(4, 0, fixed.clone()), 30, Fallback::To(2)),
            (scale(0, 3, fixed), 30, Fallback::To(3)),
            // More than may be, which the definition refuses.
            (scale(0, 0, json!({ "failureThreshold": 3, "replicas": 9 })), 30, Fallback::To(5)),
        ];
        for (scale, blind, expected) in cases {
            assert_eq!(fallback(&scale, Duration::from_secs(blind)), expected, "{scale:?} {blind}");
        }
    }

    #[test]
    fn keda_is_blind_while_a_poll_failed_or_it_cannot_begin_and_not_while_it_is_paused() {
        let says = |kind: &str, status: &str| json!([{ "type": kind, "status": status }]);
        let health = |status: &str| json!({ "s0-redis": { "status": "Happy" }, "s1": { "status": status } });
        let both = json!([{ "type": "Ready", "status": "False" }, { "type": "Paused", "status": "True" }]);
        for (status, blind) in [
            (json!({}), false),
            (json!({ "conditions": says("Ready", "Unknown") }), false),
            (json!({ "conditions": says("Ready", "True"), "health": health("Happy") }), false),
            (json!({ "conditions": says("Ready", "True"), "health": health("Failing") }), true),
            (json!({ "conditions": says("Ready", "False") }), true),
            (json!({ "conditions": both }), false),
            (json!({ "conditions": says("Paused", "True"), "health": health("Failing") }), false),
        ] {
            assert_eq!(is_blind(&json!({ "status": status })), blind, "{status}");
        }
    }
}
