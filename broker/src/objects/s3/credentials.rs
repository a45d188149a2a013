//! Credentials from a file, in the format of the AWS command line: `aws_access_key_id`, `aws_secret_access_key` and
//! `aws_session_token` lines, of the section `[default]` or of none. The file is looked at before each signature and read
//! again when it has changed, so that rotating it needs no restart. One file, so that there is no moment between two; or a folder, as
//! Kubernetes mounts a Secret: its files change all at once, with the link that they are behind.

use aws_credential_types::Credentials;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// No credentials file is longer, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The files of a folder.
const KEY_ID: &str = "access-key-id";
const KEY: &str = "secret-access-key";
const TOKEN: &str = "session-token";

/// What changes when a file does: device, inode, length, time of change. Of each that is read.
type Stamp = Vec<(u64, u64, u64, i64, i64)>;

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
        // All files of a mounted Secret are read behind one turn of its link.
        let folder = match meta.is_dir() {
            true => std::fs::canonicalize(self.path.join(KEY_ID))?.parent().map(Path::to_owned),
            false => None,
        };
        let Some(folder) = folder else {
            let stamp = vec![stamp(&meta)];
            return match last.filter(|(known, _)| *known == stamp) {
                Some((_, credentials)) => Ok((stamp, credentials.clone())),
                None => Ok((stamp, parse(&text(&self.path, &meta)?)?)),
            };
        };
        let mut found = Vec::with_capacity(3);
        for name in [KEY_ID, KEY, TOKEN] {
            let path = folder.join(name);
            match std::fs::metadata(&path) {
                Ok(meta) => found.push((path, meta)),
                Err(e) if name == TOKEN && e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let stamp: Stamp = found.iter().map(|(_, meta)| stamp(meta)).collect();
        if let Some((_, credentials)) = last.filter(|(known, _)| *known == stamp) {
            return Ok((stamp, credentials.clone()));
        }
        let mut values = Vec::with_capacity(3);
        for (path, meta) in &found {
            let value = text(path, meta)?.trim().to_owned();
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(io::Error::other("a file of the credentials is empty or has more than one line"));
            }
            values.push(value);
        }
        let mut values = values.into_iter();
        match (values.next(), values.next(), values.next()) {
            (Some(id), Some(secret), token) => {
                Ok((stamp, Credentials::new(id, secret, token, None, "folder")))
            }
            _ => Err(io::Error::other("the folder has no credentials")),
        }
    }
}

fn stamp(meta: &std::fs::Metadata) -> (u64, u64, u64, i64, i64) {
    (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())
}

fn text(path: &Path, meta: &std::fs::Metadata) -> io::Result<String> {
    if meta.len() > MAX_FILE {
        return Err(io::Error::other("the credentials file is too long"));
    }
    std::fs::read_to_string(path)
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

    #[test]
    fn a_mounted_secret_is_read_all_at_once_and_again_when_its_link_turns() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("newsroom");
        std::fs::create_dir(&secret).unwrap();
        let turn = |to: &str, files: &[(&str, &str)]| {
            std::fs::create_dir(secret.join(to)).unwrap();
            for (name, value) in files {
                std::fs::write(secret.join(to).join(name), value).unwrap();
            }
            std::os::unix::fs::symlink(to, secret.join("..new")).unwrap();
            std::fs::rename(secret.join("..new"), secret.join("..data")).unwrap();
        };
        for name in [KEY_ID, KEY, TOKEN] {
            std::os::unix::fs::symlink(format!("..data/{name}"), secret.join(name)).unwrap();
        }
        let credentials = FileCredentials::new(secret.clone());
        assert!(credentials.current().is_err());
        turn("..1", &[(KEY_ID, "a\n"), (KEY, "b")]);
        assert_eq!(ids(&credentials.current().unwrap()), ("a", "b", None));
        turn("..2", &[(KEY_ID, "c"), (KEY, "d"), (TOKEN, "t")]);
        assert_eq!(ids(&credentials.current().unwrap()), ("c", "d", Some("t")));
        turn("..3", &[(KEY_ID, "e"), (KEY, "two\nlines")]);
        assert_eq!(ids(&credentials.current().unwrap()), ("c", "d", Some("t")), "what was good still holds");
    }
}
