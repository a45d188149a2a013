//! How long storage is waited for, and how much is kept at once.

use std::time::Duration;

/// For a connection, TLS aside.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// For the answer to a control call.
pub(super) const CONTROL: Duration = Duration::from_secs(30);
/// For the answer to the call that completes a multipart upload: storage may put it together first.
pub(super) const COMPLETE: Duration = Duration::from_secs(300);
/// For the head of an answer with bytes.
pub(super) const HEAD: Duration = Duration::from_secs(30);
/// Nothing of a body comes for this long: it is given up. S3 itself closes an upload that is idle for 20 s.
pub(super) const IDLE: Duration = Duration::from_secs(15);
/// How long a signature holds. It is looked at when a request starts, so a long transfer outlives it.
pub(super) const SIGNED: Duration = Duration::from_secs(300);
/// A session of a role is replaced when this much of its life is left, or a quarter of it where that is less.
pub(super) const RENEW: Duration = Duration::from_secs(300);
/// Whoever renews a session waits no longer than this: the one that is there is good.
pub(super) const RENEW_WITHIN: Duration = Duration::from_secs(5);
/// STS that refused is not asked again for this long.
pub(super) const ROLE_PAUSE: Duration = Duration::from_secs(2);
/// Storage that did not answer whether it compares digests is not asked again for this long.
pub(super) const COMPARES_PAUSE: Duration = Duration::from_secs(5);
/// A session with less than this left is not used any more: requests that it signs have to arrive.
pub(super) const ROLE_LAST: Duration = Duration::from_secs(15);
/// A body that comes more slowly than this on the whole is given up, in bytes a second.
const SLOWEST: u64 = 32 << 10;
/// A control call's answer, in bytes.
pub(super) const CONTROL_BODY: usize = 8 << 20;
/// Tries of a request that can be repeated.
pub(super) const TRIES: u32 = 4;
/// The pause before the second try; it doubles with each.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Objects whose version is remembered, and multipart uploads.
pub(super) const REMEMBERED: usize = 4_096;
/// Deletions under way at once, in one call.
pub(super) const DELETIONS: usize = 8;

/// The most time that so many bytes may take.
pub(super) const fn allowance(bytes: u64) -> Duration {
    Duration::from_secs(60_u64.saturating_add(bytes / SLOWEST))
}
