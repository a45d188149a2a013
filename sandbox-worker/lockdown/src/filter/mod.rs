//! Turns the tables of [`crate::policy`] into programs for the kernel.

use crate::policy::{ALLOW, Allowed, Check, ERRNO, Value, Width, errors};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The programs of one process, in the order in which they go on: the error tiers, then the one that kills.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) errno: Vec<BpfProgram>,
    pub(crate) kill: BpfProgram,
}

/// Compiles the tables for the process `pid`.
pub(crate) fn programs(pid: u32) -> Result<Programs, BackendError> {
    Ok(Programs {
        errno: errors().map(errno_program).collect::<Result<_, _>>()?,
        kill: kill_program(ALLOW, pid)?,
    })
}

fn errno_program(errno: i32) -> Result<BpfProgram, BackendError> {
    let rules = ERRNO.iter().filter(|r| r.errno.1 == errno).map(|r| (r.number, Vec::new())).collect();
    let fail = SeccompAction::Errno(errno.unsigned_abs());
    // What is not listed here is left to the filter that kills: the kernel takes the strictest verdict.
    SeccompFilter::new(rules, SeccompAction::Allow, fail, TargetArch::x86_64)?.try_into()
}

fn kill_program(table: &[Allowed], pid: u32) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for a in table {
        let alternatives = a
            .when
            .iter()
            .map(|all| SeccompRule::new(all.iter().map(|c| condition(c, pid)).collect::<Result<_, _>>()?))
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(a.number, alternatives);
    }
    // A call of the error tier has to pass here, since a kill outranks an error.
    for r in ERRNO {
        rules.insert(r.number, Vec::new());
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

fn condition(c: &Check, pid: u32) -> Result<SeccompCondition, BackendError> {
    let width = match c.width {
        Width::Int => SeccompCmpArgLen::Dword,
        Width::Long => SeccompCmpArgLen::Qword,
    };
    let value = match c.value {
        Value::Fixed(v) => v,
        Value::OwnPid => u64::from(pid),
    };
    SeccompCondition::new(c.argument, width, SeccompCmpOp::MaskedEq(c.mask), value)
}

#[cfg(test)]
mod evaluator;
#[cfg(test)]
mod tests;
