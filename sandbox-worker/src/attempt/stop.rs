//! Why an attempt ends before its codec is done.

use crate::broker::CallError;
use mpegflow_protocol::failure::{Failure, FailureCode};

/// The first of these decides how an attempt ends; whichever it is, the codec is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It failed; the broker is told why.
    Fail(Failure),
    /// The lease is over; the broker is told nothing.
    LeaseLost,
    /// The job was canceled; the task is released.
    Canceled,
    /// This worker is going away; the task is released.
    Drained,
    /// This worker stops at once; nobody is told.
    Aborted,
}

impl Stop {
    /// A failure.
    pub fn fail(code: FailureCode, message: impl AsRef<str>) -> Self {
        Self::Fail(Failure::new(code, message))
    }

    /// The codec did what no honest codec does.
    pub fn violation(message: impl AsRef<str>) -> Self {
        Self::fail(FailureCode::ProtocolViolation, message)
    }

    /// What a failed call for `what` means for the attempt, once it is not tried again.
    pub fn of_call(error: &CallError, what: &str) -> Self {
        let code = match error {
            // With the identity goes the attempt: its capability is bound to it.
            CallError::LeaseLost | CallError::UnknownIdentity => return Self::LeaseLost,
            CallError::Changed(_) => FailureCode::InputChanged,
            CallError::StorageFull => FailureCode::StorageFull,
            CallError::Unavailable(_) => FailureCode::StorageError,
            CallError::Refused { .. } | CallError::Malformed(_) => FailureCode::BrokerError,
        };
        Self::fail(code, format!("{what}: {error}"))
    }
}
