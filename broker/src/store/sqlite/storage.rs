//! Tenants' own storage.

use super::SqliteStore;
use crate::objects::own::OwnStorage;
use crate::store::StoreError;
use crate::store::row::{self, json};
use crate::store::storage::{StorageRefused, Storages, refused};
use async_trait::async_trait;
use mpegflow_protocol::ids::TenantId;
use sqlx::{Sqlite, Transaction};

const ALL: &str =
    "SELECT id, name, storage FROM tenants WHERE storage IS NOT NULL AND erased_at IS NULL ORDER BY id";

/// Sets a tenant's storage, where it can be that.
pub(super) async fn put(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    storage: Option<&OwnStorage>,
    abandon: bool,
) -> Result<Result<(), StorageRefused>, StoreError> {
    let rows = sqlx::query(ALL).fetch_all(&mut **tx).await?;
    let neighbours = rows.iter().map(row::neighbour).collect::<Result<Vec<_>, _>>()?;
    let data = sqlx::query(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs WHERE tenant = ?1) OR EXISTS (SELECT 1 FROM uploads WHERE tenant = ?1)",
    )
    .bind(tenant.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(no) = refused(tenant, storage, &neighbours, data.is_some() && !abandon) {
        return Ok(Err(no));
    }
    let done = sqlx::query("UPDATE tenants SET storage = ? WHERE id = ?")
        .bind(storage.map(|storage| json(&storage.raw())))
        .bind(tenant.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(if done.rows_affected() == 1 { Ok(()) } else { Err(StorageRefused::NoTenant) })
}

#[async_trait]
impl Storages for SqliteStore {
    async fn storage_of(&self, tenant: TenantId) -> Result<Option<OwnStorage>, StoreError> {
        let row = sqlx::query("SELECT storage FROM tenants WHERE id = ?")
            .bind(tenant.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(row::own_storage).transpose()?.flatten())
    }

    async fn storages(&self) -> Result<Vec<(TenantId, OwnStorage)>, StoreError> {
        let rows = sqlx::query(ALL).fetch_all(&self.readers).await?;
        rows.iter().map(|row| row::neighbour(row).map(|n| (n.id, n.storage))).collect()
    }

    async fn set_storage(
        &self,
        tenant: TenantId,
        storage: Option<&OwnStorage>,
        abandon: bool,
    ) -> Result<Result<(), StorageRefused>, StoreError> {
        let mut tx = self.write().await?;
        let set = put(&mut tx, tenant, storage, abandon).await?;
        if set.is_ok() {
            tx.commit().await?;
        }
        Ok(set)
    }
}
