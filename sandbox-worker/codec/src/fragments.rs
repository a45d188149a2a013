//! The fragments of a fragmented MP4: where they are, when they start, and how long the last sample lasts, which FFmpeg's
//! demuxer does not tell for tracks with composition offsets. Reads a hostile file: everything is bounded, nothing is trusted.

use crate::ff::io::ReadAt;
use crate::source;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::limits;

/// Bytes of one `moof`: room for a segment of 260,000 frames.
const MAX_MOOF: u64 = 4 << 20;

/// One fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Samples.
    pub(crate) samples: u64,
    /// Their bytes.
    pub(crate) payload: u64,
    /// Presentation time of its first sample, in ticks since the first decoding time.
    pub(crate) start: i64,
    /// When the last sample that is shown ends, on the same clock.
    pub(crate) end: i64,
    /// Duration of its last sample, in ticks.
    last: i64,
}

/// All fragments, in order. `None` where the boxes do not say.
///
/// # Errors
/// Only where the input could not be read.
pub(crate) fn all(file: &mut dyn ReadAt) -> Result<Option<Vec<Fragment>>, Failure> {
    let mut found = Vec::new();
    for (start, size) in places(file)?.unwrap_or_default() {
        let moof = read(file, start, usize::try_from(size).unwrap_or(0))?;
        let Some(fragment) = parse(&moof) else { return Ok(None) };
        found.push(fragment);
    }
    Ok(Some(found).filter(|f| !f.is_empty()))
}

/// Duration of the last sample of the last fragment, in ticks. `None` where the boxes do not say.
///
/// # Errors
/// Only where the input could not be read.
pub(crate) fn last_duration(file: &mut dyn ReadAt) -> Result<Option<i64>, Failure> {
    let Some((start, size)) = places(file)?.and_then(|p| p.last().copied()) else { return Ok(None) };
    let moof = read(file, start, usize::try_from(size).unwrap_or(0))?;
    Ok(parse(&moof).map(|f| f.last))
}

/// Where each `moof` is, and its length.
fn places(file: &mut dyn ReadAt) -> Result<Option<Vec<(u64, u64)>>, Failure> {
    let (mut at, mut found) = (0u64, Vec::new());
    // Header, index, and two boxes for each segment.
    for _ in 0..limits::MAX_SEGMENTS.saturating_mul(2).saturating_add(5) {
        if at >= file.len() {
            break;
        }
        let header = read(file, at, 8)?;
        let Some((size, kind)) = box_header(&header) else { return Ok(None) };
        if &kind == b"moof" {
            if size > MAX_MOOF {
                return Ok(None);
            }
            found.push((at, size));
        }
        at = at.saturating_add(size);
    }
    Ok(Some(found))
}

fn parse(moof: &[u8]) -> Option<Fragment> {
    let traf = child(moof.get(8..)?, b"traf")?;
    let (trun, tfdt) = (child(traf, b"trun")?, child(traf, b"tfdt")?);
    let base = i64::try_from(u64::from_be_bytes(tfdt.get(4..12)?.try_into().ok()?)).ok()?;
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(trun.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let flags = word(0)?;
    // Duration and size for each sample, flags and offset for video; and the place of the data.
    let row = match flags & 0x00ff_ffff {
        0xf01 => 16usize,
        0x301 => 8,
        _ => return None,
    };
    let count = usize::try_from(word(4)?).ok()?;
    let rows = trun.get(12..)?;
    if count == 0 || rows.len() != count.checked_mul(row)? {
        return None;
    }
    let last = count.checked_sub(1)?.checked_mul(row)?.checked_add(12)?;
    let last = word(last).map(i64::from).filter(|d| *d > 0)?;
    let sizes = rows.chunks_exact(row).filter_map(|r| r.get(4..8)?.first_chunk::<4>());
    let payload = sizes.map(|s| u64::from(u32::from_be_bytes(*s))).fold(0, u64::saturating_add);
    let number =
        |r: &[u8], at: usize| r.get(at..).and_then(|r| r.first_chunk::<4>()).map(|w| u32::from_be_bytes(*w));
    let (mut decode, mut start, mut shown) = (base, None, base);
    for sample in rows.chunks_exact(row) {
        let offset = if row == 16 { i64::from(number(sample, 12)?.cast_signed()) } else { 0 };
        let time = decode.saturating_add(offset);
        start.get_or_insert(time);
        shown = shown.max(time);
        decode = decode.saturating_add(i64::from(number(sample, 0)?));
    }
    let (samples, end) = (u64::try_from(count).ok()?, shown.saturating_add(last));
    Some(Fragment { samples, payload, start: start.unwrap_or(base), end, last })
}

/// What is in each box of a kind, in order; what follows a broken one is left out.
pub(crate) fn children<'a>(mut boxes: &'a [u8], wanted: &[u8; 4]) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    while let Some((size, kind)) = box_header(boxes) {
        let Some((this, rest)) = usize::try_from(size).ok().and_then(|s| boxes.split_at_checked(s)) else {
            break;
        };
        if &kind == wanted {
            found.extend(this.get(8..));
        }
        boxes = rest;
    }
    found
}

/// What is in the first box of a kind.
pub(crate) fn child<'a>(mut boxes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    loop {
        let (size, kind) = box_header(boxes)?;
        let (this, rest) = boxes.split_at_checked(usize::try_from(size).ok()?)?;
        if &kind == wanted {
            return this.get(8..);
        }
        boxes = rest;
    }
}

fn box_header(bytes: &[u8]) -> Option<(u64, [u8; 4])> {
    let size = u64::from(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?));
    let kind = bytes.get(4..8)?.try_into().ok()?;
    (size >= 8).then_some((size, kind))
}

fn read(file: &mut dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>, Failure> {
    let mut out = vec![0; len];
    let mut got = 0usize;
    while let Some(rest) = out.get_mut(got..).filter(|r| !r.is_empty()) {
        match file.read_at(at.saturating_add(got as u64), rest) {
            Ok(0) => break,
            Ok(n) => got = got.saturating_add(n),
            Err(_) => return Err(source::storage()),
        }
    }
    out.truncate(got);
    Ok(out)
}
