//! The two encoders: libx264 and FFmpeg's own AAC.

use super::AvError;
use super::dict::Dict;
use super::frame::{Color, Frame};
use super::packet::Packet;
use ffmpeg_next::ffi;
use std::ffi::{CStr, c_int};
use std::ptr;
use std::slice;

/// An open encoder.
pub(crate) struct Encoder(*mut ffi::AVCodecContext);

// SAFETY: used by one owner at a time; FFmpeg's contexts have no ties to a thread.
unsafe impl Send for Encoder {}

/// What an H.264 encode is to be.
pub(crate) struct H264 {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Ticks per second of the time stamps.
    pub(crate) timescale: i32,
    /// Frames per second, as a guide for rate control.
    pub(crate) frame_rate: (i32, i32),
    pub(crate) color: Color,
    pub(crate) crf_tenths: u32,
    pub(crate) max_bit_rate: u32,
    pub(crate) buffer_bits: u32,
    pub(crate) preset: &'static str,
    pub(crate) threads: u32,
}

impl Encoder {
    /// Opens libx264: High profile, 8-bit 4:2:0, closed GOPs, key frames only where asked for.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn h264(spec: &H264) -> Result<Self, AvError> {
        let encoder = Self::alloc(c"libx264")?;
        let to_int = |v: u32| c_int::try_from(v).map_err(|_| AvError::INVALID_ARGUMENT);
        // SAFETY: alive and owned; the fields are those a caller sets before opening.
        unsafe {
            let raw = &mut *encoder.0;
            raw.width = to_int(spec.width)?;
            raw.height = to_int(spec.height)?;
            raw.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P;
            raw.time_base = ffi::AVRational { num: 1, den: spec.timescale };
            raw.framerate = ffi::AVRational { num: spec.frame_rate.0, den: spec.frame_rate.1 };
            raw.sample_aspect_ratio = ffi::AVRational { num: 1, den: 1 };
            raw.color_range = ffi::AVColorRange::AVCOL_RANGE_MPEG;
            raw.rc_max_rate = i64::from(spec.max_bit_rate);
            raw.rc_buffer_size = to_int(spec.buffer_bits)?;
            // Key frames come by time, from the caller; x264's own count would put more between them.
            raw.gop_size = 1 << 30;
            raw.keyint_min = 1;
            raw.thread_count = to_int(spec.threads.clamp(1, 16))?;
            raw.flags |= (ffi::AV_CODEC_FLAG_GLOBAL_HEADER | ffi::AV_CODEC_FLAG_BITEXACT) as c_int;
        }
        let crf = format!("{}.{}", spec.crf_tenths / 10, spec.crf_tenths % 10);
        // Colour goes in as numbers of the standard that x264 writes unchanged, which spares turning hostile numbers
        // into C enumerations.
        let params = format!(
            "colorprim={}:transfer={}:colormatrix={}",
            primaries_name(spec.color.primaries),
            transfer_name(spec.color.transfer),
            matrix_name(spec.color.matrix)
        );
        encoder.open(&[
            ("preset", spec.preset),
            ("profile", "high"),
            ("crf", &crf),
            ("forced-idr", "1"),
            ("sc_threshold", "0"),
            ("x264-params", &params),
        ])
    }

    /// Opens FFmpeg's AAC-LC encoder.
    ///
    /// # Errors
    /// FFmpeg's; [`AvError::INVALID_ARGUMENT`] for a rate that AAC has not.
    pub(crate) fn aac(sample_rate: u32, channels: u32, bit_rate: u32) -> Result<Self, AvError> {
        let encoder = Self::alloc(c"aac")?;
        let rate = c_int::try_from(sample_rate).map_err(|_| AvError::INVALID_ARGUMENT)?;
        let channels = c_int::try_from(channels).map_err(|_| AvError::INVALID_ARGUMENT)?;
        // SAFETY: alive and owned; the fields are those a caller sets before opening.
        unsafe {
            let raw = &mut *encoder.0;
            raw.sample_fmt = ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
            raw.sample_rate = rate;
            ffi::av_channel_layout_default(&mut raw.ch_layout, channels);
            raw.bit_rate = i64::from(bit_rate);
            raw.time_base = ffi::AVRational { num: 1, den: rate };
            raw.flags |= (ffi::AV_CODEC_FLAG_GLOBAL_HEADER | ffi::AV_CODEC_FLAG_BITEXACT) as c_int;
        }
        encoder.open(&[])
    }

    fn alloc(name: &CStr) -> Result<Self, AvError> {
        // SAFETY: a NUL-terminated name; codecs are static; null is handled.
        let raw = unsafe {
            let codec = ffi::avcodec_find_encoder_by_name(name.as_ptr());
            if codec.is_null() {
                return Err(AvError(ffi::AVERROR_ENCODER_NOT_FOUND));
            }
            ffi::avcodec_alloc_context3(codec)
        };
        if raw.is_null() { Err(AvError::NO_MEMORY) } else { Ok(Self(raw)) }
    }

    fn open(self, options: &[(&str, &str)]) -> Result<Self, AvError> {
        let mut options = Dict::from_pairs(options)?;
        // SAFETY: the context was allocated for its codec and is not open yet.
        AvError::check(unsafe { ffi::avcodec_open2(self.0, ptr::null(), options.as_mut()) })?;
        match options.leftover() {
            // An option that went nowhere would be a silent change of what was planned.
            Some(_) => Err(AvError(ffi::AVERROR_OPTION_NOT_FOUND)),
            None => Ok(self),
        }
    }

    /// The codec's configuration: SPS and PPS with start codes, or the AudioSpecificConfig.
    pub(crate) fn extradata(&self) -> &[u8] {
        // SAFETY: alive; `extradata` holds `extradata_size` bytes and is not changed after opening.
        unsafe {
            let raw = &*self.0;
            match usize::try_from(raw.extradata_size) {
                Ok(len) if len > 0 && !raw.extradata.is_null() => slice::from_raw_parts(raw.extradata, len),
                _ => &[],
            }
        }
    }

    /// Samples that the encoder puts before the first one.
    pub(crate) fn priming(&self) -> u32 {
        // SAFETY: alive.
        u32::try_from(unsafe { (*self.0).initial_padding }).unwrap_or(0)
    }

    /// Samples per channel that the encoder takes at a time.
    pub(crate) fn frame_size(&self) -> usize {
        // SAFETY: alive.
        usize::try_from(unsafe { (*self.0).frame_size }).unwrap_or(0)
    }

    /// Hands in a frame, or the end.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn send(&mut self, frame: Option<&Frame>) -> Result<(), AvError> {
        let frame = frame.map_or(ptr::null_mut(), Frame::as_ptr);
        // SAFETY: the encoder is open, the frame alive or null.
        AvError::check(unsafe { ffi::avcodec_send_frame(self.0, frame) }).map(drop)
    }

    /// Takes a packet out; `false` where there is none now.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn receive(&mut self, packet: &mut Packet) -> Result<bool, AvError> {
        // SAFETY: the encoder is open, the packet alive.
        match AvError::check(unsafe { ffi::avcodec_receive_packet(self.0, packet.as_ptr()) }) {
            Ok(_) => Ok(true),
            Err(AvError::AGAIN | AvError::EOF) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::avcodec_free_context(&mut self.0) }
    }
}

// x264's words for the numbers of ISO/IEC 23091-2. A number it has no word for is left unspecified.
fn primaries_name(n: u32) -> &'static str {
    match n {
        1 => "bt709",
        4 => "bt470m",
        5 => "bt470bg",
        6 => "smpte170m",
        7 => "smpte240m",
        8 => "film",
        9 => "bt2020",
        10 => "smpte428",
        11 => "smpte431",
        12 => "smpte432",
        _ => "undef",
    }
}

fn transfer_name(n: u32) -> &'static str {
    match n {
        1 => "bt709",
        4 => "bt470m",
        5 => "bt470bg",
        6 => "smpte170m",
        7 => "smpte240m",
        8 => "linear",
        9 => "log100",
        10 => "log316",
        11 => "iec61966-2-4",
        12 => "bt1361e",
        13 => "iec61966-2-1",
        14 => "bt2020-10",
        15 => "bt2020-12",
        16 => "smpte2084",
        17 => "smpte428",
        18 => "arib-std-b67",
        _ => "undef",
    }
}

fn matrix_name(n: u32) -> &'static str {
    match n {
        1 => "bt709",
        4 => "fcc",
        5 => "bt470bg",
        6 => "smpte170m",
        7 => "smpte240m",
        9 => "bt2020nc",
        10 => "bt2020c",
        _ => "undef",
    }
}
