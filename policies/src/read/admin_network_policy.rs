//! AdminNetworkPolicy and BaselineAdminNetworkPolicy of `policy.networking.k8s.io/v1alpha1` → [`Policy`].

use std::convert::Infallible;

use super::cluster_network_policy::priority;
use super::cluster_rules::{Grammar, Port, is_stored, named_port, section, subject};
use super::problems::{Problems, doubts, policy_ref};
use super::{Document, Field, Object, ReadError, core, object};
use crate::matching::{Match, TrafficMatch};
use crate::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy, Section};
use crate::sets::{PortSet, Protocol};
use crate::truth::Doubt;

/// What this reads: group, versions, kind.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    ("policy.networking.k8s.io", &["v1alpha1"], "AdminNetworkPolicy"),
    ("policy.networking.k8s.io", &["v1alpha1"], "BaselineAdminNetworkPolicy"),
];

const ADMIN: Grammar = Grammar {
    actions: &[("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)],
    most: 100,
    namespaces_optional: false,
    domain_names: true,
    ports_key: "ports",
    port,
};

const BASELINE: Grammar =
    Grammar { actions: &[("Allow", Action::Allow), ("Deny", Action::Deny)], domain_names: false, ..ADMIN };

/// Reads one.
///
/// # Errors
/// All that the CRDs' schemas and rules would reject, and selectors that select nothing in particular.
pub(super) fn read(document: &Document) -> Result<Policy, Vec<ReadError>> {
    let mut problems = Problems::default();
    let object = policy_ref(document, false, &mut problems);
    let stored = is_stored(document);
    let baseline = &*document.kind == "BaselineAdminNetworkPolicy";
    if baseline && !object.name.is_empty() && &*object.name != "default" {
        let message = format!("a BaselineAdminNetworkPolicy must be named default, is {:?}", object.name);
        problems.add(document.at.clone(), message, "there can be just one in a cluster");
    }
    let Ok((spec, unknown)) = object::read::<_, Infallible>(document, |root| {
        root.ignore(&["status"]);
        let spec = problems.keep(root.required("spec")).and_then(|spec| problems.keep(spec.object()));
        Ok(spec.map(|spec| Spec::read(spec, baseline, stored, &mut problems)))
    });
    let spec = spec.unwrap_or(Spec::NONE);
    let mut all = spec.doubts;
    all.extend(doubts(&unknown));
    let tier = if baseline { ClusterTier::Baseline } else { ClusterTier::Admin };
    problems.or(Policy {
        object,
        at: document.at.clone(),
        dialect: Dialect::AdminNetworkPolicy,
        place: Place::Cluster { tier, priority: spec.priority },
        subject: spec.subject,
        ingress: spec.ingress,
        egress: spec.egress,
        doubts: all,
        inert: None,
        inert_rules: Vec::new(),
    })
}

struct Spec {
    priority: u16,
    subject: Match,
    ingress: Option<Section>,
    egress: Option<Section>,
    doubts: Vec<Doubt>,
}

impl Spec {
    /// Stands in where an error was found.
    const NONE: Self =
        Self { priority: 0, subject: Match::Nothing, ingress: None, egress: None, doubts: Vec::new() };

    fn read(spec: Object<'_>, baseline: bool, stored: bool, problems: &mut Problems) -> Self {
        let grammar = if baseline { &BASELINE } else { &ADMIN };
        // A baseline has no priority: there is one.
        let priority = if baseline { None } else { priority(&spec, problems) };
        let subject = subject(&spec, grammar, problems);
        let ingress = section(&spec, Direction::Ingress, grammar, stored, problems);
        let egress = section(&spec, Direction::Egress, grammar, stored, problems);
        let doubts = doubts(&spec.finish()).collect();
        Self { priority: priority.unwrap_or(0), subject, ingress, egress, doubts }
    }
}

/// One item of `ports`: a number or a range, of TCP where no protocol is named, or a name.
fn port(object: &Object<'_>, field: &Field<'_>, problems: &mut Problems) -> Option<Port> {
    let mut found = Vec::new();
    if let Some(number) = object.optional("portNumber") {
        let number = problems.keep(number.object())?;
        let protocol = protocol(&number, problems)?;
        let port = problems.keep(number.required("port"))?;
        let port = problems.keep(core::port(&port))?;
        found.push(Port::Number(TrafficMatch::Ports(protocol, PortSet::one(port))));
    }
    if let Some(range) = object.optional("portRange") {
        let range = problems.keep(range.object())?;
        let protocol = protocol(&range, problems)?;
        let start = problems.keep(range.required("start"))?;
        let end = problems.keep(range.required("end"))?;
        let first = problems.keep(core::port(&start))?;
        let last = problems.keep(core::port(&end))?;
        if first >= last {
            problems.invalid(&end, "greater than start", "for a single port, write portNumber");
        }
        found.push(Port::Number(TrafficMatch::Ports(protocol, PortSet::range(first, last))));
    }
    if let Some(name) = object.optional("namedPort") {
        found.push(Port::Named(named_port(&name, problems)?));
    }
    // Beside a field that is not understood, which becomes a doubt, nothing else has to be there.
    if found.is_empty() && object.keys().next().is_some() {
        return None;
    }
    if found.len() != 1 {
        let message = format!("{} must have just one field, and has {}", field.path(), found.len());
        problems.add(field.at(), message, "items are joined by or: make one for each port");
    }
    found.pop()
}

fn protocol(object: &Object<'_>, problems: &mut Problems) -> Option<Protocol> {
    problems.keep(core::protocol(object, "protocol"))
}

#[cfg(test)]
mod tests;
