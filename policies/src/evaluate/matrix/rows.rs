//! One subject's side towards many peers: the same steps as for one pair, a rule at a time over all peers that it is about.

use super::answers::{AnswerId, Answers, BothAnswers};
use super::order::Group;
use crate::evaluate::bits::Bits;
use crate::evaluate::core::{Core, Lowered};
use crate::evaluate::endpoints::Shape;
use crate::evaluate::run::of_stage;
use crate::evaluate::side::{ALLOWED, Change, OutcomeId, START, Sides, StateId};
use crate::evaluate::stages::{CompiledRule, side};
use crate::evaluate::traffic_table::{ALL, NONE};
use crate::policy::{Action, Direction};
use crate::truth::Truth;
use std::ops::Range;

/// Peers of one direction, by position.
pub(super) struct Facing {
    direction: Direction,
    peers: Vec<usize>,
    /// By number of a selection, the peers that it has; none where no rule of the direction asks for it.
    seen: Vec<Option<Seen>>,
    /// Tables of port names of the peers.
    names: Vec<u32>,
    tables: usize,
    /// Which peers are on their node's network.
    on_host: Vec<bool>,
    /// A peer that is, and one that is not, where there are.
    a_host_pod: Option<usize>,
    a_pod: Option<usize>,
}

struct Seen {
    may: Bits,
    /// Where it is not the same.
    must: Option<Bits>,
    /// Whether it has every peer, surely.
    all: bool,
}

impl Facing {
    pub(super) fn new(core: &Core, direction: Direction, peers: Vec<usize>) -> Self {
        let mut position = vec![usize::MAX; core.shapes.len()];
        for (at, peer) in peers.iter().enumerate() {
            if let Some(slot) = position.get_mut(*peer) {
                *slot = at;
            }
        }
        let mut seen: Vec<Option<Seen>> = core.selections.iter().map(|_| None).collect();
        let moved = |bits: &Bits| {
            let mut moved = Bits::empty(peers.len());
            // Those that are no peer have no position, which is beyond the bound.
            bits.iter().filter_map(|i| position.get(i)).for_each(|at| moved.set(*at));
            moved
        };
        for step in core.stages.iter().flat_map(|stage| stage.bands.iter().flatten()) {
            for rule in step.rules.get(side(direction)).into_iter().flatten() {
                let Ok(number) = usize::try_from(rule.peer) else { continue };
                let (Some(tri), Some(slot)) = (core.selections.get(number), seen.get_mut(number)) else {
                    continue;
                };
                if slot.is_none() {
                    let may = moved(&tri.may);
                    let must = (tri.must != tri.may).then(|| moved(&tri.must));
                    let all = must.is_none() && may.count() == peers.len();
                    *slot = Some(Seen { may, must, all });
                }
            }
        }
        let names: Vec<u32> =
            peers.iter().map(|peer| core.port_names.get(*peer).copied().unwrap_or_default()).collect();
        let tables = names.iter().max().map_or(1, |last| index(*last).saturating_add(1));
        let is_host = |peer: &usize| core.shapes.get(*peer) == Some(&Shape::HostPod);
        let on_host = peers.iter().map(is_host).collect();
        let a_host_pod = peers.iter().copied().find(is_host);
        let a_pod = peers.iter().copied().find(|peer| !is_host(peer));
        Self { direction, peers, seen, names, tables, on_host, a_host_pod, a_pod }
    }
}

/// Makes rows, and keeps the numbers that they are made of.
pub(super) struct Rows<'c> {
    core: &'c Core,
    pub(super) sides: Sides,
    pub(super) answers: BothAnswers,
    /// Steps that were taken for a peer.
    pub(super) steps: u64,
    /// The states of the row at hand, by their numbers in it.
    states: Vec<StateId>,
    /// By state, the row that it is in and its number there.
    known: Vec<(u32, u32)>,
    row: u32,
    /// The state of each peer, by its number in the row.
    codes: Vec<u32>,
    remap: Vec<u32>,
    /// Where rows behind this one go on, by how many steps were taken, ascending; those from `used` on are kept for their memory.
    kept: Vec<Kept>,
    used: usize,
}

/// A row after some of its steps.
#[derive(Default)]
struct Kept {
    steps: usize,
    states: Vec<StateId>,
    codes: Vec<u32>,
}

impl<'c> Rows<'c> {
    pub(super) fn new(core: &'c Core) -> Self {
        Self {
            core,
            sides: core.sides(),
            answers: BothAnswers::default(),
            steps: 0,
            states: Vec::new(),
            known: Vec::new(),
            row: 0,
            codes: Vec::new(),
            remap: Vec::new(),
            kept: Vec::new(),
            used: 0,
        }
    }

    /// The next row has other peers than the last one: nothing is shared.
    pub(super) fn start(&mut self) {
        self.used = 0;
    }

    /// A group's answers towards the peers at these positions, in their order, each as `shown`. Rows of the same peers that are made
    /// in the order of their groups share steps; [`Rows::start`] comes before the first of them.
    pub(super) fn row(
        &mut self,
        facing: &Facing,
        group: &Group,
        at: Range<usize>,
        out: &mut [u32],
        mut shown: impl FnMut(&Answers, AnswerId) -> u32,
    ) {
        let direction = facing.direction;
        if self.core.source_groups == 1 {
            self.outcomes(facing, group, at, 0, out, |rows, outcome| {
                let answers = rows.answers.of(direction);
                let number = answers.number(&[outcome], &rows.sides);
                shown(answers, number)
            });
            return;
        }
        let mut groups = vec![vec![ALLOWED; at.len()]; self.core.source_groups];
        for (number, outcomes) in groups.iter_mut().enumerate() {
            self.start();
            self.outcomes(facing, group, at.clone(), number, outcomes, |_, outcome| outcome);
        }
        self.start();
        for (i, slot) in out.iter_mut().enumerate() {
            let own: Vec<OutcomeId> = groups.iter().filter_map(|outcomes| outcomes.get(i)).copied().collect();
            let answers = self.answers.of(direction);
            let number = answers.number(&own, &self.sides);
            *slot = shown(answers, number);
        }
    }

    /// Goes on where a row before had taken some of the steps that this one shares with it; how many those are.
    fn resume(&mut self, shared: usize, peers: usize) -> usize {
        let fits = |kept: &Kept| kept.steps <= shared && kept.codes.len() == peers;
        self.used = self.kept.iter().take(self.used).take_while(|kept| fits(kept)).count();
        let last = self.used.checked_sub(1).and_then(|last| self.kept.get(last));
        let Some(Kept { steps, states, codes }) = last else {
            self.codes.clear();
            self.codes.resize(peers, 0);
            self.begin(vec![START]);
            return 0;
        };
        self.codes.clone_from(codes);
        self.states.clone_from(states);
        let steps = *steps;
        self.renumber();
        steps
    }

    /// Keeps the row as it is now.
    fn keep(&mut self, steps: usize) {
        if self.used == self.kept.len() {
            self.kept.push(Kept::default());
        }
        if let Some(kept) = self.kept.get_mut(self.used) {
            kept.steps = steps;
            kept.states.clone_from(&self.states);
            kept.codes.clone_from(&self.codes);
            self.used = self.used.saturating_add(1);
        }
    }

    fn outcomes(
        &mut self,
        facing: &Facing,
        row: &Group,
        at: Range<usize>,
        group: usize,
        out: &mut [u32],
        mut number: impl FnMut(&mut Self, OutcomeId) -> u32,
    ) {
        let core = self.core;
        let direction = facing.direction;
        let subject = row.subject;
        if !core.is_subject(subject) {
            for (slot, peer) in out.iter_mut().zip(facing.peers.get(at).unwrap_or_default()) {
                let outcome = core.side(&mut self.sides, direction, subject, *peer, group);
                *slot = number(self, outcome);
            }
            return;
        }
        let done = self.resume(row.shared, at.len());
        let mut kept = row.kept.iter().copied().filter(|steps| *steps > done).peekable();
        let mut steps = 0usize;
        let own = side(direction);
        let mut applied = core.applied(own, subject);
        for (number, stage) in core.stages.iter().enumerate() {
            let here;
            (here, applied) = of_stage(applied, number);
            for band in core.acting_first(own, here) {
                steps = steps.saturating_add(band.len());
                if steps <= done {
                    continue;
                }
                let start = (band.len() > 1).then(|| (self.states.clone(), self.codes.clone()));
                let mut united: Option<Vec<StateId>> = None;
                for (entry, step) in band.iter().filter_map(|entry| Some((entry, core.step(*entry)?))) {
                    if let Some((states, codes)) = &start {
                        self.codes.clone_from(codes);
                        self.begin(states.clone());
                    }
                    if step.opaque {
                        self.step_all(Change::Rule { action: Action::Unknown, must: NONE, may: ALL });
                    }
                    for rule in step.rules.get(own).into_iter().flatten() {
                        self.rule(facing, subject, &at, group, rule, entry.selects());
                    }
                    if start.is_some() {
                        let ends = self.codes.iter().map(|code| self.state(*code)).collect::<Vec<_>>();
                        united = Some(match united {
                            None => ends,
                            Some(before) => {
                                let pairs = before.into_iter().zip(ends);
                                pairs.map(|(a, b)| if a == b { a } else { self.sides.unite(a, b) }).collect()
                            }
                        });
                    }
                }
                if let Some(united) = united {
                    self.begin(Vec::new());
                    for (i, state) in united.into_iter().enumerate() {
                        let code = self.code(state);
                        if let Some(slot) = self.codes.get_mut(i) {
                            *slot = code;
                        }
                    }
                }
                if kept.next_if_eq(&steps).is_some() {
                    self.keep(steps);
                }
            }
            if steps < done {
                continue;
            }
            let end = core.stage_end(stage, own, here, &mut self.sides.traffic);
            self.step_all(end);
        }
        self.step_all(Change::Finish);
        // By state, and by whether the peer is on its node's network: exemptions look at nothing else of a pod.
        let [to_pods, to_host] = [facing.a_pod, facing.a_host_pod].map(|peer| {
            let Some(peer) = peer else { return Vec::new() };
            let states = self.states.clone();
            let ends = states.into_iter().map(|state| {
                let outcome = self.sides.end(state);
                let outcome = core.exempted(&mut self.sides, direction, subject, peer, outcome);
                number(self, outcome)
            });
            ends.collect::<Vec<u32>>()
        });
        if to_host.is_empty() {
            for (slot, code) in out.iter_mut().zip(&self.codes) {
                *slot = to_pods.get(index(*code)).copied().unwrap_or(u32::MAX);
            }
            return;
        }
        let on_host = facing.on_host.get(at).unwrap_or_default();
        for ((slot, code), on_host) in out.iter_mut().zip(&self.codes).zip(on_host) {
            let ends = if *on_host { &to_host } else { &to_pods };
            *slot = ends.get(index(*code)).copied().unwrap_or(u32::MAX);
        }
    }

    /// A new numbering of states.
    fn begin(&mut self, states: Vec<StateId>) {
        self.states = states;
        self.renumber();
    }

    fn renumber(&mut self) {
        self.row = self.row.wrapping_add(1);
        if self.row == 0 {
            self.known.clear();
            self.row = 1;
        }
        for (code, state) in (0u32..).zip(&self.states) {
            let at = index(*state);
            if at >= self.known.len() {
                self.known.resize(at.saturating_add(1), (0, 0));
            }
            if let Some(slot) = self.known.get_mut(at) {
                *slot = (self.row, code);
            }
        }
    }

    fn state(&self, code: u32) -> StateId {
        self.states.get(index(code)).copied().unwrap_or(START)
    }

    /// The number of a state in the row.
    fn code(&mut self, state: StateId) -> u32 {
        let at = index(state);
        if at >= self.known.len() {
            self.known.resize(at.saturating_add(1), (0, 0));
        }
        let next = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        match self.known.get_mut(at) {
            Some((row, code)) if *row == self.row => *code,
            Some(slot) => {
                *slot = (self.row, next);
                self.states.push(state);
                next
            }
            None => next,
        }
    }

    /// A step that is the same for every peer.
    fn step_all(&mut self, change: Change) {
        for state in &mut self.states {
            *state = self.sides.step(*state, change);
        }
        self.steps = self.steps.saturating_add(u64::try_from(self.states.len()).unwrap_or(u64::MAX));
        self.renumber();
    }

    /// A rule's steps, for the peers that it is about.
    fn rule(
        &mut self,
        facing: &Facing,
        subject: usize,
        at: &Range<usize>,
        group: usize,
        rule: &CompiledRule,
        selects: Truth,
    ) {
        let core = self.core;
        let Some(seen) = facing.seen.get(index(rule.peer)).and_then(Option::as_ref) else { return };
        let traffic = core.lowered.get(index(rule.traffic));
        let by_peer = facing.direction == Direction::Egress && matches!(traffic, Some(Lowered::ByNames(_)));
        let change = |destination: usize, sure: bool| {
            let (surely, possibly) = core.lowered(rule, destination, group);
            let must = if sure && selects.must() { surely } else { NONE };
            Change::Rule { action: rule.action, must, may: possibly }
        };
        if seen.all && !by_peer {
            // Nobody's names matter, so that any destination will do.
            return self.step_all(change(subject, true));
        }
        if seen.must.is_none() && !by_peer {
            return self.rule_alike(&seen.may, at, change(subject, true));
        }
        // One slot for each state, certainty and table of names.
        let tables = if by_peer { facing.tables } else { 1 };
        let variants = tables.saturating_mul(2);
        let mut remap = std::mem::take(&mut self.remap);
        remap.clear();
        remap.resize(self.states.len().saturating_mul(variants), u32::MAX);
        let mut steps = 0u64;
        for position in seen.may.between(at.start, at.end) {
            let i = position.saturating_sub(at.start);
            let Some(code) = self.codes.get(i).copied() else { continue };
            let sure = seen.must.as_ref().is_none_or(|must| must.has(position));
            let table = if by_peer { facing.names.get(position).map_or(0, |names| index(*names)) } else { 0 };
            let variant = table.saturating_mul(2).saturating_add(usize::from(sure));
            let slot = index(code).saturating_mul(variants).saturating_add(variant);
            steps = steps.saturating_add(1);
            let mut to = remap.get(slot).copied().unwrap_or(u32::MAX);
            if to == u32::MAX {
                let peer = facing.peers.get(position).copied().unwrap_or(usize::MAX);
                let destination = if facing.direction == Direction::Egress { peer } else { subject };
                let state = self.sides.step(self.state(code), change(destination, sure));
                to = self.code(state);
                if let Some(slot) = remap.get_mut(slot) {
                    *slot = to;
                }
            }
            if let Some(code) = self.codes.get_mut(i) {
                *code = to;
            }
        }
        self.remap = remap;
        self.steps = self.steps.saturating_add(steps);
    }

    /// A step that is the same for all the peers that it is about.
    fn rule_alike(&mut self, peers: &Bits, at: &Range<usize>, change: Change) {
        let mut remap = std::mem::take(&mut self.remap);
        remap.clear();
        remap.resize(self.states.len(), u32::MAX);
        let mut codes = std::mem::take(&mut self.codes);
        let mut steps = 0u64;
        for position in peers.between(at.start, at.end) {
            let Some(code) = codes.get_mut(position.wrapping_sub(at.start)) else { continue };
            let Some(to) = remap.get_mut(index(*code)) else { continue };
            if *to == u32::MAX {
                let state = self.sides.step(self.state(*code), change);
                *to = self.code(state);
            }
            *code = *to;
            steps = steps.wrapping_add(1);
        }
        self.codes = codes;
        self.remap = remap;
        self.steps = self.steps.saturating_add(steps);
    }
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
