//! What a pool is scaled to while nobody can read how deep its queue is.
//!
//! KEDA 2.20 falls back by itself where Redis answers with errors. Where Redis lets nobody in, it drops its scaler at the first failed poll;
//! making another begins with a `PING` that fails as well, and what has no scaler counts no failures. What is left is
//! `status.health` of the ScaledObject: *Failing* from that first poll until one succeeds. The operator goes on from there.

use super::context::Context;
use super::pool::{self, PoolError};
use crate::crd::WorkerPool;
use crate::desired::{self, Child, Fallback, Kind};
use crate::settings::MANAGER;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::time::{Duration, Instant};

/// Scales a pool as its `scale.fallback` says, if it has one and it is time for it. When to look again, if nothing tells before.
pub(super) async fn keep(
    pool: &WorkerPool,
    context: &Context,
    children: &[Child],
) -> Result<Option<Duration>, PoolError> {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let scaled_object = children.iter().find(|child| child.kind == Kind::ScaledObject);
    let (Some(scaled_object), Some(_)) = (scaled_object, &pool.spec.scale.fallback) else {
        context.depth_is_read(&namespace, &name);
        return Ok(None);
    };
    let live = context.objects.get(Kind::ScaledObject, &namespace, &scaled_object.name).await?;
    if !live.as_ref().is_some_and(desired::is_blind) {
        context.depth_is_read(&namespace, &name);
        return Ok(None);
    }
    let blind = context.depth_is_unread(&namespace, &name, Instant::now());
    let replicas = match desired::fallback(&pool.spec.scale, blind) {
        Fallback::Not => return Ok(None),
        Fallback::In(wait) => return Ok(Some(wait)),
        Fallback::To(replicas) => replicas,
    };
    let api: Api<PartialObjectMeta<WorkerPool>> = Api::namespaced(context.client.clone(), &namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = json!({ "spec": { "scale": { "replicas": replicas } } });
    match api.patch(&name, &params, &Patch::Merge(patch)).await {
        // The change itself has the pool looked at again.
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let note = format!(
        "KEDA has not been able to read the depth of the queue for {} s: {replicas} workers, as scale.fallback says",
        blind.as_secs()
    );
    pool::publish(pool, context, EventType::Warning, "FellBack".into(), &note).await;
    Ok(None)
}
