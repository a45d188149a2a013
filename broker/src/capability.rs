//! Capabilities: what a worker shows with every call about an attempt. Opaque to it; here, who may act on which attempt in
//! which epoch, under an HMAC. That the epoch is still the current one is for the store to say, at each change.

use crate::model::Claim;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mpegflow_protocol::ids::{AttemptId, WorkerId};

const PREFIX: &str = "mfc_";
const VERSION: u8 = 1;
/// Version, key id, attempt, worker, epoch.
const BODY: usize = 1 + 4 + 16 + 16 + 8;
const TAG: usize = 32;

/// Makes and checks capabilities.
pub struct Capabilities {
    key: hmac::Key,
    kid: [u8; 4],
}

impl std::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Capabilities(…)")
    }
}

impl Capabilities {
    /// With this key.
    pub fn new(secret: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = crate::secret::sha256(secret);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), kid: [a, b, c, d] }
    }

    /// The capability for a claim.
    pub fn grant(&self, claim: &Claim) -> String {
        let mut bytes = Vec::with_capacity(BODY + TAG);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.kid);
        bytes.extend_from_slice(&claim.attempt.as_u128().to_be_bytes());
        bytes.extend_from_slice(&claim.worker.as_u128().to_be_bytes());
        bytes.extend_from_slice(&claim.epoch.to_be_bytes());
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The claim of a capability that was made here.
    pub fn check(&self, text: &str) -> Option<Claim> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (body, tag) = bytes.split_at_checked(BODY)?;
        // Constant time, and before anything of the body is looked at.
        hmac::verify(&self.key, body, tag).ok()?;
        let (head, rest) = body.split_at_checked(5)?;
        if head.first() != Some(&VERSION) {
            return None;
        }
        let (attempt, rest) = rest.split_first_chunk::<16>()?;
        let (worker, rest) = rest.split_first_chunk::<16>()?;
        let (epoch, _) = rest.split_first_chunk::<8>()?;
        Some(Claim {
            attempt: AttemptId::from_u128(u128::from_be_bytes(*attempt)),
            worker: WorkerId::from_u128(u128::from_be_bytes(*worker)),
            epoch: u64::from_be_bytes(*epoch),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unaltered_capability_of_this_key_is_taken() {
        let claim = Claim { attempt: AttemptId::from_u128(7), worker: WorkerId::from_u128(8), epoch: 3 };
        let ours = Capabilities::new(&[1; 32]);
        let text = ours.grant(&claim);
        assert_eq!(ours.check(&text), Some(claim));
        assert_eq!(Capabilities::new(&[2; 32]).check(&text), None);
        for n in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[n] = if bytes[n] == b'A' { b'B' } else { b'A' };
            assert_eq!(ours.check(&String::from_utf8(bytes).unwrap()), None, "character {n}");
        }
        for bad in ["", "mfc_", &text[..text.len() - 1], &text[1..], "mfc_AAAA"] {
            assert_eq!(ours.check(bad), None);
        }
    }
}
