//! The same look around by a pod that is like a worker's and never enrols: what it saw becomes its termination message, which the
//! operator reads. It holds no token, so that it could not be a worker if it wanted to.

use crate::probe::{self, Seen};
use mpegflow_protocol::canary::{Look, NODE_PORT, Outcome, Report};
use mpegflow_protocol::to_json;
use mpegflow_protocol::worker::ProbeTarget;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks until nothing answers but the broker, and for `patience` at most: policies may be enforced some time after a pod has started.
/// What the last look saw is the report.
pub fn look(broker: &str, targets: &[ProbeTarget], node: SocketAddr, patience: Duration) -> Report {
    let begun = Instant::now();
    let mut addresses: Vec<SocketAddr> = targets.iter().map(|target| target.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.push(node);
    loop {
        let Seen { broker, mut others } = probe::look_at_all(broker, &addresses);
        // Without the look nobody may go on.
        let node = others.pop().unwrap_or(Outcome::Answered);
        let looks = addresses.iter().zip(others).map(|(at, is)| Look { at: *at, is }).collect();
        let report = Report { broker, node, looks };
        if is_isolated(&report) || begun.elapsed() >= patience {
            return report;
        }
        tracing::warn!(?report, "looking again");
        std::thread::sleep(AGAIN);
    }
}

/// The agent of a node.
pub fn node(address: IpAddr) -> SocketAddr {
    (address, NODE_PORT).into()
}

fn is_isolated(report: &Report) -> bool {
    let mut all = report.looks.iter().map(|look| look.is).chain([report.node]);
    report.broker && all.all(|outcome| outcome != Outcome::Answered)
}

/// Writes a report to where the kubelet reads it: a file that is there already.
///
/// # Errors
/// It cannot be written.
pub fn write(report: &Report, path: &Path) -> std::io::Result<()> {
    std::fs::write(path, to_json(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_test_ports::address as free;
    use std::net::TcpListener;

    #[test]
    fn a_canary_reports_each_address_once_and_what_is_open_at_the_end_of_its_patience() {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let (open, closed, node) = (open.local_addr().unwrap(), free(), free());
        let broker = broker.local_addr().unwrap().to_string();
        let target = |address| ProbeTarget { name: "it".into(), address };
        let report = look(&broker, &[target(closed), target(closed)], node, Duration::ZERO);
        let refused = vec![Look { at: closed, is: Outcome::Refused }];
        assert_eq!(report, Report { broker: true, node: Outcome::Refused, looks: refused });
        let report = look(&broker, &[target(closed), target(open)], open, Duration::ZERO);
        assert!(report.looks.contains(&Look { at: open, is: Outcome::Answered }), "{report:?}");
        assert_eq!(report.node, Outcome::Answered);
        assert!(!look(&closed.to_string(), &[], node, Duration::ZERO).broker);
    }

    #[test]
    fn a_canary_waits_for_policies_that_come_up_after_it() {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let late = TcpListener::bind(free()).unwrap();
        let (at, node) = (late.local_addr().unwrap(), free());
        let waiting = std::thread::spawn(move || {
            let targets = [ProbeTarget { name: "late".into(), address: at }];
            look(&broker.local_addr().unwrap().to_string(), &targets, node, Duration::from_secs(600))
        });
        // It has looked once; from now on nobody answers there.
        drop(late.accept().unwrap());
        drop(late);
        assert_eq!(waiting.join().unwrap().looks, [Look { at, is: Outcome::Refused }]);
    }
}
