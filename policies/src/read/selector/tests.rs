#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::read::{Input, Limits, documents, object};

/// Reads `selector`, the flow style text of one, as that of pods.
fn read(selector: &str) -> Result<Match, Vec<String>> {
    let mut input = Input::new(Limits::default());
    input.add("s.yaml", format!("apiVersion: v1\nkind: T\nselector: {selector}\n")).unwrap();
    let document = documents(&input).unwrap().documents.remove(0);
    let mut problems = Problems::default();
    let (found, _) = object::read(&document, |object| {
        Ok::<_, ()>(optional_selector(object, "selector", LabelOwner::Endpoint, &mut problems))
    })
    .unwrap();
    problems
        .or(found.unwrap_or(Match::Nothing))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn label(key: &str, test: Test) -> Match {
    Match::Label { owner: LabelOwner::Endpoint, key: key.into(), test }
}

#[test]
fn an_empty_selector_matches_everything_and_an_absent_one_is_none() {
    assert_eq!(read("{}"), Ok(Match::Anything));
    assert_eq!(read("{matchLabels: {}, matchExpressions: []}"), Ok(Match::Anything));
    assert_eq!(read("{matchLabels: null, matchExpressions: null}"), Ok(Match::Anything));
    // `Match::Nothing` is what the helper above makes of an absent one.
    assert_eq!(read("null"), Ok(Match::Nothing));
}

#[test]
fn requirements_are_joined_by_and() {
    let expected = Match::All(vec![
        label("app", Test::Is("web".into())),
        label("example.com/tier", Test::In(vec!["a".into(), "b".into()])),
        label("x", Test::Is("1".into())).negate(),
        label("y", Test::Exists),
        label("z", Test::Exists).negate(),
    ]);
    let text = r#"{matchLabels: {app: web}, matchExpressions: [
      {key: example.com/tier, operator: In, values: [b, a, b]}, {key: x, operator: NotIn, values: ["1"]},
      {key: "y", operator: Exists}, {key: z, operator: DoesNotExist, values: []}]}"#;
    assert_eq!(read(text), Ok(expected));
    assert_eq!(read("{matchLabels: {app: ''}}"), Ok(label("app", Test::Is("".into()))));
}

#[test]
fn what_the_api_server_rejects_is_an_error_with_its_place() {
    let cases = [
        ("{matchExpressions: [{key: a, operator: In, values: []}]}", "must name at least one value"),
        ("{matchExpressions: [{key: a, operator: NotIn}]}", "must name at least one value"),
        ("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}", "values must be empty"),
        ("{matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}", "values must be empty"),
        ("{matchExpressions: [{key: a, operator: in, values: [b]}]}", "must be one of In, NotIn"),
        ("{matchExpressions: [{key: a, values: [b]}]}", "operator is missing"),
        ("{matchExpressions: [{operator: Exists}]}", "key is missing"),
        ("{matchExpressions: {key: a}}", "must be a list"),
        ("{matchLabels: {app: y}}", "must be a string, is a boolean (true); put it in quotes"),
        ("{matchLabels: {app: 1}}", "must be a string, is an integer (1); put it in quotes"),
        ("{matchLabels: [app]}", "must be a map"),
        ("{matchLabels: {-a: b}}", "\"-a\" is no label key"),
        ("{matchLabels: {a/b/c: b}}", "\"a/b/c\" is no label key"),
        ("{matchLabels: {Example.com/a: b}}", "\"Example.com/a\" is no label key"),
        ("{matchLabels: {/a: b}}", "\"/a\" is no label key"),
        ("{matchLabels: {a: 'b c'}}", "must be a label value"),
        ("{matchLabels: {a: b-}}", "must be a label value"),
        ("{matchExpressions: [{key: a, operator: In, values: ['b c']}]}", "must be a label value"),
        ("[]", "must be a map"),
    ];
    for (text, part) in cases {
        let errors = read(text).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].starts_with("s.yaml:3:") && errors[0].contains(part), "{text}: {errors:?}");
    }
    let long = "a".repeat(64);
    assert!(read(&format!("{{matchLabels: {{{long}: b}}}}")).is_err());
    assert!(read(&format!("{{matchLabels: {{a: {long}}}}}")).is_err());
    assert!(read(&format!("{{matchLabels: {{{}: {}}}}}", &long[1..], &long[1..])).is_ok());
}

#[test]
fn every_error_of_a_selector_is_reported_at_once() {
    let errors = read("{matchLabels: {a: 1, b: 2}, matchExpressions: [{key: c, operator: No}]}").unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn a_field_that_is_not_understood_is_a_doubt_in_its_place() {
    let Ok(Match::All(parts)) = read("{matchLabel: {b: c}, matchLabels: {a: b}}") else { panic!() };
    assert_eq!(parts[0], label("a", Test::Is("b".into())));
    let Match::Doubt(doubt) = &parts[1] else { panic!("{parts:?}") };
    assert_eq!(doubt.to_string(), "the field `selector.matchLabel` is not understood (s.yaml:3:12)");
    let Ok(Match::Doubt(doubt)) =
        read("{matchExpressions: [{key: a, operator: In, values: [b], fold: true}]}")
    else {
        panic!()
    };
    assert_eq!(&*doubt.what, "the field `selector.matchExpressions[0].fold` is not understood");
}
