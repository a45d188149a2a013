//! What a task may use. A hostile input must not be able to ask for more than its description warrants; an honest one
//! must never meet these limits.

use mpegflow_protocol::codec::ProcessLimits;
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::limits::{MAX_DURATION_MS, MAX_PARTS, PART_SIZE};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;
/// The most an object can have in parts.
const MAX_OBJECT: u64 = PART_SIZE.saturating_mul(MAX_PARTS as u64);
/// A playlist of the longest track has 43,200 entries of about 60 bytes.
pub const PLAYLIST_BYTES: u64 = 16 * MIB;

/// A JPEG of 8192 × 4352 pixels at the quality that is used.
pub const STILL_BYTES: u64 = 32 * MIB;

/// Memory classes: after an out-of-memory failure a task is tried once more in the next one.
pub const MEMORY_CLASSES: u32 = 2;

/// What one attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Limits of the codec process in the first memory class.
    pub limits: ProcessLimits,
    /// Wall time of an attempt in milliseconds.
    pub wall_ms: u64,
}

impl Budget {
    fn new(address_space: u64, wall_ms: u64, threads: u32) -> Self {
        let wall_ms = wall_ms.min(MAX_DURATION_MS);
        // Encoder, scaler and decoder threads together can burn a little more than the threads that were asked for.
        let cpu_seconds = (wall_ms / 1000).saturating_mul(u64::from(threads).saturating_add(1)).max(60);
        let single_allocation = (address_space / 4).min(512 * MIB);
        Self {
            limits: ProcessLimits { address_space, cpu_seconds, file_size: 0, single_allocation },
            wall_ms,
        }
    }
}

/// The same limits in another memory class.
pub fn in_class(limits: ProcessLimits, class: u32) -> ProcessLimits {
    let address_space =
        limits.address_space.saturating_mul(1_u64 << class.min(MEMORY_CLASSES.saturating_sub(1)));
    ProcessLimits { address_space, ..limits }
}

/// Milliseconds for touching each byte: ten minutes, and a second for each 4 MiB.
const fn touching(bytes: u64) -> u64 {
    (bytes / (4 * MIB)).saturating_mul(1000).saturating_add(600_000)
}

/// A probe reads headers, or at worst the whole file once.
pub fn probe(size: u64, threads: u32) -> Budget {
    Budget::new(2 * GIB, touching(size), threads)
}

/// An encode. `source_pixels` is the decoded picture, `rung_pixels` the sum over the ladder; 0 without video.
pub fn encode(
    codec: VideoCodec,
    duration_ms: Option<u64>,
    source_pixels: u64,
    rung_pixels: u64,
    threads: u32,
) -> Budget {
    // x264's look-ahead and reference frames of a 1080p ladder take about 1.5 GiB of address space; the newer encoders look
    // further ahead at larger blocks.
    let (memory, slowness) = match codec {
        VideoCodec::H264 => (1, 1),
        VideoCodec::Hevc => (2, 4),
        VideoCodec::Vp9 => (2, 6),
        VideoCodec::Av1 => (3, 6),
    };
    let address_space = if source_pixels.max(rung_pixels / 2) > 1920 * 1200 { 6 * GIB } else { 3 * GIB };
    let full_hd = (rung_pixels.saturating_add(source_pixels) / (1920 * 1080)).saturating_add(1);
    let wall_ms = match duration_ms {
        Some(ms) => {
            ms.saturating_mul(30).saturating_mul(full_hd).saturating_mul(slowness).saturating_add(HOUR_MS / 2)
        }
        None => 12 * HOUR_MS,
    };
    Budget::new(address_space.saturating_mul(memory), wall_ms, threads)
}

/// Packaging and checking read and write each byte about once.
pub fn copy(bytes: u64, threads: u32) -> Budget {
    Budget::new(2 * GIB, touching(bytes), threads)
}

/// The most bytes a track at `bit_rate` may have; generous, since rate control is held over a buffer and not a file.
pub fn track_bytes(bit_rate: u32, duration_ms: Option<u64>) -> u64 {
    let ms = duration_ms.unwrap_or(MAX_DURATION_MS).saturating_add(60_000).saturating_mul(2);
    (ms / 1000).saturating_mul(u64::from(bit_rate) / 8).saturating_add(32 * MIB).min(MAX_OBJECT)
}

/// The most bytes a packaged track may have: its samples, and boxes around them.
pub fn packaged_bytes(encoded: u64) -> u64 {
    encoded.saturating_add(encoded / 4).saturating_add(8 * MIB).min(MAX_OBJECT)
}
