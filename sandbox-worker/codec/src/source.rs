//! Opening an input: one demuxer, chosen by content from the allowed set, under every cap.

use crate::decoders;
use crate::ff::demux::Demuxer;
use crate::ff::{AvError, log};
use crate::input::{Input, InputSocket};
use crate::{caps, sniff, truncated};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::DecoderSet;

/// Where the inputs are.
pub(crate) struct Inputs {
    socket: InputSocket,
    lengths: Vec<u64>,
}

impl Inputs {
    /// Inputs of these lengths behind the socket.
    pub(crate) fn new(socket: InputSocket, lengths: Vec<u64>) -> Self {
        Self { socket, lengths }
    }

    /// Input `number`, from its start. May be asked for more than once; each has its own position and its own blocks.
    ///
    /// # Errors
    /// [`FailureCode::WorkerError`] for one that is not there.
    pub(crate) fn get(&self, number: u32) -> Result<Input, Failure> {
        let len = usize::try_from(number).ok().and_then(|n| self.lengths.get(n));
        match (u8::try_from(number), len) {
            (Ok(n), Some(len)) => Ok(Input::new(self.socket.clone(), n, *len)),
            _ => Err(Failure::new(FailureCode::WorkerError, format!("the plan has no input {number}"))),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }
}

/// A tenant's file, opened.
pub(crate) struct Opened {
    pub(crate) demuxer: Demuxer,
    /// It is seen to be cut off, and that was allowed.
    pub(crate) cut: bool,
}

/// Opens a tenant's file; one that is cut off only where `partial` allows it.
///
/// # Errors
/// One documented failure for each way in which it is no recording, or not an allowed one.
pub(crate) fn open(inputs: &Inputs, number: u32, set: DecoderSet, partial: bool) -> Result<Opened, Failure> {
    let mut head = inputs.get(number)?;
    let format = sniff::choose(&mut head, set)?;
    let cut = truncated::says(format, &mut inputs.get(number)?.small_reads());
    let cut = match cut {
        Some(what) if !partial => return Err(Failure::new(FailureCode::InputTruncated, what)),
        Some(_) => true,
        None => false,
    };
    let mut demuxer = Demuxer::open(Box::new(inputs.get(number)?), format, &decoders::whitelist(set))
        .map_err(|e| open_failed(format, e))?;
    if let Err(e) = demuxer.find_stream_info() {
        return Err(if demuxer.read_failed() { storage() } else { open_failed(format, e) });
    }
    if demuxer.read_failed() {
        return Err(storage());
    }
    for index in 0..demuxer.stream_count() {
        if let Some(stream) = demuxer.stream(index) {
            caps::check_size(stream.width, stream.height)?;
        }
    }
    Ok(Opened { demuxer, cut })
}

/// Opens a track that another codec process made: MP4 and nothing else, with no decoder to probe with.
///
/// # Errors
/// [`FailureCode::OutputRejected`]: it is not what was planned.
pub(crate) fn open_track(inputs: &Inputs, number: u32) -> Result<Demuxer, Failure> {
    let input = inputs.get(number)?;
    Demuxer::open(Box::new(input), "mov", "none").map_err(|e| match e {
        AvError::IO => storage(),
        e => {
            Failure::new(FailureCode::OutputRejected, format!("track {number} is not a fragmented MP4: {e}"))
        }
    })
}

fn open_failed(format: &str, error: AvError) -> Failure {
    match error {
        AvError::IO => storage(),
        AvError::NO_MEMORY => Failure::new(
            FailureCode::ResourceLimit,
            format!("the {format} container asks for more memory or more streams than are given"),
        ),
        _ if log::refused_a_size() => caps::too_large("a picture"),
        e => {
            Failure::new(FailureCode::InputCorrupt, format!("the {format} container could not be read: {e}"))
        }
    }
}

/// The failure for an input that the supervisor cannot feed any more.
pub(crate) fn storage() -> Failure {
    Failure::new(FailureCode::StorageError, "the input could not be read")
}
