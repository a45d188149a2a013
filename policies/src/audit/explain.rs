//! Why a packet passes or does not: a question in words, an answer rule by rule.

use super::behind::{Behind, Door, Scope, Way};
use super::{Finding, agents, assumed, catalog, intent};
use crate::cluster::{Cluster, Service, ServicePort, TargetPort};
use crate::evaluate::{
    Effect, Endpoint, EndpointId, EvaluateError, Evaluation, Explanation, Options, Step, Verdict, differ,
};
use crate::matching::TrafficMatch;
use crate::places;
use crate::profile::{Fact, Profile};
use crate::report::clean;
use crate::sets::{AddressSet, Cidr, PortSet, Protocol, Traffic};
use crate::truth::{Doubt, Truth};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;

/// A question.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its CNI.
    pub profile: Profile,
    /// Whether there is nothing but the input.
    pub complete: bool,
    /// Blocks that pods get addresses from, where known.
    pub pod_cidrs: Option<AddressSet>,
    /// Who sends: `namespace/name`, `node/name`, an address.
    pub source: &'a str,
    /// Who gets it; also `svc/namespace/name` and a DNS name, which has a dot.
    pub destination: &'a str,
    /// `443`, `53/UDP`, `8000-8100`, `http`, `icmp`, `any`.
    pub port: &'a str,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Nobody is called so.
    #[error(
        "nothing in the input is {0:?}: name NAMESPACE/NAME of a pod or workload, svc/NAMESPACE/NAME, node/NAME, an IP address or a DNS name with a dot in it"
    )]
    Nobody(String),
    /// Somebody who sends nothing.
    #[error(
        "{0:?} cannot be who sends: name NAMESPACE/NAME of a pod or workload, node/NAME or an IP address; a DNS name or a Service is only ever sent to"
    )]
    NoSender(String),
    /// Not a port.
    #[error(
        "{0:?} is not a port: write 443, 53/UDP, 8000-8100/TCP, a port's name such as http or dns/UDP, icmp or any"
    )]
    Port(String),
    /// A port's name that the destination does not use.
    #[error("{who} has no port that is called {port}; it has {ports}")]
    PortName {
        /// Who.
        who: String,
        /// What was asked for.
        port: String,
        /// What it has.
        ports: String,
    },
    /// A Service that has no such port.
    #[error("{service} has no port {port}; it has {ports}")]
    ServicePort {
        /// Which.
        service: String,
        /// What was asked for.
        port: String,
        /// What it has.
        ports: String,
    },
    /// A Service that nothing in the input is behind.
    #[error("{0} has no backends in the input")]
    NoBackends(String),
    /// The cluster cannot be evaluated.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whether some of the traffic passes.
    pub passes: Truth,
    /// One sentence.
    pub sentence: String,
    /// One for each pair that the question is about: a Service has one for each backend.
    pub pairs: Vec<Pair>,
    /// What speaks against the whole answer: settings of the agents that enforce policies.
    pub doubts: Vec<Doubt>,
    /// What the answer rests on.
    pub assumptions: Vec<String>,
    /// What holds only while nothing but the input exists.
    pub caveat: Option<String>,
}

/// One source, one destination.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Who sends.
    pub source: String,
    /// Who gets it.
    pub destination: String,
    /// The address that the packet is sent to, with the traffic there, where the source's policies judge that.
    pub through: Option<(String, Traffic)>,
    /// What was asked about, as the destination gets it.
    pub traffic: Traffic,
    /// Whether some of it passes.
    pub passes: Truth,
    /// How it came about.
    pub explanation: Explanation,
}

/// Answers.
///
/// # Errors
/// The question names nobody, or no port.
pub fn run(question: &Question<'_>) -> Result<Answer, QuestionError> {
    let mut addresses: Vec<AddressSet> = Vec::new();
    let mut domains = Vec::new();
    if question.source.starts_with("svc/") || domain(question.source).is_some() {
        return Err(QuestionError::NoSender(question.source.chars().take(200).collect()));
    }
    for end in [question.source, question.destination] {
        if let Ok(ip) = end.parse::<IpAddr>() {
            addresses.push(AddressSet::block(Cidr::host(ip)));
        }
    }
    domains.extend(domain(question.destination).map(|name| name.as_str().into()));
    addresses.extend(places::each_metadata_address());
    let options = Options { addresses, domains, pod_cidrs: question.pod_cidrs.clone(), ..Options::default() };
    let evaluation = Evaluation::new(question.cluster, question.profile, options)?;
    let behind = Behind::new(question.cluster, question.profile, &evaluation);
    let ask = Ask { question, evaluation: &evaluation, behind: &behind };
    let source = ask.find(question.source)?;
    let mut pairs = Vec::new();
    let mut passes = None;
    for target in ask.targets(source)? {
        let (own, one) = ask.answer(source, &target);
        pairs.extend(own);
        passes = passes.max(Some(one));
    }
    let passes = passes.unwrap_or(Truth::Unknown);
    let (passes, doubts) = ask.as_enforced(source, passes);
    let word = match passes {
        Truth::Yes => "Allowed",
        Truth::No => "Denied",
        Truth::Unknown => "Unknown",
    };
    let sentence = format!(
        "{word}: {} → {} {} under {}.",
        question.source, question.destination, question.port, question.profile
    );
    let caveat = (!question.complete).then(|| {
        "Policies that are not in the input may say otherwise; --assume-complete or --cluster leaves none out.".into()
    });
    let assumptions = assumed(question.profile, question.complete);
    Ok(Answer { passes, sentence, pairs, doubts, assumptions, caveat })
}

/// A DNS name. A word without a dot is none: it is a pod whose namespace was forgotten.
fn domain(text: &str) -> Option<String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_name = text.parse::<IpAddr>().is_err()
        && name.contains('.')
        && name.len() <= 253
        && name.split('.').all(is_label)
        // What ends in a number is an address that is miswritten.
        && !name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    is_name.then_some(name)
}

/// What a question is about: somebody, or somebody behind an address.
enum Target {
    Direct(EndpointId, Traffic),
    /// A way to a backend.
    Behind(Box<Way>),
    /// A backend of a Service without an address.
    Headless(EndpointId, Traffic),
}

struct Ask<'a> {
    question: &'a Question<'a>,
    evaluation: &'a Evaluation<'a>,
    behind: &'a Behind<'a>,
}

impl Ask<'_> {
    /// What settings of the agents make of an answer: where they enforce nothing, or something else, none is sure.
    fn as_enforced(&self, source: EndpointId, passes: Truth) -> (Truth, Vec<Doubt>) {
        let Question { cluster, profile, destination, .. } = *self.question;
        let agents = agents::look(cluster, profile);
        let ends = [Some(source), self.find(destination).ok()];
        let pods: Vec<_> = ends
            .into_iter()
            .flatten()
            .filter_map(|end| match self.evaluation.endpoint(end) {
                Some(Endpoint::Pod(pod)) => cluster.pods.get(*pod).map(|pod| &pod.object),
                _ => None,
            })
            .collect();
        let opens = |finding: &&Finding| {
            finding.id == catalog::ENFORCEMENT_OFF.id
                || (finding.id == catalog::NOT_MANAGED.id && pods.contains(&&finding.object))
        };
        let mut doubts: Vec<Doubt> = agents.doubts.clone();
        if passes == Truth::No {
            doubts.extend(
                agents
                    .findings
                    .iter()
                    .filter(opens)
                    .map(|finding| Doubt { what: finding.reason.as_str().into(), at: finding.at.clone() }),
            );
        }
        (if doubts.is_empty() { passes } else { Truth::Unknown }, doubts)
    }

    fn answer(&self, source: EndpointId, target: &Target) -> (Vec<Pair>, Truth) {
        match target {
            Target::Direct(destination, traffic) => self.direct(source, *destination, traffic, false),
            Target::Headless(destination, traffic) => self.direct(source, *destination, traffic, true),
            Target::Behind(way) => {
                // Where policies see both ends as they are, and where a pod comes back to itself.
                let is_direct = way.sees.truth == Truth::No && way.senders == [source];
                if is_direct || way.backend == source {
                    return self.direct(source, way.backend, &way.target, true);
                }
                let (pair, through) = self.along(way);
                let (mut pairs, direct) = match way.sees.truth {
                    // The VPC CNI's controller lets out to a Service's address what a rule selects by the Service's labels, which is
                    // not modelled: the backend is then allowed.
                    Truth::Yes if through == Truth::No && matches!(way.door, Door::Cluster(_)) => {
                        self.direct(source, way.backend, &way.target, true)
                    }
                    Truth::Unknown => self.direct(source, way.backend, &way.target, true),
                    _ => return (vec![pair], through),
                };
                pairs.insert(0, pair);
                if through == direct && self.behind.passage(way, way.sees.truth).passes() == direct {
                    return (pairs, through);
                }
                for pair in &mut pairs {
                    if !pair.explanation.doubts.iter().any(|doubt| doubt.what.contains(way.sees.why)) {
                        pair.explanation.doubts.push(differ(self.question.profile, &way.sees));
                    }
                }
                (pairs, Truth::Unknown)
            }
        }
    }

    /// What is sent to an address and judged as that, where policies may see it, and judged by the backend's policies as what it
    /// becomes.
    fn along(&self, way: &Way) -> (Pair, Truth) {
        let sees = if way.sees.truth.may() { Truth::Yes } else { Truth::No };
        let passes = self.behind.passage(way, sees).passes();
        let pair = Pair {
            source: self.evaluation.name(way.source),
            destination: self.evaluation.name(way.backend),
            through: Some((way.text(), way.at())),
            traffic: way.target.clone(),
            passes,
            explanation: self.behind.explain(way),
        };
        (pair, passes)
    }

    fn direct(
        &self,
        source: EndpointId,
        destination: EndpointId,
        traffic: &Traffic,
        through_service: bool,
    ) -> (Vec<Pair>, Truth) {
        let evaluation = self.evaluation;
        // Where the input does not say who runs on which node, a node or a host-network pod may be the pod's own node or not.
        let sources = evaluation.seen_from(destination, source);
        let seen = evaluation.seen_from(source, destination);
        let hairpin = destination == source && through_service;
        let readings = sources.iter().flat_map(|from| seen.iter().map(|to| (*from, *to))).collect::<Vec<_>>();
        let mut pairs = Vec::new();
        for (from, to) in readings {
            let (explanation, passes) = if hairpin {
                hairpin_of(self.question.profile, evaluation, from, traffic)
            } else {
                let explanation = evaluation.explain(from, to);
                let passes = judge(&explanation.verdict, traffic);
                (explanation, passes)
            };
            let named = |end, as_| match (evaluation.name(end), evaluation.name(as_)) {
                (own, other) if own == other => own,
                (own, other) => format!("{own} ({other})"),
            };
            pairs.push(Pair {
                source: named(source, from),
                destination: named(destination, to),
                through: None,
                traffic: traffic.clone(),
                passes,
                explanation,
            });
        }
        let one = pairs.first().map_or(Truth::Unknown, |pair| pair.passes);
        let agreed = if pairs.iter().all(|pair| pair.passes == one) { one } else { Truth::Unknown };
        if pairs.len() > 1 && agreed == Truth::Unknown {
            let what = "whether it is the pod's own node is not known: the input does not say on which node the pod runs";
            pairs.iter_mut().for_each(|pair| pair.explanation.doubts.push(Doubt::new(what)));
        }
        (pairs, agreed)
    }
}

/// What a pod sends to a Service that it is behind itself, and that comes back to it.
fn hairpin_of(
    profile: Profile,
    evaluation: &Evaluation<'_>,
    pod: EndpointId,
    traffic: &Traffic,
) -> (Explanation, Truth) {
    let policed = profile.fact(Fact::PolicesHairpin);
    if policed.truth == Truth::No {
        let mut explanation = evaluation.explain(pod, pod);
        explanation.exempt = Some(policed.why.into());
        return (explanation, Truth::Yes);
    }
    let mut explanation = evaluation.explain_hairpin(pod);
    let passes = judge(&explanation.verdict, traffic);
    if policed.truth == Truth::Yes || passes == Truth::Yes {
        return (explanation, passes);
    }
    explanation.doubts.push(Doubt::new(policed.why));
    (explanation, Truth::Unknown)
}

fn judge(verdict: &Verdict, traffic: &Traffic) -> Truth {
    match (verdict.allowed.intersects(traffic), verdict.unknown.intersects(traffic)) {
        (true, _) => Truth::Yes,
        (false, true) => Truth::Unknown,
        (false, false) => Truth::No,
    }
}

impl Ask<'_> {
    fn find(&self, name: &str) -> Result<EndpointId, QuestionError> {
        let evaluation = self.evaluation;
        let nobody = || QuestionError::Nobody(name.chars().take(200).collect());
        if let Ok(ip) = name.parse::<IpAddr>() {
            return evaluation.address(ip).ok_or_else(nobody);
        }
        if let Some(node) = name.strip_prefix("node/") {
            return evaluation.node(node).ok_or_else(nobody);
        }
        let Some((namespace, name)) = name.split_once('/') else {
            return domain(name).and_then(|name| evaluation.domain(&name)).ok_or_else(nobody);
        };
        let pods = &self.question.cluster.pods;
        let exact = pods.iter().position(|pod| *pod.namespace == *namespace && *pod.object.name == *name);
        // A live cluster has a Deployment's pods under generated names; its own name means any of them.
        let owned = || {
            pods.iter().position(|pod| {
                let owner = pod.owner.as_ref().map(|owner| &*owner.name).unwrap_or_default();
                let replica = owner.rsplit_once('-').map_or(owner, |(deployment, _)| deployment);
                *pod.namespace == *namespace && (owner == name || replica == name)
            })
        };
        exact.or_else(owned).and_then(|pod| evaluation.pod(pod)).ok_or_else(nobody)
    }

    /// Whom the question is about: of a Service and of an address of one, everybody behind it.
    fn targets(&self, source: EndpointId) -> Result<Vec<Target>, QuestionError> {
        let Question { cluster, destination, port, .. } = *self.question;
        let nobody = || QuestionError::Nobody(destination.chars().take(200).collect());
        let asked = traffic(port)?;
        if let Some(service) = destination.strip_prefix("svc/") {
            let (namespace, name) = service.split_once('/').ok_or_else(nobody)?;
            let is = |service: &Service| *service.namespace == *namespace && *service.object.name == *name;
            let index = cluster.services.iter().position(is).ok_or_else(nobody)?;
            return self.of_service(source, index, None, &asked);
        }
        let address = destination.parse::<IpAddr>().ok();
        if let Some(ip) = address {
            let is_cluster = |service: &Service| service.cluster_ips.contains(&ip);
            if let Some(index) = cluster.services.iter().position(is_cluster) {
                return self.of_service(source, index, Some(ip), &asked);
            }
        }
        let end = self.find(destination);
        // Another address may be a Service's external one, or a node's at a node port.
        let mut rest = match end.as_ref().map(|end| self.evaluation.endpoint(*end)) {
            Ok(Some(Endpoint::Pod(pod))) => self.ports_of(*pod, &asked)?,
            Err(error) if address.is_none() => return Err(error.clone()),
            _ => self.numbered(&asked)?,
        };
        let mut found = Vec::new();
        let is_node = end.as_ref().is_ok_and(|end| {
            matches!(self.evaluation.endpoint(*end), Some(Endpoint::Node(_) | Endpoint::AnyNode))
        });
        let fronts = end.as_ref().map(|end| self.evaluation.seen_from(source, *end)).unwrap_or_default();
        let mut taken = Traffic::none();
        self.behind.each(source, Scope::Every, |way| {
            let is_asked = match way.door {
                Door::External(ip) => address == Some(ip),
                Door::Node => is_node && way.front.is_some_and(|front| fronts.contains(&front)),
                Door::Cluster(_) | Door::Balancer => false,
            };
            if is_asked && way.at().is_subset(&rest) {
                taken = taken.union(&way.at());
                found.push(Target::Behind(Box::new(way)));
            }
        });
        rest = rest.difference(&taken);
        if !rest.is_none() || found.is_empty() {
            found.insert(0, Target::Direct(end?, rest));
        }
        Ok(found)
    }

    fn of_service(
        &self,
        source: EndpointId,
        index: usize,
        address: Option<IpAddr>,
        asked: &TrafficMatch,
    ) -> Result<Vec<Target>, QuestionError> {
        let Some(service) = self.question.cluster.services.get(index) else { return Ok(Vec::new()) };
        let is_asked = |port: &&ServicePort| match asked {
            TrafficMatch::NamedPort(protocol, name) => {
                let is_target = matches!(&port.target, TargetPort::Name(target) if target == name);
                port.protocol == *protocol && (port.name.as_ref() == Some(name) || is_target)
            }
            numbered => numbers(numbered).contains(port.protocol, port.port),
        };
        let ports: Vec<&ServicePort> = service.ports.iter().filter(is_asked).collect();
        if ports.is_empty() {
            let has: Vec<String> = service
                .ports
                .iter()
                .map(|port| {
                    let name = port.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
                    format!("{}/{}{name}", port.port, port.protocol)
                })
                .collect();
            return Err(QuestionError::ServicePort {
                service: service.object.to_string(),
                port: self.question.port.chars().take(50).collect(),
                ports: has.join(", "),
            });
        }
        let mut found = Vec::new();
        self.behind.each(source, Scope::Every, |way| {
            let at_address = match way.door {
                Door::Cluster(ip) => address.is_none_or(|asked| asked == ip),
                _ => false,
            };
            let is_port = |port: &&ServicePort| (port.protocol, port.port) == (way.protocol, way.port);
            if way.service == Some(index) && at_address && ports.iter().any(is_port) {
                found.push(Target::Behind(Box::new(way)));
            }
        });
        if found.is_empty() {
            // A headless Service is its backends; of one whose address is not in the input, they are what is known.
            let backends = ports.iter().flat_map(|port| self.behind.backends_of(port));
            found.extend(backends.map(|(backend, target)| Target::Headless(backend, target)));
        }
        // Once a backend where both of a Service's addresses are judged as the backend.
        let mut seen = Vec::new();
        found.retain(|target| match target {
            Target::Behind(way) if way.sees.truth == Truth::No => {
                let key = (way.backend, way.target.clone());
                let is_new = !seen.contains(&key);
                seen.push(key);
                is_new
            }
            _ => true,
        });
        if found.is_empty() { Err(QuestionError::NoBackends(service.object.to_string())) } else { Ok(found) }
    }

    /// What is asked about where no port has a name.
    fn numbered(&self, asked: &TrafficMatch) -> Result<Traffic, QuestionError> {
        if let TrafficMatch::NamedPort(_, name) = asked {
            return Err(QuestionError::PortName {
                who: self.question.destination.chars().take(200).collect(),
                port: name.to_string(),
                ports: "none that has a name".into(),
            });
        }
        Ok(numbers(asked))
    }

    fn ports_of(&self, pod: usize, asked: &TrafficMatch) -> Result<Traffic, QuestionError> {
        let TrafficMatch::NamedPort(protocol, name) = asked else { return self.numbered(asked) };
        let Some(pod) = self.question.cluster.pods.get(pod) else { return self.numbered(asked) };
        let own = pod.ports.iter().filter(|own| own.protocol == *protocol && own.name.as_ref() == Some(name));
        let ports = Traffic::to(*protocol, PortSet::of(own.map(|own| (own.port, own.port))));
        if !ports.is_none() {
            return Ok(ports);
        }
        let has: Vec<String> = pod
            .ports
            .iter()
            .filter_map(|own| Some(format!("{}/{} ({})", own.name.as_ref()?, own.protocol, own.port)))
            .collect();
        Err(QuestionError::PortName {
            who: pod.object.to_string(),
            port: format!("{name}/{protocol}"),
            ports: if has.is_empty() { "none that has a name".into() } else { has.join(", ") },
        })
    }
}

/// What a match without names in it matches.
fn numbers(what: &TrafficMatch) -> Traffic {
    match what {
        TrafficMatch::Anything => Traffic::all(),
        TrafficMatch::OneOf(parts) => {
            parts.iter().fold(Traffic::none(), |all, part| all.union(&numbers(part)))
        }
        TrafficMatch::Protocol(protocol) => protocol.traffic(),
        TrafficMatch::Ports(protocol, ports) => Traffic::to(*protocol, ports.clone()),
        _ => Traffic::none(),
    }
}

/// What a port in words means.
pub(super) fn traffic(text: &str) -> Result<TrafficMatch, QuestionError> {
    match text {
        "any" => return Ok(TrafficMatch::Anything),
        "icmp" => {
            let both = [Protocol::Icmp, Protocol::Icmpv6].map(TrafficMatch::Protocol);
            return Ok(TrafficMatch::OneOf(both.to_vec()));
        }
        _ => {}
    }
    let upper = match text.split_once('/') {
        Some((port, protocol)) => format!("{port}/{}", protocol.to_ascii_uppercase()),
        None => text.to_owned(),
    };
    intent::port(&upper).ok_or_else(|| QuestionError::Port(text.chars().take(50).collect()))
}

impl Pair {
    /// The traffic as the source's policies judge it.
    fn sent(&self) -> &Traffic {
        self.through.as_ref().map_or(&self.traffic, |(_, sent)| sent)
    }
}

impl Answer {
    /// For people.
    pub fn table(&self, color: bool) -> String {
        let code = match self.passes {
            Truth::Yes => "1;32",
            Truth::No => "1;31",
            Truth::Unknown => "1;33",
        };
        let sentence = clean(&self.sentence);
        let mut out =
            if color { format!("\x1b[{code}m{sentence}\x1b[0m\n") } else { format!("{sentence}\n") };
        for pair in &self.pairs {
            let (source, destination) = (clean(&pair.source), clean(&pair.destination));
            let through = pair.through.as_ref().map(|(text, _)| format!("  through {}", clean(text)));
            let _ =
                writeln!(out, "\n{source} → {destination}  {}{}", pair.traffic, through.unwrap_or_default());
            if let Some(exempt) = &pair.explanation.exempt {
                let _ = writeln!(out, "  {}", clean(exempt));
            }
            for (side, steps, asked) in [
                ("egress", &pair.explanation.egress, pair.sent()),
                ("ingress", &pair.explanation.ingress, &pair.traffic),
            ] {
                for step in steps.iter().filter(|step| step.traffic.intersects(asked)) {
                    let part = step.traffic.intersection(asked);
                    let _ = writeln!(out, "  {side:<8} {}", clean(&words(step, &part)));
                }
            }
            for doubt in pair.explanation.doubts.iter().take(10) {
                let _ = writeln!(out, "  unknown  {}", clean(&doubt.to_string()));
            }
        }
        if !self.doubts.is_empty() {
            out.push('\n');
        }
        for doubt in &self.doubts {
            let _ = writeln!(out, "unknown  {}", clean(&doubt.to_string()));
        }
        if let Some(caveat) = &self.caveat {
            let _ = writeln!(out, "\n{caveat}");
        }
        let _ = writeln!(out, "\nThis holds if:");
        for assumption in &self.assumptions {
            let _ = writeln!(out, "  - {}", clean(assumption));
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let doubts = |doubts: &[Doubt]| doubts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let steps = |steps: &[Step], asked: &Traffic| {
            steps
                .iter()
                .filter(|step| step.traffic.intersects(asked))
                .map(|step| {
                    json!({
                        "stage": &*step.stage,
                        "effect": effect(step.effect),
                        "policy": step.policy.as_ref().map(ToString::to_string),
                        "rule": step.rule.as_deref(),
                        "at": step.at.as_ref().map(ToString::to_string),
                        "traffic": step.traffic.intersection(asked).to_string(),
                        "note": step.note.as_deref(),
                    })
                })
                .collect::<Vec<_>>()
        };
        json!({
            "sentence": self.sentence,
            "passes": truth(self.passes),
            "caveat": self.caveat,
            "doubts": doubts(&self.doubts),
            "assumptions": self.assumptions,
            "pairs": self.pairs.iter().map(|pair| json!({
                "source": pair.source, "destination": pair.destination,
                "through": pair.through.as_ref().map(|(text, _)| text),
                "traffic": pair.traffic.to_string(),
                "passes": truth(pair.passes),
                "exempt": pair.explanation.exempt.as_deref(),
                "egress": steps(&pair.explanation.egress, pair.sent()),
                "ingress": steps(&pair.explanation.ingress, &pair.traffic),
                "doubts": doubts(&pair.explanation.doubts),
            })).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn truth(truth: Truth) -> &'static str {
    match truth {
        Truth::Yes => "yes",
        Truth::No => "no",
        Truth::Unknown => "unknown",
    }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allows => "allows",
        Effect::Denies => "denies",
        Effect::Passes => "passes on",
        Effect::AllowsByDefault => "allows by default",
        Effect::DeniesByDefault => "denies by default",
        Effect::Unsure => "may or may not decide",
    }
}

fn words(step: &Step, part: &Traffic) -> String {
    let mut text = format!("{}: ", step.stage);
    match &step.policy {
        Some(policy) => {
            let _ = write!(text, "{policy}");
            if let Some(rule) = &step.rule {
                let _ = write!(text, " {rule}");
            }
            if let Some(at) = &step.at {
                let _ = write!(text, " ({at})");
            }
        }
        None => text.push_str("nothing"),
    }
    let _ = write!(text, " {} {part}", effect(step.effect));
    if let Some(note) = &step.note {
        let _ = write!(text, " [{note}]");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_port_in_words() {
        let tcp = |first, last| Traffic::to(Protocol::Tcp, PortSet::range(first, last));
        let traffic_of = |text| traffic(text).map(|what| numbers(&what));
        assert_eq!(traffic_of("443"), Ok(tcp(443, 443)));
        assert_eq!(traffic_of("8000-8100/tcp"), Ok(tcp(8000, 8100)));
        assert_eq!(traffic_of("53/UDP"), Ok(Traffic::to(Protocol::Udp, PortSet::one(53))));
        assert_eq!(traffic_of("any"), Ok(Traffic::all()));
        assert_eq!(traffic("dns/udp"), Ok(TrafficMatch::NamedPort(Protocol::Udp, "dns".into())));
        for bad in ["0", "65536", "9-8", "53/QUIC", "", "-", "-http", "HTTP"] {
            assert_eq!(traffic(bad), Err(QuestionError::Port(bad.into())), "{bad}");
        }
    }
}
