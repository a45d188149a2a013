//! Uploads, and the keys that make a repeated call the same call.

use super::{SqliteStore, Tx};
use crate::model::{Time, UploadRecord};
use crate::store::row::{self, Cells, signed};
use crate::store::{Announced, Deleted, Idempotency, NewUpload, Once, StoreError};
use mpegflow_protocol::ids::{TenantId, UploadId};

/// Looks a key up: `None` where the call is new.
pub(super) async fn seen<T>(
    tx: &mut Tx,
    tenant: TenantId,
    once: Option<&Idempotency>,
) -> Result<Option<Once<T>>, StoreError> {
    let Some(once) = once else { return Ok(None) };
    let row = sqlx::query("SELECT request, answer FROM idempotency WHERE tenant = ? AND key = ?")
        .bind(tenant.to_string())
        .bind(&once.key)
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let cells = Cells::of("idempotency", &row);
    if cells.sha256("request")? != once.request {
        return Ok(Some(Once::Mismatch));
    }
    Ok(Some(Once::Replay(cells.bytes("answer")?.to_vec())))
}

/// Keeps the answer for a repetition.
pub(super) async fn keep(
    tx: &mut Tx,
    tenant: TenantId,
    once: Option<&Idempotency>,
    answer: &[u8],
    now: Time,
) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    sqlx::query("INSERT INTO idempotency (tenant, key, request, answer, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(tenant.to_string())
        .bind(&once.key)
        .bind(once.request.as_slice())
        .bind(answer)
        .bind(now.0)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn create(
    store: &SqliteStore,
    new: &NewUpload,
    once: Option<&Idempotency>,
) -> Result<Once<Announced>, StoreError> {
    let upload = &new.upload;
    let mut tx = store.write().await?;
    if let Some(seen) = seen(&mut tx, upload.tenant, once).await? {
        return Ok(seen);
    }
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE received < size) AS unfinished, coalesce(sum(size), 0) AS bytes
         FROM uploads WHERE tenant = ?",
    )
    .bind(upload.tenant.to_string())
    .fetch_one(&mut *tx)
    .await?;
    let cells = Cells::of("uploads", &row);
    if cells.number("unfinished")? >= u64::from(new.max_unfinished) {
        return Ok(Once::Done(Announced::TooMany));
    }
    if cells.number("bytes")?.saturating_add(upload.size) > new.max_bytes {
        return Ok(Once::Done(Announced::TooLarge));
    }
    sqlx::query(
        "INSERT INTO uploads (id, tenant, size, name, metadata, created_at, touched_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(upload.id.to_string())
    .bind(upload.tenant.to_string())
    .bind(signed(upload.size))
    .bind(upload.name.as_deref())
    .bind(upload.metadata.as_deref())
    .bind(upload.created_at.0)
    .bind(upload.created_at.0)
    .execute(&mut *tx)
    .await?;
    keep(&mut tx, upload.tenant, once, &new.answer, upload.created_at).await?;
    tx.commit().await?;
    Ok(Once::Done(Announced::Created))
}

pub(super) async fn get(
    store: &SqliteStore,
    tenant: TenantId,
    id: UploadId,
) -> Result<Option<UploadRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM uploads WHERE id = ? AND tenant = ?")
        .bind(id.to_string())
        .bind(tenant.to_string())
        .fetch_optional(&store.readers)
        .await?;
    row.as_ref().map(row::upload).transpose()
}

pub(super) async fn advance(
    store: &SqliteStore,
    id: UploadId,
    from: u64,
    to: u64,
    now: Time,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE uploads SET received = ?, touched_at = ? WHERE id = ? AND received = ?")
        .bind(signed(to))
        .bind(now.0)
        .bind(id.to_string())
        .bind(signed(from))
        .execute(&store.writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn delete(
    store: &SqliteStore,
    tenant: TenantId,
    id: UploadId,
) -> Result<Deleted, StoreError> {
    let mut tx = store.write().await?;
    let used = sqlx::query(
        "SELECT 1 FROM jobs WHERE upload = ? AND tenant = ? AND state IN ('queued', 'running', 'canceling') LIMIT 1",
    )
    .bind(id.to_string())
    .bind(tenant.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    if used.is_some() {
        return Ok(Deleted::InUse);
    }
    let done = sqlx::query("DELETE FROM uploads WHERE id = ? AND tenant = ?")
        .bind(id.to_string())
        .bind(tenant.to_string())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(if done.rows_affected() == 1 { Deleted::Done } else { Deleted::NotFound })
}

pub(super) async fn idle(store: &SqliteStore, before: Time) -> Result<Vec<(TenantId, UploadId)>, StoreError> {
    let rows =
        sqlx::query("SELECT tenant, id FROM uploads WHERE received < size AND touched_at < ? LIMIT 1000")
            .bind(before.0)
            .fetch_all(&store.readers)
            .await?;
    pairs(&rows)
}

pub(super) async fn delete_idle(store: &SqliteStore, id: UploadId, before: Time) -> Result<bool, StoreError> {
    let mut tx = store.write().await?;
    let done = sqlx::query("DELETE FROM uploads WHERE id = ? AND received < size AND touched_at < ?")
        .bind(id.to_string())
        .bind(before.0)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

fn pairs(rows: &[sqlx::sqlite::SqliteRow]) -> Result<Vec<(TenantId, UploadId)>, StoreError> {
    rows.iter()
        .map(|row| {
            let cells = Cells::of("uploads", row);
            Ok((cells.id("tenant")?, cells.id("id")?))
        })
        .collect()
}
