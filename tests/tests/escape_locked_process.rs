//! What a taken-over codec would try, tried inside a process that locked itself as the codec does: nothing works. Each probe is
//! also made without any lock (or its refusal would show nothing) and under each layer alone.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code"
)]

use mpegflow_tests::escape::{Outcome, Probe, in_parallel};
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

const PROBE: &str = env!("CARGO_BIN_EXE_escape-probe");

/// What a probe needs from the test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Folder,
    Listeners,
    Memory,
    Nothing,
}

/// What stops a probe besides the filters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Landlock {
    /// Landlock alone refuses it too.
    Stops,
    /// The filters are the only lock.
    No,
}

/// Whether the probe works where nothing is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// It has to.
    Works,
    /// It depends on the machine, or cannot be made to work harmlessly; the reason.
    No(&'static str),
}

use Control::{No as Cannot, Works};
use Landlock::{No, Stops};
use Needs::{Folder, Listeners, Memory, Nothing};

const ROOT: &str = "needs a right that a container may lack";
const BUILD: &str = "needs a kernel built with it";
const BARE: &str = "no harmless success";

#[rustfmt::skip]
const PROBES: &[(&str, Needs, Landlock, Control)] = &[
    ("open", Folder, Stops, Works), ("open_directory", Folder, Stops, Works), ("open_to_write", Folder, Stops, Works),
    ("open_to_create", Folder, Stops, Works), ("open_path_only", Folder, No, Works), ("open_temporary", Folder, Stops, Cannot("not every file system has it")),
    ("openat", Folder, Stops, Works), ("openat2", Folder, Stops, Works), ("creat", Folder, Stops, Works),
    ("own_memory_file", Folder, Stops, Works), ("parents_environment", Folder, Stops, Works),
    ("stat", Folder, No, Works), ("lstat", Folder, No, Works), ("fstat", Folder, No, Works), ("newfstatat", Folder, No, Works),
    ("statx", Folder, No, Works), ("statfs", Folder, No, Works), ("access", Folder, No, Works), ("faccessat2", Folder, No, Works),
    ("readlink", Folder, No, Works), ("readlinkat", Folder, No, Works), ("getcwd", Folder, No, Works), ("chdir", Folder, No, Works),
    ("chroot", Folder, No, Cannot(ROOT)), ("mkdir", Folder, Stops, Works), ("rmdir", Folder, Stops, Works),
    ("unlink", Folder, Stops, Works), ("rename", Folder, Stops, Works), ("hard_link", Folder, Stops, Works),
    ("symlink", Folder, Stops, Works), ("fifo", Folder, Stops, Works), ("truncate", Folder, Stops, Works),
    ("chmod", Folder, No, Works), ("setxattr", Folder, No, Cannot("not every file system has it")), ("inotify", Folder, No, Works),
    ("fanotify", Folder, No, Cannot(ROOT)), ("memfd", Folder, No, Works), ("pipe", Folder, No, Works), ("dup", Folder, No, Works),
    ("dup2", Folder, No, Works), ("duplicate_by_fcntl", Folder, No, Works), ("async_signals_by_fcntl", Folder, No, Works),
    ("eventfd", Folder, No, Works), ("epoll", Folder, No, Works), ("timerfd", Folder, No, Works), ("signalfd", Folder, No, Works),
    ("terminal_input", Folder, No, Cannot("no terminal here")), ("bytes_waiting", Folder, No, Works), ("splice", Folder, No, Cannot(BARE)),
    ("pread", Folder, No, Works), ("readv", Folder, No, Works), ("poll", Folder, No, Works), ("ftruncate", Folder, No, Works),
    ("name_to_handle", Folder, No, Cannot("not every file system has it")),

    ("socketpair", Listeners, No, Works), ("connect_tcp", Listeners, Stops, Works), ("bind_tcp", Listeners, Stops, Works),
    ("send_udp", Listeners, No, Works), ("connect_abstract", Listeners, Stops, Works), ("send_message", Listeners, No, Works),
    ("send_descriptor", Listeners, No, Works), ("receive_message", Listeners, No, Works), ("send_messages", Listeners, No, Works),
    ("send_to", Listeners, No, Works), ("receive_from", Listeners, No, Works), ("shutdown", Listeners, No, Works),
    ("peer_name", Listeners, No, Works), ("socket_option", Listeners, No, Works),

    ("execve", Nothing, Stops, Works), ("execveat", Nothing, Stops, Works), ("fork", Nothing, No, Works), ("vfork", Nothing, No, Works),
    ("clone_process", Nothing, No, Works), ("clone_into_user_namespace", Nothing, No, Cannot(ROOT)),
    ("clone_sharing_memory", Nothing, No, Works), ("clone3", Nothing, No, Works), ("trace_me", Nothing, No, Works),
    ("trace_parent", Nothing, Stops, Cannot("Yama, or a container, may forbid it")), ("read_parents_memory", Memory, Stops, Cannot("Yama, or a container, may forbid it")),
    ("write_own_memory_from_outside", Nothing, No, Works), ("pidfd_of_parent", Nothing, No, Works),
    ("steal_parents_descriptor", Nothing, Stops, Cannot("Yama, or a container, may forbid it")), ("signal_by_pidfd", Nothing, Stops, Works),
    ("compare_with_parent", Nothing, Stops, Cannot(BUILD)), ("signal_parent", Nothing, Stops, Works), ("signal_init", Nothing, Stops, Cannot(ROOT)),
    ("signal_everyone", Nothing, No, Cannot(ROOT)), ("signal_itself", Nothing, No, Works), ("tkill", Nothing, No, Works),
    ("tgkill_parent", Nothing, Stops, Works), ("queue_signal", Nothing, Stops, Works), ("getppid", Nothing, No, Works),
    ("wait", Nothing, No, Cannot("no child to wait for")), ("set_session", Nothing, No, Cannot("leads a session already")),
    ("set_group", Nothing, No, Cannot("leads a session already")), ("limits_of_parent", Nothing, No, Works),
    ("raise_limit", Nothing, No, Cannot(ROOT)), ("real_time_priority", Nothing, No, Cannot(ROOT)),
    ("scheduling_attributes", Nothing, No, Works), ("priority", Nothing, No, Works), ("io_priority", Nothing, No, Works),
    ("affinity", Nothing, No, Works), ("change_user", Nothing, No, Cannot(ROOT)), ("change_group", Nothing, No, Cannot(ROOT)),
    ("change_groups", Nothing, No, Cannot(ROOT)), ("capabilities", Nothing, No, Works), ("umask", Nothing, No, Works),

    ("io_uring", Nothing, No, Cannot(BUILD)), ("userfaultfd", Nothing, No, Cannot(ROOT)), ("session_keyring", Nothing, No, Cannot(BUILD)),
    ("add_key", Nothing, No, Cannot(BUILD)), ("request_key", Nothing, No, Cannot(BARE)), ("unshare_user", Nothing, No, Cannot(ROOT)),
    ("unshare_network", Nothing, No, Cannot(ROOT)), ("setns", Nothing, No, Cannot(BARE)), ("mount", Nothing, No, Cannot(BARE)),
    ("open_tree", Nothing, No, Works), ("fsopen", Nothing, No, Cannot(ROOT)), ("pivot_root", Nothing, No, Cannot(BARE)),
    ("perf", Nothing, No, Cannot(BUILD)), ("bpf", Nothing, No, Cannot(BUILD)), ("personality", Nothing, No, Works),
    ("address_randomisation_off", Nothing, No, Works), ("become_dumpable", Nothing, No, Works), ("outlive_parent", Nothing, No, Works),
    ("another_filter", Nothing, No, Cannot(BARE)), ("disable_time_stamps", Nothing, No, Works), ("segment_base", Nothing, No, Works),
    ("local_descriptor_table", Nothing, No, Cannot(BUILD)), ("io_ports", Nothing, No, Cannot(BUILD)), ("kernel_log", Nothing, No, Cannot(ROOT)),
    ("kernel_name", Nothing, No, Works), ("memory_of_machine", Nothing, No, Works), ("shared_segment", Nothing, No, Cannot(BUILD)),
    ("message_queue", Nothing, No, Cannot(BUILD)), ("semaphores", Nothing, No, Cannot(BUILD)), ("posix_queue", Nothing, No, Cannot(BARE)),
    ("landlock_ruleset", Nothing, No, Works), ("clock_adjustment", Nothing, No, Works), ("timer", Nothing, No, Works),
    ("membarrier", Nothing, No, Cannot(BUILD)),

    ("map_writable_and_executable", Nothing, No, Works), ("map_executable", Nothing, No, Works), ("map_shared", Nothing, No, Works),
    ("map_a_descriptor", Nothing, No, Works), ("map_at_a_fixed_place", Nothing, No, Works), ("make_executable", Nothing, No, Works),
    ("make_writable_and_executable", Nothing, No, Works), ("make_executable_with_key", Nothing, No, Cannot(BUILD)),
    ("move_to_a_fixed_place", Nothing, No, Works), ("pin_memory", Nothing, No, Works), ("pin_all_memory", Nothing, No, Works),
    ("share_with_children_only_by_advice", Nothing, No, Works), ("poison_advice", Nothing, No, Cannot(BARE)),
    ("resident_pages", Nothing, No, Works), ("secret_memory", Nothing, No, Cannot(BUILD)),
];

/// What the probes reach for: a folder fresh for each, and two listeners.
struct Targets {
    port: u16,
    name: String,
    _tcp: TcpListener,
    _unix: UnixListener,
}

impl Targets {
    fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("mpegflow-escape-{}", std::process::id());
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Self { port: tcp.local_addr().unwrap().port(), name, _tcp: tcp, _unix: unix }
    }

    fn run(&self, mode: &'static str, name: &str, needs: Needs) -> Outcome {
        let probe = Probe::new(PROBE, mode, name);
        let folder = tempfile::tempdir().unwrap();
        match needs {
            Folder => {
                fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
                fs::write(folder.path().join("file"), "tenant media").unwrap();
                fs::create_dir(folder.path().join("empty")).unwrap();
                std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
                let outcome = probe.arg(folder.path().display()).arg(0).run();
                if mode == "locked" {
                    assert_eq!(
                        fs::read(folder.path().join("file")).unwrap(),
                        b"tenant media",
                        "{name} changed a file"
                    );
                    assert!(!folder.path().join("fresh").exists(), "{name} made a file");
                }
                outcome
            }
            Listeners => probe.arg(self.port).arg(&self.name).run(),
            Memory => probe.arg(&raw const SECRET as u64).run(),
            Nothing => probe.run(),
        }
    }
}

static SECRET: u64 = 0x7365_6372_6574;

#[test]
fn no_probe_escapes_and_each_layer_holds_alone() {
    let targets = Targets::new();
    let rows = in_parallel(PROBES, |(name, needs, ..)| {
        ["free", "landlock", "seccomp", "locked"].map(|mode| targets.run(mode, name, *needs))
    });
    let mut wrong = Vec::new();
    println!("{:36} {:18} {:18} {:18} all locks", "probe", "no lock", "Landlock alone", "seccomp alone");
    for ((name, _, landlock, control), [free, by_landlock, by_seccomp, locked]) in PROBES.iter().zip(&rows) {
        let note = if let Cannot(why) = control { format!("  ({why})") } else { String::new() };
        println!(
            "{name:36} {:18} {:18} {:18} {locked}{note}",
            free.to_string(),
            by_landlock.to_string(),
            by_seccomp.to_string()
        );
        if *control == Works && !matches!(free, Outcome::Escaped(_) | Outcome::Replaced) {
            wrong.push(format!("{name} does not even work without locks: {free}"));
        }
        if *landlock == Stops && !by_landlock.is_closed() {
            wrong.push(format!("{name} passes Landlock: {by_landlock}"));
        }
        if !by_seccomp.is_closed() {
            wrong.push(format!("{name} passes seccomp: {by_seccomp}"));
        }
        if !locked.is_closed() {
            wrong.push(format!("{name} escapes: {locked}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_socket_of_any_family_or_type_can_be_made() {
    let families: Vec<(u32, u32)> = (0..=45).flat_map(|f| [1, 2, 3].map(|kind| (f, kind))).collect();
    let outcomes = in_parallel(&families, |(f, kind)| {
        Probe::new(PROBE, "locked", format!("socket_family_{f}")).arg(kind).run()
    });
    for ((family, kind), outcome) in families.iter().zip(outcomes) {
        assert_eq!(outcome, Outcome::Killed, "family {family}, type {kind}");
    }
    let unix = Probe::new(PROBE, "free", "socket_family_1").arg(1).run();
    assert!(matches!(unix, Outcome::Escaped(_)), "without locks a socket can be made: {unix}");
}
