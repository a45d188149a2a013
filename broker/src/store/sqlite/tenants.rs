//! Tenants, their keys, join tokens and workers.

use super::SqliteStore;
use crate::model::{Time, WorkerRecord};
use crate::store::row::{self, Cells};
use crate::store::{ApiKeyRecord, StoreError};
use mpegflow_protocol::ids::{KeyId, PoolName, TenantId, WorkerId};

pub(super) async fn ensure(
    store: &SqliteStore,
    name: &str,
    id: TenantId,
    now: Time,
) -> Result<TenantId, StoreError> {
    let mut tx = store.write().await?;
    sqlx::query("INSERT INTO tenants (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(id.to_string())
        .bind(name)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
    let row = sqlx::query("SELECT id FROM tenants WHERE name = ?").bind(name).fetch_one(&mut *tx).await?;
    let id = Cells::of("tenants", &row).id("id")?;
    tx.commit().await?;
    Ok(id)
}

pub(super) async fn add_key(
    store: &SqliteStore,
    id: KeyId,
    key: &ApiKeyRecord,
    label: &str,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, tenant, label, secret_sha256, created_at, scopes, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
        .bind(id.to_string())
        .bind(key.tenant.to_string())
        .bind(label)
        .bind(key.secret_sha256.as_slice())
        .bind(now.0)
        .bind(key.scopes.to_string())
        .bind(key.expires_at.map(|at| at.0))
        .execute(&store.writer)
        .await?;
    Ok(())
}

pub(super) async fn key(store: &SqliteStore, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT tenant, secret_sha256, scopes, expires_at FROM api_keys WHERE id = ? AND revoked_at IS NULL",
    )
    .bind(id.to_string())
    .fetch_optional(&store.readers)
    .await?;
    row.as_ref().map(row::api_key).transpose()
}

pub(super) async fn revoke_key(store: &SqliteStore, id: KeyId, now: Time) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind(now.0)
        .bind(id.to_string())
        .execute(&store.writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn set_weight(store: &SqliteStore, name: &str, weight: u32) -> Result<bool, StoreError> {
    let mut tx = store.write().await?;
    let done = sqlx::query("UPDATE tenants SET weight = ? WHERE name = ?")
        .bind(weight)
        .bind(name)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn weights(store: &SqliteStore) -> Result<Vec<(TenantId, u32)>, StoreError> {
    let rows =
        sqlx::query("SELECT id, weight FROM tenants WHERE weight <> 100").fetch_all(&store.readers).await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("tenants", row);
            Ok((cells.id("id")?, cells.small("weight")?))
        })
        .collect()
}

pub(super) async fn add_join_token(
    store: &SqliteStore,
    sha256: [u8; 32],
    pool: &PoolName,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO join_tokens (sha256, pool, created_at) VALUES (?, ?, ?)")
        .bind(sha256.as_slice())
        .bind(pool.as_str())
        .bind(now.0)
        .execute(&store.writer)
        .await?;
    Ok(())
}

pub(super) async fn join_token(
    store: &SqliteStore,
    sha256: [u8; 32],
) -> Result<Option<PoolName>, StoreError> {
    let row = sqlx::query("SELECT pool FROM join_tokens WHERE sha256 = ? AND revoked_at IS NULL")
        .bind(sha256.as_slice())
        .fetch_optional(&store.readers)
        .await?;
    row.map(|row| Cells::of("join_tokens", &row).pool("pool")).transpose()
}

pub(super) async fn has_join_token(store: &SqliteStore, pool: &PoolName) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM join_tokens WHERE pool = ? AND revoked_at IS NULL LIMIT 1")
        .bind(pool.as_str())
        .fetch_optional(&store.readers)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn revoke_join_tokens(
    store: &SqliteStore,
    pool: &PoolName,
    now: Time,
) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE join_tokens SET revoked_at = ? WHERE pool = ? AND revoked_at IS NULL")
        .bind(now.0)
        .bind(pool.as_str())
        .execute(&store.writer)
        .await?;
    Ok(done.rows_affected())
}

pub(super) async fn add_worker(
    store: &SqliteStore,
    id: WorkerId,
    pool: &PoolName,
    expires: Time,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO workers (id, pool, enrolled_at, cert_expires_at) VALUES (?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(pool.as_str())
        .bind(now.0)
        .bind(expires.0)
        .execute(&store.writer)
        .await?;
    Ok(())
}

pub(super) async fn worker(store: &SqliteStore, id: WorkerId) -> Result<Option<WorkerRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT id, pool, tenant, pod, node, cordoned_at, revoked_at, retired_at FROM workers WHERE id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(&store.readers)
    .await?;
    row.as_ref().map(row::worker).transpose()
}

pub(super) async fn renew_worker(store: &SqliteStore, id: WorkerId, expires: Time) -> Result<(), StoreError> {
    sqlx::query("UPDATE workers SET cert_expires_at = ? WHERE id = ?")
        .bind(expires.0)
        .bind(id.to_string())
        .execute(&store.writer)
        .await?;
    Ok(())
}
