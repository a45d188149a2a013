//! Packets to an address that somebody else is behind: whoever they really reach is judged, too.

use super::bucket::Buckets;
use super::{Check, Gathered, MOST_REACH, Reach};
use crate::audit::behind::Way;
use crate::audit::catalog;
use crate::audit::intent::{Intent, Peer};
use crate::evaluate::EndpointId;
use crate::sets::Traffic;
use crate::truth::Truth;
use std::collections::BTreeSet;

impl Check<'_> {
    /// What the pods of one class reach through Services, node ports and host ports where their policies see the address.
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
        self.behind.each(source, false, |way| {
            let passage = self.behind.passage(&way);
            let passes = passage.passes.and(way.sees.truth);
            if !passes.may() {
                return;
            }
            let (backend, traffic) = (way.backend, &passage.traffic);
            for peer in &intent.must_not {
                let (lo, hi) = self.permitted(std::slice::from_ref(peer), source, backend);
                let bad = if passes.must() { traffic.intersection(&lo) } else { Traffic::none() };
                let unsure = traffic.intersection(&hi).difference(&bad);
                for (traffic, certain) in [(bad, true), (unsure, false)] {
                    if !traffic.is_none() {
                        self.note_way(buckets, &catalog::FORBIDDEN, &way, &traffic, certain);
                        if !certain {
                            let doubts = self.unsure_of([peer], source, backend);
                            buckets.of(&catalog::FORBIDDEN).doubts.extend(doubts);
                        }
                    }
                }
            }
            let permitted = match &intent.may {
                None => Truth::Yes,
                Some(may) => self.may_go(may, &way, traffic),
            };
            self.draw_way(gathered, objects, &way, passes, traffic, permitted.may());
            if permitted.must() {
                return;
            }
            let certain = passes.must() && permitted == Truth::No;
            let Some(endpoint) = self.evaluation.endpoint(backend) else { return };
            for (kind, part) in self.kinds(endpoint, source, backend, traffic) {
                self.note_way(buckets, kind, &way, &part, certain);
                if !certain {
                    let peers = intent.may.iter().flatten();
                    let mut doubts = self.unsure_of(peers.clone(), source, backend);
                    if let Some(front) = way.front {
                        doubts.extend(self.unsure_of(peers, source, front));
                    }
                    buckets.of(kind).doubts.extend(doubts);
                }
            }
        });
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

    fn draw_way(
        &self,
        gathered: &mut Gathered,
        objects: &BTreeSet<usize>,
        way: &Way,
        passes: Truth,
        traffic: &Traffic,
        intended: bool,
    ) {
        for object in objects {
            if gathered.reach.len() >= MOST_REACH {
                return;
            }
            let Some(own) = self.cluster.pods.get(*object) else { continue };
            gathered.reach.insert(Reach {
                from: own.object.to_string(),
                to: format!("{} through {}", self.evaluation.name(way.backend), way.text()),
                passes,
                traffic: traffic.to_string(),
                intended,
            });
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
