//! Housekeeping.

use super::{PostgresStore, dispatch, sql};
use crate::model::Time;
use crate::store::row::{Cells, signed};
use crate::store::{Garbage, Note, StoreError};
use mpegflow_protocol::ids::{AttemptId, TenantId};

pub(super) async fn garbage(
    store: &PostgresStore,
    without: &[TenantId],
    limit: u32,
) -> Result<Vec<Garbage>, StoreError> {
    store.change(store.sql(sql::ORPHANED_PARTS)).await?;
    store.change(store.sql(sql::ORPHANED_PINS)).await?;
    store.change(store.sql(sql::ORPHANED_ANNOUNCEMENTS)).await?;
    let mut conn = store.conn().await?;
    let rows = store
        .sql(sql::GARBAGE)
        .bind(i64::from(limit))
        .bind(without.iter().map(ToString::to_string).collect::<Vec<_>>())
        .fetch_all(&mut conn)
        .await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("attempts", row);
            Ok(Garbage { tenant: cells.id("tenant")?, job: cells.id("job")?, attempt: cells.id("id")? })
        })
        .collect()
}

pub(super) async fn swept(store: &PostgresStore, attempt: AttemptId, swept: bool) -> Result<(), StoreError> {
    store.change(store.sql(sql::SWEPT).bind(attempt.to_string()).bind(swept)).await.map(drop)
}

pub(super) async fn keeps_files(store: &PostgresStore, attempt: AttemptId) -> Result<bool, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::KEEPS_FILES).bind(attempt.to_string()).fetch_optional(&mut conn).await?;
    conn.done().await?;
    Ok(row.is_some())
}

pub(super) async fn forget_idempotency(store: &PostgresStore, before: Time) -> Result<u64, StoreError> {
    store.change(store.sql(sql::FORGET).bind(before.0)).await
}

pub(super) async fn outbox(store: &PostgresStore, limit: u32) -> Result<Vec<Note>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::OUTBOX).bind(i64::from(limit)).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("outbox", row);
            let ready = cells.text_or_null("task")?.map(|_| dispatch::ready_task(row, "task")).transpose()?;
            Ok(Note { id: cells.number("id")?, ready })
        })
        .collect()
}

pub(super) async fn relayed(store: &PostgresStore, ids: &[u64]) -> Result<(), StoreError> {
    let ids: Vec<i64> = ids.iter().map(|id| signed(*id)).collect();
    store.change(store.sql(sql::RELAYED).bind(ids)).await.map(drop)
}
