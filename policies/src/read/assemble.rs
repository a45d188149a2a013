//! Documents → a [`Cluster`]: each kind to its reader, then what needs the whole.

use super::documents::{Input, Note, each};
use super::exceptions::Exceptions;
use super::kinds::{Concern, concern};
use super::{
    Document, ReadError, ReadErrors, Value, access, admin_network_policy, calico, cilium,
    cluster_network_policy, core, exceptions, network_policy, unread,
};
use crate::cluster::{ADDED_BY_CONTROLLERS, Cluster, Pod, PodSecurity};
use crate::policy::Policy;
use crate::sets::AddressSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What to read over, and what could not be read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Kinds to leave out although nothing is known of them: `Rollout`, or `Rollout.argoproj.io`.
    pub ignored_kinds: Vec<Arc<str>>,
    /// What the source of the input does not show.
    pub unread: Vec<unread::Unread>,
}

/// A cluster, and what was left out of it.
#[derive(Debug)]
pub struct Reading {
    /// The cluster.
    pub cluster: Cluster,
    /// Documents that were left out, with the reason.
    pub notes: Vec<Note>,
}

/// Reads a cluster.
///
/// # Errors
/// Everything that is wrong with the input, with its place: what cannot be read never becomes a verdict.
pub fn cluster(input: &Input, options: &ReadOptions) -> Result<Reading, ReadErrors> {
    let (parts, notes) = each(input, |part: &mut Part, document| part.take(&document, options))?;
    let mut cluster = Cluster::default();
    let mut errors = ReadErrors::none();
    let (mut of_calico, mut of_cilium) = (Vec::new(), Vec::new());
    let mut exceptions = Exceptions::new();
    let mut idle = BTreeSet::new();
    for part in parts {
        append(&mut cluster, part.cluster);
        of_calico.extend(part.of_calico);
        of_cilium.extend(part.of_cilium);
        errors.append(part.errors);
        idle.extend(part.idle);
        for (key, set) in part.exceptions {
            let out = exceptions.entry(key).or_insert_with(AddressSet::empty);
            *out = out.union(&set);
        }
    }
    drop_covered_templates(&mut cluster.pods, &idle);
    exceptions::link(&exceptions, &mut cluster.policies);
    calico::enter(&of_calico, &mut cluster);
    let policies = calico::link(of_calico, &cluster);
    cluster.policies.extend(policies);
    let policies = cilium::link(of_cilium, &cluster);
    cluster.policies.extend(policies);
    unread::enter(&options.unread, &mut cluster);
    errors.or(Reading { cluster, notes })
}

/// What some documents that stand together hold.
struct Part {
    cluster: Cluster,
    of_calico: Vec<calico::Parsed>,
    of_cilium: Vec<cilium::Parsed>,
    exceptions: Exceptions,
    /// Namespace and name of ReplicaSets that are scaled to nothing.
    idle: BTreeSet<(Arc<str>, Arc<str>)>,
    errors: ReadErrors,
}

impl Default for Part {
    fn default() -> Self {
        let (of_calico, of_cilium) = (Vec::new(), Vec::new());
        Self {
            cluster: Cluster::default(),
            of_calico,
            of_cilium,
            exceptions: Exceptions::new(),
            idle: BTreeSet::new(),
            errors: ReadErrors::none(),
        }
    }
}

impl Part {
    fn take(&mut self, document: &Document, options: &ReadOptions) {
        let mut keep = |all: Vec<ReadError>| all.into_iter().for_each(|error| self.errors.push(error));
        match one(document, options, &mut self.cluster) {
            Ok(Read::Whole) => self.idle.extend(idle(document)),
            Ok(Read::Policy(read)) => match read(document) {
                Ok(policy) => self.cluster.policies.push(policy),
                Err(all) => keep(all),
            },
            Ok(Read::NetworkPolicy) => match network_policy::read(document) {
                Ok(policies) => {
                    self.cluster.policies.extend(policies);
                    exceptions::gather(document, &mut self.exceptions);
                }
                Err(all) => keep(all),
            },
            Ok(Read::Calico) => match calico::read(document) {
                Ok(parsed) => self.of_calico.push(parsed),
                Err(all) => keep(all),
            },
            Ok(Read::Cilium) => match cilium::read(document) {
                Ok(parsed) => self.of_cilium.push(parsed),
                Err(all) => keep(all),
            },
            Err(error) => self.errors.push(error),
        }
    }
}

/// A ReplicaSet that its Deployment has scaled to nothing.
fn idle(document: &Document) -> Option<(Arc<str>, Arc<str>)> {
    let is_set = document.group() == "apps" && &*document.kind == "ReplicaSet";
    let replicas = document.root.get("spec").filter(|_| is_set)?.get("replicas")?;
    let name = document.name.clone().filter(|_| replicas.value == Value::Int(0))?;
    Some((core::namespace_of(document), name))
}

/// Adds what a later part of the input holds.
fn append(cluster: &mut Cluster, part: Cluster) {
    let Cluster {
        namespaces,
        pods,
        nodes,
        services,
        endpoints,
        service_accounts,
        tiers,
        host_endpoints,
        policies,
        rbac,
        worker_pools,
        unrelated,
        cilium_endpoints,
        settings,
        missing_rights,
    } = part;
    cluster.namespaces.extend(namespaces);
    cluster.pods.extend(pods);
    cluster.nodes.extend(nodes);
    cluster.services.extend(services);
    cluster.endpoints.extend(endpoints);
    cluster.service_accounts.extend(service_accounts);
    cluster.tiers.extend(tiers);
    cluster.host_endpoints.extend(host_endpoints);
    cluster.policies.extend(policies);
    cluster.rbac.roles.extend(rbac.roles);
    cluster.rbac.bindings.extend(rbac.bindings);
    cluster.worker_pools.extend(worker_pools);
    for (kind, many) in unrelated {
        let count = cluster.unrelated.entry(kind).or_default();
        *count = count.saturating_add(many);
    }
    cluster.cilium_endpoints.extend(cilium_endpoints);
    cluster.settings.extend(settings);
    cluster.missing_rights.extend(missing_rights);
}

/// What became of a document.
enum Read {
    /// It is in the cluster.
    Whole,
    /// It is a policy that needs nothing of the rest of the cluster, to be read so.
    Policy(fn(&Document) -> Result<Policy, Vec<ReadError>>),
    /// A NetworkPolicy.
    NetworkPolicy,
    /// It is Calico's, to be read with the others.
    Calico,
    /// It is Cilium's, likewise.
    Cilium,
}

fn one(document: &Document, options: &ReadOptions, cluster: &mut Cluster) -> Result<Read, ReadError> {
    let is = |kinds: &[(&str, &[&str], &str)]| -> Result<bool, ReadError> {
        let (group, version) = (document.group(), document.version());
        let Some((_, versions, _)) =
            kinds.iter().find(|(g, _, kind)| *g == group && *kind == &*document.kind)
        else {
            return Ok(false);
        };
        if versions.contains(&version) {
            return Ok(true);
        }
        let message = format!("{} is not known in version {version} of {group:?}", document.kind);
        Err(ReadError::new(document.at.clone(), message)
            .hint(format!("write it as {}", versions.join(" or "))))
    };
    if is(core::KINDS)? {
        return core::read(document, cluster).map(|()| Read::Whole);
    }
    if is(access::KINDS)? {
        return access::read(document, cluster).map(|()| Read::Whole);
    }
    if is(network_policy::KINDS)? {
        return Ok(Read::NetworkPolicy);
    }
    if is(cluster_network_policy::KINDS)? {
        return Ok(Read::Policy(cluster_network_policy::read));
    }
    if is(admin_network_policy::KINDS)? {
        return Ok(Read::Policy(admin_network_policy::read));
    }
    if is(calico::KINDS)? {
        return Ok(Read::Calico);
    }
    if is(cilium::KINDS)? {
        return Ok(Read::Cilium);
    }
    core::settings(document, cluster)?;
    let (group, kind) = (document.group(), &document.kind);
    let full = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
    let ignored = options.ignored_kinds.iter().any(|k| **k == **kind || **k == *full);
    match concern(group, kind) {
        Concern::None => {}
        _ if ignored => {}
        Concern::Policy => {
            let message =
                format!("{kind} of {} is not understood, and may change what passes", document.api_version);
            return Err(ReadError::new(document.at.clone(), message)
                .hint(format!("if it does not here, leave it out with --ignore-kind {full}")));
        }
        Concern::Unknown => {
            let message =
                format!("{kind} of {} is not known: it may make pods or policies", document.api_version);
            return Err(ReadError::new(document.at.clone(), message)
                .hint(format!("if it does not, leave it out with --ignore-kind {full}")));
        }
    }
    let count = cluster.unrelated.entry(kind.clone()).or_default();
    *count = count.saturating_add(1);
    Ok(Read::Whole)
}

/// Controllers and what each makes: group and kind of both. Any other owner says nothing about what a template becomes.
const MAKES: &[[(&str, &str); 2]] = &[
    [("mpegflow.io", "WorkerPool"), ("apps", "Deployment")],
    [("apps", "Deployment"), ("apps", "ReplicaSet")],
    [("batch", "CronJob"), ("batch", "Job")],
    [("keda.sh", "ScaledJob"), ("batch", "Job")],
    [("apps", "ReplicaSet"), ("", "Pod")],
    [("apps", "StatefulSet"), ("", "Pod")],
    [("apps", "DaemonSet"), ("", "Pod")],
    [("batch", "Job"), ("", "Pod")],
    [("", "ReplicationController"), ("", "Pod")],
];

/// Leaves out templates that others stand for: those whose owner has the same template in the input, and those of which a running
/// pod is there. A template that differs in anything a verdict looks at stays, as one that is being rolled out does.
///
/// `idle` are ReplicaSets without replicas, the history of a Deployment: where that is in the input, its template says what comes.
fn drop_covered_templates(pods: &mut Vec<Pod>, idle: &BTreeSet<(Arc<str>, Arc<str>)>) {
    let templates: BTreeMap<(&str, &str, &str, &str), usize> = pods
        .iter()
        .enumerate()
        .filter(|(_, pod)| pod.is_template)
        .map(|(i, pod)| ((&*pod.object.group, &*pod.object.kind, &*pod.namespace, &*pod.object.name), i))
        .collect();
    // By template, the one that it was made from; by pod, its template.
    let owner: Vec<Option<usize>> = pods
        .iter()
        .map(|pod| {
            let owner = pod.owner.as_ref()?;
            let pair = [(&*owner.group, &*owner.kind), (&*pod.object.group, &*pod.object.kind)];
            let is_made = MAKES.contains(&pair);
            let key = (&*owner.group, &*owner.kind, &*pod.namespace, &*owner.name);
            templates.get(&key).copied().filter(|_| is_made)
        })
        .collect();
    let owned: Vec<(usize, usize)> =
        owner.iter().enumerate().filter_map(|(i, owner)| owner.map(|owner| (i, owner))).collect();
    // What is compared with many pods is stripped once.
    let owners: BTreeSet<usize> = owned.iter().map(|(_, owner)| *owner).collect();
    let bare: BTreeMap<usize, PodSecurity> =
        owners.into_iter().filter_map(|i| Some((i, pods.get(i)?.security.bare()))).collect();
    let mut by_owner = vec![false; pods.len()];
    let mut has_pods = vec![false; pods.len()];
    let mut made_by: Vec<(usize, usize)> = Vec::new();
    for (made, owner) in owned {
        let (Some(pod), Some(template)) = (pods.get(made), pods.get(owner)) else { continue };
        let is_idle = &*pod.object.kind == "ReplicaSet"
            && pod.is_template
            && idle.contains(&(pod.namespace.clone(), pod.object.name.clone()));
        if is_idle {
            set(&mut by_owner, made);
        } else if (pod.is_template || !(pod.finished || flag(&has_pods, owner)))
            && is_made_of(pod, template, bare.get(&owner))
        {
            // A pool's Deployment says more than the pool: it stands for it.
            if pod.is_template && &*template.object.kind != "WorkerPool" {
                set(&mut by_owner, made);
                made_by.push((made, owner));
            } else {
                set(&mut has_pods, owner);
            }
        }
    }
    // From the pods upwards; no chain is longer than Deployment, ReplicaSet, pod.
    for _ in 0..2 {
        for (made, owner) in &made_by {
            if flag(&has_pods, *made) {
                set(&mut has_pods, *owner);
            }
        }
    }
    let mut i = 0_usize;
    pods.retain(|pod| {
        let is_covered = pod.is_template && (flag(&by_owner, i) || flag(&has_pods, i));
        i = i.saturating_add(1);
        !is_covered
    });
}

fn flag(flags: &[bool], at: usize) -> bool {
    flags.get(at).copied().unwrap_or_default()
}

fn set(flags: &mut [bool], at: usize) {
    if let Some(flag) = flags.get_mut(at) {
        *flag = true;
    }
}

/// Whether a pod, or a template, is what its owner's template now makes, as far as a verdict looks. `bare` is that template's
/// security, stripped ([`PodSecurity::bare`]).
fn is_made_of(made: &Pod, template: &Pod, bare: Option<&PodSecurity>) -> bool {
    // What a pool's pods are hardened with is the operator's to say.
    let is_pool = &*template.object.kind == "WorkerPool";
    made.host_network == template.host_network
        && made.service_account == template.service_account
        && made.networks.is_some() == template.networks.is_some()
        && made.ports == template.ports
        && own_labels(made).eq(own_labels(template))
        && (is_pool || bare == Some(&made.security.bare()))
}

/// Labels that nobody but its author gave it.
fn own_labels(pod: &Pod) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
    pod.labels.iter().filter(|(key, _)| !ADDED_BY_CONTROLLERS.contains(&&***key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::read::Limits;

    fn read(text: &str) -> Result<Reading, ReadErrors> {
        let mut input = Input::new(Limits::default());
        input.add("in.yaml", text).unwrap();
        cluster(&input, &ReadOptions::default())
    }

    fn names(text: &str) -> Vec<String> {
        read(text).unwrap().cluster.pods.iter().map(|pod| pod.object.to_string()).collect()
    }

    const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-1, namespace: a, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}]}
spec: {template: {metadata: {labels: {app: web, pod-template-hash: x}}, spec: {containers: [{name: c, image: i}]}}}
---
";
    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1-x, namespace: a, labels: {app: web, pod-template-hash: x}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]}
spec: {containers: [{name: c, image: i}]}
";

    #[test]
    fn a_template_stands_for_its_pods_only_where_they_are_not_in_the_input() {
        assert_eq!(names(DEPLOYMENT), ["Deployment a/web"]);
        assert_eq!(names(&format!("{DEPLOYMENT}{POD}")), ["Pod a/web-1-x"]);
    }

    /// The same with one text in another's place.
    fn names_with(text: &str, from: &str, to: &str) -> Vec<String> {
        assert!(text.contains(from), "{from}");
        names(&text.replacen(from, to, 1))
    }

    #[test]
    fn a_template_that_differs_from_its_pods_in_what_a_verdict_looks_at_stays() {
        let all = format!("{DEPLOYMENT}{POD}");
        let spec = "spec: {containers: [{name: c, image: i}]}}}\n---\napiVersion: apps/v1\nkind: ReplicaSet";
        let after = "}}\n---\napiVersion: apps/v1\nkind: ReplicaSet";
        for changed in [
            "spec: {hostNetwork: true, containers: [{name: c, image: i}]}",
            "spec: {serviceAccountName: other, containers: [{name: c, image: i}]}",
            "spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}",
            "spec: {containers: [{name: c, image: i, securityContext: {privileged: true}}]}",
            "spec: {containers: [{name: c, image: i}, {name: d, image: i}]}",
        ] {
            let names = names_with(&all, spec, &format!("{changed}{after}"));
            assert_eq!(names, ["Deployment a/web", "Pod a/web-1-x"], "{changed}");
        }
        let names = names_with(
            &all,
            "labels: {app: web}}",
            "labels: {app: web}, annotations: {k8s.v1.cni.cncf.io/networks: other}}",
        );
        assert_eq!(names, ["Deployment a/web", "Pod a/web-1-x"]);
        // Another image is no other verdict.
        let names = names_with(&all, spec, &format!("spec: {{containers: [{{name: c, image: j}}]}}{after}"));
        assert_eq!(names, ["Pod a/web-1-x"]);
    }

    #[test]
    fn a_rollout_is_judged_by_its_new_template_and_by_the_pods_of_the_old() {
        let names =
            names_with(&format!("{DEPLOYMENT}{POD}"), "labels: {app: web}}", "labels: {app: web, v: '2'}}");
        assert_eq!(names, ["Deployment a/web", "Pod a/web-1-x"]);
        // The old ReplicaSet without a pod in the input, too: there may be some.
        let names = names_with(DEPLOYMENT, "labels: {app: web}}", "labels: {app: web, v: '2'}}");
        assert_eq!(names, ["Deployment a/web", "ReplicaSet a/web-1"]);
        // One that is scaled to nothing is history.
        let old = DEPLOYMENT.replacen("labels: {app: web}}", "labels: {app: web, v: '2'}}", 1);
        let names = names_with(
            &old,
            "spec: {template: {metadata: {labels: {app: web, pod",
            "spec: {replicas: 0, template: {metadata: {labels: {app: web, pod",
        );
        assert_eq!(names, ["Deployment a/web"]);
    }

    #[test]
    fn a_pod_that_has_finished_stands_for_no_template() {
        let names = names_with(
            &format!("{DEPLOYMENT}{POD}"),
            "spec: {containers: [{name: c, image: i}]}\n",
            "spec: {containers: [{name: c, image: i}]}\nstatus: {phase: Failed}\n",
        );
        assert_eq!(names, ["Deployment a/web", "Pod a/web-1-x"]);
    }

    const CRON: &str = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: cj, namespace: a}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: cj-1, namespace: a, ownerReferences: [{apiVersion: batch/v1, kind: CronJob, name: cj, controller: true}]}
spec: {template: {metadata: {labels: {app: web, job-name: cj-1}}, spec: {containers: [{name: c, image: i}]}}}
status: {}
";

    #[test]
    fn a_job_of_an_older_template_is_judged_until_it_is_over() {
        assert_eq!(names(CRON), ["CronJob a/cj"]);
        let old = CRON.replacen("labels: {app: web, job", "labels: {app: old, job", 1);
        assert_eq!(names(&old), ["CronJob a/cj", "Job a/cj-1"]);
        let over = "status: {conditions: [{type: Complete, status: 'True'}]}";
        assert_eq!(names_with(&old, "status: {}", over), ["CronJob a/cj"]);
    }

    #[test]
    fn an_owner_that_makes_no_such_thing_stands_for_nothing() {
        let owned = |owner: &str, kind: &str| {
            names(&format!(
                "{DEPLOYMENT}\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: x, namespace: a, ownerReferences: [{{{owner}, name: web, controller: true}}]}}\nspec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}\n"
            ))
        };
        let both = |kind: &str| ["Deployment a/web".to_owned(), format!("{kind} a/x")];
        assert_eq!(owned("apiVersion: apps/v1, kind: Deployment", "Deployment"), both("Deployment"));
        assert_eq!(
            owned("apiVersion: foo.example.com/v1, kind: Deployment", "ReplicaSet"),
            both("ReplicaSet")
        );
        assert_eq!(owned("apiVersion: apps/v1, kind: Deployment", "ReplicaSet"), ["Deployment a/web"]);
    }

    #[test]
    fn a_pool_is_judged_by_what_the_operator_makes_of_it_until_that_is_there() {
        let pool = "
apiVersion: mpegflow.io/v1alpha1
kind: WorkerPool
metadata: {name: p, namespace: a}
spec: {tenant: acme, class: cpu}
---
";
        let cluster = read(pool).unwrap().cluster;
        let pod = cluster.pods.first().unwrap();
        assert_eq!(pod.object.to_string(), "WorkerPool a/p");
        assert!(pod.is_template);
        assert_eq!(&*pod.service_account, "p-worker");
        let labels: Vec<String> = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            labels,
            [
                "app.kubernetes.io/managed-by=mpegflow-operator",
                "app.kubernetes.io/name=mpegflow-worker",
                "mpegflow.io/pool=p",
                "mpegflow.io/tenant=acme"
            ]
        );
        let made = format!("{pool}
apiVersion: apps/v1
kind: Deployment
metadata: {{name: p-worker, namespace: a, ownerReferences: [{{apiVersion: mpegflow.io/v1alpha1, kind: WorkerPool, name: p, controller: true}}]}}
spec: {{template: {{metadata: {{labels: {{app.kubernetes.io/name: mpegflow-worker, app.kubernetes.io/managed-by: mpegflow-operator, mpegflow.io/pool: p, mpegflow.io/tenant: acme}}}}, spec: {{serviceAccountName: p-worker, containers: [{{name: worker, image: i}}]}}}}}}
");
        // The Deployment says how the pods are hardened, and stands for the pool.
        assert_eq!(names(&made), ["Deployment a/p-worker"]);
        let other = names_with(&made, "mpegflow.io/tenant: acme", "mpegflow.io/tenant: evil");
        assert_eq!(other, ["WorkerPool a/p", "Deployment a/p-worker"]);
    }

    #[test]
    fn a_job_of_keda_is_a_workload() {
        let text = "apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {name: j, namespace: a}\nspec: {jobTargetRef: {template: {metadata: {labels: {app: w}}, spec: {hostNetwork: true, containers: []}}}}\n";
        let cluster = read(text).unwrap().cluster;
        let pod = cluster.pods.first().unwrap();
        assert!(pod.is_template && pod.host_network && pod.labels.contains_key("app"));
    }

    #[test]
    fn an_address_of_ipv4_in_ipv6_is_an_error_wherever_it_stands() {
        for (kind, rest) in [
            ("v1, kind: Pod", "spec: {}, status: {podIP: '::ffff:10.0.1.3'}"),
            ("v1, kind: Pod", "spec: {}, status: {podIPs: [{ip: '::ffff:a00:103'}]}"),
            ("v1, kind: Node", "status: {addresses: [{type: InternalIP, address: '::ffff:10.0.1.3'}]}"),
            ("v1, kind: Service", "spec: {clusterIP: '::ffff:10.0.1.3'}"),
            ("v1, kind: Service", "spec: {externalIPs: ['::ffff:10.0.1.3']}"),
            ("v1, kind: Service", "spec: {}, status: {loadBalancer: {ingress: [{ip: '::ffff:10.0.1.3'}]}}"),
            ("v1, kind: Endpoints", "subsets: [{addresses: [{ip: '::ffff:10.0.1.3'}]}]"),
            (
                "discovery.k8s.io/v1, kind: EndpointSlice",
                "addressType: IPv6, endpoints: [{addresses: ['::ffff:10.0.1.3']}]",
            ),
        ] {
            let labels = "labels: {kubernetes.io/service-name: s}";
            let text = format!("\n{{apiVersion: {kind}, metadata: {{name: a, {labels}}}, {rest}}}\n");
            let error = read(&text).unwrap_err().to_string();
            assert!(
                error.starts_with("in.yaml:2:") && error.contains("not mapped into IPv6"),
                "{rest}: {error}"
            );
        }
    }

    #[test]
    fn a_kind_that_is_not_known_is_an_error_that_names_the_way_out() {
        let rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\n";
        assert_eq!(
            read(rollout).unwrap_err().to_string(),
            "in.yaml:1:1: Rollout of argoproj.io/v1alpha1 is not known: it may make pods or policies; if it does not, \
             leave it out with --ignore-kind Rollout.argoproj.io"
        );
        let old = "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: r}\n";
        let message = read(old).unwrap_err().to_string();
        assert!(
            message.contains("not known in version v1beta1") && message.contains("write it as v1"),
            "{message}"
        );
    }

    #[test]
    fn what_a_pod_declares_is_read() {
        let pod = "
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: a, labels: {app: x}}
spec:
  hostNetwork: true
  nodeName: n1
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - {name: t, projected: {sources: [{serviceAccountToken: {audience: broker, path: t}}]}}
  - {name: h, hostPath: {path: /var}}
  containers:
  - name: c
    image: i
    ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP, hostPort: 53}]
    securityContext: {capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}, {ip: 'fd00::7'}]}
";
        let cluster = read(pod).unwrap().cluster;
        let pod = cluster.pods.first().unwrap();
        assert!(pod.host_network && !pod.finished && !pod.is_template);
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!(
            pod.ports.iter().map(|p| (p.name.as_deref(), p.port, p.host_port)).collect::<Vec<_>>(),
            [(Some("http"), 8080, None), (None, 53, Some(53))]
        );
        let security = &pod.security;
        assert_eq!(security.automount_token, Some(false));
        assert_eq!(security.projected_audiences, [Arc::from("broker")]);
        assert_eq!(
            security.host_paths.iter().map(|(path, at)| (&**path, at.line)).collect::<Vec<_>>(),
            [("/var", 12)]
        );
        let container = security.containers.first().unwrap();
        assert_eq!((container.read_only_root, container.capabilities_dropped.len()), (Some(true), 1));
    }

    #[test]
    fn a_port_of_zero_is_an_error_with_its_place() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: 0\n";
        assert_eq!(
            read(service).unwrap_err().to_string(),
            "in.yaml:6:11: spec.ports[0].port must be an integer from 1 to 65535, is an integer (0)"
        );
    }
}
