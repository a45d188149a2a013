//! Storage that is measured: every operation's time, by whatever adapter is inside.

use super::{Appended, Body, Bytestream, Cursor, Found, Key, ObjectError, Objects, Owners, Page, PartHead};
use crate::engine::Meters;
use async_trait::async_trait;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::worker::Signed;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An adapter, and where its times go.
pub struct Measured {
    inner: Arc<dyn Objects>,
    meters: Arc<Meters>,
}

impl Measured {
    /// Measures `inner`.
    pub const fn new(inner: Arc<dyn Objects>, meters: Arc<Meters>) -> Self {
        Self { inner, meters }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, ObjectError>> + Send,
    ) -> Result<T, ObjectError> {
        let start = Instant::now();
        let result = work.await;
        self.meters.stored(operation, result.is_ok(), start.elapsed());
        result
    }
}

#[async_trait]
impl Objects for Measured {
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError> {
        self.measure("append", self.inner.append(key, offset, body, some, most)).await
    }

    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError> {
        self.measure("finish_upload", self.inner.finish_upload(tenant, upload, size)).await
    }

    async fn put_part(&self, key: &Key, head: &PartHead, body: Body) -> Result<(), ObjectError> {
        self.measure("put_part", self.inner.put_part(key, head, body)).await
    }

    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError> {
        self.measure("finish", self.inner.finish(key, parts)).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError> {
        self.measure("read", self.inner.read(key, range)).await
    }

    async fn version(&self, key: &Key) -> Result<Option<String>, ObjectError> {
        self.measure("version", self.inner.version(key)).await
    }

    async fn read_version(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
    ) -> Result<Bytestream, ObjectError> {
        self.measure("read", self.inner.read_version(key, range, version)).await
    }

    async fn sign_read(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        self.measure("sign_read", self.inner.sign_read(key, range, version, life)).await
    }

    async fn sign_part(
        &self,
        key: &Key,
        head: &PartHead,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        self.measure("sign_part", self.inner.sign_part(key, head, life)).await
    }

    async fn holds_part(&self, key: &Key, head: &PartHead) -> Result<(), ObjectError> {
        self.measure("holds_part", self.inner.holds_part(key, head)).await
    }

    async fn look_up(&self, key: &Key) -> Result<Found, ObjectError> {
        self.measure("look_up", self.inner.look_up(key)).await
    }

    async fn list_stored(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: &str,
        most: u32,
    ) -> Result<Page, ObjectError> {
        self.measure("list_stored", self.inner.list_stored(tenant, prefix, after, most)).await
    }

    fn trouble(&self, tenant: TenantId) -> Option<String> {
        self.inner.trouble(tenant)
    }

    async fn look_at_trouble(&self) {
        self.inner.look_at_trouble().await;
    }

    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError> {
        self.measure("remove_upload", self.inner.remove_upload(tenant, upload)).await
    }

    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError> {
        self.measure("remove_attempt", self.inner.remove_attempt(tenant, job, attempt)).await
    }

    async fn owners(&self, from: &Cursor, most: u32) -> Result<Owners, ObjectError> {
        self.measure("list_owners", self.inner.owners(from, most)).await
    }

    async fn ping(&self) -> Result<(), ObjectError> {
        self.measure("ping", self.inner.ping()).await
    }
}
