//! swresample: any sound to planar float of a given rate and channel count.

use super::frame::Frame;
use super::{AvError, names};
use ffmpeg_next::ffi;
use std::ffi::c_int;
use std::ptr;

/// A resampler for one kind of source sound.
pub(crate) struct Resampler {
    context: *mut ffi::SwrContext,
    source: (i32, i32, i32),
    rate: u32,
    channels: u32,
}

// SAFETY: used by one owner at a time; the context has no ties to a thread.
unsafe impl Send for Resampler {}

impl Resampler {
    /// A resampler from sound like `frame` to `rate` and `channels` (1 or 2; more are mixed down).
    ///
    /// # Errors
    /// [`AvError::INVALID_ARGUMENT`] for sound that swresample does not take.
    pub(crate) fn new(frame: &Frame, rate: u32, channels: u32) -> Result<Self, AvError> {
        let (format_number, source_channels) = frame.sound();
        let format = names::sample_format(format_number).ok_or(AvError::INVALID_ARGUMENT)?;
        let source_rate = frame.sample_rate();
        if source_rate <= 0 || !(1..=64).contains(&source_channels) {
            return Err(AvError::INVALID_ARGUMENT);
        }
        let to_int = |v: u32| c_int::try_from(v).map_err(|_| AvError::INVALID_ARGUMENT);
        let mut context = ptr::null_mut();
        // SAFETY: zeroed is the documented empty layout; both layouts live through the call, which copies them, and are
        // released after it; the frame is alive.
        let made = unsafe {
            let mut out: ffi::AVChannelLayout = std::mem::zeroed();
            let mut source: ffi::AVChannelLayout = std::mem::zeroed();
            ffi::av_channel_layout_default(&mut out, to_int(channels)?);
            let layout = &(*frame.as_ptr()).ch_layout;
            if layout.order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
                ffi::av_channel_layout_default(&mut source, source_channels);
            } else {
                ffi::av_channel_layout_copy(&mut source, layout);
            }
            let made = ffi::swr_alloc_set_opts2(
                &mut context,
                &mut out,
                ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP,
                to_int(rate)?,
                &mut source,
                format,
                source_rate,
                0,
                ptr::null_mut(),
            );
            ffi::av_channel_layout_uninit(&mut out);
            ffi::av_channel_layout_uninit(&mut source);
            made
        };
        let resampler =
            Self { context, source: (format_number, source_channels, source_rate), rate, channels };
        AvError::check(made)?;
        // SAFETY: the context was made above.
        AvError::check(unsafe { ffi::swr_init(resampler.context) })?;
        Ok(resampler)
    }

    /// Whether this resampler is for such sound.
    pub(crate) fn takes(&self, frame: &Frame) -> bool {
        let (format, channels) = frame.sound();
        self.source == (format, channels, frame.sample_rate())
    }

    /// Samples, at the output's rate, that went in and have not come out.
    pub(crate) fn delay(&self) -> i64 {
        // SAFETY: alive and initialised.
        unsafe { ffi::swr_get_delay(self.context, i64::from(self.rate)) }.max(0)
    }

    /// Resamples `frame`, or takes out what is left.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn run(&mut self, frame: Option<&Frame>) -> Result<Frame, AvError> {
        let samples = frame.map_or(0, Frame::samples);
        if frame.is_some_and(|f| !self.takes(f)) {
            return Err(AvError::INVALID_ARGUMENT);
        }
        let count = c_int::try_from(samples).map_err(|_| AvError::INVALID_ARGUMENT)?;
        // SAFETY: alive and initialised.
        let room = AvError::check(unsafe { ffi::swr_get_out_samples(self.context, count) })?.max(1);
        let mut out = Frame::planar_float(usize::try_from(room).unwrap_or(1), self.channels, self.rate)?;
        // SAFETY: the output has room for `room` samples of each channel; the input, where there is one, holds `count` in
        // the format that the context was made for.
        let made = unsafe {
            let source = frame.map_or(ptr::null_mut(), |f| (*f.as_ptr()).extended_data.cast::<*const u8>());
            ffi::swr_convert(self.context, (*out.as_ptr()).extended_data, room, source, count)
        };
        let made = AvError::check(made)?;
        out.set_samples(usize::try_from(made).unwrap_or(0));
        Ok(out)
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        // SAFETY: owned, freed once; null is accepted.
        unsafe { ffi::swr_free(&mut self.context) }
    }
}
