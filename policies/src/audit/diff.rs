//! What became reachable, and what stopped being so, from one cluster to another.

use super::explain::truth;
use crate::cluster::Cluster;
use crate::evaluate::{ClassId, Endpoint, EndpointId, EvaluateError, Evaluation, Options, Verdict};
use crate::places;
use crate::profile::Profile;
use crate::report::clean;
use crate::sets::{AddressSet, Traffic};
use crate::truth::Truth;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Changes that are listed; beyond it they are counted.
const MOST: usize = 10_000;

/// A change between two ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Who sends.
    pub source: String,
    /// Who gets it.
    pub destination: String,
    /// Traffic that passes now and did not.
    pub opened: Traffic,
    /// Traffic that passed and does not now.
    pub closed: Traffic,
    /// Traffic that may pass now and surely did not before.
    pub maybe_opened: Traffic,
}

/// All changes.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The changes, by source and destination.
    pub changes: Vec<Change>,
    /// How many more there are than are listed.
    pub more: usize,
    /// Endpoints that are only in the first.
    pub gone: Vec<String>,
    /// Endpoints that are only in the second.
    pub new: Vec<String>,
}

/// An endpoint by what it is called on both sides.
type Key = String;
/// Endpoints that neither side tells apart.
type Group = (Option<ClassId>, Option<ClassId>);

/// Compares. What exists on one side alone can, on the other, neither reach nor be reached.
///
/// # Errors
/// A cluster is larger than can be evaluated.
pub fn run(
    old: &Cluster,
    new: &Cluster,
    profile: Profile,
    pod_cidrs: Option<AddressSet>,
) -> Result<Changes, EvaluateError> {
    // Both sides have to be cut along the blocks of both, or their outside addresses could not be compared.
    let probe = |cluster: &Cluster| -> Result<Vec<AddressSet>, EvaluateError> {
        let evaluation = Evaluation::new(
            cluster,
            profile,
            Options { pod_cidrs: pod_cidrs.clone(), ..Options::default() },
        )?;
        Ok(evaluation
            .endpoints()
            .filter_map(|(_, e)| if let Endpoint::External(set) = e { Some(set.clone()) } else { None })
            .collect())
    };
    let mut addresses = probe(old)?;
    addresses.extend(probe(new)?);
    addresses.extend(places::each_metadata_address());
    let options =
        || Options { addresses: addresses.clone(), pod_cidrs: pod_cidrs.clone(), ..Options::default() };
    let before = Evaluation::new(old, profile, options())?;
    let after = Evaluation::new(new, profile, options())?;
    let (old_ends, new_ends) = (ends(&before), ends(&after));

    let mut groups: BTreeMap<Group, Vec<&Key>> = BTreeMap::new();
    for key in old_ends.keys().chain(new_ends.keys()).collect::<BTreeSet<_>>() {
        let class = |ends: &BTreeMap<Key, EndpointId>, evaluation: &Evaluation<'_>| {
            ends.get(key).map(|id| evaluation.class(*id))
        };
        groups.entry((class(&old_ends, &before), class(&new_ends, &after))).or_default().push(key);
    }
    let mut changes = Changes { changes: Vec::new(), more: 0, gone: Vec::new(), new: Vec::new() };
    for ((was, is), keys) in &groups {
        let list = match (was, is) {
            (Some(_), None) => &mut changes.gone,
            (None, Some(_)) => &mut changes.new,
            _ => continue,
        };
        list.extend(keys.iter().map(|key| (*key).clone()));
    }
    for sources in groups.values() {
        for destinations in groups.values() {
            let (Some(source), Some(destination)) = pick(sources, destinations) else { continue };
            let verdict = |ends: &BTreeMap<Key, EndpointId>, evaluation: &Evaluation<'_>| {
                let pair = ends.get(source).zip(ends.get(destination))?;
                Some(evaluation.verdict(*pair.0, *pair.1))
            };
            let was = verdict(&old_ends, &before).unwrap_or_else(nothing);
            let is = verdict(&new_ends, &after).unwrap_or_else(nothing);
            let change = Change {
                source: String::new(),
                destination: String::new(),
                opened: is.allowed.difference(&was.allowed),
                closed: was.allowed.difference(&is.allowed.union(&is.unknown)),
                maybe_opened: is.unknown.intersection(&was.denied),
            };
            if change.opened.is_none() && change.closed.is_none() && change.maybe_opened.is_none() {
                continue;
            }
            for source in sources {
                for destination in destinations.iter().filter(|destination| *destination != source) {
                    if changes.changes.len() >= MOST {
                        changes.more = changes.more.saturating_add(1);
                        continue;
                    }
                    changes.changes.push(Change {
                        source: (*source).clone(),
                        destination: (*destination).clone(),
                        ..change.clone()
                    });
                }
            }
        }
    }
    changes.changes.sort();
    Ok(changes)
}

/// Two different ends of the groups, where there are.
fn pick<'a>(sources: &[&'a Key], destinations: &[&'a Key]) -> (Option<&'a Key>, Option<&'a Key>) {
    let source = sources.first().copied();
    (source, destinations.iter().copied().find(|key| Some(*key) != source))
}

fn nothing() -> Verdict {
    Verdict { allowed: Traffic::none(), denied: Traffic::all(), unknown: Traffic::none() }
}

fn ends(evaluation: &Evaluation<'_>) -> BTreeMap<Key, EndpointId> {
    evaluation
        .endpoints()
        .filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Imagined(_) | Endpoint::Sibling(_)))
        // What changes for a host-network pod changes for its node, which is listed.
        .filter(|(id, _)| !evaluation.is_its_node(*id))
        .map(|(id, _)| (evaluation.name(id), id))
        .collect()
}

impl Changes {
    /// Whether anything became reachable.
    pub fn opened(&self) -> Truth {
        let surely = self.more > 0 || self.changes.iter().any(|change| !change.opened.is_none());
        let maybe = self.changes.iter().any(|change| !change.maybe_opened.is_none());
        match (surely, maybe) {
            (true, _) => Truth::Yes,
            (false, true) => Truth::Unknown,
            (false, false) => Truth::No,
        }
    }

    /// The verdict in one sentence.
    pub fn sentence(&self) -> String {
        let count =
            |part: fn(&Change) -> &Traffic| self.changes.iter().filter(|c| !part(c).is_none()).count();
        let (opened, closed) = (count(|c| &c.opened), count(|c| &c.closed));
        let maybe = count(|c| &c.maybe_opened);
        let first = self.changes.iter().find(|change| !change.opened.is_none());
        match (first, maybe) {
            (Some(change), _) => format!(
                "{opened} pairs became reachable and {closed} stopped being so: {} → {} {}.",
                change.source, change.destination, change.opened
            ),
            (None, 0) if closed == 0 => "Nothing became reachable and nothing stopped being so.".into(),
            (None, 0) => format!("Nothing became reachable; {closed} pairs stopped being so."),
            (None, maybe) => format!("{maybe} pairs may have become reachable; {closed} stopped being so."),
        }
    }

    /// For people.
    pub fn table(&self, color: bool) -> String {
        let sentence = clean(&self.sentence());
        let code = match self.opened() {
            Truth::No => "1;32",
            Truth::Yes => "1;31",
            Truth::Unknown => "1;33",
        };
        let mut out =
            if color { format!("\x1b[{code}m{sentence}\x1b[0m\n") } else { format!("{sentence}\n") };
        for change in &self.changes {
            let pair = clean(&format!("{} → {}", change.source, change.destination));
            for (sign, traffic) in [("+", &change.opened), ("-", &change.closed), ("?", &change.maybe_opened)]
            {
                if !traffic.is_none() {
                    let _ = writeln!(out, "{sign} {pair}  {traffic}");
                }
            }
        }
        if self.more > 0 {
            let _ = writeln!(out, "and {} more changed pairs", self.more);
        }
        for (what, names) in [("new", &self.new), ("gone", &self.gone)] {
            for name in names.iter().take(50) {
                let _ = writeln!(out, "{what}: {}", clean(name));
            }
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "sentence": self.sentence(),
            "opened": truth(self.opened()),
            "changes": self.changes.iter().map(|change| json!({
                "source": change.source, "destination": change.destination,
                "opened": change.opened.to_string(), "closed": change.closed.to_string(),
                "maybe_opened": change.maybe_opened.to_string(),
            })).collect::<Vec<_>>(),
            "more": self.more,
            "new": self.new, "gone": self.gone,
        })
    }
}
