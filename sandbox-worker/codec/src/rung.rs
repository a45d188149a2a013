//! One rung of the ladder: scale, turn, encode, write; on a thread of its own.

use crate::clock::VIDEO_SCALE;
use crate::ff::AvError;
use crate::ff::encoder::{Encoder, H264};
use crate::ff::frame::{Color, Frame, Picture};
use crate::ff::names;
use crate::ff::packet::Packet;
use crate::ff::scale::Scaler;
use crate::fmp4::Track;
use crate::nal;
use crate::output::Output;
use crate::rotate::Turn;
use crate::track::TrackWriter;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{EncodedTrack, EncoderSpeed, Rung};
use std::sync::mpsc::Receiver;

/// What a rung is fed.
pub(crate) enum Work {
    /// A picture to show at a time; a segment begins where `key`.
    Frame { frame: Frame, time: i64, key: bool },
    /// No more pictures; the last one ends then.
    End(i64),
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
) -> Result<EncodedTrack, Failure> {
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
    turn: Turn,
    /// Size before the turn.
    width: u32,
    height: u32,
    color: Color,
    scaler: Option<Scaler>,
    scaled: Option<Frame>,
    turned: Option<Frame>,
    encoder: Encoder,
    packet: Packet,
    /// Until the first packet says how far decoding runs ahead.
    header: Option<(Track, Output)>,
    writer: Option<TrackWriter>,
    frames: u64,
}

impl Encoding {
    fn open(rung: &Rung, shared: Shared, picture: &Picture, output: Output) -> Result<Self, Failure> {
        let color = resolved(picture);
        let preset = match rung.speed {
            EncoderSpeed::Ultrafast => "ultrafast",
            EncoderSpeed::Veryfast => "veryfast",
            EncoderSpeed::Fast => "fast",
            EncoderSpeed::Medium => "medium",
        };
        let side = |v: u32| u16::try_from(v).ok().filter(|v| *v >= 2 && v % 2 == 0);
        let (Some(width), Some(height)) = (side(rung.width), side(rung.height)) else {
            let what = format!("a rung of {} × {} pixels cannot be made", rung.width, rung.height);
            return Err(Failure::new(FailureCode::WorkerError, what));
        };
        let encoder = Encoder::h264(&H264 {
            width: rung.width,
            height: rung.height,
            timescale: VIDEO_SCALE,
            frame_rate: shared.frame_rate,
            color,
            crf_tenths: rung.crf_tenths,
            max_bit_rate: rung.max_bit_rate,
            buffer_bits: rung.buffer_bits,
            preset,
            threads: shared.threads,
        })
        .map_err(|e| failed("the H.264 encoder could not be opened", e))?;
        let track = Track::Video {
            width,
            height,
            configuration: nal::configuration(encoder.extradata())?,
            color,
            delay: 0,
        };
        let (width, height) =
            if shared.turn.swaps() { (rung.height, rung.width) } else { (rung.width, rung.height) };
        Ok(Self {
            number: rung.output,
            turn: shared.turn,
            width,
            height,
            color,
            scaler: None,
            scaled: None,
            turned: None,
            encoder,
            packet: Packet::new().map_err(|e| failed("a packet", e))?,
            header: Some((track, output)),
            writer: None,
            frames: 0,
        })
    }

    fn encode(&mut self, frame: &Frame, time: i64, key: bool) -> Result<(), Failure> {
        let mut picture = self.converted(frame)?;
        picture.strip();
        picture.set_pts(time);
        picture.set_key(key);
        let sent = self.encoder.send(Some(&picture));
        sent.map_err(|e| failed("the H.264 encoder refused a frame", e))?;
        drop(picture);
        self.frames = self.frames.saturating_add(1);
        self.drain()
    }

    /// The picture as the encoder takes it. The buffers of scaling and turning are used again as soon as x264 has copied
    /// them, which it does before `send` returns.
    fn converted(&mut self, frame: &Frame) -> Result<Frame, Failure> {
        let picture = frame.picture();
        let size = (i32::try_from(self.width).ok(), i32::try_from(self.height).ok());
        let as_is = picture.format == names::YUV420P
            && !picture.full_range
            && (Some(picture.width), Some(picture.height)) == size
            && resolved(&picture).matrix == self.color.matrix;
        let upright_already = self.turn.is_none();
        if as_is && upright_already {
            return frame.share().map_err(|e| failed("a frame", e));
        }
        if !as_is {
            if !self.scaler.as_ref().is_some_and(|s| s.takes(&picture)) {
                let matrices = (resolved(&picture).matrix, self.color.matrix);
                let scaler = Scaler::new(picture, self.width, self.height, matrices).map_err(|_| {
                    let name = names::pixel_format_name(picture.format).unwrap_or_else(|| "unknown".into());
                    Failure::new(
                        FailureCode::InputCorrupt,
                        format!("pictures in the format {name} cannot be scaled"),
                    )
                })?;
                self.scaler = Some(scaler);
            }
            let target = reusable(&mut self.scaled, self.width, self.height)?;
            let scaler =
                self.scaler.as_mut().ok_or_else(|| Failure::new(FailureCode::WorkerError, "no scaler"))?;
            scaler.run(frame, target).map_err(|e| failed("a picture could not be scaled", e))?;
        }
        let source = if as_is { Some(frame) } else { self.scaled.as_ref() };
        let (Some(source), false) = (source, upright_already) else {
            let scaled =
                self.scaled.as_ref().ok_or_else(|| Failure::new(FailureCode::WorkerError, "no picture"))?;
            return scaled.share().map_err(|e| failed("a frame", e));
        };
        let (width, height) =
            if self.turn.swaps() { (self.height, self.width) } else { (self.width, self.height) };
        let target = reusable(&mut self.turned, width, height)?;
        let to_usize = |v: u32| usize::try_from(v).unwrap_or(0);
        self.turn
            .run(source, target, to_usize(self.width), to_usize(self.height))
            .ok_or_else(|| Failure::new(FailureCode::WorkerError, "a picture could not be turned"))?;
        target.share().map_err(|e| failed("a frame", e))
    }

    fn drain(&mut self) -> Result<(), Failure> {
        while self.encoder.receive(&mut self.packet).map_err(|e| failed("the H.264 encoder failed", e))? {
            let (Some(time), Some(decode)) = (self.packet.pts(), self.packet.dts()) else {
                return Err(Failure::new(FailureCode::WorkerError, "the H.264 encoder gave no times"));
            };
            if let Some((mut track, output)) = self.header.take() {
                if let Track::Video { delay, .. } = &mut track {
                    *delay = u32::try_from(time.saturating_sub(decode)).unwrap_or(0);
                }
                self.writer = Some(TrackWriter::new(track, VIDEO_SCALE.unsigned_abs(), output)?);
            }
            let Some(writer) = self.writer.as_mut() else { continue };
            let key = self.packet.is_key();
            if key && !writer.is_empty() {
                // GOPs are closed, so everything shown before this key frame has been written before it.
                writer.cut((time, decode))?;
            }
            let data = self.packet.data();
            writer.add((time, decode), key, |out| nal::append_with_lengths(data, out))?;
            self.packet.clear();
        }
        Ok(())
    }

    fn finish(mut self, end: i64) -> Result<EncodedTrack, Failure> {
        self.encoder.send(None).map_err(|e| failed("the H.264 encoder could not be flushed", e))?;
        self.drain()?;
        let Some(writer) = self.writer.as_mut() else {
            return Err(Failure::new(FailureCode::NoFrames, FailureCode::NoFrames.help()));
        };
        writer.cut_last(end)?;
        let ticks = u64::try_from(end).unwrap_or(0);
        // 90 ticks are a millisecond.
        let duration_ms = ticks / 90;
        Ok(EncodedTrack { output: self.number, units: self.frames, duration_ms, bytes: writer.written() })
    }
}

fn reusable(slot: &mut Option<Frame>, width: u32, height: u32) -> Result<&mut Frame, Failure> {
    if !slot.as_ref().is_some_and(Frame::is_writable) {
        *slot = Some(Frame::yuv420p(width, height).map_err(|e| failed("memory for a picture", e))?);
    }
    slot.as_mut().ok_or_else(|| Failure::new(FailureCode::OutOfMemory, "no memory for a picture"))
}

fn failed(what: &str, error: AvError) -> Failure {
    let code = if error == AvError::NO_MEMORY { FailureCode::OutOfMemory } else { FailureCode::WorkerError };
    Failure::new(code, format!("{what}: {error}"))
}

/// The colour coding to write. Where the source says nothing, what players assume is written down: BT.601 for standard
/// definition, BT.709 above. It is fixed by the source's size, so a small rung of a large source is not taken for BT.601.
fn resolved(picture: &Picture) -> Color {
    let color = picture.color;
    // 0 is RGB, 3 reserved, 8 YCgCo, which 8-bit 4:2:0 players do not take.
    let matrix_known = matches!(color.matrix, 1 | 4..=7 | 9 | 10);
    if matrix_known {
        return color;
    }
    let guess = if picture.height <= 576 && matches!(color.matrix, 2) { 6 } else { 1 };
    let or_guess = |v: u32| if matches!(v, 0 | 2 | 3) { guess } else { v };
    Color { primaries: or_guess(color.primaries), transfer: or_guess(color.transfer), matrix: guess }
}
