//! `projectcalico.org/v3` policies: order, every action, both directions of every entity field, and the selector grammar.

use serde_json::{Map, Value, json};

use super::{NAMESPACE_KEYS, POD_KEYS, Vocabulary, values_of};
use crate::yaml::Document;

pub(super) fn policy(v: &mut Vocabulary, at: usize) -> Document {
    let global = v.rng.one_in(2);
    let mut spec = Map::new();
    match v.rng.below(6) {
        0 => {}
        1 => insert(&mut spec, "order", json!(999.5)),
        _ => insert(&mut spec, "order", json!(v.rng.pick(&[0, 10, 10, 500, 1000, 2000]))),
    }
    if v.rng.one_in(6) {
        insert(&mut spec, "tier", json!("default"));
    }
    if !v.rng.one_in(4) {
        let selector = pod_selector(v);
        insert(&mut spec, "selector", json!(selector));
    }
    if global && v.rng.one_in(3) {
        let selector = namespace_selector(v);
        insert(&mut spec, "namespaceSelector", json!(selector));
    }
    let (ingress, egress) = match v.rng.below(6) {
        0 => (true, false),
        1 => (false, true),
        2 => (false, false),
        _ => (true, true),
    };
    // Absent types follow from the rules; declared ones agree with them, since Calico's other engines refuse the rest.
    if v.rng.one_in(2) {
        let types: Vec<&str> = match (ingress, egress) {
            (true, false) => vec!["Ingress"],
            (false, true) => vec!["Egress"],
            _ => vec!["Ingress", "Egress"],
        };
        insert(&mut spec, "types", json!(types));
    }
    for (wanted, key) in [(ingress, "ingress"), (egress, "egress")] {
        if wanted {
            let count = v.rng.between(0, 4);
            let rules: Vec<Value> = (0..count).map(|_| rule(v)).collect();
            insert(&mut spec, key, Value::Array(rules));
        }
    }
    let metadata = if global {
        json!({"name": format!("gnp-{at}")})
    } else {
        json!({"name": format!("cnp-{at}"), "namespace": v.namespace()})
    };
    Document(json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": if global { "GlobalNetworkPolicy" } else { "NetworkPolicy" },
        "metadata": metadata,
        "spec": spec,
    }))
}

/// A named set of addresses outside the cluster, with labels that selectors meet.
pub(super) fn network_set(v: &mut Vocabulary) -> Document {
    let global = v.rng.one_in(2);
    let labels = super::labels(&mut v.rng, &POD_KEYS);
    let labels = if labels.is_empty() { json!({"app": "db"}) } else { Value::Object(labels) };
    let nets =
        [*v.rng.pick(&["203.0.113.0/25", "198.51.100.0/24"]).unwrap_or(&"198.51.100.0/24"), "192.0.2.200/32"];
    let metadata = if global {
        json!({"name": "set", "labels": labels})
    } else {
        json!({"name": "set", "namespace": v.namespace(), "labels": labels})
    };
    Document(json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": if global { "GlobalNetworkSet" } else { "NetworkSet" },
        "metadata": metadata,
        "spec": {"nets": nets},
    }))
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

fn rule(v: &mut Vocabulary) -> Value {
    let mut rule = Map::new();
    let action = v.rng.word(&["Allow", "Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"]);
    insert(&mut rule, "action", json!(action));
    let protocol = match v.rng.below(12) {
        0..=3 => Value::Null,
        4..=6 => json!("TCP"),
        7 | 8 => json!("UDP"),
        9 => json!("SCTP"),
        10 => json!(v.rng.pick(&[6, 17])),
        _ => json!(v.rng.word(&["ICMP", "ICMP", "ICMPv6"])),
    };
    let has_ports = ["TCP", "UDP", "SCTP"].iter().any(|p| protocol == **p) || protocol.is_number();
    let icmp = protocol == "ICMP" || protocol == "ICMPv6";
    if !protocol.is_null() {
        insert(&mut rule, "protocol", protocol);
    } else if v.rng.one_in(8) {
        insert(&mut rule, "notProtocol", json!(v.rng.word(&["TCP", "UDP", "ICMP"])));
    }
    if icmp && !v.rng.one_in(3) {
        let field = if v.rng.one_in(3) { "notICMP" } else { "icmp" };
        let kind = *v.rng.pick(&[8, 8, 0, 3]).unwrap_or(&8);
        let value = if v.rng.one_in(3) {
            json!({"type": kind, "code": v.rng.between(0, 1)})
        } else {
            json!({"type": kind})
        };
        insert(&mut rule, field, value);
    }
    if v.dual_stack && v.rng.one_in(40) {
        insert(&mut rule, "ipVersion", json!(v.rng.pick(&[4, 6])));
    }
    for side in ["source", "destination"] {
        if !v.rng.one_in(3) {
            let entity = entity(v, has_ports, side == "destination");
            insert(&mut rule, side, entity);
        }
    }
    Value::Object(rule)
}

fn entity(v: &mut Vocabulary, has_ports: bool, destination: bool) -> Value {
    let mut entity = Map::new();
    match v.rng.below(12) {
        0..=2 => {
            let selector = pod_selector(v);
            insert(&mut entity, "selector", json!(selector));
        }
        3 => {
            let selector = pod_selector(v);
            insert(&mut entity, "notSelector", json!(selector));
        }
        4 => {
            let (selector, not) = (pod_selector(v), pod_selector(v));
            insert(&mut entity, "selector", json!(selector));
            insert(&mut entity, "notSelector", json!(not));
        }
        5 | 6 => {
            let selector = namespace_selector(v);
            insert(&mut entity, "namespaceSelector", json!(selector));
            if v.rng.one_in(2) {
                let selector = pod_selector(v);
                insert(&mut entity, "selector", json!(selector));
            }
        }
        7 | 8 => {
            let nets = nets(v);
            insert(&mut entity, "nets", json!(nets));
            if v.rng.one_in(3) {
                let not = self::nets(v);
                insert(&mut entity, "notNets", json!(not));
            }
        }
        9 => {
            let nets = nets(v);
            insert(&mut entity, "notNets", json!(nets));
            if v.rng.one_in(2) {
                let selector = pod_selector(v);
                insert(&mut entity, "selector", json!(selector));
            }
        }
        _ => {}
    }
    // Source ports are rare in policies, and named ones mean nothing there.
    if has_ports && (destination || v.rng.one_in(6)) {
        if !v.rng.one_in(3) {
            let ports = ports(v, destination);
            insert(&mut entity, "ports", ports);
        }
        if v.rng.one_in(6) {
            let ports = ports(v, destination);
            insert(&mut entity, "notPorts", ports);
        }
    }
    Value::Object(entity)
}

fn nets(v: &mut Vocabulary) -> Vec<String> {
    let mut nets: Vec<String> = (0..v.rng.between(1, 2)).map(|_| v.block().0).collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

fn ports(v: &mut Vocabulary, named: bool) -> Value {
    let count = v.rng.between(1, 2);
    let ports: Vec<Value> = (0..count)
        .map(|_| match v.rng.below(6) {
            0 if named => json!(v.rng.word(&["http", "dns", "signal", "metrics"])),
            1 | 2 => json!(v.rng.word(&["53:80", "80:8080", "8080:65535", "1:1023", "40000:50000"])),
            _ => json!(v.rng.pick(&[53, 80, 3868, 8080, 8081, 9090])),
        })
        .collect();
    Value::Array(ports)
}

fn pod_selector(v: &mut Vocabulary) -> String {
    if v.rng.one_in(12) {
        let name = v.namespace();
        return format!("projectcalico.org/namespace == '{name}'");
    }
    expression(v, &POD_KEYS, 2)
}

fn namespace_selector(v: &mut Vocabulary) -> String {
    match v.rng.below(8) {
        0 => "all()".to_owned(),
        1 => "global()".to_owned(),
        2 => {
            let name = v.namespace();
            format!("projectcalico.org/name == '{name}'")
        }
        _ => expression(v, &NAMESPACE_KEYS, 1),
    }
}

/// An expression of the selector grammar, at most `depth` operators deep.
fn expression(v: &mut Vocabulary, keys: &[&'static str], depth: usize) -> String {
    if depth == 0 || !v.rng.one_in(3) {
        return term(v, keys);
    }
    let inner = depth.saturating_sub(1);
    match v.rng.below(5) {
        0 => format!("!({})", expression(v, keys, inner)),
        1 => format!("({})", expression(v, keys, inner)),
        2 | 3 => format!("{} && {}", operand(v, keys, inner), operand(v, keys, inner)),
        _ => format!("{} || {}", expression(v, keys, inner), expression(v, keys, inner)),
    }
}

/// An operand of `&&`: an `||` inside it needs brackets to stay one.
fn operand(v: &mut Vocabulary, keys: &[&'static str], depth: usize) -> String {
    let text = expression(v, keys, depth);
    if text.contains("||") && v.rng.one_in(2) { format!("({text})") } else { text }
}

/// A value of a label. Few other engines can read the empty one in a selector, and then give the whole cluster up.
fn value(v: &mut Vocabulary, key: &str) -> &'static str {
    let drawn = v.rng.word(values_of(key));
    if drawn.is_empty() && !v.rng.one_in(12) { v.rng.word(&["front", "prod"]) } else { drawn }
}

fn term(v: &mut Vocabulary, keys: &[&'static str]) -> String {
    let key = v.rng.word(keys);
    let (one, two) = (value(v, key), value(v, key));
    let quote = if v.rng.one_in(96) { '"' } else { '\'' };
    match v.rng.below(16) {
        0..=3 => format!("{key} == {quote}{one}{quote}"),
        4 | 5 => format!("{key} != {quote}{one}{quote}"),
        6 | 7 => format!("{key} in {{{quote}{one}{quote}, {quote}{two}{quote}}}"),
        8 => format!("{key} not in {{{quote}{one}{quote}, {quote}{two}{quote}}}"),
        9 => format!("has({key})"),
        10 => format!("!has({key})"),
        11 => format!("{key} contains '{}'", v.rng.word(&["e", "ta", "-2"])),
        12 => format!("{key} starts with '{}'", v.rng.word(&["sta", "w", "b"])),
        13 => format!("{key} ends with '{}'", v.rng.word(&["e", "-2", "k"])),
        // Other spellings of the same.
        14 if v.rng.one_in(24) => format!("{key} notin {{'{one}'}} && {key} startswith 's'"),
        14 => format!("!{key} == '{one}'"),
        _ => "all()".to_owned(),
    }
}
