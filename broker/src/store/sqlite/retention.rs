//! Deletion of a tenant's data.

use super::SqliteStore;
use crate::model::Time;
use crate::store::retention::{Retention, TenantRecord, first_id_at};
use crate::store::row::Cells;
use crate::store::{Deleted, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{Id, JobId, Kind, TenantId, UploadId};
use sqlx::sqlite::SqliteRow;

fn ids<K: Kind>(table: &'static str, rows: &[SqliteRow]) -> Result<Vec<Id<K>>, StoreError> {
    rows.iter().map(|row| Cells::of(table, row).id("id")).collect()
}

#[async_trait]
impl Retention for SqliteStore {
    async fn delete_job(&self, tenant: TenantId, job: JobId, now: Time) -> Result<Deleted, StoreError> {
        let mut tx = self.write().await?;
        let found = sqlx::query("SELECT state FROM jobs WHERE tenant = ? AND id = ? AND deleted_at IS NULL")
            .bind(tenant.to_string())
            .bind(job.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        if found.is_none() {
            return Ok(Deleted::NotFound);
        }
        let done = sqlx::query(
            "UPDATE jobs SET deleted_at = ? WHERE id = ? AND state IN ('succeeded', 'failed', 'canceled')",
        )
        .bind(now.0)
        .bind(job.to_string())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(Deleted::InUse);
        }
        for statement in ["DELETE FROM attempt_logs WHERE job = ?", "DELETE FROM objects WHERE job = ?"] {
            sqlx::query(statement).bind(job.to_string()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Deleted::Done)
    }

    async fn purgeable_jobs(&self, limit: u32) -> Result<Vec<(TenantId, JobId)>, StoreError> {
        let rows = sqlx::query(
            "SELECT j.tenant, j.id FROM jobs j WHERE j.deleted_at IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM tasks t JOIN attempts a ON a.task = t.id WHERE t.job = j.id AND a.swept = 0)
             ORDER BY j.tenant LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let cells = Cells::of("jobs", row);
                Ok((cells.id("tenant")?, cells.id("id")?))
            })
            .collect()
    }

    async fn purge_jobs(&self, tenant: TenantId, jobs: &[JobId], _now: Time) -> Result<u64, StoreError> {
        let mut purged = 0_u64;
        for job in jobs {
            let mut tx = self.write().await?;
            let deleted =
                sqlx::query("SELECT 1 FROM jobs WHERE tenant = ? AND id = ? AND deleted_at IS NOT NULL")
                    .bind(tenant.to_string())
                    .bind(job.to_string())
                    .fetch_optional(&mut *tx)
                    .await?;
            if deleted.is_none() {
                continue;
            }
            for statement in [
                "DELETE FROM events WHERE job = ?",
                "DELETE FROM deliveries WHERE job = ?",
                "DELETE FROM parts WHERE attempt IN (SELECT a.id FROM tasks t JOIN attempts a ON a.task = t.id WHERE t.job = ?)",
                "DELETE FROM attempt_logs WHERE job = ?",
                "DELETE FROM attempts WHERE task IN (SELECT id FROM tasks WHERE job = ?)",
                "DELETE FROM tasks WHERE job = ?",
                "DELETE FROM minutes WHERE job = (SELECT id FROM jobs WHERE id = ? AND state <> 'succeeded')",
                "DELETE FROM jobs WHERE id = ?",
            ] {
                sqlx::query(statement).bind(job.to_string()).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            purged = purged.saturating_add(1);
        }
        Ok(purged)
    }

    async fn old_jobs(&self, tenant: TenantId, before: Time, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM jobs WHERE tenant = ? AND id < ? AND finished_at < ? AND deleted_at IS NULL
                AND state IN ('succeeded', 'failed', 'canceled')
             ORDER BY id LIMIT ?",
        )
        .bind(tenant.to_string())
        .bind(first_id_at(before).to_string())
        .bind(before.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        ids("jobs", &rows)
    }

    async fn old_uploads(
        &self,
        tenant: TenantId,
        before: Time,
        limit: u32,
    ) -> Result<Vec<UploadId>, StoreError> {
        let rows = sqlx::query(
            "SELECT u.id FROM uploads u WHERE u.tenant = ? AND u.touched_at < ?
                AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.upload = u.id AND j.state IN ('queued', 'running', 'canceling'))
             ORDER BY u.id LIMIT ?",
        )
        .bind(tenant.to_string())
        .bind(before.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        ids("uploads", &rows)
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT id, limits, deleted_at FROM tenants WHERE erased_at IS NULL ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
        rows.iter()
            .map(|row| {
                let cells = Cells::of("tenants", row);
                Ok(TenantRecord {
                    id: cells.id("id")?,
                    limits: cells.json_or_null("limits")?,
                    deleted: cells.time_or_null("deleted_at")?.is_some(),
                })
            })
            .collect()
    }

    async fn delete_tenant(&self, name: &str, now: Time) -> Result<Option<TenantId>, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query(
            "UPDATE tenants SET name = 'deleted ' || id, limits = NULL, deleted_at = ?
             WHERE name = ? AND deleted_at IS NULL RETURNING id",
        )
        .bind(now.0)
        .bind(name)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let tenant: TenantId = Cells::of("tenants", &row).id("id")?;
        for statement in [
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2), label = '' WHERE tenant = ?1",
            "DELETE FROM deliveries WHERE ?2 > 0 AND webhook IN (SELECT id FROM webhooks WHERE tenant = ?1)",
            "DELETE FROM webhooks WHERE tenant = ?1 AND ?2 > 0",
            "DELETE FROM intake_objects WHERE ?2 > 0 AND rule IN (SELECT id FROM intake_rules WHERE tenant = ?1)",
            "DELETE FROM intake_rules WHERE tenant = ?1 AND ?2 > 0",
            "DELETE FROM idempotency WHERE tenant = ?1 AND ?2 > 0",
        ] {
            sqlx::query(statement).bind(tenant.to_string()).bind(now.0).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Some(tenant))
    }

    async fn finish_tenant(&self, tenant: TenantId, now: Time) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE tenants SET erased_at = ?2, storage = NULL WHERE id = ?1 AND deleted_at IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM jobs WHERE tenant = ?1)
                AND NOT EXISTS (SELECT 1 FROM uploads WHERE tenant = ?1)",
        )
        .bind(tenant.to_string())
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM minutes WHERE tenant = ?",
            "DELETE FROM idempotency WHERE tenant = ?",
            "DELETE FROM quarantined_inputs WHERE tenant = ?",
        ] {
            sqlx::query(statement).bind(tenant.to_string()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}
