//! The whole audit: intents, policies, rights, hardening and observed flows, under one profile.

use super::baseline::Baseline;
use super::behind::Behind;
use super::flows::Flows;
use super::intent::Intent;
use super::reach::{Check, Gathered};
use super::{Finding, Outcome, Summary, access, agents, assumed, catalog, hardening, lint, seen};
use crate::cluster::{Cluster, WorkerPool};
use crate::evaluate::{EvaluateError, Evaluation, Options};
use crate::matching::{DomainPattern, Match};
use crate::places;
use crate::profile::Profile;
use crate::read::UNREAD;
use crate::report::packet;
use crate::sets::AddressSet;
use crate::truth::Truth;
use jiff::civil::Date;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What to audit, and under which assumptions.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its CNI.
    pub profile: Profile,
    /// Whether there is nothing but the input.
    pub complete: bool,
    /// What is to be proved.
    pub intents: Vec<Intent>,
    /// Blocks that pods get addresses from, where known.
    pub pod_cidrs: Option<AddressSet>,
    /// Accepted findings.
    pub baseline: Option<&'a Baseline>,
    /// The day it is.
    pub today: Date,
    /// Observed flows.
    pub flows: &'a [Flows],
}

/// Audits.
///
/// # Errors
/// The cluster is larger than can be evaluated.
pub fn run(request: &Request<'_>) -> Result<Outcome, EvaluateError> {
    let cluster = request.cluster;
    let evaluation = Evaluation::new(cluster, request.profile, options(request))?;
    let behind = Behind::new(cluster, request.profile, &evaluation);
    let check = Check { cluster, evaluation: &evaluation, behind: &behind, complete: request.complete };
    let agents = agents::look(cluster, request.profile);
    let mut gathered = Gathered::default();
    let mut hardened: BTreeSet<usize> = BTreeSet::new();
    let mut audited: BTreeSet<usize> = BTreeSet::new();
    for intent in &request.intents {
        let pods = check.pods(&intent.from);
        let mut doubts = agents.doubts.clone();
        doubts.extend(pods.iter().filter_map(|(_, pod, _)| cluster.pods.get(*pod)?.networks.clone()));
        check.run(intent, &doubts, &mut gathered)?;
        audited.extend(pods.iter().map(|(_, pod, _)| *pod));
        if intent.hardened {
            hardened.extend(pods.iter().map(|(_, pod, _)| *pod));
        }
    }
    let mut findings = gathered.findings;
    findings.extend(lint::findings(cluster, request.profile));
    findings.extend(lint::not_isolated(cluster, request.profile, &audited));
    let pods =
        |indices: &BTreeSet<usize>| indices.iter().filter_map(|i| cluster.pods.get(*i)).collect::<Vec<_>>();
    for pod in pods(&hardened) {
        findings.extend(hardening::findings(pod, cluster));
    }
    let namespaces: BTreeSet<Arc<str>> = pods(&audited).iter().map(|pod| pod.namespace.clone()).collect();
    let accounts =
        pods(&hardened).iter().map(|pod| (pod.namespace.clone(), pod.service_account.clone())).collect();
    if !namespaces.is_empty() {
        findings.extend(access::findings(cluster, &namespaces, &accounts));
    }
    findings.extend(shared_storage(cluster));
    findings.extend(agents.findings);
    findings.extend(seen::findings(request.flows, cluster, &evaluation));

    findings.sort_by(|a, b| {
        let key =
            |f: &Finding| (std::cmp::Reverse((f.certain, f.severity)), f.id, f.object.clone(), f.at.clone());
        key(a).cmp(&key(b))
    });
    findings.dedup_by(|a, b| a.id == b.id && a.object == b.object && a.at == b.at && a.reason == b.reason);
    let (findings, accepted) = match request.baseline {
        Some(baseline) => baseline.apply(findings, request.today),
        None => (findings, Vec::new()),
    };
    let mut outcome = Outcome {
        proved: Truth::Unknown,
        sentence: String::new(),
        profile: request.profile,
        assumptions: assumptions(request),
        intents: gathered.results,
        findings,
        accepted,
        reach: gathered.reach.into_iter().collect(),
        input: Summary {
            namespaces: cluster.namespaces.len(),
            pods: cluster.pods.len(),
            nodes: cluster.nodes.len(),
            services: cluster.services.len(),
            policies: cluster.policies.iter().filter(|policy| *policy.object.name != *UNREAD).count(),
            complete: request.complete,
        },
    };
    outcome.proved = verdict(&outcome);
    outcome.sentence = sentence(&outcome);
    Ok(outcome)
}

/// Addresses and names that the intents and every audit ask about, so that each is an endpoint of its own.
fn options(request: &Request<'_>) -> Options {
    let mut addresses: Vec<AddressSet> = places::each_metadata_address().collect();
    addresses.push(places::kube_api_addresses(request.cluster));
    addresses.push(places::service_addresses(request.cluster));
    let mut domains = Vec::new();
    for intent in &request.intents {
        let peers = intent.may.iter().flatten().chain(&intent.must).chain(&intent.must_not);
        for peer in peers.chain(intent.reached_by.iter().flatten()) {
            mentioned(&peer.who, &mut addresses, &mut domains);
        }
    }
    addresses.retain(|set| !set.is_empty());
    Options {
        addresses,
        trusted_domains: domains.clone(),
        domains,
        pod_cidrs: request.pod_cidrs.clone(),
        imagine: true,
    }
}

fn mentioned(who: &Match, addresses: &mut Vec<AddressSet>, domains: &mut Vec<Arc<str>>) {
    match who {
        Match::All(parts) | Match::OneOf(parts) => {
            for part in parts {
                mentioned(part, addresses, domains);
            }
        }
        Match::Not(inner) => mentioned(inner, addresses, domains),
        Match::Address(set) | Match::Cidr(set) => addresses.push(set.clone()),
        Match::Domain(DomainPattern::Name(name)) => domains.push(name.clone()),
        _ => {}
    }
}

fn assumptions(request: &Request<'_>) -> Vec<String> {
    let mut all = assumed(request.profile, request.complete);
    let domains: Vec<&str> = request
        .intents
        .iter()
        .flat_map(|intent| intent.may.iter().flatten())
        .filter_map(|peer| {
            if let Match::Domain(DomainPattern::Name(name)) = &peer.who { Some(&**name) } else { None }
        })
        .collect();
    if !domains.is_empty() {
        all.push(format!("{} resolve to nothing but what they are meant to", domains.join(", ")));
    }
    all.push("a pod's own node reaches it, for the kubelet's probes".into());
    all.push(
        "nobody outside sends to cluster addresses of Services by way of a node, which would take the sender's place".into(),
    );
    all
}

/// Violations that the baseline accepts do not count as proved; they only let the exit code be 0.
fn verdict(outcome: &Outcome) -> Truth {
    let accepted = outcome.accepted.iter().map(|accepted| &accepted.finding);
    let broken = outcome.findings.iter().chain(accepted).any(breaks_the_proof);
    let intents = outcome.intents.iter().map(|intent| intent.proved).min().unwrap_or(Truth::Unknown);
    if broken { Truth::No } else { intents }
}

/// Whether a finding is a violation by itself, whatever the intents' own packets say: policies that nobody enforces, a worker that
/// is not as it must be, a packet that was seen to pass. What is wrong with a policy's text is not: its packets are judged without.
fn breaks_the_proof(finding: &Finding) -> bool {
    let of_worker = finding.id >= "MF4" && finding.id < "MF5";
    let always = [
        catalog::ENFORCEMENT_OFF.id,
        catalog::NOT_MANAGED.id,
        catalog::WORKER_HAS_RIGHTS.id,
        catalog::FLOW_CONTRADICTS.id,
    ];
    finding.certain.must()
        && finding.severity == super::Severity::Error
        && (of_worker || always.contains(&finding.id))
}

fn sentence(outcome: &Outcome) -> String {
    let pods: usize = outcome.intents.iter().map(|intent| intent.pods).sum();
    let worst = outcome.findings.iter().find(|f| f.certain.must() && f.severity == super::Severity::Error);
    let errors =
        outcome.findings.iter().filter(|f| f.certain.must() && f.severity == super::Severity::Error).count();
    let more = match errors.saturating_sub(1) {
        0 => String::new(),
        1 => ", and 1 more error".into(),
        more => format!(", and {more} more errors"),
    };
    match outcome.proved {
        _ if outcome.intents.is_empty() => {
            "Unknown: no intent was given, so there is nothing to prove.".into()
        }
        Truth::Yes => {
            let names: Vec<String> = outcome.intents.iter().map(|intent| intent.name.to_string()).collect();
            let what = if pods == 1 { "1 pod".to_owned() } else { format!("all {pods} pods") };
            format!("Proved for {what}: {}.", names.join("; "))
        }
        Truth::No => match worst {
            Some(finding) => {
                let packet =
                    finding.witness.as_ref().map(|w| format!(" ({})", packet(w))).unwrap_or_default();
                format!("Violated: {}: {}{packet}{more}.", finding.object, finding.reason)
            }
            None => format!("Violated, and accepted by the baseline{}.", accepted(outcome)),
        },
        Truth::Unknown => {
            let open = outcome.intents.iter().find(|intent| intent.proved == Truth::Unknown);
            let doubt = open.and_then(|intent| intent.doubts.first()).map(|doubt| format!(": {doubt}"));
            let name = open.map(|intent| intent.name.to_string()).unwrap_or_default();
            format!("Unknown whether {name}{}.", doubt.unwrap_or_default())
        }
    }
}

/// Of a violated outcome without an error that is not accepted: how many are, until when, and what that leaves.
fn accepted(outcome: &Outcome) -> String {
    let errors: Vec<&super::Accepted> = outcome
        .accepted
        .iter()
        .filter(|accepted| accepted.finding.severity == super::Severity::Error)
        .collect();
    let first = errors.iter().map(|accepted| accepted.expires.as_str()).min().unwrap_or_default();
    let what = match errors.len() {
        1 => format!("1 error is, until {first}"),
        many => format!("{many} errors are, the first until {first}"),
    };
    match outcome.exit_code() {
        0 => format!(" ({what}; the exit code is 0)"),
        _ => format!(" ({what}); whether anything else is, is not known"),
    }
}

impl Outcome {
    /// What a pipeline is to do: 0 go on, 1 stop, 2 nobody knows.
    ///
    /// It is the verdict's own (0 proved, 1 violated, 2 unknown) but where somebody answers for every error: an acceptance does
    /// not make the verdict another, and lets the pipeline go on for what was accepted and for nothing else. What is unknown
    /// beside it keeps the 2.
    pub fn exit_code(&self) -> u8 {
        let open = self.findings.iter().any(|f| f.certain.must() && f.severity == super::Severity::Error);
        match self.proved {
            Truth::Yes => 0,
            Truth::No if open || self.accepted.is_empty() => 1,
            Truth::No if self.intents.iter().any(|intent| !intent.doubts.is_empty()) => 2,
            Truth::No => 0,
            Truth::Unknown => 2,
        }
    }
}

/// Presigned pools: storage that their workers may reach is shared unless the pool's only; another pool's use of it shows more,
/// an address of nobody else's in the cluster shows nothing.
fn shared_storage(cluster: &Cluster) -> Vec<Finding> {
    let pools = cluster.worker_pools.iter().filter(|pool| !pool.storage_endpoints.is_empty());
    pools
        .map(|pool| {
            let endpoints: Vec<&str> = pool.storage_endpoints.iter().map(|endpoint| &**endpoint).collect();
            let uses = |other: &&WorkerPool| {
                other.object != pool.object
                    && other.tenant != pool.tenant
                    && other
                        .storage_endpoints
                        .iter()
                        .any(|endpoint| pool.storage_endpoints.contains(endpoint))
            };
            let beside = cluster.worker_pools.iter().find(uses);
            let beside = beside.map(|other| format!(", as those of {} do for another tenant", other.object));
            let reason = format!(
                "its workers reach {} themselves{}, which is weaker than reaching the broker alone",
                endpoints.join(", "),
                beside.unwrap_or_default()
            );
            Finding::certain(&catalog::SHARED_STORAGE, pool.object.clone(), Some(pool.at.clone()), reason)
        })
        .collect()
}
