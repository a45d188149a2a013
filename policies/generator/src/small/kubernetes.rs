//! `networking.k8s.io/v1` `NetworkPolicy`: every field absent, null, empty and filled.

use serde_json::{Map, Value, json};

use super::{NAMESPACE_KEYS, POD_KEYS, Vocabulary, values_of};
use crate::yaml::Document;

pub(super) fn network_policy(v: &mut Vocabulary, at: usize) -> Document {
    let mut spec = Map::new();
    spec.insert("podSelector".to_owned(), label_selector(v, &POD_KEYS));
    match v.rng.below(9) {
        0 | 1 => {}
        2 => insert(&mut spec, "policyTypes", Value::Null),
        3 => insert(&mut spec, "policyTypes", json!([])),
        4 => insert(&mut spec, "policyTypes", json!(["Ingress"])),
        5 => insert(&mut spec, "policyTypes", json!(["Egress"])),
        6 => insert(&mut spec, "policyTypes", json!(["Egress", "Ingress"])),
        _ => insert(&mut spec, "policyTypes", json!(["Ingress", "Egress"])),
    }
    list(v, &mut spec, "ingress", 3, |v| rule(v, "from"));
    list(v, &mut spec, "egress", 3, |v| rule(v, "to"));
    Document(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("np-{at}"), "namespace": v.namespace()},
        "spec": spec,
    }))
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

/// Leaves the list out, or makes it null, empty, or up to `most` items long: each means something else somewhere.
fn list(
    v: &mut Vocabulary,
    map: &mut Map<String, Value>,
    key: &str,
    most: usize,
    item: impl Fn(&mut Vocabulary) -> Value,
) {
    match v.rng.below(10) {
        0 | 1 => {}
        2 => insert(map, key, Value::Null),
        3 => insert(map, key, json!([])),
        _ => {
            let items: Vec<Value> = (0..v.rng.between(1, most)).map(|_| item(v)).collect();
            insert(map, key, Value::Array(items));
        }
    }
}

fn rule(v: &mut Vocabulary, peers: &str) -> Value {
    let mut rule = Map::new();
    if !v.rng.one_in(8) {
        list(v, &mut rule, peers, 3, peer);
        list(v, &mut rule, "ports", 3, port);
    }
    Value::Object(rule)
}

fn peer(v: &mut Vocabulary) -> Value {
    match v.rng.below(8) {
        0 | 1 => json!({"podSelector": label_selector(v, &POD_KEYS)}),
        2 | 3 => json!({"namespaceSelector": namespace_selector(v)}),
        4 | 5 => {
            json!({"podSelector": label_selector(v, &POD_KEYS), "namespaceSelector": namespace_selector(v)})
        }
        _ => {
            let (cidr, except) = v.block();
            if except.is_empty() {
                json!({"ipBlock": {"cidr": cidr}})
            } else {
                json!({"ipBlock": {"cidr": cidr, "except": except}})
            }
        }
    }
}

fn port(v: &mut Vocabulary) -> Value {
    let mut port = Map::new();
    match v.rng.below(6) {
        0 | 1 => {}
        2 => insert(&mut port, "protocol", json!("UDP")),
        3 => insert(&mut port, "protocol", json!("SCTP")),
        _ => insert(&mut port, "protocol", json!("TCP")),
    }
    match v.rng.below(8) {
        0 => {}
        1 | 2 => insert(
            &mut port,
            "port",
            json!(v.rng.word(&["http", "http", "dns", "signal", "metrics", "nobody"])),
        ),
        3 | 4 => {
            let first = *v.rng.pick(&[1, 53, 80, 8000, 32_768]).unwrap_or(&1);
            let last = *v.rng.pick(&[80, 8080, 8081, 65_535]).unwrap_or(&65_535);
            insert(&mut port, "port", json!(first));
            insert(&mut port, "endPort", json!(last.max(first)));
        }
        _ => insert(&mut port, "port", json!(v.rng.pick(&[53, 80, 3868, 5353, 8080, 8081, 9090]))),
    }
    Value::Object(port)
}

fn namespace_selector(v: &mut Vocabulary) -> Value {
    if v.rng.one_in(4) {
        let name = v.namespace();
        return json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    }
    label_selector(v, &NAMESPACE_KEYS)
}

fn label_selector(v: &mut Vocabulary, keys: &[&'static str]) -> Value {
    let mut selector = Map::new();
    let form = v.rng.below(6);
    if matches!(form, 1 | 2 | 5) {
        let mut labels = Map::new();
        for _ in 0..v.rng.between(1, 2) {
            let key = v.rng.word(keys);
            let value = v.rng.word(values_of(key));
            insert(&mut labels, key, json!(value));
        }
        insert(&mut selector, "matchLabels", Value::Object(labels));
    }
    if matches!(form, 3..=5) {
        let count = v.rng.between(1, 2);
        let requirements: Vec<Value> = (0..count).map(|_| requirement(v, keys)).collect();
        insert(&mut selector, "matchExpressions", Value::Array(requirements));
    }
    Value::Object(selector)
}

fn requirement(v: &mut Vocabulary, keys: &[&'static str]) -> Value {
    let key = v.rng.word(keys);
    let operator = v.rng.word(&["In", "NotIn", "Exists", "DoesNotExist"]);
    if matches!(operator, "Exists" | "DoesNotExist") {
        return json!({"key": key, "operator": operator});
    }
    let mut values: Vec<&str> = (0..v.rng.between(1, 2)).map(|_| v.rng.word(values_of(key))).collect();
    values.sort_unstable();
    values.dedup();
    json!({"key": key, "operator": operator, "values": values})
}
