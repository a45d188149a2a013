//! One thread's work: blocks of destinations against all sources.

use super::answers::AnswerId;
use super::rows::Rows;
use super::{Matrix, Tally};
use crate::evaluate::side::{Join, OutcomeId, verdict};
use crate::evaluate::{EndpointId, Verdict};
use std::collections::HashMap;
use std::ops::Range;

/// Bytes of the table of kinds, beyond which it is begun anew.
const MOST_KINDS: usize = 32 << 20;

/// Rows that are turned at once.
const TURNED: usize = 16;

/// What is between two pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connected = 0,
    Unknown = 1,
    Separated = 2,
}

/// How many pairs are of each kind.
#[derive(Debug, Default)]
struct Counts {
    connected: u64,
    unknown: u64,
    separated: u64,
}

impl Counts {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Connected => &mut self.connected,
            Kind::Unknown => &mut self.unknown,
            Kind::Separated => &mut self.separated,
        }
    }

    fn add(&mut self, kind: Kind, pairs: u64) {
        let count = self.of(kind);
        *count = count.saturating_add(pairs);
    }

    fn take(&mut self, kind: Kind, pairs: u64) {
        let count = self.of(kind);
        *count = count.saturating_sub(pairs);
    }
}

/// Makes rows and looks at pairs of them.
pub(super) struct Worker<'m, 'e, 'a> {
    matrix: &'m Matrix<'e, 'a>,
    rows: Rows<'m>,
    /// By answer of ingress and answer of egress: what is between, and 255 where that was not asked yet.
    kinds: Vec<Vec<u8>>,
    kept: usize,
}

/// Answers of ingress among the sources of one group, each with the pods behind it.
type Runs = Vec<(AnswerId, u64)>;

/// The destinations of one group against everybody.
struct Column<'w> {
    /// Positions of the destinations.
    destinations: Range<usize>,
    /// Answers of egress: for each of the destinations all groups of sources.
    egress: &'w [AnswerId],
    /// How many groups of sources there are.
    groups: usize,
    /// Answers of ingress, by position of the source.
    ingress: &'w [AnswerId],
    /// Pods behind each of the destinations.
    pods: &'w [u64],
}

impl Column<'_> {
    /// Answers of a group of sources, one for each of the destinations.
    fn egress(&self, source_group: usize) -> impl Iterator<Item = AnswerId> + '_ {
        self.egress.iter().skip(source_group).step_by(self.groups).copied()
    }
}

impl<'m, 'e, 'a> Worker<'m, 'e, 'a> {
    pub(super) fn new(matrix: &'m Matrix<'e, 'a>) -> Self {
        Self { matrix, rows: Rows::new(&matrix.evaluation.core), kinds: Vec::new(), kept: 0 }
    }

    pub(super) fn steps(&self) -> u64 {
        self.rows.steps
    }

    /// Makes the rows of a block of groups of destinations, and hands them on group by group.
    fn columns(&mut self, groups: Range<usize>, mut take: impl FnMut(&mut Self, &Column<'_>)) {
        let matrix = self.matrix;
        let groups = matrix.destinations.groups.get(groups).unwrap_or_default();
        let start = groups.first().map_or(0, |group| group.members.start);
        let end = groups.last().map_or(0, |group| group.members.end);
        let width = end.saturating_sub(start);
        let sources = &matrix.sources.groups;
        // Turned, so that what a destination is asked for lies side by side; a few rows at a time, which a cache holds.
        let mut egress: Vec<AnswerId> = vec![0; width.saturating_mul(sources.len())];
        let mut rows: Vec<AnswerId> = vec![0; width.saturating_mul(TURNED)];
        for (strip, some) in sources.chunks(TURNED).enumerate() {
            for (source, row) in some.iter().zip(rows.chunks_mut(width.max(1))) {
                self.rows.row(&matrix.egress, source.subject, start..end, row);
            }
            let first = strip.saturating_mul(TURNED);
            for (column, to) in egress.chunks_mut(sources.len().max(1)).enumerate() {
                let slots = to.get_mut(first..).unwrap_or_default();
                for (slot, answer) in
                    slots.iter_mut().zip(rows.iter().skip(column).step_by(width)).take(some.len())
                {
                    *slot = *answer;
                }
            }
        }
        let mut ingress: Vec<AnswerId> = vec![0; matrix.classes.len()];
        for group in groups {
            self.rows.row(&matrix.ingress, group.subject, 0..matrix.classes.len(), &mut ingress);
            let turned = group.members.start.saturating_sub(start).saturating_mul(sources.len())
                ..group.members.end.saturating_sub(start).saturating_mul(sources.len());
            let column = Column {
                destinations: group.members.clone(),
                egress: egress.get(turned).unwrap_or_default(),
                groups: sources.len(),
                ingress: &ingress,
                pods: matrix.destinations.pods.get(group.members.clone()).unwrap_or_default(),
            };
            take(self, &column);
        }
    }

    /// Counts the pairs of a block.
    pub(super) fn tally(&mut self, block: Range<usize>, part: &mut Tally) {
        let mut counts = Counts::default();
        let mut runs: Runs = Vec::new();
        self.columns(block, |this, column| this.count(column, &mut runs, &mut counts));
        let Counts { connected, unknown, separated } = counts;
        part.connected = part.connected.saturating_add(connected);
        part.unknown = part.unknown.saturating_add(unknown);
        part.separated = part.separated.saturating_add(separated);
        part.pairs = part.pairs.saturating_add(connected).saturating_add(unknown).saturating_add(separated);
    }

    fn count(&mut self, column: &Column<'_>, runs: &mut Runs, counts: &mut Counts) {
        let matrix = self.matrix;
        let sum = |pods: &[u64]| pods.iter().fold(0u64, |sum, pods| sum.saturating_add(*pods));
        let mut own = Counts::default();
        for (number, sources) in matrix.sources.groups.iter().enumerate() {
            let answers = column.ingress.get(sources.members.clone()).unwrap_or_default();
            let pods = matrix.sources.pods.get(sources.members.clone()).unwrap_or_default();
            self.gather(runs, answers, pods);
            if runs.is_empty() {
                continue;
            }
            for (out, many) in column.egress(number).zip(column.pods) {
                if self.rows.answers.egress.is_silent(out) {
                    continue;
                }
                for (into, sum) in runs.iter() {
                    own.add(self.kind(out, *into), sum.saturating_mul(*many));
                }
            }
        }
        counts.add(Kind::Connected, own.connected);
        counts.add(Kind::Unknown, own.unknown);
        // The rest, of which most was not looked at: one side or the other lets nothing pass.
        let pairs = sum(&matrix.sources.pods).saturating_mul(sum(column.pods));
        counts.add(Kind::Separated, pairs.saturating_sub(own.connected).saturating_sub(own.unknown));
        // No pod is its own other end. A template stands for several pods, any other pod for itself.
        for position in column.destinations.clone() {
            let Some(class) = matrix.destinations.classes.get(position).copied() else { continue };
            let (Some(own), Some(source)) = (matrix.classes.get(class), matrix.sources.positions.get(class))
            else {
                continue;
            };
            if own.template {
                continue;
            }
            let group = matrix.sources.groups.partition_point(|group| group.members.end <= *source);
            let out = column.egress(group).nth(position.saturating_sub(column.destinations.start));
            let (Some(out), Some(into)) = (out, column.ingress.get(*source).copied()) else { continue };
            let kind = self.kind(out, into);
            counts.take(kind, own.pods);
        }
    }

    /// Adds up the pods behind equal answers, as far as they stand near each other, and leaves out those that let nothing pass.
    fn gather(&self, runs: &mut Runs, answers: &[AnswerId], pods: &[u64]) {
        runs.clear();
        for (answer, pods) in answers.iter().zip(pods) {
            if self.rows.answers.ingress.is_silent(*answer) {
                continue;
            }
            match runs.iter_mut().rev().take(4).find(|(same, _)| same == answer) {
                Some((_, sum)) => *sum = sum.saturating_add(*pods),
                None => runs.push((*answer, *pods)),
            }
        }
    }

    /// What is between two pods by the answers of both sides.
    fn kind(&mut self, egress: AnswerId, ingress: AnswerId) -> Kind {
        let (out, into) = (index(egress), index(ingress));
        let known = self.kinds.get(into).and_then(|row| row.get(out)).copied();
        match known {
            Some(0) => return Kind::Connected,
            Some(1) => return Kind::Unknown,
            Some(2) => return Kind::Separated,
            _ => {}
        }
        let kind = self.compute(egress, ingress);
        let width = self.rows.answers.egress.len();
        if self.kept > MOST_KINDS {
            self.kinds.clear();
            self.kept = 0;
        }
        if into >= self.kinds.len() {
            self.kinds.resize_with(into.saturating_add(1), Vec::new);
        }
        if let Some(row) = self.kinds.get_mut(into) {
            if row.len() < width {
                self.kept = self.kept.saturating_add(width.saturating_sub(row.len()));
                row.resize(width, u8::MAX);
            }
            if let Some(slot) = row.get_mut(out) {
                *slot = kind as u8;
            }
        }
        kind
    }

    fn compute(&self, egress: AnswerId, ingress: AnswerId) -> Kind {
        let answers = &self.rows.answers;
        let sides = &self.rows.sides;
        let pairs = answers.egress.outcomes(egress).iter().zip(answers.ingress.outcomes(ingress));
        let mut kind = Kind::Separated;
        for (out, into) in pairs {
            let (out, into) = (sides.outcome(*out), sides.outcome(*into));
            let meet = |a, b| sides.traffic.intersects(a, b);
            // The sender has the choice of source ports: one group with traffic that both sides let through is enough.
            if meet(out.allowed, into.allowed) {
                return Kind::Connected;
            }
            if meet(out.allowed, into.unknown)
                || meet(out.unknown, into.allowed)
                || meet(out.unknown, into.unknown)
            {
                kind = Kind::Unknown;
            }
        }
        kind
    }

    /// Hands on the verdict of each pair of classes of a block.
    pub(super) fn visit(
        &mut self,
        block: Range<usize>,
        visit: &mut impl FnMut(EndpointId, EndpointId, Verdict),
    ) {
        let matrix = self.matrix;
        let mut known: HashMap<OutcomeId, Verdict> = HashMap::new();
        let member = |class: Option<&usize>| {
            let class = class.and_then(|class| matrix.classes.get(*class));
            EndpointId::at(class.map_or(usize::MAX, |class| class.first))
        };
        self.columns(block, |this, column| {
            for (number, sources) in matrix.sources.groups.iter().enumerate() {
                for (out, position) in column.egress(number).zip(column.destinations.clone()) {
                    let to = member(matrix.destinations.classes.get(position));
                    for source in sources.members.clone() {
                        let Some(into) = column.ingress.get(source).copied() else { continue };
                        let from = member(matrix.sources.classes.get(source));
                        let Some(outcome) = this.join(out, into) else { continue };
                        let sides = &this.rows.sides;
                        let verdict = known
                            .entry(outcome)
                            .or_insert_with(|| verdict(&sides.traffic, sides.outcome(outcome)));
                        visit(from, to, verdict.clone());
                    }
                }
            }
        });
    }

    fn join(&mut self, egress: AnswerId, ingress: AnswerId) -> Option<OutcomeId> {
        let Rows { sides, answers, .. } = &mut self.rows;
        let pairs = answers.egress.outcomes(egress).iter().zip(answers.ingress.outcomes(ingress));
        pairs.fold(None, |joined, (out, into)| {
            let both = sides.join(Join::Both, *out, *into);
            Some(match joined {
                None => both,
                Some(before) => sides.join(Join::Pick, before, both),
            })
        })
    }
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
