//! A probe's document in the forms of ffprobe that scripts read: JSON, `default`, `compact`, `csv` and `flat`, whole or some entries
//! of it.

use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Fields in the order in which ffprobe writes them, which is what a script that reads positions relies on.
const ORDER: &[&str] = &[
    "index",
    "codec_name",
    "profile",
    "codec_type",
    "codec_tag_string",
    "width",
    "height",
    "coded_width",
    "coded_height",
    "sample_aspect_ratio",
    "display_aspect_ratio",
    "pix_fmt",
    "level",
    "color_range",
    "color_space",
    "color_transfer",
    "color_primaries",
    "field_order",
    "sample_fmt",
    "sample_rate",
    "channels",
    "channel_layout",
    "r_frame_rate",
    "avg_frame_rate",
    "time_base",
    "filename",
    "nb_streams",
    "format_name",
    "start_time",
    "duration",
    "size",
    "bit_rate",
    "nb_frames",
];
/// What follows these: parts of a section, and of such a part.
const PARTS: &[&str] =
    &["disposition", "tags", "side_data_list", "streams", "default", "side_data_type", "rotation"];

/// What is shown of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    format: Option<Section>,
    stream: Option<Section>,
    select: Select,
}

/// What is shown of a section and its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Section {
    own: Fields,
    disposition: Option<Fields>,
    tags: Option<Fields>,
    side_data: Option<Fields>,
}

/// Which fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    all: bool,
    names: Vec<String>,
}

/// Which streams.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Select {
    All,
    Kind(&'static str, Option<usize>),
    Index(u64),
}

impl Shown {
    /// From `--show-format`, `--show-streams`, `--show-entries` and `--select-streams`; everything where nothing is said.
    ///
    /// # Errors
    /// What is not known here.
    pub(crate) fn new(
        format: bool,
        streams: bool,
        entries: Option<&str>,
        select: Option<&str>,
    ) -> Result<Self, String> {
        let all = !format && !streams && entries.is_none();
        let whole = |on: bool| (on || all).then(Section::whole);
        let mut shown =
            Self { format: whole(format), stream: whole(streams), select: Select::parse(select)? };
        for entry in entries.unwrap_or_default().split(':').filter(|entry| !entry.is_empty()) {
            let (section, names) = entry.split_once('=').map_or((entry, None), |(s, names)| (s, Some(names)));
            let (of, part) = match section {
                "format" => (&mut shown.format, None),
                "stream" => (&mut shown.stream, None),
                "format_tags" => (&mut shown.format, Some(Part::Tags)),
                "stream_tags" => (&mut shown.stream, Some(Part::Tags)),
                "stream_disposition" => (&mut shown.stream, Some(Part::Disposition)),
                "stream_side_data" | "side_data" => (&mut shown.stream, Some(Part::SideData)),
                other => {
                    return Err(format!(
                        "the section `{other}` is not known here; known are format, stream, format_tags, stream_tags, \
                         stream_disposition and stream_side_data"
                    ));
                }
            };
            let of = of.get_or_insert_default();
            match (part, names) {
                // A section without names is shown with all its parts.
                (None, None) => *of = Section::whole(),
                (None, Some(names)) => of.own.ask(Some(names)),
                (Some(part), names) => of.part(part).get_or_insert_default().ask(names),
            }
        }
        Ok(shown)
    }

    /// The document with what is shown of it.
    pub(crate) fn of(&self, document: &Value) -> Value {
        let mut shown = Map::new();
        if let Some(section) = &self.stream {
            let streams =
                document.get("streams").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let streams = self.select.of(streams).map(|stream| section.of(stream)).collect();
            shown.insert("streams".into(), Value::Array(streams));
        }
        if let (Some(section), Some(format)) = (&self.format, document.get("format")) {
            shown.insert("format".into(), section.of(format));
        }
        Value::Object(shown)
    }
}

/// A part of a section.
#[derive(Debug, Clone, Copy)]
enum Part {
    Tags,
    Disposition,
    SideData,
}

impl Section {
    fn whole() -> Self {
        let all = || Some(Fields { all: true, names: Vec::new() });
        let own = Fields { all: true, names: Vec::new() };
        Self { own, disposition: all(), tags: all(), side_data: all() }
    }

    fn part(&mut self, part: Part) -> &mut Option<Fields> {
        match part {
            Part::Tags => &mut self.tags,
            Part::Disposition => &mut self.disposition,
            Part::SideData => &mut self.side_data,
        }
    }

    fn of(&self, section: &Value) -> Value {
        let Some(section) = section.as_object() else { return Value::Null };
        let mut shown = Map::new();
        for (name, value) in section {
            let part = |fields: &Option<Fields>| fields.as_ref().map(|f| f.of(value));
            let value = match name.as_str() {
                "tags" => part(&self.tags),
                "disposition" => part(&self.disposition),
                "side_data_list" => part(&self.side_data),
                name => self.own.has(name).then(|| value.clone()),
            };
            shown.extend(value.map(|value| (name.clone(), value)));
        }
        // A field that was asked for and is not there has its place all the same, where places count.
        for name in self.own.names.iter().filter(|name| ORDER.contains(&name.as_str())) {
            shown.entry(name.clone()).or_insert(Value::Null);
        }
        Value::Object(shown)
    }
}

impl Fields {
    /// As ffprobe counts: names add up, and the last that was asked for, all or some, holds.
    fn ask(&mut self, names: Option<&str>) {
        self.all = names.is_none();
        self.names.extend(names.into_iter().flat_map(|names| names.split(',')).map(str::to_owned));
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|n| n == name)
    }

    /// A part, or each of a list of them, with what is shown of it.
    fn of(&self, part: &Value) -> Value {
        match part {
            Value::Array(list) => list.iter().map(|part| self.of(part)).collect(),
            Value::Object(map) => {
                let shown = map.iter().filter(|(name, _)| self.has(name));
                Value::Object(shown.map(|(n, v)| (n.clone(), v.clone())).collect())
            }
            other => other.clone(),
        }
    }
}

impl Select {
    fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::All) };
        let (kind, nth) = text.split_once(':').map_or((text, None), |(kind, nth)| (kind, Some(nth)));
        let nth = nth.map(str::parse).transpose().ok();
        let kind = match kind {
            "v" | "V" => Some("video"),
            "a" => Some("audio"),
            "s" => Some("subtitle"),
            "d" => Some("data"),
            _ => None,
        };
        match (kind, nth, text.parse()) {
            (Some(kind), Some(nth), _) => Ok(Self::Kind(kind, nth)),
            (None, _, Ok(index)) => Ok(Self::Index(index)),
            _ => Err(format!(
                "the streams `{text}` are not known here; write v, a, s or d, v:0 and so on, or an index"
            )),
        }
    }

    fn of<'a>(&'a self, streams: &'a [Value]) -> impl Iterator<Item = &'a Value> {
        let chosen = streams.iter().filter(move |stream| match self {
            Self::All => true,
            Self::Kind(kind, _) => stream.get("codec_type").is_some_and(|k| k == kind),
            Self::Index(index) => stream.get("index").and_then(Value::as_u64) == Some(*index),
        });
        let (skip, take) = match self {
            Self::Kind(_, Some(nth)) => (*nth, 1),
            _ => (0, usize::MAX),
        };
        chosen.skip(skip).take(take)
    }
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Default {
        wrappers: bool,
        keys: bool,
    },
    /// A line for a section: `compact`, and `csv`, which is that with other marks.
    Line {
        separator: char,
        keys: bool,
        section: bool,
        escape: Escape,
    },
    Flat {
        separator: char,
    },
}

/// How a value on a line is kept from being taken for more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escape {
    /// A backslash before what means something.
    C,
    /// Quotes around it (RFC 4180).
    Csv,
}

impl Form {
    /// Reads `json`, `default=noprint_wrappers=1:nokey=1` (`nw`, `nk`), `csv=s=x:p=0`, `compact` or `flat=s=_`.
    ///
    /// # Errors
    /// What is not known here.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once('=').unwrap_or((text, ""));
        let line = |separator, keys, escape| Self::Line { separator, keys, section: true, escape };
        let mut form = match name {
            "json" => Self::Json,
            "default" => Self::Default { wrappers: true, keys: true },
            "compact" => line('|', true, Escape::C),
            "csv" => line(',', false, Escape::Csv),
            "flat" => Self::Flat { separator: '.' },
            _ => return Err("known are json, default, compact, csv and flat".into()),
        };
        for option in options.split(':').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let unknown = || format!("the option `{option}` of {name} is not known here");
            let on = || match value {
                "1" | "true" | "yes" | "on" => Ok(true),
                "0" | "false" | "no" | "off" => Ok(false),
                _ => Err(unknown()),
            };
            let mark = || {
                let mut all = value.chars();
                all.next().filter(|c| all.next().is_none() && !c.is_control()).ok_or_else(unknown)
            };
            match (&mut form, key) {
                (Self::Default { wrappers, .. }, "noprint_wrappers" | "nw") => *wrappers = !on()?,
                (Self::Default { keys, .. } | Self::Line { keys, .. }, "nokey" | "nk") => *keys = !on()?,
                (Self::Line { section, .. }, "print_section" | "p") => *section = on()?,
                (Self::Line { separator, .. }, "item_sep" | "s") => *separator = mark()?,
                (Self::Line { escape, .. }, "escape" | "e") => {
                    *escape = match value {
                        "c" => Escape::C,
                        "csv" => Escape::Csv,
                        _ => return Err(unknown()),
                    }
                }
                (Self::Flat { separator }, "sep_char" | "s") => *separator = mark()?,
                // What JSON is laid out like does not matter to who parses it.
                (Self::Json, "compact" | "c") => {}
                _ => return Err(unknown()),
            }
        }
        Ok(form)
    }

    /// The text of what is shown of a document.
    pub(crate) fn write(self, shown: &Value) -> String {
        if self == Self::Json {
            return serde_json::to_string_pretty(&InOrder(shown)).unwrap_or_default();
        }
        let streams = shown.get("streams").and_then(Value::as_array).into_iter().flatten().enumerate();
        let streams = streams.map(|(n, section)| ("stream", format!("streams.stream.{n}"), section));
        let format = shown.get("format").map(|section| ("format", "format".to_owned(), section));
        let sections = streams.chain(format);
        sections
            .flat_map(|(name, path, section)| self.section(name, &path, section))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The lines of one section.
    fn section(self, name: &str, path: &str, section: &Value) -> Vec<String> {
        let side_data = section.get("side_data_list").and_then(Value::as_array).into_iter().flatten();
        match self {
            Self::Json => Vec::new(),
            Self::Line { separator, keys, section: named, escape } => {
                let cell = |(key, value): (String, &Value)| {
                    let value = escape.value(&plain(value), separator);
                    if keys { format!("{key}={value}") } else { value }
                };
                let title = |name: &str| named.then(|| name.to_owned());
                let mut cells: Vec<String> = title(name).into_iter().collect();
                cells.extend(fields(section, "tag:", "disposition:").map(cell));
                for part in side_data {
                    cells.extend(title("side_data"));
                    cells.extend(fields(part, "", "").map(cell));
                }
                vec![cells.join(&separator.to_string())]
            }
            Self::Default { wrappers, keys } => {
                let line = |(key, value): (String, &Value)| {
                    // A line is a field: what a file's tags say must not make another one.
                    let value = plain(value).replace(['\n', '\r'], " ");
                    if keys { format!("{key}={value}") } else { value }
                };
                let wrapper =
                    |mark: &str, name: &str| wrappers.then(|| format!("[{mark}{}]", name.to_uppercase()));
                let mut lines: Vec<String> = wrapper("", name).into_iter().collect();
                lines.extend(fields(section, "TAG:", "DISPOSITION:").map(line));
                for part in side_data {
                    lines.extend(wrapper("", "side_data"));
                    lines.extend(fields(part, "", "").map(line));
                    lines.extend(wrapper("/", "side_data"));
                }
                lines.extend(wrapper("/", name));
                lines
            }
            Self::Flat { separator } => {
                let line = |path: &str, key: &str, value: &Value| {
                    let path = path.replace('.', &separator.to_string());
                    let value = match value {
                        Value::Number(number) => number.to_string(),
                        other => format!("\"{}\"", flat(&plain(other))),
                    };
                    format!("{path}{separator}{key}={value}")
                };
                let mut lines = Vec::new();
                for (key, value) in fields(section, "tags.", "disposition.") {
                    let (part, key) = key.split_once('.').map_or((None, key.as_str()), |(p, k)| (Some(p), k));
                    let path = part.map_or_else(|| path.to_owned(), |part| format!("{path}.{part}"));
                    let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                    lines.push(line(&path, &key, value));
                }
                for (n, part) in side_data.enumerate() {
                    let path = format!("{path}.side_data_list.side_data.{n}");
                    lines.extend(fields(part, "", "").map(|(key, value)| line(&path, &key, value)));
                }
                lines
            }
        }
    }
}

/// A document's fields in ffprobe's order. What is not there is left out.
struct InOrder<'a>(&'a Value);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                serializer.collect_map(ordered(map).map(|(name, value)| (name, InOrder(value))))
            }
            Value::Array(all) => serializer.collect_seq(all.iter().map(InOrder)),
            other => other.serialize(serializer),
        }
    }
}

fn ordered(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let place = |name: &str| ORDER.iter().chain(PARTS).position(|n| *n == name).unwrap_or(usize::MAX);
    let mut fields: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
    fields.sort_by_key(|(name, _)| place(name));
    fields.into_iter()
}

/// The fields of a section in ffprobe's order, then those of its parts under names that begin with theirs.
fn fields<'a>(
    section: &'a Value,
    tag: &'a str,
    disposition: &'a str,
) -> impl Iterator<Item = (String, &'a Value)> {
    let part = |name: &str| section.get(name).and_then(Value::as_object).into_iter().flat_map(ordered);
    let known =
        ORDER.iter().chain(PARTS).filter(|name| !matches!(**name, "disposition" | "tags" | "side_data_list"));
    known
        .filter_map(|name| Some(((*name).to_owned(), section.get(*name)?)))
        .chain(part("disposition").map(move |(name, value)| (format!("{disposition}{name}"), value)))
        .chain(part("tags").map(move |(name, value)| (format!("{tag}{name}"), value)))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Escape {
    fn value(self, text: &str, separator: char) -> String {
        match self {
            Self::Csv if text.contains(['"', '\n', '\r', separator]) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Self::Csv => text.to_owned(),
            Self::C => escaped(text, |c| c == '\\' || c == separator),
        }
    }
}

/// As a shell reads it between double quotes.
fn flat(text: &str) -> String {
    escaped(text, |c| matches!(c, '\\' | '"' | '`' | '$'))
}

fn escaped(text: &str, special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => {
                if special(c) {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "streams": [
                { "index": 0, "codec_name": "h264", "codec_type": "video", "height": 360, "width": 640, "tags": { "language": "eng" },
                  "disposition": { "attached_pic": 0, "default": 1 },
                  "side_data_list": [{ "rotation": -90, "side_data_type": "Display Matrix" }] },
                { "index": 1, "codec_name": "aac", "codec_type": "audio", "sample_rate": "48000" },
                { "index": 2, "codec_name": "aac", "codec_type": "audio", "sample_rate": "44100" },
            ],
            "format": { "filename": "a,b\".mp4", "duration": "4.000000", "tags": { "title": "x\ny=1" } },
        })
    }

    fn shown(entries: &str, select: &str, form: &str) -> String {
        let select = (!select.is_empty()).then_some(select);
        let shown = Shown::new(false, false, Some(entries), select).unwrap();
        Form::parse(form).unwrap().write(&shown.of(&document()))
    }

    #[test]
    fn the_forms_that_scripts_read_are_as_ffprobe_writes_them() {
        let bare = "default=noprint_wrappers=1:nokey=1";
        for (entries, select, form, expected) in [
            ("format=duration", "", bare, "4.000000"),
            ("format=duration", "", "default=nw=1", "duration=4.000000"),
            ("format=duration", "", "default", "[FORMAT]\nduration=4.000000\n[/FORMAT]"),
            ("stream=height,width", "v:0", "csv=p=0", "640,360"),
            ("stream=width", "v", "csv", "stream,640"),
            ("stream=sample_rate", "a:1", bare, "44100"),
            ("stream=codec_name", "", "csv=p=0", "h264\naac\naac"),
            ("stream=codec_name,nb_frames", "0", "csv=p=0", "h264,N/A"),
            ("stream_tags=language", "v:0", "default=nw=1", "TAG:language=eng"),
            ("format=filename", "", "csv=p=0", "\"a,b\"\".mp4\""),
            ("format_tags=title", "", "default=nw=1", "TAG:title=x y=1"),
            ("stream=width", "a:7", "csv=p=0", ""),
            ("", "", "csv", ""),
            ("stream=width:stream=height", "v:0", "csv=p=0", "640,360"),
            ("stream=width:stream", "a:1", "csv=p=0", "2,aac,audio,44100"),
            ("stream:stream=width", "v:0", "csv=s=;:p=0:nk=1", "640;1;0;eng;Display Matrix;-90"),
            ("stream_side_data", "v:0", "csv=s=x:p=0", "\"Display Matrix\"x-90"),
            ("stream=width,height", "v:0", "csv=s=x:p=0", "640x360"),
            (
                "stream=width:stream_tags=language:format=duration",
                "v",
                "compact",
                "stream|width=640|tag:language=eng\nformat|duration=4.000000",
            ),
            ("stream=width:stream_tags=language", "v", "compact=nk=1:p=0", "640|eng"),
            ("format_tags=title", "", "compact=s=y:p=0", "tag:title=x\\n\\y=1"),
            ("stream_side_data=rotation", "v", "csv=p=0", "-90"),
            (
                "stream_side_data=rotation",
                "v",
                "default",
                "[STREAM]\n[SIDE_DATA]\nrotation=-90\n[/SIDE_DATA]\n[/STREAM]",
            ),
            (
                "stream=width:stream_side_data=rotation",
                "v",
                "compact",
                "stream|width=640|side_data|rotation=-90",
            ),
            (
                "stream=width:stream_disposition=default",
                "v",
                "default=nw=1",
                "width=640\nDISPOSITION:default=1",
            ),
            (
                "stream_side_data=rotation",
                "v",
                "flat",
                "streams.stream.0.side_data_list.side_data.0.rotation=-90",
            ),
            (
                "stream=width,codec_name,nb_frames:stream_tags=language:format=duration",
                "v",
                "flat",
                "streams.stream.0.codec_name=\"h264\"\nstreams.stream.0.width=640\nstreams.stream.0.nb_frames=\"N/A\"\n\
                 streams.stream.0.tags.language=\"eng\"\nformat.duration=\"4.000000\"",
            ),
            ("format=duration", "", "flat=s=_", "format_duration=\"4.000000\""),
            ("format=filename", "", "flat", "format.filename=\"a,b\\\".mp4\""),
        ] {
            assert_eq!(shown(entries, select, form), expected, "{entries} {select} {form}");
        }
        let json: Value =
            serde_json::from_str(&shown("stream=codec_name,nb_frames:format=duration", "v", "json")).unwrap();
        assert_eq!(
            json,
            json!({ "streams": [{ "codec_name": "h264" }], "format": { "duration": "4.000000" } })
        );
    }

    #[test]
    fn json_has_its_fields_in_the_order_of_ffprobe() {
        let all = Shown::new(true, true, None, Some("v")).unwrap();
        let text = Form::Json.write(&all.of(&document()));
        let keys: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("\":")?.0.split_once('"')).map(|k| k.1).collect();
        let expected = "streams index codec_name codec_type width height disposition default attached_pic tags language \
                        side_data_list side_data_type rotation format filename duration tags title";
        assert_eq!(keys.join(" "), expected);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert!(Form::parse("xml").is_err());
        for form in
            ["csv=nw=1", "csv=s=ab", "csv=s=", "csv=p=maybe", "flat=h=0", "json=s=x", "compact=e=none"]
        {
            let option = form.split_once('=').unwrap().1;
            assert!(Form::parse(form).unwrap_err().contains(option), "{form}");
        }
        assert!(Shown::new(false, false, Some("packet=pts"), None).unwrap_err().contains("packet"));
        assert!(Shown::new(false, false, None, Some("p:1")).unwrap_err().contains("p:1"));
    }
}
