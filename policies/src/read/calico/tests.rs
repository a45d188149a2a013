#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use crate::cluster::Cluster;
use crate::matching::{Kind, LabelOwner, Match, Test, TrafficMatch};
use crate::policy::{Action, Place, Policy};
use crate::read::{Input, Limits, ReadErrors, ReadOptions, cluster};
use crate::sets::{AddressSet, Cidr, Family, PortSet, Protocol};
use crate::truth::Truth;

mod refusals;

fn try_read(text: &str) -> Result<Cluster, ReadErrors> {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    cluster(&input, &ReadOptions::default()).map(|reading| reading.cluster)
}

fn policies(text: &str) -> Vec<Policy> {
    try_read(text).unwrap().policies
}

fn namespaced(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {{{spec}}}\n---\n"
    )
}

fn global(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: g}}\nspec: {{{spec}}}\n---\n"
    )
}

/// The peer and the traffic of the only rule of egress.
fn egress(text: &str) -> (Match, TrafficMatch) {
    let policies = policies(text);
    assert_eq!(policies.len(), 1, "{policies:?}");
    let rules = &policies[0].egress.as_ref().unwrap().rules;
    assert_eq!(rules.len(), 1, "{rules:?}");
    (rules[0].peer.clone(), rules[0].traffic.clone())
}

fn error(text: &str) -> String {
    try_read(text).unwrap_err().to_string()
}

fn own(key: &str, value: &str) -> Match {
    Match::label(LabelOwner::Endpoint, key, value)
}

fn in_a() -> Match {
    Match::Namespace(Test::Is("a".into()))
}

fn pods(parts: impl IntoIterator<Item = Match>) -> Match {
    Match::All([Match::Kind(Kind::Pod)].into_iter().chain(parts).collect())
}

fn cidr(text: &str) -> AddressSet {
    AddressSet::block(text.parse::<Cidr>().unwrap())
}

const SETS: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: s, namespace: a, labels: {role: db}}
spec: {nets: [10.1.0.0/16]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: s, namespace: b, labels: {role: db}}
spec: {nets: [10.2.0.0/16]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s, labels: {role: db}}
spec: {nets: [10.3.0.7, 10.3.1.1/24]}
---
";

#[test]
fn a_policy_without_types_speaks_of_the_directions_of_its_rules() {
    let which = |spec: &str| {
        let policy = policies(&namespaced(spec)).remove(0);
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(which(""), (true, false));
    assert_eq!(which("ingress: [{action: Allow}]"), (true, false));
    assert_eq!(which("egress: [{action: Allow}]"), (false, true));
    assert_eq!(which("egress: [{action: Allow}], ingress: [{action: Deny}]"), (true, true));
    assert_eq!(which("types: [], egress: [{action: Allow}]"), (false, true));
    assert_eq!(which("types: [Egress], ingress: [{action: Allow}]"), (false, true));
    assert_eq!(which("types: [Ingress, Egress]"), (true, true));
    // Below the API nothing is filled in, and Felix takes both.
    let stored = namespaced("").replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
    let policy = policies(&stored).remove(0);
    assert!(policy.ingress.is_some() && policy.egress.is_some());
    assert_eq!(policy.object.to_string(), "NetworkPolicy.projectcalico.org a/p");
}

#[test]
fn tier_order_and_stored_name_are_read() {
    let text = "
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: security.x}
spec: {tier: security, order: 12.5, types: [Ingress]}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: default.y}
spec: {types: [Ingress]}
---
apiVersion: crd.projectcalico.org/v1
kind: Tier
metadata: {name: security}
spec: {order: 500, defaultAction: Pass}
";
    let read = try_read(text).unwrap();
    let names: Vec<(&str, &Place)> =
        read.policies.iter().map(|policy| (&*policy.object.name, &policy.place)).collect();
    assert_eq!(
        names,
        [
            ("security.x", &Place::Calico { tier: "security".into(), order: Some(12.5) }),
            ("y", &Place::Calico { tier: "default".into(), order: None })
        ]
    );
    let tier = &read.tiers["security"];
    assert_eq!((tier.order, tier.default_pass), (Some(500.0), true));
    assert!(read.policies[0].doubts.is_empty());
    let alone = policies(&global("tier: security, types: [Ingress]"));
    assert_eq!(
        alone[0].doubts[0].to_string(),
        "the tier security is not in the input: its order and default action are not known (in.yaml:1:1)"
    );
}

#[test]
fn a_subject_is_namespace_selector_and_account_together() {
    let subject = |text: String| policies(&text).remove(0).subject;
    assert_eq!(subject(namespaced("")), Match::pods(in_a()));
    assert_eq!(
        subject(namespaced("selector: app == 'x', serviceAccountSelector: team == 'y'")),
        pods([own("app", "x"), in_a(), Match::label(LabelOwner::ServiceAccount, "team", "y")])
    );
    assert_eq!(subject(global("")), Match::Kind(Kind::Pod));
    assert_eq!(
        subject(global("namespaceSelector: \"projectcalico.org/name == 'b'\", selector: all()")),
        Match::pods(Match::Namespace(Test::Is("b".into())))
    );
    assert_eq!(
        subject(global("selector: \"projectcalico.org/orchestrator == 'k8s' && !has(x)\"")),
        Match::pods(
            Match::Label { owner: LabelOwner::Endpoint, key: "x".into(), test: Test::Exists }.negate()
        )
    );
}

#[test]
fn a_selector_takes_in_the_network_sets_of_its_scope() {
    let rule = |destination: &str| format!("egress: [{{action: Allow, destination: {{{destination}}}}}]");
    let of = |text: String| egress(&format!("{SETS}{text}")).0;
    let global_set = cidr("10.3.0.7/32").union(&cidr("10.3.1.0/24"));
    // In a policy of a namespace: that namespace's.
    assert_eq!(
        of(namespaced(&rule("selector: role == 'db'"))),
        Match::OneOf(vec![pods([in_a(), own("role", "db")]), Match::Cidr(cidr("10.1.0.0/16"))])
    );
    // all() of a namespaceSelector: every namespace, and no global set.
    assert_eq!(
        of(namespaced(&rule("selector: role == 'db', namespaceSelector: all()"))),
        Match::OneOf(vec![
            pods([own("role", "db")]),
            Match::Cidr(cidr("10.1.0.0/16").union(&cidr("10.2.0.0/16")))
        ])
    );
    // global(): sets in no namespace, and no pod.
    assert_eq!(
        of(namespaced(&rule("selector: role == 'db', namespaceSelector: global()"))),
        Match::Cidr(global_set.clone())
    );
    // In a global policy: all there are.
    assert_eq!(
        of(global(&rule("selector: role == 'db'"))),
        Match::OneOf(vec![
            pods([own("role", "db")]),
            Match::Cidr(cidr("10.1.0.0/16").union(&cidr("10.2.0.0/16")).union(&global_set))
        ])
    );
    // The namespace's name is known without the namespace, its other labels are not.
    assert_eq!(
        of(global(&rule("selector: role == 'db', namespaceSelector: \"projectcalico.org/name == 'b'\""))),
        Match::OneOf(vec![
            pods([Match::Namespace(Test::Is("b".into())), own("role", "db")]),
            Match::Cidr(cidr("10.2.0.0/16"))
        ])
    );
    let unsure = of(global(&rule("selector: role == 'db', namespaceSelector: env == 'p'")));
    assert!(format!("{unsure:?}").contains("hangs on labels of a namespace that is not in the input"));
}

#[test]
fn nets_are_not_limited_to_the_namespace_and_not_selector_is() {
    let rule = |destination: &str| format!("egress: [{{action: Allow, destination: {{{destination}}}}}]");
    assert_eq!(egress(&namespaced(&rule("nets: [10.0.0.0/8]"))).0, Match::Cidr(cidr("10.0.0.0/8")));
    // In a namespaced policy even notSelector alone limits the rule to the namespace…
    assert_eq!(
        egress(&namespaced(&rule("notSelector: has(x)"))).0,
        pods([
            in_a(),
            Match::Label { owner: LabelOwner::Endpoint, key: "x".into(), test: Test::Exists }.negate()
        ])
    );
    // …in a global one it also matches what is no endpoint of Calico, which `selector: "!has(x)"` does not.
    let with_x = Match::Label { owner: LabelOwner::Endpoint, key: "x".into(), test: Test::Exists };
    assert_eq!(egress(&global(&rule("notSelector: has(x)"))).0, Match::pods(with_x.clone()).negate());
    assert_eq!(egress(&global(&rule("selector: \"!has(x)\""))).0, Match::pods(with_x.clone().negate()));
    assert_eq!(
        egress(&global(&rule("selector: has(y), notSelector: has(x)"))).0,
        pods([
            Match::Label { owner: LabelOwner::Endpoint, key: "y".into(), test: Test::Exists },
            with_x.negate()
        ])
    );
}

#[test]
fn not_nets_of_one_family_leave_out_the_other() {
    assert_eq!(
        egress(&global("egress: [{action: Allow, destination: {notNets: [10.0.0.0/8]}}]")).0,
        Match::All(vec![
            Match::Cidr(cidr("10.0.0.0/8")).negate(),
            Match::Address(AddressSet::family(Family::V4))
        ])
    );
    assert_eq!(
        egress(&global("egress: [{action: Allow, ipVersion: 6}]")).0,
        Match::Address(AddressSet::family(Family::V6))
    );
}

#[test]
fn protocols_ports_and_icmp_become_traffic() {
    let of = |rule: &str| egress(&global(&format!("egress: [{{action: Allow, {rule}}}]"))).1;
    let tcp = || TrafficMatch::Protocol(Protocol::Tcp);
    let ports = |ports: &[(u16, u16)]| TrafficMatch::Ports(Protocol::Tcp, PortSet::of(ports.iter().copied()));
    assert_eq!(of("protocol: TCP"), tcp());
    assert_eq!(of("protocol: 6"), tcp());
    assert_eq!(of("protocol: UDPLite"), TrafficMatch::Protocol(Protocol::Other(136)));
    assert_eq!(of("notProtocol: UDP"), TrafficMatch::Protocol(Protocol::Udp).negate());
    assert_eq!(
        of("protocol: TCP, destination: {ports: [80, '443', '8000:9000', http], notPorts: [8080]}"),
        TrafficMatch::All(vec![
            tcp(),
            TrafficMatch::OneOf(vec![
                ports(&[(80, 80), (443, 443), (8000, 9000)]),
                TrafficMatch::NamedPort(Protocol::Tcp, "http".into())
            ]),
            TrafficMatch::OneOf(vec![ports(&[(8080, 8080)])]).negate()
        ])
    );
    assert_eq!(
        of("protocol: TCP, source: {ports: [1]}"),
        TrafficMatch::All(vec![
            tcp(),
            TrafficMatch::OneOf(vec![TrafficMatch::SourcePorts(Protocol::Tcp, PortSet::one(1))])
        ])
    );
    let ping = TrafficMatch::Ports(Protocol::Icmp, PortSet::range(8 << 8, (8 << 8) | 255));
    let icmp = || TrafficMatch::Protocol(Protocol::Icmp);
    assert_eq!(of("protocol: ICMP, icmp: {type: 8}"), TrafficMatch::All(vec![icmp(), ping.clone()]));
    assert_eq!(of("protocol: ICMP, notICMP: {type: 8}"), TrafficMatch::All(vec![icmp(), ping.negate()]));
    assert_eq!(
        of("protocol: ICMP, icmp: {type: 3, code: 4}"),
        TrafficMatch::All(vec![icmp(), TrafficMatch::Ports(Protocol::Icmp, PortSet::one((3 << 8) | 4))])
    );
    assert!(matches!(of("notICMP: {type: 8}"), TrafficMatch::Doubt(_)));
}

#[test]
fn log_goes_on_to_the_next_rule_and_the_others_keep_their_order() {
    let read = policies(&global("egress: [{action: Deny, protocol: UDP}, {action: Log}, {action: Pass}]"));
    let rules = &read[0].egress.as_ref().unwrap().rules;
    let seen: Vec<(&str, Action)> = rules.iter().map(|rule| (&*rule.path, rule.action)).collect();
    assert_eq!(seen, [("spec.egress[0]", Action::Deny), ("spec.egress[2]", Action::Pass)]);
}

#[test]
fn a_rule_that_narrows_the_subject_becomes_a_policy_of_its_own_in_the_same_place() {
    let read = policies(&namespaced(
        "ingress: [{action: Allow, protocol: TCP}, {action: Deny, destination: {selector: has(x)}}, {action: Allow}]",
    ));
    let with_x = Match::Label { owner: LabelOwner::Endpoint, key: "x".into(), test: Test::Exists };
    let seen: Vec<(Match, Vec<&str>)> = read
        .iter()
        .map(|policy| {
            let rules = &policy.ingress.as_ref().unwrap().rules;
            (policy.subject.clone(), rules.iter().map(|rule| &*rule.path).collect())
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Match::pods(in_a()), vec!["spec.ingress[0]"]),
            (pods([in_a(), with_x]), vec!["spec.ingress[1]"]),
            (Match::pods(in_a()), vec!["spec.ingress[2]"])
        ]
    );
    assert!(read.iter().all(|policy| policy.place == read[0].place && policy.object == read[0].object));
    assert!(read.iter().all(|policy| policy.ingress.as_ref().unwrap().isolates == Truth::Yes));
}

#[test]
fn a_service_is_its_backends_and_their_ports() {
    let policy = namespaced("egress: [{action: Allow, destination: {services: {name: s}}}]");
    let service = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {selector: {app: x}, ports: [{port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, targetPort: dns}]}
---
";
    assert_eq!(
        egress(&format!("{service}{policy}")),
        (
            pods([in_a(), own("app", "x")]),
            TrafficMatch::OneOf(vec![
                TrafficMatch::Ports(Protocol::Tcp, PortSet::one(8080)),
                TrafficMatch::NamedPort(Protocol::Udp, "dns".into())
            ])
        )
    );
    let endpoints = "
apiVersion: v1
kind: Endpoints
metadata: {name: s, namespace: a}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 8443}]}]
---
";
    assert_eq!(
        egress(&format!("{endpoints}{policy}")),
        (
            Match::Address(cidr("192.0.2.7/32")),
            TrafficMatch::OneOf(vec![TrafficMatch::Ports(Protocol::Tcp, PortSet::one(8443))])
        )
    );
    let Match::Doubt(doubt) = egress(&policy).0 else { panic!("a Service that is not there is a doubt") };
    assert_eq!(doubt.to_string(), "Service a/s is not in the input (in.yaml:4:57)");
    let kubernetes =
        global("egress: [{action: Allow, destination: {services: {name: kubernetes, namespace: default}}}]");
    assert_eq!(egress(&kubernetes).0, Match::KubeApiServer);
}

#[test]
fn accounts_are_matched_by_name_and_by_label() {
    assert_eq!(
        egress(&global("egress: [{action: Allow, destination: {serviceAccounts: {names: [x, z], selector: team == 'z'}}}]")).0,
        pods([
            Match::label(LabelOwner::ServiceAccount, "team", "z"),
            Match::ServiceAccount(Test::In(vec!["x".into(), "z".into()]))
        ])
    );
}

#[test]
fn a_pod_that_carries_an_inherited_label_itself_wins_over_its_namespace() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: q, namespace: b, labels: {pcns.env: prod}}
spec: {containers: [{name: c, image: i}]}
---
";
    let policy = global("egress: [{action: Allow, destination: {namespaceSelector: env == 'prod'}}]");
    let inherited = Match::label(LabelOwner::Namespace, "env", "prod");
    assert_eq!(egress(&policy).0, Match::pods(inherited.clone()));
    let has = Match::Label { owner: LabelOwner::Endpoint, key: "pcns.env".into(), test: Test::Exists };
    assert_eq!(
        egress(&format!("{pod}{policy}")).0,
        Match::pods(Match::OneOf(vec![own("pcns.env", "prod"), Match::All(vec![inherited, has.negate()])]))
    );
}

#[test]
fn what_never_touches_pods_is_inert_and_says_why() {
    let inert = |text: &str| policies(text).remove(0).inert.map(|why| why.to_string());
    let staged = "it is staged: Calico reports what it would do, and does nothing";
    assert_eq!(inert(&global("types: [Ingress]")), None);
    assert_eq!(inert(&global("applyOnForward: true, types: [Ingress]")), None);
    assert_eq!(
        inert(&global("applyOnForward: true, doNotTrack: true")).unwrap(),
        "a doNotTrack or preDNAT policy applies to host endpoints only, never to pods"
    );
    assert_eq!(inert(&global("stagedAction: Set").replace("Global", "StagedGlobal")).unwrap(), staged);
    assert_eq!(inert(&namespaced("").replace("NetworkPolicy", "StagedNetworkPolicy")).unwrap(), staged);
    let kubernetes = namespaced("podSelector: {matchLabels: {app: x}}, policyTypes: [Ingress]")
        .replace("NetworkPolicy", "StagedKubernetesNetworkPolicy");
    assert_eq!(inert(&kubernetes).unwrap(), staged);
    assert_eq!(policies(&kubernetes)[0].subject, pods([in_a(), own("app", "x")]));
}

#[test]
fn a_field_that_is_not_understood_is_a_doubt_where_it_stands() {
    let rule =
        egress(&global("egress: [{action: Allow, destination: {nets: [10.0.0.0/8], domains: [a.example]}}]"));
    let Match::All(parts) = rule.0 else { panic!("{:?}", rule.0) };
    assert_eq!(parts[0], Match::Cidr(cidr("10.0.0.0/8")));
    let Match::Doubt(doubt) = &parts[1] else { panic!("{parts:?}") };
    assert_eq!(&*doubt.what, "the field `spec.egress[0].destination.domains` is not understood");
    let policy = policies(&global("types: [Ingress], novel: true")).remove(0);
    assert_eq!(&*policy.doubts[0].what, "the field `spec.novel` is not understood");
    let set = SETS.replace("nets: [10.1.0.0/16]", "allowedEgressDomains: [a.example]");
    let peer = egress(&format!(
        "{set}{}",
        namespaced("egress: [{action: Allow, destination: {selector: has(role)}}]")
    ));
    assert!(format!("{:?}", peer.0).contains("spec.allowedEgressDomains"), "{:?}", peer.0);
}

#[test]
fn a_stored_set_has_its_labels_in_an_annotation() {
    let set = "
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkSet
metadata: {name: s, annotations: {projectcalico.org/metadata: '{\"labels\":{\"role\":\"db\"}}'}}
spec: {nets: [10.3.0.0/16]}
---
";
    let policy = global("egress: [{action: Allow, destination: {selector: role == 'db'}}]");
    assert_eq!(
        egress(&format!("{set}{policy}")).0,
        Match::OneOf(vec![Match::pods(own("role", "db")), Match::Cidr(cidr("10.3.0.0/16"))])
    );
}

#[test]
fn a_profile_of_a_namespace_that_does_not_allow_all_is_a_doubt() {
    let profile = |name: &str, spec: &str| {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        );
        try_read(&text).unwrap().policies.iter().map(|policy| policy.doubts.len()).sum::<usize>()
    };
    assert_eq!(
        profile("kns.a", "ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {a: b}"),
        0
    );
    assert_eq!(profile("kns.a", "ingress: [{action: Allow}], egress: [{action: Allow, protocol: TCP}]"), 1);
    assert_eq!(profile("ksa.a.x", ""), 0);
    assert_eq!(profile("ksa.a.x", "egress: [{action: Deny}]"), 1);
    assert_eq!(profile("hosts", "egress: [{action: Deny}]"), 0);
}

#[test]
fn a_host_endpoint_is_remembered_and_is_a_peer_by_its_addresses() {
    let host = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: node}}
spec: {node: n1, interfaceName: eth0, expectedIPs: [192.0.2.1]}
---
";
    let policy = namespaced(
        "egress: [{action: Allow, destination: {selector: role == 'node', namespaceSelector: global()}}]",
    );
    let text = format!("{host}{policy}");
    assert_eq!(egress(&text).0, Match::Cidr(cidr("192.0.2.1/32")));
    assert_eq!(try_read(&text).unwrap().host_endpoints[0].to_string(), "HostEndpoint h");
}
