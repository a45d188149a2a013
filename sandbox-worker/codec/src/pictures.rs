//! The video side of an encode: one decoder, one clock, and the queues of all rungs.

use crate::caps::{self, Meter};
use crate::clock::{Clock, VIDEO_SCALE, Verdict};
use crate::damage::Tally;
use crate::deinterlace::Deinterlacer;
use crate::ff::decoder::{self, Decoder};
use crate::ff::frame::Frame;
use crate::ff::packet::Packet;
use crate::ff::{AvError, log, rescale};
use crate::rung::Work;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{Chunk, Cut};
use std::sync::mpsc::SyncSender;

/// See the module.
pub(crate) struct Pictures {
    /// Stream index in the container.
    pub(crate) stream: usize,
    /// Frames dropped to keep the rate.
    pub(crate) dropped: u64,
    /// The timeline.
    pub(crate) clock: Clock,
    /// One queue for each rung.
    pub(crate) senders: Vec<SyncSender<Work>>,
    time_base: (i32, i32),
    start: i64,
    decoder: Decoder,
    frame: Frame,
    meter: Meter,
    tally: Tally,
    /// There where interlaced frames are made progressive.
    deinterlacer: Option<Deinterlacer>,
    /// Only this part of the video is made.
    part: Option<Part>,
}

/// A part of a video, in ticks from the timeline's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Where the part before ended.
    pub(crate) from: Option<Cut>,
    /// It ends before the first frame at or after this.
    pub(crate) until: Option<i64>,
    /// The first frame has come.
    began: bool,
    /// Where it ended.
    pub(crate) cut: Option<Cut>,
}

impl Part {
    pub(crate) fn new(chunk: &Chunk) -> Self {
        let ticks =
            |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(i64::from(VIDEO_SCALE) / 1_000);
        Self { from: chunk.from, until: chunk.until_ms.map(ticks), began: false, cut: None }
    }

    /// When its first frame is shown.
    pub(crate) fn start(&self) -> i64 {
        self.from.map_or(0, |cut| cut.time)
    }
}

/// The rungs or renditions are gone; their own failure says why.
pub(crate) struct Gone;

/// Why feeding ended early.
pub(crate) enum Stop {
    /// See [`Gone`].
    Gone,
    /// A failure of its own.
    Failed(Failure),
    /// The part that was asked for is done.
    Cut,
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

impl Pictures {
    /// Of stream `stream`, whose times are in `time_base`, on a timeline that starts at `start_us`.
    ///
    /// # Errors
    /// Out of memory.
    #[expect(clippy::too_many_arguments, reason = "one for each thing that a stream of pictures needs")]
    pub(crate) fn new(
        stream: usize,
        time_base: (i32, i32),
        start_us: i64,
        decoder: Decoder,
        clock: Clock,
        senders: Vec<SyncSender<Work>>,
        deinterlace: bool,
        part: Option<Part>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            stream,
            time_base,
            start: rescale(start_us, (1, 1_000_000), (1, VIDEO_SCALE)),
            decoder,
            frame: Frame::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?,
            clock,
            meter: Meter::default(),
            senders,
            dropped: 0,
            tally: Tally::default(),
            deinterlacer: deinterlace.then(Deinterlacer::default),
            part,
        })
    }

    /// What became of the stream, whose packets reach to `read_ms`.
    pub(crate) fn tally(&self, read_ms: u64) -> Tally {
        let reached = rescale(self.clock.end(), (1, VIDEO_SCALE), (1, 1_000));
        Tally { read_ms, reached_ms: u64::try_from(reached).unwrap_or(0), ..self.tally }
    }

    /// Frames decoded so far.
    pub(crate) fn decoded(&self) -> u64 {
        self.tally.decoded
    }

    /// Whether there was a frame.
    pub(crate) fn has_frames(&self) -> bool {
        self.tally.decoded > 0
    }

    /// When the first frame that is handed on is shown.
    pub(crate) fn starts_at(&self) -> i64 {
        self.part.map_or(0, |part| part.start())
    }

    /// When the last frame that was handed on ends.
    pub(crate) fn ends_at(&self) -> i64 {
        self.part.and_then(|part| part.cut).map_or_else(|| self.clock.end(), |cut| cut.time)
    }

    /// Where the part that was asked for ended, if the input did not end first.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.part.and_then(|part| part.cut)
    }

    /// Whether a frame that the source shows at `time` belongs to the part before this one: what is decoded first is only there for
    /// what refers to it. The first frame that does not has to be the one that the part before ended at.
    fn is_before_part(&mut self, time: Option<i64>) -> Result<bool, Failure> {
        let Some(Part { from: Some(from), began, .. }) = &mut self.part else { return Ok(false) };
        if *began {
            return Ok(false);
        }
        match time.map(|time| time.saturating_add(from.offset)) {
            Some(time) if time == from.time => *began = true,
            Some(time) if time > from.time => return Err(cannot_be_cut()),
            _ => return Ok(true),
        }
        Ok(false)
    }

    /// Decodes a packet, or flushes, and hands on what comes out.
    ///
    /// # Errors
    /// What fails the task at once; damage is counted.
    pub(crate) fn packet(&mut self, packet: Option<&Packet>, input_len: u64) -> Result<(), Stop> {
        // To a decoder an empty packet is the end; in AVI and Ogg it says that the last picture stands.
        if packet.is_some_and(|p| p.data().is_empty()) {
            return Ok(());
        }
        let mut sent = self.decoder.send(packet);
        if sent == Err(AvError::AGAIN) {
            self.take_frames(input_len)?;
            sent = self.decoder.send(packet);
        }
        if sent.is_err_and(|e| e != AvError::EOF) {
            self.failed_once()?;
        }
        self.take_frames(input_len)?;
        if packet.is_none() {
            let rest = self.deinterlacer.as_mut().map(Deinterlacer::flush).transpose().map_err(memory)?;
            rest.iter().flatten().try_for_each(|frame| self.place(frame))?;
        }
        // Some decoders report a refusal as success without a frame.
        Ok(refused()?)
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
        refused()?;
        self.tally.error();
        if self.tally.decoded == 0 && self.tally.leading_errors > caps::MAX_ERRORS_WITHOUT_A_FRAME {
            return Err(no_frames(self.tally.leading_errors));
        }
        Ok(())
    }

    fn take_frame(&mut self, input_len: u64) -> Result<(), Stop> {
        let picture = self.frame.picture();
        self.meter.count(picture.width, picture.height, input_len)?;
        self.tally.decoded = self.tally.decoded.saturating_add(1);
        if self.frame.is_concealed() {
            self.tally.concealed = self.tally.concealed.saturating_add(1);
        }
        let Some(deinterlacer) = self.deinterlacer.as_mut() else {
            let frame = self.frame.share().map_err(memory)?;
            self.frame.clear();
            return self.place(&frame);
        };
        let finished = deinterlacer.push(self.frame.share().map_err(memory)?).map_err(memory)?;
        self.frame.clear();
        finished.iter().try_for_each(|frame| self.place(frame))
    }

    /// Gives a frame its place on the timeline and hands it to every rung.
    fn place(&mut self, frame: &Frame) -> Result<(), Stop> {
        let base = self.time_base;
        let to_ticks = |t: i64| rescale(t, base, (1, VIDEO_SCALE));
        let time = frame.best_time().map(|t| to_ticks(t).saturating_sub(self.start));
        if self.is_before_part(time)? {
            return Ok(());
        }
        let before = self.part.and_then(|part| part.until).map(|until| (until, self.clock.clone()));
        match self.clock.place(time, to_ticks(frame.duration())) {
            Verdict::Keep { time, .. } if before.as_ref().is_some_and(|(until, _)| time >= *until) => {
                if let (Some(part), Some((_, clock))) = (self.part.as_mut(), before) {
                    part.cut = Some(clock.cut(time));
                }
                return Err(Stop::Cut);
            }
            Verdict::Drop => self.dropped = self.dropped.saturating_add(1),
            Verdict::Keep { time, key } => {
                if rescale(time, (1, VIDEO_SCALE), (1, 1_000)) > caps::MAX_DURATION_MS {
                    let code = FailureCode::DurationTooLong;
                    return Err(Failure::new(code, code.help()).into());
                }
                // A chunk's own times start at zero, as every track's do.
                let time = time.saturating_sub(self.starts_at());
                for sender in &self.senders {
                    let frame = frame.share().map_err(memory)?;
                    sender.send(Work::Frame { frame, time, key }).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }
}

/// The failure for an input in which the place between two chunks is not found again.
pub(crate) fn cannot_be_cut() -> Failure {
    Failure::new(
        FailureCode::InputCorrupt,
        "the times of the input do not let it be cut into chunks; submit it without output.early",
    )
}

fn memory(error: AvError) -> Failure {
    Failure::new(FailureCode::OutOfMemory, error.to_string())
}

/// The failure for what a decoder was refused, if it was.
fn refused() -> Result<(), Failure> {
    if log::refused_a_size() {
        return Err(caps::too_large("a picture"));
    }
    decoder::refused_memory()
}

/// The failure where no frame came.
pub(crate) fn no_frames(errors: u64) -> Failure {
    let nothing = format!("not one frame could be decoded ({errors} errors)");
    refused().err().unwrap_or_else(|| Failure::new(FailureCode::NoFrames, nothing))
}
