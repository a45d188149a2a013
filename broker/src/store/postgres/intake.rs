//! The intake.

use super::conn::Conn;
use super::query::Query;
use super::{PostgresStore, sql, uploads};
use crate::model::Time;
use crate::store::intake::{Arrival, Intake, Looked, ManagedRule, RuleRecord, Trouble};
use crate::store::managed::{Change, changes};
use crate::store::row::{self, Cells, json};
use crate::store::{Idempotency, Once, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, RuleId, TenantId};

/// Whether no job was made of the object as it is, or of a newer one; `None` where the tenant has no such rule. The tenant's lock is held:
/// of many who ask at once, each sees what the one before has done.
pub(super) async fn is_new(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    arrival: &Arrival,
) -> Result<Option<bool>, StoreError> {
    let row = store
        .sql(sql::IS_NEW)
        .bind(tenant.to_string())
        .bind(arrival.rule.to_string())
        .bind(&arrival.bucket)
        .bind(&arrival.object)
        .bind(&arrival.version)
        .bind(arrival.modified)
        .bind(arrival.sequencer.as_deref())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok(!Cells::of("intake_objects", &row).flag("known")?)).transpose()
}

/// Notes an object with the job that was made of it.
pub(super) async fn keep(
    store: &PostgresStore,
    conn: &mut Conn,
    arrival: &Arrival,
    job: Option<JobId>,
    now: Time,
) -> Result<(), StoreError> {
    store
        .sql(sql::KEEP_ARRIVAL)
        .bind(arrival.rule.to_string())
        .bind(&arrival.bucket)
        .bind(&arrival.object)
        .bind(&arrival.version)
        .bind(arrival.modified)
        .bind(arrival.sequencer.as_deref())
        .bind(job.map(|job| job.to_string()))
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(())
}

async fn note(
    store: &PostgresStore,
    conn: &mut Conn,
    rule: RuleId,
    trouble: &Trouble,
) -> Result<(), StoreError> {
    let query = store.sql(sql::NOTE_TROUBLE).bind(rule.to_string()).bind(&trouble.reason);
    query.bind(trouble.key.as_deref()).bind(trouble.at.0).execute(conn).await?;
    Ok(())
}

/// Makes a tenant's managed rules those of its resource. What is known of objects stays with a rule that changes, but for what was refused.
/// The tenant's lock is held.
pub(super) async fn manage(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    wanted: &[ManagedRule],
    now: Time,
) -> Result<(), StoreError> {
    let rows = store.sql(sql::MANAGED_RULES).bind(tenant.to_string()).fetch_all(conn).await?;
    let here = rows.iter().map(row::managed_rule).collect::<Result<Vec<_>, _>>()?;
    for change in changes(&here, wanted, |here| here.id, |here, wanted| wanted.is(here)) {
        match change {
            Change::Delete(id) => drop(delete(store, conn, tenant, id).await?),
            Change::Update(id, to) => {
                let update = store.sql(sql::UPDATE_MANAGED_RULE).bind(id.to_string());
                put(update, to, now).execute(conn).await?;
                store.sql(sql::DELETE_REFUSED).bind(id.to_string()).execute(conn).await?;
            }
            Change::Add(new) => {
                let add = store.sql(sql::ADD_MANAGED_RULE).bind(new.id.to_string());
                put(add, new, now).bind(tenant.to_string()).bind(&new.name).execute(conn).await?;
            }
        }
    }
    Ok(())
}

/// What a managed rule says, from the statement's second parameter on.
fn put<'a>(query: Query<'a>, rule: &ManagedRule, now: Time) -> Query<'a> {
    query
        .bind(&rule.prefix)
        .bind(&rule.suffix)
        .bind(&rule.job)
        .bind(rule.poll_seconds.map(i64::from))
        .bind(rule.existing)
        .bind(now.0)
}

async fn delete(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    id: RuleId,
) -> Result<bool, StoreError> {
    let query = store.sql(sql::DELETE_RULE).bind(tenant.to_string()).bind(id.to_string());
    let found = query.execute(conn).await?.rows_affected() == 1;
    if found {
        store.sql(sql::DELETE_ARRIVALS).bind(id.to_string()).execute(conn).await?;
    }
    Ok(found)
}

#[async_trait]
impl Intake for PostgresStore {
    async fn add_rule(
        &self,
        new: &RuleRecord,
        most: u32,
        once: Option<&Idempotency>,
        answer: &[u8],
    ) -> Result<Once<bool>, StoreError> {
        // The tenant's lock makes the count exact and lets a repetition wait for the first.
        let mut conn = uploads::lock_tenant(self, new.tenant).await?;
        if let Some(seen) = uploads::seen(self, &mut conn, new.tenant, once).await? {
            return Ok(seen);
        }
        let added = self
            .sql(sql::ADD_RULE)
            .bind(new.id.to_string())
            .bind(new.tenant.to_string())
            .bind(&new.prefix)
            .bind(&new.suffix)
            .bind(json(&new.job))
            .bind(new.poll_seconds.map(i64::from))
            .bind(new.existing)
            .bind(new.created_at.0)
            .bind(new.next_look_at.map(|t| t.0))
            .bind(i64::from(most))
            .execute(&mut conn)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(self, &mut conn, new.tenant, once, answer, new.created_at).await?;
        conn.done().await?;
        Ok(Once::Done(true))
    }

    async fn rules(&self, tenant: TenantId) -> Result<Vec<RuleRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::RULES).bind(tenant.to_string()).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::rule).collect()
    }

    async fn delete_rule(&self, tenant: TenantId, id: RuleId) -> Result<bool, StoreError> {
        // No job is made by it meanwhile.
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        let found = delete(self, &mut conn, tenant, id).await?;
        conn.done().await?;
        Ok(found)
    }

    async fn look_again(&self, tenant: TenantId, id: RuleId, now: Time) -> Result<bool, StoreError> {
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        let query = self.sql(sql::LOOK_AGAIN).bind(tenant.to_string()).bind(id.to_string());
        let found = query.bind(now.0).execute(&mut conn).await?.rows_affected() == 1;
        if found {
            self.sql(sql::DELETE_REFUSED).bind(id.to_string()).execute(&mut conn).await?;
        }
        conn.done().await?;
        Ok(found)
    }

    async fn heard(
        &self,
        rule: RuleId,
        bucket: &str,
        object: &str,
        sequencer: &str,
    ) -> Result<bool, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::HEARD).bind(rule.to_string()).bind(bucket).bind(object).bind(sequencer);
        let found = query.fetch_optional(&mut conn).await?;
        conn.done().await?;
        Ok(found.is_some())
    }

    async fn known(
        &self,
        rule: RuleId,
        bucket: &str,
        objects: &[String],
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::KNOWN_OBJECTS).bind(rule.to_string()).bind(bucket).bind(objects.to_vec());
        let rows = query.fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::known_object).collect()
    }

    async fn refuse(&self, arrival: &Arrival, trouble: &Trouble) -> Result<bool, StoreError> {
        let mut conn = self.conn().await?;
        let row = self.sql(sql::TENANT_OF_RULE).bind(arrival.rule.to_string());
        let row = row.fetch_optional(&mut conn).await?;
        conn.done().await?;
        let Some(row) = row else { return Ok(false) };
        let tenant = Cells::of("intake_rules", &row).id("tenant")?;
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        if is_new(self, &mut conn, tenant, arrival).await? != Some(true) {
            return Ok(false);
        }
        keep(self, &mut conn, arrival, None, trouble.at).await?;
        note(self, &mut conn, arrival.rule, trouble).await?;
        conn.done().await?;
        Ok(true)
    }

    async fn note(&self, rule: RuleId, trouble: &Trouble) -> Result<(), StoreError> {
        let mut conn = self.conn().await?;
        note(self, &mut conn, rule, trouble).await?;
        conn.done().await
    }

    async fn rules_to_look(&self, now: Time, limit: u32) -> Result<Vec<RuleRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::RULES_TO_LOOK).bind(now.0).bind(i64::from(limit));
        let rows = query.fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::rule).collect()
    }

    async fn looked(&self, looked: &Looked<'_>, now: Time) -> Result<bool, StoreError> {
        let query = self.sql(sql::LOOKED).bind(looked.rule.to_string()).bind(looked.from).bind(looked.to);
        let query = query.bind(looked.next_at.map(|t| t.0)).bind(looked.problem).bind(now.0);
        Ok(self.change(query).await? == 1)
    }

    async fn forget_arrivals(&self, modified: i64, noted: Time) -> Result<u64, StoreError> {
        self.change(self.sql(sql::FORGET_ARRIVALS).bind(noted.0).bind(modified)).await
    }
}
