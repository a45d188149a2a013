//! One audio rendition: decode, resample, keep in time, encode, write; on a thread of its own.

use crate::caps;
use crate::damage::Tally;
use crate::ff::decoder::{self, Decoder};
use crate::ff::encoder::Encoder;
use crate::ff::frame::Frame;
use crate::ff::packet::Packet;
use crate::ff::resample::Resampler;
use crate::ff::{AvError, log, rescale};
use crate::fmp4::Track;
use crate::output::Output;
use crate::track::TrackWriter;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{AudioEncode, EncodedTrack};
use std::sync::mpsc::Receiver;

/// What a rendition is made with.
pub(crate) struct Setup {
    pub(crate) decoder: Decoder,
    /// Time base of the stream.
    pub(crate) time_base: (i32, i32),
    /// Where the timeline starts, in microseconds of the source.
    pub(crate) start_us: i64,
    pub(crate) segment_ms: u32,
    /// Length of silence that stands in for a stream that is there and holds nothing, in milliseconds; `None` fails.
    pub(crate) silence_ms: Option<u64>,
}

/// What came of it.
pub(crate) struct Rendered {
    pub(crate) track: EncodedTrack,
    pub(crate) tally: Tally,
}

/// Runs a rendition until its packets end.
///
/// # Errors
/// The first failing step.
pub(crate) fn run(
    plan: &AudioEncode,
    mut setup: Setup,
    output: Output,
    packets: &Receiver<Option<Packet>>,
) -> Result<Rendered, Failure> {
    let mut sound = Sound::open(plan, &setup, output)?;
    let mut frame = Frame::new().map_err(|e| failed("a frame", e))?;
    let mut tally = Tally::default();
    loop {
        let packet = match packets.recv() {
            Ok(packet) => packet,
            Err(_) => return Err(Failure::new(FailureCode::WorkerError, "the encode was given up")),
        };
        // To a decoder an empty packet is the end.
        if packet.as_ref().is_some_and(|p| p.data().is_empty()) {
            continue;
        }
        match setup.decoder.send(packet.as_ref()) {
            Ok(()) | Err(AvError::EOF) => {}
            // A damaged packet is skipped; the gap it leaves is filled by time stamps.
            Err(_) => tally.error(),
        }
        loop {
            match setup.decoder.receive(&mut frame) {
                Ok(true) => {
                    tally.decoded = tally.decoded.saturating_add(1);
                    sound.push(&frame, setup.time_base, setup.start_us)?;
                }
                Ok(false) => break,
                Err(_) => {
                    tally.error();
                    break;
                }
            }
        }
        decoder::refused_memory()?;
        if packet.is_none() {
            break;
        }
    }
    tally.errors = tally.errors.saturating_add(sound.lost);
    if sound.pushed == 0 {
        let what = format!("no sound could be decoded from the audio stream ({} errors)", tally.all_errors());
        let ms = match setup.silence_ms {
            Some(ms) if tally.all_errors() == 0 => ms,
            Some(_) => return Err(Failure::new(FailureCode::InputCorrupt, what)),
            None => return Err(Failure::new(FailureCode::NoFrames, what)),
        };
        let samples =
            ms.clamp(100, caps::MAX_DURATION_MS.unsigned_abs()).saturating_mul(u64::from(plan.sample_rate))
                / 1_000;
        sound.silence(i64::try_from(samples).unwrap_or(0))?;
    }
    let track = sound.finish(plan)?;
    tally.reached_ms = track.duration_ms;
    Ok(Rendered { track, tally })
}

struct Sound {
    rate: u32,
    channels: u32,
    segment: i64,
    resampler: Option<Resampler>,
    encoder: Encoder,
    frame_size: usize,
    priming: i64,
    fifo: Vec<Vec<f32>>,
    /// Samples of each channel that went into the queue, silence included.
    pushed: i64,
    /// Samples to throw away before any more go in.
    skip: usize,
    sent: i64,
    /// Packets that came out.
    packets: i64,
    segment_index: i64,
    packet: Packet,
    writer: TrackWriter,
    /// Frames that could not be resampled.
    lost: u64,
}

impl Sound {
    fn open(plan: &AudioEncode, setup: &Setup, output: Output) -> Result<Self, Failure> {
        let encoder = Encoder::aac(plan.sample_rate, plan.channels, plan.bit_rate)
            .map_err(|e| failed("the AAC encoder could not be opened", e))?;
        let (channels, frame_size) = (u16::try_from(plan.channels).unwrap_or(0), encoder.frame_size());
        if !(1..=2).contains(&channels) || frame_size == 0 || encoder.extradata().is_empty() {
            return Err(Failure::new(FailureCode::WorkerError, "the AAC encoder cannot do what was planned"));
        }
        let track = Track::Audio {
            rate: plan.sample_rate,
            channels,
            configuration: encoder.extradata().to_vec(),
            priming: encoder.priming(),
            bit_rate: plan.bit_rate,
        };
        Ok(Self {
            rate: plan.sample_rate,
            channels: plan.channels,
            segment: (i64::from(setup.segment_ms.max(1)).saturating_mul(i64::from(plan.sample_rate)) / 1_000)
                .max(1),
            resampler: None,
            frame_size,
            priming: i64::from(encoder.priming()),
            encoder,
            fifo: vec![Vec::new(); usize::from(channels)],
            pushed: 0,
            skip: 0,
            sent: 0,
            packets: 0,
            segment_index: 0,
            packet: Packet::new().map_err(|e| failed("a packet", e))?,
            writer: TrackWriter::new(track, plan.sample_rate, output)?,
            lost: 0,
        })
    }

    fn base(&self) -> (i32, i32) {
        (1, i32::try_from(self.rate).unwrap_or(1))
    }

    /// Takes a decoded frame: fills a gap before it with silence, cuts what is early.
    fn push(&mut self, frame: &Frame, time_base: (i32, i32), start_us: i64) -> Result<(), Failure> {
        if frame.samples() == 0 {
            return Ok(());
        }
        if self.resampler.as_ref().is_some_and(|r| !r.takes(frame)) {
            self.flush_resampler()?;
        }
        if self.resampler.is_none() {
            match Resampler::new(frame, self.rate, self.channels) {
                Ok(made) => self.resampler = Some(made),
                // Sound that cannot be resampled is as lost as sound that cannot be decoded.
                Err(e) => {
                    self.lost = self.lost.saturating_add(1);
                    if self.lost == 1 {
                        log::line(&format!("sound cannot be resampled: {e}"));
                    }
                    return Ok(());
                }
            }
        }
        let delay = self.resampler.as_ref().map_or(0, Resampler::delay);
        if let Some(time) = frame.best_time() {
            let start = rescale(start_us, (1, 1_000_000), self.base());
            let wanted = rescale(time, time_base, self.base()).saturating_sub(start);
            let have = self.pushed.saturating_add(delay);
            let off = wanted.saturating_sub(have);
            // Time stamps in milliseconds jitter; only a real gap or overlap is worth touching the sound for.
            let tolerance = if have == 0 { 0 } else { i64::from(self.rate) / 25 };
            if off > tolerance {
                self.silence(off)?;
            } else if off < tolerance.saturating_neg() {
                self.skip = usize::try_from(off.unsigned_abs()).unwrap_or(usize::MAX);
            }
        }
        let Some(resampler) = self.resampler.as_mut() else { return Ok(()) };
        let out = resampler.run(Some(frame)).map_err(|e| failed("sound could not be resampled", e))?;
        self.queue(&out)
    }

    fn flush_resampler(&mut self) -> Result<(), Failure> {
        if let Some(mut resampler) = self.resampler.take() {
            let out = resampler.run(None).map_err(|e| failed("sound could not be resampled", e))?;
            self.queue(&out)?;
        }
        Ok(())
    }

    fn queue(&mut self, frame: &Frame) -> Result<(), Failure> {
        let skipped = self.skip.min(frame.samples());
        self.skip = self.skip.saturating_sub(skipped);
        for (index, queue) in self.fifo.iter_mut().enumerate() {
            let samples = frame.channel(index).and_then(|s| s.get(skipped..)).unwrap_or(&[]);
            // Damaged sound decodes to anything; the encoder refuses what is not a number.
            queue.extend(samples.iter().map(|s| if s.is_finite() { s.clamp(-4.0, 4.0) } else { 0.0 }));
        }
        let added = frame.samples().saturating_sub(skipped);
        self.count(i64::try_from(added).unwrap_or(0))?;
        self.encode_whole_frames()
    }

    fn silence(&mut self, samples: i64) -> Result<(), Failure> {
        self.count(samples)?;
        let mut left = usize::try_from(samples).unwrap_or(0);
        while left > 0 {
            let some = left.min(1 << 16);
            for queue in &mut self.fifo {
                queue.resize(queue.len().saturating_add(some), 0.0);
            }
            left = left.saturating_sub(some);
            self.encode_whole_frames()?;
        }
        Ok(())
    }

    fn count(&mut self, samples: i64) -> Result<(), Failure> {
        self.pushed = self.pushed.saturating_add(samples);
        if self.pushed > caps::MAX_DURATION_MS.saturating_mul(i64::from(self.rate)) / 1_000 {
            return Err(Failure::new(FailureCode::DurationTooLong, FailureCode::DurationTooLong.help()));
        }
        Ok(())
    }

    fn encode_whole_frames(&mut self) -> Result<(), Failure> {
        let mut used = 0usize;
        let available = self.fifo.first().map_or(0, Vec::len);
        while available.saturating_sub(used) >= self.frame_size {
            self.encode(used, self.frame_size)?;
            used = used.saturating_add(self.frame_size);
        }
        for queue in &mut self.fifo {
            queue.drain(..used.min(queue.len()));
        }
        Ok(())
    }

    fn encode(&mut self, from: usize, samples: usize) -> Result<(), Failure> {
        let mut frame = Frame::planar_float(samples, self.channels, self.rate)
            .map_err(|e| failed("memory for sound", e))?;
        for (index, queue) in self.fifo.iter().enumerate() {
            let source = queue.get(from..from.saturating_add(samples));
            if let (Some(to), Some(source)) = (frame.channel_mut(index), source) {
                to.copy_from_slice(source);
            }
        }
        frame.set_pts(self.sent);
        self.sent = self.sent.saturating_add(i64::try_from(samples).unwrap_or(0));
        self.encoder.send(Some(&frame)).map_err(|e| failed("the AAC encoder refused a frame", e))?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        while self.encoder.receive(&mut self.packet).map_err(|e| failed("the AAC encoder failed", e))? {
            let size = i64::try_from(self.frame_size).unwrap_or(0);
            // Counted rather than read: the encoder's times are the same, and these cannot be anything else.
            let time = self.packets.saturating_mul(size).saturating_sub(self.priming);
            self.packets = self.packets.saturating_add(1);
            let index = time.checked_div(self.segment).unwrap_or(0);
            if index > self.segment_index && time > 0 {
                self.writer.cut((time, time))?;
                self.segment_index = index;
            }
            let data = self.packet.data();
            self.writer.add((time, time), true, |out| out.extend_from_slice(data))?;
            self.packet.clear();
        }
        Ok(())
    }

    fn finish(mut self, plan: &AudioEncode) -> Result<EncodedTrack, Failure> {
        self.flush_resampler()?;
        let rest = self.fifo.first().map_or(0, Vec::len);
        if rest > 0 {
            self.encode(0, rest)?;
        }
        self.encoder.send(None).map_err(|e| failed("the AAC encoder could not be flushed", e))?;
        self.drain()?;
        // The last packet lasts as long as there was sound for it.
        let size = i64::try_from(self.frame_size).unwrap_or(0);
        let last = self.packets.saturating_sub(1).saturating_mul(size).saturating_sub(self.priming);
        self.writer.cut_last(self.pushed.max(last.saturating_add(1)))?;
        let units = u64::try_from(self.pushed).unwrap_or(0);
        Ok(EncodedTrack {
            output: plan.output,
            units,
            duration_ms: units.saturating_mul(1_000).checked_div(u64::from(self.rate)).unwrap_or(0),
            bytes: self.writer.written(),
            copied: false,
        })
    }
}

fn failed(what: &str, error: AvError) -> Failure {
    let code = if error == AvError::NO_MEMORY { FailureCode::OutOfMemory } else { FailureCode::WorkerError };
    Failure::new(code, format!("{what}: {error}"))
}
