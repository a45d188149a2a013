//! Policies as written → [`Policy`], with the sets and Services of the whole input.

use super::members::{Members, all, any, not};
use super::policy::RawPolicy;
use super::rule::{Entity, RawRule, ServiceName};
use super::selector::{NAMESPACE, OF_NAMESPACE, Selector};
use super::{Kind as Read, Parsed};
use crate::cluster::{Cluster, Labels, Pod, Service, ServicePort, TargetPort};
use crate::matching::{Kind, LabelOwner, Match, Test, TrafficMatch};
use crate::policy::{Action, Dialect, Direction, Place, Policy, Rule, Section};
use crate::sets::{AddressSet, Cidr, PortSet};
use crate::truth::{Doubt, Truth};
use std::sync::Arc;

/// Tiers that are there without being in the input: Calico makes them when it starts.
const OWN_TIERS: [&str; 5] =
    ["default", "kube-admin", "kube-baseline", "adminnetworkpolicy", "baselineadminnetworkpolicy"];

/// Links everything that was read. Tiers must be in the cluster ([`super::enter`]), as must Services and endpoints.
///
/// A rule may narrow whom its policy selects: by its source, if it is of egress, by its destination, if of ingress. Such a
/// policy becomes several of the same object, one after the other in the same place, which together say the same: within a
/// tier Calico asks rule after rule, whichever policy they are in.
pub(in crate::read) fn link(parsed: Vec<Parsed>, cluster: &Cluster) -> Vec<Policy> {
    let sets = parsed.iter().filter_map(|Parsed(kind)| match kind {
        Read::Nets(nets) | Read::HostEndpoint(_, nets) => Some(nets),
        _ => None,
    });
    let linker = Linker { members: Members::new(cluster, sets.collect()), cluster };
    let mut policies = Vec::new();
    for Parsed(kind) in &parsed {
        match kind {
            Read::Policy(raw) => linker.policy(raw, &mut policies),
            Read::Inert(policy) => policies.push(Policy::clone(policy)),
            _ => {}
        }
    }
    policies
}

struct Linker<'a> {
    cluster: &'a Cluster,
    members: Members<'a>,
}

/// Rules in a row that speak of the same of those whom the policy selects.
struct Group {
    narrowed: Match,
    rules: Vec<Rule>,
}

impl Linker<'_> {
    fn policy(&self, raw: &RawPolicy, policies: &mut Vec<Policy>) {
        let mut doubts = raw.doubts.clone();
        if !OWN_TIERS.contains(&&*raw.tier) && !self.cluster.tiers.contains_key(&raw.tier) {
            let what = format!(
                "the tier {} is not in the input: its order and default action are not known",
                raw.tier
            );
            doubts.push(Doubt::at(what, &raw.at));
        }
        let subject = self.members.pods(&raw.subject);
        let policy = |subject: Match, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>| Policy {
            object: raw.object.clone(),
            at: raw.at.clone(),
            dialect: Dialect::Calico,
            place: Place::Calico { tier: raw.tier.clone(), order: raw.order },
            subject,
            ingress: ingress.map(|rules| Section { isolates: Truth::Yes, rules }),
            egress: egress.map(|rules| Section { isolates: Truth::Yes, rules }),
            doubts: doubts.clone(),
            inert: raw.inert.clone(),
            inert_rules: raw.inert_rules.clone(),
        };
        let namespace = raw.object.namespace.as_ref();
        let groups = |rules: &Option<Vec<RawRule>>, direction| {
            rules.as_ref().map(|rules| self.groups(rules, direction, namespace))
        };
        let (mut ingress, mut egress) =
            (groups(&raw.ingress, Direction::Ingress), groups(&raw.egress, Direction::Egress));
        // The first one has the rules for all whom it selects, and is there even without: it makes its tier count.
        let (first_in, first_out) = (ingress.as_mut().map(first), egress.as_mut().map(first));
        policies.push(policy(subject.clone(), first_in, first_out));
        for group in ingress.into_iter().flatten() {
            policies.push(policy(all([subject.clone(), group.narrowed]), Some(group.rules), None));
        }
        for group in egress.into_iter().flatten() {
            policies.push(policy(all([subject.clone(), group.narrowed]), None, Some(group.rules)));
        }
    }

    fn groups(&self, rules: &[RawRule], direction: Direction, namespace: Option<&Arc<str>>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for raw in rules {
            let Some(action) = raw.action else { continue };
            let (peer, subject) = match direction {
                Direction::Ingress => (&raw.source, &raw.destination),
                Direction::Egress => (&raw.destination, &raw.source),
            };
            let narrowed = self.entity(subject, namespace);
            if narrowed == Match::Nothing {
                continue;
            }
            let rules = self.rule(raw, action, peer, direction, namespace);
            match groups.last_mut() {
                Some(last) if last.narrowed == narrowed => last.rules.extend(rules),
                _ => groups.push(Group { narrowed, rules }),
            }
        }
        groups
    }

    /// One rule, or one for each group of a Service's backends.
    fn rule(
        &self,
        raw: &RawRule,
        action: Action,
        peer: &Entity,
        direction: Direction,
        namespace: Option<&Arc<str>>,
    ) -> Vec<Rule> {
        let mut common = vec![self.entity(peer, namespace)];
        // Positive nets say their family themselves.
        let family = raw.family.filter(|_| peer.nets.is_empty());
        common.extend(family.map(|family| Match::Address(AddressSet::family(family))));
        common.extend(raw.doubts.iter().cloned().map(Match::Doubt));
        let rule = |peer: Match, traffic: TrafficMatch| Rule {
            path: raw.path.clone(),
            at: raw.at.clone(),
            action,
            peer,
            traffic,
            note: raw.note.clone(),
        };
        let Some(service) = &peer.services else {
            return vec![rule(all(common), raw.traffic.clone())];
        };
        let with = |backends: Match| all(common.iter().cloned().chain([backends]));
        let backends = self.backends(service, namespace);
        match direction {
            // As a source, a Service is its backends' addresses, whatever the port.
            Direction::Ingress => {
                let which = any(backends.into_iter().map(|backend| backend.which));
                vec![rule(with(which), raw.traffic.clone())]
            }
            Direction::Egress => backends
                .into_iter()
                .map(|backend| rule(with(backend.which), both(raw.traffic.clone(), backend.traffic)))
                .collect(),
        }
    }

    /// Whom a source or a destination matches, but for its Service and its ports (`getEndpointSelector` of
    /// `updateprocessors/rules.go`, `combineMatchesIfPossible` of `felix/calc/rule_scanner.go`).
    fn entity(&self, entity: &Entity, namespace: Option<&Arc<str>>) -> Match {
        let mut parts = Vec::new();
        match (positive(entity, namespace), &entity.not_selector) {
            (None, None) => {}
            (Some(positive), None) => parts.push(self.members.of(&positive)),
            (None, Some(negative)) => parts.push(not(self.members.of(negative))),
            (Some(positive), Some(negative)) => {
                parts.push(self.members.of(&positive.and(Selector::Not(Box::new(negative.clone())))));
            }
        }
        let blocks = |nets: &[Cidr]| Match::Cidr(AddressSet::blocks(nets.iter().copied()));
        if !entity.nets.is_empty() {
            parts.push(blocks(&entity.nets));
        }
        if !entity.not_nets.is_empty() {
            parts.push(not(blocks(&entity.not_nets)));
        }
        all(parts)
    }

    /// The backends of a Service, as Felix learns them from its EndpointSlices (`felix/serviceindex`).
    fn backends(&self, name: &ServiceName, namespace: Option<&Arc<str>>) -> Vec<Backends> {
        let namespace: Arc<str> = name.namespace.clone().or_else(|| namespace.cloned()).unwrap_or_default();
        let endpoints =
            self.cluster.endpoints.iter().filter(|e| e.namespace == namespace && e.service == name.name);
        let known: Vec<Backends> = endpoints
            .map(|endpoints| {
                let addresses = endpoints.addresses.iter().map(|(address, _)| Cidr::host(*address));
                let mut pods: Vec<Arc<str>> =
                    endpoints.addresses.iter().filter_map(|(_, pod)| pod.clone()).collect();
                pods.sort_unstable();
                pods.dedup();
                let by_name = (!pods.is_empty()).then(|| {
                    all([Match::Kind(Kind::Pod), in_namespace(&namespace), Match::Name(Test::In(pods))])
                });
                let by_address = Match::Address(AddressSet::blocks(addresses));
                let traffic = endpoints
                    .ports
                    .iter()
                    .map(|port| TrafficMatch::Ports(port.protocol, PortSet::one(port.port)));
                Backends {
                    which: any([by_address].into_iter().chain(by_name)),
                    traffic: TrafficMatch::OneOf(traffic.collect()),
                }
            })
            .collect();
        if !known.is_empty() {
            return known;
        }
        let service = self
            .cluster
            .services
            .iter()
            .find(|service| service.namespace == namespace && service.object.name == name.name);
        let selector = service.and_then(|s| s.selector.as_ref()).filter(|labels| !labels.is_empty());
        if let Some((service, selector)) = service.zip(selector) {
            let traffic = TrafficMatch::OneOf(service.ports.iter().map(target).collect());
            return vec![Backends { which: self.selected(service, selector), traffic }];
        }
        if (&*namespace, &*name.name) == ("default", "kubernetes") {
            let ports = service.map(|service| service.ports.iter().map(target).collect());
            let traffic = TrafficMatch::OneOf(ports.unwrap_or_else(|| {
                let what = "the port of the API server's endpoints is not in the input";
                vec![TrafficMatch::Doubt(Doubt::at(what, &name.at))]
            }));
            return vec![Backends { which: Match::KubeApiServer, traffic }];
        }
        let what = match service {
            Some(service) if &*service.kind == "ExternalName" => return Vec::new(),
            Some(_) => format!("the endpoints of Service {namespace}/{} are not in the input", name.name),
            None => format!("Service {namespace}/{} is not in the input", name.name),
        };
        vec![Backends { which: Match::Doubt(Doubt::at(what, &name.at)), traffic: TrafficMatch::Anything }]
    }

    /// The pods that a Service selects; host-network ones by the address that they share with their node.
    fn selected(&self, service: &Service, selector: &Labels) -> Match {
        let label = |(key, value): (&Arc<str>, &Arc<str>)| {
            Match::label(LabelOwner::Endpoint, key.clone(), value.clone())
        };
        let own = [Match::Kind(Kind::Pod), in_namespace(&service.namespace)];
        let pods = all(own.into_iter().chain(selector.iter().map(label)));
        let on_hosts = self.cluster.pods.iter().filter(|pod| {
            pod.host_network
                && pod.namespace == service.namespace
                && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        });
        any([pods].into_iter().chain(on_hosts.map(by_host)))
    }
}

/// Backends of a Service, and what reaches them.
struct Backends {
    which: Match,
    traffic: TrafficMatch,
}

/// Takes the rules for all whom the policy selects, if they come first.
fn first(groups: &mut Vec<Group>) -> Vec<Rule> {
    if groups.first().is_some_and(|group| group.narrowed == Match::Anything) {
        groups.remove(0).rules
    } else {
        Vec::new()
    }
}

fn positive(entity: &Entity, namespace: Option<&Arc<str>>) -> Option<Selector> {
    let endpoints = match (entity.service_accounts.clone(), entity.selector.clone()) {
        (Some(accounts), Some(selector)) => Some(accounts.and(selector)),
        (accounts, selector) => accounts.or(selector),
    };
    let namespaces = match (&entity.namespace_selector, namespace) {
        (Some(selector), _) => Some(selector.clone().inherited(OF_NAMESPACE)),
        // In a namespaced policy any selector, also notSelector, is about its own namespace; nets alone are not.
        (None, Some(own)) if endpoints.is_some() || entity.not_selector.is_some() => {
            Some(Selector::Label(NAMESPACE.into(), Test::Is(own.clone())))
        }
        _ => None,
    };
    match (namespaces, endpoints) {
        (Some(namespaces), Some(endpoints)) => Some(namespaces.and(endpoints)),
        (namespaces, endpoints) => namespaces.or(endpoints),
    }
}

fn in_namespace(name: &Arc<str>) -> Match {
    Match::Namespace(Test::Is(name.clone()))
}

fn target(port: &ServicePort) -> TrafficMatch {
    match &port.target {
        TargetPort::Number(number) => TrafficMatch::Ports(port.protocol, PortSet::one(*number)),
        TargetPort::Name(name) => TrafficMatch::NamedPort(port.protocol, name.clone()),
    }
}

fn by_host(pod: &Pod) -> Match {
    if pod.addresses.is_empty() {
        let what =
            format!("the addresses of {}, which is on its host's network, are not in the input", pod.object);
        Match::Doubt(Doubt::at(what, &pod.at))
    } else {
        Match::Address(AddressSet::blocks(pod.addresses.iter().map(|address| Cidr::host(*address))))
    }
}

fn both(a: TrafficMatch, b: TrafficMatch) -> TrafficMatch {
    match (a, b) {
        (TrafficMatch::Anything, other) | (other, TrafficMatch::Anything) => other,
        (a, b) => TrafficMatch::All(vec![a, b]),
    }
}
