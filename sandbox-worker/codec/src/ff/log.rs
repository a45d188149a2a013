//! FFmpeg's log, as short clean lines on descriptor 2.
//!
//! The default callback asks whether stderr is a terminal (an `ioctl`), which the locks kill, so this one goes in first.

use ffmpeg_next::ffi;
use mpegflow_protocol::limits;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Lines of FFmpeg itself stop at half the supervisor's cap, so that our own last words always fit.
const BUDGET: usize = limits::MAX_CODEC_LOG / 2;

static WRITTEN: AtomicUsize = AtomicUsize::new(0);
static TOO_LARGE: AtomicBool = AtomicBool::new(false);
static ENDED_INSIDE: AtomicBool = AtomicBool::new(false);

/// Installs the callback.
pub(crate) fn install() {
    // SAFETY: the callback has the signature that is asked for and lives as long as the process.
    unsafe {
        ffi::av_log_set_callback(Some(callback));
        ffi::av_log_set_level(ffi::AV_LOG_WARNING);
    }
}

/// Whether FFmpeg refused a picture for its size since the start. Decoders report it by log only; the return value is the
/// same as for any other damage.
pub(crate) fn refused_a_size() -> bool {
    TOO_LARGE.load(Ordering::Relaxed)
}

/// Whether a demuxer met the end of the file inside an element. It tells by log only; what it returns is the end.
pub(crate) fn ended_inside() -> bool {
    ENDED_INSIDE.load(Ordering::Relaxed)
}

/// Forgets what was noted so far: what the search for parameters meets in streams that are not wanted does not count.
pub(crate) fn forget() {
    TOO_LARGE.store(false, Ordering::Relaxed);
    ENDED_INSIDE.store(false, Ordering::Relaxed);
}

/// Records that a picture was refused for its size.
pub(crate) fn note_refused_size() {
    TOO_LARGE.store(true, Ordering::Relaxed);
}

/// Writes one line of our own.
pub(crate) fn line(text: &str) {
    let mut line = mpegflow_protocol::text::clean(text.trim_end(), limits::MAX_LOG_LINE);
    line.push('\n');
    // A full or closed log is no reason to fail the task.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

unsafe extern "C" fn callback(
    source: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut ffi::__va_list_tag,
) {
    if level > ffi::AV_LOG_WARNING {
        return;
    }
    // Before the budget: a flood of other lines must not hide what these mean.
    take_note(format);
    if WRITTEN.load(Ordering::Relaxed) > BUDGET {
        return;
    }
    let mut buffer = [0u8; limits::MAX_LOG_LINE];
    let mut prefix: c_int = 1;
    let size = c_int::try_from(buffer.len()).unwrap_or(0);
    // SAFETY: FFmpeg passes its own context, format and arguments; the buffer is writable for `size` bytes and is ended
    // with a NUL.
    unsafe {
        ffi::av_log_format_line2(
            source,
            level,
            format,
            arguments,
            buffer.as_mut_ptr().cast(),
            size,
            &mut prefix,
        );
    }
    let Ok(text) = CStr::from_bytes_until_nul(&buffer) else { return };
    let text = text.to_string_lossy();
    // Contexts print their address, which tells an attacker where the heap is.
    let text = without_addresses(text.trim_end());
    WRITTEN.fetch_add(text.len().saturating_add(1), Ordering::Relaxed);
    line(&text);
}

/// Looks at the format, which is FFmpeg's or dav1d's own text, never the file's.
fn take_note(format: *const c_char) {
    if format.is_null() {
        return;
    }
    // SAFETY: formats are NUL-terminated constants of the libraries.
    let format = unsafe { CStr::from_ptr(format) }.to_bytes();
    let has = |words: &[u8]| format.windows(words.len()).any(|w| w == words);
    if has(b"specified max pixel count") || has(b"Frame size %dx%d exceeds limit") {
        note_refused_size();
    }
    if has(b"ended prematurely") {
        ENDED_INSIDE.store(true, Ordering::Relaxed);
    }
}

fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" @ 0x") {
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn heap_addresses_do_not_reach_the_log() {
        assert_eq!(super::without_addresses("[h264 @ 0x55f0c0ffee] broken [x @ 0x1f]"), "[h264] broken [x]");
    }
}
