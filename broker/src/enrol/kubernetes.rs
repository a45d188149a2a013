//! Kubernetes' API server, asked whose a token is. `create tokenreviews` is all that the broker may do there.

use super::{Answer, Reviewer};
use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mpegflow_protocol::text;
use std::path::Path;
use std::time::Duration;

/// The API server.
#[derive(Clone)]
pub struct ApiServer(Api<TokenReview>);

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiServer(…)")
    }
}

/// The API server cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum NoApiServer {
    /// The kubeconfig.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// This is no pod with an account's token.
    #[error(
        "this is no pod with its account's token mounted; name a kubeconfig where it is meant to run elsewhere"
    )]
    NoPod(#[from] kube::config::InClusterError),
    /// TLS or the account's token.
    #[error("cannot prepare to ask the API server")]
    Client(#[from] kube::Error),
}

impl ApiServer {
    /// The one of a kubeconfig, or the one this pod runs in.
    ///
    /// # Errors
    /// There is none. Whether it answers shows only when it is asked.
    pub async fn find(kubeconfig: Option<&Path>) -> Result<Self, NoApiServer> {
        let mut config = match kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            None => Config::incluster()?,
        };
        config.connect_timeout = Some(Duration::from_secs(3));
        config.read_timeout = Some(Duration::from_secs(5));
        config.write_timeout = Some(Duration::from_secs(5));
        Ok(Self(Api::all(Client::try_from(config)?)))
    }
}

#[async_trait]
impl Reviewer for ApiServer {
    async fn review(&self, token: &str, audience: &str) -> Result<Answer, String> {
        let asked = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = self.0.create(&PostParams::default(), &asked).await.map_err(|e| chain(&e))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.unwrap_or_default();
        Ok(Answer {
            authenticated: status.authenticated == Some(true),
            audiences: status.audiences.unwrap_or_default(),
            username: user.username.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    text::clean(&text::chain(error), 512)
}
