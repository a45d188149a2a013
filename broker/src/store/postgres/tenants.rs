//! Tenants, their keys, join tokens and workers.

use super::{PostgresStore, sql};
use crate::audit::chain;
use crate::model::{Time, WorkerRecord};
use crate::store::row::{self, Cells};
use crate::store::{ApiKeyRecord, StoreError};
use mpegflow_protocol::ids::{KeyId, PoolName, TenantId, WorkerId};

pub(super) async fn ensure(
    store: &PostgresStore,
    name: &str,
    id: TenantId,
    now: Time,
) -> Result<TenantId, StoreError> {
    let query = store.sql(sql::ADD_TENANT).bind(id.to_string()).bind(name).bind(now.0);
    store.change(query.bind(chain::genesis(id).as_slice())).await?;
    // In a statement of its own: who lost the race to add the name sees it only now.
    let mut conn = store.conn().await?;
    let row = store.sql(sql::TENANT).bind(name).fetch_one(&mut conn).await?;
    conn.done().await?;
    Cells::of("tenants", &row).id("id")
}

pub(super) async fn add_key(
    store: &PostgresStore,
    id: KeyId,
    key: &ApiKeyRecord,
    label: &str,
    now: Time,
) -> Result<(), StoreError> {
    let query = store
        .sql(sql::ADD_KEY)
        .bind(id.to_string())
        .bind(key.tenant.to_string())
        .bind(label)
        .bind(key.secret_sha256.as_slice())
        .bind(now.0)
        .bind(key.scopes.to_string())
        .bind(key.expires_at.map(|at| at.0));
    store.change(query).await.map(drop)
}

pub(super) async fn key(store: &PostgresStore, id: KeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::KEY).bind(id.to_string()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.as_ref().map(row::api_key).transpose()
}

pub(super) async fn revoke_key(store: &PostgresStore, id: KeyId, now: Time) -> Result<bool, StoreError> {
    Ok(store.change(store.sql(sql::REVOKE_KEY).bind(id.to_string()).bind(now.0)).await? == 1)
}

pub(super) async fn set_weight(store: &PostgresStore, name: &str, weight: u32) -> Result<bool, StoreError> {
    Ok(store.change(store.sql(sql::SET_WEIGHT).bind(name).bind(i64::from(weight))).await? == 1)
}

pub(super) async fn weights(store: &PostgresStore) -> Result<Vec<(TenantId, u32)>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::WEIGHTS).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("tenants", row);
            Ok((cells.id("id")?, cells.small("weight")?))
        })
        .collect()
}

pub(super) async fn add_join_token(
    store: &PostgresStore,
    sha256: [u8; 32],
    pool: &PoolName,
    now: Time,
) -> Result<(), StoreError> {
    let query = store.sql(sql::ADD_JOIN_TOKEN).bind(sha256.to_vec()).bind(pool.as_str()).bind(now.0);
    store.change(query).await.map(drop)
}

pub(super) async fn join_token(
    store: &PostgresStore,
    sha256: [u8; 32],
) -> Result<Option<PoolName>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::JOIN_TOKEN).bind(sha256.to_vec()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.map(|row| Cells::of("join_tokens", &row).pool("pool")).transpose()
}

pub(super) async fn has_join_token(store: &PostgresStore, pool: &PoolName) -> Result<bool, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::HAS_JOIN_TOKEN).bind(pool.as_str()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    Ok(row.is_some())
}

pub(super) async fn revoke_join_tokens(
    store: &PostgresStore,
    pool: &PoolName,
    now: Time,
) -> Result<u64, StoreError> {
    store.change(store.sql(sql::REVOKE_JOIN_TOKENS).bind(pool.as_str()).bind(now.0)).await
}

pub(super) async fn add_worker(
    store: &PostgresStore,
    id: WorkerId,
    pool: &PoolName,
    expires: Time,
    now: Time,
) -> Result<(), StoreError> {
    let query = store.sql(sql::ADD_WORKER).bind(id.to_string()).bind(pool.as_str()).bind(now.0);
    store.change(query.bind(expires.0)).await.map(drop)
}

pub(super) async fn worker(store: &PostgresStore, id: WorkerId) -> Result<Option<WorkerRecord>, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::WORKER).bind(id.to_string()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.as_ref().map(row::worker).transpose()
}

pub(super) async fn renew_worker(
    store: &PostgresStore,
    id: WorkerId,
    expires: Time,
) -> Result<(), StoreError> {
    store.change(store.sql(sql::RENEW_WORKER).bind(id.to_string()).bind(expires.0)).await.map(drop)
}
