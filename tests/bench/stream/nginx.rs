//! nginx in front of the S3 server: TLS on both sides, connections to the server kept, nothing buffered to disk.

use super::proxy::{Proxy, until_it_listens};
use super::s3::{BUCKET, Server};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mpegflow_protocol::limits::PART_SIZE;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long what the client brings is good: longer than any measurement.
const SIGNED: Duration = Duration::from_secs(3_600);

/// One nginx, with a port for each of two ways of buffering answers.
pub(crate) struct Nginx {
    child: Child,
    ports: [u16; 2],
    certificate: PathBuf,
}

/// One of its ports.
pub(crate) struct Front {
    master: u32,
    port: u16,
}

impl Nginx {
    /// `authority` is what client certificates come from: the broker's.
    pub(crate) fn start(dir: &Path, server: &Server, authority: &Path) -> Self {
        let dir = dir.join("nginx");
        std::fs::create_dir(&dir).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        let ports = [mpegflow_test_ports::port(), mpegflow_test_ports::port()];
        let site = |port: u16, buffers: &str| {
            format!(
                "server {{
                    listen 127.0.0.1:{port} ssl backlog=4096;
                    location / {{ proxy_pass https://s3; {buffers} }}
                }}"
            )
        };
        let conf = format!(
            "worker_processes auto; daemon off; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 8192; }}
             http {{
                access_log off; client_max_body_size 0; client_body_buffer_size 64k;
                {temporary}
                ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.3;
                ssl_client_certificate {authority}; ssl_verify_client on;
                upstream s3 {{ server {address}; keepalive 64; }}
                proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host {address};
                proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;
                proxy_request_buffering off;
                {unbuffered}
                {buffered}
             }}\n",
            dir = dir.display(),
            authority = authority.display(),
            address = server.address,
            ca = server.ca.as_ref().unwrap().display(),
            temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|what| format!("{what}_temp_path {}/{what};", dir.display()))
                .concat(),
            unbuffered = site(ports[0], "proxy_buffering off; proxy_buffers 8 64k; proxy_buffer_size 64k;"),
            buffered = site(ports[1], "proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;"),
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, conf).unwrap();
        let child = Command::new("nginx")
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx: `tools/setup bench` installs it");
        ports.into_iter().for_each(until_it_listens);
        Self { child, ports, certificate: dir.join("cert.pem") }
    }

    /// What its clients have to trust.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Without buffers but one, and with some in memory.
    pub(crate) fn fronts(&self) -> [Front; 2] {
        self.ports.map(|port| Front { master: self.child.id(), port })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Told to end, the master ends its workers; killed, it would leave them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Proxy for Front {
    fn pids(&self) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.master);
        let workers = std::fs::read_to_string(children).unwrap();
        std::iter::once(self.master)
            .chain(workers.split_whitespace().map(|pid| pid.parse().unwrap()))
            .collect()
    }

    fn port(&self) -> u16 {
        self.port
    }
}

pub(crate) fn version() -> String {
    let out = Command::new("nginx").arg("-v").output().unwrap();
    String::from_utf8_lossy(&out.stderr).trim().to_owned()
}

fn sdk(server: &Server) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(Credentials::new(&server.user, &server.password, None, None, "bench"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

fn signed_for() -> PresigningConfig {
    PresigningConfig::expires_in(SIGNED).unwrap()
}

/// Path and query of a URL.
fn path(signed: &PresignedRequest) -> String {
    let (_scheme, rest) = signed.uri().split_once("://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

/// Path and query by which an object can be read.
pub(crate) async fn signed_get(server: &Server, object: &str) -> String {
    path(&sdk(server).get_object().bucket(BUCKET).key(object).presigned(signed_for()).await.unwrap())
}

/// Paths and queries by which so many objects of 8 MiB can be written.
pub(crate) async fn signed_parts(server: &Server, parts: usize, digest: &[u8; 32]) -> Vec<String> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let sdk = sdk(server);
    let mut paths = Vec::with_capacity(parts);
    for _ in 0..parts {
        let key = format!("nginx/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let put = sdk.put_object().bucket(BUCKET).key(key).content_length(PART_SIZE as i64);
        let put = put.checksum_sha256(BASE64_STANDARD.encode(digest));
        paths.push(path(&put.presigned(signed_for()).await.unwrap()));
    }
    paths
}

/// What has to come with what was signed for a digest.
pub(crate) fn checksum_header(digest: &[u8; 32]) -> String {
    format!("x-amz-checksum-sha256: {}", BASE64_STANDARD.encode(digest))
}
