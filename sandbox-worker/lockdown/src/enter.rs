//! All locks, in the one order in which they work. Each state below has one method, which consumes it and gives the next, so a
//! step can be neither left out nor moved.

use crate::identity::{IdentityError, drop_privileges};
use crate::limits::LimitError;
use crate::rights::RightsError;
use crate::{environment, kernel, limits, rights, steps};
use std::ffi::CStr;
use std::io;

/// What the locks need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Process id of the supervisor. This process ends when its parent does.
    pub parent: u32,
    /// Every descriptor from here on is closed, and no new one can be opened.
    pub first_free_fd: i32,
    /// Kernel limits.
    pub limits: Limits,
}

/// Kernel limits that differ by task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_AS in bytes.
    pub address_space: u64,
    /// RLIMIT_CPU in seconds.
    pub cpu_seconds: u64,
    /// RLIMIT_FSIZE in bytes; 0 where no output is a file.
    pub file_size: u64,
}

/// Facts that cannot be seen from outside, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Landlock ABI of the kernel.
    pub landlock_abi: u32,
    /// An open that worked before Landlock failed with EACCES after it, before any system-call filter.
    pub landlock_refused_open: bool,
    /// Descriptors that are open.
    pub open_fds: u32,
    /// The kernel says that this process is not dumpable.
    pub not_dumpable: bool,
    /// No environment came with exec, and none was made since.
    pub environment_empty: bool,
}

/// The step that failed. Whoever gets this reads no media.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The supervisor is gone, or this process was started by another.
    #[error("the parent is process {found}, not {expected}")]
    Parent {
        /// As planned.
        expected: u32,
        /// As found.
        found: u32,
    },
    /// Threads could not be counted.
    #[error("counting threads in /proc/self/task")]
    Threads(#[source] io::Error),
    /// Other threads would stay unlocked.
    #[error("{0} threads are running; the locks go on while there is one")]
    NotAlone(usize),
    /// The environment could not be read or cleared.
    #[error("reading and clearing the environment")]
    Environment(#[source] io::Error),
    /// The launcher passed an environment.
    #[error("the process was started with an environment")]
    EnvironmentNotEmpty,
    /// The plan's first free descriptor is below the standard three.
    #[error("{0} is no first free descriptor")]
    FirstFree(i32),
    /// Descriptors could not be closed.
    #[error("closing the descriptors from {0} on")]
    Close(i32, #[source] io::Error),
    /// A descriptor is open that was to be closed.
    #[error("descriptor {0} is still open")]
    StillOpen(i32),
    /// User, group or capabilities.
    #[error("giving up privileges")]
    Identity(#[from] IdentityError),
    /// A kernel limit.
    #[error("setting a limit")]
    Limit(#[from] LimitError),
    /// The death signal.
    #[error("asking to end with the parent")]
    DeathSignal(#[source] io::Error),
    /// Dumpable.
    #[error("forbidding dumps and tracing")]
    Dumpable(#[source] io::Error),
    /// no_new_privs.
    #[error("forbidding new privileges")]
    NoNewPrivs(#[source] io::Error),
    /// The kernel reported success and did nothing.
    #[error("{0} did not change although the kernel reported success")]
    Unchanged(&'static str),
    /// Landlock.
    #[error("restricting files and network")]
    Landlock(#[from] RightsError),
    /// No path could be opened before Landlock, so a refusal after it would show nothing.
    #[error("nothing could be opened even before Landlock, so it cannot be shown to hold")]
    NoControl,
    /// A path could be opened, or failed for another reason, after Landlock.
    #[error("opening {path} after Landlock was not refused with EACCES ({outcome})")]
    NotRefused {
        /// The path.
        path: &'static str,
        /// What happened.
        outcome: String,
    },
    /// The filters could not be compiled.
    #[error("compiling the system-call filters")]
    Compile(#[source] seccompiler::BackendError),
    /// A filter was refused.
    #[error("installing the {which} filter")]
    Filter {
        /// Which.
        which: &'static str,
        /// Why.
        #[source]
        source: seccompiler::Error,
    },
}

/// Locks this process. To be called once, with one thread, before anything untrusted is read; there is no way back.
///
/// # Errors
/// The step that failed. Some locks may be on by then; the process is of no use and has to end.
pub fn enter(plan: &Plan) -> Result<Report, LockError> {
    Unlocked::check(*plan)?.close()?.drop_privileges()?.limit()?.bind()?.restrict()?.settle()?.filter()
}

/// Nothing is locked, and the process is fit to be.
struct Unlocked {
    plan: Plan,
    environment_empty: bool,
}

/// Only what was handed over is open.
struct Closed(Unlocked);

/// No user, group or capability is left to use.
struct Unprivileged(Unlocked);

/// The kernel limits are on, but for the number of descriptors.
struct Limited(Unlocked);

/// Ends with the parent, cannot be traced or dumped, gains no privilege by exec.
struct Bound {
    before: Unlocked,
    not_dumpable: bool,
}

/// Landlock is on and was seen to refuse.
struct Restricted {
    before: Bound,
    landlock_abi: u32,
    landlock_refused_open: bool,
}

/// Nothing is left to do but the filters.
struct Settled(Report);

impl Unlocked {
    fn check(plan: Plan) -> Result<Self, LockError> {
        if plan.first_free_fd < 3 {
            return Err(LockError::FirstFree(plan.first_free_fd));
        }
        environment::parent_is(plan.parent)?;
        // Before the process becomes undumpable: its files in /proc then belong to root.
        environment::alone()?;
        let environment_empty = environment::no_environment()?;
        Ok(Self { plan, environment_empty })
    }

    fn close(self) -> Result<Closed, LockError> {
        let first = self.plan.first_free_fd;
        kernel::close_from(first).map_err(|e| LockError::Close(first, e))?;
        Ok(Closed(self))
    }
}

impl Closed {
    fn drop_privileges(self) -> Result<Unprivileged, LockError> {
        drop_privileges()?;
        Ok(Unprivileged(self.0))
    }
}

impl Unprivileged {
    fn limit(self) -> Result<Limited, LockError> {
        limits::all_but_descriptors(&self.0.plan)?;
        Ok(Limited(self.0))
    }
}

impl Limited {
    /// After the change of user, which resets the death signal and makes the process dumpable.
    fn bind(self) -> Result<Bound, LockError> {
        steps::end_with_parent(self.0.plan.parent)?;
        let not_dumpable = steps::forbid_dumps()?;
        steps::forbid_new_privileges()?;
        Ok(Bound { before: self.0, not_dumpable })
    }
}

/// Paths whose opening is tried before and after Landlock.
const TRIED: [(&CStr, &str); 3] = [(c"/", "/"), (c"/etc/passwd", "/etc/passwd"), (c"/dev/null", "/dev/null")];

impl Bound {
    fn restrict(self) -> Result<Restricted, LockError> {
        let opened: Vec<_> = TRIED.iter().filter(|(path, _)| kernel::try_open(path).is_ok()).collect();
        if opened.is_empty() {
            return Err(LockError::NoControl);
        }
        let landlock_abi = rights::restrict()?;
        for (path, name) in &opened {
            match kernel::try_open(path) {
                Err(e) if e.raw_os_error() == Some(libc::EACCES) => {}
                Err(e) => return Err(LockError::NotRefused { path: name, outcome: e.to_string() }),
                Ok(()) => {
                    return Err(LockError::NotRefused { path: name, outcome: String::from("it was opened") });
                }
            }
        }
        Ok(Restricted { before: self, landlock_abi, landlock_refused_open: true })
    }
}

impl Restricted {
    fn settle(self) -> Result<Settled, LockError> {
        let Bound { before, not_dumpable } = self.before;
        // Whatever the steps above opened.
        kernel::close_from(before.plan.first_free_fd)
            .map_err(|e| LockError::Close(before.plan.first_free_fd, e))?;
        let open_fds = steps::open_descriptors(before.plan.first_free_fd)?;
        limits::descriptors(&before.plan)?;
        Ok(Settled(Report {
            landlock_abi: self.landlock_abi,
            landlock_refused_open: self.landlock_refused_open,
            open_fds,
            not_dumpable,
            environment_empty: before.environment_empty,
        }))
    }
}

impl Settled {
    fn filter(self) -> Result<Report, LockError> {
        steps::seccomp()?;
        Ok(self.0)
    }
}
