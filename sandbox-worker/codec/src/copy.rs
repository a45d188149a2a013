//! A rung that is the source as it is: its packets are written again rather than encoded again.
//!
//! What is copied reaches players as a stranger wrote it, so a tenant has to be allowed that, and nothing is taken on trust: all
//! of the stream is read first, its structure, every slice's beginning, and every frame by a strict decoder, whose times must be
//! those that an encode would have given. Anything else is encoded as if nobody had asked. Notes beside the pictures (SEI) are
//! left out: they are where cameras write what they know.

use crate::caps::{self, Meter};
use crate::clock::{Clock, VIDEO_SCALE, Verdict};
use crate::convert;
use crate::decoders;
use crate::ff::decoder::Decoder;
use crate::ff::demux::Stream;
use crate::ff::frame::{Color, Frame};
use crate::ff::packet::Packet;
use crate::ff::rescale;
use crate::fields::{Lines, Opinion};
use crate::fmp4::Track;
use crate::jumps::Jumps;
use crate::nal::{self, Headers, SampleKind};
use crate::output::Output;
use crate::source::{self, Inputs, Opened};
use crate::tone::Transfer;
use crate::track::TrackWriter;
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{EncodeTask, EncodedTrack, Rung, VideoEncode};

/// Frames that are kept in mind: ten hours at 60 frames a second.
const MAX_FRAMES: usize = 2_160_000;
/// How far the average may be above the rung's cap, in percent.
const SLACK_PERCENT: u64 = 110;

/// A stream that was read to its end and found fit.
pub(crate) struct Copyable {
    headers: Headers,
    color: Color,
    samples: Vec<Sample>,
    end: i64,
}

/// When a packet's frame is shown and decoded, and whether decoding can start there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    time: i64,
    decode: i64,
    key: bool,
}

/// Where in the input the stream is.
pub(crate) struct Place<'a> {
    pub(crate) index: usize,
    pub(crate) stream: &'a Stream,
    pub(crate) start_us: i64,
}

/// Reads the whole stream; `None` where it has to be encoded.
///
/// # Errors
/// Only where the input could not be read, or asks for more than is given.
pub(crate) fn look(
    inputs: &Inputs,
    task: &EncodeTask,
    plan: &VideoEncode,
    rung: &Rung,
    place: &Place<'_>,
) -> Result<Option<Copyable>, Failure> {
    match read(inputs, task, plan, rung, place) {
        Ok(found) => Ok(Some(found)),
        Err(Unfit::Because(what)) => {
            crate::ff::log::line(&format!("encoded and not copied: {what}"));
            Ok(None)
        }
        Err(Unfit::Failed(failure)) => Err(failure),
    }
}

enum Unfit {
    Because(String),
    Failed(Failure),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<&str> for Unfit {
    fn from(what: &str) -> Self {
        Self::Because(what.into())
    }
}

fn read(
    inputs: &Inputs,
    task: &EncodeTask,
    plan: &VideoEncode,
    rung: &Rung,
    place: &Place<'_>,
) -> Result<Copyable, Unfit> {
    let stream = place.stream;
    let size = (u32::try_from(stream.width), u32::try_from(stream.height));
    if rung.codec != VideoCodec::H264 || stream.codec != "h264" {
        return Err("it is not H.264".into());
    }
    if plan.rotation != 0 || plan.mirrored || size != (Ok(rung.width), Ok(rung.height)) {
        return Err("it is not of the rung's size, upright".into());
    }
    let headers = Headers::stored(&stream.extradata).ok_or("its headers are not ones that are copied")?;
    let entry = decoders::for_codec(&stream.codec, task.decoders).ok_or("it has no decoder")?;
    let Opened { mut demuxer, .. } = source::open(inputs, 0, task.decoders, task.partial)?;
    demuxer.select(&[place.index]);
    let mut decoder =
        Decoder::open(&demuxer, place.index, entry.decoder, 1).map_err(|_| "it has no decoder")?;
    decoder.be_strict();
    let mut looking = Looking {
        headers: &headers,
        base: stream.time_base,
        start: rescale(place.start_us, (1, 1_000_000), (1, VIDEO_SCALE)),
        clock: Clock::new(task.segment_ms, plan.max_frame_rate),
        meter: Meter::default(),
        input_len: crate::ff::io::ReadAt::len(&inputs.get(0)?),
        samples: Vec::new(),
        times: Vec::new(),
        grid: Vec::new(),
        bytes: 0,
        before: None,
        last: None,
        opinion: Opinion::default(),
        color: None,
    };
    let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
    let mut frame = Frame::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
    let mut jumps = Jumps::new(demuxer.container().times_may_jump);
    while demuxer.read(&mut packet).map_err(|_| Unfit::from("it cannot be read to its end"))? {
        if packet.stream() != place.index {
            continue;
        }
        let time = packet.dts().or(packet.pts());
        if jumps.shift(place.index, time, packet.duration(), stream.time_base).is_some() {
            return Err("its times jump".into());
        }
        looking.packet(&packet)?;
        decoder.send(Some(&packet)).map_err(|_| Unfit::from("a packet cannot be decoded"))?;
        looking.frames(&mut decoder, &mut frame)?;
    }
    if demuxer.read_failed() {
        return Err(source::storage().into());
    }
    decoder.send(None).map_err(|_| Unfit::from("it does not end well"))?;
    looking.frames(&mut decoder, &mut frame)?;
    let (samples, color, end) = looking.judge(rung)?;
    Ok(Copyable { headers, color, samples, end })
}

struct Looking<'a> {
    headers: &'a Headers,
    base: (i32, i32),
    start: i64,
    clock: Clock,
    meter: Meter,
    input_len: u64,
    samples: Vec<Sample>,
    /// When the frames are shown, as an encode would place them.
    times: Vec<i64>,
    /// Those among them with which a segment begins.
    grid: Vec<i64>,
    bytes: u64,
    before: Option<Frame>,
    last: Option<Frame>,
    opinion: Opinion,
    color: Option<Color>,
}

impl Looking<'_> {
    fn ticks(&self, time: i64) -> i64 {
        rescale(time, self.base, (1, VIDEO_SCALE)).saturating_sub(self.start)
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), Unfit> {
        if self.samples.len() >= MAX_FRAMES {
            return Err("it has too many frames".into());
        }
        let Some(pts) = packet.pts() else { return Err("a packet has no time".into()) };
        let sample = nal::copied(self.headers, packet.data(), &mut Vec::new());
        let kind = sample.ok_or("a packet is not one that is copied")?;
        self.bytes = self.bytes.saturating_add(packet.data().len() as u64);
        // When it is decoded is found when all is known: containers say it badly or not at all.
        let sample = Sample { time: self.ticks(pts), decode: 0, key: kind == SampleKind::Idr };
        if packet.is_key() != sample.key {
            return Err("a packet is marked as what it is not".into());
        }
        self.samples.push(sample);
        Ok(())
    }

    fn frames(&mut self, decoder: &mut Decoder, frame: &mut Frame) -> Result<(), Unfit> {
        while decoder.receive(frame).map_err(|_| Unfit::from("a frame cannot be decoded"))? {
            let picture = frame.picture();
            self.meter.count(picture.width, picture.height, self.input_len)?;
            if frame.is_concealed() || frame.is_interlaced() {
                return Err("a frame is damaged or of two moments".into());
            }
            if picture.full_range || Transfer::of(picture.color.transfer).is_some() {
                return Err("its colours are not those of the rung".into());
            }
            let color = *self.color.get_or_insert(convert::resolved(&picture));
            if picture.format != crate::ff::names::YUV420P || color != convert::resolved(&picture) {
                return Err("its pictures are not alike".into());
            }
            let time = frame.best_time().map(|t| self.ticks(t));
            let length = rescale(frame.duration(), self.base, (1, VIDEO_SCALE));
            match self.clock.place(time, length) {
                Verdict::Keep { time, key } => {
                    self.times.push(time);
                    if key {
                        self.grid.push(time);
                    }
                }
                Verdict::Drop => return Err("a frame would be dropped".into()),
            }
            let shared = frame.share().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
            if let (Some(before), Some(last)) = (&self.before, &self.last) {
                self.opinion.look(before, last, &shared);
                if self.opinion.now().is_some_and(|lines| lines != Lines::Progressive) {
                    return Err("its frames show two moments".into());
                }
            }
            self.before = self.last.replace(shared);
            frame.clear();
        }
        Ok(())
    }

    fn judge(mut self, rung: &Rung) -> Result<(Vec<Sample>, Color, i64), Unfit> {
        let Some(color) = self.color else { return Err("it has no frames".into()) };
        // The first frame is shown from the start, wherever it is in the source.
        let moved = self.samples.first_mut().filter(|s| s.time >= 0 && s.key);
        let moved = moved.ok_or("it does not begin with a key frame")?;
        moved.time = 0;
        let mut shown: Vec<i64> = self.samples.iter().map(|s| s.time).collect();
        shown.sort_unstable();
        if shown != self.times {
            return Err("its times are not those that an encode would give".into());
        }
        // One is decoded when one is shown, as much earlier as reordering asks for.
        let late = shown.iter().zip(&self.samples).map(|(shown, s)| shown.saturating_sub(s.time)).max();
        for (sample, shown) in self.samples.iter_mut().zip(&shown) {
            sample.decode = shown.saturating_sub(late.unwrap_or(0));
        }
        let keys: Vec<i64> = self.samples.iter().filter(|s| s.key).map(|s| s.time).collect();
        if self.grid.iter().any(|time| keys.binary_search(time).is_err()) {
            return Err("no key frame is where a segment has to begin".into());
        }
        // What is decoded after a key frame is shown after it: the one before is closed.
        let (mut latest, mut key) = (i64::MIN, i64::MIN);
        for sample in &self.samples {
            if (sample.key && latest >= sample.time) || sample.time < key {
                return Err("a group of pictures is not closed".into());
            }
            latest = latest.max(sample.time);
            key = if sample.key { sample.time } else { key };
        }
        let end = self.clock.end();
        let ms = u64::try_from(end / 90).unwrap_or(0).max(1);
        let cap = u64::from(rung.max_bit_rate).saturating_mul(SLACK_PERCENT) / 100;
        if self.bytes.saturating_mul(8_000).checked_div(ms).is_none_or(|rate| rate > cap) {
            return Err("it has more bits than the rung may have".into());
        }
        Ok((self.samples, color, end))
    }
}

/// A rung that is being copied.
pub(crate) struct Copying {
    /// Index of the stream.
    pub(crate) stream: usize,
    output: u32,
    from: Copyable,
    writer: TrackWriter,
    next: usize,
}

impl Copying {
    /// Writes the header.
    ///
    /// # Errors
    /// The output's.
    pub(crate) fn start(stream: usize, rung: &Rung, from: Copyable, output: Output) -> Result<Self, Failure> {
        let side = |v: u32| u16::try_from(v).map_err(|_| Failure::new(FailureCode::WorkerError, "too large"));
        let delay = from.samples.first().map_or(0, |s| s.decode.saturating_neg());
        let track = Track::Video {
            codec: rung.codec,
            width: side(rung.width)?,
            height: side(rung.height)?,
            configuration: from.headers.configuration()?,
            color: from.color,
            delay: u32::try_from(delay).unwrap_or(0),
        };
        let writer = TrackWriter::new(track, VIDEO_SCALE.unsigned_abs(), output)?;
        Ok(Self { stream, output: rung.output, from, writer, next: 0 })
    }

    /// Frames there are.
    pub(crate) fn frames(&self) -> u64 {
        self.from.samples.len() as u64
    }

    /// When the last one ends, in milliseconds.
    pub(crate) fn lasts_ms(&self) -> u64 {
        u64::try_from(self.from.end / 90).unwrap_or(0)
    }

    /// Writes the next packet.
    ///
    /// # Errors
    /// The input is another when it is read again; the output's.
    pub(crate) fn add(&mut self, packet: &Packet) -> Result<u64, Failure> {
        let changed =
            || Failure::new(FailureCode::InputChanged, "the input is another when it is read again");
        let sample = *self.from.samples.get(self.next).ok_or_else(changed)?;
        let mut data = Vec::with_capacity(packet.data().len());
        let kind = nal::copied(&self.from.headers, packet.data(), &mut data).ok_or_else(changed)?;
        if (kind == SampleKind::Idr) != sample.key || data.len() > caps::MAX_SEGMENT_BYTES {
            return Err(changed());
        }
        if sample.key && !self.writer.is_empty() {
            self.writer.cut((sample.time, sample.decode))?;
        }
        self.writer.add((sample.time, sample.decode), sample.key, |out| out.extend_from_slice(&data))?;
        self.next = self.next.saturating_add(1);
        Ok(u64::try_from(sample.time / 90).unwrap_or(0))
    }

    /// Writes the end.
    ///
    /// # Errors
    /// Packets are missing; the output's.
    pub(crate) fn finish(mut self) -> Result<EncodedTrack, Failure> {
        if self.next != self.from.samples.len() {
            return Err(Failure::new(
                FailureCode::InputChanged,
                "the input is shorter when it is read again",
            ));
        }
        self.writer.cut_last(self.from.end)?;
        Ok(EncodedTrack {
            output: self.output,
            units: self.frames(),
            duration_ms: self.lasts_ms(),
            bytes: self.writer.written(),
            copied: true,
        })
    }
}
