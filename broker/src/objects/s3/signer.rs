//! What requests to a bucket are signed with: credentials of a file, or sessions of a role that those assume.

use super::config::S3Config;
use super::credentials::FileCredentials;
use super::fault::Fault;
use super::role::Sessions;
use super::wire::Wire;
use aws_credential_types::Credentials;
use std::io;

/// Where credentials are from.
pub(super) enum Signer {
    /// The bucket's own.
    File(FileCredentials),
    /// A role's.
    Role(Box<Sessions>),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// Reads the credentials; nobody is asked.
    pub(super) fn open(config: &S3Config, wire: &Wire) -> io::Result<Self> {
        let file = FileCredentials::new(config.credentials_file.clone());
        file.current()?;
        Ok(match &config.role {
            None => Self::File(file),
            Some(role) => Self::Role(Box::new(Sessions::new(config, role, file, wire.clone()))),
        })
    }

    /// Credentials that are good now.
    pub(super) async fn current(&self) -> Result<Credentials, Fault> {
        match self {
            Self::File(file) => file.current().map_err(Fault::Credentials),
            Self::Role(sessions) => sessions.current().await,
        }
    }

    /// Storage does not take the session any more.
    pub(super) fn forget(&self) {
        if let Self::Role(sessions) = self {
            sessions.forget();
        }
    }
}
