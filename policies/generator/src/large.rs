//! Large clusters to time engines on: as many pods and policies as asked for, in the shapes that real ones have.
//!
//! Honest means: nothing here is chosen so that one way of evaluating has it easy. Pods differ in labels, namespaces and
//! ports; every policy is different; blocks have holes; names resolve differently from pod to pod. Address blocks lie
//! outside the pods' range, since engines disagree about a block that covers a pod, and then they would not compute the same.

use serde_json::{Map, Value, json};

use crate::rng::Rng;
use crate::yaml::Document;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many pods, up to 2²⁴.
    pub pods: usize,
    /// How many policies.
    pub policies: usize,
    /// What to draw from.
    pub seed: u64,
    /// Every pod has labels of its own, and policies name every digit of them: no two pods are the same to all selectors.
    /// Otherwise pods come in sets of equal ones, [`LABEL_SETS`] of them where there are pods enough.
    pub all_distinct: bool,
}

/// How many sets of equal pods there are in a cluster that is not all distinct.
pub const LABEL_SETS: usize = 1_250;
/// How many namespaces there are, where there are pods enough.
pub const NAMESPACES: usize = 50;
/// How many different address blocks the policies name, where there are policies enough.
pub const BLOCKS: usize = 200;

/// Pods of a cluster with distinct ones carry their number in base 4, one label for each digit: 4⁸ numbers.
const DIGITS: usize = 8;
const DIGIT_VALUES: [&str; 4] = ["a", "b", "c", "d"];
const TIERS: [&str; 4] = ["front", "middle", "back", "batch"];
const TRACKS: [&str; 3] = ["stable", "canary", "legacy"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];
const TEAMS: usize = 10;

/// A large cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `v1` `Namespace`.
    pub namespaces: Vec<Document>,
    /// `v1` `Pod`.
    pub pods: Vec<Document>,
    /// `networking.k8s.io/v1` `NetworkPolicy`.
    pub policies: Vec<Document>,
}

impl Cluster {
    /// The cluster of a shape. The same shape gives the same cluster.
    #[must_use]
    pub fn generate(shape: Shape) -> Self {
        Self::with_label_sets(shape, if shape.all_distinct { shape.pods } else { LABEL_SETS })
    }

    /// The cluster of a shape with as many different sets of labels, where there are pods enough: to see what depends on them
    /// and not on the number of pods. With [`Shape::all_distinct`] the policies tell all sets apart.
    #[must_use]
    pub fn with_label_sets(shape: Shape, sets: usize) -> Self {
        let mut rng = Rng::new(shape.seed);
        let namespaces = NAMESPACES.min(shape.pods.div_ceil(4)).max(1);
        let sets = sets.min(shape.pods);
        let templates: Vec<Template> =
            (0..sets).map(|at| template(&mut rng, at, shape.all_distinct)).collect();
        let mut maker =
            Maker { rng, namespaces, sets: &templates, all_distinct: shape.all_distinct, blocks: 0 };
        Self {
            namespaces: (0..namespaces).map(namespace).collect(),
            pods: templates
                .iter()
                .cycle()
                .take(shape.pods)
                .enumerate()
                .map(|(at, template)| pod(at, template, namespaces))
                .collect(),
            policies: (0..shape.policies).map(|at| maker.policy(at)).collect(),
        }
    }
}

/// What equal pods share.
#[derive(Debug)]
struct Template {
    at: usize,
    labels: Map<String, Value>,
    ports: Vec<Value>,
}

impl Template {
    /// All pods of a set live in one namespace, as those of a Deployment do.
    const fn namespace(&self, namespaces: usize) -> usize {
        match self.at.checked_rem(namespaces) {
            Some(namespace) => namespace,
            None => 0,
        }
    }

    fn label(&self, key: &str) -> String {
        self.labels.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

fn template(rng: &mut Rng, at: usize, all_distinct: bool) -> Template {
    let mut labels = Map::new();
    let mut set = |key: &str, value: &str| {
        labels.insert(key.to_owned(), json!(value));
    };
    set("app.kubernetes.io/name", &format!("app-{at:05}"));
    set("tier", rng.word(&TIERS));
    set("track", rng.word(&TRACKS));
    if rng.one_in(3) {
        set("example.com/public", "true");
    }
    if rng.one_in(10) {
        set("example.com/quarantine", rng.word(&["full", "partial"]));
    }
    if all_distinct {
        for digit in 0..DIGITS {
            set(&digit_key(digit), digit_value(at, digit));
        }
    }
    let mut ports =
        vec![json!({"name": "http", "containerPort": *rng.pick(&[80, 8080, 8443]).unwrap_or(&80)})];
    if rng.one_in(2) {
        ports.push(json!({"name": "metrics", "containerPort": *rng.pick(&[9090, 9100]).unwrap_or(&9090)}));
    }
    if rng.one_in(8) {
        ports.push(
            json!({"name": "dns", "containerPort": *rng.pick(&[53, 5353]).unwrap_or(&53), "protocol": "UDP"}),
        );
    }
    Template { at, labels, ports }
}

fn digit_key(digit: usize) -> String {
    format!("digit-{digit}")
}

fn digit_value(number: usize, digit: usize) -> &'static str {
    let shift = u32::try_from(digit.saturating_mul(2)).unwrap_or(u32::MAX);
    let value = number.checked_shr(shift).unwrap_or_default() & 3;
    DIGIT_VALUES.get(value).copied().unwrap_or_default()
}

fn namespace_name(at: usize) -> String {
    format!("team-{at:02}")
}

fn team(namespace: usize) -> String {
    format!("team-{}", namespace.checked_rem(TEAMS).unwrap_or_default())
}

fn environment(namespace: usize) -> &'static str {
    let at = namespace.checked_rem(ENVIRONMENTS.len()).unwrap_or_default();
    ENVIRONMENTS.get(at).copied().unwrap_or_default()
}

fn namespace(at: usize) -> Document {
    let name = namespace_name(at);
    Document(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/metadata.name": name,
            "team": team(at),
            "environment": environment(at),
        }},
    }))
}

fn pod(at: usize, template: &Template, namespaces: usize) -> Document {
    let byte = |shift: u32| (at.saturating_add(1).checked_shr(shift).unwrap_or_default()) & 255;
    let address = format!("10.{}.{}.{}", byte(16), byte(8), byte(0));
    // Thirty pods on a node.
    let node = at.checked_div(30).unwrap_or_default();
    let host = format!("172.31.{}.{}", (node >> 8) & 255, node & 255);
    Document(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("app-{:05}-{at:05}", template.at),
            "namespace": namespace_name(template.namespace(namespaces)),
            "labels": template.labels,
        },
        "spec": {
            "nodeName": format!("node-{node:03}"),
            "containers": [{"name": "main", "image": "example.com/app:1", "ports": template.ports}],
        },
        "status": {"phase": "Running", "hostIP": host, "podIP": address, "podIPs": [{"ip": address}]},
    }))
}

struct Maker<'a> {
    rng: Rng,
    namespaces: usize,
    sets: &'a [Template],
    all_distinct: bool,
    blocks: usize,
}

impl Maker<'_> {
    fn policy(&mut self, at: usize) -> Document {
        let namespace = at.checked_rem(self.namespaces).unwrap_or_default();
        // The first round over the namespaces isolates them, as careful teams do; the rest opens what is needed.
        let first = at < self.namespaces;
        let mut spec = Map::new();
        let mut set = |key: &str, value: Value| {
            spec.insert(key.to_owned(), value);
        };
        if first {
            set("podSelector", json!({}));
            set("policyTypes", if at % 4 == 3 { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) });
            // The resolver, wherever it is; and its own team.
            set(
                "egress",
                json!([
                    {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                    {"to": [{"namespaceSelector": {"matchLabels": {"team": team(namespace)}}}]},
                ]),
            );
            set("ingress", json!([{"from": [{"podSelector": {}}]}]));
        } else {
            let subject = self.subject(namespace);
            set("podSelector", subject);
            let types = match self.rng.below(4) {
                0 => json!(["Ingress"]),
                1 => json!(["Egress"]),
                _ => json!(["Ingress", "Egress"]),
            };
            let ingress: Vec<Value> = (0..self.rng.between(1, 3)).map(|_| self.rule("from")).collect();
            let egress: Vec<Value> = (0..self.rng.between(1, 3)).map(|_| self.rule("to")).collect();
            if types.as_array().is_some_and(|t| t.contains(&json!("Ingress"))) {
                set("ingress", Value::Array(ingress));
            }
            if types.as_array().is_some_and(|t| t.contains(&json!("Egress"))) {
                set("egress", Value::Array(egress));
            }
            set("policyTypes", types);
        }
        Document(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{at:05}"), "namespace": namespace_name(namespace)},
            "spec": spec,
        }))
    }

    /// The pods that a policy is about: one application of its namespace, or a slice across them.
    fn subject(&mut self, namespace: usize) -> Value {
        let namespaces = self.namespaces;
        if self.rng.one_in(2) {
            let here: Vec<&Template> =
                self.sets.iter().filter(|s| s.namespace(namespaces) == namespace).collect();
            if let Some(set) = self.rng.pick(&here) {
                let name = set.label("app.kubernetes.io/name");
                return json!({"matchLabels": {"app.kubernetes.io/name": name}});
            }
        }
        self.slice()
    }

    /// A selector that takes in many applications.
    fn slice(&mut self) -> Value {
        if self.all_distinct && self.rng.one_in(2) {
            let digit = digit_key(self.rng.below(DIGITS));
            let values = [self.rng.word(&DIGIT_VALUES), self.rng.word(&DIGIT_VALUES)];
            let operator = self.rng.word(&["In", "In", "NotIn"]);
            return json!({"matchExpressions": [{"key": digit, "operator": operator, "values": values}]});
        }
        match self.rng.below(5) {
            0 => json!({"matchLabels": {"tier": self.rng.word(&TIERS)}}),
            1 => json!({"matchLabels": {"tier": self.rng.word(&TIERS), "track": self.rng.word(&TRACKS)}}),
            2 => json!({"matchExpressions": [
                {"key": "tier", "operator": "In", "values": [self.rng.word(&TIERS), self.rng.word(&TIERS)]},
                {"key": "example.com/quarantine", "operator": "DoesNotExist"},
            ]}),
            3 => json!({"matchExpressions": [
                {"key": "track", "operator": "NotIn", "values": [self.rng.word(&TRACKS)]},
                {"key": "example.com/public", "operator": "Exists"},
            ]}),
            _ => json!({
                "matchLabels": {"tier": self.rng.word(&TIERS)},
                "matchExpressions": [{"key": "example.com/quarantine", "operator": "NotIn", "values": ["full"]}],
            }),
        }
    }

    fn rule(&mut self, peers: &str) -> Value {
        let mut rule = Map::new();
        let list: Vec<Value> = (0..self.rng.between(1, 3)).map(|_| self.peer()).collect();
        // No address outside has a named port, and netpol-analyzer gives up on a rule that asks one for it.
        let named = peers == "from" || !list.iter().any(|peer| peer.get("ipBlock").is_some());
        rule.insert(peers.to_owned(), Value::Array(list));
        if !self.rng.one_in(6) {
            let ports: Vec<Value> = (0..self.rng.between(1, 3)).map(|_| self.port(named)).collect();
            rule.insert("ports".to_owned(), Value::Array(ports));
        }
        Value::Object(rule)
    }

    fn peer(&mut self) -> Value {
        match self.rng.below(8) {
            0 | 1 => json!({"podSelector": self.slice()}),
            2 => {
                let at = self.rng.below(TEAMS);
                json!({"namespaceSelector": {"matchLabels": {"team": format!("team-{at}")}}})
            }
            3 | 4 => json!({"namespaceSelector": self.namespace_selector(), "podSelector": self.slice()}),
            5 => {
                let name = self.rng.pick(self.sets).map(|set| set.label("app.kubernetes.io/name"));
                json!({
                    "namespaceSelector": {},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": name.unwrap_or_default()}},
                })
            }
            _ => self.block(),
        }
    }

    fn namespace_selector(&mut self) -> Value {
        match self.rng.below(3) {
            0 => json!({}),
            1 => json!({"matchExpressions": [
                {"key": "environment", "operator": "NotIn", "values": [self.rng.word(&ENVIRONMENTS)]},
            ]}),
            _ => {
                let name = namespace_name(self.rng.below(self.namespaces));
                json!({"matchLabels": {"kubernetes.io/metadata.name": name}})
            }
        }
    }

    /// The blocks in turn, so that all of them come up: 11.0.0.0/16, 11.1.0.0/16 … each with two holes.
    fn block(&mut self) -> Value {
        let at = self.blocks.checked_rem(BLOCKS).unwrap_or_default();
        self.blocks = self.blocks.saturating_add(1);
        json!({"ipBlock": {
            "cidr": format!("11.{at}.0.0/16"),
            "except": [format!("11.{at}.{}.0/24", at & 127), format!("11.{at}.128.0/17")],
        }})
    }

    fn port(&mut self, named: bool) -> Value {
        let form = if named { self.rng.below(8) } else { self.rng.between(4, 7) };
        match form {
            0 | 1 => json!({"port": "http"}),
            2 => json!({"protocol": "TCP", "port": "metrics"}),
            3 => json!({"protocol": "UDP", "port": "dns"}),
            4 => json!({"protocol": "TCP", "port": 8000, "endPort": self.rng.between(8001, 8999)}),
            5 => json!({"protocol": "UDP", "port": self.rng.between(5000, 5999)}),
            6 => json!({"protocol": "TCP", "port": self.rng.between(1, 65_535)}),
            _ => json!({"port": self.rng.pick(&[80, 443, 8080, 8443])}),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BLOCKS, Cluster, DIGIT_VALUES, DIGITS, LABEL_SETS, NAMESPACES, Shape};
    use crate::yaml::stream;

    const SHAPE: Shape = Shape { pods: 10_000, policies: 1_000, seed: 1, all_distinct: false };

    fn label_sets(cluster: &Cluster) -> BTreeSet<String> {
        cluster.pods.iter().map(|pod| pod.0["metadata"]["labels"].to_string()).collect()
    }

    #[test]
    fn the_cluster_of_the_comparison_is_as_hard_as_promised() {
        let cluster = Cluster::generate(SHAPE);
        assert_eq!(cluster, Cluster::generate(SHAPE));
        assert_eq!((cluster.pods.len(), cluster.policies.len()), (10_000, 1_000));
        assert_eq!((cluster.namespaces.len(), label_sets(&cluster).len()), (NAMESPACES, LABEL_SETS));
        let names: BTreeSet<_> = cluster.pods.iter().map(|p| (p.namespace(), p.name())).collect();
        let ips: BTreeSet<_> = cluster.pods.iter().map(|p| p.0["status"]["podIP"].to_string()).collect();
        assert_eq!((names.len(), ips.len()), (10_000, 10_000));

        let text = stream(&cluster.policies);
        let blocks: BTreeSet<_> = text.lines().filter(|l| l.contains("cidr: ")).collect();
        assert_eq!(blocks.len(), BLOCKS);
        let specs: BTreeSet<_> = cluster.policies.iter().map(|p| p.0["spec"].to_string()).collect();
        assert!(specs.len() > 900, "{} different policies", specs.len());
        for word in
            ["except:", "endPort:", "port: http", "port: metrics", "NotIn", "DoesNotExist", "Exists", "UDP"]
        {
            assert!(text.contains(word), "no policy has {word}");
        }
    }

    #[test]
    fn distinct_pods_are_told_apart_by_what_policies_name() {
        let cluster = Cluster::generate(Shape { all_distinct: true, ..SHAPE });
        assert_eq!(label_sets(&cluster).len(), 10_000);
        // Which digits a pod has is all that a selector over digits sees: distinct pods have distinct ones …
        let digits: BTreeSet<String> = cluster
            .pods
            .iter()
            .map(|pod| {
                (0..DIGITS).map(|d| pod.0["metadata"]["labels"][format!("digit-{d}")].to_string()).collect()
            })
            .collect();
        assert_eq!(digits.len(), 10_000);
        // … and policies name every one of them.
        let text = stream(&cluster.policies);
        let named: usize = (0..DIGITS).filter(|d| text.contains(&format!("key: digit-{d}\n"))).count();
        assert_eq!(named, DIGITS);
        assert!(DIGIT_VALUES.iter().all(|v| text.contains(&format!("- {v}\n"))));
    }

    #[test]
    fn small_shapes_work_too() {
        for pods in [0, 1, 7, 100] {
            let cluster = Cluster::generate(Shape { pods, policies: 10, seed: 3, all_distinct: false });
            assert_eq!((cluster.pods.len(), cluster.policies.len()), (pods, 10));
            for object in cluster.pods.iter().chain(&cluster.policies) {
                assert!(cluster.namespaces.iter().any(|n| n.name() == object.namespace()));
            }
        }
    }
}
