//! Whether an expression matches one endpoint, and why that is not known.

use super::endpoints::{Addresses, Item, Shape};
use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster};
use crate::matching::{DomainPattern, Kind, LabelOwner, Match};
use crate::policy::{ClusterTier, Dialect};
use crate::profile::{Fact, Profile};
use crate::sets::AddressSet;
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// Answers about one endpoint at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct One<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) profile: Profile,
    pub(super) trusted: &'a [Arc<str>],
    /// Addresses of the API server, where the input has them.
    pub(super) kube_api: &'a AddressSet,
}

impl One<'_> {
    /// Whether selectors of a dialect do not see host-network pods.
    pub(super) fn host_pods_hidden(&self, dialect: Option<Dialect>) -> Truth {
        let Some(dialect) = dialect else { return Truth::No };
        let sees = match dialect {
            Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy => {
                // One expression may serve policies of both tiers: sure is what holds in both.
                let of = |tier| self.profile.fact(Fact::TierSeesHostNetwork(tier)).truth;
                let (admin, baseline) = (of(ClusterTier::Admin), of(ClusterTier::Baseline));
                if admin == baseline { admin } else { Truth::Unknown }
            }
            _ => self.profile.fact(Fact::HostNetworkIsPeer(dialect)).truth,
        };
        !sees
    }

    /// Whether the endpoint matches. Without a dialect an expression is an intent's: host-network pods are pods, and addresses
    /// are just addresses.
    pub(super) fn matches(&self, what: &Match, item: &Item<'_>, dialect: Option<Dialect>) -> Truth {
        let is_pod = matches!(item.shape, Shape::Pod | Shape::HostPod);
        let seen = || {
            if item.shape == Shape::HostPod { !self.host_pods_hidden(dialect) } else { Truth::Yes }
        };
        match what {
            Match::Anything => Truth::Yes,
            Match::Nothing => Truth::No,
            Match::All(parts) => Truth::all(parts.iter().map(|part| self.matches(part, item, dialect))),
            Match::OneOf(parts) => Truth::any(parts.iter().map(|part| self.matches(part, item, dialect))),
            Match::Not(inner) => !self.matches(inner, item, dialect),
            Match::Kind(kind) => match (kind, item.shape) {
                (Kind::Pod, Shape::Pod)
                | (Kind::LocalNode, Shape::LocalNode)
                | (Kind::RemoteNode, Shape::RemoteNode) => Truth::Yes,
                (Kind::Pod, Shape::HostPod) => seen(),
                // To everyone but an intent a host-network pod is its node: whose, depends on who looks.
                (Kind::RemoteNode | Kind::LocalNode, Shape::HostPod) => {
                    Truth::from(dialect.is_some()).and(!seen()).and(Truth::Unknown)
                }
                (Kind::External, Shape::Outside | Shape::ServiceAddress | Shape::Name) => Truth::Yes,
                _ => Truth::No,
            },
            Match::Label { owner: LabelOwner::Endpoint, key, test } => {
                let has = Truth::from(item.labels.is_some_and(|labels| test.holds(labels, key)));
                if dialect.is_none() {
                    return has;
                }
                let added = item.is_template && ADDED_BY_CONTROLLERS.contains(&&**key);
                let has = if added { has.or(Truth::Unknown) } else { has };
                has.and(!self.profile.fact(Fact::DropsLabel(key)).truth).and(seen())
            }
            Match::Label { owner: LabelOwner::Namespace, key, test } => {
                let Some(namespace) = item.namespace.filter(|_| is_pod) else { return Truth::No };
                match item.namespace_labels {
                    Some(labels) => test.holds(labels, key).into(),
                    None => self.cluster.namespace_label(namespace, key, test),
                }
            }
            Match::Label { owner: LabelOwner::ServiceAccount, key, test } => {
                let Some((namespace, account)) = item.namespace.zip(item.service_account) else {
                    return if item.is_imagined { Truth::Unknown } else { Truth::No };
                };
                self.cluster.account_label(namespace, account, key, test)
            }
            Match::Namespace(test) => item.namespace.is_some_and(|namespace| test.passes(namespace)).into(),
            Match::ServiceAccount(test) => match item.service_account {
                Some(account) => test.passes(account).into(),
                None => {
                    if item.is_imagined {
                        Truth::Unknown
                    } else {
                        Truth::No
                    }
                }
            },
            Match::Name(test) => match item.name {
                Some(_) if item.is_template => Truth::Unknown,
                Some(name) => test.passes(name).into(),
                None => {
                    if item.is_imagined {
                        Truth::Unknown
                    } else {
                        Truth::No
                    }
                }
            },
            Match::Cidr(set) => self.in_block(set, item, dialect),
            Match::Address(set) => item.addresses.within(set),
            Match::Domain(pattern) => self.domain(pattern, item),
            Match::KubeApiServer => self.kube_api(item),
            Match::Fact(fact) => self.profile.fact(*fact).truth,
            Match::Doubt(_) => Truth::Unknown,
        }
    }

    fn in_block(&self, set: &AddressSet, item: &Item<'_>, dialect: Option<Dialect>) -> Truth {
        item.addresses.within(set).and(self.block_counts(item, dialect))
    }

    /// Whether a block that an endpoint's address is in matches the endpoint.
    pub(super) fn block_counts(&self, item: &Item<'_>, dialect: Option<Dialect>) -> Truth {
        let Some(dialect) = dialect else { return Truth::Yes };
        match item.shape {
            Shape::Pod => self.profile.fact(Fact::CidrMatchesPods(dialect)).truth,
            Shape::HostPod | Shape::LocalNode | Shape::RemoteNode => {
                self.profile.fact(Fact::CidrMatchesNodes(dialect)).truth
            }
            // Which address a name has is not known; a block with all of them has it.
            Shape::Outside | Shape::ServiceAddress | Shape::Name => Truth::Yes,
        }
    }

    fn domain(&self, pattern: &DomainPattern, item: &Item<'_>) -> Truth {
        match (&item.endpoint, item.shape) {
            (super::Endpoint::Domain(name), _) => matches_name(pattern, name).into(),
            (_, Shape::Outside) => {
                // A pattern that admits one trusted name is no doubt about addresses; any other may mean each of them.
                let trusted = matches!(pattern, DomainPattern::Name(name) if self.trusted.contains(name));
                if trusted { Truth::No } else { Truth::Unknown }
            }
            _ => Truth::No,
        }
    }

    fn kube_api(&self, item: &Item<'_>) -> Truth {
        let addresses = self.kube_api;
        match item.shape {
            Shape::Outside | Shape::ServiceAddress if !addresses.is_empty() => {
                item.addresses.within(addresses)
            }
            Shape::Outside | Shape::ServiceAddress => Truth::No,
            Shape::Pod | Shape::Name => Truth::No,
            Shape::LocalNode | Shape::RemoteNode | Shape::HostPod => {
                let control = item.labels.is_some_and(|labels| {
                    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"]
                        .iter()
                        .any(|key| labels.contains_key(*key))
                });
                match (control, addresses.is_empty()) {
                    (true, _) => Truth::Yes,
                    (false, true) => Truth::Unknown,
                    (false, false) => item.addresses.within(addresses),
                }
            }
        }
    }

    /// Why an expression is unknown for an endpoint, each reason once.
    pub(super) fn doubts(
        &self,
        what: &Match,
        item: &Item<'_>,
        dialect: Option<Dialect>,
        name: &str,
        into: &mut Vec<Doubt>,
    ) {
        if self.matches(what, item, dialect) != Truth::Unknown {
            return;
        }
        let mut push = |doubt: Doubt| {
            if !into.contains(&doubt) {
                into.push(doubt);
            }
        };
        match what {
            Match::All(parts) | Match::OneOf(parts) => {
                for part in parts {
                    self.doubts(part, item, dialect, name, into);
                }
            }
            Match::Not(inner) => self.doubts(inner, item, dialect, name, into),
            Match::Doubt(doubt) => push(doubt.clone()),
            Match::Label { owner: LabelOwner::Namespace, key, .. } => {
                let namespace = item.namespace.map(|n| n.to_string()).unwrap_or_default();
                push(Doubt::new(format!(
                    "the label {key} of namespace {namespace} is not known: the namespace is not in the input"
                )));
            }
            Match::Label { owner: LabelOwner::ServiceAccount, key, .. } => {
                push(Doubt::new(format!("the label {key} of the service account of {name} is not known")));
            }
            Match::Label { key, .. } => {
                push(Doubt::new(format!("whether {name} has the label {key} is not known")))
            }
            Match::Cidr(set) => {
                let fact = dialect.map(|dialect| match item.shape {
                    Shape::Pod => Fact::CidrMatchesPods(dialect),
                    _ => Fact::CidrMatchesNodes(dialect),
                });
                let answer =
                    fact.map(|fact| self.profile.fact(fact)).filter(|answer| answer.truth == Truth::Unknown);
                match answer {
                    Some(answer) => push(Doubt::new(format!(
                        "whether the block {set} matches {name} differs between implementations ({}); name one with --cni",
                        answer.why
                    ))),
                    None if matches!(item.addresses, Addresses::All(_)) => push(Doubt::new(format!(
                        "{name} has addresses in {set} and addresses that are not: which one a packet uses is not known"
                    ))),
                    None => push(Doubt::new(format!(
                        "whether {name} has an address in {set} is not known; --pod-cidr or a cluster tells"
                    ))),
                }
            }
            Match::Address(set) => {
                push(Doubt::new(format!("whether {name} has an address in {set} is not known")))
            }
            Match::Domain(pattern) => push(Doubt::new(format!(
                "which addresses {} resolves to is not known",
                match pattern {
                    DomainPattern::Name(name) | DomainPattern::Labels(name) => name.to_string(),
                    DomainPattern::Under(name) => format!("*.{name}"),
                }
            ))),
            Match::KubeApiServer if self.kube_api.is_empty() => push(Doubt::new(
                "where the API server runs is not known: the endpoints of the Service default/kubernetes are not in the input, \
                 and no node says that it is of the control plane",
            )),
            Match::KubeApiServer => {
                push(Doubt::new(format!(
                    "whether the API server, at {}, runs on {name} is not known",
                    self.kube_api
                )));
            }
            Match::Fact(fact) => push(Doubt::new(self.profile.fact(*fact).why)),
            _ => push(Doubt::new(format!(
                "whether it is about {name} differs between implementations; name one with --cni"
            ))),
        }
    }
}

fn matches_name(pattern: &DomainPattern, name: &str) -> bool {
    match pattern {
        DomainPattern::Name(own) => **own == *name,
        DomainPattern::Under(suffix) => name
            .strip_suffix(&**suffix)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty()),
        DomainPattern::Labels(labels) => {
            let (mut want, mut have) = (labels.split('.'), name.split('.'));
            loop {
                match (want.next(), have.next()) {
                    (None, None) => return true,
                    (Some(want), Some(have)) if glob(want.as_bytes(), have.as_bytes()) => {}
                    _ => return false,
                }
            }
        }
    }
}

/// `*` stands for any characters. Linear in the product of the lengths, which DNS bounds.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| glob(rest, text)))
        }
        Some((c, rest)) => text.split_first().is_some_and(|(d, text)| c == d && glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_their_pattern_says() {
        let labels = |p: &str| DomainPattern::Labels(p.into());
        assert!(matches_name(&labels("*.example.com"), "s3.example.com"));
        assert!(!matches_name(&labels("*.example.com"), "a.s3.example.com"));
        assert!(matches_name(&labels("s*-x.example.com"), "s3-x.example.com"));
        assert!(matches_name(&DomainPattern::Under("example.com".into()), "a.s3.example.com"));
        assert!(!matches_name(&DomainPattern::Under("example.com".into()), "example.com"));
        assert!(!matches_name(&DomainPattern::Under("example.com".into()), "badexample.com"));
    }
}
