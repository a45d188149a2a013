//! The Kubernetes operator: `Tenant` and `WorkerPool` become hardened Deployments that reach the broker and nothing else,
//! and that KEDA scales.
//!
//! | module | holds |
//! |---|---|
//! | [`crd`] | the two kinds, with bounds and CEL rules; their definitions as YAML |
//! | [`desired`] | from a pool to the objects it needs. Pure: no cluster, no clock |
//! | [`drift`] | whether an object of the cluster is still what was applied, and how to mend it. Pure |
//! | [`lease`] | leader election |
//! | [`cluster`] | what is read of and written to the API server |
//! | [`control`] | the broker's control API |
//! | [`gate`] | the isolation gate: canaries, verdicts |
//! | [`controller`] | watches, queues and reconcilers |
//! | [`settings`] | what the operator is told at its start |

pub mod cluster;
pub mod control;
pub mod controller;
pub mod crd;
pub mod desired;
pub mod drift;
pub mod gate;
pub mod lease;
pub mod settings;
