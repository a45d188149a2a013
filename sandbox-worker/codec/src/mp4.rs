//! One MP4 file with its index first (ISO/IEC 14496-12): written when every sample's size is known, so that nothing has to
//! be sought or moved.

use crate::fmp4::{MATRIX, Track, boxed, entry, full, packed, u16s, u32s};
use mpegflow_protocol::job::KeptTag;
use mpegflow_protocol::task::FileTag;

/// Ticks per second of the movie header and the edit lists.
const MOVIE_SCALE: u64 = 1_000;
/// Milliseconds of one track before the next one's turn.
const CHUNK_MS: u64 = 500;

/// One sample of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Bytes.
    pub(crate) size: u32,
    /// Ticks until the next one is decoded.
    pub(crate) duration: u32,
    /// Ticks from decoding to showing.
    pub(crate) offset: u32,
    /// Decoding can start here.
    pub(crate) key: bool,
}

/// A track and all its samples.
#[derive(Debug)]
pub(crate) struct FileTrack {
    pub(crate) track: Track,
    pub(crate) timescale: u32,
    pub(crate) samples: Vec<Sample>,
    /// Ticks that are shown or heard.
    pub(crate) shown: u64,
    /// ISO 639-2.
    pub(crate) language: Option<String>,
}

/// A run of samples of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Which track.
    pub(crate) track: usize,
    /// Its samples.
    pub(crate) samples: usize,
    bytes: u64,
}

/// The order of the samples in the file: the tracks take turns, so that a player that reads on has all of a moment together.
pub(crate) fn chunks(tracks: &[FileTrack]) -> Vec<Chunk> {
    let mut next = vec![(0usize, 0u64); tracks.len()];
    let mut out = Vec::new();
    loop {
        let times = tracks.iter().zip(&next).enumerate().filter_map(|(index, (track, (at, ticks)))| {
            let ms = ticks.saturating_mul(1_000).checked_div(u64::from(track.timescale))?;
            (*at < track.samples.len()).then_some((ms, index))
        });
        let Some((_, index)) = times.min() else { return out };
        let (Some(track), Some((at, ticks))) = (tracks.get(index), next.get_mut(index)) else { return out };
        let most = CHUNK_MS.saturating_mul(u64::from(track.timescale)) / 1_000;
        let mut chunk = Chunk { track: index, samples: 0, bytes: 0 };
        let mut length = 0u64;
        for sample in track.samples.get(*at..).unwrap_or(&[]) {
            if chunk.samples > 0 && length >= most {
                break;
            }
            chunk.samples = chunk.samples.saturating_add(1);
            chunk.bytes = chunk.bytes.saturating_add(u64::from(sample.size));
            length = length.saturating_add(u64::from(sample.duration));
        }
        *at = at.saturating_add(chunk.samples);
        *ticks = ticks.saturating_add(length);
        out.push(chunk);
    }
}

/// All before the first sample: `ftyp`, `moov`, and the head of `mdat`. `None` where it does not fit the format.
pub(crate) fn head(tracks: &[FileTrack], chunks: &[Chunk], tags: &[FileTag]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    boxed(&mut out, b"ftyp", |o| {
        o.extend_from_slice(b"isom");
        u32s(o, &[0x200]);
        o.extend_from_slice(b"isomiso2mp41");
    });
    let payload = chunks.iter().fold(0u64, |sum, c| sum.saturating_add(c.bytes));
    // 64-bit places throughout: their length then does not depend on what they say.
    let start = moov(tracks, &places(tracks.len(), chunks, 0), tags).len() as u64;
    let start = start.checked_add(out.len() as u64)?.checked_add(16)?;
    let index = moov(tracks, &places(tracks.len(), chunks, start), tags);
    if u32::try_from(index.len()).is_err() {
        return None;
    }
    out.extend_from_slice(&index);
    u32s(&mut out, &[1]);
    out.extend_from_slice(b"mdat");
    out.extend_from_slice(&payload.checked_add(16)?.to_be_bytes());
    Some(out)
}

/// Where each chunk of each track starts, and how many samples it has.
fn places(tracks: usize, chunks: &[Chunk], start: u64) -> Vec<Vec<(u64, u32)>> {
    let mut out = vec![Vec::new(); tracks];
    let mut at = start;
    for chunk in chunks {
        if let Some(list) = out.get_mut(chunk.track) {
            list.push((at, u32::try_from(chunk.samples).unwrap_or(u32::MAX)));
        }
        at = at.saturating_add(chunk.bytes);
    }
    out
}

fn moov(tracks: &[FileTrack], places: &[Vec<(u64, u32)>], tags: &[FileTag]) -> Vec<u8> {
    let mut out = Vec::new();
    let longest = tracks.iter().map(FileTrack::movie_ticks).max().unwrap_or(0);
    let next = u32::try_from(tracks.len()).unwrap_or(0).saturating_add(1);
    boxed(&mut out, b"moov", |o| {
        full(o, b"mvhd", 0, 0, |o| {
            u32s(o, &[0, 0, MOVIE_SCALE as u32, longest, 0x1_0000]);
            u16s(o, &[0x100, 0, 0, 0, 0, 0]);
            u32s(o, &MATRIX);
            u32s(o, &[0, 0, 0, 0, 0, 0, next]);
        });
        for ((id, track), places) in (1u32..).zip(tracks).zip(places) {
            boxed(o, b"trak", |o| track.trak(o, id, places));
        }
        if !tags.is_empty() {
            boxed(o, b"udta", |o| udta(o, tags));
        }
    });
    out
}

/// Tags as players of MP4 files look for them: the place as 3GPP and QuickTime have it, the rest as iTunes writes it.
fn udta(o: &mut Vec<u8>, tags: &[FileTag]) {
    for FileTag { value, .. } in tags.iter().filter(|t| t.tag == KeptTag::Location) {
        // Of no particular language.
        boxed(o, b"\xa9xyz", |o| {
            u16s(o, &[u16::try_from(value.len()).unwrap_or(0), 0x55c4]);
            o.extend_from_slice(value.as_bytes());
        });
    }
    full(o, b"meta", 0, 0, |o| {
        full(o, b"hdlr", 0, 0, |o| {
            u32s(o, &[0]);
            o.extend_from_slice(b"mdirappl");
            u32s(o, &[0, 0]);
            o.push(0);
        });
        boxed(o, b"ilst", |o| {
            for FileTag { tag, value } in tags {
                let name = match tag {
                    KeptTag::Title => b"\xa9nam",
                    KeptTag::Artist => b"\xa9ART",
                    KeptTag::Album => b"\xa9alb",
                    KeptTag::Date => b"\xa9day",
                    KeptTag::Location => continue,
                };
                // Text in UTF-8.
                boxed(o, name, |o| {
                    boxed(o, b"data", |o| {
                        u32s(o, &[1, 0]);
                        o.extend_from_slice(value.as_bytes());
                    });
                });
            }
        });
    });
}

impl FileTrack {
    /// What is shown, in the movie's ticks; rounded up, so that no frame is cut.
    fn movie_ticks(&self) -> u32 {
        let ticks = self.shown.saturating_mul(MOVIE_SCALE).div_ceil(u64::from(self.timescale.max(1)));
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    fn is_video(&self) -> bool {
        matches!(self.track, Track::Video { .. })
    }

    fn trak(&self, o: &mut Vec<u8>, id: u32, places: &[(u64, u32)]) {
        let (width, height, volume) = match &self.track {
            Track::Video { width, height, .. } => (u32::from(*width) << 16, u32::from(*height) << 16, 0),
            Track::Audio { .. } => (0, 0, 0x100),
        };
        // Enabled and in the movie; sound tracks are alternatives of each other.
        full(o, b"tkhd", 0, 3, |o| {
            u32s(o, &[0, 0, id, 0, self.movie_ticks(), 0, 0]);
            u16s(o, &[0, u16::from(!self.is_video()), volume, 0]);
            u32s(o, &MATRIX);
            u32s(o, &[width, height]);
        });
        boxed(o, b"edts", |o| {
            full(o, b"elst", 0, 0, |o| u32s(o, &[1, self.movie_ticks(), self.track.lead(), 0x1_0000]));
        });
        boxed(o, b"mdia", |o| {
            let ticks = self.samples.iter().fold(0u64, |sum, s| sum.saturating_add(u64::from(s.duration)));
            full(o, b"mdhd", 1, 0, |o| {
                o.extend_from_slice(&[0; 16]);
                u32s(o, &[self.timescale]);
                o.extend_from_slice(&ticks.to_be_bytes());
                u16s(o, &[packed(self.language.as_deref()), 0]);
            });
            full(o, b"hdlr", 0, 0, |o| {
                u32s(o, &[0]);
                o.extend_from_slice(if self.is_video() { b"vide" } else { b"soun" });
                u32s(o, &[0, 0, 0]);
                o.push(0);
            });
            boxed(o, b"minf", |o| {
                if self.is_video() {
                    full(o, b"vmhd", 0, 1, |o| u16s(o, &[0, 0, 0, 0]));
                } else {
                    full(o, b"smhd", 0, 0, |o| u16s(o, &[0, 0]));
                }
                boxed(o, b"dinf", |o| {
                    full(o, b"dref", 0, 0, |o| {
                        u32s(o, &[1]);
                        full(o, b"url ", 0, 1, |_| {});
                    });
                });
                boxed(o, b"stbl", |o| self.tables(o, places));
            });
        });
    }

    fn tables(&self, o: &mut Vec<u8>, places: &[(u64, u32)]) {
        full(o, b"stsd", 0, 0, |o| {
            u32s(o, &[1]);
            entry(o, &self.track);
        });
        full(o, b"stts", 0, 0, |o| runs(o, self.samples.iter().map(|s| s.duration)));
        if self.samples.iter().any(|s| s.offset != 0) {
            full(o, b"ctts", 0, 0, |o| runs(o, self.samples.iter().map(|s| s.offset)));
        }
        if self.samples.iter().any(|s| !s.key) {
            full(o, b"stss", 0, 0, |o| {
                let keys: Vec<u32> =
                    (1u32..).zip(&self.samples).filter(|(_, s)| s.key).map(|(n, _)| n).collect();
                u32s(o, &[count(keys.len())]);
                u32s(o, &keys);
            });
        }
        full(o, b"stsc", 0, 0, |o| {
            let mut rows: Vec<[u32; 3]> = Vec::new();
            for (number, (_, samples)) in (1u32..).zip(places) {
                if rows.last().is_none_or(|row| row[1] != *samples) {
                    rows.push([number, *samples, 1]);
                }
            }
            u32s(o, &[count(rows.len())]);
            rows.iter().for_each(|row| u32s(o, row));
        });
        full(o, b"stsz", 0, 0, |o| {
            u32s(o, &[0, count(self.samples.len())]);
            self.samples.iter().for_each(|s| u32s(o, &[s.size]));
        });
        full(o, b"co64", 0, 0, |o| {
            u32s(o, &[count(places.len())]);
            places.iter().for_each(|(at, _)| o.extend_from_slice(&at.to_be_bytes()));
        });
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A run-length table: how many, and of what.
fn runs(o: &mut Vec<u8>, values: impl Iterator<Item = u32>) {
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match rows.last_mut() {
            Some((many, last)) if *last == value => *many = many.saturating_add(1),
            _ => rows.push((1, value)),
        }
    }
    u32s(o, &[count(rows.len())]);
    rows.iter().for_each(|(many, value)| u32s(o, &[*many, *value]));
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::*;
    use crate::ff::frame::Color;
    use mpegflow_protocol::encoder::VideoCodec;

    fn tracks() -> Vec<FileTrack> {
        let color = Color { primaries: 1, transfer: 1, matrix: 1 };
        let video = Track::Video {
            codec: VideoCodec::H264,
            width: 64,
            height: 48,
            configuration: vec![1],
            color,
            delay: 3_000,
        };
        let sound = Track::Audio {
            rate: 48_000,
            channels: 2,
            configuration: vec![1, 2],
            priming: 1_024,
            bit_rate: 1,
        };
        let sample =
            |n: u32, duration| Sample { size: 100 + n, duration, offset: 3_000, key: n.is_multiple_of(30) };
        let packet = |_| Sample { size: 10, duration: 1_024, offset: 0, key: true };
        vec![
            FileTrack {
                track: video,
                timescale: 90_000,
                samples: (0..60).map(|n| sample(n, 3_000)).collect(),
                shown: 180_000,
                language: None,
            },
            FileTrack {
                track: sound,
                timescale: 48_000,
                samples: (0..94).map(packet).collect(),
                shown: 95_232,
                language: Some("deu".into()),
            },
        ]
    }

    #[test]
    fn tracks_take_turns_and_every_sample_has_its_place() {
        let tracks = tracks();
        let chunks = chunks(&tracks);
        assert_eq!(
            chunks[..3].iter().map(|c| (c.track, c.samples)).collect::<Vec<_>>(),
            [(0, 15), (1, 24), (0, 15)]
        );
        assert_eq!(tracks.len(), 2);
        for (number, track) in tracks.iter().enumerate() {
            let placed: usize = chunks.iter().filter(|c| c.track == number).map(|c| c.samples).sum();
            assert_eq!(placed, track.samples.len());
        }
        let head = head(&tracks, &chunks, &[]).unwrap();
        assert_eq!(&head[4..8], b"ftyp");
        let payload: u64 = tracks.iter().flat_map(|t| &t.samples).map(|s| u64::from(s.size)).sum();
        assert!(head.ends_with(&(payload + 16).to_be_bytes()));
        // The first chunk starts right behind the head.
        let co64 = head.windows(4).position(|w| w == b"co64").unwrap();
        assert_eq!(&head[co64 + 12..co64 + 20], &(head.len() as u64).to_be_bytes());
    }

    #[test]
    fn a_language_is_packed_as_the_standard_says() {
        assert_eq!(packed(None), 0x55c4);
        assert_eq!(packed(Some("eng")), 0x15c7);
        assert_eq!(packed(Some("EN")), 0x55c4);
    }
}
