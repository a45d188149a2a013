//! Tenants by OpenID Connect: tokens that the company's own issuer signs, in place of API keys.
//!
//! | module | does |
//! |---|---|
//! | [`token`] | reads and verifies one token, with a key that is at hand; pure |
//! | [`keys`] | reads a set of keys (JWKS); pure |
//! | [`fetch`] | gets a document from the issuer |
//!
//! The algorithm is the operator's to say and not the token's, so that neither `none` nor an HMAC with the public key as its secret
//! is anything but a wrong algorithm. Keys come from the issuer's set and from nowhere else: what a token's header carries or points
//! to is not looked at.

pub mod fetch;
pub mod keys;
pub mod token;

use crate::engine::{TokenError, Tokens};
use crate::model::Time;
use async_trait::async_trait;
use fetch::{Fetcher, IssuerUrl};
use keys::KeySet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
pub use token::Algorithm;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Keys of this age are asked for again.
    pub fresh: Duration,
    /// A key that is not known makes them be asked for again, this often at most: made-up names cost the issuer nothing.
    pub again: Duration,
    /// While the issuer does not answer, keys are used until this age.
    pub stale: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(600),
            again: Duration::from_secs(10),
            stale: Duration::from_secs(24 * 3_600),
        }
    }
}

/// The clocks of issuer and broker may differ by this much.
pub const LEEWAY_S: i64 = 60;

/// How tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// Who issues them, as `iss` spells it.
    pub issuer: IssuerUrl,
    /// Where its keys are; as its discovery document says where there is none.
    pub jwks: Option<IssuerUrl>,
    /// Who they are for, as `aud` spells it.
    pub audience: String,
    /// What they are signed with.
    pub algorithm: Algorithm,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The only certificate authorities to trust for the issuer; the system's where there is none.
    pub ca_file: Option<PathBuf>,
}

#[derive(Default)]
struct Cached {
    keys: KeySet,
    /// When the keys came.
    got: Option<Instant>,
    /// When they were asked for last.
    asked: Option<Instant>,
}

/// Verifies tokens of one issuer.
pub struct Oidc {
    config: OidcConfig,
    times: Times,
    fetcher: Fetcher,
    // Held over a fetch: whoever else needs keys waits for the same answer.
    cached: Mutex<Cached>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.config.issuer).finish_non_exhaustive()
    }
}

fn is_older(since: Option<Instant>, age: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= age)
}

impl Oidc {
    /// Of one issuer; asks it for nothing yet.
    ///
    /// # Errors
    /// The certificate authorities cannot be read.
    pub fn new(config: OidcConfig) -> io::Result<Self> {
        let fetcher = Fetcher::new(config.ca_file.as_deref())?;
        Ok(Self { config, times: Times::default(), fetcher, cached: Mutex::default() })
    }

    /// The same with other times.
    #[must_use]
    pub fn with_times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// The set of keys that has one of that name, or the set as it is where none has.
    async fn keys_with(&self, kid: Option<&str>) -> Result<KeySet, TokenError> {
        let mut cached = self.cached.lock().await;
        let wanted = cached.keys.find(kid, self.config.algorithm).is_some();
        let ask = is_older(cached.got, self.times.fresh) || !wanted;
        if ask && is_older(cached.asked, self.times.again) {
            cached.asked = Some(Instant::now());
            match self.fetch().await {
                Ok(keys) => {
                    cached.keys = keys;
                    cached.got = Some(Instant::now());
                }
                Err(error) => {
                    tracing::warn!(error, issuer = %self.config.issuer, "the issuer's keys cannot be had");
                }
            }
        }
        if is_older(cached.got, self.times.stale) {
            return Err(TokenError::NoKeys);
        }
        Ok(cached.keys.clone())
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let jwks = match &self.config.jwks {
            Some(url) => url.clone(),
            None => {
                let document = self.fetcher.get(&self.config.issuer.discovery()?).await?;
                keys::jwks_uri(&document, self.config.issuer.as_str())?
            }
        };
        KeySet::parse(&self.fetcher.get(&jwks).await?)
    }
}

#[async_trait]
impl Tokens for Oidc {
    async fn tenant_named_by(&self, text: &str, now: Time) -> Result<String, TokenError> {
        let token = token::read(text).map_err(TokenError::Refused)?;
        // Before any key is asked for: a wrong algorithm is refused whatever its key would be.
        token.check_head(self.config.algorithm).map_err(TokenError::Refused)?;
        let keys = self.keys_with(token.kid()).await?;
        let Some(key) = keys.find(token.kid(), self.config.algorithm) else {
            return Err(TokenError::Refused("no key of the issuer has this name"));
        };
        let claims = token.verify(self.config.algorithm, key).map_err(TokenError::Refused)?;
        claims
            .check(self.config.issuer.as_str(), &self.config.audience, now, LEEWAY_S)
            .map_err(TokenError::Refused)?;
        claims.text(&self.config.tenant_claim).ok_or(TokenError::Refused("it does not name a tenant"))
    }
}
