//! What Calico does with its own policies, a case for each rule of the language: YAML in, verdict out.
//!
//! Each case's rule is from the API's comments (`api/pkg/apis/projectcalico/v3`), from Calico's conversion
//! (`libcalico-go/lib/backend/syncersv1/updateprocessors`) or from Felix (`felix/calc`, `felix/rules`) at 3.32.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

#[path = "truth_calico/kubernetes.rs"]
mod kubernetes;
#[path = "truth_calico/peers.rs"]
mod peers;
mod reference;

use mpegflow_policies::evaluate::{Evaluation, Options, Verdict};
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{Input, Limits, ReadOptions, cluster};
use mpegflow_policies::sets::{AddressSet, Protocol};
use mpegflow_policies::truth::Truth;
use reference::{Answer, End, Reference, passes};
use std::net::IpAddr;

/// Who is there: `a` (env prod) with client and server, `b` (env dev) with other, and a pod of IPv6.
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
kind: ServiceAccount
metadata: {name: robot, namespace: b, labels: {team: x}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: a}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: a, labels: {app: server, tier: back}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: six, namespace: a, labels: {app: six}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 'fd00::6'}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: b, labels: {app: other}}
spec: {serviceAccountName: robot, containers: [{name: c, image: i}]}
status: {podIP: 10.0.1.1}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: a}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
";

/// A policy in namespace `a` that selects the server, unless `spec` says otherwise.
fn in_a(name: &str, spec: &str) -> String {
    let selector = if spec.contains("selector:") && spec.starts_with("selector") {
        ""
    } else {
        "selector: app == 'server', "
    };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{{selector}{spec}}}\n---\n"
    )
}

/// A global policy.
fn global(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn tier(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn set(name: &str, labels: &str, nets: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{nets: [{nets}]}}\n---\n"
    )
}

/// Asserts what becomes of packets, each written `a/client a/server TCP 80`, an end being a pod or an address.
fn judge(policies: &[String], expected: &[(&str, Truth)]) {
    judge_under("calico", policies, expected);
}

/// The same under a profile. The evaluator answers, and the plain reference has to agree.
fn judge_under(profile: &str, policies: &[String], expected: &[(&str, Truth)]) {
    let profile: Profile = profile.parse().unwrap();
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", format!("{PODS}{}", policies.concat())).unwrap();
    let cluster = cluster(&input, &ReadOptions::default()).unwrap().cluster;
    let packets: Vec<Packet<'_>> = expected.iter().map(|(packet, _)| self::packet(packet)).collect();
    let outside = packets.iter().flat_map(|packet| packet.ends).filter_map(|end| end.parse::<IpAddr>().ok());
    let options = Options { addresses: outside.map(AddressSet::one).collect(), ..Options::default() };
    let evaluation = Evaluation::new(&cluster, profile, options).unwrap();
    let plain = Reference { cluster: &cluster, profile };
    let pod = |name: &str| {
        let is =
            |pod: &mpegflow_policies::cluster::Pod| format!("{}/{}", pod.namespace, pod.object.name) == name;
        cluster.pods.iter().position(is).unwrap_or_else(|| panic!("no pod {name}"))
    };
    for (Packet { ends: [source, destination], protocol, port }, (text, verdict)) in
        packets.iter().zip(expected)
    {
        let id = |name: &str| match name.parse() {
            Ok(address) => evaluation.address(address).unwrap(),
            Err(_) => evaluation.pod(pod(name)).unwrap(),
        };
        let Verdict { allowed, denied, unknown } = evaluation.verdict(id(source), id(destination));
        let expected = match verdict {
            Truth::Yes => Some(true),
            Truth::No => Some(false),
            Truth::Unknown => None,
        };
        let what = format!("{text}\n{}", policies.concat());
        assert_eq!(passes(&Answer { allowed, denied, unknown }, *protocol, *port), expected, "{what}");
        // The plain one knows no source ports.
        if policies.iter().any(|policy| policy.contains("source: {ports:")) {
            continue;
        }
        let end = |name: &str| name.parse().map_or_else(|_| End::Pod(pod(name)), End::Outside);
        assert_eq!(
            passes(&plain.verdict(&end(source), &end(destination)), *protocol, *port),
            expected,
            "plain: {what}"
        );
    }
}

struct Packet<'a> {
    ends: [&'a str; 2],
    protocol: Protocol,
    port: u16,
}

fn packet(text: &str) -> Packet<'_> {
    let words: Vec<&str> = text.split(' ').collect();
    let protocol = match words[2] {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => Protocol::Icmp,
        number => Protocol::from_number(number.parse().unwrap()),
    };
    // The "port" of ICMP is type × 256 + code.
    let port = words[3].split_once('.').map_or_else(
        || words[3].parse().unwrap(),
        |(kind, code)| kind.parse::<u16>().unwrap() * 256 + code.parse::<u16>().unwrap(),
    );
    Packet { ends: [words[0], words[1]], protocol, port }
}

const YES: Truth = Truth::Yes;
const NO: Truth = Truth::No;
const UNKNOWN: Truth = Truth::Unknown;
/// The packets that most cases ask for.
const WEB: &str = "a/client a/server TCP 80";
const OTHER: &str = "b/other a/server TCP 80";
const OUTSIDE: &str = "192.0.2.1 a/server TCP 80";

// === Tiers ===

#[test]
fn without_policies_the_profile_of_the_namespace_allows_all() {
    judge(&[], &[(WEB, YES), ("192.0.2.1 a/server UDP 53", YES), ("a/client 192.0.2.1 TCP 443", YES)]);
}

#[test]
fn the_tier_of_lower_order_decides_first() {
    let policies = |deny: u16, allow: u16| {
        [
            tier("deny", &format!("order: {deny}")),
            tier("allow", &format!("order: {allow}")),
            global("deny.x", "tier: deny, ingress: [{action: Deny}]"),
            global("allow.x", "tier: allow, ingress: [{action: Allow}]"),
        ]
    };
    judge(&policies(10, 20), &[(WEB, NO)]);
    judge(&policies(20, 10), &[(WEB, YES)]);
    // Equal orders: by name.
    judge(&policies(10, 10), &[(WEB, YES)]);
}

#[test]
fn a_tier_without_order_comes_after_the_default_tier() {
    let late = [tier("late", ""), global("late.x", "tier: late, ingress: [{action: Allow}]")];
    judge(&late, &[(WEB, YES)]);
    let default = in_a("x", "types: [Ingress]");
    judge(&[late[0].clone(), late[1].clone(), default], &[(WEB, NO), ("a/client a/six TCP 80", YES)]);
}

#[test]
fn what_no_rule_of_an_applicable_tier_matches_gets_its_default_action() {
    let policy = global("first.x", "tier: first, ingress: [{action: Allow, protocol: UDP}]");
    let (udp, tcp) = ("a/client a/server UDP 53", WEB);
    judge(&[tier("first", "order: 1"), policy.clone()], &[(udp, YES), (tcp, NO)]);
    judge(&[tier("first", "order: 1, defaultAction: Deny"), policy.clone()], &[(udp, YES), (tcp, NO)]);
    judge(&[tier("first", "order: 1, defaultAction: Pass"), policy.clone()], &[(udp, YES), (tcp, YES)]);
    // Passed on means to the next tier, not allowed.
    let next = in_a("x", "ingress: [{action: Deny}]");
    judge(&[tier("first", "order: 1, defaultAction: Pass"), policy, next], &[(udp, YES), (tcp, NO)]);
}

#[test]
fn a_tier_none_of_whose_policies_applies_is_skipped() {
    let elsewhere = global("first.x", "tier: first, selector: app == 'other', ingress: [{action: Deny}]");
    judge(&[tier("first", "order: 1"), elsewhere], &[(WEB, YES), ("a/client b/other TCP 80", NO)]);
}

#[test]
fn a_tier_is_skipped_for_a_direction_that_none_of_its_policies_speaks_of() {
    let egress = global("first.x", "tier: first, selector: app == 'server', egress: [{action: Deny}]");
    judge(&[tier("first", "order: 1"), egress], &[(WEB, YES), ("a/server a/client TCP 80", NO)]);
}

#[test]
fn pass_skips_the_rest_of_its_tier_and_goes_to_the_next() {
    let first = [
        tier("first", "order: 1"),
        global("first.a", "tier: first, order: 1, ingress: [{action: Pass, protocol: TCP}]"),
        global("first.b", "tier: first, order: 2, ingress: [{action: Deny}]"),
    ];
    judge(&first, &[(WEB, YES), ("a/client a/server UDP 53", NO)]);
    let next =
        in_a("x", "ingress: [{action: Deny, destination: {ports: [80]}, protocol: TCP}, {action: Allow}]");
    let all: Vec<String> = first.into_iter().chain([next]).collect();
    judge(&all, &[(WEB, NO), ("a/client a/server TCP 443", YES), ("a/client a/server UDP 53", NO)]);
}

#[test]
fn pass_in_the_last_tier_goes_to_the_profiles_which_allow() {
    judge(&[in_a("x", "ingress: [{action: Pass}]")], &[(WEB, YES)]);
}

#[test]
fn an_allow_in_an_early_tier_is_final() {
    judge(
        &[
            tier("first", "order: 1"),
            global("first.x", "tier: first, ingress: [{action: Allow, protocol: TCP}]"),
            in_a("x", "ingress: [{action: Deny}]"),
        ],
        &[(WEB, YES), ("a/client a/server UDP 53", NO)],
    );
}

#[test]
fn a_tier_that_is_not_in_the_input_makes_its_subjects_unknown() {
    let policy = global("lost.x", "tier: lost, selector: app == 'server', ingress: [{action: Allow}]");
    // Of the other direction, too: what is not understood of a policy as a whole may be about either.
    let expected = [(WEB, UNKNOWN), ("a/server a/client TCP 80", UNKNOWN), ("b/other a/client TCP 80", YES)];
    judge(&[policy], &expected);
}

#[test]
fn a_tier_that_is_not_understood_makes_unknown_what_it_may_decide() {
    let tier = |more: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: sec}}\nspec: {{order: 5{more}}}\n---\n"
        )
    };
    let policy = global("sec.x", "tier: sec, selector: app == 'server', ingress: [{action: Allow}]");
    judge(&[tier(""), policy.clone()], &[(WEB, YES)]);
    judge(&[tier(", novel: 1"), policy], &[(WEB, UNKNOWN)]);
}

#[test]
fn a_profile_that_is_not_the_one_of_its_namespace_makes_unknown_what_no_tier_decides() {
    let profile = "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: kns.a}\nspec: {ingress: [{action: Deny}]}\n---\n";
    let policy = global("x", "selector: app == 'server', ingress: [{action: Allow, protocol: TCP}]");
    judge(&[profile.to_owned()], &[(WEB, UNKNOWN)]);
    judge(&[profile.to_owned(), policy], &[("a/client a/server TCP 80", UNKNOWN)]);
}

// === Order within a tier ===

#[test]
fn lower_orders_come_first_and_none_comes_last() {
    let policies = |allow: &str, deny: &str| {
        [
            in_a("allow", &format!("{allow} ingress: [{{action: Allow}}]")),
            in_a("deny", &format!("{deny} ingress: [{{action: Deny}}]")),
        ]
    };
    judge(&policies("order: 1,", "order: 2,"), &[(WEB, YES)]);
    judge(&policies("order: 2,", "order: 1,"), &[(WEB, NO)]);
    judge(&policies("order: -1.5,", "order: -1,"), &[(WEB, YES)]);
    judge(&policies("", "order: 1e9,"), &[(WEB, NO)]);
    // Equal: by name.
    judge(&policies("order: 1,", "order: 1,"), &[(WEB, YES)]);
    judge(&policies("", ""), &[(WEB, YES)]);
}

#[test]
fn names_break_ties_before_namespaces_do() {
    judge(
        &[
            global("b", "order: 5, selector: app == 'server', ingress: [{action: Deny}]"),
            in_a("a", "order: 5, ingress: [{action: Allow}]"),
        ],
        &[(WEB, YES)],
    );
}

// === Types ===

#[test]
fn without_types_a_policy_isolates_the_directions_of_its_rules_and_else_ingress() {
    let (to, from) = ("a/client a/server TCP 80", "a/server a/client TCP 80");
    judge(&[in_a("x", "order: 1")], &[(to, NO), (from, YES)]);
    judge(&[in_a("x", "egress: [{action: Allow, protocol: UDP}]")], &[(to, YES), (from, NO)]);
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: UDP}], egress: [{action: Allow, protocol: UDP}]")],
        &[(to, NO), (from, NO)],
    );
    judge(&[in_a("x", "types: [Egress]")], &[(to, YES), (from, NO)]);
    judge(&[in_a("x", "types: [Ingress], egress: [{action: Allow}]")], &[(to, NO), (from, YES)]);
}

// === Rules ===

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = |rules: &str| [in_a("x", &format!("ingress: [{rules}]"))];
    judge(
        &policy("{action: Deny, protocol: TCP}, {action: Allow}"),
        &[(WEB, NO), ("a/client a/server UDP 1", YES)],
    );
    judge(&policy("{action: Allow}, {action: Deny, protocol: TCP}"), &[(WEB, YES)]);
}

#[test]
fn log_decides_nothing() {
    judge(&[in_a("x", "ingress: [{action: Log}, {action: Allow}]")], &[(WEB, YES)]);
    judge(&[in_a("x", "ingress: [{action: Log}]")], &[(WEB, NO)]);
}

#[test]
fn both_ends_must_let_a_packet_pass() {
    let allow = in_a("x", "ingress: [{action: Allow}]");
    let client =
        in_a("c", "selector: app == 'client', egress: [{action: Deny, protocol: TCP}, {action: Allow}]");
    judge(
        &[allow, client],
        &[(WEB, NO), ("a/client a/server UDP 53", YES), ("b/other a/server TCP 80", YES)],
    );
}

#[test]
fn ports_may_be_numbers_ranges_and_names_of_the_destination() {
    let rule = "protocol: TCP, destination: {ports: [80, '8000:8079', http]}";
    judge(
        &[in_a("x", &format!("ingress: [{{action: Allow, {rule}}}]"))],
        &[
            (WEB, YES),
            ("a/client a/server TCP 8000", YES),
            ("a/client a/server TCP 8080", YES),
            ("a/client a/server TCP 8081", NO),
            ("a/client a/server UDP 80", NO),
        ],
    );
    // Nothing outside names a port.
    judge(
        &[in_a("x", "egress: [{action: Allow, protocol: TCP, destination: {ports: [http]}}]")],
        &[("a/server 192.0.2.1 TCP 8080", NO)],
    );
}

#[test]
fn not_ports_and_not_protocol_leave_out() {
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: TCP, destination: {notPorts: ['1:1023', http]}}]")],
        &[(WEB, NO), ("a/client a/server TCP 8080", NO), ("a/client a/server TCP 9000", YES)],
    );
    judge(
        &[in_a("x", "ingress: [{action: Allow, notProtocol: TCP}]")],
        &[(WEB, NO), ("a/client a/server UDP 1", YES), ("a/client a/server 47 47", YES)],
    );
}

#[test]
fn a_source_port_is_the_clients_choice() {
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: TCP, source: {ports: [1024]}}]")],
        &[(WEB, YES), ("a/client a/server UDP 80", NO)],
    );
}

#[test]
fn icmp_is_matched_by_type_and_code() {
    let (ping, unreachable) = ("a/client a/server ICMP 8.0", "a/client a/server ICMP 3.4");
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}]")],
        &[(ping, YES), (unreachable, NO)],
    );
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}}]")],
        &[(ping, NO), (unreachable, YES), ("a/client a/server ICMP 3.3", NO)],
    );
    judge(
        &[in_a("x", "ingress: [{action: Allow, protocol: ICMP, notICMP: {type: 8}}]")],
        &[(ping, NO), (unreachable, YES), (WEB, NO)],
    );
}

#[test]
fn an_ip_version_leaves_out_the_other() {
    let policy = global("x", "ingress: [{action: Deny, ipVersion: 6}, {action: Allow}]");
    judge(&[policy], &[(WEB, YES), ("fd00::1 a/six TCP 80", NO)]);
}

#[test]
fn http_limits_requests_and_no_packets() {
    let policy = in_a("x", "ingress: [{action: Allow, http: {methods: [GET], paths: [{exact: /}]}}]");
    judge(&[policy], &[(WEB, YES)]);
}

// === What is not enforced, and what is not known ===

#[test]
fn staged_policies_do_nothing_and_make_no_tier_count() {
    let staged = |text: String| text.replace("kind: ", "kind: Staged");
    judge(&[staged(in_a("x", "ingress: [{action: Deny}]"))], &[(WEB, YES)]);
    judge(
        &[
            tier("first", "order: 1"),
            staged(global("first.x", "tier: first, ingress: [{action: Allow, protocol: UDP}]")),
        ],
        &[(WEB, YES)],
    );
}

#[test]
fn untracked_and_pre_dnat_policies_never_apply_to_pods() {
    judge(&[global("x", "doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]")], &[(WEB, YES)]);
    judge(&[global("x", "preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]")], &[(WEB, YES)]);
    judge(&[global("x", "applyOnForward: true, ingress: [{action: Deny}]")], &[(WEB, NO)]);
}

#[test]
fn a_field_that_is_not_understood_matters_only_where_its_rule_could() {
    let policy =
        in_a("x", "ingress: [{action: Allow, protocol: UDP, novel: 1}, {action: Allow, protocol: TCP}]");
    judge(&[policy], &[("a/client a/server UDP 1", UNKNOWN), (WEB, YES), ("a/client a/server SCTP 1", NO)]);
    // What changes nothing is understood.
    let hints = in_a(
        "x",
        "performanceHints: [AssumeNeededOnEveryNode], ingress: [{action: Allow, metadata: {annotations: {a: b}}}]",
    );
    judge(&[hints], &[(WEB, YES)]);
}
