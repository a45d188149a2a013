//! What a process finds around itself before it locks anything: its parent, its threads, its environment.

use crate::enter::LockError;
use crate::kernel;
use std::fs;

/// The process that started this one is still there, and is the one that the plan names.
pub(crate) fn parent_is(expected: u32) -> Result<(), LockError> {
    match kernel::parent() {
        found if found == expected && expected != 0 => Ok(()),
        found => Err(LockError::Parent { expected, found }),
    }
}

/// Landlock before ABI 8 and seccomp restrict the calling thread only: any other would stay free.
pub(crate) fn alone() -> Result<(), LockError> {
    let mut threads = 0_usize;
    for entry in fs::read_dir("/proc/self/task").map_err(LockError::Threads)? {
        // A listing that breaks off must not count as one thread.
        entry.map_err(LockError::Threads)?;
        threads = threads.saturating_add(1);
    }
    if threads == 1 { Ok(()) } else { Err(LockError::NotAlone(threads)) }
}

/// The kernel's copy of the environment that came with exec, which no later change clears, is empty; so is the C library's.
pub(crate) fn no_environment() -> Result<bool, LockError> {
    if !fs::read("/proc/self/environ").map_err(LockError::Environment)?.is_empty() {
        return Err(LockError::EnvironmentNotEmpty);
    }
    kernel::clear_environment().map_err(LockError::Environment)?;
    if kernel::environment_is_empty() { Ok(true) } else { Err(LockError::EnvironmentNotEmpty) }
}
