//! Verdicts against two independent engines, over thousands of packets of generated clusters: cyclonus for NetworkPolicy,
//! network-config-analyzer for NetworkPolicy and Calico. The engines refuse what they are known to get wrong
//! (policies/oracles/README.md), so that every verdict they give must be ours; a contradiction is shrunk before it is shown.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    reason = "tests"
)]

#[path = "support/oracle.rs"]
mod oracle;

use mpegflow_policies::cluster::Cluster;
use mpegflow_policies::evaluate::{EndpointId, Evaluation, Options};
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::sets::{AddressSet, Cidr, Protocol};
use mpegflow_policies_generator::shrink::shrink;
use mpegflow_policies_generator::small::{Case, Dialect, Endpoint, Query};
use oracle::{Oracle, Verdict};
use serde_json::{Value, to_value};

const CASES: u64 = 600;
const PACKETS: usize = 100;

fn cluster(case: &Case) -> Option<Cluster> {
    let mut input = Input::new(Limits::default());
    input.add("case.yaml", case.manifests()).unwrap();
    // What the reader refuses, the API server or Calico would.
    read::cluster(&input, &ReadOptions::default()).ok().map(|reading| reading.cluster)
}

/// What we say about each packet: `None` where it is unknown, or where source ports decide, of which the sender has the choice.
fn ours(case: &Case, profile: Profile, queries: &[Query]) -> Option<Vec<Option<bool>>> {
    let cluster = cluster(case)?;
    let picks_source_port = format!("{:?}", cluster.policies).contains("SourcePorts");
    let outside = queries.iter().flat_map(|query| [&query.src, &query.dst]).filter(|end| end.pod.is_none());
    let addresses = outside.map(|end| AddressSet::block(Cidr::host(end.ip))).collect();
    let evaluation = Evaluation::new(&cluster, profile, Options { addresses, ..Options::default() }).unwrap();
    // A shrunk case may lack the packet's pods.
    let find = |end: &Endpoint| -> Option<EndpointId> {
        match end.pod.as_ref().and_then(|name| name.split_once('/')) {
            Some((namespace, name)) => {
                let is = |p: &mpegflow_policies::cluster::Pod| {
                    *p.namespace == *namespace && *p.object.name == *name
                };
                evaluation.pod(cluster.pods.iter().position(is)?)
            }
            None => evaluation.address(end.ip),
        }
    };
    Some(
        queries
            .iter()
            .map(|query| {
                let icmp = query.icmp.map_or(0, |icmp| u16::from(icmp.kind) * 256 + u16::from(icmp.code));
                let (protocol, port) = match query.protocol {
                    "TCP" => (Protocol::Tcp, query.port),
                    "UDP" => (Protocol::Udp, query.port),
                    "SCTP" => (Protocol::Sctp, query.port),
                    "ICMP" => (Protocol::Icmp, icmp),
                    _ => (Protocol::Icmpv6, icmp),
                };
                let verdict = evaluation.verdict(find(&query.src)?, find(&query.dst)?);
                match (verdict.allowed.contains(protocol, port), verdict.denied.contains(protocol, port)) {
                    (true, _) if picks_source_port => None,
                    (true, _) => Some(true),
                    (_, true) => Some(false),
                    _ => None,
                }
            })
            .collect(),
    )
}

fn theirs(engine: &mut Oracle, case: &Case, queries: &[Query]) -> Vec<Option<bool>> {
    let packets: Vec<Value> = queries.iter().map(|query| to_value(query).unwrap()).collect();
    let verdicts = engine
        .ask(&case.seed.to_string(), &case.manifests(), &packets)
        .unwrap_or_else(|reason| vec![Verdict::Refused(reason); queries.len()]);
    verdicts
        .into_iter()
        .map(|verdict| if let Verdict::Judged { allowed, .. } = verdict { Some(allowed) } else { None })
        .collect()
}

fn contradict(one: Option<bool>, other: Option<bool>) -> bool {
    matches!((one, other), (Some(a), Some(b)) if a != b)
}

/// How many packets both judged; fails on the first contradiction.
fn compare(engine: &mut Oracle, dialect: Dialect, profile: &str) -> usize {
    let profile: Profile = profile.parse().unwrap();
    let mut judged = 0;
    for seed in 0..CASES {
        let mut case = Case::generate(seed, dialect);
        if dialect == Dialect::CalicoAndKubernetes {
            // network-config-analyzer lets a NetworkPolicy's `namespaceSelector` match network sets. Calico converts the selector
            // of each Kubernetes peer with `projectcalico.org/orchestrator == 'k8s'` (k8sSelectorToCalico in
            // libcalico-go/lib/backend/k8s/conversion), a label that pods have and sets do not.
            case.policies.retain(|policy| !policy.kind().ends_with("NetworkSet"));
        }
        let queries = case.queries(PACKETS);
        let Some(own) = ours(&case, profile, &queries) else { continue };
        let other = theirs(engine, &case, &queries);
        for ((query, a), b) in queries.iter().zip(&own).zip(&other) {
            // The engines leave self traffic to the reader.
            if query.is_to_itself() {
                continue;
            }
            judged += usize::from(a.is_some() && b.is_some());
            if contradict(*a, *b) {
                let packet = std::slice::from_ref(query);
                let least = shrink(&case, |smaller| {
                    ours(smaller, profile, packet)
                        .is_some_and(|own| contradict(own[0], theirs(engine, smaller, packet)[0]))
                });
                panic!(
                    "seed {seed} under {profile}, packet {}: we say {a:?}, {engine:?} says {b:?}\n{}",
                    to_value(query).unwrap(),
                    least.manifests()
                );
            }
        }
    }
    judged
}

#[test]
fn network_policies_come_out_as_cyclonus_says() {
    let mut cyclonus = Oracle::start("cyclonus").unwrap();
    let judged = compare(&mut cyclonus, Dialect::Kubernetes, "calico");
    assert!(judged > 20_000, "both judged only {judged} packets");
}

#[test]
fn network_policies_come_out_as_network_config_analyzer_says() {
    let mut nca = Oracle::start("nca").unwrap();
    let judged = compare(&mut nca, Dialect::Kubernetes, "calico");
    assert!(judged > 20_000, "both judged only {judged} packets");
}

#[test]
fn calico_policies_come_out_as_network_config_analyzer_says() {
    let mut nca = Oracle::start("nca").unwrap();
    let judged: usize = [Dialect::Calico, Dialect::CalicoAndKubernetes]
        .into_iter()
        .map(|dialect| compare(&mut nca, dialect, "calico"))
        .sum();
    assert!(judged > 10_000, "both judged only {judged} packets");
}
