//! URLs for workers of presigned pools. Each is for one object, one method and all that is signed into it; what it may do after that
//! is bounded by what storage checks, so storage is asked once whether it does.

use super::bucket::Target;
use super::config::S3Config;
use super::fault::Fault;
use super::limits::{COMPARES_PAUSE, CONNECT};
use super::{Inner, base64, number_of, wire};
use crate::objects::PartHead;
use crate::secret::sha256;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::{Request, Uri};
use mpegflow_protocol::limits::MAX_STORAGE_CA;
use mpegflow_protocol::worker::{Signed, SignedUrl};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Addresses of storage are asked for again after this long.
const ADDRESSES: Duration = Duration::from_secs(10);

/// What URLs for workers need besides a signature.
pub(super) struct Handing {
    /// PEM of the only authorities that workers trust. They have none of their own: without it every byte goes through the broker.
    ca: Option<Arc<str>>,
    /// Whether storage takes no part that has not the digest in its request. Asked for parts that go through the broker too.
    compares: OnceLock<bool>,
    /// When and why the last try of that failed. Locked while one is under way.
    untried: tokio::sync::Mutex<Option<(tokio::time::Instant, Fault)>>,
    addresses: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Handing {
    pub(super) fn open(config: &S3Config) -> io::Result<Self> {
        let ca = config.ca_file.as_deref().map(certificates).transpose()?;
        let fits = ca.filter(|pem| pem.len() <= MAX_STORAGE_CA);
        Ok(Self {
            ca: fits.map(Arc::from),
            compares: OnceLock::new(),
            untried: tokio::sync::Mutex::default(),
            addresses: Mutex::default(),
        })
    }

    /// Where storage is, as this machine's resolver says.
    async fn addresses(&self, uri: &Uri) -> Result<Vec<SocketAddr>, Fault> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, found)) = known.filter(|(at, _)| at.elapsed() < ADDRESSES) {
            return Ok(found);
        }
        let host = uri.host().ok_or(Fault::Request)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(443)));
        let found = tokio::time::timeout(CONNECT, found).await.map_err(|_| Fault::Timeout)?;
        let found: Vec<SocketAddr> = found.map_err(|e| Fault::Connection(e.into()))?.collect();
        let now = Some((Instant::now(), found.clone()));
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(found)
    }
}

/// The certificates of a PEM file, and nothing else that may be in it.
fn certificates(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
        let der = BASE64_STANDARD.encode(certificate.map_err(io::Error::other)?);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = der.as_str();
        while let Some((line, more)) = rest.split_at_checked(64) {
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        if !rest.is_empty() {
            text.push_str(rest);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

impl Inner {
    /// A URL for a range of an object of that version. None where workers are not to have one.
    pub(super) async fn sign_read(
        &self,
        object: &str,
        range: &Range<u64>,
        version: &str,
        life: Duration,
    ) -> Result<Option<Signed>, Fault> {
        let Some(ca) = self.handing.ca.clone() else { return Ok(None) };
        let request = self.bucket.sign_get(object, range, Some(version), life).await?;
        self.handed(request, &ca).await
    }

    /// A URL for one part of an object, and for these bytes alone. The part is one of a multipart upload, even where there is no other:
    /// once its parts are joined nothing can be written by it any more.
    pub(super) async fn sign_part(
        &self,
        object: &str,
        head: &PartHead,
        life: Duration,
    ) -> Result<Option<Signed>, Fault> {
        let Some(ca) = self.handing.ca.clone() else { return Ok(None) };
        let number = number_of(head)?;
        if !self.compares().await? {
            return Ok(None);
        }
        let id = self.multiparts.id(&self.bucket, object).await?;
        let target = Target::Part { object, id: &id, number };
        let request = self.bucket.sign_put(target, head.size, &head.sha256, wire::empty(), life).await?;
        self.handed(request, &ca).await
    }

    /// Whether storage holds exactly this part, by its own account.
    pub(super) async fn holds_part(&self, object: &str, head: &PartHead) -> Result<(), Fault> {
        let number = number_of(head)?;
        let missing = || Fault::answer(404, "");
        let id = self.multiparts.find(&self.bucket, object).await?.ok_or_else(missing)?;
        let held = match self.bucket.part(object, &id, number).await {
            Err(fault) if fault.is_missing() => {
                // Given up by somebody: the next URL is for another one.
                self.multiparts.forget(object);
                return Err(fault);
            }
            held => held?.ok_or_else(missing)?,
        };
        if held.size != head.size {
            return Err(Fault::Length);
        }
        if held.sha256 == base64(&head.sha256) { Ok(()) } else { Err(Fault::Digest) }
    }

    async fn handed<B: Send>(&self, request: Request<B>, ca: &str) -> Result<Option<Signed>, Fault> {
        let (hyper::http::request::Parts { uri, headers: signed, .. }, _) = request.into_parts();
        // Without TLS whoever listens would have the URL.
        if uri.scheme_str() != Some("https") {
            return Ok(None);
        }
        let mut headers = Vec::with_capacity(signed.len());
        for (name, value) in &signed {
            let value = value.to_str().map_err(|_| Fault::Request)?;
            headers.push((name.as_str().to_owned(), value.to_owned()));
        }
        let addresses = self.handing.addresses(&uri).await?;
        Ok(Some(Signed { url: SignedUrl::new(uri.to_string()), headers, addresses, ca: ca.to_owned() }))
    }

    /// Whether storage refuses a part that has not the digest in its request. Tried once; a try that fails is not repeated for
    /// [`COMPARES_PAUSE`], so that parts do not each wait for it while storage answers nothing.
    pub(super) async fn compares(&self) -> Result<bool, Fault> {
        let Handing { compares, untried, .. } = &self.handing;
        if let Some(known) = compares.get() {
            return Ok(*known);
        }
        let mut untried = untried.lock().await;
        if let Some(known) = compares.get() {
            return Ok(*known);
        }
        if let Some((_, fault)) = untried.as_ref().filter(|(at, _)| at.elapsed() < COMPARES_PAUSE) {
            return Err(fault.lately());
        }
        match self.try_whether_it_compares().await {
            Ok(found) => Ok(*compares.get_or_init(|| found)),
            Err(fault) => {
                *untried = Some((tokio::time::Instant::now(), fault.lately()));
                Err(fault)
            }
        }
    }

    /// Sends a part with the digest of another. Storage that only writes digests down would take from a worker whatever it sends.
    async fn try_whether_it_compares(&self) -> Result<bool, Fault> {
        let object = format!("{}probe/{}", self.names.root(), uuid::Uuid::new_v4().simple());
        let id = self.bucket.create(&object).await?;
        let target = Target::Part { object: &object, id: &id, number: 1 };
        let body = wire::whole(Bytes::from_static(b"other"));
        let put = self.bucket.put(target, 5, &sha256(b"first"), body).await;
        let given_up = self.bucket.abort(&object, &id).await;
        match put {
            Err(fault) if fault.is_of_digest() => given_up.map(|()| true),
            Ok(()) | Err(Fault::Digest) => {
                tracing::warn!(
                    "storage does not compare bodies with their digests: the broker does, and no worker gets a URL for a part"
                );
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_alone_leave_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(&path, format!("{}\nnoise\n{}{}", key.serialize_pem(), ca.pem(), ca.pem())).unwrap();
        let text = certificates(&path).unwrap();
        assert!(!text.contains("PRIVATE") && !text.contains("noise"), "{text}");
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read, [ca.der().clone(), ca.der().clone()]);
    }
}
