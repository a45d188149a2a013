//! Randomness, digests and text of them.

use aws_lc_rs::digest::{SHA256, digest};
use mpegflow_protocol::ids::{Id, Kind};
use std::fmt::Write as _;

/// A fresh id; later ones sort after earlier ones.
pub fn fresh_id<K: Kind>() -> Id<K> {
    Id::from_u128(uuid::Uuid::now_v7().as_u128())
}

/// 256 random bits.
///
/// # Errors
/// The system has no randomness; nothing may be made without it.
pub fn random() -> Result<[u8; 32], aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from exactly 64 lowercase hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(b.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    if text.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// Whether two digests are equal, in a time that does not depend on where they differ.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The digest of an output: SHA-256 over its parts' digests.
pub fn digest_of_parts<'a>(parts: impl Iterator<Item = &'a [u8; 32]>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    hex(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = sha256(b"a");
        assert_eq!(from_hex(&hex(&digest)), Some(digest));
        for bad in ["", &"0".repeat(63), &"A".repeat(64), &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(from_hex(bad), None);
        }
    }
}
