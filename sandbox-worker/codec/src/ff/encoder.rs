//! The encoders, each opened by name with options that are made here of numbers and words of ours.

use super::AvError;
use super::dict::Dict;
use super::frame::{Color, Frame};
use super::packet::Packet;
use ffmpeg_next::ffi;
use mpegflow_protocol::encoder::{EncoderSpeed, Tune, Tuning, VideoCodec};
use std::ffi::{CStr, c_int};
use std::ptr;
use std::slice;

/// An open encoder.
pub(crate) struct Encoder(*mut ffi::AVCodecContext);

// SAFETY: used by one owner at a time; FFmpeg's contexts have no ties to a thread.
unsafe impl Send for Encoder {}

/// What a video encode is to be: 8-bit 4:2:0, limited range, square pixels.
pub(crate) struct Video {
    pub(crate) codec: VideoCodec,
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
    pub(crate) speed: EncoderSpeed,
    pub(crate) tuning: Tuning,
    pub(crate) threads: u32,
}

impl Encoder {
    /// Opens the encoder for the codec: closed GOPs, key frames only where asked for.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn video(spec: &Video) -> Result<Self, AvError> {
        let encoder = Self::alloc(match spec.codec {
            VideoCodec::H264 => c"libx264",
            VideoCodec::Hevc => c"libx265",
            VideoCodec::Vp9 => c"libvpx-vp9",
            VideoCodec::Av1 => c"libsvtav1",
        })?;
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
            if spec.codec == VideoCodec::Vp9 {
                raw.colorspace = vp9_matrix(spec.color.matrix);
            }
            match spec.codec {
                // Constant quality below a cap on the average; libvpx keeps a buffer of its own.
                VideoCodec::Vp9 => raw.bit_rate = i64::from(spec.max_bit_rate),
                // SVT-AV1 1.4 caps the bits of its quality mode by this alone.
                VideoCodec::Av1 => raw.rc_max_rate = i64::from(spec.max_bit_rate),
                VideoCodec::H264 | VideoCodec::Hevc => {
                    raw.rc_max_rate = i64::from(spec.max_bit_rate);
                    raw.rc_buffer_size = to_int(spec.buffer_bits)?;
                }
            }
            // Key frames come by time, from the caller; the encoder's own count would put more between them.
            raw.gop_size = 1 << 30;
            raw.keyint_min = if spec.codec == VideoCodec::Vp9 { 1 << 30 } else { 1 };
            raw.thread_count = to_int(spec.threads.clamp(1, 16))?;
            raw.flags |= (ffi::AV_CODEC_FLAG_GLOBAL_HEADER | ffi::AV_CODEC_FLAG_BITEXACT) as c_int;
        }
        let crf = format!("{}.{}", spec.crf_tenths / 10, spec.crf_tenths % 10);
        let whole = (spec.crf_tenths.saturating_add(5) / 10).to_string();
        let params = spec.parameters();
        let mut options: Vec<(&str, &str)> = Vec::new();
        match spec.codec {
            VideoCodec::H264 => {
                options.extend([("preset", spec.speed_name()), ("profile", "high"), ("crf", crf.as_str())]);
                options.extend([
                    ("forced-idr", "1"),
                    ("sc_threshold", "0"),
                    ("x264-params", params.as_str()),
                ]);
            }
            VideoCodec::Hevc => {
                options.extend([("preset", spec.speed_name()), ("crf", crf.as_str())]);
                options.extend([("forced-idr", "1"), ("x265-params", params.as_str())]);
            }
            VideoCodec::Vp9 => {
                let deadline = if spec.speed == EncoderSpeed::Ultrafast { "realtime" } else { "good" };
                options.extend([
                    ("deadline", deadline),
                    ("cpu-used", spec.speed_name()),
                    ("crf", whole.as_str()),
                ]);
                // A hidden picture that refers across a segment's end would open the GOP.
                options.extend([("auto-alt-ref", "0"), ("row-mt", "1"), ("lag-in-frames", params.as_str())]);
            }
            VideoCodec::Av1 => {
                options.extend([("preset", spec.speed_name()), ("crf", whole.as_str())]);
                options.push(("svtav1-params", params.as_str()));
            }
        }
        if let (Some(tune), VideoCodec::H264 | VideoCodec::Hevc) = (spec.tuning.tune, spec.codec) {
            options.push((
                "tune",
                match tune {
                    Tune::Film => "film",
                    Tune::Animation => "animation",
                    Tune::Grain => "grain",
                },
            ));
        }
        encoder.open(&options)
    }

    /// Opens FFmpeg's JPEG encoder. `quality` is its quantiser, 2 (best) to 31.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn jpeg(width: u32, height: u32, quality: u8) -> Result<Self, AvError> {
        let encoder = Self::alloc(c"mjpeg")?;
        let to_int = |v: u32| c_int::try_from(v).map_err(|_| AvError::INVALID_ARGUMENT);
        // SAFETY: alive and owned; the fields are those a caller sets before opening.
        unsafe {
            let raw = &mut *encoder.0;
            raw.width = to_int(width)?;
            raw.height = to_int(height)?;
            raw.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_YUVJ420P;
            raw.time_base = ffi::AVRational { num: 1, den: 25 };
            raw.color_range = ffi::AVColorRange::AVCOL_RANGE_JPEG;
            raw.global_quality = c_int::from(quality).saturating_mul(ffi::FF_QP2LAMBDA as c_int);
            raw.thread_count = 1;
            raw.flags |= (ffi::AV_CODEC_FLAG_QSCALE | ffi::AV_CODEC_FLAG_BITEXACT) as c_int;
        }
        encoder.open(&[])
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

impl Video {
    fn speed_name(&self) -> &'static str {
        let [x26x, vp9, av1] = match self.speed {
            EncoderSpeed::Ultrafast => ["ultrafast", "8", "12"],
            EncoderSpeed::Veryfast => ["veryfast", "5", "10"],
            EncoderSpeed::Fast => ["fast", "4", "8"],
            EncoderSpeed::Medium => ["medium", "2", "6"],
            EncoderSpeed::Slow => ["slow", "1", "4"],
        };
        match self.codec {
            VideoCodec::H264 | VideoCodec::Hevc => x26x,
            VideoCodec::Vp9 => vp9,
            VideoCodec::Av1 => av1,
        }
    }

    /// The encoder's own parameters. Colour goes in as words of the encoder for numbers of the standard, or as those numbers that
    /// have a word, which spares turning hostile numbers into C enumerations.
    fn parameters(&self) -> String {
        let tuning = &self.tuning;
        let mut list = match self.codec {
            VideoCodec::H264 | VideoCodec::Hevc => vec![
                format!("colorprim={}", primaries_name(self.color.primaries, self.codec)),
                format!("transfer={}", transfer_name(self.color.transfer, self.codec)),
                format!("colormatrix={}", matrix_name(self.color.matrix, self.codec)),
            ],
            VideoCodec::Vp9 => return tuning.lookahead.unwrap_or(16).to_string(),
            VideoCodec::Av1 => {
                let said = |n: u32, word: &str| if word == UNSAID { 2 } else { n };
                let Color { primaries, transfer, matrix } = self.color;
                return format!(
                    "lp={}:scd=0:keyint=-1:color-primaries={}:transfer-characteristics={}:matrix-coefficients={}",
                    self.threads.clamp(1, 16),
                    said(primaries, primaries_name(primaries, self.codec)),
                    said(transfer, transfer_name(transfer, self.codec)),
                    said(matrix, matrix_name(matrix, self.codec)),
                );
            }
        };
        if self.codec == VideoCodec::Hevc {
            list.extend(
                [
                    "log-level=none",
                    "scenecut=0",
                    "open-gop=0",
                    "keyint=-1",
                    "min-keyint=1",
                    "repeat-headers=0",
                    "info=0",
                    "range=limited",
                ]
                .map(String::from),
            );
            // Told how many threads there are, it does not look for the machine's.
            list.push(format!("pools={}", self.threads.clamp(1, 16)));
        }
        let numbers = [
            ("bframes", tuning.b_frames),
            ("ref", tuning.refs),
            ("aq-mode", tuning.aq_mode),
            ("rc-lookahead", tuning.lookahead),
        ];
        list.extend(numbers.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))));
        list.join(":")
    }
}

/// The word of x264 for what is left unspecified.
const UNSAID: &str = "undef";

/// VP9 says nothing of colour but the matrix, and has no number for some.
fn vp9_matrix(n: u32) -> ffi::AVColorSpace {
    match n {
        1 => ffi::AVColorSpace::AVCOL_SPC_BT709,
        5 => ffi::AVColorSpace::AVCOL_SPC_BT470BG,
        6 => ffi::AVColorSpace::AVCOL_SPC_SMPTE170M,
        7 => ffi::AVColorSpace::AVCOL_SPC_SMPTE240M,
        9 => ffi::AVColorSpace::AVCOL_SPC_BT2020_NCL,
        _ => ffi::AVColorSpace::AVCOL_SPC_UNSPECIFIED,
    }
}

// The words of x264 and x265 for the numbers of ISO/IEC 23091-2. A number it has no word for is left unspecified.
fn primaries_name(n: u32, codec: VideoCodec) -> &'static str {
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
        _ if codec == VideoCodec::Hevc => "unknown",
        _ => UNSAID,
    }
}

fn transfer_name(n: u32, codec: VideoCodec) -> &'static str {
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
        _ if codec == VideoCodec::Hevc => "unknown",
        _ => UNSAID,
    }
}

fn matrix_name(n: u32, codec: VideoCodec) -> &'static str {
    match n {
        1 => "bt709",
        4 => "fcc",
        5 => "bt470bg",
        6 => "smpte170m",
        7 => "smpte240m",
        9 => "bt2020nc",
        10 => "bt2020c",
        _ if codec == VideoCodec::Hevc => "unknown",
        _ => UNSAID,
    }
}
