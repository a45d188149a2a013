//! Endpoints that nothing tells apart.

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
        let mut count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        // Refined selection by selection; only members move.
        for tri in &self.selections {
            let mut split: HashMap<(u32, bool), u32> = HashMap::new();
            for member in tri.may.iter() {
                let Some(slot) = class.get_mut(member) else { continue };
                let key = (*slot, tri.must.has(member));
                let to = *split.entry(key).or_insert_with(|| {
                    let next = count;
                    count = count.saturating_add(1);
                    next
                });
                *slot = to;
            }
        }
        // Numbered anew in the order of their first members, without the gaps that whole moves leave.
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
