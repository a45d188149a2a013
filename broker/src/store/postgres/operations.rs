//! Records beside the truth about jobs.

use super::{PostgresStore, sql, uploads};
use crate::audit::checkpoint::Checkpoint;
use crate::model::{Claim, Part, TenantLimits, Time};
use crate::plan::bans::Ban;
use crate::store::StoreError;
use crate::store::operations::{ApiKeyShown, AttemptLog, EndedJob, Operations, PoolSeen};
use crate::store::row::{self, Cells, json, signed};
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, KeyId, TenantId, UploadId};
use mpegflow_protocol::media::MediaInfo;

#[async_trait]
impl Operations for PostgresStore {
    async fn tell_pools(&self, broker: &str, seen: &[PoolSeen], now: Time) -> Result<(), StoreError> {
        let query = self
            .sql(sql::TELL_POOLS)
            .bind(broker)
            .bind(seen.iter().map(|s| s.pool.to_string()).collect::<Vec<_>>())
            .bind(seen.iter().map(|s| signed(s.workers)).collect::<Vec<_>>())
            .bind(seen.iter().map(|s| signed(s.idle)).collect::<Vec<_>>())
            .bind(now.0);
        self.change(query).await.map(drop)
    }

    async fn pools_of_others(&self, broker: &str, since: Time) -> Result<Vec<PoolSeen>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::POOLS_OF_OTHERS).bind(broker).bind(since.0).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter()
            .map(|row| {
                let cells = Cells::of("pools_seen", row);
                Ok(PoolSeen {
                    pool: cells.pool("pool")?,
                    workers: cells.number("workers")?,
                    idle: cells.number("idle")?,
                })
            })
            .collect()
    }

    async fn heads_to_sign(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.checkpoint().await.map(Some)
    }

    async fn api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyShown>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::KEYS).bind(tenant.to_string()).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::api_key_shown).collect()
    }

    async fn expire_api_key(&self, id: KeyId, at: Time) -> Result<bool, StoreError> {
        Ok(self.change(self.sql(sql::EXPIRE_KEY).bind(id.to_string()).bind(at.0)).await? == 1)
    }

    async fn tenant_limits(&self, tenant: TenantId) -> Result<Option<TenantLimits>, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::TENANT_LIMITS).bind(tenant.to_string()).fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.map_or(Ok(None), |row| Cells::of("tenants", &row).json_or_null("limits"))
    }

    async fn set_tenant_limits(&self, tenant: TenantId, limits: &TenantLimits) -> Result<bool, StoreError> {
        let query = self.sql(sql::SET_TENANT_LIMITS).bind(tenant.to_string()).bind(json(limits));
        Ok(self.change(query).await? == 1)
    }

    async fn tenant_named(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::TENANT).bind(name).fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.map(|row| Cells::of("tenants", &row).id("id")).transpose()
    }

    async fn media_of_upload(
        &self,
        tenant: TenantId,
        upload: UploadId,
    ) -> Result<Option<MediaInfo>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::MEDIA_OF_UPLOAD).bind(tenant.to_string()).bind(upload.to_string());
        let row = query.fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.map_or(Ok(None), |row| Cells::of("jobs", &row).json_or_null("media"))
    }

    async fn reserve_minutes(
        &self,
        tenant: TenantId,
        job: JobId,
        day: u64,
        ms: u64,
        most: u64,
    ) -> Result<bool, StoreError> {
        // The tenant's lock: two jobs at once do not both get the last minute.
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        let taken = self.sql(sql::HAS_MINUTES).bind(job.to_string()).fetch_optional(&mut conn).await?;
        if taken.is_some() {
            return Ok(true);
        }
        let query = self.sql(sql::MINUTES_TAKEN).bind(tenant.to_string()).bind(signed(day));
        let row = query.bind(job.to_string()).fetch_one(&mut conn).await?;
        if Cells::of("minutes", &row).number("ms")?.saturating_add(ms) > most {
            return Ok(false);
        }
        let query = self.sql(sql::TAKE_MINUTES).bind(job.to_string()).bind(tenant.to_string());
        query.bind(signed(day)).bind(signed(ms)).execute(&mut conn).await?;
        conn.done().await?;
        Ok(true)
    }

    async fn minutes_taken(&self, tenant: TenantId, day: u64) -> Result<u64, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::MINUTES_TAKEN).bind(tenant.to_string()).bind(signed(day)).bind("");
        let row = query.fetch_one(&mut conn).await?;
        conn.done().await?;
        Cells::of("minutes", &row).number("ms")
    }

    async fn pin_input(
        &self,
        claim: &Claim,
        input: u32,
        version: &str,
    ) -> Result<Option<String>, StoreError> {
        for _ in 0..2 {
            let query = self
                .sql(sql::PIN_INPUT)
                .bind(claim.attempt.to_string())
                .bind(claim.worker.to_string())
                .bind(signed(claim.epoch))
                .bind(i64::from(input))
                .bind(version);
            let mut conn = self.conn().await?;
            let row = query.fetch_optional(&mut conn).await?;
            conn.done().await?;
            let Some(row) = row else { return Ok(None) };
            if let Some(pinned) = Cells::of("pins", &row).text_or_null("version")? {
                return Ok(Some(pinned.to_owned()));
            }
        }
        Err(StoreError::Row { table: "pins", reason: "a pin is there and cannot be read".into() })
    }

    async fn announce_part(
        &self,
        claim: &Claim,
        output: u32,
        part: &Part,
    ) -> Result<Option<Part>, StoreError> {
        for _ in 0..2 {
            let query = self
                .sql(sql::ANNOUNCE_PART)
                .bind(claim.attempt.to_string())
                .bind(claim.worker.to_string())
                .bind(signed(claim.epoch))
                .bind(i64::from(output))
                .bind(i64::from(part.part))
                .bind(signed(part.size))
                .bind(part.sha256.as_slice());
            let mut conn = self.conn().await?;
            let rows = query.fetch_all(&mut conn).await?;
            conn.done().await?;
            let Some(row) = rows.first() else { return Ok(None) };
            if Cells::of("announced", row).flag("there")? {
                return row::part(row).map(Some);
            }
        }
        Err(StoreError::Row { table: "announced", reason: "a part is announced and cannot be read".into() })
    }

    async fn running_of_tenant(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::RUNNING_OF_TENANT).bind(tenant.to_string()).fetch_one(&mut conn).await?;
        conn.done().await?;
        Cells::of("attempts", &row).number("n")
    }

    async fn append_log(&self, claim: &Claim, lines: &str, most: u32, now: Time) -> Result<(), StoreError> {
        let query = self
            .sql(sql::APPEND_LOG)
            .bind(claim.attempt.to_string())
            .bind(claim.worker.to_string())
            .bind(signed(claim.epoch))
            .bind(lines)
            .bind(i32::try_from(most).unwrap_or(i32::MAX))
            .bind(now.0);
        self.change(query).await.map(drop)
    }

    async fn logs(&self, tenant: TenantId, job: JobId, limit: u32) -> Result<Vec<AttemptLog>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::LOGS).bind(tenant.to_string()).bind(job.to_string()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::attempt_log).collect()
    }

    async fn forget_logs(&self, before: Time) -> Result<u64, StoreError> {
        self.change(self.sql(sql::FORGET_LOGS).bind(before.0)).await
    }

    async fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::BANS).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::ban).collect()
    }

    async fn ban(&self, ban: &Ban) -> Result<(), StoreError> {
        self.change(self.sql(sql::BAN).bind(&ban.name).bind(&ban.reason).bind(ban.at.0)).await.map(drop)
    }

    async fn lift_ban(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.change(self.sql(sql::LIFT_BAN).bind(name)).await? == 1)
    }

    async fn ended_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<EndedJob>, StoreError> {
        let mut conn = self.conn().await?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self.sql(sql::ENDED_JOBS).bind(after).bind(i64::from(limit)).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::ended_job).collect()
    }
}
