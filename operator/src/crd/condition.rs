//! Conditions as Kubernetes and kstatus know them.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One fact about an object, and why it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the fact: `Ready`, `Reconciling` or `Stalled`, as kstatus defines them.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The reason as one word, for programs.
    #[schemars(length(min = 1, max = 63))]
    pub reason: String,
    /// The reason as a sentence, for people, with the way out.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The generation of the object that this is about.
    pub observed_generation: i64,
    /// Since when the status is what it is, RFC 3339.
    #[schemars(length(max = 64))]
    pub last_transition_time: String,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Condition {
    /// A condition since `now`; where `before` holds one of the same kind and status, since then.
    pub fn new(
        kind: &str,
        status: ConditionStatus,
        (reason, message): (&str, &str),
        generation: i64,
        now: Timestamp,
        before: &[Self],
    ) -> Self {
        let same = before.iter().find(|old| old.kind == kind && old.status == status);
        let now =
            || jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", now).unwrap_or_else(|_| now.to_string());
        Self {
            kind: kind.into(),
            status,
            reason: reason.into(),
            message: message.chars().take(1024).collect(),
            observed_generation: generation,
            last_transition_time: same.map_or_else(now, |old| old.last_transition_time.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let [first, later] = [1_000_000_000, 1_000_000_060].map(|s| Timestamp::from_second(s).unwrap());
        let make = |status, why, now, before: &[Condition]| {
            Condition::new("Ready", status, (why, "it is so"), 2, now, before)
        };
        let old = make(ConditionStatus::True, "Applied", first, &[]);
        assert_eq!(old.last_transition_time, "2001-09-09T01:46:40Z");
        let same = make(ConditionStatus::True, "Scaled", later, std::slice::from_ref(&old));
        assert_eq!(
            (same.last_transition_time, same.reason),
            (old.last_transition_time.clone(), "Scaled".into())
        );
        let flipped = make(ConditionStatus::False, "Scaled", later, &[old]);
        assert_eq!(flipped.last_transition_time, "2001-09-09T01:47:40Z");
    }
}
