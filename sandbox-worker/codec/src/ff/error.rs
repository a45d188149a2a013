//! FFmpeg's error codes as values.

use ffmpeg_next::ffi;
use std::ffi::CStr;
use std::fmt;

/// A negative return value of FFmpeg.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvError(pub(crate) i32);

impl AvError {
    /// The end of the input or of a flush.
    pub(crate) const EOF: Self = Self(ffi::AVERROR_EOF);
    /// Feed more before asking again.
    pub(crate) const AGAIN: Self = Self(-libc::EAGAIN);
    /// An allocation was refused, by the system or by the cap.
    pub(crate) const NO_MEMORY: Self = Self(-libc::ENOMEM);
    /// An argument, often a picture size, was refused.
    pub(crate) const INVALID_ARGUMENT: Self = Self(-libc::EINVAL);
    /// The data are wrong.
    pub(crate) const INVALID_DATA: Self = Self(ffi::AVERROR_INVALIDDATA);
    /// Reading or writing failed.
    pub(crate) const IO: Self = Self(-libc::EIO);

    /// `Ok` with the value for a return value that is not negative.
    pub(crate) const fn check(code: i32) -> Result<i32, Self> {
        if code < 0 { Err(Self(code)) } else { Ok(code) }
    }
}

impl fmt::Display for AvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0u8; 128];
        // SAFETY: the buffer is writable for the length passed, and FFmpeg ends it with a NUL.
        unsafe { ffi::av_strerror(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        match CStr::from_bytes_until_nul(&buffer) {
            Ok(text) if !text.is_empty() => f.write_str(&text.to_string_lossy()),
            _ => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for AvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.0)
    }
}
