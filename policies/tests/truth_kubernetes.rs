//! NetworkPolicy, line by line: what the specification and the API's types say, and what other tools got wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{World, namespace, network_policy, node, pod, pod_with, try_world, world};

/// Two namespaces; `a/web` and `a/job`, `b/web` and `b/job`.
fn two_by_two(policies: &[&str]) -> World {
    let mut all = vec![
        namespace("a", "{team: red}"),
        namespace("b", "{team: blue}"),
        pod("a/web", "{app: web}", "10.0.1.1"),
        pod("a/job", "{app: job}", "10.0.1.2"),
        pod("b/web", "{app: web}", "10.0.2.1"),
        pod("b/job", "{app: job}", "10.0.2.2"),
    ];
    all.extend(policies.iter().map(ToString::to_string));
    world(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A policy that selects `a/web` with these ingress rules.
fn ingress(rules: &str) -> String {
    network_policy("a/p", &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: {rules}}}"))
}

/// A policy that selects `a/web` with these egress rules only.
fn egress(rules: &str) -> String {
    network_policy(
        "a/p",
        &format!("{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: {rules}}}"),
    )
}

const ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

// === Isolation ===

#[test]
fn without_policies_all_passes() {
    let w = two_by_two(&[]);
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").udp(53), "allowed");
    assert_eq!(w.from("a/web").to("9.9.9.9").ping(), "allowed");
}

#[test]
fn a_policy_isolates_whom_it_selects_and_nobody_else() {
    let w = two_by_two(&[&ingress("[]")]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("b/web").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("a/job").tcp(80), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "denied");
}

#[test]
fn absent_null_and_empty_ingress_allow_nothing() {
    for spec in ["{podSelector: {}}", "{podSelector: {}, ingress: null}", "{podSelector: {}, ingress: []}"] {
        let w = two_by_two(&[&network_policy("a/p", spec)]);
        assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied", "{spec}");
        assert_eq!(w.from("a/web").to("b/web").tcp(80), "allowed", "{spec}");
    }
}

#[test]
fn an_empty_rule_allows_everything() {
    let w = two_by_two(&[&ingress("[{}]")]);
    assert_eq!(w.from("b/job").to("a/web").tcp(1), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").udp(1), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").ping(), "allowed");
}

#[test]
fn egress_rules_isolate_egress_where_types_are_absent() {
    let w = two_by_two(&[&network_policy("a/p", "{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}")]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "denied");
}

#[test]
fn rules_of_an_undeclared_direction_do_nothing() {
    let w = two_by_two(&[&network_policy(
        "a/p",
        "{podSelector: {}, policyTypes: [Ingress], egress: [], ingress: [{}]}",
    )]);
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "allowed");
    let w = two_by_two(&[&network_policy("a/p", "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}")])
        .profile("calico");
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "denied");
}

#[test]
fn rules_of_an_undeclared_direction_count_under_cilium_and_perhaps_elsewhere() {
    // cilium/cilium issue 48703: they isolate, and they allow.
    let policy =
        network_policy("a/p", "{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 80}]}]}");
    for (profile, named, other) in [
        ("calico", "allowed", "allowed"),
        ("cilium@1.13", "allowed", "denied"),
        ("cilium", "allowed", "denied"),
        ("aws-vpc", "unknown", "unknown"),
        ("generic", "unknown", "unknown"),
    ] {
        let w = two_by_two(&[&policy]).profile(profile);
        assert_eq!(w.from("b/web").to("a/web").tcp(80), named, "{profile}");
        let judged = w.from("b/web").to("a/web").tcp(81);
        assert_eq!(judged, other, "{profile}");
        if other == "unknown" {
            assert!(judged.reasons().contains("policyTypes"), "{judged:?}");
        }
    }
    let deny = network_policy("a/deny", "{podSelector: {}}");
    let w = two_by_two(&[&policy, &deny]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "unknown", "under Cilium it is a hole");
    assert_eq!(w.profile("cilium").from("b/web").to("a/web").tcp(80), "allowed");
}

#[test]
fn policies_add_up() {
    let w = two_by_two(&[
        &network_policy("a/deny", ALL),
        &network_policy("a/one", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"),
        &network_policy("a/two", "{podSelector: {}, ingress: [{ports: [{port: 81}]}]}"),
    ]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("b/web").to("a/web").tcp(81), "allowed");
    assert_eq!(w.from("b/web").to("a/web").tcp(82), "denied");
}

#[test]
fn a_policy_of_another_namespace_isolates_nobody_here() {
    let w = two_by_two(&[&network_policy("b/deny", ALL)]);
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/job").to("b/web").tcp(80), "denied");
}

// === Peers ===

#[test]
fn an_empty_or_absent_peer_list_means_anyone_also_outside() {
    for rule in ["[{ports: [{port: 80}]}]", "[{from: [], ports: [{port: 80}]}]"] {
        let w = two_by_two(&[&ingress(rule)]);
        assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "allowed", "{rule}");
        assert_eq!(w.from("b/job").to("a/web").tcp(80), "allowed", "{rule}");
        assert_eq!(w.from("b/job").to("a/web").tcp(81), "denied", "{rule}");
    }
}

#[test]
fn an_empty_peer_is_refused() {
    let error = try_world(&[&ingress("[{from: [{}]}]")]).err().unwrap();
    assert!(error.contains("spec.ingress[0].from[0] names no peer"), "{error}");
}

#[test]
fn a_pod_selector_alone_means_the_policys_own_namespace() {
    let w = two_by_two(&[&ingress("[{from: [{podSelector: {matchLabels: {app: job}}}]}]")]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("b/job").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "denied");
}

#[test]
fn an_empty_namespace_selector_means_every_pod_and_nothing_outside() {
    let w = two_by_two(&[&ingress("[{from: [{namespaceSelector: {}}]}]")]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("b/job").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "denied");
}

#[test]
fn two_selectors_in_one_item_are_joined_by_and_in_two_by_or() {
    let (pods, blue) =
        ("podSelector: {matchLabels: {app: job}}", "namespaceSelector: {matchLabels: {team: blue}}");
    let both = two_by_two(&[&ingress(&format!("[{{from: [{{{blue}, {pods}}}]}}]"))]);
    assert_eq!(both.from("b/job").to("a/web").tcp(80), "allowed");
    assert_eq!(both.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(both.from("a/job").to("a/web").tcp(80), "denied");
    let either = two_by_two(&[&ingress(&format!("[{{from: [{{{blue}}}, {{{pods}}}]}}]"))]);
    assert_eq!(either.from("b/web").to("a/web").tcp(80), "allowed");
    assert_eq!(either.from("a/job").to("a/web").tcp(80), "allowed");
}

#[test]
fn not_in_and_does_not_exist_match_an_absent_key() {
    let peer = |operator: &str| {
        let rule = format!("[{{from: [{{podSelector: {{matchExpressions: [{operator}]}}}}]}}]");
        two_by_two(&[&ingress(&rule)])
    };
    let w = peer("{key: tier, operator: NotIn, values: [gold]}");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "denied", "no pod at all");
    let w = peer("{key: app, operator: NotIn, values: [job]}");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
    let w = peer("{key: tier, operator: DoesNotExist}");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    let w = peer("{key: tier, operator: Exists}");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
}

#[test]
fn the_name_of_a_namespace_is_its_label_also_where_the_namespace_is_not_in_the_input() {
    let rule = "[{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: c}}}]}]";
    let pods = [pod("a/web", "{app: web}", ""), pod("c/x", "{}", ""), pod("d/x", "{}", "")];
    let w = world(&[&pods[0], &pods[1], &pods[2], &ingress(rule)]);
    assert_eq!(w.from("c/x").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("d/x").to("a/web").tcp(80), "denied");
}

#[test]
fn other_labels_of_a_namespace_that_is_not_in_the_input_are_unknown() {
    let rule = "[{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]";
    let w = world(&[&pod("a/web", "{app: web}", ""), &pod("c/x", "{}", ""), &ingress(rule)]);
    let judged = w.from("c/x").to("a/web").tcp(80);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("namespace"), "{judged:?}");
}

// === Ports ===

#[test]
fn a_port_is_tcp_unless_it_says_otherwise_and_one_without_number_is_all_of_its_protocol() {
    let w = two_by_two(&[&ingress("[{ports: [{port: 80}, {protocol: UDP}]}]")]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(81), "denied");
    assert_eq!(w.from("a/job").to("a/web").udp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").udp(65535), "allowed");
    // netpol-analyzer's eval takes any protocol where the port is absent.
    assert_eq!(w.profile("aws-vpc").from("a/job").to("a/web").sctp(80), "denied");
}

#[test]
fn a_rule_for_sctp_never_becomes_one_for_tcp() {
    // kubernetes issue 102509.
    let w = two_by_two(&[&ingress("[{ports: [{port: 80, protocol: SCTP}]}]")]).profile("aws-vpc");
    assert_eq!(w.from("a/job").to("a/web").sctp(80), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/job").to("a/web").udp(80), "denied");
}

#[test]
fn not_every_plugin_knows_sctp() {
    let w = two_by_two(&[&ingress("[{ports: [{port: 80, protocol: SCTP}]}]")]);
    assert_eq!(w.from("a/job").to("a/web").sctp(80), "unknown");
}

#[test]
fn a_range_of_ports_includes_both_ends_and_not_every_plugin_knows_ranges() {
    let rule = ingress("[{ports: [{port: 8000, endPort: 8010}]}]");
    let w = two_by_two(&[&rule]).profile("aws-vpc");
    for (port, expected) in [(7999, "denied"), (8000, "allowed"), (8010, "allowed"), (8011, "denied")] {
        assert_eq!(w.from("a/job").to("a/web").tcp(port), expected, "{port}");
    }
    let w = two_by_two(&[&rule]);
    assert_eq!(w.from("a/job").to("a/web").tcp(8000), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(8001), "unknown");
    assert_eq!(w.from("a/job").to("a/web").tcp(8011), "denied");
}

#[test]
fn a_named_port_is_that_of_the_destination_and_differs_between_pods() {
    let with = |name: &str, address, port: u16, protocol: &str| {
        let spec = format!(
            "{{containers: [{{name: c, image: i, ports: [{{name: http, containerPort: {port}, protocol: {protocol}}}]}}]}}"
        );
        pod_with(name, "{app: web}", address, &spec)
    };
    let pods = [
        with("a/web", "10.0.1.1", 8080, "TCP"),
        with("a/other", "10.0.1.3", 9090, "TCP"),
        with("a/udp", "10.0.1.4", 7070, "UDP"),
        pod("a/job", "{app: job}", "10.0.1.2"),
    ];
    let policies = [
        ingress("[{ports: [{port: http}]}]"),
        network_policy(
            "a/out",
            "{podSelector: {matchLabels: {app: job}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}",
        ),
    ];
    let all: Vec<&str> = pods.iter().chain(&policies).map(String::as_str).collect();
    let w = world(&all);
    assert_eq!(w.from("a/job").to("a/web").tcp(8080), "allowed");
    assert_eq!(w.from("a/job").to("a/web").tcp(9090), "denied");
    assert_eq!(w.from("a/job").to("a/other").tcp(9090), "allowed");
    assert_eq!(w.from("a/job").to("a/udp").udp(7070), "denied", "the protocol counts");
    assert_eq!(w.from("a/job").to("9.9.9.9").tcp(8080), "denied", "nothing outside has named ports");
}

#[test]
fn other_protocols_pass_only_by_rules_without_ports_and_not_every_plugin_polices_them() {
    let w = two_by_two(&[&ingress("[{ports: [{port: 80}]}]")]);
    let judged = w.from("a/job").to("a/web").ping();
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("ICMP"), "{judged:?}");
    let w = two_by_two(&[&ingress("[{ports: [{port: 80}]}]")]).profile("aws-vpc");
    assert_eq!(w.from("a/job").to("a/web").ping(), "denied");
    let w = two_by_two(&[&ingress("[{from: [{podSelector: {}}]}]")]).profile("aws-vpc");
    assert_eq!(w.from("a/job").to("a/web").ping(), "allowed");
}

#[test]
fn port_zero_is_refused() {
    for port in ["{port: 0}", "{port: 65536}", "{port: 90, endPort: 80}", "{port: web, endPort: 90}"] {
        assert!(try_world(&[&ingress(&format!("[{{ports: [{port}]}}]"))]).is_err(), "{port}");
    }
}

// === Blocks of addresses ===

#[test]
fn an_exception_takes_out_of_its_own_block_only() {
    let w = two_by_two(&[&egress("[{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}}]}]")]);
    assert_eq!(w.from("a/web").to("8.1.1.1").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("8.8.8.8").tcp(80), "denied");
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(80), "denied");
    let more = network_policy(
        "a/more",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.8.8.0/24}}]}]}",
    );
    let w = two_by_two(&[&egress("[{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}}]}]"), &more]);
    assert_eq!(w.from("a/web").to("8.8.8.8").tcp(80), "allowed", "another policy gives it back");
}

#[test]
fn whether_a_wider_block_of_another_rule_gives_an_exception_back_depends_on_the_plugin() {
    let except = egress("[{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}}]}]");
    let wider = network_policy(
        "a/more",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.0.0.0/7}}]}]}",
    );
    let narrower = network_policy(
        "a/more",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.8.8.0/24}}]}]}",
    );
    for profile in ["calico", "cilium"] {
        let w = two_by_two(&[&except, &wider]).profile(profile);
        assert_eq!(w.from("a/web").to("8.8.8.8").tcp(80), "allowed", "{profile}");
    }
    for profile in ["aws-vpc", "generic"] {
        let w = two_by_two(&[&except, &wider]).profile(profile);
        let judged = w.from("a/web").to("8.8.8.8").tcp(80);
        assert_eq!(judged, "unknown", "{profile}");
        assert!(judged.reasons().contains("wider block"), "{judged:?}");
        assert_eq!(w.from("a/web").to("8.1.1.1").tcp(80), "allowed", "{profile}");
        // The longest prefix counts, and an exception keeps nothing out of what lies within it.
        let w = two_by_two(&[&except, &narrower]).profile(profile);
        assert_eq!(w.from("a/web").to("8.8.8.8").tcp(80), "allowed", "{profile}");
        assert_eq!(w.from("a/web").to("8.8.9.8").tcp(80), "denied", "{profile}");
        // Another namespace's exceptions are for its own pods.
        let elsewhere = network_policy(
            "b/other",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}}]}]}",
        );
        let w = two_by_two(&[&elsewhere, &wider]).profile(profile);
        assert_eq!(w.from("a/web").to("8.8.8.8").tcp(80), "allowed", "{profile}");
    }
}

#[test]
fn an_exception_holds_a_pod_that_a_selector_names() {
    // The pod's own address is the longest prefix there is.
    let except =
        egress("[{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}, {namespaceSelector: {}}]}]");
    for profile in ["calico", "cilium", "aws-vpc", "generic"] {
        let w = two_by_two(&[&except]).profile(profile);
        assert_eq!(w.from("a/web").to("b/web").tcp(80), "allowed", "{profile}");
    }
}

#[test]
fn a_block_of_ipv4_holds_no_ipv6_address() {
    let w = two_by_two(&[&egress("[{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]")]);
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("2001:db8::1").tcp(80), "denied");
    assert_eq!(w.from("a/web").to("::ffff:9.9.9.9").tcp(80), "denied");
}

#[test]
fn a_pod_of_two_families_is_in_a_block_of_one_only_for_packets_of_that_family() {
    let dual = "apiVersion: v1\nkind: Pod\nmetadata: {name: dual, namespace: b}\nspec: {containers: [{name: c, image: i}]}\nstatus: {podIP: 10.0.2.9, podIPs: [{ip: 10.0.2.9}, {ip: 'fd00::9'}]}\n";
    let one = egress("[{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]");
    let judged = two_by_two(&[dual, &one]).profile("calico").from("a/web").to("b/dual").tcp(80);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("which one a packet uses"), "{judged:?}");
    let both = egress("[{to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8'}}]}]");
    assert_eq!(two_by_two(&[dual, &both]).profile("calico").from("a/web").to("b/dual").tcp(80), "allowed");
    let neither = egress("[{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]");
    assert_eq!(two_by_two(&[dual, &neither]).profile("calico").from("a/web").to("b/dual").tcp(80), "denied");
    let selected = egress("[{to: [{namespaceSelector: {}}]}]");
    assert_eq!(
        two_by_two(&[dual, &selected]).profile("calico").from("a/web").to("b/dual").tcp(80),
        "allowed"
    );
}

#[test]
fn whether_a_block_holds_pods_depends_on_the_plugin() {
    let rule = egress("[{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]");
    let w = two_by_two(&[&rule]);
    let judged = w.from("a/web").to("b/web").tcp(80);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("Cilium does not"), "{judged:?}");
    assert_eq!(two_by_two(&[&rule]).profile("aws-vpc").from("a/web").to("b/web").tcp(80), "allowed");
    let elsewhere = two_by_two(&[&egress("[{to: [{ipBlock: {cidr: 192.168.0.0/16}}]}]")]);
    assert_eq!(elsewhere.from("a/web").to("b/web").tcp(80), "denied", "its address is not in the block");
}

#[test]
fn a_pod_without_an_address_may_or_may_not_be_in_a_block() {
    let rule = egress("[{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]");
    let w = world(&[&pod("a/web", "{app: web}", ""), &pod("b/x", "{}", ""), &rule]).profile("aws-vpc");
    assert_eq!(w.from("a/web").to("b/x").tcp(80), "unknown");
}

// === Both ends ===

#[test]
fn a_connection_needs_egress_and_ingress_on_the_same_port() {
    // kubescape 3903: TCP 80 out and TCP 443 in were judged reachable.
    let w = two_by_two(&[
        &egress("[{ports: [{port: 80}]}]"),
        &network_policy("b/p", "{podSelector: {}, ingress: [{ports: [{port: 443}]}]}"),
    ]);
    for port in [80, 443] {
        assert_eq!(w.from("a/web").to("b/web").tcp(port), "denied", "{port}");
    }
    let w = two_by_two(&[
        &egress("[{ports: [{port: 80}]}]"),
        &network_policy("b/p", "{podSelector: {}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}"),
    ]);
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "denied");
    assert_eq!(w.from("a/web").to("b/web").udp(80), "denied");
}

#[test]
fn a_pod_reaches_itself_whatever_policies_say() {
    // kubescape 3904, cyclonus: denied there.
    let w = two_by_two(&[&network_policy("a/deny", ALL)]);
    assert_eq!(w.from("a/web").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("a/job").tcp(80), "denied");
}

#[test]
fn a_pods_own_node_is_let_in_and_another_node_is_not() {
    let w =
        world(&[&pod("a/web", "{app: web}", "10.0.1.1"), &node("n2", "{}", "172.16.0.2"), &ingress("[]")]);
    assert_eq!(w.from("local-node").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("node:n2").to("a/web").tcp(80), "denied");
}

#[test]
fn whether_a_pods_own_node_is_open_to_it_depends_on_the_plugin() {
    let all = [pod("a/web", "{app: web}", "10.0.1.1"), egress("[]")];
    let w = world(&[&all[0], &all[1]]);
    assert_eq!(w.from("a/web").to("local-node").tcp(10250), "unknown");
    let w = world(&[&all[0], &all[1]]).profile("aws-vpc");
    assert_eq!(w.from("a/web").to("local-node").tcp(10250), "allowed");
}

// === Host network ===

fn with_host_pod(policies: &[&str]) -> World {
    let spec = "{hostNetwork: true, containers: [{name: c, image: i}]}";
    let own = [
        pod("a/web", "{app: web}", "10.0.1.1"),
        pod_with("a/host", "{app: host}", "172.16.0.2", spec),
        namespace("a", "{team: red}"),
    ];
    let all: Vec<&str> = own.iter().map(String::as_str).chain(policies.iter().copied()).collect();
    world(&all)
}

#[test]
fn a_host_network_pod_is_unknown_where_plugins_may_differ() {
    let w = with_host_pod(&[&network_policy("a/deny", ALL)]);
    assert_eq!(w.from("9.9.9.9").to("a/host").tcp(80), "unknown");
    assert_eq!(w.from("a/host").to("9.9.9.9").tcp(80), "unknown");
    let by_label = with_host_pod(&[&ingress("[{from: [{podSelector: {matchLabels: {app: host}}}]}]")]);
    assert_eq!(by_label.from("a/host").to("a/web").tcp(80), "unknown");
    let by_namespace = with_host_pod(&[&ingress("[{from: [{namespaceSelector: {}}]}]")]);
    assert_eq!(by_namespace.from("a/host").to("a/web").tcp(80), "unknown");
    let out = with_host_pod(&[&egress("[{to: [{podSelector: {}}]}]")]);
    assert_eq!(out.from("a/web").to("a/host").tcp(80), "unknown");
}

#[test]
fn a_host_network_pod_reaches_itself() {
    let w = with_host_pod(&[&network_policy("a/deny", ALL)]);
    assert_eq!(w.from("a/host").to("a/host").tcp(80), "allowed");
}

#[test]
fn a_host_network_pod_is_judged_with_more_care_than_needed() {
    // Every plugin would allow these: no policy denies anything. The evaluator takes all that such a pod sends or receives for
    // unknown where it is not known whether policies apply to it.
    let opens = network_policy("a/p", "{podSelector: {matchLabels: {app: host}}, ingress: [{}]}");
    for policies in [vec![], vec![opens.as_str()]] {
        let w = with_host_pod(&policies);
        assert_eq!(w.from("a/web").to("a/host").tcp(80), "unknown");
        assert_eq!(w.from("a/host").to("a/web").tcp(80), "unknown");
    }
}

#[test]
fn under_aws_a_host_network_pod_is_not_policed_and_matches_selectors_by_its_nodes_address() {
    let w = with_host_pod(&[&network_policy("a/deny", ALL)]).profile("aws-vpc");
    assert_eq!(w.from("9.9.9.9").to("a/host").tcp(80), "allowed");
    let w = with_host_pod(&[&ingress("[{from: [{podSelector: {matchLabels: {app: host}}}]}]")])
        .profile("aws-vpc");
    assert_eq!(w.from("a/host").to("a/web").tcp(80), "allowed");
}

// === What other tools got wrong ===

#[test]
fn empty_policy_types_are_the_default_and_no_panic() {
    // cyclonus panics.
    let w = two_by_two(&[&network_policy("a/p", "{podSelector: {}, policyTypes: []}")]);
    assert_eq!(w.from("b/web").to("a/web").tcp(80), "denied");
    assert_eq!(w.from("a/web").to("b/web").tcp(80), "allowed");
}

#[test]
fn an_allow_all_policy_isolates_nobody() {
    // Checkov 7474 and four other scanners count it as isolation.
    let all = "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}";
    let w = two_by_two(&[&network_policy("a/p", all)]);
    assert_eq!(w.from("9.9.9.9").to("a/web").tcp(80), "allowed");
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(80), "allowed");
}

#[test]
fn an_empty_rule_list_denies_and_a_bad_selector_or_block_is_refused() {
    // kube-network-policies lets all three pass.
    let w = two_by_two(&[&egress("[]")]);
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(80), "denied");
    for peer in [
        "{podSelector: {matchExpressions: [{key: a, operator: Near, values: [b]}]}}",
        "{ipBlock: {cidr: 10.0.0.0/40}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}",
    ] {
        assert!(try_world(&[&egress(&format!("[{{to: [{peer}]}}]"))]).is_err(), "{peer}");
    }
}

#[test]
fn dns_to_any_address_is_seen_as_open() {
    // The shape that Otterize makes.
    let w = two_by_two(&[&egress("[{ports: [{port: 53, protocol: UDP}, {port: 53}]}]")]);
    assert_eq!(w.from("a/web").to("9.9.9.9").udp(53), "allowed");
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(53), "allowed");
    assert_eq!(w.from("a/web").to("9.9.9.9").tcp(443), "denied");
}

#[test]
fn a_label_that_yaml_takes_for_a_boolean_is_refused() {
    let policy = network_policy("a/p", "{podSelector: {matchLabels: {app: y}}}");
    let error = try_world(&[&policy]).err().unwrap();
    assert!(error.contains("must be a string, is a boolean (true); put it in quotes"), "{error}");
}

// === What is not understood ===

#[test]
fn a_field_that_is_not_understood_makes_unknown_what_depends_on_it_and_nothing_else() {
    let w = two_by_two(&[&ingress("[{from: [{podSelector: {}, zone: x}]}, {ports: [{port: 80}]}]")]);
    assert_eq!(w.from("a/job").to("a/web").tcp(80), "allowed", "the other rule");
    let judged = w.from("a/job").to("a/web").tcp(81);
    assert_eq!(judged, "unknown");
    assert!(judged.reasons().contains("spec.ingress[0].from[0].zone"), "{judged:?}");
    assert_eq!(w.from("a/web").to("a/job").tcp(81), "allowed", "the other direction");

    let whole = two_by_two(&[&network_policy("a/p", "{podSelector: {}, mode: audit}")]);
    assert_eq!(whole.from("b/web").to("a/web").tcp(80), "unknown");
    assert_eq!(whole.from("b/web").to("b/job").tcp(80), "allowed");

    let port = two_by_two(&[&ingress("[{ports: [{port: 80}, {port: 81, mark: 1}]}]")]);
    assert_eq!(port.from("a/job").to("a/web").tcp(80), "allowed");
    assert_eq!(port.from("a/job").to("a/web").tcp(82), "unknown");
}
