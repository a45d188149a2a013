#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]

use super::super::node::Budget;
use super::super::{Node, testing, yaml};
use mpegflow_policies_generator::large::{Cluster, Shape};
use mpegflow_policies_generator::rng::Rng;
use mpegflow_policies_generator::small::{Case, Dialect};
use mpegflow_policies_generator::yaml::stream;

const NODES: usize = 100_000;

fn plain(text: &str) -> Option<Node> {
    super::parse(text, 7, &mut Budget::new(NODES))
}

/// What is read here must be what the reader of the whole language makes of it, at the same places and for the same price.
/// Returns whether it was read.
fn agrees(text: &str) -> bool {
    let (mut own, mut whole) = (Budget::new(NODES), Budget::new(NODES));
    let Some(root) = super::parse(text, 7, &mut own) else {
        assert_eq!(own.left(), NODES, "{text:?}");
        return false;
    };
    let wanted = yaml::parse(&"x.yaml".into(), text, 7, &mut whole);
    assert_eq!(Ok(Some(root)), wanted, "{text:?}");
    assert_eq!(own.left(), whole.left(), "{text:?}");
    true
}

fn as_json(text: &str) -> String {
    plain(text).map_or_else(|| "left".into(), |root| testing::json(&root).to_string())
}

#[test]
fn what_manifests_are_written_in_is_read_as_the_whole_language_has_it() {
    let table = [
        ("a: 1\nb: x y\nc: \"z\"\nd: 'it'\n", r#"{"a":1,"b":"x y","c":"z","d":"it"}"#),
        ("a:\n  b:\n    c: null\n  d: y\n", r#"{"a":{"b":{"c":null},"d":true}}"#),
        ("a:\n- b: 1\n  c:\n  - d\n  - 0777\n- e\nf: 1.5\n", r#"{"a":[{"b":1,"c":["d",511]},"e"],"f":1.5}"#),
        ("a:\n  - b: {}\n    c: []\n  -   d: -1\n      e: 2\n", r#"{"a":[{"b":{},"c":[]},{"d":-1,"e":2}]}"#),
        ("- a\n- b: 1\n", r#"["a",{"b":1}]"#),
        ("# x\n\na: nginx:1.2#3\n   # y\n\nb: /a,[b]{c}\n", r#"{"a":"nginx:1.2#3","b":"/a,[b]{c}"}"#),
        ("a: [b, 2, {c: \"d e\", f: []}]\n", r#"{"a":["b",2,{"c":"d e","f":[]}]}"#),
        ("  a: 1\n  b: 2\n", r#"{"a":1,"b":2}"#),
        ("\"a b\": 1\n'<<': 2\n80: 3\n", r#"{"a b":1,"<<":2,"80":3}"#),
    ];
    for (text, json) in table {
        let sorted = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(sorted(&as_json(text)), sorted(json), "{text:?}");
        assert!(agrees(text));
    }
}

#[test]
fn what_is_not_plain_or_not_right_is_left() {
    let texts = [
        "",
        "a",
        "a:",
        "a:\nb: 1",
        "a: 1\n  b",
        "a: 1\n b: 2",
        "  a: 1\nb: 2",
        "a: 1\n- b",
        "- a\nb: 1",
        "a: 1\na: 2",
        "a: |\n  b",
        "a: >\n  b",
        "a: &x 1\nb: *x",
        "a: !!str 1",
        "<<: {a: 1}",
        "? a",
        "a: \"b\\n\"",
        "a: 'b''c'",
        "a: \"b",
        "a: \"b\" c",
        "a: b: c",
        "a: b #c",
        "a: b:",
        "a: - b",
        "- - a",
        "-\n  a: 1",
        "a:\t1",
        "a: é",
        "a: 1\r\n",
        "a: 1 ",
        "a: [b",
        "a: [b]]",
        "a: [b,]",
        "a: {b}",
        "a: {b:c}",
        "a: {b: c,}",
        "a: [b: c]",
        "a: {b: 1, b: 2}",
        "a: [b c]",
        "a: [\n  b]",
        "a: .inf",
        "null: 1",
        "a: `b",
        "a: @b",
        "a: %b",
        "%YAML 1.2",
        "a: 1\n...\n",
        "a : 1",
        "a b: 1",
        "a:\n- b\n  c: 1",
        "a:\n  - b\n - c",
        "a:\n  b: 1\n c: 2",
        "a: b\n # c\n  d",
    ];
    for text in texts {
        assert_eq!(as_json(text), "left", "{text:?}");
    }
    let deep = (0..100).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n");
    assert_eq!(as_json(&format!("{deep}{}b: 1", " ".repeat(100))), "left");
    assert_eq!(as_json(&format!("a: {}", "b".repeat(20_000))), "left");
}

/// Changes a text in one place.
fn change(rng: &mut Rng, text: &mut String) {
    const PIECES: [&str; 40] = [
        " ", "  ", "\n", ":", ": ", "-", "- ", "#", " #", "\"", "'", "{", "}", "[", "]", ",", ", ", "{}",
        "[]", "a", "0", ".", "/", "\\", "&a ", "*a", "!!str ", "|", ">", "?", "~", "null", "y", "\t", "é",
        "<<", "\n\n", "...", "---", "%",
    ];
    let at = rng.below(text.len() + 1);
    let Some(at) = (at..=text.len()).find(|at| text.is_char_boundary(*at)) else { return };
    match rng.below(4) {
        0 => {
            let end = (at + rng.between(1, 4)).min(text.len());
            if text.is_char_boundary(end) {
                text.replace_range(at..end, "");
            }
        }
        // A line, or its beginning, somewhere else.
        1 => {
            let lines: Vec<String> = text.lines().map(Into::into).collect();
            if let (Some(line), Some(to)) =
                (rng.pick(&lines).cloned(), text.get(..at).and_then(|t| t.rfind('\n')))
            {
                text.insert_str(to + 1, &format!("{line}\n"));
            }
        }
        _ => text.insert_str(at, rng.word(&PIECES)),
    }
}

#[test]
fn whatever_is_read_is_read_as_the_whole_language_has_it() {
    let mut rng = Rng::new(1);
    let Cluster { namespaces, pods, policies } =
        Cluster::generate(Shape { pods: 60, policies: 60, seed: 1, all_distinct: true });
    let mut texts: Vec<String> =
        (0..40).map(|seed| Case::generate(seed, Dialect::Calico).manifests()).collect();
    texts.extend((0..40).map(|seed| Case::generate(seed, Dialect::Kubernetes).manifests()));
    texts.push(stream(namespaces.iter().chain(&pods).chain(&policies)));
    texts.push(FLOW.repeat(20));
    let documents: Vec<&str> =
        texts.iter().flat_map(|text| text.split("---\n")).filter(|d| !d.is_empty()).collect();
    let (mut read, mut changed) = (0, 0);
    for document in &documents {
        read += usize::from(agrees(document));
        for _ in 0..CHANGES {
            let mut text = (*document).to_owned();
            // A short text is hit where it matters.
            if rng.one_in(2) {
                let lines: Vec<&str> = text.lines().collect();
                let from = rng.below(lines.len());
                text = lines[from..(from + rng.between(1, 8)).min(lines.len())].join("\n");
            }
            for _ in 0..rng.between(1, 3) {
                change(&mut rng, &mut text);
            }
            changed += usize::from(agrees(&text));
        }
    }
    assert!(read > documents.len() * 9 / 10, "{read} of {}", documents.len());
    assert!(changed > 1_000, "{changed}");
}

/// As many as show something; many more were run when this was written.
const CHANGES: usize = 20;

const FLOW: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: a, labels: {app: x, 'b': \"c d\"}}
spec:
  containers:
  - {name: c, image: i, ports: [{name: http, containerPort: 80}, {containerPort: 53}]}
  - name: d
    args: [--a, \"b\", -1, 2.5]
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
";
