//! Names and tables of FFmpeg, looked up without trusting a number that came from a file.

use ffmpeg_next::ffi;
use std::ffi::{CStr, c_char};

/// 8-bit 4:2:0.
pub(crate) const YUV420P: i32 = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P as i32;

/// 8-bit 4:2:0, full range.
pub(crate) const YUVJ420P: i32 = ffi::AVPixelFormat::AV_PIX_FMT_YUVJ420P as i32;
/// Packed RGB, 16 bits a component, little endian.
pub(crate) const RGB48: i32 = ffi::AVPixelFormat::AV_PIX_FMT_RGB48LE as i32;
/// Packed RGB, 8 bits a component.
pub(crate) const RGB24: i32 = ffi::AVPixelFormat::AV_PIX_FMT_RGB24 as i32;

/// How a picture lies in memory, for the formats that are read and written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes of a pixel in a plane.
    pub(crate) bytes: usize,
    /// Binary logarithm of how much narrower the second and third plane are.
    pub(crate) narrower: u32,
    /// The same for their height.
    pub(crate) lower: u32,
    /// Planes.
    pub(crate) planes: usize,
}

/// The layout of a pixel format; `None` for one that only FFmpeg reads.
pub(crate) fn layout(number: i32) -> Option<Layout> {
    use ffi::AVPixelFormat as F;
    const KNOWN: [(i32, usize, u32, u32, usize); 11] = [
        (F::AV_PIX_FMT_YUV420P as i32, 1, 1, 1, 3),
        (F::AV_PIX_FMT_YUVJ420P as i32, 1, 1, 1, 3),
        (F::AV_PIX_FMT_YUV422P as i32, 1, 1, 0, 3),
        (F::AV_PIX_FMT_YUVJ422P as i32, 1, 1, 0, 3),
        (F::AV_PIX_FMT_YUV444P as i32, 1, 0, 0, 3),
        (F::AV_PIX_FMT_YUV411P as i32, 1, 2, 0, 3),
        (F::AV_PIX_FMT_YUV420P10LE as i32, 2, 1, 1, 3),
        (F::AV_PIX_FMT_YUV422P10LE as i32, 2, 1, 0, 3),
        (F::AV_PIX_FMT_YUV444P10LE as i32, 2, 0, 0, 3),
        (RGB48, 6, 0, 0, 1),
        (RGB24, 3, 0, 0, 1),
    ];
    KNOWN.iter().find(|k| k.0 == number).map(|&(_, bytes, narrower, lower, planes)| Layout {
        bytes,
        narrower,
        lower,
        planes,
    })
}

/// Copies a text that FFmpeg owns; `None` for null.
///
/// # Safety
/// `text` is null or a NUL-terminated text that lives through the call.
pub(crate) unsafe fn copied(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by contract.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The pixel format behind a number, if FFmpeg has one.
pub(crate) fn pixel_format(number: i32) -> Option<ffi::AVPixelFormat> {
    let known = 0..ffi::AVPixelFormat::AV_PIX_FMT_NB as i32;
    // SAFETY: the enumeration has every number of that range, from the same headers as the library.
    known.contains(&number).then(|| unsafe { std::mem::transmute::<i32, ffi::AVPixelFormat>(number) })
}

/// The sample format behind a number, if FFmpeg has one.
pub(crate) fn sample_format(number: i32) -> Option<ffi::AVSampleFormat> {
    let known = 0..ffi::AVSampleFormat::AV_SAMPLE_FMT_NB as i32;
    // SAFETY: the enumeration has every number of that range, from the same headers as the library.
    known.contains(&number).then(|| unsafe { std::mem::transmute::<i32, ffi::AVSampleFormat>(number) })
}

/// FFmpeg's name of a pixel format.
pub(crate) fn pixel_format_name(number: i32) -> Option<String> {
    let format = pixel_format(number)?;
    // SAFETY: a valid format; the name is static.
    unsafe { copied(ffi::av_get_pix_fmt_name(format)) }
}

/// FFmpeg's name of a sample format.
pub(crate) fn sample_format_name(number: i32) -> Option<String> {
    let format = sample_format(number)?;
    // SAFETY: a valid format; the name is static.
    unsafe { copied(ffi::av_get_sample_fmt_name(format)) }
}

/// Whether the format itself means full range (the deprecated `yuvj…` family).
pub(crate) fn is_full_range(number: i32) -> bool {
    without_range(number) != number
}

/// The format with the range taken out of it: swscale wants range and format apart.
pub(crate) fn without_range(number: i32) -> i32 {
    use ffi::AVPixelFormat as F;
    const PAIRS: [(i32, i32); 5] = [
        (F::AV_PIX_FMT_YUVJ420P as i32, F::AV_PIX_FMT_YUV420P as i32),
        (F::AV_PIX_FMT_YUVJ422P as i32, F::AV_PIX_FMT_YUV422P as i32),
        (F::AV_PIX_FMT_YUVJ444P as i32, F::AV_PIX_FMT_YUV444P as i32),
        (F::AV_PIX_FMT_YUVJ440P as i32, F::AV_PIX_FMT_YUV440P as i32),
        (F::AV_PIX_FMT_YUVJ411P as i32, F::AV_PIX_FMT_YUV411P as i32),
    ];
    PAIRS.iter().find(|(full, _)| *full == number).map_or(number, |(_, plain)| *plain)
}

/// `AVCOL_RANGE_JPEG`: 0–255.
pub(crate) const FULL_RANGE: u32 = ffi::AVColorRange::AVCOL_RANGE_JPEG as u32;

/// Reads a C enumeration as a number, whatever its value.
///
/// # Safety
/// `field` points to a live C enumeration (32 bits).
pub(crate) unsafe fn number<T>(field: *const T) -> u32 {
    // SAFETY: by contract; every pattern of 32 bits is a `u32`.
    unsafe { field.cast::<u32>().read() }
}

/// FFmpeg's name of a colour range.
pub(crate) fn range_name(n: u32) -> Option<String> {
    match n {
        1 => Some("tv".into()),
        2 => Some("pc".into()),
        _ => None,
    }
}

/// FFmpeg's name of a YUV matrix; `None` where unspecified or unknown.
pub(crate) fn space_name(n: u32) -> Option<String> {
    let known = n != 2 && n < ffi::AVColorSpace::AVCOL_SPC_NB as u32;
    // SAFETY: the enumeration has every number of that range; the name is static.
    known.then(|| unsafe {
        copied(ffi::av_color_space_name(std::mem::transmute::<u32, ffi::AVColorSpace>(n)))
    })?
}

/// FFmpeg's name of transfer characteristics; `None` where unspecified or unknown.
pub(crate) fn transfer_name(n: u32) -> Option<String> {
    use ffi::AVColorTransferCharacteristic as T;
    let known = n != 2 && n < T::AVCOL_TRC_NB as u32;
    // SAFETY: as above.
    known.then(|| unsafe { copied(ffi::av_color_transfer_name(std::mem::transmute::<u32, T>(n))) })?
}

/// FFmpeg's name of primaries; `None` where unspecified or unknown.
pub(crate) fn primaries_name(n: u32) -> Option<String> {
    use ffi::AVColorPrimaries as P;
    // The numbers have a hole between 12 and 22.
    let known = n != 2 && (n <= 12 || n == 22);
    // SAFETY: as above.
    known.then(|| unsafe { copied(ffi::av_color_primaries_name(std::mem::transmute::<u32, P>(n))) })?
}
