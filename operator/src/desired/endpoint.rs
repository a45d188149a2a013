//! Storage endpoints as a pool writes them.

use mpegflow_policies::emit::StoragePeer;
use mpegflow_policies::sets::Cidr;

/// `ADDRESS:PORT` or `ADDRESS/BITS:PORT`, IPv6 in brackets.
pub(super) fn parse(text: &str) -> Option<StoragePeer> {
    let (address, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let address = match address.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|address| address.contains(':'))?,
        None => Some(address).filter(|address| !address.contains(':'))?,
    };
    let block: Cidr =
        if address.contains('/') { address.parse().ok()? } else { Cidr::host(address.parse().ok()?) };
    Some(StoragePeer { blocks: vec![block], domain: None, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::endpoint::StorageEndpoint;

    #[test]
    fn addresses_and_blocks_of_both_families_are_read_and_nothing_else_is() {
        for good in ["192.0.2.10:443", "198.51.100.0/24:9000", "[2001:db8::1]:443", "[2001:db8::/64]:443"] {
            let peer = parse(good).map(|peer| (peer.blocks.len(), peer.port > 0));
            assert_eq!(peer, Some((1, true)), "{good}");
            assert!(good.parse::<StorageEndpoint>().is_ok(), "to broker and workers as well: {good}");
        }
        for bad in [
            "",
            "192.0.2.10",
            "192.0.2.10:0",
            "192.0.2.10:65536",
            "s3.example.com:443",
            "2001:db8::1:443",
            "[192.0.2.1]:443",
            "192.0.2.1/33:443",
            "[2001:db8::/129]:443",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
            assert!(bad.parse::<StorageEndpoint>().is_err(), "{bad}");
        }
    }
}
