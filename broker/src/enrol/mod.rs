//! Who a pod is: by its own token, which Kubernetes made for it and for this broker alone. Nothing here knows HTTP; only
//! [`kubernetes`] knows the API server.
//!
//! The broker asks the API server at enrolment and again at each renewal, so that a pod that was deleted gets nothing more. What a
//! pod says of itself counts for nothing: its name, UID, account and node are the API server's words, and its pool is that of its
//! service account.

mod claims;
pub mod kubernetes;
mod review;

pub use review::{Answer, Pod, Refusal, admit};

use crate::engine::Throttle;
use async_trait::async_trait;
use mpegflow_protocol::ids::{PoolName, WorkerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longest token that is looked at; Kubernetes' have about 1.5 KiB.
pub const MAX_TOKEN: usize = 8 << 10;
/// Questions to the API server at once.
const AT_ONCE: usize = 8;
/// Tokens of callers without a certificate that are looked at in a second, over time and at once.
const RATE: (u32, u32) = (50, 500);
/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl std::str::FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = |part: &str| {
            !part.is_empty()
                && part.len() <= 253
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        match text.split_once('/') {
            Some((namespace, name)) if label(namespace) && label(name) => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err("a service account is NAMESPACE/NAME".into()),
        }
    }
}

/// Whoever knows whose a token is.
#[async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// What it says of a token for this audience.
    ///
    /// # Errors
    /// It does not answer; the text is for the log.
    async fn review(&self, token: &str, audience: &str) -> Result<Answer, String>;
}

/// How pods enrol.
#[derive(Clone)]
pub struct PodTokens {
    /// Who is asked.
    pub reviewer: Arc<dyn Reviewer>,
    /// What tokens have to be for.
    pub audience: String,
    /// The account whose pods are the operator.
    pub operator: Option<Account>,
    /// Accounts of pools that nobody pushes.
    pub accounts: BTreeMap<Account, PoolName>,
}

impl std::fmt::Debug for PodTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodTokens")
            .field("audience", &self.audience)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

/// Why a token was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// This broker does not ask Kubernetes.
    #[error("this broker takes no tokens of pods: it has no `kubernetes.audience`")]
    NotHere,
    /// It is not good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody can say.
    #[error("Kubernetes' API server does not say whose the token is; nobody enrols or renews until it does")]
    Away,
    /// There are too many questions.
    #[error("too many tokens are being looked at")]
    Busy(Duration),
}

/// Looks at tokens, within bounds.
#[derive(Debug)]
pub struct Enrolment {
    how: Option<PodTokens>,
    slots: Semaphore,
    strangers: Throttle,
}

impl Enrolment {
    /// As configured; without tokens of pods every one is refused.
    pub fn new(how: Option<PodTokens>) -> Self {
        Self { how, slots: Semaphore::new(AT_ONCE), strangers: Throttle::new(RATE.0, RATE.1) }
    }

    /// The pod of a token that a caller without a certificate shows.
    ///
    /// # Errors
    /// The token is not good, or nobody can say.
    pub async fn stranger(&self, token: &str) -> Result<Pod, TokenError> {
        let how = self.how.as_ref().ok_or(TokenError::NotHere)?;
        // What cannot be one costs the API server nothing. It is no check: whatever passes is asked about.
        claims::plausible(token, &how.audience)?;
        self.strangers.take().map_err(TokenError::Busy)?;
        self.ask(how, token).await
    }

    /// The pod of a token that comes with a certificate of ours.
    ///
    /// # Errors
    /// The token is not good, or nobody can say.
    pub async fn known(&self, token: &str) -> Result<Pod, TokenError> {
        let how = self.how.as_ref().ok_or(TokenError::NotHere)?;
        claims::plausible(token, &how.audience)?;
        self.ask(how, token).await
    }

    async fn ask(&self, how: &PodTokens, token: &str) -> Result<Pod, TokenError> {
        let answer = tokio::time::timeout(PATIENCE, async {
            let _slot = self.slots.acquire().await;
            how.reviewer.review(token, &how.audience).await
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(admit(&answer, &how.audience)?),
            Ok(Err(error)) => {
                tracing::warn!(error, "Kubernetes' API server cannot be asked about a token");
                Err(TokenError::Away)
            }
            Err(_) => {
                tracing::warn!("Kubernetes' API server did not answer in time about a token");
                Err(TokenError::Away)
            }
        }
    }

    /// The pool of an account that the configuration names.
    pub fn configured_pool(&self, account: &Account) -> Option<&PoolName> {
        self.how.as_ref()?.accounts.get(account)
    }

    /// Whether the account's pods are the operator.
    pub fn is_operator(&self, account: &Account) -> bool {
        self.how.as_ref().and_then(|how| how.operator.as_ref()) == Some(account)
    }
}

/// The worker that a pod is: its UID says which, so that one pod is one identity whatever it does.
pub fn worker_of(pod: &Pod) -> WorkerId {
    WorkerId::from_u128(pod.uid.as_u128())
}
