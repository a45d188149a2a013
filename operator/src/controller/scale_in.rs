//! Who goes when a pool shrinks, and who is kept from being moved: decided by who is at work, which the broker alone knows.

use super::context::Context;
use crate::cluster::{ApplyError, DELETION_COST, KEPT, StartedPod};
use crate::control::Pool;
use crate::crd::WorkerPool;
use crate::desired::{self, Kind, Replicas};
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// Lower than what any pod has by itself.
const FIRST: &str = "-1000";

/// How many replicas, of so many that there are.
pub(super) async fn replicas(
    pool: &WorkerPool,
    context: &Context,
    current: i32,
) -> Result<Replicas, ApplyError> {
    let wanted = desired::wanted(&pool.spec.scale);
    let seen = context.seen.borrow().pool(&pool.name_any()).cloned();
    let cordoned = seen.as_ref().is_some_and(|seen| !seen.cordoned.is_empty());
    if wanted >= current && !cordoned {
        return Ok(Replicas::decide(current, wanted, 0, 0));
    }
    let pods = started(pool, context).await?;
    let victims = pods.iter().filter(|pod| pod.is_victim).count();
    if wanted >= current {
        // Once the ReplicaSet has ended who was to go, whoever is cordoned still is wanted after all.
        let settled = i32::try_from(pods.len()).unwrap_or(i32::MAX) <= current;
        let left = pods.iter().any(|pod| seen.as_ref().is_some_and(|seen| seen.cordoned.contains(&pod.uid)));
        if wanted > current || settled && (left || victims > 0) {
            release(pool, context, &pods).await?;
        }
        return Ok(Replicas::decide(current, wanted, 0, 0));
    }
    // Those who were confirmed before and are not gone yet count no more.
    let staying: Vec<&StartedPod> = pods.iter().filter(|pod| !pod.is_victim).collect();
    let started = i32::try_from(staying.len()).unwrap_or(i32::MAX);
    let surplus = started.min(current).saturating_sub(wanted).max(0);
    let confirmed = match surplus {
        0 => 0,
        surplus => confirm(pool, context, &staying, surplus, seen.as_ref()).await?,
    };
    Ok(Replicas::decide(current, wanted, started, confirmed))
}

/// Asks the broker which pods may go, and marks those that it confirms.
async fn confirm(
    pool: &WorkerPool,
    context: &Context,
    pods: &[&StartedPod],
    surplus: i32,
    seen: Option<&Pool>,
) -> Result<i32, ApplyError> {
    // Whoever was seen idle is asked about; whether it still is, the broker says. Without a word of the broker nobody goes.
    let (Some(broker), Some(seen)) = (&context.control, seen) else { return Ok(0) };
    let most = usize::try_from(surplus).unwrap_or_default();
    let asked: Vec<String> = pods
        .iter()
        .filter(|pod| !seen.busy.contains(&pod.uid))
        .take(most)
        .map(|pod| pod.uid.clone())
        .collect();
    if asked.is_empty() {
        return Ok(0);
    }
    let idle = match broker.cordon(&pool.name_any(), asked).await {
        Ok(idle) => idle,
        Err(error) => {
            tracing::info!(pool = pool.name_any(), %error, "nobody can say who is idle; the pool does not shrink");
            return Ok(0);
        }
    };
    let namespace = pool.namespace().unwrap_or_default();
    let mut confirmed = 0_i32;
    for pod in pods.iter().filter(|pod| idle.contains(&pod.uid)) {
        let first = json!({ DELETION_COST: FIRST });
        context.objects.annotate(&namespace, &pod.name, first).await.map_err(|e| refused(pool, e))?;
        confirmed = confirmed.saturating_add(1);
    }
    Ok(confirmed)
}

/// Those who were to go stay: the marks first, so that nobody goes by them who has work again.
async fn release(pool: &WorkerPool, context: &Context, pods: &[StartedPod]) -> Result<(), ApplyError> {
    let namespace = pool.namespace().unwrap_or_default();
    for pod in pods.iter().filter(|pod| pod.is_victim) {
        let none = json!({ DELETION_COST: Value::Null });
        context.objects.annotate(&namespace, &pod.name, none).await.map_err(|e| refused(pool, e))?;
    }
    if let Some(broker) = &context.control
        && let Err(error) = broker.uncordon(&pool.name_any()).await
    {
        // They are seen cordoned the next time, too.
        tracing::info!(pool = pool.name_any(), %error, "workers stay cordoned for now");
    }
    Ok(())
}

/// Ends pods that are bound to a tenant without work while others have some: a fresh one is bound to nobody.
pub(super) async fn replace_retired(
    pool: &WorkerPool,
    context: &Context,
    pods: &[StartedPod],
) -> Result<(), ApplyError> {
    let Some(seen) = context.seen.borrow().pool(&pool.name_any()).cloned() else { return Ok(()) };
    let namespace = pool.namespace().unwrap_or_default();
    for pod in pods.iter().filter(|pod| seen.retired.contains(&pod.uid) && !seen.busy.contains(&pod.uid)) {
        context.objects.delete_pod(&namespace, pod).await.map_err(|e| refused(pool, e))?;
    }
    Ok(())
}

/// Tells the autoscalers of nodes to leave who is at work alone.
pub(super) async fn keep_busy(
    pool: &WorkerPool,
    context: &Context,
    pods: &[StartedPod],
) -> Result<(), ApplyError> {
    let Some(seen) = context.seen.borrow().pool(&pool.name_any()).cloned() else { return Ok(()) };
    let namespace = pool.namespace().unwrap_or_default();
    for pod in pods {
        let is_busy = seen.busy.contains(&pod.uid);
        if is_busy == pod.is_kept {
            continue;
        }
        let [evict, disrupt] = KEPT;
        let annotations = if is_busy {
            json!({ evict: "false", disrupt: "true" })
        } else {
            json!({ evict: Value::Null, disrupt: Value::Null })
        };
        context.objects.annotate(&namespace, &pod.name, annotations).await.map_err(|e| refused(pool, e))?;
    }
    Ok(())
}

/// The pool's pods that have started.
pub(super) async fn started(pool: &WorkerPool, context: &Context) -> Result<Vec<StartedPod>, ApplyError> {
    let namespace = pool.namespace().unwrap_or_default();
    let selector = super::pool::workers(pool);
    context.objects.started(&namespace, &selector).await.map_err(|e| refused(pool, e))
}

fn refused(pool: &WorkerPool, source: kube::Error) -> ApplyError {
    ApplyError::Refused { kind: Kind::Deployment, name: desired::name(pool), source }
}
