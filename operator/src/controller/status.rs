//! A pool's status from what was found. Pure.

use crate::control::Pool;
use crate::crd::{Condition, ConditionStatus, Dialect, LastScale, WorkerPool, WorkerPoolStatus};
use crate::desired::Held;
use crate::gate::Isolation;
use jiff::Timestamp;
use serde_json::Value;

/// The condition of the isolation gate.
pub(super) const ISOLATION_VERIFIED: &str = "IsolationVerified";
/// Reasons of it that only say that nothing was tried.
pub(super) const QUIET: [&str; 4] = ["Pending", "NoWorkers", "NotTried", "NoControl"];

/// How a pool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its objects are in place.
    Applied(Applied),
    /// Somebody must mend something before anything happens: reason and sentence.
    Stalled(String, String),
    /// Something failed, and is tried again: reason and sentence.
    Failing(String, String),
    /// It is being deleted, and so many pods still drain.
    Draining(i32),
}

/// A pool whose objects are in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    /// Replicas that the Deployment was given.
    pub(super) replicas: i32,
    /// Why these are more than were asked for.
    pub(super) held: Option<Held>,
    /// What the Deployment says.
    pub(super) rollout: Rollout,
    /// Kinds of policies around it.
    pub(super) policies: Vec<Dialect>,
    /// Whether there is a ScaledObject.
    pub(super) autoscaled: bool,
    /// What the broker says of its work.
    pub(super) work: Option<Work>,
    /// What is known of its isolation, if anything is.
    pub(super) isolation: Option<Isolation>,
    /// Digest of what a verdict on it is about.
    pub(super) digest: Option<String>,
}

/// What the broker says of a pool's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) busy: i32,
    idle: i32,
    queued: i64,
    waiting: Option<(String, String)>,
}

impl Work {
    pub(super) fn of(seen: &Pool) -> Self {
        Self {
            busy: i32::try_from(seen.busy.len()).unwrap_or(i32::MAX),
            idle: i32::try_from(seen.idle).unwrap_or(i32::MAX),
            queued: i64::try_from(seen.queued).unwrap_or(i64::MAX),
            waiting: seen.waiting.clone(),
        }
    }
}

/// What a Deployment's status says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rollout {
    pub(super) is_observed: bool,
    pub(super) replicas: i32,
    pub(super) updated: i32,
    pub(super) ready: i32,
    /// Why Kubernetes makes no pods, if it says that it does not.
    pub(super) refused: Option<String>,
}

impl Rollout {
    /// Reads it of a Deployment.
    pub(super) fn of(deployment: &Value) -> Self {
        let number = |path: &str| deployment.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        let small = |path: &str| i32::try_from(number(path)).unwrap_or(i32::MAX);
        Self {
            is_observed: number("/status/observedGeneration") >= number("/metadata/generation"),
            replicas: small("/status/replicas"),
            updated: small("/status/updatedReplicas"),
            ready: small("/status/readyReplicas"),
            refused: refused(deployment),
        }
    }
}

/// The condition `ReplicaFailure` of a Deployment: admission refuses its pods, a quota is used up.
fn refused(deployment: &Value) -> Option<String> {
    let text = |condition: &Value, key: &str| condition.get(key).and_then(Value::as_str).map(str::to_owned);
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array)?;
    let failure = conditions.iter().find(|condition| {
        text(condition, "type").as_deref() == Some("ReplicaFailure")
            && text(condition, "status").as_deref() == Some("True")
    })?;
    let message = text(failure, "message")?;
    // `pods "NAME" is forbidden: …`: the name is another one at each try, and a write of status it would be.
    let why = message.split_once("\" ").map_or(&*message, |(_, why)| why);
    Some(why.to_owned())
}

/// The status that a pool should have now. What did not change keeps its time.
pub(super) fn status(
    pool: &WorkerPool,
    standing: &Standing,
    last_scale: Option<LastScale>,
    now: Timestamp,
) -> WorkerPoolStatus {
    let old = pool.status.clone().unwrap_or_default();
    let generation = pool.metadata.generation.unwrap_or_default();
    let mut status = WorkerPoolStatus { observed_generation: Some(generation), ..old.clone() };
    status.selector = Some(
        crate::desired::selector(pool)
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(","),
    );
    if let Standing::Applied(applied) = standing {
        status.replicas = applied.rollout.replicas;
        status.ready_replicas = applied.rollout.ready;
        status.policies.clone_from(&applied.policies);
        status.autoscaled = applied.autoscaled;
        status.policy_digest.clone_from(&applied.digest);
        // What was known before stays while nobody can be asked.
        if let Some(work) = &applied.work {
            (status.busy, status.idle, status.queued) = (work.busy, work.idle, work.queued);
            status.waiting = work.waiting.as_ref().map(|(reason, _)| reason.clone());
            status.waiting_message =
                work.waiting.as_ref().map(|(_, message)| message.chars().take(512).collect());
        }
    }
    if last_scale.is_some() {
        status.last_scale = last_scale;
    }
    let held = match standing {
        Standing::Applied(applied) => applied.held,
        _ => None,
    };
    let (ready, reconciling, stalled) = facts(standing);
    let condition = |kind: &str, (status, reason, message): (ConditionStatus, String, String)| {
        Condition::new(kind, status, (&reason, &message), generation, now, &old.conditions)
    };
    status.conditions =
        vec![condition("Ready", ready), condition("Reconciling", reconciling), condition("Stalled", stalled)];
    status.conditions.push(condition("ScaleInHeld", scale_in(held)));
    status.conditions.push(condition(ISOLATION_VERIFIED, isolation(standing, &old)));
    status
}

/// What was known stays while nobody knows better: while nothing is known yet, and, of a failure, until canaries have tried the same
/// policies again.
fn isolation(standing: &Standing, old: &WorkerPoolStatus) -> Fact {
    let before = old.conditions.iter().find(|condition| condition.kind == ISOLATION_VERIFIED);
    let before = before.map(|c| (c.status, c.reason.clone(), c.message.clone()));
    let (now, digest) = match standing {
        Standing::Applied(applied) => (applied.isolation.as_ref(), &applied.digest),
        _ => (None, &old.policy_digest),
    };
    let same = *digest == old.policy_digest;
    let failed = before.as_ref().is_some_and(|(status, ..)| *status == ConditionStatus::False);
    match (now, before) {
        (Some(now), Some(before)) if same && failed && QUIET.contains(&now.reason) => before,
        (None, Some(before)) if same => before,
        (Some(now), _) => (now.status, now.reason.to_owned(), now.message.clone()),
        (None, _) => (ConditionStatus::Unknown, "NotTried".into(), "no canary has tried it yet".into()),
    }
}

type Fact = (ConditionStatus, String, String);

fn scale_in(held: Option<Held>) -> Fact {
    match held {
        Some(Held { wanted, started }) => (
            ConditionStatus::True,
            "WorkersHaveStarted".into(),
            format!(
                "{wanted} workers are wanted and {started} have started that are at work, or of which the broker does not say that they \
                 are idle; they stay. Delete a pod to let it drain"
            ),
        ),
        None => (ConditionStatus::False, "NothingHeld".into(), String::new()),
    }
}

fn facts(standing: &Standing) -> (Fact, Fact, Fact) {
    use ConditionStatus::{False, True};
    let fact = |status, reason: &str, message: &str| (status, reason.to_owned(), message.to_owned());
    match standing {
        Standing::Applied(applied) => {
            let rollout = &applied.rollout;
            let wanted = applied.replicas;
            let is_done = rollout.is_observed
                && rollout.replicas == wanted
                && rollout.updated == wanted
                && rollout.ready >= wanted;
            let (reason, message) = match (is_done, wanted, &rollout.refused) {
                (true, 0, _) => {
                    ("ScaledToZero", "all objects are in place, and no worker is wanted".to_owned())
                }
                (true, ..) => {
                    ("WorkersReady", format!("all objects are in place, and {wanted} workers are ready"))
                }
                (false, _, Some(why)) => (
                    "WorkersRefused",
                    format!("{} of {wanted} workers are ready; a pod of it {why}", rollout.ready),
                ),
                (false, _, None) => {
                    ("WorkersStarting", format!("{} of {wanted} workers are ready", rollout.ready))
                }
            };
            let ready = fact(if is_done { True } else { False }, reason, &message);
            let reconciling = fact(if is_done { False } else { True }, reason, &message);
            (ready, reconciling, fact(False, "Applied", ""))
        }
        Standing::Stalled(reason, message) => {
            (fact(False, reason, message), fact(False, reason, ""), fact(True, reason, message))
        }
        Standing::Failing(reason, message) => {
            (fact(False, reason, message), fact(True, reason, message), fact(False, reason, ""))
        }
        Standing::Draining(pods) => {
            let message =
                format!("{pods} pods are at their last task; policies stay until the last has gone");
            (fact(False, "Draining", &message), fact(True, "Draining", &message), fact(False, "Draining", ""))
        }
    }
}
