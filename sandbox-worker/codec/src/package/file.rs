//! One MP4 file of several tracks: read once for the sizes of all samples, and once for the samples.

use super::Progress;
use super::reader::{Read, Reader, rejected};
use crate::mp4::{self, FileTrack, Sample};
use crate::output::Outputs;
use crate::source::Inputs;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{PackageFile, PackagedFile};

/// Samples of all tracks together: 24 hours of video at 60 frames a second, and its sound.
const MAX_SAMPLES: usize = 12_000_000;

/// Writes the file.
///
/// # Errors
/// [`FailureCode::OutputRejected`] where an input is not what was planned.
pub(super) fn package(
    plan: &PackageFile,
    inputs: &Inputs,
    outputs: &mut Outputs,
    progress: &mut Progress<'_>,
) -> Result<PackagedFile, Failure> {
    if plan.tags.len() > 8 || plan.tags.iter().any(|t| t.value.chars().count() > 512) {
        return Err(Failure::new(FailureCode::WorkerError, "the plan has too many tags, or too long ones"));
    }
    let mut output = outputs.take(plan.output)?;
    let (mut tracks, mut readers, mut samples) = (Vec::new(), Vec::new(), 0usize);
    for track in &plan.tracks {
        let mut first = Reader::open(inputs, track.input, &track.expect)?;
        let table = table(&mut first, track.input, progress)?;
        first.judge(&track.expect)?;
        samples = samples.saturating_add(table.len());
        if samples > MAX_SAMPLES {
            return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
        }
        tracks.push(FileTrack {
            shown: u64::try_from(first.end()).unwrap_or(0),
            track: first.facts.track,
            timescale: first.facts.timescale,
            samples: table,
            language: track.language.clone(),
        });
        readers.push(Reader::open(inputs, track.input, &track.expect)?);
    }
    let chunks = mp4::chunks(&tracks);
    let head = mp4::head(&tracks, &chunks, &plan.tags);
    let head = head.ok_or_else(|| rejected(0, "the tracks do not fit one file".into()))?;
    output.append(&head)?;
    let mut next: Vec<usize> = vec![0; tracks.len()];
    for chunk in chunks {
        let (Some(reader), Some(at), Some(track), Some(plan)) = (
            readers.get_mut(chunk.track),
            next.get_mut(chunk.track),
            tracks.get(chunk.track),
            plan.tracks.get(chunk.track),
        ) else {
            continue;
        };
        for _ in 0..chunk.samples {
            let read = reader.next()?;
            let planned = track.samples.get(*at).map(|s| u64::from(s.size));
            if read.is_none() || planned != Some(reader.data().len() as u64) {
                return Err(rejected(plan.input, "it is another when it is read again".into()));
            }
            output.append(reader.data())?;
            *at = at.saturating_add(1);
        }
    }
    let ms = tracks
        .iter()
        .map(|t| t.shown.saturating_mul(1_000).checked_div(t.timescale.into()).unwrap_or(0))
        .max();
    Ok(PackagedFile { bytes: output.written(), duration_ms: ms.unwrap_or(0) })
}

fn table(reader: &mut Reader, input: u32, progress: &mut Progress<'_>) -> Result<Vec<Sample>, Failure> {
    let odd = || rejected(input, "the times of a track do not go up".into());
    let mut out: Vec<Sample> = Vec::new();
    let mut last: Option<Read> = None;
    while let Some(read) = reader.next()? {
        if let (Some(before), Some(sample)) = (last, out.last_mut()) {
            let length = read.decode.checked_sub(before.decode).and_then(|d| u32::try_from(d).ok());
            sample.duration = length.filter(|d| *d > 0).ok_or_else(odd)?;
        }
        let offset =
            read.time.checked_sub(read.decode).and_then(|d| u32::try_from(d).ok()).ok_or_else(odd)?;
        let size = u32::try_from(reader.data().len()).map_err(|_| odd())?;
        if out.len() >= MAX_SAMPLES {
            return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
        }
        out.push(Sample { size, duration: 0, offset, key: read.key });
        progress.at(read.time, reader.facts.timescale);
        last = Some(read);
    }
    // The last sample lasts as long as the last one that is shown.
    if let Some(sample) = out.last_mut() {
        sample.duration = u32::try_from(reader.tail()).ok().filter(|d| *d > 0).ok_or_else(odd)?;
    }
    Ok(out)
}
