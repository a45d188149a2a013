//! Label selectors of Kubernetes (`metav1.LabelSelector`) → [`Match`].

use std::sync::Arc;

use super::problems::{Problems, doubts};
use super::{Field, Object};
use crate::matching::{LabelOwner, Match, Test};

/// Reads a label selector. `{}` and a selector without requirements match everything; requirements are joined by *and*.
///
/// The result speaks of labels only: wrap it in [`Match::pods`] or another guard, since `NotIn` and `DoesNotExist` also match
/// what has no labels at all. A field that is not understood makes the whole selector a doubt: it could narrow it or, being
/// dropped by the API server, leave it as wide as it is without.
///
/// Rejected as by `ValidateLabelSelector` (apimachinery, `pkg/apis/meta/v1/validation`).
pub(super) fn label_selector(selector: Object<'_>, owner: LabelOwner, problems: &mut Problems) -> Match {
    let mut parts = Vec::new();
    if let Some(labels) = selector.optional("matchLabels") {
        for (key, value) in problems.keep(labels.entries()).unwrap_or_default() {
            check_key(key, &value, problems);
            if let Some(text) = checked_value(&value, problems) {
                parts.push(Match::Label { owner, key: key.into(), test: Test::Is(text.into()) });
            }
        }
    }
    for requirement in problems.list(&selector, "matchExpressions") {
        parts.extend(self::requirement(&requirement, owner, problems));
    }
    parts.extend(doubts(&selector.finish()).map(Match::Doubt));
    all(parts)
}

/// Pods that a selector field of `owner` matches; a field that is absent or null is `None`.
pub(super) fn optional_selector(
    parent: &Object<'_>,
    key: &str,
    owner: LabelOwner,
    problems: &mut Problems,
) -> Option<Match> {
    let field = parent.optional(key)?;
    // A selector that cannot be read is there all the same; its error keeps the match from being used.
    let object = problems.keep(field.object());
    Some(object.map_or(Match::Nothing, |object| label_selector(object, owner, problems)))
}

/// What all of these match, without needless nesting.
pub(super) fn all(mut parts: Vec<Match>) -> Match {
    parts.retain(|part| *part != Match::Anything);
    match parts.len() {
        0 => Match::Anything,
        1 => parts.pop().unwrap_or(Match::Anything),
        _ => Match::All(parts),
    }
}

fn requirement(field: &Field<'_>, owner: LabelOwner, problems: &mut Problems) -> Option<Match> {
    let object = problems.keep(field.object())?;
    let key_field = problems.keep(object.required("key"))?;
    let key = problems.keep(key_field.string())?;
    check_key(key, &key_field, problems);
    let operator_field = problems.keep(object.required("operator"))?;
    let operator = problems.keep_or(
        operator_field.choice(&[
            ("In", Operator::In),
            ("NotIn", Operator::NotIn),
            ("Exists", Operator::Exists),
            ("DoesNotExist", Operator::DoesNotExist),
        ]),
        "the API server takes these four operators only, written so",
    )?;
    let values = problems.list(&object, "values");
    let mut texts: Vec<Arc<str>> =
        values.iter().filter_map(|value| checked_value(value, problems)).map(Arc::from).collect();
    texts.sort_unstable();
    texts.dedup();
    let needs_values = matches!(operator, Operator::In | Operator::NotIn);
    match (needs_values, values.first()) {
        (true, None) => {
            let message = format!("{}.values must name at least one value", field.path());
            problems.add(field.at(), message, "to match any value, use the operator Exists");
        }
        (false, Some(first)) => {
            problems.add(
                first.at(),
                format!("{}.values must be empty: the operator asks for no value", field.path()),
                "remove the values, or use the operator In or NotIn",
            );
        }
        _ => {}
    }
    let label = |test| Match::Label { owner, key: key.into(), test };
    let listed = |mut texts: Vec<Arc<str>>| match (texts.len(), texts.pop()) {
        (1, Some(only)) => Test::Is(only),
        (_, last) => {
            texts.extend(last);
            Test::In(texts)
        }
    };
    let known = match operator {
        Operator::In => label(listed(texts)),
        // A pod without the label matches: "NotIn … and all resources with no labels with the key".
        Operator::NotIn => label(listed(texts)).negate(),
        Operator::Exists => label(Test::Exists),
        Operator::DoesNotExist => label(Test::Exists).negate(),
    };
    let unknown = doubts(&object.finish()).map(Match::Doubt).next();
    Some(unknown.unwrap_or(known))
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

fn check_key(key: &str, field: &Field<'_>, problems: &mut Problems) {
    if !is_label_key(key) {
        let message = format!("{}: {:?} is no label key", field.path(), short(key));
        problems.add(
            field.at(),
            message,
            "a key is up to 63 letters, digits, `-`, `_` and `.`, after an optional DNS name and `/`",
        );
    }
}

fn checked_value<'a>(field: &Field<'a>, problems: &mut Problems) -> Option<&'a str> {
    let text = problems.keep(field.string())?;
    if !is_label_value(text) {
        problems.invalid(
            field,
            "a label value",
            "a value is empty or up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends",
        );
    }
    Some(text)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether this can be the key of a label: `IsQualifiedName` of apimachinery.
pub(super) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_subdomain)
}

/// Whether this can be the value of a label: `IsValidLabelValue` of apimachinery.
pub(super) fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = |end: Option<&u8>| end.is_none_or(u8::is_ascii_alphanumeric);
    value.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && ends(bytes.first())
        && ends(bytes.last())
}

/// Whether this is a DNS name as Kubernetes wants it: `IsDNS1123Subdomain` of apimachinery.
pub(super) fn is_dns_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = |end: Option<&u8>| end.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && ends(bytes.first())
            && ends(bytes.last())
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
