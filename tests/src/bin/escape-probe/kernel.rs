//! Probes of the kernel's less travelled doors, and every call by number.

use crate::Given;
use crate::raw::{call, call_and_end_child, call_i386};

/// Set in the number of a call of the x32 convention.
const X32: i64 = 0x4000_0000;

pub(crate) fn run(probe: &str, given: &Given) -> Option<i64> {
    let mut buffer = [0_u64; 512];
    let out = buffer.as_mut_ptr() as u64;
    let by_number = |i: usize| i64::try_from(given.number(i)).unwrap();
    Some(match probe {
        // Every argument is what the test says: hostile, or exactly at a rule's border.
        "call" => {
            let arguments: Vec<u64> =
                given.arguments.iter().skip(1).map(|a| argument(a, out, given.parent)).collect();
            call(by_number(0), &arguments)
        }
        "clone" => call_and_end_child(libc::SYS_clone, given.number(0), 0),
        "call_x32" => call(by_number(0) | X32, &[0; 6]),
        "call_i386" => call_i386(u32::try_from(by_number(0)).unwrap(), [0; 3]),
        "io_uring" => call(libc::SYS_io_uring_setup, &[1, out]),
        "userfaultfd" => call(libc::SYS_userfaultfd, &[0]),
        "session_keyring" => call(libc::SYS_keyctl, &[0, (-3_i64).cast_unsigned(), 1]),
        "add_key" => call(
            libc::SYS_add_key,
            &[c"user".as_ptr() as u64, c"escape-probe".as_ptr() as u64, out, 1, (-2_i64).cast_unsigned()],
        ),
        "request_key" => {
            call(libc::SYS_request_key, &[c"user".as_ptr() as u64, c"escape-probe".as_ptr() as u64, 0, 0])
        }
        "unshare_user" => call(libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64]),
        "unshare_network" => call(libc::SYS_unshare, &[libc::CLONE_NEWNET as u64]),
        "setns" => call(libc::SYS_setns, &[0, 0]),
        "mount" => call(
            libc::SYS_mount,
            &[c"none".as_ptr() as u64, c"/nonexistent".as_ptr() as u64, c"tmpfs".as_ptr() as u64, 0, 0],
        ),
        "open_tree" => call(libc::SYS_open_tree, &[libc::AT_FDCWD as u64, c"/".as_ptr() as u64, 0]),
        "fsopen" => call(libc::SYS_fsopen, &[c"tmpfs".as_ptr() as u64, 0]),
        "pivot_root" => call(libc::SYS_pivot_root, &[c"/".as_ptr() as u64, c"/".as_ptr() as u64]),
        "perf" => {
            // struct perf_event_attr: software, size 64, CPU clock, user space only.
            let attributes = [1 | (64 << 32), 0, 0, 0, 0, 0b110_0000, 0, 0_u64];
            call(libc::SYS_perf_event_open, &[attributes.as_ptr() as u64, 0, u64::MAX, u64::MAX, 0])
        }
        "bpf" => {
            // An array map of one entry: type 2, key 4, value 4, 1 entry.
            let attributes = [2 | (4 << 32), 4 | (1 << 32), 0, 0, 0, 0, 0, 0, 0_u64];
            call(libc::SYS_bpf, &[0, attributes.as_ptr() as u64, 72])
        }
        "personality" => call(libc::SYS_personality, &[0xffff_ffff]),
        "address_randomisation_off" => call(libc::SYS_personality, &[0x004_0000]),
        "become_dumpable" => call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as u64, 1]),
        "outlive_parent" => call(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, 0]),
        "another_filter" => call(libc::SYS_seccomp, &[2, 0, out]),
        "disable_time_stamps" => call(libc::SYS_prctl, &[libc::PR_SET_TSC as u64, 1]),
        "segment_base" => call(libc::SYS_arch_prctl, &[0x1003, out]),
        "local_descriptor_table" => call(libc::SYS_modify_ldt, &[0, out, 64]),
        "io_ports" => call(libc::SYS_iopl, &[0]),
        "kernel_log" => call(libc::SYS_syslog, &[10, 0, 0]),
        "kernel_name" => call(libc::SYS_uname, &[out]),
        "memory_of_machine" => call(libc::SYS_sysinfo, &[out]),
        // The three of System V only ask how much there is: a made one would outlive the probe.
        "shared_segment" => call(libc::SYS_shmctl, &[0, 14, out]),
        "message_queue" => call(libc::SYS_msgctl, &[0, 12, out]),
        "semaphores" => call(libc::SYS_semctl, &[0, 0, 19, out]),
        "posix_queue" => call(libc::SYS_mq_open, &[c"escape-probe".as_ptr() as u64, 0, 0, 0]),
        "landlock_ruleset" => call(libc::SYS_landlock_create_ruleset, &[0, 0, 1]),
        "clock_adjustment" => call(libc::SYS_adjtimex, &[out]),
        "timer" => {
            let mut id = [0_u32];
            call(libc::SYS_timer_create, &[1, 0, id.as_mut_ptr() as u64])
        }
        "membarrier" => call(libc::SYS_membarrier, &[0, 0, 0]),
        _ => return None,
    })
}

fn argument(text: &str, buffer: u64, parent: u64) -> u64 {
    match text {
        "pid" => std::process::id().into(),
        "tid" => call(libc::SYS_gettid, &[]).cast_unsigned(),
        "buffer" => buffer,
        "page" => crate::memory::page(),
        "max" => u64::MAX,
        "parent" => parent,
        _ => text.parse().unwrap(),
    }
}
