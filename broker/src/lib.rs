//! The strict broker: the only thing that workers and tenants talk to, and the only one that touches storage.
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | planning, as pure functions |
//! | [`state`] | the state machine of jobs, tasks and attempts, as decisions |
//! | [`model`] | the records both share with the adapters |
//! | [`audit`] | the audit log as arithmetic: chain, checkpoints, verifier |
//! | [`store`], [`queue`], [`objects`] | truth, dispatch index and bytes: traits, and the embedded adapters |
//! | [`conformance`] | the suite that every adapter passes |
//! | [`engine`] | what the broker does for tenants and workers, over the traits |
//! | [`ca`], [`capability`] | who a worker is, and what it may do |
//! | [`enrol`] | who a pod is, by its own token |
//! | [`oidc`], [`scopes`] | who a tenant is by a token, and what a key or token may do |
//! | [`trace`], [`otlp`] | what a span is; spans to a collector |
//! | [`http`] | the public API, the worker API and the metrics on the wire |
//! | [`embedded`] | all of it in one process |
//! | [`intake`] | what storage says when an object arrives |
//! | [`webhooks`] | signed messages to tenants' servers |
//! | [`config`] | one file, the environment and flags, resolved into one configuration |

pub mod audit;
mod batch;
mod bulk;
pub mod ca;
pub mod capability;
pub mod config;
pub mod conformance;
pub mod embedded;
pub mod engine;
pub mod enrol;
pub mod http;
pub mod intake;
pub mod lanes;
pub mod model;
pub mod objects;
pub mod oidc;
pub mod otlp;
pub mod plan;
pub mod queue;
pub mod scopes;
pub mod secret;
pub mod state;
pub mod store;
pub mod trace;
mod trust;
pub mod webhooks;
