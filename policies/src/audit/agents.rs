//! Settings of the agents that enforce policies, where the input shows them: whether anything is enforced, when, and whether the
//! profile's assumptions hold. A policy is worth what its agent makes of it.

use super::{Finding, catalog};
use crate::cluster::{Cluster, Pod};
use crate::hardening::ContainerSecurity;
use crate::profile::{CiliumChange, Cni, Fact, Profile};
use crate::source::{At, ObjectRef};
use crate::truth::Doubt;
use std::sync::Arc;

/// What settings say of the verdicts.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Findings about them.
    pub(super) findings: Vec<Finding>,
    /// Assumptions of the profile that do not hold: no verdict is sure.
    pub(super) doubts: Vec<Doubt>,
}

/// What one setting means.
enum Meaning {
    /// Policies, or those of a kind, are not enforced.
    Off(&'static str),
    /// Packets pass before, or while, the agent has not decided.
    Open(&'static str),
    /// The agent does something else than the profile says.
    Other(&'static str),
}

/// What the agent cannot read, or reads otherwise than it is meant.
const UNREADABLE: Meaning =
    Meaning::Other("the agent does not take this for a value, and what it does then is not known");

/// Looks at what the input shows of agents. A profile's own agents count, and under `generic` all.
pub(super) fn look(cluster: &Cluster, profile: Profile) -> Agents {
    let concerns = |cni: Cni| profile.cni == cni || profile.cni == Cni::Generic;
    let mut agents = Agents::default();
    for setting in &cluster.settings {
        let (key, value) = (&*setting.key, &*setting.value);
        let found = match (&*setting.object.kind, &*setting.object.name) {
            ("ConfigMap", "cilium-config") | ("CiliumNodeConfig", _) if concerns(Cni::Cilium) => {
                cilium(key, value, profile)
            }
            ("ConfigMap", "amazon-vpc-cni") if concerns(Cni::AwsVpc) => aws_config(key, value),
            ("FelixConfiguration", _) if concerns(Cni::Calico) => felix(&key.to_ascii_lowercase(), value),
            ("Installation", _) if concerns(Cni::Calico) => installation(key, value),
            _ => None,
        };
        if let Some(meaning) = found {
            agents.add(&setting.object, &setting.at, &setting.key, &setting.value, &meaning);
        }
    }
    if concerns(Cni::Cilium) && !cluster.cilium_endpoints.is_empty() {
        agents.findings.extend(unmanaged(cluster));
    }
    let running = cluster.pods.iter().filter(|pod| !pod.finished);
    for (pod, container) in running.flat_map(|pod| pod.security.containers.iter().map(move |c| (pod, c))) {
        // Pods of one DaemonSet have one template; where they are in the input, each says the same.
        let owner = pod.owner.as_ref().unwrap_or(&pod.object);
        for (key, value, meaning) in of_container(container, profile, &concerns) {
            if !agents
                .findings
                .iter()
                .any(|finding| finding.object == *owner && finding.reason.starts_with(&format!("{key} is ")))
            {
                agents.add(owner, &container.at, &key, &value, &meaning);
            }
        }
    }
    agents
}

/// Pods without a CiliumEndpoint, where the input has those of others: they were there before Cilium, or its agent does not get to
/// them. A pod on its node's network has none, nor has one that no agent has been asked about yet: it has no address.
fn unmanaged(cluster: &Cluster) -> impl Iterator<Item = Finding> {
    let has_one =
        |pod: &Pod| cluster.cilium_endpoints.contains(&(pod.namespace.clone(), pod.object.name.clone()));
    let has_network =
        |pod: &&Pod| !pod.is_template && !pod.finished && !pod.host_network && !pod.addresses.is_empty();
    cluster.pods.iter().filter(has_network).filter(move |pod| !has_one(pod)).map(|pod| {
        let reason = format!(
            "other pods have a CiliumEndpoint and {} has none: to Cilium it is `unmanaged`, and nothing isolates it \
             (Documentation/installation/k8s-install-restart-pods.rst)",
            pod.object
        );
        Finding::certain(&catalog::NOT_MANAGED, pod.object.clone(), Some(pod.at.clone()), reason)
    })
}

impl Agents {
    fn add(&mut self, object: &ObjectRef, at: &At, key: &str, value: &str, meaning: &Meaning) {
        let shown: String = value.chars().take(60).collect();
        let (kind, what) = match meaning {
            Meaning::Off(what) => (&catalog::ENFORCEMENT_OFF, what),
            Meaning::Open(what) => (&catalog::OPENS_AT_TIMES, what),
            Meaning::Other(what) => (&catalog::NOT_AS_ASSUMED, what),
        };
        let reason = format!("{key} is {shown:?} in {object}: {what}");
        if matches!(meaning, Meaning::Other(_)) {
            self.doubts.push(Doubt::at(reason.clone(), at));
        }
        self.findings.push(Finding::certain(kind, object.clone(), Some(at.clone()), reason));
    }
}

/// Keys of Cilium's ConfigMap and of its CiliumNodeConfigs, and its agent's flags (`pkg/option/config.go`). Switches are read as
/// `strconv.ParseBool` reads them; another text is false to viper, or stops the agent.
fn cilium(key: &str, value: &str, profile: Profile) -> Option<Meaning> {
    let switch = |on: Option<Meaning>, off: Option<Meaning>| match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => on,
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => off,
        _ => Some(UNREADABLE),
    };
    let if_on = |meaning| switch(Some(meaning), None);
    let if_off = |meaning| switch(None, Some(meaning));
    let if_set = |what| (!value.is_empty()).then_some(Meaning::Other(what));
    match key {
        // The agent lowers its letters.
        "enable-policy" => match value.to_ascii_lowercase().as_str() {
            "default" | "" => None,
            "never" => Some(Meaning::Off("no policy is enforced")),
            "always" => Some(Meaning::Other(
                "a pod that no policy selects is closed rather than open, which is not modelled",
            )),
            _ => Some(UNREADABLE),
        },
        "policy-audit-mode" => if_on(Meaning::Off("what policies deny is logged and passes")),
        "enable-k8s" => if_off(Meaning::Off("the agent reads no policy of Kubernetes")),
        "enable-k8s-networkpolicy" => if_off(Meaning::Off("NetworkPolicies are not enforced")),
        "enable-cilium-network-policy" => if_off(Meaning::Off("CiliumNetworkPolicies are not enforced")),
        "enable-cilium-clusterwide-network-policy" => {
            if_off(Meaning::Off("CiliumClusterwideNetworkPolicies are not enforced"))
        }
        "policy-cidr-match-mode" => {
            if_set("blocks of addresses also match nodes or pods, which is not modelled")
        }
        "enable-host-firewall" => {
            if_on(Meaning::Other("policies also apply to nodes, which is not modelled"))
        }
        "allow-localhost" => match value {
            "" | "auto" | "always" => None,
            "policy" => Some(Meaning::Other(
                "what a node sends to its own pods is judged by policies, which is not modelled",
            )),
            _ => Some(UNREADABLE),
        },
        "exclude-local-address" => {
            if_set("addresses of a node that are left out are no longer the node's to its policies")
        }
        "labels" | "label-prefix-file" => {
            if_set("which labels are part of a pod's identity is the cluster's own choice")
        }
        "enable-icmp-rules" => if_off(Meaning::Other("rules of ICMP have no effect, which is not modelled")),
        "enable-l7-proxy" => {
            if_off(Meaning::Other("there is no proxy for rules of DNS and HTTP, which is not modelled"))
        }
        "enable-extended-ip-protocols" => {
            if_on(Meaning::Other("protocols beside TCP, UDP, SCTP and ICMP may pass, which is not modelled"))
        }
        "enable-remote-node-identity" => {
            if_off(Meaning::Other("other nodes are the entity `host`, which is not modelled"))
        }
        "policy-default-local-cluster" if profile.cni == Cni::Cilium => {
            let change = Fact::Cilium(CiliumChange::LocalClusterOnly);
            let other =
                Meaning::Other("whether a selector means this cluster alone is not as its version sets it");
            if profile.fact(change).truth.must() { if_off(other) } else { if_on(other) }
        }
        "enable-non-default-deny-policies" => {
            if_off(Meaning::Other("enableDefaultDeny of policies has no effect"))
        }
        _ => None,
    }
}

/// Fields of Calico's FelixConfiguration and Felix's variables, in small letters (`felix/config/config_params.go`).
fn felix(key: &str, value: &str) -> Option<Meaning> {
    let value = value.to_ascii_lowercase();
    let if_on = |what| match value.as_str() {
        "true" | "1" | "yes" | "y" | "t" => Some(Meaning::Other(what)),
        "false" | "0" | "no" | "n" | "f" | "" => None,
        _ => Some(UNREADABLE),
    };
    match key {
        "bpfenabled" => if_on("the eBPF data plane is on, which is not modelled"),
        "allowvxlanpacketsfromworkloads" | "allowipippacketsfromworkloads" => {
            if_on("pods may send packets in packets, of which policies see the outer one")
        }
        "defaultendpointtohostaction" => match value.as_str() {
            "accept" | "return" => None,
            // Felix' own default, where the manifests and the operator set none.
            _ => Some(Meaning::Other("what pods send to their own node is dropped, which is not modelled")),
        },
        "chaininsertmode" if value == "append" => {
            Some(Meaning::Other("rules of others come before Calico's and may let pass what it denies"))
        }
        "workloadsourcespoofing" if value == "any" => {
            Some(Meaning::Other("pods may ask to send from addresses that are not theirs"))
        }
        "dropactionoverride" if value.ends_with("accept") => Some(Meaning::Off("what policies deny passes")),
        _ => None,
    }
}

/// Fields of `spec.calicoNetwork` of an Installation of Tigera's operator.
fn installation(key: &str, value: &str) -> Option<Meaning> {
    match (key, value) {
        ("linuxDataplane", "Iptables" | "Nftables") => None,
        ("linuxDataplane", _) => Some(Meaning::Other("the data plane is another one, which is not modelled")),
        _ => None,
    }
}

/// Keys of the ConfigMap that the VPC CNI's controller reads.
fn aws_config(key: &str, value: &str) -> Option<Meaning> {
    (key == "enable-network-policy-controller" && value == "false")
        .then_some(Meaning::Off("the controller resolves no policy"))
}

type Found = (Arc<str>, Arc<str>, Meaning);

/// Arguments and variables of the agents' own containers.
fn of_container(
    container: &ContainerSecurity,
    profile: Profile,
    concerns: &impl Fn(Cni) -> bool,
) -> Vec<Found> {
    let aws = "until its policies are in force a new pod's network is open, for some seconds (aws-network-policy-agent, issues 83 and 345)";
    let image = container.image.split(['@', ':']).next().unwrap_or_default();
    let is =
        |name: &str| container.image.contains(&format!("/{name}:")) || image.ends_with(&format!("/{name}"));
    let mut found: Vec<Found> = Vec::new();
    let get =
        |key: &str| container.settings.iter().find(|(own, _)| **own == *key).map(|(_, value)| value.clone());
    if concerns(Cni::AwsVpc) && (is("aws-network-policy-agent") || is("amazon-k8s-cni")) {
        if let Some(value) = get("--enable-network-policy").filter(|value| &**value == "false") {
            found.push((
                "--enable-network-policy".into(),
                value,
                Meaning::Off("the agent enforces no policy"),
            ));
        }
        match get("NETWORK_POLICY_ENFORCING_MODE") {
            Some(value) if &*value == "strict" => found.push((
                "NETWORK_POLICY_ENFORCING_MODE".into(),
                value,
                Meaning::Other(
                    "a pod that no policy selects is closed rather than open, which is not modelled",
                ),
            )),
            Some(value) => {
                found.push(("NETWORK_POLICY_ENFORCING_MODE".into(), value, Meaning::Open(aws)));
            }
            None => {}
        }
    }
    if concerns(Cni::Generic) && is("kube-network-policies") {
        // It is on unless it is switched off.
        let value = get("--fail-open").unwrap_or_else(|| "true".into());
        if &*value != "false" {
            let what = "a packet that the agent cannot judge, or that comes before it knows the pods, passes";
            found.push(("--fail-open".into(), value, Meaning::Open(what)));
        }
    }
    let settings = container.settings.iter();
    if concerns(Cni::Cilium) && image_is(&container.image, "cilium") {
        found.extend(settings.clone().filter_map(|(key, value)| {
            let variable = || Some(key.strip_prefix("CILIUM_")?.to_ascii_lowercase().replace('_', "-"));
            let option = key.strip_prefix("--").map(str::to_owned).or_else(variable)?;
            Some((key.clone(), value.clone(), cilium(&option, value, profile)?))
        }));
    }
    if concerns(Cni::Calico) && is_calico(&container.image) {
        found.extend(settings.filter_map(|(key, value)| {
            let option = key.strip_prefix("FELIX_")?.to_ascii_lowercase().replace('_', "");
            Some((key.clone(), value.clone(), felix(&option, value)?))
        }));
    }
    found
}

/// Whether an image is called so, whoever keeps it: `quay.io/cilium/cilium:v1.18.0`.
fn image_is(image: &str, name: &str) -> bool {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    last.split(':').next() == Some(name)
}

/// Images whose arguments and variables are kept.
pub(crate) fn is_agent(image: &str) -> bool {
    ["aws-network-policy-agent", "amazon-k8s-cni", "kube-network-policies"]
        .iter()
        .any(|name| image.contains(name))
        || image_is(image, "cilium")
        || is_calico(image)
}

/// `docker.io/calico/node:v3.30.0`; another `node` is none.
fn is_calico(image: &str) -> bool {
    image_is(image, "calico-node") || (image_is(image, "node") && image.contains("calico/node"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Version;

    fn word(found: Option<Meaning>) -> &'static str {
        match found {
            None => "as assumed",
            Some(Meaning::Off(_)) => "off",
            Some(Meaning::Open(_)) => "open",
            Some(Meaning::Other(what)) if what.starts_with("the agent does not take") => "unreadable",
            Some(Meaning::Other(_)) => "other",
        }
    }

    #[test]
    fn cilium_s_settings_mean_what_its_agent_reads() {
        // strconv.ParseBool for switches; enable-policy in small letters; texts as they are.
        for (key, value, expected) in [
            ("enable-policy", "default", "as assumed"),
            ("enable-policy", "Never", "off"),
            ("enable-policy", "ALWAYS", "other"),
            ("enable-policy", "sometimes", "unreadable"),
            ("policy-audit-mode", "false", "as assumed"),
            ("policy-audit-mode", "True", "off"),
            ("policy-audit-mode", "1", "off"),
            ("policy-audit-mode", "yes", "unreadable"),
            ("enable-k8s", "false", "off"),
            ("enable-k8s-networkpolicy", "False", "off"),
            ("enable-k8s-networkpolicy", "t", "as assumed"),
            ("enable-cilium-network-policy", "0", "off"),
            ("enable-cilium-clusterwide-network-policy", "F", "off"),
            ("policy-cidr-match-mode", "", "as assumed"),
            ("policy-cidr-match-mode", "nodes", "other"),
            ("enable-host-firewall", "TRUE", "other"),
            ("allow-localhost", "auto", "as assumed"),
            ("allow-localhost", "policy", "other"),
            ("allow-localhost", "never", "unreadable"),
            ("exclude-local-address", "10.0.0.0/8", "other"),
            ("labels", "k8s:app", "other"),
            ("label-prefix-file", "/etc/labels", "other"),
            ("enable-icmp-rules", "false", "other"),
            ("enable-l7-proxy", "False", "other"),
            ("enable-l7-proxy", "true", "as assumed"),
            ("enable-extended-ip-protocols", "true", "other"),
            ("enable-remote-node-identity", "0", "other"),
            ("enable-non-default-deny-policies", "false", "other"),
            ("enable-hubble", "perhaps", "as assumed"),
        ] {
            let found = cilium(key, value, Profile::newest(Cni::Cilium));
            assert_eq!(word(found), expected, "{key}={value}");
        }
    }

    #[test]
    fn whether_a_selector_means_this_cluster_alone_is_held_against_the_version() {
        for (minor, value, expected) in [
            (18, "false", "as assumed"),
            (18, "true", "other"),
            (19, "true", "as assumed"),
            (19, "false", "other"),
        ] {
            let profile = Profile { cni: Cni::Cilium, version: Version(1, minor) };
            let found = cilium("policy-default-local-cluster", value, profile);
            assert_eq!(word(found), expected, "1.{minor} {value}");
        }
    }

    #[test]
    fn calico_s_settings_are_held_against_its_assumptions() {
        for (key, value, expected) in [
            ("bpfenabled", "true", "other"),
            ("bpfenabled", "false", "as assumed"),
            ("bpfenabled", "Enabled", "unreadable"),
            ("defaultendpointtohostaction", "ACCEPT", "as assumed"),
            ("defaultendpointtohostaction", "Drop", "other"),
            ("chaininsertmode", "Append", "other"),
            ("workloadsourcespoofing", "Any", "other"),
            ("allowvxlanpacketsfromworkloads", "true", "other"),
            ("dropactionoverride", "LogAndAccept", "off"),
            ("logseverityscreen", "Info", "as assumed"),
        ] {
            assert_eq!(word(felix(key, value)), expected, "{key}={value}");
        }
        assert_eq!(word(installation("linuxDataplane", "BPF")), "other");
        assert_eq!(word(installation("linuxDataplane", "Nftables")), "as assumed");
        assert_eq!(word(installation("bgp", "Enabled")), "as assumed");
    }

    #[test]
    fn an_agent_is_known_by_the_last_part_of_its_image() {
        for (image, expected) in [
            ("quay.io/cilium/cilium:v1.18.0@sha256:00", true),
            ("registry:5000/cilium", true),
            ("docker.io/calico/node:v3.30.0", true),
            ("docker.io/library/node:22", false),
            ("quay.io/cilium/operator-generic:v1.18.0", false),
            ("quay.io/cilium/cilium-envoy:v1", false),
            ("shop/web:cilium", false),
        ] {
            assert_eq!(is_agent(image), expected, "{image}");
        }
    }
}
