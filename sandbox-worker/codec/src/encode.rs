//! The encode task: one demuxer and one video decoder feed every rung and every audio rendition.

use crate::caps::{self, Meter};
use crate::clock::{Clock, VIDEO_SCALE, Verdict};
use crate::control::Control;
use crate::decoders;
use crate::ff::decoder::{self, Decoder};
use crate::ff::demux::{Container, Demuxer, Kind, Stream};
use crate::ff::frame::Frame;
use crate::ff::packet::Packet;
use crate::ff::{AvError, log, rescale};
use crate::jumps::Jumps;
use crate::output::Outputs;
use crate::rotate::Turn;
use crate::rung::{self, Shared, Work};
use crate::sound::{self, Rendered, Setup};
use crate::source::{self, Inputs};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;
use mpegflow_protocol::task::{EncodeResult, EncodeTask, EncodedTrack, VideoEncode};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Pictures that wait for a rung: enough to ride out one slow frame, few enough that 8K fits in memory.
const WAITING_FRAMES: usize = 3;
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
    let mut demuxer = source::open(given.inputs, 0, task.decoders)?;
    let planned = Planned::check(task, &demuxer)?;
    demuxer.select(&planned.indices());
    std::thread::scope(|scope| Running::start(scope, task, planned, demuxer, given)?.to_the_end())
}

/// The streams that the plan names, looked at.
struct Planned {
    container: Container,
    video: Option<(usize, Stream)>,
    audio: Vec<(usize, Stream)>,
    start_us: i64,
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
        let too_many =
            task.video.as_ref().is_some_and(|v| v.rungs.is_empty() || v.rungs.len() > limits::MAX_RUNGS);
        if too_many || audio.len() > limits::MAX_RUNGS || (video.is_none() && audio.is_empty()) {
            return Err(Failure::new(FailureCode::WorkerError, "the plan has no renditions, or too many"));
        }
        let container = demuxer.container();
        let start_us = start(&container, video.as_ref().map(|(_, s)| s), &audio, task.segment_ms);
        Ok(Self { container, video, audio, start_us })
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

struct Running<'scope, 'a> {
    task: &'a EncodeTask,
    planned: Planned,
    demuxer: Demuxer,
    control: &'a Control,
    input_len: u64,
    video: Option<Pictures>,
    rungs: Vec<ScopedJoinHandle<'scope, Result<EncodedTrack, Failure>>>,
    sounds: Vec<(usize, SyncSender<Option<Packet>>, ScopedJoinHandle<'scope, Result<Rendered, Failure>>)>,
    errors: u64,
}

/// The video side: one decoder, one clock, all rungs.
struct Pictures {
    stream: usize,
    time_base: (i32, i32),
    start: i64,
    decoder: Decoder,
    frame: Frame,
    clock: Clock,
    meter: Meter,
    senders: Vec<SyncSender<Work>>,
    decoded: u64,
    dropped: u64,
    errors: u64,
}

/// The rungs or renditions are gone; their own failure says why.
struct Gone;

enum Stop {
    Gone,
    Failed(Failure),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
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
            rungs: Vec::new(),
            sounds: Vec::new(),
            errors: 0,
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
                silence_ms: task.video.as_ref().map(|_| task.expected_duration_ms.unwrap_or(1_000)),
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
        for rung in &plan.rungs {
            let output = given.outputs.take(rung.output)?;
            let (sender, receiver) = sync_channel(WAITING_FRAMES);
            let thread = std::thread::Builder::new()
                .name(format!("rung-{}", rung.height))
                .spawn_scoped(scope, move || rung::run(rung, shared, output, &receiver))
                .map_err(no_thread)?;
            self.rungs.push(thread);
            senders.push(sender);
        }
        self.video = Some(Pictures {
            stream: *index,
            time_base: stream.time_base,
            start: rescale(self.planned.start_us, MICRO, (1, VIDEO_SCALE)),
            decoder: open_decoder(&self.demuxer, *index, stream, self.task, given.threads)?,
            frame: Frame::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?,
            clock: Clock::new(self.task.segment_ms, plan.max_frame_rate),
            meter: Meter::default(),
            senders,
            decoded: 0,
            dropped: 0,
            errors: 0,
        });
        Ok(())
    }

    fn to_the_end(mut self) -> Result<EncodeResult, Failure> {
        let fed = self.feed();
        let (decoded, dropped, errors) =
            self.video.as_ref().map_or((0, 0, 0), |v| (v.decoded, v.dropped, v.errors));
        self.errors = self.errors.saturating_add(errors);
        // Closing the queues lets every thread end, whatever happened.
        self.video = None;
        let mut tracks = Vec::new();
        let mut first_failure = match fed {
            Err(Stop::Failed(failure)) => Some(failure),
            _ => None,
        };
        let nothing_decoded = self.task.video.is_some() && decoded == 0 && first_failure.is_none();
        if nothing_decoded {
            first_failure = Some(no_frames(self.errors));
        }
        for thread in self.rungs {
            collect(thread.join(), &mut first_failure, |track| tracks.push(track));
        }
        let mut sound_errors = 0u64;
        for (_, sender, thread) in self.sounds {
            drop(sender);
            collect(thread.join(), &mut first_failure, |r| {
                sound_errors = sound_errors.saturating_add(r.errors);
                tracks.push(r.track);
            });
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        tracks.sort_by_key(|t| t.output);
        let decode_errors = self.errors.saturating_add(sound_errors);
        Ok(EncodeResult { tracks, frames_decoded: decoded, frames_dropped: dropped, decode_errors })
    }

    /// Reads to the end of the input, and flushes.
    fn feed(&mut self) -> Result<(), Stop> {
        let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
        let mut jumps = Jumps::new(self.planned.container.times_may_jump);
        let mut packets = 0u64;
        loop {
            match self.demuxer.read(&mut packet) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if self.demuxer.read_failed() => return Err(source::storage().into()),
                Err(AvError::AGAIN) => continue,
                Err(e) => {
                    log::line(&format!("the input cannot be read on: {e}"));
                    // Whatever follows a broken place, the demuxer did not find its way back to it.
                    self.errors = self.errors.saturating_add(1);
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
            if self.video.as_ref().is_some_and(|v| v.stream == index) {
                self.pictures(Some(&packet))?;
            }
            self.sound(index, &mut packet, packets)?;
        }
        if self.demuxer.read_failed() {
            return Err(source::storage().into());
        }
        self.pictures(None)?;
        for (_, sender, _) in &self.sounds {
            sender.send(None).map_err(|_| Gone)?;
        }
        if let Some(video) = &self.video {
            for sender in &video.senders {
                if video.decoded > 0 {
                    sender.send(Work::End(video.clock.end())).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }

    fn pictures(&mut self, packet: Option<&Packet>) -> Result<(), Stop> {
        let Some(video) = self.video.as_mut() else { return Ok(()) };
        video.packet(packet, self.input_len)?;
        if packet.is_some() {
            let ms = rescale(video.clock.end(), (1, VIDEO_SCALE), (1, 1_000));
            self.control.progress(video.decoded, u64::try_from(ms).unwrap_or(0));
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

impl Pictures {
    fn packet(&mut self, packet: Option<&Packet>, input_len: u64) -> Result<(), Stop> {
        let mut sent = self.decoder.send(packet);
        if sent == Err(AvError::AGAIN) {
            self.take_frames(input_len)?;
            sent = self.decoder.send(packet);
        }
        if sent.is_err_and(|e| e != AvError::EOF) {
            self.failed_once()?;
        }
        self.take_frames(input_len)
    }

    fn take_frames(&mut self, input_len: u64) -> Result<(), Stop> {
        loop {
            match self.decoder.receive(&mut self.frame) {
                Ok(true) => self.take_frame(input_len)?,
                Ok(false) => return Ok(()),
                // With frame threads an old packet's damage is reported here; the next call goes on behind it.
                Err(_) => self.failed_once()?,
            }
        }
    }

    fn failed_once(&mut self) -> Result<(), Failure> {
        self.errors = self.errors.saturating_add(1);
        if self.decoded == 0 && self.errors > caps::MAX_ERRORS_WITHOUT_A_FRAME {
            return Err(no_frames(self.errors));
        }
        Ok(())
    }

    fn take_frame(&mut self, input_len: u64) -> Result<(), Stop> {
        let picture = self.frame.picture();
        self.meter.count(picture.width, picture.height, input_len)?;
        self.decoded = self.decoded.saturating_add(1);
        let to_ticks = |t: i64| rescale(t, self.time_base, (1, VIDEO_SCALE));
        let time = self.frame.best_time().map(|t| to_ticks(t).saturating_sub(self.start));
        match self.clock.place(time, to_ticks(self.frame.duration())) {
            Verdict::Drop => self.dropped = self.dropped.saturating_add(1),
            Verdict::Keep { time, key } => {
                if rescale(time, (1, VIDEO_SCALE), (1, 1_000)) > caps::MAX_DURATION_MS {
                    return Err(Failure::new(
                        FailureCode::DurationTooLong,
                        FailureCode::DurationTooLong.help(),
                    )
                    .into());
                }
                for sender in &self.senders {
                    let frame = self.frame.share();
                    let frame = frame.map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
                    sender.send(Work::Frame { frame, time, key }).map_err(|_| Gone)?;
                }
            }
        }
        self.frame.clear();
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

fn no_frames(errors: u64) -> Failure {
    if log::refused_a_size() {
        return caps::too_large("a picture");
    }
    if decoder::ran_out_of_memory() {
        return Failure::new(FailureCode::ResourceLimit, "decoding asks for more memory than is given");
    }
    Failure::new(FailureCode::NoFrames, format!("not one frame could be decoded ({errors} errors)"))
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
