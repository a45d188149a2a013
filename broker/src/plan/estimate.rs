//! What a job costs, told before anything is encoded, and whether it may.
//!
//! Minutes follow from the plan. Core-seconds are pixels times what a pixel costs in each codec at each speed; they are meant for
//! comparing jobs and for stopping the absurd one, and a real job may take half or twice as much.

use super::ladder;
use crate::model::NewTask;
use mpegflow_protocol::encoder::{EncoderSpeed, VideoCodec};
use mpegflow_protocol::job::MaxSpend;
use mpegflow_protocol::media::{MediaInfo, StreamKind};
use mpegflow_protocol::task::{Rung, TaskSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What one job of a tenant may cost; no bound where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Minutes of output.
    pub output_minutes: Option<u32>,
    /// Seconds of one core.
    pub core_seconds: Option<u32>,
}

/// What a job costs, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of input.
    pub input_ms: u64,
    /// Of output: of each rung, or of each sound track where there is no rung.
    pub output_ms: u64,
    /// Of one core.
    pub core_ms: u64,
}

/// Picoseconds for a source pixel that is decoded and converted.
const DECODE_PS: u64 = 4_000;
/// Parts of a core that one sound track takes while it plays, in thousandths.
const SOUND_MILLI: u64 = 15;
/// Packaging and checking, for each track: both read it once, and the check decodes the beginning and the end.
const TRACK_MS: u64 = 500;

/// Picoseconds for a pixel that is scaled and encoded.
const fn pixel_ps(codec: VideoCodec, speed: EncoderSpeed) -> u64 {
    let h264 = match speed {
        EncoderSpeed::Ultrafast => 4_000,
        EncoderSpeed::Veryfast => 9_000,
        EncoderSpeed::Fast => 22_000,
        EncoderSpeed::Medium => 28_000,
        EncoderSpeed::Slow => 55_000,
    };
    match codec {
        VideoCodec::H264 => h264,
        VideoCodec::Hevc => 4_u64.saturating_mul(h264),
        VideoCodec::Vp9 | VideoCodec::Av1 => 5_u64.saturating_mul(h264),
    }
}

/// The estimate of a planned encode; none where the input does not say how long it is.
pub fn of(task: &NewTask, media: &MediaInfo) -> Option<Estimate> {
    let TaskSpec::Encode(plan) = &task.spec else { return None };
    let input_ms = plan.expected_duration_ms?;
    let source = plan.video.as_ref().and_then(|video| {
        let stream = media.streams.iter().find(|s| s.index == video.stream)?;
        match &stream.kind {
            StreamKind::Video(found) => Some((video, found)),
            _ => None,
        }
    });
    let rungs: &[Rung] = source.map_or(&[], |(video, _)| &video.rungs);
    let mut pixels_ps = 0_u128;
    if let Some((video, found)) = source {
        let rate = ladder::frame_rate(found);
        let decoded = frames_milli(rate, input_ms);
        let encoded = frames_milli(rate.min(f64::from(video.max_frame_rate)), input_ms);
        pixels_ps = cost(found.width, found.height, decoded, DECODE_PS);
        for rung in rungs {
            let ps = pixel_ps(rung.codec, rung.speed);
            pixels_ps = pixels_ps.saturating_add(cost(rung.width, rung.height, encoded, ps));
        }
    }
    let (rungs, sounds) = (count(rungs.len()), count(plan.audio.len()));
    let tracks = if rungs > 0 { rungs } else { sounds };
    // Picoseconds times thousandths of frames to milliseconds.
    let core_ms = u64::try_from(pixels_ps / 1_000_000_000_000).unwrap_or(u64::MAX);
    let sound_ms = (input_ms / 1000).saturating_mul(SOUND_MILLI).saturating_mul(sounds);
    let rest_ms = TRACK_MS.saturating_mul(rungs.saturating_add(sounds));
    Some(Estimate {
        input_ms,
        output_ms: input_ms.saturating_mul(tracks),
        core_ms: core_ms.saturating_add(sound_ms).saturating_add(rest_ms),
    })
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Frames in that time, in thousandths.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; the cast saturates"
)]
fn frames_milli(rate: f64, ms: u64) -> u64 {
    (rate.clamp(0.0, 1_000.0) * ms as f64) as u64
}

fn cost(width: u32, height: u32, frames_milli: u64, ps: u64) -> u128 {
    let pixels = u128::from(width).saturating_mul(u128::from(height));
    pixels.saturating_mul(u128::from(frames_milli)).saturating_mul(u128::from(ps))
}

/// A cap that a job would exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The field that says how much is allowed: of the job's spec, or of the tenant's limits.
    pub field: &'static str,
    what: &'static str,
    /// None where it cannot be estimated.
    estimated: Option<u64>,
    most: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, what, estimated, most } = self;
        match estimated {
            Some(n) => {
                write!(f, "`{field}` allows {most} {what}, and the job is estimated to take about {n}")
            }
            None => write!(
                f,
                "`{field}` allows {most} {what}, and the input does not say how long it is, so that none can be estimated"
            ),
        }
    }
}

/// The first cap that a job would exceed: of its own and of its tenant's. What cannot be estimated exceeds every cap.
pub fn exceeded(estimate: Option<Estimate>, own: &MaxSpend, caps: Caps) -> Option<Exceeded> {
    let minutes = estimate.map(|e| e.output_ms.div_ceil(60_000));
    let seconds = estimate.map(|e| e.core_ms.div_ceil(1_000));
    [
        ("max_spend.output_minutes", "minutes of output", own.output_minutes, minutes),
        ("max_spend.core_seconds", "core-seconds", own.core_seconds, seconds),
        ("job_output_minutes", "minutes of output", caps.output_minutes, minutes),
        ("job_core_seconds", "core-seconds", caps.core_seconds, seconds),
    ]
    .into_iter()
    .find_map(|(field, what, most, estimated)| {
        let most = u64::from(most?);
        let within = estimated.is_some_and(|n| n <= most);
        (!within).then_some(Exceeded { field, what, estimated, most })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Settings, graph};
    use mpegflow_protocol::ids::UploadId;
    use mpegflow_protocol::job::JobSpec;

    const MINUTE: u64 = 60_000;

    fn media(width: u32, height: u32, duration_ms: Option<u64>) -> MediaInfo {
        let stream = |kind: serde_json::Value, index: u32, codec: &str| {
            let mut all = serde_json::json!({
                "index": index, "codec": codec, "time_base": {"num": 1, "den": 1000}, "start_us": 0,
                "duration_ms": duration_ms, "default": true, "attached_picture": false, "decodable": true, "tags": {},
            });
            for (key, value) in kind.as_object().unwrap() {
                all[key] = value.clone();
            }
            all
        };
        let rate = serde_json::json!({"num": 30, "den": 1});
        let video = serde_json::json!({"kind": {"video": {
            "width": width, "height": height, "sample_aspect": {"num": 1, "den": 1}, "rotation": 0,
            "mirrored": false, "frame_rate": rate}}});
        let audio = serde_json::json!({"kind": {"audio": {"sample_rate": 48_000, "channels": 2}}});
        serde_json::from_value(serde_json::json!({
            "format": "mov", "size": 1, "duration_ms": duration_ms, "start_us": 0,
            "streams": [stream(video, 0, "h264"), stream(audio, 1, "aac")], "tags": {},
        }))
        .unwrap()
    }

    fn estimate(preset: &str, media: &MediaInfo) -> Option<Estimate> {
        let upload = UploadId::from_u128(1);
        let text = format!(r#"{{"version":1,"input":{{"upload":"{upload}"}},"preset":"{preset}"}}"#);
        let spec = JobSpec::parse(text.as_bytes()).unwrap();
        of(&graph::encode(&spec, media, upload, 1, Settings::default()).unwrap(), media)
    }

    #[test]
    fn minutes_of_output_are_those_of_each_rendition_and_work_goes_with_pixels_and_time() {
        let hd = estimate("web", &media(1280, 720, Some(10 * MINUTE))).unwrap();
        assert_eq!((hd.input_ms, hd.output_ms), (10 * MINUTE, 4 * 10 * MINUTE), "four rungs");
        let twice = estimate("web", &media(1280, 720, Some(20 * MINUTE))).unwrap();
        assert_eq!(twice.output_ms, 2 * hd.output_ms);
        assert!((hd.core_ms * 19 / 10..=hd.core_ms * 2).contains(&twice.core_ms), "{hd:?} {twice:?}");
        let uhd = estimate("web", &media(3840, 2160, Some(10 * MINUTE))).unwrap();
        // One rung more, which alone has more pixels than the other four.
        assert!(uhd.core_ms > 2 * hd.core_ms, "{hd:?} {uhd:?}");
        assert_eq!(estimate("web", &media(1280, 720, None)), None, "of no known length");
    }

    #[test]
    fn the_first_cap_that_is_exceeded_is_named_and_a_cap_is_reached_and_not_exceeded_by_as_much() {
        let estimate = Estimate { input_ms: MINUTE, output_ms: 4 * MINUTE, core_ms: 90_000 };
        let own = |output_minutes, core_seconds| MaxSpend { output_minutes, core_seconds };
        let caps = |output_minutes, core_seconds| Caps { output_minutes, core_seconds };
        let field = |own, caps| exceeded(Some(estimate), &own, caps).map(|e| e.field);
        assert_eq!(field(own(None, None), caps(None, None)), None);
        assert_eq!(field(own(Some(4), Some(90)), caps(Some(4), Some(90))), None);
        assert_eq!(field(own(Some(3), None), caps(Some(3), None)), Some("max_spend.output_minutes"));
        assert_eq!(field(own(None, Some(89)), caps(None, None)), Some("max_spend.core_seconds"));
        assert_eq!(field(own(Some(9), None), caps(Some(3), None)), Some("job_output_minutes"));
        assert_eq!(field(own(None, None), caps(None, Some(89))), Some("job_core_seconds"));
        // What nobody can estimate is not let through a cap.
        assert_eq!(exceeded(None, &own(None, None), caps(None, None)), None);
        let unknown = exceeded(None, &own(None, None), caps(Some(1_000_000), None)).unwrap();
        assert!(unknown.to_string().contains("does not say how long"), "{unknown}");
    }

    #[test]
    fn no_input_makes_an_estimate_overflow() {
        let huge = estimate("web", &media(8192, 4352, Some(u64::MAX / 2))).unwrap();
        assert_eq!(huge.output_ms, u64::MAX);
        assert!(
            exceeded(
                Some(huge),
                &MaxSpend { output_minutes: Some(1_000_000), core_seconds: None },
                Caps::default()
            )
            .is_some()
        );
    }
}
