//! Credentials from a file, in the format of the AWS command line: `aws_access_key_id`, `aws_secret_access_key` and
//! `aws_session_token` lines, of the section `[default]` or of none. The file is looked at before each signature and read
//! again when it has changed, so that rotating it needs no restart. One file, so that there is no moment between two.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// No credentials file is longer, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What changes when a file does: device, inode, length, time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// A credentials file.
pub(super) struct FileCredentials {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Credentials)>>,
}

impl std::fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileCredentials(…)")
    }
}

impl FileCredentials {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// What the file says now. While a file that was good is missing or bad, what it said last still holds: it may be in the
    /// middle of being replaced.
    pub(super) fn current(&self) -> io::Result<Credentials> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.look(read.as_ref());
        match (found, &*read) {
            (Ok(fresh), _) => {
                let credentials = fresh.1.clone();
                *read = Some(fresh);
                Ok(credentials)
            }
            (Err(error), Some((_, last))) => {
                tracing::warn!(%error, "cannot read the storage credentials again; the last ones are used");
                Ok(last.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn look(&self, last: Option<&(Stamp, Credentials)>) -> io::Result<(Stamp, Credentials)> {
        let meta = std::fs::metadata(&self.path)?;
        let stamp = (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        if let Some((_, credentials)) = last.filter(|(known, _)| *known == stamp) {
            return Ok((stamp, credentials.clone()));
        }
        if meta.len() > MAX_FILE {
            return Err(io::Error::other("the credentials file is too long"));
        }
        Ok((stamp, parse(&std::fs::read_to_string(&self.path)?)?))
    }
}

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.current().map_err(CredentialsError::provider_error))
    }
}

fn parse(text: &str) -> io::Result<Credentials> {
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut ours = true;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            ours = section.trim_end_matches(']').trim() == "default";
        }
        let Some((name, value)) = line.split_once('=').filter(|_| ours && !line.starts_with(['#', ';']))
        else {
            continue;
        };
        let slot = match name.trim() {
            "aws_access_key_id" => &mut id,
            "aws_secret_access_key" => &mut secret,
            "aws_session_token" => &mut token,
            _ => continue,
        };
        *slot = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Credentials::new(id, secret, token, None, "file")),
        (None, _) => Err(io::Error::other("the credentials file has no aws_access_key_id")),
        (_, None) => Err(io::Error::other("the credentials file has no aws_secret_access_key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(c: &Credentials) -> (&str, &str, Option<&str>) {
        (c.access_key_id(), c.secret_access_key(), c.session_token())
    }

    #[test]
    fn the_default_section_or_none_is_read() {
        let plain = parse("aws_access_key_id=a\naws_secret_access_key = b=c/+\n").unwrap();
        assert_eq!(ids(&plain), ("a", "b=c/+", None));
        let text = "[other]\naws_access_key_id=x\n[default]\n# aws_access_key_id=y\naws_access_key_id=a\r\naws_secret_access_key=b\naws_session_token=t\nregion=z\n[more]\naws_session_token=u\n";
        assert_eq!(ids(&parse(text).unwrap()), ("a", "b", Some("t")));
        for bad in [
            "",
            "aws_access_key_id=a",
            "aws_secret_access_key=b",
            "[x]\naws_access_key_id=a\naws_secret_access_key=b",
            "aws_access_key_id=\naws_secret_access_key=b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replaced_file_is_read_again_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let credentials = FileCredentials::new(path.clone());
        assert!(credentials.current().is_err());
        let replace = |text: &str| {
            std::fs::write(dir.path().join("new"), text).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        replace("aws_access_key_id=a\naws_secret_access_key=b\n");
        assert_eq!(credentials.current().unwrap().access_key_id(), "a");
        replace("aws_access_key_id=c\naws_secret_access_key=d\n");
        assert_eq!(credentials.current().unwrap().access_key_id(), "c");
        replace("torn");
        assert_eq!(credentials.current().unwrap().access_key_id(), "c");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(credentials.current().unwrap().access_key_id(), "c");
        assert_eq!(format!("{credentials:?}"), "FileCredentials(…)");
    }
}
