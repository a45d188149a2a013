//! Any conforming implementation.

use super::{Answer, Fact, Version};
use crate::truth::Truth;

/// Oldest and newest version known.
pub(super) const VERSIONS: (Version, Version) = (Version(1, 25), Version(1, 35));

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[];

/// What it does.
pub(super) fn fact(version: Version, fact: Fact<'_>) -> Answer {
    let _ = (version, fact);
    Answer { truth: Truth::Unknown, why: "not looked up yet" }
}
