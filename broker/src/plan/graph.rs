//! The tasks of a job: probe → encode → package → check. Each is planned from the results before it.

use super::{Settings, budget, choose, ladder};
use crate::model::{InputSource, ManifestEntry, NewTask, TaskKind};
use mpegflow_protocol::codec::OutputKind;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{AttemptId, UploadId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::task::{
    AudioEncode, CheckTask, CheckTrack, EncodeResult, EncodeTask, ExpectTrack, PackageTask, PackageTrack,
    ProbeTask, Rung, TaskSpec, VideoEncode,
};
use mpegflow_protocol::worker::{OutputDigest, OutputSlot};

const DEFAULT_SEGMENT_S: u32 = 4;
/// x264's constant rate factor, in tenths.
const CRF: u32 = 230;

/// The first task of every job.
pub fn probe(spec: &JobSpec, upload: UploadId, size: u64, settings: Settings) -> NewTask {
    let budget = budget::probe(size, settings.threads);
    NewTask {
        kind: TaskKind::Probe,
        spec: TaskSpec::Probe(ProbeTask { decoders: spec.decoders }),
        inputs: vec![InputSource::Upload { upload, size }],
        outputs: Vec::new(),
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    }
}

/// The encode of a probed input.
///
/// # Errors
/// The input has nothing that could be transcoded.
pub fn encode(
    spec: &JobSpec,
    media: &MediaInfo,
    upload: UploadId,
    size: u64,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let chosen = choose::choose(media)?;
    let duration_ms = media
        .duration_ms
        .or(chosen.video.and_then(|(s, _)| s.duration_ms))
        .or(chosen.audio.and_then(|(s, _)| s.duration_ms));
    let mut outputs = Vec::new();
    let (mut source_pixels, mut rung_pixels) = (0_u64, 0_u64);
    let video = chosen.video.and_then(|(stream, video)| {
        let steps = ladder::ladder(ladder::display(video)?, ladder::frame_rate(video), &spec.video);
        source_pixels = u64::from(video.width).saturating_mul(u64::from(video.height));
        let mut rungs = Vec::with_capacity(steps.len());
        for step in steps {
            rung_pixels =
                rung_pixels.saturating_add(u64::from(step.width).saturating_mul(u64::from(step.height)));
            rungs.push(Rung {
                output: push(&mut outputs, budget::track_bytes(step.max_bit_rate, duration_ms)),
                width: step.width,
                height: step.height,
                crf_tenths: CRF,
                max_bit_rate: step.max_bit_rate,
                buffer_bits: step.max_bit_rate.saturating_mul(2),
                speed: settings.x264,
            });
        }
        Some(VideoEncode {
            stream: stream.index,
            rotation: video.rotation,
            mirrored: video.mirrored,
            max_frame_rate: ladder::MAX_FRAME_RATE,
            rungs,
        })
    });
    let audio: Vec<AudioEncode> = chosen
        .audio
        .map(|(stream, audio)| {
            let channels = audio.channels.min(2);
            let bit_rate = if channels == 2 { 128_000 } else { 64_000 };
            // The 44.1 kHz family resamples to 48 kHz with an ugly ratio and for nothing.
            let sample_rate = if audio.sample_rate.is_multiple_of(11_025) { 44_100 } else { 48_000 };
            AudioEncode {
                output: push(&mut outputs, budget::track_bytes(bit_rate, duration_ms)),
                stream: stream.index,
                bit_rate,
                sample_rate,
                channels,
            }
        })
        .into_iter()
        .collect();
    let budget = budget::encode(duration_ms, source_pixels, rung_pixels, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Encode,
        spec: TaskSpec::Encode(EncodeTask {
            decoders: spec.decoders,
            segment_ms: segment_ms(spec),
            video,
            audio,
            expected_duration_ms: duration_ms,
        }),
        inputs: vec![InputSource::Upload { upload, size }],
        outputs,
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// The packaging of an encode that was verified. `attempt` made the outputs.
///
/// # Errors
/// The result does not fit the plan; it was not verified.
pub fn package(
    task: &EncodeTask,
    result: &EncodeResult,
    outputs: &[OutputDigest],
    attempt: AttemptId,
    media: Option<&MediaInfo>,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let missing = || Failure::new(FailureCode::OutputRejected, "the encode left out a planned output");
    let mut slots = vec![OutputSlot { kind: OutputKind::Stream, max_bytes: budget::PLAYLIST_BYTES }];
    let mut inputs = Vec::new();
    let mut tracks = Vec::new();
    let mut add =
        |output: u32, stem: String, language: Option<String>, expect: &dyn Fn(u64, u64) -> ExpectTrack| {
            let track = result.tracks.iter().find(|t| t.output == output).ok_or_else(missing)?;
            let size = usize::try_from(output).ok().and_then(|n| outputs.get(n)).ok_or_else(missing)?.size;
            let input = position(inputs.len());
            inputs.push(InputSource::Output { attempt, output, size });
            let media_output = push(&mut slots, budget::packaged_bytes(size));
            let playlist_output = push(&mut slots, budget::PLAYLIST_BYTES);
            tracks.push(PackageTrack {
                input,
                media_output,
                playlist_output,
                media_uri: format!("{stem}.mp4"),
                playlist_uri: format!("{stem}.m3u8"),
                expect: expect(track.units, track.duration_ms),
                language,
            });
            Ok::<(), Failure>(())
        };
    for rung in task.video.iter().flat_map(|v| &v.rungs) {
        let (width, height) = (rung.width, rung.height);
        add(rung.output, format!("video-{}p", width.min(height)), None, &|frames, duration_ms| {
            ExpectTrack::Video { width, height, frames, duration_ms }
        })?;
    }
    for audio in &task.audio {
        let (sample_rate, channels) = (audio.sample_rate, audio.channels);
        let stream = media.and_then(|m| m.streams.iter().find(|s| s.index == audio.stream));
        let language = stream.and_then(|s| s.language.clone()).filter(|l| is_language(l));
        add(audio.output, "audio".into(), language, &|_, duration_ms| ExpectTrack::Audio {
            sample_rate,
            channels,
            duration_ms,
        })?;
    }
    let bytes = outputs.iter().fold(0_u64, |sum, o| sum.saturating_add(o.size));
    let budget = budget::copy(bytes, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Package,
        spec: TaskSpec::Package(PackageTask { tracks, segment_ms: task.segment_ms }),
        inputs,
        outputs: slots,
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// The check of a package that was verified. `attempt` made the outputs.
///
/// # Errors
/// The outputs do not fit the plan; they were not verified.
pub fn check(
    task: &PackageTask,
    outputs: &[OutputDigest],
    attempt: AttemptId,
    media: Option<&MediaInfo>,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let mut inputs = Vec::new();
    let mut input = |output: u32| {
        let found = usize::try_from(output).ok().and_then(|n| outputs.get(n));
        let size = found
            .ok_or_else(|| {
                Failure::new(FailureCode::OutputRejected, "the package left out a planned output")
            })?
            .size;
        let at = position(inputs.len());
        inputs.push(InputSource::Output { attempt, output, size });
        Ok::<u32, Failure>(at)
    };
    input(0)?;
    let mut tracks = Vec::with_capacity(task.tracks.len());
    for track in &task.tracks {
        tracks.push(CheckTrack {
            playlist_input: input(track.playlist_output)?,
            media_input: input(track.media_output)?,
            media_uri: track.media_uri.clone(),
            playlist_uri: track.playlist_uri.clone(),
            expect: track.expect.clone(),
        });
    }
    let bytes = outputs.iter().fold(0_u64, |sum, o| sum.saturating_add(o.size));
    let budget = budget::copy(bytes, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Check,
        spec: TaskSpec::Check(CheckTask {
            tracks,
            segment_ms: task.segment_ms,
            source_duration_ms: media.and_then(|m| m.duration_ms),
        }),
        inputs,
        outputs: Vec::new(),
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// What a job's tenant gets, once the package was checked. `attempt` is the one that packaged.
pub fn manifest(task: &PackageTask, outputs: &[OutputDigest], attempt: AttemptId) -> Vec<ManifestEntry> {
    let named = std::iter::once((0, "master.m3u8")).chain(task.tracks.iter().flat_map(|t| {
        [(t.playlist_output, t.playlist_uri.as_str()), (t.media_output, t.media_uri.as_str())]
    }));
    named
        .filter_map(|(output, name)| {
            let digest = usize::try_from(output).ok().and_then(|n| outputs.get(n))?;
            let content_type =
                if name.ends_with(".m3u8") { "application/vnd.apple.mpegurl" } else { "video/mp4" };
            Some(ManifestEntry {
                name: name.into(),
                attempt,
                output,
                size: digest.size,
                parts: digest.parts,
                digest: digest.digest.clone(),
                content_type: content_type.into(),
            })
        })
        .collect()
}

fn segment_ms(spec: &JobSpec) -> u32 {
    spec.video.segment_seconds.unwrap_or(DEFAULT_SEGMENT_S).saturating_mul(1000)
}

fn is_language(text: &str) -> bool {
    (2..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase()) && text != "und"
}

fn push(slots: &mut Vec<OutputSlot>, max_bytes: u64) -> u32 {
    let at = position(slots.len());
    slots.push(OutputSlot { kind: OutputKind::Stream, max_bytes });
    at
}

/// Plans have at most a few dozen positions.
fn position(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
