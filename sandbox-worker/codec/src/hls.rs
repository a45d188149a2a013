//! A strict reader of HLS playlists, written apart from the writer: it takes what this packager may write and nothing else,
//! so that a line that a player might act on (a key, another address, a discontinuity) cannot pass unseen.

/// A media playlist as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) target_seconds: u64,
    pub(crate) map_uri: String,
    pub(crate) map_bytes: u64,
    pub(crate) segments: Vec<Range>,
}

/// One segment of a media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) micros: u64,
    pub(crate) bytes: u64,
    pub(crate) offset: u64,
    pub(crate) uri: String,
}

/// A variant of a multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) bandwidth: u64,
    pub(crate) average: u64,
    pub(crate) codecs: Vec<String>,
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) audio: Option<String>,
    pub(crate) uri: String,
}

/// A multivariant playlist as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multivariant {
    pub(crate) variants: Vec<Variant>,
    /// Group and address of each audio rendition.
    pub(crate) audio: Vec<(String, String)>,
}

/// Reads a media playlist.
///
/// # Errors
/// The first line that is wrong.
pub(crate) fn media(text: &[u8]) -> Result<Media, String> {
    let mut lines = Lines::new(text)?;
    lines.exactly("#EXTM3U")?;
    lines.exactly("#EXT-X-VERSION:7")?;
    let target_seconds = number(lines.after("#EXT-X-TARGETDURATION:")?)?;
    lines.exactly("#EXT-X-MEDIA-SEQUENCE:0")?;
    lines.exactly("#EXT-X-PLAYLIST-TYPE:VOD")?;
    lines.exactly("#EXT-X-INDEPENDENT-SEGMENTS")?;
    let map = lines.after("#EXT-X-MAP:")?;
    let map = attributes(map)?;
    let (Some(map_uri), Some(map_range), 2) = (quoted(&map, "URI"), quoted(&map, "BYTERANGE"), map.len())
    else {
        return Err("the map has not just an address and a byte range".into());
    };
    let (map_bytes, 0) = range(&map_range)? else { return Err("the map does not start the file".into()) };
    let mut segments = Vec::new();
    loop {
        let line = lines.next()?;
        if line == "#EXT-X-ENDLIST" {
            break;
        }
        let micros = line
            .strip_prefix("#EXTINF:")
            .and_then(|l| l.strip_suffix(','))
            .ok_or_else(|| unexpected(line))?;
        let micros = microseconds(micros)?;
        let (bytes, offset) = range(lines.after("#EXT-X-BYTERANGE:")?)?;
        let uri = lines.next()?;
        if uri.starts_with('#') {
            return Err(unexpected(uri));
        }
        segments.push(Range { micros, bytes, offset, uri: uri.to_owned() });
        if segments.len() > mpegflow_protocol::limits::MAX_SEGMENTS {
            return Err("too many segments".into());
        }
    }
    lines.end()?;
    Ok(Media { target_seconds, map_uri, map_bytes, segments })
}

/// Reads a multivariant playlist.
///
/// # Errors
/// The first line that is wrong.
pub(crate) fn multivariant(text: &[u8]) -> Result<Multivariant, String> {
    let mut lines = Lines::new(text)?;
    lines.exactly("#EXTM3U")?;
    lines.exactly("#EXT-X-VERSION:7")?;
    lines.exactly("#EXT-X-INDEPENDENT-SEGMENTS")?;
    let mut read = Multivariant { variants: Vec::new(), audio: Vec::new() };
    while !lines.is_empty() {
        let line = lines.next()?;
        if let Some(list) = line.strip_prefix("#EXT-X-MEDIA:") {
            let list = attributes(list)?;
            known(
                &list,
                &["TYPE", "GROUP-ID", "NAME", "LANGUAGE", "DEFAULT", "AUTOSELECT", "CHANNELS", "URI"],
            )?;
            let (Some("AUDIO"), Some(group), Some(uri)) =
                (plain(&list, "TYPE"), quoted(&list, "GROUP-ID"), quoted(&list, "URI"))
            else {
                return Err(unexpected(line));
            };
            read.audio.push((group, uri));
        } else if let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") {
            let list = attributes(list)?;
            known(&list, &["BANDWIDTH", "AVERAGE-BANDWIDTH", "CODECS", "RESOLUTION", "FRAME-RATE", "AUDIO"])?;
            let need = |name: &str| plain(&list, name).ok_or_else(|| format!("a variant has no {name}"));
            let size = match plain(&list, "RESOLUTION").and_then(|r| r.split_once('x')) {
                Some((w, h)) => {
                    Some((w.parse().map_err(|_| unexpected(w))?, h.parse().map_err(|_| unexpected(h))?))
                }
                None => None,
            };
            let uri = lines.next()?;
            if uri.starts_with('#') {
                return Err(unexpected(uri));
            }
            read.variants.push(Variant {
                bandwidth: number(need("BANDWIDTH")?)?,
                average: number(need("AVERAGE-BANDWIDTH")?)?,
                codecs: quoted(&list, "CODECS")
                    .ok_or("a variant has no CODECS")?
                    .split(',')
                    .map(str::to_owned)
                    .collect(),
                size,
                audio: quoted(&list, "AUDIO"),
                uri: uri.to_owned(),
            });
        } else {
            return Err(unexpected(line));
        }
    }
    Ok(read)
}

struct Lines<'a>(std::str::Lines<'a>, Option<&'a str>);

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
        if text.bytes().any(|b| !(32..127).contains(&b) && b != b'\n') || !text.ends_with('\n') {
            return Err("it holds characters that none may hold".into());
        }
        let mut lines = text.lines();
        let first = lines.next();
        Ok(Self(lines, first))
    }

    fn is_empty(&self) -> bool {
        self.1.is_none()
    }

    fn next(&mut self) -> Result<&'a str, String> {
        let line = self.1.ok_or("it ends too early")?;
        self.1 = self.0.next();
        Ok(line)
    }

    fn exactly(&mut self, wanted: &str) -> Result<(), String> {
        let line = self.next()?;
        if line == wanted { Ok(()) } else { Err(unexpected(line)) }
    }

    fn after(&mut self, tag: &str) -> Result<&'a str, String> {
        let line = self.next()?;
        line.strip_prefix(tag).ok_or_else(|| unexpected(line))
    }

    fn end(&mut self) -> Result<(), String> {
        self.1.map_or(Ok(()), |line| Err(unexpected(line)))
    }
}

fn unexpected(line: &str) -> String {
    format!("unexpected: {}", mpegflow_protocol::text::clean(line, 80))
}

fn number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| unexpected(text))
}

fn microseconds(text: &str) -> Result<u64, String> {
    let (seconds, fraction) = text.split_once('.').ok_or_else(|| unexpected(text))?;
    if fraction.len() != 6 {
        return Err(unexpected(text));
    }
    let whole = number(seconds)?.checked_mul(1_000_000).ok_or_else(|| unexpected(text))?;
    whole.checked_add(number(fraction)?).ok_or_else(|| unexpected(text))
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (bytes, offset) = text.split_once('@').ok_or_else(|| unexpected(text))?;
    Ok((number(bytes)?, number(offset)?))
}

type Attributes<'a> = Vec<(&'a str, &'a str)>;

fn attributes(text: &str) -> Result<Attributes<'_>, String> {
    let mut out: Attributes<'_> = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=').ok_or_else(|| unexpected(rest))?;
        let len = match after.strip_prefix('"') {
            Some(inside) => inside.find('"').ok_or_else(|| unexpected(after))?.saturating_add(2),
            None => after.find(',').unwrap_or(after.len()),
        };
        let (value, tail) = after.split_at_checked(len).ok_or_else(|| unexpected(after))?;
        if out.iter().any(|(n, _)| *n == name) {
            return Err(format!("the attribute {} is there twice", mpegflow_protocol::text::clean(name, 40)));
        }
        out.push((name, value));
        if tail.is_empty() {
            return Ok(out);
        }
        rest = tail.strip_prefix(',').ok_or_else(|| unexpected(tail))?;
    }
}

fn known(list: &Attributes<'_>, names: &[&str]) -> Result<(), String> {
    match list.iter().find(|(name, _)| !names.contains(name)) {
        Some((name, _)) => Err(unexpected(name)),
        None => Ok(()),
    }
}

fn plain<'a>(list: &Attributes<'a>, name: &str) -> Option<&'a str> {
    list.iter().find(|(n, v)| *n == name && !v.starts_with('"')).map(|(_, v)| *v)
}

fn quoted(list: &Attributes<'_>, name: &str) -> Option<String> {
    let (_, value) = list.iter().find(|(n, _)| *n == name)?;
    value.strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n\
        #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"v.mp4\",BYTERANGE=\"700@0\"\n\
        #EXTINF:2.000000,\n#EXT-X-BYTERANGE:1000@700\nv.mp4\n#EXT-X-ENDLIST\n";

    #[test]
    fn a_playlist_is_read_and_anything_else_in_it_is_refused() {
        let read = media(MEDIA.as_bytes()).unwrap();
        assert_eq!((read.map_bytes, read.segments[0].micros, read.segments[0].offset), (700, 2_000_000, 700));
        for (from, to) in [
            ("#EXTINF:2", "#EXT-X-KEY:METHOD=AES-128,URI=\"http://x\"\n#EXTINF:2"),
            ("#EXTINF:2", "#EXT-X-DISCONTINUITY\n#EXTINF:2"),
            ("2.000000", "2.0"),
            ("1000@700", "1000"),
            ("700@0\"", "700@0\",X=1"),
            ("v.mp4\n#EXT-X-END", "v.mp4\r\n#EXT-X-END"),
            ("#EXT-X-ENDLIST\n", ""),
            ("#EXT-X-ENDLIST\n", "#EXT-X-ENDLIST\nv2.mp4\n"),
            ("#EXT-X-VERSION:7", "#EXT-X-VERSION:3"),
        ] {
            assert!(media(MEDIA.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
