//! ClusterNetworkPolicy and (Baseline)AdminNetworkPolicy, line by line of `sigs.k8s.io/network-policy-api`. Calico enforces
//! the first since 3.32 and the others before.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{World, manifest, namespace, network_policy, node, pod, pod_with, try_world, world};

fn cluster_policy(name: &str, spec: &str) -> String {
    manifest("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", name, spec)
}

/// A policy of every pod of namespace `a`.
fn policy(name: &str, tier: &str, priority: u16, sections: &str) -> String {
    let subject = "subject: {namespaces: {matchLabels: {team: red}}}";
    cluster_policy(name, &format!("{{tier: {tier}, priority: {priority}, {subject}, {sections}}}"))
}

fn from_blue(action: &str) -> String {
    format!("{{action: {action}, from: [{{namespaces: {{matchLabels: {{team: blue}}}}}}]}}")
}

fn ingress(name: &str, tier: &str, priority: u16, rules: &[&str]) -> String {
    policy(name, tier, priority, &format!("ingress: [{}]", rules.join(", ")))
}

fn egress(name: &str, tier: &str, priority: u16, rules: &[&str]) -> String {
    policy(name, tier, priority, &format!("egress: [{}]", rules.join(", ")))
}

/// `a/web` and `a/job` of team red, `b/web` of team blue, a host-network pod of each, two nodes; under Calico 3.32.
fn cluster(policies: &[&str]) -> World {
    let host = "{hostNetwork: true, containers: [{name: c, image: i}]}";
    let with_port = "{containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}";
    let own = [
        namespace("a", "{team: red}"),
        namespace("b", "{team: blue}"),
        pod_with("a/web", "{app: web}", "10.0.1.1", with_port),
        pod("a/job", "{app: job}", "10.0.1.2"),
        pod("b/web", "{app: web}", "10.0.2.1"),
        pod_with("a/host", "{app: host}", "172.16.0.1", host),
        pod_with("b/host", "{app: host}", "172.16.0.2", host),
        node("gpu", "{class: gpu}", "172.16.0.3"),
        node("cpu", "{class: cpu}", "172.16.0.4"),
    ];
    let all: Vec<&str> = own.iter().map(String::as_str).chain(policies.iter().copied()).collect();
    world(&all).profile("calico@3.32")
}

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
const ALLOW_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}";

// === Tiers ===

#[test]
fn what_no_rule_matches_passes_nobody_is_isolated() {
    let w = cluster(&[&ingress("p", "Admin", 1, &[&from_blue("Accept")])]);
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    let w = cluster(&[&policy("p", "Admin", 1, "ingress: [], egress: []")]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
}

#[test]
fn an_admin_deny_cannot_be_overridden_by_a_network_policy() {
    let w = cluster(&[&ingress("p", "Admin", 1, &[&from_blue("Deny")]), &network_policy("a/all", ALLOW_ALL)]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
}

#[test]
fn an_admin_accept_overrides_a_network_policy() {
    let w =
        cluster(&[&ingress("p", "Admin", 1, &[&from_blue("Accept")]), &network_policy("a/deny", DENY_ALL)]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
}

#[test]
fn an_egress_accept_leaves_the_destinations_ingress_to_its_own_policies() {
    let to_blue = "{action: Accept, to: [{namespaces: {matchLabels: {team: blue}}}]}";
    let w = cluster(&[&egress("p", "Admin", 1, &[to_blue]), &network_policy("b/deny", DENY_ALL)]);
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "denied");
}

#[test]
fn pass_leaves_the_tier_and_skips_the_rest_of_it() {
    let rest = ingress("later", "Admin", 2, &[&from_blue("Deny")]);
    let pass = ingress("first", "Admin", 1, &[&from_blue("Pass")]);
    assert_eq!(cluster(&[&pass, &rest]).from("b/web").to("a/web").tcp(80), "allowed");
    let denied = cluster(&[&pass, &rest, &network_policy("a/deny", DENY_ALL)]);
    assert_eq!(denied.from("b/web").to("a/web").tcp(80), "denied", "the network policy decides");
    let baseline = cluster(&[&pass, &ingress("base", "Baseline", 1, &[&from_blue("Deny")])]);
    assert_eq!(baseline.from("b/web").to("a/web").tcp(80), "denied", "the baseline decides");
}

#[test]
fn the_baseline_is_not_asked_of_a_pod_that_a_network_policy_selects() {
    let base = ingress("base", "Baseline", 1, &[&from_blue("Deny")]);
    assert_eq!(cluster(&[&base]).from("b/web").to("a/web").tcp(80), "denied");
    let w = cluster(&[&base, &network_policy("a/all", ALLOW_ALL)]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    let accept = ingress("base", "Baseline", 1, &[&from_blue("Accept")]);
    let w = cluster(&[&accept, &network_policy("a/deny", DENY_ALL)]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
}

#[test]
fn a_network_policy_for_one_direction_leaves_the_other_to_the_baseline() {
    let base = egress("base", "Baseline", 1, &["{action: Deny, to: [{networks: [0.0.0.0/0]}]}"]);
    let in_only = network_policy("a/in", "{podSelector: {}, ingress: [{}]}");
    let w = cluster(&[&base, &in_only]);
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(80), "denied");
}

#[test]
fn pass_in_the_baseline_reaches_the_default_which_allows() {
    let w = cluster(&[
        &ingress("one", "Baseline", 1, &[&from_blue("Pass")]),
        &ingress("two", "Baseline", 2, &[&from_blue("Deny")]),
    ]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
}

// === Order ===

#[test]
fn the_lower_priority_number_comes_first() {
    let (accept, deny) = (from_blue("Accept"), from_blue("Deny"));
    let w = cluster(&[&ingress("z", "Admin", 0, &[&accept]), &ingress("a", "Admin", 1000, &[&deny])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    let w = cluster(&[&ingress("a", "Admin", 11, &[&accept]), &ingress("z", "Admin", 10, &[&deny])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
}

#[test]
fn within_a_policy_the_first_rule_that_matches_decides() {
    let (accept, deny) = (from_blue("Accept"), from_blue("Deny"));
    assert_eq!(
        cluster(&[&ingress("p", "Admin", 1, &[&accept, &deny])]).from("b/web").to("a/web").tcp(80),
        "allowed"
    );
    assert_eq!(
        cluster(&[&ingress("p", "Admin", 1, &[&deny, &accept])]).from("b/web").to("a/web").tcp(80),
        "denied"
    );
}

#[test]
fn equal_priorities_that_agree_are_certain_and_calico_orders_those_that_differ_by_name() {
    // The API leaves open which of two is applied; of the plugins that enforce these kinds, Calico sorts by name.
    let p = |name, action| ingress(name, "Admin", 5, &[&from_blue(action)]);
    let w = cluster(&[&p("one", "Accept"), &p("two", "Deny")]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed", "neither matches");
    let w = cluster(&[&p("one", "Deny"), &p("two", "Accept")]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(cluster(&[&p("one", "Deny"), &p("two", "Deny")]).from("b/web").to("a/web").tcp(80), "denied");
    let w = cluster(&[&p("one", "Pass"), &p("two", "Accept"), &network_policy("a/deny", DENY_ALL)]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
}

#[test]
fn equal_priorities_are_unknown_under_a_plugin_that_nobody_names_unless_the_verdicts_agree() {
    // "If two policies have the same priority … the order is undefined" (apis/v1alpha2/clusternetworkpolicy_types.go, Priority).
    let p = |name, action| ingress(name, "Admin", 5, &[&from_blue(action)]);
    let judged =
        |policies: &[&str]| cluster(policies).profile("generic").from("b/web").to("a/web").tcp(80).truth;
    use mpegflow_policies::truth::Truth::{No, Unknown, Yes};
    let (all, deny) = (network_policy("a/all", ALLOW_ALL), network_policy("a/deny", DENY_ALL));
    for (one, two) in [("one", "two"), ("two", "one")] {
        assert_eq!(
            judged(&[&p(one, "Accept"), &p(two, "Deny"), &all]),
            Unknown,
            "{one} first by name or not"
        );
        assert_eq!(judged(&[&p(one, "Accept"), &p(two, "Deny"), &deny]), Unknown);
        assert_eq!(judged(&[&p(one, "Pass"), &p(two, "Deny"), &all]), Unknown);
        // In either order the same, and the same where nobody enforces them.
        assert_eq!(judged(&[&p(one, "Accept"), &p(two, "Accept"), &all]), Yes);
        assert_eq!(judged(&[&p(one, "Deny"), &p(two, "Deny"), &deny]), No);
        assert_eq!(judged(&[&p(one, "Pass"), &p(two, "Accept"), &all]), Yes);
        assert_eq!(judged(&[&p(one, "Pass"), &p(two, "Deny"), &deny]), No);
    }
}

// === Subjects and peers ===

#[test]
fn a_subject_may_be_pods_of_namespaces() {
    let spec = "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}";
    let w = cluster(&[&cluster_policy("p", spec)]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("b/web").tcp(80), "denied");
    assert_eq!(w.from("b/web").to("a/job").tcp(80), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "allowed", "from outside comes no pod");
}

#[test]
fn host_network_pods_are_neither_subjects_nor_peers() {
    let deny = "{action: Deny, from: [{namespaces: {}}]}";
    let w = cluster(&[&ingress("p", "Admin", 1, &[deny])]);
    assert_eq!(w.from("b/web").to("a/host").tcp(80), "allowed");
    assert_eq!(w.from("b/host").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
}

#[test]
fn networks_hold_pods_and_nodes_too() {
    let w = cluster(&[&egress("p", "Admin", 1, &["{action: Deny, to: [{networks: [0.0.0.0/0]}]}"])]);
    for to in ["9.9.9.9", "b/web", "node:gpu"] {
        assert_eq!(w.from("a/web").to(to).tcp(80), "denied", "{to}");
    }
    assert_eq!(w.from("a/web").to("2001:db8::1").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("9.9.9.9").ping(), "denied", "networks match ICMP, too");
    let pods_first = cluster(&[&egress(
        "p",
        "Admin",
        1,
        &["{action: Pass, to: [{namespaces: {}}]}", "{action: Deny, to: [{networks: [0.0.0.0/0]}]}"],
    )]);
    assert_eq!(pods_first.from("a/web").to("b/web").tcp(80), "allowed");
    assert_eq!(pods_first.from("a/web").to("9.9.9.9").tcp(80), "denied");
}

#[test]
fn nodes_are_chosen_by_their_labels() {
    let rule = "{action: Deny, to: [{nodes: {matchLabels: {class: gpu}}}]}";
    let w = cluster(&[&egress("p", "Admin", 1, &[rule])]);
    assert_eq!(w.from("a/web").to("node:gpu").tcp(10250), "denied");
    assert_eq!(w.from("a/web").to("node:cpu").tcp(10250), "allowed");
    assert_eq!(w.from("a/web").to("b/web").tcp(10250), "allowed");
    let w = cluster(&[&egress("p", "Admin", 1, &["{action: Deny, to: [{nodes: {}}]}"])]);
    assert_eq!(w.from("a/web").to("node:cpu").tcp(10250), "denied");
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(10250), "allowed");
}

#[test]
fn a_domain_name_may_be_any_address_outside_and_no_pod() {
    let rules = [
        "{action: Accept, to: [{domainNames: ['*.example.com']}]}",
        "{action: Deny, to: [{networks: [0.0.0.0/0]}]}",
    ];
    let w = cluster(&[&egress("p", "Admin", 1, &rules)]);
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(443), "unknown");
    assert_eq!(w.from("a/web").to("b/web").tcp(443), "denied");
}

// === Protocols ===

#[test]
fn a_rule_without_protocols_matches_all_traffic() {
    let w = cluster(&[&ingress("p", "Admin", 1, &[&from_blue("Deny")])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(1), "denied");
    assert_eq!(w.from("b/web").to("a/web").sctp(1), "denied");
    assert_eq!(w.from("b/web").to("a/web").ping(), "denied");
}

#[test]
fn protocols_ports_and_ranges_narrow_a_rule() {
    let protocols = "protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 53, end: 54}}}}, {sctp: {destinationPort: {number: 9}}}]";
    let rule = format!("{{action: Deny, from: [{{namespaces: {{}}}}], {protocols}}}");
    let w = cluster(&[&ingress("p", "Admin", 1, &[&rule])]);
    let to = || w.from("b/web").to("a/web");
    assert_eq!(to().tcp(80), "denied");
    assert_eq!(to().tcp(53), "allowed");
    assert_eq!(to().udp(53), "denied");
    assert_eq!(to().udp(54), "denied");
    assert_eq!(to().udp(55), "allowed");
    assert_eq!(to().sctp(9), "denied");
    assert_eq!(to().tcp(9), "allowed");
}

#[test]
fn a_named_port_is_that_of_the_destination() {
    let rule = "{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}";
    let w = cluster(&[&ingress("p", "Admin", 1, &[rule])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(8080), "denied");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("b/web").to("a/job").tcp(8080), "allowed", "it names no such port");
}

// === What is not understood ===

#[test]
fn a_peer_that_is_not_understood_makes_an_accept_unknown() {
    let unknown = "{action: Accept, from: [{serviceAccounts: {}}]}";
    let w = cluster(&[&ingress("p", "Admin", 1, &[unknown]), &network_policy("a/deny", DENY_ALL)]);
    let judged = w.from("b/web").to("a/web").tcp(80);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("spec.ingress[0].from[0].serviceAccounts"), "{judged:?}");
}

#[test]
fn a_peer_that_is_not_understood_leaves_a_deny_what_it_names_besides() {
    let rule = "{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}, {serviceAccounts: {}}]}";
    let w = cluster(&[&ingress("p", "Admin", 1, &[rule])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "unknown");
}

#[test]
fn a_peer_that_is_not_understood_may_turn_a_pass_into_a_deny() {
    let w = cluster(&[&ingress("p", "Admin", 1, &["{action: Pass, from: [{serviceAccounts: {}}]}"])]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "unknown");
}

#[test]
fn a_stored_peer_without_a_field_fails_closed() {
    // "For Accept rules: treat the rule as matching no traffic. For Deny and Pass rules: as a 'Deny all' rule."
    let stored =
        |action: &str| ingress("p, uid: 1-2", "Admin", 1, &[&format!("{{action: {action}, from: [{{}}]}}")]);
    let deny = network_policy("a/deny", DENY_ALL);
    assert_eq!(cluster(&[&stored("Accept"), &deny]).from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(cluster(&[&stored("Accept")]).from("b/web").to("a/web").tcp(80), "allowed");
    for action in ["Deny", "Pass"] {
        let w = cluster(&[&stored(action)]);
        assert_eq!(w.from("9.9.9.9").to("a/web").udp(1), "denied", "{action}");
    }
    let fresh = ingress("p", "Admin", 1, &["{action: Accept, from: [{}]}"]);
    assert!(try_world(&[&fresh]).err().unwrap().contains("must have just one field, and has 0"));
}

// === Enforcement ===

#[test]
fn not_every_plugin_enforces_cluster_wide_policies() {
    let deny = ingress("p", "Admin", 1, &[&from_blue("Deny")]);
    let judged = cluster(&[&deny]).profile("generic").from("b/web").to("a/web").tcp(80);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("choose a profile"), "{judged:?}");
    let w = cluster(&[&deny]).profile("aws-vpc");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
}

#[test]
fn a_kind_of_the_same_name_in_another_group_is_not_this_one() {
    let antrea = manifest("crd.antrea.io/v1beta1", "ClusterNetworkPolicy", "p", "{priority: 1}");
    let aws = manifest("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy", "p", "{tier: Admin}");
    let old = manifest("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", "p", "{tier: Admin}");
    for other in [antrea, aws, old] {
        assert!(try_world(&[&other]).is_err(), "{other}");
    }
}

#[test]
fn which_profile_enforces_which_kind_at_which_version_is_said_with_its_reason() {
    let cnp = ingress("p", "Admin", 1, &[&from_blue("Deny")]);
    let rule = from_blue("Deny");
    let (anp, banp) = (admin(1, &rule), baseline(&rule));
    for (profile, of_cnp, of_anp, of_banp) in [
        ("cilium@1.13", "allowed", "allowed", "allowed"),
        ("cilium@1.19", "allowed", "allowed", "allowed"),
        ("aws-vpc@1.14", "allowed", "allowed", "allowed"),
        ("aws-vpc@1.21", "allowed", "allowed", "allowed"),
        ("calico@3.28", "allowed", "allowed", "allowed"),
        ("calico@3.29", "allowed", "denied", "allowed"),
        ("calico@3.30", "allowed", "denied", "denied"),
        ("calico@3.31", "allowed", "denied", "denied"),
        ("calico@3.32", "denied", "allowed", "allowed"),
        ("generic", "unknown", "unknown", "unknown"),
    ] {
        for (policy, expected) in [(&cnp, of_cnp), (&anp, of_anp), (&banp, of_banp)] {
            let w = cluster(&[policy]).profile(profile);
            let judged = w.from("b/web").to("a/web").tcp(80);
            assert_eq!(judged, expected, "{profile}: {policy}");
            // A policy that has no effect is a finding, one whose effect is not known a doubt; both say why.
            let enforced = w.profile.enforces(&w.cluster.policies[0]);
            assert!(!enforced.why.is_empty());
            if expected == "unknown" {
                assert!(judged.reasons().contains(enforced.why), "{profile}: {judged:?}");
            }
        }
    }
}

#[test]
fn under_a_plugin_that_nobody_names_a_tier_is_unknown_only_where_it_would_decide_otherwise() {
    // Whoever enforces it denies, whoever does not lets the network policy deny.
    let deny = ingress("p", "Admin", 1, &[&from_blue("Deny")]);
    let w = cluster(&[&deny, &network_policy("a/deny", DENY_ALL)]).profile("generic");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
    let w = cluster(&[&deny, &network_policy("a/all", ALLOW_ALL)]).profile("generic");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "unknown");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed", "no rule of it speaks of them");
    let base = ingress("base", "Baseline", 1, &[&from_blue("Deny")]);
    let w = cluster(&[&base, &network_policy("a/all", ALLOW_ALL)]).profile("generic");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed", "a baseline never undoes a network policy");
}

// === AdminNetworkPolicy and BaselineAdminNetworkPolicy ===

fn admin(priority: u16, rules: &str) -> String {
    let spec = format!("{{priority: {priority}, subject: {{namespaces: {{}}}}, ingress: [{rules}]}}");
    manifest("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", &format!("p{priority}"), &spec)
}

fn baseline(rules: &str) -> String {
    let spec = format!("{{subject: {{namespaces: {{}}}}, ingress: [{rules}]}}");
    manifest("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", &spec)
}

#[test]
fn admin_network_policies_come_first_and_the_baseline_last() {
    let rule = |action: &str| from_blue(action);
    let w = |policies: &[&str]| cluster(policies).profile("calico@3.30");
    let judged = |policies: &[&str]| w(policies).from("b/web").to("a/web").tcp(80).truth;
    use mpegflow_policies::truth::Truth::{No, Yes};
    let (all, deny) = (network_policy("a/all", ALLOW_ALL), network_policy("a/deny", DENY_ALL));
    assert_eq!(judged(&[&admin(5, &rule("Deny")), &all]), No);
    assert_eq!(judged(&[&admin(5, &rule("Allow")), &deny]), Yes);
    assert_eq!(judged(&[&admin(5, &rule("Pass")), &admin(6, &rule("Deny"))]), Yes);
    assert_eq!(judged(&[&admin(5, &rule("Pass")), &baseline(&rule("Deny"))]), No);
    assert_eq!(judged(&[&baseline(&rule("Deny")), &all]), Yes);
    assert_eq!(judged(&[&baseline(&rule("Allow"))]), Yes);
}

#[test]
fn ports_of_an_admin_network_policy_are_tcp_unless_they_say_otherwise() {
    let ports = "ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 53, end: 54}}]";
    let w = cluster(&[&admin(1, &format!("{{action: Deny, from: [{{namespaces: {{}}}}], {ports}}}"))]);
    let w = w.profile("calico@3.30");
    let to = || w.from("b/web").to("a/web");
    assert_eq!(to().tcp(80), "denied");
    assert_eq!(to().udp(80), "allowed");
    assert_eq!(to().udp(54), "denied");
    assert_eq!(to().tcp(54), "allowed");
}

#[test]
fn equal_priorities_of_admin_network_policies_are_unknown_likewise() {
    use mpegflow_policies::truth::Truth::{No, Unknown, Yes};
    let p = |name: &str, action: &str| {
        let spec =
            format!("{{priority: 5, subject: {{namespaces: {{}}}}, ingress: [{}]}}", from_blue(action));
        manifest("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", name, &spec)
    };
    let judged =
        |policies: &[&str]| cluster(policies).profile("generic").from("b/web").to("a/web").tcp(80).truth;
    let (all, deny) = (network_policy("a/all", ALLOW_ALL), network_policy("a/deny", DENY_ALL));
    for (one, two) in [("one", "two"), ("two", "one")] {
        assert_eq!(judged(&[&p(one, "Allow"), &p(two, "Deny"), &all]), Unknown);
        assert_eq!(judged(&[&p(one, "Allow"), &p(two, "Deny"), &deny]), Unknown);
        assert_eq!(judged(&[&p(one, "Allow"), &p(two, "Allow"), &all]), Yes);
        assert_eq!(judged(&[&p(one, "Deny"), &p(two, "Deny"), &deny]), No);
        assert_eq!(judged(&[&p(one, "Pass"), &p(two, "Allow"), &all]), Yes);
    }
}
