//! The audit: intents in, findings out.

mod access;
pub mod catalog;
mod hardening;
pub mod intent;
pub mod places;

use crate::policy::Direction;
use crate::sets::Protocol;
use crate::source::{At, ObjectRef};
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Weakens the isolation, or will.
    Warning,
    /// Breaks a promise of the intent.
    Error,
}

/// Something the audit found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its id, such as `MF101`; documented in docs/audit-findings.md.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it is sure: [`Truth::Yes`] for a violation, [`Truth::Unknown`] for what could not be proved.
    pub certain: Truth,
    /// What it is about.
    pub object: ObjectRef,
    /// Where that is.
    pub at: Option<At>,
    /// What is wrong, a sentence.
    pub reason: String,
    /// A packet that shows it.
    pub witness: Option<Witness>,
    /// What to do about it, a sentence.
    pub fix: String,
    /// What is not known, for an uncertain finding.
    pub doubts: Vec<Doubt>,
}

/// A packet that passes and should not.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Who sends it.
    pub source: String,
    /// Who gets it.
    pub destination: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port; `type × 256 + code` on ICMP.
    pub port: u16,
    /// The rules that let it pass, source's side first.
    pub rules: Vec<DecidingRule>,
}

/// A rule that decided a packet.
#[derive(Debug, Clone)]
pub struct DecidingRule {
    /// Which side.
    pub direction: Direction,
    /// The policy; `None` where nothing selects the endpoint.
    pub policy: Option<ObjectRef>,
    /// Path of the rule.
    pub rule: Option<Arc<str>>,
    /// Its place.
    pub at: Option<At>,
}

/// The outcome of an audit.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// [`Truth::Yes`] proved, [`Truth::No`] violated, [`Truth::Unknown`] neither.
    pub proved: Truth,
    /// One sentence: the verdict.
    pub sentence: String,
    /// What the proof rests on: profile and version, enforcement, completeness of the input.
    pub assumptions: Vec<String>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// A finding that is sure, without a packet.
    pub(crate) fn certain(
        kind: &'static catalog::Kind,
        object: ObjectRef,
        at: Option<At>,
        reason: String,
    ) -> Self {
        Self {
            id: kind.id,
            severity: kind.severity,
            certain: Truth::Yes,
            object,
            at,
            reason,
            witness: None,
            fix: kind.fix.to_owned(),
            doubts: Vec::new(),
        }
    }
}
