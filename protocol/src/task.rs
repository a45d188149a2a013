//! The plan of one task, from the broker through the supervisor to the codec, and its result on the way back.
//!
//! A task names inputs and outputs by position only. What lies behind a position (a key, a URL, a tenant) is the broker's
//! secret; the codec and the supervisor never learn it.

use crate::job::DecoderSet;
use crate::media::MediaInfo;
use serde::{Deserialize, Serialize};

/// What a codec process is to do with its inputs and outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum TaskSpec {
    /// Describe input 0. No outputs.
    Probe(ProbeTask),
    /// Decode input 0 once and encode it to every rung and audio rendition; output *n* is one fragmented MP4 track.
    Encode(EncodeTask),
    /// Turn encoded tracks (input *n*) into CMAF tracks and playlists.
    Package(PackageTask),
    /// Read the packaged objects as a player would and compare them with what was planned. No outputs.
    Check(CheckTask),
}

impl TaskSpec {
    /// The name used in logs, metrics and the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Probe(_) => "probe",
            Self::Encode(_) => "encode",
            Self::Package(_) => "package",
            Self::Check(_) => "check",
        }
    }
}

/// See [`TaskSpec::Probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeTask {
    /// Decoders and demuxers that may touch the input.
    pub decoders: DecoderSet,
}

/// See [`TaskSpec::Encode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeTask {
    /// Decoders and demuxers that may touch the input.
    pub decoders: DecoderSet,
    /// Length of a segment in milliseconds: every rung has a key frame (IDR, closed GOP) at the first frame at or after each
    /// multiple of it, counted from the first frame.
    pub segment_ms: u32,
    /// The video to make, if any.
    pub video: Option<VideoEncode>,
    /// The audio renditions to make.
    pub audio: Vec<AudioEncode>,
    /// Duration the probe found, for progress; milliseconds.
    pub expected_duration_ms: Option<u64>,
}

/// Video of an [`EncodeTask`]: one decode, several rungs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoEncode {
    /// Stream index in input 0.
    pub stream: u32,
    /// Clockwise turn to apply: 0, 90, 180 or 270 degrees.
    pub rotation: u16,
    /// Mirror left to right before the turn.
    pub mirrored: bool,
    /// Frames closer together than this rate allows are dropped; frames per second.
    pub max_frame_rate: u32,
    /// The rungs, widest first.
    pub rungs: Vec<Rung>,
}

/// One video rendition of a ladder: H.264 High, 8-bit 4:2:0, square pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Position of its output.
    pub output: u32,
    /// Width of the upright picture in pixels, even.
    pub width: u32,
    /// Height of the upright picture in pixels, even.
    pub height: u32,
    /// x264 constant rate factor, in tenths (230 = 23.0).
    pub crf_tenths: u32,
    /// Most bits per second over the buffer.
    pub max_bit_rate: u32,
    /// Rate-control buffer in bits.
    pub buffer_bits: u32,
    /// x264 preset.
    pub speed: EncoderSpeed,
}

/// An x264 preset that a plan may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderSpeed {
    /// x264 `ultrafast`.
    Ultrafast,
    /// x264 `veryfast`.
    Veryfast,
    /// x264 `fast`.
    Fast,
    /// x264 `medium`.
    Medium,
}

/// One audio rendition: AAC-LC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioEncode {
    /// Position of its output.
    pub output: u32,
    /// Stream index in input 0.
    pub stream: u32,
    /// Bits per second.
    pub bit_rate: u32,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels: 1 or 2.
    pub channels: u32,
}

/// See [`TaskSpec::Package`]. Output 0 is the HLS multivariant playlist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageTask {
    /// The tracks. Video first, widest first.
    pub tracks: Vec<PackageTrack>,
    /// Length of a segment in milliseconds.
    pub segment_ms: u32,
}

/// One track of a [`PackageTask`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageTrack {
    /// Position of its input: a fragmented MP4 with one track.
    pub input: u32,
    /// Position of the output that takes the CMAF track: one file, init segment and then the media segments.
    pub media_output: u32,
    /// Position of the output that takes its HLS media playlist (byte ranges of the track).
    pub playlist_output: u32,
    /// The track's address as the playlist beside it writes it, such as `video-720p.mp4`.
    pub media_uri: String,
    /// The media playlist's address as the multivariant playlist writes it, such as `video-720p.m3u8`.
    pub playlist_uri: String,
    /// What it must be.
    pub expect: ExpectTrack,
    /// ISO 639-2 language of an audio track, where known.
    pub language: Option<String>,
}

/// What a track must turn out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ExpectTrack {
    /// H.264 with this picture and, within one, this many frames.
    Video {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Frames the encode task counted.
        frames: u64,
        /// Duration the encode task counted, in milliseconds.
        duration_ms: u64,
    },
    /// AAC-LC.
    Audio {
        /// Samples per second.
        sample_rate: u32,
        /// Channels.
        channels: u32,
        /// Duration the encode task counted, in milliseconds.
        duration_ms: u64,
    },
}

/// See [`TaskSpec::Check`]. Input 0 is the multivariant playlist; then, for each track, its playlist and its media.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckTask {
    /// The tracks that must be there, and nothing else.
    pub tracks: Vec<CheckTrack>,
    /// Length of a segment in milliseconds.
    pub segment_ms: u32,
    /// Duration of the source in milliseconds, where the probe found one.
    pub source_duration_ms: Option<u64>,
}

/// One track of a [`CheckTask`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckTrack {
    /// Position of its media playlist among the inputs.
    pub playlist_input: u32,
    /// Position of its media among the inputs.
    pub media_input: u32,
    /// The address of the media in the playlist.
    pub media_uri: String,
    /// The address of the playlist in the multivariant playlist.
    pub playlist_uri: String,
    /// What it must be.
    pub expect: ExpectTrack,
}

/// What a codec process found or made. Outputs themselves go over their own descriptors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum TaskResult {
    /// Of [`TaskSpec::Probe`].
    Probe(ProbeResult),
    /// Of [`TaskSpec::Encode`].
    Encode(EncodeResult),
    /// Of [`TaskSpec::Package`].
    Package(PackageResult),
    /// Of [`TaskSpec::Check`].
    Check(CheckResult),
}

impl TaskResult {
    /// Whether this is the result of such a task.
    pub const fn answers(&self, spec: &TaskSpec) -> bool {
        matches!(
            (self, spec),
            (Self::Probe(_), TaskSpec::Probe(_))
                | (Self::Encode(_), TaskSpec::Encode(_))
                | (Self::Package(_), TaskSpec::Package(_))
                | (Self::Check(_), TaskSpec::Check(_))
        )
    }
}

/// See [`TaskResult::Probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeResult {
    /// The description.
    pub media: MediaInfo,
}

/// See [`TaskResult::Encode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeResult {
    /// One for each output, by position.
    pub tracks: Vec<EncodedTrack>,
    /// Video frames decoded.
    pub frames_decoded: u64,
    /// Video frames dropped to keep the frame rate's cap.
    pub frames_dropped: u64,
    /// Packets and frames that could not be decoded and were skipped.
    pub decode_errors: u64,
}

/// One output of an encode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedTrack {
    /// Position of the output.
    pub output: u32,
    /// Video frames, or audio samples per channel.
    pub units: u64,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// See [`TaskResult::Package`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageResult {
    /// One for each track, in the task's order.
    pub tracks: Vec<PackagedTrack>,
}

/// One track of a package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedTrack {
    /// Segments.
    pub segments: u32,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Bytes of the media.
    pub bytes: u64,
    /// RFC 6381 codec string, such as `avc1.64001f`.
    pub codecs: String,
    /// Highest segment bit rate (HLS BANDWIDTH), bits per second.
    pub peak_bit_rate: u64,
    /// Average bit rate (HLS AVERAGE-BANDWIDTH), bits per second.
    pub average_bit_rate: u64,
}

/// See [`TaskResult::Check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// Everything that is wrong, at most 16 entries of at most 256 characters; empty when the output may be committed.
    pub problems: Vec<String>,
    /// One for each track, in the task's order.
    pub tracks: Vec<CheckedTrack>,
}

/// What the check counted in one track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckedTrack {
    /// Video frames or audio packets.
    pub packets: u64,
    /// Frames decoded (the first segment, the last segment, and a sample between).
    pub frames_decoded: u64,
    /// Duration in milliseconds.
    pub duration_ms: u64,
}
