//! The DASH description, read by a strict reader that shares nothing with the writer: it takes the elements and attributes that
//! may be there and nothing else, so that nothing a player might act on (another address, an event stream, a licence server)
//! can pass unseen. Then each representation is held against the track it names.

use super::tracks::Found;
use super::{Problems, text};
use crate::source::Inputs;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::task::{CheckTask, CheckTrack, ExpectTrack};
use std::collections::BTreeMap;

/// Elements with the attributes each may have.
const KNOWN: [(&str, &[&str]); 8] = [
    ("MPD", &["xmlns", "profiles", "type", "mediaPresentationDuration", "minBufferTime"]),
    ("Period", &["id"]),
    (
        "AdaptationSet",
        &["id", "contentType", "mimeType", "lang", "subsegmentAlignment", "subsegmentStartsWithSAP"],
    ),
    (
        "Representation",
        &["id", "codecs", "bandwidth", "width", "height", "sar", "frameRate", "audioSamplingRate"],
    ),
    ("AudioChannelConfiguration", &["schemeIdUri", "value"]),
    ("BaseURL", &[]),
    ("SegmentBase", &["timescale", "indexRange"]),
    ("Initialization", &["range"]),
];

/// Checks the description.
///
/// # Errors
/// Only where it could not be read.
pub(super) fn check(
    task: &CheckTask,
    inputs: &Inputs,
    input: u32,
    found: &[Found],
    problems: &mut Problems,
) -> Result<(), Failure> {
    const NAME: &str = "DASH description";
    let root = match text(inputs, input)?.and_then(|t| parse(&t)) {
        Ok(root) => root,
        Err(what) => {
            problems.add(NAME, what);
            return Ok(());
        }
    };
    if let Err(what) = presentation(&root, found) {
        problems.add(NAME, what);
    }
    let sets: Vec<&Element> = root.children.iter().flat_map(|p| &p.children).collect();
    let listed: Vec<(&Element, &Element)> =
        sets.iter().flat_map(|s| s.children.iter().map(|r| (*s, r))).collect();
    if listed.len() != task.tracks.len() {
        problems.add(NAME, format!("{} representations for {} tracks", listed.len(), task.tracks.len()));
        return Ok(());
    }
    for (((set, representation), track), found) in listed.into_iter().zip(&task.tracks).zip(found) {
        if let Err(what) = held(set, representation, track, found) {
            problems.add(NAME, format!("{}: {what}", track.media_uri));
        }
    }
    Ok(())
}

fn presentation(root: &Element, found: &[Found]) -> Result<(), String> {
    let [period] = root.children.as_slice() else { return Err("it has not one period".into()) };
    if root.name != "MPD"
        || root.attribute("type") != Some("static")
        || root.attribute("xmlns") != Some("urn:mpeg:dash:schema:mpd:2011")
        || period.name != "Period"
        || period.children.iter().any(|s| s.name != "AdaptationSet")
        || period.children.iter().flat_map(|s| &s.children).any(|r| r.name != "Representation")
    {
        return Err("its elements are not in their places".into());
    }
    let lasts = root.attribute("mediaPresentationDuration").and_then(seconds).ok_or("it has no duration")?;
    let longest = found.iter().map(|f| f.counted.duration_ms).max().unwrap_or(0);
    if lasts.abs_diff(longest) > 50 {
        return Err(format!("it says {lasts} ms, the longest track lasts {longest}"));
    }
    Ok(())
}

/// `PT12.345678S` in milliseconds.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.strip_prefix("PT")?.strip_suffix('S')?.split_once('.')?;
    let millis = fraction.get(..3).filter(|_| fraction.bytes().all(|b| b.is_ascii_digit()))?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(millis.parse().ok()?)
}

fn held(set: &Element, element: &Element, track: &CheckTrack, found: &Found) -> Result<(), String> {
    let (kind, children) = match track.expect {
        ExpectTrack::Video { .. } => ("video", &["BaseURL", "SegmentBase"][..]),
        ExpectTrack::Audio { .. } => ("audio", &["AudioChannelConfiguration", "BaseURL", "SegmentBase"][..]),
    };
    if !element.children.iter().map(|c| c.name.as_str()).eq(children.iter().copied()) {
        return Err("it is not written as planned".into());
    }
    let child = |name: &str| element.children.iter().find(|c| c.name == name);
    if set.attribute("mimeType") != Some(format!("{kind}/mp4").as_str())
        || set.attribute("contentType") != Some(kind)
    {
        return Err("it is in the wrong set".into());
    }
    if child("BaseURL").map(|b| b.text.as_str()) != Some(track.media_uri.as_str()) {
        return Err("it names another file".into());
    }
    if found.codecs.is_none() || element.attribute("codecs") != found.codecs.as_deref() {
        return Err("its codecs are not the track's".into());
    }
    let bandwidth: u64 = element.attribute("bandwidth").and_then(|b| b.parse().ok()).unwrap_or(0);
    if bandwidth < found.largest_rate {
        return Err(format!(
            "its bandwidth {bandwidth} is below what the track needs ({})",
            found.largest_rate
        ));
    }
    let number = |name: &str| element.attribute(name).and_then(|v| v.parse::<u32>().ok());
    match track.expect {
        ExpectTrack::Video { width, height, .. }
            if (number("width"), number("height")) != (Some(width), Some(height)) =>
        {
            return Err("its size is not the track's".into());
        }
        ExpectTrack::Audio { sample_rate, .. } if number("audioSamplingRate") != Some(sample_rate) => {
            return Err("its sampling rate is not the track's".into());
        }
        _ => {}
    }
    let base = child("SegmentBase").ok_or("it has no segments")?;
    let (header, index) = found.header;
    let end = header.saturating_add(index);
    let range = |from: u64, to: u64| format!("{from}-{}", to.saturating_sub(1));
    let [initialization] = base.children.as_slice() else { return Err("it has no initialization".into()) };
    if base.attribute("indexRange") != Some(range(header, end).as_str())
        || initialization.name != "Initialization"
        || initialization.attribute("range") != Some(range(0, header).as_str())
    {
        return Err("its ranges are not those of the file".into());
    }
    Ok(())
}

/// An element with what is in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// Reads a description. No entity, comment, processing instruction or document type is taken.
fn parse(bytes: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    if text.bytes().any(|b| !(32..127).contains(&b) && b != b'\n') || text.contains('&') {
        return Err("it holds characters that none may hold".into());
    }
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    let mut rest = text.strip_prefix(declaration).ok_or("it does not start like XML")?;
    let mut open: Vec<Element> = Vec::new();
    loop {
        let (before, tag) = rest.split_once('<').ok_or("it ends inside an element")?;
        let (tag, after) = tag.split_once('>').ok_or("it ends inside a tag")?;
        rest = after;
        match open.last_mut() {
            Some(element) if element.name == "BaseURL" => element.text.push_str(before),
            _ if before.trim().is_empty() => {}
            _ => return Err("there is text where none may be".into()),
        }
        if let Some(name) = tag.strip_prefix('/') {
            let done = open.pop().filter(|e| e.name == name).ok_or("its tags do not match")?;
            match open.last_mut() {
                Some(parent) => parent.children.push(done),
                None if rest.trim().is_empty() => return Ok(done),
                None => return Err("something follows its end".into()),
            }
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |t| (t, true));
        let element = element(tag)?;
        if open.len() >= 8 {
            return Err("its elements are too deep".into());
        }
        match open.last_mut() {
            Some(parent) if empty => parent.children.push(element),
            _ => open.push(element),
        }
    }
}

fn element(tag: &str) -> Result<Element, String> {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    let unknown = |what: &str| format!("unexpected: {}", mpegflow_protocol::text::clean(what, 80));
    let (_, known) = KNOWN.iter().find(|(n, _)| *n == name).ok_or_else(|| unknown(name))?;
    let mut attributes = BTreeMap::new();
    while !rest.is_empty() {
        let (attribute, value) = rest.split_once("=\"").ok_or_else(|| unknown(rest))?;
        let (value, after) = value.split_once('"').ok_or_else(|| unknown(rest))?;
        if !known.contains(&attribute) || attributes.insert(attribute.to_owned(), value.to_owned()).is_some()
        {
            return Err(unknown(attribute));
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    Ok(Element { name: name.to_owned(), attributes, children: Vec::new(), text: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_written_can_be_read() {
        let good = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MPD type=\"static\">\n <Period id=\"0\"/>\n</MPD>\n";
        let root = parse(good.as_bytes()).unwrap();
        assert_eq!((root.attribute("type"), root.children.len()), (Some("static"), 1));
        for (from, to) in [
            ("<Period", "<!-- x --><Period"),
            ("<MPD", "<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><MPD"),
            ("static", "&a;"),
            ("<Period", "<EventStream/><Period"),
            ("id=", "xlink:href="),
            ("id=\"0\"", "id=\"0\" id=\"1\""),
            ("</MPD>", "</Period>"),
            ("</MPD>\n", "</MPD>\n<MPD/>"),
            ("\n <Period", " text <Period"),
            ("</MPD>\n", ""),
        ] {
            assert!(parse(good.replacen(from, to, 1).as_bytes()).is_err(), "{from} {to}");
        }
        assert_eq!(seconds("PT61.500000S"), Some(61_500));
    }
}
