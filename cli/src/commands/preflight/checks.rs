//! What the facts of a cluster mean. Pure.

use super::facts::{Facts, Known, Node, Workload};
use super::{Check, Outcome};
use std::collections::BTreeMap;

/// Versions that KEDA and this chart are made for.
const OLDEST: (u32, u32) = (1, 33);
/// The version that everything is tested with.
const TESTED: (u32, u32) = (1, 35);
/// Landlock came with this kernel, and its rules for TCP with the second (ABI 4).
const LANDLOCK: (u32, u32) = (5, 13);
const LANDLOCK_TCP: (u32, u32) = (6, 7);

/// Everything that can be said.
pub(super) fn judge(facts: &Facts, operator: bool) -> Vec<Check> {
    let mut checks = vec![version(facts), lease(facts), admission(facts, operator)];
    checks.push(rights(facts));
    checks.extend(policies(facts));
    checks.extend(nodes(facts));
    checks.push(pod_security(facts));
    checks.push(resource_metrics(facts));
    if operator {
        checks.extend([definitions(facts), keda(facts), keda_metrics(facts)]);
    }
    checks
}

fn check(group: &'static str, name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Check {
    Check { group, name, outcome, detail: detail.into(), hint: None }
}

impl Check {
    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

const API: &str = "kubernetes-api";
const POLICIES: &str = "network-policies";
const NODES: &str = "nodes";
const NAMESPACE: &str = "namespace";
const SCALING: &str = "scaling";

fn version(facts: &Facts) -> Check {
    let (major, minor, text) = &facts.version;
    let it = (*major, *minor);
    let name = "version";
    if it < OLDEST {
        return check(API, name, Outcome::Failed, format!("{text} is older than {}.{}", OLDEST.0, OLDEST.1))
            .hint("upgrade the cluster");
    }
    let newer = it > (TESTED.0, TESTED.1.saturating_add(1));
    if newer {
        let detail = format!("{text} is newer than what this release was tested with");
        return check(API, name, Outcome::Warning, detail);
    }
    check(API, name, Outcome::Ok, text)
}

fn lease(facts: &Facts) -> Check {
    let name = "Lease API";
    if facts.versions.contains("coordination.k8s.io/v1") {
        return check(API, name, Outcome::Ok, "coordination.k8s.io/v1 is served");
    }
    check(API, name, Outcome::Failed, "coordination.k8s.io/v1 is not served")
        .hint("the operator's replicas choose their leader by it")
}

fn admission(facts: &Facts, operator: bool) -> Check {
    let name = "admission policies";
    if facts.versions.contains("admissionregistration.k8s.io/v1") {
        return check(API, name, Outcome::Ok, "admissionregistration.k8s.io/v1 is served");
    }
    let outcome = if operator { Outcome::Failed } else { Outcome::Warning };
    check(API, name, outcome, "admissionregistration.k8s.io/v1 is not served")
        .hint("with it nobody but the operator makes pods in worker namespaces; without it: operator.admission.enabled=false")
}

fn rights(facts: &Facts) -> Check {
    let name = "your rights";
    match &facts.lacking {
        Ok(lacking) if lacking.is_empty() => {
            check(API, name, Outcome::Ok, "you may make all that the charts contain")
        }
        Ok(lacking) => {
            check(API, name, Outcome::Failed, format!("you may not create {}", lacking.join(", ")))
                .hint("install as somebody who may, or ask for these")
        }
        Err(why) => unknown(API, name, why),
    }
}

fn unknown(group: &'static str, name: &'static str, why: &str) -> Check {
    check(group, name, Outcome::Unknown, why)
}

/// Network plugins that are told by a DaemonSet's name: the name's beginning, what it is called, and whether it enforces
/// NetworkPolicies (`None`: it depends).
const PLUGINS: &[(&str, &str, Option<bool>)] = &[
    ("cilium", "Cilium", Some(true)),
    ("anetd", "GKE Dataplane V2", Some(true)),
    ("calico-node", "Calico", Some(true)),
    ("canal", "Canal (Calico's policies)", Some(true)),
    ("antrea-agent", "Antrea", Some(true)),
    ("azure-npm", "Azure Network Policy Manager", Some(true)),
    ("kube-router", "kube-router", Some(true)),
    ("ovnkube-node", "OVN-Kubernetes", Some(true)),
    ("aws-node", "AWS VPC CNI", None),
    ("weave-net", "Weave Net", Some(true)),
    ("kindnet", "kindnet", Some(true)),
    ("kube-network-policies", "kube-network-policies", Some(true)),
    ("kube-flannel", "Flannel", Some(false)),
];

fn policies(facts: &Facts) -> Vec<Check> {
    let name = "enforcement";
    let sets = match &facts.daemon_sets {
        Ok(sets) => sets,
        Err(why) => return vec![unknown(POLICIES, name, why)],
    };
    let mut enforcing: Vec<(&Workload, &str)> = Vec::new();
    let mut others = Vec::new();
    for set in sets {
        let Some((_, plugin, enforces)) = PLUGINS.iter().find(|(start, ..)| is_called(&set.name, start))
        else {
            continue;
        };
        let enforces = enforces.unwrap_or_else(|| {
            set.words.contains("--enable-network-policy=true")
                || set.words.contains("ENABLE_NETWORK_POLICY=true")
        });
        if enforces { enforcing.push((set, plugin)) } else { others.push(*plugin) }
    }
    let Some((_, first)) = enforcing.first() else {
        return vec![match others.first() {
            Some(plugin) => check(POLICIES, name, Outcome::Failed, format!("{plugin} enforces no policy")).hint(
                if *plugin == "AWS VPC CNI" {
                    "turn its network policies on (enableNetworkPolicy), with NETWORK_POLICY_ENFORCING_MODE=strict"
                } else {
                    "add one that does, such as Cilium or Calico: without it a worker reaches everything"
                },
            ),
            None => check(POLICIES, name, Outcome::Unknown, "no known network plugin was found")
                .hint("if yours enforces NetworkPolicy, let its own test say so; then `mpegflow audit --cni generic`"),
        }];
    };
    let names: Vec<&str> = enforcing.iter().map(|(_, plugin)| *plugin).collect();
    let mut checks =
        vec![check(POLICIES, name, Outcome::Ok, format!("{} enforces policies", names.join(" and ")))];
    for (set, plugin) in &enforcing {
        if !set.ready {
            let detail = format!("not every pod of {}/{} is ready", set.namespace, set.name);
            checks.push(
                check(POLICIES, "agents", Outcome::Failed, detail)
                    .hint("pods on a node whose agent is not ready may have no policy at all"),
            );
        }
        if *plugin == "AWS VPC CNI" && !set.words.contains("NETWORK_POLICY_ENFORCING_MODE=strict") {
            checks.push(
                check(POLICIES, "from a pod's first packet", Outcome::Failed, "AWS VPC CNI runs in standard mode, in which a pod reaches everything for its first second or two")
                    .hint("set NETWORK_POLICY_ENFORCING_MODE=strict on the DaemonSet aws-node"),
            );
        }
    }
    checks.push(dialects(facts, first));
    checks.extend(cilium(facts));
    checks
}

/// Whether a DaemonSet is a plugin's: `cilium`, `cilium-node`, not `cilium-envoy`.
fn is_called(name: &str, start: &str) -> bool {
    name == start || (start != "cilium" && name.starts_with(start))
}

fn dialects(facts: &Facts, plugin: &str) -> Check {
    let name = "dialects";
    let served = |version: &str| facts.versions.contains(version);
    let known: Vec<&str> = [("cilium", "cilium.io/v2"), ("calico", "projectcalico.org/v3")]
        .into_iter()
        .filter(|(_, version)| served(version))
        .map(|(dialect, _)| dialect)
        .collect();
    if known.is_empty() {
        let detail = format!("{plugin} knows NetworkPolicy alone, which a policy added later can widen");
        return check(POLICIES, name, Outcome::Warning, detail).hint(
            "a CNI with denials of its own (Cilium, or Calico with its API server) keeps workers closed whatever is added",
        );
    }
    check(POLICIES, name, Outcome::Ok, format!("networkPolicy.dialects: [{}]", known.join(", ")))
}

fn cilium(facts: &Facts) -> Vec<Check> {
    let settings = match &facts.cilium {
        Ok(Some(settings)) => settings,
        Ok(None) => return Vec::new(),
        Err(why) => return vec![unknown(POLICIES, "Cilium's agents", why)],
    };
    let is = |key: &str, value: &str| settings.get(key).map(String::as_str) == Some(value);
    if is("enable-policy", "never") {
        return vec![
            check(
                POLICIES,
                "Cilium's agents",
                Outcome::Failed,
                "enable-policy is `never`: nothing is enforced",
            )
            .hint("set policyEnforcementMode to `default` or `always`"),
        ];
    }
    if is("policy-audit-mode", "true") {
        return vec![
            check(
                POLICIES,
                "Cilium's agents",
                Outcome::Failed,
                "policy-audit-mode is on: policies are written down, not enforced",
            )
            .hint("turn policyAuditMode off"),
        ];
    }
    vec![check(POLICIES, "Cilium's agents", Outcome::Ok, "policies are enforced")]
}

/// The first two numbers of a kernel's version.
fn kernel(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn nodes(facts: &Facts) -> Vec<Check> {
    let nodes = match &facts.nodes {
        Ok(nodes) if nodes.is_empty() => {
            return vec![check(NODES, "any", Outcome::Warning, "there is none yet")];
        }
        Ok(nodes) => nodes,
        Err(why) => return vec![unknown(NODES, "any", why)],
    };
    let mut checks = vec![landlock(nodes), architecture(nodes)];
    let mut gpus: BTreeMap<&str, usize> = BTreeMap::new();
    for resource in nodes.iter().flat_map(|node| node.gpus.keys()) {
        let count = gpus.entry(resource).or_default();
        *count = count.saturating_add(1);
    }
    if !gpus.is_empty() {
        let each: Vec<String> = gpus.iter().map(|(name, count)| format!("{name} on {count}")).collect();
        checks.push(check(NODES, "GPUs", Outcome::Ok, each.join(", ")));
    }
    checks
}

fn some(nodes: &[&Node]) -> String {
    let mut names: Vec<&str> = nodes.iter().take(3).map(|node| node.name.as_str()).collect();
    if nodes.len() > 3 {
        names.push("…");
    }
    names.join(", ")
}

fn landlock(nodes: &[Node]) -> Check {
    let name = "Landlock";
    let older = |than: (u32, u32)| -> Vec<&Node> {
        nodes.iter().filter(|node| kernel(&node.kernel).is_none_or(|it| it < than)).collect()
    };
    let (without, partly) = (older(LANDLOCK), older(LANDLOCK_TCP));
    let sandboxed =
        nodes.iter().any(|node| node.runtime.contains("gvisor") || node.runtime.contains("runsc"));
    if sandboxed {
        return check(
            NODES,
            name,
            Outcome::Warning,
            "a runtime has a kernel of its own, which may have no Landlock",
        )
        .hint("run `mpegflow doctor` in a pod there");
    }
    if !without.is_empty() {
        let detail = format!(
            "{} of {} nodes have a kernel before 5.13: {}",
            without.len(),
            nodes.len(),
            some(&without)
        );
        return check(NODES, name, Outcome::Failed, detail)
            .hint("workers refuse to run there; keep pools away from them with nodeSelector, or upgrade");
    }
    if !partly.is_empty() {
        let detail = format!(
            "{} of {} nodes have a kernel before 6.7, whose Landlock knows no TCP: {}",
            partly.len(),
            nodes.len(),
            some(&partly)
        );
        return check(NODES, name, Outcome::Warning, detail).hint(
            "the codec's seccomp filter refuses sockets all the same; a newer kernel refuses them twice",
        );
    }
    check(
        NODES,
        name,
        Outcome::Ok,
        "every node's kernel is new enough; that it is switched on, `mpegflow doctor` says there",
    )
}

fn architecture(nodes: &[Node]) -> Check {
    let name = "architecture";
    let others: Vec<&Node> = nodes.iter().filter(|node| node.architecture != "amd64").collect();
    if others.len() == nodes.len() {
        return check(NODES, name, Outcome::Failed, "no node is amd64, for which the locks are reviewed");
    }
    if !others.is_empty() {
        return check(
            NODES,
            name,
            Outcome::Warning,
            format!("{} of {} nodes are not amd64: {}", others.len(), nodes.len(), some(&others)),
        )
        .hint("keep pools on the others: nodeSelector {kubernetes.io/arch: amd64}");
    }
    check(NODES, name, Outcome::Ok, "amd64")
}

fn pod_security(facts: &Facts) -> Check {
    let name = "pod security";
    let namespace = &facts.namespace;
    let label = |labels: &BTreeMap<String, String>| labels.get("pod-security.kubernetes.io/enforce").cloned();
    let wanted = format!("kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=restricted");
    match &facts.labels {
        Ok(None) => {
            check(NAMESPACE, name, Outcome::Warning, format!("the namespace {namespace} is not there yet"))
                .hint(format!("kubectl create namespace {namespace} && {wanted}"))
        }
        Ok(Some(labels)) => match label(labels).as_deref() {
            Some("restricted") => {
                check(NAMESPACE, name, Outcome::Ok, format!("{namespace} enforces `restricted`"))
            }
            other => check(
                NAMESPACE,
                name,
                Outcome::Warning,
                format!("{namespace} enforces `{}`", other.unwrap_or("privileged")),
            )
            .hint(wanted),
        },
        Err(why) => unknown(NAMESPACE, name, why),
    }
}

fn resource_metrics(facts: &Facts) -> Check {
    let name = "resource metrics";
    match aggregated(facts, "v1beta1.metrics.k8s.io") {
        Ok(true) => check(SCALING, name, Outcome::Ok, "metrics.k8s.io is available"),
        Ok(false) => check(SCALING, name, Outcome::Warning, "metrics.k8s.io is not available")
            .hint("broker.autoscaling needs it: install metrics-server"),
        Err(why) => unknown(SCALING, name, &why),
    }
}

fn aggregated(facts: &Facts, name: &str) -> Known<bool> {
    facts.aggregated.get(name).cloned().unwrap_or(Ok(false))
}

fn definitions(facts: &Facts) -> Check {
    let name = "definitions";
    if facts.versions.contains("mpegflow.io/v1alpha1") {
        return check(SCALING, name, Outcome::Ok, "mpegflow.io/v1alpha1 is served");
    }
    check(SCALING, name, Outcome::Failed, "mpegflow.io/v1alpha1 is not served")
        .hint("helm install mpegflow-crds chart/mpegflow-crds")
}

fn keda(facts: &Facts) -> Check {
    let name = "KEDA";
    if !facts.versions.contains("keda.sh/v1alpha1") {
        return check(SCALING, name, Outcome::Warning, "KEDA is not installed: pools are scaled by hand")
            .hint("helm install keda kedacore/keda -n keda --create-namespace (2.20 is what is tested)");
    }
    let deployments = match &facts.deployments {
        Ok(deployments) => deployments,
        Err(why) => return unknown(SCALING, name, why),
    };
    match deployments.iter().find(|it| it.name == "keda-operator") {
        Some(it) if !it.ready => {
            check(SCALING, name, Outcome::Failed, format!("{}/keda-operator is not ready", it.namespace))
                .hint(format!("kubectl -n {} describe deployment keda-operator", it.namespace))
        }
        Some(it) => {
            let image = it.images.first().map_or("", String::as_str);
            let tag = image
                .split('@')
                .next()
                .and_then(|name| name.rsplit_once(':'))
                .map_or("of an unknown version", |(_, tag)| tag);
            check(SCALING, name, Outcome::Ok, format!("keda-operator {tag} is ready"))
        }
        None => check(SCALING, name, Outcome::Failed, "its kinds are there, and no Deployment keda-operator"),
    }
}

fn keda_metrics(facts: &Facts) -> Check {
    let name = "KEDA's metrics";
    match aggregated(facts, "v1beta1.external.metrics.k8s.io") {
        Ok(true) => check(SCALING, name, Outcome::Ok, "external.metrics.k8s.io is available"),
        Ok(false) => check(
            SCALING,
            name,
            Outcome::Warning,
            "external.metrics.k8s.io is not available: nothing scales above one",
        )
        .hint("kubectl get apiservice v1beta1.external.metrics.k8s.io"),
        Err(why) => unknown(SCALING, name, &why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(name: &str, words: &[&str]) -> Workload {
        Workload {
            namespace: "kube-system".into(),
            name: name.into(),
            images: vec![format!("registry.example/{name}:v1")],
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            ready: true,
        }
    }

    fn node(kernel: &str) -> Node {
        Node {
            name: "n1".into(),
            kernel: kernel.into(),
            architecture: "amd64".into(),
            runtime: "containerd://2.1.0".into(),
            gpus: BTreeMap::new(),
        }
    }

    /// A cluster that has all that is asked for.
    fn good() -> Facts {
        let versions = [
            "coordination.k8s.io/v1",
            "admissionregistration.k8s.io/v1",
            "cilium.io/v2",
            "keda.sh/v1alpha1",
            "mpegflow.io/v1alpha1",
        ];
        Facts {
            version: (1, 35, "v1.35.4".into()),
            versions: versions.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(),
            nodes: Ok(vec![node("6.12.0-1-amd64")]),
            daemon_sets: Ok(vec![set("cilium", &[]), set("cilium-envoy", &[])]),
            deployments: Ok(vec![set("keda-operator", &[])]),
            cilium: Ok(Some(BTreeMap::from([("enable-policy".into(), "default".into())]))),
            namespace: "mpegflow".into(),
            labels: Ok(Some(BTreeMap::from([(
                "pod-security.kubernetes.io/enforce".into(),
                "restricted".into(),
            )]))),
            aggregated: BTreeMap::from([
                ("v1beta1.external.metrics.k8s.io", Ok(true)),
                ("v1beta1.metrics.k8s.io", Ok(true)),
            ]),
            lacking: Ok(Vec::new()),
        }
    }

    /// The checks that are not ok, as `outcome name`.
    fn wrong(facts: &Facts) -> Vec<String> {
        let checks = judge(facts, true);
        checks
            .iter()
            .filter(|check| check.outcome != Outcome::Ok)
            .map(|check| format!("{:?} {}", check.outcome, check.name))
            .collect()
    }

    #[test]
    fn a_cluster_that_has_everything_passes() {
        assert_eq!(wrong(&good()), [""; 0]);
    }

    #[test]
    fn each_lack_is_told_by_its_name() {
        let with = |change: &dyn Fn(&mut Facts)| {
            let mut facts = good();
            change(&mut facts);
            wrong(&facts)
        };
        let remove = |version: &'static str| {
            move |facts: &mut Facts| {
                facts.versions.remove(version);
            }
        };
        let sets = |sets: Vec<Workload>| {
            move |facts: &mut Facts| {
                facts.daemon_sets = Ok(sets.clone());
                facts.cilium = Ok(None);
            }
        };
        let setting = |key: &'static str, value: &'static str| {
            move |facts: &mut Facts| {
                facts.cilium = Ok(Some(BTreeMap::from([(key.to_owned(), value.to_owned())])));
            }
        };
        assert_eq!(with(&|f| f.version = (1, 32, "v1.32.0".into())), ["Failed version"]);
        assert_eq!(with(&|f| f.version = (1, 37, "v1.37.0".into())), ["Warning version"]);
        assert_eq!(with(&remove("coordination.k8s.io/v1")), ["Failed Lease API"]);
        assert_eq!(with(&remove("admissionregistration.k8s.io/v1")), ["Failed admission policies"]);
        assert_eq!(with(&|f| f.lacking = Ok(vec!["jobs.batch".into()])), ["Failed your rights"]);
        assert_eq!(with(&sets(vec![set("kube-flannel-ds", &[])])), ["Failed enforcement"]);
        assert_eq!(with(&sets(Vec::new())), ["Unknown enforcement"]);
        assert_eq!(
            with(&sets(vec![set("aws-node", &["--enable-network-policy=false"])])),
            ["Failed enforcement"]
        );
        let aws = ["--enable-network-policy=true"];
        assert_eq!(with(&sets(vec![set("aws-node", &aws)])), ["Failed from a pod's first packet"]);
        let strict = ["--enable-network-policy=true", "NETWORK_POLICY_ENFORCING_MODE=strict"];
        assert_eq!(with(&sets(vec![set("aws-node", &strict)])), [""; 0]);
        let late = Workload { ready: false, ..set("calico-node", &[]) };
        assert_eq!(with(&sets(vec![late])), ["Failed agents"]);
        assert_eq!(with(&remove("cilium.io/v2")), ["Warning dialects"]);
        assert_eq!(with(&setting("enable-policy", "never")), ["Failed Cilium's agents"]);
        assert_eq!(with(&setting("policy-audit-mode", "true")), ["Failed Cilium's agents"]);
        assert_eq!(with(&|f| f.nodes = Ok(vec![node("5.10.0-28"), node("6.12.1")])), ["Failed Landlock"]);
        assert_eq!(with(&|f| f.nodes = Ok(vec![node("6.1.0-28")])), ["Warning Landlock"]);
        assert_eq!(with(&|f| f.nodes = Ok(vec![node("unknown")])), ["Failed Landlock"]);
        let arm = Node { architecture: "arm64".into(), ..node("6.12.0") };
        assert_eq!(with(&|f| f.nodes = Ok(vec![arm.clone()])), ["Failed architecture"]);
        assert_eq!(with(&|f| f.nodes = Ok(vec![arm.clone(), node("6.12.0")])), ["Warning architecture"]);
        assert_eq!(with(&|f| f.labels = Ok(None)), ["Warning pod security"]);
        assert_eq!(with(&|f| f.labels = Ok(Some(BTreeMap::new()))), ["Warning pod security"]);
        assert_eq!(with(&remove("mpegflow.io/v1alpha1")), ["Failed definitions"]);
        assert_eq!(with(&remove("keda.sh/v1alpha1")), ["Warning KEDA"]);
        let late = Workload { ready: false, ..set("keda-operator", &[]) };
        assert_eq!(with(&|f| f.deployments = Ok(vec![late.clone()])), ["Failed KEDA"]);
        assert_eq!(with(&|f| f.aggregated.clear()), ["Warning resource metrics", "Warning KEDA's metrics"]);
    }

    #[test]
    fn what_may_not_be_read_is_unknown_and_never_ok() {
        let refused = || Err("you may not read it".to_owned());
        let facts = Facts {
            nodes: Err("you may not read it".into()),
            daemon_sets: Err("you may not read it".into()),
            deployments: Err("you may not read it".into()),
            cilium: Err("you may not read it".into()),
            labels: Err("you may not read it".into()),
            lacking: Err("you may not read it".into()),
            aggregated: BTreeMap::from([
                ("v1beta1.external.metrics.k8s.io", refused()),
                ("v1beta1.metrics.k8s.io", refused()),
            ]),
            ..good()
        };
        assert_eq!(
            wrong(&facts),
            [
                "Unknown your rights",
                "Unknown enforcement",
                "Unknown any",
                "Unknown pod security",
                "Unknown resource metrics",
                "Unknown KEDA",
                "Unknown KEDA's metrics"
            ]
        );
    }
}
