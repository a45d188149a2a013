//! JSON values as YAML. Texts are quoted unless no reader of YAML 1.1 or 1.2 can take them for anything else.

use serde_json::Value;
use std::fmt::Write as _;

/// A document in block style, with a final line break and without `---`.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(list) if !list.is_empty() => block(&mut out, value, 0),
        other => {
            scalar(&mut out, other);
            out.push('\n');
        }
    }
    out
}

fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                text(out, key);
                out.push(':');
                entry(out, value, indent, matches!(value, Value::Array(_)));
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                out.push('-');
                if nested(value) {
                    out.push(' ');
                    block(out, value, indent.saturating_add(2));
                } else {
                    out.push(' ');
                    scalar(out, value);
                    out.push('\n');
                }
            }
        }
        other => {
            scalar(out, other);
            out.push('\n');
        }
    }
}

fn entry(out: &mut String, value: &Value, indent: usize, is_list: bool) {
    if nested(value) {
        let indent = if is_list { indent } else { indent.saturating_add(2) };
        out.push('\n');
        pad(out, indent);
        block(out, value, indent);
    } else {
        out.push(' ');
        scalar(out, value);
        out.push('\n');
    }
}

fn nested(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(value) => text(out, value),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Plain where it starts with a letter, holds only letters, digits and `._-/` with no look of another type; else in double
/// quotes, as JSON writes it, which every YAML reader reads the same.
fn text(out: &mut String, text: &str) {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if plain { out.push_str(text) } else { out.push_str(&Value::from(text).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_could_be_read_as_something_else_is_quoted() {
        let value = json!({
            "app": "y", "version": "1.10", "octal": "0777", "name": "web", "empty": "", "port": 80, "list": [],
            "key/with.dots": "a: b", "map": {}, "on": true, "nested": [{ "a": ["x", [1]], "b": null }],
        });
        let expected = "\
app: \"y\"
empty: \"\"
key/with.dots: \"a: b\"
list: []
map: {}
name: web
nested:
- a:
  - x
  - - 1
  b: null
octal: \"0777\"
\"on\": true
port: 80
version: \"1.10\"
";
        assert_eq!(to_yaml(&value), expected);
    }
}
