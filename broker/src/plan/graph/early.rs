//! The tasks of a job that plays before it has ended: probe → the sound → the lowest rung, chunk by chunk → what is left. Each of
//! these is an encode, a package and a check, in processes of their own, and nothing of it is served before its check.
//!
//! The chain has no branches: what a chunk needs of the one before (where it ended, and what its clock had to remember) is in that
//! one's result, so that the chunks together are frame for frame what one encode would have made.

use super::{Manifests, budget, push};
use crate::model::{InputSource, ManifestEntry, NewTask, Step, TaskKind, TaskRecord};
use crate::plan::{Settings, graph};
use crate::state::Snapshot;
use mpegflow_protocol::api::TaskState;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::media::{MediaInfo, StreamKind};
use mpegflow_protocol::task::{
    CheckChunk, CheckResult, CheckedTrack, Chunk, ChunkPlace, Cut, EncodeResult, EncodeTask, ExpectTrack,
    JoinedChunk, ListedTrack, MadeChunk, PackageTask, PackageTrack, Rung, TaskResult, TaskSpec, Timeline,
};
use mpegflow_protocol::text;
use mpegflow_protocol::worker::{OutputDigest, OutputSlot};

/// Chunks at most: all of them are inputs of one package, beside the other tracks.
pub const MAX_CHUNKS: u32 = 16;
/// Segments of all sound tracks together that one check can tell of.
const MAX_SOUND_SEGMENTS: u64 = 20_000;
/// With fewer frames a second a segment may last longer than a playlist says that none does.
const MIN_FRAME_RATE: f64 = 4.0;
/// Ticks of a millisecond of video.
const TICKS: i64 = 90;

/// Why an input is encoded as a whole although the job asks to play early; `None` where it is cut into chunks.
pub fn whole_because(media: &MediaInfo, full: &EncodeTask) -> Option<&'static str> {
    let Some(video) = full.video.as_ref().filter(|v| !v.rungs.is_empty()) else {
        return Some("it has no pictures");
    };
    if !media.format.split(',').any(|f| matches!(f, "mp4" | "matroska" | "webm")) {
        return Some(
            "places in its container cannot be found again exactly; MP4, QuickTime, Matroska and WebM are cut",
        );
    }
    let Some(duration_ms) = full.expected_duration_ms else { return Some("it does not say how long it is") };
    let segment_ms = u64::from(full.segment_ms.max(1));
    if duration_ms <= segment_ms.saturating_mul(2) {
        return Some("it is not longer than two segments");
    }
    let rate = media.streams.iter().find(|s| s.index == video.stream).and_then(|s| match &s.kind {
        StreamKind::Video(v) => v.frame_rate.and_then(|r| r.positive()),
        _ => None,
    });
    if rate.is_none_or(|rate| rate < MIN_FRAME_RATE) {
        return Some("its frames are too far apart, or it does not say how far");
    }
    let tracks = u64::try_from(full.audio.len()).unwrap_or(u64::MAX);
    if duration_ms.div_ceil(segment_ms).saturating_mul(tracks.max(1)) > MAX_SOUND_SEGMENTS {
        return Some("it has too many segments");
    }
    None
}

/// The first task behind the probe. `full` is the encode of all tracks at once.
///
/// # Errors
/// There is no rung.
pub fn first(full: &NewTask) -> Result<NewTask, Failure> {
    let TaskSpec::Encode(plan) = &full.spec else {
        return Err(broken("the encode of this job is not known"));
    };
    if plan.audio.is_empty() {
        return chunk(full, plan, 0, None);
    }
    let mut outputs = Vec::new();
    let mut audio = plan.audio.clone();
    for track in &mut audio {
        track.output = moved(&full.outputs, track.output, &mut outputs)?;
    }
    let spec = EncodeTask { video: None, audio, timeline: Some(timeline(plan)), ..plan.clone() };
    Ok(NewTask { step: Step::Sound, spec: TaskSpec::Encode(spec), outputs, ..full.clone() })
}

/// What follows an encode of a part: its package.
///
/// # Errors
/// The result does not fit the plan, or what came before.
pub fn package(
    snapshot: &Snapshot,
    result: &EncodeResult,
    outputs: &[OutputDigest],
    settings: Settings,
) -> Result<NewTask, Failure> {
    let (job, media) = (&snapshot.job, snapshot.job.media.as_ref());
    let TaskSpec::Encode(task) = &snapshot.task.plan.spec else {
        return Err(broken("the encode of this package is not known"));
    };
    match snapshot.task.plan.step {
        Step::Chunk(number) => package_chunk(snapshot, task, number, result, outputs, settings),
        Step::Rest => {
            let frames = Chunks::of(&snapshot.tasks)?.frames;
            let rungs = task.video.iter().flat_map(|v| &v.rungs);
            let same =
                |rung: &Rung| result.tracks.iter().any(|t| t.output == rung.output && t.units == frames);
            if !rungs.into_iter().all(same) {
                return Err(rejected("the rungs do not have the frames of the chunks together"));
            }
            let rest = graph::package(&job.spec, task, result, outputs, snapshot.attempt, media, settings)?;
            package_rest(snapshot, rest, settings)
        }
        step => {
            let next = graph::package(&job.spec, task, result, outputs, snapshot.attempt, media, settings)?;
            Ok(NewTask { step, ..next })
        }
    }
}

/// What follows a package of a part: its check.
///
/// # Errors
/// The result does not fit the plan, or what came before.
pub fn check(snapshot: &Snapshot, outputs: &[OutputDigest], settings: Settings) -> Result<NewTask, Failure> {
    let TaskSpec::Package(task) = &snapshot.task.plan.spec else {
        return Err(broken("the package of this check is not known"));
    };
    let step = snapshot.task.plan.step;
    let media = snapshot.job.media.as_ref();
    match step {
        Step::Chunk(number) => {
            let mut next = graph::check(&snapshot.job.spec, task, outputs, snapshot.attempt, None, settings)?;
            let first = if number == 0 { None } else { Some(first_chunk(&snapshot.tasks)?) };
            let (start, end) = made(&snapshot.tasks, number).map(|m| (m.start, m.end))?;
            let TaskSpec::Check(check) = &mut next.spec else { return Err(broken("a check is none")) };
            let like = first.map(|media| {
                next.inputs.push(media);
                super::position(next.inputs.len().saturating_sub(1))
            });
            check.list = true;
            for track in &mut check.tracks {
                track.chunk = Some(CheckChunk { start, end, like });
            }
            Ok(NewTask { step, ..next })
        }
        Step::Sound => {
            // How long the pictures are it cannot know.
            let mut next = graph::check(&snapshot.job.spec, task, outputs, snapshot.attempt, None, settings)?;
            if let TaskSpec::Check(check) = &mut next.spec {
                check.list = true;
            }
            Ok(NewTask { step, ..next })
        }
        Step::Rest | Step::Whole => {
            same_as_served(snapshot, task, outputs)?;
            let next = graph::check(&snapshot.job.spec, task, outputs, snapshot.attempt, media, settings)?;
            Ok(NewTask { step, ..next })
        }
    }
}

/// What follows the check of a part that was found to be right.
///
/// # Errors
/// What it found does not fit what came before.
pub fn next(snapshot: &Snapshot, result: &CheckResult, settings: Settings) -> Result<NewTask, Failure> {
    listed(snapshot, result)?;
    // As the tasks are once this decision holds.
    let mut snapshot = snapshot.clone();
    if let Some(task) = snapshot.tasks.iter_mut().find(|t| t.id == snapshot.task.id) {
        task.state = TaskState::Succeeded;
        task.result = Some(TaskResult::Check(result.clone()));
    }
    let snapshot = &snapshot;
    let full = full(snapshot, settings)?;
    let TaskSpec::Encode(plan) = &full.spec else {
        return Err(broken("the encode of this job is not known"));
    };
    let number = match snapshot.task.plan.step {
        Step::Chunk(number) => number,
        _ => return chunk(&full, plan, 0, None),
    };
    match made(&snapshot.tasks, number)?.next {
        // As the first chunk was planned, whatever the settings have become.
        Some(cut) => {
            let before = encode_of(&snapshot.tasks, Step::Chunk(number))?;
            let TaskSpec::Encode(spec) = &before.plan.spec else {
                return Err(broken("the chunk before this one is not known"));
            };
            chunk(&before.plan, spec, number.saturating_add(1), Some(cut))
        }
        None => rest(snapshot, &full, plan, settings),
    }
}

/// What the tenant gets: what was served already, and the rest of the package.
///
/// # Errors
/// A part is not known.
pub fn manifest(snapshot: &Snapshot) -> Result<Vec<ManifestEntry>, Failure> {
    let package = package_of(&snapshot.tasks, Step::Rest)?;
    let mut entries = entries(package)?;
    let chunks = Chunks::of(&snapshot.tasks)?;
    // Its playlist is written from what was checked of the chunks.
    entries.retain(|entry| entry.name != chunks.playlist_uri);
    if let Ok(sound) = package_of(&snapshot.tasks, Step::Sound) {
        let served = self::entries(sound)?;
        for entry in &mut entries {
            if let Some(same) = served.iter().find(|s| s.name == entry.name && s.digest == entry.digest) {
                *entry = same.clone();
            }
        }
    }
    for number in 0..chunks.count {
        entries.extend(chunk_file(&snapshot.tasks, number)?);
    }
    Ok(entries)
}

/// Verifies the encode of a chunk against where it had to begin and to end.
///
/// # Errors
/// [`FailureCode::OutputRejected`].
pub fn verify(task: &EncodeTask, result: &EncodeResult) -> Result<(), Failure> {
    let (Some(plan), Some(made)) = (task.chunk, result.chunk) else {
        return if task.chunk.is_none() && result.chunk.is_none() {
            Ok(())
        } else {
            Err(rejected("the encode did not make the chunk that was planned"))
        };
    };
    let segment = i64::from(task.segment_ms.max(1)).saturating_mul(TICKS);
    let until = plan.until_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(TICKS));
    let start = plan.from.map_or(0, |cut| cut.time);
    let ends = match (made.next, until) {
        // The frame behind it is the first of another segment.
        (Some(cut), Some(until)) => {
            cut.time == made.end
                && cut.time >= until
                && cut.last < cut.time
                && cut.last >= start
                && (0..=MAX_TICKS).contains(&cut.last_length)
                && (0..=MAX_TICKS).contains(&cut.offset)
                && (0..=MAX_TICKS).contains(&cut.due)
                && cut.last.checked_div(segment) == Some(cut.segment)
                && cut.last < until
        }
        (Some(_), None) => false,
        (None, _) => true,
    };
    let lasts = made.end.saturating_sub(start);
    let track_lasts = result.tracks.iter().all(|t| {
        i64::try_from(t.duration_ms)
            .is_ok_and(|ms| lasts.saturating_sub(ms.saturating_mul(TICKS)).abs() < TICKS)
    });
    if made.start != start
        || !(1..=MAX_TICKS).contains(&lasts)
        || made.end > MAX_TICKS
        || !ends
        || !track_lasts
    {
        return Err(rejected("the chunk is not the part of the film that was planned"));
    }
    if i64::from(made.lead) > MAX_LEAD_TICKS {
        return Err(rejected("the chunk is decoded too long before it is shown"));
    }
    Ok(())
}

/// A day, and a minute: as far as times are believed.
const MAX_TICKS: i64 = 25 * 3_600 * 1_000 * TICKS;
const MAX_LEAD_TICKS: i64 = 60_000 * TICKS;

/// When the chunk of that number ends in a film of so many milliseconds; none for the last.
fn until_ms(number: u32, duration_ms: u64, segment_ms: u32) -> Option<u64> {
    let segment_ms = u64::from(segment_ms.max(1));
    let segments = duration_ms.div_ceil(segment_ms);
    // Twice as long as the one before, so that what plays does not catch up with what is made, up to what makes them few.
    let ends = |most: u64| {
        let mut end = 0_u64;
        (0..MAX_CHUNKS)
            .map(|n| {
                end = end.saturating_add((1_u64 << n.min(32)).min(most));
                end
            })
            .collect::<Vec<_>>()
    };
    let most =
        (3..40).map(|n| 1_u64 << n).find(|most| ends(*most).last().is_some_and(|end| *end >= segments));
    let ends = ends(most.unwrap_or(u64::MAX >> 1));
    let end = usize::try_from(number).ok().and_then(|n| ends.get(n)).copied()?;
    (end < segments && number.saturating_add(1) < MAX_CHUNKS).then(|| end.saturating_mul(segment_ms))
}

fn chunk(of: &NewTask, plan: &EncodeTask, number: u32, from: Option<Cut>) -> Result<NewTask, Failure> {
    let video = plan.video.as_ref().ok_or_else(|| broken("a job without pictures plays early"))?;
    let lowest = video.rungs.last().ok_or_else(|| broken("a job without rungs plays early"))?;
    let mut outputs = Vec::new();
    let mut rung = lowest.clone();
    rung.output = moved(&of.outputs, lowest.output, &mut outputs)?;
    rung.copy = false;
    let mut video = video.clone();
    (video.rungs, video.poster, video.sprites) = (vec![rung], None, None);
    let until_ms = plan.expected_duration_ms.and_then(|ms| until_ms(number, ms, plan.segment_ms));
    let spec = EncodeTask {
        video: Some(video),
        audio: Vec::new(),
        timeline: Some(plan.timeline.clone().unwrap_or_else(|| timeline(plan))),
        chunk: Some(Chunk { from, until_ms }),
        ..plan.clone()
    };
    let step = Step::Chunk(number);
    Ok(NewTask { kind: TaskKind::Encode, step, spec: TaskSpec::Encode(spec), outputs, ..of.clone() })
}

/// The encode of all but the sound and the lowest rung; where there is nothing else, the package of all.
fn rest(
    snapshot: &Snapshot,
    full: &NewTask,
    plan: &EncodeTask,
    settings: Settings,
) -> Result<NewTask, Failure> {
    let mut video = plan.video.clone().ok_or_else(|| broken("a job without pictures plays early"))?;
    let lowest = video.rungs.pop().ok_or_else(|| broken("a job without rungs plays early"))?;
    let made = Chunks::of(&snapshot.tasks)?;
    if (lowest.codec, lowest.width, lowest.height) != (made.rung.codec, made.rung.width, made.rung.height) {
        return Err(broken("the ladder of this job has become another one"));
    }
    if video.rungs.is_empty() && video.poster.is_none() && video.sprites.is_none() {
        let nothing = EncodeTask { video: None, audio: Vec::new(), ..plan.clone() };
        let media = snapshot.job.media.as_ref();
        let result = EncodeResult::default();
        let empty =
            graph::package(&snapshot.job.spec, &nothing, &result, &[], snapshot.attempt, media, settings)?;
        return package_rest(snapshot, empty, settings);
    }
    let mut outputs = Vec::new();
    for rung in &mut video.rungs {
        rung.output = moved(&full.outputs, rung.output, &mut outputs)?;
    }
    if let Some(poster) = video.poster.as_mut() {
        poster.output = moved(&full.outputs, poster.output, &mut outputs)?;
    }
    if let Some(sprites) = video.sprites.as_mut() {
        sprites.output = moved(&full.outputs, sprites.output, &mut outputs)?;
    }
    let spec =
        EncodeTask { video: Some(video), audio: Vec::new(), timeline: Some(timeline(plan)), ..plan.clone() };
    Ok(NewTask { step: Step::Rest, spec: TaskSpec::Encode(spec), outputs, ..full.clone() })
}

fn package_chunk(
    snapshot: &Snapshot,
    task: &EncodeTask,
    number: u32,
    result: &EncodeResult,
    outputs: &[OutputDigest],
    settings: Settings,
) -> Result<NewTask, Failure> {
    let missing = || rejected("the encode left out a planned output");
    let rung = task.video.as_ref().and_then(|v| v.rungs.first()).ok_or_else(missing)?;
    let made = result.tracks.first().ok_or_else(missing)?;
    let size = outputs.first().ok_or_else(missing)?.size;
    let chunk = result.chunk.ok_or_else(missing)?;
    let lead = if number == 0 { chunk.lead } else { self::made(&snapshot.tasks, 0)?.lead };
    let stem = chunk_stem(rung, number);
    let mut slots = Vec::new();
    let track = PackageTrack {
        input: 0,
        media_output: push(&mut slots, budget::packaged_bytes(size)),
        playlist_output: push(&mut slots, budget::PLAYLIST_BYTES),
        media_uri: format!("{stem}.mp4"),
        playlist_uri: format!("{stem}.m3u8"),
        expect: expect(rung, made.units, made.duration_ms),
        language: None,
        chunk: Some(ChunkPlace { start: chunk.start, lead }),
        joined: Vec::new(),
    };
    let budget = budget::copy(size, settings.threads);
    Ok(NewTask {
        kind: TaskKind::Package,
        step: Step::Chunk(number),
        spec: TaskSpec::Package(PackageTask {
            tracks: vec![track],
            segment_ms: task.segment_ms,
            manifests: None,
            file: None,
            stills: Vec::new(),
        }),
        inputs: vec![InputSource::Output { attempt: snapshot.attempt, output: made.output, size }],
        outputs: slots,
        limits: budget.limits,
        wall_ms: budget.wall_ms,
        threads: settings.threads,
    })
}

/// Adds the lowest rung, joined again for DASH, and the sound to a package of the others.
fn package_rest(snapshot: &Snapshot, mut task: NewTask, settings: Settings) -> Result<NewTask, Failure> {
    let chunks = Chunks::of(&snapshot.tasks)?;
    let TaskSpec::Package(package) = &mut task.spec else { return Err(broken("a package is none")) };
    let mut input = |source: InputSource| {
        task.inputs.push(source);
        super::position(task.inputs.len().saturating_sub(1))
    };
    let (mut first, mut joined, mut bytes) = (None, Vec::new(), 0_u64);
    for number in 0..chunks.count {
        let encode = encode_of(&snapshot.tasks, Step::Chunk(number))?;
        let source = output_of(encode, 0)?;
        bytes = bytes.saturating_add(source.size());
        let at = input(source);
        match first {
            None => first = Some(at),
            Some(_) => joined.push(JoinedChunk { input: at, start: made(&snapshot.tasks, number)?.start }),
        }
    }
    let stem = rung_stem(&chunks.rung);
    package.tracks.push(PackageTrack {
        input: first.ok_or_else(|| broken("there is no chunk"))?,
        media_output: push(&mut task.outputs, budget::packaged_bytes(bytes)),
        playlist_output: push(&mut task.outputs, budget::PLAYLIST_BYTES),
        media_uri: format!("{stem}.mp4"),
        playlist_uri: chunks.playlist_uri.clone(),
        expect: expect(&chunks.rung, chunks.frames, u64::try_from(chunks.end / TICKS).unwrap_or(0)),
        language: None,
        chunk: None,
        joined,
    });
    if let Ok(sound) = package_of(&snapshot.tasks, Step::Sound) {
        let TaskSpec::Package(plan) = &sound.plan.spec else { return Err(broken("a package is none")) };
        for track in &plan.tracks {
            let source = usize::try_from(track.input).ok().and_then(|n| sound.plan.inputs.get(n)).cloned();
            let source = source.ok_or_else(|| broken("the sound's input is not known"))?;
            let size = source.size();
            package.tracks.push(PackageTrack {
                input: input(source),
                media_output: push(&mut task.outputs, budget::packaged_bytes(size)),
                playlist_output: push(&mut task.outputs, budget::PLAYLIST_BYTES),
                ..track.clone()
            });
        }
    }
    let bytes = task.inputs.iter().fold(0_u64, |sum, input| sum.saturating_add(input.size()));
    let budget = budget::copy(bytes, settings.threads);
    if package.manifests.is_none() {
        let (hls, dash) = (
            push(&mut task.outputs, budget::PLAYLIST_BYTES),
            push(&mut task.outputs, budget::PLAYLIST_BYTES),
        );
        package.manifests = Some(Manifests { hls, dash });
    }
    Ok(NewTask { step: Step::Rest, limits: budget.limits, wall_ms: budget.wall_ms, ..task })
}

/// What was served is what is committed: the sound of the whole package has to be the same, byte for byte.
fn same_as_served(snapshot: &Snapshot, task: &PackageTask, outputs: &[OutputDigest]) -> Result<(), Failure> {
    let Ok(sound) = package_of(&snapshot.tasks, Step::Sound) else { return Ok(()) };
    let TaskSpec::Package(plan) = &sound.plan.spec else { return Err(broken("a package is none")) };
    let digest = |digests: &[OutputDigest], at: u32| {
        usize::try_from(at).ok().and_then(|n| digests.get(n)).map(|d| (d.digest.clone(), d.size))
    };
    for served in &plan.tracks {
        let now = task.tracks.iter().find(|t| t.media_uri == served.media_uri);
        let now = now.and_then(|t| digest(outputs, t.media_output));
        if now.is_none() || now != digest(&sound.digests, served.media_output) {
            return Err(rejected(&format!("{} is not what was served already", served.media_uri)));
        }
    }
    Ok(())
}

/// Holds what a check lists of each track against what came.
fn listed(snapshot: &Snapshot, result: &CheckResult) -> Result<(), Failure> {
    let package = package_of(&snapshot.tasks, snapshot.task.plan.step)?;
    let TaskSpec::Package(plan) = &package.plan.spec else { return Err(broken("a package is none")) };
    for (track, checked) in plan.tracks.iter().zip(&result.tracks) {
        let bytes =
            usize::try_from(track.media_output).ok().and_then(|n| package.digests.get(n)).map(|d| d.size);
        let fits =
            checked.listed.as_ref().is_some_and(|list| fits(track, list, bytes, plan.segment_ms, checked));
        if !fits {
            return Err(rejected(&format!("what the check lists of {} cannot be", track.media_uri)));
        }
    }
    Ok(())
}

fn fits(
    track: &PackageTrack,
    list: &ListedTrack,
    bytes: Option<u64>,
    segment_ms: u32,
    checked: &CheckedTrack,
) -> bool {
    let end = list.segments.iter().fold(list.first, |at, s| at.saturating_add(s.bytes));
    let micros = list.segments.iter().fold(0_u64, |at, s| at.saturating_add(s.micros));
    let target = target_seconds(segment_ms);
    let prefix = match track.expect {
        ExpectTrack::Video { codec, .. } => codec.codecs_prefix(),
        ExpectTrack::Audio { .. } => "mp4a.",
    };
    let whole = |s: &mpegflow_protocol::task::ListedSegment| {
        s.bytes > 0 && s.micros > 0 && s.micros.saturating_add(500_000) / 1_000_000 <= target
    };
    Some(end) == bytes
        && list.header > 0
        && list.header <= list.first
        && !list.segments.is_empty()
        && list.segments.iter().all(whole)
        && (micros / 1_000).abs_diff(checked.duration_ms) <= 100
        && list.codecs.starts_with(prefix)
        && list.codecs.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        && text::is_label(&list.codecs, 64)
}

/// How far a job that plays early is, in thousandths; `None` of another.
pub fn permille(tasks: &[TaskRecord]) -> Option<u32> {
    let last = tasks.iter().rev().find(|t| !t.plan.step.is_whole())?;
    let is_done = |kind, step| done(tasks, kind, step).is_ok();
    let (from, to) = match last.plan.step {
        Step::Whole | Step::Sound => (spans::SOUND.0, spans::CHUNKS.0),
        Step::Chunk(_) => {
            let ms = Chunks::of(tasks).map_or(0, |chunks| u64::try_from(chunks.end / TICKS).unwrap_or(0));
            let chunk = tasks.iter().rev().find_map(|t| match &t.plan.spec {
                TaskSpec::Encode(plan) if plan.chunk.is_some() => plan.expected_duration_ms,
                _ => None,
            });
            let thousandths =
                ms.saturating_mul(1_000).checked_div(chunk.unwrap_or(1).max(1)).unwrap_or(0).min(1_000);
            let width = spans::CHUNKS.1.saturating_sub(spans::CHUNKS.0);
            let more = u32::try_from(thousandths).unwrap_or(1_000).saturating_mul(width) / 1_000;
            return Some(spans::CHUNKS.0.saturating_add(more));
        }
        Step::Rest if is_done(TaskKind::Check, Step::Rest) => (1_000, 1_000),
        Step::Rest if is_done(TaskKind::Package, Step::Rest) => (950, 950),
        Step::Rest if is_done(TaskKind::Encode, Step::Rest) => (spans::REST.1, spans::REST.1),
        Step::Rest => (spans::REST.0, spans::REST.0),
    };
    Some(if is_done(TaskKind::Check, Step::Sound) { to } else { from })
}

/// Frames of the film that have been encoded.
pub fn frames(tasks: &[TaskRecord]) -> u64 {
    let chunks = (0..MAX_CHUNKS).map_while(|n| encode_of(tasks, Step::Chunk(n)).ok());
    chunks.map(units).fold(0, u64::saturating_add)
}

/// From where to where the encode of each part takes a job, in thousandths of its progress.
pub mod spans {
    /// The sound.
    pub const SOUND: (u32, u32) = (20, 40);
    /// The lowest rung.
    pub const CHUNKS: (u32, u32) = (40, 200);
    /// The others.
    pub const REST: (u32, u32) = (200, 900);
}

/// What a playlist that grows says of the longest segment that will ever be in it: one frame more than was asked for, rounded up.
pub(crate) fn target_seconds(segment_ms: u32) -> u64 {
    u64::from(segment_ms.div_ceil(1_000)).saturating_add(1)
}

/// The chunks of a job whose checks are done, as far as there is none missing before them.
pub(crate) struct Chunks {
    /// How many.
    pub(crate) count: u32,
    /// Their rung.
    pub(crate) rung: Rung,
    /// Length of a segment.
    pub(crate) segment_ms: u32,
    /// Frames of all.
    pub(crate) frames: u64,
    /// When the last one ends, in ticks.
    pub(crate) end: i64,
    /// The film ends with the last one.
    pub(crate) complete: bool,
    /// The name of their playlist.
    pub(crate) playlist_uri: String,
}

impl Chunks {
    /// Those of these tasks.
    ///
    /// # Errors
    /// There is none, or what they say does not fit.
    pub(crate) fn of(tasks: &[TaskRecord]) -> Result<Self, Failure> {
        let first = encode_of(tasks, Step::Chunk(0))?;
        let TaskSpec::Encode(plan) = &first.plan.spec else { return Err(broken("an encode is none")) };
        let rung =
            plan.video.as_ref().and_then(|v| v.rungs.first()).ok_or_else(|| broken("a chunk has no rung"))?;
        let mut chunks = Self {
            count: 0,
            rung: rung.clone(),
            segment_ms: plan.segment_ms,
            frames: 0,
            end: 0,
            complete: false,
            playlist_uri: format!("{}.m3u8", rung_stem(rung)),
        };
        for number in 0..MAX_CHUNKS {
            if check_of(tasks, Step::Chunk(number)).is_err() {
                break;
            }
            let (units, made) = (units(encode_of(tasks, Step::Chunk(number))?), made(tasks, number)?);
            chunks.count = number.saturating_add(1);
            chunks.frames = chunks.frames.saturating_add(units);
            chunks.end = made.end;
            chunks.complete = made.next.is_none();
        }
        if chunks.count == 0 {
            return Err(broken("no chunk was checked"));
        }
        Ok(chunks)
    }
}

/// The media of a chunk, as the tenant gets it.
pub(crate) fn chunk_file(tasks: &[TaskRecord], number: u32) -> Result<Vec<ManifestEntry>, Failure> {
    let mut entries = entries(package_of(tasks, Step::Chunk(number))?)?;
    // Its own playlist was only there to be checked.
    entries.retain(|entry| entry.name.ends_with(".mp4"));
    Ok(entries)
}

/// The objects of the sound, as the tenant gets them.
pub(crate) fn sound_files(tasks: &[TaskRecord]) -> Result<Vec<ManifestEntry>, Failure> {
    entries(package_of(tasks, Step::Sound)?)
}

/// Frames of the first chunk.
pub(crate) fn frames_of_first(tasks: &[TaskRecord]) -> Result<u64, Failure> {
    encode_of(tasks, Step::Chunk(0)).map(units)
}

/// The objects of a package that was verified.
fn entries(package: &TaskRecord) -> Result<Vec<ManifestEntry>, Failure> {
    match (&package.plan.spec, package.done_by) {
        (TaskSpec::Package(plan), Some(attempt)) => Ok(graph::manifest(plan, &package.digests, attempt)),
        _ => Err(broken("a package that was checked is not known")),
    }
}

/// What was listed of each track by the check of a step.
pub(crate) fn lists(tasks: &[TaskRecord], step: Step) -> Result<Vec<(&PackageTrack, &ListedTrack)>, Failure> {
    let (package, check) = (package_of(tasks, step)?, check_of(tasks, step)?);
    let (TaskSpec::Package(plan), Some(TaskResult::Check(result))) = (&package.plan.spec, &check.result)
    else {
        return Err(broken("a package that was checked is not known"));
    };
    let pairs = plan.tracks.iter().zip(&result.tracks);
    Ok(pairs.filter_map(|(track, checked)| Some((track, checked.listed.as_ref()?))).collect())
}

fn done(tasks: &[TaskRecord], kind: TaskKind, step: Step) -> Result<&TaskRecord, Failure> {
    let found =
        tasks.iter().find(|t| (t.plan.kind, t.plan.step) == (kind, step) && t.state == TaskState::Succeeded);
    found.ok_or_else(|| broken("a part of this job is not known"))
}

fn encode_of(tasks: &[TaskRecord], step: Step) -> Result<&TaskRecord, Failure> {
    done(tasks, TaskKind::Encode, step)
}

fn package_of(tasks: &[TaskRecord], step: Step) -> Result<&TaskRecord, Failure> {
    done(tasks, TaskKind::Package, step)
}

fn check_of(tasks: &[TaskRecord], step: Step) -> Result<&TaskRecord, Failure> {
    done(tasks, TaskKind::Check, step)
}

/// Where a chunk that was made is.
pub(crate) fn made(tasks: &[TaskRecord], number: u32) -> Result<MadeChunk, Failure> {
    match &encode_of(tasks, Step::Chunk(number))?.result {
        Some(TaskResult::Encode(EncodeResult { chunk: Some(made), .. })) => Ok(*made),
        _ => Err(broken("a chunk of this job is not known")),
    }
}

/// Frames of an encode of one rung.
fn units(encode: &TaskRecord) -> u64 {
    match &encode.result {
        Some(TaskResult::Encode(result)) => result.tracks.first().map_or(0, |t| t.units),
        _ => 0,
    }
}

/// The media of the first chunk, with which the others share the header.
fn first_chunk(tasks: &[TaskRecord]) -> Result<InputSource, Failure> {
    let package = package_of(tasks, Step::Chunk(0))?;
    let TaskSpec::Package(plan) = &package.plan.spec else { return Err(broken("a package is none")) };
    let media = plan.tracks.first().ok_or_else(|| broken("a chunk has no media"))?.media_output;
    output_of(package, media)
}

fn output_of(task: &TaskRecord, output: u32) -> Result<InputSource, Failure> {
    let size = usize::try_from(output).ok().and_then(|n| task.digests.get(n)).map(|d| d.size);
    match (task.done_by, size) {
        (Some(attempt), Some(size)) => Ok(InputSource::Output { attempt, output, size }),
        _ => Err(broken("an output of this job is not known")),
    }
}

/// The encode of all tracks at once, of what was probed.
fn full(snapshot: &Snapshot, settings: Settings) -> Result<NewTask, Failure> {
    let job = &snapshot.job;
    let media = job.media.as_ref().ok_or_else(|| broken("the input of this job is not known"))?;
    let mut task = graph::encode(&job.spec, media, job.upload, job.input_size, settings)?;
    let probe = snapshot.tasks.iter().find(|t| t.plan.kind == TaskKind::Probe);
    let probed = probe.and_then(|t| t.plan.inputs.first()).cloned();
    task.inputs = vec![probed.ok_or_else(|| broken("the input of this job is not known"))?];
    Ok(task)
}

/// The streams that an encode of everything is made of.
fn timeline(plan: &EncodeTask) -> Timeline {
    Timeline {
        video: plan.video.as_ref().map(|v| v.stream),
        audio: plan.audio.iter().map(|a| a.stream).collect(),
    }
}

fn expect(rung: &Rung, frames: u64, duration_ms: u64) -> ExpectTrack {
    ExpectTrack::Video { codec: rung.codec, width: rung.width, height: rung.height, frames, duration_ms }
}

fn rung_stem(rung: &Rung) -> String {
    format!("video-{}p", rung.width.min(rung.height))
}

fn chunk_stem(rung: &Rung, number: u32) -> String {
    format!("{}-{:02}", rung_stem(rung), number.saturating_add(1))
}

/// Gives an output of the whole encode its place among those of a part.
fn moved(from: &[OutputSlot], output: u32, to: &mut Vec<OutputSlot>) -> Result<u32, Failure> {
    let slot = usize::try_from(output).ok().and_then(|n| from.get(n)).cloned();
    to.push(slot.ok_or_else(|| broken("an output of this job is not planned"))?);
    Ok(super::position(to.len().saturating_sub(1)))
}

fn broken(what: &str) -> Failure {
    Failure::new(FailureCode::BrokerError, what)
}

fn rejected(what: &str) -> Failure {
    Failure::new(FailureCode::OutputRejected, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chunk_is_one_segment_and_no_film_has_more_chunks_than_fit_a_package() {
        for minutes in [1_u64, 3, 10, 45, 90, 180, 600, 1_440] {
            let duration_ms = minutes * 60_000;
            let mut ends: Vec<u64> = (0..MAX_CHUNKS).map_while(|n| until_ms(n, duration_ms, 4_000)).collect();
            assert_eq!(ends[0], 4_000);
            assert!(ends.len() < MAX_CHUNKS as usize, "{minutes}: {}", ends.len());
            ends.push(duration_ms);
            let lengths: Vec<u64> =
                std::iter::once(4_000).chain(ends.windows(2).map(|w| w[1] - w[0])).collect();
            assert!(lengths.windows(2).all(|w| w[1] <= 2 * w[0]), "{minutes}: {lengths:?}");
        }
        assert_eq!(until_ms(0, 4_000, 4_000), None);
    }

    fn chunk_of(from: Option<Cut>, until_ms: Option<u64>) -> EncodeTask {
        EncodeTask {
            decoders: Default::default(),
            segment_ms: 4_000,
            video: None,
            audio: Vec::new(),
            expected_duration_ms: Some(60_000),
            partial: false,
            timeline: None,
            chunk: Some(Chunk { from, until_ms }),
        }
    }

    fn result(made: MadeChunk, duration_ms: u64) -> EncodeResult {
        let track = mpegflow_protocol::task::EncodedTrack {
            output: 0,
            units: 1,
            duration_ms,
            bytes: 1,
            copied: false,
        };
        EncodeResult { tracks: vec![track], chunk: Some(made), ..EncodeResult::default() }
    }

    #[test]
    fn a_chunk_that_is_not_where_it_was_planned_is_refused() {
        let cut = |time: i64, last: i64, segment| Cut {
            time,
            last,
            last_length: 3_000,
            due: time,
            offset: 0,
            segment,
        };
        let at = cut(360_000, 357_000, 0);
        let good = MadeChunk {
            start: 360_000,
            end: 1_080_000,
            lead: 6_000,
            next: Some(cut(1_080_000, 1_077_000, 2)),
        };
        let task = chunk_of(Some(at), Some(12_000));
        assert_eq!(verify(&task, &result(good, 8_000)), Ok(()));
        let next = good.next.unwrap();
        for (what, made, ms) in [
            ("starts elsewhere", MadeChunk { start: 0, ..good }, 12_000),
            ("longer than it is", MadeChunk { end: 1_083_000, ..good }, 8_000),
            ("shorter than it is", good, 7_900),
            (
                "ends before it should",
                MadeChunk { end: 720_000, next: Some(cut(720_000, 717_000, 1)), ..good },
                4_000,
            ),
            ("goes on elsewhere", MadeChunk { next: Some(Cut { time: 1_083_000, ..next }), ..good }, 8_000),
            (
                "has frames of the next",
                MadeChunk { next: Some(Cut { last: 1_080_000, ..next }), ..good },
                8_000,
            ),
            ("another segment", MadeChunk { next: Some(Cut { segment: 3, ..next }), ..good }, 8_000),
            ("a clock gone mad", MadeChunk { next: Some(Cut { due: i64::MAX, ..next }), ..good }, 8_000),
            ("decoded long before", MadeChunk { lead: u32::MAX, ..good }, 8_000),
            ("nothing", MadeChunk { end: 360_000, next: None, ..good }, 0),
        ] {
            assert!(verify(&task, &result(made, ms)).is_err(), "{what}");
        }
        assert!(verify(&chunk_of(Some(at), None), &result(good, 8_000)).is_err(), "it was to go to the end");
        assert!(verify(&task, &EncodeResult { chunk: None, ..result(good, 8_000) }).is_err());
        let whole = EncodeTask { chunk: None, ..task };
        assert!(verify(&whole, &result(good, 8_000)).is_err());
    }
}
