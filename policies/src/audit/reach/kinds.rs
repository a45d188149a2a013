//! Which finding a packet makes, by who gets it.

use super::Check;
use super::bucket::Buckets;
use crate::audit::catalog;
use crate::audit::intent::{Intent, TENANT_LABEL};
use crate::cluster::{ContainerPort, Pod};
use crate::evaluate::{Effect, Endpoint, EndpointId};
use crate::matching::{Match, TrafficMatch};
use crate::places;
use crate::read::LISTED_NAMES_ONLY;
use crate::sets::{PortSet, Protocol, Traffic};
use crate::truth::Truth;

/// Ports of the kubelet: the authenticated one, and the read-only one of old clusters.
const KUBELET: [u16; 2] = [10250, 10255];
/// The port that resolvers are asked at.
const DNS: u16 = 53;
/// The API server's port on control-plane nodes.
const KUBE_API: u16 = 6443;

impl Check<'_> {
    /// Which findings traffic to a destination makes: each with its part of it.
    pub(super) fn kinds(
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

    pub(super) fn pod(&self, endpoint: EndpointId) -> Option<&Pod> {
        match self.evaluation.endpoint(endpoint)? {
            Endpoint::Pod(pod) | Endpoint::Sibling(pod) => self.cluster.pods.get(*pod),
            _ => None,
        }
    }

    pub(super) fn tenant(&self, endpoint: EndpointId) -> Option<&str> {
        let pod = self.pod(endpoint)?;
        let namespace = self.cluster.namespaces.get(&pod.namespace);
        pod.labels.get(TENANT_LABEL).or_else(|| namespace?.labels.get(TENANT_LABEL)).map(|tenant| &**tenant)
    }

    /// Whether somebody answers DNS, as far as is told: a pod declares such a port, or the intent names it of whoever that is.
    pub(super) fn is_resolver(&self, intent: &Intent, destination: EndpointId, endpoint: &Endpoint) -> bool {
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
    pub(super) fn resolver(
        &self,
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
            self.note(buckets, &catalog::DNS_RESOLVER, (source, destination), &dns, true);
        }
    }
}
