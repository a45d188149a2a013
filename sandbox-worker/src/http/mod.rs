//! The worker API over HTTP/1.1 and mutual TLS, and storage of presigned pools. The only module that knows either.

mod call;
mod join;
mod session;
mod storage;
mod tls;

pub use join::{Join, JoinError, Token};
pub use session::{EnrollError, HttpBroker};
pub use storage::Storage;
