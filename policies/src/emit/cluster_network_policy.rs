//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy in the Admin tier, which no NetworkPolicy can override. Its ingress
//! rules know pods only (v1alpha2 has no `networks` there), so it stands beside the NetworkPolicy and does not replace it.

use super::{DNS_PROTOCOLS, EmitError, PoolIntent, everywhere, labels_value, namespace_selector};
use crate::cluster::Labels;
use crate::sets::{Cidr, Family, Protocol};
use serde_json::{Value, json};

/// Behind what an administrator may want before it, before all else.
const PRIORITY: u16 = 100;

pub(super) fn policies(intent: &PoolIntent) -> Result<Vec<Value>, EmitError> {
    let to_pods = |name: &str, namespace: &str, labels: &Labels, ports: Vec<Value>| json!({ "name": name, "action": "Accept", "to": [{ "pods": pods(namespace, labels) }], "protocols": ports });
    let broker = &intent.broker;
    let mut egress =
        vec![to_pods("broker", &broker.namespace, &broker.pods, vec![port(Protocol::Tcp, broker.port)])];
    if let Some((addresses, service_port)) = &broker.service
        && !addresses.is_empty()
    {
        let networks: Vec<String> = addresses.iter().map(|a| Cidr::host(*a).to_string()).collect();
        egress.push(json!({
            "name": "broker-service", "action": "Accept", "to": [{ "networks": networks }],
            "protocols": [port(Protocol::Tcp, *service_port)],
        }));
    }
    for (i, (storage, blocks)) in intent.storage_blocks()?.into_iter().enumerate() {
        let networks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        egress.push(json!({
            "name": format!("storage-{i}"), "action": "Accept", "to": [{ "networks": networks }],
            "protocols": [port(Protocol::Tcp, storage.port)],
        }));
    }
    if let Some(dns) = &intent.dns {
        let ports = DNS_PROTOCOLS.iter().map(|protocol| port(*protocol, dns.port)).collect();
        egress.push(to_pods("dns", &dns.namespace, &dns.pods, ports));
    }
    // `networks` also matches pods by address; the selectors are for those whose address nobody knows yet.
    egress.push(json!({
        "name": "nothing-else", "action": "Deny",
        "to": [
            { "namespaces": {} },
            { "nodes": {} },
            { "networks": [everywhere(Family::V4), everywhere(Family::V6)] },
        ],
    }));
    Ok(vec![json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": intent.cluster_metadata(),
        "spec": {
            "tier": "Admin",
            "priority": PRIORITY,
            "subject": { "pods": pods(&intent.namespace, &intent.pods) },
            "ingress": [{ "name": "nobody", "action": "Deny", "from": [{ "namespaces": {} }] }],
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

fn port(protocol: Protocol, number: u16) -> Value {
    let key = protocol.to_string().to_lowercase();
    json!({ key: { "destinationPort": { "number": number } } })
}
