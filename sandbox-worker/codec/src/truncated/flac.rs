//! FLAC states how many samples it holds, and each frame which of them are its own (RFC 9639, 8.2 and 9.1).

use super::{bytes, tail};
use crate::ff::io::ReadAt;
use std::collections::BTreeSet;

/// What of the end is looked at: several frames, the largest of which are tens of kilobytes.
const TAIL: usize = 256 << 10;

/// The stream information, so far as it is about frames.
struct Stream {
    block: u64,
    rate: u64,
    channels: u8,
    total: u64,
}

/// A frame's header: the first of its samples, and how many it has.
struct Frame {
    at: usize,
    first: u64,
    samples: u64,
}

/// A file whose last frame is not whole, or not the last that was written.
pub(super) fn flac(source: &mut dyn ReadAt) -> Option<String> {
    let stream = Stream::read(&bytes::<42>(source, 0)?)?;
    let (_, end) = tail(source, TAIL);
    // Bytes within a frame may look like a header, but not go on where another frame ended.
    let mut ends = BTreeSet::from([0]);
    let mut last = None;
    for frame in (0..end.len()).filter_map(|at| stream.frame(&end, at)) {
        ends.insert(frame.first.saturating_add(frame.samples));
        if ends.contains(&frame.first) {
            last = Some(frame);
        }
    }
    let last = last?;
    let reached = last.first.saturating_add(last.samples);
    let there = if is_whole(end.get(last.at..)?) { reached } else { last.first };
    (there < stream.total).then(|| {
        format!("the FLAC is cut off: {there} of {} samples are there in whole frames", stream.total)
    })
}

impl Stream {
    fn read(head: &[u8; 42]) -> Option<Self> {
        let [b'f', b'L', b'a', b'C', kind, _, _, 34, info @ ..] = head else { return None };
        let [_, _, low, high, .., a, b, c, d, e, f, g, h] = info.first_chunk::<18>()?;
        let packed = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let total = packed & 0xf_ffff_ffff;
        // What writes to a pipe cannot know.
        (kind & 0x7f == 0 && total > 0).then_some(Self {
            block: u64::from(u16::from_be_bytes([*low, *high])),
            rate: packed >> 44,
            channels: u8::try_from(packed >> 41 & 7).ok()?.saturating_add(1),
            total,
        })
    }

    /// The header of a frame of this stream, if one stands there.
    fn frame(&self, bytes: &[u8], at: usize) -> Option<Frame> {
        let head = bytes.get(at..)?;
        let [0xff, strategy, sizes, layout, ..] = head else { return None };
        let channels = match layout >> 4 {
            n @ 0..=7 => n.saturating_add(1),
            8..=10 => 2,
            _ => return None,
        };
        if strategy & 0xfe != 0xf8 || layout & 1 != 0 || channels != self.channels {
            return None;
        }
        let (number, mut length) = coded_number(head.get(4..)?)?;
        length = length.checked_add(4)?;
        let mut big_endian = |count: usize| {
            let value = head.get(length..length.checked_add(count)?)?;
            length = length.checked_add(count)?;
            Some(value.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let samples = match sizes >> 4 {
            0 => return None,
            1 => 192,
            n @ 2..=5 => 144u64.checked_shl(u32::from(n))?,
            6 => big_endian(1)?.saturating_add(1),
            7 => big_endian(2)?.saturating_add(1),
            n => 1u64.checked_shl(u32::from(n))?,
        };
        let rate = match sizes & 15 {
            n @ 0..=11 => [
                self.rate, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
                96_000,
            ]
            .get(usize::from(n))
            .copied()?,
            12 => big_endian(1)?.saturating_mul(1_000),
            13 => big_endian(2)?,
            14 => big_endian(2)?.saturating_mul(10),
            _ => return None,
        };
        let sum = crc(head.get(..length)?, 8, 0x07);
        let first = if strategy & 1 == 0 { number.checked_mul(self.block)? } else { number };
        (rate == self.rate && u64::from(*head.get(length)?) == sum && first < self.total).then_some(Frame {
            at,
            first,
            samples,
        })
    }
}

/// A number as UTF-8 codes one, but of up to 36 bits; and its bytes.
fn coded_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let ones = first.leading_ones();
    let more = match ones {
        0 => return Some((u64::from(first), 1)),
        2..=7 => usize::try_from(ones).ok()?.saturating_sub(1),
        _ => return None,
    };
    let rest = bytes.get(1..=more)?;
    let start = u64::from(first) & 0x7fu64.checked_shr(ones)?;
    let number = rest
        .iter()
        .try_fold(start, |sum, byte| (byte & 0xc0 == 0x80).then_some(sum << 6 | u64::from(byte & 0x3f)))?;
    Some((number, more.saturating_add(1)))
}

/// Whether a frame ends with its check sum at the end of the file, or before a tag.
fn is_whole(frame: &[u8]) -> bool {
    let tag = frame.windows(3).rposition(|w| w == b"TAG");
    let ape = frame.windows(8).rposition(|w| w == b"APETAGEX");
    let whole = |end| frame.get(..end).is_some_and(|frame| frame.len() > 2 && crc(frame, 16, 0x8005) == 0);
    [Some(frame.len()), tag, ape].into_iter().flatten().any(whole)
}

/// A check sum of so many bits, at least eight, that begins with nought. Over data with its sum behind it, it is nought.
fn crc(bytes: &[u8], bits: u32, polynomial: u64) -> u64 {
    // As if they were the upper bits of 64.
    let polynomial = polynomial.wrapping_shl(64u32.saturating_sub(bits));
    let sum = bytes.iter().fold(0u64, |sum, byte| {
        let sum = sum ^ u64::from(*byte) << 56;
        (0..8).fold(sum, |sum, _| sum << 1 ^ if sum >> 63 == 0 { 0 } else { polynomial })
    });
    sum.wrapping_shr(64u32.saturating_sub(bits))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::super::tests::said;
    use super::*;

    /// A frame of 4096 samples of 16 bits in two channels at 44.1 kHz, or of fewer.
    fn frame(number: u8, samples: u16) -> Vec<u8> {
        let mut out = vec![0xff, 0xf8, 0xc9, 0x18, number];
        if samples != 4_096 {
            out[2] = 0x79;
            out.extend((samples - 1).to_be_bytes());
        }
        out.push(crc(&out, 8, 7) as u8);
        out.extend((0..500u32).map(|n| (n * 7 + u32::from(number)) as u8));
        let sum = crc(&out, 16, 0x8005) as u16;
        out.extend(sum.to_be_bytes());
        out
    }

    fn file(total: u64, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
        out.extend((44_100u64 << 44 | 1 << 41 | 15 << 36 | total).to_be_bytes());
        out.extend([7; 16]);
        frames.iter().for_each(|f| out.extend(f));
        out
    }

    #[test]
    fn a_flac_that_lacks_samples_is_cut() {
        let frames: Vec<_> = (0..20).map(|n| frame(n, 4_096)).chain([frame(20, 100)]).collect();
        let total = 20 * 4_096 + 100;
        let whole = file(total, &frames);
        assert_eq!(said("flac", &whole), None);
        assert_eq!(said("flac", &file(0, &frames[..9])), None, "what writes to a pipe states no number");
        // A tag behind it is not sound.
        for tag in [&[&b"TAG"[..], &[b' '; 125]].concat()[..], b"APETAGEX\xd0\x07\0\0 and more"] {
            assert_eq!(said("flac", &[&whole[..], tag].concat()), None);
        }
        let cut = |bytes: &[u8]| said("flac", bytes).unwrap_or_default();
        // Inside the last frame, by as little as a byte; at the end of a frame; and inside one.
        let lacks = |samples: u64| {
            format!("the FLAC is cut off: {samples} of {total} samples are there in whole frames")
        };
        assert_eq!(cut(&whole[..whole.len() - 1]), lacks(20 * 4_096));
        assert_eq!(cut(&file(total, &frames[..20])), lacks(20 * 4_096));
        assert_eq!(cut(&file(total, &frames[..1])), lacks(4_096));
        let half = file(total, &frames[..10]);
        assert_eq!(cut(&half[..half.len() - 200]), lacks(9 * 4_096));
        // What looks like a header within the last frame does not go on from any other.
        let mut decoy = frame(20, 100);
        let stray = &frame(3, 4_096)[..6];
        decoy.splice(100..100 + stray.len(), stray.iter().copied());
        let end = decoy.len() - 2;
        let sum = (crc(&decoy[..end], 16, 0x8005) as u16).to_be_bytes();
        decoy[end..].copy_from_slice(&sum);
        assert_eq!(said("flac", &file(total, &[&frames[10..20], &[decoy]].concat())), None);
    }
}
