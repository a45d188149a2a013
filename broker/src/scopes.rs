//! What a key or a token may do.

use std::fmt;
use std::str::FromStr;

/// One thing that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Look at jobs, uploads, events, presets and webhooks, and download.
    Read,
    /// Announce and send uploads.
    Upload,
    /// Submit and cancel jobs.
    Submit,
    /// Delete jobs and uploads.
    Delete,
    /// Make, change and delete webhooks.
    Webhooks,
    /// Make, change and delete rules of the intake.
    Rules,
    /// Send the intake events of storage, and nothing else.
    Intake,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Upload, Self::Submit, Self::Delete, Self::Webhooks, Self::Rules, Self::Intake];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Upload => "upload",
            Self::Submit => "submit",
            Self::Delete => "delete",
            Self::Webhooks => "webhooks",
            Self::Rules => "rules",
            Self::Intake => "intake",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Upload => 2,
            Self::Submit => 4,
            Self::Delete => 8,
            Self::Webhooks => 16,
            Self::Rules => 32,
            Self::Intake => 64,
        }
    }
}

/// A set of scopes. None is nothing; all is spelled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

const ALL: &str = "all";

impl Scopes {
    /// Everything that there is and will be.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether it has the scope.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// From words with commas between them, as they are stored. A word of a later version gives nothing here.
    pub fn read(text: &str) -> Self {
        text.split(',').filter_map(|word| word.parse::<Self>().ok()).collect()
    }
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a scope; there are: all, read, upload, submit, delete, webhooks, rules, intake")]
pub struct NotAScope;

impl FromStr for Scopes {
    type Err = NotAScope;

    fn from_str(word: &str) -> Result<Self, NotAScope> {
        if word == ALL {
            return Ok(Self::ALL);
        }
        Scope::ALL.into_iter().find(|s| s.as_str() == word).map(|s| Self(s.bit())).ok_or(NotAScope)
    }
}

impl FromIterator<Self> for Scopes {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |bits, one| bits | one.0))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str(ALL);
        }
        let words: Vec<&str> = Scope::ALL.into_iter().filter(|s| self.has(*s)).map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_spelled_the_same_everywhere_and_nothing_is_nothing() {
        for scope in Scope::ALL {
            let one: Scopes = scope.as_str().parse().unwrap();
            assert_eq!(Scope::ALL.into_iter().filter(|s| one.has(*s)).collect::<Vec<_>>(), [scope]);
            assert_eq!(Scopes::read(&one.to_string()), one);
        }
        assert!(Scope::ALL.into_iter().all(|s| Scopes::ALL.has(s)));
        assert_eq!(Scopes::read("all"), Scopes::ALL);
        assert_eq!(Scopes::read("read,submit").to_string(), "read,submit");
        for nothing in ["", ",", "everything", "ALL", "read submit"] {
            assert_eq!(Scopes::read(nothing), Scopes::default(), "{nothing}");
        }
        assert!("admin".parse::<Scopes>().is_err());
    }
}
