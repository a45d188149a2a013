//! `networking.k8s.io/v1` NetworkPolicy. It can only allow: what nobody allows is denied, and another policy can add to it.

use super::{DNS_PROTOCOLS, EmitError, PoolIntent, labels_value, namespace_selector};
use crate::cluster::Labels;
use crate::sets::Cidr;
use serde_json::{Value, json};

pub(super) fn policies(intent: &PoolIntent) -> Result<Vec<Value>, EmitError> {
    let tcp = |port: u16| json!([{ "protocol": "TCP", "port": port }]);
    let mut egress = vec![json!({
        "to": [pods(&intent.broker.namespace, &intent.broker.pods)],
        "ports": tcp(intent.broker.port),
    })];
    if let Some((addresses, port)) = &intent.broker.service {
        let to: Vec<Value> = addresses.iter().map(|a| block(Cidr::host(*a))).collect();
        if !to.is_empty() {
            egress.push(json!({ "to": to, "ports": tcp(*port) }));
        }
    }
    for (storage, blocks) in intent.storage_blocks()? {
        let to: Vec<Value> = blocks.into_iter().map(block).collect();
        egress.push(json!({ "to": to, "ports": tcp(storage.port) }));
    }
    if let Some(dns) = &intent.dns {
        let ports: Vec<Value> =
            DNS_PROTOCOLS.iter().map(|p| json!({ "protocol": p.to_string(), "port": dns.port })).collect();
        egress.push(json!({ "to": [pods(&dns.namespace, &dns.pods)], "ports": ports }));
    }
    Ok(vec![json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": intent.metadata(),
        "spec": {
            "podSelector": { "matchLabels": labels_value(&intent.pods) },
            // Both are named: an absent list would leave egress as it is.
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": egress,
        },
    })])
}

fn pods(namespace: &str, labels: &Labels) -> Value {
    json!({
        "namespaceSelector": namespace_selector(namespace),
        "podSelector": { "matchLabels": labels_value(labels) },
    })
}

fn block(block: Cidr) -> Value {
    json!({ "ipBlock": { "cidr": block.to_string() } })
}
