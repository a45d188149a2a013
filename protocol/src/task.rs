//! The plan of one task, from the broker through the supervisor to the codec, and its result on the way back.
//!
//! A task names inputs and outputs by position only. What lies behind a position (a key, a URL, a tenant) is the broker's
//! secret; the codec and the supervisor never learn it.

use crate::encoder::{EncoderSpeed, Tuning, VideoCodec};
use crate::job::{DecoderSet, KeptTag};
use crate::media::MediaInfo;
use serde::{Deserialize, Serialize};

/// What a codec process is to do with its inputs and outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum TaskSpec {
    /// Describe input 0. No outputs.
    Probe(ProbeTask),
    /// Decode input 0 once and encode it to every rung, audio rendition and still; output *n* is one fragmented MP4 track,
    /// or one JPEG picture.
    Encode(EncodeTask),
    /// Turn encoded tracks and stills (input *n*) into what a player fetches: CMAF tracks with their manifests, or one file.
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
    /// An input that is cut off is described as far as it goes.
    #[serde(default)]
    pub partial: bool,
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
    /// Of an input that is cut off or damaged what there is is encoded, rather than refused.
    #[serde(default)]
    pub partial: bool,
    /// The streams whose beginnings say where the timeline starts, where those are not just the ones that are encoded: tasks
    /// that make different tracks of one output need the same zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Only a part of the video is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<Chunk>,
}

/// See [`EncodeTask::timeline`]. Stream indices in input 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// The pictures.
    pub video: Option<u32>,
    /// The sound.
    pub audio: Vec<u32>,
}

/// A part of a video: whole segments of it, one behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// Where the chunk before ended; none for the first.
    pub from: Option<Cut>,
    /// It ends before the first frame shown at or after this many milliseconds; with the input where there is none.
    pub until_ms: Option<u64>,
}

/// A place between two frames of a video, and what its clock has to remember to go on there. Ticks are of 90,000 a second from
/// the timeline's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// When the frame behind it is shown.
    pub time: i64,
    /// When the frame before it is shown.
    pub last: i64,
    /// How long that one would be shown without a next.
    pub last_length: i64,
    /// When the next frame is due under the frame rate's cap.
    pub due: i64,
    /// What was added to the source's times.
    pub offset: i64,
    /// The segment that the frame before it is in.
    pub segment: i64,
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
    /// Interlaced frames are made progressive: those that show it, and where nothing moves those that are marked so.
    #[serde(default)]
    pub deinterlace: bool,
    /// The rungs, widest first; none where only stills are made.
    pub rungs: Vec<Rung>,
    /// A picture that stands for the whole.
    #[serde(default)]
    pub poster: Option<PosterEncode>,
    /// Small pictures from all over it.
    #[serde(default)]
    pub sprites: Option<SpritesEncode>,
}

/// A JPEG of the first frame shown at or after a time, or of the last frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PosterEncode {
    /// Position of its output.
    pub output: u32,
    /// Width of the upright picture in pixels, even.
    pub width: u32,
    /// Height of the upright picture in pixels, even.
    pub height: u32,
    /// Milliseconds from the start.
    pub at_ms: u64,
}

/// One JPEG of many small pictures in rows, the first one top left. Tile *k* shows the frame at *k* intervals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpritesEncode {
    /// Position of its output.
    pub output: u32,
    /// Width of a tile in pixels, even.
    pub tile_width: u32,
    /// Height of a tile in pixels, even.
    pub tile_height: u32,
    /// Tiles in a row.
    pub columns: u32,
    /// Rows of the sheet.
    pub rows: u32,
    /// Milliseconds between tiles.
    pub interval_ms: u32,
}

/// One video rendition of a ladder: 8-bit 4:2:0, square pixels, limited range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Position of its output.
    pub output: u32,
    /// What it is coded in.
    pub codec: VideoCodec,
    /// Width of the upright picture in pixels, even.
    pub width: u32,
    /// Height of the upright picture in pixels, even.
    pub height: u32,
    /// Constant rate factor of the codec's own scale, in tenths (230 = 23.0).
    pub crf_tenths: u32,
    /// Most bits per second over the buffer.
    pub max_bit_rate: u32,
    /// Rate-control buffer in bits.
    pub buffer_bits: u32,
    /// How much work goes into a bit.
    pub speed: EncoderSpeed,
    /// What else was asked of the encoder.
    #[serde(default)]
    pub tuning: Tuning,
    /// The source's packets are taken as they are where they are what this rung is to be.
    #[serde(default)]
    pub copy: bool,
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

/// See [`TaskSpec::Package`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageTask {
    /// The CMAF tracks. Video first, widest first.
    pub tracks: Vec<PackageTrack>,
    /// Length of a segment in milliseconds.
    pub segment_ms: u32,
    /// Positions of the outputs that list the CMAF tracks; there where the tracks are.
    pub manifests: Option<Manifests>,
    /// One file of several tracks, if any.
    pub file: Option<PackageFile>,
    /// Pictures.
    pub stills: Vec<PackageStill>,
}

/// Positions of the two manifests of one CMAF set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifests {
    /// HLS multivariant playlist.
    pub hls: u32,
    /// DASH media presentation description.
    pub dash: u32,
}

/// An MP4 file with its index first, so that it plays while it is fetched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Position of its output.
    pub output: u32,
    /// Its name, such as `video.mp4`.
    pub uri: String,
    /// Its tracks, in order.
    pub tracks: Vec<FileTrack>,
    /// What is written of the input's own description.
    #[serde(default)]
    pub tags: Vec<FileTag>,
}

/// One tag of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTag {
    /// Which one.
    pub tag: KeptTag,
    /// What it says, at most 512 characters.
    pub value: String,
}

/// One track of a [`PackageFile`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTrack {
    /// Position of its input: a fragmented MP4 with one track.
    pub input: u32,
    /// What it must be.
    pub expect: ExpectTrack,
    /// ISO 639-2 language of an audio track, where known.
    pub language: Option<String>,
}

/// One JPEG of a [`PackageTask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageStill {
    /// Position of its input.
    pub input: u32,
    /// Position of its output.
    pub output: u32,
    /// Its name, such as `poster.jpg`.
    pub uri: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Position of the output that takes the WebVTT index of a sprite sheet, and what is in it.
    pub index: Option<(u32, SpriteIndex)>,
}

/// Which tile of a sprite sheet stands for which time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpriteIndex {
    /// The index's name, such as `sprites.vtt`.
    pub uri: String,
    /// Width of a tile in pixels.
    pub tile_width: u32,
    /// Height of a tile in pixels.
    pub tile_height: u32,
    /// Tiles in a row.
    pub columns: u32,
    /// Tiles there are.
    pub tiles: u32,
    /// Milliseconds between tiles.
    pub interval_ms: u32,
    /// Milliseconds of the whole.
    pub duration_ms: u64,
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
    /// The input is a chunk of a longer track: the track has its place in that one's timeline, and no index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<ChunkPlace>,
    /// Chunks that follow the first, which is `input`: all of them become one track.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<JoinedChunk>,
}

/// Where a chunk is in its track, in ticks of 90,000 a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkPlace {
    /// When its first frame is shown.
    pub start: i64,
    /// How long before the first picture is shown decoding begins, in the whole track.
    pub lead: u32,
}

/// A chunk of a joined track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedChunk {
    /// Position of its input.
    pub input: u32,
    /// When its first frame is shown, in ticks of 90,000 a second.
    pub start: i64,
}

/// What a track must turn out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ExpectTrack {
    /// Video with this picture and, within one, this many frames.
    Video {
        /// What it is coded in.
        codec: VideoCodec,
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

impl ExpectTrack {
    /// Duration the encode task counted, in milliseconds.
    pub const fn duration_ms(&self) -> u64 {
        match self {
            Self::Video { duration_ms, .. } | Self::Audio { duration_ms, .. } => *duration_ms,
        }
    }
}

/// See [`TaskSpec::Check`]. Whatever is an input must be named here once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckTask {
    /// The CMAF tracks that must be there, and nothing else.
    pub tracks: Vec<CheckTrack>,
    /// Length of a segment in milliseconds.
    pub segment_ms: u32,
    /// Duration of the source in milliseconds, where the probe found one.
    pub source_duration_ms: Option<u64>,
    /// Positions of the manifests among the inputs; there where the CMAF tracks are.
    pub manifests: Option<Manifests>,
    /// The one file, if any.
    pub file: Option<CheckFile>,
    /// The pictures.
    pub stills: Vec<CheckStill>,
    /// What each CMAF track's playlist lists is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
}

impl CheckTask {
    /// Name and expectation of every track, in the order of [`CheckResult::tracks`].
    pub fn expected(&self) -> impl Iterator<Item = (&str, &ExpectTrack)> {
        let cmaf = self.tracks.iter().map(|t| (t.media_uri.as_str(), &t.expect));
        let file = self.file.iter().flat_map(|f| f.tracks.iter().map(|t| (f.uri.as_str(), t)));
        cmaf.chain(file)
    }
}

/// The file of a [`CheckTask`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckFile {
    /// Its position among the inputs.
    pub input: u32,
    /// Its name.
    pub uri: String,
    /// Its tracks, in order.
    pub tracks: Vec<ExpectTrack>,
    /// What it says of itself, and nothing else.
    #[serde(default)]
    pub tags: Vec<FileTag>,
}

/// A picture of a [`CheckTask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckStill {
    /// Its position among the inputs.
    pub input: u32,
    /// Its name.
    pub uri: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Position of its index among the inputs, and what must be in it.
    pub index: Option<(u32, SpriteIndex)>,
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
    /// It is a chunk of a longer track, and this is what is known of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<CheckChunk>,
}

/// What a chunk has to be beside a track. Ticks are of 90,000 a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckChunk {
    /// When its first frame is shown.
    pub start: i64,
    /// When its last frame ends.
    pub end: i64,
    /// Position of the first chunk's media among the inputs, whose header it has to have; none for the first itself.
    pub like: Option<u32>,
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// The input was cut off or damaged beyond what is borne, and the plan allowed that.
    #[serde(default)]
    pub partial: bool,
    /// How far what was decoded reaches, in milliseconds.
    #[serde(default)]
    pub good_ms: u64,
    /// What the container says that the streams last, in milliseconds, where it says so.
    #[serde(default)]
    pub said_ms: Option<u64>,
    /// Which part of the video it is, where only one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<MadeChunk>,
}

/// The part of a video that an encode made. Ticks are of 90,000 a second from the timeline's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeChunk {
    /// When its first frame is shown.
    pub start: i64,
    /// When its last frame ends.
    pub end: i64,
    /// How long before its first picture is shown decoding begins.
    pub lead: u32,
    /// Where the next chunk begins; none where the input has ended.
    pub next: Option<Cut>,
}

/// One output of an encode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedTrack {
    /// Position of the output.
    pub output: u32,
    /// Video frames, audio samples per channel, or pictures of a still.
    pub units: u64,
    /// Duration in milliseconds; of a still, that of the video it is from.
    pub duration_ms: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The source's packets as they were, rather than an encode.
    #[serde(default)]
    pub copied: bool,
}

/// See [`TaskResult::Package`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageResult {
    /// One for each CMAF track, in the task's order.
    pub tracks: Vec<PackagedTrack>,
    /// The file, where one was planned.
    pub file: Option<PackagedFile>,
}

/// The file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedFile {
    /// Bytes of it.
    pub bytes: u64,
    /// Duration of the longest track in milliseconds.
    pub duration_ms: u64,
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
    /// One for each CMAF track and then for each track of the file, in the task's order.
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
    /// What its playlist lists, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<ListedTrack>,
}

/// What the playlist of a track was found to list, and the track to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedTrack {
    /// Bytes of the header, at the start.
    pub header: u64,
    /// Where the first segment starts; each of the others starts where the one before ends.
    pub first: u64,
    /// RFC 6381 codec string.
    pub codecs: String,
    /// The segments, in order.
    pub segments: Vec<ListedSegment>,
}

/// One segment of a [`ListedTrack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedSegment {
    /// Microseconds that it lasts.
    pub micros: u64,
    /// Its length in bytes.
    pub bytes: u64,
}
