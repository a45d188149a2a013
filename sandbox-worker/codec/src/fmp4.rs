//! Fragmented MP4 with one track: the boxes of ISO/IEC 14496-12 and ISO/IEC 23000-19 (CMAF), and no others.
//!
//! Written here rather than by a muxer so that the same samples always give the same bytes (no clock, no library version,
//! no metadata that came from the source), and each fragment's byte range is known as it is written.

use crate::ff::frame::Color;
use crate::track::Reference;
use mpegflow_protocol::encoder::VideoCodec;

/// What a track is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Track {
    /// Pictures. `delay` is how many ticks before the first picture is shown decoding has to begin, for its order differs.
    Video { codec: VideoCodec, width: u16, height: u16, configuration: Vec<u8>, color: Color, delay: u32 },
    /// AAC-LC. `priming` samples come before the first that is heard.
    Audio { rate: u32, channels: u16, configuration: Vec<u8>, priming: u32, bit_rate: u32 },
}

/// One frame or packet of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Presentation time in ticks of the track.
    pub(crate) time: i64,
    /// Decoding time in ticks of the track.
    pub(crate) decode: i64,
    /// Bytes.
    pub(crate) size: u32,
    /// Decoding can start here.
    pub(crate) key: bool,
}

impl Track {
    /// The same but for its timing: tracks for which this is equal can be decoded one behind another.
    pub(crate) fn configured(&self) -> Self {
        let mut track = self.clone();
        match &mut track {
            Self::Video { delay: lead, .. } | Self::Audio { priming: lead, .. } => *lead = 0,
        }
        track
    }

    /// Ticks from the first decoding time to presentation time zero.
    pub(crate) fn lead(&self) -> u32 {
        match self {
            Self::Video { delay: lead, .. } | Self::Audio { priming: lead, .. } => *lead,
        }
    }
}

pub(crate) fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    body(out);
    let len = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start.saturating_add(4)) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

pub(crate) fn full(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    boxed(out, kind, |out| {
        u32s(out, &[u32::from(version) << 24 | flags & 0x00ff_ffff]);
        body(out);
    });
}

pub(crate) fn u16s(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_be_bytes()));
}

pub(crate) fn u32s(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_be_bytes()));
}

pub(crate) const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Three letters of ISO 639-2 in five bits each (ISO/IEC 14496-12, 8.4.2.3); `und` where there are none.
pub(crate) fn packed(language: Option<&str>) -> u16 {
    let letters =
        language.filter(|l| l.len() == 3 && l.bytes().all(|b| b.is_ascii_lowercase())).unwrap_or("und");
    letters.bytes().fold(0, |sum, b| sum << 5 | u16::from(b & 0x1f))
}

/// `ftyp` and `moov` of a track in this language. All times are zero: the same track always has the same header.
pub(crate) fn init(track: &Track, timescale: u32, language: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    boxed(&mut out, b"ftyp", |o| {
        o.extend_from_slice(b"iso6");
        u32s(o, &[0]);
        o.extend_from_slice(b"iso6cmfcmp41");
    });
    boxed(&mut out, b"moov", |o| {
        full(o, b"mvhd", 0, 0, |o| {
            u32s(o, &[0, 0, timescale, 0, 0x1_0000]);
            u16s(o, &[0x100, 0, 0, 0, 0, 0]);
            u32s(o, &MATRIX);
            u32s(o, &[0, 0, 0, 0, 0, 0, 2]);
        });
        boxed(o, b"trak", |o| trak(o, track, timescale, language));
        boxed(o, b"mvex", |o| full(o, b"trex", 0, 0, |o| u32s(o, &[1, 1, 0, 0, 0])));
    });
    out
}

fn trak(o: &mut Vec<u8>, track: &Track, timescale: u32, language: Option<&str>) {
    let (width, height, volume) = match track {
        Track::Video { width, height, .. } => (u32::from(*width) << 16, u32::from(*height) << 16, 0),
        Track::Audio { .. } => (0, 0, 0x100),
    };
    // Enabled and in the movie.
    full(o, b"tkhd", 0, 3, |o| {
        u32s(o, &[0, 0, 1, 0, 0, 0, 0]);
        u16s(o, &[0, 0, volume, 0]);
        u32s(o, &MATRIX);
        u32s(o, &[width, height]);
    });
    if track.lead() > 0 {
        // Media time starts with the first decoding time; the edit list starts the presentation at its zero.
        boxed(o, b"edts", |o| full(o, b"elst", 0, 0, |o| u32s(o, &[1, 0, track.lead(), 0x1_0000])));
    }
    boxed(o, b"mdia", |o| {
        full(o, b"mdhd", 0, 0, |o| {
            u32s(o, &[0, 0, timescale, 0]);
            u16s(o, &[packed(language), 0]);
        });
        full(o, b"hdlr", 0, 0, |o| {
            u32s(o, &[0]);
            o.extend_from_slice(if matches!(track, Track::Video { .. }) { b"vide" } else { b"soun" });
            u32s(o, &[0, 0, 0]);
            o.push(0);
        });
        boxed(o, b"minf", |o| {
            match track {
                Track::Video { .. } => full(o, b"vmhd", 0, 1, |o| u16s(o, &[0, 0, 0, 0])),
                Track::Audio { .. } => full(o, b"smhd", 0, 0, |o| u16s(o, &[0, 0])),
            }
            boxed(o, b"dinf", |o| {
                full(o, b"dref", 0, 0, |o| {
                    u32s(o, &[1]);
                    full(o, b"url ", 0, 1, |_| {});
                });
            });
            boxed(o, b"stbl", |o| {
                full(o, b"stsd", 0, 0, |o| {
                    u32s(o, &[1]);
                    entry(o, track);
                });
                full(o, b"stts", 0, 0, |o| u32s(o, &[0]));
                full(o, b"stsc", 0, 0, |o| u32s(o, &[0]));
                full(o, b"stsz", 0, 0, |o| u32s(o, &[0, 0]));
                full(o, b"stco", 0, 0, |o| u32s(o, &[0]));
            });
        });
    });
}

pub(crate) fn entry(o: &mut Vec<u8>, track: &Track) {
    match track {
        Track::Video { codec, width, height, configuration, color, .. } => {
            boxed(o, entry_names(*codec).0, |o| {
                u16s(o, &[0, 0, 0, 1, 0, 0]);
                u32s(o, &[0, 0, 0]);
                u16s(o, &[*width, *height]);
                u32s(o, &[0x48_0000, 0x48_0000, 0]);
                u16s(o, &[1]);
                o.extend_from_slice(&[0; 32]);
                u16s(o, &[24, 0xffff]);
                boxed(o, entry_names(*codec).1, |o| o.extend_from_slice(configuration));
                boxed(o, b"pasp", |o| u32s(o, &[1, 1]));
                boxed(o, b"colr", |o| {
                    o.extend_from_slice(b"nclx");
                    let byte = |v: u32| u16::try_from(v).unwrap_or(2);
                    u16s(o, &[byte(color.primaries), byte(color.transfer), byte(color.matrix)]);
                    // Limited range.
                    o.push(0);
                });
            })
        }
        Track::Audio { rate, channels, configuration, bit_rate, .. } => boxed(o, b"mp4a", |o| {
            u16s(o, &[0, 0, 0, 1, 0, 0, 0, 0, *channels, 16, 0, 0]);
            // 16.16; rates above 65535 do not fit and are told by the configuration alone.
            u32s(o, &[u32::from(u16::try_from(*rate).unwrap_or(0)) << 16]);
            full(o, b"esds", 0, 0, |o| descriptors(o, configuration, *bit_rate));
        }),
    }
}

/// The sample entry and its configuration box.
fn entry_names(codec: VideoCodec) -> (&'static [u8; 4], &'static [u8; 4]) {
    match codec {
        VideoCodec::H264 => (b"avc1", b"avcC"),
        VideoCodec::Hevc => (b"hvc1", b"hvcC"),
        VideoCodec::Vp9 => (b"vp09", b"vpcC"),
        VideoCodec::Av1 => (b"av01", b"av1C"),
    }
}

// ISO/IEC 14496-1 descriptors: ES, decoder configuration, decoder-specific information, SL.
fn descriptors(o: &mut Vec<u8>, configuration: &[u8], bit_rate: u32) {
    let asc = u8::try_from(configuration.len()).unwrap_or(0);
    let decoder = asc.saturating_add(15);
    o.extend_from_slice(&[3, decoder.saturating_add(8), 0, 1, 0]);
    // AAC, audio stream.
    o.extend_from_slice(&[4, decoder, 0x40, 0x15, 0, 0, 0]);
    u32s(o, &[bit_rate, bit_rate]);
    o.extend_from_slice(&[5, asc]);
    o.extend_from_slice(configuration);
    o.extend_from_slice(&[6, 1, 2]);
}

/// `sidx`: length and duration of each segment behind it (ISO/IEC 14496-12, 8.16.3). `None` where something does not fit.
pub(crate) fn index(timescale: u32, segments: &[Reference], end: i64) -> Option<Vec<u8>> {
    let count = u16::try_from(segments.len()).ok()?;
    let mut rows = Vec::with_capacity(segments.len());
    let ends = segments.iter().skip(1).map(|s| s.start).chain([end]);
    for (segment, end) in segments.iter().zip(ends) {
        let bytes = u32::try_from(segment.bytes).ok().filter(|b| *b < 1 << 31)?;
        let duration = u32::try_from(end.checked_sub(segment.start)?).ok().filter(|d| *d > 0)?;
        // Each starts with a picture that needs no other.
        rows.push([bytes, duration, 0x9000_0000]);
    }
    let mut out = Vec::new();
    full(&mut out, b"sidx", 1, 0, |o| {
        u32s(o, &[1, timescale, 0, 0, 0, 0]);
        u16s(o, &[0, count]);
        rows.iter().for_each(|row| u32s(o, row));
    });
    Some(out)
}

/// Bytes of the fragment that [`fragment`] writes for so many samples of so many bytes.
pub(crate) fn fragment_bytes(track: &Track, samples: u64, payload: u64) -> u64 {
    let (head, row) = if matches!(track, Track::Video { .. }) { (96u64, 16) } else { (100, 8) };
    head.saturating_add(samples.saturating_mul(row)).saturating_add(payload)
}

/// One fragment's `moof` and the head of its `mdat`. The samples come in decoding order, `next` is the decoding time behind
/// the last. `None` where decoding times do not go up or anything does not fit.
pub(crate) fn fragment(track: &Track, sequence: u32, samples: &[Sample], next: i64) -> Option<Vec<u8>> {
    let base = u64::try_from(samples.first()?.decode.checked_add(i64::from(track.lead()))?).ok()?;
    let ends = samples.iter().skip(1).map(|s| s.decode).chain([next]);
    let mut rows = Vec::with_capacity(samples.len());
    for (sample, next) in samples.iter().zip(ends) {
        let duration = u32::try_from(next.checked_sub(sample.decode)?).ok().filter(|d| *d > 0)?;
        let offset = i32::try_from(sample.time.checked_sub(sample.decode)?).ok()?;
        rows.push((duration, sample, offset));
    }
    let video = matches!(track, Track::Video { .. });
    let payload = samples.iter().try_fold(8u32, |sum, s| sum.checked_add(s.size))?;
    let count = u32::try_from(rows.len()).ok()?;
    let mut out = Vec::new();
    let mut data_offset_at = 0;
    boxed(&mut out, b"moof", |o| {
        full(o, b"mfhd", 0, 0, |o| u32s(o, &[sequence]));
        boxed(o, b"traf", |o| {
            if video {
                full(o, b"tfhd", 0, 0x02_0000, |o| u32s(o, &[1]));
            } else {
                // Every packet is a place to start.
                full(o, b"tfhd", 0, 0x02_0020, |o| u32s(o, &[1, 0x0200_0000]));
            }
            full(o, b"tfdt", 1, 0, |o| o.extend_from_slice(&base.to_be_bytes()));
            full(o, b"trun", 1, if video { 0xf01 } else { 0x301 }, |o| {
                u32s(o, &[count]);
                data_offset_at = o.len();
                u32s(o, &[0]);
                for (duration, sample, offset) in &rows {
                    u32s(o, &[*duration, sample.size]);
                    if video {
                        u32s(o, &[if sample.key { 0x0200_0000 } else { 0x0101_0000 }]);
                        o.extend_from_slice(&offset.to_be_bytes());
                    }
                }
            });
        });
    });
    let data_offset = u32::try_from(out.len()).ok()?.checked_add(8)?;
    out.get_mut(data_offset_at..data_offset_at.checked_add(4)?)?.copy_from_slice(&data_offset.to_be_bytes());
    u32s(&mut out, &[payload]);
    out.extend_from_slice(b"mdat");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_samples_give_the_same_bytes_and_times_must_go_up() {
        let color = Color { primaries: 1, transfer: 1, matrix: 1 };
        let configuration = vec![1, 100, 0, 30];
        let codec = VideoCodec::H264;
        let track = Track::Video { codec, width: 64, height: 48, configuration, color, delay: 3000 };
        assert_eq!(init(&track, 90_000, None), init(&track, 90_000, None));
        let sample = |time, decode| Sample { time, decode, size: 10, key: time == 0 };
        let good = [sample(0, -3000), sample(6000, 0), sample(3000, 3000)];
        let bytes = fragment(&track, 1, &good, 6000).unwrap().len() as u64;
        assert_eq!(bytes + 30, fragment_bytes(&track, 3, 30));
        assert!(fragment(&track, 1, &good, 3000).is_none());
        assert!(fragment(&track, 1, &[sample(0, 0), sample(0, 0)], 9000).is_none());
        assert!(fragment(&track, 1, &[sample(0, -3001)], 9000).is_none());
        assert!(fragment(&track, 1, &[], 9000).is_none());
    }
}
