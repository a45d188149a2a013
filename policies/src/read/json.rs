//! JSON → trees with positions: what `kubectl get -o json` and the API server write, of any size.
//!
//! kubectl reads a text that begins with `{` as JSON, not as YAML; the two differ in escapes (`\ud83d\ude00`, `\/`), in
//! numbers (`80.0` is no integer) and in how much must be held before the first value is known.

use std::sync::Arc;

use super::ReadError;
use super::node::{Budget, Entry, Key, MAX_DEPTH, Node, Pos, TooManyNodes, Value, quoted, twice};
use super::yaml::too_many_nodes;

/// Whether a text can only be JSON, or YAML that is written like it.
pub(crate) fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Parses one JSON value after the other until the text ends.
///
/// # Errors
/// The first thing that is not JSON (RFC 8259), a key that stands twice in an object, or an exceeded bound.
pub(crate) fn parse(
    file: &Arc<str>,
    text: &str,
    first_line: u32,
    budget: &mut Budget,
) -> Result<Vec<Node>, ReadError> {
    let mut reader = Reader { file, rest: text, pos: Pos { line: first_line.max(1), column: 1 }, budget };
    let mut values = Vec::new();
    loop {
        reader.skip_space();
        if reader.rest.is_empty() {
            return Ok(values);
        }
        values.push(reader.value(MAX_DEPTH)?);
    }
}

struct Reader<'c, 't> {
    file: &'c Arc<str>,
    rest: &'t str,
    pos: Pos,
    budget: &'c mut Budget,
}

impl<'t> Reader<'_, 't> {
    /// One value that nests at most `room` deep.
    fn value(&mut self, room: usize) -> Result<Node, ReadError> {
        let pos = self.pos;
        let value = match self.peek() {
            Some(b'{') => self.object(room)?,
            Some(b'[') => self.array(room)?,
            Some(b'"') => {
                let text = self.string()?;
                Value::String(self.budget.share(&text))
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.expected("a value")),
        };
        match self.budget.spend() {
            Ok(()) => Ok(Node { pos, value }),
            Err(TooManyNodes) => Err(too_many_nodes(self.file, pos)),
        }
    }

    fn object(&mut self, room: usize) -> Result<Value, ReadError> {
        let below = self.descend(room)?;
        let mut entries = Vec::new();
        while !self.ends(b'}', entries.is_empty())? {
            let pos = self.pos;
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let text = self.string()?;
            let key = Key { text: self.budget.share(&text), pos };
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.expected("`:`"));
            }
            self.advance(1);
            self.skip_space();
            entries.push(Entry { key, value: self.value(below)? });
        }
        if let Some((first, again)) = twice(&entries) {
            let key = quoted(&first.text);
            let message = format!("the key {key} stands here and in line {}", first.pos.line);
            return Err(ReadError::new(again.pos.of(self.file), message));
        }
        Ok(Value::Map(entries.into()))
    }

    fn array(&mut self, room: usize) -> Result<Value, ReadError> {
        let below = self.descend(room)?;
        let mut items = Vec::new();
        while !self.ends(b']', items.is_empty())? {
            items.push(self.value(below)?);
        }
        Ok(Value::List(items.into()))
    }

    /// Goes into a collection.
    fn descend(&mut self, room: usize) -> Result<usize, ReadError> {
        let below = room
            .checked_sub(1)
            .ok_or_else(|| self.error(format!("objects and arrays nest deeper than {MAX_DEPTH}")))?;
        self.advance(1);
        Ok(below)
    }

    /// Whether the collection ends here with `close`; else the next member is next.
    fn ends(&mut self, close: u8, first: bool) -> Result<bool, ReadError> {
        self.skip_space();
        if self.peek() == Some(close) {
            self.advance(1);
            return Ok(true);
        }
        if !first {
            if self.peek() != Some(b',') {
                return Err(self.expected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" }));
            }
            self.advance(1);
            self.skip_space();
        }
        Ok(false)
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, ReadError> {
        if !self.rest.starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.advance(word.len());
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, ReadError> {
        let end = self
            .rest
            .bytes()
            .position(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            .unwrap_or(self.rest.len());
        let text = self.rest.get(..end).unwrap_or_default();
        if !is_number(text) {
            return Err(self.error(format!("{} is not a JSON number", quoted(text))));
        }
        let value = match (text.parse(), text.parse::<f64>()) {
            (Ok(value), _) => Value::Int(value),
            (Err(_), Ok(value)) if value.is_finite() => Value::Float(value),
            _ => return Err(self.error(format!("the number {} is out of range", quoted(text)))),
        };
        self.advance(end);
        Ok(value)
    }

    fn string(&mut self) -> Result<std::borrow::Cow<'t, str>, ReadError> {
        self.advance(1);
        let mut text = String::new();
        loop {
            let end = self.rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
            let run = end.and_then(|end| self.rest.get(..end)).unwrap_or(self.rest);
            self.advance(run.len());
            match self.peek() {
                Some(b'"') => {
                    self.advance(1);
                    if text.is_empty() {
                        return Ok(run.into());
                    }
                    text.push_str(run);
                    return Ok(text.into());
                }
                Some(b'\\') => {
                    text.push_str(run);
                    text.push(self.escape()?);
                }
                _ => return Err(self.expected("the string's closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ReadError> {
        let character = match self.rest.as_bytes().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("not an escape of JSON")),
        };
        self.advance(2);
        Ok(character)
    }

    /// `\u` and four digits; two of them for a character beyond U+FFFF.
    fn unicode(&mut self) -> Result<char, ReadError> {
        let unit = |at: usize| {
            let digits = self.rest.get(at..)?.strip_prefix("\\u")?.get(..4)?;
            let all_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            all_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let units = [unit(0), unit(6)];
        let high_and_low = units.into_iter().map_while(|unit| unit);
        match char::decode_utf16(high_and_low).next() {
            Some(Ok(character)) => {
                self.advance(if character.len_utf16() == 2 { 12 } else { 6 });
                Ok(character)
            }
            _ => Err(self.error("not an escape of JSON: half a surrogate pair, or not four hex digits")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.bytes().next()
    }

    fn skip_space(&mut self) {
        let end = self.rest.bytes().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        let space = end.and_then(|end| self.rest.get(..end)).unwrap_or(self.rest);
        let lines = space.bytes().filter(|&b| b == b'\n').count();
        if lines > 0 {
            self.pos.line = self.pos.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
            self.pos.column = 1;
            let last = space.rfind('\n').and_then(|at| at.checked_add(1)).unwrap_or(0);
            self.rest = self.rest.get(last..).unwrap_or_default();
            self.advance(space.len().saturating_sub(last));
        } else {
            self.advance(space.len());
        }
    }

    /// Goes on by `bytes`, which hold no line break.
    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        let chars = if passed.is_ascii() { passed.len() } else { passed.chars().count() };
        self.pos.column = self.pos.column.saturating_add(u32::try_from(chars).unwrap_or(u32::MAX));
        self.rest = rest;
    }

    fn error(&self, message: impl Into<String>) -> ReadError {
        ReadError::new(self.pos.of(self.file), message)
    }

    fn expected(&self, what: &str) -> ReadError {
        let found = match self.rest.chars().next() {
            None => "the end of the text".into(),
            Some(found) => quoted(found.encode_utf8(&mut [0; 4])),
        };
        self.error(format!("not valid JSON: expected {what}, found {found}"))
    }
}

/// RFC 8259, section 6.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests;
