//! Endpoint selectors of Cilium → [`Match`].
//!
//! A key may carry its label's source, `k8s:app`; without one it means any source. Some keys are not labels of the pod but
//! Cilium's own: its namespace, that namespace's labels, its service account (`pkg/k8s/apis/cilium.io/const.go`).

use super::super::problems::doubts;
use super::super::selector::{all, is_label_key, is_label_value};
use super::super::{At, Field, Object};
use super::check::Check;
use crate::matching::{Kind, LabelOwner, Match, Test};
use crate::profile::{CiliumChange, Fact};
use crate::sets::{AddressSet, Family};
use crate::truth::Doubt;
use std::sync::Arc;

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
const OWN_PREFIX: &str = "io.cilium.k8s.";

/// Where a label comes from, as a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Any,
    Kubernetes,
    Reserved,
    Other,
}

/// One requirement of a selector.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    source: Source,
    key: Arc<str>,
    test: Test,
    negated: bool,
    /// From `matchLabels`, whose namespace a policy's own one overrides.
    plain: bool,
    field: Doubt,
}

/// A selector as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    requirements: Vec<Requirement>,
    doubts: Vec<Doubt>,
}

impl Selector {
    /// Reads a selector. Keys and values that the agent's `EndpointSelector.Sanitize` rejects make it reject the policy; what
    /// the schema rejects is an error.
    pub(super) fn read(object: Object<'_>, check: &mut Check<'_>) -> Self {
        let mut requirements = Vec::new();
        if let Some(labels) = object.optional("matchLabels") {
            for (key, field) in check.problems.keep(labels.entries()).unwrap_or_default() {
                let Some(text) = check.problems.keep(field.string()) else { continue };
                if !is_label_value(text) {
                    let hint = "a value is empty or up to 63 letters, digits, `-`, `_` and `.`";
                    check.problems.invalid(&field, "a label value", hint);
                }
                requirements.push(requirement(key, Test::Is(text.into()), false, true, &field, check));
            }
        }
        for field in check.problems.list(&object, "matchExpressions") {
            requirements.extend(expression(&field, check));
        }
        Self { requirements, doubts: doubts(&object.finish()).collect() }
    }

    /// Peers of a policy in this namespace, or of a cluster-wide one. `init` says that the policy selects initializing pods
    /// (`getEndpointSelector`, pkg/k8s/apis/cilium.io/utils/utils.go).
    pub(super) fn peers(&self, namespace: Option<&Arc<str>>, init: bool) -> Match {
        let mut parts = self.parts(|_| true);
        if self.requirements.iter().any(|r| r.source == Source::Reserved) {
            return all(parts);
        }
        let names_namespace = self.requirements.iter().any(|r| r.labels() && *r.key == *NAMESPACE);
        let names_labels =
            self.requirements.iter().any(|r| r.labels() && r.key.starts_with(NAMESPACE_LABELS));
        match namespace {
            _ if names_namespace => {}
            None if init => {}
            // Pods only, not the world: a cluster-wide `{}` means every endpoint that has a namespace.
            None => parts.push(Match::pods(Match::Namespace(Test::Exists))),
            Some(own) => {
                let own = Match::pods(Match::Namespace(Test::Is(Arc::clone(own))));
                parts.push(if names_labels {
                    Match::OneOf(vec![own, Match::Fact(Fact::Cilium(CiliumChange::NamespaceLabelsSpan))])
                } else {
                    own
                });
            }
        }
        // A selector of negations alone would also match the world and the nodes, which have none of the labels.
        if !parts.iter().any(only_pods) {
            let anywhere = Match::Fact(Fact::Cilium(CiliumChange::LocalClusterOnly)).negate();
            parts.push(Match::OneOf(vec![Match::Kind(Kind::Pod), anywhere]));
        }
        all(parts)
    }

    /// Pods that a policy is about (`ParseToCiliumRule`): always of its own namespace, whatever `matchLabels` says of it.
    pub(super) fn subject(&self, namespace: Option<&Arc<str>>) -> Match {
        let overridden = |r: &Requirement| {
            namespace.is_some() && r.plain && r.source == Source::Kubernetes && *r.key == *NAMESPACE
        };
        let mut parts = vec![Match::Kind(Kind::Pod)];
        parts.extend(namespace.map(|own| Match::Namespace(Test::Is(Arc::clone(own)))));
        parts.extend(self.parts(|r| !overridden(r)));
        all(parts)
    }

    /// Nodes, by their labels.
    pub(super) fn nodes(&self) -> Match {
        let node = Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]);
        let labels = self.requirements.iter().map(|r| {
            let label =
                Match::Label { owner: LabelOwner::Endpoint, key: Arc::clone(&r.key), test: r.test.clone() };
            if r.negated { label.negate() } else { label }
        });
        all(std::iter::once(node)
            .chain(labels)
            .chain(self.doubts.iter().cloned().map(Match::Doubt))
            .collect())
    }

    /// Whether it asks for initializing pods.
    pub(super) fn init(&self) -> bool {
        self.requirements.iter().any(|r| r.source == Source::Reserved && *r.key == *"init")
    }

    /// Whether an object with these labels matches, sources aside, as for Services and CIDR groups.
    pub(super) fn matches(&self, labels: &crate::cluster::Labels) -> bool {
        self.requirements
            .iter()
            .all(|r| labels.get(&r.key).is_some_and(|value| r.test.passes(value)) != r.negated)
    }

    /// What nobody understood of it.
    pub(super) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    fn parts(&self, keep: impl Fn(&Requirement) -> bool) -> Vec<Match> {
        let known = self.requirements.iter().filter(|r| keep(r)).map(Requirement::matched);
        known.chain(self.doubts.iter().cloned().map(Match::Doubt)).collect()
    }
}

/// A selector of labels of a Service's backends.
pub(super) fn pods_labelled(namespace: &Arc<str>, labels: &crate::cluster::Labels) -> Match {
    let label = |(key, value): (&Arc<str>, &Arc<str>)| {
        Match::label(LabelOwner::Endpoint, Arc::clone(key), Arc::clone(value))
    };
    let own = Match::Namespace(Test::Is(Arc::clone(namespace)));
    Match::pods(all(std::iter::once(own).chain(labels.iter().map(label)).collect()))
}

/// A part of a selector that only pods match.
fn only_pods(part: &Match) -> bool {
    match part {
        Match::All(parts) => parts.contains(&Match::Kind(Kind::Pod)),
        _ => false,
    }
}

impl Requirement {
    /// Whether it speaks of what Kubernetes gives a pod.
    fn labels(&self) -> bool {
        matches!(self.source, Source::Any | Source::Kubernetes)
    }

    fn matched(&self) -> Match {
        let positive = match self.source {
            Source::Reserved => self.reserved(),
            Source::Other => Match::Doubt(self.field.clone()),
            Source::Kubernetes => self.label(),
            // A reserved label has a key as any other.
            Source::Any => match self.reserved() {
                Match::Nothing | Match::Doubt(_) => self.label(),
                reserved => Match::OneOf(vec![self.label(), reserved]),
            },
        };
        if self.negated { positive.negate() } else { positive }
    }

    fn label(&self) -> Match {
        let key = &*self.key;
        let which = if key == NAMESPACE {
            Match::Namespace(self.test.clone())
        } else if let Some(key) = key.strip_prefix(NAMESPACE_LABELS) {
            Match::Label { owner: LabelOwner::Namespace, key: key.into(), test: self.test.clone() }
        } else if key == SERVICE_ACCOUNT {
            Match::ServiceAccount(self.test.clone())
        } else if key == CLUSTER {
            Match::Doubt(Doubt {
                what: "the name of this cluster, which a selector asks for, is not known".into(),
                ..self.field.clone()
            })
        } else if key.starts_with(OWN_PREFIX) {
            Match::Doubt(self.field.clone())
        } else {
            Match::Label { owner: LabelOwner::Endpoint, key: Arc::clone(&self.key), test: self.test.clone() }
        };
        Match::pods(which)
    }

    /// Labels of source `reserved` have no value.
    fn reserved(&self) -> Match {
        if !self.test.passes("") {
            return Match::Nothing;
        }
        reserved(&self.key, &self.field.at).unwrap_or_else(|| Match::Doubt(self.field.clone()))
    }
}

/// What a reserved label stands for, where `at` names it. Cilium's health and ingress endpoints, pods that initialize and pods
/// that it does not manage are no endpoints of the input: whoever may reach them may reach addresses of which nothing is known,
/// and through the ingress proxies all that they serve.
pub(super) fn reserved(word: &str, at: &Option<At>) -> Option<Match> {
    let world =
        |family| Match::All(vec![Match::Kind(Kind::External), Match::Address(AddressSet::family(family))]);
    let unseen = |who: &str| {
        let what = format!("`{word}` means {who}, and the input does not say where those are");
        Match::All(vec![
            Match::Kind(Kind::External),
            Match::Doubt(Doubt { what: what.into(), at: at.clone() }),
        ])
    };
    Some(match word {
        "all" => Match::Anything,
        "host" => Match::Kind(Kind::LocalNode),
        "remote-node" => Match::Kind(Kind::RemoteNode),
        "world" => Match::Kind(Kind::External),
        "world-ipv4" => world(Family::V4),
        "world-ipv6" => world(Family::V6),
        "kube-apiserver" => Match::KubeApiServer,
        "init" => unseen("pods whose labels Cilium does not know yet"),
        "health" => unseen("Cilium's own health endpoints"),
        "ingress" => unseen("Cilium's own ingress proxies, which pass on what they are sent"),
        "unmanaged" => unseen("pods that Cilium does not manage"),
        "none" => Match::Nothing,
        _ => return None,
    })
}

fn requirement(
    key: &str,
    test: Test,
    negated: bool,
    plain: bool,
    field: &Field<'_>,
    check: &mut Check<'_>,
) -> Requirement {
    // `$host` is an old way to write `reserved:host` (pkg/labels, parseSource).
    let (source, name) = match (key.strip_prefix('$'), key.split_once(':')) {
        (Some(name), _) => (Source::Reserved, name),
        (None, None) => (Source::Any, key),
        (None, Some(("any" | "", name))) => (Source::Any, name),
        (None, Some(("k8s", name))) => (Source::Kubernetes, name),
        (None, Some(("reserved", name))) => (Source::Reserved, name),
        (None, Some((_, name))) => (Source::Other, name),
    };
    if !is_label_key(name) {
        check.reject(format!(
            "{}: {:?} is no label key",
            field.path(),
            key.chars().take(80).collect::<String>()
        ));
    }
    let what = format!("the key `{key}` in {} is not understood", field.path());
    Requirement { source, key: name.into(), test, negated, plain, field: Doubt::at(what, &field.at()) }
}

fn expression(field: &Field<'_>, check: &mut Check<'_>) -> Option<Requirement> {
    let object = check.problems.keep(field.object())?;
    let key_field = check.problems.keep(object.required("key"))?;
    let key = check.problems.keep(key_field.string())?;
    let operator = check.problems.keep(object.required("operator"))?;
    let (asks_value, negated) = check.problems.keep(operator.choice(&[
        ("In", (true, false)),
        ("NotIn", (true, true)),
        ("Exists", (false, false)),
        ("DoesNotExist", (false, true)),
    ]))?;
    let mut values: Vec<Arc<str>> = Vec::new();
    for value in check.problems.list(&object, "values") {
        values.extend(check.problems.keep(value.string()).map(Arc::from));
    }
    if asks_value == values.is_empty() {
        let wants = if asks_value { "at least one value" } else { "no value" };
        check.reject(format!("{}: this operator takes {wants}", field.path()));
    }
    let test = if asks_value { Test::In(values) } else { Test::Exists };
    let mut requirement = requirement(key, test, negated, false, &key_field, check);
    if let Some(doubt) = doubts(&object.finish()).next() {
        requirement.source = Source::Other;
        requirement.field = doubt;
    }
    Some(requirement)
}
