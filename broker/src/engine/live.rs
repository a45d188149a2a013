//! What is known of live attempts in memory only: how far they are, and whether they are over. Lost at a restart without harm.

use super::render;
use super::traces::Traced;
use crate::model::{Claim, LiveAttempt, Step, TaskKind, Time};
use mpegflow_protocol::api::{Event, EventKind, JobState};
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId};
use mpegflow_protocol::limits::PARTS_AT_ONCE;
use mpegflow_protocol::task::TaskSpec;
use mpegflow_protocol::telemetry::SpanName;
use mpegflow_protocol::worker::TaskProgress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// What subscribers hear.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The tenant has new stored events.
    Stored(TenantId),
    /// A job got further; not stored.
    Progress(TenantId, Box<Event>),
}

/// A subscription; it may lag, and then only says so.
pub type Subscription = broadcast::Receiver<Notice>;

/// An attempt whose lease this process has seen.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) claim: Claim,
    pub(super) tenant: TenantId,
    pub(super) job: JobId,
    pub(super) kind: TaskKind,
    step: Step,
    from_ms: u64,
    duration_ms: Option<u64>,
    over: AtomicBool,
    /// The state of the bans that it was last held against; 0 where it was not.
    pub(super) bans: AtomicU64,
    progress: Mutex<TaskProgress>,
    /// Of each output, one writer for each part that may be on its way.
    outputs: Vec<Writers>,
    /// One completion at a time: storage puts the same parts together for one caller.
    pub(super) completing: tokio::sync::Mutex<()>,
    /// Versions of inputs, as the store has pinned them.
    pins: Mutex<HashMap<u32, String>>,
    /// What its spans say, where it is traced.
    pub(super) traced: Option<Traced>,
    /// Names of spans that its worker has told: a bit for each.
    told: AtomicU32,
}

type Writers = [tokio::sync::Mutex<()>; PARTS_AT_ONCE as usize];

impl Live {
    fn new(attempt: &LiveAttempt) -> Self {
        let ms = |ticks: i64| u64::try_from(ticks / 90).unwrap_or(0);
        let (duration_ms, from_ms) = match &attempt.task.plan.spec {
            TaskSpec::Encode(task) => {
                let from = task.chunk.and_then(|c| c.from).map_or(0, |cut| ms(cut.time));
                (task.expected_duration_ms, from)
            }
            _ => (None, 0),
        };
        Self {
            claim: attempt.claim,
            tenant: attempt.tenant,
            job: attempt.job,
            kind: attempt.task.plan.kind,
            step: attempt.task.plan.step,
            from_ms,
            duration_ms,
            over: AtomicBool::new(false),
            bans: AtomicU64::new(0),
            progress: Mutex::default(),
            outputs: attempt.task.plan.outputs.iter().map(|_| Writers::default()).collect(),
            completing: tokio::sync::Mutex::default(),
            pins: Mutex::default(),
            traced: Traced::new(attempt),
            told: AtomicU32::new(0),
        }
    }

    /// Whether its worker tells of a span of that name for the first time.
    pub(super) fn first_told(&self, name: SpanName) -> bool {
        self.told.fetch_or(name.bit(), Ordering::Relaxed) & name.bit() == 0
    }

    /// Whether it has ended: streams that were opened for it stop.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Parts that may be on their way at once never share one.
    pub(super) fn writer(&self, output: u32, part: u32) -> Option<&tokio::sync::Mutex<()>> {
        let writers = self.outputs.get(usize::try_from(output).ok()?)?;
        writers.get(usize::try_from(part % PARTS_AT_ONCE).ok()?)
    }

    /// The version of an input that is read, where it is known here. There are as many inputs as the plan has.
    pub(super) fn pin(&self, input: u32) -> Option<String> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).get(&input).cloned()
    }

    pub(super) fn set_pin(&self, input: u32, version: &str) {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).insert(input, version.to_owned());
    }

    pub(super) fn progress(&self) -> render::Running {
        let progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { kind, step, from_ms, duration_ms, .. } = *self;
        render::Running { kind, step, from_ms, duration_ms, progress }
    }
}

#[derive(Debug)]
pub(super) struct LiveMap {
    attempts: Mutex<HashMap<AttemptId, Arc<Live>>>,
    notices: broadcast::Sender<Notice>,
}

impl Default for LiveMap {
    fn default() -> Self {
        Self { attempts: Mutex::default(), notices: broadcast::channel(256).0 }
    }
}

impl LiveMap {
    fn attempts(&self) -> MutexGuard<'_, HashMap<AttemptId, Arc<Live>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.attempts().len()
    }

    /// The entry of an attempt that the store says is live; made anew after a restart.
    pub(super) fn entry(&self, attempt: &LiveAttempt) -> Arc<Live> {
        let mut attempts = self.attempts();
        Arc::clone(attempts.entry(attempt.claim.attempt).or_insert_with(|| Arc::new(Live::new(attempt))))
    }

    pub(super) fn get(&self, claim: &Claim) -> Option<Arc<Live>> {
        self.attempts().get(&claim.attempt).filter(|live| live.claim == *claim).cloned()
    }

    /// The claims of every entry.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.attempts().values().map(|live| live.claim).collect()
    }

    /// Forgets an attempt that has ended.
    pub(super) fn end(&self, attempt: AttemptId) {
        if let Some(live) = self.attempts().remove(&attempt) {
            live.over.store(true, Ordering::Relaxed);
        }
    }

    /// How far a job's running task is.
    pub(super) fn of_job(&self, job: JobId) -> Option<render::Running> {
        self.attempts().values().find(|live| live.job == job).map(|live| live.progress())
    }

    /// Takes a worker's word on how far it is, and tells subscribers.
    pub(super) fn report(&self, live: &Live, progress: TaskProgress, state: JobState, now: Time) {
        *live.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        if !live.step.is_whole() && live.kind != TaskKind::Encode {
            return;
        }
        let event = Event {
            job: live.job,
            kind: EventKind::Progress,
            state,
            progress: render::progress_of_running(live.progress()),
            at: now.rfc3339(),
            failure: None,
        };
        self.tell(Notice::Progress(live.tenant, Box::new(event)));
    }

    pub(super) fn tell(&self, notice: Notice) {
        // Nobody may be listening.
        let _ = self.notices.send(notice);
    }

    pub(super) fn subscribe(&self) -> Subscription {
        self.notices.subscribe()
    }
}
