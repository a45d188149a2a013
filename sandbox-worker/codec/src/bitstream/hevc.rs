//! H.265 (ITU-T H.265, ISO/IEC 14496-15).

use super::SampleKind;
use crate::nal::units;

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const SEI: u8 = 39;

fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |b| b >> 1 & 0x3f)
}

/// Each unit behind its length, without parameter sets and without the encoder's notes about itself.
pub(super) fn append_with_lengths(packet: &[u8], out: &mut Vec<u8>) {
    for unit in units(packet) {
        let user_data = kind(unit) == SEI && unit.get(2) == Some(&5);
        if user_data || matches!(kind(unit), VPS | SPS | PPS) {
            continue;
        }
        out.extend_from_slice(&u32::try_from(unit.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(unit);
    }
}

/// `hvcC` of an 8-bit 4:2:0 stream.
pub(super) fn configuration(headers: &[u8]) -> Option<Vec<u8>> {
    let find = |wanted| units(headers).find(|u| kind(u) == wanted);
    let (vps, sps, pps) = (find(VPS)?, find(SPS)?, find(PPS)?);
    // Behind the unit's header and the identifiers: twelve bytes of profile, tier and level.
    let plain = without_escapes(sps);
    let nested = plain.get(2)? & 1;
    let mut out = vec![1];
    out.extend_from_slice(plain.get(3..15)?);
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x08 | nested << 2 | 3, 3]);
    for unit in [vps, sps, pps] {
        out.extend_from_slice(&[0x80 | kind(unit), 0, 1]);
        out.extend_from_slice(&u16::try_from(unit.len()).ok()?.to_be_bytes());
        out.extend_from_slice(unit);
    }
    Some(out)
}

fn without_escapes(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len().min(64));
    for &byte in unit.iter().take(64) {
        if byte == 3 && out.ends_with(&[0, 0]) {
            continue;
        }
        out.push(byte);
    }
    out
}

/// ISO/IEC 14496-15, annex E.
pub(super) fn codec_string(configuration: &[u8]) -> Option<String> {
    let [1, profile, c0, c1, c2, c3, constraints @ ..] = configuration.get(..13)? else { return None };
    let (constraints, level) = (constraints.get(..6)?, constraints.get(6)?);
    if profile >> 6 != 0 {
        return None;
    }
    let compatible = u32::from_be_bytes([*c0, *c1, *c2, *c3]).reverse_bits();
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!("hvc1.{}.{compatible:X}.{tier}{level}", profile & 0x1f);
    let used = constraints.iter().rposition(|b| *b != 0).map_or(0, |p| p.saturating_add(1));
    constraints.iter().take(used).for_each(|b| text.push_str(&format!(".{b:X}")));
    Some(text)
}

pub(super) fn sample_kind(sample: &[u8]) -> Option<SampleKind> {
    let mut rest = sample;
    let mut found = None;
    while !rest.is_empty() {
        let len = usize::try_from(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let end = len.checked_add(4)?;
        let unit = rest.get(4..end).filter(|u| u.len() > 2)?;
        match kind(unit) {
            // IDR, with nothing shown before it.
            19 | 20 => found = found.or(Some(SampleKind::Idr)),
            0..=9 | 21 => found = Some(SampleKind::Other),
            VPS | SPS | PPS | 10..=18 | 22..=31 => return None,
            _ => {}
        }
        rest = rest.get(end..)?;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_record_names_profile_tier_and_level() {
        let headers = b"\0\0\0\x01\x40\x01\x0c\x01\0\0\0\x01\x42\x01\x01\x01\x60\0\0\x03\0\x90\0\0\x03\0\0\x03\0\x5d\xa0\0\0\x01\x44\x01\xc1";
        let record = configuration(headers).unwrap();
        assert_eq!(codec_string(&record).unwrap(), "hvc1.1.6.L93.90");
        assert!(configuration(b"nothing").is_none());
    }

    #[test]
    fn only_a_picture_that_needs_no_other_starts_a_segment() {
        assert_eq!(sample_kind(b"\0\0\0\x03\x26\x01x"), Some(SampleKind::Idr));
        assert_eq!(sample_kind(b"\0\0\0\x03\x02\x01x"), Some(SampleKind::Other));
        for bad in [&b""[..], b"\0\0\0\x09\x26\x01x", b"\0\0\0\x03\x42\x01x", b"\0\0\0\x03\x4e\x01x"] {
            assert_eq!(sample_kind(bad), None);
        }
    }
}
