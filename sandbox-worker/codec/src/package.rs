//! The package task: encoded tracks and stills in, what players fetch out. The inputs come from another codec process and are as
//! hostile as any upload; what they are is compared with what was planned before a byte of them goes on.

mod file;
mod reader;
mod stills;

#[cfg(test)]
pub(crate) use stills::vtt;

use crate::clock::VIDEO_SCALE;
use crate::control::Control;
use crate::fmp4::{self, Track};
use crate::fragments;
use crate::mpd;
use crate::output::Outputs;
use crate::playlist::{self, Listed, ListedKind};
use crate::source::Inputs;
use crate::track::{Reference, TrackWriter};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{ExpectTrack, PackageResult, PackageTask, PackageTrack, PackagedTrack};
use reader::{Reader, rejected};

/// Counts samples and says how far it is.
struct Progress<'a> {
    control: &'a Control,
    samples: u64,
}

impl Progress<'_> {
    fn at(&mut self, time: i64, timescale: u32) {
        self.samples = self.samples.saturating_add(1);
        let ms = u64::try_from(time.saturating_mul(1_000)).unwrap_or(0).checked_div(timescale.into());
        self.control.progress(self.samples, ms.unwrap_or(0));
    }
}

/// Packages everything of the plan.
///
/// # Errors
/// [`FailureCode::OutputRejected`] where an input is not what was planned.
pub(crate) fn run(
    task: &PackageTask,
    inputs: &Inputs,
    mut outputs: Outputs,
    control: &Control,
) -> Result<PackageResult, Failure> {
    let bad_plan = |what: String| Err(Failure::new(FailureCode::WorkerError, what));
    let nothing = task.tracks.is_empty() && task.file.is_none() && task.stills.is_empty();
    let file_tracks = task.file.as_ref().map_or(1, |f| f.tracks.len());
    if nothing
        || task.tracks.len() > limits::MAX_INPUTS
        || file_tracks == 0
        || file_tracks > limits::MAX_INPUTS
    {
        return bad_plan("the plan has no tracks, or too many".into());
    }
    // A chunk is no track that a player could be pointed to.
    let chunks = task.tracks.iter().filter(|t| t.chunk.is_some()).count();
    if (task.tracks.len() == chunks) != task.manifests.is_none()
        || (chunks != 0 && chunks != task.tracks.len())
    {
        return bad_plan("the plan has tracks without manifests, or the other way round".into());
    }
    if task
        .tracks
        .iter()
        .any(|t| t.joined.len() >= limits::MAX_INPUTS || (t.chunk.is_some() && !t.joined.is_empty()))
    {
        return bad_plan("the plan joins too many chunks".into());
    }
    let uris = task.tracks.iter().flat_map(|t| [&t.media_uri, &t.playlist_uri]);
    let uris = uris.chain(task.stills.iter().map(|s| &s.uri));
    if let Some(bad) = uris.into_iter().find(|uri| !playlist::is_plain_uri(uri)) {
        return bad_plan(format!("the plan's address {bad} is not a plain name"));
    }
    let mut progress = Progress { control, samples: 0 };
    let mut listed = Vec::with_capacity(task.tracks.len());
    for plan in &task.tracks {
        let track = package(plan, task.segment_ms, inputs, &mut outputs, &mut progress)?;
        outputs.take(plan.playlist_output)?.append(track.media_playlist().as_bytes())?;
        listed.push(track);
    }
    if let Some(manifests) = task.manifests {
        outputs.take(manifests.hls)?.append(playlist::multivariant(&listed).as_bytes())?;
        outputs.take(manifests.dash)?.append(mpd::description(&listed, task.segment_ms).as_bytes())?;
    }
    let file = task.file.as_ref().map(|plan| file::package(plan, inputs, &mut outputs, &mut progress));
    let file = file.transpose()?;
    for plan in &task.stills {
        stills::package(plan, inputs, &mut outputs)?;
    }
    Ok(PackageResult { tracks: listed.iter().map(packaged).collect(), file })
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

/// One CMAF track: header, index, and a fragment for each segment. Of a chunk the same without an index.
fn package(
    plan: &PackageTrack,
    segment_ms: u32,
    inputs: &Inputs,
    outputs: &mut Outputs,
    progress: &mut Progress<'_>,
) -> Result<Listed, Failure> {
    let parts = parts(plan);
    let (input, start) = parts.first().copied().unwrap_or((plan.input, 0));
    let mut reader = Reader::open(inputs, input, &plan.expect)?;
    let timescale = reader.facts.timescale;
    let mut track = reader.facts.track.clone();
    if let (Some(place), Track::Video { delay, .. }) = (plan.chunk, &mut track) {
        *delay = place.lead;
    }
    let whole = plan.chunk.is_none() && plan.joined.is_empty();
    if !whole && (timescale != VIDEO_SCALE.unsigned_abs() || !matches!(track, Track::Video { .. })) {
        return Err(rejected(input, "it is no chunk of a video".into()));
    }
    let segment = (i64::from(segment_ms.max(1)).saturating_mul(i64::from(timescale)) / 1_000).max(1);
    let (references, end) = references(&parts, whole, inputs, &track, segment)?;
    let output = outputs.take(plan.media_output)?;
    let mut writer = TrackWriter::in_language(track.clone(), timescale, plan.language.as_deref(), output)?;
    let index_bytes = if plan.chunk.is_some() { 0 } else { writer.index(timescale, &references, end)? };
    let mut timing = Timing {
        start,
        index: start.checked_div(segment).unwrap_or(0),
        earliest: (!whole).then(|| start.saturating_sub(i64::from(track.lead()))),
        ends: start,
    };
    copy_samples(&mut reader, &mut writer, &mut timing, segment, progress)?;
    let (codecs, mut count) = (reader.facts.codecs.clone(), reader.count);
    for (input, start) in parts.iter().skip(1).copied() {
        if start != timing.ends {
            return Err(rejected(
                input,
                format!("it starts at {start}, and what is before it ends at {}", timing.ends),
            ));
        }
        reader = Reader::open(inputs, input, &plan.expect)?;
        // One header is for all.
        if reader.facts.timescale != timescale || reader.facts.track.configured() != track.configured() {
            return Err(rejected(input, "it is not coded as the chunks before it".into()));
        }
        timing.start = start;
        copy_samples(&mut reader, &mut writer, &mut timing, segment, progress)?;
        count = count.saturating_add(reader.count);
    }
    writer.cut_last(timing.ends)?;
    let (init_bytes, mut segments) = writer.finish();
    // The priming is not shown: presentation starts at zero.
    if let Some(first) = segments.first_mut() {
        first.start = first.start.max(0);
    }
    let said = references.iter().map(|r| (r.start, r.bytes));
    if !said.eq(segments.iter().map(|s| (s.start, s.bytes))) {
        return Err(rejected(plan.input, "its fragments are not what its boxes say".into()));
    }
    if end != timing.ends {
        return Err(rejected(plan.input, "it does not end where its boxes say".into()));
    }
    reader::judge(input, &plan.expect, count, timing.ends.saturating_sub(start), timescale)?;
    let kind = match &plan.expect {
        ExpectTrack::Video { width, height, .. } => {
            ListedKind::Video { width: *width, height: *height, frames: count }
        }
        ExpectTrack::Audio { channels, sample_rate, .. } => {
            ListedKind::Audio { channels: *channels, rate: *sample_rate, language: plan.language.clone() }
        }
    };
    Ok(Listed {
        media_uri: plan.media_uri.clone(),
        playlist_uri: plan.playlist_uri.clone(),
        init_bytes,
        index_bytes,
        segments,
        timescale,
        codecs,
        kind,
    })
}

/// The inputs of a track in order, and when the first sample of each is shown.
fn parts(plan: &PackageTrack) -> Vec<(u32, i64)> {
    let first = (plan.input, plan.chunk.map_or(0, |place| place.start.max(0)));
    std::iter::once(first).chain(plan.joined.iter().map(|j| (j.input, j.start))).collect()
}

/// Where samples of a track go on.
#[derive(Debug)]
struct Timing {
    /// When the first sample of the input at hand is shown.
    start: i64,
    /// The segment that is being filled.
    index: i64,
    /// The earliest decoding time that the next sample may have, in a track of chunks.
    earliest: Option<i64>,
    /// When what was read so far ends.
    ends: i64,
}

/// Writes the samples of one input, cut into segments by the whole track's timeline.
fn copy_samples(
    reader: &mut Reader,
    writer: &mut TrackWriter,
    timing: &mut Timing,
    segment: i64,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let timescale = reader.facts.timescale;
    let mut before: Option<i64> = None;
    while let Some(sample) = reader.next()? {
        let time = sample.time.saturating_add(timing.start);
        let mut decode = sample.decode.saturating_add(timing.start);
        if let Some(earliest) = timing.earliest.as_mut() {
            if before.is_some_and(|before| sample.decode <= before) {
                return Err(reader.refuse("its decoding times do not go up".into()));
            }
            // They go up over the joint of two chunks too, whose frames may be of different lengths. What is pushed back by that
            // is still decoded before the first frame of its chunk is shown.
            decode = decode.max(*earliest);
            *earliest = decode.saturating_add(1);
            before = Some(sample.decode);
        }
        let at = time.checked_div(segment).unwrap_or(0);
        if sample.key && time > 0 && !writer.is_empty() && at > timing.index {
            writer.cut((time, decode))?;
        }
        if sample.key {
            timing.index = timing.index.max(at);
        }
        let data = reader.data();
        writer.add((time, decode), sample.key, |out| out.extend_from_slice(data))?;
        progress.at(time, timescale);
    }
    timing.ends = timing.start.saturating_add(reader.end());
    Ok(())
}

/// What the index has to say of each segment, from the boxes of the encoded tracks alone: the index comes before the segments,
/// and outputs are only appended to. What is then written is held against it.
fn references(
    parts: &[(u32, i64)],
    whole: bool,
    inputs: &Inputs,
    track: &Track,
    segment: i64,
) -> Result<(Vec<Reference>, i64), Failure> {
    let mut out: Vec<(i64, u64, u64)> = Vec::new();
    let (mut index, mut end) =
        (parts.first().map_or(0, |(_, at)| at.checked_div(segment).unwrap_or(0)), 0i64);
    for (input, base) in parts {
        let found = fragments::all(&mut inputs.get(*input)?.small_reads())?;
        let found = found.ok_or_else(|| rejected(*input, "its fragments cannot be read".into()))?;
        // The header of a chunk's own track may say another lead than that of the track that it becomes a part of.
        let own = found.first().map_or(0, |f| f.start);
        let lead = if whole { i64::from(track.lead()) } else { own };
        for fragment in found {
            end = end.max(fragment.end.saturating_sub(lead).saturating_add(*base));
            let start = fragment.start.saturating_sub(lead).saturating_add(*base);
            let at = start.checked_div(segment).unwrap_or(0);
            match out.last_mut() {
                // What does not begin a segment goes to the one before.
                Some((_, samples, payload)) if start <= 0 || at <= index => {
                    *samples = samples.saturating_add(fragment.samples);
                    *payload = payload.saturating_add(fragment.payload);
                }
                _ => {
                    index = index.max(at);
                    out.push((start, fragment.samples, fragment.payload));
                }
            }
        }
    }
    let reference = |(start, samples, payload): (i64, u64, u64)| Reference {
        start: start.max(0),
        bytes: fmp4::fragment_bytes(track, samples, payload),
    };
    Ok((out.into_iter().map(reference).collect(), end))
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
