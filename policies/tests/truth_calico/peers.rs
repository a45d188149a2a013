//! Sources and destinations: whom a rule speaks of.

use super::*;

/// Ingress of the server from this source only, in a policy of its namespace.
fn from(source: &str) -> [String; 1] {
    [in_a("x", &format!("ingress: [{{action: Allow, source: {{{source}}}}}]"))]
}

/// The same in a global policy.
fn from_global(source: &str) -> [String; 1] {
    [global("x", &format!("selector: app == 'server', ingress: [{{action: Allow, source: {{{source}}}}}]"))]
}

#[test]
fn a_selector_alone_means_the_policys_own_namespace() {
    judge(&from("selector: all()"), &[(WEB, YES), (OTHER, NO), (OUTSIDE, NO)]);
    judge(&from_global("selector: all()"), &[(WEB, YES), (OTHER, YES), (OUTSIDE, NO)]);
}

#[test]
fn a_namespace_selector_reaches_further() {
    judge(&from("namespaceSelector: env == 'dev'"), &[(WEB, NO), (OTHER, YES), (OUTSIDE, NO)]);
    judge(&from("namespaceSelector: all()"), &[(WEB, YES), (OTHER, YES), (OUTSIDE, NO)]);
    judge(&from("namespaceSelector: \"projectcalico.org/name == 'b'\""), &[(WEB, NO), (OTHER, YES)]);
    judge(&from("namespaceSelector: \"kubernetes.io/metadata.name == 'b'\""), &[(WEB, NO), (OTHER, YES)]);
    judge(&from("namespaceSelector: all(), selector: app == 'client'"), &[(WEB, YES), (OTHER, NO)]);
    judge(&from_global("namespaceSelector: \"!has(env)\""), &[(WEB, NO), (OTHER, NO), (OUTSIDE, NO)]);
}

#[test]
fn nets_are_of_no_namespace_and_match_pods_by_address() {
    judge(&from("nets: [10.0.1.0/24]"), &[(WEB, NO), (OTHER, YES), (OUTSIDE, NO)]);
    judge(&from("nets: [192.0.2.0/24]"), &[(WEB, NO), (OTHER, NO), (OUTSIDE, YES)]);
    // Beside a selector they must both match.
    judge(&from("nets: [10.0.0.0/8], selector: all()"), &[(WEB, YES), (OTHER, NO), (OUTSIDE, NO)]);
}

#[test]
fn not_nets_leave_out_addresses_and_the_other_family() {
    judge(&from("notNets: [10.0.0.0/8]"), &[(WEB, NO), (OTHER, NO), (OUTSIDE, YES)]);
    judge(&from("nets: [10.0.0.0/8], notNets: [10.0.1.0/24]"), &[(WEB, YES), (OTHER, NO), (OUTSIDE, NO)]);
    let six =
        global("x", "selector: app == 'six', ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]");
    judge(&[six], &[("fd00::1 a/six TCP 80", NO)]);
}

#[test]
fn not_selector_matches_what_is_no_endpoint_and_a_negated_selector_does_not() {
    judge(&from_global("notSelector: app == 'client'"), &[(WEB, NO), (OTHER, YES), (OUTSIDE, YES)]);
    judge(&from_global("selector: \"!app == 'client'\""), &[(WEB, NO), (OTHER, YES), (OUTSIDE, NO)]);
    judge(&from_global("selector: \"app != 'client'\""), &[(WEB, NO), (OTHER, YES), (OUTSIDE, NO)]);
    // In a policy of a namespace, notSelector alone already limits the rule to that namespace.
    judge(&from("notSelector: app == 'client'"), &[(WEB, NO), (OTHER, NO), (OUTSIDE, NO)]);
    judge(&from("notSelector: app == 'other'"), &[(WEB, YES), (OTHER, NO), (OUTSIDE, NO)]);
}

#[test]
fn a_selector_matches_network_sets_and_whoever_has_their_addresses() {
    let with = |source: &str, nets: &str| [set("s", "role: db", nets), from_global(source)[0].clone()];
    judge(&with("selector: role == 'db'", "192.0.2.0/24"), &[(WEB, NO), (OTHER, NO), (OUTSIDE, YES)]);
    judge(&with("selector: role == 'db'", "10.0.1.1"), &[(WEB, NO), (OTHER, YES), (OUTSIDE, NO)]);
    judge(&with("selector: all()", "192.0.2.0/24"), &[(WEB, YES), (OTHER, YES), (OUTSIDE, YES)]);
    judge(&with("notSelector: role == 'db'", "10.0.1.1"), &[(WEB, YES), (OTHER, NO), (OUTSIDE, YES)]);
}

#[test]
fn global_means_sets_in_no_namespace_and_no_pod() {
    let sets = |source: &str| [set("s", "role: db", "192.0.2.0/24"), from(source)[0].clone()];
    judge(&sets("selector: role == 'db'"), &[(OUTSIDE, NO)]);
    judge(
        &sets("selector: role == 'db', namespaceSelector: global()"),
        &[(OUTSIDE, YES), (WEB, NO), (OTHER, NO)],
    );
    judge(&sets("selector: role == 'db', namespaceSelector: all()"), &[(OUTSIDE, NO)]);
}

#[test]
fn accounts_are_matched_by_name_and_label() {
    judge(&from_global("serviceAccounts: {names: [robot]}"), &[(WEB, NO), (OTHER, YES)]);
    judge(&from_global("serviceAccounts: {selector: team == 'x'}"), &[(WEB, NO), (OTHER, YES)]);
    judge(
        &from_global("serviceAccounts: {names: [default], selector: team == 'x'}"),
        &[(WEB, NO), (OTHER, NO)],
    );
    // They limit a namespaced rule to its namespace, as any selector does.
    judge(&from("serviceAccounts: {names: [robot]}"), &[(OTHER, NO)]);
    judge(
        &[global("x", "serviceAccountSelector: team == 'x', egress: [{action: Deny}]")],
        &[("b/other a/server TCP 80", NO), (WEB, YES)],
    );
}

#[test]
fn a_service_is_reached_at_its_backends_ports() {
    let to = "egress: [{action: Allow, destination: {services: {name: server}}}]";
    judge(
        &[in_a("x", &format!("selector: app == 'client', {to}"))],
        &[("a/client a/server TCP 8080", YES), (WEB, NO), ("a/client b/other TCP 8080", NO)],
    );
    let lost = "egress: [{action: Allow, destination: {services: {name: lost}}}]";
    judge(
        &[in_a("x", &format!("selector: app == 'client', {lost}"))],
        &[("a/client a/server TCP 8080", UNKNOWN)],
    );
    // As a source it is its backends, at any port.
    judge(
        &[in_a(
            "x",
            "selector: app == 'client', ingress: [{action: Allow, source: {services: {name: server}}}]",
        )],
        &[("a/server a/client TCP 1", YES), ("b/other a/client TCP 1", NO)],
    );
}

#[test]
fn the_subjects_own_side_of_a_rule_narrows_whom_it_speaks_of() {
    let rules = "ingress: [{action: Deny, destination: {selector: tier == 'back'}}, {action: Allow}]";
    judge(&[global("x", rules)], &[(WEB, NO), ("a/client b/other TCP 80", YES)]);
    let nets = "ingress: [{action: Allow, destination: {nets: [10.0.0.2/32]}}]";
    judge(&[global("x", nets)], &[(WEB, YES), ("a/client b/other TCP 80", NO)]);
    let source = "egress: [{action: Deny, source: {notSelector: app == 'client'}}, {action: Allow}]";
    judge(&[global("x", source)], &[(WEB, YES), ("b/other a/server TCP 80", NO)]);
    // The rules keep their order, whomever they speak of.
    let order = "ingress: [{action: Allow, protocol: TCP}, {action: Deny, destination: {selector: tier == 'back'}}, \
                 {action: Allow}]";
    judge(
        &[global("x", order)],
        &[(WEB, YES), ("a/client a/server UDP 1", NO), ("a/client b/other UDP 1", YES)],
    );
}

#[test]
fn a_pod_that_wears_its_namespaces_label_is_taken_for_one_of_it() {
    let disguised = "
apiVersion: v1
kind: Pod
metadata: {name: spy, namespace: b, labels: {pcns.env: prod}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.1.9}
---
"
    .to_owned();
    let policy = from_global("namespaceSelector: env == 'prod'")[0].clone();
    judge(&[disguised, policy], &[("b/spy a/server TCP 80", YES), (OTHER, NO), (WEB, YES)]);
}
