//! The digest of an object: SHA-256 over the SHA-256 digests of its 8 MiB parts, as
//! [`mpegflow_protocol::worker::OutputDigest`] defines it.

use aws_lc_rs::digest::{Context, SHA256};
use mpegflow_protocol::limits::PART_SIZE;

/// Digests a stream, however it is cut.
pub(crate) struct PartsDigest {
    whole: Context,
    part: Context,
    in_part: u64,
    size: u64,
}

impl PartsDigest {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        Self { whole: Context::new(&SHA256), part: Context::new(&SHA256), in_part: 0, size: 0 }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(PART_SIZE.saturating_sub(self.in_part)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.update(now);
            let len = u64::try_from(now.len()).unwrap_or(u64::MAX);
            self.in_part = self.in_part.saturating_add(len);
            self.size = self.size.saturating_add(len);
            if self.in_part == PART_SIZE {
                self.end_part();
            }
            bytes = later;
        }
    }

    fn end_part(&mut self) {
        let part = std::mem::replace(&mut self.part, Context::new(&SHA256));
        self.whole.update(part.finish().as_ref());
        self.in_part = 0;
    }

    /// Bytes so far.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The digest in lowercase hexadecimal.
    pub(crate) fn finish(mut self) -> String {
        if self.in_part > 0 {
            self.end_part();
        }
        hex(self.whole.finish().as_ref())
    }
}

/// Half of the SHA-256 of a few bytes, in lowercase hexadecimal.
pub(crate) fn short(bytes: &[u8]) -> String {
    let whole = hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref());
    whole.get(..32).unwrap_or(&whole).to_owned()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(&SHA256, bytes).as_ref().to_vec()
    }

    fn digest(bytes: &[u8], chunk: usize) -> String {
        let mut digest = PartsDigest::new();
        for piece in bytes.chunks(chunk) {
            digest.update(piece);
        }
        assert_eq!(digest.size(), bytes.len() as u64);
        digest.finish()
    }

    #[test]
    fn the_digest_is_over_the_digests_of_the_parts() {
        let part = PART_SIZE as usize;
        let bytes: Vec<u8> = (0..part + 3).map(|n| (n % 251) as u8).collect();
        let mut both = sha256(&bytes[..part]);
        both.extend(sha256(&bytes[part..]));
        assert_eq!(digest(&bytes, 1_000_003), hex(&sha256(&both)));
        assert_eq!(
            digest(&bytes[..part], part),
            hex(&sha256(&sha256(&bytes[..part]))),
            "a full part opens no empty one"
        );
        assert_eq!(digest(b"a", 1), hex(&sha256(&sha256(b"a"))));
    }

    #[test]
    fn of_no_parts_it_is_the_digest_of_nothing() {
        assert_eq!(
            PartsDigest::new().finish(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
