//! Observed flows against the policies: packets that were seen to pass and are judged denied, and what of a log says too little to
//! be judged at all.

use super::flows::{Flow, Flows, Party};
use super::reach::deciding;
use super::{Finding, Witness, catalog, digest, stable_end, stable_name};
use crate::cluster::Cluster;
use crate::evaluate::{Endpoint, EndpointId, Evaluation};
use crate::sets::Protocol;
use crate::source::{At, ObjectRef};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Findings that are reported one by one; beyond it they are counted.
const MOST_FINDINGS: usize = 100;
/// Different packets that are remembered, so that none is told twice.
const MOST_SEEN: usize = 100_000;
/// Pods that one end of a flow may be: an aggregated log names them by the start of their names.
const MOST_PODS: usize = 64;

/// A packet as it is told: both ends, their addresses where these are outside, protocol and port.
type Packet = (EndpointId, Option<IpAddr>, EndpointId, Option<IpAddr>, Protocol, u16);

/// Findings about what was seen.
pub(super) fn findings(all: &[Flows], cluster: &Cluster, evaluation: &Evaluation<'_>) -> Vec<Finding> {
    let seen = Seen::new(cluster, evaluation);
    let mut findings = Vec::new();
    let mut told: BTreeSet<Packet> = BTreeSet::new();
    let mut more = 0_usize;
    let mut unjudged: BTreeMap<(Arc<str>, &'static str), (usize, At)> = BTreeMap::new();
    for flow in all.iter().flat_map(|flows| &flows.flows) {
        let ends = seen.ends(&flow.source).and_then(|from| Ok((from, seen.ends(&flow.destination)?)));
        let (sources, destinations) = match ends {
            Ok(ends) => ends,
            Err(why) => {
                let (count, _) =
                    unjudged.entry((flow.at.file.clone(), why)).or_insert_with(|| (0, flow.at.clone()));
                *count = count.saturating_add(1);
                continue;
            }
        };
        let (Some(source), Some(destination)) = (sources.first().copied(), destinations.first().copied())
        else {
            continue;
        };
        let packet = (
            source,
            seen.outside(source, &flow.source),
            destination,
            seen.outside(destination, &flow.destination),
            flow.protocol,
            flow.port,
        );
        if told.contains(&packet) {
            continue;
        }
        if told.len() < MOST_SEEN {
            told.insert(packet);
        }
        let pairs = sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to)));
        let Some((source, destination)) = seen.denied(pairs, flow) else { continue };
        if findings.len() < MOST_FINDINGS {
            findings.extend(seen.finding(flow, source, destination));
        } else {
            more = more.saturating_add(1);
        }
    }
    if let (Some(last), 1..) = (findings.last().cloned(), more) {
        let reason = format!("{more} more packets were seen to pass that are judged denied");
        findings.push(Finding {
            reason: reason.clone(),
            covers: digest([reason.as_str()]),
            witness: None,
            ..last
        });
    }
    for flows in all {
        for (why, (count, at)) in &flows.unread {
            let entry = unjudged.entry((at.file.clone(), why)).or_insert_with(|| (0, at.clone()));
            entry.0 = entry.0.saturating_add(*count);
        }
    }
    findings.extend(unjudged.into_iter().map(|((file, why), (count, at))| {
        let what = if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
        let reason = format!("{what} cannot be held against the policies: {why}");
        let object = ObjectRef { group: "".into(), kind: "Flows".into(), namespace: None, name: file };
        Finding::certain(&catalog::FLOWS_NOT_JUDGED, object, Some(at), reason)
    }));
    findings
}

struct Seen<'a> {
    cluster: &'a Cluster,
    evaluation: &'a Evaluation<'a>,
    by_name: HashMap<(&'a str, &'a str), EndpointId>,
}

impl<'a> Seen<'a> {
    fn new(cluster: &'a Cluster, evaluation: &'a Evaluation<'a>) -> Self {
        let pods = cluster.pods.iter().enumerate();
        let by_name = pods
            .filter_map(|(i, pod)| Some(((&*pod.namespace, &*pod.object.name), evaluation.pod(i)?)))
            .collect();
        Self { cluster, evaluation, by_name }
    }

    /// Who an end of a flow may be: one endpoint, or every pod that an aggregated name stands for.
    fn ends(&self, party: &Party) -> Result<Vec<EndpointId>, &'static str> {
        const UNKNOWN_POD: &str = "the pod that it names is not in the input";
        if let Some((namespace, name)) = &party.pod {
            let found: Vec<EndpointId> = match name.strip_suffix('*') {
                None => self.by_name.get(&(&**namespace, &**name)).copied().into_iter().collect(),
                Some(start) => self.starting(namespace, start).take(MOST_PODS.saturating_add(1)).collect(),
            };
            if found.len() > MOST_PODS {
                return Err("the name that it gives stands for too many pods");
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let Some(address) = party.address else {
            return Err(if party.pod.is_some() {
                UNKNOWN_POD
            } else {
                "it names neither a pod nor an address, as aggregated logs do"
            });
        };
        let found = self.evaluation.address(address).ok_or("its address is nobody's")?;
        // A pod that is not in the input is none of the addresses outside.
        let is_outside = matches!(self.evaluation.endpoint(found), Some(Endpoint::External(_)));
        if is_outside && party.pod.is_some() { Err(UNKNOWN_POD) } else { Ok(vec![found]) }
    }

    fn starting(&self, namespace: &str, start: &str) -> impl Iterator<Item = EndpointId> {
        let pods = self.cluster.pods.iter().enumerate();
        pods.filter(move |(_, pod)| *pod.namespace == *namespace && pod.object.name.starts_with(start))
            .filter_map(|(i, _)| self.evaluation.pod(i))
    }

    /// The address of an end that has no other name.
    fn outside(&self, endpoint: EndpointId, party: &Party) -> Option<IpAddr> {
        party.address.filter(|_| matches!(self.evaluation.endpoint(endpoint), Some(Endpoint::External(_))))
    }

    /// The first pair, if each is judged denied.
    fn denied(
        &self,
        pairs: impl Iterator<Item = (EndpointId, EndpointId)>,
        flow: &Flow,
    ) -> Option<(EndpointId, EndpointId)> {
        let mut first = None;
        for (source, destination) in pairs {
            // A node's packet may be that of the pod's own node, a kubelet's probe: it contradicts nothing unless each reading does.
            let sources = self.evaluation.seen_from(destination, source);
            let destinations = self.evaluation.seen_from(source, destination);
            for (from, to) in sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to)))
            {
                if !self.evaluation.verdict(from, to).denied.contains(flow.protocol, flow.port) {
                    return None;
                }
                first = first.or(Some((from, to)));
            }
        }
        first
    }

    fn finding(&self, flow: &Flow, source: EndpointId, destination: EndpointId) -> Option<Finding> {
        let explanation = self.evaluation.explain(source, destination);
        let steps = explanation.egress.iter().chain(&explanation.ingress);
        let rules =
            steps.filter(|step| step.traffic.contains(flow.protocol, flow.port)).map(deciding).collect();
        let pod = [destination, source].into_iter().find_map(|end| match self.evaluation.endpoint(end) {
            Some(Endpoint::Pod(pod)) => self.cluster.pods.get(*pod),
            _ => None,
        })?;
        // Addresses outside are judged by the block, and seen one by one.
        let name = |end, party: &Party| {
            self.outside(end, party).map_or_else(|| self.evaluation.name(end), |address| address.to_string())
        };
        let lasting = |end, party: &Party| {
            self.outside(end, party)
                .map_or_else(|| stable_end(self.cluster, self.evaluation, end), |address| address.to_string())
        };
        let (from, to) = (name(source, &flow.source), name(destination, &flow.destination));
        let reason = format!("{from} was seen to reach {to}, which is judged denied");
        let covers = format!(
            "{} {} {} {}",
            lasting(source, &flow.source),
            lasting(destination, &flow.destination),
            flow.protocol,
            flow.port
        );
        let witness =
            Witness { source: from, destination: to, protocol: flow.protocol, port: flow.port, rules };
        Some(Finding {
            witness: Some(witness),
            subject: stable_name(pod),
            covers: digest([covers.as_str()]),
            ..Finding::certain(&catalog::FLOW_CONTRADICTS, pod.object.clone(), Some(flow.at.clone()), reason)
        })
    }
}
