//! Amazon VPC CNI with its network policy agent.
//!
//! Sources: `aws/aws-network-policy-agent` ("the agent" below), from v1.0.1, which came with VPC CNI 1.14, to v1.4.1;
//! `aws/amazon-network-policy-controller-k8s` ("the controller"); the EKS user guide, cni-network-policy. What is answered
//! here has not changed between those versions.

use super::{Answer, Fact, Version};
use crate::policy::Dialect;
use crate::truth::Truth;

/// Oldest and newest version of VPC CNI known.
pub(super) const VERSIONS: (Version, Version) = (Version(1, 14), Version(1, 21));

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[
    "network policy is enabled in the VPC CNI (enable-network-policy is off by default), on EC2 Linux nodes: policies do \
     nothing on Fargate and Windows",
    "pods are judged once their policies are in force: in standard mode a new pod's network is open for its first seconds \
     (aws-network-policy-agent issues 83 and 345); NETWORK_POLICY_ENFORCING_MODE=strict closes that gap",
    "NETWORK_POLICY_ENFORCING_MODE is standard: in strict mode a pod that no policy selects is closed rather than open",
    "pods talk over their primary interface and the cluster's IP family only: the other family is not policed, and an IPv6 \
     cluster gives pods a way out over IPv4 unless ENABLE_V4_EGRESS is false",
    "no pod's policies name more than 24 combinations of protocol and port for one peer, which is what the agent holds",
    "no other policy engine and no ClusterNetworkPolicy or ApplicationNetworkPolicy of networking.k8s.aws is in use",
];

/// What it does.
pub(super) fn fact(_: Version, fact: Fact<'_>) -> Answer {
    let (truth, why) = match fact {
        Fact::Cilium(_) => (Truth::No, "Cilium's policies are not enforced"),
        Fact::Enforces(Dialect::NetworkPolicy) => (
            Truth::Yes,
            "EKS user guide: \"Version 1.14 or later of the plugin can implement network policies\"",
        ),
        Fact::Enforces(_) => (
            Truth::No,
            "the controller resolves NetworkPolicy of networking.k8s.io and kinds of networking.k8s.aws, and nothing else",
        ),
        Fact::CidrMatchesPods(_) | Fact::CidrMatchesNodes(_) => (
            Truth::Yes,
            "the agent looks each packet's address up in one table of prefixes (pkg/ebpf/c/tc.v4egress.bpf.c), whoever has it",
        ),
        Fact::OwnNodeIsLetIn | Fact::OwnNodeIsLetOut => (
            Truth::Yes,
            "the agent: \"Traffic from the local node should always be allowed. Add NodeIP by default to map entries\"; the \
             same entries are made for ingress and egress (pkg/fwruleprocessor/fw_rule_processor.go)",
        ),
        Fact::HostNetworkIsSubject => (
            Truth::No,
            "the agent attaches its programs to the veth of pods, and the controller skips hostNetwork pods \
             (pkg/resolvers/endpoints.go, computePodSelectorEndpoints)",
        ),
        Fact::HostNetworkIsPeer(_) => (
            Truth::Yes,
            "the controller puts the address of each pod that a peer selects into the policy, which of a hostNetwork pod is \
             its node's (pkg/resolvers/endpoints.go, computeEgressEndpoints)",
        ),
        Fact::TierSeesHostNetwork(_) => {
            (Truth::No, "cluster-wide policies of policy.networking.k8s.io are not enforced at all")
        }
        Fact::PolicesOtherProtocols => (
            Truth::Yes,
            "the agent judges every IP packet: of other protocols than TCP, UDP and SCTP, those that a rule without ports \
             allows (pkg/ebpf/c/tc.v4egress.bpf.c)",
        ),
        Fact::SeesClusterIp => (
            Truth::Yes,
            "the controller: the agent \"attaches the ebpf probes to the TC hook of the pod veth interface and thus unable to \
             see the pod IP after the DNAT happens for the clusterIPs\"; it adds cluster addresses of Services whose selector \
             a peer matches (getMatchingServiceClusterIPs)",
        ),
        Fact::SeesExternalAddress | Fact::SeesOwnNodePort | Fact::SeesNodePort => (
            Truth::Yes,
            "the agent's programs are at the pod's veth, before the node translates any destination: external addresses of \
             Services, node ports and host ports are judged as the addresses that they are",
        ),
        Fact::SeesOwnNodeAsSender | Fact::SeesOtherNodeAsSender => (
            Truth::Yes,
            "kube-proxy gives what comes through a node port or an external address the node's own address as it leaves the node's \
             own network (pkg/proxy/iptables/proxier.go, KUBE-MARK-MASQ), before the agent's program at the pod's veth sees it",
        ),
        Fact::SeesClientsNodeAsSender => (
            Truth::No,
            "what a pod sends within the VPC keeps its address (amazon-vpc-cni-k8s, README, AWS_VPC_K8S_CNI_EXTERNALSNAT)",
        ),
        Fact::SeesHostPortNodeAsSender => (Truth::No, super::PORTMAP),
        Fact::PolicesHairpin => (
            Truth::Yes,
            "such traffic leaves the pod through its veth, addressed to the Service, and is judged there as any other",
        ),
        Fact::DropsLabel(_) => {
            (Truth::No, "the controller selects pods through the API server, by all of their labels")
        }
        Fact::EndPort => (Truth::Yes, "the agent compares ports with start_port and end_port since v1.0.1"),
        Fact::UndeclaredRulesCount => (
            Truth::Unknown,
            "the controller resolves rules of both directions whatever policyTypes says (pkg/resolvers/endpoints.go, Resolve); \
             what the agent makes of those that are not declared is not known",
        ),
        Fact::ExceptionHolds => (
            Truth::Unknown,
            "the agent has one table of prefixes for a pod and direction, in which an exception that is no allowed block itself \
             is an entry that denies, also to what a wider block of another rule allows (pkg/fwruleprocessor/fw_rule_processor.go, \
             ComputeMapEntriesFromEndpointRules)",
        ),
        Fact::Sctp | Fact::IsolationStopsSctp => (Truth::Yes, "the agent reads SCTP's ports since v1.0.1"),
    };
    Answer { truth, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_node_is_open_to_it_in_both_directions() {
        let newest = VERSIONS.1;
        let answers = [Fact::OwnNodeIsLetIn, Fact::OwnNodeIsLetOut].map(|asked| fact(newest, asked).truth);
        assert_eq!(answers, [Truth::Yes, Truth::Yes]);
        let enforced = Dialect::ALL.map(|dialect| fact(newest, Fact::Enforces(dialect)).truth);
        assert_eq!(enforced, [Truth::Yes, Truth::No, Truth::No, Truth::No, Truth::No]);
    }
}
