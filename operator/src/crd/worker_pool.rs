//! `WorkerPool`: workers of one kind, how many of them, and what they may reach.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

use super::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A pool of workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mpegflow.io",
    version = "v1alpha1",
    kind = "WorkerPool",
    plural = "workerpools",
    shortname = "wp",
    category = "mpegflow",
    namespaced,
    status = "WorkerPoolStatus",
    derive = "PartialEq",
    doc = "A pool of workers of one kind: their image and resources, how many there are, and what they may reach (the broker, and nothing else).",
    scale(
        spec_replicas_path = ".spec.scale.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Isolation", type_ = "string", json_path = r#".status.conditions[?(@.type=="IsolationVerified")].status"#),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.class"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.scale.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busy"),
    printcolumn(name = "Queued", type_ = "integer", json_path = ".status.queued"),
    printcolumn(name = "Waiting", type_ = "string", json_path = ".status.waiting"),
    printcolumn(name = "Policies", type_ = "string", json_path = ".status.policies", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes labels and names: at most 40 of a-z, 0-9 and -, with a letter first and no - last")
)]
#[x_kube(
    validation = Rule::new("has(self.tenant) == has(oldSelf.tenant) && (!has(self.tenant) || self.tenant == oldSelf.tenant)")
        .message("tenant is immutable: make another WorkerPool"),
    validation = Rule::new("self.class == oldSelf.class").message("class is immutable: make another WorkerPool"),
    validation = Rule::new("self.isolation.level == oldSelf.isolation.level")
        .message("isolation.level is immutable: make another WorkerPool"),
    validation = Rule::new("(self.class == 'gpu') == has(self.gpu)")
        .message("gpu belongs to class gpu, and class gpu needs it"),
    validation = Rule::new("(self.isolation.level == 'Sandboxed') == has(self.runtimeClassName)")
        .message("isolation.level Sandboxed needs the runtimeClassName of the sandbox, and Standard has none"),
    validation = Rule::new("!(self.isolation.level == 'Sandboxed' && has(self.gpu) && has(self.gpu.migProfile))")
        .message("a sandbox does not show MIG devices: use a whole GPU, or isolation.level Standard"),
    validation = Rule::new("!has(self.runtimeClassName) || !self.runtimeClassName.matches('gvisor|runsc')")
        .message("gVisor has no Landlock, without which no worker of this version runs: name a sandbox with a kernel of its own, such as Kata")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolSpec {
    /// Name of the Tenant whose own pool this is. Without it the pool is shared, and each of its pods works for one tenant.
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub tenant: Option<String>,
    /// What its workers are good for. Immutable.
    pub class: Class,
    /// The worker's image, by digest: `registry/name@sha256:…`.
    #[schemars(length(max = 512), regex(pattern = r"^[a-z0-9][-a-z0-9._/:]*@sha256:[0-9a-f]{64}$"))]
    pub image: String,
    /// What a worker gets. It is request and limit at once: a codec that is throttled or evicted is lost work.
    pub resources: Resources,
    /// Labels of nodes that workers may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that workers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// The pods' `affinity`, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::any_object")]
    pub affinity: Option<Value>,
    /// How workers spread over nodes and zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread: Vec<TopologySpread>,
    /// RuntimeClass of the pods; for `isolation.level: Sandboxed`. Its kernel has to have Landlock: Kata's has, gVisor has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub runtime_class_name: Option<String>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub priority_class_name: Option<String>,
    /// How many workers.
    #[serde(default)]
    pub scale: Scale,
    /// How workers come by bytes.
    #[serde(default)]
    pub storage: Storage,
    /// What stands around the workers.
    #[serde(default)]
    pub isolation: Isolation,
    /// The GPU of each worker; for class `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Seconds that a worker may take to finish its task when it is told to go; then the task is given back.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_grace_seconds: u32,
    /// Holds autoscaling: KEDA leaves `scale.replicas` alone. Scaling by hand still works.
    #[serde(default)]
    pub paused: bool,
}

/// What workers are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Decoding and encoding on processors.
    Cpu,
    /// With a GPU's encoders and decoders.
    Gpu,
}

/// An amount as Kubernetes writes it, such as `500m`, `2` or `3Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// So many of the unit, and as large as the API server takes them: `IntOrString` of its own API ends at 32 bits.
    Number(serde_json::Number),
    /// With a suffix, or without.
    Text(String),
}

/// What a worker gets, as request and limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Processors, such as `2` or `500m`.
    pub cpu: Quantity,
    /// Memory, such as `3Gi`.
    pub memory: Quantity,
    /// Room for unlinked files of outputs that must be sought, such as `4Gi`.
    #[serde(default = "two_gibibytes")]
    pub scratch: Quantity,
}

/// A taint that is tolerated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint; every one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// How the value is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; every one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
    /// How long a `NoExecute` taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// Any value.
    Exists,
    /// This value.
    Equal,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationEffect {
    /// No new pods.
    NoSchedule,
    /// No new pods if there is another node.
    PreferNoSchedule,
    /// No pods.
    NoExecute,
}

/// How pods spread over the values of a node label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Label of nodes, such as `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// How much more pods one value may have than another.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: u16,
    /// What to do where that is not possible.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What to do with a pod that would not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// Place it all the same.
    #[default]
    ScheduleAnyway,
    /// Let it wait.
    DoNotSchedule,
}

/// How many workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("min is at most max"),
    validation = Rule::new("!has(self.fallback) || self.fallback.replicas <= self.max").message("fallback.replicas is at most max")
)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Workers that are wanted now: the field of `/scale`, written by KEDA or `kubectl scale` (and, where `fallback` says so, by the operator),
    /// and kept within min and max.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: u16,
    /// Workers that there always are.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub min: u16,
    /// Workers that there are at most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: u16,
    /// Tasks, waiting or running, for one worker.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_per_worker: u16,
    /// How often KEDA asks for the depth of the queue.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 3600))]
    pub polling_seconds: u32,
    /// How long the queue must have been empty before the last worker goes.
    #[serde(default = "three_hundred")]
    #[schemars(range(min = 0, max = 86_400))]
    pub cooldown_seconds: u32,
    /// What is wanted while KEDA cannot read the depth. Without it nothing changes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What is wanted while the depth of the queue cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Failed polls before it counts.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u16,
    /// Workers then.
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: u16,
    /// Whether these many, or more if there are more.
    #[serde(default)]
    pub behavior: FallbackBehavior,
}

/// How a fallback counts what there is. The names are KEDA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum FallbackBehavior {
    /// An outage never shrinks a pool.
    #[default]
    #[serde(rename = "currentReplicasIfHigher")]
    CurrentReplicasIfHigher,
    /// Exactly that many.
    #[serde(rename = "static")]
    Static,
}

/// How workers come by bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("(self.access == 'Presigned') == (has(self.endpoints) && self.endpoints.size() > 0)")
    .message("endpoints belong to access Presigned, and Presigned needs at least one"))]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Through whom.
    #[serde(default)]
    pub access: Access,
    /// Storage that a presigned pool's workers may reach besides the broker: `ADDRESS:PORT` or `ADDRESS/BITS:PORT`, IPv6 in
    /// brackets: `192.0.2.10:443`, `198.51.100.0/24:443`, `[2001:db8::/64]:443`. Names are not taken: a worker has no DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(max = 64),
            regex(pattern = r"^([0-9.]+(/[0-9]{1,2})?|\[[0-9a-f:.]+(/[0-9]{1,3})?\]):[0-9]{1,5}$")
        )
    )]
    pub endpoints: Vec<String>,
}

/// Through whom workers come by bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// Through the broker alone.
    #[default]
    Brokered,
    /// From the storage itself, by addresses that the broker signs for one object and one attempt. Weaker.
    Presigned,
}

/// What stands around the workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// Whether a sandbox stands around the pod. Immutable.
    #[serde(default)]
    pub level: IsolationLevel,
    /// Network policies that are made besides NetworkPolicy, which always is. `Auto`: of every kind that the cluster knows.
    #[serde(default = "auto")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("!('Auto' in self) || self.size() == 1").message("Auto stands alone")
    )]
    pub dialects: Vec<Dialect>,
    /// How often canaries try the isolation from inside, on each node with workers; at least every half an hour. A verdict counts for two
    /// of these periods.
    #[serde(default = "three_hundred")]
    #[schemars(range(min = 60, max = 86_400))]
    pub canary_period_seconds: u32,
    /// The weakest set of locks that a worker's codec may run under: `Full`. Workers of this version refuse anything less, and so does
    /// this field.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == 'Full'")
        .message("workers of this version run under nothing less than Full: leave lockProfile out, and use nodes whose kernel has Landlock"))]
    pub lock_profile: LockProfile,
}

/// Whether a sandbox stands around the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum IsolationLevel {
    /// A hardened container and locked codec processes in it.
    #[default]
    Standard,
    /// The same in the sandbox of `runtimeClassName`, such as Kata.
    Sandboxed,
}

/// Kinds of network policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Dialect {
    /// Every kind that the cluster knows.
    Auto,
    /// NetworkPolicy of Kubernetes; always made.
    NetworkPolicy,
    /// CiliumNetworkPolicy.
    Cilium,
    /// NetworkPolicy of Calico.
    Calico,
}

/// Sets of locks around a codec process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LockProfile {
    /// Landlock, seccomp and limits.
    #[default]
    Full,
    /// Seccomp and limits, for kernels and sandboxes without Landlock. Refused by this version.
    NoLandlock,
}

/// The GPU of each worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.migProfile) || self.count == 1").message("a worker gets one MIG device"))]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Vendor part of the resource name.
    #[serde(default = "nvidia")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-z0-9][-a-z0-9.]*$"))]
    pub resource: String,
    /// GPUs for each worker.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub count: u16,
    /// A slice instead of a whole GPU, such as `1g.10gb+me`: the resource is then `nvidia.com/mig-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[1-9]g\.[0-9]+gb(\+me)?$"))]
    pub mig_profile: Option<String>,
    /// Encoders that the GPU has. Nothing of this version goes by it, so that it may not be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.size() == 0")
            .message("nothing of this version goes by gpu.encoders: leave it out, and give each model of GPU a pool of its own")
    )]
    pub encoders: Vec<Encoder>,
}

/// Encoders of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// H.264.
    H264,
    /// HEVC.
    Hevc,
    /// AV1.
    Av1,
}

/// What the operator sees of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that hold a task, as the broker says.
    #[serde(default)]
    pub busy: i32,
    /// Pods that ask for a task.
    #[serde(default)]
    pub idle: i32,
    /// Tasks that wait.
    #[serde(default)]
    pub queued: i64,
    /// Why tasks wait, as one word: the reasons that a job gives.
    // Written as null where it is none: a merge patch would leave what is not said.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub waiting: Option<String>,
    /// The same as a sentence.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub waiting_message: Option<String>,
    /// Selects the pods, for `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub selector: Option<String>,
    /// Kinds of network policies that stand around the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub policies: Vec<Dialect>,
    /// Digest of what verdicts on its isolation are about: its policies and what its pods are like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub policy_digest: Option<String>,
    /// Whether KEDA scales it.
    #[serde(default)]
    pub autoscaled: bool,
    /// The last change of the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<LastScale>,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A change of the number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastScale {
    /// From.
    pub from: i32,
    /// To.
    pub to: i32,
    /// Why.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// When, RFC 3339.
    #[schemars(length(max = 64))]
    pub time: String,
}

impl super::Readable for WorkerPool {
    fn least() -> Map<String, Value> {
        let least = json!({ "class": "cpu", "image": "", "resources": { "cpu": "1", "memory": "1Gi" } });
        least.as_object().cloned().unwrap_or_default()
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            replicas: 0,
            min: 0,
            max: ten(),
            target_per_worker: one(),
            polling_seconds: thirty(),
            cooldown_seconds: three_hundred(),
            fallback: None,
        }
    }
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            level: IsolationLevel::default(),
            dialects: auto(),
            canary_period_seconds: three_hundred(),
            lock_profile: LockProfile::default(),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The API server's own schema of a quantity.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": r"^([0-9]+|[0-9]*\.[0-9]+)([kMGTPE]i?|[mnu])?$",
            "maxLength": 32,
            // Else kube makes one that need not be written nullable, and a null is stored that nobody can read.
            "nullable": false,
        })
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

fn one() -> u16 {
    1
}

fn three() -> u16 {
    3
}

fn ten() -> u16 {
    10
}

fn thirty() -> u32 {
    30
}

fn three_hundred() -> u32 {
    300
}

fn two_gibibytes() -> Quantity {
    Quantity::Text("2Gi".into())
}

fn nvidia() -> String {
    "nvidia.com/gpu".into()
}

fn auto() -> Vec<Dialect> {
    vec![Dialect::Auto]
}
