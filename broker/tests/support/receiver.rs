//! A receiver of webhooks: keeps what it gets, and answers as it is told.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio_rustls::TlsAcceptor;

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Got {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct State {
    got: Vec<Got>,
    answers: VecDeque<(u16, Option<(&'static str, String)>)>,
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// With TLS, for that name; and the file with its authority.
    pub async fn start_tls(name: &str, dir: &std::path::Path) -> (Self, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let file = dir.join("receiver-ca.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await, file)
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&receiver.state);
        let router = axum::Router::new().fallback(move |request: Request| {
            let state = Arc::clone(&state);
            async move { take(&state, request).await }
        });
        let limits = mpegflow_broker::http::serve::Limits::default();
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(mpegflow_broker::http::serve::run(
            listener,
            tls,
            router,
            limits,
            Default::default(),
            stop,
        ));
        receiver
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}/in?token=t", self.address)
    }

    /// The next answers; 204 after them.
    pub fn answer(&self, status: u16, header: Option<(&'static str, String)>) {
        self.state().answers.push_back((status, header));
    }

    pub fn got(&self) -> Vec<Got> {
        self.state().got.clone()
    }
}

async fn take(state: &Mutex<State>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    let mut state = state.lock().unwrap();
    state.got.push(Got { path: head.uri.to_string(), headers, body });
    let (status, header) = state.answers.pop_front().unwrap_or((204, None));
    let mut response =
        Response::new(Body::from(if status == 204 { "" } else { "the secrets of the inside" }));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
