//! One YAML document → a tree, over the events of `saphyr-parser`.
//!
//! Bounded before it is built: depth, nodes, what aliases may copy, and how much text one token may span.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Input, Marker, Parser, ScalarStyle, ScanError};

use super::ReadError;
use super::node::{Budget, Entry, Key, MAX_DEPTH, Node, Pos, TooManyNodes, Value, quoted, twice};
use super::scalar::{self, Scalar, ScalarError, Tag};
use super::strict::Strict;

/// Aliases may copy this many nodes in any document…
pub const MIN_COPIES: usize = 10_000;
/// …and in a longer one this many for each event of the text before the alias.
pub const COPIES_PER_EVENT: usize = 4;
/// Characters between two events. The parser holds all tokens of a flow collection (`[…]`, `{…}`) before it tells the
/// first; no object that Kubernetes stores is that long.
pub const LONGEST_TOKEN: usize = 2 << 20;

/// Parses one document whose first line is `first_line` of `file`. `None` for a document without content.
///
/// # Errors
/// What is not YAML, what readers of Kubernetes read differently, and what exceeds a bound; with its place.
pub(crate) fn parse(
    file: &Arc<str>,
    text: &str,
    first_line: u32,
    budget: &mut Budget,
) -> Result<Option<Node>, ReadError> {
    let builder = Builder {
        file,
        line_offset: first_line.saturating_sub(1),
        budget,
        events: 0,
        copies: 0,
        anchors: HashMap::new(),
        frames: Vec::new(),
        items: Vec::new(),
        entries: Vec::new(),
        root: None,
    };
    builder.check_characters(text)?;
    if text.len() <= LONGEST_TOKEN {
        return builder.run(text, Parser::new_from_str(text), || false);
    }
    let left = Rc::new(Cell::new(LONGEST_TOKEN));
    let metered = Metered { chars: text.chars(), left: Rc::clone(&left) };
    builder.run(text, Parser::new_from_iter(metered), || {
        let exhausted = left.get() == 0;
        left.set(LONGEST_TOKEN);
        exhausted
    })
}

/// Characters that stop coming when one event takes too many of them.
struct Metered<'a> {
    chars: std::str::Chars<'a>,
    left: Rc<Cell<usize>>,
}

impl Iterator for Metered<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.chars.next()
    }
}

struct Builder<'c> {
    file: &'c Arc<str>,
    line_offset: u32,
    budget: &'c mut Budget,
    events: usize,
    copies: usize,
    anchors: HashMap<usize, Node>,
    frames: Vec<Frame>,
    /// Finished members of all open lists, the innermost last.
    items: Vec<Node>,
    /// Finished entries of all open maps, the innermost last.
    entries: Vec<Entry>,
    root: Option<Node>,
}

/// An open list or map.
struct Frame {
    pos: Pos,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    List { first: usize },
    Map { first: usize, key: Option<PendingKey>, merged: Option<Merged> },
}

enum PendingKey {
    Key(Key),
    /// `<<`
    Merge(Pos),
}

/// What `<<` brought into a map.
struct Merged {
    pos: Pos,
    entries: Vec<Entry>,
}

impl Builder<'_> {
    fn run<T: Input>(
        mut self,
        text: &str,
        mut parser: Parser<'_, T>,
        exhausted: impl Fn() -> bool,
    ) -> Result<Option<Node>, ReadError> {
        let mut strict = Strict::new(text);
        let mut documents = 0_usize;
        while let Some(event) = parser.next_event() {
            let too_long = exhausted();
            let (event, span) = match event {
                Ok(event) if !too_long => event,
                Ok((_, span)) => return Err(self.too_long(span.start)),
                Err(error) if too_long => return Err(self.too_long(*error.marker())),
                Err(error) => return Err(self.not_yaml(&error)),
            };
            self.events = self.events.saturating_add(1);
            let pos = self.pos(span.start);
            strict.check(&event, span).map_err(|what| self.error(pos, what))?;
            match event {
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(_) => {
                    documents = documents.saturating_add(1);
                    if documents > 1 {
                        return Err(self
                            .error(pos, "kubectl does not read what follows here")
                            .hint("begin each document on the line after a line that is just `---`"));
                    }
                }
                Event::Alias(anchor) => {
                    let node = self.expand(anchor, pos)?;
                    self.place(node, pos)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let tag = self.tag(tag.as_deref(), pos)?;
                    self.scalar(&text, style == ScalarStyle::Plain, tag, anchor, pos)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), Tag::Seq, pos)?;
                    self.open(Frame { pos, anchor, kind: FrameKind::List { first: self.items.len() } })?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), Tag::Map, pos)?;
                    let kind = FrameKind::Map { first: self.entries.len(), key: None, merged: None };
                    self.open(Frame { pos, anchor, kind })?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
            }
        }
        Ok(self.root.filter(|root| !root.is_null()))
    }

    /// A scalar is a key where a map waits for one, else a value.
    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        tag: Option<Tag>,
        anchor: usize,
        pos: Pos,
    ) -> Result<(), ReadError> {
        let is_key = matches!(self.frames.last(), Some(Frame { kind: FrameKind::Map { key: None, .. }, .. }));
        let value = |text: &str, budget: &mut Budget| {
            scalar::resolve(text, plain, tag).map(|scalar| match scalar {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(value),
                Scalar::Int(value) => Value::Int(value),
                Scalar::Float(value) => Value::Float(value),
                Scalar::String(text) => Value::String(budget.share(text)),
            })
        };
        if !is_key {
            let value = value(text, self.budget).map_err(|e| self.bad_scalar(pos, e))?;
            let node = self.node(pos, value)?;
            return self.finish(node, anchor);
        }
        if anchor > 0 {
            let value = value(text, self.budget).map_err(|e| self.bad_scalar(pos, e))?;
            let node = self.node(pos, value)?;
            self.anchors.insert(anchor, node);
        }
        let pending = if plain && tag.is_none() && text == "<<" {
            PendingKey::Merge(pos)
        } else {
            let Some(name) = scalar::key(text, plain, tag).map_err(|e| self.bad_scalar(pos, e))? else {
                return Err(self
                    .error(pos, "null and integers beyond 63 bits cannot be keys")
                    .hint("put the key in quotes"));
            };
            PendingKey::Key(Key { text: self.budget.share(&name), pos })
        };
        if let Some(Frame { kind: FrameKind::Map { key, .. }, .. }) = self.frames.last_mut() {
            *key = Some(pending);
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame) -> Result<(), ReadError> {
        if matches!(self.frames.last(), Some(Frame { kind: FrameKind::Map { key: None, .. }, .. })) {
            return Err(self.error(frame.pos, "a key must be a word, not a map or a list"));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(self.too_deep(frame.pos));
        }
        self.frames.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), ReadError> {
        let Some(Frame { pos, anchor, kind }) = self.frames.pop() else { return Ok(()) };
        let value = match kind {
            FrameKind::List { first } => {
                Value::List(self.items.drain(first.min(self.items.len())..).collect())
            }
            FrameKind::Map { first, merged, .. } => {
                let explicit = self.entries.get(first..).unwrap_or_default();
                if let Some((first, again)) = twice(explicit) {
                    return Err(self.duplicate(first, again.pos));
                }
                if let Some(merged) = merged {
                    self.merge(first, merged)?;
                }
                Value::Map(self.entries.drain(first.min(self.entries.len())..).collect())
            }
        };
        let node = self.node(pos, value)?;
        self.finish(node, anchor)
    }

    /// A finished value: remembered if it has an anchor, then put in its place.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), ReadError> {
        if anchor > 0 {
            let copy = self.copy(&node, node.pos, MAX_DEPTH)?;
            self.anchors.insert(anchor, copy);
        }
        let pos = node.pos;
        self.place(node, pos)
    }

    /// Puts a value where the text has it, at `pos` (its own place, or its alias').
    fn place(&mut self, node: Node, pos: Pos) -> Result<(), ReadError> {
        let pending = match self.frames.last_mut() {
            None => {
                self.root = Some(node);
                return Ok(());
            }
            Some(Frame { kind: FrameKind::List { .. }, .. }) => {
                self.items.push(node);
                return Ok(());
            }
            Some(Frame { kind: FrameKind::Map { key, .. }, .. }) => key.take(),
        };
        match pending {
            Some(PendingKey::Key(key)) => self.entries.push(Entry { key, value: node }),
            Some(PendingKey::Merge(at)) => {
                let new = self.merge_source(node, at)?;
                let Some(Frame { kind: FrameKind::Map { merged, .. }, .. }) = self.frames.last_mut() else {
                    return Ok(());
                };
                if merged.is_some() {
                    return Err(self.error(at, "`<<` stands twice in this map"));
                }
                *merged = Some(new);
            }
            None => return Err(self.error(pos, "an alias cannot be a key")),
        }
        Ok(())
    }

    /// The entries of `<<: map` or `<<: [map, map]`; of equal keys the first map's.
    fn merge_source(&self, node: Node, pos: Pos) -> Result<Merged, ReadError> {
        let maps = match node.value {
            Value::Map(entries) => return Ok(Merged { pos, entries: entries.into_vec() }),
            Value::List(maps) => maps,
            other => {
                return Err(
                    self.error(pos, format!("`<<` takes a map or a list of maps, not {}", other.describe()))
                );
            }
        };
        let mut seen = std::collections::HashSet::new();
        let mut entries = Vec::new();
        for map in maps {
            let Value::Map(more) = map.value else {
                return Err(self.error(map.pos, format!("`<<` merges maps, not {}", map.value.describe())));
            };
            entries.extend(more.into_iter().filter(|entry| seen.insert(Arc::clone(&entry.key.text))));
        }
        Ok(Merged { pos, entries })
    }

    /// Adds merged entries to the open map that begins at `first`, unless they are set there.
    ///
    /// A key that is set *before* `<<` merges it again is refused: go-yaml v2 (kubectl, Helm) takes the merged value,
    /// go-yaml v3 (Kustomize) the other.
    fn merge(&mut self, first: usize, merged: Merged) -> Result<(), ReadError> {
        let explicit: HashMap<&str, Pos> = self
            .entries
            .get(first..)
            .unwrap_or_default()
            .iter()
            .map(|entry| (&*entry.key.text, entry.key.pos))
            .collect();
        let mut added = Vec::new();
        for entry in merged.entries {
            match explicit.get(&*entry.key.text) {
                Some(&at) if at < merged.pos => {
                    let key = quoted(&entry.key.text);
                    return Err(self
                        .error(merged.pos, format!("`<<` merges {key}, which line {} sets already", at.line))
                        .hint("put `<<` first: readers of Kubernetes disagree about this order"));
                }
                Some(_) => {}
                None => added.push(entry),
            }
        }
        self.entries.extend(added);
        Ok(())
    }

    fn expand(&mut self, anchor: usize, pos: Pos) -> Result<Node, ReadError> {
        let Some(node) = self.anchors.remove(&anchor) else {
            return Err(self.error(pos, "this alias stands for a value that contains it"));
        };
        let room = MAX_DEPTH.saturating_sub(self.frames.len());
        let copy = self.copy(&node, pos, room)?;
        self.anchors.insert(anchor, node);
        Ok(copy)
    }

    /// A copy of a tree that nests at most `room` deep. Recursion is bounded by it.
    fn copy(&mut self, node: &Node, pos: Pos, room: usize) -> Result<Node, ReadError> {
        self.copies = self.copies.saturating_add(1);
        if self.copies > MIN_COPIES.max(self.events.saturating_mul(COPIES_PER_EVENT)) {
            return Err(self.error(pos, "aliases make this document many times larger than it is written"));
        }
        let below = |this: &Self| room.checked_sub(1).ok_or_else(|| this.too_deep(pos));
        let value = match &node.value {
            Value::List(items) => {
                let below = below(self)?;
                let items: Result<_, _> = items.iter().map(|item| self.copy(item, pos, below)).collect();
                Value::List(items?)
            }
            Value::Map(entries) => {
                let below = below(self)?;
                let entries: Result<_, ReadError> = entries
                    .iter()
                    .map(|Entry { key, value }| {
                        Ok(Entry { key: key.clone(), value: self.copy(value, pos, below)? })
                    })
                    .collect();
                Value::Map(entries?)
            }
            leaf => leaf.clone(),
        };
        self.node(node.pos, value)
    }

    fn node(&mut self, pos: Pos, value: Value) -> Result<Node, ReadError> {
        match self.budget.spend() {
            Ok(()) => Ok(Node { pos, value }),
            Err(TooManyNodes) => Err(too_many_nodes(self.file, pos)),
        }
    }

    fn tag(&self, tag: Option<&saphyr_parser::Tag>, pos: Pos) -> Result<Option<Tag>, ReadError> {
        let Some(tag) = tag else { return Ok(None) };
        Tag::of(&tag.handle, &tag.suffix).map(Some).ok_or_else(|| {
            let name = quoted(&format!("{}{}", tag.handle, tag.suffix));
            self.error(pos, format!("the tag {name} has no meaning in a manifest"))
        })
    }

    fn collection_tag(&self, tag: Option<&saphyr_parser::Tag>, own: Tag, pos: Pos) -> Result<(), ReadError> {
        match self.tag(tag, pos)? {
            Some(tag) if tag != own => Err(self.bad_scalar(pos, ScalarError::NotOfItsTag(tag))),
            _ => Ok(()),
        }
    }

    /// go-yaml refuses control characters, and it reads U+0085, U+2028 and U+2029 as line breaks (YAML 1.1) where YAML 1.2
    /// does not: a comment here could be a field there.
    fn check_characters(&self, text: &str) -> Result<(), ReadError> {
        let suspect = |bytes: &[u8]| match bytes {
            [b'\t' | b'\n' | b'\r', ..] => false,
            [0..0x20 | 0x7f, ..] | [0xc2, 0x80..=0x9f, ..] | [0xef, 0xbf, 0xbe | 0xbf, ..] => true,
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => true,
            _ => false,
        };
        let Some(at) = (0..text.len()).find(|&at| {
            // Nearly all bytes are plain ASCII.
            let byte = text.as_bytes().get(at).copied().unwrap_or(b' ');
            !(0x20..0x7f).contains(&byte) && text.as_bytes().get(at..).is_some_and(suspect)
        }) else {
            return Ok(());
        };
        let before = text.get(..at).unwrap_or_default();
        let character = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
        let pos = self.shift(Pos {
            line: count(before.matches('\n').count()).saturating_add(1),
            column: count(before.rsplit('\n').next().unwrap_or_default().chars().count()).saturating_add(1),
        });
        let code = u32::from(character);
        let error = match code {
            0x85 | 0x2028 | 0x2029 => "ends a line for some readers of Kubernetes and not for others",
            _ => "is a control character, which the API server refuses",
        };
        let hint = format!("write it as \"\\u{code:04x}\" in double quotes");
        Err(self.error(pos, format!("U+{code:04X} {error}")).hint(hint))
    }

    fn pos(&self, mark: Marker) -> Pos {
        self.shift(Pos { line: count(mark.line()), column: count(mark.col()).saturating_add(1) })
    }

    fn shift(&self, pos: Pos) -> Pos {
        Pos { line: pos.line.saturating_add(self.line_offset), column: pos.column }
    }

    fn error(&self, pos: Pos, message: impl Into<String>) -> ReadError {
        ReadError::new(pos.of(self.file), message)
    }

    fn not_yaml(&self, error: &ScanError) -> ReadError {
        self.error(self.pos(*error.marker()), format!("not valid YAML: {}", error.info()))
    }

    fn bad_scalar(&self, pos: Pos, error: ScalarError) -> ReadError {
        self.error(pos, error.to_string()).hint("put it in quotes if it is text")
    }

    fn duplicate(&self, first: &Key, again: Pos) -> ReadError {
        let key = quoted(&first.text);
        self.error(again, format!("the key {key} stands here and in line {}", first.pos.line))
    }

    fn too_long(&self, mark: Marker) -> ReadError {
        self.error(self.pos(mark), format!("one value spans more than {LONGEST_TOKEN} characters"))
            .hint("write a long list in block style, or as JSON")
    }

    fn too_deep(&self, pos: Pos) -> ReadError {
        self.error(pos, format!("maps and lists nest deeper than {MAX_DEPTH}"))
    }
}

/// The limit on nodes is used up at this place.
pub(crate) fn too_many_nodes(file: &Arc<str>, pos: Pos) -> ReadError {
    ReadError::new(pos.of(file), "the input holds more values than the limit on nodes allows")
        .hint("audit fewer files at once, or raise the limit")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
