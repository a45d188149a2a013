//! HTTP: the public API, the worker API, the control API, the metrics. HTTP/1.1 only: bytes flow faster over it, and it has no resets to flood.

pub mod auth;
pub mod body;
pub mod control;
pub mod cors;
mod idle;
pub mod intake;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod public;
pub mod range;
pub mod serve;
pub mod sse;
pub mod tus;
pub mod webhooks;
pub mod worker;
