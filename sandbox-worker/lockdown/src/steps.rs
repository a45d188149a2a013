//! Single locks, for tests that show one to hold without the others, and for programs that look for what a lock breaks. A codec
//! process calls [`crate::enter`], which applies all of them.

use crate::enter::LockError;
use crate::filter::programs;
use crate::kernel;
use std::os::fd::RawFd;

/// Landlock alone. Returns the kernel's ABI.
///
/// # Errors
/// It is not fully on.
pub fn landlock() -> Result<u32, LockError> {
    Ok(crate::rights::restrict()?)
}

/// The system-call filters alone (and no_new_privs, without which the kernel takes none).
///
/// # Errors
/// The filter that is not on.
pub fn seccomp() -> Result<(), LockError> {
    let programs = programs(std::process::id()).map_err(LockError::Compile)?;
    for program in &programs.errno {
        seccompiler::apply_filter(program).map_err(|source| LockError::Filter { which: "error", source })?;
    }
    // The last moment at which the kernel can be asked.
    if kernel::prctl(libc::PR_GET_SECCOMP, 0).ok() != Some(libc::SECCOMP_MODE_FILTER.cast_signed()) {
        return Err(LockError::Unchanged("the seccomp mode"));
    }
    seccompiler::apply_filter(&programs.kill).map_err(|source| LockError::Filter { which: "kill", source })
}

/// Asks to be killed when `parent` ends, and makes sure that it had not ended before.
pub(crate) fn end_with_parent(parent: u32) -> Result<(), LockError> {
    kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.unsigned_abs().into())
        .map_err(LockError::DeathSignal)?;
    if kernel::death_signal().map_err(LockError::DeathSignal)? != libc::SIGKILL {
        return Err(LockError::Unchanged("the death signal"));
    }
    crate::environment::parent_is(parent)
}

/// Makes the process undumpable, which also keeps processes of the same user from tracing it.
pub(crate) fn forbid_dumps() -> Result<bool, LockError> {
    kernel::prctl(libc::PR_SET_DUMPABLE, 0).map_err(LockError::Dumpable)?;
    match kernel::prctl(libc::PR_GET_DUMPABLE, 0).map_err(LockError::Dumpable)? {
        0 => Ok(true),
        _ => Err(LockError::Unchanged("the dumpable flag")),
    }
}

/// Sets no_new_privs.
pub(crate) fn forbid_new_privileges() -> Result<(), LockError> {
    kernel::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(LockError::NoNewPrivs)?;
    match kernel::prctl(libc::PR_GET_NO_NEW_PRIVS, 0).map_err(LockError::NoNewPrivs)? {
        1 => Ok(()),
        _ => Err(LockError::Unchanged("no_new_privs")),
    }
}

/// Numbers that are looked at above the first free one, to see that the close was one.
const BEYOND: RawFd = 1024;

/// Counts the open descriptors below `first_free`, and refuses any above.
pub(crate) fn open_descriptors(first_free: RawFd) -> Result<u32, LockError> {
    if let Some(open) = (first_free..first_free.saturating_add(BEYOND)).find(|fd| kernel::is_open(*fd)) {
        return Err(LockError::StillOpen(open));
    }
    let open = (0..first_free).filter(|fd| kernel::is_open(*fd)).count();
    Ok(u32::try_from(open).unwrap_or(u32::MAX))
}
