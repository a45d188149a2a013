//! Packets.

use super::AvError;
use ffmpeg_next::ffi;
use std::slice;

/// An owned `AVPacket`; its data is reference-counted.
pub(crate) struct Packet(*mut ffi::AVPacket);

// SAFETY: an AVPacket has no ties to a thread, and the counts of its buffers are atomic.
unsafe impl Send for Packet {}

impl Packet {
    /// An empty packet.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new() -> Result<Self, AvError> {
        // SAFETY: no arguments; null is handled.
        let raw = unsafe { ffi::av_packet_alloc() };
        if raw.is_null() { Err(AvError::NO_MEMORY) } else { Ok(Self(raw)) }
    }

    /// Moves the contents into a packet of its own and leaves this one empty.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn take(&mut self) -> Result<Self, AvError> {
        let out = Self::new()?;
        // SAFETY: both are alive, and `out` is empty.
        unsafe { ffi::av_packet_move_ref(out.0, self.0) };
        Ok(out)
    }

    /// Another owner of the same data.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn share(&self) -> Result<Self, AvError> {
        let out = Self::new()?;
        // SAFETY: both are alive, and `out` is empty.
        AvError::check(unsafe { ffi::av_packet_ref(out.0, self.0) })?;
        Ok(out)
    }

    /// Drops the contents.
    pub(crate) fn clear(&mut self) {
        // SAFETY: alive.
        unsafe { ffi::av_packet_unref(self.0) }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::AVPacket {
        self.0
    }

    fn raw(&self) -> &ffi::AVPacket {
        // SAFETY: alive as long as `self`, and only changed through `&mut self`.
        unsafe { &*self.0 }
    }

    /// The payload.
    pub(crate) fn data(&self) -> &[u8] {
        let raw = self.raw();
        let Ok(len) = usize::try_from(raw.size) else { return &[] };
        if raw.data.is_null() || len == 0 {
            return &[];
        }
        // SAFETY: FFmpeg keeps `size` readable bytes at `data` while the packet holds its buffer.
        unsafe { slice::from_raw_parts(raw.data, len) }
    }

    /// Stream index in the container.
    pub(crate) fn stream(&self) -> usize {
        usize::try_from(self.raw().stream_index).unwrap_or(usize::MAX)
    }

    /// Presentation time in the stream's time base, where known.
    pub(crate) fn pts(&self) -> Option<i64> {
        known(self.raw().pts)
    }

    /// Decoding time in the stream's time base, where known.
    pub(crate) fn dts(&self) -> Option<i64> {
        known(self.raw().dts)
    }

    /// Duration in the stream's time base; 0 where unknown.
    pub(crate) fn duration(&self) -> i64 {
        self.raw().duration.max(0)
    }

    /// Where the container has it, in bytes from the start.
    pub(crate) fn position(&self) -> Option<u64> {
        u64::try_from(self.raw().pos).ok()
    }

    /// Whether decoding can begin here, as the container says.
    pub(crate) fn is_key(&self) -> bool {
        self.raw().flags & ffi::AV_PKT_FLAG_KEY != 0
    }

    /// Moves both times.
    pub(crate) fn shift(&mut self, by: i64) {
        // SAFETY: alive, and borrowed mutably.
        let raw = unsafe { &mut *self.0 };
        for time in [&mut raw.pts, &mut raw.dts] {
            if *time != super::NO_TIME {
                *time = time.saturating_add(by);
            }
        }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::av_packet_free(&mut self.0) }
    }
}

fn known(time: i64) -> Option<i64> {
    (time != super::NO_TIME).then_some(time)
}
