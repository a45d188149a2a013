//! The sequencer: takes events from the journal, gives each its place in its tenant's chain, and moves it to `events`. Off
//! the path of the moves that wrote them; whoever reads a tenant's events sequences first what is waiting.

use super::conn::Conn;
use super::query::Query;
use super::{PostgresStore, partitions, sql};
use crate::audit::chain::{self, Content, Entry, Head};
use crate::audit::checkpoint::TenantHead;
use crate::store::StoreError;
use crate::store::row::{Cells, signed};
use mpegflow_protocol::ids::TenantId;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;

/// Events in one transaction.
const BATCH: i64 = 2_000;

/// Sequences all that waits of one tenant.
pub(super) async fn catch_up(store: &PostgresStore, tenant: TenantId) -> Result<(), StoreError> {
    loop {
        let mut conn = store.conn().await?;
        let query = store.sql(sql::WAITS).bind(tenant.to_string());
        let waits = query.fetch_optional(&mut conn).await?.is_some();
        conn.done().await?;
        if !waits {
            return Ok(());
        }
        step(store, Some(tenant)).await?;
    }
}

/// Sequences a batch of what waits, of one tenant or of all whose chain nobody else works on; how many events.
pub(super) async fn step(store: &PostgresStore, tenant: Option<TenantId>) -> Result<u64, StoreError> {
    match once(store, tenant).await {
        Err(StoreError::Database(e)) if no_partition(&*e) => {
            // The month began, or the clock is beyond what was prepared.
            partitions::prepare(store).await?;
            once(store, tenant).await
        }
        other => other,
    }
}

/// `check_violation` is how a partitioned table says that no partition takes the row.
fn no_partition(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<sqlx::Error>().and_then(|e| e.as_database_error());
    error.and_then(|e| e.code()).is_some_and(|code| code == "23514")
}

async fn once(store: &PostgresStore, tenant: Option<TenantId>) -> Result<u64, StoreError> {
    let mut conn = store.begin().await?;
    let mut heads = match tenant {
        Some(tenant) => lock_heads(store.sql(sql::LOCK_HEAD).bind(tenant.to_string()), &mut conn).await?,
        None => lock_heads(store.sql(sql::LOCK_WAITING_HEADS).bind(BATCH), &mut conn).await?,
    };
    if heads.is_empty() {
        return Ok(0);
    }
    // A statement after the lock: what another sequencer has moved is gone from its snapshot.
    let tenants: Vec<String> = heads.keys().map(TenantId::to_string).collect();
    let rows = store.sql(sql::JOURNAL).bind(tenants).bind(BATCH).fetch_all(&mut conn).await?;
    let mut taken = Vec::with_capacity(rows.len());
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let cells = Cells::of("journal", row);
        let tenant: TenantId = cells.id("tenant")?;
        let Some(locked) = heads.get_mut(&tenant) else { continue };
        taken.push(signed(cells.number("id")?));
        let content = content(&cells, salt()?)?;
        entries.push((tenant, chain::append(tenant, &mut locked.head, locked.now, content)));
    }
    write(store, &mut conn, &entries, &heads).await?;
    store.sql(sql::TAKEN).bind(taken).execute(&mut conn).await?;
    conn.done().await?;
    Ok(u64::try_from(entries.len()).unwrap_or(u64::MAX))
}

/// A head under its lock.
struct Locked {
    head: Head,
    /// The database's time, and never before that of the chain's last entry.
    now: i64,
}

async fn lock_heads(query: Query<'_>, conn: &mut Conn) -> Result<BTreeMap<TenantId, Locked>, StoreError> {
    let rows = query.fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("chains", row);
            let head = Head { seq: cells.number("seq")?, hash: cells.sha256("hash")? };
            let now = cells.time("now")?.0.max(cells.time("chained_at")?.0);
            Ok((cells.id("tenant")?, Locked { head, now }))
        })
        .collect()
}

fn salt() -> Result<[u8; 16], StoreError> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|e| StoreError::Database(Box::new(e)))?;
    Ok(salt)
}

/// What is missing was never written so: it is read as empty, and then the digest is another.
fn content(cells: &Cells<'_, PgRow>, salt: [u8; 16]) -> Result<Content, StoreError> {
    let text = |column| Ok::<_, StoreError>(cells.text_or_null(column)?.map(str::to_owned));
    Ok(Content {
        salt,
        job: text("job")?,
        kind: text("kind")?.unwrap_or_default(),
        state: text("state")?,
        stage: text("stage")?,
        failure: text("failure")?,
        at: cells.time_or_null("at")?.map_or(0, |at| at.0),
    })
}

async fn write(
    store: &PostgresStore,
    conn: &mut Conn,
    entries: &[(TenantId, Entry)],
    heads: &BTreeMap<TenantId, Locked>,
) -> Result<(), StoreError> {
    fn of<T>(entries: &[(TenantId, Entry)], f: impl Fn(&Entry) -> T) -> Vec<T> {
        entries.iter().map(|(_, entry)| f(entry)).collect()
    }
    let inner = |f: fn(&Content) -> Option<String>| of(entries, |e| e.content.as_ref().and_then(f));
    store
        .sql(sql::CHAIN)
        .bind(entries.iter().map(|(tenant, _)| tenant.to_string()).collect::<Vec<_>>())
        .bind(of(entries, |e| signed(e.seq)))
        .bind(of(entries, |e| e.chained_at))
        .bind(of(entries, |e| e.digest.to_vec()))
        .bind(of(entries, |e| e.hash.to_vec()))
        .bind(of(entries, |e| e.content.as_ref().map(|c| c.salt.to_vec())))
        .bind(inner(|c| c.job.clone()))
        .bind(inner(|c| Some(c.kind.clone())))
        .bind(inner(|c| c.state.clone()))
        .bind(inner(|c| c.stage.clone()))
        .bind(inner(|c| c.failure.clone()))
        .bind(of(entries, |e| e.content.as_ref().map(|c| c.at)))
        .execute(conn)
        .await?;
    store
        .sql(sql::ADVANCE_HEADS)
        .bind(heads.keys().map(TenantId::to_string).collect::<Vec<_>>())
        .bind(heads.values().map(|l| signed(l.head.seq)).collect::<Vec<_>>())
        .bind(heads.values().map(|l| l.head.hash.to_vec()).collect::<Vec<_>>())
        .bind(heads.values().map(|l| l.now).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Erases what a tenant's events say, and records in its chain that this was done; how many entries.
pub(super) async fn erase(store: &PostgresStore, tenant: TenantId, at: i64) -> Result<u64, StoreError> {
    catch_up(store, tenant).await?;
    let mut conn = store.begin().await?;
    let mut heads = lock_heads(store.sql(sql::LOCK_HEAD).bind(tenant.to_string()), &mut conn).await?;
    let Some(locked) = heads.get_mut(&tenant) else { return Ok(0) };
    let through = locked.head.seq;
    let record = chain::append(tenant, &mut locked.head, locked.now, chain::erasure(salt()?, through, at));
    let query = store.sql(sql::ERASE).bind(tenant.to_string()).bind(signed(through)).bind(chain::ERASED);
    let erased = query.patient().execute(&mut conn).await?.rows_affected();
    write(store, &mut conn, &[(tenant, record)], &heads).await?;
    conn.done().await?;
    Ok(erased)
}

/// Runs of entries that one record names.
const RANGES: usize = 500;

/// Erases what the events of some jobs of a tenant say, and records in its chain which entries these were; how many.
pub(super) async fn erase_jobs(
    store: &PostgresStore,
    tenant: TenantId,
    jobs: &[String],
    at: i64,
) -> Result<u64, StoreError> {
    catch_up(store, tenant).await?;
    let mut conn = store.begin().await?;
    let mut heads = lock_heads(store.sql(sql::LOCK_HEAD).bind(tenant.to_string()), &mut conn).await?;
    let Some(locked) = heads.get_mut(&tenant) else { return Ok(0) };
    let rows =
        store.sql(sql::ERASE_JOBS).patient().bind(tenant.to_string()).bind(jobs).fetch_all(&mut conn).await?;
    let mut erased =
        rows.iter().map(|row| Cells::of("events", row).number("seq")).collect::<Result<Vec<_>, _>>()?;
    if erased.is_empty() {
        return Ok(0);
    }
    erased.sort_unstable();
    let mut records = Vec::new();
    for ranges in chain::ranges_of(&erased).chunks(RANGES) {
        let record = chain::erasure_of(salt()?, ranges, at);
        records.push((tenant, chain::append(tenant, &mut locked.head, locked.now, record)));
    }
    write(store, &mut conn, &records, &heads).await?;
    conn.done().await?;
    Ok(u64::try_from(erased.len()).unwrap_or(u64::MAX))
}

/// A page of a tenant's chain.
pub(super) async fn entries(
    store: &PostgresStore,
    tenant: TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    let mut conn = store.conn().await?;
    let query = store.sql(sql::ENTRIES).bind(tenant.to_string()).bind(signed(after)).bind(i64::from(limit));
    let rows = query.fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter()
        .map(|row| {
            let cells = Cells::of("events", row);
            // What has another length was never chained, and its digest or hash will say so.
            let hash = |column| {
                let bytes = cells.bytes_or_null(column)?;
                Ok::<[u8; 32], StoreError>(bytes.and_then(|b| b.try_into().ok()).unwrap_or_default())
            };
            let content = match cells.bytes_or_null("salt")?.map(<[u8; 16]>::try_from) {
                None => None,
                Some(salt) => Some(content(&cells, salt.unwrap_or_default())?),
            };
            Ok(Entry {
                seq: cells.number("seq")?,
                chained_at: cells.time("chained_at")?.0,
                digest: hash("digest")?,
                hash: hash("hash")?,
                content,
            })
        })
        .collect()
}

/// The heads of all chains that have an entry.
pub(super) async fn heads(store: &PostgresStore) -> Result<Vec<TenantHead>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::HEADS).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(tenant_head).collect()
}

pub(super) fn tenant_head(row: &PgRow) -> Result<TenantHead, StoreError> {
    let cells = Cells::of("chains", row);
    let head = Head { seq: cells.number("seq")?, hash: cells.sha256("hash")? };
    Ok(TenantHead::new(cells.id("tenant")?, head))
}
