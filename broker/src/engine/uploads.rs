//! Uploads: announced, sent in one or many goes, used by jobs.

use super::{Counters, Engine, render};
use crate::model::UploadRecord;
use crate::objects::{Body, Key, ObjectError};
use crate::secret::fresh_id;
use crate::store::{Announced, Deleted, Idempotency, NewUpload, Once, StoreError};
use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use futures_util::StreamExt as _;
use mpegflow_protocol::api::{CreateUpload, Upload};
use mpegflow_protocol::ids::{TenantId, UploadId};
use mpegflow_protocol::{limits, text, to_json};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The bytes do not have the digest that came with them; none of them counts.
    #[error("the bytes do not have the digest that came with them")]
    Checksum,
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

/// A digest that came with bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// Its name, as tus spells it.
    pub algorithm: ChecksumAlgorithm,
    /// What it has to be.
    pub digest: Vec<u8>,
}

/// The digests that bytes may come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// SHA-1, which tus demands. Good against a broken line, not against a person.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// Every one, best first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// The name that tus has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    const fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
        }
    }

    /// Bytes of a digest.
    pub fn digest_len(self) -> usize {
        self.algorithm().output_len()
    }
}

/// How bytes are written.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    /// Where they start.
    pub offset: u64,
    /// How many they are, where that is known: what is too long is refused before a byte of it is read.
    pub announced: Option<u64>,
    /// What they have to be: then all of them count, or none.
    pub checksum: Option<Checksum>,
    /// Takes the place of a call that writes already.
    pub preempt: bool,
}

impl Engine {
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
        self.announce_upload(tenant, wanted, None, once).await.map(|(answer, _)| answer)
    }

    /// As [`Self::create_upload`], with what a tus client says of it; also the upload, where it is new.
    ///
    /// # Errors
    /// A field is wrong, or a quota is reached.
    pub async fn announce_upload(
        &self,
        tenant: TenantId,
        wanted: &CreateUpload,
        metadata: Option<String>,
        once: Option<&Idempotency>,
    ) -> Result<(Vec<u8>, Option<UploadRecord>), UploadError> {
        if wanted.size > limits::MAX_UPLOAD {
            let reason = format!("{} bytes; at most {} are accepted", wanted.size, limits::MAX_UPLOAD);
            return Err(UploadError::Field { field: "size", reason });
        }
        if let Some(name) = &wanted.name
            && !text::is_label(name, 255)
        {
            return Err(UploadError::Field { field: "name", reason: "1 to 255 printable characters".into() });
        }
        let now = self.now();
        let upload = UploadRecord {
            id: fresh_id(),
            tenant,
            size: wanted.size,
            received: 0,
            name: wanted.name.clone(),
            metadata,
            quarantined: false,
            created_at: now,
            touched_at: now,
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
            Once::Done(Announced::Created) => Ok((answer, Some(new.upload))),
            Once::Replay(answer) => Ok((answer, None)),
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
        self.upload_record(tenant, id).await.map(|upload| render::upload(&upload))
    }

    /// All that is known of an upload of the tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn upload_record(&self, tenant: TenantId, id: UploadId) -> Result<UploadRecord, UploadError> {
        self.store.upload(tenant, id).await?.ok_or(UploadError::NotFound)
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
        body: Body,
    ) -> Result<Upload, UploadError> {
        let writes = Writes { offset, announced, ..Writes::default() };
        self.write_bytes(tenant, id, writes, body).await.map(|upload| render::upload(&upload))
    }

    /// Writes a body.
    ///
    /// # Errors
    /// Another writer, another offset, too many bytes, another digest, or storage. What was safely stored before an error
    /// counts, unless there is a digest that all of it was to have.
    pub async fn write_bytes(
        &self,
        tenant: TenantId,
        id: UploadId,
        writes: Writes,
        body: Body,
    ) -> Result<UploadRecord, UploadError> {
        self.upload_record(tenant, id).await?;
        let right = self.begin_writing(id, writes.preempt).await?;
        // Read only now: another writer may have just ended.
        let mut upload = self.upload_record(tenant, id).await?;
        let Writes { offset, announced, checksum, .. } = writes;
        if offset != upload.received {
            return Err(UploadError::Offset(upload.received));
        }
        if announced.is_some_and(|len| len > upload.size.saturating_sub(offset)) {
            return Err(UploadError::TooLong);
        }
        let mut body = right.body(body);
        let digesting = checksum.map(|checksum| Digesting::new(checksum, &mut body));
        // What is not known to be right must not be counted in part.
        let step = if digesting.is_some() { u64::MAX } else { STEP };
        let key = Key::Upload(tenant, id);
        loop {
            let room = upload.size.saturating_sub(upload.received);
            let appended = match self.objects.append(&key, upload.received, &mut body, step, room).await {
                Ok(appended) => appended,
                Err(ObjectError::Full) => return Err(UploadError::Full),
                Err(e) => return Err(UploadError::Objects(e)),
            };
            let to = upload.received.saturating_add(appended.len);
            match (&digesting, &appended.error) {
                (Some(_), Some(_)) => {}
                (Some(digesting), None) if !digesting.is_right() => return Err(UploadError::Checksum),
                _ => {
                    let now = self.now();
                    if to > upload.received
                        && !self.store.advance_upload(id, upload.received, to, now).await?
                    {
                        // Deleted meanwhile.
                        return Err(UploadError::NotFound);
                    }
                    Counters::add(&self.counters.bytes_uploaded, appended.len);
                    upload.received = to;
                    upload.touched_at = now;
                }
            }
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
        Ok(upload)
    }

    /// Deletes an upload and its bytes.
    ///
    /// # Errors
    /// A job that has not ended needs it, or it is being written and `preempt` is not said.
    pub async fn delete_upload(
        &self,
        tenant: TenantId,
        id: UploadId,
        preempt: bool,
    ) -> Result<(), UploadError> {
        self.upload_record(tenant, id).await?;
        let _right = self.begin_writing(id, preempt).await?;
        match self.store.delete_upload(tenant, id).await? {
            Deleted::NotFound => return Err(UploadError::NotFound),
            Deleted::InUse => return Err(UploadError::InUse),
            Deleted::Done => {}
        }
        // The row is gone, so a file that stays is swept at the next start.
        self.objects.remove_upload(tenant, id).await.map_err(UploadError::Objects)
    }
}

/// Digests a body while it is read.
struct Digesting {
    context: Arc<Mutex<Context>>,
    wanted: Checksum,
}

impl Digesting {
    fn new(wanted: Checksum, body: &mut Body) -> Self {
        let context = Arc::new(Mutex::new(Context::new(wanted.algorithm.algorithm())));
        let whole = std::mem::replace(body, Box::pin(futures_util::stream::empty()));
        let updated = Arc::clone(&context);
        *body = Box::pin(whole.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                updated.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
            }
        }));
        Self { context, wanted }
    }

    fn is_right(&self) -> bool {
        let digest = self.context.lock().unwrap_or_else(PoisonError::into_inner).clone().finish();
        digest.as_ref() == self.wanted.digest.as_slice()
    }
}
