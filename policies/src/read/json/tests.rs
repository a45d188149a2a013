#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::node::Budget;
use super::super::testing::json;
use super::*;

fn parse_all(text: &str) -> Result<Vec<Node>, String> {
    parse(&"x.json".into(), text, 1, &mut Budget::new(100_000)).map_err(|error| error.to_string())
}

#[test]
fn values_are_what_serde_json_reads() {
    for text in [
        r#"{"a": [1, -2, 0, 1.5, 1e3, -0.25E-2, true, false, null, "x"], "b": {}, "c": []}"#,
        r#"{"escapes": "\" \\ \/ \b \f \n \r \t \u00e9 \ud83d\ude00", "é": "日本"}"#,
        "\t[\r\n]",
        r#""text""#,
        "0",
    ] {
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        let nodes = parse_all(text).unwrap();
        assert_eq!(nodes.iter().map(json).collect::<Vec<_>>(), [expected], "{text}");
    }
}

#[test]
fn only_numbers_without_point_and_exponent_are_integers() {
    let values: Vec<Value> = parse_all("80 80.0 8e1 -9223372036854775808 9223372036854775808")
        .unwrap()
        .into_iter()
        .map(|node| node.value)
        .collect();
    assert_eq!(
        values,
        [
            Value::Int(80),
            Value::Float(80.0),
            Value::Float(80.0),
            Value::Int(i64::MIN),
            Value::Float(9_223_372_036_854_775_808.0)
        ]
    );
}

#[test]
fn positions_count_lines_and_characters() {
    let nodes = parse_all("{\n  \"é\": 1, \"b\":\n\t\"x\"}").unwrap();
    let places: Vec<_> = nodes[0].entries().iter().map(|entry| (entry.key.pos, entry.value.pos)).collect();
    let pos = |line, column| Pos { line, column };
    assert_eq!(places, [(pos(2, 3), pos(2, 8)), (pos(2, 11), pos(3, 2))]);
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let table = [
        (r#"{"a" 1}"#, "x.json:1:6: not valid JSON: expected `:`, found \"1\""),
        (r#"{"a": 1,}"#, "x.json:1:9: not valid JSON: expected a key in double quotes, found \"}\""),
        (r#"{"a": 1"#, "x.json:1:8: not valid JSON: expected `,` or `}`, found the end of the text"),
        ("[1 2]", "x.json:1:4: not valid JSON: expected `,` or `]`, found \"2\""),
        ("[,]", "x.json:1:2: not valid JSON: expected a value, found \",\""),
        ("tru", "x.json:1:1: not valid JSON: expected a value, found \"t\""),
        ("\"a\nb\"", "x.json:1:3: not valid JSON: expected the string's closing quote, found \"\\n\""),
        ("\n 01", "x.json:2:2: \"01\" is not a JSON number"),
        ("1.", "x.json:1:1: \"1.\" is not a JSON number"),
        ("1e999", "x.json:1:1: the number \"1e999\" is out of range"),
        (r#""\x""#, "x.json:1:2: not an escape of JSON"),
        (r#""\ud800x""#, "x.json:1:2: not an escape of JSON: half a surrogate pair, or not four hex digits"),
        (r#""\u+123""#, "x.json:1:2: not an escape of JSON: half a surrogate pair, or not four hex digits"),
        ("{\"a\": 1,\n \"a\": 2}", "x.json:2:2: the key \"a\" stands here and in line 1"),
    ];
    for (text, error) in table {
        assert_eq!(parse_all(text), Err(error.into()), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded_before_the_stack_is() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(parse_all(&deep(MAX_DEPTH)).is_ok());
    let error = "x.json:1:129: objects and arrays nest deeper than 128";
    assert_eq!(parse_all(&deep(MAX_DEPTH + 1)), Err(error.into()));
    assert_eq!(parse_all(&"[".repeat(100_000)), Err(error.into()));
}

#[test]
fn nodes_are_bounded() {
    let error = parse(&"x.json".into(), "[1, 2, 3]", 1, &mut Budget::new(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.json:1:1: the input holds more values than the limit on nodes allows; \
         audit fewer files at once, or raise the limit"
    );
}
