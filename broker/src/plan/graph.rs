//! The tasks of a job: probe → encode → package → check. Each is planned from the results before it.

pub mod early;

use super::presets::{Form, PresetName, Recipe, expert};
use super::{Settings, budget, choose, ladder, stills};
use crate::model::{InputSource, ManifestEntry, NewTask, Step, TaskKind};
use mpegflow_protocol::codec::OutputKind;
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{AttemptId, UploadId};
use mpegflow_protocol::job::{AudioTracks, JobSpec, KeptTag};
use mpegflow_protocol::media::{AudioInfo, MediaInfo, StreamInfo, VideoInfo};
use mpegflow_protocol::task::{
    AudioEncode, CheckFile, CheckStill, CheckTask, CheckTrack, EncodeResult, EncodeTask, ExpectTrack,
    FileTag, FileTrack, Manifests, PackageFile, PackageStill, PackageTask, PackageTrack, ProbeTask, Rung,
    SpriteIndex, TaskSpec, VideoEncode,
};
use mpegflow_protocol::worker::{OutputDigest, OutputSlot};

const DEFAULT_SEGMENT_S: u32 = 4;

/// The first task of every job.
pub fn probe(spec: &JobSpec, upload: UploadId, size: u64, settings: Settings) -> NewTask {
    let budget = budget::probe(size, settings.threads);
    NewTask {
        kind: TaskKind::Probe,
        step: Step::Whole,
        spec: TaskSpec::Probe(ProbeTask { decoders: spec.decoders, partial: spec.allow_partial }),
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
/// The input has nothing that could be transcoded, or not what the preset makes.
pub fn encode(
    spec: &JobSpec,
    media: &MediaInfo,
    upload: UploadId,
    size: u64,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let recipe = recipe(spec)?;
    let keep = match spec.audio.tracks {
        _ if !recipe.audio => 0,
        Some(AudioTracks::None) => 0,
        Some(AudioTracks::Default) => 1,
        // A file that plays everywhere has one sound track.
        None if matches!(recipe.form, Form::File(_)) => 1,
        Some(AudioTracks::All) | None => choose::MAX_AUDIO_TRACKS,
    };
    let wanted = choose::Wanted {
        pictures: recipe.video.is_some() || recipe.stills,
        sound: keep > 0,
        decoders: spec.decoders,
    };
    let chosen = choose::choose(media, wanted)?;
    let duration_ms = media
        .duration_ms
        .or(chosen.video.and_then(|(s, _)| s.duration_ms))
        .or(chosen.audio.first().and_then(|(s, _)| s.duration_ms));
    let mut outputs = Vec::new();
    let video = chosen.video.map(|(s, v)| {
        Pictures { stream: s, video: v, duration_ms }.plan(recipe, spec, settings, &mut outputs)
    });
    let video = video.transpose()?.flatten();
    let audio: Vec<AudioEncode> = chosen
        .audio
        .iter()
        .take(keep)
        .map(|(stream, audio)| sound(spec, stream, audio, duration_ms, &mut outputs))
        .collect();
    if video.is_none() && audio.is_empty() {
        let missing = if keep > 0 {
            "sound"
        } else if media.streams.iter().any(|s| s.attached_picture) {
            "pictures but its cover"
        } else {
            "pictures"
        };
        let what = format!("The input has no {missing}, and this job of {} makes nothing else.", spec.preset);
        return Err(Failure::new(FailureCode::NoStreams, what));
    }
    let source_pixels = chosen.video.filter(|_| video.is_some()).map_or(0, |(_, v)| area(v.width, v.height));
    let rung_pixels =
        video.iter().flat_map(|v| &v.rungs).fold(0_u64, |sum, r| sum.saturating_add(area(r.width, r.height)));
    let codec = recipe.video.unwrap_or_default();
    let budget = budget::encode(codec, duration_ms, source_pixels, rung_pixels, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Encode,
        step: Step::Whole,
        spec: TaskSpec::Encode(EncodeTask {
            decoders: spec.decoders,
            segment_ms: segment_ms(spec),
            video,
            audio,
            expected_duration_ms: duration_ms,
            partial: spec.allow_partial,
            timeline: None,
            chunk: None,
        }),
        inputs: vec![InputSource::Upload { upload, size }],
        outputs,
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// The pictures of an input, to be planned for.
struct Pictures<'a> {
    stream: &'a StreamInfo,
    video: &'a VideoInfo,
    duration_ms: Option<u64>,
}

impl Pictures<'_> {
    fn plan(
        &self,
        recipe: Recipe,
        spec: &JobSpec,
        settings: Settings,
        outputs: &mut Vec<OutputSlot>,
    ) -> Result<Option<VideoEncode>, Failure> {
        let Some(display) = ladder::display(self.video) else { return Ok(None) };
        let rate = f64::from(max_frame_rate(spec)).min(ladder::frame_rate(self.video));
        let mut steps = ladder::ladder(display, rate, &spec.video);
        let top = steps.first().copied();
        steps.truncate(match recipe {
            Recipe { video: None, .. } => 0,
            Recipe { ladder: false, .. } => 1,
            _ => usize::MAX,
        });
        let rungs = self.rungs(&steps, recipe, spec, settings, outputs)?;
        let (mut poster, mut sprites) = (None, None);
        if let (true, Some(top)) = (recipe.stills && spec.thumbnails.enabled != Some(false), top) {
            let shape = stills::Shape { width: top.width, height: top.height };
            poster = Some(stills::poster(shape, self.duration_ms, spec, outputs));
            sprites = Some(stills::sprites(shape, self.duration_ms, spec, outputs));
        }
        if rungs.is_empty() && poster.is_none() {
            return Ok(None);
        }
        Ok(Some(VideoEncode {
            stream: self.stream.index,
            rotation: self.video.rotation,
            mirrored: self.video.mirrored,
            max_frame_rate: max_frame_rate(spec),
            deinterlace: spec.video.deinterlace != Some(false),
            rungs,
            poster,
            sprites,
        }))
    }

    /// Whether the source says that it is what a rung is to be. Whether that is so the codec finds out.
    fn could_be_copied(&self, rung: &Rung) -> bool {
        let (stream, video) = (self.stream, self.video);
        let plain = |said: &Option<String>, only: &str| said.as_deref().is_none_or(|s| s == only);
        rung.codec == VideoCodec::H264
            && stream.codec == "h264"
            && (video.width, video.height) == (rung.width, rung.height)
            && video.rotation == 0
            && !video.mirrored
            && video.sample_aspect.num == video.sample_aspect.den
            && video.pixel_format.as_deref() == Some("yuv420p")
            && plain(&video.color_range, "tv")
            && plain(&video.field_order, "progressive")
    }

    fn rungs(
        &self,
        steps: &[ladder::Step],
        recipe: Recipe,
        spec: &JobSpec,
        settings: Settings,
        outputs: &mut Vec<OutputSlot>,
    ) -> Result<Vec<Rung>, Failure> {
        let Some(codec) = recipe.video else { return Ok(Vec::new()) };
        if let Some(step) = steps.first().filter(|s| s.width.min(s.height) < codec.min_side()) {
            let what = format!(
                "The picture is {} × {} pixels, and {} needs at least {} a side. Choose the preset web.",
                step.width,
                step.height,
                codec.as_str(),
                codec.min_side()
            );
            return Err(Failure::new(FailureCode::FrameTooSmall, what));
        }
        // The spec was checked when it came; a stored one that no longer passes must not be encoded by default.
        let expert =
            expert(recipe, spec).map_err(|e| Failure::new(FailureCode::BrokerError, e.to_string()))?;
        let rung = |step: &ladder::Step| {
            let max_bit_rate = ladder::for_codec(step.max_bit_rate, codec);
            Rung {
                output: push(outputs, budget::track_bytes(max_bit_rate, self.duration_ms)),
                codec,
                width: step.width,
                height: step.height,
                crf_tenths: expert.crf_tenths.unwrap_or(ladder::crf_tenths(codec)),
                max_bit_rate,
                buffer_bits: max_bit_rate.saturating_mul(2),
                speed: expert.speed.unwrap_or(settings.x264),
                tuning: expert.tuning,
                copy: false,
            }
        };
        let mut rungs: Vec<Rung> = steps.iter().map(rung).collect();
        if let Some(top) = rungs.first_mut() {
            top.copy = spec.video.copy == Some(true) && self.could_be_copied(top);
        }
        Ok(rungs)
    }
}

fn sound(
    spec: &JobSpec,
    stream: &StreamInfo,
    audio: &AudioInfo,
    duration_ms: Option<u64>,
    outputs: &mut Vec<OutputSlot>,
) -> AudioEncode {
    let channels = audio.channels.min(spec.audio.max_channels.unwrap_or(2).clamp(1, 2));
    let stereo = spec.audio.bit_rate_kbps.unwrap_or(128).saturating_mul(1000);
    let bit_rate = if channels == 2 { stereo } else { stereo / 2 };
    // The 44.1 kHz family resamples to 48 kHz with an ugly ratio and for nothing.
    let sample_rate = if audio.sample_rate.is_multiple_of(11_025) { 44_100 } else { 48_000 };
    AudioEncode {
        output: push(outputs, budget::track_bytes(bit_rate, duration_ms)),
        stream: stream.index,
        bit_rate,
        sample_rate,
        channels,
    }
}

/// The packaging of an encode that was verified. `attempt` made the outputs.
///
/// # Errors
/// The result does not fit the plan; it was not verified.
pub fn package(
    spec: &JobSpec,
    task: &EncodeTask,
    result: &EncodeResult,
    outputs: &[OutputDigest],
    attempt: AttemptId,
    media: Option<&MediaInfo>,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let recipe = recipe(spec)?;
    let mut plan = Packaging { result, outputs, attempt, inputs: Vec::new(), slots: Vec::new() };
    let mut package = PackageTask {
        tracks: Vec::new(),
        segment_ms: task.segment_ms,
        manifests: None,
        file: None,
        stills: Vec::new(),
    };
    let tracks = plan.tracks(task, media)?;
    match recipe.form {
        Form::Streams => {
            let hls = push(&mut plan.slots, budget::PLAYLIST_BYTES);
            let dash = push(&mut plan.slots, budget::PLAYLIST_BYTES);
            package.manifests = Some(Manifests { hls, dash });
            package.tracks = tracks.into_iter().map(|t| plan.stream(t)).collect();
        }
        Form::File(name) => package.file = Some(plan.file(name, tracks, kept_tags(spec, media))),
        Form::None => {}
    }
    if let Some(poster) = task.video.as_ref().and_then(|v| v.poster.as_ref()) {
        let (_, input) = plan.input(poster.output)?;
        let output = push(&mut plan.slots, budget::STILL_BYTES);
        let uri = "poster.jpg".into();
        let (width, height) = (poster.width, poster.height);
        package.stills.push(PackageStill { input, output, uri, width, height, index: None });
    }
    if let Some(sprites) = task.video.as_ref().and_then(|v| v.sprites.as_ref()) {
        let (made, input) = plan.input(sprites.output)?;
        let (tiles, duration_ms) = (u32::try_from(made.units).unwrap_or(u32::MAX), made.duration_ms);
        let output = push(&mut plan.slots, budget::STILL_BYTES);
        let index = push(&mut plan.slots, budget::PLAYLIST_BYTES);
        package.stills.push(PackageStill {
            input,
            output,
            uri: "sprites.jpg".into(),
            width: sprites.tile_width.saturating_mul(sprites.columns),
            height: sprites.tile_height.saturating_mul(sprites.rows),
            index: Some((
                index,
                SpriteIndex {
                    uri: "sprites.vtt".into(),
                    tile_width: sprites.tile_width,
                    tile_height: sprites.tile_height,
                    columns: sprites.columns,
                    tiles,
                    interval_ms: sprites.interval_ms,
                    duration_ms,
                },
            )),
        });
    }
    let Packaging { inputs, slots, .. } = plan;
    let bytes = outputs.iter().fold(0_u64, |sum, o| sum.saturating_add(o.size));
    let budget = budget::copy(bytes, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Package,
        step: Step::Whole,
        spec: TaskSpec::Package(package),
        inputs,
        outputs: slots,
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// One encoded track on its way into a package.
struct Encoded {
    input: u32,
    size: u64,
    stem: String,
    language: Option<String>,
    expect: ExpectTrack,
}

struct Packaging<'a> {
    result: &'a EncodeResult,
    outputs: &'a [OutputDigest],
    attempt: AttemptId,
    inputs: Vec<InputSource>,
    slots: Vec<OutputSlot>,
}

impl<'a> Packaging<'a> {
    /// Makes an output of the encode the next input.
    fn input(&mut self, output: u32) -> Result<(&'a mpegflow_protocol::task::EncodedTrack, u32), Failure> {
        let missing = || Failure::new(FailureCode::OutputRejected, "the encode left out a planned output");
        let track = self.result.tracks.iter().find(|t| t.output == output).ok_or_else(missing)?;
        let size = usize::try_from(output).ok().and_then(|n| self.outputs.get(n)).ok_or_else(missing)?.size;
        let input = position(self.inputs.len());
        self.inputs.push(InputSource::Output { attempt: self.attempt, output, size });
        Ok((track, input))
    }

    fn tracks(&mut self, task: &EncodeTask, media: Option<&MediaInfo>) -> Result<Vec<Encoded>, Failure> {
        let mut found = Vec::new();
        for rung in task.video.iter().flat_map(|v| &v.rungs) {
            let (made, input) = self.input(rung.output)?;
            found.push(Encoded {
                input,
                size: made.bytes,
                stem: format!("video-{}p", rung.width.min(rung.height)),
                language: None,
                expect: ExpectTrack::Video {
                    codec: rung.codec,
                    width: rung.width,
                    height: rung.height,
                    frames: made.units,
                    duration_ms: made.duration_ms,
                },
            });
        }
        for (number, audio) in task.audio.iter().enumerate() {
            let (made, input) = self.input(audio.output)?;
            let stream = media.and_then(|m| m.streams.iter().find(|s| s.index == audio.stream));
            found.push(Encoded {
                input,
                size: made.bytes,
                stem: if number == 0 {
                    "audio".into()
                } else {
                    format!("audio-{}", number.saturating_add(1))
                },
                language: stream.and_then(|s| s.language.clone()).filter(|l| is_language(l)),
                expect: ExpectTrack::Audio {
                    sample_rate: audio.sample_rate,
                    channels: audio.channels,
                    duration_ms: made.duration_ms,
                },
            });
        }
        Ok(found)
    }

    fn stream(&mut self, track: Encoded) -> PackageTrack {
        PackageTrack {
            input: track.input,
            media_output: push(&mut self.slots, budget::packaged_bytes(track.size)),
            playlist_output: push(&mut self.slots, budget::PLAYLIST_BYTES),
            media_uri: format!("{}.mp4", track.stem),
            playlist_uri: format!("{}.m3u8", track.stem),
            expect: track.expect,
            language: track.language,
            chunk: None,
            joined: Vec::new(),
        }
    }

    fn file(&mut self, name: &str, tracks: Vec<Encoded>, tags: Vec<FileTag>) -> PackageFile {
        let bytes = tracks.iter().fold(0_u64, |sum, t| sum.saturating_add(t.size));
        let output = push(&mut self.slots, budget::packaged_bytes(bytes));
        let track = |t: Encoded| FileTrack { input: t.input, expect: t.expect, language: t.language };
        PackageFile { output, uri: name.into(), tracks: tracks.into_iter().map(track).collect(), tags }
    }
}

/// The tags of the input that the spec asks for and that say something. Matroska spells them in capitals, QuickTime as domains.
fn kept_tags(spec: &JobSpec, media: Option<&MediaInfo>) -> Vec<FileTag> {
    let Some(media) = media else { return Vec::new() };
    let find = |names: &[&str]| {
        let named = |name: &&str| media.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        names.iter().find_map(named).map(|(_, value)| mpegflow_protocol::text::clean(value, 512))
    };
    let value = |tag: KeptTag| match tag {
        KeptTag::Title => find(&["title", "com.apple.quicktime.title"]),
        KeptTag::Artist => find(&["artist", "com.apple.quicktime.artist"]),
        KeptTag::Album => find(&["album", "com.apple.quicktime.album"]),
        KeptTag::Date => find(&["date", "com.apple.quicktime.creationdate", "creation_time"]),
        KeptTag::Location => find(&["location", "com.apple.quicktime.location.ISO6709"]),
    };
    let tag = |tag: &KeptTag| Some(FileTag { tag: *tag, value: value(*tag).filter(|v| !v.is_empty())? });
    spec.metadata.keep.iter().filter_map(tag).collect()
}

/// The check of a package that was verified. `attempt` made the outputs.
///
/// # Errors
/// The outputs do not fit the plan; they were not verified.
pub fn check(
    spec: &JobSpec,
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
    let manifests = match task.manifests {
        Some(m) => Some(Manifests { hls: input(m.hls)?, dash: input(m.dash)? }),
        None => None,
    };
    let mut tracks = Vec::with_capacity(task.tracks.len());
    for track in &task.tracks {
        tracks.push(CheckTrack {
            playlist_input: input(track.playlist_output)?,
            media_input: input(track.media_output)?,
            media_uri: track.media_uri.clone(),
            playlist_uri: track.playlist_uri.clone(),
            expect: track.expect.clone(),
            chunk: None,
        });
    }
    let file = match &task.file {
        Some(file) => Some(CheckFile {
            input: input(file.output)?,
            uri: file.uri.clone(),
            tracks: file.tracks.iter().map(|t| t.expect.clone()).collect(),
            tags: file.tags.clone(),
        }),
        None => None,
    };
    let mut stills = Vec::with_capacity(task.stills.len());
    for still in &task.stills {
        stills.push(CheckStill {
            input: input(still.output)?,
            uri: still.uri.clone(),
            width: still.width,
            height: still.height,
            index: match &still.index {
                Some((output, index)) => Some((input(*output)?, index.clone())),
                None => None,
            },
        });
    }
    let bytes = outputs.iter().fold(0_u64, |sum, o| sum.saturating_add(o.size));
    let budget = budget::copy(bytes, settings.threads);
    // What was cut off, or left out on purpose, is not missing.
    let whole = !spec.allow_partial && (file.is_some() || manifests.is_some());
    Ok(NewTask {
        kind: TaskKind::Check,
        step: Step::Whole,
        spec: TaskSpec::Check(CheckTask {
            tracks,
            segment_ms: task.segment_ms,
            source_duration_ms: media.and_then(|m| m.duration_ms).filter(|_| whole),
            manifests,
            file,
            stills,
            list: false,
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
    let lists = task.manifests.iter().flat_map(|m| [(m.hls, "master.m3u8"), (m.dash, "manifest.mpd")]);
    let tracks = task
        .tracks
        .iter()
        .flat_map(|t| [(t.playlist_output, t.playlist_uri.as_str()), (t.media_output, t.media_uri.as_str())]);
    let file = task.file.iter().map(|f| (f.output, f.uri.as_str()));
    let stills = task.stills.iter().flat_map(|s| {
        std::iter::once((s.output, s.uri.as_str())).chain(s.index.iter().map(|(o, i)| (*o, i.uri.as_str())))
    });
    lists
        .chain(tracks)
        .chain(file)
        .chain(stills)
        .filter_map(|(output, name)| {
            let digest = usize::try_from(output).ok().and_then(|n| outputs.get(n))?;
            Some(ManifestEntry {
                name: name.into(),
                attempt,
                output,
                size: digest.size,
                parts: digest.parts,
                digest: digest.digest.clone(),
                content_type: content_type(name).into(),
            })
        })
        .collect()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "m4a" => "audio/mp4",
        "jpg" => "image/jpeg",
        "vtt" => "text/vtt",
        _ => "video/mp4",
    }
}

fn recipe(spec: &JobSpec) -> Result<Recipe, Failure> {
    let preset = PresetName::find(&spec.preset);
    let unknown = || Failure::new(FailureCode::BrokerError, format!("there is no preset {}", spec.preset));
    preset.map(PresetName::recipe).ok_or_else(unknown)
}

fn max_frame_rate(spec: &JobSpec) -> u32 {
    spec.video.max_frame_rate.unwrap_or(ladder::MAX_FRAME_RATE).clamp(1, ladder::MAX_FRAME_RATE)
}

fn area(width: u32, height: u32) -> u64 {
    u64::from(width).saturating_mul(u64::from(height))
}

fn segment_ms(spec: &JobSpec) -> u32 {
    spec.video.segment_seconds.unwrap_or(DEFAULT_SEGMENT_S).saturating_mul(1000)
}

fn is_language(text: &str) -> bool {
    (2..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase()) && text != "und"
}

pub(super) fn push(slots: &mut Vec<OutputSlot>, max_bytes: u64) -> u32 {
    let at = position(slots.len());
    slots.push(OutputSlot { kind: OutputKind::Stream, max_bytes });
    at
}

/// Plans have at most a few dozen positions.
fn position(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
