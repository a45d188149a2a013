//! Real S3 servers on free loopback ports, over a temporary folder, killed with the value that stands for them.
//!
//! The servers are built by `tools/s3-servers`, once for each version, into the cache that all of our tools share.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use mpegflow_broker::objects::Objects as _;
use mpegflow_broker::objects::s3::{Encryption, S3Config, S3Objects};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const BUCKET: &str = "media";
/// Another bucket: a tenant's own.
pub const OWN: &str = "films";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Versitygw,
    Minio,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Versitygw, Self::Minio];

    /// Where its program is. Builds it the first time.
    fn program(self) -> PathBuf {
        static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/s3-servers");
            let made = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
            assert!(made.status.success(), "tools/s3-servers failed; it says why above");
            let lines = String::from_utf8(made.stdout).unwrap();
            lines
                .lines()
                .map(|line| line.split_once('=').unwrap())
                .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
                .collect()
        });
        match self {
            Self::Versitygw => built["versitygw"].clone(),
            Self::Minio => built["minio"].clone(),
        }
    }
}

/// A server with one empty bucket.
pub struct Server {
    pub kind: Kind,
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    /// PEM of the authority that its certificate is from, where it speaks TLS.
    pub ca: Option<PathBuf>,
    /// Access key and secret key: its own, so that nothing reaches another test's server by mistake.
    pub user: String,
    pub password: String,
    /// More variables, which it has from the next start on.
    pub env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        Self::start_as(kind, false)
    }

    /// A server that speaks TLS only.
    pub fn start_tls(kind: Kind) -> Self {
        Self::start_as(kind, true)
    }

    fn start_as(kind: Kind, tls: bool) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), kind, tls)
    }

    /// The same, in a folder that a test has prepared.
    pub fn start_in(dir: tempfile::TempDir, kind: Kind, tls: bool) -> Self {
        // A bucket is a folder, to both of them.
        for bucket in [BUCKET, OWN] {
            std::fs::create_dir_all(dir.path().join("data").join(bucket)).unwrap();
        }
        let secret = || uuid::Uuid::new_v4().simple().to_string();
        let (user, password) = (secret()[..20].to_owned(), secret());
        let env = Vec::new();
        let mut server = Self {
            kind,
            dir,
            address: mpegflow_test_ports::address(),
            ca: None,
            user,
            password,
            env,
            child: None,
        };
        if tls {
            server.make_certificate();
        }
        server.good_credentials();
        for _ in 0..3 {
            if server.spawn() {
                return server;
            }
            // Somebody was faster at the port.
            server.address = mpegflow_test_ports::address();
        }
        panic!("the {kind:?} server does not start: {}", server.log());
    }

    fn make_certificate(&mut self) {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose issuer has the subject's name for one that signed itself.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of the test");
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let certs = self.dir.path().join("certs");
        std::fs::create_dir(&certs).unwrap();
        std::fs::write(certs.join("public.crt"), leaf.pem()).unwrap();
        std::fs::write(certs.join("private.key"), key.serialize_pem()).unwrap();
        let path = self.dir.path().join("ca.pem");
        std::fs::write(&path, ca.pem()).unwrap();
        self.ca = Some(path);
    }

    /// Starts it and waits until it serves; false when it ended instead.
    fn spawn(&mut self) -> bool {
        let dir = self.dir.path();
        let data = dir.join("data");
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new(self.kind.program());
        command.env_clear().envs(self.env.clone()).env("HOME", dir).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).current_dir(dir);
        let address = self.address.to_string();
        match self.kind {
            Kind::Versitygw => {
                command.env("ROOT_ACCESS_KEY", &self.user).env("ROOT_SECRET_KEY", &self.password);
                command.args(["--port", &address, "--quiet", "--keep-alive"]);
                if self.ca.is_some() {
                    command.arg("--cert").arg(dir.join("certs/public.crt"));
                    command.arg("--key").arg(dir.join("certs/private.key"));
                }
                command.arg("posix").arg(data);
            }
            Kind::Minio => {
                command.env("MINIO_ROOT_USER", &self.user).env("MINIO_ROOT_PASSWORD", &self.password);
                command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("MINIO_CI_CD", "1");
                // A key service of its own, so that SSE-S3 and SSE-KMS are there.
                command.env("MINIO_KMS_SECRET_KEY", "test-key:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
                command.args(["server", "--quiet", "--address", &address, "--certs-dir"]);
                command.arg(dir.join("certs")).arg(data);
            }
        }
        self.child = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while !self.serves() {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return false;
            }
            assert!(Instant::now() < until, "the {:?} server does not answer: {}", self.kind, self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Whether it answers as it will: MinIO listens a while before it does.
    fn serves(&self) -> bool {
        let objects = self.objects();
        // On a thread of its own, since this one may belong to a runtime already.
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), objects.ping()).await })
        });
        matches!(asked.join().unwrap(), Ok(Ok(())))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.spawn(), "the {:?} server does not start again: {}", self.kind, self.log());
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.address)
    }

    /// Replaces the credentials file as a rotation does: whole, by a rename.
    pub fn credentials(&self, id: &str, secret: &str) {
        let (new, path) = (self.dir.path().join("credentials.new"), self.dir.path().join("credentials"));
        std::fs::write(
            &new,
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
        )
        .unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// The credentials that the server knows.
    pub fn good_credentials(&self) {
        self.credentials(&self.user, &self.password);
    }

    pub fn config(&self) -> S3Config {
        S3Config {
            bucket: BUCKET.into(),
            region: "us-east-1".into(),
            endpoint: Some(self.endpoint()),
            path_style: true,
            prefix: "mpegflow/".into(),
            credentials_file: self.dir.path().join("credentials"),
            role: None,
            tenant: None,
            ca_file: self.ca.clone(),
            encryption: Encryption::Bucket,
            spool_dir: self.dir.path().join("spool"),
        }
    }

    pub fn objects(&self) -> S3Objects {
        S3Objects::open(&self.config()).unwrap()
    }

    /// The same below another prefix.
    pub fn objects_at(&self, prefix: &str) -> S3Objects {
        S3Objects::open(&S3Config { prefix: prefix.into(), ..self.config() }).unwrap()
    }

    /// Files that the server keeps for objects and open multipart uploads, without its own bookkeeping.
    pub fn kept(&self) -> Vec<PathBuf> {
        self.kept_in(BUCKET)
    }

    /// The same of any bucket.
    pub fn kept_in(&self, bucket: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        let data = self.dir.path().join("data");
        walk(&data.join(bucket), &mut found);
        walk(&data.join(".minio.sys/multipart"), &mut found);
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
