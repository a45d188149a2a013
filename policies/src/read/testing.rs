//! Short ways to read a text in tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::node::Budget;
use super::{Documents, Entry, Input, Limits, Node, Value, documents, yaml};

/// Reads texts; the errors line by line.
pub(super) fn read_all(texts: &[(&str, &[u8])]) -> Result<Documents, Vec<String>> {
    let mut input = Input::new(Limits::default());
    for (name, text) in texts {
        input.add(name, *text).unwrap();
    }
    documents(&input).map_err(|errors| errors.to_string().lines().map(Into::into).collect())
}

/// Reads one text with the name `x.yaml`.
pub(super) fn read(text: &str) -> Result<Documents, Vec<String>> {
    read_all(&[("x.yaml", text.as_bytes())])
}

/// The tree of a YAML document that need not be a Kubernetes object, or the error.
pub(super) fn tree(text: &str) -> Result<Option<Node>, String> {
    yaml::parse(&"x.yaml".into(), text, 1, &mut Budget::new(1_000_000)).map_err(|error| error.to_string())
}

/// A tree as JSON.
pub(super) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) => (**text).into(),
        Value::List(items) => items.iter().map(json).collect::<Vec<_>>().into(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.text.to_string(), json(&entry.value))).collect()
        }
    }
}

/// A YAML document as JSON in the order of the text, or the error.
pub(super) fn yaml_as_json(text: &str) -> String {
    match tree(text) {
        Ok(Some(node)) => in_order(&node),
        Ok(None) => "nothing".into(),
        Err(error) => error,
    }
}

fn in_order(node: &Node) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::List(items) => format!("[{}]", items.iter().map(in_order).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entry = |entry: &Entry| format!("{}:{}", string(&entry.key.text), in_order(&entry.value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
        }
        _ => json(node).to_string(),
    }
}
