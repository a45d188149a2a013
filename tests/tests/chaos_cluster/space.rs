//! Namespaces of the test's own: everything that it starts ends with it, nothing of it is on the machine's network, and file systems
//! that it mounts are seen by nobody else. Where the kernel does not let it, it runs without, and what needs them says so.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the process within.
const WITHIN: &str = "MPEGFLOW_CHAOS_WITHIN";
const UNSHARE: [&str; 7] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

/// Whether namespaces and mounts may be used here.
pub(crate) fn is_own() -> bool {
    std::env::var_os(WITHIN).is_some()
}

/// Runs the test of that name in namespaces of its own, if this process is not in them yet; true where this process shall run it.
pub(crate) fn enter(test: &str, limit: Duration) -> bool {
    if is_own() {
        command("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    // There is no network within: what has to be fetched is fetched now.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/s3-servers");
    let made = Command::new(script).stdout(Stdio::null()).status().unwrap();
    assert!(made.success(), "tools/s3-servers failed; it says why above");
    let may = Command::new("unshare").args(UNSHARE).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED: network namespaces, full file systems (this account may not make namespaces)");
        return true;
    }
    let mut child = Command::new("unshare")
        .args(UNSHARE)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(WITHIN, "1")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{test} did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(status.success(), "{test} failed; its output is above");
    false
}

pub(crate) fn command(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A folder on a file system of its own, of so many MiB.
pub(crate) fn small_disk(mib: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if is_own() {
        let size = format!("size={mib}m");
        command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", dir.path().to_str().unwrap()]);
    }
    dir
}

/// Another network namespace with one cable to this one. It is there as long as this value.
pub(crate) struct Island {
    keeper: Child,
}

/// Addresses of the two ends of the cable; nobody else sees them.
pub(crate) const HERE: &str = "10.231.0.1";
pub(crate) const THERE: &str = "10.231.0.2";

impl Island {
    pub(crate) fn new() -> Self {
        // Ends when our end of the pipe closes.
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo up && read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut island = Self { keeper };
        let mut line = String::new();
        let out = island.keeper.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "up\n");
        let pid = island.keeper.id().to_string();
        command("ip", &["link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", &pid]);
        command("ip", &["addr", "add", &format!("{HERE}/30"), "dev", "cable0"]);
        command("ip", &["link", "set", "cable0", "up"]);
        let within = |args: &[&str]| {
            let net = island.net();
            command("nsenter", &[&[net.as_str(), "--", "ip"], args].concat());
        };
        within(&["addr", "add", &format!("{THERE}/30"), "dev", "cable1"]);
        within(&["link", "set", "cable1", "up"]);
        island
    }

    fn net(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.keeper.id())
    }

    /// What has to stand before a command so that it runs there. It takes the command's place: the process id stays.
    pub(crate) fn prefix(&self) -> Vec<String> {
        vec!["nsenter".into(), self.net(), "--".into()]
    }

    /// Pulls the cable at the far end, or plugs it in: packets are lost, and nobody is told.
    pub(crate) fn plug(&self, state: bool) {
        let state = if state { "up" } else { "down" };
        command("nsenter", &[&self.net(), "--", "ip", "link", "set", "cable1", state]);
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
