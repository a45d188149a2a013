//! Cilium with its eBPF data plane, on Kubernetes.
//!
//! Paths name files of github.com/cilium/cilium at the tags v1.13.0 to v1.19.0.

use super::{Answer, CiliumChange, Fact, Version};
use crate::policy::Dialect;
use crate::truth::Truth;

/// Oldest and newest version known.
pub(super) const VERSIONS: (Version, Version) = (Version(1, 13), Version(1, 19));

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[
    "Cilium's agent runs on every node, and every pod with a network of its own is its endpoint: no pod is older than Cilium",
    "policy is enforced: enable-policy is default, policy-audit-mode is off, no endpoint has enforcement switched off",
    "policy-cidr-match-mode is unset: blocks of addresses match neither pods nor nodes",
    "the label filter is Cilium's own: no --labels and no --label-prefix-file",
    "allow-localhost is auto, which on Kubernetes lets a node reach its own pods always",
    "the host firewall is off: policies do not apply to nodes and host-network pods",
    "remote nodes have an identity of their own (before 1.16, enable-remote-node-identity is on)",
    "the cluster is in no cluster mesh; policy-default-local-cluster is as its version sets it",
    "Cilium itself translates Services for pods, with or without its replacement of kube-proxy",
    "extended IP protocols are off: packets other than TCP, UDP, SCTP and ICMP are dropped by the data plane",
    "the L7 proxy is on, and enable-icmp-rules and enable-non-default-deny-policies are on, as they are by default",
    "every Cilium policy in the input was accepted by the custom resource's schema; what an agent refuses has no effect",
];

/// `endPort`, `enableDefaultDeny`, empty lists as nobody, namespace labels across namespaces.
const V1_16: Version = Version(1, 16);
/// Denials and empty policies are checked, Services are matched by selector, CIDR groups by label.
const V1_17: Version = Version(1, 17);

/// What it does.
pub(super) fn fact(version: Version, fact: Fact<'_>) -> Answer {
    let (truth, why) = match fact {
        Fact::Enforces(Dialect::NetworkPolicy | Dialect::Cilium) => (
            Truth::Yes,
            "Cilium enforces NetworkPolicy and its own policies (Documentation/network/kubernetes/policy.rst)",
        ),
        Fact::Enforces(Dialect::ClusterNetworkPolicy | Dialect::AdminNetworkPolicy) => (
            Truth::No,
            "up to 1.19 nothing in Cilium reads the kinds of policy.networking.k8s.io (pkg/policy/k8s/watcher.go)",
        ),
        Fact::Enforces(Dialect::Calico) => {
            (Truth::No, "Cilium does not read Calico's kinds (pkg/policy/k8s/watcher.go)")
        }
        Fact::CidrMatchesPods(_) => (
            Truth::No,
            "CIDR rules do not apply between endpoints that Cilium manages (Documentation/security/policy/language.rst, IP/CIDR based)",
        ),
        Fact::CidrMatchesNodes(_) => (
            Truth::No,
            "by default CIDR rules match no nodes; policy-cidr-match-mode is unset \
             (Documentation/security/policy/language.rst, Selecting nodes with CIDR)",
        ),
        Fact::OwnNodeIsLetIn => (
            Truth::Yes,
            "with allow-localhost=auto on Kubernetes the local host reaches its pods (pkg/policy/mapstate.go, \
             determineAllowLocalhostIngress)",
        ),
        Fact::OwnNodeIsLetOut => (
            Truth::No,
            "a pod's egress to its node is policed as the entity host (pkg/policy/mapstate.go exempts ingress only)",
        ),
        Fact::HostNetworkIsSubject => (
            Truth::No,
            "without the host firewall no policy applies to the host (pkg/policy/repository.go, \
             computePolicyEnforcementAndRules)",
        ),
        Fact::HostNetworkIsPeer(_) | Fact::TierSeesHostNetwork(_) => (
            Truth::No,
            "host-network pods have their node's identity (Documentation/security/policy/language.rst, entities host and \
             remote-node)",
        ),
        Fact::PolicesOtherProtocols => (
            Truth::Yes,
            "packets of other protocols are dropped by connection tracking, whatever policies say (bpf/lib/conntrack.h, \
             DROP_CT_UNKNOWN_PROTO)",
        ),
        Fact::SeesClusterIp => (
            Truth::No,
            "a Service's address is translated before policy is asked (bpf/bpf_lxc.c, __per_packet_lb_svc_xlate_4)",
        ),
        Fact::SeesExternalAddress => (
            Truth::Unknown,
            "Cilium translates external addresses of Services before policy is asked where it replaces kube-proxy, and leaves \
             them to kube-proxy, after policy, where it does not (bpf/bpf_lxc.c; Documentation/network/kubernetes/kubeproxy-free.rst)",
        ),
        Fact::SeesOwnNodePort | Fact::SeesNodePort => (
            Truth::Unknown,
            "where Cilium replaces kube-proxy, its socket load balancer translates node ports of every node before policy is \
             asked (bpf/bpf_sock.c, sock4_wildcard_lookup); elsewhere policy is asked about the node",
        ),
        Fact::SeesOwnNodeAsSender => (
            Truth::Unknown,
            "where Cilium replaces kube-proxy, a client whose packet comes to the node of the pod is `world` \
             (Documentation/security/policy/caveats.rst, Security Identity for N/S Service Traffic); elsewhere kube-proxy gives the \
             packet the node's address, which is always let in",
        ),
        Fact::SeesOtherNodeAsSender => (
            Truth::Unknown,
            "what comes to another node has the identity `world` in tunneling mode and `remote-node` in native routing \
             (Documentation/security/policy/caveats.rst, Security Identity for N/S Service Traffic)",
        ),
        Fact::SeesClientsNodeAsSender => (
            Truth::Unknown,
            "whether what a pod sends to a node is masqueraded depends on how masquerading is set up \
             (Documentation/network/concepts/masquerading.rst)",
        ),
        Fact::SeesHostPortNodeAsSender => (
            Truth::Unknown,
            "a host port keeps the client's address, but for pods of the same node where the CNI plugin portmap opens it: Cilium gives \
             what comes back to its node that way the node's address (commit a6943004580e, datapath/iptables)",
        ),
        Fact::PolicesHairpin => (
            Truth::No,
            "traffic that loops back to its pod through a Service skips policy (bpf/bpf_lxc.c, ct_state loopback)",
        ),
        Fact::DropsLabel(key) => return drops(version, key),
        Fact::EndPort => since(
            version,
            V1_16,
            "endPort is honoured from 1.16 on (pkg/policy/api/l4.go, pkg/k8s/network_policy.go)",
            "before 1.16 endPort is ignored and the first port alone counts (pkg/k8s/watchers/network_policy.go)",
        ),
        Fact::Sctp => (
            Truth::Unknown,
            "SCTP needs enable-sctp, which is off by default; the input does not tell (pkg/defaults/defaults.go)",
        ),
        Fact::IsolationStopsSctp => (
            Truth::Yes,
            "without enable-sctp connection tracking drops SCTP as a protocol that it does not know, and with it policy is asked \
             (bpf/lib/conntrack.h, DROP_CT_UNKNOWN_PROTO unless ENABLE_SCTP)",
        ),
        Fact::UndeclaredRulesCount => (
            Truth::Yes,
            "up to 1.19 Cilium applies rules of both directions whatever policyTypes says (pkg/k8s/network_policy.go, \
             ParseNetworkPolicy; issue 48703)",
        ),
        Fact::ExceptionHolds => (
            Truth::No,
            "an exception is a label that its own block's selector must not find (pkg/policy/api/cidr.go, GetAsEndpointSelectors)",
        ),
        Fact::Cilium(change) => return changed(version, change),
    };
    Answer { truth, why }
}

/// Whether a change has come.
fn changed(version: Version, change: CiliumChange) -> Answer {
    let (truth, why) = match change {
        CiliumChange::WorldByFamily => since(
            version,
            Version(1, 15),
            "in dual stack, 0.0.0.0/0 is reserved:world-ipv4 from 1.15 on (pkg/labels/labels.go, IDNameWorldIPv4)",
            "before 1.15, 0.0.0.0/0 and ::/0 are both the one label reserved:world (pkg/labels/cidr)",
        ),
        CiliumChange::EmptyListIsNobody => since(
            version,
            V1_16,
            "an empty list of peers selects nobody from 1.16 on (pkg/policy/api/egress.go, getAggregatedSelectors; #29608)",
            "before 1.16 an empty list of peers beside toPorts means any peer (pkg/policy/rule.go, mergeEgress)",
        ),
        CiliumChange::DefaultDenyField => since(
            version,
            V1_16,
            "enableDefaultDeny is known from 1.16 on (pkg/policy/api/rule.go)",
            "before 1.16 the schema does not know enableDefaultDeny and drops it",
        ),
        CiliumChange::ChecksEverySection => since(
            version,
            V1_17,
            "from 1.17 on a rule without sections and a faulty deny rule are rejected (pkg/policy/api/rule_validation.go)",
            "before 1.17 neither empty sections nor deny rules are checked (pkg/policy/api/rule_validation.go)",
        ),
        CiliumChange::ServicesBySelector => since(
            version,
            V1_17,
            "from 1.17 on toServices selects the pods of Services with a selector (pkg/policy/k8s/service.go, processRule)",
            "before 1.17 toServices means Services without a selector only (Documentation/security/policy/language.rst)",
        ),
        CiliumChange::ServicesWithPorts if version < Version(1, 14) || version >= V1_17 => (
            Truth::Yes,
            "toServices may stand beside toPorts in 1.13 and from 1.17 on (pkg/policy/api/rule_validation.go)",
        ),
        CiliumChange::ServicesWithPorts => (
            Truth::No,
            "1.14 to 1.16 reject toServices beside toPorts (pkg/policy/api/rule_validation.go; #20067)",
        ),
        CiliumChange::NamespaceLabelsSpan => since(
            version,
            V1_16,
            "from 1.16 on a selector of namespace labels is not bound to the policy's namespace \
             (pkg/k8s/apis/cilium.io/utils/utils.go, getEndpointSelector)",
            "before 1.16 a selector that names no namespace means the policy's own \
             (pkg/k8s/apis/cilium.io/utils/utils.go, getEndpointSelector)",
        ),
        CiliumChange::CidrGroups if version >= V1_17 => (
            Truth::Yes,
            "from 1.17 on a CiliumCIDRGroup is a label of its addresses (pkg/policy/k8s/cilium_cidr_group.go)",
        ),
        CiliumChange::CidrGroups => (
            Truth::Unknown,
            "before 1.17 a CiliumCIDRGroup is not followed in every place; it is not modelled",
        ),
        CiliumChange::LocalClusterOnly => since(
            version,
            Version(1, 19),
            "from 1.19 on policy-default-local-cluster is on: selectors mean endpoints of this cluster \
             (pkg/clustermesh/types/option.go)",
            "before 1.19 a selector of negations alone also matches the world and the nodes \
             (pkg/k8s/apis/cilium.io/utils/utils.go, getEndpointSelector)",
        ),
        CiliumChange::SubdomainPattern => since(
            version,
            Version(1, 19),
            "`**.` stands for one or more labels from 1.19 on (pkg/fqdn/matchpattern/matchpattern.go)",
            "before 1.19 `**` is no more than `*` (pkg/fqdn/matchpattern/matchpattern.go)",
        ),
    };
    Answer { truth, why }
}

fn since(version: Version, first: Version, yes: &'static str, no: &'static str) -> (Truth, &'static str) {
    if version >= first { (Truth::Yes, yes) } else { (Truth::No, no) }
}

/// Starts of labels that are no part of an identity, with the version that began to leave them out. The expressions are
/// anchored at the key's start (pkg/labelsfilter/filter.go, LabelPrefix.matches).
const DROPPED: &[(&str, Version)] = &[
    ("io.kubernetes", Version(1, 13)),
    ("kubernetes.io", Version(1, 13)),
    ("k8s.io", Version(1, 13)),
    ("pod-template-generation", Version(1, 13)),
    ("pod-template-hash", Version(1, 13)),
    ("controller-revision-hash", Version(1, 13)),
    ("annotation", Version(1, 13)),
    ("etcd_node", Version(1, 13)),
    ("statefulset.kubernetes.io/pod-name", Version(1, 15)),
    ("apps.kubernetes.io/pod-index", Version(1, 15)),
    ("batch.kubernetes.io/job-completion-index", Version(1, 15)),
    ("batch.kubernetes.io/controller-uid", Version(1, 16)),
    ("controller-uid", Version(1, 16)),
    ("topology.kubernetes.io", Version(1, 19)),
];

fn drops(version: Version, key: &str) -> Answer {
    const WHY: &str = "Cilium leaves this label out of identities, so that no selector sees it (pkg/labelsfilter/filter.go, \
                       defaultLabelPrefixCfg)";
    // A pod cannot give itself the labels that Cilium gives it (pkg/k8s/utils/utils.go, RemoveCiliumLabels).
    let own = key.starts_with("io.cilium.k8s");
    let listed = DROPPED.iter().any(|(start, since)| version >= *since && key.starts_with(start));
    let dropped = own || listed || key.contains("beta.kubernetes.io");
    if dropped && !key.starts_with("app.kubernetes.io") {
        return Answer { truth: Truth::Yes, why: WHY };
    }
    Answer {
        truth: Truth::No,
        why: "Cilium makes this label a part of the pod's identity (pkg/labelsfilter/filter.go)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(minor: u16, fact_: Fact<'_>) -> Truth {
        fact(Version(1, minor), fact_).truth
    }

    #[test]
    fn labels_that_the_filter_drops_depend_on_the_version() {
        // pkg/labelsfilter/filter.go at each tag, defaultLabelPrefixCfg.
        for (key, first) in [
            ("pod-template-hash", Some(13)),
            ("kubernetes.io/hostname", Some(13)),
            ("node.beta.kubernetes.io/x", Some(13)),
            ("io.cilium.k8s.policy.serviceaccount", Some(13)),
            ("statefulset.kubernetes.io/pod-name", Some(15)),
            ("controller-uid", Some(16)),
            ("topology.kubernetes.io/zone", Some(19)),
            ("app.kubernetes.io/name", None),
            ("app", None),
            ("example.com/kubernetes.io", None),
        ] {
            for minor in 13..=19 {
                let dropped = first.is_some_and(|first| minor >= first);
                assert_eq!(truth(minor, Fact::DropsLabel(key)), Truth::from(dropped), "{key} 1.{minor}");
            }
        }
    }

    #[test]
    fn services_beside_ports_were_refused_for_three_versions() {
        // pkg/policy/api/rule_validation.go: l3DependentL4Support["ToServices"] is true, false, false, false, true, true, true.
        let fact = Fact::Cilium(CiliumChange::ServicesWithPorts);
        let answers: Vec<bool> = (13..=19).map(|minor| truth(minor, fact).must()).collect();
        assert_eq!(answers, [true, false, false, false, true, true, true]);
    }

    #[test]
    fn the_cluster_wide_kinds_of_kubernetes_are_not_enforced() {
        for minor in 13..=19 {
            assert_eq!(truth(minor, Fact::Enforces(Dialect::ClusterNetworkPolicy)), Truth::No);
            assert_eq!(truth(minor, Fact::Enforces(Dialect::AdminNetworkPolicy)), Truth::No);
            assert_eq!(truth(minor, Fact::Enforces(Dialect::Cilium)), Truth::Yes);
        }
    }
}
