//! HLS playlists (RFC 8216): one media playlist for each track, addressing it by byte ranges, and the multivariant playlist.
//! Pure.

use crate::track::Segment;
use mpegflow_protocol::text::language_tag;
use std::fmt::Write;

/// One track as the playlists need it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) media_uri: String,
    pub(crate) playlist_uri: String,
    pub(crate) init_bytes: u64,
    /// Bytes of the index between the header and the first segment.
    pub(crate) index_bytes: u64,
    pub(crate) segments: Vec<Segment>,
    /// Ticks per second of the segments' times.
    pub(crate) timescale: u32,
    pub(crate) codecs: String,
    pub(crate) kind: ListedKind,
}

/// What is said of a track in the multivariant playlist.
#[derive(Debug, Clone)]
pub(crate) enum ListedKind {
    Video { width: u32, height: u32, frames: u64 },
    Audio { channels: u32, rate: u32, language: Option<String> },
}

/// Bit rates as HLS defines them, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitRates {
    /// The largest over any run of segments that lasts 0.5 to 1.5 target durations (RFC 8216, 4.1).
    pub(crate) peak: u64,
    pub(crate) average: u64,
}

impl Listed {
    /// Ticks from the first segment's start to the last one's end.
    pub(crate) fn ticks(&self) -> u64 {
        let start = self.segments.first().map_or(0, |s| s.start);
        let end = self.segments.last().map_or(0, |s| s.end);
        u64::try_from(end.saturating_sub(start)).unwrap_or(0)
    }

    /// Milliseconds of the whole track.
    pub(crate) fn duration_ms(&self) -> u64 {
        self.ticks().saturating_mul(1_000).checked_div(u64::from(self.timescale)).unwrap_or(0)
    }

    /// Microseconds of the whole track.
    pub(crate) fn micros_in_all(&self) -> u64 {
        rounded(self.ticks().saturating_mul(1_000_000), u64::from(self.timescale))
    }

    /// The target duration: no segment is longer, rounded to seconds.
    pub(crate) fn target_seconds(&self) -> u64 {
        let longest = self.segments.iter().map(|s| self.micros(s)).max().unwrap_or(0);
        (longest.saturating_add(500_000) / 1_000_000).max(1)
    }

    fn micros(&self, segment: &Segment) -> u64 {
        let ticks = u64::try_from(segment.end.saturating_sub(segment.start)).unwrap_or(0);
        rounded(ticks.saturating_mul(1_000_000), u64::from(self.timescale))
    }

    /// Bit rates of this track.
    pub(crate) fn bit_rates(&self) -> BitRates {
        let rate = |bytes: u64, micros: u64| {
            let bits = u128::from(bytes).saturating_mul(8_000_000);
            u64::try_from(bits.div_ceil(u128::from(micros.max(1)))).unwrap_or(u64::MAX)
        };
        let total: u64 = self.segments.iter().map(|s| s.bytes).fold(0, u64::saturating_add);
        let average = rate(total, self.segments.iter().map(|s| self.micros(s)).fold(0, u64::saturating_add));
        let target = self.target_seconds().saturating_mul(1_000_000);
        let mut peak = average;
        for first in 0..self.segments.len() {
            let (mut bytes, mut micros) = (0u64, 0u64);
            for segment in self.segments.iter().skip(first) {
                bytes = bytes.saturating_add(segment.bytes);
                micros = micros.saturating_add(self.micros(segment));
                if micros > target.saturating_add(target / 2) {
                    break;
                }
                if micros >= target / 2 {
                    peak = peak.max(rate(bytes, micros));
                }
            }
        }
        BitRates { peak, average }
    }

    /// The media playlist.
    pub(crate) fn media_playlist(&self) -> String {
        let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target_seconds());
        out.push_str("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n");
        let _ = writeln!(out, "#EXT-X-MAP:URI=\"{}\",BYTERANGE=\"{}@0\"", self.media_uri, self.init_bytes);
        // Rounded where segments meet, not one by one, so that the sum does not drift.
        let mut told = 0u64;
        let start = self.segments.first().map_or(0, |s| s.start);
        for segment in &self.segments {
            let ticks = u64::try_from(segment.end.saturating_sub(start)).unwrap_or(0);
            let until = rounded(ticks.saturating_mul(1_000_000), u64::from(self.timescale));
            let micros = until.saturating_sub(told);
            told = until;
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            let _ = writeln!(out, "#EXTINF:{seconds}.{rest:06},");
            let _ =
                writeln!(out, "#EXT-X-BYTERANGE:{}@{}\n{}", segment.bytes, segment.offset, self.media_uri);
        }
        out.push_str("#EXT-X-ENDLIST\n");
        out
    }
}

/// The multivariant playlist of these tracks.
pub(crate) fn multivariant(tracks: &[Listed]) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let audio: Vec<&Listed> = tracks.iter().filter(|t| matches!(t.kind, ListedKind::Audio { .. })).collect();
    let has_video = audio.len() < tracks.len();
    // Without video the renditions are the variants themselves.
    if has_video {
        for (index, track) in audio.iter().enumerate() {
            let ListedKind::Audio { channels, language, .. } = &track.kind else { continue };
            let _ = write!(
                out,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio {}\"",
                index.saturating_add(1)
            );
            if let Some(language) = language.as_deref().and_then(language_tag) {
                let _ = write!(out, ",LANGUAGE=\"{language}\"");
            }
            let default = if index == 0 { "YES" } else { "NO" };
            let _ = writeln!(
                out,
                ",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{}\"",
                track.playlist_uri
            );
        }
    }
    let none = BitRates { peak: 0, average: 0 };
    let sound = audio
        .iter()
        .map(|t| t.bit_rates())
        .reduce(|a, b| BitRates { peak: a.peak.max(b.peak), average: a.average.max(b.average) });
    let mut sound_codecs: Vec<&str> = audio.iter().map(|t| t.codecs.as_str()).collect();
    sound_codecs.sort_unstable();
    sound_codecs.dedup();
    for track in tracks {
        let rates = track.bit_rates();
        match &track.kind {
            ListedKind::Video { width, height, frames } => {
                let sound = sound.unwrap_or(none);
                let codecs: Vec<&str> =
                    std::iter::once(track.codecs.as_str()).chain(sound_codecs.iter().copied()).collect();
                let milli_rate = frames
                    .saturating_mul(1_000)
                    .checked_mul(u64::from(track.timescale))
                    .map_or(0, |n| rounded(n, track.ticks().max(1)));
                let _ = write!(
                    out,
                    "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\",RESOLUTION={width}x{height},\
                     FRAME-RATE={}.{:03}",
                    rates.peak.saturating_add(sound.peak),
                    rates.average.saturating_add(sound.average),
                    codecs.join(","),
                    milli_rate / 1_000,
                    milli_rate % 1_000,
                );
                let _ = writeln!(out, "{}", if audio.is_empty() { "" } else { ",AUDIO=\"audio\"" });
                let _ = writeln!(out, "{}", track.playlist_uri);
            }
            ListedKind::Audio { .. } if !has_video => {
                let _ = writeln!(
                    out,
                    "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\"\n{}",
                    rates.peak, rates.average, track.codecs, track.playlist_uri
                );
            }
            ListedKind::Audio { .. } => {}
        }
    }
    out
}

/// Whether a playlist may name this address: a plain file name, so that nothing can be smuggled into a line or attribute,
/// and no player is sent elsewhere.
pub(crate) fn is_plain_uri(uri: &str) -> bool {
    !uri.is_empty()
        && uri.len() <= 128
        && !uri.starts_with('.')
        && uri.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn rounded(value: u64, by: u64) -> u64 {
    value.saturating_add(by / 2).checked_div(by).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::*;

    fn track(kind: ListedKind) -> Listed {
        let segment = |n: i64, bytes, end| Segment { offset: 700, bytes, start: n * 180_000, end };
        Listed {
            media_uri: "v.mp4".into(),
            playlist_uri: "v.m3u8".into(),
            init_bytes: 700,
            index_bytes: 0,
            segments: vec![
                segment(0, 250_000, 180_000),
                segment(1, 500_000, 360_000),
                // Too short to count alone.
                segment(2, 100_000, 369_000),
            ],
            timescale: 90_000,
            codecs: "avc1.64001f".into(),
            kind,
        }
    }

    #[test]
    fn bit_rates_are_those_of_the_rfc() {
        let track = track(ListedKind::Video { width: 640, height: 360, frames: 123 });
        // Two seconds of 500,000 bytes; the short end counts with its neighbour only: 600,000 bytes in 2.1 seconds.
        let last_two = 600_000u64 * 80 / 21 + 1;
        assert_eq!(track.bit_rates(), BitRates { peak: last_two, average: 850_000 * 80 / 41 + 1 });
        assert_eq!(track.target_seconds(), 2);
        assert_eq!(track.duration_ms(), 4_100);
    }

    #[test]
    fn playlists_are_written_out_as_players_expect() {
        let video = track(ListedKind::Video { width: 640, height: 360, frames: 123 });
        let mut sound = track(ListedKind::Audio { channels: 2, rate: 48_000, language: Some("deu".into()) });
        sound.codecs = "mp4a.40.2".into();
        sound.playlist_uri = "a.m3u8".into();
        let list = video.media_playlist();
        assert!(list.starts_with("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n"), "{list}");
        assert!(
            list.contains("#EXTINF:0.100000,\n#EXT-X-BYTERANGE:100000@700\nv.mp4\n#EXT-X-ENDLIST\n"),
            "{list}"
        );
        let both = multivariant(&[video, sound.clone()]);
        assert!(
            both.contains("LANGUAGE=\"de\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"a.m3u8\""),
            "{both}"
        );
        assert!(both.contains(
            "CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=30.000,AUDIO=\"audio\""
        ));
        let alone = multivariant(&[sound]);
        assert!(
            !alone.contains("EXT-X-MEDIA:") && alone.contains("CODECS=\"mp4a.40.2\"\na.m3u8\n"),
            "{alone}"
        );
    }

    #[test]
    fn an_address_is_a_plain_name() {
        assert!(is_plain_uri("video-720p.mp4"));
        for bad in ["", "../x", ".x", "a/b", "a\nb", "a\"b", "http://x", "a b"] {
            assert!(!is_plain_uri(bad), "{bad}");
        }
    }
}
