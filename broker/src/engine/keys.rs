//! Who calls: API keys and tokens of the company's issuer, and what each of them may do.

use super::{Engine, SecretError};
use crate::model::Time;
use crate::scopes::Scopes;
use crate::store::{ApiKeyRecord, StoreError};
use async_trait::async_trait;
use mpegflow_protocol::ids::{KeyId, TenantId};
use std::time::Duration;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// As which tenant.
    pub tenant: TenantId,
    /// What it may do.
    pub scopes: Scopes,
}

/// Why a token says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not to be believed.
    #[error("the token is refused: {0}")]
    Refused(&'static str),
    /// The issuer's keys are not known, so that nobody can say.
    #[error("the issuer's keys are not known")]
    NoKeys,
}

/// Verifies tokens.
#[async_trait]
pub trait Tokens: Send + Sync + 'static {
    /// The name of the tenant that a token is for, if it is to be believed at `now`.
    async fn tenant_named_by(&self, token: &str, now: Time) -> Result<String, TokenError>;
}

/// Why nobody knows who calls.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The issuer's keys are not known.
    #[error("the issuer's keys are not known")]
    NoKeys,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Why a key was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// There is none, or it is no longer valid.
    #[error("there is no such key that is valid")]
    NotFound,
    /// The new one was not made.
    #[error("the new key was not made")]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub tenant: TenantId,
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Until when; for ever where there is none.
    pub expires_at: Option<Time>,
}

impl Engine {
    /// Who sends this key or token; `None` for one that is wrong, expired or revoked.
    ///
    /// # Errors
    /// The store could not answer, or nobody knows the issuer's keys.
    pub async fn caller(&self, text: &str) -> Result<Option<Caller>, CallerError> {
        if text.starts_with("mf_") {
            return Ok(self.caller_of_key(text).await?);
        }
        let Some((tokens, scopes)) = &self.tokens else { return Ok(None) };
        match tokens.tenant_named_by(text, self.now()).await {
            // One that nobody has made is not made by a token.
            Ok(name) => {
                let tenant = self.store.tenant_named(&name).await?;
                Ok(tenant.map(|tenant| Caller { tenant, scopes: *scopes }))
            }
            Err(TokenError::Refused(reason)) => {
                tracing::debug!(reason, "a token is refused");
                Ok(None)
            }
            Err(TokenError::NoKeys) => Err(CallerError::NoKeys),
        }
    }

    async fn caller_of_key(&self, text: &str) -> Result<Option<Caller>, StoreError> {
        // Past the parse, an unknown id costs the same look-up and comparison as a wrong secret.
        let Some((id, secret)) = parse_api_key(text) else { return Ok(None) };
        let found = self.store.api_key(id).await?;
        let expected = found.as_ref().map_or([0; 32], |key| key.secret_sha256);
        let good = crate::secret::same(&crate::secret::sha256(secret.as_bytes()), &expected);
        let now = self.now();
        let found = found.filter(|key| good && key.expires_at.is_none_or(|at| now < at));
        Ok(found.map(|key| Caller { tenant: key.tenant, scopes: key.scopes }))
    }

    /// Makes an API key that may do everything, for ever; this is the only time it is seen.
    ///
    /// # Errors
    /// No randomness, or the store could not take it.
    pub async fn create_api_key(&self, tenant: TenantId, label: &str) -> Result<String, SecretError> {
        let new = NewKey { tenant, label: label.to_owned(), scopes: Scopes::ALL, expires_at: None };
        self.create_key(&new).await
    }

    /// Makes an API key; this is the only time it is seen.
    ///
    /// # Errors
    /// No randomness, or the store could not take it.
    pub async fn create_key(&self, new: &NewKey) -> Result<String, SecretError> {
        let id: KeyId = KeyId::from_u128(uuid::Uuid::new_v4().as_u128());
        let secret = crate::secret::hex(&crate::secret::random().map_err(|_| SecretError::Randomness)?);
        let record = ApiKeyRecord {
            tenant: new.tenant,
            secret_sha256: crate::secret::sha256(secret.as_bytes()),
            scopes: new.scopes,
            expires_at: new.expires_at,
        };
        self.store.add_api_key(id, &record, &new.label, self.now()).await?;
        Ok(format!("mf_{:032x}_{secret}", id.as_u128()))
    }

    /// Makes a key like another one, which ends after `overlap`; where that one expires, the new one lives as long as it did.
    ///
    /// # Errors
    /// There is none that is valid, or the new one was not made.
    pub async fn rotate_api_key(&self, id: KeyId, overlap: Duration) -> Result<String, RotateError> {
        let now = self.now();
        let old = self.store.api_key(id).await?.ok_or(RotateError::NotFound)?;
        if old.expires_at.is_some_and(|at| at <= now) {
            return Err(RotateError::NotFound);
        }
        let all = self.store.api_keys(old.tenant).await?;
        let shown = all.into_iter().find(|key| key.id == id).ok_or(RotateError::NotFound)?;
        let expires_at = old.expires_at.map(|at| now.plus_ms(shown.created_at.until_ms(at)));
        let new = NewKey { tenant: old.tenant, label: shown.label, scopes: old.scopes, expires_at };
        let key = self.create_key(&new).await?;
        let overlap = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
        self.store.expire_api_key(id, now.plus_ms(overlap)).await?;
        Ok(key)
    }
}

fn parse_api_key(text: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = text.strip_prefix("mf_")?.split_once('_')?;
    crate::secret::from_hex(secret)?;
    Some((format!("key_{id}").parse().ok()?, secret))
}
