//! Addresses with labels, which selectors match beside pods: NetworkSet, GlobalNetworkSet, HostEndpoint.

use super::selector::{NAME, NAMESPACE, OF_NAMESPACE};
use crate::cluster::{Cluster, Labels};
use crate::matching::Test;
use crate::read::core::{labels, namespace_of};
use crate::read::problems::{Problems, doubts};
use crate::read::{Document, Field, Object};
use crate::sets::Cidr;
use crate::truth::{Doubt, Truth};
use std::net::IpAddr;
use std::sync::Arc;

/// The annotation in which `crd.projectcalico.org/v1` keeps an object's labels and name.
const STORED_METADATA: &str = "projectcalico.org/metadata";

/// Addresses with labels.
#[derive(Debug)]
pub(super) struct LabelledNets {
    labels: Labels,
    /// `None` for what is in no namespace, which `global()` means.
    namespace: Option<Arc<str>>,
    pub(super) nets: Vec<Cidr>,
    /// What else it may hold.
    pub(super) doubts: Vec<Doubt>,
}

impl LabelledNets {
    /// Whether a label that it has, or inherits from its namespace, is so (`networksetprocessor.go`,
    /// `globalnetworksetprocessor.go`).
    pub(super) fn passes(&self, cluster: &Cluster, key: &str, test: &Test) -> Truth {
        let namespace = self.namespace.as_deref();
        if key == NAMESPACE {
            return namespace.is_some_and(|name| test.passes(name)).into();
        }
        if let Some(value) = self.labels.get(key) {
            return test.passes(value).into();
        }
        let Some((name, key)) = namespace.zip(key.strip_prefix(OF_NAMESPACE)) else { return Truth::No };
        if key == NAME {
            return test.passes(name).into();
        }
        cluster.namespace_label(name, key, test)
    }
}

/// Reads a NetworkSet or a GlobalNetworkSet.
pub(super) fn network_set(
    document: &Document,
    root: Object<'_>,
    problems: &mut Problems,
) -> Option<LabelledNets> {
    let labels = stored(document, &root, problems)?.labels;
    let spec = problems.keep(root.object("spec")).flatten();
    let nets = spec.as_ref().map(|spec| addresses(spec, "nets", problems)).unwrap_or_default();
    drop(spec);
    let namespace = (&*document.kind == "NetworkSet").then(|| namespace_of(document));
    if labels.contains_key(NAMESPACE) {
        let message = format!("{document} cannot have the label {NAMESPACE}");
        problems.add(document.at.clone(), message, "Calico sets it itself; remove it");
    }
    Some(LabelledNets { labels, namespace, nets, doubts: doubts(&root.finish()).collect() })
}

/// Reads a HostEndpoint. As a peer it is its `expectedIPs` only: addresses that Felix learns from an interface do not count
/// (`api/pkg/apis/projectcalico/v3/hostendpoint.go`).
pub(super) fn host_endpoint(
    document: &Document,
    root: Object<'_>,
    problems: &mut Problems,
) -> Option<LabelledNets> {
    let labels = stored(document, &root, problems)?.labels;
    let spec = problems.keep(root.object("spec")).flatten();
    let nets = spec.as_ref().map(|spec| addresses(spec, "expectedIPs", problems)).unwrap_or_default();
    // Whom it protects and with what is not modelled: the cluster remembers that there is one.
    root.ignore_rest();
    spec.iter().for_each(Object::ignore_rest);
    Some(LabelledNets { labels, namespace: None, nets, doubts: Vec::new() })
}

/// Addresses and blocks, as loosely as Calico takes them here.
fn addresses(spec: &Object<'_>, key: &str, problems: &mut Problems) -> Vec<Cidr> {
    let mut nets = Vec::new();
    for field in problems.list(spec, key) {
        let Some(text) = problems.keep(field.string()) else { continue };
        match address(text) {
            Some(net) => nets.push(net),
            None => {
                problems.invalid(&field, "an address or a block such as 10.0.0.0/8", "correct or remove it")
            }
        }
    }
    nets
}

fn address(text: &str) -> Option<Cidr> {
    if text.contains('/') {
        return Cidr::parse_loose(text).ok();
    }
    match text.parse().ok()? {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => None,
        address => Some(Cidr::host(address)),
    }
}

/// What an object's metadata says, also where it is stored in an annotation.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) labels: Labels,
    /// The name that users know it by, if it is written in the annotation.
    pub(super) name: Option<Arc<str>>,
}

/// Reads labels and name. `crd.projectcalico.org/v1` has them as JSON in an annotation, where Calico wrote the object
/// (`libcalico-go/lib/backend/k8s/resources/resources.go`).
pub(super) fn stored(document: &Document, root: &Object<'_>, problems: &mut Problems) -> Option<Stored> {
    let metadata = problems.keep(root.required("metadata").and_then(|field| field.object()))?;
    let mut stored = Stored { labels: problems.keep(labels(metadata.optional("labels")))?, name: None };
    let annotations =
        problems.keep(metadata.optional("annotations").map_or(Ok(Vec::new()), |a| a.entries()))?;
    metadata.ignore_rest();
    let kept = annotations.iter().find(|(key, _)| *key == STORED_METADATA);
    let Some((_, field)) = kept.filter(|_| document.group() == "crd.projectcalico.org") else {
        return Some(stored);
    };
    #[derive(serde::Deserialize)]
    struct Kept {
        name: Option<String>,
        #[serde(default)]
        labels: std::collections::BTreeMap<String, String>,
    }
    let kept = kept_json::<Kept>(field, problems)?;
    stored.labels.extend(kept.labels.into_iter().map(|(key, value)| (key.into(), value.into())));
    stored.name = kept.name.filter(|name| !name.is_empty()).map(Arc::from);
    Some(stored)
}

fn kept_json<T: serde::de::DeserializeOwned>(field: &Field<'_>, problems: &mut Problems) -> Option<T> {
    let text = problems.keep(field.string())?;
    match serde_json::from_str(text) {
        Ok(kept) => Some(kept),
        Err(error) => {
            let message = format!("{} is not what Calico stores there: {error}", field.path());
            problems.add(field.at(), message, "read the object as projectcalico.org/v3 instead");
            None
        }
    }
}
