//! Keys and certificates of one cluster.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Files in one folder.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes a CA, the API server's certificate, the certificate by which it speaks to aggregated API servers, and the key
    /// that signs service accounts' tokens.
    pub(crate) fn make(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder for keys");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "test-cluster");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = ca.self_signed(&ca_key).expect("a CA").pem();
        let pki = Self { dir: dir.into(), issuer: Issuer::new(ca, ca_key) };
        pki.write("ca.crt", &certificate);

        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut server = CertificateParams::new(names.map(String::from)).expect("names");
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        pki.write("server.crt", &server.signed_by(&key, &pki.issuer).expect("a certificate").pem());
        pki.write("server.key", &key.serialize_pem());

        let mut proxy = CertificateParams::default();
        proxy.distinguished_name.push(DnType::CommonName, "front-proxy");
        proxy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        pki.write("proxy.crt", &proxy.signed_by(&key, &pki.issuer).expect("a certificate").pem());
        pki.write("proxy.key", &key.serialize_pem());

        let key = KeyPair::generate().expect("a key");
        pki.write("accounts.key", &key.serialize_pem());
        pki.write("accounts.pub", &key.public_key_pem());
        pki
    }

    /// A certificate for servers and clients, its key and the CA, as files.
    pub(crate) fn issue(&self, dir: &Path, names: &[&str]) {
        fs::create_dir_all(dir).expect("a folder for keys");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let ca = fs::read_to_string(self.path("ca.crt")).expect("the CA");
        for (name, text) in [("tls.crt", certificate), ("tls.key", key.serialize_pem()), ("ca.crt", ca)] {
            fs::write(dir.join(name), text).expect("a key file");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a key file");
    }
}
