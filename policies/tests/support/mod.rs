//! Truth tables: manifests in, verdicts out.
//!
//! ```ignore
//! let world = world(&[&pod("a/web", "{app: web}", "10.0.0.1"), &network_policy("a/deny", "{podSelector: {}}")]);
//! assert_eq!(world.from("1.2.3.4").to("a/web").tcp(80), "denied");
//! ```

#![allow(dead_code, reason = "each test binary uses a part of it")]

use mpegflow_policies::audit::Request;
use mpegflow_policies::audit::intent::Intent;
use mpegflow_policies::cluster::{Cluster, Pod};
use mpegflow_policies::evaluate::{Endpoint, EndpointId, Evaluation, Options};
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::sets::{AddressSet, Protocol};
use mpegflow_policies::truth::Truth;
use std::fmt;

/// A cluster under a profile.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) profile: Profile,
}

/// What manifests say, under the profile `generic`; they must be good.
pub(crate) fn world(manifests: &[&str]) -> World {
    match try_world(manifests) {
        Ok(world) => world,
        Err(errors) => panic!("{errors}"),
    }
}

/// What manifests say, or every error in them.
pub(crate) fn try_world(manifests: &[&str]) -> Result<World, String> {
    let mut input = Input::new(Limits::default());
    input.add("world.yaml", manifests.join("\n---\n")).map_err(|error| error.to_string())?;
    let reading = read::cluster(&input, &ReadOptions::default()).map_err(|errors| errors.to_string())?;
    Ok(World { cluster: reading.cluster, profile: "generic".parse().map_err(|error| format!("{error}"))? })
}

/// An audit of intents on the first day of 2026, in a cluster of which the input is all; whatever else a test asks for, it sets itself.
pub(crate) fn request<'a>(cluster: &'a Cluster, profile: &str, intents: Vec<Intent>) -> Request<'a> {
    Request {
        cluster,
        profile: profile.parse().unwrap(),
        complete: true,
        intents,
        pod_cidrs: None,
        baseline: None,
        today: "2026-01-01".parse().unwrap(),
        flows: &[],
    }
}

/// A pod, named `namespace/name`, with labels in flow style and an address, which may be empty.
pub(crate) fn pod(name: &str, labels: &str, address: &str) -> String {
    pod_with(name, labels, address, "{containers: [{name: c, image: i}]}")
}

/// A pod with a spec of its own.
pub(crate) fn pod_with(name: &str, labels: &str, address: &str, spec: &str) -> String {
    let status = if address.is_empty() { String::new() } else { format!("status: {{podIP: {address:?}}}\n") };
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{{}, labels: {labels}}}\nspec: {spec}\n{status}", of(name))
}

/// A namespace.
pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
}

/// A node.
pub(crate) fn node(name: &str, labels: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\nstatus: {{addresses: [{{type: InternalIP, address: {address:?}}}]}}\n"
    )
}

/// A NetworkPolicy, named `namespace/name`, with its spec in flow style.
pub(crate) fn network_policy(name: &str, spec: &str) -> String {
    manifest("networking.k8s.io/v1", "NetworkPolicy", name, spec)
}

/// Any object with a spec; the name has a namespace before a slash where the kind has one.
pub(crate) fn manifest(api_version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{{}}}\nspec: {spec}\n", of(name))
}

fn of(name: &str) -> String {
    match name.split_once('/') {
        Some((namespace, name)) => format!("namespace: {namespace}, name: {name}"),
        None => format!("name: {name}"),
    }
}

impl World {
    /// The same cluster under another profile.
    pub(crate) fn profile(mut self, profile: &str) -> Self {
        self.profile = match profile.parse() {
            Ok(profile) => profile,
            Err(error) => panic!("{error}"),
        };
        self
    }

    /// Who sends: a pod `namespace/name`, `node:NAME`, `local-node`, or an address outside.
    pub(crate) fn from<'a>(&'a self, who: &'a str) -> From<'a> {
        From { world: self, source: who }
    }
}

pub(crate) struct From<'a> {
    world: &'a World,
    source: &'a str,
}

impl<'a> From<'a> {
    /// Who receives, named as in [`World::from`].
    pub(crate) fn to(self, who: &'a str) -> Pair<'a> {
        Pair { world: self.world, source: self.source, destination: who }
    }
}

pub(crate) struct Pair<'a> {
    world: &'a World,
    source: &'a str,
    destination: &'a str,
}

impl Pair<'_> {
    /// Whether TCP to this port passes.
    pub(crate) fn tcp(&self, port: u16) -> Judged {
        self.packet(Protocol::Tcp, port)
    }

    /// Whether UDP to this port passes.
    pub(crate) fn udp(&self, port: u16) -> Judged {
        self.packet(Protocol::Udp, port)
    }

    /// Whether SCTP to this port passes.
    pub(crate) fn sctp(&self, port: u16) -> Judged {
        self.packet(Protocol::Sctp, port)
    }

    /// Whether a ping passes.
    pub(crate) fn ping(&self) -> Judged {
        self.packet(Protocol::Icmp, 8 << 8)
    }

    /// Whether such a packet passes.
    pub(crate) fn packet(&self, protocol: Protocol, port: u16) -> Judged {
        let ends = [self.source, self.destination];
        let addresses = ends.iter().filter_map(|end| end.parse().ok()).map(AddressSet::one).collect();
        let options = Options { addresses, ..Options::default() };
        let evaluation = Evaluation::new(&self.world.cluster, self.world.profile, options).unwrap();
        let [source, destination] = ends.map(|end| self.endpoint(&evaluation, end));
        let found = evaluation.explain(source, destination);
        let truth = match () {
            () if found.verdict.allowed.contains(protocol, port) => Truth::Yes,
            () if found.verdict.denied.contains(protocol, port) => Truth::No,
            () => Truth::Unknown,
        };
        Judged { truth, reasons: found.doubts.iter().map(ToString::to_string).collect() }
    }

    fn endpoint(&self, evaluation: &Evaluation<'_>, end: &str) -> EndpointId {
        let found = if end == "local-node" {
            evaluation.endpoints().find(|(_, it)| **it == Endpoint::LocalNode).map(|(id, _)| id)
        } else if let Some(name) = end.strip_prefix("node:") {
            evaluation.node(name)
        } else if let Ok(address) = end.parse() {
            evaluation.address(address)
        } else {
            let pods = &self.world.cluster.pods;
            let is = |pod: &Pod| format!("{}/{}", pod.namespace, pod.object.name) == end;
            pods.iter().position(is).and_then(|index| evaluation.pod(index))
        };
        found.unwrap_or_else(|| panic!("no endpoint {end}"))
    }
}

/// A verdict on a packet; equal to `"allowed"`, `"denied"` or `"unknown"`.
pub(crate) struct Judged {
    pub(crate) truth: Truth,
    reasons: Vec<String>,
}

impl Judged {
    /// What is not known, where it is unknown.
    pub(crate) fn reasons(&self) -> String {
        self.reasons.join("; ")
    }
}

impl PartialEq<&str> for Judged {
    fn eq(&self, word: &&str) -> bool {
        let own = match self.truth {
            Truth::Yes => "allowed",
            Truth::No => "denied",
            Truth::Unknown => "unknown",
        };
        own == *word
    }
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.truth, self.reasons())
    }
}
