//! The evaluator: which traffic passes from one endpoint to another, for all packets of the pair at once, and why.
//!
//! A packet passes if the source's egress and the destination's ingress let it. Each direction runs through stages (tiers) in
//! the order of the profile; within a stage rules decide, at its end the stage's default does, and after the last stage what
//! is undecided passes. Everything is three-valued: a packet may at each step be allowed, denied or still undecided, and what
//! can end both ways is unknown.

mod applied;
mod atoms;
mod bits;
mod classes;
mod core;
mod endpoints;
mod evaluation;
mod explanation;
mod imagine;
mod lower;
mod matrix;
mod names;
mod nodes;
mod one;
mod port_names;
mod run;
mod select;
mod side;
mod stages;
mod traffic_table;

pub use evaluation::Evaluation;
pub(crate) use lower::lower;
pub use matrix::{Matrix, Tally, Work};

use crate::policy::Direction;
use crate::profile::{Answer, Cni, Profile};
use crate::sets::{AddressSet, Traffic};
use crate::source::{At, ObjectRef};
use crate::truth::{Doubt, Truth};
use std::net::IpAddr;
use std::sync::Arc;

/// What may talk or be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A pod: index into `Cluster::pods`. A host-network pod is looked at as its node, where the profile says so.
    Pod(usize),
    /// Another pod of the same template, as seen from one of them.
    Sibling(usize),
    /// The node that the other end runs on.
    LocalNode,
    /// A node: index into `Cluster::nodes`, seen from a pod that does not run on it.
    Node(usize),
    /// A node that is not in the input.
    AnyNode,
    /// Addresses outside the cluster that no policy tells apart.
    External(AddressSet),
    /// The addresses that a DNS name resolves to.
    Domain(Arc<str>),
    /// A pod that is not in the input but could be: made from a selector of a policy or an intent, or with no labels at all.
    Imagined(Box<ImaginedPod>),
}

/// The number of an endpoint in its evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(u32);

/// The number of a class of endpoints that nothing tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(u32);

/// Why there is no evaluation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// More endpoints than are evaluated.
    #[error("{endpoints} pods, nodes and address ranges are more than the {most} that are evaluated at once")]
    TooMany {
        /// How many there are.
        endpoints: usize,
        /// How many there may be.
        most: usize,
    },
}

impl EndpointId {
    fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A pod that could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImaginedPod {
    /// Its namespace; one that is in the input, or a new one.
    pub namespace: Arc<str>,
    /// Labels of its namespace.
    pub namespace_labels: crate::cluster::Labels,
    /// Its labels.
    pub labels: crate::cluster::Labels,
    /// Why it was made, such as `any pod that NetworkPolicy prod/web spec.egress[0] selects`.
    pub because: Arc<str>,
}

/// Settings of an evaluation that neither the cluster nor the profile holds.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Addresses to tell apart although no policy does (metadata addresses, the API server's): each gets an endpoint.
    pub addresses: Vec<AddressSet>,
    /// DNS names to evaluate as destinations.
    pub domains: Vec<Arc<str>>,
    /// Blocks that pods get addresses from, where known: a pod without an address lies in one of them.
    pub pod_cidrs: Option<AddressSet>,
    /// Names whose addresses are trusted: a rule that allows one of them then adds no doubt to verdicts on addresses.
    pub trusted_domains: Vec<Arc<str>>,
    /// Whether to imagine pods: one for each selector that admits pods, and one without labels in a namespace of its own.
    pub imagine: bool,
}

/// What passes between two endpoints. The three add up to all traffic and share nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Passes.
    pub allowed: Traffic,
    /// Does not pass.
    pub denied: Traffic,
    /// May or may not.
    pub unknown: Traffic,
}

/// How a verdict came about.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is what it is without any policy's say (self traffic, own node), if so.
    pub exempt: Option<Arc<str>>,
    /// The source's side, step by step.
    pub egress: Vec<Step>,
    /// The destination's side, step by step.
    pub ingress: Vec<Step>,
    /// What is not known, each once.
    pub doubts: Vec<Doubt>,
}

/// Something that decided a part of the traffic.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which side.
    pub direction: Direction,
    /// The tier, such as `NetworkPolicy`, `Admin`, `Calico tier security`.
    pub stage: Arc<str>,
    /// The policy; `None` for the end of a stage or of all.
    pub policy: Option<ObjectRef>,
    /// Path of the rule in the policy; `None` where being selected is what decides.
    pub rule: Option<Arc<str>>,
    /// Its place.
    pub at: Option<At>,
    /// What it did, in a few words: `allows`, `denies`, `may allow`, `passes on`, `isolates`, `nothing selects it`.
    pub effect: Effect,
    /// The traffic it decided.
    pub traffic: Traffic,
    /// The rule's note.
    pub note: Option<Arc<str>>,
}

/// What a step did with its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Allowed it.
    Allows,
    /// Denied it.
    Denies,
    /// Passed it on to the next stage.
    Passes,
    /// Allowed it because nothing else decided.
    AllowsByDefault,
    /// Denied it because a policy selects the subject and no rule allows it.
    DeniesByDefault,
    /// Did one of these, which is not known.
    Unsure,
}

/// What a profile does not know, as a doubt.
pub(crate) fn differ(profile: Profile, answer: &Answer) -> Doubt {
    Doubt::new(match profile.cni {
        Cni::Generic => format!("implementations differ: {}; name one with --cni", answer.why),
        _ => format!("it depends on how {profile} is set up: {}", answer.why),
    })
}

impl Endpoint {
    /// An endpoint of a single outside address.
    pub fn address(address: IpAddr) -> Self {
        Self::External(AddressSet::one(address))
    }
}

impl Verdict {
    /// One word for the whole pair: [`Truth::Yes`] if some traffic passes, [`Truth::No`] if none does.
    pub fn reaches(&self) -> Truth {
        match (self.allowed.is_none(), self.unknown.is_none()) {
            (false, _) => Truth::Yes,
            (true, false) => Truth::Unknown,
            (true, true) => Truth::No,
        }
    }
}
