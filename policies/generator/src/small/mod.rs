//! Small clusters: 2–4 namespaces, 3–8 pods, 1–6 policies, from a vocabulary so narrow that policies meet.

mod calico;
mod kubernetes;
mod query;

use std::net::IpAddr;

use serde_json::{Map, Value, json};

pub use query::{Endpoint, IcmpType, Query};

use crate::rng::Rng;
use crate::yaml::{Document, stream};

/// Which policies a small cluster holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `networking.k8s.io/v1` `NetworkPolicy`.
    Kubernetes,
    /// `projectcalico.org/v3` `NetworkPolicy`, `GlobalNetworkPolicy` and network sets.
    Calico,
    /// Both, in one cluster.
    CalicoAndKubernetes,
}

/// One small cluster, in parts that can be left out one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it was made from.
    pub seed: u64,
    /// What kinds of policy it may hold.
    pub dialect: Dialect,
    /// `v1` `Namespace`.
    pub namespaces: Vec<Document>,
    /// `v1` `Pod`, with addresses in the status.
    pub pods: Vec<Document>,
    /// Policies of the dialect, and Calico's network sets.
    pub policies: Vec<Document>,
}

impl Case {
    /// The cluster of a seed.
    #[must_use]
    pub fn generate(seed: u64, dialect: Dialect) -> Self {
        let mut rng = Rng::new(seed);
        let namespaces = namespaces(&mut rng);
        let names: Vec<String> = namespaces.iter().map(|n| n.name().to_owned()).collect();
        let dual_stack = rng.one_in(4);
        let pods = (0..rng.between(3, 8)).map(|at| pod(&mut rng, &names, at, dual_stack)).collect();
        // Most clusters keep pod addresses out of blocks: engines differ there, and would differ in every case.
        let blocks = if rng.one_in(4) { Blocks::OverPods } else { Blocks::Outside };
        let mut vocabulary = Vocabulary { rng, namespaces: names, blocks, dual_stack };
        let count = vocabulary.rng.between(1, 6);
        let mut policies: Vec<Document> = Vec::new();
        for at in 0..count {
            let kubernetes = match dialect {
                Dialect::Kubernetes => true,
                Dialect::Calico => false,
                Dialect::CalicoAndKubernetes => vocabulary.rng.one_in(2),
            };
            policies.push(if kubernetes {
                kubernetes::network_policy(&mut vocabulary, at)
            } else {
                calico::policy(&mut vocabulary, at)
            });
        }
        if dialect != Dialect::Kubernetes && vocabulary.rng.one_in(4) {
            policies.push(calico::network_set(&mut vocabulary));
        }
        Self { seed, dialect, namespaces, pods, policies }
    }

    /// All documents, as one YAML stream.
    #[must_use]
    pub fn manifests(&self) -> String {
        stream(self.namespaces.iter().chain(&self.pods).chain(&self.policies))
    }

    /// At most `limit` packets that are worth asking about: ports at the edges of what the policies name, between all kinds
    /// of endpoints. The same case gives the same packets; a shrunk one gives others, so keep the packet that failed.
    #[must_use]
    pub fn queries(&self, limit: usize) -> Vec<Query> {
        query::queries(self, limit)
    }
}

/// Where the address blocks of a cluster's policies lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// In the documentation ranges only.
    Outside,
    /// Also over the pods.
    OverPods,
}

/// What policies are written with.
struct Vocabulary {
    rng: Rng,
    namespaces: Vec<String>,
    blocks: Blocks,
    dual_stack: bool,
}

const NAMESPACES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "default"];
const POD_KEYS: [&str; 4] = ["app", "tier", "track", "example.com/role"];
const NAMESPACE_KEYS: [&str; 2] = ["team", "env"];

/// The values that a label may have. The empty value is rare: it is legal, and engines stumble over it.
const fn values_of(key: &str) -> &'static [&'static str] {
    match key.as_bytes() {
        b"app" => &["web", "web", "db", "db", "cache"],
        b"tier" => &["front", "front", "back", "back", ""],
        b"track" => &["canary", "stable", "stable-2"],
        b"team" => &["red", "blue"],
        b"env" => &["prod", "prod", "dev", "dev", ""],
        _ => &["leader", "follower"],
    }
}

fn namespaces(rng: &mut Rng) -> Vec<Document> {
    let count = rng.between(2, 4);
    let first = rng.below(NAMESPACES.len());
    NAMESPACES
        .iter()
        .cycle()
        .skip(first)
        .take(count)
        .map(|name| {
            let mut labels = labels(rng, &NAMESPACE_KEYS);
            labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
            Document(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
            }))
        })
        .collect()
}

fn labels(rng: &mut Rng, keys: &[&'static str]) -> Map<String, Value> {
    let mut labels = Map::new();
    for key in keys {
        if !rng.one_in(3) {
            labels.insert((*key).to_owned(), json!(rng.word(values_of(key))));
        }
    }
    labels
}

fn pod(rng: &mut Rng, namespaces: &[String], at: usize, dual_stack: bool) -> Document {
    let namespace = rng.pick(namespaces).cloned().unwrap_or_default();
    let subnet = namespaces.iter().position(|n| *n == namespace).unwrap_or_default();
    let address = format!("10.0.{subnet}.{}", at.saturating_add(1));
    let mut addresses = vec![json!({"ip": address})];
    if dual_stack {
        addresses.push(json!({"ip": format!("fd00::{subnet}:{:x}", at.saturating_add(1))}));
    }
    let node = rng.between(1, 3);
    Document(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{at}"), "namespace": namespace, "labels": labels(rng, &POD_KEYS)},
        "spec": {
            "nodeName": format!("node-{node}"),
            "containers": [{"name": "main", "image": "example.com/main:1", "ports": container_ports(rng)}],
        },
        "status": {
            "phase": "Running",
            "hostIP": format!("192.168.0.{node}"),
            "podIP": address,
            "podIPs": addresses,
        },
    }))
}

/// The same name stands for different ports on different pods, and now and then for another protocol.
fn container_ports(rng: &mut Rng) -> Vec<Value> {
    let mut ports = Vec::new();
    if !rng.one_in(3) {
        let number = *rng.pick(&[80, 8080, 8081]).unwrap_or(&80);
        let protocol = if rng.one_in(6) { "UDP" } else { "TCP" };
        ports.push(json!({"name": "http", "containerPort": number, "protocol": protocol}));
    }
    if rng.one_in(2) {
        ports.push(
            json!({"name": "dns", "containerPort": *rng.pick(&[53, 5353]).unwrap_or(&53), "protocol": "UDP"}),
        );
    }
    if rng.one_in(3) {
        ports.push(json!({"name": "signal", "containerPort": 3868, "protocol": "SCTP"}));
    }
    if rng.one_in(3) {
        ports.push(json!({"name": "metrics", "containerPort": 9090}));
    }
    ports
}

impl Vocabulary {
    fn namespace(&mut self) -> String {
        self.rng.pick(&self.namespaces).cloned().unwrap_or_default()
    }

    /// A block, and blocks inside it.
    fn block(&mut self) -> (String, Vec<String>) {
        let over_pods = self.blocks == Blocks::OverPods && self.rng.one_in(2);
        let six = self.dual_stack && self.rng.one_in(3);
        let (block, inside): (&str, &[&str]) = match (over_pods, six) {
            (false, false) => *self.rng.pick(&OUTSIDE_4).unwrap_or(&("203.0.113.0/24", &[])),
            (false, true) => *self.rng.pick(&OUTSIDE_6).unwrap_or(&("2001:db8::/32", &[])),
            (true, false) => *self.rng.pick(&PODS_4).unwrap_or(&("10.0.0.0/8", &[])),
            (true, true) => *self.rng.pick(&PODS_6).unwrap_or(&("fd00::/16", &[])),
        };
        let mut except = Vec::new();
        for block in inside {
            if self.rng.one_in(3) {
                except.push((*block).to_owned());
            }
        }
        (block.to_owned(), except)
    }
}

/// The addresses outside the cluster that packets come from and go to: on both sides of every edge of the blocks.
const EXTERNAL: [&str; 6] =
    ["203.0.113.4", "203.0.113.130", "198.51.100.7", "192.0.2.200", "2001:db8:1::9", "2001:db8:ffff::1"];

type Block = (&'static str, &'static [&'static str]);

const OUTSIDE_4: [Block; 5] = [
    ("203.0.113.0/24", &["203.0.113.128/25", "203.0.113.0/29"]),
    ("203.0.113.128/25", &["203.0.113.130/32"]),
    ("198.51.100.0/24", &["198.51.100.0/28"]),
    ("192.0.2.200/32", &[]),
    ("192.0.0.0/14", &["192.0.2.0/25", "192.0.2.128/25"]),
];
const OUTSIDE_6: [Block; 2] =
    [("2001:db8::/32", &["2001:db8:1::/48"]), ("2001:db8:1::/48", &["2001:db8:1::9/128"])];
const PODS_4: [Block; 4] = [
    ("0.0.0.0/0", &["10.0.0.0/16", "203.0.113.0/24"]),
    ("10.0.0.0/8", &["10.0.1.0/24", "10.0.0.1/32"]),
    ("10.0.0.0/24", &["10.0.0.2/31"]),
    ("10.0.1.2/32", &[]),
];
const PODS_6: [Block; 2] = [("::/0", &["fd00::/16"]), ("fd00::/16", &["fd00::1:0/112"])];

/// The addresses of a pod, in the order of its status.
pub(crate) fn addresses(pod: &Document) -> Vec<IpAddr> {
    let listed = pod.0.pointer("/status/podIPs").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(|entry| entry.get("ip")?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{Case, Dialect};

    #[test]
    fn a_seed_is_a_cluster_and_another_seed_another_one() {
        let texts: BTreeSet<String> =
            (0..200).map(|seed| Case::generate(seed, Dialect::CalicoAndKubernetes).manifests()).collect();
        assert_eq!(texts.len(), 200);
        let again = Case::generate(42, Dialect::CalicoAndKubernetes);
        assert!(texts.contains(&again.manifests()));
    }

    #[test]
    fn sizes_are_as_promised() {
        for seed in 0..300 {
            let case = Case::generate(seed, Dialect::Calico);
            let sizes = (case.namespaces.len(), case.pods.len(), case.policies.len());
            assert!(
                (2..=4).contains(&sizes.0) && (3..=8).contains(&sizes.1) && (1..=7).contains(&sizes.2),
                "{sizes:?}"
            );
        }
    }

    /// Each of these is a place where engines have been wrong; a generator that never makes one proves nothing about it.
    #[test]
    fn every_kubernetes_field_combination_comes_up() {
        let mut seen = BTreeSet::new();
        for seed in 0..2_000 {
            let case = Case::generate(seed, Dialect::Kubernetes);
            for policy in &case.policies {
                note(&mut seen, "", policy.0.get("spec").unwrap_or(&Value::Null));
            }
        }
        let wanted = [
            "policyTypes absent",
            "policyTypes []",
            "policyTypes null",
            "policyTypes Egress",
            "policyTypes Ingress",
            "policyTypes Egress,Ingress",
            "policyTypes Ingress,Egress",
            "ingress absent",
            "ingress []",
            "ingress null",
            "ingress [{}]",
            "ingress full",
            "egress absent",
            "egress []",
            "egress null",
            "egress [{}]",
            "egress full",
            "from absent",
            "from []",
            "from null",
            "from full",
            "to absent",
            "to []",
            "to null",
            "to full",
            "ports absent",
            "ports []",
            "ports null",
            "ports full",
            "peer podSelector",
            "peer namespaceSelector",
            "peer namespaceSelector+podSelector",
            "peer ipBlock",
            "except",
            "selector {}",
            "operator In",
            "operator NotIn",
            "operator Exists",
            "operator DoesNotExist",
            "port number",
            "port name",
            "port absent",
            "endPort",
            "protocol absent",
            "protocol TCP",
            "protocol UDP",
            "protocol SCTP",
            "inert ingress",
            "inert egress",
        ];
        let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
        assert!(missing.is_empty(), "never generated: {missing:?}");
    }

    fn state(value: Option<&Value>) -> &'static str {
        match value {
            None => "absent",
            Some(Value::Null) => "null",
            Some(Value::Array(items)) if items.is_empty() => "[]",
            Some(Value::Array(items)) if *items == [serde_json::json!({})] => "[{}]",
            Some(_) => "full",
        }
    }

    fn note(seen: &mut BTreeSet<String>, _path: &str, spec: &Value) {
        let types: Vec<_> =
            spec["policyTypes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let types =
            if types.is_empty() { state(spec.get("policyTypes")).to_owned() } else { types.join(",") };
        seen.insert(format!("policyTypes {types}"));
        for (rules, peers, kind) in [("ingress", "from", "Ingress"), ("egress", "to", "Egress")] {
            seen.insert(format!("{rules} {}", state(spec.get(rules))));
            if types.contains("gress") && !types.contains(kind) && state(spec.get(rules)) == "full" {
                seen.insert(format!("inert {rules}"));
            }
            for rule in spec[rules].as_array().into_iter().flatten() {
                seen.insert(format!("{peers} {}", state(rule.get(peers))));
                seen.insert(format!("ports {}", state(rule.get("ports"))));
                for peer in rule[peers].as_array().into_iter().flatten() {
                    let fields: Vec<_> = ["ipBlock", "namespaceSelector", "podSelector"]
                        .into_iter()
                        .filter(|f| !peer[f].is_null())
                        .collect();
                    seen.insert(format!("peer {}", fields.join("+")));
                    if !peer["ipBlock"]["except"].is_null() {
                        seen.insert("except".into());
                    }
                    for selector in [&peer["podSelector"], &peer["namespaceSelector"]] {
                        if selector.as_object().is_some_and(serde_json::Map::is_empty) {
                            seen.insert("selector {}".into());
                        }
                        for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
                            seen.insert(format!("operator {}", requirement["operator"].as_str().unwrap()));
                        }
                    }
                }
                for port in rule["ports"].as_array().into_iter().flatten() {
                    seen.insert(format!("protocol {}", port["protocol"].as_str().unwrap_or("absent")));
                    let form = match &port["port"] {
                        Value::Null => "port absent",
                        Value::String(_) => "port name",
                        _ => "port number",
                    };
                    seen.insert(form.into());
                    if !port["endPort"].is_null() {
                        seen.insert("endPort".into());
                    }
                }
            }
        }
    }
}
