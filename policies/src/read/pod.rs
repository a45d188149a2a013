//! Pods and pod templates: labels, addresses, ports, and what their security settings say.

use super::core::{address, namespace_of, object_ref, port, protocol};
use super::object::{Invalid, Object};
use super::{Document, ReadError};
use crate::cluster::{ContainerPort, Labels, Pod};
use crate::hardening::{ContainerSecurity, PodSecurity};
use crate::source::ObjectRef;
use crate::truth::Doubt;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a pod comes from.
pub(super) struct PodOrigin<'a> {
    /// The document that it, or its template, is in.
    pub(super) document: &'a Document,
    /// Its controller.
    pub(super) owner: Option<ObjectRef>,
    /// Whether it is a workload's template.
    pub(super) is_template: bool,
    /// Networks beside the cluster's own that it asks for.
    pub(super) networks: Option<Doubt>,
}

/// Reads a pod from the object that has its `spec` (and, of a real pod, its `status`).
pub(super) fn read(origin: &PodOrigin<'_>, object: &Object<'_>, labels: Labels) -> Result<Pod, ReadError> {
    let spec = object.required("spec")?.object()?;
    let mut pod = Pod {
        object: object_ref(origin.document)?,
        at: origin.document.at.clone(),
        namespace: namespace_of(origin.document),
        labels,
        is_template: origin.is_template,
        owner: origin.owner.clone(),
        addresses: Vec::new(),
        host_network: spec.bool("hostNetwork")? == Some(true),
        node: spec.shared("nodeName")?.filter(|name| !name.is_empty()),
        service_account: spec
            .shared("serviceAccountName")?
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".into()),
        ports: Vec::new(),
        finished: false,
        networks: origin.networks.clone(),
        security: security(&spec)?,
    };
    for field in containers(&spec)?.into_iter().map(|(field, _)| field) {
        let container = field.object()?;
        for field in container.list("ports")? {
            let entry = field.object()?;
            pod.ports.push(ContainerPort {
                name: entry.shared("name")?.filter(|name| !name.is_empty()),
                protocol: protocol(&entry, "protocol")?,
                port: port(&entry.required("containerPort")?)?,
                host_port: match entry.int_in("hostPort", 0..=65_535)? {
                    None | Some(0) => None,
                    Some(number) => u16::try_from(number).ok(),
                },
                host_ip: host_ip(&entry)?,
            });
        }
        container.ignore_rest();
    }
    if let Some(status) = object.object("status")? {
        pod.finished = matches!(status.string("phase")?, Some("Succeeded" | "Failed"));
        if let Some(field) = status.optional("podIP").filter(|f| f.node().as_str() != Some("")) {
            pod.addresses.push(address(&field)?);
        }
        for field in status.list("podIPs")? {
            if let Some(field) = field.object()?.optional("ip") {
                pod.addresses.push(address(&field)?);
            }
        }
        pod.addresses.sort_unstable();
        pod.addresses.dedup();
        status.ignore_rest();
    }
    spec.ignore_rest();
    Ok(pod)
}

/// The one address of its node that a host port is open at. Every address is what an empty text and the unspecified ones mean.
fn host_ip(port: &Object<'_>) -> Result<Option<IpAddr>, Invalid> {
    let Some(field) = port.optional("hostIP").filter(|field| field.node().as_str() != Some("")) else {
        return Ok(None);
    };
    Ok(Some(address(&field)?).filter(|address| !address.is_unspecified()))
}

/// Networks beside the cluster's own that a pod asks Multus for.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// The network that Multus gives it instead of the cluster's own.
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";

/// Why traffic of pods with this metadata may pass where no policy sees it: they ask for networks of their own.
pub(super) fn networks(metadata: &Object<'_>) -> Result<Option<Doubt>, Invalid> {
    let Some(field) = metadata.optional("annotations") else { return Ok(None) };
    for (key, value) in field.entries()? {
        if ![NETWORKS, DEFAULT_NETWORK].contains(&key) {
            continue;
        }
        let asked = value.string()?.trim();
        if !matches!(asked, "" | "[]") {
            let shown: String = asked.chars().take(60).collect();
            let what = format!(
                "the annotation {key} asks for the network {shown:?}, and no policy of these kinds sees what passes there"
            );
            return Ok(Some(Doubt::at(what, &value.at())));
        }
    }
    Ok(None)
}

/// Containers of all three lists, with whether each runs before the others.
fn containers<'a>(spec: &Object<'a>) -> Result<Vec<(super::object::Field<'a>, bool)>, Invalid> {
    let mut all = Vec::new();
    for (key, init) in [("initContainers", true), ("containers", false), ("ephemeralContainers", false)] {
        all.extend(spec.list(key)?.into_iter().map(|field| (field, init)));
    }
    Ok(all)
}

fn security(spec: &Object<'_>) -> Result<PodSecurity, ReadError> {
    let mut security = PodSecurity {
        automount_token: spec.bool("automountServiceAccountToken")?,
        host_pid: spec.bool("hostPID")? == Some(true),
        host_ipc: spec.bool("hostIPC")? == Some(true),
        share_process_namespace: spec.bool("shareProcessNamespace")? == Some(true),
        ..PodSecurity::default()
    };
    if let Some(context) = spec.object("securityContext")? {
        security.run_as_non_root = context.bool("runAsNonRoot")?;
        security.run_as_user = context.int_in("runAsUser", 0..=i64::MAX)?;
        security.seccomp = seccomp(&context)?;
        context.ignore_rest();
    }
    for field in spec.list("volumes")? {
        let volume = field.object()?;
        if let Some(path) = volume.object("hostPath")?
            && let Some(field) = path.optional("path")
        {
            security.host_paths.push((field.string()?.into(), field.at()));
        }
        if let Some(secret) = volume.object("secret")?
            && let Some(field) = secret.optional("secretName")
        {
            security.secrets.push((field.string()?.into(), field.at()));
        }
        if let Some(projected) = volume.object("projected")? {
            for field in projected.list("sources")? {
                let source = field.object()?;
                if let Some(token) = source.object("serviceAccountToken")? {
                    security.projected_audiences.push(token.string("audience")?.unwrap_or("").into());
                    token.ignore_rest();
                }
                if let Some(secret) = source.object("secret")?
                    && let Some(field) = secret.optional("name")
                {
                    security.secrets.push((field.string()?.into(), field.at()));
                }
                source.ignore_rest();
            }
        }
        volume.ignore_rest();
    }
    for (field, init) in containers(spec)? {
        security.containers.push(container(&field.object()?, init, &mut security.secrets)?);
    }
    Ok(security)
}

fn seccomp(context: &Object<'_>) -> Result<Option<Arc<str>>, Invalid> {
    let Some(profile) = context.object("seccompProfile")? else { return Ok(None) };
    let kind = profile.shared("type")?;
    profile.ignore_rest();
    Ok(kind)
}

fn container(
    container: &Object<'_>,
    init: bool,
    secrets: &mut Vec<(Arc<str>, crate::source::At)>,
) -> Result<ContainerSecurity, ReadError> {
    let mut security = ContainerSecurity {
        name: container.shared("name")?.unwrap_or_default(),
        init,
        image: container.shared("image")?.unwrap_or_default(),
        ..ContainerSecurity::named("", &container.at())
    };
    if let Some(context) = container.object("securityContext")? {
        security.privileged = context.bool("privileged")? == Some(true);
        security.allow_privilege_escalation = context.bool("allowPrivilegeEscalation")?;
        security.read_only_root = context.bool("readOnlyRootFilesystem")?;
        security.run_as_non_root = context.bool("runAsNonRoot")?;
        security.run_as_user = context.int_in("runAsUser", 0..=i64::MAX)?;
        security.seccomp = seccomp(&context)?;
        security.unmasked_proc = context.string("procMount")? == Some("Unmasked");
        if let Some(capabilities) = context.object("capabilities")? {
            let names = |key| -> Result<Vec<Arc<str>>, Invalid> {
                capabilities.list(key)?.iter().map(|field| field.string().map(Arc::from)).collect()
            };
            security.capabilities_added = names("add")?;
            security.capabilities_dropped = names("drop")?;
        }
        context.ignore_rest();
    }
    let is_agent = crate::audit::is_agent(&security.image);
    if is_agent {
        let words = [container.list("command")?, container.list("args")?].concat();
        let words: Vec<&str> = words.iter().map(|field| field.string()).collect::<Result<_, _>>()?;
        security.settings = arguments(&words);
    }
    for field in container.list("env")? {
        let entry = field.object()?;
        let name = entry.string("name")?.filter(|_| is_agent);
        let value = entry.string("value")?;
        // What another object gives it is not known here.
        let value = value.or_else(|| entry.optional("valueFrom").map(|_| "(valueFrom)"));
        if let Some((name, value)) = name.zip(value) {
            security.settings.push((name.into(), value.into()));
        }
        let from = entry.object("valueFrom")?.map(|from| from.object("secretKeyRef")).transpose()?.flatten();
        if let Some(field) = from.as_ref().and_then(|from| from.optional("name")) {
            secrets.push((field.string()?.into(), field.at()));
        }
    }
    for field in container.list("envFrom")? {
        if let Some(field) = field.object()?.object("secretRef")?.and_then(|from| from.optional("name")) {
            secrets.push((field.string()?.into(), field.at()));
        }
    }
    Ok(security)
}

/// Flags of a command line: `--key=value`, `--key value`, and `--key`, which is true. A shell's text is taken apart at its blanks.
fn arguments(words: &[&str]) -> Vec<(Arc<str>, Arc<str>)> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let mut flags = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let Some(flag) = word.strip_prefix('-') else { continue };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (key, value) = flag.split_once('=').unwrap_or_else(|| {
            let next = words.get(i.saturating_add(1)).filter(|next| !next.starts_with('-'));
            (flag, next.copied().unwrap_or("true"))
        });
        flags.push((format!("--{key}").into(), value.trim_matches(['"', '\'']).into()));
    }
    flags
}
