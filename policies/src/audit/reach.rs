//! Whether an intent holds: every pod it is about against everybody, in both directions, all traffic at once.

use super::intent::{Intent, Peer, TENANT_LABEL};
use super::{DecidingRule, Finding, IntentResult, Reach, Witness, catalog};
use crate::cluster::{Cluster, ContainerPort};
use crate::evaluate::{Effect, Endpoint, EndpointId, EvaluateError, Evaluation, Step};
use crate::matching::{DomainPattern, Match, TrafficMatch};
use crate::places;
use crate::policy::Dialect;
use crate::profile::{Fact, Profile};
use crate::read::LISTED_NAMES_ONLY;
use crate::sets::{PortSet, Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use std::collections::{BTreeMap, BTreeSet};

/// Arrows of the picture; a report with more shows no one anything.
const MOST_REACH: usize = 5_000;
/// Doubts that an intent's result carries.
const MOST_DOUBTS: usize = 50;
/// Ports of the kubelet: the authenticated one, and the read-only one of old clusters.
const KUBELET: [u16; 2] = [10250, 10255];
/// The port that resolvers are asked at.
const DNS: u16 = 53;
/// The API server's port on control-plane nodes.
const KUBE_API: u16 = 6443;

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
    pub(super) profile: Profile,
    pub(super) complete: bool,
}

/// Violations of one kind by one object, gathered into one finding.
struct Bucket {
    witness: Option<Witness>,
    others: BTreeSet<String>,
    certain: bool,
    doubts: BTreeSet<Doubt>,
    traffic: Traffic,
}

type Buckets = BTreeMap<(usize, &'static str), Bucket>;

impl Check<'_> {
    /// Checks an intent.
    pub(super) fn run(&self, intent: &Intent, gathered: &mut Gathered) -> Result<(), EvaluateError> {
        let mut doubts: BTreeSet<Doubt> = BTreeSet::new();
        let sources = self.pods(&intent.from);
        if sources.is_empty() {
            let doubt = gathered_finding(intent, gathered);
            gathered.results.push(about_nobody(intent, doubt));
            return Ok(());
        }
        let mut buckets = Buckets::new();
        // Pods that nothing tells apart are looked at once; every one of them is named.
        let mut classes: BTreeMap<_, Vec<(EndpointId, usize)>> = BTreeMap::new();
        for (endpoint, pod, truth) in &sources {
            if *truth == Truth::Unknown {
                doubts.insert(Doubt::new(format!(
                    "whether the intent {:?} is about {} is not known",
                    intent.name,
                    self.name(*endpoint)
                )));
            }
            classes.entry(self.evaluation.class(*endpoint)).or_default().push((*endpoint, *pod));
        }
        for members in classes.values() {
            let Some((first, _)) = members.first().copied() else { continue };
            let objects: BTreeSet<usize> = members.iter().map(|(_, pod)| *pod).collect();
            self.outwards(intent, first, &objects, &mut buckets, gathered)?;
            self.inwards(intent, first, &objects, &mut buckets, gathered)?;
        }
        let mut violated = false;
        let mut unproved = false;
        for ((pod, id), bucket) in buckets {
            let (Some(pod), Some(kind)) = (self.cluster.pods.get(pod), catalog::by_id(id)) else { continue };
            let weakens = kind.severity == super::Severity::Error;
            violated |= bucket.certain && weakens;
            unproved |= !bucket.certain && weakens;
            if !bucket.certain && weakens {
                doubts.extend(bucket.doubts.iter().cloned());
            }
            gathered.findings.push(finding(kind, pod, intent, bucket));
        }
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
            if self.is_its_node(endpoint) {
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
                        self.note(
                            buckets,
                            &catalog::CANNOT_REACH,
                            objects,
                            (source, destination),
                            shown,
                            certain,
                        );
                    }
                }
            }
            if passes.is_none() {
                continue;
            }
            let (may_lo, may_hi) = intent
                .may
                .as_ref()
                .map_or((Traffic::all(), Traffic::all()), |may| self.permitted(may, destination));
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
                self.resolver(objects, (source, destination), endpoint, &asked, buckets);
            }
            let bad = verdict.allowed.difference(&may_hi);
            let unsure = passes.difference(&may_lo).difference(&bad);
            for (traffic, certain) in [(bad, true), (unsure, false)] {
                for (kind, part) in self.kinds(endpoint, source, destination, &traffic) {
                    self.note(buckets, kind, objects, (source, destination), &part, certain);
                }
            }
            for peer in &intent.must_not {
                if matches!(endpoint, Endpoint::Imagined(_)) || is_named(intent, endpoint) {
                    continue;
                }
                let (lo, hi) = self.permitted(std::slice::from_ref(peer), destination);
                let bad = verdict.allowed.intersection(&lo);
                let unsure = passes.intersection(&hi).difference(&bad);
                for (traffic, certain) in [(bad, true), (unsure, false)] {
                    if !traffic.is_none() {
                        let pair = (source, destination);
                        self.note(buckets, &catalog::FORBIDDEN, objects, pair, &traffic, certain);
                    }
                }
            }
        }
        for (peer, reached) in intent.must.iter().zip(reached) {
            if !reached {
                for object in objects {
                    let bucket = bucket(buckets, *object, &catalog::CANNOT_REACH);
                    bucket.certain |= self.complete;
                    bucket.others.insert(format!("{}, whom nothing in the input is", peer.text));
                    let doubt = format!("nothing in the input is {}", peer.text);
                    bucket.doubts.insert(Doubt::new(doubt));
                }
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
        for (source, endpoint) in self.evaluation.sources(destination) {
            // The kubelet's probes come from the pod's own node, and no implementation keeps them out.
            if matches!(endpoint, Endpoint::LocalNode | Endpoint::Domain(_)) || self.is_its_node(endpoint) {
                continue;
            }
            let verdict = self.evaluation.verdict(source, destination);
            let passes = verdict.allowed.union(&verdict.unknown);
            if passes.is_none() {
                continue;
            }
            let mut may = (Traffic::none(), Traffic::none());
            for peer in reached_by {
                let truth = self.evaluation.matches(&peer.who, source);
                let (lo, hi) = self.evaluation.traffic(&peer.traffic, destination);
                if truth.must() {
                    may.0 = may.0.union(&lo);
                }
                if truth.may() {
                    may.1 = may.1.union(&hi);
                }
            }
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
                    self.note(buckets, kind, objects, (source, destination), &traffic, certain);
                }
            }
        }
        Ok(())
    }

    /// Whether somebody answers DNS, as far as is told: a pod declares such a port, or the intent names it of whoever that is.
    fn is_resolver(&self, intent: &Intent, destination: EndpointId, endpoint: &Endpoint) -> bool {
        let Some(may) = &intent.may else { return false };
        let declared = match endpoint {
            Endpoint::Pod(pod) | Endpoint::Sibling(pod) => self.cluster.pods.get(*pod),
            _ => None,
        };
        let mut ports = declared.into_iter().flat_map(|pod| &pod.ports);
        ports.any(|port| port.port == DNS || port.name.as_ref().is_some_and(|name| name.starts_with("dns")))
            || may.iter().any(|peer| {
                let (surely, _) = self.evaluation.traffic(&peer.traffic, destination);
                peer.traffic != TrafficMatch::Anything
                    && (surely.contains(Protocol::Udp, DNS) || surely.contains(Protocol::Tcp, DNS))
                    && self.evaluation.matches(&peer.who, destination) == Truth::Yes
            })
    }

    /// Notes that a DNS server may be asked, where that is intended and no rule says for which names.
    fn resolver(
        &self,
        objects: &BTreeSet<usize>,
        (source, destination): (EndpointId, EndpointId),
        endpoint: &Endpoint,
        asked: &Traffic,
        buckets: &mut Buckets,
    ) {
        let ports: Vec<u16> = match endpoint {
            Endpoint::Pod(pod) | Endpoint::Sibling(pod) => {
                let declared = self.cluster.pods.get(*pod).into_iter().flat_map(|pod| &pod.ports);
                let is_dns =
                    |port: &&ContainerPort| port.name.as_ref().is_some_and(|name| name.starts_with("dns"));
                declared.filter(is_dns).map(|port| port.port).chain([DNS]).collect()
            }
            Endpoint::Imagined(_) => return,
            _ => vec![DNS],
        };
        let dns = [Protocol::Udp, Protocol::Tcp].into_iter().fold(Traffic::none(), |all, protocol| {
            all.union(&Traffic::to(protocol, PortSet::of(ports.iter().map(|port| (*port, *port)))))
        });
        let dns = asked.intersection(&dns);
        if dns.is_none() {
            return;
        }
        let explanation = self.evaluation.explain(source, destination);
        let mut admitting = explanation
            .egress
            .iter()
            .filter(|step| step.effect == Effect::Allows && step.traffic.intersects(&dns))
            .peekable();
        let limited = admitting.peek().is_some()
            && admitting
                .all(|step| step.note.as_deref().is_some_and(|note| note.contains(LISTED_NAMES_ONLY)));
        if !limited {
            self.note(buckets, &catalog::DNS_RESOLVER, objects, (source, destination), &dns, true);
        }
    }

    /// Whether an endpoint is a host-network pod that policies see as its node, and that node is an endpoint, too: what holds of
    /// the node, seen from its own pods and from others, holds of the pod.
    fn is_its_node(&self, endpoint: &Endpoint) -> bool {
        let Endpoint::Pod(pod) = endpoint else { return false };
        let Some(pod) = self.cluster.pods.get(*pod).filter(|pod| pod.host_network) else { return false };
        let is_known = self.cluster.nodes.iter().any(|node| Some(&node.name) == pod.node.as_ref());
        let profile = self.profile;
        let enforced =
            Dialect::ALL.into_iter().filter(|dialect| profile.fact(Fact::Enforces(*dialect)).truth.may());
        is_known
            && profile.fact(Fact::HostNetworkIsSubject).truth == Truth::No
            && enforced
                .into_iter()
                .all(|dialect| profile.fact(Fact::HostNetworkIsPeer(dialect)).truth == Truth::No)
    }

    /// Traffic to a destination that peers surely and possibly permit.
    fn permitted(&self, peers: &[Peer], destination: EndpointId) -> (Traffic, Traffic) {
        let (mut lo, mut hi) = (Traffic::none(), Traffic::none());
        for peer in peers {
            let truth = self.evaluation.matches(&peer.who, destination);
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

    /// Which findings traffic to a destination makes: each with its part of it.
    fn kinds(
        &self,
        endpoint: &Endpoint,
        source: EndpointId,
        destination: EndpointId,
        traffic: &Traffic,
    ) -> Vec<(&'static catalog::Kind, Traffic)> {
        if traffic.is_none() {
            return Vec::new();
        }
        let tcp = |ports: &[u16]| Traffic::to(Protocol::Tcp, PortSet::of(ports.iter().map(|p| (*p, *p))));
        let is_api = self.evaluation.matches(&Match::KubeApiServer, destination) == Truth::Yes;
        let split = |special: Traffic, kind: &'static catalog::Kind, rest: &'static catalog::Kind| {
            let parts = [(kind, traffic.intersection(&special)), (rest, traffic.difference(&special))];
            parts.into_iter().filter(|(_, part)| !part.is_none()).collect::<Vec<_>>()
        };
        match endpoint {
            Endpoint::Imagined(_) => vec![(&catalog::ADMITS_FUTURE_PODS, traffic.clone())],
            Endpoint::LocalNode | Endpoint::Node(_) | Endpoint::AnyNode => {
                let mut found = split(tcp(&KUBELET), &catalog::REACHES_KUBELET, &catalog::REACHES_NODES);
                let api = traffic.intersection(&tcp(&[KUBE_API]));
                if !api.is_none() {
                    found.push((&catalog::REACHES_KUBE_API, api));
                }
                found
            }
            _ if is_api => vec![(&catalog::REACHES_KUBE_API, traffic.clone())],
            Endpoint::External(addresses) if addresses.is_subset(&places::metadata_addresses()) => {
                vec![(&catalog::REACHES_METADATA, traffic.clone())]
            }
            Endpoint::External(addresses)
                if addresses.is_subset(&places::service_addresses(self.cluster)) =>
            {
                vec![(&catalog::REACHES_PODS, traffic.clone())]
            }
            Endpoint::External(_) | Endpoint::Domain(_) => {
                let dns = Traffic::to(Protocol::Udp, PortSet::one(53)).union(&tcp(&[53]));
                split(dns, &catalog::DNS_TO_ANYONE, &catalog::REACHES_OUTSIDE)
            }
            Endpoint::Pod(_) | Endpoint::Sibling(_) => {
                let kind = match (self.tenant(source), self.tenant(destination)) {
                    (Some(own), Some(other)) if own != other => &catalog::REACHES_TENANT,
                    _ => &catalog::REACHES_PODS,
                };
                vec![(kind, traffic.clone())]
            }
        }
    }

    fn tenant(&self, endpoint: EndpointId) -> Option<&str> {
        let (Endpoint::Pod(pod) | Endpoint::Sibling(pod)) = self.evaluation.endpoint(endpoint)? else {
            return None;
        };
        let pod = self.cluster.pods.get(*pod)?;
        let namespace = self.cluster.namespaces.get(&pod.namespace);
        pod.labels.get(TENANT_LABEL).or_else(|| namespace?.labels.get(TENANT_LABEL)).map(|tenant| &**tenant)
    }

    fn name(&self, endpoint: EndpointId) -> String {
        self.evaluation.name(endpoint)
    }

    /// Remembers traffic between a pair for a kind of finding, for each object of the class. The first sure packet is the
    /// witness.
    fn note(
        &self,
        buckets: &mut Buckets,
        kind: &'static catalog::Kind,
        objects: &BTreeSet<usize>,
        (source, destination): (EndpointId, EndpointId),
        traffic: &Traffic,
        certain: bool,
    ) {
        let is_inwards = matches!(kind.id, "MF109")
            || (kind.id == "MF112"
                && matches!(self.evaluation.endpoint(source), Some(Endpoint::Imagined(_))));
        let other = self.name(if is_inwards { source } else { destination });
        let mut explanation = None;
        for object in objects {
            let bucket = bucket(buckets, *object, kind);
            let sharper = certain && !bucket.certain;
            if bucket.witness.is_none() || sharper {
                let explanation =
                    explanation.get_or_insert_with(|| self.evaluation.explain(source, destination));
                bucket.witness = self.witness(explanation, source, destination, traffic, *object, is_inwards);
                if !certain {
                    bucket.doubts.extend(explanation.doubts.iter().take(10).cloned());
                }
            }
            bucket.certain |= certain;
            bucket.traffic = bucket.traffic.union(traffic);
            if bucket.others.len() < 1_000 {
                bucket.others.insert(other.clone());
            }
        }
    }

    fn witness(
        &self,
        explanation: &crate::evaluate::Explanation,
        source: EndpointId,
        destination: EndpointId,
        traffic: &Traffic,
        object: usize,
        is_inwards: bool,
    ) -> Option<Witness> {
        let (protocol, port) = traffic.example()?;
        let own = self.cluster.pods.get(object).map(|pod| pod.object.to_string())?;
        let name = |endpoint: EndpointId| self.evaluation.example(endpoint);
        let (from, to) = if is_inwards { (name(source), own) } else { (own, name(destination)) };
        let rules = explanation.egress.iter().chain(&explanation.ingress);
        let rules = rules.filter(|step| step.traffic.contains(protocol, port)).map(deciding).collect();
        Some(Witness { source: from, destination: to, protocol, port, rules })
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
    let reason = format!("nothing in the input is {}", intent.from_text);
    gathered.findings.push(Finding::certain(
        &catalog::NOTHING_TO_AUDIT,
        object,
        intent.at.clone(),
        reason.clone(),
    ));
    Doubt::new(reason)
}

fn bucket<'b>(buckets: &'b mut Buckets, object: usize, kind: &'static catalog::Kind) -> &'b mut Bucket {
    buckets.entry((object, kind.id)).or_insert_with(|| Bucket {
        witness: None,
        others: BTreeSet::new(),
        certain: false,
        doubts: BTreeSet::new(),
        traffic: Traffic::none(),
    })
}

fn finding(
    kind: &'static catalog::Kind,
    pod: &crate::cluster::Pod,
    intent: &Intent,
    bucket: Bucket,
) -> Finding {
    let mut shown: Vec<&str> = bucket.others.iter().take(3).map(String::as_str).collect();
    let more = bucket.others.len().saturating_sub(shown.len());
    let rest = format!("{more} more");
    if more > 0 {
        shown.push(&rest);
    }
    let who = shown.join(", ");
    let may = if bucket.certain { "can" } else { "may" };
    let reason = match kind.id {
        "MF109" => {
            format!("{who} {may} connect to it ({}), which {:?} does not name", bucket.traffic, intent.name)
        }
        "MF110" if bucket.certain => format!("it cannot reach {who}, which {:?} needs", intent.name),
        "MF110" => format!("whether it can reach {who} is not known, and {:?} needs it", intent.name),
        "MF112" => format!("{who}: {} would pass, which {:?} does not name", bucket.traffic, intent.name),
        "MF113" => format!("it {may} ask {who} ({}) for any name, as {:?} says", bucket.traffic, intent.name),
        "MF111" => format!("it {may} reach {who} ({}), which {:?} forbids", bucket.traffic, intent.name),
        _ => format!("it {may} reach {who} ({}), which {:?} does not name", bucket.traffic, intent.name),
    };
    Finding {
        // A finding is never about what is surely not so.
        certain: if bucket.certain { Truth::Yes } else { Truth::Unknown },
        witness: bucket.witness,
        doubts: if bucket.certain { Vec::new() } else { bucket.doubts.into_iter().collect() },
        ..Finding::certain(kind, pod.object.clone(), Some(pod.at.clone()), reason)
    }
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
