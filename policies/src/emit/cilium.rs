//! CiliumNetworkPolicy. A deny beats every allow, whoever writes it, so that this policy also holds where others are added.
//!
//! What remains open to a policy that is added, since no denial can say it: ICMP to whom the pool may reach; before Cilium 1.16,
//! which knows no ranges of ports, other ports of theirs; and to a pool that is given names, the world on the ports of those
//! names, whose addresses are not known.

use super::{DNS_PROTOCOLS, PoolIntent, everywhere};
use crate::cluster::Labels;
use crate::sets::{AddressSet, Cidr, Family, Protocol};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";

pub(super) fn policies(intent: &PoolIntent) -> Vec<Value> {
    let broker = endpoints(&intent.broker.namespace, &intent.broker.pods);
    let mut egress = vec![json!({ "toEndpoints": [broker], "toPorts": [tcp(intent.broker.port)] })];
    for storage in &intent.storage {
        if !storage.blocks.is_empty() {
            let blocks: Vec<String> = storage.blocks.iter().map(ToString::to_string).collect();
            egress.push(json!({ "toCIDR": blocks, "toPorts": [tcp(storage.port)] }));
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
            "egressDeny": denied(intent),
        },
    })]
}

/// Pods that some rule admits, and the ports that it does.
struct Admitted<'a> {
    namespace: &'a str,
    pods: &'a Labels,
    ports: BTreeSet<(Protocol, u16)>,
}

impl Admitted<'_> {
    /// Whether one pod may be both: nothing says that it is in two namespaces, or has two values of a label.
    fn may_be(&self, other: &Admitted<'_>) -> bool {
        let mut shared = self.pods.iter().filter_map(|(key, value)| Some((value, other.pods.get(key)?)));
        self.namespace == other.namespace && shared.all(|(own, theirs)| own == theirs)
    }
}

/// All that no rule of the policy means.
fn denied(intent: &PoolIntent) -> Vec<Value> {
    let mut admitted = vec![Admitted {
        namespace: &intent.broker.namespace,
        pods: &intent.broker.pods,
        ports: BTreeSet::from([(Protocol::Tcp, intent.broker.port)]),
    }];
    if let Some(dns) = &intent.dns {
        let ports = DNS_PROTOCOLS.into_iter().map(|protocol| (protocol, dns.port)).collect();
        admitted.push(Admitted { namespace: &dns.namespace, pods: &dns.pods, ports });
    }
    let mut deny = vec![json!({ "toEntities": ["host", "remote-node", "kube-apiserver"] })];
    deny.extend(other_pods(&admitted).into_iter().map(|selector| json!({ "toEndpoints": [selector] })));
    for one in &admitted {
        let kin = admitted.iter().filter(|other| one.may_be(other));
        let ports = kin.flat_map(|other| other.ports.iter().copied()).collect();
        deny.push(
            json!({ "toEndpoints": [endpoints(one.namespace, one.pods)], "toPorts": [all_but(&ports)] }),
        );
    }

    // A name may resolve to any address, and so to one of a block that another endpoint has.
    let named = intent.storage.iter().filter(|storage| storage.domain.is_some() && intent.dns.is_some());
    let named: BTreeSet<(Protocol, u16)> = named.map(|storage| (Protocol::Tcp, storage.port)).collect();
    for storage in intent.storage.iter().filter(|storage| !storage.blocks.is_empty()) {
        let own = AddressSet::blocks(storage.blocks.iter().copied());
        let kin = intent
            .storage
            .iter()
            .filter(|other| AddressSet::blocks(other.blocks.iter().copied()).intersects(&own));
        let ports = kin.map(|other| (Protocol::Tcp, other.port)).chain(named.iter().copied()).collect();
        let blocks: Vec<String> = storage.blocks.iter().map(ToString::to_string).collect();
        deny.push(json!({ "toCIDR": blocks, "toPorts": [all_but(&ports)] }));
    }
    let blocks: Vec<Cidr> =
        intent.storage.iter().flat_map(|storage| storage.blocks.iter().copied()).collect();
    let sets = [Family::V4, Family::V6].map(|family| world_but(family, &blocks));
    let mut world = json!({ "toCIDRSet": sets });
    if let (Some(world), false) = (world.as_object_mut(), named.is_empty()) {
        world.insert("toPorts".into(), json!([all_but(&named)]));
    }
    deny.push(world);
    deny
}

fn world_but(family: Family, blocks: &[Cidr]) -> Value {
    let except = blocks.iter().filter(|block| Family::of(block.base()) == family);
    let except: Vec<String> = except.map(ToString::to_string).collect();
    if except.is_empty() {
        json!({ "cidr": everywhere(family) })
    } else {
        json!({ "cidr": everywhere(family), "except": except })
    }
}

/// Every port of TCP, UDP and SCTP but these. Where ranges are not known, each is its first port, which is none of these
/// either: such a version denies less, and never what is meant to pass. Port `0` for all is refused by old versions.
fn all_but(ports: &BTreeSet<(Protocol, u16)>) -> Value {
    let mut ranges = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let mut first = 1_u16;
        let own = ports.iter().filter(|(of, _)| *of == protocol).map(|(_, port)| *port);
        for port in own.map(Some).chain([None]) {
            let last = port.map_or(u16::MAX, |port| port.saturating_sub(1));
            if first <= last && port != Some(0) {
                let mut range = json!({ "port": first.to_string(), "protocol": protocol.to_string() });
                if let (Some(range), true) = (range.as_object_mut(), first < last) {
                    range.insert("endPort".into(), json!(last));
                }
                ranges.push(range);
            }
            match port.and_then(|port| port.checked_add(1)) {
                Some(next) => first = next,
                None => break,
            }
        }
    }
    json!({ "ports": ranges })
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
fn other_pods(admitted: &[Admitted<'_>]) -> Vec<Value> {
    let mut ways: Vec<Vec<(String, &str)>> = vec![Vec::new()];
    for Admitted { namespace, pods, .. } in admitted {
        let facts: Vec<(String, &str)> = std::iter::once((NAMESPACE.to_owned(), *namespace))
            .chain(pods.iter().map(|(key, value)| (format!("k8s:{key}"), &**value)))
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
