//! Sets that a verdict is made of: addresses, ports, and traffic (protocol × port). All are finite and exact, so that a
//! verdict covers every packet and not just probes.

mod address;
mod interval;
mod port;
mod traffic;

pub use address::{AddressSet, Cidr, CidrError, Family};
pub use interval::{Intervals, Point};
pub use port::PortSet;
pub use traffic::{Lane, Protocol, Traffic};
