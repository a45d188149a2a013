//! Outputs: append-only, each on a descriptor of its own.

use crate::ff::fds::{self, Descriptor};
use mpegflow_protocol::codec::FIRST_OUTPUT_FD;
use mpegflow_protocol::failure::{Failure, FailureCode};
use std::io::Write;

/// One output and what has been written to it. A seekable output is only appended to as well.
pub(crate) struct Output {
    file: Descriptor,
    written: u64,
}

impl Output {
    /// Output `number`.
    fn take(number: u32) -> Self {
        let fd = FIRST_OUTPUT_FD.saturating_add(i32::try_from(number).unwrap_or(i32::MAX));
        Self { file: fds::take(fd), written: 0 }
    }

    /// Appends.
    ///
    /// # Errors
    /// [`FailureCode::WorkerError`]: the supervisor does not take it.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| {
            Failure::new(FailureCode::WorkerError, format!("an output could not be written: {e}"))
        })?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Bytes written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

/// All outputs, each to be taken once.
pub(crate) struct Outputs(Vec<Option<Output>>);

impl Outputs {
    /// The first `count` outputs.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|n| u32::try_from(n).ok().map(Output::take)).collect())
    }

    /// Takes output `number`.
    ///
    /// # Errors
    /// [`FailureCode::WorkerError`] for one that is not there or was taken: the plan names it twice.
    pub(crate) fn take(&mut self, number: u32) -> Result<Output, Failure> {
        let slot = usize::try_from(number).ok().and_then(|n| self.0.get_mut(n));
        slot.and_then(Option::take).ok_or_else(|| {
            Failure::new(FailureCode::WorkerError, format!("the plan has no free output {number}"))
        })
    }
}
