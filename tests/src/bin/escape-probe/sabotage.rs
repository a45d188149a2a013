//! A kernel that refuses or lies, made of a filter that the program inherits.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Returns only if it failed.
pub(crate) fn become_program(arguments: Vec<String>) -> io::Error {
    let [call, first, errno, program, rest @ ..] = &arguments[..] else {
        return io::Error::other("sabotage CALL FIRST ERRNO PROGRAM [ARGUMENT]…");
    };
    let rules = match first.as_str() {
        "any" => vec![],
        value => {
            let value = value.parse().unwrap();
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
            vec![SeccompRule::new(vec![is]).unwrap()]
        }
    };
    let filter: BpfProgram = SeccompFilter::new(
        [(call.parse().unwrap(), rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.parse().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap()
    .try_into()
    .unwrap();
    let install = [filter.len() as u64, filter.as_ptr() as u64];
    // Not through seccompiler, which sets no_new_privs: that one is to be sabotaged too. Root may do without.
    let result = crate::raw::call(
        libc::SYS_seccomp,
        &[libc::SECCOMP_SET_MODE_FILTER.into(), 0, install.as_ptr() as u64],
    );
    if result != 0 {
        return io::Error::from_raw_os_error(i32::try_from(-result).unwrap());
    }
    Command::new(program).args(rest).exec()
}
