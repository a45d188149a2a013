//! The order in which Calico asks policies: by tier, in it by order, then by a key that depends on the version.

use super::{Profile, Version};
use crate::cluster::Tier;
use crate::policy::{ClusterTier, Dialect, Place, Policy};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// From here on ties are broken by name, namespace and kind; before by one text with namespace, tier and name.
const PLAIN_NAMES: Version = Version(3, 32);
/// Up to here policies of the default tier are stored, and compared, with that tier's name before theirs.
const PREFIXED_NAMES: Version = Version(3, 29);
/// Order of a NetworkPolicy in the default tier (`K8sNetworkPolicyToCalico`).
const NETWORK_POLICY_ORDER: f64 = 1000.0;

/// Where a policy stands. Policies are asked in ascending order ([`Standing::compare`]); at the end of its tier, what is undecided
/// goes on to the next one or is denied, if at least one policy of the tier selects the endpoint and speaks of the direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The tier's name.
    pub tier: Arc<str>,
    /// The tier's order; infinite for a tier without one.
    pub tier_order: f64,
    /// Whether what the tier does not decide goes on.
    pub default_pass: bool,
    /// The policy's order in the tier; infinite for a policy without one.
    pub order: f64,
    /// What decides between equal orders.
    pub tie: String,
}

impl Standing {
    /// Where a policy stands under a profile of Calico; `None` if it is never asked. `tiers` are those of the input; the ones
    /// that Calico makes itself need not be among them.
    pub fn of(profile: Profile, tiers: &BTreeMap<Arc<str>, Tier>, policy: &Policy) -> Option<Self> {
        if policy.inert.is_some() || !profile.enforces(policy).truth.may() {
            return None;
        }
        let is_admin_network_policy = policy.dialect == Dialect::AdminNetworkPolicy;
        let (tier, order): (Arc<str>, f64) = match &policy.place {
            Place::Calico { tier, order } => (tier.clone(), order.unwrap_or(f64::INFINITY)),
            Place::Kubernetes => ("default".into(), NETWORK_POLICY_ORDER),
            Place::Cluster { tier, priority } => {
                let name = match (tier, is_admin_network_policy) {
                    (ClusterTier::Admin, false) => "kube-admin",
                    (ClusterTier::Admin, true) => "adminnetworkpolicy",
                    (ClusterTier::Baseline, false) => "kube-baseline",
                    (ClusterTier::Baseline, true) => "baselineadminnetworkpolicy",
                };
                (name.into(), f64::from(*priority))
            }
            Place::Cilium => return None,
        };
        let (tier_order, default_pass) = match (&*tier, tiers.get(&tier)) {
            // Their orders and default actions cannot be changed (`api/pkg/apis/projectcalico/v3/tier.go`).
            ("default", _) => (1e6, false),
            ("kube-admin" | "adminnetworkpolicy", _) => (1e3, true),
            ("kube-baseline" | "baselineadminnetworkpolicy", _) => (1e7, true),
            (_, Some(tier)) => (tier.order.unwrap_or(f64::INFINITY), tier.default_pass),
            (_, None) => (f64::INFINITY, false),
        };
        let tie = tie(profile.version, policy, &tier);
        Some(Self { tier, tier_order, default_pass, order, tie })
    }

    /// Which of two is asked first. Policies with a rule that narrows the subject are several of equal standing: sort
    /// stably, so that they keep their order.
    pub fn compare(&self, other: &Self) -> Ordering {
        // Go compares -0 and 0 as equal, `total_cmp` does not.
        let plain = |order: f64| order + 0.0;
        plain(self.tier_order)
            .total_cmp(&plain(other.tier_order))
            .then_with(|| self.tier.cmp(&other.tier))
            .then_with(|| plain(self.order).total_cmp(&plain(other.order)))
            .then_with(|| self.tie.cmp(&other.tie))
    }
}

/// What breaks a tie (`PolKVLess` of `felix/calc/policy_sorter.go`; names as `libcalico-go/lib/names/policy.go` and
/// `updateprocessors` make them).
fn tie(version: Version, policy: &Policy, tier: &str) -> String {
    let object = &policy.object;
    let (name, kind) = (&object.name, &object.kind);
    let namespace = object.namespace.as_deref();
    if version >= PLAIN_NAMES {
        let kubernetes = if policy.dialect == Dialect::Calico { "" } else { "Kubernetes" };
        return format!("{name}/{}/{kubernetes}{kind}", namespace.unwrap_or(""));
    }
    let name = match policy.place {
        Place::Kubernetes => format!("knp.default.{name}"),
        Place::Cluster { tier: ClusterTier::Admin, .. } => format!("kanp.adminnetworkpolicy.{name}"),
        Place::Cluster { tier: ClusterTier::Baseline, .. } => {
            format!("kbanp.baselineadminnetworkpolicy.{name}")
        }
        _ if version <= PREFIXED_NAMES && !name.starts_with(&format!("{tier}.")) => format!("{tier}.{name}"),
        _ => name.to_string(),
    };
    namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::{Input, Limits, ReadOptions, cluster};

    const TEXT: &str = "
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: late}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: early}
spec: {order: 5, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: late.g}
spec: {tier: late}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early.g}
spec: {tier: early, order: 3}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: staged}
spec: {doNotTrack: true, applyOnForward: true}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: m, namespace: a}
spec: {order: 1000}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: last}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: b, namespace: a}
spec: {podSelector: {}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c}
spec: {tier: Admin, priority: 7, subject: {namespaces: {}}}
";

    fn order(profile: &str) -> Vec<String> {
        let mut input = Input::new(Limits::default());
        input.add("in.yaml", TEXT).unwrap();
        let cluster = cluster(&input, &ReadOptions::default()).unwrap().cluster;
        let profile: Profile = profile.parse().unwrap();
        let standing = |policy| Standing::of(profile, &cluster.tiers, policy);
        let mut all: Vec<Standing> = cluster.policies.iter().filter_map(standing).collect();
        all.sort_by(Standing::compare);
        all.into_iter().map(|s| format!("{} {} {} {}", s.tier, s.default_pass, s.order, s.tie)).collect()
    }

    #[test]
    fn policies_are_asked_by_tier_order_and_name_and_network_policies_at_order_1000() {
        assert_eq!(
            order("calico@3.32"),
            [
                "early true 3 early.g//GlobalNetworkPolicy",
                "kube-admin true 7 c//KubernetesClusterNetworkPolicy",
                "default false 1000 b/a/KubernetesNetworkPolicy",
                "default false 1000 m/a/NetworkPolicy",
                "default false inf last//GlobalNetworkPolicy",
                "late false inf late.g//GlobalNetworkPolicy",
            ]
        );
    }

    #[test]
    fn before_3_32_ties_are_broken_by_namespace_and_stored_name() {
        assert_eq!(
            order("calico@3.31"),
            [
                "early true 3 early.g",
                "default false 1000 a/knp.default.b",
                "default false 1000 a/m",
                "default false inf last",
                "late false inf late.g",
            ]
        );
        assert_eq!(
            order("calico@3.28").get(1..3).unwrap(),
            ["default false 1000 a/default.m", "default false 1000 a/knp.default.b"]
        );
    }
}
