//! Classes in an order in which those stand together whose side is the same towards everybody.

use super::Class;
use crate::evaluate::applied::Applied;
use crate::evaluate::core::{Core, Lowered};
use crate::evaluate::endpoints::Shape;
use crate::evaluate::stages::side;
use crate::policy::Direction;
use rustc_hash::FxHashMap;
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
}

/// Classes whose side is the same towards everybody.
pub(super) struct Group {
    /// An endpoint of one of them.
    pub(super) subject: usize,
    /// Their positions.
    pub(super) members: Range<usize>,
}

/// What a side depends on: the steps that apply, the table of port names where rules ask for names, the shape.
type Key<'c> = (&'c [Applied], u32, Shape);

impl Order {
    pub(super) fn new(core: &Core, direction: Direction, classes: &[Class]) -> Self {
        let mut numbers: FxHashMap<Key<'_>, usize> = FxHashMap::default();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (at, class) in classes.iter().enumerate() {
            let next = members.len();
            let number = *numbers.entry(key(core, direction, class.first)).or_insert(next);
            if number == next {
                members.push(Vec::new());
            }
            if let Some(members) = members.get_mut(number) {
                members.push(at);
            }
        }
        let mut order = Self {
            groups: Vec::new(),
            classes: Vec::new(),
            positions: vec![0; classes.len()],
            pods: Vec::new(),
        };
        for members in members {
            let start = order.classes.len();
            let Some(first) = members.first().and_then(|class| classes.get(*class)) else { continue };
            for class in members {
                if let Some(position) = order.positions.get_mut(class) {
                    *position = order.classes.len();
                }
                order.classes.push(class);
                order.pods.push(classes.get(class).map_or(0, |class| class.pods));
            }
            let members = start..order.classes.len();
            order.groups.push(Group { subject: first.first, members });
        }
        order
    }

    /// An endpoint of each class, by position.
    pub(super) fn endpoints(&self, classes: &[Class]) -> Vec<usize> {
        self.classes.iter().filter_map(|class| classes.get(*class)).map(|class| class.first).collect()
    }
}

fn key(core: &Core, direction: Direction, endpoint: usize) -> Key<'_> {
    let shape = core.shapes.get(endpoint).copied().unwrap_or(Shape::Outside);
    if !core.is_subject(endpoint) {
        return (&[], 0, shape);
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
    (applied, names, shape)
}
