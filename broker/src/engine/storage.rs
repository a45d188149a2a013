//! Tenants' own storage: set, shown and tried by whoever runs the broker.

use super::Engine;
use crate::objects::ObjectError;
use crate::objects::own::{BadStorage, OwnStorage};
use crate::objects::s3::{OpenError, S3Objects};
use crate::store::StoreError;
use crate::store::storage::StorageRefused;
use mpegflow_protocol::control;
use mpegflow_protocol::ids::TenantId;

/// Why a tenant's storage was not set or does not do its part.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It cannot be one.
    #[error("this cannot be a tenant's storage")]
    Bad(#[from] BadStorage),
    /// It cannot be this tenant's.
    #[error("the tenant's storage was not set")]
    Refused(#[from] StorageRefused),
    /// The tenant has none.
    #[error("the tenant has no storage of its own")]
    None,
    /// It cannot be opened.
    #[error("the storage cannot be opened")]
    Open(#[from] OpenError),
    /// It does not do what it has to.
    #[error("the storage does not do what it has to")]
    Objects(#[from] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Engine {
    /// Checks what can be checked without asking anyone.
    pub(super) fn checked_storage(&self, raw: control::Storage) -> Result<OwnStorage, BadStorage> {
        let storage = OwnStorage::new(raw)?;
        storage.check(&self.storage)?;
        Ok(storage)
    }

    /// Sets where a tenant's objects lie; with those of all where there is none. With `abandon`, although it has some where they lie
    /// now: nobody finds those any more.
    ///
    /// # Errors
    /// It cannot be that.
    pub async fn set_storage(
        &self,
        tenant: TenantId,
        raw: Option<control::Storage>,
        abandon: bool,
    ) -> Result<(), StorageError> {
        let storage = raw.map(|raw| self.checked_storage(raw)).transpose()?;
        Ok(self.store.set_storage(tenant, storage.as_ref(), abandon).await??)
    }

    /// Writes a small object to a tenant's own storage, looks at it and removes it.
    ///
    /// # Errors
    /// The tenant has none, or it does not do what it has to.
    pub async fn try_storage(&self, tenant: TenantId) -> Result<(), StorageError> {
        let storage = self.store.storage_of(tenant).await?.ok_or(StorageError::None)?;
        storage.check(&self.storage)?;
        S3Objects::open(&storage.config(tenant, &self.storage))?.probe().await?;
        Ok(())
    }
}
