//! Which addresses may be connected to. A tenant names a host, and whoever owns that name's zone says which address it has: so it
//! is the address that is judged, each one that the name has, right before the connection to it.
//!
//! An address is refused unless it is public. What is not, the IANA registries of special-purpose addresses list (RFC 6890 and
//! its updates); beside them the metadata services of clouds, some of which sit on addresses that look public.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Ports, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Default for Ports {
    fn default() -> Self {
        Self(vec![443..=443])
    }
}

impl Ports {
    /// These.
    pub const fn new(ranges: Vec<RangeInclusive<u16>>) -> Self {
        Self(ranges)
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not public, and not in a network that is allowed.
    #[error("the address is not public")]
    NotPublic,
    /// It may be a metadata service, or on the link: no allowed network makes up for that.
    #[error("the address is never allowed")]
    Never,
}

/// Judges an address.
///
/// # Errors
/// It may not be connected to.
pub fn judge(address: IpAddr, allowed: &[IpNet]) -> Result<(), Refused> {
    // What reaches an IPv4 host is judged as that host.
    let address = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    if never(address) {
        return Err(Refused::Never);
    }
    let public = match address {
        IpAddr::V4(v4) => public_v4(v4),
        IpAddr::V6(v6) => public_v6(v6),
    };
    if public || allowed.iter().any(|network| network.contains(&address)) {
        Ok(())
    } else {
        Err(Refused::NotPublic)
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:0:0/96`, RFC 4291) or behind a translator that
/// everybody knows (`64:ff9b::/96`, RFC 6052).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let v4 = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4),
        _ => None,
    }
}

fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_unspecified()
                // Azure's host agent, on a public address of Microsoft's.
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
                // Alibaba's and Oracle's metadata, within networks that somebody might allow.
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
                // Amazon's metadata, within unique local addresses.
                || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

fn public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(a == 0
        || v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || (a == 100 && (64..128).contains(&b)) // shared with the provider's NAT, RFC 6598
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || v4.is_documentation()
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (18..20).contains(&b)) // benchmarks
        || a >= 224) // multicast, reserved, broadcast
}

fn public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    // Only global unicast at all, and of that not what is a tunnel to an IPv4 address, a protocol's or documentation.
    (0x2000..0x4000).contains(&a)
        && a != 0x2002 // 6to4
        && !(a == 0x2001 && b < 0x200) // protocol assignments, with Teredo
        && !(a == 0x2001 && b == 0xdb8) // documentation
        && !(a == 0x3fff && b < 0x1000) // documentation, RFC 9637
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(text: &str, allowed: &[&str]) -> Result<(), Refused> {
        let allowed: Vec<IpNet> = allowed.iter().map(|a| a.parse().unwrap()).collect();
        judge(text.parse().unwrap_or_else(|e| panic!("{text}: {e}")), &allowed)
    }

    #[test]
    fn no_address_that_is_not_public_passes_however_it_is_written() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.1.1",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(verdict(address, &[]).is_err(), "{address} passed");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "3ffe::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(verdict(address, &[]), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_lets_its_addresses_pass_and_no_other_and_never_a_metadata_service() {
        assert_eq!(verdict("10.1.2.3", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(verdict("::ffff:10.1.2.3", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(verdict("10.2.2.3", &["10.1.0.0/16"]), Err(Refused::NotPublic));
        assert_eq!(verdict("127.0.0.1", &["127.0.0.0/8"]), Ok(()));
        assert_eq!(verdict("fd12::1", &["fd12::/16"]), Ok(()));
        for (address, allowed) in [
            ("169.254.169.254", "0.0.0.0/0"),
            ("169.254.170.2", "169.254.0.0/16"),
            ("168.63.129.16", "0.0.0.0/0"),
            ("100.100.100.200", "100.64.0.0/10"),
            ("192.0.0.192", "0.0.0.0/0"),
            ("fd00:ec2::254", "fd00::/8"),
            ("fe80::1", "::/0"),
            ("::ffff:169.254.169.254", "::/0"),
            ("64:ff9b::a9fe:a9fe", "::/0"),
            ("0.0.0.0", "0.0.0.0/0"),
        ] {
            assert_eq!(verdict(address, &[allowed]), Err(Refused::Never), "{address}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_the_same_in_every_disguise(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let expected = judge(v4.into(), &[]);
            prop_assert_eq!(judge(v4.to_ipv6_mapped().into(), &[]), expected);
            let nat64: Ipv6Addr = format!("64:ff9b::{v4}").parse().unwrap();
            prop_assert_eq!(judge(nat64.into(), &[]), expected);
            let compatible: Ipv6Addr = format!("::{v4}").parse().unwrap();
            prop_assert!(judge(compatible.into(), &[]).is_err());
            let [a, b, c, d] = v4.octets().map(u16::from);
            let six_to_four = Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1);
            prop_assert!(judge(six_to_four.into(), &[]).is_err());
        }
    }
}
