//! Calico with its iptables or nftables data plane.
//!
//! Paths name files of github.com/projectcalico/calico at the tags v3.26.0 to v3.32.1.

use super::{Answer, Fact, Version};
use crate::policy::{ClusterTier, Dialect};
use crate::truth::Truth;

/// Oldest and newest version known.
pub(super) const VERSIONS: (Version, Version) = (Version(3, 26), Version(3, 32));

/// AdminNetworkPolicy is enforced from here on, in the tier `adminnetworkpolicy` of order 1,000; so are tiers.
const ADMIN_NETWORK_POLICY: Version = Version(3, 29);
/// BaselineAdminNetworkPolicy is enforced from here on, in the tier `baselineadminnetworkpolicy` of order 10,000,000.
const BASELINE_ADMIN_NETWORK_POLICY: Version = Version(3, 30);
/// ClusterNetworkPolicy takes their place, in the tiers `kube-admin` and `kube-baseline` of the same orders.
const CLUSTER_NETWORK_POLICY: Version = Version(3, 32);

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[
    "Calico's agent runs on every node with its iptables or nftables data plane; eBPF and Windows may differ",
    "policy is enforced for every pod with a network of its own: its veth was made by Calico's CNI plugin, or by one that Calico \
     polices",
    "every Calico object was accepted by Calico's API; before 3.32 it refuses a policy whose name does not start with its \
     tier's, before 3.29 it knows no tiers",
    "the profiles of namespaces are Calico's own: what no tier decides, they allow",
    "no host endpoint with applyOnForward, preDNAT or doNotTrack policies stands in the way of pods' traffic",
    "DefaultEndpointToHostAction is Accept or Return: what egress policy allows from a pod to its own node arrives there; \
     failsafe ports concern host endpoints only",
    "nodes send to pods from the addresses that they have in the input; with IP-in-IP or VXLAN it may be a tunnel's address",
    "no Istio application layer policy: HTTP rules limit no requests",
];

/// What it does.
pub(super) fn fact(version: Version, fact: Fact<'_>) -> Answer {
    let (truth, why) = match fact {
        Fact::Cilium(_) => (Truth::No, "Calico does not enforce Cilium's policies"),
        Fact::Enforces(dialect) => return enforces(version, dialect),
        Fact::CidrMatchesPods(_) => (
            Truth::Yes,
            "Calico matches blocks against the packet's address, a pod's or not (felix/rules/policy.go, CalculateRuleMatch)",
        ),
        Fact::CidrMatchesNodes(_) => (
            Truth::Yes,
            "Calico matches blocks against the packet's address, a node's or not (felix/rules/policy.go, CalculateRuleMatch)",
        ),
        Fact::OwnNodeIsLetIn => (
            Truth::Yes,
            "Calico does not police traffic from a node to its own pods (felix/rules/static.go, filterOutputChain)",
        ),
        Fact::OwnNodeIsLetOut => (
            Truth::No,
            "Calico applies a pod's egress policy to its own node, too (felix/rules/static.go, filterWorkloadToHostChain)",
        ),
        Fact::HostNetworkIsSubject => (
            Truth::No,
            "host-network pods are no endpoints of Calico (libcalico-go/lib/backend/k8s/conversion, \
             IsValidCalicoWorkloadEndpoint)",
        ),
        Fact::HostNetworkIsPeer(_) | Fact::TierSeesHostNetwork(_) => (
            Truth::No,
            "selectors match endpoints of Calico, and host-network pods are none (libcalico-go/lib/backend/k8s/conversion, \
             IsValidCalicoWorkloadEndpoint)",
        ),
        Fact::PolicesOtherProtocols => (
            Truth::Yes,
            "at a tier's end Calico drops packets of every protocol (felix/rules/endpoints.go, endpointIptablesChain)",
        ),
        Fact::SeesClusterIp => (
            Truth::No,
            "Calico polices pods in the filter table, after a Service's address is translated (felix/rules/static.go)",
        ),
        Fact::SeesExternalAddress | Fact::SeesOwnNodePort => (
            Truth::No,
            "kube-proxy translates external addresses of Services and the node's own ports before Calico polices the packet \
             (felix/rules/static.go; kube-proxy: pkg/proxy/iptables/proxier.go, syncProxyRules)",
        ),
        Fact::SeesNodePort => (
            Truth::Yes,
            "another node's ports are translated on that node (pkg/proxy/iptables/proxier.go, syncProxyRules: \
             `--dst-type LOCAL`), after Calico has policed the pod's egress to the node",
        ),
        Fact::SeesOwnNodeAsSender => (
            Truth::No,
            "Calico polices what a node hands on to its own pods as it is forwarded (felix/rules/static.go, filterForwardChain), \
             before kube-proxy gives it the node's address (pkg/proxy/iptables/proxier.go, kubePostroutingChain)",
        ),
        Fact::SeesOtherNodeAsSender => (
            Truth::Yes,
            "what another node has translated left that node with the node's own address \
             (pkg/proxy/iptables/proxier.go, KUBE-MARK-MASQ)",
        ),
        Fact::SeesClientsNodeAsSender => (
            Truth::Unknown,
            "an IP pool with natOutgoing gives what its pods send to nodes the address of their own node, one without does not \
             (felix/rules/nat.go, makeNATOutgoingRuleIPTables)",
        ),
        Fact::SeesHostPortNodeAsSender => (Truth::No, super::PORTMAP),
        Fact::PolicesHairpin => (
            Truth::Yes,
            "a packet that comes back to its pod through a Service is forwarded and passes both chains of the pod's interface \
             (felix/rules/static.go, filterForwardChain)",
        ),
        Fact::DropsLabel(
            "projectcalico.org/namespace"
            | "projectcalico.org/orchestrator"
            | "projectcalico.org/serviceaccount",
        ) => (
            Truth::Yes,
            "Calico puts a value of its own there (libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go)",
        ),
        Fact::DropsLabel(_) => (
            Truth::No,
            "Calico copies every label of a pod (libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go)",
        ),
        Fact::EndPort => (
            Truth::Yes,
            "Calico reads endPort as a range (libcalico-go/lib/backend/k8s/conversion/conversion.go, k8sPortToCalico)",
        ),
        Fact::UndeclaredRulesCount => (
            Truth::No,
            "Calico takes a policy's types from its policyTypes (libcalico-go/lib/backend/k8s/conversion/conversion.go, \
             K8sNetworkPolicyToCalico)",
        ),
        Fact::ExceptionHolds => (
            Truth::No,
            "an exception becomes notNets of the rule that has its block (libcalico-go/lib/backend/k8s/conversion/conversion.go)",
        ),
        Fact::Sctp | Fact::IsolationStopsSctp => (
            Truth::Yes,
            "SCTP is a protocol with ports for Calico (api/pkg/lib/numorstring/protocol.go, SupportsPorts)",
        ),
    };
    Answer { truth, why }
}

/// Whether (Baseline)AdminNetworkPolicy of a tier is enforced: 3.29 knows the first and not the second.
pub(super) fn enforces_tier(version: Version, tier: ClusterTier) -> Answer {
    let only_admin = (ADMIN_NETWORK_POLICY..BASELINE_ADMIN_NETWORK_POLICY).contains(&version);
    match tier {
        ClusterTier::Admin if only_admin => Answer {
            truth: Truth::Yes,
            why: "Calico 3.29 enforces AdminNetworkPolicy, in the tier adminnetworkpolicy (order 1000) \
                  (api/pkg/apis/projectcalico/v3/tier.go)",
        },
        ClusterTier::Baseline if only_admin => Answer {
            truth: Truth::No,
            why: "Calico 3.29 does not read BaselineAdminNetworkPolicy; 3.30 and 3.31 do",
        },
        _ => enforces(version, Dialect::AdminNetworkPolicy),
    }
}

fn enforces(version: Version, dialect: Dialect) -> Answer {
    let (truth, why) = match dialect {
        Dialect::NetworkPolicy => (
            Truth::Yes,
            "Calico enforces NetworkPolicy, at order 1000 of its tier `default` (libcalico-go/lib/backend/k8s/conversion, \
             K8sNetworkPolicyToCalico)",
        ),
        Dialect::Calico => (Truth::Yes, "Calico enforces its own policies"),
        Dialect::Cilium => (Truth::No, "Calico does not read Cilium's policies"),
        Dialect::ClusterNetworkPolicy if version >= CLUSTER_NETWORK_POLICY => (
            Truth::Yes,
            "from 3.32 on Calico enforces ClusterNetworkPolicy, in the tiers kube-admin (order 1000) and kube-baseline (order \
             10000000) (libcalico-go/lib/backend/k8s/conversion/clusternetworkpolicy.go)",
        ),
        Dialect::ClusterNetworkPolicy => (Truth::No, "before 3.32 Calico does not read ClusterNetworkPolicy"),
        Dialect::AdminNetworkPolicy if version >= CLUSTER_NETWORK_POLICY => (
            Truth::No,
            "from 3.32 on Calico reads ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy no more",
        ),
        Dialect::AdminNetworkPolicy if version >= BASELINE_ADMIN_NETWORK_POLICY => (
            Truth::Yes,
            "from 3.30 to 3.31 Calico enforces AdminNetworkPolicy and BaselineAdminNetworkPolicy, in the tiers \
             adminnetworkpolicy (order 1000) and baselineadminnetworkpolicy (order 10000000) \
             (api/pkg/apis/projectcalico/v3/tier.go)",
        ),
        Dialect::AdminNetworkPolicy if version >= ADMIN_NETWORK_POLICY => (
            Truth::Unknown,
            "Calico 3.29 enforces AdminNetworkPolicy, in the tier adminnetworkpolicy (order 1000), and not \
             BaselineAdminNetworkPolicy (api/pkg/apis/projectcalico/v3/tier.go)",
        ),
        Dialect::AdminNetworkPolicy => (Truth::No, "before 3.29 Calico does not read AdminNetworkPolicy"),
    };
    Answer { truth, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_cluster_wide_kinds_are_enforced_changes_with_the_version() {
        let row = |minor| {
            [Dialect::AdminNetworkPolicy, Dialect::ClusterNetworkPolicy]
                .map(|dialect| fact(Version(3, minor), Fact::Enforces(dialect)).truth)
        };
        assert_eq!(row(26), [Truth::No, Truth::No]);
        assert_eq!(row(28), [Truth::No, Truth::No]);
        assert_eq!(row(29), [Truth::Unknown, Truth::No]);
        assert_eq!(row(30), [Truth::Yes, Truth::No]);
        assert_eq!(row(31), [Truth::Yes, Truth::No]);
        assert_eq!(row(32), [Truth::No, Truth::Yes]);
    }

    #[test]
    fn every_answer_says_where_it_comes_from() {
        for minor in 26..=32 {
            for dialect in Dialect::ALL {
                for ask in [Fact::Enforces(dialect), Fact::CidrMatchesPods(dialect)] {
                    let answer = fact(Version(3, minor), ask);
                    assert!(answer.why.contains("Calico"), "{ask:?}: {}", answer.why);
                }
            }
        }
    }
}
