//! Where findings must stay silent, and the cases that one example for each does not show.

#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use super::{Lint, findings, not_isolated, sections};
use crate::audit::select::Party;
use crate::cluster::{Cluster, Pod};
use crate::read::{Input, Limits, ReadErrors, ReadOptions, cluster};
use mpegflow_policies_generator::small::{Case, Dialect};

/// Pods `web` (port `http`) and `db` of the namespace `a`.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
";

fn try_read(text: &str) -> Result<Cluster, ReadErrors> {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    Ok(cluster(&input, &ReadOptions::default())?.cluster)
}

fn read(text: &str) -> Cluster {
    try_read(text).unwrap()
}

fn found_in(profile: &str, text: &str) -> Vec<String> {
    let found = findings(&read(text), profile.parse().unwrap());
    found.into_iter().map(|finding| format!("{} {}", finding.id, finding.reason)).collect()
}

/// Ids of what is found beside the two pods.
fn ids(profile: &str, documents: &[&str]) -> Vec<String> {
    let text = std::iter::once(&PODS).chain(documents).copied().collect::<Vec<_>>().join("\n---\n");
    let found = found_in(profile, &text);
    found.iter().map(|finding| finding.split(' ').next().unwrap().to_owned()).collect()
}

fn network_policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n"
    )
}

fn calico(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn cilium(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n"
    )
}

#[test]
fn who_may_be_selected_is_not_nobody() {
    let nothing = [""; 0];
    let with_labels = network_policy("p", "{podSelector: {matchLabels: {x: z}}}");
    assert_eq!(ids("generic", &[&with_labels]), ["MF201"]);
    // The operator will make pods there, with labels that the input does not show.
    let pool =
        "apiVersion: mpegflow.io/v1alpha1\nkind: WorkerPool\nmetadata: {name: w, namespace: a}\nspec: {}\n";
    assert_eq!(ids("generic", &[&with_labels, pool]), nothing);
    // The labels of the namespace are not in the input.
    let by_namespace = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\n\
         spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {x: z}}}}\n";
    assert_eq!(ids("generic", &[by_namespace]), nothing);
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    assert_eq!(ids("generic", &[by_namespace, namespace]), ["MF201"]);
    // A workload's pods get labels of its controller that its template does not have.
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: a}\n\
         spec: {template: {spec: {containers: [{name: c, image: i}]}}}\n";
    let by_job = network_policy("p", "{podSelector: {matchLabels: {job-name: j}}}");
    assert_eq!(ids("calico", &[&by_job, job]), nothing);
    assert_eq!(ids("calico", &[&by_job]), ["MF201"]);
}

#[test]
fn without_pods_in_the_input_nobody_is_selected_and_nothing_is_said() {
    assert_eq!(found_in("generic", &network_policy("p", "{podSelector: {matchLabels: {x: z}}}")), [""; 0]);
}

#[test]
fn host_network_pods_are_no_subjects_where_the_cni_says_so() {
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: a, labels: {app: host}}\nspec: {hostNetwork: true}\n";
    let policy = network_policy("p", "{podSelector: {matchLabels: {app: host}}}");
    assert_eq!(ids("calico", &[&policy, host]), ["MF201"]);
    assert_eq!(ids("generic", &[&policy, host]), [""; 0], "a CNI may police them");
}

#[test]
fn a_peer_in_a_namespace_that_the_input_does_not_show_is_not_nobody() {
    let dns = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: \
         {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: dns}]}]}";
    let policy = network_policy("p", dns);
    assert_eq!(ids("generic", &[&policy]), [""; 0]);
    let whole = "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system}\n";
    assert_eq!(ids("generic", &[&policy, whole]), ["MF208"]);
}

#[test]
fn a_port_name_counts_with_its_protocol() {
    let rule = |protocol: &str| {
        let ports = format!("ports: [{{port: http, protocol: {protocol}}}]");
        network_policy(
            "p",
            &format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}], {ports}}}]}}"),
        )
    };
    assert_eq!(ids("generic", &[&rule("TCP")]), [""; 0]);
    assert_eq!(ids("generic", &[&rule("UDP")]), ["MF213"]);
}

#[test]
fn labels_of_nodes_are_not_dropped() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {kubernetes.io/hostname: n1}}\n";
    let labels = "[{matchLabels: {kubernetes.io/hostname: n1}}]";
    let to =
        |peers: &str| cilium("c", &format!("{{endpointSelector: {{}}, egress: [{{{peers}: {labels}}}]}}"));
    assert_eq!(ids("cilium@1.18", &[node, &to("toNodes")]), ["MF214"], "not modelled, and not dropped");
    assert_eq!(ids("cilium@1.18", &[node, &to("toEndpoints")]), ["MF203"]);
}

#[test]
fn a_rule_with_more_to_say_and_the_end_of_a_list_of_denials_do_not_allow_all() {
    let open = calico("g", "{types: [Ingress], ingress: [{action: Allow}]}");
    assert_eq!(ids("calico", &[&open]), ["MF210"]);
    let but = calico(
        "g",
        "{types: [Ingress], ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}, {action: Allow}]}",
    );
    assert_eq!(ids("calico", &[&but]), [""; 0]);
    let dns = "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '53', protocol: UDP}], rules: {dns: [{matchPattern: '*'}]}}]}]}";
    assert_eq!(ids("cilium", &[&cilium("c", dns)]), [""; 0]);
}

// === order

const ISOLATED: &str = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}";

/// An early allow from TEST-NET-3, beside an isolating NetworkPolicy and another document.
fn undone_beside(other: &str) -> Vec<String> {
    let allow = "{order: 999, selector: app == 'web', types: [Ingress], ingress: [{action: Allow, source: {nets: [203.0.113.0/24]}}]}";
    ids("calico@3.30", &[&network_policy("p", ISOLATED), &calico("early", allow), other])
}

#[test]
fn a_port_name_that_a_pod_gives_twice_is_not_surely_either_port() {
    let early = calico(
        "early",
        "{order: 999, selector: app == 'web', types: [Ingress], ingress: [{action: Allow, protocol: TCP,
          source: {nets: [203.0.113.0/24]}, destination: {ports: [http]}}]}",
    );
    let pods =
        |second: &str| PODS.replace("containerPort: 8080}]}]", &format!("containerPort: 8080}}]}}{second}]"));
    for (second, expected) in [
        ("", true),
        (", {name: d, image: i, ports: [{name: http, containerPort: 8080, protocol: UDP}]}", true),
        (", {name: d, image: i, ports: [{name: http, containerPort: 9090}]}", false),
    ] {
        let text =
            [&pods(second), &network_policy("p", ISOLATED), &early].map(String::as_str).join("\n---\n");
        let found = found_in("calico@3.30", &text);
        assert_eq!(found.iter().any(|finding| finding.starts_with("MF205")), expected, "{second}: {found:?}");
    }
}

#[test]
fn what_would_not_have_passed_or_passes_anyway_is_not_undone() {
    let harmless = network_policy("q", "{podSelector: {matchLabels: {app: db}}}");
    assert_eq!(undone_beside(&harmless), ["MF205"]);
    let anyway = network_policy(
        "q",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}",
    );
    assert_eq!(undone_beside(&anyway), [""; 0], "another NetworkPolicy allows it");
    let denied = calico(
        "a",
        "{order: 5, types: [Ingress], ingress: [{action: Deny, source: {nets: [203.0.113.0/24]}}]}",
    );
    assert_eq!(undone_beside(&denied), ["MF202"], "an earlier policy denies it");
    let tier =
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: first}\nspec: {order: 1}\n---\n";
    let first = |action: &str| {
        let tier = tier.replace("{order: 1}", &format!("{{order: 1, defaultAction: {action}}}"));
        tier + &calico("first.p", "{tier: first, selector: app == 'web', types: [Ingress]}")
    };
    assert_eq!(undone_beside(&first("Deny")), [""; 0], "an earlier tier ends in denial");
    assert_eq!(undone_beside(&first("Pass")), ["MF205"]);
    let unknown = calico("nowhere.p", "{tier: nowhere, selector: app == 'web', types: [Ingress]}");
    assert_eq!(undone_beside(&unknown), ["MF214"], "where an unknown tier stands is not known");
}

#[test]
fn an_allow_of_whom_the_network_policy_allows_undoes_nothing() {
    let same = calico(
        "early",
        "{order: 999, selector: app == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: app == 'db'}}]}",
    );
    assert_eq!(ids("calico@3.30", &[&network_policy("p", ISOLATED), &same]), [""; 0]);
}

#[test]
fn cluster_wide_policies_of_one_priority_that_agree_are_no_tie() {
    let policy = |name: &str, action: &str, app: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{tier: Admin, \
             priority: 1, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, from: [{{pods: {{namespaceSelector: {{}}, \
             podSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}]}}\n"
        )
    };
    let tie = |action: &str, app: &str| {
        ids("calico@3.32", &[&policy("one", "Deny", "db"), &policy("two", action, app)])
    };
    assert_eq!(tie("Accept", "db"), ["MF209"]);
    assert_eq!(tie("Deny", "db"), [""; 0], "both do the same");
    assert_eq!(tie("Accept", "web"), [""; 0], "of different traffic");
}

// === cover

/// Ports of rules that are found to decide nothing, of a NetworkPolicy with rules from one peer.
fn shadowed_of(rules: &[(&str, &str)]) -> Vec<String> {
    let rules: Vec<String> =
        rules.iter().map(|(from, ports)| format!("{{from: [{from}], ports: [{ports}]}}")).collect();
    let spec = format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{}]}}", rules.join(", "));
    let text = format!("{PODS}---\n{}", network_policy("p", &spec));
    let found = found_in("calico", &text).into_iter().filter(|finding| finding.starts_with("MF202"));
    found.map(|finding| finding.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn of_rules_beside_each_other_only_what_one_other_says_alone_is_too_much() {
    let db = "{podSelector: {matchLabels: {app: db}}}";
    let any = "{podSelector: {}}";
    let none = [""; 0];
    assert_eq!(shadowed_of(&[(db, "{port: 80}"), (db, "{port: 81}")]), none);
    assert_eq!(shadowed_of(&[(db, "{port: 80}"), (db, "{port: 80}")]), ["spec.ingress[1]"]);
    assert_eq!(shadowed_of(&[(db, "{port: 80}"), (any, "{port: 80}")]), ["spec.ingress[0]"]);
    assert_eq!(shadowed_of(&[(any, "{port: 80}"), (db, "{port: 80, protocol: UDP}")]), none);
    // Together the first two say what the third does; without it they would not be too much.
    let ring =
        [(db, "{port: 80, endPort: 90}"), (db, "{port: 85, endPort: 95}"), (db, "{port: 80, endPort: 95}")];
    assert_eq!(shadowed_of(&ring), ["spec.ingress[0]", "spec.ingress[1]"]);
}

#[test]
fn in_an_order_several_earlier_rules_may_decide_together_and_later_ones_never() {
    let rule = |action: &str, ports: &str| {
        format!(
            "{{action: {action}, protocol: TCP, source: {{nets: [192.0.2.0/24]}}, destination: {{ports: [{ports}]}}}}"
        )
    };
    let policy =
        |rules: &[String]| calico("g", &format!("{{types: [Ingress], ingress: [{}]}}", rules.join(", ")));
    let (low, high, both) = (rule("Allow", "'1:10'"), rule("Deny", "'11:20'"), rule("Allow", "'1:20'"));
    assert_eq!(ids("calico", &[&policy(&[low.clone(), high.clone(), both.clone()])]), ["MF202"]);
    assert_eq!(
        ids("calico", &[&policy(&[low, both, high])]),
        ["MF202"],
        "the denial is the one that comes too late"
    );
}

#[test]
fn a_denial_of_another_policy_decides_where_its_place_says_so() {
    let deny = cilium("d", "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{}]}]}");
    let allow = cilium(
        "a",
        "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}",
    );
    assert_eq!(ids("cilium", &[&deny, &allow]), ["MF202"]);
    let early = calico(
        "e",
        "{order: 1, types: [Ingress], ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}]}",
    );
    let late = |order: u8| {
        calico(
            "l",
            &format!(
                "{{order: {order}, selector: app == 'web', types: [Ingress], ingress: [{{action: Allow, source: {{nets: [192.0.2.7/32]}}}}]}}"
            ),
        )
    };
    assert_eq!(ids("calico", &[&early, &late(2)]), ["MF202"]);
    assert_eq!(ids("calico", &[&early, &late(1)]), [""; 0], "a tie is broken by name, which may change");
}

// === isolation

fn open_directions(documents: &str) -> Vec<String> {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", format!("{PODS}---\n{documents}")).unwrap();
    let cluster = cluster(&input, &ReadOptions::default()).unwrap().cluster;
    let found = not_isolated(&cluster, "calico@3.30".parse().unwrap(), &[0].into());
    found.into_iter().map(|finding| finding.reason).collect()
}

#[test]
fn each_direction_is_isolated_by_itself() {
    let (ingress, egress) =
        ("no policy isolates Pod a/web for ingress", "no policy isolates Pod a/web for egress");
    assert_eq!(
        open_directions(&network_policy("p", "{podSelector: {matchLabels: {app: db}}}")),
        [ingress, egress]
    );
    assert_eq!(open_directions(&network_policy("p", "{podSelector: {}}")), [egress]);
    let not_understood = network_policy("p", "{podSelector: {}, policyTypes: [Ingress], fooSelector: {}}");
    assert_eq!(open_directions(&not_understood), [""; 0], "nobody knows what the field does");
    let staged = calico("g", "{}").replace("GlobalNetworkPolicy", "StagedGlobalNetworkPolicy");
    assert_eq!(open_directions(&staged), [ingress, egress]);
}

/// How often a pod was left out, of all times that an expression was asked; whoever it means is there, in order.
fn left_out<'a>(cluster: &'a Cluster, profile: &str, text: &str) -> (usize, usize) {
    let lint = Lint::new(cluster, profile.parse().unwrap());
    let (mut left_out, mut all) = (0, 0);
    for policy in &cluster.policies {
        let namespace = policy.object.namespace.as_deref();
        let peers = sections(policy).flat_map(|(_, section)| section.rules.iter().map(|rule| &rule.peer));
        for (what, namespace) in peers.map(|peer| (peer, None)).chain([(&policy.subject, namespace)]) {
            let is_meant = |pod: &'a Pod| {
                namespace.is_none_or(|namespace| namespace == &*pod.namespace)
                    && (lint.select.truth(what, Party::Pod(pod), policy.dialect).may()
                        || lint.select.selects(what, pod, policy.dialect).may())
            };
            let perhaps: Vec<&Pod> = lint.crowd.perhaps(&lint.select, what, namespace).collect();
            let names = |pods: Vec<&'a Pod>| -> Vec<String> {
                pods.into_iter().filter(|pod| is_meant(pod)).map(|pod| pod.object.to_string()).collect()
            };
            let (found, expected) = (names(perhaps.clone()), names(cluster.pods.iter().collect()));
            assert_eq!(found, expected, "{what:?} of {} under {profile}:\n{text}", policy.object);
            all += cluster.pods.len();
            left_out += cluster.pods.len() - perhaps.len();
        }
    }
    (left_out, all)
}

#[test]
fn whoever_an_expression_may_mean_is_asked_and_few_others() {
    let (mut left_out_of_all, mut asked) = (0, 0);
    for seed in 0..150 {
        for (dialect, profiles) in
            [(Dialect::Kubernetes, ["generic", "cilium"]), (Dialect::Calico, ["generic", "calico"])]
        {
            let text = Case::generate(seed, dialect).manifests();
            // A few are not what their API takes.
            let Ok(cluster) = try_read(&text) else { continue };
            for profile in profiles {
                let (left, all) = left_out(&cluster, profile, &text);
                left_out_of_all += left;
                asked += all;
            }
        }
    }
    assert!(asked > 5_000 && left_out_of_all * 3 > asked, "{left_out_of_all} of {asked}");
}

#[test]
fn templates_and_pods_on_their_nodes_are_asked_too() {
    let text = [
        PODS,
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: ds, namespace: b}, spec: {selector: {matchLabels: {app: ds}},
          template: {metadata: {labels: {app: ds}}, spec: {hostNetwork: true, containers: [{name: c, image: i}]}}}}",
        "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: set, namespace: a}, spec: {serviceName: s,
          selector: {matchLabels: {app: set}}, template: {metadata: {labels: {app: set}}, spec: {containers: [{name: c, image: i}]}}}}",
        &network_policy("first", "{podSelector: {matchLabels: {apps.kubernetes.io/pod-index: '0'}}, ingress: [{from: [
          {podSelector: {matchExpressions: [{key: controller-revision-hash, operator: In, values: [x, z]}]}},
          {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}},
          {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [a, b]}]}},
          {namespaceSelector: {matchLabels: {team: x}}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]}"),
        &calico("second", "{selector: 'app == \"ds\" || has(app) && !(app in {\"web\"})', egress: [{action: Allow, destination: {selector: 'app starts with \"d\"'}}]}"),
        &cilium("third", "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEntities: [host, remote-node, world]}]}"),
    ]
    .join("\n---\n");
    for profile in ["generic", "cilium", "calico", "aws-vpc"] {
        let (left, _) = left_out(&read(&text), profile, &text);
        assert!(left > 0);
    }
}
