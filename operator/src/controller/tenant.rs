//! One tenant: how many pools name it, and whether they may.

use super::context::Context;
use crate::crd::{Condition, ConditionStatus, Tenant, TenantStatus};
use crate::settings::MANAGER;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;

/// Counting costs no request.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let name = tenant.name_any();
    let mut status = TenantStatus {
        observed_generation: tenant.metadata.generation,
        pools: 0,
        refused_pools: 0,
        conditions: Vec::new(),
    };
    for pool in context.pools.state() {
        if pool.spec.tenant.as_deref() != Some(&name) {
            continue;
        }
        let allowed = tenant.spec.allows(&pool.namespace().unwrap_or_default(), &pool.name_any());
        let count = if allowed { &mut status.pools } else { &mut status.refused_pools };
        *count = count.saturating_add(1);
    }
    let old = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = tenant.metadata.generation.unwrap_or_default();
    let facts = [
        ("Ready", ConditionStatus::True, "Accepted", "pools that it allows may name it"),
        ("Reconciling", ConditionStatus::False, "Accepted", ""),
        ("Stalled", ConditionStatus::False, "Accepted", ""),
    ];
    let now = jiff::Timestamp::now();
    status.conditions = facts
        .into_iter()
        .map(|(kind, is, reason, message)| Condition::new(kind, is, (reason, message), generation, now, old))
        .collect();
    if tenant.status.as_ref() != Some(&status) {
        let api: Api<Tenant> = Api::all(context.client.clone());
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match api.patch_status(&name, &params, &Patch::Merge(json!({ "status": status }))).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    context.succeeded("", &name);
    Ok(Action::requeue(AGAIN))
}

pub(super) fn retry(tenant: Arc<Tenant>, error: &kube::Error, context: Arc<Context>) -> Action {
    let wait = context.failed("", &tenant.name_any());
    tracing::warn!(
        tenant = tenant.name_any(),
        error = super::chain(error),
        wait_ms = wait.as_millis(),
        "tried again later"
    );
    Action::requeue(wait)
}
