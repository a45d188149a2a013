//! What an input says beside its policies, and a proof that would be false if it were not read: templates that nobody stands for,
//! agents that do not enforce, networks beside the cluster's own, objects that stand twice, packets that were seen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

mod support;

use mpegflow_policies::audit::{Finding, Outcome, Request, flows, intent, run};
use mpegflow_policies::read::{self, Input, Limits, ReadOptions};
use mpegflow_policies::truth::Truth;
use support::request;

/// Two namespaces on two nodes: `a/w` may reach `a/b`, and nobody else.
const BASE: &str = "
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
spec: {podCIDR: 10.0.0.0/24}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDR: 10.0.1.0/24}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: w, namespace: a, labels: {app: w, v: '1'}}
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
spec: {nodeName: n2, containers: [{name: c, image: i, ports: [{name: api, containerPort: 9000}]}]}
status: {podIP: 10.0.1.3}
---
";

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: w, namespace: a}
spec:
  podSelector: {matchLabels: {app: w, v: '1'}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 8443}]}]
---
";

const CILIUM: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: w, namespace: a}
spec:
  endpointSelector: {matchLabels: {app: w}}
  ingress: [{}]
  egress: [{toEndpoints: [{matchLabels: {app: b}}], toPorts: [{ports: [{port: '8443', protocol: TCP}]}]}]
---
";

const INTENTS: &str = "
apiVersion: mpegflow.io/v1alpha1
kind: NetworkIntents
intents:
- name: w reaches b alone
  from: {namespace: a, pods: {app: w}}
  may: [{namespace: a, pods: {app: b}, ports: [8443]}]
  reached-by: []
";

fn input(name: &str, text: &str) -> Input {
    let mut input = Input::new(Limits::default());
    input.add(name, text).unwrap();
    input
}

fn with_flows(cni: &str, manifests: &str, lines: &str) -> Outcome {
    let reading = read::cluster(&input("in.yaml", manifests), &ReadOptions::default());
    let cluster = reading.unwrap_or_else(|errors| panic!("{errors}")).cluster;
    run(&Request {
        flows: &[flows::read("flows.jsonl", lines.as_bytes()).unwrap()],
        ..request(&cluster, cni, intent::read(&input("intents.yaml", INTENTS)).unwrap())
    })
    .unwrap()
}

fn audit(cni: &str, manifests: &str) -> Outcome {
    with_flows(cni, manifests, "")
}

fn refused(manifests: &str) -> String {
    match read::cluster(&input("in.yaml", manifests), &ReadOptions::default()) {
        Ok(_) => panic!("it was read"),
        Err(errors) => errors.to_string(),
    }
}

fn of<'o>(outcome: &'o Outcome, id: &str) -> Vec<&'o Finding> {
    outcome.findings.iter().filter(|finding| finding.id == id).collect()
}

fn reasons(outcome: &Outcome, id: &str) -> String {
    of(outcome, id).iter().map(|finding| finding.reason.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_base_is_proved() {
    assert_eq!(audit("calico", &format!("{BASE}{POLICY}")).proved, Truth::Yes);
    assert_eq!(audit("cilium", &format!("{BASE}{CILIUM}")).proved, Truth::Yes);
}

// === Who is there ===

fn workload(api: &str, kind: &str, name: &str, owner: &str, spec: &str) -> String {
    let owner = if owner.is_empty() {
        String::new()
    } else {
        let (api, name) = owner.split_once(' ').unwrap();
        let (kind, name) = name.split_once(' ').unwrap();
        format!(
            ", ownerReferences: [{{apiVersion: {api}, kind: {kind}, name: {name}, uid: u, controller: true}}]"
        )
    };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: a{owner}}}\nspec: {spec}\n---\n"
    )
}

fn template(labels: &str) -> String {
    format!("template: {{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c, image: i}}]}}}}")
}

#[test]
fn a_template_that_is_being_rolled_out_is_judged_beside_the_pods_of_the_old_one() {
    let owned = "labels: {app: w, v: '1'}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: u, controller: true}]";
    let base = BASE.replace("labels: {app: w, v: '1'}", owned);
    let set = workload(
        "apps/v1",
        "ReplicaSet",
        "web-1",
        "apps/v1 Deployment web",
        &format!("{{{}}}", template("{app: w, v: '1'}")),
    );
    let deployment =
        |labels| workload("apps/v1", "Deployment", "web", "", &format!("{{{}}}", template(labels)));
    let same = audit("calico", &format!("{base}{POLICY}{set}{}", deployment("{app: w, v: '1'}")));
    assert_eq!(same.proved, Truth::Yes, "{}", same.sentence);
    let newer = audit("calico", &format!("{base}{POLICY}{set}{}", deployment("{app: w, v: '2'}")));
    assert_eq!(newer.proved, Truth::No, "{}", newer.sentence);
    assert!(newer.sentence.contains("Deployment a/web"), "{}", newer.sentence);
}

#[test]
fn a_running_job_of_an_older_template_is_judged() {
    let cron = |labels| {
        workload(
            "batch/v1",
            "CronJob",
            "cj",
            "",
            &format!("{{jobTemplate: {{spec: {{{}}}}}}}", template(labels)),
        )
    };
    let job = |labels| {
        workload("batch/v1", "Job", "cj-1", "batch/v1 CronJob cj", &format!("{{{}}}", template(labels)))
    };
    let (now, old) = ("{app: w, v: '1'}", "{app: w, v: '2'}");
    assert_eq!(audit("calico", &format!("{BASE}{POLICY}{}{}", cron(now), job(now))).proved, Truth::Yes);
    let outcome = audit("calico", &format!("{BASE}{POLICY}{}{}", cron(now), job(old)));
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
}

#[test]
fn an_owner_that_does_not_make_it_takes_no_template_away() {
    let web = workload("apps/v1", "Deployment", "web", "", &format!("{{{}}}", template("{app: x}")));
    for owner in ["apps/v1 Deployment web", "foo.example.com/v1 Deployment web"] {
        let evil = workload(
            "apps/v1",
            "Deployment",
            "evil",
            owner,
            &format!("{{{}}}", template("{app: w, v: '2'}")),
        );
        let outcome = audit("calico", &format!("{BASE}{POLICY}{web}{evil}"));
        assert_eq!(outcome.proved, Truth::No, "{owner}: {}", outcome.sentence);
    }
}

#[test]
fn a_job_of_keda_is_judged_as_the_host_network_worker_that_it_is() {
    let template = "template: {metadata: {labels: {app: w, v: '2'}}, spec: {hostNetwork: true, containers: [{name: c, image: i}]}}";
    let job =
        workload("keda.sh/v1alpha1", "ScaledJob", "sj", "", &format!("{{jobTargetRef: {{{template}}}}}"));
    let outcome = audit("calico", &format!("{BASE}{POLICY}{job}"));
    assert_ne!(outcome.proved, Truth::Yes, "{}", outcome.sentence);
}

#[test]
fn a_pool_without_pods_is_judged() {
    let pool = "apiVersion: mpegflow.io/v1alpha1\nkind: WorkerPool\nmetadata: {name: p, namespace: a}\nspec: {class: cpu}\n";
    let reading = read::cluster(&input("in.yaml", &format!("{BASE}{pool}")), &ReadOptions::default());
    let cluster = reading.unwrap().cluster;
    let outcome = run(&request(&cluster, "calico", intent::worker_pools(&cluster))).unwrap();
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    assert!(outcome.sentence.contains("WorkerPool a/p"), "{}", outcome.sentence);
    // The operator hardens its pods; what is wrong is that nothing isolates them.
    assert!(outcome.findings.iter().all(|finding| finding.id < "MF4"), "{:#?}", outcome.findings);
}

#[test]
fn what_makes_pods_and_policies_that_the_input_does_not_show_is_an_error_with_a_way_out() {
    for (api, kind) in [
        ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
        ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
        ("argoproj.io/v1alpha1", "Application"),
        ("argoproj.io/v1alpha1", "ApplicationSet"),
    ] {
        let object =
            format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x, namespace: a}}\nspec: {{}}\n");
        let error = refused(&object);
        let group = api.split_once('/').unwrap().0;
        assert!(
            error.starts_with("in.yaml:1:1: ") && error.contains(&format!("--ignore-kind {kind}.{group}")),
            "{error}"
        );
    }
}

#[test]
fn a_network_beside_the_clusters_own_is_seen_by_no_policy() {
    for key in ["k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"] {
        let annotation = format!("annotations: {{{key}: macvlan}}, labels: {{app: w, v: '1'}}");
        let outcome =
            audit("calico", &format!("{}{POLICY}", BASE.replace("labels: {app: w, v: '1'}", &annotation)));
        assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
        assert!(
            outcome.sentence.contains(key) && outcome.sentence.contains("in.yaml:"),
            "{}",
            outcome.sentence
        );
        // On a template, too.
        let spec = "{template: {metadata: {ANNOTATION}, spec: {containers: [{name: c, image: i}]}}}"
            .replace("ANNOTATION", &annotation);
        let made = workload("apps/v1", "Deployment", "web", "", &spec);
        let outcome = audit("calico", &format!("{BASE}{POLICY}{made}"));
        assert_eq!(outcome.proved, Truth::Unknown, "{}", outcome.sentence);
        // Of another pod it says nothing here.
        let other = BASE.replace("labels: {app: o}", &annotation.replace("app: w, v: '1'", "app: o"));
        assert_eq!(audit("calico", &format!("{other}{POLICY}")).proved, Truth::Yes);
    }
}

// === What stands twice, or as something else ===

#[test]
fn the_same_policy_with_and_without_its_namespace_is_an_error() {
    let base = BASE.replace("namespace: a", "namespace: default");
    let first = POLICY.replace(", namespace: a", "");
    let second = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: w, namespace: default}\nspec: {podSelector: {matchLabels: {app: w}}, policyTypes: [Ingress]}\n";
    let error = refused(&format!("{base}{first}{second}"));
    assert!(error.contains("NetworkPolicy default/w stands here and in in.yaml:"), "{error}");
}

#[test]
fn the_same_policy_of_calico_in_both_of_its_groups_is_an_error() {
    let policy = |api: &str, name: &str| {
        format!(
            "apiVersion: {api}\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{selector: app == 'w', types: [Ingress]}}\n---\n"
        )
    };
    let stored = policy("crd.projectcalico.org/v1", "default.w");
    let error = refused(&format!("{BASE}{}{stored}", policy("projectcalico.org/v3", "w")));
    assert!(error.contains("NetworkPolicy a/w stands here and in"), "{error}");
    // NetworkPolicy of Kubernetes is another kind, whatever its name.
    assert_eq!(audit("calico", &format!("{BASE}{POLICY}{stored}")).intents.len(), 1);
}

#[test]
fn a_pod_does_not_escape_a_block_by_writing_its_address_as_ipv6() {
    let open = POLICY.replace("{podSelector: {matchLabels: {app: b}}}", "{ipBlock: {cidr: 10.0.1.0/24}}");
    let error = refused(&format!("{}{open}", BASE.replace("podIP: 10.0.1.3", "podIP: '::ffff:10.0.1.3'")));
    assert!(error.starts_with("in.yaml:") && error.contains("status.podIP"), "{error}");
}

// === Who enforces ===

#[test]
fn a_pod_that_cilium_does_not_manage_breaks_the_proof() {
    let managed = |name: &str, namespace: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n"
        )
    };
    let others = format!("{BASE}{CILIUM}{}{}", managed("b", "a"), managed("o", "z"));
    let outcome = audit("cilium", &others);
    assert_eq!((outcome.proved, outcome.exit_code()), (Truth::No, 1), "{}", outcome.sentence);
    assert!(outcome.sentence.contains("Pod a/w has none"), "{}", outcome.sentence);
    assert_eq!(audit("cilium", &format!("{others}{}", managed("w", "a"))).proved, Truth::Yes);
}

#[test]
fn an_agent_s_settings_are_read_as_it_reads_them_wherever_they_stand() {
    let map = |data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cilium-config, namespace: kube-system}}\ndata: {{{data}}}\n"
        )
    };
    let node = |data: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNodeConfig\nmetadata: {{name: some-nodes, namespace: kube-system}}\nspec: {{nodeSelector: {{}}, defaults: {{{data}}}}}\n"
        )
    };
    let agent = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: cilium-x, namespace: kube-system, labels: {{k8s-app: cilium}}}}\nspec: {{hostNetwork: true, nodeName: n2, containers: [{{name: cilium-agent, image: 'quay.io/cilium/cilium:v1.18.0', {more}}}]}}\nstatus: {{podIP: 192.168.0.2}}\n"
        )
    };
    let (yes, off, unknown) = (Truth::Yes, Truth::No, Truth::Unknown);
    for (object, expected) in [
        (map("enable-policy: default, policy-audit-mode: 'false', enable-l7-proxy: 'true'"), yes),
        (map("enable-policy: Never"), off),
        (map("policy-audit-mode: 'True'"), off),
        (map("policy-audit-mode: '1'"), off),
        (map("enable-k8s-networkpolicy: 'False'"), off),
        (map("enable-cilium-network-policy: '0'"), off),
        (map("policy-audit-mode: 'yes'"), unknown),
        (map("label-prefix-file: /x"), unknown),
        (map("enable-icmp-rules: 'false'"), unknown),
        (map("enable-l7-proxy: 'false'"), unknown),
        (map("enable-extended-ip-protocols: 'true'"), unknown),
        (map("enable-remote-node-identity: 'false'"), unknown),
        (map("policy-default-local-cluster: 'true'"), unknown),
        (node("enable-policy: never"), off),
        (node("policy-audit-mode: 'true'"), off),
        (agent("command: [cilium-agent], args: [--config-dir=/tmp]"), yes),
        (agent("args: [--config-dir=/tmp, --enable-policy=never]"), off),
        (agent("args: [--enable-policy, never]"), off),
        (agent("args: [--policy-audit-mode]"), off),
        (agent("command: [sh, -c, 'exec cilium-agent --enable-policy=never --debug']"), off),
        (agent("env: [{name: CILIUM_POLICY_AUDIT_MODE, value: 'true'}]"), off),
        (
            agent("env: [{name: CILIUM_POLICY_AUDIT_MODE, valueFrom: {configMapKeyRef: {name: x, key: y}}}]"),
            unknown,
        ),
    ] {
        let outcome = audit("cilium@1.18", &format!("{BASE}{CILIUM}{object}"));
        assert_eq!(outcome.proved, expected, "{object}{}", outcome.sentence);
        if expected == unknown {
            assert!(outcome.sentence.contains("(in.yaml:"), "{object}{}", outcome.sentence);
        }
    }
}

#[test]
fn calico_s_settings_that_contradict_an_assumption_make_the_proof_unknown() {
    let felix = |api: &str, spec: &str| {
        format!(
            "apiVersion: {api}\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
        )
    };
    let installation = |plane: &str| {
        format!(
            "apiVersion: operator.tigera.io/v1\nkind: Installation\nmetadata: {{name: default}}\nspec: {{calicoNetwork: {{linuxDataplane: {plane}, ipPools: []}}}}\n"
        )
    };
    for (object, expected) in [
        (felix("projectcalico.org/v3", "bpfEnabled: false, logSeverityScreen: Info"), Truth::Yes),
        (felix("projectcalico.org/v3", "bpfEnabled: true"), Truth::Unknown),
        (felix("crd.projectcalico.org/v1", "bpfEnabled: true"), Truth::Unknown),
        (felix("crd.projectcalico.org/v1", "defaultEndpointToHostAction: Drop"), Truth::Unknown),
        (installation("Iptables"), Truth::Yes),
        (installation("BPF"), Truth::Unknown),
    ] {
        let outcome = audit("calico", &format!("{BASE}{POLICY}{object}"));
        assert_eq!(outcome.proved, expected, "{object}{}", outcome.sentence);
    }
}

#[test]
fn entities_that_are_no_pods_of_the_input_make_the_proof_unknown() {
    for entity in ["ingress", "init", "health", "unmanaged"] {
        let policy = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: x, namespace: a}}\nspec: {{endpointSelector: {{matchLabels: {{app: w}}}}, egress: [{{toEntities: [{entity}]}}]}}\n"
        );
        let outcome = audit("cilium", &format!("{BASE}{CILIUM}{policy}"));
        assert_eq!(outcome.proved, Truth::Unknown, "{entity}: {}", outcome.sentence);
        assert!(outcome.sentence.contains(&format!("`{entity}` means")), "{}", outcome.sentence);
    }
}

// === What was seen ===

/// A line of Hubble's: `a/w` to an address at TCP port 9000.
fn hubble(verdict: &str, destination: &str) -> String {
    format!(
        r#"{{"flow":{{"verdict":"{verdict}","is_reply":false,"IP":{{"source":"10.0.0.1","destination":"{destination}"}},"l4":{{"TCP":{{"source_port":4,"destination_port":9000}}}}}}}}"#
    ) + "\n"
}

fn seen(lines: &str) -> Outcome {
    with_flows("calico", &format!("{BASE}{POLICY}"), lines)
}

#[test]
fn what_hubble_saw_redirected_or_only_audited_contradicts_a_denial() {
    for verdict in ["FORWARDED", "REDIRECTED", "AUDIT"] {
        let outcome = seen(&hubble(verdict, "10.0.1.3"));
        assert_eq!(outcome.proved, Truth::No, "{verdict}: {}", outcome.sentence);
        assert_eq!(of(&outcome, "MF501").len(), 1);
    }
    assert_eq!(seen(&hubble("DROPPED", "10.0.1.3")).proved, Truth::Yes);
}

#[test]
fn packets_to_addresses_outside_are_told_one_by_one_by_their_addresses() {
    let lines =
        [hubble("FORWARDED", "8.8.8.8"), hubble("FORWARDED", "9.9.9.9"), hubble("FORWARDED", "8.8.8.8")];
    let outcome = seen(&lines.concat());
    let found = of(&outcome, "MF501");
    let mut destinations: Vec<&str> =
        found.iter().map(|finding| finding.witness.as_ref().unwrap().destination.as_str()).collect();
    destinations.sort_unstable();
    assert_eq!(destinations, ["8.8.8.8", "9.9.9.9"]);
    let reason = "Pod a/w was seen to reach 8.8.8.8, which is judged denied";
    assert!(found.iter().any(|finding| finding.reason == reason), "{}", reasons(&outcome, "MF501"));
    assert_ne!(found[0].fingerprint(), found[1].fingerprint());
}

#[test]
fn findings_of_many_packets_are_bounded_and_the_rest_is_counted() {
    let lines: String = (0..150).map(|i| hubble("FORWARDED", &format!("8.8.8.{i}"))).collect();
    let outcome = seen(&lines);
    assert_eq!(of(&outcome, "MF501").len(), 101);
    assert!(reasons(&outcome, "MF501").contains("50 more packets were seen to pass"));
}

/// A line of Calico's with names aggregated, and no address.
fn aggregated(source: &str, destination: &str) -> String {
    format!(
        r#"{{"action":"allow","source_namespace":"a","source_name":"-","source_name_aggr":"{source}","source_type":"wep","dest_namespace":"z","dest_name":"-","dest_name_aggr":"{destination}","dest_type":"wep","dest_port":9000,"proto":"tcp","source_ip":null,"dest_ip":null}}"#
    ) + "\n"
}

#[test]
fn an_aggregated_flow_contradicts_where_every_pod_that_it_may_mean_is_denied() {
    let outcome = seen(&aggregated("w*", "o*"));
    assert_eq!(outcome.proved, Truth::No, "{}", outcome.sentence);
    // `a/b` may send to whom it likes: it may be the one.
    let outcome = seen(&aggregated("*", "o*"));
    assert_eq!((outcome.proved, of(&outcome, "MF504").len()), (Truth::Yes, 0), "{}", outcome.sentence);
    // Goldmane's spelling.
    let line = r#"{"startTime":"1","action":"Allow","sourceName":"w","sourceNamespace":"a","destName":"o","destNamespace":"z","destPort":"9000","protocol":"tcp","reporter":"Src"}"#;
    assert_eq!(seen(line).proved, Truth::No);
}

#[test]
fn flows_that_cannot_be_judged_are_counted_with_the_reason() {
    let nobody = aggregated("gone-*", "o*");
    let bare = aggregated("w*", "o*").replace("\"dest_namespace\":\"z\"", "\"dest_namespace\":\"-\"");
    let lost = "{\"lost_events\":{\"source\":\"x\"}}\n";
    let outcome = seen(&format!("{nobody}{nobody}{bare}{lost}"));
    let mut found: Vec<String> = of(&outcome, "MF504")
        .iter()
        .map(|finding| format!("{}: {}", finding.at.as_ref().unwrap(), finding.reason))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "flows.jsonl:1:1: 2 lines cannot be held against the policies: the pod that it names is not in the input",
            "flows.jsonl:3:1: 1 line cannot be held against the policies: it names neither a pod nor an address, as aggregated logs do",
            "flows.jsonl:4:1: 1 line cannot be held against the policies: the exporter lost events, which nobody has seen",
        ]
    );
    assert_eq!(outcome.proved, Truth::Yes, "a proof is about policies: {}", outcome.sentence);
}
