//! FFmpeg's reading from our own source: the only way a byte of media gets in.

use super::AvError;
use ffmpeg_next::ffi;
use std::ffi::{c_int, c_void};
use std::io;
use std::slice;

/// What FFmpeg's buffer holds. The source below fetches far larger blocks, so small is right here: a demuxer that jumps
/// between two places throws this buffer away each time.
const BUFFER: usize = 64 << 10;

/// Bytes at positions.
pub(crate) trait ReadAt: Send {
    /// Reads at most `buf.len()` bytes at `offset`; 0 at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// The length in bytes.
    fn len(&self) -> u64;
}

/// A file in memory.
#[cfg(test)]
impl ReadAt for Vec<u8> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn len(&self) -> u64 {
        Self::len(self) as u64
    }
}

/// An owned `AVIOContext` for reading, and the source behind it.
pub(crate) struct Reader {
    context: *mut ffi::AVIOContext,
    state: *mut State,
}

// SAFETY: the context is used by one owner at a time, and the source is `Send`.
unsafe impl Send for Reader {}

struct State {
    source: Box<dyn ReadAt>,
    position: u64,
}

impl Reader {
    /// A reader of `source` from its start.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(source: Box<dyn ReadAt>) -> Result<Self, AvError> {
        let state = Box::into_raw(Box::new(State { source, position: 0 }));
        // SAFETY: no pointers in; null is handled.
        let buffer = unsafe { ffi::av_malloc(BUFFER) };
        // SAFETY: the buffer came from `av_malloc`; `state` outlives the context (both go in `drop`, the context first).
        let context = unsafe {
            if buffer.is_null() {
                std::ptr::null_mut()
            } else {
                let size = c_int::try_from(BUFFER).unwrap_or(0);
                ffi::avio_alloc_context(buffer.cast(), size, 0, state.cast(), Some(read), None, Some(seek))
            }
        };
        if context.is_null() {
            // SAFETY: `av_free` accepts null; the box was made above and is taken back once.
            unsafe {
                ffi::av_free(buffer);
                drop(Box::from_raw(state));
            }
            return Err(AvError::NO_MEMORY);
        }
        Ok(Self { context, state })
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::AVIOContext {
        self.context
    }

    /// Whether reading failed, rather than the data being wrong.
    pub(crate) fn failed(&self) -> bool {
        // SAFETY: our own context, alive.
        unsafe { (*self.context).error == AvError::IO.0 }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: FFmpeg may have replaced the buffer, so it is the context's current one that is freed; then the context;
        // then the state, which nothing points to any more.
        unsafe {
            ffi::av_freep((&raw mut (*self.context).buffer).cast());
            ffi::avio_context_free(&mut self.context);
            drop(Box::from_raw(self.state));
        }
    }
}

unsafe extern "C" fn read(opaque: *mut c_void, buffer: *mut u8, len: c_int) -> c_int {
    let Ok(len) = usize::try_from(len) else { return AvError::INVALID_ARGUMENT.0 };
    if len == 0 || buffer.is_null() {
        return AvError::INVALID_ARGUMENT.0;
    }
    // SAFETY: `opaque` is the state given to the context, which calls from one thread at a time.
    let state = unsafe { &mut *opaque.cast::<State>() };
    let left = state.source.len().saturating_sub(state.position);
    let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    if len == 0 {
        // The buffer is left as it is: at the end FFmpeg goes on using what is in it.
        return ffi::AVERROR_EOF;
    }
    // SAFETY: FFmpeg's buffer holds at least `len` writable bytes; they may be uninitialised, so they are zeroed before a
    // reference to them exists.
    let buffer = unsafe {
        std::ptr::write_bytes(buffer, 0, len);
        slice::from_raw_parts_mut(buffer, len)
    };
    match state.source.read_at(state.position, buffer) {
        Ok(0) => ffi::AVERROR_EOF,
        Ok(n) => {
            let n = n.min(len);
            state.position = state.position.saturating_add(n as u64);
            c_int::try_from(n).unwrap_or(0)
        }
        Err(_) => AvError::IO.0,
    }
}

unsafe extern "C" fn seek(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as in `read`.
    let state = unsafe { &mut *opaque.cast::<State>() };
    let len = i64::try_from(state.source.len()).unwrap_or(i64::MAX);
    // 0x20000 is AVSEEK_FORCE, which changes nothing for a source like this one.
    let target = match whence & !0x20000 {
        ffi::AVSEEK_SIZE => return len,
        libc::SEEK_SET => Some(offset),
        libc::SEEK_CUR => i64::try_from(state.position).ok().and_then(|p| p.checked_add(offset)),
        libc::SEEK_END => len.checked_add(offset),
        _ => None,
    };
    match target.and_then(|t| u64::try_from(t).ok()) {
        Some(position) => {
            state.position = position;
            i64::try_from(position).unwrap_or(i64::MAX)
        }
        None => i64::from(AvError::INVALID_ARGUMENT.0),
    }
}
