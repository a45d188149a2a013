//! What the store keeps of tenants' own storage: where it is and what the broker gets in by, never a secret.

use super::StoreError;
use crate::objects::own::OwnStorage;
use async_trait::async_trait;
use mpegflow_protocol::ids::TenantId;

/// Why a tenant's storage was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageRefused {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NoTenant,
    /// It has uploads or jobs where its storage is now.
    #[error(
        "the tenant has uploads or jobs, whose bytes lie where its storage is now and do not move: delete them first, or give it a tenant of another name"
    )]
    InUse,
    /// The place holds another tenant's, or the other way round.
    #[error(
        "the tenant {0} has its storage in this bucket, and one prefix begins with the other: use another bucket or prefix"
    )]
    Overlaps(String),
}

/// A tenant's storage with the tenant's name.
pub(super) struct Neighbour {
    pub(super) id: TenantId,
    pub(super) name: String,
    pub(super) storage: OwnStorage,
}

/// Why a tenant's storage cannot be that, where it cannot. `neighbours` are all that have storage of their own, the tenant too.
pub(super) fn refused(
    tenant: TenantId,
    wanted: Option<&OwnStorage>,
    neighbours: &[Neighbour],
    has_data: bool,
) -> Option<StorageRefused> {
    let here = neighbours.iter().find(|n| n.id == tenant).map(|n| &n.storage);
    let stays = match (here, wanted) {
        (None, None) => true,
        (Some(here), Some(wanted)) => here.is_at(wanted),
        _ => false,
    };
    if has_data && !stays {
        return Some(StorageRefused::InUse);
    }
    let wanted = wanted?;
    let other = neighbours.iter().find(|n| n.id != tenant && n.storage.overlaps(wanted))?;
    Some(StorageRefused::Overlaps(other.name.clone()))
}

/// Tenants' own storage.
#[async_trait]
pub trait Storages: Send + Sync + 'static {
    /// Where a tenant's objects lie; with those of all where there is none.
    async fn storage_of(&self, tenant: TenantId) -> Result<Option<OwnStorage>, StoreError>;
    /// Every tenant that has storage of its own.
    async fn storages(&self) -> Result<Vec<(TenantId, OwnStorage)>, StoreError>;
    /// Sets where a tenant's objects lie. With `abandon`, although it has some where they lie now: nobody finds those any more.
    async fn set_storage(
        &self,
        tenant: TenantId,
        storage: Option<&OwnStorage>,
        abandon: bool,
    ) -> Result<Result<(), StorageRefused>, StoreError>;
}
