//! A probe's document in the forms of ffprobe that scripts read: JSON, `default` and `csv`, whole or some entries of it.

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

/// What is shown of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    format: Option<Fields>,
    stream: Option<Fields>,
    select: Select,
}

/// Which fields of a section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    /// None: all.
    names: Option<Vec<String>>,
    tags: Option<Vec<String>>,
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
        let whole = |on: bool| (on || all).then(Fields::default);
        let mut shown =
            Self { format: whole(format), stream: whole(streams), select: Select::parse(select)? };
        for entry in entries.unwrap_or_default().split(':').filter(|entry| !entry.is_empty()) {
            let (section, names) = entry.split_once('=').map_or((entry, None), |(s, names)| (s, Some(names)));
            let names = names.map(|names| names.split(',').map(str::to_owned).collect::<Vec<_>>());
            let (fields, tags) = match section {
                "format" => (&mut shown.format, false),
                "stream" => (&mut shown.stream, false),
                "format_tags" => (&mut shown.format, true),
                "stream_tags" => (&mut shown.stream, true),
                other => {
                    return Err(format!(
                        "the section `{other}` is not known here; known are format, stream, format_tags and stream_tags"
                    ));
                }
            };
            let fields = fields.get_or_insert_with(|| Fields { names: Some(Vec::new()), tags: None });
            match (tags, names) {
                (false, names) => fields.names = names,
                (true, names) => fields.tags = Some(names.unwrap_or_default()),
            }
        }
        Ok(shown)
    }

    /// The document with what is shown of it.
    pub(crate) fn of(&self, document: &Value) -> Value {
        let mut shown = Map::new();
        if let Some(fields) = &self.stream {
            let streams =
                document.get("streams").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let streams = self.select.of(streams).map(|stream| fields.of(stream)).collect();
            shown.insert("streams".into(), Value::Array(streams));
        }
        if let (Some(fields), Some(format)) = (&self.format, document.get("format")) {
            shown.insert("format".into(), fields.of(format));
        }
        Value::Object(shown)
    }
}

impl Fields {
    fn of(&self, section: &Value) -> Value {
        let Some(section) = section.as_object() else { return Value::Null };
        let wanted = |name: &String| match &self.names {
            None => true,
            Some(names) => names.contains(name),
        };
        let mut shown: Map<String, Value> =
            section.iter().filter(|(name, _)| wanted(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        if let (Some(wanted), Some(tags)) = (&self.tags, section.get("tags").and_then(Value::as_object)) {
            let tags = tags.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
            shown.insert("tags".into(), Value::Object(tags.map(|(n, v)| (n.clone(), v.clone())).collect()));
        }
        // A field that was asked for and is not there has its place all the same, where places count.
        for name in self.names.iter().flatten().filter(|name| ORDER.contains(&name.as_str())) {
            shown.entry(name.clone()).or_insert(Value::Null);
        }
        Value::Object(shown)
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
    Default { wrappers: bool, keys: bool },
    Csv { section: bool },
}

impl Form {
    /// Reads `json`, `default=noprint_wrappers=1:nokey=1` (`nw`, `nk`) or `csv=p=0`.
    ///
    /// # Errors
    /// What is not known here.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once('=').unwrap_or((text, ""));
        let mut form = match name {
            "json" => Self::Json,
            "default" => Self::Default { wrappers: true, keys: true },
            "csv" => Self::Csv { section: true },
            _ => return Err("known are json, default and csv".into()),
        };
        for option in options.split(':').filter(|option| !option.is_empty()) {
            match (&mut form, option.split_once('=').unwrap_or((option, ""))) {
                (Self::Default { wrappers, .. }, ("noprint_wrappers" | "nw", on)) => *wrappers = on != "1",
                (Self::Default { keys, .. }, ("nokey" | "nk", on)) => *keys = on != "1",
                (Self::Csv { section }, ("print_section" | "p", on)) => *section = on != "0",
                // What JSON is laid out like does not matter to who parses it.
                (Self::Json, ("compact" | "c", _)) => {}
                _ => return Err(format!("the option `{option}` of {name} is not known here")),
            }
        }
        Ok(form)
    }

    /// The text of what is shown of a document.
    pub(crate) fn write(self, shown: &Value) -> String {
        if self == Self::Json {
            return serde_json::to_string_pretty(&without_nulls(shown)).unwrap_or_default();
        }
        let streams = shown.get("streams").and_then(Value::as_array).into_iter().flatten();
        let sections = streams.map(|s| ("stream", s)).chain(shown.get("format").map(|f| ("format", f)));
        let mut lines = Vec::new();
        for (name, section) in sections {
            let fields = in_order(section);
            match self {
                Self::Csv { section } => {
                    let mut cells: Vec<String> = section.then(|| name.to_owned()).into_iter().collect();
                    cells.extend(fields.iter().map(|(_, value)| quoted(value)));
                    lines.push(cells.join(","));
                }
                Self::Default { wrappers, keys } => {
                    let wrapper = name.to_uppercase();
                    lines.extend(wrappers.then(|| format!("[{wrapper}]")));
                    lines.extend(fields.into_iter().map(|(key, value)| {
                        // A line is a field: what a file's tags say must not make another one.
                        let value = value.replace(['\n', '\r'], " ");
                        if keys { format!("{key}={value}") } else { value }
                    }));
                    lines.extend(wrappers.then(|| format!("[/{wrapper}]")));
                }
                Self::Json => {}
            }
        }
        lines.join("\n")
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(n, v)| (n.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(all) => Value::Array(all.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn in_order(section: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let plain = ORDER.iter().filter_map(|name| Some(((*name).to_owned(), text(section.get(*name)?))));
    let tags = section.get("tags").and_then(Value::as_object).into_iter().flatten();
    plain.chain(tags.map(|(name, value)| (format!("TAG:{name}"), text(value)))).collect()
}

/// A cell of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "streams": [
                { "index": 0, "codec_name": "h264", "codec_type": "video", "height": 360, "width": 640, "tags": { "language": "eng" } },
                { "index": 1, "codec_name": "aac", "codec_type": "audio", "sample_rate": "48000" },
                { "index": 2, "codec_name": "aac", "codec_type": "audio", "sample_rate": "44100" },
            ],
            "format": { "filename": "a,b\".mp4", "duration": "4.000000", "tags": { "title": "x\ny=1" } },
        })
    }

    fn shown(entries: &str, select: &str, form: &str) -> String {
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let leak = |text: &str| -> &'static str { text.to_owned().leak() };
        let shown = Shown::new(false, false, some(leak(entries)), some(leak(select))).unwrap();
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
    fn what_is_not_known_is_refused_by_name() {
        assert!(Form::parse("xml").is_err() && Form::parse("csv=nk=1").unwrap_err().contains("nk=1"));
        assert!(Shown::new(false, false, Some("packet=pts"), None).unwrap_err().contains("packet"));
        assert!(Shown::new(false, false, None, Some("p:1")).unwrap_err().contains("p:1"));
    }
}
