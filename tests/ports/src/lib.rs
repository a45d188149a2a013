//! Ports of loopback for tests.
//!
//! A test that starts a server has to name its port before the server listens. One that the system handed out a moment ago
//! (port 0, closed again) may be gone by then: to another test program, or to anybody's outgoing connection. These are
//! from below the range that the system hands out, and each is locked by the process that got it, for as long as it lives:
//! what is started there may end and start again, and where nothing is started nobody answers.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

const FIRST: u16 = 10_100;
const PORTS: u32 = 9_000;
/// From a Redis Cluster node's port to its bus. Who gets a port gets this one too.
const BUS: u16 = 10_000;

/// The locks of this process, and where the next look begins.
static TAKEN: Mutex<(Vec<File>, u32)> = Mutex::new((Vec::new(), 0));

/// A port that is this process's from now on, and free, as is the one 10,000 above it.
///
/// # Panics
/// None is left, or the folder of the locks cannot be written.
pub fn port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (locks, next) = &mut *taken;
    let folder = locks_folder();
    for _ in 0..PORTS {
        let offset = std::process::id().wrapping_mul(131).wrapping_add(*next) % PORTS;
        *next += 1;
        let port = FIRST + u16::try_from(offset).expect("below 9,000");
        let lock = File::create(folder.join(port.to_string())).expect("a lock");
        let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if lock.try_lock().is_ok() && free(port) && free(port + BUS) {
            locks.push(lock);
            return port;
        }
    }
    panic!("all ports from {FIRST} on are taken: {PORTS} of them");
}

/// [`port`] of 127.0.0.1.
pub fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port()).into()
}

/// A folder of this account's own: another could not lock its files.
fn locks_folder() -> PathBuf {
    let account = std::fs::metadata("/proc/self").expect("/proc").uid();
    let folder = std::env::temp_dir().join(format!("mpegflow-test-ports-{account}"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::process::Command;

    const TAKES: &str = "MPEGFLOW_TAKES_PORTS";

    /// What [`no_port_is_given_twice_among_processes`] runs beside itself.
    #[test]
    fn another_process_takes_ports() {
        if std::env::var_os(TAKES).is_some() {
            let ports: Vec<String> = (0..200).map(|_| super::port().to_string()).collect();
            println!("took {}", ports.join(" "));
            // They are held until all have theirs.
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }

    #[test]
    fn no_port_is_given_twice_among_processes() {
        let myself = std::env::current_exe().unwrap();
        let others = [(); 4].map(|()| {
            let mut other = Command::new(&myself);
            other.args(["another_process_takes_ports", "--nocapture", "--test-threads", "1"]).env(TAKES, "1");
            other.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            other.spawn().unwrap()
        });
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            assert!(seen.insert(super::port()));
        }
        let mut children = others;
        for child in &mut children {
            let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("took ") {
                line.clear();
                assert_ne!(std::io::BufRead::read_line(&mut out, &mut line).unwrap(), 0);
            }
            let (_, ports) = line.split_once("took ").unwrap();
            let ports: Vec<u16> = ports.split_whitespace().map(|port| port.parse().unwrap()).collect();
            assert_eq!(ports.len(), 200);
            for port in ports {
                assert!(seen.insert(port), "{port} twice");
            }
            child.stdout = Some(out.into_inner());
        }
        for mut child in children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_left_out() {
        let first = super::port();
        let next = first + 1;
        let _held = TcpListener::bind(("127.0.0.1", next));
        let got: Vec<u16> = (0..50).map(|_| super::port()).collect();
        assert!(!got.contains(&next), "{next}: {got:?}");
    }
}
