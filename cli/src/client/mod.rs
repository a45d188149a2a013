//! A client of the public API on hyper: every body streams, every answer that is read whole is bounded.

mod api;
mod follow;
mod receiver;
mod sse;
mod transfer;

pub(crate) use api::{UploadSource, mark};
pub(crate) use receiver::Receiver;
pub(crate) use sse::SseParser;
pub(crate) use transfer::stem;

use crate::args::Connection;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mpegflow_protocol::api::Problem;
use mpegflow_protocol::text::clean;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most of a JSON answer that is read: a page of jobs with their evidence.
const MAX_ANSWER: usize = 16 << 20;
/// Connecting, and waiting for the head of an answer to a small request.
const PATIENCE: Duration = Duration::from_secs(30);
/// A body that brings nothing for this long is given up.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// Bytes of an API key file; a key is far shorter.
const MAX_KEY: u64 = 4 << 10;

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection, or it broke.
    #[error("cannot reach the broker at {url}: {reason}")]
    Unreachable {
        /// Where the broker should be.
        url: String,
        /// What happened.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS: {reason}")]
    Tls {
        /// What happened.
        reason: String,
    },
    /// The broker refused.
    #[error("{}", refusal(*status, problem))]
    Problem {
        /// The HTTP status.
        status: u16,
        /// What the broker said.
        problem: Box<Problem>,
    },
    /// An option is wrong.
    #[error("{0}")]
    Usage(String),
    /// The file to upload could not be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A download is not what was committed.
    #[error("{name}: the download has {what}")]
    Corrupt {
        /// The object.
        name: String,
        /// In which way.
        what: &'static str,
    },
    /// The answer was not one of the API's.
    #[error("the broker's answer to {call} makes no sense: {reason}")]
    Answer {
        /// The call.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn refusal(status: u16, problem: &Problem) -> String {
    let field = problem.field.as_ref().map(|f| format!(" (field `{f}`)")).unwrap_or_default();
    let says_more = |detail: &&String| detail.trim_end_matches('.') != problem.title.trim_end_matches('.');
    let detail = problem.detail.as_ref().filter(says_more).map(|d| format!(": {d}")).unwrap_or_default();
    clean(&format!("the broker refused with {status}, {}{field}{detail}", problem.title), 1_000)
}

impl ClientError {
    /// Whether the same call may succeed later, because nothing was decided.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Problem { status, .. } => matches!(status, 408 | 425 | 429 | 500..=504),
            _ => false,
        }
    }
}

/// A connection to one broker as one tenant.
#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>, RequestBody>,
    base: String,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// From the options and the environment.
    pub(crate) fn from_connection(connection: &Connection) -> Result<Self, ClientError> {
        let key = match &connection.api_key_file {
            Some(path) => Some(read_key(path)?),
            None => std::env::var("MPEGFLOW_API_KEY").ok().filter(|key| !key.trim().is_empty()),
        };
        let base = base_url(&connection.url)?;
        let local = base.host().is_some_and(is_loopback);
        if key.is_some() && base.scheme_str() == Some("http") && !local && !connection.allow_http {
            return Err(ClientError::Usage(format!(
                "{base} has no TLS, so the API key would cross the network readable by all; use https, or --allow-http where the network is trusted"
            )));
        }
        Self::new(&base, key.as_deref(), connection.ca.as_deref())
    }

    /// To a broker on this machine.
    pub(crate) fn local(address: std::net::SocketAddr, key: &str) -> Result<Self, ClientError> {
        Self::new(&base_url(&format!("http://{address}"))?, Some(key), None)
    }

    fn new(base: &Uri, key: Option<&str>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let authorization = match key {
            Some(key) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(|_| {
                    ClientError::Usage("the API key holds characters that no API key has".into())
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(PATIENCE));
        let tls = tls_config(base.scheme_str() == Some("https"), ca)?;
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = HyperClient::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build(https);
        Ok(Self { http, base: base.to_string().trim_end_matches('/').to_owned(), authorization })
    }

    /// The broker's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(USER_AGENT, concat!("mpegflow/", env!("CARGO_PKG_VERSION")));
        if let (Some(headers), Some(value)) = (builder.headers_mut(), &self.authorization) {
            headers.insert(AUTHORIZATION, value.clone());
        }
        builder
    }

    /// Sends a request and waits for the head of its answer for at most `patience`; a refusal becomes an error.
    async fn send(
        &self,
        builder: hyper::http::request::Builder,
        body: RequestBody,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = builder.body(body).map_err(|e| ClientError::Usage(format!("not a request: {e}")))?;
        let call = format!("{} {}", request.method(), request.uri().path());
        let answer = self.http.request(request);
        let answer = match patience {
            Some(patience) => tokio::time::timeout(patience, answer).await.map_err(|_| {
                self.unreachable(&format!("no answer to {call} within {} s", patience.as_secs()))
            })?,
            None => answer.await,
        };
        let response = answer.map_err(|e| self.unreachable(&root_cause(&e)))?;
        if response.status().is_success() { Ok(response) } else { Err(self.problem(call, response).await) }
    }

    fn unreachable(&self, reason: &str) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), reason: clean(reason, 500) }
    }

    async fn problem(&self, call: String, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let body = match self.collect(response, 64 << 10).await {
            Ok(body) => body,
            Err(e) => return e,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => ClientError::Problem { status: status.as_u16(), problem: Box::new(problem) },
            // A proxy in between does not speak problem+json, but its status still says what happened.
            Err(_) if status.is_client_error() || status.is_server_error() => ClientError::Problem {
                status: status.as_u16(),
                problem: Box::new(Problem {
                    kind: format!("/problems/http_{}", status.as_u16()),
                    title: status.canonical_reason().unwrap_or("no reason given").to_owned(),
                    status: status.as_u16(),
                    detail: None,
                    field: None,
                }),
            },
            Err(_) => ClientError::Answer { call, reason: format!("status {status}") },
        }
    }

    async fn collect(&self, response: Response<Incoming>, max: usize) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), max).collect();
        let body = tokio::time::timeout(STALL, body)
            .await
            .map_err(|_| self.unreachable("the answer stopped half-way"))?
            .map_err(|e| self.unreachable(&e.to_string()))?;
        Ok(body.to_bytes())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        builder: hyper::http::request::Builder,
        body: RequestBody,
        patience: Option<Duration>,
    ) -> Result<T, ClientError> {
        let call = builder
            .uri_ref()
            .map(|uri| format!("{} {}", builder.method_ref().unwrap_or(&Method::GET), uri.path()))
            .unwrap_or_default();
        let response = self.send(builder, body, patience).await?;
        let body = self.collect(response, MAX_ANSWER).await?;
        serde_json::from_slice(&body)
            .map_err(|e| ClientError::Answer { call, reason: clean(&e.to_string(), 200) })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path).header(ACCEPT, "application/json"), empty(), Some(PATIENCE))
            .await
    }

    /// As [`Self::post`], but sent once whatever happens.
    async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let builder = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        self.json(builder, body.map_or_else(empty, |body| full(body.into())), Some(PATIENCE)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<Vec<u8>>) -> Result<T, ClientError> {
        // One key for one intent: a repeat after a broken connection must not make a second job.
        let key = uuid::Uuid::new_v4().to_string();
        let mut attempt = 0_u32;
        loop {
            let mut builder = self.request(Method::POST, path).header("idempotency-key", &key);
            if body.is_some() {
                builder = builder.header(CONTENT_TYPE, "application/json");
            }
            let payload = body.clone().map_or_else(empty, |body| full(body.into()));
            match self.json(builder, payload, Some(PATIENCE)).await {
                Err(e) if e.is_transient() && attempt < 2 => {
                    attempt = attempt.saturating_add(1);
                    tokio::time::sleep(backoff(attempt)).await;
                }
                result => return result,
            }
        }
    }
}

/// How long to wait before try `attempt` + 1.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(200_u64.saturating_mul(2_u64.saturating_pow(attempt.min(6))).min(10_000))
}

pub(crate) fn empty() -> RequestBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(bytes: Bytes) -> RequestBody {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What lies at the bottom of an error. Hyper's own errors say only which of its layers failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

fn base_url(text: &str) -> Result<Uri, ClientError> {
    let wrong = |reason: &str| {
        ClientError::Usage(format!("{} is not a broker's address: {reason}", clean(text, 200)))
    };
    let uri: Uri =
        text.trim().parse().map_err(|_| wrong("it is not a URL, such as https://media.example.com"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it has to begin with https:// (or http://)"));
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(wrong("it holds a user name or password; the key goes into MPEGFLOW_API_KEY"));
    }
    if uri.query().is_some() {
        return Err(wrong("it holds a query"));
    }
    Ok(uri)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.is_loopback())
}

fn read_key(path: &Path) -> Result<String, ClientError> {
    use std::io::Read as _;
    let fail = |reason: String| {
        ClientError::Usage(format!("cannot read the API key from {}: {reason}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut text = String::new();
    file.take(MAX_KEY).read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
    if text.trim().is_empty() { Err(fail("it is empty".into())) } else { Ok(text.trim().to_owned()) }
}

fn tls_config(needed: bool, ca: Option<&Path>) -> Result<rustls::ClientConfig, ClientError> {
    let tls = |reason: String| ClientError::Tls { reason };
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca {
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|e| tls(format!("cannot read {}: {e}", path.display())))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| tls(format!("{}: {e}", path.display())))?;
            roots.add(certificate).map_err(|e| tls(format!("{}: {e}", path.display())))?;
        }
        if roots.is_empty() {
            return Err(tls(format!("{} holds no certificate", path.display())));
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(e.to_string()))?;
    // The system's store is read only where it is going to be used: it takes tens of milliseconds.
    if ca.is_none() && needed {
        use hyper_rustls::ConfigBuilderExt as _;
        return Ok(builder.with_native_roots().map_err(|e| tls(e.to_string()))?.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whether the status says that the thing is not there.
pub(crate) fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem { status, .. } if *status == StatusCode::NOT_FOUND.as_u16())
}

#[cfg(test)]
mod scripted;

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(url: &str) -> Connection {
        Connection { url: url.into(), api_key_file: None, ca: None, allow_http: false }
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_reason() {
        for (url, reason) in [
            ("media.example.com", "https://"),
            ("ftp://media.example.com", "https://"),
            ("https://key@media.example.com", "MPEGFLOW_API_KEY"),
            ("https://media.example.com/?a=b", "query"),
            ("", "not a URL"),
        ] {
            let Err(error) = Client::from_connection(&connection(url)) else { panic!("{url} was taken") };
            assert!(matches!(&error, ClientError::Usage(text) if text.contains(reason)), "{url}: {error}");
        }
    }

    #[test]
    fn a_key_is_not_sent_in_clear_to_another_machine() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "mfk_secret\n").unwrap();
        let with_key = |url: &str, allow_http| {
            Client::from_connection(&Connection {
                api_key_file: Some(file.clone()),
                allow_http,
                ..connection(url)
            })
        };
        let Err(error) = with_key("http://media.example.com", false) else { panic!("sent in clear") };
        assert!(error.to_string().contains("no TLS") && !error.to_string().contains("secret"), "{error}");
        assert!(with_key("http://media.example.com", true).is_ok());
        assert!(with_key("http://127.0.0.1:8080", false).is_ok());
        assert!(with_key("http://[::1]:8080", false).is_ok());
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_named() {
        let client = Client::from_connection(&connection("http://127.0.0.1:9")).unwrap();
        let error = client.get::<serde_json::Value>("/v1/presets").await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Unreachable { url, .. } if url == "http://127.0.0.1:9"),
            "{error}"
        );
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
