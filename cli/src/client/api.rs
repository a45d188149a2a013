//! The calls of the public API, one function each.

use super::{Client, ClientError, PATIENCE, RequestBody, STALL, empty};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Response};
use mpegflow_protocol::api::{CreateUpload, Job, JobLogs, JobPage, Preset, Upload};
use mpegflow_protocol::ids::{JobId, MessageId, UploadId, WebhookId};
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::to_json;
use mpegflow_protocol::webhook::{CreateWebhook, Delivery, DeliveryPage, RotateWebhook, Webhook};
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Reads of the file that is uploaded.
const CHUNK: usize = 256 << 10;

/// A file to upload.
#[derive(Debug, Clone)]
pub(crate) struct UploadSource {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length when it was opened; the upload has exactly this many bytes.
    pub(crate) size: u64,
    /// Tells this state of the file from another one, by its length and the time it was changed.
    pub(crate) mark: String,
}

impl UploadSource {
    /// A readable, regular file.
    pub(crate) fn open(path: &Path) -> Result<Self, ClientError> {
        let fail = |reason: String| ClientError::Input { path: path.to_owned(), reason };
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        let metadata = file.metadata().map_err(|e| fail(e.to_string()))?;
        if !metadata.is_file() {
            return Err(fail("it is not a file".into()));
        }
        if metadata.len() > mpegflow_protocol::limits::MAX_UPLOAD {
            return Err(fail("it is larger than 64 GiB, the most that is accepted".into()));
        }
        Ok(Self { path: path.to_owned(), size: metadata.len(), mark: mark(&metadata) })
    }

    /// Whether the file has another length than it had when it was opened.
    pub(crate) fn has_changed(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |metadata| metadata.len() != self.size)
    }

    /// Whether the file is as it was when it was opened, as far as its length and times tell.
    pub(crate) fn is_as_opened(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| mark(&metadata) == self.mark)
    }

    /// The error for that.
    pub(crate) fn changed(&self) -> ClientError {
        ClientError::Input { path: self.path.clone(), reason: "it changed while it was read".into() }
    }

    /// The name it is announced by: its last component, cleaned.
    fn name(&self) -> Option<String> {
        let name = self.path.file_name()?.to_string_lossy();
        let name = mpegflow_protocol::text::clean(&name, 255);
        (!name.is_empty()).then_some(name)
    }

    /// The bytes from `offset` on, exactly as many as were announced; `on_bytes` hears of each chunk.
    async fn body(
        &self,
        offset: u64,
        on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<RequestBody, ClientError> {
        let fail = |e: std::io::Error| ClientError::Input { path: self.path.clone(), reason: e.to_string() };
        let mut file = tokio::fs::File::open(&self.path).await.map_err(fail)?;
        file.seek(SeekFrom::Start(offset)).await.map_err(fail)?;
        // A file that grows meanwhile would make a body longer than its declared length.
        let rest = file.take(self.size.saturating_sub(offset));
        let stream = ReaderStream::with_capacity(rest, CHUNK).map(move |chunk: std::io::Result<Bytes>| {
            let chunk = chunk?;
            on_bytes(u64::try_from(chunk.len()).unwrap_or(0));
            Ok(Frame::data(chunk))
        });
        Ok(StreamBody::new(stream).boxed_unsync())
    }
}

/// A digest: the time itself, which says when something was filmed, would be published with the result.
pub(crate) fn mark(metadata: &std::fs::Metadata) -> String {
    let changed = metadata
        .modified()
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    crate::digest::short(format!("{} {changed}", metadata.len()).as_bytes())
}

impl Client {
    /// Announces an upload.
    pub(crate) async fn create_upload(&self, source: &UploadSource) -> Result<Upload, ClientError> {
        let body = CreateUpload { size: source.size, name: source.name() };
        self.post("/v1/uploads", Some(to_json(&body))).await
    }

    /// How far an upload is.
    pub(crate) async fn upload(&self, id: UploadId) -> Result<Upload, ClientError> {
        self.get(&format!("/v1/uploads/{id}")).await
    }

    /// Sends the bytes of an upload from `offset` to the end.
    pub(crate) async fn send_upload(
        &self,
        id: UploadId,
        source: &UploadSource,
        offset: u64,
        on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Upload, ClientError> {
        let body = source.body(offset, on_bytes).await?;
        let builder = self
            .request(Method::PATCH, &format!("/v1/uploads/{id}"))
            .header("upload-offset", offset)
            .header(CONTENT_TYPE, "application/offset+octet-stream")
            .header(CONTENT_LENGTH, source.size.saturating_sub(offset));
        self.json(builder, body, None).await
    }

    /// Submits a job.
    pub(crate) async fn submit(&self, spec: &JobSpec) -> Result<Job, ClientError> {
        self.post("/v1/jobs", Some(to_json(spec))).await
    }

    /// One job.
    pub(crate) async fn job(&self, id: JobId) -> Result<Job, ClientError> {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    /// A page of jobs, newest first.
    pub(crate) async fn jobs(&self, after: Option<JobId>, limit: u16) -> Result<JobPage, ClientError> {
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        self.get(&format!("/v1/jobs?limit={limit}{after}")).await
    }

    /// Deletes a job that has ended.
    pub(crate) async fn delete_job(&self, id: JobId) -> Result<(), ClientError> {
        let builder = self.request(Method::DELETE, &format!("/v1/jobs/{id}"));
        self.send(builder, empty(), Some(PATIENCE)).await.map(drop)
    }

    /// Asks for a job to be canceled.
    pub(crate) async fn cancel(&self, id: JobId) -> Result<Job, ClientError> {
        self.post(&format!("/v1/jobs/{id}/cancel"), None).await
    }

    /// What the codecs of a job's attempts wrote.
    pub(crate) async fn logs(&self, id: JobId) -> Result<JobLogs, ClientError> {
        self.get(&format!("/v1/jobs/{id}/logs")).await
    }

    /// Makes a webhook. Not repeated by itself: a broken connection would leave one whose secret nobody saw.
    pub(crate) async fn create_webhook(&self, wanted: &CreateWebhook) -> Result<Webhook, ClientError> {
        self.post_once("/v1/webhooks", Some(to_json(wanted))).await
    }

    /// The webhooks.
    pub(crate) async fn webhooks(&self) -> Result<Vec<Webhook>, ClientError> {
        self.get("/v1/webhooks").await
    }

    /// Gives a webhook a new secret.
    pub(crate) async fn rotate_webhook(&self, id: WebhookId, overlap_s: u32) -> Result<Webhook, ClientError> {
        self.post_once(&format!("/v1/webhooks/{id}/rotate"), Some(to_json(&RotateWebhook { overlap_s })))
            .await
    }

    /// Enables a webhook.
    pub(crate) async fn enable_webhook(&self, id: WebhookId) -> Result<Webhook, ClientError> {
        self.post(&format!("/v1/webhooks/{id}/enable"), None).await
    }

    /// Deletes a webhook.
    pub(crate) async fn delete_webhook(&self, id: WebhookId) -> Result<(), ClientError> {
        let builder = self.request(Method::DELETE, &format!("/v1/webhooks/{id}"));
        self.send(builder, empty(), Some(PATIENCE)).await.map(drop)
    }

    /// The latest messages to a webhook.
    pub(crate) async fn deliveries(&self, id: WebhookId, limit: u16) -> Result<DeliveryPage, ClientError> {
        self.get(&format!("/v1/webhooks/{id}/deliveries?limit={limit}")).await
    }

    /// Has a message sent again.
    pub(crate) async fn redeliver(&self, id: WebhookId, message: MessageId) -> Result<Delivery, ClientError> {
        self.post(&format!("/v1/webhooks/{id}/deliveries/{message}/redeliver"), None).await
    }

    /// The stream of all events, after one of them or from now on.
    pub(crate) async fn all_events(&self, after: Option<&str>) -> Result<Response<Incoming>, ClientError> {
        let mut builder = self.request(Method::GET, "/v1/events").header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            builder = builder.header("last-event-id", after);
        }
        self.send(builder, empty(), Some(PATIENCE)).await
    }

    /// The presets.
    pub(crate) async fn presets(&self) -> Result<Vec<Preset>, ClientError> {
        self.get("/v1/presets").await
    }

    /// The body of an object, from `offset` on.
    pub(crate) async fn object(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        self.send(self.request(Method::GET, path), empty(), Some(STALL)).await
    }

    /// The stream of one job's events.
    pub(crate) async fn events(&self, job: JobId) -> Result<Response<Incoming>, ClientError> {
        let path = format!("/v1/events?job={job}");
        self.send(
            self.request(Method::GET, &path).header(ACCEPT, "text/event-stream"),
            empty(),
            Some(PATIENCE),
        )
        .await
    }
}
