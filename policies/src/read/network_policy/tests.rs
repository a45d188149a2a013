#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::read::{Input, Limits, documents};

const HEAD: &str =
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\n";

fn document(text: &str) -> Document {
    let mut input = Input::new(Limits::default());
    input.add("p.yaml", text).unwrap();
    documents(&input).unwrap().documents.remove(0)
}

/// A policy with this spec, in flow style.
fn policy(spec: &str) -> Policy {
    super::read(&document(&format!("{HEAD}spec: {spec}\n"))).unwrap().remove(0)
}

fn errors(spec: &str) -> Vec<String> {
    super::read(&document(&format!("{HEAD}spec: {spec}\n")))
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The peer and the traffic of the only ingress rule of a policy.
fn ingress(rule: &str) -> (Match, TrafficMatch) {
    let mut rules = policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}")).ingress.unwrap().rules;
    assert_eq!(rules.len(), 1);
    let rule = rules.remove(0);
    (rule.peer, rule.traffic)
}

fn label(owner: LabelOwner, key: &str, value: &str) -> Match {
    Match::label(owner, key, value)
}

fn in_a(which: Match) -> Match {
    Match::pods(all(vec![Match::Namespace(Test::Is("a".into())), which]))
}

/// Which directions a spec isolates, with the number of rules of each.
fn isolates(spec: &str) -> (Option<usize>, Option<usize>) {
    let policy = policy(spec);
    (policy.ingress.map(|section| section.rules.len()), policy.egress.map(|section| section.rules.len()))
}

#[test]
fn absent_policy_types_mean_ingress_and_egress_only_where_there_are_egress_rules() {
    assert_eq!(isolates("{}"), (Some(0), None));
    assert_eq!(isolates("{podSelector: {}, policyTypes: []}"), (Some(0), None));
    assert_eq!(isolates("{policyTypes: null, egress: []}"), (Some(0), None));
    assert_eq!(isolates("{egress: [{}]}"), (Some(0), Some(1)));
    assert_eq!(isolates("{ingress: [{}, {}], egress: [{}]}"), (Some(2), Some(1)));
    let no_spec = super::read(&document(HEAD)).unwrap().remove(0);
    assert_eq!((no_spec.subject, no_spec.egress.is_none()), (in_a(Match::Anything), true));
    assert!(no_spec.ingress.unwrap().rules.is_empty());
}

#[test]
fn rules_of_an_undeclared_direction_have_no_effect() {
    assert_eq!(isolates("{policyTypes: [Egress], ingress: [{}]}"), (None, Some(0)));
    assert_eq!(isolates("{policyTypes: [Ingress], egress: [{}]}"), (Some(0), None));
    assert_eq!(isolates("{policyTypes: [Ingress, Egress]}"), (Some(0), Some(0)));
    assert_eq!(isolates("{policyTypes: [Ingress, Ingress]}"), (Some(0), None));
}

#[test]
fn selectors_of_one_peer_are_joined_by_and_those_of_two_by_or() {
    let (web, blue) =
        (label(LabelOwner::Endpoint, "app", "web"), label(LabelOwner::Namespace, "team", "blue"));
    let (pods, namespaces) =
        ("podSelector: {matchLabels: {app: web}}", "namespaceSelector: {matchLabels: {team: blue}}");
    let peer = |text: &str| ingress(&format!("{{from: [{text}]}}")).0;
    assert_eq!(peer(&format!("{{{pods}}}")), in_a(web.clone()));
    assert_eq!(peer(&format!("{{{namespaces}}}")), Match::pods(blue.clone()));
    assert_eq!(
        peer(&format!("{{{namespaces}, {pods}}}")),
        Match::pods(Match::All(vec![blue.clone(), web.clone()]))
    );
    assert_eq!(
        peer(&format!("{{{namespaces}}}, {{{pods}}}")),
        Match::OneOf(vec![Match::pods(blue), in_a(web)])
    );
    assert_eq!(peer("{namespaceSelector: {}}"), Match::pods(Match::Anything));
    assert_eq!(peer("{podSelector: {}}"), in_a(Match::Anything));
    assert_eq!(peer("{podSelector: {}, namespaceSelector: null}"), in_a(Match::Anything));
}

#[test]
fn an_absent_or_empty_list_of_peers_or_ports_matches_all() {
    for rule in ["{}", "{from: [], ports: []}", "{from: null, ports: null}"] {
        assert_eq!(ingress(rule), (Match::Anything, TrafficMatch::Anything), "{rule}");
    }
}

#[test]
fn ports_default_to_tcp_and_a_missing_port_is_all_of_its_protocol() {
    let traffic = |ports: &str| ingress(&format!("{{ports: [{ports}]}}")).1;
    let ports = |protocol, first, last| TrafficMatch::Ports(protocol, PortSet::range(first, last));
    assert_eq!(traffic("{}"), TrafficMatch::Protocol(Protocol::Tcp));
    assert_eq!(traffic("{protocol: SCTP}"), TrafficMatch::Protocol(Protocol::Sctp));
    assert_eq!(traffic("{port: 80}"), ports(Protocol::Tcp, 80, 80));
    assert_eq!(traffic("{port: 80, endPort: 90, protocol: UDP}"), ports(Protocol::Udp, 80, 90));
    assert_eq!(traffic("{port: 65535, endPort: 65535}"), ports(Protocol::Tcp, 65535, 65535));
    assert_eq!(traffic("{port: http}"), TrafficMatch::NamedPort(Protocol::Tcp, "http".into()));
    assert_eq!(
        traffic("{port: 1}, {port: dns, protocol: UDP}"),
        TrafficMatch::OneOf(vec![
            ports(Protocol::Tcp, 1, 1),
            TrafficMatch::NamedPort(Protocol::Udp, "dns".into())
        ])
    );
}

#[test]
fn except_is_taken_out_of_its_own_block_only() {
    let set = |text: &str| AddressSet::block(text.parse().unwrap());
    let (peer, _) = ingress(
        "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.2.0/24]}}, {ipBlock: {cidr: 10.1.0.0/17}}]}",
    );
    let first = set("10.0.0.0/8").difference(&set("10.1.0.0/16")).difference(&set("10.2.2.0/24"));
    assert_eq!(peer, Match::OneOf(vec![Match::Cidr(first), Match::Cidr(set("10.1.0.0/17"))]));
    let (peer, _) = ingress("{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}");
    assert_eq!(peer, Match::Cidr(set("10.0.0.0/8")), "host bits are ignored");
}

#[test]
fn what_the_api_server_rejects_is_an_error_with_its_place() {
    let rule = |rule: &str| format!("{{ingress: [{rule}]}}");
    let port = |port: &str| rule(&format!("{{ports: [{port}]}}"));
    let peer = |peer: &str| rule(&format!("{{from: [{peer}]}}"));
    let block = |block: &str| peer(&format!("{{ipBlock: {block}}}"));
    let cases = [
        (port("{port: 0}"), "port must be an integer from 1 to 65535"),
        (port("{port: 65536}"), "port must be an integer from 1 to 65535"),
        (port("{port: -1}"), "port must be an integer from 1 to 65535"),
        (port("{port: '80'}"), "must be a port number or name"),
        (port("{port: HTTP}"), "must be a port number or name"),
        (port("{port: a--b}"), "must be a port number or name"),
        (port("{port: sixteen-letters-}"), "must be a port number or name"),
        (port("{port: 1.5}"), "must be an integer or a string"),
        (port("{port: 80, endPort: 79}"), "endPort must be 80 or more"),
        (port("{port: 80, endPort: 65536}"), "endPort must be an integer from 1 to 65535"),
        (port("{port: http, endPort: 90}"), "endPort must be absent where the port is a name"),
        (port("{endPort: 90}"), "endPort must be absent where there is no port"),
        (port("{protocol: ICMP}"), "protocol must be one of TCP, UDP, SCTP"),
        (port("{protocol: tcp}"), "protocol must be one of TCP, UDP, SCTP"),
        (port("null"), "ports[0] must be a map, is null"),
        (peer("{}"), "spec.ingress[0].from[0] names no peer"),
        (peer("{podSelector: null}"), "spec.ingress[0].from[0] names no peer"),
        (peer("null"), "from[0] must be a map"),
        (peer("{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}"), "both an ipBlock and a selector"),
        (peer("{namespaceSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}"), "both an ipBlock and a selector"),
        (block("{}"), "cidr is missing"),
        (block("{cidr: 10.0.0.0}"), "is not a CIDR block"),
        (block("{cidr: 10.0.0.0/33}"), "is not a CIDR block"),
        (block("{cidr: '::ffff:10.0.0.0/104'}"), "IPv4-mapped"),
        (block("{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}"), "must lie within 10.0.0.0/8 and be smaller"),
        (block("{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}"), "must lie within 10.0.0.0/8 and be smaller"),
        (block("{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}"), "must lie within 10.0.0.0/8 and be smaller"),
        (block("{cidr: 10.0.0.0/8, except: ['::/0']}"), "must lie within 10.0.0.0/8 and be smaller"),
        (
            block("{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24]}"),
            "except[1]: 10.1.2.0/24 overlaps the exception 10.1.0.0/16",
        ),
        (
            block("{cidr: 10.0.0.0/8, except: [10.1.2.0/24, 10.1.0.0/16]}"),
            "except[1]: 10.1.0.0/16 overlaps the exception 10.1.2.0/24",
        ),
        (
            block("{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.0.0/16]}"),
            "except[1]: 10.1.0.0/16 overlaps the exception 10.1.0.0/16",
        ),
        (block("{cidr: 10.0.0.0/8, except: [x]}"), "except[0]: \"x\" is not a CIDR block"),
        ("{policyTypes: [ingress]}".into(), "policyTypes[0] must be one of Ingress, Egress"),
        ("{policyTypes: [Ingress, Egress, Egress]}".into(), "must name at most two types"),
        ("{policyTypes: Ingress}".into(), "policyTypes must be a list"),
        ("{podSelector: {matchLabels: {app: y}}}".into(), "must be a string, is a boolean (true)"),
        ("{ingress: {}}".into(), "ingress must be a list"),
        ("{ingress: [null]}".into(), "ingress[0] must be a map, is null"),
        ("[]".into(), "spec must be a map"),
    ];
    for (spec, part) in cases {
        let errors = errors(&spec);
        assert_eq!(errors.len(), 1, "{spec}: {errors:?}");
        assert!(errors[0].starts_with("p.yaml:4:") && errors[0].contains(part), "{spec}: {errors:?}");
    }
}

#[test]
fn all_errors_of_a_policy_come_at_once() {
    let spec =
        "{policyTypes: [x], ingress: [{from: [{}], ports: [{port: 0}]}, {from: 1}], egress: [{to: [{}]}]}";
    assert_eq!(errors(spec).len(), 5);
}

#[test]
fn a_policy_needs_a_name_and_is_in_default_without_a_namespace() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    assert!(super::read(&document(text)).unwrap_err()[0].to_string().contains("has no metadata.name"));
    let policy =
        super::read(&document(&format!("{text}metadata: {{name: p}}\nspec: {{podSelector: {{}}}}\n")));
    let policy = policy.unwrap().remove(0);
    assert_eq!(policy.object.to_string(), "NetworkPolicy default/p");
    assert_eq!(policy.subject, Match::pods(Match::Namespace(Test::Is("default".into()))));
}

#[test]
fn a_field_that_is_not_understood_is_a_doubt_just_where_it_matters() {
    let what = |doubt: &crate::truth::Doubt| doubt.to_string();
    let found = policy("{podSelector: {}, mode: strict, ingress: [{}]}");
    let doubts: Vec<_> = found.doubts.iter().map(what).collect();
    assert_eq!(doubts, ["the field `spec.mode` is not understood (p.yaml:4:25)"]);
    assert_eq!(found.ingress.unwrap().rules[0].peer, Match::Anything);

    // A rule with a misspelt `from` may be meant for somebody, and admits everybody where the field is dropped.
    let (Match::Doubt(doubt), TrafficMatch::Anything) = ingress("{form: [{podSelector: {}}]}") else {
        panic!()
    };
    assert_eq!(&*doubt.what, "the field `spec.ingress[0].form` is not understood");
    let (Match::Doubt(doubt), _) = ingress("{from: [{podSelector: {}, serviceAccounts: [x]}]}") else {
        panic!()
    };
    assert_eq!(&*doubt.what, "the field `spec.ingress[0].from[0].serviceAccounts` is not understood");
    let (Match::Doubt(_), _) = ingress("{from: [{serviceAccounts: [x]}]}") else { panic!() };
    let (Match::Doubt(_), _) = ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8, but: []}}]}") else { panic!() };
    let (Match::Anything, TrafficMatch::Doubt(doubt)) = ingress("{ports: [{port: 80, icmp: {}}]}") else {
        panic!()
    };
    assert_eq!(&*doubt.what, "the field `spec.ingress[0].ports[0].icmp` is not understood");

    let selector = policy("{podSelector: {matchLabel: {a: b}}}");
    let Match::All(parts) = selector.subject else { panic!() };
    let Match::All(parts) = &parts[1] else { panic!("{parts:?}") };
    let (Match::Namespace(_), Match::Doubt(_)) = (&parts[0], &parts[1]) else { panic!("{parts:?}") };
    assert!(selector.doubts.is_empty());

    let root = super::read(&document(&format!("{HEAD}status: {{conditions: []}}\nspecs: {{}}\n")))
        .unwrap()
        .remove(0);
    assert_eq!(root.doubts.len(), 1, "{:?}", root.doubts);
}

#[test]
fn a_rule_knows_its_path_and_its_place() {
    let text = format!("{HEAD}spec:\n  egress:\n  - to: []\n  -\n    ports: []\n");
    let found = super::read(&document(&text)).unwrap().remove(0);
    let rules: Vec<_> =
        found.egress.unwrap().rules.iter().map(|rule| (rule.path.to_string(), rule.at.to_string())).collect();
    assert_eq!(
        rules,
        [
            ("spec.egress[0]".into(), "p.yaml:6:5".to_string()),
            ("spec.egress[1]".into(), "p.yaml:8:5".to_string())
        ]
    );
    assert_eq!((found.at.to_string(), found.place), ("p.yaml:1:1".into(), Place::Kubernetes));
}
