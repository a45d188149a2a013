//! The packets that a small cluster is asked about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::{Case, Dialect, EXTERNAL, addresses};
use crate::rng::Rng;

/// One end of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoint {
    /// `namespace/name` of a pod; absent for an address outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The address: the pod's, in the packet's family, or one outside.
    pub ip: IpAddr,
}

/// The type and code of an ICMP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpType {
    /// Type, such as 8 for an echo request.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// One packet that opens a connection. It serialises to what the foreign engines read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Query {
    /// Where it comes from.
    pub src: Endpoint,
    /// Where it goes.
    pub dst: Endpoint,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` or `ICMPv6`.
    pub protocol: &'static str,
    /// The destination port; 0 for ICMP.
    pub port: u16,
    /// The source port; 0 for ICMP.
    pub src_port: u16,
    /// Type and code of ICMP.
    #[serde(flatten, serialize_with = "icmp_fields")]
    pub icmp: Option<IcmpType>,
}

/// `icmp_type` and `icmp_code` beside the other fields.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn icmp_fields<S: serde::Serializer>(icmp: &Option<IcmpType>, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(None)?;
    if let Some(icmp) = icmp {
        map.serialize_entry("icmp_type", &icmp.kind)?;
        map.serialize_entry("icmp_code", &icmp.code)?;
    }
    map.end()
}

impl Query {
    /// Whether it goes from a pod to the same pod.
    #[must_use]
    pub fn is_to_itself(&self) -> bool {
        self.src.pod.is_some() && self.src.pod == self.dst.pod
    }
}

/// Source ports on both sides of the ranges that generated rules name.
const SOURCE_PORTS: [u16; 3] = [45_000, 80, 8080];

pub(super) fn queries(case: &Case, limit: usize) -> Vec<Query> {
    // A stream of its own: the packets do not depend on how many numbers the cluster took.
    let mut rng = Rng::new(case.seed ^ 0x0071_7565_7269_6573);
    let ports: Vec<u16> = interesting_ports(case).into_iter().collect();
    let endpoints = endpoints(case);
    let mut pairs = Vec::new();
    for src in &endpoints {
        for dst in &endpoints {
            let inside = src.pod.is_some() || dst.pod.is_some();
            if inside && src.ip.is_ipv4() == dst.ip.is_ipv4() {
                pairs.push((src, dst));
            }
        }
    }
    let mut queries = Vec::new();
    let mut seen = BTreeSet::new();
    // Every pair once before any pair twice, as far as the limit reaches.
    let mut round = pairs.clone();
    while queries.len() < limit && seen.len() < limit.saturating_mul(4) {
        if round.is_empty() {
            round.clone_from(&pairs);
        }
        if round.is_empty() {
            break;
        }
        let (src, dst) = round.swap_remove(rng.below(round.len()));
        let query = packet(&mut rng, case.dialect, src, dst, &ports);
        let key = serde_json::to_string(&query).unwrap_or_default();
        // A drawn number keeps the loop finite where the packets run out.
        let fresh = seen.insert(key);
        if fresh {
            queries.push(query);
        } else {
            seen.insert(format!("again {}", seen.len()));
        }
    }
    queries
}

fn packet(rng: &mut Rng, dialect: Dialect, src: &Endpoint, dst: &Endpoint, ports: &[u16]) -> Query {
    let (src, dst) = (src.clone(), dst.clone());
    if dialect != Dialect::Kubernetes && rng.one_in(8) {
        let protocol = if dst.ip.is_ipv4() { "ICMP" } else { "ICMPv6" };
        let kind = *rng.pick(&[8, 8, 0, 3, 128]).unwrap_or(&8);
        let icmp = Some(IcmpType { kind, code: u8::from(rng.one_in(3)) });
        return Query { src, dst, protocol, port: 0, src_port: 0, icmp };
    }
    Query {
        src,
        dst,
        protocol: rng.word(&["TCP", "TCP", "TCP", "UDP", "UDP", "SCTP"]),
        port: rng.pick(ports).copied().unwrap_or(80),
        src_port: rng.pick(&SOURCE_PORTS).copied().unwrap_or(45_000),
        icmp: None,
    }
}

/// Every address of every pod, and some outside.
fn endpoints(case: &Case) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for pod in &case.pods {
        let name = format!("{}/{}", pod.namespace(), pod.name());
        for ip in addresses(pod) {
            endpoints.push(Endpoint { pod: Some(name.clone()), ip });
        }
    }
    endpoints.extend(EXTERNAL.iter().filter_map(|text| Some(Endpoint { pod: None, ip: text.parse().ok()? })));
    endpoints
}

/// The ports that the manifests name, their neighbours, and one that nobody names.
fn interesting_ports(case: &Case) -> BTreeSet<u16> {
    let mut named = BTreeSet::from([12_345]);
    for document in case.pods.iter().chain(&case.policies) {
        collect_ports(&document.0, "", &mut named);
    }
    let mut ports = BTreeSet::new();
    for port in named {
        ports.extend([port.saturating_sub(1).max(1), port, port.saturating_add(1)]);
    }
    ports
}

fn collect_ports(value: &Value, key: &str, ports: &mut BTreeSet<u16>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| collect_ports(value, key, ports)),
        Value::Array(items) => items.iter().for_each(|value| collect_ports(value, key, ports)),
        Value::Number(number) if is_port(key) => {
            ports.extend(number.as_u64().and_then(|n| u16::try_from(n).ok()));
        }
        // Calico writes ranges as "80:8080".
        Value::String(text) if is_port(key) => {
            ports.extend(text.split(':').filter_map(|n| n.parse::<u16>().ok()))
        }
        _ => {}
    }
}

fn is_port(key: &str) -> bool {
    matches!(key, "port" | "endPort" | "containerPort" | "ports" | "notPorts")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Case, Dialect};

    #[test]
    fn packets_reach_every_pod_in_both_directions_and_repeat_exactly() {
        for seed in 0..50 {
            let case = Case::generate(seed, Dialect::Calico);
            let queries = case.queries(300);
            assert_eq!(queries, case.queries(300));
            let sources: BTreeSet<_> = queries.iter().filter_map(|q| q.src.pod.clone()).collect();
            let destinations: BTreeSet<_> = queries.iter().filter_map(|q| q.dst.pod.clone()).collect();
            assert_eq!(
                (sources.len(), destinations.len()),
                (case.pods.len(), case.pods.len()),
                "seed {seed}"
            );
            assert!(queries.iter().all(|q| q.src.ip.is_ipv4() == q.dst.ip.is_ipv4()));
        }
    }

    #[test]
    fn a_packet_is_written_as_the_engines_read_it() {
        let case = Case::generate(3, Dialect::Calico);
        let lines: BTreeSet<String> = case
            .queries(300)
            .iter()
            .map(|q| {
                let value = serde_json::to_value(q).unwrap();
                let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
                keys.sort();
                keys.join(",")
            })
            .collect();
        let with_ports = "dst,port,protocol,src,src_port".to_owned();
        let with_icmp = "dst,icmp_code,icmp_type,port,protocol,src,src_port".to_owned();
        assert_eq!(lines, BTreeSet::from([with_ports, with_icmp]));
    }
}
