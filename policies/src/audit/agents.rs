//! Settings of the agents that enforce policies, where the input shows them: whether anything is enforced, when, and whether the
//! profile's assumptions hold. A policy is worth what its agent makes of it.

use super::{Finding, catalog};
use crate::cluster::{Cluster, Pod};
use crate::hardening::ContainerSecurity;
use crate::profile::{Cni, Profile};
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

/// Looks at what the input shows of agents. A profile's own agents count, and under `generic` all.
pub(super) fn look(cluster: &Cluster, profile: Profile) -> Agents {
    let concerns = |cni: Cni| profile.cni == cni || profile.cni == Cni::Generic;
    let mut agents = Agents::default();
    for setting in &cluster.settings {
        let found = match &*setting.object.name {
            "cilium-config" if concerns(Cni::Cilium) => cilium(&setting.key, &setting.value),
            "amazon-vpc-cni" if concerns(Cni::AwsVpc) => aws_config(&setting.key, &setting.value),
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
        for (key, value, meaning) in of_container(container, &concerns) {
            if !agents
                .findings
                .iter()
                .any(|finding| finding.object == *owner && finding.reason.contains(&*key))
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

/// Keys of Cilium's ConfigMap (`pkg/option/config.go`).
fn cilium(key: &str, value: &str) -> Option<Meaning> {
    let is_on = value == "true";
    Some(match key {
        "enable-policy" if value == "never" => Meaning::Off("no policy is enforced"),
        "enable-policy" if value == "always" => {
            Meaning::Other("a pod that no policy selects is closed rather than open, which is not modelled")
        }
        "policy-audit-mode" if is_on => Meaning::Off("what policies deny is logged and passes"),
        "enable-k8s-networkpolicy" if value == "false" => Meaning::Off("NetworkPolicies are not enforced"),
        "enable-cilium-network-policy" if value == "false" => {
            Meaning::Off("CiliumNetworkPolicies are not enforced")
        }
        "enable-cilium-clusterwide-network-policy" if value == "false" => {
            Meaning::Off("CiliumClusterwideNetworkPolicies are not enforced")
        }
        "policy-cidr-match-mode" if !value.is_empty() => {
            Meaning::Other("blocks of addresses also match nodes or pods, which is not modelled")
        }
        "enable-host-firewall" if is_on => {
            Meaning::Other("policies also apply to nodes, which is not modelled")
        }
        "allow-localhost" if value == "policy" => {
            Meaning::Other("what a node sends to its own pods is judged by policies, which is not modelled")
        }
        "labels" if !value.is_empty() => {
            Meaning::Other("which labels are part of a pod's identity is the cluster's own choice")
        }
        "enable-non-default-deny-policies" if value == "false" => {
            Meaning::Other("enableDefaultDeny of policies has no effect")
        }
        _ => return None,
    })
}

/// Keys of the ConfigMap that the VPC CNI's controller reads.
fn aws_config(key: &str, value: &str) -> Option<Meaning> {
    (key == "enable-network-policy-controller" && value == "false")
        .then_some(Meaning::Off("the controller resolves no policy"))
}

type Found = (Arc<str>, Arc<str>, Meaning);

/// Arguments and variables of the agents' own containers.
fn of_container(container: &ContainerSecurity, concerns: &impl Fn(Cni) -> bool) -> Vec<Found> {
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
    found
}

/// Images whose arguments and variables are kept.
pub(crate) fn is_agent(image: &str) -> bool {
    ["aws-network-policy-agent", "amazon-k8s-cni", "kube-network-policies"]
        .iter()
        .any(|name| image.contains(name))
}
