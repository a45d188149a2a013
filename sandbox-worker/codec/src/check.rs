//! The check task: reads what was packaged as a player would, and compares it with what was planned. It shares with the
//! packager neither the writing of playlists nor that of boxes.

mod dash;
mod file;
mod samples;
mod stills;
mod tracks;

use crate::control::Control;
use crate::ff::io::ReadAt;
use crate::hls;
use crate::input;
use crate::source::Inputs;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{CheckResult, CheckTask, CheckTrack, CheckedTrack, ExpectTrack};
use tracks::Found;

/// Entries in a report.
const MAX_PROBLEMS: usize = 16;
/// Characters of one entry.
const MAX_PROBLEM_CHARS: usize = 256;
/// Bytes of a playlist: [`limits::MAX_SEGMENTS`] with room for names.
const MAX_PLAYLIST: u64 = 16 << 20;
/// Milliseconds by which the longest track may differ from the source's own claim, beside two per cent: containers round,
/// and count edits and priming each in its own way.
const SOURCE_TOLERANCE_MS: u64 = 1_500;

/// What is wrong, bounded.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, subject: &str, what: impl AsRef<str>) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(mpegflow_protocol::text::clean(
                &format!("{subject}: {}", what.as_ref()),
                MAX_PROBLEM_CHARS,
            ));
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_PROBLEMS
    }
}

/// Reads every object and reports.
///
/// # Errors
/// Only where the check itself could not be done; what is wrong with the objects is in the report.
pub(crate) fn run(task: &CheckTask, inputs: &Inputs, control: &Control) -> Result<CheckResult, Failure> {
    let expected = expected_inputs(task);
    // A chunk is no track that a player could be pointed to.
    let chunks = task.tracks.iter().filter(|t| t.chunk.is_some()).count();
    if expected == 0
        || expected > limits::MAX_INPUTS
        || inputs.count() != expected
        || (task.tracks.len() == chunks) != task.manifests.is_none()
        || (chunks != 0 && chunks != task.tracks.len())
    {
        return Err(Failure::new(FailureCode::WorkerError, "the plan's tracks and inputs do not fit"));
    }
    let mut problems = Problems::default();
    let mut all = Vec::new();
    let mut frames = 0u64;
    let mut progress = |ms| {
        frames = frames.saturating_add(1);
        control.progress(frames, ms);
    };
    for track in &task.tracks {
        all.push(tracks::check(track, (task.segment_ms, task.list), inputs, &mut problems, &mut progress)?);
    }
    if let Some(manifests) = task.manifests {
        multivariant(task, inputs, manifests.hls, &all, &mut problems)?;
        dash::check(task, inputs, manifests.dash, &all, &mut problems)?;
    }
    let mut checked: Vec<CheckedTrack> = all.into_iter().map(|f| f.counted).collect();
    if let Some(file) = &task.file {
        checked.extend(file::check(file, inputs, &mut problems, &mut progress)?);
    }
    for still in &task.stills {
        stills::check(still, inputs, &mut problems)?;
    }
    durations(task, &checked, &mut problems);
    Ok(CheckResult { problems: problems.0, tracks: checked })
}

/// Every input is named by the plan once.
fn expected_inputs(task: &CheckTask) -> usize {
    let stills =
        task.stills.iter().fold(0usize, |n, s| n.saturating_add(1).saturating_add(s.index.iter().count()));
    let lists = if task.manifests.is_some() { 2usize } else { 0 };
    task.tracks
        .len()
        .saturating_mul(2)
        .saturating_add(lists)
        .saturating_add(task.tracks.iter().filter(|t| t.chunk.is_some_and(|c| c.like.is_some())).count())
        .saturating_add(usize::from(task.file.is_some()))
        .saturating_add(stills)
}

/// Reads a whole playlist; a longer one than may be is a problem, a failing socket a failure.
fn text(inputs: &Inputs, number: u32) -> Result<Result<Vec<u8>, String>, Failure> {
    let mut source = inputs.get(number)?;
    if source.len() > MAX_PLAYLIST {
        return Ok(Err(format!("it is {} bytes long", source.len())));
    }
    input::read_all(&mut source, MAX_PLAYLIST).map(Ok).map_err(|_| crate::source::storage())
}

fn multivariant(
    task: &CheckTask,
    inputs: &Inputs,
    input: u32,
    found: &[Found],
    problems: &mut Problems,
) -> Result<(), Failure> {
    const NAME: &str = "multivariant playlist";
    let list = match text(inputs, input)?.and_then(|t| hls::multivariant(&t)) {
        Ok(list) => list,
        Err(what) => {
            problems.add(NAME, what);
            return Ok(());
        }
    };
    let is_video = |t: &&CheckTrack| matches!(t.expect, ExpectTrack::Video { .. });
    let has_video = task.tracks.iter().any(|t| is_video(&t));
    let uris = |video: bool| -> Vec<&str> {
        task.tracks.iter().filter(|t| is_video(t) == video).map(|t| t.playlist_uri.as_str()).collect()
    };
    let listed: Vec<&str> = list.variants.iter().map(|v| v.uri.as_str()).collect();
    if listed != uris(has_video) {
        problems.add(NAME, "its variants are not the planned tracks");
    }
    let renditions: Vec<&str> = list.audio.iter().map(|(_, uri)| uri.as_str()).collect();
    let planned = if has_video { uris(false) } else { Vec::new() };
    if renditions != planned {
        problems.add(NAME, "its audio renditions are not the planned tracks");
    }
    for variant in &list.variants {
        let Some(index) = task.tracks.iter().position(|t| t.playlist_uri == variant.uri) else { continue };
        let (Some(track), Some(found)) = (task.tracks.get(index), found.get(index)) else { continue };
        let (codec, peak) = (&found.codecs, &found.largest_rate);
        let name = format!("variant {}", variant.uri);
        if let ExpectTrack::Video { width, height, .. } = track.expect
            && variant.size != Some((width, height))
        {
            problems.add(&name, format!("RESOLUTION is {:?}", variant.size));
        }
        if codec.as_ref().is_some_and(|c| !variant.codecs.contains(c)) {
            problems.add(&name, format!("CODECS {} do not name the track's", variant.codecs.join(",")));
        }
        if variant.bandwidth < *peak || variant.average > variant.bandwidth {
            problems.add(
                &name,
                format!("BANDWIDTH {} is below what the track needs ({peak})", variant.bandwidth),
            );
        }
        let group_there = |group: &String| list.audio.iter().any(|(g, _)| g == group);
        let audio_fits = match &variant.audio {
            Some(group) => group_there(group),
            None => renditions.is_empty(),
        };
        if !audio_fits {
            problems.add(&name, "its AUDIO group is not there");
        }
    }
    Ok(())
}

/// Rungs of one ladder last equally long, and the longest track as long as the source.
fn durations(task: &CheckTask, checked: &[CheckedTrack], problems: &mut Problems) {
    let video: Vec<u64> = task
        .expected()
        .zip(checked)
        .filter(|((_, expect), _)| matches!(expect, ExpectTrack::Video { .. }))
        .map(|(_, c)| c.duration_ms)
        .collect();
    if let (Some(shortest), Some(longest)) = (video.iter().min(), video.iter().max())
        && longest.abs_diff(*shortest) > 1
    {
        problems.add("ladder", format!("its rungs last from {shortest} to {longest} ms"));
    }
    let longest = checked.iter().map(|c| c.duration_ms).max().unwrap_or(0);
    if let Some(source) = task.source_duration_ms {
        // The encode judged what it read against the streams it was given; this is the whole container's word, which may
        // count a stream that nobody planned, and which headers often give too low. What is missing is the fault to find.
        let tolerance = SOURCE_TOLERANCE_MS.saturating_add(source / 10);
        if longest.saturating_add(tolerance) < source {
            problems.add("output", format!("it lasts {longest} ms, the source {source} ms"));
        }
    }
}
