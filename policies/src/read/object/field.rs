//! A value that is there, and what it may be read as.

use super::{Inner, Invalid, Object, STRING, Step};
use crate::read::node::{At, Entry, Node, Value};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

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
    pub(super) fn new(owner: Rc<Inner<'a>>, index: usize, step: Step<'a>, node: &'a Node) -> Self {
        Self { owner, index, step, node }
    }

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
