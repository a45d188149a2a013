//! CiliumNetworkPolicy. A deny beats every allow, whoever writes it, so that this policy also holds where others are added.

use super::{DNS_PROTOCOLS, PoolIntent, everywhere};
use crate::cluster::Labels;
use crate::sets::Family;
use serde_json::{Map, Value, json};

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";

pub(super) fn policies(intent: &PoolIntent) -> Vec<Value> {
    let broker = endpoints(&intent.broker.namespace, &intent.broker.pods);
    let mut egress = vec![json!({ "toEndpoints": [broker], "toPorts": [tcp(intent.broker.port)] })];
    let mut admitted = vec![(&intent.broker.namespace, &intent.broker.pods)];
    let mut storage_blocks = Vec::new();
    for storage in &intent.storage {
        if !storage.blocks.is_empty() {
            let blocks: Vec<String> = storage.blocks.iter().map(ToString::to_string).collect();
            egress.push(json!({ "toCIDR": blocks, "toPorts": [tcp(storage.port)] }));
            storage_blocks.extend(storage.blocks.iter().copied());
        }
        if let (Some(domain), true) = (&storage.domain, intent.dns.is_some()) {
            egress.push(json!({ "toFQDNs": [{ "matchName": &**domain }], "toPorts": [tcp(storage.port)] }));
        }
    }
    let names: Vec<&str> = intent.storage.iter().filter_map(|storage| storage.domain.as_deref()).collect();
    if let Some(dns) = &intent.dns {
        let ports: Vec<Value> = DNS_PROTOCOLS
            .iter()
            .map(|p| json!({ "port": dns.port.to_string(), "protocol": p.to_string() }))
            .collect();
        // Only the names that are needed: a resolver that answers any name is a way out for data.
        let mut rule = json!({ "ports": ports });
        if let (Some(rule), false) = (rule.as_object_mut(), names.is_empty()) {
            let names: Vec<Value> = names.iter().map(|name| json!({ "matchName": name })).collect();
            rule.insert("rules".into(), json!({ "dns": names }));
        }
        egress.push(json!({ "toEndpoints": [endpoints(&dns.namespace, &dns.pods)], "toPorts": [rule] }));
        admitted.push((&dns.namespace, &dns.pods));
    }

    // What is denied is everything that no rule above can mean. Names are the exception: which addresses they have is
    // not known here, so the world is not denied to a pool that is given names.
    let mut deny = vec![json!({ "toEntities": ["host", "remote-node", "kube-apiserver"] })];
    deny.extend(other_pods(&admitted).into_iter().map(|selector| json!({ "toEndpoints": [selector] })));
    if names.is_empty() || intent.dns.is_none() {
        let sets: Vec<Value> = [Family::V4, Family::V6]
            .into_iter()
            .map(|family| {
                let except: Vec<String> = storage_blocks
                    .iter()
                    .filter(|block| Family::of(block.base()) == family)
                    .map(ToString::to_string)
                    .collect();
                if except.is_empty() {
                    json!({ "cidr": everywhere(family) })
                } else {
                    json!({ "cidr": everywhere(family), "except": except })
                }
            })
            .collect();
        deny.push(json!({ "toCIDRSet": sets }));
    }

    vec![json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": intent.metadata(),
        "spec": {
            "endpointSelector": { "matchLabels": prefixed(&intent.pods) },
            // One empty rule selects nobody and isolates; an empty list would be no section at all.
            "ingress": [{}],
            // The node itself is left out: the kubelet's probes come from there.
            "ingressDeny": [
                { "fromEntities": ["world", "remote-node"] },
                { "fromEndpoints": [{ "matchExpressions": [{ "key": NAMESPACE, "operator": "Exists" }] }] },
            ],
            "egress": egress,
            "egressDeny": deny,
        },
    })]
}

fn tcp(port: u16) -> Value {
    json!({ "ports": [{ "port": port.to_string(), "protocol": "TCP" }] })
}

fn prefixed(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(key, value)| (format!("k8s:{key}"), json!(&**value))).collect()
}

fn endpoints(namespace: &str, labels: &Labels) -> Value {
    let mut selector = prefixed(labels);
    selector.insert(NAMESPACE.into(), json!(namespace));
    json!({ "matchLabels": selector })
}

/// Selectors that together match every pod but the admitted ones: a pod is another if it differs from each of them in at
/// least one of namespace and labels, so one selector for each way to differ from all.
fn other_pods(admitted: &[(&std::sync::Arc<str>, &Labels)]) -> Vec<Value> {
    let mut ways: Vec<Vec<(String, &str)>> = vec![Vec::new()];
    for (namespace, labels) in admitted {
        let facts: Vec<(String, &str)> = std::iter::once((NAMESPACE.to_owned(), &***namespace))
            .chain(labels.iter().map(|(key, value)| (format!("k8s:{key}"), &**value)))
            .collect();
        ways = ways
            .iter()
            .flat_map(|way| {
                facts
                    .iter()
                    .map(move |fact| way.iter().cloned().chain(std::iter::once(fact.clone())).collect())
            })
            .collect();
    }
    ways.iter()
        .map(|way| {
            let mut differ: Vec<Value> = way
                .iter()
                .map(|(key, value)| json!({ "key": key, "operator": "NotIn", "values": [value] }))
                .collect();
            // Without this a policy in a namespace would mean that namespace's pods alone.
            differ.push(json!({ "key": NAMESPACE, "operator": "Exists" }));
            json!({ "matchExpressions": differ })
        })
        .collect()
}
