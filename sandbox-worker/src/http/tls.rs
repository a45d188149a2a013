//! TLS 1.3, the join file's CA, and a key that was made here and never leaves.

use crate::http::join::Join;
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, version::TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;

/// A pool of connections under one identity.
pub(super) type Client = Pooled<HttpsConnector<HttpConnector>, Full<bytes::Bytes>>;

/// A step of making an identity that failed. Holds nothing of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or the signing request could not be made.
    #[error("making a key and its signing request: {0}")]
    Key(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("setting up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate is not PEM.
    #[error("the certificate from the broker: {0}")]
    Certificate(#[from] rustls_pki_types::pem::Error),
}

/// A key pair and its signing request.
pub(super) struct Key {
    pair: KeyPair,
    /// PEM signing request. It names nothing: who this is, is the broker's to say.
    pub(super) csr: String,
}

impl Key {
    /// The one that a pod has, or a new one.
    pub(super) fn of(join: &Join) -> Result<Self, TlsError> {
        let pair = match &join.key {
            Some(pem) => KeyPair::from_pem(pem.expose())?,
            None => KeyPair::generate()?,
        };
        let csr = CertificateParams::default().serialize_request(&pair)?.pem()?;
        Ok(Self { pair, csr })
    }

    /// A client that shows this certificate.
    pub(super) fn client(self, join: &Join, chain: &str) -> Result<Client, TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.pair.serialize_der()));
        Ok(client(join, trusting(join)?.with_client_auth_cert(chain, key)?))
    }
}

/// A client without an identity, for enrolling.
pub(super) fn anonymous(join: &Join) -> Result<Client, TlsError> {
    Ok(client(join, trusting(join)?.with_no_client_auth()))
}

fn trusting(
    join: &Join,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    Ok(builder.with_root_certificates(join.roots.clone()))
}

fn client(join: &Join, config: ClientConfig) -> Client {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(10)));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(join.server_name.clone()))
        .enable_http1()
        .wrap_connector(tcp);
    Pooled::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(8)
        // hyper doubles its read buffer up to 400 KiB a connection while reads fill it; blocks are copied out at once here.
        .http1_max_buf_size(256 << 10)
        .build(connector)
}
