//! One attempt at a delivery: resolve once, judge every address, connect to one that was judged, say what the URL says to TLS and
//! HTTP, read the status. No redirect is followed, no proxy used, and nothing of the answer but its status and `Retry-After` is
//! kept: a tenant must not read an answer through the broker.

use super::Policy;
use super::address::judge;
use super::url::{Host, WebhookUrl};
use crate::trust;
use async_trait::async_trait;
use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The whole attempt: the specification asks for 15 to 30 s.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Connecting to one address.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Bytes of an answer's head.
const HEAD: usize = 16 << 10;
/// Bytes of an answer's body that are read, so that the receiver sees its answer taken.
const BODY: usize = 16 << 10;

/// Why an attempt got no good answer. The texts are for the tenant, and the same whether a name has no address or an inner one:
/// who asks must not learn which names there are inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// No address, or one that is not allowed.
    #[error("the host has no address that messages may be sent to")]
    Address,
    /// No connection.
    #[error("cannot connect")]
    Connect,
    /// TLS failed.
    #[error("TLS failed: the certificate is not valid for this host, or TLS is not spoken there")]
    Tls,
    /// Not HTTP, or broken off.
    #[error("the connection broke, or what came is not HTTP")]
    Broken,
    /// No answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
}

/// An answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// Names to addresses.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        // Absolute: the system's search list would find names inside the cluster.
        let found = tokio::net::lookup_host((format!("{name}."), port)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Sends messages.
#[derive(Clone)]
pub struct Poster {
    policy: Arc<Policy>,
    resolver: Arc<dyn Resolve>,
    trust: Arc<Trust>,
}

/// Whom TLS trusts: the system's authorities, or those of a file, which is read again when it has changed.
struct Trust {
    ca_file: Option<PathBuf>,
    known: Mutex<(Option<SystemTime>, TlsConnector)>,
}

impl Trust {
    fn new(ca_file: Option<PathBuf>) -> io::Result<Self> {
        // Before it is read: what changes in between is read again.
        let changed = changed(ca_file.as_deref());
        let tls = connector(ca_file.as_deref())?;
        Ok(Self { ca_file, known: Mutex::new((changed, tls)) })
    }

    fn now(&self) -> TlsConnector {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(self.ca_file.as_deref());
        if changed.is_some() && changed != known.0 {
            match connector(self.ca_file.as_deref()) {
                Ok(tls) => *known = (changed, tls),
                // Half written, or wrong: what was good goes on, and the next attempt looks again.
                Err(error) => {
                    tracing::warn!(%error, "the certificate authorities for webhooks cannot be read again")
                }
            }
        }
        known.1.clone()
    }
}

fn changed(file: Option<&Path>) -> Option<SystemTime> {
    std::fs::metadata(file?).ok()?.modified().ok()
}

fn connector(ca_file: Option<&Path>) -> io::Result<TlsConnector> {
    Ok(TlsConnector::from(Arc::new(trust::client(ca_file)?)))
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poster(…)")
    }
}

impl Poster {
    /// Under a policy.
    ///
    /// # Errors
    /// The certificate authorities cannot be read.
    pub fn new(policy: Policy, resolver: Arc<dyn Resolve>) -> io::Result<Self> {
        let trust = Arc::new(Trust::new(policy.ca_file.clone())?);
        Ok(Self { policy: Arc::new(policy), resolver, trust })
    }

    /// What the operator allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Posts a message.
    ///
    /// # Errors
    /// There is no answer. One of whatever status is no error.
    pub async fn post(
        &self,
        url: &WebhookUrl,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, PostError> {
        timeout(PATIENCE, self.attempt(url, headers, body)).await.unwrap_or(Err(PostError::Timeout))
    }

    async fn attempt(
        &self,
        url: &WebhookUrl,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, PostError> {
        let socket = self.connect(url).await?;
        let mut request = Request::builder()
            .method("POST")
            .uri(url.target())
            .header(header::HOST, url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("mpegflow-webhooks/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| PostError::Broken)?;
        if !url.tls() {
            return exchange(socket, request).await;
        }
        let name = match url.host() {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| PostError::Tls)?,
            Host::Address(address) => ServerName::from(*address),
        };
        let stream = self.trust.now().connect(name, socket).await.map_err(|_| PostError::Tls)?;
        exchange(stream, request).await
    }

    async fn connect(&self, url: &WebhookUrl) -> Result<TcpStream, PostError> {
        let addresses = match url.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                self.resolver.resolve(name, url.port()).await.map_err(|_| PostError::Address)?
            }
        };
        // One that is not allowed spoils the others: whoever mixes them is playing for the right one to be taken.
        if addresses.is_empty() || addresses.iter().any(|a| judge(*a, &self.policy.allow_networks).is_err()) {
            return Err(PostError::Address);
        }
        for address in addresses.into_iter().take(ADDRESSES) {
            let address = SocketAddr::new(address, url.port());
            if let Ok(Ok(socket)) = timeout(CONNECT, TcpStream::connect(address)).await {
                return Ok(socket);
            }
        }
        Err(PostError::Connect)
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(64)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| PostError::Broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|_| PostError::Broken)?;
        let retry_after =
            answer.headers().get(header::RETRY_AFTER).and_then(|v| retry_after(v.to_str().ok()?));
        let status = answer.status().as_u16();
        // Whatever becomes of the body, the answer was given.
        let _ = timeout(Duration::from_secs(2), Limited::new(answer.into_body(), BODY).collect()).await;
        Ok(Answer { status, retry_after })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection is driven here and nowhere else: it ends with the attempt.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// Seconds, or an HTTP date (RFC 9110, 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    let left = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
    u64::try_from(left).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("soon"), None);
        assert_eq!(retry_after("-1"), None);
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None, "gone by");
        let far = retry_after("Thu, 31 Dec 2099 23:59:59 GMT").unwrap();
        assert!(far > Duration::from_secs(3_600));
    }
}
