//! NetworkPolicy of `networking.k8s.io/v1` → [`Policy`].
//!
//! Defaults are those of the API server (`pkg/apis/networking/v1/defaults.go`), rejected is what its validation rejects
//! (`pkg/apis/networking/validation`). A field that is not understood is not dropped, as the API server may do with it: it
//! makes unknown what the peer, port, rule or policy that holds it says.

use std::convert::Infallible;
use std::sync::Arc;

use super::problems::{Problems, cidr, doubts, policy_ref};
use super::selector::{all, optional_selector};
use super::{Document, Field, IntOrString, Object, ReadError, core, object};
use crate::matching::{LabelOwner, Match, Test, TrafficMatch};
use crate::policy::{Action, Dialect, Direction, Place, Policy, Rule, Section};
use crate::profile::Fact;
use crate::sets::{AddressSet, Cidr, Family, PortSet, Protocol};
use crate::source::At;
use crate::truth::Truth;

/// What this reads: group, versions, kind.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[("networking.k8s.io", &["v1"], "NetworkPolicy")];

/// Reads one. Rules of a direction that it does not declare make a second policy, for implementations that apply them all the same.
///
/// # Errors
/// All that the API server would reject.
pub(super) fn read(document: &Document) -> Result<Vec<Policy>, Vec<ReadError>> {
    let mut problems = Problems::default();
    let object = policy_ref(document, true, &mut problems);
    let namespace = object.namespace.clone().unwrap_or_default();
    let Ok((mut spec, unknown)) = object::read::<_, Infallible>(document, |root| {
        root.ignore(&["status"]);
        let spec = problems.keep(root.object("spec")).flatten();
        // Without a spec, the empty one: it selects every pod and allows no ingress.
        Ok(spec.map_or_else(|| Spec::empty(&namespace), |spec| Spec::read(spec, &namespace, &mut problems)))
    });
    spec.doubts.extend(doubts(&unknown));
    let policy = Policy {
        object,
        at: document.at.clone(),
        dialect: Dialect::NetworkPolicy,
        place: Place::Kubernetes,
        subject: spec.subject,
        ingress: spec.ingress,
        egress: spec.egress,
        doubts: spec.doubts,
        inert: None,
        inert_rules: spec.inert_rules,
    };
    let [ingress, egress] = spec.undeclared;
    let second = (ingress.is_some() || egress.is_some()).then(|| Policy {
        subject: all(vec![policy.subject.clone(), Match::Fact(Fact::UndeclaredRulesCount)]),
        ingress,
        egress,
        doubts: Vec::new(),
        inert_rules: Vec::new(),
        ..policy.clone()
    });
    problems.or(std::iter::once(policy).chain(second).collect())
}

struct Spec {
    subject: Match,
    ingress: Option<Section>,
    egress: Option<Section>,
    doubts: Vec<crate::truth::Doubt>,
    /// Rules of a direction that `policyTypes` does not name.
    inert_rules: Vec<At>,
    /// The same as sections: ingress, egress.
    undeclared: [Option<Section>; 2],
}

impl Spec {
    fn empty(namespace: &Arc<str>) -> Self {
        let ingress = Some(Section { isolates: Truth::Yes, rules: Vec::new() });
        Self {
            subject: pods_of(namespace, Match::Anything),
            ingress,
            egress: None,
            doubts: Vec::new(),
            inert_rules: Vec::new(),
            undeclared: [None, None],
        }
    }

    fn read(spec: Object<'_>, namespace: &Arc<str>, problems: &mut Problems) -> Self {
        let selector = optional_selector(&spec, "podSelector", LabelOwner::Endpoint, problems);
        let rules = |direction, problems: &mut Problems| -> Vec<Rule> {
            let fields = problems.list(&spec, section_key(direction));
            fields.iter().filter_map(|field| rule(field, direction, namespace, problems)).collect()
        };
        let ingress = rules(Direction::Ingress, problems);
        let egress = rules(Direction::Egress, problems);
        let types = policy_types(&spec, problems);
        // "Any policy that does not specify policyTypes implies at least Ingress", and Egress if it has egress rules. Rules
        // of a direction that is not among declared types have no effect.
        let (to, from) = match types.as_slice() {
            [] => (true, !egress.is_empty()),
            types => (types.contains(&Direction::Ingress), types.contains(&Direction::Egress)),
        };
        let undeclared =
            [(to, &ingress), (from, &egress)].into_iter().filter(|(is_declared, _)| !is_declared);
        let inert_rules = undeclared.flat_map(|(_, rules)| rules).map(|rule| rule.at.clone()).collect();
        let section = |rules| Section { isolates: Truth::Yes, rules };
        let silent = |is_declared: bool, rules: &Vec<Rule>| {
            (!is_declared && !rules.is_empty()).then(|| section(rules.clone()))
        };
        Self {
            undeclared: [silent(to, &ingress), silent(from, &egress)],
            subject: pods_of(namespace, selector.unwrap_or(Match::Anything)),
            ingress: to.then(|| section(ingress)),
            egress: from.then(|| section(egress)),
            doubts: doubts(&spec.finish()).collect(),
            inert_rules,
        }
    }
}

fn section_key(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn policy_types(spec: &Object<'_>, problems: &mut Problems) -> Vec<Direction> {
    let fields = problems.list(spec, "policyTypes");
    if let Some(third) = fields.get(2) {
        let message = "spec.policyTypes must name at most two types";
        problems.add(third.at(), message, "there are two: Ingress and Egress");
    }
    let types = [("Ingress", Direction::Ingress), ("Egress", Direction::Egress)];
    fields.iter().filter_map(|field| problems.keep(field.choice(&types))).collect()
}

/// Pods of a namespace.
fn pods_of(namespace: &Arc<str>, which: Match) -> Match {
    Match::pods(all(vec![Match::Namespace(Test::Is(Arc::clone(namespace))), which]))
}

fn rule(
    field: &Field<'_>,
    direction: Direction,
    namespace: &Arc<str>,
    problems: &mut Problems,
) -> Option<Rule> {
    let object = problems.keep_or(field.object(), "an empty rule, which allows all, is written {}")?;
    let at = object.at();
    let peers = problems.list(&object, if direction == Direction::Ingress { "from" } else { "to" });
    let ports = problems.list(&object, "ports");
    // "If this field is empty or missing, this rule matches all sources", also those outside the cluster.
    let mut peer = if peers.is_empty() {
        Match::Anything
    } else {
        let each = peers.iter().filter_map(|field| self::peer(field, namespace, problems)).collect();
        one_of(both_families(each))
    };
    let traffic = if ports.is_empty() {
        TrafficMatch::Anything
    } else {
        let mut each: Vec<_> = ports.iter().filter_map(|field| port(field, problems)).collect();
        if each.len() == 1 { each.pop().unwrap_or(TrafficMatch::Nothing) } else { TrafficMatch::OneOf(each) }
    };
    // A misspelt `from` leaves a rule that allows everybody where it is dropped, and somebody where it is not.
    if let Some(doubt) = doubts(&object.finish()).next() {
        peer = Match::Doubt(doubt);
    }
    Some(Rule { path: field.path().into(), at, action: Action::Allow, peer, traffic, note: None })
}

/// Blocks of both families as one set: a pod with an address in each is in it whichever a packet uses.
fn both_families(each: Vec<Match>) -> Vec<Match> {
    let has = |family: Family| {
        let family = AddressSet::family(family);
        each.iter().any(|peer| matches!(peer, Match::Cidr(set) if set.intersects(&family)))
    };
    if !(has(Family::V4) && has(Family::V6)) {
        return each;
    }
    let mut blocks = AddressSet::empty();
    let mut others = Vec::new();
    for peer in each {
        match peer {
            Match::Cidr(set) => blocks = blocks.union(&set),
            other => others.push(other),
        }
    }
    others.push(Match::Cidr(blocks));
    others
}

fn one_of(mut each: Vec<Match>) -> Match {
    if each.len() == 1 { each.pop().unwrap_or(Match::Nothing) } else { Match::OneOf(each) }
}

/// A peer: pods by selectors, which are joined by *and*, or a block of addresses.
fn peer(field: &Field<'_>, namespace: &Arc<str>, problems: &mut Problems) -> Option<Match> {
    let object = problems.keep(field.object())?;
    let pods = optional_selector(&object, "podSelector", LabelOwner::Endpoint, problems);
    let namespaces = optional_selector(&object, "namespaceSelector", LabelOwner::Namespace, problems);
    let block = object.optional("ipBlock");
    let known = match (pods, namespaces, block) {
        (None, None, None) => {
            let unknown = object.finish();
            if let Some(doubt) = doubts(&unknown).next() {
                return Some(Match::Doubt(doubt));
            }
            let hint = "leave the whole list out to match every peer, or select pods with podSelector: {}";
            problems.add(field.at(), format!("{} names no peer", field.path()), hint);
            return None;
        }
        (None, None, Some(block)) => ip_block(&block, problems)?,
        (_, _, Some(block)) => {
            let message = format!("{} has both an ipBlock and a selector", field.path());
            problems.add(block.at(), message, "make two items of it: they are joined by or");
            return None;
        }
        // Absent and empty differ: without a namespaceSelector only the policy's own namespace is meant.
        (Some(pods), None, None) => pods_of(namespace, pods),
        (pods, Some(namespaces), None) => Match::pods(all(vec![namespaces, pods.unwrap_or(Match::Anything)])),
    };
    let doubt = doubts(&object.finish()).map(Match::Doubt).next();
    Some(doubt.unwrap_or(known))
}

fn ip_block(field: &Field<'_>, problems: &mut Problems) -> Option<Match> {
    let object = problems.keep(field.object())?;
    let block_field = problems.keep(object.required("cidr"))?;
    let block = cidr(&block_field, problems)?;
    let whole = AddressSet::block(block);
    let mut set = whole.clone();
    let mut holes: Vec<Cidr> = Vec::new();
    for field in problems.list(&object, "except") {
        let Some(except) = cidr(&field, problems) else { continue };
        let hole = AddressSet::block(except);
        overlap(&field, except, &holes, problems);
        holes.push(except);
        if hole == whole || !hole.is_subset(&whole) {
            let message = format!("{}: {except} must lie within {block} and be smaller", field.path());
            problems.add(field.at(), message, "an exception takes addresses out of its own block only");
        }
        set = set.difference(&hole);
    }
    let doubt = doubts(&object.finish()).map(Match::Doubt).next();
    Some(doubt.unwrap_or(Match::Cidr(set)))
}

/// Exceptions of one block that say the same twice: one of them is not what its author means.
pub(super) fn overlap(field: &Field<'_>, except: Cidr, before: &[Cidr], problems: &mut Problems) {
    let hole = AddressSet::block(except);
    if let Some(other) = before.iter().find(|other| hole.intersects(&AddressSet::block(**other))) {
        let message = format!("{}: {except} overlaps the exception {other}", field.path());
        problems.add(
            field.at(),
            message,
            "name each address once: remove the smaller block, or correct one of them",
        );
    }
}

/// One item of `ports`. A protocol without a port is all ports of that protocol, TCP if none is named.
fn port(field: &Field<'_>, problems: &mut Problems) -> Option<TrafficMatch> {
    let object = problems.keep_or(field.object(), "all TCP ports are written {}")?;
    let protocols = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    let protocol = match object.optional("protocol") {
        None => Protocol::Tcp,
        Some(field) => problems.keep_or(
            field.choice(&protocols),
            "other protocols can be admitted only by a rule without ports",
        )?,
    };
    let end = object.optional("endPort");
    let known = match object.optional("port") {
        None => {
            if let Some(end) = end {
                problems.invalid(&end, "absent where there is no port", "give the first port of the range");
            }
            TrafficMatch::Protocol(protocol)
        }
        Some(port) => match problems.keep(port.int_or_string())? {
            IntOrString::Int(_) => {
                let hint = "leave the port out to match every port";
                let first = problems.keep_or(core::port(&port), hint)?;
                let last = match &end {
                    None => first,
                    Some(end) => problems.keep(core::port(end))?,
                };
                if last < first
                    && let Some(end) = end
                {
                    problems.invalid(&end, format!("{first} or more"), "the range is port to endPort");
                }
                TrafficMatch::Ports(protocol, PortSet::range(first, last))
            }
            IntOrString::String(name) => {
                if let Some(end) = end {
                    let hint = "a range begins with a number";
                    problems.invalid(&end, "absent where the port is a name", hint);
                }
                if !is_port_name(name) {
                    problems.invalid(
                        &port,
                        "a port number or name",
                        "a name has at most 15 of a-z, 0-9 and -, and a letter; a number stands without quotes",
                    );
                }
                TrafficMatch::NamedPort(protocol, name.into())
            }
        },
    };
    let doubt = doubts(&object.finish()).map(TrafficMatch::Doubt).next();
    Some(doubt.unwrap_or(known))
}

/// `IsValidPortName` of apimachinery.
pub(super) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

#[cfg(test)]
mod tests;
