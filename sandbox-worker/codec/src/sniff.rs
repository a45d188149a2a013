//! What the first bytes are: which demuxer may open the input, or why none may. Names and types that a tenant gave play no
//! part.

use crate::caps;
use crate::decoders;
use crate::ff::io::ReadAt;
use crate::ff::probe;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::job::DecoderSet;

/// The name of the demuxer that may open the input.
///
/// # Errors
/// One documented failure for each kind of input that is no recording.
pub(crate) fn choose(source: &mut dyn ReadAt, set: DecoderSet) -> Result<&'static str, Failure> {
    let fail = |code, message: &str| Err(Failure::new(code, message));
    if source.len() == 0 {
        return fail(FailureCode::InputEmpty, "the input is empty");
    }
    let mut size = 4 << 10;
    let mut head = Vec::new();
    loop {
        read_head(source, &mut head, size)?;
        if let Some(what) = playlist(&head) {
            let message =
                format!("the input is {what}, which refers to other files; upload the media itself");
            return fail(FailureCode::InputIsPlaylist, &message);
        }
        if let Some(what) = image(&head) {
            return fail(FailureCode::InputIsImage, &format!("the input is a still image ({what})"));
        }
        let guess = probe::guess(&head);
        let whole = head.len() < size;
        // As FFmpeg itself does it: a low score asks for a longer look, the last look takes what there is.
        if let Some((name, score)) = &guess
            && (*score > 25 || whole || size >= caps::SNIFF_BYTES)
        {
            return verdict(name, *score, set);
        }
        if whole || size >= caps::SNIFF_BYTES {
            let text = looks_like_text(&head);
            return fail(
                FailureCode::InputUnrecognised,
                if text {
                    "the input is text, not media"
                } else {
                    "the input is not media in any known format"
                },
            );
        }
        size = size.saturating_mul(4).min(caps::SNIFF_BYTES);
    }
}

fn verdict(name: &str, score: i32, set: DecoderSet) -> Result<&'static str, Failure> {
    let fail = |code, message: String| Err(Failure::new(code, message));
    if let Some(entry) = decoders::demuxer_entry(name) {
        // Raw MPEG audio and video match a lot by chance; FFmpeg gives such a match a low score.
        if score <= 2 {
            return fail(FailureCode::InputUnrecognised, "the input is not media in any known format".into());
        }
        if decoders::is_banned(entry.name) {
            return Err(decoders::banned(entry.name));
        }
        if decoders::may_demux(entry, set) {
            return Ok(entry.name);
        }
        let what = entry.people;
        return fail(
            FailureCode::DecoderNotAllowed,
            format!(
                "the input is {what}, which is not in the core set; ask for \"decoders\": \"legacy\" or convert it"
            ),
        );
    }
    const PLAYLISTS: [&str; 9] =
        ["hls", "dash", "concat", "webm_dash_manifest", "sdp", "rtsp", "imf", "applehttp", "vobsub"];
    const IMAGES: [&str; 6] = ["image2", "gif", "ico", "apng", "jpegxl", "svg"];
    let is = |list: &[&str]| name.split(',').any(|n| list.contains(&n));
    if is(&PLAYLISTS) {
        return fail(
            FailureCode::InputIsPlaylist,
            format!("the input is a playlist ({name}); upload the media itself"),
        );
    }
    if is(&IMAGES) || name.ends_with("_pipe") {
        return fail(FailureCode::InputIsImage, format!("the input is a still image ({name})"));
    }
    let accepted: Vec<_> = decoders::DEMUXERS.iter().map(|d| d.people).collect();
    fail(
        FailureCode::InputUnrecognised,
        format!("the format {name} is not accepted; convert the input to one of {}", accepted.join(", ")),
    )
}

fn read_head(source: &mut dyn ReadAt, head: &mut Vec<u8>, size: usize) -> Result<(), Failure> {
    let mut at = head.len();
    head.resize(size, 0);
    while at < size {
        let Some(rest) = head.get_mut(at..) else { break };
        match source.read_at(at as u64, rest) {
            Ok(0) => break,
            Ok(n) => at = at.saturating_add(n),
            Err(e) => {
                return Err(Failure::new(
                    FailureCode::StorageError,
                    format!("the input could not be read: {e}"),
                ));
            }
        }
    }
    head.truncate(at);
    Ok(())
}

fn playlist(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts = |word: &str| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word.as_bytes()));
    let early = text.get(..text.len().min(4096)).unwrap_or(&[]);
    let has = |word: &str| early.windows(word.len().max(1)).any(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    if starts("#EXTM3U") {
        return Some("an HLS or M3U playlist");
    }
    if starts("ffconcat version") {
        return Some("an ffconcat script");
    }
    if starts("[playlist]") || starts("[reference]") || starts("<asx") {
        return Some("a playlist");
    }
    if starts("<") {
        for (word, what) in [
            ("<MPD", "a DASH manifest"),
            ("<SmoothStreamingMedia", "a Smooth Streaming manifest"),
            ("<smil", "a SMIL playlist"),
            ("<CompositionPlaylist", "an IMF playlist"),
            ("<playlist", "a playlist"),
        ] {
            if has(word) {
                return Some(what);
            }
        }
    }
    // ffmpeg's concat demuxer also takes scripts without the header line.
    if starts("file ") && looks_like_text(early) {
        return Some("a concat script");
    }
    None
}

fn image(head: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..offset.saturating_add(magic.len())).is_some_and(|b| b == magic)
    };
    let known: [(bool, &str); 12] = [
        (starts(b"\x89PNG\r\n\x1a\n"), "PNG"),
        (starts(b"\xff\xd8\xff"), "JPEG"),
        (starts(b"GIF87a") || starts(b"GIF89a"), "GIF"),
        (starts(b"BM") && at(6, &[0, 0, 0, 0]), "BMP"),
        (starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0"), "TIFF"),
        (starts(b"RIFF") && at(8, b"WEBP"), "WebP"),
        (starts(b"8BPS"), "Photoshop"),
        (starts(b"\0\0\x01\0") && head.len() > 22 && !at(4, b"\0\0"), "ICO"),
        (starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL "), "JPEG XL"),
        (starts(b"\0\0\0\x0cjP  "), "JPEG 2000"),
        (starts(b"<svg"), "SVG"),
        (
            at(4, b"ftyp") && ["avif", "heic", "heix", "mif1", "heim"].iter().any(|b| at(8, b.as_bytes())),
            "HEIF",
        ),
    ];
    known.iter().find(|(is, _)| *is).map(|(_, what)| *what)
}

fn looks_like_text(head: &[u8]) -> bool {
    let head = head.get(..head.len().min(4096)).unwrap_or(&[]);
    !head.iter().any(|b| *b < 9 || (14..32).contains(b) && *b != 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> FailureCode {
        choose(&mut bytes.to_vec(), DecoderSet::Legacy).unwrap_err().code
    }

    #[test]
    fn what_is_no_recording_is_named_as_what_it_is() {
        use FailureCode::{InputEmpty, InputIsImage, InputIsPlaylist, InputUnrecognised};
        for (bytes, expected) in [
            (&b""[..], InputEmpty),
            (b"hello, this is a text\n", InputUnrecognised),
            (b"\x00\x01\x02\x03\x04\x05\x06\x07", InputUnrecognised),
            (b"\xef\xbb\xbf#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n", InputIsPlaylist),
            (b"<?xml version=\"1.0\"?>\n<mpd xmlns=\"urn:mpeg:dash:schema:mpd:2011\">", InputIsPlaylist),
            (b"ffconcat version 1.0\nfile '/etc/passwd'\n", InputIsPlaylist),
            (b"\n\n  file '/etc/passwd'\n", InputIsPlaylist),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", InputIsImage),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", InputIsImage),
            (b"GIF89a\x01\0\x01\0", InputIsImage),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", InputIsImage),
            (
                b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 10.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
                InputIsPlaylist,
            ),
        ] {
            assert_eq!(code(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
