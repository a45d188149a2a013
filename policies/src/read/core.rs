//! Kinds that hold who is in a cluster: namespaces, nodes, pods and what makes pods, Services and their backends, accounts.
//! Of these only what policies and the audit look at is read; the rest of their fields is of no concern here.

use super::object::{Field, IntOrString, Invalid, Object};
use super::pod::{self, PodOrigin};
use super::{Document, ReadError, Value};
use crate::audit::intent::{POOL_LABEL, TENANT_LABEL};
use crate::cluster::{
    Cluster, ContainerPort, Endpoints, Labels, Namespace, Node, NodePort, Pod, PodSecurity, Service,
    ServiceAccount, ServicePort, Setting, TargetPort, UnknownBalancer, WorkerPool,
};
use crate::hardening::ContainerSecurity;
use crate::sets::{AddressSet, Cidr, Protocol};
use crate::source::ObjectRef;
use std::net::IpAddr;
use std::sync::Arc;

/// Group, versions and kind of what is read here.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
    ("", &["v1"], "Namespace"),
    ("", &["v1"], "Node"),
    ("", &["v1"], "Pod"),
    ("", &["v1"], "ReplicationController"),
    ("", &["v1"], "Service"),
    ("", &["v1"], "Endpoints"),
    ("", &["v1"], "ServiceAccount"),
    ("discovery.k8s.io", &["v1"], "EndpointSlice"),
    ("apps", &["v1"], "Deployment"),
    ("apps", &["v1"], "StatefulSet"),
    ("apps", &["v1"], "DaemonSet"),
    ("apps", &["v1"], "ReplicaSet"),
    ("batch", &["v1"], "Job"),
    ("batch", &["v1"], "CronJob"),
    ("keda.sh", &["v1alpha1"], "ScaledJob"),
    ("cilium.io", &["v2"], "CiliumEndpoint"),
    ("cilium.io", &["v2alpha1", "v2"], "CiliumNodeConfig"),
    ("crd.projectcalico.org", &["v1"], "FelixConfiguration"),
    ("projectcalico.org", &["v3"], "FelixConfiguration"),
    ("operator.tigera.io", &["v1"], "Installation"),
    ("mpegflow.io", &["v1alpha1"], "WorkerPool"),
];

/// Reads one of [`KINDS`] into the cluster.
pub(super) fn read(document: &Document, cluster: &mut Cluster) -> Result<(), ReadError> {
    let root = Object::of(document);
    // Nothing here is a policy; a field that is not read cannot change what a policy allows.
    let metadata = root.required("metadata")?.object()?;
    let labels = labels(metadata.optional("labels"))?;
    match &*document.kind {
        "Namespace" => namespace(document, &metadata, labels, cluster)?,
        "Node" => node(document, &root, labels, cluster)?,
        "Service" => service(document, &root, labels, cluster)?,
        "Endpoints" => endpoints(document, &root, cluster)?,
        "EndpointSlice" => endpoint_slice(document, &root, &labels, cluster)?,
        "ServiceAccount" => {
            let automount_token = root.bool("automountServiceAccountToken")?;
            let account = ServiceAccount { at: document.at.clone(), labels, automount_token };
            cluster.service_accounts.insert((namespace_of(document), name_of(document)?), account);
        }
        "CiliumEndpoint" => {
            cluster.cilium_endpoints.insert((namespace_of(document), name_of(document)?));
        }
        "WorkerPool" => worker_pool(document, &root, cluster)?,
        "Pod" => {
            let networks = pod::networks(&metadata)?;
            let origin = PodOrigin { document, owner: owner(&metadata)?, is_template: false, networks };
            cluster.pods.push(pod::read(&origin, &root, labels)?);
        }
        "CiliumNodeConfig" => own_settings(document, root.object("spec")?.as_ref(), "defaults", cluster)?,
        "FelixConfiguration" => own_settings(document, Some(&root), "spec", cluster)?,
        "Installation" => own_settings(document, root.object("spec")?.as_ref(), "calicoNetwork", cluster)?,
        _ => workload(document, &root, &metadata, cluster)?,
    }
    ignore_all(&root);
    Ok(())
}

/// The namespace of a namespaced object; `default` where the text has none, as for `kubectl apply`.
pub(super) fn namespace_of(document: &Document) -> Arc<str> {
    document.namespace.clone().unwrap_or_else(|| "default".into())
}

/// The name that an object must have.
pub(super) fn name_of(document: &Document) -> Result<Arc<str>, ReadError> {
    document.name.clone().ok_or_else(|| {
        ReadError::new(document.at.clone(), format!("{} has no metadata.name", document.kind))
            .hint("give it one; what generateName makes cannot be known here")
    })
}

/// What a namespaced document is called.
pub(super) fn object_ref(document: &Document) -> Result<ObjectRef, ReadError> {
    Ok(ObjectRef {
        group: document.group().into(),
        kind: document.kind.clone(),
        namespace: Some(namespace_of(document)),
        name: name_of(document)?,
    })
}

/// What a cluster-wide document is called.
pub(super) fn cluster_ref(document: &Document) -> Result<ObjectRef, ReadError> {
    Ok(ObjectRef {
        group: document.group().into(),
        kind: document.kind.clone(),
        namespace: None,
        name: name_of(document)?,
    })
}

/// A map of labels or annotations.
pub(super) fn labels(field: Option<Field<'_>>) -> Result<Labels, Invalid> {
    let Some(field) = field else { return Ok(Labels::new()) };
    field.map_of_shared()
}

/// A protocol of core objects; TCP where unset.
pub(super) fn protocol(object: &Object<'_>, key: &str) -> Result<Protocol, Invalid> {
    const CHOICES: &[(&str, Protocol)] =
        &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    object.optional(key).map_or(Ok(Protocol::Tcp), |field| field.choice(CHOICES))
}

/// A port number, 1 to 65535.
pub(super) fn port(field: &Field<'_>) -> Result<u16, Invalid> {
    let number = field.int_in(1..=65_535)?;
    u16::try_from(number).map_err(|_| field.invalid("a port"))
}

fn optional_port(object: &Object<'_>, key: &str) -> Result<Option<u16>, Invalid> {
    // 0 is how the API server writes "unset" for these.
    let Some(number) = object.int_in(key, 0..=65_535)? else { return Ok(None) };
    Ok(u16::try_from(number).ok().filter(|port| *port > 0))
}

/// Marks everything as read: for kinds of which only some fields matter.
fn ignore_all(object: &Object<'_>) {
    object.ignore_rest();
}

/// An address. One of IPv4 that is written as IPv6 belongs to no block of either family, and would escape every rule.
pub(super) fn address(field: &Field<'_>) -> Result<IpAddr, Invalid> {
    let text = field.string()?;
    match text.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(field.invalid("an IPv4 address written as IPv4, not mapped into IPv6"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(field.invalid("an IP address")),
    }
}

fn addresses(object: &Object<'_>, key: &str) -> Result<Vec<IpAddr>, Invalid> {
    object.list(key)?.iter().map(address).collect()
}

fn owner(metadata: &Object<'_>) -> Result<Option<ObjectRef>, Invalid> {
    for field in metadata.list("ownerReferences")? {
        let owner = field.object()?;
        let is_controller = owner.bool("controller")? == Some(true);
        if let (true, Some(kind), Some(name)) = (is_controller, owner.string("kind")?, owner.string("name")?)
        {
            let group =
                owner.string("apiVersion")?.and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
            return Ok(Some(ObjectRef {
                group: group.into(),
                kind: kind.into(),
                namespace: metadata.string("namespace")?.map(Arc::from),
                name: name.into(),
            }));
        }
    }
    Ok(None)
}

fn namespace(
    document: &Document,
    metadata: &Object<'_>,
    mut labels: Labels,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    let name = name_of(document)?;
    // The API server sets it on every namespace, whatever the manifest says.
    labels.insert("kubernetes.io/metadata.name".into(), name.clone());
    let annotations = self::labels(metadata.optional("annotations"))?;
    cluster.namespaces.insert(name, Namespace { at: document.at.clone(), labels, annotations });
    Ok(())
}

fn node(
    document: &Document,
    root: &Object<'_>,
    labels: Labels,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    let mut node_addresses = Vec::new();
    if let Some(status) = root.object("status")? {
        for field in status.list("addresses")? {
            let entry = field.object()?;
            if matches!(entry.string("type")?, Some("InternalIP" | "ExternalIP"))
                && let Some(value) = entry.optional("address")
            {
                node_addresses.push(address(&value)?);
            }
        }
    }
    let mut blocks = Vec::new();
    if let Some(spec) = root.object("spec")? {
        let cidr = |field: &Field<'_>| field.parsed("a CIDR block", |text| Cidr::parse_loose(text).ok());
        if let Some(field) = spec.optional("podCIDR") {
            blocks.push(cidr(&field)?);
        }
        for field in spec.list("podCIDRs")? {
            blocks.push(cidr(&field)?);
        }
    }
    node_addresses.sort_unstable();
    node_addresses.dedup();
    cluster.nodes.push(Node {
        name: name_of(document)?,
        at: document.at.clone(),
        labels,
        addresses: node_addresses,
        pod_cidrs: AddressSet::blocks(blocks),
    });
    Ok(())
}

fn service(
    document: &Document,
    root: &Object<'_>,
    labels: Labels,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    let spec = root.required("spec")?.object()?;
    let selector = match spec.optional("selector") {
        Some(field) => Some(self::labels(Some(field))?).filter(|selector| !selector.is_empty()),
        None => None,
    };
    let mut cluster_ips = Vec::new();
    let listed = spec.list("clusterIPs")?;
    let single = spec.optional("clusterIP");
    for field in single.iter().chain(&listed) {
        // "None" is a headless Service; "" is not assigned yet.
        if !matches!(field.string()?, "None" | "") {
            cluster_ips.push(address(field)?);
        }
    }
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    let mut external_ips = addresses(&spec, "externalIPs")?;
    let mut proxied_ips = Vec::new();
    let kind = spec.string("type")?.unwrap_or("ClusterIP");
    let mut unknown_balancer = (kind == "LoadBalancer").then_some(UnknownBalancer::Unassigned);
    let has_node_ports = match kind {
        "NodePort" => true,
        "LoadBalancer" => spec.bool("allocateLoadBalancerNodePorts")? != Some(false),
        _ => false,
    };
    let is_local = |key: &str| -> Result<bool, Invalid> { Ok(spec.string(key)? == Some("Local")) };
    if let Some(load_balancer) =
        root.object("status")?.map(|s| s.object("loadBalancer")).transpose()?.flatten()
    {
        for field in load_balancer.list("ingress")? {
            let entry = field.object()?;
            if let Some(ip) = entry.optional("ip") {
                external_ips.push(address(&ip)?);
                if entry.string("ipMode")? == Some("Proxy") {
                    proxied_ips.push(address(&ip)?);
                }
                unknown_balancer = unknown_balancer.filter(|known| *known == UnknownBalancer::ByName);
            } else if entry.optional("hostname").is_some() {
                unknown_balancer = Some(UnknownBalancer::ByName);
            }
        }
    }
    let mut ports = Vec::new();
    for field in spec.list("ports")? {
        let entry = field.object()?;
        let number = port(&entry.required("port")?)?;
        let target = match entry.optional("targetPort") {
            None => TargetPort::Number(number),
            Some(field) => match field.int_or_string()? {
                IntOrString::Int(0) => TargetPort::Number(number),
                IntOrString::Int(_) => TargetPort::Number(port(&field)?),
                // A number in quotes is a number to the API server, too.
                IntOrString::String(text) => {
                    text.parse().map_or_else(|_| TargetPort::Name(text.into()), TargetPort::Number)
                }
            },
        };
        ports.push(ServicePort {
            name: entry.string("name")?.map(Arc::from),
            protocol: protocol(&entry, "protocol")?,
            port: number,
            target,
            node_port: match optional_port(&entry, "nodePort")? {
                Some(number) => Some(NodePort::Number(number)),
                None => has_node_ports.then_some(NodePort::Unassigned),
            },
        });
    }
    cluster.services.push(Service {
        object: object_ref(document)?,
        at: document.at.clone(),
        namespace: namespace_of(document),
        kind: kind.into(),
        labels,
        selector,
        cluster_ips,
        external_ips,
        proxied_ips,
        unknown_balancer,
        internal_local: is_local("internalTrafficPolicy")?,
        external_local: is_local("externalTrafficPolicy")?,
        external_name: spec.string("externalName")?.filter(|name| !name.is_empty()).map(Arc::from),
        ports,
    });
    Ok(())
}

fn endpoint_ports(object: &Object<'_>) -> Result<Vec<ContainerPort>, Invalid> {
    let mut ports = Vec::new();
    for field in object.list("ports")? {
        let entry = field.object()?;
        let Some(number) = optional_port(&entry, "port")? else { continue };
        let name = entry.string("name")?.filter(|name| !name.is_empty()).map(Arc::from);
        ports.push(ContainerPort {
            name,
            protocol: protocol(&entry, "protocol")?,
            port: number,
            host_port: None,
            host_ip: None,
        });
    }
    Ok(ports)
}

fn target_pod(entry: &Object<'_>) -> Result<Option<Arc<str>>, Invalid> {
    let Some(target) = entry.object("targetRef")? else { return Ok(None) };
    let is_pod = target.string("kind")? == Some("Pod");
    Ok(target.string("name")?.filter(|_| is_pod).map(Arc::from))
}

fn endpoints(document: &Document, root: &Object<'_>, cluster: &mut Cluster) -> Result<(), ReadError> {
    for field in root.list("subsets")? {
        let subset = field.object()?;
        let mut addresses = Vec::new();
        for key in ["addresses", "notReadyAddresses"] {
            for field in subset.list(key)? {
                let entry = field.object()?;
                addresses.push((address(&entry.required("ip")?)?, target_pod(&entry)?));
            }
        }
        cluster.endpoints.push(Endpoints {
            namespace: namespace_of(document),
            service: name_of(document)?,
            at: document.at.clone(),
            addresses,
            ports: endpoint_ports(&subset)?,
        });
    }
    Ok(())
}

fn endpoint_slice(
    document: &Document,
    root: &Object<'_>,
    labels: &Labels,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    // A slice without this label belongs to no Service.
    let Some(service) = labels.get("kubernetes.io/service-name") else { return Ok(()) };
    if root.string("addressType")? == Some("FQDN") {
        return Ok(());
    }
    let mut addresses = Vec::new();
    for field in root.list("endpoints")? {
        let entry = field.object()?;
        let pod = target_pod(&entry)?;
        for field in entry.list("addresses")? {
            addresses.push((address(&field)?, pod.clone()));
        }
    }
    cluster.endpoints.push(Endpoints {
        namespace: namespace_of(document),
        service: service.clone(),
        at: document.at.clone(),
        addresses,
        ports: endpoint_ports(root)?,
    });
    Ok(())
}

fn workload(
    document: &Document,
    root: &Object<'_>,
    metadata: &Object<'_>,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    let mut spec = root.required("spec")?.object()?;
    match &*document.kind {
        "CronJob" => spec = spec.required("jobTemplate")?.object()?.required("spec")?.object()?,
        "ScaledJob" => spec = spec.required("jobTargetRef")?.object()?,
        // It makes no pod any more.
        "Job" if is_over(root)? => return Ok(()),
        _ => {}
    }
    let template = spec.required("template")?.object()?;
    let (labels, networks) = match template.object("metadata")? {
        Some(metadata) => (labels(metadata.optional("labels"))?, pod::networks(&metadata)?),
        None => (Labels::new(), None),
    };
    let origin = PodOrigin { document, owner: owner(metadata)?, is_template: true, networks };
    cluster.pods.push(pod::read(&origin, &template, labels)?);
    Ok(())
}

/// Whether a Job has completed or failed for good.
fn is_over(job: &Object<'_>) -> Result<bool, Invalid> {
    let Some(status) = job.object("status")? else { return Ok(false) };
    for field in status.list("conditions")? {
        let condition = field.object()?;
        let ends = matches!(condition.string("type")?, Some("Complete" | "Failed"));
        if ends && condition.string("status")? == Some("True") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the settings of an agent from an object of its own kind. What is no scalar sets nothing that is looked at.
fn own_settings(
    document: &Document,
    parent: Option<&Object<'_>>,
    key: &str,
    cluster: &mut Cluster,
) -> Result<(), ReadError> {
    let Some(field) = parent.and_then(|parent| parent.optional(key)) else { return Ok(()) };
    let object = ObjectRef {
        group: document.group().into(),
        kind: document.kind.clone(),
        namespace: document.namespace.clone(),
        name: name_of(document)?,
    };
    for (key, field) in field.entries()? {
        let value: Arc<str> = match &field.node().value {
            Value::String(text) => Arc::clone(text),
            Value::Bool(value) => value.to_string().into(),
            Value::Int(value) => value.to_string().into(),
            _ => continue,
        };
        cluster.settings.push(Setting { object: object.clone(), at: field.at(), key: key.into(), value });
    }
    Ok(())
}

/// ConfigMaps that say how policies are enforced. All others are of no concern.
const SETTINGS: [&str; 2] = ["cilium-config", "amazon-vpc-cni"];

/// Reads the settings of an agent, if this is where it keeps them.
///
/// # Errors
/// A value is no text.
pub(super) fn settings(document: &Document, cluster: &mut Cluster) -> Result<(), ReadError> {
    let is_agents = document.name.as_deref().is_some_and(|name| SETTINGS.contains(&name));
    if document.group() != "" || &*document.kind != "ConfigMap" || !is_agents {
        return Ok(());
    }
    let root = Object::of(document);
    let Some(data) = root.optional("data") else { return Ok(()) };
    for (key, field) in data.entries()? {
        let (object, at) = (object_ref(document)?, field.at());
        cluster.settings.push(Setting { object, at, key: key.into(), value: field.string()?.into() });
    }
    Ok(())
}

fn worker_pool(document: &Document, root: &Object<'_>, cluster: &mut Cluster) -> Result<(), ReadError> {
    let spec = root.required("spec")?.object()?;
    let mut storage_endpoints = Vec::new();
    // A brokered pool's workers have no business with an endpoint that somebody left in its storage.
    let storage = spec.object("storage")?;
    let presigned =
        storage.as_ref().map(|storage| storage.string("access")).transpose()?.flatten() == Some("Presigned");
    if let Some(storage) = storage.filter(|_| presigned) {
        for field in storage.list("endpoints")? {
            storage_endpoints.push(Arc::from(field.string()?));
        }
    }
    let pool = WorkerPool {
        object: object_ref(document)?,
        at: document.at.clone(),
        namespace: namespace_of(document),
        tenant: spec.string("tenant")?.map(Arc::from),
        storage_endpoints,
    };
    cluster.pods.push(worker(&pool));
    cluster.worker_pools.push(pool);
    Ok(())
}

/// The pods that the operator makes of a pool, as far as the pool decides it (`operator/src/desired`).
fn worker(pool: &WorkerPool) -> Pod {
    let name = &pool.object.name;
    let mut labels: Labels = [
        ("app.kubernetes.io/name", "mpegflow-worker"),
        ("app.kubernetes.io/managed-by", "mpegflow-operator"),
        (POOL_LABEL, name),
    ]
    .into_iter()
    .map(|(key, value)| (Arc::from(key), Arc::from(value)))
    .collect();
    if let Some(tenant) = &pool.tenant {
        labels.insert(TENANT_LABEL.into(), tenant.clone());
    }
    Pod {
        object: pool.object.clone(),
        at: pool.at.clone(),
        namespace: pool.namespace.clone(),
        labels,
        is_template: true,
        owner: None,
        addresses: Vec::new(),
        host_network: false,
        node: None,
        service_account: format!("{name}-worker").into(),
        ports: Vec::new(),
        finished: false,
        networks: None,
        security: PodSecurity {
            automount_token: Some(false),
            run_as_non_root: Some(true),
            seccomp: Some("RuntimeDefault".into()),
            containers: vec![ContainerSecurity {
                allow_privilege_escalation: Some(false),
                read_only_root: Some(true),
                capabilities_dropped: vec!["ALL".into()],
                ..ContainerSecurity::named("worker", &pool.at)
            }],
            ..PodSecurity::default()
        },
    }
}
