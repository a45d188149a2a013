//! How attempts end: with a result, with a failure, given back, or lost.

use super::attempts::{CallError, turn};
use super::traces::Began;
use super::{Counters, Engine, Granted, Notice};
use crate::model::{Claim, LiveAttempt, Part};
use crate::objects::{Key, ObjectError, PartHead};
use crate::plan::Settings;
use crate::secret::{self, fresh_id};
use crate::state::{self, Ending, JobMove, TaskMove};
use crate::store::{Closing, End, Known, LeaseIs, Outcome, Settled};
use mpegflow_protocol::evidence::Evidence;
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::TaskResult;
use mpegflow_protocol::worker::{Complete, Fail, OutputDigest};
use mpegflow_protocol::{limits, text};

/// How an attempt ends, and what is known of it.
struct Ends<'a> {
    claim: &'a Claim,
    evidence: Option<&'a Evidence>,
    lease: LeaseIs,
    ending: &'a Ending,
    known: Option<Box<Known>>,
    began: Began,
}

impl Engine {
    /// Ends an attempt with a result: verified, planned on and committed in one compare-and-set.
    ///
    /// # Errors
    /// The lease is over; the outputs are not what was received (the attempt goes on); or the result was refused (the
    /// attempt has ended).
    pub async fn complete(&self, grant: Granted, complete: Complete) -> Result<(), CallError> {
        let began = self.begin();
        let closing = self.store.closing(&grant.0).await?.ok_or(CallError::LeaseLost)?;
        if closing.attempt.deadline <= self.now() {
            return Err(CallError::LeaseLost);
        }
        let live = self.live.entry(&closing.attempt);
        // A repetition may overtake the broken connection that it repeats.
        let _turn = turn(&live.completing).await?;
        if live.is_over() {
            return Err(CallError::LeaseLost);
        }
        let completed = self.complete_live(grant, closing, complete, began).await;
        if completed.is_err() {
            // While its outputs were put together it may have been ended, and swept before they were there.
            self.store.unsweep(grant.0.attempt).await?;
        }
        completed
    }

    async fn complete_live(
        &self,
        grant: Granted,
        Closing { attempt, parts, known }: Closing,
        Complete { result, outputs, evidence }: Complete,
        began: Began,
    ) -> Result<(), CallError> {
        let received = self.received(&attempt, &parts, &outputs).await?;
        let evidence = clean_evidence(evidence);
        let settings = self.settings_of(attempt.tenant).await?;
        let refused = self.reserve_minutes(&attempt, &result, settings).await?;
        let ending = match refused {
            Some(failure) => Ending::Failed { failure, evidence: Some(Box::new(evidence.clone())) },
            None => Ending::Completed {
                result: Box::new(clean_result(result)),
                outputs: received,
                evidence: Box::new(evidence.clone()),
            },
        };
        let (claim, evidence) = (&grant.0, Some(&evidence));
        let ends = Ends { claim, evidence, lease: LeaseIs::Held, ending: &ending, known, began };
        let outcome = self.settle_with(settings, ends).await?;
        match outcome.decision.failure {
            Some(failure) if !matches!(outcome.decision.task, TaskMove::Succeed { .. }) => {
                Err(CallError::Refused(failure))
            }
            _ => Ok(()),
        }
    }

    /// What was received of each output, made safe; compared with what the worker says it sent.
    async fn received(
        &self,
        attempt: &LiveAttempt,
        parts: &[(u32, Part)],
        said: &[OutputDigest],
    ) -> Result<Vec<OutputDigest>, CallError> {
        let slots = attempt.task.plan.outputs.len();
        if said.len() != slots {
            return Err(CallError::OutputDiffers(slots.min(said.len())));
        }
        let mut received = Vec::with_capacity(slots);
        for (position, said) in said.iter().enumerate() {
            let output = u32::try_from(position).map_err(|_| CallError::NoSlot)?;
            let parts: Vec<&Part> =
                parts.iter().filter(|(of, _)| *of == output).map(|(_, part)| part).collect();
            let found = OutputDigest {
                size: parts.iter().fold(0, |sum, p| p.size.saturating_add(sum)),
                parts: u32::try_from(parts.len()).unwrap_or(u32::MAX),
                digest: secret::digest_of_parts(parts.iter().map(|p| &p.sha256)),
            };
            // They came in any order.
            let is_whole = (0..).zip(&parts).all(|(number, part)| part.part == number)
                && parts.iter().rev().skip(1).all(|part| part.size == limits::PART_SIZE);
            if found != *said || !is_whole {
                return Err(CallError::OutputDiffers(position));
            }
            let key = Key::Output(attempt.tenant, attempt.job, attempt.claim.attempt, output);
            let heads: Vec<PartHead> = parts
                .iter()
                .map(|p| PartHead {
                    offset: u64::from(p.part).saturating_mul(limits::PART_SIZE),
                    size: p.size,
                    sha256: p.sha256,
                })
                .collect();
            self.objects.finish(&key, &heads).await.map_err(|e| match e {
                ObjectError::Full => CallError::Full,
                e => CallError::Objects(e),
            })?;
            received.push(found);
        }
        Ok(received)
    }

    /// Ends an attempt with a failure.
    ///
    /// # Errors
    /// The lease is over.
    pub async fn fail(&self, grant: Granted, fail: Fail) -> Result<(), CallError> {
        let evidence = fail.evidence.map(clean_evidence);
        let failure = self.of_own_storage(&grant.0, fail.failure.cleaned()).await?;
        let ending = Ending::Failed { failure, evidence: evidence.clone().map(Box::new) };
        self.settle(&grant.0, evidence.as_ref(), LeaseIs::Held, &ending).await.map(drop)
    }

    /// What a worker reports of storage, for the tenant of an attempt: a worker is not told whose storage it is, nor what it said.
    async fn of_own_storage(&self, claim: &Claim, failure: Failure) -> Result<Failure, CallError> {
        if failure.code != FailureCode::StorageError {
            return Ok(failure);
        }
        let tenant = match self.live.get(claim) {
            Some(live) => live.tenant,
            None => self.store.live_attempt(claim).await?.ok_or(CallError::LeaseLost)?.tenant,
        };
        let Some(own) = self.store.storage_of(tenant).await? else { return Ok(failure) };
        let message = self.objects.trouble(tenant).unwrap_or_else(|| {
            format!("the tenant's own bucket `{}` could not be read or written", own.bucket)
        });
        Ok(Failure::new(FailureCode::TenantStorage, message))
    }

    /// Gives an attempt back, uncounted.
    ///
    /// # Errors
    /// The lease is over.
    pub async fn release(&self, grant: Granted) -> Result<(), CallError> {
        self.settle(&grant.0, None, LeaseIs::Held, &Ending::Released).await.map(drop)
    }

    /// Ends an attempt, and lets the queue, subscribers and counters know.
    pub(super) async fn settle(
        &self,
        claim: &Claim,
        evidence: Option<&Evidence>,
        lease: LeaseIs,
        ending: &Ending,
    ) -> Result<Outcome, CallError> {
        let ends = Ends { claim, evidence, lease, ending, known: None, began: self.begin() };
        self.settle_with(self.settings, ends).await
    }

    /// The same, planning on as the settings say, and with what it is decided from where that was read before.
    async fn settle_with(&self, settings: Settings, ends: Ends<'_>) -> Result<Outcome, CallError> {
        let Ends { claim, evidence, lease, ending, known, began } = ends;
        // Before the end, which is when it is forgotten.
        let traced = self.traced(claim).await;
        let now = self.now();
        let bans = self.bans().await?;
        let decide =
            |snapshot: &state::Snapshot| bans.hold(ending, state::decide(snapshot, ending, now, settings));
        let end = End { claim, evidence, lease, now, next_task: fresh_id(), known };
        let committing = self.begin();
        let settled = self.store.settle(end, &decide).await?;
        let Settled::Done(outcome) = settled else { return Err(CallError::LeaseLost) };
        if let Some(traced) = &traced {
            self.trace_end(traced, &outcome, began, committing);
        }
        let kind = self.live.get(claim).map_or("unknown", |live| live.kind.as_str());
        let failure = outcome.decision.failure.as_ref().map(|f| f.code);
        self.meters.ended(kind, ending, &outcome.decision.task, failure);
        self.live.end(claim.attempt);
        // At the time of now, not of the decision: the calls in between took some.
        self.told(self.queue.settled(&outcome.ended, outcome.ready.as_ref(), self.now()).await);
        self.live.tell(Notice::Stored(outcome.tenant));
        let counter = match (ending, &outcome.decision.task) {
            (_, TaskMove::Succeed { .. }) => Some(&self.counters.attempts_succeeded),
            (Ending::Lost { .. }, _) => Some(&self.counters.attempts_lost),
            (Ending::Released, _) => None,
            _ => Some(&self.counters.attempts_failed),
        };
        if let Some(counter) = counter {
            Counters::add(counter, 1);
        }
        self.log(claim, &outcome);
        Ok(*outcome)
    }

    fn log(&self, claim: &Claim, outcome: &Outcome) {
        let (job, attempt) = (outcome.job, claim.attempt);
        match (&outcome.decision.failure, &outcome.decision.job) {
            (Some(failure), JobMove::Fail { quarantine, .. }) => {
                tracing::warn!(%job, %attempt, worker = %claim.worker, code = failure.code.as_str(), quarantine, "job failed");
            }
            (Some(failure), _) => {
                tracing::info!(%job, %attempt, code = failure.code.as_str(), "attempt failed")
            }
            (None, _) => tracing::info!(%job, %attempt, state = outcome.state.as_str(), "attempt ended"),
        }
    }
}

/// Text that a worker reports ends in a job's JSON.
fn clean_evidence(mut evidence: Evidence) -> Evidence {
    evidence.profile = text::clean(&evidence.profile, 64);
    evidence.policy_digest = text::clean(&evidence.policy_digest, 64);
    evidence
}

fn clean_result(mut result: TaskResult) -> TaskResult {
    match &mut result {
        TaskResult::Package(package) => {
            for track in &mut package.tracks {
                track.codecs = text::clean(&track.codecs, 64);
            }
        }
        TaskResult::Check(check) => {
            check.problems.truncate(16);
            for problem in &mut check.problems {
                *problem = text::clean(problem, 256);
            }
        }
        TaskResult::Probe(_) | TaskResult::Encode(_) => {}
    }
    result
}
