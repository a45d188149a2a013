//! The loop of the gate: pods and answers go in, steps come out and are done.

use super::controls::{self, Controls};
use super::state::{Ending, Pod, Step};
use super::{Gate, Key};
use crate::control::{Control, Seen};
use crate::crd::{Read, WorkerPool};
use crate::desired::CANARY_LABEL;
use crate::settings::MANAGER;
use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1 as core;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use mpegflow_policies::audit::intent::POOL_LABEL;
use mpegflow_protocol::text;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is due is looked for so often; a change is acted on at once.
const EVERY: Duration = Duration::from_secs(1);
/// Whether pools are still there is looked at so often.
const SWEEP: Duration = Duration::from_secs(60);
/// A call to the API server takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest reason that is kept of the API server's or a kubelet's.
const MAX_REASON: usize = 256;

/// What the gate works with.
pub(crate) struct Around {
    pub(crate) client: Client,
    pub(crate) control: Arc<Control>,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) pools: Store<Read<WorkerPool>>,
    /// Addresses where the operator looks itself.
    pub(crate) asked: Vec<SocketAddr>,
}

/// What has come of a step.
enum Done {
    Looked { began: Instant, answered: Vec<SocketAddr> },
    Created { key: Key, run: String, name: String, answer: Result<String, String> },
    Deleted { uid: String, gone: bool },
    Told { key: Key, node: String, digest: String, taken: bool },
}

/// Verifies pools until its task is dropped. `report` says that more is known of a pool, and whether that was heard.
pub(crate) async fn keep(gate: Arc<Gate>, around: Around, report: impl Fn(&Key) -> bool) {
    let mut controls = Controls::new(around.asked.clone());
    let mut jobs: JoinSet<Done> = JoinSet::new();
    let pods: Api<core::Pod> = Api::all(around.client.clone());
    let ours =
        watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER},{POOL_LABEL}"));
    let events = watcher(pods, ours).default_backoff();
    pin_mut!(events);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = around.seen.clone();
    let mut swept = Instant::now();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => heard(&gate, event),
                Some(Err(error)) => {
                    tracing::debug!(error = crate::controller::chain(&error), "the watch over pods broke and starts again");
                }
                None => return,
            },
            Some(done) = jobs.join_next() => match done {
                Ok(done) => has_done(&gate, &mut controls, done),
                Err(error) => tracing::error!(%error, "a step of the isolation gate broke off"),
            },
            () = gate.changed.notified() => {}
            // Its end is the operator's.
            Ok(()) = seen.changed() => {}
            _ = ticks.tick() => {}
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            sweep(&gate, &around.pools);
        }
        let steps = gate.next(&controls, &around.seen.borrow());
        for step in steps {
            if let Step::Report(key) = step {
                if !report(&key) {
                    gate.lock().is_unreported(&key);
                }
            } else if let Some(job) = job(&around, step) {
                jobs.spawn(job);
            }
        }
    }
}

/// Forgets pools whose end nobody told of.
fn sweep(gate: &Gate, pools: &Store<Read<WorkerPool>>) {
    let known = gate.lock().pools();
    for (key, uid) in known {
        let pool = pools.get(&ObjectRef::new(&key.1).within(&key.0));
        if pool.and_then(|pool| pool.uid()) != Some(uid) {
            gate.lock().forget(&key);
        }
    }
}

fn heard(gate: &Gate, event: Event<core::Pod>) {
    let mut state = gate.lock();
    match event {
        Event::Init => state.workers.list_begins(),
        Event::InitDone => state.workers.list_ends(),
        Event::Apply(pod) | Event::InitApply(pod) => {
            let Some(key) = pool_of(&pod) else { return };
            match pod.labels().get(CANARY_LABEL) {
                Some(run) => {
                    let ending = ending(&pod);
                    let run = run.clone();
                    let pod = Pod { name: pod.name_any(), uid: pod.uid().unwrap_or_default(), run, ending };
                    state.pod(&key, pod, Instant::now());
                }
                None => match node_of(&pod) {
                    Some(node) => state.workers.are(&key, &pod.name_any(), node),
                    None => state.workers.left(&key, &pod.name_any()),
                },
            }
        }
        Event::Delete(pod) => {
            let Some(key) = pool_of(&pod) else { return };
            match pod.labels().get(CANARY_LABEL) {
                Some(run) => state.pod_is_gone(&key, run, &pod.uid().unwrap_or_default(), Instant::now()),
                None => state.workers.left(&key, &pod.name_any()),
            }
        }
    }
}

fn pool_of(pod: &core::Pod) -> Option<Key> {
    Some((pod.namespace()?, pod.labels().get(POOL_LABEL)?.clone()))
}

/// The node of a pod that may have work there now or soon.
fn node_of(pod: &core::Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    // It becomes a part of an address.
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    (!node.is_empty() && node.len() <= 253 && node.chars().all(is_name)).then_some(node)
}

/// How a canary has ended, where it has.
fn ending(pod: &core::Pod) -> Option<Ending> {
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = status.container_statuses.iter().flatten();
    let terminated = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()).next();
    // One that failed has nothing to say, whatever its message is.
    if let Some(terminated) = terminated.filter(|terminated| terminated.exit_code == 0) {
        return Some(Ending::Said(terminated.message.clone().unwrap_or_default()));
    }
    let why = match (terminated, &status.reason) {
        (Some(terminated), None) => match &terminated.reason {
            Some(reason) => format!("exit code {} ({reason})", terminated.exit_code),
            None => format!("exit code {}", terminated.exit_code),
        },
        (_, Some(reason)) => reason.clone(),
        (None, None) => "its node does not say why".to_owned(),
    };
    Some(Ending::Died(text::clean(&why, MAX_REASON)))
}

fn job(around: &Around, step: Step) -> Option<impl Future<Output = Done> + Send + 'static + use<>> {
    let (client, control) = (around.client.clone(), Arc::clone(&around.control));
    let asked = around.asked.clone();
    if matches!(step, Step::Report(_)) {
        return None;
    }
    Some(async move {
        match step {
            Step::Look | Step::Report(_) => {
                let began = Instant::now();
                Done::Looked { began, answered: controls::look(asked).await }
            }
            Step::Create { key, run, pod } => {
                let name = pod
                    .pointer("/metadata/name")
                    .and_then(|name| name.as_str())
                    .unwrap_or_default()
                    .to_owned();
                let answer = create(client, &key, &name, pod).await;
                Done::Created { key, run, name, answer }
            }
            Step::Delete { namespace, name, uid } => {
                let gone = delete(client, &namespace, &name, &uid).await;
                Done::Deleted { uid, gone }
            }
            Step::Tell { key, node, verdict } => {
                let answer = control.put_verdict(&key.1, &node, &verdict).await;
                if let Err(error) = &answer {
                    tracing::info!(pool = key.1, node, %error, "the broker did not take a verdict");
                }
                Done::Told { key, node, digest: verdict.policy, taken: answer.is_ok() }
            }
        }
    })
}

fn has_done(gate: &Gate, controls: &mut Controls, done: Done) {
    let mut state = gate.lock();
    match done {
        Done::Looked { began, answered } => {
            controls.looked(began, &answered);
            state.has_looked();
        }
        Done::Created { key, run, name, answer } => state.created(&key, &run, &name, answer, Instant::now()),
        Done::Deleted { uid, gone: true } => state.deleted(&uid),
        Done::Deleted { .. } => {}
        Done::Told { key, node, digest, taken } => state.told(&key, &node, &digest, taken, Instant::now()),
    }
}

/// Makes a canary. Its UID, or why there is none, in the same words for the same reason.
async fn create(client: Client, key: &Key, name: &str, pod: serde_json::Value) -> Result<String, String> {
    let pod: core::Pod = serde_json::from_value(pod).map_err(|e| e.to_string())?;
    let pods: Api<core::Pod> = Api::namespaced(client, &key.0);
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    let made = tokio::time::timeout(PATIENCE, pods.create(&params, &pod)).await;
    match made {
        Ok(Ok(pod)) => pod.uid().ok_or_else(|| "the API server gave it no UID".to_owned()),
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            let namespace = &key.0;
            tracing::warn!(namespace, pool = key.1, why = status.message, "the API server refuses a canary");
            let message = status.message.replace(name, "the canary");
            let hint =
                format!("{message}; has the namespace {namespace} the label mpegflow.io/workers=true?");
            Err(text::clean(&hint, MAX_REASON.saturating_mul(2)))
        }
        Ok(Err(_)) | Err(_) => Err("the API server does not answer".to_owned()),
    }
}

/// Deletes a pod at once: nobody is to wait for it, not even where its node is gone. Whether it is no more.
async fn delete(client: Client, namespace: &str, name: &str, uid: &str) -> bool {
    let pods: Api<core::Pod> = Api::namespaced(client, namespace);
    let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(same), ..DeleteParams::default() };
    match tokio::time::timeout(PATIENCE, pods.delete(name, &params)).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) => matches!(status.code, 404 | 409),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Ten characters that were not drawn before. Nobody gains by guessing them: whose a pod is, its UID says.
pub(super) fn draw() -> String {
    let drawn = RandomState::new().build_hasher().finish();
    format!("{:010x}", drawn & 0xff_ffff_ffff)
}
