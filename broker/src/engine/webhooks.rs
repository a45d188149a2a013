//! Webhooks: made, shown, changed; and messages made of events.

use super::{Engine, PushError};
use crate::secret::{self, fresh_id};
use crate::store::webhooks::{DeliveryRecord, ManagedWebhook, NewDelivery, Rotation, Salt, WebhookRecord};
use crate::store::{Idempotency, Once, StoreError};
use crate::webhooks::message;
use crate::webhooks::secret::Secret;
use crate::webhooks::url::{UrlError, WebhookUrl};
use mpegflow_protocol::control::{self, MAX_MANAGED_WEBHOOKS};
use mpegflow_protocol::ids::{JobId, MessageId, TenantId, WebhookId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::webhook::{
    CreateWebhook, Delivery, DeliveryPage, DeliveryState, MessageType, Webhook,
};
use mpegflow_protocol::{text, to_json};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// Webhooks that one tenant has made. What its resource manages is beside that, so that neither is in the other's way.
const MAX_WEBHOOKS: u32 = 16;
/// Secrets of one webhook: the one that signs for good, and older ones that run out.
const MAX_SECRETS: usize = 4;
/// How long an old secret may sign along.
const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Messages of one webhook that wait to be sent. Beyond that no more are made: the events are there, and the cursor waits.
const MAX_PENDING: u32 = 10_000;
/// Events that messages are made of at once.
const EVENTS: u32 = 256;
/// Webhooks that are looked at in one round.
const ROUND: u32 = 64;

/// Why a webhook was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A field is wrong.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tenant has no such webhook or message.
    #[error("there is no such webhook")]
    NotFound,
    /// The tenant has too many.
    #[error("there are too many webhooks; at most {0}")]
    TooMany(u32),
    /// The tenant's resource manages it, under that name.
    #[error("the tenant's resource manages the webhook, as {0}")]
    Managed(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Another call changed it at the same time.
    #[error("the webhook was changed at the same time")]
    Changed,
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<UrlError> for WebhookError {
    fn from(error: UrlError) -> Self {
        Self::Field { field: "url", reason: error.to_string() }
    }
}

/// The answer that is kept for a repetition of a call that makes a secret: what the secret is derived from, and never the secret.
#[derive(Serialize, Deserialize)]
struct Kept {
    webhook: Webhook,
    salt: String,
}

/// Each type once and in one order; none where there is none.
fn each_once(mut types: Vec<MessageType>) -> Option<Vec<MessageType>> {
    types.sort();
    types.dedup();
    (!types.is_empty()).then_some(types)
}

impl Engine {
    /// The answer of a call that made a secret, made again.
    fn replayed(&self, answer: &[u8]) -> Result<Webhook, WebhookError> {
        let kept: Kept = serde_json::from_slice(answer).map_err(|e| {
            WebhookError::Store(StoreError::Row { table: "idempotency", reason: e.to_string() })
        })?;
        let secret = self.derive(kept.webhook.id, &Salt { salt: kept.salt, until: None });
        Ok(Webhook { secret: secret.map(|secret| secret.reveal()), ..kept.webhook })
    }

    fn kept(&self, webhook: &WebhookRecord) -> Vec<u8> {
        let salt = webhook.salts.first().map(|salt| salt.salt.clone()).unwrap_or_default();
        to_json(&Kept { webhook: self.show(webhook, None), salt })
    }

    fn salt() -> Result<String, WebhookError> {
        let random = secret::random().map_err(|_| WebhookError::Randomness)?;
        Ok(secret::hex(random.get(..16).ok_or(WebhookError::Randomness)?))
    }

    /// The secrets that sign a webhook's messages now, the newest first.
    pub(crate) fn signing(&self, webhook: &WebhookRecord) -> Vec<Secret> {
        let now = self.now().0;
        let live = webhook.salts.iter().filter(|salt| salt.until.is_none_or(|until| until > now));
        live.filter_map(|salt| self.derive(webhook.id, salt)).collect()
    }

    fn derive(&self, webhook: WebhookId, salt: &Salt) -> Option<Secret> {
        let digits = u128::from_str_radix(&salt.salt, 16).ok()?;
        Some(self.webhook_secrets.derive(webhook, &digits.to_be_bytes()))
    }

    fn show(&self, webhook: &WebhookRecord, secret: Option<Secret>) -> Webhook {
        Webhook {
            id: webhook.id,
            url: webhook.url.clone(),
            types: webhook.types.clone(),
            description: webhook.description.clone(),
            managed: webhook.managed.clone(),
            enabled: webhook.disabled.is_none(),
            disabled_reason: webhook.disabled.map(|d| d.as_str().into()),
            secret: secret.map(|secret| secret.reveal()),
            secrets: u32::try_from(self.signing(webhook).len()).unwrap_or(u32::MAX),
            created_at: webhook.created_at.rfc3339(),
            last_success_at: webhook.succeeded_at.map(|t| t.rfc3339()),
        }
    }

    /// Makes a webhook; the answer is the only one with its secret.
    ///
    /// # Errors
    /// A field is wrong, or there are too many.
    pub async fn create_webhook(
        &self,
        tenant: TenantId,
        wanted: CreateWebhook,
        once: Option<&Idempotency>,
    ) -> Result<Webhook, WebhookError> {
        WebhookUrl::parse(&wanted.url, &self.webhook_policy)?;
        let types = each_once(wanted.types.unwrap_or_else(|| MessageType::ALL.to_vec()));
        let types = types.ok_or_else(|| WebhookError::Field {
            field: "types",
            reason: "name one at least, or leave it out for all".into(),
        })?;
        if wanted.description.as_ref().is_some_and(|text| !text::is_label(text, 255)) {
            return Err(WebhookError::Field {
                field: "description",
                reason: "1 to 255 printable characters".into(),
            });
        }
        let webhook = WebhookRecord {
            id: fresh_id(),
            tenant,
            url: wanted.url,
            types,
            description: wanted.description,
            managed: None,
            disabled: None,
            cursor: self.store.last_event(tenant).await?,
            salts: vec![Salt { salt: Self::salt()?, until: None }],
            created_at: self.now(),
            succeeded_at: None,
        };
        match self.store.add_webhook(&webhook, MAX_WEBHOOKS, once, &self.kept(&webhook)).await? {
            Once::Done(true) => {}
            Once::Done(false) => return Err(WebhookError::TooMany(MAX_WEBHOOKS)),
            Once::Replay(answer) => return self.replayed(&answer),
            Once::Mismatch => return Err(WebhookError::KeyReused),
        }
        let secret = self.signing(&webhook).into_iter().next();
        tracing::info!(%tenant, webhook = %webhook.id, "a webhook was made");
        Ok(self.show(&webhook, secret))
    }

    /// Checks the webhooks that a tenant's resource names, as those that tenants make themselves are, and gives each what it begins with.
    pub(super) fn managed_webhooks(
        &self,
        wanted: Vec<control::Webhook>,
    ) -> Result<Vec<ManagedWebhook>, PushError> {
        let names = wanted.iter().map(|webhook| &*webhook.name);
        super::cluster::named("webhooks", wanted.len(), MAX_MANAGED_WEBHOOKS, names)?;
        let mut managed = Vec::with_capacity(wanted.len());
        for control::Webhook { name, url, types } in wanted {
            let wrong = |field: &str, reason: String| PushError::Field {
                field: format!("webhooks[{name}].{field}"),
                reason,
            };
            WebhookUrl::parse(&url, &self.webhook_policy).map_err(|e| wrong("url", e.to_string()))?;
            let types = each_once(types).ok_or_else(|| wrong("types", "name one at least".into()))?;
            let salt = Self::salt().map_err(|_| PushError::Randomness)?;
            managed.push(ManagedWebhook {
                name,
                url,
                types,
                id: fresh_id(),
                salt: Salt { salt, until: None },
            });
        }
        Ok(managed)
    }

    /// The tenant's webhooks.
    ///
    /// # Errors
    /// The store failed.
    pub async fn webhooks(&self, tenant: TenantId) -> Result<Vec<Webhook>, WebhookError> {
        Ok(self.store.webhooks(tenant).await?.iter().map(|webhook| self.show(webhook, None)).collect())
    }

    async fn find_webhook(&self, tenant: TenantId, id: WebhookId) -> Result<WebhookRecord, WebhookError> {
        self.store.webhook(tenant, id).await?.ok_or(WebhookError::NotFound)
    }

    /// A webhook of the tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn webhook(&self, tenant: TenantId, id: WebhookId) -> Result<Webhook, WebhookError> {
        Ok(self.show(&self.find_webhook(tenant, id).await?, None))
    }

    /// Gives a webhook a new secret; the answer is the only one with it. The old ones sign along for `overlap`.
    ///
    /// # Errors
    /// There is none, or another call was faster.
    pub async fn rotate_webhook(
        &self,
        tenant: TenantId,
        id: WebhookId,
        overlap: Duration,
        once: Option<&Idempotency>,
    ) -> Result<Webhook, WebhookError> {
        if overlap > MAX_OVERLAP {
            let reason = format!("at most {} seconds", MAX_OVERLAP.as_secs());
            return Err(WebhookError::Field { field: "overlap_s", reason });
        }
        let mut webhook = self.find_webhook(tenant, id).await?;
        let now = self.now();
        let until = now.plus_ms(u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX)).0;
        let old = webhook.salts.clone();
        let mut salts = vec![Salt { salt: Self::salt()?, until: None }];
        salts.extend(old.iter().filter_map(|salt| {
            let until = salt.until.map_or(until, |earlier| earlier.min(until));
            (until > now.0).then(|| Salt { salt: salt.salt.clone(), until: Some(until) })
        }));
        salts.truncate(MAX_SECRETS);
        webhook.salts = salts;
        let answer = self.kept(&webhook);
        let rotation = Rotation { old: &old, new: &webhook.salts, answer: &answer, now };
        match self.store.set_salts(tenant, id, &rotation, once).await? {
            Once::Done(true) => {}
            Once::Done(false) => return Err(WebhookError::Changed),
            Once::Replay(answer) => return self.replayed(&answer),
            Once::Mismatch => return Err(WebhookError::KeyReused),
        }
        tracing::info!(%tenant, webhook = %id, "a webhook has a new secret");
        let secret = self.signing(&webhook).into_iter().next();
        Ok(self.show(&webhook, secret))
    }

    /// Enables a webhook. One that was disabled hears of what happens from now on, and of messages that were not given up.
    ///
    /// # Errors
    /// There is none.
    pub async fn enable_webhook(
        &self,
        tenant: TenantId,
        id: WebhookId,
        once: Option<&Idempotency>,
    ) -> Result<Webhook, WebhookError> {
        let last = self.store.last_event(tenant).await?;
        match self.store.enable_webhook(tenant, id, last, once, self.now()).await? {
            Once::Done(true) | Once::Replay(_) => self.webhook(tenant, id).await,
            Once::Done(false) => Err(WebhookError::NotFound),
            Once::Mismatch => Err(WebhookError::KeyReused),
        }
    }

    /// Deletes a webhook, with the messages to it.
    ///
    /// # Errors
    /// There is none, or the tenant's resource manages it.
    pub async fn delete_webhook(&self, tenant: TenantId, id: WebhookId) -> Result<(), WebhookError> {
        if let Some(name) = self.find_webhook(tenant, id).await?.managed {
            return Err(WebhookError::Managed(name));
        }
        if self.store.delete_webhook(tenant, id).await? { Ok(()) } else { Err(WebhookError::NotFound) }
    }

    /// A page of the messages to a webhook, latest first.
    ///
    /// # Errors
    /// There is no such webhook.
    pub async fn deliveries(
        &self,
        tenant: TenantId,
        id: WebhookId,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<DeliveryPage, WebhookError> {
        self.find_webhook(tenant, id).await?;
        let mut found = self.store.deliveries(tenant, id, after, limit.saturating_add(1)).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next = if more { found.last().map(|d| d.id) } else { None };
        Ok(DeliveryPage { deliveries: found.iter().map(delivery).collect(), next })
    }

    /// Has a message sent again; the answer as JSON.
    ///
    /// # Errors
    /// There is none.
    pub async fn redeliver(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        id: MessageId,
        once: Option<&Idempotency>,
    ) -> Result<Vec<u8>, WebhookError> {
        let tell = |record: &DeliveryRecord| to_json(&delivery(record));
        let once = once.map(|once| (once, &tell as _));
        match self.store.redeliver(tenant, webhook, id, once, self.now()).await? {
            Once::Done(Some(record)) => Ok(tell(&record)),
            Once::Done(None) => Err(WebhookError::NotFound),
            Once::Replay(answer) => Ok(answer),
            Once::Mismatch => Err(WebhookError::KeyReused),
        }
    }

    /// Makes messages of the events that webhooks have before them; how many.
    ///
    /// # Errors
    /// The store failed; what was made stays.
    pub async fn fan_out(&self) -> Result<u64, StoreError> {
        let mut made = 0_u64;
        for webhook in self.store.webhooks_behind(ROUND, MAX_PENDING).await? {
            // Before the events: what comes in between is for the next round.
            let head = self.store.last_event(webhook.tenant).await?;
            let events = self.store.events(webhook.tenant, None, webhook.cursor, EVENTS).await?;
            // Without one, all up to there were erased.
            let last = events.last().map_or(head, |event| event.seq);
            let mut specs: HashMap<JobId, Option<JobSpec>> = HashMap::new();
            let mut new = Vec::new();
            for event in &events {
                let Some(kind) = message::type_of(event.kind, event.state) else { continue };
                if !webhook.types.contains(&kind) {
                    continue;
                }
                if let std::collections::hash_map::Entry::Vacant(entry) = specs.entry(event.job) {
                    entry.insert(self.store.job(webhook.tenant, event.job).await?.map(|view| view.job.spec));
                }
                let spec = specs.get(&event.job).and_then(Option::as_ref);
                let at = event.at.rfc3339();
                let body = message::body(kind, event.job, event.state, &at, spec, event.failure.as_ref());
                // JSON is UTF-8.
                let body = String::from_utf8_lossy(&body).into_owned();
                new.push(NewDelivery { id: fresh_id(), kind, job: event.job, body });
            }
            // Another sender may have been faster; then it has made them.
            if self.store.fan_out(webhook.id, webhook.cursor, last, &new, self.now()).await? {
                made = made.saturating_add(u64::try_from(new.len()).unwrap_or(0));
            }
        }
        Ok(made)
    }
}

fn delivery(record: &DeliveryRecord) -> Delivery {
    Delivery {
        id: record.id,
        kind: record.kind,
        job: record.job,
        state: record.state,
        attempts: record.attempts,
        next_attempt_at: (record.state == DeliveryState::Pending).then(|| record.next_at.rfc3339()),
        last_status: record.last_status,
        last_error: record.last_error.clone(),
        created_at: record.created_at.rfc3339(),
        ended_at: record.ended_at.map(|t| t.rfc3339()),
    }
}
