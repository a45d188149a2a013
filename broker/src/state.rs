//! The state machine of jobs, tasks and attempts, as decisions: from a snapshot and what happened to what changes.
//!
//! A store reads the [`Snapshot`] and applies the [`Decision`] in one transaction, with the decision's events. Nothing here
//! reads a clock or a database.

use crate::model::{
    AttemptState, InputSource, JobRecord, ManifestEntry, NewTask, Stage, Step, TaskKind, TaskRecord, Time,
    Tries,
};
use crate::plan::graph::{self, early};
use crate::plan::planned::Planned;
use crate::plan::{Settings, budget, estimate, verify};
use mpegflow_protocol::api::{Damage, EventKind, JobState, TaskState};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::{Failure, FailureClass, FailureCode};
use mpegflow_protocol::ids::AttemptId;
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::task::{TaskResult, TaskSpec};
use mpegflow_protocol::worker::OutputDigest;

/// Attempts at a task whose workers are lost or fail.
pub const MAX_WORKER_FAILURES: u32 = 3;
/// Attempts at a task whose codec crashes: an input that does it twice will do it again.
pub const MAX_CRASHES: u32 = 2;
/// Attempts at a task that fails for storage or the broker.
pub const MAX_BACKOFF_FAILURES: u32 = 6;
/// Releases after which the next one waits: a worker that only takes and gives back must not spin.
const FREE_RELEASES: u32 = 3;

/// What a decision sees: read in the transaction that applies it.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The job.
    pub job: JobRecord,
    /// All its tasks, in order.
    pub tasks: Vec<TaskRecord>,
    /// The task the attempt is at.
    pub task: TaskRecord,
    /// The attempt.
    pub attempt: AttemptId,
}

/// How an attempt ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Its worker says that it is done, and sent these outputs whole.
    Completed {
        /// What the codec found or made.
        result: Box<TaskResult>,
        /// The outputs as the broker received them, by position.
        outputs: Vec<OutputDigest>,
        /// Which locks held.
        evidence: Box<Evidence>,
    },
    /// Its worker says that it failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Which locks held.
        evidence: Option<Box<Evidence>>,
    },
    /// Its lease ran out.
    Lost {
        /// Whether the attempt's own time was up, rather than the lease's.
        overdue: bool,
    },
    /// Its worker gave it back.
    Released,
}

/// What changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The attempt's failure, where it failed.
    pub failure: Option<Failure>,
    /// What becomes of the task, and with it the attempt.
    pub task: TaskMove,
    /// What becomes of the job.
    pub job: JobMove,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskMove {
    /// It is done.
    Succeed {
        /// What the codec found or made, verified.
        result: Box<TaskResult>,
        /// Its outputs.
        outputs: Vec<OutputDigest>,
        /// Which locks held.
        evidence: Box<Evidence>,
    },
    /// It is tried again.
    Retry {
        /// Not before.
        not_before: Time,
        /// With this much memory.
        memory_class: u32,
        /// The count after this attempt.
        tries: Tries,
    },
    /// It is not tried again.
    Fail,
    /// Its job is canceled.
    Cancel,
}

/// What was found out of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbedInput {
    /// What it is.
    pub media: MediaInfo,
    /// What is planned for it.
    pub planned: Planned,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobMove {
    /// Nothing.
    Stay,
    /// It goes on with another task.
    Next {
        /// The next task.
        task: Box<NewTask>,
        /// What the input is, where that has just been found out.
        probed: Option<Box<ProbedInput>>,
    },
    /// Its output is committed.
    Commit(Vec<ManifestEntry>),
    /// It was only to be looked at: it has succeeded without any output.
    Probed(Box<ProbedInput>),
    /// It fails.
    Fail {
        /// Why.
        failure: Failure,
        /// Whether its input is not to be touched again.
        quarantine: bool,
    },
    /// It is canceled.
    Cancel,
}

impl Decision {
    /// The job's state after it.
    pub const fn job_state(&self, before: JobState) -> JobState {
        match &self.job {
            JobMove::Stay | JobMove::Next { .. } => before,
            JobMove::Commit(_) | JobMove::Probed(_) => JobState::Succeeded,
            JobMove::Fail { .. } => JobState::Failed,
            JobMove::Cancel => JobState::Canceled,
        }
    }

    /// How the attempt ended.
    pub fn attempt_state(&self) -> AttemptState {
        match (&self.task, self.failure.as_ref().map(|f| f.code)) {
            (TaskMove::Succeed { .. }, _) => AttemptState::Succeeded,
            (TaskMove::Cancel, _) => AttemptState::Canceled,
            (_, Some(FailureCode::WorkerLost | FailureCode::DeadlineExceeded)) => AttemptState::Lost,
            (_, Some(_)) => AttemptState::Failed,
            (_, None) => AttemptState::Released,
        }
    }

    /// What the tenant is told.
    pub fn events(&self) -> Vec<(EventKind, Option<Failure>)> {
        let mut events = Vec::new();
        match (&self.task, &self.failure) {
            (TaskMove::Succeed { .. }, _) => events.push((EventKind::TaskSucceeded, None)),
            (_, Some(failure)) => events.push((EventKind::AttemptFailed, Some(failure.clone()))),
            _ => {}
        }
        match &self.job {
            JobMove::Fail { failure, .. } => events.push((EventKind::Finished, Some(failure.clone()))),
            JobMove::Commit(_) | JobMove::Probed(_) | JobMove::Cancel => {
                events.push((EventKind::Finished, None))
            }
            JobMove::Stay | JobMove::Next { .. } => {}
        }
        events
    }
}

/// Decides what the end of a live attempt means.
pub fn decide(snapshot: &Snapshot, ending: &Ending, now: Time, settings: Settings) -> Decision {
    let canceling = snapshot.job.state == JobState::Canceling;
    match ending {
        Ending::Completed { result, outputs, evidence } => match judge(snapshot, result, outputs, settings) {
            // The last task of a canceling job commits: the work is done and the tenant may still use it.
            Ok(next) if !canceling || matches!(next, JobMove::Commit(_)) => Decision {
                failure: None,
                task: TaskMove::Succeed {
                    result: result.clone(),
                    outputs: outputs.clone(),
                    evidence: evidence.clone(),
                },
                job: next,
            },
            Ok(_) => cancel(None),
            Err(failure) if canceling => cancel(Some(failure)),
            Err(failure) => fail(failure),
        },
        Ending::Failed { failure, .. } if canceling => cancel(Some(failure.clone())),
        Ending::Failed { failure, .. } => after_failure(snapshot, failure.clone(), now),
        Ending::Lost { .. } | Ending::Released if canceling => cancel(None),
        Ending::Lost { overdue: true } => after_failure(snapshot, help(FailureCode::DeadlineExceeded), now),
        Ending::Lost { overdue: false } => after_failure(snapshot, help(FailureCode::WorkerLost), now),
        Ending::Released => {
            let mut tries = snapshot.task.tries;
            tries.released = tries.released.saturating_add(1);
            // Not counted as an attempt.
            tries.attempts = tries.attempts.saturating_sub(1);
            let wait_s = u64::from(tries.released.saturating_sub(FREE_RELEASES).min(30));
            let memory_class = snapshot.task.memory_class;
            let not_before = now.plus_ms(wait_s.saturating_mul(1000));
            Decision {
                failure: None,
                task: TaskMove::Retry { not_before, memory_class, tries },
                job: JobMove::Stay,
            }
        }
    }
}

fn help(code: FailureCode) -> Failure {
    Failure::new(code, code.help())
}

fn cancel(failure: Option<Failure>) -> Decision {
    Decision { failure, task: TaskMove::Cancel, job: JobMove::Cancel }
}

fn fail(failure: Failure) -> Decision {
    let quarantine = matches!(failure.code, FailureCode::LockViolation | FailureCode::ProtocolViolation);
    Decision {
        failure: Some(failure.clone()),
        task: TaskMove::Fail,
        job: JobMove::Fail { failure, quarantine },
    }
}

/// Decides whether a task is tried again, by the class of the failure.
pub fn after_failure(snapshot: &Snapshot, failure: Failure, now: Time) -> Decision {
    let task = &snapshot.task;
    let mut tries = task.tries;
    let retry = |tries: Tries, wait_ms: u64, memory_class: u32| Decision {
        failure: Some(failure.clone()),
        task: TaskMove::Retry { not_before: now.plus_ms(wait_ms), memory_class, tries },
        job: JobMove::Stay,
    };
    match failure.class() {
        FailureClass::Media | FailureClass::Policy => fail(failure),
        FailureClass::Worker => {
            tries.worker = tries.worker.saturating_add(1);
            let bigger = task.memory_class.saturating_add(1);
            let spent = tries.worker >= MAX_WORKER_FAILURES;
            match failure.code {
                FailureCode::OutOfMemory if bigger < budget::MEMORY_CLASSES && !spent => {
                    retry(tries, 0, bigger)
                }
                FailureCode::OutOfMemory => fail(failure),
                FailureCode::CodecCrashed => {
                    tries.crashed = tries.crashed.saturating_add(1);
                    if spent || tries.crashed >= MAX_CRASHES {
                        fail(failure)
                    } else {
                        retry(tries, 0, task.memory_class)
                    }
                }
                // What took the whole of a generous limit once is given it once more, not twice.
                FailureCode::DeadlineExceeded if tries.worker >= 2 => fail(failure),
                _ if spent => fail(failure),
                _ => retry(tries, 0, task.memory_class),
            }
        }
        FailureClass::Storage | FailureClass::Broker => {
            tries.backoff = tries.backoff.saturating_add(1);
            if tries.backoff >= MAX_BACKOFF_FAILURES {
                return fail(failure);
            }
            // 1, 2, 4, 8, 16 s.
            let wait_s = 1_u64 << tries.backoff.saturating_sub(1).min(5);
            retry(tries, wait_s.saturating_mul(1000), task.memory_class)
        }
    }
}

/// Verifies a result and plans what comes next.
fn judge(
    snapshot: &Snapshot,
    result: &TaskResult,
    outputs: &[OutputDigest],
    settings: Settings,
) -> Result<JobMove, Failure> {
    let job = &snapshot.job;
    let media = job.media.as_ref();
    match (&snapshot.task.plan.spec, result) {
        (TaskSpec::Probe(_), TaskResult::Probe(probe)) => {
            let media = probe.media.clone().bounded(job.input_size)?;
            let mut task = graph::encode(&job.spec, &media, job.upload, job.input_size, settings)?;
            let planned = Planned::of(&job.spec, &media, &task);
            if let Some(exceeded) = estimate::exceeded(planned.estimate, &job.spec.max_spend, settings.caps) {
                return Err(Failure::new(FailureCode::SpendExceeded, exceeded.to_string()));
            }
            let cut = job.spec.output.early && planned.whole_because.is_none();
            let probed = Box::new(ProbedInput { media, planned });
            if job.spec.dry_run {
                return Ok(JobMove::Probed(probed));
            }
            if cut {
                task = early::first(&task)?;
            }
            // What was probed is what is encoded, wherever it lies.
            if let Some(input) = snapshot.task.plan.inputs.first() {
                let uploads = |input: &&mut InputSource| matches!(input, InputSource::Upload { .. });
                task.inputs.iter_mut().filter(uploads).for_each(|own| *own = input.clone());
            }
            Ok(JobMove::Next { task: Box::new(task), probed: Some(probed) })
        }
        (TaskSpec::Encode(task), TaskResult::Encode(result)) => {
            verify::encode(task, result, outputs)?;
            early::verify(task, result)?;
            if !snapshot.task.plan.step.is_whole() {
                let next = early::package(snapshot, result, outputs, settings)?;
                return Ok(JobMove::Next { task: Box::new(next), probed: None });
            }
            let next = graph::package(&job.spec, task, result, outputs, snapshot.attempt, media, settings)?;
            Ok(JobMove::Next { task: Box::new(next), probed: None })
        }
        (TaskSpec::Package(task), TaskResult::Package(result)) => {
            verify::package(task, result, outputs)?;
            if !snapshot.task.plan.step.is_whole() {
                let next = early::check(snapshot, outputs, settings)?;
                return Ok(JobMove::Next { task: Box::new(next), probed: None });
            }
            let next = graph::check(&job.spec, task, outputs, snapshot.attempt, media, settings)?;
            Ok(JobMove::Next { task: Box::new(next), probed: None })
        }
        (TaskSpec::Check(task), TaskResult::Check(result)) => {
            verify::check(task, result)?;
            match snapshot.task.plan.step {
                Step::Whole => {}
                Step::Rest => return Ok(JobMove::Commit(early::manifest(snapshot)?)),
                Step::Sound | Step::Chunk(_) => {
                    let next = early::next(snapshot, result, settings)?;
                    return Ok(JobMove::Next { task: Box::new(next), probed: None });
                }
            }
            let package = snapshot.tasks.iter().find(|t| t.plan.kind == TaskKind::Package);
            match package.map(|p| (&p.plan.spec, p.done_by, &p.digests)) {
                Some((TaskSpec::Package(plan), Some(attempt), digests)) => {
                    Ok(JobMove::Commit(graph::manifest(plan, digests, attempt)))
                }
                _ => Err(Failure::new(FailureCode::BrokerError, "the package of this check is not known")),
            }
        }
        _ => Err(Failure::new(
            FailureCode::ProtocolViolation,
            "the worker answered another task than it was given",
        )),
    }
}

/// How far a job is in its graph.
pub fn stage(tasks: &[TaskRecord]) -> Stage {
    let done = tasks.iter().filter(|t| t.state == TaskState::Succeeded).count();
    let frames = tasks.iter().find_map(|t| match (&t.plan.spec, &t.result) {
        (TaskSpec::Encode(plan), Some(TaskResult::Encode(result))) => {
            let rung = plan.video.as_ref()?.rungs.first()?;
            result.tracks.iter().find(|t| t.output == rung.output).map(|t| t.units)
        }
        _ => None,
    });
    let permille = early::permille(tasks);
    let frames = if permille.is_some() { early::frames(tasks) } else { frames.unwrap_or(0) };
    Stage { done: u32::try_from(done).unwrap_or(u32::MAX), frames, permille }
}

/// What of the input the encode lost.
pub fn damage(tasks: &[TaskRecord]) -> Option<Damage> {
    tasks.iter().find_map(|t| match &t.result {
        Some(TaskResult::Encode(r)) if r.partial || r.decode_errors > 0 => Some(Damage {
            partial: r.partial,
            good_ms: r.good_ms,
            said_ms: r.said_ms,
            decode_errors: r.decode_errors,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tries;
    use mpegflow_protocol::ids::{JobId, TaskId, TenantId, UploadId};
    use mpegflow_protocol::job::JobSpec;

    const NOW: Time = Time(1_000_000);

    fn snapshot(tries: Tries, memory_class: u32, state: JobState) -> Snapshot {
        let upload = UploadId::from_u128(1);
        let spec = format!(r#"{{"version":1,"input":{{"upload":"{upload}"}},"preset":"web"}}"#);
        let spec = JobSpec::parse(spec.as_bytes()).unwrap();
        let task = TaskRecord {
            id: TaskId::from_u128(1),
            plan: graph::probe(&spec, upload, 10, Settings::default()),
            state: TaskState::Running,
            epoch: 1,
            tries,
            memory_class,
            not_before: NOW,
            done_by: None,
            result: None,
            digests: Vec::new(),
            evidence: None,
            last_failure: None,
        };
        let job = JobRecord {
            id: JobId::from_u128(1),
            tenant: TenantId::from_u128(1),
            upload,
            input_size: 10,
            spec,
            pool: mpegflow_protocol::ids::PoolName::default(),
            state,
            media: None,
            planned: None,
            failure: None,
            created_at: NOW,
            finished_at: None,
            trace: None,
        };
        Snapshot { job, tasks: vec![task.clone()], task, attempt: AttemptId::from_u128(1) }
    }

    /// Fails the same way until the job does: the waits in between in seconds, and the memory classes.
    fn play(code: FailureCode) -> (Vec<u64>, Vec<u32>) {
        let (mut tries, mut class) = (Tries::default(), 0);
        let (mut waits, mut classes) = (Vec::new(), Vec::new());
        loop {
            let ending = Ending::Failed { failure: Failure::new(code, "x"), evidence: None };
            match decide(&snapshot(tries, class, JobState::Running), &ending, NOW, Settings::default()) {
                Decision {
                    task: TaskMove::Retry { not_before, memory_class, tries: t },
                    job: JobMove::Stay,
                    ..
                } => {
                    waits.push(NOW.until_ms(not_before) / 1000);
                    classes.push(memory_class);
                    (tries, class) = (t, memory_class);
                }
                Decision { task: TaskMove::Fail, job: JobMove::Fail { failure, .. }, .. } => {
                    assert_eq!(failure.code, code);
                    return (waits, classes);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn each_class_of_failure_is_retried_as_documented() {
        for code in FailureCode::ALL {
            let (waits, classes) = play(*code);
            let expected: (&[u64], &[u32]) = match (code, code.class()) {
                (FailureCode::OutOfMemory, _) => (&[0], &[1]),
                (FailureCode::CodecCrashed | FailureCode::DeadlineExceeded, _) => (&[0], &[0]),
                (_, FailureClass::Media | FailureClass::Policy) => (&[], &[]),
                (_, FailureClass::Worker) => (&[0, 0], &[0, 0]),
                (_, FailureClass::Storage | FailureClass::Broker) => (&[1, 2, 4, 8, 16], &[0, 0, 0, 0, 0]),
            };
            assert_eq!((waits.as_slice(), classes.as_slice()), expected, "{code}");
        }
    }

    #[test]
    fn only_a_broken_lock_or_protocol_quarantines() {
        for code in FailureCode::ALL {
            let ending = Ending::Failed { failure: Failure::new(*code, "x"), evidence: None };
            let tries = Tries { worker: 9, backoff: 9, ..Tries::default() };
            let decision = decide(&snapshot(tries, 1, JobState::Running), &ending, NOW, Settings::default());
            let JobMove::Fail { quarantine, .. } = decision.job else { panic!("{code}") };
            assert_eq!(
                quarantine,
                matches!(code, FailureCode::LockViolation | FailureCode::ProtocolViolation),
                "{code}"
            );
        }
    }

    #[test]
    fn whatever_ends_a_task_of_a_canceling_job_cancels_it() {
        let failure = Failure::new(FailureCode::InputCorrupt, "x");
        for ending in [
            Ending::Released,
            Ending::Lost { overdue: false },
            Ending::Lost { overdue: true },
            Ending::Failed { failure, evidence: None },
        ] {
            let decision = decide(
                &snapshot(Tries::default(), 0, JobState::Canceling),
                &ending,
                NOW,
                Settings::default(),
            );
            assert_eq!((decision.task, decision.job), (TaskMove::Cancel, JobMove::Cancel));
        }
    }

    #[test]
    fn a_worker_that_only_takes_and_gives_back_has_to_wait() {
        let waits: Vec<u64> = [0, 2, 3, 10, 1000]
            .into_iter()
            .map(|released| {
                let tries = Tries { released, attempts: 1, ..Tries::default() };
                let snapshot = snapshot(tries, 0, JobState::Running);
                match decide(&snapshot, &Ending::Released, NOW, Settings::default()).task {
                    TaskMove::Retry { not_before, tries, .. } => {
                        assert_eq!(tries.attempts, 0);
                        NOW.until_ms(not_before) / 1000
                    }
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(waits, [0, 0, 1, 8, 30]);
    }
}
