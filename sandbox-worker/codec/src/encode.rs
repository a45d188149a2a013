//! The encode task: one demuxer and one video decoder feed every rung and every audio rendition.
//!
//! # When damage fails the task
//!
//! Recordings have scratches, and a wrong success is worse than a failure. In this order:
//!
//! | what | answer |
//! |---|---|
//! | a picture above the caps, anywhere | `frame_too_large`, at once |
//! | a decoder is refused memory, anywhere | `resource_limit`, at once |
//! | not one frame, or no sound from packets of sound | `no_frames`, `input_corrupt` |
//! | a container that is seen to have lost its end ([`crate::truncated`]) | `input_truncated`, when it is opened |
//! | the packets reach less than 90 % of the duration that the container states for these streams | `input_truncated`; `input_corrupt` where the demuxer gave up |
//! | it states none, and ends inside an element or cannot be read on | the same |
//! | of a stream, 10 % of the packets after its first frame are refused, or more before it than frames come after, or half of the frames are painted over, or the frames reach less than 90 % as far as the packets | `input_corrupt` |
//! | anything less | skipped, counted in `decode_errors`; sound is filled with silence, a picture stands |
//!
//! A job that allows for what is missing gets what there is of a truncated or corrupt input, marked as partial, as long as there is a
//! picture or sound of every stream.
//! Ten packets are borne whatever their share. A transport stream states no duration: cut between two packets it is whole.

use crate::caps;
use crate::clock::{Clock, VIDEO_SCALE};
use crate::control::Control;
use crate::copy::{self, Copying, Place};
use crate::damage::{Ending, Tally};
use crate::decoders;
use crate::ff::decoder::Decoder;
use crate::ff::demux::{Container, Demuxer, Kind, Stream};
use crate::ff::packet::Packet;
use crate::ff::{AvError, log, rescale};
use crate::jumps::Jumps;
use crate::output::Outputs;
use crate::pictures::{self, Gone, Part, Pictures, Stop};
use crate::rotate::Turn;
use crate::rung::{self, Made, Shared, Work};
use crate::sound::{self, Rendered, Setup};
use crate::source::{self, Inputs, Opened};
use crate::stills;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{EncodeResult, EncodeTask, MadeChunk, VideoEncode};
use mpegflow_protocol::telemetry::Phase;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Pixels that wait for a rung: eight pictures of 1080p ride out slow frames, and of 8K two fit in memory.
const WAITING_PIXELS: usize = 8 * 1920 * 1088;
/// Packets that wait for an audio rendition.
const WAITING_PACKETS: usize = 128;
const MICRO: (i32, i32) = (1, 1_000_000);

/// What a run is given besides its plan.
pub(crate) struct Given<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) outputs: Outputs,
    pub(crate) control: &'a Control,
    pub(crate) threads: u32,
}

/// Makes every rendition of the plan.
///
/// # Errors
/// The first failing step; a rendition's own failure before the decoding side's.
pub(crate) fn run(task: &EncodeTask, given: Given<'_>) -> Result<EncodeResult, Failure> {
    let opening = given.control.phase(Phase::Open);
    let Opened { mut demuxer, cut } = source::open(given.inputs, 0, task.decoders, task.partial)?;
    log::forget();
    let planned = Planned { cut, ..Planned::check(task, &demuxer)? };
    demuxer.select(&planned.indices());
    std::thread::scope(|scope| {
        let running = Running::start(scope, task, planned, demuxer, given)?;
        drop(opening);
        running.into_result()
    })
}

/// The streams that the plan names, looked at.
struct Planned {
    container: Container,
    video: Option<(usize, Stream)>,
    audio: Vec<(usize, Stream)>,
    start_us: i64,
    /// Where the container says that these streams end, in microseconds from `start_us`.
    said_us: Option<i64>,
    /// The file is seen to be cut off, and that is allowed.
    cut: bool,
    /// Where it says that all streams end, among them some whose length says nothing of these (subtitles).
    claimed_us: Option<i64>,
}

impl Planned {
    fn check(task: &EncodeTask, demuxer: &Demuxer) -> Result<Self, Failure> {
        let get = |index: u32, kind: Kind| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let stream = demuxer.stream(index).filter(|s| s.kind == kind);
            let stream = stream.ok_or_else(|| {
                Failure::new(
                    FailureCode::NoStreams,
                    format!("the input has no stream {index} of the planned kind"),
                )
            })?;
            if decoders::for_codec(&stream.codec, task.decoders).is_none() {
                return Err(not_allowed(&stream.codec));
            }
            Ok((index, stream))
        };
        let video = task.video.as_ref().map(|v| get(v.stream, Kind::Video)).transpose()?;
        let audio = task.audio.iter().map(|a| get(a.stream, Kind::Audio)).collect::<Result<Vec<_>, _>>()?;
        let too_many = task.video.as_ref().is_some_and(|v| {
            (v.rungs.is_empty() && stills::planned(v).next().is_none()) || v.rungs.len() > limits::MAX_RUNGS
        });
        if too_many || audio.len() > limits::MAX_RUNGS || (video.is_none() && audio.is_empty()) {
            return Err(Failure::new(FailureCode::WorkerError, "the plan has no renditions, or too many"));
        }
        let container = demuxer.container();
        let start_us = match &task.timeline {
            None => start(&container, video.as_ref().map(|(_, s)| s), &audio, task.segment_ms),
            Some(timeline) => {
                let video = timeline.video.map(|index| get(index, Kind::Video)).transpose()?;
                let audio = timeline.audio.iter().map(|index| get(*index, Kind::Audio));
                let audio = audio.take(limits::MAX_RUNGS).collect::<Result<Vec<_>, _>>()?;
                start(&container, video.as_ref().map(|(_, s)| s), &audio, task.segment_ms)
            }
        };
        let chunk_of_more = task.chunk.is_some()
            && (!audio.is_empty()
                || container.times_may_jump
                || task.video.as_ref().is_none_or(|v| {
                    v.rungs.len() != 1
                        || stills::planned(v).next().is_some()
                        || v.rungs.iter().any(|r| r.copy)
                }));
        if chunk_of_more {
            return Err(Failure::new(FailureCode::WorkerError, "the plan cuts what cannot be cut"));
        }
        let mut planned =
            Self { container, video, audio, start_us, said_us: None, cut: false, claimed_us: None };
        planned.read_durations(demuxer);
        Ok(planned)
    }

    fn read_durations(&mut self, demuxer: &Demuxer) {
        // There the duration is that of the last packet, so it says nothing.
        if self.container.times_may_jump {
            return;
        }
        let from_start = |us: i64| us.saturating_sub(self.start_us);
        let end = self.container.start_us.unwrap_or(0);
        let claimed = self.container.duration_us.filter(|_| !self.container.duration_is_guess);
        let claimed = claimed.map(|us| from_start(end.saturating_add(us)));
        let ends: Option<Vec<i64>> = self
            .video
            .iter()
            .chain(&self.audio)
            .map(|(_, s)| {
                Some(from_start(
                    rescale(s.start.unwrap_or(0), s.time_base, MICRO).saturating_add(s.lasts_us()?),
                ))
            })
            .collect();
        let chosen = self.indices();
        let alike = (0..demuxer.stream_count()).all(|i| {
            chosen.contains(&i)
                || demuxer.stream(i).is_none_or(|s| matches!(s.kind, Kind::Video | Kind::Audio))
        });
        self.said_us = ends.and_then(|e| e.into_iter().max()).or(claimed.filter(|_| alike));
        self.claimed_us = claimed;
    }

    fn indices(&self) -> Vec<usize> {
        self.video.iter().chain(&self.audio).map(|(index, _)| *index).collect()
    }
}

/// Where the output's timeline starts, in microseconds of the source: with the stream that starts first. Sound may lead the
/// first picture by one segment at most (the picture is then held from the start; what leads by more is cut), and a lead that
/// nobody notices does not move the picture.
fn start(container: &Container, video: Option<&Stream>, audio: &[(usize, Stream)], segment_ms: u32) -> i64 {
    let begin = |s: &Stream| s.start.map(|t| rescale(t, s.time_base, MICRO));
    let sound = audio.iter().filter_map(|(_, s)| begin(s)).min();
    match (video.and_then(begin), sound) {
        (Some(video), Some(sound)) => {
            let lead = video.saturating_sub(sound);
            let most = i64::from(segment_ms).saturating_mul(1_000);
            if lead <= 40_000 { video } else { video.saturating_sub(lead.min(most)) }
        }
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => container.start_us.unwrap_or(0),
    }
}

/// Stream, queue and thread of an audio rendition.
type SoundThread<'scope> =
    (usize, SyncSender<Option<Packet>>, ScopedJoinHandle<'scope, Result<Rendered, Failure>>);

struct Running<'scope, 'a> {
    task: &'a EncodeTask,
    planned: Planned,
    demuxer: Demuxer,
    control: &'a Control,
    input_len: u64,
    video: Option<Pictures>,
    copying: Option<Copying>,
    rungs: Vec<ScopedJoinHandle<'scope, Result<Made, Failure>>>,
    sounds: Vec<SoundThread<'scope>>,
    /// How far the packets of each stream reach, in microseconds from the start.
    read: Vec<(usize, i64)>,
    broke: bool,
}

impl<'scope, 'a: 'scope> Running<'scope, 'a> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        task: &'a EncodeTask,
        planned: Planned,
        demuxer: Demuxer,
        mut given: Given<'a>,
    ) -> Result<Self, Failure>
    where
        'a: 'env,
    {
        let input_len = crate::ff::io::ReadAt::len(&given.inputs.get(0)?);
        let mut running = Self {
            task,
            planned,
            demuxer,
            control: given.control,
            input_len,
            video: None,
            copying: None,
            rungs: Vec::new(),
            sounds: Vec::new(),
            read: Vec::new(),
            broke: false,
        };
        if let Some(plan) = &task.video {
            running.start_video(scope, plan, &mut given)?;
        }
        for (plan, (index, stream)) in task.audio.iter().zip(&running.planned.audio) {
            let setup = Setup {
                decoder: open_decoder(&running.demuxer, *index, stream, task, 1)?,
                time_base: stream.time_base,
                start_us: running.planned.start_us,
                segment_ms: task.segment_ms,
                silence_ms: has_pictures(task).then(|| task.expected_duration_ms.unwrap_or(1_000)),
            };
            let output = given.outputs.take(plan.output)?;
            let (sender, receiver) = sync_channel(WAITING_PACKETS);
            let thread = std::thread::Builder::new()
                .name("audio".into())
                .spawn_scoped(scope, move || sound::run(plan, setup, output, &receiver))
                .map_err(no_thread)?;
            running.sounds.push((*index, sender, thread));
        }
        Ok(running)
    }

    fn start_video<'env>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        plan: &'a VideoEncode,
        given: &mut Given<'a>,
    ) -> Result<(), Failure>
    where
        'a: 'env,
    {
        let Some((index, stream)) = &self.planned.video else {
            return Err(Failure::new(FailureCode::NoStreams, "the input has no video stream"));
        };
        let turn = Turn::new(plan.rotation, plan.mirrored).ok_or_else(|| {
            Failure::new(FailureCode::WorkerError, format!("the plan turns by {} degrees", plan.rotation))
        })?;
        let shared =
            Shared { turn, frame_rate: guide_rate(stream, plan.max_frame_rate), threads: given.threads };
        let mut senders = Vec::new();
        let area =
            usize::try_from(i64::from(stream.width).saturating_mul(i64::from(stream.height))).unwrap_or(0);
        let waiting = WAITING_PIXELS.checked_div(area).unwrap_or(8).clamp(2, 8);
        for rung in &plan.rungs {
            let output = given.outputs.take(rung.output)?;
            if rung.copy && self.copying.is_none() {
                let place = Place { index: *index, stream, start_us: self.planned.start_us };
                if let Some(fit) = copy::look(given.inputs, self.task, plan, rung, &place)? {
                    self.copying = Some(Copying::start(*index, rung, fit, output)?);
                    continue;
                }
            }
            let (sender, receiver) = sync_channel(waiting);
            let thread = std::thread::Builder::new()
                .name(format!("rung-{}", rung.height))
                .spawn_scoped(scope, move || rung::run(rung, shared, output, &receiver))
                .map_err(no_thread)?;
            self.rungs.push(thread);
            senders.push(sender);
        }
        for still in stills::planned(plan) {
            let output = given.outputs.take(still.output())?;
            let (sender, receiver) = sync_channel(2);
            let thread = std::thread::Builder::new()
                .name("still".into())
                .spawn_scoped(scope, move || {
                    stills::run(still, turn, output, &receiver).map(|track| Made { track, lead: 0 })
                })
                .map_err(no_thread)?;
            self.rungs.push(thread);
            senders.push(sender);
        }
        if senders.is_empty() && self.copying.is_some() {
            return Ok(());
        }
        self.video = Some(Pictures::new(
            *index,
            stream.time_base,
            self.planned.start_us,
            open_decoder(&self.demuxer, *index, stream, self.task, given.threads)?,
            match self.task.chunk.and_then(|chunk| chunk.from) {
                Some(cut) => Clock::resumed(&cut, self.task.segment_ms, plan.max_frame_rate),
                None => Clock::new(self.task.segment_ms, plan.max_frame_rate),
            },
            senders,
            plan.deinterlace,
            self.task.chunk.as_ref().map(Part::new),
        )?);
        Ok(())
    }

    fn into_result(mut self) -> Result<EncodeResult, Failure> {
        let encoding = self.control.phase(Phase::Encode);
        let decoding = self.control.phase(Phase::Decode);
        let fed = self.feed();
        drop(decoding);
        let cut = self.video.as_ref().and_then(Pictures::cut);
        let chunk = self.video.as_ref().filter(|_| self.task.chunk.is_some());
        let chunk = chunk.map(|v| (v.starts_at(), v.ends_at()));
        let read_ms = |index: usize| {
            let us = self.read.iter().find(|(i, _)| *i == index).map_or(0, |(_, us)| *us);
            u64::try_from(us / 1_000).unwrap_or(0)
        };
        // What was read beyond a cut is the next chunk's.
        let read_for = |v: &Pictures| if cut.is_some() { 0 } else { read_ms(v.stream) };
        let pictures = self.video.as_ref().map(|v| v.tally(read_for(v)));
        let dropped = self.video.as_ref().map_or(0, |v| v.dropped);
        // Closing the queues lets every thread end, whatever happened.
        self.video = None;
        let mut tracks = Vec::new();
        let mut tallies: Vec<_> = pictures.iter().map(|t| ("video", *t)).collect();
        let copied = self.copying.as_ref().map(Copying::frames);
        if let (Some(copying), None) = (&self.copying, pictures) {
            let reached_ms = copying.lasts_ms();
            let read_ms = read_ms(copying.stream);
            tallies.push((
                "video",
                Tally { decoded: copying.frames(), read_ms, reached_ms, ..Tally::default() },
            ));
        }
        let mut first_failure = match fed {
            Err(Stop::Failed(failure)) => Some(failure),
            _ => None,
        };
        if let (Some(pictures), None) = (pictures.filter(|p| p.decoded == 0), &first_failure) {
            first_failure = Some(pictures::no_frames(pictures.all_errors()));
        }
        let mut lead = 0;
        for thread in self.rungs {
            collect(thread.join(), &mut first_failure, |made| {
                lead = made.lead;
                tracks.push(made.track);
            });
        }
        for (index, sender, thread) in self.sounds {
            drop(sender);
            collect(thread.join(), &mut first_failure, |mut r| {
                r.tally.read_ms = read_ms(index);
                tallies.push(("sound", r.tally));
                tracks.push(r.track);
            });
        }
        drop(encoding);
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        if let Some(copying) = self.copying.take() {
            tracks.push(copying.finish()?);
        }
        let inside = log::ended_inside();
        let said_us = self.planned.said_us.or(self.planned.claimed_us.filter(|_| inside));
        let ending = Ending {
            said_ms: said_us.and_then(|us| u64::try_from(us / 1_000).ok()),
            read_ms: tallies.iter().map(|(_, t)| t.read_ms).max().unwrap_or(0),
            inside,
            broke: self.broke,
        };
        let mut partial = self.planned.cut;
        let ended = if cut.is_some() { Ok(()) } else { ending.judge() };
        for judged in std::iter::once(ended).chain(tallies.iter().map(|(what, tally)| tally.judge(what))) {
            if let Err(failure) = judged {
                // What is missing may be allowed for, at the end or on the way.
                if !self.task.partial {
                    return Err(failure);
                }
                log::line(&format!("taken as far as it goes: {failure}"));
                partial = true;
            }
        }
        tracks.sort_by_key(|t| t.output);
        let errors = tallies.iter().fold(0u64, |sum, (_, t)| sum.saturating_add(t.all_errors()));
        Ok(EncodeResult {
            tracks,
            frames_decoded: pictures.map_or(0, |p| p.decoded).max(copied.unwrap_or(0)),
            frames_dropped: dropped,
            decode_errors: errors.saturating_add(u64::from(self.broke || inside)),
            partial,
            good_ms: tallies.iter().map(|(_, t)| t.reached_ms).max().unwrap_or(0),
            said_ms: ending.said_ms,
            chunk: chunk.map(|(start, end)| MadeChunk { start, end, lead, next: cut }),
        })
    }

    /// Reads to the end of the input, and flushes.
    fn feed(&mut self) -> Result<(), Stop> {
        let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
        let mut jumps = Jumps::new(self.planned.container.times_may_jump);
        let mut packets = 0u64;
        // The first packet behind the place that was gone to has been read.
        let mut waiting = self.go_to_chunk(&mut packet)?;
        loop {
            match if std::mem::take(&mut waiting) { Ok(true) } else { self.demuxer.read(&mut packet) } {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if self.demuxer.read_failed() => return Err(source::storage().into()),
                Err(AvError::AGAIN) => continue,
                Err(e) => {
                    log::line(&format!("the input cannot be read on: {e}"));
                    // Whatever follows a broken place, the demuxer did not find its way back to it.
                    self.broke = true;
                    break;
                }
            }
            packets = packets.saturating_add(1);
            if packets > caps::MAX_PACKETS {
                return Err(
                    Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()).into()
                );
            }
            let index = packet.stream();
            if let Some(base) = self.demuxer.stream(index).map(|s| s.time_base)
                && let Some(shift) =
                    jumps.shift(index, packet.dts().or(packet.pts()), packet.duration(), base)
            {
                packet.shift(shift);
            }
            self.note_time(&packet);
            if let Some(copying) = self.copying.as_mut().filter(|c| c.stream == index) {
                let ms = copying.add(&packet)?;
                if self.video.is_none() {
                    self.control.progress(packets, ms);
                }
            }
            if self.video.as_ref().is_some_and(|v| v.stream == index) {
                match self.pictures(Some(&packet)) {
                    Err(Stop::Cut) => return self.end_video(),
                    other => other?,
                }
            }
            self.sound(index, &mut packet, packets)?;
        }
        if self.demuxer.read_failed() {
            return Err(source::storage().into());
        }
        match self.pictures(None) {
            Ok(()) | Err(Stop::Cut) => {}
            Err(other) => return Err(other),
        }
        for (_, sender, _) in &self.sounds {
            sender.send(None).map_err(|_| Gone)?;
        }
        self.end_video()
    }

    fn end_video(&self) -> Result<(), Stop> {
        if let Some(video) = &self.video {
            let end = video.ends_at().saturating_sub(video.starts_at());
            for sender in &video.senders {
                if video.has_frames() {
                    sender.send(Work::End(end)).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }

    /// Goes to a key frame from which everything from the chunk's first frame on can be decoded, and reads its packet; whether it
    /// did. What a decoder puts out first may be out of order or missing, so it is not the nearest one.
    fn go_to_chunk(&mut self, packet: &mut Packet) -> Result<bool, Stop> {
        const MARGINS_US: [i64; 3] = [1_000_000, 10_000_000, 60_000_000];
        let (Some(from), Some(video)) = (self.task.chunk.and_then(|c| c.from), &self.video) else {
            return Ok(false);
        };
        let Some(base) = self.demuxer.stream(video.stream).map(|s| s.time_base) else { return Ok(false) };
        let stream = video.stream;
        let ticks = from.time.saturating_sub(from.offset);
        let us = rescale(ticks, (1, VIDEO_SCALE), MICRO).saturating_add(self.planned.start_us);
        let target = rescale(us, MICRO, base);
        let beginning = i64::MIN / 2;
        let places = MARGINS_US.iter().map(|margin| rescale(us.saturating_sub(*margin), MICRO, base));
        for place in places.chain([beginning]) {
            let sought = self.demuxer.seek(stream, place);
            if self.demuxer.read_failed() {
                return Err(source::storage().into());
            }
            if sought.is_err() {
                continue;
            }
            match self.demuxer.read(packet) {
                Ok(true) if place == beginning => return Ok(true),
                Ok(true) if packet.is_key() && packet.pts().is_some_and(|pts| pts <= target) => {
                    return Ok(true);
                }
                Err(_) if self.demuxer.read_failed() => return Err(source::storage().into()),
                _ => {}
            }
        }
        Err(pictures::cannot_be_cut().into())
    }

    fn note_time(&mut self, packet: &Packet) {
        let index = packet.stream();
        let chosen = self.planned.video.iter().chain(&self.planned.audio).find(|(i, _)| *i == index);
        let (Some((_, stream)), Some(time)) = (chosen, packet.pts().or(packet.dts())) else { return };
        let end = rescale(time.saturating_add(packet.duration()), stream.time_base, MICRO)
            .saturating_sub(self.planned.start_us);
        match self.read.iter_mut().find(|(i, _)| *i == index) {
            Some((_, last)) => *last = end.max(*last),
            None => self.read.push((index, end)),
        }
    }

    fn pictures(&mut self, packet: Option<&Packet>) -> Result<(), Stop> {
        let Some(video) = self.video.as_mut() else { return Ok(()) };
        video.packet(packet, self.input_len)?;
        if packet.is_some() {
            let ms = rescale(video.clock.end(), (1, VIDEO_SCALE), (1, 1_000));
            self.control.progress(video.decoded(), u64::try_from(ms).unwrap_or(0));
        }
        Ok(())
    }

    fn sound(&mut self, index: usize, packet: &mut Packet, packets: u64) -> Result<(), Stop> {
        let takers: Vec<_> = self.sounds.iter().filter(|(stream, _, _)| *stream == index).collect();
        let Some(((_, last, _), others)) = takers.split_last() else { return Ok(()) };
        if self.video.is_none()
            && let (Some(time), Some((_, stream))) =
                (packet.pts(), self.planned.audio.iter().find(|(i, _)| *i == index))
        {
            let us = rescale(time, stream.time_base, MICRO).saturating_sub(self.planned.start_us);
            self.control.progress(packets, u64::try_from(us / 1_000).unwrap_or(0));
        }
        let failed = |e: AvError| Failure::new(FailureCode::OutOfMemory, e.to_string());
        for (_, sender, _) in others {
            sender.send(Some(packet.share().map_err(failed)?)).map_err(|_| Gone)?;
        }
        last.send(Some(packet.take().map_err(failed)?)).map_err(|_| Gone)?;
        Ok(())
    }
}

fn collect<T>(
    joined: std::thread::Result<Result<T, Failure>>,
    first_failure: &mut Option<Failure>,
    take: impl FnOnce(T),
) {
    match joined {
        Ok(Ok(value)) => take(value),
        Ok(Err(failure)) => {
            first_failure.get_or_insert(failure);
        }
        Err(_) => {
            first_failure
                .get_or_insert(Failure::new(FailureCode::WorkerError, "a thread of the codec gave up"));
        }
    }
}

/// Whether pictures are made of the input, here or by another task of the same output.
fn has_pictures(task: &EncodeTask) -> bool {
    task.video.is_some() || task.timeline.as_ref().is_some_and(|t| t.video.is_some())
}

fn open_decoder(
    demuxer: &Demuxer,
    index: usize,
    stream: &Stream,
    task: &EncodeTask,
    threads: u32,
) -> Result<Decoder, Failure> {
    let entry =
        decoders::for_codec(&stream.codec, task.decoders).ok_or_else(|| not_allowed(&stream.codec))?;
    Decoder::open(demuxer, index, entry.decoder, threads).map_err(|e| match e {
        AvError::NO_MEMORY => {
            Failure::new(FailureCode::ResourceLimit, "the decoder asks for more memory than is given")
        }
        _ if log::refused_a_size() => caps::too_large("a picture"),
        e => Failure::new(FailureCode::InputCorrupt, format!("{} could not be decoded: {e}", stream.codec)),
    })
}

fn not_allowed(codec: &str) -> Failure {
    if decoders::is_banned(codec) {
        return decoders::banned(codec);
    }
    let remedy = if decoders::legacy_has(codec) {
        "ask for \"decoders\": \"legacy\" or convert the input"
    } else {
        "convert the input"
    };
    Failure::new(
        FailureCode::DecoderNotAllowed,
        format!("the decoder for {codec} is not in the allowed set; {remedy}"),
    )
}

fn guide_rate(stream: &Stream, max: u32) -> (i32, i32) {
    let max = i32::try_from(max).unwrap_or(i32::MAX).max(1);
    let (num, den) = if stream.average_rate.0 > 0 { stream.average_rate } else { stream.real_rate };
    let sane =
        num > 0 && den > 0 && i64::from(num) <= i64::from(max).saturating_mul(i64::from(den)) && num >= den;
    if sane { (num, den) } else { (max.min(30), 1) }
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::new(FailureCode::OutOfMemory, format!("no thread could be started: {error}"))
}
