//! The broker's own certificate authority: it says who a worker is, for an hour at a time. Nothing else trusts it, and the
//! broker trusts nothing else on its worker port.
//!
//! While it is replaced ([`rotation`]) two are trusted, and one of them signs.

pub mod rotation;

use crate::model::Time;
use mpegflow_protocol::ids::{PoolName, WorkerId};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The name in the worker API's certificate.
pub const SERVER_NAME: &str = "mpegflow-broker";
/// How long a worker's certificate is good for.
pub const WORKER_CERTIFICATE: Duration = Duration::from_secs(3600);
/// Clocks of workers may be behind by this much.
const SKEW: Duration = Duration::from_secs(300);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why the authority could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A certificate or key could not be made or read.
    #[error("cannot {step}")]
    Certificate {
        /// What was being done.
        step: &'static str,
        /// What happened.
        source: rcgen::Error,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The request for a certificate is not one, or not signed by its key.
    #[error("the certificate signing request is not valid")]
    Request,
}

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Every certificate that is trusted, the signing one first.
    bundle: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca(…)")
    }
}

/// Who a client certificate says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub who: Who,
    /// When the certificate expires: a connection may live longer than that.
    pub expires: Time,
}

/// Those who get certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A worker of a pool.
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Its pool.
        pool: PoolName,
    },
    /// The cluster's operator, as one of its pods: the id has the bits of the pod's UID.
    Operator(WorkerId),
}

fn certificate_error(step: &'static str) -> impl FnOnce(rcgen::Error) -> CaError {
    move |source| CaError::Certificate { step, source }
}

impl Ca {
    /// The authority kept in this folder, made where there is none.
    ///
    /// # Errors
    /// The folder cannot be used, or holds something else.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let (key_path, certificate_path) = (dir.join("ca.key"), dir.join("ca.pem"));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::File { path, source }
        };
        make_private_dir(dir).map_err(file(dir))?;
        if !(key_path.exists() && certificate_path.exists()) {
            let key = KeyPair::generate().map_err(certificate_error("make the CA's key"))?;
            let certificate =
                ca_params().self_signed(&key).map_err(certificate_error("make the CA's certificate"))?;
            // The key first: a certificate without its key would be trusted and useless.
            write_private(&key_path, key.serialize_pem().as_bytes()).map_err(file(&key_path))?;
            write_private(&certificate_path, certificate.pem().as_bytes())
                .map_err(file(&certificate_path))?;
        }
        Self::read(dir)
    }

    /// The authority kept in this folder, of which nothing is changed: it may be mounted for reading alone.
    ///
    /// # Errors
    /// The folder does not hold one.
    pub fn read(dir: &Path) -> Result<Self, CaError> {
        let (key_path, certificate_path) = (dir.join("ca.key"), dir.join("ca.pem"));
        let read = |path: &Path| {
            let failed = |source| CaError::File { path: path.to_owned(), source };
            std::fs::read_to_string(path).map_err(failed)
        };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(certificate_error("read the CA's key"))?;
        let bundle = read(&certificate_path)?;
        // The first in the file signs.
        let issuer =
            Issuer::from_ca_cert_pem(&bundle, key).map_err(certificate_error("read the CA's certificate"))?;
        Ok(Self { issuer, bundle })
    }

    /// What workers have to trust, PEM: the authority's certificate, and while it is replaced the other one's.
    pub fn certificate(&self) -> &str {
        &self.bundle
    }

    /// TLS for the worker API: 1.3 only; a client certificate is optional, so that a worker can ask for its first, but one
    /// that is shown has to be ours.
    ///
    /// # Errors
    /// A certificate could not be made.
    pub fn server_config(
        &self,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<rustls::ServerConfig, CaError> {
        let tls = |e: &dyn std::fmt::Display| CaError::Tls(e.to_string());
        let key = KeyPair::generate().map_err(certificate_error("make the server's key"))?;
        let certificate = self.server_certificate(&key, names, addresses)?;
        let mut roots = RootCertStore::empty();
        for trusted in CertificateDer::pem_slice_iter(self.bundle.as_bytes()) {
            roots.add(trusted.map_err(|e| tls(&e))?).map_err(|e| tls(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| tls(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Early data could be replayed.
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn server_certificate(
        &self,
        key: &KeyPair,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Certificate, CaError> {
        let mut all = vec![SERVER_NAME.to_owned(), "localhost".to_owned()];
        all.extend(names.iter().cloned());
        let mut params = CertificateParams::new(all).map_err(certificate_error("name the server"))?;
        for address in addresses {
            params.subject_alt_names.push(SanType::IpAddress(*address));
        }
        params.distinguished_name = name(SERVER_NAME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        live(&mut params, SERVER_LIFE);
        params.signed_by(key, &self.issuer).map_err(certificate_error("sign the server's certificate"))
    }

    /// Signs a worker's public key. Nothing else of the request is used: who it is, is for the broker to say.
    ///
    /// # Errors
    /// The request is not one.
    pub fn sign_worker(&self, csr: &str, worker: WorkerId, pool: &PoolName) -> Result<String, CaError> {
        self.sign(csr, &worker.to_string(), spiffe(worker, pool))
    }

    /// The same for the cluster's operator.
    ///
    /// # Errors
    /// The request is not one.
    pub fn sign_operator(&self, csr: &str, pod: WorkerId) -> Result<String, CaError> {
        self.sign(csr, "mpegflow-operator", format!("{OPERATOR}{pod}"))
    }

    fn sign(&self, csr: &str, common: &str, uri: String) -> Result<String, CaError> {
        let request = request(csr)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common);
        let uri = uri.try_into().map_err(certificate_error("name a worker"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        live(&mut params, WORKER_CERTIFICATE);
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(certificate_error("sign a worker's certificate"))?;
        Ok(certificate.pem())
    }
}

/// A signing request whose signature was checked: it was made by who holds the key.
fn request(csr: &str) -> Result<CertificateSigningRequestParams, CaError> {
    CertificateSigningRequestParams::from_pem(csr).map_err(|_| CaError::Request)
}

/// SHA-256 of the public key in a signing request.
///
/// # Errors
/// The request is not one, or not signed by its key.
pub fn key_of(csr: &str) -> Result<[u8; 32], CaError> {
    Ok(crate::secret::sha256(request(csr)?.public_key.der_bytes()))
}

/// What the SPIFFE id of an operator begins with.
const OPERATOR: &str = "spiffe://mpegflow/operator/";

/// The SPIFFE id of a worker.
pub fn spiffe(worker: WorkerId, pool: &PoolName) -> String {
    format!("spiffe://mpegflow/pool/{pool}/worker/{worker}")
}

/// Who a certificate, that TLS has verified, says it is.
pub fn peer(certificate: &CertificateDer<'_>) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    // Exactly one name: a second one could be read by somebody else.
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return None };
    let expires = Time(certificate.validity().not_after.timestamp().checked_mul(1000)?);
    if let Some(pod) = uri.strip_prefix(OPERATOR) {
        return Some(Peer { who: Who::Operator(pod.parse().ok()?), expires });
    }
    let (pool, worker) = uri.strip_prefix("spiffe://mpegflow/pool/")?.split_once("/worker/")?;
    Some(Peer { who: Who::Worker { worker: worker.parse().ok()?, pool: pool.parse().ok()? }, expires })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("mpegflow workers");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live(&mut params, CA_LIFE);
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn live(params: &mut CertificateParams, life: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = now.checked_sub(SKEW).unwrap_or(now).into();
    params.not_after = now.checked_add(life).unwrap_or(now).into();
}

/// Makes a folder that only its owner can use.
///
/// # Errors
/// It cannot be made.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file that only its owner can read; it is there whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // An earlier half could have other rights, which open(2) would keep.
    match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => std::fs::File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_name_the_broker_gives_and_not_the_one_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.subject_alt_names.push(SanType::URI("spiffe://mpegflow/pool/x/worker/y".try_into().unwrap()));
        let csr = wanted.serialize_request(&key).unwrap().pem().unwrap();
        let worker = WorkerId::from_u128(9);
        let pem = ca.sign_worker(&csr, worker, &PoolName::default()).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let peer = peer(&der).unwrap();
        assert_eq!(peer.who, Who::Worker { worker, pool: PoolName::default() });
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap();
        assert!(usage.value.client_auth && !usage.value.server_auth);
        let life = parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
        assert_eq!(life, 3600 + 300);
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::open(dir.path()).unwrap().certificate().to_owned();
        assert_eq!(Ca::open(dir.path()).unwrap().certificate(), first);
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_whose_signature_is_broken_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path()).unwrap();
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let mut der = csr.der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        let signed = ca.sign_worker(&pem, WorkerId::from_u128(1), &PoolName::default());
        assert!(matches!(signed, Err(CaError::Request)));
        assert!(matches!(
            ca.sign_worker("", WorkerId::from_u128(1), &PoolName::default()),
            Err(CaError::Request)
        ));
    }
}
