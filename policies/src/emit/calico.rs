//! `projectcalico.org/v3` NetworkPolicy. Order 10 of the `default` tier comes before the NetworkPolicies, which stand at 1000;
//! the last rule of each direction denies, so that nothing after it can add.

use super::{DNS_PROTOCOLS, EmitError, PoolIntent};
use crate::cluster::Labels;
use crate::sets::Family;
use serde_json::{Value, json};

/// Before Kubernetes NetworkPolicies, with room for an administrator's own.
const ORDER: u16 = 10;

pub(super) fn policies(intent: &PoolIntent) -> Result<Vec<Value>, EmitError> {
    let broker = destination(&intent.broker.namespace, &intent.broker.pods, intent.broker.port);
    let mut egress = vec![json!({ "action": "Allow", "protocol": "TCP", "destination": broker })];
    for (storage, blocks) in intent.storage_blocks()? {
        // Calico refuses a rule whose blocks are of both families.
        for family in [Family::V4, Family::V6] {
            let of_family = blocks.iter().filter(|block| Family::of(block.base()) == family);
            let nets: Vec<String> = of_family.map(ToString::to_string).collect();
            if !nets.is_empty() {
                egress.push(json!({
                    "action": "Allow", "protocol": "TCP",
                    "destination": { "nets": nets, "ports": [storage.port] },
                }));
            }
        }
    }
    if let Some(dns) = &intent.dns {
        for protocol in DNS_PROTOCOLS {
            let to = destination(&dns.namespace, &dns.pods, dns.port);
            egress.push(json!({ "action": "Allow", "protocol": protocol.to_string(), "destination": to }));
        }
    }
    egress.push(json!({ "action": "Deny" }));
    Ok(vec![json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": intent.metadata(),
        "spec": {
            "tier": "default",
            "order": ORDER,
            "selector": selector(&intent.pods),
            "types": ["Ingress", "Egress"],
            "ingress": [{ "action": "Deny" }],
            "egress": egress,
        },
    })])
}

fn destination(namespace: &str, labels: &Labels, port: u16) -> Value {
    json!({
        "namespaceSelector": format!("projectcalico.org/name == '{namespace}'"),
        "selector": selector(labels),
        "ports": [port],
    })
}

/// Label values hold no quotes, so that quoting needs no escapes.
fn selector(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key} == '{value}'")).collect::<Vec<_>>().join(" && ")
}
