//! Collects everything that is wrong with one object, so that a user mends it in one go.

use std::sync::Arc;

use super::{At, Document, Field, Invalid, Object, ReadError, Unknown};
use crate::sets::Cidr;
use crate::source::ObjectRef;
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

/// Names a policy. Without a namespace, a namespaced one is in `default`, where `kubectl apply` would put it; a
/// cluster-wide one must have none.
pub(super) fn policy_ref(document: &Document, namespaced: bool, problems: &mut Problems) -> ObjectRef {
    let name = document.name.clone().unwrap_or_else(|| {
        let message = format!("{document} has no metadata.name");
        problems.add(document.at.clone(), message, "give it a name: two policies may not share one");
        Arc::from("")
    });
    let namespace = if namespaced {
        Some(document.namespace.clone().unwrap_or_else(|| Arc::from("default")))
    } else {
        if let Some(namespace) = &document.namespace {
            let message =
                format!("{} is cluster-wide, and has metadata.namespace {namespace:?}", document.kind);
            problems.add(document.at.clone(), message, "remove the namespace");
        }
        None
    };
    ObjectRef { group: document.group().into(), kind: Arc::clone(&document.kind), namespace, name }
}

/// A block of addresses. Bits beyond its prefix are ignored, as by the API server and by every engine.
pub(super) fn cidr(field: &Field<'_>, problems: &mut Problems) -> Option<Cidr> {
    let text = problems.keep(field.string())?;
    match Cidr::parse_loose(text) {
        Ok(block) => Some(block),
        Err(error) => {
            let message = format!("{}: {error}", field.path());
            problems.add(field.at(), message, "a block is an address, `/` and the length of its prefix");
            None
        }
    }
}
