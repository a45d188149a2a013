//! What became reachable, and what stopped being so, from one cluster to another: by itself, or through a Service, a node port or a
//! host port.

use super::behind::{Behind, Passage, Scope};
use super::explain::truth;
use super::{agents, assumed, catalog};
use crate::cluster::Cluster;
use crate::evaluate::{ClassId, Endpoint, EndpointId, EvaluateError, Evaluation, Options, Verdict};
use crate::places;
use crate::profile::Profile;
use crate::report::clean;
use crate::sets::{AddressSet, Traffic};
use crate::truth::{Doubt, Truth};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

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
    /// The way, such as `node n2 port 30443 (Service shop/web)`, where some of it is not a packet to the destination itself.
    pub through: Option<String>,
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
    /// What makes verdicts unsure on one side or both: settings of the agents that enforce policies.
    pub doubts: Vec<Doubt>,
    /// What the comparison rests on.
    pub assumptions: Vec<String>,
}

/// An endpoint by what it is called on both sides.
type Key = String;
/// What an endpoint is on one side: its class; a name where it is a host-network pod, which stands alone; and where something is
/// behind addresses, the node that it runs on and what it answers at.
type Kind = (ClassId, Option<Key>, Option<Arc<str>>, Vec<usize>);
/// Endpoints that neither side tells apart.
type Group = (Option<Kind>, Option<Kind>);
/// What a source's packets become: by who gets them, the way with what arrives.
type Ways = HashMap<EndpointId, Vec<(String, Passage)>>;

/// One side of the comparison.
struct Side<'a> {
    cluster: &'a Cluster,
    evaluation: &'a Evaluation<'a>,
    behind: Behind<'a>,
    ends: BTreeMap<Key, EndpointId>,
    /// Whether its agents let through what policies deny.
    open: bool,
}

impl Side<'_> {
    fn kind(&self, key: &Key) -> Option<Kind> {
        let id = self.ends.get(key)?;
        // What a host-network pod is hangs on its node.
        let own = self.evaluation.is_its_node(*id).then(|| key.clone());
        let pod = match self.evaluation.endpoint(*id) {
            Some(Endpoint::Pod(pod)) if !self.behind.is_empty() => self.cluster.pods.get(*pod),
            _ => None,
        };
        let node = pod.and_then(|pod| pod.node.clone());
        Some((self.evaluation.class(*id), own, node, self.behind.answers_at(*id).to_vec()))
    }

    /// What passes from a source through addresses that somebody is behind.
    fn ways(&self, source: &Key) -> Ways {
        let mut ways = Ways::new();
        let Some(source) = self.ends.get(source) else { return ways };
        // To the outside a pod's own node is one of the nodes, which are sources themselves.
        if matches!(self.evaluation.endpoint(*source), Some(Endpoint::LocalNode)) {
            return ways;
        }
        self.behind.each(*source, Scope::Judged, |way| {
            let passage = self.behind.passage(&way, way.sees.truth);
            if passage.passes().may() {
                ways.entry(way.backend).or_default().push((way.text(), passage));
            }
        });
        ways
    }

    /// The verdict on a pair: nothing passes to and from whom is not there. A host-network pod is its node, as the other end
    /// sees it.
    fn direct(&self, source: &Key, destination: &Key) -> Verdict {
        let Some((source, destination)) = self.ends.get(source).zip(self.ends.get(destination)) else {
            return nothing();
        };
        let (evaluation, source, destination) = (&self.evaluation, *source, *destination);
        let seen = |subject, other| match evaluation.is_its_node(other) {
            true => evaluation.seen_from(subject, other),
            false => vec![other],
        };
        let mut all: Option<Verdict> = None;
        for from in seen(destination, source) {
            for to in seen(source, destination) {
                let one = evaluation.verdict(from, to);
                all = Some(match all {
                    None => one,
                    Some(all) => either(&all, &one),
                });
            }
        }
        all.unwrap_or_else(nothing)
    }

    /// What reaches a destination from a source, whatever the way: as a packet to itself, and in all.
    fn verdict(&self, source: &Key, destination: &Key, ways: &Ways) -> (Verdict, Verdict) {
        let direct = self.direct(source, destination);
        let mut all = direct.clone();
        let ways = self.ends.get(destination).and_then(|id| ways.get(id));
        for (_, passage) in ways.into_iter().flatten() {
            all.allowed = all.allowed.union(&passage.surely);
            all.unknown = all.unknown.union(&passage.possibly);
        }
        if self.open {
            all.unknown = all.unknown.union(&all.denied);
        }
        all.unknown = all.unknown.difference(&all.allowed);
        all.denied = all.allowed.union(&all.unknown).complement();
        (direct, all)
    }

    /// The first way that some traffic arrives by.
    fn through(&self, destination: &Key, ways: &Ways, traffic: &Traffic) -> Option<String> {
        let ways = ways.get(self.ends.get(destination)?)?;
        ways.iter().find(|(_, passage)| passage.possibly.intersects(traffic)).map(|(text, _)| text.clone())
    }
}

impl Change {
    /// Its way, for the reader.
    fn through(&self) -> String {
        self.through.as_ref().map(|way| format!(" through {way}")).unwrap_or_default()
    }
}

/// It is one of the two, which is not known.
fn either(a: &Verdict, b: &Verdict) -> Verdict {
    let (allowed, denied) = (a.allowed.intersection(&b.allowed), a.denied.intersection(&b.denied));
    let unknown = allowed.union(&denied).complement();
    Verdict { allowed, denied, unknown }
}

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
    let (old_ends, new_ends) = ends(&before, &after);
    let (old_agents, new_agents) = (agents::look(old, profile), agents::look(new, profile));
    let off = |agents: &agents::Agents| -> Vec<Doubt> {
        let is_off = |id: &str| id == catalog::ENFORCEMENT_OFF.id;
        let off = agents.findings.iter().filter(|finding| is_off(finding.id));
        off.map(|finding| Doubt { what: finding.reason.as_str().into(), at: finding.at.clone() }).collect()
    };
    let mut doubts: Vec<Doubt> = Vec::new();
    for doubt in off(&old_agents).into_iter().chain(off(&new_agents)) {
        if !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    }
    for doubt in old_agents.doubts.iter().chain(&new_agents.doubts) {
        if !doubts.contains(doubt) {
            doubts.push(doubt.clone());
        }
    }
    let before = Side {
        cluster: old,
        evaluation: &before,
        behind: Behind::new(old, profile, &before),
        ends: old_ends,
        open: !off(&old_agents).is_empty(),
    };
    let after = Side {
        cluster: new,
        evaluation: &after,
        behind: Behind::new(new, profile, &after),
        ends: new_ends,
        open: !off(&new_agents).is_empty(),
    };

    let mut groups: BTreeMap<Group, Vec<&Key>> = BTreeMap::new();
    for key in before.ends.keys().chain(after.ends.keys()).collect::<BTreeSet<_>>() {
        groups.entry((before.kind(key), after.kind(key))).or_default().push(key);
    }
    let mut changes = Changes {
        changes: Vec::new(),
        more: 0,
        gone: Vec::new(),
        new: Vec::new(),
        doubts,
        assumptions: assumed(profile, false),
    };
    for ((was, is), keys) in &groups {
        let list = match (was, is) {
            (Some(_), None) => &mut changes.gone,
            (None, Some(_)) => &mut changes.new,
            _ => continue,
        };
        list.extend(keys.iter().map(|key| (*key).clone()));
    }
    for sources in groups.values() {
        let [old_ways, new_ways] =
            [&before, &after].map(|side| sources.first().map(|source| side.ways(source)).unwrap_or_default());
        for destinations in groups.values() {
            let (Some(source), Some(destination)) = pick(sources, destinations) else { continue };
            let (was_direct, was) = before.verdict(source, destination, &old_ways);
            let (is_direct, is) = after.verdict(source, destination, &new_ways);
            let opened = is.allowed.difference(&was.allowed);
            let closed = was.allowed.difference(&is.allowed.union(&is.unknown));
            let maybe_opened = is.unknown.intersection(&was.denied);
            if opened.is_none() && closed.is_none() && maybe_opened.is_none() {
                continue;
            }
            let by_way = opened.union(&maybe_opened).difference(&is_direct.allowed);
            let through = after
                .through(destination, &new_ways, &by_way)
                .or_else(|| before.through(destination, &old_ways, &closed.difference(&was_direct.allowed)));
            let change = Change {
                source: String::new(),
                destination: String::new(),
                opened,
                closed,
                maybe_opened,
                through,
            };
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

/// Endpoints of both sides.
fn ends(
    before: &Evaluation<'_>,
    after: &Evaluation<'_>,
) -> (BTreeMap<Key, EndpointId>, BTreeMap<Key, EndpointId>) {
    let all = |evaluation: &Evaluation<'_>| -> BTreeMap<Key, EndpointId> {
        let ends = evaluation.endpoints();
        ends.filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Imagined(_) | Endpoint::Sibling(_)))
            .map(|(id, _)| (evaluation.name(id), id))
            .collect()
    };
    let (mut old, mut new) = (all(before), all(after));
    // What changes for a host-network pod changes for its node, which is listed, unless it was not there or had a network of its
    // own.
    let is_node = |ends: &BTreeMap<Key, EndpointId>, key: &Key, evaluation: &Evaluation<'_>| {
        ends.get(key).is_some_and(|id| evaluation.is_its_node(*id))
    };
    let both: Vec<Key> =
        old.keys().filter(|key| is_node(&old, key, before) && is_node(&new, key, after)).cloned().collect();
    for key in &both {
        old.remove(key);
        new.remove(key);
    }
    (old, new)
}

impl Changes {
    /// Whether anything became reachable.
    pub fn opened(&self) -> Truth {
        let surely = self.more > 0 || self.changes.iter().any(|change| !change.opened.is_none());
        let maybe =
            !self.doubts.is_empty() || self.changes.iter().any(|change| !change.maybe_opened.is_none());
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
        let pairs = |count: usize| if count == 1 { "1 pair".to_owned() } else { format!("{count} pairs") };
        let doubt = self.doubts.first().map(|doubt| format!(": {doubt}")).unwrap_or_default();
        match (first, maybe) {
            (Some(change), _) => format!(
                "{} became reachable and {closed} stopped being so: {} → {} {}{}.",
                pairs(opened),
                change.source,
                change.destination,
                change.opened,
                change.through()
            ),
            (None, 0) if !doubt.is_empty() => {
                format!("Unknown what became reachable; as far as policies say, nothing did{doubt}.")
            }
            (None, 0) if closed == 0 => "Nothing became reachable and nothing stopped being so.".into(),
            (None, 0) => format!("Nothing became reachable; {} stopped being so.", pairs(closed)),
            (None, maybe) => {
                format!("{} may have become reachable; {closed} stopped being so{doubt}.", pairs(maybe))
            }
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
            let through = clean(&change.through());
            for (sign, traffic) in [("+", &change.opened), ("-", &change.closed), ("?", &change.maybe_opened)]
            {
                if !traffic.is_none() {
                    let _ = writeln!(out, "{sign} {pair}  {traffic}{through}");
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
        for doubt in &self.doubts {
            let _ = writeln!(out, "unknown: {}", clean(&doubt.to_string()));
        }
        let _ = writeln!(out, "\nThis holds if:");
        for assumption in &self.assumptions {
            let _ = writeln!(out, "  - {}", clean(assumption));
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
                "through": change.through,
            })).collect::<Vec<_>>(),
            "more": self.more,
            "new": self.new, "gone": self.gone,
            "doubts": self.doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "assumptions": self.assumptions,
        })
    }
}
