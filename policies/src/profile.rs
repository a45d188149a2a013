//! CNI profiles: what the specifications leave open, answered for one implementation and version, each with its source.
//!
//! `generic` stands for any conforming implementation of NetworkPolicy: where implementations differ it answers
//! [`Truth::Unknown`], so that a verdict under it holds under each of them.

mod aws_vpc;
mod calico;
mod calico_standing;
mod cilium;
mod detect;
mod generic;

pub use calico_standing::Standing;
pub use detect::detect;

use crate::policy::{ClusterTier, Dialect, Place, Policy};
use crate::truth::Truth;
use std::fmt;
use std::str::FromStr;

/// A question whose answer differs between implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact<'a> {
    /// Whether policies of this dialect are enforced.
    Enforces(Dialect),
    /// Whether an address block in a policy of this dialect matches pods by their address.
    CidrMatchesPods(Dialect),
    /// Whether it matches the cluster's nodes (and so host-network pods) by their address.
    CidrMatchesNodes(Dialect),
    /// Whether traffic from a pod's own node to the pod is let in whatever policies say.
    OwnNodeIsLetIn,
    /// Whether traffic from a pod to its own node is let out whatever policies say.
    OwnNodeIsLetOut,
    /// Whether policies apply to host-network pods.
    HostNetworkIsSubject,
    /// Whether a pod selector in a policy of this dialect matches host-network pods as peers (else they are their node).
    HostNetworkIsPeer(Dialect),
    /// Whether policies of NetworkPolicy apply to protocols other than TCP, UDP and SCTP.
    PolicesOtherProtocols,
    /// Whether egress policies see a Service's cluster address (before DNAT) instead of its backend.
    SeesClusterIp,
    /// Whether they see an external address of a Service (`externalIPs`, its load balancer's) instead of its backend.
    SeesExternalAddress,
    /// Whether they see the pod's own node at a node port or host port instead of the backend.
    SeesOwnNodePort,
    /// Whether they see another node at a node port or host port instead of the backend.
    SeesNodePort,
    /// Whether a pod's policies see its own node as the sender of what that node has translated from a node port or an external
    /// address of a Service with `externalTrafficPolicy: Cluster`, instead of the client.
    SeesOwnNodeAsSender,
    /// Whether they see another node as the sender of what that one has translated so.
    SeesOtherNodeAsSender,
    /// Whether they see another pod's node as the sender of what that pod has sent to a third node, whoever gets it there: what
    /// leaves the pods' network may be masqueraded.
    SeesClientsNodeAsSender,
    /// Whether they see the pod's own node as the sender of what comes through a host port.
    SeesHostPortNodeAsSender,
    /// Whether a pod's traffic to itself through a Service is subject to policies.
    PolicesHairpin,
    /// Whether this label of a pod is invisible to policies.
    DropsLabel(&'a str),
    /// Whether `endPort` is honoured.
    EndPort,
    /// Whether SCTP rules are honoured.
    Sctp,
    /// Whether being isolated by a NetworkPolicy stops SCTP, whatever is made of rules for it.
    IsolationStopsSctp,
    /// Whether rules of a NetworkPolicy count in a direction that its `policyTypes` does not name.
    UndeclaredRulesCount,
    /// Whether an `except` of a NetworkPolicy also takes its addresses out of wider blocks of other rules.
    ExceptionHolds,
    /// Whether the policies of a cluster-wide tier see host-network pods as peers.
    TierSeesHostNetwork(ClusterTier),
    /// A version's difference within Cilium's own policies; other implementations do not enforce these at all.
    Cilium(CiliumChange),
}

/// What changed in the meaning of Cilium's policies between versions. Each is worded so that newer versions say yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CiliumChange {
    /// Whether a block that spans an address family means that family alone, not the whole world.
    WorldByFamily,
    /// Whether an empty list of peers beside `toPorts` means nobody, not anybody.
    EmptyListIsNobody,
    /// Whether `enableDefaultDeny` is known.
    DefaultDenyField,
    /// Whether a policy without a non-empty section, or with a faulty deny rule, is rejected.
    ChecksEverySection,
    /// Whether `toServices` reaches Services with a selector, and may stand beside `toPorts`.
    ServicesBySelector,
    /// Whether `toServices` may stand beside `toPorts`. Not known before 1.14 and from 1.17 on it may.
    ServicesWithPorts,
    /// Whether a selector of namespace labels in a namespaced policy reaches beyond its own namespace.
    NamespaceLabelsSpan,
    /// Whether a CiliumCIDRGroup is matched by its label, in every direction and for denials, too.
    CidrGroups,
    /// Whether a selector that names no cluster means this cluster's endpoints only.
    LocalClusterOnly,
    /// Whether `**.` at the start of a pattern stands for one or more labels.
    SubdomainPattern,
}

/// Why a host port keeps the sender's address, where the CNI plugin of that purpose opens it.
const PORTMAP: &str = "the CNI plugin portmap, which opens host ports, masquerades what a pod sends to itself or comes from the node's \
                       own loopback address, and nothing else (plugins/meta/portmap/README.md, SNAT)";

/// An answer, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What holds.
    pub truth: Truth,
    /// The source, in a sentence for the reader of a verdict.
    pub why: &'static str,
}

/// The order in which kinds of policy are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pipeline {
    /// Admin tier, NetworkPolicies (with Cilium's own kinds beside them), Baseline tier, allow.
    Standard,
    /// Calico's tiers, with the NetworkPolicies at order 1000 of `default` and the cluster-wide kinds in tiers of their own.
    CalicoTiers,
}

/// An implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cni {
    /// Any.
    Generic,
    /// Cilium.
    Cilium,
    /// Calico.
    Calico,
    /// Amazon VPC CNI with its network policy agent.
    AwsVpc,
}

/// A version, `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

/// An implementation at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Profile {
    /// Which.
    pub cni: Cni,
    /// Its version; of `generic`, that of Kubernetes.
    pub version: Version,
}

/// Why a text is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No such implementation.
    #[error(
        "{0:?} is not a CNI profile; choose generic, cilium, calico or aws-vpc, with or without @MAJOR.MINOR"
    )]
    Unknown(String),
    /// Outside the range of versions whose semantics are known.
    #[error("{cni} {given} is not known; versions {oldest} to {newest} are")]
    Version {
        /// Which.
        cni: Cni,
        /// What was asked for.
        given: Version,
        /// The oldest one known.
        oldest: Version,
        /// The newest one known.
        newest: Version,
    },
}

impl Cni {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Generic, Self::Cilium, Self::Calico, Self::AwsVpc];

    /// The oldest and the newest version whose semantics are known.
    pub fn versions(self) -> (Version, Version) {
        match self {
            Self::Generic => generic::VERSIONS,
            Self::Cilium => cilium::VERSIONS,
            Self::Calico => calico::VERSIONS,
            Self::AwsVpc => aws_vpc::VERSIONS,
        }
    }
}

impl Profile {
    /// The newest known version of an implementation.
    pub fn newest(cni: Cni) -> Self {
        Self { cni, version: cni.versions().1 }
    }

    /// What this implementation does.
    pub fn fact(&self, fact: Fact<'_>) -> Answer {
        match self.cni {
            Cni::Generic => generic::fact(self.version, fact),
            Cni::Cilium => cilium::fact(self.version, fact),
            Cni::Calico => calico::fact(self.version, fact),
            Cni::AwsVpc => aws_vpc::fact(self.version, fact),
        }
    }

    /// Whether it enforces a policy: as [`Fact::Enforces`], but for versions that enforce one kind of a dialect and not the other.
    pub fn enforces(&self, policy: &Policy) -> Answer {
        match (self.cni, &policy.place) {
            (Cni::Calico, Place::Cluster { tier, .. }) if policy.dialect == Dialect::AdminNetworkPolicy => {
                calico::enforces_tier(self.version, *tier)
            }
            _ => self.fact(Fact::Enforces(policy.dialect)),
        }
    }

    /// The order in which it asks kinds of policy.
    pub fn pipeline(&self) -> Pipeline {
        if self.cni == Cni::Calico { Pipeline::CalicoTiers } else { Pipeline::Standard }
    }

    /// What must hold of the cluster for verdicts under this profile to be true, each a sentence: settings at their
    /// defaults, enforcement on.
    pub fn assumptions(&self) -> &'static [&'static str] {
        match self.cni {
            Cni::Generic => generic::ASSUMPTIONS,
            Cni::Cilium => cilium::ASSUMPTIONS,
            Cni::Calico => calico::ASSUMPTIONS,
            Cni::AwsVpc => aws_vpc::ASSUMPTIONS,
        }
    }
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Cilium => "cilium",
            Self::Calico => "calico",
            Self::AwsVpc => "aws-vpc",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.cni, self.version)
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    /// `cilium`, `cilium@1.18`, `cilium@v1.18.3`.
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let unknown = || ProfileError::Unknown(text.chars().take(80).collect());
        let (name, version) =
            text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let cni = Cni::ALL.into_iter().find(|cni| cni.to_string() == name).ok_or_else(unknown)?;
        let Some(version) = version else { return Ok(Self::newest(cni)) };
        let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
        let mut next = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(unknown);
        let given = Version(next()?, next()?);
        let (oldest, newest) = cni.versions();
        if given < oldest || given > newest {
            return Err(ProfileError::Version { cni, given, oldest, newest });
        }
        Ok(Self { cni, version: given })
    }
}
