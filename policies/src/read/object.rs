//! Strict, typed reading of a document's fields.
//!
//! A dialect's parser asks an [`Object`] for the fields that it knows. What it did not ask for, anywhere below, comes back as
//! [`Unknown`], so that a verdict can be *unknown* instead of wrong. Nothing has to be done for that: an object that goes
//! out of scope hands what was unread to the object above it, and the document's comes back from [`read`]. To attach a
//! doubt more closely, to one rule say, end that rule's object with [`Object::finish`].
//!
//! `null` is an absent field, as for the API server. A value of the wrong type is an [`Invalid`] with path and place. Paths
//! are written only for those two.
//!
//! ```
//! use mpegflow_policies::read::{Input, Limits, Object, documents, object};
//!
//! let text = "apiVersion: v1\nkind: Thing\nspec: {port: 80, prot: UDP}\n";
//! let mut input = Input::new(Limits::default());
//! input.add("thing.yaml", text)?;
//! let thing = documents(&input)?.documents.remove(0);
//!
//! let (port, unknown) = object::read(&thing, |thing| {
//!     let spec = thing.required("spec")?.object()?;
//!     spec.required("port")?.int_in(1..=65_535)
//! })?;
//! assert_eq!(port, 80);
//! assert_eq!(unknown[0].to_string(), "thing.yaml:3:18: spec.prot");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use super::node::{At, Entry, Node, Pos, Value};
use super::{Document, ReadError};

/// Unread fields that one object remembers; the next would say nothing new.
pub const MOST_UNKNOWN: usize = 256;

/// A field has a value that it cannot have, or a required one is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {}", self.message())]
pub struct Invalid {
    /// `spec.ingress[0].ports[1].port`
    pub path: String,
    /// Where the value, or the map that lacks it, begins.
    pub at: At,
    /// What it may be: `a string`.
    pub expected: Cow<'static, str>,
    /// What it is: `a boolean (true)`; `None` where it is missing.
    pub found: Option<String>,
}

impl Invalid {
    /// `spec.port must be an integer from 1 to 65535, is a string ("http")`, `spec.port is missing`
    pub fn message(&self) -> String {
        match &self.found {
            Some(found) => format!("{} must be {}, is {found}", self.path, self.expected),
            None => format!("{} is missing", self.path),
        }
    }
}

impl From<Invalid> for ReadError {
    fn from(invalid: Invalid) -> Self {
        let scalar = |found: &String| {
            ["a boolean", "an integer", "a number"].iter().any(|what| found.starts_with(what))
        };
        let quote = invalid.expected == STRING && invalid.found.as_ref().is_some_and(scalar);
        let error = Self::new(invalid.at.clone(), invalid.message());
        if quote { error.hint("put it in quotes") } else { error }
    }
}

const STRING: &str = "a string";

/// A field that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// `spec.ingress[0].foo`
    pub path: String,
    /// Where its key stands.
    pub at: At,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.path)
    }
}

/// Reads a document. `apiVersion`, `kind` and `metadata` count as read; so does `status` only if it is asked for.
///
/// # Errors
/// Those of `fields`.
pub fn read<'a, T, E>(
    document: &'a Document,
    fields: impl FnOnce(&Object<'a>) -> Result<T, E>,
) -> Result<(T, Vec<Unknown>), E> {
    let object = Object::new(document.root.entries(), document.root.pos, &document.at.file, None, Step::Root);
    object.ignore(&["apiVersion", "kind", "metadata"]);
    let value = fields(&object)?;
    // Something below was carried out of the closure, so that what it leaves unread would be lost.
    let escaped = Rc::strong_count(&object.inner) > 1;
    let mut unknown = object.finish();
    if escaped {
        unknown.push(Unknown { path: "the document".into(), at: document.at.clone() });
    }
    Ok((value, unknown))
}

/// A map with known fields.
pub struct Object<'a> {
    inner: Rc<Inner<'a>>,
}

struct Inner<'a> {
    entries: &'a [Entry],
    pos: Pos,
    file: &'a Arc<str>,
    parent: Option<Rc<Inner<'a>>>,
    step: Step<'a>,
    read: RefCell<Vec<u64>>,
    read_first: Cell<u64>,
    unknown: RefCell<Vec<Unknown>>,
    /// Its unknowns were taken; later ones go to the object above.
    finished: Cell<bool>,
}

/// The way from an object to one below it.
#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    /// A member of a list under a key.
    Item(&'a str, usize),
}

impl<'a> Object<'a> {
    /// A document's top, for kinds of which only some fields matter; [`read`] is for those whose every field does.
    pub(super) fn of(document: &'a Document) -> Self {
        Self::new(document.root.entries(), document.root.pos, &document.at.file, None, Step::Root)
    }

    fn new(
        entries: &'a [Entry],
        pos: Pos,
        file: &'a Arc<str>,
        parent: Option<Rc<Inner<'a>>>,
        step: Step<'a>,
    ) -> Self {
        let inner = Inner {
            entries,
            pos,
            file,
            parent,
            step,
            read: RefCell::default(),
            read_first: Cell::default(),
            unknown: RefCell::default(),
            finished: Cell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Where the map begins.
    pub fn at(&self) -> At {
        self.inner.pos.of(self.inner.file)
    }

    /// Its path: `spec.ingress[0]`; the document itself is `the document`.
    pub fn path(&self) -> String {
        match self.inner.path() {
            path if path.is_empty() => "the document".into(),
            path => path,
        }
    }

    /// A field, unless it is absent or null.
    pub fn optional(&self, key: &str) -> Option<Field<'a>> {
        let index = self.inner.entries.iter().position(|entry| &*entry.key.text == key)?;
        let entry = self.inner.entries.get(index)?;
        if entry.value.is_null() {
            self.inner.mark(index);
            return None;
        }
        let step = Step::Key(&entry.key.text);
        Some(Field { owner: Rc::clone(&self.inner), index, step, node: &entry.value })
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is absent or null.
    pub fn required(&self, key: &str) -> Result<Field<'a>, Invalid> {
        self.optional(key).ok_or_else(|| {
            let mut path = self.inner.path();
            push_key(&mut path, key);
            Invalid { path, at: self.at(), expected: "there".into(), found: None }
        })
    }

    /// A list; empty where it is absent or null. Ask [`Object::optional`] where absent and empty differ.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&self, key: &str) -> Result<Vec<Field<'a>>, Invalid> {
        self.optional(key).map_or_else(|| Ok(Vec::new()), |field| field.list())
    }

    /// A text, unless it is absent or null.
    ///
    /// # Errors
    /// It is something else.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, Invalid> {
        self.optional(key).map(|field| field.string()).transpose()
    }

    /// A text as the tree has it, unless it is absent or null.
    ///
    /// # Errors
    /// It is something else.
    pub fn shared(&self, key: &str) -> Result<Option<Arc<str>>, Invalid> {
        self.optional(key).map(|field| field.shared()).transpose()
    }

    /// A boolean, unless it is absent or null.
    ///
    /// # Errors
    /// It is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Invalid> {
        self.optional(key).map(|field| field.bool()).transpose()
    }

    /// An integer in a range, unless it is absent or null.
    ///
    /// # Errors
    /// It is something else.
    pub fn int_in(&self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Invalid> {
        self.optional(key).map(|field| field.int_in(range)).transpose()
    }

    /// A map with known fields, unless it is absent or null.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&self, key: &str) -> Result<Option<Object<'a>>, Invalid> {
        self.optional(key).map(|field| field.object()).transpose()
    }

    /// Says that these fields are known and do not matter to the reader.
    pub fn ignore(&self, keys: &[&str]) {
        for (index, entry) in self.inner.entries.iter().enumerate() {
            if keys.contains(&&*entry.key.text) {
                self.inner.mark(index);
            }
        }
    }

    /// Says that all fields are known: for a kind that is only counted.
    pub fn ignore_rest(&self) {
        for index in 0..self.inner.entries.len() {
            self.inner.mark(index);
        }
    }

    /// The keys that are there and not null, read or not. Does not count as reading.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let entries = self.inner.entries;
        entries.iter().filter(|entry| !entry.value.is_null()).map(|entry| &*entry.key.text)
    }

    /// An error about this map as a whole.
    pub fn invalid(&self, expected: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Invalid {
        Invalid { path: self.path(), at: self.at(), expected: expected.into(), found: Some(found.into()) }
    }

    /// The fields that nobody read, here and in the objects below that are out of scope; these are then not handed on to
    /// the object above. At most [`MOST_UNKNOWN`].
    #[must_use = "an unread field makes a verdict unknown; to hand it to the object above, drop the object instead"]
    pub fn finish(self) -> Vec<Unknown> {
        self.inner.settle();
        self.inner.finished.set(true);
        self.inner.unknown.take()
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.inner.settle();
        if let Some(parent) = &self.inner.parent {
            for unknown in self.inner.unknown.take() {
                parent.remember(unknown);
            }
        }
    }
}

impl<'a> Inner<'a> {
    fn mark(&self, index: usize) {
        let (word, bit) = (index >> 6, 1_u64 << (index & 63));
        if word == 0 {
            self.read_first.set(self.read_first.get() | bit);
            return;
        }
        let mut words = self.read.borrow_mut();
        if words.len() <= word {
            words.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = words.get_mut(word) {
            *word |= bit;
        }
    }

    fn is_read(&self, index: usize) -> bool {
        let (word, bit) = (index >> 6, 1_u64 << (index & 63));
        let word = if word == 0 {
            self.read_first.get()
        } else {
            self.read.borrow().get(word).copied().unwrap_or(0)
        };
        word & bit != 0
    }

    /// Remembers what is unread, once.
    fn settle(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            if !self.is_read(index) {
                self.mark(index);
                let mut path = self.path();
                push_key(&mut path, &entry.key.text);
                self.remember(Unknown { path, at: entry.key.pos.of(self.file) });
            }
        }
    }

    fn remember(&self, unknown: Unknown) {
        if let (true, Some(parent)) = (self.finished.get(), &self.parent) {
            return parent.remember(unknown);
        }
        let mut all = self.unknown.borrow_mut();
        if all.len() < MOST_UNKNOWN {
            all.push(unknown);
        }
    }

    fn path(&self) -> String {
        let mut path = self.parent.as_ref().map(|parent| parent.path()).unwrap_or_default();
        self.step.push(&mut path);
        path
    }
}

impl Step<'_> {
    fn push(self, path: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(key) => push_key(path, key),
            Self::Item(key, index) => {
                push_key(path, key);
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
        }
    }
}

/// `.key`, or `["key"]` where the key is not a plain word; cut if it is very long.
fn push_key(path: &mut String, key: &str) {
    if !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && key.len() <= 64
    {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        let _ = write!(path, "[{}]", super::node::quoted(key));
    }
}

/// A number or a name, as for ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntOrString<'a> {
    /// `80`
    Int(i64),
    /// `http`, and also `"80"`.
    String(&'a str),
}

/// A value that is there and not yet read. It counts as read when its content is taken.
#[derive(Clone)]
pub struct Field<'a> {
    owner: Rc<Inner<'a>>,
    /// Which entry of the owner this is, or is in.
    index: usize,
    step: Step<'a>,
    node: &'a Node,
}

impl<'a> Field<'a> {
    /// Where the value begins.
    pub fn at(&self) -> At {
        self.node.pos.of(self.owner.file)
    }

    /// Its path: `spec.ingress[0].from`.
    pub fn path(&self) -> String {
        let mut path = self.owner.path();
        self.step.push(&mut path);
        path
    }

    /// The value itself, for readers with a need of their own.
    pub fn node(&self) -> &'a Node {
        self.owner.mark(self.index);
        self.node
    }

    /// An error: this field must be `expected`, and is what it is.
    pub fn invalid(&self, expected: impl Into<Cow<'static, str>>) -> Invalid {
        Invalid {
            path: self.path(),
            at: self.at(),
            expected: expected.into(),
            found: Some(self.node.value.describe()),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// It is something else: the API server takes no number and no boolean for a string.
    pub fn string(&self) -> Result<&'a str, Invalid> {
        self.node().as_str().ok_or_else(|| self.invalid(STRING))
    }

    /// A text as the tree has it: equal short ones of an input are one.
    ///
    /// # Errors
    /// As [`Field::string`].
    pub fn shared(&self) -> Result<Arc<str>, Invalid> {
        match &self.node().value {
            Value::String(text) => Ok(Arc::clone(text)),
            _ => Err(self.invalid(STRING)),
        }
    }

    /// A text with its parsed meaning: `field.parsed("a CIDR", |text| text.parse().ok())`.
    ///
    /// # Errors
    /// It is no text, or `parse` gives none.
    pub fn parsed<T>(
        &self,
        expected: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, Invalid> {
        parse(self.string()?).ok_or_else(|| self.invalid(expected))
    }

    /// One of a few words: `field.choice(&[("TCP", Protocol::Tcp), …])`.
    ///
    /// # Errors
    /// It is something else.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Invalid> {
        let text = self.node().as_str();
        match choices.iter().find(|(word, _)| text == Some(word)) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(self.invalid(format!("one of {}", words.join(", "))))
            }
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// It is something else.
    pub fn bool(&self) -> Result<bool, Invalid> {
        if let Value::Bool(value) = self.node().value { Ok(value) } else { Err(self.invalid("a boolean")) }
    }

    /// An integer in a range.
    ///
    /// # Errors
    /// It is something else, or outside.
    pub fn int_in(&self, range: RangeInclusive<i64>) -> Result<i64, Invalid> {
        match self.node().value {
            Value::Int(value) if range.contains(&value) => Ok(value),
            _ => Err(self.invalid(format!("an integer from {} to {}", range.start(), range.end()))),
        }
    }

    /// An integer or a text, as ports are written.
    ///
    /// # Errors
    /// It is neither.
    pub fn int_or_string(&self) -> Result<IntOrString<'a>, Invalid> {
        match &self.node().value {
            Value::Int(value) => Ok(IntOrString::Int(*value)),
            Value::String(text) => Ok(IntOrString::String(text)),
            _ => Err(self.invalid("an integer or a string")),
        }
    }

    /// A map with known fields.
    ///
    /// # Errors
    /// It is no map.
    pub fn object(&self) -> Result<Object<'a>, Invalid> {
        let Value::Map(entries) = &self.node().value else { return Err(self.invalid("a map")) };
        let parent = Some(Rc::clone(&self.owner));
        Ok(Object::new(entries, self.node.pos, self.owner.file, parent, self.step))
    }

    /// A list's members. A `null` among them is a member, and no type takes it.
    ///
    /// # Errors
    /// It is no list, or a list directly in a list, which Kubernetes does not have.
    pub fn list(&self) -> Result<Vec<Field<'a>>, Invalid> {
        let (Value::List(items), Step::Key(key)) = (&self.node().value, self.step) else {
            return Err(self.invalid("a list"));
        };
        let field = |(index, node)| Field {
            owner: Rc::clone(&self.owner),
            index: self.index,
            step: Step::Item(key, index),
            node,
        };
        Ok(items.iter().enumerate().map(field).collect())
    }

    /// A list of texts.
    ///
    /// # Errors
    /// It is something else; the error names the member.
    pub fn strings(&self) -> Result<Vec<&'a str>, Invalid> {
        self.list()?.iter().map(Field::string).collect()
    }

    /// A map whose keys are not fields but data, such as labels: each key with its value, in the text's order.
    ///
    /// # Errors
    /// It is no map.
    pub fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, Invalid> {
        let object = self.object()?;
        object.ignore_rest();
        let inner = &object.inner;
        let field = |(index, entry): (usize, &'a Entry)| {
            let step = Step::Key(&entry.key.text);
            (&*entry.key.text, Field { owner: Rc::clone(inner), index, step, node: &entry.value })
        };
        Ok(inner.entries.iter().enumerate().map(field).collect())
    }

    /// As [`Field::map_of_strings`], each text as the tree has it.
    ///
    /// # Errors
    /// As [`Field::map_of_strings`].
    pub fn map_of_shared<M: FromIterator<(Arc<str>, Arc<str>)>>(&self) -> Result<M, Invalid> {
        let shared = |entry: &Entry| match &entry.value.value {
            Value::String(text) => Some((Arc::clone(&entry.key.text), Arc::clone(text))),
            _ => None,
        };
        let all: Option<M> = match &self.node().value {
            Value::Map(entries) => entries.iter().map(shared).collect(),
            _ => None,
        };
        match all {
            Some(all) => Ok(all),
            // Says what is wrong.
            None => {
                let texts = self.map_of_strings()?.into_iter();
                Ok(texts.map(|(key, value)| (Arc::from(key), Arc::from(value))).collect())
            }
        }
    }

    /// A map of texts, such as labels, in the text's order.
    ///
    /// # Errors
    /// It is something else; the error names the key. A null is no text.
    pub fn map_of_strings(&self) -> Result<Vec<(&'a str, &'a str)>, Invalid> {
        self.entries()?.into_iter().map(|(key, value)| Ok((key, value.string()?))).collect()
    }
}

#[cfg(test)]
mod tests;
