//! Objects: the bytes. A key is made of ids alone, and one function turns it into a path.

pub mod local;
pub mod measured;
pub mod own;
pub mod s3;
pub mod tenants;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::path::StoredKey;
use mpegflow_protocol::worker::Signed;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// An upload.
    Upload(TenantId, UploadId),
    /// An output of an attempt. Another attempt at the same task has another key, so a late one can spoil nothing.
    Output(TenantId, JobId, AttemptId, u32),
    /// What the tenant has put into storage of its own. It is read and never written, and only there.
    Stored(TenantId, StoredKey),
}

impl Key {
    /// Its path, relative to the root of the objects. The only place where one is made.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Upload(tenant, upload) => PathBuf::from(format!("{tenant}/uploads/{upload}")),
            Self::Output(tenant, job, attempt, output) => {
                PathBuf::from(format!("{tenant}/jobs/{job}/{attempt}/{output}"))
            }
            Self::Stored(_, key) => PathBuf::from(key.as_str()),
        }
    }
}

impl Key {
    /// Whose it is.
    pub const fn tenant(&self) -> TenantId {
        match self {
            Self::Upload(tenant, _) | Self::Output(tenant, ..) | Self::Stored(tenant, _) => *tenant,
        }
    }

    /// Whether the broker made it.
    pub const fn is_ours(&self) -> bool {
        !matches!(self, Self::Stored(..))
    }
}

/// Whom stored bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// An upload.
    Upload(TenantId, UploadId),
    /// An attempt.
    Attempt(TenantId, JobId, AttemptId),
}

/// A place in the list of owners; the default is its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// In whose own storage; in that of all where there is none.
    pub own: Option<TenantId>,
    /// The last name there that was looked at.
    pub after: String,
}

/// A part of the list of owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Each of them once; one whose names go on behind this part comes in the next, too.
    pub owners: BTreeSet<Owner>,
    /// Where the list goes on.
    pub next: Option<Cursor>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    Idle,
    /// Too little came for too long.
    #[error("too little came for too long")]
    Slow,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Bytes on their way here.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;
/// Bytes on their way out.
pub type Bytestream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Why an object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no room.
    #[error("storage is full")]
    Full,
    /// It is not there.
    #[error("the object is missing")]
    Missing,
    /// The body broke off.
    #[error("the body broke off")]
    Body(#[from] BodyError),
    /// The body is not as long as it was said to be.
    #[error("the body is not as long as it was said to be")]
    Length,
    /// The body does not have the digest it was said to have.
    #[error("the body does not have the digest it was said to have")]
    Digest,
    /// It is another version than the one that is wanted.
    #[error("the object is another version than the one that is wanted")]
    Changed,
    /// The tenant's own storage failed.
    #[error("the tenant's own bucket `{bucket}` does not do its part: {reason}")]
    Own {
        /// The bucket.
        bucket: String,
        /// What happened, without a URL, a key or an address.
        reason: String,
    },
    /// Storage failed.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What happened.
        source: std::io::Error,
    },
}

/// An object that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its length in bytes.
    pub size: u64,
    /// What tells it from any other that may come to have its key.
    pub version: String,
    /// When it was written, in seconds since 1970, on storage's clock; 0 where that is not known.
    pub modified: i64,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the tenant's prefix, whatever that is.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// What tells it from others, as [`Found::version`].
    pub version: String,
    /// When it was written, as [`Found::modified`].
    pub modified: i64,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Objects, in the order of their names.
    pub objects: Vec<Listed>,
    /// Whether there are more after them.
    pub more: bool,
}

/// What [`Objects::append`] wrote.
#[derive(Debug)]
pub struct Appended {
    /// Bytes that are safely stored.
    pub len: u64,
    /// Whether the body ended there; else there is more of it.
    pub ended: bool,
    /// Why it ended early.
    pub error: Option<ObjectError>,
}

/// A part of an output, announced before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartHead {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// Where bytes are kept. Nothing about an object is remembered between calls but in storage itself, so that any broker on the
/// same storage can go on where another stopped.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Writes a body from `offset` on until it ends or about `some` bytes are written, never more than `most`, which is what
    /// the object lacks from `offset` to its announced end. The bytes that are returned as written are safe.
    ///
    /// `offset` is 0 or where an earlier call on the key ended, and by naming it the caller says that everything before it
    /// counts, for good. Whatever lies at or beyond it does not (a caller that could not record a call's bytes asks for the
    /// same offset again) and is overwritten. One call on a key at a time.
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError>;
    /// Makes an upload readable, once all its `size` bytes count. Again does nothing more.
    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError>;
    /// Writes one part, at a multiple of [`mpegflow_protocol::limits::PART_SIZE`] and, unless it is the last one, of that
    /// length. Unless the body has exactly the length and digest that were announced, nothing of it is kept. A part may be
    /// written again until the object is finished; parts may be written at once and in any order.
    async fn put_part(&self, key: &Key, head: &PartHead, body: Body) -> Result<(), ObjectError>;
    /// Makes the object exactly these parts, in order, safe and readable; fails where storage holds anything else for one of
    /// them. Again does nothing more.
    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError>;
    /// Reads a range of a finished object; fails where the object is shorter. Bytes that come are the object's, all of them
    /// and in order, or the stream ends with an error.
    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError>;
    /// What tells a finished object from any other that may come to have its name, where storage knows.
    async fn version(&self, key: &Key) -> Result<Option<String>, ObjectError> {
        let _ = key;
        Ok(None)
    }
    /// As [`Self::read`], of that version; fails where the object is another one.
    async fn read_version(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
    ) -> Result<Bytestream, ObjectError> {
        let _ = version;
        self.read(key, range).await
    }
    /// Signs one request that reads a range of an object of that version, for a worker to send within `life`. None where this storage's
    /// bytes go through the broker alone.
    async fn sign_read(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let _ = (key, range, version, life);
        Ok(None)
    }
    /// Signs one request that writes this part and nothing else, and nothing at all once the object is finished. None as above.
    async fn sign_part(
        &self,
        key: &Key,
        head: &PartHead,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let _ = (key, head, life);
        Ok(None)
    }
    /// Whether storage holds this part, which was written by such a request; fails where it does not, or holds anything else for it.
    async fn holds_part(&self, key: &Key, head: &PartHead) -> Result<(), ObjectError> {
        let _ = (key, head);
        Err(ObjectError::Missing)
    }
    /// Looks up what a tenant has put into its own storage ([`Key::Stored`]); elsewhere there is none.
    async fn look_up(&self, key: &Key) -> Result<Found, ObjectError> {
        let _ = key;
        Err(ObjectError::Missing)
    }
    /// Lists what is in a tenant's own storage below the tenant's prefix: names that begin with `prefix` and come after `after`, `most` of
    /// them at most. Elsewhere there is none.
    async fn list_stored(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: &str,
        most: u32,
    ) -> Result<Page, ObjectError> {
        let _ = (tenant, prefix, after, most);
        Err(ObjectError::Missing)
    }
    /// Why the tenant's own storage does not do its part, where that was so a moment ago.
    fn trouble(&self, tenant: TenantId) -> Option<String> {
        let _ = tenant;
        None
    }
    /// Looks whether tenants' own storage that was in trouble is in order again.
    async fn look_at_trouble(&self) {}
    /// Removes an upload; one that is not there is removed.
    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError>;
    /// Removes all that an attempt wrote, finished or not.
    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError>;
    /// Lists every upload that has bytes and every attempt that has written anything, finished or not, from a place on: as many as have
    /// the next `most` names, or about so many.
    async fn owners(&self, from: &Cursor, most: u32) -> Result<Owners, ObjectError>;
    /// Whether storage answers.
    async fn ping(&self) -> Result<(), ObjectError>;
}
