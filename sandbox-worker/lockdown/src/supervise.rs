//! What a supervisor asks of the kernel around a codec process, behind safe functions: kill without hitting a stranger, reap
//! with the kernel's own count of what was used, a larger pipe, and the supervisor's own first hardening.
#![allow(unsafe_code, reason = "waitid, wait4, kill, prctl, setrlimit and fcntl have no safe form in std")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A child that may be killed from any thread at any time, and is reaped by exactly one.
///
/// A process id is free for reuse from the moment of the reaping, so killing and reaping exclude each other.
#[derive(Debug)]
pub struct Supervised {
    pid: libc::pid_t,
    reaped: Mutex<bool>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// CPU time, user and system, of it and the children it reaped.
    pub cpu: Duration,
    /// Peak resident memory in bytes.
    pub peak_memory: u64,
}

impl Supervised {
    /// Takes over a child from std. Its own `wait` and `kill` must not be used again, so the handle goes.
    pub fn adopt(child: std::process::Child) -> Self {
        Self { pid: child.id().cast_signed(), reaped: Mutex::new(false) }
    }

    /// The process id; valid until [`Supervised::wait`] has returned.
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Kills it with SIGKILL, and its process group where it leads one. Does nothing once it was reaped.
    pub fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            self.kill_locked();
        }
    }

    fn kill_locked(&self) {
        // SAFETY: plain system calls; the pid is ours until it is reaped, which the caller's lock excludes. The group is
        // signalled only where the child leads it, so it can never be the supervisor's own.
        unsafe {
            if libc::getpgid(self.pid) == self.pid {
                libc::kill(self.pid.wrapping_neg(), libc::SIGKILL);
            }
            libc::kill(self.pid, libc::SIGKILL);
        }
    }

    /// Blocks until the child has ended, kills what is left of its process group, and reaps it.
    ///
    /// # Errors
    /// The error of the system call: `ECHILD` where somebody else reaped it.
    pub fn wait(&self) -> io::Result<Exit> {
        loop {
            // SAFETY: the structure is valid for writes and all its bit patterns are valid; WNOWAIT leaves the zombie there.
            let rc = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(
                    libc::P_PID,
                    self.pid.cast_unsigned(),
                    &raw mut info,
                    libc::WEXITED | libc::WNOWAIT,
                )
            };
            if rc == 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        self.kill_locked();
        let mut status = 0;
        // SAFETY: both out-pointers are valid for writes and `rusage` is plain data.
        let (rc, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(self.pid, &raw mut status, 0, &raw mut usage), usage)
        };
        *reaped = true;
        if rc != self.pid {
            return Err(io::Error::last_os_error());
        }
        Ok(Exit {
            status: ExitStatus::from_raw(status),
            cpu: duration(usage.ru_utime).saturating_add(duration(usage.ru_stime)),
            peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
        })
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)).saturating_add(Duration::from_micros(micros))
}

/// Asks for a pipe of `size` bytes; the kernel rounds up and caps it (`fs.pipe-max-size`). Best effort.
pub fn enlarge_pipe(pipe: BorrowedFd<'_>, size: i32) {
    // SAFETY: a plain system call on a descriptor that is borrowed, so open.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
}

/// Hardens the calling process, which must still be single-threaded: no_new_privs, no core file, not dumpable (so that
/// nothing of the same user id reads its key by `/proc/PID/mem` or ptrace).
///
/// # Errors
/// The first step that the kernel refused.
pub fn harden() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls; the one pointer is to a live structure.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0),
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none),
        ]
    };
    if results.iter().any(|rc| *rc != 0) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_killed_child_is_reaped_once_with_its_usage() {
        let child = Supervised::adopt(Command::new("/bin/sleep").arg("60").spawn().unwrap());
        child.kill();
        let exit = child.wait().unwrap();
        assert_eq!(exit.status.signal(), Some(libc::SIGKILL));
        assert!(exit.peak_memory > 0);
        child.kill();
        assert!(child.wait().is_err());
    }
}
