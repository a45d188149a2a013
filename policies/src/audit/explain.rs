//! Why a packet passes or does not: a question in words, an answer rule by rule.

use crate::cluster::{Cluster, TargetPort};
use crate::evaluate::{Effect, EndpointId, EvaluateError, Evaluation, Explanation, Options, Step, Verdict};
use crate::places;
use crate::profile::{Fact, Profile};
use crate::report::clean;
use crate::sets::{AddressSet, Cidr, Lane, PortSet, Protocol, Traffic};
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
    /// Who gets it; also `svc/namespace/name` and a DNS name.
    pub destination: &'a str,
    /// `443`, `53/UDP`, `8000-8100`, `any`.
    pub port: &'a str,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Nobody is called so.
    #[error(
        "nothing in the input is {0:?}: name NAMESPACE/NAME of a pod or workload, svc/NAMESPACE/NAME, node/NAME, an IP address or a DNS name"
    )]
    Nobody(String),
    /// Not a port.
    #[error("{0:?} is not a port: write 443, 53/UDP, 8000-8100/TCP, icmp or any")]
    Port(String),
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
    /// What was asked about.
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
    for end in [question.source, question.destination] {
        if let Ok(ip) = end.parse::<IpAddr>() {
            addresses.push(AddressSet::block(Cidr::host(ip)));
        } else if !end.contains('/') {
            domains.push(end.trim_end_matches('.').to_ascii_lowercase().as_str().into());
        }
    }
    addresses.extend(places::each_metadata_address());
    let options = Options { addresses, domains, pod_cidrs: question.pod_cidrs.clone(), ..Options::default() };
    let evaluation = Evaluation::new(question.cluster, question.profile, options)?;
    let source = find(question, &evaluation, question.source)?;
    let mut pairs = Vec::new();
    let mut passes = None;
    for (destination, traffic) in destinations(question, &evaluation)? {
        // Where the input does not say who runs on which node, a node or a host-network pod may be the pod's own node or not.
        let sources = evaluation.seen_from(destination, source);
        let seen = evaluation.seen_from(source, destination);
        let hairpin = destination == source && question.destination.starts_with("svc/");
        let readings = sources.iter().flat_map(|from| seen.iter().map(|to| (*from, *to))).collect::<Vec<_>>();
        let first = pairs.len();
        for (from, to) in readings {
            let (explanation, passes) = if hairpin {
                hairpin_of(question.profile, &evaluation, from, &traffic)
            } else {
                let explanation = evaluation.explain(from, to);
                let passes = judge(&explanation.verdict, &traffic);
                (explanation, passes)
            };
            let named = |end, as_| match (evaluation.name(end), evaluation.name(as_)) {
                (own, other) if own == other => own,
                (own, other) => format!("{own} ({other})"),
            };
            pairs.push(Pair {
                source: named(source, from),
                destination: named(destination, to),
                traffic: traffic.clone(),
                passes,
                explanation,
            });
        }
        let own = pairs.get_mut(first..).unwrap_or_default();
        let one = own.first().map_or(Truth::Unknown, |pair| pair.passes);
        let agreed = if own.iter().all(|pair| pair.passes == one) { one } else { Truth::Unknown };
        if own.len() > 1 && agreed == Truth::Unknown {
            let what = "whether it is the pod's own node is not known: the input does not say on which node the pod runs";
            own.iter_mut().for_each(|pair| pair.explanation.doubts.push(Doubt::new(what)));
        }
        passes = passes.max(Some(agreed));
    }
    let passes = passes.unwrap_or(Truth::Unknown);
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
    Ok(Answer { passes, sentence, pairs, caveat })
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

fn find(
    question: &Question<'_>,
    evaluation: &Evaluation<'_>,
    name: &str,
) -> Result<EndpointId, QuestionError> {
    let nobody = || QuestionError::Nobody(name.chars().take(200).collect());
    if let Ok(ip) = name.parse::<IpAddr>() {
        return evaluation.address(ip).ok_or_else(nobody);
    }
    if let Some(node) = name.strip_prefix("node/") {
        return evaluation.node(node).ok_or_else(nobody);
    }
    let Some((namespace, name)) = name.split_once('/') else {
        return evaluation
            .domain(name.trim_end_matches('.').to_ascii_lowercase().as_str())
            .ok_or_else(nobody);
    };
    let pods = &question.cluster.pods;
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

fn destinations(
    question: &Question<'_>,
    evaluation: &Evaluation<'_>,
) -> Result<Vec<(EndpointId, Traffic)>, QuestionError> {
    let Some(service) = question.destination.strip_prefix("svc/") else {
        let destination = find(question, evaluation, question.destination)?;
        return Ok(vec![(destination, traffic(question.port)?)]);
    };
    let nobody = || QuestionError::Nobody(question.destination.chars().take(200).collect());
    let (namespace, name) = service.split_once('/').ok_or_else(nobody)?;
    let service = question
        .cluster
        .services
        .iter()
        .find(|s| *s.namespace == *namespace && *s.object.name == *name)
        .ok_or_else(nobody)?;
    let asked = traffic(question.port)?;
    // After the destination is translated, a packet carries the backend's address and the target port.
    let ports: Vec<_> =
        service.ports.iter().filter(|port| asked.contains(port.protocol, port.port)).collect();
    if ports.is_empty() {
        let has: Vec<String> =
            service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        return Err(QuestionError::ServicePort {
            service: service.object.to_string(),
            port: question.port.chars().take(50).collect(),
            ports: has.join(", "),
        });
    }
    let selector = service.selector.as_ref();
    let mut found = Vec::new();
    for (i, pod) in question.cluster.pods.iter().enumerate() {
        let selected = selector.is_some_and(|selector| {
            pod.namespace == service.namespace
                && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        });
        if !selected {
            continue;
        }
        let mut at_pod = Traffic::none();
        for port in &ports {
            let target = match &port.target {
                TargetPort::Number(number) => PortSet::one(*number),
                TargetPort::Name(name) => PortSet::of(
                    pod.ports
                        .iter()
                        .filter(|p| p.name.as_ref() == Some(name) && p.protocol == port.protocol)
                        .map(|p| (p.port, p.port)),
                ),
            };
            at_pod = at_pod.union(&Traffic::to(port.protocol, target));
        }
        if let Some(endpoint) = evaluation.pod(i) {
            found.push((endpoint, at_pod));
        }
    }
    let slices = question
        .cluster
        .endpoints
        .iter()
        .filter(|e| e.namespace == service.namespace && e.service == service.object.name);
    for endpoints in slices.filter(|_| selector.is_none()) {
        let ports = endpoints.ports.iter().fold(Traffic::none(), |all, port| {
            all.union(&Traffic::to(port.protocol, PortSet::one(port.port)))
        });
        for (address, _) in &endpoints.addresses {
            if let Some(endpoint) = evaluation.address(*address) {
                found.push((endpoint, ports.clone()));
            }
        }
    }
    if found.is_empty() { Err(QuestionError::NoBackends(service.object.to_string())) } else { Ok(found) }
}

/// What a port in words means.
pub(super) fn traffic(text: &str) -> Result<Traffic, QuestionError> {
    let bad = || QuestionError::Port(text.chars().take(50).collect());
    match text {
        "any" => return Ok(Traffic::all()),
        "icmp" => {
            return Ok(
                Traffic::on(Lane::Icmp, PortSet::full()).union(&Traffic::on(Lane::Icmpv6, PortSet::full()))
            );
        }
        _ => {}
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = match protocol.to_ascii_uppercase().as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return Err(bad()),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad());
    }
    Ok(Traffic::to(protocol, PortSet::range(first, last)))
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
            let _ =
                writeln!(out, "\n{} → {}  {}", clean(&pair.source), clean(&pair.destination), pair.traffic);
            if let Some(exempt) = &pair.explanation.exempt {
                let _ = writeln!(out, "  {}", clean(exempt));
            }
            for (side, steps) in
                [("egress", &pair.explanation.egress), ("ingress", &pair.explanation.ingress)]
            {
                for step in steps.iter().filter(|step| step.traffic.intersects(&pair.traffic)) {
                    let part = step.traffic.intersection(&pair.traffic);
                    let _ = writeln!(out, "  {side:<8} {}", clean(&words(step, &part)));
                }
            }
            for doubt in pair.explanation.doubts.iter().take(10) {
                let _ = writeln!(out, "  unknown  {}", clean(&doubt.to_string()));
            }
        }
        if let Some(caveat) = &self.caveat {
            let _ = writeln!(out, "\n{caveat}");
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
            "pairs": self.pairs.iter().map(|pair| json!({
                "source": pair.source, "destination": pair.destination,
                "traffic": pair.traffic.to_string(),
                "passes": truth(pair.passes),
                "exempt": pair.explanation.exempt.as_deref(),
                "egress": steps(&pair.explanation.egress, &pair.traffic),
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
        assert_eq!(traffic("443"), Ok(tcp(443, 443)));
        assert_eq!(traffic("8000-8100/tcp"), Ok(tcp(8000, 8100)));
        assert_eq!(traffic("53/UDP"), Ok(Traffic::to(Protocol::Udp, PortSet::one(53))));
        assert_eq!(traffic("any"), Ok(Traffic::all()));
        for bad in ["0", "65536", "9-8", "http", "53/QUIC", "", "-"] {
            assert_eq!(traffic(bad), Err(QuestionError::Port(bad.into())), "{bad}");
        }
    }
}
