//! Holds a codec's result to the task that it answers and to the bytes that came.

use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits::MAX_SEGMENTS;
use mpegflow_protocol::task::{TaskResult, TaskSpec};
use mpegflow_protocol::text;
use mpegflow_protocol::worker::OutputDigest;

const MAX_PROBLEMS: usize = 16;
const MAX_PROBLEM_CHARS: usize = 256;

/// Checks a result and cleans its text.
///
/// # Errors
/// A violation where no honest codec says this of that task; else what a media description itself amounts to.
pub fn checked(
    result: TaskResult,
    spec: &TaskSpec,
    inputs: &[u64],
    outputs: &[OutputDigest],
) -> Result<TaskResult, Failure> {
    let size_of = |output: u32| usize::try_from(output).ok().and_then(|at| outputs.get(at)).map(|o| o.size);
    match (result, spec) {
        (TaskResult::Probe(mut probe), TaskSpec::Probe(_)) => {
            probe.media = probe.media.bounded(inputs.first().copied().unwrap_or(0))?;
            Ok(TaskResult::Probe(probe))
        }
        (TaskResult::Encode(encode), TaskSpec::Encode(task)) => {
            if encode.chunk.is_some() != task.chunk.is_some() {
                return lie("a chunk of what is whole, or the other way round".into());
            }
            if encode.tracks.len() != outputs.len() {
                return lie(format!("{} tracks for {} outputs", encode.tracks.len(), outputs.len()));
            }
            for (position, track) in encode.tracks.iter().enumerate() {
                if usize::try_from(track.output) != Ok(position) {
                    return lie(format!("output {} at position {position}", track.output));
                }
                if size_of(track.output) != Some(track.bytes) {
                    return lie(format!("{} bytes for output {position}, which has others", track.bytes));
                }
            }
            Ok(TaskResult::Encode(encode))
        }
        (TaskResult::Package(mut package), TaskSpec::Package(task)) => {
            if package.tracks.len() != task.tracks.len() {
                return lie(format!("{} tracks of {}", package.tracks.len(), task.tracks.len()));
            }
            for (track, planned) in package.tracks.iter_mut().zip(&task.tracks) {
                if size_of(planned.media_output) != Some(track.bytes) {
                    return lie(format!("{} bytes for output {}", track.bytes, planned.media_output));
                }
                if usize::try_from(track.segments).is_ok_and(|n| n > MAX_SEGMENTS) {
                    return lie(format!("{} segments in a track", track.segments));
                }
                if !text::is_label(&track.codecs, 64) {
                    return lie("a codec string that is none".into());
                }
            }
            match (&package.file, &task.file) {
                (None, None) => {}
                (Some(file), Some(planned)) if size_of(planned.output) == Some(file.bytes) => {}
                _ => return lie("another file than was planned".into()),
            }
            Ok(TaskResult::Package(package))
        }
        (TaskResult::Check(mut check), TaskSpec::Check(task)) => {
            if check.problems.len() > MAX_PROBLEMS {
                return lie(format!("{} problems", check.problems.len()));
            }
            // A check that found a problem may have stopped there.
            let planned = task.expected().count();
            let whole = check.tracks.len() == planned;
            if check.tracks.len() > planned || (check.problems.is_empty() && !whole) {
                return lie(format!("{} tracks of {planned}", check.tracks.len()));
            }
            for listed in check.tracks.iter().filter_map(|t| t.listed.as_ref()) {
                let known = task.list && listed.segments.len() <= MAX_SEGMENTS;
                if !known || !text::is_label(&listed.codecs, 64) {
                    return lie("a list of segments that nobody asked for, or that is none".into());
                }
            }
            for problem in &mut check.problems {
                *problem = text::clean(problem, MAX_PROBLEM_CHARS);
            }
            Ok(TaskResult::Check(check))
        }
        _ => lie("the result of another kind of task".into()),
    }
}

fn lie(what: String) -> Result<TaskResult, Failure> {
    Err(Failure::new(FailureCode::ProtocolViolation, format!("the codec reported {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::job::DecoderSet;
    use mpegflow_protocol::task::{CheckResult, CheckTask, EncodeResult, EncodeTask, EncodedTrack};

    fn encode(tracks: &[(u32, u64)]) -> TaskResult {
        let tracks = tracks.iter().map(|(output, bytes)| EncodedTrack {
            output: *output,
            units: 1,
            duration_ms: 1,
            bytes: *bytes,
            copied: false,
        });
        TaskResult::Encode(EncodeResult {
            tracks: tracks.collect(),
            frames_decoded: 1,
            frames_dropped: 0,
            decode_errors: 0,
            ..EncodeResult::default()
        })
    }

    #[test]
    fn an_encode_names_every_output_once_with_the_bytes_that_came() {
        let spec = TaskSpec::Encode(EncodeTask {
            decoders: DecoderSet::Core,
            segment_ms: 4000,
            video: None,
            audio: vec![],
            expected_duration_ms: None,
            partial: false,
            timeline: None,
            chunk: None,
        });
        let digest = |size| OutputDigest { size, parts: 1, digest: String::new() };
        let outputs = [digest(10), digest(20)];
        let check =
            |tracks: &[(u32, u64)]| checked(encode(tracks), &spec, &[5], &outputs).map_err(|f| f.code);
        assert!(check(&[(0, 10), (1, 20)]).is_ok());
        for tracks in [&[][..], &[(0, 10)], &[(1, 20), (0, 10)], &[(0, 10), (0, 10)], &[(0, 10), (1, 21)]] {
            assert_eq!(check(tracks), Err(FailureCode::ProtocolViolation), "{tracks:?}");
        }
    }

    #[test]
    fn a_checks_problems_are_bounded_and_cleaned() {
        let spec = TaskSpec::Check(CheckTask {
            tracks: vec![],
            segment_ms: 4000,
            source_duration_ms: None,
            manifests: None,
            file: None,
            stills: vec![],
            list: false,
        });
        let check = |problems: Vec<String>| {
            checked(TaskResult::Check(CheckResult { problems, tracks: vec![] }), &spec, &[], &[])
        };
        let cleaned = CheckResult { problems: vec!["a b".into()], tracks: vec![] };
        assert_eq!(check(vec!["a\u{1b}b".into()]), Ok(TaskResult::Check(cleaned)));
        assert!(check(vec![String::new(); 17]).is_err());
    }
}
