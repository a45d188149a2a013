//! What a policy selects: expressions over endpoints and over traffic. Every dialect is read into these two, so that one
//! evaluator serves all. An expression is three-valued: a [`Doubt`] in it makes it unknown exactly where it matters.

use crate::cluster::Labels;
use crate::profile::Fact;
use crate::sets::{AddressSet, PortSet, Protocol};
use crate::truth::Doubt;
use std::sync::Arc;

/// Which endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    /// Every endpoint, in the cluster or not.
    Anything,
    /// None. `OneOf(vec![])` means the same, `All(vec![])` means [`Match::Anything`].
    Nothing,
    /// Those that all of these match.
    All(Vec<Match>),
    /// Those that at least one of these matches.
    OneOf(Vec<Match>),
    /// Those that this does not match, of every kind: guard it with [`Match::Kind`] where the dialect's negation speaks of
    /// pods only.
    Not(Box<Match>),
    /// Endpoints of a kind.
    Kind(Kind),
    /// Endpoints that have labels, and this label so. An absent label, and an endpoint without labels, match nothing;
    /// `NotIn`, `!=` and the like are [`Match::Not`] of a test, guarded.
    Label {
        /// Whose label.
        owner: LabelOwner,
        /// Its key, as written on the object.
        key: Arc<str>,
        /// What is asked of its value.
        test: Test,
    },
    /// Pods in namespaces whose name is so.
    Namespace(Test),
    /// Pods whose service account's name is so; an unset one is `default`.
    ServiceAccount(Test),
    /// Pods and nodes whose own name is so.
    Name(Test),
    /// Endpoints by address, as the policy's dialect means it (`ipBlock`, `toCIDR`, `nets`, `networks`): whether it reaches
    /// pods and nodes too is a fact of the profile.
    Cidr(AddressSet),
    /// Endpoints by address, of whatever kind. No dialect says this; intents do.
    Address(AddressSet),
    /// Whatever a DNS name resolves to. `*.example.com` matches as `dialect` says: the pattern is already a [`DomainPattern`].
    Domain(DomainPattern),
    /// The Kubernetes API server, wherever it runs: the backends of the Service `default/kubernetes`.
    KubeApiServer,
    /// Every endpoint, where the profile says yes to this; none where it says no. What a parser cannot know, the version it
    /// is read for, is written down so.
    Fact(Fact<'static>),
    /// Not known.
    Doubt(Doubt),
}

/// Kinds of endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A pod with a network namespace of its own.
    Pod,
    /// The node that the subject runs on, with its host-network pods.
    LocalNode,
    /// Any other node, with its host-network pods.
    RemoteNode,
    /// What is not in the cluster.
    External,
}

/// Whose label a [`Match::Label`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelOwner {
    /// The pod's, or the node's.
    Endpoint,
    /// That of the pod's namespace.
    Namespace,
    /// That of the pod's service account.
    ServiceAccount,
}

/// A test on a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// It is there, whatever it says.
    Exists,
    /// It is just this.
    Is(Arc<str>),
    /// It is one of these.
    In(Vec<Arc<str>>),
    /// It starts with this.
    StartsWith(Arc<str>),
    /// It ends with this.
    EndsWith(Arc<str>),
    /// It contains this.
    Contains(Arc<str>),
}

impl Test {
    /// Whether a text passes.
    pub fn passes(&self, text: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::Is(value) => **value == *text,
            Self::In(values) => values.iter().any(|value| **value == *text),
            Self::StartsWith(start) => text.starts_with(&**start),
            Self::EndsWith(end) => text.ends_with(&**end),
            Self::Contains(part) => text.contains(&**part),
        }
    }

    /// Whether labels have this one, and its value passes.
    pub fn holds(&self, labels: &Labels, key: &str) -> bool {
        labels.get(key).is_some_and(|value| self.passes(value))
    }
}

/// A set of DNS names: lower case, no final dot; `*` within a label, `**.` and kCNP's leading `*.` over several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DomainPattern {
    /// Just this name.
    Name(Arc<str>),
    /// Names that match label by label; `*` stands for any characters but dots.
    Labels(Arc<str>),
    /// This many labels or more before the suffix, which has no leading dot.
    Under(Arc<str>),
}

/// Which packets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrafficMatch {
    /// All, of every protocol.
    Anything,
    /// None. `OneOf(vec![])` means the same, `All(vec![])` means [`TrafficMatch::Anything`].
    Nothing,
    /// Those that all of these match.
    All(Vec<TrafficMatch>),
    /// Those that at least one of these matches.
    OneOf(Vec<TrafficMatch>),
    /// Those that this does not match.
    Not(Box<TrafficMatch>),
    /// Packets of a protocol.
    Protocol(Protocol),
    /// Packets of a protocol to these ports; on ICMP, `type × 256 + code`.
    Ports(Protocol, PortSet),
    /// Packets of a protocol to the port that the destination pod names so; none where it names none.
    NamedPort(Protocol, Arc<str>),
    /// Packets of a protocol from these ports.
    SourcePorts(Protocol, PortSet),
    /// Not known.
    Doubt(Doubt),
}

impl Match {
    /// A label that is just this.
    pub fn label(owner: LabelOwner, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::Label { owner, key: key.into(), test: Test::Is(value.into()) }
    }

    /// Pods with network namespaces of their own that also match this.
    pub fn pods(which: Self) -> Self {
        Self::All(vec![Self::Kind(Kind::Pod), which])
    }

    /// What this does not match.
    #[must_use]
    pub fn negate(self) -> Self {
        Self::Not(Box::new(self))
    }
}

impl TrafficMatch {
    /// What this does not match.
    #[must_use]
    pub fn negate(self) -> Self {
        Self::Not(Box::new(self))
    }
}
