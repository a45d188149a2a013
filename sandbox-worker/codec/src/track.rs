//! Writing one track: samples in, one fragment for each segment out, with byte ranges and durations kept.

use crate::caps;
use crate::fmp4::{self, Sample, Track};
use crate::output::Output;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::limits;

/// One written segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it starts in the file.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// When it starts, in ticks.
    pub(crate) start: i64,
    /// When it ends, in ticks.
    pub(crate) end: i64,
}

/// What an index says of a segment that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// When it starts, in ticks.
    pub(crate) start: i64,
}

/// A track being written.
pub(crate) struct TrackWriter {
    track: Track,
    output: Output,
    init_bytes: u64,
    samples: Vec<Sample>,
    payload: Vec<u8>,
    segments: Vec<Segment>,
}

impl TrackWriter {
    /// Writes the header of a track whose language is not known.
    ///
    /// # Errors
    /// The output's.
    pub(crate) fn new(track: Track, timescale: u32, output: Output) -> Result<Self, Failure> {
        Self::in_language(track, timescale, None, output)
    }

    /// Writes the header of a track in a language of ISO 639-2.
    ///
    /// # Errors
    /// The output's.
    pub(crate) fn in_language(
        track: Track,
        timescale: u32,
        language: Option<&str>,
        mut output: Output,
    ) -> Result<Self, Failure> {
        let header = fmp4::init(&track, timescale, language);
        output.append(&header)?;
        let init_bytes = output.written();
        Ok(Self { track, output, init_bytes, samples: Vec::new(), payload: Vec::new(), segments: Vec::new() })
    }

    /// Writes the index of segments that are to follow, the last of which ends at `end`; gives its length in bytes.
    ///
    /// # Errors
    /// The output's; segments that do not fit an index.
    pub(crate) fn index(&mut self, timescale: u32, segments: &[Reference], end: i64) -> Result<u64, Failure> {
        let index = fmp4::index(timescale, segments, end).ok_or_else(|| {
            Failure::new(FailureCode::OutputRejected, "the segments of a track do not fit its index")
        })?;
        self.output.append(&index)?;
        Ok(index.len() as u64)
    }

    /// Whether the segment being filled has nothing in it yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Adds a sample shown at one time and decoded at another, whose bytes `fill` appends.
    ///
    /// # Errors
    /// A segment that grows beyond the cap.
    pub(crate) fn add(
        &mut self,
        (time, decode): (i64, i64),
        key: bool,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Failure> {
        let before = self.payload.len();
        fill(&mut self.payload);
        let size = self.payload.len().saturating_sub(before);
        if self.payload.len() > caps::MAX_SEGMENT_BYTES {
            return Err(Failure::new(
                FailureCode::ResourceLimit,
                format!("one segment is larger than {} bytes", caps::MAX_SEGMENT_BYTES),
            ));
        }
        self.samples.push(Sample { time, decode, size: u32::try_from(size).unwrap_or(u32::MAX), key });
        Ok(())
    }

    /// Writes the segment that was filled, when the next one's first sample is known: when it is shown and decoded.
    ///
    /// # Errors
    /// The output's; times that do not go up.
    pub(crate) fn cut(&mut self, (time, decode): (i64, i64)) -> Result<(), Failure> {
        self.write(time, decode)
    }

    /// Writes the last segment, whose last sample shown ends at `end`. The last sample's duration is what that one is shown
    /// for, so that a reader finds the end again.
    ///
    /// # Errors
    /// The output's; times that do not go up.
    pub(crate) fn cut_last(&mut self, end: i64) -> Result<(), Failure> {
        let shown = self.samples.iter().map(|s| s.time).max().unwrap_or(0);
        let decode = self.samples.last().map_or(0, |s| s.decode);
        let length = end.saturating_sub(shown).max(1);
        self.write(shown.saturating_add(length), decode.saturating_add(length))
    }

    fn write(&mut self, end: i64, next: i64) -> Result<(), Failure> {
        if self.samples.is_empty() {
            return Ok(());
        }
        let count = self.segments.len();
        if count >= limits::MAX_SEGMENTS {
            return Err(Failure::new(FailureCode::DurationTooLong, format!("more than {count} segments")));
        }
        let sequence = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
        let head = fmp4::fragment(&self.track, sequence, &self.samples, next)
            .ok_or_else(|| Failure::new(FailureCode::OutputRejected, "the times of a track do not go up"))?;
        let offset = self.output.written();
        self.output.append(&head)?;
        self.output.append(&self.payload)?;
        let start = self.samples.iter().map(|s| s.time).min().unwrap_or(0);
        let bytes = self.output.written().saturating_sub(offset);
        self.segments.push(Segment { offset, bytes, start, end });
        self.samples.clear();
        self.payload.clear();
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.output.written()
    }

    /// Bytes of the header, and the segments.
    pub(crate) fn finish(self) -> (u64, Vec<Segment>) {
        (self.init_bytes, self.segments)
    }
}
