//! What the store does so that a tenant's data goes: jobs one by one, what is old, and all of it. Nothing that is deleted comes back
//! after a crash: a deletion is one committed mark, and what it stands for is removed by sweeps that begin again where they stopped.

use super::{Deleted, StoreError};
use crate::model::{TenantLimits, Time};
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, TenantId, UploadId};

/// A tenant, as a sweep sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its id.
    pub id: TenantId,
    /// What it may have instead of what all may.
    pub limits: Option<TenantLimits>,
    /// Whether it was deleted, and not all of its data is gone yet.
    pub deleted: bool,
}

/// Deletion of a tenant's data.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Deletes a job that has ended: it is not found any more, and its files are nobody's.
    async fn delete_job(&self, tenant: TenantId, job: JobId, now: Time) -> Result<Deleted, StoreError>;
    /// Deleted jobs whose files are gone.
    async fn purgeable_jobs(&self, limit: u32) -> Result<Vec<(TenantId, JobId)>, StoreError>;
    /// Removes deleted jobs of a tenant: what their events say, and then all their rows. How many jobs.
    async fn purge_jobs(&self, tenant: TenantId, jobs: &[JobId], now: Time) -> Result<u64, StoreError>;
    /// Jobs of the tenant that ended before `before`, oldest first.
    async fn old_jobs(&self, tenant: TenantId, before: Time, limit: u32) -> Result<Vec<JobId>, StoreError>;
    /// Uploads of the tenant that nothing was added to since `before` and that no unfinished job needs, oldest first.
    async fn old_uploads(
        &self,
        tenant: TenantId,
        before: Time,
        limit: u32,
    ) -> Result<Vec<UploadId>, StoreError>;

    /// The tenants, but for those that were deleted and have no data left.
    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError>;
    /// Deletes a tenant: its name, keys and webhooks are gone at once, and nobody can sign in as it. Its id, or `None` where there
    /// is no tenant of that name.
    async fn delete_tenant(&self, name: &str, now: Time) -> Result<Option<TenantId>, StoreError>;
    /// Removes what is left of a deleted tenant but its id, if it has no job and no upload; whether it had none.
    async fn finish_tenant(&self, tenant: TenantId, now: Time) -> Result<bool, StoreError>;
}

/// The smallest id of a job that was made at that time: ids begin with their time.
pub(super) fn first_id_at(time: Time) -> JobId {
    let ms = u128::try_from(time.0).unwrap_or(0).min((1 << 48) - 1);
    JobId::from_u128(ms << 80)
}
