//! What goes wrong between the broker and storage, without a word of a URL or a key: an error may be logged anywhere.

use crate::objects::ObjectError;
use std::error::Error;
use std::io;

/// Why a request did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Storage refused or failed.
    #[error("storage answered {status} {code}")]
    Answer {
        /// HTTP status.
        status: u16,
        /// S3's error code; empty where there was none.
        code: String,
    },
    /// Storage cannot be reached, or the connection broke.
    #[error("the connection to storage failed")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing came for too long.
    #[error("storage did not answer in time")]
    Timeout,
    /// The answer is not one to the question.
    #[error("storage answered something else: {0}")]
    Strange(&'static str),
    /// The object is another version than the one that was asked for.
    #[error("storage has another version of the object")]
    Version,
    /// There are no credentials to sign with.
    #[error("there are no credentials")]
    Credentials(#[source] io::Error),
    /// The role that the credentials are for cannot be assumed.
    #[error("the role cannot be assumed: {0}")]
    Role(String),
    /// What came of the same question a moment ago; it is not asked again yet.
    #[error("{0}, a moment ago")]
    Lately(String),
    /// A request could not be made.
    #[error("the request cannot be made")]
    Request,
    /// What storage holds is not as long as it has to be.
    #[error("what storage holds is not as long as it has to be")]
    Length,
    /// What storage holds does not have the digest it has to have.
    #[error("what storage holds does not have the digest it has to have")]
    Digest,
    /// The broker's own disk failed.
    #[error("the spool failed")]
    Spool(#[source] io::Error),
}

impl Fault {
    /// An answer with a status that is no success. `code` is cut down to what an error code can be.
    pub(super) fn answer(status: u16, code: &str) -> Self {
        let code = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        Self::Answer { status, code }
    }

    /// Whether the same request may well work soon.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Timeout => true,
            // Credentials may just have been rotated, and the next request reads them again; or bits changed on the way.
            Self::Answer { status: 400 | 403 | 404, code } => matches!(
                code.as_str(),
                "ExpiredToken"
                    | "InvalidAccessKeyId"
                    | "XAdminUserNotFound"
                    | "RequestTimeout"
                    | "TokenRefreshRequired"
                    | "BadDigest"
                    | "XAmzContentChecksumMismatch"
            ),
            Self::Answer { status, .. } => matches!(status, 408 | 409 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// Whether it says that the session is over or not known, so that another one may do.
    pub(super) fn is_of_session(&self) -> bool {
        matches!(self, Self::Answer { status: 400 | 401 | 403, code }
            if matches!(code.as_str(), "ExpiredToken" | "InvalidToken" | "InvalidTokenId" | "InvalidAccessKeyId" | "TokenRefreshRequired"))
    }

    /// Whether storage says that a body does not have the digest in its request.
    pub(super) fn is_of_digest(&self) -> bool {
        matches!(self, Self::Answer { code, .. } if is_bad_digest(code))
    }

    /// Whether it says that the object or the multipart upload is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Answer { status: 404, code } if is_absence(code) || code == "NoSuchBucket")
    }

    /// The same for whoever asks again too soon.
    pub(super) fn lately(&self) -> Self {
        match self {
            Self::Answer { status, code } => Self::Answer { status: *status, code: code.clone() },
            Self::Lately(why) => Self::Lately(why.clone()),
            other => Self::Lately(other.to_string()),
        }
    }

    /// As the trait says it; `step` is what was being done.
    pub(super) fn during(self, step: &'static str) -> ObjectError {
        match self {
            Self::Answer { status: 404, code } if is_absence(&code) => ObjectError::Missing,
            Self::Answer { status: 412, .. } | Self::Version => ObjectError::Changed,
            Self::Answer { status: 416, .. } | Self::Length => ObjectError::Length,
            Self::Answer { status: 507, .. } => ObjectError::Full,
            Self::Answer { code, .. }
                if matches!(
                    code.as_str(),
                    "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded"
                ) =>
            {
                ObjectError::Full
            }
            Self::Answer { code, .. } if is_bad_digest(&code) => ObjectError::Digest,
            Self::Digest => ObjectError::Digest,
            Self::Spool(e)
                if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                ObjectError::Full
            }
            fault => ObjectError::Io { step, source: io::Error::other(fault) },
        }
    }
}

fn is_bad_digest(code: &str) -> bool {
    matches!(code, "BadDigest" | "XAmzContentChecksumMismatch")
}

/// Whether a code that comes with 404 is of what was asked for. An answer to HEAD has none; versitygw says 404 as well to whom it does
/// not know.
fn is_absence(code: &str) -> bool {
    matches!(code, "" | "NotFound" | "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_is_a_word() {
        let fault = Fault::answer(403, "SignatureDoesNotMatch\n<Key>tnt_1/x</Key>");
        assert_eq!(fault.to_string(), "storage answered 403 SignatureDoesNotMatchKeytnt1xKey");
        let long = Fault::answer(500, &"a".repeat(1_000)).to_string();
        assert_eq!(long.len(), "storage answered 500 ".len() + 64);
    }

    #[test]
    fn a_full_bucket_is_full_and_a_missing_one_is_not_a_missing_object() {
        assert!(matches!(Fault::answer(507, "InsufficientStorage").during("x"), ObjectError::Full));
        assert!(matches!(Fault::answer(404, "NoSuchKey").during("x"), ObjectError::Missing));
        for code in ["NoSuchBucket", "XAdminUserNotFound"] {
            assert!(matches!(Fault::answer(404, code).during("x"), ObjectError::Io { .. }), "{code}");
        }
        assert!(
            !Fault::answer(404, "XAdminUserNotFound").is_missing(),
            "nothing is removed by whom nobody knows"
        );
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Fault::Spool(full).during("x"), ObjectError::Full));
    }
}
