//! Demuxing over our own source, with every way to open anything else shut.

use super::frame::Color;
use super::io::{ReadAt, Reader};
use super::packet::Packet;
use super::{AvError, NO_TIME, dict, names, probe};
use crate::{caps, decoders as decoders_table};
use ffmpeg_next::ffi;
use ffmpeg_next::ffi::AVMediaType as Type;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::slice;

/// An open input.
pub(crate) struct Demuxer {
    context: *mut ffi::AVFormatContext,
    // After the context: it is freed first.
    reader: Reader,
}

// SAFETY: used by one owner at a time; FFmpeg's contexts have no ties to a thread.
unsafe impl Send for Demuxer {}

/// What kind of stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Subtitles.
    Subtitle,
    /// Anything else.
    Other,
}

/// What the container and the first packets say of a stream. Copied; hostile.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) kind: Kind,
    pub(crate) codec: String,
    pub(crate) profile: Option<String>,
    pub(crate) tag: u32,
    pub(crate) time_base: (i32, i32),
    pub(crate) start: Option<i64>,
    pub(crate) duration: Option<i64>,
    pub(crate) frames: i64,
    pub(crate) bit_rate: i64,
    pub(crate) default: bool,
    pub(crate) attached_picture: bool,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) format: i32,
    pub(crate) level: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
    pub(crate) aspect: (i32, i32),
    pub(crate) average_rate: (i32, i32),
    pub(crate) real_rate: (i32, i32),
    pub(crate) matrix: Option<[i32; 9]>,
    pub(crate) range: Option<String>,
    pub(crate) space: Option<String>,
    pub(crate) transfer: Option<String>,
    pub(crate) primaries: Option<String>,
    pub(crate) color: Color,
    pub(crate) field_order: u32,
    pub(crate) sample_rate: i32,
    pub(crate) channels: i32,
    pub(crate) layout: Option<String>,
    pub(crate) extradata: Vec<u8>,
}

impl Stream {
    /// How long the container says that this stream lasts, in microseconds. Matroska says it in a tag, where at all.
    pub(crate) fn lasts_us(&self) -> Option<i64> {
        let said = self.duration.map(|d| super::rescale(d, self.time_base, (1, 1_000_000)));
        said.or_else(|| {
            self.tags.get("DURATION").or(self.tags.get("DURATION-eng")).and_then(|t| clock_time(t))
        })
    }
}

/// `01:02:03.456789` in microseconds.
fn clock_time(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':').map(|p| p.parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = i64::from(hours)
        .saturating_mul(3_600)
        .saturating_add(i64::from(minutes).saturating_mul(60))
        .saturating_add(i64::from(seconds));
    Some(seconds.saturating_mul(1_000_000).saturating_add(fraction)).filter(|us| *us > 0)
}

/// The whole input as the container describes it.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// FFmpeg's name of the demuxer.
    pub(crate) format: String,
    /// Microseconds.
    pub(crate) start_us: Option<i64>,
    /// Microseconds.
    pub(crate) duration_us: Option<i64>,
    /// Whether the duration was only guessed from the bit rate.
    pub(crate) duration_is_guess: bool,
    /// Whether time stamps may jump (transport and program streams).
    pub(crate) times_may_jump: bool,
    pub(crate) bit_rate: i64,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Demuxer {
    /// Opens `source` as `format` (FFmpeg's name) and nothing else. `decoders` is the list that probing may open, separated
    /// by commas.
    ///
    /// # Errors
    /// FFmpeg's, among them out of memory.
    pub(crate) fn open(source: Box<dyn ReadAt>, format: &str, decoders: &str) -> Result<Self, AvError> {
        if decoders_table::is_banned(format) {
            return Err(AvError(ffi::AVERROR_DEMUXER_NOT_FOUND));
        }
        let input_format = probe::demuxer(format).ok_or(AvError(ffi::AVERROR_DEMUXER_NOT_FOUND))?;
        let reader = Reader::new(source)?;
        // SAFETY: formats are static, and so are their names.
        let full_name = unsafe { names::copied((*input_format).name) }.unwrap_or_default();
        let max_streams = caps::MAX_STREAMS.to_string();
        // `protocol_whitelist` and `format_whitelist` stop nested opens inside FFmpeg; `io_open` below stops those that
        // would get past them; the locks stop the rest.
        let mut options = dict::Dict::from_pairs(&[
            ("protocol_whitelist", ""),
            ("format_whitelist", &full_name),
            ("codec_whitelist", decoders),
            ("max_streams", &max_streams),
            ("probesize", caps::PROBE_BYTES),
            ("analyzeduration", caps::PROBE_MICROSECONDS),
            ("max_probe_packets", caps::PROBE_PACKETS),
            ("enable_drefs", "0"),
            ("use_absolute_path", "0"),
        ])?;
        // SAFETY: no arguments; null is handled. The fields set are those that callers are to set before opening.
        let mut context = unsafe { ffi::avformat_alloc_context() };
        if context.is_null() {
            return Err(AvError::NO_MEMORY);
        }
        // SAFETY: the context is alive; the reader outlives it; on failure FFmpeg frees the context and leaves `pb` to us.
        unsafe {
            (*context).pb = reader.as_ptr();
            (*context).io_open = Some(deny_open);
            (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
            let opened = ffi::avformat_open_input(&mut context, c"".as_ptr(), input_format, options.as_mut());
            AvError::check(opened).map_err(|e| blamed(e, reader.failed()))?;
        }
        Ok(Self { context, reader })
    }

    /// Reads ahead until every stream's parameters are known, within the caps.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn find_stream_info(&mut self) -> Result<(), AvError> {
        let count = self.stream_count();
        let max_pixels = caps::MAX_PIXELS.to_string();
        let mut options: Vec<*mut ffi::AVDictionary> = Vec::with_capacity(count.max(1));
        for _ in 0..count {
            options
                .push(dict::Dict::from_pairs(&[("max_pixels", &max_pixels), ("threads", "1")])?.into_raw());
        }
        let array = if options.is_empty() { std::ptr::null_mut() } else { options.as_mut_ptr() };
        // SAFETY: one dictionary for each stream there is now, as asked for; FFmpeg looks at no more than those.
        let result = unsafe { ffi::avformat_find_stream_info(self.context, array) };
        for raw in options {
            // SAFETY: FFmpeg took entries out of the dictionary and left it to us.
            drop(unsafe { dict::Dict::from_raw(raw) });
        }
        AvError::check(result).map(drop).map_err(|e| blamed(e, self.read_failed()))
    }

    fn raw(&self) -> &ffi::AVFormatContext {
        // SAFETY: alive as long as `self`.
        unsafe { &*self.context }
    }

    /// Streams there are now; some containers add more as they are read.
    pub(crate) fn stream_count(&self) -> usize {
        (self.raw().nb_streams as usize).min(caps::MAX_STREAMS)
    }

    fn stream_ptr(&self, index: usize) -> Option<*mut ffi::AVStream> {
        if index >= self.stream_count() {
            return None;
        }
        // SAFETY: FFmpeg keeps `nb_streams` valid pointers there.
        Some(unsafe { *self.raw().streams.add(index) })
    }

    pub(super) fn parameters(
        &self,
        index: usize,
    ) -> Option<(*const ffi::AVCodecParameters, ffi::AVRational)> {
        let stream = self.stream_ptr(index)?;
        // SAFETY: a stream's parameters live as long as the stream.
        Some(unsafe { ((*stream).codecpar.cast_const(), (*stream).time_base) })
    }

    /// Delivers packets of these streams only.
    pub(crate) fn select(&mut self, wanted: &[usize]) {
        for index in 0..self.raw().nb_streams as usize {
            let discard = if wanted.contains(&index) {
                ffi::AVDiscard::AVDISCARD_DEFAULT
            } else {
                ffi::AVDiscard::AVDISCARD_ALL
            };
            // SAFETY: as in `stream_ptr`; this field is the caller's to set.
            unsafe { (**self.raw().streams.add(index)).discard = discard };
        }
    }

    /// Reads the next packet; `false` at the end.
    ///
    /// # Errors
    /// FFmpeg's.
    pub(crate) fn read(&mut self, packet: &mut Packet) -> Result<bool, AvError> {
        packet.clear();
        // SAFETY: both are alive.
        match AvError::check(unsafe { ffi::av_read_frame(self.context, packet.as_ptr()) }) {
            Ok(_) => Ok(true),
            Err(AvError::EOF) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Goes to the last key frame of a stream that is at or before `time`, in its time base; to the beginning where there is none.
    ///
    /// # Errors
    /// FFmpeg's: the container cannot do that.
    pub(crate) fn seek(&mut self, stream: usize, time: i64) -> Result<(), AvError> {
        let index = c_int::try_from(stream).map_err(|_| AvError::INVALID_ARGUMENT)?;
        // SAFETY: the context is alive; FFmpeg checks the index and takes any time.
        let sought =
            unsafe { ffi::av_seek_frame(self.context, index, time, ffi::AVSEEK_FLAG_BACKWARD as c_int) };
        AvError::check(sought).map(drop).map_err(|e| blamed(e, self.read_failed()))
    }

    /// Whether reading failed underneath rather than the data being wrong.
    pub(crate) fn read_failed(&self) -> bool {
        self.reader.failed()
    }

    /// Describes the container.
    pub(crate) fn container(&self) -> Container {
        let raw = self.raw();
        // SAFETY: the context is open, so it has a format, which is static; the metadata lives with the context.
        unsafe {
            Container {
                format: names::copied((*raw.iformat).name).unwrap_or_default(),
                start_us: known(raw.start_time),
                duration_us: known(raw.duration).filter(|d| *d > 0),
                duration_is_guess: ffi::av_fmt_ctx_get_duration_estimation_method(raw)
                    == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_BITRATE,
                times_may_jump: (*raw.iformat).flags & ffi::AVFMT_TS_DISCONT != 0,
                bit_rate: raw.bit_rate,
                tags: dict::entries(raw.metadata, caps::MAX_TAGS),
            }
        }
    }

    /// Describes a stream.
    pub(crate) fn stream(&self, index: usize) -> Option<Stream> {
        let stream = self.stream_ptr(index)?;
        // SAFETY: the stream and its parameters live as long as `self`; names are static or null; `extradata` holds
        // `extradata_size` bytes.
        unsafe {
            let st = &*stream;
            let par = &*st.codecpar;
            let aspect =
                if st.sample_aspect_ratio.num > 0 { st.sample_aspect_ratio } else { par.sample_aspect_ratio };
            // Read as plain numbers: some demuxers pass on what the file says unchecked.
            let color = Color {
                primaries: names::number(&raw const (*st.codecpar).color_primaries),
                transfer: names::number(&raw const (*st.codecpar).color_trc),
                matrix: names::number(&raw const (*st.codecpar).color_space),
            };
            Some(Stream {
                kind: match par.codec_type {
                    Type::AVMEDIA_TYPE_VIDEO => Kind::Video,
                    Type::AVMEDIA_TYPE_AUDIO => Kind::Audio,
                    Type::AVMEDIA_TYPE_SUBTITLE => Kind::Subtitle,
                    _ => Kind::Other,
                },
                codec: names::copied(ffi::avcodec_get_name(par.codec_id)).unwrap_or_default(),
                profile: names::copied(ffi::avcodec_profile_name(par.codec_id, par.profile)),
                tag: par.codec_tag,
                time_base: (st.time_base.num, st.time_base.den),
                start: known(st.start_time),
                duration: known(st.duration).filter(|d| *d > 0),
                frames: st.nb_frames,
                bit_rate: par.bit_rate,
                default: st.disposition & ffi::AV_DISPOSITION_DEFAULT != 0,
                attached_picture: st.disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0,
                tags: dict::entries(st.metadata, caps::MAX_TAGS),
                format: par.format,
                level: par.level,
                width: par.width,
                height: par.height,
                aspect: (aspect.num, aspect.den),
                average_rate: (st.avg_frame_rate.num, st.avg_frame_rate.den),
                real_rate: (st.r_frame_rate.num, st.r_frame_rate.den),
                matrix: display_matrix(stream),
                range: names::range_name(names::number(&raw const (*st.codecpar).color_range)),
                space: names::space_name(color.matrix),
                transfer: names::transfer_name(color.transfer),
                primaries: names::primaries_name(color.primaries),
                color,
                field_order: names::number(&raw const (*st.codecpar).field_order),
                sample_rate: par.sample_rate,
                channels: par.ch_layout.nb_channels,
                layout: layout_name(&par.ch_layout),
                extradata: match usize::try_from(par.extradata_size) {
                    Ok(len) if len > 0 && !par.extradata.is_null() => {
                        slice::from_raw_parts(par.extradata, len.min(caps::MAX_EXTRADATA)).to_vec()
                    }
                    _ => Vec::new(),
                },
            })
        }
    }
}

impl Drop for Demuxer {
    fn drop(&mut self) {
        // SAFETY: owned, closed once; the custom reader is left alone (AVFMT_FLAG_CUSTOM_IO) and freed after.
        unsafe { ffi::avformat_close_input(&mut self.context) }
    }
}

/// An error that a demuxer gave up with. Some call it a failed read where a file merely ends too soon (Matroska's does): that is
/// the file's fault unless our own source `failed`.
fn blamed(error: AvError, failed: bool) -> AvError {
    if error == AvError::IO && !failed { AvError::INVALID_DATA } else { error }
}

/// Every nested open ends here: a DASH manifest, a concat script or a MOV data reference names a file, this names none.
unsafe extern "C" fn deny_open(
    _: *mut ffi::AVFormatContext,
    pb: *mut *mut ffi::AVIOContext,
    _: *const c_char,
    _: c_int,
    _: *mut *mut ffi::AVDictionary,
) -> c_int {
    if !pb.is_null() {
        // SAFETY: FFmpeg's place for the result.
        unsafe { *pb = std::ptr::null_mut() };
    }
    -libc::EACCES
}

unsafe fn display_matrix(stream: *const ffi::AVStream) -> Option<[i32; 9]> {
    let mut size = 0usize;
    // SAFETY: the stream is alive by contract; FFmpeg reports the size of what it returns.
    let data = unsafe {
        ffi::av_stream_get_side_data(stream, ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX, &mut size)
    };
    if data.is_null() || size < 36 {
        return None;
    }
    let mut matrix = [0i32; 9];
    for (i, cell) in matrix.iter_mut().enumerate() {
        // SAFETY: nine 32-bit numbers are there; read without assuming alignment.
        *cell = unsafe { std::ptr::read_unaligned(data.cast::<i32>().add(i)) };
    }
    Some(matrix)
}

unsafe fn layout_name(layout: *const ffi::AVChannelLayout) -> Option<String> {
    let mut buffer = [0u8; 64];
    // SAFETY: the layout is alive by contract; the buffer is writable for the length passed and is ended with a NUL.
    let written =
        unsafe { ffi::av_channel_layout_describe(layout, buffer.as_mut_ptr().cast(), buffer.len()) };
    if written <= 0 {
        return None;
    }
    std::ffi::CStr::from_bytes_until_nul(&buffer).ok().map(|t| t.to_string_lossy().into_owned())
}

fn known(time: i64) -> Option<i64> {
    (time != NO_TIME).then_some(time)
}
