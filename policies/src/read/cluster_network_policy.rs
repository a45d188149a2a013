//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2` → [`Policy`].

use std::convert::Infallible;

use super::cluster_rules::{Grammar, Port, is_stored, named_port, section, subject};
use super::problems::{Problems, doubts, policy_ref};
use super::{Document, Field, Object, ReadError, core, object};
use crate::matching::{Match, TrafficMatch};
use crate::policy::{Action, ClusterTier, Dialect, Direction, Place, Policy, Section};
use crate::sets::{PortSet, Protocol};
use crate::truth::Doubt;

/// What this reads: group, versions, kind.
pub(super) const KINDS: &[(&str, &[&str], &str)] =
    &[("policy.networking.k8s.io", &["v1alpha2"], "ClusterNetworkPolicy")];

const GRAMMAR: Grammar = Grammar {
    actions: &[("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)],
    most: 25,
    namespaces_optional: true,
    domain_names: true,
    ports_key: "protocols",
    port: protocol,
};

/// Reads one.
///
/// # Errors
/// All that the CRD's schema and rules would reject, and selectors that select nothing in particular.
pub(super) fn read(document: &Document) -> Result<Policy, Vec<ReadError>> {
    let mut problems = Problems::default();
    let object = policy_ref(document, false, &mut problems);
    let stored = is_stored(document);
    let Ok((spec, unknown)) = object::read::<_, Infallible>(document, |root| {
        root.ignore(&["status"]);
        let spec = problems.keep(root.required("spec")).and_then(|spec| problems.keep(spec.object()));
        Ok(spec.and_then(|spec| Spec::read(spec, stored, &mut problems)))
    });
    let spec = spec.unwrap_or(Spec::NONE);
    let mut all = spec.doubts;
    all.extend(doubts(&unknown));
    problems.or(Policy {
        object,
        at: document.at.clone(),
        dialect: Dialect::ClusterNetworkPolicy,
        place: Place::Cluster { tier: spec.tier, priority: spec.priority },
        subject: spec.subject,
        ingress: spec.ingress,
        egress: spec.egress,
        doubts: all,
        inert: None,
        inert_rules: Vec::new(),
    })
}

struct Spec {
    tier: ClusterTier,
    priority: u16,
    subject: Match,
    ingress: Option<Section>,
    egress: Option<Section>,
    doubts: Vec<Doubt>,
}

impl Spec {
    /// Stands in where an error was found.
    const NONE: Self = Self {
        tier: ClusterTier::Admin,
        priority: 0,
        subject: Match::Nothing,
        ingress: None,
        egress: None,
        doubts: Vec::new(),
    };

    fn read(spec: Object<'_>, stored: bool, problems: &mut Problems) -> Option<Self> {
        let tiers = [("Admin", ClusterTier::Admin), ("Baseline", ClusterTier::Baseline)];
        let tier = problems.keep(spec.required("tier")).and_then(|tier| problems.keep(tier.choice(&tiers)));
        let priority = priority(&spec, problems);
        let subject = subject(&spec, &GRAMMAR, problems);
        let ingress = section(&spec, Direction::Ingress, &GRAMMAR, stored, problems);
        let egress = section(&spec, Direction::Egress, &GRAMMAR, stored, problems);
        let doubts = doubts(&spec.finish()).collect();
        Some(Self { tier: tier?, priority: priority?, subject, ingress, egress, doubts })
    }
}

/// `spec.priority`, 0 to 1000, the lower the earlier.
pub(super) fn priority(spec: &Object<'_>, problems: &mut Problems) -> Option<u16> {
    let field = problems.keep(spec.required("priority"))?;
    let priority = problems.keep(field.int_in(0..=1000))?;
    u16::try_from(priority).ok()
}

/// One item of `protocols`: a protocol with a port or a range, or a named port of any protocol.
fn protocol(object: &Object<'_>, field: &Field<'_>, problems: &mut Problems) -> Option<Port> {
    let mut found = Vec::new();
    for (key, protocol) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)] {
        if let Some(field) = object.optional(key) {
            found.push(Port::Number(attributes(&field, protocol, problems)?));
        }
    }
    if let Some(name) = object.optional("destinationNamedPort") {
        found.push(Port::Named(named_port(&name, problems)?));
    }
    // Beside a field that is not understood, which becomes a doubt, nothing else has to be there.
    if found.is_empty() && object.keys().next().is_some() {
        return None;
    }
    if found.len() != 1 {
        let message = format!("{} must have just one field, and has {}", field.path(), found.len());
        problems.add(field.at(), message, "items are joined by or: make one for each protocol");
    }
    found.pop()
}

fn attributes(field: &Field<'_>, protocol: Protocol, problems: &mut Problems) -> Option<TrafficMatch> {
    let object = problems.keep(field.object())?;
    let Some(port) = object.optional("destinationPort") else {
        if let Some(doubt) = doubts(&object.finish()).map(TrafficMatch::Doubt).next() {
            return Some(TrafficMatch::All(vec![TrafficMatch::Protocol(protocol), doubt]));
        }
        let message = format!("{} must have a destinationPort", field.path());
        problems.add(
            field.at(),
            message,
            "for every port, write destinationPort: {range: {start: 1, end: 65535}}",
        );
        return None;
    };
    let ports = self::port(&port, problems)?;
    let known = TrafficMatch::Ports(protocol, ports);
    let doubt = doubts(&object.finish()).map(TrafficMatch::Doubt).next();
    Some(doubt.map_or(known.clone(), |doubt| TrafficMatch::All(vec![known, doubt])))
}

fn port(field: &Field<'_>, problems: &mut Problems) -> Option<PortSet> {
    let object = problems.keep(field.object())?;
    match (object.optional("number"), object.optional("range")) {
        (Some(number), None) => problems.keep(core::port(&number)).map(PortSet::one),
        (None, Some(range)) => {
            let range = problems.keep(range.object())?;
            let start = problems.keep(range.required("start"))?;
            let end = problems.keep(range.required("end"))?;
            let first = problems.keep(core::port(&start))?;
            let last = problems.keep(core::port(&end))?;
            if first >= last {
                problems.invalid(&end, "greater than start", "for a single port, write number");
            }
            Some(PortSet::range(first, last))
        }
        _ => {
            let message = format!("{} must have just one of number and range", field.path());
            problems.add(field.at(), message, "items are joined by or: make one for each");
            None
        }
    }
}

#[cfg(test)]
mod tests;
