//! Applies the kernel limits of [`crate::policy::LIMITS`].

use crate::enter::Plan;
use crate::kernel;
use crate::policy::{CPU_GRACE, LIMITS, Limit, LimitValue};
use std::io;

/// A limit that is not on.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The kernel refused it.
    #[error("RLIMIT_{0}")]
    Refused(&'static str, #[source] io::Error),
    /// The kernel reported success and it is not there.
    #[error("RLIMIT_{0} did not change although the kernel reported success")]
    Unchanged(&'static str),
    /// The plan asks for no limit, or for one under which nothing can run.
    #[error("RLIMIT_{0} of {1} is no limit")]
    Senseless(&'static str, u64),
}

/// All limits but the number of descriptors: Landlock needs one more for a moment.
pub(crate) fn all_but_descriptors(plan: &Plan) -> Result<(), LimitError> {
    LIMITS.iter().filter(|l| l.value != LimitValue::HandedOver).try_for_each(|l| set(l, plan))
}

/// The number of descriptors.
pub(crate) fn descriptors(plan: &Plan) -> Result<(), LimitError> {
    LIMITS.iter().filter(|l| l.value == LimitValue::HandedOver).try_for_each(|l| set(l, plan))
}

fn set(rule: &Limit, plan: &Plan) -> Result<(), LimitError> {
    let wanted = match rule.value {
        LimitValue::Zero => (0, 0),
        LimitValue::AddressSpace => sensible(rule.name, plan.limits.address_space)?,
        LimitValue::CpuSeconds => {
            let (soft, hard) = sensible(rule.name, plan.limits.cpu_seconds)?;
            (soft, hard.saturating_add(CPU_GRACE))
        }
        LimitValue::FileSize if plan.limits.file_size == libc::RLIM_INFINITY => {
            return Err(LimitError::Senseless(rule.name, plan.limits.file_size));
        }
        LimitValue::FileSize => (plan.limits.file_size, plan.limits.file_size),
        LimitValue::HandedOver => {
            let n = u64::try_from(plan.first_free_fd).map_err(|_| LimitError::Senseless(rule.name, 0))?;
            (n, n)
        }
    };
    let refused = |e| LimitError::Refused(rule.name, e);
    // A limit that the machine holds lower already stays: it cannot be raised, and need not be.
    let (_, ceiling) = kernel::limit(rule.resource).map_err(refused)?;
    let (soft, hard) = (wanted.0.min(ceiling), wanted.1.min(ceiling));
    kernel::set_limit(rule.resource, soft, hard).map_err(refused)?;
    match kernel::limit(rule.resource).map_err(refused)? {
        now if now == (soft, hard) => Ok(()),
        _ => Err(LimitError::Unchanged(rule.name)),
    }
}

fn sensible(name: &'static str, value: u64) -> Result<(u64, u64), LimitError> {
    match value {
        0 | libc::RLIM_INFINITY => Err(LimitError::Senseless(name, value)),
        _ => Ok((value, value)),
    }
}
