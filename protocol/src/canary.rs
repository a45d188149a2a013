//! What a canary reports: a pod like a worker's that looks around, writes what it saw, and ends. It never enrols.
//!
//! The report is the termination message of its container, and comes from a place where a worker could be: nothing in it is more than
//! a claim, and a [`Outcome::Answered`] is the only claim that counts by itself.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Longest report: what a kubelet keeps of a termination message.
pub const MAX_REPORT: usize = 4096;
/// Most addresses that a canary looks at; so many fit a report, whatever they are.
pub const MAX_TARGETS: usize = 40;
/// Port of the agent on each node.
pub const NODE_PORT: u16 = 10250;

/// What became of a look at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Somebody accepts connections there.
    Answered,
    /// A connection was refused: by the host, or by what enforces policies. Nobody can tell which.
    Refused,
    /// Nothing came back.
    Silent,
}

/// A look at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// The address.
    pub at: SocketAddr,
    /// What became of it.
    pub is: Outcome,
}

/// What a canary saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Whether the broker answered, before and after everything else.
    pub broker: bool,
    /// The agent of the node that the canary is on.
    pub node: Outcome,
    /// Every address of the join file's `unreachable`, once.
    pub looks: Vec<Look>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_report_fits_a_termination_message() {
        let at: SocketAddr = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        let looks = vec![Look { at, is: Outcome::Answered }; MAX_TARGETS];
        let report = Report { broker: false, node: Outcome::Answered, looks };
        let text = crate::to_json(&report);
        assert!(text.len() <= MAX_REPORT, "{}", text.len());
        assert_eq!(crate::from_json::<Report>("report", &text, MAX_REPORT).unwrap(), report);
    }
}
