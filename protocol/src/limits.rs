//! Every size that a parser, a buffer or a plan is held to. Bytes unless the name says otherwise.

/// A codec control frame's payload, either way (results carry the whole media description).
pub const MAX_CONTROL_FRAME: usize = 1 << 20;
/// One read that the codec may ask of an input.
pub const MAX_INPUT_READ: u32 = 1 << 20;
/// Inputs of one task: the longest ladder's tracks.
pub const MAX_INPUTS: usize = 32;
/// Outputs of one task.
pub const MAX_OUTPUTS: usize = 32;
/// One part of an output, as uploaded. Every part but the last of an object has exactly this length.
pub const PART_SIZE: u64 = 8 << 20;
/// Parts of one object (80 GiB at [`PART_SIZE`]).
pub const MAX_PARTS: u32 = 10_000;
/// Parts of one output that may be on their way at once, after its first: that is how far from the first one that is missing a part may be.
pub const PARTS_AT_ONCE: u32 = 4;
/// A range of an input, or a part of an output, that is shorter goes through the broker, whatever its pool may: it costs storage more
/// calls than it is worth.
pub const PRESIGNED_LEAST: u64 = 256 << 10;
/// Certificates of storage's authorities, as PEM, that come with a URL.
pub const MAX_STORAGE_CA: usize = 64 << 10;
/// A JSON body of the public API.
pub const MAX_API_BODY: usize = 64 << 10;
/// A JSON body of the worker API, either way (a completion carries a [`crate::task::TaskResult`]).
pub const MAX_WORKER_BODY: usize = 2 << 20;
/// One upload.
pub const MAX_UPLOAD: u64 = 64 << 30;
/// What a codec may write to its log in one task; the rest is dropped.
pub const MAX_CODEC_LOG: usize = 64 << 10;
/// One line of a codec's log, in characters.
pub const MAX_LOG_LINE: usize = 512;
/// Log lines in one heartbeat.
pub const MAX_LOG_LINES: usize = 64;
/// Streams of one input that are looked at.
pub const MAX_STREAMS: usize = 64;
/// Width or height of a decoded frame, in pixels.
pub const MAX_FRAME_SIDE: u32 = 8_192;
/// Area of a decoded frame, in pixels: 8K UHD (7680 × 4320), rounded up.
pub const MAX_FRAME_PIXELS: u64 = 8_192 * 4_352;
/// Duration of an input, in milliseconds: 24 hours.
pub const MAX_DURATION_MS: u64 = 24 * 3_600 * 1_000;
/// Rungs of one ladder.
pub const MAX_RUNGS: usize = 8;
/// Segments of one track: 24 hours of 2-second segments.
pub const MAX_SEGMENTS: usize = 43_200;
