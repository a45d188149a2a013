//! One rule of a Calico policy: fields → what it says, checked as by `libcalico-go/lib/validator/v3` (3.26 to 3.32).

use super::selector::{OF_SERVICE_ACCOUNT, SERVICE_ACCOUNT, Selector};
use super::traffic::{self, Given};
use crate::matching::{Test, TrafficMatch};
use crate::policy::{Action, Direction};
use crate::read::problems::{Problems, doubts};
use crate::read::{Field, Object};
use crate::sets::{Cidr, CidrError, Family, Protocol};
use crate::source::At;
use crate::truth::Doubt;
use std::sync::Arc;

/// A rule as written.
#[derive(Debug, Clone)]
pub(super) struct RawRule {
    pub(super) path: Arc<str>,
    pub(super) at: At,
    /// `None` for `Log`, after which the packet goes on to the next rule.
    pub(super) action: Option<Action>,
    /// The address family it is limited to, by `ipVersion` or by its nets.
    pub(super) family: Option<Family>,
    pub(super) traffic: TrafficMatch,
    pub(super) source: Entity,
    pub(super) destination: Entity,
    pub(super) note: Option<Arc<str>>,
    /// Fields that nobody understood: whether the rule matches is then unknown.
    pub(super) doubts: Vec<Doubt>,
}

/// A source or a destination as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Entity {
    pub(super) selector: Option<Selector>,
    pub(super) not_selector: Option<Selector>,
    pub(super) namespace_selector: Option<Selector>,
    /// Names and selector of service accounts, as one selector over inherited labels.
    pub(super) service_accounts: Option<Selector>,
    pub(super) nets: Vec<Cidr>,
    pub(super) not_nets: Vec<Cidr>,
    /// The family of `nets` and `notNets`. A rule whose nets are all of the other family is not programmed for a packet's
    /// own (`filterNets` in `felix/rules/policy.go`), also where they are `notNets`.
    pub(super) family: Option<Family>,
    pub(super) services: Option<ServiceName>,
}

/// A Service whose backends a rule means.
#[derive(Debug, Clone)]
pub(super) struct ServiceName {
    /// `None` for the policy's own namespace.
    pub(super) namespace: Option<Arc<str>>,
    pub(super) name: Arc<str>,
    pub(super) at: At,
}

/// What a rule's meaning depends on beside its fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) direction: Direction,
    /// Whether the policy is in a namespace.
    pub(super) namespaced: bool,
}

/// Reads a rule; `None` if something is wrong with it, which is then among the problems.
pub(super) fn rule(field: &Field<'_>, around: Around, problems: &mut Problems) -> Option<RawRule> {
    let path = field.path();
    let object = problems.keep(field.object())?;
    let action = problems.keep(object.required("action")).and_then(|action| {
        problems.keep(action.choice(&[
            ("Allow", Some(Action::Allow)),
            ("Deny", Some(Action::Deny)),
            ("Pass", Some(Action::Pass)),
            ("Log", None),
        ]))
    })?;
    let protocol = object.optional("protocol").map(|field| traffic::protocol(&field, problems));
    let not_protocol = object.optional("notProtocol").map(|field| traffic::protocol(&field, problems));
    if [&protocol, &not_protocol].into_iter().any(|read| matches!(read, Some(None))) {
        return None;
    }
    let (protocol, not_protocol) = (protocol.flatten(), not_protocol.flatten());
    let mut given = Given { protocol, not_protocol, ..Given::default() };
    given.icmp = icmp(&object, "icmp", problems);
    given.not_icmp = icmp(&object, "notICMP", problems);
    let source = entity(&object, "source", around, problems, |entity, problems| {
        given.source_ports = traffic::ports(entity, "ports", protocol, problems);
        given.not_source_ports = traffic::ports(entity, "notPorts", protocol, problems);
    });
    let destination = entity(&object, "destination", around, problems, |entity, problems| {
        given.ports = traffic::ports(entity, "ports", protocol, problems);
        given.not_ports = traffic::ports(entity, "notPorts", protocol, problems);
    });
    let version = object
        .optional("ipVersion")
        .and_then(|field| Some((problems.keep(field.int_in(4..=6))?, field)))
        .and_then(|(version, field)| match version {
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => {
                problems.invalid(&field, "4 or 6", "name one family, or leave the field out for both");
                None
            }
        });
    let family = families(&object, version, &source, &destination, problems);
    check_icmp(&object, &given, version, problems);
    let note = http(&object, around, action, protocol, problems);
    // Says who wrote a rule; enforces nothing.
    object.ignore(&["metadata"]);
    if source.services.is_some() && around.direction == Direction::Egress {
        let hint = "an egress rule's services are those of its destination";
        problems.add(field.at(), format!("{path}.source.services must be absent in an egress rule"), hint);
    }
    if destination.services.is_some() && around.direction == Direction::Ingress {
        let hint = "an ingress rule's services are those of its source";
        problems.add(
            field.at(),
            format!("{path}.destination.services must be absent in an ingress rule"),
            hint,
        );
    }
    if destination.services.is_some() && !(given.ports.is_empty() && given.not_ports.is_empty()) {
        let hint = "the Service's own ports are matched; remove ports and notPorts";
        problems.add(field.at(), format!("{path}.destination has ports beside services"), hint);
    }
    Some(RawRule {
        path: path.into(),
        at: field.at(),
        action,
        family,
        traffic: traffic::matching(&given, &field.at()),
        source,
        destination,
        note,
        doubts: doubts(&object.finish()).collect(),
    })
}

fn entity<'a>(
    rule: &Object<'a>,
    key: &str,
    around: Around,
    problems: &mut Problems,
    ports: impl FnOnce(&Object<'a>, &mut Problems),
) -> Entity {
    let Some(object) = problems.keep(rule.object(key)).flatten() else { return Entity::default() };
    ports(&object, problems);
    let mut entity = Entity {
        selector: selector(&object, "selector", Globals::Refused, problems),
        not_selector: selector(&object, "notSelector", Globals::Refused, problems),
        namespace_selector: selector(&object, "namespaceSelector", Globals::Alone, problems),
        service_accounts: service_accounts(&object, problems),
        nets: nets(&object, "nets", problems),
        not_nets: nets(&object, "notNets", problems),
        family: None,
        services: services(&object, around, problems),
    };
    if entity.services.is_some() {
        for other in ["selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets"] {
            let empty = |field: &Field<'_>| field.node().as_str() == Some("");
            if let Some(field) = object.optional(other).filter(|field| !empty(field)) {
                let message = format!("{} cannot stand beside services", field.path());
                problems.add(field.at(), message, "make it a rule of its own");
            }
        }
    }
    let mut seen: Vec<Family> =
        entity.nets.iter().chain(&entity.not_nets).map(|net| Family::of(net.base())).collect();
    seen.sort_unstable();
    seen.dedup();
    if let [_, _, ..] = *seen {
        mixed(&object, problems);
    }
    entity.family = seen.first().copied();
    entity
}

fn mixed(object: &Object<'_>, problems: &mut Problems) {
    let message = format!("{} has IPv4 and IPv6 blocks", object.path());
    problems.add(object.at(), message, "a rule's blocks are of one family; make it two rules");
}

fn families(
    rule: &Object<'_>,
    version: Option<Family>,
    source: &Entity,
    destination: &Entity,
    problems: &mut Problems,
) -> Option<Family> {
    let nets = match (source.family, destination.family) {
        (Some(a), Some(b)) if a != b => {
            mixed(rule, problems);
            Some(a)
        }
        (a, b) => a.or(b),
    };
    if let (Some(version), Some(nets)) = (version, nets)
        && version != nets
    {
        let message = format!("{}.ipVersion is not that of its blocks", rule.path());
        problems.add(rule.at(), message, "make them one family");
    }
    version.or(nets)
}

/// Where `global()` may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Globals {
    /// Nowhere.
    Refused,
    /// Alone, as in a rule's `namespaceSelector`.
    Alone,
}

/// A selector; `None` where it is absent, empty, or wrong, which is then among the problems.
pub(super) fn selector(
    object: &Object<'_>,
    key: &str,
    globals: Globals,
    problems: &mut Problems,
) -> Option<Selector> {
    let field = object.optional(key)?;
    let text = problems.keep(field.string())?;
    if text.is_empty() {
        return None;
    }
    match Selector::parse(text) {
        Ok(selector) => {
            let misplaced = match globals {
                Globals::Refused => selector.mentions_global(),
                Globals::Alone => selector.mentions_global() && selector != Selector::Global,
            };
            if misplaced {
                let message = format!("{} cannot have global() there", field.path());
                problems.add(
                    field.at(),
                    message,
                    "global() stands alone, in a rule's namespaceSelector only",
                );
            }
            Some(selector)
        }
        Err(error) => {
            let message = format!("{} is no selector: {error}", field.path());
            let hint = "write it such as: app == \"web\" && env in {\"a\", \"b\"}";
            problems.add(field.at(), message, hint);
            None
        }
    }
}

fn service_accounts(entity: &Object<'_>, problems: &mut Problems) -> Option<Selector> {
    let object = problems.keep(entity.object("serviceAccounts")).flatten()?;
    let by_label =
        selector(&object, "selector", Globals::Refused, problems).map(|s| s.inherited(OF_SERVICE_ACCOUNT));
    let mut names: Vec<Arc<str>> = Vec::new();
    for field in problems.list(&object, "names") {
        names.extend(problems.keep(field.string()).map(Arc::from));
    }
    names.sort_unstable();
    names.dedup();
    let by_name = (!names.is_empty()).then(|| Selector::Label(SERVICE_ACCOUNT.into(), Test::In(names)));
    match (by_label, by_name) {
        (Some(label), Some(name)) => Some(label.and(name)),
        (label, name) => label.or(name),
    }
}

fn services(entity: &Object<'_>, around: Around, problems: &mut Problems) -> Option<ServiceName> {
    let object = problems.keep(entity.object("services")).flatten()?;
    let at = object.at();
    let name = problems.keep(object.required("name"))?;
    let name = problems.keep(name.string())?;
    let namespace: Option<Arc<str>> =
        problems.keep(object.string("namespace")).flatten().filter(|text| !text.is_empty()).map(Arc::from);
    if name.is_empty() || (namespace.is_none() && !around.namespaced) {
        let message = format!("{} names no Service", object.path());
        problems.add(at, message, "give its name, and in a global policy its namespace");
        return None;
    }
    Some(ServiceName { namespace, name: name.into(), at })
}

fn nets(object: &Object<'_>, key: &str, problems: &mut Problems) -> Vec<Cidr> {
    let mut nets = Vec::new();
    for field in problems.list(object, key) {
        let Some(text) = problems.keep(field.string()) else { continue };
        match text.parse() {
            Ok(net) => nets.push(net),
            Err(error) => {
                let hint = match error {
                    CidrError::HostBits { block, .. } => format!("write {block}, if that is meant"),
                    _ => "a single address is a block of /32 or /128".into(),
                };
                problems.add(field.at(), format!("{}: {error}", field.path()), &hint);
            }
        }
    }
    nets
}

fn icmp(rule: &Object<'_>, key: &str, problems: &mut Problems) -> Option<traffic::Icmp> {
    let object = problems.keep(rule.object(key)).flatten()?;
    let byte = |number: i64| u8::try_from(number).ok();
    let kind = problems.keep(object.int_in("type", 0..=254)).flatten().and_then(byte);
    let code = problems.keep(object.int_in("code", 0..=255)).flatten().and_then(byte);
    if code.is_some() && kind.is_none() {
        problems.add(object.at(), format!("{} has a code and no type", object.path()), "give the type, too");
    }
    kind.map(|kind| traffic::Icmp { kind, code })
}

fn check_icmp(rule: &Object<'_>, given: &Given, version: Option<Family>, problems: &mut Problems) {
    let path = rule.path();
    if given.icmp.is_some() && !matches!(given.protocol, Some(Protocol::Icmp | Protocol::Icmpv6)) {
        let message = format!("{path}.icmp needs the protocol ICMP or ICMPv6");
        problems.add(rule.at(), message, "set protocol to one of them");
    }
    let wrong = |protocol: Option<Protocol>| match protocol {
        Some(Protocol::Icmp) => version == Some(Family::V6),
        Some(Protocol::Icmpv6) => version == Some(Family::V4),
        _ => false,
    };
    if wrong(given.protocol) || wrong(given.not_protocol) {
        let message = format!("{path}.ipVersion is not that of its protocol");
        problems.add(rule.at(), message, "ICMP goes with 4, ICMPv6 with 6");
    }
}

/// The note of a rule with an HTTP match. Felix renders the rule without it (`felix/rules/policy.go` reads no HTTPMatch);
/// only the application-layer proxy looks at requests, after the packets have passed.
fn http(
    rule: &Object<'_>,
    around: Around,
    action: Option<Action>,
    protocol: Option<Protocol>,
    problems: &mut Problems,
) -> Option<Arc<str>> {
    let field = rule.optional("http")?;
    let object = problems.keep(field.object())?;
    object.ignore(&["methods", "paths"]);
    let tcp = protocol.is_none_or(|protocol| protocol == Protocol::Tcp);
    if around.direction == Direction::Egress || action != Some(Action::Allow) || !tcp {
        let hint = "HTTP is matched by rules of ingress that allow, of TCP or no named protocol";
        problems.add(field.at(), format!("{} cannot stand there", field.path()), hint);
    }
    Some(
        "its HTTP match limits requests where application layer policy is on; packets pass either way".into(),
    )
}
