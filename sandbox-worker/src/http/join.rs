//! The join file: where the broker is, whom to trust, and the token or the file that has it.

use crate::secret::{Secret, write_private};
use hyper::http::uri::Authority;
use mpegflow_protocol::endpoint::{MAX_ENDPOINTS, StorageEndpoint};
use mpegflow_protocol::from_json;
use mpegflow_protocol::ids::PoolName;
use mpegflow_protocol::worker::{JoinFile, ProbeTarget};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest join file: a few certificates and a token.
const MAX_JOIN_FILE: usize = 64 << 10;
/// The longest token of a pod; Kubernetes' have about 1.5 KiB.
const MAX_TOKEN: u64 = 8 << 10;
/// The key of a pod, in its folder.
const KEY: &str = "enrolment.key";

/// How a worker proves whom it works for.
#[derive(Debug, Clone)]
pub enum Token {
    /// A join token.
    Join(Secret),
    /// The token of its own pod, in a file that the kubelet writes anew before it expires.
    Pod(PathBuf),
}

impl Token {
    /// The token as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn now(&self) -> std::io::Result<Secret> {
        let path = match self {
            Self::Join(secret) => return Ok(secret.clone()),
            Self::Pod(path) => path,
        };
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
        match text.trim() {
            "" => Err(std::io::ErrorKind::UnexpectedEof.into()),
            token => Ok(Secret::new(token.to_owned())),
        }
    }
}

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
    /// The token.
    pub token: Token,
    /// The pool to serve.
    pub pool: PoolName,
    /// What must not answer before it enrols.
    pub unreachable: Vec<ProbeTarget>,
    /// Storage of a presigned pool, which this worker may connect to besides.
    pub storage: Vec<StorageEndpoint>,
    /// The one key of a pod, PEM. Others have a new one with each certificate.
    pub key: Option<Secret>,
    path: Option<PathBuf>,
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
    /// There is not exactly one of `token` and `token_file`.
    #[error("exactly one of `token` and `token_file` has to be there")]
    Token,
    /// There are too many endpoints of storage.
    #[error("`storage` has more than {MAX_ENDPOINTS} endpoints")]
    Storage,
    /// The key of the pod cannot be made or kept.
    #[error("the pod's key: {0}")]
    Key(String),
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
        let mut bytes = Vec::new();
        let most = u64::try_from(MAX_JOIN_FILE).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        let parsed: JoinFile = from_json("join file", &bytes, MAX_JOIN_FILE)?;
        if mode & 0o007 != 0 && !parsed.token.is_empty() {
            tracing::warn!(path = %path.display(), "the join file holds a secret and anybody may read it; chmod 600");
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        Ok(Self { path: Some(path.into()), ..Self::parse_beside(parsed, dir)? })
    }

    /// Checks a join file that names nothing beside itself.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn parse(file: JoinFile) -> Result<Self, JoinError> {
        Self::parse_beside(file, Path::new(""))
    }

    fn parse_beside(file: JoinFile, dir: &Path) -> Result<Self, JoinError> {
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
        let token = match file.token_file {
            None if !file.token.is_empty() => Token::Join(Secret::new(file.token)),
            Some(name) if file.token.is_empty() && !name.is_empty() => Token::Pod(dir.join(name)),
            _ => return Err(JoinError::Token),
        };
        let JoinFile { pool, unreachable, storage, .. } = file;
        if storage.len() > MAX_ENDPOINTS {
            return Err(JoinError::Storage);
        }
        Ok(Self {
            broker,
            port,
            server_name,
            roots,
            token,
            pool,
            unreachable,
            storage,
            key: None,
            path: None,
        })
    }

    /// With the one key that a pod enrols with: the one in its folder, which a restarted container finds again, or without a folder one
    /// of this process. A worker with a join token needs none.
    ///
    /// # Errors
    /// It cannot be made or kept.
    pub fn with_key(self, dir: Option<&Path>) -> Result<Self, JoinError> {
        if matches!(self.token, Token::Join(_)) {
            return Ok(self);
        }
        let no_key = |e: &dyn std::fmt::Display| JoinError::Key(e.to_string());
        let fresh =
            || rcgen::KeyPair::generate().map(|key| Secret::new(key.serialize_pem())).map_err(|e| no_key(&e));
        let key = match dir.map(|dir| dir.join(KEY)) {
            None => fresh()?,
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Secret::new(text),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    let key = fresh()?;
                    write_private(&path, &key).map_err(|e| no_key(&e))?;
                    key
                }
                Err(e) => return Err(no_key(&e)),
            },
        };
        Ok(Self { key: Some(key), ..self })
    }

    /// What has to stay readable once this process is confined: files that others change while it runs.
    pub fn changes(&self) -> Option<&Path> {
        match (&self.token, &self.path) {
            // The kubelet changes a folder's contents by renaming a link in it.
            (Token::Pod(token), _) => token.parent(),
            (Token::Join(_), path) => path.as_deref(),
        }
    }

    /// The same as the file says now: an authority may have been replaced. Where it cannot be read it stays as it is.
    #[must_use]
    pub fn again(&self) -> Self {
        let now = self.path.as_deref().and_then(|path| Self::read(path).ok());
        now.map_or_else(|| self.clone(), |now| Self { key: self.key.clone(), ..now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_key_is_found_again_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let ca = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&ca).unwrap().pem();
        let file = |token: &str, token_file: Option<&str>| JoinFile {
            broker: "mpegflow-broker:8443".into(),
            server_name: "mpegflow-broker".into(),
            ca: pem.clone(),
            token: token.into(),
            token_file: token_file.map(str::to_owned),
            pool: "default".parse().unwrap(),
            unreachable: Vec::new(),
            storage: Vec::new(),
        };
        assert!(matches!(Join::parse(file("", None)), Err(JoinError::Token)));
        assert!(matches!(Join::parse(file("mfj_1", Some("token"))), Err(JoinError::Token)));
        let of_pod =
            || Join::parse_beside(file("", Some("token")), dir.path()).unwrap().with_key(Some(dir.path()));
        let first = of_pod().unwrap();
        let mode = dir.path().join(KEY).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(of_pod().unwrap().key, first.key);
        assert_eq!(first.changes(), Some(dir.path()));
        assert!(first.token.now().is_err(), "there is no token yet");
        std::fs::write(dir.path().join("token"), "a.b.c\n").unwrap();
        assert_eq!(first.token.now().unwrap().expose(), "a.b.c");
        let joined = Join::parse(file("mfj_1", None)).unwrap().with_key(Some(dir.path())).unwrap();
        assert!(joined.key.is_none());
    }
}
