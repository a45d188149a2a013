//! What brokers on one database agree on: who leads, and who writes an upload. All on the database's time.

use super::{PostgresStore, sql};
use crate::model::Claim;
use crate::store::StoreError;
use crate::store::row::{Cells, signed};
use mpegflow_protocol::ids::{AttemptId, UploadId};

pub(super) async fn lead(
    store: &PostgresStore,
    duty: &str,
    holder: &str,
    ttl_ms: u64,
) -> Result<Option<u64>, StoreError> {
    let mut conn = store.conn().await?;
    let query = store.sql(sql::LEAD).bind(duty).bind(holder).bind(signed(ttl_ms));
    let row = query.fetch_optional(&mut conn).await?;
    conn.done().await?;
    row.map(|row| Cells::of("leaders", &row).number("epoch")).transpose()
}

pub(super) async fn leads(store: &PostgresStore, duty: &str, epoch: u64) -> Result<bool, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::LEADS).bind(duty).bind(signed(epoch)).fetch_optional(&mut conn).await?;
    conn.done().await?;
    Ok(row.is_some())
}

pub(super) async fn resign(store: &PostgresStore, duty: &str, holder: &str) -> Result<(), StoreError> {
    store.change(store.sql(sql::RESIGN).bind(duty).bind(holder)).await.map(drop)
}

pub(super) async fn write_upload(
    store: &PostgresStore,
    id: UploadId,
    holder: &str,
    ttl_ms: u64,
) -> Result<bool, StoreError> {
    let query = store.sql(sql::WRITE_UPLOAD).bind(id.to_string()).bind(holder).bind(signed(ttl_ms));
    Ok(store.change(query).await? == 1)
}

pub(super) async fn wrote_upload(
    store: &PostgresStore,
    id: UploadId,
    holder: &str,
) -> Result<(), StoreError> {
    store.change(store.sql(sql::WROTE_UPLOAD).bind(id.to_string()).bind(holder)).await.map(drop)
}

pub(super) async fn ask_for_upload(store: &PostgresStore, id: UploadId) -> Result<(), StoreError> {
    store.change(store.sql(sql::ASK_FOR_UPLOAD).bind(id.to_string())).await.map(drop)
}

pub(super) async fn is_asked_for(
    store: &PostgresStore,
    id: UploadId,
    holder: &str,
) -> Result<bool, StoreError> {
    let mut conn = store.conn().await?;
    let row = store.sql(sql::ASKED_FOR).bind(id.to_string()).bind(holder).fetch_optional(&mut conn).await?;
    conn.done().await?;
    Ok(row.is_some())
}

pub(super) async fn ended(store: &PostgresStore, claims: &[Claim]) -> Result<Vec<AttemptId>, StoreError> {
    let attempts: Vec<String> = claims.iter().map(|claim| claim.attempt.to_string()).collect();
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::ENDED).bind(attempts).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(|row| Cells::of("leases", row).id("attempt")).collect()
}
