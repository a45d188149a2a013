//! Who is there: every pod, node, outside address and name that a verdict may be about, with what selectors look at.

use super::atoms::atoms;
use super::imagine::imagine;
use super::{Endpoint, EvaluateError, ImaginedPod, Options};
use crate::cluster::{Cluster, ContainerPort, Labels};
use crate::matching::Match;
use crate::policy::Policy;
use crate::profile::{Fact, Profile};
use crate::sets::{AddressSet, Cidr};
use crate::truth::Truth;
use std::net::IpAddr;
use std::sync::Arc;

/// Endpoints of one evaluation: their pairs are counted in 64 bits, their classes in 32.
const MOST: usize = 500_000;

/// How an endpoint looks to policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shape {
    /// A pod with a network of its own: the subject of policies.
    Pod,
    /// A pod in its node's network.
    HostPod,
    /// The other end's own node.
    LocalNode,
    /// Another node.
    RemoteNode,
    /// Outside addresses.
    Outside,
    /// The address of a Service, before its destination is translated.
    ServiceAddress,
    /// Whatever a name resolves to.
    Name,
}

/// An endpoint with what selectors look at.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) shape: Shape,
    pub(super) labels: Option<&'a Labels>,
    pub(super) namespace: Option<&'a Arc<str>>,
    /// Labels of an imagined namespace; those of real ones are in the cluster.
    pub(super) namespace_labels: Option<&'a Labels>,
    pub(super) service_account: Option<&'a Arc<str>>,
    pub(super) name: Option<&'a Arc<str>>,
    pub(super) addresses: Addresses,
    pub(super) ports: &'a [ContainerPort],
    pub(super) is_template: bool,
    pub(super) is_imagined: bool,
}

/// What is known of an endpoint's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Addresses {
    /// It has all of these.
    All(AddressSet),
    /// It has one of these, or several.
    Some(AddressSet),
    /// It has none that could be in a block.
    None,
}

impl Addresses {
    fn known(addresses: &[IpAddr], otherwise: &AddressSet) -> Self {
        if addresses.is_empty() {
            Self::Some(otherwise.clone())
        } else {
            Self::All(AddressSet::blocks(addresses.iter().copied().map(Cidr::host)))
        }
    }

    /// The addresses of who has nothing but single, known ones; none for all others.
    pub(super) fn hosts(&self) -> Vec<IpAddr> {
        let Self::All(own) = self else { return Vec::new() };
        if own.ranges().any(|(first, last)| first != last) {
            return Vec::new();
        }
        own.ranges().map(|(first, _)| first).collect()
    }

    /// Whether they are in a set. Where an endpoint of several addresses is only in part, it is not known.
    pub(super) fn within(&self, set: &AddressSet) -> Truth {
        match self {
            Self::None => Truth::No,
            Self::All(own) | Self::Some(own) => match (own.is_subset(set), own.intersects(set)) {
                (true, _) => Truth::Yes,
                (false, true) => Truth::Unknown,
                (false, false) => Truth::No,
            },
        }
    }
}

/// The imagined pods of an evaluation, kept apart so that items can borrow from them.
pub(super) fn imagined(cluster: &Cluster, options: &Options) -> Vec<ImaginedPod> {
    if options.imagine { imagine(cluster) } else { Vec::new() }
}

/// All endpoints of an evaluation.
pub(super) fn items<'a>(
    cluster: &'a Cluster,
    profile: Profile,
    options: &Options,
    space: &AddressSet,
    imagined: &'a [ImaginedPod],
) -> Result<Vec<Item<'a>>, EvaluateError> {
    let make = |endpoint, shape| item(cluster, space, endpoint, shape, None);
    let mut items = Vec::new();
    for (i, pod) in cluster.pods.iter().enumerate().filter(|(_, pod)| !pod.finished) {
        let shape = if pod.host_network { Shape::HostPod } else { Shape::Pod };
        items.push(make(Endpoint::Pod(i), shape));
        if pod.is_template && !pod.host_network {
            items.push(make(Endpoint::Sibling(i), shape));
        }
    }
    items.push(make(Endpoint::LocalNode, Shape::LocalNode));
    items.extend((0..cluster.nodes.len()).map(|i| make(Endpoint::Node(i), Shape::RemoteNode)));
    if cluster.nodes.is_empty() {
        items.push(make(Endpoint::AnyNode, Shape::RemoteNode));
    }
    items.extend(
        imagined.iter().map(|pod| {
            item(cluster, space, Endpoint::Imagined(Box::new(pod.clone())), Shape::Pod, Some(pod))
        }),
    );
    items.extend(options.domains.iter().map(|domain| make(Endpoint::Domain(domain.clone()), Shape::Name)));
    outside(cluster, profile, options, &mut items, &make);
    if items.len() > MOST {
        Err(EvaluateError::TooMany { endpoints: items.len(), most: MOST })
    } else {
        Ok(items)
    }
}

/// One endpoint with what selectors look at; `pod` is the imagined pod that it is, if it is one.
pub(super) fn item<'a>(
    cluster: &'a Cluster,
    pod_space: &AddressSet,
    endpoint: Endpoint,
    shape: Shape,
    pod: Option<&'a ImaginedPod>,
) -> Item<'a> {
    let mut item = Item {
        endpoint,
        shape,
        labels: None,
        namespace: None,
        namespace_labels: None,
        service_account: None,
        name: None,
        addresses: Addresses::None,
        ports: &[],
        is_template: false,
        is_imagined: false,
    };
    match &item.endpoint {
        Endpoint::Pod(i) | Endpoint::Sibling(i) => {
            let Some(pod) = cluster.pods.get(*i) else { return item };
            item.addresses = if pod.host_network && pod.addresses.is_empty() {
                let node = cluster.nodes.iter().find(|node| Some(&node.name) == pod.node.as_ref());
                Addresses::known(
                    node.map(|node| node.addresses.as_slice()).unwrap_or_default(),
                    &AddressSet::full(),
                )
            } else {
                Addresses::known(&pod.addresses, pod_space)
            };
            item.labels = Some(&pod.labels);
            item.namespace = Some(&pod.namespace);
            item.service_account = Some(&pod.service_account);
            item.name = Some(&pod.object.name);
            item.ports = &pod.ports;
            item.is_template = pod.is_template;
        }
        Endpoint::LocalNode => item.addresses = own_node_addresses(cluster),
        Endpoint::AnyNode => item.addresses = Addresses::Some(AddressSet::full()),
        Endpoint::Node(i) => {
            let Some(node) = cluster.nodes.get(*i) else { return item };
            item.addresses = Addresses::known(&node.addresses, &AddressSet::full());
            item.labels = Some(&node.labels);
            item.name = Some(&node.name);
        }
        Endpoint::External(set) => item.addresses = Addresses::All(set.clone()),
        Endpoint::Domain(_) => item.addresses = Addresses::Some(AddressSet::full()),
        Endpoint::Imagined(_) => {
            item.addresses = Addresses::Some(pod_space.clone());
            item.is_imagined = true;
            if let Some(pod) = pod {
                item.labels = Some(&pod.labels);
                item.namespace = Some(&pod.namespace);
                item.namespace_labels = Some(&pod.namespace_labels);
            }
        }
    }
    item
}

/// Where a pod without an address may be: in the blocks that were named, in the nodes' if they have any, else anywhere.
pub(super) fn pod_space(cluster: &Cluster, options: &Options) -> AddressSet {
    if let Some(named) = &options.pod_cidrs {
        return named.clone();
    }
    let blocks = cluster.nodes.iter().fold(AddressSet::empty(), |all, node| all.union(&node.pod_cidrs));
    if blocks.is_empty() { AddressSet::full() } else { blocks }
}

/// Addresses of the node that somebody runs on: one of the nodes', or not known.
fn own_node_addresses(cluster: &Cluster) -> Addresses {
    let all = cluster.nodes.iter().flat_map(|node| node.addresses.iter().copied()).map(Cidr::host);
    let set = AddressSet::blocks(all);
    if set.is_empty() || cluster.nodes.iter().any(|node| node.addresses.is_empty()) {
        return Addresses::Some(AddressSet::full());
    }
    if cluster.nodes.len() == 1 { Addresses::All(set) } else { Addresses::Some(set) }
}

/// The addresses outside, cut where any policy or option tells them apart.
fn outside<'a>(
    cluster: &'a Cluster,
    profile: Profile,
    options: &Options,
    items: &mut Vec<Item<'a>>,
    make: &impl Fn(Endpoint, Shape) -> Item<'a>,
) {
    let inside = items
        .iter()
        .filter_map(|item| if let Addresses::All(own) = &item.addresses { Some(own) } else { None });
    let mut blocks = Vec::new();
    for own in inside {
        blocks.extend(own.to_blocks());
    }
    let services = AddressSet::blocks(
        cluster.services.iter().flat_map(|service| &service.cluster_ips).copied().map(Cidr::host),
    );
    blocks.extend(services.to_blocks());
    let space = AddressSet::full().difference(&AddressSet::blocks(blocks));
    let mut cuts: Vec<&AddressSet> = options.addresses.iter().collect();
    for policy in &cluster.policies {
        policy_blocks(policy, &mut cuts);
    }
    let families = [crate::sets::Family::V4, crate::sets::Family::V6].map(AddressSet::family);
    cuts.extend(&families);
    cuts.sort_unstable();
    cuts.dedup();
    for atom in atoms(&space, &cuts) {
        items.push(make(Endpoint::External(atom), Shape::Outside));
    }
    if !services.is_empty() && profile.fact(Fact::SeesClusterIp).truth.may() {
        for atom in atoms(&services, &cuts) {
            items.push(make(Endpoint::External(atom), Shape::ServiceAddress));
        }
    }
}

fn policy_blocks<'a>(policy: &'a Policy, cuts: &mut Vec<&'a AddressSet>) {
    fn walk<'a>(what: &'a Match, cuts: &mut Vec<&'a AddressSet>) {
        match what {
            Match::All(parts) | Match::OneOf(parts) => parts.iter().for_each(|part| walk(part, cuts)),
            Match::Not(inner) => walk(inner, cuts),
            Match::Cidr(set) | Match::Address(set) => cuts.push(set),
            _ => {}
        }
    }
    for section in policy.ingress.iter().chain(&policy.egress) {
        section.rules.iter().for_each(|rule| walk(&rule.peer, cuts));
    }
}
