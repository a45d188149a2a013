//! Versions of objects that were seen and found right: what has not changed since is not read again.

use crate::desired::Kind;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most objects that are remembered, some 100 bytes each. Beyond it they are read again each time.
const MOST: usize = 200_000;

type Key = (Kind, String, String);

/// What is known of the versions of objects.
#[derive(Debug, Default)]
pub struct Versions {
    objects: Mutex<HashMap<Key, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The newest version that a watch, or an answer to our own request, told of.
    newest: String,
    /// The version that was found right, and what was wanted then.
    right: Option<(String, String)>,
}

/// A version of an object as a watch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its resource version; empty once it is deleted.
    pub version: String,
}

impl Versions {
    /// A watch told of a version. Whether that is news: what we wrote ourselves is not.
    pub fn saw(&self, seen: Seen) -> bool {
        let mut objects = self.lock();
        let key = (seen.kind, seen.namespace, seen.name);
        if seen.version.is_empty() {
            objects.remove(&key);
            return true;
        }
        if objects.len() >= MOST && !objects.contains_key(&key) {
            return true;
        }
        let entry = objects.entry(key).or_default();
        let is_own = entry.right.as_ref().is_some_and(|(version, _)| *version == seen.version);
        entry.newest = seen.version;
        !is_own
    }

    /// An object was found right, or made so, at this version.
    pub fn is_right(&self, (kind, namespace, name): (Kind, &str, &str), version: &str, digest: &str) {
        let mut objects = self.lock();
        let key = (kind, namespace.to_owned(), name.to_owned());
        if objects.len() < MOST || objects.contains_key(&key) {
            let right = Some((version.to_owned(), digest.to_owned()));
            objects.insert(key, Entry { newest: version.to_owned(), right });
        }
    }

    /// Whether nothing has happened to an object since it was found right, and the same is still wanted.
    pub fn still_right(&self, (kind, namespace, name): (Kind, &str, &str), digest: &str) -> bool {
        let objects = self.lock();
        objects.get(&(kind, namespace.to_owned(), name.to_owned())).is_some_and(|entry| {
            entry.right.as_ref().is_some_and(|(version, wanted)| *version == entry.newest && wanted == digest)
        })
    }

    /// Forgets a kind, because nobody watches it any more.
    pub fn forget(&self, kind: Kind) {
        self.lock().retain(|(other, _, _), _| *other != kind);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_right_until_a_watch_tells_of_another_version_or_something_else_is_wanted() {
        let versions = Versions::default();
        let key = (Kind::Deployment, "media", "cpu-worker");
        let saw = |version: &str| {
            versions.saw(Seen {
                kind: Kind::Deployment,
                namespace: "media".into(),
                name: "cpu-worker".into(),
                version: version.into(),
            })
        };
        assert!(!versions.still_right(key, "d"));
        versions.is_right(key, "5", "d");
        assert!(versions.still_right(key, "d"));
        assert!(!versions.still_right(key, "other"));
        assert!(!saw("5"), "our own write is no news");
        assert!(saw("6"));
        assert!(!versions.still_right(key, "d"));
        versions.is_right(key, "6", "d");
        assert!(versions.still_right(key, "d"));
        assert!(saw(""));
        assert!(!versions.still_right(key, "d"), "it is gone");
        versions.is_right(key, "7", "d");
        versions.forget(Kind::Deployment);
        assert!(!versions.still_right(key, "d"), "nobody watches");
    }
}
