//! The control socket: frames in before the locks, frames out until the end.

use crate::ff::fds::Descriptor;
use mpegflow_protocol::codec::{FromCodec, HEADER_LEN, Progress, ToCodec, decode_header};
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Progress frames are at least this far apart.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The control socket.
pub(crate) struct Control {
    socket: Mutex<Descriptor>,
    last_progress: Mutex<Option<Instant>>,
}

impl Control {
    /// Takes the socket over.
    pub(crate) fn new(socket: Descriptor) -> Self {
        Self { socket: Mutex::new(socket), last_progress: Mutex::new(None) }
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
