//! The audit from manifests to verdict: what is emitted is proved, and each way to break it is found with a packet.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

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
    run(&Request {
        cluster,
        profile: profile.parse().unwrap(),
        complete,
        intents,
        pod_cidrs: None,
        baseline: None,
        today: "2026-01-01".parse().unwrap(),
        flows: &[],
    })
    .unwrap()
}

fn audit(policies: &str, profile: &str) -> Outcome {
    audit_with(&read(&format!("{CLUSTER}{policies}")), profile, true, vec![intent::worker_pools()])
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
    let cases: [(&str, &[Dialect]); 5] = [
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
    let outcome = audit_with(&cluster, "calico", false, vec![intent::worker_pools()]);
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

#[test]
fn a_packet_that_was_seen_and_is_judged_denied_contradicts_the_proof() {
    let cluster = read(&format!("{CLUSTER}{}", emitted(&pool(), &[Dialect::NetworkPolicy])));
    let line = r#"{"flow":{"verdict":"FORWARDED","IP":{"source":"10.244.1.10","destination":"10.244.0.66"},"l4":{"TCP":{"destination_port":80}},"source":{"namespace":"other","pod_name":"theirs"},"destination":{"namespace":"media","pod_name":"pool-a"},"is_reply":false}}"#;
    let seen = flows::read("flows.json", line.as_bytes()).unwrap();
    let outcome = run(&Request {
        cluster: &cluster,
        profile: "calico".parse().unwrap(),
        complete: true,
        intents: vec![intent::worker_pools()],
        pod_cidrs: None,
        baseline: None,
        today: "2026-01-01".parse().unwrap(),
        flows: &[seen],
    })
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
    let found = audit_with(&cluster, "calico", complete, vec![intent::worker_pools()]);
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
        cluster: &cluster,
        profile: "calico".parse().unwrap(),
        complete,
        intents: vec![intent::worker_pools()],
        pod_cidrs: None,
        baseline: Some(&Baseline::read(&input).unwrap()),
        today: "2026-01-01".parse().unwrap(),
        flows: &[],
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
