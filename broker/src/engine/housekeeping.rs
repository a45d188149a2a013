//! What the broker does by itself: expire leases, mend the queue, sweep what nothing needs.

use super::leader::Fence;
use super::{CallError, Engine};
use crate::model::{Time, UploadRecord};
use crate::objects::{Cursor, ObjectError, Owner};
use crate::state::Ending;
use crate::store::{Garbage, LeaseIs, StoreError};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::ids::TenantId;
use std::time::{Duration, Instant};

/// An unfinished upload that nothing was added to for this long is deleted.
const IDLE_UPLOAD: Duration = Duration::from_secs(24 * 3600);
/// When an upload is deleted unless bytes come; `None` where it is finished.
pub fn expires(upload: &UploadRecord) -> Option<Time> {
    let idle = u64::try_from(IDLE_UPLOAD.as_millis()).unwrap_or(u64::MAX);
    (!upload.is_finished()).then(|| upload.touched_at.plus_ms(idle))
}

/// How long a repeated call is recognised.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);
/// How long what codecs wrote is kept.
const LOGS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Notes of the outbox that are relayed at once.
const NOTES: u32 = 1_000;

/// Attempts whose files are removed in one go.
const GARBAGE: u32 = 1_000;
/// Names of objects whose owners are looked up in one go.
const NAMES: u32 = 1_000;
/// Tenants that a sweep leaves out at most before it gives up until the next.
const MOST_LEFT_OUT: usize = 1_000;

/// Why an attempt ends whose lease nobody could renew.
fn we_were_away() -> Failure {
    let why =
        "The broker or its database was away for longer than a worker's lease, so the task is done again.";
    Failure::new(FailureCode::BrokerError, why)
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Attempts whose files went.
    pub attempts: u64,
    /// Uploads that went.
    pub uploads: u64,
    /// Deleted jobs whose rows went.
    pub jobs: u64,
}

/// Why a search for files that no row knows did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum OrphansError {
    /// This broker leads it no more.
    #[error("another broker leads it now")]
    Deposed,
    /// Storage cannot be listed.
    #[error("cannot list what is stored")]
    Objects(#[from] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Engine {
    /// Ends every attempt whose lease or time has run out; how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn expire(&self) -> Result<u64, StoreError> {
        let mut ended = 0_u64;
        let all = self.store.expired(self.now()).await?;
        let away = self.outages.looked(Instant::now(), Duration::from_millis(self.lease_ms));
        for expired in all {
            let ending = match expired.overdue {
                false if away => Ending::Failed { failure: we_were_away(), evidence: None },
                overdue => Ending::Lost { overdue },
            };
            match self.settle(&expired.claim, None, LeaseIs::RunOut, &ending).await {
                Ok(_) => ended = ended.saturating_add(1),
                // Renewed or ended meanwhile.
                Err(CallError::LeaseLost) => {}
                Err(CallError::Store(e)) => return Err(e),
                Err(e) => {
                    tracing::error!(error = %e, attempt = %expired.claim.attempt, "cannot end an expired attempt")
                }
            }
        }
        Ok(ended)
    }

    /// Tells the queue what moves have made ready, here or on another broker that may have ended before it could; how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn relay(&self) -> Result<u64, StoreError> {
        let mut told = 0_u64;
        loop {
            let notes = self.store.outbox(NOTES).await?;
            if notes.is_empty() {
                return Ok(told);
            }
            let ids: Vec<u64> = notes.iter().map(|note| note.id).collect();
            let ready: Vec<_> = notes.into_iter().filter_map(|note| note.ready).collect();
            // One that is there may have been taken meanwhile: what is known stays as it is.
            if let Err(e) = self.queue.restore(&ready, &[], self.now()).await {
                // They are told when it answers again.
                self.told(Err(e));
                return Ok(told);
            }
            told = told.saturating_add(u64::try_from(ready.len()).unwrap_or(u64::MAX));
            // After the queue has them: told twice is told once, not told is lost until the next reconcile.
            self.store.relayed(&ids).await?;
        }
    }

    /// Gives the events that wait their place in their tenants' chains; how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sequence(&self) -> Result<u64, StoreError> {
        let mut sequenced = 0_u64;
        loop {
            match self.store.sequence().await? {
                0 => return Ok(sequenced),
                n => sequenced = sequenced.saturating_add(n),
            }
        }
    }

    /// Ends the streams of attempts that have ended by another broker. Each broker does this for its own.
    ///
    /// # Errors
    /// The store failed.
    pub async fn hear_of_ends(&self) -> Result<(), StoreError> {
        // A call that looked an attempt up just before it ended may also have made its entry again.
        let claims = self.live.claims();
        if !claims.is_empty() {
            self.store.ended(&claims).await?.into_iter().for_each(|attempt| self.live.end(attempt));
        }
        Ok(())
    }

    /// Removes files of attempts that nothing needs, idle uploads, old idempotency keys, and what the intake need not know any more.
    ///
    /// # Errors
    /// The store failed. Storage that fails is tried again at the next sweep.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept { attempts: self.sweep_attempts().await?, ..Swept::default() };
        swept.jobs = self.purge().await?;
        let now = self.now();
        let idle = u64::try_from(IDLE_UPLOAD.as_millis()).unwrap_or(u64::MAX);
        for (tenant, upload) in self.store.idle_uploads(now.minus_ms(idle)).await? {
            if self.store.delete_idle_upload(upload, now.minus_ms(idle)).await? {
                swept.uploads = swept.uploads.saturating_add(1);
                if let Err(e) = self.objects.remove_upload(tenant, upload).await {
                    tracing::warn!(error = %e, %upload, "cannot remove an idle upload");
                }
            }
        }
        let old = u64::try_from(IDEMPOTENCY.as_millis()).unwrap_or(u64::MAX);
        self.store.forget_idempotency(now.minus_ms(old)).await?;
        let old = u64::try_from(LOGS.as_millis()).unwrap_or(u64::MAX);
        self.store.forget_logs(now.minus_ms(old)).await?;
        self.forget_arrivals().await?;
        Ok(swept)
    }

    async fn sweep_attempts(&self) -> Result<u64, StoreError> {
        let mut swept = 0_u64;
        // One whose own storage does not answer keeps nobody else's files from being removed.
        let mut without: Vec<TenantId> = Vec::new();
        loop {
            let some = self.store.garbage(&without, GARBAGE).await?;
            let all = some.len() < usize::try_from(GARBAGE).unwrap_or(usize::MAX);
            let before = (swept, without.len());
            for Garbage { tenant, job, attempt } in some {
                if without.contains(&tenant) {
                    continue;
                }
                match self.objects.remove_attempt(tenant, job, attempt).await {
                    Ok(()) => {
                        self.store.swept(attempt).await?;
                        swept = swept.saturating_add(1);
                    }
                    Err(error) => {
                        tracing::warn!(%error, %attempt, "cannot remove an attempt's files");
                        without.push(tenant);
                    }
                }
            }
            if all || before == (swept, without.len()) || without.len() >= MOST_LEFT_OUT {
                return Ok(swept);
            }
        }
    }

    /// Removes files that no row knows: what a crash between a file and its row, or a deletion and its file, left over. A row is
    /// written before its first byte and read here after the files were listed, so that nothing that is under way is taken for left over.
    /// All that is stored is gone through, [`NAMES`] at a time, and before each of these it is asked whether the lead is still there.
    ///
    /// # Errors
    /// The lead was lost, or storage or the store failed: what comes after that was not looked at.
    pub async fn sweep_orphans(&self, fence: Option<&Fence>) -> Result<Swept, OrphansError> {
        let mut swept = Swept::default();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            if let Some(fence) = fence
                && !fence.holds(self).await?
            {
                return Err(OrphansError::Deposed);
            }
            let some = self.objects.owners(&cursor, NAMES).await?;
            for owner in some.owners {
                self.sweep_orphan(owner, &mut swept).await?;
            }
            from = some.next;
        }
        Ok(swept)
    }

    async fn sweep_orphan(&self, owner: Owner, swept: &mut Swept) -> Result<(), StoreError> {
        let (removed, count) = match owner {
            Owner::Upload(tenant, upload) if self.store.upload(tenant, upload).await?.is_none() => {
                (self.objects.remove_upload(tenant, upload).await, &mut swept.uploads)
            }
            Owner::Attempt(tenant, job, attempt) if !self.store.keeps_files(attempt).await? => {
                (self.objects.remove_attempt(tenant, job, attempt).await, &mut swept.attempts)
            }
            _ => return Ok(()),
        };
        match removed {
            Ok(()) => *count = count.saturating_add(1),
            Err(error) => tracing::warn!(%error, ?owner, "cannot remove files that no row knows"),
        }
        Ok(())
    }

    /// Whether the broker can do its work: the store and storage answer.
    pub async fn ready(&self) -> bool {
        let store = self.store.ping().await;
        let objects = self.objects.ping().await;
        if let Err(e) = &store {
            tracing::error!(error = %e, "the store does not answer");
        }
        if let Err(e) = &objects {
            tracing::error!(error = %e, "storage does not answer");
        }
        store.is_ok() && objects.is_ok()
    }
}
