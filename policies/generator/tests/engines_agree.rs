//! The foreign engines agree with each other on generated clusters, apart from what they refuse: the differential test of our
//! own evaluator may therefore demand full agreement with every verdict that they give.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use mpegflow_policies_generator::shrink::shrink;
use mpegflow_policies_generator::small::{Case, Dialect, Query};
use oracle::{Oracle, Verdict};
use serde_json::{Value, to_value};

const CASES: u64 = 300;
const PACKETS: usize = 100;

/// What one engine says about some packets; the whole cluster refused is every packet refused.
fn verdicts(engine: &mut Oracle, case: &Case, queries: &[Query]) -> Vec<Verdict> {
    let packets: Vec<Value> = queries.iter().map(|query| to_value(query).unwrap()).collect();
    engine
        .ask(&case.seed.to_string(), &case.manifests(), &packets)
        .unwrap_or_else(|reason| vec![Verdict::Refused(reason); queries.len()])
}

/// Two judgements that cannot both be right. An engine that has no verdict for a direction contradicts nobody there.
fn contradict(one: &Verdict, other: &Verdict) -> bool {
    let (Verdict::Judged { ingress, egress, allowed }, Verdict::Judged { ingress: i, egress: e, allowed: a }) =
        (one, other)
    else {
        return false;
    };
    let differ = |a: &Option<bool>, b: &Option<bool>| matches!((a, b), (Some(a), Some(b)) if a != b);
    allowed != a || differ(ingress, i) || differ(egress, e)
}

/// Asks both engines about the same packets. Returns how many both judged and fails on the first contradiction, shrunk.
fn compare(one: &mut Oracle, other: &mut Oracle, dialect: Dialect) -> usize {
    let mut judged = 0;
    for seed in 0..CASES {
        let case = Case::generate(seed, dialect);
        let queries = case.queries(PACKETS);
        let (ones, others) = (verdicts(one, &case, &queries), verdicts(other, &case, &queries));
        for ((query, a), b) in queries.iter().zip(&ones).zip(&others) {
            judged += usize::from(matches!((a, b), (Verdict::Judged { .. }, Verdict::Judged { .. })));
            if contradict(a, b) {
                let packet = std::slice::from_ref(query);
                let least = shrink(&case, |smaller| {
                    contradict(&verdicts(one, smaller, packet)[0], &verdicts(other, smaller, packet)[0])
                });
                panic!(
                    "seed {seed}, packet {}: {one:?} says {a:?}, {other:?} says {b:?}\n{}",
                    to_value(query).unwrap(),
                    least.manifests()
                );
            }
        }
    }
    judged
}

#[test]
fn cyclonus_and_network_config_analyzer_agree_on_network_policies() {
    let mut cyclonus = Oracle::start("cyclonus").unwrap();
    let mut nca = Oracle::start("nca").unwrap();
    let judged = compare(&mut cyclonus, &mut nca, Dialect::Kubernetes);
    // Both refuse traffic of a pod to itself, one of them all pods that a block covers.
    assert!(judged > 15_000, "both judged only {judged} packets");
}

#[test]
fn cyclonus_and_netpol_analyzer_agree_on_network_policies() {
    let mut cyclonus = Oracle::start("cyclonus").unwrap();
    let mut analyzer = Oracle::start("netpol-analyzer").unwrap();
    let judged = compare(&mut cyclonus, &mut analyzer, Dialect::Kubernetes);
    assert!(judged > 10_000, "both judged only {judged} packets");
}

#[test]
fn most_generated_calico_clusters_can_be_judged() {
    let mut nca = Oracle::start("nca").unwrap();
    for dialect in [Dialect::Calico, Dialect::CalicoAndKubernetes] {
        let (mut allowed, mut denied) = (0, 0);
        for seed in 0..CASES {
            let case = Case::generate(seed, dialect);
            for verdict in verdicts(&mut nca, &case, &case.queries(PACKETS)) {
                match verdict {
                    Verdict::Judged { allowed: true, .. } => allowed += 1,
                    Verdict::Judged { allowed: false, .. } => denied += 1,
                    Verdict::Refused(_) => {}
                }
            }
        }
        assert!(allowed > 3_000 && denied > 3_000, "{dialect:?}: {allowed} allowed, {denied} denied");
    }
}
