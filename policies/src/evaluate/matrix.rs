//! All pairs of pods. Pods that nothing tells apart are one class, and what is computed is computed once for each pair of
//! classes; subjects that the same policies select share their side.
//!
//! Nothing of the size of all pairs is kept: destinations are taken in blocks, and each pair of classes goes to a visitor or
//! into a tally at once.

use super::core::Core;
use super::evaluation::Evaluation;
use super::side::{ALLOWED, Change, Join, OutcomeId, START, Sides, StateId, verdict};
use super::stages::side;
use super::traffic_table::{ALL, NONE};
use super::{ClassId, EndpointId, Verdict};
use crate::policy::{Action, Direction};
use crate::truth::Truth;
use std::collections::HashMap;
use std::num::NonZeroUsize;

/// Destination classes in a block: their ingress rows fit a core's cache.
const BLOCK: usize = 512;
/// Outcomes whose joins are kept in a table; more are joined through the map.
const DENSE: usize = 1_024;

/// What passes between all pairs of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ordered pairs of two different pods (and of a template with another pod of its own).
    pub pairs: u64,
    /// Pairs between which some traffic passes.
    pub connected: u64,
    /// Pairs between which nothing passes, and nothing may.
    pub separated: u64,
    /// The rest: something may pass.
    pub unknown: u64,
    /// Classes of pods.
    pub classes: usize,
}

/// All pairs of pods of an evaluation.
pub struct Matrix<'e, 'a> {
    evaluation: &'e Evaluation<'a>,
    /// Pod classes, each with its members' count and one of its members.
    classes: Vec<(ClassId, u64, usize, bool)>,
}

impl<'a> Evaluation<'a> {
    /// All pairs of its pods.
    pub fn matrix(&self) -> Matrix<'_, 'a> {
        let mut classes = Vec::new();
        for (class, members) in self.core.class_members.iter().enumerate() {
            let pods: Vec<EndpointId> = members
                .iter()
                .copied()
                .filter(|id| matches!(self.endpoint(*id), Some(super::Endpoint::Pod(_))))
                .collect();
            if let Some(first) = pods.first() {
                let template = matches!(self.endpoint(*first), Some(super::Endpoint::Pod(i))
                    if self.cluster.pods.get(*i).is_some_and(|pod| pod.is_template));
                let class = ClassId(u32::try_from(class).unwrap_or(u32::MAX));
                classes.push((class, u64::try_from(pods.len()).unwrap_or(u64::MAX), first.index(), template));
            }
        }
        Matrix { evaluation: self, classes }
    }
}

/// A block's worth of work, with what its thread keeps.
struct Worker<'e> {
    core: &'e Core,
    sides: Sides,
    joins: Vec<u32>,
}

impl Matrix<'_, '_> {
    /// How many classes of pods there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The verdict on each pair of classes, with a member of each; of a class with itself, on two different members.
    pub fn for_each(&self, mut visit: impl FnMut(EndpointId, EndpointId, Verdict)) {
        let mut worker = Worker::new(&self.evaluation.core);
        let mut known: HashMap<OutcomeId, Verdict> = HashMap::new();
        for block in self.blocks() {
            worker.block(&self.classes, block, &mut |sides, from, to, outcome| {
                let verdict = known
                    .entry(outcome)
                    .or_insert_with(|| verdict(&sides.traffic, sides.outcome(outcome)))
                    .clone();
                let member = |i: usize| {
                    self.classes
                        .get(i)
                        .map_or(EndpointId::at(usize::MAX), |(_, _, first, _)| EndpointId::at(*first))
                };
                visit(member(from), member(to), verdict);
            });
        }
    }

    /// Counts what passes between all pairs of pods, on all cores.
    pub fn tally(&self) -> Tally {
        let blocks: Vec<std::ops::Range<usize>> = self.blocks().collect();
        let threads =
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(blocks.len().max(1));
        let next = std::sync::atomic::AtomicUsize::new(0);
        let mut total = Tally { classes: self.classes.len(), ..Tally::default() };
        let parts: Vec<Tally> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::new(&self.evaluation.core);
                        let mut part = Tally::default();
                        while let Some(block) =
                            blocks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).cloned()
                        {
                            worker.tally(&self.classes, block, &mut part);
                        }
                        part
                    })
                })
                .collect();
            handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
        });
        for part in parts {
            total.pairs = total.pairs.saturating_add(part.pairs);
            total.connected = total.connected.saturating_add(part.connected);
            total.separated = total.separated.saturating_add(part.separated);
            total.unknown = total.unknown.saturating_add(part.unknown);
        }
        total
    }

    fn blocks(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let len = self.classes.len();
        (0..len).step_by(BLOCK).map(move |first| first..first.saturating_add(BLOCK).min(len))
    }
}

type Class = (ClassId, u64, usize, bool);

impl<'e> Worker<'e> {
    fn new(core: &'e Core) -> Self {
        Self { core, sides: core.sides(), joins: vec![u32::MAX; DENSE.saturating_mul(DENSE)] }
    }

    fn tally(&mut self, classes: &[Class], block: std::ops::Range<usize>, part: &mut Tally) {
        // Counted by outcome, and looked at once for each.
        let mut counts: Vec<u64> = Vec::new();
        self.block(classes, block, &mut |_, from, to, outcome| {
            let (Some((_, many, _, template)), Some((_, others, _, _))) =
                (classes.get(from), classes.get(to))
            else {
                return;
            };
            // A template stands for several pods, any other pod for itself.
            let pairs = match (from == to, template) {
                (true, false) => many.saturating_mul(others.saturating_sub(1)),
                _ => many.saturating_mul(*others),
            };
            let at = usize::try_from(outcome).unwrap_or(usize::MAX);
            if at >= counts.len() {
                counts.resize(at.saturating_add(1), 0);
            }
            if let Some(count) = counts.get_mut(at) {
                *count = count.saturating_add(pairs);
            }
        });
        for (outcome, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let outcome = self.sides.outcome(u32::try_from(outcome).unwrap_or(u32::MAX));
            part.pairs = part.pairs.saturating_add(count);
            let slot = match (outcome.allowed != NONE, outcome.unknown != NONE) {
                (true, _) => &mut part.connected,
                (false, true) => &mut part.unknown,
                (false, false) => &mut part.separated,
            };
            *slot = slot.saturating_add(count);
        }
    }

    /// Visits every pair of classes whose destination is in the block.
    fn block(
        &mut self,
        classes: &[Class],
        block: std::ops::Range<usize>,
        visit: &mut dyn FnMut(&Sides, usize, usize, OutcomeId),
    ) {
        let core = self.core;
        let members: Vec<usize> = classes.iter().map(|(_, _, first, _)| *first).collect();
        let targets = members.get(block.clone()).unwrap_or_default();
        let width = targets.len();
        // Ingress of each destination of the block from every source, a source's entries side by side.
        let groups = core.source_groups;
        let mut ingress = vec![ALLOWED; members.len().saturating_mul(width).saturating_mul(groups)];
        let mut rows: HashMap<Vec<(u32, bool)>, usize> = HashMap::new();
        for group in 0..groups {
            rows.clear();
            for (column, target) in targets.iter().enumerate() {
                // Destinations that the same policies select, with the same port names, have the same row.
                let mut key = core.selecting(Direction::Ingress, *target);
                key.push((
                    core.port_names.get(*target).copied().unwrap_or_default(),
                    core.is_subject(*target),
                ));
                let at = |source: usize, column: usize| {
                    group
                        .saturating_mul(members.len())
                        .saturating_add(source)
                        .saturating_mul(width)
                        .saturating_add(column)
                };
                if let Some(twin) = rows.get(&key) {
                    for source in 0..members.len() {
                        let same = ingress.get(at(source, *twin)).copied().unwrap_or(ALLOWED);
                        if let Some(slot) = ingress.get_mut(at(source, column)) {
                            *slot = same;
                        }
                    }
                    continue;
                }
                let row = self.row(Direction::Ingress, *target, &members, group);
                for (source, outcome) in row.into_iter().enumerate() {
                    if let Some(slot) = ingress.get_mut(at(source, column)) {
                        *slot = outcome;
                    }
                }
                rows.insert(key, column);
            }
        }
        let mut known: HashMap<Vec<(u32, bool)>, Vec<OutcomeId>> = HashMap::new();
        for (from, source) in members.iter().enumerate() {
            let mut key = core.selecting(Direction::Egress, *source);
            key.push((u32::MAX, core.is_subject(*source)));
            if !known.contains_key(&key) {
                // Sources of one group often stand together; keeping a few rows is enough.
                if known.len() >= 4_096 {
                    known.clear();
                }
                let mut row = Vec::with_capacity(width.saturating_mul(groups));
                for group in 0..groups {
                    row.extend(self.row(Direction::Egress, *source, targets, group));
                }
                known.insert(key.clone(), row);
            }
            let Some(egress) = known.get(&key) else { continue };
            if groups == 1 {
                let first = from.saturating_mul(width);
                let ingress = ingress.get(first..first.saturating_add(width)).unwrap_or_default();
                for (column, (out, into)) in egress.iter().zip(ingress).enumerate() {
                    let outcome = join(&mut self.sides, &mut self.joins, *out, *into);
                    visit(&self.sides, from, block.start.saturating_add(column), outcome);
                }
                continue;
            }
            for column in 0..width {
                let mut joined = None;
                for group in 0..groups {
                    let out = egress.get(group.saturating_mul(width).saturating_add(column)).copied();
                    let at = group
                        .saturating_mul(members.len())
                        .saturating_add(from)
                        .saturating_mul(width)
                        .saturating_add(column);
                    let into = ingress.get(at).copied();
                    let both = join(
                        &mut self.sides,
                        &mut self.joins,
                        out.unwrap_or(ALLOWED),
                        into.unwrap_or(ALLOWED),
                    );
                    joined = Some(match joined {
                        None => both,
                        Some(before) => self.sides.join(Join::Pick, before, both),
                    });
                }
                let outcome = joined.unwrap_or(ALLOWED);
                visit(&self.sides, from, block.start.saturating_add(column), outcome);
            }
        }
    }

    /// One subject's side towards many peers: the same steps as for one pair, rule by rule over all peers at once.
    fn row(&mut self, direction: Direction, subject: usize, peers: &[usize], group: usize) -> Vec<OutcomeId> {
        let core = self.core;
        if !core.is_subject(subject) {
            return peers
                .iter()
                .map(|peer| core.side(&mut self.sides, direction, subject, *peer, group))
                .collect();
        }
        let at = side(direction);
        let mut states: Vec<StateId> = vec![START; peers.len()];
        for stage in &core.stages {
            for band in &stage.bands {
                let mut united: Option<Vec<StateId>> = None;
                let alone = band.len() == 1;
                let start = if alone { Vec::new() } else { states.clone() };
                for step in band {
                    let selects = step.enforced.and(core.selected(step.subject, subject));
                    let mut own = if alone { std::mem::take(&mut states) } else { start.clone() };
                    if selects.may() {
                        if step.opaque {
                            let change = Change::Rule { action: Action::Unknown, must: NONE, may: ALL };
                            self.step_all(&mut own, |_| Some(change));
                        }
                        for rule in step.rules.get(at).into_iter().flatten() {
                            let selection = usize::try_from(rule.peer).unwrap_or(usize::MAX);
                            let Some(tri) = core.selections.get(selection) else { continue };
                            self.step_all(&mut own, |i| {
                                let peer = *peers.get(i)?;
                                let matches = selects.and(tri.get(peer));
                                if !matches.may() {
                                    return None;
                                }
                                let destination = if direction == Direction::Egress { peer } else { subject };
                                let (surely, possibly) = core.lowered(rule, destination, group);
                                let must = if matches.must() { surely } else { NONE };
                                Some(Change::Rule { action: rule.action, must, may: possibly })
                            });
                        }
                    }
                    if alone {
                        states = own;
                    } else {
                        united = Some(match united {
                            None => own,
                            Some(before) => before
                                .into_iter()
                                .zip(own)
                                .map(|(a, b)| if a == b { a } else { self.sides.unite(a, b) })
                                .collect(),
                        });
                    }
                }
                if let Some(united) = united {
                    states = united;
                }
            }
            let mut selects =
                |step: &super::stages::Step| step.enforced.and(core.selected(step.subject, subject));
            let end = core.stage_end(stage, at, &mut selects, &mut self.sides.traffic);
            self.step_all(&mut states, |_| Some(end));
        }
        self.step_all(&mut states, |_| Some(Change::Finish));
        states
            .into_iter()
            .zip(peers)
            .map(|(state, peer)| {
                let outcome = self.sides.end(state);
                core.exempted(&mut self.sides, direction, subject, *peer, outcome)
            })
            .collect()
    }

    /// Takes a step for each peer. Neighbours mostly take the same one from the same state, which is then looked up once.
    fn step_all(&mut self, states: &mut [StateId], change: impl Fn(usize) -> Option<Change>) {
        let mut last: Option<(StateId, Change, StateId)> = None;
        for (i, state) in states.iter_mut().enumerate() {
            let Some(change) = change(i) else { continue };
            match last {
                Some((from, same, to)) if from == *state && same == change => *state = to,
                _ => {
                    let to = self.sides.step(*state, change);
                    last = Some((*state, change, to));
                    *state = to;
                }
            }
        }
    }
}

/// Joins two sides through a table that is filled as it is used.
fn join(sides: &mut Sides, joins: &mut [u32], a: OutcomeId, b: OutcomeId) -> OutcomeId {
    let at = |n: OutcomeId| usize::try_from(n).unwrap_or(usize::MAX);
    let (x, y) = (at(a), at(b));
    if x >= DENSE || y >= DENSE {
        return sides.join(Join::Both, a, b);
    }
    let slot = x.saturating_mul(DENSE).saturating_add(y);
    match joins.get(slot) {
        Some(known) if *known != u32::MAX => *known,
        _ => {
            let joined = sides.join(Join::Both, a, b);
            if let Some(slot) = joins.get_mut(slot) {
                *slot = joined;
            }
            joined
        }
    }
}

impl Core {
    /// The policies that select a subject and say something of a direction, with whether they surely do.
    fn selecting(&self, direction: Direction, subject: usize) -> Vec<(u32, bool)> {
        let at = side(direction);
        let mut found = Vec::new();
        for step in self.stages.iter().flat_map(|stage| stage.bands.iter().flatten()) {
            let says = step.opaque
                || step.rules.get(at).is_some_and(|rules| !rules.is_empty())
                || step.has_section.get(at) == Some(&true);
            if !says {
                continue;
            }
            let selects = step.enforced.and(self.selected(step.subject, subject));
            if selects != Truth::No {
                found.push((u32::try_from(step.policy).unwrap_or(u32::MAX), selects.must()));
            }
        }
        found
    }
}
