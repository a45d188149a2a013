//! Which policies select an endpoint: for each class and direction the steps that have a say, in their order.

use super::core::Core;
use super::stages::Step;
use crate::truth::Truth;

/// A step that selects somebody, surely or possibly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Applied {
    /// Number of its stage.
    pub(super) stage: u32,
    /// Number of its band in the stage.
    pub(super) band: u32,
    /// Its number in the band.
    step: u32,
    /// Whether it surely does.
    must: bool,
}

impl Applied {
    /// Whether it selects: never [`Truth::No`].
    pub(super) fn selects(self) -> Truth {
        if self.must { Truth::Yes } else { Truth::Unknown }
    }
}

impl Core {
    /// Finds for each class, by direction, the steps that select it and say something of the direction.
    pub(super) fn apply(&mut self) {
        let mut first = vec![None; self.shapes.len()];
        for (class, members) in self.class_members.iter().enumerate() {
            if let Some(slot) = members.first().and_then(|member| first.get_mut(member.index())) {
                *slot = Some(class);
            }
        }
        let mut applied = [(); 2].map(|()| vec![Vec::new(); self.class_members.len()]);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        for (stage, bands) in self.stages.iter().map(|stage| &stage.bands).enumerate() {
            for (band, steps) in bands.iter().enumerate() {
                for (at, step) in steps.iter().enumerate() {
                    let Some(tri) = usize::try_from(step.subject).ok().and_then(|i| self.selections.get(i))
                    else {
                        continue;
                    };
                    let says = |side: usize| {
                        step.opaque
                            || step.rules.get(side).is_some_and(|rules| !rules.is_empty())
                            || step.has_section.get(side) == Some(&true)
                    };
                    if !step.enforced.may() || !(says(0) || says(1)) {
                        continue;
                    }
                    for (endpoint, class) in
                        tri.may.iter().filter_map(|i| Some((i, first.get(i).copied().flatten()?)))
                    {
                        let must = step.enforced.must() && tri.must.has(endpoint);
                        let entry =
                            Applied { stage: number(stage), band: number(band), step: number(at), must };
                        for (_, all) in applied.iter_mut().enumerate().filter(|(side, _)| says(*side)) {
                            if let Some(own) = all.get_mut(class) {
                                own.push(entry);
                            }
                        }
                    }
                }
            }
        }
        self.applied = applied;
    }

    /// The steps that select an endpoint and say something of a direction, by its index in a [`Step`]'s pairs.
    pub(super) fn applied(&self, side: usize, endpoint: usize) -> &[Applied] {
        let class = self.classes.get(endpoint).and_then(|class| usize::try_from(class.0).ok());
        let all = self.applied.get(side);
        all.zip(class).and_then(|(all, class)| all.get(class)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The bands of a stage that do something to a packet before the stage ends, and behind them those that do not.
    pub(super) fn acting_first<'s>(
        &self,
        side: usize,
        stage: &'s [Applied],
    ) -> impl Iterator<Item = &'s [Applied]> + use<'_, 's> {
        let bands = move |acting: bool| {
            let bands = stage.chunk_by(|a, b| a.band == b.band);
            bands.filter(move |band| band.iter().any(|entry| self.acts(side, *entry)) == acting)
        };
        bands(true).chain(bands(false))
    }

    /// Whether a step does something before its stage ends.
    pub(super) fn acts(&self, side: usize, applied: Applied) -> bool {
        self.step(applied)
            .is_none_or(|step| step.opaque || step.rules.get(side).is_none_or(|rules| !rules.is_empty()))
    }

    /// The step itself.
    pub(super) fn step(&self, applied: Applied) -> Option<&Step> {
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        self.stages.get(at(applied.stage))?.bands.get(at(applied.band))?.get(at(applied.step))
    }
}
