//! Endpoints that nothing tells apart.

use super::bits::Bits;
use super::core::Core;
use super::endpoints::{Item, Shape};
use super::{ClassId, EndpointId};
use std::collections::HashMap;

impl Core {
    /// Puts endpoints that no selection, shape or port name tells apart into one class.
    pub(super) fn classify(&mut self, items: &[Item<'_>]) {
        let mut ids: HashMap<(Shape, u32, bool), u32> = HashMap::new();
        let mut class: Vec<u32> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let names = self.port_names.get(i).copied().unwrap_or_default();
            let next = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            // A template's pod has siblings, another pod has none: kept apart for those who count pairs.
            class.push(*ids.entry((item.shape, names, item.is_template)).or_insert(next));
        }
        let mut partition = Partition::new(class, ids.len());
        for tri in &self.selections {
            partition.refine(&tri.may);
            if tri.must != tri.may {
                partition.refine(&tri.must);
            }
        }
        let mut class = partition.class;
        // Numbered anew in the order of their first members.
        let mut dense: HashMap<u32, u32> = HashMap::new();
        for (i, slot) in class.iter_mut().enumerate() {
            let next = u32::try_from(dense.len()).unwrap_or(u32::MAX);
            *slot = *dense.entry(*slot).or_insert(next);
            let at = usize::try_from(*slot).unwrap_or(usize::MAX);
            if at == self.class_members.len() {
                self.class_members.push(Vec::new());
            }
            if let Some(members) = self.class_members.get_mut(at) {
                members.push(EndpointId::at(i));
            }
        }
        self.classes = class.into_iter().map(ClassId).collect();
    }
}

/// Numbers put into classes, which sets divide further.
struct Partition {
    /// The class of each number.
    class: Vec<u32>,
    /// By class, how many are in it.
    sizes: Vec<u32>,
    /// By class, how many the set at hand has of it, and the class that those go to.
    hits: Vec<(u32, u32)>,
}

impl Partition {
    fn new(class: Vec<u32>, count: usize) -> Self {
        let mut sizes = vec![0u32; count];
        for own in &class {
            if let Some(size) = sizes.get_mut(index(*own)) {
                *size = size.saturating_add(1);
            }
        }
        Self { class, sizes, hits: vec![(0, u32::MAX); count] }
    }

    /// Divides every class of which the set has some and not all. Takes time with the set's members, not with the classes.
    fn refine(&mut self, set: &Bits) {
        let mut touched = Vec::new();
        set.iter().for_each(|member| {
            let Some(class) = self.class.get(member).copied() else { return };
            let Some((hits, _)) = self.hits.get_mut(index(class)) else { return };
            if *hits == 0 {
                touched.push(class);
            }
            *hits = hits.saturating_add(1);
        });
        let mut divided = false;
        for class in &touched {
            let all = self.sizes.get(index(*class)).copied();
            let next = u32::try_from(self.sizes.len()).unwrap_or(u32::MAX);
            let Some((hits, to)) = self.hits.get_mut(index(*class)) else { continue };
            let many = std::mem::take(hits);
            *to = u32::MAX;
            if all.is_some_and(|all| many < all) {
                *to = next;
                divided = true;
                if let Some(size) = self.sizes.get_mut(index(*class)) {
                    *size = size.saturating_sub(many);
                }
                self.sizes.push(many);
                self.hits.push((0, u32::MAX));
            }
        }
        if !divided {
            return;
        }
        set.iter().for_each(|member| {
            let Some(class) = self.class.get_mut(member) else { return };
            if let Some((_, to)) = self.hits.get(index(*class))
                && *to != u32::MAX
            {
                *class = *to;
            }
        });
    }
}

fn index(class: u32) -> usize {
    usize::try_from(class).unwrap_or(usize::MAX)
}
