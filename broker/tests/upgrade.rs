//! Two versions of the program on one schema: what a migration may do while brokers of the release before go on, and that they do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::conformance;
use mpegflow_broker::store::postgres::{BESIDE, DatabaseConfig, PostgresStore};
use mpegflow_broker::store::sqlite::SqliteStore;
use mpegflow_broker::store::{Store as _, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takings away that are allowed although a migration may only add, each with the version of the schema from which on no program has
/// used what is taken. That has to be one which the release before knows: what it still uses goes a release later.
const CONTRACTED: &[(i64, &str, i64)] = &[];

/// Where a program of a later release has its migrations.
fn later() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/next-release")
}

fn migrations(folder: &str) -> Vec<(i64, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<(i64, String)> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let version = name.strip_suffix(".sql")?.split_once('_')?.0.parse().ok()?;
            Some((version, std::fs::read_to_string(entry.path()).unwrap()))
        })
        .collect();
    found.sort();
    found
}

// === what a schema demands of whoever writes to it

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    kind: String,
    nullable: bool,
    /// Whether a row may be written without it.
    filled: bool,
    /// Whether it is null then.
    empty: bool,
}

/// Tables with their columns, and what keeps a row out: each rule with its table and the columns that it is about.
#[derive(Debug, Clone, Default)]
struct Schema {
    tables: BTreeMap<String, BTreeMap<String, Column>>,
    rules: BTreeMap<(String, String), BTreeSet<String>>,
}

/// What a program that knows `before` would stumble over in `after`.
fn takings(before: &Schema, after: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    for (table, columns) in &before.tables {
        let Some(now) = after.tables.get(table) else {
            found.push(format!("takes the table {table} away"));
            continue;
        };
        for (name, column) in columns {
            match now.get(name) {
                None => found.push(format!("takes {table}.{name} away")),
                Some(now) if now.kind != column.kind => {
                    found.push(format!("makes {table}.{name} {} of {}", now.kind, column.kind));
                }
                Some(now) if column.nullable && !now.nullable => {
                    found.push(format!("wants {table}.{name} in every row"));
                }
                Some(now) if column.filled && !now.filled => {
                    found.push(format!("fills {table}.{name} in no more"));
                }
                Some(_) => {}
            }
        }
        for (name, _) in now.iter().filter(|(name, new)| !columns.contains_key(*name) && !new.filled) {
            found.push(format!("wants {table}.{name} in every row"));
        }
    }
    for ((table, rule), about) in &after.rules {
        let known = before.tables.get(table);
        let Some(known) = known else { continue };
        let is_new = |column: &&String| !known.contains_key(*column);
        // What new columns are filled with keeps one about them alone; and what is null is equal to nothing.
        let empty = |column: &String| after.tables[table].get(column).is_some_and(|c| c.empty);
        let kept = match rule.to_lowercase().contains("unique") && !rule.contains("NULLS NOT DISTINCT") {
            true => about.iter().any(|column| is_new(&column) && empty(column)),
            false => false,
        };
        let kept = kept || (!about.is_empty() && about.iter().all(|column| is_new(&column)));
        if !kept && !before.rules.contains_key(&(table.clone(), rule.clone())) {
            found.push(format!("demands more of {table}: {rule}"));
        }
    }
    found
}

async fn of_postgres(conn: &mut PgConnection) -> Schema {
    let mut schema = Schema::default();
    let columns = "SELECT c.relname::text AS t, a.attname::text AS c, format_type(a.atttypid, a.atttypmod) AS k, NOT a.attnotnull AS n,
            NOT a.attnotnull OR a.atthasdef OR a.attidentity <> '' AS f, NOT a.attnotnull AND NOT a.atthasdef AS e
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped";
    for row in conn.fetch_all(columns).await.unwrap() {
        let column =
            Column { kind: row.get("k"), nullable: row.get("n"), filled: row.get("f"), empty: row.get("e") };
        schema.tables.entry(row.get("t")).or_default().insert(row.get("c"), column);
    }
    let rules = "SELECT conrelid::regclass::text AS t, pg_get_constraintdef(oid) AS r, conrelid AS rel, conkey::int4[] AS k
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'
        UNION ALL SELECT indrelid::regclass::text, regexp_replace(pg_get_indexdef(indexrelid), 'INDEX \\S+ ', 'INDEX '), indrelid,
                string_to_array(indkey::text, ' ')::int4[]
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE indisunique AND c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT tgrelid::regclass::text, 'trigger ' || tgname, tgrelid, NULL
            FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid WHERE NOT tgisinternal AND c.relnamespace = 'public'::regnamespace";
    let names = "SELECT attrelid, attnum::int4 AS n, attname::text AS c FROM pg_attribute WHERE attnum > 0";
    let names: BTreeMap<(u32, i32), String> = conn
        .fetch_all(names)
        .await
        .unwrap()
        .iter()
        .map(|row| ((row.get::<sqlx::postgres::types::Oid, _>("attrelid").0, row.get("n")), row.get("c")))
        .collect();
    for row in conn.fetch_all(rules).await.unwrap() {
        let about: Option<Vec<i32>> = row.get("k");
        let table = row.get::<sqlx::postgres::types::Oid, _>("rel").0;
        let about = about.into_iter().flatten().filter_map(|n| names.get(&(table, n)).cloned()).collect();
        schema.rules.insert((row.get("t"), row.get("r")), about);
    }
    schema
}

async fn of_sqlite(conn: &mut SqliteConnection) -> Schema {
    let mut schema = Schema::default();
    let columns =
        "SELECT m.name AS t, c.name AS c, c.type AS k, c.\"notnull\" AS n, c.dflt_value IS NOT NULL AS f
        FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'";
    for row in conn.fetch_all(columns).await.unwrap() {
        let nullable = row.get::<i64, _>("n") == 0;
        let default = row.get::<i64, _>("f") != 0;
        let (filled, empty) = (nullable || default, nullable && !default);
        let column = Column { kind: row.get("k"), nullable, filled, empty };
        schema.tables.entry(row.get("t")).or_default().insert(row.get("c"), column);
    }
    let rules = "SELECT m.name AS t, 'unique ' || i.name AS r, c.name AS c
            FROM sqlite_master m, pragma_index_list(m.name) i, pragma_index_info(i.name) c WHERE m.type = 'table' AND i.\"unique\"
        UNION ALL SELECT m.name, 'refers to ' || f.\"table\" || ' by ' || f.\"from\", f.\"from\"
            FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
        UNION ALL SELECT tbl_name, 'trigger ' || name, NULL FROM sqlite_master WHERE type = 'trigger'";
    for row in conn.fetch_all(rules).await.unwrap() {
        let about: Option<String> = row.get("c");
        schema.rules.entry((row.get("t"), row.get("r"))).or_default().extend(about);
    }
    schema
}

// === what each migration does

/// What each migration after `beside` takes from programs of before it.
fn judged(found: Vec<(i64, Vec<String>)>) -> Vec<String> {
    let allowed: BTreeMap<(i64, &str), i64> =
        CONTRACTED.iter().map(|(version, what, unused)| ((*version, *what), *unused)).collect();
    let mut bad = Vec::new();
    for (version, takings) in found.into_iter().filter(|(version, _)| *version > BESIDE) {
        for taking in takings {
            match allowed.get(&(version, taking.as_str())) {
                Some(unused) if *unused <= BESIDE => {}
                _ => bad.push(format!("migration {version} {taking}")),
            }
        }
    }
    bad
}

#[tokio::test]
async fn a_migration_takes_nothing_that_brokers_of_the_release_before_need() {
    let all = migrations("migrations/postgres");
    assert!(all.len() > 10 && all.iter().any(|(version, _)| *version > BESIDE));
    let database = postgres::database().await;
    let mut conn = database.connect().await;
    let (mut found, mut before) = (Vec::new(), Schema::default());
    for (version, sql) in all {
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        let after = of_postgres(&mut conn).await;
        found.push((version, takings(&before, &after)));
        before = after;
    }
    assert_eq!(judged(found), Vec::<String>::new());

    let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let (mut found, mut before) = (Vec::new(), Schema::default());
    for (version, sql) in migrations("migrations") {
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        let after = of_sqlite(&mut conn).await;
        found.push((version, takings(&before, &after)));
        before = after;
    }
    assert_eq!(judged(found), Vec::<String>::new());
}

#[tokio::test]
async fn each_way_to_take_something_away_is_found_and_adding_is_none() {
    let database = postgres::database().await;
    let start = "CREATE TABLE t (id TEXT PRIMARY KEY, a BIGINT, b TEXT NOT NULL DEFAULT 'x'); CREATE TABLE u (id TEXT PRIMARY KEY)";
    let mut lite = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let mut conn = database.connect().await;
    for (change, finding, both) in [
        ("DROP TABLE u", "takes the table u away", true),
        ("ALTER TABLE u RENAME TO v", "takes the table u away", true),
        ("ALTER TABLE t DROP COLUMN a", "takes t.a away", true),
        ("ALTER TABLE t RENAME COLUMN a TO c", "takes t.a away", true),
        ("ALTER TABLE t ALTER COLUMN a TYPE TEXT", "makes t.a text of bigint", false),
        ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", "wants t.a in every row", false),
        ("ALTER TABLE t ALTER COLUMN b DROP DEFAULT", "fills t.b in no more", false),
        ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL", "wants t.c in every row", false),
        ("ALTER TABLE t ADD CHECK (a > 0)", "demands more of t: CHECK ((a > 0))", false),
        (
            "ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES u",
            "demands more of t: FOREIGN KEY (b) REFERENCES u(id)",
            false,
        ),
        ("CREATE UNIQUE INDEX t_a ON t (a)", "demands more of t: ", true),
        ("CREATE UNIQUE INDEX t_a ON t (lower(b))", "demands more of t: ", true),
        ("CREATE TABLE w (id TEXT PRIMARY KEY, t TEXT NOT NULL REFERENCES t (id))", "", true),
        (
            "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'x'; CREATE UNIQUE INDEX t_c ON t (c, a)",
            "demands more of t: ",
            true,
        ),
        ("ALTER TABLE t ADD COLUMN c TEXT; CREATE UNIQUE INDEX t_c ON t (a, c)", "", true),
        ("ALTER TABLE t ADD COLUMN c TEXT", "", true),
        ("ALTER TABLE t ADD COLUMN c BIGINT NOT NULL DEFAULT 1 CHECK (c > 0)", "", true),
        ("ALTER TABLE t ADD COLUMN c TEXT REFERENCES u (id)", "", true),
        ("CREATE INDEX t_a ON t (a)", "", true),
        ("ALTER TABLE t ALTER COLUMN b DROP NOT NULL", "", false),
        ("ALTER TABLE t ALTER COLUMN a SET DEFAULT 7", "", false),
    ] {
        let clean = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;";
        conn.execute(AssertSqlSafe(format!("{clean}{start}"))).await.unwrap();
        let before = of_postgres(&mut conn).await;
        conn.execute(change).await.unwrap();
        let found = takings(&before, &of_postgres(&mut conn).await);
        let right = |found: &[String]| match finding {
            "" => found.is_empty(),
            finding => found.iter().any(|f| f.starts_with(finding)),
        };
        assert!(right(&found), "{change}: {found:?}");
        if both {
            lite.close().await.unwrap();
            lite = SqliteConnection::connect("sqlite::memory:").await.unwrap();
            lite.execute(start).await.unwrap();
            let before = of_sqlite(&mut lite).await;
            lite.execute(change).await.unwrap();
            let found = takings(&before, &of_sqlite(&mut lite).await);
            assert!(right(&found), "SQLite: {change}: {found:?}");
        }
    }
}

// === two programs

fn next(config: DatabaseConfig) -> DatabaseConfig {
    DatabaseConfig { later: Some(later()), ..config }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_know_the_newest_migration_is_a_store_on_its_schema() {
    let database = postgres::database().await;
    // The other order: it was here before, and has its statements prepared.
    let before = database.store().await;
    let known = before.check_statements().await.unwrap();
    PostgresStore::open(next(database.config())).await.unwrap();
    before.check_statements().await.unwrap();
    conformance::store::all(Arc::new(database.store().await.trusting_callers_time())).await;
    // No statement gives more than it asked for: one that did would fail on each connection that has it prepared.
    let grown = database.store().await.check_statements().await.unwrap();
    let other: Vec<_> = known.iter().zip(&grown).filter(|(a, b)| a != b).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_gives_columns_that_it_did_not_ask_for() {
    let database = postgres::database().await;
    let known = database.store().await.check_statements().await.unwrap();
    let mut conn = database.connect().await;
    let tables = "SELECT relname::text AS t FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'schema_versions'";
    for row in conn.fetch_all(tables).await.unwrap() {
        let table: String = row.get("t");
        conn.execute(AssertSqlSafe(format!("ALTER TABLE {table} ADD COLUMN of_a_later_release TEXT")))
            .await
            .unwrap();
    }
    let grown = database.store().await.check_statements().await.unwrap();
    let other: Vec<_> = known.iter().zip(&grown).filter(|(a, b)| a != b).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_holds_nobody_up_that_uses_its_tables_and_comes_to_its_end() {
    let database = postgres::database().await;
    let before = database.store().await;
    // Somebody reads for long, as a backup does. Who comes after must not wait behind a migration that waits for it.
    let mut long = database.connect().await;
    long.execute("BEGIN; SELECT count(*) FROM jobs").await.unwrap();
    let config = next(database.config());
    let migrating = tokio::spawn(async move { PostgresStore::open(config).await.map(drop) });
    let mut conn = database.connect().await;
    let waits = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted";
    let deadline = std::time::Duration::from_secs(60);
    let seen = async {
        while conn.fetch_optional(waits).await.unwrap().is_none() {}
        for _ in 0..40 {
            before.count_jobs().await.unwrap();
        }
        while conn.fetch_optional(waits).await.unwrap().is_none() {}
    };
    tokio::time::timeout(deadline, seen).await.expect("others wait behind the migration, or it has given up");
    assert!(!migrating.is_finished());
    long.execute("ROLLBACK").await.unwrap();
    migrating.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let mut conn =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (8000, 'x', TRUE, x'00', 0)",
    )
    .await
    .unwrap();
    let Err(StoreError::Migrate(error)) = SqliteStore::open(&path).await else { panic!("it opens") };
    let said = error.to_string();
    assert!(said.contains("version 8000") && said.contains("a later one"), "{said}");
}
