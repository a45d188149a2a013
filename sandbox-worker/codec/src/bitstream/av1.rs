//! AV1 Main ("AV1 Codec ISO Media File Format Binding" and the AV1 bitstream specification).

use super::SampleKind;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
const TILE_GROUP: u8 = 4;
const METADATA: u8 = 5;
const REDUNDANT_HEADER: u8 = 7;

/// One unit: its kind, where its payload starts, and all of it.
struct Unit<'a> {
    kind: u8,
    payload: &'a [u8],
    whole: &'a [u8],
}

/// Units that state their size; `None` in the end where one does not, or is cut.
fn units(mut rest: &[u8]) -> impl Iterator<Item = Option<Unit<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let unit = unit(rest);
        rest = unit.as_ref().and_then(|u| rest.get(u.whole.len()..)).unwrap_or(&[]);
        Some(unit)
    })
}

fn unit(bytes: &[u8]) -> Option<Unit<'_>> {
    let header = *bytes.first()?;
    // Forbidden bit, reserved bit, and the size must be there.
    if header & 0x81 != 0 || header & 2 == 0 {
        return None;
    }
    let mut at = if header & 4 == 0 { 1usize } else { 2 };
    let mut size = 0u64;
    for shift in (0..56).step_by(7) {
        let byte = *bytes.get(at)?;
        at = at.checked_add(1)?;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let end = at.checked_add(usize::try_from(size).ok()?)?;
            return Some(Unit {
                kind: header >> 3 & 0xf,
                payload: bytes.get(at..end)?,
                whole: bytes.get(..end)?,
            });
        }
    }
    None
}

/// All but temporal delimiters, which MP4 leaves out.
pub(super) fn append(packet: &[u8], out: &mut Vec<u8>) {
    for unit in units(packet).flatten() {
        if unit.kind != TEMPORAL_DELIMITER {
            out.extend_from_slice(unit.whole);
        }
    }
}

/// `av1C` of an 8-bit 4:2:0 stream.
pub(super) fn configuration(headers: &[u8]) -> Option<Vec<u8>> {
    let sequence = units(headers).flatten().find(|u| u.kind == SEQUENCE_HEADER)?;
    let mut bits = Bits { bytes: sequence.payload, at: 0 };
    let profile = bits.take(3)?;
    let (_still, reduced, timing, _delay) = (bits.take(1)?, bits.take(1)?, bits.take(1)?, bits.take(1)?);
    // Not written by the encoder that is used; what follows would lie elsewhere.
    if reduced != 0 || timing != 0 || profile != 0 {
        return None;
    }
    let _points = bits.take(5)?;
    let _operating_point = bits.take(12)?;
    let level = bits.take(5)?;
    let tier = if level > 7 { bits.take(1)? } else { 0 };
    let mut out = vec![0x81, u8::try_from(level).ok()?, u8::try_from(tier << 7).ok()? | 0b1101, 0];
    out.extend_from_slice(sequence.whole);
    Some(out)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> 7usize.saturating_sub(self.at % 8) & 1);
            self.at = self.at.checked_add(1)?;
        }
        Some(value)
    }
}

pub(super) fn codec_string(configuration: &[u8]) -> Option<String> {
    let [0x81, first, second, ..] = *configuration else { return None };
    let (profile, level) = (first >> 5, first & 0x1f);
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    // Neither 10 nor 12 bits.
    (second & 0x60 == 0).then(|| format!("av01.{profile}.{level:02}{tier}.08"))
}

/// A key frame comes with a sequence header, and nothing else does.
pub(super) fn sample_kind(sample: &[u8]) -> Option<SampleKind> {
    let (mut key, mut picture) = (false, false);
    for unit in units(sample) {
        match unit?.kind {
            SEQUENCE_HEADER => key = true,
            FRAME_HEADER | FRAME => picture = true,
            TILE_GROUP | METADATA | REDUNDANT_HEADER => {}
            _ => return None,
        }
    }
    match (key, picture) {
        (true, true) => Some(SampleKind::Idr),
        (false, true) => Some(SampleKind::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_left_out_and_keys_are_told_by_their_header() {
        let packet = [0x12, 0, 0x0a, 3, 0, 0, 0x20, 0x32, 1, 0x10];
        let mut out = Vec::new();
        append(&packet, &mut out);
        assert_eq!(out, packet[2..]);
        assert_eq!(sample_kind(&out), Some(SampleKind::Idr));
        assert_eq!(sample_kind(&packet[7..]), Some(SampleKind::Other));
        for bad in [&b""[..], &packet, &[0x32, 200, 1], &[0x30, 1], &[0x0a, 1, 0]] {
            assert_eq!(sample_kind(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_configuration_record_names_profile_and_level() {
        // Profile 0, one operating point, level 2.1 (1).
        let record = configuration(&[0x0a, 4, 0, 0, 0, 0b0000_1000]).unwrap();
        assert_eq!(codec_string(&record).unwrap(), "av01.0.01M.08");
        assert!(configuration(&[0x12, 0]).is_none());
    }
}
