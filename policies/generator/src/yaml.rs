//! Documents, written as block YAML that every reader takes the same way.

use serde_json::{Map, Value};

/// One Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(pub Value);

impl Document {
    /// `kind`, or the empty string.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`, or the empty string.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`; empty for an object of the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// The document as YAML, without the line that separates documents.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        write_value(&mut out, &self.0, 0);
        out
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Several documents as one stream.
#[must_use]
pub fn stream<'a>(documents: impl IntoIterator<Item = &'a Document>) -> String {
    let mut out = String::new();
    for document in documents {
        out.push_str("---\n");
        write_value(&mut out, &document.0, 0);
    }
    out
}

/// Writes a value that begins at the start of a line, indented by `depth` levels, and ends the line.
fn write_value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in sorted(map) {
                indent(out, depth);
                write_entry(out, key, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(out, depth);
                out.push_str("- ");
                write_item(out, item, depth);
            }
        }
        scalar => {
            indent(out, depth);
            write_scalar(out, scalar);
            out.push('\n');
        }
    }
}

fn write_entry(out: &mut String, key: &str, value: &Value, depth: usize) {
    write_text(out, key);
    out.push(':');
    if is_block(value) {
        out.push('\n');
        write_value(out, value, depth.saturating_add(1));
    } else {
        out.push(' ');
        write_scalar(out, value);
        out.push('\n');
    }
}

/// An item of a list: the first entry of a map stands on the line of the dash.
fn write_item(out: &mut String, item: &Value, depth: usize) {
    let inner = depth.saturating_add(1);
    match item {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in sorted(map).into_iter().enumerate() {
                if at > 0 {
                    indent(out, inner);
                }
                write_entry(out, key, value, inner);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_value(out, item, inner);
        }
        scalar => {
            write_scalar(out, scalar);
            out.push('\n');
        }
    }
}

/// The entries by key: whether a map of `serde_json` keeps insertion order depends on who else is compiled with us.
fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        // Numbers, booleans, null, {} and [] are the same in JSON and YAML.
        other => out.push_str(&other.to_string()),
    }
}

/// A string, quoted unless no reader of any YAML version could take it for something else.
fn write_text(out: &mut String, text: &str) {
    const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-./".contains(c))
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        out.push_str(text);
    } else {
        // A JSON string is a double-quoted YAML string.
        out.push_str(&Value::from(text).to_string());
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Document, stream};

    #[test]
    fn documents_are_block_yaml_and_doubtful_words_are_quoted() {
        let document = Document(json!({
            "kind": "Pod",
            "metadata": {"name": "n", "namespace": "shop", "labels": {"app": "web", "on": "", "v": "1"}},
            "spec": {"list": [{"a": 1, "b": [{}, [2, 3]]}, "x y", null], "empty": {}, "none": []},
        }));
        let want = "\
kind: Pod
metadata:
  labels:
    app: web
    \"on\": \"\"
    v: \"1\"
  name: \"n\"
  namespace: shop
spec:
  empty: {}
  list:
    - a: 1
      b:
        - {}
        - 
          - 2
          - 3
    - \"x y\"
    - null
  none: []
";
        assert_eq!(document.yaml(), want);
        assert_eq!((document.kind(), document.name(), document.namespace()), ("Pod", "n", "shop"));
        assert_eq!(stream([&document, &document]), format!("---\n{want}---\n{want}"));
    }
}
