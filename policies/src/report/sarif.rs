//! SARIF 2.1.0 (OASIS), which code scanners read. The verdict is the first of the run's notifications, and a
//! property of the log for whom the text is read by.

use super::table::clean;
use super::{deciding, packet};
use crate::audit::{Finding, Outcome, catalog};
use crate::source::At;
use crate::truth::Truth;
use serde_json::{Value, json};

/// The outcome as a SARIF log with one run.
pub fn sarif(outcome: &Outcome) -> Value {
    let rules: Vec<Value> = catalog::ALL
        .iter()
        .map(|kind| {
            json!({
                "id": kind.id,
                "name": camel(kind.name),
                "shortDescription": { "text": kind.title },
                "help": { "text": kind.fix },
                "defaultConfiguration": { "level": kind.severity.name() },
            })
        })
        .collect();
    let accepted = outcome.accepted.iter().map(|accepted| {
        let mut result = result(&accepted.finding);
        if let Some(result) = result.as_object_mut() {
            let why =
                format!("{} (accepted by {} until {})", accepted.reason, accepted.owner, accepted.expires);
            result
                .insert("suppressions".into(), json!([{ "kind": "external", "justification": plain(&why) }]));
        }
        result
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "properties": { "sentence": plain(&outcome.sentence) },
        "runs": [{
            "tool": { "driver": {
                "name": "mpegflow audit",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "invocations": [{
                "executionSuccessful": true,
                "exitCode": outcome.exit_code(),
                "toolExecutionNotifications": std::iter::once(&outcome.sentence)
                    .chain(&outcome.assumptions)
                    .enumerate()
                    .map(|(i, text)| json!({
                        "level": if i == 0 && outcome.proved != Truth::Yes { "error" } else { "note" },
                        "message": { "text": plain(text) },
                    }))
                    .collect::<Vec<_>>(),
            }],
            // Columns count characters.
            "columnKind": "unicodeCodePoints",
            "results": outcome.findings.iter().map(result).chain(accepted).collect::<Vec<_>>(),
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let mut text = format!("{}: {}", finding.object, finding.reason);
    if let Some(witness) = &finding.witness {
        text.push_str(&format!(". Packet: {}", packet(witness)));
        for rule in &witness.rules {
            text.push_str(&format!("; {}", deciding(rule)));
        }
    }
    text.push_str(&format!(". Fix: {}", finding.fix));
    let mut result = json!({
        "ruleId": finding.id,
        "level": finding.severity.name(),
        "kind": if finding.certain == Truth::Yes { "fail" } else { "review" },
        "message": { "text": plain(&text) },
        "partialFingerprints": { "mpegflow/v1": finding.fingerprint() },
    });
    // Only a failure has a level (SARIF 2.1.0, 3.27.10).
    if finding.certain != Truth::Yes
        && let Some(result) = result.as_object_mut()
    {
        result.insert("level".into(), json!("none"));
        result.insert("properties".into(), json!({ "severity": finding.severity.name() }));
    }
    let mut places: Vec<Value> = Vec::new();
    if let Some(at) = &finding.at {
        places.push(place(at, None));
    }
    if let Some(result) = result.as_object_mut() {
        result.insert("locations".into(), json!(places));
        let related: Vec<Value> = finding
            .witness
            .iter()
            .flat_map(|witness| &witness.rules)
            .filter_map(|rule| rule.at.as_ref().map(|at| place(at, Some(deciding(rule)))))
            .collect();
        if !related.is_empty() {
            result.insert("relatedLocations".into(), json!(related));
        }
    }
    result
}

fn place(at: &At, message: Option<String>) -> Value {
    let mut physical = json!({ "artifactLocation": { "uri": uri(&at.file) } });
    if at.line > 0
        && let Some(physical) = physical.as_object_mut()
    {
        physical.insert("region".into(), json!({ "startLine": at.line, "startColumn": at.column.max(1) }));
    }
    let mut place = json!({ "physicalLocation": physical });
    if let (Some(message), Some(place)) = (message, place.as_object_mut()) {
        place.insert("message".into(), json!({ "text": plain(&message) }));
    }
    place
}

/// Text of a message. In it `[text](target)` is a link (SARIF 2.1.0, 3.11.6), which no name of the input may make.
fn plain(text: &str) -> String {
    clean(text).replace("](", "] (")
}

/// A path as a relative URI reference: what RFC 3986 does not allow in a path is percent-encoded.
fn uri(path: &str) -> String {
    // Two slashes at the start would begin a host's name.
    let mut uri = String::from(if path.starts_with("//") { "/." } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// `reaches-pods` → `ReachesPods`, as SARIF wants names of rules.
fn camel(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_a_path() {
        let cases = [
            ("charts/np.yaml", "charts/np.yaml"),
            ("//evil.example/x", "/.//evil.example/x"),
            ("javascript:x", "javascript%3Ax"),
            ("a b#c?d", "a%20b%23c%3Fd"),
        ];
        for (path, expected) in cases {
            assert_eq!(uri(path), expected);
        }
    }
}
