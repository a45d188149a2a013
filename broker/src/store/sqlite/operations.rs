//! Records beside the truth about jobs.

use super::SqliteStore;
use crate::model::{Claim, Part, TenantLimits, Time};
use crate::plan::bans::Ban;
use crate::store::StoreError;
use crate::store::operations::{ApiKeyShown, AttemptLog, EndedJob, Operations};
use crate::store::row::{self, Cells, json, signed};
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, KeyId, TenantId, UploadId};
use mpegflow_protocol::media::MediaInfo;

const MINUTES_TAKEN: &str = "SELECT coalesce(sum(m.input_ms), 0) AS ms FROM minutes m
    WHERE m.tenant = ? AND m.day = ?
        AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = m.job AND j.state IN ('failed', 'canceled'))";

#[async_trait]
impl Operations for SqliteStore {
    async fn api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyShown>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, label, scopes, created_at, expires_at, revoked_at FROM api_keys WHERE tenant = ?
             ORDER BY created_at, id",
        )
        .bind(tenant.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::api_key_shown).collect()
    }

    async fn expire_api_key(&self, id: KeyId, at: Time) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE api_keys SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE id = ?1 AND revoked_at IS NULL",
        )
        .bind(id.to_string())
        .bind(at.0)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn tenant_limits(&self, tenant: TenantId) -> Result<Option<TenantLimits>, StoreError> {
        let row = sqlx::query("SELECT limits FROM tenants WHERE id = ?")
            .bind(tenant.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.map_or(Ok(None), |row| Cells::of("tenants", &row).json_or_null("limits"))
    }

    async fn set_tenant_limits(&self, tenant: TenantId, limits: &TenantLimits) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE tenants SET limits = ? WHERE id = ?")
            .bind(json(limits))
            .bind(tenant.to_string())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn tenant_named(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        let row = sqlx::query("SELECT id FROM tenants WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Cells::of("tenants", &row).id("id")).transpose()
    }

    async fn media_of_upload(
        &self,
        tenant: TenantId,
        upload: UploadId,
    ) -> Result<Option<MediaInfo>, StoreError> {
        let row = sqlx::query(
            "SELECT media FROM jobs WHERE tenant = ? AND upload = ? AND media IS NOT NULL AND deleted_at IS NULL ORDER BY id DESC LIMIT 1",
        )
        .bind(tenant.to_string())
        .bind(upload.to_string())
        .fetch_optional(&self.readers)
        .await?;
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
        let mut tx = self.write().await?;
        let taken = sqlx::query("SELECT 1 FROM minutes WHERE job = ?").bind(job.to_string());
        if taken.fetch_optional(&mut *tx).await?.is_some() {
            return Ok(true);
        }
        let query = sqlx::query(MINUTES_TAKEN).bind(tenant.to_string()).bind(signed(day));
        let row = query.fetch_one(&mut *tx).await?;
        if Cells::of("minutes", &row).number("ms")?.saturating_add(ms) > most {
            return Ok(false);
        }
        sqlx::query("INSERT INTO minutes (job, tenant, day, input_ms) VALUES (?, ?, ?, ?)")
            .bind(job.to_string())
            .bind(tenant.to_string())
            .bind(signed(day))
            .bind(signed(ms))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn minutes_taken(&self, tenant: TenantId, day: u64) -> Result<u64, StoreError> {
        let query = sqlx::query(MINUTES_TAKEN).bind(tenant.to_string()).bind(signed(day));
        Cells::of("minutes", &query.fetch_one(&self.readers).await?).number("ms")
    }

    async fn pin_input(
        &self,
        claim: &Claim,
        input: u32,
        version: &str,
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO pins (attempt, input, version)
             SELECT a.id, ?4, ?5 FROM attempts a WHERE a.id = ?1 AND a.worker = ?2 AND a.epoch = ?3 AND a.state = 'live'
             ON CONFLICT DO NOTHING",
        )
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(input)
        .bind(version)
        .execute(&mut *tx)
        .await?;
        let row = sqlx::query(
            "SELECT p.version FROM pins p JOIN attempts a ON a.id = p.attempt
             WHERE p.attempt = ?1 AND p.input = ?4 AND a.worker = ?2 AND a.epoch = ?3 AND a.state = 'live'",
        )
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(input)
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        row.map(|row| Ok(Cells::of("pins", &row).text("version")?.to_owned())).transpose()
    }

    async fn announce_part(
        &self,
        claim: &Claim,
        output: u32,
        part: &Part,
    ) -> Result<Option<Part>, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO announced (attempt, output, part, size, sha256)
             SELECT a.id, ?4, ?5, ?6, ?7 FROM attempts a WHERE a.id = ?1 AND a.worker = ?2 AND a.epoch = ?3 AND a.state = 'live'
             ON CONFLICT DO NOTHING",
        )
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(output)
        .bind(part.part)
        .bind(signed(part.size))
        .bind(part.sha256.as_slice())
        .execute(&mut *tx)
        .await?;
        let row = sqlx::query(
            "SELECT p.part, p.size, p.sha256 FROM announced p JOIN attempts a ON a.id = p.attempt
             WHERE p.attempt = ?1 AND p.output = ?4 AND p.part = ?5 AND a.worker = ?2 AND a.epoch = ?3 AND a.state = 'live'",
        )
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(output)
        .bind(part.part)
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        row.as_ref().map(row::part).transpose()
    }

    async fn running_of_tenant(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM attempts WHERE tenant = ? AND state = 'live'")
            .bind(tenant.to_string())
            .fetch_one(&self.readers)
            .await?;
        Cells::of("attempts", &row).number("n")
    }

    async fn append_log(&self, claim: &Claim, lines: &str, most: u32, now: Time) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO attempt_logs (attempt, job, text, cut, at)
             SELECT a.id, a.job, substr(?4, 1, ?5), length(?4) > ?5, ?6 FROM attempts a
             WHERE a.id = ?1 AND a.worker = ?2 AND a.epoch = ?3 AND a.state = 'live'
             ON CONFLICT (attempt) DO UPDATE SET text = substr(text || ?4, 1, ?5), cut = length(text || ?4) > ?5, at = ?6
             WHERE cut = 0",
        )
        .bind(claim.attempt.to_string())
        .bind(claim.worker.to_string())
        .bind(signed(claim.epoch))
        .bind(lines)
        .bind(most)
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn logs(&self, tenant: TenantId, job: JobId, limit: u32) -> Result<Vec<AttemptLog>, StoreError> {
        let rows = sqlx::query(
            "SELECT l.attempt, l.text, l.cut, t.kind, a.epoch, a.state, a.started_at
             FROM attempt_logs l JOIN attempts a ON a.id = l.attempt JOIN tasks t ON t.id = a.task
             WHERE l.job = ? AND a.tenant = ? ORDER BY l.attempt DESC LIMIT ?",
        )
        .bind(job.to_string())
        .bind(tenant.to_string())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::attempt_log).collect()
    }

    async fn forget_logs(&self, before: Time) -> Result<u64, StoreError> {
        let done =
            sqlx::query("DELETE FROM attempt_logs WHERE at < ?").bind(before.0).execute(&self.writer).await?;
        Ok(done.rows_affected())
    }

    async fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let rows = sqlx::query("SELECT * FROM decoder_bans ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(row::ban).collect()
    }

    async fn ban(&self, ban: &Ban) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO decoder_bans (name, reason, at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET reason = excluded.reason",
        )
        .bind(&ban.name)
        .bind(&ban.reason)
        .bind(ban.at.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn lift_ban(&self, name: &str) -> Result<bool, StoreError> {
        let done =
            sqlx::query("DELETE FROM decoder_bans WHERE name = ?").bind(name).execute(&self.writer).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn ended_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<EndedJob>, StoreError> {
        let rows = sqlx::query(
            "SELECT j.id, j.state, j.finished_at, j.media, t.name FROM jobs j JOIN tenants t ON t.id = j.tenant
             WHERE j.id > ? AND j.state IN ('succeeded', 'failed', 'canceled') ORDER BY j.id LIMIT ?",
        )
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::ended_job).collect()
    }
}
