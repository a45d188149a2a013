//! One subject and one peer through all stages.

use super::Effect;
use super::core::Core;
use super::explanation::Recorder;
use super::side::{Change, START, Sides, StateId};
use super::stages::{End, Stage, Step as Compiled, side};
use super::traffic_table::{ALL, NONE, TrafficTable};
use crate::policy::{Action, Direction};
use crate::truth::Truth;

impl Core {
    /// The end of a stage for a subject: certain and possible denials of what is undecided.
    pub(super) fn stage_end(
        &self,
        stage: &Stage,
        side: usize,
        selects: &mut impl FnMut(&Compiled) -> Truth,
        table: &mut TrafficTable,
    ) -> Change {
        let (mut must, mut may) = (NONE, NONE);
        for step in stage.bands.iter().flatten() {
            let applies = match stage.end {
                End::Next => Truth::No,
                End::Isolation => step.isolates.get(side).copied().unwrap_or(Truth::No),
                End::DenyWhereApplied => Truth::from(step.has_section.get(side) == Some(&true)),
            };
            if applies == Truth::No {
                continue;
            }
            let applies = applies.and(selects(step));
            let is_network_policy = self.is_network_policy.get(step.policy) == Some(&true);
            let (surely, possibly) = if is_network_policy { self.network_policy_lanes } else { (ALL, ALL) };
            if applies.must() {
                must = table.union(must, surely);
            }
            if applies.may() {
                may = table.union(may, possibly);
            }
        }
        Change::End { must, may }
    }

    /// Runs all stages for one subject and peer.
    pub(super) fn run(
        &self,
        sides: &mut Sides,
        direction: Direction,
        subject: usize,
        peer: usize,
        group: usize,
        recorder: &mut Option<&mut Recorder>,
    ) -> StateId {
        let at = side(direction);
        let destination = if direction == Direction::Egress { peer } else { subject };
        let mut state = START;
        for (number, stage) in self.stages.iter().enumerate() {
            for band in &stage.bands {
                let start = state;
                let mut united = None;
                for step in band {
                    let selects = step.enforced.and(self.selected(step.subject, subject));
                    let mut own = start;
                    if selects.may() {
                        if step.opaque {
                            let change = Change::Rule { action: Action::Unknown, must: NONE, may: ALL };
                            own = self.take(sides, own, change, recorder, (number, step.policy, None));
                        }
                        for rule in step.rules.get(at).into_iter().flatten() {
                            let matches = selects.and(self.selected(rule.peer, peer));
                            if !matches.may() {
                                continue;
                            }
                            let (surely, possibly) = self.lowered(rule, destination, group);
                            let must = if matches.must() { surely } else { NONE };
                            let change = Change::Rule { action: rule.action, must, may: possibly };
                            own = self.take(
                                sides,
                                own,
                                change,
                                recorder,
                                (number, step.policy, Some(rule.index)),
                            );
                        }
                    }
                    united = Some(match united {
                        None => own,
                        Some(before) => sides.unite(before, own),
                    });
                }
                state = united.unwrap_or(start);
            }
            let mut isolating: Vec<usize> = Vec::new();
            let mut doubtful = Vec::new();
            let mut selects = |step: &Compiled| {
                let truth = step.enforced.and(self.selected(step.subject, subject));
                if truth.must() {
                    isolating.push(step.policy);
                } else if truth.may() {
                    doubtful.push(step.policy);
                }
                truth
            };
            let end = self.stage_end(stage, at, &mut selects, &mut sides.traffic);
            if let (Some(recorder), Change::End { must, may }) = (recorder.as_deref_mut(), end) {
                let rest = sides.state(state).rest;
                let surely = sides.traffic.intersection(rest, must);
                let possibly = sides.traffic.intersection(rest, may);
                let unsure = sides.traffic.difference(possibly, surely);
                for policy in &isolating {
                    recorder.note(Some(number), Some(*policy), None, Effect::DeniesByDefault, surely);
                }
                let first = doubtful.first().or(isolating.first()).copied();
                recorder.note(Some(number), first, None, Effect::Unsure, unsure);
                if unsure != NONE {
                    recorder.doubted.extend(doubtful.into_iter().map(|policy| (policy, None)));
                }
            }
            state = sides.step(state, end);
        }
        if let Some(recorder) = recorder.as_deref_mut() {
            let rest = sides.state(state).rest;
            recorder.note(None, None, None, Effect::AllowsByDefault, rest);
        }
        sides.step(state, Change::Finish)
    }

    fn take(
        &self,
        sides: &mut Sides,
        state: StateId,
        change: Change,
        recorder: &mut Option<&mut Recorder>,
        (stage, policy, rule): (usize, usize, Option<usize>),
    ) -> StateId {
        if let (Some(recorder), Change::Rule { action, must, may }) = (recorder.as_deref_mut(), change) {
            let rest = sides.state(state).rest;
            let surely = sides.traffic.intersection(rest, must);
            let possibly = sides.traffic.intersection(rest, may);
            let unsure = sides.traffic.difference(possibly, surely);
            let effect = match action {
                Action::Allow => Effect::Allows,
                Action::Deny => Effect::Denies,
                Action::Pass => Effect::Passes,
                Action::Unknown => Effect::Unsure,
            };
            recorder.note(Some(stage), Some(policy), rule, effect, surely);
            recorder.note(Some(stage), Some(policy), rule, Effect::Unsure, unsure);
            if unsure != NONE || action == Action::Unknown {
                recorder.doubted.push((policy, rule));
            }
        }
        sides.step(state, change)
    }
}
