//! URLs for the workers of presigned pools. A URL is for one range of an input or one part of an output, for about a minute, and for the
//! holder of the live lease: whoever goes on asks anew. The broker does not see the bytes, so it asks storage what they were before they
//! count. A part's digest is written down before its first URL is signed, so that no two contents of it can ever be written.

use super::Engine;
use super::attempts::{CallError, Granted, Next, has_a_parts_length, key_of, next, turn};
use crate::model::{InputSource, LiveAttempt, Part};
use crate::objects::{Key, ObjectError};
use crate::secret;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::ids::PoolName;
use mpegflow_protocol::limits::PRESIGNED_LEAST;
use mpegflow_protocol::worker::{Signed, UrlReply};
use std::ops::Range;
use std::time::Duration;

/// How long a URL holds. Storage looks at it when a request starts, so that a transfer may take longer.
pub const URL_LIFE: Duration = Duration::from_secs(60);
/// Addresses of storage that a worker is told.
const MOST_ADDRESSES: usize = 4;

impl Engine {
    /// A URL for a range of an input, of the version that this attempt reads.
    ///
    /// # Errors
    /// The pool is not presigned, or the job is being canceled; the lease is over; there is no such input or range; or storage failed.
    pub async fn sign_read(
        &self,
        grant: Granted,
        pool: &PoolName,
        input: u32,
        range: Range<u64>,
    ) -> Result<UrlReply, CallError> {
        let endpoints = self.endpoints_of(pool)?;
        let (attempt, live) = self.live(grant).await?;
        may_have_urls(&attempt)?;
        let at = usize::try_from(input).map_err(|_| CallError::NoSlot)?;
        let source = attempt.task.plan.inputs.get(at).ok_or(CallError::NoSlot)?;
        if range.end > source.size() || range.start > range.end {
            return Err(CallError::Range(source.size()));
        }
        if range.end.saturating_sub(range.start) < PRESIGNED_LEAST {
            return Ok(UrlReply::Brokered {});
        }
        let key = key_of(source, &attempt);
        let version = match source {
            InputSource::Stored { version, .. } => Some(version.clone()),
            _ => self.pinned(&attempt, &live, input, &key).await?,
        };
        let Some(version) = version else { return Ok(UrlReply::Brokered {}) };
        let signed = self.objects.sign_read(&key, range, &version, self.url_life).await;
        self.handed(grant, pool, &endpoints, signed.map_err(CallError::Objects)?).await
    }

    /// A URL for the next part of an output.
    ///
    /// # Errors
    /// As of [`Self::sign_read`]; or the part is not the next one, or was announced with another length or digest.
    pub async fn sign_part(
        &self,
        grant: Granted,
        pool: &PoolName,
        output: u32,
        part: Part,
    ) -> Result<UrlReply, CallError> {
        let endpoints = self.endpoints_of(pool)?;
        let (attempt, live) = self.live(grant).await?;
        may_have_urls(&attempt)?;
        let slot = slot(&attempt, output)?;
        let writer = live.writer(output, part.part).ok_or(CallError::NoSlot)?;
        has_a_parts_length(&part)?;
        let _writer = turn(writer).await?;
        let parts = self.store.parts(grant.0.attempt, output).await?;
        let Next::Fresh(head) = next(&parts, &part, slot)? else { return Ok(UrlReply::Stored {}) };
        if part.size < PRESIGNED_LEAST {
            return Ok(UrlReply::Brokered {});
        }
        self.announce(grant, output, &part).await?;
        let key = Key::Output(attempt.tenant, attempt.job, grant.0.attempt, output);
        let signed = self.objects.sign_part(&key, &head, self.url_life).await;
        let answer = match signed {
            Ok(signed) => self.handed(grant, pool, &endpoints, signed).await,
            Err(error) => Err(CallError::Objects(error)),
        };
        if live.is_over() || matches!(answer, Err(CallError::LeaseLost)) {
            // A multipart upload may have been opened after its objects were swept.
            self.store.unsweep(grant.0.attempt).await?;
            return Err(CallError::LeaseLost);
        }
        answer
    }

    /// Counts a part that a worker says to have written, where storage says the same.
    ///
    /// # Errors
    /// The lease is over; the part is not the next one; storage does not hold it, or holds other bytes; or storage failed.
    pub async fn part_stored(&self, grant: Granted, output: u32, part: Part) -> Result<(), CallError> {
        let (attempt, live) = self.live(grant).await?;
        let slot = slot(&attempt, output)?;
        let writer = live.writer(output, part.part).ok_or(CallError::NoSlot)?;
        has_a_parts_length(&part)?;
        let _writer = turn(writer).await?;
        let parts = self.store.parts(grant.0.attempt, output).await?;
        let Next::Fresh(head) = next(&parts, &part, slot)? else { return Ok(()) };
        self.announce(grant, output, &part).await?;
        let key = Key::Output(attempt.tenant, attempt.job, grant.0.attempt, output);
        self.objects.holds_part(&key, &head).await.map_err(|e| match e {
            e @ (ObjectError::Missing | ObjectError::Length | ObjectError::Digest) => CallError::PartBody(e),
            e => CallError::Objects(e),
        })?;
        if live.is_over() {
            return Err(CallError::LeaseLost);
        }
        self.record(grant, output, &part).await
    }

    async fn announce(&self, grant: Granted, output: u32, part: &Part) -> Result<(), CallError> {
        let announced =
            self.store.announce_part(&grant.0, output, part).await?.ok_or(CallError::LeaseLost)?;
        if announced.size != part.size || !secret::same(&announced.sha256, &part.sha256) {
            return Err(CallError::PartConflict);
        }
        Ok(())
    }

    /// The storage that a pool's workers may reach.
    fn endpoints_of(&self, pool: &PoolName) -> Result<Vec<StorageEndpoint>, CallError> {
        let endpoints = self.storage_of_pool(pool);
        if endpoints.is_empty() { Err(CallError::NoUrl) } else { Ok(endpoints) }
    }

    /// What is handed to the worker: with the addresses that its pool may reach, where the lease is live still.
    async fn handed(
        &self,
        grant: Granted,
        pool: &PoolName,
        endpoints: &[StorageEndpoint],
        signed: Option<Signed>,
    ) -> Result<UrlReply, CallError> {
        let Some(mut signed) = signed else { return Ok(UrlReply::Brokered {}) };
        signed.addresses.retain(|address| endpoints.iter().any(|endpoint| endpoint.holds(address)));
        signed.addresses.truncate(MOST_ADDRESSES);
        if signed.addresses.is_empty() {
            tracing::debug!(%pool, "storage is at no address that the pool may reach; its bytes go through the broker");
            return Ok(UrlReply::Brokered {});
        }
        // Storage may have taken its time.
        self.live(grant).await?;
        Ok(UrlReply::Signed(Box::new(signed)))
    }
}

/// A job that is being canceled needs no more bytes than are on their way.
fn may_have_urls(attempt: &LiveAttempt) -> Result<(), CallError> {
    if attempt.job_state == JobState::Canceling { Err(CallError::NoUrl) } else { Ok(()) }
}

/// The most bytes of an output.
fn slot(attempt: &LiveAttempt, output: u32) -> Result<u64, CallError> {
    let at = usize::try_from(output).map_err(|_| CallError::NoSlot)?;
    attempt.task.plan.outputs.get(at).map(|slot| slot.max_bytes).ok_or(CallError::NoSlot)
}
