//! One MP4 file: its boxes, and its samples counted and tried. Read by FFmpeg's demuxer, which shares nothing with the writer.

use super::Problems;
use super::samples::{decoder, header};
use crate::bitstream::{self, SampleKind};
use crate::ff::decoder::Decoder;
use crate::ff::demux::Demuxer;
use crate::ff::frame::Frame;
use crate::ff::io::ReadAt;
use crate::ff::packet::Packet;
use crate::ff::{AvError, rescale};
use crate::fragments::{child, children};
use crate::source::{self, Inputs};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::KeptTag;
use mpegflow_protocol::task::{CheckFile, CheckedTrack, ExpectTrack};
use std::collections::BTreeMap;

/// Milliseconds by which a track may differ from what the encode counted.
const DURATION_TOLERANCE_MS: u64 = 50;
/// Packets of sound that are decoded from each place.
const SOUND_PACKETS: u64 = 50;

const NOTHING: CheckedTrack = CheckedTrack { packets: 0, frames_decoded: 0, duration_ms: 0, listed: None };
/// Bytes of an index: 24 hours at 60 frames a second, and sound.
const MAX_INDEX: u64 = 256 << 20;

/// Checks the file and counts each track.
///
/// # Errors
/// Only where it could not be read.
pub(super) fn check(
    file: &CheckFile,
    inputs: &Inputs,
    problems: &mut Problems,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<CheckedTrack>, Failure> {
    let nothing = || file.tracks.iter().map(|_| NOTHING).collect();
    let moov = match boxes(&mut inputs.get(file.input)?.small_reads())? {
        Ok(moov) => moov,
        Err(what) => {
            problems.add(&file.uri, what);
            return Ok(nothing());
        }
    };
    let moov = read_box(&mut inputs.get(file.input)?, moov)?;
    let mut demuxer = match source::open_track(inputs, file.input) {
        Ok(demuxer) => demuxer,
        Err(failure) if failure.code == FailureCode::OutputRejected => {
            problems.add(&file.uri, failure.message);
            return Ok(nothing());
        }
        Err(failure) => return Err(failure),
    };
    if let Err(what) = tags(file, &demuxer.container().tags) {
        problems.add(&file.uri, what);
    }
    if demuxer.stream_count() != file.tracks.len() {
        problems
            .add(&file.uri, format!("{} tracks instead of {}", demuxer.stream_count(), file.tracks.len()));
        return Ok(nothing());
    }
    let said = indices(&moov);
    let mut lanes = Vec::with_capacity(file.tracks.len());
    for (index, expect) in file.tracks.iter().enumerate() {
        let Some(stream) = demuxer.stream(index) else { continue };
        if let Err(what) = header(expect, &stream) {
            problems.add(&file.uri, format!("track {index}: {what}"));
            return Ok(nothing());
        }
        let last = said.get(index).and_then(|said| said.as_ref()).map_or(0, |said| said.last);
        lanes.push(Lane::new(index, expect, stream.time_base, last)?);
    }
    match read(&mut demuxer, &mut lanes, progress) {
        Ok(()) => {}
        Err(_) if demuxer.read_failed() => return Err(source::storage()),
        Err(what) => problems.add(&file.uri, what),
    }
    for lane in &lanes {
        let said = said.get(lane.index).and_then(|said| said.as_ref());
        let judged = lane.judge().and_then(|()| match said.map(|said| &said.keys) {
            Some(Some(keys)) if *keys == lane.keys => Ok(()),
            // Without a list every sample is one to start from.
            Some(None) if lane.keys.len() as u64 == lane.packets => Ok(()),
            _ => Err("it lists other key frames than it has".into()),
        });
        if let Err(what) = judged {
            problems.add(&file.uri, format!("track {}: {what}", lane.index));
        }
    }
    Ok(lanes.iter().map(Lane::counted).collect())
}

/// Holds what the file says of itself to what was planned: nothing else of the input's description may be in it.
fn tags(file: &CheckFile, found: &BTreeMap<String, String>) -> Result<(), String> {
    let name = |tag: KeptTag| match tag {
        KeptTag::Title => "title",
        KeptTag::Artist => "artist",
        KeptTag::Album => "album",
        KeptTag::Date => "date",
        KeptTag::Location => "location",
    };
    let planned: Vec<(&str, &str)> = file.tags.iter().map(|t| (name(t.tag), t.value.as_str())).collect();
    let brands = ["major_brand", "minor_version", "compatible_brands"];
    for (key, value) in found.iter().filter(|(key, _)| !brands.contains(&key.as_str())) {
        if !planned.iter().any(|(name, said)| name == key && said == value) {
            return Err(format!("it says a {key} that was not planned"));
        }
    }
    match planned.iter().find(|(name, _)| !found.contains_key(*name)) {
        Some((name, _)) => Err(format!("it does not say its {name}")),
        None => Ok(()),
    }
}

fn read(demuxer: &mut Demuxer, lanes: &mut [Lane<'_>], progress: &mut dyn FnMut(u64)) -> Result<(), String> {
    let mut packet = Packet::new().map_err(|e| e.to_string())?;
    while demuxer.read(&mut packet).map_err(|e| format!("it cannot be read: {e}"))? {
        let Some(lane) = lanes.get_mut(packet.stream()) else { continue };
        lane.take(&packet, demuxer).map_err(|e| format!("track {}: {e}", lane.index))?;
        progress(u64::try_from(rescale(lane.shown, lane.base, (1, 1_000))).unwrap_or(0));
    }
    if demuxer.read_failed() {
        return Err("it cannot be read".into());
    }
    lanes.iter_mut().try_for_each(|lane| lane.close().map_err(|e| format!("track {}: {e}", lane.index)))
}

/// Holds the file to `ftyp`, `moov` and `mdat`, in this order and nothing else; gives the place of `moov`.
fn boxes(media: &mut dyn ReadAt) -> Result<Result<(u64, u64), String>, Failure> {
    let (mut at, mut index) = (0u64, (0, 0));
    for kind in [b"ftyp", b"moov", b"mdat"] {
        let header = bytes(media, at, 16)?;
        let Some([s0, s1, s2, s3, k0, k1, k2, k3, large @ ..]) = header.first_chunk::<16>().copied() else {
            return Ok(Err(format!("it ends at {at}, inside a box")));
        };
        let size = match u32::from_be_bytes([s0, s1, s2, s3]) {
            1 => u64::from_be_bytes(large),
            short => u64::from(short),
        };
        if [k0, k1, k2, k3] != *kind || size < 8 {
            return Ok(Err(format!("at {at} there is no {}", String::from_utf8_lossy(kind))));
        }
        if kind == b"moov" {
            index = (at, size);
        }
        at = at.saturating_add(size);
    }
    let len = media.len();
    Ok(if at != len {
        Err(format!("its boxes end at {at}, the file at {len}"))
    } else if index.1 > MAX_INDEX {
        Err(format!("its index has {} bytes", index.1))
    } else {
        Ok(index)
    })
}

/// What is in a box.
fn read_box(media: &mut dyn ReadAt, (at, size): (u64, u64)) -> Result<Vec<u8>, Failure> {
    bytes(media, at.saturating_add(8), usize::try_from(size.saturating_sub(8)).unwrap_or(0))
}

/// Bytes from a place, fewer at the end.
fn bytes(media: &mut dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>, Failure> {
    let mut out = vec![0; len];
    let mut got = 0usize;
    while let Some(rest) = out.get_mut(got..).filter(|r| !r.is_empty()) {
        match media.read_at(at.saturating_add(got as u64), rest) {
            Ok(0) => break,
            Ok(n) => got = got.saturating_add(n),
            Err(_) => return Err(source::storage()),
        }
    }
    out.truncate(got);
    Ok(out)
}

/// What each track's index says of its samples. FFmpeg mends what an index leaves out, players do not.
struct Index {
    /// Numbers of those to start from; `None` where there is no list.
    keys: Option<Vec<u32>>,
    /// Ticks that the last one lasts. FFmpeg gives no sample a duration where they are decoded in another order than shown.
    last: u32,
}

fn indices(moov: &[u8]) -> Vec<Option<Index>> {
    let word = |row: &[u8]| row.last_chunk::<4>().map_or(0, |w| u32::from_be_bytes(*w));
    let index = |trak: &[u8]| {
        let tables = child(child(child(trak, b"mdia")?, b"minf")?, b"stbl")?;
        let rows = |name: &[u8; 4]| child(tables, name)?.get(8..);
        let keys = rows(b"stss").map(|rows| rows.chunks_exact(4).map(word).collect());
        Some(Index { keys, last: rows(b"stts")?.chunks_exact(8).last().map(word)? })
    };
    children(moov, b"trak").into_iter().map(index).collect()
}

/// One track being read.
struct Lane<'a> {
    index: usize,
    expect: &'a ExpectTrack,
    base: (i32, i32),
    packets: u64,
    frames: u64,
    last_decode: Option<i64>,
    start: Option<i64>,
    shown: i64,
    /// Ticks that the last sample lasts.
    last: i64,
    frame: Frame,
    sample: Option<(Decoder, u64, u64)>,
    samples: u64,
    /// Numbers of the samples that decoding can start from, from 1.
    keys: Vec<u32>,
}

impl<'a> Lane<'a> {
    fn new(index: usize, expect: &'a ExpectTrack, base: (i32, i32), last: u32) -> Result<Self, Failure> {
        let frame = Frame::new().map_err(|e| Failure::new(FailureCode::OutOfMemory, e.to_string()))?;
        Ok(Self {
            index,
            expect,
            base,
            packets: 0,
            frames: 0,
            last_decode: None,
            start: None,
            shown: i64::MIN,
            last: i64::from(last),
            frame,
            sample: None,
            samples: 0,
            keys: Vec::new(),
        })
    }

    fn take(&mut self, packet: &Packet, demuxer: &Demuxer) -> Result<(), String> {
        let number = self.packets;
        let (Some(pts), Some(dts)) = (packet.pts(), packet.dts()) else {
            return Err(format!("sample {number} has no time"));
        };
        if self.last_decode.is_some_and(|last| dts <= last) || pts < dts {
            return Err(format!("the times do not go up at sample {number}"));
        }
        self.last_decode = Some(dts);
        self.start = Some(self.start.map_or(pts, |s| s.min(pts)));
        self.shown = self.shown.max(pts);
        let key = match self.expect {
            ExpectTrack::Video { codec, .. } => {
                let kind = bitstream::sample_kind(*codec, packet.data());
                let kind = kind.ok_or_else(|| format!("sample {number} is not {}", codec.as_str()))?;
                if packet.is_key() != (kind == SampleKind::Idr) {
                    return Err(format!("sample {number} is marked as what it is not"));
                }
                packet.is_key()
            }
            ExpectTrack::Audio { .. } => true,
        };
        if number == 0 && !key {
            return Err("it does not start with a key frame".into());
        }
        self.packets = number.saturating_add(1);
        if key {
            self.keys.push(u32::try_from(self.packets).unwrap_or(u32::MAX));
        }
        let video = matches!(self.expect, ExpectTrack::Video { .. });
        let long_enough = self.sample.as_ref().is_some_and(|(_, packets, _)| *packets >= SOUND_PACKETS);
        if (video && key) || (!video && long_enough) {
            self.close()?;
        }
        // From the start, from the middle, and near the end.
        let due = match self.samples {
            0 => 0,
            1 => self.planned() / 2,
            2 => self.planned().saturating_mul(9) / 10,
            _ => u64::MAX,
        };
        if key && self.sample.is_none() && number >= due {
            self.sample = Some((decoder(self.expect, demuxer, self.index)?, 0, 0));
            self.samples = self.samples.saturating_add(1);
        }
        self.decode(Some(packet))
    }

    /// Packets there ought to be.
    fn planned(&self) -> u64 {
        match self.expect {
            ExpectTrack::Video { frames, .. } => *frames,
            ExpectTrack::Audio { sample_rate, duration_ms, .. } => {
                duration_ms.saturating_mul(u64::from(*sample_rate)) / 1_024_000
            }
        }
    }

    fn decode(&mut self, packet: Option<&Packet>) -> Result<(), String> {
        let Some((decoder, packets, frames)) = self.sample.as_mut() else { return Ok(()) };
        let broken = |e: AvError| format!("it cannot be decoded: {e}");
        *packets = packets.saturating_add(u64::from(packet.is_some()));
        match decoder.send(packet) {
            Ok(()) | Err(AvError::EOF) => {}
            Err(e) => return Err(broken(e)),
        }
        while decoder.receive(&mut self.frame).map_err(broken)? {
            *frames = frames.saturating_add(1);
            let picture = self.frame.picture();
            if let ExpectTrack::Video { width, height, .. } = self.expect
                && (u32::try_from(picture.width), u32::try_from(picture.height)) != (Ok(*width), Ok(*height))
            {
                return Err(format!("it has pictures of {} × {}", picture.width, picture.height));
            }
        }
        Ok(())
    }

    /// Ends what is being decoded.
    fn close(&mut self) -> Result<(), String> {
        self.decode(None)?;
        if let Some((_, packets, frames)) = self.sample.take() {
            self.frames = self.frames.saturating_add(frames);
            // An AAC decoder keeps the priming packet to itself.
            let missing = packets.saturating_sub(frames);
            let sound = matches!(self.expect, ExpectTrack::Audio { .. });
            if missing > u64::from(sound) || frames > packets {
                return Err(format!("{packets} packets give {frames} frames"));
            }
        }
        Ok(())
    }

    fn counted(&self) -> CheckedTrack {
        let end = self.shown.saturating_add(self.last).max(0);
        let ms = rescale(end, self.base, (1, 1_000));
        CheckedTrack {
            packets: self.packets,
            frames_decoded: self.frames,
            duration_ms: u64::try_from(ms).unwrap_or(0),
            listed: None,
        }
    }

    fn judge(&self) -> Result<(), String> {
        let (found, planned) = (self.counted(), self.expect.duration_ms());
        if found.duration_ms.abs_diff(planned) > DURATION_TOLERANCE_MS {
            return Err(format!("it lasts {} ms instead of {planned}", found.duration_ms));
        }
        match self.expect {
            ExpectTrack::Video { frames, .. } if *frames != found.packets => {
                Err(format!("it has {} frames instead of {frames}", found.packets))
            }
            ExpectTrack::Video { .. } if self.start != Some(0) => {
                Err(format!("it starts at {:?}", self.start))
            }
            _ => Ok(()),
        }
    }
}
