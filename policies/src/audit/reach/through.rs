//! Packets to an address that somebody else is behind: whoever they really reach is judged, too.

use super::bucket::Buckets;
use super::{Check, Gathered, MOST_REACH, Reach};
use crate::audit::behind::{Passage, Scope, Way};
use crate::audit::catalog;
use crate::audit::intent::{Intent, Peer};
use crate::evaluate::{Endpoint, EndpointId};
use crate::places;
use crate::sets::Traffic;
use crate::truth::Truth;
use std::collections::{BTreeSet, HashMap};

impl Check<'_> {
    /// What pods that nothing tells apart reach through Services, node ports and host ports where a packet is judged otherwise than
    /// one to the backend itself.
    ///
    /// Who is behind an address that `may` names is permitted with it, unless it is another tenant's; what `must-not` names
    /// is forbidden whatever the way.
    pub(super) fn through(
        &self,
        intent: &Intent,
        source: EndpointId,
        objects: &BTreeSet<usize>,
        buckets: &mut Buckets,
        gathered: &mut Gathered,
    ) {
        self.behind.each(source, Scope::Judged, |way| {
            for (traffic, passes) in self.behind.passage(&way, way.sees.truth).parts() {
                self.along(intent, &way, &traffic, passes, objects, buckets, gathered);
            }
        });
    }

    #[allow(clippy::too_many_arguments, reason = "what passes on a way, and all that is gathered of it")]
    fn along(
        &self,
        intent: &Intent,
        way: &Way,
        traffic: &Traffic,
        passes: Truth,
        objects: &BTreeSet<usize>,
        buckets: &mut Buckets,
        gathered: &mut Gathered,
    ) {
        let (source, backend) = (way.source, way.backend);
        for peer in &intent.must_not {
            let (lo, hi) = self.permitted(std::slice::from_ref(peer), source, backend);
            let bad = if passes.must() { traffic.intersection(&lo) } else { Traffic::none() };
            let unsure = traffic.intersection(&hi).difference(&bad);
            for (traffic, certain) in [(bad, true), (unsure, false)] {
                if !traffic.is_none() {
                    self.note_way(buckets, &catalog::FORBIDDEN, way, &traffic, certain);
                    if !certain {
                        let doubts = self.unsure_of([peer], source, backend);
                        buckets.of(&catalog::FORBIDDEN).doubts.extend(doubts);
                    }
                }
            }
        }
        let permitted = match &intent.may {
            None => Truth::Yes,
            Some(may) => self.may_go(may, way, traffic),
        };
        let to = format!("{} through {}", self.evaluation.name(backend), way.text());
        self.draw_each(gathered, objects, |own| Reach {
            from: own,
            to: to.clone(),
            passes,
            traffic: traffic.to_string(),
            intended: permitted.may(),
        });
        if permitted.must() {
            return;
        }
        let certain = passes.must() && permitted == Truth::No;
        let Some(endpoint) = self.evaluation.endpoint(backend) else { return };
        for (kind, part) in self.kinds(endpoint, source, backend, traffic) {
            self.note_way(buckets, kind, way, &part, certain);
            if !certain {
                let peers = intent.may.iter().flatten();
                let mut doubts = self.unsure_of(peers.clone(), source, backend);
                if let Some(front) = way.front {
                    doubts.extend(self.unsure_of(peers, source, front));
                }
                buckets.of(kind).doubts.extend(doubts);
            }
        }
    }

    /// Who reaches the pods of one class through node ports, external addresses and host ports that they answer at: whoever sends
    /// there may arrive as a node, which policies let in, or with an address that they judge otherwise than its own.
    ///
    /// Whom `reached-by` names may come this way, too; to name nodes permits nodes, and nobody whom a node stands in for.
    pub(super) fn inwards_through(
        &self,
        intent: &Intent,
        destination: EndpointId,
        objects: &BTreeSet<usize>,
        buckets: &mut Buckets,
        gathered: &mut Gathered,
    ) {
        let Some(reached_by) = &intent.reached_by else { return };
        if self.behind.answers_at(destination).is_empty() {
            return;
        }
        let services = places::service_addresses(self.cluster);
        let mut known: HashMap<_, Vec<(Way, Passage)>> = HashMap::new();
        for (source, endpoint) in self.evaluation.senders(destination) {
            // No packet comes from a Service.
            if matches!(endpoint, Endpoint::External(set) if set.is_subset(&services)) {
                continue;
            }
            // To its own node a sender is another one than to others.
            let node = self.pod(source).and_then(|pod| pod.node.as_ref());
            let ways = known.entry((self.evaluation.class(source), node)).or_insert_with(|| {
                let mut ways = Vec::new();
                self.behind.each(source, Scope::To(destination), |way| {
                    let passage = self.behind.passage(&way, way.sees.truth);
                    if passage.passes().may() {
                        ways.push((way, passage));
                    }
                });
                ways
            });
            if ways.is_empty() {
                continue;
            }
            let kind = match endpoint {
                Endpoint::Imagined(_) => &catalog::ADMITS_FUTURE_PODS,
                _ => &catalog::IS_REACHED,
            };
            let (lo, hi) = self.permitted_from(reached_by, source, destination);
            // What reaches it with the sender's own address is judged as that.
            let direct = self.evaluation.verdict(source, destination).allowed;
            for (way, passage) in ways {
                let mut way = way.clone();
                way.source = source;
                for (traffic, passes) in passage.parts() {
                    let traffic = traffic.difference(&direct);
                    if traffic.is_none() {
                        continue;
                    }
                    let from = format!("{} through {}", self.evaluation.name(source), way.text());
                    self.draw_each(gathered, objects, |own| Reach {
                        from: from.clone(),
                        to: own,
                        passes,
                        traffic: traffic.to_string(),
                        intended: traffic.is_subset(&hi),
                    });
                    let bad = if passes.must() { traffic.difference(&hi) } else { Traffic::none() };
                    let unsure = traffic.difference(&lo).difference(&bad);
                    for (traffic, certain) in [(bad, true), (unsure, false)] {
                        if !traffic.is_none() {
                            self.note_way_in(buckets, kind, &way, &traffic, certain);
                            if !certain {
                                let doubts = self.unsure_of_sender(reached_by, source, destination);
                                buckets.of(kind).doubts.extend(doubts);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether peers permit a way: by naming who is behind it, or the address, which does not stand for another tenant's pods.
    fn may_go(&self, may: &[Peer], way: &Way, traffic: &Traffic) -> Truth {
        let within = |endpoint: EndpointId, traffic: &Traffic| {
            let (lo, hi) = self.permitted(may, way.source, endpoint);
            match (traffic.is_subset(&lo), traffic.is_subset(&hi)) {
                (true, _) => Truth::Yes,
                (false, true) => Truth::Unknown,
                (false, false) => Truth::No,
            }
        };
        let by_name = within(way.backend, traffic);
        let is_foreign = match (self.tenant(way.source), self.tenant(way.backend)) {
            (Some(own), Some(other)) => own != other,
            _ => false,
        };
        match way.front.filter(|_| !is_foreign) {
            Some(front) => by_name.or(within(front, &way.at())),
            None => by_name,
        }
    }

    /// An arrow for each of some pods.
    fn draw_each(&self, gathered: &mut Gathered, objects: &BTreeSet<usize>, arrow: impl Fn(String) -> Reach) {
        for own in objects.iter().filter_map(|object| self.cluster.pods.get(*object)) {
            if gathered.reach.len() >= MOST_REACH {
                return;
            }
            gathered.reach.insert(arrow(own.object.to_string()));
        }
    }

    /// A host-network pod that policies see as its node: a packet to the node may be one to the pod, which `must-not` may name.
    pub(super) fn host_pod(
        &self,
        intent: &Intent,
        source: EndpointId,
        destination: EndpointId,
        buckets: &mut Buckets,
    ) {
        if intent.must_not.is_empty() {
            return;
        }
        let (mut surely, mut possibly) = (Traffic::all(), Traffic::none());
        let seen = self.evaluation.seen_from(source, destination);
        for node in &seen {
            let verdict = self.evaluation.verdict(source, *node);
            surely = surely.intersection(&verdict.allowed);
            possibly = possibly.union(&verdict.allowed.union(&verdict.unknown));
        }
        let Some(node) = seen.first().copied() else { return };
        for peer in &intent.must_not {
            let (lo, hi) = self.permitted(std::slice::from_ref(peer), source, destination);
            let bad = surely.intersection(&lo);
            let unsure = possibly.intersection(&hi).difference(&bad);
            for (traffic, certain) in [(bad, true), (unsure, false)] {
                if traffic.is_none() {
                    continue;
                }
                self.note_host_pod(
                    buckets,
                    &catalog::FORBIDDEN,
                    (source, node, destination),
                    &traffic,
                    certain,
                );
                if !certain {
                    let mut doubts = self.unsure_of([peer], source, destination);
                    if seen.len() > 1 {
                        doubts.push(crate::truth::Doubt::new(format!(
                            "whether {} runs on the sender's own node is not known",
                            self.evaluation.name(destination)
                        )));
                    }
                    buckets.of(&catalog::FORBIDDEN).doubts.extend(doubts);
                }
            }
        }
    }
}
