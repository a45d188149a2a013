//! Objects in a folder of this machine.

use super::{Appended, Body, Bytestream, Cursor, Key, ObjectError, Objects, Owner, Owners, PartHead};
use crate::secret;
use async_trait::async_trait;
use futures_util::StreamExt as _;
use mpegflow_protocol::ids::{AttemptId, JobId, TenantId, UploadId};
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

/// Bytes of one read.
const READ: usize = 256 << 10;

/// A folder.
#[derive(Debug, Clone)]
pub struct LocalObjects {
    root: PathBuf,
}

impl LocalObjects {
    /// In this folder, which is made where it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub async fn open(root: PathBuf) -> Result<Self, ObjectError> {
        make_dir(&root).await?;
        Ok(Self { root })
    }

    /// Where an object is. What a tenant names is nowhere here.
    fn place(&self, key: &Key) -> Result<PathBuf, ObjectError> {
        if key.is_ours() { Ok(self.root.join(key.path())) } else { Err(ObjectError::Missing) }
    }

    async fn writable(&self, key: &Key) -> Result<File, ObjectError> {
        let path = self.place(key)?;
        if let Some(dir) = path.parent() {
            make_dir(dir).await?;
        }
        let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).await;
        open.map_err(|e| failed("open an object", e))
    }

    /// Makes an object exactly `size` long, and its bytes and its name safe.
    async fn seal(&self, key: &Key, size: u64) -> Result<(), ObjectError> {
        let file = if size == 0 {
            self.writable(key).await?
        } else {
            let open = File::options().write(true).open(self.place(key)?).await;
            open.map_err(|e| failed("open an object", e))?
        };
        let len = file.metadata().await.map_err(|e| failed("look at an object", e))?.len();
        if len < size {
            return Err(ObjectError::Length);
        }
        if len > size {
            file.set_len(size).await.map_err(|e| failed("cut an object", e))?;
        }
        file.sync_all().await.map_err(|e| failed("sync an object", e))?;
        // The name has to survive a power cut as well as the bytes do.
        let path = self.place(key)?;
        for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root)) {
            let dir = File::open(dir).await.map_err(|e| failed("open a folder", e))?;
            dir.sync_all().await.map_err(|e| failed("sync a folder", e))?;
        }
        Ok(())
    }
}

async fn make_dir(path: &Path) -> Result<(), ObjectError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await;
    made.map_err(|e| failed("make a folder", e))
}

fn failed(step: &'static str, source: io::Error) -> ObjectError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full,
        io::ErrorKind::NotFound => ObjectError::Missing,
        _ => ObjectError::Io { step, source },
    }
}

#[async_trait]
impl Objects for LocalObjects {
    async fn append(
        &self,
        key: &Key,
        offset: u64,
        body: &mut Body,
        some: u64,
        most: u64,
    ) -> Result<Appended, ObjectError> {
        let mut file = self.writable(key).await?;
        file.seek(SeekFrom::Start(offset)).await.map_err(|e| failed("seek in an object", e))?;
        let mut done = Appended { len: 0, ended: true, error: None };
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(e) => {
                    done.error = Some(e.into());
                    break;
                }
            };
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if done.len.saturating_add(len) > most {
                done.error = Some(ObjectError::Length);
                break;
            }
            // A buffered write may report the failure of an earlier one, so none of this call's bytes are counted.
            if let Err(e) = file.write_all(&chunk).await {
                return Err(cut(&file, offset, failed("write an object", e)).await);
            }
            done.len = done.len.saturating_add(len);
            if done.len >= some {
                done.ended = false;
                break;
            }
        }
        // Buffered writes report their failure here: what was counted may then not be there.
        if let Err(e) = file.flush().await {
            return Err(cut(&file, offset, failed("write an object", e)).await);
        }
        file.sync_data().await.map_err(|e| failed("sync an object", e))?;
        Ok(done)
    }

    async fn put_part(&self, key: &Key, head: &PartHead, mut body: Body) -> Result<(), ObjectError> {
        let mut file = self.writable(key).await?;
        // Shared by those who write a part; held for a moment alone by who cuts one off.
        rustix::fs::flock(&file, FlockOperation::LockShared)
            .map_err(|e| failed("lock an object", e.into()))?;
        let written = write_part(&mut file, head, &mut body).await;
        if written.is_err() {
            cut_off(file.into_std().await, head).await;
        }
        written
    }

    async fn finish_upload(&self, tenant: TenantId, upload: UploadId, size: u64) -> Result<(), ObjectError> {
        if size == 0 {
            return Ok(());
        }
        self.seal(&Key::Upload(tenant, upload), size).await
    }

    async fn finish(&self, key: &Key, parts: &[PartHead]) -> Result<(), ObjectError> {
        // Each part was compared with its digest when it was written, and this folder is nobody else's.
        self.seal(key, parts.iter().fold(0, |sum, part| part.size.saturating_add(sum))).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytestream, ObjectError> {
        let open = File::open(self.place(key)?).await;
        let mut file = open.map_err(|e| failed("open an object", e))?;
        let len = file.metadata().await.map_err(|e| failed("look at an object", e))?.len();
        if len < range.end {
            return Err(ObjectError::Length);
        }
        file.set_max_buf_size(READ);
        file.seek(SeekFrom::Start(range.start)).await.map_err(|e| failed("seek in an object", e))?;
        let rest = file.take(range.end.saturating_sub(range.start));
        Ok(Box::pin(ReaderStream::with_capacity(rest, READ)))
    }

    async fn remove_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), ObjectError> {
        let path = self.root.join(Key::Upload(tenant, upload).path());
        gone(fs::remove_file(path).await)
    }

    async fn remove_attempt(
        &self,
        tenant: TenantId,
        job: JobId,
        attempt: AttemptId,
    ) -> Result<(), ObjectError> {
        let path = self.root.join(Key::Output(tenant, job, attempt, 0).path());
        let Some(folder) = path.parent() else { return Ok(()) };
        gone(fs::remove_dir_all(folder).await)?;
        // The job's folder goes with its last attempt; it is not empty before.
        if let Some(job) = folder.parent() {
            let _ = fs::remove_dir(job).await;
        }
        Ok(())
    }

    /// A tenant at a time: a folder is listed as a whole.
    async fn owners(&self, from: &Cursor, _most: u32) -> Result<Owners, ObjectError> {
        let mut tenants = names(&self.root).await?;
        tenants.retain(|tenant| *tenant > from.after);
        tenants.sort_unstable();
        let Some(tenant) = tenants.first() else { return Ok(Owners::default()) };
        let next = (tenants.len() > 1).then(|| Cursor { own: None, after: tenant.clone() });
        let mut owners = BTreeSet::new();
        let Ok(id) = tenant.parse::<TenantId>() else { return Ok(Owners { owners, next }) };
        let folder = self.root.join(tenant);
        for upload in names(&folder.join("uploads")).await? {
            owners.extend(upload.parse().map(|upload| Owner::Upload(id, upload)));
        }
        let jobs = folder.join("jobs");
        for job in names(&jobs).await? {
            let Ok(job_id) = job.parse::<JobId>() else { continue };
            for attempt in names(&jobs.join(&job)).await? {
                owners.extend(attempt.parse().map(|attempt| Owner::Attempt(id, job_id, attempt)));
            }
        }
        Ok(Owners { owners, next })
    }

    async fn ping(&self) -> Result<(), ObjectError> {
        fs::metadata(&self.root).await.map(drop).map_err(|e| failed("look at the objects' folder", e))
    }
}

/// Gives back the room that an unfinished write took.
async fn cut(file: &File, len: u64, error: ObjectError) -> ObjectError {
    // Whether this works does not matter: bytes beyond what was counted are overwritten.
    let _ = file.set_len(len).await;
    error
}

/// Cuts off what was written of a part, where it is the last and nobody writes another one: bytes may be on their way behind it, and
/// then what is left is overwritten, or cut off when the object is finished. Whether this works does not matter.
async fn cut_off(file: std::fs::File, head: &PartHead) {
    let (start, end) = (head.offset, head.offset.saturating_add(head.size));
    let cut = move || {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        if file.metadata()?.len() <= end { file.set_len(start) } else { Ok(()) }
    };
    let _ = tokio::task::spawn_blocking(cut).await;
}

async fn write_part(file: &mut File, head: &PartHead, body: &mut Body) -> Result<(), ObjectError> {
    let write = |e| failed("write a part", e);
    file.seek(SeekFrom::Start(head.offset)).await.map_err(write)?;
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut len = 0_u64;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        len = len.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if len > head.size {
            return Err(ObjectError::Length);
        }
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(write)?;
    }
    file.flush().await.map_err(write)?;
    if len != head.size {
        return Err(ObjectError::Length);
    }
    let mut found = [0; 32];
    found.copy_from_slice(digest.finish().as_ref());
    if secret::same(&found, &head.sha256) { Ok(()) } else { Err(ObjectError::Digest) }
}

fn gone(removed: io::Result<()>) -> Result<(), ObjectError> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove an object", e)),
        _ => Ok(()),
    }
}

/// The names in a folder; none where there is no folder.
async fn names(dir: &Path) -> Result<Vec<String>, ObjectError> {
    let mut entries = match fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(failed("list a folder", e)),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|e| failed("list a folder", e))? {
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
