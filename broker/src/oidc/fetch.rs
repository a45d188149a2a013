//! Gets a document from an issuer: over TLS, of bounded length, within a bounded time, and without following anything.

use crate::trust;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Bytes of a document at most.
const MAX_BODY: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// A URL of an issuer: `https`, or `http` to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl(String);

impl IssuerUrl {
    /// As it was written, which is how it is compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its discovery document is.
    ///
    /// # Errors
    /// The issuer's URL is too odd to have one.
    pub fn discovery(&self) -> Result<Self, String> {
        format!("{}/.well-known/openid-configuration", self.0.trim_end_matches('/')).parse()
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IssuerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
        let host = uri.host().ok_or("a URL with a host")?;
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) || text.contains('#') {
            return Err("a URL without a user and a fragment".into());
        }
        let here = || {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        match uri.scheme_str() {
            Some("https") => Ok(Self(text.to_owned())),
            Some("http") if here() => Ok(Self(text.to_owned())),
            _ => Err("an https URL; http is for this machine alone".into()),
        }
    }
}

/// Gets documents.
#[derive(Clone)]
pub struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetcher {
    /// That trusts the authorities of a file, or the system's.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(ca_file: Option<&Path>) -> io::Result<Self> {
        let config = trust::client(ca_file)?;
        let https =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(https)))
    }

    /// The document there.
    ///
    /// # Errors
    /// There is none within the bounds.
    pub async fn get(&self, url: &IssuerUrl) -> Result<Bytes, String> {
        tokio::time::timeout(PATIENCE, self.attempt(url))
            .await
            .unwrap_or_else(|_| Err(format!("{url} does not answer in time")))
    }

    async fn attempt(&self, url: &IssuerUrl) -> Result<Bytes, String> {
        let request = Request::get(url.as_str())
            .header(hyper::header::ACCEPT, "application/json")
            .header(hyper::header::USER_AGENT, concat!("mpegflow-broker/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        let answer = self.0.request(request).await.map_err(|e| format!("{url}: {e}"))?;
        if answer.status() != hyper::StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        Ok(body.map_err(|e| format!("{url}: {e}"))?.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_reached_over_tls_or_on_this_machine() {
        for good in [
            "https://id.example.com",
            "https://id.example.com:8443/realms/a",
            "http://127.0.0.1:9",
            "http://[::1]:9/x",
            "http://localhost:9",
        ] {
            assert!(good.parse::<IssuerUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.example.com",
            "http://id.example.com",
            "http://10.0.0.1",
            "ftp://id.example.com",
            "https://user@id.example.com",
            "https://id.example.com/#a",
            "http://127.0.0.1.example.com",
            "https:///x",
        ] {
            assert!(bad.parse::<IssuerUrl>().is_err(), "{bad}");
        }
        let issuer: IssuerUrl = "https://id.example.com/realms/a/".parse().unwrap();
        assert_eq!(
            issuer.discovery().unwrap().as_str(),
            "https://id.example.com/realms/a/.well-known/openid-configuration"
        );
    }
}
