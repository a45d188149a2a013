//! Packets of one kind between the pods of a class and all others, gathered into one finding for each of the pods.

use super::{Check, MOST_DOUBTS, deciding};
use crate::audit::behind::Way;
use crate::audit::intent::Intent;
use crate::audit::{Finding, Witness, catalog, digest, stable_end, stable_name};
use crate::cluster::Pod;
use crate::evaluate::{Endpoint, EndpointId, Explanation};
use crate::sets::{AddressSet, Traffic};
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, BTreeSet};

/// What is found of the pods of one class, by the kind of finding.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    kinds: BTreeMap<&'static str, Bucket>,
}

/// Packets of one kind.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The first sure packet, else the first possible one; the pod's own end is left open.
    witness: Option<Witness>,
    is_inwards: bool,
    /// Names of the other ends, for the reader.
    pub(super) others: BTreeSet<String>,
    pub(super) certain: bool,
    pub(super) doubts: BTreeSet<Doubt>,
    traffic: Traffic,
    /// All of it, end by end: what is sure and what is possible.
    ends: [Ends; 2],
}

/// Other ends with their traffic, each once.
#[derive(Debug, Default)]
struct Ends {
    named: BTreeMap<String, Traffic>,
    outside: BTreeMap<AddressSet, Traffic>,
}

impl Ends {
    fn add(&mut self, endpoint: &Endpoint, name: &str, traffic: &Traffic) {
        let all = match endpoint {
            Endpoint::External(addresses) => {
                self.outside.entry(addresses.clone()).or_insert_with(Traffic::none)
            }
            _ => self.named.entry(name.to_owned()).or_insert_with(Traffic::none),
        };
        *all = all.union(traffic);
    }

    /// The same whatever blocks the world was cut into: addresses with the same traffic are one set.
    fn write(&self, how: &str, lines: &mut Vec<String>) {
        let mut world: BTreeMap<String, AddressSet> = BTreeMap::new();
        for (addresses, traffic) in &self.outside {
            let all = world.entry(traffic.to_string()).or_insert_with(AddressSet::empty);
            *all = all.union(addresses);
        }
        lines.extend(self.named.iter().map(|(name, traffic)| format!("{how} {name} {traffic}")));
        lines.extend(world.iter().map(|(traffic, addresses)| format!("{how} {addresses} {traffic}")));
    }
}

impl Buckets {
    pub(super) fn of(&mut self, kind: &'static catalog::Kind) -> &mut Bucket {
        self.kinds.entry(kind.id).or_insert_with(|| Bucket {
            witness: None,
            is_inwards: false,
            others: BTreeSet::new(),
            certain: false,
            doubts: BTreeSet::new(),
            traffic: Traffic::none(),
            ends: Default::default(),
        })
    }

    /// Each bucket with its kind.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static catalog::Kind, &Bucket)> {
        self.kinds.iter().filter_map(|(id, bucket)| Some((catalog::by_id(id)?, bucket)))
    }
}

impl Check<'_> {
    /// Remembers traffic between a pair for a kind of finding. The first sure packet is the witness.
    pub(super) fn note(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        (source, destination): (EndpointId, EndpointId),
        traffic: &Traffic,
        certain: bool,
    ) {
        let is_inwards = matches!(kind.id, "MF109")
            || (kind.id == "MF112"
                && matches!(self.evaluation.endpoint(source), Some(Endpoint::Imagined(_))));
        let other = if is_inwards { source } else { destination };
        let name = stable_end(self.cluster, self.evaluation, other);
        let bucket = buckets.of(kind);
        if bucket.witness.is_none() || (certain && !bucket.certain) {
            let explanation = self.evaluation.explain(source, destination);
            bucket.witness = self.witness(&explanation, other, traffic, is_inwards);
            bucket.is_inwards = is_inwards;
            if !certain {
                bucket.doubts.extend(explanation.doubts.iter().take(10).cloned());
            }
        }
        bucket.certain |= certain;
        bucket.traffic = bucket.traffic.union(traffic);
        bucket.others.insert(self.name(other));
        let [sure, possible] = &mut bucket.ends;
        if let Some(endpoint) = self.evaluation.endpoint(other) {
            if certain { sure } else { possible }.add(endpoint, &name, traffic);
        }
    }

    /// Remembers traffic to who is behind an address.
    pub(super) fn note_way(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        way: &Way,
        traffic: &Traffic,
        certain: bool,
    ) {
        let named = |backend: String| format!("{backend} through {}", way.text());
        let name = named(self.name(way.backend));
        let lasting = named(stable_end(self.cluster, self.evaluation, way.backend));
        self.remember(buckets, kind, (&name, &lasting), (traffic, certain, false), || {
            let explanation = self.behind.explain(way);
            let (protocol, port) = traffic.example()?;
            // The packet that is sent is one to the address; what comes of it, the backend gets, and is all that some policies see.
            let sent = if way.sees.truth.may() { (way.protocol, way.port) } else { (protocol, port) };
            let out = explanation.egress.iter().filter(|step| step.traffic.contains(sent.0, sent.1));
            let into = explanation.ingress.iter().filter(|step| step.traffic.contains(protocol, port));
            let rules = out.chain(into).map(deciding).collect();
            let witness = Witness {
                source: String::new(),
                destination: format!("{} ({}, and so {})", way.address, way.of, self.name(way.backend)),
                protocol: way.protocol,
                port: way.port,
                rules,
            };
            Some((witness, explanation.doubts))
        });
    }

    /// Remembers traffic from who sends to an address that the pod is behind.
    pub(super) fn note_way_in(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        way: &Way,
        traffic: &Traffic,
        certain: bool,
    ) {
        let (name, lasting) = match self.evaluation.endpoint(way.source) {
            // Which of them, the digest says: a reader is told by the witness.
            Some(Endpoint::External(addresses)) => ("outside addresses".to_owned(), addresses.to_string()),
            _ => (self.name(way.source), stable_end(self.cluster, self.evaluation, way.source)),
        };
        let [name, lasting] = [name, lasting].map(|source| format!("{source} through {}", way.text()));
        self.remember(buckets, kind, (&name, &lasting), (traffic, certain, true), || {
            let explanation = self.behind.explain(way);
            let (protocol, port) = traffic.example()?;
            let rules = explanation.ingress.iter().filter(|step| step.traffic.contains(protocol, port));
            let witness = Witness {
                source: format!("{} through {}", self.evaluation.example(way.source), way.text()),
                destination: String::new(),
                protocol,
                port,
                rules: rules.map(deciding).collect(),
            };
            Some((witness, explanation.doubts))
        });
    }

    /// Remembers traffic to a host-network pod, which policies see as its node.
    pub(super) fn note_host_pod(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        (source, node, pod): (EndpointId, EndpointId, EndpointId),
        traffic: &Traffic,
        certain: bool,
    ) {
        let name = format!("{} ({})", self.name(pod), self.name(node));
        let lasting = stable_end(self.cluster, self.evaluation, pod);
        self.remember(buckets, kind, (&name, &lasting), (traffic, certain, false), || {
            let explanation = self.evaluation.explain(source, node);
            let witness = self.witness(&explanation, pod, traffic, false)?;
            Some((witness, explanation.doubts))
        });
    }

    fn remember(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        (name, lasting): (&str, &str),
        (traffic, certain, is_inwards): (&Traffic, bool, bool),
        show: impl FnOnce() -> Option<(Witness, Vec<Doubt>)>,
    ) {
        let bucket = buckets.of(kind);
        let is_witness = bucket.witness.is_none() || (certain && !bucket.certain);
        // Ways differ in what is not known of them.
        let is_reason = !certain && bucket.doubts.len() < MOST_DOUBTS;
        if (is_witness || is_reason)
            && let Some((witness, doubts)) = show()
        {
            if is_witness {
                bucket.witness = Some(witness);
                bucket.is_inwards = is_inwards;
            }
            if !certain {
                bucket.doubts.extend(doubts.into_iter().take(10));
            }
        }
        bucket.certain |= certain;
        bucket.traffic = bucket.traffic.union(traffic);
        bucket.others.insert(name.to_owned());
        let [sure, possible] = &mut bucket.ends;
        let ends = if certain { sure } else { possible };
        let all = ends.named.entry(lasting.to_owned()).or_insert_with(Traffic::none);
        *all = all.union(traffic);
    }

    fn witness(
        &self,
        explanation: &Explanation,
        other: EndpointId,
        traffic: &Traffic,
        is_inwards: bool,
    ) -> Option<Witness> {
        let (protocol, port) = traffic.example()?;
        let other = self.evaluation.example(other);
        let (source, destination) = if is_inwards { (other, String::new()) } else { (String::new(), other) };
        let rules = explanation.egress.iter().chain(&explanation.ingress);
        let rules = rules.filter(|step| step.traffic.contains(protocol, port)).map(deciding).collect();
        Some(Witness { source, destination, protocol, port, rules })
    }
}

impl Bucket {
    /// The finding about one of the pods.
    pub(super) fn finding(&self, kind: &'static catalog::Kind, pod: &Pod, intent: &Intent) -> Finding {
        let mut shown: Vec<&str> = self.others.iter().take(3).map(String::as_str).collect();
        let more = self.others.len().saturating_sub(shown.len());
        let rest = format!("{more} more");
        if more > 0 {
            shown.push(&rest);
        }
        let who = shown.join(", ");
        let may = if self.certain { "can" } else { "may" };
        let (name, traffic) = (&intent.name, &self.traffic);
        let reason = match kind.id {
            "MF109" => format!("{who} {may} connect to it ({traffic}), which {name:?} does not name"),
            "MF110" if self.certain => format!("it cannot reach {who}, which {name:?} needs"),
            "MF110" => format!("whether it can reach {who} is not known, and {name:?} needs it"),
            "MF112" => format!("{who}: {traffic} would pass, which {name:?} does not name"),
            "MF113" => format!("it {may} ask {who} ({traffic}) for any name, as {name:?} says"),
            "MF111" => format!("it {may} reach {who} ({traffic}), which {name:?} forbids"),
            _ => format!("it {may} reach {who} ({traffic}), which {name:?} does not name"),
        };
        let own = pod.object.to_string();
        let witness = self.witness.clone().map(|witness| match self.is_inwards {
            true => Witness { destination: own, ..witness },
            false => Witness { source: own, ..witness },
        });
        let mut lines = Vec::new();
        for (ends, how) in self.ends.iter().zip(["can", "may"]) {
            ends.write(how, &mut lines);
        }
        // Whom nothing in the input is has a name and no traffic.
        if lines.is_empty() {
            lines.extend(self.others.iter().cloned());
        }
        Finding {
            // A finding is never about what is surely not so.
            certain: if self.certain { Truth::Yes } else { Truth::Unknown },
            witness,
            doubts: if self.certain { Vec::new() } else { self.doubts.iter().cloned().collect() },
            subject: stable_name(pod),
            covers: digest(lines.iter().map(String::as_str)),
            ..Finding::certain(kind, pod.object.clone(), Some(pod.at.clone()), reason)
        }
    }
}
