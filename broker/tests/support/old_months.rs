//! A log that began in months that are over.
#![allow(unreachable_pub, missing_docs, reason = "test support")]

use super::postgres::Database;
use mpegflow_broker::audit::chain::{self, Content, Entry, Head};
use mpegflow_protocol::ids::TenantId;

/// Two old months, as if this tenant had been here: 3 and 4 entries in them, and the chain goes on from there.
pub async fn with_old_months(database: &Database, tenant: TenantId) -> Vec<Entry> {
    let mut head = Head { seq: 0, hash: chain::genesis(tenant) };
    let january = 1_767_225_600_000;
    let february = 1_769_904_000_000;
    let march = 1_772_323_200_000_i64;
    let entries: Vec<Entry> = (0..7)
        .map(|n| {
            let at = if n < 3 { january + n } else { february + n };
            let content = Content {
                salt: [1; 16],
                job: Some(format!("job_{n:032x}")),
                kind: "created".into(),
                state: Some("queued".into()),
                stage: Some("{\"done\":0,\"frames\":0}".into()),
                failure: None,
                at,
            };
            chain::append(tenant, &mut head, at, content)
        })
        .collect();
    let hex = |bytes: &[u8]| mpegflow_broker::secret::hex(bytes);
    let mut sql = format!(
        "CREATE TABLE events_2026_01 PARTITION OF events FOR VALUES FROM ({january}) TO ({february});
         CREATE TABLE events_2026_02 PARTITION OF events FOR VALUES FROM ({february}) TO ({march});"
    );
    for entry in &entries {
        let content = entry.content.as_ref().unwrap();
        sql += &format!(
            "INSERT INTO events VALUES ('{tenant}', {}, {}, '\\x{}', '\\x{}', '\\x{}', '{}', 'created', 'queued', '{}', NULL, {});",
            entry.seq,
            entry.chained_at,
            hex(&entry.digest),
            hex(&entry.hash),
            hex(&content.salt),
            content.job.as_ref().unwrap(),
            content.stage.as_ref().unwrap(),
            content.at,
        );
    }
    let last = entries.last().unwrap();
    sql += &format!("UPDATE chains SET seq = 7, hash = '\\x{}' WHERE tenant = '{tenant}'", hex(&last.hash));
    database.execute(&sql).await;
    entries
}
