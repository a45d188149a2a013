//! A look around before enrolling: the broker answers, and what no worker may reach does not. Network policies are enforced by
//! something that may come up after the pod has, so a worker that can reach more than the broker waits, and asks for nothing.
//!
//! It runs before this process confines itself: the locks of its own would be all that it saw. It proves nothing to anybody else,
//! since a worker that was taken over would skip it; what proves is a canary, with a control that the target answers at all.

use mpegflow_protocol::worker::ProbeTarget;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Whoever answers does so within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a look at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody accepts connections there.
    Answered,
    /// A connection was refused: by the host, or by what enforces policies. Nobody can tell which.
    Refused,
    /// Nothing came back.
    Silent,
}

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

/// Looks at one address.
pub fn look(address: SocketAddr) -> Outcome {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => Outcome::Answered,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(_) => Outcome::Silent,
    }
}

/// Looks around: at the broker before and after everything else, so that a network that came up in between is noticed.
pub fn around(broker: &str, targets: &[ProbeTarget]) -> Around {
    let broker_answers = || {
        let addresses = broker.to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| look(address) == Outcome::Answered)
    };
    if !broker_answers() {
        return Around::NoBroker;
    }
    let open: Vec<String> = std::thread::scope(|scope| {
        let looks: Vec<_> =
            targets.iter().map(|target| (target, scope.spawn(|| look(target.address)))).collect();
        let answered = |look: std::thread::ScopedJoinHandle<'_, Outcome>| {
            // A look that broke off saw nothing; whoever cannot look must not go on.
            look.join().map_or(true, |outcome| outcome == Outcome::Answered)
        };
        let open = looks.into_iter().filter_map(|(target, look)| answered(look).then(|| target.name.clone()));
        open.collect()
    });
    match open.is_empty() {
        false => Around::Open(open),
        true if broker_answers() => Around::Isolated,
        true => Around::NoBroker,
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
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = broker.local_addr().unwrap().to_string();
        assert_eq!(around(&at, &[target("closed", closed)]), Around::Isolated);
        let open = [target("closed", closed), target("API server", other.local_addr().unwrap())];
        assert_eq!(around(&at, &open), Around::Open(vec!["API server".into()]));
        assert_eq!(around(&closed.to_string(), &[target("closed", closed)]), Around::NoBroker);
        assert_eq!(look(closed), Outcome::Refused);
    }
}
