//! The supervisor of a worker: leases tasks from the broker, feeds each to a fresh, locked codec process, and sends up what
//! it makes. No FFmpeg is linked here, and the codec is taken for hostile from its first media byte on.
//!
//! | module | holds |
//! |---|---|
//! | [`supervisor`] | the lease loop |
//! | [`attempt`] | one attempt: locks, reads, outputs, log, end |
//! | [`broker`] | the broker as a trait, without HTTP |
//! | [`http`] | the same over mutual TLS: enrolment, renewal, calls |
//! | [`probe`], [`canary`] | what can be reached from here, before anything else |
//! | [`shutdown`], [`settings`], [`backoff`], [`secret`] | what their names say |

pub mod attempt;
pub mod backoff;
pub mod broker;
pub mod canary;
pub mod http;
pub mod probe;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
