//! The control socket: frames in before the locks, frames out until the end.

use crate::ff::fds::Descriptor;
use mpegflow_protocol::codec::{FromCodec, HEADER_LEN, Progress, ToCodec, decode_header};
use mpegflow_protocol::telemetry::{Phase, PhaseTime};
use std::io::{self, Read, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Progress frames are at least this far apart.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The control socket.
pub(crate) struct Control {
    socket: Mutex<Descriptor>,
    last_progress: Mutex<Option<Instant>>,
    told: OnceLock<Instant>,
}

/// A phase that runs; the supervisor hears of it when this goes, however it ends.
pub(crate) struct Timed<'a> {
    control: &'a Control,
    phase: Phase,
    began: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let told = self.control.told.get().copied().unwrap_or(self.began);
        let time = PhaseTime {
            phase: self.phase,
            start_us: us(self.began.saturating_duration_since(told)),
            duration_us: us(self.began.elapsed()),
        };
        let _ = self.control.send(&FromCodec::Phase(time));
    }
}

impl Control {
    /// Takes the socket over.
    pub(crate) fn new(socket: Descriptor) -> Self {
        Self { socket: Mutex::new(socket), last_progress: Mutex::new(None), told: OnceLock::new() }
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// The socket's, or a frame that is none.
    pub(crate) fn receive(&self) -> io::Result<ToCodec> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut header = [0; HEADER_LEN];
        socket.read_exact(&mut header)?;
        let (kind, len) = decode_header(header).map_err(io::Error::other)?;
        let mut payload = vec![0; len];
        socket.read_exact(&mut payload)?;
        ToCodec::decode(kind, &payload).map_err(io::Error::other)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn send(&self, frame: &FromCodec) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.write_all(&frame.encode())
    }

    /// The task has been told: times of phases count from here.
    pub(crate) fn starts(&self) {
        self.told.get_or_init(Instant::now);
    }

    /// Begins a phase. Each is told once for a process: a second time would be a violation.
    pub(crate) fn phase(&self, phase: Phase) -> Timed<'_> {
        Timed { control: self, phase, began: Instant::now() }
    }

    /// Sends how far the work is, about five times a second however often it is called. A socket that is gone is found out
    /// by the next read or by the end.
    pub(crate) fn progress(&self, frames: u64, time_ms: u64) {
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        drop(last);
        let _ = self.send(&FromCodec::Progress(Progress { frames, time_ms }));
    }
}
