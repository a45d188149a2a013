//! All pairs at once against one pair at a time, where the fast way has cases of its own: large clusters' shapes, source ports,
//! policies without an order, pods on their nodes' network, templates. And what a tally costs, counted in steps.

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
use mpegflow_policies::evaluate::{Endpoint, EndpointId, Evaluation, Options, Work};
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::truth::Truth;
use mpegflow_policies_generator::large::{self, Shape};
use mpegflow_policies_generator::small::{Case, Dialect};
use mpegflow_policies_generator::yaml::stream;
use reference::{End, Reference};

const PROFILES: [&str; 4] = ["calico", "cilium", "generic", "aws-vpc"];

fn read(text: &str) -> Result<Cluster, read::ReadErrors> {
    let mut input = Input::new(Limits::default());
    input.add("cluster.yaml", text).unwrap();
    read::cluster(&input, &ReadOptions::default()).map(|reading| reading.cluster)
}

fn generate(shape: Shape) -> Cluster {
    let large::Cluster { namespaces, pods, policies } = large::Cluster::generate(shape);
    read(&stream(namespaces.iter().chain(&pods).chain(&policies))).unwrap()
}

fn evaluation(cluster: &Cluster, profile: Profile) -> Evaluation<'_> {
    Evaluation::new(cluster, profile, Options::default()).unwrap()
}

/// All pairs at once must say what one pair at a time says, and their sums too. Returns how many pairs of classes there were.
fn agrees_with_itself(evaluation: &Evaluation<'_>, cluster: &Cluster, what: &str) -> u64 {
    let matrix = evaluation.matrix();
    let mut pairs = 0;
    matrix.for_each(|from, to, verdict| {
        pairs += 1;
        // Of a class with itself, the verdict is that on two of its members.
        if from != to {
            assert_eq!(
                verdict,
                evaluation.verdict(from, to),
                "{what}: {} → {}",
                evaluation.name(from),
                evaluation.name(to)
            );
        }
    });
    assert_eq!(pairs, (matrix.classes() as u64).pow(2), "{what}: each pair of classes once");
    let pods: Vec<(EndpointId, usize)> =
        (0..cluster.pods.len()).filter_map(|pod| Some((evaluation.pod(pod)?, pod))).collect();
    let sibling = |pod: usize| {
        evaluation.endpoints().find(|(_, endpoint)| **endpoint == Endpoint::Sibling(pod)).map(|(id, _)| id)
    };
    let mut sums = [0u64; 3];
    for (from, pod) in &pods {
        let others = pods.iter().filter(|(to, _)| to != from).map(|(to, _)| *to).chain(sibling(*pod));
        for to in others {
            sums[evaluation.verdict(*from, to).reaches() as usize] += 1;
        }
    }
    let tally = matrix.tally();
    let [separated, unknown, connected] = [Truth::No, Truth::Unknown, Truth::Yes].map(|t| sums[t as usize]);
    assert_eq!((tally.separated, tally.unknown, tally.connected), (separated, unknown, connected), "{what}");
    assert_eq!(tally.pairs, separated + unknown + connected, "{what}");
    pairs
}

#[test]
fn large_shapes_come_out_as_the_plain_evaluator_says_under_every_profile() {
    for (seed, all_distinct) in [(1, false), (2, true), (3, true)] {
        let cluster = generate(Shape { pods: 40, policies: 40, seed, all_distinct });
        for profile in PROFILES {
            let profile: Profile = profile.parse().unwrap();
            let evaluation = evaluation(&cluster, profile);
            let reference = Reference { cluster: &cluster, profile };
            let pod = |id: EndpointId| match evaluation.endpoint(id) {
                Some(Endpoint::Pod(i)) => End::Pod(*i),
                other => panic!("{other:?}"),
            };
            evaluation.matrix().for_each(|from, to, ours| {
                if from != to {
                    let plain = reference.verdict(&pod(from), &pod(to));
                    assert_eq!(
                        (&ours.allowed, &ours.denied, &ours.unknown),
                        (&plain.allowed, &plain.denied, &plain.unknown),
                        "seed {seed}, {profile}: {} → {}",
                        evaluation.name(from),
                        evaluation.name(to)
                    );
                }
            });
        }
    }
}

#[test]
fn large_shapes_come_out_the_same_at_once_and_pair_by_pair() {
    for (seed, all_distinct) in [(4, false), (5, true)] {
        let cluster = generate(Shape { pods: 150, policies: 120, seed, all_distinct });
        for profile in PROFILES {
            let evaluation = evaluation(&cluster, profile.parse().unwrap());
            let what = format!("seed {seed}, {profile}");
            assert!(agrees_with_itself(&evaluation, &cluster, &what) > 10_000);
        }
    }
}

#[test]
fn source_ports_come_out_the_same_at_once_and_pair_by_pair() {
    let mut compared = 0;
    for seed in 0..400 {
        let Ok(cluster) = read(&Case::generate(seed, Dialect::Calico).manifests()) else { continue };
        if format!("{:?}", cluster.policies).contains("SourcePorts") {
            let evaluation = evaluation(&cluster, "calico".parse().unwrap());
            agrees_with_itself(&evaluation, &cluster, &format!("seed {seed}"));
            compared += 1;
        }
    }
    assert!(compared > 20, "only {compared} cases have source ports");
}

/// Namespaces `a` and `b`: pods, a pod on its node's network, templates; policies of equal priority that contradict each other.
const MIXED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {kubernetes.io/metadata.name: a, team: red}}
---
apiVersion: v1
kind: Namespace
metadata: {name: b, labels: {kubernetes.io/metadata.name: b, team: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: a, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: b, labels: {app: agent}}
spec: {hostNetwork: true, nodeName: n1, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 192.168.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: b, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.0.1.1}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: job, namespace: b}
spec: {template: {metadata: {labels: {app: job}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other, namespace: b}
spec: {template: {metadata: {labels: {app: job}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: one}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {team: red}}}
  ingress:
  - {action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}], protocols: [{tcp: {destinationPort: {number: 8080}}}]}
  egress:
  - {action: Deny, to: [{networks: [10.0.1.0/24]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: two}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}]}
  egress:
  - {action: Pass, to: [{namespaces: {matchLabels: {team: blue}}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: last}
spec:
  tier: Baseline
  priority: 1
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: job}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [{ipBlock: {cidr: 10.0.0.0/16}}], ports: [{port: http}]}
  egress:
  - {to: [{podSelector: {}}], ports: [{port: http}]}
";

#[test]
fn policies_without_an_order_host_pods_and_templates_come_out_the_same_at_once_and_pair_by_pair() {
    let cluster = read(MIXED).unwrap();
    for profile in PROFILES {
        let evaluation = evaluation(&cluster, profile.parse().unwrap());
        agrees_with_itself(&evaluation, &cluster, profile);
    }
}

fn work(shape: Shape) -> Work {
    let cluster = generate(shape);
    let (tally, work) = evaluation(&cluster, "calico".parse().unwrap()).matrix().tally_and_work();
    assert_eq!(tally.pairs, (shape.pods * (shape.pods - 1)) as u64);
    work
}

#[test]
fn the_work_of_all_pairs_grows_with_distinct_label_sets_and_not_with_pods() {
    let shape = |pods, all_distinct| Shape { pods, policies: 60, seed: 1, all_distinct };
    let once = work(shape(large::LABEL_SETS, false));
    // Four pods of each label set instead of one: not a step more.
    assert_eq!(work(shape(4 * large::LABEL_SETS, false)), once);
    // As many pods of twice as many label sets, of which each is its own class.
    let twice = work(shape(2 * large::LABEL_SETS, true));
    let half = work(shape(large::LABEL_SETS, true));
    assert!(twice.classes > half.classes && twice.steps > half.steps, "{half:?} {twice:?}");
    // A row has one entry for each class at most, and each rule of it takes one step there at most: no more than rows × classes
    // × rules, and far from the pairs of all pods.
    assert!(once.classes <= large::LABEL_SETS && twice.classes <= 2 * large::LABEL_SETS);
    assert!(once.rows <= 2 * once.classes && once.cells <= (once.classes * once.classes) as u64, "{once:?}");
}
