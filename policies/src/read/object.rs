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

mod field;

pub use field::{Field, IntOrString};

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use super::node::{At, Entry, Pos};
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
        Some(Field::new(Rc::clone(&self.inner), index, step, &entry.value))
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

#[cfg(test)]
mod tests;
