//! Whether an intent holds: every pod it is about against everybody, in both directions, all traffic at once.
//!
//! | module | says |
//! |---|---|
//! | [`kinds`] | which finding a packet makes, by who gets it |
//! | [`bucket`] | packets of one kind, gathered into one finding |
//! | [`through`] | packets to an address that somebody is behind, and to host-network pods |

mod bucket;
mod kinds;
mod through;

use super::behind::Behind;
use super::intent::{Intent, Peer};
use super::{DecidingRule, Finding, IntentResult, Reach, catalog};
use crate::cluster::{Cluster, ContainerPort};
use crate::evaluate::{ClassId, Effect, Endpoint, EndpointId, EvaluateError, Evaluation, Step};
use crate::matching::{DomainPattern, Match};
use crate::sets::Traffic;
use crate::truth::{Doubt, Truth};
use bucket::Buckets;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Arrows of the picture; a report with more shows no one anything.
const MOST_REACH: usize = 5_000;
/// Doubts that an intent's result carries.
const MOST_DOUBTS: usize = 50;
/// What pods have in common that nothing tells apart.
type Alike<'a> = (ClassId, Option<&'a Arc<str>>, Option<&'a str>, &'a Vec<ContainerPort>, &'a [usize]);

/// What an audit of intents has gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) results: Vec<IntentResult>,
    pub(super) findings: Vec<Finding>,
    pub(super) reach: BTreeSet<Reach>,
}

/// One intent against one evaluation.
pub(super) struct Check<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) evaluation: &'a Evaluation<'a>,
    pub(super) behind: &'a Behind<'a>,
    pub(super) complete: bool,
}

impl Check<'_> {
    /// Checks an intent.
    /// `agents` are doubts about what enforces the policies.
    pub(super) fn run(
        &self,
        intent: &Intent,
        agents: &[Doubt],
        gathered: &mut Gathered,
    ) -> Result<(), EvaluateError> {
        let mut doubts: BTreeSet<Doubt> = agents.iter().cloned().collect();
        let sources = self.pods(&intent.from);
        if sources.is_empty() {
            let doubt = gathered_finding(intent, gathered);
            gathered.results.push(about_nobody(intent, doubt));
            return Ok(());
        }
        // Pods that nothing tells apart are looked at once; every one of them is named.
        let mut alike: BTreeMap<Alike<'_>, Vec<(EndpointId, usize)>> = BTreeMap::new();
        for (endpoint, pod, truth) in &sources {
            if *truth == Truth::Unknown {
                doubts.insert(Doubt::new(format!(
                    "whether the intent {:?} is about {} is not known",
                    intent.name,
                    self.name(*endpoint)
                )));
            }
            if let Some(alike) = self.alike(*endpoint).map(|key| alike.entry(key).or_default()) {
                alike.push((*endpoint, *pod));
            }
        }
        let mut violated = false;
        let mut unproved = false;
        for members in alike.values() {
            let Some((first, _)) = members.first().copied() else { continue };
            let objects: BTreeSet<usize> = members.iter().map(|(_, pod)| *pod).collect();
            let mut buckets = Buckets::default();
            self.outwards(intent, first, &objects, &mut buckets, gathered)?;
            self.inwards(intent, first, &objects, &mut buckets, gathered)?;
            self.inwards_through(intent, first, &objects, &mut buckets, gathered);
            for (kind, bucket) in buckets.iter() {
                let weakens = kind.severity == super::Severity::Error;
                violated |= bucket.certain && weakens;
                unproved |= !bucket.certain && weakens;
                if !bucket.certain && weakens {
                    doubts.extend(bucket.doubts.iter().cloned());
                }
                let pods = objects.iter().filter_map(|pod| self.cluster.pods.get(*pod));
                gathered.findings.extend(pods.map(|pod| bucket.finding(kind, pod, intent)));
            }
        }
        // Who may do what is a part of the proof where hardening is.
        let missing =
            self.cluster.missing_rights.iter().filter(|right| intent.hardened || !right.about_rights);
        doubts.extend(missing.map(|right| right.doubt.clone()));
        if !self.complete {
            doubts.insert(Doubt::new(
                "policies or pods that are not in the input may allow more; --assume-complete says that there are none, \
                 --cluster looks",
            ));
        }
        let proved = match (violated, unproved || !doubts.is_empty()) {
            (true, _) => Truth::No,
            (false, true) => Truth::Unknown,
            (false, false) => Truth::Yes,
        };
        gathered.results.push(IntentResult {
            name: intent.name.clone(),
            from: intent.from_text.clone(),
            proved,
            pods: sources.len(),
            doubts: doubts.into_iter().take(MOST_DOUBTS).collect(),
        });
        Ok(())
    }

    /// What tells a pod from others of its class to an intent: the node that it runs on, whose it is, what it calls its ports, and
    /// what it answers at.
    fn alike(&self, endpoint: EndpointId) -> Option<Alike<'_>> {
        let Some(Endpoint::Pod(pod)) = self.evaluation.endpoint(endpoint) else { return None };
        let pod = self.cluster.pods.get(*pod)?;
        Some((
            self.evaluation.class(endpoint),
            pod.node.as_ref(),
            self.tenant(endpoint),
            &pod.ports,
            self.behind.answers_at(endpoint),
        ))
    }

    /// Pods of the input that an expression selects, or may.
    pub(super) fn pods(&self, who: &Match) -> Vec<(EndpointId, usize, Truth)> {
        let mut found = Vec::new();
        for (id, endpoint) in self.evaluation.endpoints() {
            if let Endpoint::Pod(pod) = endpoint {
                let truth = self.evaluation.matches(who, id);
                if truth.may() {
                    found.push((id, *pod, truth));
                }
            }
        }
        found
    }

    /// What the pods of one class can reach, against `may`, `must` and `must-not`.
    fn outwards(
        &self,
        intent: &Intent,
        source: EndpointId,
        objects: &BTreeSet<usize>,
        buckets: &mut Buckets,
        gathered: &mut Gathered,
    ) -> Result<(), EvaluateError> {
        let mut reached = vec![false; intent.must.len()];
        for (destination, endpoint) in self.evaluation.destinations(source) {
            if self.evaluation.is_its_node(destination) {
                self.host_pod(intent, source, destination, buckets);
                continue;
            }
            let verdict = self.evaluation.verdict(source, destination);
            let passes = verdict.allowed.union(&verdict.unknown);
            for (peer, reached) in intent.must.iter().zip(&mut reached) {
                if self.evaluation.matches(&peer.who, destination) == Truth::Yes
                    && !matches!(endpoint, Endpoint::Imagined(_))
                {
                    *reached = true;
                    let (wanted, _) = self.evaluation.traffic(&peer.traffic, destination);
                    let missing = wanted.difference(&verdict.allowed);
                    if !missing.is_none() || wanted.is_none() {
                        let certain = wanted.is_none() || missing.intersects(&verdict.denied);
                        let shown = if missing.is_none() { &Traffic::all() } else { &missing };
                        self.note(buckets, &catalog::CANNOT_REACH, (source, destination), shown, certain);
                    }
                }
            }
            if passes.is_none() {
                continue;
            }
            let (may_lo, may_hi) = intent
                .may
                .as_ref()
                .map_or((Traffic::all(), Traffic::all()), |may| self.permitted(may, source, destination));
            self.draw(
                gathered,
                objects,
                (source, destination),
                &verdict.allowed,
                &verdict.unknown,
                &may_hi,
                true,
            );
            let asked = verdict.allowed.intersection(&may_lo);
            if self.is_resolver(intent, destination, endpoint) {
                self.resolver((source, destination), endpoint, &asked, buckets);
            }
            let bad = verdict.allowed.difference(&may_hi);
            let unsure = passes.difference(&may_lo).difference(&bad);
            for (traffic, certain) in [(bad, true), (unsure, false)] {
                for (kind, part) in self.kinds(endpoint, source, destination, &traffic) {
                    self.note(buckets, kind, (source, destination), &part, certain);
                    if !certain {
                        let peers = intent.may.iter().flatten();
                        buckets.of(kind).doubts.extend(self.unsure_of(peers, source, destination));
                    }
                }
            }
            for peer in &intent.must_not {
                if matches!(endpoint, Endpoint::Imagined(_)) || is_named(intent, endpoint) {
                    continue;
                }
                let (lo, hi) = self.permitted(std::slice::from_ref(peer), source, destination);
                let bad = verdict.allowed.intersection(&lo);
                let unsure = passes.intersection(&hi).difference(&bad);
                for (traffic, certain) in [(bad, true), (unsure, false)] {
                    if !traffic.is_none() {
                        let pair = (source, destination);
                        self.note(buckets, &catalog::FORBIDDEN, pair, &traffic, certain);
                        if !certain {
                            let doubts = self.unsure_of([peer], source, destination);
                            buckets.of(&catalog::FORBIDDEN).doubts.extend(doubts);
                        }
                    }
                }
            }
        }
        self.through(intent, source, objects, buckets, gathered);
        for (peer, reached) in intent.must.iter().zip(reached) {
            if !reached {
                let bucket = buckets.of(&catalog::CANNOT_REACH);
                bucket.certain |= self.complete;
                bucket.others.insert(format!("{}, whom nothing in the input is", peer.text));
                let doubt = format!("nothing in the input is {}", peer.text);
                bucket.doubts.insert(Doubt::new(doubt));
            }
        }
        Ok(())
    }

    /// Who can reach the pods of one class, against `reached-by`.
    fn inwards(
        &self,
        intent: &Intent,
        destination: EndpointId,
        objects: &BTreeSet<usize>,
        buckets: &mut Buckets,
        gathered: &mut Gathered,
    ) -> Result<(), EvaluateError> {
        let Some(reached_by) = &intent.reached_by else { return Ok(()) };
        for (source, endpoint) in self.evaluation.senders(destination) {
            let verdict = self.evaluation.verdict(source, destination);
            let passes = verdict.allowed.union(&verdict.unknown);
            if passes.is_none() {
                continue;
            }
            let may = self.permitted_from(reached_by, source, destination);
            self.draw(
                gathered,
                objects,
                (source, destination),
                &verdict.allowed,
                &verdict.unknown,
                &may.1,
                false,
            );
            let bad = verdict.allowed.difference(&may.1);
            let unsure = passes.difference(&may.0).difference(&bad);
            let kind = match endpoint {
                Endpoint::Imagined(_) => &catalog::ADMITS_FUTURE_PODS,
                _ => &catalog::IS_REACHED,
            };
            for (traffic, certain) in [(bad, true), (unsure, false)] {
                if !traffic.is_none() {
                    self.note(buckets, kind, (source, destination), &traffic, certain);
                    if !certain {
                        buckets.of(kind).doubts.extend(self.unsure_of_sender(
                            reached_by,
                            source,
                            destination,
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Traffic to a destination that peers surely and possibly permit a sender.
    fn permitted_from(
        &self,
        peers: &[Peer],
        source: EndpointId,
        destination: EndpointId,
    ) -> (Traffic, Traffic) {
        let mut may = (Traffic::none(), Traffic::none());
        for peer in peers {
            let truth = self.evaluation.matches(&peer.who, source);
            let (lo, hi) = self.evaluation.traffic(&peer.traffic, destination);
            if truth.must() {
                may.0 = may.0.union(&lo);
            }
            if truth.may() {
                may.1 = may.1.union(&hi);
            }
        }
        may
    }

    /// Why it is not known whether peers permit it: whose traffic it is hangs on the sender, which traffic on the destination.
    fn unsure_of_sender(&self, peers: &[Peer], source: EndpointId, destination: EndpointId) -> Vec<Doubt> {
        let of = |peer: &Peer| {
            let who = self.evaluation.why_unknown(&peer.who, source);
            who.into_iter().chain(self.unsure_of_ports(peer, destination)).collect::<Vec<_>>()
        };
        peers.iter().flat_map(of).collect()
    }

    /// The endpoint that a destination is to an intent: the source's own node is a node of the input where the input says which.
    fn known_as(&self, source: EndpointId, destination: EndpointId) -> EndpointId {
        if !matches!(self.evaluation.endpoint(destination), Some(Endpoint::LocalNode)) {
            return destination;
        }
        let Some(Endpoint::Pod(pod) | Endpoint::Sibling(pod)) = self.evaluation.endpoint(source) else {
            return destination;
        };
        let node = self.cluster.pods.get(*pod).and_then(|pod| pod.node.as_ref());
        node.and_then(|node| self.evaluation.node(node)).unwrap_or(destination)
    }

    /// Why it is not known whether peers are a destination, and of which traffic.
    fn unsure_of<'p>(
        &self,
        peers: impl IntoIterator<Item = &'p Peer>,
        source: EndpointId,
        destination: EndpointId,
    ) -> Vec<Doubt> {
        let known = self.known_as(source, destination);
        let of = |peer: &Peer| {
            let mut doubts = self.evaluation.why_unknown(&peer.who, known);
            if self.evaluation.matches(&peer.who, known).may() {
                doubts.extend(self.unsure_of_ports(peer, destination));
            }
            doubts
        };
        peers.into_iter().flat_map(of).collect()
    }

    fn unsure_of_ports(&self, peer: &Peer, destination: EndpointId) -> Option<Doubt> {
        let (surely, possibly) = self.evaluation.traffic(&peer.traffic, destination);
        (surely != possibly).then(|| {
            let name = self.name(destination);
            Doubt::new(format!("which ports of {name} {} means is not known", peer.text))
        })
    }

    /// Traffic to a destination that peers surely and possibly permit.
    fn permitted(&self, peers: &[Peer], source: EndpointId, destination: EndpointId) -> (Traffic, Traffic) {
        let known = self.known_as(source, destination);
        let (mut lo, mut hi) = (Traffic::none(), Traffic::none());
        for peer in peers {
            let truth = self.evaluation.matches(&peer.who, known);
            if !truth.may() {
                continue;
            }
            let (surely, possibly) = self.evaluation.traffic(&peer.traffic, destination);
            if truth.must() {
                lo = lo.union(&surely);
            }
            hi = hi.union(&possibly);
        }
        (lo, hi)
    }

    fn name(&self, endpoint: EndpointId) -> String {
        self.evaluation.name(endpoint)
    }

    #[allow(clippy::too_many_arguments, reason = "an arrow has two ends, two kinds of traffic and a meaning")]
    fn draw(
        &self,
        gathered: &mut Gathered,
        objects: &BTreeSet<usize>,
        (source, destination): (EndpointId, EndpointId),
        allowed: &Traffic,
        unknown: &Traffic,
        may: &Traffic,
        outwards: bool,
    ) {
        for object in objects {
            if gathered.reach.len() >= MOST_REACH {
                return;
            }
            let Some(own) = self.cluster.pods.get(*object).map(|pod| pod.object.to_string()) else {
                continue;
            };
            let other = self.name(if outwards { destination } else { source });
            let (from, to) = if outwards { (own, other) } else { (other, own) };
            for (traffic, passes) in [(allowed, Truth::Yes), (unknown, Truth::Unknown)] {
                if !traffic.is_none() {
                    gathered.reach.insert(Reach {
                        from: from.clone(),
                        to: to.clone(),
                        passes,
                        traffic: traffic.to_string(),
                        intended: traffic.is_subset(may),
                    });
                }
            }
        }
    }
}

/// Whether an endpoint is a name that the intent gives. Such a name is assumed to resolve to nothing but what is meant by it, so
/// that it is no way to what must not be reached.
fn is_named(intent: &Intent, endpoint: &Endpoint) -> bool {
    let Endpoint::Domain(name) = endpoint else { return false };
    let mut named = intent.may.iter().flatten();
    named.any(|peer| matches!(&peer.who, Match::Domain(DomainPattern::Name(own)) if own == name))
}

fn about_nobody(intent: &Intent, doubt: Doubt) -> IntentResult {
    IntentResult {
        name: intent.name.clone(),
        from: intent.from_text.clone(),
        proved: Truth::Unknown,
        pods: 0,
        doubts: vec![doubt],
    }
}

fn gathered_finding(intent: &Intent, gathered: &mut Gathered) -> Doubt {
    let object = crate::source::ObjectRef {
        group: "mpegflow.io".into(),
        kind: "Intent".into(),
        namespace: None,
        name: intent.name.clone(),
    };
    // Who has no worker pools has come for something else.
    let other =
        if intent.at.is_none() { "; --intents FILE says what is to be proved of other pods" } else { "" };
    let reason = format!("nothing in the input is {}{other}", intent.from_text);
    gathered.findings.push(Finding::certain(
        &catalog::NOTHING_TO_AUDIT,
        object,
        intent.at.clone(),
        reason.clone(),
    ));
    Doubt::new(reason)
}

/// A step as a rule of a witness.
pub(super) fn deciding(step: &Step) -> DecidingRule {
    let is_default = matches!(step.effect, Effect::AllowsByDefault) && step.policy.is_none();
    DecidingRule {
        direction: step.direction,
        policy: step.policy.clone().filter(|_| !is_default),
        rule: step.rule.clone(),
        at: step.at.clone(),
    }
}
