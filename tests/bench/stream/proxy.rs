//! What the kernel says of a proxy's processes.

use std::time::Duration;

/// Something that bytes go through.
pub(crate) trait Proxy {
    /// Its processes.
    fn pids(&self) -> Vec<u32>;
    /// The port that its clients connect to.
    fn port(&self) -> u16;

    /// User and system time so far.
    fn cpu(&self) -> Duration {
        self.pids().into_iter().map(|pid| cpu(&pid.to_string())).sum()
    }

    /// Resident memory in bytes.
    fn resident(&self) -> u64 {
        self.pids().into_iter().map(resident).sum()
    }

    /// Connections of clients that are open now.
    fn clients(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", self.port());
        let established = |line: &&str| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _remote, state) = (fields.next(), fields.next(), fields.next());
            local.is_some_and(|local| local.ends_with(&port)) && state == Some("01")
        };
        table.lines().filter(established).count()
    }
}

/// No proxy: the server itself.
pub(crate) struct Direct(pub(crate) u16);

impl Proxy for Direct {
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    fn port(&self) -> u16 {
        self.0
    }
}

fn cpu(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1_000 / 100)
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Waits until somebody listens there.
pub(crate) fn until_it_listens(port: u16) {
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nobody listens on port {port}");
}
