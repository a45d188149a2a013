//! Kinds that are known and of no concern here, and groups whose every kind may be a policy.

/// What a kind that nothing here reads means for an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// It makes no pods and no policies.
    None,
    /// It is, or may be, a policy or a network that verdicts depend on.
    Policy,
    /// Nobody knows: it may make pods.
    Unknown,
}

/// Groups of which everything that is not read may change what passes.
const POLICY_GROUPS: &[&str] = &[
    "cilium.io",
    "crd.antrea.io",
    "crd.projectcalico.org",
    "extensions",
    "k8s.cni.cncf.io",
    "k8s.ovn.org",
    "networking.gke.io",
    "networking.k8s.aws",
    "networking.k8s.io",
    "policy.linkerd.io",
    "policy.networking.k8s.io",
    "projectcalico.org",
    "security.istio.io",
    "vpcresources.k8s.aws",
];

/// Kinds of those groups that change nothing: state that agents keep, address pools, routing, ingress.
const HARMLESS_OF_POLICY_GROUPS: &[(&str, &[&str])] = &[
    (
        "cilium.io",
        &[
            "CiliumBGPAdvertisement",
            "CiliumBGPClusterConfig",
            "CiliumBGPNodeConfig",
            "CiliumBGPNodeConfigOverride",
            "CiliumBGPPeerConfig",
            "CiliumBGPPeeringPolicy",
            "CiliumEndpointSlice",
            "CiliumExternalWorkload",
            "CiliumGatewayClassConfig",
            "CiliumIdentity",
            "CiliumL2AnnouncementPolicy",
            "CiliumLoadBalancerIPPool",
            "CiliumNode",
            "CiliumNodeConfig",
            "CiliumPodIPPool",
        ],
    ),
    (
        "crd.projectcalico.org",
        &[
            "BGPConfiguration",
            "BGPFilter",
            "BGPPeer",
            "BlockAffinity",
            "CalicoNodeStatus",
            "ClusterInformation",
            "FelixConfiguration",
            "IPAMBlock",
            "IPAMConfig",
            "IPAMHandle",
            "IPPool",
            "IPReservation",
            "KubeControllersConfiguration",
        ],
    ),
    (
        "projectcalico.org",
        &[
            "BGPConfiguration",
            "BGPFilter",
            "BGPPeer",
            "BlockAffinity",
            "CalicoNodeStatus",
            "ClusterInformation",
            "FelixConfiguration",
            "IPAMConfiguration",
            "IPPool",
            "IPReservation",
            "KubeControllersConfiguration",
        ],
    ),
    ("networking.k8s.io", &["IPAddress", "Ingress", "IngressClass", "ServiceCIDR"]),
];

/// Kinds of the core group that make no pods and no policies.
const HARMLESS_OF_CORE: &[&str] = &[
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Event",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ResourceQuota",
    "Secret",
];

/// Groups that make no pods and no policies. `argoproj.io` is not among them: a Rollout and a Workflow make pods.
const HARMLESS_GROUPS: &[&str] = &[
    "acme.cert-manager.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "autoscaling.k8s.io",
    "certificates.k8s.io",
    "cert-manager.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "external-secrets.io",
    "flowcontrol.apiserver.k8s.io",
    "gateway.networking.k8s.io",
    "helm.toolkit.fluxcd.io",
    "keda.sh",
    "kustomize.toolkit.fluxcd.io",
    "metrics.k8s.io",
    "mpegflow.io",
    "networking.istio.io",
    "node.k8s.io",
    "notification.toolkit.fluxcd.io",
    "operator.tigera.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "snapshot.storage.k8s.io",
    "source.toolkit.fluxcd.io",
    "storage.k8s.io",
    "traefik.io",
];

/// Kinds of groups that also hold kinds which make pods or policies.
const HARMLESS_KINDS: &[(&str, &[&str])] = &[
    ("apps", &["ControllerRevision"]),
    ("argoproj.io", &["AppProject", "Application", "ApplicationSet"]),
    // Their operator makes pods of Prometheus, Alertmanager and ThanosRuler.
    (
        "monitoring.coreos.com",
        &["PodMonitor", "Probe", "PrometheusRule", "ScrapeConfig", "ServiceMonitor", "AlertmanagerConfig"],
    ),
];

/// Whether a group's kinds may change what passes.
pub fn is_policy_group(group: &str) -> bool {
    POLICY_GROUPS.contains(&group)
}

/// Whether a kind is, or may be, something that verdicts depend on; a reader of a live cluster leaves out the rest.
pub fn concerns_policies(group: &str, kind: &str) -> bool {
    group == "mpegflow.io" || (is_policy_group(group) && concern(group, kind) != Concern::None)
}

/// What a kind that nothing reads means.
pub(super) fn concern(group: &str, kind: &str) -> Concern {
    let listed =
        |table: &[(&str, &[&str])]| table.iter().any(|(g, kinds)| *g == group && kinds.contains(&kind));
    if POLICY_GROUPS.contains(&group) {
        return if listed(HARMLESS_OF_POLICY_GROUPS) { Concern::None } else { Concern::Policy };
    }
    let harmless = (group.is_empty() && HARMLESS_OF_CORE.contains(&kind))
        || HARMLESS_GROUPS.contains(&group)
        || listed(HARMLESS_KINDS);
    if harmless { Concern::None } else { Concern::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_policy_is_never_taken_for_harmless() {
        assert_eq!(concern("networking.k8s.io", "Ingress"), Concern::None);
        assert_eq!(concern("networking.k8s.io", "NetworkPolicy"), Concern::Policy);
        assert_eq!(concern("crd.antrea.io", "ClusterNetworkPolicy"), Concern::Policy);
        assert_eq!(concern("k8s.cni.cncf.io", "NetworkAttachmentDefinition"), Concern::Policy);
        assert_eq!(concern("argoproj.io", "Rollout"), Concern::Unknown);
        assert_eq!(concern("argoproj.io", "Application"), Concern::None);
        assert_eq!(concern("", "Podd"), Concern::Unknown);
    }
}
