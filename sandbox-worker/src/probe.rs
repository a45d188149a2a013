//! A look around before enrolling: the broker answers, and what no worker may reach does not. Network policies are enforced by
//! something that may come up after the pod has, so a worker that can reach more than the broker waits, and asks for nothing.
//!
//! It runs before this process confines itself: the locks of its own would be all that it saw. It proves nothing to anybody else,
//! since a worker that was taken over would skip it; what proves is a [canary](crate::canary), with a control that the target answers
//! at all.

use mpegflow_protocol::canary::Outcome;
use mpegflow_protocol::worker::ProbeTarget;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Whoever answers does so within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a worker sees around itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Around {
    /// The broker answers, and nothing else does.
    Isolated,
    /// The broker does not answer, so that silence elsewhere means nothing.
    NoBroker,
    /// These answer.
    Open(Vec<String>),
}

/// What came of a look at everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether the broker answered before and after everything else, so that a network that came up in between is noticed.
    pub broker: bool,
    /// The other addresses, in their order.
    pub others: Vec<Outcome>,
}

/// Looks at one address.
pub fn look(address: SocketAddr) -> Outcome {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => Outcome::Answered,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(_) => Outcome::Silent,
    }
}

/// Looks at the broker, at all other addresses at once, and at the broker again.
pub fn look_at_all(broker: &str, others: &[SocketAddr]) -> Seen {
    let broker_answers = || {
        let addresses = broker.to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| look(address) == Outcome::Answered)
    };
    let before = broker_answers();
    let others = std::thread::scope(|scope| {
        let looks: Vec<_> = others.iter().map(|address| scope.spawn(|| look(*address))).collect();
        // A look that broke off saw nothing; whoever cannot look must not go on.
        looks.into_iter().map(|look| look.join().unwrap_or(Outcome::Answered)).collect()
    });
    Seen { broker: before && broker_answers(), others }
}

/// Looks around.
pub fn around(broker: &str, targets: &[ProbeTarget]) -> Around {
    let addresses: Vec<SocketAddr> = targets.iter().map(|target| target.address).collect();
    let seen = look_at_all(broker, &addresses);
    let open = targets.iter().zip(&seen.others).filter(|(_, outcome)| **outcome == Outcome::Answered);
    let open: Vec<String> = open.map(|(target, _)| target.name.clone()).collect();
    match (open.is_empty(), seen.broker) {
        (false, _) => Around::Open(open),
        (true, true) => Around::Isolated,
        (true, false) => Around::NoBroker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn target(name: &str, address: SocketAddr) -> ProbeTarget {
        ProbeTarget { name: name.into(), address }
    }

    #[test]
    fn silence_counts_only_beside_a_broker_that_answers_and_one_answer_is_enough() {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = mpegflow_test_ports::address();
        let at = broker.local_addr().unwrap().to_string();
        assert_eq!(around(&at, &[target("closed", closed)]), Around::Isolated);
        let open = [target("closed", closed), target("API server", other.local_addr().unwrap())];
        assert_eq!(around(&at, &open), Around::Open(vec!["API server".into()]));
        assert_eq!(around(&closed.to_string(), &[target("closed", closed)]), Around::NoBroker);
        // Whoever answers is no less open because the broker does not.
        assert_eq!(around(&closed.to_string(), &open), Around::Open(vec!["API server".into()]));
        assert_eq!(look(closed), Outcome::Refused);
    }
}
