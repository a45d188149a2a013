//! The plain part of YAML, which nearly every manifest is written in, read in one pass.
//!
//! Block maps and lists, words and quoted texts that fit on their line, `[]` and `{}` that do too; ASCII. There every reader of
//! YAML agrees, so that nothing has to be looked at twice. What is written in any other way, or wrong in any, is left to
//! [`super::yaml`], which knows the whole language and says what is wrong: this here either gives the tree that comes out
//! there, places included, or none.

use super::node::{Budget, Entry, Key, Node, Pos, Value, twice};
use super::scalar::{self, Scalar};

/// Collections inside each other; what nests deeper is left to the other reader, which has the bound.
const MOST_DEEP: usize = 48;
/// Characters of a key, of a line, and of comments between two lines; the other reader has bounds for what is longer.
const LONGEST_KEY: usize = 256;
const LONGEST_LINE: usize = 16 << 10;
const LONGEST_GAP: usize = 1 << 20;

/// Reads a document whose first line is `first_line`. `None` where it is not plain, or wrong; then nothing is spent.
pub(crate) fn parse(text: &str, first_line: u32, budget: &mut Budget) -> Option<Node> {
    if !is_plain_ascii(text.as_bytes()) {
        return None;
    }
    let mut reader = Reader {
        rest: text,
        line: first_line.max(1).wrapping_sub(1),
        column: 0,
        body: "",
        budget,
        spent: 0,
        items: Vec::new(),
        entries: Vec::new(),
    };
    let root = reader.document();
    let spent = reader.spent;
    if root.is_none() {
        budget.refund(spent);
    }
    root
}

/// Whether there are only printable characters and line feeds.
fn is_plain_ascii(bytes: &[u8]) -> bool {
    // Without a branch for each byte, so that many are looked at at once.
    bytes.chunks(256).all(|some| {
        some.iter().fold(true, |all, byte| all & (matches!(byte, b' '..=b'~') | (*byte == b'\n')))
    })
}

struct Reader<'t, 'b> {
    /// What stands after the line at hand.
    rest: &'t str,
    /// Number of the line at hand.
    line: u32,
    /// Where `body` begins, from 0: how far it is indented.
    column: usize,
    /// The line at hand from there on; empty at the end of the text, and never before.
    body: &'t str,
    budget: &'b mut Budget,
    /// Nodes that were made.
    spent: usize,
    /// Finished members of all open lists, the innermost last.
    items: Vec<Node>,
    /// Finished entries of all open maps, the innermost last.
    entries: Vec<Entry>,
}

impl<'t> Reader<'t, '_> {
    fn document(&mut self) -> Option<Node> {
        self.next_line()?;
        let root = self.block(MOST_DEEP)?;
        // What is left is less indented than the beginning, or not a part of it.
        self.body.is_empty().then_some(root)
    }

    /// Goes to the next line that has content.
    fn next_line(&mut self) -> Option<()> {
        let before = self.rest.len();
        loop {
            self.line = self.line.checked_add(1)?;
            let (line, rest) = match self.rest.split_once('\n') {
                Some(split) => split,
                None if self.rest.is_empty() => {
                    (self.body, self.column) = ("", 0);
                    return Some(());
                }
                None => (self.rest, ""),
            };
            self.rest = rest;
            let body = line.trim_start_matches(' ');
            if body.is_empty() || body.starts_with('#') {
                continue;
            }
            // Three points look like the end of a document, and spaces at the end are not worth their rules.
            let gap = before.saturating_sub(rest.len());
            if line.len() > LONGEST_LINE
                || gap > LONGEST_GAP
                || line.starts_with("...")
                || line.ends_with(' ')
            {
                return None;
            }
            (self.body, self.column) = (body, line.len().saturating_sub(body.len()));
            return Some(());
        }
    }

    /// A map or list whose first line is at hand.
    fn block(&mut self, room: usize) -> Option<Node> {
        if self.is_item() { self.list(room, 0) } else { self.map(room) }
    }

    fn is_item(&self) -> bool {
        self.body.starts_with("- ")
    }

    fn map(&mut self, room: usize) -> Option<Node> {
        let below = room.checked_sub(1)?;
        let (pos, indent) = (self.pos(0), self.column);
        let first = self.entries.len();
        loop {
            let (text, plain, rest) = key(self.body)?;
            let key = Key { text: self.key_text(text, plain)?, pos: self.pos(0) };
            let value = if rest.is_empty() {
                self.next_line()?;
                // An empty value is not read here: nothing is so often meant otherwise.
                match self.column.cmp(&indent) {
                    _ if self.body.is_empty() => return None,
                    std::cmp::Ordering::Greater => self.block(below)?,
                    // Such a list has the place of its first item, to the other reader too.
                    std::cmp::Ordering::Equal if self.is_item() => self.list(below, self.after_dash())?,
                    _ => return None,
                }
            } else {
                self.inline(rest, below)?
            };
            self.entries.push(Entry { key, value });
            if self.body.is_empty() || self.column < indent {
                break;
            }
            // Deeper, it may go on with the value; a list's item is none of a map's.
            if self.column > indent || self.is_item() {
                return None;
            }
        }
        self.close_map(first, pos)
    }

    fn close_map(&mut self, first: usize, pos: Pos) -> Option<Node> {
        if twice(self.entries.get(first..).unwrap_or_default()).is_some() {
            return None;
        }
        let entries = self.entries.drain(first.min(self.entries.len())..).collect();
        self.node(pos, Value::Map(entries))
    }

    fn close_list(&mut self, first: usize, pos: Pos) -> Option<Node> {
        let items = self.items.drain(first.min(self.items.len())..).collect();
        self.node(pos, Value::List(items))
    }

    /// Where the content of an item begins on its line.
    fn after_dash(&self) -> usize {
        let rest = self.body.get(1..).unwrap_or_default().trim_start_matches(' ');
        self.body.len().saturating_sub(rest.len())
    }

    /// A list whose first item is at hand; its place is `at` that line.
    fn list(&mut self, room: usize, at: usize) -> Option<Node> {
        let below = room.checked_sub(1)?;
        let (pos, indent) = (self.pos(at), self.column);
        let first = self.items.len();
        while self.column == indent && self.is_item() {
            let before = self.after_dash();
            let rest = self.body.get(before..)?;
            let item = if key(rest).is_some() {
                // A map that begins on the line of its dash, and goes on below its first key.
                self.column = self.column.saturating_add(before);
                self.body = rest;
                self.map(below)?
            } else {
                self.inline(rest, below)?
            };
            self.items.push(item);
            if self.body.is_empty() {
                break;
            }
        }
        if self.column > indent && !self.body.is_empty() {
            return None;
        }
        self.close_list(first, pos)
    }

    /// A value that ends with its line; `rest` is the end of the line at hand. Goes to the next one.
    fn inline(&mut self, rest: &'t str, room: usize) -> Option<Node> {
        let at = self.body.len().saturating_sub(rest.len());
        let value = if rest.starts_with(['[', '{']) {
            let mut flow = Flow { rest, end: at.saturating_add(rest.len()) };
            let value = self.flow(&mut flow, room)?;
            if !flow.rest.is_empty() {
                return None;
            }
            value
        } else {
            let (text, plain) = match quoted(rest) {
                Some((text, "")) => (text, false),
                Some(_) => return None,
                None if is_word(rest) => (rest, true),
                None => return None,
            };
            self.scalar(text, plain, self.pos(at))?
        };
        let indent = self.column;
        self.next_line()?;
        // Deeper text may go on with it, or be wrong there.
        (self.column <= indent || self.body.is_empty()).then_some(value)
    }

    /// A `[…]`, a `{…}` or what stands in one.
    fn flow(&mut self, flow: &mut Flow<'t>, room: usize) -> Option<Node> {
        let pos = self.pos(flow.at());
        if flow.takes("[") {
            let below = room.checked_sub(1)?;
            let first = self.items.len();
            if !flow.takes("]") {
                loop {
                    let item = self.flow(flow, below)?;
                    self.items.push(item);
                    if flow.ends("]")? {
                        break;
                    }
                }
            }
            return self.close_list(first, pos);
        }
        if flow.takes("{") {
            let below = room.checked_sub(1)?;
            let first = self.entries.len();
            if !flow.takes("}") {
                loop {
                    let pos = self.pos(flow.at());
                    let (text, plain) = flow.scalar()?;
                    if text.len() > LONGEST_KEY || !flow.rest.starts_with(": ") {
                        return None;
                    }
                    flow.takes(":");
                    let key = Key { text: self.key_text(text, plain)?, pos };
                    let value = self.flow(flow, below)?;
                    self.entries.push(Entry { key, value });
                    if flow.ends("}")? {
                        break;
                    }
                }
            }
            return self.close_map(first, pos);
        }
        let (text, plain) = flow.scalar()?;
        self.scalar(text, plain, pos)
    }

    fn scalar(&mut self, text: &str, plain: bool, pos: Pos) -> Option<Node> {
        let value = match scalar::resolve(text, plain, None).ok()? {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Value::Int(value),
            Scalar::Float(value) => Value::Float(value),
            Scalar::String(text) => Value::String(self.budget.share(text)),
        };
        self.node(pos, value)
    }

    fn key_text(&mut self, text: &str, plain: bool) -> Option<std::sync::Arc<str>> {
        let text = scalar::key(text, plain, None).ok()??;
        Some(self.budget.share(&text))
    }

    fn node(&mut self, pos: Pos, value: Value) -> Option<Node> {
        self.budget.spend().ok()?;
        self.spent = self.spent.saturating_add(1);
        Some(Node { pos, value })
    }

    /// The place of a byte of the line at hand; bytes are characters here.
    fn pos(&self, at: usize) -> Pos {
        let column = self.column.saturating_add(at).saturating_add(1);
        Pos { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

/// A line's rest inside `[]` and `{}`.
struct Flow<'t> {
    rest: &'t str,
    /// Where the line ends, counted as [`Reader::pos`] does.
    end: usize,
}

impl<'t> Flow<'t> {
    fn at(&self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }

    /// Passes a sign and the spaces after it, if it is next.
    fn takes(&mut self, sign: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(sign) else { return false };
        // What follows the last bracket is the line's, not the collection's; there are no spaces at its end.
        self.rest = rest.trim_start_matches(' ');
        true
    }

    /// Whether the collection ends here with `close`; else the next member is next.
    fn ends(&mut self, close: &str) -> Option<bool> {
        if self.takes(close) {
            return Some(true);
        }
        self.takes(",").then_some(false)
    }

    /// A text and whether it is without quotes.
    fn scalar(&mut self) -> Option<(&'t str, bool)> {
        let (text, plain, rest) = match quoted(self.rest) {
            Some((text, rest)) => (text, false, rest),
            None => {
                let is_inner =
                    |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-' | b'+');
                let end = self.rest.bytes().position(|b| !is_inner(b))?;
                let (text, rest) = self.rest.split_at_checked(end)?;
                if !is_word(text) {
                    return None;
                }
                (text, true, rest)
            }
        };
        // Spaces may stand before what ends it, and not before a colon.
        let spaceless = rest.trim_start_matches(' ');
        self.rest = if spaceless.starts_with([',', ']', '}']) { spaceless } else { rest };
        self.rest.starts_with([',', ']', '}', ':']).then_some((text, plain))
    }
}

/// The key that a line begins with, whether it is without quotes, and what stands after its colon. `None` where it begins with
/// no key, or not with a plain one.
fn key(line: &str) -> Option<(&str, bool, &str)> {
    let (text, plain, rest) = match quoted(line) {
        Some((text, rest)) => (text, false, rest),
        None => {
            let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
            let end = line.bytes().position(|b| !is_inner(b))?;
            let (text, rest) = line.split_at_checked(end)?;
            let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !starts {
                return None;
            }
            (text, true, rest)
        }
    };
    let rest = rest.strip_prefix(':')?;
    let ends = rest.is_empty() || rest.starts_with(' ');
    (ends && text.len() <= LONGEST_KEY).then(|| (text, plain, rest.trim_start_matches(' ')))
}

/// The text in the quotes that a line begins with, and what stands after it. Escapes are not plain.
fn quoted(line: &str) -> Option<(&str, &str)> {
    let quote = match line.as_bytes().first()? {
        b'"' => '"',
        b'\'' => '\'',
        _ => return None,
    };
    let (text, rest) = line.get(1..)?.split_once(quote)?;
    (!text.contains('\\') && !rest.starts_with(quote)).then_some((text, rest))
}

/// Whether a line's rest is a text without quotes and nothing else.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let starts = match bytes {
        [b'-' | b'+' | b'.', b'0'..=b'9', ..] => true,
        [first, ..] => first.is_ascii_alphanumeric() || matches!(first, b'_' | b'/'),
        [] => false,
    };
    // A colon before a space makes a key, a number sign after one a comment.
    starts
        && bytes.last() != Some(&b':')
        && !bytes.array_windows().any(|pair| matches!(pair, [b':', b' '] | [b' ', b'#']))
}

#[cfg(test)]
mod tests;
