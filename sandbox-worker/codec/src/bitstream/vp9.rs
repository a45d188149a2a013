//! VP9 profile 0 (the WebM project's "VP Codec ISO Media File Format Binding" and the VP9 bitstream specification).

use super::SampleKind;
use crate::ff::frame::Color;

/// Luma samples a picture and a second may have at each level, times ten.
const LEVELS: [(u8, u64, u64); 11] = [
    (10, 36_864, 829_440),
    (11, 73_728, 2_764_800),
    (20, 122_880, 4_608_000),
    (21, 245_760, 9_216_000),
    (30, 552_960, 20_736_000),
    (31, 983_040, 36_864_000),
    (40, 2_228_224, 83_558_400),
    (41, 2_228_224, 160_432_128),
    (50, 8_912_896, 311_951_360),
    (51, 8_912_896, 588_251_136),
    (52, 8_912_896, 1_176_502_272),
];
/// No rung has more frames a second; a level that allows for them is true of fewer.
const FRAMES: u64 = 60;

/// `vpcC` with its version and flags.
pub(super) fn configuration(width: u16, height: u16, color: Color) -> Vec<u8> {
    let area = u64::from(width).saturating_mul(u64::from(height));
    let fits = LEVELS.iter().find(|(_, most, rate)| area <= *most && area.saturating_mul(FRAMES) <= *rate);
    let level = fits.map_or(62, |(level, _, _)| *level);
    let byte = |v: u32| u8::try_from(v).unwrap_or(2);
    // 8 bits; 4:2:0 with chroma beside the top left luma sample; limited range.
    let shape = 8 << 4 | 1 << 1;
    vec![1, 0, 0, 0, 0, level, shape, byte(color.primaries), byte(color.transfer), byte(color.matrix), 0, 0]
}

pub(super) fn codec_string(configuration: &[u8]) -> Option<String> {
    match configuration {
        [1, 0, 0, 0, profile, level, shape, ..] => {
            Some(format!("vp09.{profile:02}.{level:02}.{:02}", shape >> 4))
        }
        _ => None,
    }
}

/// By the uncompressed header of the first picture of a superframe.
pub(super) fn sample_kind(sample: &[u8]) -> Option<SampleKind> {
    let [first, second, third, fourth, ..] = *sample else {
        return (!sample.is_empty()).then_some(SampleKind::Other);
    };
    // Frame marker 2, profile 0.
    if first >> 4 != 0b1000 {
        return None;
    }
    let (shown_again, inter) = (first & 8 != 0, first & 4 != 0);
    if shown_again || inter {
        return Some(SampleKind::Other);
    }
    ([second, third, fourth] == [0x49, 0x83, 0x42]).then_some(SampleKind::Idr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_allows_for_the_picture() {
        let color = Color { primaries: 1, transfer: 1, matrix: 1 };
        let string = |w, h| codec_string(&configuration(w, h, color)).unwrap();
        assert_eq!(string(320, 180), "vp09.00.20.08");
        assert_eq!(string(1920, 1080), "vp09.00.41.08");
        assert_eq!(sample_kind(&[0x82, 0x49, 0x83, 0x42, 0]), Some(SampleKind::Idr));
        assert_eq!(sample_kind(&[0x86, 0, 0, 0, 0]), Some(SampleKind::Other));
        assert_eq!(sample_kind(&[0x42, 0x49, 0x83, 0x42, 0]), None);
        assert_eq!(sample_kind(&[0x82, 0, 0, 0, 0]), None);
        assert_eq!(sample_kind(&[]), None);
    }
}
