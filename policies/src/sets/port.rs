//! Sets of port numbers.

use super::interval::Intervals;
use std::fmt;

/// Ports, 0 to 65535. On the ICMP lanes a "port" is `type × 256 + code`; on the lane of other protocols it is the IP
/// protocol number (see [`super::Lane`]).
pub type PortSet = Intervals<u16>;

impl PortSet {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self::range(port, port)
    }
}

impl fmt::Display for PortSet {
    /// `80,443,8000-8080`; `all` for all, `none` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            return f.write_str("all");
        }
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, (first, last)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}
