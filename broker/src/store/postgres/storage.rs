//! Tenants' own storage.

use super::conn::Conn;
use super::{PostgresStore, sql};
use crate::objects::own::OwnStorage;
use crate::store::StoreError;
use crate::store::row::{self, json};
use crate::store::storage::{StorageRefused, Storages, refused};
use async_trait::async_trait;
use mpegflow_protocol::ids::TenantId;

/// Sets a tenant's storage, where it can be that. The lock of pools is held: two at once, each of which finds the other's place free,
/// must not both have it.
pub(super) async fn put(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    storage: Option<&OwnStorage>,
    abandon: bool,
) -> Result<Result<(), StorageRefused>, StoreError> {
    // An upload or a job that is about to be there comes before or after.
    store.sql(sql::LOCK_TENANT).bind(tenant.to_string()).execute(conn).await?;
    let rows = store.sql(sql::OWN_STORAGES).fetch_all(conn).await?;
    let neighbours = rows.iter().map(row::neighbour).collect::<Result<Vec<_>, _>>()?;
    let data = store.sql(sql::TENANT_HAS_DATA).bind(tenant.to_string()).fetch_optional(conn).await?;
    if let Some(no) = refused(tenant, storage, &neighbours, data.is_some() && !abandon) {
        return Ok(Err(no));
    }
    let set = store.sql(sql::SET_STORAGE).bind(tenant.to_string());
    let done = set.bind(storage.map(|storage| json(&storage.raw()))).execute(conn).await?;
    Ok(if done.rows_affected() == 1 { Ok(()) } else { Err(StorageRefused::NoTenant) })
}

#[async_trait]
impl Storages for PostgresStore {
    async fn storage_of(&self, tenant: TenantId) -> Result<Option<OwnStorage>, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::OWN_STORAGE).bind(tenant.to_string()).fetch_optional(&mut conn).await?;
        conn.done().await?;
        Ok(row.as_ref().map(row::own_storage).transpose()?.flatten())
    }

    async fn storages(&self) -> Result<Vec<(TenantId, OwnStorage)>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::OWN_STORAGES).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(|row| row::neighbour(row).map(|n| (n.id, n.storage))).collect()
    }

    async fn set_storage(
        &self,
        tenant: TenantId,
        storage: Option<&OwnStorage>,
        abandon: bool,
    ) -> Result<Result<(), StorageRefused>, StoreError> {
        let mut tx = self.begin().await?;
        self.sql(sql::LOCK_POOLS).execute(&mut tx).await?;
        let set = put(self, &mut tx, tenant, storage, abandon).await?;
        if set.is_ok() {
            tx.done().await?;
        }
        Ok(set)
    }
}
