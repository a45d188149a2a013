//! Kleene's three values, and why something is not known.

use crate::source::At;
use std::fmt;
use std::ops::Not;
use std::sync::Arc;

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Truth {
    /// It does not.
    No,
    /// The input does not tell.
    Unknown,
    /// It does.
    Yes,
}

impl Truth {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// At least one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// All of them; yes where there are none.
    pub fn all(of: impl IntoIterator<Item = Self>) -> Self {
        Self::joined(of, Self::Yes, Self::and, Self::No)
    }

    /// At least one of them; no where there are none.
    pub fn any(of: impl IntoIterator<Item = Self>) -> Self {
        Self::joined(of, Self::No, Self::or, Self::Yes)
    }

    /// What they come to together; nobody is asked once it is settled.
    fn joined(
        of: impl IntoIterator<Item = Self>,
        from: Self,
        join: fn(Self, Self) -> Self,
        settled: Self,
    ) -> Self {
        let mut all = from;
        for one in of {
            all = join(all, one);
            if all == settled {
                break;
            }
        }
        all
    }

    /// Whether it is possible: not [`Truth::No`].
    pub fn may(self) -> bool {
        self != Self::No
    }

    /// Whether it is certain: [`Truth::Yes`].
    pub fn must(self) -> bool {
        self == Self::Yes
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// What is not known, in a sentence that names the missing fact and how to supply it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Doubt {
    /// Such as ``the field `spec.ingress[0].from[0].fooSelector` is not understood``.
    pub what: Arc<str>,
    /// Where in the input, if it is there.
    pub at: Option<At>,
}

impl Doubt {
    /// A doubt about a place of the input.
    pub fn at(what: impl Into<Arc<str>>, at: &At) -> Self {
        Self { what: what.into(), at: Some(at.clone()) }
    }

    /// A doubt that no place of the input answers for.
    pub fn new(what: impl Into<Arc<str>>) -> Self {
        Self { what: what.into(), at: None }
    }

    /// A field that nobody understood; it is never ignored.
    pub fn field(path: &str, at: &At) -> Self {
        Self::at(format!("the field `{path}` is not understood"), at)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.at.as_ref().map_or(Ok(()), |at| write!(f, " ({at})"))
    }
}
