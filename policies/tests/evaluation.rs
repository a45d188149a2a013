//! The evaluator against a second one that is as plain as can be, pair by pair over generated clusters; and its two ways, a pair
//! at a time and all pairs at once, against each other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]
#![allow(dead_code, missing_docs, reason = "the reference serves several tests")]

#[path = "reference/mod.rs"]
mod reference;

use mpegflow_policies::cluster::Cluster;
use mpegflow_policies::evaluate::{Endpoint, EndpointId, Evaluation, Options};
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::truth::Truth;
use mpegflow_policies_generator::small::{Case, Dialect};
use reference::{End, Reference};

const CASES: u64 = 400;

/// The cluster of a case; none where the reader refuses it, as Calico would.
fn cluster(text: &str) -> Option<Cluster> {
    let mut input = Input::new(Limits::default());
    input.add("case.yaml", text).unwrap();
    read::cluster(&input, &ReadOptions::default()).ok().map(|reading| reading.cluster)
}

fn end(endpoint: &Endpoint) -> Option<End> {
    match endpoint {
        Endpoint::Pod(i) => Some(End::Pod(*i)),
        Endpoint::External(set) => Some(End::Outside(set.example().unwrap())),
        _ => None,
    }
}

/// Compares all pairs of a case. False where there is nothing to compare.
fn agree(seed: u64, dialect: Dialect, profile: Profile) -> bool {
    let text = Case::generate(seed, dialect).manifests();
    let Some(cluster) = cluster(&text) else { return false };
    // The reference has no source ports.
    if format!("{:?}", cluster.policies).contains("SourcePorts") {
        return false;
    }
    let evaluation = Evaluation::new(&cluster, profile, Options::default()).unwrap();
    let reference = Reference { cluster: &cluster, profile };
    let ends: Vec<(EndpointId, End)> =
        evaluation.endpoints().filter_map(|(id, endpoint)| Some((id, end(endpoint)?))).collect();
    for (from, source) in &ends {
        for (to, destination) in ends.iter().filter(|(to, _)| to != from) {
            let ours = evaluation.verdict(*from, *to);
            let theirs = reference.verdict(source, destination);
            assert_eq!(
                (&ours.allowed, &ours.denied, &ours.unknown),
                (&theirs.allowed, &theirs.denied, &theirs.unknown),
                "seed {seed}, {dialect:?}, {profile}: {} → {}\n{text}",
                evaluation.name(*from),
                evaluation.name(*to)
            );
            assert_eq!(evaluation.explain(*from, *to).verdict, ours);
            // Pods and addresses of one class are told apart by nothing.
            for (other, _) in
                ends.iter().filter(|(other, _)| evaluation.class(*other) == evaluation.class(*to))
            {
                if other != from {
                    assert_eq!(evaluation.verdict(*from, *other), ours, "seed {seed}: a class is not one");
                }
            }
        }
    }
    let mut pairs = 0u64;
    evaluation.matrix().for_each(|from, to, verdict| {
        if from != to {
            assert_eq!(
                verdict,
                evaluation.verdict(from, to),
                "seed {seed}, {dialect:?}, {profile}: all pairs at once"
            );
            pairs += 1;
        }
    });
    let tally = evaluation.matrix().tally();
    let pods: Vec<EndpointId> =
        ends.iter().filter(|(_, end)| matches!(end, End::Pod(_))).map(|(id, _)| *id).collect();
    let count = |wanted: Truth| {
        let all = pods.iter().flat_map(|a| pods.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
        all.filter(|(a, b)| evaluation.verdict(*a, *b).reaches() == wanted).count() as u64
    };
    assert_eq!(
        (tally.connected, tally.separated, tally.unknown),
        (count(Truth::Yes), count(Truth::No), count(Truth::Unknown)),
        "seed {seed}, {dialect:?}, {profile}"
    );
    assert!(pairs <= tally.pairs);
    true
}

#[test]
fn kubernetes_policies_come_out_as_the_plain_evaluator_says_under_every_profile() {
    for seed in 0..CASES {
        for profile in ["generic", "cilium", "calico", "aws-vpc", "cilium@1.15"] {
            assert!(agree(seed, Dialect::Kubernetes, profile.parse().unwrap()), "seed {seed} is refused");
        }
    }
}

#[test]
fn calico_policies_come_out_as_the_plain_evaluator_says() {
    let compared = (0..CASES).filter(|seed| agree(*seed, Dialect::Calico, "calico".parse().unwrap())).count();
    assert!(compared > 150, "only {compared} cases were compared");
}
