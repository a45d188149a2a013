//! A policy, whatever its dialect: whom it selects, and for each direction whom it lets talk to them, or not.

use crate::matching::{Kind, Match, TrafficMatch};
use crate::source::{At, ObjectRef};
use crate::truth::{Doubt, Truth};
use std::fmt;
use std::sync::Arc;

/// The language a policy is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy and BaselineAdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.
    Cilium,
    /// `projectcalico.org/v3` NetworkPolicy and GlobalNetworkPolicy.
    Calico,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::Cilium,
        Self::Calico,
    ];
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "Kubernetes NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::Cilium => "Cilium policy",
            Self::Calico => "Calico policy",
        })
    }
}

/// Where a policy stands among the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// With the NetworkPolicies: allows add up, who is selected is isolated.
    Kubernetes,
    /// With the Cilium policies: denies beat allows, who is selected by an isolating section is isolated.
    Cilium,
    /// In a tier of ClusterNetworkPolicy or (Baseline)AdminNetworkPolicy. Lower priorities come first; within a policy the
    /// order of rules counts; between policies of equal priority it is not defined.
    Cluster {
        /// Before or after the NetworkPolicies.
        tier: ClusterTier,
        /// 0 to 1000.
        priority: u16,
    },
    /// In a tier of Calico.
    Calico {
        /// The tier's name.
        tier: Arc<str>,
        /// Lower comes first; `None` comes last. Ties are broken by kind, namespace and name.
        order: Option<f64>,
    },
}

/// A tier of the cluster-wide policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterTier {
    /// Before the NetworkPolicies, which cannot override it.
    Admin,
    /// After them, for whom none of them selects.
    Baseline,
}

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its object.
    pub object: ObjectRef,
    /// Where it starts.
    pub at: At,
    /// What it is written in.
    pub dialect: Dialect,
    /// Where it stands.
    pub place: Place,
    /// Whom it selects.
    pub subject: Match,
    /// What it says of traffic to them; `None` where it says nothing, so that they stay as they are.
    pub ingress: Option<Section>,
    /// What it says of traffic from them; `None` where it says nothing.
    pub egress: Option<Section>,
    /// Fields of the policy as a whole that nobody understood: whatever it selects is unknown.
    pub doubts: Vec<Doubt>,
    /// Why it has no effect, where that is sure: staged, `status` says invalid, rejected by its API. It stays in the list for
    /// the findings.
    pub inert: Option<Arc<str>>,
    /// Places of rules of a direction that the policy does not declare (`policyTypes`, `types`): they have no effect, and are
    /// in no section.
    pub inert_rules: Vec<At>,
}

impl Policy {
    /// A policy of which nothing is known but that it may say anything of any pod: what stands after it and leaves a packet
    /// undecided before it stays open.
    pub(crate) fn opaque(object: ObjectRef, at: At, dialect: Dialect, place: Place, doubt: Doubt) -> Self {
        Self {
            object,
            at,
            dialect,
            place,
            subject: Match::Kind(Kind::Pod),
            ingress: None,
            egress: None,
            doubts: vec![doubt],
            inert: None,
            inert_rules: Vec::new(),
        }
    }
}

/// What a policy says of one direction.
#[derive(Debug, Clone)]
pub struct Section {
    /// Whether being selected denies what no rule mentions, or hands it to the tier's end (Calico).
    pub isolates: Truth,
    /// In the order of the source.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its path in the object, such as `spec.egress[0]`.
    pub path: Arc<str>,
    /// Its place.
    pub at: At,
    /// What happens to what it matches.
    pub action: Action,
    /// The other end: the source of ingress, the destination of egress.
    pub peer: Match,
    /// Which packets.
    pub traffic: TrafficMatch,
    /// What the rule does beyond packets (an L7 rule, authentication), in a few words for the reader.
    pub note: Option<Arc<str>>,
}

/// What happens to a packet that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It passes, as far as this direction goes.
    Allow,
    /// It does not.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
    /// Not known which.
    Unknown,
}

/// A direction, seen from whom the policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To them.
    Ingress,
    /// From them.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}
