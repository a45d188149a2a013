//! HLS and DASH manifests against the rules of RFC 8216bis (draft-pantos-hls-rfc8216bis), Apple's authoring specification and
//! DASH-IF's interoperability points, read here by nothing of ours: each rule has a name, and all of them hold for every preset
//! that makes streams.

use mpegflow_tests::media::{self, ffprobe};
use mpegflow_tests::system::{mpegflow, run, text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was looked at, and what was wrong.
#[derive(Default)]
struct Rules {
    kept: BTreeSet<&'static str>,
    broken: Vec<String>,
}

impl Rules {
    fn hold(&mut self, rule: &'static str, holds: bool, seen: &str) {
        if holds {
            self.kept.insert(rule);
        } else {
            self.broken.push(format!("{rule}: {seen}"));
        }
    }
}

/// Attributes of an HLS tag or an XML element; a name that is there twice makes it an error.
fn attributes(text: &str, separator: char) -> Result<BTreeMap<String, String>, String> {
    let (mut found, mut rest) = (BTreeMap::new(), text.trim());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(format!("an open quote in {text}"))?,
            None => after.find(separator).map_or((after, ""), |at| after.split_at(at)),
        };
        if found.insert(name.trim().to_owned(), value.to_owned()).is_some() {
            return Err(format!("{name} is there twice in {text}"));
        }
        rest = next.trim_start_matches([separator, ' ', '\n']);
    }
    Ok(found)
}

struct Segment {
    seconds: f64,
    bytes: u64,
    offset: u64,
}

fn media_playlist(folder: &Path, uri: &str, rules: &mut Rules) -> Vec<Segment> {
    let raw = std::fs::read(folder.join(uri)).unwrap();
    let list = String::from_utf8(raw.clone()).unwrap();
    let tag = |name: &str| list.lines().find_map(|l| l.strip_prefix(name));
    let number = |name: &str| tag(name).and_then(|v| v.parse::<u64>().ok());
    rules.hold(
        "HLS 4.1 a playlist is UTF-8 without a byte order mark and without control characters",
        !raw.iter().any(|b| *b < 32 && *b != b'\n') && !raw.starts_with(&[0xef, 0xbb, 0xbf]),
        uri,
    );
    rules.hold("HLS 4.4.1.1 EXTM3U is the first line", list.starts_with("#EXTM3U\n"), uri);
    rules.hold("HLS 4.4.1.2 EXT-X-VERSION is there once", list.matches("#EXT-X-VERSION:").count() == 1, uri);
    rules.hold(
        "HLS 8 a map outside I-frame playlists needs version 6",
        number("#EXT-X-VERSION:").is_some_and(|v| v >= 6),
        uri,
    );
    rules.hold(
        "HLS 4.4.3.4 a list without more to come ends with EXT-X-ENDLIST",
        list.trim_end().ends_with("#EXT-X-ENDLIST"),
        uri,
    );
    rules.hold("HLS 4.4.3.5 EXT-X-PLAYLIST-TYPE is VOD", tag("#EXT-X-PLAYLIST-TYPE:") == Some("VOD"), uri);
    rules.hold(
        "HLS 4.4.2.1 EXT-X-INDEPENDENT-SEGMENTS is said",
        list.contains("#EXT-X-INDEPENDENT-SEGMENTS\n"),
        uri,
    );
    let map = attributes(tag("#EXT-X-MAP:").unwrap_or_default(), ',').unwrap_or_default();
    rules.hold(
        "HLS 4.4.4.5 EXT-X-MAP comes before the first segment and has a URI",
        list.find("#EXT-X-MAP:") < list.find("#EXTINF:") && map.contains_key("URI"),
        uri,
    );
    let (mut segments, mut uris, mut seconds, mut range) = (Vec::new(), BTreeSet::new(), None, None);
    for line in list.lines() {
        if let Some(length) = line.strip_prefix("#EXTINF:") {
            seconds = length.trim_end_matches(',').parse::<f64>().ok();
        } else if let Some(bytes) = line.strip_prefix("#EXT-X-BYTERANGE:") {
            range = bytes
                .split_once('@')
                .and_then(|(n, o)| Some((n.parse::<u64>().ok()?, o.parse::<u64>().ok()?)));
        } else if !line.starts_with('#') && !line.is_empty() {
            let (Some(seconds), Some((bytes, offset))) = (seconds.take(), range.take()) else {
                rules.hold("HLS 4.4.4.1 EXTINF is required for each segment", false, line);
                continue;
            };
            uris.insert(line.to_owned());
            segments.push(Segment { seconds, bytes, offset });
        }
    }
    rules.hold("HLS 4.4.4.1 EXTINF is required for each segment", !segments.is_empty(), uri);
    let target = number("#EXT-X-TARGETDURATION:").unwrap_or(0);
    rules.hold(
        "HLS 4.4.3.1 no EXTINF, rounded, is above EXT-X-TARGETDURATION",
        segments.iter().all(|s| s.seconds.round() <= target as f64),
        uri,
    );
    let file = uris.iter().next().cloned().unwrap_or_default();
    let object = std::fs::read(folder.join(&file)).unwrap_or_default();
    rules.hold(
        "HLS 4.4.4.2 byte ranges follow each other within their resource",
        uris.len() == 1
            && segments.windows(2).all(|w| w[0].offset + w[0].bytes == w[1].offset)
            && segments.last().is_some_and(|s| s.offset + s.bytes == object.len() as u64),
        uri,
    );
    rules.hold(
        "HLS 3.1.2 a fragmented MP4 segment starts with a movie fragment",
        segments.iter().all(|s| object.get(s.offset as usize + 4..s.offset as usize + 8) == Some(b"moof")),
        uri,
    );
    let init = map
        .get("BYTERANGE")
        .and_then(|r| r.split_once('@'))
        .map(|(n, _)| n.parse::<usize>().unwrap())
        .unwrap_or(0);
    rules.hold(
        "HLS 3.1.2 the map is ftyp and moov and no media",
        top(&object[..init.min(object.len())]) == ["ftyp", "moov"],
        uri,
    );
    rules.hold(
        "HLS 3.1.2 every fragment has a decode time",
        segments.iter().all(|s| {
            object[s.offset as usize..].get(..400).is_some_and(|m| m.windows(4).any(|w| w == b"tfdt"))
        }),
        uri,
    );
    let lasts: f64 = ffprobe(&folder.join(&file), "0", "stream=duration").parse().unwrap();
    let sum: f64 = segments.iter().map(|s| s.seconds).sum();
    rules.hold(
        "HLS 6.2.1 the durations add up to the media's",
        (lasts - sum).abs() < 0.1,
        &format!("{uri}: {lasts} {sum}"),
    );
    segments
}

/// Kinds of the boxes at the top.
fn top(bytes: &[u8]) -> Vec<String> {
    boxes(bytes).into_iter().map(|(kind, _, _)| kind).collect()
}

/// Kind, place and length of the boxes at the top.
fn boxes(bytes: &[u8]) -> Vec<(String, usize, usize)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(head) = bytes.get(at..at + 8) {
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        if size < 8 {
            break;
        }
        found.push((String::from_utf8_lossy(&head[4..]).into_owned(), at, size));
        at += size;
    }
    found
}

fn hls(folder: &Path, rules: &mut Rules) {
    let master = std::fs::read_to_string(folder.join("master.m3u8")).unwrap();
    rules.hold("HLS 4.4.1.1 EXTM3U is the first line", master.starts_with("#EXTM3U\n"), "master.m3u8");
    rules.hold(
        "HLS 4.1 a multivariant playlist holds no media segment tags",
        !master.contains("#EXTINF") && !master.contains("#EXT-X-TARGETDURATION"),
        "master.m3u8",
    );
    let (mut groups, mut names, mut defaults) = (BTreeMap::new(), BTreeSet::new(), 0);
    for line in master.lines().filter_map(|l| l.strip_prefix("#EXT-X-MEDIA:")) {
        let media = attributes(line, ',');
        rules.hold("HLS 4.2 an attribute is there at most once", media.is_ok(), line);
        let media = media.unwrap_or_default();
        let get = |name: &str| media.get(name).cloned().unwrap_or_default();
        rules.hold(
            "HLS 4.4.6.1 EXT-X-MEDIA has TYPE, GROUP-ID and NAME",
            ["TYPE", "GROUP-ID", "NAME"].iter().all(|n| media.contains_key(*n)),
            line,
        );
        rules.hold(
            "HLS 4.4.6.1.1 NAMEs within a group differ",
            names.insert((get("GROUP-ID"), get("NAME"))),
            line,
        );
        rules.hold(
            "HLS 4.4.6.1 DEFAULT=YES comes with AUTOSELECT=YES",
            get("DEFAULT") != "YES" || get("AUTOSELECT") == "YES",
            line,
        );
        rules.hold("HLS 4.4.6.1 CHANNELS is said of sound", get("CHANNELS").parse::<u32>().is_ok(), line);
        rules.hold(
            "HLS 4.4.6.1 LANGUAGE is a tag of RFC 5646",
            media
                .get("LANGUAGE")
                .is_none_or(|l| (2..=3).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_lowercase())),
            line,
        );
        defaults += usize::from(get("DEFAULT") == "YES");
        groups.entry(get("GROUP-ID")).or_insert_with(Vec::new).push(get("URI"));
    }
    rules.hold(
        "HLS 4.4.6.1.1 at most one rendition of a group is the default",
        defaults <= groups.len(),
        &master,
    );
    let mut timelines: Vec<Vec<f64>> = Vec::new();
    let lines: Vec<&str> = master.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") else { continue };
        let uri = lines.get(at + 1).copied().unwrap_or_default();
        rules.hold(
            "HLS 4.4.6.2 EXT-X-STREAM-INF is followed by a URI",
            !uri.is_empty() && !uri.starts_with('#'),
            line,
        );
        let variant = attributes(list, ',');
        rules.hold("HLS 4.2 an attribute is there at most once", variant.is_ok(), line);
        let variant = variant.unwrap_or_default();
        let number = |name: &str| variant.get(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let segments = media_playlist(folder, uri, rules);
        let sound = variant.get("AUDIO").map(|g| groups.get(g));
        rules.hold(
            "HLS 4.4.6.2.1 the AUDIO group of a variant exists",
            sound.is_none_or(|g| g.is_some()),
            line,
        );
        let sounds: Vec<Vec<Segment>> =
            sound.flatten().into_iter().flatten().map(|u| media_playlist(folder, u, rules)).collect();
        let peak =
            |list: &[Segment]| list.iter().map(|s| (s.bytes * 8) as f64 / s.seconds).fold(0.0, f64::max);
        let average = |list: &[Segment]| {
            list.iter().map(|s| s.bytes * 8).sum::<u64>() as f64 / list.iter().map(|s| s.seconds).sum::<f64>()
        };
        let most = |of: fn(&[Segment]) -> f64| sounds.iter().map(|s| of(s)).fold(0.0, f64::max);
        let (peaks, averages) = (peak(&segments) + most(peak), average(&segments) + most(average));
        rules.hold(
            "HLS 4.4.6.2 BANDWIDTH is at least the peak segment bit rate with its sound",
            number("BANDWIDTH") as f64 + 1.0 >= peaks,
            &format!("{line} {peaks}"),
        );
        rules.hold(
            "Apple 9.17 BANDWIDTH is within 10 % of the measured peak",
            number("BANDWIDTH") as f64 <= peaks * 1.1 + 1.0,
            &format!("{line} {peaks}"),
        );
        rules.hold(
            "Apple 9.18 AVERAGE-BANDWIDTH is within 10 % of the measured average",
            (number("AVERAGE-BANDWIDTH") as f64 - averages).abs() <= averages * 0.1 + 1.0,
            &format!("{line} {averages}"),
        );
        rules.hold(
            "HLS 4.4.6.2 AVERAGE-BANDWIDTH is not above BANDWIDTH",
            number("AVERAGE-BANDWIDTH") <= number("BANDWIDTH"),
            line,
        );
        let codecs: Vec<&str> = variant.get("CODECS").map(|c| c.split(',').collect()).unwrap_or_default();
        rules.hold(
            "HLS 4.4.6.2 CODECS names every format of the variant",
            codecs.len() == 1 + usize::from(!sounds.is_empty()),
            line,
        );
        let size =
            ffprobe(&folder.join(uri.replace("m3u8", "mp4")), "v:0", "stream=width,height").replace(',', "x");
        rules.hold("HLS 4.4.6.2 RESOLUTION is the picture's", variant.get("RESOLUTION") == Some(&size), line);
        rules.hold(
            "Apple 9.15 FRAME-RATE is said of video",
            variant.get("FRAME-RATE").is_some_and(|r| {
                r.parse::<f64>().is_ok_and(|r| r > 0.0) && r.split_once('.').is_none_or(|(_, f)| f.len() <= 3)
            }),
            line,
        );
        let packets = ffprobe(&folder.join(uri.replace("m3u8", "mp4")), "v:0", "packet=pts_time,flags");
        let keys: Vec<f64> = packets.lines().filter_map(|p| p.split_once(",K")?.0.parse().ok()).collect();
        let starts = segments.iter().scan(0.0, |at, s| {
            let start = *at;
            *at += s.seconds;
            Some(start)
        });
        rules.hold(
            "HLS 4.4.2.1 and Apple 1.17 every segment, and only it, starts with a key frame",
            keys.len() == segments.len() && keys.iter().zip(starts).all(|(k, s)| (k - s).abs() < 0.002),
            &format!("{uri}: {keys:?}"),
        );
        timelines.push(segments.iter().map(|s| s.seconds).collect());
    }
    rules.hold(
        "HLS 6.2.4 variants have the same segments at the same times",
        timelines
            .windows(2)
            .all(|w| w[0].len() == w[1].len() && w[0].iter().zip(&w[1]).all(|(a, b)| (a - b).abs() < 0.001)),
        &format!("{timelines:?}"),
    );
}

/// Each element of that name: its attributes, and the text up to its end.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<(BTreeMap<String, String>, &'a str)> {
    let (open, close) = (format!("<{name} "), format!("</{name}>"));
    xml.match_indices(&open)
        .map(|(at, _)| {
            let rest = &xml[at + open.len()..];
            let (head, body) = rest.split_once('>').unwrap();
            let body = if head.ends_with('/') { "" } else { body.split_once(&close).map_or("", |(b, _)| b) };
            (attributes(head.trim_end_matches('/'), ' ').unwrap(), body)
        })
        .collect()
}

fn range(text: Option<&String>) -> Option<(u64, u64)> {
    let (first, last) = text?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn dash(folder: &Path, rules: &mut Rules) {
    let xml = std::fs::read_to_string(folder.join("manifest.mpd")).unwrap();
    let (mpd, body) = elements(&xml, "MPD").remove(0);
    let seconds =
        |name: &str| mpd.get(name).and_then(|v| v.strip_prefix("PT")?.strip_suffix('S')?.parse::<f64>().ok());
    rules.hold(
        "DASH 5.3.1 MPD has the namespace of 23009-1",
        mpd.get("xmlns").is_some_and(|n| n == "urn:mpeg:dash:schema:mpd:2011"),
        &xml,
    );
    rules.hold(
        "DASH 5.3.1 MPD@profiles is said",
        mpd.get("profiles").is_some_and(|p| p.contains("isoff-on-demand")),
        &xml,
    );
    rules.hold(
        "DASH 5.3.1 a static MPD has its duration",
        mpd.get("type").is_some_and(|t| t == "static")
            && seconds("mediaPresentationDuration").is_some_and(|s| s > 0.0),
        &xml,
    );
    rules.hold(
        "DASH 5.3.1 MPD@minBufferTime is said",
        seconds("minBufferTime").is_some_and(|s| s > 0.0),
        &xml,
    );
    rules.hold("DASH-IF on demand: one period", elements(body, "Period").len() == 1, &xml);
    let (mut ids, mut sets) = (BTreeSet::new(), BTreeSet::new());
    let mut timelines: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (set, body) in elements(body, "AdaptationSet") {
        let said = format!("{set:?}");
        rules.hold(
            "DASH 5.3.3 AdaptationSet@id is unique",
            set.get("id").is_some_and(|id| sets.insert(id.clone())),
            &said,
        );
        rules.hold(
            "DASH-IF 3.2 AdaptationSet@mimeType and @contentType agree",
            set.get("contentType")
                .is_some_and(|c| set.get("mimeType").is_some_and(|m| *m == format!("{c}/mp4"))),
            &said,
        );
        rules.hold(
            "DASH on-demand 8.3 subsegments are aligned and start with SAP type 1 or 2",
            set.get("subsegmentAlignment").is_some_and(|a| a == "true")
                && set.get("subsegmentStartsWithSAP").is_some_and(|s| s == "1" || s == "2"),
            &said,
        );
        rules.hold(
            "DASH 5.3.3 @lang is a tag of RFC 5646",
            set.get("lang").is_none_or(|l| (2..=3).contains(&l.len())),
            &said,
        );
        for (one, body) in elements(body, "Representation") {
            let said = format!("{one:?}");
            let number = |name: &str| one.get(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
            rules.hold(
                "DASH 5.3.5 Representation@id is unique",
                one.get("id").is_some_and(|id| ids.insert(id.clone())),
                &said,
            );
            rules.hold("DASH 5.3.5 Representation@bandwidth is above zero", number("bandwidth") > 0, &said);
            rules.hold(
                "DASH-IF 3.2 @codecs is one codec of RFC 6381",
                one.get("codecs").is_some_and(|c| !c.contains(',') && c.contains('.')),
                &said,
            );
            if set.get("contentType").is_some_and(|c| c == "video") {
                rules.hold(
                    "DASH-IF 3.2.4 video has @width, @height, @frameRate and @sar",
                    number("width") > 0
                        && number("height") > 0
                        && one.contains_key("frameRate")
                        && one.get("sar").is_some_and(|s| s == "1:1"),
                    &said,
                );
            } else {
                rules.hold(
                    "DASH-IF 3.2.5 sound has @audioSamplingRate and AudioChannelConfiguration",
                    number("audioSamplingRate") > 0 && elements(body, "AudioChannelConfiguration").len() == 1,
                    &said,
                );
            }
            let url = body
                .split_once("<BaseURL>")
                .and_then(|(_, r)| r.split_once("</BaseURL>"))
                .map_or("", |(u, _)| u);
            rules.hold(
                "DASH on-demand 8.3 a representation has one BaseURL, relative",
                !url.is_empty() && !url.contains("//") && body.matches("<BaseURL>").count() == 1,
                &said,
            );
            let object = std::fs::read(folder.join(url)).unwrap_or_default();
            let found = boxes(&object);
            let (base, inner) = elements(body, "SegmentBase").remove(0);
            let init = elements(inner, "Initialization").first().and_then(|(i, _)| range(i.get("range")));
            let index = range(base.get("indexRange"));
            let sidx = found.iter().find(|(kind, _, _)| kind == "sidx");
            rules.hold(
                "DASH 5.3.9.2 Initialization@range is ftyp and moov",
                init.is_some_and(|(a, b)| a == 0 && top(&object[..=b as usize]) == ["ftyp", "moov"]),
                &said,
            );
            rules.hold(
                "DASH 5.3.9.2 @indexRange is the segment index",
                sidx.is_some_and(|(_, at, size)| index == Some((*at as u64, (at + size - 1) as u64))),
                &said,
            );
            rules.hold(
                "DASH on-demand 8.3 a representation has one index",
                found.iter().filter(|(k, _, _)| k == "sidx").count() == 1,
                &said,
            );
            let Some((_, at, size)) = sidx else { continue };
            let rows: Vec<(u32, u32, u32)> = object[at + 40..at + size]
                .chunks_exact(12)
                .map(|r| {
                    let w = |n: usize| u32::from_be_bytes(r[n..n + 4].try_into().unwrap());
                    (w(0), w(4), w(8))
                })
                .collect();
            let ends = at + size + rows.iter().map(|r| r.0 as usize).sum::<usize>();
            rules.hold(
                "ISO 14496-12 8.16.3 the index covers the file to its end",
                ends == object.len(),
                &said,
            );
            rules.hold(
                "ISO 14496-12 8.16.3 every subsegment starts with an access point",
                rows.iter().all(|r| r.2 >> 31 == 1),
                &said,
            );
            let scale = base.get("timescale").and_then(|t| t.parse::<u64>().ok()).unwrap_or(1);
            let said_scale = u32::from_be_bytes(object[at + 16..at + 20].try_into().unwrap());
            rules.hold("DASH 5.3.9.2 @timescale is the index's", u64::from(said_scale) == scale, &said);
            let sum: u64 = rows.iter().map(|r| u64::from(r.1)).sum();
            rules.hold(
                "DASH 5.3.1 the presentation is as long as its longest representation",
                sum as f64 / scale as f64 <= seconds("mediaPresentationDuration").unwrap_or(0.0) + 0.001,
                &said,
            );
            // With minBufferTime in hand, a line of that bandwidth never lets the player run dry.
            let (line, buffer) = (number("bandwidth") as f64, seconds("minBufferTime").unwrap_or(0.0));
            let (mut fetched, mut played, mut dry) = (0.0, 0.0, false);
            for (bytes, ticks, _) in &rows {
                fetched += f64::from(*bytes) * 8.0 / line;
                dry |= fetched > played + f64::from(*ticks) / scale as f64 + buffer;
                played += f64::from(*ticks) / scale as f64;
            }
            rules.hold("DASH 5.3.5.4 @bandwidth and @minBufferTime never let a player run dry", !dry, &said);
            if set.get("contentType").is_some_and(|c| c == "video") {
                timelines.insert(said, rows.iter().map(|r| u64::from(r.1)).collect());
            }
        }
    }
    let all: Vec<&Vec<u64>> = timelines.values().collect();
    rules.hold(
        "DASH 5.3.3 subsegments of an adaptation set are at the same times",
        all.windows(2).all(|w| w[0] == w[1]),
        &format!("{timelines:?}"),
    );
}

fn source() -> PathBuf {
    // More than one segment, more than one rung, two languages, and a frame rate that no segment divides.
    media::ffmpeg(
        "manifests.mkv",
        "-f lavfi -i testsrc2=size=854x480:rate=30000/1001:duration=5 -f lavfi -i sine=frequency=440:duration=5:sample_rate=48000 \
         -f lavfi -i sine=frequency=880:duration=5:sample_rate=48000 -map 0 -map 1 -map 2 -c:v libx264 -preset veryfast \
         -pix_fmt yuv420p -c:a aac -ac:a:0 2 -ac:a:1 1 -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu",
    )
}

#[test]
fn the_manifests_of_every_streaming_preset_keep_every_rule() {
    let mut rules = Rules::default();
    for preset in ["web", "hevc", "vp9", "av1"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let spec = folder.path().join("job.yaml");
        std::fs::write(
            &spec,
            format!("version: 1\npreset: {preset}\nvideo: {{segment_seconds: 2, max_height: 360}}\n"),
        )
        .unwrap();
        let mut command = mpegflow();
        command.args(["transcode", source().to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let output = run(command.args(["--spec", spec.to_str().unwrap()]), Duration::from_secs(300));
        assert!(output.status.success(), "{preset}: {}", text(&output));
        hls(&out, &mut rules);
        dash(&out, &mut rules);
    }
    println!("{} rules:", rules.kept.len());
    rules.kept.iter().for_each(|rule| println!("  {rule}"));
    assert!(rules.broken.is_empty(), "{}", rules.broken.join("\n"));
}
