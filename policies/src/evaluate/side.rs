//! One side of a pair, the source's egress or the destination's ingress, as a state that steps change.
//!
//! A state says of each packet how it may stand: allowed, denied, passed to the next stage, still undecided. Packets start
//! undecided. What is not known leaves a packet standing in several ways at once, so that a state covers every cluster that
//! the input may describe.

use super::Verdict;
use super::traffic_table::{ALL, NONE, TrafficId, TrafficTable};
use crate::policy::Action;
use rustc_hash::FxHashMap;

/// The number of a state.
pub(super) type StateId = u32;

/// How packets may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// What may be allowed by now.
    pub(super) allowed: TrafficId,
    /// What may be denied by now.
    pub(super) denied: TrafficId,
    /// What may have been passed to the next stage.
    pub(super) passed: TrafficId,
    /// What may be undecided.
    pub(super) rest: TrafficId,
}

/// What a step does to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// A rule that certainly matches `must` and possibly `may`.
    Rule {
        /// Its action.
        action: Action,
        /// Certain matches.
        must: TrafficId,
        /// Possible ones.
        may: TrafficId,
    },
    /// The end of a stage: what is undecided is denied, certainly for `must` and possibly for `may`; the rest goes on together
    /// with what was passed.
    End {
        /// Certain denials.
        must: TrafficId,
        /// Possible ones.
        may: TrafficId,
    },
    /// After the last stage: what is undecided is allowed.
    Finish,
}

/// The number of an outcome.
pub(super) type OutcomeId = u32;

/// What comes out of a side, or of a pair. The three add up to all traffic and share nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Outcome {
    pub(super) allowed: TrafficId,
    pub(super) denied: TrafficId,
    pub(super) unknown: TrafficId,
}

/// Everything is allowed.
pub(super) const ALLOWED: OutcomeId = 0;
/// Everything is unknown.
pub(super) const UNKNOWN: OutcomeId = 1;
/// All packets are undecided.
pub(super) const START: StateId = 0;

/// How two outcomes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Join {
    /// A packet must get through both: two sides of a pair.
    Both,
    /// The sender picks: address families and source ports.
    Pick,
    /// It is one of the two, which is not known.
    Either,
}

/// States and outcomes by number, and every step between them that was ever taken.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    pub(super) traffic: TrafficTable,
    states: Vec<State>,
    state_ids: FxHashMap<State, StateId>,
    changes: FxHashMap<(StateId, Change), StateId>,
    outcomes: Vec<Outcome>,
    outcome_ids: FxHashMap<Outcome, OutcomeId>,
    ends: FxHashMap<StateId, OutcomeId>,
    joins: FxHashMap<(Join, OutcomeId, OutcomeId), OutcomeId>,
}

impl Sides {
    pub(super) fn new() -> Self {
        let mut sides = Self {
            traffic: TrafficTable::new(),
            states: Vec::new(),
            state_ids: FxHashMap::default(),
            changes: FxHashMap::default(),
            outcomes: Vec::new(),
            outcome_ids: FxHashMap::default(),
            ends: FxHashMap::default(),
            joins: FxHashMap::default(),
        };
        sides.state_id(State { allowed: NONE, denied: NONE, passed: NONE, rest: ALL });
        sides.outcome_id(Outcome { allowed: ALL, denied: NONE, unknown: NONE });
        sides.outcome_id(Outcome { allowed: NONE, denied: NONE, unknown: ALL });
        sides
    }

    pub(super) fn state(&self, id: StateId) -> State {
        let nothing = State { allowed: NONE, denied: NONE, passed: NONE, rest: NONE };
        self.states.get(usize::try_from(id).unwrap_or(usize::MAX)).copied().unwrap_or(nothing)
    }

    pub(super) fn outcome(&self, id: OutcomeId) -> Outcome {
        let unknown = Outcome { allowed: NONE, denied: NONE, unknown: ALL };
        self.outcomes.get(usize::try_from(id).unwrap_or(usize::MAX)).copied().unwrap_or(unknown)
    }

    fn state_id(&mut self, state: State) -> StateId {
        let states = &mut self.states;
        *self.state_ids.entry(state).or_insert_with(|| {
            states.push(state);
            u32::try_from(states.len().saturating_sub(1)).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn outcome_id(&mut self, outcome: Outcome) -> OutcomeId {
        let outcomes = &mut self.outcomes;
        *self.outcome_ids.entry(outcome).or_insert_with(|| {
            outcomes.push(outcome);
            u32::try_from(outcomes.len().saturating_sub(1)).unwrap_or(u32::MAX)
        })
    }

    /// The state after a step.
    pub(super) fn step(&mut self, from: StateId, change: Change) -> StateId {
        if let Some(to) = self.changes.get(&(from, change)) {
            return *to;
        }
        let mut state = self.state(from);
        let table = &mut self.traffic;
        match change {
            Change::Rule { action, must, may } => {
                let hit = table.intersection(state.rest, may);
                if matches!(action, Action::Allow | Action::Unknown) {
                    state.allowed = table.union(state.allowed, hit);
                }
                if matches!(action, Action::Deny | Action::Unknown) {
                    state.denied = table.union(state.denied, hit);
                }
                if matches!(action, Action::Pass | Action::Unknown) {
                    state.passed = table.union(state.passed, hit);
                }
                if action != Action::Unknown {
                    state.rest = table.difference(state.rest, must);
                }
            }
            Change::End { must, may } => {
                let hit = table.intersection(state.rest, may);
                state.denied = table.union(state.denied, hit);
                let left = table.difference(state.rest, must);
                state.rest = table.union(left, state.passed);
                state.passed = NONE;
            }
            Change::Finish => {
                state.allowed = table.union(state.allowed, state.rest);
                state.rest = NONE;
            }
        }
        let to = self.state_id(state);
        self.changes.insert((from, change), to);
        to
    }

    /// What policies that have no order among them make of a state, from what each makes of it alone. A packet is still
    /// undecided only if it may be under every one of them.
    pub(super) fn unite(&mut self, a: StateId, b: StateId) -> StateId {
        let (a, b) = (self.state(a), self.state(b));
        let table = &mut self.traffic;
        let united = State {
            allowed: table.union(a.allowed, b.allowed),
            denied: table.union(a.denied, b.denied),
            passed: table.union(a.passed, b.passed),
            rest: table.intersection(a.rest, b.rest),
        };
        self.state_id(united)
    }

    /// What may stand in more than one of the ways that decide.
    pub(super) fn torn(&mut self, state: StateId) -> TrafficId {
        let State { allowed, denied, passed, .. } = self.state(state);
        let table = &mut self.traffic;
        let decided = table.intersection(allowed, denied);
        let either = table.union(allowed, denied);
        let handed_on = table.intersection(either, passed);
        table.union(decided, handed_on)
    }

    /// The outcome of a state that is finished.
    pub(super) fn end(&mut self, state: StateId) -> OutcomeId {
        if let Some(outcome) = self.ends.get(&state) {
            return *outcome;
        }
        let State { allowed, denied, .. } = self.state(state);
        let outcome = Outcome {
            allowed: self.traffic.difference(allowed, denied),
            denied: self.traffic.difference(denied, allowed),
            unknown: self.traffic.intersection(allowed, denied),
        };
        let id = self.outcome_id(outcome);
        self.ends.insert(state, id);
        id
    }

    /// Joins two outcomes.
    pub(super) fn join(&mut self, how: Join, a: OutcomeId, b: OutcomeId) -> OutcomeId {
        if a == b {
            return a;
        }
        let (a, b) = (a.min(b), a.max(b));
        if let Some(id) = self.joins.get(&(how, a, b)) {
            return *id;
        }
        let (left, right) = (self.outcome(a), self.outcome(b));
        let table = &mut self.traffic;
        let allowed = match how {
            Join::Both | Join::Either => table.intersection(left.allowed, right.allowed),
            Join::Pick => table.union(left.allowed, right.allowed),
        };
        let denied = match how {
            Join::Both => table.union(left.denied, right.denied),
            Join::Pick | Join::Either => table.intersection(left.denied, right.denied),
        };
        let decided = table.union(allowed, denied);
        let unknown = table.difference(ALL, decided);
        let id = self.outcome_id(Outcome { allowed, denied, unknown });
        self.joins.insert((how, a, b), id);
        id
    }
}

/// The verdict of an outcome.
pub(super) fn verdict(table: &TrafficTable, outcome: Outcome) -> Verdict {
    Verdict {
        allowed: table.get(outcome.allowed),
        denied: table.get(outcome.denied),
        unknown: table.get(outcome.unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::{PortSet, Protocol, Traffic};

    fn tcp(sides: &mut Sides, port: u16) -> TrafficId {
        sides.traffic.id(Traffic::to(Protocol::Tcp, PortSet::one(port)))
    }

    #[test]
    fn what_is_certain_leaves_the_rest_and_what_is_possible_stays_in_it() {
        let mut sides = Sides::new();
        let (web, both) = (tcp(&mut sides, 80), tcp(&mut sides, 443));
        let both = sides.traffic.union(web, both);
        let after = sides.step(START, Change::Rule { action: Action::Allow, must: web, may: both });
        let after = sides.step(after, Change::End { must: ALL, may: ALL });
        let after = sides.step(after, Change::Finish);
        let end = sides.end(after);
        let outcome = sides.outcome(end);
        assert_eq!(sides.traffic.get(outcome.allowed).to_string(), "TCP 80");
        assert_eq!(sides.traffic.get(outcome.unknown).to_string(), "TCP 443");
        assert_eq!(sides.traffic.get(outcome.denied).to_string(), "all traffic but TCP 80,443");
    }

    #[test]
    fn policies_without_an_order_that_disagree_leave_it_open() {
        let mut sides = Sides::new();
        let web = tcp(&mut sides, 80);
        let allow = sides.step(START, Change::Rule { action: Action::Allow, must: web, may: web });
        let deny = sides.step(START, Change::Rule { action: Action::Deny, must: web, may: web });
        let united = sides.unite(allow, deny);
        let finished = sides.step(united, Change::Finish);
        let end = sides.end(finished);
        assert_eq!(sides.outcome(end).unknown, web);
        assert_eq!(sides.outcome(end).denied, NONE);
    }

    #[test]
    fn what_was_passed_is_undecided_again_in_the_next_stage() {
        let mut sides = Sides::new();
        let web = tcp(&mut sides, 80);
        let state = sides.step(START, Change::Rule { action: Action::Pass, must: web, may: web });
        let state = sides.step(state, Change::End { must: ALL, may: ALL });
        let rest = sides.state(state).rest;
        assert_eq!(rest, web);
    }
}
