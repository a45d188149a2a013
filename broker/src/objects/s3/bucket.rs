//! Requests to one bucket. The SDK signs: control calls, which it also sends, and URLs for exactly one object and method, which
//! are used at once, for one request, and never leave this module.

use super::config::{Encryption, S3Config};
use super::credentials::FileCredentials;
use super::fault::Fault;
use super::limits::{COMPLETE, CONTROL, HEAD, PAUSE, SIGNED, TRIES, allowance};
use super::wire::{Outgoing, Wire};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
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

/// A part that storage holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) tag: String,
    /// Its SHA-256, as base64.
    pub(super) sha256: String,
}

/// What storage says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) size: u64,
    /// Its ETag.
    pub(super) tag: String,
    /// Its SHA-256 as S3 gives it: base64, of a multipart object that of its parts' digests and `-` and their number.
    pub(super) sha256: Option<String>,
}

/// One bucket.
pub(super) struct Bucket {
    sdk: Client,
    wire: Wire,
    credentials: Arc<FileCredentials>,
    name: String,
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
    pub(super) fn open(config: &S3Config) -> std::io::Result<Self> {
        let wire = Wire::open(config.ca_file.as_deref())?;
        let credentials = Arc::new(FileCredentials::new(config.credentials_file.clone()));
        credentials.current()?;
        let mut builder = aws_sdk_s3::Config::builder()
            // Pinned: a later version's defaults change what goes over the wire.
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.region.clone()))
            .force_path_style(config.path_style)
            .http_client(wire.clone())
            .credentials_provider(Shared(Arc::clone(&credentials)))
            // The file is looked at for each signature; what it says last is kept there.
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
            credentials,
            name: config.bucket.clone(),
            encryption: config.encryption.clone(),
        })
    }

    /// Runs a call of the SDK. The SDK writes URLs and names to its log, so it has none.
    async fn call<T, E>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        self.credentials.current().map_err(Fault::Credentials)?;
        let done = tokio::time::timeout(within, call.with_subscriber(Dispatch::none())).await;
        done.map_err(|_| Fault::Timeout)?.map_err(fault)
    }

    async fn signed<E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
        &self,
        presigned: impl Future<Output = Result<PresignedRequest, SdkError<E, HttpResponse>>> + Send,
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Fault> {
        Ok(self.call(CONTROL, presigned).await?.into_http_1x_request(body))
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.encryption {
            Encryption::Bucket => (None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    // === the bytes

    /// Writes `size` bytes, which have to have this digest.
    pub(super) async fn put(
        &self,
        target: Target<'_>,
        size: u64,
        sha256: &[u8; 32],
        body: Outgoing,
    ) -> Result<(), Fault> {
        let length = i64::try_from(size).map_err(|_| Fault::Request)?;
        let ttl = PresigningConfig::expires_in(SIGNED).map_err(|_| Fault::Request)?;
        let digest = base64(sha256);
        let request = match target {
            Target::Object(object) => {
                let (encryption, key) = self.encryption();
                let put = self.sdk.put_object().bucket(&self.name).key(object).content_length(length);
                let put = put.checksum_sha256(&digest).set_server_side_encryption(encryption).set_ssekms_key_id(key);
                self.signed(put.presigned(ttl), body).await?
            }
            Target::Part { object, id, number } => {
                let put = self.sdk.upload_part().bucket(&self.name).key(object).upload_id(id).part_number(number);
                let put = put.content_length(length).checksum_sha256(&digest);
                self.signed(put.presigned(ttl), body).await?
            }
        };
        let answer = self.wire.send(request, allowance(size)).await?;
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
        let ttl = PresigningConfig::expires_in(SIGNED).map_err(|_| Fault::Request)?;
        let last = range.end.saturating_sub(1);
        let get = self.sdk.get_object().bucket(&self.name).key(object).range(format!("bytes={}-{last}", range.start));
        let request = self.signed(get.set_if_match(tag.map(str::to_owned)).presigned(ttl), super::wire::empty());
        let answer = self.wire.send(request.await?, HEAD).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Fault::Strange("not the range that was asked for"));
        }
        let text = |name| answer.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
        let (start, end) = text(CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes ")?.split_once('/')?.0.split_once('-'))
            .and_then(|(start, last)| Some((start.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?)))
            .ok_or(Fault::Strange("no Content-Range"))?;
        if start != range.start || end > range.end {
            return Err(Fault::Strange("another range"));
        }
        if end < range.end {
            return Err(Fault::Length);
        }
        let found = text(ETAG).ok_or(Fault::Strange("no ETag"))?.to_owned();
        if tag.is_some_and(|tag| tag != found) {
            return Err(Fault::Strange("another version of the object"));
        }
        Ok((answer, found))
    }

    // === control calls

    /// What storage says of an object; `None` where there is none.
    pub(super) async fn head(&self, object: &str) -> Result<Option<Head>, Fault> {
        let head = || {
            let head = self.sdk.head_object().bucket(&self.name).key(object).checksum_mode(ChecksumMode::Enabled);
            self.call(CONTROL, head.send())
        };
        let head = match again(head).await {
            Err(fault) if fault.is_missing() => return Ok(None),
            head => head?,
        };
        let size = head.content_length.and_then(|n| u64::try_from(n).ok());
        let (Some(size), Some(tag)) = (size, head.e_tag) else { return Err(Fault::Strange("no length or no ETag")) };
        Ok(Some(Head { size, tag, sha256: head.checksum_sha256 }))
    }

    pub(super) async fn delete(&self, object: &str) -> Result<(), Fault> {
        let delete = || {
            let delete = self.sdk.delete_object().bucket(&self.name).key(object);
            self.call(CONTROL, delete.send())
        };
        match again(delete).await {
            Err(fault) if !fault.is_missing() => Err(fault),
            _ => Ok(()),
        }
    }

    /// Calls `each` with the name and the length of every object whose name starts with `prefix`.
    pub(super) async fn list(&self, prefix: &str, mut each: impl FnMut(&str, u64) + Send) -> Result<(), Fault> {
        let mut from: Option<String> = None;
        loop {
            let list = || {
                let list = self.sdk.list_objects_v2().bucket(&self.name).prefix(prefix);
                self.call(CONTROL, list.set_continuation_token(from.clone()).send())
            };
            let page = again(list).await?;
            for object in page.contents() {
                if let Some(name) = object.key() {
                    each(name, object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
                }
            }
            match page.next_continuation_token {
                Some(next) if page.is_truncated == Some(true) && from.as_ref() != Some(&next) => from = Some(next),
                _ => return Ok(()),
            }
        }
    }

    /// Whether the bucket can be listed.
    pub(super) async fn ping(&self, prefix: &str) -> Result<(), Fault> {
        let list = self.sdk.list_objects_v2().bucket(&self.name).prefix(prefix).max_keys(1);
        self.call(CONTROL, list.send()).await.map(drop)
    }

    /// Opens a multipart upload.
    pub(super) async fn create(&self, object: &str) -> Result<String, Fault> {
        let create = || {
            let (encryption, key) = self.encryption();
            let create = self.sdk.create_multipart_upload().bucket(&self.name).key(object);
            let create = create.checksum_algorithm(ChecksumAlgorithm::Sha256);
            let create = create.set_server_side_encryption(encryption).set_ssekms_key_id(key);
            self.call(CONTROL, create.send())
        };
        again(create).await?.upload_id.ok_or(Fault::Strange("no upload id"))
    }

    /// The open multipart uploads of exactly this object, oldest first.
    pub(super) async fn multiparts(&self, object: &str) -> Result<Vec<String>, Fault> {
        let list = || {
            // Exactly the object's name: MinIO answers to no other prefix.
            let list = self.sdk.list_multipart_uploads().bucket(&self.name).prefix(object);
            self.call(CONTROL, list.send())
        };
        let page = again(list).await?;
        let mut found: Vec<_> = page
            .uploads()
            .iter()
            .filter(|upload| upload.key() == Some(object))
            .filter_map(|upload| {
                let initiated = upload.initiated().map_or((0, 0), |time| (time.secs(), time.subsec_nanos()));
                Some((initiated, upload.upload_id()?.to_owned()))
            })
            .collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The parts of a multipart upload, in order.
    pub(super) async fn parts(&self, object: &str, id: &str) -> Result<Vec<Held>, Fault> {
        let mut held: Vec<Held> = Vec::new();
        loop {
            let after = held.last().map(|last| last.number.to_string());
            let list = || {
                let list = self.sdk.list_parts().bucket(&self.name).key(object).upload_id(id);
                self.call(CONTROL, list.set_part_number_marker(after.clone()).send())
            };
            let page = again(list).await?;
            let before = held.len();
            for part in page.parts() {
                let (Some(number), Some(size), Some(tag)) = (part.part_number(), part.size(), part.e_tag()) else {
                    return Err(Fault::Strange("a part without number, length or ETag"));
                };
                let sha256 = part.checksum_sha256().ok_or(Fault::Strange("a part without its checksum"))?;
                held.push(Held {
                    number,
                    size: u64::try_from(size).unwrap_or(0),
                    tag: tag.to_owned(),
                    sha256: sha256.to_owned(),
                });
            }
            if page.is_truncated != Some(true) || held.len() == before {
                return Ok(held);
            }
        }
    }

    /// Makes the object of these parts.
    pub(super) async fn complete(&self, object: &str, id: &str, parts: &[Held]) -> Result<(), Fault> {
        let complete = || {
            let parts = parts.iter().map(|part| {
                let done = CompletedPart::builder().part_number(part.number).e_tag(&part.tag);
                done.checksum_sha256(&part.sha256).build()
            });
            let all = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
            let complete = self.sdk.complete_multipart_upload().bucket(&self.name).key(object).upload_id(id);
            self.call(COMPLETE, complete.multipart_upload(all).send())
        };
        again(complete).await.map(drop)
    }

    /// Gives a multipart upload up.
    pub(super) async fn abort(&self, object: &str, id: &str) -> Result<(), Fault> {
        let abort = || {
            let abort = self.sdk.abort_multipart_upload().bucket(&self.name).key(object).upload_id(id);
            self.call(CONTROL, abort.send())
        };
        match again(abort).await {
            Err(fault) if !fault.is_missing() => Err(fault),
            _ => Ok(()),
        }
    }
}

/// One provider for the SDK and for us.
#[derive(Debug)]
struct Shared(Arc<FileCredentials>);

impl aws_sdk_s3::config::ProvideCredentials for Shared {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.0.provide_credentials()
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
        error if matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout()) => {
            // hyper's error, which names no URL.
            error.into_source().map_or(Fault::Timeout, Fault::Connection)
        }
        _ => Fault::Request,
    }
}
