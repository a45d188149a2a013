//! What is open at an address that is nobody's own, and who answers there.

use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster, Endpoints, Pod, Service, ServicePort, TargetPort};
use crate::evaluate::{Endpoint, EndpointId, Evaluation};
use crate::sets::{PortSet, Protocol, Traffic};
use crate::truth::Truth;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// A port of a Service, or a host port, with those who answer there.
pub(super) struct Opening<'a> {
    pub(super) what: What<'a>,
    pub(super) protocol: Protocol,
    pub(super) backends: Vec<Backend>,
}

/// What is open.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    /// A port of a Service, which has this index.
    Service { index: usize, service: &'a Service, port: &'a ServicePort },
    /// A port of the node that a pod runs on, at one of its addresses or at all of them.
    HostPort { pod: &'a Pod, port: u16, address: Option<IpAddr> },
}

/// Somebody who answers.
pub(super) struct Backend {
    pub(super) endpoint: EndpointId,
    pub(super) target: Traffic,
    /// Whether it does.
    pub(super) is: Truth,
    pub(super) node: Option<Arc<str>>,
}

/// Everything that is open in a cluster: the ports of each Service in their order, then host ports.
pub(super) fn openings<'a>(cluster: &'a Cluster, evaluation: &Evaluation<'_>) -> Vec<Opening<'a>> {
    let index = Index::new(cluster, evaluation);
    let mut openings = Vec::new();
    for (at, service) in cluster.services.iter().enumerate() {
        let selected = index.selected(service);
        for port in &service.ports {
            let backends = index.backends(service, port, &selected);
            let what = What::Service { index: at, service, port };
            openings.push(Opening { what, protocol: port.protocol, backends });
        }
    }
    for (at, pod) in cluster.pods.iter().enumerate().filter(|(_, pod)| !pod.host_network) {
        let Some(endpoint) = evaluation.pod(at) else { continue };
        for port in &pod.ports {
            let Some(number) = port.host_port else { continue };
            // Only the node itself can send to its loopback address.
            if port.host_ip.is_some_and(|address| address.is_loopback()) {
                continue;
            }
            let target = Traffic::to(port.protocol, PortSet::one(port.port));
            let backend = Backend { endpoint, target, is: Truth::Yes, node: pod.node.clone() };
            let what = What::HostPort { pod, port: number, address: port.host_ip };
            openings.push(Opening { what, protocol: port.protocol, backends: vec![backend] });
        }
    }
    openings
}

/// Pods by what selectors and slices ask for.
struct Index<'a> {
    cluster: &'a Cluster,
    evaluation: &'a Evaluation<'a>,
    /// By namespace, label and value.
    labels: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    /// By namespace, those whose labels are not all known.
    templates: HashMap<&'a str, Vec<usize>>,
    names: HashMap<(&'a str, &'a str), usize>,
    /// By namespace and name of their Service.
    endpoints: HashMap<(&'a str, &'a str), Vec<&'a Endpoints>>,
}

impl<'a> Index<'a> {
    fn new(cluster: &'a Cluster, evaluation: &'a Evaluation<'a>) -> Self {
        let mut own = Self {
            cluster,
            evaluation,
            labels: HashMap::new(),
            templates: HashMap::new(),
            names: HashMap::new(),
            endpoints: HashMap::new(),
        };
        // Labels that no selector asks for would only fill the index.
        let selectors = cluster.services.iter().filter_map(|service| service.selector.as_ref());
        let asked: BTreeSet<&str> = selectors.flatten().map(|(key, _)| &**key).collect();
        for (i, pod) in cluster.pods.iter().enumerate() {
            for (key, value) in pod.labels.iter().filter(|(key, _)| asked.contains(&***key)) {
                own.labels.entry((&pod.namespace, key, value)).or_default().push(i);
            }
            if pod.is_template {
                own.templates.entry(&pod.namespace).or_default().push(i);
            }
            own.names.entry((&pod.namespace, &pod.object.name)).or_insert(i);
        }
        for endpoints in &cluster.endpoints {
            own.endpoints.entry((&endpoints.namespace, &endpoints.service)).or_default().push(endpoints);
        }
        own
    }

    /// The pods that a Service's selector selects, or may: what a controller adds to a template's labels is not known.
    fn selected(&self, service: &'a Service) -> Vec<(usize, Truth)> {
        let Some(selector) = &service.selector else { return Vec::new() };
        let with = |(key, value): (&'a Arc<str>, &'a Arc<str>)| {
            let known = self.labels.get(&(&*service.namespace, &**key, &**value));
            known.map(Vec::as_slice).unwrap_or_default()
        };
        let is_known = |(key, _): &(&Arc<str>, &Arc<str>)| !ADDED_BY_CONTROLLERS.contains(&&***key);
        let candidates = match selector.iter().filter(is_known).map(with).min_by_key(|pods| pods.len()) {
            Some(fewest) => fewest.to_vec(),
            None => {
                let mut all = selector.iter().next().map(with).unwrap_or_default().to_vec();
                all.extend(self.templates.get(&*service.namespace).into_iter().flatten());
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        let judged = candidates.into_iter().filter_map(|i| {
            let is = selects(selector, self.cluster.pods.get(i)?);
            is.may().then_some((i, is))
        });
        judged.collect()
    }

    /// Who answers for a Service's port: the pods that its selector selects, and whatever its EndpointSlices list besides.
    fn backends(&self, service: &Service, port: &ServicePort, selected: &[(usize, Truth)]) -> Vec<Backend> {
        let mut found: BTreeMap<(EndpointId, Traffic), Truth> = BTreeMap::new();
        let mut add = |endpoint, target: Traffic, is: Truth| {
            if !target.is_none() {
                let known = found.entry((endpoint, target)).or_insert(is);
                *known = is.or(*known);
            }
        };
        for (i, is) in selected {
            if let (Some(pod), Some(endpoint)) = (self.cluster.pods.get(*i), self.evaluation.pod(*i)) {
                add(endpoint, target(port, pod), *is);
            }
        }
        let slices = self.endpoints.get(&(&*service.namespace, &*service.object.name));
        for endpoints in slices.into_iter().flatten() {
            let ports = endpoints.ports.iter().filter(|own| {
                let same = own.name.is_none() || port.name.is_none() || own.name == port.name;
                same && own.protocol == port.protocol
            });
            let target = Traffic::to(port.protocol, PortSet::of(ports.map(|own| (own.port, own.port))));
            for (address, name) in &endpoints.addresses {
                if let Some(endpoint) = self.at(*address, &endpoints.namespace, name.as_ref()) {
                    add(endpoint, target.clone(), Truth::Yes);
                }
            }
        }
        let backend = |((endpoint, target), is)| {
            let node = pod_of(self.cluster, self.evaluation, endpoint).and_then(|pod| pod.node.clone());
            Backend { endpoint, target, is, node }
        };
        found.into_iter().map(backend).collect()
    }

    /// Who has an address. What is at no pod's address may be that of a pod whose address the input does not say.
    fn at(&self, address: IpAddr, namespace: &str, name: Option<&Arc<str>>) -> Option<EndpointId> {
        let at = self.evaluation.address(address);
        let is_outside =
            |id: &EndpointId| matches!(self.evaluation.endpoint(*id), Some(Endpoint::External(_)));
        let by_name = || self.evaluation.pod(*self.names.get(&(namespace, &**name?))?);
        at.filter(|id| !is_outside(id)).or_else(by_name).or(at)
    }
}

/// What a pod gets of what is sent to a Service's port.
fn target(port: &ServicePort, pod: &Pod) -> Traffic {
    let ports = match &port.target {
        TargetPort::Number(number) => PortSet::one(*number),
        TargetPort::Name(name) => PortSet::of(
            pod.ports
                .iter()
                .filter(|own| own.name.as_ref() == Some(name) && own.protocol == port.protocol)
                .map(|own| (own.port, own.port)),
        ),
    };
    Traffic::to(port.protocol, ports)
}

fn selects(selector: &crate::cluster::Labels, pod: &Pod) -> Truth {
    Truth::all(selector.iter().map(|(key, value)| match pod.labels.get(key) {
        Some(own) => Truth::from(own == value),
        None if pod.is_template && ADDED_BY_CONTROLLERS.contains(&&**key) => Truth::Unknown,
        None => Truth::No,
    }))
}

/// The pod that an endpoint is.
pub(super) fn pod_of<'a>(
    cluster: &'a Cluster,
    evaluation: &Evaluation<'_>,
    endpoint: EndpointId,
) -> Option<&'a Pod> {
    match evaluation.endpoint(endpoint) {
        Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => cluster.pods.get(*i),
        _ => None,
    }
}
