//! A cluster under a profile, ready to be asked about one pair at a time.

use super::core::Core;
use super::endpoints::{Item, imagined, item, items, pod_space};
use super::lower::lower;
use super::one::One;
use super::side::{Sides, verdict};
use super::{ClassId, Endpoint, EndpointId, EvaluateError, Options, Verdict};
use crate::cluster::Cluster;
use crate::matching::{Match, TrafficMatch};
use crate::places;
use crate::profile::Profile;
use crate::sets::{AddressSet, Traffic};
use crate::truth::Truth;
use std::net::IpAddr;
use std::sync::{MutexGuard, PoisonError};

/// A cluster under a profile, ready to be asked.
pub struct Evaluation<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) profile: Profile,
    pub(super) core: Core,
    pub(super) endpoints: Vec<Endpoint>,
    /// By pod, its endpoint; none of one that has finished.
    pods: Vec<Option<EndpointId>>,
    options: Options,
    /// Where pods without addresses may be.
    pod_space: AddressSet,
    /// Addresses of the API server, where the input has them.
    kube_api: AddressSet,
}

impl<'a> Evaluation<'a> {
    /// Makes a cluster ready.
    ///
    /// # Errors
    /// There are more endpoints than can be numbered.
    pub fn new(cluster: &'a Cluster, profile: Profile, options: Options) -> Result<Self, EvaluateError> {
        let made = imagined(cluster, &options);
        let (pod_space, kube_api) = (pod_space(cluster, &options), places::kube_api_addresses(cluster));
        let (core, endpoints): (Core, Vec<Endpoint>) = {
            let items = items(cluster, profile, &options, &pod_space, &made)?;
            let one = One { cluster, profile, trusted: &options.trusted_domains, kube_api: &kube_api };
            let core = Core::new(one, &items);
            (core, items.into_iter().map(|item| item.endpoint).collect())
        };
        let mut pods = vec![None; cluster.pods.len()];
        for (at, endpoint) in endpoints.iter().enumerate() {
            if let Endpoint::Pod(pod) = endpoint
                && let Some(slot) = pods.get_mut(*pod)
            {
                *slot = Some(EndpointId::at(at));
            }
        }
        Ok(Self { cluster, profile, core, endpoints, pods, options, pod_space, kube_api })
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = (EndpointId, &Endpoint)> {
        self.endpoints.iter().enumerate().map(|(i, endpoint)| (EndpointId::at(i), endpoint))
    }

    /// One endpoint.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id.index())
    }

    /// Endpoints that nothing tells apart have the same class.
    pub fn class(&self, id: EndpointId) -> ClassId {
        self.core.classes.get(id.index()).copied().unwrap_or(ClassId(u32::MAX))
    }

    /// Where this one may send, and would look different: not itself, and of nodes its own as [`Endpoint::LocalNode`].
    pub fn destinations(&self, source: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        self.others(source)
            .filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Pod(i) if self.is_finished(*i)))
    }

    /// Who may send to this one.
    pub fn sources(&self, destination: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        self.others(destination).filter(|(_, endpoint)| !matches!(endpoint, Endpoint::Domain(_)))
    }

    /// Who may send to this one and is judged for it: not its own node, whose probes no implementation keeps out, and no host-network
    /// pod that is looked at as its node.
    pub fn senders(&self, destination: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        self.sources(destination)
            .filter(|(id, endpoint)| !matches!(endpoint, Endpoint::LocalNode) && !self.is_its_node(*id))
    }

    fn others(&self, own: EndpointId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        let own_node = match self.endpoint(own) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => {
                self.cluster.pods.get(*i).and_then(|pod| pod.node.clone())
            }
            _ => None,
        };
        let own_pod = match self.endpoint(own) {
            Some(Endpoint::Pod(i)) => Some(*i),
            _ => None,
        };
        self.endpoints().filter(move |(id, endpoint)| match endpoint {
            _ if *id == own => false,
            // A sibling is another pod of one's own template, and of no other's.
            Endpoint::Sibling(i) => own_pod == Some(*i),
            Endpoint::Node(i) => {
                own_node.is_none() || self.cluster.nodes.get(*i).map(|node| &node.name) != own_node.as_ref()
            }
            _ => true,
        })
    }

    fn is_finished(&self, pod: usize) -> bool {
        self.cluster.pods.get(pod).is_some_and(|pod| pod.finished)
    }

    /// The endpoint of a pod, by its index in the cluster.
    pub fn pod(&self, index: usize) -> Option<EndpointId> {
        self.pods.get(index).copied().flatten()
    }

    /// The endpoint of a node, by its name.
    pub fn node(&self, name: &str) -> Option<EndpointId> {
        let index = self.cluster.nodes.iter().position(|node| *node.name == *name)?;
        self.endpoints().find(|(_, endpoint)| **endpoint == Endpoint::Node(index)).map(|(id, _)| id)
    }

    /// The endpoint of a name that was asked for in the options.
    pub fn domain(&self, name: &str) -> Option<EndpointId> {
        self.endpoints().find(|(_, e)| matches!(e, Endpoint::Domain(own) if **own == *name)).map(|(id, _)| id)
    }

    /// The endpoint that has an address: a pod, a node, or what is outside.
    pub fn address(&self, address: IpAddr) -> Option<EndpointId> {
        let pod = self.cluster.pods.iter().position(|pod| !pod.finished && pod.addresses.contains(&address));
        let node = || self.cluster.nodes.iter().position(|node| node.addresses.contains(&address));
        let wanted = match (pod, node()) {
            (Some(i), None) => Some(Endpoint::Pod(i)),
            // A host-network pod has its node's address.
            (_, Some(i)) => Some(Endpoint::Node(i)),
            (None, None) => None,
        };
        self.endpoints()
            .find(|(_, endpoint)| match (&wanted, endpoint) {
                (Some(wanted), _) => *endpoint == wanted,
                (None, Endpoint::External(set)) => set.contains(address),
                _ => false,
            })
            .map(|(id, _)| id)
    }

    /// Whether an intent's expression is about an endpoint.
    pub fn matches(&self, what: &Match, id: EndpointId) -> Truth {
        self.item(id).map_or(Truth::No, |item| self.one().matches(what, &item, None))
    }

    /// What an intent's traffic surely and possibly is, towards a destination.
    pub fn traffic(&self, what: &TrafficMatch, destination: EndpointId) -> (Traffic, Traffic) {
        let ports = match self.endpoint(destination) {
            Some(Endpoint::Pod(i) | Endpoint::Sibling(i)) => {
                self.cluster.pods.get(*i).map(|pod| pod.ports.as_slice())
            }
            Some(Endpoint::Imagined(_)) => None,
            _ => Some([].as_slice()),
        };
        lower(what, ports, &[], 0, None)
    }

    pub(super) fn one(&self) -> One<'_> {
        One {
            cluster: self.cluster,
            profile: self.profile,
            trusted: &self.options.trusted_domains,
            kube_api: &self.kube_api,
        }
    }

    /// An endpoint with what selectors look at.
    pub(super) fn item(&self, id: EndpointId) -> Option<Item<'_>> {
        let shape = self.core.shapes.get(id.index()).copied()?;
        let endpoint = self.endpoint(id)?;
        let pod = if let Endpoint::Imagined(pod) = endpoint { Some(&**pod) } else { None };
        Some(item(self.cluster, &self.pod_space, endpoint.clone(), shape, pod))
    }

    pub(super) fn sides(&self) -> MutexGuard<'_, Sides> {
        // Interned values stay valid whatever panicked while they were added to.
        self.core.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the source's side lets out, whatever lets it in.
    pub fn egress(&self, source: EndpointId, destination: EndpointId) -> Verdict {
        let mut sides = self.sides();
        let outcome = self.core.egress(&mut sides, source.index(), destination.index());
        verdict(&sides.traffic, sides.outcome(outcome))
    }

    /// What the destination's side lets in, whatever let it out.
    pub fn ingress(&self, source: EndpointId, destination: EndpointId) -> Verdict {
        let mut sides = self.sides();
        let outcome = self.core.ingress(&mut sides, source.index(), destination.index());
        verdict(&sides.traffic, sides.outcome(outcome))
    }

    /// The verdict on a pair.
    pub fn verdict(&self, source: EndpointId, destination: EndpointId) -> Verdict {
        let mut sides = self.sides();
        let outcome = self.core.pair(&mut sides, source.index(), destination.index());
        verdict(&sides.traffic, sides.outcome(outcome))
    }
}
