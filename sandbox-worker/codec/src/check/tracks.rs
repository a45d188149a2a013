//! One track: its playlist, its boxes, and then its samples.

use super::samples::{self, Counted};
use super::{Problems, text};
use crate::ff::io::ReadAt;
use crate::hls::{self, Media};
use crate::input::Input;
use crate::source::{self, Inputs};
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::task::{
    CheckChunk, CheckTrack, CheckedTrack, ExpectTrack, ListedSegment, ListedTrack,
};

/// Milliseconds by which a track may differ from what the encode counted.
const DURATION_TOLERANCE_MS: u64 = 50;

/// Bytes of a header: that of a video with its configuration has about a thousand.
const MAX_HEADER: usize = 1 << 20;

/// What was found in a track.
pub(super) struct Found {
    pub(super) counted: CheckedTrack,
    /// The codec string that its configuration calls for.
    pub(super) codecs: Option<String>,
    /// Bytes of the header, and of the index behind it.
    pub(super) header: (u64, u64),
    /// The highest bit rate of a segment that lasts at least half the target duration.
    pub(super) largest_rate: u64,
}

/// Checks one track.
///
/// # Errors
/// Only where it could not be read.
pub(super) fn check(
    track: &CheckTrack,
    (segment_ms, listed): (u32, bool),
    inputs: &Inputs,
    problems: &mut Problems,
    progress: &mut dyn FnMut(u64),
) -> Result<Found, Failure> {
    let name = track.media_uri.as_str();
    let mut found = Found {
        counted: CheckedTrack { packets: 0, frames_decoded: 0, duration_ms: 0, listed: None },
        codecs: None,
        header: (0, 0),
        largest_rate: 0,
    };
    let list = match text(inputs, track.playlist_input)?.and_then(|t| hls::media(&t)) {
        Ok(list) => list,
        Err(what) => {
            problems.add(&track.playlist_uri, what);
            return Ok(found);
        }
    };
    let media = inputs.get(track.media_input)?;
    let before = problems.0.len();
    let len = media.len();
    let mut media = media.small_reads();
    match &track.chunk {
        // The index is the whole track's, and this is only a part of it.
        Some(chunk) => {
            found.header = (list.map_bytes, 0);
            if let Err(what) = same_header(chunk, &list, &mut media, inputs)? {
                problems.add(name, what);
            }
        }
        None => match index(&list, &mut media)? {
            Ok(bytes) => found.header = (list.map_bytes, bytes),
            Err(what) => problems.add(name, what),
        },
    }
    playlist(track, segment_ms, &list, found.header.1, len, problems);
    if problems.0.len() == before {
        boxes(name, &list, &mut media, problems)?;
    }
    // Samples are placed by the playlist's byte ranges, which make no sense beyond here if they are wrong.
    if problems.0.len() > before || problems.is_full() {
        return Ok(found);
    }
    found.largest_rate = largest_rate(&list);
    let Counted { packets, frames, duration_ms, codecs } =
        samples::check(track, segment_ms, &list, inputs, problems, progress)?;
    let listed = codecs.clone().filter(|_| listed).map(|codecs| ListedTrack {
        header: list.map_bytes,
        first: list.map_bytes.saturating_add(found.header.1),
        codecs,
        segments: list.segments.iter().map(|s| ListedSegment { micros: s.micros, bytes: s.bytes }).collect(),
    });
    found.counted = CheckedTrack { packets, frames_decoded: frames, duration_ms, listed };
    found.codecs = codecs;
    let planned = track.expect.duration_ms();
    if duration_ms.abs_diff(planned) > DURATION_TOLERANCE_MS {
        problems.add(name, format!("it lasts {duration_ms} ms instead of {planned}"));
    }
    if let ExpectTrack::Video { frames: planned, .. } = &track.expect
        && packets != *planned
    {
        problems.add(name, format!("it has {packets} frames instead of {planned}"));
    }
    Ok(found)
}

/// The playlist against the file's length: every byte belongs to exactly one range.
fn playlist(
    track: &CheckTrack,
    segment_ms: u32,
    list: &Media,
    index_bytes: u64,
    len: u64,
    problems: &mut Problems,
) {
    let name = track.playlist_uri.as_str();
    if list.segments.is_empty() {
        problems.add(name, "it has no segments");
    }
    if list.map_uri != track.media_uri || list.segments.iter().any(|s| s.uri != track.media_uri) {
        problems.add(name, format!("it names another file than {}", track.media_uri));
    }
    let mut at = list.map_bytes.saturating_add(index_bytes);
    for (index, segment) in list.segments.iter().enumerate() {
        if segment.offset != at || segment.bytes == 0 {
            problems.add(name, format!("segment {index} starts at {} instead of {at}", segment.offset));
            return;
        }
        at = at.saturating_add(segment.bytes);
        if segment.micros.saturating_add(500_000) / 1_000_000 > list.target_seconds || segment.micros == 0 {
            problems.add(
                name,
                format!(
                    "segment {index} lasts {} µs, the target is {} s",
                    segment.micros, list.target_seconds
                ),
            );
        }
    }
    if at != len {
        problems.add(name, format!("its ranges end at {at}, the file at {len}"));
    }
    // A source that shows one picture for minutes has segments that long; it cannot be asked for shorter ones.
    if list.target_seconds.saturating_mul(1_000) < u64::from(segment_ms) / 2 && list.segments.len() > 2 {
        problems.add(name, format!("its target of {} s is not what was planned", list.target_seconds));
    }
}

/// The index behind the header, which DASH players use: its length, once it says of each segment what the playlist says.
fn index(list: &Media, media: &mut Input) -> Result<Result<u64, String>, Failure> {
    const MICRO: u64 = 1_000_000;
    // Length, kind, version; reference, scale, two times of 64 bits; a count.
    let Ok(head) = read(media, list.map_bytes, 40)? else { return Ok(Err("it has no index".into())) };
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |w| u64::from(u32::from_be_bytes(*w)))
    };
    let (size, scale, count) = (word(&head, 0), word(&head, 16), word(&head, 36));
    let expected = 40u64.saturating_add((list.segments.len() as u64).saturating_mul(12));
    let fixed = head.get(4..16) == Some(b"sidx\x01\0\0\0\0\0\0\x01") && head.get(20..36) == Some(&[0; 16]);
    if !fixed || scale == 0 || size != expected || count != list.segments.len() as u64 {
        return Ok(Err("its index is not one of these segments".into()));
    }
    let rows = usize::try_from(size.saturating_sub(40)).unwrap_or(0);
    let Ok(rows) = read(media, list.map_bytes.saturating_add(40), rows)? else {
        return Ok(Err("its index is cut".into()));
    };
    for (number, (row, segment)) in rows.chunks_exact(12).zip(&list.segments).enumerate() {
        let micros = word(row, 4).saturating_mul(MICRO).checked_div(scale).unwrap_or(0);
        // A tick and the playlist's rounding.
        let lasts = micros.abs_diff(segment.micros) <= 100;
        if word(row, 0) != segment.bytes || !lasts || word(row, 8) != 0x9000_0000 {
            return Ok(Err(format!("its index and its playlist differ about segment {number}")));
        }
    }
    Ok(Ok(size))
}

/// A chunk's header has to be that of the first one, which a player keeps for all.
fn same_header(
    chunk: &CheckChunk,
    list: &Media,
    media: &mut Input,
    inputs: &Inputs,
) -> Result<Result<(), String>, Failure> {
    let Some(like) = chunk.like else { return Ok(Ok(())) };
    let mut first = inputs.get(like)?.small_reads();
    let len = usize::try_from(list.map_bytes).ok().filter(|len| *len <= MAX_HEADER);
    let Some(len) = len else { return Ok(Err("its header is too long".into())) };
    let (own, other) = (read(media, 0, len)?, read(&mut first, 0, len)?);
    Ok(if own.is_ok() && own == other {
        Ok(())
    } else {
        Err("its header is not that of the first chunk".into())
    })
}

/// Reads bytes that must be there.
fn read(media: &mut Input, start: u64, len: usize) -> Result<Result<Vec<u8>, ()>, Failure> {
    let mut out = vec![0; len];
    let mut got = 0usize;
    while let Some(rest) = out.get_mut(got..).filter(|r| !r.is_empty()) {
        match media.read_at(start.saturating_add(got as u64), rest) {
            Ok(0) => return Ok(Err(())),
            Ok(n) => got = got.saturating_add(n),
            Err(_) => return Err(source::storage()),
        }
    }
    Ok(Ok(out))
}

/// Top-level boxes: `ftyp` and `moov` fill the map, `moof` and `mdat` fill each segment, and nothing else is anywhere.
fn boxes(name: &str, list: &Media, media: &mut Input, problems: &mut Problems) -> Result<(), Failure> {
    let init = expect_boxes(media, 0, list.map_bytes, &[*b"ftyp", *b"moov"])?;
    if let Err(what) = init {
        problems.add(name, what);
        return Ok(());
    }
    for segment in &list.segments {
        if let Err(what) = expect_boxes(media, segment.offset, segment.bytes, &[*b"moof", *b"mdat"])? {
            problems.add(name, what);
            return Ok(());
        }
    }
    Ok(())
}

fn expect_boxes(
    media: &mut Input,
    start: u64,
    len: u64,
    kinds: &[[u8; 4]],
) -> Result<Result<(), String>, Failure> {
    let end = start.saturating_add(len);
    let mut at = start;
    for kind in kinds {
        let header = read(media, at, 8)?;
        let Some([s0, s1, s2, s3, k0, k1, k2, k3]) = header.ok().and_then(|h| h.first_chunk::<8>().copied())
        else {
            return Ok(Err(format!("it ends at {at}, inside a box")));
        };
        let size = u64::from(u32::from_be_bytes([s0, s1, s2, s3]));
        let found = [k0, k1, k2, k3];
        if found != *kind || size < 8 {
            return Ok(Err(format!(
                "at {at} there is {} of {size} bytes instead of {}",
                String::from_utf8_lossy(&found),
                String::from_utf8_lossy(kind)
            )));
        }
        at = at.saturating_add(size);
    }
    Ok(if at == end { Ok(()) } else { Err(format!("the boxes from {start} end at {at} instead of {end}")) })
}

fn largest_rate(list: &Media) -> u64 {
    let half = list.target_seconds.saturating_mul(500_000);
    let rates = list.segments.iter().filter(|s| s.micros >= half).map(|s| {
        let bits = u128::from(s.bytes).saturating_mul(8_000_000);
        // A playlist states whole microseconds; a bit per second less is no lie.
        u64::try_from(bits.checked_div(u128::from(s.micros)).unwrap_or(0))
            .unwrap_or(u64::MAX)
            .saturating_mul(999)
            / 1_000
    });
    rates.max().unwrap_or(0)
}
