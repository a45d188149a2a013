//! Bytes of unknown number and digest on their way to storage. S3 wants length and digest before the first byte, and a body
//! that breaks off must not cost what it brought, so they are kept in a nameless file of the broker's own disk, never more
//! than one part of them, and sent from there; as often as it takes.

use super::limits::IDLE;
use crate::objects::BodyError;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::Stream;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

/// What is gathered before a write, in bytes.
const BATCH: usize = 64 << 10;
/// What is read at once. A connection to storage that is slow holds two of these.
const READ: usize = 32 << 10;

/// A folder for spool files.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// In this folder, which is made where it is missing.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// A fresh file.
    pub(super) async fn file(&self) -> io::Result<Spooled> {
        let path = self.dir.join(uuid::Uuid::new_v4().simple().to_string());
        let file = blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            // It lives as long as it is open: a crash leaves nothing.
            std::fs::remove_file(&path)?;
            Ok(file)
        });
        Ok(Spooled {
            file: Arc::new(file.await?),
            written: 0,
            batch: Vec::new(),
            gathered: 0,
            digest: Context::new(&SHA256),
        })
    }
}

/// A file that is being filled.
pub(super) struct Spooled {
    file: Arc<File>,
    written: u64,
    batch: Vec<Bytes>,
    gathered: usize,
    digest: Context,
}

impl Spooled {
    /// Adds bytes.
    pub(super) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.gathered = self.gathered.saturating_add(bytes.len());
        self.batch.push(bytes);
        if self.gathered >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let (file, batch, mut at) = (Arc::clone(&self.file), std::mem::take(&mut self.batch), self.written);
        self.gathered = 0;
        let mut digest = self.digest.clone();
        (self.written, self.digest) = blocking(move || {
            for bytes in batch {
                digest.update(&bytes);
                file.write_all_at(&bytes, at)?;
                at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            }
            Ok((at, digest))
        })
        .await?;
        Ok(())
    }

    /// Nothing is added any more.
    pub(super) async fn finish(mut self) -> io::Result<Spooling> {
        self.flush().await?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        Ok(Spooling { file: self.file, len: self.written, sha256 })
    }
}

/// A file that is full and can be sent.
#[derive(Debug, Clone)]
pub(super) struct Spooling {
    file: Arc<File>,
    /// Bytes in it.
    pub(super) len: u64,
    /// Their digest.
    pub(super) sha256: [u8; 32],
}

impl Spooling {
    /// Its bytes, from the start.
    pub(super) fn bytes(&self) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static + use<> {
        let file = Arc::clone(&self.file);
        futures_util::stream::try_unfold((file, 0_u64, self.len), |(file, at, len)| async move {
            let left = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(READ);
            if left == 0 {
                return Ok(None);
            }
            let reader = Arc::clone(&file);
            // Made here: each of the many threads that read would keep a heap of its own for them.
            let mut chunk = vec![0; left];
            let read = blocking(move || {
                reader.read_exact_at(&mut chunk, at)?;
                Ok(Bytes::from(chunk))
            });
            let chunk = tokio::time::timeout(IDLE, read).await.map_err(|_| BodyError::Idle)?;
            let chunk = chunk.map_err(|e| BodyError::Broken(e.into()))?;
            let next = at.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
            Ok(Some((chunk, (file, next, len))))
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::sha256;
    use futures_util::TryStreamExt as _;

    #[tokio::test]
    async fn what_goes_in_comes_out_as_often_as_it_is_asked_for_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().join("spool")).unwrap();
        let mut file = spool.file().await.unwrap();
        let whole: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for chunk in whole.chunks(70_001) {
            file.push(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        let file = file.finish().await.unwrap();
        assert_eq!((file.len, file.sha256), (300_000, sha256(&whole)));
        for _ in 0..2 {
            let chunks: Vec<Bytes> = file.bytes().try_collect().await.unwrap();
            assert_eq!(chunks.concat(), whole);
        }
        assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
        let empty = spool.file().await.unwrap().finish().await.unwrap();
        assert_eq!((empty.len, empty.sha256), (0, sha256(b"")));
        assert_eq!(empty.bytes().try_collect::<Vec<_>>().await.unwrap().len(), 0);
    }
}
