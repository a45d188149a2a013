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

/// Groups that make no pods and no policies. `argoproj.io` is not among them: a Rollout and a Workflow make pods, an Application
/// makes whatever its repository holds, and so do a HelmRelease and a Kustomization of Flux.
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
    "metrics.k8s.io",
    "mpegflow.io",
    "networking.istio.io",
    "node.k8s.io",
    "notification.toolkit.fluxcd.io",
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
    ("argoproj.io", &["AppProject"]),
    // A ScaledJob makes pods, and is read as what it is.
    ("keda.sh", &["ClusterTriggerAuthentication", "ScaledObject", "TriggerAuthentication"]),
    // Their operator makes pods of Prometheus, Alertmanager and ThanosRuler.
    (
        "monitoring.coreos.com",
        &["PodMonitor", "Probe", "PrometheusRule", "ScrapeConfig", "ServiceMonitor", "AlertmanagerConfig"],
    ),
    ("operator.tigera.io", &["ImageSet", "TigeraStatus"]),
];

/// Kinds without a namespace, of the groups that a manifest commonly holds. Of a kind that is not among them an object without a
/// namespace is taken for one in `default`, which makes one kind's objects equal or unequal as kubectl does.
const CLUSTER_WIDE: &[(&str, &[&str])] = &[
    ("", &["ComponentStatus", "Namespace", "Node", "PersistentVolume"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("certificates.k8s.io", &["CertificateSigningRequest"]),
    ("cert-manager.io", &["ClusterIssuer"]),
    (
        "cilium.io",
        &[
            "CiliumCIDRGroup",
            "CiliumClusterwideEnvoyConfig",
            "CiliumClusterwideNetworkPolicy",
            "CiliumEgressGatewayPolicy",
            "CiliumIdentity",
            "CiliumLoadBalancerIPPool",
            "CiliumNode",
        ],
    ),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("gateway.networking.k8s.io", &["GatewayClass"]),
    ("networking.k8s.io", &["IPAddress", "IngressClass", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("operator.tigera.io", &["APIServer", "ImageSet", "Installation", "TigeraStatus"]),
    (
        "policy.networking.k8s.io",
        &["AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"],
    ),
    (
        "projectcalico.org",
        &[
            "BGPConfiguration",
            "BGPPeer",
            "ClusterInformation",
            "FelixConfiguration",
            "GlobalNetworkPolicy",
            "GlobalNetworkSet",
            "HostEndpoint",
            "IPPool",
            "Profile",
            "StagedGlobalNetworkPolicy",
            "Tier",
        ],
    ),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"]),
];

/// Whether objects of a kind have no namespace. Calico's kinds go by `projectcalico.org`.
pub(super) fn is_cluster_wide(group: &str, kind: &str) -> bool {
    CLUSTER_WIDE.iter().any(|(g, kinds)| *g == group && kinds.contains(&kind))
}

/// Whether a group's kinds may change what passes.
fn is_policy_group(group: &str) -> bool {
    POLICY_GROUPS.contains(&group)
}

/// Whether a kind is, or may be, something that verdicts depend on; a reader of a live cluster leaves out the rest.
pub fn concerns_policies(group: &str, kind: &str) -> bool {
    group == "mpegflow.io"
        || (group, kind) == ("keda.sh", "ScaledJob")
        || (group, kind) == ("operator.tigera.io", "Installation")
        || (is_policy_group(group) && concern(group, kind) != Concern::None)
}

/// Whether anything of a group is to be read of a live cluster.
pub fn is_group_of_concern(group: &str) -> bool {
    is_policy_group(group) || ["keda.sh", "mpegflow.io", "operator.tigera.io"].contains(&group)
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
        assert_eq!(concern("argoproj.io", "AppProject"), Concern::None);
        assert_eq!(concern("keda.sh", "ScaledObject"), Concern::None);
        assert_eq!(concern("", "Podd"), Concern::Unknown);
    }

    #[test]
    fn what_makes_whatever_a_repository_holds_is_never_taken_for_harmless() {
        for (group, kind) in [
            ("argoproj.io", "Application"),
            ("argoproj.io", "ApplicationSet"),
            ("helm.toolkit.fluxcd.io", "HelmRelease"),
            ("kustomize.toolkit.fluxcd.io", "Kustomization"),
            ("operator.tigera.io", "APIServer"),
        ] {
            assert_eq!(concern(group, kind), Concern::Unknown, "{kind}");
        }
    }

    #[test]
    fn settings_of_agents_and_what_makes_pods_are_read_of_a_live_cluster() {
        for (group, kind) in [
            ("cilium.io", "CiliumNodeConfig"),
            ("crd.projectcalico.org", "FelixConfiguration"),
            ("keda.sh", "ScaledJob"),
            ("mpegflow.io", "WorkerPool"),
            ("operator.tigera.io", "Installation"),
        ] {
            assert!(is_group_of_concern(group) && concerns_policies(group, kind), "{kind}");
        }
        assert!(
            !concerns_policies("keda.sh", "ScaledObject") && !concerns_policies("cilium.io", "CiliumNode")
        );
    }
}
