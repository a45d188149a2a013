//! What the end of a codec process means.

use crate::attempt::control::Ended;
use mpegflow_lockdown::supervise::Exit;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::TaskResult;
use std::os::unix::process::ExitStatusExt;

/// Linux signal numbers (x86-64 and aarch64 agree on these); std names none.
mod signal {
    pub(super) const ILL: i32 = 4;
    pub(super) const ABRT: i32 = 6;
    pub(super) const BUS: i32 = 7;
    pub(super) const FPE: i32 = 8;
    pub(super) const KILL: i32 = 9;
    pub(super) const SEGV: i32 = 11;
    pub(super) const XCPU: i32 = 24;
    pub(super) const XFSZ: i32 = 25;
    pub(super) const SYS: i32 = 31;
}

/// What else is known of a process that ended.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Its CPU limit in seconds.
    pub cpu_limit: u64,
    /// Whether its log says that an allocation failed.
    pub allocation_failed: bool,
    /// The last line of its log.
    pub last_words: &'a str,
}

/// Decides what a process that ended by itself, or by a hand that was not ours, amounts to.
///
/// # Errors
/// The failure, with the class that its signal means.
pub fn classify(exit: &Exit, ended: Ended, known: Circumstances<'_>) -> Result<TaskResult, Failure> {
    if let Some(failure) = signal_failure(exit, known) {
        return Err(failure);
    }
    match (exit.status.code(), ended) {
        (Some(0), Ended::Done(result)) => Ok(*result),
        (Some(0), Ended::Silent) => {
            Err(Failure::new(FailureCode::ProtocolViolation, "the codec process ended well without a result"))
        }
        (code, Ended::Done(_) | Ended::Silent) => Err(Failure::new(
            FailureCode::CodecCrashed,
            with_words(&format!("the codec process ended with code {}", code.unwrap_or(-1)), known),
        )),
    }
}

/// What a signal means where one ended the process. Even an end that we brought about is looked at: a process that had
/// died of SIGSYS before our SIGKILL came violated its locks, whatever else it did.
pub fn signal_failure(exit: &Exit, known: Circumstances<'_>) -> Option<Failure> {
    let signal = exit.status.signal()?;
    let (code, what) = match signal {
        signal::SYS => {
            (FailureCode::LockViolation, "the codec process made a system call that its locks forbid")
        }
        signal::XCPU => (FailureCode::DeadlineExceeded, "the codec process used up its CPU time"),
        // The kernel sends SIGKILL, not SIGXCPU, at the hard limit.
        signal::KILL if exit.cpu.as_secs() >= known.cpu_limit => {
            (FailureCode::DeadlineExceeded, "the codec process used up its CPU time")
        }
        signal::XFSZ => (FailureCode::ResourceLimit, "the codec process wrote more than its output may have"),
        signal::ABRT if known.allocation_failed => {
            (FailureCode::OutOfMemory, "the codec process ran out of its memory")
        }
        signal::ABRT | signal::SEGV | signal::BUS | signal::ILL | signal::FPE => {
            (FailureCode::CodecCrashed, "the codec process crashed")
        }
        _ => (FailureCode::CodecKilled, "the codec process was killed from outside"),
    };
    let what = format!("{what} (signal {signal})");
    let what = if code == FailureCode::CodecCrashed { with_words(&what, known) } else { what };
    Some(Failure::new(code, what))
}

/// Whether the process had violated its locks before anybody killed it.
pub fn violated_locks(exit: &Exit) -> bool {
    exit.status.signal() == Some(signal::SYS)
}

fn with_words(what: &str, known: Circumstances<'_>) -> String {
    if known.last_words.is_empty() {
        what.into()
    } else {
        format!("{what}; its last words: {}", known.last_words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::task::CheckResult;
    use std::process::ExitStatus;
    use std::time::Duration;

    fn code_of(raw: i32, ended: Ended, cpu_s: u64, allocation_failed: bool) -> Result<(), FailureCode> {
        let exit =
            Exit { status: ExitStatus::from_raw(raw), cpu: Duration::from_secs(cpu_s), peak_memory: 0 };
        let known = Circumstances { cpu_limit: 100, allocation_failed, last_words: "" };
        classify(&exit, ended, known).map(|_| ()).map_err(|f| f.code)
    }

    fn done() -> Ended {
        Ended::Done(Box::new(TaskResult::Check(CheckResult { problems: vec![], tracks: vec![] })))
    }

    #[test]
    fn every_way_to_end_has_its_class() {
        use FailureCode::*;
        let exited = |code: i32| code << 8;
        assert_eq!(code_of(exited(0), done(), 0, false), Ok(()));
        for (raw, ended, cpu, oom, code) in [
            (exited(0), Ended::Silent, 0, false, ProtocolViolation),
            (exited(1), Ended::Silent, 0, false, CodecCrashed),
            (exited(1), done(), 0, false, CodecCrashed),
            (31, done(), 0, false, LockViolation),
            (31, Ended::Silent, 0, true, LockViolation),
            (11, done(), 0, false, CodecCrashed),
            (11 | 0x80, Ended::Silent, 0, false, CodecCrashed),
            (6, Ended::Silent, 0, false, CodecCrashed),
            (6, Ended::Silent, 0, true, OutOfMemory),
            (7, Ended::Silent, 0, false, CodecCrashed),
            (4, Ended::Silent, 0, false, CodecCrashed),
            (8, Ended::Silent, 0, false, CodecCrashed),
            (9, Ended::Silent, 0, false, CodecKilled),
            (9, Ended::Silent, 100, false, DeadlineExceeded),
            (15, done(), 0, false, CodecKilled),
            (24, Ended::Silent, 0, false, DeadlineExceeded),
            (25, Ended::Silent, 0, false, ResourceLimit),
        ] {
            assert_eq!(code_of(raw, ended.clone(), cpu, oom), Err(code), "{raw} {ended:?} {cpu} {oom}");
        }
    }
}
