//! What a codec process is given and what it is kept from: descriptors, environment, signals, session; how it works, and how it
//! ends, under the locks; and what is seen of it from outside.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code"
)]

use mpegflow_lockdown::launch::Launch;
use mpegflow_lockdown::{NOBODY, NotLocked, Report, observe, verify};
use mpegflow_tests::escape::{Outcome, Probe};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PROBE: &str = env!("CARGO_BIN_EXE_escape-probe");

fn locked(name: &str) -> Probe {
    Probe::new(PROBE, "locked", name)
}

/// The facts that the probe reported, from its line.
fn report(line: &str) -> Report {
    let fact = |name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
    };
    Report {
        landlock_abi: fact("abi").parse().unwrap(),
        landlock_refused_open: fact("refused") == "true",
        open_fds: fact("fds").parse().unwrap(),
        not_dumpable: fact("undumpable") == "true",
        environment_empty: fact("noenv") == "true",
    }
}

#[test]
fn a_locked_process_is_seen_to_be_locked_from_outside() {
    let mut running = locked("read_until_closed").start();
    let report = report(&running.wait_until_locked());
    let observed = observe(running.child.id()).unwrap();
    assert_eq!(report.open_fds, 5, "exactly what was handed over");
    assert_eq!(verify(&observed, &report), Ok(()), "{observed:?} {report:?}");
    if is_root() {
        assert_eq!((observed.uid, observed.gid), (NOBODY, NOBODY));
    }
    drop(running.socket.shutdown(std::net::Shutdown::Both));
    assert!(matches!(running.finish().0, Outcome::Escaped(_)), "it reads until the end");
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|l| l.starts_with("Uid:\t0\t"))
}

#[test]
fn a_process_with_a_layer_missing_is_not_fed() {
    let mut wholly = locked("read_until_closed").start();
    let honest = report(&wholly.wait_until_locked());
    for (mode, complaint) in [("free", NotLocked::SeccompMode(0)), ("landlock", NotLocked::SeccompMode(0))] {
        let mut running = Probe::new(PROBE, mode, "read_until_closed").start();
        running.wait_until_locked();
        assert_eq!(verify(&observe(running.child.id()).unwrap(), &honest), Err(complaint), "{mode}");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }
    let mut running = Probe::new(PROBE, "seccomp", "read_until_closed").start();
    running.wait_until_locked();
    if is_root() {
        assert_eq!(verify(&observe(running.child.id()).unwrap(), &honest), Err(NotLocked::Root));
    }
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    wholly.child.kill().unwrap();
    wholly.child.wait().unwrap();
}

#[test]
fn a_process_that_has_ended_cannot_be_observed() {
    let mut running = locked("nothing").start();
    let pid = running.child.id();
    running.child.wait().unwrap();
    assert!(observe(pid).is_err());
}

#[test]
fn threads_memory_and_sorting_work_under_the_locks() {
    for workload in ["threads_and_memory", "sort", "panic_in_a_thread"] {
        let (outcome, said) = locked(workload).start().finish();
        assert_eq!(outcome, Outcome::Escaped(0), "{workload}: {said}");
    }
}

#[test]
fn a_crash_ends_as_a_crash_and_not_as_an_escape() {
    for (crash, signal) in [
        ("abort", libc::SIGABRT),
        ("abort_in_a_thread", libc::SIGABRT),
        ("panic_in_a_callback", libc::SIGABRT),
        ("stack_overflow", libc::SIGABRT),
        ("null_pointer", libc::SIGSEGV),
    ] {
        let (outcome, said) = locked(crash).start().finish();
        assert_eq!(outcome, Outcome::Other(format!("signal {signal}")), "{crash}: {said}");
    }
    let (outcome, said) = locked("panic").start().finish();
    assert!(
        matches!(&outcome, Outcome::Other(how) if how.starts_with("exit Some(101)")),
        "{outcome}: {said}"
    );
}

#[test]
fn the_limits_hold() {
    let memory = locked("too_much_memory").run();
    assert!(matches!(memory, Outcome::Escaped(blocks) if blocks < 16), "below 16 × 256 MiB: {memory}");
    // One write up to the limit of 4096 bytes; the next is one too many.
    let file = locked("write_beyond_file_size").run();
    assert_eq!(file, Outcome::Other(format!("signal {}", libc::SIGXFSZ)));
    let time = locked("run_out_of_time").run();
    assert_eq!(time, Outcome::Other(format!("signal {}", libc::SIGXCPU)));
    assert_eq!(locked("close_every_other_descriptor").run(), Outcome::Escaped(0), "nothing else is open");
}

#[test]
fn a_codec_without_locks_is_never_reached() {
    let wrong_parent = locked("nothing").parent(1).run();
    assert!(matches!(&wrong_parent, Outcome::NotLocked(why) if why.starts_with("Parent")), "{wrong_parent}");
    let thread = locked("second_thread").run();
    assert!(matches!(&thread, Outcome::NotLocked(why) if why.starts_with("NotAlone(2)")), "{thread}");
    let environment = Command::new(PROBE)
        .args(["locked", &std::process::id().to_string(), "3", "nothing"])
        .env_clear()
        .env("SECRET", "x")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(environment.status.code(), Some(96));
    assert_eq!(String::from_utf8_lossy(&environment.stdout), "refused EnvironmentNotEmpty\n");
}

/// Planted in the launcher; no process that it launches may hold it.
const SECRET: &str = "a-lease-token-that-no-codec-may-see";

#[test]
fn a_secret_in_the_launchers_environment_and_descriptors_is_not_visible() {
    if std::env::var_os("MPEGFLOW_PLANTED").is_some() {
        return launch_with_a_secret();
    }
    // A process of its own with the secret in its environment launches the probe: this test, called again.
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own)
        .args(["--exact", "a_secret_in_the_launchers_environment_and_descriptors_is_not_visible"])
        .env("MPEGFLOW_PLANTED", SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
}

fn launch_with_a_secret() {
    assert_eq!(std::env::var("MPEGFLOW_PLANTED").as_deref(), Ok(SECRET));
    let mut planted = tempfile::tempfile().unwrap();
    planted.write_all(SECRET.as_bytes()).unwrap();
    // Without close-on-exec, and at a number that nobody would guess to close.
    // SAFETY: duplicates a descriptor that lives to the end of this function.
    #[allow(unsafe_code, reason = "no safe call makes a descriptor that exec keeps")]
    for number in [6, 77, 300, 700] {
        assert_eq!(unsafe { libc::dup2(planted.as_raw_fd(), number) }, number);
    }
    let backwards: String = SECRET.chars().rev().collect();
    // Not locked: what exec alone leaves behind is already nothing.
    assert_eq!(Probe::new(PROBE, "free", "find_secret").arg(&backwards).run(), Outcome::Escaped(0));
    // 0, 1, 2, 3, 4 in hundreds.
    assert_eq!(Probe::new(PROBE, "free", "list_descriptors").run(), Outcome::Escaped(1_020_304));
    assert_eq!(locked("close_every_other_descriptor").run(), Outcome::Escaped(0));
    // The control: started by hand, it finds both.
    let by_hand = Command::new(PROBE)
        .args(["free", "1", "3", "find_secret", &backwards])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&by_hand.stdout).contains("result 0\n"), "{by_hand:?}");
}

#[test]
fn descriptors_arrive_at_their_numbers_however_these_collide() {
    // Each file is handed over under the number that another has in this process.
    let files: Vec<File> = (0..6_u8)
        .map(|n| {
            let mut f = tempfile::tempfile().unwrap();
            f.write_all(&[b'0' + n]).unwrap();
            std::io::Seek::rewind(&mut f).unwrap();
            f
        })
        .collect();
    let mut numbers: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.rotate_left(1);
    let script: String = numbers.iter().map(|n| format!("cat <&{n}; ")).collect();
    let (mut output, theirs) = UnixStream::pair().unwrap();
    let launch = Launch::new("/bin/bash").arg("-c").arg(script + "ls /proc/self/fd | wc -l").fd(theirs, 1);
    let mut child =
        files.into_iter().zip(numbers).fold(launch, |l, (file, number)| l.fd(file, number)).spawn().unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    // Six files, three standard ones, and the one by which `ls` reads the folder.
    assert_eq!(said.trim(), "01234510");
}

#[test]
fn a_launch_that_cannot_work_is_an_error_and_leaves_no_process() {
    let absent = Launch::new("/nonexistent/codec").spawn().unwrap_err();
    assert_eq!(absent.kind(), std::io::ErrorKind::NotFound, "{absent}");
    assert_eq!(Launch::new("codec").spawn().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let null = || File::open("/dev/null").unwrap();
    let twice = Launch::new("/bin/true").fd(null(), 5).fd(null(), 5).spawn().unwrap_err();
    assert_eq!(twice.kind(), std::io::ErrorKind::InvalidInput);
    let high = Launch::new("/bin/true").fd(null(), 4096).spawn().unwrap_err();
    assert_eq!(high.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_process_has_a_session_and_signals_of_its_own_and_outlives_the_thread_that_asked_for_it() {
    let mut running = thread::spawn(|| locked("read_until_closed").start()).join().unwrap();
    running.wait_until_locked();
    thread::sleep(Duration::from_millis(200));
    assert!(running.child.try_wait().unwrap().is_none(), "the thread is gone, the process is not");
    let pid = running.child.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nSigBlk:\t0000000000000000\n"), "{status}");
    // The Rust runtime itself ignores SIGPIPE (13), so that writing to a closed pipe is an error.
    assert!(status.contains("\nSigIgn:\t0000000000001000\n"), "{status}");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

#[test]
fn a_locked_process_ends_with_its_supervisor() {
    let mut supervisor = Command::new(PROBE).arg("nest").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut output = std::io::BufReader::new(supervisor.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut said).unwrap();
    let codec: u32 = said.trim().strip_prefix("locked ").unwrap().parse().unwrap();
    assert!(observe(codec).is_ok());
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Gone, or waiting for init to take notice.
    while !fs::read_to_string(format!("/proc/{codec}/stat")).map_or(true, |s| s.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {codec} goes on without its supervisor");
        thread::sleep(Duration::from_millis(5));
    }
}
