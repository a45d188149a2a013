//! Webhooks and the messages to them.

use super::conn::Conn;
use super::{PostgresStore, sql, uploads};
use crate::model::Time;
use crate::store::managed::{Change, changes};
use crate::store::row::{self, Cells, json, signed};
use crate::store::webhooks::{
    AttemptEnd, DeliveryRecord, ManagedWebhook, NewDelivery, Rotation, Tell, WebhookRecord, Webhooks,
};
use crate::store::{Idempotency, Once, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{MessageId, TenantId, WebhookId};
use mpegflow_protocol::webhook::DeliveryState;
use std::collections::HashMap;

/// Makes a tenant's managed webhooks those of its resource. The tenant's lock is held.
pub(super) async fn manage(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    wanted: &[ManagedWebhook],
    now: Time,
) -> Result<(), StoreError> {
    let rows = store.sql(sql::MANAGED_WEBHOOKS).bind(tenant.to_string()).fetch_all(conn).await?;
    let here = rows.iter().map(row::webhook).collect::<Result<Vec<_>, _>>()?;
    for change in changes(&here, wanted, |here| here.id, |here, wanted| wanted.is(here)) {
        match change {
            Change::Delete(id) => drop(delete(store, conn, tenant, id).await?),
            Change::Update(id, to) => {
                let query = store.sql(sql::UPDATE_MANAGED_WEBHOOK).bind(id.to_string());
                query.bind(&to.url).bind(json(&to.types)).execute(conn).await?;
            }
            Change::Add(new) => {
                store
                    .sql(sql::ADD_MANAGED_WEBHOOK)
                    .bind(new.id.to_string())
                    .bind(tenant.to_string())
                    .bind(&new.url)
                    .bind(json(&new.types))
                    .bind(&new.name)
                    .bind(json(&[&new.salt]))
                    .bind(now.0)
                    .execute(conn)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn delete(
    store: &PostgresStore,
    conn: &mut Conn,
    tenant: TenantId,
    id: WebhookId,
) -> Result<bool, StoreError> {
    // Its lock keeps a fan-out from adding messages in between.
    let lock = store.sql(sql::LOCK_WEBHOOK).bind(tenant.to_string()).bind(id.to_string());
    let found = lock.fetch_optional(conn).await?.is_some();
    if found {
        store.sql(sql::DELETE_DELIVERIES).bind(id.to_string()).execute(conn).await?;
        store.sql(sql::DELETE_WEBHOOK).bind(id.to_string()).execute(conn).await?;
    }
    Ok(found)
}

#[async_trait]
impl Webhooks for PostgresStore {
    async fn add_webhook(
        &self,
        new: &WebhookRecord,
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
            .sql(sql::ADD_WEBHOOK)
            .bind(new.id.to_string())
            .bind(new.tenant.to_string())
            .bind(&new.url)
            .bind(json(&new.types))
            .bind(&new.description)
            .bind(signed(new.cursor))
            .bind(json(&new.salts))
            .bind(new.created_at.0)
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

    async fn webhooks(&self, tenant: TenantId) -> Result<Vec<WebhookRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self.sql(sql::WEBHOOKS).bind(tenant.to_string()).fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::webhook).collect()
    }

    async fn webhook(&self, tenant: TenantId, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::WEBHOOK).bind(tenant.to_string()).bind(id.to_string());
        let row = query.fetch_optional(&mut conn).await?;
        conn.done().await?;
        row.as_ref().map(row::webhook).transpose()
    }

    async fn set_salts(
        &self,
        tenant: TenantId,
        id: WebhookId,
        rotation: &Rotation<'_>,
        once: Option<&Idempotency>,
    ) -> Result<Once<bool>, StoreError> {
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        if let Some(seen) = uploads::seen(self, &mut conn, tenant, once).await? {
            return Ok(seen);
        }
        let query = self.sql(sql::SET_SALTS).bind(tenant.to_string()).bind(id.to_string());
        let query = query.bind(json(&rotation.old)).bind(json(&rotation.new));
        if query.execute(&mut conn).await?.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(self, &mut conn, tenant, once, rotation.answer, rotation.now).await?;
        conn.done().await?;
        Ok(Once::Done(true))
    }

    async fn enable_webhook(
        &self,
        tenant: TenantId,
        id: WebhookId,
        cursor: u64,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<bool>, StoreError> {
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        if let Some(seen) = uploads::seen(self, &mut conn, tenant, once).await? {
            return Ok(seen);
        }
        let query = self.sql(sql::ENABLE_WEBHOOK).bind(tenant.to_string()).bind(id.to_string());
        if query.bind(signed(cursor)).execute(&mut conn).await?.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(self, &mut conn, tenant, once, b"", now).await?;
        conn.done().await?;
        Ok(Once::Done(true))
    }

    async fn delete_webhook(&self, tenant: TenantId, id: WebhookId) -> Result<bool, StoreError> {
        let mut conn = self.begin().await?;
        let found = delete(self, &mut conn, tenant, id).await?;
        conn.done().await?;
        Ok(found)
    }

    async fn webhooks_behind(&self, limit: u32, most_pending: u32) -> Result<Vec<WebhookRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let query = self.sql(sql::WEBHOOKS_BEHIND).bind(i64::from(most_pending)).bind(i64::from(limit));
        let rows = query.fetch_all(&mut conn).await?;
        conn.done().await?;
        rows.iter().map(row::webhook).collect()
    }

    async fn fan_out(
        &self,
        id: WebhookId,
        from: u64,
        to: u64,
        new: &[NewDelivery],
        now: Time,
    ) -> Result<bool, StoreError> {
        let text = |f: fn(&NewDelivery) -> String| new.iter().map(f).collect::<Vec<_>>();
        let mut conn = self.conn().await?;
        let row = self
            .sql(sql::FAN_OUT)
            .bind(id.to_string())
            .bind(signed(from))
            .bind(signed(to))
            .bind(text(|d| d.id.to_string()))
            .bind(text(|d| d.kind.as_str().to_owned()))
            .bind(text(|d| d.job.to_string()))
            .bind(text(|d| d.body.clone()))
            .bind(now.0)
            .fetch_one(&mut conn)
            .await?;
        conn.done().await?;
        Ok(Cells::of("webhooks", &row).number("moved")? == 1)
    }

    async fn claim_deliveries(
        &self,
        now: Time,
        until: Time,
        limit: u32,
        each: u32,
        busy: &[WebhookId],
    ) -> Result<Vec<(DeliveryRecord, WebhookRecord)>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self
            .sql(sql::CLAIM_DELIVERIES)
            .bind(now.0)
            .bind(until.0)
            .bind(i64::from(limit))
            .bind(i64::from(each))
            .bind(busy.iter().map(WebhookId::to_string).collect::<Vec<_>>())
            .fetch_all(&mut conn)
            .await?;
        let deliveries: Vec<DeliveryRecord> = rows.iter().map(row::delivery).collect::<Result<_, _>>()?;
        let mut webhooks = HashMap::new();
        if !deliveries.is_empty() {
            let ids: Vec<String> = deliveries.iter().map(|d| d.webhook.to_string()).collect();
            for row in &self.sql(sql::WEBHOOKS_BY_ID).bind(ids).fetch_all(&mut conn).await? {
                let webhook = row::webhook(row)?;
                webhooks.insert(webhook.id, webhook);
            }
        }
        conn.done().await?;
        // One that was deleted in between is gone with its messages.
        let with = |d: DeliveryRecord| webhooks.get(&d.webhook).cloned().map(|webhook| (d, webhook));
        Ok(deliveries.into_iter().filter_map(with).collect())
    }

    async fn end_attempt(
        &self,
        id: MessageId,
        attempt: u32,
        end: &AttemptEnd,
        now: Time,
    ) -> Result<bool, StoreError> {
        let mut conn = self.conn().await?;
        let row = self
            .sql(sql::END_ATTEMPT)
            .bind(id.to_string())
            .bind(i64::from(attempt))
            .bind(end.state.as_str())
            .bind(end.next_at.0)
            .bind(end.status.map(i64::from))
            .bind(&end.error)
            .bind((end.state != DeliveryState::Pending).then_some(now.0))
            .bind((end.state == DeliveryState::Delivered).then_some(now.0))
            .bind(end.disable.map(|d| d.as_str()))
            .fetch_one(&mut conn)
            .await?;
        conn.done().await?;
        Ok(Cells::of("deliveries", &row).number("ended")? == 1)
    }

    async fn deliveries(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let mut conn = self.conn().await?;
        let rows = self
            .sql(sql::DELIVERIES)
            .bind(tenant.to_string())
            .bind(webhook.to_string())
            .bind(after.map_or_else(|| "msg_~".to_owned(), |id| id.to_string()))
            .bind(i64::from(limit))
            .fetch_all(&mut conn)
            .await?;
        conn.done().await?;
        rows.iter().map(row::delivery).collect()
    }

    async fn redeliver(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        id: MessageId,
        once: Option<(&Idempotency, Tell<'_>)>,
        now: Time,
    ) -> Result<Once<Option<DeliveryRecord>>, StoreError> {
        let mut conn = uploads::lock_tenant(self, tenant).await?;
        if let Some(seen) = uploads::seen(self, &mut conn, tenant, once.map(|(once, _)| once)).await? {
            return Ok(seen);
        }
        let row = self
            .sql(sql::REDELIVER)
            .bind(tenant.to_string())
            .bind(webhook.to_string())
            .bind(id.to_string())
            .bind(now.0)
            .fetch_optional(&mut conn)
            .await?;
        let again = row.as_ref().map(row::delivery).transpose()?;
        if let (Some(again), Some((once, tell))) = (&again, once) {
            uploads::keep(self, &mut conn, tenant, Some(once), &tell(again), now).await?;
        }
        conn.done().await?;
        Ok(Once::Done(again))
    }

    async fn forget_deliveries(&self, before: Time) -> Result<u64, StoreError> {
        self.change(self.sql(sql::FORGET_DELIVERIES).bind(before.0)).await
    }
}
