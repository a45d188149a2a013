//! Bodies of the control API: what passes between a cluster's operator and the broker, over mutual TLS on a port of its own.
//!
//! | call | body → answer | needs |
//! |---|---|---|
//! | `POST /control/v1/enroll` | [`Enroll`] → [`crate::worker::Enrolled`] | the token of a pod of the operator's account |
//! | `PUT /control/v1/tenants/{id}` | [`Tenant`] → 204 | the operator's certificate |
//! | `PUT /control/v1/pools/{pool}` | [`Pool`] → 204 | the same |
//! | `DELETE /control/v1/pools/{pool}` | [`Forget`] → 204 | the same |
//! | `POST /control/v1/pools/{pool}/cordon` | [`Cordon`] → [`Cordon`], those that are | the same |
//! | `POST /control/v1/pools/{pool}/uncordon` | – → 204 | the same |
//! | `PUT /control/v1/pools/{pool}/verdicts/{node}` | [`Verdict`] → 204 | the same |
//! | `GET /control/v1/status` | – → [`Status`] | the same |
//!
//! The resource is the truth and the broker's row its copy, so that every call may be made again. A generation that is older than the
//! one that is here changes nothing and answers 409, and so does a name or an account that is another resource's.

use crate::api::WaitingReason;
use crate::endpoint::StorageEndpoint;
use crate::ids::{PoolName, TenantId};
use crate::intake::CreateRule;
use crate::webhook::MessageType;
use serde::{Deserialize, Serialize};

/// Largest answer.
pub const MAX_STATUS: usize = 32 << 20;
/// A verdict counts so many seconds at most, whatever it says.
pub const MAX_VERDICT_S: u32 = 3_600;
/// Most pods that one call cordons.
pub const MAX_CORDON: usize = 10_000;
/// Most webhooks that one resource manages.
pub const MAX_MANAGED_WEBHOOKS: usize = 8;
/// Most rules of the intake that one resource manages.
pub const MAX_MANAGED_RULES: usize = 8;

/// A pod of the operator asks for a certificate of an hour. It asks again at half of that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The pod's token.
    pub token: String,
    /// PEM certificate signing request. Only its public key is used.
    pub csr: String,
}

/// A tenant, as its resource says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the resource.
    pub observed_generation: u64,
    /// Its share of every pool; 100 is one share.
    pub weight: u32,
    /// Jobs that it may have unfinished at once; as for all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_jobs: Option<u32>,
    /// Tasks that it may have running at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_tasks: Option<u32>,
    /// Bytes of all its uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes: Option<u64>,
    /// Minutes of input of all jobs of a calendar day, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes_per_day: Option<u32>,
    /// Where its objects lie; where the broker's own do, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Webhooks that the resource manages: of these there are no others at the broker afterwards. Those that the tenant made itself
    /// are not touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Rules of the intake that the resource manages, as of webhooks. They need `storage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intake: Vec<Rule>,
}

/// A webhook that the resource manages. The broker makes its secret, and the tenant gets one by rotating it in the public API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its name in the resource, 1 to 63 characters; one of each.
    pub name: String,
    /// Where messages are posted, held to what is asked of every webhook.
    pub url: String,
    /// Which messages, one at least.
    pub types: Vec<MessageType>,
}

/// A rule of the intake that the resource manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name in the resource, 1 to 63 characters; one of each.
    pub name: String,
    /// What it says.
    pub rule: CreateRule,
}

/// Where a tenant's objects lie, and how the broker gets in: exactly one of `role_arn` and `secret`. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// The bucket.
    pub bucket: String,
    /// What every name begins with; empty, or with a slash at its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The endpoint; Amazon's for the region where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket is in the path of URLs, and not in the host's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
    /// The role that the broker assumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Name of the credentials among the secrets of the broker's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A pool, as its resource says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its namespace.
    pub namespace: String,
    /// The service account of its pods; no other pool has it.
    pub account: String,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the resource.
    pub observed_generation: u64,
    /// The tenant whose own it is; a shared pool has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Most workers with a certificate at once.
    pub max_workers: u32,
    /// It gives no more leases: it is being deleted.
    #[serde(default)]
    pub closed: bool,
    /// Digest of its policies. With it, a worker gets leases only where a fresh verdict says that they hold on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Storage that its workers fetch from themselves, through URLs that the broker signs. None: through the broker alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<StorageEndpoint>,
}

/// A pool is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// UID of the resource that is gone.
    pub uid: String,
}

/// Pods of a pool that get no more leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cordon {
    /// Their UIDs. In the answer, those that hold no lease and get none from now on; the others go on as they were.
    pub pods: Vec<String>,
}

/// Whether a pool's policies hold on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Digest of the policies that it is about.
    pub policy: String,
    /// Whether they do.
    pub verified: bool,
    /// What was found, as a sentence.
    pub reason: String,
    /// Seconds that it counts from now.
    pub expires_in_s: u32,
}

/// What the broker sees of the pools that were pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// By name.
    pub pools: Vec<PoolStatus>,
}

/// What the broker sees of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolStatus {
    /// Its name.
    pub pool: PoolName,
    /// UID of the resource.
    pub uid: String,
    /// The generation that this is about.
    pub observed_generation: u64,
    /// Tasks that wait.
    pub queued: u64,
    /// Workers that ask for a task now.
    pub idle: u64,
    /// Why tasks wait, where some do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Pods with a certificate.
    pub workers: Vec<Worker>,
    /// Digest of the policies that verdicts have to be about; none where it needs no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Verdicts on these policies that have not expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<NodeVerdict>,
}

/// A verdict that the broker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeVerdict {
    /// The node that it is about.
    pub node: String,
    /// Whether the policies hold there.
    pub verified: bool,
    /// What was found, as a sentence.
    pub reason: String,
    /// Seconds that it still counts.
    pub expires_in_s: u32,
}

/// Why tasks wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// For programs.
    pub reason: WaitingReason,
    /// For people.
    pub message: String,
}

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// UID of its pod.
    pub pod: String,
    /// Whether it holds a lease.
    pub busy: bool,
    /// Whether it gets no more.
    pub cordoned: bool,
    /// Whether it is bound to a tenant that has nothing while others do: another pod is to take its place.
    pub retired: bool,
}
