//! Which demuxer the content asks for.

use ffmpeg_next::ffi;
use std::ffi::{CString, c_int};

/// FFmpeg's name of the format that `head`, the first bytes of the input, looks like, and its score (1 to 100). The name of
/// the file plays no part: a tenant chooses it.
pub(crate) fn guess(head: &[u8]) -> Option<(String, i32)> {
    let padding = usize::try_from(ffi::AVPROBE_PADDING_SIZE).unwrap_or(32);
    let mut buffer = head.to_vec();
    buffer.resize(head.len().checked_add(padding)?, 0);
    let data = ffi::AVProbeData {
        filename: c"".as_ptr(),
        buf: buffer.as_mut_ptr(),
        buf_size: c_int::try_from(head.len()).ok()?,
        mime_type: std::ptr::null(),
    };
    let mut score: c_int = 0;
    // SAFETY: the buffer holds `buf_size` bytes and the zeroed padding that probes may read.
    let format = unsafe { ffi::av_probe_input_format3(&data, 1, &mut score) };
    if format.is_null() || score <= 0 {
        return None;
    }
    // SAFETY: formats are static, and so are their names.
    unsafe { super::names::copied((*format).name) }.map(|name| (name, score))
}

/// The demuxer of that name (any one of a list like `mov,mp4`).
pub(super) fn demuxer(name: &str) -> Option<*const ffi::AVInputFormat> {
    let name = CString::new(name).ok()?;
    // SAFETY: a NUL-terminated text.
    let format = unsafe { ffi::av_find_input_format(name.as_ptr()) };
    (!format.is_null()).then_some(format)
}
