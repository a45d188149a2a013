//! Uploads: announced, sent in one or many goes, used by jobs.

use super::{Counters, Engine, render};
use crate::model::UploadRecord;
use crate::objects::{Body, Key, ObjectError};
use crate::secret::fresh_id;
use crate::store::{Announced, Deleted, Idempotency, NewUpload, Once, Store, StoreError};
use mpegflow_protocol::api::{CreateUpload, Upload};
use mpegflow_protocol::ids::{TenantId, UploadId};
use mpegflow_protocol::{limits, text, to_json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is written before the store is told: what a crash can cost of an upload.
const STEP: u64 = 32 << 20;

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A field is wrong.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tenant has no such upload.
    #[error("there is no such upload")]
    NotFound,
    /// Too many unfinished uploads.
    #[error("there are too many unfinished uploads; at most {0}")]
    TooMany(u32),
    /// Too many bytes.
    #[error("the tenant's uploads would exceed {0} bytes")]
    Quota(u64),
    /// Somebody is writing it.
    #[error("the upload is being written")]
    Busy,
    /// The bytes do not start where the upload has got to.
    #[error("the upload has got to {0}")]
    Offset(u64),
    /// More bytes than were announced.
    #[error("the upload would be longer than announced")]
    TooLong,
    /// A job needs it.
    #[error("a job needs the upload")]
    InUse,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The body broke off; what had come is kept.
    #[error("the body broke off")]
    Body(#[source] ObjectError),
    /// There is no room.
    #[error("storage is full")]
    Full,
    /// Storage failed.
    #[error("storage failed")]
    Objects(#[source] ObjectError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// The uploads that are being written.
#[derive(Debug, Default)]
pub(super) struct Writing(Mutex<HashSet<UploadId>>);

/// The right to write one upload; ends with this.
struct Writer<'a>(&'a Writing, UploadId);

impl Writing {
    fn begin(&self, id: UploadId) -> Option<Writer<'_>> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        // Lazily: a guard that is made only to be dropped would end the other writer's right.
        new.then(|| Writer(self, id))
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// How long a broker that is gone keeps others from going on with an upload.
const WRITER_TTL_MS: u64 = 15_000;
const RENEW: Duration = Duration::from_secs(4);

/// The right to write one upload among all brokers, renewed until this ends.
struct Elsewhere {
    store: Arc<dyn Store>,
    id: UploadId,
    holder: String,
    renewal: tokio::task::JoinHandle<()>,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.renewal.abort();
        let (store, id, holder) = (Arc::clone(&self.store), self.id, std::mem::take(&mut self.holder));
        // Not given back, it ends by itself.
        tokio::spawn(async move { store.wrote_upload(id, &holder).await });
    }
}

impl Engine {
    async fn begin_elsewhere(&self, id: UploadId) -> Result<Elsewhere, UploadError> {
        // One for each call, so that what an earlier call gives back late is not this one's.
        let holder = uuid::Uuid::new_v4().to_string();
        if !self.store.write_upload(id, &holder, WRITER_TTL_MS).await? {
            return Err(UploadError::Busy);
        }
        let (store, named) = (Arc::clone(&self.store), holder.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW).await;
                // Whoever has lost it finds the count moved, and stops.
                let _ = store.write_upload(id, &named, WRITER_TTL_MS).await;
            }
        });
        Ok(Elsewhere { store: Arc::clone(&self.store), id, holder, renewal })
    }

    /// Announces an upload; the answer as JSON, and whether it is new.
    ///
    /// # Errors
    /// A field is wrong, or a quota is reached.
    pub async fn create_upload(
        &self,
        tenant: TenantId,
        wanted: &CreateUpload,
        once: Option<&Idempotency>,
    ) -> Result<Vec<u8>, UploadError> {
        if wanted.size > limits::MAX_UPLOAD {
            let reason = format!("{} bytes; at most {} are accepted", wanted.size, limits::MAX_UPLOAD);
            return Err(UploadError::Field { field: "size", reason });
        }
        if let Some(name) = &wanted.name
            && !text::is_label(name, 255)
        {
            return Err(UploadError::Field { field: "name", reason: "1 to 255 printable characters".into() });
        }
        let upload = UploadRecord {
            id: fresh_id(),
            tenant,
            size: wanted.size,
            received: 0,
            name: wanted.name.clone(),
            quarantined: false,
            created_at: self.now(),
        };
        let answer = to_json(&render::upload(&upload));
        let quotas = self.limits(tenant).await?.quotas;
        let new = NewUpload {
            upload,
            max_unfinished: quotas.unfinished_uploads,
            max_bytes: quotas.upload_bytes,
            answer: answer.clone(),
        };
        match self.store.create_upload(&new, once).await? {
            Once::Done(Announced::Created) => Ok(answer),
            Once::Replay(answer) => Ok(answer),
            Once::Done(Announced::TooMany) => Err(UploadError::TooMany(quotas.unfinished_uploads)),
            Once::Done(Announced::TooLarge) => Err(UploadError::Quota(quotas.upload_bytes)),
            Once::Mismatch => Err(UploadError::KeyReused),
        }
    }

    /// An upload of the tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn upload(&self, tenant: TenantId, id: UploadId) -> Result<Upload, UploadError> {
        let upload = self.store.upload(tenant, id).await?.ok_or(UploadError::NotFound)?;
        Ok(render::upload(&upload))
    }

    /// Writes a body from `offset` on. `announced` is the body's length where it is known: one that is too long is refused
    /// before a byte of it is read.
    ///
    /// # Errors
    /// Another writer, another offset, too many bytes, or storage. What was safely stored before an error counts.
    pub async fn write_upload(
        &self,
        tenant: TenantId,
        id: UploadId,
        offset: u64,
        announced: Option<u64>,
        mut body: Body,
    ) -> Result<Upload, UploadError> {
        let mut upload = self.store.upload(tenant, id).await?.ok_or(UploadError::NotFound)?;
        let _writer = self.writing.begin(id).ok_or(UploadError::Busy)?;
        let _elsewhere = self.begin_elsewhere(id).await?;
        // Read again: another writer may have just ended.
        upload = self.store.upload(tenant, id).await?.unwrap_or(upload);
        if offset != upload.received {
            return Err(UploadError::Offset(upload.received));
        }
        if announced.is_some_and(|len| len > upload.size.saturating_sub(offset)) {
            return Err(UploadError::TooLong);
        }
        let key = Key::Upload(tenant, id);
        loop {
            let room = upload.size.saturating_sub(upload.received);
            let appended = match self.objects.append(&key, upload.received, &mut body, STEP, room).await {
                Ok(appended) => appended,
                Err(ObjectError::Full) => return Err(UploadError::Full),
                Err(e) => return Err(UploadError::Objects(e)),
            };
            let to = upload.received.saturating_add(appended.len);
            if to > upload.received && !self.store.advance_upload(id, upload.received, to, self.now()).await?
            {
                // Deleted meanwhile.
                return Err(UploadError::NotFound);
            }
            Counters::add(&self.counters.bytes_uploaded, appended.len);
            upload.received = to;
            match appended.error {
                None if appended.ended => break,
                None => {}
                Some(ObjectError::Length) => return Err(UploadError::TooLong),
                Some(ObjectError::Full) => return Err(UploadError::Full),
                Some(e @ ObjectError::Body(_)) => return Err(UploadError::Body(e)),
                Some(e) => return Err(UploadError::Objects(e)),
            }
        }
        if upload.received == upload.size {
            // Not before the store has counted every byte. What keeps this from happening now, a crash above all, is made up
            // for when a job wants the upload.
            self.objects.finish_upload(tenant, id, upload.size).await.map_err(|e| match e {
                ObjectError::Full => UploadError::Full,
                e => UploadError::Objects(e),
            })?;
        }
        Ok(render::upload(&upload))
    }

    /// Deletes an upload and its bytes.
    ///
    /// # Errors
    /// A job that has not ended needs it, or it is being written.
    pub async fn delete_upload(&self, tenant: TenantId, id: UploadId) -> Result<(), UploadError> {
        self.store.upload(tenant, id).await?.ok_or(UploadError::NotFound)?;
        let _writer = self.writing.begin(id).ok_or(UploadError::Busy)?;
        let _elsewhere = self.begin_elsewhere(id).await?;
        match self.store.delete_upload(tenant, id).await? {
            Deleted::NotFound => return Err(UploadError::NotFound),
            Deleted::InUse => return Err(UploadError::InUse),
            Deleted::Done => {}
        }
        // The row is gone, so a file that stays is swept at the next start.
        self.objects.remove_upload(tenant, id).await.map_err(UploadError::Objects)
    }
}
