//! Storage as a worker of a presigned pool reaches it: one that is hostile, dead or not the one it should be.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "tests"
)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mpegflow_protocol::failure::FailureClass;
use mpegflow_protocol::limits::MAX_STORAGE_CA;
use mpegflow_protocol::worker::{Signed, SignedUrl};
use mpegflow_worker::attempt::stop::Stop;
use mpegflow_worker::broker::{CallError, Chunks as _};
use mpegflow_worker::http::Storage;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
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
    let tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
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
    let expected = ("GET", Some("bytes=2-4".into()), Some("\"v\"".into()), Some(format!("{NAME}:{port}")));
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
    let other = mpegflow_test_ports::address();
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
    let stranger = crate::server(|request| range(&request)).await;
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
    let dead = mpegflow_test_ports::address();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [dead, silent.local_addr().unwrap()] {
        let storage =
            Storage::new(vec![address.to_string().parse().unwrap()]).within(Duration::from_millis(200));
        let url = SignedUrl::new(format!("https://{NAME}:{}/b/k?{QUERY}", address.port()));
        let signed = Signed { url, addresses: vec![address], ..gone.signed() };
        let error = storage.write(&signed, Bytes::from_static(b"x")).await.unwrap_err();
        assert!(!error.to_string().contains("X-Amz"), "{error}");
        let Stop::Fail(failure) = Stop::of_call(&error, "sending part 0 of output 0") else { panic!() };
        assert_eq!(failure.code.class(), FailureClass::Storage, "{failure}");
    }
}
