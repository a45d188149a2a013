//! Probes that reach for other processes. Signal 0 only asks for permission, so the control harms nobody.

use crate::Given;
use crate::raw::{call, call_and_end_child};

pub(crate) fn run(probe: &str, given: &Given) -> Option<i64> {
    let parent = given.parent;
    let own = u64::from(std::process::id());
    let program = c"/bin/true".as_ptr() as u64;
    let list = [program, 0];
    let none = [0_u64];
    let mut buffer = [0_u64; 64];
    let out = buffer.as_mut_ptr() as u64;
    let chld = libc::SIGCHLD as u64;
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack…
    let clone_args = [0_u64, 0, 0, 0, chld, 0, 0, 0];
    Some(match probe {
        "execve" => call(libc::SYS_execve, &[program, list.as_ptr() as u64, none.as_ptr() as u64]),
        "execveat" => call(
            libc::SYS_execveat,
            &[libc::AT_FDCWD as u64, program, list.as_ptr() as u64, none.as_ptr() as u64, 0],
        ),
        "fork" => call_and_end_child(libc::SYS_fork, 0, 0),
        "vfork" => call_and_end_child(libc::SYS_vfork, 0, 0),
        "clone_process" => call_and_end_child(libc::SYS_clone, chld, 0),
        "clone_into_user_namespace" => {
            call_and_end_child(libc::SYS_clone, chld | libc::CLONE_NEWUSER as u64, 0)
        }
        "clone_sharing_memory" => {
            call_and_end_child(libc::SYS_clone, (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | chld, 0)
        }
        "clone3" => call_and_end_child(libc::SYS_clone3, clone_args.as_ptr() as u64, 64),
        "trace_me" => call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME.into(), 0, 0, 0]),
        "trace_parent" => call(libc::SYS_ptrace, &[0x4206, parent, 0, 0]),
        "read_parents_memory" => {
            let here = [out, 8];
            let there = [given.number(0), 8];
            call(libc::SYS_process_vm_readv, &[parent, here.as_ptr() as u64, 1, there.as_ptr() as u64, 1, 0])
        }
        "write_own_memory_from_outside" => {
            let (here, there) = ([out, 8], [out + 64, 8]);
            call(libc::SYS_process_vm_writev, &[own, here.as_ptr() as u64, 1, there.as_ptr() as u64, 1, 0])
        }
        "pidfd_of_parent" => call(libc::SYS_pidfd_open, &[parent, 0]),
        "steal_parents_descriptor" => match call(libc::SYS_pidfd_open, &[parent, 0]) {
            pidfd if pidfd >= 0 => call(libc::SYS_pidfd_getfd, &[pidfd.cast_unsigned(), 0, 0]),
            error => error,
        },
        "signal_by_pidfd" => match call(libc::SYS_pidfd_open, &[parent, 0]) {
            pidfd if pidfd >= 0 => call(libc::SYS_pidfd_send_signal, &[pidfd.cast_unsigned(), 0, 0, 0]),
            error => error,
        },
        "compare_with_parent" => call(libc::SYS_kcmp, &[own, parent, 2, 0, 0]),
        "signal_parent" => call(libc::SYS_kill, &[parent, 0]),
        "signal_init" => call(libc::SYS_kill, &[1, 0]),
        "signal_everyone" => call(libc::SYS_kill, &[u64::MAX, 0]),
        "signal_itself" => call(libc::SYS_kill, &[own, 0]),
        "tkill" => call(libc::SYS_tkill, &[own, 0]),
        "tgkill_parent" => call(libc::SYS_tgkill, &[parent, parent, 0]),
        "queue_signal" => {
            // struct siginfo: signal, error, code; a negative code says that it was queued.
            let mut info = [0_u64; 16];
            info[1] = 0xffff_ffff;
            call(libc::SYS_rt_sigqueueinfo, &[parent, 0, info.as_ptr() as u64])
        }
        "getppid" => call(libc::SYS_getppid, &[]),
        "wait" => call(libc::SYS_wait4, &[u64::MAX, 0, libc::WNOHANG as u64, 0]),
        "set_session" => call(libc::SYS_setsid, &[]),
        "set_group" => call(libc::SYS_setpgid, &[0, 0]),
        "limits_of_parent" => call(libc::SYS_prlimit64, &[parent, libc::RLIMIT_CORE.into(), 0, out]),
        "raise_limit" => {
            let unlimited = [u64::MAX, u64::MAX];
            call(libc::SYS_setrlimit, &[libc::RLIMIT_CORE.into(), unlimited.as_ptr() as u64])
        }
        "real_time_priority" => {
            let priority = [1_u32];
            call(libc::SYS_sched_setscheduler, &[0, libc::SCHED_FIFO as u64, priority.as_ptr() as u64])
        }
        "scheduling_attributes" => call(libc::SYS_sched_getattr, &[0, out, 56, 0]),
        "priority" => call(libc::SYS_setpriority, &[0, 0, 5]),
        "io_priority" => call(libc::SYS_ioprio_set, &[1, 0, 7 | (2 << 13)]),
        "affinity" => {
            let first = [1_u64];
            call(libc::SYS_sched_setaffinity, &[0, 8, first.as_ptr() as u64])
        }
        "change_user" => call(libc::SYS_setresuid, &[0, 0, 0]),
        "change_group" => call(libc::SYS_setresgid, &[0, 0, 0]),
        "change_groups" => call(libc::SYS_setgroups, &[0, 0]),
        "capabilities" => {
            let header = [0x2008_0522_u64];
            call(libc::SYS_capget, &[header.as_ptr() as u64, out])
        }
        "umask" => call(libc::SYS_umask, &[0o777]),
        _ => return None,
    })
}
