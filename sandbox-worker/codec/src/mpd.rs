//! The DASH media presentation description (ISO/IEC 23009-1, on-demand profile) of a CMAF set: one file for each
//! representation, addressed by the index at its start. Pure.

use crate::playlist::{Listed, ListedKind};
use mpegflow_protocol::text::language_tag;
use std::fmt::Write;

/// The description of these tracks, whose segments are about `segment_ms` long.
pub(crate) fn description(tracks: &[Listed], segment_ms: u32) -> String {
    let micros = tracks.iter().map(Listed::micros_in_all).max().unwrap_or(0);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\" \
         type=\"static\" mediaPresentationDuration=\"PT{}.{:06}S\" minBufferTime=\"PT{}.{:03}S\">",
        micros / 1_000_000,
        micros % 1_000_000,
        segment_ms / 1_000,
        segment_ms % 1_000,
    );
    out.push_str(" <Period id=\"0\">\n");
    let video = || tracks.iter().filter(|t| matches!(t.kind, ListedKind::Video { .. }));
    let mut set = 0u32;
    if video().next().is_some() {
        set_head(&mut out, set, "video", None);
        video().for_each(|t| representation(&mut out, t));
        out.push_str("  </AdaptationSet>\n");
        set = set.saturating_add(1);
    }
    for track in tracks {
        let ListedKind::Audio { language, .. } = &track.kind else { continue };
        set_head(&mut out, set, "audio", language.as_deref().and_then(language_tag));
        representation(&mut out, track);
        out.push_str("  </AdaptationSet>\n");
        set = set.saturating_add(1);
    }
    out.push_str(" </Period>\n</MPD>\n");
    out
}

fn set_head(out: &mut String, id: u32, kind: &str, language: Option<&str>) {
    let _ = write!(out, "  <AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{kind}/mp4\"");
    if let Some(language) = language {
        let _ = write!(out, " lang=\"{language}\"");
    }
    out.push_str(" subsegmentAlignment=\"true\" subsegmentStartsWithSAP=\"1\">\n");
}

fn representation(out: &mut String, track: &Listed) {
    let id = track.media_uri.strip_suffix(".mp4").unwrap_or(&track.media_uri);
    let _ = write!(
        out,
        "   <Representation id=\"{id}\" codecs=\"{}\" bandwidth=\"{}\"",
        track.codecs,
        track.bit_rates().peak
    );
    match &track.kind {
        ListedKind::Video { width, height, frames } => {
            // The average: exact where the frames are evenly spaced, and true of all of them otherwise.
            let (mut num, mut den) =
                (frames.saturating_mul(u64::from(track.timescale)), track.ticks().max(1));
            let by = common(num, den);
            (num, den) = (num.checked_div(by).unwrap_or(num), den.checked_div(by).unwrap_or(den));
            let _ = writeln!(
                out,
                " width=\"{width}\" height=\"{height}\" sar=\"1:1\" frameRate=\"{num}/{den}\">"
            );
        }
        ListedKind::Audio { channels, rate, .. } => {
            let _ = writeln!(
                out,
                " audioSamplingRate=\"{rate}\">\n    <AudioChannelConfiguration \
                 schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" value=\"{channels}\"/>"
            );
        }
    }
    let last = |end: u64| end.saturating_sub(1);
    let index_end = track.init_bytes.saturating_add(track.index_bytes);
    let _ = writeln!(
        out,
        "    <BaseURL>{}</BaseURL>\n    <SegmentBase timescale=\"{}\" indexRange=\"{}-{}\">\n     <Initialization \
         range=\"0-{}\"/>\n    </SegmentBase>\n   </Representation>",
        track.media_uri,
        track.timescale,
        track.init_bytes,
        last(index_end),
        last(track.init_bytes),
    );
}

fn common(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Segment;

    #[test]
    fn a_description_addresses_each_file_by_its_index() {
        let segment = Segment { offset: 764, bytes: 1_000, start: 0, end: 180_000 };
        let video = Listed {
            media_uri: "video-360p.mp4".into(),
            playlist_uri: "video-360p.m3u8".into(),
            init_bytes: 700,
            index_bytes: 64,
            segments: vec![segment],
            timescale: 90_000,
            codecs: "avc1.64001f".into(),
            kind: ListedKind::Video { width: 640, height: 360, frames: 60 },
        };
        let sound = Listed {
            media_uri: "audio.mp4".into(),
            codecs: "mp4a.40.2".into(),
            kind: ListedKind::Audio { channels: 2, rate: 48_000, language: Some("deu".into()) },
            ..video.clone()
        };
        let text = description(&[video, sound], 4_000);
        for part in [
            "mediaPresentationDuration=\"PT2.000000S\" minBufferTime=\"PT4.000S\"",
            "<AdaptationSet id=\"1\" contentType=\"audio\" mimeType=\"audio/mp4\" lang=\"de\"",
            "width=\"640\" height=\"360\" sar=\"1:1\" frameRate=\"30/1\"",
            "indexRange=\"700-763\"",
            "<Initialization range=\"0-699\"/>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
