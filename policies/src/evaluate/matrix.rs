//! All pairs of pods. Pods that nothing tells apart are one class, and what is computed is computed once for each class:
//! subjects that the same policies select share a row, their side towards every class.
//!
//! A pair's verdict depends on the source only through its row of egress and its place in rows of ingress, and likewise on the
//! destination. So pairs are counted by cells, all sources of one row times all destinations of another, of which only the
//! different answers are looked at. Nothing of the size of all pairs is kept: destinations are taken in blocks. Rows stand in an
//! order in which those that begin with the same steps are neighbours, and take these steps once.

mod answers;
mod order;
mod rows;
mod worker;

use super::evaluation::Evaluation;
use super::{EndpointId, Verdict};
use crate::policy::Direction;
use order::Order;
use rows::Facing;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use worker::Worker;

/// Entries of the egress rows that a block keeps.
const MOST_ENTRIES: usize = 4 << 20;
/// Blocks for each thread, so that none waits long for the last.
const BLOCKS: usize = 3;

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

/// How much was computed for a tally. It depends on what tells pods apart and not on how many pods there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Classes of pods.
    pub classes: usize,
    /// Different rows: subjects that different policies select, or whose names of ports make a difference, by direction.
    pub rows: usize,
    /// Steps that rules took for a peer's class, over all rows.
    pub steps: u64,
    /// Pairs of rows.
    pub cells: u64,
}

/// All pairs of pods of an evaluation.
pub struct Matrix<'e, 'a> {
    evaluation: &'e Evaluation<'a>,
    classes: Vec<Class>,
    sources: Order,
    destinations: Order,
    /// From each source to the destinations.
    egress: Facing,
    /// To each destination from the sources.
    ingress: Facing,
}

/// Pods that nothing tells apart.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// How many.
    pods: u64,
    /// One of them.
    first: usize,
    /// Whether each stands for several.
    template: bool,
}

impl<'a> Evaluation<'a> {
    /// All pairs of its pods.
    pub fn matrix(&self) -> Matrix<'_, 'a> {
        let mut classes = Vec::new();
        for members in &self.core.class_members {
            let is_pod = |id: &&EndpointId| matches!(self.endpoint(**id), Some(super::Endpoint::Pod(_)));
            let mut pods = members.iter().filter(is_pod);
            let Some(first) = pods.next() else { continue };
            let template = matches!(self.endpoint(*first), Some(super::Endpoint::Pod(i))
                if self.cluster.pods.get(*i).is_some_and(|pod| pod.is_template));
            classes.push(Class {
                pods: u64::try_from(pods.count()).unwrap_or(u64::MAX).saturating_add(1),
                first: first.index(),
                template,
            });
        }
        let sources = Order::new(&self.core, Direction::Egress, &classes);
        let destinations = Order::new(&self.core, Direction::Ingress, &classes);
        let egress = Facing::new(&self.core, Direction::Egress, destinations.endpoints(&classes));
        let ingress = Facing::new(&self.core, Direction::Ingress, sources.endpoints(&classes));
        Matrix { evaluation: self, classes, sources, destinations, egress, ingress }
    }
}

impl Matrix<'_, '_> {
    /// How many classes of pods there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The verdict on each pair of classes, with a member of each; of a class with itself, on two different members.
    pub fn for_each(&self, mut visit: impl FnMut(EndpointId, EndpointId, Verdict)) {
        let mut worker = Worker::new(self);
        for block in self.blocks(1) {
            worker.visit(block, &mut visit);
        }
    }

    /// Counts what passes between all pairs of pods, on all cores.
    pub fn tally(&self) -> Tally {
        self.tally_and_work().0
    }

    /// The same, with how much was computed for it.
    pub fn tally_and_work(&self) -> (Tally, Work) {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let blocks = self.blocks(cores.saturating_mul(BLOCKS));
        let next = AtomicUsize::new(0);
        let parts: Vec<(Tally, u64)> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..cores.min(blocks.len()))
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::new(self);
                        let mut part = Tally::default();
                        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)).cloned() {
                            worker.tally(block, &mut part);
                        }
                        (part, worker.steps())
                    })
                })
                .collect();
            // A thread that fails must not leave its pairs out of the count.
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let (sources, destinations) = (self.sources.groups.len(), self.destinations.groups.len());
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut total = Tally { classes: self.classes.len(), ..Tally::default() };
        let mut work = Work {
            classes: self.classes.len(),
            rows: sources.saturating_add(destinations),
            steps: 0,
            cells: count(sources).saturating_mul(count(destinations)),
        };
        for (part, steps) in parts {
            total.pairs = total.pairs.saturating_add(part.pairs);
            total.connected = total.connected.saturating_add(part.connected);
            total.separated = total.separated.saturating_add(part.separated);
            total.unknown = total.unknown.saturating_add(part.unknown);
            work.steps = work.steps.saturating_add(steps);
        }
        (total, work)
    }

    /// Destinations in blocks of whole groups, at least about `many`: each group's row of ingress is made once.
    fn blocks(&self, many: usize) -> Vec<std::ops::Range<usize>> {
        let entries = MOST_ENTRIES.checked_div(self.sources.groups.len()).unwrap_or(MOST_ENTRIES);
        let most = self.classes.len().div_ceil(many.max(1)).min(entries).max(1);
        let mut blocks = Vec::new();
        let (mut first, mut width) = (0usize, 0usize);
        for (at, group) in self.destinations.groups.iter().enumerate() {
            width = width.saturating_add(group.members.len());
            if width >= most {
                let end = at.saturating_add(1);
                blocks.push(first..end);
                (first, width) = (end, 0);
            }
        }
        if first < self.destinations.groups.len() {
            blocks.push(first..self.destinations.groups.len());
        }
        blocks
    }
}
