//! Whom the broker trusts as a TLS client.

use hyper_rustls::ConfigBuilderExt as _;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A client that trusts the authorities of a PEM file alone, or the system's.
///
/// # Errors
/// They cannot be read, or the file holds none.
pub(crate) fn client(ca_file: Option<&Path>) -> io::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(match ca_file {
        None => builder.with_native_roots()?.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
                roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
            if roots.is_empty() {
                return Err(io::Error::other("the file of the certificate authority holds no certificate"));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    })
}
