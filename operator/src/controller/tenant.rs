//! One tenant: how many pools name it, and whether they may.

use super::context::Context;
use crate::control::ControlError;
use crate::crd::{Condition, ConditionStatus, Tenant, TenantStatus};
use crate::settings::MANAGER;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;

/// Counting costs no request.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// How often the broker is tried.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

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
    use ConditionStatus::{False, True};
    let (facts, again) = match super::push::tenant(&tenant, &context).await {
        Ok(()) => {
            let unknown = tenant.spec.quotas.as_ref().is_some_and(|quotas| quotas.minutes_per_day.is_some());
            let message = if unknown {
                "pools that it allows may name it; quotas.minutesPerDay is not enforced yet"
            } else {
                "pools that it allows may name it"
            };
            let (ready, not) = (("Ready", True, "Accepted", message.to_owned()), String::new());
            (
                [ready, ("Reconciling", False, "Accepted", not.clone()), ("Stalled", False, "Accepted", not)],
                AGAIN,
            )
        }
        Err(error @ ControlError::Refused { .. }) => {
            let message = error.to_string();
            let not = ("Reconciling", False, "BrokerRefuses", String::new());
            (
                [
                    ("Ready", False, "BrokerRefuses", message.clone()),
                    not,
                    ("Stalled", True, "BrokerRefuses", message),
                ],
                AGAIN,
            )
        }
        Err(error) => {
            tracing::debug!(tenant = name, %error, "the broker is away");
            let message = "the broker's control API cannot be asked".to_owned();
            let not = ("Stalled", False, "BrokerAway", String::new());
            (
                [
                    ("Ready", False, "BrokerAway", message.clone()),
                    ("Reconciling", True, "BrokerAway", message),
                    not,
                ],
                SOON,
            )
        }
    };
    let now = jiff::Timestamp::now();
    status.conditions = facts
        .into_iter()
        .map(|(kind, is, reason, message)| Condition::new(kind, is, (reason, &message), generation, now, old))
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
    Ok(Action::requeue(again))
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
