//! A job spec in YAML as the JSON it means: one document of maps, lists and scalars of the core schema of YAML 1.2. Anchors,
//! tags and merge keys, by which a short text can mean a long or another one, are not taken.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Levels of nesting.
const MAX_DEPTH: usize = 16;

/// An open map or list.
enum Open {
    Map(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

/// Reads one document.
///
/// # Errors
/// What is not YAML or not taken, with its line.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| format!("line {}: {}", e.marker().line(), e.info()))?;
        let refuse = |what: &str| Err(format!("line {}: {what}", span.start.line()));
        let value = match event {
            Event::Alias(_) => return refuse("aliases are not taken"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                return refuse("anchors are not taken");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("tags are not taken");
            }
            Event::Scalar(text, style, _, _) => {
                if let Some(Open::Map(map, key @ None)) = open.last_mut() {
                    if map.contains_key(text.as_ref()) {
                        return refuse(&format!("`{text}` is there twice"));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                if style == ScalarStyle::Plain { plain(&text) } else { Value::String(text.into_owned()) }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    return refuse("it is nested too deeply");
                }
                if let Some(Open::Map(_, None)) = open.last() {
                    return refuse("a key must be a word");
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::List(Vec::new()),
                    _ => Open::Map(Map::new(), None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Map(map, _)) => Value::Object(map),
                Some(Open::List(list)) => Value::Array(list),
                None => continue,
            },
            Event::DocumentStart(_) if root.is_some() => return refuse("a second document begins"),
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => {
                let Some(key) = key.take() else { return refuse("a key must be a word") };
                map.insert(key, value);
            }
        }
    }
    root.ok_or_else(|| "it is empty".into())
}

/// A scalar without quotes (YAML 1.2, 10.3.2; numbers as a job spec has them).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let integer = text.parse::<i64>().ok().filter(|_| !text.starts_with('+')).map(Number::from);
            integer.or_else(|| decimal(text)).map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

/// `12.5`: digits on both sides. Other forms of the standard (`1e3`, `.inf`) are no numbers of a job spec.
fn decimal(text: &str) -> Option<Number> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let fits = digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction);
    text.parse().ok().filter(|_| fits).and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_spec_in_yaml_means_the_same_as_in_json() {
        let text = "# what to make\nversion: 1\npreset: web\nvideo:\n  max_height: 720\n  encoder: 'crf=20:preset=slow'\nallow_partial: true\nlabels: {a: \"1\", b: on, c: 1.2.3}\nthumbnails: {poster_seconds: 2.5}\n";
        let expected = json!({
            "version": 1, "preset": "web", "video": { "max_height": 720, "encoder": "crf=20:preset=slow" },
            "allow_partial": true, "labels": { "a": "1", "b": "on", "c": "1.2.3" }, "thumbnails": { "poster_seconds": 2.5 },
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_could_mean_something_else_is_refused_with_its_line() {
        for (text, what) in [
            ("a: 1\na: 2\n", "line 2: `a` is there twice"),
            ("a: &x 1\nb: *x\n", "anchors"),
            ("a: !!binary x\n", "tags"),
            ("a: 1\n---\nb: 1\n", "second document"),
            ("", "empty"),
            ("a: [1\n", "line"),
            ("? [a]\n: 1\n", "a key must be a word"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
        assert!(parse(&"[".repeat(40)).unwrap_err().contains("deeply"));
    }
}
