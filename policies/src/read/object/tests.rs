#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::testing;
use super::*;

fn document(spec: &str) -> Document {
    let text = format!("apiVersion: v1\nkind: X\nmetadata: {{name: x}}\nspec:\n{spec}");
    testing::read(&text).unwrap().documents.remove(0)
}

/// What reading `spec` gives: the value, or the error; and the paths that nobody read.
fn reading<T>(
    spec: &str,
    fields: impl FnOnce(&Object<'_>) -> Result<T, Invalid>,
) -> (Result<T, String>, Vec<String>) {
    let document = document(spec);
    match read(&document, |root| fields(&root.required("spec")?.object()?)) {
        Ok((value, unknown)) => (Ok(value), unknown.iter().map(ToString::to_string).collect()),
        Err(error) => (Err(error.to_string()), Vec::new()),
    }
}

fn invalid<T>(spec: &str, fields: impl FnOnce(&Object<'_>) -> Result<T, Invalid>) -> String {
    reading(spec, fields).0.err().unwrap()
}

#[test]
fn fields_are_read_by_type() {
    let spec = "  text: a\n  flag: yes\n  port: 80\n  name: http\n  words: [a, b]\n  labels: {x: \"1\", a.b/c: z}\n  \
                proto: UDP\n  net: 10/8\n";
    let (value, unknown) = reading(spec, |spec| {
        let word = spec.required("proto")?.choice(&[("TCP", 6), ("UDP", 17)])?;
        assert_eq!(word, 17);
        let net =
            spec.required("net")?.parsed("a pair", |text| text.split_once('/').map(|(a, _)| a.len()))?;
        assert_eq!(net, 2);
        assert_eq!(spec.required("port")?.int_or_string()?, IntOrString::Int(80));
        assert_eq!(spec.required("name")?.int_or_string()?, IntOrString::String("http"));
        assert_eq!(spec.required("words")?.strings()?, ["a", "b"]);
        assert_eq!(spec.required("labels")?.map_of_strings()?, [("x", "1"), ("a.b/c", "z")]);
        Ok((spec.string("text")?.map(String::from), spec.bool("flag")?, spec.int_in("port", 1..=65_535)?))
    });
    assert_eq!(value, Ok((Some("a".into()), Some(true), Some(80))));
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn null_is_an_absent_field_and_an_empty_list_is_not() {
    let (value, unknown) = reading("  a:\n  b: ~\n  c: []\n  d: {}\n", |spec| {
        assert!(spec.optional("a").is_none() && spec.optional("b").is_none() && spec.optional("e").is_none());
        assert_eq!(spec.keys().collect::<Vec<_>>(), ["c", "d"]);
        assert!(spec.list("b")?.is_empty() && spec.list("e")?.is_empty());
        assert!(spec.object("b")?.is_none() && spec.object("d")?.is_some());
        Ok(spec.optional("c").map(|c| c.list().unwrap().len()))
    });
    assert_eq!((value, unknown.len()), (Ok(Some(0)), 0));
}

#[test]
fn a_wrong_type_is_named_with_path_place_and_both_types() {
    let table = [
        (
            invalid("  labels: {app: y}\n", |spec| spec.required("labels")?.map_of_strings().map(|_| ())),
            "x.yaml:5:17: spec.labels.app must be a string, is a boolean (true)",
        ),
        (
            invalid("  rules:\n  - ports: [{port: 70000}]\n", |spec| {
                let rule = spec.list("rules")?[0].object()?;
                rule.list("ports")?[0].object()?.required("port")?.int_in(1..=65_535)
            }),
            "x.yaml:6:20: spec.rules[0].ports[0].port must be an integer from 1 to 65535, is an integer (70000)",
        ),
        (invalid("  a: 1\n", |spec| spec.required("b").map(|_| ())), "x.yaml:5:3: spec.b is missing"),
        (invalid("  b:\n", |spec| spec.required("b").map(|_| ())), "x.yaml:5:3: spec.b is missing"),
        (
            invalid("  a: {}\n", |spec| spec.list("a").map(|_| ())),
            "x.yaml:5:6: spec.a must be a list, is a map",
        ),
        (
            invalid("  a: []\n", |spec| spec.object("a").map(|_| ())),
            "x.yaml:5:6: spec.a must be a map, is a list",
        ),
        (
            invalid("  a: [~]\n", |spec| spec.list("a")?[0].object().map(|_| ())),
            "x.yaml:5:7: spec.a[0] must be a map, is null",
        ),
        (
            invalid("  a: [[x]]\n", |spec| spec.list("a")?[0].list().map(|_| ())),
            "x.yaml:5:7: spec.a[0] must be a list, is a list",
        ),
        (
            invalid("  a: \"no\"\n", |spec| spec.bool("a")),
            "x.yaml:5:6: spec.a must be a boolean, is a string (\"no\")",
        ),
        (
            invalid("  a: 1.5\n", |spec| spec.required("a")?.int_or_string().map(|_| ())),
            "x.yaml:5:6: spec.a must be an integer or a string, is a number (1.5)",
        ),
        (
            invalid("  a: tcp\n", |spec| spec.required("a")?.choice(&[("TCP", 6), ("UDP", 17)])),
            "x.yaml:5:6: spec.a must be one of TCP, UDP, is a string (\"tcp\")",
        ),
        (
            invalid("  a.b/c: x\n", |spec| spec.required("a.b/c")?.bool()),
            "x.yaml:5:10: spec[\"a.b/c\"] must be a boolean, is a string (\"x\")",
        ),
        (
            invalid("  a: [1]\n", |spec| spec.required("a")?.strings().map(|_| ())),
            "x.yaml:5:7: spec.a[0] must be a string, is an integer (1)",
        ),
        (
            invalid("  a: b\n", |spec| Err::<(), _>(spec.invalid("either x or y", "neither"))),
            "x.yaml:5:3: spec must be either x or y, is neither",
        ),
    ];
    for (error, expected) in table {
        assert_eq!(error, expected);
    }
}

#[test]
fn a_text_that_yaml_reads_otherwise_is_reported_with_the_way_out() {
    let document = document("  app: y\n");
    let error =
        read(&document, |root| root.required("spec")?.object()?.required("app")?.string().map(|_| ()));
    assert_eq!(
        ReadError::from(error.unwrap_err()).to_string(),
        "x.yaml:5:8: spec.app must be a string, is a boolean (true); put it in quotes"
    );
}

#[test]
fn what_nobody_read_is_reported_wherever_it_is() {
    let spec = "  known: 1\n  foo: 2\n  rules:\n  - port: 1\n    bar: 2\n  - {port: 2, \"b z\": [1]}\n  taken: {x: 1}\n";
    let (value, unknown) = reading(spec, |spec| {
        spec.required("known")?.int_in(0..=9)?;
        let mut sum = 0;
        for rule in spec.list("rules")? {
            sum += rule.object()?.required("port")?.int_in(0..=9)?;
        }
        // Looked up, but its content is never taken.
        assert!(spec.optional("taken").is_some());
        Ok(sum)
    });
    assert_eq!(value, Ok(3));
    assert_eq!(
        unknown,
        [
            "x.yaml:9:5: spec.rules[0].bar",
            "x.yaml:10:15: spec.rules[1][\"b z\"]",
            "x.yaml:6:3: spec.foo",
            "x.yaml:11:3: spec.taken",
        ]
    );
}

#[test]
fn a_doubt_can_be_kept_at_the_rule_it_belongs_to() {
    let spec = "  foo: 1\n  rules:\n  - peer: {bar: 2}\n    baz: 3\n";
    let (rule, rest) = reading(spec, |spec| {
        let rule = spec.list("rules")?[0].object()?;
        drop(rule.required("peer")?.object()?);
        Ok(rule.finish().into_iter().map(|unknown| unknown.path).collect::<Vec<_>>())
    });
    assert_eq!(rule, Ok(vec!["spec.rules[0].peer.bar".into(), "spec.rules[0].baz".into()]));
    assert_eq!(rest, ["x.yaml:5:3: spec.foo"]);
}

#[test]
fn an_object_that_outlives_the_finish_of_the_one_above_reports_one_further_up() {
    let (_, rest) = reading("  a: {b: {c: 1}}\n", |spec| {
        let a = spec.required("a")?.object()?;
        let b = a.required("b")?.object()?;
        assert_eq!(a.finish(), []);
        drop(b);
        Ok(())
    });
    assert_eq!(rest, ["x.yaml:5:11: spec.a.b.c"]);
}

#[test]
fn an_object_that_is_carried_out_leaves_a_doubt_about_the_document() {
    let document = document("  a: 1\n");
    let (escaped, unknown) = read(&document, |root| root.required("spec")?.object()).unwrap();
    assert_eq!(unknown, [Unknown { path: "the document".into(), at: document.at.clone() }]);
    drop(escaped);
}

#[test]
fn ignored_fields_and_the_header_are_no_doubts_and_status_is() {
    let text = "apiVersion: v1\nkind: X\nmetadata: {name: x, foo: 1}\nspec: {a: 1}\ndata: {}\nstatus: {}\n";
    let document = testing::read(text).unwrap().documents.remove(0);
    let ((), unknown) = read(&document, |root| {
        root.ignore(&["data", "absent"]);
        root.required("spec")?.object()?.ignore_rest();
        Ok::<_, Invalid>(())
    })
    .unwrap();
    assert_eq!(unknown.iter().map(|unknown| unknown.path.as_str()).collect::<Vec<_>>(), ["status"]);
}

#[test]
fn maps_of_more_than_64_fields_are_followed_too() {
    let spec: String = (0..200).map(|n| format!("  f{n}: {n}\n")).collect();
    let (value, unknown) = reading(&spec, |spec| {
        for n in (0..200).filter(|n| *n != 3 && *n != 130) {
            assert_eq!(spec.int_in(&format!("f{n}"), 0..=200)?, Some(n));
        }
        Ok(())
    });
    assert_eq!(value, Ok(()));
    assert_eq!(unknown, ["x.yaml:8:3: spec.f3", "x.yaml:135:3: spec.f130"]);
}

#[test]
fn unknown_fields_are_bounded() {
    let spec: String = (0..1_000).map(|n| format!("  f{n}: {{a: 1}}\n")).collect();
    let (_, unknown) = reading(&spec, |spec| {
        for key in spec.keys() {
            spec.object(key)?;
        }
        Ok(())
    });
    assert_eq!(unknown.len(), MOST_UNKNOWN);
}
