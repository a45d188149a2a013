//! Requests to an S3 server, signed by hand: what our adapter would never send, and what a tenant does by itself.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test support")]

use crate::common::{Answer, Client};
use crate::s3::Server;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use std::time::SystemTime;

/// The server's own credentials.
pub fn root(server: &Server) -> Credentials {
    Credentials::new(&server.user, &server.password, None, None, "test")
}

/// A path of which every step is encoded.
pub fn path(bucket: &str, name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let encoded =
        name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") });
    format!("/{bucket}/{}", encoded.collect::<String>())
}

/// Sends a request; `path` is as it goes over the wire.
pub async fn send(
    server: &Server,
    credentials: &Credentials,
    method: &str,
    path: &str,
    body: &[u8],
) -> Answer {
    signing(server, credentials, method, path, body).call(method, path, body.to_vec()).await
}

/// Whoever may send this request, for some minutes and with whatever headers beside those that are signed.
pub fn signing(server: &Server, credentials: &Credentials, method: &str, path: &str, body: &[u8]) -> Client {
    let identity = credentials.clone().into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let url = format!("{}{path}", server.endpoint());
    let host = server.address.to_string();
    let headers = [("host", host.as_str())];
    let request = SignableRequest::new(method, &url, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
    let (signed, _) = sign(request, &params).unwrap().into_parts();
    let ca = server.ca.as_ref().map(|path| std::fs::read_to_string(path).unwrap());
    let mut client = Client::new(server.endpoint(), ca.as_deref(), None);
    for (name, value) in signed.headers() {
        client = client.with(name, value);
    }
    client
}
