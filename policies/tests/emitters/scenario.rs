//! A generated cluster with a worker pool in it: other tenants and their policies, nodes, Services, the broker, DNS.

use mpegflow_policies::cluster::Labels;
use mpegflow_policies::emit::{BrokerPeer, DnsPeer, PoolIntent, StoragePeer};
use mpegflow_policies_generator::rng::Rng;
use mpegflow_policies_generator::small::{Case, Dialect as Of};
use mpegflow_policies_generator::yaml::{Document, stream};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// What belongs to the pool and its broker, and what others have brought.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// What the pool asks for.
    pub(crate) pool: PoolIntent,
    /// Everybody else: their namespaces, pods and policies. Of these a counter-example keeps what it needs.
    pub(crate) others: Case,
    /// Nodes, Services, the pool's, the broker's and the DNS servers' pods and namespaces.
    own: Vec<Document>,
    /// Addresses of the broker's Service with its port.
    pub(crate) service: Option<(Vec<IpAddr>, u16)>,
}

/// Who else writes policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hostile {
    /// Other tenants, in their own namespaces; nobody in the pool's.
    Elsewhere,
    /// Besides, somebody who may write policies of the dialects that are enforced in the pool's namespace, and cluster-wide ones
    /// that come after the pool's.
    Beside,
}

const BROKER: &str = "mpegflow";

impl Scenario {
    pub(crate) fn generate(seed: u64, hostile: Hostile) -> Self {
        let mut rng = Rng::new(seed ^ 0x6d70_6567_666c_6f77);
        let mut others = Case::generate(seed, Of::Kubernetes);
        let dual = rng.one_in(3);
        // Half of the pools share a namespace with whatever a tenant keeps there.
        let shared = others.namespaces.first().map(|namespace| namespace.name().to_owned());
        let namespace: String = if rng.one_in(2) { shared.unwrap_or_default() } else { "media".to_owned() };
        if hostile == Hostile::Elsewhere {
            others.policies.retain(|policy| policy.namespace() != namespace);
        }
        let mut own = Vec::new();
        let mut spaces = vec![BROKER.to_owned(), "kube-system".to_owned(), "rival".to_owned()];
        if others.namespaces.iter().all(|other| other.name() != namespace) {
            spaces.push(namespace.clone());
        }
        let labels = if rng.one_in(2) { json!({"mpegflow.io/tenant": "acme"}) } else { json!({}) };
        own.extend(spaces.iter().map(|name| space(name, &labels)));
        nodes(&mut own, dual);
        api_server(&mut own);

        // The pool's pods carry labels that others' selectors mean, too.
        let mut pod_labels = Map::new();
        pod_labels.insert("mpegflow.io/pool".into(), json!("pool-a"));
        for (key, values) in [
            ("app", ["web", "db"]),
            ("tier", ["front", "back"]),
            ("app.kubernetes.io/name", ["mpegflow-worker", "x"]),
        ] {
            if rng.one_in(2) {
                pod_labels.insert(key.into(), json!(rng.word(&values)));
            }
        }
        let mut addresses = Addresses { next: 10, dual };
        if rng.one_in(3) {
            own.push(template(&namespace, &pod_labels));
        } else {
            for at in 0..rng.between(1, 2) {
                own.push(pod(
                    &format!("worker-{at}"),
                    &namespace,
                    &pod_labels,
                    &mut addresses,
                    &mut rng,
                    json!([]),
                ));
            }
        }
        // A pool of the same name elsewhere, and a pod of the pool's namespace that is no worker.
        let rivals = [("rival", json!({"mpegflow.io/pool": "pool-a"})), (&*namespace, json!({"app": "web"}))];
        for (at, (namespace, labels)) in rivals.into_iter().enumerate() {
            let labels = labels.as_object().cloned().unwrap_or_default();
            own.push(pod(&format!("rival-{at}"), namespace, &labels, &mut addresses, &mut rng, json!([])));
        }
        own.push(host_pod());

        let (broker, service) = broker(&mut own, &mut addresses, &mut rng, &namespace, hostile);
        let dns = dns(&mut own, &mut addresses, &mut rng);
        let storage = storage(&mut rng, dns.is_some(), dual);
        let pool = PoolIntent {
            name: "pool-a".into(),
            namespace: namespace.as_str().into(),
            pods: of([("mpegflow.io/pool", "pool-a")]),
            labels: Labels::new(),
            broker: BrokerPeer { service: service.clone(), ..broker },
            storage,
            dns,
        };
        if hostile == Hostile::Beside {
            others.policies.extend(hostile_policies(&mut rng, &namespace));
        }
        Self { pool, others, own, service }
    }

    /// The cluster without what is emitted.
    pub(crate) fn manifests(&self) -> String {
        let others = self.others.namespaces.iter().chain(&self.others.pods).chain(&self.others.policies);
        stream(self.own.iter().chain(others))
    }

    /// The same with other tenants' documents replaced.
    pub(crate) fn with(&self, others: &Case) -> Self {
        Self { others: others.clone(), ..self.clone() }
    }
}

fn of<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect()
}

fn space(name: &str, labels: &Value) -> Document {
    let mut labels = labels.as_object().cloned().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".into(), json!(name));
    Document(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
}

/// The nodes that the generator's pods run on; the first is the control plane.
fn nodes(own: &mut Vec<Document>, dual: bool) {
    for number in 1..=3 {
        let mut addresses = vec![json!({"type": "InternalIP", "address": format!("192.168.0.{number}")})];
        if dual {
            addresses.push(json!({"type": "InternalIP", "address": format!("fd01::{number}")}));
        }
        let labels =
            if number == 1 { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) };
        own.push(Document(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number}"), "labels": labels},
            "spec": {"podCIDRs": [format!("10.0.{number}.0/24"), format!("fd00:0:0:{number}::/64")]},
            "status": {"addresses": addresses},
        })));
    }
}

fn api_server(own: &mut Vec<Document>) {
    own.push(Document(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443, "targetPort": 6443}]},
    })));
    own.push(Document(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "endpoints": [{"addresses": ["192.168.0.1"]}], "ports": [{"name": "https", "port": 6443}],
    })));
}

struct Addresses {
    next: u32,
    dual: bool,
}

impl Addresses {
    fn take(&mut self) -> Vec<Value> {
        self.next += 1;
        let mut list = vec![json!({"ip": format!("10.0.9.{}", self.next)})];
        if self.dual {
            list.push(json!({"ip": format!("fd00::9:{:x}", self.next)}));
        }
        list
    }
}

fn pod(
    name: &str,
    namespace: &str,
    labels: &Map<String, Value>,
    addresses: &mut Addresses,
    rng: &mut Rng,
    ports: Value,
) -> Document {
    let ips = addresses.take();
    let node = rng.between(1, 3);
    let mut spec = json!({"containers": [{"name": "main", "image": "example.com/main:1", "ports": ports}]});
    // Pods that are not scheduled yet may come to run on any node.
    if !rng.one_in(3) {
        spec["nodeName"] = json!(format!("node-{node}"));
    }
    Document(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": spec,
        "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips},
    }))
}

fn host_pod() -> Document {
    Document(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent", "namespace": "kube-system", "labels": {"app": "web"}},
        "spec": {"hostNetwork": true, "nodeName": "node-2", "containers": [{"name": "main", "image": "example.com/main:1"}]},
        "status": {"phase": "Running", "podIP": "192.168.0.2", "podIPs": [{"ip": "192.168.0.2"}]},
    }))
}

fn template(namespace: &str, labels: &Map<String, Value>) -> Document {
    Document(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "pool-a", "namespace": namespace},
        "spec": {"template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "example.com/main:1"}]},
        }},
    }))
}

type Reached = Option<(Vec<IpAddr>, u16)>;

/// The broker behind a Service, sometimes isolated itself, sometimes in the pool's own namespace.
fn broker(
    own: &mut Vec<Document>,
    addresses: &mut Addresses,
    rng: &mut Rng,
    pool: &str,
    hostile: Hostile,
) -> (BrokerPeer, Reached) {
    let port = if rng.one_in(2) { 8443 } else { 443 };
    // Who may write policies in the broker's namespace may take the broker away, and no policy of the pool's brings it back.
    let namespace = if rng.one_in(5) && hostile == Hostile::Elsewhere { pool } else { BROKER };
    let labels =
        json!({"app.kubernetes.io/name": "mpegflow-broker"}).as_object().cloned().unwrap_or_default();
    for at in 0..rng.between(1, 2) {
        let mut labels = labels.clone();
        if rng.one_in(2) {
            labels.insert("app".into(), json!("db"));
        }
        let ports =
            json!([{"name": "worker-api", "containerPort": port}, {"name": "admin", "containerPort": 9443}]);
        own.push(pod(&format!("broker-{at}"), namespace, &labels, addresses, rng, ports));
    }
    if namespace == BROKER && rng.one_in(2) {
        own.push(Document(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "broker", "namespace": namespace},
            "spec": {
                "podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "mpegflow.io/pool", "operator": "Exists"}]}}],
                    "ports": [{"port": port}],
                }],
            },
        })));
    }
    let mut ips = vec!["10.96.0.80".to_owned()];
    if addresses.dual {
        ips.push("fd02::80".to_owned());
    }
    let target = if rng.one_in(2) { json!(port) } else { json!("worker-api") };
    own.push(Document(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "broker", "namespace": namespace},
        "spec": {"selector": labels, "clusterIP": ips[0], "clusterIPs": ips, "ports": [{"port": 443, "targetPort": target}]},
    })));
    let service = Some((ips.iter().filter_map(|ip| ip.parse().ok()).collect(), 443));
    let peer = BrokerPeer {
        namespace: namespace.into(),
        pods: of([("app.kubernetes.io/name", "mpegflow-broker")]),
        port,
        service: None,
    };
    (peer, service)
}

/// DNS servers are always there; every third pool asks for them.
fn dns(own: &mut Vec<Document>, addresses: &mut Addresses, rng: &mut Rng) -> Option<DnsPeer> {
    let port = if rng.one_in(3) { 5353 } else { 53 };
    let labels = json!({"k8s-app": "kube-dns"}).as_object().cloned().unwrap_or_default();
    let ports = json!([
        {"name": "dns", "containerPort": port, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": port},
        {"name": "metrics", "containerPort": 9153},
    ]);
    own.push(pod("dns-0", "kube-system", &labels, addresses, rng, ports));
    own.push(Document(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"selector": labels, "clusterIP": "10.96.0.10", "ports": [
            {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "targetPort": "dns-tcp"},
        ]},
    })));
    rng.one_in(3).then(|| DnsPeer {
        namespace: "kube-system".into(),
        pods: of([("k8s-app", "kube-dns")]),
        port,
    })
}

/// Storage endpoints of a presigned pool: by address, and by name besides where DNS is asked for.
fn storage(rng: &mut Rng, has_dns: bool, dual: bool) -> Vec<StoragePeer> {
    if rng.one_in(2) {
        return Vec::new();
    }
    let block = |text: &str| text.parse().ok();
    let mut first: Vec<_> = block("192.0.2.0/28").into_iter().collect();
    if dual {
        first.extend(block("2001:db8:1::/64"));
    }
    let domain = (has_dns && rng.one_in(2)).then(|| Arc::from("objects.example.com"));
    let mut all = vec![StoragePeer { blocks: first, domain, port: 443 }];
    if rng.one_in(3) {
        all.push(StoragePeer {
            blocks: block("203.0.113.130/32").into_iter().collect(),
            domain: None,
            port: 9000,
        });
    }
    all
}

/// Policies of somebody who wants the pool's traffic: everything is allowed, in every dialect, wherever it may be written by
/// somebody who is not the cluster's administrator, and cluster-wide behind the pool's own. Each comes up in half of the clusters.
fn hostile_policies(rng: &mut Rng, namespace: &str) -> Vec<Document> {
    let all = vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "open", "namespace": namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "a-hole", "namespace": namespace},
            "spec": {
                "podSelector": {"matchLabels": {"mpegflow.io/pool": "pool-a"}}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "169.254.0.0/16"}}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}],
            },
        }),
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "open", "namespace": namespace},
            "spec": {
                "endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}], "egress": [{"toEntities": ["all"]}],
            },
        }),
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "open"},
            "spec": {
                "endpointSelector": {"matchLabels": {"mpegflow.io/pool": "pool-a"}},
                "ingress": [{"fromEntities": ["world", "cluster"]}],
                "egress": [{"toEntities": ["world", "cluster"]}, {"toCIDR": ["0.0.0.0/0", "::/0"]}],
            },
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": "open", "namespace": namespace},
            "spec": {
                "order": 11, "selector": "all()", "types": ["Ingress", "Egress"],
                "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}],
            },
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "open-admin"},
            "spec": {
                "tier": "Admin", "priority": 500, "subject": {"namespaces": {}},
                "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
                "egress": [{
                    "action": "Accept",
                    "to": [{"namespaces": {}}, {"nodes": {}}, {"networks": ["0.0.0.0/0", "::/0"]}],
                }],
            },
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "open-pass"},
            "spec": {
                "tier": "Admin", "priority": 101,
                "subject": {"pods": {
                    "namespaceSelector": {}, "podSelector": {"matchLabels": {"mpegflow.io/pool": "pool-a"}},
                }},
                "ingress": [{"action": "Pass", "from": [{"namespaces": {}}]}],
                "egress": [
                    {
                        "action": "Accept", "to": [{"networks": ["169.254.169.254/32"]}],
                        "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
                    },
                    {"action": "Pass", "to": [{"networks": ["0.0.0.0/0"]}]},
                ],
            },
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "open-baseline"},
            "spec": {
                "tier": "Baseline", "priority": 0, "subject": {"namespaces": {}},
                "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
                "egress": [{"action": "Accept", "to": [{"namespaces": {}}, {"networks": ["0.0.0.0/0", "::/0"]}]}],
            },
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "open"},
            "spec": {
                "order": 500, "selector": "has(mpegflow.io/pool)", "types": ["Ingress", "Egress"],
                "ingress": [{"action": "Pass"}, {"action": "Allow"}], "egress": [{"action": "Allow"}],
            },
        }),
    ];
    all.into_iter().filter(|_| rng.one_in(2)).map(Document).collect()
}
