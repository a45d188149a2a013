//! From a pool to the objects it needs. Pure: what the cluster is like comes in as [`World`].

mod canary;
mod child;
mod deployment;
mod endpoint;
mod policies;
mod scale;
mod scaled_object;
mod small;

pub use canary::{CANARY_LABEL, Target, canary, canary_on, policy_digest, targets};
pub(crate) use child::applied;
pub use child::{Child, Kind};
pub use scale::{Fallback, Held, Replicas, fallback, is_blind, wanted};

use crate::crd::{Access, Dialect, WorkerPool};
use crate::settings::Settings;
use kube::ResourceExt as _;
use mpegflow_policies::audit::intent::{POOL_LABEL, TENANT_LABEL};
use mpegflow_policies::emit::EmitError;
use mpegflow_protocol::endpoint::StorageEndpoint;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What of the cluster decides about a pool's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// The broker.
    pub broker: Broker,
    /// Kinds that the cluster knows besides Kubernetes' own.
    pub kinds: BTreeSet<Kind>,
}

/// How workers reach the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Addresses of its Service.
    pub addresses: Vec<IpAddr>,
    /// Port of the worker API on the Service.
    pub port: u16,
    /// The same on its pods.
    pub target_port: u16,
    /// Labels that select its pods.
    pub pods: BTreeMap<String, String>,
}

impl Broker {
    /// Nobody: policies of it let nothing out.
    pub fn nobody() -> Self {
        Self {
            addresses: Vec::new(),
            port: 1,
            target_port: 1,
            pods: BTreeMap::from([("mpegflow.io/broker".to_owned(), "nobody".to_owned())]),
        }
    }
}

/// Why no objects are made of a pool. Nothing of it changes until somebody mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A storage endpoint that cannot be read.
    #[error(
        "storage.endpoints has {0:?}; write ADDRESS:PORT or ADDRESS/BITS:PORT, such as 192.0.2.10:443 or [2001:db8::/64]:443"
    )]
    Endpoint(String),
    /// The policies say no.
    #[error("{0}")]
    Policy(#[from] EmitError),
    /// A dialect that was asked for and that the cluster does not know.
    #[error(
        "isolation.dialects names {0:?}, and the cluster does not know that kind: install its definitions, or write Auto"
    )]
    Dialect(Dialect),
}

impl Refused {
    /// One word for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "BadStorageEndpoint",
            Self::Policy(_) => "NoPolicy",
            Self::Dialect(_) => "UnknownDialect",
        }
    }
}

/// Name of every object of a pool: what users make beside it has other names.
pub fn name(pool: &WorkerPool) -> String {
    format!("{}-worker", pool.name_any())
}

/// Labels that select a pool's pods. Nothing that a CNI would drop is among them.
pub fn selector(pool: &WorkerPool) -> BTreeMap<String, String> {
    BTreeMap::from([(POOL_LABEL.to_owned(), pool.name_any())])
}

/// Storage that a pool's workers fetch from themselves, as its broker and they are told. None of a pool that names anything else: it
/// gets no policies either.
pub(crate) fn storage(pool: &WorkerPool) -> Vec<StorageEndpoint> {
    let storage = &pool.spec.storage;
    if storage.access != Access::Presigned {
        return Vec::new();
    }
    storage.endpoints.iter().map(|text| text.parse()).collect::<Result<_, _>>().unwrap_or_default()
}

/// All objects of a pool but how many replicas its Deployment has, in the order in which they are to be applied: what
/// locks comes before what runs.
///
/// # Errors
/// What must be mended by whoever wrote the pool.
pub fn children(pool: &WorkerPool, settings: &Settings, world: &World) -> Result<Vec<Child>, Refused> {
    let mut children = policies::policies(pool, settings, world)?;
    children.push(small::service_account(pool));
    children.push(small::join_file(pool, settings, world));
    children.push(small::disruption_budget(pool));
    children.push(deployment::deployment(pool, settings, world));
    if let (Some(depth), true) = (&settings.depth, world.kinds.contains(&Kind::ScaledObject)) {
        children.push(scaled_object::scaled_object(pool, depth));
    }
    Ok(children)
}

/// The policies of a pool alone.
///
/// # Errors
/// What must be mended by whoever wrote the pool.
pub fn policies(pool: &WorkerPool, settings: &Settings, world: &World) -> Result<Vec<Child>, Refused> {
    policies::policies(pool, settings, world)
}

/// The strictest that a pool may have: to the broker and to no storage, in every dialect that the cluster knows. For pools of which
/// nobody can say what their own are.
///
/// # Errors
/// Its name is none of which policies can be made.
pub fn strictest(pool: &WorkerPool, settings: &Settings, world: &World) -> Result<Vec<Child>, Refused> {
    let mut pool = pool.clone();
    pool.spec.storage = crate::crd::Storage::default();
    pool.spec.isolation.dialects = vec![Dialect::Auto];
    policies::policies(&pool, settings, world)
}

/// Kinds of policies among objects.
pub fn dialects(children: &[Child]) -> Vec<Dialect> {
    let dialect = |child: &Child| match child.kind {
        Kind::NetworkPolicy => Some(Dialect::NetworkPolicy),
        Kind::CiliumNetworkPolicy => Some(Dialect::Cilium),
        Kind::CalicoNetworkPolicy => Some(Dialect::Calico),
        _ => None,
    };
    children.iter().filter_map(dialect).collect()
}

/// `metadata` that every object of a pool has.
fn metadata(pool: &WorkerPool) -> Value {
    json!({
        "name": name(pool),
        "namespace": pool.namespace(),
        "labels": labels(pool),
        "ownerReferences": [owner(pool)],
    })
}

fn labels(pool: &WorkerPool) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert("app.kubernetes.io/name".into(), json!("mpegflow-worker"));
    labels.insert("app.kubernetes.io/managed-by".into(), json!(crate::settings::MANAGER));
    labels.insert(POOL_LABEL.into(), json!(pool.name_any()));
    if let Some(tenant) = &pool.spec.tenant {
        labels.insert(TENANT_LABEL.into(), json!(tenant));
    }
    labels
}

fn owner(pool: &WorkerPool) -> Value {
    json!({
        "apiVersion": "mpegflow.io/v1alpha1",
        "kind": "WorkerPool",
        "name": pool.name_any(),
        "uid": pool.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_strictest_policies_are_made_of_any_spec_in_every_dialect_and_of_no_broker_too() {
        let pool: WorkerPool = serde_json::from_value(json!({
            "apiVersion": "mpegflow.io/v1alpha1", "kind": "WorkerPool",
            "metadata": { "name": "a", "namespace": "media", "uid": "u" },
            "spec": {
                "class": "cpu", "image": "i", "resources": { "cpu": 2, "memory": "3Gi" },
                "storage": { "access": "Presigned", "endpoints": ["999.0.2.1:443"] },
                "isolation": { "dialects": ["Cilium"] },
            },
        }))
        .unwrap();
        let settings = Settings::new(crate::settings::BrokerService::default());
        let kinds = BTreeSet::from([Kind::CalicoNetworkPolicy, Kind::CiliumNetworkPolicy]);
        let world = World { broker: Broker::nobody(), kinds };
        assert!(policies(&pool, &settings, &world).is_err());
        let made = strictest(&pool, &settings, &world).unwrap();
        assert_eq!(dialects(&made), [Dialect::NetworkPolicy, Dialect::Cilium, Dialect::Calico]);
        let plain = &made[0].object["spec"];
        assert_eq!(plain["podSelector"]["matchLabels"], json!({ POOL_LABEL: "a" }));
        assert_eq!(plain["egress"].as_array().unwrap().len(), 1, "nobody's pods and no address: {plain}");
        assert_eq!(
            plain["egress"][0]["to"][0]["podSelector"]["matchLabels"],
            json!({ "mpegflow.io/broker": "nobody" })
        );
    }
}
