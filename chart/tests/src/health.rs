//! The health checks that Argo CD is given for our kinds, run as it runs them: Lua 5.1, and nothing of its libraries that reaches outside.

use crate::chart_folder;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What Argo CD opens for a health check.
const ENVIRONMENT: &str = "{obj=obj, ipairs=ipairs, pairs=pairs, next=next, type=type, tostring=tostring, tonumber=tonumber, table=table}";

/// What Argo CD would say of an object of a kind of ours: status and message.
///
/// # Panics
/// The check fails, or says what Argo CD does not know.
pub fn health(object: &Value) -> (String, String) {
    let file = chart_folder().join("examples/argocd/health.yaml");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let map: Value = serde_saphyr::from_str(&text).expect("a ConfigMap");
    let kind = object["kind"].as_str().expect("a kind");
    let key = format!("resource.customizations.health.mpegflow.io_{kind}");
    let check = map["data"][&key].as_str().unwrap_or_else(|| panic!("no {key}"));
    let script = format!(
        "local obj = {}\nlocal check = assert(loadstring({}))\nsetfenv(check, {ENVIRONMENT})\n\
         local health = check()\nio.write(health.status, '\\n', health.message)\n",
        literal(object),
        literal(&Value::from(check)),
    );
    let mut lua = Command::new("lua5.1")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("lua5.1: {e}; 'tools/setup test' installs it"));
    lua.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("Lua reads");
    let output = lua.wait_with_output().expect("Lua ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    let (status, message) = said.split_once('\n').expect("two lines");
    assert!(["Healthy", "Progressing", "Degraded", "Suspended"].contains(&status), "{said}");
    (status.into(), message.into())
}

/// A value as Lua writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Array(entries) => {
            format!("{{{}}}", entries.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("[{}] = {}", quoted(key), literal(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Every byte that is not a plain letter by its number.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b' ' {
            out.push(byte.into());
        } else {
            let _ = write!(out, "\\{byte:03}");
        }
    }
    out + "\""
}
