//! Objects in a bucket of any storage that speaks S3.
//!
//! **Who does what.** The SDK signs and makes the control calls ([`bucket`], [`control`]); hyper carries the bytes over HTTP/1.1 ([`wire`]),
//! through URLs for exactly one object and method that are made for each request and used at once. Nothing about an object is
//! kept here but what saves asking storage again: any broker can go on where another stopped.
//!
//! **Outputs.** A part comes with its length and digest, so it is streamed through, and its SHA-256 is signed into the request.
//! It is also compared here, before storage has its last bytes ([`outgoing`]): storage keeps nothing of a part that is not what
//! was announced, whether it compares checksums or not. An output that is one short part is one PUT; any other is a multipart
//! upload, whose parts are those that were announced. [`Objects::finish`] compares the length and the checksum that storage
//! gives for each part with what the store has recorded, completes, and compares the object's checksum again; S3's checksum of
//! a multipart object (SHA-256 over its parts' SHA-256) is the digest in our manifest.
//!
//! **Uploads** come in any number of goes of any length, while S3 takes no part below 5 MiB but the last, and wants length and
//! checksum before the first byte. So the object is cut at multiples of the part size, whatever the calls; bytes are spooled on
//! this machine's disk, at most a part at once ([`spool`]), and what a call leaves over is kept as a small object of its own
//! ([`append`]). What was thought of instead: sending the last part again from its start makes a client repeat up to 8 MiB that
//! it was told were safe; rewriting one tail object costs as much for a call of one byte; one object for each call makes an
//! object that only we can read.
//!
//! **Versions.** Keys hold ids and are written once; all the same, the ETag of an object is remembered when it is finished or
//! first read, every later read names it, and one that finds another object fails. It is remembered by each broker for itself,
//! and for the [`limits::REMEMBERED`] objects used last; what an attempt reads is pinned in the store besides, for all brokers.
//!
//! **Leftovers.** Before a multipart upload is opened, a small object beside it says so, since a list of objects does not show
//! it, and MinIO lists multipart uploads only for a whole name. Removal gives up what it finds open. What a broker that dies in
//! between leaves over is found by the search for what no row knows, as for any other storage.
//!
//! **Presigned pools.** Their workers get URLs for one range or one part ([`presign`]), and the broker does not see the bytes. A part's
//! digest and length are signed into its URL, so that nothing else can be written with it; it goes to a multipart upload, always, so
//! that nothing can be written any more once the broker has joined the parts; and the broker asks storage for each part's checksum
//! before it counts, and for the object's before anything is committed.
//!
//! **Secrets.** URLs and names are never in an error nor in a log: errors are made of statuses and codes ([`fault`]), and the
//! SDK, which logs URLs, has no log.
//!
//! **Fencing.** Conditional writes are not relied on: several servers let two of them win ([`S3Objects::probe`] says of one's own
//! whether it does with one). The fence is the store's epoch, and an attempt's keys are its own.
//!
//! **What storage has to do.** Signature 4 with signed URLs; SHA-256 checksums of objects and of parts, checked and given back
//! (Amazon, MinIO and versitygw do; storage that does not is refused when an object is finished); lists that show what was
//! written before. A bucket with versioning keeps what is removed here.
//!
//! **What can go wrong.** Two brokers that take the first part of the same output at the same moment, which needs a worker that
//! sends it twice, may open a multipart upload each; if later parts then go to different ones, the output cannot be finished,
//! and the attempt fails and is made again.

mod append;
mod bounded;
mod bucket;
mod config;
mod control;
mod credentials;
mod fault;
mod incoming;
mod limits;
mod multipart;
mod names;
mod outgoing;
mod presign;
mod role;
mod signer;
mod spool;
mod wire;

pub use config::{ConfigError, Encryption, Role, S3Config, is_endpoint};

use crate::objects::{
    Appended, Body, Bytestream, Cursor, Found, Key, Listed, ObjectError, Objects, Owners, Page, PartHead,
};
use crate::secret::sha256;
use append::Append;
use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bounded::Bounded;
use bucket::{Bucket, Target, base64};
use bytes::Bytes;
use control::{Head, Held};
use fault::Fault;
use futures_util::{StreamExt as _, TryStreamExt as _};
use incoming::Reading;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use mpegflow_protocol::limits::{MAX_PARTS, PART_SIZE};
use mpegflow_protocol::worker::Signed;
use multipart::Multiparts;
use names::Names;
use spool::Spool;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Why the adapter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error("the configuration of storage is wrong")]
    Config(#[from] ConfigError),
    /// The credentials or the certificate authority cannot be read.
    #[error("cannot read the credentials or the certificate authority of storage")]
    Files(#[source] io::Error),
    /// The spool folder cannot be made.
    #[error("cannot make the folder for parts on their way")]
    Spool(#[source] io::Error),
}

/// What storage was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whether a write that asks not to replace anything replaced nothing. Nothing here relies on it.
    pub conditional_writes: bool,
}

/// A bucket.
#[derive(Clone)]
pub struct S3Objects {
    inner: Arc<Inner>,
}

// What it has inside names objects.
impl std::fmt::Debug for S3Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Objects(…)")
    }
}

/// Reads a file of credentials: whether it holds some.
///
/// # Errors
/// It does not, or cannot be read.
pub fn look_at_credentials(file: &std::path::Path) -> io::Result<()> {
    credentials::FileCredentials::new(file.to_owned()).current().map(drop)
}

/// Connections to storage, which several buckets may go by.
#[derive(Debug, Clone)]
pub struct Connections(wire::Wire);

impl Connections {
    /// Trusting the authorities of a PEM file, or the system's where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or there are none.
    pub fn open(ca_file: Option<&std::path::Path>) -> io::Result<Self> {
        wire::Wire::open(ca_file).map(Self)
    }
}

struct Inner {
    bucket: Arc<Bucket>,
    names: Names,
    multiparts: Multiparts,
    spool: Spool,
    /// ETags of finished objects.
    versions: Mutex<Bounded<String, String>>,
    handing: presign::Handing,
}

impl S3Objects {
    /// Gets ready. Storage is not asked anything yet.
    ///
    /// # Errors
    /// The configuration is wrong, or a file that it names cannot be read.
    pub fn open(config: &S3Config) -> Result<Self, OpenError> {
        config.check()?;
        Self::open_over(config, Connections::open(config.ca_file.as_deref()).map_err(OpenError::Files)?)
    }

    /// The same by connections that are there; they trust whom they trust.
    ///
    /// # Errors
    /// The configuration is wrong, or a file that it names cannot be read.
    pub fn open_over(config: &S3Config, connections: Connections) -> Result<Self, OpenError> {
        config.check()?;
        Ok(Self {
            inner: Arc::new(Inner {
                bucket: Arc::new(Bucket::open(config, connections.0).map_err(OpenError::Files)?),
                names: Names::new(config.prefix.clone(), config.tenant),
                multiparts: Multiparts::new(),
                spool: Spool::open(config.spool_dir.clone()).map_err(OpenError::Spool)?,
                versions: Mutex::new(Bounded::new(limits::REMEMBERED)),
                handing: presign::Handing::open(config).map_err(OpenError::Files)?,
            }),
        })
    }
}

impl S3Objects {
    /// Reads the files that the configuration names, and makes nothing: whether an open would fail for one of them.
    ///
    /// # Errors
    /// One cannot be read, or does not hold what it should.
    pub fn look_at_files(config: &S3Config) -> Result<(), OpenError> {
        config.check()?;
        let connections = Connections::open(config.ca_file.as_deref()).map_err(OpenError::Files)?;
        Bucket::open(config, connections.0).map(drop).map_err(OpenError::Files)
    }

    /// Writes a small object, looks at it and removes it: whether the credentials may do what they have to, storage gives the
    /// checksums that everything here is compared with, and takes writes that shall replace nothing at their word.
    ///
    /// # Errors
    /// One of the first two is not so, or storage does not answer.
    pub async fn probe(&self) -> Result<Probe, ObjectError> {
        self.inner.probe().await.map_err(|fault| fault.during("try storage"))
    }
}

impl Inner {
    async fn probe(&self) -> Result<Probe, Fault> {
        let name = format!("{}probe/{}", self.names.root(), uuid::Uuid::new_v4().simple());
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"other"));
        multipart::put_small(&self.bucket, &name, first.clone()).await?;
        let found = async {
            self.verified(&name, 5, Some(&base64(&sha256(&first)))).await?;
            let put =
                self.bucket.put(Target::New(&name), 5, &sha256(&second), wire::whole(second.clone())).await;
            // What storage answers matters less than what it has done.
            drop(put);
            let head = self.bucket.head(&name).await?;
            let kept =
                head.and_then(|head| head.sha256).is_some_and(|digest| digest == base64(&sha256(&first)));
            Ok(Probe { conditional_writes: kept })
        };
        let found = found.await;
        self.forget(&name);
        self.bucket.delete(&name).await?;
        found
    }

    fn version(&self, object: &str) -> Option<String> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(&object.to_owned())
    }

    fn set_version(&self, object: &str, tag: &str) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).put(object.to_owned(), tag.to_owned());
    }

    /// Forgets all that is known about what starts with `prefix`.
    fn forget(&self, prefix: &str) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).remove_where(|o| o.starts_with(prefix));
        self.multiparts.forget(prefix);
    }

    async fn delete(&self, names: Vec<String>) -> Result<(), Fault> {
        let deletions = futures_util::stream::iter(names.into_iter().map(Ok));
        deletions
            .try_for_each_concurrent(limits::DELETIONS, async |name| self.bucket.delete(&name).await)
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        self.bucket.list(prefix, |name, _| found.push(name.to_owned())).await?;
        Ok(found)
    }

    /// Removes everything whose name starts with `prefix`, open multipart uploads too.
    async fn remove(&self, prefix: &str) -> Result<(), Fault> {
        let all = self.list(prefix).await?;
        let (marks, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| names::marked(name).is_some());
        self.delete(rest).await?;
        // The mark last: while it is there, the multipart upload can be found.
        for object in marks.iter().filter_map(|mark| names::marked(mark)) {
            multipart::clear(&self.bucket, object).await?;
        }
        self.forget(prefix);
        Ok(())
    }

    /// Looks a finished object up; `checksum` is what S3 has to give for it, where that is known.
    async fn verified(&self, object: &str, size: u64, checksum: Option<&str>) -> Result<Head, Fault> {
        let head = self.bucket.head(object).await?.ok_or_else(|| Fault::answer(404, ""))?;
        if head.size != size {
            return Err(Fault::Length);
        }
        if let Some(checksum) = checksum {
            match head.sha256.as_deref() {
                None => return Err(Fault::Strange("no checksum of the object")),
                // Some servers leave out how many parts there were.
                Some(found)
                    if found == checksum || checksum.split_once('-').is_some_and(|(c, _)| c == found) => {}
                Some(_) => return Err(Fault::Digest),
            }
        }
        self.set_version(object, &head.tag);
        Ok(head)
    }

    /// Makes the parts that `choose` picks the object, unless that was done, and tidies up.
    async fn join(
        &self,
        object: &str,
        size: u64,
        choose: impl Fn(Vec<Held>) -> Result<Vec<Held>, Fault> + Send + Sync,
        checksum: Option<&str>,
    ) -> Result<(), Fault> {
        let chosen: Mutex<Option<String>> = Mutex::new(None);
        let note = |held: Vec<Held>| {
            let parts = choose(held)?;
            *chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(composite(&parts)?);
            Ok(parts)
        };
        let joined = multipart::complete(&self.bucket, object, note).await;
        let composite = chosen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let checksum = checksum.map(str::to_owned).or(composite.filter(|_| matches!(joined, Ok(true))));
        match (self.verified(object, size, checksum.as_deref()).await, joined) {
            (Ok(_), _) => {}
            // What keeps the parts from being joined says more than that there is no object.
            (Err(fault), Err(refused)) if fault.is_missing() => return Err(refused),
            (Err(fault), _) => return Err(fault),
        }
        self.multiparts.forget(object);
        if let Err(fault) = multipart::clear(&self.bucket, object).await {
            // It is found again when the object is removed.
            tracing::warn!(error = %fault, "cannot clear a multipart upload away");
        }
        Ok(())
    }

    async fn finish_upload(&self, object: &str, size: u64) -> Result<(), Fault> {
        if size == 0 || self.version(object).is_some() {
            return Ok(());
        }
        match self.verified(object, size, None).await {
            // Only its parts, joined, are at its name; a small one is there from its last byte on.
            Err(fault) if fault.is_missing() && size > PART_SIZE => {
                self.join(object, size, |held| covering(held, size), None).await?;
            }
            there => drop(there?),
        }
        let pieces = self.list(&names::pieces(object)).await?;
        self.delete(pieces).await
    }

    async fn finish(&self, object: &str, parts: &[PartHead]) -> Result<(), Fault> {
        let size = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.size));
        match parts {
            [] => {
                multipart::put_small(&self.bucket, object, Bytes::new()).await?;
                self.verified(object, 0, Some(&base64(&sha256(b"")))).await.map(drop)
            }
            [only] if only.size < PART_SIZE => {
                // Written whole, or by a worker itself as the one part of a multipart upload.
                match self.verified(object, size, Some(&base64(&only.sha256))).await {
                    Err(fault) if fault.is_missing() => self.join_exactly(object, size, parts).await,
                    Err(Fault::Digest) => {
                        self.verified(object, size, Some(&checksum_of(parts))).await.map(drop)
                    }
                    found => found.map(drop),
                }
            }
            _ => self.join_exactly(object, size, parts).await,
        }
    }

    async fn join_exactly(&self, object: &str, size: u64, parts: &[PartHead]) -> Result<(), Fault> {
        self.join(object, size, |held| exactly(held, parts), Some(&checksum_of(parts))).await
    }

    async fn put_part(&self, object: &str, head: &PartHead, body: Body) -> Result<(), ObjectError> {
        const STEP: &str = "store a part";
        let number = number_of(head).map_err(|fault| fault.during(STEP))?;
        let id = if head.offset == 0 && head.size < PART_SIZE {
            None
        } else {
            Some(self.multiparts.id(&self.bucket, object).await.map_err(|fault| fault.during(STEP))?)
        };
        // Tried for parts alone. Storage that cannot be asked now is taken for one that does not.
        let (target, storage_compares) = match &id {
            None => (Target::Object(object), false),
            Some(id) => (Target::Part { object, id, number }, self.compares().await.unwrap_or(false)),
        };
        let verdict = outgoing::Verdict::default();
        let body = wire::streamed(outgoing::checked(body, head, storage_compares, verdict.clone()));
        let sent = self.bucket.put(target, head.size, &head.sha256, body).await;
        match (sent, verdict.take()) {
            // Whatever storage says of a part that was cut off.
            (_, Some(error)) => Err(error),
            (Ok(()), None) => Ok(()),
            (Err(fault), None) => {
                if fault.is_missing() {
                    self.multiparts.forget(object);
                }
                Err(fault.during(STEP))
            }
        }
    }
}

/// S3's number of a part.
fn number_of(head: &PartHead) -> Result<i32, Fault> {
    let number = head.offset.checked_div(PART_SIZE).and_then(|n| i32::try_from(n.saturating_add(1)).ok());
    let in_place = head.offset.is_multiple_of(PART_SIZE) && head.size <= PART_SIZE;
    number.filter(|n| in_place && u32::try_from(*n).is_ok_and(|n| n <= MAX_PARTS)).ok_or(Fault::Length)
}

/// S3's checksum of an object that is joined of these parts.
fn checksum_of(parts: &[PartHead]) -> String {
    let digests: Vec<u8> = parts.iter().flat_map(|part| part.sha256).collect();
    format!("{}-{}", base64(&sha256(&digests)), parts.len())
}

/// S3's checksum of an object of these parts.
fn composite(parts: &[Held]) -> Result<String, Fault> {
    let mut digests = Vec::new();
    for part in parts {
        let digest =
            BASE64_STANDARD.decode(&part.sha256).map_err(|_| Fault::Strange("a checksum that is none"))?;
        digests.extend_from_slice(&digest);
    }
    Ok(format!("{}-{}", base64(&sha256(&digests)), parts.len()))
}

/// The first parts, which have to be those that were announced.
fn exactly(mut held: Vec<Held>, parts: &[PartHead]) -> Result<Vec<Held>, Fault> {
    if held.len() < parts.len() {
        return Err(Fault::Length);
    }
    held.truncate(parts.len());
    for ((held, part), number) in held.iter().zip(parts).zip(1..) {
        if held.number != number || held.size != part.size {
            return Err(Fault::Length);
        }
        if held.sha256 != base64(&part.sha256) {
            return Err(Fault::Digest);
        }
    }
    Ok(held)
}

/// The first parts, which have to be as long as those of an upload of this size.
fn covering(mut held: Vec<Held>, size: u64) -> Result<Vec<Held>, Fault> {
    let mut left = size;
    let mut count = 0_usize;
    for (held, number) in held.iter().zip(1..) {
        if left == 0 {
            break;
        }
        if held.number != number || held.size != left.min(PART_SIZE) {
            return Err(Fault::Length);
        }
        left = left.saturating_sub(held.size);
        count = count.saturating_add(1);
    }
    if left > 0 {
        return Err(Fault::Length);
    }
    held.truncate(count);
    Ok(held)
}

impl S3Objects {
    /// Name of an object that the broker made, in the place of whom it is made for.
    fn ours(&self, key: &Key) -> Result<String, ObjectError> {
        if key.is_ours() { self.name(key) } else { Err(ObjectError::Missing) }
    }

    /// Name of any object of whoever this place is for. What a tenant names is looked for in the tenant's own place and in no other.
    fn name(&self, key: &Key) -> Result<String, ObjectError> {
        let (names, tenant) = (&self.inner.names, key.tenant());
        let is_here = names.tenant().map_or(key.is_ours(), |only| only == tenant);
        if is_here { Ok(names.object(key)) } else { Err(ObjectError::Missing) }
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError> {
        let append = Append::at(&self.inner, self.ours(key)?, offset, most).await;
        Ok(append.map_err(|fault| fault.during("go on with an upload"))?.take(body, some).await)
    }

    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError> {
        let object = self.ours(&Key::Upload(tenant, upload))?;
        self.inner.finish_upload(&object, size).await.map_err(|fault| fault.during("finish an upload"))
    }

    async fn put_part(&self, key: &Key, head: &PartHead, body: Body) -> Result<(), ObjectError> {
        self.inner.put_part(&self.ours(key)?, head, body).await
    }

    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError> {
        let object = self.ours(key)?;
        self.inner.finish(&object, parts).await.map_err(|fault| fault.during("finish an object"))
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let object = self.ours(key)?;
        let version = self.inner.version(&object);
        let reading = Reading::open(&self.inner.bucket, object.clone(), range, version.as_deref()).await;
        let reading = reading.map_err(|fault| fault.during("read an object"))?;
        if version.is_none() {
            self.inner.set_version(&object, reading.tag());
        }
        Ok(Box::pin(reading.bytes().map(|chunk| chunk.map_err(io::Error::other))))
    }

    async fn version(&self, key: &Key) -> Result<Option<String>, ObjectError> {
        let object = self.ours(key)?;
        if let Some(known) = self.inner.version(&object) {
            return Ok(Some(known));
        }
        let head =
            self.inner.bucket.head(&object).await.map_err(|fault| fault.during("look an object up"))?;
        let head = head.ok_or(ObjectError::Missing)?;
        self.inner.set_version(&object, &head.tag);
        Ok(Some(head.tag))
    }

    async fn read_version(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
    ) -> Result<Bytestream, ObjectError> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let object = self.name(key)?;
        let reading = Reading::open(&self.inner.bucket, object, range, Some(version)).await;
        let reading = reading.map_err(|fault| fault.during("read an object"))?;
        Ok(Box::pin(reading.bytes().map(|chunk| chunk.map_err(io::Error::other))))
    }

    async fn sign_read(
        &self,
        key: &Key,
        range: Range<u64>,
        version: &str,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let signed = self.inner.sign_read(&self.name(key)?, &range, version, life).await;
        signed.map_err(|fault| fault.during("sign a read"))
    }

    async fn sign_part(
        &self,
        key: &Key,
        head: &PartHead,
        life: Duration,
    ) -> Result<Option<Signed>, ObjectError> {
        let signed = self.inner.sign_part(&self.ours(key)?, head, life).await;
        signed.map_err(|fault| fault.during("sign a part"))
    }

    async fn holds_part(&self, key: &Key, head: &PartHead) -> Result<(), ObjectError> {
        let held = self.inner.holds_part(&self.ours(key)?, head).await;
        held.map_err(|fault| fault.during("look for a part"))
    }

    async fn look_up(&self, key: &Key) -> Result<Found, ObjectError> {
        const STEP: &str = "look an object up";
        let (bucket, name) = (&self.inner.bucket, self.name(key)?);
        match bucket.head(&name).await.map_err(|fault| fault.during(STEP))? {
            Some(head) => Ok(Found { size: head.size, version: head.tag, modified: head.modified }),
            None => {
                // The answer has no body to say that it is the bucket that is missing.
                bucket.ping(&self.inner.names.listed()).await.map_err(|fault| fault.during(STEP))?;
                Err(ObjectError::Missing)
            }
        }
    }

    async fn list_stored(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: &str,
        most: u32,
    ) -> Result<Page, ObjectError> {
        let names = &self.inner.names;
        // Elsewhere a list would show what others have.
        if names.tenant() != Some(tenant) {
            return Err(ObjectError::Missing);
        }
        let whole = |name: &str| format!("{}{name}", names.root());
        let after = (!after.is_empty()).then(|| whole(after));
        let (objects, more) = self
            .inner
            .bucket
            .page(&whole(prefix), after.as_deref(), most)
            .await
            .map_err(|fault| fault.during("list a tenant's objects"))?;
        let objects = objects.into_iter().filter_map(|object| {
            let key = object.key.strip_prefix(names.root())?.to_owned();
            Some(Listed { key, ..object })
        });
        Ok(Page { objects: objects.collect(), more })
    }

    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError> {
        let object = self.ours(&Key::Upload(tenant, upload))?;
        self.inner.remove(&object).await.map_err(|fault| fault.during("remove an upload"))
    }

    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError> {
        self.ours(&Key::Output(tenant, job, attempt, 0))?;
        let prefix = self.inner.names.attempt(tenant, job, attempt);
        self.inner.remove(&prefix).await.map_err(|fault| fault.during("remove an attempt's objects"))
    }

    async fn owners(&self, from: &Cursor, most: u32) -> Result<Owners, ObjectError> {
        let names = &self.inner.names;
        let after = (!from.after.is_empty()).then_some(from.after.as_str());
        let page = self.inner.bucket.page(&names.listed(), after, most).await;
        let (listed, more) = page.map_err(|fault| fault.during("list what is stored"))?;
        let next = listed.last().filter(|_| more);
        if more && next.is_none() {
            return Err(Fault::Strange("a list that does not go on").during("list what is stored"));
        }
        Ok(Owners {
            owners: listed.iter().filter_map(|object| names.owner(&object.key)).collect(),
            next: next.map(|object| Cursor { own: from.own, after: object.key.clone() }),
        })
    }

    async fn ping(&self) -> Result<(), ObjectError> {
        self.inner
            .bucket
            .ping(&self.inner.names.listed())
            .await
            .map_err(|fault| fault.during("reach storage"))
    }
}
