//! Calls over mutual TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mpegflow_protocol::api::Problem;
use mpegflow_protocol::control::{self, Cordon, Enroll, Forget, MAX_STATUS, Status, Tenant, Verdict};
use mpegflow_protocol::worker::Enrolled;
use mpegflow_protocol::{text, to_json};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A call is answered within this time or not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest token that is shown.
const MAX_TOKEN: u64 = 8 << 10;
/// Longest reason that is read of a refusal.
const MAX_DETAIL: usize = 256;

type Client = Pooled<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Where the control API is, and who this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its address. An address and no name: the operator needs no DNS.
    pub address: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// File with the authority of that certificate, PEM; read again with each certificate of ours, since it may be replaced.
    pub ca: PathBuf,
    /// File with the token of this pod for the broker; its kubelet renews it.
    pub token: PathBuf,
}

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It says no, and will until something changes.
    #[error("the broker refuses: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Why.
        detail: String,
    },
    /// It does not answer, or says to come back.
    #[error("the broker cannot be asked: {0}")]
    Away(String),
    /// Something here is missing.
    #[error("{0}")]
    Here(String),
}

/// The control API.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    identity: Mutex<Option<Identity>>,
}

#[derive(Debug, Clone)]
struct Identity {
    client: Client,
    renew_at: Instant,
    expires_at: Instant,
}

impl Control {
    /// Nothing is asked before the first call.
    pub fn new(settings: Settings) -> Self {
        Self { settings, identity: Mutex::new(None) }
    }

    /// Pushes a tenant.
    ///
    /// # Errors
    /// It is refused, or the broker is away.
    pub async fn put_tenant(&self, id: &str, tenant: &Tenant) -> Result<(), ControlError> {
        self.call(Method::PUT, &format!("tenants/{id}"), to_json(tenant)).await.map(drop)
    }

    /// Pushes a pool.
    ///
    /// # Errors
    /// It is refused, or the broker is away.
    pub async fn put_pool(&self, name: &str, pool: &control::Pool) -> Result<(), ControlError> {
        self.call(Method::PUT, &format!("pools/{name}"), to_json(pool)).await.map(drop)
    }

    /// Says that a pool is gone.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn forget_pool(&self, name: &str, uid: &str) -> Result<(), ControlError> {
        let body = to_json(&Forget { uid: uid.to_owned() });
        self.call(Method::DELETE, &format!("pools/{name}"), body).await.map(drop)
    }

    /// Asks that pods get no more leases; those that hold none, and get none from now on.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn cordon(&self, name: &str, pods: Vec<String>) -> Result<Vec<String>, ControlError> {
        let answer =
            self.call(Method::POST, &format!("pools/{name}/cordon"), to_json(&Cordon { pods })).await?;
        parse::<Cordon>(&answer).map(|cordon| cordon.pods)
    }

    /// Lets a pool's pods have leases again.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn uncordon(&self, name: &str) -> Result<(), ControlError> {
        self.call(Method::POST, &format!("pools/{name}/uncordon"), Vec::new()).await.map(drop)
    }

    /// Pushes a verdict.
    ///
    /// # Errors
    /// It is refused, or the broker is away.
    pub async fn put_verdict(&self, name: &str, node: &str, verdict: &Verdict) -> Result<(), ControlError> {
        self.call(Method::PUT, &format!("pools/{name}/verdicts/{node}"), to_json(verdict)).await.map(drop)
    }

    /// What the broker sees.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn status(&self) -> Result<Status, ControlError> {
        parse(&self.call(Method::GET, "status", Vec::new()).await?)
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ControlError> {
        let client = self.client().await?;
        let answer = self.send(&client, method.clone(), path, body.clone()).await;
        if !matches!(&answer, Err(ControlError::Refused { status: 401, .. })) {
            return answer;
        }
        // Another broker, another authority: who this is has to be said again.
        *self.identity.lock().await = None;
        let client = self.client().await?;
        self.send(&client, method, path, body).await
    }

    async fn client(&self) -> Result<Client, ControlError> {
        let mut identity = self.identity.lock().await;
        let now = Instant::now();
        if let Some(held) = &*identity
            && now < held.renew_at
        {
            return Ok(held.client.clone());
        }
        match self.enroll().await {
            Ok(fresh) => {
                let client = fresh.client.clone();
                *identity = Some(fresh);
                Ok(client)
            }
            // Half of the hour is left.
            Err(error) => match &*identity {
                Some(held) if now < held.expires_at => Ok(held.client.clone()),
                _ => Err(error),
            },
        }
    }

    async fn enroll(&self) -> Result<Identity, ControlError> {
        let here =
            |e: &dyn std::fmt::Display| ControlError::Here(format!("a certificate cannot be asked for: {e}"));
        let token = {
            use std::io::Read as _;
            let unread =
                |e| ControlError::Here(format!("cannot read {}: {e}", self.settings.token.display()));
            let mut token = String::new();
            let file = std::fs::File::open(&self.settings.token).map_err(unread)?;
            file.take(MAX_TOKEN).read_to_string(&mut token).map_err(unread)?;
            token.trim().to_owned()
        };
        let key = KeyPair::generate().map_err(|e| here(&e))?;
        let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem());
        let enroll = Enroll { token, csr: csr.map_err(|e| here(&e))? };
        let asked = Instant::now();
        let anonymous = self.connect(None)?;
        let answer = self.send(&anonymous, Method::POST, "enroll", to_json(&enroll)).await?;
        let enrolled: Enrolled = parse(&answer)?;
        let life = Duration::from_secs(enrolled.expires_in_s.clamp(2, 24 * 3600));
        let at = |after: Duration| asked.checked_add(after).unwrap_or(asked);
        tracing::info!(expires_in_s = enrolled.expires_in_s, "the broker knows this operator");
        Ok(Identity {
            client: self.connect(Some((&key, &enrolled.certificate)))?,
            renew_at: at(life.checked_div(2).unwrap_or_default()),
            expires_at: at(life),
        })
    }

    fn connect(&self, identity: Option<(&KeyPair, &str)>) -> Result<Client, ControlError> {
        let here = |e: &dyn std::fmt::Display| ControlError::Here(format!("TLS cannot be set up: {e}"));
        let ca = std::fs::read(&self.settings.ca)
            .map_err(|e| ControlError::Here(format!("cannot read {}: {e}", self.settings.ca.display())))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate.map_err(|e| here(&e))?).map_err(|e| here(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| here(&e))?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((key, chain)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain.map_err(|e| here(&e))?, key).map_err(|e| here(&e))?
            }
        };
        let name = ServerName::try_from(self.settings.server_name.clone()).map_err(|e| here(&e))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .with_server_name_resolver(FixedServerNameResolver::new(name))
            .enable_http1()
            .wrap_connector(tcp);
        let mut pooled = Pooled::builder(TokioExecutor::new());
        pooled
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30));
        Ok(pooled.build(connector))
    }

    async fn send(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, ControlError> {
        let away =
            |e: &dyn std::error::Error| ControlError::Away(text::clean(&crate::controller::chain(e), 256));
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}/control/v1/{path}", self.settings.address))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .map_err(|e| away(&e))?;
        let answer = async {
            let response = client.request(request).await.map_err(|e| away(&e))?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MAX_STATUS).collect().await.map_err(|e| away(&*e))?;
            Ok::<_, ControlError>((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let (status, body) =
            answer.unwrap_or_else(|_| Err(ControlError::Away("no answer in time".into())))?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => text::clean(&told(problem), MAX_DETAIL),
            Err(_) => status.to_string(),
        };
        Err(if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            ControlError::Away(detail)
        } else {
            ControlError::Refused { status: status.as_u16(), detail }
        })
    }
}

/// What is wrong, and where.
fn told(problem: Problem) -> String {
    let detail = problem.detail.unwrap_or(problem.title);
    match problem.field {
        Some(field) => format!("{field}: {detail}"),
        None => detail,
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|e| ControlError::Away(format!("it answered something else: {e}")))
}
