//! What a side says of a peer, by number: its outcome for each group of source ports.

use crate::evaluate::side::{OutcomeId, Sides};
use crate::evaluate::traffic_table::NONE;
use crate::policy::Direction;
use std::collections::HashMap;

/// The number of an answer.
pub(super) type AnswerId = u32;

/// Answers of one direction by number, dense from 0.
#[derive(Default)]
pub(super) struct Answers {
    all: Vec<Box<[OutcomeId]>>,
    /// By answer, whether nothing passes, whatever the other side says.
    silent: Vec<bool>,
    /// Where there is one group of source ports: the number by outcome.
    single: Vec<AnswerId>,
    several: HashMap<Box<[OutcomeId]>, AnswerId>,
}

/// Answers of both directions.
#[derive(Default)]
pub(super) struct BothAnswers {
    pub(super) ingress: Answers,
    pub(super) egress: Answers,
}

impl BothAnswers {
    pub(super) fn of(&mut self, direction: Direction) -> &mut Answers {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

impl Answers {
    /// The number of an answer.
    pub(super) fn number(&mut self, outcomes: &[OutcomeId], sides: &Sides) -> AnswerId {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        if let [outcome] = outcomes {
            let at = usize::try_from(*outcome).unwrap_or(usize::MAX);
            if at >= self.single.len() {
                self.single.resize(at.saturating_add(1), u32::MAX);
            }
            let Some(slot) = self.single.get_mut(at) else { return next };
            if *slot == u32::MAX {
                *slot = next;
                self.all.push(outcomes.into());
                self.silent.push(says_no(outcomes, sides));
            }
            return *slot;
        }
        if let Some(number) = self.several.get(outcomes) {
            return *number;
        }
        self.all.push(outcomes.into());
        self.silent.push(says_no(outcomes, sides));
        self.several.insert(outcomes.into(), next);
        next
    }

    /// The outcomes of an answer.
    pub(super) fn outcomes(&self, number: AnswerId) -> &[OutcomeId] {
        self.all.get(usize::try_from(number).unwrap_or(usize::MAX)).map(|all| &**all).unwrap_or_default()
    }

    /// Whether nothing passes, whatever the other side says.
    pub(super) fn is_silent(&self, number: AnswerId) -> bool {
        self.silent.get(usize::try_from(number).unwrap_or(usize::MAX)) == Some(&true)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

fn says_no(outcomes: &[OutcomeId], sides: &Sides) -> bool {
    outcomes.iter().map(|outcome| sides.outcome(*outcome)).all(|o| o.allowed == NONE && o.unknown == NONE)
}
