//! Deletion of a tenant's data.

use super::{PostgresStore, chain, sql};
use crate::model::Time;
use crate::store::retention::{Retention, TenantRecord, first_id_at};
use crate::store::row::Cells;
use crate::store::{Deleted, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{Id, JobId, Kind, TenantId, UploadId};
use sqlx::postgres::PgRow;

fn ids<K: Kind>(table: &'static str, rows: &[PgRow]) -> Result<Vec<Id<K>>, StoreError> {
    rows.iter().map(|row| Cells::of(table, row).id("id")).collect()
}

#[async_trait]
impl Retention for PostgresStore {
    async fn delete_job(&self, tenant: TenantId, job: JobId, now: Time) -> Result<Deleted, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::DELETE_JOB).bind(tenant.to_string()).bind(job.to_string()).bind(now.0);
        let row = query.fetch_one(&mut conn).await?;
        conn.done().await?;
        let cells = Cells::of("jobs", &row);
        Ok(match (cells.number("deleted")?, cells.number("found")?) {
            (1, _) => Deleted::Done,
            (_, 0) => Deleted::NotFound,
            _ => Deleted::InUse,
        })
    }

    async fn purgeable_jobs(&self, limit: u32) -> Result<Vec<(TenantId, JobId)>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::PURGEABLE_JOBS).bind(i64::from(limit)).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter()
            .map(|row| {
                let cells = Cells::of("jobs", row);
                Ok((cells.id("tenant")?, cells.id("id")?))
            })
            .collect()
    }

    async fn purge_jobs(&self, tenant: TenantId, jobs: &[JobId], now: Time) -> Result<u64, StoreError> {
        let names: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        // Before the rows: without them nothing would find the events again.
        chain::erase_jobs(self, tenant, &names, now.0).await?;
        let mut conn = self.conn().await?;
        let row = self
            .sql(sql::PURGE_JOBS)
            .patient()
            .bind(tenant.to_string())
            .bind(names)
            .fetch_one(&mut conn)
            .await?;
        conn.done().await?;
        Cells::of("jobs", &row).number("n")
    }

    async fn old_jobs(&self, tenant: TenantId, before: Time, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::OLD_JOBS).bind(tenant.to_string()).bind(first_id_at(before).to_string());
        let rows = query.bind(before.0).bind(i64::from(limit)).fetch_all(&mut conn).await?;
        conn.done().await?;
        ids("jobs", &rows)
    }

    async fn old_uploads(
        &self,
        tenant: TenantId,
        before: Time,
        limit: u32,
    ) -> Result<Vec<UploadId>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::OLD_UPLOADS).bind(tenant.to_string()).bind(before.0).bind(i64::from(limit));
        let rows = query.fetch_all(&mut conn).await?;
        conn.done().await?;
        ids("uploads", &rows)
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::TENANTS).fetch_all(&mut conn).await?;
        conn.done().await?;
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
        let mut conn = self.conn().await?;
        let row =
            self.sql(sql::DELETE_TENANT).patient().bind(name).bind(now.0).fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.map(|row| Cells::of("tenants", &row).id("id")).transpose()
    }

    async fn finish_tenant(&self, tenant: TenantId, now: Time) -> Result<bool, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::TENANT_HAS_DATA).bind(tenant.to_string()).fetch_optional(&mut conn).await?;
        conn.done().await?;
        if row.is_some() {
            return Ok(false);
        }
        chain::erase(self, tenant, now.0).await?;
        let query = self.sql(sql::FINISH_TENANT).patient().bind(tenant.to_string()).bind(now.0);
        Ok(self.change(query).await? == 1)
    }
}
