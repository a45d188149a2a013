//! Landlock: every right the kernel knows is handled, and none is granted anywhere.
//!
//! Kernels differ in what they know. Each right that came after [`FLOOR`] has its stand-in here: the system calls through which
//! it would be used, none of which [`crate::policy`] allows. So a process is as closed under an old kernel as under a new one;
//! what the new one adds is a second lock.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The oldest Landlock that is accepted: Linux 5.13. Debian 12 has 2 (Linux 6.1).
pub const FLOOR: u32 = 1;

/// A right that Landlock takes away.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// Name as in the kernel's header, without `LANDLOCK_`.
    pub name: &'static str,
    /// Landlock ABI that brought it.
    pub abi: u32,
    /// Calls through which it would be used; none is in [`crate::policy::ALLOW`].
    pub calls: &'static [i64],
}

macro_rules! rights {
    ($($name:ident $abi:literal [$($call:ident)*];)*) => {
        &[$(Right { name: stringify!($name), abi: $abi, calls: &[$(libc::$call),*] }),*]
    };
}

/// Every right up to ABI 10 (Linux 7.2), and what stands in for it.
pub const RIGHTS: &[Right] = rights! {
    ACCESS_FS_EXECUTE 1 [SYS_execve SYS_execveat];
    ACCESS_FS_WRITE_FILE 1 [SYS_open SYS_openat SYS_openat2 SYS_creat];
    ACCESS_FS_READ_FILE 1 [SYS_open SYS_openat SYS_openat2];
    ACCESS_FS_READ_DIR 1 [SYS_open SYS_openat SYS_openat2 SYS_getdents SYS_getdents64];
    ACCESS_FS_REMOVE_DIR 1 [SYS_rmdir SYS_unlinkat];
    ACCESS_FS_REMOVE_FILE 1 [SYS_unlink SYS_unlinkat];
    ACCESS_FS_MAKE_CHAR 1 [SYS_mknod SYS_mknodat];
    ACCESS_FS_MAKE_DIR 1 [SYS_mkdir SYS_mkdirat];
    ACCESS_FS_MAKE_REG 1 [SYS_open SYS_openat SYS_openat2 SYS_creat SYS_mknod SYS_mknodat];
    ACCESS_FS_MAKE_SOCK 1 [SYS_bind SYS_mknod SYS_mknodat];
    ACCESS_FS_MAKE_FIFO 1 [SYS_mknod SYS_mknodat];
    ACCESS_FS_MAKE_BLOCK 1 [SYS_mknod SYS_mknodat];
    ACCESS_FS_MAKE_SYM 1 [SYS_symlink SYS_symlinkat];
    ACCESS_FS_REFER 2 [SYS_link SYS_linkat SYS_rename SYS_renameat SYS_renameat2];
    ACCESS_FS_TRUNCATE 3 [SYS_truncate SYS_ftruncate SYS_creat];
    ACCESS_NET_BIND_TCP 4 [SYS_socket SYS_bind];
    ACCESS_NET_CONNECT_TCP 4 [SYS_socket SYS_connect];
    ACCESS_FS_IOCTL_DEV 5 [SYS_ioctl];
    SCOPE_ABSTRACT_UNIX_SOCKET 6 [SYS_socket SYS_connect SYS_sendto SYS_sendmsg];
    SCOPE_SIGNAL 6 [SYS_kill SYS_tkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_pidfd_send_signal];
    ACCESS_FS_RESOLVE_UNIX 9 [SYS_socket SYS_connect SYS_sendto SYS_sendmsg];
    ACCESS_NET_BIND_UDP 10 [SYS_socket SYS_bind];
    ACCESS_NET_CONNECT_SEND_UDP 10 [SYS_socket SYS_connect SYS_sendto SYS_sendmsg SYS_sendmmsg];
};

/// Why Landlock is not on.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The kernel has no Landlock, or it is switched off.
    #[error("this kernel has no Landlock (or it is not among the kernel's `lsm=` modules)")]
    Absent(#[source] std::io::Error),
    /// Older than [`FLOOR`].
    #[error("this kernel's Landlock ABI is {0}, and {FLOOR} is the least")]
    BelowFloor(u32),
    /// A step of setting it up failed.
    #[error("Landlock was refused")]
    Refused(#[from] RulesetError),
    /// Not all of what was asked for is on.
    #[error("Landlock is only partly on")]
    Partial,
}

/// The ABI of this kernel's Landlock.
///
/// # Errors
/// There is none.
pub fn abi() -> Result<u32, RightsError> {
    let found = crate::kernel::landlock_abi().map_err(RightsError::Absent)?;
    if found < FLOOR { Err(RightsError::BelowFloor(found)) } else { Ok(found) }
}

/// Takes every right away from this thread, and returns the kernel's ABI.
pub(crate) fn restrict() -> Result<u32, RightsError> {
    let found = abi()?;
    let known = ABI::from(i32::try_from(found).unwrap_or(i32::MAX));
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(known))?;
    if known >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(known))?;
    }
    if known >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(known))?;
    }
    let status = ruleset.create()?.restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
        return Err(RightsError::Partial);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ALLOW;

    #[test]
    fn every_right_has_calls_that_stand_in_and_none_of_them_is_allowed() {
        for right in RIGHTS {
            assert!(!right.calls.is_empty(), "{} has no stand-in", right.name);
            for call in right.calls {
                assert!(
                    ALLOW.iter().all(|a| a.number != *call),
                    "call {call} is allowed and stands in for {}",
                    right.name
                );
            }
        }
    }
}
