//! One pool: from its objects in the cluster to the ones it needs, from the beginning each time.

use super::context::Context;
use super::fallback;
use super::push::{self, Open};
use super::scale_in;
use super::status::{Applied, ISOLATION_VERIFIED, QUIET, Rollout, Standing, status};
use super::world::{self, Known};
use crate::cluster::ApplyError;
use crate::crd::{ConditionStatus, Dialect, LastScale, Read, WorkerPool, WorkerPoolStatus};
use crate::desired::{self, CANARY_LABEL, Child, Kind, Replicas};
use crate::gate::{Isolation, Key, Wanted};
use crate::settings::MANAGER;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::runtime::finalizer::{self, finalizer};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Keeps a pool until its last pod has gone: policies outlive what they stand around.
pub const FINALIZER: &str = "mpegflow.io/drain";
/// How often a pool is looked at that drains, or is larger than was asked for.
const AGAIN: Duration = Duration::from_secs(10);
/// How often any pool is looked at, should every watch have missed something. It costs one request, and no write.
const RESYNC: Duration = Duration::from_secs(900);
/// The same while it is being deleted; pods that go say so through their Deployment no longer.
const DRAINING: Duration = Duration::from_secs(2);

/// Why a pool is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// An object of it.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// The API server.
    #[error("the API server refused")]
    Kube(#[from] kube::Error),
    /// The cluster cannot be used as it is.
    #[error("{0}")]
    World(String),
    /// Setting or taking away the finalizer.
    #[error("the finalizer")]
    Finalizer(#[source] Box<finalizer::Error<Self>>),
}

/// Reconciles a pool.
///
/// # Errors
/// What is to be tried again.
pub(super) async fn reconcile(
    pool: Arc<Read<WorkerPool>>,
    context: Arc<Context>,
) -> Result<Action, PoolError> {
    let namespace = pool.namespace().unwrap_or_default();
    // Of its metadata alone: it may hold what nobody here can read.
    let api: Api<PartialObjectMeta<WorkerPool>> = Api::namespaced(context.client.clone(), &namespace);
    let name = pool.name_any();
    let metadata = Arc::new(pool.meta().clone().into_request_partial());
    let (pool, context) = (&*pool, &*context);
    let done = finalizer(&api, FINALIZER, metadata, |event| async move {
        match event {
            finalizer::Event::Apply(_) => apply(pool, context).await,
            finalizer::Event::Cleanup(_) => drain(pool, context).await,
        }
    })
    .await;
    match done {
        Ok(action) => {
            context.succeeded(&namespace, &name);
            Ok(action)
        }
        Err(finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error)) => Err(error),
        Err(error) => Err(PoolError::Finalizer(Box::new(error))),
    }
}

async fn apply(pool: &Read<WorkerPool>, context: &Context) -> Result<Action, PoolError> {
    let known = context.world.borrow().clone();
    // Before anything else, whatever else is wrong: its pods may run.
    let protected = protect(pool, context, &known).await;
    if let Err((reason, mut message)) = tenant_allows(pool, context) {
        let told = close(pool, context).await;
        if told.is_err() {
            message.push_str("; the broker could not be told yet, and gives its workers work");
        }
        report(pool, context, &Standing::Stalled(reason.into(), message), None).await?;
        protected?;
        return Ok(Action::requeue(if told.is_ok() { RESYNC } else { AGAIN }));
    }
    if let Err(error) = protected {
        // A conflict is over when it is tried again; to write it down would be noise.
        if !is_conflict(&error) {
            report(pool, context, &standing(&error), None).await?;
        }
        return Err(error.into());
    }
    if let Some(unread) = pool.unread() {
        report(pool, context, &Standing::Stalled("Unreadable".into(), unread), None).await?;
        return Ok(Action::requeue(RESYNC));
    }
    let world = match known {
        Ok(world) => world,
        Err(none) => {
            report(pool, context, &Standing::Failing("NoBroker".into(), none.why.clone()), None).await?;
            return Err(PoolError::World(none.why));
        }
    };
    let children = match desired::children(pool, &context.settings, &world) {
        Ok(children) => children,
        Err(refused) => {
            let standing = Standing::Stalled(refused.reason().into(), refused.to_string());
            report(pool, context, &standing, None).await?;
            return Ok(Action::requeue(RESYNC));
        }
    };
    // Before its pods: until the broker knows the pool, it knows nobody of them.
    let digest = desired::policy_digest(&children, &world);
    if let Err(standing) = push::pool(pool, context, Open::Verified(&digest)).await {
        report(pool, context, &standing, None).await?;
        // Soon: a broker that comes back says nothing of a pool that it does not know.
        return Ok(Action::requeue(AGAIN));
    }
    match put(pool, context, &children).await {
        Ok((mut applied, scaled)) => {
            applied.isolation = verify(pool, context, &world, &digest);
            applied.digest = Some(digest);
            let again = if applied.held.is_some() { AGAIN } else { RESYNC };
            report(pool, context, &Standing::Applied(applied), scaled).await?;
            let fallback = fallback::keep(pool, context, &children).await?;
            Ok(Action::requeue(fallback.map_or(again, |wait| wait.min(again))))
        }
        Err(error) => {
            if !is_conflict(&error) {
                report(pool, context, &standing(&error), None).await?;
            }
            Err(error.into())
        }
    }
}

/// Puts a pool's policies in place. Where nobody can say what they are (the spec cannot be used, or the broker is not there and was not
/// seen since the operator began), those that stand stay, unless somebody else has written into them: then they become the strictest.
async fn protect(pool: &Read<WorkerPool>, context: &Context, known: &Known) -> Result<(), ApplyError> {
    let (world, knows_broker) = world::last(known);
    let settings = &context.settings;
    let (policies, is_certain) = match desired::policies(pool, settings, &world) {
        Ok(policies) => (policies, knows_broker && pool.unread().is_none()),
        Err(_) => (desired::strictest(pool, settings, &world).unwrap_or_default(), false),
    };
    let namespace = pool.namespace().unwrap_or_default();
    let had = |kind: Kind| {
        let had =
            |dialect: Dialect| pool.status.as_ref().is_some_and(|status| status.policies.contains(&dialect));
        match kind {
            Kind::CiliumNetworkPolicy => had(Dialect::Cilium),
            Kind::CalicoNetworkPolicy => had(Dialect::Calico),
            _ => true,
        }
    };
    // One that is refused holds up no other.
    let mut failed = None;
    for policy in &policies {
        let done = if is_certain {
            context.objects.ensure(&namespace, policy).await
        } else {
            context.objects.keep(&namespace, policy, had(policy.kind)).await
        };
        match done {
            Ok(Some(written)) => {
                if let Some(gate) = &context.gate {
                    gate.touched(&key(pool), written.changed);
                }
            }
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Ends the work of a pool that its tenant does not allow: what runs goes on, nothing begins.
async fn close(pool: &WorkerPool, context: &Context) -> Result<(), Standing> {
    if let Some(gate) = &context.gate {
        gate.forget(&key(pool));
    }
    push::close(pool, context).await
}

/// Lets canaries try what was put in place; what is known of that, if anything is.
fn verify(pool: &WorkerPool, context: &Context, world: &desired::World, digest: &str) -> Option<Isolation> {
    let Some(gate) = &context.gate else {
        let message = "the operator has no broker's control API to tell (--control), so that nothing asks whether workers are isolated";
        return Some(Isolation::unknown("NoControl", message));
    };
    let settings = &context.settings;
    gate.wants(
        &key(pool),
        Wanted {
            uid: pool.uid().unwrap_or_default(),
            digest: digest.to_owned(),
            template: Arc::new(desired::canary(pool, settings, world)),
            targets: desired::targets(settings).into(),
            period: Duration::from_secs(pool.spec.isolation.canary_period_seconds.into()),
        },
    )
}

fn key(pool: &WorkerPool) -> Key {
    (pool.namespace().unwrap_or_default(), pool.name_any())
}

/// What is around the pods besides policies, first. If any of it fails, no pod is made, and what runs stays as it is.
async fn put(
    pool: &WorkerPool,
    context: &Context,
    children: &[Child],
) -> Result<(Applied, Option<LastScale>), ApplyError> {
    let namespace = pool.namespace().unwrap_or_default();
    let mut deployment = None;
    for child in children {
        match child.kind {
            Kind::Deployment => deployment = Some(child),
            Kind::ScaledObject => {}
            // They stand already.
            kind if kind.is_policy() => {}
            _ => drop(context.objects.ensure(&namespace, child).await?),
        }
    }
    let mut applied = Applied {
        replicas: 0,
        held: None,
        rollout: Rollout::default(),
        policies: desired::dialects(children),
        work: context.seen.borrow().pool(&pool.name_any()).map(super::status::Work::of),
        autoscaled: children.iter().any(|child| child.kind == Kind::ScaledObject),
        isolation: None,
        digest: None,
    };
    let mut scaled = None;
    if let Some(deployment) = deployment {
        let live = context.objects.get(Kind::Deployment, &namespace, &deployment.name).await?;
        let is_new = live.is_none();
        let current = live.as_ref().and_then(|live| live.pointer("/spec/replicas")).and_then(Value::as_i64);
        let current = current.and_then(|count| i32::try_from(count).ok()).unwrap_or_default();
        let replicas = scale_in::replicas(pool, context, current).await?;
        let child = deployment.clone().with_replicas(replicas.count);
        let written = context.objects.mend(&namespace, &child, live).await?;
        applied.replicas = replicas.count;
        applied.held = replicas.held;
        applied.rollout = Rollout::of(&written.object);
        if replicas.count != current && !is_new {
            scaled = Some(last_scale(pool, current, replicas));
        }
    }
    for child in children.iter().filter(|child| child.kind == Kind::ScaledObject) {
        context.objects.ensure(&namespace, child).await?;
    }
    let was_busy = pool.status.as_ref().is_some_and(|status| status.busy > 0);
    let is_busy = applied.work.as_ref().is_some_and(|work| work.busy > 0);
    let retired = context.seen.borrow().pool(&pool.name_any()).is_some_and(|seen| !seen.retired.is_empty());
    if was_busy || is_busy || retired {
        let pods = scale_in::started(pool, context).await?;
        scale_in::keep_busy(pool, context, &pods).await?;
        scale_in::replace_retired(pool, context, &pods).await?;
    }
    prune(pool, context, children).await?;
    Ok((applied, scaled))
}

/// Selects a pool's pods, its workers and its canaries.
fn selector(pool: &WorkerPool) -> String {
    let labels: Vec<String> =
        desired::selector(pool).iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

/// Selects a pool's workers.
pub(super) fn workers(pool: &WorkerPool) -> String {
    format!("{},!{CANARY_LABEL}", selector(pool))
}

async fn all_pods(pool: &WorkerPool, context: &Context) -> Result<i32, ApplyError> {
    let namespace = pool.namespace().unwrap_or_default();
    let counted = context.objects.pods(&namespace, &selector(pool)).await;
    counted.map_err(|source| ApplyError::Refused {
        kind: Kind::Deployment,
        name: desired::name(pool),
        source,
    })
}

fn last_scale(pool: &WorkerPool, from: i32, replicas: Replicas) -> LastScale {
    let scale = &pool.spec.scale;
    let reason = match replicas.held {
        Some(held) => format!("{} wanted, {} have started and may be at work", held.wanted, held.started),
        None => format!("{} wanted, within {} and {}", scale.replicas, scale.min, scale.max),
    };
    LastScale { from, to: replicas.count, reason, time: now().to_string() }
}

/// Takes away policies of kinds that are not wanted, and a ScaledObject where nothing scales any more.
async fn prune(pool: &WorkerPool, context: &Context, children: &[Child]) -> Result<(), ApplyError> {
    let known = world::kinds_of(&context.world.borrow()).clone();
    let was_autoscaled = pool.status.as_ref().is_some_and(|status| status.autoscaled);
    // Policies may have been made before anything was written of it.
    let had = |kind: Kind| kind.is_policy() || kind == Kind::ScaledObject && was_autoscaled;
    let namespace = pool.namespace().unwrap_or_default();
    for kind in known {
        if had(kind) && !children.iter().any(|child| child.kind == kind) {
            let uid = pool.uid().unwrap_or_default();
            context.objects.delete(kind, &namespace, &desired::name(pool), &uid).await?;
        }
    }
    Ok(())
}

/// Ends the pool's pods while their policies stay. Nothing of it needs that it was ever applied.
async fn drain(pool: &WorkerPool, context: &Context) -> Result<Action, PoolError> {
    let namespace = pool.namespace().unwrap_or_default();
    let name = desired::name(pool);
    let uid = pool.uid().unwrap_or_default();
    if let Some(gate) = &context.gate {
        gate.forget(&key(pool));
    }
    context.depth_is_read(&namespace, &pool.name_any());
    let knows_keda = world::kinds_of(&context.world.borrow()).contains(&Kind::ScaledObject);
    if knows_keda {
        context.objects.delete(Kind::ScaledObject, &namespace, &name, &uid).await?;
    }
    if let Some(busy) = at_work(pool, context).await {
        report(pool, context, &Standing::Draining(busy), None).await?;
        return Err(PoolError::World(format!("{busy} workers are at work")));
    }
    context.objects.delete(Kind::Deployment, &namespace, &name, &uid).await?;
    let pods = all_pods(pool, context).await?;
    if pods == 0 {
        return match push::forget(pool, context).await {
            Ok(()) => Ok(Action::await_change()),
            // Its account is deleted with it, so that nobody can come as one of its pods.
            Err(error) => {
                tracing::warn!(pool = pool.name_any(), %error, "the broker keeps a pool that is gone");
                Ok(Action::await_change())
            }
        };
    }
    report(pool, context, &Standing::Draining(pods), None).await?;
    Err(PoolError::World(format!("{pods} pods still drain")))
}

/// How many are at work in a pool that the broker gives nothing more to, as long as they may take their time.
async fn at_work(pool: &WorkerPool, context: &Context) -> Option<i32> {
    let broker = context.control.as_ref()?;
    let since = pool.metadata.deletion_timestamp.as_ref()?.0;
    let grace = i64::from(pool.spec.drain_grace_seconds);
    if now().duration_since(since).as_secs() >= grace {
        return None;
    }
    // Neither of these holds up the end of a pool: told to go, a worker drains by itself.
    if let Err(standing) = push::pool(pool, context, Open::No).await {
        tracing::info!(pool = pool.name_any(), ?standing, "the pool ends without its broker");
        return None;
    }
    let status = broker.status().await.ok()?;
    let own = status.pools.iter().find(|seen| seen.pool.as_str() == pool.name_any())?;
    let busy = own.workers.iter().filter(|worker| worker.busy).count();
    i32::try_from(busy).ok().filter(|busy| *busy > 0)
}

/// Whether the tenant that a pool names lets it work for it. Absence means no.
pub(super) fn tenant_allows(pool: &WorkerPool, context: &Context) -> Result<(), (&'static str, String)> {
    let Some(name) = &pool.spec.tenant else { return Ok(()) };
    let tenant = context.tenants.get(&kube::runtime::reflector::ObjectRef::new(name));
    let Some(tenant) = tenant else {
        return Err(("NoTenant", format!("there is no Tenant {name}: nothing new begins in its pools")));
    };
    if tenant.meta().deletion_timestamp.is_some() {
        return Err((
            "TenantDeleted",
            format!("the Tenant {name} is deleted: nothing new begins in its pools"),
        ));
    }
    let (namespace, pool) = (pool.namespace().unwrap_or_default(), pool.name_any());
    if tenant.spec.allows(&namespace, &pool) {
        return Ok(());
    }
    let message =
        format!("the Tenant {name} does not allow this pool: add {namespace}/{pool} to its allowedPools");
    Err(("NotAllowed", message))
}

/// What the API server says, as an error of its own (500), to an object with a field of another type.
const NOT_TYPED: &str = "failed to create typed patch object";

fn standing(error: &ApplyError) -> Standing {
    match error {
        ApplyError::Taken(taken) => Standing::Stalled("NameTaken".into(), taken.to_string()),
        ApplyError::Refused { source, .. } => {
            let message = match source {
                kube::Error::Api(status) => format!("{error}: {}", status.message),
                _ => error.to_string(),
            };
            match source {
                // Somebody must change the pool, or the cluster's rules.
                kube::Error::Api(status)
                    if matches!(status.code, 400 | 403 | 422) || status.message.contains(NOT_TYPED) =>
                {
                    Standing::Stalled("Refused".into(), message)
                }
                kube::Error::Api(_) => Standing::Failing("Retrying".into(), message),
                // What the network says differs each time; it would be a write each time.
                _ => {
                    Standing::Failing("Retrying".into(), format!("{error}: the API server cannot be reached"))
                }
            }
        }
    }
}

fn is_conflict(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Refused { source: kube::Error::Api(status), .. } if status.code == 409)
}

/// Writes the status if it says anything new, and an event if the reason is new.
async fn report(
    pool: &WorkerPool,
    context: &Context,
    standing: &Standing,
    scaled: Option<LastScale>,
) -> Result<(), PoolError> {
    let now = now();
    let status = status(pool, standing, scaled.clone(), now);
    if pool.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let namespace = pool.namespace().unwrap_or_default();
    let api: Api<PartialObjectMeta<WorkerPool>> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({ "status": status });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&pool.name_any(), &params, &Patch::Merge(patch)).await {
        Ok(_) => {}
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    tell(pool, context, standing, scaled).await;
    tell_isolation(pool, context, &status).await;
    Ok(())
}

/// An event where the isolation of a pool is not what it was.
async fn tell_isolation(pool: &WorkerPool, context: &Context, status: &WorkerPoolStatus) {
    let find = |status: &WorkerPoolStatus| {
        let mut all = status.conditions.iter();
        all.find(|condition| condition.kind == ISOLATION_VERIFIED)
            .map(|c| (c.status, c.reason.clone(), c.message.clone()))
    };
    let before = pool.status.as_ref().and_then(find);
    let Some((now, reason, message)) = find(status) else { return };
    if before.is_some_and(|(was, why, _)| (was, why) == (now, reason.clone())) {
        return;
    }
    let (type_, reason) = match now {
        ConditionStatus::True => (EventType::Normal, ISOLATION_VERIFIED),
        ConditionStatus::False => (EventType::Warning, "IsolationFailed"),
        // Nobody has to do anything about these.
        ConditionStatus::Unknown if QUIET.contains(&&*reason) => return,
        ConditionStatus::Unknown => (EventType::Warning, "IsolationUnknown"),
    };
    publish(pool, context, type_, reason.to_owned(), &message).await;
}

/// Events are for people; one that is lost costs nothing.
async fn tell(pool: &WorkerPool, context: &Context, standing: &Standing, scaled: Option<LastScale>) {
    let reason_before =
        pool.status.as_ref().and_then(|status| status.conditions.first()).map(|c| c.reason.clone());
    let event = match (standing, scaled) {
        (_, Some(scale)) => Some((
            EventType::Normal,
            "Scaled".to_owned(),
            format!("from {} to {} workers: {}", scale.from, scale.to, scale.reason),
        )),
        (Standing::Applied(_), None) if reason_before.is_none() => {
            Some((EventType::Normal, "Applied".into(), "all objects are in place".into()))
        }
        (Standing::Stalled(reason, message) | Standing::Failing(reason, message), None)
            if reason_before.as_ref() != Some(reason) =>
        {
            Some((EventType::Warning, reason.clone(), message.clone()))
        }
        (Standing::Draining(_), None) if reason_before.as_deref() != Some("Draining") => {
            Some((EventType::Normal, "Draining".into(), "the pool is deleted once its pods have gone".into()))
        }
        _ => None,
    };
    if let Some((type_, reason, note)) = event {
        publish(pool, context, type_, reason, &note).await;
    }
}

pub(super) async fn publish(
    pool: &WorkerPool,
    context: &Context,
    type_: EventType,
    reason: String,
    note: &str,
) {
    let event = Event {
        type_,
        reason,
        note: Some(note.chars().take(1000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &pool.object_ref(&())).await {
        tracing::debug!(%error, pool = pool.name_any(), "an event was not recorded");
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// When to try again, with more and more patience.
pub(super) fn retry(pool: Arc<Read<WorkerPool>>, error: &PoolError, context: Arc<Context>) -> Action {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    if pool.metadata.deletion_timestamp.is_some() && matches!(error, PoolError::World(_)) {
        return Action::requeue(DRAINING);
    }
    let wait = context.failed(&namespace, &name);
    tracing::warn!(
        namespace,
        pool = name,
        error = super::chain(error),
        wait_ms = wait.as_millis(),
        "tried again later"
    );
    Action::requeue(wait)
}
