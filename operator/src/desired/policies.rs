//! Network policies: an intent, and what `mpegflow-policies` makes of it.

use super::{Child, Kind, Refused, World, endpoint, labels, name, owner, selector};
use crate::crd::{Dialect, WorkerPool};
use crate::settings::Settings;
use kube::ResourceExt as _;
use mpegflow_policies::cluster::Labels;
use mpegflow_policies::emit::{BrokerPeer, PoolIntent};
use mpegflow_policies::policy;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn policies(pool: &WorkerPool, settings: &Settings, world: &World) -> Result<Vec<Child>, Refused> {
    let intent = intent(pool, settings, world)?;
    let mut children = Vec::new();
    for (kind, dialect) in dialects(pool, world)? {
        for mut object in intent.policies(dialect)? {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("ownerReferences".into(), json!([owner(pool)]));
            }
            children.push(Child::new(kind, object));
        }
    }
    Ok(children)
}

fn dialects(pool: &WorkerPool, world: &World) -> Result<Vec<(Kind, policy::Dialect)>, Refused> {
    let mut dialects = vec![(Kind::NetworkPolicy, policy::Dialect::NetworkPolicy)];
    let others = [
        (Dialect::Cilium, Kind::CiliumNetworkPolicy, policy::Dialect::Cilium),
        (Dialect::Calico, Kind::CalicoNetworkPolicy, policy::Dialect::Calico),
    ];
    let wanted = &pool.spec.isolation.dialects;
    for (named, kind, dialect) in others {
        let known = world.kinds.contains(&kind);
        if wanted.contains(&named) && !known {
            return Err(Refused::Dialect(named));
        }
        if known && (wanted.contains(&named) || wanted.contains(&Dialect::Auto)) {
            dialects.push((kind, dialect));
        }
    }
    Ok(dialects)
}

fn intent(pool: &WorkerPool, settings: &Settings, world: &World) -> Result<PoolIntent, Refused> {
    let storage = pool.spec.storage.endpoints.iter();
    let storage = storage
        .map(|text| endpoint::parse(text).ok_or_else(|| Refused::Endpoint(text.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let own: BTreeMap<String, String> =
        labels(pool).into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect();
    Ok(PoolIntent {
        name: name(pool).into(),
        namespace: pool.namespace().unwrap_or_default().into(),
        pods: shared(&selector(pool)),
        labels: shared(&own),
        broker: BrokerPeer {
            namespace: settings.broker.namespace.as_str().into(),
            pods: shared(&world.broker.pods),
            port: world.broker.target_port,
            service: Some((world.broker.addresses.clone(), world.broker.port)),
        },
        storage,
        // The operator writes the broker's address into the pods; nobody needs a resolver.
        dns: None,
    })
}

fn shared(labels: &BTreeMap<String, String>) -> Labels {
    labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}
