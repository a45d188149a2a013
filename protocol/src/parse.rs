//! JSON in and out, with errors that name the field.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes were not the value they should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The document is longer than this kind of document may be.
    #[error("{what} is {got} bytes long; at most {max} are accepted")]
    TooLong {
        /// What was being parsed.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The longest accepted, in bytes.
        max: usize,
    },
    /// The JSON is malformed, or a field has the wrong shape or an unknown name.
    #[error("{what}: field `{field}`: {reason}")]
    Field {
        /// What was being parsed.
        what: &'static str,
        /// Path of the field, such as `video.max_height`; `.` is the document itself.
        field: String,
        /// What is wrong with it. Holds no more than a few characters of the input.
        reason: String,
    },
}

/// Parses one JSON document of at most `max` bytes into `T`.
///
/// # Errors
/// [`ParseError::TooLong`] before anything is parsed, else [`ParseError::Field`] with the path of the first bad field.
pub fn from_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8], max: usize) -> Result<T, ParseError> {
    if bytes.len() > max {
        return Err(ParseError::TooLong { what, got: bytes.len(), max });
    }
    let field_error = |field: String, reason: &dyn std::fmt::Display| ParseError::Field {
        what,
        field: crate::text::clean(&field, 128),
        reason: crate::text::clean(&reason.to_string(), 256),
    };
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut de)
        .map_err(|e| field_error(e.path().to_string(), e.inner()))?;
    de.end().map_err(|e| field_error(".".into(), &e))?;
    Ok(value)
}

/// Serializes a value of this crate. Every type here has string keys only, so this cannot fail; should a later type
/// break that, the result is `null`, which every parser here refuses.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())
}
