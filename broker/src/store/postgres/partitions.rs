//! Partitions of `events`: one for each month, made ahead, dropped only with a signed anchor.

use super::chain::tenant_head;
use super::conn::Conn;
use super::{PostgresStore, sql};
use crate::audit::checkpoint::{Checkpoint, CheckpointError, Purpose, SignedCheckpoint, TenantHead};
use crate::store::StoreError;
use crate::store::row::Cells;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sqlx::{AssertSqlSafe, Executor as _};

/// Months after this one that have their partition.
const AHEAD: i32 = 2;
/// Key of the advisory lock under which partitions are made and dropped.
const LOCK: i64 = 0x6d70_6567_7061_7274;
/// A change of the partitions waits this long for readers, and then leaves it to the next time: all that comes after a waiting
/// lock would have to wait too.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// Why a partition was not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// There is no such partition.
    #[error("there is no partition {0}")]
    Missing(String),
    /// An older one has to go first: a chain loses its beginning, never its middle.
    #[error("{0} is older and has to go first")]
    NotOldest(String),
    /// Its month has not ended, or events are still being put into it.
    #[error("the month of {0} is not over")]
    InUse(String),
    /// The anchor is not signed by the expected key.
    #[error("the anchor is not taken")]
    Anchor(#[from] CheckpointError),
    /// The anchor is not what the partition ends with.
    #[error("the anchor is not what the chains have at the end of {0}")]
    Differs(String),
    /// The database failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DropError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A month's partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Month {
    name: String,
    from_ms: i64,
    to_ms: i64,
}

impl Month {
    /// The month that is `ahead` months after the one of that time, in UTC.
    fn at(ms: i64, ahead: i32) -> Result<Self, jiff::Error> {
        let first = Timestamp::from_millisecond(ms)?.to_zoned(TimeZone::UTC).date().first_of_month();
        let first = first.checked_add(ahead.months())?;
        let ms = |date: Date| date.to_zoned(TimeZone::UTC).map(|z| z.timestamp().as_millisecond());
        Ok(Self {
            name: format!("events_{:04}_{:02}", first.year(), first.month()),
            from_ms: ms(first)?,
            to_ms: ms(first.checked_add(1.month())?)?,
        })
    }
}

fn bad_time(error: jiff::Error) -> StoreError {
    StoreError::Database(Box::new(error))
}

async fn lock(store: &PostgresStore) -> Result<Conn, StoreError> {
    let mut conn = store.begin().await?;
    store.sql("SELECT pg_advisory_xact_lock($1)").patient().bind(LOCK).execute(&mut conn).await?;
    conn.execute(LOCK_TIMEOUT).await?;
    Ok(conn)
}

/// Makes the partitions of this month and the next ones where they are missing.
pub(super) async fn prepare(store: &PostgresStore) -> Result<(), StoreError> {
    let now = store.database_time().await?.0;
    let there = names(store).await?;
    for ahead in 0..=AHEAD {
        let month = Month::at(now, ahead).map_err(bad_time)?;
        if !there.contains(&month.name) {
            make(store, &month).await?;
        }
    }
    Ok(())
}

async fn make(store: &PostgresStore, month: &Month) -> Result<(), StoreError> {
    let Month { name, from_ms, to_ms } = month;
    let mut conn = lock(store).await?;
    let query = store.sql(sql::PARTITIONS);
    let there = query.fetch_all(&mut conn).await?;
    if there.iter().any(|row| Cells::of("pg_class", row).text("name").is_ok_and(|n| n == name)) {
        return Ok(());
    }
    // Made beside the table and then attached: that waits for no reader, as making it in place would. The name and the bounds
    // are made of digits.
    let statements = format!(
        "CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
         ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({from_ms}) TO ({to_ms});
         CREATE TRIGGER events_are_not_emptied BEFORE TRUNCATE ON {name}
             FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only()"
    );
    conn.execute(AssertSqlSafe(statements)).await?;
    conn.done().await?;
    tracing::info!(partition = name, "made a partition for events");
    Ok(())
}

/// The partitions, oldest first.
pub(super) async fn names(store: &PostgresStore) -> Result<Vec<String>, StoreError> {
    let mut conn = store.conn().await?;
    let rows = store.sql(sql::PARTITIONS).fetch_all(&mut conn).await?;
    conn.done().await?;
    rows.iter().map(|row| Ok(Cells::of("pg_class", row).text("name")?.to_owned())).collect()
}

/// What has to be signed before the oldest partition may go: where each chain goes on after it.
pub(super) async fn anchor(store: &PostgresStore, partition: &str) -> Result<Checkpoint, DropError> {
    if !names(store).await?.iter().any(|name| name == partition) {
        return Err(DropError::Missing(partition.to_owned()));
    }
    let at = store.database_time().await?.0;
    let mut conn = store.conn().await?;
    let heads = last_of(&mut conn, partition).await?;
    conn.done().await?;
    Ok(Checkpoint { purpose: Purpose::Anchor, at, heads })
}

/// The last entry of each chain in a partition; `partition` is the name of one.
async fn last_of(conn: &mut Conn, partition: &str) -> Result<Vec<TenantHead>, StoreError> {
    let statement =
        format!("SELECT DISTINCT ON (tenant) tenant, seq, hash FROM {partition} ORDER BY tenant, seq DESC");
    let query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
    query.fetch_all(&mut **conn).await?.iter().map(tenant_head).collect()
}

/// Whether a partition may be dropped at all: to be asked before an anchor is signed, which stands for what is gone.
pub(super) async fn may_drop(store: &PostgresStore, partition: &str) -> Result<(), DropError> {
    let now = store.database_time().await?.0;
    let names = names(store).await?;
    judge(partition, &names.iter().map(String::as_str).collect::<Vec<_>>(), now)
}

fn judge(partition: &str, names: &[&str], now: i64) -> Result<(), DropError> {
    if !names.contains(&partition) {
        return Err(DropError::Missing(partition.to_owned()));
    }
    match names.first() {
        Some(oldest) if *oldest != partition => return Err(DropError::NotOldest((*oldest).to_owned())),
        _ => {}
    }
    // Names sort as their months do.
    if partition >= Month::at(now, 0).map_err(bad_time)?.name.as_str() {
        return Err(DropError::InUse(partition.to_owned()));
    }
    Ok(())
}

/// Drops the oldest partition, if the anchor is signed and is what the chains have there.
pub(super) async fn drop(
    store: &PostgresStore,
    partition: &str,
    anchor: &SignedCheckpoint,
    public_key: &[u8],
) -> Result<(), DropError> {
    let anchor = anchor.open(public_key)?;
    let now = store.database_time().await?.0;
    let mut conn = lock(store).await?;
    let rows = store.sql(sql::PARTITIONS).fetch_all(&mut conn).await?;
    let names: Vec<&str> =
        rows.iter().map(|row| Cells::of("pg_class", row).text("name")).collect::<Result<_, _>>()?;
    judge(partition, &names, now)?;
    if anchor.purpose != Purpose::Anchor || anchor.heads != last_of(&mut conn, partition).await? {
        return Err(DropError::Differs(partition.to_owned()));
    }
    let hash = |head: &TenantHead| crate::secret::from_hex(&head.hash).unwrap_or_default().to_vec();
    store
        .sql(sql::KEEP_ANCHORS)
        .bind(anchor.heads.iter().map(|h| h.tenant.to_string()).collect::<Vec<_>>())
        .bind(anchor.heads.iter().map(|h| crate::store::row::signed(h.seq)).collect::<Vec<_>>())
        .bind(anchor.heads.iter().map(hash).collect::<Vec<_>>())
        .bind(partition)
        .bind(now)
        .execute(&mut conn)
        .await?;
    let statements = format!("ALTER TABLE events DETACH PARTITION {partition}; DROP TABLE {partition}");
    conn.execute(AssertSqlSafe(statements)).await?;
    conn.done().await?;
    tracing::info!(partition, "dropped a partition of events");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_has_its_name_and_its_bounds_in_utc() {
        let month = |ms, ahead| Month::at(ms, ahead).unwrap();
        let january =
            Month { name: "events_2026_01".into(), from_ms: 1_767_225_600_000, to_ms: 1_769_904_000_000 };
        assert_eq!(month(1_767_225_600_000, 0), january);
        assert_eq!(month(1_769_903_999_999, 0), january);
        assert_eq!(month(1_764_547_200_000, 1), january, "a month ahead of December");
        assert_eq!(month(1_769_904_000_000, 0).name, "events_2026_02");
    }
}
