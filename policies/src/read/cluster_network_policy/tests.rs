#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::matching::{DomainPattern, Kind, LabelOwner};
use crate::policy::Rule;
use crate::read::{Input, Limits, documents};
use crate::sets::AddressSet;
use crate::truth::Truth;

fn read_in(metadata: &str, spec: &str) -> Result<Policy, Vec<String>> {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {metadata}\nspec: {spec}\n"
    );
    let mut input = Input::new(Limits::default());
    input.add("p.yaml", text).unwrap();
    let document = documents(&input).unwrap().documents.remove(0);
    super::read(&document).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn read(spec: &str) -> Result<Policy, Vec<String>> {
    read_in("{name: p}", spec)
}

fn spec(rest: &str) -> String {
    format!("{{tier: Admin, priority: 5, subject: {{namespaces: {{}}}}, {rest}}}")
}

fn egress_in(metadata: &str, rule: &str) -> Result<Rule, Vec<String>> {
    read_in(metadata, &spec(&format!("egress: [{rule}]")))
        .map(|policy| policy.egress.unwrap().rules.remove(0))
}

fn egress(rule: &str) -> Rule {
    egress_in("{name: p}", rule).unwrap()
}

fn doubt(which: &Match) -> String {
    let Match::Doubt(doubt) = which else { panic!("{which:?}") };
    doubt.what.to_string()
}

#[test]
fn a_policy_stands_in_its_tier_at_its_priority_and_isolates_nobody() {
    let policy = read(
        "{tier: Baseline, priority: 1000, subject: {namespaces: {matchLabels: {team: a}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}",
    )
    .unwrap();
    assert_eq!(policy.place, Place::Cluster { tier: ClusterTier::Baseline, priority: 1000 });
    assert_eq!(policy.subject, Match::pods(Match::label(LabelOwner::Namespace, "team", "a")));
    let ingress = policy.ingress.unwrap();
    assert_eq!((ingress.isolates, ingress.rules.len(), policy.egress.is_none()), (Truth::No, 1, true));
    let rule = &ingress.rules[0];
    assert_eq!((&*rule.path, rule.action), ("spec.ingress[0]", Action::Deny));
    assert_eq!((&rule.peer, &rule.traffic), (&Match::pods(Match::Anything), &TrafficMatch::Anything));
    assert_eq!(policy.object.to_string(), "ClusterNetworkPolicy p");
    let silent = read(&spec("ingress: [], egress: null")).unwrap();
    assert!(silent.ingress.is_none() && silent.egress.is_none());
}

#[test]
fn each_kind_of_peer_is_read() {
    let peer = |peer: &str| egress(&format!("{{action: Accept, to: [{peer}]}}")).peer;
    let label = |owner, key: &str| Match::label(owner, key, "x");
    assert_eq!(
        peer("{pods: {podSelector: {matchLabels: {p: x}}, namespaceSelector: {matchLabels: {q: x}}}}"),
        Match::pods(Match::All(vec![label(LabelOwner::Namespace, "q"), label(LabelOwner::Endpoint, "p")]))
    );
    // In v1alpha2 the namespace selector may be left out; it is then empty.
    assert_eq!(
        peer("{pods: {podSelector: {matchLabels: {p: x}}}}"),
        Match::pods(label(LabelOwner::Endpoint, "p"))
    );
    assert_eq!(
        peer("{nodes: {matchLabels: {zone: x}}}"),
        Match::All(vec![
            Match::OneOf(vec![Match::Kind(Kind::LocalNode), Match::Kind(Kind::RemoteNode)]),
            label(LabelOwner::Endpoint, "zone")
        ])
    );
    let blocks = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(peer("{networks: [10.0.0.0/8, 'fd00::/8']}"), Match::Cidr(AddressSet::blocks(blocks)));
    assert_eq!(
        peer("{domainNames: [Example.com., '*.example.org']}"),
        Match::OneOf(vec![
            Match::Domain(DomainPattern::Name("example.com".into())),
            Match::Domain(DomainPattern::Under("example.org".into()))
        ])
    );
    assert_eq!(
        peer("{namespaces: {}}, {networks: ['::/0']}"),
        Match::OneOf(vec![
            Match::pods(Match::Anything),
            Match::Cidr(AddressSet::block("::/0".parse().unwrap()))
        ])
    );
}

#[test]
fn each_kind_of_protocol_is_read() {
    let traffic = |protocols: &str| {
        egress(&format!("{{action: Accept, to: [{{namespaces: {{}}}}], protocols: [{protocols}]}}")).traffic
    };
    let ports = |protocol, first, last| TrafficMatch::Ports(protocol, PortSet::range(first, last));
    assert_eq!(traffic("{tcp: {destinationPort: {number: 80}}}"), ports(Protocol::Tcp, 80, 80));
    assert_eq!(
        traffic(
            "{udp: {destinationPort: {range: {start: 1, end: 9}}}}, {sctp: {destinationPort: {number: 7}}}"
        ),
        TrafficMatch::OneOf(vec![ports(Protocol::Udp, 1, 9), ports(Protocol::Sctp, 7, 7)])
    );
    let TrafficMatch::OneOf(named) = traffic("{destinationNamedPort: web}") else { panic!() };
    assert_eq!(named.len(), 3, "the name says nothing of the protocol");
    assert!(named.contains(&TrafficMatch::NamedPort(Protocol::Sctp, "web".into())));
}

#[test]
fn what_the_crd_rejects_is_an_error_with_its_place() {
    let rules = |count: usize| vec!["{action: Deny, to: [{namespaces: {}}]}"; count].join(", ");
    let rule = |rule: &str| spec(&format!("egress: [{rule}]"));
    let peer = |peer: &str| rule(&format!("{{action: Accept, to: [{peer}]}}"));
    let port =
        |port: &str| rule(&format!("{{action: Accept, to: [{{namespaces: {{}}}}], protocols: [{port}]}}"));
    let tcp = |port: &str| destination_port(port);
    let cases = [
        ("{priority: 5, subject: {namespaces: {}}}".to_owned(), "spec.tier is missing"),
        (
            "{tier: admin, priority: 5, subject: {namespaces: {}}}".into(),
            "tier must be one of Admin, Baseline",
        ),
        ("{tier: Admin, subject: {namespaces: {}}}".into(), "spec.priority is missing"),
        ("{tier: Admin, priority: 1001, subject: {namespaces: {}}}".into(), "an integer from 0 to 1000"),
        ("{tier: Admin, priority: -1, subject: {namespaces: {}}}".into(), "an integer from 0 to 1000"),
        ("{tier: Admin, priority: 5}".into(), "spec.subject is missing"),
        ("{tier: Admin, priority: 5, subject: {}}".into(), "just one of namespaces and pods"),
        (
            "{tier: Admin, priority: 5, subject: {namespaces: {}, pods: {podSelector: {}}}}".into(),
            "just one of namespaces and pods",
        ),
        (
            "{tier: Admin, priority: 5, subject: {pods: {namespaceSelector: {}}}}".into(),
            "spec.subject.pods.podSelector is missing",
        ),
        (spec(&format!("egress: [{}]", rules(26))), "egress[25]: there may be at most 25 rules"),
        (rule("{to: [{namespaces: {}}]}"), "action is missing"),
        (rule("{action: Allow, to: [{namespaces: {}}]}"), "action must be one of Accept, Deny, Pass"),
        (rule("{action: Deny}"), "spec.egress[0].to is missing"),
        (rule("{action: Deny, to: []}"), "spec.egress[0].to must have at least one item"),
        (
            rule("{action: Deny, to: [{namespaces: {}}], protocols: []}"),
            "protocols must have at least one item",
        ),
        (
            rule(&format!("{{action: Deny, name: {}, to: [{{namespaces: {{}}}}]}}", "n".repeat(101))),
            "name must be at most 100 characters",
        ),
        (peer(&vec!["{namespaces: {}}"; 26].join(", ")), "to[25]: there may be at most 25 items"),
        (peer("{}"), "to[0] must have just one field, and has 0"),
        (peer("{namespaces: {}, networks: [10.0.0.0/8]}"), "must have just one field, and has 2"),
        (peer("{networks: []}"), "networks must have at least one item"),
        (peer("{networks: [10.0.0.0/8, 10.0.0.0/8]}"), "networks[1]: \"10.0.0.0/8\" is there twice"),
        (peer("{networks: [10.0.0.0]}"), "is not a CIDR block"),
        (peer("{networks: ['::ffff:10.0.0.0/104']}"), "IPv4-mapped"),
        (peer("{networks: [10]}"), "networks[0] must be a string"),
        (peer("{domainNames: ['a.*.com']}"), "must be a DNS name"),
        (peer("{domainNames: ['*']}"), "must be a DNS name"),
        (peer("{domainNames: [com]}"), "must be a DNS name"),
        (peer("{namespaces: {matchExpressions: [{key: a, operator: Nope}]}}"), "operator must be one of"),
        (port("{}"), "protocols[0] must have just one field, and has 0"),
        (port("{tcp: {}}"), "tcp must have a destinationPort"),
        (tcp("{}"), "must have just one of number and range"),
        (tcp("{number: 1, range: {start: 1, end: 2}}"), "must have just one of number and range"),
        (tcp("{number: 0}"), "an integer from 1 to 65535"),
        (tcp("{number: 65536}"), "an integer from 1 to 65535"),
        (tcp("{range: {start: 9, end: 9}}"), "end must be greater than start"),
        (tcp("{range: {start: 9, end: 8}}"), "end must be greater than start"),
        (tcp("{range: {start: 9}}"), "end is missing"),
        (
            rule(
                "{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]}",
            ),
            "has a named port and peers that name no ports",
        ),
    ];
    for (spec, part) in cases {
        let errors = read(&spec).unwrap_err();
        assert_eq!(errors.len(), 1, "{spec}: {errors:?}");
        assert!(errors[0].starts_with("p.yaml:4:") && errors[0].contains(part), "{spec}: {errors:?}");
    }
    let errors = read_in("{name: p, namespace: a}", &spec("")).unwrap_err();
    assert!(errors[0].contains("is cluster-wide, and has metadata.namespace \"a\""), "{errors:?}");
    assert!(read(&spec(&format!("egress: [{}]", rules(25)))).is_ok());
}

fn destination_port(port: &str) -> String {
    spec(&format!(
        "egress: [{{action: Accept, to: [{{namespaces: {{}}}}], protocols: [{{tcp: {{destinationPort: {port}}}}}]}}]"
    ))
}

#[test]
fn an_accept_rule_whose_peer_is_not_understood_may_match_anyone_or_nobody() {
    let rule = egress("{action: Accept, to: [{namespaces: {}}, {serviceAccounts: [x]}]}");
    assert_eq!(rule.action, Action::Allow);
    assert_eq!(doubt(&rule.peer), "the field `spec.egress[0].to[1].serviceAccounts` is not understood");
}

#[test]
fn a_deny_rule_whose_peer_is_not_understood_denies_what_else_it_names_and_perhaps_all() {
    let rule = egress("{action: Deny, to: [{namespaces: {}}, {serviceAccounts: [x]}]}");
    let Match::OneOf(peers) = &rule.peer else { panic!("{rule:?}") };
    assert_eq!((rule.action, &peers[0]), (Action::Deny, &Match::pods(Match::Anything)));
    assert!(doubt(&peers[1]).contains("serviceAccounts"));
    let narrow = egress(
        "{action: Deny, to: [{namespaces: {}}, {x: 1}], protocols: [{tcp: {destinationPort: {number: 1}}}]}",
    );
    assert_eq!((narrow.traffic, doubt(&narrow.peer).contains("to[1].x")), (TrafficMatch::Anything, true));
}

#[test]
fn a_pass_rule_whose_peer_is_not_understood_may_deny() {
    let rule = egress("{action: Pass, to: [{serviceAccounts: [x]}]}");
    assert_eq!(rule.action, Action::Unknown);
    assert!(doubt(&rule.peer).contains("serviceAccounts"));
}

#[test]
fn a_stored_rule_with_a_peer_of_no_field_fails_closed() {
    let stored = "{name: p, uid: 0e6a}";
    let rule = |action: &str| {
        egress_in(stored, &format!("{{action: {action}, to: [{{}}, {{namespaces: {{}}}}], protocols: [{{tcp: {{destinationPort: {{number: 1}}}}}}]}}")).unwrap()
    };
    let accept = rule("Accept");
    assert_eq!((accept.action, accept.peer), (Action::Allow, Match::Nothing));
    for action in ["Deny", "Pass"] {
        let rule = rule(action);
        let expected = (Action::Deny, Match::Anything, TrafficMatch::Anything);
        assert_eq!((rule.action, rule.peer, rule.traffic), expected, "{action}");
        assert!(rule.note.unwrap().contains("fails closed"));
    }
}

#[test]
fn domain_names_outside_accept_rules_mean_nothing_that_is_known() {
    let rule = egress("{action: Deny, to: [{domainNames: [example.com]}]}");
    let Match::OneOf(peers) = &rule.peer else { panic!("{rule:?}") };
    assert!(doubt(&peers[1]).contains("no meaning but in rules that accept"));
}

#[test]
fn a_field_that_is_not_understood_is_a_doubt_just_where_it_matters() {
    let rule = egress("{action: Accept, to: [{namespaces: {}}], schedule: nightly}");
    assert_eq!((rule.action, doubt(&rule.peer).contains("egress[0].schedule")), (Action::Unknown, true));
    let rule = egress("{action: Accept, to: [{namespaces: {}}], protocols: [{icmp: {}}]}");
    let TrafficMatch::Doubt(found) = &rule.traffic else { panic!("{rule:?}") };
    assert!(found.what.contains("protocols[0].icmp"));
    let rule = egress(
        "{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}, sourcePort: {}}}]}",
    );
    let TrafficMatch::All(parts) = &rule.traffic else { panic!("{rule:?}") };
    assert!(matches!(&parts[1], TrafficMatch::Doubt(doubt) if doubt.what.contains("tcp.sourcePort")));
    let policy = read(&spec("mode: audit, ")).unwrap();
    assert_eq!(policy.doubts.len(), 1);
    let subject = "{tier: Admin, priority: 5, subject: {namespaces: {}, except: []}}";
    let Match::All(parts) = read(subject).unwrap().subject else { panic!() };
    assert!(doubt(&parts[1]).contains("spec.subject.except"));
}
