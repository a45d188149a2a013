//! One subject and one peer through all stages.

use super::Effect;
use super::applied::Applied;
use super::core::Core;
use super::explanation::Recorder;
use super::side::{Change, START, Sides, StateId};
use super::stages::{End, Stage, Step, side};
use super::traffic_table::{ALL, NONE, TrafficTable};
use crate::policy::{Action, Direction};
use crate::truth::Truth;

impl Core {
    /// The end of a stage for a subject that these steps of it select: certain and possible denials of what is undecided.
    pub(super) fn stage_end(
        &self,
        stage: &Stage,
        side: usize,
        applied: &[Applied],
        table: &mut TrafficTable,
    ) -> Change {
        let (mut must, mut may) = (NONE, NONE);
        for (entry, step) in applied.iter().filter_map(|entry| Some((entry, self.step(*entry)?))) {
            let applies = ends(stage, side, step).and(entry.selects());
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
        let mut applied = self.applied(at, subject);
        let mut state = START;
        for (number, stage) in self.stages.iter().enumerate() {
            let own;
            (own, applied) = of_stage(applied, number);
            for band in own.chunk_by(|a, b| a.band == b.band) {
                let start = state;
                let mut united = None;
                let mut members = Vec::new();
                for (entry, step) in band.iter().filter_map(|entry| Some((entry, self.step(*entry)?))) {
                    let selects = entry.selects();
                    let mut own = start;
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
                        own =
                            self.take(sides, own, change, recorder, (number, step.policy, Some(rule.index)));
                    }
                    if own != start {
                        members.push(step.policy);
                    }
                    united = Some(match united {
                        None => own,
                        Some(before) => sides.unite(before, own),
                    });
                }
                state = united.unwrap_or(start);
                if let Some(recorder) = recorder.as_deref_mut()
                    && members.len() > 1
                    && sides.torn(state) != sides.torn(start)
                {
                    recorder.ties.push(members);
                }
            }
            let end = self.stage_end(stage, at, own, &mut sides.traffic);
            if let (Some(recorder), Change::End { must, may }) = (recorder.as_deref_mut(), end) {
                let enders = own.iter().filter_map(|entry| Some((entry, self.step(*entry)?)));
                let (mut isolating, mut doubtful): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
                for (entry, step) in enders.filter(|(_, step)| ends(stage, at, step).may()) {
                    if entry.selects().must() { &mut isolating } else { &mut doubtful }.push(step.policy);
                }
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
                    recorder.half_stopped.push(unsure);
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

/// Whether a step, where it selects, denies what its stage leaves undecided.
fn ends(stage: &Stage, side: usize, step: &Step) -> Truth {
    match stage.end {
        End::Next => Truth::No,
        End::Isolation => step.isolates.get(side).copied().unwrap_or(Truth::No),
        End::DenyWhereApplied => Truth::from(step.has_section.get(side) == Some(&true)),
    }
}

/// Those of a stage, from the front of all that are left, and the rest.
pub(super) fn of_stage(applied: &[Applied], stage: usize) -> (&[Applied], &[Applied]) {
    let many = applied.iter().take_while(|entry| usize::try_from(entry.stage) == Ok(stage)).count();
    applied.split_at_checked(many).unwrap_or_default()
}
