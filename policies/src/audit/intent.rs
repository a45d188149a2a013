//! Intents: who may, must and must not talk to whom. Built in for worker pools, from a file for others.
//!
//! ```yaml
//! apiVersion: mpegflow.io/v1alpha1
//! kind: NetworkIntents
//! intents:
//! - name: workers reach only the broker
//!   from: {namespace: media, pods: {app: worker}}
//!   may:                      # nothing else: an empty list means nobody
//!   - {namespace: mpegflow, pods: {app: broker}, ports: [8443]}
//!   - {cidr: 192.0.2.0/24, ports: [443]}
//!   must:                     # must work; implies may
//!   - {namespace: mpegflow, pods: {app: broker}, ports: [8443]}
//!   must-not:                 # forbidden whatever `may` says
//!   - {group: metadata}
//!   reached-by: []            # who may connect to them; without this line nobody asks
//! ```

use crate::cluster::{Cluster, Pod, Service, ServicePort, TargetPort, WorkerPool};
use crate::matching::{DomainPattern, Kind, LabelOwner, Match, Test, TrafficMatch};
use crate::read::object::{self, Field, IntOrString, Object};
use crate::read::{Document, Input, Invalid, ReadError, ReadErrors, documents};
use crate::sets::{AddressSet, Cidr, PortSet, Protocol};
use crate::source::At;
use crate::truth::Doubt;
use std::net::IpAddr;
use std::sync::Arc;

/// What is to be proved of some pods.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Its name, unique in its file.
    pub name: Arc<str>,
    /// Where it is written; `None` for a built-in one.
    pub at: Option<At>,
    /// Whose.
    pub from: Match,
    /// The same for the reader.
    pub from_text: Arc<str>,
    /// All they may reach; `None` where only `must_not` limits them.
    pub may: Option<Vec<Peer>>,
    /// What they must be able to reach.
    pub must: Vec<Peer>,
    /// What they must not be able to reach.
    pub must_not: Vec<Peer>,
    /// All that may reach them; `None` where nobody asks.
    pub reached_by: Option<Vec<Peer>>,
    /// Whether their pods' hardening and the rights around them are part of the proof: of worker pools they are.
    pub hardened: bool,
}

/// Somebody, and the traffic with them.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub who: Match,
    /// Which traffic.
    pub traffic: TrafficMatch,
    /// Both for the reader.
    pub text: Arc<str>,
}

/// Label that the operator puts on a pool's pods; its value is the pool's name.
pub const POOL_LABEL: &str = "mpegflow.io/pool";
/// Label that the operator puts on a tenant's pods and namespaces; its value is the tenant's id.
pub const TENANT_LABEL: &str = "mpegflow.io/tenant";
/// Label and value of the broker's pods.
pub const BROKER_LABEL: (&str, &str) = ("app.kubernetes.io/name", "mpegflow-broker");
/// Name of the port of the broker's worker API.
pub const BROKER_PORT: &str = "worker-api";

/// The built-in intents of a cluster's worker pools: their pods reach the broker's worker API and nothing else, and nobody
/// reaches them. The workers of a presigned pool also reach its storage endpoints, which is what its owner asked for and weaker
/// (a finding says so); each such pool has an intent of its own.
pub fn worker_pools(cluster: &Cluster) -> Vec<Intent> {
    let strict = strict(cluster);
    let presigned = || cluster.worker_pools.iter().filter(|pool| !pool.storage_endpoints.is_empty());
    let is_of = |pool: &WorkerPool, pod: &Pod| {
        pod.namespace == pool.namespace && pod.labels.get(POOL_LABEL) == Some(&pool.object.name)
    };
    let strict_pods = cluster
        .pods
        .iter()
        .any(|pod| pod.labels.contains_key(POOL_LABEL) && !presigned().any(|pool| is_of(pool, pod)));
    let mut intents: Vec<Intent> = presigned()
        .map(|pool| {
            let endpoints = pool.storage_endpoints.iter().map(|text| storage(text, pool));
            Intent {
                name: format!("{} reaches only the broker and its storage", pool.object).into(),
                from: of_pool(pool),
                from_text: format!("pods of {}", pool.object).into(),
                may: strict.may.as_ref().map(|may| may.iter().cloned().chain(endpoints).collect()),
                ..strict.clone()
            }
        })
        .collect();
    if strict_pods || intents.is_empty() {
        let others = presigned().map(|pool| of_pool(pool).negate());
        intents.insert(
            0,
            Intent {
                from: Match::All(std::iter::once(strict.from.clone()).chain(others).collect()),
                ..strict
            },
        );
    }
    intents
}

/// Pods of one pool, host-network ones among them.
fn of_pool(pool: &WorkerPool) -> Match {
    Match::All(vec![
        Match::Namespace(Test::Is(pool.namespace.clone())),
        Match::label(LabelOwner::Endpoint, POOL_LABEL, pool.object.name.clone()),
    ])
}

/// A storage endpoint of a pool: `192.0.2.10:443`, `198.51.100.0/24:443`, `[2001:db8::/64]:443`.
fn storage(text: &Arc<str>, pool: &WorkerPool) -> Peer {
    let parsed = || {
        let (block, port) = text.rsplit_once(':')?;
        let block = block.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(block);
        let host = || {
            let address: IpAddr = block.parse().ok()?;
            let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            (!is_mapped).then(|| Cidr::host(address))
        };
        let block: Cidr = block.parse().ok().or_else(host)?;
        Some((block, port.parse::<u16>().ok().filter(|port| *port > 0)?))
    };
    let (who, traffic) = match parsed() {
        Some((block, port)) => {
            (Match::Address(AddressSet::block(block)), TrafficMatch::Ports(Protocol::Tcp, PortSet::one(port)))
        }
        None => {
            let what = format!(
                "the storage endpoint {text:?} of {} is not ADDRESS:PORT or ADDRESS/BITS:PORT",
                pool.object
            );
            (Match::Doubt(Doubt::at(what, &pool.at)), TrafficMatch::Anything)
        }
    };
    Peer { who, traffic, text: format!("its storage at {text}").into() }
}

/// The addresses of the broker's Services, for implementations whose policies see them before their translation.
fn broker_services(cluster: &Cluster) -> impl Iterator<Item = Peer> + '_ {
    let (key, value) = BROKER_LABEL;
    let of_broker = move |service: &&Service| {
        let label = service.selector.as_ref().and_then(|selector| selector.get(key));
        label.is_some_and(|label| **label == *value)
    };
    let backends = move |namespace: &Arc<str>| {
        let pods =
            cluster.pods.iter().filter(move |pod| pod.labels.get(key).is_some_and(|label| **label == *value));
        let pods = pods.filter(|pod| pod.namespace == *namespace);
        let ports = pods.flat_map(|pod| &pod.ports).filter(|port| port.name.as_deref() == Some(BROKER_PORT));
        ports.map(|port| port.port).collect::<Vec<_>>()
    };
    cluster.services.iter().filter(of_broker).filter_map(move |service| {
        let worker_api = |port: &&ServicePort| match &port.target {
            TargetPort::Name(name) => **name == *BROKER_PORT,
            TargetPort::Number(number) => backends(&service.namespace).contains(number),
        };
        let ports = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).filter(worker_api);
        let ports = PortSet::of(ports.map(|port| (port.port, port.port)));
        let addresses = AddressSet::blocks(service.cluster_ips.iter().copied().map(Cidr::host));
        (!addresses.is_empty() && ports.iter().next().is_some()).then(|| Peer {
            who: Match::Address(addresses),
            traffic: TrafficMatch::Ports(Protocol::Tcp, ports),
            text: format!("the worker API of {}", service.object).into(),
        })
    })
}

/// What holds of workers that have everything through the broker.
fn strict(cluster: &Cluster) -> Intent {
    let (key, value) = BROKER_LABEL;
    let broker = Peer {
        who: Match::pods(Match::label(LabelOwner::Endpoint, key, value)),
        traffic: TrafficMatch::NamedPort(Protocol::Tcp, BROKER_PORT.into()),
        text: "the broker's worker API".into(),
    };
    let is_worker = Match::Label { owner: LabelOwner::Endpoint, key: POOL_LABEL.into(), test: Test::Exists };
    Intent {
        name: "worker pools reach only the broker".into(),
        at: None,
        // Host-network workers, too: that they are outside every policy is for the verdict to say.
        from: is_worker,
        from_text: format!("pods labelled {POOL_LABEL}").into(),
        may: Some(std::iter::once(broker.clone()).chain(broker_services(cluster)).collect()),
        must: vec![broker],
        must_not: Vec::new(),
        reached_by: Some(Vec::new()),
        hardened: true,
    }
}

/// Reads a file of intents.
///
/// # Errors
/// Everything that is wrong with it. An unknown field is an error: an intent that is half understood proves nothing.
pub fn read(input: &Input) -> Result<Vec<Intent>, ReadErrors> {
    let mut errors = ReadErrors::none();
    let mut intents: Vec<Intent> = Vec::new();
    for document in &documents(input)?.documents {
        match file(document) {
            Ok(read) => {
                for intent in read {
                    let twin = intents.iter().find(|other| other.name == intent.name);
                    if let (Some(twin), Some(at)) = (twin.and_then(|t| t.at.as_ref()), &intent.at) {
                        let message = format!("the intent {:?} is at {twin} already", intent.name);
                        errors.push(ReadError::new(at.clone(), message).hint("give it another name"));
                    }
                    intents.push(intent);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    errors.or(intents)
}

fn file(document: &Document) -> Result<Vec<Intent>, ReadError> {
    if (&*document.api_version, &*document.kind) != ("mpegflow.io/v1alpha1", "NetworkIntents") {
        let message = format!("{} of {} is not a file of intents", document.kind, document.api_version);
        return Err(ReadError::new(document.at.clone(), message)
            .hint("its header is `apiVersion: mpegflow.io/v1alpha1` and `kind: NetworkIntents`"));
    }
    let (intents, unknown) = object::read(document, |root| {
        let list = root.required("intents")?.list()?;
        list.iter().map(|field| intent(&field.object()?)).collect::<Result<Vec<_>, ReadError>>()
    })?;
    match unknown.first() {
        None => Ok(intents),
        Some(field) => {
            Err(ReadError::new(field.at.clone(), format!("the field `{}` is not known", field.path))
                .hint("an intent has name, from, may, must, must-not and reached-by"))
        }
    }
}

fn intent(object: &Object<'_>) -> Result<Intent, ReadError> {
    let from = object.required("from")?.object()?;
    let (from, from_text) = who(&from)?;
    let peers = |key: &str| -> Result<Option<Vec<Peer>>, ReadError> {
        let Some(field) = object.optional(key) else { return Ok(None) };
        field.list()?.iter().map(peer).collect::<Result<Vec<_>, _>>().map(Some)
    };
    let must = peers("must")?.unwrap_or_default();
    let mut may = peers("may")?;
    if let Some(may) = &mut may {
        may.extend(must.iter().cloned());
    }
    let intent = Intent {
        name: object.required("name")?.string()?.into(),
        at: Some(object.at()),
        from,
        from_text: from_text.into(),
        may,
        must,
        must_not: peers("must-not")?.unwrap_or_default(),
        reached_by: peers("reached-by")?,
        hardened: object.bool("hardened")? == Some(true),
    };
    if intent.may.is_none()
        && intent.must_not.is_empty()
        && intent.must.is_empty()
        && intent.reached_by.is_none()
    {
        let error = ReadError::new(object.at(), format!("the intent {:?} asks for nothing", intent.name));
        return Err(error.hint("give it may, must, must-not or reached-by; `may: []` means nobody"));
    }
    Ok(intent)
}

fn peer(field: &Field<'_>) -> Result<Peer, ReadError> {
    let object = field.object()?;
    let (who, who_text) = who(&object)?;
    let Some(ports) = object.optional("ports") else {
        return Ok(Peer { who, traffic: TrafficMatch::Anything, text: who_text.into() });
    };
    let ports = ports.list()?;
    if ports.is_empty() {
        let error =
            ReadError::new(object.at(), format!("{}.ports is empty, which means no traffic", object.path()));
        return Err(error.hint("leave the field out for all traffic"));
    }
    let mut texts = Vec::new();
    let mut traffic = Vec::new();
    for field in &ports {
        let text = match field.int_or_string()? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text.to_owned(),
        };
        let one = port(&text)
            .ok_or_else(|| field.invalid("a port such as 443, 53/UDP, 8000-8100/TCP or worker-api/TCP"))?;
        traffic.push(one);
        texts.push(text);
    }
    Ok(Peer {
        who,
        traffic: TrafficMatch::OneOf(traffic),
        text: format!("{who_text} port {}", texts.join(", ")).into(),
    })
}

/// `443`, `53/UDP`, `8000-8100/TCP`, `http`, `http/TCP`.
pub(super) fn port(text: &str) -> Option<TrafficMatch> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if ports.starts_with(|c: char| c.is_ascii_digit()) {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (number(first)?, number(last)?);
        return (first <= last).then(|| TrafficMatch::Ports(protocol, PortSet::range(first, last)));
    }
    let is_name = !ports.is_empty()
        && ports.len() <= 63
        && !ports.starts_with('-')
        && !ports.ends_with('-')
        && ports.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    is_name.then(|| TrafficMatch::NamedPort(protocol, ports.into()))
}

/// Who is meant, for the evaluator and for the reader. Exactly one way of naming is used.
fn who(object: &Object<'_>) -> Result<(Match, String), ReadError> {
    let by_labels = ["namespace", "namespaces", "pods"];
    let ways = object.keys().filter(|key| ["cidr", "domain", "group"].contains(key)).count();
    let uses_labels = object.keys().any(|key| by_labels.contains(&key));
    if ways > 1 || (ways == 1 && uses_labels) || (ways == 0 && !uses_labels) {
        let error =
            ReadError::new(object.at(), format!("{} does not say in one way who is meant", object.path()));
        return Err(error.hint("name one of: namespace, namespaces and pods; cidr; domain; group"));
    }
    if let Some(field) = object.optional("cidr") {
        let block: Cidr = field.parsed("a CIDR block", |text| text.parse().ok())?;
        return Ok((Match::Address(AddressSet::block(block)), block.to_string()));
    }
    if let Some(field) = object.optional("domain") {
        let name = field.parsed("a DNS name without wildcards", |text| {
            let name = text.trim_end_matches('.').to_ascii_lowercase();
            (!name.is_empty() && !name.contains(['*', ' ', '/'])).then_some(name)
        })?;
        return Ok((Match::Domain(DomainPattern::Name(name.as_str().into())), name));
    }
    if let Some(field) = object.optional("group") {
        return Ok(group(&field)?);
    }
    let mut parts = Vec::new();
    let mut texts = Vec::new();
    if let Some(field) = object.optional("namespace") {
        let name = field.string()?;
        parts.push(Match::Namespace(Test::Is(name.into())));
        texts.push(format!("namespace {name}"));
    }
    for (key, owner, what) in [
        ("namespaces", LabelOwner::Namespace, "namespaces with"),
        ("pods", LabelOwner::Endpoint, "pods with"),
    ] {
        let Some(field) = object.optional(key) else { continue };
        let labels = field.map_of_strings()?;
        let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.extend(labels.into_iter().map(|(key, value)| Match::label(owner, key, value)));
        texts.push(if text.is_empty() { format!("any {key}") } else { format!("{what} {}", text.join(",")) });
    }
    Ok((Match::pods(Match::All(parts)), texts.join(", ")))
}

fn group(field: &Field<'_>) -> Result<(Match, String), Invalid> {
    let nodes = || Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]);
    let which = match field.string()? {
        "any" => Match::Anything,
        "pods" => Match::Kind(Kind::Pod),
        "nodes" => nodes(),
        "outside" => Match::Kind(Kind::External),
        "metadata" => Match::Address(crate::places::metadata_addresses()),
        "kube-api" => Match::KubeApiServer,
        _ => return Err(field.invalid("one of any, pods, nodes, outside, metadata, kube-api")),
    };
    Ok((which, format!("group {}", field.string()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::Limits;

    fn parse(intents: &str) -> Result<Vec<Intent>, String> {
        let text = format!("apiVersion: mpegflow.io/v1alpha1\nkind: NetworkIntents\nintents:\n{intents}");
        let mut input = Input::new(Limits::default());
        input.add("intents.yaml", text).unwrap();
        read(&input).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_intent_is_read_whole() {
        let intents = parse(
            "- name: a\n  from: {namespace: media, pods: {app: worker}}\n  may: [{cidr: 192.0.2.0/24, ports: [443, 53/UDP, 8000-8100]}]\n  must: [{namespace: m, pods: {app: broker}, ports: [worker-api]}]\n  must-not: [{group: metadata}]\n  reached-by: []\n",
        )
        .unwrap();
        let intent = intents.first().unwrap();
        assert_eq!(&*intent.from_text, "namespace media, pods with app=worker");
        let may: Vec<_> = intent.may.as_ref().unwrap().iter().map(|peer| peer.text.to_string()).collect();
        assert_eq!(
            may,
            ["192.0.2.0/24 port 443, 53/UDP, 8000-8100", "namespace m, pods with app=broker port worker-api"]
        );
        assert_eq!(intent.must_not.first().map(|peer| &*peer.text), Some("group metadata"));
        assert!(intent.reached_by.as_ref().unwrap().is_empty() && !intent.hardened);
    }

    #[test]
    fn what_is_half_said_is_refused_with_its_place() {
        let from = "- name: a\n  from: {namespace: media}\n";
        let cases = [
            ("", "intents.yaml:4:3: the intent \"a\" asks for nothing"),
            (
                "  may: [{cidr: 10.0.0.1/8}]\n",
                "intents.yaml:6:16: intents[0].may[0].cidr must be a CIDR block",
            ),
            (
                "  may: [{ports: [1]}]\n",
                "intents.yaml:6:9: intents[0].may[0] does not say in one way who is meant",
            ),
            ("  may: [{cidr: 10.0.0.0/8, group: any}]\n", "does not say in one way who is meant"),
            ("  may: [{group: everyone}]\n", "must be one of any, pods, nodes, outside, metadata, kube-api"),
            ("  may: [{group: any, ports: []}]\n", "is empty, which means no traffic"),
            ("  may: [{group: any, ports: [0]}]\n", "must be a port such as"),
            ("  may: [{group: any, ports: [9-8]}]\n", "must be a port such as"),
            ("  may: []\n  mustnot: []\n", "the field `intents[0].mustnot` is not known"),
            ("  may: []\n- name: a\n  from: {group: pods}\n  may: []\n", "the intent \"a\" is at"),
        ];
        for (rest, expected) in cases {
            let error = parse(&format!("{from}{rest}")).unwrap_err();
            assert!(error.contains(expected), "{rest:?}: {error}");
        }
    }
}
