//! Every bound that the codec holds FFmpeg to, beside those of the protocol.

use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;

/// Streams of one input.
pub(crate) const MAX_STREAMS: usize = limits::MAX_STREAMS;
/// Area of a picture in pixels.
pub(crate) const MAX_PIXELS: u64 = limits::MAX_FRAME_PIXELS;
/// Side of a picture in pixels.
pub(crate) const MAX_SIDE: i32 = limits::MAX_FRAME_SIDE as i32;
/// Samples of one decoded audio frame: five seconds at 192 kHz is far above any codec's.
pub(crate) const MAX_SAMPLES_PER_FRAME: i64 = 1 << 20;
/// Container or stream tags that are looked at.
pub(crate) const MAX_TAGS: usize = 64;
/// Codec configuration that is copied out of a container.
pub(crate) const MAX_EXTRADATA: usize = 1 << 20;
/// Bytes read ahead to find stream parameters.
pub(crate) const PROBE_BYTES: &str = "16777216";
/// Media time read ahead to find stream parameters.
pub(crate) const PROBE_MICROSECONDS: &str = "10000000";
/// Packets read ahead for streams that have not shown parameters.
pub(crate) const PROBE_PACKETS: &str = "2500";
/// Head of the input that format probes see at most.
pub(crate) const SNIFF_BYTES: usize = 1 << 20;
/// Duration of an input in milliseconds.
pub(crate) const MAX_DURATION_MS: i64 = limits::MAX_DURATION_MS as i64;
/// Frames of one input: 24 hours at 240 frames per second.
pub(crate) const MAX_FRAMES: u64 = 24 * 3_600 * 240;
/// Packets of one input that a full read looks at: 24 hours of several streams.
pub(crate) const MAX_PACKETS: u64 = 60_000_000;
/// A recording that cannot show one good packet in this many is not worth going on with.
pub(crate) const MAX_ERRORS_WITHOUT_A_FRAME: u64 = 20_000;
/// Bytes of one segment of one track: 60 seconds at 100 Mbit/s is 750 MB, far above any plan; this stops one that grows.
pub(crate) const MAX_SEGMENT_BYTES: usize = 256 << 20;

/// Pixels that may be decoded before the ratio below counts: 9,600 pictures of 1920 × 1080.
const FREE_PIXELS: u64 = 20_000_000_000;
/// Pixels that each input byte may then turn into. A still 1080p screen at 100 bytes a frame makes 20,000.
const PIXELS_PER_BYTE: u64 = 100_000;

/// Counts decoded pictures against the caps.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    frames: u64,
    pixels: u64,
}

impl Meter {
    /// Counts one picture of an input of `input_len` bytes.
    ///
    /// # Errors
    /// [`FailureCode::FrameTooLarge`] or [`FailureCode::ResourceLimit`].
    pub(crate) fn count(&mut self, width: i32, height: i32, input_len: u64) -> Result<(), Failure> {
        check_size(width, height)?;
        self.frames = self.frames.saturating_add(1);
        let area = u64::try_from(width).unwrap_or(0).saturating_mul(u64::try_from(height).unwrap_or(0));
        self.pixels = self.pixels.saturating_add(area);
        if self.frames > MAX_FRAMES {
            return Err(Failure::new(FailureCode::ResourceLimit, format!("more than {MAX_FRAMES} frames")));
        }
        if self.pixels > FREE_PIXELS.saturating_add(input_len.saturating_mul(PIXELS_PER_BYTE)) {
            let message = format!("{} bytes decode to more than {} pixels", input_len, self.pixels);
            return Err(Failure::new(FailureCode::ResourceLimit, message));
        }
        Ok(())
    }
}

/// Holds a picture size to the caps.
///
/// # Errors
/// [`FailureCode::FrameTooLarge`].
pub(crate) fn check_size(width: i32, height: i32) -> Result<(), Failure> {
    let area = u64::try_from(width).unwrap_or(0).saturating_mul(u64::try_from(height).unwrap_or(0));
    if width > MAX_SIDE || height > MAX_SIDE || area > MAX_PIXELS {
        return Err(too_large(&format!("the picture is {width} × {height} pixels")));
    }
    Ok(())
}

/// The failure for a picture above the caps.
pub(crate) fn too_large(what: &str) -> Failure {
    let max = limits::MAX_FRAME_SIDE;
    Failure::new(
        FailureCode::FrameTooLarge,
        format!("{what}; at most {max} a side and {MAX_PIXELS} in all are accepted"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_held_to_side_and_area() {
        assert!(check_size(7680, 4320).is_ok());
        assert!(check_size(8192, 4352).is_ok());
        for (w, h) in [(8193, 16), (8192, 4353), (12_000, 12_000), (i32::MAX, i32::MAX)] {
            assert_eq!(check_size(w, h).unwrap_err().code, FailureCode::FrameTooLarge);
        }
    }

    #[test]
    fn a_bomb_is_stopped_by_what_its_bytes_turn_into() {
        let mut meter = Meter::default();
        let bomb = (0..10_000).find_map(|_| meter.count(8192, 4352, 1_000).err()).unwrap();
        assert_eq!(bomb.code, FailureCode::ResourceLimit);
        let mut still = Meter::default();
        assert!((0..100_000u64).all(|_| still.count(1920, 1080, 10_000_000).is_ok()));
    }
}
