//! Any conforming implementation of NetworkPolicy: definite where the specification or every known implementation agrees.
//!
//! Sources: the Kubernetes documentation, concepts/services-networking/network-policies ("the documentation" below); the types
//! of `sigs.k8s.io/network-policy-api` v0.2.0 ("the API"); the other profiles, whose sources are theirs.

use super::{Answer, Fact, Version};
use crate::policy::{ClusterTier, Dialect};
use crate::truth::Truth;

/// Oldest and newest version of Kubernetes known.
pub(super) const VERSIONS: (Version, Version) = (Version(1, 25), Version(1, 35));

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[
    "a network plugin that enforces NetworkPolicy runs on every node, and no pod has a second network",
    "pods are judged once their policies are in force: a plugin may open a new pod's network some seconds before that",
    "replies to a connection pass, and connections that were open before a policy changed may stay open",
    "traffic is judged between the addresses of the two ends: nothing but a Service's node ports and external addresses rewrites \
     the source address on the way",
];

/// What it does. The version of Kubernetes makes no difference: what differs is the plugin.
pub(super) fn fact(_: Version, fact: Fact<'_>) -> Answer {
    let (truth, why) = match fact {
        Fact::Cilium(_) => (Truth::Unknown, "which version of Cilium, if any, is not said"),
        Fact::Enforces(Dialect::NetworkPolicy) => (
            Truth::Yes,
            "assumed: the documentation wants \"a networking solution which supports NetworkPolicy\"; without one a policy \
             has no effect",
        ),
        Fact::Enforces(Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy) => (
            Truth::Unknown,
            "some plugins implement the cluster-wide policies of policy.networking.k8s.io and some do not; choose a profile",
        ),
        Fact::Enforces(Dialect::Cilium) => (
            Truth::Unknown,
            "only Cilium enforces policies of cilium.io; choose the profile cilium if it runs here",
        ),
        Fact::Enforces(Dialect::Calico) => (
            Truth::Unknown,
            "only Calico enforces policies of projectcalico.org; choose the profile calico if it runs here",
        ),
        Fact::CidrMatchesPods(dialect) | Fact::CidrMatchesNodes(dialect) => cidr(dialect, fact),
        Fact::OwnNodeIsLetIn => (
            Truth::Yes,
            "the documentation: \"traffic to and from the node where a Pod is running is always allowed, regardless of the \
             IP address of the Pod or the node\"; all known plugins let it in by default, since the kubelet's probes need it",
        ),
        Fact::OwnNodeIsLetOut => (
            Truth::Unknown,
            "the documentation says that traffic to a pod's own node is always allowed; the AWS VPC CNI does so, and Cilium \
             and Calico judge it by policies",
        ),
        Fact::HostNetworkIsSubject => (
            Truth::Unknown,
            "the documentation: \"NetworkPolicy behaviour for hostNetwork pods is undefined\"; most plugins ignore them",
        ),
        Fact::HostNetworkIsPeer(Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy)
        | Fact::TierSeesHostNetwork(ClusterTier::Admin | ClusterTier::Baseline) => {
            (Truth::No, "the API: \"Note that host-networked pods are not included in this type of peer\"")
        }
        Fact::HostNetworkIsPeer(_) => (
            Truth::Unknown,
            "the documentation: a plugin may tell hostNetwork pods apart and \"apply NetworkPolicy to hostNetwork pods just \
             like it does to pod-network pods\", or ignore them when matching selectors and treat them as their node",
        ),
        Fact::PolicesOtherProtocols => (
            Truth::Unknown,
            "the documentation: a deny all policy \"is only guaranteed to deny TCP, UDP and SCTP connections. For other \
             protocols, such as ARP or ICMP, the behaviour is undefined\"",
        ),
        Fact::SeesClusterIp => (
            Truth::Unknown,
            "the documentation: where addresses are rewritten, \"it is not defined whether this happens before or after \
             NetworkPolicy processing\"; the AWS VPC CNI sees cluster addresses, Calico and Cilium see backends",
        ),
        Fact::SeesExternalAddress => (
            Truth::Unknown,
            "it is not defined whether an external address of a Service is translated before or after policies are asked; the AWS \
             VPC CNI sees the address, Calico sees the backend",
        ),
        Fact::SeesOwnNodePort => (
            Truth::Unknown,
            "it is not defined whether a port of the pod's own node is translated before or after policies are asked; the AWS VPC \
             CNI sees the node, Calico sees the backend",
        ),
        Fact::SeesNodePort => (
            Truth::Unknown,
            "it is not defined whether a port of another node is translated before or after policies are asked; Calico sees the \
             node, Cilium's socket load balancer the backend",
        ),
        Fact::SeesOwnNodeAsSender => (
            Truth::Unknown,
            "the API of Services: with externalTrafficPolicy Cluster a client's address may be masqueraded; the AWS VPC CNI and \
             Antrea then see the node, which may always connect to its pods, and Calico sees the client",
        ),
        Fact::SeesOtherNodeAsSender => (
            Truth::Unknown,
            "kube-proxy gives what another node hands on that node's address; Cilium in tunneling mode keeps the client's identity",
        ),
        Fact::SeesClientsNodeAsSender => (
            Truth::Unknown,
            "whether what a pod sends to another node is masqueraded is not defined; Calico does so for pools with natOutgoing, and \
             the AWS VPC CNI does not",
        ),
        Fact::SeesHostPortNodeAsSender => (
            Truth::Unknown,
            "it is not defined whether a host port keeps the client's address; the CNI plugin portmap does",
        ),
        Fact::PolicesHairpin => (
            Truth::Unknown,
            "network-policy-api issue 390: a pod's traffic to itself through a Service is implementation-defined for \
             NetworkPolicy",
        ),
        Fact::DropsLabel(label) if kept_by_all(label) => {
            (Truth::No, "no known plugin leaves this label out of a pod's identity")
        }
        Fact::DropsLabel(_) => (
            Truth::Unknown,
            "Cilium leaves labels of Kubernetes itself and of its controllers out of a pod's identity \
             (pkg/labelsfilter/filter.go); other plugins match them",
        ),
        Fact::EndPort => (
            Truth::Unknown,
            "the documentation: where the plugin does not support endPort, \"the policy will be applied only for the single \
             port field\"",
        ),
        Fact::UndeclaredRulesCount => (
            Truth::Unknown,
            "by the specification a direction that policyTypes does not name is left as it is; Cilium applies its rules all the \
             same (issue 48703)",
        ),
        Fact::ExceptionHolds => (
            Truth::Unknown,
            "by the specification an exception is one of its own block only; the AWS VPC CNI keeps it out of every wider block of \
             the pod's policies",
        ),
        Fact::Sctp | Fact::IsolationStopsSctp => (
            Truth::Unknown,
            "the documentation: \"a CNI plugin that supports SCTP protocol NetworkPolicies\" is needed",
        ),
    };
    Answer { truth, why }
}

fn cidr(dialect: Dialect, fact: Fact<'_>) -> (Truth, &'static str) {
    match (dialect, fact) {
        (Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy, _) => (
            Truth::Yes,
            "the API: \"cluster-internal traffic will be checked against the rule as well\", so that 0.0.0.0/0 is all IPv4 \
             pod-to-pod traffic too",
        ),
        (_, Fact::CidrMatchesNodes(_)) => (
            Truth::Unknown,
            "Calico and the AWS VPC CNI match nodes by their address; Cilium matches them only by entity unless \
             policy-cidr-match-mode says otherwise",
        ),
        _ => (
            Truth::Unknown,
            "the documentation: blocks \"should be cluster-external IPs\"; Calico and the AWS VPC CNI match pods by their \
             address too, Cilium does not",
        ),
    }
}

/// Whether every known plugin matches this label of a pod: it is neither of Kubernetes itself nor made by a controller.
fn kept_by_all(label: &str) -> bool {
    let (prefix, name) = label.split_once('/').unwrap_or(("", label));
    let of_kubernetes = ["kubernetes.io", "k8s.io", "io.kubernetes"].iter().any(|own| prefix.contains(own));
    let of_controllers = [
        "annotation",
        "controller-revision-hash",
        "etcd_node",
        "io.kubernetes",
        "k8s.io",
        "kubernetes.io",
        "pod-template-",
    ]
    .iter()
    .any(|start| name.starts_with(start));
    prefix == "app.kubernetes.io" || !(of_kubernetes || of_controllers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_kubernetes_itself_is_not_relied_on() {
        let drops = |label| fact(VERSIONS.1, Fact::DropsLabel(label)).truth;
        for kept in ["app", "app.kubernetes.io/name", "mpegflow.io/pool", "statefulset.example.com/x", "tier"]
        {
            assert_eq!(drops(kept), Truth::No, "{kept}");
        }
        for doubtful in [
            "pod-template-hash",
            "pod-template-generation",
            "controller-revision-hash",
            "statefulset.kubernetes.io/pod-name",
            "topology.kubernetes.io/zone",
            "batch.kubernetes.io/job-completion-index",
            "x.k8s.io/y",
            "io.kubernetes.pod.namespace",
        ] {
            assert_eq!(drops(doubtful), Truth::Unknown, "{doubtful}");
        }
    }
}
