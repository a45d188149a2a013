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
pub(super) struct Storage {
    admitted: Vec<StorageEndpoint>,
    // Most recently used last.
    clients: Mutex<Vec<(Place, Client)>>,
}

impl Storage {
    /// To these endpoints and to no other.
    pub(super) const fn new(admitted: Vec<StorageEndpoint>) -> Self {
        Self { admitted, clients: Mutex::new(Vec::new()) }
    }

    /// Reads a range.
    pub(super) async fn read(
        &self,
        signed: &Signed,
        range: Range<u64>,
    ) -> Result<Body<BodyChunks>, CallError> {
        let body = ranged(self.send(Method::GET, signed, Bytes::new(), HEAD).await?, &range)?;
        tracing::debug!(?range, "a range comes from storage");
        Ok(body)
    }

    /// Writes a part.
    pub(super) async fn write(&self, signed: &Signed, bytes: Bytes) -> Result<(), CallError> {
        let len = bytes.len();
        let answer = self.send(Method::PUT, signed, bytes, PART).await?;
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
    use crate::attempt::stop::Stop;
    use crate::broker::Chunks as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use mpegflow_protocol::failure::FailureClass;
    use mpegflow_protocol::worker::SignedUrl;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    const NAME: &str = "storage.invalid";
    const QUERY: &str = "X-Amz-Signature=5ec2e7";

    /// Storage of one answer.
    struct Server {
        address: SocketAddr,
        ca: String,
        asked: Arc<AtomicUsize>,
    }

    type Answer = Response<Full<Bytes>>;

    async fn server(answer: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> Server {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (answer, count) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, answer, count) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| {
                        count.fetch_add(1, Ordering::Relaxed);
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Server { address, ca, asked }
    }

    impl Server {
        fn signed(&self) -> Signed {
            Signed {
                url: SignedUrl::new(format!("https://{NAME}:{}/b/k?{QUERY}", self.address.port())),
                headers: vec![("range".into(), "bytes=2-4".into()), ("if-match".into(), "\"v\"".into())],
                addresses: vec![self.address],
                ca: self.ca.clone(),
            }
        }

        fn storage(&self) -> Storage {
            Storage::new(vec![self.address.to_string().parse().unwrap()])
        }
    }

    fn range(request: &Request<Incoming>) -> Answer {
        let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let asked = (request.method().as_str(), header("range"), header("if-match"), header("host"));
        let port = request.headers()["host"].to_str().unwrap().split_once(':').unwrap().1.to_owned();
        let expected =
            ("GET", Some("bytes=2-4".into()), Some("\"v\"".into()), Some(format!("{NAME}:{port}")));
        assert_eq!(asked, expected);
        let answer =
            Response::builder().status(206).header("content-range", "bytes 2-4/9").header("etag", "\"v\"");
        answer.body(Full::from("cde")).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_no_resolver_knows_is_read_from_at_the_address_that_was_named() {
        let server = server(|request| range(&request)).await;
        let mut body = server.storage().read(&server.signed(), 2..5).await.unwrap();
        assert_eq!((body.total, body.version.as_deref()), (9, Some("\"v\"")));
        assert_eq!(body.chunks.next().await.unwrap().unwrap(), "cde");
        assert!(body.chunks.next().await.is_none());
        // Another range than was asked for is nothing.
        let other = server.storage().read(&server.signed(), 1..5).await;
        assert!(matches!(other, Err(CallError::Malformed(_))), "{other:?}");
    }

    #[tokio::test]
    async fn nobody_is_asked_whom_the_pool_does_not_admit_or_who_cannot_be_trusted() {
        let server = server(|request| range(&request)).await;
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let port = server.address.port();
        let url = |text: String| Signed { url: SignedUrl::new(text), ..server.signed() };
        let refused = [
            Signed { addresses: vec![], ..server.signed() },
            Signed { addresses: vec![other], ..server.signed() },
            Signed { addresses: vec![server.address, other], ..server.signed() },
            url(format!("http://{NAME}:{port}/b/k?{QUERY}")),
            url(format!("https://u:p@{NAME}:{port}/b/k?{QUERY}")),
            url(format!("https://{NAME}:{}/b/k?{QUERY}", other.port())),
            url(format!("https://{NAME}/b/k?{QUERY}")),
            // The host is where the connector would go.
            url(format!("https://169.254.169.254:{port}/b/k?{QUERY}")),
            url(format!("https://[::1]:{port}/b/k?{QUERY}")),
            url(format!("/b/k?{QUERY}")),
            Signed { ca: String::new(), ..server.signed() },
            Signed { ca: "x".repeat(MAX_STORAGE_CA + 1), ..server.signed() },
            Signed { headers: vec![("range\n".into(), "x".into())], ..server.signed() },
            Signed { headers: vec![("range".into(), "x\r\nhost: y".into())], ..server.signed() },
        ];
        for signed in refused {
            let error = server.storage().read(&signed, 2..5).await.unwrap_err();
            assert!(matches!(error, CallError::Malformed(_)), "{error:?}: {}", signed.url.expose());
            assert!(!format!("{error} {error:?} {signed:?}").contains("X-Amz"), "{error}");
        }
        // Storage that shows another authority's certificate, or one of another name.
        let stranger = self::server(|request| range(&request)).await;
        let untrusted = [
            Signed { ca: stranger.ca.clone(), ..server.signed() },
            url(format!("https://other.invalid:{port}/b/k?{QUERY}")),
        ];
        for signed in untrusted {
            let error = server.storage().read(&signed, 2..5).await.unwrap_err();
            assert!(matches!(error, CallError::Unavailable(_)), "{error:?}");
            assert!(!error.to_string().contains("X-Amz"), "{error}");
        }
        assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn no_redirect_is_followed_and_what_may_pass_is_a_failure_of_storage() {
        let elsewhere = server(|request| range(&request)).await;
        let location = format!("https://{NAME}:{}/b/k", elsewhere.address.port());
        for (status, is_transient) in [
            (301, true),
            (307, true),
            (400, true),
            (403, true),
            (404, true),
            (500, true),
            (503, true),
            (412, false),
            (507, false),
        ] {
            let location = location.clone();
            let server = server(move |_| {
                let answer = Response::builder().status(status).header("location", &location);
                answer.body(Full::from("<Error><Key>tnt_1/x</Key></Error>")).unwrap()
            })
            .await;
            let (storage, signed) = (server.storage(), server.signed());
            let errors = [
                storage.read(&signed, 2..5).await.unwrap_err(),
                storage.write(&signed, Bytes::from_static(b"part")).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.is_transient(), is_transient, "{status}: {error:?}");
                assert!(!error.to_string().contains("tnt_"), "{error}");
                let Stop::Fail(failure) = Stop::of_call(&error, "reading input 0") else {
                    panic!("storage says nothing of the lease: {status}")
                };
                assert_eq!(failure.code.class(), FailureClass::Storage, "{status}: {failure}");
            }
            assert_eq!(server.asked.load(Ordering::Relaxed), 2, "each is asked once: {status}");
        }
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn storage_that_is_gone_or_says_nothing_is_given_up_and_is_a_failure_of_storage() {
        let gone = server(|request| range(&request)).await;
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for address in [dead, silent.local_addr().unwrap()] {
            let storage = Storage::new(vec![address.to_string().parse().unwrap()]);
            let url = SignedUrl::new(format!("https://{NAME}:{}/b/k?{QUERY}", address.port()));
            let signed = Signed { url, addresses: vec![address], ..gone.signed() };
            let within = Duration::from_millis(200);
            let error =
                storage.send(Method::PUT, &signed, Bytes::from_static(b"x"), within).await.unwrap_err();
            assert!(!error.to_string().contains("X-Amz"), "{error}");
            let Stop::Fail(failure) = Stop::of_call(&error, "sending part 0 of output 0") else { panic!() };
            assert_eq!(failure.code.class(), FailureClass::Storage, "{failure}");
        }
    }

    #[tokio::test]
    async fn a_few_places_are_remembered() {
        let server = server(|request| range(&request)).await;
        let storage = server.storage();
        for n in 0..3 * PLACES {
            let ca = format!("{}{}", server.ca, "\n".repeat(n));
            storage.read(&Signed { ca, ..server.signed() }, 2..5).await.unwrap();
        }
        assert_eq!(storage.clients.lock().unwrap().len(), PLACES);
    }
}
