//! Sets of IP addresses. The families never mix: a v4 block matches no v6 address, also not a v4-mapped one.

use super::interval::Intervals;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Public addresses that everybody knows, the first choices for an example of addresses outside.
const KNOWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// Addresses that may be somebody's: neither "this network", loopback, multicast and reserved (RFC 6890) nor, of v6, what is below
/// global unicast (RFC 4291, 2.4).
fn unicast() -> AddressSet {
    let v4 = |first: Ipv4Addr, last: Ipv4Addr| (u128::from(u32::from(first)), u128::from(u32::from(last)));
    AddressSet::of_numbers(
        vec![
            v4(Ipv4Addr::new(1, 0, 0, 1), Ipv4Addr::new(126, 255, 255, 255)),
            v4(Ipv4Addr::new(128, 0, 0, 1), Ipv4Addr::new(223, 255, 255, 255)),
        ],
        vec![(
            u128::from(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)),
            u128::from(Ipv6Addr::new(0xfdff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff)),
        )],
    )
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A block in CIDR notation, its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is not a CIDR block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/length`.
    #[error("{0:?} is not a CIDR block such as 10.0.0.0/8")]
    Syntax(String),
    /// An IPv4-mapped IPv6 address.
    #[error("{0:?} is an IPv4-mapped IPv6 block; write it as IPv4")]
    Mapped(String),
    /// Bits are set beyond the prefix.
    #[error("{text:?} has bits set beyond its prefix; the block is {block}")]
    HostBits {
        /// What was written.
        text: String,
        /// What it would be.
        block: Cidr,
    },
}

impl Cidr {
    /// The block that holds the address, with that prefix length; longer than the family's is cut to it.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(a) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(u32::from(32u8.saturating_sub(prefix))).unwrap_or(0);
                Self { base: IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask)), prefix }
            }
            IpAddr::V6(a) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(u32::from(128u8.saturating_sub(prefix))).unwrap_or(0);
                Self { base: IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask)), prefix }
            }
        }
    }

    /// Just this address.
    pub fn host(address: IpAddr) -> Self {
        Self::around(address, 128)
    }

    /// Its first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Length of its prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Reads `address/length`, taking a block whose host bits are set as the block around it (what the policy engines do).
    pub fn parse_loose(text: &str) -> Result<Self, CidrError> {
        match text.parse() {
            Err(CidrError::HostBits { block, .. }) => Ok(block),
            other => other,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.chars().take(80).collect());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        // "+8" and "08" are numbers to Rust, not to Go's ParseCIDR.
        let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = if plain && (length == "0" || !length.starts_with('0')) {
            length.parse().map_err(|_| syntax())?
        } else {
            return Err(syntax());
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most {
            return Err(syntax());
        }
        if matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
            return Err(CidrError::Mapped(text.chars().take(80).collect()));
        }
        let block = Self::around(address, prefix);
        if block.base == address {
            Ok(block)
        } else {
            Err(CidrError::HostBits { text: text.chars().take(80).collect(), block })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// A set of addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressSet {
    v4: Intervals<u128>,
    v6: Intervals<u128>,
}

const V4_MAX: u128 = u32::MAX as u128;

impl AddressSet {
    /// No address.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every address.
    pub fn full() -> Self {
        Self { v4: Intervals::range(0, V4_MAX), v6: Intervals::full() }
    }

    /// Every address of a family.
    pub fn family(family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: Intervals::range(0, V4_MAX), ..Self::default() },
            Family::V6 => Self { v6: Intervals::full(), ..Self::default() },
        }
    }

    /// The addresses of a block.
    pub fn block(block: Cidr) -> Self {
        let (first, last) = match block.base {
            IpAddr::V4(a) => {
                let first = u128::from(u32::from(a));
                let span = 1u128.checked_shl(u32::from(32u8.saturating_sub(block.prefix))).unwrap_or(0);
                (first, first.saturating_add(span.saturating_sub(1)))
            }
            IpAddr::V6(a) => {
                let first = u128::from(a);
                let ones = u128::MAX.checked_shr(u32::from(block.prefix)).unwrap_or(0);
                (first, first | ones)
            }
        };
        match block.base {
            IpAddr::V4(_) => Self { v4: Intervals::range(first, last), ..Self::default() },
            IpAddr::V6(_) => Self { v6: Intervals::range(first, last), ..Self::default() },
        }
    }

    /// Just this address.
    pub fn one(address: IpAddr) -> Self {
        Self::block(Cidr::host(address))
    }

    /// The addresses of any blocks.
    pub fn blocks(blocks: impl IntoIterator<Item = Cidr>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for block in blocks {
            let set = Self::block(block);
            v4.extend(set.v4.iter());
            v6.extend(set.v6.iter());
        }
        Self { v4: Intervals::of(v4), v6: Intervals::of(v6) }
    }

    /// The addresses with these numbers, in ranges whose ends both belong to them.
    pub(crate) fn of_numbers(v4: Vec<(u128, u128)>, v6: Vec<(u128, u128)>) -> Self {
        let v4 = Intervals::of(v4).intersection(&Intervals::range(0, V4_MAX));
        Self { v4, v6: Intervals::of(v6) }
    }

    /// Whether it has no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether it has this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.contains(u128::from(u32::from(a))),
            IpAddr::V6(a) => self.v6.contains(u128::from(a)),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self { v4: self.v4.difference(&other.v4), v6: self.v6.difference(&other.v6) }
    }

    /// Every address that is not in it.
    #[must_use]
    pub fn complement(&self) -> Self {
        Self::full().difference(self)
    }

    /// Whether all of it is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.v4.is_subset(&other.v4) && self.v6.is_subset(&other.v6)
    }

    /// Whether the two share an address.
    pub fn intersects(&self, other: &Self) -> bool {
        self.v4.intersects(&other.v4) || self.v6.intersects(&other.v6)
    }

    /// A member, for a witness: of v4, else of v6. One that packets are really sent to, where there is one.
    pub fn example(&self) -> Option<IpAddr> {
        let first = self.intersection(&unicast()).first().or_else(|| self.first())?;
        let mut known = KNOWN.iter().filter(|known| Family::of(**known) == Family::of(first));
        known.find(|known| self.contains(**known)).copied().or(Some(first))
    }

    /// The smallest address, v4 first.
    fn first(&self) -> Option<IpAddr> {
        self.ranges().next().map(|(first, _)| first)
    }

    /// The ranges, v4 first, ascending; both ends belong to it.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let v4 = |a: u128| IpAddr::V4(Ipv4Addr::from(u32::try_from(a).unwrap_or(u32::MAX)));
        let v6 = |a: u128| IpAddr::V6(Ipv6Addr::from(a));
        self.v4
            .iter()
            .map(move |(a, b)| (v4(a), v4(b)))
            .chain(self.v6.iter().map(move |(a, b)| (v6(a), v6(b))))
    }

    /// The smallest list of CIDR blocks with just these addresses.
    pub fn to_blocks(&self) -> Vec<Cidr> {
        let mut blocks = Vec::new();
        let mut cut = |set: &Intervals<u128>, bits: u8, make: &dyn Fn(u128) -> IpAddr| {
            for (first, last) in set.iter() {
                let mut at = first;
                loop {
                    let aligned = u8::try_from(at.trailing_zeros()).unwrap_or(bits).min(bits);
                    let mut size = aligned;
                    let end = loop {
                        let span = u128::MAX.checked_shr(128u32.saturating_sub(u32::from(size))).unwrap_or(0);
                        match at.checked_add(span) {
                            Some(end) if end <= last => break end,
                            _ => size = size.saturating_sub(1),
                        }
                    };
                    blocks.push(Cidr { base: make(at), prefix: bits.saturating_sub(size) });
                    match end.checked_add(1) {
                        Some(next) if next <= last => at = next,
                        _ => break,
                    }
                }
            }
        };
        cut(&self.v4, 32, &|a| IpAddr::V4(Ipv4Addr::from(u32::try_from(a).unwrap_or(u32::MAX))));
        cut(&self.v6, 128, &|a| IpAddr::V6(Ipv6Addr::from(a)));
        blocks
    }
}

impl fmt::Display for AddressSet {
    /// Blocks joined by commas; `any address`, `any IPv4 address` and `no address` are spelled out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::full() {
            return f.write_str("any address");
        }
        for (family, name) in [(Family::V4, "any IPv4 address"), (Family::V6, "any IPv6 address")] {
            if *self == Self::family(family) {
                return f.write_str(name);
            }
        }
        if self.is_empty() {
            return f.write_str("no address");
        }
        let outside = self.complement().to_blocks();
        let inside = self.to_blocks();
        let write = |f: &mut fmt::Formatter<'_>, blocks: &[Cidr]| {
            for (i, block) in blocks.iter().take(6).enumerate() {
                write!(f, "{}{block}", if i == 0 { "" } else { ", " })?;
            }
            match blocks.len().saturating_sub(6) {
                0 => Ok(()),
                more => write!(f, " and {more} more blocks"),
            }
        };
        if inside.len() > 6 && outside.len() < inside.len() {
            f.write_str("any address but ")?;
            write(f, &outside)
        } else {
            write(f, &inside)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn an_example_is_an_address_that_packets_are_sent_to_where_there_is_one() {
        let example = |text: &str| AddressSet::block(cidr(text)).example().unwrap().to_string();
        assert_eq!(AddressSet::full().example().unwrap().to_string(), "1.1.1.1");
        assert_eq!(example("0.0.0.0/1"), "1.1.1.1");
        assert_eq!(example("128.0.0.0/1"), "128.0.0.1");
        assert_eq!(example("10.0.0.0/8"), "10.0.0.0");
        assert_eq!(example("0.0.0.0/8"), "0.0.0.0");
        assert_eq!(example("::/0"), "2606:4700:4700::1111");
        assert_eq!(example("fe80::/10"), "fe80::");
        assert_eq!(AddressSet::empty().example(), None);
        let rest = AddressSet::family(Family::V4).difference(&AddressSet::one("1.1.1.1".parse().unwrap()));
        assert_eq!(rest.example().unwrap().to_string(), "1.0.0.1");
    }

    #[test]
    fn families_never_mix() {
        let all4 = AddressSet::block(cidr("0.0.0.0/0"));
        assert!(all4.contains("255.255.255.255".parse().unwrap()));
        assert!(!all4.contains("::ffff:1.2.3.4".parse().unwrap()));
        assert_eq!(all4, AddressSet::family(Family::V4));
        assert_eq!(all4.complement(), AddressSet::family(Family::V6));
    }

    #[test]
    fn a_block_is_read_strictly() {
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "::/129",
            "/8",
            "10.0.0.0/",
            "",
        ] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Syntax(bad.into())), "{bad}");
        }
        assert_eq!(
            "::ffff:10.0.0.0/104".parse::<Cidr>(),
            Err(CidrError::Mapped("::ffff:10.0.0.0/104".into()))
        );
        let loose = CidrError::HostBits { text: "10.1.0.0/8".into(), block: cidr("10.0.0.0/8") };
        assert_eq!("10.1.0.0/8".parse::<Cidr>(), Err(loose));
        assert_eq!(Cidr::parse_loose("10.1.0.0/8"), Ok(cidr("10.0.0.0/8")));
    }

    #[test]
    fn a_block_less_an_exception_is_shown_as_blocks() {
        let set = AddressSet::block(cidr("10.0.0.0/8")).difference(&AddressSet::block(cidr("10.0.0.0/9")));
        assert_eq!(set.to_string(), "10.128.0.0/9");
        let set = AddressSet::full().difference(&AddressSet::block(cidr("169.254.169.254/32")));
        assert_eq!(set.to_string(), "any address but 169.254.169.254/32");
    }

    proptest! {
        #[test]
        fn blocks_give_the_set_back(blocks in proptest::collection::vec((any::<u32>(), 0u8..=32, any::<u128>(), 0u8..=128), 0..6)) {
            let set = AddressSet::blocks(blocks.iter().flat_map(|(a, p, b, q)| {
                [Cidr::around(IpAddr::V4((*a).into()), *p), Cidr::around(IpAddr::V6((*b).into()), *q)]
            }));
            prop_assert_eq!(AddressSet::blocks(set.to_blocks()), set.clone());
            prop_assert_eq!(set.complement().complement(), set);
        }
    }
}
