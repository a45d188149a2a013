//! Kinds that the source of an input holds and does not show: what depends on them is unknown, and says which right is missing.

use super::At;
use crate::cluster::{Cluster, MissingRight};
use crate::policy::{ClusterTier, Dialect, Place, Policy};
use crate::source::ObjectRef;
use crate::truth::Doubt;
use std::sync::Arc;

/// Stands for the policies that nobody could read.
pub(crate) const NAME: &str = "(not readable)";
/// A tier before all others, so that what an unread policy of Calico says is open whatever the readable ones say.
const FIRST_TIER: &str = "(not readable)";

/// A resource that the account which reads a cluster may not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Its kind, such as `NetworkPolicy`.
    pub kind: Arc<str>,
    /// Its plural name, such as `networkpolicies`.
    pub resource: Arc<str>,
    /// The right that is missing: `list`, or `get` of one object.
    pub verb: &'static str,
    /// Where the objects would have been read, as a source's name.
    pub source: Arc<str>,
}

impl Unread {
    /// What is missing and how to come by it.
    fn message(&self) -> String {
        let group = if self.group.is_empty() { "the core group".to_owned() } else { self.group.to_string() };
        let Self { verb, resource, kind, .. } = self;
        let full =
            if self.group.is_empty() { resource.to_string() } else { format!("{resource}.{}", self.group) };
        format!(
            "{resource} of {group} could not be read: the account may not {verb} them, and what depends on any {kind} is not \
             known; grant it with `kubectl create clusterrole audit-{resource} --verb={verb} --resource={full}` and a binding \
             of it for all namespaces (docs/audit.md has the whole role)"
        )
    }
}

/// Writes down what is missing: policies as ones that may say anything, everything else as a right that an audit asks after.
pub(super) fn enter(unread: &[Unread], cluster: &mut Cluster) {
    for one in unread {
        let at = At::whole(&one.source);
        let doubt = Doubt::at(one.message(), &at);
        let policies: Vec<(Dialect, Place)> = match (&*one.group, &*one.kind) {
            ("networking.k8s.io", "NetworkPolicy") => vec![(Dialect::NetworkPolicy, Place::Kubernetes)],
            ("cilium.io", _) => vec![(Dialect::Cilium, Place::Cilium)],
            ("projectcalico.org" | "crd.projectcalico.org", _) => {
                let tier = crate::cluster::Tier {
                    at: at.clone(),
                    order: Some(f64::NEG_INFINITY),
                    default_pass: true,
                };
                cluster.tiers.insert(FIRST_TIER.into(), tier);
                let place = Place::Calico { tier: FIRST_TIER.into(), order: Some(f64::NEG_INFINITY) };
                vec![(Dialect::Calico, place)]
            }
            ("policy.networking.k8s.io", kind) => {
                let dialect = if kind == "ClusterNetworkPolicy" {
                    Dialect::ClusterNetworkPolicy
                } else {
                    Dialect::AdminNetworkPolicy
                };
                let tiers: &[ClusterTier] = match kind {
                    "AdminNetworkPolicy" => &[ClusterTier::Admin],
                    "BaselineAdminNetworkPolicy" => &[ClusterTier::Baseline],
                    _ => &[ClusterTier::Admin, ClusterTier::Baseline],
                };
                tiers.iter().map(|tier| (dialect, Place::Cluster { tier: *tier, priority: 0 })).collect()
            }
            _ => Vec::new(),
        };
        if policies.is_empty() {
            let about_rights = &*one.group == "rbac.authorization.k8s.io";
            cluster.missing_rights.push(MissingRight { doubt, about_rights });
            continue;
        }
        for (dialect, place) in policies {
            let (group, kind) = (one.group.clone(), one.kind.clone());
            let object = ObjectRef { group, kind, namespace: None, name: NAME.into() };
            cluster.policies.push(Policy::opaque(object, at.clone(), dialect, place, doubt.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::evaluate::{Evaluation, Options};
    use crate::read::{Input, Limits, ReadOptions, cluster};
    use crate::sets::Protocol;

    const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2}
";

    fn unread(group: &str, kind: &str, resource: &str) -> Unread {
        Unread {
            group: group.into(),
            kind: kind.into(),
            resource: resource.into(),
            verb: "list",
            source: format!("cluster/{resource}").into(),
        }
    }

    /// Whether TCP 80 passes from `web` to `db`, and why that is not known.
    fn judged(unread: Unread, profile: &str) -> (&'static str, String) {
        let mut input = Input::new(Limits::default());
        input.add("in.yaml", PODS).unwrap();
        let options = ReadOptions { unread: vec![unread], ..ReadOptions::default() };
        let cluster = cluster(&input, &options).unwrap().cluster;
        let evaluation = Evaluation::new(&cluster, profile.parse().unwrap(), Options::default()).unwrap();
        let found = evaluation.explain(evaluation.pod(0).unwrap(), evaluation.pod(1).unwrap());
        let word = match &found.verdict {
            verdict if verdict.allowed.contains(Protocol::Tcp, 80) => "allowed",
            verdict if verdict.denied.contains(Protocol::Tcp, 80) => "denied",
            _ => "unknown",
        };
        (word, found.doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn policies_that_may_not_be_read_make_verdicts_unknown_and_name_the_missing_right() {
        for (group, kind, resource, profile) in [
            ("networking.k8s.io", "NetworkPolicy", "networkpolicies", "calico"),
            ("networking.k8s.io", "NetworkPolicy", "networkpolicies", "cilium"),
            ("networking.k8s.io", "NetworkPolicy", "networkpolicies", "generic"),
            ("cilium.io", "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", "cilium"),
            ("projectcalico.org", "Tier", "tiers", "calico"),
            ("crd.projectcalico.org", "GlobalNetworkPolicy", "globalnetworkpolicies", "calico"),
            ("policy.networking.k8s.io", "ClusterNetworkPolicy", "clusternetworkpolicies", "calico@3.32"),
            ("policy.networking.k8s.io", "AdminNetworkPolicy", "adminnetworkpolicies", "calico@3.31"),
            (
                "policy.networking.k8s.io",
                "BaselineAdminNetworkPolicy",
                "baselineadminnetworkpolicies",
                "calico@3.31",
            ),
        ] {
            let (word, why) = judged(unread(group, kind, resource), profile);
            assert_eq!(word, "unknown", "{kind} under {profile}");
            let right = format!("--verb=list --resource={resource}.{group}");
            assert!(why.contains(&right), "{kind} under {profile}: {why}");
        }
    }

    #[test]
    fn policies_that_the_cni_does_not_enforce_may_stay_unread() {
        for (group, kind, resource, profile) in [
            ("cilium.io", "CiliumNetworkPolicy", "ciliumnetworkpolicies", "calico"),
            ("projectcalico.org", "NetworkPolicy", "networkpolicies", "cilium"),
            ("policy.networking.k8s.io", "ClusterNetworkPolicy", "clusternetworkpolicies", "aws-vpc"),
        ] {
            assert_eq!(judged(unread(group, kind, resource), profile).0, "allowed", "{kind} under {profile}");
        }
    }
}
