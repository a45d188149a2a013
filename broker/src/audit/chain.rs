//! The chain of a tenant's events.
//!
//! Each entry's hash covers the one before it, its place and time, and the *digest* of what happened, which is salted. When a
//! tenant's data is erased, what happened and the salt go and the digest stays: the chain still holds, and nobody can find out
//! by trying what the digest was made from.

use aws_lc_rs::digest::{Context, SHA256};
use mpegflow_protocol::ids::TenantId;

/// The kind of an entry that records an erasure; no event of a job has it.
pub const ERASED: &str = "erased";

/// A place in a chain, and the hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Position, from 1; 0 before the first entry.
    pub seq: u64,
    /// The hash.
    pub hash: [u8; 32],
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// 128 random bits of this entry alone.
    pub salt: [u8; 16],
    /// The job; none where the chain speaks of itself.
    pub job: Option<String>,
    /// What kind of event.
    pub kind: String,
    /// The job's state after it.
    pub state: Option<String>,
    /// How far the job was, or the last entry that an erasure covers: JSON.
    pub stage: Option<String>,
    /// Why, where something failed: JSON.
    pub failure: Option<String>,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// An entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position, from 1.
    pub seq: u64,
    /// When it was chained, in milliseconds since 1970.
    pub chained_at: i64,
    /// Salted digest of the content.
    pub digest: [u8; 32],
    /// Hash over all that came before, this place and this digest.
    pub hash: [u8; 32],
    /// What happened; `None` once it was erased.
    pub content: Option<Content>,
}

/// The hash that a tenant's chain begins with.
pub fn genesis(tenant: TenantId) -> [u8; 32] {
    finish(&[b"mpegflow genesis 1\0", &tenant.as_u128().to_be_bytes()])
}

/// The digest of what happened. Each field is preceded by whether it is there and by its length, so that no two contents give
/// the same bytes.
pub fn digest(content: &Content) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"mpegflow event 1\0");
    context.update(&content.salt);
    let fields =
        [&content.job, &Some(content.kind.clone()), &content.state, &content.stage, &content.failure];
    for field in fields {
        match field {
            None => context.update(&[0]),
            Some(text) => {
                context.update(&[1]);
                context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
                context.update(text.as_bytes());
            }
        }
    }
    context.update(&content.at.to_be_bytes());
    out(context)
}

/// The hash of an entry after `before`.
pub fn link(tenant: TenantId, before: &[u8; 32], seq: u64, chained_at: i64, digest: &[u8; 32]) -> [u8; 32] {
    finish(&[
        b"mpegflow chain 1\0",
        before,
        &tenant.as_u128().to_be_bytes(),
        &seq.to_be_bytes(),
        &chained_at.to_be_bytes(),
        digest,
    ])
}

/// Puts what happened at the end of a chain.
pub fn append(tenant: TenantId, head: &mut Head, chained_at: i64, content: Content) -> Entry {
    let digest = digest(&content);
    head.seq = head.seq.saturating_add(1);
    head.hash = link(tenant, &head.hash, head.seq, chained_at, &digest);
    Entry { seq: head.seq, chained_at, digest, hash: head.hash, content: Some(content) }
}

/// What an erasure of everything up to and with `through` is recorded as.
pub fn erasure(salt: [u8; 16], through: u64, at: i64) -> Content {
    let stage = Some(format!("{{\"through\":{through}}}"));
    Content { salt, job: None, kind: ERASED.into(), state: None, stage, failure: None, at }
}

/// What an erasure of exactly these runs of entries, first and last of each, is recorded as.
pub fn erasure_of(salt: [u8; 16], ranges: &[(u64, u64)], at: i64) -> Content {
    let text = String::from_utf8_lossy(&mpegflow_protocol::to_json(&ranges)).into_owned();
    let stage = Some(format!("{{\"ranges\":{text}}}"));
    Content { salt, job: None, kind: ERASED.into(), state: None, stage, failure: None, at }
}

/// Rising positions as runs: first and last of each.
pub fn ranges_of(rising: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for seq in rising {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *seq => *last = *seq,
            _ => ranges.push((*seq, *seq)),
        }
    }
    ranges
}

/// The entries that an erasure covers, where the content records one: runs, first and last of each.
pub fn erased_by(content: &Content) -> Option<Vec<(u64, u64)>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Record {
        Through(u64),
        Ranges(Vec<(u64, u64)>),
    }
    if content.kind != ERASED || content.job.is_some() {
        return None;
    }
    match serde_json::from_str(content.stage.as_deref()?).ok()? {
        Record::Through(through) => Some(vec![(1, through)]),
        Record::Ranges(ranges) => Some(ranges),
    }
}

fn finish(pieces: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    pieces.iter().for_each(|piece| context.update(piece));
    out(context)
}

fn out(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}
