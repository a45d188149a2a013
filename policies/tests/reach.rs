//! Whom a packet really reaches: what is sent to a Service, a node port or a host port is judged as it reaches who is behind it,
//! and whatever is not known has a reason.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]
#![allow(missing_docs, reason = "tests")]

#[path = "emitters/scenario.rs"]
#[allow(dead_code, reason = "the emitters use the rest")]
mod scenario;
mod support;

use mpegflow_policies::audit::{Outcome, diff, explain, intent, run};
use mpegflow_policies::cluster::{Cluster, NodePort, Service, TargetPort};
use mpegflow_policies::emit::to_yaml;
use mpegflow_policies::evaluate::{Endpoint, EndpointId, Evaluation, Options};
use mpegflow_policies::policy::Dialect;
use mpegflow_policies::profile::{Cni, Profile};
use mpegflow_policies::read::{Input, Limits};
use mpegflow_policies::sets::AddressSet;
use mpegflow_policies::sets::Protocol;
use mpegflow_policies::truth::Truth;
use mpegflow_policies_generator::rng::Rng;
use scenario::{Hostile, Scenario};
use std::fmt::Write as _;
use std::net::IpAddr;
use support::request;

/// Two nodes; `w` is under audit and `b` beside it on the first, `o` is another tenant's on the second.
const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: z, labels: {team: z}}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: w, namespace: a, labels: {app: w}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: a, labels: {app: b}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: api, containerPort: 8443}]}]}
status: {podIP: 10.0.0.2}
---
";

const OTHER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: o, namespace: z, labels: {app: o}}
spec: {nodeName: n2, containers: [{name: c, image: i, ports: [{name: api, containerPort: 9000}]}]}
status: {podIP: 10.0.1.3}
---
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: z}
spec: {type: LoadBalancer, clusterIP: 10.96.0.5, externalIPs: [203.0.113.1], selector: {app: o}, ports: [{name: web, port: 443, targetPort: api, nodePort: 30443}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.2}]}}
---
";

fn read(text: &str) -> Cluster {
    support::world(&[text]).cluster
}

fn audit(text: &str, profile: &str, intents: &str) -> Outcome {
    let intents = format!(
        "apiVersion: mpegflow.io/v1alpha1\nkind: NetworkIntents\nintents:\n- name: it\n  from: {{namespace: a, pods: {{app: w}}}}\n{intents}"
    );
    let mut input = Input::new(Limits::default());
    input.add("intents.yaml", intents).unwrap();
    run(&request(&read(text), profile, intent::read(&input).unwrap())).unwrap()
}

/// The egress of `w`, to a block at a port.
fn egress(to: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: w, namespace: a}}\nspec: {{podSelector: {{matchLabels: {{app: w}}}}, policyTypes: [Ingress, Egress], egress: [{{to: [{{ipBlock: {{cidr: {to}}}}}], ports: [{{port: {port}}}]}}]}}\n"
    )
}

const NEVER_Z: &str = "  must-not: [{namespace: z}]\n";

/// The finding that names the pod of the other tenant.
fn forbidden(outcome: &Outcome) -> Option<String> {
    let of_z = |reason: &str| reason.contains("Pod z/o");
    let found = outcome.findings.iter().find(|f| f.id == "MF111" && of_z(&f.reason))?;
    Some(format!("{:?} {}", found.certain, found.reason))
}

#[test]
fn what_is_behind_a_cluster_address_is_reached_where_policies_see_the_address() {
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("10.96.0.5/32", 443));
    for may in ["", "  may: [{cidr: 10.96.0.0/12, ports: [443]}, {group: nodes}]\n"] {
        let outcome = audit(&text, "aws-vpc", &format!("{may}{NEVER_Z}"));
        assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
        let reason = forbidden(&outcome).expect("the pod behind it is named");
        assert!(reason.contains("through 10.96.0.5 port 443 (Service z/s)"), "{reason}");
        let finding = outcome.findings.iter().find(|f| f.id == "MF111").unwrap();
        let witness = finding.witness.as_ref().unwrap();
        assert_eq!((witness.protocol, witness.port), (Protocol::Tcp, 443), "{witness:?}");
        assert!(witness.rules.iter().any(|rule| rule.rule.is_some()), "{witness:?}");
    }
    // To Calico and Cilium it is a packet to the backend, which no rule allows.
    for profile in ["calico", "cilium"] {
        let outcome = audit(&text, profile, NEVER_Z);
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}", outcome.sentence);
    }
    let outcome = audit(&text, "generic", NEVER_Z);
    assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
    assert!(
        outcome.intents[0].doubts.iter().any(|doubt| doubt.what.contains("cluster addresses")),
        "{:#?}",
        outcome.intents
    );
}

#[test]
fn what_is_behind_an_external_address_or_a_load_balancer_is_reached_too() {
    for address in ["203.0.113.1", "203.0.113.2"] {
        let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress(&format!("{address}/32"), 443));
        let may = format!("  may: [{{cidr: {address}/32, ports: [443]}}, {{group: nodes}}]\n");
        for may in ["", &may] {
            let outcome = audit(&text, "aws-vpc", &format!("{may}{NEVER_Z}"));
            assert_eq!(outcome.proved, Truth::No, "{address}: {}", outcome.sentence);
            assert!(
                forbidden(&outcome).unwrap().contains(&format!("through {address} port 443")),
                "{:#?}",
                outcome.findings
            );
        }
        assert_eq!(audit(&text, "calico", NEVER_Z).proved, Truth::Yes, "{address}");
        assert_eq!(audit(&text, "cilium", NEVER_Z).proved, Truth::Unknown, "{address}");
    }
    // A load balancer that packets go out to may hand them to anybody behind it.
    let text = format!(
        "{CLUSTER}{OTHER}{}{}",
        SERVICE.replace("{ip: 203.0.113.2}", "{ip: 203.0.113.2, ipMode: Proxy}"),
        egress("203.0.113.2/32", 443)
    );
    let outcome = audit(&text, "calico", NEVER_Z);
    assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
    assert!(outcome.sentence.contains("load balancer at 203.0.113.2"), "{}", outcome.sentence);
}

#[test]
fn a_service_without_a_selector_reaches_whom_its_slices_list() {
    let slices = "apiVersion: v1\nkind: Service\nmetadata: {name: s2, namespace: a}\nspec: {clusterIP: 10.96.0.6, SELECTOR ports: [{port: 8443, targetPort: 9000}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s2-x, namespace: a, labels: {kubernetes.io/service-name: s2}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.1.3]}]\nports: [{port: 9000, protocol: TCP}]\n---\n";
    // A slice beside a selector counts as well: kube-proxy does not ask who made it.
    for selector in ["", "selector: {app: b},"] {
        let slices = slices.replace("SELECTOR", selector);
        let text = format!("{CLUSTER}{OTHER}{slices}{}", egress("10.96.0.6/32", 8443));
        let outcome = audit(&text, "aws-vpc", NEVER_Z);
        assert_eq!(outcome.proved, Truth::No, "{selector}: {}", outcome.sentence);
        assert!(
            forbidden(&outcome).unwrap().contains("through 10.96.0.6 port 8443 (Service a/s2)"),
            "{:#?}",
            outcome.findings
        );
    }
    // Behind the address may be somebody outside the cluster as well, or a metadata service.
    let outside = slices.replace("SELECTOR", "").replace("10.0.1.3", "169.254.169.254");
    let text = format!("{CLUSTER}{outside}{}", egress("10.96.0.6/32", 8443));
    let outcome = audit(&text, "aws-vpc", "  must-not: [{group: metadata}]\n");
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
}

#[test]
fn another_nodes_port_reaches_the_pods_behind_it() {
    for cidr in ["192.168.0.2/32", "192.168.0.0/24"] {
        let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress(cidr, 30443));
        for may in ["", "  may: [{group: nodes, ports: [30443]}]\n"] {
            let outcome = audit(&text, "calico", &format!("{may}{NEVER_Z}"));
            assert_eq!(outcome.proved, Truth::No, "{cidr} {may}: {}", outcome.sentence);
            let reason = forbidden(&outcome).unwrap();
            assert!(
                reason.starts_with("Yes ") && reason.contains("through node n2 port 30443 (Service z/s)"),
                "{reason}"
            );
        }
    }
    // The pod's own node translates first, and then no rule allows the backend.
    let own = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("192.168.0.1/32", 30443));
    assert_eq!(audit(&own, "calico", NEVER_Z).proved, Truth::Yes);
    assert_eq!(audit(&own, "aws-vpc", NEVER_Z).proved, Truth::No);
    // Another port of the node is no way to it.
    let other = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("192.168.0.2/32", 30444));
    assert_eq!(audit(&other, "calico", NEVER_Z).proved, Truth::Yes);
}

#[test]
fn a_host_port_reaches_its_pod() {
    let host = OTHER.replace("containerPort: 9000", "containerPort: 9000, hostPort: 9001");
    let text = format!("{CLUSTER}{host}{}", egress("192.168.0.2/32", 9001));
    for may in ["", "  may: [{group: nodes, ports: [9001]}]\n"] {
        let outcome = audit(&text, "calico", &format!("{may}{NEVER_Z}"));
        assert_eq!(outcome.proved, Truth::No, "{may}: {}", outcome.sentence);
        assert!(
            forbidden(&outcome).unwrap().contains("through node n2 port 9001 (a host port) (TCP 9000)"),
            "{:#?}",
            outcome.findings
        );
    }
}

#[test]
fn a_host_network_pod_is_reached_with_its_node() {
    let host =
        OTHER.replace("nodeName: n2,", "nodeName: n2, hostNetwork: true,").replace("10.0.1.3", "192.168.0.2");
    let text = format!("{CLUSTER}{host}{}", egress("192.168.0.2/32", 9000));
    let outcome = audit(&text, "calico", NEVER_Z);
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(forbidden(&outcome).unwrap().starts_with("Yes "), "{:#?}", outcome.findings);
}

#[test]
fn a_backend_that_lets_nobody_in_is_not_reached_through_its_service() {
    let closed = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: z}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}{closed}", egress("10.96.0.5/32", 443));
    let outcome = audit(&text, "aws-vpc", NEVER_Z);
    // The pod's own node is always open under it, and a packet to its node port may come from an address that `o` lets in.
    assert_ne!(outcome.proved, Truth::No, "{}", outcome.sentence);
    let without = SERVICE.replace(", nodePort: 30443", "");
    let text = format!("{CLUSTER}{OTHER}{without}{}{closed}", egress("10.96.0.5/32", 443));
    assert_eq!(audit(&text, "aws-vpc", NEVER_Z).proved, Truth::Yes);
}

#[test]
fn an_address_that_an_intent_names_does_not_stand_for_another_tenants_pods() {
    // Whoever may write Services may give one an external address that somebody else means.
    let tenants =
        CLUSTER.replace("team: a", "mpegflow.io/tenant: a").replace("team: z", "mpegflow.io/tenant: z");
    let text = format!("{tenants}{OTHER}{SERVICE}{}", egress("203.0.113.1/32", 443));
    let may = "  may: [{cidr: 203.0.113.1/32, ports: [443]}, {group: nodes}]\n";
    let outcome = audit(&text, "aws-vpc", may);
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(outcome.findings.iter().any(|f| f.id == "MF107"), "{:#?}", outcome.findings);
    // The same without tenants is what the intent says.
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("203.0.113.1/32", 443));
    assert_eq!(audit(&text, "aws-vpc", may).proved, Truth::Yes);
}

/// What is found of who reaches `w`, with how sure it is.
fn reached(outcome: &Outcome) -> Vec<String> {
    let found = outcome.findings.iter().filter(|finding| finding.id == "MF109");
    found.map(|finding| format!("{:?} {}", finding.certain, finding.reason)).collect()
}

/// A Service of `w`, and the policy of `w`, which is closed but for what is let in.
fn exposed(spec: &str, ingress: &str) -> String {
    format!(
        "{CLUSTER}{OTHER}apiVersion: v1\nkind: Service\nmetadata: {{name: w, namespace: a}}\nspec: {{selector: {{app: w}}, {spec}}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: w, namespace: a}}\nspec: {{podSelector: {{matchLabels: {{app: w}}}}, policyTypes: [Ingress, Egress], ingress: [{ingress}]}}\n"
    )
}

const NODE_PORT: &str =
    "type: NodePort, clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]";
const NOBODY: &str = "  reached-by: []\n";

#[test]
fn an_outside_client_that_arrives_as_the_pods_own_node_reaches_it() {
    // kube-proxy gives a node port's packet the node's address, and a pod's own node is always let in.
    let text = exposed(NODE_PORT, "");
    for (profile, proved) in [
        ("aws-vpc", Truth::No),
        // Calico looks before the address is replaced; Cilium does where it is its own kube-proxy.
        ("calico", Truth::Yes),
        ("cilium", Truth::Unknown),
        ("generic", Truth::Unknown),
    ] {
        let outcome = audit(&text, profile, NOBODY);
        assert_eq!(outcome.proved, proved, "{profile}: {}", outcome.sentence);
        assert_eq!(reached(&outcome).is_empty(), proved.must(), "{profile}");
        let doubts = &outcome.intents[0].doubts;
        assert_eq!(
            doubts.iter().any(|doubt| doubt.what.contains("sees the sender's address or a node's")),
            proved == Truth::Unknown,
            "{profile}: {doubts:#?}"
        );
    }
    let outcome = audit(&text, "aws-vpc", NOBODY);
    let found = reached(&outcome);
    assert!(
        found[0].starts_with("Yes ")
            && found[0].contains("through the pod's own node port 30080 (Service a/w)"),
        "{found:#?}"
    );
    let witness = outcome.findings.iter().find(|f| f.id == "MF109").unwrap().witness.as_ref().unwrap();
    assert_eq!((&*witness.destination, witness.port), ("Pod a/w", 8080), "{witness:?}");
    // The same of ports that the API server is still to choose, of load balancers, and of every way that the world is written.
    for spec in [
        NODE_PORT.replace(", nodePort: 30080", ""),
        NODE_PORT.replace("NodePort", "LoadBalancer"),
        NODE_PORT.replace("NodePort", "LoadBalancer").replace(", nodePort: 30080", ""),
    ] {
        assert_eq!(audit(&exposed(&spec, ""), "aws-vpc", NOBODY).proved, Truth::No, "{spec}");
        let outcome = audit(
            &exposed(&spec, ""),
            "aws-vpc",
            "  reached-by: [{cidr: 203.0.113.0/24}, {group: pods}, {group: nodes}]\n",
        );
        assert_eq!(outcome.proved, Truth::No, "{spec}: who is not in that block comes in, too");
    }
    // Pods reach an external address through their own node, which is that of `w`; of a load balancer without node ports it is not
    // known which node hands a packet on.
    let external = "clusterIP: 10.96.0.9, externalIPs: [203.0.113.9], ports: [{port: 80, targetPort: 8080}]";
    let balancer = "type: LoadBalancer, allocateLoadBalancerNodePorts: false, clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080}]";
    for (spec, proved) in [(external, Truth::No), (balancer, Truth::Unknown)] {
        let outcome = audit(&exposed(spec, ""), "aws-vpc", NOBODY);
        assert_eq!(outcome.proved, proved, "{spec}: {}", outcome.sentence);
    }
    // Where there is no such port, nobody comes in.
    let inner = "clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080}]";
    for profile in ["aws-vpc", "calico", "cilium"] {
        assert_eq!(audit(&exposed(inner, ""), profile, NOBODY).proved, Truth::Yes, "{profile}");
    }
    // To `generic` SCTP and other protocols are open, and that is all.
    let outcome = audit(&exposed(inner, ""), "generic", NOBODY);
    assert!(
        !outcome.intents[0].doubts.iter().any(|doubt| doubt.what.contains("sender's address")),
        "{outcome:#?}"
    );
}

#[test]
fn an_outside_client_that_keeps_its_address_is_judged_by_it() {
    let local = NODE_PORT.replace("type: NodePort", "type: NodePort, externalTrafficPolicy: Local");
    let one = "{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}";
    for profile in ["aws-vpc", "calico", "cilium"] {
        assert_eq!(audit(&exposed(&local, ""), profile, NOBODY).proved, Truth::Yes, "{profile}");
        let outcome = audit(&exposed(&local, one), profile, NOBODY);
        assert_eq!(outcome.proved, Truth::No, "{profile}: {}", outcome.sentence);
        let outcome = audit(&exposed(&local, one), profile, "  reached-by: [{cidr: 203.0.113.0/24}]\n");
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}", outcome.sentence);
    }
}

#[test]
fn an_outside_client_that_arrives_as_another_node_reaches_whom_nodes_may_reach() {
    let nodes = "{from: [{ipBlock: {cidr: 192.168.0.1/32}}, {ipBlock: {cidr: 192.168.0.2/32}}]}";
    let text = exposed(NODE_PORT, nodes);
    for profile in ["calico", "aws-vpc"] {
        // To name nodes permits nodes, and nobody for whom they stand in.
        let outcome = audit(&text, profile, "  reached-by: [{group: nodes}]\n");
        assert_eq!(outcome.proved, Truth::No, "{profile}: {}", outcome.sentence);
        let found = reached(&outcome);
        assert!(found.iter().any(|reason| reason.contains("through node n2 port 30080")), "{found:#?}");
        // Nor is a pod of another tenant the outside.
        let outcome = audit(&text, profile, "  reached-by: [{group: nodes}, {group: outside}]\n");
        assert_eq!(outcome.proved, Truth::No, "{profile}: {}", outcome.sentence);
        let found = reached(&outcome);
        assert!(
            found.iter().all(|reason| reason.contains("Pod ") && !reason.contains("outside")),
            "{found:#?}"
        );
        let outcome =
            audit(&text, profile, "  reached-by: [{group: nodes}, {group: outside}, {group: pods}]\n");
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}", outcome.sentence);
    }
    // With `Local` a node keeps the client's address, which of a pod elsewhere may already be that of its node: Calico's pools say.
    let local = NODE_PORT.replace("type: NodePort", "type: NodePort, externalTrafficPolicy: Local");
    for (profile, proved) in [("aws-vpc", Truth::Yes), ("calico", Truth::Unknown)] {
        let outcome = audit(&exposed(&local, nodes), profile, "  reached-by: [{group: nodes}]\n");
        assert_eq!(outcome.proved, proved, "{profile}: {}", outcome.sentence);
        let outcome =
            audit(&exposed(&local, nodes), profile, "  reached-by: [{group: nodes}, {group: pods}]\n");
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}", outcome.sentence);
    }
    // Cilium's own kinds, in its words for nodes.
    let cilium = |entity: &str| {
        format!(
            "{}---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: c, namespace: a}}\nspec: {{endpointSelector: {{matchLabels: {{app: w}}}}, ingress: [{{fromEntities: [{entity}]}}]}}\n",
            exposed(NODE_PORT, "")
        )
    };
    for entity in ["remote-node", "host"] {
        let outcome = audit(&cilium(entity), "cilium", "  reached-by: [{group: nodes}]\n");
        assert_eq!(outcome.proved, Truth::Unknown, "{entity}: {}", outcome.sentence);
    }
}

#[test]
fn a_host_port_is_open_to_who_may_reach_the_pod_itself() {
    let host = CLUSTER.replace(
        "{nodeName: n1, containers: [{name: c, image: i}]}",
        "{nodeName: n1, containers: [{name: c, image: i, ports: [{containerPort: 8080, hostPort: 9001}]}]}",
    );
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: w, namespace: a}\nspec: {podSelector: {matchLabels: {app: w}}, policyTypes: [Ingress, Egress]}\n";
    for (profile, proved) in [
        ("aws-vpc", Truth::Yes),
        ("calico", Truth::Yes),
        // What portmap hands from a node to its own pods comes from the node to Cilium.
        ("cilium", Truth::Unknown),
        ("generic", Truth::Unknown),
    ] {
        let outcome = audit(&format!("{host}{closed}"), profile, NOBODY);
        assert_eq!(outcome.proved, proved, "{profile}: {}", outcome.sentence);
    }
    let loopback = host.replace("hostPort: 9001", "hostPort: 9001, hostIP: 127.0.0.1");
    assert_eq!(audit(&format!("{loopback}{closed}"), "cilium", NOBODY).proved, Truth::Yes);
}

#[test]
fn a_host_port_is_open_at_its_address_alone() {
    let at = |ip: &str| {
        OTHER.replace("containerPort: 9000", &format!("containerPort: 9000, hostPort: 9001, hostIP: {ip}"))
    };
    for (ip, sent, proved) in [
        ("0.0.0.0", "192.168.0.2", Truth::No),
        ("'::'", "192.168.0.2", Truth::No),
        ("''", "192.168.0.2", Truth::No),
        ("192.168.0.2", "192.168.0.2", Truth::No),
        // The pod's node has only the other address.
        ("192.168.0.1", "192.168.0.2", Truth::Yes),
        // An address of its node that the input does not list.
        ("192.168.7.2", "192.168.7.2", Truth::No),
        ("192.168.7.2", "192.168.0.2", Truth::Yes),
        ("127.0.0.1", "192.168.0.2", Truth::Yes),
    ] {
        let text = format!("{CLUSTER}{}{}", at(ip), egress(&format!("{sent}/32"), 9001));
        let outcome = audit(&text, "calico", NEVER_Z);
        assert_eq!(outcome.proved, proved, "{ip} {sent}: {}", outcome.sentence);
    }
    // Of a node without addresses it is not known.
    let text = format!("{CLUSTER}{}{}", at("192.168.7.2"), egress("192.168.0.2/32", 9001))
        .replace("[{type: InternalIP, address: 192.168.0.2}]", "[]");
    let outcome = audit(&text, "calico", NEVER_Z);
    assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
    // What is no address opens nothing that could be proved closed.
    assert!(
        support::try_world(&[&at("localhost")])
            .is_err_and(|error| error.contains("hostIP must be an IP address"))
    );
}

#[test]
fn a_node_port_that_the_input_does_not_say_may_be_any() {
    let service = SERVICE.replace(", nodePort: 30443", "");
    let range = egress("192.168.0.2/32", 30_000).replace("port: 30000", "port: 30000, endPort: 32767");
    let one = egress("192.168.0.2/32", 31_000);
    let other = egress("192.168.0.2/32", 29_999);
    for (rules, proved) in [(range, Truth::No), (one, Truth::Unknown), (other, Truth::Yes)] {
        let outcome = audit(&format!("{CLUSTER}{OTHER}{service}{rules}"), "calico", NEVER_Z);
        assert_eq!(outcome.proved, proved, "{rules}: {}", outcome.sentence);
    }
}

#[test]
fn a_load_balancer_that_the_input_does_not_say_may_be_anywhere() {
    let everywhere =
        egress("0.0.0.0/0", 443).replace("0.0.0.0/0", "0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]");
    for status in ["status: {loadBalancer: {ingress: [{hostname: lb.example.com}]}}", ""] {
        let service = SERVICE
            .replace("externalIPs: [203.0.113.1], ", "allocateLoadBalancerNodePorts: false, ")
            .replace(", nodePort: 30443", "")
            .replace("status: {loadBalancer: {ingress: [{ip: 203.0.113.2}]}}", status);
        let text = format!("{CLUSTER}{OTHER}{service}{everywhere}");
        let outcome = audit(&text, "aws-vpc", NEVER_Z);
        assert_eq!(outcome.proved, Truth::Unknown, "{status}: {}", outcome.sentence);
        assert!(
            outcome.sentence.contains("the address of the load balancer of Service z/s"),
            "{}",
            outcome.sentence
        );
        // A node does not know an address that is told by name: the packet goes out, and comes back as somebody else's.
        let proved = if status.is_empty() { Truth::Yes } else { Truth::Unknown };
        let outcome = audit(&text, "calico", NEVER_Z);
        assert_eq!(outcome.proved, proved, "{status}: {}", outcome.sentence);
    }
}

#[test]
fn what_the_own_node_translates_comes_from_a_node_to_pods_elsewhere() {
    // Calico sees the backend as it is sent, and the node as it arrives: `o` lets nodes in, and not `w`.
    let open = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open, namespace: z}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 192.168.0.0/24}}]}]}\n";
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}{open}", egress("10.0.1.3/32", 9000));
    let outcome = audit(&text, "calico", NEVER_Z);
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(
        forbidden(&outcome).unwrap().contains("through the pod's own node port 30443"),
        "{:#?}",
        outcome.findings
    );
    assert_eq!(ask(&text, "calico", "node/n1", "30443").unwrap().passes, Truth::Yes);
    let without = SERVICE
        .replace(", nodePort: 30443", "")
        .replace("LoadBalancer", "ClusterIP")
        .replace("externalIPs: [203.0.113.1], ", "")
        .replace("status: {loadBalancer: {ingress: [{ip: 203.0.113.2}]}}", "");
    let text = format!("{CLUSTER}{OTHER}{without}{}{open}", egress("10.0.1.3/32", 9000));
    assert_eq!(audit(&text, "calico", NEVER_Z).proved, Truth::Yes);
}

#[test]
fn pods_of_one_template_reach_each_other_through_their_service() {
    // The address is let out to, and each lets the others in: none of it is a packet to one of them itself.
    let text = format!(
        "{CLUSTER}{OTHER}apiVersion: v1\nkind: Service\nmetadata: {{name: t, namespace: a}}\nspec: {{clusterIP: 10.96.0.7, selector: {{app: t}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: t, namespace: a}}\nspec: {{template: {{metadata: {{labels: {{app: t}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: t, namespace: a}}\nspec: {{podSelector: {{matchLabels: {{app: t}}}}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{podSelector: {{matchLabels: {{app: t}}}}}}]}}], egress: [{{to: [{{ipBlock: {{cidr: 10.96.0.7/32}}}}]}}]}}\n"
    );
    let intents = "  must-not: [{namespace: a, pods: {app: t}}]\n- name: so\n  from: {namespace: a, pods: {app: t}}\n  must-not: [{namespace: a, pods: {app: t}}]\n";
    let judged = |profile: &str| {
        // Pods get addresses that are no Service's.
        let text = format!(
            "{text}---\napiVersion: v1\nkind: Node\nmetadata: {{name: n3}}\nspec: {{podCIDR: 10.0.0.0/16}}\n"
        );
        let outcome = audit(&text, profile, intents);
        (outcome.intents[1].proved, outcome.sentence)
    };
    let (proved, sentence) = judged("aws-vpc");
    assert_eq!(proved, Truth::No, "{sentence}");
    assert!(sentence.contains("another pod of Deployment a/t through 10.96.0.7 port 80"), "{sentence}");
    let (proved, sentence) = judged("calico");
    assert_eq!(proved, Truth::Yes, "{sentence}");
}

/// Another pod like `w` on the second node, which no policy tells from it.
const TWIN: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: w2, namespace: a, labels: {app: w}}\nspec: {nodeName: n2, containers: [{name: c, image: i, ports: [{name: web, containerPort: 81}]}]}\nstatus: {podIP: 10.0.1.1}\n---\n";

#[test]
fn pods_that_policies_do_not_tell_apart_are_told_apart_by_where_and_what_they_are() {
    let named = |text: &str| {
        text.replace(
            "{nodeName: n1, containers: [{name: c, image: i}]}",
            "{nodeName: n1, containers: [{name: c, image: i, ports: [{name: web, containerPort: 80}]}]}",
        )
    };
    // The one's own node is permitted, the other's is not.
    let text = format!("{CLUSTER}{TWIN}{}", egress("192.168.0.1/32", 443));
    let outcome = audit(&text, "aws-vpc", "  may: [{cidr: 192.168.0.1/32}]\n");
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    // Port 80 is `web` of the one and not of the other.
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: w, namespace: a}\nspec: {podSelector: {matchLabels: {app: w}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 80}]}]}\n";
    let text = named(&format!("{CLUSTER}{TWIN}{policy}"));
    let outcome = audit(&text, "calico", "  reached-by: [{namespace: a, pods: {app: b}, ports: [web]}]\n");
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    // An address of another tenant's pods is permitted to their own tenant alone.
    let text = format!("{CLUSTER}{TWIN}{OTHER}{SERVICE}{}", egress("10.96.0.5/32", 443))
        .replace(
            "name: w, namespace: a, labels: {app: w}",
            "name: w, namespace: a, labels: {app: w, mpegflow.io/tenant: z}",
        )
        .replace(
            "name: w2, namespace: a, labels: {app: w}",
            "name: w2, namespace: a, labels: {app: w, mpegflow.io/tenant: a}",
        )
        .replace("labels: {team: z}", "labels: {mpegflow.io/tenant: z}");
    let outcome = audit(&text, "aws-vpc", "  may: [{cidr: 10.96.0.5/32, ports: [443]}, {group: nodes}]\n");
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(
        outcome.findings.iter().any(|f| f.id == "MF107" && f.object.name == "w2".into()),
        "{:#?}",
        outcome.findings
    );
    // One is behind a Service and the other is not.
    let text = exposed(NODE_PORT, "").replace("selector: {app: w}", "selector: {app: w, out: there}")
        + "---\n"
        + &TWIN.replace("{app: w}", "{app: w, out: there}");
    let outcome = audit(&text, "aws-vpc", NOBODY);
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(
        outcome.findings.iter().filter(|f| f.id == "MF109").all(|f| f.object.name == "w2".into()),
        "{:#?}",
        outcome.findings
    );
}

fn ask(
    text: &str,
    profile: &str,
    destination: &str,
    port: &str,
) -> Result<explain::Answer, explain::QuestionError> {
    explain::run(&explain::Question {
        cluster: &read(text),
        profile: profile.parse().unwrap(),
        complete: true,
        pod_cidrs: None,
        source: "a/w",
        destination,
        port,
    })
}

#[test]
fn an_explanation_of_a_service_follows_the_packet_through_its_address() {
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("10.96.0.5/32", 443));
    for (profile, passes) in
        [("aws-vpc", Truth::Yes), ("generic", Truth::Unknown), ("calico", Truth::No), ("cilium", Truth::No)]
    {
        for (destination, port) in
            [("svc/z/s", "443"), ("svc/z/s", "web"), ("10.96.0.5", "443"), ("10.96.0.5", "any")]
        {
            let answer = ask(&text, profile, destination, port).unwrap();
            assert_eq!(answer.passes, passes, "{profile} {destination} {port}: {}", answer.table(false));
        }
    }
    let answer = ask(&text, "aws-vpc", "svc/z/s", "443").unwrap();
    assert_eq!(answer.pairs[0].through.as_ref().unwrap().0, "10.96.0.5 port 443 (Service z/s)");
    assert!(answer.table(false).contains("NetworkPolicy a/w spec.egress[0]"), "{}", answer.table(false));
    let answer = ask(&text, "generic", "svc/z/s", "443").unwrap();
    let doubts: Vec<_> = answer.pairs.iter().flat_map(|pair| &pair.explanation.doubts).collect();
    assert!(doubts.iter().any(|doubt| doubt.what.contains("implementations differ")), "{doubts:#?}");
    // Nobody answers at another port of it.
    assert!(
        ask(&text, "aws-vpc", "10.96.0.5", "444").unwrap_err().to_string().contains("it has 443/TCP (web)")
    );
}

#[test]
fn an_explanation_of_a_node_port_or_an_external_address_follows_the_packet_too() {
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("192.168.0.2/32", 30443));
    let closed = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: z}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";
    assert_eq!(ask(&text, "calico", "node/n2", "30443").unwrap().passes, Truth::Yes);
    assert_eq!(ask(&text, "calico", "192.168.0.2", "30443").unwrap().passes, Truth::Yes);
    let answer = ask(&format!("{text}{closed}"), "calico", "node/n2", "30443").unwrap();
    assert_ne!(answer.passes, Truth::Yes, "{}", answer.table(false));
    assert_eq!(ask(&text, "calico", "node/n2", "30444").unwrap().passes, Truth::No);
    let text = format!("{CLUSTER}{OTHER}{SERVICE}{}", egress("203.0.113.1/32", 443));
    for (profile, passes) in [("aws-vpc", Truth::Yes), ("calico", Truth::No), ("cilium", Truth::Unknown)] {
        let answer = ask(&text, profile, "203.0.113.1", "443").unwrap();
        assert_eq!(answer.passes, passes, "{profile}: {}", answer.table(false));
    }
}

#[test]
fn an_own_node_that_runs_the_api_server_is_the_api_server_and_doubt_about_it_has_a_reason() {
    let api = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes, namespace: default}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 443, targetPort: 6443}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}\naddressType: IPv4\nendpoints: [{addresses: [192.168.0.1]}]\nports: [{port: 6443, protocol: TCP}]\n---\n";
    let no_api = "  must-not: [{group: kube-api}]\n";
    let text = format!("{CLUSTER}{api}{}", egress("192.168.0.1/32", 6443));
    let outcome = audit(&text, "aws-vpc", no_api);
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    // Where the input does not say on which node the pod runs, or where the API server does, that is said.
    let anywhere = text.replace(
        "spec: {nodeName: n1, containers: [{name: c, image: i}]}",
        "spec: {containers: [{name: c, image: i}]}",
    );
    let nowhere = format!("{CLUSTER}{}", egress("192.168.0.1/32", 6443));
    for (text, reason) in [
        (anywhere, "whether the API server, at 192.168.0.1"),
        (nowhere, "where the API server runs is not known"),
    ] {
        let outcome = audit(&text, "aws-vpc", no_api);
        if outcome.proved == Truth::Unknown {
            assert!(outcome.sentence.contains(reason), "{}", outcome.sentence);
            assert!(
                outcome.intents[0].doubts.iter().any(|doubt| doubt.what.contains(reason)),
                "{:#?}",
                outcome.intents
            );
        } else {
            assert_eq!(reason, "whether the API server, at 192.168.0.1", "{}", outcome.sentence);
        }
    }
}

/// Clusters of the properties below.
const CLUSTERS: u64 = 150;

/// A generated cluster with Services of every kind, with and without selectors, with node ports, external addresses and host
/// ports, and policies that speak of their addresses. `w` is under audit.
fn generated(seed: u64) -> String {
    let mut rng = Rng::new(seed ^ 0x7365_7276);
    let mut text = String::new();
    for namespace in ["a", "z"] {
        write!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n").unwrap();
    }
    for node in 1..=3 {
        write!(text, "apiVersion: v1\nkind: Node\nmetadata: {{name: n{node}}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.168.0.{node}}}]}}\n---\n").unwrap();
    }
    let mut pod = |name: &str, namespace: &str, number: usize, rng: &mut Rng| {
        let node = format!("nodeName: n{}, ", rng.between(1, 3));
        let host = if rng.one_in(4) { ", hostPort: 9001" } else { "" };
        write!(text, "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec: {{{node}containers: [{{name: c, image: i, ports: [{{name: api, containerPort: 9000{host}}}]}}]}}\nstatus: {{podIP: 10.0.0.{number}}}\n---\n").unwrap();
    };
    for (number, (name, namespace)) in
        [("w", "a"), ("b", "a"), ("o", "z"), ("p", "z")].into_iter().enumerate()
    {
        pod(name, namespace, number + 1, &mut rng);
    }
    let mut addresses = vec![
        "10.0.0.2".to_owned(),
        "192.168.0.1".to_owned(),
        "192.168.0.2".to_owned(),
        "192.168.0.3".to_owned(),
    ];
    for number in 1..=rng.between(1, 3) {
        let (name, namespace) = *[("b", "a"), ("o", "z"), ("p", "z")].get(rng.between(0, 2)).unwrap();
        let selector = if rng.one_in(2) { format!("selector: {{app: {name}}}, ") } else { String::new() };
        let external =
            if rng.one_in(2) { format!("externalIPs: [203.0.113.{number}], ") } else { String::new() };
        let node_port = if rng.one_in(2) { format!(", nodePort: {}", 30000 + number) } else { String::new() };
        let kind = if node_port.is_empty() { "ClusterIP" } else { "NodePort" };
        let target = if rng.one_in(2) { "9000" } else { "api" };
        let local = if rng.one_in(5) { "externalTrafficPolicy: Local, " } else { "" };
        write!(text, "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: {namespace}}}\nspec: {{type: {kind}, {local}clusterIP: 10.96.0.{number}, {external}{selector}ports: [{{port: 443, targetPort: {target}{node_port}}}]}}\n---\n").unwrap();
        if selector.is_empty() || rng.one_in(4) {
            let behind =
                *["10.0.0.2", "10.0.0.3", "10.0.0.4", "198.51.100.9"].get(rng.between(0, 3)).unwrap();
            write!(text, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{number}-x, namespace: {namespace}, labels: {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [{behind}]}}]\nports: [{{port: 9000}}]\n---\n").unwrap();
        }
        addresses.push(format!("10.96.0.{number}"));
        addresses.push(format!("203.0.113.{number}"));
    }
    let mut rules = String::new();
    for _ in 0..rng.between(0, 6) {
        let to = addresses.get(rng.between(0, addresses.len() - 1)).unwrap();
        let port = *[443, 9000, 9001, 30001, 30002, 30003].get(rng.between(0, 5)).unwrap();
        let ports = if rng.one_in(2) { String::new() } else { format!(", ports: [{{port: {port}}}]") };
        write!(rules, "{{to: [{{ipBlock: {{cidr: {to}/32}}}}]{ports}}}, ").unwrap();
    }
    write!(text, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: w, namespace: a}}\nspec: {{podSelector: {{matchLabels: {{app: w}}}}, policyTypes: [Egress], egress: [{rules}]}}\n---\n").unwrap();
    if rng.one_in(3) {
        let from = *["{}", "{namespaceSelector: {}}", "{ipBlock: {cidr: 192.168.0.0/24}}"]
            .get(rng.between(0, 2))
            .unwrap();
        let ingress =
            if rng.one_in(2) || from == "{}" { String::new() } else { format!("{{from: [{from}]}}") };
        write!(text, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: z, namespace: z}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{ingress}]}}\n").unwrap();
    }
    text
}

/// Who gets a packet of `w` in the end, packet by packet and by what the implementation does, in plain words: the source's side is
/// asked about the address that it sees, then the destination is translated, then the backend's side is asked. Counts every pod
/// of namespace `z` that is surely reached.
fn really_reached(text: &str, profile: Profile) -> Vec<String> {
    let cluster = read(text);
    let packets: Vec<IpAddr> = (1..=3)
        .flat_map(|n| {
            [
                format!("192.168.0.{n}"),
                format!("10.96.0.{n}"),
                format!("203.0.113.{n}"),
                format!("10.0.0.{}", n + 1),
            ]
        })
        .map(|ip| ip.parse().unwrap())
        .collect();
    let options =
        Options { addresses: packets.iter().copied().map(AddressSet::one).collect(), ..Options::default() };
    let evaluation = Evaluation::new(&cluster, profile, options).unwrap();
    let index = |name: &str| cluster.pods.iter().position(|pod| *pod.object.name == *name).unwrap();
    let worker = evaluation.pod(index("w")).unwrap();
    let own_node = cluster.pods[index("w")].node.clone();
    let node_of = |ip: IpAddr| {
        cluster.nodes.iter().find(|node| node.addresses.contains(&ip)).map(|node| node.name.clone())
    };
    let runs_on = |address: IpAddr| {
        let pod = cluster.pods.iter().find(|pod| pod.addresses.contains(&address));
        pod.and_then(|pod| pod.node.clone())
    };
    let as_seen = |from: EndpointId, ip: IpAddr| -> Option<EndpointId> {
        let found = evaluation.address(ip)?;
        evaluation.seen_from(from, found).first().copied()
    };
    let sees_before = profile.cni == Cni::AwsVpc;
    let mut reached = Vec::new();
    for ip in packets {
        let node = node_of(ip);
        let is_own = node.is_some() && node == own_node;
        for port in [443u16, 9000, 9001, 30001, 30002, 30003] {
            // Whom the packet becomes one to, and whether the node that translates it puts its own address in the sender's place.
            let mut ends: Vec<(IpAddr, u16, bool)> = Vec::new();
            for service in &cluster.services {
                for own in &service.ports {
                    let at_address = (service.cluster_ips.contains(&ip)
                        || service.external_ips.contains(&ip))
                        && own.port == port;
                    let at_node = node.is_some() && own.node_port == Some(NodePort::Number(port));
                    let masquerades =
                        service.external_ips.contains(&ip) || (at_node && !service.external_local);
                    if at_address || at_node {
                        let backends = backends(&cluster, service, &own.target);
                        // With `Local`, a node hands a packet on to its own pods only, unless a pod of its own sends it.
                        let handed_on = backends.into_iter().filter(|(backend, _)| {
                            !(at_node && service.external_local) || runs_on(*backend) == node
                        });
                        ends.extend(handed_on.map(|(backend, port)| (backend, port, masquerades)));
                    }
                }
            }
            for pod in cluster.pods.iter().filter(|pod| node.is_some() && pod.node == node) {
                for own in pod.ports.iter().filter(|own| own.host_port == Some(port)) {
                    ends.push((pod.addresses[0], own.port, false));
                }
            }
            let translated = !ends.is_empty();
            if !translated {
                ends.push((ip, port, false));
            }
            for (end, end_port, masquerades) in ends {
                let Some(backend) = evaluation.address(end) else { continue };
                if backend == worker {
                    continue;
                }
                // Calico sees what another node translates as it is sent; its own node translates before Calico looks.
                let judged = if !translated || sees_before || (node.is_some() && !is_own) {
                    (ip, port)
                } else {
                    (end, end_port)
                };
                let Some(front) = as_seen(worker, judged.0) else { continue };
                if !evaluation.egress(worker, front).allowed.contains(Protocol::Tcp, judged.1) {
                    continue;
                }
                // The sender's address, or that of the node that took its place: Calico looks at what a node hands on to its own
                // pods before the address is replaced.
                let by = if node.is_some() { node.clone() } else { own_node.clone() };
                let is_kept = !masquerades || (profile.cni == Cni::Calico && by == runs_on(end));
                let stand_in = || evaluation.seen_from(backend, evaluation.node(&by.unwrap()).unwrap());
                let mut senders = if is_kept { vec![worker] } else { stand_in() };
                // Calico's pools may masquerade what a pod sends to another node: sure is what comes in either way.
                if is_kept && translated && profile.cni == Cni::Calico && node.is_some() && !is_own {
                    let own = evaluation.node(own_node.as_ref().unwrap()).unwrap();
                    senders.extend(evaluation.seen_from(backend, own));
                }
                let lets_in = |from: &EndpointId| {
                    evaluation.ingress(*from, backend).allowed.contains(Protocol::Tcp, end_port)
                };
                if !senders.iter().all(lets_in) {
                    continue;
                }
                if let Some(Endpoint::Pod(pod)) = evaluation.endpoint(backend) {
                    let pod = &cluster.pods[*pod];
                    if *pod.namespace == *"z" {
                        reached.push(format!("{} by {ip}:{port}", pod.object));
                    }
                }
            }
        }
    }
    reached
}

fn backends(cluster: &Cluster, service: &Service, target: &TargetPort) -> Vec<(IpAddr, u16)> {
    let mut found = Vec::new();
    for pod in cluster.pods.iter().filter(|pod| pod.namespace == service.namespace) {
        let Some(selector) = &service.selector else { break };
        if selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)) {
            let port = match target {
                TargetPort::Number(number) => *number,
                TargetPort::Name(name) => {
                    pod.ports.iter().find(|port| port.name.as_ref() == Some(name)).unwrap().port
                }
            };
            found.push((pod.addresses[0], port));
        }
    }
    for slice in cluster
        .endpoints
        .iter()
        .filter(|slice| slice.service == service.object.name && slice.namespace == service.namespace)
    {
        found.extend(slice.addresses.iter().map(|(ip, _)| (*ip, slice.ports[0].port)));
    }
    found
}

#[test]
fn whoever_a_packet_really_reaches_is_judged() {
    for profile in ["aws-vpc", "calico"] {
        let (mut through, mut proved) = (0, 0);
        // Few of them reach anybody.
        for seed in 0..4 * CLUSTERS {
            let text = generated(seed);
            let reached = really_reached(&text, profile.parse().unwrap());
            let outcome = audit(&text, profile, NEVER_Z);
            if reached.is_empty() {
                proved += u32::from(outcome.proved == Truth::Yes);
            } else {
                through += 1;
                assert_eq!(
                    outcome.proved,
                    Truth::No,
                    "{profile} seed {seed}: {reached:?}\n{}\n{text}",
                    outcome.sentence
                );
            }
            // What is said to be sure is so.
            if outcome.proved == Truth::No {
                assert!(!reached.is_empty(), "{profile} seed {seed}: {}\n{text}", outcome.sentence);
            }
        }
        assert!(
            through > 20 && proved > 20,
            "{profile}: {through} reach somebody, {proved} are proved to reach nobody"
        );
    }
}

/// Everything in a report that is unknown and has no reason.
fn without_reason(outcome: &Outcome) -> Vec<String> {
    let intents = outcome.intents.iter().filter(|it| it.proved == Truth::Unknown && it.doubts.is_empty());
    let findings = outcome.findings.iter().filter(|it| it.certain == Truth::Unknown && it.doubts.is_empty());
    let mut all: Vec<String> = intents.map(|it| it.name.to_string()).collect();
    all.extend(findings.map(|it| format!("{} {}", it.id, it.reason)));
    if outcome.proved == Truth::Unknown && !outcome.sentence.contains(": ") {
        all.push(outcome.sentence.clone());
    }
    all
}

const INTENTS: &[&str] = &[
    "  may: [{namespace: a, pods: {app: b}, ports: [api]}]\n  reached-by: []\n",
    "  must-not: [{namespace: z}, {group: kube-api}, {group: metadata}]\n",
    "  must-not: [{cidr: 192.168.0.2/32}, {group: nodes, ports: [10250]}]\n  reached-by: [{namespace: z, ports: [api, 80/SCTP]}]\n",
    "  must: [{namespace: z, pods: {app: o}, ports: [9000, 9000/SCTP]}]\n",
];

#[test]
fn what_is_unknown_has_a_reason() {
    let mut unknown = 0;
    let extra = [
        "",
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: more, namespace: a}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {x: v}}}], ports: [{port: 80, protocol: SCTP}]}], egress: [{ports: [{port: 8000, endPort: 9000}, {port: api}]}, {ports: [{port: 1, protocol: SCTP}]}]}\n",
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: one}\nspec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{namespaces: {}}]}]}\n---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: two}\nspec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}\n",
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: c, namespace: a}\nspec: {endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '9000', protocol: SCTP}, {port: api}]}]}, {toFQDNs: [{matchName: x.example.com}]}]}\n",
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {selector: 'x == \"y\"', egress: [{action: Allow, protocol: TCP, source: {ports: [1]}}]}\n---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}\nspec: {node: n1, interfaceName: eth0}\n",
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: z, labels: {app: o}}\nspec: {hostNetwork: true, nodeName: gone, containers: [{name: c, image: i}]}\n---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d, namespace: a}\nspec: {template: {metadata: {labels: {app: w}}, spec: {containers: [{name: c, image: i, ports: [{name: api, containerPort: 1}, {name: api, containerPort: 2}]}]}}}\n",
    ];
    for seed in 0..CLUSTERS / 10 {
        let base = generated(seed);
        // Half of the clusters do not say where pods run.
        let base = if seed % 2 == 0 {
            base
        } else {
            base.replace("nodeName: n1, ", "").replace("nodeName: n2, ", "")
        };
        for extra in extra {
            for profile in ["generic", "cilium", "cilium@1.15", "calico", "aws-vpc"] {
                for intents in INTENTS {
                    let text = format!("{base}{extra}");
                    let outcome = audit(&text, profile, intents);
                    unknown += u32::from(outcome.proved == Truth::Unknown);
                    let bare = without_reason(&outcome);
                    assert!(bare.is_empty(), "{profile} seed {seed} {intents}: {bare:#?}\n{text}");
                }
            }
        }
    }
    assert!(unknown > 100, "{unknown}");
}

#[test]
fn what_is_unknown_of_a_worker_pool_has_a_reason() {
    let rows: [(&str, &[Dialect]); 6] = [
        ("generic", &[Dialect::NetworkPolicy]),
        ("aws-vpc", &[Dialect::NetworkPolicy]),
        ("cilium", &[Dialect::NetworkPolicy]),
        ("cilium", &[Dialect::Cilium]),
        ("calico", &[Dialect::Calico]),
        ("generic", &[Dialect::ClusterNetworkPolicy]),
    ];
    for (profile, dialects) in rows {
        for seed in 0..20 {
            let scenario = Scenario::generate(seed, Hostile::Beside);
            let policies = dialects.iter().flat_map(|dialect| scenario.pool.policies(*dialect).unwrap());
            let policies = policies.fold(String::new(), |text, policy| text + "---\n" + &to_yaml(&policy));
            let cluster = read(&format!("{}{policies}", scenario.manifests()));
            let outcome = run(&request(&cluster, profile, intent::worker_pools(&cluster))).unwrap();
            let bare = without_reason(&outcome);
            assert!(bare.is_empty(), "{profile} {dialects:?} seed {seed}: {bare:#?}");
        }
    }
}

fn changes(old: &str, new: &str, profile: &str) -> diff::Changes {
    diff::run(&read(old), &read(new), profile.parse().unwrap(), None).unwrap()
}

#[test]
fn a_difference_tells_who_became_reachable_behind_an_address() {
    let inner = "clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080}]";
    let (old, new) = (exposed(inner, ""), exposed(NODE_PORT, ""));
    let found = changes(&old, &new, "aws-vpc");
    let of_outside = found.changes.iter().find(|change| change.source.contains("outside")).unwrap();
    assert_eq!(
        (
            of_outside.destination.as_str(),
            of_outside.opened.to_string().as_str(),
            of_outside.through.as_deref()
        ),
        ("Pod a/w", "TCP 8080", Some("the pod's own node port 30080 (Service a/w)")),
    );
    assert_eq!(found.opened(), Truth::Yes);
    assert!(
        found.sentence().ends_with("through the pod's own node port 30080 (Service a/w)."),
        "{}",
        found.sentence()
    );
    let back = changes(&new, &old, "aws-vpc");
    assert_eq!(back.opened(), Truth::No, "{}", back.sentence());
    assert!(
        back.changes.iter().any(|change| !change.closed.is_none() && change.through.is_some()),
        "{back:#?}"
    );
    assert_eq!(changes(&old, &new, "cilium").opened(), Truth::Unknown);
    for (old, new, profile) in [(&old, &new, "calico"), (&new, &new, "aws-vpc")] {
        let found = changes(old, new, profile);
        assert!(found.changes.is_empty(), "{profile}: {}", found.table(false));
    }

    // A Service, a node port, a host port, each new beside a policy that lets its address be sent to.
    let host = OTHER.replace("containerPort: 9000", "containerPort: 9000, hostPort: 9001");
    let closed = OTHER.to_owned();
    for (old, new, egress, profile, way) in [
        (
            &closed,
            &format!("{OTHER}{SERVICE}"),
            egress("10.96.0.5/32", 443),
            "aws-vpc",
            "10.96.0.5 port 443 (Service z/s)",
        ),
        (
            &closed,
            &format!("{OTHER}{SERVICE}"),
            egress("192.168.0.2/32", 30443),
            "calico",
            "node n2 port 30443 (Service z/s)",
        ),
        (&closed, &host, egress("192.168.0.2/32", 9001), "calico", "node n2 port 9001 (a host port)"),
    ] {
        let found = changes(&format!("{CLUSTER}{old}{egress}"), &format!("{CLUSTER}{new}{egress}"), profile);
        let of_w =
            found.changes.iter().find(|change| change.source == "Pod a/w" && change.destination == "Pod z/o");
        let of_w = of_w.unwrap_or_else(|| panic!("{way}: {}", found.table(false)));
        assert_eq!((of_w.opened.to_string().as_str(), of_w.through.as_deref()), ("TCP 9000", Some(way)));
        assert!(
            found.table(false).contains(&format!("+ Pod a/w → Pod z/o  TCP 9000 through {way}\n")),
            "{}",
            found.table(false)
        );
    }
}
