//! The probe task: what an input is, as the container and its first packets say it.

use crate::ff::demux::{Container, Demuxer, Kind, Stream};
use crate::ff::packet::Packet;
use crate::ff::{names, rescale};
use crate::jumps::Jumps;
use crate::source::{self, Inputs};
use crate::{caps, decoders};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::DecoderSet;
use mpegflow_protocol::media::{AudioInfo, MediaInfo, Ratio, StreamInfo, StreamKind, VideoInfo};
use mpegflow_protocol::task::{ProbeResult, ProbeTask};

const MICRO: (i32, i32) = (1, 1_000_000);
const MILLI: (i32, i32) = (1, 1_000);

/// Describes input 0.
///
/// # Errors
/// The documented failure for an input that is no recording.
pub(crate) fn run(task: &ProbeTask, inputs: &Inputs) -> Result<ProbeResult, Failure> {
    let mut demuxer = source::open(inputs, 0, task.decoders, task.partial)?.demuxer;
    let container = demuxer.container();
    let mut streams: Vec<Stream> = (0..demuxer.stream_count()).filter_map(|i| demuxer.stream(i)).collect();
    if !streams.iter().any(|s| s.kind == Kind::Audio || (s.kind == Kind::Video && !s.attached_picture)) {
        return Err(Failure::new(FailureCode::NoStreams, "the input has no video and no audio stream"));
    }
    let mut duration_us = container.duration_us;
    let mut start_us = container.start_us;
    if duration_us.is_none() || container.duration_is_guess || joined(&container, inputs) {
        let measured = measure(&mut demuxer, &mut streams)?;
        duration_us = measured.map(|(start, end)| end.saturating_sub(start)).or(duration_us);
        start_us = start_us.or(measured.map(|(start, _)| start));
    }
    if let Some(us) = of_pictures_and_sound(&container, &streams) {
        duration_us = Some(us);
    }
    let duration_ms = duration_us.and_then(|us| u64::try_from(rescale(us, MICRO, MILLI)).ok());
    if duration_ms.is_some_and(|d| d > mpegflow_protocol::limits::MAX_DURATION_MS) {
        return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
    }
    let size = inputs.get(0).map(|i| crate::ff::io::ReadAt::len(&i))?;
    let bit_rate = u64::try_from(container.bit_rate).ok().filter(|b| *b > 0).or_else(|| {
        let bits = size.checked_mul(8_000)?;
        bits.checked_div(duration_ms?)
    });
    Ok(ProbeResult {
        media: describe(container, &streams, task.decoders, size, start_us, duration_ms, bit_rate),
    })
}

/// The duration without subtitles and the like, which often outlast what will be made; `None` where there are none, or
/// where the streams do not say how long they are.
fn of_pictures_and_sound(container: &Container, streams: &[Stream]) -> Option<i64> {
    let counts = |s: &&Stream| matches!(s.kind, Kind::Video | Kind::Audio) && !s.attached_picture;
    if container.times_may_jump || streams.iter().all(|s| counts(&s)) {
        return None;
    }
    let ends: Option<Vec<i64>> = streams
        .iter()
        .filter(counts)
        .map(|s| Some(rescale(s.start.unwrap_or(0), s.time_base, MICRO).saturating_add(s.lasts_us()?)))
        .collect();
    let end = ends?.into_iter().max()?;
    Some(end.saturating_sub(container.start_us.unwrap_or(0))).filter(|us| *us > 0)
}

/// Whether the duration of a transport or program stream cannot be true: FFmpeg subtracts the first time from the last, which
/// is hours in a recording of minutes where recordings were joined or the 33-bit clock started over.
fn joined(container: &Container, inputs: &Inputs) -> bool {
    const LEAST_BITS_PER_SECOND: u64 = 16_000;
    let size = inputs.get(0).map_or(0, |i| crate::ff::io::ReadAt::len(&i));
    let seconds = container.duration_us.and_then(|us| u64::try_from(us / 1_000_000).ok()).unwrap_or(0);
    container.times_may_jump && size.saturating_mul(8) < seconds.saturating_mul(LEAST_BITS_PER_SECOND)
}

/// Reads to the end to find out how long the input is: first and last time over all streams, in microseconds. Recordings
/// of browsers (WebM) and raw streams (ADTS) do not say it anywhere.
fn measure(demuxer: &mut Demuxer, streams: &mut [Stream]) -> Result<Option<(i64, i64)>, Failure> {
    let wanted: Vec<usize> = streams
        .iter()
        .enumerate()
        .filter(|(_, s)| matches!(s.kind, Kind::Video | Kind::Audio) && !s.attached_picture)
        .map(|(i, _)| i)
        .collect();
    demuxer.select(&wanted);
    let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
    let mut spans: Vec<Option<(i64, i64)>> = vec![None; streams.len()];
    let mut packets = 0u64;
    let mut jumps = Jumps::new(demuxer.container().times_may_jump);
    // A damaged end is the end.
    while demuxer.read(&mut packet).unwrap_or(false) {
        packets = packets.saturating_add(1);
        let (Some(stream), Some(span)) = (streams.get(packet.stream()), spans.get_mut(packet.stream()))
        else {
            continue;
        };
        let dts = packet.dts().or(packet.pts());
        if let Some(by) = jumps.shift(packet.stream(), dts, packet.duration(), stream.time_base) {
            packet.shift(by);
        }
        let Some(time) = packet.pts().or(packet.dts()) else { continue };
        let start = rescale(time, stream.time_base, MICRO);
        let end = rescale(time.saturating_add(packet.duration()), stream.time_base, MICRO);
        let (first, last) = span.get_or_insert((start, end));
        *first = start.min(*first);
        *last = end.max(*last);
        if last.saturating_sub(*first) > caps::MAX_DURATION_MS.saturating_mul(1_000)
            || packets > caps::MAX_PACKETS
        {
            return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
        }
    }
    if demuxer.read_failed() {
        return Err(source::storage());
    }
    for (stream, span) in streams.iter_mut().zip(&spans) {
        if let Some((first, last)) = span {
            stream.duration =
                Some(rescale(last.saturating_sub(*first), MICRO, stream.time_base)).filter(|d| *d > 0);
        }
    }
    let known = spans.iter().flatten();
    Ok(known.copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
}

fn describe(
    container: Container,
    streams: &[Stream],
    set: DecoderSet,
    size: u64,
    start_us: Option<i64>,
    duration_ms: Option<u64>,
    bit_rate: Option<u64>,
) -> MediaInfo {
    MediaInfo {
        format: container.format,
        size,
        duration_ms,
        start_us: start_us.unwrap_or(0),
        bit_rate,
        streams: streams
            .iter()
            .enumerate()
            .map(|(index, stream)| describe_stream(u32::try_from(index).unwrap_or(u32::MAX), stream, set))
            .collect(),
        tags: container.tags,
    }
}

fn describe_stream(index: u32, s: &Stream, set: DecoderSet) -> StreamInfo {
    let positive = |v: i64| u64::try_from(v).ok().filter(|v| *v > 0);
    StreamInfo {
        index,
        codec: s.codec.clone(),
        profile: s.profile.clone(),
        codec_tag: tag_name(s.tag),
        time_base: Ratio { num: s.time_base.0, den: s.time_base.1 },
        start_us: s.start.map_or(0, |t| rescale(t, s.time_base, MICRO)),
        duration_ms: s.duration.and_then(|d| positive(rescale(d, s.time_base, MILLI))),
        frames: positive(s.frames),
        bit_rate: positive(s.bit_rate),
        language: s.tags.get("language").filter(|l| *l != "und").cloned(),
        default: s.default,
        attached_picture: s.attached_picture,
        decodable: matches!(s.kind, Kind::Video | Kind::Audio)
            && decoders::for_codec(&s.codec, set).is_some(),
        kind: match s.kind {
            Kind::Video => StreamKind::Video(describe_video(s)),
            Kind::Audio => StreamKind::Audio(AudioInfo {
                sample_rate: u32::try_from(s.sample_rate).unwrap_or(0),
                channels: u32::try_from(s.channels).unwrap_or(0),
                channel_layout: s.layout.clone(),
                sample_format: names::sample_format_name(s.format),
            }),
            Kind::Subtitle => StreamKind::Subtitle {},
            Kind::Other => StreamKind::Data {},
        },
        tags: s.tags.clone(),
    }
}

fn describe_video(s: &Stream) -> VideoInfo {
    let rate = |(num, den): (i32, i32)| (num > 0 && den > 0).then_some(Ratio { num, den });
    let (rotation, mirrored) = s.matrix.map_or((0, false), |m| upright(&m));
    VideoInfo {
        width: u32::try_from(s.width).unwrap_or(0),
        height: u32::try_from(s.height).unwrap_or(0),
        sample_aspect: rate(s.aspect).unwrap_or(Ratio { num: 1, den: 1 }),
        rotation,
        mirrored,
        pixel_format: names::pixel_format_name(s.format),
        frame_rate: rate(s.average_rate),
        real_frame_rate: rate(s.real_rate),
        color_range: s.range.clone(),
        color_space: s.space.clone(),
        color_transfer: s.transfer.clone(),
        color_primaries: s.primaries.clone(),
        field_order: match s.field_order {
            1 => Some("progressive".into()),
            2 => Some("tt".into()),
            3 => Some("bb".into()),
            4 => Some("tb".into()),
            5 => Some("bt".into()),
            _ => None,
        },
        level: (s.level > 0).then_some(s.level),
    }
}

/// The mirroring (left to right, first) and the clockwise turn that a display matrix asks for, to the nearest quarter.
fn upright(matrix: &[i32; 9]) -> (u16, bool) {
    let [a, b, _, c, d, ..] = matrix.map(i64::from);
    // Products of 32-bit numbers: the sign of the determinant is that of their difference.
    let mirrored = a.saturating_mul(d) < b.saturating_mul(c);
    let (a, b) = if mirrored { (a.saturating_neg(), b.saturating_neg()) } else { (a, b) };
    let turn = if a.abs() >= b.abs() {
        if a >= 0 { 0 } else { 180 }
    } else if b > 0 {
        90
    } else {
        270
    };
    (turn, mirrored)
}

fn tag_name(tag: u32) -> Option<String> {
    let bytes = tag.to_le_bytes();
    match tag {
        0 => None,
        _ if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') => {
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Some(format!("0x{tag:08x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::upright;

    #[test]
    fn a_display_matrix_becomes_a_mirroring_and_a_quarter_turn() {
        const ONE: i32 = 1 << 16;
        for (abcd, expected) in [
            ([1, 0, 0, 1], (0, false)),
            ([0, 1, -1, 0], (90, false)),
            ([-1, 0, 0, -1], (180, false)),
            ([0, -1, 1, 0], (270, false)),
            ([-1, 0, 0, 1], (0, true)),
            ([0, -1, -1, 0], (90, true)),
            ([1, 0, 0, -1], (180, true)),
            ([0, 1, 1, 0], (270, true)),
        ] {
            let [a, b, c, d] = abcd.map(|v| v * ONE);
            assert_eq!(upright(&[a, b, 0, c, d, 0, 0, 0, 1 << 30]), expected);
        }
        assert_eq!(upright(&[i32::MIN; 9]), (180, false));
    }
}
