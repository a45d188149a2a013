//! The HTTP side against a broker of a few lines: mutual TLS, enrolment, renewal, what statuses mean, and that it comes back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test helpers"
)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mpegflow_protocol::ids::{AttemptId, WorkerId};
use mpegflow_protocol::worker::{
    Enroll, Enrolled, JoinFile, LeaseReply, PART_DIGEST_HEADER, Renew, Signed, SignedUrl, UrlReply,
};
use mpegflow_protocol::{from_json, to_json};
use mpegflow_worker::broker::{Broker, CallError, Chunks, Grant};
use mpegflow_worker::http::{EnrollError, HttpBroker, Join};
use mpegflow_worker::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "join-token-of-the-test";

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }
}

#[derive(Default)]
struct Seen {
    enrolled: u128,
    renewed: u32,
    /// Token and public key of each enrolment and renewal.
    shown: Vec<(Option<String>, Vec<u8>)>,
    /// Method, path, bearer and part digest of each call with a client certificate.
    calls: Vec<(String, String, String, String)>,
    /// Identities up to this one are forgotten.
    forgotten: u128,
    expires_in_s: u64,
    answer: Option<StatusCode>,
    /// What calls whose path ends so are answered, one after the other.
    script: VecDeque<(&'static str, u16, Vec<u8>)>,
}

struct Server {
    address: SocketAddr,
    ca: Arc<Ca>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen = Arc::new(Mutex::new(Seen { expires_in_s: 3600, ..Seen::default() }));
        Self::start_on(listener, Arc::new(Ca::new()), seen)
    }

    fn start_on(listener: TcpListener, ca: Arc<Ca>, seen: Arc<Mutex<Seen>>) -> Self {
        let address = listener.local_addr().unwrap();
        let acceptor = acceptor(&ca);
        let task = tokio::spawn({
            let (ca, seen) = (Arc::clone(&ca), Arc::clone(&seen));
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    let (acceptor, ca, seen) = (acceptor.clone(), Arc::clone(&ca), Arc::clone(&seen));
                    connections.spawn(async move {
                        let Ok(tls) = acceptor.accept(tcp).await else { return };
                        let certified = tls.get_ref().1.peer_certificates().is_some();
                        let service = service_fn(move |request| {
                            answer(request, certified, Arc::clone(&ca), Arc::clone(&seen))
                        });
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(tls), service)
                            .await;
                    });
                }
            }
        });
        Self { address, ca, seen, task }
    }

    fn join(&self) -> Join {
        self.join_with(TOKEN, "broker.test", &self.ca.pem).unwrap()
    }

    fn join_with(&self, token: &str, name: &str, ca: &str) -> Result<Join, mpegflow_worker::http::JoinError> {
        Join::parse(JoinFile {
            broker: self.address.to_string(),
            server_name: name.into(),
            ca: ca.into(),
            token: token.into(),
            token_file: None,
            pool: "default".parse().unwrap(),
            unreachable: Vec::new(),
            storage: Vec::new(),
        })
    }
}

fn acceptor(ca: &Ca) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["broker.test".into()]).unwrap();
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn answer(
    request: Request<Incoming>,
    certified: bool,
    ca: Arc<Ca>,
    seen: Arc<Mutex<Seen>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header =
        |name: &str| head.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let status = |status| Response::builder().status(status).body(Full::default()).unwrap();
    let mut seen = seen.lock().unwrap();
    let identity = |seen: &mut Seen, csr: &str, worker: u128| {
        let csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        use rcgen::PublicKeyData as _;
        if let Some((_, key)) = seen.shown.last_mut() {
            *key = csr.public_key.der_bytes().to_vec();
        }
        let chain = csr.signed_by(&ca.issuer).unwrap().pem();
        let enrolled = Enrolled {
            worker: WorkerId::from_u128(worker),
            certificate: chain,
            expires_in_s: seen.expires_in_s,
        };
        Response::new(Full::new(Bytes::from(to_json(&enrolled))))
    };
    let path = head.uri.path().to_owned();
    Ok(match (&head.method, path.as_str()) {
        (&Method::POST, "/worker/v1/enroll") => {
            let enroll: Enroll = from_json("enroll", &body, 1 << 20).unwrap();
            if enroll.token != TOKEN || certified {
                return Ok(status(StatusCode::UNAUTHORIZED));
            }
            seen.enrolled += 1;
            seen.shown.push((Some(enroll.token.clone()), Vec::new()));
            let worker = seen.enrolled;
            identity(&mut seen, &enroll.csr, worker)
        }
        _ if seen.script.front().is_some_and(|(end, ..)| path.ends_with(end)) => {
            seen.calls.push((head.method.to_string(), path, header("authorization"), String::new()));
            let (_, status, body) = seen.script.pop_front().unwrap();
            Response::builder().status(status).body(Full::from(body)).unwrap()
        }
        _ if !certified => status(StatusCode::UNAUTHORIZED),
        _ if seen.enrolled <= seen.forgotten => status(StatusCode::UNAUTHORIZED),
        (&Method::POST, "/worker/v1/renew") => {
            seen.renewed += 1;
            let renew: Renew = from_json("renew", &body, 1 << 20).unwrap();
            seen.shown.push((renew.token.clone(), Vec::new()));
            let worker = seen.enrolled;
            identity(&mut seen, &renew.csr, worker)
        }
        (&Method::POST, "/worker/v1/lease") => {
            Response::new(Full::new(Bytes::from(to_json(&LeaseReply::Idle {}))))
        }
        (method, _) => {
            let call =
                (method.to_string(), path.clone(), header("authorization"), header(PART_DIGEST_HEADER));
            seen.calls.push(call);
            match (seen.answer, header("range").as_str()) {
                (Some(code), _) => status(code),
                (None, "bytes=2-5") => Response::builder()
                    .status(206)
                    .header("content-range", "bytes 2-5/10")
                    .header("etag", "\"v7\"")
                    .body(Full::from("2345"))
                    .unwrap(),
                (None, "bytes=0-1") => Response::new(Full::from("01")),
                (None, range) if !range.is_empty() => Response::builder()
                    .status(206)
                    .header("content-range", "bytes 0-3/10")
                    .body(Full::from("0123"))
                    .unwrap(),
                (None, _) => status(StatusCode::NO_CONTENT),
            }
        }
    })
}

fn grant() -> Grant {
    Grant { attempt: AttemptId::from_u128(5), capability: Secret::new("cap".into()) }
}

#[tokio::test]
async fn a_worker_enrols_and_every_call_carries_its_certificate_and_capability() {
    let server = Server::start().await;
    let broker = HttpBroker::enroll(server.join()).await.unwrap();
    assert_eq!(broker.worker(), WorkerId::from_u128(1));
    assert_eq!(broker.lease(Duration::from_millis(10)).await, Ok(LeaseReply::Idle {}));
    broker.put_part(&grant(), 3, 4, Bytes::from_static(b"part"), "00ff").await.unwrap();
    let mut body = broker.read(&grant(), 1, 2..6).await.unwrap();
    assert_eq!((body.total, body.version.as_deref()), (10, Some("\"v7\"")));
    assert_eq!(body.chunks.next().await, Some(Ok(Bytes::from_static(b"2345"))));
    assert_eq!(body.chunks.next().await, None);
    let attempt = grant().attempt;
    let put = format!("/worker/v1/attempts/{attempt}/outputs/3/parts/4");
    let get = format!("/worker/v1/attempts/{attempt}/inputs/1");
    let call = |m: &str, p: String, d: &str| (m.to_owned(), p, "Bearer cap".to_owned(), d.to_owned());
    assert_eq!(server.seen.lock().unwrap().calls, [call("PUT", put, "00ff"), call("GET", get, "")]);
}

#[tokio::test]
async fn a_presigned_part_goes_to_storage_and_counts_when_the_broker_says_so() {
    let server = Server::start().await;
    // It is storage as well.
    let url = format!("https://broker.test:{}/bucket/object?X-Amz-Signature=1", server.address.port());
    let signed = || {
        let (url, ca) = (SignedUrl::new(url.clone()), server.ca.pem.clone());
        let signed = Signed { url, headers: vec![], addresses: vec![server.address], ca };
        ("/url", 200, to_json(&UrlReply::Signed(Box::new(signed))))
    };
    let says = |reply: UrlReply| ("/url", 200, to_json(&reply));
    let storage = |status| ("/bucket/object", status, Vec::new());
    let stored = |status| ("/stored", status, Vec::new());
    let part = Bytes::from(vec![7; 300_000]);
    // What is sent, what the calls are answered with, what comes of it, and which calls there are.
    type Script = Vec<(&'static str, u16, Vec<u8>)>;
    let run = async |broker: &HttpBroker, bytes: &Bytes, output: u32, part: u32, script: Script| {
        {
            let mut seen = server.seen.lock().unwrap();
            (seen.script, seen.calls) = (script.into(), Vec::new());
        }
        let sent = broker.put_part(&grant(), output, part, bytes.clone(), "00ff").await;
        let seen = server.seen.lock().unwrap();
        assert!(seen.script.is_empty(), "{:?}", seen.script);
        let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let calls: Vec<String> =
            seen.calls.iter().map(|(method, path, ..)| format!("{method} {}", last(path))).collect();
        let to_storage = seen.calls.iter().filter(|(_, path, ..)| path == "/bucket/object");
        assert!(
            to_storage.clone().all(|(_, _, bearer, _)| bearer.is_empty()),
            "storage is shown no capability"
        );
        (sent, calls.join(", "))
    };
    let presigned = || async {
        let mut join = server.join();
        join.storage = vec![server.address.to_string().parse().unwrap()];
        HttpBroker::enroll(join).await.unwrap()
    };
    let by_url = "POST url, PUT object, POST stored";
    let broker = presigned().await;
    let (sent, calls) = run(&broker, &part, 0, 0, vec![signed(), storage(200), stored(204)]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), by_url));
    // An answer that was lost may have been a good one.
    let (sent, calls) = run(&broker, &part, 0, 0, vec![signed(), storage(500), stored(204)]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), by_url));
    for (of_storage, of_broker) in [(500, 422), (403, 422), (404, 422), (200, 422), (200, 503)] {
        let script = vec![signed(), storage(of_storage), stored(of_broker)];
        let (sent, calls) = run(&broker, &part, 0, 0, script).await;
        assert!(matches!(&sent, Err(e) if e.is_transient()), "{of_storage} {of_broker}: {sent:?}");
        assert!(!format!("{sent:?}").contains("X-Amz"));
        assert_eq!(calls, by_url);
    }
    let (sent, _) = run(&broker, &part, 0, 0, vec![signed(), storage(200), stored(409)]).await;
    assert_eq!(sent, Err(CallError::LeaseLost));
    assert_eq!(run(&broker, &part, 0, 0, vec![("/url", 409, vec![])]).await.0, Err(CallError::LeaseLost));
    let (sent, calls) = run(&broker, &part, 0, 0, vec![says(UrlReply::Stored {})]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), "POST url"));
    // An output that is brokered stays so; others are asked for.
    let (sent, calls) = run(&broker, &part, 1, 0, vec![says(UrlReply::Brokered {})]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), "POST url, PUT 0"));
    assert_eq!(run(&broker, &part, 1, 1, vec![]).await, (Ok(()), "PUT 1".into()));
    let (sent, calls) = run(&broker, &part, 0, 1, vec![signed(), storage(200), stored(204)]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), by_url));
    // What is short is not asked for.
    assert_eq!(run(&broker, &Bytes::from_static(b"short"), 0, 2, vec![]).await, (Ok(()), "PUT 2".into()));
    // A pool that is not presigned any more.
    let (sent, calls) = run(&broker, &part, 0, 2, vec![("/url", 403, vec![])]).await;
    assert_eq!((sent, calls.as_str()), (Ok(()), "POST url, PUT 2"));
    assert_eq!(run(&broker, &part, 0, 3, vec![]).await, (Ok(()), "PUT 3".into()));
    // And one that never was.
    let strict = HttpBroker::enroll(server.join()).await.unwrap();
    assert_eq!(run(&strict, &part, 0, 0, vec![]).await, (Ok(()), "PUT 0".into()));
    // A broker that is not honest sends it nowhere else.
    let broker = presigned().await;
    let elsewhere = Signed {
        url: SignedUrl::new(url.clone()),
        headers: vec![],
        addresses: vec![([192, 0, 2, 1], 443).into()],
        ca: server.ca.pem.clone(),
    };
    let script = vec![says(UrlReply::Signed(Box::new(elsewhere))), stored(422)];
    let (sent, calls) = run(&broker, &part, 0, 0, script).await;
    assert!(matches!(sent, Err(CallError::Malformed(_))), "{sent:?}");
    assert_eq!(calls, "POST url, POST stored");
}

#[tokio::test]
async fn a_pod_shows_its_token_as_it_is_now_and_one_key_for_its_life() {
    let server = Server::start().await;
    server.seen.lock().unwrap().expires_in_s = 2;
    let dir = tempfile::tempdir().unwrap();
    let file = JoinFile {
        broker: server.address.to_string(),
        server_name: "broker.test".into(),
        ca: server.ca.pem.clone(),
        token: String::new(),
        token_file: Some("token".into()),
        pool: "default".parse().unwrap(),
        unreachable: Vec::new(),
        storage: Vec::new(),
    };
    let path = dir.path().join("join.json");
    std::fs::write(&path, to_json(&file)).unwrap();
    let join = || Join::read(&path).and_then(|join| join.with_key(Some(dir.path()))).unwrap();
    // The kubelet is late with it.
    let late = tokio::spawn(HttpBroker::enroll(join()));
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let broker = Arc::new(late.await.unwrap().unwrap());
    std::fs::write(dir.path().join("token"), "fresh").unwrap();
    let renewing = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.keep_renewed().await }
    });
    while server.seen.lock().unwrap().renewed == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    renewing.abort();
    // A container that starts again finds the key of its pod.
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    HttpBroker::enroll(join()).await.unwrap();
    let shown = server.seen.lock().unwrap().shown.clone();
    let key = &shown[0].1;
    assert!(!key.is_empty() && shown.iter().all(|(_, other)| other == key), "another key");
    let tokens: Vec<_> = shown.iter().map(|(token, _)| token.as_deref().unwrap()).collect();
    assert_eq!((tokens[0], tokens[1], tokens[tokens.len() - 1]), (TOKEN, "fresh", TOKEN));
}

#[tokio::test]
async fn an_answer_that_is_not_the_range_is_refused() {
    let server = Server::start().await;
    let broker = HttpBroker::enroll(server.join()).await.unwrap();
    for range in [0..2, 1..5, 0..9] {
        let read = broker.read(&grant(), 0, range.clone()).await.map(|_| ());
        assert!(matches!(read, Err(CallError::Malformed(_))), "{range:?}: {read:?}");
    }
}

#[tokio::test]
async fn statuses_have_one_meaning_each() {
    let server = Server::start().await;
    let broker = HttpBroker::enroll(server.join()).await.unwrap();
    let answer = async |code: u16| {
        server.seen.lock().unwrap().answer = Some(StatusCode::from_u16(code).unwrap());
        broker.release(&grant()).await.unwrap_err()
    };
    assert_eq!(answer(409).await, CallError::LeaseLost);
    assert_eq!(answer(401).await, CallError::UnknownIdentity);
    assert_eq!(answer(507).await, CallError::StorageFull);
    assert!(matches!(answer(404).await, CallError::Changed(_)));
    assert!(matches!(answer(503).await, CallError::Unavailable(_)));
    assert!(matches!(answer(429).await, CallError::Unavailable(_)));
    assert!(matches!(answer(403).await, CallError::Refused { status: 403, .. }));
}

#[tokio::test]
async fn a_wrong_token_is_refused_at_once() {
    let server = Server::start().await;
    let join = server.join_with("wrong", "broker.test", &server.ca.pem).unwrap();
    let refused = HttpBroker::enroll(join).await;
    assert!(matches!(refused, Err(EnrollError::Token)));
}

#[tokio::test]
async fn another_ca_or_another_name_is_never_talked_to() {
    let server = Server::start().await;
    for join in [
        server.join_with(TOKEN, "broker.test", &Ca::new().pem).unwrap(),
        server.join_with(TOKEN, "other.test", &server.ca.pem).unwrap(),
    ] {
        let enrolled = tokio::time::timeout(Duration::from_millis(700), HttpBroker::enroll(join)).await;
        assert!(enrolled.is_err());
    }
    assert_eq!(server.seen.lock().unwrap().enrolled, 0);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life_and_an_open_transfer_goes_on() {
    let server = Server::start().await;
    server.seen.lock().unwrap().expires_in_s = 2;
    let broker = Arc::new(HttpBroker::enroll(server.join()).await.unwrap());
    let mut body = broker.read(&grant(), 1, 2..6).await.unwrap();
    let renewing = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.keep_renewed().await.map(|_| ()) }
    });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(server.seen.lock().unwrap().renewed, 1);
    assert_eq!(broker.worker(), WorkerId::from_u128(1));
    assert_eq!(body.chunks.next().await, Some(Ok(Bytes::from_static(b"2345"))));
    assert!(broker.lease(Duration::ZERO).await.is_ok());
    renewing.abort();
}

#[tokio::test]
async fn an_unknown_worker_enrols_again_once() {
    let server = Server::start().await;
    let broker = HttpBroker::enroll(server.join()).await.unwrap();
    server.seen.lock().unwrap().forgotten = 1;
    assert_eq!(broker.lease(Duration::ZERO).await, Err(CallError::UnknownIdentity));
    let stale = broker.worker();
    broker.unknown(stale).await.unwrap();
    broker.unknown(stale).await.unwrap();
    assert_eq!(broker.worker(), WorkerId::from_u128(2));
    assert!(broker.lease(Duration::ZERO).await.is_ok());
    assert_eq!(server.seen.lock().unwrap().enrolled, 2);
}

#[tokio::test]
async fn a_broker_that_restarts_on_its_address_is_found_again() {
    let server = Server::start().await;
    let broker = HttpBroker::enroll(server.join()).await.unwrap();
    assert!(broker.lease(Duration::ZERO).await.is_ok());
    server.task.abort();
    let _ = server.task.await;
    let away = broker.lease(Duration::ZERO).await;
    assert!(matches!(away, Err(CallError::Unavailable(_))), "{away:?}");
    let listener = TcpListener::bind(server.address).await.unwrap();
    let again = Server::start_on(listener, server.ca, server.seen);
    let back = broker.lease(Duration::ZERO).await;
    assert!(back.is_ok(), "{back:?}");
    again.task.abort();
}

#[test]
fn a_join_file_that_cannot_be_used_says_why() {
    let file = |broker: &str, name: &str, ca: &str| {
        let pool = "default".parse().unwrap();
        Join::parse(JoinFile {
            broker: broker.into(),
            server_name: name.into(),
            ca: ca.into(),
            token: "t".into(),
            token_file: None,
            pool,
            unreachable: Vec::new(),
            storage: Vec::new(),
        })
    };
    let ca = Ca::new().pem;
    assert!(file("localhost:7000", "broker", &ca).is_ok());
    assert!(file("[::1]:7000", "127.0.0.1", &ca).is_ok());
    for (broker, name, ca, why) in [
        ("localhost", "broker", ca.as_str(), "`broker`"),
        ("a@localhost:1", "broker", &ca, "`broker`"),
        ("localhost:7000/x", "broker", &ca, "`broker`"),
        ("localhost:7000", "not a name", &ca, "`server_name`"),
        ("localhost:7000", "broker", "", "`ca`"),
        (
            "localhost:7000",
            "broker",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "`ca`",
        ),
    ] {
        let error = file(broker, name, ca).unwrap_err().to_string();
        assert!(error.contains(why), "{broker} {name}: {error}");
    }
    let secret = file("localhost:7000", "broker", &ca).map(|join| format!("{join:?}")).unwrap();
    assert!(secret.contains("token: Join([secret])"), "{secret}");
}
