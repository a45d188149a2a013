//! `toPorts` and `icmps` → [`TrafficMatch`].

use super::super::problems::doubts;
use super::super::{Field, IntOrString, Object};
use super::check::Check;
use crate::matching::TrafficMatch;
use crate::sets::{PortSet, Protocol};
use crate::truth::Doubt;
use std::sync::Arc;

/// What a rule says of packets.
#[derive(Debug)]
pub(super) struct Ports {
    /// As versions read it that know `endPort` (1.16 and later).
    pub(super) traffic: TrafficMatch,
    /// As older ones do, if that differs: they know the first port only.
    pub(super) without_end: Option<TrafficMatch>,
    /// Whether ports or ICMP types are named at all: a rule without peers then means any peer.
    pub(super) named: bool,
    /// Whether a part of it makes the agent read DNS answers.
    pub(super) dns: bool,
    /// What it asks beyond packets.
    pub(super) note: Option<Arc<str>>,
}

/// Note of a rule that admits questions for some names to a DNS server.
pub(crate) const LISTED_NAMES_ONLY: &str = "the DNS proxy answers for the listed names only";

/// Protocols of a rule that names none: "any protocols with transport ports (TCP, UDP, SCTP) match" (pkg/policy/api/l4.go).
const TRANSPORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Reads both fields of a rule. `deny` rules know no layer 7.
pub(super) fn read(rule: &Object<'_>, deny: bool, ingress: bool, check: &mut Check<'_>) -> Ports {
    let (to_ports, icmps) = (check.problems.list(rule, "toPorts"), check.problems.list(rule, "icmps"));
    if !to_ports.is_empty() && !icmps.is_empty() {
        let why = format!("{} has both toPorts and icmps; make two rules of it", rule.path());
        if deny { check.reject_where_checked() } else { check.reject(why) }
    }
    let mut found = Found::default();
    for field in &to_ports {
        found.port_rule(field, deny, ingress, check);
    }
    for field in &icmps {
        found.icmp(field, check);
    }
    let named = !(to_ports.is_empty() && icmps.is_empty());
    let join = |parts| if named { TrafficMatch::OneOf(parts) } else { TrafficMatch::Anything };
    found.notes.dedup();
    Ports {
        without_end: (found.ends && found.with != found.without).then(|| join(found.without)),
        traffic: join(found.with),
        named,
        dns: found.dns,
        note: (!found.notes.is_empty()).then(|| found.notes.join("; ").into()),
    }
}

#[derive(Default)]
struct Found {
    with: Vec<TrafficMatch>,
    without: Vec<TrafficMatch>,
    ends: bool,
    dns: bool,
    notes: Vec<String>,
}

impl Found {
    fn port_rule(&mut self, field: &Field<'_>, deny: bool, ingress: bool, check: &mut Check<'_>) {
        let Some(object) = check.problems.keep(field.object()) else { return };
        let ports = check.problems.list(&object, "ports");
        if ports.len() > 40 {
            let message = format!("{}.ports has more than 40 items", field.path());
            check.problems.add(field.at(), message, "make several items of toPorts of it");
        }
        let mut doubted: Vec<Doubt> = Vec::new();
        let seven = if deny { Seven::default() } else { self.beyond(&object, field, &mut doubted, check) };
        if ingress && seven.dns {
            check.reject(format!("{}: DNS rules are not allowed on ingress", field.path()));
        }
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for port in &ports {
            let Some(known) = self.port(port, &seven, check) else { continue };
            with.extend(known.0);
            without.extend(known.1);
        }
        doubted.extend(doubts(&object.finish()));
        let doubted: Vec<TrafficMatch> = doubted.into_iter().map(TrafficMatch::Doubt).collect();
        for (all, these) in [(&mut self.with, with), (&mut self.without, without)] {
            all.extend(these.into_iter().map(|one| {
                if doubted.is_empty() {
                    return one;
                }
                TrafficMatch::All(std::iter::once(one).chain(doubted.iter().cloned()).collect())
            }));
        }
    }

    /// What stands beside the ports: rules of layer 7, TLS, a listener.
    fn beyond(
        &mut self,
        object: &Object<'_>,
        field: &Field<'_>,
        doubted: &mut Vec<Doubt>,
        check: &mut Check<'_>,
    ) -> Seven {
        let mut seven = Seven::default();
        if object.optional("serverNames").is_some() {
            object.ignore(&["serverNames"]);
            self.notes.push("only TLS to the listed server names passes".into());
        }
        for key in ["terminatingTLS", "originatingTLS"] {
            if object.optional(key).is_some() {
                object.ignore(&[key]);
                self.notes.push("TLS ends at Cilium's proxy".into());
            }
        }
        if let Some(listener) = object.optional("listener") {
            object.ignore(&["listener"]);
            let what =
                format!("{}: where the proxy's own listener sends the traffic is not known", listener.path());
            doubted.push(Doubt::at(what, &listener.at()));
        }
        let Some(rules) = check.problems.keep(object.object("rules")).flatten() else { return seven };
        let lists = ["http", "kafka", "dns", "l7"];
        let filled: Vec<&str> =
            lists.into_iter().filter(|key| !check.problems.list(&rules, key).is_empty()).collect();
        let names = any_name(&rules);
        rules.ignore(&lists);
        rules.ignore(&["l7proto"]);
        if filled.len() > 1 {
            check.reject(format!("{}.rules names several protocols of layer 7", field.path()));
        }
        seven.dns = filled.contains(&"dns");
        seven.other = filled.iter().any(|key| *key != "dns");
        self.dns |= seven.dns;
        if seven.dns {
            let note = if names { "the DNS proxy answers for any name" } else { LISTED_NAMES_ONLY };
            self.notes.push(note.into());
        }
        if seven.other {
            self.notes.push("a proxy lets only the listed requests pass".into());
        }
        seven
    }

    /// One item of `ports`, as newer and as older versions read it.
    fn port(
        &mut self,
        field: &Field<'_>,
        seven: &Seven,
        check: &mut Check<'_>,
    ) -> Option<(Vec<TrafficMatch>, Vec<TrafficMatch>)> {
        let object = check.problems.keep(field.object())?;
        let words = [
            ("TCP", Word::Known(Protocol::Tcp)),
            ("UDP", Word::Known(Protocol::Udp)),
            ("SCTP", Word::Known(Protocol::Sctp)),
            ("ANY", Word::Any),
            ("VRRP", Word::Extended(112)),
            ("IGMP", Word::Extended(2)),
        ];
        let hint = "protocols are written in capitals; ICMP has a list of its own, icmps";
        let word = match object.optional("protocol") {
            None => Word::Any,
            Some(protocol) => check.problems.keep_or(protocol.choice(&words), hint)?,
        };
        let end = check
            .problems
            .keep(object.int_in("endPort", 0..=65_535))?
            .and_then(|end| u16::try_from(end).ok());
        let port_field = object.optional("port");
        let port = match &port_field {
            Some(field) => Some(check.problems.keep(field.string())?),
            None => None,
        };
        let unknown = doubts(&object.finish()).next();
        if let Word::Extended(number) = word {
            let what =
                format!("{}: this protocol is known only with --enable-extended-ip-protocols", field.path());
            let parts = vec![
                TrafficMatch::Protocol(Protocol::Other(number)),
                TrafficMatch::Doubt(Doubt::at(what, &field.at())),
            ];
            return Some((vec![TrafficMatch::All(parts)], Vec::new()));
        }
        if let Some(doubt) = unknown {
            return Some((vec![TrafficMatch::Doubt(doubt.clone())], vec![TrafficMatch::Doubt(doubt)]));
        }
        let protocols: &[Protocol] = match &word {
            Word::Known(protocol) => std::slice::from_ref(protocol),
            _ => &TRANSPORTS,
        };
        if seven.other && protocols != [Protocol::Tcp] {
            check.reject(format!("{}: rules of layer 7 apply to TCP only", field.path()));
        }
        let Some(port) = port.filter(|port| !port.is_empty()) else {
            check.reject(format!("{} has no port; \"0\" means every port of the protocol", field.path()));
            return None;
        };
        let each =
            |make: &dyn Fn(Protocol) -> TrafficMatch| protocols.iter().map(|p| make(*p)).collect::<Vec<_>>();
        if is_name(port) {
            let name: Arc<str> = port.to_ascii_lowercase().into();
            let known = each(&|protocol| TrafficMatch::NamedPort(protocol, Arc::clone(&name)));
            if end.is_some_and(|end| end > 0) {
                let what = format!("{}: what endPort means beside a port's name is not known", field.path());
                let doubt = TrafficMatch::Doubt(Doubt::at(what, &field.at()));
                return Some((vec![doubt], known));
            }
            return Some((known.clone(), known));
        }
        let Some(first) = number(port) else {
            check.reject(format!(
                "{}: {:?} is neither a port nor the name of one",
                field.path(),
                port.chars().take(80).collect::<String>()
            ));
            return None;
        };
        if first == 0 {
            if seven.dns || seven.other {
                check.reject(format!("{}: rules of layer 7 need a port", field.path()));
            }
            // "0" is every port of the protocol, and no other protocol (L4Filter.Port, pkg/policy/l4.go).
            let known = each(&TrafficMatch::Protocol);
            return Some((known.clone(), known));
        }
        let one = each(&|protocol| TrafficMatch::Ports(protocol, PortSet::one(first)));
        match end.filter(|end| *end > 0) {
            Some(last) if last > first => {
                self.ends = true;
                Some((each(&|protocol| TrafficMatch::Ports(protocol, PortSet::range(first, last))), one))
            }
            Some(last) if last < first => {
                self.ends = true;
                let what = format!("{}: what an endPort below the port means is not known", field.path());
                Some((vec![TrafficMatch::Doubt(Doubt::at(what, &field.at()))], one))
            }
            _ => Some((one.clone(), one)),
        }
    }

    fn icmp(&mut self, field: &Field<'_>, check: &mut Check<'_>) {
        let Some(object) = check.problems.keep(field.object()) else { return };
        for item in check.problems.list(&object, "fields") {
            let Some(object) = check.problems.keep(item.object()) else { continue };
            let families = [("IPv4", Protocol::Icmp), ("IPv6", Protocol::Icmpv6)];
            let protocol = match object.optional("family") {
                None => Some(Protocol::Icmp),
                Some(family) => check.problems.keep(family.choice(&families)),
            };
            let Some(kind) = check.problems.keep(object.required("type")) else { continue };
            let Some(text) = check.problems.keep(kind.int_or_string()) else { continue };
            let (Some(protocol), unknown) = (protocol, doubts(&object.finish()).next()) else { continue };
            let number = match text {
                IntOrString::Int(number) => u8::try_from(number).ok(),
                IntOrString::String(text) => text.parse().ok().or_else(|| icmp_type(protocol, text)),
            };
            let Some(number) = number else {
                let hint = "a type is a number from 0 to 255 or a name of this family, such as EchoRequest";
                check.problems.invalid(&kind, "an ICMP type", hint);
                continue;
            };
            let base = u16::from(number) << 8;
            let known = TrafficMatch::Ports(protocol, PortSet::range(base, base | 255));
            let known = unknown.map_or(known, TrafficMatch::Doubt);
            self.with.push(known.clone());
            self.without.push(known);
        }
        let left: Vec<TrafficMatch> = doubts(&object.finish()).map(TrafficMatch::Doubt).collect();
        self.with.extend(left.iter().cloned());
        self.without.extend(left);
    }
}

/// Whether rules for DNS list a pattern that whoever wants a tunnel can have a name in: one that does not end in a domain. What
/// is not read as a list of names counts as such.
fn any_name(rules: &Object<'_>) -> bool {
    let Ok(list) = rules.list("dns") else { return true };
    list.iter().any(|item| {
        let Ok(item) = item.object() else { return true };
        let pattern = item.string("matchPattern");
        let name = item.string("matchName");
        item.ignore(&["matchPattern", "matchName"]);
        match (pattern, name) {
            (Ok(None), Ok(Some(_))) => false,
            // Two labels after the last wildcard are somebody's domain.
            (Ok(Some(pattern)), Ok(_)) => {
                let fixed = pattern.rsplit_once('*').map_or(pattern, |(_, fixed)| fixed);
                fixed.trim_matches('.').split('.').count() < 2
            }
            _ => true,
        }
    })
}

/// Which rules of layer 7 stand beside ports.
#[derive(Default)]
struct Seven {
    dns: bool,
    other: bool,
}

#[derive(Clone, Copy)]
enum Word {
    Known(Protocol),
    Any,
    Extended(u8),
}

/// An IANA service name: at most 15 letters, digits and hyphens, with a letter (pkg/iana/svcname.go). `0x10` is one.
fn is_name(text: &str) -> bool {
    text.len() <= 15
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// A port as Go's `ParseUint(text, 0, 16)` reads what is no name: a leading 0 makes it octal.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.strip_prefix('0') {
        _ if !digits => None,
        Some(octal) if !octal.is_empty() => u16::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Names of ICMP types (pkg/policy/api/icmp.go).
fn icmp_type(protocol: Protocol, name: &str) -> Option<u8> {
    let v4: &[(&str, u8)] = &[
        ("EchoReply", 0),
        ("DestinationUnreachable", 3),
        ("Redirect", 5),
        ("Echo", 8),
        ("EchoRequest", 8),
        ("RouterAdvertisement", 9),
        ("RouterSelection", 10),
        ("TimeExceeded", 11),
        ("ParameterProblem", 12),
        ("Timestamp", 13),
        ("TimestampReply", 14),
        ("Photuris", 40),
        ("ExtendedEchoRequest", 42),
        ("ExtendedEchoReply", 43),
    ];
    let v6: &[(&str, u8)] = &[
        ("DestinationUnreachable", 1),
        ("PacketTooBig", 2),
        ("TimeExceeded", 3),
        ("ParameterProblem", 4),
        ("EchoRequest", 128),
        ("EchoReply", 129),
        ("MulticastListenerQuery", 130),
        ("MulticastListenerReport", 131),
        ("MulticastListenerDone", 132),
        ("RouterSolicitation", 133),
        ("RouterAdvertisement", 134),
        ("NeighborSolicitation", 135),
        ("NeighborAdvertisement", 136),
        ("RedirectMessage", 137),
        ("RouterRenumbering", 138),
        ("ICMPNodeInformationQuery", 139),
        ("ICMPNodeInformationResponse", 140),
        ("InverseNeighborDiscoverySolicitation", 141),
        ("InverseNeighborDiscoveryAdvertisement", 142),
        ("HomeAgentAddressDiscoveryRequest", 144),
        ("HomeAgentAddressDiscoveryReply", 145),
        ("MobilePrefixSolicitation", 146),
        ("MobilePrefixAdvertisement", 147),
        ("DuplicateAddressRequestCodeSuffix", 157),
        ("DuplicateAddressConfirmationCodeSuffix", 158),
        ("ExtendedEchoRequest", 160),
        ("ExtendedEchoReply", 161),
    ];
    let table = if protocol == Protocol::Icmp { v4 } else { v6 };
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
