//! Evidence: which locks an attempt ran under, and who saw it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The locks of one codec process. Kept with the attempt and shown with the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Name of the lock profile; `strict` is the only one that needs no opt-in.
    pub profile: String,
    /// SHA-256 of the lock policy (system-call lists, argument checks, limits), hexadecimal.
    pub policy_digest: String,
    /// What the supervisor saw from outside, before the first media byte.
    pub observed: Observed,
    /// What the codec said of itself; it cannot be seen from outside.
    pub self_reported: SelfReport,
    /// What the process used in all, as the kernel counted it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Facts read from `/proc/PID/status` by the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// `Seccomp:` 2 is filter mode.
    pub seccomp_mode: u32,
    /// `Seccomp_filters:`.
    pub seccomp_filters: u32,
    /// `NoNewPrivs:`.
    pub no_new_privs: bool,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Union of all capability sets (inheritable, permitted, effective, bounding, ambient); 0 is none. The bounding set is
    /// left out where the supervisor itself may not drop it (not root).
    pub capabilities: u64,
    /// Threads at that moment; the locks went on while there was one.
    pub threads: u32,
}

/// Facts the codec reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfReport {
    /// Landlock ABI of the kernel; 0 where there is none.
    pub landlock_abi: u32,
    /// An open after Landlock and before the system-call filters was refused with EACCES.
    pub landlock_refused_open: bool,
    /// Descriptors open after the close: exactly those handed over.
    pub open_fds: u32,
    /// The process is not dumpable.
    pub not_dumpable: bool,
    /// The environment is empty.
    pub environment_empty: bool,
}

/// What a codec process used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Milliseconds from exec to exit.
    pub wall_ms: u64,
    /// Milliseconds of CPU, user and system.
    pub cpu_ms: u64,
    /// Peak resident memory in bytes.
    pub peak_memory: u64,
    /// Input bytes fed.
    pub bytes_in: u64,
    /// Output bytes taken.
    pub bytes_out: u64,
}
