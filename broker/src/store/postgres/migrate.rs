//! Migrations: one transaction under one lock, so that brokers that start together do it once, a failure leaves nothing half
//! done, and a transaction-mode pooler is no obstacle.
//!
//! Brokers of the release before go on meanwhile. So a migration waits for a table only a moment, since everybody who comes after waits
//! behind it, and is begun again if it does not get it: it neither holds them up nor is a deadlock with it settled at their cost.

use super::conn::Connector;
use crate::store::StoreError;
use crate::store::row::Cells;
use sqlx::Executor as _;
use sqlx::migrate::{Migration, Migrator};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Key of the transaction's advisory lock.
const LOCK: i64 = 0x6d70_6567_666c_6f77;
/// The newest version of the schema of the release before this one. Its brokers go on beside ours while an upgrade rolls, so
/// that migrations since then may only add what they do not mind: a test holds them to it. Raised with each release.
pub const BESIDE: i64 = 14;

/// A migration waits no longer for a lock: less than the second after which PostgreSQL looks for deadlocks.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '500ms'";
/// Times that it is begun again, and how long after.
const TRIES: u32 = 240;
const PAUSE: Duration = Duration::from_millis(250);

/// Why the schema cannot be used.
#[derive(Debug, thiserror::Error)]
enum SchemaError {
    #[error(
        "the database has version {found} of the schema, which is for programs that know version {oldest}; this one knows {known}"
    )]
    Newer { found: i64, oldest: i64, known: i64 },
    #[error("version {0} of the schema is another than this program's")]
    Other(i64),
}

pub(super) async fn run(connector: &Arc<Connector>, later: Option<&Path>) -> Result<(), StoreError> {
    let mut all: Vec<Migration> = MIGRATIONS.iter().cloned().collect();
    if let Some(folder) = later {
        let later = Migrator::new(folder).await.map_err(|e| StoreError::Migrate(Box::new(e)))?;
        all.extend(later.iter().cloned());
    }
    let mut tries = TRIES;
    loop {
        match once(connector, &all).await {
            Err(error) if tries > 0 && is_busy(&error) => {
                tracing::debug!("the tables are in use; the schema is tried again");
                tries = tries.saturating_sub(1);
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// `lock_not_available` and `deadlock_detected`.
fn is_busy(error: &StoreError) -> bool {
    let (StoreError::Migrate(source) | StoreError::Database(source)) = error else { return false };
    let error = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    error.and_then(|e| e.code()).is_some_and(|code| code == "55P03" || code == "40P01")
}

async fn once(connector: &Arc<Connector>, all: &[Migration]) -> Result<(), StoreError> {
    let mut conn = connector.begin().await?;
    connector.sql("SELECT pg_advisory_xact_lock($1)").patient().bind(LOCK).execute(&mut conn).await?;
    conn.execute(
        "CREATE TABLE IF NOT EXISTS schema_versions (
            version BIGINT PRIMARY KEY, sha384 BYTEA NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
        );
        -- The least that a program has to know to run on it.
        ALTER TABLE schema_versions ADD COLUMN IF NOT EXISTS oldest BIGINT",
    )
    .await?;
    let rows = connector
        .sql("SELECT version, sha384, coalesce(oldest, version) AS oldest FROM schema_versions")
        .fetch_all(&mut conn)
        .await?;
    let known = all.iter().map(|m| m.version).max().unwrap_or(0);
    let mut applied = BTreeMap::new();
    for row in &rows {
        let cells = Cells::of("schema_versions", row);
        let (found, oldest) = (cells.time("version")?.0, cells.time("oldest")?.0);
        if found > known && oldest > known {
            return Err(refused(SchemaError::Newer { found, oldest, known }));
        }
        applied.insert(found, cells.bytes("sha384")?.to_vec());
    }
    conn.execute(LOCK_WAIT).await?;
    for migration in all {
        match applied.get(&migration.version) {
            Some(sha384) if *sha384 == *migration.checksum => continue,
            Some(_) => return Err(refused(SchemaError::Other(migration.version))),
            None => {}
        }
        tracing::info!(version = migration.version, "bringing the schema up to date");
        conn.execute(migration.sql.clone()).await.map_err(|e| StoreError::Migrate(Box::new(e)))?;
        connector
            .sql("INSERT INTO schema_versions (version, sha384, oldest) VALUES ($1, $2, $3)")
            .bind(migration.version)
            .bind(&*migration.checksum)
            .bind(BESIDE.min(migration.version))
            .execute(&mut conn)
            .await?;
    }
    conn.done().await
}

fn refused(error: SchemaError) -> StoreError {
    StoreError::Migrate(Box::new(error))
}
