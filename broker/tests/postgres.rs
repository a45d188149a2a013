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
    let checked = database.store().await.check_statements().await.unwrap();
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
    assert!(database.store().await.check_statements().await.unwrap() > 50);

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
