//! The locks of a codec process: descriptors, environment, identity, limits, Landlock and seccomp.
//!
//! The codec process, single-threaded and before the first media byte, calls [`enter`]. The supervisor starts that process
//! with [`launch::Launch`], looks at it from outside with [`observe`], and feeds it only if [`verify`] has no objection.
//! Nothing here can be switched off: every step either holds or is an error, and an error means that no media is read.
//!
//! What is allowed is data, not code: [`policy`] holds every system call with its reason, [`rights`] every Landlock right with
//! the filter rule that stands in where a kernel lacks it. [`steps`] are the same locks one by one, so that tests can show each
//! to hold without the others. Depends on no other crate of this workspace.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!(
    "the lock policy is reviewed for x86_64 Linux with glibc only; another target needs tables of its own"
);

pub mod confine;
mod enter;
mod environment;
mod filter;
mod identity;
mod kernel;
pub mod launch;
mod limits;
mod observe;
pub mod policy;
pub mod rights;
mod status;
pub mod steps;
pub mod supervise;
mod support;

pub use enter::{Limits, LockError, Plan, Report, enter};
pub use identity::IdentityError;
pub use limits::LimitError;
pub use observe::{NotLocked, ObserveError, Observed, observe, verify};
pub use policy::digest as policy_digest;
pub use status::StatusError;
pub use support::{Finding, support};

/// Name of the lock profile that [`enter`] applies: every lock, none optional.
pub const PROFILE: &str = "strict";

/// User and group a codec process runs as where it is started by root: "nobody" and "nogroup" by convention
/// (`/proc/sys/kernel/overflowuid`).
pub const NOBODY: u32 = 65_534;
