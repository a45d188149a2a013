//! What workers do: lease, read, write, say that they live, and end attempts.

use super::live::Live;
use super::traces::Began;
use super::{Counters, Engine, Notice};
use crate::model::{Claim, InputSource, LiveAttempt, Part, ReadyTask, Time, WorkerRecord};
use crate::objects::{Body, BodyError, Bytestream, Key, ObjectError, PartHead};
use crate::plan::bans::Bans;
use crate::plan::budget;
use crate::queue::Take;
use crate::secret::{self, fresh_id};
use crate::store::{Leased, NewLease, Recorded, StoreError};
use futures_util::StreamExt as _;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::failure::Failure;
use mpegflow_protocol::ids::{AttemptId, PoolName, WorkerId};
use mpegflow_protocol::limits;
use mpegflow_protocol::worker::{Heartbeat, HeartbeatReply, InputSlot, Lease};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Attempts that one identity may hold at once: a stolen key must not be able to empty its tenant's queue.
const MAX_LIVE_PER_WORKER: u32 = 8;
/// A waiting poll looks again after this long, whatever it has heard.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Waiting at most this long for an earlier write of the same output to end.
const WRITER_PATIENCE: Duration = Duration::from_secs(20);

/// A worker that may have nothing now is looked at again after this long.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// A task of a tenant that has as many running as it may is looked at again after so many milliseconds.
const HELD_BACK: u64 = 1_000;
/// So many of them are passed over before others get a turn at the queue.
const HELD_AT_ONCE: u32 = 1_000;

/// What became of a task whose tenant may have no more running.
enum Held {
    /// It may have one more.
    No,
    /// The index has it for later.
    InTheIndex,
    /// The index does not answer.
    Nowhere,
}

/// What one look for work found.
enum Found {
    Lease(Box<Lease>),
    /// A task, which another was faster to get.
    Lost,
    /// Nothing of the worker's tenant, but something of another.
    OtherTenant,
    /// Nothing until then.
    Nothing(Option<Time>),
}

/// Why a worker's call was refused. A worker learns no more than the variant.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no capability, or not one of ours.
    #[error("the capability is not valid")]
    BadCapability,
    /// The capability is another worker's, or for another attempt.
    #[error("the capability is not for this")]
    NotYours,
    /// The lease is over.
    #[error("the lease is over")]
    LeaseLost,
    /// The lease has no such slot.
    #[error("there is no such slot")]
    NoSlot,
    /// Its workers get no URL, or not now.
    #[error("no URL is given")]
    NoUrl,
    /// The range is not within the input.
    #[error("the range is not within the input of {0} bytes")]
    Range(u64),
    /// The output would be larger than its slot.
    #[error("the output would be larger than its slot")]
    TooLarge,
    /// The part is too far from those that are there, or has a length that it cannot have there.
    #[error("the part does not follow those that are there")]
    PartOrder,
    /// The part was sent before, with another digest or length.
    #[error("the part was sent before with another digest")]
    PartConflict,
    /// The body is not what was announced.
    #[error("the body is not what was announced")]
    PartBody(#[source] ObjectError),
    /// The outputs are not what was received.
    #[error("output {0} is not what was received")]
    OutputDiffers(usize),
    /// The result was refused; the attempt has ended.
    #[error("the result was refused")]
    Refused(#[source] Failure),
    /// There is no room.
    #[error("storage is full")]
    Full,
    /// The identity is not known (any more).
    #[error("the worker is not known")]
    UnknownWorker,
    /// Storage failed.
    #[error("storage failed")]
    Objects(#[source] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What a lease call answers.
#[derive(Debug)]
pub enum LeaseAnswer {
    /// Work.
    Lease(Box<Lease>),
    /// Nothing now.
    Idle,
    /// The tenant of this identity has nothing, others do.
    Retire,
}

/// A call that was checked: the capability is ours, this worker's and this attempt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted(pub(super) Claim);

/// A range of an input, opened.
pub struct InputRange {
    /// The bytes.
    pub bytes: Bytestream,
    /// The whole input's length.
    pub total: u64,
    /// The range.
    pub range: Range<u64>,
}

impl Engine {
    /// Checks a capability against who calls and for which attempt.
    ///
    /// # Errors
    /// [`CallError::BadCapability`] or [`CallError::NotYours`].
    pub fn authorize(
        &self,
        worker: WorkerId,
        attempt: AttemptId,
        capability: &str,
    ) -> Result<Granted, CallError> {
        let claim = self.capabilities.check(capability).ok_or(CallError::BadCapability)?;
        if claim.worker == worker && claim.attempt == attempt {
            Ok(Granted(claim))
        } else {
            Err(CallError::NotYours)
        }
    }

    /// Leases a task to a worker, waiting up to `wait` for one.
    ///
    /// # Errors
    /// The worker is not known, or the store failed.
    pub async fn lease(self: &Arc<Self>, worker: WorkerId, wait: Duration) -> Result<LeaseAnswer, CallError> {
        let asked_at = tokio::time::Instant::now();
        let mut changes = self.queue.watch();
        loop {
            // Before looking, so that what is offered meanwhile is not missed.
            changes.mark_unchanged();
            if self.draining.is_cancelled() {
                return Ok(LeaseAnswer::Idle);
            }
            let (record, live) = self.store.asking(worker).await?.ok_or(CallError::UnknownWorker)?;
            if record.revoked {
                return Err(CallError::UnknownWorker);
            }
            if record.retired {
                return Ok(LeaseAnswer::Retire);
            }
            let _asking = self.presence.ask(&record.pool);
            let next = if self.is_held(&record) {
                Some(HELD_PAUSE)
            } else if live >= MAX_LIVE_PER_WORKER {
                None
            } else {
                match self.lease_heard(record.clone()).await? {
                    Found::Lease(lease) => return Ok(LeaseAnswer::Lease(lease)),
                    Found::Lost => continue,
                    // Its own tenant has nothing at all; whoever asked to wait is not made to.
                    Found::OtherTenant => {
                        self.retire(&record).await?;
                        return Ok(LeaseAnswer::Retire);
                    }
                    Found::Nothing(next) => {
                        next.map(|time| Duration::from_millis(self.now().until_ms(time).max(10)))
                    }
                }
            };
            let left = wait.saturating_sub(asked_at.elapsed());
            if left.is_zero() {
                return Ok(LeaseAnswer::Idle);
            }
            // A wake-up that got lost, with its connection or with its sender, costs no more than this.
            let nap = next.map_or(LOOK_AGAIN, |next| next.min(LOOK_AGAIN)).min(left);
            // Which of them woke us does not matter: the loop looks again.
            tokio::select! {
                _ = changes.changed() => {}
                () = self.draining.cancelled() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Takes a task of a tenant that may have one more running.
    async fn take_for(&self, worker: &WorkerRecord) -> Result<Take, CallError> {
        for _ in 0..HELD_AT_ONCE {
            let taken = self.next_for(worker).await?;
            let Take::Task(ready) = &taken else { return Ok(taken) };
            match self.hold_back(ready).await? {
                Held::No => return Ok(taken),
                Held::InTheIndex => {}
                // From the database the same task would come again and again.
                Held::Nowhere => return Ok(Take::Empty(Some(self.now().plus_ms(HELD_BACK)))),
            }
        }
        Ok(Take::Empty(Some(self.now())))
    }

    /// Puts a task of a tenant that has as many running as it may back for a moment.
    async fn hold_back(&self, ready: &ReadyTask) -> Result<Held, CallError> {
        let full = match self.is_full(ready.tenant).await {
            Ok(full) => full,
            Err(e) => {
                self.offer(std::slice::from_ref(ready)).await;
                return Err(e.into());
            }
        };
        if !full {
            return Ok(Held::No);
        }
        let now = self.now();
        let later = ReadyTask { not_before: now.plus_ms(HELD_BACK), ..ready.clone() };
        let offered = self.queue.offer(&[later], now).await;
        let held = if offered.is_ok() { Held::InTheIndex } else { Held::Nowhere };
        self.told(offered);
        Ok(held)
    }

    /// Takes and leases, and gives back what nobody waits for any more: a caller that hangs up in between would leave a task that
    /// the index takes for running, and between the claim and the answer a lease that only its expiry ends.
    async fn lease_heard(self: &Arc<Self>, worker: WorkerRecord) -> Result<Found, CallError> {
        let (answer, heard) = tokio::sync::oneshot::channel();
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let found = engine.find(&worker).await;
            if let Err(Ok(Found::Lease(lease))) = answer.send(found) {
                engine.give_back(worker.id, &lease).await;
            }
        });
        // The task ends without an answer only when the process does.
        heard.await.unwrap_or(Ok(Found::Nothing(None)))
    }

    async fn find(&self, worker: &WorkerRecord) -> Result<Found, CallError> {
        Ok(match self.take_for(worker).await? {
            Take::Task(ready) => match self.try_lease(worker.id, &ready).await? {
                Some(lease) => Found::Lease(Box::new(lease)),
                None => Found::Lost,
            },
            Take::OtherTenant => Found::OtherTenant,
            Take::Empty(next) => Found::Nothing(next),
        })
    }

    /// Releases a lease whose worker never got it.
    pub async fn give_back(&self, worker: WorkerId, lease: &Lease) {
        let released = match self.authorize(worker, lease.attempt, &lease.capability) {
            Ok(grant) => self.release(grant).await,
            Err(e) => Err(e),
        };
        match released {
            Ok(()) => {
                tracing::info!(attempt = %lease.attempt, %worker, "nobody took the lease; it was given back")
            }
            // Its expiry ends it.
            Err(e) => {
                tracing::warn!(attempt = %lease.attempt, error = %e, "a lease that nobody took was not given back")
            }
        }
    }

    async fn try_lease(&self, worker: WorkerId, ready: &ReadyTask) -> Result<Option<Lease>, CallError> {
        let now = self.now();
        let asked = self.begin();
        let new = NewLease {
            task: ready.task,
            worker,
            attempt: fresh_id(),
            now,
            lease_ms: self.lease_ms,
            most: MAX_LIVE_PER_WORKER,
        };
        // Before the lease, so that one is not given in ignorance of a ban.
        let bans = match self.bans().await {
            Ok(bans) => bans,
            Err(e) => {
                self.offer(std::slice::from_ref(ready)).await;
                return Err(e.into());
            }
        };
        let limited = match self.limits(ready.tenant).await {
            Ok(limits) => limits.quotas.running_tasks.is_some(),
            Err(e) => {
                self.offer(std::slice::from_ref(ready)).await;
                return Err(e.into());
            }
        };
        // Two leases at once must not both be the last one allowed.
        let _turn = if limited { Some(self.tenants.leasing.lock().await) } else { None };
        if limited && self.count_running(ready.tenant).await? {
            self.offer(std::slice::from_ref(ready)).await;
            return Ok(None);
        }
        let leased = match self.store.lease(&new).await {
            Ok(leased) => leased,
            Err(e) => {
                // Not lost: the reconciler would find it, but that takes seconds.
                self.offer(std::slice::from_ref(ready)).await;
                return Err(e.into());
            }
        };
        match leased {
            Leased::Granted(attempt) => Ok(Some(self.render_lease(&attempt, (now, asked), &bans))),
            Leased::Gone => {
                self.told(self.queue.remove(Some(&ready.pool), &[ready.task]).await);
                Ok(None)
            }
            // Another poll of the same identity was faster.
            Leased::OtherTenant | Leased::TooMany => {
                self.offer(std::slice::from_ref(ready)).await;
                Ok(None)
            }
        }
    }

    fn render_lease(&self, attempt: &LiveAttempt, (now, asked): (Time, Began), bans: &Bans) -> Lease {
        let live = self.live.entry(attempt);
        live.bans.store(bans.version(), Ordering::Relaxed);
        if let Some(traced) = &live.traced {
            self.trace_lease(traced, asked);
        }
        self.live.tell(Notice::Stored(attempt.tenant));
        Counters::add(&self.counters.attempts_started, 1);
        let waited = attempt.task.not_before.until_ms(now);
        self.meters.leased_after(Duration::from_millis(waited));
        let plan = &attempt.task.plan;
        tracing::info!(job = %attempt.job, task = plan.kind.as_str(), attempt = %attempt.claim.attempt, worker = %attempt.claim.worker, epoch = attempt.claim.epoch, "leased");
        Lease {
            attempt: attempt.claim.attempt,
            capability: self.capabilities.grant(&attempt.claim),
            lease_ms: u32::try_from(self.lease_ms).unwrap_or(u32::MAX),
            task: plan.spec.clone(),
            banned: bans.names(),
            traced: live.traced.is_some() && self.tracing.is_some(),
            inputs: plan.inputs.iter().map(|input| InputSlot { size: input.size() }).collect(),
            outputs: plan.outputs.clone(),
            limits: budget::in_class(plan.limits, attempt.task.memory_class),
            threads: plan.threads,
            deadline_ms: self.now().until_ms(attempt.hard_deadline),
        }
    }

    /// The attempt, if its lease has not run out.
    pub(super) async fn live(&self, Granted(claim): Granted) -> Result<(LiveAttempt, Arc<Live>), CallError> {
        let attempt = self.store.live_attempt(&claim).await?.ok_or(CallError::LeaseLost)?;
        if attempt.deadline <= self.now() {
            return Err(CallError::LeaseLost);
        }
        let live = self.live.entry(&attempt);
        Ok((attempt, live))
    }

    /// Opens the range that is wanted of an input of so many bytes. The stream ends with an error when the lease does.
    ///
    /// # Errors
    /// The lease is over, there is no such input, or the range is not within it.
    pub async fn read_input(
        &self,
        grant: Granted,
        input: u32,
        wanted: impl FnOnce(u64) -> Option<Range<u64>> + Send,
    ) -> Result<InputRange, CallError> {
        let (attempt, live) = self.live(grant).await?;
        let at = usize::try_from(input).map_err(|_| CallError::NoSlot)?;
        let source = attempt.task.plan.inputs.get(at).ok_or(CallError::NoSlot)?;
        let total = source.size();
        let range = wanted(total).filter(|range| range.start <= range.end && range.end <= total);
        let range = range.ok_or(CallError::Range(total))?;
        let key = key_of(source, &attempt);
        // An empty input may never have had a file.
        let bytes: Bytestream = match source {
            _ if range.is_empty() => Box::pin(futures_util::stream::empty()),
            // The version that the job came with is the only one, for all its attempts.
            InputSource::Stored { version, .. } => {
                self.objects.read_version(&key, range.clone(), version).await.map_err(CallError::Objects)?
            }
            _ => self.read_pinned(&attempt, &live, input, &key, range.clone()).await?,
        };
        Counters::add(&self.counters.bytes_to_workers, range.end.saturating_sub(range.start));
        let bytes =
            bytes.map(
                move |chunk| {
                    if live.is_over() { Err(std::io::Error::other("the lease is over")) } else { chunk }
                },
            );
        Ok(InputRange { bytes: Box::pin(bytes), total, range })
    }

    /// Takes one part of an output.
    ///
    /// # Errors
    /// The lease is over; the slot, order, length or digest is wrong; or storage failed.
    pub async fn put_part(
        &self,
        grant: Granted,
        output: u32,
        part: u32,
        size: u64,
        sha256: [u8; 32],
        body: Body,
    ) -> Result<(), CallError> {
        let (attempt, live) = self.live(grant).await?;
        let mut body = while_live(body, &live);
        let slot = usize::try_from(output)
            .ok()
            .and_then(|n| attempt.task.plan.outputs.get(n))
            .ok_or(CallError::NoSlot)?;
        let writer = live.writer(output, part).ok_or(CallError::NoSlot)?;
        let announced = Part { part, size, sha256 };
        has_a_parts_length(&announced)?;
        // A repeat may overtake the broken connection that it repeats.
        let _writer = turn(writer).await?;
        let parts = self.store.parts(grant.0.attempt, output).await?;
        let Next::Fresh(head) = next(&parts, &announced, slot.max_bytes)? else {
            // Read to its end, so that the connection can go on; nothing is written.
            let mut left = size;
            while let Some(chunk) = body.next().await {
                let len = chunk.map_err(|e| CallError::PartBody(e.into()))?.len();
                left = left.checked_sub(u64::try_from(len).unwrap_or(u64::MAX)).ok_or(CallError::TooLarge)?;
            }
            return Ok(());
        };
        let key = Key::Output(attempt.tenant, attempt.job, grant.0.attempt, output);
        let written = self.objects.put_part(&key, &head, body).await;
        if live.is_over() {
            // Its folder may have been swept before this write made it again.
            self.store.unsweep(grant.0.attempt).await?;
            return Err(CallError::LeaseLost);
        }
        written.map_err(|e| match e {
            ObjectError::Full => CallError::Full,
            e @ (ObjectError::Body(_) | ObjectError::Length | ObjectError::Digest) => CallError::PartBody(e),
            e => CallError::Objects(e),
        })?;
        Counters::add(&self.counters.bytes_from_workers, size);
        self.record(grant, output, &announced).await
    }

    /// Counts a part that storage holds.
    pub(super) async fn record(&self, grant: Granted, output: u32, part: &Part) -> Result<(), CallError> {
        match self.store.record_part(&grant.0, output, part, self.now()).await? {
            Recorded::Done => Ok(()),
            Recorded::Stale => {
                self.store.unsweep(grant.0.attempt).await?;
                Err(CallError::LeaseLost)
            }
            Recorded::Conflict => Err(CallError::PartConflict),
        }
    }

    /// Renews a lease and takes the progress, log lines, spans and counts of the worker, which is of that pool.
    ///
    /// # Errors
    /// The lease is over.
    pub async fn heartbeat(
        &self,
        Granted(claim): Granted,
        pool: &PoolName,
        beat: &Heartbeat,
    ) -> Result<HeartbeatReply, CallError> {
        let now = self.now();
        let renewed = self.store.renew_lease(&claim, now, self.lease_ms).await?;
        let Some((state, deadline)) = renewed else { return Err(CallError::LeaseLost) };
        let live = match self.live.get(&claim) {
            Some(live) => live,
            None => self.live(Granted(claim)).await?.1,
        };
        self.live.report(&live, beat.progress, state, now);
        self.trace_worker(&live, &beat.spans, now);
        self.meters.worked(pool, beat.counts);
        self.keep_log(&claim, &beat.log, now).await;
        Ok(HeartbeatReply {
            lease_ms: u32::try_from(now.until_ms(deadline)).unwrap_or(u32::MAX),
            cancel: state == JobState::Canceling,
            drain: self.draining.is_cancelled(),
        })
    }
}

/// The object that an input is.
pub(super) fn key_of(source: &InputSource, attempt: &LiveAttempt) -> Key {
    match source {
        InputSource::Upload { upload, .. } => Key::Upload(attempt.tenant, *upload),
        InputSource::Object { job, attempt: made_by, output, .. } => {
            Key::Output(attempt.tenant, *job, *made_by, *output)
        }
        InputSource::Stored { key, .. } => Key::Stored(attempt.tenant, key.clone()),
        InputSource::Output { attempt: made_by, output, .. } => {
            Key::Output(attempt.tenant, attempt.job, *made_by, *output)
        }
    }
}

/// What a part is among those of its output that count.
pub(super) enum Next {
    /// One of them.
    Known,
    /// One that may come now.
    Fresh(PartHead),
}

pub(super) fn has_a_parts_length(part: &Part) -> Result<(), CallError> {
    if part.size == 0 || part.size > limits::PART_SIZE || part.part >= limits::MAX_PARTS {
        return Err(CallError::PartOrder);
    }
    Ok(())
}

/// Parts of one output come in any order, but close together, and none before the first: it opens what all of them go to. `parts` are
/// those that are there, by number.
pub(super) fn next(parts: &[Part], part: &Part, max_bytes: u64) -> Result<Next, CallError> {
    let before = parts.partition_point(|p| p.part < part.part);
    if let Some(known) = parts.get(before).filter(|p| p.part == part.part) {
        if known.size != part.size || !secret::same(&known.sha256, &part.sha256) {
            return Err(CallError::PartConflict);
        }
        return Ok(Next::Known);
    }
    let first_missing = (0..).zip(parts).take_while(|(number, part)| part.part == *number).count();
    let at_once = if first_missing == 0 { 1 } else { limits::PARTS_AT_ONCE };
    let ahead = part.part.saturating_sub(u32::try_from(first_missing).unwrap_or(u32::MAX));
    // Only the last of all is short.
    let follows_the_last = parts.last().is_some_and(|p| p.size != limits::PART_SIZE && p.part < part.part);
    let is_not_the_last = part.size != limits::PART_SIZE && before < parts.len();
    if ahead >= at_once || follows_the_last || is_not_the_last {
        return Err(CallError::PartOrder);
    }
    let offset = u64::from(part.part).saturating_mul(limits::PART_SIZE);
    if offset.saturating_add(part.size) > max_bytes {
        return Err(CallError::TooLarge);
    }
    Ok(Next::Fresh(PartHead { offset, size: part.size, sha256: part.sha256 }))
}

/// A part's turn to be written.
pub(super) async fn turn(
    writer: &tokio::sync::Mutex<()>,
) -> Result<tokio::sync::MutexGuard<'_, ()>, CallError> {
    tokio::time::timeout(WRITER_PATIENCE, writer.lock()).await.map_err(|_| CallError::PartOrder)
}

/// A body that ends with an error when the attempt does: a stalled writer would hold a file that is to be swept.
fn while_live(body: Body, live: &Arc<Live>) -> Body {
    let live = Arc::clone(live);
    Box::pin(body.map(move |chunk| {
        if live.is_over() {
            return Err(BodyError::Broken(std::io::Error::other("the lease is over").into()));
        }
        chunk
    }))
}
