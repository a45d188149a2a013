//! Collects everything that is wrong with one object, so that a user mends it in one go.

use super::{At, Field, Invalid, Object, ReadError, Unknown};
use crate::truth::Doubt;

/// What is wrong with the object that is being read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: Vec<ReadError>,
}

impl Problems {
    /// The value, or none and its error kept.
    pub(super) fn keep<T>(&mut self, read: Result<T, Invalid>) -> Option<T> {
        read.map_err(|invalid| self.errors.push(invalid.into())).ok()
    }

    /// As [`Problems::keep`], with a way out in the error.
    pub(super) fn keep_or<T>(&mut self, read: Result<T, Invalid>, hint: &str) -> Option<T> {
        read.map_err(|invalid| self.errors.push(ReadError::from(invalid).hint(hint))).ok()
    }

    /// A field has a value that it cannot have.
    pub(super) fn invalid(&mut self, field: &Field<'_>, expected: impl Into<String>, hint: &str) {
        self.errors.push(ReadError::from(field.invalid(expected.into())).hint(hint));
    }

    /// Something that no single field is to blame for.
    pub(super) fn add(&mut self, at: At, message: impl Into<String>, hint: &str) {
        self.errors.push(ReadError::new(at, message).hint(hint));
    }

    /// The members of a list; none where it is absent or no list.
    pub(super) fn list<'a>(&mut self, object: &Object<'a>, key: &str) -> Vec<Field<'a>> {
        self.keep(object.list(key)).unwrap_or_default()
    }

    /// The value, if nothing was wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, Vec<ReadError>> {
        if self.errors.is_empty() { Ok(value) } else { Err(self.errors) }
    }
}

/// A doubt for each field that nobody understood.
pub(super) fn doubts(unknown: &[Unknown]) -> impl Iterator<Item = Doubt> + '_ {
    unknown.iter().map(|field| Doubt::field(&field.path, &field.at))
}
