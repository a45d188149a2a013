//! Uploads, and the keys that make a repeated call the same call.

use super::conn::Conn;
use super::{PostgresStore, sql};
use crate::model::{Time, UploadRecord};
use crate::store::row::{self, Cells, signed};
use crate::store::{Announced, Deleted, Idempotency, NewUpload, Once, StoreError};
use mpegflow_protocol::ids::{TenantId, UploadId};
use sqlx::postgres::PgRow;

/// A transaction that holds the tenant's lock: quotas are counted and repetitions are looked up one at a time.
pub(super) async fn lock_tenant(store: &PostgresStore, tenant: TenantId) -> Result<Conn, StoreError> {
    let mut conn = store.begin().await?;
    store.sql(sql::LOCK_TENANT).bind(tenant.to_string()).execute(&mut conn).await?;
    Ok(conn)
}

/// Looks a key up: `None` where the call is new.
pub(super) async fn seen<T>(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    once: Option<&Idempotency>,
) -> Result<Option<Once<T>>, StoreError> {
    let Some(once) = once else { return Ok(None) };
    let query = store.sql(sql::SEEN).bind(tenant.to_string()).bind(&once.key);
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let cells = Cells::of("idempotency", &row);
    if cells.sha256("request")? != once.request {
        return Ok(Some(Once::Mismatch));
    }
    Ok(Some(Once::Replay(cells.bytes("answer")?.to_vec())))
}

/// Keeps the answer for a repetition.
pub(super) async fn keep(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    once: Option<&Idempotency>,
    answer: &[u8],
    now: Time,
) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    store
        .sql(sql::KEEP)
        .bind(tenant.to_string())
        .bind(&once.key)
        .bind(once.request.as_slice())
        .bind(answer)
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn create(
    store: &PostgresStore,
    new: &NewUpload,
    once: Option<&Idempotency>,
) -> Result<Once<Announced>, StoreError> {
    let upload = &new.upload;
    let mut conn = lock_tenant(store, upload.tenant).await?;
    if let Some(seen) = seen(store, &mut conn, upload.tenant, once).await? {
        return Ok(seen);
    }
    let row = store.sql(sql::UPLOADED).bind(upload.tenant.to_string()).fetch_one(&mut conn).await?;
    let cells = Cells::of("uploads", &row);
    if cells.number("unfinished")? >= u64::from(new.max_unfinished) {
        return Ok(Once::Done(Announced::TooMany));
    }
    if cells.number("bytes")?.saturating_add(upload.size) > new.max_bytes {
        return Ok(Once::Done(Announced::TooLarge));
    }
    store
        .sql(sql::ANNOUNCE)
        .bind(upload.id.to_string())
        .bind(upload.tenant.to_string())
        .bind(signed(upload.size))
        .bind(upload.name.as_deref())
        .bind(upload.created_at.0)
        .bind(upload.metadata.as_deref())
        .execute(&mut conn)
        .await?;
    keep(store, &mut conn, upload.tenant, once, &new.answer, upload.created_at).await?;
    conn.done().await?;
    Ok(Once::Done(Announced::Created))
}

pub(super) async fn get(
    store: &PostgresStore,
    tenant: TenantId,
    id: UploadId,
) -> Result<Option<UploadRecord>, StoreError> {
    let mut conn = store.conn().await?;
    let query = store.sql(sql::UPLOAD).bind(tenant.to_string()).bind(id.to_string());
    let row = query.fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.as_ref().map(row::upload).transpose()
}

pub(super) async fn advance(
    store: &PostgresStore,
    id: UploadId,
    from: u64,
    to: u64,
    now: Time,
) -> Result<bool, StoreError> {
    let query = store.sql(sql::ADVANCE).bind(id.to_string()).bind(signed(from)).bind(signed(to)).bind(now.0);
    Ok(store.change(query).await? == 1)
}

pub(super) async fn delete(
    store: &PostgresStore,
    tenant: TenantId,
    id: UploadId,
) -> Result<Deleted, StoreError> {
    // No job is submitted meanwhile.
    let mut conn = lock_tenant(store, tenant).await?;
    let query = store.sql(sql::UPLOAD_IN_USE).bind(tenant.to_string()).bind(id.to_string());
    if query.fetch_optional(&mut conn).await?.is_some() {
        return Ok(Deleted::InUse);
    }
    let query = store.sql(sql::DELETE_UPLOAD).bind(tenant.to_string()).bind(id.to_string());
    let done = query.execute(&mut conn).await?;
    conn.done().await?;
    Ok(if done.rows_affected() == 1 { Deleted::Done } else { Deleted::NotFound })
}

pub(super) async fn idle(
    store: &PostgresStore,
    before: Time,
) -> Result<Vec<(TenantId, UploadId)>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::IDLE_UPLOADS).bind(before.0).fetch_all(&mut conn).await?;
    conn.done().await?;
    pairs(&rows)
}

pub(super) async fn delete_idle(
    store: &PostgresStore,
    id: UploadId,
    before: Time,
) -> Result<bool, StoreError> {
    Ok(store.change(store.sql(sql::DELETE_IDLE).bind(id.to_string()).bind(before.0)).await? == 1)
}

fn pairs(rows: &[PgRow]) -> Result<Vec<(TenantId, UploadId)>, StoreError> {
    rows.iter()
        .map(|row| {
            let cells = Cells::of("uploads", row);
            Ok((cells.id("tenant")?, cells.id("id")?))
        })
        .collect()
}
