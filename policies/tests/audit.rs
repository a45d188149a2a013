//! The audit from manifests to verdict: what is emitted is proved, and each way to break it is found with a packet.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

mod support;

use mpegflow_policies::audit::baseline::Baseline;
use mpegflow_policies::audit::intent::{self, Intent};
use mpegflow_policies::audit::{Outcome, Request, Severity, diff, explain, flows, run};
use mpegflow_policies::cluster::{Cluster, Labels};
use mpegflow_policies::emit::{BrokerPeer, DnsPeer, PoolIntent, StoragePeer, to_yaml};
use mpegflow_policies::policy::Dialect;
use mpegflow_policies::profile::Profile;
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::truth::Truth;
use std::sync::Arc;
use support::request;

/// A pool, the broker, DNS, another tenant, a node with the API server on it.
const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: media, labels: {mpegflow.io/tenant: acme}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {mpegflow.io/tenant: evil}}
---
apiVersion: v1
kind: Namespace
metadata: {name: mpegflow}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: media}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {node-role.kubernetes.io/control-plane: ''}}
spec: {podCIDR: 10.244.0.0/24}
status: {addresses: [{type: InternalIP, address: 10.200.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDR: 10.244.1.0/24}
status: {addresses: [{type: InternalIP, address: 10.200.0.2}]}
---
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 443, targetPort: 6443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [10.200.0.1]}]
ports: [{name: https, port: 6443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pool-a, namespace: media}
spec:
  template:
    metadata: {labels: {mpegflow.io/pool: pool-a}}
    spec:
      serviceAccountName: worker
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: worker
        image: worker
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
---
apiVersion: v1
kind: Pod
metadata: {name: broker-0, namespace: mpegflow, labels: {app.kubernetes.io/name: mpegflow-broker}}
spec: {nodeName: n2, containers: [{name: b, image: b, ports: [{name: worker-api, containerPort: 8443}]}]}
status: {podIP: 10.244.1.10}
---
apiVersion: v1
kind: Pod
metadata: {name: dns-0, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {nodeName: n2, containers: [{name: d, image: d}]}
status: {podIP: 10.244.1.53}
---
apiVersion: v1
kind: Pod
metadata: {name: theirs, namespace: other, labels: {app: x}}
spec: {nodeName: n1, containers: [{name: d, image: d}]}
status: {podIP: 10.244.0.66}
---
";

fn read(text: &str) -> Cluster {
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    match read::cluster(&input, &ReadOptions::default()) {
        Ok(reading) => reading.cluster,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn pool() -> PoolIntent {
    PoolIntent {
        name: "pool-a".into(),
        namespace: "media".into(),
        pods: labels(&[("mpegflow.io/pool", "pool-a")]),
        labels: Labels::new(),
        broker: BrokerPeer {
            namespace: "mpegflow".into(),
            pods: labels(&[("app.kubernetes.io/name", "mpegflow-broker")]),
            port: 8443,
            service: None,
        },
        storage: Vec::new(),
        dns: None,
    }
}

fn emitted(pool: &PoolIntent, dialects: &[Dialect]) -> String {
    let policies = dialects.iter().flat_map(|dialect| pool.policies(*dialect).unwrap());
    policies.map(|policy| format!("{}---\n", to_yaml(&policy))).collect()
}

fn audit_with(cluster: &Cluster, profile: &str, complete: bool, intents: Vec<Intent>) -> Outcome {
    run(&Request { complete, ..request(cluster, profile, intents) }).unwrap()
}

fn audit(policies: &str, profile: &str) -> Outcome {
    let cluster = read(&format!("{CLUSTER}{policies}"));
    audit_with(&cluster, profile, true, intent::worker_pools(&cluster))
}

fn errors(outcome: &Outcome) -> Vec<&'static str> {
    let certain = outcome.findings.iter().filter(|finding| finding.certain == Truth::Yes);
    let mut ids: Vec<_> =
        certain.map(|finding| finding.id).filter(|id| *id < "MF2" || *id >= "MF4").collect();
    ids.dedup();
    ids
}

fn intents(text: &str) -> Vec<Intent> {
    let text = format!("apiVersion: mpegflow.io/v1alpha1\nkind: NetworkIntents\nintents:\n{text}");
    let mut input = Input::new(Limits::default());
    input.add("intents.yaml", text).unwrap();
    intent::read(&input).unwrap()
}

#[test]
fn what_is_emitted_is_proved_under_each_profile_that_lets_policies_decide() {
    let cases: [(&str, &[Dialect]); 6] = [
        // With or without enable-sctp, isolation stops SCTP.
        ("cilium", &[Dialect::NetworkPolicy]),
        ("calico", &[Dialect::NetworkPolicy]),
        ("calico", &[Dialect::Calico]),
        ("calico", &[Dialect::NetworkPolicy, Dialect::Calico, Dialect::ClusterNetworkPolicy]),
        ("cilium", &[Dialect::Cilium]),
        ("cilium@1.15", &[Dialect::NetworkPolicy, Dialect::Cilium]),
    ];
    for (profile, dialects) in cases {
        let outcome = audit(&emitted(&pool(), dialects), profile);
        let why: Vec<String> = outcome.findings.iter().map(|f| format!("{} {}", f.id, f.reason)).collect();
        assert_eq!(
            outcome.proved,
            Truth::Yes,
            "{profile} {dialects:?}: {}\n{why:#?}\n{:#?}",
            outcome.sentence,
            outcome.intents
        );
    }
}

#[test]
fn what_no_policy_decides_is_said_and_nothing_else() {
    // No NetworkPolicy keeps a pod from its own node there, nor stops what is neither TCP nor UDP for sure.
    for profile in ["generic", "aws-vpc"] {
        let outcome = audit(&emitted(&pool(), &[Dialect::NetworkPolicy]), profile);
        let certain: Vec<&str> = errors(&outcome);
        assert_ne!(outcome.proved, Truth::Yes, "{profile}");
        assert!(certain.iter().all(|id| ["MF103", "MF104", "MF105"].contains(id)), "{profile}: {certain:?}");
        for finding in
            outcome.findings.iter().filter(|finding| finding.certain == Truth::Yes && finding.id < "MF112")
        {
            assert!(finding.reason.contains("the pod's own node ("), "{profile}: {}", finding.reason);
        }
    }
}

#[test]
fn without_policies_each_kind_of_reach_is_found_with_a_packet() {
    let outcome = audit("", "calico");
    assert_eq!(outcome.proved, Truth::No);
    assert!(outcome.sentence.starts_with("Violated: Deployment media/pool-a"), "{}", outcome.sentence);
    let ids = errors(&outcome);
    for id in ["MF101", "MF102", "MF103", "MF104", "MF105", "MF106", "MF107", "MF108", "MF109"] {
        assert!(ids.contains(&id), "{id} is missing from {ids:?}");
    }
    for finding in outcome.findings.iter().filter(|finding| finding.id.starts_with("MF10")) {
        assert!(finding.witness.is_some(), "{} has no packet", finding.id);
    }
    assert_eq!(outcome.exit_code(), 1);
}

#[test]
fn an_input_that_may_not_be_all_proves_nothing() {
    let cluster = read(&format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy])));
    let outcome = audit_with(&cluster, "calico", false, intent::worker_pools(&cluster));
    assert_eq!((outcome.proved, outcome.exit_code()), (Truth::Unknown, 2));
    assert!(outcome.intents[0].doubts.iter().any(|doubt| doubt.what.contains("--assume-complete")));
}

#[test]
fn each_hole_in_a_policy_is_found_as_what_it_is() {
    let policy = |egress: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: hole, namespace: media}}\nspec:\n  podSelector: {{matchLabels: {{mpegflow.io/pool: pool-a}}}}\n  policyTypes: [Egress]\n  egress:\n  - {egress}\n---\n"
        )
    };
    let cases = [
        ("{to: [{ipBlock: {cidr: 169.254.0.0/16}}]}", "MF102"),
        ("{to: [{ipBlock: {cidr: 10.200.0.1/32}}], ports: [{port: 6443}]}", "MF103"),
        ("{to: [{ipBlock: {cidr: 10.200.0.0/24}}], ports: [{port: 10250}]}", "MF104"),
        ("{ports: [{port: 53, protocol: UDP}]}", "MF106"),
        ("{to: [{namespaceSelector: {matchLabels: {mpegflow.io/tenant: evil}}}]}", "MF107"),
        ("{to: [{ipBlock: {cidr: 8.8.8.8/32}}]}", "MF108"),
        ("{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}", "MF101"),
    ];
    let closed = emitted(&pool(), &[Dialect::NetworkPolicy]);
    for (egress, id) in cases {
        let outcome = audit(&format!("{closed}{}", policy(egress)), "calico");
        assert!(errors(&outcome).contains(&id), "{egress}: {:?}", errors(&outcome));
        let finding = outcome.findings.iter().find(|finding| finding.id == id).unwrap();
        let rules = &finding.witness.as_ref().unwrap().rules;
        let named =
            rules.iter().any(|rule| rule.policy.as_ref().is_some_and(|policy| &*policy.name == "hole"));
        assert!(named, "{egress}: the packet does not name the rule: {rules:#?}");
        assert_eq!(outcome.proved, Truth::No);
    }
}

#[test]
fn a_rule_that_admits_pods_that_do_not_exist_yet_is_a_warning_that_does_not_break_the_proof() {
    let hole = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: hole, namespace: media}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress:\n  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: later}}}]\n";
    let outcome = audit(&format!("{}{hole}", emitted(&pool(), &[Dialect::NetworkPolicy])), "calico");
    assert_eq!(outcome.proved, Truth::Yes, "{}", outcome.sentence);
    assert!(outcome.findings.iter().any(|finding| finding.id == "MF112"), "{:#?}", outcome.findings);
}

#[test]
fn storage_and_dns_of_a_presigned_pool_are_proved_as_asked() {
    let mut pool = pool();
    pool.storage =
        vec![StoragePeer { blocks: vec!["192.0.2.0/28".parse().unwrap()], domain: None, port: 443 }];
    pool.dns =
        Some(DnsPeer { namespace: "kube-system".into(), pods: labels(&[("k8s-app", "kube-dns")]), port: 53 });
    let asked = intents(
        "- name: presigned\n  from: {namespace: media, pods: {mpegflow.io/pool: pool-a}}\n  must:\n  - {namespace: mpegflow, pods: {app.kubernetes.io/name: mpegflow-broker}, ports: [worker-api]}\n  - {cidr: 192.0.2.0/28, ports: [443]}\n  - {namespace: kube-system, pods: {k8s-app: kube-dns}, ports: [53/UDP, 53/TCP]}\n  may: []\n  must-not: [{group: metadata}]\n  reached-by: []\n",
    );
    for (profile, dialect) in
        [("calico", Dialect::NetworkPolicy), ("calico", Dialect::Calico), ("cilium", Dialect::Cilium)]
    {
        let cluster = read(&format!("{CLUSTER}{}", emitted(&pool, &[dialect])));
        let outcome = audit_with(&cluster, profile, true, asked.clone());
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}\n{:#?}", outcome.sentence, outcome.findings);
    }
}

/// A presigned pool in the operator's words, and what the operator applies for it.
fn presigned(endpoint: &str) -> String {
    let mut pool = pool();
    pool.storage =
        vec![StoragePeer { blocks: vec!["192.0.2.10/32".parse().unwrap()], domain: None, port: 443 }];
    let object = format!(
        "apiVersion: mpegflow.io/v1alpha1\nkind: WorkerPool\nmetadata: {{name: pool-a, namespace: media}}\nspec: {{tenant: acme, storage: {endpoint}}}\n---\n"
    );
    format!("{object}{}", emitted(&pool, &[Dialect::NetworkPolicy]))
}

#[test]
fn the_storage_endpoint_of_a_presigned_pool_is_no_violation_and_is_said_to_be_weaker() {
    let outcome = audit(&presigned("{access: Presigned, endpoints: ['192.0.2.10:443']}"), "calico");
    assert_eq!(outcome.proved, Truth::Yes, "{}\n{:#?}", outcome.sentence, outcome.findings);
    assert_eq!(outcome.intents.len(), 1, "{:?}", outcome.intents);
    assert!(
        outcome.sentence.contains("WorkerPool media/pool-a reaches only the broker and its storage"),
        "{}",
        outcome.sentence
    );
    assert!(outcome.findings.iter().any(|finding| finding.id == "MF114"), "{:#?}", outcome.findings);
}

#[test]
fn a_presigned_pool_reaches_its_own_endpoint_at_its_own_port_and_a_brokered_one_none() {
    for storage in [
        // Another address, another port, an endpoint that a brokered pool was left with.
        "{access: Presigned, endpoints: ['192.0.2.11:443']}",
        "{access: Presigned, endpoints: ['192.0.2.10:444']}",
        "{access: Brokered, endpoints: ['192.0.2.10:443']}",
        "{}",
    ] {
        let outcome = audit(&presigned(storage), "calico");
        assert_eq!(outcome.proved, Truth::No, "{storage}: {}", outcome.sentence);
        assert!(errors(&outcome).contains(&"MF108"), "{storage}: {:?}", errors(&outcome));
    }
    for endpoint in ["storage.example.com:443", "[::ffff:192.0.2.10]:443"] {
        let endpoints = format!("{{access: Presigned, endpoints: ['{endpoint}']}}");
        let outcome = audit(&presigned(&endpoints), "calico");
        assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
    }
}

#[test]
fn the_brokers_service_address_is_the_broker_where_policies_see_it() {
    let mut pool = pool();
    pool.broker.service = Some((vec!["10.96.7.7".parse().unwrap()], 443));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: broker, namespace: mpegflow}\nspec: {clusterIP: 10.96.7.7, selector: {app.kubernetes.io/name: mpegflow-broker}, ports: [{port: 443, targetPort: worker-api}]}\n---\n";
    let outcome = audit(&format!("{service}{}", emitted(&pool, &[Dialect::NetworkPolicy])), "aws-vpc");
    let of_service: Vec<&str> =
        outcome.findings.iter().map(|f| &*f.reason).filter(|reason| reason.contains("10.96.7.7")).collect();
    assert_eq!(of_service, [""; 0]);
}

#[test]
fn what_may_not_be_read_makes_the_proof_unknown_and_names_the_right() {
    let text = format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy]));
    let mut input = Input::new(Limits::default());
    input.add("in.yaml", text).unwrap();
    let proved = |group: &str, kind: &str, resource: &str| {
        let unread = read::Unread {
            group: group.into(),
            kind: kind.into(),
            resource: resource.into(),
            verb: "list",
            source: format!("cluster/{resource}").into(),
        };
        let options = ReadOptions { unread: vec![unread], ..ReadOptions::default() };
        let cluster = read::cluster(&input, &options).unwrap().cluster;
        let outcome = audit_with(&cluster, "calico", true, intent::worker_pools(&cluster));
        (outcome.proved, outcome.sentence)
    };
    for (group, kind, resource, right) in [
        ("", "Pod", "pods", "--verb=list --resource=pods`"),
        ("", "Namespace", "namespaces", "--resource=namespaces`"),
        ("apps", "Deployment", "deployments", "--resource=deployments.apps`"),
        (
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            "clusterrolebindings",
            "--resource=clusterrolebindings.rbac.authorization.k8s.io`",
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            "networkpolicies",
            "--resource=networkpolicies.networking.k8s.io`",
        ),
        (
            "crd.antrea.io",
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "--resource=clusternetworkpolicies.crd.antrea.io`",
        ),
    ] {
        let (proved, sentence) = proved(group, kind, resource);
        assert_eq!(proved, Truth::Unknown, "{kind}: {sentence}");
        assert!(sentence.contains(right), "{kind}: {sentence}");
    }
    // Nothing depends on it: Calico does not enforce it.
    let (proved, sentence) = proved("cilium.io", "CiliumNetworkPolicy", "ciliumnetworkpolicies");
    assert_eq!(proved, Truth::Yes, "{sentence}");
}

#[test]
fn a_packet_that_was_seen_and_is_judged_denied_contradicts_the_proof() {
    let cluster = read(&format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy])));
    let line = r#"{"flow":{"verdict":"FORWARDED","IP":{"source":"10.244.1.10","destination":"10.244.0.66"},"l4":{"TCP":{"destination_port":80}},"source":{"namespace":"other","pod_name":"theirs"},"destination":{"namespace":"media","pod_name":"pool-a"},"is_reply":false}}"#;
    let seen = flows::read("flows.json", line.as_bytes()).unwrap();
    let outcome =
        run(&Request { flows: &[seen], ..request(&cluster, "calico", intent::worker_pools(&cluster)) })
            .unwrap();
    assert_eq!(outcome.proved, Truth::No);
    assert_eq!(outcome.findings[0].id, "MF501", "{:#?}", outcome.findings);
}

#[test]
fn a_difference_names_what_became_reachable() {
    let closed = read(&format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy])));
    let open = read(CLUSTER);
    let profile: Profile = "calico".parse().unwrap();
    let changes = diff::run(&closed, &open, profile, None).unwrap();
    assert_eq!(changes.opened(), Truth::Yes);
    assert!(
        changes
            .changes
            .iter()
            .any(|c| c.source == "Deployment media/pool-a" && c.destination.starts_with("169.254.169.254")),
        "{:#?}",
        changes.table(false)
    );
    assert_eq!(
        diff::run(&closed, &closed, profile, None).unwrap().sentence(),
        "Nothing became reachable and nothing stopped being so."
    );
    assert_eq!(diff::run(&open, &closed, profile, None).unwrap().opened(), Truth::No);
}

#[test]
fn an_explanation_names_the_rule_that_decides() {
    let cluster = read(&format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy])));
    let ask = |destination: &str, port: &str| {
        explain::run(&explain::Question {
            cluster: &cluster,
            profile: "calico".parse().unwrap(),
            complete: true,
            pod_cidrs: None,
            source: "media/pool-a",
            destination,
            port,
        })
    };
    let answer = ask("mpegflow/broker-0", "8443").unwrap();
    assert_eq!(answer.passes, Truth::Yes, "{}", answer.table(false));
    assert!(
        answer.table(false).contains("NetworkPolicy media/pool-a spec.egress[0] (in.yaml:"),
        "{}",
        answer.table(false)
    );
    let answer = ask("169.254.169.254", "80").unwrap();
    assert_eq!(answer.passes, Truth::No);
    assert!(answer.table(false).starts_with("Denied: media/pool-a → 169.254.169.254 80 under calico@"));
    assert!(ask("nowhere/nobody", "80").is_err());
    assert!(ask("svc/default/kubernetes", "81").is_err());
}

/// The audit of a cluster without policies, with a baseline that accepts these findings.
fn accepting(complete: bool, keep: impl Fn(&str) -> bool) -> Outcome {
    let cluster = read(CLUSTER);
    let found = audit_with(&cluster, "calico", complete, intent::worker_pools(&cluster));
    let errors = found.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let entries = errors.filter(|finding| keep(finding.id)).map(|finding| {
        format!(
            "- {{fingerprint: {:?}, owner: ann, reason: known, expires: 2026-06-01}}\n",
            finding.fingerprint()
        )
    });
    let text = format!(
        "apiVersion: mpegflow.io/v1alpha1\nkind: AuditBaseline\naccepted:\n{}",
        entries.collect::<String>()
    );
    let mut input = Input::new(Limits::default());
    input.add("base.yaml", text).unwrap();
    run(&Request {
        complete,
        baseline: Some(&Baseline::read(&input).unwrap()),
        ..request(&cluster, "calico", intent::worker_pools(&cluster))
    })
    .unwrap()
}

#[test]
fn what_is_accepted_stays_violated_and_lets_a_pipeline_go_on() {
    let outcome = accepting(true, |_| true);
    assert_eq!((outcome.proved, outcome.exit_code()), (Truth::No, 0));
    assert!(outcome.sentence.starts_with("Violated, and accepted by the baseline ("), "{}", outcome.sentence);
    assert!(
        outcome.sentence.contains("the first until 2026-06-01; the exit code is 0"),
        "{}",
        outcome.sentence
    );
}

#[test]
fn one_error_that_nobody_answers_for_stops_the_pipeline() {
    let outcome = accepting(true, |id| id != "MF102");
    assert_eq!((outcome.proved, outcome.exit_code()), (Truth::No, 1));
    assert!(outcome.sentence.contains("metadata service"), "{}", outcome.sentence);
}

#[test]
fn what_is_unknown_beside_accepted_errors_stays_unknown_to_the_pipeline() {
    // Not all may be in the input: an acceptance does not answer for what nobody has seen.
    let outcome = accepting(false, |_| true);
    assert_eq!((outcome.proved, outcome.exit_code()), (Truth::No, 2));
    assert!(outcome.sentence.contains("is not known"), "{}", outcome.sentence);
}

/// The fingerprint of the finding of a kind about the pool.
fn fingerprint(policies: &str, id: &str) -> String {
    let outcome = audit(policies, "calico");
    let found: Vec<_> = outcome.findings.iter().filter(|finding| finding.id == id).collect();
    assert_eq!(found.len(), 1, "{id}: {:#?}", outcome.findings);
    found[0].fingerprint()
}

fn hole(name: &str, egress: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: media}}\nspec:\n  podSelector: {{matchLabels: {{mpegflow.io/pool: pool-a}}}}\n  policyTypes: [Egress]\n  egress: [{egress}]\n---\n"
    )
}

#[test]
fn an_acceptance_covers_the_destinations_and_ports_that_it_was_given_for_and_no_more() {
    let closed = emitted(&pool(), &[Dialect::NetworkPolicy]);
    let to =
        |cidr: &str, port: u16| format!("{{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}}}]}}");
    let accepted = format!("{closed}{}", hole("one", &to("192.0.2.0/24", 443)));
    let own = fingerprint(&accepted, "MF108");
    // The same by other words, and beside a policy that only cuts the addresses otherwise.
    let halves = format!("{}, {}", to("192.0.2.0/25", 443), to("192.0.2.128/25", 443));
    assert_eq!(fingerprint(&format!("{closed}{}", hole("two", &halves)), "MF108"), own);
    let elsewhere = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: other}\nspec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.64/26}}]}]}\n---\n";
    assert_eq!(fingerprint(&format!("{accepted}{elsewhere}"), "MF108"), own);
    // One address or one port more, or one less, is another finding.
    for egress in [
        format!("{}, {}", to("192.0.2.0/24", 443), to("198.51.100.7/32", 443)),
        format!("{}, {}", to("192.0.2.0/24", 443), to("192.0.2.7/32", 22)),
        to("192.0.2.0/25", 443),
        to("192.0.2.0/24", 444),
    ] {
        assert_ne!(fingerprint(&format!("{closed}{}", hole("one", &egress)), "MF108"), own, "{egress}");
    }
}

#[test]
fn a_new_destination_of_an_accepted_kind_comes_to_light() {
    let closed = emitted(&pool(), &[Dialect::NetworkPolicy]);
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}";
    let before = format!("{closed}{}", hole("hole", dns));
    let accepted = fingerprint(&before, "MF101");
    let text = format!(
        "apiVersion: mpegflow.io/v1alpha1\nkind: AuditBaseline\naccepted:\n- {{fingerprint: {accepted:?}, owner: ann, reason: known, expires: 2026-06-01}}\n"
    );
    let mut input = Input::new(Limits::default());
    input.add("base.yaml", text).unwrap();
    let baseline = Baseline::read(&input).unwrap();
    let judged = |policies: &str| {
        let cluster = read(&format!("{CLUSTER}{policies}"));
        run(&Request {
            baseline: Some(&baseline),
            ..request(&cluster, "calico", intent::worker_pools(&cluster))
        })
        .unwrap()
    };
    assert_eq!(judged(&before).exit_code(), 0, "{:#?}", judged(&before).findings);
    let more = "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: kube-system}\nspec: {containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.77}\n---\n";
    let outcome = judged(&format!("{before}{more}"));
    assert_eq!(outcome.exit_code(), 1);
    let found = outcome.findings.iter().find(|finding| finding.id == "MF101").expect("the finding is back");
    assert!(found.reason.contains("Pod kube-system/new"), "{}", found.reason);
    let stale =
        outcome.findings.iter().find(|finding| finding.id == "MF502").expect("the entry is said to be old");
    assert!(stale.reason.contains("with other ends or other traffic"), "{}", stale.reason);
}

#[test]
fn pods_that_a_controller_makes_anew_keep_their_fingerprints() {
    let made = |suffix: &str, hash: &str| {
        let owner = format!(
            "ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-{hash}, controller: true}}]"
        );
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{hash}-{suffix}, namespace: a, labels: {{mpegflow.io/pool: p, pod-template-hash: {hash}}}, {owner}}}\nspec: {{containers: [{{name: c, image: i}}]}}\nstatus: {{podIP: 10.0.0.1}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: db-{suffix}, namespace: a, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}}\nspec: {{containers: [{{name: c, image: i}}]}}\nstatus: {{podIP: 10.0.0.2}}\n"
        );
        let cluster = read(&text);
        let outcome = audit_with(&cluster, "calico", true, intent::worker_pools(&cluster));
        let found: std::collections::BTreeSet<String> =
            outcome.findings.iter().map(mpegflow_policies::audit::Finding::fingerprint).collect();
        found
    };
    let (one, two) = (made("x2x", "5f"), made("k9k", "7c"));
    assert_eq!(one, two);
    assert!(one.iter().any(|text| text.starts_with("MF101|Deployment a/web|")), "{one:#?}");
}

/// Asks for an explanation of a cluster of two nodes, with a host-network pod on the second.
fn asked_of(profile: &str, policies: &str, source: &str, destination: &str, port: &str) -> explain::Answer {
    let text = format!("{CLUSTER}{HOST}{policies}");
    let cluster = read(&text);
    explain::run(&explain::Question {
        cluster: &cluster,
        profile: profile.parse().unwrap(),
        complete: true,
        pod_cidrs: None,
        source,
        destination,
        port,
    })
    .unwrap()
}

const HOST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: kube-system, labels: {app: agent}}
spec: {hostNetwork: true, nodeName: n2, containers: [{name: c, image: i}]}
status: {podIP: 10.200.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: other, labels: {app: far}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {podIP: 10.244.0.67}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: other, labels: {app: near}}
spec: {nodeName: n2, containers: [{name: c, image: i}]}
status: {podIP: 10.244.1.67}
---
apiVersion: v1
kind: Pod
metadata: {name: somewhere, namespace: other, labels: {app: near}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.244.1.68}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: other}
spec: {selector: {app: near}, ports: [{port: 80, targetPort: 8080}]}
---
";

#[test]
fn a_host_network_pod_is_its_node_seen_from_where_the_other_end_runs() {
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: other}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";
    for profile in ["calico", "cilium"] {
        let passes =
            |source: &str, destination: &str| asked_of(profile, closed, source, destination, "80").passes;
        // A pod's own node is let in, and with it what runs in its network; another node is not.
        assert_eq!(passes("kube-system/agent", "other/near"), Truth::Yes, "{profile}");
        assert_eq!(passes("kube-system/agent", "other/far"), Truth::No, "{profile}");
        assert_eq!(passes("node/n2", "other/near"), Truth::Yes, "{profile}");
        assert_eq!(passes("node/n2", "other/far"), Truth::No, "{profile}");
        assert_eq!(passes("other/near", "kube-system/agent"), Truth::No, "{profile}");
        // Where the input does not say where a pod runs, it is one of the two.
        let answer = asked_of(profile, closed, "kube-system/agent", "other/somewhere", "80");
        assert_eq!(answer.passes, Truth::Unknown, "{profile}");
        assert!(answer.table(false).contains("on which node the pod runs"), "{}", answer.table(false));
    }
    // Selectors see it there, by its node's address; its own node is open in both directions.
    let allows = closed.replace("policyTypes: [Ingress, Egress]", "policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: agent}}}]}]");
    assert_eq!(asked_of("aws-vpc", &allows, "kube-system/agent", "other/far", "80").passes, Truth::Yes);
    assert_eq!(asked_of("calico", &allows, "kube-system/agent", "other/far", "80").passes, Truth::No);
}

#[test]
fn a_probe_from_a_pods_own_node_contradicts_nothing_and_one_from_another_node_does() {
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: other}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let cluster = read(&format!("{CLUSTER}{HOST}{closed}"));
    let seen = |destination: &str| {
        let line = format!(
            r#"{{"flow":{{"verdict":"FORWARDED","is_reply":false,"IP":{{"source":"10.200.0.2","destination":"{destination}"}},"l4":{{"TCP":{{"source_port":4,"destination_port":80}}}}}}}}"#
        );
        let outcome = run(&Request {
            flows: &[flows::read("flows.json", line.as_bytes()).unwrap()],
            ..request(&cluster, "calico", Vec::new())
        })
        .unwrap();
        outcome.findings.iter().filter(|finding| finding.id == "MF501").count()
    };
    assert_eq!([seen("10.244.1.67"), seen("10.244.0.67"), seen("10.244.1.68")], [0, 1, 0]);
}

#[test]
fn a_difference_is_told_of_a_node_once_and_not_of_its_host_network_pods() {
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: other}\nspec: {podSelector: {}, policyTypes: [Egress]}\n";
    let (open, closed) = (read(&format!("{CLUSTER}{HOST}")), read(&format!("{CLUSTER}{HOST}{closed}")));
    let changes = diff::run(&open, &closed, "calico".parse().unwrap(), None).unwrap();
    assert!(changes.changes.iter().any(|change| change.destination == "node n2"), "{}", changes.table(false));
    assert!(
        !changes.changes.iter().any(|change| change.destination.contains("kube-system/agent")),
        "{}",
        changes.table(false)
    );
    assert!(changes.changes.iter().all(|change| change.maybe_opened.is_none()), "{}", changes.table(false));
}

#[test]
fn what_a_pod_sends_to_itself_through_a_service_is_judged_where_the_plugin_does() {
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: other}\nspec: {podSelector: {matchLabels: {app: near}}, policyTypes: [Ingress]}\n";
    let only = HOST.replace(
        "metadata: {name: somewhere, namespace: other, labels: {app: near}}",
        "metadata: {name: somewhere, namespace: other}",
    );
    for (profile, direct, through) in [
        ("cilium", Truth::Yes, Truth::Yes),
        ("calico", Truth::Yes, Truth::No),
        ("aws-vpc", Truth::Yes, Truth::No),
        ("generic", Truth::Yes, Truth::Unknown),
    ] {
        let cluster = read(&format!("{CLUSTER}{only}{closed}"));
        let ask = |destination: &str, port: &str| {
            explain::run(&explain::Question {
                cluster: &cluster,
                profile: profile.parse().unwrap(),
                complete: true,
                pod_cidrs: None,
                source: "other/near",
                destination,
                port,
            })
            .unwrap()
        };
        assert_eq!(ask("other/near", "8080").passes, direct, "{profile}");
        let answer = ask("svc/other/near", "80");
        assert_eq!(answer.passes, through, "{profile}: {}", answer.table(false));
    }
}

/// The small cluster of the questions below: two nodes, a pod with a policy of Cilium, one beside it, one of somebody else.
const ASKED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: z}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: w, namespace: a, labels: {app: w}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: a, labels: {app: b}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: api, containerPort: 8443}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: o, namespace: z, labels: {app: o}}
spec: {nodeName: n2, containers: [{name: c, image: i}]}
status: {podIP: 10.0.1.3}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: w, namespace: a}
spec:
  endpointSelector: {matchLabels: {app: w}}
  ingress: [{}]
  egress: [{toEndpoints: [{matchLabels: {app: b}}], toPorts: [{ports: [{port: '8443', protocol: TCP}]}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: w, namespace: a}
spec:
  podSelector: {matchLabels: {app: w}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 8443}]}]
---
";

fn setting(key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cilium-config, namespace: kube-system}}\ndata: {{{key}: {value:?}}}\n"
    )
}

fn ask(
    text: &str,
    profile: &str,
    [source, destination, port]: [&str; 3],
) -> Result<explain::Answer, explain::QuestionError> {
    explain::run(&explain::Question {
        cluster: &read(text),
        profile: profile.parse().unwrap(),
        complete: true,
        pod_cidrs: None,
        source,
        destination,
        port,
    })
}

#[test]
fn an_agent_that_enforces_nothing_or_something_else_makes_an_explanation_unsure() {
    let ask = |text: &str, destination| ask(text, "cilium", ["a/w", destination, "8443"]).unwrap();
    assert_eq!(ask(ASKED, "z/o").passes, Truth::No);
    let off = format!("{ASKED}{}", setting("enable-policy", "never"));
    let answer = ask(&off, "z/o");
    assert_eq!(answer.passes, Truth::Unknown, "{}", answer.table(false));
    assert!(answer.sentence.starts_with("Unknown: "), "{}", answer.sentence);
    assert!(answer.table(false).contains("no policy is enforced"), "{}", answer.table(false));
    assert!(answer.json()["doubts"][0].as_str().unwrap().contains("enable-policy"), "{}", answer.json());
    // What policies let through passes all the same.
    assert_eq!(ask(&off, "a/b").passes, Truth::Yes);
    let other = format!("{ASKED}{}", setting("policy-cidr-match-mode", "nodes"));
    assert_eq!(ask(&other, "z/o").passes, Truth::Unknown);
    assert_eq!(ask(&other, "a/b").passes, Truth::Unknown);
}

#[test]
fn a_difference_takes_settings_of_the_agents_into_account() {
    let profile: Profile = "cilium".parse().unwrap();
    let (on, off) = (read(ASKED), read(&format!("{ASKED}{}", setting("enable-policy", "never"))));
    let changes = diff::run(&on, &off, profile, None).unwrap();
    assert_eq!(changes.opened(), Truth::Unknown, "{}", changes.table(false));
    assert!(changes.sentence().contains("may have become reachable"), "{}", changes.sentence());
    assert!(changes.sentence().contains("no policy is enforced"), "{}", changes.sentence());
    assert!(changes.changes.iter().any(|c| c.source == "Pod a/w" && c.destination == "Pod z/o"));
    assert!(changes.json()["doubts"][0].as_str().unwrap().contains("enable-policy"));
    let other = read(&format!("{ASKED}{}", setting("policy-cidr-match-mode", "nodes")));
    let changes = diff::run(&on, &other, profile, None).unwrap();
    assert_eq!(changes.opened(), Truth::Unknown, "{}", changes.table(false));
}

#[test]
fn explanations_and_differences_say_what_they_rest_on() {
    let answer = ask(ASKED, "cilium", ["a/w", "a/b", "8443"]).unwrap();
    let cluster = read(ASKED);
    let changes = diff::run(&cluster, &cluster, "cilium".parse().unwrap(), None).unwrap();
    for (table, json) in [(answer.table(false), answer.json()), (changes.table(false), changes.json())] {
        assert!(table.contains("This holds if:\n  - the network is cilium@"), "{table}");
        let assumptions = json["assumptions"].as_array().unwrap();
        assert!(assumptions.iter().any(|it| it.as_str().unwrap().contains("policy is enforced")), "{json}");
    }
}

#[test]
fn a_pod_that_takes_its_nodes_network_opens_what_was_closed() {
    let before = read(ASKED);
    let host = ASKED.replace(
        "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.0.0.1}",
        "spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, image: i}]}\nstatus: {podIP: 192.168.0.1}",
    );
    let after = read(&host);
    for profile in ["calico", "cilium", "aws-vpc"] {
        let profile: Profile = profile.parse().unwrap();
        let changes = diff::run(&before, &after, profile, None).unwrap();
        assert_eq!(changes.opened(), Truth::Yes, "{profile}: {}", changes.table(false));
        let opens =
            |c: &diff::Change| c.source == "Pod a/w" && c.destination == "Pod z/o" && !c.opened.is_none();
        assert!(changes.changes.iter().any(opens), "{profile}: {}", changes.table(false));
        let is_pod = |name: &String| name == "Pod a/w";
        assert!(!changes.gone.iter().chain(&changes.new).any(is_pod), "{profile}: {}", changes.table(false));
        // The other way round it stops.
        let changes = diff::run(&after, &before, profile, None).unwrap();
        let stops =
            |c: &diff::Change| c.source == "Pod a/w" && c.destination == "Pod z/o" && !c.closed.is_none();
        assert!(changes.changes.iter().any(stops), "{profile}: {}", changes.table(false));
        // A host-network pod that was not there is new, and reaches what its node does.
        let without = read(&ASKED.replace(
            "metadata: {name: w, namespace: a, labels: {app: w}}",
            "metadata: {name: w2, namespace: a, labels: {app: w2}}",
        ));
        let changes = diff::run(&without, &after, profile, None).unwrap();
        assert!(changes.new.contains(&"Pod a/w".to_owned()), "{profile}: {:?}", changes.new);
        assert!(changes.changes.iter().any(opens), "{profile}: {}", changes.table(false));
    }
}

#[test]
fn one_pair_is_one_pair() {
    let allow = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: more, namespace: a}\nspec: {podSelector: {matchLabels: {app: w}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}], ports: [{port: 1}]}]}\n";
    let (closed, open) = (read(ASKED), read(&format!("{ASKED}{allow}")));
    let sentence = diff::run(&closed, &open, "calico".parse().unwrap(), None).unwrap().sentence();
    assert!(
        sentence.starts_with("1 pair became reachable and 0 stopped being so: Pod a/w → Pod z/o TCP 1."),
        "{sentence}"
    );
    let sentence = diff::run(&open, &closed, "calico".parse().unwrap(), None).unwrap().sentence();
    assert_eq!(sentence, "Nothing became reachable; 1 pair stopped being so.");
}

#[test]
fn a_word_without_a_dot_is_no_dns_name_and_a_name_sends_nothing() {
    let refused = |question: [&str; 3]| match ask(ASKED, "calico", question) {
        Ok(answer) => panic!("{question:?}: {}", answer.sentence),
        Err(error) => error.to_string(),
    };
    for word in ["b", "nope", "localhost", "", ".", "a..b", "10.0.0", "999.1.1.1", "a b.c"] {
        let error = refused(["a/w", word, "8443"]);
        assert!(error.contains("NAMESPACE/NAME") && error.contains("with a dot in it"), "{word}: {error}");
        refused([word, "a/b", "8443"]);
    }
    for name in ["example.com", "svc/a/b"] {
        let error = refused([name, "a/b", "8443"]);
        assert!(error.contains("cannot be who sends"), "{error}");
    }
    let error = refused(["w", "b", "8443"]);
    assert!(error.contains("nothing in the input is \"w\""), "{error}");
    assert_eq!(ask(ASKED, "calico", ["a/w", "Example.com.", "443"]).unwrap().passes, Truth::No);
}

#[test]
fn a_port_may_be_asked_by_its_name() {
    assert_eq!(ask(ASKED, "calico", ["a/w", "a/b", "api"]).unwrap().passes, Truth::Yes);
    assert_eq!(ask(ASKED, "calico", ["z/o", "a/b", "api/TCP"]).unwrap().passes, Truth::Yes);
    let error = ask(ASKED, "calico", ["a/w", "a/b", "web"]).unwrap_err().to_string();
    assert!(error.contains("Pod a/b has no port that is called web/TCP; it has api/TCP (8443)"), "{error}");
    let error = ask(ASKED, "calico", ["a/w", "z/o", "api"]).unwrap_err().to_string();
    assert!(error.contains("none that has a name"), "{error}");
}

/// A public chart's rendered manifests; the file says whose.
const CHART: &str = include_str!("charts/kube-state-metrics-8.4.0.yaml");

#[test]
fn a_public_charts_policy_that_shuts_its_own_pod_in_is_found() {
    // What an administrator has beside it: where the API server is.
    let api = "---\napiVersion: v1\nkind: Service\nmetadata: {name: kubernetes, namespace: default}\nspec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}\naddressType: IPv4\nendpoints: [{addresses: [192.0.2.1]}]\nports: [{name: https, port: 6443}]\n";
    let ask = |text: &str, profile: &str| {
        let mut file = Input::new(Limits::default());
        let intents = "apiVersion: mpegflow.io/v1alpha1\nkind: NetworkIntents\nintents:\n- name: it serves its metrics and nothing else\n  from: {pods: {app.kubernetes.io/name: kube-state-metrics}}\n  reached-by: [{group: any, ports: [http]}]\n- name: it lists what it counts\n  from: {pods: {app.kubernetes.io/name: kube-state-metrics}}\n  must: [{cidr: 192.0.2.1/32, ports: [6443]}]\n";
        file.add("intents.yaml", intents).unwrap();
        run(&request(&read(text), profile, intent::read(&file).unwrap())).unwrap()
    };
    for profile in ["calico", "cilium", "aws-vpc"] {
        let outcome = ask(&format!("{CHART}{api}"), profile);
        let answers: Vec<Truth> = outcome.intents.iter().map(|intent| intent.proved).collect();
        assert_eq!(answers, [Truth::Yes, Truth::No], "{profile}: {}", outcome.sentence);
        let found: Vec<_> = outcome.findings.iter().filter(|f| f.severity == Severity::Error).collect();
        assert_eq!(found.len(), 1, "{profile}: {found:#?}");
        assert_eq!(found[0].id, "MF110");
        assert!(found[0].reason.starts_with("it cannot reach 192.0.2.1/32"), "{}", found[0].reason);
        let rule = &found[0].witness.as_ref().unwrap().rules[0];
        assert_eq!(rule.policy.as_ref().unwrap().name, "rel-kube-state-metrics".into());
        // With the egress that it needs, it is as it should be.
        let mended = CHART.replace(
            "  policyTypes:\n",
            "  egress: [{to: [{ipBlock: {cidr: 192.0.2.1/32}}], ports: [{port: 6443}]}]\n  policyTypes:\n",
        );
        assert_ne!(mended, CHART);
        let outcome = ask(&format!("{mended}{api}"), profile);
        assert_eq!(outcome.proved, Truth::Yes, "{profile}: {}", outcome.sentence);
        // Behind a node port the metrics are for everybody, as they are said to be, and the other port is for nobody.
        let exposed = mended.replace("type: \"ClusterIP\"", "type: NodePort");
        assert_ne!(exposed, mended);
        assert_ne!(ask(&format!("{exposed}{api}"), profile).proved, Truth::No, "{profile}");
    }
}

#[test]
fn a_policy_for_a_host_network_pod_is_told_why_it_selects_nobody() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: exporter, namespace: a, labels: {app: exporter}}\nspec: {hostNetwork: true, containers: [{name: c, image: i}]}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: exporter, namespace: a}\nspec: {podSelector: {matchLabels: {app: APP}}, policyTypes: [Ingress]}\n";
    let reason = |app: &str| {
        let outcome = run(&request(&read(&text.replace("APP", app)), "calico", Vec::new())).unwrap();
        outcome.findings.iter().find(|f| f.id == "MF201").unwrap().reason.clone()
    };
    assert_eq!(
        reason("exporter"),
        "NetworkPolicy a/exporter selects none of the 1 pods in the namespace a: Pod a/exporter is one by its labels, and is on its \
         node's network, where no policy for pods has a say"
    );
    assert_eq!(reason("other"), "NetworkPolicy a/exporter selects none of the 1 pods in the namespace a");
}
