//! Signing secrets and signatures, as the Standard Webhooks specification has them: HMAC-SHA256, `v1`, secrets `whsec_` and base64.
//!
//! A secret is derived from the broker's key, the webhook's id and a salt. The database holds the salt: whoever reads it, or a
//! backup of it, can sign nothing.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mpegflow_protocol::ids::{MessageId, WebhookId};

const PREFIX: &str = "whsec_";

/// What secrets are derived from.
pub struct Secrets(hmac::Key);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// A signing secret: 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secrets {
    /// From the key that brokers share.
    pub fn new(key: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        // A key of its own: what signs messages must not be what grants capabilities.
        let own = hmac::sign(&root, b"mpegflow webhook secrets, version 1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    /// The secret of a webhook with that salt.
    pub fn derive(&self, webhook: WebhookId, salt: &[u8; 16]) -> Secret {
        let mut bytes = webhook.as_u128().to_be_bytes().to_vec();
        bytes.extend_from_slice(salt);
        let tag = hmac::sign(&self.0, &bytes);
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref());
        Secret(secret)
    }
}

impl Secret {
    /// These bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From the text that was shown.
    pub fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?.try_into().ok().map(Self)
    }

    /// As it is shown, once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0))
    }

    /// The signature of a message: `v1,` and base64. `timestamp` is in seconds since 1970.
    pub fn sign(&self, id: MessageId, timestamp: i64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &signed);
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

/// The headers of a message, signed with each secret: a receiver accepts any of them.
pub fn headers(
    secrets: &[Secret],
    id: MessageId,
    timestamp: i64,
    body: &[u8],
) -> [(&'static str, String); 3] {
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    [
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_of_one_webhook_one_salt_and_one_key() {
        let secrets = Secrets::new(&[1; 32]);
        let (one, other) = (WebhookId::from_u128(1), WebhookId::from_u128(2));
        let secret = secrets.derive(one, &[0; 16]);
        assert_eq!(secret, secrets.derive(one, &[0; 16]));
        assert_ne!(secret, secrets.derive(other, &[0; 16]));
        assert_ne!(secret, secrets.derive(one, &[1; 16]));
        assert_ne!(secret, Secrets::new(&[2; 32]).derive(one, &[0; 16]));
        assert_eq!(Secret::parse(&secret.reveal()), Some(secret.clone()));
        assert_eq!(secret.reveal().len(), PREFIX.len() + 44);
        assert!(!format!("{secret:?} {secrets:?}").contains(&secret.reveal()[6..]));
    }

    #[test]
    fn signatures_are_those_of_the_specification() {
        // Computed with Python's hmac over "msg_<id>.1700000000.{}".
        let secret = Secret::new([7; 32]);
        let signature = secret.sign(MessageId::from_u128(1), 1_700_000_000, b"{}");
        assert_eq!(signature, "v1,nUUJO/gJWJ63Gla0oOgo1MfN/m0mYmXmTaI/b1BXpBU=");
    }
}
