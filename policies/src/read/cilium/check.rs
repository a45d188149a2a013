//! What is wrong with a policy, in three degrees: the API server refuses it, the agent of any version refuses it, agents
//! refuse it from some version on.

use super::super::problems::Problems;
use crate::matching::Match;
use crate::profile::{CiliumChange, Fact};
use std::sync::Arc;

/// Collects it for one object, which is refused as a whole.
pub(super) struct Check<'p> {
    /// What the schema of the custom resource refuses: such an object is in no cluster.
    pub(super) problems: &'p mut Problems,
    /// Why agents refuse it.
    refused: Option<Arc<str>>,
    /// Which versions refuse it besides.
    unless: Vec<Match>,
}

impl<'p> Check<'p> {
    pub(super) fn new(problems: &'p mut Problems) -> Self {
        Self { problems, refused: None, unless: Vec::new() }
    }

    /// The agent of every version refuses the policy (`Rule.Sanitize`, pkg/policy/api/rule_validation.go).
    pub(super) fn reject(&mut self, why: impl Into<String>) {
        self.refused.get_or_insert_with(|| format!("the agent refuses it: {}", why.into()).into());
    }

    /// Agents that check every section refuse the policy, older ones do not look there.
    pub(super) fn reject_where_checked(&mut self) {
        self.add(Match::Fact(Fact::Cilium(CiliumChange::ChecksEverySection)).negate());
    }

    /// Agents refuse the policy unless this holds for them.
    pub(super) fn reject_unless(&mut self, change: CiliumChange) {
        self.add(Match::Fact(Fact::Cilium(change)));
    }

    fn add(&mut self, condition: Match) {
        if !self.unless.contains(&condition) {
            self.unless.push(condition);
        }
    }

    /// Why no agent takes it, and what must hold of one that does.
    pub(super) fn end(self) -> (Option<Arc<str>>, Vec<Match>) {
        (self.refused, self.unless)
    }
}
