//! `Tenant`: whose work it is, and what it may use.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use super::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A tenant of the platform. Its name is what worker pools say in `spec.tenant` and what their pods carry as the label
/// `mpegflow.io/tenant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mpegflow.io",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "mft",
    category = "mpegflow",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "A tenant of the platform: who it is, what it may use, and which worker pools may work for it.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "ID", type_ = "string", json_path = ".spec.id"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight"),
    printcolumn(name = "Pools", type_ = "integer", json_path = ".status.pools"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes a label: at most 63 of a-z, 0-9 and -, without a - at either end")
)]
#[x_kube(
    validation = Rule::new("self.id == oldSelf.id").message("id is immutable: make another Tenant"),
    validation = Rule::new("!has(self.intake) || self.intake.size() == 0 || has(self.storage)")
        .message("intake takes objects of the tenant's own storage: say in storage where that is")
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The broker's id of the tenant: `tnt_` and 32 lowercase hexadecimal digits. Immutable.
    #[schemars(length(equal = 36), regex(pattern = r"^tnt_[0-9a-f]{32}$"))]
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub display_name: Option<String>,
    /// Its share where tenants compete: twice the weight, twice the work.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: u16,
    /// Limits; what is not said here is the broker's default. Others than these are set at the broker (`mpegflow-broker limits set`)
    /// and stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
    /// Where its objects lie; without it, where the broker's own do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ObjectStore>,
    /// Worker pools that may be its own, as `namespace/name`; `namespace/*` is all of a namespace. None unless they are
    /// named: a pool that says `spec.tenant` and is not in this list is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(max = 127),
            regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/([a-z0-9]([-a-z0-9]*[a-z0-9])?|\*)$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_pools: Vec<String>,
    /// Where messages about its jobs go, signed. The broker makes the secret of each, and the tenant gets one there:
    /// `mpegflow webhooks rotate`. Those that the tenant makes at the broker itself are not touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub webhooks: Vec<Webhook>,
    /// Rules by which objects that arrive in its own storage become jobs. Those that the tenant makes at the broker itself are not
    /// touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub intake: Vec<IntakeRule>,
}

/// Limits of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quotas {
    /// Tasks that run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub running: Option<u32>,
    /// Jobs that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub queued: Option<u32>,
    /// Bytes that are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes: Option<i64>,
    /// Minutes of input a calendar day, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub minutes_per_day: Option<u32>,
}

/// A bucket, and how the broker gets into it. Workers never do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.roleArn) != has(self.secret)").message("exactly one of roleArn and secret says how the broker signs in"),
    validation = Rule::new("!has(self.prefix) || self.prefix.endsWith('/')").message("prefix ends with a /, so that it is no other prefix's beginning")
)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][-a-z0-9.]*[a-z0-9]$"))]
    pub bucket: String,
    /// Where in the bucket; ends with a slash. No other tenant's may begin with it, nor it with another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 200), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9_./]*$"))]
    pub prefix: Option<String>,
    /// Another S3 than AWS's: `https://host` or `https://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 259), regex(pattern = r"^https://[-a-z0-9.]+(:[0-9]{1,5})?$"))]
    pub endpoint: Option<String>,
    /// Region, such as `eu-central-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: Option<String>,
    /// Whether the bucket is in the path of URLs, and not in the host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// The role that the broker assumes. Its trust policy has to demand the tenant's id, `spec.id`, as `sts:ExternalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 2048),
        regex(pattern = r"^arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$")
    )]
    pub role_arn: Option<String>,
    /// A Secret in the broker's namespace with the keys `access-key-id` and `secret-access-key`, mounted into the broker below
    /// `tenant_storage.secrets` of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretReference>,
}

/// A Secret in the broker's namespace. The operator does not read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Where messages about jobs go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its name, by which it is known as the same when all else of it changes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// An `https://` address without a user, a password or a fragment, in ASCII. The broker refuses what is not public, and other
    /// ports than its configuration names.
    #[schemars(
        length(max = 2048),
        regex(
            pattern = r"^https://([-A-Za-z0-9._]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][-A-Za-z0-9._~:/?@!$&'()*+,;=%]*)?$"
        )
    )]
    pub url: String,
    /// Which messages; at least one.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub types: Vec<MessageType>,
}

/// What a message is about, as messages spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MessageType {
    /// A job was created.
    #[serde(rename = "job.created")]
    Created,
    /// A job succeeded.
    #[serde(rename = "job.succeeded")]
    Succeeded,
    /// A job failed.
    #[serde(rename = "job.failed")]
    Failed,
    /// A job was canceled.
    #[serde(rename = "job.canceled")]
    Canceled,
}

impl From<MessageType> for mpegflow_protocol::webhook::MessageType {
    fn from(kind: MessageType) -> Self {
        match kind {
            MessageType::Created => Self::Created,
            MessageType::Succeeded => Self::Succeeded,
            MessageType::Failed => Self::Failed,
            MessageType::Canceled => Self::Canceled,
        }
    }
}

/// Which objects become which jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntakeRule {
    /// Its name, by which it is known as the same when all else of it changes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What keys begin with, below the tenant's prefix, such as `incoming/`; any where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 690))]
    pub prefix: Option<String>,
    /// What keys end with, such as `.mov`; any where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub suffix: Option<String>,
    /// Seconds between two looks at the storage. Where it is left out, events alone bring jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub poll_seconds: Option<u32>,
    /// Whether a look takes what was written up to 30 days before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<bool>,
    /// The job of each object: a job spec (`docs/job-v1.schema.json`) without `input`, at most 64 KiB.
    #[schemars(schema_with = "super::any_object")]
    pub job: Map<String, Value>,
}

/// What the operator sees of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Worker pools that name this tenant and are allowed to.
    #[serde(default)]
    pub pools: i32,
    /// Worker pools that name this tenant and are refused.
    #[serde(default)]
    pub refused_pools: i32,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

fn one() -> u16 {
    1
}

impl super::Readable for Tenant {
    fn least() -> Map<String, Value> {
        // No id: nothing is pushed of it, and no pool is anybody's by it.
        json!({ "id": "" }).as_object().cloned().unwrap_or_default()
    }
}

impl TenantSpec {
    /// Whether a worker pool may be this tenant's own.
    pub fn allows(&self, namespace: &str, pool: &str) -> bool {
        self.allowed_pools
            .iter()
            .filter_map(|entry| entry.split_once('/'))
            .any(|(ns, name)| ns == namespace && (name == "*" || name == pool))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_type_of_a_message_can_be_named_as_the_broker_spells_it() {
        for kind in mpegflow_protocol::webhook::MessageType::ALL {
            let named: MessageType = serde_json::from_value(kind.as_str().into()).unwrap();
            assert_eq!(mpegflow_protocol::webhook::MessageType::from(named), *kind);
        }
    }

    #[test]
    fn a_pool_is_allowed_by_its_name_or_its_namespace_and_not_by_absence() {
        let tenant = |pools: &[&str]| TenantSpec {
            id: format!("tnt_{}", "0".repeat(32)),
            display_name: None,
            weight: 1,
            quotas: None,
            storage: None,
            allowed_pools: pools.iter().map(|p| (*p).to_owned()).collect(),
            webhooks: Vec::new(),
            intake: Vec::new(),
        };
        assert!(!tenant(&[]).allows("media", "cpu"));
        assert!(tenant(&["media/cpu"]).allows("media", "cpu"));
        assert!(tenant(&["other/x", "media/*"]).allows("media", "cpu"));
        assert!(!tenant(&["media/cpu", "other/*"]).allows("media", "gpu"));
        assert!(!tenant(&["media/*"]).allows("media-2", "cpu"));
    }
}
