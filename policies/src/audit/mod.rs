//! The audit: intents in, findings out.

mod access;
pub mod baseline;
pub mod catalog;
pub mod diff;
pub mod explain;
pub mod flows;
mod hardening;
pub mod intent;
mod lint;
mod reach;
mod run;
mod select;

pub use run::{Request, run};

use crate::policy::Direction;
use crate::profile::Profile;
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
    /// The CNI that was assumed.
    pub profile: Profile,
    /// What the verdict rests on: profile and version, enforcement, completeness of the input.
    pub assumptions: Vec<String>,
    /// What was asked, with the answer to each.
    pub intents: Vec<IntentResult>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// What was found and is accepted by the baseline.
    pub accepted: Vec<Accepted>,
    /// What passes from and to the pods under audit, for the picture.
    pub reach: Vec<Reach>,
    /// What was looked at.
    pub input: Summary,
}

/// The answer to one intent.
#[derive(Debug, Clone)]
pub struct IntentResult {
    /// Its name.
    pub name: Arc<str>,
    /// Whom it is about, for the reader.
    pub from: Arc<str>,
    /// Whether it holds.
    pub proved: Truth,
    /// Pods of the input that it is about.
    pub pods: usize,
    /// Why it is unknown, if it is.
    pub doubts: Vec<Doubt>,
}

/// A finding that somebody answers for.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The finding.
    pub finding: Finding,
    /// Who accepted it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when, `YYYY-MM-DD`.
    pub expires: String,
}

/// An arrow of the picture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// Who opens the connection.
    pub from: String,
    /// Who takes it.
    pub to: String,
    /// [`Truth::Yes`] if some traffic passes, [`Truth::Unknown`] if it may.
    pub passes: Truth,
    /// Which.
    pub traffic: String,
    /// Whether an intent names it.
    pub intended: bool,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Namespaces.
    pub namespaces: usize,
    /// Pods and templates.
    pub pods: usize,
    /// Nodes.
    pub nodes: usize,
    /// Services.
    pub services: usize,
    /// Policies.
    pub policies: usize,
    /// Whether there is nothing else: a cluster was read, or the input was declared complete.
    pub complete: bool,
}

impl Severity {
    /// `error`, `warning` or `note`, as SARIF names them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl Outcome {
    /// `proved`, `violated` or `unknown`.
    pub fn word(&self) -> &'static str {
        word(self.proved)
    }
}

/// `proved`, `violated` or `unknown`.
pub fn word(proved: Truth) -> &'static str {
    match proved {
        Truth::Yes => "proved",
        Truth::No => "violated",
        Truth::Unknown => "unknown",
    }
}

impl Finding {
    /// What identifies it in a baseline and to a code scanner, whatever the line it moves to.
    pub fn fingerprint(&self) -> String {
        let witness = self.witness.as_ref().map(|w| w.destination.as_str()).unwrap_or_default();
        format!("{}|{}|{witness}", self.id, self.object)
    }

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
