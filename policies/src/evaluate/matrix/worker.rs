//! One thread's work: blocks of destinations against all sources.

use super::answers::{AnswerId, Answers};
use super::rows::Rows;
use super::{Matrix, Tally};
use crate::evaluate::side::{Join, OutcomeId, verdict};
use crate::evaluate::{EndpointId, Verdict};
use std::collections::HashMap;
use std::ops::Range;

/// Bytes of the table of kinds, beyond which it is begun anew.
const MOST_KINDS: usize = 32 << 20;

/// A kind that was not asked for yet.
const UNASKED: u8 = 3;

/// What each kind adds to a sum of three numbers in one: of the pairs that are connected, of those that may be, and of those that were
/// not asked for yet. Each has room for [`AT_ONCE`] pairs.
const WEIGHTS: [u64; 4] = [1, 1 << ROOM, 0, 1 << (2 * ROOM)];
const ROOM: u32 = 16;

/// Pairs that are counted in one such sum: all of them are asked for anew where one was not asked for yet.
const AT_ONCE: usize = 1 << 7;

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
    kinds: Kinds,
    /// Memory for the answers of a block, its rows while they are made, and the answers of ingress of a group: each block is as large
    /// as the one before.
    memory: [Vec<AnswerId>; 3],
}

/// What is between two pods, by the answers of both sides: a row for each answer of ingress that was asked about.
struct Kinds {
    /// Rows side by side. The first is of those who let nothing pass.
    all: Vec<u8>,
    /// How long a row is: all answers of egress have room.
    width: usize,
    /// By answer of ingress, where its row begins; 0 where it has none.
    rows: Vec<u32>,
    /// The answers, row by row.
    answers: Vec<AnswerId>,
}

impl Kinds {
    fn new() -> Self {
        Self { all: Vec::new(), width: 0, rows: Vec::new(), answers: Vec::new() }
    }

    /// Makes room for so many answers of egress, and forgets everything where it has become too much. Where rows begin is another
    /// place afterwards.
    fn make_room(&mut self, egress: usize) {
        let width = self.width.max(egress.next_power_of_two());
        if self.all.len() > MOST_KINDS {
            // In the memory that it has: the kernel would have to clear as much again.
            self.all.clear();
            self.all.resize(width, Kind::Separated as u8);
            self.width = width;
            self.rows.clear();
            self.answers.clear();
            self.answers.push(0);
            return;
        }
        if width == self.width {
            return;
        }
        let mut all = vec![Kind::Separated as u8; width];
        let mut kept: Vec<AnswerId> = vec![0];
        for (answer, row) in self.answers.iter().zip(self.all.chunks(self.width.max(1))).skip(1) {
            if let Some(start) = self.rows.get_mut(index(*answer)) {
                *start = u32::try_from(all.len()).unwrap_or(0);
            }
            all.extend_from_slice(row);
            all.resize(all.len().saturating_add(width.saturating_sub(row.len())), UNASKED);
            kept.push(*answer);
        }
        (self.all, self.width, self.answers) = (all, width, kept);
    }

    /// Where the row of an answer begins, which is made if there is none.
    fn row(&mut self, ingress: AnswerId) -> u32 {
        let at = index(ingress);
        if at >= self.rows.len() {
            self.rows.resize(at.saturating_add(1), 0);
        }
        let Some(start) = self.rows.get_mut(at) else { return 0 };
        if *start == 0 {
            *start = u32::try_from(self.all.len()).unwrap_or(0);
            self.all.resize(self.all.len().saturating_add(self.width), UNASKED);
            self.answers.push(ingress);
        }
        *start
    }

    /// The answer whose row begins there.
    fn answer(&self, row: u32) -> AnswerId {
        let number = index(row).checked_div(self.width).unwrap_or(0);
        self.answers.get(number).copied().unwrap_or_default()
    }
}

/// The destinations of one group against everybody.
struct Column<'w> {
    /// Positions of the destinations.
    destinations: Range<usize>,
    /// Answers of egress: for each of the destinations all groups of sources.
    egress: &'w [AnswerId],
    /// How many groups of sources there are.
    groups: usize,
    /// Answers of ingress, as they are shown, by position of the source.
    ingress: &'w [u32],
    /// Pods behind each of the destinations.
    pods: &'w [u64],
}

impl Column<'_> {
    /// Answers of a group of sources, one for each of the destinations.
    fn egress(&self, source_group: usize) -> impl Iterator<Item = AnswerId> + '_ {
        self.egress.iter().skip(source_group).step_by(self.groups).copied()
    }

    /// For each of the destinations the answers of all groups of sources, and its pods.
    fn by_destination(&self) -> impl Iterator<Item = (&[AnswerId], u64)> {
        self.egress.chunks(self.groups.max(1)).zip(self.pods.iter().copied())
    }
}

impl<'m, 'e, 'a> Worker<'m, 'e, 'a> {
    pub(super) fn new(matrix: &'m Matrix<'e, 'a>) -> Self {
        Self {
            matrix,
            rows: Rows::new(&matrix.evaluation.core),
            kinds: Kinds::new(),
            memory: Default::default(),
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.rows.steps
    }

    /// Makes the rows of a block of groups of destinations, and hands them on group by group. Answers of ingress are handed on as
    /// `shown`.
    fn columns(
        &mut self,
        groups: Range<usize>,
        shown: impl Fn(&mut Kinds, &Answers, AnswerId) -> u32,
        mut take: impl FnMut(&mut Self, &Column<'_>),
    ) {
        let matrix = self.matrix;
        let groups = matrix.destinations.groups.get(groups).unwrap_or_default();
        let start = groups.first().map_or(0, |group| group.members.start);
        let end = groups.last().map_or(0, |group| group.members.end);
        let width = end.saturating_sub(start);
        let sources = &matrix.sources.groups;
        // Turned, so that what a destination is asked for lies side by side; a few rows at a time, which a cache holds.
        let [mut egress, mut rows, mut ingress] = std::mem::take(&mut self.memory);
        // Whatever is in them: all of it is written before it is read.
        egress.resize(width.saturating_mul(sources.len()), 0);
        rows.resize(width.saturating_mul(TURNED), 0);
        ingress.resize(matrix.classes.len(), 0);
        self.rows.start();
        for (strip, some) in sources.chunks(TURNED).enumerate() {
            for (source, row) in some.iter().zip(rows.chunks_mut(width.max(1))) {
                self.rows.row(&matrix.egress, source, start..end, row, |_, answer| answer);
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
        self.rows.start();
        for group in groups {
            self.kinds.make_room(self.rows.answers.egress.len());
            let Self { rows, kinds, .. } = self;
            let everybody = 0..matrix.classes.len();
            rows.row(&matrix.ingress, group, everybody, &mut ingress, |all, answer| {
                shown(kinds, all, answer)
            });
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
        self.memory = [egress, rows, ingress];
    }

    /// Counts the pairs of a block.
    pub(super) fn tally(&mut self, block: Range<usize>, part: &mut Tally) {
        let mut counts = Counts::default();
        let row = |kinds: &mut Kinds, answers: &Answers, answer| {
            if answers.is_silent(answer) { 0 } else { kinds.row(answer) }
        };
        self.columns(block, row, |this, column| this.count(column, &mut counts));
        let Counts { connected, unknown, separated } = counts;
        part.connected = part.connected.saturating_add(connected);
        part.unknown = part.unknown.saturating_add(unknown);
        part.separated = part.separated.saturating_add(separated);
        part.pairs = part.pairs.saturating_add(connected).saturating_add(unknown).saturating_add(separated);
    }

    /// Counts the pairs of a column, whose answers of ingress are rows of kinds.
    fn count(&mut self, column: &Column<'_>, counts: &mut Counts) {
        let matrix = self.matrix;
        let sum = |pods: &[u64]| pods.iter().fold(0u64, |sum, pods| sum.saturating_add(*pods));
        let mut own = Counts::default();
        for (egress, many) in column.by_destination() {
            let (connected, unknown) = self.met(column.ingress, egress);
            own.add(Kind::Connected, connected.saturating_mul(many));
            own.add(Kind::Unknown, unknown.saturating_mul(many));
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

    /// The sources that are connected with a destination, and those of which it is not known. This is the innermost loop: one look
    /// into a table, and no branch but for what was not asked yet.
    fn met(&mut self, rows: &[u32], egress: &[AnswerId]) -> (u64, u64) {
        if self.matrix.sources.is_one_by_one {
            return self.met_one_by_one(rows, egress);
        }
        let (mut connected, mut unknown) = (0u64, 0u64);
        let mut unasked = Vec::new();
        let sources = &self.matrix.sources;
        for ((row, group), pods) in rows.iter().zip(&sources.group_of).zip(&sources.pods) {
            let out = egress.get(index(*group)).copied().unwrap_or_default();
            let kind = self.kinds.all.get(index(row.wrapping_add(out))).copied().unwrap_or(UNASKED);
            let of = |wanted: Kind| if kind == wanted as u8 { *pods } else { 0 };
            connected = connected.wrapping_add(of(Kind::Connected));
            unknown = unknown.wrapping_add(of(Kind::Unknown));
            if kind == UNASKED {
                unasked.push((*row, out, *pods));
            }
        }
        for (row, out, pods) in unasked {
            match self.kind(out, row) {
                Kind::Connected => connected = connected.wrapping_add(pods),
                Kind::Unknown => unknown = unknown.wrapping_add(pods),
                Kind::Separated => {}
            }
        }
        (connected, unknown)
    }

    /// The same where each source is a pod with a row of its own.
    fn met_one_by_one(&mut self, rows: &[u32], egress: &[AnswerId]) -> (u64, u64) {
        let (mut connected, mut unknown) = (0u64, 0u64);
        let mask = (1u64 << ROOM).wrapping_sub(1);
        for (rows, egress) in rows.chunks(AT_ONCE).zip(egress.chunks(AT_ONCE)) {
            let all = self.kinds.all.as_slice();
            let pairs = rows.iter().zip(egress);
            let weight = |kind: u8| WEIGHTS.get(usize::from(kind % 4)).copied().unwrap_or_default();
            let mut sum = pairs.clone().fold(0u64, |sum, (row, out)| {
                let kind = all.get(index(row.wrapping_add(*out))).copied().unwrap_or(UNASKED);
                sum.wrapping_add(weight(kind))
            });
            if sum >> (2 * ROOM) > 0 {
                sum = pairs
                    .fold(0, |sum: u64, (row, out)| sum.wrapping_add(weight(self.kind(*out, *row) as u8)));
            }
            connected = connected.wrapping_add(sum & mask);
            unknown = unknown.wrapping_add(sum >> ROOM & mask);
        }
        (connected, unknown)
    }

    /// What is between two pods by the answer of one side and the row of the other's.
    fn kind(&mut self, egress: AnswerId, row: u32) -> Kind {
        let at = index(row.wrapping_add(egress));
        match self.kinds.all.get(at) {
            Some(0) => return Kind::Connected,
            Some(1) => return Kind::Unknown,
            Some(2) => return Kind::Separated,
            _ => {}
        }
        let kind = self.compute(egress, self.kinds.answer(row));
        if let Some(slot) = self.kinds.all.get_mut(at) {
            *slot = kind as u8;
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
        self.columns(
            block,
            |_, _, answer| answer,
            |this, column| {
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
            },
        );
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
