//! Documents → a [`Cluster`]: each kind to its reader, then what needs the whole.

use super::documents::{Input, Note, each};
use super::exceptions::Exceptions;
use super::kinds::{Concern, concern};
use super::{
    Document, ReadError, ReadErrors, access, admin_network_policy, calico, cilium, cluster_network_policy,
    core, exceptions, network_policy, unread,
};
use crate::cluster::{Cluster, Pod};
use crate::policy::Policy;
use crate::sets::AddressSet;
use crate::source::ObjectRef;
use std::collections::BTreeSet;
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
    for part in parts {
        append(&mut cluster, part.cluster);
        of_calico.extend(part.of_calico);
        of_cilium.extend(part.of_cilium);
        errors.append(part.errors);
        for (key, set) in part.exceptions {
            let out = exceptions.entry(key).or_insert_with(AddressSet::empty);
            *out = out.union(&set);
        }
    }
    drop_covered_templates(&mut cluster.pods);
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
            errors: ReadErrors::none(),
        }
    }
}

impl Part {
    fn take(&mut self, document: &Document, options: &ReadOptions) {
        let mut keep = |all: Vec<ReadError>| all.into_iter().for_each(|error| self.errors.push(error));
        match one(document, options, &mut self.cluster) {
            Ok(Read::Whole) => {}
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

/// Leaves out templates that others stand for: those whose owner has a template in the input, and those whose own pods are
/// there.
fn drop_covered_templates(pods: &mut Vec<Pod>) {
    type Key = (Arc<str>, Arc<str>, Arc<str>);
    let key = |object: &ObjectRef, namespace: &Arc<str>| -> Key {
        (object.kind.clone(), namespace.clone(), object.name.clone())
    };
    let templates: BTreeSet<Key> =
        pods.iter().filter(|pod| pod.is_template).map(|pod| key(&pod.object, &pod.namespace)).collect();
    let mut with_pods: BTreeSet<Key> = pods
        .iter()
        .filter(|pod| !pod.is_template)
        .filter_map(|pod| pod.owner.as_ref().map(|owner| key(owner, &pod.namespace)))
        .collect();
    // A Deployment has its pods through a ReplicaSet, a CronJob through a Job; no chain is longer.
    let through: Vec<Key> = pods
        .iter()
        .filter(|pod| pod.is_template && with_pods.contains(&key(&pod.object, &pod.namespace)))
        .filter_map(|pod| pod.owner.as_ref().map(|owner| key(owner, &pod.namespace)))
        .collect();
    with_pods.extend(through);
    pods.retain(|pod| {
        let owned = pod.owner.as_ref().is_some_and(|owner| templates.contains(&key(owner, &pod.namespace)));
        !pod.is_template || !(owned || with_pods.contains(&key(&pod.object, &pod.namespace)))
    });
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
metadata: {name: web-1-x, namespace: a, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]}
spec: {containers: [{name: c, image: i}]}
";

    #[test]
    fn a_template_stands_for_its_pods_only_where_they_are_not_in_the_input() {
        assert_eq!(names(DEPLOYMENT), ["Deployment a/web"]);
        assert_eq!(names(&format!("{DEPLOYMENT}{POD}")), ["Pod a/web-1-x"]);
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
