//! The step between being told the limits and being fed: the locks.

use mpegflow_lockdown::{Limits, Plan};
use mpegflow_protocol::codec::{FIRST_OUTPUT_FD, Prepare};
use mpegflow_protocol::evidence::SelfReport;

/// Locks this process as `prepare` says.
///
/// # Errors
/// The step that failed; the process must then end without reading media.
pub(crate) fn enter(prepare: &Prepare) -> Result<SelfReport, String> {
    let outputs = i32::try_from(prepare.outputs).map_err(|e| e.to_string())?;
    let plan = Plan {
        parent: prepare.parent,
        first_free_fd: FIRST_OUTPUT_FD.saturating_add(outputs),
        limits: Limits {
            address_space: prepare.limits.address_space,
            cpu_seconds: prepare.limits.cpu_seconds,
            file_size: prepare.limits.file_size,
        },
    };
    let report = mpegflow_lockdown::enter(&plan).map_err(|e| e.to_string())?;
    Ok(SelfReport {
        landlock_abi: report.landlock_abi,
        landlock_refused_open: report.landlock_refused_open,
        open_fds: report.open_fds,
        not_dumpable: report.not_dumpable,
        environment_empty: report.environment_empty,
    })
}
