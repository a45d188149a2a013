//! Webhooks and the messages to them.

use super::{SqliteStore, uploads};
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
use sqlx::{Sqlite, Transaction};

/// Makes a tenant's managed webhooks those of its resource.
pub(super) async fn manage(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    wanted: &[ManagedWebhook],
    now: Time,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT * FROM webhooks WHERE tenant = ? AND managed IS NOT NULL ORDER BY id")
        .bind(tenant.to_string())
        .fetch_all(&mut **tx)
        .await?;
    let here = rows.iter().map(row::webhook).collect::<Result<Vec<_>, _>>()?;
    for change in changes(&here, wanted, |here| here.id, |here, wanted| wanted.is(here)) {
        match change {
            Change::Delete(id) => drop(delete(tx, tenant, id).await?),
            // Another address is a new beginning: why the old one was disabled says nothing of it.
            Change::Update(id, to) => {
                sqlx::query(
                    "UPDATE webhooks SET url = ?2, types = ?3,
                         cursor = CASE WHEN disabled IS NULL OR url = ?2 THEN cursor
                             ELSE max(cursor, (SELECT event_seq FROM tenants t WHERE t.id = webhooks.tenant)) END,
                         disabled = CASE WHEN url = ?2 THEN disabled END
                     WHERE id = ?1",
                )
                .bind(id.to_string())
                .bind(&to.url)
                .bind(json(&to.types))
                .execute(&mut **tx)
                .await?;
            }
            Change::Add(new) => {
                sqlx::query(
                    "INSERT INTO webhooks (id, tenant, url, types, managed, cursor, secrets, created_at)
                     SELECT ?1, id, ?3, ?4, ?5, event_seq, ?6, ?7 FROM tenants WHERE id = ?2",
                )
                .bind(new.id.to_string())
                .bind(tenant.to_string())
                .bind(&new.url)
                .bind(json(&new.types))
                .bind(&new.name)
                .bind(json(&[&new.salt]))
                .bind(now.0)
                .execute(&mut **tx)
                .await?;
            }
        }
    }
    Ok(())
}

async fn delete(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: TenantId,
    id: WebhookId,
) -> Result<bool, StoreError> {
    sqlx::query(
        "DELETE FROM deliveries WHERE webhook = (SELECT id FROM webhooks WHERE tenant = ? AND id = ?)",
    )
    .bind(tenant.to_string())
    .bind(id.to_string())
    .execute(&mut **tx)
    .await?;
    let done = sqlx::query("DELETE FROM webhooks WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[async_trait]
impl Webhooks for SqliteStore {
    async fn add_webhook(
        &self,
        new: &WebhookRecord,
        most: u32,
        once: Option<&Idempotency>,
        answer: &[u8],
    ) -> Result<Once<bool>, StoreError> {
        let mut tx = self.write().await?;
        if let Some(seen) = uploads::seen(&mut tx, new.tenant, once).await? {
            return Ok(seen);
        }
        let added = sqlx::query(
            "INSERT INTO webhooks (id, tenant, url, types, description, cursor, secrets, created_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
             WHERE (SELECT count(*) FROM webhooks WHERE tenant = ?2 AND managed IS NULL) < ?9",
        )
        .bind(new.id.to_string())
        .bind(new.tenant.to_string())
        .bind(&new.url)
        .bind(json(&new.types))
        .bind(&new.description)
        .bind(signed(new.cursor))
        .bind(json(&new.salts))
        .bind(new.created_at.0)
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

    async fn webhooks(&self, tenant: TenantId) -> Result<Vec<WebhookRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM webhooks WHERE tenant = ? ORDER BY id")
            .bind(tenant.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(row::webhook).collect()
    }

    async fn webhook(&self, tenant: TenantId, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM webhooks WHERE tenant = ? AND id = ?")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(row::webhook).transpose()
    }

    async fn set_salts(
        &self,
        tenant: TenantId,
        id: WebhookId,
        rotation: &Rotation<'_>,
        once: Option<&Idempotency>,
    ) -> Result<Once<bool>, StoreError> {
        let mut tx = self.write().await?;
        if let Some(seen) = uploads::seen(&mut tx, tenant, once).await? {
            return Ok(seen);
        }
        let done = sqlx::query("UPDATE webhooks SET secrets = ? WHERE tenant = ? AND id = ? AND secrets = ?")
            .bind(json(&rotation.new))
            .bind(tenant.to_string())
            .bind(id.to_string())
            .bind(json(&rotation.old))
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(&mut tx, tenant, once, rotation.answer, rotation.now).await?;
        tx.commit().await?;
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
        let mut tx = self.write().await?;
        if let Some(seen) = uploads::seen(&mut tx, tenant, once).await? {
            return Ok(seen);
        }
        let done = sqlx::query(
            "UPDATE webhooks SET cursor = CASE WHEN disabled IS NULL THEN cursor ELSE max(cursor, ?) END, disabled = NULL
             WHERE tenant = ? AND id = ?",
        )
        .bind(signed(cursor))
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(Once::Done(false));
        }
        uploads::keep(&mut tx, tenant, once, b"", now).await?;
        tx.commit().await?;
        Ok(Once::Done(true))
    }

    async fn delete_webhook(&self, tenant: TenantId, id: WebhookId) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let found = delete(&mut tx, tenant, id).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn webhooks_behind(&self, limit: u32, most_pending: u32) -> Result<Vec<WebhookRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.* FROM webhooks w JOIN tenants t ON t.id = w.tenant
             WHERE w.disabled IS NULL AND w.cursor < t.event_seq
               AND (SELECT count(*) FROM deliveries d WHERE d.webhook = w.id AND d.state = 'pending') < ?
             ORDER BY w.id LIMIT ?",
        )
        .bind(most_pending)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
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
        let mut tx = self.write().await?;
        let moved =
            sqlx::query("UPDATE webhooks SET cursor = ? WHERE id = ? AND cursor = ? AND disabled IS NULL")
                .bind(signed(to))
                .bind(id.to_string())
                .bind(signed(from))
                .execute(&mut *tx)
                .await?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        for delivery in new {
            sqlx::query(
                "INSERT INTO deliveries (id, webhook, type, job, body, state, next_at, created_at)
                 VALUES (?, ?, ?, ?, ?, 'pending', ?, ?)",
            )
            .bind(delivery.id.to_string())
            .bind(id.to_string())
            .bind(delivery.kind.as_str())
            .bind(delivery.job.to_string())
            .bind(&delivery.body)
            .bind(now.0)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn claim_deliveries(
        &self,
        now: Time,
        until: Time,
        limit: u32,
        each: u32,
        busy: &[WebhookId],
    ) -> Result<Vec<(DeliveryRecord, WebhookRecord)>, StoreError> {
        let busy: Vec<String> = busy.iter().map(WebhookId::to_string).collect();
        let due = "SELECT id FROM (
                SELECT d.id, d.next_at, row_number() OVER (PARTITION BY d.webhook ORDER BY d.next_at, d.id) AS place
                FROM deliveries d JOIN webhooks w ON w.id = d.webhook AND w.disabled IS NULL
                WHERE d.state = 'pending' AND d.next_at <= ?1 AND d.webhook NOT IN (SELECT value FROM json_each(?2))
            ) WHERE place <= ?3 ORDER BY next_at, id LIMIT ?4";
        // Most often nothing is due: the writer is for those who write.
        let any = sqlx::query(due).bind(now.0).bind(json(&busy)).bind(each).bind(limit);
        if any.fetch_optional(&self.readers).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut tx = self.write().await?;
        let ids =
            sqlx::query(due).bind(now.0).bind(json(&busy)).bind(each).bind(limit).fetch_all(&mut *tx).await?;
        let mut claimed = Vec::with_capacity(ids.len());
        for row in &ids {
            let row = sqlx::query(
                "UPDATE deliveries SET attempts = attempts + 1, next_at = ? WHERE id = ? RETURNING *",
            )
            .bind(until.0)
            .bind(Cells::of("deliveries", row).text("id")?)
            .fetch_one(&mut *tx)
            .await?;
            let delivery = row::delivery(&row)?;
            let webhook = sqlx::query("SELECT * FROM webhooks WHERE id = ?")
                .bind(delivery.webhook.to_string())
                .fetch_one(&mut *tx)
                .await?;
            claimed.push((delivery, row::webhook(&webhook)?));
        }
        tx.commit().await?;
        Ok(claimed)
    }

    async fn end_attempt(
        &self,
        id: MessageId,
        attempt: u32,
        end: &AttemptEnd,
        now: Time,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let ended = sqlx::query(
            "UPDATE deliveries SET state = ?, next_at = ?, last_status = ?, last_error = ?, ended_at = ?
             WHERE id = ? AND attempts = ? AND state = 'pending' RETURNING webhook, created_at",
        )
        .bind(end.state.as_str())
        .bind(end.next_at.0)
        .bind(end.status)
        .bind(&end.error)
        .bind((end.state != DeliveryState::Pending).then_some(now.0))
        .bind(id.to_string())
        .bind(attempt)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = ended else { return Ok(false) };
        let cells = Cells::of("deliveries", &row);
        let webhook = cells.text("webhook")?;
        if end.state == DeliveryState::Delivered {
            sqlx::query("UPDATE webhooks SET succeeded_at = ? WHERE id = ?")
                .bind(now.0)
                .bind(webhook)
                .execute(&mut *tx)
                .await?;
        }
        if let Some(disable) = end.disable {
            // One that took a later message is not failing.
            sqlx::query(
                "UPDATE webhooks SET disabled = ?1 WHERE id = ?2 AND disabled IS NULL
                 AND (?1 = 'gone' OR succeeded_at IS NULL OR succeeded_at < ?3)",
            )
            .bind(disable.as_str())
            .bind(webhook)
            .bind(cells.time("created_at")?.0)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn deliveries(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.* FROM deliveries d JOIN webhooks w ON w.id = d.webhook AND w.tenant = ?1
             WHERE d.webhook = ?2 AND (?3 IS NULL OR d.id < ?3) ORDER BY d.id DESC LIMIT ?4",
        )
        .bind(tenant.to_string())
        .bind(webhook.to_string())
        .bind(after.map(|id| id.to_string()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
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
        let mut tx = self.write().await?;
        if let Some(seen) = uploads::seen(&mut tx, tenant, once.map(|(once, _)| once)).await? {
            return Ok(seen);
        }
        // The number of attempts begins anew only where none is under way: its end would count for the new one.
        let row = sqlx::query(
            "UPDATE deliveries SET attempts = CASE WHEN state = 'pending' THEN attempts ELSE 0 END, state = 'pending',
                 next_at = CASE WHEN state = 'pending' THEN min(next_at, ?4) ELSE ?4 END, ended_at = NULL
             WHERE id = ?3 AND webhook = (SELECT id FROM webhooks WHERE tenant = ?1 AND id = ?2) RETURNING *",
        )
        .bind(tenant.to_string())
        .bind(webhook.to_string())
        .bind(id.to_string())
        .bind(now.0)
        .fetch_optional(&mut *tx)
        .await?;
        let again = row.as_ref().map(row::delivery).transpose()?;
        if let (Some(again), Some((once, tell))) = (&again, once) {
            uploads::keep(&mut tx, tenant, Some(once), &tell(again), now).await?;
        }
        tx.commit().await?;
        Ok(Once::Done(again))
    }

    async fn forget_deliveries(&self, before: Time) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM deliveries WHERE state <> 'pending' AND ended_at < ?")
            .bind(before.0)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected())
    }
}
