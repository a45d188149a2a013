//! Streams of packets or pages, whose last one has to be whole. What they lack nobody can say; how much is there, the clock does.

use super::{bytes, tail};
use crate::ff::io::ReadAt;
use std::collections::BTreeMap;

/// What of a program stream's end is looked at: many packs, which are 2 KiB as a rule.
const PROGRAM_TAIL: usize = 256 << 10;
/// The largest page of Ogg, and the header of another.
const OGG_TAIL: usize = 27 + 255 + 255 * 255 + 27;
/// Several of the largest frames of ADTS, which have 13 bits for their size.
const ADTS_TAIL: usize = 64 << 10;

/// A transport stream that ends inside a packet: writers write whole ones, so the rest got lost on the way.
pub(super) fn transport_stream(source: &mut dyn ReadAt) -> Option<String> {
    // Plain, with a time stamp before each packet (M2TS), and with check bytes after it.
    for (size, lead) in [(188u64, 0u64), (192, 4), (204, 0)] {
        let packets = Packets { size, lead, count: source.len().checked_div(size)? };
        let rest = source.len().checked_rem(size)?;
        let near_the_end = packets.count.saturating_sub(4)..packets.count;
        if packets.count < 8 || !(0..4).chain(near_the_end).all(|p| packets.header(source, p).is_some()) {
            continue;
        }
        // Where there is a packet's first byte, it is a packet; anything else is padding or a tag.
        let begins = bytes::<1>(source, packets.place(packets.count)) == Some([Packets::SYNC]);
        let good = packets.count.checked_mul(size)?;
        let what = "the transport stream ends inside a packet";
        return (rest > lead && begins).then(|| match packets.lasts_ms(source) {
            Some(ms) => format!("{what}: it is good to {ms} ms, {good} bytes of whole packets"),
            None => format!("{what}: {good} bytes of whole packets are there"),
        });
    }
    None
}

/// Where the packets of a transport stream are.
struct Packets {
    size: u64,
    lead: u64,
    count: u64,
}

impl Packets {
    const SYNC: u8 = 0x47;
    /// Packets at either end in which times are looked for: three quarters of a megabyte.
    const LOOK: u64 = 4_000;
    /// Streams whose times are compared.
    const MAX_STREAMS: usize = 64;

    fn place(&self, packet: u64) -> u64 {
        packet.saturating_mul(self.size).saturating_add(self.lead)
    }

    fn header(&self, source: &mut dyn ReadAt, packet: u64) -> Option<[u8; 4]> {
        bytes::<4>(source, self.place(packet)).filter(|[sync, ..]| *sync == Self::SYNC)
    }

    /// The stream of a packet and the time of the frame that begins in it, in ticks of 90 kHz.
    fn time(&self, source: &mut dyn ReadAt, packet: u64) -> Option<(u16, u64)> {
        let [_, high, low, control] = self.header(source, packet)?;
        // It starts a frame, and has a payload.
        if high & 0x40 == 0 || control & 0x10 == 0 {
            return None;
        }
        let content = self.place(packet).saturating_add(4);
        let skip = match control & 0x20 {
            0 => 0,
            _ => u64::from(bytes::<1>(source, content)?[0]).saturating_add(1),
        };
        let [0, 0, 1, id, _, _, _, flags, _, pts @ ..] = bytes::<14>(source, content.saturating_add(skip))?
        else {
            return None;
        };
        // Sound, pictures, and what codecs of later years are said to be.
        if !matches!(id, 0xbd | 0xc0..=0xef | 0xfd) || flags & 0x80 == 0 {
            return None;
        }
        Some((u16::from_be_bytes([high & 0x1f, low]), presentation_time(pts)))
    }

    /// How long the longest stream lasts, from the times of its first and last frames. A clock that started over on the way is
    /// not found out, so what comes out must be likely.
    fn lasts_ms(&self, source: &mut dyn ReadAt) -> Option<u64> {
        const WRAP: u64 = 1 << 33;
        let since = |first: u64, time: u64| time.wrapping_sub(first) & (WRAP - 1);
        let mut first = BTreeMap::new();
        for packet in 0..self.count.min(Self::LOOK) {
            if let Some((stream, time)) = self.time(source, packet)
                && (first.len() < Self::MAX_STREAMS || first.contains_key(&stream))
            {
                // Frames come in the order of their decoding, the first shown not always first.
                let earliest = first.entry(stream).or_insert(time);
                if since(time, *earliest) < 900_000 {
                    *earliest = time;
                }
            }
        }
        let mut ticks = 0;
        for packet in self.count.saturating_sub(Self::LOOK)..self.count {
            if let Some((stream, time)) = self.time(source, packet)
                && let Some(first) = first.get(&stream)
            {
                ticks = since(*first, time).max(ticks);
            }
        }
        let ms = ticks / 90;
        // Below 8 kbit/s or above 24 hours it is the clock and not the recording.
        let likely =
            ms <= mpegflow_protocol::limits::MAX_DURATION_MS && self.count.saturating_mul(self.size) >= ms;
        Some(ms).filter(|ms| *ms > 0 && likely)
    }
}

/// 33 bits in five bytes, with marks between them.
fn presentation_time([a, b, c, d, e]: [u8; 5]) -> u64 {
    let [a, b, c, d, e] = [a, b, c, d, e].map(u64::from);
    (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
}

/// A program stream that ends inside a packet. From some pack near its end on, each packet states its size.
pub(super) fn program_stream(source: &mut dyn ReadAt) -> Option<String> {
    let (begins, end) = tail(source, PROGRAM_TAIL);
    let pack = end.windows(4).position(|code| code == [0, 0, 1, 0xba])?;
    let mut at = pack;
    let mut whole = 0u32;
    loop {
        let rest = end.get(at..)?;
        let there = begins.saturating_add(at as u64);
        let cut = || {
            (whole >= 3).then(|| {
                format!("the program stream ends inside a packet: {there} bytes of whole packets are there")
            })
        };
        let size = match rest {
            [] => return None,
            [0, 0, 1, 0xb9, ..] => return None,
            [0, 0, 1, 0xba, version, ..] if version >> 4 == 2 => 12,
            [0, 0, 1, 0xba, version, ..] if version >> 6 == 1 => match rest.get(13) {
                Some(stuffing) => usize::from(stuffing & 7).checked_add(14)?,
                None => return cut(),
            },
            [0, 0, 1, 0xbb..=0xff, high, low, ..] => {
                usize::from(u16::from_be_bytes([*high, *low])).checked_add(6)?
            }
            // The beginning of a code, and nothing behind it.
            [0, 0, 1] | [0, 0, 1, 0xba..=0xff] | [0, 0, 1, 0xbb..=0xff, _] => return cut(),
            // No program stream, or not at this place.
            _ => return None,
        };
        at = at.checked_add(size)?;
        if at > end.len() {
            return cut();
        }
        whole = whole.saturating_add(1);
    }
}

/// Raw AAC that ends inside a frame (ISO/IEC 14496-3, 1.A.3.2). From some frame near its end on, each states its size.
pub(super) fn adts(source: &mut dyn ReadAt) -> Option<String> {
    let (begins, end) = tail(source, ADTS_TAIL);
    let size = |at: usize| -> Option<usize> {
        let [0xff, second, _, fourth, fifth, sixth] = *end.get(at..)?.first_chunk::<6>()? else {
            return None;
        };
        // Twelve bits of ones, and a layer of nought.
        let size = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
        (second & 0xf6 == 0xf0 && size >= 7).then_some(size)
    };
    let after = |at: usize| at.checked_add(size(at)?);
    let in_step = |at: &usize| (0..4).try_fold(*at, |at, _| after(at)).is_some();
    let mut at = (0..end.len()).find(in_step)?;
    while let Some(next) = after(at) {
        if next > end.len() {
            let there = begins.saturating_add(at as u64);
            return Some(format!("the AAC ends inside a frame: {there} bytes of whole frames are there"));
        }
        at = next;
    }
    None
}

/// An Ogg file that ends inside a page (RFC 3533, 6).
pub(super) fn ogg(source: &mut dyn ReadAt) -> Option<String> {
    let (begins, end) = tail(source, OGG_TAIL);
    let last = end.windows(5).rposition(|mark| mark == b"OggS\0")?;
    let there = begins.saturating_add(last as u64);
    let page = end.get(last..)?;
    let size = page.get(26).and_then(|segments| {
        let lacing = page.get(27..)?.get(..usize::from(*segments))?;
        let content: usize = lacing.iter().map(|size| usize::from(*size)).sum();
        content.checked_add(27)?.checked_add(lacing.len())
    });
    // A header that is cut off states no size.
    (there > 0 && size.is_none_or(|size| size > page.len()))
        .then(|| format!("the Ogg file ends inside a page: {there} bytes of whole pages are there"))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::super::tests::said;

    #[test]
    fn a_transport_stream_that_ends_inside_a_packet_is_cut() {
        for (size, lead) in [(188, 0), (192, 4), (204, 0)] {
            let mut packet = vec![0u8; size];
            packet[lead] = 0x47;
            let mut stream = packet.repeat(20);
            assert_eq!(said("mpegts", &stream), None);
            let cut = said("mpegts", &stream[..19 * size + 50]).unwrap();
            assert!(cut.ends_with(&format!("{} bytes of whole packets are there", 19 * size)), "{cut}");
            stream.extend_from_slice(b"TAG and the rest");
            assert_eq!(said("mpegts", &stream), None);
        }
    }

    /// A packet in which a frame of a stream begins, at a time.
    fn frame(stream: u8, adaptation: u8, time: u64) -> Vec<u8> {
        let mut packet = vec![0x47, 0x40, stream, 0x10];
        if adaptation > 0 {
            packet[3] = 0x30;
            packet.push(adaptation);
            packet.resize(5 + usize::from(adaptation), 0);
        }
        let pts = [
            (time >> 29) as u8 | 0x21,
            (time >> 22) as u8,
            (time >> 14) as u8 | 1,
            (time >> 7) as u8,
            (time << 1) as u8 | 1,
        ];
        packet.extend([&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5][..], &pts].concat());
        packet.resize(188, 0xaa);
        packet
    }

    #[test]
    fn a_transport_stream_that_is_cut_is_good_to_the_last_time_in_it() {
        let film = |start: u64| {
            let mut stream = Vec::new();
            for n in 0..50 {
                stream.extend(frame(1, (n % 3) as u8, (start + n * 3_600) & 0x1_ffff_ffff));
                stream.extend(frame(2, 0, (start + n * 3_600 + 900) & 0x1_ffff_ffff));
            }
            stream.extend(&[0x47; 100]);
            said("mpegts", &stream).unwrap()
        };
        let expected =
            "the transport stream ends inside a packet: it is good to 1960 ms, 18800 bytes of whole packets";
        assert_eq!(film(1_000), expected);
        // The clock of 33 bits starts over; and a first time that comes out of order.
        assert_eq!(film((1 << 33) - 50_000), expected);
        // Recordings that were joined: four hours are not in these bytes.
        let mut joined = frame(1, 0, 90_000);
        joined.extend(frame(2, 0, 90_000).repeat(8));
        joined.extend(frame(1, 0, 4 * 3_600 * 90_000));
        joined.extend(&[0x47; 100]);
        assert!(!said("mpegts", &joined).unwrap().contains(" ms"));
    }

    fn pack(mpeg2: bool) -> Vec<u8> {
        let mut out = vec![0, 0, 1, 0xba];
        if mpeg2 {
            out.extend([0x44, 0, 4, 0, 4, 1, 0, 0, 3, 0xf8 | 2, 0xff, 0xff]);
        } else {
            out.extend([0x21, 0, 1, 0, 1, 0x80, 0, 1]);
        }
        for id in [0xe0, 0xc0] {
            out.extend([0, 0, 1, id, 1, 0]);
            // Codes of pictures are no codes of packets.
            out.extend([0, 0, 1, 1].repeat(64));
        }
        out
    }

    #[test]
    fn a_program_stream_that_ends_inside_a_packet_is_cut() {
        for mpeg2 in [true, false] {
            let pack = pack(mpeg2);
            let stream = pack.repeat(1_000);
            assert_eq!(said("mpeg", &stream), None);
            assert_eq!(said("mpeg", &[&stream[..], &[0, 0, 1, 0xb9]].concat()), None);
            // Padding behind it is nothing of the stream.
            assert_eq!(said("mpeg", &[&stream[..], &[0xff; 900]].concat()), None);
            for (there, good) in [(3, 0), (5, 0), (pack.len() - 1, pack.len() - 262)] {
                let cut = [&stream[..], &pack[..there]].concat();
                let good = format!(": {} bytes of whole packets are there", stream.len() + good);
                assert!(
                    said("mpeg", &cut).unwrap().ends_with(&good),
                    "{mpeg2} {there}: {:?}",
                    said("mpeg", &cut)
                );
            }
        }
    }

    #[test]
    fn raw_aac_that_ends_inside_a_frame_is_cut() {
        let frame = |size: usize| {
            let mut out =
                vec![0xff, 0xf1, 0x50, 0x80 | (size >> 11) as u8, (size >> 3) as u8, (size << 5) as u8, 0xfc];
            out.resize(size, 0xff);
            out
        };
        let stream: Vec<u8> = (0..300).flat_map(|n| frame(100 + n * 7)).collect();
        assert_eq!(said("aac", &stream), None);
        assert_eq!(said("aac", &[&stream[..], b"TAG and the rest"].concat()), None);
        for there in [6, 50, 899] {
            let cut = said("aac", &[&stream[..], &frame(900)[..there]].concat()).unwrap();
            assert!(cut.ends_with(&format!(": {} bytes of whole frames are there", stream.len())), "{cut}");
        }
    }

    fn page(content: usize) -> Vec<u8> {
        let mut out = b"OggS\0".to_vec();
        out.resize(26, 0);
        let lacing: Vec<u8> =
            std::iter::repeat_n(255, content / 255).chain([(content % 255) as u8]).collect();
        out.push(lacing.len() as u8);
        out.extend(lacing);
        out.resize(out.len() + content, 0x55);
        out
    }

    #[test]
    fn an_ogg_that_ends_inside_a_page_is_cut() {
        for content in [0, 254, 255, 4_000, 255 * 254] {
            let page = page(content);
            let file = page.repeat(40);
            assert_eq!(said("ogg", &file), None, "{content}");
            for there in [6, 26, page.len() - 1] {
                let cut = said("ogg", &[&file[..], &page[..there]].concat()).unwrap();
                assert!(cut.ends_with(&format!(": {} bytes of whole pages are there", file.len())), "{cut}");
            }
        }
    }
}
