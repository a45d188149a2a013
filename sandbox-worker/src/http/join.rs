//! The join file: where the broker is, whom to trust, and the token.

use crate::secret::Secret;
use hyper::http::uri::Authority;
use mpegflow_protocol::from_json;
use mpegflow_protocol::ids::PoolName;
use mpegflow_protocol::worker::JoinFile;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest join file: a few certificates and a token.
const MAX_JOIN_FILE: usize = 64 << 10;

/// A join file that can be used.
#[derive(Debug, Clone)]
pub struct Join {
    /// The broker's address.
    pub broker: Authority,
    /// Its port.
    pub port: u16,
    /// The name in its certificate.
    pub server_name: ServerName<'static>,
    /// Its CA, and nothing else.
    pub roots: RootCertStore,
    /// The join token.
    pub token: Secret,
    /// The pool to serve.
    pub pool: PoolName,
}

/// Why a join file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a join file.
    #[error("{0}")]
    Parse(#[from] mpegflow_protocol::ParseError),
    /// `broker` is no `host:port`.
    #[error("`broker` is not host:port")]
    Broker,
    /// `server_name` is no name.
    #[error("`server_name` is not a DNS name or address")]
    ServerName,
    /// `ca` holds no certificate that can be used.
    #[error("`ca` is not a PEM certificate: {0}")]
    Ca(String),
}

impl Join {
    /// Reads a join file.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub fn read(path: &Path) -> Result<Self, JoinError> {
        let failed = |source| JoinError::Read { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(path = %path.display(), "the join file holds a secret and anybody may read it; chmod 600");
        }
        let mut bytes = Vec::new();
        let most = u64::try_from(MAX_JOIN_FILE).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(from_json("join file", &bytes, MAX_JOIN_FILE)?)
    }

    /// Checks a join file.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn parse(file: JoinFile) -> Result<Self, JoinError> {
        let broker: Authority = file.broker.parse().map_err(|_| JoinError::Broker)?;
        let port = broker.port_u16().ok_or(JoinError::Broker)?;
        if broker.as_str().contains('@') {
            return Err(JoinError::Broker);
        }
        let server_name = ServerName::try_from(file.server_name).map_err(|_| JoinError::ServerName)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(file.ca.as_bytes()) {
            let certificate = certificate.map_err(|e| JoinError::Ca(e.to_string()))?;
            roots.add(certificate).map_err(|e| JoinError::Ca(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(JoinError::Ca("there is none".into()));
        }
        Ok(Self { broker, port, server_name, roots, token: Secret::new(file.token), pool: file.pool })
    }
}
