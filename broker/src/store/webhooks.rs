//! What the store keeps of webhooks and of the messages to them.

use super::{Idempotency, Once, StoreError};
use crate::model::Time;
use async_trait::async_trait;
use mpegflow_protocol::ids::{JobId, MessageId, TenantId, WebhookId};
use mpegflow_protocol::webhook::{DeliveryState, MessageType};
use serde::{Deserialize, Serialize};

/// What a signing secret is derived with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt {
    /// 16 bytes as hexadecimal digits.
    pub salt: String,
    /// Until when messages are signed with it, in milliseconds since 1970; for good where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// Why a webhook is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disabled {
    /// It answered that it is gone for good.
    Gone,
    /// A message was given up, and none arrived since it was made.
    Failing,
}

impl Disabled {
    /// As the API and the database spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Its id.
    pub id: WebhookId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where messages are posted. It may hold a token: it stays out of the log.
    pub url: String,
    /// Which messages.
    pub types: Vec<MessageType>,
    /// What it is for.
    pub description: Option<String>,
    /// Its name in the resource that manages it; none where the tenant made it. Never changes.
    pub managed: Option<String>,
    /// Why no messages are sent.
    pub disabled: Option<Disabled>,
    /// The last of the tenant's events that messages were made of.
    pub cursor: u64,
    /// Its secrets, the newest first.
    pub salts: Vec<Salt>,
    /// When it was made.
    pub created_at: Time,
    /// When a message was last accepted.
    pub succeeded_at: Option<Time>,
}

/// A webhook as a tenant's resource has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedWebhook {
    /// Its name there.
    pub name: String,
    /// Where messages are posted.
    pub url: String,
    /// Which messages.
    pub types: Vec<MessageType>,
    /// The id that it gets where it is not here yet.
    pub id: WebhookId,
    /// The salt that it gets then.
    pub salt: Salt,
}

impl ManagedWebhook {
    /// Whether one that is here is as this one; `None` where it is another.
    pub(super) fn is(&self, here: &WebhookRecord) -> Option<bool> {
        let known = here.managed.as_deref() == Some(&*self.name);
        known.then(|| here.url == self.url && here.types == self.types)
    }
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id.
    pub id: MessageId,
    /// What it is about.
    pub kind: MessageType,
    /// The job.
    pub job: JobId,
    /// What it says.
    pub body: String,
}

/// A message and how its delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its id.
    pub id: MessageId,
    /// Where it goes.
    pub webhook: WebhookId,
    /// What it is about.
    pub kind: MessageType,
    /// The job.
    pub job: JobId,
    /// What it says.
    pub body: String,
    /// How it stands.
    pub state: DeliveryState,
    /// Attempts so far, with the one that a claim begins.
    pub attempts: u32,
    /// When the next attempt is due; of a claimed one, when the claim ends.
    pub next_at: Time,
    /// The HTTP status of the last answer.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When it was accepted or given up.
    pub ended_at: Option<Time>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// How the delivery stands after it.
    pub state: DeliveryState,
    /// When the next attempt is due.
    pub next_at: Time,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    /// What it says of the webhook.
    pub disable: Option<Disabled>,
}

/// New secrets of a webhook.
#[derive(Debug)]
pub struct Rotation<'a> {
    /// What they were.
    pub old: &'a [Salt],
    /// What they are.
    pub new: &'a [Salt],
    /// The answer, kept for a repetition.
    pub answer: &'a [u8],
    /// Now.
    pub now: Time,
}

/// Makes an answer of a delivery.
pub type Tell<'a> = &'a (dyn Fn(&DeliveryRecord) -> Vec<u8> + Send + Sync);

/// Webhooks and the messages to them.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Adds a webhook, unless the tenant has made `most`; whether it did. What its resource manages does not count.
    /// `answer` is kept for a repetition.
    async fn add_webhook(
        &self,
        new: &WebhookRecord,
        most: u32,
        once: Option<&Idempotency>,
        answer: &[u8],
    ) -> Result<Once<bool>, StoreError>;
    /// The tenant's webhooks, oldest first.
    async fn webhooks(&self, tenant: TenantId) -> Result<Vec<WebhookRecord>, StoreError>;
    /// A webhook of the tenant.
    async fn webhook(&self, tenant: TenantId, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError>;
    /// Replaces a webhook's secrets if they are still as they were; whether they were. Its answer is kept for a repetition.
    async fn set_salts(
        &self,
        tenant: TenantId,
        id: WebhookId,
        rotation: &Rotation<'_>,
        once: Option<&Idempotency>,
    ) -> Result<Once<bool>, StoreError>;
    /// Enables a webhook, from the event after `cursor` on where it was disabled; whether there is one.
    async fn enable_webhook(
        &self,
        tenant: TenantId,
        id: WebhookId,
        cursor: u64,
        once: Option<&Idempotency>,
        now: Time,
    ) -> Result<Once<bool>, StoreError>;
    /// Deletes a webhook with its messages; whether there was one.
    async fn delete_webhook(&self, tenant: TenantId, id: WebhookId) -> Result<bool, StoreError>;

    /// Enabled webhooks that have events before them and fewer than `most_pending` messages to send.
    async fn webhooks_behind(&self, limit: u32, most_pending: u32) -> Result<Vec<WebhookRecord>, StoreError>;
    /// Moves a webhook's cursor from `from` to `to` and adds the messages of the events between: both, or, where the cursor is not
    /// at `from` or the webhook disabled, neither. Whether it did.
    async fn fan_out(
        &self,
        id: WebhookId,
        from: u64,
        to: u64,
        new: &[NewDelivery],
        now: Time,
    ) -> Result<bool, StoreError>;
    /// Claims messages that are due at `now`, of enabled webhooks, none of `busy`, at most `each` of one: begins an attempt of each,
    /// and moves the next one to `until`.
    async fn claim_deliveries(
        &self,
        now: Time,
        until: Time,
        limit: u32,
        each: u32,
        busy: &[WebhookId],
    ) -> Result<Vec<(DeliveryRecord, WebhookRecord)>, StoreError>;
    /// Ends the attempt of that number, if it is still the last; whether it was.
    async fn end_attempt(
        &self,
        id: MessageId,
        attempt: u32,
        end: &AttemptEnd,
        now: Time,
    ) -> Result<bool, StoreError>;
    /// Messages of a webhook of the tenant, latest first, after `after`.
    async fn deliveries(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;
    /// Has a message sent again, from the first attempt on, whatever became of it; the delivery, where there is one. What `answer` makes
    /// of it is kept for a repetition.
    async fn redeliver(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        id: MessageId,
        once: Option<(&Idempotency, Tell<'_>)>,
        now: Time,
    ) -> Result<Once<Option<DeliveryRecord>>, StoreError>;
    /// Forgets messages that ended before `before`; how many.
    async fn forget_deliveries(&self, before: Time) -> Result<u64, StoreError>;
}
