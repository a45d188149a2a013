//! The custom resources: `Tenant` and `WorkerPool` of `mpegflow.io/v1alpha1`. What may be written is said here once: types,
//! bounds and CEL rules become the definitions under chart/mpegflow-crds, and the API server enforces them.

mod condition;
mod manifest;
mod read;
mod tenant;
mod worker_pool;

pub use condition::{Condition, ConditionStatus};
pub use manifest::{definitions, to_yaml};
pub use read::{Read, Readable, Unread};
pub use tenant::{
    IntakeRule, MessageType, ObjectStore, Quotas, SecretReference, Tenant, TenantSpec, TenantStatus, Webhook,
};
pub use worker_pool::{
    Access, Class, Dialect, Encoder, Fallback, FallbackBehavior, Gpu, Isolation, IsolationLevel, LastScale,
    LockProfile, Operator, Quantity, Resources, Scale, Storage, Toleration, TolerationEffect, TopologySpread,
    WhenUnsatisfiable, WorkerPool, WorkerPoolSpec, WorkerPoolStatus,
};

use schemars::{Schema, SchemaGenerator, json_schema};

/// What somebody else checks: Kubernetes, or the broker.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
