//! The PostgreSQL store on a real server: the suite of every store, and what only several brokers on one database can show.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::conformance;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_a_store() {
    let database = postgres::database().await;
    conformance::store::all(Arc::new(database.store().await.trusting_callers_time())).await;
}

#[tokio::test]
async fn the_server_takes_every_statement() {
    let database = postgres::database().await;
    let checked = database.store().await.check_statements().await.unwrap().len();
    assert!(checked > 50, "{checked}");
}

#[tokio::test]
async fn migrate_brings_a_database_up_to_date_and_may_run_again() {
    let database = postgres::database().await;
    let nowhere = tempfile::tempdir().unwrap();
    let migrate = |args: &[&str]| {
        let program = env!("CARGO_BIN_EXE_mpegflow-broker");
        std::process::Command::new(program)
            .arg("migrate")
            .args(args)
            .current_dir(nowhere.path())
            .output()
            .unwrap()
    };
    for _ in 0..2 {
        let done = migrate(&["--database-url", &database.url()]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(database.store().await.check_statements().await.unwrap().len() > 50);

    // A newer broker brought the schema on: this one goes on where that says so, and nowhere else.
    let newer = |version: i64, oldest: &str| {
        format!("INSERT INTO schema_versions (version, sha384, oldest) VALUES ({version}, '\\x00', {oldest})")
    };
    let known = "(SELECT max(version) FROM schema_versions)";
    database.execute(&newer(8_000, known)).await;
    database.execute(&newer(8_001, "1")).await;
    assert!(migrate(&["--database-url", &database.url()]).status.success());
    for oldest in ["8002", "NULL"] {
        database.execute(&newer(8_002, oldest)).await;
        let done = migrate(&["--database-url", &database.url()]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("version 8002 of the schema"), "{said}");
        database.execute("DELETE FROM schema_versions WHERE version = 8002").await;
    }

    database.execute("UPDATE schema_versions SET sha384 = '\\x00'").await;
    let done = migrate(&["--database-url", &database.url()]);
    assert!(
        !done.status.success()
            && String::from_utf8_lossy(&done.stderr).contains("another than this program's")
    );
    let done = migrate(&[]);
    assert!(!done.status.success() && String::from_utf8_lossy(&done.stderr).contains("--database-url"));
    // It makes no authority and no key on the way.
    assert_eq!(std::fs::read_dir(nowhere.path()).unwrap().count(), 0);
}
