//! The emitters as a property: whatever else is in a cluster, what is emitted for a pool makes its intent true under the profile
//! that it is emitted for, and where policies cannot decide, just what is known to stay open does.
//!
//! Each cluster is generated from a seed ([`scenario`]), the policies are emitted as YAML, read back with everything else, and
//! two things are looked at: the audit's verdict on the intent, and every pair that the pool is an end of.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "emitters/scenario.rs"]
mod scenario;

use mpegflow_policies::audit::{Request, intent, run};
use mpegflow_policies::cluster::Cluster;
use mpegflow_policies::emit::{PoolIntent, to_yaml};
use mpegflow_policies::evaluate::{Endpoint, Evaluation, Options};
use mpegflow_policies::places;
use mpegflow_policies::policy::{Dialect, Direction};
use mpegflow_policies::profile::{Cni, Profile};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::sets::{AddressSet, Cidr, PortSet, Protocol, Traffic};
use mpegflow_policies::truth::Truth;
use mpegflow_policies_generator::shrink::shrink;
use scenario::{Hostile, Scenario};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Clusters for each row of [`ROWS`].
const CLUSTERS: u64 = 250;

/// A profile, the dialects that are emitted for it, and whose policies in the pool's own namespace, or cluster-wide, they hold
/// against beside those of other tenants in theirs.
struct Row {
    profile: &'static str,
    dialects: &'static [Dialect],
    holds_against: &'static [&'static str],
}

const NP: Dialect = Dialect::NetworkPolicy;
const CILIUM: Dialect = Dialect::Cilium;
const CALICO: Dialect = Dialect::Calico;
const CLUSTER: Dialect = Dialect::ClusterNetworkPolicy;
const BESIDE_CILIUM: &[&str] = &["networking.k8s.io/v1", "cilium.io/v2"];
const BESIDE_CALICO: &[&str] = &["networking.k8s.io/v1", "projectcalico.org/v3"];
const BESIDE_CLUSTER: &[&str] = &["networking.k8s.io/v1", "policy.networking.k8s.io/v1alpha2"];
const BESIDE_ALL: &[&str] =
    &["networking.k8s.io/v1", "projectcalico.org/v3", "policy.networking.k8s.io/v1alpha2"];

/// Each dialect that a profile enforces, alone and with those that are applied beside it.
const ROWS: &[Row] = &[
    Row { profile: "cilium", dialects: &[NP], holds_against: &[] },
    Row { profile: "cilium", dialects: &[CILIUM], holds_against: BESIDE_CILIUM },
    Row { profile: "cilium", dialects: &[NP, CILIUM], holds_against: BESIDE_CILIUM },
    Row { profile: "cilium@1.15", dialects: &[NP], holds_against: &[] },
    Row { profile: "cilium@1.15", dialects: &[CILIUM], holds_against: BESIDE_CILIUM },
    Row { profile: "cilium@1.15", dialects: &[NP, CILIUM], holds_against: BESIDE_CILIUM },
    Row { profile: "calico", dialects: &[NP], holds_against: &[] },
    Row { profile: "calico", dialects: &[CALICO], holds_against: BESIDE_CALICO },
    Row { profile: "calico", dialects: &[NP, CALICO], holds_against: BESIDE_CALICO },
    Row { profile: "calico", dialects: &[CLUSTER], holds_against: BESIDE_CLUSTER },
    Row { profile: "calico", dialects: &[NP, CLUSTER], holds_against: BESIDE_CLUSTER },
    Row { profile: "calico", dialects: &[NP, CALICO, CLUSTER], holds_against: BESIDE_ALL },
    Row { profile: "calico@3.29", dialects: &[NP, CALICO], holds_against: BESIDE_CALICO },
    Row { profile: "aws-vpc", dialects: &[NP], holds_against: &[] },
    Row { profile: "generic", dialects: &[NP], holds_against: &[] },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    OwnNode,
    OtherNode,
    HostPod,
    Pod,
    FuturePod,
    Outside,
    Name,
}

/// Traffic that passes, or may, beyond what the pool asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    passes: Traffic,
    may_pass: Traffic,
}

fn sctp() -> Traffic {
    Protocol::Sctp.traffic()
}

/// All but TCP, UDP and SCTP.
fn other_protocols() -> Traffic {
    let ported = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    ported.iter().fold(Traffic::all(), |all, protocol| all.difference(&protocol.traffic()))
}

/// What no policy of the row's dialects decides: all that is open where nobody works against the pool.
fn left_open(row: &Row, direction: Direction, who: Who) -> Left {
    let sure = |passes: Traffic| Left { passes, may_pass: Traffic::none() };
    let unsure = |may_pass: Traffic| Left { passes: Traffic::none(), may_pass };
    let cni = row.profile.split('@').next().unwrap();
    match (cni, row.dialects, who) {
        // A ClusterNetworkPolicy's ingress rules know pods only.
        ("calico", [CLUSTER], Who::OtherNode | Who::Outside) if direction == Direction::Ingress => {
            sure(Traffic::all())
        }
        // The agent opens a pod's own node, and with it whatever host-network pods run there.
        ("aws-vpc", _, Who::OwnNode) => sure(Traffic::all()),
        ("aws-vpc", _, Who::HostPod) => unsure(Traffic::all()),
        // The specification promises that too, wants SCTP only where it is supported, and says nothing of other protocols.
        ("generic", _, Who::OwnNode | Who::HostPod) => unsure(Traffic::all()),
        ("generic", _, _) => unsure(sctp().union(&other_protocols())),
        _ => sure(Traffic::none()),
    }
}

/// What a policy of somebody else may open besides: of Calico nothing. A ClusterNetworkPolicy's ingress rules know pods only, so
/// that it cannot keep a NetworkPolicy from letting others in. Cilium's denials leave out what the pool may reach, since
/// a denial beats the pool's own rule; they say the other ports of it one by one.
fn open_to_others(
    row: &Row,
    scenario: &Scenario,
    direction: Direction,
    who: Who,
    asked: &Traffic,
) -> Traffic {
    if row.dialects.contains(&CLUSTER) && !row.dialects.contains(&CALICO) {
        let unknown_to_it = direction == Direction::Ingress && matches!(who, Who::OtherNode | Who::Outside);
        return if unknown_to_it { Traffic::all() } else { Traffic::none() };
    }
    let minor: u16 = match row.profile.split_once('@') {
        Some(("cilium", version)) => version.split_once('.').unwrap().1.parse().unwrap(),
        _ if row.profile == "cilium" => 19,
        _ => return Traffic::none(),
    };
    if direction == Direction::Ingress {
        return Traffic::none();
    }
    // Ranges of ports are read from 1.16 on. No denial says port 0, or ICMP as a whole.
    let unsaid = if minor < 16 {
        Traffic::all()
    } else {
        let zero = [Protocol::Tcp, Protocol::Udp].map(|protocol| Traffic::to(protocol, PortSet::one(0)));
        zero.iter().fold(sctp().union(&other_protocols()), |all, one| all.union(one))
    };
    let names = scenario.pool.storage.iter().filter(|storage| storage.domain.is_some());
    let of_names = names.fold(Traffic::none(), |all, storage| {
        all.union(&Traffic::to(Protocol::Tcp, PortSet::one(storage.port)))
    });
    match who {
        // The addresses of a name are not known to a denial.
        Who::Outside | Who::Name if !of_names.is_none() => unsaid.union(&of_names),
        _ if !asked.is_none() => unsaid,
        _ => Traffic::none(),
    }
}

fn read(text: &str) -> Result<Cluster, String> {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).map_err(|e| e.to_string())?;
    read::cluster(&input, &ReadOptions::default()).map(|reading| reading.cluster).map_err(|e| e.to_string())
}

fn emitted(pool: &PoolIntent, dialects: &[Dialect]) -> String {
    let policies = dialects.iter().flat_map(|dialect| pool.policies(*dialect).unwrap());
    policies.fold(String::new(), |text, policy| text + "---\n" + &to_yaml(&policy))
}

/// The pool's intent as an intents file says it.
fn asked(scenario: &Scenario) -> Vec<intent::Intent> {
    let pool = &scenario.pool;
    let labels = |labels: &mpegflow_policies::cluster::Labels| {
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        format!("{{{}}}", pairs.join(", "))
    };
    let mut text = format!(
        "apiVersion: mpegflow.io/v1alpha1\nkind: NetworkIntents\nintents:\n- name: pool\n  from: {{namespace: {}, pods: {}}}\n  must-not: [{{group: metadata}}, {{group: kube-api}}]\n  reached-by: []\n  must:\n  - {{namespace: {}, pods: {}, ports: [{}]}}\n",
        pool.namespace,
        labels(&pool.pods),
        pool.broker.namespace,
        labels(&pool.broker.pods),
        pool.broker.port
    );
    if let Some(dns) = &pool.dns {
        writeln!(
            text,
            "  - {{namespace: {}, pods: {}, ports: [{}/UDP, {}/TCP]}}",
            dns.namespace,
            labels(&dns.pods),
            dns.port,
            dns.port
        )
        .unwrap();
    }
    for storage in &pool.storage {
        for block in &storage.blocks {
            writeln!(text, "  - {{cidr: '{block}', ports: [{}]}}", storage.port).unwrap();
        }
    }
    text.push_str("  may:\n");
    for storage in &pool.storage {
        for domain in storage.domain.iter() {
            writeln!(text, "  - {{domain: {domain}, ports: [{}]}}", storage.port).unwrap();
        }
    }
    for (addresses, port) in scenario.service.iter() {
        for address in addresses {
            writeln!(text, "  - {{cidr: '{}', ports: [{port}]}}", Cidr::host(*address)).unwrap();
        }
    }
    let mut input = Input::new(Limits::default());
    input.add("intents.yaml", text).unwrap();
    intent::read(&input).unwrap()
}

/// What the pool may send to somebody: said once more, from the pool's own words.
fn permitted(scenario: &Scenario, cluster: &Cluster, endpoint: &Endpoint) -> Traffic {
    let pool = &scenario.pool;
    let tcp = |port: u16| Traffic::to(Protocol::Tcp, PortSet::one(port));
    let pod = |namespace: &str, labels: &mpegflow_policies::cluster::Labels| {
        let has = |own: &mpegflow_policies::cluster::Labels, wanted: &mpegflow_policies::cluster::Labels| {
            wanted.iter().all(|(key, value)| own.get(key) == Some(value))
        };
        let mut may = Traffic::none();
        if *namespace == *pool.broker.namespace && has(labels, &pool.broker.pods) {
            may = may.union(&tcp(pool.broker.port));
        }
        for dns in pool.dns.iter().filter(|dns| *namespace == *dns.namespace && has(labels, &dns.pods)) {
            may = may.union(&tcp(dns.port)).union(&Traffic::to(Protocol::Udp, PortSet::one(dns.port)));
        }
        may
    };
    match endpoint {
        Endpoint::Pod(i) | Endpoint::Sibling(i) if !cluster.pods[*i].host_network => {
            pod(&cluster.pods[*i].namespace, &cluster.pods[*i].labels)
        }
        Endpoint::Imagined(own) => pod(&own.namespace, &own.labels),
        Endpoint::External(set) => {
            let mut may = Traffic::none();
            for storage in &pool.storage {
                if set.is_subset(&AddressSet::blocks(storage.blocks.iter().copied())) {
                    may = may.union(&tcp(storage.port));
                }
            }
            for (addresses, port) in scenario.service.iter() {
                if set.is_subset(&AddressSet::blocks(addresses.iter().copied().map(Cidr::host))) {
                    may = may.union(&tcp(*port));
                }
            }
            may
        }
        Endpoint::Domain(name) => pool
            .storage
            .iter()
            .filter(|storage| storage.domain.as_ref() == Some(name))
            .fold(Traffic::none(), |may, storage| may.union(&tcp(storage.port))),
        _ => Traffic::none(),
    }
}

fn who(cluster: &Cluster, endpoint: &Endpoint) -> Who {
    match endpoint {
        Endpoint::Pod(i) if cluster.pods[*i].host_network => Who::HostPod,
        Endpoint::Pod(_) | Endpoint::Sibling(_) => Who::Pod,
        Endpoint::Imagined(_) => Who::FuturePod,
        Endpoint::LocalNode => Who::OwnNode,
        Endpoint::Node(_) | Endpoint::AnyNode => Who::OtherNode,
        Endpoint::External(_) => Who::Outside,
        Endpoint::Domain(_) => Who::Name,
    }
}

/// A pair of which the pool is one end.
struct Pair {
    direction: Direction,
    who: Who,
    name: String,
    /// What the pool asked for of it.
    asked: Traffic,
    /// What passes beyond that.
    left: Left,
}

/// Every pair of which the pool is one end, but what its own node sends to it: the kubelet's probes come from there.
fn pairs(scenario: &Scenario, cluster: &Cluster, profile: Profile) -> Vec<Pair> {
    let pool = &scenario.pool;
    let domains: Vec<_> = pool.storage.iter().filter_map(|storage| storage.domain.clone()).collect();
    let service =
        scenario.service.iter().flat_map(|(addresses, _)| addresses.iter().copied().map(Cidr::host));
    let options = Options {
        addresses: places::each_metadata_address()
            .chain([AddressSet::blocks(service)])
            .chain(pool.storage.iter().map(|storage| AddressSet::blocks(storage.blocks.iter().copied())))
            .collect(),
        domains: domains.clone(),
        trusted_domains: domains,
        imagine: true,
        pod_cidrs: None,
    };
    let evaluation = Evaluation::new(cluster, profile, options).unwrap();
    let is_worker = |endpoint: &Endpoint| {
        let Endpoint::Pod(i) = endpoint else { return false };
        let pod = &cluster.pods[*i];
        pod.namespace == pool.namespace
            && pod.labels.get("mpegflow.io/pool").is_some_and(|name| **name == *"pool-a")
    };
    let workers = evaluation.endpoints().filter(|(_, endpoint)| is_worker(endpoint)).map(|(id, _)| id);
    let mut found = Vec::new();
    for worker in workers {
        let out = evaluation.destinations(worker).map(|(other, e)| (Direction::Egress, worker, other, e));
        let into = evaluation.sources(worker).map(|(other, e)| (Direction::Ingress, other, worker, e));
        for (direction, from, to, endpoint) in out.chain(into) {
            let kind = who(cluster, endpoint);
            // To Cilium and Calico a host-network pod is its node, which is an endpoint of its own.
            let is_node = matches!(profile.cni, Cni::Cilium | Cni::Calico) && kind == Who::HostPod;
            if is_node || (direction, kind) == (Direction::Ingress, Who::OwnNode) {
                continue;
            }
            let verdict = evaluation.verdict(from, to);
            let asked = match direction {
                Direction::Egress => permitted(scenario, cluster, endpoint),
                Direction::Ingress => Traffic::none(),
            };
            let left = Left {
                passes: verdict.allowed.difference(&asked),
                may_pass: verdict.unknown.difference(&asked),
            };
            let name = format!("{} → {}", evaluation.name(from), evaluation.name(to));
            found.push(Pair { direction, who: kind, name, asked, left });
        }
    }
    assert!(!found.is_empty(), "a pool without pods proves nothing");
    found
}

/// What is wrong with a scenario under a row, if anything.
fn wrong(row: &Row, scenario: &Scenario, hostile: Hostile, extra: &str) -> Option<String> {
    let text = format!("{}{}{extra}", scenario.manifests(), emitted(&scenario.pool, row.dialects));
    let cluster = match read(&text) {
        Ok(cluster) => cluster,
        Err(errors) => return Some(format!("what is emitted is refused: {errors}")),
    };
    let profile: Profile = row.profile.parse().unwrap();
    let pairs = pairs(scenario, &cluster, profile);
    for pair in &pairs {
        let mut may = left_open(row, pair.direction, pair.who);
        if hostile == Hostile::Beside {
            let more = open_to_others(row, scenario, pair.direction, pair.who, &pair.asked);
            may = Left { passes: may.passes.union(&more), may_pass: may.may_pass.union(&more) };
        }
        // A name may have an address of any block that a rule speaks of; what passes to that block is judged there.
        if pair.who == Who::Name {
            may.may_pass = match hostile {
                Hostile::Beside => Traffic::all(),
                Hostile::Elsewhere => scenario.pool.storage.iter().fold(may.may_pass, |all, storage| {
                    all.union(&Traffic::to(Protocol::Tcp, PortSet::one(storage.port)))
                }),
            };
        }
        for (left, may, how) in
            [(&pair.left.passes, &may.passes, "passes"), (&pair.left.may_pass, &may.may_pass, "may pass")]
        {
            let beyond = left.difference(may);
            if !beyond.is_none() {
                return Some(format!("{:?} {}: {beyond} {how}", pair.direction, pair.name));
            }
        }
    }
    // What is said to be open is.
    if hostile == Hostile::Elsewhere {
        let present: BTreeSet<(Direction, Who)> =
            pairs.iter().map(|pair| (pair.direction, pair.who)).collect();
        for (direction, who) in present.into_iter().filter(|(_, who)| *who != Who::Name) {
            let open = left_open(row, direction, who);
            let of = |part: fn(&Left) -> &Traffic| {
                let those = pairs.iter().filter(|pair| (pair.direction, pair.who) == (direction, who));
                those.fold(Traffic::none(), |all, pair| all.union(part(&pair.left)))
            };
            let left = Left { passes: of(|left| &left.passes), may_pass: of(|left| &left.may_pass) };
            if left != open {
                return Some(format!("{direction:?} {who:?}: {left:?} is open, not {open:?}"));
            }
        }
    }
    // The audit says the same in one word. Pods that are not there yet are none of the verdict's concern.
    let there = || pairs.iter().filter(|pair| pair.who != Who::FuturePod);
    let expected = if there().any(|pair| !pair.left.passes.is_none()) {
        Truth::No
    } else {
        match there().all(|pair| pair.left.may_pass.is_none()) {
            true => Truth::Yes,
            false => Truth::Unknown,
        }
    };
    let outcome = run(&Request {
        cluster: &cluster,
        profile,
        complete: true,
        intents: asked(scenario),
        pod_cidrs: None,
        baseline: None,
        today: "2026-01-01".parse().unwrap(),
        flows: &[],
    })
    .unwrap();
    (outcome.proved != expected)
        .then(|| format!("the audit says {:?}, not {expected:?}: {}", outcome.proved, outcome.sentence))
}

/// Scenarios of a row, without policies that it says nothing of.
fn scenario(row: &Row, seed: u64, hostile: Hostile) -> Scenario {
    let mut scenario = Scenario::generate(seed, hostile);
    scenario.others.policies.retain(|policy| {
        let group = policy.0["apiVersion"].as_str().unwrap();
        group == "networking.k8s.io/v1" || row.holds_against.contains(&group)
    });
    scenario
}

/// The least that goes wrong, as manifests.
fn counterexample(row: &Row, scenario: &Scenario, hostile: Hostile, extra: &str) -> String {
    let least = shrink(&scenario.others, |others| {
        // A shrunk document that the reader refuses says nothing.
        read(&scenario.with(others).manifests()).is_ok()
            && wrong(row, &scenario.with(others), hostile, extra).is_some()
    });
    let least = scenario.with(&least);
    let why = wrong(row, &least, hostile, extra).unwrap_or_default();
    let policies = emitted(&scenario.pool, row.dialects);
    format!(
        "{why}\nunder {} {:?}:\n{}{extra}# emitted\n{policies}",
        row.profile,
        row.dialects,
        least.manifests()
    )
}

fn hold(hostile: Hostile) {
    for row in ROWS.iter().filter(|row| hostile == Hostile::Elsewhere || !row.holds_against.is_empty()) {
        for seed in 0..CLUSTERS {
            let scenario = scenario(row, seed, hostile);
            if wrong(row, &scenario, hostile, "").is_some() {
                panic!("seed {seed}: {}", counterexample(row, &scenario, hostile, ""));
            }
        }
    }
}

#[test]
fn what_is_emitted_proves_the_intent_in_any_cluster_but_for_what_no_policy_decides() {
    hold(Hostile::Elsewhere);
}

#[test]
fn denials_hold_against_whoever_writes_policies_beside_them() {
    hold(Hostile::Beside);
}

#[test]
fn a_cluster_network_policy_beside_the_pools_is_among_the_hostile_ones() {
    let row = ROWS.iter().find(|row| row.dialects == [CLUSTER]).unwrap();
    let is =
        |document: &mpegflow_policies_generator::yaml::Document| document.0["kind"] == "ClusterNetworkPolicy";
    let with = (0..CLUSTERS)
        .filter(|seed| scenario(row, *seed, Hostile::Beside).others.policies.iter().any(is))
        .count();
    assert!(with > 100, "{with} of {CLUSTERS}");
    // Where the pool has none of its own, the same policies open it: they are hostile indeed.
    let bare = Row { profile: "calico", dialects: &[NP], holds_against: BESIDE_CLUSTER };
    let opened = (0..40)
        .filter(|seed| wrong(&bare, &scenario(&bare, *seed, Hostile::Beside), Hostile::Beside, "").is_some());
    assert!(opened.count() > 20);
}

#[test]
fn what_others_may_open_is_no_more_than_what_they_do() {
    // Under Cilium 1.19 somebody in the pool's namespace gets at other protocols towards the broker, and at no port of TCP or UDP.
    let row = &ROWS[1];
    let mut opened = Traffic::none();
    for seed in 0..CLUSTERS {
        let scenario = scenario(row, seed, Hostile::Beside);
        let text = format!("{}{}", scenario.manifests(), emitted(&scenario.pool, row.dialects));
        for pair in pairs(&scenario, &read(&text).unwrap(), row.profile.parse().unwrap()) {
            if pair.who == Who::Pod {
                opened = opened.union(&pair.left.passes);
            }
        }
    }
    assert!(other_protocols().is_subset(&opened), "{opened}");
    let ports = Traffic::to(Protocol::Tcp, PortSet::range(1, u16::MAX))
        .union(&Traffic::to(Protocol::Udp, PortSet::range(1, u16::MAX)));
    assert!(!ports.intersects(&opened), "{opened}");
}

#[test]
fn a_hole_is_caught_and_the_counterexample_is_small() {
    let row = &ROWS[6];
    let caught = (0..40).filter_map(|seed| {
        let scenario = scenario(row, seed, Hostile::Elsewhere);
        let hole = format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: hole, namespace: {}}}\nspec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: 198.51.100.7/32}}}}]}}]}}\n",
            scenario.pool.namespace
        );
        wrong(row, &scenario, Hostile::Elsewhere, "")
            .is_none()
            .then(|| wrong(row, &scenario, Hostile::Elsewhere, &hole).map(|_| counterexample(row, &scenario, Hostile::Elsewhere, &hole)))
    });
    let caught: Vec<Option<String>> = caught.collect();
    assert_eq!(caught.len(), 40);
    for text in caught {
        let text = text.unwrap();
        assert!(text.starts_with("Egress ") && text.contains("198.51.100.7"), "{text}");
        let others = text.matches("namespace: \"alpha\"").count();
        assert!(!text.contains("name: \"np-"), "{others} policies of others are left:\n{text}");
    }
}
