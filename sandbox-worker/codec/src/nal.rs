//! H.264 byte streams: what x264 writes, what MP4 stores, and what of it can be told without decoding.

use mpegflow_protocol::failure::{Failure, FailureCode};

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// The units of a byte stream with start codes.
pub(crate) fn units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A unit starts after 00 00 01; zeros before the next start code belong to the code.
    let mut starts = Vec::new();
    let mut at = 0usize;
    while let Some(found) = stream.get(at..).and_then(|rest| rest.windows(3).position(|w| w == [0, 0, 1])) {
        let code = at.saturating_add(found);
        starts.push((code, code.saturating_add(3)));
        at = code.saturating_add(3);
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(code, _)| *code).chain([stream.len()]).collect();
    starts.into_iter().zip(ends).filter_map(move |((_, start), end)| {
        let unit = stream.get(start..end)?;
        let trimmed = unit.iter().rposition(|b| *b != 0).map_or(0, |p| p.saturating_add(1));
        unit.get(..trimmed).filter(|u| !u.is_empty())
    })
}

fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |b| b & 0x1f)
}

/// Appends a packet of x264 to `out` as MP4 stores it: each unit behind its length. Notes of the encoder about itself (SEI
/// user data) are left out: they differ from machine to machine.
pub(crate) fn append_with_lengths(packet: &[u8], out: &mut Vec<u8>) {
    for unit in units(packet) {
        let user_data = kind(unit) == SEI && unit.get(1) == Some(&5);
        if user_data || matches!(kind(unit), SPS | PPS) {
            continue;
        }
        out.extend_from_slice(&u32::try_from(unit.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(unit);
    }
}

/// The decoder configuration record (ISO/IEC 14496-15, `avcC`) for x264's SPS and PPS.
///
/// # Errors
/// [`FailureCode::WorkerError`]: the encoder wrote no such headers.
pub(crate) fn configuration(headers: &[u8]) -> Result<Vec<u8>, Failure> {
    let find = |wanted| units(headers).find(|u| kind(u) == wanted);
    let (Some(sps), Some(pps)) = (find(SPS), find(PPS)) else {
        return Err(Failure::new(FailureCode::WorkerError, "the encoder wrote no SPS and PPS"));
    };
    let mut out = vec![1];
    out.extend_from_slice(sps.get(1..4).unwrap_or(&[100, 0, 40]));
    // Lengths of four bytes; one SPS.
    out.extend_from_slice(&[0xff, 0xe1]);
    for (unit, count) in [(sps, None), (pps, Some(1u8))] {
        out.extend(count);
        out.extend_from_slice(&u16::try_from(unit.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(unit);
    }
    // High profile adds the chroma format (4:2:0) and bit depths (8).
    if sps.get(1) == Some(&100) {
        out.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]);
    }
    Ok(out)
}

/// The RFC 6381 codec string of a configuration record.
pub(crate) fn codec_string(configuration: &[u8]) -> Option<String> {
    match configuration.get(..4)? {
        [1, profile, compatible, level] => Some(format!("avc1.{profile:02x}{compatible:02x}{level:02x}")),
        _ => None,
    }
}

/// What a stored sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    /// Decoding can start here with nothing before it.
    Idr,
    /// It needs others.
    Other,
}

/// Reads a sample whose units are each behind a length of four bytes. `None` where the lengths do not add up or there is
/// no picture in it.
pub(crate) fn sample_kind(sample: &[u8]) -> Option<SampleKind> {
    let mut rest = sample;
    let mut found = None;
    while !rest.is_empty() {
        let len = usize::try_from(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let unit = rest.get(4..len.checked_add(4)?)?;
        match kind(unit) {
            IDR => found = found.or(Some(SampleKind::Idr)),
            // Data partitions (2 to 4) are not in High profile.
            SLICE => found = Some(SampleKind::Other),
            SPS | PPS | 2..=4 => return None,
            _ => {}
        }
        rest = rest.get(len.checked_add(4)?..)?;
    }
    found
}

mod headers;

pub(crate) use headers::Headers;

/// What is copied of a stored sample of a stranger's stream: slices that begin as slices of these headers begin, and nothing else.
/// Appends it to `out`. `None` where there is anything that is not known.
pub(crate) fn copied(headers: &Headers, sample: &[u8], out: &mut Vec<u8>) -> Option<SampleKind> {
    let (mut rest, mut found) = (sample, None);
    while !rest.is_empty() {
        let len = usize::try_from(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let whole = rest.get(..len.checked_add(4)?)?;
        let unit = whole.get(4..)?;
        rest = rest.get(whole.len()..)?;
        match kind(unit) {
            IDR | SLICE => {
                let this = if kind(unit) == IDR { SampleKind::Idr } else { SampleKind::Other };
                headers.slice(unit, this == SampleKind::Idr, found.is_none())?;
                if found.is_some_and(|before| before != this) {
                    return None;
                }
                found = Some(this);
                out.extend_from_slice(whole);
            }
            // Again what the headers say, and nothing else.
            SPS | PPS if headers.are(unit) => {}
            SEI | DELIMITER | FILLER => {}
            _ => return None,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_become_lengths_and_the_encoders_notes_are_left_out() {
        let stream = b"\0\0\0\x01\x06\x05\x01x\x80\0\0\x01\x65abc\0\0\x01\x41de";
        let mut out = Vec::new();
        append_with_lengths(stream, &mut out);
        assert_eq!(out, b"\0\0\0\x04\x65abc\0\0\0\x03\x41de");
        assert_eq!(sample_kind(&out), Some(SampleKind::Other));
        assert_eq!(sample_kind(b"\0\0\0\x04\x65abc"), Some(SampleKind::Idr));
        assert_eq!(sample_kind(b"\0\0\0\x05\x65abc"), None);
        assert_eq!(sample_kind(b""), None);
    }

    #[test]
    fn a_configuration_record_names_profile_and_level() {
        let record = configuration(b"\0\0\0\x01\x67\x64\x00\x1f\xac\0\0\x01\x68\xeb\xe3").unwrap();
        assert_eq!(codec_string(&record).unwrap(), "avc1.64001f");
        assert!(configuration(b"nothing").is_err());
    }
}
