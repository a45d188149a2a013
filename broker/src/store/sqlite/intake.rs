//! The intake.

use super::{SqliteStore, Tx, uploads};
use crate::model::Time;
use crate::store::intake::{Arrival, Intake, Looked, ManagedRule, RuleRecord, Trouble};
use crate::store::managed::{Change, changes};
use crate::store::row::{self, Cells, json};
use crate::store::{Idempotency, Once, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, RuleId, TenantId};

/// Whether no job was made of the object as it is, or of a newer one; `None` where the tenant has no such rule.
pub(super) async fn is_new(
    tx: &mut Tx,
    tenant: TenantId,
    arrival: &Arrival,
) -> Result<Option<bool>, StoreError> {
    let rule = sqlx::query("SELECT 1 FROM intake_rules WHERE id = ? AND tenant = ?")
        .bind(arrival.rule.to_string())
        .bind(tenant.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    if rule.is_none() {
        return Ok(None);
    }
    let known = sqlx::query(
        "SELECT 1 FROM intake_objects WHERE rule = ?1 AND bucket = ?2 AND object = ?3
            AND (version = ?4 OR modified > ?5 OR (modified = ?5 AND sequencer > ?6)) LIMIT 1",
    )
    .bind(arrival.rule.to_string())
    .bind(&arrival.bucket)
    .bind(&arrival.object)
    .bind(&arrival.version)
    .bind(arrival.modified)
    .bind(arrival.sequencer.as_deref())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(Some(known.is_none()))
}

/// Notes an object with the job that was made of it.
pub(super) async fn keep(
    tx: &mut Tx,
    arrival: &Arrival,
    job: Option<JobId>,
    now: Time,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO intake_objects (rule, bucket, object, version, modified, sequencer, job, noted_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(arrival.rule.to_string())
    .bind(&arrival.bucket)
    .bind(&arrival.object)
    .bind(&arrival.version)
    .bind(arrival.modified)
    .bind(arrival.sequencer.as_deref())
    .bind(job.map(|job| job.to_string()))
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Makes a tenant's managed rules those of its resource. What is known of objects stays with a rule that changes, but for what was refused.
pub(super) async fn manage(
    tx: &mut Tx,
    tenant: TenantId,
    wanted: &[ManagedRule],
    now: Time,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT * FROM intake_rules WHERE tenant = ? AND managed IS NOT NULL ORDER BY id")
        .bind(tenant.to_string())
        .fetch_all(&mut **tx)
        .await?;
    let here = rows.iter().map(row::managed_rule).collect::<Result<Vec<_>, _>>()?;
    for change in changes(&here, wanted, |here| here.id, |here, wanted| wanted.is(here)) {
        match change {
            Change::Delete(id) => drop(delete(tx, tenant, id).await?),
            // Other objects than before: those that were written before this are as they are to a new rule.
            Change::Update(id, to) => {
                sqlx::query(
                    "UPDATE intake_rules SET
                         created_at = CASE WHEN prefix = ?2 AND suffix = ?3 AND existing = ?6 THEN created_at ELSE ?7 END,
                         prefix = ?2, suffix = ?3, job = ?4, poll_seconds = ?5, existing = ?6, cursor = '',
                         next_look_at = CASE WHEN ?5 IS NULL THEN NULL ELSE ?7 END,
                         problem = NULL, problem_key = NULL, problem_at = NULL
                     WHERE id = ?1",
                )
                .bind(id.to_string())
                .bind(&to.prefix)
                .bind(&to.suffix)
                .bind(&to.job)
                .bind(to.poll_seconds)
                .bind(to.existing)
                .bind(now.0)
                .execute(&mut **tx)
                .await?;
                forget_refused(tx, id).await?;
            }
            Change::Add(new) => {
                sqlx::query(
                    "INSERT INTO intake_rules
                         (id, tenant, prefix, suffix, job, poll_seconds, existing, created_at, next_look_at, managed)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CASE WHEN ?6 IS NULL THEN NULL ELSE ?8 END, ?9)",
                )
                .bind(new.id.to_string())
                .bind(tenant.to_string())
                .bind(&new.prefix)
                .bind(&new.suffix)
                .bind(&new.job)
                .bind(new.poll_seconds)
                .bind(new.existing)
                .bind(now.0)
                .bind(&new.name)
                .execute(&mut **tx)
                .await?;
            }
        }
    }
    Ok(())
}

async fn delete(tx: &mut Tx, tenant: TenantId, id: RuleId) -> Result<bool, StoreError> {
    sqlx::query(
        "DELETE FROM intake_objects WHERE rule = (SELECT id FROM intake_rules WHERE tenant = ? AND id = ?)",
    )
    .bind(tenant.to_string())
    .bind(id.to_string())
    .execute(&mut **tx)
    .await?;
    let done = sqlx::query("DELETE FROM intake_rules WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

async fn forget_refused(tx: &mut Tx, rule: RuleId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM intake_objects WHERE rule = ? AND job IS NULL")
        .bind(rule.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const NOTE: &str = "UPDATE intake_rules SET problem = ?, problem_key = ?, problem_at = ? WHERE id = ?";

#[async_trait]
impl Intake for SqliteStore {
    async fn add_rule(
        &self,
        new: &RuleRecord,
        most: u32,
        once: Option<&Idempotency>,
        answer: &[u8],
    ) -> Result<Once<bool>, StoreError> {
        let mut tx = self.write().await?;
        if let Some(seen) = uploads::seen(&mut tx, new.tenant, once).await? {
            return Ok(seen);
        }
        let added = sqlx::query(
            "INSERT INTO intake_rules (id, tenant, prefix, suffix, job, poll_seconds, existing, created_at, next_look_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
             WHERE (SELECT count(*) FROM intake_rules WHERE tenant = ?2 AND managed IS NULL) < ?10",
        )
        .bind(new.id.to_string())
        .bind(new.tenant.to_string())
        .bind(&new.prefix)
        .bind(&new.suffix)
        .bind(json(&new.job))
        .bind(new.poll_seconds)
        .bind(new.existing)
        .bind(new.created_at.0)
        .bind(new.next_look_at.map(|t| t.0))
        .bind(most)
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(&mut tx, new.tenant, once, answer, new.created_at).await?;
        tx.commit().await?;
        Ok(Once::Done(true))
    }

    async fn rules(&self, tenant: TenantId) -> Result<Vec<RuleRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM intake_rules WHERE tenant = ? ORDER BY id")
            .bind(tenant.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(row::rule).collect()
    }

    async fn delete_rule(&self, tenant: TenantId, id: RuleId) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let found = delete(&mut tx, tenant, id).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn look_again(&self, tenant: TenantId, id: RuleId, now: Time) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE intake_rules SET cursor = '', next_look_at = ?, problem = NULL, problem_key = NULL, problem_at = NULL
             WHERE tenant = ? AND id = ?",
        )
        .bind(now.0)
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 {
            forget_refused(&mut tx, id).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn heard(
        &self,
        rule: RuleId,
        bucket: &str,
        object: &str,
        sequencer: &str,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query(
            "SELECT 1 FROM intake_objects WHERE rule = ? AND bucket = ? AND object = ? AND sequencer = ? LIMIT 1",
        )
        .bind(rule.to_string())
        .bind(bucket)
        .bind(object)
        .bind(sequencer)
        .fetch_optional(&self.readers)
        .await?;
        Ok(found.is_some())
    }

    async fn known(
        &self,
        rule: RuleId,
        bucket: &str,
        objects: &[String],
    ) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(
            "SELECT object, version FROM intake_objects
             WHERE rule = ? AND bucket = ? AND object IN (SELECT value FROM json_each(?))",
        )
        .bind(rule.to_string())
        .bind(bucket)
        .bind(json(&objects))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::known_object).collect()
    }

    async fn refuse(&self, arrival: &Arrival, trouble: &Trouble) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let tenant = sqlx::query("SELECT tenant FROM intake_rules WHERE id = ?")
            .bind(arrival.rule.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(tenant) = tenant else { return Ok(false) };
        let tenant = Cells::of("intake_rules", &tenant).id("tenant")?;
        if is_new(&mut tx, tenant, arrival).await? != Some(true) {
            return Ok(false);
        }
        keep(&mut tx, arrival, None, trouble.at).await?;
        sqlx::query(NOTE)
            .bind(&trouble.reason)
            .bind(trouble.key.as_deref())
            .bind(trouble.at.0)
            .bind(arrival.rule.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn note(&self, rule: RuleId, trouble: &Trouble) -> Result<(), StoreError> {
        sqlx::query(NOTE)
            .bind(&trouble.reason)
            .bind(trouble.key.as_deref())
            .bind(trouble.at.0)
            .bind(rule.to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn rules_to_look(&self, now: Time, limit: u32) -> Result<Vec<RuleRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM intake_rules WHERE next_look_at <= ? ORDER BY next_look_at, id LIMIT ?",
        )
        .bind(now.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::rule).collect()
    }

    async fn looked(&self, looked: &Looked<'_>, now: Time) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE intake_rules SET cursor = ?3, next_look_at = ?4,
                looked_at = CASE WHEN ?3 = '' AND ?5 IS NULL THEN ?6 ELSE looked_at END,
                problem_key = CASE WHEN ?5 IS NULL THEN problem_key END,
                problem_at = CASE WHEN ?5 IS NULL THEN problem_at ELSE ?6 END, problem = coalesce(?5, problem)
             WHERE id = ?1 AND cursor = ?2",
        )
        .bind(looked.rule.to_string())
        .bind(looked.from)
        .bind(looked.to)
        .bind(looked.next_at.map(|t| t.0))
        .bind(looked.problem)
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn forget_arrivals(&self, modified: i64, noted: Time) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM intake_objects WHERE noted_at < ? AND modified < ?")
            .bind(noted.0)
            .bind(modified)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected())
    }
}
