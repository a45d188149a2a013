//! The audit: intents in, findings out.

mod access;
mod agents;
pub mod baseline;
mod behind;
pub mod catalog;
pub mod diff;
pub mod explain;
pub mod flows;
mod hardening;
pub mod intent;
mod lint;
mod reach;
mod run;
mod seen;
mod select;

pub(crate) use agents::is_agent;
pub use run::{Request, run};

use crate::cluster::{Cluster, Pod};
use crate::evaluate::{Endpoint, EndpointId, Evaluation};
use crate::policy::Direction;
use crate::profile::Profile;
use crate::sets::Protocol;
use crate::source::{At, ObjectRef};
use crate::truth::{Doubt, Truth};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
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
    /// What it is about by a name that lasts: of a controller's pods the controller's.
    pub subject: String,
    /// A digest of all that it covers: every other end with its traffic, else the reason.
    pub covers: String,
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
    /// What identifies it in a baseline and to a code scanner, whatever the line it moves to: its id, what it is about, and a
    /// digest of all that it covers. One more destination, or one more port, makes it another.
    pub fn fingerprint(&self) -> String {
        format!("{}|{}|{}", self.id, self.subject, self.covers)
    }

    /// The same about a pod, which has another name tomorrow where a controller makes it.
    pub(crate) fn of_pod(mut self, pod: &Pod) -> Self {
        self.subject = stable_name(pod);
        let reason = self.reason.replace(&pod.object.to_string(), &self.subject);
        self.covers = digest([reason.as_str()]);
        self
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
            subject: object.to_string(),
            covers: digest([reason.as_str()]),
            object,
            at,
            reason,
            witness: None,
            fix: kind.fix.to_owned(),
            doubts: Vec::new(),
        }
    }
}

/// What every verdict under a profile rests on.
pub(crate) fn assumed(profile: Profile, complete: bool) -> Vec<String> {
    let mut all = vec![format!("the network is {profile} and enforces policies on every node")];
    all.extend(profile.assumptions().iter().map(|sentence| (*sentence).to_owned()));
    if complete {
        all.push("there are no pods, nodes and policies beside those of the input".into());
    }
    all
}

/// What a pod is called from one day to the next: by its controller where it has one, a Deployment's by the Deployment.
pub(crate) fn stable_name(pod: &Pod) -> String {
    let Some(owner) = &pod.owner else { return pod.object.to_string() };
    let hash = pod.labels.get("pod-template-hash").filter(|_| &*owner.kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'));
    match deployment {
        Some(name) => format!("Deployment {}/{name}", pod.namespace),
        None => format!("{} {}/{}", owner.kind, pod.namespace, owner.name),
    }
}

/// The same of an endpoint; what is no pod has a name that lasts.
pub(crate) fn stable_end(cluster: &Cluster, evaluation: &Evaluation<'_>, endpoint: EndpointId) -> String {
    match evaluation.endpoint(endpoint) {
        Some(Endpoint::Pod(pod)) => cluster.pods.get(*pod).map(stable_name).unwrap_or_default(),
        _ => evaluation.name(endpoint),
    }
}

/// The first half of a SHA-256 over lines, in hexadecimal; their order makes no difference.
pub(crate) fn digest<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut lines: Vec<&str> = lines.into_iter().collect();
    lines.sort_unstable();
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    let mut text = String::with_capacity(32);
    for byte in hash.finalize().iter().take(16) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
