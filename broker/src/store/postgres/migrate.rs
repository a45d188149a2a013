//! Migrations: one transaction under one lock, so that brokers that start together do it once, a failure leaves nothing half
//! done, and a transaction-mode pooler is no obstacle.

use super::conn::Connector;
use crate::store::StoreError;
use crate::store::row::Cells;
use sqlx::Executor as _;
use sqlx::migrate::Migrator;
use std::collections::BTreeMap;
use std::sync::Arc;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// Key of the transaction's advisory lock.
const LOCK: i64 = 0x6d70_6567_666c_6f77;
/// The newest version of the schema of the release before this one. Its brokers go on beside ours while an upgrade rolls, so
/// that migrations since then may only add what they do not mind. Raised with each release.
const BESIDE: i64 = 14;

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

pub(super) async fn run(connector: &Arc<Connector>) -> Result<(), StoreError> {
    let mut conn = connector.begin().await?;
    connector.sql("SELECT pg_advisory_xact_lock($1)").patient().bind(LOCK).execute(&mut *conn).await?;
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
        .fetch_all(&mut *conn)
        .await?;
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    let mut applied = BTreeMap::new();
    for row in &rows {
        let cells = Cells::of("schema_versions", row);
        let (found, oldest) = (cells.time("version")?.0, cells.time("oldest")?.0);
        if found > known && oldest > known {
            return Err(refused(SchemaError::Newer { found, oldest, known }));
        }
        applied.insert(found, cells.bytes("sha384")?.to_vec());
    }
    for migration in MIGRATIONS.iter() {
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
            .execute(&mut *conn)
            .await?;
    }
    conn.done().await
}

fn refused(error: SchemaError) -> StoreError {
    StoreError::Migrate(Box::new(error))
}
