//! Records as the public API shows them.

use crate::model::{JobView, Stage, Step, StoredEvent, TaskKind, UploadRecord};
use crate::plan::graph::early::spans;
use crate::plan::planned::Planned;
use crate::plan::playlists::{self, Playable};
use crate::state;
use mpegflow_protocol::api::{self, Event, Job, JobProgress, JobState, Output, Task, Upload, Waiting};
use mpegflow_protocol::worker::TaskProgress;

/// Where each stage of a job begins, in percent: the encode is nearly all of the work.
const STARTS: [f64; 5] = [0.0, 2.0, 90.0, 95.0, 100.0];

/// What the worker of the running task said last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) kind: TaskKind,
    pub(super) step: Step,
    /// Where in the film the task begins, of a chunk.
    pub(super) from_ms: u64,
    pub(super) duration_ms: Option<u64>,
    pub(super) progress: TaskProgress,
}

pub(super) fn job(
    view: &JobView,
    running: Option<Running>,
    waiting: Option<Waiting>,
    planned: Option<Planned>,
) -> Job {
    let (estimate, whole_because) = planned.map_or((None, None), |p| (p.estimate, p.whole_because));
    let stage = state::stage(&view.tasks);
    let mut progress = progress_at(stage);
    if view.job.state == JobState::Succeeded {
        progress.percent = 100.0;
    } else if let Some(running) = running.filter(|_| !view.job.state.is_final()) {
        let stored = progress;
        progress = progress_of_running(running);
        progress.frames = progress.frames.max(stored.frames);
        if stage.permille.is_some() {
            // A part that is packaged or checked does not know where in the film it is.
            progress.percent = progress.percent.max(stored.percent);
        }
    }
    // It was found to be a path when the job came.
    let folder = view.job.spec.folder(view.job.id).ok().flatten();
    let url = |name: &str| match &folder {
        Some(folder) => format!("/v1/files/{folder}/{name}"),
        None => format!("/v1/objects/{}/{name}", view.job.id),
    };
    let playable = playlists::of(view);
    let written = playable.iter().filter(|_| view.job.state == JobState::Succeeded).flat_map(|p| &p.lists);
    let written = written.map(|list| Output {
        name: list.name.clone(),
        url: url(&list.name),
        size: u64::try_from(list.text.len()).unwrap_or(u64::MAX),
        content_type: playlists::CONTENT_TYPE.into(),
        digest: list.digest(),
    });
    Job {
        id: view.job.id,
        state: view.job.state,
        spec: view.job.spec.clone(),
        progress,
        waiting,
        failure: view.job.failure.clone(),
        media: view.job.media.clone(),
        estimate: estimate.map(|e| api::Estimate {
            input_minutes: tenths(e.input_ms, 60_000),
            output_minutes: tenths(e.output_ms, 60_000),
            core_seconds: tenths(e.core_ms, 1_000),
        }),
        damage: state::damage(&view.tasks),
        early: view.job.spec.output.early.then(|| api::Early {
            url: playable.as_ref().map(|_| url(playlists::MASTER)),
            playable_ms: playable.as_ref().map_or(0, |p: &Playable| p.milliseconds),
            whole_because,
        }),
        tasks: view
            .tasks
            .iter()
            .map(|t| Task {
                kind: t.plan.kind.as_str().into(),
                state: t.state,
                attempts: t.tries.attempts,
                evidence: t.evidence.clone(),
                last_failure: t.last_failure.clone(),
            })
            .collect(),
        outputs: view
            .objects
            .iter()
            .map(|o| Output {
                name: o.name.clone(),
                url: url(&o.name),
                size: o.size,
                content_type: o.content_type.clone(),
                digest: o.digest.clone(),
            })
            .chain(written)
            .collect(),
        created_at: view.job.created_at.rfc3339(),
        finished_at: view.job.finished_at.map(|t| t.rfc3339()),
    }
}

/// So many of a unit, to a tenth.
#[expect(clippy::cast_precision_loss, reason = "for display")]
fn tenths(ms: u64, unit: u64) -> f64 {
    (ms as f64 * 10.0 / unit as f64).round() / 10.0
}

pub(super) fn upload(record: &UploadRecord) -> Upload {
    Upload {
        id: record.id,
        size: record.size,
        offset: record.received,
        name: record.name.clone(),
        created_at: record.created_at.rfc3339(),
    }
}

impl StoredEvent {
    /// As the event stream sends it.
    pub fn render(&self) -> Event {
        let mut progress = progress_at(self.stage);
        if self.state == JobState::Succeeded {
            progress.percent = 100.0;
        }
        Event {
            job: self.job,
            kind: self.kind,
            state: self.state,
            progress,
            at: self.at.rfc3339(),
            failure: self.failure.clone(),
        }
    }
}

fn progress_at(stage: Stage) -> JobProgress {
    let percent = match stage.permille {
        Some(permille) => percent_of(permille.min(1_000)),
        None => usize::try_from(stage.done).ok().and_then(|n| STARTS.get(n)).copied().unwrap_or(100.0),
    };
    JobProgress { percent, frames: stage.frames, speed: None, eta_s: None }
}

fn percent_of(permille: u32) -> f64 {
    f64::from(permille) / 10.0
}

/// Where the running task takes its job from, and where to, in percent.
fn span(kind: TaskKind, step: Step) -> (f64, f64) {
    let (from, to) = match step {
        Step::Whole => {
            let position = TaskKind::ALL.iter().position(|k| *k == kind).unwrap_or(0);
            let start = STARTS.get(position).copied().unwrap_or(0.0);
            return (start, STARTS.get(position.saturating_add(1)).copied().unwrap_or(100.0));
        }
        Step::Sound => spans::SOUND,
        Step::Chunk(_) => spans::CHUNKS,
        Step::Rest if kind == TaskKind::Encode => spans::REST,
        Step::Rest if kind == TaskKind::Package => (spans::REST.1, 950),
        Step::Rest => (950, 1_000),
    };
    (percent_of(from), percent_of(to))
}

/// The worker's numbers are its own word: what comes out is bounded whatever they are.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for display"
)]
pub(super) fn progress_of_running(running: Running) -> JobProgress {
    let Running { kind, step, from_ms, duration_ms, mut progress } = running;
    let (start, end) = span(kind, step);
    progress.time_ms = progress.time_ms.max(from_ms);
    if kind != TaskKind::Encode {
        return JobProgress { percent: start, frames: 0, speed: None, eta_s: None };
    }
    let part = duration_ms.filter(|d| *d > 0).map(|d| (progress.time_ms as f64 / d as f64).clamp(0.0, 1.0));
    let speed = (progress.speed_milli > 0).then(|| (progress.speed_milli as f64 / 1000.0).min(10_000.0));
    let eta_s = match (duration_ms, speed) {
        (Some(d), Some(speed)) => {
            Some((d.saturating_sub(progress.time_ms) as f64 / 1000.0 / speed).min(1e7) as u64)
        }
        _ => None,
    };
    let percent = (start + (end - start) * part.unwrap_or(0.0)).clamp(0.0, 100.0);
    JobProgress { percent: (percent * 10.0).round() / 10.0, frames: progress.frames, speed, eta_s }
}
