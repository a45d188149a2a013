//! Pools of a cluster, pods and verdicts.

use super::{SqliteStore, intake, storage, webhooks};
use crate::enrol::Account;
use crate::model::Time;
use crate::store::StoreError;
use crate::store::identity::{
    Identities, PodAdded, PodWorker, PoolRecord, Pushed, PushedTenant, Verdict, WorkerSeen,
};
use crate::store::row::{self, Cells, json, signed, storage_column};
use async_trait::async_trait;
use mpegflow_protocol::ids::{PoolName, WorkerId};

#[async_trait]
impl Identities for SqliteStore {
    async fn put_pool(&self, pool: &PoolRecord) -> Result<Pushed, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query("SELECT * FROM pools WHERE name = ?1 OR (namespace = ?2 AND account = ?3)")
            .bind(pool.name.as_str())
            .bind(&pool.account.namespace)
            .bind(&pool.account.name)
            .fetch_all(&mut *tx)
            .await?;
        for row in &rows {
            if let Some(no) = pool.conflicts(&row::pool(row)?) {
                return Ok(no);
            }
        }
        if let Some(tenant) = pool.tenant {
            let known = sqlx::query("SELECT 1 FROM tenants WHERE id = ?").bind(tenant.to_string());
            if known.fetch_optional(&mut *tx).await?.is_none() {
                return Ok(Pushed::Missing("tenant"));
            }
        }
        sqlx::query(
            "INSERT INTO pools (name, namespace, account, uid, generation, tenant, max_workers, closed, policy, storage)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET account = excluded.account, uid = excluded.uid, generation = excluded.generation,
                 tenant = excluded.tenant, max_workers = excluded.max_workers, closed = excluded.closed, policy = excluded.policy,
                 storage = excluded.storage",
        )
        .bind(pool.name.as_str())
        .bind(&pool.account.namespace)
        .bind(&pool.account.name)
        .bind(&pool.uid)
        .bind(signed(pool.generation))
        .bind(pool.tenant.map(|t| t.to_string()))
        .bind(signed(pool.max_workers))
        .bind(pool.closed)
        .bind(&pool.policy)
        .bind(storage_column(pool))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Pushed::Done)
    }

    async fn delete_pool(&self, name: &PoolName, uid: &str) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM pools WHERE name = ? AND uid = ?")
            .bind(name.as_str())
            .bind(uid)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 1 {
            sqlx::query("DELETE FROM verdicts WHERE pool = ?").bind(name.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn pools(&self) -> Result<Vec<PoolRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM pools ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(row::pool).collect()
    }

    async fn pool_of(&self, account: &Account) -> Result<Option<PoolRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM pools WHERE namespace = ? AND account = ?")
            .bind(&account.namespace)
            .bind(&account.name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(row::pool).transpose()
    }

    async fn put_tenant(&self, tenant: &PushedTenant, now: Time) -> Result<Pushed, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(
            "SELECT id, name, limits, pushed_uid, pushed_generation FROM tenants WHERE id = ?1 OR name = ?2",
        )
        .bind(tenant.id.to_string())
        .bind(&tenant.name)
        .fetch_all(&mut *tx)
        .await?;
        for row in &rows {
            if let Some(no) = row::tenant_conflict(row, tenant)? {
                return Ok(no);
            }
        }
        if rows.is_empty() {
            sqlx::query("INSERT INTO tenants (id, name, created_at) VALUES (?, ?, ?)")
                .bind(tenant.id.to_string())
                .bind(&tenant.name)
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query(
            "UPDATE tenants SET weight = ?, limits = ?, pushed_uid = ?, pushed_generation = ? WHERE id = ?",
        )
        .bind(tenant.weight)
        .bind(json(&row::pushed_limits(rows.first(), tenant)?))
        .bind(&tenant.uid)
        .bind(signed(tenant.generation))
        .bind(tenant.id.to_string())
        .execute(&mut *tx)
        .await?;
        if let Err(no) = storage::put(&mut tx, tenant.id, tenant.storage.as_ref(), false).await? {
            return Ok(Pushed::Storage(no));
        }
        webhooks::manage(&mut tx, tenant.id, &tenant.webhooks, now).await?;
        intake::manage(&mut tx, tenant.id, &tenant.rules, now).await?;
        tx.commit().await?;
        Ok(Pushed::Done)
    }

    async fn add_pod(
        &self,
        worker: &PodWorker,
        most: u64,
        expires: Time,
        now: Time,
    ) -> Result<PodAdded, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query("SELECT pool, key_sha256, revoked_at FROM workers WHERE id = ?")
            .bind(worker.id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = row
            && let Some(no) = row::pod_conflict(&row, worker)?
        {
            return Ok(no);
        }
        let row = sqlx::query(
            "SELECT count(*) AS n FROM workers
             WHERE pool = ? AND id <> ? AND cert_expires_at > ? AND revoked_at IS NULL AND key_sha256 IS NOT NULL",
        )
        .bind(worker.pool.as_str())
        .bind(worker.id.to_string())
        .bind(now.0)
        .fetch_one(&mut *tx)
        .await?;
        if Cells::of("workers", &row).number("n")? >= most {
            return Ok(PodAdded::TooMany);
        }
        sqlx::query(
            "INSERT INTO workers (id, pool, tenant, pod, node, key_sha256, enrolled_at, cert_expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET tenant = coalesce(tenant, excluded.tenant), pod = excluded.pod,
                 node = excluded.node, key_sha256 = excluded.key_sha256, cert_expires_at = excluded.cert_expires_at",
        )
        .bind(worker.id.to_string())
        .bind(worker.pool.as_str())
        .bind(worker.tenant.map(|t| t.to_string()))
        .bind(&worker.pod)
        .bind(&worker.node)
        .bind(worker.key.as_slice())
        .bind(now.0)
        .bind(expires.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(PodAdded::Done)
    }

    async fn workers(&self, now: Time) -> Result<Vec<(PoolName, WorkerSeen)>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.id, w.pool, w.pod, w.node, w.cordoned_at IS NOT NULL AS cordoned, w.retired_at IS NOT NULL AS retired,
                 EXISTS (SELECT 1 FROM attempts a WHERE a.worker = w.id AND a.state = 'live') AS busy
             FROM workers w JOIN pools p ON p.name = w.pool
             WHERE w.cert_expires_at > ? AND w.revoked_at IS NULL AND w.key_sha256 IS NOT NULL ORDER BY w.id",
        )
        .bind(now.0)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(row::worker_seen).collect()
    }

    async fn cordon(
        &self,
        pool: &PoolName,
        ids: &[WorkerId],
        now: Time,
    ) -> Result<Vec<WorkerId>, StoreError> {
        let mut tx = self.write().await?;
        let mut done = Vec::new();
        for id in ids {
            let changed = sqlx::query(
                "INSERT INTO workers (id, pool, enrolled_at, cert_expires_at, cordoned_at) VALUES (?1, ?2, ?3, 0, ?3)
                 ON CONFLICT (id) DO UPDATE SET cordoned_at = coalesce(cordoned_at, ?3)
                 WHERE pool = ?2 AND NOT EXISTS (SELECT 1 FROM attempts WHERE worker = ?1 AND state = 'live')",
            )
            .bind(id.to_string())
            .bind(pool.as_str())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            if changed.rows_affected() == 1 {
                done.push(*id);
            }
        }
        tx.commit().await?;
        Ok(done)
    }

    async fn uncordon(&self, pool: &PoolName) -> Result<u64, StoreError> {
        let done =
            sqlx::query("UPDATE workers SET cordoned_at = NULL WHERE pool = ? AND cordoned_at IS NOT NULL")
                .bind(pool.as_str())
                .execute(&self.writer)
                .await?;
        Ok(done.rows_affected())
    }

    async fn retire_worker(&self, id: WorkerId, now: Time) -> Result<(), StoreError> {
        sqlx::query("UPDATE workers SET retired_at = coalesce(retired_at, ?) WHERE id = ?")
            .bind(now.0)
            .bind(id.to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn revoke_worker(&self, id: WorkerId, now: Time) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE workers SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?")
            .bind(now.0)
            .bind(id.to_string())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn revoked(&self, since: Time) -> Result<Vec<WorkerId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM workers WHERE revoked_at IS NOT NULL AND revoked_at >= ?")
            .bind(since.0)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Cells::of("workers", row).id("id")).collect()
    }

    async fn put_verdict(&self, verdict: &Verdict, now: Time) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM verdicts WHERE pool = ? AND expires_at <= ?")
            .bind(verdict.pool.as_str())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        let done = sqlx::query(
            "INSERT INTO verdicts (pool, policy, node, verified, reason, expires_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM pools WHERE name = ?1)
             ON CONFLICT (pool, policy, node) DO UPDATE SET verified = excluded.verified, reason = excluded.reason,
                 expires_at = excluded.expires_at",
        )
        .bind(verdict.pool.as_str())
        .bind(&verdict.policy)
        .bind(&verdict.node)
        .bind(verdict.verified)
        .bind(&verdict.reason)
        .bind(verdict.expires.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    async fn verdicts(&self, now: Time) -> Result<Vec<Verdict>, StoreError> {
        let rows = sqlx::query("SELECT * FROM verdicts WHERE expires_at > ? ORDER BY pool, node")
            .bind(now.0)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(row::verdict).collect()
    }
}
