//! Classes in an order in which those stand together whose side is the same towards everybody.

use super::Class;
use crate::evaluate::applied::Applied;
use crate::evaluate::core::{Core, Lowered};
use crate::evaluate::endpoints::Shape;
use crate::evaluate::stages::side;
use crate::policy::Direction;
use std::ops::Range;

/// An order of classes.
pub(super) struct Order {
    /// Who has the same side.
    pub(super) groups: Vec<Group>,
    /// Classes by position.
    pub(super) classes: Vec<usize>,
    /// Positions by class.
    pub(super) positions: Vec<usize>,
    /// By position, how many pods are of the class.
    pub(super) pods: Vec<u64>,
    /// By position, the number of the group.
    pub(super) group_of: Vec<u32>,
    /// Each pod has a class and a group of its own, so that positions are numbers of groups.
    pub(super) is_one_by_one: bool,
}

/// Classes whose side is the same towards everybody.
pub(super) struct Group {
    /// An endpoint of one of them.
    pub(super) subject: usize,
    /// Their positions.
    pub(super) members: Range<usize>,
    /// How many of its steps are those of the group before, from the first one on.
    pub(super) shared: usize,
    /// After how many of its steps a group behind it goes on: more than it shares itself, ascending.
    pub(super) kept: Vec<usize>,
}

/// What a side depends on: the shape, the table of port names where rules ask for names, the steps that apply.
type Key = (Shape, u32, Vec<Applied>);

/// How many groups ahead are looked at for steps that they share.
const AHEAD: usize = 32;

impl Order {
    pub(super) fn new(core: &Core, direction: Direction, classes: &[Class]) -> Self {
        // Next to each other stand those that begin with the same steps, which are then taken once.
        let mut keyed: Vec<(Key, usize)> =
            classes.iter().enumerate().map(|(at, class)| (key(core, direction, class.first), at)).collect();
        keyed.sort_unstable();
        let groups: Vec<&[(Key, usize)]> = keyed.chunk_by(|(a, _), (b, _)| a == b).collect();
        let keys: Vec<&Key> =
            groups.iter().filter_map(|members| members.first()).map(|(key, _)| key).collect();
        let (shared, kept) = shared(&keys);
        let mut order = Self {
            groups: Vec::new(),
            classes: Vec::new(),
            positions: vec![0; classes.len()],
            pods: Vec::new(),
            group_of: Vec::new(),
            is_one_by_one: groups.len() == classes.len() && classes.iter().all(|class| class.pods == 1),
        };
        for ((members, shared), kept) in groups.into_iter().zip(shared).zip(kept) {
            let start = order.classes.len();
            let Some(first) = members.first().and_then(|(_, class)| classes.get(*class)) else { continue };
            let number = u32::try_from(order.groups.len()).unwrap_or(u32::MAX);
            for (_, class) in members {
                if let Some(position) = order.positions.get_mut(*class) {
                    *position = order.classes.len();
                }
                order.classes.push(*class);
                order.pods.push(classes.get(*class).map_or(0, |class| class.pods));
                order.group_of.push(number);
            }
            let members = start..order.classes.len();
            order.groups.push(Group { subject: first.first, members, shared, kept });
        }
        order
    }

    /// An endpoint of each class, by position.
    pub(super) fn endpoints(&self, classes: &[Class]) -> Vec<usize> {
        self.classes.iter().filter_map(|class| classes.get(*class)).map(|class| class.first).collect()
    }
}

fn key(core: &Core, direction: Direction, endpoint: usize) -> Key {
    let shape = core.shapes.get(endpoint).copied().unwrap_or(Shape::Outside);
    if !core.is_subject(endpoint) {
        return (shape, 0, Vec::new());
    }
    let at = side(direction);
    let applied = core.applied(at, endpoint);
    // What is named is the destination's port.
    let by_names = direction == Direction::Ingress
        && applied.iter().filter_map(|entry| core.step(*entry)).any(|step| {
            step.rules.get(at).into_iter().flatten().any(|rule| {
                let traffic = usize::try_from(rule.traffic).ok().and_then(|i| core.lowered.get(i));
                matches!(traffic, Some(Lowered::ByNames(_)))
            })
        });
    let names = if by_names { core.port_names.get(endpoint).copied().unwrap_or_default() } else { 0 };
    let by_stage = applied.chunk_by(|a, b| a.stage == b.stage);
    let steps = by_stage.flat_map(|stage| core.acting_first(at, stage).flatten().copied()).collect();
    (shape, names, steps)
}

/// By group, how many steps it begins with that the one before begins with too, in whole bands; and after how many of its own
/// steps one behind it goes on.
fn shared(keys: &[&Key]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let alike = |pair: &[&Key]| match pair {
        [(shape, names, a), (other, others, b)] if (shape, names) == (other, others) => {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            let ends_a_band = |steps: &[Applied], at: usize| match steps.get(at.saturating_sub(1)..=at) {
                Some([before, after]) => (before.stage, before.band) != (after.stage, after.band),
                _ => true,
            };
            (0..=same).rev().find(|at| ends_a_band(a, *at) && ends_a_band(b, *at)).unwrap_or(0)
        }
        _ => 0,
    };
    let shared: Vec<usize> = std::iter::once(0).chain(keys.windows(2).map(alike)).take(keys.len()).collect();
    let kept = shared.iter().enumerate().map(|(at, own)| {
        let behind = shared.iter().skip(at.saturating_add(1)).take(AHEAD);
        let fewer = behind.scan(usize::MAX, |least, shared| {
            *least = (*least).min(*shared);
            (*least > *own).then_some(*least)
        });
        let mut kept: Vec<usize> = fewer.collect();
        kept.dedup();
        kept.reverse();
        kept
    });
    let kept: Vec<Vec<usize>> = kept.collect();
    (shared, kept)
}
