//! The package task: encoded tracks in, CMAF tracks and playlists out. The tracks come from another codec process and are as
//! hostile as any upload; what they are is compared with what was planned before a byte of them goes on.

use crate::caps;
use crate::control::Control;
use crate::ff::demux::{Demuxer, Kind, Stream};
use crate::ff::packet::Packet;
use crate::fmp4::Track;
use crate::nal::{self, SampleKind};
use crate::output::Outputs;
use crate::playlist::{self, Listed, ListedKind};
use crate::source::{self, Inputs};
use crate::tail;
use crate::track::TrackWriter;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{ExpectTrack, PackageResult, PackageTask, PackageTrack, PackagedTrack};

/// How far a track's duration may be from what the encode counted, in milliseconds: rounding of both.
const DURATION_TOLERANCE_MS: u64 = 50;
/// The most that an AAC encoder may put before the first sample.
const MAX_PRIMING: i64 = 4_096;

/// Packages every track of the plan.
///
/// # Errors
/// [`FailureCode::OutputRejected`] where a track is not what was planned.
pub(crate) fn run(
    task: &PackageTask,
    inputs: &Inputs,
    mut outputs: Outputs,
    control: &Control,
) -> Result<PackageResult, Failure> {
    if task.tracks.is_empty() || task.tracks.len() > limits::MAX_INPUTS {
        return Err(Failure::new(FailureCode::WorkerError, "the plan has no tracks, or too many"));
    }
    let uris = task.tracks.iter().flat_map(|t| [&t.media_uri, &t.playlist_uri]);
    if let Some(bad) = uris.into_iter().find(|uri| !playlist::is_plain_uri(uri)) {
        return Err(Failure::new(
            FailureCode::WorkerError,
            format!("the plan's address {bad} is not a plain name"),
        ));
    }
    let mut multivariant = outputs.take(0)?;
    let mut listed = Vec::with_capacity(task.tracks.len());
    let mut packets = 0u64;
    for plan in &task.tracks {
        let track = package(plan, task.segment_ms, inputs, &mut outputs, &mut |ms| {
            packets = packets.saturating_add(1);
            control.progress(packets, ms);
        })?;
        outputs.take(plan.playlist_output)?.append(track.media_playlist().as_bytes())?;
        listed.push(track);
    }
    multivariant.append(playlist::multivariant(&listed).as_bytes())?;
    let tracks = listed.iter().map(packaged).collect();
    Ok(PackageResult { tracks })
}

fn packaged(track: &Listed) -> PackagedTrack {
    let rates = track.bit_rates();
    PackagedTrack {
        segments: u32::try_from(track.segments.len()).unwrap_or(u32::MAX),
        duration_ms: track.duration_ms(),
        bytes: track.segments.last().map_or(track.init_bytes, |s| s.offset.saturating_add(s.bytes)),
        codecs: track.codecs.clone(),
        peak_bit_rate: rates.peak,
        average_bit_rate: rates.average,
    }
}

fn package(
    plan: &PackageTrack,
    segment_ms: u32,
    inputs: &Inputs,
    outputs: &mut Outputs,
    progress: &mut dyn FnMut(u64),
) -> Result<Listed, Failure> {
    let reject =
        |what: String| Failure::new(FailureCode::OutputRejected, format!("track {}: {what}", plan.input));
    let mut demuxer = source::open_track(inputs, plan.input)?;
    if demuxer.stream_count() != 1 {
        return Err(reject(format!("{} streams instead of one", demuxer.stream_count())));
    }
    let stream = demuxer.stream(0).ok_or_else(|| reject("no stream".into()))?;
    let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
    let mut more = read(&mut demuxer, &mut packet).map_err(&reject)?;
    let first = times(&packet).filter(|_| more).ok_or_else(|| reject("nothing is in it".into()))?;
    let facts = Facts::check(plan, &stream, first).map_err(&reject)?;
    let tail = tail::last_duration(&mut inputs.get(plan.input)?.small_reads())?;
    let tail = tail.ok_or_else(|| reject("its last fragment cannot be read".into()))?;
    let video = matches!(facts.track, Track::Video { .. });
    let mut writer = TrackWriter::new(facts.track, facts.timescale, outputs.take(plan.media_output)?)?;
    let segment = (i64::from(segment_ms.max(1)).saturating_mul(i64::from(facts.timescale)) / 1_000).max(1);
    let most = caps::MAX_DURATION_MS.saturating_mul(i64::from(facts.timescale)) / 1_000;
    let (mut count, mut index, mut shown) = (0u64, 0i64, 0i64);
    while more {
        let (time, decode) = times(&packet).ok_or_else(|| reject("a sample has no time".into()))?;
        if time > most || time < first.0 {
            return Err(reject(format!("a sample's time {time} is out of range")));
        }
        let key = if video {
            let kind =
                nal::sample_kind(packet.data()).ok_or_else(|| reject("a sample is not H.264".into()))?;
            if packet.is_key() != (kind == SampleKind::Idr) {
                return Err(reject(format!("sample {count} is marked as what it is not")));
            }
            kind == SampleKind::Idr
        } else {
            true
        };
        if count == 0 && !key {
            return Err(reject("it does not start with a key frame".into()));
        }
        let at = time.checked_div(segment).unwrap_or(0);
        if key && time > 0 && at > index {
            writer.cut((time, decode))?;
            index = at;
        }
        let data = packet.data();
        if data.is_empty() {
            return Err(reject(format!("sample {count} is empty")));
        }
        writer.add((time, decode), key, |out| out.extend_from_slice(data))?;
        shown = shown.max(time);
        count = count.saturating_add(1);
        progress(
            u64::try_from(time.saturating_mul(1_000))
                .unwrap_or(0)
                .checked_div(facts.timescale.into())
                .unwrap_or(0),
        );
        more = read(&mut demuxer, &mut packet).map_err(&reject)?;
    }
    if demuxer.read_failed() {
        return Err(source::storage());
    }
    writer.cut_last(shown.saturating_add(tail))?;
    let (init_bytes, mut segments) = writer.finish();
    // The priming is not shown: presentation starts at zero.
    if let Some(first) = segments.first_mut() {
        first.start = first.start.max(0);
    }
    let kind = match &plan.expect {
        ExpectTrack::Video { width, height, .. } => {
            ListedKind::Video { width: *width, height: *height, frames: count }
        }
        ExpectTrack::Audio { channels, .. } => {
            ListedKind::Audio { channels: *channels, language: plan.language.clone() }
        }
    };
    let listed = Listed {
        media_uri: plan.media_uri.clone(),
        playlist_uri: plan.playlist_uri.clone(),
        init_bytes,
        segments,
        timescale: facts.timescale,
        codecs: facts.codecs,
        kind,
    };
    let (ExpectTrack::Video { duration_ms, .. } | ExpectTrack::Audio { duration_ms, .. }) = &plan.expect;
    if listed.duration_ms().abs_diff(*duration_ms) > DURATION_TOLERANCE_MS {
        return Err(reject(format!("it lasts {} ms instead of {duration_ms}", listed.duration_ms())));
    }
    if let ExpectTrack::Video { frames, .. } = &plan.expect
        && *frames != count
    {
        return Err(reject(format!("it has {count} frames instead of {frames}")));
    }
    Ok(listed)
}

fn times(packet: &Packet) -> Option<(i64, i64)> {
    Some((packet.pts()?, packet.dts()?))
}

fn read(demuxer: &mut Demuxer, packet: &mut Packet) -> Result<bool, String> {
    demuxer.read(packet).map_err(|e| format!("it could not be read: {e}"))
}

/// What the writer has to know of a track that was found to be what was planned.
struct Facts {
    track: Track,
    timescale: u32,
    codecs: String,
}

impl Facts {
    fn check(plan: &PackageTrack, stream: &Stream, (first, decode): (i64, i64)) -> Result<Self, String> {
        let timescale = match stream.time_base {
            (1, den) if (8_000..=1_000_000).contains(&den) => den.unsigned_abs(),
            (num, den) => return Err(format!("the time base {num}/{den} is out of range")),
        };
        match (&plan.expect, stream.kind) {
            (ExpectTrack::Video { width, height, .. }, Kind::Video) => {
                if stream.codec != "h264" {
                    return Err(format!("its codec is {}", stream.codec));
                }
                if (u32::try_from(stream.width), u32::try_from(stream.height)) != (Ok(*width), Ok(*height)) {
                    return Err(format!(
                        "it is {} × {} pixels instead of {width} × {height}",
                        stream.width, stream.height
                    ));
                }
                // x264 decodes two frames ahead at most; frames of a slide show are seconds apart.
                let lead = u32::try_from(decode.saturating_neg())
                    .ok()
                    .filter(|l| *l <= timescale.saturating_mul(60));
                let (0, Some(delay)) = (first, lead) else {
                    return Err(format!("its first frame is shown at {first} and decoded at {decode}"));
                };
                let codecs =
                    nal::codec_string(&stream.extradata).ok_or("its configuration is not that of H.264")?;
                let (Ok(width), Ok(height)) = (u16::try_from(*width), u16::try_from(*height)) else {
                    return Err("it is too large".into());
                };
                let configuration = stream.extradata.clone();
                Ok(Self {
                    track: Track::Video { width, height, configuration, color: stream.color, delay },
                    timescale,
                    codecs,
                })
            }
            (ExpectTrack::Audio { sample_rate, channels, .. }, Kind::Audio) => {
                if stream.codec != "aac" {
                    return Err(format!("its codec is {}", stream.codec));
                }
                let (rate, count) =
                    asc_facts(&stream.extradata).ok_or("its configuration is not that of AAC-LC")?;
                let fits = timescale == *sample_rate && rate == *sample_rate && count == *channels;
                if !fits
                    || i64::from(rate) != i64::from(stream.sample_rate)
                    || i64::from(count) != i64::from(stream.channels)
                {
                    return Err(format!(
                        "{rate} Hz and {count} channels instead of {sample_rate} and {channels}"
                    ));
                }
                if !(-MAX_PRIMING..=0).contains(&first) {
                    return Err(format!("its first packet is at {first}"));
                }
                let channels = u16::try_from(count).unwrap_or(0);
                let track = Track::Audio {
                    rate,
                    channels,
                    configuration: stream.extradata.clone(),
                    priming: u32::try_from(first.unsigned_abs()).unwrap_or(0),
                    bit_rate: u32::try_from(stream.bit_rate).unwrap_or(0),
                };
                Ok(Self { track, timescale, codecs: "mp4a.40.2".into() })
            }
            (_, kind) => Err(format!("its kind {kind:?} is not what was planned")),
        }
    }
}

/// Sample rate and channels of an AAC-LC AudioSpecificConfig (ISO/IEC 14496-3).
pub(crate) fn asc_facts(config: &[u8]) -> Option<(u32, u32)> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let (a, b) = (u16::from(*config.first()?), u16::from(*config.get(1)?));
    if config.len() > 16 || a >> 3 != 2 {
        return None;
    }
    let rate = RATES.get(usize::from((a & 7) << 1 | b >> 7))?;
    Some((*rate, u32::from(b >> 3 & 15)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_audio_specific_config_names_rate_and_channels() {
        assert_eq!(super::asc_facts(&[0x11, 0x90]), Some((48_000, 2)));
        assert_eq!(super::asc_facts(&[0x12, 0x08]), Some((44_100, 1)));
        assert_eq!(super::asc_facts(&[0x29, 0x90]), None);
        assert_eq!(super::asc_facts(&[0x11]), None);
    }
}
