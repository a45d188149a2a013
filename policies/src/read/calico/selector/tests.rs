#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;

/// Whether a selector matches labels written `a=b,c=d`.
fn matches(selector: &str, labels: &str) -> bool {
    let labels: Vec<(&str, &str)> =
        labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap()).collect();
    let passes = |key: &str, test: &Test| {
        Truth::from(labels.iter().any(|(name, value)| *name == key && test.passes(value)))
    };
    Selector::parse(selector).unwrap().holds(&passes).must()
}

#[test]
fn each_operator_matches_what_calico_says_it_does() {
    for (selector, yes, no) in [
        ("", &["", "a=b"][..], &[][..]),
        (" \t", &["", "a=b"], &[]),
        ("all()", &["", "a=b"], &[]),
        ("all(\t )", &["", "a=b"], &[]),
        ("a == 'b'", &["a=b", "a=b,c=d"], &["", "a=c", "c=b"]),
        ("a==\"b\"", &["a=b"], &["", "a=c"]),
        ("a != 'b'", &["", "a=c", "c=b"], &["a=b"]),
        ("has(a)", &["a=", "a=b"], &["", "b=a"]),
        ("has( a )", &["a=b"], &[""]),
        ("!has(a)", &["", "b=a"], &["a=b"]),
        ("!! ! has(a)", &["", "b=a"], &["a=b"]),
        ("a in {'b', \"c\"}", &["a=b", "a=c"], &["", "a=d"]),
        ("a in{'b',}", &["a=b"], &["", "a=c"]),
        ("a in {}", &[], &["", "a=b"]),
        ("a not in {'b', 'c'}", &["", "a=d"], &["a=b", "a=c"]),
        ("a notin {'b'}", &["", "a=d"], &["a=b"]),
        ("a contains 'b'", &["a=b", "a=abc"], &["", "a=c", "b=b"]),
        ("a starts with 'b'", &["a=b", "a=bc"], &["", "a=cb"]),
        ("a startswith 'b'", &["a=bc"], &["a=cb"]),
        ("a ends with 'b'", &["a=b", "a=cb"], &["", "a=bc"]),
        ("a endswith'b'", &["a=cb"], &["a=bc"]),
        ("!a in {'b'}", &["", "a=c"], &["a=b"]),
        // `&&` binds more tightly than `||`, `!` more than both.
        ("has(a) || has(b) && has(c)", &["a=", "b=,c="], &["b=", "c="]),
        ("(has(a) || has(b)) && has(c)", &["a=,c=", "b=,c="], &["a=", "c="]),
        ("!has(a) && has(b)", &["b="], &["", "a=,b="]),
        ("!(has(a) && has(b))", &["", "a="], &["a=,b="]),
        // Words of the language are keys where a key is due.
        (
            "in in {'x'} && has(has) && all == 'y' && not != 'z'",
            &["in=x,has=,all=y"],
            &["in=x,has=,all=y,not=z"],
        ),
        ("a.b/c-d_e == 'x'", &["a.b/c-d_e=x"], &[""]),
    ] {
        for labels in yes {
            assert!(matches(selector, labels), "{selector:?} should match {labels:?}");
        }
        for labels in no {
            assert!(!matches(selector, labels), "{selector:?} should not match {labels:?}");
        }
    }
}

#[test]
fn a_text_may_hold_the_other_quote_and_no_escape() {
    let parsed = Selector::parse(r#"a in {"'", '"', '\'}"#).unwrap();
    let values: Vec<Arc<str>> = ["\"", "'", "\\"].map(Arc::from).into();
    assert_eq!(parsed, Selector::Label("a".into(), Test::In(values)));
}

#[test]
fn what_calico_refuses_is_an_error_with_its_column() {
    for (selector, column, what) in [
        ("b == b", 6, "expected a text in quotes, not \"b\""),
        ("b contains b", 12, "expected a text in quotes, not \"b\""),
        ("b starts with b", 15, "expected a text in quotes, not \"b\""),
        ("'b' == b", 1, "expected a label's key, `has(`, `all()`, `(` or `!`, not \"'b'\""),
        (
            "a = 'b'",
            3,
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after \"a\", not \"=\"",
        ),
        (
            "a",
            2,
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after \"a\", not the end",
        ),
        ("a inside {'b'}", 5, "expected a set such as {\"a\", \"b\"}, not \"side\""),
        ("!", 2, "expected a label's key, `has(`, `all()`, `(` or `!`, not the end"),
        ("a == \"b\" &", 10, "expected `&&`, `||` or the end, not \"&\""),
        ("a == \"b\" |", 10, "expected `&&`, `||` or the end, not \"|\""),
        ("a != ||", 6, "expected a text in quotes, not \"||\""),
        ("a in {\"\", ||", 11, "expected `}`, not \"||\""),
        ("a in \"\"", 6, "expected a set such as {\"a\", \"b\"}, not \"\\\"\\\"\""),
        ("a == \"b'", 6, "no closing \""),
        ("(", 2, "expected a label's key, `has(`, `all()`, `(` or `!`, not the end"),
        ("(a == 'é'", 10, "expected `)`, not the end"),
        (")", 1, "expected a label's key, `has(`, `all()`, `(` or `!`, not \")\""),
        ("has(a) &&", 10, "expected a label's key, `has(`, `all()`, `(` or `!`, not the end"),
        (
            "has (a)",
            5,
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after \"has\", not \"(a)\"",
        ),
        (
            "all",
            4,
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after \"all\", not the end",
        ),
        ("a == 'b'\n&& has(c)", 9, "expected `&&`, `||` or the end, not a line break"),
        ("é == 'b'", 1, "expected a label's key, `has(`, `all()`, `(` or `!`, not \"é\""),
    ] {
        assert_eq!(
            Selector::parse(selector).unwrap_err(),
            SyntaxError { column, what: what.into() },
            "{selector:?}"
        );
    }
}

#[test]
fn length_depth_and_keys_are_bounded() {
    let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(Selector::parse(&nested(DEEPEST)), Ok(Selector::All));
    assert_eq!(
        Selector::parse(&nested(DEEPEST + 1)).unwrap_err().what,
        "more than 64 parentheses in each other"
    );
    assert!(Selector::parse(&"!".repeat(LONGEST)).is_err());
    assert!(Selector::parse(&" ".repeat(LONGEST + 1)).is_err());
    assert!(Selector::parse(&format!("has({})", "k".repeat(LONGEST_KEY))).is_ok());
    assert!(Selector::parse(&format!("has({})", "k".repeat(LONGEST_KEY + 1))).is_err());
}

#[test]
fn the_canonical_form_is_that_of_calico() {
    for (text, canonical) in [
        ("", "all()"),
        (" (all() )", "all()"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
        ("! (a == \"b\"&&! c != \"d\")", "!(a == \"b\" && !c != \"d\")"),
        ("a contains '\"'", "a contains '\"'"),
        ("a endswith \"'\"", "a ends with \"'\""),
        ("a!='\"'", "a != '\"'"),
        ("a in {\"z\", \"z\", \"x\"}", "a in {\"x\", \"z\"}"),
        ("a notin {'b'} && global()", "(a not in {\"b\"} && global())"),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), canonical, "{text:?}");
    }
}

#[test]
fn an_inherited_all_means_in_a_namespace_and_global_means_in_none() {
    let inherited = |text: &str, prefix: &str| Selector::parse(text).unwrap().inherited(prefix).to_string();
    assert_eq!(
        inherited("a == 'b' || all()", OF_NAMESPACE),
        "(pcns.a == \"b\" || has(projectcalico.org/namespace))"
    );
    assert_eq!(inherited("global()", OF_NAMESPACE), "!has(projectcalico.org/namespace)");
    assert_eq!(inherited("a == 'b' || all()", OF_SERVICE_ACCOUNT), "(pcsa.a == \"b\" || all())");
}

fn selectors() -> impl Strategy<Value = String> {
    let value = || prop_oneof!["'[a-c\"]{0,3}'", "\"[a-c']{0,3}\""];
    let leaf = prop_oneof![
        Just("all()".to_owned()),
        "has\\( ?[ab] ?\\)",
        ("[ab]", prop_oneof!["==", "!=", "contains", "starts ?with", "ends\t?with"], value())
            .prop_map(|(key, operator, value)| format!("{key} {operator} {value}")),
        ("[ab]", prop_oneof!["in", "not in", "notin"], prop::collection::vec(value(), 0..3))
            .prop_map(|(key, operator, values)| format!("{key} {operator} {{{}}}", values.join(", "))),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("!{inner}")),
            inner.clone().prop_map(|inner| format!("!({inner})")),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" && "))),
            prop::collection::vec(inner, 2..4).prop_map(|parts| parts.join("||")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn no_mix_of_its_own_words_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(&["a", "has(", "all(", "(", ")", "!", "=", "==", "&&", "||", "in", "not", "{", "}",
                ",", "'b'", "\"", " ", "starts", "with", "global()", "é"][..]), 0..24)
    ) {
        if let Ok(selector) = Selector::parse(&words.concat()) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn the_canonical_form_is_read_as_the_same_selector(text in selectors()) {
        let selector = Selector::parse(&text).unwrap();
        prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
    }
}
