//! Makes the broker's copy of a pool and of a tenant what their resources say.

use super::context::Context;
use super::status::Standing;
use crate::control::ControlError;
use crate::crd::{IntakeRule, Tenant, WorkerPool};
use crate::desired;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use mpegflow_protocol::control;
use mpegflow_protocol::ids::TenantId;
use mpegflow_protocol::intake::CreateRule;

/// Certificates live an hour, and pods may not: so many generations of a pool's largest size may have one at once.
const GENERATIONS: u32 = 60;
/// One share, where a resource's weight is 1.
const SHARE: u32 = 100;

/// Whether a pool may give leases, as it is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Open<'a> {
    /// It may, where a verdict on what has this digest says so.
    Verified(&'a str),
    /// It may not: it ends, or its tenant does not allow it.
    No,
}

/// Pushes a pool, unless the broker has it. Its pods come after this: before it, nobody knows whose they are.
pub(super) async fn pool(pool: &WorkerPool, context: &Context, open: Open<'_>) -> Result<(), Standing> {
    let Some(broker) = &context.control else { return Ok(()) };
    let name = pool.name_any();
    let tenant: Option<TenantId> = pool.spec.tenant.as_ref().and_then(|name| {
        let tenant = context.tenants.get(&ObjectRef::new(name));
        tenant.and_then(|tenant| tenant.spec.id.parse().ok())
    });
    // A tenant's own pool never becomes a shared one. Closed, without anybody to say whose it is, it takes no pods either.
    let is_orphan = pool.spec.tenant.is_some() && tenant.is_none();
    if is_orphan && open != Open::No {
        let name = pool.spec.tenant.as_deref().unwrap_or_default();
        return Err(Standing::Stalled(
            "NoTenant".into(),
            format!("the id of the Tenant {name} cannot be read"),
        ));
    }
    let copy = control::Pool {
        namespace: pool.namespace().unwrap_or_default(),
        account: desired::name(pool),
        uid: pool.uid().unwrap_or_default(),
        observed_generation: u64::try_from(pool.metadata.generation.unwrap_or_default()).unwrap_or_default(),
        tenant,
        max_workers: match is_orphan {
            true => 0,
            false => u32::from(pool.spec.scale.max).saturating_mul(GENERATIONS).saturating_add(100),
        },
        closed: open == Open::No,
        policy: match open {
            Open::Verified(digest) => Some(digest.to_owned()),
            Open::No => None,
        },
        storage: desired::storage(pool),
    };
    let seen = context.seen.borrow().pool(&name).cloned();
    // A broker that lost its database lost this as well; one that nobody has heard yet is told again.
    let has_it = seen.is_some_and(|seen| seen.uid == copy.uid && seen.generation == copy.observed_generation);
    if has_it && context.was_pushed(&name, &copy) {
        return Ok(());
    }
    match broker.put_pool(&name, &copy).await {
        Ok(()) => {
            context.is_pushed(&copy.namespace.clone(), &name, Some(copy));
            Ok(())
        }
        // Its tenant is pushed by a reconciler of its own.
        Err(error @ ControlError::Refused { status: 422, .. }) => {
            Err(Standing::Failing("NotAtBroker".into(), error.to_string()))
        }
        Err(error @ ControlError::Refused { .. }) => {
            Err(Standing::Stalled("BrokerRefuses".into(), error.to_string()))
        }
        Err(_) if context.was_pushed(&name, &copy) => Ok(()),
        // What the network says differs each time; it would be a write each time.
        Err(ControlError::Away(why)) => {
            tracing::debug!(why, pool = name, "the broker is away");
            Err(Standing::Failing("BrokerAway".into(), "the broker's control API cannot be asked".into()))
        }
        Err(error @ ControlError::Here(_)) => Err(Standing::Failing("BrokerAway".into(), error.to_string())),
    }
}

/// Closes a pool, where the broker has it: nothing new begins in it.
pub(super) async fn close(pool: &WorkerPool, context: &Context) -> Result<(), Standing> {
    if context.control.is_none() {
        return Ok(());
    }
    let name = pool.name_any();
    let (has_it, answers) = {
        let seen = context.seen.borrow();
        let has_it = seen.pool(&name).is_some_and(|seen| Some(&seen.uid) == pool.meta().uid.as_ref());
        (has_it, seen.answers())
    };
    let was_told = context.has_pushed(&pool.namespace().unwrap_or_default(), &name);
    match (has_it || was_told, answers) {
        (true, _) => self::pool(pool, context, Open::No).await,
        // It was never told of this pool.
        (false, true) => Ok(()),
        (false, false) => {
            Err(Standing::Failing("BrokerAway".into(), "the broker's control API cannot be asked".into()))
        }
    }
}

/// Says that a pool is gone.
pub(super) async fn forget(pool: &WorkerPool, context: &Context) -> Result<(), ControlError> {
    let Some(broker) = &context.control else { return Ok(()) };
    broker.forget_pool(&pool.name_any(), &pool.uid().unwrap_or_default()).await?;
    context.is_pushed(&pool.namespace().unwrap_or_default(), &pool.name_any(), None);
    Ok(())
}

/// Pushes a tenant.
pub(super) async fn tenant(tenant: &Tenant, context: &Context) -> Result<(), ControlError> {
    let Some(broker) = &context.control else { return Ok(()) };
    broker.put_tenant(&tenant.spec.id, &copy(tenant)).await
}

/// Leaves a tenant nothing that it may begin: no job, no upload, and no task of what it has. What it has stays, but for what the
/// resource manages: with that gone, nobody could delete it.
pub(super) async fn suspend(tenant: &Tenant, context: &Context) -> Result<(), ControlError> {
    let Some(broker) = &context.control else { return Ok(()) };
    let nothing = control::Tenant {
        unfinished_jobs: Some(0),
        running_tasks: Some(0),
        upload_bytes: Some(0),
        minutes_per_day: Some(0),
        webhooks: Vec::new(),
        intake: Vec::new(),
        ..copy(tenant)
    };
    broker.put_tenant(&tenant.spec.id, &nothing).await
}

fn copy(tenant: &Tenant) -> control::Tenant {
    let quotas = tenant.spec.quotas.clone().unwrap_or_default();
    control::Tenant {
        name: tenant.name_any(),
        uid: tenant.uid().unwrap_or_default(),
        observed_generation: u64::try_from(tenant.metadata.generation.unwrap_or_default())
            .unwrap_or_default(),
        weight: u32::from(tenant.spec.weight).saturating_mul(SHARE),
        unfinished_jobs: quotas.queued,
        running_tasks: quotas.running,
        upload_bytes: quotas.bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        minutes_per_day: quotas.minutes_per_day,
        storage: tenant.spec.storage.clone().map(|storage| control::Storage {
            bucket: storage.bucket,
            prefix: storage.prefix.unwrap_or_default(),
            endpoint: storage.endpoint,
            region: storage.region,
            path_style: storage.path_style.unwrap_or_default(),
            role_arn: storage.role_arn,
            secret: storage.secret.map(|secret| secret.name),
        }),
        webhooks: tenant
            .spec
            .webhooks
            .iter()
            .map(|webhook| control::Webhook {
                name: webhook.name.clone(),
                url: webhook.url.clone(),
                types: webhook.types.iter().map(|kind| (*kind).into()).collect(),
            })
            .collect(),
        intake: tenant.spec.intake.iter().cloned().map(rule).collect(),
    }
}

fn rule(rule: IntakeRule) -> control::Rule {
    let IntakeRule { name, prefix, suffix, poll_seconds, existing, job } = rule;
    let rule = CreateRule {
        prefix: prefix.unwrap_or_default(),
        suffix: suffix.unwrap_or_default(),
        job: job.into(),
        poll_seconds,
        existing: existing.unwrap_or_default(),
    };
    control::Rule { name, rule }
}
