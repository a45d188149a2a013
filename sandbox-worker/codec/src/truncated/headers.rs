//! Containers that state a size: their own, or that of a part.

use super::{MAX_PARTS, bytes, read, short_of};
use crate::ff::io::ReadAt;

/// The GUID that an ASF file begins with.
pub(super) const ASF_HEADER: [u8; 16] =
    [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c];
const ASF_DATA: [u8; 16] =
    [0x36, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c];
const ASF_FILE_PROPERTIES: [u8; 16] =
    [0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11, 0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65];

/// No index (`moov`) at all, or a top-level box that reaches past the end.
pub(super) fn mp4(source: &mut dyn ReadAt) -> Option<String> {
    let len = source.len();
    let mut at = 0u64;
    let (mut index, mut boxes, mut last) = (false, 0u32, [0u8; 4]);
    while at < len && boxes < MAX_PARTS {
        let mut header = [0u8; 16];
        let got = read(source, at, &mut header);
        let header = header.get(..got)?;
        let kind: [u8; 4] = header.get(4..8)?.try_into().ok()?;
        let size = match u32::from_be_bytes(header.get(..4)?.try_into().ok()?) {
            0 => len.saturating_sub(at),
            1 => u64::from_be_bytes(header.get(8..16)?.try_into().ok()?),
            n => u64::from(n),
        };
        if size < 8 {
            return None;
        }
        index |= &kind == b"moov";
        let end = at.saturating_add(size);
        if end > len {
            let name = String::from_utf8_lossy(&kind).into_owned();
            return Some(format!("the MP4 ends inside its box {name}: {len} of {end} bytes are there"));
        }
        (at, last) = (end, kind);
        boxes = boxes.saturating_add(1);
    }
    if &last == b"moof" && at == len {
        return Some("the MP4 ends between a fragment's header and its data".to_owned());
    }
    (!index).then(|| "the MP4 has no index (moov): it was cut off, or never finished".to_owned())
}

/// Large ones are several `RIFF` chunks; recorders that were stopped leave sizes of nothing or everything.
pub(super) fn avi(source: &mut dyn ReadAt) -> Option<String> {
    let len = source.len();
    let mut at = 0u64;
    for _ in 0..1_000 {
        let [r, i, f, g, size @ ..] = bytes::<8>(source, at)?;
        let size = u32::from_le_bytes(size);
        if [r, i, f, g] != *b"RIFF" || matches!(size, 0 | u32::MAX) {
            return None;
        }
        let end = at.saturating_add(8).saturating_add(u64::from(size));
        // What is stated is about this chunk; the ones before it are there.
        let missing = end.saturating_sub(len);
        if missing > u64::from(size) / 100 {
            return short_of("AVI", end, len).or_else(|| {
                Some(format!("the AVI is cut off in its last part: {len} of {end} bytes are there"))
            });
        }
        at = end.saturating_add(end & 1);
    }
    None
}

/// The samples' chunk states its size, else the whole file does: RIFF, RIFX (the other way round), RF64 and BW64 (of 64 bits).
pub(super) fn wav(source: &mut dyn ReadAt) -> Option<String> {
    let head = bytes::<12>(source, 0)?;
    let (form, kind) = (head.get(..4)?, head.get(8..12)?);
    let other_way_round = form == b"RIFX";
    if kind != b"WAVE" || !matches!(form, b"RIFF" | b"RIFX" | b"RF64" | b"BW64") {
        return None;
    }
    let number = |of: [u8; 4]| if other_way_round { u32::from_be_bytes(of) } else { u32::from_le_bytes(of) };
    let riff = number(head.get(4..8)?.try_into().ok()?);
    let (mut whole, mut wide_samples) = (stated(riff), None);
    let mut at = 12u64;
    for _ in 0..MAX_PARTS {
        let Some([a, b, c, d, size @ ..]) = bytes::<8>(source, at) else { break };
        let (name, size) = ([a, b, c, d], number(size));
        let content = at.saturating_add(8);
        if &name == b"ds64" {
            let sizes = bytes::<16>(source, content)?;
            let wide = |from: &[u8]| Some(u64::from_le_bytes(from.try_into().ok()?)).filter(|n| *n > 0);
            whole = wide(sizes.get(..8)?);
            wide_samples = wide(sizes.get(8..)?);
        }
        if &name == b"data" {
            let samples = wide_samples.filter(|_| size == u32::MAX).or(stated(size))?;
            return short_of("WAV", content.checked_add(samples)?, source.len());
        }
        at = content.saturating_add(u64::from(size)).saturating_add(u64::from(size & 1));
    }
    // Cut off before its samples, or none of it is what it seems.
    short_of("WAV", whole?.checked_add(8)?, source.len())
}

/// A chunk's size, unless it says nothing: what writes to a pipe cannot come back to fill it in, and leaves nothing or a limit, 2 or
/// 4 GiB, that it keeps a page's distance of at most.
fn stated(size: u32) -> Option<u64> {
    (!matches!(size, 0 | 0x7fff_f000..=0x8000_0fff | 0xffff_f000..)).then_some(u64::from(size))
}

/// File properties state the size of the file, and the data object its own ("Advanced Systems Format Specification", 3.2 and 5.1).
/// Of a broadcast neither is true.
pub(super) fn asf(source: &mut dyn ReadAt) -> Option<String> {
    const PROPERTIES: usize = 92;
    let [guid @ .., _, _, _, _, _, _] = bytes::<30>(source, 0)?;
    if !guid.starts_with(&ASF_HEADER) {
        return None;
    }
    let header = u64::from_le_bytes(guid.get(16..24)?.try_into().ok()?);
    let mut file = 0u64;
    let mut at = 30u64;
    for _ in 0..MAX_PARTS {
        let Some(object) = bytes::<24>(source, at).filter(|_| at.saturating_add(24) <= header) else { break };
        let size = u64::from_le_bytes(object.get(16..)?.try_into().ok()?);
        if object.starts_with(&ASF_FILE_PROPERTIES) {
            let properties = bytes::<PROPERTIES>(source, at)?;
            let broadcast = properties.get(88).is_some_and(|flags| flags & 1 != 0);
            if broadcast {
                return None;
            }
            file = u64::from_le_bytes(properties.get(40..48)?.try_into().ok()?);
        }
        if size < 24 {
            return None;
        }
        at = at.saturating_add(size);
    }
    let data = bytes::<24>(source, header)
        .filter(|data| data.starts_with(&ASF_DATA))
        .and_then(|data| Some(u64::from_le_bytes(data.get(16..)?.try_into().ok()?)));
    let data = data.filter(|size| *size > 0).map_or(0, |size| header.saturating_add(size));
    short_of("ASF", file.max(data), source.len())
}

/// The first frame of most encoders is empty, and states how many bytes follow it: `Xing` or `Info` behind the frame's side
/// information, `VBRI` at a fixed place.
pub(super) fn mp3(source: &mut dyn ReadAt) -> Option<String> {
    let mut first = 0u64;
    // One tag in front, or several by mistake.
    for _ in 0..8 {
        let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = bytes::<10>(source, first) else { break };
        let size = size.iter().fold(0u64, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        let footer = if flags & 0x10 == 0 { 10 } else { 20 };
        first = first.checked_add(size)?.checked_add(footer)?;
    }
    let [sync, version, _, mode] = bytes::<4>(source, first)?;
    // Eleven bits of ones, and layer III.
    if sync != 0xff || version & 0xe0 != 0xe0 || version & 6 != 2 {
        return None;
    }
    let (mpeg1, mono) = (version & 0x18 == 0x18, mode >> 6 == 3);
    let side = match (mpeg1, mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    let tag = first.checked_add(4)?.checked_add(side)?;
    let stated = match bytes::<8>(source, tag)? {
        [b'X', b'i', b'n', b'g', flags @ ..] | [b'I', b'n', b'f', b'o', flags @ ..] => {
            let flags = u32::from_be_bytes(flags);
            let frames = if flags & 1 == 0 { 0 } else { 4 };
            let at = tag.checked_add(8)?.checked_add(frames)?;
            (flags & 2 != 0).then_some(at)?
        }
        _ => {
            let tag = first.checked_add(36)?;
            let name = bytes::<4>(source, tag)?;
            (&name == b"VBRI").then(|| tag.checked_add(10))??
        }
    };
    let stated = u64::from(u32::from_be_bytes(bytes(source, stated)?));
    short_of("MP3", first.checked_add(stated)?, source.len())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn an_mp4_without_its_index_is_truncated() {
        let mp4 = |bytes: &[u8]| said("mov", bytes).unwrap();
        assert!(mp4(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x10mdat").contains("mdat: 24 of 32 bytes"));
        assert!(mp4(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08mdat").contains("moov"));
        assert!(mp4(b"\0\0\0\x08moov\0\0\0\x08moof").contains("fragment"));
    }

    #[test]
    fn an_avi_that_lacks_more_than_a_hundredth_is_cut() {
        let avi = |size: u32, len: usize| {
            let mut bytes = [&b"RIFF"[..], &size.to_le_bytes(), b"AVI "].concat();
            bytes.resize(len, 0);
            said("avi", &bytes)
        };
        assert_eq!(avi(992, 1_000), None);
        assert_eq!(avi(1_000, 1_000), None);
        assert_eq!(avi(1_192, 1_000).unwrap(), "the AVI is cut off: 1000 of 1200 bytes are there");
        assert_eq!(avi(0, 1_000).or(avi(u32::MAX, 1_000)), None);
    }

    fn chunk(name: &[u8; 4], size: u32, content: &[u8]) -> Vec<u8> {
        [&name[..], &size.to_le_bytes(), content].concat()
    }

    /// A WAV whose samples say that they are so many, and of which so many are there.
    fn wav_of(samples: u32, there: usize) -> Vec<u8> {
        let data = chunk(b"data", samples, &vec![1; there]);
        let rest = [&b"WAVE"[..], &chunk(b"fmt ", 16, &[0; 16]), &chunk(b"LIST", 3, &[0; 4]), &data].concat();
        chunk(b"RIFF", rest.len() as u32, &rest)
    }

    #[test]
    fn a_wav_that_lacks_more_than_a_hundredth_of_its_samples_is_cut() {
        let wav = |bytes: &[u8]| said("wav", bytes);
        let whole = wav_of(1_000, 1_000);
        assert_eq!(wav(&whole), None);
        // A tag behind the samples is not missed.
        assert_eq!(wav(&[&whole[..], &chunk(b"LIST", 900, &[0; 10])].concat()), None);
        assert_eq!(wav(&whole[..whole.len() - 9]), None);
        let cut = wav(&whole[..whole.len() - 400]).unwrap();
        assert_eq!(cut, "the WAV is cut off: 656 of 1056 bytes are there");
        // Cut off before the samples.
        assert!(wav(&whole[..40]).is_some());
        // What writes to a pipe leaves these.
        for unsaid in [0, 0x7fff_f000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffd7, u32::MAX] {
            assert_eq!(wav(&wav_of(unsaid, 1_000)), None, "{unsaid:#x}");
        }
        // The other way round.
        let mut rifx = whole.clone();
        rifx[..4].copy_from_slice(b"RIFX");
        for at in [4, 16, 40, 52] {
            rifx[at..at + 4].reverse();
        }
        assert_eq!(wav(&rifx), None);
        assert!(wav(&rifx[..800]).is_some());
    }

    #[test]
    fn a_wav_of_64_bits_states_its_size_elsewhere() {
        for name in [b"RF64", b"BW64"] {
            let file = |samples: u64| {
                let sizes = [2_000_u64.to_le_bytes(), samples.to_le_bytes(), [0; 8]].concat();
                let mut out = chunk(name, u32::MAX, b"WAVE");
                out.extend(chunk(b"ds64", 24, &sizes));
                out.extend(chunk(b"data", u32::MAX, &[0; 1_000]));
                out
            };
            assert_eq!(said("wav", &file(1_000)), None);
            assert!(said("wav", &file(5_000_000_000)).unwrap().contains("of 5000000052 bytes"));
            assert_eq!(said("wav", &file(u64::MAX)), None);
        }
    }

    /// A file that says that it and its data have these sizes.
    fn asf_of(file: u64, data: u64, flags: u8, there: usize) -> Vec<u8> {
        let mut properties = [&ASF_FILE_PROPERTIES[..], &104_u64.to_le_bytes()].concat();
        properties.resize(104, 0);
        properties[40..48].copy_from_slice(&file.to_le_bytes());
        properties[88] = flags;
        // Some other object stands before it.
        let other = [&[7; 16][..], &30_u64.to_le_bytes(), &[0; 6]].concat();
        let header = 30 + other.len() + properties.len();
        let mut out = [&ASF_HEADER[..], &(header as u64).to_le_bytes(), &[2, 0, 0, 0, 1, 2]].concat();
        out.extend([other, properties].concat());
        out.extend([&ASF_DATA[..], &data.to_le_bytes()].concat());
        out.resize(there, 0);
        out
    }

    #[test]
    fn an_asf_that_is_smaller_than_it_states_is_cut_unless_it_was_broadcast() {
        let asf = |file, data, flags, there| said("asf", &asf_of(file, data, flags, there));
        assert_eq!(asf(1_000, 836, 2, 1_000), None);
        assert_eq!(asf(1_000, 836, 2, 995), None);
        let cut = "the ASF is cut off: 500 of 1000 bytes are there";
        assert_eq!(asf(1_000, 836, 2, 500).unwrap(), cut);
        // One of the two is enough.
        assert_eq!(asf(0, 836, 2, 500).unwrap(), cut);
        assert_eq!(asf(1_000, 0, 2, 500).unwrap(), cut);
        assert_eq!(asf(0, 0, 2, 500), None);
        assert_eq!(asf(1_000, 836, 3, 500), None);
    }

    fn mp3_of(head: [u8; 4], side: usize, tag: &[u8], there: usize) -> Vec<u8> {
        let mut out = b"ID3\x04\0\0\0\0\x01\x02".to_vec();
        out.resize(out.len() + 130, 0);
        out.extend(head);
        out.resize(out.len() + side, 0);
        out.extend(tag);
        out.resize(140 + there, 0);
        out
    }

    #[test]
    fn an_mp3_that_is_smaller_than_its_encoder_wrote_is_cut() {
        let stated = 1_000_u32.to_be_bytes();
        let xing = |flags: u8| [&b"Xing\0\0\0"[..], &[flags], &[0, 0, 0, 40], &stated].concat();
        let vbri = [&b"VBRI\0\x01\0\0\0\0"[..], &stated].concat();
        for (head, side, tag) in [
            ([0xff, 0xfb, 0x90, 0x00], 32, xing(3)),
            ([0xff, 0xfb, 0x90, 0xc0], 17, xing(3)),
            ([0xff, 0xf3, 0x90, 0x00], 17, xing(3)),
            ([0xff, 0xf3, 0x90, 0xc0], 9, xing(3)),
            ([0xff, 0xfb, 0x90, 0x00], 32, vbri),
        ] {
            assert_eq!(said("mp3", &mp3_of(head, side, &tag, 1_000)), None);
            // A tag behind it makes no difference.
            assert_eq!(said("mp3", &mp3_of(head, side, &tag, 1_128)), None);
            let cut = said("mp3", &mp3_of(head, side, &tag, 500)).unwrap();
            assert_eq!(cut, "the MP3 is cut off: 640 of 1140 bytes are there");
        }
        // Frames alone are counted, or nothing is.
        assert_eq!(said("mp3", &mp3_of([0xff, 0xfb, 0x90, 0], 32, &xing(1), 500)), None);
        assert_eq!(said("mp3", &mp3_of([0xff, 0xfb, 0x90, 0], 32, b"LAME", 500)), None);
    }
}
