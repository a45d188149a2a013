//! A fault at every lock step. The kernel under the probe refuses a step, or lies: it reports success and does nothing. Either way
//! the process says so and stops, or is seen not to be locked from outside; it is never taken for a locked one.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code"
)]

use mpegflow_lockdown::{NotLocked, Report, observe, verify};
use mpegflow_tests::escape::{Outcome, Probe};
use std::fs;

const PROBE: &str = env!("CARGO_BIN_EXE_escape-probe");

const REFUSE: i32 = libc::EPERM;
const LIE: i32 = 0;

/// The call, its first argument where only that use of it fails, the fault, and how the error begins.
#[rustfmt::skip]
const FAULTS: &[(&str, i64, Option<i32>, i32, &str)] = &[
    ("another parent", libc::SYS_getppid, None, LIE, "Parent"),
    ("threads cannot be counted", libc::SYS_getdents64, None, REFUSE, "Threads"),
    ("there are said to be no threads", libc::SYS_getdents64, None, LIE, "NotAlone(0)"),
    ("descriptors stay open", libc::SYS_close_range, None, REFUSE, "Close"),
    ("descriptors are said to be closed", libc::SYS_close_range, None, LIE, "StillOpen(5)"),
    ("the bounding set stays", libc::SYS_prctl, Some(libc::PR_CAPBSET_DROP), REFUSE, "Identity(Bounding"),
    ("the bounding set is said to be gone", libc::SYS_prctl, Some(libc::PR_CAPBSET_DROP), LIE, "Identity(Unchanged(\"the bounding set"),
    ("ambient capabilities stay", libc::SYS_prctl, Some(libc::PR_CAP_AMBIENT), REFUSE, "Identity(Ambient"),
    ("groups stay", libc::SYS_setgroups, None, REFUSE, "Identity(Groups"),
    ("the group stays", libc::SYS_setresgid, None, REFUSE, "Identity(Group"),
    ("the group is said to have changed", libc::SYS_setresgid, None, LIE, "Identity(Unchanged(\"the group"),
    ("the user stays", libc::SYS_setresuid, None, REFUSE, "Identity(User"),
    ("the user is said to have changed", libc::SYS_setresuid, None, LIE, "Identity(Unchanged(\"the user"),
    ("capabilities stay", libc::SYS_capset, None, REFUSE, "Identity(Capabilities"),
    ("limits stay", libc::SYS_prlimit64, None, REFUSE, "Limit(Refused"),
    ("limits are said to be set", libc::SYS_prlimit64, None, LIE, "Limit("),
    ("no death signal", libc::SYS_prctl, Some(libc::PR_SET_PDEATHSIG), REFUSE, "DeathSignal"),
    ("the death signal is said to be set", libc::SYS_prctl, Some(libc::PR_SET_PDEATHSIG), LIE, "Unchanged(\"the death signal"),
    ("it stays dumpable", libc::SYS_prctl, Some(libc::PR_SET_DUMPABLE), REFUSE, "Dumpable"),
    ("new privileges stay possible", libc::SYS_prctl, Some(libc::PR_SET_NO_NEW_PRIVS), REFUSE, "NoNewPrivs"),
    ("new privileges are said to be impossible", libc::SYS_prctl, Some(libc::PR_SET_NO_NEW_PRIVS), LIE, "Unchanged(\"no_new_privs"),
    ("no Landlock", libc::SYS_landlock_create_ruleset, None, libc::ENOSYS, "Landlock(Absent"),
    ("Landlock is switched off", libc::SYS_landlock_create_ruleset, None, libc::EOPNOTSUPP, "Landlock(Absent"),
    ("Landlock is refused", libc::SYS_landlock_restrict_self, None, REFUSE, "Landlock(Refused"),
    ("Landlock is said to be on", libc::SYS_landlock_restrict_self, None, LIE, "NotRefused"),
    ("no filter", libc::SYS_seccomp, None, REFUSE, "Filter"),
];

#[test]
fn a_fault_at_any_step_stops_the_process_before_it_does_anything() {
    if !fs::read_to_string("/proc/self/status").unwrap().lines().any(|l| l.starts_with("Uid:\t0\t")) {
        panic!("the faults are made for a supervisor that is root; run this test as root");
    }
    for (what, call, first, errno, message) in FAULTS {
        let probe = Probe::new(PROBE, "locked", "nothing").with_a_descriptor_too_many();
        let outcome = probe.sabotage(*call, first.map(|f| f.unsigned_abs().into()), *errno).run();
        let stopped = matches!(&outcome, Outcome::NotLocked(why) if why.starts_with(message));
        assert!(stopped, "{what}: expected {message}, got {outcome}");
        println!("{what:44} {outcome}");
    }
    let sound = Probe::new(PROBE, "locked", "nothing").with_a_descriptor_too_many().sabotage(
        libc::SYS_reboot,
        None,
        REFUSE,
    );
    assert_eq!(
        sound.run(),
        Outcome::Escaped(0),
        "without a fault that matters the same process locks itself"
    );
}

#[test]
fn filters_that_are_said_to_be_on_are_missed_from_outside() {
    let mut running =
        Probe::new(PROBE, "locked", "read_until_closed").sabotage(libc::SYS_seccomp, None, LIE).start();
    running.wait_until_locked();
    let honest = Report {
        landlock_abi: 7,
        landlock_refused_open: true,
        open_fds: 5,
        not_dumpable: true,
        environment_empty: true,
    };
    let verdict = verify(&observe(running.child.id()).unwrap(), &honest);
    assert!(matches!(verdict, Err(NotLocked::SeccompFilters { .. })), "{verdict:?}");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}
