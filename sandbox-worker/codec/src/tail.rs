//! The end of a fragmented MP4: how long its last sample lasts. FFmpeg's demuxer does not tell it for tracks with composition
//! offsets. Reads a hostile file: everything is bounded, nothing is trusted.

use crate::ff::io::ReadAt;
use crate::source;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::limits;

/// Bytes of one `moof`: room for a segment of 260,000 frames.
const MAX_MOOF: u64 = 4 << 20;

/// Duration of the last sample of the last fragment, in ticks. `None` where the boxes do not say.
///
/// # Errors
/// Only where the input could not be read.
pub(crate) fn last_duration(file: &mut dyn ReadAt) -> Result<Option<i64>, Failure> {
    let (mut at, mut last) = (0u64, None);
    // Header, and two boxes for each segment.
    for _ in 0..limits::MAX_SEGMENTS.saturating_mul(2).saturating_add(4) {
        if at >= file.len() {
            break;
        }
        let header = read(file, at, 8)?;
        let Some((size, kind)) = box_header(&header) else { return Ok(None) };
        if &kind == b"moof" {
            last = Some((at, size));
        }
        at = at.saturating_add(size);
    }
    let Some((start, size)) = last.filter(|(_, size)| *size <= MAX_MOOF) else { return Ok(None) };
    let moof = read(file, start, usize::try_from(size).unwrap_or(0))?;
    Ok(parse(&moof))
}

fn parse(moof: &[u8]) -> Option<i64> {
    let traf = child(moof.get(8..)?, b"traf")?;
    let trun = child(traf, b"trun")?;
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
    word(last).map(i64::from).filter(|d| *d > 0)
}

fn child<'a>(mut boxes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
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
