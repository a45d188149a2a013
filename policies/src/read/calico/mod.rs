//! Calico v3: `projectcalico.org/v3`, and `crd.projectcalico.org/v1` as Calico stores it.
//!
//! | module | job |
//! |---|---|
//! | [`policy`], [`rule`], [`traffic`] | documents → what they say, checked as Calico checks it |
//! | [`set`] | NetworkSets, host endpoints: addresses with labels |
//! | [`selector`] | the selector language |
//! | [`link`] | policies → [`crate::policy::Policy`], when the whole input is read |
//! | [`members`] | selectors → [`crate::matching::Match`] |
//!
//! Policies are linked after everything is read: a selector also matches the NetworkSets of the input, and a rule may name a
//! Service.

mod link;
mod members;
mod policy;
mod rule;
mod selector;
mod set;
mod traffic;

use super::core::{cluster_ref, name_of, namespace_of};
use super::object::Invalid;
use super::problems::{Problems, doubts};
use super::{Document, Field, Object, ReadError};
use crate::cluster::{Cluster, Tier};
use crate::policy::{Dialect, Place, Policy};
use crate::read::node::Value;
use crate::source::{At, ObjectRef};
use crate::truth::Doubt;
use policy::RawPolicy;
use set::LabelledNets;
use std::sync::Arc;

pub(super) use link::link;

/// Group, versions and kind of what is read here.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    ("projectcalico.org", &["v3"], "NetworkPolicy"),
    ("projectcalico.org", &["v3"], "GlobalNetworkPolicy"),
    ("projectcalico.org", &["v3"], "StagedNetworkPolicy"),
    ("projectcalico.org", &["v3"], "StagedGlobalNetworkPolicy"),
    ("projectcalico.org", &["v3"], "StagedKubernetesNetworkPolicy"),
    ("projectcalico.org", &["v3"], "NetworkSet"),
    ("projectcalico.org", &["v3"], "GlobalNetworkSet"),
    ("projectcalico.org", &["v3"], "Tier"),
    ("projectcalico.org", &["v3"], "HostEndpoint"),
    ("projectcalico.org", &["v3"], "Profile"),
    ("crd.projectcalico.org", &["v1"], "NetworkPolicy"),
    ("crd.projectcalico.org", &["v1"], "GlobalNetworkPolicy"),
    ("crd.projectcalico.org", &["v1"], "StagedNetworkPolicy"),
    ("crd.projectcalico.org", &["v1"], "StagedGlobalNetworkPolicy"),
    ("crd.projectcalico.org", &["v1"], "StagedKubernetesNetworkPolicy"),
    ("crd.projectcalico.org", &["v1"], "NetworkSet"),
    ("crd.projectcalico.org", &["v1"], "GlobalNetworkSet"),
    ("crd.projectcalico.org", &["v1"], "Tier"),
    ("crd.projectcalico.org", &["v1"], "HostEndpoint"),
];

/// The group that objects are called by, in whichever of the two they were written.
const GROUP: &str = "projectcalico.org";

/// An object of Calico, read by itself.
#[derive(Debug)]
pub(super) struct Parsed(Kind);

#[derive(Debug)]
enum Kind {
    Policy(Box<RawPolicy>),
    /// A policy that needs nothing of the rest: it is never enforced.
    Inert(Box<Policy>),
    Nets(LabelledNets),
    HostEndpoint(ObjectRef, LabelledNets),
    Tier(Arc<str>, Tier, Vec<Doubt>),
    /// Nothing of it is needed, but for what is not understood.
    Profile(Vec<Doubt>),
}

/// Reads one of [`KINDS`].
///
/// # Errors
/// Everything that is wrong with it: Calico would refuse it.
pub(super) fn read(document: &Document) -> Result<Parsed, Vec<ReadError>> {
    let root = Object::of(document);
    root.ignore(&["apiVersion", "kind", "metadata"]);
    let mut problems = Problems::default();
    let kind = match &*document.kind {
        "NetworkSet" | "GlobalNetworkSet" => set::network_set(document, root, &mut problems).map(Kind::Nets),
        "HostEndpoint" => set::host_endpoint(document, root, &mut problems)
            .and_then(|nets| Some(Kind::HostEndpoint(named(document, &mut problems)?, nets))),
        "Tier" => tier(document, root, &mut problems),
        "Profile" => profile(document, root, &mut problems),
        "StagedKubernetesNetworkPolicy" => policy::staged_kubernetes(document, root, &mut problems)
            .map(|policy| Kind::Inert(Box::new(policy))),
        _ => policy::policy(document, root, &mut problems).map(|policy| Kind::Policy(Box::new(policy))),
    };
    // Without a value there is a problem, so that this default never gets out.
    problems.or(Parsed(kind.unwrap_or_else(|| Kind::Profile(Vec::new()))))
}

/// Writes what does not wait for the rest of the input into the cluster: tiers, host endpoints, doubts.
pub(super) fn enter(parsed: &[Parsed], cluster: &mut Cluster) {
    for Parsed(kind) in parsed {
        match kind {
            Kind::Policy(_) | Kind::Inert(_) | Kind::Nets(_) => {}
            Kind::HostEndpoint(object, _) => cluster.host_endpoints.push(object.clone()),
            Kind::Tier(name, tier, doubts) => {
                cluster.tiers.insert(name.clone(), tier.clone());
                cluster.policies.extend(
                    doubts.iter().map(|doubt| doubtful("Tier", name, name, doubt, f64::NEG_INFINITY)),
                );
            }
            // Asked after every tier; this one sorts behind those without an order.
            Kind::Profile(doubts) => cluster.policies.extend(
                doubts.iter().map(|doubt| doubtful("Profile", "~", "~profiles", doubt, f64::INFINITY)),
            ),
        }
    }
}

/// Stands for what is not understood of a tier, or of the profiles that decide after all tiers.
fn doubtful(kind: &str, name: &str, tier: &str, doubt: &Doubt, order: f64) -> Policy {
    let object = ObjectRef { group: GROUP.into(), kind: kind.into(), namespace: None, name: name.into() };
    let at = doubt.at.clone().unwrap_or_else(|| At::whole(&"".into()));
    let place = Place::Calico { tier: tier.into(), order: Some(order) };
    Policy::opaque(object, at, Dialect::Calico, place, doubt.clone())
}

/// What an object is called.
fn named(document: &Document, problems: &mut Problems) -> Option<ObjectRef> {
    const NAMESPACED: [&str; 3] = ["NetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"];
    let namespace = NAMESPACED.contains(&&*document.kind).then(|| namespace_of(document));
    match cluster_ref(document) {
        Ok(object) => Some(ObjectRef { group: GROUP.into(), namespace, ..object }),
        Err(error) => {
            refuse(error, problems);
            None
        }
    }
}

fn refuse(error: ReadError, problems: &mut Problems) {
    problems.add(error.at, error.message, error.hint.as_deref().unwrap_or_default());
}

/// Tiers that Calico makes itself and whose order and default action nobody may change, by version 3.32
/// (`api/pkg/apis/projectcalico/v3/tier.go`).
const FIXED_TIERS: [(&str, f64, bool); 3] =
    [("default", 1e6, false), ("kube-admin", 1e3, true), ("kube-baseline", 1e7, true)];

fn tier(document: &Document, root: Object<'_>, problems: &mut Problems) -> Option<Kind> {
    let name = match name_of(document) {
        Ok(name) => name,
        Err(error) => {
            refuse(error, problems);
            return None;
        }
    };
    let mut read = Tier { at: document.at.clone(), order: None, default_pass: false };
    if let Some(spec) = problems.keep(root.object("spec")).flatten() {
        read.order = spec.optional("order").and_then(|field| problems.keep(number(&field)));
        let action = spec.optional("defaultAction");
        let action = action.and_then(|field| problems.keep(field.choice(&[("Pass", true), ("Deny", false)])));
        read.default_pass = action.unwrap_or(false);
    }
    // Says whether the tier is in use.
    root.ignore(&["status"]);
    if let Some((_, order, pass)) = FIXED_TIERS.iter().find(|(fixed, ..)| *fixed == &*name)
        && (read.order, read.default_pass) != (Some(*order), *pass)
    {
        let action = if *pass { "Pass" } else { "Deny" };
        let message = format!("the tier {name} has an order and a default action that cannot be changed");
        problems.add(
            document.at.clone(),
            message,
            &format!("write order: {order} and defaultAction: {action}"),
        );
    }
    Some(Kind::Tier(name, read, doubts(&root.finish()).collect()))
}

/// Profiles of namespaces (`kns.`) and service accounts (`ksa.`) are what Calico derives from them: the first allow all, the
/// second have no rules (`libcalico-go/lib/backend/k8s/conversion`). Pods have no others, so that any other profile concerns
/// host endpoints only.
fn profile(document: &Document, root: Object<'_>, problems: &mut Problems) -> Option<Kind> {
    let name = named(document, problems)?.name;
    let allows_all = |field: Option<Field<'_>>| {
        field.is_some_and(|field| match &field.node().value {
            Value::List(rules) => matches!(&**rules, [rule] if matches!(rule.entries(), [_])
                && rule.get("action").and_then(|action| action.as_str()) == Some("Allow")),
            _ => false,
        })
    };
    let no_rules = |field: Option<Field<'_>>| {
        field.is_none_or(|field| matches!(&field.node().value, Value::List(rules) if rules.is_empty()))
    };
    let mut unusual = Vec::new();
    if let Some(spec) = problems.keep(root.object("spec")).flatten() {
        let (ingress, egress) = (spec.optional("ingress"), spec.optional("egress"));
        let usual = if name.starts_with("kns.") {
            allows_all(ingress) && allows_all(egress)
        } else if name.starts_with("ksa.") {
            no_rules(ingress) && no_rules(egress)
        } else {
            true
        };
        if !usual {
            let what = format!("the profile {name} does not have the rules that Calico gives it");
            unusual.push(Doubt::at(what, &document.at));
        }
        spec.ignore_rest();
    }
    root.ignore_rest();
    Some(Kind::Profile(unusual))
}

/// A number, such as an order.
fn number(field: &Field<'_>) -> Result<f64, Invalid> {
    match field.node().value {
        // Orders are small; beyond 2⁵³ Go's float64 rounds as this does.
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        Value::Int(number) => Ok(number as f64),
        Value::Float(number) => Ok(number),
        _ => Err(field.invalid("a number")),
    }
}

#[cfg(test)]
mod tests;
