//! Whether a result can be true at all. The codec that reported it parsed hostile bytes, and the supervisor that passed it
//! on may be anyone's: what they say is compared with the plan and with what the broker itself received.

use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits::{MAX_DURATION_MS, MAX_SEGMENTS};
use mpegflow_protocol::task::{
    CheckResult, CheckTask, EncodeResult, EncodeTask, ExpectTrack, PackageResult, PackageTask, VideoEncode,
};
use mpegflow_protocol::text;
use mpegflow_protocol::worker::OutputDigest;

/// How far two durations of the same track may be apart: container rounding, encoder delay, a cut last frame.
const SLACK_MS: u64 = 2_000;

fn rejected<T>(what: impl AsRef<str>) -> Result<T, Failure> {
    Err(Failure::new(FailureCode::OutputRejected, what))
}

fn near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= SLACK_MS.saturating_add(a.max(b) / 100)
}

/// Verifies an encode against its plan and the outputs that were received.
///
/// # Errors
/// [`FailureCode::OutputRejected`] with what is wrong.
pub fn encode(task: &EncodeTask, result: &EncodeResult, received: &[OutputDigest]) -> Result<(), Failure> {
    let video = |v: &VideoEncode| {
        let stills = usize::from(v.poster.is_some()).saturating_add(usize::from(v.sprites.is_some()));
        v.rungs.len().saturating_add(stills)
    };
    let planned = task.video.as_ref().map_or(0, video).saturating_add(task.audio.len());
    if result.tracks.len() != planned || result.tracks.len() != received.len() {
        return rejected("the encode did not make the tracks that were planned");
    }
    for (position, output) in received.iter().enumerate() {
        let mut of_this = result.tracks.iter().filter(|t| usize::try_from(t.output) == Ok(position));
        let (Some(track), None) = (of_this.next(), of_this.next()) else {
            return rejected(format!("output {position} is not reported exactly once"));
        };
        if output.size == 0 || track.bytes != output.size {
            return rejected(format!(
                "output {position} has {} bytes, reported were {}",
                output.size, track.bytes
            ));
        }
        if track.units == 0 || track.duration_ms == 0 || track.duration_ms > MAX_DURATION_MS {
            return rejected(format!("output {position} holds no media, or too much"));
        }
    }
    let frames = task.video.iter().flat_map(|v| &v.rungs).filter_map(|rung| {
        result.tracks.iter().find(|t| t.output == rung.output).map(|t| (t.units, t.duration_ms))
    });
    let may_copy =
        |output: u32| task.video.iter().flat_map(|v| &v.rungs).any(|rung| rung.output == output && rung.copy);
    if result.tracks.iter().any(|t| t.copied && !may_copy(t.output)) {
        return rejected("a track was copied that was to be encoded");
    }
    let mut first = None;
    for (units, duration_ms) in frames {
        let (expected, _) = *first.get_or_insert((units, duration_ms));
        if units != expected {
            return rejected("the rungs have different numbers of frames");
        }
        if units > result.frames_decoded {
            return rejected("more frames were encoded than decoded");
        }
        // One frame in the first instant, then the cap's rate; a second of slack for jitter.
        let rate = u64::from(task.video.as_ref().map_or(60, |v| v.max_frame_rate));
        let most = (duration_ms.saturating_add(1_000).saturating_mul(rate) / 1_000).saturating_add(2);
        if units > most {
            return rejected("there are more frames than the frame rate's cap allows");
        }
    }
    if let Some(sprites) = task.video.as_ref().and_then(|v| v.sprites.as_ref()) {
        let most = u64::from(sprites.columns).saturating_mul(u64::from(sprites.rows));
        if result.tracks.iter().any(|t| t.output == sprites.output && t.units > most) {
            return rejected("the sprite sheet has more tiles than room");
        }
    }
    Ok(())
}

/// Verifies a package against its plan and the outputs that were received.
///
/// # Errors
/// [`FailureCode::OutputRejected`] with what is wrong.
pub fn package(task: &PackageTask, result: &PackageResult, received: &[OutputDigest]) -> Result<(), Failure> {
    if result.tracks.len() != task.tracks.len() {
        return rejected("the package does not have the tracks that were planned");
    }
    if received.iter().any(|o| o.size == 0) {
        return rejected("a packaged object is empty");
    }
    for (plan, track) in task.tracks.iter().zip(&result.tracks) {
        let size = usize::try_from(plan.media_output).ok().and_then(|n| received.get(n)).map(|o| o.size);
        if size != Some(track.bytes) {
            return rejected(format!("{} does not have the bytes that were reported", plan.media_uri));
        }
        let prefix = match plan.expect {
            ExpectTrack::Video { codec, .. } => codec.codecs_prefix(),
            ExpectTrack::Audio { .. } => "mp4a.",
        };
        let duration_ms = plan.expect.duration_ms();
        let segments = usize::try_from(track.segments).unwrap_or(usize::MAX);
        if segments == 0 || segments > MAX_SEGMENTS {
            return rejected(format!("{} has {segments} segments", plan.media_uri));
        }
        if !near(track.duration_ms, duration_ms) {
            return rejected(format!(
                "{} lasts {} ms, not {duration_ms} ms",
                plan.media_uri, track.duration_ms
            ));
        }
        if !track.codecs.starts_with(prefix) || !text::is_label(&track.codecs, 64) {
            return rejected(format!("{} is not the codec that was planned", plan.media_uri));
        }
    }
    match (&task.file, &result.file) {
        (None, None) => Ok(()),
        (Some(plan), Some(file)) => {
            let size = usize::try_from(plan.output).ok().and_then(|n| received.get(n)).map(|o| o.size);
            let duration_ms = plan.tracks.iter().map(|t| t.expect.duration_ms()).max().unwrap_or(0);
            if size != Some(file.bytes) {
                return rejected(format!("{} does not have the bytes that were reported", plan.uri));
            }
            if !near(file.duration_ms, duration_ms) {
                return rejected(format!("{} lasts {} ms, not {duration_ms} ms", plan.uri, file.duration_ms));
            }
            Ok(())
        }
        _ => rejected("the package does not have the file that was planned"),
    }
}

/// Verifies a check against its plan.
///
/// # Errors
/// [`FailureCode::OutputRejected`] with the first thing the check found, or with what is wrong with the check.
pub fn check(task: &CheckTask, result: &CheckResult) -> Result<(), Failure> {
    if let Some(problem) = result.problems.first() {
        let more = match result.problems.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n.saturating_sub(1)),
        };
        return rejected(format!("The check found: {}{more}", text::clean(problem, 256)));
    }
    if result.tracks.len() != task.expected().count() {
        return rejected("the check did not look at every track");
    }
    for ((name, expect), track) in task.expected().zip(&result.tracks) {
        let duration_ms = expect.duration_ms();
        if let ExpectTrack::Video { frames, .. } = expect
            && track.packets.abs_diff(*frames) > 1
        {
            return rejected(format!("{name} has {} frames, not {frames}", track.packets));
        }
        if track.packets == 0 || track.frames_decoded == 0 {
            return rejected(format!("nothing could be decoded from {name}"));
        }
        if !near(track.duration_ms, duration_ms) {
            return rejected(format!("{name} lasts {} ms, not {duration_ms} ms", track.duration_ms));
        }
    }
    Ok(())
}
