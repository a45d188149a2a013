//! Kubernetes manifests as text → documents → typed fields, read the way the API server reads them.
//!
//! | module | job |
//! |---|---|
//! | [`documents`] | named texts within limits → [`Document`]s, with every error of every text |
//! | [`object`] | strict, typed reading of one document's fields; what nobody read is reported |
//! | [`node`] | the tree both share: values with their positions |
//! | [`yaml`], [`json`] | one text → trees; `plain` is the short way for what nearly every manifest is written in |
//! | [`scalar`] | what a plain word means: `y` is a boolean, `0777` is 511 |
//!
//! Nothing is guessed and nothing is skipped in silence. Where two readers of Kubernetes (kubectl, Helm, Kustomize) would
//! read a text differently, it is refused, so that a verdict never rests on the wrong reading.

mod access;
mod assemble;
mod calico;
mod cilium;
mod core;
pub mod documents;
mod exceptions;
pub mod json;
mod kinds;
pub mod node;
pub mod object;
mod pod;
pub mod scalar;
pub mod yaml;

mod admin_network_policy;
mod cluster_network_policy;
mod cluster_rules;
mod network_policy;
mod parallel;
mod plain;
mod problems;
mod selector;
mod stream;
mod strict;
#[cfg(test)]
mod testing;
mod unread;

pub(crate) use cilium::LISTED_NAMES_ONLY;
pub(crate) use unread::NAME as UNREAD;

pub use assemble::{ReadOptions, Reading, cluster};
pub use documents::{Document, Documents, Input, KUSTOMIZATIONS, Limits, Note, documents};
pub use kinds::{concerns_policies, is_group_of_concern};
pub use node::{At, Entry, Key, Node, Pos, Value};
pub use object::{Field, IntOrString, Invalid, Object, Unknown};
pub use unread::Unread;

/// A text, or a part of it, cannot be used as a manifest.
///
/// `Display` is one line: `chart.yaml:12:5: what is wrong; what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}{}{}", if hint.is_some() { "; " } else { "" }, hint.as_deref().unwrap_or(""))]
pub struct ReadError {
    /// Where.
    pub at: At,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

impl ReadError {
    /// An error without a hint.
    pub fn new(at: At, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    /// The same error with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Every error of an input, in its order: at most [`ReadErrors::MOST`], and how many more there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadErrors {
    errors: Vec<ReadError>,
    more: usize,
}

impl ReadErrors {
    /// Errors that are kept; the rest is only counted.
    pub const MOST: usize = 100;

    /// The errors that were kept.
    pub fn errors(&self) -> &[ReadError] {
        &self.errors
    }

    /// How many errors there were beside [`ReadErrors::errors`].
    pub fn more(&self) -> usize {
        self.more
    }

    /// No errors yet. For callers that collect errors of later steps in the same bounded way.
    pub fn none() -> Self {
        Self { errors: Vec::new(), more: 0 }
    }

    /// Keeps an error, or counts it when enough are kept.
    pub fn push(&mut self, error: ReadError) {
        if self.errors.len() < Self::MOST {
            self.errors.push(error);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Keeps another's errors behind its own.
    pub(crate) fn append(&mut self, other: Self) {
        other.errors.into_iter().for_each(|error| self.push(error));
        self.more = self.more.saturating_add(other.more);
    }

    /// `Ok(value)` when there was no error.
    ///
    /// # Errors
    /// These errors.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.errors.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl std::fmt::Display for ReadErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ReadErrors {}
