#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::testing::{tree, yaml_as_json};
use super::*;

fn assert_reads(table: &[(&str, &str)]) {
    for (text, json) in table {
        assert_eq!(yaml_as_json(text), *json, "{text:?}");
    }
}

#[test]
fn maps_lists_and_scalars_of_all_styles_are_read() {
    assert_reads(&[
        ("a: 1\nb:\n- x\n- z: 2\n", r#"{"a":1,"b":["x",{"z":2}]}"#),
        ("a: {b: [1, 'two', \"th\\x72ee\"]}", r#"{"a":{"b":[1,"two","three"]}}"#),
        ("a: |\n  x\n\n  y\nb: >-\n  x\n  y\n", r#"{"a":"x\n\ny\n","b":"x y"}"#),
        ("a: plain\n  goes on # comment\nb: 'it''s'", r#"{"a":"plain goes on","b":"it's"}"#),
        ("a:\nb: ~\nc: ''", r#"{"a":null,"b":null,"c":""}"#),
        ("a: y\nb: \"y\"\nc: !!str y\nd: 0777", r#"{"a":true,"b":"y","c":"y","d":511}"#),
        ("a: 1\r\nb:\r\n  - x\r\n", r#"{"a":1,"b":["x"]}"#),
        ("? a\n: b", r#"{"a":"b"}"#),
        ("{\"a\":1,\"b\":[2]}", r#"{"a":1,"b":[2]}"#),
        ("# only a comment\n", "nothing"),
        ("", "nothing"),
        ("~", "nothing"),
        ("...\n", "nothing"),
    ]);
}

#[test]
fn keys_that_are_no_text_become_text() {
    assert_reads(&[
        ("80: a\ntrue: b\n1.5: c", r#"{"80":"a","true":"b","1.5":"c"}"#),
        ("~: a", "x.yaml:1:1: null and integers beyond 63 bits cannot be keys; put the key in quotes"),
        ("[a]: b", "x.yaml:1:1: a key must be a word, not a map or a list"),
        ("? {a: b}\n: c", "x.yaml:1:3: a key must be a word, not a map or a list"),
        ("a: &x b\n*x : c", "x.yaml:2:1: an alias cannot be a key"),
    ]);
}

#[test]
fn every_node_and_key_knows_its_place() {
    let root = tree("a: 1\nbé:\n  - {x: y}\n  - |\n    text\n").unwrap().unwrap();
    let pos = |line, column| Pos { line, column };
    assert_eq!(root.pos, pos(1, 1));
    let list = root.entry("bé").unwrap();
    assert_eq!((list.key.pos, list.value.pos), (pos(2, 1), pos(3, 3)));
    let Value::List(items) = &list.value.value else { panic!("a list") };
    assert_eq!(items[0].pos, pos(3, 5));
    let x = items[0].entry("x").unwrap();
    assert_eq!((x.key.pos, x.value.pos), (pos(3, 6), pos(3, 9)));
    assert_eq!(items[1].pos, pos(5, 5));
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    let many: String = (0..20).map(|n| format!("k{n}: {n}\n")).collect();
    assert_reads(&[
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: the key \"a\" stands here and in line 1"),
        ("80: 1\n'80': 2", "x.yaml:2:1: the key \"80\" stands here and in line 1"),
        ("x:\n  y: 1\n  yes: 2\n", "x.yaml:3:3: the key \"true\" stands here and in line 2"),
        (&format!("{many}k7: 8"), "x.yaml:21:1: the key \"k7\" stands here and in line 8"),
    ]);
}

#[test]
fn aliases_stand_for_copies_that_keep_their_place() {
    let root = tree("a: &x\n  k: [1]\nb: *x\n").unwrap().unwrap();
    assert_eq!(root.get("a"), root.get("b"));
    assert_reads(&[
        ("a: &x y\nb: *x", r#"{"a":true,"b":true}"#),
        ("&x key: v\nb: *x", r#"{"key":"v","b":"key"}"#),
        ("a: &x 1\nb: &x 2\nc: *x", r#"{"a":1,"b":2,"c":2}"#),
        ("a: *x", "x.yaml:1:4: not valid YAML: while parsing node, found unknown anchor"),
        ("a: &x [*x]", "x.yaml:1:8: this alias stands for a value that contains it"),
    ]);
}

#[test]
fn merge_keys_are_read_where_all_readers_agree() {
    assert_reads(&[
        ("<<: {a: 1, b: 2}\nb: 3", r#"{"b":3,"a":1}"#),
        ("x: &x {a: 1}\nz:\n  <<: *x\n  b: 2", r#"{"x":{"a":1},"z":{"b":2,"a":1}}"#),
        ("<<: [{a: 1}, {a: 2, b: 3}]", r#"{"a":1,"b":3}"#),
        ("\"<<\": {a: 1}", r#"{"<<":{"a":1}}"#),
        (
            "a: 2\n<<: {a: 1}",
            "x.yaml:2:1: `<<` merges \"a\", which line 1 sets already; \
             put `<<` first: readers of Kubernetes disagree about this order",
        ),
        ("<<: 1", "x.yaml:1:1: `<<` takes a map or a list of maps, not an integer (1)"),
        ("<<: [1]", "x.yaml:1:6: `<<` merges maps, not an integer (1)"),
        ("<<: {a: 1}\n<<: {b: 1}", "x.yaml:2:1: `<<` stands twice in this map"),
    ]);
}

#[test]
fn an_anchor_bomb_is_refused_in_the_line_that_bursts_it() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let before = n - 1;
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 9].join(", "));
    }
    let error = tree(&bomb).unwrap_err();
    assert_eq!(error, "x.yaml:4:5: aliases make this document many times larger than it is written");
}

#[test]
fn a_long_text_behind_an_alias_is_not_copied() {
    let long = "x".repeat(1 << 20);
    let text = format!("a: &a {long}\nb: [{}]", vec!["*a"; 5_000].join(", "));
    let root = tree(&text).unwrap().unwrap();
    let Value::List(copies) = &root.get("b").unwrap().value else { panic!("a list") };
    let Value::String(original) = &root.get("a").unwrap().value else { panic!("a string") };
    assert!(
        copies.iter().all(|copy| matches!(&copy.value, Value::String(text) if Arc::ptr_eq(text, original)))
    );
}

#[test]
fn nesting_is_bounded_before_the_stack_is() {
    let block = |n: usize| "- ".repeat(n) + "x";
    assert!(tree(&block(MAX_DEPTH)).is_ok());
    assert_eq!(tree(&block(MAX_DEPTH + 1)).unwrap_err(), "x.yaml:1:257: maps and lists nest deeper than 128");
    for open in ["[", "{", "[{a: ", "- [", "? ", "a: [", "\"", "{{"] {
        assert!(tree(&open.repeat(100_000)).is_err(), "{open:?}");
    }
    let staircase: String = (0..1_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert_eq!(tree(&staircase).unwrap_err(), "x.yaml:129:129: maps and lists nest deeper than 128");
    // Each alias goes 60 deeper.
    let nest = |inner: &str| "[".repeat(60) + inner + &"]".repeat(60);
    let text = format!("- &a {}\n- &b {}\n- {}\n", nest("x"), nest("*a"), nest("*b"));
    assert_eq!(tree(&text).unwrap_err(), "x.yaml:3:63: maps and lists nest deeper than 128");
}

#[test]
fn nodes_are_bounded() {
    let error = parse(&"x.yaml".into(), "[1, 2, 3]", 1, &mut Budget::new(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.yaml:1:1: the input holds more values than the limit on nodes allows; \
         audit fewer files at once, or raise the limit"
    );
}

#[test]
fn one_value_cannot_make_the_parser_hold_the_whole_text() {
    let flow = format!("- [{}]", "1,".repeat(LONGEST_TOKEN));
    assert_eq!(
        tree(&flow).unwrap_err(),
        "x.yaml:1:3: one value spans more than 2097152 characters; write a long list in block style, or as JSON"
    );
    // A long text of short values is fine.
    let block = "- aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n".repeat(LONGEST_TOKEN / 50);
    let root = tree(&block).unwrap().unwrap();
    assert!(matches!(root.value, Value::List(items) if items.len() == LONGEST_TOKEN / 50));
}

#[test]
fn characters_that_readers_disagree_about_are_refused() {
    assert_reads(&[
        (
            "a: 1 # \u{2028}b: 2",
            "x.yaml:1:8: U+2028 ends a line for some readers of Kubernetes and not for others; \
             write it as \"\\u2028\" in double quotes",
        ),
        (
            "a: 1\nb: é\u{85}",
            "x.yaml:2:5: U+0085 ends a line for some readers of Kubernetes and not for others; \
             write it as \"\\u0085\" in double quotes",
        ),
        (
            "a: \0",
            "x.yaml:1:4: U+0000 is a control character, which the API server refuses; \
             write it as \"\\u0000\" in double quotes",
        ),
        ("a: \"\\u2028\"", "{\"a\":\"\u{2028}\"}"),
        ("a: é\u{a0}\u{fffd}😀", "{\"a\":\"é\u{a0}\u{fffd}😀\"}"),
    ]);
    for control in ["\u{1}", "\u{7f}", "\u{9f}", "\u{fffe}", "\u{ffff}", "\u{2029}", "\u{1b}"] {
        assert!(tree(&format!("a: x{control}")).is_err(), "{control:?}");
    }
}

#[test]
fn what_kubectl_would_not_read_is_refused() {
    assert_reads(&[
        (
            "a: 1\n...\nb: 2",
            "x.yaml:3:1: kubectl does not read what follows here; \
             begin each document on the line after a line that is just `---`",
        ),
        ("a: !!binary aGk=", "x.yaml:1:4: the tag \"tag:yaml.org,2002:binary\" has no meaning in a manifest"),
        ("a: !mine x", "x.yaml:1:4: the tag \"!mine\" has no meaning in a manifest"),
        ("a: !!int x", "x.yaml:1:4: this is not a value of its tag !!int; put it in quotes if it is text"),
        ("a: !!map [x]", "x.yaml:1:4: this is not a value of its tag !!map; put it in quotes if it is text"),
        (
            "a: .inf",
            "x.yaml:1:4: infinity and not-a-number cannot be sent to the API server; \
             put it in quotes if it is text",
        ),
        ("a: b: c", "x.yaml:1:5: not valid YAML: mapping values are not allowed in this context"),
    ]);
}
