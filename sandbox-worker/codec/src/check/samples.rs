//! The samples of one track: counted, placed in their segments, and a few segments decoded.

use super::Problems;
use crate::bitstream::{self, SampleKind};
use crate::clock::VIDEO_SCALE;
use crate::ff::decoder::Decoder;
use crate::ff::demux::{Demuxer, Kind, Stream};
use crate::ff::frame::Frame;
use crate::ff::packet::Packet;
use crate::ff::{AvError, rescale};
use crate::fragments;
use crate::hls::Media;
use crate::package::asc_facts;
use crate::source::{self, Inputs};
use mpegflow_protocol::encoder::VideoCodec;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{CheckTrack, ExpectTrack};

const MICRO: (i32, i32) = (1, 1_000_000);
/// Microseconds by which a segment may differ from its EXTINF: a tick each way and the playlist's rounding.
const EXTINF_TOLERANCE: u64 = 100;

/// What the samples add up to.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) packets: u64,
    pub(super) frames: u64,
    pub(super) duration_ms: u64,
    pub(super) codecs: Option<String>,
}

/// Reads all samples of a track.
///
/// # Errors
/// Only where it could not be read.
pub(super) fn check(
    track: &CheckTrack,
    segment_ms: u32,
    list: &Media,
    inputs: &Inputs,
    problems: &mut Problems,
    progress: &mut dyn FnMut(u64),
) -> Result<Counted, Failure> {
    let name = track.media_uri.as_str();
    let mut demuxer = match source::open_track(inputs, track.media_input) {
        Ok(demuxer) => demuxer,
        Err(failure) if failure.code == FailureCode::OutputRejected => {
            problems.add(name, failure.message);
            return Ok(Counted::default());
        }
        Err(failure) => return Err(failure),
    };
    let stream = match (demuxer.stream_count(), demuxer.stream(0)) {
        (1, Some(stream)) => stream,
        (count, _) => {
            problems.add(name, format!("{count} streams instead of one"));
            return Ok(Counted::default());
        }
    };
    let mut counted = Counted::default();
    match header(&track.expect, &stream) {
        Ok(codecs) => counted.codecs = Some(codecs),
        Err(what) => {
            problems.add(name, what);
            return Ok(counted);
        }
    }
    let Some(tail) = fragments::last_duration(&mut inputs.get(track.media_input)?.small_reads())? else {
        problems.add(name, "its last fragment cannot be read");
        return Ok(counted);
    };
    let mut reader = Reader::new(track, segment_ms, list, &stream, tail)?;
    let mut packet = Packet::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
    loop {
        match demuxer.read(&mut packet) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) if demuxer.read_failed() => return Err(source::storage()),
            Err(e) => {
                problems.add(name, format!("it cannot be read: {e}"));
                return Ok(counted);
            }
        }
        if let Err(what) = reader.take(&packet, &demuxer) {
            problems.add(name, what);
            return Ok(counted);
        }
        progress(u64::try_from(rescale(reader.end, reader.base, (1, 1_000))).unwrap_or(0));
    }
    if demuxer.read_failed() {
        return Err(source::storage());
    }
    if let Err(what) = reader.finish() {
        problems.add(name, what);
    }
    counted.packets = reader.packets;
    counted.frames = reader.frames_decoded;
    let lasts = reader.end.saturating_sub(reader.start);
    counted.duration_ms = u64::try_from(rescale(lasts, reader.base, (1, 1_000))).unwrap_or(0);
    Ok(counted)
}

/// A track's header against the plan; gives its codec string.
pub(super) fn header(expect: &ExpectTrack, stream: &Stream) -> Result<String, String> {
    match (expect, stream.kind) {
        (ExpectTrack::Video { codec, width, height, .. }, Kind::Video) if stream.codec == codec.as_str() => {
            if (u32::try_from(stream.width), u32::try_from(stream.height)) != (Ok(*width), Ok(*height)) {
                return Err(format!("it is {} × {} pixels", stream.width, stream.height));
            }
            // High, or what of it a fast preset uses; all decode with a High decoder.
            if *codec == VideoCodec::H264 && !matches!(stream.extradata.get(1), Some(66 | 77 | 100)) {
                return Err(format!("its H.264 profile is {:?}", stream.extradata.get(1)));
            }
            let small = |v: &u32| u16::try_from(*v).unwrap_or(0);
            let size = (small(width), small(height));
            let stored = bitstream::stored_configuration(*codec, &stream.extradata, size, stream.color);
            bitstream::codec_string(*codec, &stored).ok_or_else(|| "no codec string".into())
        }
        (ExpectTrack::Audio { sample_rate, channels, .. }, Kind::Audio) if stream.codec == "aac" => {
            match asc_facts(&stream.extradata) {
                Some(facts) if facts == (*sample_rate, *channels) => Ok("mp4a.40.2".into()),
                facts => Err(format!("its AAC configuration is {facts:?}")),
            }
        }
        (_, kind) => Err(format!("it is {} ({kind:?})", stream.codec)),
    }
}

/// The decoder that a track's samples are tried with.
pub(super) fn decoder(expect: &ExpectTrack, demuxer: &Demuxer, stream: usize) -> Result<Decoder, String> {
    let name = match expect {
        ExpectTrack::Video { codec: VideoCodec::Av1, .. } => "libdav1d",
        ExpectTrack::Video { codec, .. } => codec.as_str(),
        ExpectTrack::Audio { .. } => "aac",
    };
    let mut decoder = Decoder::open(demuxer, stream, name, 1).map_err(|e| format!("no decoder: {e}"))?;
    decoder.be_strict();
    Ok(decoder)
}

struct Reader<'a> {
    /// When the first sample has to be shown.
    start: i64,
    /// When the last one has to end, where that is known.
    must_end: Option<i64>,
    /// Ticks of a segment, where every frame has to be in the one that its time says.
    grid: Option<i64>,
    expect: &'a ExpectTrack,
    codec: Option<VideoCodec>,
    list: &'a Media,
    base: (i32, i32),
    size: Option<(i32, i32)>,
    frame: Frame,
    /// The segment that the last packet was in.
    segment: Option<usize>,
    segment_start: i64,
    /// When the last sample so far is shown; after the end, when it ends.
    end: i64,
    /// How long the last sample is shown.
    tail: i64,
    last_dts: Option<i64>,
    packets: u64,
    sample: Option<Sampled>,
    frames_decoded: u64,
}

/// A segment that is being decoded.
struct Sampled {
    decoder: Decoder,
    packets: u64,
    frames: u64,
}

impl<'a> Reader<'a> {
    fn new(
        track: &'a CheckTrack,
        segment_ms: u32,
        list: &'a Media,
        stream: &Stream,
        tail: i64,
    ) -> Result<Self, Failure> {
        let ticks = |t: i64| rescale(t, (1, VIDEO_SCALE), stream.time_base);
        let (codec, size) = match track.expect {
            ExpectTrack::Video { codec, width, height, .. } => {
                (Some(codec), Some((i32::try_from(width).unwrap_or(0), i32::try_from(height).unwrap_or(0))))
            }
            ExpectTrack::Audio { .. } => (None, None),
        };
        Ok(Self {
            start: track.chunk.map_or(0, |chunk| ticks(chunk.start)),
            must_end: track.chunk.map(|chunk| ticks(chunk.end)),
            grid: track.chunk.map(|_| rescale(i64::from(segment_ms), (1, 1_000), stream.time_base).max(1)),
            expect: &track.expect,
            codec,
            list,
            base: stream.time_base,
            size,
            frame: Frame::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?,
            segment: None,
            segment_start: 0,
            end: 0,
            tail,
            last_dts: None,
            packets: 0,
            sample: None,
            frames_decoded: 0,
        })
    }

    fn take(&mut self, packet: &Packet, demuxer: &Demuxer) -> Result<(), String> {
        let number = self.packets;
        let (Some(pts), Some(dts), Some(position)) = (packet.pts(), packet.dts(), packet.position()) else {
            return Err(format!("sample {number} has no time or place"));
        };
        if self.last_dts.is_some_and(|last| dts <= last) || pts < dts {
            return Err(format!("the times do not go up at sample {number}"));
        }
        self.last_dts = Some(dts);
        let index = self.list.segments.partition_point(|s| s.offset.saturating_add(s.bytes) <= position);
        if self.segment != Some(index) {
            self.begin(index, pts, packet, demuxer)?;
        } else if let Some(codec) = self.codec
            && bitstream::sample_kind(codec, packet.data()).is_none()
        {
            return Err(format!("sample {number} is not {}", codec.as_str()));
        }
        if let Some(grid) = self.grid
            && pts.checked_div(grid) != self.segment_start.checked_div(grid)
        {
            return Err(format!("sample {number} is not in the segment that its time says"));
        }
        self.packets = self.packets.saturating_add(1);
        self.end = self.end.max(pts);
        self.decode(Some(packet))
    }

    fn begin(&mut self, index: usize, pts: i64, packet: &Packet, demuxer: &Demuxer) -> Result<(), String> {
        let expected = self.segment.map_or(0, |s| s.saturating_add(1));
        if index != expected || index >= self.list.segments.len() {
            return Err(format!("segment {expected} has no samples, or they are out of order"));
        }
        // What is decoded before zero (priming) is not shown.
        let start = pts.max(0);
        if let (Some(grid), Some(_)) = (self.grid, self.segment)
            && start.checked_div(grid) <= self.segment_start.checked_div(grid)
        {
            return Err(format!("segment {index} starts where none does"));
        }
        if self.segment.is_some() {
            self.close(start)?;
        } else if start != self.start || self.size.is_some_and(|_| pts != self.start) {
            return Err(format!("it starts at {pts}"));
        }
        let is_key = match self.codec {
            Some(codec) => {
                packet.is_key() && bitstream::sample_kind(codec, packet.data()) == Some(SampleKind::Idr)
            }
            None => packet.is_key(),
        };
        if !is_key {
            return Err(format!("segment {index} does not start with a key frame"));
        }
        self.segment = Some(index);
        self.segment_start = start;
        let last = self.list.segments.len().saturating_sub(1);
        if index == 0 || index == last || index == last / 2 {
            let decoder = decoder(self.expect, demuxer, 0)?;
            self.sample = Some(Sampled { decoder, packets: 0, frames: 0 });
        }
        Ok(())
    }

    /// Ends a segment at `end`: its duration against its EXTINF, its frames against its packets.
    fn close(&mut self, end: i64) -> Result<(), String> {
        let index = self.segment.unwrap_or(0);
        let listed = self.list.segments.get(index).map_or(0, |s| s.micros);
        let lasts = rescale(end.saturating_sub(self.segment_start), self.base, MICRO);
        let lasts = u64::try_from(lasts).unwrap_or(0);
        if lasts.abs_diff(listed) > EXTINF_TOLERANCE {
            return Err(format!("segment {index} lasts {lasts} µs, its EXTINF says {listed}"));
        }
        if self.end >= end {
            return Err(format!("segment {index} reaches into the next one"));
        }
        self.decode(None)?;
        if let Some(sample) = self.sample.take() {
            self.frames_decoded = self.frames_decoded.saturating_add(sample.frames);
            // An AAC decoder keeps the priming packet to itself.
            let missing = sample.packets.saturating_sub(sample.frames);
            if missing > u64::from(self.size.is_none()) || sample.frames > sample.packets {
                return Err(format!(
                    "segment {index} has {} packets and {} frames",
                    sample.packets, sample.frames
                ));
            }
        }
        Ok(())
    }

    fn decode(&mut self, packet: Option<&Packet>) -> Result<(), String> {
        let Some(sample) = self.sample.as_mut() else { return Ok(()) };
        let index = self.segment.unwrap_or(0);
        let broken = |e: AvError| format!("segment {index} cannot be decoded: {e}");
        sample.packets = sample.packets.saturating_add(u64::from(packet.is_some()));
        match sample.decoder.send(packet) {
            Ok(()) | Err(AvError::EOF) => {}
            Err(e) => return Err(broken(e)),
        }
        while sample.decoder.receive(&mut self.frame).map_err(broken)? {
            sample.frames = sample.frames.saturating_add(1);
            let picture = self.frame.picture();
            if self.size.is_some_and(|size| size != (picture.width, picture.height)) {
                return Err(format!(
                    "segment {index} has pictures of {} × {}",
                    picture.width, picture.height
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(last) = self.segment else { return Err("it has no samples".into()) };
        self.end = self.end.saturating_add(self.tail);
        let end = self.end;
        self.end = self.end.saturating_sub(1);
        self.close(end)?;
        self.end = end;
        if let Some(must) = self.must_end.filter(|must| *must != end) {
            return Err(format!("it ends at {end} instead of {must}"));
        }
        if last.saturating_add(1) != self.list.segments.len() {
            return Err(format!(
                "{} segments are listed, {} are there",
                self.list.segments.len(),
                last.saturating_add(1)
            ));
        }
        Ok(())
    }
}
