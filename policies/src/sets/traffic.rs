//! Traffic between two endpoints: which protocol, to which port.

use super::port::PortSet;
use std::fmt;

/// An IP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// SCTP, 132.
    Sctp,
    /// ICMP, 1.
    Icmp,
    /// ICMPv6, 58.
    Icmpv6,
    /// Any other, by its number.
    Other(u8),
}

impl Protocol {
    /// By its IANA number.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            132 => Self::Sctp,
            other => Self::Other(other),
        }
    }

    /// The lane that its packets are on.
    pub fn lane(self) -> Lane {
        match self {
            Self::Tcp => Lane::Tcp,
            Self::Udp => Lane::Udp,
            Self::Sctp => Lane::Sctp,
            Self::Icmp => Lane::Icmp,
            Self::Icmpv6 => Lane::Icmpv6,
            Self::Other(_) => Lane::Other,
        }
    }

    /// Every packet of it.
    pub fn traffic(self) -> Traffic {
        match self {
            Self::Other(number) => Traffic::on(Lane::Other, PortSet::one(u16::from(number))),
            known => Traffic::on(known.lane(), known.lane().ports()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Icmpv6 => f.write_str("ICMPv6"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// An axis of 16-bit numbers that traffic is counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// TCP, by destination port.
    Tcp,
    /// UDP, by destination port.
    Udp,
    /// SCTP, by destination port.
    Sctp,
    /// ICMP, by `type × 256 + code`.
    Icmp,
    /// ICMPv6, by `type × 256 + code`.
    Icmpv6,
    /// Every other protocol, by its number, 0 to 255.
    Other,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::Icmpv6, Self::Other];

    /// All numbers that occur on it.
    pub fn ports(self) -> PortSet {
        match self {
            // The numbers of the five protocols that have lanes of their own do not occur here.
            Self::Other => PortSet::range(0, 255).difference(&PortSet::of([
                (1, 1),
                (6, 6),
                (17, 17),
                (58, 58),
                (132, 132),
            ])),
            _ => PortSet::full(),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
            Self::Other => "other protocols",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A set of packets between two endpoints, by protocol and destination port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Traffic {
    lanes: [PortSet; 6],
}

impl Traffic {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// All.
    pub fn all() -> Self {
        Self { lanes: Lane::ALL.map(Lane::ports) }
    }

    /// These numbers of one lane; what does not occur on it is left out.
    pub fn on(lane: Lane, ports: PortSet) -> Self {
        let mut traffic = Self::default();
        if let Some(slot) = traffic.lanes.get_mut(lane.index()) {
            *slot = if lane == Lane::Other { ports.intersection(&lane.ports()) } else { ports };
        }
        traffic
    }

    /// A protocol's destination ports; on ICMP, `type × 256 + code`.
    pub fn to(protocol: Protocol, ports: PortSet) -> Self {
        match protocol {
            Protocol::Other(_) => protocol.traffic(),
            known => Self::on(known.lane(), ports),
        }
    }

    /// What it has on a lane.
    pub fn lane(&self, lane: Lane) -> &PortSet {
        static NONE: PortSet = PortSet::EMPTY;
        self.lanes.get(lane.index()).unwrap_or(&NONE)
    }

    /// The lanes that it has something on.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, &PortSet)> {
        Lane::ALL.into_iter().zip(&self.lanes).filter(|(_, ports)| !ports.is_empty())
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.lanes.iter().all(PortSet::is_empty)
    }

    /// Whether it is all.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether it has this packet; `port` as on the protocol's lane, ignored for [`Protocol::Other`].
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let port = if let Protocol::Other(number) = protocol { u16::from(number) } else { port };
        self.lane(protocol.lane()).contains(port)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, PortSet::union)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, PortSet::intersection)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, PortSet::difference)
    }

    /// All that is not in it.
    #[must_use]
    pub fn complement(&self) -> Self {
        Self::all().difference(self)
    }

    /// Whether all of it is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.lanes.iter().zip(&other.lanes).all(|(a, b)| a.is_subset(b))
    }

    /// Whether the two share a packet.
    pub fn intersects(&self, other: &Self) -> bool {
        self.lanes.iter().zip(&other.lanes).any(|(a, b)| a.intersects(b))
    }

    /// A packet of it, for a witness: the port most worth showing of the first lane that has one.
    pub fn example(&self) -> Option<(Protocol, u16)> {
        let (lane, ports) = self.iter().next()?;
        // A well-known port tells the reader more than port 0 or 1 does.
        let telling = [443, 80, 53, 22].into_iter().find(|port| ports.contains(*port));
        let port = telling.filter(|_| lane < Lane::Icmp).or_else(|| {
            ports.iter().find_map(|(_, last)| {
                ports
                    .first()
                    .filter(|first| *first > 0)
                    .or_else(|| (last > 0).then_some(1).filter(|p| ports.contains(*p)))
            })
        });
        let port = port.or_else(|| ports.first())?;
        Some(match lane {
            Lane::Tcp => (Protocol::Tcp, port),
            Lane::Udp => (Protocol::Udp, port),
            Lane::Sctp => (Protocol::Sctp, port),
            Lane::Icmp => (Protocol::Icmp, port),
            Lane::Icmpv6 => (Protocol::Icmpv6, port),
            Lane::Other => (Protocol::from_number(u8::try_from(port).unwrap_or(u8::MAX)), port),
        })
    }

    fn zip(&self, other: &Self, join: impl Fn(&PortSet, &PortSet) -> PortSet) -> Self {
        let mut lanes = <[PortSet; 6]>::default();
        for ((slot, a), b) in lanes.iter_mut().zip(&self.lanes).zip(&other.lanes) {
            *slot = join(a, b);
        }
        Self { lanes }
    }
}

impl fmt::Display for Traffic {
    /// `TCP 80,443; UDP all`; `all traffic`, `no traffic`; or `all traffic but …` where that is shorter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn write(f: &mut fmt::Formatter<'_>, traffic: &Traffic) -> fmt::Result {
            for (i, (lane, ports)) in traffic.iter().enumerate() {
                f.write_str(if i == 0 { "" } else { "; " })?;
                if *ports == lane.ports() {
                    write!(f, "{}", lane.name())?;
                } else if matches!(lane, Lane::Icmp | Lane::Icmpv6) {
                    write!(f, "{}", lane.name())?;
                    for (j, (first, last)) in ports.iter().enumerate() {
                        let comma = if j == 0 { " type " } else { "," };
                        match ([first >> 8, first & 255], [last >> 8, last & 255]) {
                            ([a, 0], [b, 255]) if a == b => write!(f, "{comma}{a}")?,
                            ([a, 0], [b, 255]) => write!(f, "{comma}{a}-{b}")?,
                            ([a, c], [b, d]) if a == b && c == d => write!(f, "{comma}{a}/{c}")?,
                            ([a, c], [b, d]) => write!(f, "{comma}{a}/{c}-{b}/{d}")?,
                        }
                    }
                } else {
                    write!(f, "{} {ports}", lane.name())?;
                }
            }
            Ok(())
        }
        if self.is_all() {
            return f.write_str("all traffic");
        }
        if self.is_none() {
            return f.write_str("no traffic");
        }
        let rest = self.complement();
        if self.iter().count() > 4 && rest.iter().count() < 3 {
            f.write_str("all traffic but ")?;
            return write(f, &rest);
        }
        write(f, self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn traffic_is_shown_the_shorter_way() {
        let web = Traffic::to(Protocol::Tcp, PortSet::of([(80, 80), (443, 443)]));
        assert_eq!(web.to_string(), "TCP 80,443");
        assert_eq!(web.complement().to_string(), "all traffic but TCP 80,443");
        assert_eq!(Traffic::all().to_string(), "all traffic");
        assert_eq!(Traffic::none().to_string(), "no traffic");
        let ping = Traffic::to(Protocol::Icmp, PortSet::range(8 << 8, (8 << 8) | 255));
        assert_eq!(ping.union(&Protocol::Udp.traffic()).to_string(), "UDP; ICMP type 8");
        assert_eq!(Protocol::Other(47).traffic().to_string(), "other protocols 47");
    }

    #[test]
    fn a_protocol_with_a_lane_of_its_own_is_not_among_the_others() {
        assert!(!Traffic::all().lane(Lane::Other).contains(6));
        assert_eq!(Protocol::from_number(132), Protocol::Sctp);
        assert_eq!(Traffic::all().complement(), Traffic::none());
        assert_eq!(Traffic::all().example(), Some((Protocol::Tcp, 443)));
        assert_eq!(Traffic::to(Protocol::Tcp, PortSet::range(0, 9)).example(), Some((Protocol::Tcp, 1)));
    }
}
