//! Pods that could be: what a policy would let through if somebody made it.

use super::ImaginedPod;
use crate::cluster::{Cluster, Labels};
use crate::matching::{LabelOwner, Match, Test};
use crate::policy::Action;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Imagined pods of one evaluation.
const MOST: usize = 2_000;
/// A namespace that is in no input.
const ELSEWHERE: &str = "a-new-namespace";

/// One pod for each way in which a rule admits pods, one without labels in a new namespace, and one in each namespace of the
/// input.
pub(super) fn imagine(cluster: &Cluster) -> Vec<ImaginedPod> {
    let mut made: Vec<ImaginedPod> = Vec::new();
    let mut seen: BTreeSet<(Arc<str>, Labels, Labels)> = BTreeSet::new();
    let mut add = |pod: ImaginedPod| {
        let key = (pod.namespace.clone(), pod.namespace_labels.clone(), pod.labels.clone());
        if made.len() < MOST && seen.insert(key) {
            made.push(pod);
        }
    };
    add(pod(cluster, None, Labels::new(), Labels::new(), "any pod of a new namespace".into()));
    for namespace in cluster.namespaces.keys() {
        let because = format!("a new pod without labels in namespace {namespace}");
        add(pod(cluster, Some(namespace.clone()), Labels::new(), Labels::new(), because.into()));
    }
    for policy in cluster.policies.iter().filter(|policy| policy.inert.is_none()) {
        let own = policy.object.namespace.clone();
        for rule in policy.ingress.iter().chain(&policy.egress).flat_map(|section| &section.rules) {
            if rule.action != Action::Allow {
                continue;
            }
            for way in ways(&rule.peer) {
                let mut wanted = Wanted::default();
                if !wanted.take(&way) {
                    continue;
                }
                let namespace = wanted.namespace.clone().or_else(|| {
                    // A rule that names no namespace is met by a pod of any; one of the policy's own is the nearest.
                    if wanted.namespace_labels.is_empty() { own.clone() } else { None }
                });
                let because = format!("any pod that {} {} selects", policy.object, rule.path);
                add(pod(
                    cluster,
                    namespace,
                    wanted.namespace_labels.clone(),
                    wanted.labels.clone(),
                    because.clone().into(),
                ));
                if wanted.namespace.is_none() {
                    add(pod(cluster, None, wanted.namespace_labels, wanted.labels, because.into()));
                }
            }
        }
    }
    made
}

fn pod(
    cluster: &Cluster,
    namespace: Option<Arc<str>>,
    wanted: Labels,
    labels: Labels,
    because: Arc<str>,
) -> ImaginedPod {
    let namespace: Arc<str> = namespace.unwrap_or_else(|| ELSEWHERE.into());
    let mut namespace_labels = match cluster.namespaces.get(&namespace) {
        Some(known) => known.labels.clone(),
        None => wanted,
    };
    namespace_labels.insert("kubernetes.io/metadata.name".into(), namespace.clone());
    ImaginedPod { namespace, namespace_labels, labels, because }
}

/// The ways in which an expression can hold, as conjunctions; negations are left to chance, since a new label is in none.
fn ways(what: &Match) -> Vec<Vec<&Match>> {
    match what {
        Match::OneOf(parts) => parts.iter().flat_map(ways).take(64).collect(),
        Match::All(parts) => parts.iter().fold(vec![Vec::new()], |all: Vec<Vec<&Match>>, part| {
            let more = ways(part);
            all.iter()
                .flat_map(|one| more.iter().map(move |two| one.iter().chain(two).copied().collect()))
                .take(64)
                .collect()
        }),
        one => vec![vec![one]],
    }
}

/// What a pod has to be.
#[derive(Debug, Default)]
struct Wanted {
    namespace: Option<Arc<str>>,
    namespace_labels: Labels,
    labels: Labels,
}

impl Wanted {
    /// Takes in a conjunction. False where no pod can meet it, or it is not about pods.
    fn take(&mut self, way: &[&Match]) -> bool {
        let mut about_pods = false;
        for part in way {
            match part {
                Match::Kind(crate::matching::Kind::Pod) => about_pods = true,
                Match::Anything | Match::Not(_) | Match::Fact(_) => {}
                Match::Label { owner: LabelOwner::Endpoint, key, test } => {
                    about_pods = true;
                    self.labels.insert(key.clone(), example(test));
                }
                Match::Label { owner: LabelOwner::Namespace, key, test } => {
                    about_pods = true;
                    let value = example(test);
                    if **key == *"kubernetes.io/metadata.name" {
                        self.namespace = Some(value);
                    } else {
                        self.namespace_labels.insert(key.clone(), value);
                    }
                }
                Match::Namespace(test) => {
                    about_pods = true;
                    self.namespace = Some(example(test));
                }
                _ => return false,
            }
        }
        about_pods
    }
}

fn example(test: &Test) -> Arc<str> {
    match test {
        Test::Exists => "any".into(),
        Test::Is(value) | Test::StartsWith(value) | Test::EndsWith(value) | Test::Contains(value) => {
            value.clone()
        }
        Test::In(values) => values.first().cloned().unwrap_or_else(|| "none".into()),
    }
}
