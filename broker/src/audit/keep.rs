//! Checkpoints in files: a folder outside the database, one file for each, written whole or not at all and never again. Brokers may
//! share a folder.

use super::checkpoint::{Checkpoint, Purpose, SignedCheckpoint, Signer};
use mpegflow_protocol::ids::TenantId;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// What a checkpoint's file may have at most: several hundred thousand tenants.
const MAX_FILE: u64 = 64 << 20;
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".json";

/// Why checkpoints cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The key cannot be read, or is none.
    #[error("cannot use the audit key {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder or a file in it cannot be read or written.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file in the folder is no checkpoint.
    #[error("{} is not a checkpoint: {reason}", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::File { step, path, source }
}

/// Writes checkpoints. Of heads that have not moved since the one before, the next says nothing.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    signer: Signer,
    kept: BTreeMap<TenantId, u64>,
}

impl Keeper {
    /// For a folder, which is made where it is missing, with the key from a file.
    ///
    /// # Errors
    /// The key cannot be used, or the folder not be made.
    pub fn open(dir: &Path, key: &Path) -> Result<Self, KeepError> {
        let wrong = |reason: String| KeepError::Key { path: key.to_owned(), reason };
        let bytes = std::fs::read(key).map_err(|e| wrong(e.to_string()))?;
        let signer = Signer::from_pkcs8(&bytes).map_err(|e| wrong(e.to_string()))?;
        std::fs::create_dir_all(dir).map_err(failed("make the folder", dir))?;
        Ok(Self { dir: dir.to_owned(), signer, kept: BTreeMap::new() })
    }

    /// What verifiers have to know.
    pub fn public_key(&self) -> Vec<u8> {
        self.signer.public_key()
    }

    /// Signs a checkpoint and writes it down; what was signed, or `None` where no head has moved.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, mut checkpoint: Checkpoint) -> Result<Option<SignedCheckpoint>, KeepError> {
        if checkpoint.purpose == Purpose::Head {
            checkpoint.heads.retain(|head| self.kept.get(&head.tenant) != Some(&head.seq));
            if checkpoint.heads.is_empty() {
                return Ok(None);
            }
        }
        let signed = self.signer.sign(&checkpoint);
        self.write(checkpoint.at, &signed)?;
        if checkpoint.purpose == Purpose::Head {
            self.kept.extend(checkpoint.heads.into_iter().map(|head| (head.tenant, head.seq)));
        }
        Ok(Some(signed))
    }

    fn write(&self, at: i64, signed: &SignedCheckpoint) -> Result<(), KeepError> {
        // Names sort by time; what comes after it keeps two of one moment apart, whoever writes them.
        let name = format!("{PREFIX}{at:013}-{}{SUFFIX}", uuid::Uuid::new_v4().simple());
        let path = self.dir.join(&name);
        let partial = self.dir.join(format!(".{name}.partial"));
        let write = || {
            let mut file = std::fs::File::options().write(true).create_new(true).open(&partial)?;
            file.write_all(&mpegflow_protocol::to_json(signed))?;
            file.sync_all()?;
            std::fs::rename(&partial, &path)?;
            std::fs::File::open(&self.dir)?.sync_all()
        };
        write().map_err(failed("write the checkpoint", &path))
    }
}

/// The checkpoints of a folder with their files, oldest first. Their signatures are still to be looked at.
///
/// # Errors
/// The folder or a file cannot be read, or a file is none.
pub fn read(dir: &Path) -> Result<Vec<(PathBuf, SignedCheckpoint)>, KeepError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed("read the folder", dir))? {
        let entry = entry.map_err(failed("read the folder", dir))?;
        let is_one =
            entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if is_one {
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path).map_err(failed("read", &path))?;
            file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed("read", &path))?;
            match serde_json::from_slice(&bytes) {
                Ok(signed) => Ok((path, signed)),
                Err(e) => Err(KeepError::NotOne { path, reason: e.to_string() }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Head;
    use crate::audit::checkpoint::TenantHead;

    fn checkpoint(at: i64, heads: &[(u128, u64)]) -> Checkpoint {
        let head = |(tenant, seq): &(u128, u64)| {
            TenantHead::new(TenantId::from_u128(*tenant), Head { seq: *seq, hash: [7; 32] })
        };
        Checkpoint { purpose: Purpose::Head, at, heads: heads.iter().map(head).collect() }
    }

    #[test]
    fn what_is_kept_is_read_back_in_order_and_only_what_has_moved_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (key, folder) = (dir.path().join("key"), dir.path().join("a/b"));
        std::fs::write(&key, Signer::generate().unwrap().to_pkcs8().unwrap()).unwrap();
        let mut keeper = Keeper::open(&folder, &key).unwrap();
        assert!(keeper.keep(checkpoint(2, &[(1, 1), (2, 1)])).unwrap().is_some());
        assert!(keeper.keep(checkpoint(3, &[(1, 1), (2, 1)])).unwrap().is_none(), "nothing has moved");
        assert!(keeper.keep(checkpoint(4, &[(1, 1), (2, 5)])).unwrap().is_some());
        // One that is half written is none.
        std::fs::write(folder.join(".checkpoint-0.json.partial"), "{").unwrap();
        let found: Vec<Checkpoint> =
            read(&folder).unwrap().iter().map(|(_, s)| s.open(&keeper.public_key()).unwrap()).collect();
        assert_eq!(found, [checkpoint(2, &[(1, 1), (2, 1)]), checkpoint(4, &[(2, 5)])]);
        std::fs::write(folder.join("checkpoint-x.json"), "{}").unwrap();
        assert!(matches!(read(&folder), Err(KeepError::NotOne { .. })), "what is damaged is not passed over");
    }

    #[test]
    fn a_key_that_is_none_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("audit.key");
        let missing = Keeper::open(dir.path(), &key).unwrap_err();
        std::fs::write(&key, "swordfish").unwrap();
        let wrong = Keeper::open(dir.path(), &key).unwrap_err();
        for error in [missing, wrong] {
            let text = error.to_string();
            assert!(text.contains("audit.key") && !text.contains("swordfish"), "{text}");
        }
    }
}
