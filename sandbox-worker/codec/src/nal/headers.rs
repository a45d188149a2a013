//! The headers of a stranger's H.264 stream (ITU-T H.264, 7.3.2), read as far as a copy needs and no further: what is not expected
//! is not copied.

use super::configuration;
use mpegflow_protocol::failure::Failure;

/// Baseline, Main and High: what players take.
const PROFILES: [u8; 3] = [66, 77, 100];
/// Level 5.2.
const MAX_LEVEL: u8 = 52;
/// Macroblocks a side: 8192 pixels.
const MAX_BLOCKS: u32 = 512;

/// One sequence and one picture parameter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    sequence: Vec<u8>,
    picture: Vec<u8>,
    picture_id: u32,
}

impl Headers {
    /// From a decoder configuration record (ISO/IEC 14496-15) with lengths of four bytes and one set of each kind.
    pub(crate) fn stored(record: &[u8]) -> Option<Self> {
        let [1, _, _, _, lengths, 0xe1, rest @ ..] = record else { return None };
        if lengths & 3 != 3 {
            return None;
        }
        let (sequence, rest) = set(rest)?;
        let (1, rest) = rest.split_first().map(|(n, rest)| (*n, rest))? else { return None };
        let (picture, _) = set(rest)?;
        check_sequence(sequence)?;
        let mut bits = Bits::new(picture.get(1..)?);
        let (picture_id, sequence_id) = (bits.number()?, bits.number()?);
        let kinds = (sequence.first()? & 0x9f, picture.first()? & 0x9f);
        (kinds == (7, 8) && picture_id < 256 && sequence_id == 0).then(|| Self {
            sequence: sequence.into(),
            picture: picture.into(),
            picture_id,
        })
    }

    /// Whether a unit is one of these.
    pub(super) fn are(&self, unit: &[u8]) -> bool {
        unit == self.sequence || unit == self.picture
    }

    /// Whether a slice begins as one of this stream: the first with the first block, of a known type, with these headers; a key
    /// frame's with no reference to another picture.
    pub(super) fn slice(&self, unit: &[u8], key: bool, first: bool) -> Option<()> {
        let head = *unit.first()?;
        let mut bits = Bits::new(unit.get(1..)?);
        let (block, kind, picture) = (bits.number()?, bits.number()?, bits.number()?);
        let fits = head & 0x80 == 0
            && (!key || head & 0x60 != 0)
            && (block == 0) == first
            && kind <= 9
            && (!key || kind % 5 == 2)
            // Neither SP nor SI, which are of the extended profile.
            && kind % 5 <= 2
            && picture == self.picture_id;
        fits.then_some(())
    }

    /// The configuration as this packager writes it.
    ///
    /// # Errors
    /// None that could happen: both sets are there.
    pub(crate) fn configuration(&self) -> Result<Vec<u8>, Failure> {
        configuration(&[&[0, 0, 0, 1][..], &self.sequence, &[0, 0, 0, 1], &self.picture].concat())
    }
}

fn set(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let (set, rest) = bytes.get(2..)?.split_at_checked(len)?;
    // A set ends with a bit that is one, so never with a zero; and it never holds a start code.
    let clean =
        set.last().is_some_and(|b| *b != 0) && !set.windows(3).any(|w| w == [0, 0, 1] || w == [0, 0, 0]);
    clean.then_some((set, rest))
}

/// 8-bit 4:2:0 frames of one moment with square pixels in limited range.
fn check_sequence(unit: &[u8]) -> Option<()> {
    let &[_, profile, _, level, ref rest @ ..] = unit else { return None };
    if !PROFILES.contains(&profile) || level == 0 || level > MAX_LEVEL {
        return None;
    }
    let mut bits = Bits::new(rest);
    let need = |holds: bool| holds.then_some(());
    need(bits.number()? == 0)?;
    if profile == 100 {
        // Chroma, both depths, and neither lossless nor with matrices of its own.
        need(bits.number()? == 1 && bits.number()? == 0 && bits.number()? == 0)?;
        need(bits.take(2)? == 0)?;
    }
    need(bits.number()? <= 12)?;
    match bits.number()? {
        0 => need(bits.number()? <= 12)?,
        2 => {}
        _ => return None,
    }
    need(bits.number()? <= 16)?;
    let _gaps = bits.take(1)?;
    need(bits.number()? < MAX_BLOCKS && bits.number()? < MAX_BLOCKS)?;
    // Frames only; then how pictures between are predicted, and what of the edges is cut.
    need(bits.take(1)? == 1)?;
    let _direct = bits.take(1)?;
    if bits.take(1)? == 1 {
        for _ in 0..4 {
            need(bits.number()? < 16)?;
        }
    }
    if bits.take(1)? == 0 {
        return Some(());
    }
    if bits.take(1)? == 1 {
        need(bits.take(8)? <= 1)?;
    }
    if bits.take(1)? == 1 {
        let _overscan = bits.take(1)?;
    }
    if bits.take(1)? == 1 {
        let _format = bits.take(3)?;
        need(bits.take(1)? == 0)?;
    }
    Some(())
}

/// Bits of a unit without the bytes that keep start codes out of it.
struct Bits<'a> {
    bytes: &'a [u8],
    zeros: u32,
    bit: u32,
    now: u8,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, zeros: 0, bit: 0, now: 0 }
    }

    fn one(&mut self) -> Option<u32> {
        if self.bit == 0 {
            let (mut byte, mut rest) = self.bytes.split_first()?;
            if self.zeros >= 2 && *byte == 3 {
                (byte, rest) = rest.split_first()?;
                self.zeros = 0;
            }
            self.zeros = if *byte == 0 { self.zeros.saturating_add(1) } else { 0 };
            (self.now, self.bytes, self.bit) = (*byte, rest, 8);
        }
        self.bit = self.bit.saturating_sub(1);
        Some(u32::from(self.now) >> self.bit & 1)
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |sum, _| Some(sum << 1 | self.one()?))
    }

    /// An unsigned Exp-Golomb code of at most 16 leading zeros.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        while self.one()? == 0 {
            zeros = zeros.saturating_add(1);
            if zeros > 16 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        (1u32 << zeros).checked_add(rest)?.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264's of a 320 × 180 clip, High.
    const SEQUENCE: [u8; 25] = [
        0x67, 0x64, 0x00, 0x0d, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9e, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
        0x00, 0x03, 0x03, 0x20, 0xf1, 0x42, 0x99, 0x60,
    ];
    const PICTURE: [u8; 6] = [0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    fn record(sequence: &[u8], picture: &[u8]) -> Vec<u8> {
        let mut out = vec![1, 100, 0, 13, 0xff, 0xe1, 0, sequence.len() as u8];
        out.extend_from_slice(sequence);
        out.extend_from_slice(&[1, 0, picture.len() as u8]);
        out.extend_from_slice(picture);
        out
    }

    #[test]
    fn headers_of_an_ordinary_stream_are_taken_and_others_are_not() {
        let headers = Headers::stored(&record(&SEQUENCE, &PICTURE)).unwrap();
        assert!(headers.are(&SEQUENCE) && headers.are(&PICTURE) && !headers.are(&SEQUENCE[..10]));
        let with = |at: usize, value: u8| {
            let mut sequence = SEQUENCE;
            sequence[at] = value;
            Headers::stored(&record(&sequence, &PICTURE))
        };
        // High 10, a level that there is not, another chroma, the end inside it.
        assert_eq!(with(1, 110), None);
        assert_eq!(with(3, 99), None);
        assert_eq!(with(4, 0xaa), None);
        assert_eq!(Headers::stored(&record(&SEQUENCE[..7], &PICTURE)), None);
        for bad in [&b""[..], &[1, 100, 0, 13, 0xff, 0xe2], &[1, 100, 0, 13, 0xfc, 0xe1, 0, 0]] {
            assert_eq!(Headers::stored(bad), None);
        }
    }

    #[test]
    fn slices_begin_as_the_standard_says() {
        let headers = Headers::stored(&record(&SEQUENCE, &PICTURE)).unwrap();
        // First block 0, type 7 (I), picture set 0.
        let intra = [0x65, 0b1000_1000, 0b1000_0000];
        assert!(headers.slice(&intra, true, true).is_some());
        // A second slice does not begin with the first block again.
        assert!(headers.slice(&intra, true, false).is_none());
        // Type 5 (P) in a key frame; another picture set; a forbidden bit.
        assert!(headers.slice(&[0x65, 0b1001_1010, 0x80], true, true).is_none());
        assert!(headers.slice(&[0x65, 0b1000_1000, 0b0100_0000], true, true).is_none());
        assert!(headers.slice(&[0xe5, 0b1000_1000, 0b1000_0000], true, true).is_none());
        assert!(headers.slice(&[0x65], true, true).is_none());
    }
}
