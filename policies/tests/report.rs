//! Reports against their schemas, and against names that try to be more than text.
//!
//! `schemas/sarif-2.1.0.json` is the schema of SARIF 2.1.0 as the OASIS committee publishes it
//! (oasis-tcs/sarif-spec, `sarif-schema-2.1.0.json`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use mpegflow_policies::audit::{
    Accepted, DecidingRule, Finding, IntentResult, Outcome, Reach, Severity, Summary, Witness, catalog,
};
use mpegflow_policies::policy::Direction;
use mpegflow_policies::report;
use mpegflow_policies::sets::Protocol;
use mpegflow_policies::source::{At, ObjectRef};
use mpegflow_policies::truth::{Doubt, Truth};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Markup, quotes, a link as SARIF writes them, a turn of direction, an ANSI sequence, line ends, an end of a DOT string.
const EVIL: &str = "</title><script>alert(1)</script><img src=x onerror='a()'>&amp;\"]; evil [label=\"\\\" [go](https://evil.example/)\u{202e}\u{61c}\u{2028}\u{1b}[31m\n# line";

fn at(line: u32) -> At {
    At { file: EVIL.into(), line, column: line }
}

fn object(namespace: bool) -> ObjectRef {
    ObjectRef {
        group: "".into(),
        kind: "Pod".into(),
        namespace: namespace.then(|| EVIL.into()),
        name: EVIL.into(),
    }
}

/// A finding with all that one may have, or with nothing.
fn finding(full: bool, certain: Truth, protocol: Protocol) -> Finding {
    let kind = &catalog::REACHES_METADATA;
    let rules = vec![
        DecidingRule {
            direction: Direction::Egress,
            policy: Some(object(true)),
            rule: Some(EVIL.into()),
            at: Some(at(7)),
        },
        DecidingRule { direction: Direction::Ingress, policy: None, rule: None, at: None },
    ];
    Finding {
        id: kind.id,
        severity: if full { Severity::Error } else { Severity::Note },
        certain,
        object: object(full),
        at: full.then(|| at(3)),
        reason: EVIL.into(),
        witness: full.then(|| Witness {
            source: EVIL.into(),
            destination: EVIL.into(),
            protocol,
            port: 80,
            rules,
        }),
        fix: EVIL.into(),
        doubts: vec![Doubt::at(EVIL, &at(0)), Doubt::new(EVIL)],
        subject: EVIL.into(),
        covers: EVIL.into(),
    }
}

/// Every string that may come of the input is evil.
fn outcome(proved: Truth) -> Outcome {
    let findings = [Protocol::Tcp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6, Protocol::Other(47)]
        .map(|protocol| finding(true, Truth::Yes, protocol));
    let reach = |from: &str, passes: Truth, intended: bool| Reach {
        from: from.into(),
        to: EVIL.into(),
        passes,
        traffic: EVIL.into(),
        intended,
    };
    Outcome {
        proved,
        sentence: EVIL.into(),
        profile: "cilium@1.18".parse().unwrap(),
        assumptions: vec![EVIL.into()],
        intents: vec![IntentResult {
            name: EVIL.into(),
            from: EVIL.into(),
            proved,
            pods: 1,
            doubts: vec![Doubt::new(EVIL)],
        }],
        findings: findings.into_iter().chain([finding(false, Truth::Unknown, Protocol::Udp)]).collect(),
        accepted: vec![Accepted {
            finding: finding(true, Truth::Yes, Protocol::Tcp),
            owner: EVIL.into(),
            reason: EVIL.into(),
            expires: "2027-01-31".into(),
        }],
        reach: vec![
            reach("a", Truth::Yes, false),
            reach("a", Truth::Unknown, false),
            reach(EVIL, Truth::Yes, true),
        ],
        input: Summary::default(),
    }
}

fn errors(schema: &str, instance: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(schema);
    let mut schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    // The pattern of a field that we do not write has a bracket too many, which no validator of patterns takes.
    for place in ["run", "toolComponent"] {
        if let Some(pattern) =
            schema.pointer_mut(&format!("/definitions/{place}/properties/language/pattern"))
        {
            *pattern = json!("^[a-zA-Z]{2}(-[a-zA-Z]{2})?$");
        }
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

const OURS: &str = "schema/audit-v1.schema.json";
const SARIF: &str = "tests/schemas/sarif-2.1.0.json";

#[test]
fn json_is_as_its_schema_says_whatever_the_verdict() {
    for proved in [Truth::Yes, Truth::No, Truth::Unknown] {
        assert_eq!(errors(OURS, &report::json(&outcome(proved))), [""; 0]);
    }
}

#[test]
fn the_schema_refuses_a_field_more_or_less_anywhere() {
    /// Each object within a value, by its path.
    fn objects(value: &Value, path: &str, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                into.push(path.to_owned());
                map.iter().for_each(|(key, value)| objects(value, &format!("{path}/{key}"), into));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, value)| objects(value, &format!("{path}/{i}"), into));
            }
            _ => {}
        }
    }
    let good = report::json(&outcome(Truth::No));
    let mut paths = Vec::new();
    objects(&good, "", &mut paths);
    assert!(paths.len() > 60, "{}", paths.len());
    for path in paths {
        let mut more = good.clone();
        more.pointer_mut(&path).unwrap().as_object_mut().unwrap().insert("more".into(), json!(1));
        assert_ne!(errors(OURS, &more), [""; 0], "{path}/more");
        let keys: Vec<String> = good.pointer(&path).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let mut less = good.clone();
            less.pointer_mut(&path).unwrap().as_object_mut().unwrap().remove(&key);
            assert_ne!(errors(OURS, &less), [""; 0], "{path} without {key}");
        }
    }
}

#[test]
fn sarif_is_as_the_schema_of_oasis_says() {
    for proved in [Truth::Yes, Truth::No, Truth::Unknown] {
        assert_eq!(errors(SARIF, &report::sarif(&outcome(proved))), [""; 0]);
    }
    let mut broken = report::sarif(&outcome(Truth::No));
    *broken.pointer_mut("/runs/0/results/0/level").unwrap() = json!("fatal");
    assert_ne!(errors(SARIF, &broken), [""; 0], "the schema is in force");
}

#[test]
fn sarif_keeps_the_rules_that_its_schema_cannot_say() {
    let sarif = report::sarif(&outcome(Truth::No));
    let run = sarif.pointer("/runs/0").unwrap();
    let rules: BTreeSet<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].as_str().unwrap())
        .collect();
    for result in run["results"].as_array().unwrap() {
        assert!(rules.contains(result["ruleId"].as_str().unwrap()));
        // 3.27.10: a result that is no failure has no level.
        assert_eq!(result["kind"] == "fail", result["level"] != "none", "{result}");
        let text = result["message"]["text"].as_str().unwrap();
        assert!(!text.contains("](") && !text.chars().any(char::is_control), "{text:?}");
        for place in result["locations"].as_array().unwrap() {
            let uri = place["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
            assert!(uri.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`[]".contains(&b)), "{uri}");
        }
    }
}

/// Tags of a page with their attributes' names; a page that is not well-formed here panics.
fn tags(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..];
        let end = tag.find('>').unwrap_or_else(|| panic!("an open tag: {tag:.60}"));
        let mut inside = &tag[..end];
        let name = inside.split([' ', '\n']).next().unwrap();
        found.insert(name.trim_start_matches('/').to_owned());
        inside = inside.strip_prefix(name).unwrap();
        while let Some((attribute, value)) = inside.split_once("=\"") {
            found.insert(format!("@{}", attribute.trim()));
            inside = value.split_once('"').unwrap_or_else(|| panic!("an open quote: {value:.60}")).1;
        }
        rest = &tag[end + 1..];
        if name == "style" {
            rest = &rest[rest.find("</style>").unwrap()..];
        }
    }
    found
}

#[test]
fn no_name_becomes_a_tag_an_attribute_or_a_turn_of_direction_in_html() {
    let page = report::html(&outcome(Truth::No));
    let expected = [
        "!doctype",
        "@aria-label",
        "@charset",
        "@class",
        "@content",
        "@d",
        "@http-equiv",
        "@lang",
        "@name",
        "@role",
        "@text-anchor",
        "@viewBox",
        "@x",
        "@y",
        "b",
        "body",
        "br",
        "code",
        "h1",
        "h2",
        "h3",
        "head",
        "html",
        "li",
        "meta",
        "p",
        "path",
        "pre",
        "section",
        "small",
        "style",
        "svg",
        "table",
        "td",
        "text",
        "th",
        "title",
        "tr",
        "ul",
    ];
    let found = tags(&page);
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let hidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{61c}' | '\u{2028}');
    assert!(!page.contains(hidden));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the name is shown as it is");
}

#[test]
fn no_name_ends_a_string_of_dot() {
    let dot = report::dot(&outcome(Truth::No));
    // The comment with the verdict is one line.
    let (comment, graph) = dot.split_once('\n').unwrap();
    assert!(comment.starts_with("// ") && graph.starts_with("digraph reach {\n"), "{comment}");
    let mut bare = String::new();
    let (mut in_string, mut escaped) = (false, false);
    for c in graph.chars() {
        match (in_string, c) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => in_string = !in_string,
            (true, '\n') => panic!("a string of several lines"),
            (true, _) => {}
            (false, _) => bare.push(c),
        }
    }
    assert!(!in_string);
    assert_eq!(
        bare,
        "digraph reach {\n  label=;\n  labelloc=t; rankdir=LR; node [shape=box, style=rounded];\n  ;\n  ;\n   ->  \
         [label=, color=red, style=solid];\n   ->  [label=, color=orange, style=dashed];\n   ->  [label=, \
         color=darkgreen, style=solid];\n}\n"
    );
}

#[test]
fn no_name_writes_to_the_terminal() {
    let table = report::table(&outcome(Truth::No), false);
    assert!(!table.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{2028}')));
    assert!(!table.lines().any(|line| line.starts_with("# line")), "a name has begun a line");
}

#[test]
fn the_first_line_of_every_format_holds_the_verdict() {
    let mut outcome = outcome(Truth::No);
    outcome.sentence = "Violated: \"a\" reaches <b>.".into();
    let json = report::headed(&report::json(&outcome), "sentence");
    let sarif = report::headed(&report::sarif(&outcome), "properties");
    let first = |text: &str| text.lines().next().unwrap().to_owned();
    assert_eq!(first(&json), r#"{ "sentence": "Violated: \"a\" reaches <b>.","#);
    assert_eq!(first(&sarif), r#"{ "properties": {"sentence":"Violated: \"a\" reaches <b>."},"#);
    assert_eq!(first(&report::table(&outcome, false)), outcome.sentence);
    assert_eq!(first(&report::dot(&outcome)), format!("// {}", outcome.sentence));
    assert_eq!(
        first(&report::html(&outcome)),
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Violated: &quot;a&quot; reaches &lt;b&gt;.</title>"
    );
    // The order of fields is all that changes.
    let same = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!((same(&json), same(&sarif)), (report::json(&outcome), report::sarif(&outcome)));
    assert_eq!(report::headed(&json!({ "sentence": "a" }), "sentence"), r#"{ "sentence": "a" }"#);
}
