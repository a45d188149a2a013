//! One task that takes four hours, on a clock that is moved: heartbeats, looks of the leader and polls of idle workers all the time,
//! a worker that dies and one that sleeps.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

use super::common::{evidence, media, output_bytes, output_digest, result_for, sha256, spec};
use mpegflow_broker::capability::Capabilities;
use mpegflow_broker::conformance::objects::body;
use mpegflow_broker::engine::{CallError, Engine, Granted, LeaseAnswer, Parts, Quotas, Rate, URL_LIFE};
use mpegflow_broker::model::Clock;
use mpegflow_broker::objects::local::LocalObjects;
use mpegflow_broker::plan::Settings;
use mpegflow_broker::queue::MemoryQueue;
use mpegflow_broker::secret::fresh_id;
use mpegflow_broker::store::Store;
use mpegflow_broker::webhooks::{Policy, secret::Secrets};
use mpegflow_protocol::api::{CreateUpload, EventKind, Job, JobState, Upload};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::{PoolName, WorkerId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::task::TaskResult;
use mpegflow_protocol::worker::{Complete, Fail, Heartbeat, Lease, TaskProgress};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LEASE_MS: u64 = 15_000;
/// Everybody does something this often: a third of a lease, as workers do.
const STEP_MS: u64 = 5_000;
const HOUR: u64 = 3_600_000 / STEP_MS;
/// How much longer than its lease a task may stay with a worker that is gone.
const MORE_MS: u64 = 10_000;

/// A broker without its loops, on a store and its clock.
pub async fn engine(store: Arc<dyn Store>, clock: Arc<dyn Clock>, dir: &Path) -> Arc<Engine> {
    Arc::new(Engine::new(Parts {
        store,
        queue: Arc::new(MemoryQueue::default()),
        objects: Arc::new(LocalObjects::open(dir.join("objects")).await.unwrap()),
        clock,
        capabilities: Capabilities::new(&[7; 32]),
        settings: Settings::default(),
        lease: Duration::from_millis(LEASE_MS),
        quotas: Quotas::default(),
        meters: Arc::default(),
        rate: Rate::default(),
        webhook_secrets: Secrets::new(&[7; 32]),
        webhook_policy: Policy::default(),
        storage: Arc::default(),
        url_life: URL_LIFE,
    }))
}

/// A worker, and what it works at.
struct Hand {
    id: WorkerId,
    held: Option<(Lease, Granted)>,
}

impl Hand {
    async fn new(engine: &Engine) -> Self {
        let id = fresh_id();
        let expires = engine.now().plus_ms(3_600_000);
        engine.store().add_worker(id, &PoolName::default(), expires, engine.now()).await.unwrap();
        Self { id, held: None }
    }

    /// Whether it got something.
    async fn ask(&mut self, engine: &Arc<Engine>) -> bool {
        let LeaseAnswer::Lease(lease) = engine.lease(self.id, Duration::ZERO).await.unwrap() else {
            return false;
        };
        let grant = engine.authorize(self.id, lease.attempt, &lease.capability).unwrap();
        self.held = Some((*lease, grant));
        true
    }

    fn held(&self) -> (&Lease, Granted) {
        let (lease, grant) = self.held.as_ref().unwrap();
        (lease, *grant)
    }

    async fn beat(&self, engine: &Engine) -> Result<(), CallError> {
        let beat = Heartbeat {
            progress: TaskProgress::default(),
            log: Vec::new(),
            spans: Default::default(),
            counts: Default::default(),
        };
        engine.heartbeat(self.held().1, &PoolName::default(), &beat).await.map(drop)
    }

    async fn finish(&mut self, engine: &Engine) -> Result<(), CallError> {
        let (lease, grant) = self.held();
        let mut outputs = Vec::new();
        for n in 0..lease.outputs.len() {
            let bytes = output_bytes(lease, n);
            let digest = sha256(&bytes).try_into().unwrap();
            let at = u32::try_from(n).unwrap();
            engine.put_part(grant, at, 0, bytes.len() as u64, digest, body(&[&bytes])).await?;
            outputs.push(output_digest(&[&bytes]));
        }
        let mut result = result_for(lease, &outputs);
        if let TaskResult::Probe(probe) = &mut result {
            // Long enough for an encode that may take all day.
            probe.media = media(lease.inputs[0].size);
            probe.media.duration_ms = Some(600_000);
            for stream in &mut probe.media.streams {
                stream.duration_ms = Some(600_000);
            }
        }
        let done = engine.complete(grant, Complete { result, outputs, evidence: evidence() }).await;
        self.held = None;
        done
    }
}

/// What the leader does all the time.
async fn tend(engine: &Engine) {
    engine.expire().await.unwrap();
    engine.relay().await.unwrap();
}

/// `pass` moves the clock by so many milliseconds.
pub async fn one_task_of_four_hours(engine: &Arc<Engine>, mut pass: impl AsyncFnMut(u64)) {
    // Whoever has just come to lead takes what runs out within a lease's time for an outage of brokers.
    for _ in 0..=LEASE_MS / 1_000 {
        tend(engine).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let tenant = engine.ensure_tenant("a").await.unwrap();
    let wanted = CreateUpload { size: 4, name: None };
    let upload: Upload =
        serde_json::from_slice(&engine.create_upload(tenant, &wanted, None).await.unwrap()).unwrap();
    let upload = engine.write_upload(tenant, upload.id, 0, Some(4), body(&[b"film"])).await.unwrap();
    let job = JobSpec::parse(spec(&upload).as_bytes()).unwrap();
    let job: Job = serde_json::from_slice(&engine.submit(tenant, job, None, None).await.unwrap()).unwrap();
    let mut hands = [Hand::new(engine).await, Hand::new(engine).await, Hand::new(engine).await];
    assert!(hands[0].ask(engine).await);
    hands[0].finish(engine).await.unwrap();

    // When each of them got the encode, in steps.
    let mut got = Vec::new();
    let (dies, sleeps, wakes) = (HOUR, 2 * HOUR, 2 * HOUR + 60_000 / STEP_MS);
    for step in 0..4 * HOUR {
        pass(STEP_MS).await;
        tend(engine).await;
        for (n, hand) in hands.iter_mut().enumerate() {
            let away = match n {
                0 => step > dies,
                1 => (sleeps + 1..wakes).contains(&step),
                _ => false,
            };
            if away {
                continue;
            }
            if n == 1 && step == wakes {
                let shown = async || serde_json::to_value(engine.job(tenant, job.id).await.unwrap()).unwrap();
                let before = shown().await;
                changes_nothing(engine, hand).await;
                assert_eq!(shown().await, before);
                hand.held = None;
            }
            if hand.held.is_some() {
                hand.beat(engine).await.unwrap_or_else(|e| panic!("worker {n} at step {step}: {e}"));
            } else if hand.ask(engine).await {
                assert_eq!(hand.held().0.task.name(), "encode");
                got.push((n, step));
            }
        }
    }
    assert_eq!(got.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2], "one at a time: {got:?}");
    for ((_, at), gone) in got[1..].iter().zip([dies, sleeps]) {
        let ms = (at - gone) * STEP_MS;
        assert!((LEASE_MS..=LEASE_MS + MORE_MS).contains(&ms), "another got it after {ms} ms");
    }
    hands[2].finish(engine).await.unwrap();
    while hands[2].ask(engine).await {
        hands[2].finish(engine).await.unwrap();
    }
    let done = engine.job(tenant, job.id).await.unwrap();
    assert_eq!((done.state, done.outputs.len()), (JobState::Succeeded, 15));
    assert_eq!(done.tasks.iter().map(|task| task.attempts).collect::<Vec<_>>(), [1, 3, 1, 1]);
    engine.sequence().await.unwrap();
    let events = engine.events(tenant, Some(job.id), 0).await.unwrap();
    let count = |kind: EventKind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count(EventKind::TaskStarted), count(EventKind::TaskSucceeded)), (6, 4));
    assert_eq!((count(EventKind::Created), count(EventKind::Finished)), (1, 1));
}

/// Who wakes up after its lease has gone to another tries whatever there is.
async fn changes_nothing(engine: &Engine, hand: &Hand) {
    let (lease, grant) = hand.held();
    let lost = |what: &str, done: Result<(), CallError>| {
        assert!(matches!(done, Err(CallError::LeaseLost)), "{what}: {done:?}");
    };
    lost("heartbeat", hand.beat(engine).await);
    lost("read", engine.read_input(grant, 0, |_| Some(0..1)).await.map(drop));
    let digest = sha256(b"late").try_into().unwrap();
    lost("write", engine.put_part(grant, 0, 0, 4, digest, body(&[b"late"])).await);
    let outputs: Vec<_> = lease.outputs.iter().map(|_| output_digest(&[])).collect();
    let result = result_for(lease, &outputs);
    lost("complete", engine.complete(grant, Complete { result, outputs, evidence: evidence() }).await);
    let failure = Failure::new(FailureCode::InputCorrupt, "x");
    lost("fail", engine.fail(grant, Fail { failure, evidence: None }).await);
    lost("release", engine.release(grant).await);
}
