//! swscale: any picture to a given size and format.

use super::frame::{Frame, Picture};
use super::{AvError, names};
use ffmpeg_next::ffi;
use std::ffi::c_int;
use std::ptr;

/// What a scaler makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Width in pixels.
    pub(crate) width: u32,
    /// Height in pixels.
    pub(crate) height: u32,
    /// Pixel format, as FFmpeg numbers it.
    pub(crate) format: i32,
    /// YUV matrix.
    pub(crate) matrix: u32,
    /// Full range (0–255) rather than limited.
    pub(crate) full_range: bool,
}

/// A scaler for one kind of source picture.
pub(crate) struct Scaler {
    context: *mut ffi::SwsContext,
    source: Picture,
}

// SAFETY: used by one owner at a time; the context has no ties to a thread.
unsafe impl Send for Scaler {}

impl Scaler {
    /// A bicubic scaler from `source`, whose YUV matrix is `matrix`.
    ///
    /// # Errors
    /// [`AvError::INVALID_ARGUMENT`] for a pixel format that swscale does not take: it would abort the process.
    pub(crate) fn new(source: Picture, matrix: u32, target: Target) -> Result<Self, AvError> {
        let format = names::pixel_format(source.format).ok_or(AvError::INVALID_ARGUMENT)?;
        // SAFETY: a valid format; a table look-up.
        if unsafe { ffi::sws_isSupportedInput(format) } <= 0 || source.width <= 0 || source.height <= 0 {
            return Err(AvError::INVALID_ARGUMENT);
        }
        let made = names::pixel_format(target.format).ok_or(AvError::INVALID_ARGUMENT)?;
        // SAFETY: a valid format; a table look-up.
        if unsafe { ffi::sws_isSupportedOutput(made) } <= 0 {
            return Err(AvError::INVALID_ARGUMENT);
        }
        // Sixteen bits are asked for where nothing may be lost on the way.
        let exact = ffi::SWS_ACCURATE_RND | ffi::SWS_FULL_CHR_H_INT;
        let flags = ffi::SWS_BICUBIC | if target.format == names::RGB48 { exact } else { 0 };
        let to_int = |v: u32| c_int::try_from(v).map_err(|_| AvError::INVALID_ARGUMENT);
        // SAFETY: sizes and formats were checked; the filters and parameters may be null.
        let context = unsafe {
            ffi::sws_getContext(
                source.width,
                source.height,
                format,
                to_int(target.width)?,
                to_int(target.height)?,
                made,
                flags,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        if context.is_null() {
            return Err(AvError::INVALID_ARGUMENT);
        }
        let scaler = Self { context, source };
        // SAFETY: the context is alive; the tables are static. −1 means that the range cannot be set for this pair,
        // which is so for formats that have none.
        unsafe {
            let table = |matrix: u32| ffi::sws_getCoefficients(c_int::try_from(matrix).unwrap_or(2));
            let full = c_int::from(source.full_range);
            let made_full = c_int::from(target.full_range);
            let (from, to) = (table(matrix), table(target.matrix));
            ffi::sws_setColorspaceDetails(context, from, full, to, made_full, 0, 1 << 16, 1 << 16);
        }
        Ok(scaler)
    }

    /// Whether this scaler is for such pictures.
    pub(crate) fn takes(&self, picture: &Picture) -> bool {
        self.source == *picture
    }

    /// Scales `from` into `to`, which has the size this scaler was made for and is writable.
    ///
    /// # Errors
    /// Pictures that this scaler was not made for.
    pub(crate) fn run(&mut self, from: &Frame, to: &mut Frame) -> Result<(), AvError> {
        if !self.takes(&from.picture()) || !to.is_writable() {
            return Err(AvError::INVALID_ARGUMENT);
        }
        // SAFETY: both frames are alive and have the sizes and formats that the context was made for; the target is held
        // by nobody else.
        let rows = unsafe {
            let (src, dst) = (&*from.as_ptr(), &*to.as_ptr());
            ffi::sws_scale(
                self.context,
                src.data.as_ptr().cast(),
                src.linesize.as_ptr(),
                0,
                src.height,
                dst.data.as_ptr(),
                dst.linesize.as_ptr(),
            )
        };
        AvError::check(rows).map(drop)
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::sws_freeContext(self.context) }
    }
}
