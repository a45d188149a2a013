#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::cluster::Cluster;
use crate::matching::{DomainPattern, Test};
use crate::policy::Policy;
use crate::read::{Input, Limits, ReadOptions, cluster};

fn read_all(text: &str) -> Cluster {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    cluster(&input, &ReadOptions::default()).unwrap().cluster
}

fn cnp(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n---\n"
    )
}

/// The peers of the egress rules of the first policy.
fn egress_peers(policy: &Policy) -> Vec<Match> {
    policy.egress.iter().flat_map(|section| &section.rules).map(|rule| rule.peer.clone()).collect()
}

const DNS: &str = "{toEndpoints: [{}], toPorts: [{ports: [{port: \"53\", protocol: UDP}], rules: {dns: [{matchPattern: '*'}]}}]}";

fn name_rule(selector: &str) -> Match {
    let spec = format!("{{endpointSelector: {{}}, egress: [{DNS}, {{toFQDNs: [{selector}]}}]}}");
    egress_peers(&read_all(&cnp("p", &spec)).policies[0])[1].clone()
}

fn domain(pattern: DomainPattern) -> Match {
    Match::Domain(pattern)
}

#[test]
fn a_star_stays_within_a_label_and_two_do_not_from_1_19_on() {
    // pkg/fqdn/matchpattern/matchpattern.go at v1.18.0 and v1.19.0.
    let newer = fact(CiliumChange::SubdomainPattern);
    let labels = |text: &str| domain(DomainPattern::Labels(text.into()));
    assert_eq!(name_rule("{matchName: Example.COM.}"), domain(DomainPattern::Name("example.com".into())));
    assert_eq!(name_rule("{matchPattern: '*.example.com'}"), labels("*.example.com"));
    assert_eq!(name_rule("{matchPattern: 'a*b.example.com'}"), labels("a*b.example.com"));
    assert_eq!(name_rule("{matchPattern: '*'}"), domain(DomainPattern::Under("".into())));
    assert_eq!(
        name_rule("{matchPattern: '**.example.com'}"),
        Match::OneOf(vec![
            Match::All(vec![newer, domain(DomainPattern::Under("example.com".into()))]),
            labels("*.example.com"),
        ])
    );
}

#[test]
fn a_name_counts_only_for_pods_whose_dns_answers_an_agent_reads() {
    // Documentation/security/policy/language.rst, DNS based: "an L7 policy allowing DNS requests".
    let names = "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: x.y}]}]}";
    let certain = domain(DomainPattern::Name("x.y".into()));

    let alone = read_all(&cnp("names", names)).policies;
    assert_eq!(alone.len(), 1);
    let Match::All(parts) = &egress_peers(&alone[0])[0] else { panic!("no doubt") };
    assert_eq!((&parts[0], matches!(parts[1], Match::Doubt(_))), (&certain, true));

    let dns = format!("{{endpointSelector: {{matchLabels: {{app: x}}}}, egress: [{DNS}]}}");
    let both = read_all(&format!("{}{}", cnp("names", names), cnp("dns", &dns))).policies;
    let names: Vec<&Policy> = both.iter().filter(|policy| *policy.object.name == *"names").collect();
    let watched =
        Match::OneOf(vec![both.iter().find(|policy| *policy.object.name == *"dns").unwrap().subject.clone()]);
    let last = |policy: &Policy| match &policy.subject {
        Match::All(parts) => parts.last().unwrap().clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((last(names[0]), egress_peers(names[0]).len()), (watched.clone().negate(), 1));
    assert_eq!((last(names[1]), egress_peers(names[1])), (watched, vec![certain]));
}

#[test]
fn entities_are_kinds_of_endpoint() {
    // Documentation/security/policy/language.rst, Entities based; pkg/policy/api/entity.go, InitEntities.
    let peer = |entity: &str| {
        let spec = format!("{{endpointSelector: {{}}, egress: [{{toEntities: [{entity}]}}]}}");
        egress_peers(&read_all(&cnp("p", &spec)).policies[0])[0].clone()
    };
    assert_eq!(peer("host"), Match::Kind(Kind::LocalNode));
    assert_eq!(peer("remote-node"), Match::Kind(Kind::RemoteNode));
    assert_eq!(peer("world"), Match::Kind(Kind::External));
    assert_eq!(peer("kube-apiserver"), Match::KubeApiServer);
    assert_eq!(peer("all"), Match::Anything);
    let cluster = [
        Match::Kind(Kind::Pod),
        Match::Kind(Kind::LocalNode),
        Match::Kind(Kind::RemoteNode),
        Match::KubeApiServer,
    ];
    assert_eq!(peer("cluster"), Match::OneOf(cluster.to_vec()));
}

#[test]
fn a_policy_of_nodes_selects_no_pod_and_is_doubted() {
    // pkg/policy/repository.go, computePolicyEnforcementAndRules: only with the host firewall.
    let text = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\nspec: {nodeSelector: {}, ingress: [{}]}\n";
    let policies = read_all(text).policies;
    let nodes = Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]);
    let Match::All(parts) = &policies[0].subject else { panic!("not guarded") };
    assert_eq!(parts[0], nodes);
    assert!(parts.iter().any(|part| matches!(part, Match::Doubt(_))), "{parts:?}");

    let namespaced = read_all(&cnp("p", "{nodeSelector: {}, ingress: [{}]}")).policies;
    assert_eq!(
        namespaced[0].inert.as_deref(),
        Some("the agent refuses it: spec.nodeSelector: only a cluster-wide policy may select nodes")
    );
}

#[test]
fn a_policy_selects_pods_of_its_namespace_with_their_labels() {
    let spec = "{endpointSelector: {matchLabels: {'k8s:app': x}}, ingress: [{}]}";
    let label = Match::pods(Match::label(crate::matching::LabelOwner::Endpoint, "app", "x"));
    assert_eq!(
        read_all(&cnp("p", spec)).policies[0].subject,
        Match::All(vec![Match::Kind(Kind::Pod), Match::Namespace(Test::Is("a".into())), label])
    );
}

#[test]
fn nodes_by_label_are_doubted_in_their_rule() {
    // --enable-node-selector-labels is off by default.
    let spec = "{endpointSelector: {}, egress: [{toNodes: [{matchLabels: {role: x}}]}]}";
    let peers = egress_peers(&read_all(&cnp("p", spec)).policies[0]);
    let Match::All(parts) = &peers[0] else { panic!("{peers:?}") };
    assert!(matches!(parts.last(), Some(Match::Doubt(_))), "{peers:?}");
}

#[test]
fn requirements_of_peers_make_their_pods_unknown_to_all_policies() {
    // "fromRequires … form conjunctions across all rules" (pkg/policy/rule.go at v1.18.0); gone from the schema in 1.19.
    let spec = "{endpointSelector: {}, egress: [{toEndpoints: [{}], toRequires: [{matchLabels: {a: b}}]}]}";
    let doubts: Vec<String> =
        read_all(&cnp("p", spec)).policies[0].doubts.iter().map(ToString::to_string).collect();
    assert_eq!(
        doubts,
        [
            "spec.egress[0].toRequires: it narrows the rules of all policies for these pods, and is gone in 1.19 (in.yaml:4:71)"
        ]
    );
}
