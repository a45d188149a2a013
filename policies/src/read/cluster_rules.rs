//! What ClusterNetworkPolicy and (Baseline)AdminNetworkPolicy have in common: subjects, rules in their order, peers.
//!
//! The rules of both are those of `sigs.k8s.io/network-policy-api`: `apis/v1alpha2/clusternetworkpolicy_types.go` and
//! `apis/v1alpha1/{adminnetworkpolicy,baselineadminnetworkpolicy,shared}_types.go`, with the markers that their CRDs are made
//! from. Where one field is missing from the reading of an implementation, it "should fail closed": an Accept rule then
//! matches no traffic, a Deny or Pass rule is "a 'Deny all' rule". Another implementation understands that field. So a field
//! that nobody understands here is neither: an Accept may match or not, a Deny denies what else it names and may deny the
//! rest, and a Pass may also deny.

use std::sync::Arc;

use super::network_policy::is_port_name;
use super::problems::{Problems, cidr, doubts};
use super::selector::{all, label_selector, optional_selector};
use super::{Document, Field, Node, Object};
use crate::matching::{DomainPattern, Kind, LabelOwner, Match, TrafficMatch};
use crate::policy::{Action, Direction, Rule, Section};
use crate::sets::{AddressSet, Protocol};
use crate::truth::{Doubt, Truth};

/// How one of the kinds differs from the others.
pub(super) struct Grammar {
    /// What its rules may do.
    pub(super) actions: &'static [(&'static str, Action)],
    /// Most rules of a section, peers of a rule, and ports of a rule.
    pub(super) most: usize,
    /// Whether `namespaceSelector` may be left out of `pods`: it is then empty, and selects all namespaces.
    pub(super) namespaces_optional: bool,
    /// Whether peers may be DNS names.
    pub(super) domain_names: bool,
    /// The list that narrows a rule to protocols and ports.
    pub(super) ports_key: &'static str,
    /// Reads one of them.
    pub(super) port: fn(&Object<'_>, &Field<'_>, &mut Problems) -> Option<Port>,
}

/// One item of a rule's ports.
pub(super) enum Port {
    /// By number, or by protocol alone.
    Number(TrafficMatch),
    /// By the name that the destination pod gives it.
    Named(TrafficMatch),
}

/// Whether an API server has stored this object, which may then hold what the API would not take today: it was validated by
/// an older or newer version of its CRD, and fields that the present one lacks were dropped.
pub(super) fn is_stored(document: &Document) -> bool {
    document.root.get("metadata").and_then(|metadata| metadata.get("uid")).and_then(Node::as_str).is_some()
}

/// Whom a policy selects. "Note that host-networked pods are not included in subject selection."
pub(super) fn subject(spec: &Object<'_>, grammar: &Grammar, problems: &mut Problems) -> Match {
    let Some(object) =
        problems.keep(spec.required("subject")).and_then(|field| problems.keep(field.object()))
    else {
        return Match::Nothing;
    };
    let at = object.at();
    let found = pod_fields(&object, grammar, problems);
    let unknown = object.finish();
    match (found.len(), doubts(&unknown).next()) {
        (_, Some(doubt)) => Match::pods(Match::Doubt(doubt)),
        (1, None) => one_of(found),
        (_, None) => {
            let message = "spec.subject must have just one of namespaces and pods";
            problems.add(at, message, "to select every pod, write namespaces: {}");
            Match::Nothing
        }
    }
}

/// One direction's rules, in their order; `None` where there are none, since such a policy "does not affect" the direction.
/// Nothing is isolated: what no rule matches goes on to the next policy, tier, and in the end through.
pub(super) fn section(
    spec: &Object<'_>,
    direction: Direction,
    grammar: &Grammar,
    stored: bool,
    problems: &mut Problems,
) -> Option<Section> {
    let key = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let fields = problems.list(spec, key);
    at_most(&fields, grammar.most, "rules", problems);
    let rules: Vec<Rule> =
        fields.iter().filter_map(|field| rule(field, direction, grammar, stored, problems)).collect();
    (!rules.is_empty()).then_some(Section { isolates: Truth::No, rules })
}

fn at_most(fields: &[Field<'_>], most: usize, what: &str, problems: &mut Problems) {
    if let Some(extra) = fields.get(most) {
        let message = format!("{}: there may be at most {most} {what}", extra.path());
        problems.add(extra.at(), message, "make a second one for the rest");
    }
}

fn rule(
    field: &Field<'_>,
    direction: Direction,
    grammar: &Grammar,
    stored: bool,
    problems: &mut Problems,
) -> Option<Rule> {
    let object = problems.keep(field.object())?;
    let at = object.at();
    if let Some(name) = object.optional("name")
        && problems.keep(name.string()).is_some_and(|text| text.chars().count() > 100)
    {
        problems.invalid(&name, "at most 100 characters long", "shorten it");
    }
    let action = problems
        .keep(object.required("action"))
        .and_then(|field| problems.keep_or(field.choice(grammar.actions), "the case of letters counts"));
    let peers_key = if direction == Direction::Ingress { "from" } else { "to" };
    let peer_fields = some_of(&object, peers_key, grammar.most, problems);
    let peers: Vec<Peer> = peer_fields
        .iter()
        .filter_map(|field| peer(field, direction, action, grammar, stored, problems))
        .collect();
    let ports: Vec<Port> = if object.optional(grammar.ports_key).is_some() {
        let fields = some_of(&object, grammar.ports_key, grammar.most, problems);
        fields
            .iter()
            .filter_map(|field| {
                let object = problems.keep(field.object())?;
                let known = (grammar.port)(&object, field, problems);
                let doubt = doubts(&object.finish()).map(TrafficMatch::Doubt).next();
                doubt.map(Port::Number).or(known)
            })
            .collect()
    } else {
        Vec::new()
    };
    // The rule of the experimental CRD; in the standard one it is a sentence of the type: "You can't use this in a rule that
    // targets resources without named ports (e.g. Nodes or Networks)."
    let named = ports.iter().any(|port| matches!(port, Port::Named(_)));
    if named && peers.iter().any(|peer| matches!(peer, Peer::Addresses(_))) {
        let message = format!("{} has a named port and peers that name no ports", field.path());
        problems.add(
            field.at(),
            message,
            "make a rule of its own, with port numbers, for networks, nodes and domain names",
        );
    }
    let traffic = if ports.is_empty() {
        TrafficMatch::Anything
    } else {
        let mut each: Vec<_> = ports
            .into_iter()
            .map(|port| match port {
                Port::Number(traffic) | Port::Named(traffic) => traffic,
            })
            .collect();
        if each.len() == 1 { each.pop().unwrap_or(TrafficMatch::Nothing) } else { TrafficMatch::OneOf(each) }
    };
    let path: Arc<str> = field.path().into();
    let rule = |action, peer, traffic, note: Option<&str>| Rule {
        path: Arc::clone(&path),
        at: at.clone(),
        action,
        peer,
        traffic,
        note: note.map(Arc::from),
    };
    if let Some(doubt) = doubts(&object.finish()).next() {
        return Some(rule(Action::Unknown, Match::Doubt(doubt), TrafficMatch::Anything, None));
    }
    let action = action?;
    if peers.iter().any(|peer| matches!(peer, Peer::Empty)) {
        let note = Some("has a peer without a field that is known, and fails closed");
        return Some(match action {
            Action::Allow => rule(action, Match::Nothing, TrafficMatch::Nothing, note),
            _ => rule(Action::Deny, Match::Anything, TrafficMatch::Anything, note),
        });
    }
    let doubt = peers.iter().find_map(|peer| match peer {
        Peer::NotUnderstood(doubt) => Some(Match::Doubt(doubt.clone())),
        _ => None,
    });
    let known = peers.into_iter().filter_map(|peer| match peer {
        Peer::Pods(which) | Peer::Addresses(which) => Some(which),
        Peer::NotUnderstood(_) | Peer::Empty => None,
    });
    Some(match (doubt, action) {
        (None, _) => rule(action, one_of(known.collect()), traffic, None),
        (Some(doubt), Action::Allow) => rule(action, doubt, traffic, None),
        (Some(doubt), Action::Deny) => {
            // Failing closed it denies every port, so that nothing smaller than all traffic is said of the rest.
            let known = one_of(known.collect());
            if traffic == TrafficMatch::Anything {
                rule(action, Match::OneOf(vec![known, doubt]), traffic, None)
            } else {
                rule(action, doubt, TrafficMatch::Anything, None)
            }
        }
        (Some(doubt), _) => rule(Action::Unknown, doubt, TrafficMatch::Anything, None),
    })
}

/// A list that must have a member.
fn some_of<'a>(object: &Object<'a>, key: &str, most: usize, problems: &mut Problems) -> Vec<Field<'a>> {
    let Some(field) = problems.keep(object.required(key)) else { return Vec::new() };
    let Some(fields) = problems.keep(field.list()) else { return Vec::new() };
    if fields.is_empty() {
        let message = format!("{} must have at least one item", field.path());
        let hint = if matches!(key, "from" | "to") {
            "to match every pod, write namespaces: {}; to match every address, networks: [0.0.0.0/0, \"::/0\"]"
        } else {
            "to match every port, leave it out"
        };
        problems.add(field.at(), message, hint);
    }
    at_most(&fields, most, "items", problems);
    fields
}

/// The other end of a rule.
enum Peer {
    /// Pods, by labels.
    Pods(Match),
    /// What has no named ports: nodes, networks, domain names.
    Addresses(Match),
    /// Has a field that is not understood.
    NotUnderstood(Doubt),
    /// Has no field, in an object that an API server stored.
    Empty,
}

fn peer(
    field: &Field<'_>,
    direction: Direction,
    action: Option<Action>,
    grammar: &Grammar,
    stored: bool,
    problems: &mut Problems,
) -> Option<Peer> {
    let object = problems.keep(field.object())?;
    let mut found: Vec<Peer> = pod_fields(&object, grammar, problems).into_iter().map(Peer::Pods).collect();
    if direction == Direction::Egress {
        if let Some(nodes) = object.optional("nodes") {
            let labels = problems.keep(nodes.object())?;
            let labels = label_selector(labels, LabelOwner::Endpoint, problems);
            let any_node = Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]);
            found.push(Peer::Addresses(all(vec![any_node, labels])));
        }
        if object.optional("networks").is_some() {
            let fields = distinct(&object, "networks", problems);
            let blocks: Vec<_> = fields.iter().filter_map(|field| cidr(field, problems)).collect();
            found.push(Peer::Addresses(Match::Cidr(AddressSet::blocks(blocks))));
        }
        if grammar.domain_names && object.optional("domainNames").is_some() {
            let fields = distinct(&object, "domainNames", problems);
            let names =
                fields.iter().filter_map(|field| domain(field, problems)).map(Match::Domain).collect();
            // "DomainNames is only supported for Accept rules": with another action, nothing says what happens.
            found.push(if matches!(action, None | Some(Action::Allow)) {
                Peer::Addresses(one_of(names))
            } else {
                let what = format!("{}: domain names have no meaning but in rules that accept", field.path());
                Peer::NotUnderstood(Doubt::at(what, &field.at()))
            });
        }
    }
    if let Some(doubt) = doubts(&object.finish()).next() {
        return Some(Peer::NotUnderstood(doubt));
    }
    match (found.len(), stored) {
        (1, _) => found.pop(),
        (0, true) => Some(Peer::Empty),
        (count, _) => {
            let message = format!("{} must have just one field, and has {count}", field.path());
            problems.add(field.at(), message, "items are joined by or: make one for each");
            None
        }
    }
}

/// The members of a set: at least one, at most 25, none twice.
fn distinct<'a>(object: &Object<'a>, key: &str, problems: &mut Problems) -> Vec<Field<'a>> {
    let fields = some_of(object, key, 25, problems);
    let mut seen = std::collections::BTreeSet::new();
    for field in &fields {
        if let Some(text) = problems.keep(field.string())
            && !seen.insert(text)
        {
            problems.add(field.at(), format!("{}: {text:?} is there twice", field.path()), "remove one");
        }
    }
    fields.into_iter().filter(|field| field.string().is_ok()).collect()
}

/// `namespaces` and `pods`, those that are there. "Note that host-networked pods are not included."
fn pod_fields(object: &Object<'_>, grammar: &Grammar, problems: &mut Problems) -> Vec<Match> {
    let namespaces =
        optional_selector(object, "namespaces", LabelOwner::Namespace, problems).map(Match::pods);
    let pods = object.optional("pods").map(|field| {
        let Some(pods) = problems.keep(field.object()) else { return Match::Nothing };
        let mut part = |key, owner, optional: bool| {
            if !optional {
                problems.keep_or(pods.required(key), "an empty selector, {}, selects all");
            }
            optional_selector(&pods, key, owner, problems).unwrap_or(Match::Anything)
        };
        let parts = vec![
            part("namespaceSelector", LabelOwner::Namespace, grammar.namespaces_optional),
            part("podSelector", LabelOwner::Endpoint, false),
        ];
        let unknown = pods.finish();
        Match::pods(all(parts.into_iter().chain(doubts(&unknown).map(Match::Doubt)).collect()))
    });
    namespaces.into_iter().chain(pods).collect()
}

/// A DNS name. "'*', the wildcard specifier, matches one or more entire labels."
fn domain(field: &Field<'_>, problems: &mut Problems) -> Option<DomainPattern> {
    let text = problems.keep(field.string())?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (wild, rest) = name.strip_prefix("*.").map_or((false, &*name), |rest| (true, rest));
    // ^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$ without its slip, A-z.
    let label = |label: &str| {
        let ends = |end: Option<u8>| end.is_some_and(|b| b.is_ascii_alphanumeric());
        label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && ends(label.bytes().next())
            && ends(label.bytes().last())
    };
    if !rest.contains('.') || !rest.split('.').all(label) {
        let hint = "write a name of two labels or more, such as example.com or *.example.com";
        problems.invalid(field, "a DNS name", hint);
        return None;
    }
    Some(if wild { DomainPattern::Under(rest.into()) } else { DomainPattern::Name(rest.into()) })
}

/// The port that a pod names so, whatever its protocol.
pub(super) fn named_port(name: &Field<'_>, problems: &mut Problems) -> Option<TrafficMatch> {
    let text = problems.keep(name.string())?;
    if !is_port_name(text) {
        let way_out = "a name has at most 15 of a-z, 0-9 and -, and a letter";
        problems.invalid(name, "the name of a port", way_out);
    }
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let each = protocols.map(|protocol| TrafficMatch::NamedPort(protocol, text.into()));
    Some(TrafficMatch::OneOf(each.to_vec()))
}

fn one_of(mut each: Vec<Match>) -> Match {
    if each.len() == 1 { each.pop().unwrap_or(Match::Nothing) } else { Match::OneOf(each) }
}
