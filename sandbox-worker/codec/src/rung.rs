//! One rung of the ladder: convert, encode, write; on a thread of its own.
//!
//! SVT-AV1 (1.4) puts key frames at a distance and never where it is asked to. The grid goes by time, and frames do not: so each
//! segment of AV1 is a run of the encoder of its own. Its first picture is then a key frame, nothing refers across its end, and
//! every run must write the same sequence header.

use crate::bitstream;
use crate::clock::VIDEO_SCALE;
use crate::convert::{Converter, Purpose, failed};
use crate::ff::encoder::{Encoder, Video};
use crate::ff::frame::{Frame, Picture};
use crate::ff::packet::Packet;
use crate::fmp4::Track;
use crate::output::Output;
use crate::rotate::Turn;
use crate::track::TrackWriter;
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{EncodedTrack, Rung};
use std::sync::mpsc::Receiver;

/// What a rung is fed.
pub(crate) enum Work {
    /// A picture to show at a time; a segment begins where `key`.
    Frame { frame: Frame, time: i64, key: bool },
    /// No more pictures; the last one ends then.
    End(i64),
}

/// What a rung made.
pub(crate) struct Made {
    pub(crate) track: EncodedTrack,
    /// Ticks from the first decoding time to the first picture's.
    pub(crate) lead: u32,
}

/// What all rungs share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    /// What makes the picture upright.
    pub(crate) turn: Turn,
    /// Frames per second, as a guide for rate control.
    pub(crate) frame_rate: (i32, i32),
    /// Threads an encoder may start.
    pub(crate) threads: u32,
}

/// Runs a rung until its work ends.
///
/// # Errors
/// The first failing step.
pub(crate) fn run(
    rung: &Rung,
    shared: Shared,
    output: Output,
    work: &Receiver<Work>,
) -> Result<Made, Failure> {
    let Some(Work::Frame { frame, time, key }) = work.recv().ok() else {
        return Err(Failure::new(FailureCode::NoFrames, FailureCode::NoFrames.help()));
    };
    let mut rung = Encoding::open(rung, shared, &frame.picture(), output)?;
    rung.encode(&frame, time, key)?;
    drop(frame);
    loop {
        match work.recv() {
            Ok(Work::Frame { frame, time, key }) => rung.encode(&frame, time, key)?,
            Ok(Work::End(end)) => return rung.finish(end),
            // The decoding side gave up and says why; half a track is no track.
            Err(_) => return Err(Failure::new(FailureCode::WorkerError, "the encode was given up")),
        }
    }
}

struct Encoding {
    number: u32,
    spec: Video,
    converter: Converter,
    encoder: Encoder,
    packet: Packet,
    /// Until the first packet says how far decoding runs ahead.
    header: Option<(Track, Output)>,
    writer: Option<TrackWriter>,
    frames: u64,
    lead: u32,
}

impl Encoding {
    fn open(rung: &Rung, shared: Shared, picture: &Picture, output: Output) -> Result<Self, Failure> {
        let side = |v: u32| u16::try_from(v).ok().filter(|v| *v >= 2 && v % 2 == 0);
        let (Some(width), Some(height)) = (side(rung.width), side(rung.height)) else {
            let what = format!("a rung of {} × {} pixels cannot be made", rung.width, rung.height);
            return Err(Failure::new(FailureCode::WorkerError, what));
        };
        let converter = Converter::new(shared.turn, rung.width, rung.height, Purpose::Video, picture);
        let color = converter.color();
        let spec = Video {
            codec: rung.codec,
            width: rung.width,
            height: rung.height,
            timescale: VIDEO_SCALE,
            frame_rate: shared.frame_rate,
            color,
            crf_tenths: rung.crf_tenths,
            max_bit_rate: rung.max_bit_rate,
            buffer_bits: rung.buffer_bits,
            speed: rung.speed,
            tuning: rung.tuning,
            threads: shared.threads,
        };
        let encoder = opened(&spec)?;
        let configuration =
            bitstream::configuration(rung.codec, encoder.extradata(), (width, height), color)?;
        let track = Track::Video { codec: rung.codec, width, height, configuration, color, delay: 0 };
        Ok(Self {
            number: rung.output,
            spec,
            converter,
            encoder,
            packet: Packet::new().map_err(|e| failed("a packet", e))?,
            header: Some((track, output)),
            writer: None,
            frames: 0,
            lead: 0,
        })
    }

    fn encode(&mut self, frame: &Frame, time: i64, key: bool) -> Result<(), Failure> {
        let mut picture = self.converter.run(frame)?;
        picture.strip();
        picture.set_progressive();
        picture.set_pts(time);
        picture.set_key(key);
        if key && self.frames > 0 && self.spec.codec == VideoCodec::Av1 {
            self.next_run()?;
        }
        let sent = self.encoder.send(Some(&picture));
        sent.map_err(|e| failed("the encoder refused a frame", e))?;
        drop(picture);
        self.frames = self.frames.saturating_add(1);
        self.drain()
    }

    /// Ends the encoder's run and starts another.
    fn next_run(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let next = opened(&self.spec)?;
        if next.extradata() != self.encoder.extradata() {
            return Err(Failure::new(FailureCode::WorkerError, "the encoder changed its sequence header"));
        }
        self.encoder = next;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.encoder.send(None).map_err(|e| failed("the encoder could not be flushed", e))?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        while self.encoder.receive(&mut self.packet).map_err(|e| failed("the encoder failed", e))? {
            let (Some(time), Some(decode)) = (self.packet.pts(), self.packet.dts()) else {
                return Err(Failure::new(FailureCode::WorkerError, "the encoder gave no times"));
            };
            // These two hide reordered pictures inside their packets.
            let in_order = matches!(self.spec.codec, VideoCodec::Vp9 | VideoCodec::Av1);
            let decode = if in_order { time } else { decode };
            if let Some((mut track, output)) = self.header.take() {
                if let Track::Video { delay, .. } = &mut track {
                    *delay = u32::try_from(time.saturating_sub(decode)).unwrap_or(0);
                    self.lead = *delay;
                }
                self.writer = Some(TrackWriter::new(track, VIDEO_SCALE.unsigned_abs(), output)?);
            }
            let Some(writer) = self.writer.as_mut() else { continue };
            let key = self.packet.is_key();
            if key && !writer.is_empty() {
                // GOPs are closed, so everything shown before this key frame has been written before it.
                writer.cut((time, decode))?;
            }
            let (codec, data) = (self.spec.codec, self.packet.data());
            writer.add((time, decode), key, |out| bitstream::append(codec, data, out))?;
            self.packet.clear();
        }
        Ok(())
    }

    fn finish(mut self, end: i64) -> Result<Made, Failure> {
        self.flush()?;
        let Some(writer) = self.writer.as_mut() else {
            return Err(Failure::new(FailureCode::NoFrames, FailureCode::NoFrames.help()));
        };
        writer.cut_last(end)?;
        let ticks = u64::try_from(end).unwrap_or(0);
        // 90 ticks are a millisecond.
        let duration_ms = ticks / 90;
        let track = EncodedTrack {
            output: self.number,
            units: self.frames,
            duration_ms,
            bytes: writer.written(),
            copied: false,
        };
        Ok(Made { track, lead: self.lead })
    }
}

fn opened(spec: &Video) -> Result<Encoder, Failure> {
    Encoder::video(spec)
        .map_err(|e| failed(&format!("the {} encoder could not be opened", spec.codec.as_str()), e))
}
