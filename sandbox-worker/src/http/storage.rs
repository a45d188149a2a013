//! Storage of a presigned pool: one request at a time, as the broker has signed it, to an address that the broker has named and the join
//! file admits. No name is looked up and no redirect followed; TLS is checked against the URL's host and the authorities that came with
//! it, and nobody else's. A URL is in no error and in no log.

use crate::broker::{Body, CallError};
use crate::http::call::{BodyChunks, chain, collected, ranged};
use crate::http::session::PART;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mpegflow_protocol::endpoint::StorageEndpoint;
use mpegflow_protocol::limits::{MAX_API_BODY, MAX_STORAGE_CA};
use mpegflow_protocol::worker::Signed;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// For a connection, TLS aside.
const CONNECT: Duration = Duration::from_secs(10);
/// For the head of an answer with bytes.
const HEAD: Duration = Duration::from_secs(30);
/// Places that connections are kept to: the shared storage and a tenant's own.
const PLACES: usize = 4;
/// Headers that a request may have signed.
const MOST_HEADERS: usize = 16;

/// A pool of connections to one place.
type Client = Pooled<HttpsConnector<HttpConnector<Fixed>>, Full<Bytes>>;

/// Where storage is, and whom to trust there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    authority: String,
    addresses: Vec<SocketAddr>,
    ca: String,
}

/// Connections to storage.
#[derive(Debug)]
pub struct Storage {
    admitted: Vec<StorageEndpoint>,
    /// For the head of an answer to a read, and for all of a part and its answer.
    within: (Duration, Duration),
    // Most recently used last.
    clients: Mutex<Vec<(Place, Client)>>,
}

impl Storage {
    /// To these endpoints and to no other.
    pub const fn new(admitted: Vec<StorageEndpoint>) -> Self {
        Self { admitted, within: (HEAD, PART), clients: Mutex::new(Vec::new()) }
    }

    /// The same, giving up after this time.
    #[must_use]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = (limit, limit);
        self
    }

    /// Reads a range.
    ///
    /// # Errors
    /// It is not admitted, or storage does not answer with the range.
    pub async fn read(&self, signed: &Signed, range: Range<u64>) -> Result<Body<BodyChunks>, CallError> {
        let body = ranged(self.send(Method::GET, signed, Bytes::new(), self.within.0).await?, &range)?;
        tracing::debug!(?range, "a range comes from storage");
        Ok(body)
    }

    /// Writes a part.
    ///
    /// # Errors
    /// It is not admitted, or storage does not take it.
    pub async fn write(&self, signed: &Signed, bytes: Bytes) -> Result<(), CallError> {
        let len = bytes.len();
        let answer = self.send(Method::PUT, signed, bytes, self.within.1).await?;
        collected(answer.into_body(), MAX_API_BODY).await?;
        tracing::debug!(len, "a part went to storage");
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        signed: &Signed,
        body: Bytes,
        within: Duration,
    ) -> Result<Response<Incoming>, CallError> {
        let uri: Uri = signed.url.expose().parse().map_err(|_| malformed("a URL that is none"))?;
        let client = self.client(&uri, signed)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if signed.headers.len() > MOST_HEADERS {
            return Err(malformed("too many signed headers"));
        }
        for (name, value) in &signed.headers {
            let name = HeaderName::try_from(name).map_err(|_| malformed("a signed header that is none"))?;
            let value =
                HeaderValue::try_from(value).map_err(|_| malformed("a signed header that is none"))?;
            // hyper makes these of the URL and of the body; what differs from what was signed is refused by storage.
            if name != HOST && name != CONTENT_LENGTH {
                request.headers_mut().append(name, value);
            }
        }
        match timeout(within, client.request(request)).await {
            Ok(Ok(answer)) => judged(answer).await,
            Ok(Err(error)) => Err(CallError::Unavailable(format!("storage: {}", chain(&error)))),
            Err(_) => {
                Err(CallError::Unavailable(format!("storage gave no answer within {} s", within.as_secs())))
            }
        }
    }

    /// The connections to where a URL leads. A broker that names an address that the pool does not admit is not followed.
    fn client(&self, uri: &Uri, signed: &Signed) -> Result<Client, CallError> {
        let authority = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTPS));
        let authority = authority.ok_or_else(|| malformed("a URL without TLS"))?;
        if authority.as_str().contains('@') {
            return Err(malformed("a URL with a user"));
        }
        let is_admitted = |address: &SocketAddr| self.admitted.iter().any(|endpoint| endpoint.holds(address));
        let port = authority.port_u16().unwrap_or(443);
        let addresses: Vec<SocketAddr> = signed.addresses.clone();
        if addresses.is_empty() || !addresses.iter().all(|a| is_admitted(a) && a.port() == port) {
            return Err(malformed("an address of storage that this pool does not admit"));
        }
        // The connector goes to a host that is an address without asking anybody.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.parse::<IpAddr>().is_ok_and(|ip| addresses.iter().any(|address| address.ip() != ip)) {
            return Err(malformed("a URL of another address"));
        }
        let place = Place { authority: authority.as_str().to_owned(), addresses, ca: signed.ca.clone() };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = clients.iter().position(|(known, _)| *known == place) {
            let found = clients.remove(at);
            let client = found.1.clone();
            clients.push(found);
            return Ok(client);
        }
        let client = client(&place)?;
        if clients.len() >= PLACES {
            clients.remove(0);
        }
        clients.push((place, client.clone()));
        Ok(client)
    }
}

fn malformed(what: &str) -> CallError {
    CallError::Malformed(what.to_owned())
}

fn client(place: &Place) -> Result<Client, CallError> {
    let mut roots = RootCertStore::empty();
    if place.ca.len() > MAX_STORAGE_CA {
        return Err(malformed("too many authorities of storage"));
    }
    for certificate in CertificateDer::pem_slice_iter(place.ca.as_bytes()) {
        let certificate = certificate.map_err(|_| malformed("authorities of storage that are none"))?;
        roots.add(certificate).map_err(|_| malformed("authorities of storage that are none"))?;
    }
    if roots.is_empty() {
        return Err(malformed("no authority of storage"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| CallError::Malformed(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(Fixed(place.addresses.clone()));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
    Ok(Pooled::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // What S3 keeps an idle connection open for is about 20 s.
        .pool_idle_timeout(Duration::from_secs(15))
        .pool_max_idle_per_host(4)
        .http1_max_buf_size(256 << 10)
        .build(connector))
}

/// What a status of storage means. None of them is the lease's end, and what may pass is asked for anew, with another URL.
async fn judged(answer: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    // Read, so that the connection can be used again, and not repeated: an error of S3 names the object.
    let _ = collected(answer.into_body(), MAX_API_BODY).await;
    Err(match status {
        StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => {
            CallError::Changed(format!("storage answered {status}"))
        }
        StatusCode::INSUFFICIENT_STORAGE => CallError::StorageFull,
        status => CallError::Unavailable(format!("storage answered {status}")),
    })
}

/// Every name is at these addresses.
#[derive(Debug, Clone)]
struct Fixed(Vec<SocketAddr>);

impl tower::Service<Name> for Fixed {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        std::future::ready(Ok(self.0.clone().into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpegflow_protocol::worker::SignedUrl;

    #[test]
    fn a_few_places_are_remembered() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let address: SocketAddr = ([192, 0, 2, 1], 443).into();
        let storage = Storage::new(vec![address.to_string().parse().unwrap()]);
        let url = "https://storage.invalid/bucket/object";
        let uri: Uri = url.parse().unwrap();
        for n in 0..3 * PLACES {
            let (url, ca) = (SignedUrl::new(url.into()), format!("{ca}{}", "\n".repeat(n)));
            let signed = Signed { url, headers: vec![], addresses: vec![address], ca };
            storage.client(&uri, &signed).unwrap();
            storage.client(&uri, &signed).unwrap();
        }
        assert_eq!(storage.clients.lock().unwrap().len(), PLACES);
    }
}
