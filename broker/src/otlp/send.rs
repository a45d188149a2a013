//! One request to a collector: over HTTP/1.1, bounded in time and length, and without following anything.

use super::OtlpConfig;
use crate::trust;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mpegflow_protocol::text;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connecting to one address.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of an answer's body that are read.
const MAX_ANSWER: usize = 64 << 10;
/// Bytes of a file of headers.
const MAX_HEADERS: u64 = 16 << 10;
/// The longest time that a collector is left alone because it asked for that.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// For the log. Neither a header nor anything of an answer's body is in it.
    pub(super) why: String,
    /// Whether the same batch may be taken later.
    pub(super) again: bool,
    /// What `Retry-After` asks for.
    pub(super) after: Option<Duration>,
}

impl Refused {
    fn later(why: String) -> Self {
        Self { why, again: true, after: None }
    }
}

/// Sends batches.
#[derive(Clone)]
pub struct Sender {
    url: String,
    headers_file: Option<PathBuf>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Sender {
    /// To the configured collector. Connects to nothing yet.
    ///
    /// # Errors
    /// The certificate authorities cannot be read.
    pub fn new(config: &OtlpConfig) -> io::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        let tls = trust::client(config.ca_file.as_deref())?;
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(https);
        Ok(Self { url: config.endpoint.traces(), headers_file: config.headers_file.clone(), client })
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<(), Refused> {
        let late = || Refused::later(format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, self.attempt(body)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn attempt(&self, body: Bytes) -> Result<(), Refused> {
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("mpegflow-broker/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.headers_file {
            // Each time: a token that was renewed counts with the next batch.
            for (name, value) in headers(file).map_err(Refused::later)? {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::new(body)).map_err(|e| Refused::later(e.to_string()))?;
        let answer = self.client.request(request).await.map_err(|e| Refused::later(text::chain(&e)))?;
        let status = answer.status();
        let after =
            answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        // To its end, so that the connection can be used again; what it says is not needed.
        let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        if status.is_success() {
            return Ok(());
        }
        // The four that the specification of OTLP calls retryable.
        let again = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let after = after.map(|s| Duration::from_secs(s).min(MOST_RETRY_AFTER));
        Err(Refused { why: format!("it answers {}", status.as_u16()), again, after })
    }
}

/// The headers of a file: `Name: value`, one a line.
///
/// # Errors
/// It cannot be read, or a line is none. Nothing of what it holds is in the text.
pub fn headers(file: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let of = |what: &str| format!("{}: {what}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let read = opened.take(MAX_HEADERS.saturating_add(1)).read_to_string(&mut text);
    if read.map_err(|e| format!("cannot read {}: {e}", file.display()))?
        > usize::try_from(MAX_HEADERS).unwrap_or(0)
    {
        return Err(of("it is longer than 16 KiB"));
    }
    let mut all = Vec::new();
    for (number, line) in (1_u32..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| of(&format!("line {number}: {what}"));
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("write `Name: value`"))?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong("that is no header's name"))?;
        let framing = [
            header::HOST,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
        ];
        if framing.contains(&name) {
            return Err(wrong("that header is the request's own"));
        }
        let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong("that is no header's value"))?;
        value.set_sensitive(true);
        all.push((name, value));
    }
    if all.is_empty() {
        return Err(of("it holds no header; write `Name: value`"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_headers_is_read_and_what_it_holds_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            headers(&path)
        };
        let good = read("Authorization: Bearer swordfish\n\nx-scope: a:b\r\n").unwrap();
        assert_eq!(good.len(), 2);
        assert!(good.iter().all(|(_, value)| !format!("{value:?}").contains("swordfish")));
        assert_eq!(good[1].1.to_str().unwrap(), "a:b");
        let long = format!("a: {}", "swordfish".repeat(4_000));
        for bad in [
            "",
            "swordfish",
            "swordfish swordfish: a",
            "a: swordfish\u{1}",
            "Content-Length: 5",
            "host: swordfish",
            long.as_str(),
        ] {
            let error = read(bad).unwrap_err();
            assert!(!error.contains("swordfish"), "{error}");
        }
        assert!(headers(&dir.path().join("none")).unwrap_err().contains("cannot read"));
    }
}
