//! One tenant: what the broker has of it, how many pools name it, and whether they may.

use super::context::Context;
use super::push;
use crate::control::ControlError;
use crate::crd::{Condition, ConditionStatus, Read, Tenant, TenantSpec, TenantStatus};
use crate::settings::MANAGER;
use kube::api::{Patch, PatchParams};
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::runtime::finalizer::{self, finalizer};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Keeps a tenant until the broker begins nothing more for it.
pub const TENANT_FINALIZER: &str = "mpegflow.io/suspend";
/// Counting costs no request.
const AGAIN: Duration = Duration::from_secs(60);
/// How often the broker is tried.
const SOON: Duration = Duration::from_secs(5);

/// Why a tenant is tried again.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The API server.
    #[error("the API server refused")]
    Kube(#[from] kube::Error),
    /// The broker was not told yet that it is gone.
    #[error("the broker is not told yet that the tenant is gone: {0}")]
    NotSuspended(String),
    /// Setting or taking away the finalizer.
    #[error("the finalizer")]
    Finalizer(#[source] Box<finalizer::Error<Self>>),
}

pub(super) async fn reconcile(
    tenant: Arc<Read<Tenant>>,
    context: Arc<Context>,
) -> Result<Action, TenantError> {
    // Where there is no broker to tell, nothing has to be kept.
    if context.control.is_none() && tenant.meta().deletion_timestamp.is_none() {
        return apply(&tenant, &context).await;
    }
    let api: Api<PartialObjectMeta<Tenant>> = Api::all(context.client.clone());
    let metadata = Arc::new(tenant.meta().clone().into_request_partial());
    let (tenant, context) = (&*tenant, &*context);
    let done = finalizer(&api, TENANT_FINALIZER, metadata, |event| async move {
        match event {
            finalizer::Event::Apply(_) => apply(tenant, context).await,
            finalizer::Event::Cleanup(_) => suspend(tenant, context).await,
        }
    })
    .await;
    match done {
        Ok(action) => Ok(action),
        Err(finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error)) => Err(error),
        Err(error) => Err(TenantError::Finalizer(Box::new(error))),
    }
}

async fn apply(tenant: &Read<Tenant>, context: &Context) -> Result<Action, TenantError> {
    let (facts, again) = match tenant.unread() {
        Some(unread) => (Facts::stalled("Unreadable", unread), AGAIN),
        None => match push::tenant(tenant, context).await {
            Ok(()) => (accepted(tenant, context.control.is_some()), AGAIN),
            Err(error @ ControlError::Refused { .. }) => {
                (Facts::stalled("BrokerRefuses", error.to_string()), AGAIN)
            }
            Err(error) => {
                tracing::debug!(tenant = tenant.name_any(), %error, "the broker is away");
                (away(), SOON)
            }
        },
    };
    report(tenant, context, facts).await?;
    context.succeeded("", &tenant.name_any());
    Ok(Action::requeue(again))
}

/// Ends the work of a tenant that is deleted: its pools first, then what it has in pools that are shared. Its data stays.
async fn suspend(tenant: &Read<Tenant>, context: &Context) -> Result<Action, TenantError> {
    let name = tenant.name_any();
    for pool in context.pools.state().iter().filter(|pool| pool.spec.tenant.as_deref() == Some(&*name)) {
        if push::close(pool, context).await.is_err() {
            return Err(
                not_suspended(tenant, context, format!("its pool {} is open", pool.name_any())).await?
            );
        }
    }
    // Nothing was ever pushed of a tenant without an id.
    if tenant.spec.id.is_empty() {
        return Ok(Action::await_change());
    }
    match push::suspend(tenant, context).await {
        Ok(()) => Ok(Action::await_change()),
        // The broker has another of that name or id, or none.
        Err(error @ ControlError::Refused { .. }) => {
            tracing::warn!(tenant = name, %error, "the broker does not suspend a tenant that is gone");
            let event = Event {
                type_: EventType::Warning,
                reason: "NotSuspended".into(),
                note: Some(error.to_string().chars().take(1000).collect()),
                action: "Reconcile".into(),
                secondary: None,
            };
            // It is for people; one that is lost costs nothing.
            let _ = context.recorder.publish(&event, &tenant.object_ref(&())).await;
            Ok(Action::await_change())
        }
        Err(error) => Err(not_suspended(tenant, context, error.to_string()).await?),
    }
}

async fn not_suspended(
    tenant: &Read<Tenant>,
    context: &Context,
    why: String,
) -> Result<TenantError, TenantError> {
    tracing::debug!(tenant = tenant.name_any(), why, "a tenant that is deleted waits for the broker");
    report(tenant, context, away()).await?;
    Ok(TenantError::NotSuspended(why))
}

/// `Ready`, `Reconciling` and `Stalled`, for one reason.
struct Facts {
    reason: &'static str,
    ready: (ConditionStatus, String),
    reconciling: (ConditionStatus, String),
    stalled: (ConditionStatus, String),
}

impl Facts {
    fn stalled(reason: &'static str, message: String) -> Self {
        use ConditionStatus::{False, True};
        let (ready, reconciling) = ((False, message.clone()), (False, String::new()));
        Self { reason, ready, reconciling, stalled: (True, message) }
    }
}

fn accepted(tenant: &Tenant, has_broker: bool) -> Facts {
    use ConditionStatus::{False, True};
    let TenantSpec { webhooks, intake, .. } = &tenant.spec;
    let ignored = [("spec.webhooks", !webhooks.is_empty()), ("spec.intake", !intake.is_empty())];
    if !has_broker && let Some((field, _)) = ignored.into_iter().find(|(_, is)| *is) {
        let message = "this operator runs without the broker's control API, so that nobody acts on it: run it with --control, or leave it out";
        return Facts::stalled("NoControl", format!("{field}: {message}"));
    }
    let not = (False, String::new());
    let ready = (True, "pools that it allows may name it".into());
    Facts { reason: "Accepted", ready, reconciling: not.clone(), stalled: not }
}

fn away() -> Facts {
    use ConditionStatus::{False, True};
    let message = "the broker's control API cannot be asked".to_owned();
    let (ready, reconciling) = ((False, message.clone()), (True, message));
    Facts { reason: "BrokerAway", ready, reconciling, stalled: (False, String::new()) }
}

/// Writes the status if it says anything new.
async fn report(tenant: &Read<Tenant>, context: &Context, facts: Facts) -> Result<(), TenantError> {
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
    let now = jiff::Timestamp::now();
    let all = [("Ready", facts.ready), ("Reconciling", facts.reconciling), ("Stalled", facts.stalled)];
    status.conditions = all
        .into_iter()
        .map(|(kind, (is, message))| Condition::new(kind, is, (facts.reason, &message), generation, now, old))
        .collect();
    if tenant.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<PartialObjectMeta<Tenant>> = Api::all(context.client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&name, &params, &Patch::Merge(json!({ "status": status }))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn retry(tenant: Arc<Read<Tenant>>, error: &TenantError, context: Arc<Context>) -> Action {
    if tenant.meta().deletion_timestamp.is_some() && matches!(error, TenantError::NotSuspended(_)) {
        return Action::requeue(SOON);
    }
    let wait = context.failed("", &tenant.name_any());
    tracing::warn!(
        tenant = tenant.name_any(),
        error = super::chain(error),
        wait_ms = wait.as_millis(),
        "tried again later"
    );
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_tenant_is_not_accepted_while_anything_of_it_is_ignored() {
        let tenant = |spec| -> Tenant {
            let object = json!({ "apiVersion": "mpegflow.io/v1alpha1", "kind": "Tenant", "metadata": {}, "spec": spec });
            serde_json::from_value(object).unwrap()
        };
        let facts = accepted(&tenant(json!({ "id": "t", "quotas": { "minutesPerDay": 5 } })), false);
        assert_eq!((facts.reason, facts.ready.0), ("Accepted", ConditionStatus::True));
        let hook = json!({ "name": "ops", "url": "https://a.example", "types": ["job.failed"] });
        let rule = json!({ "name": "in", "job": { "version": 1, "preset": "web" } });
        for (field, value) in [("webhooks", hook), ("intake", rule)] {
            let with = tenant(json!({ "id": "t", field: [value] }));
            assert_eq!(accepted(&with, true).reason, "Accepted");
            let facts = accepted(&with, false);
            assert_eq!((facts.reason, facts.ready.0), ("NoControl", ConditionStatus::False));
            let (stalled, says) = facts.stalled;
            assert_eq!(stalled, ConditionStatus::True);
            assert!(says.contains(&format!("spec.{field}")) && says.contains("--control"), "{says}");
        }
    }
}
