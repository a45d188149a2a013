//! Pools of a cluster, pods and verdicts.

use super::{PostgresStore, intake, sql, storage, webhooks};
use crate::audit::chain;
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
impl Identities for PostgresStore {
    async fn put_pool(&self, pool: &PoolRecord) -> Result<Pushed, StoreError> {
        let mut tx = self.begin().await?;
        // Two operators at once, one of them late, must not both find nothing.
        self.sql(sql::LOCK_POOLS).execute(&mut tx).await?;
        let rows = self
            .sql(sql::RIVAL_POOLS)
            .bind(pool.name.as_str())
            .bind(&pool.account.namespace)
            .bind(&pool.account.name)
            .fetch_all(&mut tx)
            .await?;
        for row in &rows {
            if let Some(no) = pool.conflicts(&row::pool(row)?) {
                return Ok(no);
            }
        }
        if let Some(tenant) = pool.tenant {
            let known = self.sql(sql::TENANT_BY_ID).bind(tenant.to_string());
            if known.fetch_optional(&mut tx).await?.is_none() {
                return Ok(Pushed::Missing("tenant"));
            }
        }
        self.sql(sql::PUT_POOL)
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
            .execute(&mut tx)
            .await?;
        tx.done().await?;
        Ok(Pushed::Done)
    }

    async fn delete_pool(&self, name: &PoolName, uid: &str) -> Result<bool, StoreError> {
        Ok(self.change(self.sql(sql::DELETE_POOL).bind(name.as_str()).bind(uid)).await? == 1)
    }

    async fn pools(&self) -> Result<Vec<PoolRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::POOLS).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::pool).collect()
    }

    async fn pool_of(&self, account: &Account) -> Result<Option<PoolRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::POOL_OF).bind(&account.namespace).bind(&account.name);
        let row = query.fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.as_ref().map(row::pool).transpose()
    }

    async fn put_tenant(&self, tenant: &PushedTenant, now: Time) -> Result<Pushed, StoreError> {
        let mut tx = self.begin().await?;
        self.sql(sql::LOCK_POOLS).execute(&mut tx).await?;
        let rows = self
            .sql(sql::RIVAL_TENANTS)
            .bind(tenant.id.to_string())
            .bind(&tenant.name)
            .fetch_all(&mut tx)
            .await?;
        for row in &rows {
            if let Some(no) = row::tenant_conflict(row, tenant)? {
                return Ok(no);
            }
        }
        if rows.is_empty() {
            let add = self.sql(sql::ADD_TENANT).bind(tenant.id.to_string()).bind(&tenant.name).bind(now.0);
            add.bind(chain::genesis(tenant.id).as_slice()).execute(&mut tx).await?;
        }
        self.sql(sql::PUT_TENANT)
            .bind(tenant.id.to_string())
            .bind(i64::from(tenant.weight))
            .bind(json(&row::pushed_limits(rows.first(), tenant)?))
            .bind(&tenant.uid)
            .bind(signed(tenant.generation))
            .execute(&mut tx)
            .await?;
        if let Err(no) = storage::put(self, &mut tx, tenant.id, tenant.storage.as_ref(), false).await? {
            return Ok(Pushed::Storage(no));
        }
        webhooks::manage(self, &mut tx, tenant.id, &tenant.webhooks, now).await?;
        intake::manage(self, &mut tx, tenant.id, &tenant.rules, now).await?;
        tx.done().await?;
        Ok(Pushed::Done)
    }

    async fn add_pod(
        &self,
        worker: &PodWorker,
        most: u64,
        expires: Time,
        now: Time,
    ) -> Result<PodAdded, StoreError> {
        let mut tx = self.begin().await?;
        // One pod at a time for each pool: the count below is then right, and a pod cannot race itself.
        self.sql(sql::LOCK_ENROLMENT).bind(worker.pool.as_str()).execute(&mut tx).await?;
        let row = self.sql(sql::POD_WORKER).bind(worker.id.to_string()).fetch_optional(&mut tx).await?;
        if let Some(row) = row
            && let Some(no) = row::pod_conflict(&row, worker)?
        {
            return Ok(no);
        }
        let row = self
            .sql(sql::OTHER_WORKERS)
            .bind(worker.pool.as_str())
            .bind(worker.id.to_string())
            .bind(now.0)
            .fetch_one(&mut tx)
            .await?;
        if Cells::of("workers", &row).number("n")? >= most {
            return Ok(PodAdded::TooMany);
        }
        self.sql(sql::ADD_POD)
            .bind(worker.id.to_string())
            .bind(worker.pool.as_str())
            .bind(worker.tenant.map(|t| t.to_string()))
            .bind(&worker.pod)
            .bind(&worker.node)
            .bind(worker.key.as_slice())
            .bind(now.0)
            .bind(expires.0)
            .execute(&mut tx)
            .await?;
        tx.done().await?;
        Ok(PodAdded::Done)
    }

    async fn workers(&self, now: Time) -> Result<Vec<(PoolName, WorkerSeen)>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::POOL_WORKERS).bind(now.0).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::worker_seen).collect()
    }

    async fn cordon(
        &self,
        pool: &PoolName,
        ids: &[WorkerId],
        now: Time,
    ) -> Result<Vec<WorkerId>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self
            .sql(sql::CORDON)
            .bind(pool.as_str())
            .bind(ids.iter().map(ToString::to_string).collect::<Vec<_>>())
            .bind(now.0)
            .fetch_all(&mut conn)
            .await?;
        conn.done().await?;
        rows.iter().map(|row| Cells::of("workers", row).id("id")).collect()
    }

    async fn uncordon(&self, pool: &PoolName) -> Result<u64, StoreError> {
        self.change(self.sql(sql::UNCORDON).bind(pool.as_str())).await
    }

    async fn retire_worker(&self, id: WorkerId, now: Time) -> Result<(), StoreError> {
        self.change(self.sql(sql::RETIRE_WORKER).bind(id.to_string()).bind(now.0)).await.map(drop)
    }

    async fn revoke_worker(&self, id: WorkerId, now: Time) -> Result<bool, StoreError> {
        Ok(self.change(self.sql(sql::REVOKE_WORKER).bind(id.to_string()).bind(now.0)).await? == 1)
    }

    async fn revoked(&self, since: Time) -> Result<Vec<WorkerId>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::REVOKED).bind(since.0).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(|row| Cells::of("workers", row).id("id")).collect()
    }

    async fn put_verdict(&self, verdict: &Verdict, now: Time) -> Result<bool, StoreError> {
        let query = self
            .sql(sql::PUT_VERDICT)
            .bind(verdict.pool.as_str())
            .bind(&verdict.policy)
            .bind(&verdict.node)
            .bind(verdict.verified)
            .bind(&verdict.reason)
            .bind(verdict.expires.0)
            .bind(now.0);
        Ok(self.change(query).await? > 0)
    }

    async fn verdicts(&self, now: Time) -> Result<Vec<Verdict>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::VERDICTS).bind(now.0).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::verdict).collect()
    }
}
