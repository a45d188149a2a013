//! Bodies and headers of the worker API: what passes between a supervisor and the broker, over mutual TLS.
//!
//! | call | body → answer | needs |
//! |---|---|---|
//! | `POST /worker/v1/enroll` | [`Enroll`] → [`Enrolled`] | a join token or a pod's token; no client certificate |
//! | `POST /worker/v1/renew` | [`Renew`] → [`Enrolled`] | client certificate |
//! | `POST /worker/v1/lease` | [`LeaseRequest`] → [`LeaseReply`] (long poll) | client certificate |
//! | `GET /worker/v1/attempts/{attempt}/inputs/{n}` | `Range` → 206 bytes | and the capability |
//! | `PUT /worker/v1/attempts/{attempt}/outputs/{n}/parts/{p}` | bytes → 204 | and the capability |
//! | `POST /worker/v1/attempts/{attempt}/inputs/{n}/url` | [`ReadUrl`] → [`UrlReply`] | and the capability, in a presigned pool |
//! | `POST /worker/v1/attempts/{attempt}/outputs/{n}/parts/{p}/url` | [`PartUrl`] → [`UrlReply`] | the same |
//! | `POST /worker/v1/attempts/{attempt}/outputs/{n}/parts/{p}/stored` | [`PartUrl`] → 204 | and the capability |
//! | `POST /worker/v1/attempts/{attempt}/heartbeat` | [`Heartbeat`] → [`HeartbeatReply`] | and the capability |
//! | `POST /worker/v1/attempts/{attempt}/complete` | [`Complete`] → 204 | and the capability |
//! | `POST /worker/v1/attempts/{attempt}/fail` | [`Fail`] → 204 | and the capability |
//! | `POST /worker/v1/attempts/{attempt}/release` | – → 204 | and the capability |
//!
//! The capability goes in `Authorization: Bearer`. It is bound to the worker's identity, the attempt and the lease's epoch;
//! once the lease is lost every call answers 409 and changes nothing. A part declares its length (`Content-Length`) and
//! digest ([`PART_DIGEST_HEADER`]) before its body; each but the last of an output is exactly [`crate::limits::PART_SIZE`] long,
//! and a part sent again must have the same digest. Of one output the first part goes alone, then
//! [`crate::limits::PARTS_AT_ONCE`] at once: one that is further ahead of those that are there is refused with 409.
//!
//! In a presigned pool the worker may ask for a URL for one range or one part, use it at once, and tell that a part is stored; the
//! broker then asks storage. A URL is for one object and method, with all that is signed into it, and for about a minute: the next
//! range or part needs another. A pool that is not presigned answers 403, and what storage's place does not allow `brokered`.

use crate::codec::{OutputKind, ProcessLimits};
use crate::endpoint::StorageEndpoint;
use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::ids::{AttemptId, PoolName, WorkerId};
use crate::task::{TaskResult, TaskSpec};
use crate::telemetry::{Counts, WorkerSpans};
use serde::{Deserialize, Serialize};

/// Header with a part's SHA-256: 64 lowercase hexadecimal digits.
pub const PART_DIGEST_HEADER: &str = "mpegflow-part-sha256";

/// What a new worker needs to find and trust its broker: a JSON file, given by path. With a `token` it holds a secret (mode 0600);
/// with a `token_file` it holds none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    /// The worker API's address, `host:port`.
    pub broker: String,
    /// The name in the broker's certificate.
    pub server_name: String,
    /// PEM certificate of the broker's CA; nothing else is trusted.
    pub ca: String,
    /// The join token; empty where there is a `token_file`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// A file with the token of the worker's own pod, which its kubelet renews; relative to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// The pool to serve. With a `token_file` for the log alone: the broker knows the pod's pool by its service account.
    pub pool: PoolName,
    /// What no worker may reach: it enrols once none of these answers, and the broker does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<ProbeTarget>,
    /// Storage of a presigned pool: the only addresses besides the broker's that the worker connects to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<StorageEndpoint>,
}

/// An address that no worker may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeTarget {
    /// What is there, for the log.
    pub name: String,
    /// Its address and TCP port.
    pub address: std::net::SocketAddr,
}

/// A worker asks for an identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The join token (`mfj_…`), or the token of the worker's own pod.
    pub token: String,
    /// PEM certificate signing request; the key was made in the worker and stays there. Only its public key is used.
    pub csr: String,
    /// The pool it wants to serve.
    pub pool: PoolName,
    /// Version of the worker, for the log.
    pub version: String,
}

/// A worker asks for a fresh certificate before the old one expires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// PEM certificate signing request. Only its public key is used; a pod's is the one it enrolled with.
    pub csr: String,
    /// The pod's token as it is now, from a worker that enrolled with one: a pod that is gone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A worker's identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Who it is; also in the certificate's SPIFFE URI, `spiffe://mpegflow/pool/{pool}/worker/{worker}`. Of a pod, its UID's bits.
    pub worker: WorkerId,
    /// PEM certificate chain, leaf first.
    pub certificate: String,
    /// Seconds until it expires; renew at half.
    pub expires_in_s: u64,
}

/// A worker asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// How long the broker may hold the call when there is nothing to do, in milliseconds; at most 30,000.
    pub wait_ms: u32,
}

/// The answer to a [`LeaseRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LeaseReply {
    /// Work.
    Lease(Box<Lease>),
    /// Nothing now; ask again.
    Idle {},
    /// This identity is bound to a tenant that has no work while others do: exit, so that a fresh process takes the place.
    Retire {},
}

/// One attempt at one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// Opaque; goes with every later call. A secret.
    pub capability: String,
    /// Milliseconds until the lease is lost unless a heartbeat renews it.
    pub lease_ms: u32,
    /// The work.
    pub task: TaskSpec,
    /// Inputs by position.
    pub inputs: Vec<InputSlot>,
    /// Outputs by position.
    pub outputs: Vec<OutputSlot>,
    /// Decoders and demuxers that are banned for now; the codec process is told. A worker that does not know the field refuses the
    /// lease rather than ignore a ban.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub banned: Vec<String>,
    /// Whether the attempt is traced: its heartbeats are to carry spans. Left out where it is not, so that a worker that does not know
    /// the field works on wherever nothing is traced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub traced: bool,
    /// What the codec process may use.
    pub limits: ProcessLimits,
    /// Threads an encoder or decoder may start.
    pub threads: u32,
    /// Milliseconds the attempt may take in all.
    pub deadline_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// An input of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSlot {
    /// Length in bytes.
    pub size: u64,
}

/// An output of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSlot {
    /// How the codec writes it.
    pub kind: OutputKind,
    /// The most bytes it may have.
    pub max_bytes: u64,
}

/// A worker says that it is alive, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// How far.
    pub progress: TaskProgress,
    /// New lines of the codec's log, cleaned and bounded by the worker and again by the broker.
    pub log: Vec<String>,
    /// Spans that are over and were not told yet; none of an attempt that is not traced.
    #[serde(default, skip_serializing_if = "WorkerSpans::is_empty")]
    pub spans: WorkerSpans,
    /// What was done since the last heartbeat that was answered.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub counts: Counts,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskProgress {
    /// Video frames (or audio packets) done.
    pub frames: u64,
    /// Media time done, in milliseconds.
    pub time_ms: u64,
    /// Media time over wall time, in thousandths (1000 is real time).
    pub speed_milli: u64,
    /// Input bytes read so far, each counted once per read.
    pub bytes_in: u64,
    /// Output bytes made so far.
    pub bytes_out: u64,
    /// Resident memory of the codec process in bytes.
    pub memory: u64,
}

/// The answer to a [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatReply {
    /// Milliseconds until the lease is lost, from now.
    pub lease_ms: u32,
    /// Stop: the job was canceled. Kill the codec and release.
    pub cancel: bool,
    /// Take no more work after this.
    pub drain: bool,
}

/// A task is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// What the codec found or made.
    pub result: TaskResult,
    /// Every output, by position; each was sent whole.
    pub outputs: Vec<OutputDigest>,
    /// Which locks held.
    pub evidence: Evidence,
}

/// An output as the worker sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDigest {
    /// Length in bytes.
    pub size: u64,
    /// Parts sent.
    pub parts: u32,
    /// SHA-256 over the parts' SHA-256 digests (32 bytes each, in order), hexadecimal. Of no parts: of nothing.
    pub digest: String,
}

/// A task failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// Why.
    pub failure: Failure,
    /// Which locks held, where it came that far.
    pub evidence: Option<Evidence>,
}

/// A worker of a presigned pool asks where to read a range of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadUrl {
    /// Its first byte.
    pub start: u64,
    /// The byte after its last one.
    pub end: u64,
}

/// A worker of a presigned pool asks where to write a part of an output, or says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartUrl {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256: 64 lowercase hexadecimal digits.
    pub sha256: String,
}

/// Where bytes are read or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum UrlReply {
    /// At storage.
    Signed(Box<Signed>),
    /// Through the broker.
    Brokered {},
    /// Nowhere: the part counts already.
    Stored {},
}

/// One request to storage, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// Its URL.
    pub url: SignedUrl,
    /// Headers that are signed, and go along exactly so: name and value.
    pub headers: Vec<(String, String)>,
    /// The addresses to connect to, of which one is enough. The URL's host is for TLS and for HTTP alone.
    pub addresses: Vec<std::net::SocketAddr>,
    /// PEM certificates of the only authorities to trust.
    pub ca: String,
}

/// A URL that is a secret for as long as it holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// Wraps one.
    pub const fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[signed url]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_url_is_not_in_a_debug_form() {
        let signed = Signed {
            url: SignedUrl::new("https://s3.test/b/k?X-Amz-Signature=1".into()),
            headers: vec![],
            addresses: vec![],
            ca: String::new(),
        };
        let text = format!("{:?}", UrlReply::Signed(Box::new(signed)));
        assert!(
            text.contains("[signed url]") && !text.contains("X-Amz") && !text.contains("s3.test"),
            "{text}"
        );
    }
}
