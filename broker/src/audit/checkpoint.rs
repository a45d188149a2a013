//! Checkpoints: what the heads of the chains were, signed, to be kept where whoever can write to the database cannot.
//!
//! Without them a log that was rewritten from some entry on, or that ends early, looks as good as the true one.

use super::chain::Head;
use crate::secret;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use mpegflow_protocol::ids::TenantId;
use serde::{Deserialize, Serialize};

/// What the signature covers before the body: nothing else that this key signs can be taken for a checkpoint.
const PREFIX: &str = "mpegflow checkpoint 1\n";

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// These heads were there: a chain must not lack them.
    Head,
    /// What came up to these heads was dropped on purpose: a chain may begin after them.
    Anchor,
}

/// The head of one tenant's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantHead {
    /// The tenant.
    pub tenant: TenantId,
    /// Position of its last entry.
    pub seq: u64,
    /// The hash there, in hexadecimal.
    pub hash: String,
}

impl TenantHead {
    /// From a head.
    pub fn new(tenant: TenantId, head: Head) -> Self {
        Self { tenant, seq: head.seq, hash: secret::hex(&head.hash) }
    }

    fn head(&self) -> Option<Head> {
        Some(Head { seq: self.seq, hash: secret::from_hex(&self.hash)? })
    }
}

/// The heads of chains at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What for.
    pub purpose: Purpose,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// The heads, one for each tenant it speaks of.
    pub heads: Vec<TenantHead>,
}

impl Checkpoint {
    /// The head of a tenant's chain that it vouches for.
    pub fn head_of(&self, tenant: TenantId) -> Option<Head> {
        self.heads.iter().find(|h| h.tenant == tenant)?.head()
    }
}

/// A checkpoint with its signature, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCheckpoint {
    /// The checkpoint as JSON, byte for byte as it was signed.
    pub body: String,
    /// Ed25519 signature, base64.
    pub signature: String,
}

/// Why a checkpoint is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The signature is not of this key over this body.
    #[error("the checkpoint is not signed by the expected key")]
    Signature,
    /// The signature is right and the body is not a checkpoint.
    #[error("the signed body is not a checkpoint")]
    Body,
    /// The key is not an Ed25519 key.
    #[error("the key is not an Ed25519 key in PKCS #8")]
    Key,
}

/// Who signs checkpoints.
pub struct Signer(Ed25519KeyPair);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, CheckpointError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| CheckpointError::Key)
    }

    /// From PKCS #8.
    ///
    /// # Errors
    /// The bytes are not an Ed25519 key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Self).map_err(|_| CheckpointError::Key)
    }

    /// The key as PKCS #8, for a file that only the broker can read.
    ///
    /// # Errors
    /// The key cannot be written down.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, CheckpointError> {
        self.0.to_pkcs8().map(|der| der.as_ref().to_vec()).map_err(|_| CheckpointError::Key)
    }

    /// What verifiers have to know.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// Signs.
    pub fn sign(&self, checkpoint: &Checkpoint) -> SignedCheckpoint {
        use base64::Engine as _;
        let body = String::from_utf8_lossy(&mpegflow_protocol::to_json(checkpoint)).into_owned();
        let signature = self.0.sign(format!("{PREFIX}{body}").as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(signature.as_ref());
        SignedCheckpoint { body, signature }
    }
}

impl SignedCheckpoint {
    /// The checkpoint, if it was signed with the key of that public half.
    ///
    /// # Errors
    /// It was not, or it is not a checkpoint.
    pub fn open(&self, public_key: &[u8]) -> Result<Checkpoint, CheckpointError> {
        use base64::Engine as _;
        let signature = base64::engine::general_purpose::STANDARD
            .decode(&self.signature)
            .map_err(|_| CheckpointError::Signature)?;
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(format!("{PREFIX}{}", self.body).as_bytes(), &signature)
            .map_err(|_| CheckpointError::Signature)?;
        let checkpoint: Checkpoint = serde_json::from_str(&self.body).map_err(|_| CheckpointError::Body)?;
        if checkpoint.heads.iter().any(|h| h.head().is_none()) {
            return Err(CheckpointError::Body);
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_opens_only_with_its_signers_key_and_unchanged() {
        let signer = Signer::generate().unwrap();
        let tenant = TenantId::from_u128(7);
        let checkpoint = Checkpoint {
            purpose: Purpose::Head,
            at: 5,
            heads: vec![TenantHead::new(tenant, Head { seq: 3, hash: [9; 32] })],
        };
        let signed = signer.sign(&checkpoint);
        let key = signer.public_key();
        assert_eq!(signed.open(&key), Ok(checkpoint.clone()));
        assert_eq!(checkpoint.head_of(tenant), Some(Head { seq: 3, hash: [9; 32] }));
        assert_eq!(checkpoint.head_of(TenantId::from_u128(8)), None);
        let again = Signer::from_pkcs8(&signer.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.sign(&checkpoint), signed, "the key survives a file");

        let other = Signer::generate().unwrap();
        assert_eq!(
            other.sign(&checkpoint).open(&key),
            Err(CheckpointError::Signature),
            "re-signed by another"
        );
        let edited = SignedCheckpoint { body: signed.body.replace(":3", ":2"), ..signed.clone() };
        assert_eq!(edited.open(&key), Err(CheckpointError::Signature));
        let garbled = SignedCheckpoint { signature: "!".into(), ..signed };
        assert_eq!(garbled.open(&key), Err(CheckpointError::Signature));
    }
}
