#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::read::{Input, Limits, documents};

fn read(kind: &str, name: &str, spec: &str) -> Result<Policy, Vec<String>> {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    let mut input = Input::new(Limits::default());
    input.add("p.yaml", text).unwrap();
    let document = documents(&input).unwrap().documents.remove(0);
    super::read(&document).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn admin(rest: &str) -> Result<Policy, Vec<String>> {
    read("AdminNetworkPolicy", "p", &format!("{{priority: 7, subject: {{namespaces: {{}}}}, {rest}}}"))
}

fn baseline(rest: &str) -> Result<Policy, Vec<String>> {
    read("BaselineAdminNetworkPolicy", "default", &format!("{{subject: {{namespaces: {{}}}}, {rest}}}"))
}

#[test]
fn admin_and_baseline_stand_in_tiers_of_their_own() {
    let policy = admin("ingress: [{action: Pass, from: [{namespaces: {}}]}]").unwrap();
    assert_eq!(policy.place, Place::Cluster { tier: ClusterTier::Admin, priority: 7 });
    assert_eq!(
        (policy.dialect, policy.ingress.unwrap().rules[0].action),
        (Dialect::AdminNetworkPolicy, Action::Pass)
    );
    let policy = baseline("ingress: [{action: Allow, from: [{namespaces: {}}]}]").unwrap();
    assert_eq!(policy.place, Place::Cluster { tier: ClusterTier::Baseline, priority: 0 });
    assert_eq!(policy.ingress.unwrap().rules[0].action, Action::Allow);
}

#[test]
fn ports_are_tcp_unless_they_say_otherwise() {
    let traffic = |ports: &str| {
        let rest = format!("egress: [{{action: Deny, to: [{{namespaces: {{}}}}], ports: [{ports}]}}]");
        admin(&rest).unwrap().egress.unwrap().rules.remove(0).traffic
    };
    let ports = |protocol, first, last| TrafficMatch::Ports(protocol, PortSet::range(first, last));
    assert_eq!(traffic("{portNumber: {port: 80}}"), ports(Protocol::Tcp, 80, 80));
    assert_eq!(
        traffic("{portNumber: {protocol: SCTP, port: 9}}, {portRange: {protocol: UDP, start: 1, end: 2}}"),
        TrafficMatch::OneOf(vec![ports(Protocol::Sctp, 9, 9), ports(Protocol::Udp, 1, 2)])
    );
    let TrafficMatch::OneOf(named) = traffic("{namedPort: web}") else { panic!() };
    assert_eq!(named.len(), 3);
}

#[test]
fn what_the_crds_reject_is_an_error_with_its_place() {
    let port = |port: &str| {
        admin(&format!("egress: [{{action: Deny, to: [{{namespaces: {{}}}}], ports: [{port}]}}]"))
    };
    let peer = |peer: &str| admin(&format!("egress: [{{action: Allow, to: [{peer}]}}]"));
    let cases = [
        (
            read("BaselineAdminNetworkPolicy", "base", "{subject: {namespaces: {}}}"),
            "must be named default, is \"base\"",
        ),
        (read("AdminNetworkPolicy", "p", "{subject: {namespaces: {}}}"), "spec.priority is missing"),
        (
            baseline("ingress: [{action: Pass, from: [{namespaces: {}}]}]"),
            "action must be one of Allow, Deny",
        ),
        (
            admin("ingress: [{action: Accept, from: [{namespaces: {}}]}]"),
            "action must be one of Allow, Deny, Pass",
        ),
        (peer("{pods: {podSelector: {}}}"), "pods.namespaceSelector is missing"),
        (peer("{}"), "must have just one field, and has 0"),
        (peer(&vec!["{namespaces: {}}"; 101].join(", ")), "at most 100 items"),
        (port("{}"), "ports[0] must have just one field, and has 0"),
        (port("{portNumber: {protocol: TCP}}"), "port is missing"),
        (port("{portNumber: {protocol: ICMP, port: 1}}"), "protocol must be one of TCP, UDP, SCTP"),
        (port("{portRange: {start: 2, end: 1}}"), "end must be greater than start"),
        (port("{portNumber: {port: 1}, namedPort: web}"), "must have just one field, and has 2"),
        (
            admin("egress: [{action: Deny, to: [{nodes: {}}], ports: [{namedPort: web}]}]"),
            "has a named port and peers that name no ports",
        ),
    ];
    for (found, part) in cases {
        let errors = found.unwrap_err();
        assert_eq!(errors.len(), 1, "{part}: {errors:?}");
        assert!(errors[0].starts_with("p.yaml:") && errors[0].contains(part), "{part}: {errors:?}");
    }
    assert!(peer(&vec!["{namespaces: {}}"; 100].join(", ")).is_ok());
}

#[test]
fn a_baseline_policy_knows_no_domain_names() {
    let policy = baseline("egress: [{action: Allow, to: [{domainNames: [example.com]}]}]").unwrap();
    let Match::Doubt(doubt) = &policy.egress.unwrap().rules[0].peer else { panic!() };
    assert!(doubt.what.contains("domainNames"));
}
