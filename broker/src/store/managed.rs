//! What a tenant's resource manages beside what the tenant makes itself: known by its name in the resource.

/// What has to be done so that what is here is what the resource says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'a, I, W> {
    /// The resource names it no more.
    Delete(I),
    /// It is here, and otherwise than the resource says.
    Update(I, &'a W),
    /// It is not here.
    Add(&'a W),
}

/// What has to be done; nothing where all is as the resource says. `same` says of one that is here and one that is wanted whether the
/// one is as the other; `None` where they have different names.
pub(super) fn changes<'a, H, I, W>(
    here: &[H],
    wanted: &'a [W],
    id: impl Fn(&H) -> I,
    same: impl Fn(&H, &W) -> Option<bool>,
) -> Vec<Change<'a, I, W>> {
    let gone = here.iter().filter(|here| wanted.iter().all(|wanted| same(here, wanted).is_none()));
    let mut changes: Vec<Change<'a, I, W>> = gone.map(|here| Change::Delete(id(here))).collect();
    for wanted in wanted {
        match here.iter().find_map(|here| same(here, wanted).map(|same| (id(here), same))) {
            None => changes.push(Change::Add(wanted)),
            Some((id, false)) => changes.push(Change::Update(id, wanted)),
            Some((_, true)) => {}
        }
    }
    changes
}
