//! The audit log against whoever owns its tables: each change is found and named. And what is not an attack: months that are
//! dropped, a tenant's data that is erased, a partition that is missing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

#[path = "support/old_months.rs"]
mod old_months;
#[path = "support/postgres.rs"]
mod postgres;

use mpegflow_broker::audit::chain::{self, Content, Head};
use mpegflow_broker::audit::checkpoint::{Checkpoint, CheckpointError, Purpose, Signer, TenantHead};
use mpegflow_broker::audit::verify::{Finding, Verified};
use mpegflow_broker::conformance::store::{Made, make, submit};
use mpegflow_broker::model::Clock as _;
use mpegflow_broker::store::Store as _;
use mpegflow_broker::store::postgres::{DropError, PostgresStore};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

struct World {
    database: postgres::Database,
    store: PostgresStore,
    made: Made,
    /// One after 4 entries, one after all 12.
    checkpoints: Vec<Checkpoint>,
}

/// A tenant with six canceled jobs: twelve entries.
async fn world() -> World {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    let mut checkpoints = Vec::new();
    for n in 1..=6 {
        cancel_one(&store, &made).await;
        if n == 2 || n == 6 {
            checkpoints.push(store.checkpoint().await.unwrap());
        }
    }
    World { database, store, made, checkpoints }
}

async fn cancel_one(store: &PostgresStore, made: &Made) {
    let (job, _) = submit(store, made).await;
    store.cancel(made.tenant, job, None, store.clock().now()).await.unwrap();
}

impl World {
    /// As the owner of the tables, who can switch their triggers off.
    async fn attack(&self, sql: &str) {
        let partitions = self.store.event_partitions().await.unwrap();
        let off: String =
            partitions.iter().map(|p| format!("ALTER TABLE {p} DISABLE TRIGGER ALL;")).collect();
        self.database.execute(&format!("{off}{sql}")).await;
    }

    async fn audit(&self) -> Result<Verified, Finding> {
        self.audit_against(&self.checkpoints).await
    }

    async fn audit_against(&self, checkpoints: &[Checkpoint]) -> Result<Verified, Finding> {
        let mut answers = self.store.audit(checkpoints).await.unwrap();
        assert_eq!(answers.len(), 1);
        let (tenant, answer) = answers.remove(0);
        assert_eq!(tenant, self.made.tenant);
        answer
    }

    /// Chains everything anew from an entry on, as an attacker would who has read the code.
    async fn chain_anew(&self, from: i64) {
        let mut conn = self.database.connect().await;
        let rows = conn.fetch_all("SELECT * FROM events ORDER BY seq").await.unwrap();
        let mut head = Head { seq: 0, hash: chain::genesis(self.made.tenant) };
        let mut sql = String::new();
        for row in rows {
            let content = Content {
                salt: row.get::<Vec<u8>, _>("salt").try_into().unwrap(),
                job: row.get("job"),
                kind: row.get("kind"),
                state: row.get("state"),
                stage: row.get("stage"),
                failure: row.get("failure"),
                at: row.get("at"),
            };
            let entry = chain::append(self.made.tenant, &mut head, row.get("chained_at"), content);
            let (seq, hex) = (row.get::<i64, _>("seq"), |bytes: &[u8]| mpegflow_broker::secret::hex(bytes));
            if seq >= from {
                sql += &format!(
                    "UPDATE events SET seq = {}, digest = '\\x{}', hash = '\\x{}' WHERE seq = {seq};",
                    entry.seq,
                    hex(&entry.digest),
                    hex(&entry.hash)
                );
            }
        }
        self.attack(&sql).await;
    }
}

#[tokio::test]
async fn a_log_that_nobody_touched_verifies_up_to_its_head() {
    let world = world().await;
    let verified = world.audit().await.unwrap();
    assert_eq!((verified.head.seq, verified.erased, verified.checkpoints), (12, 0, 2));
    assert_eq!(world.checkpoints[1].head_of(world.made.tenant), Some(verified.head));
    assert_eq!(world.checkpoints[0].head_of(world.made.tenant).unwrap().seq, 4);
    cancel_one(&world.store, &world.made).await;
    assert_eq!(world.store.sequence().await.unwrap(), 2);
    assert_eq!(world.store.sequence().await.unwrap(), 0, "once");
    assert_eq!(world.audit().await.unwrap().head.seq, 14, "and goes on");
}

#[tokio::test]
async fn events_are_not_changed_deleted_or_emptied_by_accident() {
    let world = world().await;
    let partition = &world.store.event_partitions().await.unwrap()[0];
    let mut conn = world.database.connect().await;
    for statement in [
        "UPDATE events SET state = 'failed' WHERE seq = 3".to_owned(),
        "UPDATE events SET salt = NULL WHERE seq = 3".to_owned(),
        "DELETE FROM events WHERE seq = 3".to_owned(),
        "TRUNCATE events".to_owned(),
        format!("DELETE FROM {partition}"),
        format!("TRUNCATE {partition}"),
    ] {
        let refused = conn.execute(AssertSqlSafe(statement.clone())).await.unwrap_err().to_string();
        assert!(refused.contains("events are append-only"), "{statement}: {refused}");
    }
    assert!(world.audit().await.is_ok());
}

#[tokio::test]
async fn a_removed_entry_is_found() {
    let world = world().await;
    world.attack("DELETE FROM events WHERE seq IN (6, 7)").await;
    assert_eq!(world.audit().await, Err(Finding::Removed { from: 6, to: 7 }));
    world.attack("DELETE FROM events WHERE seq < 6").await;
    assert_eq!(world.audit().await, Err(Finding::Removed { from: 1, to: 7 }));
}

#[tokio::test]
async fn a_removed_entry_is_found_when_the_others_are_renumbered() {
    let world = world().await;
    let renumber =
        "UPDATE events SET seq = -seq WHERE seq > 6; UPDATE events SET seq = -seq - 1 WHERE seq < 0";
    world.attack(&format!("DELETE FROM events WHERE seq = 6; {renumber}")).await;
    assert_eq!(world.audit().await, Err(Finding::Removed { from: 6, to: 6 }));
}

#[tokio::test]
async fn an_edited_entry_is_found() {
    let world = world().await;
    world.attack("UPDATE events SET failure = '{}' WHERE seq = 5").await;
    assert_eq!(world.audit().await, Err(Finding::Edited { seq: 5 }));
    world.attack("UPDATE events SET hash = '\\x00' WHERE seq = 3").await;
    assert_eq!(world.audit().await, Err(Finding::Edited { seq: 3 }));
    world.attack("UPDATE events SET kind = NULL, at = NULL WHERE seq = 2").await;
    assert_eq!(world.audit().await, Err(Finding::Edited { seq: 2 }));
}

#[tokio::test]
async fn an_edit_is_found_when_everything_after_it_is_chained_anew() {
    let world = world().await;
    world.attack("UPDATE events SET state = 'succeeded' WHERE seq = 6").await;
    world.chain_anew(6).await;
    assert!(world.audit_against(&[]).await.is_ok(), "the chain alone cannot tell");
    assert_eq!(world.audit().await, Err(Finding::Rewritten { after: 4, seq: 12 }));
}

#[tokio::test]
async fn entries_that_changed_places_are_found() {
    let world = world().await;
    let swap = "UPDATE events SET seq = -1 WHERE seq = 5; UPDATE events SET seq = 5 WHERE seq = 8;
        UPDATE events SET seq = 8 WHERE seq = -1";
    world.attack(swap).await;
    assert_eq!(world.audit().await, Err(Finding::Reordered { seq: 5, at: 8 }));
    world.attack(swap).await;
    assert!(world.audit().await.is_ok(), "and it holds once they are back");
    world
        .attack(
            "UPDATE events e SET digest = o.digest, salt = o.salt, job = o.job, kind = o.kind, state = o.state,
                stage = o.stage, failure = o.failure, at = o.at
             FROM events o WHERE (e.seq, o.seq) IN ((5, 8), (8, 5))",
        )
        .await;
    assert_eq!(world.audit().await, Err(Finding::Reordered { seq: 5, at: 8 }), "the contents alone");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_also_when_others_have_grown_in_its_place() {
    let world = world().await;
    world
        .attack(
            "DELETE FROM events WHERE seq > 9;
             UPDATE chains c SET seq = 9, hash = e.hash FROM events e WHERE e.seq = 9",
        )
        .await;
    assert!(world.audit_against(&[]).await.is_ok(), "the chain alone cannot tell");
    assert_eq!(world.audit().await, Err(Finding::CutOff { last: 9, signed: 12 }));
    cancel_one(&world.store, &world.made).await;
    cancel_one(&world.store, &world.made).await;
    world.store.sequence().await.unwrap();
    assert_eq!(world.audit().await, Err(Finding::Rewritten { after: 4, seq: 12 }));
    world.attack("DELETE FROM events; DELETE FROM journal; DELETE FROM chains").await;
    assert_eq!(world.audit().await, Err(Finding::CutOff { last: 0, signed: 4 }), "all of it");
}

#[tokio::test]
async fn a_checkpoint_that_another_key_signed_is_not_taken() {
    let world = world().await;
    let (ours, theirs) = (Signer::generate().unwrap(), Signer::generate().unwrap());
    let signed = ours.sign(&world.checkpoints[1]);
    assert_eq!(signed.open(&ours.public_key()), Ok(world.checkpoints[1].clone()));
    assert_eq!(theirs.sign(&world.checkpoints[1]).open(&ours.public_key()), Err(CheckpointError::Signature));
}

#[tokio::test]
async fn a_tenants_data_goes_and_its_chain_stays() {
    let world = world().await;
    let other = make(&world.store, "b").await;
    cancel_one(&world.store, &other).await;
    assert_eq!(world.store.erase_events(world.made.tenant).await.unwrap(), 12);
    assert_eq!(world.store.events(world.made.tenant, None, 0, 100).await.unwrap(), []);
    assert_eq!(world.store.events(other.tenant, None, 0, 100).await.unwrap().len(), 2, "others keep theirs");
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM events WHERE tenant = $1 AND seq <= 12
            AND (salt, job, kind, state, stage, failure, at) IS DISTINCT FROM (NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .bind(world.made.tenant.to_string())
    .fetch_one(&mut world.database.connect().await)
    .await
    .unwrap();
    assert_eq!(left, 0, "neither what happened nor the salts");
    cancel_one(&world.store, &world.made).await;
    let answers = world.store.audit(&world.checkpoints).await.unwrap();
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
    let (_, verified) = answers.iter().find(|(tenant, _)| *tenant == world.made.tenant).unwrap();
    assert_eq!(verified.as_ref().unwrap().erased, 12);
    assert_eq!(world.store.erase_events(world.made.tenant).await.unwrap(), 2, "again, for what came since");
}

#[tokio::test]
async fn an_erasure_that_nobody_recorded_is_found() {
    let world = world().await;
    // What the trigger lets through: exactly what an erasure does.
    world
        .database
        .execute(
            "UPDATE events SET salt = NULL, job = NULL, kind = NULL, state = NULL, stage = NULL, failure = NULL, at = NULL
             WHERE seq IN (5, 9)",
        )
        .await;
    assert_eq!(world.audit().await, Err(Finding::Erased { seq: 5 }));
}

#[tokio::test]
async fn a_month_goes_only_against_a_signed_anchor_and_the_chain_is_verified_from_there() {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    let world = World { database, store, made, checkpoints: Vec::new() };
    let entries = old_months::with_old_months(&world.database, made.tenant).await;
    cancel_one(&world.store, &made).await;
    let (store, signer) = (&world.store, Signer::generate().unwrap());
    let key = signer.public_key();
    let head = store.checkpoint().await.unwrap();
    assert_eq!(world.audit_against(std::slice::from_ref(&head)).await.unwrap().head.seq, 9);

    let anchor = store.anchor_of("events_2026_01").await.unwrap();
    let expected = TenantHead::new(made.tenant, Head { seq: 3, hash: entries[2].hash });
    assert_eq!((anchor.purpose, anchor.heads.as_slice()), (Purpose::Anchor, [expected].as_slice()));
    // Each refusal leaves everything as it was.
    let stranger = Signer::generate().unwrap().sign(&anchor);
    let refused = store.drop_events("events_2026_01", &stranger, &key).await;
    assert!(matches!(refused, Err(DropError::Anchor(CheckpointError::Signature))), "{refused:?}");
    let not_an_anchor = signer.sign(&Checkpoint { purpose: Purpose::Head, ..anchor.clone() });
    let refused = store.drop_events("events_2026_01", &not_an_anchor, &key).await;
    assert!(matches!(refused, Err(DropError::Differs(_))), "{refused:?}");
    let of_february = store.anchor_of("events_2026_02").await.unwrap();
    let refused = store.drop_events("events_2026_01", &signer.sign(&of_february), &key).await;
    assert!(matches!(refused, Err(DropError::Differs(_))), "{refused:?}");
    let refused = store.drop_events("events_2026_02", &signer.sign(&of_february), &key).await;
    assert!(matches!(refused, Err(DropError::NotOldest(_))), "{refused:?}");
    assert!(matches!(store.anchor_of("tenants").await, Err(DropError::Missing(_))), "no other table");

    store.drop_events("events_2026_01", &signer.sign(&anchor), &key).await.unwrap();
    assert!(!store.event_partitions().await.unwrap().contains(&"events_2026_01".to_owned()));
    let verified = world.audit_against(&[head.clone(), anchor.clone()]).await.unwrap();
    assert_eq!((verified.from.seq, verified.head.seq), (3, 9));
    // Without the anchor it is what it would be without our leave: a removal. And an anchor excuses no more than it says.
    assert_eq!(
        world.audit_against(std::slice::from_ref(&head)).await,
        Err(Finding::Removed { from: 1, to: 3 })
    );
    world.database.execute("DROP TABLE events_2026_02").await;
    assert_eq!(world.audit_against(&[head, anchor]).await, Err(Finding::Removed { from: 4, to: 7 }));
}

#[tokio::test]
async fn the_month_that_is_written_to_is_not_dropped() {
    let world = world().await;
    let signer = Signer::generate().unwrap();
    let current = world.store.event_partitions().await.unwrap()[0].clone();
    let anchor = signer.sign(&world.store.anchor_of(&current).await.unwrap());
    let refused = world.store.drop_events(&current, &anchor, &signer.public_key()).await;
    assert!(matches!(refused, Err(DropError::InUse(_))), "{refused:?}");
}

#[tokio::test]
async fn an_event_without_a_partition_waits_in_the_journal_and_is_chained_when_there_is_one() {
    let database = postgres::database().await;
    let store = database.store().await;
    let made = make(&store, "a").await;
    let partitions = store.event_partitions().await.unwrap();
    assert_eq!(partitions.len(), 3, "this month and two ahead");
    // Something else has taken the name: the partition cannot be made.
    let names = partitions.join(", ");
    database.execute(&format!("DROP TABLE {names}; CREATE TABLE {} (x INT)", partitions[0])).await;
    cancel_one(&store, &made).await;
    assert!(store.sequence().await.is_err(), "it is said");
    assert!(store.events(made.tenant, None, 0, 10).await.is_err());
    cancel_one(&store, &made).await;
    database.execute(&format!("DROP TABLE {}", partitions[0])).await;
    assert_eq!(store.sequence().await.unwrap(), 4, "nothing was lost");
    assert_eq!(store.events(made.tenant, None, 0, 10).await.unwrap().len(), 4);
    assert_eq!(store.event_partitions().await.unwrap(), partitions);
}

#[tokio::test(flavor = "multi_thread")]
async fn sequencers_at_once_make_one_chain() {
    let database = postgres::database().await;
    let stores = [database.store().await, database.store().await];
    let tenants = [make(&stores[0], "a").await, make(&stores[0], "b").await];
    let calls = (0..60).map(|i| {
        let (store, made) = (stores[i % 2].clone(), tenants[i / 2 % 2]);
        tokio::spawn(async move {
            cancel_one(&store, &made).await;
            match i % 3 {
                0 => drop(store.sequence().await.unwrap()),
                1 => drop(store.last_event(made.tenant).await.unwrap()),
                _ => {}
            }
        })
    });
    futures_util::future::join_all(calls).await.into_iter().for_each(|done| done.unwrap());
    let checkpoint = stores[0].checkpoint().await.unwrap();
    let answers = stores[1].audit(&[checkpoint]).await.unwrap();
    let heads: Vec<u64> = answers.iter().map(|(_, answer)| answer.as_ref().unwrap().head.seq).collect();
    assert_eq!(heads, [60, 60]);
}
