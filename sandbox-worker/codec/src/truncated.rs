//! Whether an input is seen to have lost its end: by what its container states about its own size, or by an element that ends
//! in mid-air. FFmpeg takes most such files for whole ones, some of them because their headers no longer fit (ASF, MP3).
//!
//! | container | what tells |
//! |---|---|
//! | MP4, MOV | a top-level box, or the index that is missing |
//! | Matroska, WebM | the size of the segment; what stands behind the last picture may be missing |
//! | AVI, WAV, ASF, MP3 with a header of its encoder | the size that the header states; a hundredth may be missing |
//! | FLAC | the number of samples, and the last frame |
//! | FLV | the last tag, and the size that the first one states, of which a hundredth may be missing |
//! | MPEG-TS, MPEG-PS, Ogg, ADTS | the last packet, page or frame. A file that was cut between two cannot be told from a whole one |
//!
//! Everything here is read from hostile bytes, a bounded number of them, and says nothing (`None`) where they make no sense.

use crate::ff::io::ReadAt;

mod flac;
mod flv;
mod headers;
mod matroska;
mod packets;

/// What an input of this format (FFmpeg's name) that lost its end still holds, in words and numbers; `None` where it is whole or
/// cannot be told from a whole one.
pub(crate) fn says(format: &str, source: &mut dyn ReadAt) -> Option<String> {
    match format {
        "mov" => headers::mp4(source),
        "avi" => headers::avi(source),
        "wav" => headers::wav(source),
        "asf" => headers::asf(source),
        "mp3" => headers::mp3(source),
        "mpegts" => packets::transport_stream(source),
        "mpeg" => packets::program_stream(source),
        "ogg" => packets::ogg(source),
        "aac" => packets::adts(source),
        "flac" => flac::flac(source),
        "flv" => flv::flv(source),
        "matroska" => matroska::matroska(source),
        _ => None,
    }
}

/// Boxes, chunks, objects or elements that are looked at in one file.
const MAX_PARTS: u32 = 10_000;

/// `N` bytes at an offset; `None` where there are fewer.
fn bytes<const N: usize>(source: &mut dyn ReadAt, at: u64) -> Option<[u8; N]> {
    let mut out = [0; N];
    (read(source, at, &mut out) == N).then_some(out)
}

/// The last bytes, at most `most`, and where they begin.
fn tail(source: &mut dyn ReadAt, most: usize) -> (u64, Vec<u8>) {
    let len = usize::try_from(source.len()).unwrap_or(usize::MAX).min(most);
    let at = source.len().saturating_sub(len as u64);
    let mut out = vec![0; len];
    let got = read(source, at, &mut out);
    out.truncate(got);
    (at, out)
}

/// As much as there is; how much that was.
fn read(source: &mut dyn ReadAt, at: u64, out: &mut [u8]) -> usize {
    let mut got = 0usize;
    while let Some(rest) = out.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read_at(at.saturating_add(got as u64), rest) {
            Ok(n) if n > 0 => got = got.saturating_add(n),
            _ => break,
        }
    }
    got
}

/// The words for a file that states its size and lacks more than a hundredth of it: what a recorder writes last is often an index
/// or a tag that nobody misses.
fn short_of(what: &str, said: u64, there: u64) -> Option<String> {
    let missing = said.saturating_sub(there);
    (missing > said / 100).then(|| format!("the {what} is cut off: {there} of {said} bytes are there"))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::*;

    /// What is said of these bytes.
    pub(super) fn said(format: &str, bytes: &[u8]) -> Option<String> {
        says(format, &mut bytes.to_vec())
    }

    const FORMATS: [&str; 12] =
        ["mov", "matroska", "avi", "wav", "asf", "mp3", "mpegts", "mpeg", "ogg", "aac", "flac", "flv"];

    #[test]
    fn no_bytes_whatever_are_too_much() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for format in FORMATS {
            for fill in [0, 0x47, 0xff] {
                said(format, &vec![fill; 70_000]);
            }
            for _ in 0..200 {
                let mut file: Vec<u8> = (0..draw() % 3_000).map(|_| draw() as u8).collect();
                // Beginnings that lead further in, with sizes that cannot be.
                let begin: &[u8] = match draw() % 9 {
                    0 => b"RIFF\xff\xff\xff\x7fWAVEds64\xff\xff\xff\xff",
                    1 => &[&headers::ASF_HEADER[..], &u64::MAX.to_le_bytes(), &[0xff; 6]].concat(),
                    2 => b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
                    3 => b"\0\0\x01\xba\x44\0\0\x01\xe0\xff\xff",
                    4 => b"OggS\0\x04",
                    _ => b"\0\0\0\x01ftyp\xff\xff\xff\xff\xff\xff\xff\xff",
                };
                file.splice(0..0, begin.iter().copied());
                said(format, &file);
                file.reverse();
                said(format, &file);
            }
        }
    }

    #[test]
    fn what_states_nothing_is_taken_for_whole() {
        for format in FORMATS.into_iter().filter(|f| *f != "mov").chain(["mpegvideo"]) {
            assert_eq!(said(format, b""), None, "{format}");
            assert_eq!(said(format, &[0; 5_000]), None, "{format}");
        }
    }
}
