//! The audit log against whoever has the database's password, with the programs as an operator and an auditor run them: keys,
//! checkpoints on disk, the verifier and its exit codes, and a month that goes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "support/old_months.rs"]
mod old_months;
#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::audit::keep;
use mpegflow_broker::conformance::store::{Made, make, submit};
use mpegflow_broker::embedded::AuditConfig;
use mpegflow_broker::model::Clock as _;
use mpegflow_broker::store::postgres::PostgresStore;
use mpegflow_broker::store::retention::Retention as _;
use mpegflow_broker::store::{Deleted, Store as _};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

struct World {
    database: postgres::Database,
    store: PostgresStore,
    made: Made,
    dir: tempfile::TempDir,
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl World {
    /// A tenant whose log has 12 entries; signed after 4 and after 12.
    async fn new() -> Self {
        let database = postgres::database().await;
        let store = database.store().await;
        let made = make(&store, "a").await;
        let world = Self { database, store, made, dir: tempfile::tempdir().unwrap() };
        world.make_key();
        for n in 1..=6 {
            world.cancel_one().await;
            if n == 2 || n == 6 {
                world.sign();
            }
        }
        world
    }

    fn make_key(&self) {
        let key = self.run(&["audit", "key", "--out", &self.path("audit.key")]);
        assert!(key.status.success(), "{}", text(&key));
        std::fs::write(self.path("audit.pub"), key.stdout).unwrap();
    }

    async fn cancel_one(&self) {
        let (job, _) = submit(&self.store, &self.made).await;
        self.store.cancel(self.made.tenant, job, None, self.store.clock().now()).await.unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"))
            .args(args)
            .args(["--database-url", &self.database.url()])
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    fn with_key(&self, args: &[&str]) -> Output {
        let (key, checkpoints) = (self.path("audit.key"), self.path("checkpoints"));
        self.run(&[args, &["--audit-key", &key, "--audit-checkpoints", &checkpoints]].concat())
    }

    fn sign(&self) {
        let done = self.with_key(&["audit", "checkpoint"]);
        assert!(done.status.success(), "{}", text(&done));
    }

    /// What the verifier says, with its exit code.
    fn verify(&self) -> (i32, String) {
        let (key, checkpoints) = (self.path("audit.pub"), self.path("checkpoints"));
        let done = self.run(&["audit", "verify", "--public-key", &key, "--checkpoints", &checkpoints]);
        (done.status.code().unwrap(), text(&done))
    }

    /// As the owner of the tables, who can switch their triggers off.
    async fn attack(&self, sql: &str) {
        let partitions = self.store.event_partitions().await.unwrap();
        let off: String =
            partitions.iter().map(|p| format!("ALTER TABLE {p} DISABLE TRIGGER ALL;")).collect();
        self.database.execute(&format!("{off}{sql}")).await;
    }

    fn checkpoint_files(&self) -> Vec<PathBuf> {
        keep::read(&self.dir.path().join("checkpoints")).unwrap().into_iter().map(|(path, _)| path).collect()
    }
}

#[tokio::test]
async fn a_log_that_nobody_touched_is_what_was_signed() {
    let world = World::new().await;
    let (code, said) = world.verify();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("12 entries, 0 of them erased, 2 signed places"), "{said}");
    world.cancel_one().await;
    world.store.sequence().await.unwrap();
    let (code, said) = world.verify();
    assert!(code == 0 && said.contains("14 entries"), "and it may grow: {said}");
}

#[tokio::test]
async fn each_attack_on_the_database_is_found_and_the_first_bad_entry_named() {
    for (attack, named) in [
        ("DELETE FROM events WHERE seq IN (6, 7)", "entries 6 to 7 were removed"),
        (
            "DELETE FROM events WHERE seq = 6; UPDATE events SET seq = -seq WHERE seq > 6;
             UPDATE events SET seq = -seq - 1 WHERE seq < 0",
            "entries 6 to 6 were removed",
        ),
        ("UPDATE events SET state = 'succeeded' WHERE seq = 5", "entry 5 was changed"),
        (
            "UPDATE events SET seq = -1 WHERE seq = 5; UPDATE events SET seq = 5 WHERE seq = 8;
             UPDATE events SET seq = 8 WHERE seq = -1",
            "entry 5 was moved: what belongs there stands at 8",
        ),
        (
            "DELETE FROM events WHERE seq > 9; UPDATE chains c SET seq = 9, hash = e.hash FROM events e WHERE e.seq = 9",
            "the log ends at 9, and 12 was signed",
        ),
        ("DELETE FROM events; DELETE FROM journal; DELETE FROM chains", "the log ends at 0, and 4 was signed"),
        (
            "UPDATE events SET salt = NULL, job = NULL, kind = NULL, state = NULL, stage = NULL, failure = NULL, at = NULL
             WHERE seq = 3",
            "entry 3 was erased and no record of it follows",
        ),
    ] {
        let world = World::new().await;
        world.attack(attack).await;
        let (code, said) = world.verify();
        assert_eq!(code, 1, "{attack}: {said}");
        assert!(said.contains(named) && said.contains("NOT what was signed"), "{attack}: {said}");
        assert!(said.contains(&world.made.tenant.to_string()), "{said}");
    }
}

#[tokio::test]
async fn deleted_jobs_leave_digests_and_a_record_that_covers_these_entries_and_no_other() {
    let world = World::new().await;
    let (tenant, store) = (world.made.tenant, &world.store);
    let now = store.clock().now();
    let jobs: Vec<_> = store.jobs(tenant, None, None, 10).await.unwrap().iter().map(|v| v.job.id).collect();
    // The second and the fifth of six, each with two entries; newest first in the list.
    let gone = [jobs[4], jobs[1]];
    for job in gone {
        assert_eq!(store.delete_job(tenant, job, now).await.unwrap(), Deleted::Done);
        assert_eq!(store.delete_job(tenant, job, now).await.unwrap(), Deleted::NotFound);
    }
    assert_eq!(store.purgeable_jobs(10).await.unwrap().len(), 2);
    assert_eq!(store.purge_jobs(tenant, &gone, now).await.unwrap(), 2);
    assert_eq!(store.purge_jobs(tenant, &gone, now).await.unwrap(), 0, "again, after a crash");
    let left: Vec<_> = store.events(tenant, None, 0, 100).await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(left, [1, 2, 5, 6, 7, 8, 11, 12]);
    let rows: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM events WHERE salt IS NULL AND job IS NULL AND kind IS NULL AND at IS NULL",
    )
    .fetch_one(&mut world.database.connect().await)
    .await
    .unwrap();
    assert_eq!(rows, 4, "neither what happened nor the salts");
    let (code, said) = world.verify();
    assert!(code == 0 && said.contains("13 entries, 4 of them erased"), "{said}");
    // Whoever erases more than was recorded is found out, although a later record is there.
    world
        .database
        .execute(
            "UPDATE events SET salt = NULL, job = NULL, kind = NULL, state = NULL, stage = NULL, failure = NULL, at = NULL
             WHERE seq = 7",
        )
        .await;
    let (code, said) = world.verify();
    assert!(code == 1 && said.contains("entry 7 was erased and no record of it follows"), "{said}");
}

#[tokio::test]
async fn a_log_that_was_made_anew_and_signed_by_another_key_is_not_taken() {
    let world = World::new().await;
    // Whoever owns the database and the broker's disk, but not the key: the old checkpoints go, the log is cut, and what is left is
    // signed with a key of their own.
    std::fs::remove_dir_all(world.path("checkpoints")).unwrap();
    world
        .attack("DELETE FROM events WHERE seq > 8; UPDATE chains c SET seq = 8, hash = e.hash FROM events e WHERE e.seq = 8")
        .await;
    let (code, said) = world.verify();
    assert!(code == 3, "no checkpoint says nothing: {said}");
    std::fs::remove_file(world.path("audit.key")).unwrap();
    assert!(world.run(&["audit", "key", "--out", &world.path("audit.key")]).status.success());
    world.sign();
    let (code, said) = world.verify();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("checkpoint-") && said.contains("not signed by the expected key"), "{said}");
}

#[tokio::test]
async fn a_checkpoint_that_was_edited_or_damaged_is_named() {
    let world = World::new().await;
    let files = world.checkpoint_files();
    assert_eq!(files.len(), 2);
    let whole = std::fs::read_to_string(&files[1]).unwrap();
    std::fs::write(&files[1], whole.replace("12", "10")).unwrap();
    let (code, said) = world.verify();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(files[1].file_name().unwrap().to_str().unwrap()), "{said}");
    std::fs::write(&files[1], &whole[..40]).unwrap();
    let (code, said) = world.verify();
    assert!(code == 3 && said.contains("is not a checkpoint"), "{code}: {said}");
}

#[tokio::test]
async fn an_auditor_who_may_only_read_can_verify() {
    let world = World::new().await;
    let name = &world.database.name;
    world
        .database
        .execute(&format!(
            "CREATE ROLE auditor_{name} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO auditor_{name}"
        ))
        .await;
    let url = world.database.url().replace("mpegflow@", &format!("auditor_{name}@"));
    let done = Command::new(env!("CARGO_BIN_EXE_mpegflow-broker"))
        .args(["audit", "verify", "--public-key", &world.path("audit.pub")])
        .args(["--checkpoints", &world.path("checkpoints"), "--database-url", &url])
        .current_dir(world.dir.path())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
}

#[tokio::test]
async fn a_month_goes_after_its_anchor_is_on_disk_and_the_rest_still_verifies() {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    // Three entries in January, four in February, and two of now.
    old_months::with_old_months(&database, made.tenant).await;
    let world = World { database, store, made, dir: tempfile::tempdir().unwrap() };
    world.make_key();
    world.cancel_one().await;
    world.sign();
    let drop = |month: &str| {
        let done = world.with_key(&["audit", "drop", "--month", month]);
        (done.status.success(), text(&done))
    };
    let (done, said) = drop("2026-03");
    assert!(!done && said.contains("there is no partition"), "{said}");
    let now = world.store.event_partitions().await.unwrap().pop().unwrap();
    let (done, said) = drop(&now.trim_start_matches("events_").replace('_', "-"));
    assert!(!done && said.contains("has to go first"), "{said}");
    let (done, said) = drop("2026-02");
    assert!(!done && said.contains("events_2026_01 is older"), "{said}");
    assert_eq!(world.verify().0, 0, "what was refused changed nothing");
    assert_eq!(world.checkpoint_files().len(), 1, "and nothing was signed that would let a month go unseen");
    let (done, said) = drop("2026-01");
    assert!(done, "{said}");
    let (code, said) = world.verify();
    assert!(code == 0 && said.contains("6 entries"), "{said}");
    // Without the anchor, or with more gone than was said, it seems cut.
    world.attack("DELETE FROM events WHERE seq = 4").await;
    let (code, said) = world.verify();
    assert!(code == 1 && said.contains("entries 4 to 4 were removed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_broker_signs_by_itself_and_once_more_at_its_end() {
    let database = postgres::database().await;
    let keys = tempfile::tempdir().unwrap();
    let (key, checkpoints) = (keys.path().join("audit.key"), keys.path().join("checkpoints"));
    let signer = mpegflow_broker::audit::checkpoint::Signer::generate().unwrap();
    std::fs::write(&key, signer.to_pkcs8().unwrap()).unwrap();
    let mut world = common::world_with(|config| {
        config.database = Some(database.config());
        let interval = Duration::from_millis(100);
        config.audit = Some(AuditConfig { checkpoints: checkpoints.clone(), key: key.clone(), interval });
    })
    .await;
    let tenant = world.tenant("a").await;
    common::submit(&tenant, b"x").await;
    let signed = || keep::read(&checkpoints).unwrap_or_default();
    common::eventually("it is signed", async || !signed().is_empty()).await;
    let store = database.store().await;
    let id = world.broker().ensure_tenant("a").await.unwrap();
    let last = |n| {
        let heads = signed().into_iter().map(|(_, s)| s.open(&signer.public_key()).unwrap());
        heads.filter_map(|c| c.head_of(id)).any(|head| head.seq == n)
    };
    common::eventually("the first event is", async || last(1)).await;
    let before = signed().len();
    common::submit(&tenant, b"x").await;
    world.broker.take().unwrap().shutdown().await;
    assert!(last(2), "what happened just before the end is signed");
    assert_eq!(signed().len(), before + 1, "and what had not moved was not signed again");
    let opened: Vec<_> = signed().into_iter().map(|(_, s)| s.open(&signer.public_key()).unwrap()).collect();
    let answers = store.audit(&opened).await.unwrap();
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
}
