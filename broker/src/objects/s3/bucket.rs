//! Requests to one bucket. The SDK signs: control calls, which it also sends, and URLs for exactly one object and method, which
//! are used at once and for one request. None leaves this module, but those that [`super::presign`] hands to workers.

use super::config::{Encryption, S3Config};
use super::fault::Fault;
use super::limits::{CONTROL, HEAD, PAUSE, SIGNED, TRIES, allowance};
use super::signer::Signer;
use super::wire::{Outgoing, Wire};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::ServerSideEncryption;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::retry::RetryConfig;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, ETAG};
use hyper::{Request, Response, StatusCode};
use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

/// What is written to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// An object, whole.
    Object(&'a str),
    /// An object, whole, if there is none of that name.
    New(&'a str),
    /// One part of a multipart upload.
    Part {
        /// The object.
        object: &'a str,
        /// The multipart upload.
        id: &'a str,
        /// 1 to 10,000.
        number: i32,
    },
}

/// One bucket.
pub(super) struct Bucket {
    pub(super) sdk: Client,
    wire: Wire,
    signer: Arc<Signer>,
    pub(super) name: String,
    encryption: Encryption,
}

/// A digest as S3 writes it.
pub(super) fn base64(sha256: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(sha256)
}

/// Tries a request that can be repeated until it works or is not worth another try.
pub(super) async fn again<T, F>(mut request: impl FnMut() -> F + Send) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>> + Send,
{
    let mut pause = PAUSE;
    let mut left = TRIES;
    loop {
        left = left.saturating_sub(1);
        match request().await {
            Err(fault) if fault.passes() && left > 0 => {
                tracing::debug!(error = %fault, "storage is asked again");
                // Brokers that were refused together shall not come back together.
                let more = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
                tokio::time::sleep(pause.mul_f64(1.0 + more)).await;
                pause = pause.saturating_mul(2);
            }
            done => return done,
        }
    }
}

impl Bucket {
    pub(super) fn open(config: &S3Config, wire: Wire) -> std::io::Result<Self> {
        let signer = Arc::new(Signer::open(config, &wire)?);
        let mut builder = aws_sdk_s3::Config::builder()
            // Pinned: a later version's defaults change what goes over the wire.
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.region.clone()))
            .force_path_style(config.path_style)
            .http_client(wire.clone())
            .credentials_provider(Shared(Arc::clone(&signer)))
            // The signer is asked for each signature; what it has is kept there.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Our own checksum goes into the request. The SDK's is of an empty body in what it presigns, and storage that is
            // not Amazon's refuses the framing it needs.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(Self {
            sdk: Client::from_conf(builder.build()),
            wire,
            signer,
            name: config.bucket.clone(),
            encryption: config.encryption.clone(),
        })
    }

    /// Runs a call of the SDK. The SDK writes URLs and names to its log, so it has none.
    pub(super) async fn call<T, E>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        // The SDK asks the signer as well; asked first, it says what it lacks.
        self.signer.current().await?;
        let done = tokio::time::timeout(within, call.with_subscriber(Dispatch::none())).await;
        done.map_err(|_| Fault::Timeout)?.map_err(|e| self.judged(fault(e)))
    }

    /// A session that storage does not take any more is not used again.
    fn judged(&self, fault: Fault) -> Fault {
        if fault.is_of_session() {
            self.signer.forget();
        }
        fault
    }

    async fn signed<E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
        &self,
        presigned: impl Future<Output = Result<PresignedRequest, SdkError<E, HttpResponse>>> + Send,
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Fault> {
        Ok(self.call(CONTROL, presigned).await?.into_http_1x_request(body))
    }

    pub(super) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.encryption {
            Encryption::Bucket => (None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    // === the bytes

    /// A request that writes `size` bytes with this digest, signed for so long.
    pub(super) async fn sign_put(
        &self,
        target: Target<'_>,
        size: u64,
        sha256: &[u8; 32],
        body: Outgoing,
        life: Duration,
    ) -> Result<Request<Outgoing>, Fault> {
        let length = i64::try_from(size).map_err(|_| Fault::Request)?;
        let ttl = PresigningConfig::expires_in(life).map_err(|_| Fault::Request)?;
        let digest = base64(sha256);
        match target {
            Target::Object(object) | Target::New(object) => {
                let (encryption, key) = self.encryption();
                let only_new = matches!(target, Target::New(_)).then(|| "*".to_owned());
                let put = self.sdk.put_object().bucket(&self.name).key(object).content_length(length);
                let put = put
                    .checksum_sha256(&digest)
                    .set_server_side_encryption(encryption)
                    .set_ssekms_key_id(key);
                self.signed(put.set_if_none_match(only_new).presigned(ttl), body).await
            }
            Target::Part { object, id, number } => {
                let put =
                    self.sdk.upload_part().bucket(&self.name).key(object).upload_id(id).part_number(number);
                let put = put.content_length(length).checksum_sha256(&digest);
                self.signed(put.presigned(ttl), body).await
            }
        }
    }

    /// A request that reads a range of an object; of this version of it, where `tag` is given.
    pub(super) async fn sign_get(
        &self,
        object: &str,
        range: &Range<u64>,
        tag: Option<&str>,
        life: Duration,
    ) -> Result<Request<Outgoing>, Fault> {
        let ttl = PresigningConfig::expires_in(life).map_err(|_| Fault::Request)?;
        let last = range.end.saturating_sub(1);
        let get = self
            .sdk
            .get_object()
            .bucket(&self.name)
            .key(object)
            .range(format!("bytes={}-{last}", range.start));
        self.signed(get.set_if_match(tag.map(str::to_owned)).presigned(ttl), super::wire::empty()).await
    }

    /// Writes `size` bytes, which have to have this digest.
    pub(super) async fn put(
        &self,
        target: Target<'_>,
        size: u64,
        sha256: &[u8; 32],
        body: Outgoing,
    ) -> Result<(), Fault> {
        let digest = base64(sha256);
        let request = self.sign_put(target, size, sha256, body, SIGNED).await?;
        let answer = self.wire.send(request, allowance(size)).await.map_err(|fault| self.judged(fault))?;
        let said = answer.headers().get("x-amz-checksum-sha256");
        if said.is_some_and(|said| said.as_bytes() != digest.as_bytes()) {
            return Err(Fault::Digest);
        }
        Ok(())
    }

    /// Opens a range of an object; of this version of it, where `tag` is given. The ETag comes with it.
    pub(super) async fn get(
        &self,
        object: &str,
        range: &Range<u64>,
        tag: Option<&str>,
    ) -> Result<(Response<Incoming>, String), Fault> {
        let request = self.sign_get(object, range, tag, SIGNED).await?;
        let answer = self.wire.send(request, HEAD).await.map_err(|fault| self.judged(fault))?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Fault::Strange("not the range that was asked for"));
        }
        let text = |name| {
            answer.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok())
        };
        let (start, end) = text(CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes ")?.split_once('/')?.0.split_once('-'))
            .and_then(|(start, last)| {
                Some((start.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?))
            })
            .ok_or(Fault::Strange("no Content-Range"))?;
        if start != range.start || end > range.end {
            return Err(Fault::Strange("another range"));
        }
        if end < range.end {
            return Err(Fault::Length);
        }
        let found = text(ETAG).ok_or(Fault::Strange("no ETag"))?.to_owned();
        if tag.is_some_and(|tag| tag != found) {
            return Err(Fault::Version);
        }
        Ok((answer, found))
    }
}

/// One provider for the SDK and for us.
#[derive(Debug)]
struct Shared(Arc<Signer>);

impl aws_sdk_s3::config::ProvideCredentials for Shared {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::{error::CredentialsError, future};
        future::ProvideCredentials::new(async {
            self.0.current().await.map_err(CredentialsError::provider_error)
        })
    }
}

/// An error of the SDK without what it knows of the request and of the answer's body.
fn fault<E: ProvideErrorMetadata + Error + Send + Sync + 'static>(error: SdkError<E, HttpResponse>) -> Fault {
    match error {
        SdkError::ServiceError(error) => {
            // An error can come with 200, where storage has begun to answer before it was done.
            let status = Some(error.raw().status().as_u16()).filter(|status| *status >= 400).unwrap_or(500);
            Fault::answer(status, error.err().code().unwrap_or_default())
        }
        SdkError::ResponseError(error) if error.raw().status().as_u16() >= 400 => {
            Fault::answer(error.raw().status().as_u16(), "")
        }
        SdkError::ResponseError(_) => Fault::Strange("not what the call is answered with"),
        SdkError::TimeoutError(_) => Fault::Timeout,
        error if matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout()) =>
        {
            // hyper's error, which names no URL.
            error.into_source().map_or(Fault::Timeout, Fault::Connection)
        }
        _ => Fault::Request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a request for an object goes.
    async fn url(endpoint: Option<&str>, path_style: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let credentials_file = dir.path().join("credentials");
        std::fs::write(
            &credentials_file,
            "aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=t\n",
        )
        .unwrap();
        let config = S3Config {
            bucket: "media".into(),
            region: "eu-west-1".into(),
            endpoint: endpoint.map(str::to_owned),
            path_style,
            prefix: String::new(),
            credentials_file,
            role: None,
            tenant: None,
            ca_file: None,
            encryption: Encryption::Bucket,
            spool_dir: dir.path().join("spool"),
        };
        let bucket = Bucket::open(&config, Wire::open(None).unwrap()).unwrap();
        let get = bucket.sdk.get_object().bucket(&bucket.name).key("p/tnt_1/uploads/upl_1");
        let ttl = PresigningConfig::expires_in(SIGNED).unwrap();
        let request = bucket.signed(get.presigned(ttl), crate::objects::s3::wire::empty()).await.unwrap();
        let query = request.uri().query().unwrap();
        assert!(
            query.contains("X-Amz-Security-Token=t") && query.contains("%2Feu-west-1%2Fs3%2F"),
            "{query}"
        );
        format!(
            "{}://{}{}",
            request.uri().scheme_str().unwrap(),
            request.uri().host().unwrap(),
            request.uri().path()
        )
    }

    #[tokio::test]
    async fn the_bucket_is_in_the_host_or_in_the_path() {
        let key = "p/tnt_1/uploads/upl_1";
        assert_eq!(url(None, false).await, format!("https://media.s3.eu-west-1.amazonaws.com/{key}"));
        assert_eq!(url(None, true).await, format!("https://s3.eu-west-1.amazonaws.com/media/{key}"));
        assert_eq!(url(Some("https://s3.test"), false).await, format!("https://media.s3.test/{key}"));
        assert_eq!(url(Some("http://s3.test:9000"), true).await, format!("http://s3.test/media/{key}"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let tried = |fault: fn() -> Fault| async move {
            let mut tries = 0_u32;
            let done: Result<(), Fault> = again(|| {
                tries = tries.saturating_add(1);
                async move { Err(fault()) }
            })
            .await;
            assert!(done.is_err());
            tries
        };
        let (slow, expired, missing, denied) = tokio::join!(
            tried(|| Fault::answer(503, "SlowDown")),
            tried(|| Fault::answer(403, "ExpiredToken")),
            tried(|| Fault::answer(404, "NoSuchKey")),
            tried(|| Fault::answer(403, "AccessDenied")),
        );
        assert_eq!((slow, expired, missing, denied), (TRIES, TRIES, 1, 1));
    }
}
