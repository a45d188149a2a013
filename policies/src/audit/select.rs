//! Whether an expression of [`crate::matching`] matches somebody, one at a time: what findings about policies ask. The
//! evaluator answers the same for everybody at once; this one answers *unknown* a little more often, which only keeps a
//! finding back. The two are not one: this one is also asked of whoever the input does not show (a pool's future pods, a stranger,
//! some node), and of nodes without saying whose, and knows neither endpoints nor options; the evaluator's, which runs for every pair,
//! would carry all of that. What they have in common is in [`Cluster`], [`Test`], [`Truth`] and
//! [`lower`].

use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster, Labels, Node, Pod};
use crate::evaluate::lower;
use crate::matching::{Kind, LabelOwner, Match, Test, TrafficMatch};
use crate::policy::{ClusterTier, Dialect};
use crate::profile::{Fact, Profile};
use crate::sets::{AddressSet, Cidr, PortSet, Traffic};
use crate::truth::Truth;
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody who may be selected or talked to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Party<'a> {
    /// A pod or template of the input.
    Pod(&'a Pod),
    /// A pod that the operator makes of a WorkerPool, in this namespace.
    Worker(&'a Arc<str>),
    /// A pod of a namespace that the input does not show.
    Stranger,
    /// A node of the input.
    Node(&'a Node),
    /// A node that the input does not show.
    SomeNode,
    /// An address outside the cluster; `None` for any.
    Outside(Option<IpAddr>),
}

/// Answers under one profile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Select<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) profile: Profile,
    as_subject: bool,
}

impl<'a> Select<'a> {
    pub(super) fn new(cluster: &'a Cluster, profile: Profile) -> Self {
        Self { cluster, profile, as_subject: false }
    }

    /// Whether an implementation does this.
    pub(super) fn fact(&self, fact: Fact<'_>) -> Truth {
        self.profile.fact(fact).truth
    }

    /// Whether a policy with this subject selects a pod.
    pub(super) fn selects(&self, subject: &Match, pod: &'a Pod, dialect: Dialect) -> Truth {
        Self { as_subject: true, ..*self }.truth(subject, Party::Pod(pod), dialect)
    }

    /// What an expression says whoever is asked: *no* for what never matches in this version, *yes* for what always does.
    pub(super) fn whoever(&self, what: &Match) -> Truth {
        match what {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => Truth::all(parts.iter().map(|part| self.whoever(part))),
            Match::OneOf(parts) => Truth::any(parts.iter().map(|part| self.whoever(part))),
            Match::Not(inner) => !self.whoever(inner),
            Match::Fact(fact) => self.fact(*fact),
            _ => Truth::Unknown,
        }
    }

    /// Whether an expression of a policy matches somebody.
    pub(super) fn truth(&self, what: &Match, party: Party<'a>, dialect: Dialect) -> Truth {
        match what {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => Truth::all(parts.iter().map(|part| self.truth(part, party, dialect))),
            Match::OneOf(parts) => Truth::any(parts.iter().map(|part| self.truth(part, party, dialect))),
            Match::Not(inner) => !self.truth(inner, party, dialect),
            Match::Kind(kind) => self.kind(*kind, party, dialect),
            Match::Label { owner, key, test } => self.label(*owner, key, test, party, dialect),
            Match::Namespace(test) => match party {
                Party::Pod(pod) => test.passes(&pod.namespace).into(),
                Party::Worker(namespace) => test.passes(namespace).into(),
                Party::Stranger => self.strange(test),
                _ => Truth::No,
            },
            Match::ServiceAccount(test) => match party {
                Party::Pod(pod) => test.passes(&pod.service_account).into(),
                Party::Worker(_) | Party::Stranger => Truth::Unknown,
                _ => Truth::No,
            },
            Match::Name(test) => match party {
                Party::Pod(pod) if !pod.is_template => test.passes(&pod.object.name).into(),
                Party::Node(node) => test.passes(&node.name).into(),
                Party::Outside(_) => Truth::No,
                _ => Truth::Unknown,
            },
            Match::Cidr(set) => self.block(dialect, party).and(within(set, party)),
            Match::Address(set) => within(set, party),
            Match::KubeApiServer => match party {
                Party::Worker(_) => Truth::No,
                _ => Truth::Unknown,
            },
            Match::Domain(_) => match party {
                Party::Outside(_) => Truth::Unknown,
                _ => Truth::No,
            },
            Match::Fact(fact) => self.fact(*fact),
            Match::Doubt(_) => Truth::Unknown,
        }
    }

    fn kind(&self, kind: Kind, party: Party<'a>, dialect: Dialect) -> Truth {
        match (kind, party) {
            (Kind::Pod, Party::Pod(pod)) if pod.host_network => self.host_pod_is_seen(dialect),
            // To who does not see it as a pod, a host-network pod is its node; which one depends on the subject.
            (Kind::LocalNode | Kind::RemoteNode, Party::Pod(pod)) if pod.host_network => Truth::Unknown,
            (Kind::Pod, Party::Pod(_) | Party::Worker(_) | Party::Stranger) => Truth::Yes,
            // Whether it is the subject's own depends on where the subject runs.
            (Kind::LocalNode | Kind::RemoteNode, Party::Node(_) | Party::SomeNode) => Truth::Unknown,
            (Kind::External, Party::Outside(_)) => Truth::Yes,
            _ => Truth::No,
        }
    }

    /// Whether a host-network pod is seen as a pod.
    fn host_pod_is_seen(&self, dialect: Dialect) -> Truth {
        match dialect {
            _ if self.as_subject => self.fact(Fact::HostNetworkIsSubject),
            Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy => {
                self.fact(Fact::TierSeesHostNetwork(ClusterTier::Admin))
            }
            _ => self.fact(Fact::HostNetworkIsPeer(dialect)),
        }
    }

    fn label(&self, owner: LabelOwner, key: &str, test: &Test, party: Party<'a>, dialect: Dialect) -> Truth {
        let passes = |labels: &Labels| Truth::from(test.holds(labels, key));
        match (owner, party) {
            (_, Party::Outside(_)) => Truth::No,
            (LabelOwner::Endpoint, Party::Node(node)) => passes(&node.labels),
            (_, Party::Node(_)) => Truth::No,
            (LabelOwner::Endpoint, Party::Pod(pod)) => {
                let has = passes(&pod.labels);
                let added = pod.is_template && ADDED_BY_CONTROLLERS.contains(&key);
                let has = if added { has.or(Truth::Unknown) } else { has };
                let seen = if pod.host_network { self.host_pod_is_seen(dialect) } else { Truth::Yes };
                has.and(!self.fact(Fact::DropsLabel(key))).and(seen)
            }
            (LabelOwner::Endpoint, Party::Worker(_) | Party::Stranger) => {
                Truth::Unknown.and(!self.fact(Fact::DropsLabel(key)))
            }
            (LabelOwner::Namespace, Party::Pod(Pod { namespace, .. }) | Party::Worker(namespace)) => {
                self.cluster.namespace_label(namespace, key, test)
            }
            (LabelOwner::Namespace, Party::Stranger) if key == "kubernetes.io/metadata.name" => {
                self.strange(test)
            }
            (LabelOwner::ServiceAccount, Party::Pod(pod)) => {
                self.cluster.account_label(&pod.namespace, &pod.service_account, key, test)
            }
            (_, Party::Worker(_) | Party::Stranger | Party::SomeNode) => Truth::Unknown,
        }
    }

    /// Whether the name of a namespace without pods in the input passes.
    fn strange(&self, test: &Test) -> Truth {
        let is_shown = |name: &Arc<str>| self.cluster.pods.iter().any(|pod| pod.namespace == *name);
        match test {
            Test::Is(name) if is_shown(name) => Truth::No,
            Test::In(names) if names.iter().all(is_shown) => Truth::No,
            Test::Exists => Truth::Yes,
            _ => Truth::Unknown,
        }
    }

    fn block(&self, dialect: Dialect, party: Party<'a>) -> Truth {
        match party {
            Party::Pod(pod) if pod.host_network => self.fact(Fact::CidrMatchesNodes(dialect)),
            Party::Pod(_) | Party::Worker(_) | Party::Stranger => self.fact(Fact::CidrMatchesPods(dialect)),
            Party::Node(_) | Party::SomeNode => self.fact(Fact::CidrMatchesNodes(dialect)),
            Party::Outside(_) => Truth::Yes,
        }
    }

    /// Traffic to somebody that an expression of a policy surely and possibly matches, whatever the source ports.
    pub(super) fn traffic(
        &self,
        what: &TrafficMatch,
        destination: Party<'a>,
        dialect: Dialect,
    ) -> (Traffic, Traffic) {
        let ports = match destination {
            Party::Pod(pod) => Some(&*pod.ports),
            // Nobody knows which names their ports will have.
            Party::Worker(_) | Party::Stranger => None,
            Party::Node(_) | Party::SomeNode | Party::Outside(_) => Some(&[][..]),
        };
        lower(what, ports, &[PortSet::full()], 0, Some((dialect, self.profile)))
    }
}

/// Whether somebody's address is in a set. Someone with two addresses, of which one is, is in it in part: unknown.
fn within(set: &AddressSet, party: Party<'_>) -> Truth {
    if set.is_empty() {
        return Truth::No;
    }
    if AddressSet::full().is_subset(set) {
        return Truth::Yes;
    }
    let addresses: &[IpAddr] = match &party {
        Party::Pod(pod) => &pod.addresses,
        Party::Node(node) => &node.addresses,
        Party::Outside(Some(address)) => std::slice::from_ref(address),
        _ => &[],
    };
    let own = AddressSet::blocks(addresses.iter().copied().map(Cidr::host));
    match (own.is_empty(), own.is_subset(set), own.intersects(set)) {
        (true, ..) | (false, false, true) => Truth::Unknown,
        (false, true, _) => Truth::Yes,
        (false, false, false) => Truth::No,
    }
}
