//! What goes: jobs that their tenant deletes, what is older than a tenant keeps, and all that a deleted tenant had.

use super::{Engine, JobError};
use crate::model::{JobRecord, Time};
use crate::store::retention::TenantRecord;
use crate::store::{Canceled, Deleted, Once, StoreError};
use mpegflow_protocol::api::{JobState, TaskState};
use mpegflow_protocol::ids::{JobId, TenantId};
use std::time::Duration;

/// Jobs or uploads of one tenant that are looked at in one round.
const BATCH: u32 = 500;
/// Jobs whose rows go in one transaction.
const PURGE: usize = 100;
const UNFINISHED: [JobState; 3] = [JobState::Queued, JobState::Running, JobState::Canceling];

/// What a round removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Jobs that were deleted.
    pub jobs: u64,
    /// Uploads that were deleted.
    pub uploads: u64,
    /// Deleted tenants of which nothing is left.
    pub tenants: u64,
}

impl Engine {
    /// Deletes a job that has ended, with its output. It is gone at once; its bytes and what its events say go with the next sweep.
    ///
    /// # Errors
    /// There is none, or it has not ended.
    pub async fn delete_job(&self, tenant: TenantId, id: JobId) -> Result<(), JobError> {
        match self.store.delete_job(tenant, id, self.now()).await? {
            Deleted::Done => Ok(()),
            Deleted::NotFound => Err(JobError::NotFound),
            Deleted::InUse => Err(JobError::Active),
        }
    }

    /// Deletes a tenant: nobody can sign in as it from now on, and all of its data goes with the next rounds. Its id, or `None`
    /// where there is none of that name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete_tenant(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        self.store.delete_tenant(name, self.now()).await
    }

    /// Removes the rows of deleted jobs whose files are gone; how many.
    pub(super) async fn purge(&self) -> Result<u64, StoreError> {
        let mut purged = 0_u64;
        let found = self.store.purgeable_jobs(BATCH).await?;
        for of_tenant in found.chunk_by(|a, b| a.0 == b.0) {
            for some in of_tenant.chunks(PURGE) {
                let Some((tenant, _)) = some.first() else { continue };
                let jobs: Vec<JobId> = some.iter().map(|(_, job)| *job).collect();
                purged = purged.saturating_add(self.store.purge_jobs(*tenant, &jobs, self.now()).await?);
            }
        }
        Ok(purged)
    }

    /// Deletes what is older than its tenant keeps, and goes on with tenants that were deleted. `all` is how long tenants keep
    /// their data whose limits say nothing; for ever where it is none.
    ///
    /// # Errors
    /// The store failed. What could not be removed is tried again in the next round.
    pub async fn retain(&self, all: Option<Duration>) -> Result<Retained, StoreError> {
        let mut retained = Retained::default();
        for tenant in self.store.tenants().await? {
            let days = tenant.limits.and_then(|l| l.retention_days);
            let own = days.map(|days| Duration::from_secs(u64::from(days).saturating_mul(24 * 3_600)));
            let before = match own.or(all) {
                _ if tenant.deleted => self.now().plus_ms(1),
                Some(keep) => self.now().minus_ms(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)),
                None => continue,
            };
            self.retain_of(&tenant, before, &mut retained).await?;
        }
        Ok(retained)
    }

    async fn retain_of(
        &self,
        tenant: &TenantRecord,
        before: Time,
        retained: &mut Retained,
    ) -> Result<(), StoreError> {
        if tenant.deleted {
            self.cancel_all(tenant.id).await?;
        }
        for job in self.store.old_jobs(tenant.id, before, BATCH).await? {
            if self.store.delete_job(tenant.id, job, self.now()).await? == Deleted::Done {
                retained.jobs = retained.jobs.saturating_add(1);
            }
        }
        for upload in self.store.old_uploads(tenant.id, before, BATCH).await? {
            if self.store.delete_upload(tenant.id, upload).await? == Deleted::Done {
                retained.uploads = retained.uploads.saturating_add(1);
                // The row is gone, so a file that stays is swept with what a crash leaves over.
                if let Err(e) = self.objects.remove_upload(tenant.id, upload).await {
                    tracing::warn!(error = %e, %upload, "cannot remove an upload that is not kept any more");
                }
            }
        }
        if tenant.deleted && self.store.finish_tenant(tenant.id, self.now()).await? {
            retained.tenants = retained.tenants.saturating_add(1);
            tracing::info!(tenant = %tenant.id, "nothing is left of a deleted tenant but its id");
        }
        Ok(())
    }

    async fn cancel_all(&self, tenant: TenantId) -> Result<(), StoreError> {
        for state in UNFINISHED {
            for view in self.store.jobs(tenant, Some(state), None, BATCH).await? {
                let canceled = self.store.cancel(tenant, view.job.id, None, self.now()).await?;
                if canceled == Once::Done(Canceled::Now) {
                    let ended = JobRecord { state: JobState::Canceled, ..view.job.clone() };
                    self.trace_job(&ended);
                }
                if matches!(canceled, Once::Done(Canceled::Now | Canceled::Soon)) {
                    let ready = view.tasks.iter().filter(|task| task.state == TaskState::Ready);
                    let tasks: Vec<_> = ready.map(|task| task.id).collect();
                    self.told(self.queue.remove(None, &tasks).await);
                }
            }
        }
        Ok(())
    }
}
