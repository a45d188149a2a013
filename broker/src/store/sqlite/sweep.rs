//! Housekeeping.

use super::SqliteStore;
use crate::model::Time;
use crate::store::row::{Cells, json};
use crate::store::{Garbage, StoreError};
use mpegflow_protocol::ids::{AttemptId, TenantId};

pub(super) async fn garbage(
    store: &SqliteStore,
    without: &[TenantId],
    limit: u32,
) -> Result<Vec<Garbage>, StoreError> {
    sqlx::query("DELETE FROM pins WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = pins.attempt)")
        .execute(&store.writer)
        .await?;
    sqlx::query(
        "DELETE FROM announced WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.attempt = announced.attempt)",
    )
    .execute(&store.writer)
    .await?;
    // What a succeeded attempt made is an input of later tasks until the job has ended, and what is in the manifest stays.
    let rows = sqlx::query(
        "SELECT a.tenant, a.job, a.id FROM attempts a JOIN jobs j ON j.id = a.job
         WHERE a.swept = 0 AND a.state <> 'live'
           AND (a.state <> 'succeeded' OR j.state IN ('succeeded', 'failed', 'canceled'))
           AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.attempt = a.id) AND a.tenant NOT IN (SELECT value FROM json_each(?))
         LIMIT ?",
    )
    .bind(json(&without))
    .bind(limit)
    .fetch_all(&store.readers)
    .await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("attempts", row);
            Ok(Garbage { tenant: cells.id("tenant")?, job: cells.id("job")?, attempt: cells.id("id")? })
        })
        .collect()
}

pub(super) async fn swept(store: &SqliteStore, attempt: AttemptId) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET swept = 1 WHERE id = ? AND state <> 'live'")
        .bind(attempt.to_string())
        .execute(&store.writer)
        .await?;
    Ok(())
}

pub(super) async fn unsweep(store: &SqliteStore, attempt: AttemptId) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET swept = 0 WHERE id = ? AND state <> 'live'")
        .bind(attempt.to_string())
        .execute(&store.writer)
        .await?;
    Ok(())
}

pub(super) async fn keeps_files(store: &SqliteStore, attempt: AttemptId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM attempts WHERE id = ? AND swept = 0")
        .bind(attempt.to_string())
        .fetch_optional(&store.readers)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn forget_idempotency(store: &SqliteStore, before: Time) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM idempotency WHERE created_at < ?")
        .bind(before.0)
        .execute(&store.writer)
        .await?;
    Ok(done.rows_affected())
}
