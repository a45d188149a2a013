//! Webhooks of the public API: what a tenant says, and what it is told.

use crate::ids::{JobId, MessageId, WebhookId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Characters in a webhook's URL.
pub const MAX_URL: usize = 2_048;
/// Bytes of a message's body; the Standard Webhooks specification asks for less than 20 kB.
pub const MAX_MESSAGE: usize = 20_000;

macro_rules! types {
    ($($(#[doc = $doc:literal])* $variant:ident $text:literal;)*) => {
        /// What a message is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum MessageType { $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)* }

        impl MessageType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The type as messages spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

types! {
    /// A job was created.
    Created "job.created";
    /// A job succeeded: its output is there.
    Succeeded "job.succeeded";
    /// A job failed.
    Failed "job.failed";
    /// A job was canceled.
    Canceled "job.canceled";
}

/// Asks for messages to be sent to a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// Where messages are posted: an `https` URL of at most 2,048 characters, without a user, a password or a fragment.
    pub url: String,
    /// Which messages; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<MessageType>>,
    /// What it is for, 1 to 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where messages are posted.
    pub url: String,
    /// Which messages.
    pub types: Vec<MessageType>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its name in the resource of a cluster that manages it: it is changed and deleted there. None where the tenant made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<String>,
    /// Whether messages are sent.
    pub enabled: bool,
    /// Why not: `gone` (it answered 410) or `failing` (a message was given up, and none arrived since it was made).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
    /// The secret that signs, `whsec_` and base64: only in the answer that made it, and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Secrets that messages are signed with: more than one while an old one runs out.
    pub secrets: u32,
    /// RFC 3339 time of creation.
    pub created_at: String,
    /// RFC 3339 time at which a message was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<String>,
}

/// Asks for a new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateWebhook {
    /// For how many seconds messages are signed with the old secrets too: 0 to 604,800 (a week); a day where it is left out.
    #[serde(default = "day")]
    pub overlap_s: u32,
}

const fn day() -> u32 {
    86_400
}

/// One message to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The message's id: its header `webhook-id`, the same in every attempt.
    pub id: MessageId,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// The job.
    pub job: JobId,
    /// How it stands.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// RFC 3339 time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
    /// The HTTP status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// RFC 3339 time at which the message was made.
    pub created_at: String,
    /// RFC 3339 time at which it was accepted or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is tried, or tried again.
    Pending,
    /// The webhook accepted it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    /// The state as the API and the database spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// A page of deliveries, latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Give this as `after` to get the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<MessageId>,
}
