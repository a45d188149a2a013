//! The ladder: which pictures are made of a source, and with how many bits.

use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::job::VideoOptions;
use mpegflow_protocol::limits::{MAX_FRAME_SIDE, MAX_RUNGS};
use mpegflow_protocol::media::VideoInfo;

/// The short side of the highest rung where the job asks for nothing else.
pub const DEFAULT_SHORT_SIDE: u32 = 1080;
/// Frames per second that no rung exceeds.
pub const MAX_FRAME_RATE: u32 = 60;
const STANDARD: &[u32] = &[2160, 1440, 1080, 720, 480, 360, 240];
/// A rung less than about 15 % below the one above costs an encode and gives a player nothing to switch to.
const CLOSEST: f64 = 0.85;
/// Bits per second of 1920 × 1080 at 30 frames per second, at most.
const FULL_HD_BIT_RATE: f64 = 6_000_000.0;

/// The upright picture as a viewer sees it, with square pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Display {
    /// Width in pixels; may be fractional after a pixel shape was applied.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
}

/// One picture size of a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Most bits per second.
    pub max_bit_rate: u32,
}

/// The picture as a viewer sees it; `None` for one without pixels.
pub fn display(video: &VideoInfo) -> Option<Display> {
    if video.width == 0 || video.height == 0 {
        return None;
    }
    // A pixel shape beyond 8:1 is in no real recording; a picture stretched by it would only be a bomb.
    let shape = video.sample_aspect.positive().filter(|s| (0.125..=8.0).contains(s)).unwrap_or(1.0);
    let (width, height) = (f64::from(video.width) * shape, f64::from(video.height));
    let upright = if matches!(video.rotation, 90 | 270) {
        Display { width: height, height: width }
    } else {
        Display { width, height }
    };
    Some(upright)
}

/// Frames per second of the output: the source's, as far as it is known and sane, at most [`MAX_FRAME_RATE`].
pub fn frame_rate(video: &VideoInfo) -> f64 {
    let known =
        |r: Option<mpegflow_protocol::media::Ratio>| r.and_then(|r| r.positive()).filter(|r| *r >= 1.0);
    known(video.frame_rate)
        .or_else(|| known(video.real_frame_rate))
        .unwrap_or(30.0)
        .min(f64::from(MAX_FRAME_RATE))
}

/// The ladder of a source, widest first, never empty, at most [`MAX_RUNGS`].
pub fn ladder(source: Display, frame_rate: f64, options: &VideoOptions) -> Vec<Step> {
    let cap = options.max_height.unwrap_or(DEFAULT_SHORT_SIDE);
    let short = source.width.min(source.height);
    let top = whole(short).min(cap).max(2);
    let mut steps = vec![step(source, top, frame_rate)];
    let mut above = f64::from(top);
    for &side in STANDARD {
        if f64::from(side) <= above * CLOSEST && steps.len() < MAX_RUNGS {
            steps.push(step(source, side, frame_rate));
            above = f64::from(side);
        }
    }
    steps
}

fn step(source: Display, side: u32, frame_rate: f64) -> Step {
    let short = source.width.min(source.height);
    // The pixel shape makes the long side fractional, and rounding must not upscale.
    let scale = (f64::from(side) / short).min(1.0);
    let long = source.width.max(source.height) * scale;
    let fit = (f64::from(MAX_FRAME_SIDE) / long).min(1.0);
    let (width, height) = (even(source.width * scale * fit), even(source.height * scale * fit));
    Step { width, height, max_bit_rate: bit_rate(width, height, frame_rate) }
}

/// The most bits per second for a picture of that size: large pictures need fewer bits a pixel, and so do close frames.
pub fn bit_rate(width: u32, height: u32, frame_rate: f64) -> u32 {
    let area = f64::from(width) * f64::from(height) / (1920.0 * 1080.0);
    let rate = if frame_rate > 30.5 { (frame_rate / 30.0).powf(0.6) } else { 1.0 };
    let bits = (FULL_HD_BIT_RATE * area.powf(0.75) * rate).clamp(150_000.0, 40_000_000.0);
    whole(bits / 1000.0).saturating_mul(1000)
}

/// The same for a codec that needs fewer bits than H.264 for the same picture.
pub fn for_codec(h264_bit_rate: u32, codec: VideoCodec) -> u32 {
    let percent = match codec {
        VideoCodec::H264 => 100,
        VideoCodec::Hevc | VideoCodec::Vp9 => 70,
        VideoCodec::Av1 => 55,
    };
    (h264_bit_rate / 100).saturating_mul(percent)
}

/// The constant rate factor that looks alike in each codec, in tenths of its own scale.
pub const fn crf_tenths(codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::H264 => 230,
        VideoCodec::Hevc => 260,
        VideoCodec::Vp9 => 320,
        VideoCodec::Av1 => 350,
    }
}

/// Rounds to the nearest even number, down at a tie, at least 2.
fn even(value: f64) -> u32 {
    whole((value / 2.0 - 0.01).round()).saturating_mul(2).max(2)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::media::Ratio;

    fn video(width: u32, height: u32) -> VideoInfo {
        VideoInfo {
            width,
            height,
            sample_aspect: Ratio { num: 1, den: 1 },
            rotation: 0,
            mirrored: false,
            pixel_format: None,
            frame_rate: Some(Ratio { num: 30, den: 1 }),
            real_frame_rate: None,
            color_range: None,
            color_space: None,
            color_transfer: None,
            color_primaries: None,
            field_order: None,
            level: None,
        }
    }

    fn sizes(video: &VideoInfo, max_height: Option<u32>) -> Vec<String> {
        let options = VideoOptions { max_height, ..VideoOptions::default() };
        ladder(display(video).unwrap(), frame_rate(video), &options)
            .iter()
            .map(|s| format!("{}x{}", s.width, s.height))
            .collect()
    }

    #[test]
    fn the_ladder_follows_the_source() {
        let rotated = VideoInfo { rotation: 90, ..video(1920, 1080) };
        // DV: 720 × 576 with 16:15 pixels is a 768 × 576 picture.
        let anamorphic = VideoInfo { sample_aspect: Ratio { num: 16, den: 15 }, ..video(720, 576) };
        let nonsense_shape = VideoInfo { sample_aspect: Ratio { num: 1000, den: 1 }, ..video(640, 360) };
        let no_shape = VideoInfo { sample_aspect: Ratio { num: 0, den: 1 }, ..video(640, 360) };
        for (name, source, max, expected) in [
            ("full HD", video(1920, 1080), None, "1920x1080 1280x720 854x480 640x360 426x240"),
            ("4K is capped", video(3840, 2160), None, "1920x1080 1280x720 854x480 640x360 426x240"),
            (
                "4K on request",
                video(3840, 2160),
                Some(2160),
                "3840x2160 2560x1440 1920x1080 1280x720 854x480 640x360 426x240",
            ),
            ("a lower cap", video(1920, 1080), Some(480), "854x480 640x360 426x240"),
            ("between rungs", video(1600, 900), None, "1600x900 1280x720 854x480 640x360 426x240"),
            ("close to a rung", video(1360, 766), None, "1360x766 852x480 640x360 426x240"),
            ("portrait", video(1080, 1920), None, "1080x1920 720x1280 480x854 360x640 240x426"),
            ("turned", rotated, None, "1080x1920 720x1280 480x854 360x640 240x426"),
            ("anamorphic", anamorphic, None, "768x576 640x480 480x360 320x240"),
            ("nonsense pixel shape", nonsense_shape, None, "640x360 426x240"),
            ("no pixel shape", no_shape, None, "640x360 426x240"),
            ("tiny", video(160, 120), None, "160x120"),
            ("odd", video(641, 359), None, "640x358 428x240"),
            ("one pixel", video(1, 1), None, "2x2"),
            ("a strip", video(8192, 16), None, "8192x16"),
        ] {
            assert_eq!(sizes(&source, max).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn a_rung_is_never_larger_than_its_source() {
        for (width, height) in [(1919, 1079), (1001, 999), (3, 3), (853, 481), (8192, 4352)] {
            for step in ladder(
                Display { width: f64::from(width), height: f64::from(height) },
                30.0,
                &VideoOptions::default(),
            ) {
                assert!(step.width <= width && step.height <= height, "{width}x{height}: {step:?}");
                assert!(step.width % 2 == 0 && step.height % 2 == 0);
            }
        }
    }

    #[test]
    fn bits_grow_with_pixels_and_with_frame_rates_above_thirty() {
        assert_eq!(bit_rate(1920, 1080, 30.0), 6_000_000);
        assert_eq!(bit_rate(1920, 1080, 24.0), 6_000_000);
        assert_eq!(bit_rate(1920, 1080, 60.0), 9_094_000);
        assert_eq!(bit_rate(1280, 720, 30.0), 3_265_000);
        assert_eq!(bit_rate(16, 16, 30.0), 150_000);
    }

    #[test]
    fn an_absurd_frame_rate_is_held_to_the_cap() {
        let fast = VideoInfo { frame_rate: Some(Ratio { num: 90_000, den: 1 }), ..video(64, 64) };
        let none = VideoInfo { frame_rate: Some(Ratio { num: 0, den: 0 }), ..video(64, 64) };
        assert_eq!((frame_rate(&fast), frame_rate(&none)), (60.0, 30.0));
    }
}
