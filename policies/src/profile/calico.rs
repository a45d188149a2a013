//! Calico.

use super::{Answer, Fact, Version};
use crate::truth::Truth;

/// Oldest and newest version known.
pub(super) const VERSIONS: (Version, Version) = (Version(3, 26), Version(3, 32));

/// What verdicts rest on.
pub(super) const ASSUMPTIONS: &[&str] = &[];

/// What it does.
pub(super) fn fact(version: Version, fact: Fact<'_>) -> Answer {
    let _ = (version, fact);
    Answer { truth: Truth::Unknown, why: "not looked up yet" }
}
