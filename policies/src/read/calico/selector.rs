//! The selector language of Calico: text → [`Selector`].
//!
//! Grammar and meaning after `libcalico-go/lib/selector` of Calico 3.26 to 3.32 (tokenizer and parser): `||` binds weaker than
//! `&&`, `!` strongest; texts stand in single or double quotes, without escapes; blanks are spaces and tabs only; `has(`,
//! `all(` and `global(` are written in one piece; an empty selector is `all()`.

use crate::matching::Test;
use crate::truth::Truth;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Label of an endpoint's namespace, which Calico adds to every pod and every NetworkSet.
pub(super) const NAMESPACE: &str = "projectcalico.org/namespace";
/// Label of an endpoint's service account, which Calico adds to every pod.
pub(super) const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Label of what started an endpoint: `k8s` for every pod.
pub(super) const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
/// Label of namespaces and service accounts that holds their name; Calico adds it to what their pods inherit.
pub(super) const NAME: &str = "projectcalico.org/name";
/// What stands before a namespace's label when a pod inherits it.
pub(super) const OF_NAMESPACE: &str = "pcns.";
/// What stands before a service account's label when a pod inherits it.
pub(super) const OF_SERVICE_ACCOUNT: &str = "pcsa.";

/// Longest selector, in bytes. Calico 3.32 takes 1,024 characters, earlier versions any number.
const LONGEST: usize = 64 << 10;
/// Longest key of a label (`MaxLabelLength`).
const LONGEST_KEY: usize = 512;
/// How deep parentheses may nest.
const DEEPEST: usize = 64;

/// A selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    /// `all()`: everything that has labels.
    All,
    /// `global()`: what is in no namespace. Stands alone, in a rule's `namespaceSelector` only.
    Global,
    /// `has(key)`, `key == "…"`, `key in {…}`, `key contains "…"` and the like: the label is there, and so.
    Label(Arc<str>, Test),
    /// `!…`; `!=` and `not in` are read so, too.
    Not(Box<Selector>),
    /// `… && …`
    And(Vec<Selector>),
    /// `… || …`
    Or(Vec<Selector>),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub(super) struct SyntaxError {
    /// Where in the selector, in characters from 1.
    pub(super) column: usize,
    /// What is wrong.
    pub(super) what: String,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > LONGEST {
            return Err(parser.error(format!("a selector may have {LONGEST} bytes, this has {}", text.len())));
        }
        parser.blanks();
        if parser.rest().is_empty() {
            return Ok(Self::All);
        }
        let selector = parser.or()?;
        if parser.rest().is_empty() {
            Ok(selector)
        } else {
            Err(parser.error(format!("expected `&&`, `||` or the end, not {}", parser.here())))
        }
    }

    /// What both match.
    pub(super) fn and(self, other: Self) -> Self {
        Self::And(vec![self, other])
    }

    /// The same selector about labels that are inherited, their keys with `prefix`. `all()` and `global()` of a namespace
    /// selector become what is in a namespace, and what is not (`getEndpointSelector` of `updateprocessors/rules.go`).
    pub(super) fn inherited(self, prefix: &str) -> Self {
        let each = |parts: Vec<Self>| parts.into_iter().map(|part| part.inherited(prefix)).collect();
        let in_namespace = || Self::Label(NAMESPACE.into(), Test::Exists);
        match self {
            Self::All if prefix == OF_NAMESPACE => in_namespace(),
            Self::Global if prefix == OF_NAMESPACE => Self::Not(Box::new(in_namespace())),
            Self::All | Self::Global => self,
            Self::Label(key, test) => Self::Label(format!("{prefix}{key}").into(), test),
            Self::Not(inner) => Self::Not(Box::new(inner.inherited(prefix))),
            Self::And(parts) => Self::And(each(parts)),
            Self::Or(parts) => Self::Or(each(parts)),
        }
    }

    /// Whether it holds of something whose labels `passes` knows: `passes(key, test)` says whether the label is there and so.
    pub(super) fn holds(&self, passes: &dyn Fn(&str, &Test) -> Truth) -> Truth {
        match self {
            Self::All | Self::Global => Truth::Yes,
            Self::Label(key, test) => passes(key, test),
            Self::Not(inner) => !inner.holds(passes),
            Self::And(parts) => Truth::all(parts.iter().map(|part| part.holds(passes))),
            Self::Or(parts) => Truth::any(parts.iter().map(|part| part.holds(passes))),
        }
    }

    /// Whether `global()` is in it.
    pub(super) fn mentions_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::All | Self::Label(..) => false,
            Self::Not(inner) => inner.mentions_global(),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::mentions_global),
        }
    }
}

impl fmt::Display for Selector {
    /// The canonical form, which is a selector of the same meaning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Label(key, Test::Exists) => write!(f, "has({key})"),
            Self::Label(key, test) => write_test(f, key, "", test),
            Self::Not(inner) => match &**inner {
                Self::Label(key, Test::Is(value)) => write!(f, "{key} != {}", Quoted(value)),
                Self::Label(key, test @ Test::In(_)) => write_test(f, key, "not ", test),
                other => write!(f, "!{other}"),
            },
            Self::And(parts) => joined(f, parts, " && "),
            Self::Or(parts) => joined(f, parts, " || "),
        }
    }
}

fn write_test(f: &mut fmt::Formatter<'_>, key: &str, not: &str, test: &Test) -> fmt::Result {
    match test {
        Test::Exists => write!(f, "has({key})"),
        Test::Is(value) => write!(f, "{key} == {}", Quoted(value)),
        Test::StartsWith(value) => write!(f, "{key} starts with {}", Quoted(value)),
        Test::EndsWith(value) => write!(f, "{key} ends with {}", Quoted(value)),
        Test::Contains(value) => write!(f, "{key} contains {}", Quoted(value)),
        Test::In(values) => {
            write!(f, "{key} {not}in {{")?;
            for (n, value) in values.iter().enumerate() {
                write!(f, "{}{}", if n == 0 { "" } else { ", " }, Quoted(value))?;
            }
            f.write_char('}')
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Selector], between: &str) -> fmt::Result {
    f.write_char('(')?;
    for (n, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if n == 0 { "" } else { between })?;
    }
    f.write_char(')')
}

/// A text in the quotes that it does not contain. No literal contains both.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn error(&self, what: impl Into<String>) -> SyntaxError {
        let before = self.text.get(..self.at).unwrap_or("");
        SyntaxError { column: before.chars().count().saturating_add(1), what: what.into() }
    }

    /// What stands here, for a message.
    fn here(&self) -> String {
        match self.rest().chars().next() {
            None => "the end".into(),
            Some('\n' | '\r') => "a line break".into(),
            Some(_) => {
                let word: String = self.rest().chars().take(20).take_while(|c| !c.is_whitespace()).collect();
                format!("{word:?}")
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.skip(rest.len().saturating_sub(rest.trim_start_matches([' ', '\t']).len()));
    }

    /// Takes a sign, and the blanks behind it.
    fn take(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.skip(sign.len());
            self.blanks();
        }
        found
    }

    /// Takes words that may be written together. What has to follow them is no key, so that no blank is needed.
    fn take_words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let found = words.iter().all(|word| self.take(word));
        if !found {
            self.at = start;
        }
        found
    }

    fn or(&mut self) -> Result<Selector, SyntaxError> {
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Selector::Or))
    }

    fn and(&mut self) -> Result<Selector, SyntaxError> {
        let mut parts = vec![self.operation()?];
        while self.take("&&") {
            parts.push(self.operation()?);
        }
        Ok(one_or(parts, Selector::And))
    }

    fn operation(&mut self) -> Result<Selector, SyntaxError> {
        let mut negated = false;
        while self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.take("!");
            negated = !negated;
        }
        let operand = self.operand()?;
        Ok(if negated { negate(operand) } else { operand })
    }

    fn operand(&mut self) -> Result<Selector, SyntaxError> {
        if self.take("(") {
            if self.depth >= DEEPEST {
                return Err(self.error(format!("more than {DEEPEST} parentheses in each other")));
            }
            self.depth = self.depth.saturating_add(1);
            let inner = self.or()?;
            self.depth = self.depth.saturating_sub(1);
            return self.close(inner);
        }
        if self.take("has(") {
            let key = self.key()?;
            return self.close(Selector::Label(key, Test::Exists));
        }
        if self.take("all(") {
            return self.close(Selector::All);
        }
        if self.take("global(") {
            return self.close(Selector::Global);
        }
        let key = self.key()?;
        self.test(key)
    }

    fn close(&mut self, inside: Selector) -> Result<Selector, SyntaxError> {
        if self.take(")") {
            Ok(inside)
        } else {
            Err(self.error(format!("expected `)`, not {}", self.here())))
        }
    }

    fn key(&mut self) -> Result<Arc<str>, SyntaxError> {
        let rest = self.rest();
        let length = rest.bytes().take_while(|b| is_key_byte(*b)).count();
        match rest.get(..length) {
            Some(key) if (1..=LONGEST_KEY).contains(&length) => {
                self.skip(length);
                self.blanks();
                Ok(key.into())
            }
            Some(key) if !key.is_empty() => {
                Err(self.error(format!("a label's key may have {LONGEST_KEY} characters, this has {length}")))
            }
            _ => Err(self
                .error(format!("expected a label's key, `has(`, `all()`, `(` or `!`, not {}", self.here()))),
        }
    }

    fn test(&mut self, key: Arc<str>) -> Result<Selector, SyntaxError> {
        let label = |test| Selector::Label(key.clone(), test);
        if self.take("==") {
            return Ok(label(Test::Is(self.literal()?)));
        }
        if self.take("!=") {
            return Ok(negate(label(Test::Is(self.literal()?))));
        }
        if self.take_words(&["contains"]) {
            return Ok(label(Test::Contains(self.literal()?)));
        }
        if self.take_words(&["starts", "with"]) {
            return Ok(label(Test::StartsWith(self.literal()?)));
        }
        if self.take_words(&["ends", "with"]) {
            return Ok(label(Test::EndsWith(self.literal()?)));
        }
        if self.take_words(&["not", "in"]) {
            return Ok(negate(label(Test::In(self.set()?))));
        }
        if self.take_words(&["in"]) {
            return Ok(label(Test::In(self.set()?)));
        }
        Err(self.error(format!(
            "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after {key:?}, not {}",
            self.here()
        )))
    }

    fn literal(&mut self) -> Result<Arc<str>, SyntaxError> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.error(format!("expected a text in quotes, not {}", self.here())));
        };
        let inside = rest.get(1..).unwrap_or("");
        let Some((value, _)) = inside.split_once(quote) else {
            return Err(self.error(format!("no closing {quote}")));
        };
        self.skip(value.len().saturating_add(2));
        self.blanks();
        Ok(value.into())
    }

    /// `{"a", "b"}`; also `{}`, and a comma behind the last text, as Calico takes them. Sorted, each once.
    fn set(&mut self) -> Result<Vec<Arc<str>>, SyntaxError> {
        if !self.take("{") {
            return Err(self.error(format!("expected a set such as {{\"a\", \"b\"}}, not {}", self.here())));
        }
        let mut values = Vec::new();
        while self.rest().starts_with(['"', '\'']) {
            values.push(self.literal()?);
            if !self.take(",") {
                break;
            }
        }
        if !self.take("}") {
            return Err(self.error(format!("expected `}}`, not {}", self.here())));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// What a selector does not match. `!!x` is `x`, as for Calico; `!(a != "b")` stays, since `!a != "b"` says the same.
fn negate(selector: Selector) -> Selector {
    match selector {
        Selector::Not(inner) if !matches!(*inner, Selector::Label(_, Test::Is(_) | Test::In(_))) => *inner,
        other => Selector::Not(Box::new(other)),
    }
}

fn one_or(mut parts: Vec<Selector>, join: impl FnOnce(Vec<Selector>) -> Selector) -> Selector {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}

#[cfg(test)]
mod tests;
