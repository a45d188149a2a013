//! The system calls that have no safe wrapper, each with one. No policy here.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

/// The three sets of `capset`: effective, permitted, inheritable, low and high words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct CapabilityWord {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn landlock_abi() -> io::Result<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: a null attribute of size 0 with this flag only asks for the version.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    Ok(u32::try_from(check(abi)?).unwrap_or(u32::MAX))
}

pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: closes descriptors; the caller owns those from `first` on and uses none of them again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0_u32) }).map(drop)
}

pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: asks for a flag; an unopened number is an error and nothing else.
    (unsafe { libc::fcntl(fd, libc::F_GETFD) }) >= 0
}

/// Opens and closes `path` for reading.
pub(crate) fn try_open(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends in NUL; the descriptor is closed below and goes nowhere else.
    let fd = unsafe {
        libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
    };
    check(fd.into())?;
    // SAFETY: opened above.
    check(unsafe { libc::close(fd) }.into()).map(drop)
}

pub(crate) fn parent() -> u32 {
    // SAFETY: has no effect and cannot fail.
    unsafe { libc::getppid() }.unsigned_abs()
}

pub(crate) fn ids() -> io::Result<([u32; 3], [u32; 3])> {
    let (mut user, mut group) = ([0; 3], [0; 3]);
    let [r, e, s] = &mut user;
    // SAFETY: three places to write to.
    check(unsafe { libc::getresuid(r, e, s) }.into())?;
    let [r, e, s] = &mut group;
    // SAFETY: three places to write to.
    check(unsafe { libc::getresgid(r, e, s) }.into())?;
    Ok((user, group))
}

pub(crate) fn set_user(id: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresuid(id, id, id) }.into()).map(drop)
}

pub(crate) fn set_group(id: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresgid(id, id, id) }.into()).map(drop)
}

pub(crate) fn clear_groups() -> io::Result<()> {
    // SAFETY: no group is read from the null list, as its length is 0.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }.into()).map(drop)
}

pub(crate) fn group_count() -> io::Result<usize> {
    // SAFETY: a length of 0 only asks how many there are.
    let n = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) }.into())?;
    Ok(usize::try_from(n).unwrap_or(usize::MAX))
}

pub(crate) fn set_capabilities(words: [CapabilityWord; 2]) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: version 3 reads two words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) }).map(drop)
}

pub(crate) fn capabilities() -> io::Result<[CapabilityWord; 2]> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: version 3 writes two words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    Ok(words)
}

/// `prctl` with numbers only.
pub(crate) fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: the options used here (dumpable, death signal, capabilities, no_new_privs, seccomp) read numbers, no pointer.
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `prctl(PR_CAP_AMBIENT)`.
pub(crate) fn ambient(operation: libc::c_int, capability: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: reads numbers, no pointer.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::c_long::from(operation), capability, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The signal that this process gets when its parent ends; 0 is none.
pub(crate) fn death_signal() -> io::Result<libc::c_int> {
    let mut signal: libc::c_int = 0;
    // SAFETY: a place to write an int to.
    let result = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(signal) }
}

/// Soft and hard limit.
pub(crate) fn limit(resource: u32) -> io::Result<(u64, u64)> {
    // No limit can look like this, so that one which was not written is told apart.
    let mut limit = libc::rlimit { rlim_cur: u64::MAX, rlim_max: 0 };
    // SAFETY: a place to write the limit to.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) }.into())?;
    if limit.rlim_cur > limit.rlim_max {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads the limit.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}

/// Whether the C library's environment holds nothing.
pub(crate) fn environment_is_empty() -> bool {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: called while there is one thread (see `enter`), so nobody changes the list meanwhile.
    unsafe { environ.is_null() || (*environ).is_null() }
}

pub(crate) fn clear_environment() -> io::Result<()> {
    // SAFETY: called while there is one thread, so nobody reads the list meanwhile.
    if unsafe { libc::clearenv() } == 0 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::OutOfMemory)) }
}

/// Whether seccomp knows `action`.
pub(crate) fn seccomp_knows(action: u32) -> io::Result<()> {
    // SAFETY: reads one number.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0_u32, &raw const action)
    })
    .map(drop)
}
