//! The tree that a document is read into: values with the place they stand at.
//!
//! Compact, since an audit may hold a million nodes: a node is 32 bytes, equal keys and equal short strings are shared.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How deep maps and lists may nest, aliases followed. Kubernetes' own types stay below 40.
pub const MAX_DEPTH: usize = 128;

/// A place in a text. Lines and columns count from 1, columns in characters; 0 means the text as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Pos {
    /// The place of a named text's position.
    pub fn of(self, file: &Arc<str>) -> At {
        At { file: Arc::clone(file), line: self.line, column: self.column }
    }
}

/// A place in a named text: `chart.yaml:12:5`; line 0 is the text as a whole: `chart.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// The text's name, as its caller gave it: a path, `-`, `cluster`.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl At {
    /// A text as a whole.
    pub fn whole(file: &Arc<str>) -> Self {
        Pos::default().of(file)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// A value and where it begins. What an alias stands for keeps the place where it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub pos: Pos,
    /// The value.
    pub value: Value,
}

/// What JSON can say, with integers apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing after the colon. For the API server this is the same as an absent field.
    Null,
    /// `true`, and in YAML also `yes`, `on`, `y` unless quoted.
    Bool(bool),
    /// An integer of 64 bits. YAML's `80.0` is one, too: its JSON form is `80`.
    Int(i64),
    /// Any other number. Never infinite.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Box<[Node]>),
    /// A map in the order of the text. No key is there twice.
    Map(Box<[Entry]>),
}

/// A map's key. Keys that YAML reads as numbers or booleans are text here, as in JSON: `80: x` has the key `80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: Arc<str>,
    /// Where it begins.
    pub pos: Pos,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key.text == key)
    }

    /// The entries of a map; of anything else, none.
    pub fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The members of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }
}

impl Value {
    /// What this is, for a message: `a boolean (true)`, `a list`. Long texts are cut.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => format!("a boolean ({value})"),
            Self::Int(value) => format!("an integer ({value})"),
            Self::Float(value) => format!("a number ({value})"),
            Self::String(text) => format!("a string ({})", quoted(text)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a map".into(),
        }
    }
}

/// Text in quotes for a message: control characters escaped, cut after 40 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

// === What both readers share while they build ===

/// What building trees may still use, and the texts that were already seen.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Nodes that may still be made.
    nodes: usize,
    /// Where more come from, if this is one of several that share a limit.
    pool: Option<Arc<AtomicUsize>>,
    exhausted: bool,
    shared: HashSet<Arc<str>>,
    /// Texts that were shared lately, each in the place of its hash. Most are asked for again and again; a text that falls into
    /// another's place only costs a look into `shared`.
    recent: Vec<Arc<str>>,
}

/// The limit on nodes is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyNodes;

impl Budget {
    /// Texts longer than this are not shared: they are seldom equal.
    const LONGEST_SHARED: usize = 64;
    /// Nodes that are drawn from a shared limit at once.
    const DRAWN: usize = 4_096;
    /// Distinct texts that are remembered.
    const MOST_SHARED: usize = 1 << 16;
    /// Places for recent texts; a power of two.
    const RECENT: usize = 1 << 11;

    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, pool: None, exhausted: false, shared: HashSet::new(), recent: Vec::new() }
    }

    /// One of several that share a limit: it draws nodes by the thousand, so that the limit may seem used up a little early.
    pub(crate) fn drawing_on(pool: Arc<AtomicUsize>) -> Self {
        Self { pool: Some(pool), ..Self::new(0) }
    }

    /// Counts one node.
    pub(crate) fn spend(&mut self) -> Result<(), TooManyNodes> {
        if self.nodes == 0 {
            self.draw();
        }
        match self.nodes.checked_sub(1) {
            Some(left) => {
                self.nodes = left;
                Ok(())
            }
            None => {
                self.exhausted = true;
                Err(TooManyNodes)
            }
        }
    }

    fn draw(&mut self) {
        let Some(pool) = &self.pool else { return };
        let drawn = |left: usize| left.min(Self::DRAWN);
        let taken = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(drawn(left)))
        });
        self.nodes = taken.map_or(0, drawn);
    }

    /// Nodes that may still be made.
    pub(crate) fn left(&self) -> usize {
        self.nodes
    }

    /// Gives nodes back that were dropped.
    pub(crate) fn restore(&mut self, nodes: usize) {
        self.nodes = nodes;
    }

    /// Gives back as many nodes, which were spent here and dropped.
    pub(crate) fn refund(&mut self, nodes: usize) {
        self.nodes = self.nodes.saturating_add(nodes);
    }

    /// Whether somebody asked for more than there was.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The text, shared with an earlier equal one.
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > Self::LONGEST_SHARED {
            return text.into();
        }
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(text.as_bytes());
        let place = usize::try_from(hasher.finish()).unwrap_or_default() & Self::RECENT.saturating_sub(1);
        if let Some(known) = self.recent.get(place)
            && **known == *text
        {
            return Arc::clone(known);
        }
        let found = match self.shared.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                if self.shared.len() < Self::MOST_SHARED {
                    self.shared.insert(Arc::clone(&new));
                }
                new
            }
        };
        if self.recent.is_empty() {
            self.recent.resize(Self::RECENT, Arc::default());
        }
        if let Some(slot) = self.recent.get_mut(place) {
            *slot = Arc::clone(&found);
        }
        found
    }
}

/// The first key that stands twice in a map, as the earlier and the later one.
pub(crate) fn twice(entries: &[Entry]) -> Option<(&Key, &Key)> {
    // Nearly every map is small; there, comparing is faster than hashing.
    if entries.len() <= 16 {
        let mut rest = entries;
        while let Some((first, tail)) = rest.split_first() {
            if let Some(again) = tail.iter().find(|entry| entry.key.text == first.key.text) {
                return Some((&first.key, &again.key));
            }
            rest = tail;
        }
        return None;
    }
    let mut seen = std::collections::HashMap::with_capacity(entries.len());
    for Entry { key, .. } in entries {
        if let Some(first) = seen.insert(&key.text, key) {
            return Some((first, key));
        }
    }
    None
}
