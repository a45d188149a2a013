//! What Cilium does with its own policies, a case for each rule of the language: YAML in, verdict out. The evaluator answers,
//! and the plain reference has to agree.
//!
//! Paths in comments name files of github.com/cilium/cilium at the tags v1.13.0 to v1.19.0.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code, reason = "tests")]

mod reference;
mod support;

use mpegflow_policies::audit::run;
use mpegflow_policies::cluster::Cluster;
use mpegflow_policies::evaluate::{Evaluation, Options, Verdict};
use mpegflow_policies::read::{Input, Limits, ReadOptions, cluster};
use mpegflow_policies::sets::AddressSet;
use mpegflow_policies::sets::Protocol::{self, Icmp, Icmpv6, Sctp, Tcp, Udp};
use reference::{Answer, End, Reference, passes};
use std::net::IpAddr;
use support::request;

/// Who is there: `a` (env prod) with client and server, `b` (env dev) with other, whose account is robot.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: b, labels: {env: dev}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client, pod-template-hash: x}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: a, labels: {app: server}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: b, labels: {app: client}}
spec: {serviceAccountName: robot, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: b, labels: {tier: x}}
spec: {selector: {app: client}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: b}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: legacy, namespace: b}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 80}]}]
---
apiVersion: cilium.io/v2
kind: CiliumCIDRGroup
metadata: {name: office, labels: {site: main}}
spec: {externalCIDRs: [198.51.100.0/24]}
";

/// An address of the world; the brief names are pods.
const WORLD: &str = "203.0.113.9";

fn read(text: &str) -> Result<Cluster, String> {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    cluster(&input, &ReadOptions::default()).map(|read| read.cluster).map_err(|errors| errors.to_string())
}

/// A policy `p` in namespace `a`.
fn cnp(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {spec}\n"
    )
}

/// A cluster-wide policy `p`.
fn ccnp(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

/// A packet: source, destination, protocol, port (of ICMP, the type), and whether it passes; `None` for unknown.
type Case<'a> = (&'a str, &'a str, Protocol, u16, Option<bool>);

fn check(version: &str, policies: &[String], cases: &[Case<'_>]) {
    let cluster = read(&format!("{PODS}---\n{}", policies.join("---\n"))).unwrap();
    let profile = format!("cilium@{version}").parse().unwrap();
    let judge = Reference { cluster: &cluster, profile };
    let outside: Vec<IpAddr> =
        cases.iter().flat_map(|case| [case.0, case.1]).filter_map(|name| name.parse().ok()).collect();
    let addresses = outside.iter().map(|address| AddressSet::one(*address)).collect();
    let evaluation = Evaluation::new(&cluster, profile, Options { addresses, ..Options::default() }).unwrap();
    let pod = |name: &str| cluster.pods.iter().position(|pod| *pod.object.name == *name);
    let end = |name: &str| name.parse().map_or_else(|_| End::Pod(pod(name).unwrap()), End::Outside);
    let id = |name: &str| match (name.parse::<IpAddr>(), pod(name)) {
        (Ok(address), _) => evaluation.address(address).unwrap(),
        (_, Some(pod)) => evaluation.pod(pod).unwrap(),
        _ => evaluation.node(name).unwrap(),
    };
    for &(from, to, protocol, port, expected) in cases {
        let lane = if matches!(protocol, Icmp | Icmpv6) { port << 8 } else { port };
        let Verdict { allowed, denied, unknown } = evaluation.verdict(id(from), id(to));
        let answer = Answer { allowed, denied, unknown };
        let what = format!("{from} to {to} {protocol} {port} under {version} with {policies:?}");
        assert_eq!(passes(&answer, protocol, lane), expected, "{what}");
        if ![from, to].contains(&"n1") {
            let plain = judge.verdict(&end(from), &end(to));
            assert_eq!(passes(&plain, protocol, lane), expected, "the reference: {what}");
        }
    }
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn without_a_policy_everything_passes() {
    check("1.19", &[], &[("client", "server", Tcp, 80, YES), (WORLD, "server", Udp, 53, YES)]);
}

// === Default deny ===

#[test]
fn only_a_direction_with_rules_is_isolated() {
    // pkg/policy/api/rule_validation.go, Rule.Sanitize: "if there is a peer selector for that direction, the default is deny".
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]}",
        )],
        &[
            ("client", "server", Tcp, 80, YES),
            ("client", "server", Icmp, 8, YES),
            ("other", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, NO),
            ("server", WORLD, Tcp, 443, YES),
            ("other", "client", Tcp, 80, YES),
        ],
    );
}

#[test]
fn an_empty_rule_selects_nobody_and_isolates() {
    // pkg/k8s/network_policy.go writes `[]api.IngressRule{{}}` for "deny all"; pkg/policy/rule.go, mergeL4Filter.
    for version in ["1.13", "1.16", "1.19"] {
        check(
            version,
            &[cnp("{endpointSelector: {matchLabels: {app: server}}, ingress: [{}]}")],
            &[
                ("client", "server", Tcp, 80, NO),
                (WORLD, "server", Tcp, 80, NO),
                ("server", WORLD, Tcp, 80, YES),
            ],
        );
    }
}

#[test]
fn an_empty_section_isolates_nobody_in_any_version() {
    // Before 1.17 it has no effect; from 1.17 on the policy is rejected ("rule must have at least one of Ingress, …").
    for version in ["1.13", "1.16", "1.17", "1.19"] {
        check(
            version,
            &[cnp("{endpointSelector: {}, ingress: [], egress: []}")],
            &[("client", "server", Tcp, 80, YES), (WORLD, "server", Tcp, 80, YES)],
        );
    }
}

#[test]
fn that_an_empty_section_is_refused_from_1_17_on_is_a_finding_with_its_reason() {
    let policy = cnp("{endpointSelector: {}, ingress: []}");
    let cluster = read(&format!("{PODS}---\n{policy}")).unwrap();
    let found = |version: &str| -> Vec<(&'static str, String)> {
        let outcome = run(&request(&cluster, &format!("cilium@{version}"), Vec::new())).unwrap();
        let about = outcome.findings.into_iter().filter(|f| f.object.kind.starts_with("Cilium"));
        about.map(|finding| (finding.id, finding.reason)).collect()
    };
    for version in ["1.17", "1.18", "1.19"] {
        let found = found(version);
        assert!(
            matches!(&*found, [("MF204", why)] if why.contains("from 1.17 on a rule without sections")),
            "{found:?}"
        );
    }
    // Before, agents take it, and it does nothing.
    for version in ["1.14", "1.15", "1.16"] {
        let found = found(version);
        assert!(
            matches!(&*found, [("MF204", why)] if why.contains("its sections are empty")),
            "{version}: {found:?}"
        );
    }
}

#[test]
fn enable_default_deny_false_keeps_others_allowed_from_1_16_on() {
    // pkg/policy/repository.go, computePolicyEnforcementAndRules; the field came with 1.16.
    let policy =
        cnp("{endpointSelector: {matchLabels: {app: server}}, enableDefaultDeny: {ingress: false}, \
          ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]}");
    check(
        "1.16",
        std::slice::from_ref(&policy),
        &[("client", "server", Tcp, 80, YES), ("other", "server", Tcp, 80, YES)],
    );
    check("1.15", &[policy], &[("client", "server", Tcp, 80, YES), ("other", "server", Tcp, 80, NO)]);
}

#[test]
fn enable_default_deny_true_without_rules_isolates_nobody() {
    // pkg/policy/repository.go looks at rules of the direction first: `len(r.Egress) > 0 || len(r.EgressDeny) > 0`.
    check(
        "1.19",
        &[cnp("{endpointSelector: {}, enableDefaultDeny: {egress: true}, ingress: [{fromEntities: [all]}]}")],
        &[("client", WORLD, Tcp, 80, YES)],
    );
}

// === Deny ===

#[test]
fn a_denial_beats_every_allow_and_isolates() {
    // Documentation/security/policy/language.rst: "deny policies take precedence over allow policies".
    let allow = cnp("{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEntities: [all]}]}");
    let deny = ccnp(
        "{endpointSelector: {matchLabels: {app: server}}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]}",
    );
    check(
        "1.19",
        &[allow, deny.clone()],
        &[
            ("client", "server", Tcp, 80, NO),
            ("other", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, YES),
        ],
    );
    check("1.19", &[deny], &[("client", "server", Tcp, 80, NO), (WORLD, "server", Tcp, 80, NO)]);
}

#[test]
fn a_denial_of_ports_leaves_the_others() {
    let allow = cnp("{endpointSelector: {matchLabels: {app: client}}, egress: [{toEntities: [all]}]}")
        .replace("name: p", "name: q");
    let deny = cnp(
        "{endpointSelector: {matchLabels: {app: client}}, egressDeny: [{toPorts: [{ports: [{port: \"25\", protocol: TCP}]}]}]}",
    );
    check(
        "1.19",
        &[allow, deny],
        &[("client", WORLD, Tcp, 25, NO), ("client", WORLD, Udp, 25, YES), ("client", WORLD, Tcp, 80, YES)],
    );
}

// === Selectors ===

#[test]
fn an_empty_peer_selector_means_the_namespace_or_every_pod_but_not_the_world() {
    // pkg/k8s/apis/cilium.io/utils/utils.go, getEndpointSelector.
    check(
        "1.19",
        &[cnp("{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{}]}]}")],
        &[
            ("client", "server", Tcp, 80, YES),
            ("other", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, NO),
        ],
    );
    check(
        "1.19",
        &[ccnp("{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{}]}]}")],
        &[
            ("client", "server", Tcp, 80, YES),
            ("other", "server", Tcp, 80, YES),
            (WORLD, "server", Tcp, 80, NO),
        ],
    );
}

#[test]
fn a_policy_selects_pods_of_its_own_namespace_whatever_its_selector_says() {
    // pkg/k8s/apis/cilium.io/utils/utils.go, ParseToCiliumRule: "removing illegal namespace match".
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': b, app: client}}, egress: [{}]}",
        )],
        &[("client", WORLD, Tcp, 80, NO), ("other", WORLD, Tcp, 80, YES)],
    );
}

#[test]
fn peers_of_other_namespaces_need_the_namespace_label() {
    for key in
        ["k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"]
    {
        check(
            "1.19",
            &[cnp(&format!(
                "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'{key}': b}}}}]}}]}}"
            ))],
            &[("client", "server", Tcp, 80, NO), ("other", "server", Tcp, 80, YES)],
        );
    }
}

#[test]
fn labels_of_namespaces_reach_beyond_the_own_one_from_1_16_on() {
    // The check for `io.cilium.k8s.namespace.labels.` in getEndpointSelector came with 1.16.
    let policy = cnp("{endpointSelector: {matchLabels: {app: server}}, \
          ingress: [{fromEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.env': dev}}]}]}");
    check(
        "1.16",
        std::slice::from_ref(&policy),
        &[("other", "server", Tcp, 80, YES), ("client", "server", Tcp, 80, NO)],
    );
    check("1.15", &[policy], &[("other", "server", Tcp, 80, NO), ("client", "server", Tcp, 80, NO)]);
}

#[test]
fn a_service_account_is_a_label() {
    // pkg/k8s/apis/cilium.io/const.go, PolicyLabelServiceAccount.
    check(
        "1.19",
        &[ccnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: robot}}]}]}",
        )],
        &[("other", "server", Tcp, 80, YES), ("client", "server", Tcp, 80, NO)],
    );
}

#[test]
fn expressions_match_as_in_kubernetes() {
    let with = |expression: &str| {
        cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{fromEndpoints: [{{matchExpressions: [{expression}]}}]}}]}}"
        ))
    };
    for (expression, passes) in [
        ("{key: app, operator: In, values: [client, x]}", YES),
        ("{key: app, operator: NotIn, values: [client]}", NO),
        ("{key: absent, operator: NotIn, values: [client]}", YES),
        ("{key: app, operator: Exists}", YES),
        ("{key: absent, operator: Exists}", NO),
        ("{key: absent, operator: DoesNotExist}", YES),
    ] {
        check(
            "1.19",
            &[with(expression)],
            &[("client", "server", Tcp, 80, passes), (WORLD, "server", Tcp, 80, NO)],
        );
    }
}

#[test]
fn not_in_a_namespace_is_also_the_world_before_1_19() {
    // No namespace is added to a selector that names one, and the world has none of its labels; since 1.19 selectors also ask
    // for the cluster (addClusterFilterByDefault, policy-default-local-cluster).
    let policy = cnp("{endpointSelector: {matchLabels: {app: server}}, \
          ingress: [{fromEndpoints: [{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: NotIn, values: [a]}]}]}]}");
    check(
        "1.18",
        std::slice::from_ref(&policy),
        &[
            ("other", "server", Tcp, 80, YES),
            ("client", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, YES),
        ],
    );
    check(
        "1.19",
        &[policy],
        &[
            ("other", "server", Tcp, 80, YES),
            ("client", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, NO),
        ],
    );
}

#[test]
fn a_label_that_cilium_drops_selects_nobody() {
    // pkg/labelsfilter/filter.go, defaultLabelPrefixCfg.
    check(
        "1.19",
        &[cnp("{endpointSelector: {matchLabels: {pod-template-hash: x}}, egress: [{}]}")],
        &[("client", WORLD, Tcp, 80, YES)],
    );
}

#[test]
fn an_explicit_empty_list_of_peers_means_nobody_from_1_16_on() {
    // pkg/policy/api/egress.go, getAggregatedSelectors; before, `len(fromEndpoints) == 0` became the wildcard beside toPorts.
    for list in ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"] {
        let ports = cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{{list}: [], toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}]}}]}}]}}"
        ));
        check("1.16", std::slice::from_ref(&ports), &[("client", "server", Tcp, 80, NO)]);
        check("1.15", &[ports], &[("client", "server", Tcp, 80, YES), ("client", "server", Tcp, 81, NO)]);
        let bare = cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{{list}: []}}]}}"
        ));
        for version in ["1.13", "1.19"] {
            check(version, std::slice::from_ref(&bare), &[("client", "server", Tcp, 80, NO)]);
        }
    }
}

// === Addresses and entities ===

#[test]
fn a_block_of_addresses_matches_no_pod() {
    // Documentation/security/policy/language.rst: "CIDR rules do not apply to traffic where both sides … are … managed by Cilium".
    check(
        "1.19",
        &[cnp("{endpointSelector: {matchLabels: {app: client}}, egress: [{toCIDR: [0.0.0.0/0]}]}")],
        &[
            ("client", WORLD, Tcp, 80, YES),
            ("client", "server", Tcp, 80, NO),
            ("client", "2001:db8::1", Tcp, 80, NO),
        ],
    );
}

#[test]
fn before_1_15_a_block_of_one_whole_family_is_the_world_of_both() {
    check(
        "1.14",
        &[cnp("{endpointSelector: {matchLabels: {app: client}}, egress: [{toCIDR: [0.0.0.0/0]}]}")],
        &[("client", WORLD, Tcp, 80, YES), ("client", "2001:db8::1", Tcp, 80, YES)],
    );
}

#[test]
fn exceptions_are_taken_out_of_their_own_block_only() {
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: client}}, egress: [{toCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.8/29]}, {cidr: 203.0.113.10/32}]}]}",
        )],
        &[
            ("client", "203.0.113.1", Tcp, 80, YES),
            ("client", WORLD, Tcp, 80, NO),
            ("client", "203.0.113.10", Tcp, 80, YES),
        ],
    );
}

#[test]
fn a_group_of_blocks_is_found_by_name_and_by_label() {
    // pkg/policy/k8s/cilium_cidr_group.go; by label from 1.17 on.
    for item in ["{cidrGroupRef: office}", "{cidrGroupSelector: {matchLabels: {site: main}}}"] {
        let policy = cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: client}}}}, egress: [{{toCIDRSet: [{item}]}}]}}"
        ));
        check(
            "1.17",
            std::slice::from_ref(&policy),
            &[("client", "198.51.100.4", Tcp, 80, YES), ("client", WORLD, Tcp, 80, NO)],
        );
        check(
            "1.16",
            &[policy],
            &[("client", "198.51.100.4", Tcp, 80, None), ("client", WORLD, Tcp, 80, NO)],
        );
    }
    let missing = cnp(
        "{endpointSelector: {matchLabels: {app: client}}, egress: [{toCIDRSet: [{cidrGroupRef: gone}]}]}",
    );
    check("1.19", &[missing], &[("client", WORLD, Tcp, 80, None)]);
}

#[test]
fn entities_are_what_cilium_says() {
    // Documentation/security/policy/language.rst, Entities based.
    for (entity, pod, world) in [
        ("all", YES, YES),
        ("world", NO, YES),
        ("cluster", YES, NO),
        ("host", NO, NO),
        ("remote-node", NO, NO),
        // Addresses that the input does not have: no pod of it, and perhaps one outside.
        ("init", NO, None),
        ("health", NO, None),
        ("unmanaged", NO, None),
        ("ingress", NO, None),
        ("none", NO, NO),
        ("kube-apiserver", NO, NO),
    ] {
        check(
            "1.19",
            &[cnp(&format!(
                "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{fromEntities: [{entity}]}}]}}"
            ))],
            &[("other", "server", Tcp, 80, pod), (WORLD, "server", Tcp, 80, world)],
        );
        if entity != "cluster" && entity != "all" {
            check(
                "1.19",
                &[cnp(&format!(
                    "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'reserved:{entity}': ''}}}}]}}]}}"
                ))],
                &[("other", "server", Tcp, 80, pod), (WORLD, "server", Tcp, 80, world)],
            );
        }
    }
}

#[test]
fn a_node_is_matched_by_entity_and_not_by_address() {
    // Documentation/security/policy/language.rst, Selecting nodes with CIDR: only with policy-cidr-match-mode=nodes.
    for (rule, passes) in [
        ("{toCIDR: [192.168.0.0/16]}", NO),
        ("{toEntities: [world]}", NO),
        ("{toEntities: [remote-node]}", YES),
        ("{toEntities: [cluster]}", YES),
        ("{toEndpoints: [{}]}", NO),
    ] {
        let policy =
            cnp(&format!("{{endpointSelector: {{matchLabels: {{app: client}}}}, egress: [{rule}]}}"));
        check("1.19", &[policy], &[("client", "n1", Tcp, 6443, passes)]);
    }
}

// === Ports ===

#[test]
fn ports_alone_mean_any_peer() {
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}]}",
        )],
        &[
            (WORLD, "server", Tcp, 80, YES),
            ("other", "server", Tcp, 80, YES),
            ("other", "server", Tcp, 81, NO),
            ("other", "server", Udp, 80, NO),
            ("other", "server", Icmp, 8, NO),
        ],
    );
}

#[test]
fn no_protocol_means_every_protocol_with_ports_and_sctp_if_it_is_on() {
    // pkg/policy/api/l4.go: "If "ANY", omitted or empty, any protocols with transport ports (TCP, UDP, SCTP) match".
    for protocol in ["", ", protocol: ANY"] {
        check(
            "1.19",
            &[cnp(&format!(
                "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{toPorts: [{{ports: [{{port: \"53\"{protocol}}}]}}]}}]}}"
            ))],
            &[
                ("other", "server", Tcp, 53, YES),
                ("other", "server", Sctp, 53, None),
                ("other", "server", Udp, 53, YES),
                ("other", "server", Tcp, 54, NO),
                ("other", "server", Icmp, 8, NO),
            ],
        );
    }
}

#[test]
fn port_zero_is_every_port_of_its_protocol() {
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"0\", protocol: UDP}]}]}]}",
        )],
        &[
            ("other", "server", Udp, 9, YES),
            ("other", "server", Tcp, 9, NO),
            ("other", "server", Icmp, 8, NO),
        ],
    );
}

#[test]
fn a_named_port_is_that_of_the_destination() {
    let policy = |name: &str| {
        cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{toPorts: [{{ports: [{{port: {name}, protocol: TCP}}]}}]}}]}}"
        ))
    };
    check(
        "1.19",
        &[policy("http")],
        &[("other", "server", Tcp, 8080, YES), ("other", "server", Tcp, 80, NO)],
    );
    // Names are compared in lower case (PortProtocol.sanitize).
    check("1.19", &[policy("HTTP")], &[("other", "server", Tcp, 8080, YES)]);
}

#[test]
fn a_range_of_ports_is_honoured_from_1_16_on() {
    let policy = cnp(
        "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"80\", endPort: 90, protocol: TCP}]}]}]}",
    );
    check(
        "1.16",
        std::slice::from_ref(&policy),
        &[
            ("other", "server", Tcp, 80, YES),
            ("other", "server", Tcp, 90, YES),
            ("other", "server", Tcp, 91, NO),
        ],
    );
    check("1.15", &[policy], &[("other", "server", Tcp, 80, YES), ("other", "server", Tcp, 90, NO)]);
}

#[test]
fn an_item_without_ports_admits_nothing() {
    // pkg/policy/rule.go, mergeL4Filter: no L3-only rule where toPorts has members, and no port to iterate over.
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEntities: [all], toPorts: [{}]}]}",
        )],
        &[("other", "server", Tcp, 80, NO)],
    );
}

#[test]
fn icmp_is_admitted_by_type() {
    // pkg/policy/api/icmp.go: family IPv4 unless said, types by number or name.
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{icmps: [{fields: [{type: EchoRequest}, {type: 3}, {family: IPv6, type: 128}]}]}]}",
        )],
        &[
            ("other", "server", Icmp, 8, YES),
            ("other", "server", Icmp, 3, YES),
            ("other", "server", Icmp, 0, NO),
            ("other", "server", Icmpv6, 128, YES),
            ("other", "server", Icmpv6, 129, NO),
            ("other", "server", Tcp, 80, NO),
        ],
    );
}

#[test]
fn sctp_needs_a_switch_that_the_input_does_not_show() {
    // pkg/defaults/defaults.go: EnableSCTP is false.
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"9\", protocol: SCTP}]}]}]}",
        )],
        &[
            ("other", "server", Sctp, 9, None),
            ("other", "server", Sctp, 10, NO),
            ("other", "server", Tcp, 9, NO),
        ],
    );
}

#[test]
fn rules_of_layer_7_admit_at_layer_4_and_say_so() {
    let policy = cnp(
        "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
    );
    check(
        "1.19",
        std::slice::from_ref(&policy),
        &[("other", "server", Tcp, 80, YES), ("other", "server", Tcp, 81, NO)],
    );
    let rule = &read(&policy).unwrap().policies[0].ingress.clone().unwrap().rules[0];
    assert_eq!(rule.note.as_deref(), Some("a proxy lets only the listed requests pass"));
}

// === Services ===

#[test]
fn services_with_a_selector_are_their_pods_from_1_17_on() {
    // pkg/policy/k8s/service.go, processRule.
    for item in [
        "{k8sService: {serviceName: front, namespace: b}}",
        "{k8sServiceSelector: {selector: {matchLabels: {tier: x}}}}",
    ] {
        let policy = cnp(&format!(
            "{{endpointSelector: {{matchLabels: {{app: server}}}}, egress: [{{toServices: [{item}]}}]}}"
        ));
        check(
            "1.17",
            std::slice::from_ref(&policy),
            &[("server", "other", Tcp, 80, YES), ("server", "client", Tcp, 80, NO)],
        );
        check("1.16", &[policy], &[("server", "other", Tcp, 80, NO)]);
    }
}

#[test]
fn services_without_a_selector_are_their_addresses() {
    for version in ["1.13", "1.19"] {
        check(
            version,
            &[cnp(
                "{endpointSelector: {matchLabels: {app: server}}, egress: [{toServices: [{k8sService: {serviceName: legacy, namespace: b}}]}]}",
            )],
            &[("server", "192.0.2.7", Tcp, 80, YES), ("server", WORLD, Tcp, 80, NO)],
        );
    }
}

#[test]
fn services_beside_ports_are_refused_from_1_14_to_1_16() {
    // pkg/policy/api/rule_validation.go, l3DependentL4Support; issue 20067.
    let policy = cnp(
        "{endpointSelector: {matchLabels: {app: server}}, egress: [{toServices: [{k8sService: {serviceName: front, namespace: b}}], \
          toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}]}",
    );
    check("1.15", std::slice::from_ref(&policy), &[("server", WORLD, Tcp, 443, YES)]);
    check(
        "1.17",
        std::slice::from_ref(&policy),
        &[
            ("server", WORLD, Tcp, 443, NO),
            ("server", "other", Tcp, 80, YES),
            ("server", "other", Tcp, 81, NO),
        ],
    );
    check("1.13", &[policy], &[("server", WORLD, Tcp, 80, None), ("server", WORLD, Tcp, 443, NO)]);
}

#[test]
fn a_service_that_is_not_in_the_input_makes_the_rule_unknown() {
    check(
        "1.19",
        &[cnp(
            "{endpointSelector: {matchLabels: {app: server}}, egress: [{toServices: [{k8sService: {serviceName: gone}}]}]}",
        )],
        &[("server", "other", Tcp, 80, None)],
    );
}

// === What is refused ===

#[test]
fn a_policy_that_agents_refuse_has_no_effect() {
    // pkg/policy/api/rule_validation.go; the object is refused as a whole (CiliumNetworkPolicy.Parse).
    for rule in [
        "{fromEndpoints: [{}], fromCIDR: [10.0.0.0/8]}",
        "{toPorts: [{ports: [{port: \"80\"}]}], icmps: [{fields: [{type: 8}]}]}",
        "{toPorts: [{ports: [{protocol: TCP}]}]}",
        "{toPorts: [{ports: [{port: \"99999\"}]}]}",
        "{toPorts: [{ports: [{port: \"53\"}], rules: {dns: [{matchName: x.y}]}}]}",
        "{toPorts: [{ports: [{port: \"80\", protocol: UDP}], rules: {http: [{}]}}]}",
        "{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [192.0.2.0/24]}]}",
        "{fromEndpoints: [{matchExpressions: [{key: a, operator: In, values: []}]}]}",
    ] {
        let policy = cnp(&format!("{{endpointSelector: {{}}, ingress: [{rule}, {{}}]}}"));
        let inert = read(&policy).unwrap().policies[0].inert.clone();
        assert!(
            inert.as_deref().is_some_and(|why| why.starts_with("the agent refuses it: ")),
            "{rule}: {inert:?}"
        );
        check("1.19", &[policy], &[("client", "server", Tcp, 80, YES)]);
    }
}

#[test]
fn names_may_not_stand_beside_other_peers() {
    let policy = cnp(
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: example.com}], toCIDR: [192.0.2.0/24]}]}",
    );
    assert_eq!(
        read(&policy).unwrap().policies[0].inert.as_deref(),
        Some("the agent refuses it: spec.egress[0] combines toCIDR and toFQDNs; make two rules of it")
    );
}

#[test]
fn a_denial_with_two_kinds_of_peer_is_refused_from_1_17_on_and_joined_by_or_before() {
    // IngressDenyRule.sanitize came with 1.17.
    let policy = cnp(
        "{endpointSelector: {matchLabels: {app: server}}, ingressDeny: [{fromEndpoints: [{}], fromCIDR: [203.0.113.0/24]}], ingress: [{fromEntities: [all]}]}",
    );
    check(
        "1.16",
        std::slice::from_ref(&policy),
        &[
            ("client", "server", Tcp, 80, NO),
            (WORLD, "server", Tcp, 80, NO),
            ("other", "server", Tcp, 80, YES),
        ],
    );
    check("1.17", &[policy], &[("client", "server", Tcp, 80, YES), (WORLD, "server", Tcp, 80, YES)]);
}

#[test]
fn a_status_that_says_invalid_makes_a_policy_inert() {
    let policy = format!(
        "{}status: {{conditions: [{{type: Valid, status: 'False', message: rule must have at least one}}]}}\n",
        cnp("{endpointSelector: {}, ingress: [{}]}")
    );
    assert_eq!(
        read(&policy).unwrap().policies[0].inert.as_deref(),
        Some("its status says that it is not valid: rule must have at least one")
    );
    check("1.19", &[policy], &[("client", "server", Tcp, 80, YES)]);
}

#[test]
fn what_the_schema_refuses_is_an_error_with_its_place_and_a_way_out() {
    for (spec, error) in [
        (
            "{endpointSelector: {}, ingress: [{fromEntities: [world-ipv4]}]}",
            "in.yaml:4:56: spec.ingress[0].fromEntities[0] must be one of all, world, cluster, host, init, ingress, unmanaged, \
             remote-node, health, none, kube-apiserver, is a string (\"world-ipv4\"); of the world, a family's addresses are \
             toCIDR 0.0.0.0/0 or ::/0",
        ),
        (
            "{endpointSelector: {}}",
            "in.yaml:4:7: spec has none of ingress, ingressDeny, egress and egressDeny; to deny all of a direction, give it one empty rule: [{}]",
        ),
        (
            "{ingress: [{}]}",
            "in.yaml:4:7: spec must have one of endpointSelector and nodeSelector; every pod of the namespace is endpointSelector: {}",
        ),
    ] {
        assert_eq!(read(&cnp(spec)).unwrap_err(), error);
    }
    for spec in [
        "{endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: x}]}]}",
        "{endpointSelector: {}, egress: [{toCIDR: [10.0.0.1]}]}",
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.b, matchPattern: '*.b'}]}]}",
        "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: 80}]}]}]}",
        "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: \"80\", protocol: tcp}]}]}]}",
        "{endpointSelector: {}, ingress: [{icmps: [{fields: [{family: IPv6, type: Photuris}]}]}]}",
    ] {
        assert!(read(&cnp(spec)).is_err(), "{spec}");
    }
    assert!(
        read(&ccnp("{endpointSelector: {}, ingress: [{}]}").replace("name: p", "name: p, namespace: a"))
            .is_err()
    );
}

// === What is not known ===

#[test]
fn what_nobody_understands_is_unknown_where_it_stands() {
    let unknown = [
        "{fromEndpoints: [{}], futureField: 1}",
        "{fromEndpoints: [{}], authentication: {mode: required}}",
        "{fromEndpoints: [{matchLabels: {'container:x': z}}]}",
        "{fromGroups: [{aws: {securityGroupsIds: [x]}}]}",
        "{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: west}}]}",
    ];
    for rule in unknown {
        let policy =
            cnp(&format!("{{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{rule}]}}"));
        check("1.19", &[policy], &[("client", "server", Tcp, 80, None), ("server", WORLD, Tcp, 80, YES)]);
    }
    let port = cnp(
        "{endpointSelector: {matchLabels: {app: server}}, ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], future: 1}]}]}",
    );
    check("1.19", &[port], &[("client", "server", Tcp, 80, None), ("client", "server", Tcp, 81, NO)]);
}

#[test]
fn several_specs_are_several_rules() {
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: a}\nspecs:\n\
                  - {endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{}]}]}\n\
                  - {endpointSelector: {matchLabels: {app: client}}, egress: [{}]}\n";
    check(
        "1.19",
        &[policy.into()],
        &[
            ("client", "server", Tcp, 80, NO),
            ("other", "server", Tcp, 80, NO),
            ("server", "client", Tcp, 80, YES),
        ],
    );
    let paths: Vec<String> = read(policy)
        .unwrap()
        .policies
        .iter()
        .flat_map(|p| p.ingress.iter().chain(&p.egress))
        .flat_map(|s| s.rules.iter().map(|r| r.path.to_string()))
        .collect();
    assert_eq!(paths, ["specs[0].ingress[0]", "specs[1].egress[0]"]);
}
