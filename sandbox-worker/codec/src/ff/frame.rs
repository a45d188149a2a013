//! Frames: pictures and sound.

use super::{AvError, names};
use ffmpeg_next::ffi;
use std::slice;

/// An owned `AVFrame`; its planes are reference-counted.
pub(crate) struct Frame(*mut ffi::AVFrame);

// SAFETY: an AVFrame has no ties to a thread, and the counts of its buffers are atomic.
unsafe impl Send for Frame {}

/// What a scaler or encoder must know of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Width in pixels.
    pub(crate) width: i32,
    /// Height in pixels.
    pub(crate) height: i32,
    /// Pixel format, as FFmpeg numbers it.
    pub(crate) format: i32,
    /// Full range (0–255) rather than limited.
    pub(crate) full_range: bool,
    /// How its colours are coded.
    pub(crate) color: Color,
}

/// Colour coding as ISO/IEC 23091-2 numbers it; 2 is unspecified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color {
    /// Primaries.
    pub(crate) primaries: u32,
    /// Transfer characteristics.
    pub(crate) transfer: u32,
    /// Matrix coefficients.
    pub(crate) matrix: u32,
}

impl Frame {
    /// An empty frame.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new() -> Result<Self, AvError> {
        // SAFETY: no arguments; null is handled.
        let raw = unsafe { ffi::av_frame_alloc() };
        if raw.is_null() { Err(AvError::NO_MEMORY) } else { Ok(Self(raw)) }
    }

    /// A picture with memory of its own, in a pixel format as FFmpeg numbers it.
    ///
    /// # Errors
    /// A size that cannot be, or out of memory.
    pub(crate) fn of_format(format: i32, width: u32, height: u32) -> Result<Self, AvError> {
        let frame = Self::new()?;
        // SAFETY: alive and owned; the fields say what `av_frame_get_buffer` is to allocate.
        unsafe {
            (*frame.0).width = i32::try_from(width).map_err(|_| AvError::INVALID_ARGUMENT)?;
            (*frame.0).height = i32::try_from(height).map_err(|_| AvError::INVALID_ARGUMENT)?;
            (*frame.0).format = format;
            AvError::check(ffi::av_frame_get_buffer(frame.0, 0))?;
        }
        Ok(frame)
    }

    /// Sound in planar 32-bit float with memory of its own.
    ///
    /// # Errors
    /// A size that cannot be, or out of memory.
    pub(crate) fn planar_float(samples: usize, channels: u32, rate: u32) -> Result<Self, AvError> {
        let frame = Self::new()?;
        // SAFETY: alive and owned; the fields say what `av_frame_get_buffer` is to allocate.
        unsafe {
            (*frame.0).nb_samples = i32::try_from(samples).map_err(|_| AvError::INVALID_ARGUMENT)?;
            (*frame.0).format = ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP as i32;
            (*frame.0).sample_rate = i32::try_from(rate).map_err(|_| AvError::INVALID_ARGUMENT)?;
            let channels = i32::try_from(channels).map_err(|_| AvError::INVALID_ARGUMENT)?;
            ffi::av_channel_layout_default(&mut (*frame.0).ch_layout, channels);
            AvError::check(ffi::av_frame_get_buffer(frame.0, 0))?;
        }
        Ok(frame)
    }

    /// A picture like this one, with memory of its own and nothing in it but what is said about it.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn like(&self) -> Result<Self, AvError> {
        let raw = self.raw();
        let side = |v: i32| u32::try_from(v).map_err(|_| AvError::INVALID_ARGUMENT);
        let out = Self::of_format(raw.format, side(raw.width)?, side(raw.height)?)?;
        // SAFETY: both are alive; only what describes the picture is copied.
        AvError::check(unsafe { ffi::av_frame_copy_props(out.0, self.0) })?;
        Ok(out)
    }

    /// Whether its lines are from two moments.
    pub(crate) fn is_interlaced(&self) -> bool {
        self.raw().interlaced_frame != 0
    }

    /// Whether the first line is from the first moment.
    pub(crate) fn top_field_first(&self) -> bool {
        self.raw().top_field_first != 0
    }

    /// Says that its lines are from one moment.
    pub(crate) fn set_progressive(&mut self) {
        self.raw_mut().interlaced_frame = 0;
    }

    /// Another owner of the same planes.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn share(&self) -> Result<Self, AvError> {
        let out = Self::new()?;
        // SAFETY: both are alive, and `out` is empty.
        AvError::check(unsafe { ffi::av_frame_ref(out.0, self.0) })?;
        Ok(out)
    }

    /// Drops the planes.
    pub(crate) fn clear(&mut self) {
        // SAFETY: alive.
        unsafe { ffi::av_frame_unref(self.0) }
    }

    /// Whether nobody else holds the planes, so that they may be written.
    pub(crate) fn is_writable(&self) -> bool {
        // SAFETY: alive; only reads reference counts.
        unsafe { ffi::av_frame_is_writable(self.0) > 0 }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::AVFrame {
        self.0
    }

    fn raw(&self) -> &ffi::AVFrame {
        // SAFETY: alive as long as `self`, and only changed through `&mut self`.
        unsafe { &*self.0 }
    }

    fn raw_mut(&mut self) -> &mut ffi::AVFrame {
        // SAFETY: alive, and borrowed mutably.
        unsafe { &mut *self.0 }
    }

    /// What the picture is.
    pub(crate) fn picture(&self) -> Picture {
        let raw = self.0;
        // SAFETY: alive. The colour fields are read as plain numbers: some demuxers pass on what the file says unchecked.
        unsafe {
            let range = names::number(&raw const (*raw).color_range);
            let format = (*raw).format;
            Picture {
                width: (*raw).width,
                height: (*raw).height,
                format: names::without_range(format),
                full_range: range == names::FULL_RANGE || names::is_full_range(format),
                color: Color {
                    primaries: names::number(&raw const (*raw).color_primaries),
                    transfer: names::number(&raw const (*raw).color_trc),
                    matrix: names::number(&raw const (*raw).colorspace),
                },
            }
        }
    }

    /// The decoder's best knowledge of the presentation time, in the packets' time base.
    pub(crate) fn best_time(&self) -> Option<i64> {
        let raw = self.raw();
        [raw.best_effort_timestamp, raw.pts, raw.pkt_dts].into_iter().find(|t| *t != super::NO_TIME)
    }

    /// Whether the decoder painted over parts that it could not decode.
    pub(crate) fn is_concealed(&self) -> bool {
        let raw = self.raw();
        raw.decode_error_flags != 0 || raw.flags & ffi::AV_FRAME_FLAG_CORRUPT != 0
    }

    /// How long the packet said it lasts, in the packets' time base; 0 where unknown.
    pub(crate) fn duration(&self) -> i64 {
        self.raw().pkt_duration.max(0)
    }

    /// Sets the presentation time for an encoder.
    pub(crate) fn set_pts(&mut self, pts: i64) {
        self.raw_mut().pts = pts;
    }

    /// Asks the encoder for a key frame here, or leaves the choice to it.
    pub(crate) fn set_key(&mut self, key: bool) {
        let raw = self.raw_mut();
        raw.pict_type = if key {
            ffi::AVPictureType::AV_PICTURE_TYPE_I
        } else {
            ffi::AVPictureType::AV_PICTURE_TYPE_NONE
        };
        raw.key_frame = i32::from(key);
    }

    /// Drops what a decoder attached beside the picture (captions, camera data): an encoder would copy it out.
    pub(crate) fn strip(&mut self) {
        let raw = self.raw_mut();
        let kinds: Vec<_> = (0..usize::try_from(raw.nb_side_data).unwrap_or(0))
            // SAFETY: `side_data` holds `nb_side_data` valid pointers.
            .map(|i| unsafe { (**raw.side_data.add(i)).type_ })
            .collect();
        for kind in kinds {
            // SAFETY: alive.
            unsafe { ffi::av_frame_remove_side_data(self.0, kind) };
        }
        // SAFETY: owned by the frame; freeing sets it to null.
        unsafe { ffi::av_dict_free(&mut (*self.0).metadata) };
    }

    /// One plane of a picture whose [`names::layout`] is known: bytes and the distance of its rows.
    pub(crate) fn plane(&self, index: usize) -> Option<(&[u8], usize)> {
        let (start, len, stride) = self.plane_parts(index)?;
        // SAFETY: `plane_parts` gives a range inside the plane's buffer, alive as long as `self`.
        Some((unsafe { slice::from_raw_parts(start, len) }, stride))
    }

    /// The same for writing; `None` where somebody else holds the planes too.
    pub(crate) fn plane_mut(&mut self, index: usize) -> Option<(&mut [u8], usize)> {
        if !self.is_writable() {
            return None;
        }
        let (start, len, stride) = self.plane_parts(index)?;
        // SAFETY: as above, and the plane is writable: nobody else has it.
        Some((unsafe { slice::from_raw_parts_mut(start, len) }, stride))
    }

    /// Bytes of a row, and rows, of a plane.
    pub(crate) fn plane_size(&self, index: usize) -> Option<(usize, usize)> {
        let raw = self.raw();
        let layout = names::layout(raw.format).filter(|l| index < l.planes)?;
        let (width, rows) = (usize::try_from(raw.width).ok()?, usize::try_from(raw.height).ok()?);
        let smaller = |side: usize, by: u32| side.div_ceil(1usize.checked_shl(by).unwrap_or(1));
        let (width, rows) = if index == 0 {
            (width, rows)
        } else {
            (smaller(width, layout.narrower), smaller(rows, layout.lower))
        };
        Some((width.checked_mul(layout.bytes)?, rows))
    }

    fn plane_parts(&self, index: usize) -> Option<(*mut u8, usize, usize)> {
        let raw = self.raw();
        let (width, rows) = self.plane_size(index)?;
        let stride = usize::try_from(*raw.linesize.get(index)?).ok()?;
        let start = *raw.data.get(index)?;
        if start.is_null() || stride < width || rows == 0 {
            return None;
        }
        // The last row may end where the picture does.
        Some((start, rows.checked_sub(1)?.checked_mul(stride)?.checked_add(width)?, stride))
    }

    /// Samples per channel.
    pub(crate) fn samples(&self) -> usize {
        usize::try_from(self.raw().nb_samples).unwrap_or(0)
    }

    /// Says that only the first `samples` are filled.
    pub(crate) fn set_samples(&mut self, samples: usize) {
        let raw = self.raw_mut();
        raw.nb_samples = i32::try_from(samples).unwrap_or(0).min(raw.nb_samples);
    }

    /// Samples per second.
    pub(crate) fn sample_rate(&self) -> i32 {
        self.raw().sample_rate
    }

    /// Sample format and channels, as FFmpeg numbers them.
    pub(crate) fn sound(&self) -> (i32, i32) {
        (self.raw().format, self.raw().ch_layout.nb_channels)
    }

    /// One channel of planar 32-bit float sound.
    pub(crate) fn channel(&self, index: usize) -> Option<&[f32]> {
        let start = self.channel_start(index)?;
        // SAFETY: a planar float channel holds `nb_samples` floats, aligned by FFmpeg, alive as long as `self`.
        Some(unsafe { slice::from_raw_parts(start, self.samples()) })
    }

    /// The same for writing; `None` where somebody else holds the channels too.
    pub(crate) fn channel_mut(&mut self, index: usize) -> Option<&mut [f32]> {
        if !self.is_writable() {
            return None;
        }
        let start = self.channel_start(index)?;
        let samples = self.samples();
        // SAFETY: as above, and nobody else has it.
        Some(unsafe { slice::from_raw_parts_mut(start, samples) })
    }

    fn channel_start(&self, index: usize) -> Option<*mut f32> {
        let raw = self.raw();
        let channels = usize::try_from(raw.ch_layout.nb_channels).ok()?;
        if raw.format != ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP as i32 || index >= channels.min(8) {
            return None;
        }
        let start = (*raw.data.get(index)?).cast::<f32>();
        (!start.is_null()).then_some(start)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::av_frame_free(&mut self.0) }
    }
}
