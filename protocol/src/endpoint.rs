//! Endpoints of storage, as a pool writes them: `ADDRESS:PORT` or `ADDRESS/BITS:PORT`, IPv6 in brackets.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Most endpoints of one pool.
pub const MAX_ENDPOINTS: usize = 16;

/// A block of addresses and a TCP port. A name is none: a worker has no DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageEndpoint {
    address: IpAddr,
    bits: u8,
    port: u16,
}

/// A text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEndpoint;

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an endpoint is ADDRESS:PORT or ADDRESS/BITS:PORT, such as 192.0.2.10:443 or [2001:db8::/64]:443",
        )
    }
}

impl std::error::Error for BadEndpoint {}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address' bits, at the upper end.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl StorageEndpoint {
    /// Its TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it holds an address and port. An address of IPv4 that is written as one of IPv6 is another address.
    pub fn holds(&self, address: &SocketAddr) -> bool {
        if address.port() != self.port || address.is_ipv4() != self.address.is_ipv4() {
            return false;
        }
        let differ = bits_of(address.ip()) ^ bits_of(self.address);
        u32::from(self.bits) <= differ.leading_zeros()
    }
}

impl FromStr for StorageEndpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
        let (block, port) = text.rsplit_once(':').ok_or(BadEndpoint)?;
        let port = number(port).filter(|port| *port > 0).ok_or(BadEndpoint)?;
        let block = match block.strip_prefix('[') {
            Some(block) => block.strip_suffix(']').filter(|block| block.contains(':')).ok_or(BadEndpoint)?,
            None => Some(block).filter(|block| !block.contains(':')).ok_or(BadEndpoint)?,
        };
        let (address, bits) = match block.split_once('/') {
            None => (block, None),
            Some((address, bits)) => (address, Some(number(bits).ok_or(BadEndpoint)?)),
        };
        let address: IpAddr = address.parse().map_err(|_| BadEndpoint)?;
        let bits = match bits {
            None => width(address),
            Some(bits) => {
                u8::try_from(bits).ok().filter(|bits| *bits <= width(address)).ok_or(BadEndpoint)?
            }
        };
        Ok(Self { address, bits, port })
    }
}

impl fmt::Display for StorageEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, bits, port } = self;
        match (address, *bits == width(*address)) {
            (IpAddr::V4(address), true) => write!(f, "{address}:{port}"),
            (IpAddr::V4(address), false) => write!(f, "{address}/{bits}:{port}"),
            (IpAddr::V6(address), true) => write!(f, "[{address}]:{port}"),
            (IpAddr::V6(address), false) => write!(f, "[{address}/{bits}]:{port}"),
        }
    }
}

impl TryFrom<String> for StorageEndpoint {
    type Error = BadEndpoint;

    fn try_from(text: String) -> Result<Self, BadEndpoint> {
        text.parse()
    }
}

impl From<StorageEndpoint> for String {
    fn from(endpoint: StorageEndpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_holds_its_block_at_its_port_and_nothing_else() {
        let holds = |endpoint: &str, address: &str| {
            let endpoint: StorageEndpoint = endpoint.parse().unwrap();
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            endpoint.holds(&address.parse().unwrap())
        };
        for (endpoint, inside) in [
            ("192.0.2.10:443", "192.0.2.10:443"),
            ("198.51.100.0/24:9000", "198.51.100.255:9000"),
            ("0.0.0.0/0:443", "203.0.113.1:443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:db8::/64]:443", "[2001:db8::ffff]:443"),
        ] {
            assert!(holds(endpoint, inside), "{endpoint} {inside}");
        }
        for (endpoint, outside) in [
            ("192.0.2.10:443", "192.0.2.11:443"),
            ("192.0.2.10:443", "192.0.2.10:444"),
            ("198.51.100.0/24:9000", "198.51.101.0:9000"),
            ("0.0.0.0/0:443", "[2001:db8::1]:443"),
            ("192.0.2.10:443", "[::ffff:192.0.2.10]:443"),
            ("[::/0]:443", "192.0.2.10:443"),
            ("[2001:db8::/64]:443", "[2001:db8:0:1::]:443"),
        ] {
            assert!(!holds(endpoint, outside), "{endpoint} {outside}");
        }
    }

    #[test]
    fn names_and_half_endpoints_are_none() {
        for bad in [
            "",
            "192.0.2.10",
            "192.0.2.10:0",
            "192.0.2.10:+1",
            "192.0.2.10:65536",
            "s3.example.com:443",
            "2001:db8::1:443",
            "[192.0.2.1]:443",
            "192.0.2.1/33:443",
            "192.0.2.1/:443",
            "192.0.2.1/+8:443",
            "[2001:db8::/129]:443",
            "[2001:db8::1:443",
        ] {
            assert_eq!(bad.parse::<StorageEndpoint>(), Err(BadEndpoint), "{bad}");
        }
    }
}
