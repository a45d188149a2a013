//! Another authority in place of the one there is, without a moment in which somebody is refused.
//!
//! Three steps. After each, every broker is started again on the folder, and its `ca.pem` is handed to whoever trusts it. The first
//! certificate in there is the one that signs; the others are trusted as well.
//!
//! 1. [`Step::Prepare`] makes the next authority. The present one signs. Workers learn to trust both.
//! 2. [`Step::Switch`] lets the next one sign. Certificates of the former last an hour at most.
//! 3. [`Step::Finish`] forgets the former.
//!
//! Each step leaves the folder usable wherever it is broken off, and is done by doing it again.

use super::{CaError, ca_params, certificate_error, write_private};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::path::Path;
use std::{fs, io};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const KEY: &str = "ca.key";
const CERTIFICATES: &str = "ca.pem";
const NEXT_KEY: &str = "next.key";

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the next authority.
    Prepare,
    /// Let it sign.
    Switch,
    /// Forget the former.
    Finish,
}

/// Takes a step in the folder of an authority.
///
/// # Errors
/// The folder is not at that step, or cannot be used.
pub fn step(dir: &Path, step: Step) -> Result<(), CaError> {
    let at = |name: &str| dir.join(name);
    let file = |name: &str| {
        let path = at(name);
        move |source| CaError::File { path, source }
    };
    let wrong =
        |name: &str, text: &str| file(name)(io::Error::new(io::ErrorKind::InvalidInput, text.to_owned()));
    let bytes = fs::read(at(CERTIFICATES)).map_err(file(CERTIFICATES))?;
    let trusted: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(CERTIFICATES, "it does not hold certificates"))?;
    let write = |certificates: &[CertificateDer<'_>]| {
        let text: String = certificates.iter().map(pem).collect();
        write_private(&at(CERTIFICATES), text.as_bytes()).map_err(file(CERTIFICATES))
    };
    let next = match fs::read_to_string(at(NEXT_KEY)) {
        Ok(text) => Some(KeyPair::from_pem(&text).map_err(certificate_error("read the next CA's key"))?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(file(NEXT_KEY)(e)),
    };
    match (step, next, trusted.as_slice()) {
        (Step::Prepare, Some(next), [_, other]) if is_of(other, &next) => Ok(()),
        (Step::Prepare, next, [present]) => {
            let next = match next {
                Some(next) => next,
                None => {
                    let next = KeyPair::generate().map_err(certificate_error("make the next CA's key"))?;
                    write_private(&at(NEXT_KEY), next.serialize_pem().as_bytes()).map_err(file(NEXT_KEY))?;
                    next
                }
            };
            let made = ca_params()
                .self_signed(&next)
                .map_err(certificate_error("make the next CA's certificate"))?;
            write(&[present.clone(), made.der().clone()])
        }
        (Step::Prepare, ..) => Err(wrong(CERTIFICATES, "the rotation before is not finished")),
        (Step::Switch, Some(next), [one, other]) => {
            let (signing, former) = if is_of(one, &next) { (one, other) } else { (other, one) };
            if !is_of(signing, &next) {
                return Err(wrong(NEXT_KEY, "it is the key of none of the certificates"));
            }
            let key = next.serialize_pem();
            write_private(&at(KEY), key.as_bytes()).map_err(file(KEY))?;
            write(&[signing.clone(), former.clone()])?;
            fs::remove_file(at(NEXT_KEY)).map_err(file(NEXT_KEY))
        }
        (Step::Switch, ..) => Err(wrong(NEXT_KEY, "there is no next authority; prepare one first")),
        (Step::Finish, None, [signing, _]) => write(std::slice::from_ref(signing)),
        (Step::Finish, None, _) => Err(wrong(CERTIFICATES, "there is no former authority")),
        (Step::Finish, Some(_), _) => {
            Err(wrong(NEXT_KEY, "the next authority does not sign yet; switch first"))
        }
    }
}

fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, c)| c.public_key().raw == key.subject_public_key_info())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Ca;
    use mpegflow_protocol::ids::{PoolName, WorkerId};
    use rustls::pki_types::UnixTime;
    use rustls::server::WebPkiClientVerifier;
    use std::sync::Arc;

    fn certificate(ca: &Ca) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let pem = ca.sign_worker(&csr, WorkerId::from_u128(1), &PoolName::default()).unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn trusts(bundle: &str, certificate: &CertificateDer<'_>) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        verifier.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn at_no_step_of_a_rotation_is_somebody_refused_who_was_told_the_step_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut told, mut held) = {
            let ca = Ca::open(dir.path()).unwrap();
            (ca.certificate().to_owned(), certificate(&ca))
        };
        let first = held.clone();
        for now in [Step::Prepare, Step::Switch, Step::Finish] {
            step(dir.path(), now).unwrap();
            let ca = Ca::read(dir.path()).unwrap();
            // Certificates from before this step are taken, and whoever trusts what was told before takes ours.
            assert!(trusts(ca.certificate(), &held), "{now:?}");
            assert!(trusts(&told, &certificate(&ca)), "{now:?}");
            (told, held) = (ca.certificate().to_owned(), certificate(&ca));
        }
        assert!(!trusts(&told, &first), "the former authority is forgotten");
    }

    #[test]
    fn steps_come_in_their_order_and_a_step_that_was_broken_off_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        Ca::open(dir.path()).unwrap();
        let now = |s| step(dir.path(), s);
        let certificates = || fs::read(dir.path().join(CERTIFICATES)).unwrap();
        assert!(now(Step::Switch).is_err() && now(Step::Finish).is_err());
        let before = certificates();
        now(Step::Prepare).unwrap();
        // Broken off before its last write, and then done once too often.
        fs::write(dir.path().join(CERTIFICATES), &before).unwrap();
        now(Step::Prepare).unwrap();
        let prepared = certificates();
        now(Step::Prepare).unwrap();
        assert_eq!(certificates(), prepared);
        assert!(now(Step::Finish).is_err());
        // Broken off before its last removal.
        let next = fs::read(dir.path().join(NEXT_KEY)).unwrap();
        now(Step::Switch).unwrap();
        let switched = certificates();
        fs::write(dir.path().join(NEXT_KEY), next).unwrap();
        now(Step::Switch).unwrap();
        assert_eq!(certificates(), switched);
        assert!(now(Step::Switch).is_err() && now(Step::Prepare).is_err());
        now(Step::Finish).unwrap();
        assert!(now(Step::Finish).is_err());
        Ca::read(dir.path()).unwrap();
        now(Step::Prepare).unwrap();
    }
}
