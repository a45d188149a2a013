//! Protocols and ports of a Calico rule → [`TrafficMatch`].

use crate::matching::TrafficMatch;
use crate::read::problems::Problems;
use crate::read::{Field, IntOrString, Object};
use crate::sets::{PortSet, Protocol};
use crate::source::At;
use crate::truth::Doubt;
use std::sync::Arc;

/// Protocols that have ports; a named port without a protocol means any of them.
const WITH_PORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What a rule says of traffic.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) protocol: Option<Protocol>,
    pub(super) not_protocol: Option<Protocol>,
    pub(super) icmp: Option<Icmp>,
    pub(super) not_icmp: Option<Icmp>,
    pub(super) ports: Ports,
    pub(super) not_ports: Ports,
    pub(super) source_ports: Ports,
    pub(super) not_source_ports: Ports,
}

/// ICMP messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    /// `None` for every code.
    pub(super) code: Option<u8>,
}

/// A list of ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    numbers: PortSet,
    names: Vec<Arc<str>>,
}

impl Ports {
    /// Whether the rule has no such list.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.names.is_empty()
    }
}

impl Icmp {
    fn ports(self) -> PortSet {
        let at = |code: u8| u16::from_be_bytes([self.kind, code]);
        self.code.map_or_else(|| PortSet::range(at(0), at(u8::MAX)), |code| PortSet::one(at(code)))
    }
}

/// Reads a protocol: a name as Calico writes it, or a number from 1 to 255, also as a text.
pub(super) fn protocol(field: &Field<'_>, problems: &mut Problems) -> Option<Protocol> {
    const NAMES: [(&str, Protocol); 6] = [
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
        ("SCTP", Protocol::Sctp),
        ("ICMP", Protocol::Icmp),
        ("ICMPv6", Protocol::Icmpv6),
        ("UDPLite", Protocol::Other(136)),
    ];
    let known = match problems.keep(field.int_or_string())? {
        IntOrString::Int(number) => u8::try_from(number).ok().filter(|n| *n > 0).map(Protocol::from_number),
        IntOrString::String(text) => NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, protocol)| *protocol)
            .or_else(|| text.parse::<u8>().ok().filter(|n| *n > 0).map(Protocol::from_number)),
    };
    if known.is_none() {
        let hint = "Calico takes no other name, and no other case";
        problems.invalid(field, "TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255", hint);
    }
    known
}

/// Reads a list of ports: numbers, ranges `8000:9000`, names.
pub(super) fn ports(
    entity: &Object<'_>,
    key: &str,
    protocol: Option<Protocol>,
    problems: &mut Problems,
) -> Ports {
    let fields = problems.list(entity, key);
    let mut ranges = Vec::new();
    let mut ports = Ports::default();
    for field in &fields {
        match problems.keep(field.int_or_string()) {
            Some(IntOrString::Int(number)) => ranges.extend(range(&number.to_string(), field, problems)),
            Some(IntOrString::String(text)) if text.bytes().all(|b| b.is_ascii_digit() || b == b':') => {
                ranges.extend(range(text, field, problems));
            }
            Some(IntOrString::String(text)) if is_port_name(text) => ports.names.push(text.into()),
            Some(IntOrString::String(_)) => {
                let hint = "a range is written \"8000:9000\", a name has letters, digits, `_`, `.` and `-`";
                problems.invalid(field, "a port, a range or a port's name", hint);
            }
            None => {}
        }
    }
    let numbered = !ranges.is_empty();
    ports.numbers = PortSet::of(ranges);
    let bad = match protocol {
        // 3.32 takes names without a protocol.
        None => numbered,
        Some(protocol) => !WITH_PORTS.contains(&protocol),
    };
    if let (true, Some(first)) = (bad, fields.first()) {
        let message = format!("{}.{key} needs a protocol that has ports", entity.path());
        problems.add(first.at(), message, "set protocol to TCP, UDP or SCTP");
    }
    ports
}

/// `^[a-zA-Z0-9_.-]{1,128}$` of `numorstring/port.go`.
fn is_port_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn range(text: &str, field: &Field<'_>, problems: &mut Problems) -> Option<(u16, u16)> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let range = port(first).zip(port(last)).filter(|(first, last)| first <= last);
    if range.is_none() {
        problems.invalid(
            field,
            "a port from 1 to 65535, or a range of them",
            "a range is written \"8000:9000\"",
        );
    }
    range
}

/// What the rule says, as one match: all of it must hold.
pub(super) fn matching(given: &Given, at: &At) -> TrafficMatch {
    let mut parts: Vec<TrafficMatch> = Vec::new();
    parts.extend(given.protocol.map(TrafficMatch::Protocol));
    parts.extend(given.not_protocol.map(|protocol| TrafficMatch::Protocol(protocol).negate()));
    if let (Some(icmp), Some(protocol)) = (given.icmp, given.protocol) {
        parts.push(TrafficMatch::Ports(protocol, icmp.ports()));
    }
    if let Some(icmp) = given.not_icmp {
        parts.push(match given.protocol {
            Some(protocol @ (Protocol::Icmp | Protocol::Icmpv6)) => {
                TrafficMatch::Ports(protocol, icmp.ports()).negate()
            }
            // Not refused by the validator; iptables then refuses the rule, nftables takes it for ICMP only.
            _ => {
                let what = "what notICMP means in a rule without the protocol ICMP or ICMPv6 differs between data planes";
                TrafficMatch::Doubt(Doubt::at(what, at))
            }
        });
    }
    let list = |ports: &Ports, one: &dyn Fn(Protocol, &Ports) -> Vec<TrafficMatch>| {
        let protocols = given.protocol.map_or_else(|| WITH_PORTS.to_vec(), |protocol| vec![protocol]);
        TrafficMatch::OneOf(protocols.into_iter().flat_map(|protocol| one(protocol, ports)).collect())
    };
    let to = |protocol: Protocol, ports: &Ports| {
        let numbers =
            (!ports.numbers.is_empty()).then(|| TrafficMatch::Ports(protocol, ports.numbers.clone()));
        let names = ports.names.iter().map(|name| TrafficMatch::NamedPort(protocol, name.clone()));
        numbers.into_iter().chain(names).collect()
    };
    let from = |protocol: Protocol, ports: &Ports| {
        let numbers =
            (!ports.numbers.is_empty()).then(|| TrafficMatch::SourcePorts(protocol, ports.numbers.clone()));
        let names = ports.names.iter().map(|name| {
            let what = format!(
                "whether a packet comes from the port that its source names {name:?} is not modelled"
            );
            TrafficMatch::All(vec![
                TrafficMatch::Protocol(protocol),
                TrafficMatch::Doubt(Doubt::at(what, at)),
            ])
        });
        numbers.into_iter().chain(names).collect()
    };
    if !given.ports.is_empty() {
        parts.push(list(&given.ports, &to));
    }
    if !given.not_ports.is_empty() {
        parts.push(list(&given.not_ports, &to).negate());
    }
    if !given.source_ports.is_empty() {
        parts.push(list(&given.source_ports, &from));
    }
    if !given.not_source_ports.is_empty() {
        parts.push(list(&given.not_source_ports, &from).negate());
    }
    match parts.pop() {
        None => TrafficMatch::Anything,
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            TrafficMatch::All(parts)
        }
    }
}
