//! What endpoints are called.

use super::evaluation::Evaluation;
use super::{Endpoint, EndpointId};
use crate::cluster::Labels;

impl Evaluation<'_> {
    /// What an endpoint is called.
    pub fn name(&self, id: EndpointId) -> String {
        let pod = |i: usize| self.cluster.pods.get(i).map(|pod| pod.object.to_string()).unwrap_or_default();
        match self.endpoint(id) {
            Some(Endpoint::Pod(i)) => pod(*i),
            Some(Endpoint::Sibling(i)) => format!("another pod of {}", pod(*i)),
            Some(Endpoint::LocalNode) => "the pod's own node".into(),
            Some(Endpoint::Node(i)) => {
                format!("node {}", self.cluster.nodes.get(*i).map(|node| &*node.name).unwrap_or_default())
            }
            Some(Endpoint::AnyNode) => "any other node".into(),
            Some(Endpoint::External(set)) => match (crate::places::what(set), set.example()) {
                (Some(what), Some(address)) => format!("{address} ({what})"),
                // What is left of the world between the blocks that somebody names is a list that no one reads.
                (None, Some(address)) if set.ranges().take(4).count() > 3 => {
                    format!("outside addresses such as {address}")
                }
                _ => set.to_string(),
            },
            Some(Endpoint::Domain(name)) => name.to_string(),
            Some(Endpoint::Imagined(pod)) => {
                format!("{} ({}, in namespace {})", pod.because, labels(&pod.labels), pod.namespace)
            }
            None => "nobody".into(),
        }
    }

    /// One of its members, for a packet.
    pub fn example(&self, id: EndpointId) -> String {
        match self.endpoint(id) {
            Some(Endpoint::External(set)) => match set.example() {
                Some(address) => match crate::places::what(set) {
                    Some(what) => format!("{address} ({what})"),
                    None => address.to_string(),
                },
                None => set.to_string(),
            },
            _ => self.name(id),
        }
    }
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "without labels".into();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
