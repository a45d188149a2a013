#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Each row was compared with what `sigs.k8s.io/yaml` v1.6.0 makes of it.
#[test]
fn plain_words_mean_what_go_yaml_v2_reads() {
    use Scalar::{Bool, Float, Int, Null, String};
    let text = |word: &'static str| (word, String(word));
    let table = [
        // Null.
        ("", Null),
        ("~", Null),
        ("null", Null),
        ("Null", Null),
        ("NULL", Null),
        text("nUll"),
        text("none"),
        // Booleans in three spellings each, and nothing else.
        ("y", Bool(true)),
        ("Y", Bool(true)),
        ("yes", Bool(true)),
        ("Yes", Bool(true)),
        ("YES", Bool(true)),
        ("true", Bool(true)),
        ("True", Bool(true)),
        ("TRUE", Bool(true)),
        ("on", Bool(true)),
        ("On", Bool(true)),
        ("ON", Bool(true)),
        ("n", Bool(false)),
        ("N", Bool(false)),
        ("no", Bool(false)),
        ("No", Bool(false)),
        ("NO", Bool(false)),
        ("false", Bool(false)),
        ("False", Bool(false)),
        ("FALSE", Bool(false)),
        ("off", Bool(false)),
        ("Off", Bool(false)),
        ("OFF", Bool(false)),
        text("yES"),
        text("tRUE"),
        text("oN"),
        // Integers: Go's base 0, with underscores anywhere.
        ("0", Int(0)),
        ("7", Int(7)),
        ("+5", Int(5)),
        ("-1", Int(-1)),
        ("-0", Int(0)),
        ("0777", Int(511)),
        ("00", Int(0)),
        ("0o17", Int(15)),
        ("0O17", Int(15)),
        ("-0o7", Int(-7)),
        ("0x1F", Int(31)),
        ("0X1f", Int(31)),
        ("+0x1F", Int(31)),
        ("-0x10", Int(-16)),
        ("0b11", Int(3)),
        ("-0b11", Int(-3)),
        ("0b-01", Int(-1)),
        ("1_000", Int(1000)),
        ("1__0", Int(10)),
        ("1_", Int(1)),
        ("0x_1", Int(1)),
        text("_1"),
        text("0x"),
        text("0b2"),
        text("0o9"),
        text("0x-1"),
        text("--1"),
        text("+"),
        text("-"),
        ("9223372036854775807", Int(i64::MAX)),
        ("-9223372036854775808", Int(i64::MIN)),
        ("9223372036854775808", Float(9_223_372_036_854_775_808.0)),
        ("18446744073709551615", Float(18_446_744_073_709_551_615.0)),
        ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
        text("0xFFFFFFFFFFFFFFFFF"),
        // An octal that is none is a float, and a float without a fraction is an integer in JSON.
        ("08", Int(8)),
        ("80.0", Int(80)),
        ("5.", Int(5)),
        ("1e3", Int(1000)),
        ("1E3", Int(1000)),
        ("-0.0", Int(0)),
        ("1.5", Float(1.5)),
        (".5", Float(0.5)),
        ("-.5", Float(-0.5)),
        (".5_0", Float(0.5)),
        ("1E-3", Float(0.001)),
        ("1e21", Float(1e21)),
        text("1e999"),
        text("._5"),
        text(".e5"),
        text("."),
        text(".."),
        text("1e"),
        text("0x1p3"),
        text("1.2.3"),
        // What YAML 1.1 knows and go-yaml does not, and what only looks like a number.
        text("2001-01-01"),
        text("2001-01-01T00:00:00Z"),
        text("12:30:45"),
        text("10.0.0.0/8"),
        text("fd00::1"),
        text("inf"),
        text("nan"),
        text(".Infinity"),
        text("<<"),
        text("="),
        text("app"),
    ];
    for (word, meaning) in table {
        assert_eq!(resolve(word, true, None), Ok(meaning), "{word:?}");
    }
}

#[test]
fn infinity_and_not_a_number_are_refused_in_every_spelling() {
    for word in [".inf", ".Inf", ".INF", "+.inf", "-.inf", "+.Inf", "-.INF", ".nan", ".NaN", ".NAN"] {
        assert_eq!(resolve(word, true, None), Err(ScalarError::NotFinite), "{word}");
    }
    assert_eq!(resolve("+.nan", true, None), Ok(Scalar::String("+.nan")));
}

#[test]
fn quoted_words_are_text() {
    for word in ["y", "80", "", "null", ".inf"] {
        assert_eq!(resolve(word, false, None), Ok(Scalar::String(word)));
    }
}

#[test]
fn a_tag_decides_and_a_word_that_contradicts_it_is_refused() {
    use Scalar::{Bool, Float, Int, Null, String};
    let fits = [
        ("y", true, Tag::Str, String("y")),
        ("", true, Tag::Str, String("")),
        ("5", false, Tag::Int, Int(5)),
        ("5", true, Tag::Float, Int(5)),
        ("1.5", true, Tag::Float, Float(1.5)),
        ("no", false, Tag::Bool, Bool(false)),
        ("~", true, Tag::Null, Null),
        ("", false, Tag::Null, Null),
    ];
    for (word, plain, tag, meaning) in fits {
        assert_eq!(resolve(word, plain, Some(tag)), Ok(meaning), "{tag:?} {word:?}");
    }
    let contradicts = [
        ("y", Tag::Int),
        ("1.5", Tag::Int),
        ("80.0", Tag::Int),
        ("1", Tag::Bool),
        ("x", Tag::Null),
        ("x", Tag::Float),
        ("x", Tag::Map),
        ("x", Tag::Seq),
    ];
    for (word, tag) in contradicts {
        assert_eq!(resolve(word, true, Some(tag)), Err(ScalarError::NotOfItsTag(tag)), "{tag:?} {word:?}");
    }
}

#[test]
fn tags_are_known_by_their_full_name() {
    assert_eq!(Tag::of("tag:yaml.org,2002:", "str"), Some(Tag::Str));
    assert_eq!(Tag::of("", "tag:yaml.org,2002:int"), Some(Tag::Int));
    for (handle, suffix) in
        [("!", "str"), ("", "!"), ("tag:yaml.org,2002:", "binary"), ("tag:yaml.org,2002:", "merge")]
    {
        assert_eq!(Tag::of(handle, suffix), None, "{handle}{suffix}");
    }
}

/// Compared with `sigs.k8s.io/yaml` v1.6.0, too.
#[test]
fn keys_are_text_as_in_json() {
    let table = [
        ("a", "a"),
        ("80", "80"),
        ("0x10", "16"),
        ("08", "8"),
        ("1_0", "10"),
        ("-1", "-1"),
        ("yes", "true"),
        ("off", "false"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("80.0", "80"),
        ("123456.0", "123456"),
        ("1234567.0", "1.234567e+06"),
        ("1e6", "1e+06"),
        ("1e21", "1e+21"),
        ("1e99", ".inf"),
        ("-1e99", "-.inf"),
        ("16777217.0", "1.6777216e+07"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("1.25e-5", "1.25e-05"),
        ("2001-01-01", "2001-01-01"),
    ];
    for (word, text) in table {
        assert_eq!(key(word, true, None).unwrap().as_deref(), Some(text), "{word:?}");
    }
    for word in ["", "~", "null", "18446744073709551615"] {
        assert_eq!(key(word, true, None), Ok(None), "{word:?}");
    }
    assert_eq!(key("80", false, None).unwrap().as_deref(), Some("80"));
    assert_eq!(key("", false, None).unwrap().as_deref(), Some(""));
}
